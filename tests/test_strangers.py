"""A folder in which others may write: what they put under names of ours is not followed, read, waited for or destroyed.

What this shows is what SECURITY.md promises.
"""

from __future__ import annotations

import ast
import contextlib
import errno
import logging
import os
import re
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from zlib import crc32

import pytest
import yaml
from tools.disks import Disk
from tools.users import ALICE, WEB, as_user, needs_users
from tools.users import shared as shared

from pstate import NotAFileError, PersistedState, PStateError, WriteError
from pstate.cli import main
from pstate.file import format as f
from pstate.file import vacuum
from pstate.file.fs import SYSTEM, Descriptor, NotOurs, open_beside

PACKAGE = Path(__file__).parent.parent / "pstate"
PRECIOUS = b"precious: 1\n"


@pytest.fixture(autouse=True)
def nobody_was_told() -> Iterator[None]:
    vacuum._taken.clear()
    yield
    vacuum._taken.clear()


def a_link(path: Path) -> None:
    victim = path.parent / "victim"
    victim.write_bytes(PRECIOUS)
    path.symlink_to("victim")


def a_link_to_nothing(path: Path) -> None:
    path.symlink_to("made_elsewhere")


def a_link_without_an_end(path: Path) -> None:
    path.symlink_to("/dev/zero")


def a_link_to_itself(path: Path) -> None:
    path.symlink_to(path.name)


def a_pipe(path: Path) -> None:
    os.mkfifo(path)


def a_folder(path: Path) -> None:
    path.mkdir()
    (path / "inside").write_bytes(PRECIOUS)


def a_socket(path: Path) -> None:
    before = os.getcwd()
    os.chdir(path.parent)  # their paths are short
    try:
        with socket.socket(socket.AF_UNIX) as made:
            made.bind(path.name)
    finally:
        os.chdir(before)


def a_hard_link(path: Path) -> None:
    victim = path.parent / "victim"
    victim.write_bytes(PRECIOUS)
    os.link(victim, path)


KINDS = [
    a_link, a_link_to_nothing, a_link_without_an_end, a_link_to_itself, a_pipe, a_folder, a_socket, a_hard_link,
]  # fmt: skip
every_kind = pytest.mark.parametrize("put", KINDS, ids=lambda put: put.__name__)
Put = Callable[[Path], None]


def seen(folder: Path) -> dict[str, Any]:
    """What is in *folder*, links not followed."""
    found: dict[str, Any] = {}
    for path in sorted(folder.rglob("*")):
        status = path.lstat()
        content = path.read_bytes() if stat.S_ISREG(status.st_mode) else b""
        target = os.readlink(path) if path.is_symlink() else ""
        found[str(path.relative_to(folder))] = status.st_ino, status.st_mode, status.st_nlink, content, target
    return found


@contextlib.contextmanager
def nothing_else_changes(folder: Path, name: str = "state.yaml") -> Iterator[None]:
    before = seen(folder)
    yield
    after = seen(folder)
    before.pop(name, None)
    after.pop(name, None)
    assert before == after


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]


# ------------------------------------------------------------------ the names of a vacuum


