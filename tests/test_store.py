"""The store at the door: it plans again when it was overtaken, and it looks into no engine."""

from __future__ import annotations

import ast
import functools
import gc
import threading
import weakref
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from tools.engines import Wrapped, Wrapping, opened, store_of

import pstate
from pstate import LockTimeout, PersistedState, store
from pstate.engine import Engine, Held, Log, Overtaken
from pstate.engines import FILES, Files
from pstate.file.fs import FileSystem
from pstate.memory import ops
from pstate.testing import memory
from pstate.testing.memory import MemoryEngine
from pstate.values import same

PACKAGE = Path(pstate.__file__).parent

# --- overtaken


class Overtaking(Wrapped):
    """Somebody else commits just before the next *left* commits of this log."""

    left = 0
    meanwhile: Any = None
    overtaken = 0

    def commit(self, body: str, after: Any = None) -> Any:
        if after is None and self.left:
            self.left -= 1
            self.meanwhile()
            try:
                return self.log.commit(body, after)
            except Overtaken:
                self.overtaken += 1
                raise
        return self.log.commit(body, after)


@pytest.fixture
def engine() -> MemoryEngine:
    return MemoryEngine()


@pytest.fixture
def other(engine: MemoryEngine) -> Iterator[PersistedState]:
    with opened(engine, "a state", lock_timeout=0) as other:
        other.update(n=0, jobs=[{"id": 0}], d={"x": 0})
        yield other


@pytest.fixture
def state(engine: MemoryEngine, other: PersistedState) -> Iterator[PersistedState]:
    with opened(Wrapping(engine, Overtaking), "a state") as state:
        yield state


def overtake(state: PersistedState, times: int, meanwhile: Callable[[], object]) -> Any:
    log = store_of(state).log
    log.left, log.meanwhile = times, meanwhile
    return log


@pytest.mark.parametrize("times", [1, 2, 7])
def test_a_change_that_is_overtaken_is_planned_anew_on_the_newest_state(
    state: PersistedState, other: PersistedState, times: int
) -> None:
    core, seen = store_of(state), []

    def plan(root: Any) -> tuple[list[ops.Op], int]:
        seen.append(dict.get(root, "n"))
        return [("set", "n", seen[-1] + 100)], seen[-1]

    log = overtake(state, times, lambda: setattr(other, "n", other.n + 1))
    assert core.mutate(core.root, plan) == times
    assert log.overtaken == times
    assert seen == [*range(times + 1)]
    assert state.n == other.n == times + 100


@pytest.mark.parametrize("times", [1, 2, 7])
def test_an_assignment_that_is_overtaken_is_made_where_its_container_is_by_then(
    state: PersistedState, other: PersistedState, times: int
) -> None:
    job = state.jobs[0]
    log = overtake(state, times, lambda: other.jobs.insert(0, {"id": other.jobs[0].id - 1}))
    job.id = "ours"

    assert log.overtaken == times
    assert [job.id for job in other.jobs] == [*range(-times, 0), "ours"]
    assert state.jobs == other.jobs
    assert state.jobs[times] is job


def test_an_assignment_to_the_root_that_is_overtaken_comes_last(state: PersistedState, other: PersistedState) -> None:
    log = overtake(state, 3, lambda: other.update(n="theirs", m=1))
    state.n = "ours"
    assert log.overtaken == 3
    assert state.snapshot() == other.snapshot() == {"n": "ours", "jobs": [{"id": 0}], "d": {"x": 0}, "m": 1}


@pytest.mark.parametrize("change", [lambda d: d.update(x=1), lambda d: d.__setitem__("x", 1)])
def test_a_container_that_somebody_faster_has_removed_is_not_changed(
    state: PersistedState, other: PersistedState, change: Callable[[Any], object]
) -> None:
    d = state.d
    overtake(state, 1, lambda: other.pop("d"))
    with pytest.raises(pstate.RemovedError):
        change(d)
    assert "d" not in other
    state.n = 1  # nothing is held
    assert other.n == 1


def test_a_plan_that_finds_nothing_left_to_do_commits_nothing(state: PersistedState, other: PersistedState) -> None:
    overtake(state, 1, lambda: other.setdefault("new", "theirs"))
    before = len(list(other.history()))
    assert state.setdefault("new", "ours") == "theirs"
    assert len(list(other.history())) == before + 1


def test_nobody_overtakes_a_block(state: PersistedState, other: PersistedState) -> None:
    def change() -> None:
        with pytest.raises(LockTimeout):
            other.n = 1

    log = overtake(state, 1, change)
    with state.transaction():
        change()
        state.n = 5
    assert log.overtaken == 0
    assert other.n == 5


