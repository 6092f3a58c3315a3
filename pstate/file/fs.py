"""The seam to the operating system: every system call that the store makes, under one name each.

The default binds the functions of `os` once, so that the seam costs one attribute. A test double has the same names.
Differences between systems are decided here.
"""

from __future__ import annotations

import errno
import os
import stat
import sys
import time
from collections import deque
from collections.abc import Callable
from functools import lru_cache, partial
from typing import Any, ClassVar, Protocol, TypeAlias
from weakref import WeakValueDictionary

from pstate.file import rights
from pstate.logger import Logger
from pstate.signals import came_from_handler, expected, tolerating

logger = Logger("pstate.file.fs")

UNKNOWN_BOOT = "00000000"
#: Means "not open". No system gives this number, and every call fails with EBADF for it; for -1, some raise ValueError.
NO_DESCRIPTOR = (1 << 31) - 1
#: Standard error. Programs redirect the descriptors up to this one, and print to them.
_LAST_STANDARD = 2
#: The process has no descriptor, or no memory, left: nothing is wrong with the file that is being opened.
SHORTAGE = (errno.EMFILE, errno.ENFILE, errno.ENOMEM)


def is_shortage(error: Exception) -> bool:
    """Whether *error* says that this process has no descriptor left, so that nothing is wrong with the file."""
    return isinstance(error, OSError) and error.errno in SHORTAGE


#: Device and inode number of an open file, and the flags that it was opened with.
Identity: TypeAlias = tuple[int, int, int]
_NO_REPLACE, _EXCHANGE = 1, 2  # linux/fs.h: RENAME_NOREPLACE, RENAME_EXCHANGE
_ON_MACOS = {_NO_REPLACE: 4, _EXCHANGE: 2}  # <stdio.h>: RENAME_EXCL, RENAME_SWAP
_AT_FDCWD = -100
#: The errors of `exchange` and `rename_new` if the system does not have them, or if a filter of system calls does not
#: know them (EPERM in older container runtimes). After a real refusal, the plain rename that follows fails as well.
NO_SUCH_RENAME = frozenset({errno.ENOSYS, errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EPERM, errno.EACCES})
#: The errors of giving a file away, and of extended attributes, if that is not permitted or not possible.
_NOT_POSSIBLE = frozenset(
    {
        errno.EPERM, errno.EACCES, errno.EINVAL, errno.EOVERFLOW, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS,
        getattr(errno, "ENODATA", errno.EPERM),
    }
)  # fmt: skip
#: The flags for each file beside a state: do not follow a link, do not wait for the other end of a pipe, and do not
#: make it the terminal of the program.
_BESIDE = os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY
_NO_FILE = {
    errno.ELOOP: "is a symbolic link",
    errno.EMLINK: "is a symbolic link",  # on FreeBSD
    errno.EISDIR: "is a folder",
    errno.ENXIO: "is not a regular file",
    errno.ENODEV: "is not a regular file",
    errno.EAGAIN: "is kept closed by a lease of another process",
}
#: `struct flock` on 64-bit Linux: kind, whence, start, length, process.
_FLOCK = "hhqqi4x"
#: The positions, beyond the end of any file, whose locks mean "watched" and "a process waits for the write lock".
_WATCHED, WAITED_FOR = 1 << 62, (1 << 62) + 1
_FAR = (b"nfs", b"cifs", b"smb", b"9p", b"afs", b"ceph", b"lustre")


