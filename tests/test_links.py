"""Symbolic links in the path of a state: each look follows them again, so a link that is switched shows at once.

Two kinds of people switch links: Kubernetes moves `..data` of a ConfigMap, and deployments move `current`.
"""

from __future__ import annotations

import os
import shutil
import threading
from pathlib import Path
from typing import Any

import pytest
import yaml
from tools.disks import Disk
from tools.edits import World

from pstate import EditConflict, PersistedState, WriteError
from pstate.cli import main
from pstate.file import limits


@pytest.fixture(autouse=True)
def looks_are_not_throttled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "LOOK_INTERVAL", 0.0)
    monkeypatch.setattr(limits, "MISSING", 0.02)


class Releases:
    """Folders with a state file in each, and the link `current` to one of them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.path = folder / "current" / "state.yaml"

    def add(self, number: int, text: str) -> Path:
        place = self.folder / "releases" / str(number)
        place.mkdir(parents=True)
        (place / "state.yaml").write_text(text)
        return place / "state.yaml"

    def switch(self, number: int) -> None:
        beside = self.folder / "new"
        beside.symlink_to(f"releases/{number}")
        beside.replace(self.folder / "current")


@pytest.fixture
def releases(tmp_path: Path) -> Releases:
    made = Releases(tmp_path)
    made.add(1, "release: 1\nn: 0\n")
    made.switch(1)
    return made


def folder_of(path: Path) -> list[str]:
    return sorted(os.listdir(path.parent))


@pytest.mark.parametrize("removed", [False, True], ids=["the old target stays", "the old target is removed"])
@pytest.mark.parametrize("read_only", [False, True], ids=["to write", "read_only"])
def test_a_switched_link_is_followed_by_the_next_read(releases: Releases, read_only: bool, removed: bool) -> None:
    state: Any = PersistedState.open(releases.path, read_only=read_only)
    assert 1 == state.release
    for number in (2, 3):
        releases.add(number, f"release: {number}\n")
        releases.switch(number)
        if removed:
            shutil.rmtree(releases.folder / "releases" / str(number - 1))

        assert number == state.release
        assert "n" not in state
        again: Any = PersistedState.open(releases.path, read_only=read_only)
        assert number == again.release
        again.close()
    state.close()
    assert {"release": 3} == yaml.safe_load(releases.path.read_text())


@pytest.mark.parametrize("file", [False, True], ids=["a linked folder", "a linked file"])
def test_a_config_map_is_followed_by_state_and_watch(tmp_path: Path, file: bool) -> None:
    """The way of the kubelet: a link to a file in `..data`, which is a link itself."""

    def publish(level: int) -> None:
        place = tmp_path / f"..version{level}"
        place.mkdir()
        (place / "config.yaml").write_text(f"level: {level}\n")
        (tmp_path / "..new").symlink_to(place.name)
        (tmp_path / "..new").replace(tmp_path / "..data")

    publish(1)
    (tmp_path / "config.yaml").symlink_to("..data/config.yaml")
    path = tmp_path / "config.yaml" if file else tmp_path / "..data" / "config.yaml"
    state: Any = PersistedState.open(path, read_only=True)
    with state.watch("level", timeout=10) as watch:
        publish(2)
        shutil.rmtree(tmp_path / "..version1")
        change = next(watch)
    assert (1, 2, "edit") == (change.old, change.new, change.origin)
    assert 2 == state.level
    state.close()


def test_commits_that_only_the_old_target_has_are_brought_to_the_new_one(releases: Releases) -> None:
    state: Any = PersistedState.open(releases.path)
    state.n = 1
    second = releases.add(2, "release: 2\nn: 0\n")
    releases.switch(2)

    state.more = True
    assert {"release": 2, "n": 1, "more": True} == state.snapshot()
    state.close()
    assert {"release": 2, "n": 1, "more": True} == yaml.safe_load(second.read_text())
    assert ["state.yaml"] == folder_of(second)
    with PersistedState(releases.folder / "releases" / "1" / "state.yaml") as first:
        assert {"release": 1, "n": 1} == first.snapshot()


def test_two_programs_bring_their_commits_to_the_new_target_once(releases: Releases, world: World) -> None:
    peers = [world.closed_peer() for _ in range(2)]
    for peer in peers:
        peer.open(releases.path)
    peers[0].run("state.log = ['a']; state.log.append('b')")
    peers[1].run("state.log.append('c')")
    second = releases.add(2, "release: 2\nlog: []\n")
    releases.switch(2)

    for peer in (*peers, *peers):
        assert 2 == peer.ask("state.release")
    logs = [peer.ask("state.log.copy()") for peer in peers]
    assert logs[0] == logs[1]
    peers[1].run("state.n = 5")
    assert 5 == peers[0].ask("state.n")
    for peer in peers:
        peer.run("state.close()")
    assert {"release": 2, "n": 5, "log": logs[0]} == yaml.safe_load(second.read_text())
    world.release()


def test_a_link_that_goes_back_shows_the_old_target_as_it_is(releases: Releases) -> None:
    """What was committed to the other one meanwhile is told as a conflict, and kept beside."""
    first = releases.folder / "releases" / "1" / "state.yaml"
    releases.add(2, "release: 2\nn: 0\n")
    state: Any = PersistedState.open(releases.path)
    state.n = 1
    releases.switch(2)
    assert (2, 1) == (state.release, state.n)
    releases.switch(1)
    assert (1, 1) == (state.release, state.n)
    releases.switch(2)
    assert 2 == state.release
    state.n = 2
    releases.switch(1)
    with pytest.raises(EditConflict) as caught:
        state.get("n")
    assert (1, 1) == (state.release, state.n)
    kept = yaml.safe_load(Path(caught.value.conflict_path or "").read_text())
    assert {"release": 2, "n": 2} == kept
    assert first.parent == Path(caught.value.conflict_path or "").parent
    state.close()


def test_a_vacuum_works_where_the_link_leads_by_now(releases: Releases) -> None:
    state: Any = PersistedState.open(releases.path)
    second = releases.add(2, "release: 2\n")
    releases.switch(2)
    state.vacuum()
    state.k = 1
    state.vacuum()
    state.close()

    assert {"release": 2, "k": 1} == yaml.safe_load(second.read_text())
    assert ["state.yaml"] == folder_of(second)
    assert "release: 1\nn: 0\n" == (releases.folder / "releases" / "1" / "state.yaml").read_text()


@pytest.mark.parametrize("call", ["stat", "exchange", "rename_new", "write", "sync"])
def test_a_link_that_is_switched_within_a_vacuum_loses_nothing(releases: Releases, call: str) -> None:
    fs = Disk("stat", "exchange", "rename_new", "write", "sync")
    fs.armed = False

    def switch(name: str, *_: Any) -> None:
        if name == call:
            fs.armed = False
            releases.switch(2)

    fs.before = switch
    releases.add(2, "release: 2\nn: 9\n")
    state: Any = PersistedState.open(releases.path, fs=fs)
    state.n = 1
    fs.armed = True
    state.vacuum()
    assert not fs.armed

    state.k = 1
    expected = {"release": 2, "n": 9, "k": 1}
    assert expected == state.snapshot()
    state.close()
    assert expected == yaml.safe_load(releases.path.read_text())
    for number in (1, 2):
        assert ["state.yaml"] == folder_of(releases.folder / "releases" / str(number) / "state.yaml")


def test_a_link_to_where_nothing_is_gets_the_state(releases: Releases, caplog: pytest.LogCaptureFixture) -> None:
    """As a file that was deleted."""
    state: Any = PersistedState.open(releases.path)
    state.n = 1
    releases.switch(2)
    assert 1 == state.n
    with pytest.raises(WriteError, match="Create its folder again"):
        state.n = 2
    (releases.folder / "releases" / "2").mkdir()
    state.n = 2
    assert any("written again" in record.message for record in caplog.records)
    with PersistedState.open(releases.path, read_only=True) as found:
        assert {"release": 1, "n": 2} == found.snapshot()
    state.close()
    assert {"release": 1, "n": 2} == yaml.safe_load((releases.folder / "releases" / "2" / "state.yaml").read_text())


def test_both_names_of_a_file_are_one_state_that_stays_with_the_file(releases: Releases) -> None:
    first = releases.folder / "releases" / "1" / "state.yaml"
    by_link: Any = PersistedState.open(releases.path, lock_timeout=0)
    by_name: Any = PersistedState.open(first, lock_timeout=0)
    with by_name.transaction():
        by_link.n = 7
    releases.add(2, "release: 2\n")
    releases.switch(2)
    assert (1, 7) == (by_name.release, by_name.n)
    now: Any = PersistedState.open(releases.path, lock_timeout=0)
    with by_name.transaction(), now.transaction():
        assert (1, 2) == (by_name.release, now.release)
    for each in (by_link, by_name, now):
        each.close()


def test_a_file_that_a_link_was_switched_to_is_one_state_by_its_own_name_too(releases: Releases) -> None:
    by_link: Any = PersistedState.open(releases.path, lock_timeout=0)
    second = releases.add(2, "release: 2\n")
    releases.switch(2)
    by_name: Any = PersistedState.open(second, lock_timeout=0)
    with by_link.transaction():
        by_name.n = 1
        assert {"release": 2, "n": 1} == by_link.snapshot()
    by_link.close()
    by_name.close()


@pytest.mark.parametrize("locking", ["filelock", "portalocker"])
def test_with_a_lock_for_the_path_a_link_is_followed_once(releases: Releases, locking: str) -> None:
    """The lock is beside the file that the link led to: no other file may be written under it."""
    state: Any = PersistedState.open(releases.path, locking=locking)
    second = releases.add(2, "release: 2\n")
    releases.switch(2)
    state.n = 5
    state.close()

    assert "release: 2\n" == second.read_text()
    assert {"release": 1, "n": 5} == yaml.safe_load((releases.folder / "releases" / "1" / "state.yaml").read_text())


def test_the_command_line_follows_a_switched_link(releases: Releases, capfd: pytest.CaptureFixture[str]) -> None:
    releases.add(2, "release: 2\n")
    found: list[str] = []

    def follow() -> None:
        with PersistedState.open(releases.path, read_only=True) as state:
            started.set()
            for change in state.watch("release", now=True, timeout=10):
                found.append(f"{change.new}")
                if change.new == 2:
                    break

    started = threading.Event()
    thread = threading.Thread(target=follow)
    thread.start()
    started.wait(10)
    releases.switch(2)
    thread.join(20)
    assert "2" == found[-1]
    assert 0 == main(["get", str(releases.path), "release"])
    assert 0 == main(["set", str(releases.path), "n", "4"])
    assert "2\n" == capfd.readouterr().out
    assert "release: 2\nn: 4\n" == (releases.folder / "releases" / "2" / "state.yaml").read_text().replace('"n"', "n")


def test_a_symbolic_link_that_leads_nowhere_is_an_error_not_a_wait(tmp_path: Path) -> None:
    path = tmp_path / "state.yaml"
    with PersistedState(path, n=0) as state:
        state.n = 1
        path.unlink()
        path.symlink_to(tmp_path / "nowhere" / "at all")
        with pytest.raises(WriteError, match="could not be written again"):
            state.vacuum()
        assert 1 == state.n
        path.unlink()
        with state.transaction():
            state.n = 2
    assert b'"n": 2\n' == path.read_bytes()
