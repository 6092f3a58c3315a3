"""What the tests of several users share: a folder that all of them reach, and code that runs as one of them."""

from __future__ import annotations

import os
import shutil
import struct
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

# Imported late, and from where other users may not read.
import pstate.file.edits
import pstate.file.legacy
import pstate.file.lock_objects
import pstate.text.events
import pstate.text.splice
import pstate.watch  # noqa: F401
from tools.crash import in_child

ALICE, WEB, CAROL, SHARED = 61001, 61002, 61003, 62000  #: numbers that no system gives to its users

ROOT = hasattr(os, "geteuid") and os.geteuid() == 0
needs_users = pytest.mark.skipif(not ROOT, reason="only root becomes other users")

_ACCESS, _DEFAULT = "system.posix_acl_access", "system.posix_acl_default"
_KINDS = {"user": 0x02, "group": 0x08}
_NOBODY = 0xFFFFFFFF


@pytest.fixture
def shared() -> Iterator[Path]:
    """A folder in which every user may write. `tmp_path` lies below one that is only ours."""
    folder = Path(tempfile.mkdtemp(prefix="pstate-test-"))
    folder.chmod(0o777)
    yield folder
    shutil.rmtree(folder)


def as_user(number: int, function: Callable[[], object], *groups: int, umask: int = 0o022) -> None:
    """Run *function* in a child process that is user *number*, in the group of that number and in *groups*."""

    def task() -> None:
        os.setgroups(groups)
        os.setgid(number)
        os.setuid(number)
        os.umask(umask)
        function()

    import ctypes  # noqa: F401, as above
    import logging  # noqa: F401

    assert threading.active_count() == 1 or sys.version_info < (3, 12)
    assert in_child(task) == 0


def access_list(mode: int, **named: int) -> bytes:
    """A POSIX access control list: *mode* for owner, group and others, and entries such as ``user_61003=7``."""
    entries = [(0x01, mode >> 6 & 7, _NOBODY)]
    mask = mode >> 3 & 7
    shared = [(0x04, mode >> 3 & 7, _NOBODY)]
    for name, permissions in named.items():
        kind, number = name.split("_")
        (entries if kind == "user" else shared).append((_KINDS[kind], permissions, int(number)))
        mask |= permissions
    entries += [*shared, (0x10, mask, _NOBODY), (0x20, mode & 7, _NOBODY)]
    return struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *entry) for entry in entries)


def set_access(path: Path, mode: int, **named: int) -> None:
    """Give *path* an access control list."""
    _set(path, _ACCESS, access_list(mode, **named))


def set_default_access(folder: Path, mode: int, **named: int) -> None:
    """Let what is made in *folder* get an access control list."""
    _set(folder, _DEFAULT, access_list(mode, **named))


def access_of(path: Path) -> bytes | None:
    try:
        return os.getxattr(path, _ACCESS)
    except OSError:
        return None


def _set(path: Path, name: str, value: bytes) -> None:
    try:
        os.setxattr(path, name, value)
    except (OSError, AttributeError) as error:
        pytest.skip(f"no access control lists here: {error}")
