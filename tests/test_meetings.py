"""Schedules that once broke a promise: saves, vacuums, forks and failures that meet where nobody looked."""

from __future__ import annotations

import errno
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tools.crash import peek
from tools.disks import Failing, Seam
from tools.edits import World, save_by_rename, save_in_place
from tools.processes import Crowd

from pstate import BypassedError, EditConflict, PersistedState, StoreFailedError, WriteError
from pstate.file import limits
from pstate.file.fs import FileSystem
from pstate.testing.disk import Inode, SimulatedDisk
from pstate.testing.system import Hook, SimulatedSystem, fail


@pytest.fixture
def world(world: World) -> World:
    world.write("counter: 3\nname: first\nlog:\n- a\n")
    return world


@pytest.mark.parametrize("saved", [b"a: 3", b"a: 3\nb: |+\n  text"])
def test_a_save_in_place_without_a_final_newline_takes_commits(world: World, saved: bytes) -> None:
    peer = world.peer()
    peer.run("state.a = 1; state.a = 2")
    save_in_place(world.path, saved)
    assert 3 == peer.ask("state.a")
    peer.run("state.c = 1")
    assert 1 == world.finish()["c"]


@pytest.mark.parametrize("saved", [b"log:\n- urgent\n- a\n- b\n", b"tasks:\n- a\n- b\n", b"log: []\n"])
def test_a_save_in_the_middle_of_a_transaction_that_must_write_the_document_anew(world: World, saved: bytes) -> None:
    world.write("log:\n- a\n- b")
    peer = world.peer()
    peer.run("block = state.transaction(); block.__enter__(); first = state.log[0]")
    save_in_place(world.path, saved)
    try:
        peer.run("took = state.log.pop(0)\nblock.__exit__(None, None, None)")
    except (EditConflict, WriteError):
        peer.run("block.__exit__(KeyError, None, None)")
        expected = saved
    else:
        assert "a" == peer.ask("took")
        expected = saved.replace(b"- a\n", b"")
    import yaml

    assert yaml.safe_load(expected) == world.finish()


def test_a_newcomers_commits_to_a_stale_copy_are_kept(world: World) -> None:
    first = world.peer()
    first.run("state.x = 1")
    copy = world.content
    first.run("state.y = 2")
    save_by_rename(world.path, copy)
    second = world.peer()
    second.run("state.z = 3")
    state = first.snapshot()
    assert (1, 2, 3) == (state["x"], state["y"], state.get("z"))
    world.finish()


def test_a_copy_from_before_a_vacuum_that_is_saved_in_place_within_a_commit_is_a_conflict(world: World) -> None:
    """The commit lands behind the copy, and makes it look like an edit of the document that the vacuum wrote."""
    peer = world.peer()
    copy = world.content
    peer.run("state.log.append('b'); state.vacuum(); state.log.append('c')")
    _, journal, records = world.content.partition(b"... # pstate")
    save_in_place(world.path, copy + journal + records)
    with pytest.raises(EditConflict) as caught:
        peer.snapshot()

    assert caught.value.conflict_path is not None
    assert b"log:\n  - a\n  - b\n  - c\n" in Path(caught.value.conflict_path).read_bytes()


def test_a_torn_tail_below_a_replaced_file_does_not_make_others_judge_again(world: World) -> None:
    copy = world.content.replace(b"- a\n", b"- new\n- a\n")
    first = world.peer()
    second = world.peer()
    first.run("state.log.append('b')")
    assert ["a", "b"] == second.ask("list(state.log)")
    with world.path.open("ab") as file:
        file.write(b'--- [["set",[],"z",')
    save_by_rename(world.path, copy)
    first.run("state.m = 1")
    assert 1 == second.ask("state.m")
    assert ["new", "a", "b"] == world.finish()["log"]
    assert [] == world.conflicts()


@pytest.mark.parametrize("content", [b"# nothing yet", b"\xef\xbb\xbf", b"  "])
def test_a_vacuum_of_a_file_without_a_final_newline_is_followed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes
) -> None:
    monkeypatch.setattr(limits, "LOOK_INTERVAL", 3600.0)
    path = tmp_path / "state.yaml"
    path.write_bytes(content)
    with Crowd(path) as crowd:
        state = crowd.open()
        other = crowd.other()
        other.run("state.vacuum(); state.a = 1")
        state.b = 2
        assert {"a": 1, "b": 2} == state.snapshot() == other.ask("state.snapshot()")


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


def test_after_a_failed_sync_a_failed_vacuum_lets_no_write_through(tmp_path: Path) -> None:
    path = tmp_path / "state.yaml"
    fs = Failing()
    state = PersistedState.open(path, fs=fs, durability="power")
    state["a"] = 1
    fs.failing = {"sync_data"}
    with pytest.raises(OSError, match="stable storage"):
        state["a"] = 2
    fs.failing = {"sync"}
    with pytest.raises(WriteError):
        state.vacuum()
    fs.failing = set()
    with pytest.raises(StoreFailedError):
        state["a"] = 3
    state.vacuum()
    state["a"] = 4
    state.close()


