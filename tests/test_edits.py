"""Hand edits: every way a person saves, at every moment, with one and two live processes.

The processes are real and driven over pipes. `World.finish` ends every test: every process commits and sees the others,
and after the last close the file is one plain YAML document with nothing of ours beside it.
"""

from __future__ import annotations

import contextlib
import os
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from tools.crash import peek
from tools.disks import CHANGING, Disk
from tools.edits import (
    SAVES,
    Peer,
    Save,
    World,
    in_place_in_pieces,
    save_by_deleting,
    save_by_moving_away,
    save_by_rename,
    save_by_rename_keeping_a_link,
    save_in_place,
    save_in_place_without_truncation,
)
from tools.processes import Crowd

from pstate import (
    CorruptStateError,
    EditConflict,
    InvalidEditError,
    PersistedState,
    RemovedError,
    WriteError,
)
from pstate.file import limits
from pstate.file.edits import merge
from pstate.file.format import encode_record
from pstate.file.fs import FileSystem
from pstate.memory import ops

BASE = b"""\
# the owner's notes
counter: 3      # how many
name: first
jobs:
- one
- two
settings:
  retries: 5
  verbose: false
"""
STATE: dict[str, Any] = {
    "counter": 3,
    "name": "first",
    "jobs": ["one", "two"],
    "settings": {"retries": 5, "verbose": False},
}


@pytest.fixture
def world(world: World) -> World:
    world.write(BASE)
    return world


@pytest.fixture(autouse=True)
def looks_are_not_throttled(monkeypatch: pytest.MonkeyPatch) -> None:
    """In this process too; a `Peer` does it for itself."""
    monkeypatch.setattr(limits, "LOOK_INTERVAL", 0.0)
    monkeypatch.setattr(limits, "CHECK_INTERVAL", 0.0)
    monkeypatch.setattr(limits, "QUIET", 0.0)
    monkeypatch.setattr(limits, "CHECK_COST", 0)
    monkeypatch.setattr(limits, "MISSING", 0.02)


every_save = pytest.mark.parametrize("save", SAVES, ids=lambda save: save.__name__)
one_and_two = pytest.mark.parametrize("count", [1, 2], ids=["one process", "two processes"])


def with_name(content: bytes, name: str = "edited") -> bytes:
    """What a person makes of it: another value in the base document."""
    edited = content.replace(b"name: first\n", f"name: {name}\n".encode(), 1)
    assert edited != content
    return edited


def base_of(content: bytes) -> bytes:
    return re.split(rb"^\.\.\. # pstate ", content, maxsplit=1, flags=re.MULTILINE)[0]


# ---------------------------------------------------------------------- every save, every kind of copy


@every_save
@one_and_two
def test_a_save_of_a_file_without_a_journal_is_adopted(world: World, save: Save, count: int) -> None:
    """A file that is only read is edited like any other."""
    peers = [world.peer() for _ in range(count)]
    save(world.path, with_name(world.content))

    for peer in peers:
        assert "edited" == peer.ask("state.name")
    assert {**STATE, "name": "edited"} == world.finish()


@every_save
@one_and_two
def test_a_save_above_a_live_journal_keeps_the_edit_and_every_commit(world: World, save: Save, count: int) -> None:
    """The editor kept the journal below the document."""
    peers = [world.peer() for _ in range(count)]
    for number, peer in enumerate(peers):
        peer.run(f"state.counter = {10 + number}; state.jobs.insert(0, 'from {number}')")
    jobs = peers[0].ask("state.snapshot()['jobs']")
    save(world.path, with_name(world.content))

    for peer in peers:
        assert "edited" == peer.ask("state.name")
        assert 9 + count == peer.ask("state.counter")
        assert jobs == peer.ask("state.snapshot()['jobs']")
    assert {**STATE, "name": "edited", "counter": 9 + count, "jobs": jobs} == world.finish()
    assert [] == world.conflicts()


@every_save
@one_and_two
def test_a_save_without_the_journal_gets_the_commits_back(world: World, save: Save, count: int) -> None:
    """The person deleted the lines below the document, or the editor did; a living process knows what they were."""
    peers = [world.peer() for _ in range(count)]
    peers[0].run("state.counter = 10; state.jobs.append('three')")
    peers[-1].run("state.added = [1]")
    save(world.path, with_name(base_of(world.content)))

    for peer in peers:
        assert "edited" == peer.ask("state.name")
        assert 10 == peer.ask("state.counter")
    expected = {**STATE, "name": "edited", "counter": 10, "jobs": ["one", "two", "three"], "added": [1]}
    assert expected == world.finish()
    assert [] == world.conflicts()


@every_save
@one_and_two
def test_commits_between_an_editors_read_and_its_save_come_back_once(world: World, save: Save, count: int) -> None:
    """The copy has the older half of the journal. An insert into a list happens once, no matter who notices first."""
    peers = [world.peer() for _ in range(count)]
    peers[0].run("state.counter = 10")
    stale = with_name(world.content)
    peers[0].run("state.jobs.insert(0, 'zero')")
    peers[-1].run("state.jobs.append('three')")
    save(world.path, stale)

    for peer in peers:
        peer.tell("(state.name, state.snapshot()['jobs'])", "ask")  # all notice at the same time
    for peer in peers:
        peer.answer()
    for peer in peers:
        # The one that met the other's lock did not wait, and looks again now. Only a process that has read what a save
        # in place has overwritten knows it, so the first may not know "three" before the second has looked.
        peer.ask("state.name")
    for peer in peers:
        assert ("edited", ["zero", "one", "two", "three"]) == peer.ask("(state.name, state.snapshot()['jobs'])")
    expected = {**STATE, "name": "edited", "counter": 10, "jobs": ["zero", "one", "two", "three"]}
    assert expected == world.finish()
    assert [] == world.conflicts()


@every_save
@one_and_two
def test_a_copy_read_before_the_first_commit_gets_the_commits_on_top(world: World, save: Save, count: int) -> None:
    """The copy has no journal at all, because there was none when it was read."""
    peers = [world.peer() for _ in range(count)]
    stale = with_name(world.content)
    peers[0].run("state.jobs.insert(0, 'zero')")
    peers[-1].run("state.counter += 1")
    save(world.path, stale)

    # This time the first to notice is a writer.
    peers[-1].run("state.jobs.insert(0, 'minus one')")
    peers[0].run("state.jobs.insert(0, 'minus two')")
    expected = {**STATE, "name": "edited", "counter": 4, "jobs": ["minus two", "minus one", "zero", "one", "two"]}
    assert expected == world.finish()
    assert [] == world.conflicts()


@every_save
def test_an_edit_between_two_sessions_is_simply_read(world: World, save: Save) -> None:
    """Nobody has the file open: it is a YAML file."""
    first = world.peer()
    first.run("state.counter = 4")
    first.run("state.close()")
    save(world.path, with_name(world.content))

    first.open(world.path)
    assert {**STATE, "counter": 4, "name": "edited"} == world.finish()


@every_save
def test_a_commit_is_the_first_to_notice_an_edit(world: World, save: Save) -> None:
    """No read comes before the commit; it must not go to the file that the editor has replaced."""
    peer = world.peer()
    peer.run("state.counter = 4")
    save(world.path, with_name(world.content))

    peer.run("state.counter += 1")
    world.kill(peer)
    assert {**STATE, "counter": 5, "name": "edited"} == world.all_agree()
    world.peer()
    world.finish()


