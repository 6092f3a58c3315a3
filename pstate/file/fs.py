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
#: Stands for "not open". No system gives this number, and every call says EBADF of it; of -1, some raise ValueError.
NO_DESCRIPTOR = (1 << 31) - 1
#: Standard error. What these three numbers stand for, programs redirect, and print to.
_LAST_STANDARD = 2
#: We have no descriptor, or no memory, left: nothing is wrong with the file that is being opened.
SHORTAGE = (errno.EMFILE, errno.ENFILE, errno.ENOMEM)


def is_shortage(error: Exception) -> bool:
    """Whether *error* says that we have no descriptor left: nobody has done anything to the file."""
    return isinstance(error, OSError) and error.errno in SHORTAGE


#: Device and inode number of an open file, and the flags that it was opened with.
Identity: TypeAlias = tuple[int, int, int]
_NO_REPLACE, _EXCHANGE = 1, 2  # linux/fs.h: RENAME_NOREPLACE, RENAME_EXCHANGE
_ON_MACOS = {_NO_REPLACE: 4, _EXCHANGE: 2}  # <stdio.h>: RENAME_EXCL, RENAME_SWAP
_AT_FDCWD = -100
#: What is said against `exchange` and `rename_new` where the system cannot do so, or where a filter of system calls
#: does not know them (EPERM in older container runtimes). The plain rename that follows meets a true refusal by itself.
NO_SUCH_RENAME = frozenset({errno.ENOSYS, errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EPERM, errno.EACCES})
#: What is said against giving a file away, and against an extended attribute, where that is not permitted or possible.
_NOT_POSSIBLE = frozenset(
    {
        errno.EPERM, errno.EACCES, errno.EINVAL, errno.EOVERFLOW, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS,
        getattr(errno, "ENODATA", errno.EPERM),
    }
)  # fmt: skip
#: How each file beside a state is opened: not through a link, without waiting for the other end of a pipe, and not as
#: the terminal of the program.
_BESIDE = os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY
_NO_FILE = {
    errno.ELOOP: "is a symbolic link",
    errno.EMLINK: "is a symbolic link",  # in FreeBSD's words
    errno.EISDIR: "is a folder",
    errno.ENXIO: "is no regular file",
    errno.ENODEV: "is no regular file",
    errno.EAGAIN: "is kept closed by somebody",  # a lease
}
#: `struct flock` on 64-bit Linux: kind, whence, start, length, process.
_FLOCK = "hhqqi4x"
#: The bytes, where no file has any, that stand for "watched", and for "somebody waits for the write lock".
_WATCHED, WAITED_FOR = 1 << 62, (1 << 62) + 1
_FAR = (b"nfs", b"cifs", b"smb", b"9p", b"afs", b"ceph", b"lustre")