def test_with_power_the_first_commit_to_a_file_of_others_syncs_the_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "LOOK_INTERVAL", 0.0)
    path = tmp_path / "state.yaml"
    fs = Seam()
    other = PersistedState.open(path, fs=Seam())
    other["a"] = 1
    state = PersistedState.open(path, fs=fs, durability="power")
    fs.armed = True
    state["b"] = 1
    assert "sync_folder" in fs.calls
    fs.calls.clear()
    save_by_rename(path, path.read_bytes())
    assert 1 == state["b"]
    state["b"] = 2
    assert "sync_folder" in fs.calls
    other.close()
    state.close()


def test_a_read_that_reads_the_file_again_finds_the_vacuum(tmp_path: Path) -> None:
    with Crowd(tmp_path / "state.yaml") as crowd:
        state = crowd.open(defaults={"jobs": [1], "x": 1})
        list.append(state.jobs, 2)
        with pytest.raises(BypassedError):
            state.jobs.append(3)
        crowd.other().run("state.vacuum(); state.x = 2")
        assert 2 == state.x


@pytest.mark.parametrize("tail", [b"-", b"--", b"---"])
def test_a_torn_separator_of_persistedstate_takes_commits(tmp_path: Path, tail: bytes) -> None:
    path = tmp_path / "state.yaml"
    path.write_bytes(b'a: 1\n---\n["set", [], "a", 4]\n' + tail)
    state = PersistedState(path)
    state["b"] = 1
    state.close()
    assert {"a": 4, "b": 1} == peek(path)


def test_a_document_that_ends_in_a_dash_is_read_as_pyyaml_reads_it(tmp_path: Path) -> None:
    path = tmp_path / "state.yaml"
    path.write_bytes(b"a:\n- x\n-")
    assert {"a": ["x", None]} == peek(path)
    os.unlink(path)


# ------------------------------------------------------------------ between two calls of a vacuum

TRAILER = b"--- # pstate moved 00000000 0000000008 4ee36d3c 0000000000 4ee36d3c\n"


class Meeting:
    """A state on a simulated disk, and what somebody else does before its next call of a name."""

    def __init__(self, content: bytes = b"log: []\n") -> None:
        self.disk = SimulatedDisk({"/state.yaml": content})
        self.before: dict[str, Callable[[], None]] = {}
        self.system, self.state = self.another("a", self._hook)

    def another(self, name: str, hook: Hook = lambda *call: None) -> tuple[SimulatedSystem, Any]:
        system = SimulatedSystem(self.disk, hook, name=name, tick=0.01)
        return system, PersistedState.open("/state.yaml", fs=system)

    def _hook(self, system: SimulatedSystem, name: str, arguments: tuple[object, ...]) -> None:
        self.before.pop(name, lambda: None)()

    def move_away(self) -> None:
        self.disk.name(("/backup", self.disk.names["/state.yaml"]), ("/state.yaml", None))

    def write_new(self, content: bytes = b"person: 1\nlog: []\n") -> None:
        fd = self.system.open("/state.yaml", os.O_WRONLY | os.O_CREAT | os.O_EXCL)
        self.system.write(fd, content)
        self.system.close(fd)

    def look(self) -> dict[Any, Any]:
        """What the state is when it has had the time to see all there is."""
        for _ in range(20):
            self.system.sleep(0.2)
            len(self.state)
        found: dict[Any, Any] = self.state.snapshot()
        return found


@pytest.mark.parametrize("moment", ["stat", "rename_new"])
def test_a_file_that_is_moved_away_and_written_anew_within_a_vacuum_is_not_overwritten(moment: str) -> None:
    """It comes back before the next look, or only when we have waited for it, in front of our rename."""
    meeting = Meeting()

    def arm() -> None:
        meeting.move_away()
        meeting.before[moment] = meeting.write_new

    meeting.before["exchange"] = arm
    meeting.state.vacuum()

    assert {"person": 1, "log": []} == meeting.look()
    meeting.state.close()
    assert {"/state.yaml", "/backup"} == set(meeting.disk.names)


def test_a_file_that_an_editor_deletes_within_a_vacuum_is_the_editors_to_write() -> None:
    """git opens the new one with O_EXCL, and would fail if ours were there."""
    meeting = Meeting()

    def delete() -> None:
        meeting.disk.name(("/state.yaml", None))
        meeting.before["sleep"] = meeting.write_new

    meeting.before["exchange"] = delete
    meeting.state.vacuum()

    assert {"person": 1, "log": []} == meeting.look()