@every_save
def test_many_edits_in_a_row(world: World, save: Save) -> None:
    """Each edit is merged with what came before; nothing piles up."""
    peer, other = world.peer(), world.peer()
    jobs = ["one", "two"]
    name = b"name: first\n"
    for number in range(4):
        stale = world.content
        (peer, other)[number % 2].run(f"state.jobs.append({number})")
        jobs.append(number)
        save(world.path, re.sub(rb"(?m)^name: .*\n", b"name: edit %d\n" % number, stale, count=1))
        readers = (peer, other)[:: -1 if number // 2 else 1]
        for reader in readers:
            reader.ask("state.name")  # after this round, all that know the commit have seen the edit
        for reader in readers:
            assert (f"edit {number}", jobs) == reader.ask("(state.name, list(state.jobs))")
        name = b"name: edit %d\n" % number
    assert name in world.content
    assert {**STATE, "name": "edit 3", "jobs": jobs} == world.finish()
    assert [] == world.conflicts()


# ---------------------------------------------------------------------- in place, step by step


@one_and_two
@pytest.mark.parametrize("journal", [False, True], ids=["clean", "with a journal"])
def test_while_an_edit_does_not_parse_reads_go_on_and_writes_are_refused(
    world: World, count: int, journal: bool
) -> None:
    """The editor is half way through. Nothing of it is overwritten; when it is done, everybody goes on."""
    peers = [world.peer() for _ in range(count)]
    if journal:
        peers[0].run("state.counter = 10")
    counter = 10 if journal else 3
    world.all_agree()
    whole = with_name(world.content).replace(b"name: edited\n", b'name: "edited\n  twice"\n')
    cut = whole.index(b"  twice")
    steps = in_place_in_pieces(world.path, whole[:cut], whole[cut:])
    next(steps)
    next(steps)
    half = world.content
    assert whole[:cut] == half

    for peer in peers:
        assert counter == peer.ask("state.counter")
        assert "first" == peer.ask("state.name")
        with pytest.raises(InvalidEditError) as caught:
            peer.run("state.counter = 99")
        error = caught.value
        assert str(world.path) == error.path
        assert 3 <= (error.line or 0) <= 4
        assert (error.column or 0) >= 1
        assert f"{world.path}:{error.line}:{error.column}: " in str(error)
        assert "was edited while it was open" in str(error)
        assert "Until it parses, reads return the last good state" in str(error)
        with pytest.raises(InvalidEditError), _transaction(peer):
            pass
        assert counter == peer.ask("state.counter")
        assert half == world.content
    assert [world.path.name] == list(world.listing)

    next(steps)
    for peer in peers:
        assert "edited twice" == peer.ask("state.name")
        peer.run("state.counter += 1")
    steps.close()
    assert {**STATE, "name": "edited twice", "counter": counter + count} == world.finish()


class _transaction:
    """The block of a transaction in another process."""

    def __init__(self, peer: Peer) -> None:
        self.peer = peer

    def __enter__(self) -> None:
        self.peer.run("block = state.transaction(); block.__enter__()")

    def __exit__(self, *_: object) -> None:
        self.peer.run("block.__exit__(None, None, None)")


@one_and_two
@pytest.mark.parametrize("journal", [False, True], ids=["clean", "with a journal"])
@pytest.mark.parametrize("action", ["read", "write"])
@pytest.mark.parametrize("cut", [None, b"jobs:\n", b"settings:\n", b"- two\n", b"retries"], ids=repr)
def test_an_in_place_save_in_pieces_keeps_the_whole_edit(
    world: World, count: int, journal: bool, action: str, cut: bytes | None
) -> None:
    """Between the pieces the file is empty, or parses by chance, or does not; processes read or write meanwhile.

    Until the file has been left alone for a while, reads see the last good state and writes wait, or are refused. In
    the end the whole edit and every commit are in it.
    """
    peers = [world.peer() for _ in range(count)]
    for peer in peers:
        peer.run("limits.QUIET, limits.QUIET_AT_MOST = 3600.0, 0.0")
    counter = 3
    if journal:
        peers[0].run("state.counter = 10")
        counter = 10
    world.all_agree()
    whole = with_name(world.content)
    at = whole.index(cut) if cut else 0
    steps = in_place_in_pieces(world.path, *([whole[:at], whole[at:]] if at else [whole]))
    acknowledged = 0

    def act() -> bool:
        nonlocal acknowledged
        refused = False
        for peer in peers:
            if action == "read":
                peer.ask("state.counter if 'counter' in state else None")
                continue
            try:
                peer.run("state.added = state.get('added', 0) + 1")
            except InvalidEditError:
                refused = True
            else:
                acknowledged += 1
        return refused

    next(steps)
    act()
    for _ in steps:
        act()
    for peer in peers:
        peer.run("limits.QUIET = 0.0")
    assert not act()
    state = world.finish()

    assert "edited" == state["name"]
    assert ["one", "two"] == state["jobs"]
    assert {"retries": 5, "verbose": False} == state["settings"]
    assert counter == state["counter"]
    assert acknowledged == state.get("added", 0)
    assert [] == world.conflicts()


@one_and_two
def test_an_edit_of_the_same_size_in_place_is_noticed(world: World, count: int) -> None:
    """The size tells nothing here, the time stamp does."""
    peers = [world.peer() for _ in range(count)]
    before = world.content
    save_in_place_without_truncation(world.path, with_name(before, "FIRST"))
    assert len(before) == len(world.content)

    for peer in peers:
        assert "FIRST" == peer.ask("state.name")
    peers[0].run("state.counter = 4")
    save_in_place_without_truncation(world.path, world.content.replace(b"name: FIRST", b"name: third"))
    for peer in peers:
        assert ("third", 4) == peer.ask("(state.name, state.counter)")
    assert {**STATE, "name": "third", "counter": 4} == world.finish()


@pytest.mark.parametrize("changed", [b'"counter",7', b'"counter",777'], ids=["shorter", "longer"])
def test_a_record_changed_by_hand_is_not_taken_for_a_torn_tail(world: World, changed: bytes) -> None:
    """A person changed a value inside the journal: its checksum is wrong, and commits follow."""
    peer = world.peer()
    peer.run("state.counter = 10; state.counter = 11; state.counter = 12")
    good = world.content
    damaged = good.replace(b'"counter",11', changed)
    assert damaged != good
    save_in_place(world.path, damaged)

    assert 12 == peer.ask("state.counter")
    with pytest.raises((InvalidEditError, CorruptStateError)) as caught:
        peer.run("state.counter = 13")
    assert str(world.path) in str(caught.value)
    assert damaged == world.content

    save_in_place(world.path, good)
    peer.run("state.counter += 1")
    assert {**STATE, "counter": 13} == world.finish()


def test_a_change_of_the_same_size_inside_of_the_journal_is_noticed_at_the_vacuum_at_the_latest(world: World) -> None:
    """A vacuum would overwrite it: it is refused, with the file as the person left it."""
    peer = world.peer()
    peer.run("state.counter = 10; state.counter = 11; state.counter = 12")
    good = world.content
    damaged = good.replace(b'"counter",11', b'"counter",77')
    assert damaged != good
    save_in_place_without_truncation(world.path, damaged)

    assert 12 == peer.ask("state.counter")
    with pytest.raises((InvalidEditError, CorruptStateError)):
        peer.run("state.vacuum()")
    assert damaged == world.content
    save_in_place_without_truncation(world.path, good)
    assert {**STATE, "counter": 12} == world.finish()


@pytest.mark.parametrize(
    ("content", "line"),
    [
        pytest.param(b"- a\n- b\n", 1, id="a list"),
        pytest.param(b"just text\n", 1, id="a scalar"),
        pytest.param(b"a: 1\n---\nb: 2\n", 2, id="two documents"),
        pytest.param(b"a: 1\na: 2\n", 2, id="a key twice"),
        pytest.param(b"a: 1\nb: \xff\n", 2, id="not UTF-8"),
        pytest.param(b"a: !!python/object/apply:os.system [true]\n", 1, id="a tag"),
        pytest.param(b"a: 1\nb: [1, 2\n", 3, id="not YAML"),
    ],
)
@pytest.mark.parametrize("save", [save_by_rename, save_in_place], ids=lambda save: save.__name__)
def test_an_edit_that_is_no_state_is_refused_and_left_alone(
    world: World, save: Save, content: bytes, line: int
) -> None:
    """Not only what does not parse: whatever would not be opened is not adopted either."""
    peer = world.peer()
    peer.run("state.counter = 4")
    save(world.path, content)

    assert 4 == peer.ask("state.counter")
    with pytest.raises(InvalidEditError) as caught:
        peer.run("state.counter = 5")
    assert abs((caught.value.line or 0) - line) <= 1
    assert content == world.content
    assert {**STATE, "counter": 4} == peer.snapshot()

    save(world.path, with_name(BASE))
    assert {**STATE, "counter": 4, "name": "edited"} == world.finish()


# ---------------------------------------------------------------------- who wins


@one_and_two
@pytest.mark.parametrize("save", [save_by_rename, save_in_place], ids=lambda save: save.__name__)
def test_where_both_changed_the_same_value_the_edit_wins_and_the_log_names_the_other(
    world: World, count: int, save: Save
) -> None:
    """The person's value is in the file; the program's is not lost without a trace."""
    peers = [world.peer() for _ in range(count)]
    stale = world.content.replace(b"counter: 3", b"counter: 100").replace(b"retries: 5", b"retries: 500")
    peers[0].run("state.counter = 41; state.settings['retries'] = 42; state.settings['verbose'] = True")
    save(world.path, stale)

    for peer in peers:
        assert (100, 500, True) == peer.ask("(state.counter, state.settings['retries'], state.settings['verbose'])")
    warnings = [line for peer in peers for line in peer.log("WARNING")]
    assert any("state.counter" in line and "41" in line and str(world.path) in line for line in warnings), warnings
    assert any("state.settings.retries" in line and "42" in line for line in warnings), warnings
    expected = {**STATE, "counter": 100, "settings": {"retries": 500, "verbose": True}}
    assert expected == world.finish()


@one_and_two
def test_an_edit_that_deletes_what_we_changed_wins(world: World, count: int) -> None:
    """The record's container is gone: the change cannot be made again, and is named in the log."""
    peers = [world.peer() for _ in range(count)]
    stale = BASE[: BASE.index(b"settings:")]
    peers[0].run("state.settings['retries'] = 42; state.counter = 4")
    save_by_rename(world.path, stale)

    for peer in peers:
        assert not peer.ask("'settings' in state")
        assert 4 == peer.ask("state.counter")
    assert any("settings" in line and "42" in line for peer in peers for line in peer.log("WARNING"))
    assert {"counter": 4, "name": "first", "jobs": ["one", "two"]} == world.finish()


def test_an_edit_brings_back_what_we_deleted_if_it_changed_it(world: World) -> None:
    """The same place changed by both, with the sides exchanged."""
    peer = world.peer()
    stale = with_name(BASE)
    peer.run("del state.name; del state['settings']")
    save_by_rename(world.path, stale)

    assert "edited" == peer.ask("state.name")
    assert not peer.ask("'settings' in state")
    assert any("state.name" in line for line in peer.log("WARNING"))
    assert {"counter": 3, "name": "edited", "jobs": ["one", "two"]} == world.finish()


def test_an_edit_and_a_commit_of_the_same_value_are_no_conflict(world: World) -> None:
    peer = world.peer()
    stale = BASE.replace(b"counter: 3", b"counter: 4")
    peer.run("state.counter = 4")
    save_by_rename(world.path, stale)

    assert 4 == peer.ask("state.counter")
    assert [] == peer.log("WARNING")
    assert {**STATE, "counter": 4} == world.finish()


def test_a_newcomers_commits_to_a_stale_copy_are_kept(world: World) -> None:
    world.write("counter: 3\nname: first\nlog:\n- a\n")
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


# ---------------------------------------------------------------------- across a vacuum


@every_save
@one_and_two
@pytest.mark.parametrize("later", [False, True], ids=["", "commits after the vacuum"])
@pytest.mark.parametrize("read", ["clean", "with a journal"])
def test_a_stale_copy_saved_across_a_vacuum_loses_no_commit(
    world: World, save: Save, count: int, later: bool, read: str
) -> None:
    """The commits are in the base now, no longer in records. They come back, or are kept beside with an error."""
    peers = [world.peer() for _ in range(count)]
    if read == "with a journal":
        peers[0].run("state.early = 1")
    stale = with_name(world.content)
    peers[0].run("state.counter = 41")
    peers[-1].run("state.jobs.append('three')")
    peers[0].run("state.vacuum()")
    if later:
        peers[-1].run("state.late = 1")
    save(world.path, stale)

    errors = []
    for peer in peers:
        try:
            peer.ask("state.counter")
        except EditConflict as error:
            errors.append(error)
    for error in errors:
        assert error.conflict_path
        assert str(world.path) in str(error)
        assert error.conflict_path in str(error)
    state = world.finish()

    assert "edited" == state["name"]
    ours = [yaml.safe_load(path.read_bytes()) for path in world.conflicts()]
    assert len(ours) == len(errors)
    both = [state, *ours]
    assert any(41 == one["counter"] for one in both), both
    assert any(["one", "two", "three"] == one["jobs"] for one in both), both
    assert not later or any(1 == one.get("late") for one in both), both
    assert read == "clean" or any(1 == one.get("early") for one in both), both
    assert len(ours) <= count


def test_a_copy_from_before_many_vacuums_is_still_known(world: World) -> None:
    peer = world.peer()
    stale = with_name(world.content)
    peer.run("for n in range(30): state.jobs.append(n); state.vacuum()")
    save_by_rename(world.path, stale)
    with pytest.raises(EditConflict) as caught:
        peer.snapshot()

    assert caught.value.conflict_path is not None
    assert ["one", "two", *range(30)] == yaml.safe_load(Path(caught.value.conflict_path).read_bytes())["jobs"]


def test_a_conflict_file_holds_our_whole_state_and_is_logged_as_an_error(world: World) -> None:
    """A file of another history is at the path: the edit is in place, ours beside it, readable by anybody."""
    other = world.path.with_name("other.yaml")
    other.write_bytes(b"counter: 900\nelsewhere: 1\n")
    stranger = world.closed_peer()
    stranger.open(other)
    stranger.run("state.counter = 901")
    foreign = other.read_bytes()
    world.kill(stranger)
    other.unlink()

    peer = world.peer()
    peer.run("state.counter = 41; state.added = 1")
    save_by_rename(world.path, foreign)
    with pytest.raises(EditConflict) as caught:
        peer.ask("state.name")

    conflict_path = caught.value.conflict_path
    assert conflict_path is not None
    assert Path(conflict_path).name.startswith("state.yaml.conflict-")
    assert conflict_path.endswith(".yaml")
    kept = yaml.safe_load(Path(conflict_path).read_bytes())
    assert {**STATE, "counter": 41, "added": 1} == kept
    assert any(conflict_path in line for line in peer.log("ERROR"))
    assert isinstance(caught.value, ValueError)
    assert {"counter": 901, "elsewhere": 1} == world.finish()


def test_a_file_of_another_history_never_makes_our_value_disappear_without_a_word(world: World) -> None:
    """It changed the same value as we did: its value wins, and ours is in the log or in a conflict file."""
    other = world.path.with_name("other.yaml")
    other.write_bytes(BASE.replace(b"counter: 3", b"counter: 900"))
    stranger = world.closed_peer()
    stranger.open(other)
    stranger.run("state.name = 'foreign'")
    foreign = other.read_bytes()
    world.kill(stranger)
    other.unlink()

    peer = world.peer()
    peer.run("state.counter = 41")
    save_by_rename(world.path, foreign)
    with contextlib.suppress(EditConflict):
        peer.ask("state.name")

    assert (900, "foreign") == peer.ask("(state.counter, state.name)")
    named = any("state.counter" in line and "41" in line for line in peer.log("WARNING"))
    assert named or any(41 == yaml.safe_load(path.read_bytes())["counter"] for path in world.conflicts())
    assert {**STATE, "counter": 900, "name": "foreign"} == world.finish()


def test_a_value_set_back_long_after_a_vacuum_is_what_the_person_wants(world: World) -> None:
    world.write("counter: 3\nname: first\n")
    peer = world.peer()
    before = world.content
    peer.run("limits.STALE_COPY = 0.0; state.counter = 4; state.vacuum()")
    save_by_rename(world.path, before)
    assert 3 == peer.ask("state.counter")
    assert {"counter": 3, "name": "first"} == world.finish()
    assert [] == world.conflicts()


def test_another_history_with_an_edit_above_its_journal_is_refused(world: World) -> None:
    world.write("counter: 3\nname: first\n")
    other = world.path.with_name("other.yaml")
    other.write_bytes(b"counter: 900\n")
    stranger = world.closed_peer()
    stranger.open(other)
    stranger.run("state.counter = 901")
    foreign = other.read_bytes().replace(b"counter: 900\n", b"counter: 950\n", 1)
    world.kill(stranger)
    other.unlink()
    peer = world.peer()
    good = world.content
    save_by_rename(world.path, foreign)
    assert 3 == peer.ask("state.counter")
    with pytest.raises(InvalidEditError):
        peer.run("state.counter = 4")
    assert foreign == world.content
    save_by_rename(world.path, good)
    assert {"counter": 3, "name": "first"} == world.finish()


def test_a_copy_from_before_a_vacuum_that_is_saved_in_place_within_a_commit_is_a_conflict(world: World) -> None:
    """The commit lands after the copy, and makes it look like an edit of the document that the vacuum wrote."""
    world.write("counter: 3\nname: first\nlog:\n- a\n")
    peer = world.peer()
    copy = world.content
    peer.run("state.log.append('b'); state.vacuum(); state.log.append('c')")
    _, journal, records = world.content.partition(b"... # pstate")
    save_in_place(world.path, copy + journal + records)
    with pytest.raises(EditConflict) as caught:
        peer.snapshot()

    assert caught.value.conflict_path is not None
    assert b"log:\n  - a\n  - b\n  - c\n" in Path(caught.value.conflict_path).read_bytes()


# ---------------------------------------------------------------------- after a crash


@every_save
def test_an_edit_above_the_journal_of_a_killed_process_is_an_error_that_names_both(world: World, save: Save) -> None:
    """The document from before is unknown: no guess, no byte changed. Both ways out of the message work."""
    world.crash("state.counter = 4", "state.jobs.insert(0, 'zero')")
    crashed = world.content
    edited = with_name(crashed)
    save(world.path, edited)
    before = world.listing

    peer = world.closed_peer()
    for options in ("", "read_only=True"):
        with pytest.raises(EditConflict) as caught:
            peer.open(world.path, options)
        error = caught.value
        line = BASE.count(b"\n") + 1
        assert (str(world.path), line, None) == (error.path, error.line, error.conflict_path)
        assert str(error).startswith(f"{world.path}:{line}: ")
        assert "2 commits" in str(error)
        assert "Nothing was changed" in str(error)
        assert "To keep the edit" in str(error)
        assert "To keep the commits" in str(error)
        assert before == world.listing

    save_in_place(world.path, crashed)  # "undo the edit"
    peer.open(world.path, "read_only=True")
    assert (4, "first", "zero") == peer.ask("(state.counter, state.name, state.jobs[0])")
    peer.run("state.close()")

    lines = edited.splitlines(keepends=True)
    save_in_place(world.path, b"".join(lines[: line - 1]))  # "delete the lines from … on"
    peer.open(world.path)
    assert {**STATE, "name": "edited"} == world.finish()


def test_a_journal_deleted_after_a_crash_is_what_the_person_wanted(world: World) -> None:
    """With nobody alive, a document without a journal is just a document."""
    world.crash("state.counter = 4")
    save_by_rename(world.path, base_of(world.content))

    world.peer()
    assert STATE == world.finish()


@pytest.mark.parametrize("newline", [b"\n", b"\r\n"], ids=["LF", "CRLF"])
@pytest.mark.parametrize("bom", [b"", b"\xef\xbb\xbf"], ids=["", "BOM"])
def test_a_save_that_changed_no_value_above_the_journal_of_a_killed_process_opens(
    world: World, newline: bytes, bom: bytes
) -> None:
    """Other line ends and a byte order mark are not an edit of a value."""
    world.crash("state.counter = 4", "state.jobs.insert(0, 'zero')")
    save_by_rename(world.path, bom + world.content.replace(b"\n", newline))

    world.peer()
    assert {**STATE, "counter": 4, "jobs": ["zero", "one", "two"]} == world.finish()


def test_a_crash_after_an_edit_was_noticed_loses_neither(world: World) -> None:
    """The merged state is in the file, not only in the memory of the process that merged it."""
    peer = world.peer()
    stale = with_name(BASE)
    peer.run("state.counter = 4")
    save_by_rename(world.path, stale)
    assert "edited" == peer.ask("state.name")
    world.kill(peer)

    world.peer()
    assert {**STATE, "counter": 4, "name": "edited"} == world.finish()


def test_another_process_finds_the_edit_when_the_one_that_committed_was_killed(world: World) -> None:
    """Only the survivor knows the commits that the copy lacks."""
    writer, reader = world.peer(), world.peer()
    stale = with_name(BASE)
    writer.run("state.counter = 4")
    writer.run("state.jobs.insert(0, 'zero')")
    assert 4 == reader.ask("state.counter")
    world.kill(writer)
    save_by_rename(world.path, stale)

    assert {**STATE, "counter": 4, "jobs": ["zero", "one", "two"], "name": "edited"} == reader.snapshot()
    assert {**STATE, "counter": 4, "jobs": ["zero", "one", "two"], "name": "edited"} == world.finish()


def test_a_close_above_a_save_that_does_not_parse_keeps_our_state_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "state.yaml"
    state = PersistedState(path, a=1)
    state["a"] = 2
    save_by_rename(path, b"a: [\n")
    state.close()
    assert b"a: [\n" == path.read_bytes()
    (kept,) = tmp_path.glob("state.yaml.conflict-*.yaml")
    assert {"a": 2} == yaml.safe_load(kept.read_bytes())


def test_a_torn_tail_below_a_replaced_file_does_not_make_others_judge_again(world: World) -> None:
    world.write("counter: 3\nname: first\nlog:\n- a\n")
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


# ---------------------------------------------------------------------- the editor's copy ends in something of ours


def tails(content: bytes) -> dict[str, bytes]:
    """Unfinished things of ours that an editor may have read at the end of the file."""
    last = content[content.rindex(b"--- [") :]
    body, _, marker = last.removeprefix(b"--- ").partition(b"\n")
    record, _ = encode_record(body.decode(), int(marker[-9:-1], 16))  # the same once more
    generation = re.findall(rb"(?m)^\.\.\. # pstate 1 ([0-9a-f]{8}) ", content)[-1]
    return {
        "trailer": b"--- # pstate moved %b 0000000100 0a0b0c0d 0000000001 01020304\n" % generation,
        "half trailer": b"--- # pstate moved %b 00000" % generation,
        "half record": record[: len(record) // 2],
        "record without its marker": record[: record.index(b"\n") + 1],
        "half commit marker": record[:-5],
        "commit marker without newline": record[:-1],
    }


@every_save
@one_and_two
@pytest.mark.parametrize(
    "tail",
    [
        "trailer",
        "half trailer",
        "half record",
        "record without its marker",
        "half commit marker",
        "commit marker without newline",
    ],
)
def test_a_copy_that_ends_in_something_half_written_of_ours_takes_commits(
    world: World, save: Save, count: int, tail: str
) -> None:
    """The editor read while we were writing. A commit must not land after the rest and be lost with it."""
    peers = [world.peer() for _ in range(count)]
    peers[0].run("state.counter = 4")
    copy = with_name(world.content) + tails(world.content)[tail]
    peers[0].run("state.jobs.append('three')")
    save(world.path, copy)

    for number, peer in enumerate(peers):
        peer.run(f"state.jobs.append({number})")
    state = {**STATE, "counter": 4, "name": "edited", "jobs": ["one", "two", "three", *range(count)]}
    assert state == world.all_agree()
    for peer in peers[1:]:
        world.kill(peer)
    assert state == world.finish()


@pytest.mark.parametrize("save", [save_by_rename, save_in_place], ids=lambda save: save.__name__)
@pytest.mark.parametrize("length", [1, 2, 3, 4, 6, 13, 20, 40, -1], ids=lambda length: f"{length} bytes")
def test_a_copy_that_ends_in_a_half_base_marker_takes_commits(world: World, save: Save, length: int) -> None:
    """The first commit was under way when the editor read."""
    peer = world.peer()
    marker = b"... # pstate 1 5f2c81d0 0000000100 0a0b0c0d 01020304 p\n"[:length]
    save(world.path, with_name(BASE) + marker)
    peer.run("state.counter = 4")
    world.kill(peer)
    world.peer()
    assert {**STATE, "name": "edited", "counter": 4} == world.finish()


@pytest.mark.parametrize("saved", [b"a: 3", b"a: 3\nb: |+\n  text"])
def test_a_save_in_place_without_a_final_newline_takes_commits(world: World, saved: bytes) -> None:
    world.write("counter: 3\nname: first\nlog:\n- a\n")
    peer = world.peer()
    peer.run("state.a = 1; state.a = 2")
    save_in_place(world.path, saved)
    assert 3 == peer.ask("state.a")
    peer.run("state.c = 1")
    assert 1 == world.finish()["c"]


# ---------------------------------------------------------------------- line ends, byte order mark


@one_and_two
@pytest.mark.parametrize("save", [save_by_rename, save_in_place], ids=lambda save: save.__name__)
@pytest.mark.parametrize("edit", [False, True], ids=["values untouched", "value changed"])
@pytest.mark.parametrize("journal", [False, True], ids=["clean", "with a journal"])
@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda text: text.replace(b"\n", b"\r\n"), id="CRLF"),
        pytest.param(lambda text: b"\xef\xbb\xbf" + text, id="BOM"),
        pytest.param(lambda text: b"\xef\xbb\xbf" + text.replace(b"\n", b"\r\n"), id="BOM and CRLF"),
    ],
)
def test_an_editor_that_changes_line_ends_or_adds_a_bom_harms_nothing(
    world: World, count: int, save: Save, edit: bool, journal: bool, change: Any
) -> None:
    """As Windows editors do. Whatever is in the file now, commits go on after it."""
    peers = [world.peer() for _ in range(count)]
    expected = dict(STATE)
    if journal:
        peers[0].run("state.counter = 10; state.jobs.insert(0, 'zero')")
        expected |= {"counter": 10, "jobs": ["zero", "one", "two"]}
    content = world.content
    if edit:
        content = with_name(content)
        expected["name"] = "edited"
    save(world.path, change(content))

    for peer in peers:
        assert expected == peer.snapshot()
    for peer in peers:
        peer.run("state.counter += 1; state.jobs.append('more')")
    expected = {**expected, "counter": expected["counter"] + count, "jobs": expected["jobs"] + ["more"] * count}
    assert expected == world.all_agree()
    for peer in peers[1:]:
        world.kill(peer)
    assert expected == world.finish()
    assert [] == world.conflicts()


