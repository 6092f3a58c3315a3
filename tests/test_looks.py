"""A look at the path that finds anything but our file: the next change does not go past it.

The clock is the test's: time passes only when the test says so, or when pstate sleeps. So each test is exactly
between a look and the moment at which that look is too old.
"""

from __future__ import annotations

import ast
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from tools.edits import World, save_in_place

from pstate import DurabilityUnknown, InvalidEditError, PersistedState, StoreFailedError, WriteError
from pstate.file import limits, log
from pstate.file.fs import FileSystem

BASE = b"n: 0\nname: first\njobs:\n- one\nplace:\n  x: 1\n"
STATE = yaml.safe_load(BASE)


class Timed(FileSystem):
    """The real file system, with a clock that stands still between two sleeps."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 1000.0
        self.clock = lambda: self.now
        self.wall = lambda: time.time() + self.now - 1000.0
        self.sleep = self._pass
        self.slept = 0.0
        #: Files whose names end so cannot be opened.
        self.failing = ""
        real = self.open
        self.open = lambda path, flags, mode: self._refuse(path) or real(path, flags, mode)

    def _pass(self, seconds: float) -> None:
        self.now += seconds
        self.slept += seconds

    def _refuse(self, path: str) -> int:
        if self.failing and path.endswith(self.failing):
            raise OSError(28, "No space left on device", path)
        return 0


def opened(path: Path, **options: Any) -> tuple[Any, Timed]:
    """A state with one commit, and its system. The last look has just found its file."""
    path.write_bytes(BASE)
    fs = Timed()
    state: Any = PersistedState.open(path, fs=fs, **options)
    state.n = 1
    return state, fs


def at_the_path(path: Path) -> Any:
    """What a program finds that opens the file now."""
    with PersistedState.open(path, read_only=True, fs=FileSystem()) as state:
        return state.snapshot()


def deleted(path: Path) -> dict[str, Any]:
    path.unlink()
    return {}


def moved_away(path: Path) -> dict[str, Any]:
    path.rename(path.with_name("state.yaml.1"))
    return {}


def saved_by_rename(path: Path) -> dict[str, Any]:
    beside = path.with_name("new")
    beside.write_bytes(BASE.replace(b"first", b"edited"))
    beside.replace(path)
    return {"name": "edited"}


def saved_by_rename_with_an_old_stamp(path: Path) -> dict[str, Any]:
    """As `tar x` and `scp -p` do it."""
    edit = saved_by_rename(path)
    os.utime(path, (1_700_000_000, 1_700_000_000))
    return edit


def saved_by_rename_with_a_stamp_in_the_future(path: Path) -> dict[str, Any]:
    edit = saved_by_rename(path)
    os.utime(path, (time.time() + 3600.5, time.time() + 3600.5))
    return edit


def saved_anew_in_place(path: Path) -> dict[str, Any]:
    path.write_bytes(BASE.replace(b"first", b"edited"))
    return {"name": "edited"}


def saved_by_moving_away(path: Path) -> dict[str, Any]:
    moved_away(path)
    return saved_anew_in_place(path)


HAPPENINGS = [
    deleted,
    moved_away,
    saved_by_rename,
    saved_by_rename_with_an_old_stamp,
    saved_by_rename_with_a_stamp_in_the_future,
    saved_anew_in_place,
    saved_by_moving_away,
]


def set_(state: Any) -> dict[str, Any]:
    state.n = 2
    return {"n": 2}


def append(state: Any) -> dict[str, Any]:
    state.jobs.append("two")
    return {"jobs": ["one", "two"]}


def set_in_depth(state: Any) -> dict[str, Any]:
    state.place.x = 2
    return {"place": {"x": 2}}


def in_a_transaction(state: Any) -> dict[str, Any]:
    with state.transaction():
        state.n = 2
        state.jobs.append("two")
    return {"n": 2, "jobs": ["one", "two"]}


def by_rewriting(state: Any) -> dict[str, Any]:
    set_(state)
    state.vacuum()
    return {"n": 2}


CHANGES = [set_, append, set_in_depth, in_a_transaction, by_rewriting]
by_name = {"ids": lambda function: function.__name__}


@pytest.mark.parametrize("durability", ["process", "power"])
@pytest.mark.parametrize("change", CHANGES, **by_name)
@pytest.mark.parametrize("happening", HAPPENINGS, **by_name)
def test_what_is_acknowledged_after_a_look_is_in_the_file_at_the_path(
    happening: Callable[[Path], dict[str, Any]],
    change: Callable[[Any], dict[str, Any]],
    durability: str,
    tmp_path: Path,
) -> None:
    path = tmp_path / "state.yaml"
    state, fs = opened(path, durability=durability)
    edit = happening(path)
    fs.now += 2 * limits.LOOK_INTERVAL
    assert state.n == 1  # a look, which finds something else, and a save that may not be over

    expected = {**STATE, "n": 1, **edit, **change(state)}
    assert at_the_path(path) == expected
    assert state.snapshot() == expected
    state.close()
    assert yaml.safe_load(path.read_bytes()) == expected


@pytest.mark.parametrize("change", CHANGES, **by_name)
@pytest.mark.parametrize("save", [saved_by_rename, saved_anew_in_place], **by_name)
def test_a_save_that_does_not_parse_is_not_written_over_by_the_first_change(
    save: Callable[[Path], dict[str, Any]], change: Callable[[Any], Any], tmp_path: Path
) -> None:
    path = tmp_path / "state.yaml"
    state, fs = opened(path)
    save(path)
    broken = b"n: [\n" + path.read_bytes()
    path.write_bytes(broken)
    fs.now += 2 * limits.LOOK_INTERVAL

    with pytest.raises(InvalidEditError, match=r"state\.yaml:"):
        change(state)
    assert path.read_bytes() == broken
    assert state.snapshot() == {**STATE, "n": 1}
    path.write_bytes(broken.removeprefix(b"n: [\n"))
    assert at_the_path(path) != state.snapshot()  # it has not looked yet
    fs.now += 1
    assert change(state).items() <= at_the_path(path).items()
    state.close()


@pytest.mark.parametrize("durability", ["process", "power"])
@pytest.mark.parametrize("change", CHANGES, **by_name)
@pytest.mark.parametrize("looks", [False, True], ids=["no look before", "a look before"])
def test_a_change_of_a_file_whose_folder_is_gone_is_an_error_and_no_change(
    change: Callable[[Any], Any], looks: bool, durability: str, tmp_path: Path
) -> None:
    path = tmp_path / "folder" / "state.yaml"
    path.parent.mkdir()
    state, fs = opened(path, durability=durability)
    shutil.rmtree(path.parent)
    fs.now += 2 * limits.LOOK_INTERVAL
    if looks:
        assert state.n == 1

    for _ in range(2):
        with pytest.raises(WriteError, match="Create its folder again"):
            change(state)
        assert state.snapshot() == {**STATE, "n": 1}
    path.parent.mkdir()
    expected = {**STATE, "n": 1, **change(state)}
    assert at_the_path(path) == expected
    state.close()
    assert yaml.safe_load(path.read_bytes()) == expected


def test_a_commit_that_meets_what_it_cannot_be_brought_together_with_says_so(tmp_path: Path) -> None:
    """The folder is removed within the commit, between the write and the look that follows it."""
    path = tmp_path / "folder" / "state.yaml"
    path.parent.mkdir()
    state, _ = opened(path, durability="power")
    journal = state._store.log.memory.view[4]
    real = journal.write

    def write(fd: int, data: bytes) -> int:
        journal.write = real
        written: int = real(fd, data)
        shutil.rmtree(path.parent)
        return written

    journal.write = write
    with pytest.raises(DurabilityUnknown, match="may not be in the file at the path"):
        state.n = 2
    assert state.n == 2
    path.parent.mkdir()
    state.name = "again"
    assert at_the_path(path) == {**STATE, "n": 2, "name": "again"}
    state.close()


# ------------------------------------------------------------------ time stamps


def whole_seconds(fs: Timed) -> None:
    """A file system that keeps whole seconds: ext3, HFS+, sshfs."""
    stat, fstat = fs.stat, fs.fstat
    fs.stat = lambda path: _coarse(stat(path))
    fs.fstat = lambda fd: _coarse(fstat(fd))


def _coarse(status: os.stat_result) -> Any:
    fields = {name: getattr(status, name) for name in dir(status) if name.startswith("st_")}
    for name in ("st_mtime", "st_ctime"):
        fields[name] = float(int(fields[name]))
        fields[f"{name}_ns"] = int(fields[name]) * 1_000_000_000
    return SimpleNamespace(**fields)


def set_back(fs: Timed) -> None:
    """The clock was set back by an hour after the save."""
    fs.wall = lambda: time.time() - 3600 + (fs.now - 1000)


def ordinary(fs: Timed) -> None:
    pass


@pytest.mark.parametrize("system", [ordinary, whole_seconds, set_back], **by_name)
@pytest.mark.parametrize(
    "save",
    [saved_by_rename, saved_by_rename_with_an_old_stamp, saved_by_rename_with_a_stamp_in_the_future],
    **by_name,
)
def test_the_first_read_after_a_save_of_three_seconds_ago_sees_it(
    save: Callable[[Path], Any], system: Callable[[Timed], None], tmp_path: Path
) -> None:
    path = tmp_path / "state.yaml"
    state, fs = opened(path)
    system(fs)
    save(path)
    fs.now += 3

    assert state.name == "edited"
    assert fs.slept <= limits.QUIET_FOR_READERS
    state.close()


@pytest.mark.parametrize("system", [ordinary, whole_seconds], **by_name)
def test_a_save_of_just_now_is_not_believed_at_once(system: Callable[[Timed], None], tmp_path: Path) -> None:
    """Half of it may be missing. A reader does not wait for the rest."""
    path = tmp_path / "state.yaml"
    state, fs = opened(path)
    system(fs)
    saved_anew_in_place(path)
    fs.now += limits.CHECK_INTERVAL

    assert state.name == "first"
    assert fs.slept == 0
    state.close()


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


# ------------------------------------------------------------------ one commit, brought back once


@pytest.mark.parametrize("first", ["the one that committed", "the one that reads"])
@pytest.mark.parametrize("end", [b"\n", b"", b"\nother: 1\n"], ids=["in a list", "without a newline", "in a mapping"])
@pytest.mark.parametrize("count", [2, 3])
def test_a_commit_that_a_save_lacks_is_brought_back_once_for_all(
    world: World, first: str, end: bytes, count: int
) -> None:
    """After these documents no trailer may come before the exchange; all programs are told of it all the same."""
    world.write(b"edited: 0\nlog:\n- a\n")
    peers = [world.peer() for _ in range(count)]
    peers[0].run("state.log.append('journal')")
    assert ["a", "journal"] == [peer.ask("state.log.copy()") for peer in peers][-1]
    save_in_place(world.path, b"edited: 7\nlog:\n- a\n- b" + end)

    for peer in peers if first == "the one that committed" else reversed(peers):
        assert ["a", "b", "journal"] == peer.ask("state.log.copy()")
    for peer in peers:
        assert ["a", "b", "journal"] == peer.ask("state.log.copy()")
    assert ["a", "b", "journal"] == world.finish()["log"]
    assert [] == world.conflicts()


# ------------------------------------------------------------------ what is said once is said again


def warnings(caplog: pytest.LogCaptureFixture, words: str) -> list[str]:
    found = [record.message for record in caplog.records if record.levelname == "WARNING" and words in record.message]
    caplog.clear()
    return found


def test_each_broken_save_is_told_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "state.yaml"
    state, fs = opened(path)
    for number in (1, 2):
        path.write_bytes(b"n: [\n")
        for _ in range(3):
            fs.now += 3
            assert state.get("n") is not None
        assert len(warnings(caplog, "not YAML")) == 1
        path.write_bytes(b"n: %d0\n" % number)
        fs.now += 3
        assert state.n == 10 * number
        caplog.clear()
    state.close()


def test_a_path_that_cannot_be_reached_is_told_each_time(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "state.yaml"
    state, fs = opened(path)
    real = fs.stat
    for _ in range(2):

        def unreachable(path: str) -> os.stat_result:
            raise OSError(5, "Input/output error", path)

        fs.stat = unreachable
        for _ in range(3):
            fs.now += 1
            assert state.n == 1
        assert len(warnings(caplog, "cannot be reached")) == 1
        fs.stat = real
        fs.now += 1
        assert state.n == 1
    state.close()


def test_each_vacuum_that_is_put_off_after_one_that_worked_is_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "JOURNAL_MINIMUM", 300)
    state, fs = opened(tmp_path / "state.yaml")
    for _ in range(2):
        fs.failing = ".vacuum"
        for _ in range(60):
            state.n += 1
        assert len(warnings(caplog, "journal keeps growing")) == 1
        fs.failing = ""
        state.vacuum()
    state.close()


def test_a_save_that_was_taken_back_leaves_no_file_beside(tmp_path: Path) -> None:
    """It could not be brought together with our commits, and then the person has undone it."""
    path = tmp_path / "state.yaml"
    state, fs = opened(path)
    good = path.read_bytes()
    saved_anew_in_place(path)
    fs.failing = ".vacuum"
    fs.now += 3
    with pytest.raises(WriteError, match="could not be written together"):
        state.n = 2
    path.write_bytes(good)
    fs.now += 3
    state.n = 3
    state.close()  # which cannot rewrite the file either

    assert at_the_path(path)["n"] == 3
    assert os.listdir(tmp_path) == ["state.yaml"]


def test_a_state_that_could_not_cut_back_refuses_writes_until_it_can(tmp_path: Path) -> None:
    """What StoreFailedError says is what happens."""
    path = tmp_path / "state.yaml"
    state, fs = opened(path)
    journal = state._store.log.memory.view[4]
    real_write, real_truncate = journal.write, fs.truncate
    pieces = iter([5])

    def half(fd: int, data: bytes) -> int:
        for size in pieces:
            return real_write(fd, data[:size])
        raise OSError(28, "No space left on device")

    def refuse(fd: int, length: int) -> None:
        raise OSError(5, "Input/output error")

    journal.write, fs.truncate = half, refuse
    with pytest.raises(StoreFailedError, match=r"refuses writes until .* can be cut off"):
        state.n = 2
    for _ in range(2):
        with pytest.raises(WriteError, match="could not be cut off"):
            state.n = 3
    assert at_the_path(path)["n"] == state.n == 1

    journal.write, fs.truncate = real_write, real_truncate
    state.n = 4
    assert at_the_path(path)["n"] == 4
    state.close()


# ------------------------------------------------------------------ the form


def test_only_a_look_that_found_our_file_counts() -> None:
    """`_look_at` and `_look_due` are moved into the future in one place: everything else resets them to 0."""
    tree = ast.parse(Path(log.__file__).read_text(encoding="utf-8"))
    for function in ast.walk(tree):
        if not isinstance(function, ast.FunctionDef) or function.name == "_looked":
            continue
        for node in ast.walk(function):
            targets = node.targets if isinstance(node, ast.Assign) else []
            names = [target.attr for target in targets if isinstance(target, ast.Attribute)]
            if {"_look_at", "_look_due"}.intersection(names):
                assert isinstance(node, ast.Assign)
                assert ast.unparse(node.value) == "0.0", f"{function.name}: {ast.unparse(node)}"