class Descriptor:
    """At most one open descriptor: noted in the C call that opens it, removed in the one that closes it.

    A signal handler runs between two bytecodes. Whatever it raises, the descriptor is either in here, and is closed
    with this object, or it is closed already. It is never closed twice: its number may be another file by then.

    That can also happen without us: programs such as daemons close all descriptors, and the system gives the numbers
    out again. A number is ours only as long as it means the file that we opened, with the flags that we used.
    """

    __slots__ = ("__del__", "__weakref__", "_close", "_fs", "_noted", "_path", "identity")

    def __init__(self, fs: FileSystem) -> None:
        self._noted: list[int] = []
        # The finalizer is one C call as well: a signal could come at the first instruction of a function.
        self.__del__: Callable[[], object] = partial(deque, map(fs.close, self._noted), 0)
        self._fs = fs
        self._close = fs.close
        self.identity: Identity | None = None

    def __bool__(self) -> bool:
        return bool(self._noted)

    @property
    def number(self) -> int:
        """The number of the descriptor; `NO_DESCRIPTOR` if it is closed or lost."""
        return self._noted[0] if self._noted else NO_DESCRIPTOR

    def open(self, path: str, flags: int, mode: int = 0, keeper: Losing | None = None) -> int:
        """Open *path*, never for the programs that we start, nor as one of the three standard streams.

        If the system gives the number out again, `lose` of *keeper*, or else of this object, is called. Raises the
        errors of the system.
        """
        self._path = path
        self.identity = None
        self._noted.extend(map(self._fs.open, (path,), (flags | getattr(os, "O_CLOEXEC", 0),), (mode,)))
        if self._noted[0] <= _LAST_STANDARD:
            self._move_up()
        number = self._noted[0]
        self.identity = self._fs.identity(number)
        before = self._fs.keepers.get(number)
        self._fs.keepers[number] = keeper or self
        if before is not None and before is not self:
            before.lose(number)
        return number

    def _move_up(self) -> None:
        """Replace the number of a standard stream that was closed: code that prints to it must not meet our file."""
        try:
            while self._noted[-1] <= _LAST_STANDARD:
                self._noted.extend(map(os.dup, self._noted[-1:]))
        except BaseException:
            self.close()
            raise
        while len(self._noted) > 1:
            next(map(self._close, map(self._noted.pop, (0,))))

    def is_ours(self) -> bool:
        """Whether the number still means the file that we opened."""
        if not self._noted:
            return False
        if self.identity is None:
            return True  # just opened
        try:
            return self._fs.identity(self._noted[0]) == self.identity
        except IndexError:
            return False  # another thread closed it meanwhile
        except expected(OSError):
            return True  # it is open, and the system does not say more

    def lose(self, number: int) -> None:
        """Forget *number*, if that is ours, without closing it: it means another file by now."""
        if number in self._noted:
            self._noted.clear()

    def close(self) -> None:
        """Close it if it is open, and ours. An error of the system is only logged: the descriptor is closed anyway."""
        if not self.is_ours():
            self._noted.clear()
        while self._noted:
            try:
                next(map(self._close, iter(self._noted.pop, None)))
            except IndexError:
                pass  # another thread closed it meanwhile
            except expected(OSError) as error:
                logger.warning("%s: the system reported an error when the file was closed: %s", self._path, error)


class NotOurs(OSError):
    """A file with a name that we use beside a state is not ours: `strerror` says why."""


def open_beside(
    fs: FileSystem, file: Descriptor, path: str, flags: int, mode: int = 0, keeper: Losing | None = None
) -> os.stat_result:
    """Open the file *path* beside a state into *file*. This package opens all such files here.

    In a folder where others may write, anything can have that name. Raises NotOurs if it is not a regular file, and any
    other error of the system. `must_be_ours` checks whether it is a file of ours.
    """
    try:
        fd = file.open(path, flags | _BESIDE, mode, keeper)
    except expected(OSError) as error:
        if error.errno not in _NO_FILE:
            raise
        raise NotOurs(error.errno, _NO_FILE[error.errno], path) from error
    status = fs.fstat(fd)
    if not stat.S_ISREG(status.st_mode):
        file.close()
        raise NotOurs(errno.EEXIST, "is a folder" if stat.S_ISDIR(status.st_mode) else "is not a regular file", path)
    return status


def must_be_ours(fs: FileSystem, path: str, status: os.stat_result, owner: int) -> None:
    """Raise NotOurs unless the file *path* with *status* belongs to *owner*, the state's, or to this process's user."""
    if status.st_uid not in (owner, fs.user()):
        raise NotOurs(errno.EEXIST, f"belongs to user {status.st_uid}", path)