# ---------------------------------------------------------------------- the path is missing


@one_and_two
def test_between_moving_away_and_writing_reads_go_on_and_a_write_waits(world: World, count: int) -> None:
    """vim's save, step by step. The write does not create a file in the editor's way."""
    peers = [world.peer() for _ in range(count)]
    for peer in peers:
        peer.run("limits.MISSING = 50.0")
    peers[0].run("state.counter = 10")
    content = world.content
    world.path.replace(world.path.with_name("state.yaml~"))
    for peer in peers:
        assert 10 == peer.ask("state.counter")
    assert not world.path.exists()

    for peer in peers:
        peer.tell("state.jobs.append('waited')")
    save_by_rename(world.path, with_name(content))
    for peer in peers:
        peer.answer()
    assert {**STATE, "name": "edited", "counter": 10, "jobs": ["one", "two"] + ["waited"] * count} == world.finish()


@one_and_two
@pytest.mark.parametrize("journal", [False, True], ids=["clean", "with a journal"])
def test_a_file_deleted_while_it_is_open_is_written_again_by_the_next_commit(
    world: World, count: int, journal: bool
) -> None:
    """Reads go on from memory; the commit brings back the whole state, and says so in the log."""
    peers = [world.peer() for _ in range(count)]
    expected = dict(STATE)
    if journal:
        peers[0].run("state.counter = 10; state.jobs.insert(0, 'zero')")
        expected |= {"counter": 10, "jobs": ["zero", "one", "two"]}
        assert [expected] * count == [peer.snapshot() for peer in peers]
    world.path.unlink()

    for peer in peers:
        assert expected == peer.snapshot()
    assert {} == world.listing
    for peer in peers:
        peer.run("state.jobs.append('after')")
    expected["jobs"] = expected["jobs"] + ["after"] * count
    assert expected == world.all_agree()
    assert any("deleted" in line for peer in peers for line in peer.log("WARNING"))
    assert expected == world.finish()


