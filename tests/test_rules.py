"""Rules that no test noticed."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import yaml
from tools.crash import in_child, peek
from tools.disks import Disk, Failing, Rebooted, Seam
from tools.edits import World, save_by_rename, save_in_place
from tools.processes import Crowd, is_locked

from pstate import BypassedError, InvalidEditError, LockTimeout, PersistedState, TransactionError
from pstate.file import limits
from pstate.file.fs import FileSystem
from pstate.memory import ops


@pytest.fixture
def world(world: World) -> World:
    world.write("counter: 3\nname: first\n")
    return world


@pytest.fixture
def unthrottled(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("LOOK_INTERVAL", "CHECK_INTERVAL", "QUIET"):
        monkeypatch.setattr(limits, name, 0.0)
    monkeypatch.setattr(limits, "CHECK_COST", 0)


def changing(fs: Seam) -> list[str]:
    return [name for name in fs.calls if name in ("write", "sync", "sync_data", "sync_folder", "truncate", "unlink")]


def test_a_generation_is_never_that_of_the_journal_before(tmp_path: Path) -> None:
    """Records of an old journal, in blocks that a power cut brings back, would be valid in the new one."""
    fs = FileSystem()
    tokens = iter(["00000000", "11111111", "11111111", "22222222"])
    fs.token = lambda: next(tokens)  # type: ignore[method-assign]
    path = tmp_path / "state.yaml"
    state = PersistedState.open(path, fs=fs)
    state["a"] = 1
    assert b"# pstate 1 11111111 " in path.read_bytes()
    state.vacuum()
    state["a"] = 2
    assert b"# pstate 1 22222222 " in path.read_bytes()
    state.close()


def test_who_follows_a_vacuum_syncs_the_folder_before_its_first_acknowledgement(tmp_path: Path) -> None:
    """Whoever renamed may have died before it synced the folder."""
    path = tmp_path / "state.yaml"
    fs = Seam()
    state = PersistedState.open(path, fs=fs, durability="power")
    state["a"] = 1
    other = PersistedState.open(path, fs=Seam())
    other.vacuum()
    fs.armed = True
    assert 1 == state["a"]
    assert ["sync_data", "sync_folder"] == changing(fs), "who reads it may act on it"
    other.vacuum()
    fs.calls.clear()
    state["a"] = 2
    assert ["write", "sync_data", "sync_folder"] == changing(fs)
    fs.calls.clear()
    state["a"] = 3
    assert ["write", "sync_data"] == changing(fs)
    state.vacuum()
    fs.calls.clear()
    state["a"] = 4
    assert ["write", "sync_data"] == changing(fs), "the vacuum has synced the folder"
    other.close()
    state.close()


def test_a_sync_that_fails_in_a_read_is_logged_and_refuses_writes(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "state.yaml"
    fs = Failing()
    state = PersistedState.open(path, fs=fs, durability="power")
    state["a"] = 1
    other = PersistedState.open(path, fs=Seam())
    other["a"] = 2
    fs.failing = {"sync_data"}
    assert 2 == state["a"]
    assert any("stable storage failed" in record.getMessage() for record in caplog.records)
    fs.failing = set()
    with pytest.raises(OSError, match="earlier sync failed"):
        state["a"] = 3
    other.close()
    state.close()


def test_a_save_that_lands_while_the_file_is_read_is_noticed(tmp_path: Path, unthrottled: None) -> None:
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


def test_memory_is_nobodys_while_an_edit_is_adopted(
    tmp_path: Path, unthrottled: None, monkeypatch: pytest.MonkeyPatch
) -> None:
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


def test_a_value_set_back_long_after_a_vacuum_is_what_the_person_wants(world: World) -> None:
    peer = world.peer()
    before = world.content
    peer.run("limits.STALE_COPY = 0.0; state.counter = 4; state.vacuum()")
    save_by_rename(world.path, before)
    assert 3 == peer.ask("state.counter")
    assert {"counter": 3, "name": "first"} == world.finish()
    assert [] == world.conflicts()


def test_the_last_lock_timeout_counts_for_every_state_of_a_file(tmp_path: Path) -> None:
    with Crowd(tmp_path / "state.yaml") as crowd:
        state = crowd.open(defaults={"n": 0}, lock_timeout=30)
        other = crowd.other()
        other.enter()
        crowd.open(lock_timeout=0)
        with pytest.raises(LockTimeout) as caught:
            state.n = 1
        assert caught.value.waited < 5
        other.leave()


def test_what_is_kept_beside_is_on_the_disk_before_it_is_cut(tmp_path: Path) -> None:
    path = tmp_path / "state.yaml"
    writer = PersistedState.open(path, fs=FileSystem())
    for n in range(4):
        writer["n"] = n
    data = path.read_bytes()
    writer.close()
    lines = data.splitlines(keepends=True)
    lines[4] = b"\0" * len(lines[4])
    path.write_bytes(b"".join(lines))
    fs = Seam()
    fs.boot_id = Rebooted().boot_id  # type: ignore[method-assign]
    fs.armed = True
    state = PersistedState.open(path, fs=fs)
    cut = fs.calls.index("truncate")
    assert ["write", "sync", "close"] == fs.calls[cut - 3 : cut]
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


def test_the_new_file_is_locked_before_anybody_can_find_it(tmp_path: Path) -> None:
    """A follower would commit to it before the one who made it has switched."""
    path = tmp_path / "state.yaml"
    fs = Disk()
    state = PersistedState.open(path, fs=fs)
    state["a"] = 1
    locked = []

    def before(name: str, *_: Any) -> None:
        if name in ("exchange", "sync_folder", "unlink"):
            locked.append((name, is_locked(str(path)), is_locked(str(tmp_path / ".state.yaml.swap"))))

    fs.before = before
    state.vacuum()
    fs.before = lambda *_: None
    assert [("exchange", True, True), ("sync_folder", True, True)] == locked[:2]
    assert ("unlink", True) == locked[2][:2]
    state.close()


def test_with_durability_power_a_commit_looks_at_the_path_after_its_write(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However young the last look is (I6)."""
    monkeypatch.setattr(limits, "LOOK_INTERVAL", 3600.0)
    path = tmp_path / "state.yaml"
    path.write_bytes(b"a: 1\nname: first\n")
    fs = Disk()
    state = PersistedState.open(path, fs=fs, durability="power")
    state["a"] = 2
    copy = path.read_bytes()

    def before(name: str, *_: Any) -> None:
        if name == "write":
            fs.before = lambda *_: None
            save_by_rename(path, copy.replace(b"first", b"edited"))

    fs.before = before
    state["b"] = 3
    assert {"a": 2, "name": "edited", "b": 3} == peek(path)
    state.close()


