"""The seam to the operating system: every system call that the store makes, under one name each.

The default binds the functions of `os` once, so that going through the seam costs one attribute. A test double has
the same names. Whatever differs between systems is decided here.
"""

from __future__ import annotations

import errno
import os
import stat
import sys
import time
from collections.abc import Callable
from functools import lru_cache, partial
from typing import Any

from pstate.logger import Logger
from pstate.signals import expected, tolerating

logger = Logger("pstate.fs")

UNKNOWN_BOOT = "00000000"
_NO_REPLACE, _EXCHANGE = 1, 2  # linux/fs.h: RENAME_NOREPLACE, RENAME_EXCHANGE
_ON_MACOS = {_NO_REPLACE: 4, _EXCHANGE: 2}  # <stdio.h>: RENAME_EXCL, RENAME_SWAP
_AT_FDCWD = -100
#: `struct flock` on 64-bit Linux: kind, whence, start, length, process; and what stands for "watched".
_FLOCK, _WATCHED_BYTE = "hhqqi4x", 1 << 62
_FAR = (b"nfs", b"cifs", b"smb", b"9p", b"afs", b"ceph", b"lustre")


class Descriptor:
    """At most one open descriptor: noted in the C call that opens it, taken back in the one that closes it.

    A signal handler runs between two bytecodes. Whatever it raises, the descriptor is in here, and closed with us, or
    it is closed, and never twice: its number may be somebody else's file by then.
    """

    __slots__ = ("__del__", "_close", "_noted", "_open", "_path")

    def __init__(self, opening: Callable[[str, int, int], int], closing: Callable[[int], None]) -> None:
        self._noted: list[int] = []
        # The finalizer is one C call as well: the first instruction of a function would be a place for signals.
        self.__del__ = partial(next, map(closing, self._noted), None)
        self._open = opening
        self._close = closing

    def __bool__(self) -> bool:
        return bool(self._noted)

    @property
    def number(self) -> int:
        """What the system calls it; -1 when it is closed."""
        return self._noted[0] if self._noted else -1

    def open(self, path: str, flags: int, mode: int = 0) -> int:
        """Open *path*, never for the programs that we start. Raises what the system says."""
        self._path = path
        self._noted.extend(map(self._open, (path,), (flags | getattr(os, "O_CLOEXEC", 0),), (mode,)))
        return self._noted[0]

    def close(self) -> None:
        """Close it if it is open. That the system complains is only logged: the descriptor is gone all the same."""
        while self._noted:
            try:
                next(map(self._close, iter(self._noted.pop, None)))
            except IndexError:
                pass  # another thread closed it meanwhile
            except expected(OSError) as error:
                logger.warning("%s: closing it failed: %s", self._path, error)


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
        #: The path without symbolic links; of a path where nothing is, too.
        self.real_path: Callable[[str], str] = real_path
        #: For a double with locks of its own; None means those of the system, which are the business of `lock`.
        self.flock: Callable[[int, int], None] | None = None
        self._boot = ""
        self.clock: Callable[[], float] = time.monotonic
        self.sleep: Callable[[float], None] = time.sleep
        #: What the time stamps of files are compared with, in seconds since 1970.
        self.wall: Callable[[], float] = time.time

    def exchange(self, first: str, second: str) -> None:
        """Swap what two paths name, in one step. Raises OSError (ENOSYS, EINVAL) where the system cannot."""
        _rename(first, second, _EXCHANGE)

    def rename_new(self, source: str, target: str) -> None:
        """Rename *source*, in one step, to a path where nothing is. Raises FileExistsError where something is.

        Raises OSError (ENOSYS, EINVAL) where the system cannot.
        """
        _rename(source, target, _NO_REPLACE)

    def sync_folder(self, path: str) -> None:
        """Bring the folder's own entries to stable storage. Nothing to do where a folder cannot be opened."""
        folder = Descriptor(os.open, os.close)
        try:
            try:
                fd = folder.open(path, os.O_RDONLY | getattr(os, "O_DIRECTORY", 0))
            except expected(PermissionError):
                return  # Windows opens no folders, and a folder may be searchable without being readable
            os.fsync(fd)
        finally:
            folder.close()

    def copy_attributes(self, source: int, target: int) -> None:
        """Give the file behind *target* the mode, owner and extended attributes of the one behind *source*.

        The owner first: changing it clears set-id bits. An owner that we may not give, and an attribute that the file
        system does not take, are left: a state that is read by fewer people is a smaller harm than a failed vacuum.
        """
        status = os.fstat(source)
        # The group by itself: a member may give it where nobody may give the owner.
        with tolerating(PermissionError):
            os.fchown(target, -1, status.st_gid)
        with tolerating(PermissionError):
            os.fchown(target, status.st_uid, -1)
        os.fchmod(target, status.st_mode & 0o7777)
        if hasattr(os, "listxattr"):
            try:
                for name in os.listxattr(source):
                    os.setxattr(target, name, os.getxattr(source, name))
            except expected(OSError) as error:
                if error.errno not in (errno.ENOTSUP, errno.EPERM, errno.ENODATA, errno.EACCES, errno.EINVAL):
                    raise

    def watch(self, fd: int) -> None:
        """Let everybody who has the file behind *fd* open find that it is watched, until `unwatch`, or our death."""
        if not _is_far(os.fstat(fd).st_dev):
            _watch_lock(fd, "F_OFD_SETLK", "F_RDLCK")

    def unwatch(self, fd: int) -> None:
        """End `watch`. Nothing happens where there was none."""
        _watch_lock(fd, "F_OFD_SETLK", "F_UNLCK")

    def is_watched(self, fd: int) -> bool:
        """Whether somebody else watches the file behind *fd*; never where the system cannot tell."""
        return _watch_lock(fd, "F_OFD_GETLK", "F_WRLCK")

    def boot_id(self) -> str:
        """8 hex digits that change with every boot; zeros where the system does not say."""
        if not self._boot:
            self._boot = self._read_boot_id()
        return self._boot

    def _read_boot_id(self) -> str:
        file = Descriptor(os.open, os.close)
        try:
            return os.read(file.open("/proc/sys/kernel/random/boot_id", os.O_RDONLY), 8).decode("ascii")
        except expected(OSError):
            return UNKNOWN_BOOT
        finally:
            file.close()

    def token(self) -> str:
        """8 random hex digits."""
        return os.urandom(4).hex()