def test_a_deleted_file_that_a_person_writes_again_is_an_edit(world: World) -> None:
    """Deleted, then created again with other content, while a process has it open."""
    peer = world.peer()
    peer.run("state.counter = 10")
    world.path.unlink()
    assert 10 == peer.ask("state.counter")
    world.path.write_bytes(with_name(BASE))

    assert ("edited", 10) == peer.ask("(state.name, state.counter)")
    assert {**STATE, "name": "edited", "counter": 10} == world.finish()


def test_a_writer_waits_for_a_file_that_is_moved_away_and_written_again(tmp_path: Path) -> None:
    path = tmp_path / "state.yaml"
    path.write_bytes(b"a: 1\n")
    fs = FileSystem()
    state = PersistedState.open(path, fs=fs)
    path.replace(tmp_path / "state.yaml~")
    fs.sleep = lambda _: None if path.exists() else save_in_place(path, b"a: edited\n")
    state["b"] = 1
    assert {"a": "edited", "b": 1} == peek(path)
    state.close()


# ---------------------------------------------------------------------- references, comments, read_only, transactions


@every_save
@pytest.mark.parametrize("stale", [False, True], ids=["full copy", "stale copy"])
def test_references_held_before_an_edit_see_it_and_can_be_used(world: World, save: Save, stale: bool) -> None:
    """An edit changes the containers in place; a program need not read them again."""
    peer = world.peer()
    peer.run("state.counter = 4")
    copy = world.content
    peer.run("jobs = state.jobs; settings = state.settings; settings['ours'] = 1")
    copy = copy if stale else world.content
    save(world.path, copy.replace(b"- two\n", b"- two\n- three\n").replace(b"retries: 5", b"retries: 6"))

    assert ["one", "two", "three"] == peer.ask("list(jobs)")
    assert (6, 1) == peer.ask("(settings['retries'], settings['ours'])")
    assert peer.ask("settings is state.settings and jobs is state.jobs")
    peer.run("jobs.append('four'); settings['more'] = 2")
    settings = {"retries": 6, "verbose": False, "ours": 1, "more": 2}
    expected = {**STATE, "counter": 4, "jobs": ["one", "two", "three", "four"], "settings": settings}
    assert expected == world.finish()


