"""A simulated process on a `SimulatedDisk`: every system call of `pstate.file.fs`, with a hook before each.

The hook may let others run first, make the call fail, shorten a write, or end the process. After its end, a process
changes nothing, even if its `finally` blocks and finalizers try to.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable
from typing import Any, NoReturn
from weakref import WeakValueDictionary
from zlib import crc32

from pstate.file.flock import EXCLUSIVE_NOW, UNLOCK
from pstate.file.fs import FileSystem, Identity
from pstate.testing.disk import Description, Inode, SimulatedDisk

#: Descriptors begin above all real ones, so that code that bypasses the seam does not reach a file of the test.
FIRST_DESCRIPTOR = 1_000_000

DEVICE = 77


class Killed(BaseException):
    """The simulated process has died within a system call. No program can catch it and go on."""


#: Called before a call, with the system, the call's name and its arguments. The call raises its exceptions. For a
#: write, it returns the number of bytes to write, or None for all.
Hook = Callable[["SimulatedSystem", str, tuple[Any, ...]], "int | None"]


def go_on(system: SimulatedSystem, name: str, arguments: tuple[Any, ...]) -> None:
    """The hook that does nothing."""


class SimulatedSystem(FileSystem):
    """The operating system as one process sees it, with a clock of its own that only its own calls move."""

    def __init__(self, disk: SimulatedDisk, hook: Hook = go_on, *, name: str = "a", tick: float = 1e-6) -> None:
        self.disk = disk
        self.hook = hook
        self.process = name
        self.dead = False
        self.tick = tick  #: how far each reading of the clock moves it, in seconds
        self.now = 1000.0
        self.descriptors: dict[int, Description] = {}
        # Each process has its own numbers.
        self.keepers = WeakValueDictionary()  # type: ignore[misc]
        self._next = FIRST_DESCRIPTOR
        self._tokens = 0
        self.open = self._open
        self.close = self._close
        self.lseek = self._lseek
        self.pread = self._pread
        self.write = self._write
        self.truncate = self._truncate
        self.sync = self.sync_data = self._sync
        self.stat = self._stat
        self.fstat = self._fstat
        self.rename = self._rename
        self.unlink = self._unlink
        self.flock = self._flock
        self.user = lambda: 0
        self.clock = self._clock
        self.sleep = self._sleep
        self.real_path = lambda path: path
        self.wall = lambda: 0.01  # time stamps count changes here, so none is old, and none is in the future

    # ------------------------------------------------------------------ a process

    def die(self) -> None:
        """End the process. Only its descriptors and locks go."""
        self.dead = True
        for fd in list(self.descriptors):
            self._let_go(fd)

    def close_all(self, again: int) -> None:
        """Close every descriptor, as daemons do. The next file to be opened gets the number *again*. Not a call to
        schedule.
        """
        for fd in list(self.descriptors):
            self._let_go(fd)
        self._next = again

    def child(self, name: str) -> SimulatedSystem:
        """The process that a fork makes: it has the same descriptions with the same numbers."""
        system = SimulatedSystem(self.disk, self.hook, name=name, tick=self.tick)
        system.now = self.now
        system.descriptors = dict(self.descriptors)
        system._next = self._next
        for description in self.descriptors.values():
            description.descriptors += 1
        return system

    def _let_go(self, fd: int) -> None:
        description = self.descriptors.pop(fd)
        description.descriptors -= 1
        if description.descriptors:
            return
        inode = description.inode
        if inode.holder is description:
            inode.holder = None
            self.disk.changes += 1
        if description in inode.watchers:
            inode.watchers.remove(description)
            self.disk.changes += 1

    def identity(self, fd: int) -> Identity | None:
        """Not a call to schedule: it changes nothing, and only the process itself can change its result."""
        description = self.descriptors.get(fd)
        if description is None:
            return None
        return DEVICE, description.inode.number, description.writable + 2 * description.appending

    def _begin(self, name: str, *arguments: Any) -> int | None:
        if self.dead:
            raise Killed
        return self.hook(self, name, arguments)

    def _description(self, fd: int) -> Description:
        try:
            return self.descriptors[fd]
        except KeyError:
            raise _error(errno.EBADF) from None

    # ------------------------------------------------------------------ calls on descriptors

    def _open(self, path: str, flags: int, mode: int = 0o666) -> int:
        self._begin("open", path, flags)
        inode = self.disk.names.get(path)
        if inode is None:
            if not flags & os.O_CREAT:
                raise _error(errno.ENOENT, path)
            inode = self.disk.create(mode=0o100000 | mode)
            self.disk.name((path, inode))
            self.disk.changes += 1
        elif flags & os.O_CREAT and flags & os.O_EXCL:
            raise _error(errno.EEXIST, path)
        elif stat.S_ISLNK(inode.mode):
            # Links exist only to be refused. This disk does not know where one leads.
            raise _error(errno.ELOOP if flags & os.O_NOFOLLOW else errno.ENOENT, path)
        access = flags & (os.O_RDONLY | os.O_WRONLY | os.O_RDWR)
        description = Description(inode, access != os.O_RDONLY, bool(flags & os.O_APPEND))
        if flags & os.O_TRUNC and inode.content:
            inode.truncate(0)
            self.disk.changes += 1
        fd = self._next
        self._next += 1
        self.descriptors[fd] = description
        return fd

    def _close(self, fd: int) -> None:
        if self.dead:
            return
        self._begin("close", fd)
        self._description(fd)
        self._let_go(fd)

    def _lseek(self, fd: int, offset: int, whence: int) -> int:
        self._begin("lseek", fd, offset, whence)
        description = self._description(fd)
        start = (0, description.position, len(description.inode.content))[whence]
        description.position = start + offset
        return description.position

    def _pread(self, fd: int, length: int, offset: int) -> bytes:
        self._begin("pread", fd, length, offset)
        return self._description(fd).inode.content[offset : offset + length]

    def _write(self, fd: int, data: bytes) -> int:
        length = self._begin("write", fd, data)
        description = self._description(fd)
        if not description.writable:
            raise _error(errno.EBADF)
        done = bytes(data if length is None else data[:length])
        self.put(description, done)
        return len(done)

    def put(self, description: Description, data: bytes) -> None:
        """The effect of a write, without the call."""
        inode = description.inode
        offset = len(inode.content) if description.appending else description.position
        if data:
            inode.write(offset, data)
            self.disk.changes += 1
        description.position = offset + len(data)

    def _truncate(self, fd: int, length: int) -> None:
        self._begin("truncate", fd, length)
        self._description(fd).inode.truncate(length)
        self.disk.changes += 1

    def _sync(self, fd: int) -> None:
        self._begin("sync", fd)
        self._description(fd).inode.sync()

    def _fstat(self, fd: int) -> os.stat_result:
        self._begin("fstat", fd)
        return self._status(self._description(fd).inode)

    def copy_attributes(self, source: int, target: int) -> None:
        self._begin("copy_attributes", source, target)
        old, new = self._description(source).inode, self._description(target).inode
        new.mode, new.owner = old.mode, old.owner

    def _flock(self, fd: int, operation: int) -> None:
        self._begin("flock", fd, operation)
        description = self._description(fd)
        inode = description.inode
        if operation == UNLOCK:
            if inode.holder is description:
                inode.holder = None
                self.disk.changes += 1
        elif operation == EXCLUSIVE_NOW:
            if inode.holder not in (None, description):
                raise _error(errno.EWOULDBLOCK)
            inode.holder = description
        else:
            raise _error(errno.EINVAL)

    def watch(self, fd: int) -> None:
        self._begin("watch", fd)
        description = self._description(fd)
        description.inode.watchers.add(description)
        self.disk.changes += 1

    def unwatch(self, fd: int) -> None:
        self._begin("unwatch", fd)
        description = self._description(fd)
        description.inode.watchers.discard(description)
        self.disk.changes += 1

    def is_watched(self, fd: int) -> bool:
        self._begin("is_watched", fd)
        description = self._description(fd)
        return bool(description.inode.watchers - {description})

    # ------------------------------------------------------------------ calls on paths

    def _find(self, path: str) -> Inode:
        try:
            return self.disk.names[path]
        except KeyError:
            raise _error(errno.ENOENT, path) from None

    def _stat(self, path: str) -> os.stat_result:
        self._begin("stat", path)
        return self._status(self._find(path))

    def _status(self, inode: Inode) -> os.stat_result:
        links = self.disk.links(inode)
        fields = (inode.mode, inode.number, DEVICE, links, inode.owner, 0, len(inode.content), 0, 0, 0)
        return os.stat_result(fields, {"st_mtime_ns": inode.times_changed, "st_ctime_ns": inode.times_changed})

    def _rename(self, source: str, target: str) -> None:
        self._begin("rename", source, target)
        inode = self._find(source)
        self.disk.name((target, inode), (source, None))
        self.disk.changes += 1

    def _unlink(self, path: str) -> None:
        self._begin("unlink", path)
        self._find(path)
        self.disk.name((path, None))
        self.disk.changes += 1

    def exchange(self, first: str, second: str) -> None:
        self._begin("exchange", first, second)
        one, other = self._find(first), self._find(second)
        self.disk.name((first, other), (second, one))
        self.disk.changes += 1

    def rename_new(self, source: str, target: str) -> None:
        self._begin("rename_new", source, target)
        if target in self.disk.names:
            raise _error(errno.EEXIST, target)
        self.disk.name((target, self._find(source)), (source, None))
        self.disk.changes += 1

    def sync_folder(self, path: str) -> None:
        self._begin("sync_folder", path)
        self.disk.sync_folder()

    # ------------------------------------------------------------------ the rest

    def boot_id(self) -> str:
        return self.disk.boot

    def token(self) -> str:
        self._tokens += 1
        return f"{crc32(self.process.encode()) & 0xFFFF:04x}{self._tokens:04x}"

    def _clock(self) -> float:
        self.now += self.tick
        return self.now

    def _sleep(self, seconds: float) -> None:
        self._begin("sleep", seconds)
        self.now += seconds


def _error(number: int, path: str | None = None) -> OSError:
    return OSError(number, os.strerror(number), path) if path else OSError(number, os.strerror(number))


def fail(number: int) -> NoReturn:
    """Called by a hook to make a call fail with this errno."""
    raise _error(number)
