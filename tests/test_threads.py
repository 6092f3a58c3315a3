"""Threads of one process: none sees another's transaction, none loses a count, and one file is one state.

A reader cannot prove that it never saw something by looking once. So one thread changes and undoes without pause, and
gives the others the word in the middle, while another looks by every way there is; what it saw is compared afterwards
with what it may see.
"""

from __future__ import annotations

import asyncio
import contextlib
import copy
import gc
import json
import os
import pickle
import queue
import random
import re
import sys
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
import yaml
from tools.homes import file_only
from tools.interrupts import expect_opcodes, trace_opcodes
from tools.processes import PATIENCE, Crowd

from pstate import ClosedError, LockTimeout, PatchedError, PersistedState, TransactionError, store
from pstate.file.fs import FileSystem
from pstate.store import Store


class Abort(Exception):
    """What a test leaves a transaction with."""


@pytest.fixture
def crowd(address: str) -> Iterator[Crowd]:
    with Crowd(address) as crowd:
        yield crowd


@pytest.fixture(autouse=True)
def _restless() -> Iterator[None]:
    """Threads take turns as often as the interpreter can."""
    usual = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(usual)


class Task:
    """A thread whose exception and result are not lost."""

    def __init__(self, body: Callable[[], Any]) -> None:
        self._body = body
        self._error: BaseException | None = None
        self._result: Any = None
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    def _run(self) -> None:
        try:
            self._result = self._body()
        except BaseException as error:
            self._error = error

    @property
    def is_running(self) -> bool:
        return self.thread.is_alive()

    def result(self) -> Any:
        self.thread.join(PATIENCE)
        assert not self.thread.is_alive(), "the thread hangs"
        if self._error is not None:
            raise self._error
        return self._result


# What the state is between the transactions, and what is done to it in each before all is undone.
CONTENT: dict[str, Any] = {
    "n": 0,
    "d": {"x": 0, "y": {"z": 0}},
    "l": [0, 0, [0]],
    "s": {0},
    "big": {str(i): 0 for i in range(20)},
}


def soil(state: Any) -> None:
    state.n = 1
    state.d.x = 1
    yield_turn()
    state.d.y.z = 1
    state.l[0] = 1
    state.l.append(1)
    yield_turn()
    state.l[2].append(1)
    state.s.add(1)
    state.new = state.newer = 1
    yield_turn()
    state.big.more = 1
    state.big.update(dict.fromkeys(state.big, 1))
    state.d.pop("x")
    del state.s
    yield_turn()


def yield_turn() -> None:
    time.sleep(0)  # not to wait: to let another thread run just now


LOOKS: dict[str, Callable[[Any], Any]] = {
    "attribute": lambda state: state.n,
    "item": lambda state: state["n"],
    "get": lambda state: state.get("new"),
    "contains": lambda state: "new" in state,
    "nested": lambda state: state.d.y.z,
    "nested get": lambda state: state.d.get("x"),
    "nested contains": lambda state: "x" in state.d,
    "index": lambda state: state.l[0],
    "last": lambda state: state.l[-1],
    "slice": lambda state: state.l[:2],
    "len": len,
    "len of a dict": lambda state: len(state.d),
    "len of a list": lambda state: len(state.l),
    "len of a set": lambda state: len(state.get("s", ())),
    "index of": lambda state: state.l.index(0),
    "count": lambda state: state.l.count(0),
    "member": lambda state: 1 in state.s if "s" in state else None,
    "keys": list,
    "keys of a dict": lambda state: list(state.d),
    "values": lambda state: sum(state.big.values()),
    "items": lambda state: list(state.big.items()),
    "dict": lambda state: dict(state.big),
    "unpacked": lambda state: {**state.big},
    "iteration": lambda state: [each for each in state.big],  # noqa: C416
    "list": lambda state: list(state.l[2]),
    "list iteration": lambda state: len([each for each in state.l]),  # noqa: C416
    "reversed": lambda state: next(reversed(state.l)) == [0],
    "equality": lambda state: state == CONTENT,
    "equality of a dict": lambda state: state.d == CONTENT["d"],
    "equality of a list": lambda state: state.l == CONTENT["l"],
    "order of a list": lambda state: state.l[2] < [0, 0],
    "truth": lambda state: bool(state.d),
    "repr": repr,
    "repr of a dict": lambda state: repr(state.d),
    "str of a list": lambda state: str(state.l),
    "snapshot": lambda state: state.snapshot(),
    "deepcopy": copy.deepcopy,
    "deepcopy of a list": lambda state: copy.deepcopy(state.l),
    "copy": lambda state: state.d.copy(),
    "json": lambda state: json.dumps(state.d),
    "json of big": lambda state: json.dumps(state.big),
    "yaml": lambda state: yaml.safe_dump(state.d),
    "pickle": lambda state: pickle.loads(pickle.dumps(state.d)),
    "union": lambda state: state.d | {},
    "concatenation": lambda state: state.l + [],  # noqa: RUF005
    "pattern": lambda state: matched(state.d),
}


def matched(value: Any) -> Any:
    match value:
        case {"x": 0, "y": {"z": 0}}:
            return "clean"
        case _:
            return "soiled"


@pytest.mark.parametrize("name", LOOKS)
def test_no_thread_sees_another_threads_transaction(crowd: Crowd, name: str) -> None:
    """Nor what was rolled back, however quickly the next transaction does the same again."""
    state = crowd.open(defaults=CONTENT)
    look = LOOKS[name]
    expected = look(state)
    ended = threading.Event()

    def reader() -> None:
        while not ended.is_set():
            assert look(state) == expected, "saw a transaction of another thread"

    task = Task(reader)
    try:
        for _ in range(40):
            with pytest.raises(Abort), state.transaction():
                soil(state)
                assert look(state) != expected or name in ("truth",)
                raise Abort
    finally:
        ended.set()
    task.result()
    assert state == CONTENT


class Interloper:
    """Another thread that soils the state and cleans it again, at two chosen instructions of a read in this thread."""

    def __init__(self, state: Any) -> None:
        self.state = state
        self.orders: queue.SimpleQueue[str] = queue.SimpleQueue()
        self.done: queue.SimpleQueue[str] = queue.SimpleQueue()
        self.block: Any = None
        self.counted = 0
        self.plan: tuple[int, int] = (-1, -1)
        self.task = Task(self._serve)

    def _serve(self) -> None:
        while (order := self.orders.get(timeout=PATIENCE)) != "end":
            if order == "soil":
                self.block = self.state.transaction()
                self.block.__enter__()
                self.state.d.update(x=1, new=1)
                self.state.l[:] = [1, 2, 3, 4]
            else:
                self.block.__exit__(Abort, Abort(), None)
                self.block = None
            self.done.put(order)

    def order(self, what: str) -> None:
        if (what == "soil") == (self.block is None):
            self.orders.put(what)
            assert what == self.done.get(timeout=PATIENCE)

    def _traced(self, frame: FrameType, event: str, argument: Any) -> Any:
        name = os.path.basename(frame.f_code.co_filename)
        if name not in (
            "nodes.py",
            "dicts.py",
            "lists.py",
            "sets.py",
            "views.py",
            "frames.py",
            "state.py",
            "store.py",
            "log.py",
        ):
            return None
        if frame.f_code.co_name == "read" and name == "store.py":
            # From here on the reader has the mutex: who soils waits for it.
            self.order("clean")
            self.plan = (-1, -1)
            return None
        trace_opcodes(frame, self._traced)
        if event == "opcode":
            if self.counted == self.plan[0]:
                self.order("soil")
            elif self.counted == self.plan[1]:
                self.order("clean")
            self.counted += 1
        return self._traced

    def disturbed(self, look: Callable[[Any], Any], plan: tuple[int, int] = (-1, -1)) -> Any:
        """The result of *look*, soiled before instruction *plan*[0] and cleaned before *plan*[1]."""
        self.counted, self.plan = 0, plan
        look(self.state)  # so that the next look is a fresh one
        usual = sys.gettrace()
        expect_opcodes()
        sys.settrace(self._traced)
        try:
            return look(self.state)
        finally:
            sys.settrace(usual)
            self.order("clean")