def test_a_reference_to_what_an_edit_removed_raises_when_it_is_changed(world: World) -> None:
    peer = world.peer()
    peer.run("settings = state.settings")
    save_by_rename(world.path, BASE[: BASE.index(b"settings:")])

    assert not peer.ask("'settings' in state")
    before = world.content
    with pytest.raises(RemovedError) as caught:
        peer.run("settings['retries'] = 6")
    assert isinstance(caught.value, ReferenceError)
    assert "an edit" in str(caught.value)
    assert "Nothing was changed" in str(caught.value)
    assert before == world.content
    assert {"counter": 3, "name": "first", "jobs": ["one", "two"]} == world.finish()


def test_commits_touch_no_byte_of_the_document(world: World) -> None:
    """They follow it; a session that only reads changes nothing at all, and a close only what has changed."""
    reader = world.peer()
    assert 3 == reader.ask("state.counter")
    reader.run("state.close()")
    assert BASE == world.content

    peer = world.peer()
    world.kill(reader)
    peer.run("state.counter = 4; state.jobs.append('three')")
    assert world.content.startswith(BASE)
    edited = world.content.replace(b"# how many", b"# how many of them")
    save_by_rename(world.path, edited)
    peer.run("state.counter = 5")
    assert {**STATE, "counter": 5, "jobs": ["one", "two", "three"]} == world.finish()
    expected = BASE.replace(b"# how many", b"# how many of them").replace(b"counter: 3", b"counter: 5")
    assert expected.replace(b"- two\n", b"- two\n- three\n") == world.content