class Losing(Protocol):
    """An object with a descriptor. Its method is called when the number no longer belongs to it."""

    def lose(self, number: int) -> None:
        """Forget *number* without closing it, if it is the one of this object."""
        ...


class FileSystem:
    """The real operating system."""

    #: The objects that have the descriptors. An outdated entry does no harm.
    keepers: ClassVar[WeakValueDictionary[int, Losing]] = WeakValueDictionary()

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
        #: The path without symbolic links, also of a file that does not exist.
        self.real_path: Callable[[str], str] = real_path
        #: For a double with locks of its own; None means those of the system, which `lock` calls.
        self.flock: Callable[[int, int], None] | None = None
        #: The user who owns the files that this process makes.
        self.user: Callable[[], int] = os.geteuid
        self._boot = ""
        self.clock: Callable[[], float] = time.monotonic
        self.sleep: Callable[[float], None] = time.sleep
        #: The clock that the time stamps of files are compared with, in seconds since 1970.
        self.wall: Callable[[], float] = time.time

    def exchange(self, first: str, second: str) -> None:
        """Swap the files of two paths, in one step. Raises OSError of `NO_SUCH_RENAME` if the system cannot."""
        _rename(first, second, _EXCHANGE)

    def rename_new(self, source: str, target: str) -> None:
        """Rename *source*, in one step, to a path that does not exist. Raises FileExistsError if it exists.

        Raises OSError of `NO_SUCH_RENAME` if the system cannot.
        """
        _rename(source, target, _NO_REPLACE)

    def sync_folder(self, path: str) -> None:
        """Bring the entries of the folder to stable storage. Does nothing if a folder cannot be opened."""
        folder = Descriptor(SYSTEM)
        try:
            try:
                fd = folder.open(path, os.O_RDONLY | getattr(os, "O_DIRECTORY", 0))
            except expected(PermissionError):
                return  # Windows does not open folders, and a folder may be searchable but not readable
            except expected(OSError) as error:
                if error.errno not in SHORTAGE:
                    raise
                os.sync()  # needs no descriptor; the file was replaced already, and nothing else syncs that
                return
            os.fsync(fd)
        finally:
            folder.close()

    def identity(self, fd: int) -> Identity | None:
        """The file that *fd* means, and the flags that it was opened with; None if *fd* is closed."""
        try:
            status = os.fstat(fd)
            return status.st_dev, status.st_ino, _how_opened(fd)
        except expected(OSError) as error:
            if error.errno != errno.EBADF:
                raise
            return None

    def copy_attributes(self, source: int, target: int) -> None:
        """Give *target*, a file that no other program knows yet, the rights and attributes of *source*, and no others.

        Attributes that come from the folder, such as a default access control list, are removed. An extended attribute
        that only the system may set is left as it is, and so is an owner that we may not set, or that has no number in
        this user namespace. Raises PermissionError if a user would have different rights in *target* because of that
        (`rights.reason_against`); then only its owner may read and write it.
        """
        old = os.fstat(source)
        mode = stat.S_IMODE(old.st_mode)
        # The group by itself: a member may set it, even if only root may set the owner.
        _try(os.fchown, target, -1, old.st_gid)
        # Before the mode, which would let in the users that the folder's default list names.
        _copy_extended(source, target)
        _try(os.fchmod, target, mode)
        # Last: to set the others, we must own it.
        _try(os.fchown, target, old.st_uid, -1)
        new = os.fstat(target)
        if stat.S_IMODE(new.st_mode) != mode:
            _try(os.fchmod, target, mode)  # the change of owner has cleared the set-id bits
            new = os.fstat(target)
        reason = rights.reason_against(_rights(source, old), _rights(target, new))
        if reason:
            if hasattr(os, "removexattr"):
                _try(os.removexattr, target, rights.ACCESS_LIST)
            os.fchmod(target, 0o600)
            raise PermissionError(errno.EPERM, reason)

    def watch(self, fd: int) -> None:
        """Mark the file of *fd* as watched, for all that have it open, until `unwatch` or the end of this process."""
        set_mark(fd, _WATCHED)

    def unwatch(self, fd: int) -> None:
        """End `watch`. Harmless without one."""
        clear_mark(fd, _WATCHED)

    def is_watched(self, fd: int) -> bool:
        """Whether another process watches the file of *fd*; always false if the system cannot tell."""
        return has_mark(fd, _WATCHED)

    def boot_id(self) -> str:
        """8 hex digits that change with every boot; zeros if the system does not say."""
        if not self._boot:
            try:
                self._boot = told("/proc/sys/kernel/random/boot_id", 8).decode("ascii")
            except expected(OSError) as error:
                if error.errno in SHORTAGE:
                    return UNKNOWN_BOOT  # only this time
                self._boot = UNKNOWN_BOOT
        return self._boot

    def token(self) -> str:
        """8 random hex digits."""
        return os.urandom(4).hex()


