"""`state.watch` misses nothing, says where it comes from, and comes soon; `state.history` tells what was committed."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from zlib import crc32

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tools.disks import Gated
from tools.edits import SAVES, Save
from tools.homes import file_only
from tools.processes import Crowd, Fork

from pstate import ABSENT, Change, ClosedError, EditConflict, PersistedState, TransactionError, Watch
from pstate.file import format as f
from pstate.file.fs import SYSTEM
from pstate.memory import changes
from pstate.testing.disk import SimulatedDisk
from pstate.testing.system import SimulatedSystem
from pstate.values import same

PATIENCE = 20.0


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state.yaml"


@pytest.fixture
def crowd(path: Path) -> Iterator[Crowd]:
    with Crowd(path) as crowd:
        yield crowd


def short(found: Any) -> list[tuple[Any, ...]]:
    """Path, old, new and origin of each."""
    return [(change.path, change.old, change.new, change.origin) for change in found]


def until(watch: Watch, path: Any, new: Any) -> list[Change]:
    """What the watch tells up to the change of *path* to *new*."""
    found: list[Change] = []
    deadline = time.monotonic() + PATIENCE
    while not any(change.path == path and change.new == new for change in found):
        assert time.monotonic() < deadline, found
        found += watch.poll()
        time.sleep(0.001)
    return found


# ------------------------------------------------------------------------------------------------------- who and what


def test_every_kind_of_change_of_this_process(path: Path) -> None:
    with PersistedState(path, n=1, jobs=["a", "b"], seen={1}) as state:
        watch = state.watch()
        state.n = 2
        state.n = 2  # is 2 already
        state.new = {"deep": [1]}
        state.new["deep"].append(2)
        state.jobs.insert(0, "c")
        state.jobs.reverse()
        state.jobs[0:2] = ["x"]
        state.seen |= {1, 2}
        state.seen.discard(1)
        del state["new"]

        assert [
            (("n",), 1, 2, "here"),
            (("new",), ABSENT, {"deep": [1]}, "here"),
            (("new", "deep", 1), ABSENT, 2, "here"),
            (("jobs", 0), ABSENT, "c", "here"),
            (("jobs",), ["c", "a", "b"], ["b", "a", "c"], "here"),
            (("jobs", 0), "b", ABSENT, "here"),
            (("jobs", 1), "a", ABSENT, "here"),
            (("jobs", 0), ABSENT, "x", "here"),
            (("seen", 2), ABSENT, 2, "here"),
            (("seen", 1), 1, ABSENT, "here"),
            (("new",), {"deep": [1, 2]}, ABSENT, "here"),
        ] == short(watch.poll())
        assert [] == watch.poll()


def test_what_came_before_is_not_told_and_commits_have_their_number(path: Path) -> None:
    with PersistedState(path, n=1) as state:
        state.n = 2
        watch = state.watch()
        with state.transaction():
            state.n = 3
            state.m = 4
            state.n = 5  # one operation: how often it was set inside is not history
        state.vacuum()
        state.n = 6

        assert [(("n",), 3), (("m",), 3), (("n",), 1)] == [(change.path, change.commit) for change in watch.poll()]


def test_what_is_told_is_nobody_elses(path: Path) -> None:
    with PersistedState(path) as state:
        watch = state.watch()
        state.jobs = [[1]]
        (change,) = watch.poll()
        change.new[0].append("mine")

        state.jobs[0].append(2)

        assert [(("jobs", 0, 1), ABSENT, 2, "here")] == short(watch.poll())
        assert [[1, 2]] == state.jobs


def test_a_transaction_is_told_when_it_is_committed(path: Path) -> None:
    with PersistedState(path, n=0) as state:
        watch = state.watch()
        with state.transaction():
            state.n = 1
            assert [] == watch.poll()
        with state.transaction() as transaction:
            state.n = 2
            transaction.rollback()

        assert [(("n",), 0, 1, "here")] == short(watch.poll())


def test_waiting_inside_of_a_transaction_is_refused(path: Path) -> None:
    with PersistedState(path, n=0) as state:
        watch = state.watch()
        state.n = 1
        with state.transaction():
            assert 1 == next(watch).new  # it has come already
            with pytest.raises(TransactionError, match="forever"):
                next(watch)
            with pytest.raises(TransactionError, match="forever"):
                state.watch()


def test_others_are_told_from_ourselves(crowd: Crowd) -> None:
    crowd.begin(n=0)
    state = crowd.open()
    other = crowd.other()
    watch = state.watch()
    for n in range(1, 7):
        if n % 3:
            other.run(f"state.n = {n}")
        else:
            state.n = n

    origins = ["other", "other", "here", "other", "other", "here"]
    assert [(("n",), n, n + 1, origin) for n, origin in enumerate(origins)] == short(watch.poll())


def test_a_commit_that_another_vacuums_at_once_is_told(crowd: Crowd) -> None:
    crowd.begin(n=0)
    state = crowd.open()
    other = crowd.other()
    watch = state.watch()
    for n in (1, 3):
        other.run(f"state.n = {n}; state.n = {n + 1}; state.vacuum()")
        assert [(n - 1, n, "other"), (n, n + 1, "other")] == [(c.old, c.new, c.origin) for c in watch.poll()]


def test_many_vacuums_of_others_while_nobody_asks(crowd: Crowd) -> None:
    """Each waits until the watch has come to its file: the content of one that was replaced is nowhere else."""
    crowd.begin(n=0)
    state = crowd.open()
    other = crowd.other()
    watch = state.watch()
    other.run("for _ in range(20): state.n += 1; state.vacuum(); state.n += 1")

    assert [(("n",), n, n + 1, "other") for n in range(40)] == short(watch.poll())


def test_a_watch_that_was_let_go_of_keeps_nobody(crowd: Crowd) -> None:
    crowd.begin(n=0)
    state = crowd.open()
    other = crowd.other()
    watches = [state.watch(), state.watch()]
    watches[0].close()
    del watches[1]
    deadline = time.monotonic() + PATIENCE
    while other.ask("fs.is_watched(state._store.view[0])"):
        assert time.monotonic() < deadline
        time.sleep(0.001)


def test_a_watch_of_a_process_that_stands_still_keeps_others_for_a_second_only(crowd: Crowd) -> None:
    crowd.begin(n=0)
    state = crowd.open()
    other = crowd.other()
    other.run("watch = state.watch()")
    os.kill(other.pid, signal.SIGSTOP)
    try:
        before = time.monotonic()
        state.n = 1
        state.vacuum()
        assert 1.0 <= time.monotonic() - before < 5.0
    finally:
        os.kill(other.pid, signal.SIGCONT)
    assert [(("n",), 0, 1, "other")] == short(other.ask("watch.poll()"))


def test_our_own_vacuums_hide_nothing(path: Path) -> None:
    with PersistedState(path, n=0) as state:
        watch = state.watch()
        for n in range(1, 6):
            state.n = n
            state.vacuum()

        assert [(n, n + 1) for n in range(5)] == [(change.old, change.new) for change in watch.poll()]


@pytest.mark.parametrize("save", SAVES)
@pytest.mark.parametrize("read_only", [False, True])
def test_an_edit_is_told_value_by_value(path: Path, save: Save, read_only: bool) -> None:
    path.write_text("n: 1\njobs:\n  - name: a\n  - name: b\ngone: true\n")
    with PersistedState.open(path, read_only=read_only) as state:
        watch = state.watch()
        if not read_only:
            state.n = 2
        save(path, path.read_bytes().replace(b"name: b", b"name: c  # better").replace(b"gone: true\n", b""))

        found = until(watch, ("gone",), ABSENT)

        mine = [] if read_only else [(("n",), 1, 2, "here")]
        edits = [(("jobs", 1, "name"), "b", "c", "edit"), (("gone",), True, ABSENT, "edit")]
        assert [*mine, *edits] == short(found)
        assert {None} == {change.commit for change in found if change.origin == "edit"}


@pytest.mark.parametrize("save", SAVES)
def test_an_edit_that_another_program_has_dealt_with_is_an_edit(crowd: Crowd, save: Save) -> None:
    crowd.begin(n=1, m=1)
    state = crowd.open()
    other = crowd.other()
    watch = state.watch()
    other.run("state.n = 2")
    save(crowd.file, crowd.file.read_bytes().replace(b"m: 1", b"m: 5"))
    other.run(
        """
        import time
        while state.m != 5:
            time.sleep(0.001)
        state.n = 3
        """
    )

    assert [(("n",), 1, 2, "other"), (("m",), 1, 5, "edit"), (("n",), 2, 3, "other")] == short(until(watch, ("n",), 3))


@pytest.mark.parametrize("save", SAVES)
def test_a_commit_behind_an_edit_of_a_plain_document_is_told(path: Path, save: Save) -> None:
    """The document that the edit has made has no marker yet, so its first record is not where it ends."""
    path.write_text("n: 0\n")
    with PersistedState(path) as state:
        watch = state.watch()
        save(path, b"n: 1\n")
        until(watch, ("n",), 1)
        state.n = 2
        state.n = 3

        assert [(("n",), 1, 2, "here"), (("n",), 2, 3, "here")] == short(watch.poll())


def test_commits_of_an_old_copy_are_not_told_again(crowd: Crowd) -> None:
    """An old copy with its journal, put there when all who wrote are dead: it is told what that takes back."""
    crowd.begin(n=0)
    other = crowd.other()
    other.run("state.n = 1; state.n = 2")
    old = crowd.file.read_bytes()
    other.run("state.n = 3; state.n = 4")
    other.kill()
    watch = crowd.open(read_only=True).watch()
    crowd.file.with_name("copy").write_bytes(old)
    os.rename(crowd.file.with_name("copy"), crowd.file)
    assert [(("n",), 4, 2, "edit")] == short(until(watch, ("n",), 2))

    crowd.other().run("state.n = 5")
    assert [(("n",), 2, 5, "other")] == short(until(watch, ("n",), 5))


def test_another_history_of_the_same_journal_is_not_taken_for_its_continuation(crowd: Crowd) -> None:
    crowd.begin(n=0)
    other = crowd.other()
    other.run("state.n = 1")
    old = crowd.file.read_bytes()
    other.run("state.n = 2")
    other.kill()
    state = crowd.open(read_only=True)
    watch = state.watch()
    copy = crowd.file.with_name("copy.yaml")
    copy.write_bytes(old)
    with PersistedState(copy) as forked:
        forked.n = 30
        forked.n = 40
        os.rename(copy, crowd.file)
        assert [(("n",), 2, 40, "edit")] == short(until(watch, ("n",), 40))
        forked._store.closed = True  # nobody closes a file that has moved away


def test_a_conflict_that_only_the_watch_has_met_is_raised_by_it(path: Path) -> None:
    """The thread that follows may be the first to see the edit, and nobody sees the conflict again."""
    path.write_text("n: 1\n")
    with PersistedState(path) as state:
        state.n = 2
        state.vacuum()
        watch = state.watch()
        path.with_name("new").write_text("n: 1\n")
        os.rename(path.with_name("new"), path)
        found: list[Change] = []
        deadline = time.monotonic() + PATIENCE
        with pytest.raises(EditConflict):
            while time.monotonic() < deadline:
                found += watch.poll()
                time.sleep(0.1)  # nearly always it is the thread that meets it
        found += watch.poll()

        assert [(("n",), 2, 1, "edit")] == short(found)


def test_a_vacuum_while_a_watch_begins_keeps_nothing_from_it() -> None:
    """A process that vacuums before the mark is set does not wait, and could vacuum once more."""
    disk = SimulatedDisk({"/s.yaml": b"n: 0\n"})
    found: list[Change] = []
    vacuums = iter([lambda: (setattr(other, "n", 1), other.vacuum())])

    def when_watching(system: SimulatedSystem, name: str, arguments: tuple[Any, ...]) -> None:
        if name == "watch":
            next(vacuums, lambda: None)()

    def when_waiting(system: SimulatedSystem, name: str, arguments: tuple[Any, ...]) -> None:
        if name == "sleep":
            found.extend(watch.poll())

    other: Any = PersistedState.open("/s.yaml", fs=SimulatedSystem(disk, when_waiting, name="other"))
    with PersistedState.open("/s.yaml", fs=SimulatedSystem(disk, when_watching, name="watcher")) as state:
        watch = state.watch()
        for n in (2, 4):
            other.n = n
            other.n = n + 1
            other.vacuum()
        found += watch.poll()
        watch.close()
        other.close()

    assert [2, 3, 4, 5] == [change.new for change in found], "1 came before the watch had begun"


Deed = Callable[[Any, SimulatedSystem], object]


def told_between(
    content: bytes, deed: Deed, read_only: bool, before: Deed = lambda *_: None
) -> Iterator[tuple[str, list[tuple[Any, ...]]]]:
    """What a watch of *content* tells if another program does *deed* before the first call of a look; before the
    second one; and so on, each with the name of that call. *before* comes before the look.

    The process of the watch stands still during *deed*, for longer than an editor takes to save.
    """
    for at in itertools.count():
        calls, found = _looked(at, content, deed, read_only, before)
        if len(calls) <= at:
            return
        yield calls[at], short(found)


def _looked(at: int, content: bytes, deed: Deed, read_only: bool, before: Deed) -> tuple[list[str], list[Change]]:
    disk = SimulatedDisk({"/s.yaml": content})
    others = SimulatedSystem(disk, name="other")
    calls: list[str] = []

    def interrupt(system: SimulatedSystem, name: str, arguments: tuple[Any, ...]) -> None:
        if is_looking:
            calls.append(name)
            if len(calls) == at + 1:
                deed(other, others)

    is_looking = False
    system = SimulatedSystem(disk, interrupt, name="watcher")
    system.wall = lambda: 1e6
    other: Any = PersistedState.open("/s.yaml", fs=others)
    with PersistedState.open("/s.yaml", fs=system, read_only=read_only) as state:
        watch = state.watch()
        before(other, others)
        found: list[Change] = []
        for is_looking in (True, False):  # noqa: B007 - for `interrupt`
            system.now += 1.0  # the last look at the path is long ago
            found += watch.poll()
        watch.close()
        other.close()
    return calls, found


@pytest.mark.parametrize("read_only", [False, True])
@pytest.mark.parametrize("is_second", [False, True])
@pytest.mark.parametrize("content", [b"n: 0\n", b"n: 0\nlist: [1]\n"])
def test_a_vacuum_at_any_moment_of_a_look_hides_nothing(content: bytes, is_second: bool, read_only: bool) -> None:
    """Nor is it an edit. The second vacuum comes after one that died, and whose trailer the look may have read."""

    def dies(other: Any, system: SimulatedSystem) -> None:
        if is_second:
            trailer = f.Trailer(f.NO_GENERATION, len(content), crc32(content), 0, crc32(content)).encode()
            system.write(system.open("/s.yaml", os.O_WRONLY | os.O_APPEND), trailer)

    def vacuums(other: Any, system: SimulatedSystem) -> None:
        other.n = 1
        other.n = 2
        other.vacuum()

    calls: list[str] = []
    for call, found in told_between(content, vacuums, read_only, dies):
        calls.append(call)
        assert [(("n",), 0, 1, "other"), (("n",), 1, 2, "other")] == found, calls
    assert "stat" in calls


def test_a_commit_that_comes_while_a_reader_looks_at_an_edit_is_told() -> None:
    """The other program commits before it finds the edit, and then brings both together."""

    def saves(other: Any, system: SimulatedSystem) -> None:
        system.write(system.open("/new", os.O_WRONLY | os.O_CREAT), b"n: 0\nm: 5\n")
        system.rename("/new", "/s.yaml")

    def commits(other: Any, system: SimulatedSystem) -> None:
        other.n = 1
        system.now += 1.0
        other.n = 2
        other.n = 3

    rest = [(("n",), 1, 2, "other"), (("n",), 2, 3, "other")]
    calls: list[str] = []
    for call, found in told_between(b"n: 0\nm: 1\n", commits, True, saves):
        if "open" in calls:
            break  # what is committed after that may come into the file with the edit
        calls.append(call)
        assert [(("n",), 0, 1, "other"), (("m",), 1, 5, "edit"), *rest] == found, calls
    assert ["stat", "open"] == [call for call in calls if call in ("stat", "open")]


def test_who_has_brought_an_edit_together_with_commits_waits_as_after_a_vacuum() -> None:
    """The edit has replaced the old file, and what is committed after it could be vacuumed away."""
    disk = SimulatedDisk({"/s.yaml": b"n: 0\nm: 1\n"})
    calls: list[str] = []
    found: list[Change] = []

    def when_waiting(system: SimulatedSystem, name: str, arguments: tuple[Any, ...]) -> None:
        calls.append(name)
        if calls[-2:] == ["is_watched", "sleep"]:
            found.extend(watch.poll())

    system = SimulatedSystem(disk, when_waiting, name="other")
    editor = SimulatedSystem(disk, name="editor")
    with PersistedState.open("/s.yaml", fs=SimulatedSystem(disk, name="watcher")) as state:
        other: Any = PersistedState.open("/s.yaml", fs=system)
        watch = state.watch()
        other.n = 1
        editor.write(editor.open("/new", os.O_WRONLY | os.O_CREAT), b"n: 0\nm: 5\n")
        editor.rename("/new", "/s.yaml")
        system.now += 1.0  # the last look at the path is long ago
        other.n = 2
        other.n = 3
        other.vacuum()
        other.n = 4
        found += watch.poll()
        watch.close()
        other.close()

    assert [(("n",), 2, 3, "other"), (("n",), 3, 4, "other")] == short(found)[-2:]


def test_with_a_lock_for_the_path_nobody_waits_for_who_waits_for_the_lock(path: Path) -> None:
    """A thread that waits for it cannot look meanwhile, and would delay the vacuum for as long as that has the lock."""
    with Crowd(path, "filelock") as crowd:
        crowd.begin(n=0)
        state = crowd.open()
        other = crowd.other()
        other.run("watch = state.watch()")
        other.tell("for _ in range(3000): state.n += 1")
        took = []
        for _ in range(5):
            before = time.monotonic()
            state.vacuum()
            took.append(time.monotonic() - before)
        other.answer()

    assert min(took) < 0.5


def test_what_is_read_again_after_an_interruption_has_its_origin(crowd: Crowd) -> None:
    crowd.begin(n=0)
    state = crowd.open()
    other = crowd.other()
    watch = state.watch()
    for n in (0, 2):
        state.n = n + 1
        other.run(f"state.n = {n + 2}")
        state._store.view = None  # as an exception of a signal handler leaves it

        assert [(n, n + 1, "here"), (n + 1, n + 2, "other")] == [(c.old, c.new, c.origin) for c in watch.poll()]


def test_a_watch_that_could_not_begin_keeps_nobody(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def start(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", start)
    with PersistedState(path, n=0) as state:
        with contextlib.suppress(RuntimeError):
            state.watch()
        assert marked(state)
        state.vacuum()
        assert not marked(state)


def test_a_state_that_is_dropped_while_its_watch_looks_is_tidied_up(path: Path) -> None:
    """A watch that is dropped waits for no other thread, so the thread of the watch does it at its end."""
    state = PersistedState(path, n=0)
    state.n = 1
    watch = state.watch()
    core = state._store
    held, leave = threading.Event(), threading.Event()

    def hold() -> None:
        with core.mutex:
            held.set()
            assert leave.wait(PATIENCE)

    thread = threading.Thread(target=hold)
    thread.start()
    assert held.wait(PATIENCE)
    assert watch.poll  # the last use
    del state, watch
    leave.set()
    thread.join()
    deadline = time.monotonic() + PATIENCE
    while not core.log.at_rest:
        assert time.monotonic() < deadline
        time.sleep(0.001)
    assert b"# pstate" not in path.read_bytes()


def test_what_was_told_is_not_remembered(crowd: Crowd) -> None:
    crowd.begin(n=0)
    state = crowd.open()
    watch = state.watch()
    crowd.other().run("state.n = 1; state.n = 2")
    assert [1, 2] == [change.new for change in watch.poll()]

    assert [] == watch._trail._others
    assert [] == watch._trail._legs


def test_the_watch_of_a_closed_state_keeps_nobody(path: Path) -> None:
    state = PersistedState(path, n=0)
    with PersistedState.open(path, read_only=True) as reader:
        watch = state.watch()
        fd = reader._store.view[4].fd
        assert SYSTEM.is_watched(fd)
        state.close()

        assert not SYSTEM.is_watched(fd)
        assert [] == watch.poll()


def test_a_read_only_state_is_watched(crowd: Crowd) -> None:
    crowd.begin(n=0)
    other = crowd.other()
    watch = crowd.open(read_only=True).watch("n")
    other.run("state.n = 1; state.vacuum(); state.n = 2")

    assert [(0, 1, "other"), (1, 2, "other")] == [(c.old, c.new, c.origin) for c in watch.poll()]


def test_several_watches_do_not_take_from_each_other(path: Path) -> None:
    with PersistedState(path) as state, PersistedState(path) as same_file:
        watches = [state.watch(), same_file.watch(), state.watch("n")]
        dropped = state.watch()
        del dropped
        state.n = 1

        assert [[1], [1], [1]] == [[change.new for change in watch.poll()] for watch in watches]


def test_a_child_process_goes_on_with_a_watch(path: Path) -> None:
    with PersistedState(path, n=0) as state:
        watch = state.watch()
        state.n = 1
        (seen,) = watch.poll()
        child = Fork(lambda: (setattr(state, "n", 2), short(watch.poll()))[1])

        assert [(("n",), 1, 2, "here")] == child.result()
        assert [(("n",), 1, 2, "other")] == short(watch.poll())
        assert 1 == seen.new


def test_a_child_that_uses_only_the_state_keeps_nobody(path: Path) -> None:
    """It has no thread that follows, so it has no mark either, until it uses the watch."""
    with PersistedState(path, n=0) as state:
        watch = state.watch()

        def use() -> list[bool]:
            state.snapshot()
            before = marked(state)
            watch.poll()
            return [before, marked(state), "pstate watch" in [thread.name for thread in threading.enumerate()]]

        assert [False, True, True] == Fork(use).result()


def marked(state: PersistedState) -> bool:
    return state._store.log.standing.trails._marked is not None


def test_a_child_that_was_forked_in_the_middle_of_a_look_can_look(path: Path) -> None:
    with PersistedState(path, n=0) as state:
        watch = state.watch()
        entered, leave = threading.Event(), threading.Event()

        def hold() -> None:
            with watch._looking:
                entered.set()
                leave.wait(PATIENCE)

        thread = threading.Thread(target=hold)
        thread.start()
        assert entered.wait(PATIENCE)
        child = Fork(lambda: (setattr(state, "n", 1), short(watch.poll()))[1])
        try:
            assert [(("n",), 0, 1, "here")] == child.result()
        finally:
            leave.set()
            thread.join()


# ------------------------------------------------------------------------------------------------------------- a place


@pytest.mark.parametrize(
    ("place", "told"),
    [
        ("n", [(("n",), 0, 1)]),
        (("n",), [(("n",), 0, 1)]),
        ("jobs[0]", [(("jobs", 0, "tries"), 0, 1), (("jobs", 0), {"name": "a", "tries": 1}, {"name": "z"})]),
        ("jobs[0].name", [(("jobs", 0, "name"), "a", "z")]),
        ("jobs.1.name", [(("jobs", 1, "name"), ABSENT, "a")]),
        ("jobs[-1].name", [(("jobs", 0, "name"), "a", ABSENT)]),
        ("jobs[-1].tries", [(("jobs", 0, "tries"), 0, 1), (("jobs", 1, "tries"), 1, ABSENT)]),
        ("seen.b", [(("seen", "b"), ABSENT, "b")]),
        (["seen", "a"], []),
        ("none", []),
        ("n.deeper", []),
    ],
)
def test_a_watch_of_a_place_is_told_what_stands_there(path: Path, place: Any, told: list[tuple[Any, ...]]) -> None:
    with PersistedState(path, n=0, jobs=[{"name": "a", "tries": 0}], seen={"a"}) as state:
        watch = state.watch(place)
        state.n = 1
        state.jobs[0].tries += 1
        state.jobs.insert(0, {"name": "z"})
        state.seen.add("b")
        state.other = 1
        state.jobs = []

        found = [(change.path, change.old, change.new) for change in watch.poll()]

    if place == "jobs[-1].name":  # a, then still a at [1], then nothing
        told = [(("jobs", 1, "name"), "a", ABSENT)]
    if place in ("jobs[0]", "jobs[0].name", "jobs.1.name"):
        told = [*told, (found[-1][0], found[-1][1], ABSENT)]
    assert told == found


def test_a_place_that_an_edit_changes(path: Path) -> None:
    path.write_text("a:\n  b: 1\nc: 1\n")
    with PersistedState(path) as state:
        watch = state.watch("a.b")
        path.write_text("a:\n  b: 2\nc: 2\n")
        assert [(("a", "b"), 1, 2, "edit")] == short(until(watch, ("a", "b"), 2))
        path.write_text("a: 7\nc: 2\n")
        assert [(("a", "b"), 2, ABSENT, "edit")] == short(until(watch, ("a", "b"), ABSENT))
        path.write_text("a:\n  b: 3\nc: 2\n")
        assert [(("a", "b"), ABSENT, 3, "edit")] == short(until(watch, ("a", "b"), 3))


@pytest.mark.parametrize(("place", "kind"), [("a..b", ValueError), ({"a": 1}, TypeError), ((["a"],), TypeError)])
def test_what_is_no_place_is_refused(path: Path, place: Any, kind: type[Exception]) -> None:
    with PersistedState(path) as state:
        for call in (state.watch, state.history):
            with pytest.raises(kind, match=r"Nothing was done\."):
                call(place)


KEYS = st.sampled_from(["a", "b", 1])
SCALARS = st.none() | st.booleans() | st.integers(0, 3) | st.sampled_from(["x", "y"])
TREES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3), max_leaves=6
)
PLACES = st.lists(KEYS | st.sampled_from([0, -1, "0"]), min_size=1, max_size=3)


@given(states=st.lists(st.dictionaries(KEYS, TREES, max_size=3), min_size=2, max_size=5), place=PLACES, data=st.data())
def test_the_changes_of_a_place_lead_from_its_first_value_to_its_last(
    states: list[dict[Any, Any]], place: list[Any], data: st.DataObject
) -> None:
    """Whether they come by operations or by a new document: one after the other, and none that changes nothing."""
    root = changes.grown(states[0])
    value = at(states[0], place)
    for old, new in itertools.pairwise(states):
        if data.draw(st.booleans()):
            found = list(changes.between_at(old, new, place))
            root = changes.grown(new)
        else:
            found = []
            for operation in operations(old, new, data):
                found += changes.play(root, operation, place)
        for change in found:
            assert change.old is ABSENT or change.new is ABSENT or not same(change.old, change.new)
            value = put(value, list(change.path[len(place) :]), change)
        assert value is at(new, place) or same(value, at(new, place)), (old, new, found)


def operations(old: dict[Any, Any], new: dict[Any, Any], data: st.DataObject) -> list[list[Any]]:
    """What makes *new* of *old*: keys deleted and set, lists spliced."""
    found: list[list[Any]] = [["delete", [], key] for key in old if key not in new]
    for key, value in new.items():
        if type(old.get(key)) is list and type(value) is list and data.draw(st.booleans()):
            found.append(["splice", [key], 0, len(old[key]), value])
        elif type(old.get(key)) is dict and type(value) is dict and data.draw(st.booleans()):
            found += [[name, [key, *path], *rest] for name, path, *rest in operations(old[key], value, data)]
        else:
            found.append(["set", [], key, value])
    return found


def at(tree: Any, place: list[Any]) -> Any:
    for key in place:
        try:
            tree = tree[int(key) if isinstance(tree, list) else key] if isinstance(tree, dict | list) else ABSENT
        except (LookupError, ValueError):
            return ABSENT
    return tree


def put(value: Any, path: list[Any], change: Change) -> Any:
    """What *value* at *path* has become by *change*."""
    if not path:
        return change.new
    if len(path) == 1 and isinstance(value, list):
        copy = list(value)
        if change.old is ABSENT:
            copy.insert(path[0], change.new)
        elif change.new is ABSENT:
            copy.remove(change.old)  # of several that go, each has the index that it had: so by value
        else:
            copy[path[0]] = change.new
        return copy
    copy = value.copy()
    if change.new is ABSENT and len(path) == 1:
        del copy[path[0]]
    else:
        copy[path[0]] = put(copy.get(path[0]) if isinstance(copy, dict) else copy[path[0]], path[1:], change)
    return copy


# ------------------------------------------------------------------------------------------------------------ iterating


def test_it_wakes_up_within_a_tenth_of_a_second(crowd: Crowd) -> None:
    crowd.begin(at=0.0)
    other = crowd.other()
    watch = crowd.open().watch(timeout=PATIENCE)
    delays: list[float] = []
    for _ in range(20):
        other.tell("import time; state.at = time.monotonic()")
        delays.append(-next(watch).new + time.monotonic())
        other.answer()

    assert sorted(delays)[10] < 0.1


def test_an_iteration_waits_and_ends_when_nothing_has_changed_for_a_while(path: Path) -> None:
    with PersistedState(path, n=0) as state:
        watch = state.watch(timeout=0.3)

        def count() -> None:
            for _ in range(5):
                time.sleep(0.1)  # less than the timeout, which begins again with each
                state.n += 1

        thread = threading.Thread(target=count)
        thread.start()
        found = [change.new for change in watch]
        thread.join()

        assert [1, 2, 3, 4, 5] == found
        state.n = 6
        assert [] == list(watch), "it has ended"


def test_closing_the_state_ends_it_and_loses_nothing(path: Path) -> None:
    state = PersistedState(path, n=0)
    watch = state.watch()
    state.n = 1
    state.vacuum()
    state.n = 2
    state.close()

    assert [1, 2] == [change.new for change in watch]
    with pytest.raises(ClosedError):
        state.watch()


def test_closing_a_state_while_another_one_of_the_file_is_open(path: Path) -> None:
    with PersistedState(path, n=0):
        state = PersistedState(path)
        watch = state.watch()
        state.n = 1
        state.close()

        assert [1] == [change.new for change in watch]


def test_closing_the_watch(path: Path) -> None:
    with PersistedState(path, n=0) as state:
        with state.watch() as watch:
            state.n = 1
        assert [] == list(watch)
        assert [] == watch.poll()


def test_a_watch_keeps_its_state_open(path: Path) -> None:
    path.write_text("n: 0\n")
    watch = PersistedState(path).watch()
    with PersistedState(path) as state:
        state.n = 1

    assert [1] == [change.new for change in watch.poll()]


def test_it_is_an_asynchronous_iterator(path: Path) -> None:
    async def count(state: Any) -> None:
        for _ in range(3):
            await asyncio.sleep(0.03)
            state.n += 1

    async def watched() -> list[int]:
        with PersistedState(path, n=0) as state:
            watch = state.watch(timeout=0.5)
            counting = asyncio.create_task(count(state))
            found = [change.new async for change in watch]
            await counting
            return found

    assert [1, 2, 3] == asyncio.run(watched())


def test_the_loop_goes_on_while_another_thread_is_in_a_transaction(path: Path) -> None:
    entered, leave = threading.Event(), threading.Event()

    def hold(state: PersistedState) -> None:
        with state.transaction():
            entered.set()
            assert leave.wait(PATIENCE)
            state.n = 1

    async def main() -> int:
        with PersistedState(path, n=0) as state:
            watch = state.watch(timeout=PATIENCE)
            holder = threading.Thread(target=hold, args=(state,))
            holder.start()
            assert entered.wait(PATIENCE)
            waiting = asyncio.ensure_future(watch.__anext__())
            await asyncio.sleep(0.05)  # the loop is not blocked: this ends
            assert not waiting.done()
            leave.set()
            change = await waiting
            holder.join()
            assert isinstance(change.new, int)
            return change.new

    assert 1 == asyncio.run(main())


def test_a_cancelled_wait_loses_nothing(path: Path) -> None:
    async def main() -> list[Any]:
        with PersistedState(path, n=0) as state:
            watch = state.watch(timeout=0.3)
            found = []
            for n in range(1, 50):
                waiting = asyncio.ensure_future(watch.__anext__())
                await asyncio.sleep(0)
                state.n = n
                await asyncio.sleep(0.0001 * n)
                waiting.cancel()
                try:
                    found.append((await waiting).new)
                except asyncio.CancelledError:
                    pass
            return found + [change.new async for change in watch]

    assert list(range(1, 50)) == asyncio.run(main())


# -------------------------------------------------------------------------------------------------------- misses none


@pytest.mark.parametrize("options", [{}, {"read_only": True}])
def test_no_commit_of_three_writers_is_missed(crowd: Crowd, options: dict[str, Any]) -> None:
    """Through 45 vacuums, which come as they come."""
    crowd.begin(n=0)
    state = crowd.open(**options)
    others = [crowd.other() for _ in range(3)]
    watch = state.watch("n")
    for other in others:
        other.tell(
            """
            for number in range(300):
                with state.transaction():
                    state.n += 1
                if number % 20 == 19:
                    state.vacuum()
            """
        )
    found: list[int] = []
    deadline = time.monotonic() + PATIENCE
    while not found or found[-1] < 900:
        assert time.monotonic() < deadline, found[-1:]
        found += [change.new for change in watch.poll()]
        time.sleep(0.001)
    for other in others:
        other.answer()

    assert list(range(1, 901)) == found


def test_no_commit_of_programs_that_open_and_close_is_missed(crowd: Crowd) -> None:
    """Each close is a vacuum."""
    crowd.begin(n=0)
    watch = crowd.open().watch("n")
    others = [crowd.other(opened=False) for _ in range(2)]
    for other in others:
        other.tell(
            """
            for _ in range(60):
                with reopened() as state, state.transaction():
                    state.n += 1
            """
        )
    for other in others:
        other.answer()

    assert [(n, n + 1, "other") for n in range(120)] == [(c.old, c.new, c.origin) for c in watch.poll()]


def test_what_is_not_synced_yet_is_not_told(path: Path) -> None:
    """With durability "power": what somebody acts on, a power cut must not take back (I11)."""

    disk = Gated()
    with PersistedState.open(path, defaults={"n": 0}, durability="power", fs=disk) as state:
        watch = state.watch(timeout=PATIENCE)
        told = threading.Event()

        def wait() -> None:
            next(watch)
            told.set()

        disk.close_the_gate()
        writer = threading.Thread(target=setattr, args=(state, "n", 1))
        writer.start()
        assert disk.waiting.wait(PATIENCE)
        reader = threading.Thread(target=wait)
        reader.start()
        assert not told.wait(0.2)
        disk.gate.set()
        assert told.wait(PATIENCE)
        writer.join()
        reader.join()


# ------------------------------------------------------------------------------------------------------------- history


@file_only("a server keeps the commits before the vacuum, too")
def test_history_tells_the_commits_since_the_last_vacuum(address: str) -> None:
    with PersistedState(address, n=0) as state:
        state.n = 1
        state.vacuum()
        state.n = 2
        with state.transaction():
            state.n = 3
            state.m = [1]

        told = [Change(("n",), 1, 2, None, 1), Change(("n",), 2, 3, None, 2), Change(("m",), ABSENT, [1], None, 2)]
        assert told == list(state.history())
        assert told[:2] == list(state.history("n"))
        history = state.history()
        state.n = 4
        assert told == list(history), "it is of the moment at which it was asked for"


def test_history_of_a_plain_document_is_empty(path: Path) -> None:
    path.write_text("n: 1\n")
    with PersistedState.open(path, read_only=True) as state:
        assert [] == list(state.history())


@file_only("a server keeps the commits before the vacuum, too")
def test_a_watch_may_begin_with_the_history(address: str) -> None:
    with Crowd(address) as crowd:
        other = crowd.other()
        other.run("state.n = 0; state.vacuum(); state.n = 1")
        state = crowd.open()
        state.n = 2
        watch = state.watch(history=True)
        state.n = 3
        other.run("state.n = 4")

        assert [(0, 1, None), (1, 2, None), (2, 3, "here"), (3, 4, "other")] == [
            (change.old, change.new, change.origin) for change in watch.poll()
        ]
        other.run("state.vacuum()")
        state.n = 5
        assert [(4, 5, "here")] == [(change.old, change.new, change.origin) for change in watch.poll()]


def test_a_watch_may_begin_with_what_is_there(address: str) -> None:
    with PersistedState(address, a={"b": 1}, n=None) as state:
        assert [(("a",), ABSENT, {"b": 1}, None), (("n",), ABSENT, None, None)] == short(state.watch(now=True).poll())
        watch = state.watch("a.b", now=True)
        state.a.b = 2
        assert [(("a", "b"), ABSENT, 1, None), (("a", "b"), 1, 2, "here")] == short(watch.poll())
        assert [] == state.watch("nothing", now=True).poll()
        state.vacuum()
        state.n = 3
        assert [(ABSENT, None), (None, 3)] == [
            (change.old, change.new) for change in state.watch("n", now=True, history=True).poll()
        ]


@pytest.mark.parametrize("changed", [False, True])
def test_the_history_does_not_begin_inside_of_a_transaction(address: str, changed: bool) -> None:
    with PersistedState(address, n=0) as state:
        with state.transaction():
            if changed:
                state.n = 1
            with pytest.raises(TransactionError, match=r"history\(\) inside a transaction"):
                state.history()
        assert [change.new for change in state.history("n")] == [0, 1][: 1 + changed]