def test_an_empty_file_that_another_program_vacuums_takes_no_commits_any_more() -> None:
    """Its vacuum leaves no trailer, so that its size does not tell."""
    meeting = Meeting(b"")
    _, other = meeting.another("b")
    other.vacuum()
    other.b = 1
    meeting.state.a = 1

    assert {"b": 1, "a": 1} == other == meeting.state


def test_what_was_acknowledged_is_read_behind_vacuums_that_left_no_trailer() -> None:
    meeting = Meeting(b"")
    _, other = meeting.another("b")
    other.vacuum()
    assert {} == meeting.state
    other.b = 1
    assert {"b": 1} == meeting.state

    meeting = Meeting(b"")
    _, other = meeting.another("b")
    other.vacuum()
    other.b = 1
    other.vacuum()
    assert {"b": 1} == meeting.state


def test_a_close_keeps_commits_that_a_save_in_place_lacks_although_the_file_is_locked() -> None:
    meeting = Meeting()
    _, other = meeting.another("b")
    inode = meeting.disk.names["/state.yaml"]
    content = inode.content
    meeting.state.log.append("a")
    inode.truncate(0)
    inode.write(0, content)
    with other.transaction():
        meeting.state.close()

    kept = [each.content for path, each in meeting.disk.names.items() if ".conflict-" in path]
    assert [b"log:\n  - a\n"] == kept


def test_a_vacuum_does_not_cut_into_a_save_in_place_that_goes_on() -> None:
    """The second piece comes when the trailer, which stands behind the first one, would be cut off again."""
    meeting = Meeting()
    inode = meeting.disk.names["/state.yaml"]

    def first_piece() -> None:
        inode.truncate(0)
        inode.write(0, b"person: 1\nlog: ")
        meeting.before["close"] = meeting.before["truncate"] = second_piece

    def second_piece() -> None:
        meeting.before.clear()
        inode.write(15, b"[]\n")

    meeting.before["write"] = lambda: meeting.before.update(write=first_piece)  # the new file first, the trailer then
    meeting.state.vacuum()

    assert {"person": 1, "log": []} == meeting.look()
    assert inode.content.startswith(b"person: 1\nlog: []\n")


def test_a_copy_that_was_read_within_a_vacuum_is_a_save_like_any_other() -> None:
    meeting = Meeting()
    meeting.state.vacuum()
    meeting.move_away()
    meeting.write_new(b"person: 1\nlog: []\n" + TRAILER)

    assert {"person": 1, "log": []} == meeting.look()
    meeting.state.log.append("one")
    meeting.state.close()
    assert b"person: 1\nlog:\n  - one\n" == meeting.disk.names["/state.yaml"].content


def test_a_program_does_not_wait_for_its_own_lock() -> None:
    """For a moment, the vacuum of a file that is not at the path any more exchanges ours away, and sees that."""
    meeting = Meeting()
    meeting.state.log.append("one")
    ours = meeting.disk.names["/state.yaml"]
    other = Inode(1000, b"log: []\n")

    def away() -> None:
        meeting.disk.name(("/state.yaml", other))
        meeting.before["open"] = lambda: meeting.disk.name(("/state.yaml", ours))

    meeting.before["stat"] = away
    with meeting.state.transaction(timeout=1):
        meeting.state.log.append("two")

    assert not meeting.before
    assert {"log": ["one", "two"]} == meeting.look()


def test_whoever_follows_a_vacuum_waits_for_the_end_of_a_save() -> None:
    meeting = Meeting()
    _, vacuuming = meeting.another("v")
    vacuuming.vacuum()
    inode = meeting.disk.names["/state.yaml"]
    inode.truncate(0)
    inode.write(0, b"person: 1\nlog: ")
    meeting.before["sleep"] = lambda: inode.write(15, b"[]\n")

    assert [] == meeting.state.log
    assert not meeting.before
    assert {"person": 1, "log": []} == meeting.look()


def test_a_commit_that_an_overlapping_save_in_place_has_overwritten_comes_back() -> None:
    """The copy had the first commit of another program, whose generation is not the one of ours any more."""
    meeting = Meeting()
    system, other = meeting.another("b")
    inode = meeting.disk.names["/state.yaml"]
    base = inode.content
    other.log.append("b")
    journal = inode.content[len(base) :]
    inode.truncate(len(base))
    meeting.state.log.append("a")
    inode.truncate(0)
    inode.write(0, b"person: 1\n" + base + journal)
    for _ in range(20):
        system.sleep(0.2)
        other.log.copy()

    assert {"person": 1, "log": ["b", "a"]} == meeting.look()