@every_save
@pytest.mark.parametrize("writer", [False, True], ids=["alone", "beside a writer"])
def test_a_read_only_state_adopts_edits(world: World, save: Save, writer: bool) -> None:
    """It writes nothing itself; what it cannot bring together is the writers' business."""
    reader = world.peer("read_only=True")
    writers = [world.peer() for _ in range(writer)]
    assert 3 == reader.ask("state.counter")
    save(world.path, with_name(world.content))
    assert "edited" == reader.ask("state.name")
    for peer in writers:
        peer.run("state.counter = 4")
        assert 4 == reader.ask("state.counter")
    edited = re.sub(rb"(?m)^name: edited", b"name: again", world.content, count=1)
    save(world.path, edited)
    for peer in writers:
        assert ("again", 4) == peer.ask("(state.name, state.counter)")
    assert ("again", 4 if writer else 3) == reader.ask("(state.name, state.counter)")
    if not writer:
        assert edited == world.content
    world.finish()


def test_a_read_only_state_serves_the_last_good_state_while_the_file_is_empty(world: World) -> None:
    """Every save in place begins like this, and may take longer than anybody waits."""
    world.write("n: 1\n")
    reader = world.peer("read_only=True")
    world.path.write_bytes(b"")

    assert {"n": 1} == reader.snapshot()
    assert any("was emptied while it was open" in line for line in reader.log("WARNING"))
    world.path.write_bytes(b"n: 2\n")
    assert {"n": 2} == reader.snapshot()


def test_a_read_only_state_serves_the_last_good_state_while_an_edit_does_not_parse(world: World) -> None:
    reader = world.peer("read_only=True")
    save_in_place(world.path, b'name: "not yet')
    assert STATE == reader.snapshot()
    save_in_place(world.path, with_name(BASE))
    assert "edited" == reader.ask("state.name")
    world.finish()


@every_save
@one_and_two
@pytest.mark.parametrize("moment", ["before its first change", "between its changes", "before its commit"])
def test_an_edit_while_a_transaction_is_open(world: World, save: Save, count: int, moment: str) -> None:
    """All of the transaction or nothing of it (then it raises EditConflict), and the whole edit, for everybody."""
    peers = [world.peer() for _ in range(count)]
    peer = peers[0]
    peer.run("state.counter = 4")
    peer.run("block = state.transaction(); block.__enter__()")
    if moment != "before its first change":
        peer.run("state.counter += 1")
    if moment == "before its commit":
        peer.run("state.jobs.append('three')")
    save(world.path, with_name(world.content))
    conflict = None
    try:
        if moment == "before its first change":
            peer.run("state.counter += 1")
        if moment != "before its commit":
            peer.run("state.jobs.append('three')")
        peer.run("block.__exit__(None, None, None)")
    except EditConflict as error:
        conflict = error
        peer.run("block.__exit__(None, None, None)")
    expected = {**STATE, "counter": 4, "name": "edited"}
    if conflict:
        assert str(world.path) in str(conflict)
    else:
        expected |= {"counter": 5, "jobs": ["one", "two", "three"]}

    assert expected == world.finish()


@every_save
@one_and_two
@pytest.mark.parametrize("copy", ["without its last commit", "without its journal", "from before the journal"])
@pytest.mark.parametrize("moment", ["before its first change", "before its commit"])
def test_a_stale_copy_that_is_saved_while_a_transaction_is_open(
    world: World, save: Save, count: int, copy: str, moment: str
) -> None:
    """All of the transaction or nothing of it, the whole edit, and what was committed before."""
    peers = [world.peer() for _ in range(count)]
    peer = peers[0]
    stale = world.content
    peer.run("state.counter = 4")
    if copy == "without its last commit":
        stale = world.content
    peer.run("state.jobs.append('three')")
    if copy == "without its journal":
        stale = base_of(world.content)
    world.all_agree()
    peer.run("block = state.transaction(); block.__enter__()")
    if moment == "before its commit":
        peer.run("state.counter += 1; state.jobs.append('four')")
    save(world.path, with_name(stale))
    conflict = None
    try:
        if moment == "before its first change":
            peer.run("state.counter += 1; state.jobs.append('four')")
        peer.run("block.__exit__(None, None, None)")
    except EditConflict as error:
        conflict = error
        assert str(world.path) in str(conflict)
    expected = {**STATE, "counter": 4, "name": "edited", "jobs": ["one", "two", "three"]}
    if conflict is None:
        expected |= {"counter": 5, "jobs": ["one", "two", "three", "four"]}

    assert expected == world.finish()
    assert [] == world.conflicts()