class Descriptor:
    """At most one open descriptor: noted in the C call that opens it, taken back in the one that closes it.

    A signal handler runs between two bytecodes. Whatever it raises, the descriptor is in here, and closed with us, or
    it is closed, and never twice: its number may be somebody else's file by then.

    So it may be without us: programs close all descriptors (daemons do), and the system gives the numbers away again.
    A number is ours only as long as it stands for the file that we opened, opened in the way that we did.
    """

    __slots__ = ("__del__", "__weakref__", "_close", "_fs", "_noted", "_path", "identity")

    def __init__(self, fs: FileSystem) -> None:
        self._noted: list[int] = []
        # The finalizer is one C call as well: the first instruction of a function would be a place for signals.
        self.__del__: Callable[[], object] = partial(deque, map(fs.close, self._noted), 0)
        self._fs = fs
        self._close = fs.close
        self.identity: Identity | None = None

    def __bool__(self) -> bool:
        return bool(self._noted)

    @property
    def number(self) -> int:
        """What the system calls it; `NO_DESCRIPTOR` when it is closed, or lost."""
        return self._noted[0] if self._noted else NO_DESCRIPTOR

    def open(self, path: str, flags: int, mode: int = 0, keeper: Losing | None = None) -> int:
        """Open *path*, never for the programs that we start, nor as one of the three standard streams.

        If the system gives the number away again, *keeper*, or else this object, is told by `lose`. Raises what the
        system says.
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
        """Standard input, output or error was closed. What redirects or prints to them must not meet our file."""
        try:
            while self._noted[-1] <= _LAST_STANDARD:
                self._noted.extend(map(os.dup, self._noted[-1:]))
        except BaseException:
            self.close()
            raise
        while len(self._noted) > 1:
            next(map(self._close, map(self._noted.pop, (0,))))

    def is_ours(self) -> bool:
        """Whether the number still stands for what we opened."""
        if not self._noted:
            return False
        if self.identity is None:
            return True  # just opened
        try:
            return self._fs.identity(self._noted[0]) == self.identity
        except IndexError:
            return False  # another thread closed it meanwhile
        except expected(OSError):
            return True  # it is open, and nobody can tell more

    def lose(self, number: int) -> None:
        """Forget *number*, if that is ours, without closing it: it is somebody else's by now."""
        if number in self._noted:
            self._noted.clear()

    def close(self) -> None:
        """Close it if it is open, and ours. That the system complains is only logged: it is gone all the same."""
        if not self.is_ours():
            self._noted.clear()
        while self._noted:
            try:
                next(map(self._close, iter(self._noted.pop, None)))
            except IndexError:
                pass  # another thread closed it meanwhile
            except expected(OSError) as error:
                logger.warning("%s: closing it failed: %s", self._path, error)


class NotOurs(OSError):
    """Under a name that we use beside a state is something that is not a file of ours: `strerror` says what it is."""


def open_beside(
    fs: FileSystem, file: Descriptor, path: str, flags: int, mode: int = 0, keeper: Losing | None = None
) -> os.stat_result:
    """Open the file *path* beside a state into *file*: the one way in which this package opens such a file.

    In a folder where others may write, anything can be under that name. Raises NotOurs where it is not a regular file,
    and what the system says otherwise. Whether it is a file of ours is for `must_be_ours` to say.
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
        raise NotOurs(errno.EEXIST, "is a folder" if stat.S_ISDIR(status.st_mode) else "is no regular file", path)
    return status


def must_be_ours(fs: FileSystem, path: str, status: os.stat_result, owner: int) -> None:
    """Raise NotOurs unless the file *path* with *status* belongs to *owner*, the state's, or to this process's user."""
    if status.st_uid not in (owner, fs.user()):
        raise NotOurs(errno.EEXIST, f"belongs to user {status.st_uid}", path)


class Losing(Protocol):
    """What has a descriptor, and can be told that its number is not its own any more."""

    def lose(self, number: int) -> None:
        """Forget *number* without closing it, unless it is another one's."""
        ...