ONE_VALUE: dict[str, Callable[[Any, Any], Any]] = {
    "attribute": lambda d, _: d.x,
    "missing attribute": lambda d, _: hasattr(d, "new"),
    "item": lambda d, _: d["x"],
    "get": lambda d, _: d.get("new"),
    "contains": lambda d, _: "new" in d,
    "len": lambda d, _: len(d),
    "index": lambda _, items: items[0],
    "len of a list": lambda _, items: len(items),
}


@file_only("about memory, which all engines share; thousands of looks would each be a round trip")
@pytest.mark.pure
@pytest.mark.parametrize("name", ONE_VALUE)
def test_a_read_is_not_deceived_between_any_two_of_its_instructions(crowd: Crowd, name: str) -> None:
    """Clean when it begins, clean when it ends, and soiled in between: the value must not be from there."""
    state = crowd.open(defaults=CONTENT)
    d, items = state.d, state.l
    interloper = Interloper(state)

    def look(_: Any) -> Any:
        return ONE_VALUE[name](d, items)

    try:
        expected = interloper.disturbed(look)
        instructions = interloper.counted
        assert instructions > 5
        for first in range(instructions):
            for second in range(first + 1, instructions + 1):
                assert expected == interloper.disturbed(look, (first, second)), (first, second)
    finally:
        interloper.orders.put("end")
        interloper.task.result()
    assert CONTENT == state


@pytest.mark.parametrize("way", ["exception", "rollback", "savepoint"])
def test_a_value_is_never_one_that_was_rolled_back(crowd: Crowd, way: str) -> None:
    """Clean, soiled, clean again (ABA): who looks before and after must not believe what was between."""
    state = crowd.open(defaults={"n": 0, "d": {"n": 0}})
    ended = threading.Event()
    seen: set[Any] = set()

    def reader() -> None:
        inner = state.d
        while not ended.is_set():
            seen.update((state.n, inner.n, state["n"], inner["n"]))

    tasks = [Task(reader) for _ in range(2)]
    for _ in range(300):
        if way == "savepoint":
            with state.transaction():
                with pytest.raises(Abort), state.transaction():
                    state.n = state.d.n = 1
                    raise Abort
        elif way == "rollback":
            with state.transaction() as block:
                state.n = state.d.n = 1
                block.rollback()
        else:
            with pytest.raises(Abort), state.transaction():
                state.n = state.d.n = 1
                raise Abort
    ended.set()
    for task in tasks:
        task.result()

    assert {0} == seen


def test_a_thread_sees_a_transaction_when_it_is_committed_and_whole(crowd: Crowd) -> None:
    state = crowd.open(defaults={"a": 0, "d": {"b": 0}, "l": [0, 0]})
    ended = threading.Event()

    def reader() -> int:
        last = 0
        while not ended.is_set():
            a = state.a
            seen = state.snapshot()
            assert seen["a"] == seen["d"]["b"] == seen["l"][0] == seen["l"][1]
            assert last <= a <= seen["a"], "went back"
            values = list(state.l)
            assert values[0] == values[1]
            last = seen["a"]
        return last

    tasks = [Task(reader) for _ in range(2)]
    for i in range(1, 150):
        with state.transaction():
            state.a = i
            state.d.b = i
            yield_turn()
            state.l[:] = [i, i]
    ended.set()
    for task in tasks:
        task.result()


def test_a_call_that_makes_many_changes_is_seen_whole(crowd: Crowd) -> None:
    """`update`, `extend`, a slice: one commit each, for threads too."""
    state = crowd.open(defaults={"d": dict.fromkeys(map(str, range(30)), 0), "l": [0] * 30})
    ended = threading.Event()

    def reader() -> None:
        while not ended.is_set():
            assert 1 == len(set(state.d.values()))
            assert 1 == len(set(state.l))
            assert len(state.l) % 30 == 0

    task = Task(reader)
    for i in range(60):
        state.d.update(dict.fromkeys(state.d, i))
        state.l[:] = [i] * 30
        state.l.extend([i] * 30)
        del state.l[30:]
    ended.set()
    task.result()


def test_four_threads_count_exactly(crowd: Crowd) -> None:
    state = crowd.open(defaults={"n": 0, "d": {"n": 0}, "log": []})

    def count(name: int) -> None:
        for i in range(50):
            with state.transaction():
                state.n += 1
                state.d.n += 1
            state.log.append([name, i])

    for task in [Task(partial(count, name)) for name in range(4)]:
        task.result()

    assert 200 == state.n == state.d.n
    assert sorted([name, i] for name in range(4) for i in range(50)) == sorted(state.log)
    assert 200 == crowd.other().ask("state.n")


def test_threads_and_processes_count_exactly_together(crowd: Crowd) -> None:
    state = crowd.open(defaults={"n": 0}, lock_timeout=60)
    others = [crowd.other(lock_timeout=None) for _ in range(2)]
    for other in others:
        other.tell("""
            import threading
            def count():
                for i in range(25):
                    increment(state)
            threads = [threading.Thread(target=count) for _ in range(2)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        """)

    def count() -> None:
        for i in range(25):
            with state.transaction():
                state.n += 1
            if i % 10 == 0:
                state.vacuum()

    for task in [Task(count), Task(count)]:
        task.result()
    for other in others:
        other.answer()

    assert 150 == state.n


def test_a_decorated_function_counts_exactly(crowd: Crowd) -> None:
    """One decorator, used by all threads at the same time."""
    state = crowd.open(defaults={"n": 0})

    @state.transaction()  # type: ignore[untyped-decorator]
    def step() -> None:
        n = state.n
        yield_turn()
        state.n = n + 1

    def many() -> None:
        for _ in range(40):
            step()

    for task in [Task(many) for _ in range(3)]:
        task.result()
    assert 120 == state.n