def test_an_edit_while_a_transaction_is_rolled_back(world: World) -> None:
    peer = world.peer()
    peer.run("state.counter = 4")
    peer.run("block = state.transaction(); block.__enter__(); state.counter = 99; state.jobs.clear()")
    save_by_rename(world.path, with_name(world.content))
    peer.run("block.__exit__(KeyError, KeyError(), None)")

    assert {**STATE, "counter": 4, "name": "edited"} == world.finish()


def test_a_reader_that_finds_an_edit_does_not_wait_for_a_writer(tmp_path: Path) -> None:
    path = tmp_path / "state.yaml"
    with Crowd(path) as crowd:
        crowd.begin(n=0)
        fs = Disk()

        def sleep(_: float) -> None:
            raise AssertionError("a reader waits")

        state = crowd.open(fs=fs, lock_timeout=5)
        other = crowd.other()
        other.enter()
        slept, fs.sleep = fs.sleep, sleep
        save_by_rename(path, b"n: 7\n")
        assert 0 == state.n
        fs.sleep = slept
        other.kill()
        assert 7 == state.n


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
    assert yaml.safe_load(expected) == world.finish()


# ---------------------------------------------------------------------- an editor at one chosen system call


class Editing(Disk):
    """A system where a person saves just before (or after) one call of ours."""

    def __init__(self, path: Path) -> None:
        super().__init__(*CHANGING, "stat", "lseek", "pread")
        self.path = path
        self.armed = False

    def arm(self, call: str, content: bytes, how: Save = save_by_rename) -> None:
        """Save *content* at the next *call*: a name for before it, "after NAME" for after it."""

        def save(name: str, *_: Any) -> None:
            if name == call.removeprefix("after "):
                self.armed = False
                how(self.path, content)

        self.armed = True
        self.before, self.after = (nothing, save) if call.startswith("after ") else (save, nothing)


def nothing(*_: Any) -> None:
    pass


CALLS = ["write", "after write", "stat", "after stat", "lseek", "after lseek"]


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize(
    "save",
    [save_by_rename, save_by_rename_keeping_a_link, save_by_moving_away, save_by_deleting],
    ids=lambda save: save.__name__,
)
@pytest.mark.parametrize("journal", [False, True], ids=["first commit", "later commit"])
def test_an_acknowledged_commit_is_in_the_file_that_the_editor_put_there(
    tmp_path: Path, call: str, save: Save, journal: bool
) -> None:
    """The editor's rename comes between any two calls of a commit; after the commit, both are known to everybody.

    What the editor read before the commit and saved after its last look at the path is the next look's business.
    """
    path = tmp_path / "state.yaml"
    path.write_bytes(BASE)
    fs = Editing(path)
    with PersistedState.open(path, fs=fs) as state:
        expected = dict(STATE)
        if journal:
            state.counter = 10
            expected["counter"] = 10
        fs.arm(call, with_name(path.read_bytes()), save)
        state.jobs.append("three")
        assert not fs.armed
        expected |= {"jobs": ["one", "two", "three"], "name": "edited"}

        assert expected == state.snapshot()
        with PersistedState.open(path) as beside:
            assert expected == beside.snapshot()
        state.counter += 1
    assert {**expected, "counter": expected["counter"] + 1} == yaml.safe_load(path.read_bytes())


@pytest.mark.parametrize(
    "call", ["write", "after write", "sync", "rename_new", "after rename_new", "exchange", "after exchange", "unlink"]
)
@pytest.mark.parametrize("stale", [False, True], ids=["full copy", "stale copy"])
@pytest.mark.parametrize(
    "save", [save_by_rename, save_by_moving_away, save_by_deleting], ids=lambda save: save.__name__
)
def test_a_rename_in_the_middle_of_a_vacuum_is_not_overwritten(
    tmp_path: Path, call: str, stale: bool, save: Save
) -> None:
    """Between the vacuum's look and its rename the file at the path has become a person's."""
    path = tmp_path / "state.yaml"
    path.write_bytes(BASE)
    fs = Editing(path)
    with PersistedState.open(path, fs=fs) as state:
        state.counter = 10
        copy = with_name(path.read_bytes())
        state.jobs.append("three")
        fs.arm(call, copy if stale else with_name(path.read_bytes()), save)
        try:
            state.vacuum()
        except EditConflict:
            pass
        assert not fs.armed
        try:
            snapshot = state.snapshot()
        except EditConflict:
            snapshot = state.snapshot()
        both = [snapshot, *(yaml.safe_load(kept.read_bytes()) for kept in tmp_path.glob("*.conflict-*"))]
        assert "edited" == snapshot["name"]
        assert any(10 == one["counter"] and ["one", "two", "three"] == one["jobs"] for one in both), both
        state.counter = 11
        snapshot = state.snapshot()
    assert snapshot == yaml.safe_load(path.read_bytes())
    assert "edited" == snapshot["name"]


class NoExchange(Editing):
    """A system without RENAME_EXCHANGE, as many network file systems are."""

    def exchange(self, first: str, second: str) -> None:
        raise OSError(22, os.strerror(22), first)


@pytest.mark.parametrize("call", ["write", "after write", "sync", "rename_new"])
def test_without_an_exchange_a_rename_before_the_last_look_is_not_overwritten(tmp_path: Path, call: str) -> None:
    """Only the microseconds between look and rename remain (docs/guarantees.md)."""
    path = tmp_path / "state.yaml"
    path.write_bytes(BASE)
    fs = NoExchange(path)
    with PersistedState.open(path, fs=fs) as state:
        state.counter = 10
        fs.arm(call, with_name(path.read_bytes()))
        state.vacuum()
        assert not fs.armed
        assert {**STATE, "counter": 10, "name": "edited"} == state.snapshot()
        state.counter = 11
    assert {**STATE, "counter": 11, "name": "edited"} == yaml.safe_load(path.read_bytes())
    assert ["state.yaml"] == os.listdir(tmp_path)


def test_a_persons_save_that_a_crashed_vacuum_pushed_aside_is_kept(world: World) -> None:
    """Killed between the two exchanges: the save has a temporary name, and nothing proves that name ours."""
    pushed_aside = with_name(BASE)
    world.path.with_name(".state.yaml.swap").write_bytes(pushed_aside)
    peer = world.peer()
    peer.run("state.counter = 4")
    peer.run("state.vacuum()")

    assert not world.path.with_name(".state.yaml.swap").exists()
    errors = peer.log("ERROR")
    state = world.finish()
    if state["name"] != "edited":
        assert pushed_aside in world.listing.values()
        assert any("state.yaml.conflict-" in line for line in errors)
    assert 4 == state["counter"]


def test_a_session_that_only_reads_an_edited_file_changes_no_byte_of_it(world: World) -> None:
    """Adopting is reading."""
    peers = [world.peer(), world.peer()]
    edited = with_name(BASE) + b"# by hand\n"
    save_by_rename(world.path, edited)
    for peer in peers:
        assert "edited" == peer.ask("state.name")
    for peer in peers:
        peer.run("state.close()")
    assert {"state.yaml": edited} == world.listing


def test_a_save_that_lands_while_the_file_is_read_is_noticed(tmp_path: Path) -> None:
    """The time stamp that is remembered is the one from before the reading."""
    path = tmp_path / "state.yaml"
    path.write_bytes(b"a: 1\n")
    fs = FileSystem()
    pread = fs.pread

    def overtaken(fd: int, length: int, offset: int) -> bytes:
        data = pread(fd, length, offset)
        fs.pread = pread
        save_in_place(path, b"a: 2\n")
        return data

    fs.pread = overtaken
    state = PersistedState.open(path, fs=fs)
    assert 2 == state["a"]
    state.close()


