"""The users that may read and write the file after a vacuum: those who could before, and nobody else."""

from __future__ import annotations

import logging
import os
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from tools.disks import Disk
from tools.users import (
    ALICE,
    CAROL,
    ROOT,
    SHARED,
    WEB,
    access_list,
    access_of,
    as_user,
    needs_users,
    set_access,
    set_default_access,
)  # fmt: skip
from tools.users import shared as shared

from pstate import PersistedState, ReadOnlyError, WriteError
from pstate.cli import main
from pstate.file import rights
from pstate.file.fs import FileSystem
from pstate.file.rights import Rights


def write(path: Path, **values: Any) -> None:
    """Commit *values*, and close: the file is one plain document then, if it may be replaced."""
    with PersistedState.open(path) as state:
        for key, value in values.items():
            state[key] = value


def is_plain(path: Path) -> bool:
    return b"# pstate" not in path.read_bytes()


def make(path: Path, owner: int, group: int, mode: int) -> None:
    path.write_bytes(b"n: 1\n")
    if ROOT:
        os.chown(path, owner, group)
    path.chmod(mode)


def rights_of(path: Path) -> tuple[int, int, int, bytes | None]:
    status = path.stat()
    return status.st_uid, status.st_gid, stat.S_IMODE(status.st_mode), access_of(path)


# ------------------------------------------------------------------ what the folder adds