def real_path(path: str) -> str:
    """`os.path.realpath`, but an exception of a signal handler propagates; that function takes it for a missing link.

    Most paths have no link in them. Then this makes the same system calls, and does little else.
    """
    try:
        return path if _is_real(path) else os.path.realpath(path, strict=True)
    except expected(OSError):
        return os.path.realpath(path)


def _is_real(path: str) -> bool:
    """Whether *path* is certainly its own `os.path.realpath`. Raises the errors of the system."""
    if os.sep != "/" or path[:1] != "/" or path[:2] == "//" or os.path.normpath(path) != path:
        return False
    end = 0
    while end >= 0:
        end = path.find("/", end + 1)
        if stat.S_ISLNK(os.lstat(path if end < 0 else path[:end]).st_mode):
            return False
    return True


def is_folder(path: str) -> bool:
    """`os.path.isdir`, but an exception of a signal handler propagates; that function takes it for a no."""
    try:
        return stat.S_ISDIR(os.stat(path).st_mode)
    except expected(OSError):
        return False


def told(path: str, at_most: int | None = None) -> bytes:
    """The content, or the first bytes, of *path*, a file that the system makes. Raises the errors of the system."""
    file = Descriptor(SYSTEM)
    try:
        fd = file.open(path, os.O_RDONLY)
        if at_most is not None:
            return os.read(fd, at_most)
        return b"".join(iter(partial(os.read, fd, 1 << 16), b""))
    finally:
        file.close()


def _how_opened(fd: int) -> int:
    """The flags that *fd* was opened with: two descriptors of one file are not the same."""
    try:
        import fcntl
    except ImportError:  # Windows
        return 0
    return fcntl.fcntl(fd, fcntl.F_GETFL)


def _full_sync(fd: int) -> None:
    import fcntl

    fcntl.fcntl(fd, getattr(fcntl, "F_FULLFSYNC", 51))


def set_mark(fd: int, byte: int) -> None:
    """Set a mark at *byte* that all processes with the file of *fd* open can find.

    It stays until `clear_mark` or the end of this process.
    """
    if not _is_far(os.fstat(fd).st_dev):
        _lock_byte(fd, byte, "F_OFD_SETLK", "F_RDLCK")


def clear_mark(fd: int, byte: int) -> None:
    """End `set_mark`. Harmless without one."""
    _lock_byte(fd, byte, "F_OFD_SETLK", "F_UNLCK")


def has_mark(fd: int, byte: int) -> bool:
    """Whether another process has set a mark at *byte*; always false if the system cannot tell."""
    return _lock_byte(fd, byte, "F_OFD_GETLK", "F_WRLCK")


