"""The seam to the operating system: every system call that the store makes, under one name each.

The default binds the functions of `os` once, so that going through the seam costs one attribute. A test double has
the same names. Whatever differs between systems is decided here.
"""

from __future__ import annotations

import contextlib
import errno
import os
import sys
import time
from collections.abc import Callable
from typing import Any

UNKNOWN_BOOT = "00000000"
_RENAME_EXCHANGE = 2  # linux/fs.h
_RENAME_SWAP = 2  # <stdio.h> of macOS
_AT_FDCWD = -100


class FileSystem:
    """The real one."""

    def __init__(self) -> None:
        self.open: Callable[[str, int, int], int] = os.open
        self.close: Callable[[int], None] = os.close
        self.lseek: Callable[[int, int, int], int] = os.lseek
        self.pread: Callable[[int, int, int], bytes] = os.pread
        self.write: Callable[[int, bytes], int] = os.write
        self.truncate: Callable[[int, int], None] = os.ftruncate
        self.sync: Callable[[int], None] = os.fsync
        # macOS has no fdatasync in Python; its fsync leaves the data in the drive's cache, F_FULLFSYNC does not.
        self.sync_data: Callable[[int], None] = getattr(os, "fdatasync", os.fsync)
        if sys.platform == "darwin":
            self.sync = self.sync_data = _full_sync
        self.stat: Callable[[str], os.stat_result] = os.stat
        self.fstat: Callable[[int], os.stat_result] = os.fstat
        self.rename: Callable[[str, str], None] = os.replace
        self.unlink: Callable[[str], None] = os.unlink
        #: For a double with locks of its own; None means those of the system, which are the business of `lock`.
        self.flock: Callable[[int, int], None] | None = None
        self._boot = ""
        self.clock: Callable[[], float] = time.monotonic
        self.sleep: Callable[[float], None] = time.sleep

    def exchange(self, first: str, second: str) -> None:
        """Swap what two paths name, in one step. Raises OSError (ENOSYS, EINVAL) where the system cannot."""
        _exchange(first, second)

    def sync_folder(self, path: str) -> None:
        """Bring the folder's own entries to stable storage. Nothing to do where a folder cannot be opened."""
        opened: list[int] = []
        try:
            flags = os.O_RDONLY | getattr(os, "O_DIRECTORY", 0) | getattr(os, "O_CLOEXEC", 0)
            # One C call, so that a descriptor is noted before a signal handler can run.
            opened.extend(map(os.open, (path,), (flags,)))
            os.fsync(opened[0])
        except PermissionError:
            # Windows opens no folders, and a folder may be searchable without being readable.
            if opened:
                raise
        finally:
            for fd in opened:
                os.close(fd)

    def copy_attributes(self, source: int, target: int) -> None:
        """Give the file behind *target* the mode, owner and extended attributes of the one behind *source*.

        The owner first: changing it clears set-id bits. An owner that we may not give, and an attribute that the file
        system does not take, are left: a state that is read by fewer people is a smaller harm than a failed vacuum.
        """
        status = os.fstat(source)
        # The group by itself: a member may give it where nobody may give the owner.
        with contextlib.suppress(PermissionError):
            os.fchown(target, -1, status.st_gid)
        with contextlib.suppress(PermissionError):
            os.fchown(target, status.st_uid, -1)
        os.fchmod(target, status.st_mode & 0o7777)
        if hasattr(os, "listxattr"):
            try:
                for name in os.listxattr(source):
                    os.setxattr(target, name, os.getxattr(source, name))
            except OSError as error:
                if error.errno not in (errno.ENOTSUP, errno.EPERM, errno.ENODATA, errno.EACCES, errno.EINVAL):
                    raise

    def boot_id(self) -> str:
        """8 hex digits that change with every boot; zeros where the system does not say."""
        if not self._boot:
            self._boot = self._read_boot_id()
        return self._boot

    def _read_boot_id(self) -> str:
        opened: list[int] = []
        try:
            opened.extend(map(os.open, ("/proc/sys/kernel/random/boot_id",), (os.O_RDONLY,)))  # as in `sync_folder`
            return os.read(opened[0], 8).decode("ascii")
        except OSError:
            return UNKNOWN_BOOT
        finally:
            for fd in opened:
                os.close(fd)

    def token(self) -> str:
        """8 random hex digits."""
        return os.urandom(4).hex()


def _full_sync(fd: int) -> None:
    import fcntl

    fcntl.fcntl(fd, getattr(fcntl, "F_FULLFSYNC", 51))


_libc: Any = None


def _exchange(first: str, second: str) -> None:
    """`renameat2(RENAME_EXCHANGE)` of Linux, `renamex_np(RENAME_SWAP)` of macOS; Python binds neither."""
    global _libc
    import ctypes  # takes milliseconds to import, and only a vacuum needs it

    if _libc is None:
        _libc = ctypes.CDLL(None, use_errno=True)
    a, b = os.fsencode(first), os.fsencode(second)
    if hasattr(_libc, "renameat2"):
        failed = _libc.renameat2(_AT_FDCWD, a, _AT_FDCWD, b, _RENAME_EXCHANGE)
    elif hasattr(_libc, "renamex_np"):
        failed = _libc.renamex_np(a, b, _RENAME_SWAP)
    else:
        raise OSError(errno.ENOSYS, "the system exchanges no files", first)
    if failed:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), first)


SYSTEM = FileSystem()
