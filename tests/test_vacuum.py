"""Between any two calls of a vacuum, or of a read, somebody else saves, moves, vacuums or commits: nothing is lost.

The disk is simulated, so that a test can choose the call.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from typing import Any

import pytest

from pstate import PersistedState
from pstate.file import limits
from pstate.testing.disk import Inode, SimulatedDisk
from pstate.testing.system import Hook, SimulatedSystem, fail

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
    """It comes back before the next look, or only when we have waited for it, before our rename."""
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
    """git opens the new one with O_EXCL, and would fail if ours existed."""
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
    """The second piece comes when the trailer, which follows the first one, would be cut off again."""
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
    """With a journal in it: what a person makes of the old file must not keep us from writing the state again."""
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