def _lock_byte(fd: int, byte: int, command: str, kind: str) -> bool:
    """Call `fcntl` for one *byte*; returns whether it is locked.

    Such a lock is independent of `flock`, needs no permission to write, and ends with its holder.
    """
    import fcntl
    import struct

    if not hasattr(fcntl, command):
        return False  # only Linux has locks that belong to a descriptor
    request = struct.pack(_FLOCK, getattr(fcntl, kind), os.SEEK_SET, byte, 1, 0)
    with tolerating(OSError):  # not every file system has them
        (held, *_) = struct.unpack(_FLOCK, fcntl.fcntl(fd, getattr(fcntl, command), request))
        return bool(held != fcntl.F_UNLCK)
    return False


def _is_far(device: int) -> bool:
    """Whether *device* is a network file system: there, `flock` locks all bytes, and a mark would exclude writers."""
    try:
        return _is_mounted_from_far(device)
    except expected(OSError):
        return False


@lru_cache(maxsize=16)
def _is_mounted_from_far(device: int) -> bool:
    name = f" {os.major(device)}:{os.minor(device)} ".encode()
    parts = [line.partition(b" - ") for line in told("/proc/self/mountinfo").splitlines()]
    return any(kind.startswith(_FAR) for place, _, kind in parts if name in place)


def _try(call: Callable[..., Any], *arguments: Any) -> Any:
    """What *call* returns; None if the system says that this is not permitted, or not possible."""
    try:
        return call(*arguments)
    except expected(OSError) as error:
        if error.errno not in _NOT_POSSIBLE:
            raise
        return None


def _rights(fd: int, status: os.stat_result) -> rights.Rights:
    access_list = _attribute(fd, rights.ACCESS_LIST) or b""
    return rights.Rights(status.st_uid, status.st_gid, stat.S_IMODE(status.st_mode), access_list)


def _copy_extended(source: int, target: int) -> None:
    """Make the extended attributes of *target* those of *source*, as far as permitted."""
    if not hasattr(os, "listxattr"):
        return
    old, new = _attributes(source), _attributes(target)
    for name in new.keys() - old.keys():
        _try(os.removexattr, target, name)
    for name, value in old.items():
        if new.get(name) != value:
            _try(os.setxattr, target, name, value)


def _attributes(fd: int) -> dict[str, bytes]:
    """All extended attributes, with the access control list, which not every file system lists."""
    names = {rights.ACCESS_LIST, *(_try(os.listxattr, fd) or ())}
    found = {name: _attribute(fd, name) for name in names}
    return {name: value for name, value in found.items() if value is not None}


def _attribute(fd: int, name: str) -> bytes | None:
    value: bytes | None = _try(os.getxattr, fd, name) if hasattr(os, "getxattr") else None
    return value


_libc: Any = None


def _rename(first: str, second: str, flag: int) -> None:
    """`renameat2` of Linux, or `renamex_np` of macOS. Python has neither.

    Raises OSError, with ENOSYS also if this Python was built without ctypes, or cannot use it.
    """
    libc = _library(first)
    import ctypes

    a, b = os.fsencode(first), os.fsencode(second)
    if hasattr(libc, "renameat2"):
        failed = libc.renameat2(_AT_FDCWD, a, _AT_FDCWD, b, flag)
    elif hasattr(libc, "renamex_np"):
        failed = libc.renamex_np(a, b, _ON_MACOS[flag])
    else:
        raise OSError(errno.ENOSYS, "the system has no such rename", first)
    if failed:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), first)


def _library(path: str) -> Any:
    """The C library, by ctypes. That takes milliseconds to import, and only a vacuum needs it."""
    global _libc
    if _libc is None:
        try:
            import ctypes
        except expected(ImportError, MemoryError) as error:  # MemoryError: memory must not be made executable
            raise OSError(errno.ENOSYS, f"this Python has no such rename without ctypes ({error})", path) from error
        try:
            _libc = ctypes.CDLL(None, use_errno=True)
        except OSError as error:  # it has no number, so `expected` would take it for one of a signal handler
            if came_from_handler(error):
                raise
            raise OSError(errno.ENOSYS, f"this Python has no such rename ({error})", path) from error
    return _libc


SYSTEM = FileSystem()