def test_a_file_that_is_emptied_while_it_is_read_is_not_taken_for_unchanged() -> None:
    meeting = Meeting()
    _, other = meeting.another("b")
    other.log.append("b")
    inode = meeting.disk.names["/state.yaml"]

    def save() -> None:
        inode.truncate(0)
        inode.write(0, b"p: 1\n")

    meeting.before["pread"] = save
    with meeting.state.transaction():
        assert {"p": 1} == meeting.state


@pytest.mark.parametrize("spoilt", [b"mine: 1\n", b"log: [\n", b""])
def test_a_file_that_is_moved_away_and_then_changed_is_not_the_state(spoilt: bytes) -> None:
    """With a journal in it: what a person makes of the old file must not keep us from writing the state anew."""
    meeting = Meeting()
    meeting.state.log.append("one")
    inode = meeting.disk.names["/state.yaml"]
    meeting.move_away()
    inode.truncate(0)
    inode.write(0, spoilt)
    meeting.system.sleep(1)
    meeting.state.log.append("two")

    assert {"log": ["one", "two"]} == meeting.look()
    assert inode.content == spoilt
    meeting.state.close()
    assert b"log:\n  - one\n  - two\n" == meeting.disk.names["/state.yaml"].content


def test_a_symbolic_link_that_leads_nowhere_is_an_error_not_a_wait(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "MISSING", 0.02)
    path = tmp_path / "state.yaml"
    with PersistedState(path, n=0) as state:
        state.n = 1
        path.unlink()
        path.symlink_to(tmp_path / "nowhere" / "at all")
        with pytest.raises(WriteError, match="could not be written again"):
            state.vacuum()
        assert 1 == state.n
        path.unlink()
        time.sleep(1.5 * limits.LOOK_INTERVAL)
        with state.transaction():
            state.n = 2
    assert b'"n": 2\n' == path.read_bytes()


def test_a_file_that_others_have_replaced_twice_is_read_at_once_when_it_is_old(tmp_path: Path) -> None:
    path = tmp_path / "state.yaml"
    path.write_bytes(b"n: 0\n")
    slept: list[float] = []
    system = FileSystem()
    system.sleep = slept.append
    system.wall = lambda: time.time() + 1.5
    state: Any = PersistedState.open(path, fs=system)
    for number in (1, 2):
        # Not in this process: that would share the store.
        other: Any = PersistedState.open(path, fs=FileSystem())
        other.n = number
        other.close()

    assert 2 == state.n
    assert [] == slept
    state.close()


@pytest.mark.parametrize("content", [b"log: []", b"log:\n- before\n", b""])
def test_a_block_of_another_program_does_not_hide_what_was_acknowledged(content: bytes) -> None:
    """The file took no trailer, and the lock of the one that has replaced it is held."""
    meeting = Meeting(content)
    _, other = meeting.another("b")
    other.vacuum()
    other.n = 1
    with other.transaction():
        other.n = 2
        assert 1 == meeting.state["n"]


def test_a_broken_successor_does_not_push_older_documents_out() -> None:
    meeting = Meeting(b"n: 0\n")
    _, other = meeting.another("b")
    for number in range(1, 4):
        other.n = number
        other.vacuum()
        meeting.look()
    remembered = meeting.state._store.log.past._previous
    other.n = 4
    other.vacuum()
    inode = meeting.disk.names["/state.yaml"]
    whole = inode.content
    inode.truncate(0)
    inode.write(0, b"n: [")
    for _ in range(5):
        meeting.system.sleep(1)
        assert 4 == meeting.state.n
    inode.truncate(0)
    inode.write(0, whole)
    meeting.look()

    kept = [base for base, _, _ in meeting.state._store.log.past._previous]
    assert [base for base, _, _ in remembered] == kept[: len(remembered)]


@pytest.mark.parametrize(("size", "vacuums", "left"), [(10, 110, limits.STALE_COPIES), (400_000, 7, 4)])
def test_what_is_kept_to_recognise_stale_copies_is_limited(size: int, vacuums: int, left: int) -> None:
    meeting = Meeting(b"n: 0\ntext: %s\n" % (size * b"x"))
    for number in range(vacuums):
        meeting.state.n = number
        meeting.state.vacuum()

    kept = meeting.state._store.log.past._previous
    assert left == len(kept)
    assert (b"n: %d\n" % (vacuums - 2)) in kept[-1][0].replace(b'"', b"")


def test_a_deleted_file_is_written_again_where_the_system_has_only_the_plain_rename() -> None:
    meeting = Meeting()
    meeting.system.exchange = meeting.system.rename_new = lambda *paths: fail(errno.ENOSYS)  # type: ignore[method-assign]
    meeting.state.log.append("one")
    meeting.disk.name(("/state.yaml", None))
    with meeting.state.transaction():
        meeting.state.log.append("two")

    meeting.state.close()
    assert {"/state.yaml": b"log:\n  - one\n  - two\n"} == meeting.disk.files()