def held_by_a_thread(state: Any) -> tuple[Task, threading.Event]:
    """A transaction with a change, in a thread, until the event is set."""
    entered, leave = threading.Event(), threading.Event()

    def hold() -> None:
        with state.transaction():
            state.n = 99
            entered.set()
            assert leave.wait(PATIENCE)

    task = Task(hold)
    assert entered.wait(PATIENCE)
    return task, leave


def test_a_transaction_waits_for_another_threads_as_long_as_it_may(crowd: Crowd) -> None:
    state = crowd.open(defaults={"n": 0})
    task, leave = held_by_a_thread(state)
    for timeout in (0, 0.05):
        with pytest.raises(LockTimeout, match="thread") as caught, state.transaction(timeout=timeout):
            pytest.fail("entered")
        assert timeout <= caught.value.waited < 5
        assert os.getpid() == caught.value.holder
        assert crowd.path == caught.value.path
    leave.set()
    task.result()

    assert 99 == state.n
    with state.transaction(timeout=0):
        state.n = 1
    assert 1 == state.n


def test_a_transaction_waits_for_another_threads_by_lock_timeout(crowd: Crowd) -> None:
    state = crowd.open(defaults={"n": 0}, lock_timeout=0.05)
    task, leave = held_by_a_thread(state)
    with pytest.raises(LockTimeout), state.transaction():
        pytest.fail("entered")
    leave.set()
    task.result()
    assert 99 == state.n


def test_a_reader_and_a_writer_wait_for_another_threads_transaction(crowd: Crowd) -> None:
    """Their turn comes when it is over, and they see what it made."""
    state = crowd.open(defaults={"n": 0, "l": []})
    task, leave = held_by_a_thread(state)
    reader = Task(lambda: state.n)
    writer = Task(lambda: state.l.append("after"))
    snapshot = Task(state.snapshot)
    leave.set()
    task.result()
    writer.result()

    assert 99 == reader.result()
    assert 99 == snapshot.result()["n"]
    assert ["after"] == state.l


def test_a_lock_timeout_in_a_thread_leaves_nothing_locked(crowd: Crowd) -> None:
    """A thread that could not have the file's lock must give back the threads' lock too."""
    state = crowd.open(defaults={"n": 0}, lock_timeout=0)
    other = crowd.other()
    other.enter("state.n = 5")

    def refused() -> None:
        with pytest.raises(LockTimeout), state.transaction():
            pytest.fail("entered")
        with pytest.raises(LockTimeout):
            state.n = 1
        with pytest.raises(LockTimeout):
            state.vacuum()

    Task(refused).result()
    assert 0 == state.n
    other.leave()
    with state.transaction(timeout=0):
        state.n += 1
    assert 6 == state.n


def test_a_loop_walks_what_was_there_when_it_began_while_a_thread_changes_it(crowd: Crowd) -> None:
    state = crowd.open(defaults={"d": dict.fromkeys(map(str, range(20)), 1), "l": list(range(20)), "s": set(range(20))})
    ended = threading.Event()

    def change() -> None:
        while not ended.is_set():
            state.d.clear()
            state.d.update(dict.fromkeys(map(str, range(20)), 1))
            state.l[5:] = []
            state.l.extend(range(5, 20))
            state.s.clear()
            state.s.update(range(20))

    task = Task(change)
    for _ in range(25):
        assert len(list(state.d.items())) in (0, 20)
        assert sum(1 for _ in state.d) in (0, 20)
        assert [each for each in state.l] in ([*range(5)], [*range(20)])  # noqa: C416
        assert sum(1 for _ in state.s) in (0, 20)
    ended.set()
    task.result()


def test_close_waits_for_another_threads_transaction(crowd: Crowd) -> None:
    state = crowd.open(defaults={"n": 0})
    task, leave = held_by_a_thread(state)
    closer = Task(state.close)
    leave.set()
    task.result()
    closer.result()

    crowd.home().expect_tidy({"n": 99})
    with pytest.raises(ClosedError):
        Task(lambda: state.n).result()


def test_a_thread_that_ends_in_a_transaction_by_an_exception_frees_it(crowd: Crowd) -> None:
    state = crowd.open(defaults={"n": 0})

    def fail() -> None:
        with state.transaction():
            state.n = 1
            raise Abort

    with pytest.raises(Abort):
        Task(fail).result()
    with state.transaction(timeout=0):
        assert 0 == state.n


USES: dict[str, Callable[[Any], Any]] = {
    "change": lambda state: setattr(state, "n", 1),
    "change of a list": lambda state: state.l.append(1),
    "delete": lambda state: state.pop("n"),
    "transaction": lambda state: state.transaction().__enter__(),
    "read": lambda state: state.n,
    "whole": lambda state: state.snapshot(),
    "iteration": lambda state: list(state.l),
    "comparison": lambda state: state == {},
    "vacuum": lambda state: state.vacuum(),
    "close": lambda state: state.close(),
    "history": lambda state: list(state.history()),
    "watch": lambda state: state.watch(),
    "open": lambda state: PersistedState.open(state.__reduce__()[1][1], lock_timeout=0.1),
    "thread lock": lambda state: state._thread_lock.__enter__(),
}


@pytest.mark.parametrize("name", USES)
def test_what_waits_for_another_threads_transaction_waits_as_long_as_lock_timeout(crowd: Crowd, name: str) -> None:
    state = crowd.open(defaults={"n": 0, "l": []}, lock_timeout=0.1)
    task, leave = held_by_a_thread(state)
    begun = time.monotonic()
    with pytest.raises(LockTimeout) as caught:
        USES[name](state)

    assert 0.1 <= time.monotonic() - begun < 5
    assert (0.1 <= caught.value.waited < 5, os.getpid(), crowd.path) == (True, caught.value.holder, caught.value.path)
    assert task.thread.name == caught.value.thread
    name = re.escape(repr(task.thread.name))
    assert re.search(
        rf"the thread {name} of this process, which has been in a transaction for \d\.\d s", str(caught.value)
    )
    leave.set()
    task.result()
    assert {"n": 99, "l": []} == state.snapshot()
    state.n = 1
    assert 1 == crowd.other().ask("state.n")


def test_what_waits_for_a_thread_that_waits_for_a_process_waits_as_long_as_lock_timeout(crowd: Crowd) -> None:
    """That thread has no transaction yet, but all that others need. Its wait may be a long one."""
    state = crowd.open(defaults={"n": 0}, lock_timeout=0.1)
    other = crowd.other()
    other.enter("state.n = 5")

    def enter() -> None:
        with state.transaction(timeout=PATIENCE):
            state.n += 1

    task = Task(enter)
    while state._store.mutex.acquire(blocking=False):
        state._store.mutex.release()
        yield_turn()
    for use in (lambda: setattr(state, "n", 1), state.snapshot):
        with pytest.raises(LockTimeout, match="of this process, which is in the middle") as caught:
            use()
        assert task.thread.name == caught.value.thread
        assert caught.value.waited < 5
    other.leave()
    task.result()
    assert 6 == state.n