def test_a_block_that_begins_meanwhile_overtakes_a_change(
    monkeypatch: pytest.MonkeyPatch, state: PersistedState, other: PersistedState
) -> None:
    """It plans again when the block has ended."""
    inside, go_on = threading.Event(), threading.Event()

    def block() -> None:
        with other.transaction():
            inside.set()
            go_on.wait()
            other.n += 10

    thread = threading.Thread(target=block)

    def meanwhile() -> None:
        thread.start()
        inside.wait()

    def waits(seconds: float) -> None:
        go_on.set()
        thread.join()

    monkeypatch.setattr(memory, "sleep", waits)

    core = store_of(state)
    log = overtake(state, 1, meanwhile)
    core.mutate(core.root, lambda root: ([("set", "n", dict.get(root, "n") + 1)], None))
    thread.join()
    assert log.overtaken == 1
    assert state.n == other.n == 11


def test_a_change_that_has_waited_for_a_thread_does_not_wait_for_a_block_for_ever(
    monkeypatch: pytest.MonkeyPatch, state: PersistedState, other: PersistedState
) -> None:
    """Of no time to wait, less than nothing is left then."""
    core = store_of(state)
    core.lock_timeout = 0
    errors: list[BaseException] = []
    waiting = threading.Event()

    wait = store.Store._wait

    def told(*args: Any) -> Any:
        waiting.set()
        return wait(*args)

    monkeypatch.setattr(store.Store, "_wait", told)

    def change(make: Callable[[], object]) -> None:
        try:
            make()
        except LockTimeout as error:
            errors.append(error)

    for number, make in enumerate(
        (lambda: setattr(state, "n", 1), lambda: state.update(n=1, m=2), lambda: state.transaction().__enter__()), 1
    ):
        waiting.clear()
        thread = threading.Thread(target=change, args=(make,), daemon=True)
        with other.transaction():
            with core.mutex:
                thread.start()
                waiting.wait()
            thread.join(5)
            assert len(errors) == number
    assert other.n == 0


# --- a set of a scalar has steps of its own in `mutate`, which must not drift from the others


def setting(node: Any, key: Any, value: Any) -> Any:
    """A plan that is not the store's own, for the same change."""
    return store._set(node, key, value)


class Recorded(Wrapped):
    """Every call of the log, with what is in it of the state, and views by the number in which they appeared."""

    def __init__(self, log: Log) -> None:
        super().__init__(log)
        self.__dict__["calls"] = []
        self.__dict__["views"] = []
        self.__dict__["hold"] = RecordedHeld(log, self)

    def noted(self, value: Any) -> Any:
        """*value*, or the number of it where it is a view."""
        if not isinstance(value, tuple):
            return value
        for number, view in enumerate(self.views):
            if view is value:
                return f"view {number}"
        self.views.append(value)
        return f"view {len(self.views) - 1}"

    def note(self, name: str, method: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **options: Any) -> Any:
            entry = [name, *map(self.noted, args), *options]
            self.calls.append(entry)
            result = method(*args, **options)
            entry += ["->", self.noted(result)]
            return result

        return call

    def __getattr__(self, name: str) -> Any:
        value = getattr(self.log, name)
        return self.note(name, value) if callable(value) else value


class RecordedHeld:
    """What is held by a `Recorded` log."""

    def __init__(self, log: Log, recorded: Recorded) -> None:
        self._log, self._recorded = log, recorded

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._log.hold, name)

        def call(*args: Any) -> Any:
            self._recorded.calls.append(["hold", name])
            return value(*args)

        return call


def calls_of(
    engine: Engine,
    address: str,
    way: Callable[[Any, Any, Any, Any], object],
    sets: list[tuple[list[Any], Any, Any]],
    in_block: bool,
    durability: str,
) -> tuple[list[Any], Any]:
    """What the log was asked for while *sets* were made in a *way*, and the state after them."""
    with opened(engine, address) as before:
        before.update(n=0, d={"x": [{"y": {}}], "l": [1]}, empty={})
    with opened(Wrapping(engine, Recorded), address, durability=durability) as state:
        core = store_of(state)
        core.log.calls.clear()
        with state.transaction() if in_block else nullcontext():
            for path, key, value in sets:
                way(core, ops.find(core.root, path), key, value)
        calls = core.log.calls[:]
        with opened(engine, address) as after:
            seen = after.snapshot()
        assert same(seen, state.snapshot())
        assert same(seen, dict(state))  # what the handle mirrors
    return calls, seen


SETS: list[list[tuple[list[Any], Any, Any]]] = [
    [([], "n", 1)],
    [([], "new", "text")],
    [([], "n", 10**20), ([], "n2", None), ([], "empty", 1.5)],
    [(["d"], "l", False)],
    [(["d", "x", 0, "y"], 7, b"deep"), (["empty"], None, date(2026, 1, 1)), ([], 1.5, "ä\n")],
]