def test_a_save_in_the_middle_of_the_vacuum_of_a_close_is_brought_together_with_our_commits(tmp_path: Path) -> None:
    path = tmp_path / "state.yaml"
    path.write_bytes(b"a: 1\nb: 1\n")
    fs = Disk()
    state = PersistedState.open(path, fs=fs)
    copy = path.read_bytes()
    state["a"] = 2

    def before(name: str, *_: Any) -> None:
        if name == "exchange":
            fs.before = lambda *_: None
            save_by_rename(path, copy.replace(b"b: 1", b"b: edited"))

    fs.before = before
    state.close()
    assert {"a": 2, "b": "edited"} == yaml.safe_load(path.read_bytes())
    assert ["state.yaml"] == os.listdir(tmp_path)


def test_memory_is_nobodys_while_an_edit_is_adopted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another thread must not find it fresh (I4)."""
    path = tmp_path / "state.yaml"
    path.write_bytes(b"a: 1\nb: 1\n")
    state = PersistedState.open(path, fs=FileSystem())
    views = []
    adopt = ops.adopt

    def watched(root: Any, new: Any, store: Any) -> None:
        views.append(store.view)
        adopt(root, new, store)

    monkeypatch.setattr(ops, "adopt", watched)
    save_by_rename(path, b"a: 2\nb: 1\n")
    assert 2 == state["a"]
    copy = path.read_bytes()
    state["b"] = 2
    save_by_rename(path, copy.replace(b"a: 2", b"a: 3"))
    assert {"a": 3, "b": 2} == state.snapshot()
    assert len(views) >= 2
    assert all(view is None for view in views)
    state.close()


# ---------------------------------------------------------------------- merge


@pytest.mark.parametrize(
    ("old", "edited", "ours", "merged", "lost"),
    [
        pytest.param({"a": 1}, {"a": 1}, {"a": 1}, {"a": 1}, [], id="nothing changed"),
        pytest.param({"a": 1}, {"a": 2}, {"a": 1}, {"a": 2}, [], id="only the edit"),
        pytest.param({"a": 1}, {"a": 1}, {"a": 2}, {"a": 2}, [], id="only ours"),
        pytest.param({"a": 1, "b": 1}, {"a": 2, "b": 1}, {"a": 1, "b": 2}, {"a": 2, "b": 2}, [], id="two keys"),
        pytest.param({"a": 1}, {"a": 2}, {"a": 2}, {"a": 2}, [], id="both the same"),
        pytest.param({"a": 1}, {"a": 2}, {"a": 3}, {"a": 2}, ["state.a was 3"], id="both, differently"),
        pytest.param({}, {"a": 1}, {"b": 1}, {"a": 1, "b": 1}, [], id="both added"),
        pytest.param({}, {"a": 1}, {"a": 2}, {"a": 1}, ["state.a was 2"], id="both added one key"),
        pytest.param({"a": 1}, {}, {"a": 1}, {}, [], id="edit deleted"),
        pytest.param({"a": 1}, {"a": 1}, {}, {}, [], id="we deleted"),
        pytest.param({"a": 1}, {}, {}, {}, [], id="both deleted"),
        pytest.param({"a": 1}, {}, {"a": 2}, {}, ["state.a was 2"], id="edit deleted what we changed"),
        pytest.param({"a": 1}, {"a": 2}, {}, {"a": 2}, ["state.a had been deleted"], id="edit changed what we deleted"),
        pytest.param(
            {"a": {"x": 1, "y": 1}},
            {"a": {"x": 2, "y": 1}},
            {"a": {"x": 1, "y": 2, "z": 3}},
            {"a": {"x": 2, "y": 2, "z": 3}},
            [],
            id="below",
        ),
        pytest.param(
            {"a": {"x y": 1}}, {"a": {"x y": 2}}, {"a": {"x y": 3}}, {"a": {"x y": 2}}, ['state.a["x y"] was 3'],
            id="place below",
        ),
        pytest.param({}, {"a": {"x": 1}}, {"a": {"y": 2}}, {"a": {"x": 1, "y": 2}}, [], id="both added a mapping"),
        pytest.param({"a": [1]}, {"a": [0, 1]}, {"a": [1, 2]}, {"a": [0, 1, 2]}, [], id="list: we appended"),
        pytest.param({"a": [1]}, {"a": [1, 5]}, {"a": [1, 2]}, {"a": [1, 5, 2]}, [], id="list: both appended"),
        pytest.param({"a": {1, 2}}, {"a": {1, 3}}, {"a": {1, 2, 4}}, {"a": {1, 3, 4}}, [], id="sets"),
        pytest.param({"a": 1}, {"a": [1]}, {"a": {"b": 1}}, {"a": [1]}, ["state.a was {'b': 1}"], id="kinds differ"),
        pytest.param({"a": 1}, {"a": 1.0}, {"a": 1}, {"a": 1.0}, [], id="another type is a change"),
        pytest.param({"a": True}, {"a": 1}, {"a": True, "b": 1}, {"a": 1, "b": 1}, [], id="1 is not True"),
        pytest.param({"a": None}, {}, {"a": None, "b": 1}, {"b": 1}, [], id="None is a value"),
        pytest.param({1: "a"}, {1: "b"}, {1: "a", 2: "c"}, {1: "b", 2: "c"}, [], id="other keys"),
    ],
)  # fmt: skip
def test_merge(old: Any, edited: Any, ours: Any, merged: Any, lost: list[str]) -> None:
    """The edit wins at the same place, everything else of both sides is kept."""
    before = repr((old, edited, ours))
    result, sentences = merge(old, edited, ours)

    assert merged == result
    assert repr(merged) == repr(result) or set(map(repr, merged.items())) == set(map(repr, result.items()))
    assert lost == sentences
    assert before == repr((old, edited, ours)), "the arguments are not changed"


@pytest.mark.parametrize(
    ("old", "edited", "ours"),
    [
        ({"a": 1, "b": [1]}, {"a": 2, "b": [1]}, {"a": 1, "b": [1, 2]}),
        ({"a": [1]}, {"a": [0, 1]}, {"a": [1, 2]}),
        ({"a": [1, 2]}, {"a": [2]}, {"a": [1, 2, 3]}),
        ({"a": [1]}, {"a": [9]}, {"a": [5, 1]}),
        ({"a": {1}}, {"a": {2}}, {"a": {1, 3}}),
        ({"a": {"b": 1}}, {}, {"a": {"b": 2}}),
        ({"a": {"b": 1}}, {"a": {"b": 3}}, {}),
        ({}, {"a": [1]}, {"a": [2]}),
    ],
    ids=repr,
)
def test_merging_the_result_again_gives_the_result(old: Any, edited: Any, ours: Any) -> None:
    """It does not matter how many processes notice the same edit: the second finds everything there."""
    merged, _ = merge(old, edited, ours)

    assert merged == merge(old, merged, merged)[0]
    assert merged == merge(ours, merged, ours)[0]


def test_merge_keeps_the_order_of_the_edit_and_puts_ours_behind() -> None:
    """A person's file keeps its shape."""
    merged, _ = merge({"a": 1, "b": 2}, {"b": 2, "new": 0, "a": 1}, {"a": 1, "b": 3, "ours": 4})

    assert ["b", "new", "a", "ours"] == list(merged)


def test_merge_tells_nan_and_minus_zero_as_the_state_does() -> None:
    nan = float("nan")
    merged, lost = merge({"a": nan, "b": 0.0}, {"a": float("nan"), "b": -0.0}, {"a": 1.0, "b": 0.0})

    assert {"a": 1.0, "b": -0.0} == merged
    assert "-0.0" == repr(merged["b"])
    assert [] == lost