def test_without_any_time_to_wait_a_thread_still_waits_for_the_change_of_another_one(crowd: Crowd) -> None:
    """That takes microseconds, and nobody means it by lock_timeout=0."""
    state = crowd.open(defaults={"n": 0, "l": []}, lock_timeout=0)

    def use() -> None:
        for i in range(200):
            state.n = i
            state.l.append(i)
            state.snapshot()

    for task in [Task(use) for _ in range(3)]:
        task.result()
    assert 600 == len(state.l)


# ---------------------------------------------------------------------- blocks that end elsewhere, or in no order


class Room:
    """A thread that does what it is told, until it is told to end."""

    def __init__(self) -> None:
        self._orders: queue.SimpleQueue[Callable[[], Any] | None] = queue.SimpleQueue()
        self._answers: queue.SimpleQueue[tuple[Any, BaseException | None]] = queue.SimpleQueue()
        self.task = Task(self._serve)

    def _serve(self) -> None:
        while (order := self._orders.get(timeout=PATIENCE)) is not None:
            try:
                self._answers.put((order(), None))
            except BaseException as error:
                self._answers.put((None, error))
            del order

    def do(self, order: Callable[[], Any]) -> Any:
        self.begin(order)
        return self.answer()

    def begin(self, order: Callable[[], Any]) -> None:
        self._orders.put(order)

    def answer(self) -> Any:
        answer, error = self._answers.get(timeout=PATIENCE)
        if error is not None:
            raise error
        return answer

    def end(self) -> None:
        self._orders.put(None)
        self.task.result()


@pytest.fixture
def room() -> Iterator[Room]:
    room = Room()
    yield room
    room.end()


def is_usable(crowd: Crowd, state: Any, expected: dict[str, Any]) -> None:
    """By every thread and every process, and memory is what the file is."""
    assert expected == state.snapshot() == Task(state.snapshot).result() == crowd.other().ask("state.snapshot()")
    crowd.others[-1].run("state.n = 11")
    with state.transaction(timeout=0):
        state.n += 1
    Task(lambda: setattr(state, "n", state.n + 1)).result()
    assert 13 == crowd.others[-1].ask("state.n")


@pytest.mark.parametrize("locking", ["file", "filelock", "portalocker"])
@pytest.mark.parametrize("fails", [False, True])
def test_a_block_that_is_left_in_another_thread_is_rolled_back_and_ends(
    tmp_path: Path, room: Room, locking: str, fails: bool
) -> None:
    """As FastAPI does with the code around the `yield` of a dependency."""
    with Crowd(tmp_path / "state.yaml", locking) as crowd:
        state = crowd.open(defaults={"n": 0, "l": [1]}, lock_timeout=1)

        @contextlib.contextmanager
        def dependency() -> Iterator[None]:
            with state.transaction():
                yield

        block = dependency()
        room.do(block.__enter__)
        room.do(lambda: setattr(state, "n", 5))
        room.do(lambda: state.l.append(2))
        if fails:
            assert not block.__exit__(Abort, Abort(), None)
        else:
            with pytest.raises(TransactionError, match="left in another thread"):
                block.__exit__(None, None, None)

        assert {"n": 0, "l": [1]} == room.do(state.snapshot)
        is_usable(crowd, state, {"n": 0, "l": [1]})
        room.do(lambda: setattr(state, "n", 7))
        assert 7 == state.n


def test_who_waits_for_a_block_goes_on_when_it_is_left_in_another_thread(crowd: Crowd, room: Room) -> None:
    state = crowd.open(defaults={"n": 0})
    block = state.transaction()
    room.do(block.__enter__)
    room.do(lambda: setattr(state, "n", 5))
    tasks = [Task(lambda: state.n), Task(lambda: setattr(state, "m", 1)), Task(lambda: state.transaction().__enter__())]
    with pytest.raises(TransactionError):
        block.__exit__(None, None, None)
    assert 0 == tasks[0].result()
    for task in tasks[1:]:
        task.result()  # the last one ends in its block
    is_usable(crowd, state, {"n": 0, "m": 1})


def test_rolling_back_in_another_thread_is_refused_with_nothing_done(crowd: Crowd, room: Room) -> None:
    state = crowd.open(defaults={"n": 0})
    block = state.transaction()
    room.do(block.__enter__)
    room.do(lambda: setattr(state, "n", 5))
    with pytest.raises(TransactionError, match="Nothing was done"):
        block.rollback()
    assert 5 == room.do(lambda: state.n)
    room.do(lambda: block.__exit__(None, None, None))
    assert 5 == state.n


@pytest.mark.parametrize("first", ["inner", "outer"])
def test_a_block_within_a_block_that_is_left_in_another_thread_ends_both(crowd: Crowd, room: Room, first: str) -> None:
    """The thread that entered them may still be in the other one: what it changes there is refused, not committed."""
    state = crowd.open(defaults={"n": 0}, lock_timeout=1)
    outer, inner = state.transaction(), state.transaction()
    room.do(outer.__enter__)
    room.do(lambda: setattr(state, "n", 1))
    room.do(inner.__enter__)
    room.do(lambda: setattr(state, "n", 2))
    one, two = (inner, outer) if first == "inner" else (outer, inner)
    with pytest.raises(TransactionError):
        one.__exit__(None, None, None)
    with pytest.raises(TransactionError, match="rolled back"):
        room.do(lambda: setattr(state, "n", 3))
    assert 0 == room.do(lambda: state.n)
    with pytest.raises(TransactionError):
        room.do(lambda: two.__exit__(None, None, None))
    is_usable(crowd, state, {"n": 0})


@pytest.mark.parametrize("work", ["scalar", "list", "both"])
def test_a_block_that_is_left_while_its_thread_is_at_work_in_it_harms_nothing(crowd: Crowd, work: str) -> None:
    """At any moment: what that thread does then belongs to the block, or comes after it."""
    state = crowd.open(defaults={"n": 0, "l": []}, lock_timeout=PATIENCE)
    for _ in range(60):
        block, entered, ended = state.transaction(), threading.Event(), threading.Event()

        def change(block: Any = block, entered: threading.Event = entered, ended: threading.Event = ended) -> None:
            block.__enter__()
            state.inside = True
            entered.set()
            while not ended.is_set():
                if work != "list":
                    state.n = state.n + 1
                if work != "scalar":
                    state.l.append(1)
                    state.l.clear()

        task = Task(change)
        assert entered.wait(PATIENCE)
        with pytest.raises(TransactionError):
            block.__exit__(None, None, None)
        assert "inside" not in state
        ended.set()
        task.result()
        assert state.snapshot() == PersistedState.open(crowd.path, read_only=True).snapshot()
        state.n = 0
        state.l[:] = []
    is_usable(crowd, state, {"n": 0, "l": []})