@pytest.mark.parametrize("kind", ["file", "memory"])
@pytest.mark.parametrize("durability", ["process", "power"])
@pytest.mark.parametrize("in_block", [False, True])
@pytest.mark.parametrize("sets", SETS, ids=range(len(SETS)))
def test_put_asks_the_log_for_the_same_as_mutate(
    tmp_path: Path, kind: str, durability: str, in_block: bool, sets: list[Any]
) -> None:
    found = []
    for name, way in (
        ("put", lambda core, node, key, value: core.put(node, key, value)),
        ("mutate", lambda core, node, key, value: core.mutate(node, setting, key, value)),
    ):
        engine = FILES if kind == "file" else MemoryEngine()
        found.append(calls_of(engine, str(tmp_path / name), way, sets, in_block, durability))
    (calls, state), (expected, as_expected) = found
    assert calls == expected
    assert same(state, as_expected)

    names = [call[0] if call[0] != "hold" else call[1] for call in calls]
    commits = 1 if in_block else len(sets)
    assert names.count("commit") == names.count("publish") == commits
    if not in_block:
        settled = ["settle"] if durability == "power" else []
        assert names == ["begin", "commit", "publish", "unlock", *settled] * commits


@pytest.mark.parametrize("error", [pstate.WriteError("refused", path=""), KeyboardInterrupt(), Overtaken()])
def test_put_gives_back_what_it_holds_as_mutate_does(error: BaseException) -> None:
    """Where `commit` raises once. Where it was overtaken, `mutate` goes on, so the value is stored."""

    class Raising(Recorded):
        def commit(self, body: str, after: Any = None) -> Any:
            self.calls.append(["commit", body])
            if sum(call[0] == "commit" for call in self.calls) == 1:
                raise error
            return self.log.commit(body, after)

    found = []
    for way in (lambda core, node: core.put(node, "n", 1), lambda core, node: core.mutate(node, setting, "n", 1)):
        with opened(Wrapping(MemoryEngine(), Raising), "a state") as state:
            core = store_of(state)
            core.log.calls.clear()
            try:
                way(core, core.root)
                raised = None
            except (pstate.WriteError, KeyboardInterrupt) as caught:
                raised = caught
            assert (raised is None) == isinstance(error, Overtaken)
            assert not core._busy
            found.append((core.log.calls[:], raised, state.get("n")))
    assert found[0] == found[1]
    assert found[0][2] == (1 if isinstance(error, Overtaken) else None)


# --- what the store does not know

#: What only an engine may name: what it keeps commits in, and what excludes others there.
INSIDES = {
    "fd", "fileno", "flock", "lseek", "fs", "inode", "marker", "site", "look", "standing", "settling", "regaining",
    "rewriting", "renewal", "saves", "merging", "past", "link", "descriptor", "fcntl",
}  # fmt: skip
#: How a view is called in these modules.
VIEWS = {"view", "written", "after", "_base_view"}
#: What the door has, and what the log of the file has besides.
DOOR = {name for protocol in (Log, Held) for name in (*vars(protocol), *protocol.__annotations__)}


def name_of(node: ast.expr | None) -> str:
    return node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""


def is_log(node: ast.expr) -> bool:
    return name_of(node) == "log" or (isinstance(node, ast.Attribute) and node.attr == "hold" and is_log(node.value))


def insides(source: str) -> list[str]:
    """Where *source* looks into what an engine keeps to itself."""
    return [ast.unparse(node) for node in ast.walk(ast.parse(source)) if looks_inside(node)]


def looks_inside(node: ast.AST) -> bool:
    match node:
        case ast.Subscript() | ast.Starred():
            return name_of(node.value) in VIEWS
        case ast.Attribute():
            is_of_engine = node.attr in INSIDES or (is_log(node.value) and node.attr not in DOOR)
            return is_of_engine or name_of(node.value) in VIEWS
        case ast.Assign(targets=[ast.Tuple() | ast.List()], value=value):
            return name_of(value) in VIEWS
        case ast.For(target=ast.Tuple() | ast.List(), iter=value):
            return name_of(value) in VIEWS
    return False


@pytest.mark.parametrize("module", ["store", "watch", "state"])
def test_nothing_above_the_door_looks_into_an_engine(module: str) -> None:
    assert insides((PACKAGE / f"{module}.py").read_text(encoding="utf-8")) == []


@pytest.mark.parametrize(
    "line",
    [
        "end = self.view[1]", "fd, end = view", "[fd, *_] = self._base_view", "call(*view)", "view.journal",
        "for part in view: pass\nfor a, b in view: pass", "os.fstat(journal.fd)", "self.log.fs.flock(1, 2)",
        "self.log.path", "log.hold.flock", "core.log.standing.view", "store.log.memory",
    ],
)  # fmt: skip
def test_a_line_that_looks_into_an_engine_is_found(line: str) -> None:
    assert insides(line)


def test_the_table_of_stores_keeps_nothing_alive(tmp_path: Path) -> None:
    """The system of a simulation leads to the state: each of its calls is a method of the test's."""
    system = FileSystem()
    state = PersistedState.open(tmp_path / "state.yaml", fs=system)
    system.sync_folder = functools.partial(lambda state, path: None, state)  # type: ignore[method-assign]
    gone = weakref.ref(system)
    store.abandon(Files(system))
    del state, system
    gc.collect()

    assert gone() is None