@pytest.mark.parametrize("mode", [0o600, 0o640, 0o664])
def test_the_folders_default_access_list_does_not_come_to_the_file(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "state.yaml"
    path.write_bytes(b"secret: 1\n")
    path.chmod(mode)
    set_default_access(tmp_path, 0o770, user_61003=7)
    before = rights_of(path)
    write(path, n=1)
    assert is_plain(path)
    assert before == rights_of(path)


def test_a_list_of_the_files_own_stays_as_it_is_under_another_default(tmp_path: Path) -> None:
    path = tmp_path / "state.yaml"
    path.write_bytes(b"n: 0\n")
    set_access(path, 0o640, user_61003=4, group_62000=6)
    set_default_access(tmp_path, 0o777, user_61002=7)
    before = rights_of(path)
    write(path, n=1)
    assert is_plain(path)
    assert before == rights_of(path)


def test_a_new_file_is_for_nobody_else_while_it_is_written(tmp_path: Path) -> None:
    """The bits of the group are the mask of an access control list, too."""
    path = tmp_path / "state.yaml"
    path.write_bytes(b"n: 0\n")
    path.chmod(0o664)
    set_default_access(tmp_path, 0o777, user_61003=7)
    fs = Disk()
    modes: list[int] = []

    def look(call: str, *arguments: Any) -> None:
        building = tmp_path / ".state.yaml.vacuum"
        if call == "write" and building.exists():
            modes.append(stat.S_IMODE(building.stat().st_mode))

    with PersistedState.open(path, fs=fs) as state:
        state.n = 1
        fs.before = look
        state.vacuum()
    assert 0o600 in modes
    assert {0o600, 0o664} == {0o664, *modes}  # the second write is that of the trailer


@needs_users
def test_whom_the_folders_default_list_names_cannot_read_the_file(shared: Path) -> None:
    path = shared / "state.yaml"
    make(path, ALICE, ALICE, 0o640)
    set_default_access(shared, 0o777, user_61003=7)
    as_user(ALICE, lambda: write(path, n=2))
    assert is_plain(path)

    def read() -> None:
        with pytest.raises(PermissionError):
            path.read_bytes()

    as_user(CAROL, read)


def test_one_attribute_that_cannot_be_set_does_not_keep_the_others(tmp_path: Path, monkeypatch: Any) -> None:
    path = tmp_path / "state.yaml"
    path.write_bytes(b"n: 0\n")
    try:
        for name in ("user.a", "user.b", "user.c"):
            os.setxattr(path, name, name.encode())
    except (OSError, AttributeError):
        pytest.skip("no extended attributes here")
    real = os.setxattr

    def refusing(file: Any, name: str, value: bytes) -> None:
        if name == "user.b":
            raise PermissionError(1, "not permitted")
        real(file, name, value)

    monkeypatch.setattr(os, "setxattr", refusing)
    write(path, n=1)
    assert ["user.a", "user.c"] == sorted(name for name in os.listxattr(path) if name.startswith("user."))


# ------------------------------------------------------------------ an owner that cannot be given


@needs_users
def test_a_program_that_is_not_the_owner_keeps_the_journal_where_the_owner_would_lose_a_right(shared: Path) -> None:
    path = shared / "state.yaml"
    make(path, ALICE, WEB, 0o660)
    before = rights_of(path)
    as_user(WEB, lambda: write(path, n=2))
    assert before == rights_of(path)
    assert not is_plain(path)

    def goes_on() -> None:
        with PersistedState.open(path) as state:
            assert state.n == 2
            state.n = 3

    as_user(ALICE, goes_on)
    assert before == rights_of(path)
    assert ["state.yaml"] == os.listdir(shared)


@needs_users
def test_it_says_so_once_and_a_vacuum_that_is_asked_for_is_an_error(shared: Path) -> None:
    path = shared / "state.yaml"
    make(path, ALICE, WEB, 0o660)

    def changes_much() -> None:
        told: list[str] = []

        class Noting(logging.Handler):
            def emit(self, record: logging.LogRecord) -> None:
                told.append(record.getMessage())

        logger = logging.getLogger("pstate")
        logger.addHandler(Noting(logging.WARNING))
        state = PersistedState.open(path)
        for number in range(60):
            state.text = str(number) + 100_000 * "x"  # several times what makes a vacuum due
        assert [True] == [f"user {ALICE}" in line and "keeps growing" in line for line in told]
        with pytest.raises(WriteError, match=f"user {ALICE}.*owns the old one"):
            state.vacuum()
        os._exit(0)

    as_user(WEB, changes_much)


@needs_users
def test_the_owner_may_go_where_the_new_file_gives_the_same_rights(shared: Path) -> None:
    """0666, and an access control list that names both."""
    for name, prepare in {
        "others": lambda path: path.chmod(0o666),
        "named": lambda path: set_access(path, 0o600, user_61001=6, user_61002=6),
    }.items():
        path = shared / f"{name}.yaml"
        make(path, ALICE, WEB, 0o600)
        prepare(path)
        as_user(WEB, lambda path=path: write(path, n=2))
        assert is_plain(path), name
        as_user(ALICE, lambda path=path: write(path, n=3))
        assert {"n": 3} == yaml.safe_load(path.read_bytes())


@needs_users
def test_an_access_list_for_the_writer_alone_keeps_the_owner(shared: Path) -> None:
    path = shared / "state.yaml"
    make(path, ALICE, ALICE, 0o600)
    set_access(path, 0o600, user_61002=6)
    before = rights_of(path)
    as_user(WEB, lambda: write(path, n=2))
    assert before == rights_of(path)
    as_user(ALICE, lambda: write(path, n=3))
    assert is_plain(path)
    assert before == rights_of(path)


@needs_users
def test_a_group_that_the_owner_is_not_in_keeps_its_rights(shared: Path) -> None:
    path = shared / "state.yaml"
    make(path, ALICE, SHARED, 0o640)
    before = rights_of(path)
    as_user(ALICE, lambda: write(path, n=2))
    assert before == rights_of(path)
    assert not is_plain(path)
    as_user(ALICE, lambda: write(path, n=3), SHARED)
    assert before == rights_of(path)
    assert is_plain(path)


@needs_users
def test_a_group_with_the_rights_of_all_others_may_go(shared: Path) -> None:
    path = shared / "state.yaml"
    make(path, ALICE, SHARED, 0o644)
    as_user(ALICE, lambda: write(path, n=2))
    assert is_plain(path)
    assert (ALICE, ALICE, 0o644, None) == rights_of(path)


@needs_users
def test_a_file_that_was_deleted_is_written_again_for_its_writer_alone(shared: Path) -> None:
    """There is no other file that could stay, and nobody must get to know what is in it by that."""
    path = shared / "state.yaml"
    make(path, ALICE, WEB, 0o660)

    def writes_again() -> None:
        state = PersistedState.open(path)
        state.n = 2
        path.unlink()
        state.vacuum()
        state.n = 3
        os._exit(0)

    as_user(WEB, writes_again)
    assert (WEB, 0o600) == (path.stat().st_uid, stat.S_IMODE(path.stat().st_mode))
    with PersistedState.open(path, read_only=True) as state:
        assert {"n": 3} == state.snapshot()


@needs_users
def test_root_leaves_a_file_to_whom_it_was(shared: Path) -> None:
    path = shared / "state.yaml"
    make(path, ALICE, SHARED, 0o2640)
    set_access(path, 0o640, user_61003=4)
    path.chmod(0o2650)
    before = rights_of(path)
    write(path, n=2)
    assert is_plain(path)
    assert before == rights_of(path)


@needs_users
@pytest.mark.parametrize("content", [b"n: 1\n", b"n: 1"], ids=["a line end", "no line end"])
def test_in_a_user_namespace_an_owner_without_a_number_stays_behind(shared: Path, content: bytes) -> None:
    path = shared / "state.yaml"
    make(path, WEB, WEB, 0o666)
    path.write_bytes(content)

    def in_a_namespace() -> None:
        library = __import__("ctypes").CDLL(None, use_errno=True)
        user, group = os.getuid(), os.getgid()
        library.prctl(4, 1, 0, 0, 0)  # PR_SET_DUMPABLE, or what is in /proc is root's
        if library.unshare(0x10000000):  # CLONE_NEWUSER
            os._exit(0)  # not permitted here
        Path("/proc/self/setgroups").write_text("deny")
        Path("/proc/self/uid_map").write_text(f"0 {user} 1")
        Path("/proc/self/gid_map").write_text(f"0 {group} 1")
        assert path.stat().st_uid not in (0, user)
        state = PersistedState.open(path)
        state.n += 1
        state.vacuum()
        state.close()
        assert {"n": 2} == yaml.safe_load(path.read_bytes())

    as_user(ALICE, in_a_namespace)


# ------------------------------------------------------------------ the rule, by itself


OLD = Rights(ALICE, SHARED, 0o660)


@pytest.mark.parametrize(
    ("old", "new", "may"),
    [
        (OLD, OLD, True),
        (OLD, OLD._replace(mode=0o640), False),
        (OLD, OLD._replace(owner=WEB), False),
        (OLD._replace(owner=0), OLD, True),
        (OLD._replace(mode=0o666), OLD._replace(mode=0o666, owner=WEB), True),
        (OLD._replace(mode=0o606), OLD._replace(mode=0o606, owner=WEB), False),  # she may be in the group
        (OLD._replace(mode=0o440), OLD._replace(mode=0o440, group=WEB), False),
        (OLD._replace(mode=0o604), OLD._replace(mode=0o604, group=WEB), False),  # its members may read now
        (OLD._replace(mode=0o644), OLD._replace(mode=0o644, group=WEB), True),
        (OLD._replace(mode=0o400), OLD._replace(mode=0o400, owner=WEB), False),
        (OLD._replace(mode=0o066), OLD._replace(mode=0o066, owner=WEB), True),
        (OLD._replace(mode=0o044), OLD._replace(mode=0o044, owner=WEB), True),
    ],
)
def test_which_new_file_may_take_the_place_of_an_old_one(old: Rights, new: Rights, may: bool) -> None:
    assert may == (rights.reason_against(old, new) == "")


def test_a_group_that_the_system_knows_of_counts_for_the_owner(monkeypatch: pytest.MonkeyPatch) -> None:
    new = OLD._replace(owner=WEB)
    for groups, may in ((None, False), ([ALICE], False), ([ALICE, SHARED], True)):
        monkeypatch.setattr(rights, "_groups_of", lambda user, groups=groups: groups)
        assert may == (rights.reason_against(OLD, new) == "")


@pytest.mark.parametrize(
    ("named", "may"),
    [
        ({"user_61001": 6}, True),
        ({"user_61001": 4}, False),
        ({"user_61002": 6}, False),
        ({"group_61001": 6}, False),  # whether she is in her own group is not known
    ],
)
def test_an_entry_for_the_owner_counts(named: dict[str, int], may: bool) -> None:
    old = Rights(ALICE, SHARED, 0o660, access_list(0o600, **named))
    assert may == (rights.reason_against(old, old._replace(owner=WEB)) == "")


# ------------------------------------------------------------------ commands, and lock files


def test_an_export_over_a_file_leaves_it_to_whom_it_was(tmp_path: Path) -> None:
    (tmp_path / "state.yaml").write_bytes(b"n: 1\n")
    target = tmp_path / "out.json"
    target.write_bytes(b"{}\n")
    if ROOT:
        os.chown(target, ALICE, SHARED)
    set_access(target, 0o640, user_61003=4)
    set_default_access(tmp_path, 0o777, user_61002=7)
    before = rights_of(target)
    assert main(["export", "--force", str(tmp_path / "state.yaml"), str(target)]) == 0
    assert b'"n": 1' in target.read_bytes()
    assert before == rights_of(target)


@needs_users
def test_repair_leaves_the_file_to_whom_it_was(shared: Path) -> None:
    path = shared / "state.yaml"
    make(path, ALICE, SHARED, 0o640)
    path.write_bytes(b"a: 1\nb: [\n")
    set_default_access(shared, 0o777, user_61003=7)
    before = rights_of(path)
    assert main(["repair", "--salvage", "--yes", str(path)]) == 0
    assert before == rights_of(path)
    copy = shared / "state.yaml.before-repair"
    assert 0o600 == stat.S_IMODE(copy.stat().st_mode)


@needs_users
@pytest.mark.parametrize("locking", ["filelock", "portalocker"])
@pytest.mark.parametrize("umask", [0o022, 0o077])
def test_a_lock_file_of_another_user_is_an_error_with_advice(shared: Path, locking: Any, umask: int) -> None:
    __import__(locking)
    path = shared / "state.yaml"
    make(path, ALICE, ALICE, 0o666)

    def commits() -> None:
        with PersistedState.open(path, locking=locking) as state:
            state.n = 2

    def is_refused() -> None:
        state = PersistedState.open(path, locking=locking)
        for change in (lambda: state.__setitem__("n", 3), lambda: state.transaction().__enter__(), state.vacuum):
            with pytest.raises(ReadOnlyError, match=rf"lock file {path}.lock .*user {CAROL}.*chmod.*locking=\"file\""):
                change()
        assert state.n == 2
        state.close()

    as_user(CAROL, commits, umask=umask)
    as_user(WEB, is_refused)


@needs_users
@pytest.mark.parametrize("locking", ["filelock", "portalocker"])
def test_a_lock_file_that_its_owner_shares_is_used(shared: Path, locking: Any) -> None:
    __import__(locking)
    path = shared / "state.yaml"
    make(path, ALICE, SHARED, 0o666)
    lock_file = shared / "state.yaml.lock"
    lock_file.touch()
    os.chown(lock_file, CAROL, SHARED)
    lock_file.chmod(0o660)

    def commits() -> None:
        with PersistedState.open(path, locking=locking) as state:
            state.n += 1

    as_user(ALICE, commits, SHARED)
    as_user(WEB, commits, SHARED)
    assert {"n": 3} == yaml.safe_load(path.read_bytes())


def test_the_real_seam_gives_what_the_simulated_one_gives(tmp_path: Path) -> None:
    """Mode and owner of another file, and nothing of its content."""
    old, new = tmp_path / "old", tmp_path / "new"
    old.write_bytes(b"old")
    old.chmod(0o604)
    new.write_bytes(b"new")
    first, second = os.open(old, os.O_RDONLY), os.open(new, os.O_RDWR)
    FileSystem().copy_attributes(first, second)
    os.close(first)
    os.close(second)
    assert (rights_of(old), b"new") == (rights_of(new), new.read_bytes())
    assert "linux" != sys.platform or subprocess.run(["test", "-O", str(new)], check=False).returncode == 0