def test_blocks_that_several_threads_leave_at_once_end_once(crowd: Crowd) -> None:
    """Committed by their own thread, which is told of anything else, or rolled back; while others wait for their turn.

    What is drawn: whether there are two blocks, what the thread does in them, who leaves which one and when.
    """
    chance = random.Random(7)
    state = crowd.open(defaults={"n": 0, "l": [], "counted": 0}, lock_timeout=PATIENCE)
    ended = threading.Event()

    def count() -> int:
        counted = 0
        while not ended.is_set():
            with state.transaction():
                state.counted += 1
            counted += 1
        return counted

    def own(number: int, blocks: list[Any], entered: threading.Event, how: str, steps: int) -> bool:
        for block in blocks:
            block.__enter__()
        state.inside = number
        entered.set()
        with contextlib.suppress(TransactionError):
            for _ in range(steps):
                state.l.append(1)
                state.n = state.n
                if how == "reads":
                    state.snapshot()
                elif how == "nests":
                    with state.transaction():
                        state.l.clear()
        ends = []
        for block in reversed(blocks):
            try:
                block.__exit__(None, None, None)
                ends.append(True)
            except TransactionError:
                ends.append(False)
        return ends[-1]

    def leave(block: Any, turns: int) -> None:
        for _ in range(turns):
            yield_turn()
        with contextlib.suppress(TransactionError):
            block.__exit__(None, None, None)

    counters = [Task(count) for _ in range(2)]
    ends = []
    for number in range(1, 150):
        blocks = [state.transaction() for _ in range(chance.choice((1, 1, 2)))]
        entered, how, steps = threading.Event(), chance.choice(("reads", "nests", "")), chance.randrange(20)
        owner = Task(partial(own, number, blocks, entered, how, steps))
        assert entered.wait(PATIENCE)
        others = [
            Task(partial(leave, chance.choice(blocks), chance.randrange(5))) for _ in range(chance.choice((1, 2)))
        ]
        for other in others:
            other.result()
        ends.append(owner.result())
        assert ends[-1] is (state.get("inside") == number)
        state.l[:] = []
    ended.set()
    assert {True, False} == set(ends)
    assert sum(counter.result() for counter in counters) == state.counted
    state.pop("counted")
    state.pop("inside")
    state.n = 0
    is_usable(crowd, state, {"n": 0, "l": []})


WHILE_IT_ENDS: dict[str, Callable[[Any, Any], Any]] = {
    "leave": lambda state, block: block.__exit__(None, None, None),
    "leave by an exception": lambda state, block: block.__exit__(Abort, Abort(), None),
    "change": lambda state, block: setattr(state, "n", 7),
    "change of a list": lambda state, block: state.l.append(7),
    "read": lambda state, block: state.n,
    "nest": lambda state, block: state.transaction().__enter__().__exit__(None, None, None),
    "roll back": lambda state, block: block.rollback(),
}


