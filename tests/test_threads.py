"""Threads of one process: none sees another's transaction, none loses a count, and one file is one state.

A reader cannot prove that it never saw something by looking once. So one thread changes and undoes without pause, and
gives the others the word in the middle, while another looks by every way there is; what it saw is compared afterwards
with what it may see.
"""

from __future__ import annotations

import copy
import gc
import json
import os
import pickle
import queue
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
from interrupts_tools import expect_opcodes, trace_opcodes
from procs_tools import PATIENCE, Crowd

from pstate import ClosedError, LockTimeout, PersistedState, TransactionError


class Abort(Exception):
    """What a test leaves a transaction with."""


@pytest.fixture
def crowd(tmp_path: Path) -> Iterator[Crowd]:
    with Crowd(tmp_path / "state.yaml") as crowd:
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
        if name not in ("containers.py", "state.py", "store.py", "log.py"):
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

    assert {"n": 99} == crowd.as_stranger()
    assert ["state.yaml"] == crowd.folder()
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
    before = crowd.file.read_bytes()
    with pytest.raises(Abort), one.transaction():
        one.n = 1
        two.l.append(1)
        with two.transaction():
            two.n += 1
        assert 2 == one.n
        raise Abort
    assert {"n": 0, "l": []} == one == two
    assert before == crowd.file.read_bytes()

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

    assert {"n": 2, "d": {"x": 1}} == crowd.as_stranger()
    assert ["state.yaml"] == crowd.folder()


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

    assert {"n": 1} == crowd.as_stranger()
    assert ["state.yaml"] == crowd.folder()


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

    assert {"n": 2, "d": {}} == crowd.as_stranger()
    assert ["state.yaml"] == crowd.folder()


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
    assert {"n": 45} == crowd.as_stranger()
    assert ["state.yaml"] == crowd.folder()


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