class FileSystem:
    """The real one."""

    #: Who has which descriptor. An entry may be out of date: then it does no harm.
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
        #: The path without symbolic links; of a path where nothing is, too.
        self.real_path: Callable[[str], str] = real_path
        #: For a double with locks of its own; None means those of the system, which are the business of `lock`.
        self.flock: Callable[[int, int], None] | None = None
        #: Whose files this process makes.
        self.user: Callable[[], int] = os.geteuid
        self._boot = ""
        self.clock: Callable[[], float] = time.monotonic
        self.sleep: Callable[[float], None] = time.sleep
        #: What the time stamps of files are compared with, in seconds since 1970.
        self.wall: Callable[[], float] = time.time

    def exchange(self, first: str, second: str) -> None:
        """Swap what two paths name, in one step. Raises OSError of `NO_SUCH_RENAME` where the system cannot."""
        _rename(first, second, _EXCHANGE)

    def rename_new(self, source: str, target: str) -> None:
        """Rename *source*, in one step, to a path where nothing is. Raises FileExistsError where something is.

        Raises OSError of `NO_SUCH_RENAME` where the system cannot.
        """
        _rename(source, target, _NO_REPLACE)

    def sync_folder(self, path: str) -> None:
        """Bring the folder's own entries to stable storage. Nothing to do where a folder cannot be opened."""
        folder = Descriptor(SYSTEM)
        try:
            try:
                fd = folder.open(path, os.O_RDONLY | getattr(os, "O_DIRECTORY", 0))
            except expected(PermissionError):
                return  # Windows opens no folders, and a folder may be searchable without being readable
            except expected(OSError) as error:
                if error.errno not in SHORTAGE:
                    raise
                os.sync()  # needs no descriptor; the file has been replaced by now, and nothing else brings it there
                return
            os.fsync(fd)
        finally:
            folder.close()

    def identity(self, fd: int) -> Identity | None:
        """Which file *fd* stands for, and how that was opened; None where *fd* is closed."""
        try:
            status = os.fstat(fd)
            return status.st_dev, status.st_ino, _how_opened(fd)
        except expected(OSError) as error:
            if error.errno != errno.EBADF:
                raise
            return None

    def copy_attributes(self, source: int, target: int) -> None:
        """Give *target*, a file that nobody else knows yet, the rights and attributes of *source*, and no others.

        What the folder has given it by itself, such as a default access control list, goes. An extended attribute that
        only the system may set is left as it is, and so is an owner that may not be given, or that has no number in
        this user namespace. Raises PermissionError where somebody would have other rights in *target* because of that
        (`rights.reason_against`); then only its owner may read and write it.
        """
        old = os.fstat(source)
        mode = stat.S_IMODE(old.st_mode)
        # The group by itself: a member may give it where nobody may give the owner.
        _try(os.fchown, target, -1, old.st_gid)
        # Before the mode, which would let in those whom the folder's default list names.
        _copy_extended(source, target)
        _try(os.fchmod, target, mode)
        # At last: to set the others, we must own it.
        _try(os.fchown, target, old.st_uid, -1)
        new = os.fstat(target)
        if stat.S_IMODE(new.st_mode) != mode:
            _try(os.fchmod, target, mode)  # giving it away has taken the set-id bits
            new = os.fstat(target)
        reason = rights.reason_against(_rights(source, old), _rights(target, new))
        if reason:
            if hasattr(os, "removexattr"):
                _try(os.removexattr, target, rights.ACCESS_LIST)
            os.fchmod(target, 0o600)
            raise PermissionError(errno.EPERM, reason)

    def watch(self, fd: int) -> None:
        """Let everybody who has the file behind *fd* open find that it is watched, until `unwatch`, or our death."""
        set_mark(fd, _WATCHED)

    def unwatch(self, fd: int) -> None:
        """End `watch`. Nothing happens where there was none."""
        clear_mark(fd, _WATCHED)

    def is_watched(self, fd: int) -> bool:
        """Whether somebody else watches the file behind *fd*; never where the system cannot tell."""
        return has_mark(fd, _WATCHED)

    def boot_id(self) -> str:
        """8 hex digits that change with every boot; zeros where the system does not say."""
        if not self._boot:
            try:
                self._boot = told("/proc/sys/kernel/random/boot_id", 8).decode("ascii")
            except expected(OSError) as error:
                if error.errno in SHORTAGE:
                    return UNKNOWN_BOOT  # for this time
                self._boot = UNKNOWN_BOOT
        return self._boot

    def token(self) -> str:
        """8 random hex digits."""
        return os.urandom(4).hex()


def real_path(path: str) -> str:
    """`os.path.realpath`, which takes the exception of a signal handler for a sign that there is no link.

    Most paths have no link in them. Then this asks the system the same questions, and does little else.
    """
    try:
        return path if _is_real(path) else os.path.realpath(path, strict=True)
    except expected(OSError):
        return os.path.realpath(path)


def _is_real(path: str) -> bool:
    """Whether *path* is sure to be what `os.path.realpath` makes of it. Raises what the system says."""
    if os.sep != "/" or path[:1] != "/" or path[:2] == "//" or os.path.normpath(path) != path:
        return False
    end = 0
    while end >= 0:
        end = path.find("/", end + 1)
        if stat.S_ISLNK(os.lstat(path if end < 0 else path[:end]).st_mode):
            return False
    return True


def is_folder(path: str) -> bool:
    """`os.path.isdir`, which takes the exception of a signal handler for a no."""
    try:
        return stat.S_ISDIR(os.stat(path).st_mode)
    except expected(OSError):
        return False