@pytest.mark.parametrize("name", WHILE_IT_ENDS)
def test_what_a_thread_does_while_another_one_ends_its_block_waits_for_that(
    crowd: Crowd, room: Room, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """From the moment on in which the other one looks whether it is at work."""
    state = crowd.open(defaults={"n": 0, "l": []})
    block, looks, go_on = state.transaction(), threading.Event(), threading.Event()
    room.do(block.__enter__)
    room.do(lambda: setattr(state, "n", 5))
    is_at_work = Store._is_at_work

    def look(self: Store, thread: int) -> bool:
        looks.set()
        assert go_on.wait(PATIENCE)
        return is_at_work(self, thread)

    monkeypatch.setattr(Store, "_is_at_work", look)
    leaving = Task(lambda: block.__exit__(None, None, None))
    assert looks.wait(PATIENCE)
    room.begin(lambda: WHILE_IT_ENDS[name](state, block))
    deadline = time.monotonic() + PATIENCE
    while not is_in(room.task.thread, Store._wait):
        assert time.monotonic() < deadline, "it does not wait"
        yield_turn()
    go_on.set()
    with pytest.raises(TransactionError):
        leaving.result()
    with pytest.raises(TransactionError) if name == "leave" else contextlib.nullcontext():
        assert 0 == (room.answer() if name == "read" else room.answer() or 0)
    is_usable(crowd, state, {"n": 7 if name == "change" else 0, "l": [7] if name == "change of a list" else []})


def is_in(thread: threading.Thread, function: Any) -> bool:
    """Whether *thread* is at work in *function*, or in what that has called."""
    frame = sys._current_frames().get(thread.ident or 0)
    while frame is not None and frame.f_code is not function.__code__:
        frame = frame.f_back
    return frame is not None


@file_only("makes a write of the file hang")
def test_a_thread_that_does_not_come_out_of_its_commit_keeps_its_block(crowd: Crowd, room: Room) -> None:
    """On a disk that hangs, for instance. A thread that wants to end the block gets an error, and changes nothing."""
    fs, hangs, begun, go_on = FileSystem(), threading.Event(), threading.Event(), threading.Event()

    def write(fd: int, data: bytes) -> int:
        if hangs.is_set():
            begun.set()
            assert go_on.wait(PATIENCE)
        return os.write(fd, data)

    fs.write = write
    state = crowd.open(defaults={"n": 0}, fs=fs, lock_timeout=0)
    block = state.transaction()
    room.do(block.__enter__)
    room.do(lambda: setattr(state, "n", 5))
    hangs.set()
    room.begin(lambda: block.__exit__(None, None, None))
    assert begun.wait(PATIENCE)
    with pytest.raises(LockTimeout) as caught:
        block.__exit__(None, None, None)
    assert room.task.thread.name == caught.value.thread
    with pytest.raises(LockTimeout):
        state.n = 6
    go_on.set()
    room.answer()
    is_usable(crowd, state, {"n": 5})


@pytest.mark.parametrize("nested", [False, True])
def test_a_thread_is_told_that_another_one_has_left_its_block_by_an_exception(
    crowd: Crowd, room: Room, nested: bool
) -> None:
    """The exception goes to the other thread, so this one would take its changes for committed."""
    state = crowd.open(defaults={"n": 0})
    blocks = [state.transaction() for _ in range(1 + nested)]
    for block in blocks:
        room.do(block.__enter__)
    room.do(lambda: setattr(state, "n", 5))
    blocks[-1].__exit__(Abort, Abort(), None)
    for block in reversed(blocks):
        with pytest.raises(TransactionError, match="left in another thread"):
            room.do(partial(block.__exit__, None, None, None))
    is_usable(crowd, state, {"n": 0})


@file_only("makes a write of the file hang")
def test_a_block_that_its_thread_leaves_while_another_one_looks_is_committed(
    crowd: Crowd, room: Room, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The commit was under way when the other thread began, and is over when that looks for what is under way."""
    fs, hangs, begun, go_on = FileSystem(), threading.Event(), threading.Event(), threading.Event()

    def write(fd: int, data: bytes) -> int:
        if hangs.is_set():
            begun.set()
            assert go_on.wait(PATIENCE)
        return os.write(fd, data)

    fs.write = write
    state = crowd.open(defaults={"n": 0}, fs=fs)
    block, is_at_work, looks = state.transaction(), Store._is_at_work, []
    room.do(block.__enter__)
    room.do(lambda: setattr(state, "n", 5))
    hangs.set()
    room.begin(lambda: block.__exit__(None, None, None))
    assert begun.wait(PATIENCE)

    def look(self: Store, thread: int) -> bool:
        looks.append(thread)
        hangs.clear()
        go_on.set()
        room.answer()
        return is_at_work(self, thread)

    monkeypatch.setattr(Store, "_is_at_work", look)
    block.__exit__(None, None, None)
    assert 1 == len(looks)
    is_usable(crowd, state, {"n": 5})


def test_a_block_that_the_compiled_part_begins_to_leave_while_another_thread_looks_is_its_own(
    crowd: Crowd, room: Room, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An operation that ended just before lets it begin, and no frame of Python shows that it has begun."""
    state = crowd.open(defaults={"n": 0})
    core = state._store
    block = state.transaction()
    room.do(block.__enter__)
    room.do(lambda: setattr(state, "n", 5))
    is_at_work, looks = Store._is_at_work, []

    def look(self: Store, thread: int) -> bool:
        found = is_at_work(self, thread)
        looks.append(thread)
        # As `leave` in `_speed.c` while it writes without the lock of the interpreter, and when that fails.
        core.owner, core._busy = (0, True) if len(looks) == 1 else (thread, False) if len(looks) == 2 else (0, False)
        return found

    monkeypatch.setattr(Store, "_is_at_work", look)
    with pytest.raises(TransactionError):
        block.__exit__(None, None, None)
    assert 3 == len(looks)
    is_usable(crowd, state, {"n": 0})


def test_a_thread_that_waits_for_an_earlier_mutex_of_its_own_is_at_work(
    crowd: Crowd, room: Room, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has waited while its inner block was ended, and gets that mutex, while its outer block is being ended."""
    state = crowd.open(defaults={"n": 0})
    outer, inner = state.transaction(), state.transaction()
    room.do(outer.__enter__)
    room.do(inner.__enter__)
    core, own = state._store, state._store.mutex
    looks: list[int] = []
    chosen, go_on, left, is_at_work = threading.Event(), threading.Event(), store._left, Store._is_at_work

    def pause(began: float, timeout: float | None) -> float | None:
        if threading.current_thread() is room.task.thread and sys._getframe(1).f_locals["mutex"] is own:
            chosen.set()
            assert go_on.wait(PATIENCE)
        return left(began, timeout)

    def look(self: Store, thread: int) -> bool:
        looks.append(thread)
        if len(looks) == 1:
            room.begin(lambda: setattr(state, "n", 7))
            deadline = time.monotonic() + PATIENCE
            while not is_in(room.task.thread, Store._wait):
                assert time.monotonic() < deadline, "it does not wait"
                yield_turn()
        return is_at_work(self, thread)

    monkeypatch.setattr(store, "_left", pause)
    monkeypatch.setattr(Store, "_is_at_work", look)
    with pytest.raises(TransactionError):
        inner.__exit__(None, None, None)
    assert core.mutex is own
    assert chosen.wait(PATIENCE)
    looked = len(looks)
    leaving = Task(lambda: outer.__exit__(None, None, None))
    deadline = time.monotonic() + PATIENCE
    while leaving.is_running and len(looks) < looked + 3:
        assert time.monotonic() < deadline, "it does not look"
        yield_turn()
    assert leaving.is_running, "it has ended the block while its thread was about to go on"
    go_on.set()
    with pytest.raises(TransactionError, match="left in another thread"):
        room.answer()
    with pytest.raises(TransactionError):
        leaving.result()
    is_usable(crowd, state, {"n": 0})


def test_a_thread_whose_generator_has_just_yielded_is_at_work(
    crowd: Crowd, room: Room, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What has called a generator cannot be seen from it once it has yielded."""
    state = crowd.open(defaults={"n": 0})
    block, go_on = state.transaction(), threading.Event()
    inside, yielding, yielded = threading.Event(), threading.Event(), threading.Event()
    room.do(block.__enter__)
    room.do(lambda: setattr(state, "n", 5))

    def numbers() -> Iterator[int]:
        inside.set()
        assert yielding.wait(PATIENCE)
        yield 1

    def function(node: Any) -> int:
        number = next(generator)
        yielded.set()
        assert go_on.wait(PATIENCE)
        return number + int(dict.__getitem__(node, "n"))

    generator, current_frames, looks = numbers(), sys._current_frames, []

    def frames() -> dict[int, FrameType]:
        found = current_frames()
        looks.append(found)
        if len(looks) == 1:
            yielding.set()
            assert yielded.wait(PATIENCE)
        return found

    room.begin(lambda: state._store.read(function, state._store.root))
    assert inside.wait(PATIENCE)
    monkeypatch.setattr(sys, "_current_frames", frames)
    leaving = Task(lambda: block.__exit__(None, None, None))
    deadline = time.monotonic() + PATIENCE
    while leaving.is_running and len(looks) < 3:
        assert time.monotonic() < deadline, "it does not look"
        yield_turn()
    go_on.set()
    assert 6 == room.answer()
    with pytest.raises(TransactionError):
        leaving.result()
    monkeypatch.undo()
    is_usable(crowd, state, {"n": 0})


def test_a_thread_that_ends_within_a_block_whose_outer_one_was_left_rolls_back_nothing_else(
    crowd: Crowd, room: Room, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the inner block, the whole transaction is over."""
    state = crowd.open(defaults={"n": 0}, lock_timeout=PATIENCE)
    outer, inner = state.transaction(), state.transaction()
    said: list[Any] = []
    monkeypatch.setattr(sys, "unraisablehook", said.append)
    entered, go_on = threading.Event(), threading.Event()

    def enter() -> None:
        outer.__enter__()
        inner.__enter__()
        state.n = 5
        entered.set()
        assert go_on.wait(PATIENCE)

    task = Task(enter)
    assert entered.wait(PATIENCE)
    with pytest.raises(TransactionError):
        outer.__exit__(None, None, None)
    go_on.set()
    task.result()
    assert not said
    assert [True] == ["rolled back" in record.getMessage() for record in caplog.records]
    is_usable(crowd, state, {"n": 0})


@pytest.mark.parametrize("way", ["forgotten", "kept"])
def test_a_thread_that_ends_in_a_block_rolls_it_back(crowd: Crowd, caplog: pytest.LogCaptureFixture, way: str) -> None:
    """At once, for other processes too; and the next thread, which may have the same number, is not in it."""
    state = crowd.open(defaults={"n": 0}, lock_timeout=1)
    kept = []

    def enter() -> None:
        block = state.transaction()
        block.__enter__()
        state.n = 1
        if way == "kept":
            kept.append((block, state.transaction()))
            kept[0][1].__enter__()
            state.n = 2

    Task(enter).result()
    Task(lambda: setattr(state, "m", 1)).result()
    assert [True] == ["rolled back" in record.getMessage() for record in caplog.records]
    is_usable(crowd, state, {"n": 0, "m": 1})
    for block in reversed(kept[0] if kept else ()):
        with pytest.raises(TransactionError, match="has ended"):
            block.__exit__(None, None, None)
        state.m = 2
    assert 13 == state.n


def test_a_block_of_a_generator_that_another_thread_forgets_is_rolled_back(crowd: Crowd, room: Room) -> None:
    state = crowd.open(defaults={"n": 0}, lock_timeout=1)

    def work() -> Iterator[None]:
        with state.transaction():
            state.n = 5
            yield
            state.n = 6

    generators = [work()]
    room.do(lambda: next(generators[0]))
    generators.clear()
    gc.collect()
    is_usable(crowd, state, {"n": 0})


@pytest.mark.parametrize("fails", ["", "a", "b", "ab"])
def test_tasks_whose_blocks_end_out_of_order_commit_nothing(crowd: Crowd, fails: str) -> None:
    """Whichever fails, and whatever the second one changes after the first one has ended."""
    state = crowd.open(defaults={"a": 0, "b": 0, "n": 0}, lock_timeout=0)

    async def task(name: str, before: int, within: int) -> None:
        for _ in range(before):
            await asyncio.sleep(0)
        with state.transaction():
            state[name] = 1
            for _ in range(within):
                await asyncio.sleep(0)
            if name in fails:
                raise Abort
            state[name] = 2

    async def both() -> list[Any]:
        return await asyncio.gather(task("a", 0, 3), task("b", 1, 6), return_exceptions=True)

    one, two = asyncio.run(both())
    assert isinstance(one, Abort if "a" in fails else TransactionError)
    assert isinstance(two, Abort if "b" in fails else TransactionError)
    is_usable(crowd, state, {"a": 0, "b": 0, "n": 0})


@pytest.mark.parametrize("order", [(0, 1), (0, 1, 2), (0, 2, 1), (1, 0, 2), (1, 2, 0), (2, 0, 1)])
def test_blocks_that_are_left_out_of_order_commit_nothing(crowd: Crowd, order: tuple[int, ...]) -> None:
    """From the first one on that is left before one inside it, everything is refused until all were left."""
    state = crowd.open(defaults={"n": 0}, lock_timeout=0)
    blocks = [state.transaction() for _ in order]
    for number, block in enumerate(blocks, 1):
        block.__enter__()
        state.n = number
    spoiled = False
    for left, number in enumerate(order):
        spoiled = spoiled or number != max(order[left:])
        with pytest.raises(TransactionError) if spoiled else contextlib.nullcontext():
            blocks[number].__exit__(None, None, None)
        if spoiled and left < len(order) - 1:
            assert 0 == state.n
            with pytest.raises(TransactionError, match="rolled back"):
                state.n = 7
            with pytest.raises(LockTimeout):
                Task(lambda: setattr(state, "n", 8)).result()
    is_usable(crowd, state, {"n": 0})


def test_a_block_that_is_forgotten_within_another_one_is_undone(crowd: Crowd) -> None:
    """A generator that nobody goes on with. The block around it is in order."""
    state = crowd.open(defaults={"a": 0, "b": 0, "n": 0}, lock_timeout=0)

    def work() -> Iterator[None]:
        with state.transaction():
            state.b = 1
            yield

    with state.transaction():
        state.a = 1
        next(work())
        gc.collect()
        state.n = 10
    is_usable(crowd, state, {"a": 1, "b": 0, "n": 10})


@pytest.mark.parametrize("use", ["open", "transaction"])
def test_threads_that_are_replaced_after_the_import_are_noticed(
    crowd: Crowd, monkeypatch: pytest.MonkeyPatch, use: str
) -> None:
    """gevent and eventlet put their own function here, which tells greenlets apart."""
    state = crowd.open(defaults={"n": 0})
    monkeypatch.setattr(threading, "get_ident", lambda: 1)
    with pytest.raises(PatchedError, match="monkey"):
        PersistedState(crowd.path) if use == "open" else state.transaction().__enter__()
    monkeypatch.undo()
    is_usable(crowd, state, {"n": 0})


def test_the_lock_of_threads_is_one_for_all_ways_to_ask_for_it(crowd: Crowd, room: Room) -> None:
    """What `persistedstate` has, also after a block was ended in another thread, which puts another mutex in place."""
    state = crowd.open(defaults={"n": 0})
    lock = state._thread_lock
    block = state.transaction()
    room.do(block.__enter__)
    with pytest.raises(TransactionError):
        block.__exit__(None, None, None)
    with lock, state._thread_lock:
        task = Task(lambda: setattr(state, "n", 1))
        state.n += 1
        state.n += 1
        assert 2 == state.n
    task.result()
    assert 1 == state.n
    assert room.do(lock.acquire)
    room.do(lock.release)


# ---------------------------------------------------------------------- one file opened more than once


def test_a_file_opened_twice_is_one_state(crowd: Crowd) -> None:
    one = crowd.open(defaults={"n": 0, "d": {}})
    two = crowd.open()
    one.n = 1
    assert 1 == two.n
    two.d["x"] = {"y": 1}
    assert 1 == one.d.x.y
    assert one == two
    assert dict(one) == dict(two)
    assert one.d is two.d


def test_a_write_through_one_joins_the_transaction_of_the_other(crowd: Crowd) -> None:
    """It does not lock itself out."""
    one = crowd.open(defaults={"n": 0, "l": []}, lock_timeout=0)
    two = crowd.open(lock_timeout=0)
    before = crowd.home().commits()
    with pytest.raises(Abort), one.transaction():
        one.n = 1
        two.l.append(1)
        with two.transaction():
            two.n += 1
        assert 2 == one.n
        raise Abort
    assert {"n": 0, "l": []} == one == two
    assert before == crowd.home().commits()

    with one.transaction():
        two.n = 7
        one.l.append(two.n)
        assert {"n": 0, "l": []} == crowd.other().ask("state.snapshot()")
    assert {"n": 7, "l": [7]} == crowd.other().ask("state.snapshot()")


def test_opening_within_a_transaction_joins_it(crowd: Crowd) -> None:
    one = crowd.open(defaults={"n": 0}, lock_timeout=0)
    with one.transaction():
        one.n = 1
        with PersistedState(crowd.path, m=5) as two:
            assert 1 == two.n
            two.n = 2
        assert 2 == one.n
    assert {"n": 2, "m": 5} == one == crowd.other().ask("state.snapshot()")


@file_only("a URL is the only name of its state")
@pytest.mark.parametrize("way", ["symlink", "symlinked folder", "relative", "dots", "PathLike"])
def test_another_name_of_the_file_is_the_same_state(
    crowd: Crowd, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    one = crowd.open(defaults={"n": 0}, lock_timeout=0)
    name: Any = crowd.path
    if way == "symlink":
        name = str(tmp_path / "link.yaml")
        os.symlink("state.yaml", name)
    elif way == "symlinked folder":
        os.symlink(tmp_path, tmp_path / "folder")
        name = str(tmp_path / "folder" / "state.yaml")
    elif way == "relative":
        monkeypatch.chdir(tmp_path)
        name = "state.yaml"
    elif way == "dots":
        (tmp_path / "sub").mkdir()
        name = str(tmp_path / "sub" / ".." / "state.yaml")
    elif way == "PathLike":
        name = crowd.file
    two: Any = PersistedState.open(name, lock_timeout=0)
    with one.transaction():
        two.n = 5
        assert 5 == one.n
    two.vacuum()
    two.close()
    one.n += 1
    one.close()

    assert {"n": 6} == crowd.as_stranger()
    if way == "symlink":
        assert os.path.islink(name)
        assert ["link.yaml", "state.yaml"] == crowd.folder()


@file_only("a URL has no relative form")
def test_a_relative_path_stays_the_same_file_after_chdir(crowd: Crowd, monkeypatch: pytest.MonkeyPatch) -> None:
    crowd.begin(n=1)
    folder = crowd.file.parent
    (folder / "elsewhere").mkdir()
    monkeypatch.chdir(folder)
    state: Any = PersistedState("state.yaml")
    monkeypatch.chdir(folder / "elsewhere")
    state.n = 2
    state.vacuum()
    assert 2 == pickle.loads(pickle.dumps(state)).n
    state.close()

    assert {"n": 2} == crowd.as_stranger()
    assert [] == os.listdir(folder / "elsewhere")


def test_closing_one_leaves_the_other_open(crowd: Crowd) -> None:
    one = crowd.open(defaults={"n": 0})
    two = crowd.open()
    inner = one.setdefault("d", {})
    one.close()
    with pytest.raises(ClosedError):
        one.n
    with pytest.raises(ClosedError):
        one.n = 1
    two.n = 2
    inner.x = 1
    two.close()

    crowd.home().expect_tidy({"n": 2, "d": {"x": 1}})


def test_closing_within_the_others_transaction_does_not_end_it(crowd: Crowd) -> None:
    one = crowd.open(defaults={"n": 0})
    two = crowd.open()
    with one.transaction():
        one.n = 1
        two.close()
        with pytest.raises(TransactionError):
            one.close()
        one.n += 1
    assert 2 == one.n
    assert 2 == crowd.other().ask("state.n")


def test_the_last_reference_of_one_leaves_the_other_open(crowd: Crowd) -> None:
    one = crowd.open(defaults={"n": 0})
    two: Any = PersistedState(crowd.path)
    two.n = 1
    del two
    gc.collect()
    one.n += 1
    assert 2 == one.n


def test_dropping_the_last_reference_tidies_the_file(crowd: Crowd) -> None:
    state: Any = PersistedState(crowd.path, n=0)
    state.n = 1
    del state
    gc.collect()

    crowd.home().expect_tidy({"n": 1})


@pytest.mark.parametrize("vacuums", [0, 1])
@pytest.mark.parametrize("held", ["state", "container", "traceback"])
def test_dropping_a_cycle_tidies_the_file(crowd: Crowd, held: str, vacuums: int) -> None:
    """The garbage collector may take the parts of a cycle in any order."""

    def use() -> None:
        state: Any = PersistedState(crowd.path, n=0, d={})
        state.n = 1
        for _ in range(vacuums):
            state.vacuum()
        state.n = 2
        cycle: list[Any] = [state if held != "container" else state.d]
        cycle.append(cycle)
        if held == "traceback":
            try:
                raise Abort
            except Abort as error:
                kept = error
            cycle.append(kept)

    use()
    gc.collect()

    crowd.home().expect_tidy({"n": 2, "d": {}})


def test_threads_that_open_and_close_the_same_file_count_exactly(crowd: Crowd) -> None:
    def count(ending: str) -> None:
        for _ in range(15):
            state: Any = PersistedState(crowd.path, n=0)
            with state.transaction():
                state.n += 1
            if ending == "close":
                state.close()
            del state

    for task in [Task(partial(count, ending)) for ending in ("close", "drop", "close")]:
        task.result()

    with PersistedState(crowd.path) as state:
        assert {"n": 45} == state
    crowd.home().expect_tidy({"n": 45})


@file_only("a URL has no links")
def test_a_hard_link_is_told_apart_instead_of_waiting_for_ever(crowd: Crowd, tmp_path: Path) -> None:
    """The same file by a name that a vacuum will part from it: who holds the lock is named."""
    crowd.begin(n=0)
    os.link(crowd.path, tmp_path / "hard.yaml")
    one = crowd.open(lock_timeout=0)
    two: Any = PersistedState.open(tmp_path / "hard.yaml", lock_timeout=0)
    with one.transaction():
        with pytest.raises(LockTimeout, match="this process") as caught:
            two.n = 2
        assert os.getpid() == caught.value.holder
    two.close()


def test_a_state_begins_anew_where_its_file_was_deleted_after_the_last_reference_went(tmp_path: Path) -> None:
    path = tmp_path / "state.yaml"
    state = PersistedState(path, a=1, nested={"b": 1})
    del state
    path.unlink()
    state = PersistedState(path, a=2)

    assert {"a": 2} == state


@pytest.mark.parametrize("end", ["vacuum", "close"])
def test_a_read_while_another_thread_replaces_or_closes_the_file_harms_nothing(tmp_path: Path, end: str) -> None:
    """The number of a descriptor may belong to another file as soon as it is closed: nobody may ask for it by then."""
    state = PersistedState(tmp_path / "state.yaml", counter=0)
    bystander = (tmp_path / "bystander").open("w+b")
    bystander.write(b"0123456789")
    done = threading.Event()
    errors: list[BaseException] = []

    def read() -> None:
        while not done.is_set():
            try:
                assert state.counter >= 0
            except ClosedError:
                return
            except BaseException as error:
                errors.append(error)
                return

    readers = [threading.Thread(target=read) for _ in range(3)]
    for reader in readers:
        reader.start()
    for number in range(60):
        if end == "vacuum":
            state.counter = number
            state.vacuum()
        else:
            state.close()
            state = PersistedState(tmp_path / "state.yaml")
    done.set()
    for reader in readers:
        reader.join()
    state.close()
    bystander.close()

    assert [] == errors


def test_what_goes_with_a_thread_says_nothing_where_it_was_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    """An exception of a signal handler within its `__init__`: its `__del__` is called all the same."""

    def cut_off(_: str) -> str:
        raise KeyboardInterrupt

    said: list[Any] = []
    monkeypatch.setattr(sys, "unraisablehook", said.append)
    monkeypatch.setattr(store, "_name_of", cut_off)
    with pytest.raises(KeyboardInterrupt):
        store._EndOfThread(threading.get_ident())

    assert not said


def test_opening_waits_for_no_other_file(tmp_path: Path) -> None:
    state = PersistedState(tmp_path / "a.yaml")
    inside, opening = threading.Event(), threading.Event()
    done = []

    def transact() -> None:
        with state.transaction():
            inside.set()
            opening.wait()
            threading.Event().wait(0.2)
            done.append(PersistedState(tmp_path / "b.yaml"))

    def open_again() -> None:
        inside.wait()
        opening.set()
        done.append(PersistedState(tmp_path / "a.yaml"))

    threads = [threading.Thread(target=each, daemon=True) for each in (transact, open_again)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert 2 == len(done)
    for each in [*done, state]:
        each.close()