def test_a_commit_that_is_not_synced_never_stands_in_a_journal_that_says_so(tmp_path: Path) -> None:
    """After a power cut, a hole in front of it would be taken for damage."""
    path = tmp_path / "state.yaml"

    def die() -> None:
        state = PersistedState.open(path, durability="power")
        state["a"] = 1
        os._exit(0)

    assert 0 == in_child(die)
    assert b" w\n" in path.read_bytes()
    state = PersistedState.open(path)
    state["b"] = 2
    assert b" w\n" not in path.read_bytes()
    assert b" p\n" in path.read_bytes()
    assert {"a": 1, "b": 2} == peek(path)
    state.close()


def test_a_reader_that_finds_an_edit_does_not_wait_for_a_writer(tmp_path: Path, unthrottled: None) -> None:
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


def test_another_history_with_an_edit_above_its_journal_is_refused(world: World) -> None:
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


def test_a_stricter_durability_of_a_second_opener_counts_for_the_first(tmp_path: Path) -> None:
    path = tmp_path / "state.yaml"
    fs = Seam()
    first = PersistedState.open(path, fs=fs)
    first["a"] = 1
    second = PersistedState.open(path, fs=fs, durability="power")
    fs.armed = True
    first["a"] = 2
    assert ["write", "sync_data", "sync_folder"] == changing(fs)
    second.close()
    first.close()


def test_a_copy_that_ends_in_our_trailer_is_kept_if_its_checksum_is_wrong(tmp_path: Path) -> None:
    """An editor's copy may end so; only the checksum of all bytes before it proves a file ours (I7)."""
    path = tmp_path / "state.yaml"
    path.write_bytes(b"x: 1\n")
    mine = b"x: 1\nmine: precious\n--- # pstate moved 00000000 0000000005 01234567 0000000000 01234567\n"
    (tmp_path / ".state.yaml.swap").write_bytes(mine)
    state = PersistedState(path)
    state["a"] = 1
    state.close()
    assert mine in [each.read_bytes() for each in tmp_path.iterdir()]


def test_a_close_above_a_save_that_does_not_parse_keeps_our_state_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "state.yaml"
    state = PersistedState(path, a=1)
    state["a"] = 2
    save_by_rename(path, b"a: [\n")
    state.close()
    assert b"a: [\n" == path.read_bytes()
    (kept,) = tmp_path.glob("state.yaml.conflict-*.yaml")
    assert {"a": 2} == yaml.safe_load(kept.read_bytes())


def test_with_durability_power_no_thread_sees_a_commit_before_it_is_on_the_disk(tmp_path: Path) -> None:
    fs = FileSystem()
    state = PersistedState.open(tmp_path / "state.yaml", fs=fs, durability="power")
    views = []
    fs.sync_data = lambda _: views.append(state._store.fresh())
    state["a"] = 1
    state["a"] = 2
    with state.transaction():
        state["a"] = 3
    assert [None, None, None] == views
    state.close()


def test_a_transaction_in_which_code_went_round_the_state_is_rolled_back(tmp_path: Path) -> None:
    path = tmp_path / "state.yaml"
    state = PersistedState(path, a=1, jobs=[1])
    with pytest.raises(TransactionError):
        with state.transaction():
            state["a"] = 2
            list.append(state["jobs"], 9)
            with pytest.raises(BypassedError):
                state["jobs"].append(3)
    assert {"a": 1, "jobs": [1]} == state.snapshot() == peek(path)
    state.close()


def test_a_writer_waits_for_a_file_that_is_moved_away_and_written_again(tmp_path: Path, unthrottled: None) -> None:
    path = tmp_path / "state.yaml"
    path.write_bytes(b"a: 1\n")
    fs = FileSystem()
    state = PersistedState.open(path, fs=fs)
    path.replace(tmp_path / "state.yaml~")
    fs.sleep = lambda _: None if path.exists() else save_in_place(path, b"a: edited\n")
    state["b"] = 1
    assert {"a": "edited", "b": 1} == peek(path)
    state.close()


def test_what_a_handler_raises_in_front_of_a_write_goes_on_as_it_is(tmp_path: Path) -> None:
    """A TimeoutError of a signal handler is an OSError, and no failure of the disk."""
    path = tmp_path / "state.yaml"
    fs = FileSystem()

    def write(fd: int, data: bytes) -> int:
        if armed:
            armed.pop()
            raise TimeoutError("alarm")
        return os.write(fd, data)

    armed: list[bool] = []
    fs.write = write
    state = PersistedState.open(path, fs=fs)
    for n in range(2):
        armed.append(True)
        with pytest.raises(TimeoutError, match=r"\Aalarm\Z"):
            state["a"] = n
        assert n == state.get("a", 0)
        state["a"] = n + 1
    state.close()
