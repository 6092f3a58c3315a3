"""What the package has to tell goes to handlers that may use the state: after its locks are given back, and in order.

Nothing that waits is forgotten: `conftest.py` asks that of every test.
"""

from __future__ import annotations

import gc
import itertools
import logging
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
from tools.disks import Failing
from tools.edits import save_by_rename
from tools.processes import PATIENCE, Crowd, Fork

import pstate.logger
from pstate import PersistedState, WriteError, store
from pstate.file import limits

logger = pstate.logger.Logger("pstate.test")


class Handler(logging.Handler):
    """Does *use* for each record, in the thread that had it to tell."""

    def __init__(self, use: Callable[[], Any]) -> None:
        super().__init__()
        self._use = use
        self.records: list[logging.LogRecord] = []
        self.done = 0

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)
        self._use()
        self.done += 1

    @property
    def told(self) -> list[str]:
        return [record.getMessage().rpartition(": ")[2] for record in self.records]


@pytest.fixture
def crowd(tmp_path: Path) -> Iterator[Crowd]:
    with Crowd(tmp_path / "state.yaml") as crowd:
        yield crowd


@pytest.fixture
def listen() -> Iterator[Callable[[Callable[[], Any]], Handler]]:
    package = logging.getLogger("pstate")
    handlers: list[Handler] = []

    def add(use: Callable[[], Any]) -> Handler:
        handlers.append(Handler(use))
        package.addHandler(handlers[-1])
        return handlers[-1]

    level = package.level
    package.setLevel(logging.DEBUG)
    yield add
    package.setLevel(level)
    for handler in handlers:
        package.removeHandler(handler)


@pytest.fixture(autouse=True)
def _missing_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "MISSING", 0.0)
    monkeypatch.setattr(limits, "LOOK_INTERVAL", 0.0)