def told(path: str, at_most: int | None = None) -> bytes:
    """What the system tells in the file *path* of its own: all of it, or the first bytes. Raises what it says."""
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
    """Set a mark at *byte* that every process with the file of *fd* open can find, until `clear_mark`, or our death."""
    if not _is_far(os.fstat(fd).st_dev):
        _lock_byte(fd, byte, "F_OFD_SETLK", "F_RDLCK")


def clear_mark(fd: int, byte: int) -> None:
    """End `set_mark`. Nothing happens where there was none."""
    _lock_byte(fd, byte, "F_OFD_SETLK", "F_UNLCK")


def has_mark(fd: int, byte: int) -> bool:
    """Whether somebody else has set a mark at *byte*; never where the system cannot tell."""
    return _lock_byte(fd, byte, "F_OFD_GETLK", "F_WRLCK")


def _lock_byte(fd: int, byte: int, command: str, kind: str) -> bool:
    """Call `fcntl` for one *byte*; returns whether it is locked.

    Such a lock has nothing to do with `flock`, needs no permission to write, and dies with its holder.
    """
    import fcntl
    import struct

    if not hasattr(fcntl, command):
        return False  # only Linux has locks that belong to a descriptor
    request = struct.pack(_FLOCK, getattr(fcntl, kind), os.SEEK_SET, byte, 1, 0)
    with tolerating(OSError):  # not every file system knows them
        (held, *_) = struct.unpack(_FLOCK, fcntl.fcntl(fd, getattr(fcntl, command), request))
        return bool(held != fcntl.F_UNLCK)
    return False


def _is_far(device: int) -> bool:
    """Whether *device* is a network file system: there, `flock` locks all bytes, and we would keep writers off."""
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
    """What *call* returns; None where the system says that this is not permitted, or not possible."""
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
    """Let the extended attributes of *target* be those of *source*, each as far as it is permitted."""
    if not hasattr(os, "listxattr"):
        return
    old, new = _attributes(source), _attributes(target)
    for name in new.keys() - old.keys():
        _try(os.removexattr, target, name)
    for name, value in old.items():
        if new.get(name) != value:
            _try(os.setxattr, target, name, value)


def _attributes(fd: int) -> dict[str, bytes]:
    """With the access control list, which not every file system names."""
    names = {rights.ACCESS_LIST, *(_try(os.listxattr, fd) or ())}
    found = {name: _attribute(fd, name) for name in names}
    return {name: value for name, value in found.items() if value is not None}


def _attribute(fd: int, name: str) -> bytes | None:
    value: bytes | None = _try(os.getxattr, fd, name) if hasattr(os, "getxattr") else None
    return value


_libc: Any = None


def _rename(first: str, second: str, flag: int) -> None:
    """`renameat2` of Linux, `renamex_np` of macOS; Python binds neither.

    Raises OSError, with ENOSYS also where this Python was built without ctypes, or cannot use it.
    """
    libc = _library(first)
    import ctypes

    a, b = os.fsencode(first), os.fsencode(second)
    if hasattr(libc, "renameat2"):
        failed = libc.renameat2(_AT_FDCWD, a, _AT_FDCWD, b, flag)
    elif hasattr(libc, "renamex_np"):
        failed = libc.renamex_np(a, b, _ON_MACOS[flag])
    else:
        raise OSError(errno.ENOSYS, "the system cannot rename like that", first)
    if failed:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), first)


def _library(path: str) -> Any:
    """The C library, by ctypes, which takes milliseconds to import, and only a vacuum needs it."""
    global _libc
    if _libc is None:
        try:
            import ctypes
        except expected(ImportError, MemoryError) as error:  # MemoryError: where no memory may be made executable
            raise OSError(
                errno.ENOSYS, f"this Python cannot rename like that, without ctypes ({error})", path
            ) from error
        try:
            _libc = ctypes.CDLL(None, use_errno=True)
        except OSError as error:  # it has no number, so that `expected` would not take it for ours
            if came_from_handler(error):
                raise
            raise OSError(errno.ENOSYS, f"this Python cannot rename like that ({error})", path) from error
    return _libc


SYSTEM = FileSystem()