def real_path(path: str) -> str:
    """`os.path.realpath`, which takes the exception of a signal handler for a sign that there is no link."""
    try:
        return os.path.realpath(path, strict=True)
    except expected(OSError):
        return os.path.realpath(path)


def is_folder(path: str) -> bool:
    """`os.path.isdir`, which takes the exception of a signal handler for a no."""
    try:
        return stat.S_ISDIR(os.stat(path).st_mode)
    except expected(OSError):
        return False


def _full_sync(fd: int) -> None:
    import fcntl

    fcntl.fcntl(fd, getattr(fcntl, "F_FULLFSYNC", 51))


def _watch_lock(fd: int, command: str, kind: str) -> bool:
    """Call `fcntl` for the one byte, where no file has any, that stands for "watched"; returns whether it is locked.

    Such a lock has nothing to do with `flock`, needs no permission to write, and dies with its holder.
    """
    import fcntl
    import struct

    if not hasattr(fcntl, command):
        return False  # only Linux has locks that belong to a descriptor
    request = struct.pack(_FLOCK, getattr(fcntl, kind), os.SEEK_SET, _WATCHED_BYTE, 1, 0)
    with tolerating(OSError):  # not every file system knows them
        (held, *_) = struct.unpack(_FLOCK, fcntl.fcntl(fd, getattr(fcntl, command), request))
        return bool(held != fcntl.F_UNLCK)
    return False


@lru_cache(maxsize=16)
def _is_far(device: int) -> bool:
    """Whether *device* is a network file system: there, `flock` locks all bytes, and we would keep writers off."""
    name = f" {os.major(device)}:{os.minor(device)} ".encode()
    file = Descriptor(os.open, os.close)
    try:
        fd = file.open("/proc/self/mountinfo", os.O_RDONLY)
        mounts = b"".join(iter(partial(os.read, fd, 1 << 16), b""))
    except expected(OSError):
        return False
    finally:
        file.close()
    parts = [line.partition(b" - ") for line in mounts.splitlines()]
    return any(kind.startswith(_FAR) for place, _, kind in parts if name in place)


_libc: Any = None


def _rename(first: str, second: str, flag: int) -> None:
    """`renameat2` of Linux, `renamex_np` of macOS; Python binds neither."""
    global _libc
    import ctypes  # takes milliseconds to import, and only a vacuum needs it

    if _libc is None:
        _libc = ctypes.CDLL(None, use_errno=True)
    a, b = os.fsencode(first), os.fsencode(second)
    if hasattr(_libc, "renameat2"):
        failed = _libc.renameat2(_AT_FDCWD, a, _AT_FDCWD, b, flag)
    elif hasattr(_libc, "renamex_np"):
        failed = _libc.renamex_np(a, b, _ON_MACOS[flag])
    else:
        raise OSError(errno.ENOSYS, "the system cannot rename like that", first)
    if failed:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), first)


SYSTEM = FileSystem()