def until(done: Callable[[], Any]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not done():
        assert time.monotonic() < deadline
        time.sleep(0.001)


def use_all(state: Any) -> None:
    """In every way that there is, here and in another thread, which waits for nothing that we hold."""
    state.told += 1
    state.l.append(state.told)
    with state.transaction():
        state.told += 1
    state.snapshot()
    state.vacuum()
    thread = threading.Thread(target=setattr, args=(state, "other", True))
    thread.start()
    thread.join(5)
    assert not thread.is_alive(), "a lock was held while something was told"


def change(state: Any) -> None:
    state.n = 2


def change_list(state: Any) -> None:
    state.l.append(7)


def block(state: Any) -> None:
    with state.transaction():
        state.n = 2


def block_in_block(state: Any) -> None:
    with state.transaction(), state.transaction():
        state.n = 2


def failing_block(state: Any) -> None:
    with pytest.raises(ZeroDivisionError), state.transaction():
        raise ZeroDivisionError


DOES: dict[str, Callable[[Any], Any]] = {
    "change": change,
    "change of a list": change_list,
    "block": block,
    "block in a block": block_in_block,
    "block that fails": failing_block,
    "vacuum": lambda state: state.vacuum(),
}


@pytest.mark.parametrize("name", DOES)
def test_a_handler_may_use_the_state_that_has_something_to_tell(
    crowd: Crowd, listen: Callable[[Callable[[], Any]], Handler], name: str
) -> None:
    """Here, that its file was deleted and written again."""
    state = crowd.open(defaults={"n": 0, "told": 0, "l": [], "other": False}, lock_timeout=1)
    handler = listen(lambda: use_all(state))
    crowd.file.unlink()
    DOES[name](state)

    assert 2 == state.told == 2 * len(handler.records)
    assert state.other
    assert state.snapshot() == crowd.other().ask("state.snapshot()")


@pytest.mark.parametrize("name", ["read", "watch"])
def test_a_handler_may_use_the_state_that_tells_of_an_edit(
    crowd: Crowd, listen: Callable[[Callable[[], Any]], Handler], name: str
) -> None:
    state: Any = crowd.open(defaults={"n": 0, "told": 0, "l": [], "other": False}, lock_timeout=1)
    watch = state.watch() if name == "watch" else None
    state.vacuum()

    def use() -> None:
        use_all(state)
        if watch is not None:
            watch.poll()

    handler = listen(use)
    save_by_rename(crowd.file, crowd.file.read_bytes().replace(b'"n": 0', b'"n": 9'))
    until(lambda: (watch.poll() if watch is not None else state.n, handler.done)[1])

    assert (9, 1, 2) == (state.n, len(handler.records), state.told)
    if watch is not None:
        watch.close()


def test_a_handler_may_open_the_file_of_the_state_that_closes(
    crowd: Crowd, listen: Callable[[Callable[[], Any]], Handler]
) -> None:
    """Here, because it has taken over an edit just before."""
    state = crowd.open(defaults={"n": 0, "told": 0}, lock_timeout=1)
    state.vacuum()

    def use() -> None:
        with PersistedState.open(crowd.path, lock_timeout=1) as again:
            again["told"] += 1

    handler = listen(use)
    save_by_rename(crowd.file, crowd.file.read_bytes().replace(b'"n": 0', b'"n": 9'))
    state.close()
    assert {"n": 9, "told": len(handler.records)} == crowd.as_stranger()
    assert handler.records


def test_a_handler_may_use_the_state_that_is_opened(
    crowd: Crowd, listen: Callable[[Callable[[], Any]], Handler]
) -> None:
    """Here, because it has cut off what an interrupted write had left."""
    state = crowd.open(defaults={"n": 0, "told": 0})
    state.close(keep_journal=True)
    with open(crowd.path, "ab") as file:
        file.write(b'--- [["set",[],"n",')

    def use() -> None:
        with PersistedState.open(crowd.path, lock_timeout=1) as again:
            again["told"] += 1

    handler = listen(use)
    state = crowd.open()
    assert {"n": 0, "told": len(handler.records)} == state
    assert handler.records


def test_two_threads_and_the_lock_of_a_handler_do_not_wait_for_each_other(
    crowd: Crowd, listen: Callable[[Callable[[], Any]], Handler]
) -> None:
    """One has the state's lock and something to tell; the other one has the handler's, and wants the state."""
    state = crowd.open(defaults={"n": 0, "told": 0}, lock_timeout=None)
    in_handler, told = threading.Event(), threading.Event()

    def use() -> None:
        if threading.current_thread() is other:
            in_handler.set()
            assert told.wait(PATIENCE)  # until the other thread holds what it holds, and waits for us
            state.told += 1

    handler = listen(use)
    other = threading.Thread(target=lambda: logging.getLogger("pstate.test").warning("from another thread"))
    with state.transaction():
        state.n = 1
        other.start()
        assert in_handler.wait(PATIENCE)
        logger.warning("from within the block")  # as the package does
        told.set()
        assert "from within the block" not in handler.told
        state.n = 2
    other.join(PATIENCE)
    assert not other.is_alive(), "a deadlock"
    assert ["from another thread", "from within the block"] == handler.told
    assert (2, 1) == (state.n, state.told)


def test_a_record_says_when_and_where_it_was_made(crowd: Crowd, listen: Callable[[Callable[[], Any]], Handler]) -> None:
    """Not when and where it was handed over; and in the order in which it was made."""
    state = crowd.open(defaults={"n": 0})
    handler = listen(lambda: None)
    thread = threading.Thread(target=lambda: told_in_a_block(state, crowd), name="the one")
    thread.start()
    thread.join()

    assert ["first", "second", "third"] == handler.told
    first, second, third = handler.records
    for record in (first, second):
        assert ("pstate.test", "the one", thread.ident) == (record.name, record.threadName, record.thread)
        assert (__file__, "told_in_a_block") == (record.pathname, record.funcName)
        assert os.getpid() == record.process
        assert int(record.created % 1 * 1000) == record.msecs
    assert (logging.INFO, logging.ERROR) == (first.levelno, second.levelno)
    assert first.lineno + 3 == second.lineno
    assert first.created + 0.2 <= second.created
    assert 199 <= second.relativeCreated - first.relativeCreated <= (second.created - first.created) * 1000 + 1
    assert second.created + 0.2 <= third.created, "it was made after the block"
    assert ("%d: second", (2,)) == (second.msg, second.args)


def told_in_a_block(state: Any, crowd: Crowd) -> None:
    with state.transaction():
        logger.info("first")
        time.sleep(0.2)
        state.n = 1
        logger.error("%d: second", 2)
        time.sleep(0.2)
    logger.warning("third")


def test_what_was_told_in_a_change_that_fails_is_told(
    crowd: Crowd, listen: Callable[[Callable[[], Any]], Handler]
) -> None:
    fs = Failing()
    state = PersistedState.open(crowd.path, defaults={"n": 0, "told": 0}, fs=fs)
    state.n = 1

    def use() -> None:
        fs.failing = set()
        state.told += 1

    handler = listen(use)
    with open(crowd.path, "ab") as file:
        file.write(b'--- [["set",[],"n",')
    fs.failing = {"truncate"}
    with pytest.raises(WriteError):
        state.n = 2
    assert (1, len(handler.records), len(handler.records)) == (state.n, state.told, len(handler.told))
    assert handler.told
    state.close()


def test_a_handler_that_raises_does_not_keep_the_rest_from_being_told(
    crowd: Crowd, listen: Callable[[Callable[[], Any]], Handler]
) -> None:
    """Its exception is that of the call, as everywhere where `logging` is used; the locks are free."""
    state = crowd.open(defaults={"n": 0})
    failing = True

    def fail() -> None:
        if failing:
            raise ZeroDivisionError

    handler = listen(fail)
    with pytest.raises(ZeroDivisionError), state.transaction():
        state.n = 1
        logger.info("first")
        logger.info("second")
    failing = False
    state.n = 2
    assert ["first", "second"] == handler.told
    assert 2 == crowd.other().ask("state.n")


def test_what_a_handler_has_to_tell_comes_after_what_it_was_called_for(
    crowd: Crowd, listen: Callable[[Callable[[], Any]], Handler]
) -> None:
    """For every handler, also the second one."""
    state = crowd.open(defaults={"n": 0, "told": 0})

    def use() -> None:
        if state.told < 3:
            with state.transaction():
                state.told += 1
                logger.info("%d", state.told)

    first = listen(use)
    second = listen(lambda: None)
    with state.transaction():
        logger.info("0")
        logger.info("00")
    assert ["0", "00", "1", "2", "3"] == first.told == second.told


def test_the_block_of_another_state_of_the_thread_is_waited_for_too(
    crowd: Crowd, tmp_path: Path, listen: Callable[[Callable[[], Any]], Handler]
) -> None:
    state = crowd.open(defaults={"n": 0})
    handler = listen(lambda: None)
    with PersistedState(tmp_path / "second.yaml", n=0) as second, second.transaction():
        with state.transaction():
            logger.info("told")
        state.n = 1
        thread = threading.Thread(target=logger.info, args=("by a thread without locks",))
        thread.start()
        thread.join()
        assert ["by a thread without locks"] == handler.told
    assert ["by a thread without locks", "told"] == handler.told


def test_record_factories_and_filters_may_use_the_state(
    crowd: Crowd, listen: Callable[[Callable[[], Any]], Handler], monkeypatch: pytest.MonkeyPatch
) -> None:
    state = crowd.open(defaults={"n": 0, "made": 0, "passed": 0})
    usual = logging.getLogRecordFactory()

    def make(*args: Any, **kwargs: Any) -> logging.LogRecord:
        state.made += 1
        return usual(*args, **kwargs)

    def passes(record: logging.LogRecord) -> bool:
        state.passed += 1
        return True

    handler = listen(lambda: None)
    handler.addFilter(passes)
    logging.setLogRecordFactory(make)
    try:
        crowd.file.unlink()
        state.n = 1
    finally:
        logging.setLogRecordFactory(usual)
    assert (1, 1, 1) == (state.made, state.passed, len(handler.records))


def test_a_level_that_nobody_wants_makes_no_record(
    crowd: Crowd, listen: Callable[[Callable[[], Any]], Handler]
) -> None:
    state = crowd.open(defaults={"n": 0})
    handler = listen(lambda: None)
    logging.getLogger("pstate").setLevel(logging.ERROR)
    with state.transaction():
        logger.warning("not wanted")
        logger.error("wanted")
    assert ["wanted"] == handler.told


def test_a_forked_child_does_not_tell_what_the_parent_has_to_tell(
    crowd: Crowd, listen: Callable[[Callable[[], Any]], Handler]
) -> None:
    state = crowd.open(defaults={"n": 0})
    handler = listen(lambda: None)
    with state.transaction():
        logger.info("the parent's")
        child = Fork(lambda: (state.snapshot(), logger.info("the child's"), handler.told))
        assert ["the child's"] == child.result()[2]
    assert ["the parent's"] == handler.told


def test_an_end_in_another_thread_tells_after_it(crowd: Crowd, listen: Callable[[Callable[[], Any]], Handler]) -> None:
    """The finalizer of a block that another thread had entered has something to tell."""
    state = crowd.open(defaults={"n": 0, "told": 0, "l": [], "other": False}, lock_timeout=1)
    handler = listen(lambda: use_all(state))
    blocks = [state.transaction()]
    ready, end = threading.Event(), threading.Event()

    def enter() -> None:
        blocks[0].__enter__()
        state.n = 1
        ready.set()
        end.wait(PATIENCE)

    thread = threading.Thread(target=enter)
    thread.start()
    assert ready.wait(PATIENCE)
    blocks.clear()
    assert 1 == len(handler.records)
    assert (0, 2) == (state.n, state.told)
    end.set()
    thread.join()


def test_stores_that_the_collector_takes_meanwhile_do_not_disturb_who_asks_for_locks(tmp_path: Path) -> None:
    """A weak reference that ends leaves the set of all stores, at any allocation."""
    threshold = gc.get_threshold()
    try:
        for allocations in range(20):
            gc.disable()
            gc.collect()
            for number in range(50):
                one = store.Store(str(tmp_path / f"{number}.yaml"))
                one.path = one  # type: ignore[assignment]  # a cycle, which only the collector ends
            del one
            gc.set_threshold(gc.get_count()[0] + allocations)
            gc.enable()
            assert not store._holds_a_lock()
    finally:
        gc.set_threshold(*threshold)
        gc.enable()


def test_an_interruption_at_any_line_holds_no_later_message_back(caplog: pytest.LogCaptureFixture) -> None:
    left = 0

    def trace(frame: FrameType, event: str, argument: object) -> Any:
        nonlocal left
        if frame.f_code.co_filename != pstate.logger.__file__:
            return None
        if event in ("line", "return"):
            left -= 1
            if left == 0:
                raise KeyboardInterrupt
        return trace

    for place in itertools.count(1):
        left = place
        before = sys.gettrace()
        sys.settrace(trace)
        try:
            logger.warning("interrupted")
        except KeyboardInterrupt:
            pass
        finally:
            sys.settrace(before)
        logger.warning("%d is told", place)
        assert f"{place} is told" in caplog.text
        if left > 0:
            break
    assert place > 10