@every_kind
@pytest.mark.parametrize("role", ["vacuum", "swap"])
def test_a_vacuum_leaves_alone_what_is_not_its_file_and_says_so_once(
    tmp_path: Path, put: Put, role: str, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "state.yaml"
    path.write_bytes(b"n: 0\n")
    name = tmp_path / f".state.yaml.{role}"
    put(name)
    with nothing_else_changes(tmp_path):
        for number in range(3):
            state = PersistedState.open(path)
            state.n = number
            state.vacuum()
            state.n += 10
            state.close()
            assert {"n": number + 10} == yaml.safe_load(path.read_bytes())
    (told,) = warnings(caplog)
    assert told.startswith(f"{name}: ")
    assert "left alone" in told


def test_a_stranger_that_comes_again_is_told_of_again(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "state.yaml"
    name = tmp_path / ".state.yaml.swap"
    state = PersistedState.open(path, defaults={"n": 0})
    for expected in (1, 2):
        name.symlink_to("nothing")
        state.vacuum()
        state.vacuum()
        assert expected == len(warnings(caplog))
        name.unlink()
        state.vacuum()
    state.close()


@pytest.mark.parametrize("role", ["vacuum", "swap"])
def test_many_strangers_keep_no_vacuum_off(tmp_path: Path, role: str) -> None:
    path = tmp_path / "state.yaml"
    for name, _ in zip(vacuum.names(str(path), role), range(50), strict=False):
        os.mkfifo(name)
    with nothing_else_changes(tmp_path), PersistedState.open(path) as state:
        state.n = 1
    assert {"n": 1} == yaml.safe_load(path.read_bytes())


@every_kind
@pytest.mark.parametrize(("role", "use"), [("vacuum", "open"), ("swap", "rename_new")])
def test_what_comes_in_the_middle_of_a_vacuum_is_left_alone(tmp_path: Path, put: Put, role: str, use: str) -> None:
    """Between the last look at a name and its use, somebody takes it."""
    path = tmp_path / "state.yaml"
    fs = Disk()
    state = PersistedState.open(path, fs=fs, defaults={"n": 0})
    name = tmp_path / f".state.yaml.{role}"
    put(tmp_path / "strange")
    strange = seen(tmp_path)["strange"]

    def take(call: str, *arguments: Any) -> None:
        is_use = call == use and (call != "open" or arguments[1] & os.O_CREAT)
        if is_use and not os.path.lexists(name):
            (tmp_path / "strange").rename(name)

    fs.before = take
    state.n = 1
    state.vacuum()
    fs.before = lambda *arguments: None
    state.close()
    assert strange == seen(tmp_path)[name.name]
    assert {"n": 1} == yaml.safe_load(path.read_bytes())
    assert {name.name, "state.yaml"} == set(os.listdir(tmp_path)) - {"victim"}
    assert put not in (a_link, a_hard_link) or PRECIOUS == (tmp_path / "victim").read_bytes()


def test_leftovers_behind_a_strangers_name_are_found(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A vacuum that was killed had to use other names than the first."""
    path = tmp_path / "state.yaml"
    path.write_bytes(b"n: 0\n")
    for role in ("vacuum", "swap"):
        (tmp_path / f".state.yaml.{role}").symlink_to("nothing")
    (tmp_path / ".state.yaml.vacuum-2").write_bytes(b"half")
    (tmp_path / ".state.yaml.swap-2").write_bytes(b"mine: precious\n")
    ours = b"n: 7\n"
    trailer = f.Trailer(f.NO_GENERATION, 5, 0, 0, crc32(ours)).encode()
    (tmp_path / ".state.yaml.swap-3").write_bytes(ours + trailer)
    with PersistedState.open(path) as state:
        state.n = 1
    (kept,) = tmp_path.glob("*.conflict-*")
    assert b"mine: precious\n" == kept.read_bytes()
    assert sorted([".state.yaml.vacuum", ".state.yaml.swap", "state.yaml", kept.name]) == sorted(os.listdir(tmp_path))


def test_an_old_file_with_a_second_name_is_still_deleted(tmp_path: Path) -> None:
    """A hard link of a person's to the state, and a vacuum that was killed after its exchange."""
    path = tmp_path / "state.yaml"
    path.write_bytes(b"n: 0\n")
    ours = b"n: 7\n"
    swap = tmp_path / ".state.yaml.swap"
    swap.write_bytes(ours + f.Trailer(f.NO_GENERATION, 5, 0, 0, crc32(ours)).encode())
    os.link(swap, tmp_path / "copy")
    with PersistedState.open(path) as state:
        state.n = 1
    assert ["copy", "state.yaml"] == sorted(os.listdir(tmp_path))


def test_check_names_what_is_under_the_other_names(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "state.yaml"
    path.write_bytes(b"n: 0\n")
    (tmp_path / ".state.yaml.swap-2").write_bytes(b"mine: precious\n")
    (tmp_path / ".state.yaml.swap-other").write_bytes(b"somebody's\n")
    main(["check", str(path)])
    out = capsys.readouterr().out
    assert ".state.yaml.swap-2" in out
    assert "swap-other" not in out


@needs_users
@pytest.mark.parametrize("role", ["vacuum", "swap"])
@pytest.mark.parametrize("mode", [0o666, 0o600])
def test_a_file_of_another_user_under_our_name_in_a_folder_like_tmp(shared: Path, role: str, mode: int) -> None:
    shared.chmod(0o1777)
    path = shared / "state.yaml"
    theirs = shared / f".state.yaml.{role}"
    theirs.write_bytes(PRECIOUS)
    os.chown(theirs, WEB, WEB)
    theirs.chmod(mode)

    def commits() -> None:
        with PersistedState.open(path) as state:
            state.n = 1

    with nothing_else_changes(shared):
        as_user(ALICE, commits)
    assert {"n": 1} == yaml.safe_load(path.read_bytes())


# ------------------------------------------------------------------ lock files, and what is kept beside


@every_kind
@pytest.mark.parametrize("locking", ["filelock", "portalocker"])
def test_a_lock_file_that_is_none_is_an_error_that_says_what_to_do(tmp_path: Path, put: Put, locking: Any) -> None:
    path = tmp_path / "state.yaml"
    path.write_bytes(b"n: 0\n")
    put(tmp_path / "state.yaml.lock")
    with nothing_else_changes(tmp_path, name=""):
        state = PersistedState.open(path, locking=locking, lock_timeout=1)
        for change in (lambda: state.__setitem__("n", 1), lambda: state.transaction().__enter__(), state.vacuum):
            with pytest.raises(PStateError, match=r'lock file .*state\.yaml\.lock cannot be used: .*locking="file"'):
                change()
        assert 0 == state.n
        state.close()
    assert not (tmp_path / "made_elsewhere").exists()


@pytest.mark.parametrize("locking", ["filelock", "portalocker"])
def test_a_lock_file_becomes_usable_again(tmp_path: Path, locking: Any) -> None:
    path = tmp_path / "state.yaml"
    lock_file = tmp_path / "state.yaml.lock"
    lock_file.symlink_to("nothing")
    state = PersistedState.open(path, locking=locking)
    with pytest.raises(WriteError):
        state.n = 1
    lock_file.unlink()
    state.n = 2
    state.close()
    assert {"n": 2} == yaml.safe_load(path.read_bytes())


@pytest.mark.parametrize("locking", ["filelock", "portalocker"])
def test_a_lock_file_in_a_folder_that_is_gone_is_an_error_of_ours(tmp_path: Path, locking: Any) -> None:
    path = tmp_path / "folder" / "state.yaml"
    path.parent.mkdir()
    state = PersistedState.open(path, locking=locking)
    path.unlink()
    path.parent.rmdir()
    with pytest.raises(WriteError, match="lock file") as caught:
        state.n = 1
    assert errno.ENOENT == caught.value.errno
    state.close()


@every_kind
def test_what_is_kept_beside_goes_to_a_new_file(tmp_path: Path, put: Put) -> None:
    path = tmp_path / "state.yaml"
    path.write_bytes(b"a: 1\nb: [\n")
    put(tmp_path / "state.yaml.before-repair")
    before = seen(tmp_path)
    assert main(["repair", "--salvage", "--yes", str(path)]) == 0
    after = seen(tmp_path)
    assert b"a: 1\nb: [\n" == after.pop("state.yaml.before-repair-2")[3]
    assert {**before, "state.yaml": None} == {**after, "state.yaml": None}


# ------------------------------------------------------------------ what resolve finds beside


BASE, EDITED = b"counter: 1\nname: x\n", b"counter: 1\nname: edited\n"


def edited_above_a_journal(path: Path) -> None:
    path.write_bytes(BASE)
    state = PersistedState.open(path)
    state.counter = 2
    path.write_bytes(path.read_bytes().replace(BASE, EDITED, 1))
    journal = path.read_bytes()
    state.close()
    for each in path.parent.iterdir():
        each.unlink()
    path.write_bytes(journal)


@every_kind
def test_a_copy_is_not_looked_for_in_what_is_no_file(tmp_path: Path, put: Put, capsys: Any) -> None:
    path = tmp_path / "state.yaml"
    edited_above_a_journal(path)
    put(tmp_path / "state.yaml.orig")
    if (tmp_path / "victim").exists():
        (tmp_path / "victim").write_bytes(BASE)
    found = main(["resolve", "--journal", "--dry-run", str(path)])
    assert (found == 0) == (put is a_hard_link), capsys.readouterr()


@needs_users
def test_a_copy_of_another_user_is_not_believed(shared: Path) -> None:
    """The checksum is one of 32 bits: somebody can make another document with the same."""
    path = shared / "state.yaml"
    edited_above_a_journal(path)
    os.chown(path, ALICE, ALICE)
    copy = shared / "state.yaml.orig"
    copy.write_bytes(BASE)
    copy.chmod(0o644)
    for owner, is_found in ((WEB, False), (ALICE, True)):
        os.chown(copy, owner, owner)
        assert is_found == (main(["resolve", "--journal", "--dry-run", str(path)]) == 0)


# ------------------------------------------------------------------ the state itself


@pytest.mark.parametrize("put", [a_pipe, a_folder, a_socket, a_link_without_an_end], ids=lambda put: put.__name__)
@pytest.mark.parametrize("read_only", [False, True])
def test_a_state_that_is_no_file_is_refused_at_once(tmp_path: Path, put: Put, read_only: bool) -> None:
    path = tmp_path / "state.yaml"
    put(path)
    with nothing_else_changes(tmp_path, name=""), pytest.raises(NotAFileError):
        PersistedState.open(path, read_only=read_only)


@pytest.mark.parametrize("command", [["get"], ["check"], ["log"], ["set", "a", "1"], ["vacuum"], ["repair", "--yes"]])
@pytest.mark.parametrize("put", [a_pipe, a_link_without_an_end], ids=lambda put: put.__name__)
def test_a_command_does_not_wait_for_a_state_that_is_no_file(tmp_path: Path, put: Put, command: list[str]) -> None:
    path = tmp_path / "state.yaml"
    put(path)
    words = [sys.executable, "-m", "pstate", command[0], str(path), *command[1:]]
    with nothing_else_changes(tmp_path, name=""):
        done = subprocess.run(words, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=30, check=False)
    assert done.returncode > 0
    assert "not a regular file" in done.stdout + done.stderr


def test_a_state_that_becomes_a_pipe_while_it_is_open_is_not_waited_for(tmp_path: Path) -> None:
    path = tmp_path / "state.yaml"
    state = PersistedState.open(path, defaults={"n": 1}, lock_timeout=1)
    path.unlink()
    os.mkfifo(path)
    time.sleep(0.02)  # the last look at the path is too old by then
    with contextlib.suppress(PStateError):
        assert 1 == state.n
    with pytest.raises(PStateError):
        state.vacuum()
    assert stat.S_ISFIFO(path.lstat().st_mode)
    state.close()


# ------------------------------------------------------------------ the rule


#: Every place that opens or makes a file, and why it may: all else goes through `open_beside`.
OPENED = {
    "file.fs.open_beside: file.open": "the rule itself",
    "file.journal.Journal.__init__: self._file.open": "the state, whose path the user gives",
    "testing.memory.MemoryLog.open: Journal": "in memory",
    "testing.memory.MemoryLog.refresh: self.open": "in memory",
    "testing.memory.MemoryLog._go_on_in: Journal": "in memory",
    "rows.log.RowsLog._renew: self.open": "on a server",
    "rows.link.Link.forget: os.open": "/dev/null",
    "file.files._journal: Journal": "the state, whose path the user gives",
    "file.vacuum._begin: Journal": "a new file, through `open_beside`",
    "file.fs.FileSystem.sync_folder: folder.open": "the folder",
    "file.fs.told: file.open": "/proc",
    "file.lock_objects._replace_file: open": "/dev/null",
    "file.lock_objects._replace_file: os.open": "/dev/null",
    "speed._is_stale: open": "a module of the package",
    "cli.command.open_closed_streams: os.open": "/dev/null",
    "cli.command.open_closed_streams: open": "a descriptor that is open",
    "cli.users._may_write: open": "/proc",
    "cli.command.give_up: os.open": "/dev/null",
    "cli.begin._write: os.open": "a path that the user gives, or a new name beside it, which must be free",
    "cli.begin._write: open": "a descriptor that is open",
    "cli.begin._create: os.link": "a path that the user gives, which must be free",
    "cli.begin._sync_folder: os.open": "the folder",
    "cli.view.model.Model.step_in: self.open": "a row of the tree",
    "cli.view.model.Model.step_out: self.open": "a row of the tree",
    "cli.view.model.Model.toggle: self.open": "a row of the tree",
    "cli.edit._copied: tempfile.mkdtemp": "a folder that only we can enter",
    "cli.edit._Copy.edit: open": "in that folder",
    "cli.edit._read: open": "in that folder",
    "cli.servers.carry._read_note: open": "a name beside a path that the user gives",
    "cli.transfer.targets.put_made: tempfile.mkdtemp": "a folder that only we can enter",
    "cli.transfer.targets.put.make: open": "in that folder",
    "cli.transfer.targets.put_text.make: open": "in that folder",
    "cli.transfer.targets._sync: open": "in that folder",
    "cli.transfer.targets._shelve: shelve.open": "in that folder",
    "cli.reference.<module>: target.write_text": "this project's own page",
    "cli.reference.<module>: target.read_text": "this project's own page",
    "cli.script._text: open": "a path that the user gives",
    "cli.transfer.sources._content: open": "a path that the user gives",
    "cli.transfer.databases.is_sqlite: open": "a path that the user gives",
    "cli.transfer.databases._signature: open": "a path that the user gives",
    "cli.transfer.databases._opened: tempfile.mkdtemp": "a folder that only we can enter",
    "cli.transfer.databases._opened: shutil.copyfile": "a path that the user gives, and what SQLite has beside it",
    "cli.transfer.databases._dbm_pairs: reader.open": "a path that the user gives",
    "cli.transfer.databases._content: open": "a file that a database of the user's names, with the same care",
    "cli.transfer.databases._content: os.open": "as above",
}
_OPENS = re.compile(
    r"open|(os|io|fs|self\.fs|SYSTEM|file|old|new|folder|self\._file|self|shelve|reader)\.open|os\.fdopen|Journal"
    r"|tempfile\.\w+|shutil\.(copy|move)\w*|os\.(link|symlink|mkfifo|mknod|truncate)|.*\.(read|write)_(text|bytes)"
)


class _Opens(ast.NodeVisitor):
    def __init__(self, module: str) -> None:
        self.place = [module]
        self.found: set[str] = set()

    def visit_FunctionDef(self, node: ast.FunctionDef | ast.ClassDef | ast.AsyncFunctionDef) -> None:
        self.place.append(node.name)
        self.generic_visit(node)
        self.place.pop()

    visit_ClassDef = visit_AsyncFunctionDef = visit_FunctionDef

    def visit_Call(self, node: ast.Call) -> None:
        name = ast.unparse(node.func)
        if _OPENS.fullmatch(name):
            place = ".".join(self.place if len(self.place) > 1 else [*self.place, "<module>"])
            self.found.add(f"{place}: {name}")
        self.generic_visit(node)


def test_no_module_opens_a_file_but_as_the_rule_says() -> None:
    found: set[str] = set()
    for file in PACKAGE.rglob("*.py"):
        module = ".".join(file.relative_to(PACKAGE).with_suffix("").parts)
        visitor = _Opens(module)
        visitor.visit(ast.parse(file.read_text(encoding="utf-8")))
        found |= visitor.found
    assert found == set(OPENED)


@every_kind
def test_the_rule_opens_no_other_kind_of_file(tmp_path: Path, put: Put) -> None:
    path = tmp_path / "it"
    put(path)
    file = Descriptor(SYSTEM)
    for flags in (os.O_RDONLY, os.O_RDWR):
        if put is a_hard_link:
            assert 2 == open_beside(SYSTEM, file, str(path), flags).st_nlink
            file.close()
        else:
            with pytest.raises(NotOurs):
                open_beside(SYSTEM, file, str(path), flags)
        assert not file
    with nothing_else_changes(tmp_path, name=""), pytest.raises(FileExistsError):
        open_beside(SYSTEM, file, str(path), os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
