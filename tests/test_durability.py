"""Durability "power": what is acknowledged or read is on stable storage, no matter which process wrote it.

With several threads, one sync serves all: that is in test_group_commit.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from tools.crash import in_child, peek
from tools.disks import Disk, Failing, Seam
from tools.edits import save_by_rename

from pstate import DurabilityUnknown, PersistedState, StoreFailedError, WriteError
from pstate.file import limits
from pstate.file.fs import FileSystem


def changing(fs: Seam) -> list[str]:
    return [name for name in fs.calls if name in ("write", "sync", "sync_data", "sync_folder", "truncate", "unlink")]


def test_who_follows_a_vacuum_syncs_the_folder_before_its_first_acknowledgement(tmp_path: Path) -> None:
    """The process that renamed may have died before it synced the folder."""
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


def test_a_commit_that_is_not_synced_never_stands_in_a_journal_that_says_so(tmp_path: Path) -> None:
    """After a power cut, a hole before it would be taken for damage."""
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


def test_with_power_a_commit_after_a_save_in_place_that_shortened_the_file_is_synced(tmp_path: Path) -> None:
    """The file was on stable storage up to an end that no longer exists."""
    path, fs = tmp_path / "state.yaml", Seam()
    state = PersistedState.open(path, defaults={"text": "x" * 400}, durability="power", fs=fs)
    state.vacuum()
    path.write_text("text: x\n")
    fs.armed = True

    state.counter = 1

    assert ["write", "sync_data"] == changing(fs)[:2]
    state.close()


def test_a_failed_sync_is_of_one_file_and_ends_with_it(tmp_path: Path) -> None:
    """Another process vacuums, so there is a file that was synced whole. Until then, nothing more is written."""
    path, fs = tmp_path / "state.yaml", Failing()
    state = PersistedState.open(path, defaults={"counter": 0}, durability="power", fs=fs)
    fs.failing.add("sync_data")
    with pytest.raises(DurabilityUnknown):
        state.counter = 1
    fs.failing.clear()
    with pytest.raises(StoreFailedError):
        state.counter = 2

    with PersistedState.open(path, fs=Seam()) as other:
        other.vacuum()
    assert 1 == state.counter
    state.counter = 3

    assert 3 == state.counter
    state.close()
    assert path.read_text() == "counter: 3\n"
