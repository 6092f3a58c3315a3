"""The write lock: takes it, waits for it, and names its holder.

`log` decides which file is locked, and checks after locking that it is still the one at the path.

How to call a strategy on the hot path::

    try:
        try:
            flock(fd, EXCLUSIVE_NOW)
        except expected(OSError):
            acquire(flock, fd, path, timeout)
        ...
    finally:
        flock(fd, UNLOCK)

Locking is inside the ``try``, because an asynchronous exception may arrive between its success and the next
instruction. An adapter is Python code, so one may also arrive before the first instruction of its unlocking. To be safe
from that too, unlock within a ``try``, and once more in its ``except BaseException: ...; raise``.
"""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Callable
from typing import Final

from pstate import errors
from pstate.file.flock import EXCLUSIVE_NOW, UNLOCK, Adapter, Flock
from pstate.file.fs import WAITED_FOR, NotOurs, clear_mark, has_mark, set_mark
from pstate.signals import expected, tolerating

_FIRST_PAUSE: Final = 50e-6
_PAUSE_WHEN_BUSY: Final = 1e-3
_LONGEST_PAUSE: Final = 10e-3
_PART_OF_WAIT: Final = 1 / 200
_WAY: Final = 1.3e-3  # longer than a pause with its jitter
_NO_LOCKS: Final = frozenset({errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOTSUP, errno.ENOSYS})

try:
    import fcntl
except ImportError:  # pragma: no cover (a Python without a POSIX system below it, such as WASI)
    _real: object = None

    def _file() -> Flock:
        raise ImportError(
            'this Python has no fcntl.flock. Open the state with locking="filelock", locking="portalocker" or a lock '
            "object of yours."
        )

else:
    _real = fcntl.flock

    def _file() -> Flock:
        return fcntl.flock


def make(locking: object, path: str) -> Flock:
    """The strategy for *locking*: "file", "filelock", "portalocker", or a lock object, which is used as it is.

    *path* is the state file. "filelock" and "portalocker" lock ``<path>.lock`` beside it; if *path* is a symbolic link,
    beside the file itself, so that all its names share one lock. An object needs `release()`, and an `acquire()` with
    an argument not to wait: ``blocking``, ``block`` or ``timeout``. It refuses by a false result, or by raising
    BlockingIOError, TimeoutError or portalocker's AlreadyLocked.

    Raises TypeError for anything else, and ImportError if the library is not installed.
    """
    if locking == "file":
        return _file()
    from pstate.file import lock_objects

    return lock_objects.make(locking, path)


def forget(flock: Flock) -> None:
    """In the child of a fork: drop the lock that *flock* held in the parent, without releasing it for the parent.

    The caller closes the descriptors of state files itself: closing does not unlock while the parent has its own. A
    lock object of the user is reset, if we know how, because the child does not hold it. A lock between threads exists
    once per process, so it becomes free in the child. filelock's objects raise if a child that inherited them uses
    them.
    """
    if isinstance(flock, Adapter):
        flock.forget()


def _always() -> bool:
    return True


def acquire(
    flock: Flock,
    fd: int,
    path: str,
    timeout: float | None,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
    meanwhile: Callable[[], object] = int,
    is_ours: Callable[[], bool] = _always,
) -> None:
    """Lock *fd*, the open state file *path*, by *flock*, waiting up to *timeout* seconds.

    None, a negative or an infinite number waits without a limit; 0 tries once. `flock` has no timeout, so this polls:
    after 50 µs at first, then up to 1 ms, or a two-hundredth of the time that was waited, 10 ms at most. There is no
    queue, so others may be served first. But a process that waits sets a mark on the file, and others `give_way` to it.
    *meanwhile* is called between two tries. If *is_ours* returns false, *fd* is no longer used.

    If this raises, the lock is not held: LockTimeout if another process kept it, WriteError if the file system has no
    locks, ReadOnlyError or WriteError if a lock file beside the state cannot be used, the exceptions of a lock object
    of the user, and OSError with EBADF if *fd* is no longer ours.
    """
    is_marked = False
    try:
        if _try(flock, fd, path, is_ours):
            return
        limit = float("inf") if timeout is None or timeout < 0 else timeout
        started = clock()
        pause = _FIRST_PAUSE
        if flock is _real:
            is_marked = True
            set_mark(fd, WAITED_FOR)
        while (waited := clock() - started) < limit:
            # The last digits of a clock are enough noise to keep processes that wait from trying at the same times.
            jitter = 0.75 + (int(clock() * 1e9) & 0xFF) / 512
            sleep(min(pause * jitter, limit - waited))
            # If all hold the lock for a short time only, a process that sleeps long gets a small share.
            pause = min(2 * pause, max(_PAUSE_WHEN_BUSY, waited * _PART_OF_WAIT), _LONGEST_PAUSE)
            meanwhile()
            if _try(flock, fd, path, is_ours):
                return
        raise _timed_out(flock, fd, path, waited)
    except BaseException:
        if is_ours():
            flock(fd, UNLOCK)
        raise
    finally:
        if is_marked and is_ours():
            clear_mark(fd, WAITED_FOR)


def give_way(flock: Flock, fd: int, sleep: Callable[[float], None]) -> None:
    """Before *fd* is locked again, let processes that wait for it lock it: they try again within a millisecond.

    A process that commits in a tight loop holds the lock most of the time, so the others would rarely get it.
    """
    if flock is _real and has_mark(fd, WAITED_FOR):
        sleep(_WAY)


def _try(flock: Flock, fd: int, path: str, is_ours: Callable[[], bool]) -> bool:
    if not is_ours():
        raise OSError(errno.EBADF, os.strerror(errno.EBADF), path)
    try:
        flock(fd, EXCLUSIVE_NOW)
    except expected(BlockingIOError):
        return False
    except expected(OSError) as error:
        if error.errno == errno.EACCES and not isinstance(flock, Adapter):
            return False  # some network file systems mean EWOULDBLOCK; an adapter means the lock file's permissions
        if error.errno in _NO_LOCKS:
            raise errors.WriteError(
                f"{path}: the write lock cannot be taken, because this file system has no locks ({error.strerror}). "
                f"Nothing was changed. Open it with locking=filelock.SoftFileLock({path + '.lock'!r}), which needs "
                "none, or with another lock object, the same one in all programs that write this file.",
                path=path,
                errno=error.errno,
            ) from error
        if isinstance(flock, Adapter) and flock.beside is not None:
            raise _unusable_file(path, flock.beside, error) from error
        raise
    return True


def _unusable_file(path: str, beside: str, error: OSError) -> errors.PStateError:
    """The error for a lock file *beside* that cannot be used, because of *error*."""
    kind: type[errors.PStateError] = errors.WriteError
    why = error.strerror or str(error)
    instead = 'or use locking="file" in all programs that write this state, which needs no other file.'
    if isinstance(error, NotOurs):
        advice = f"Delete it while no program has the state open, {instead}"
    elif isinstance(error, PermissionError):
        kind = errors.ReadOnlyError
        advice = f"Get the permission to write to its folder, {instead}"
        with tolerating(OSError):
            why += f", and it belongs to user {os.lstat(beside).st_uid}"
            advice = (
                "Let all users of the state write to it (chmod, chgrp), or delete it while no program has the state "
                f"open, {instead}"
            )
    else:
        advice = "Remove the cause of the error, and try again."
    message = f"{path}: the lock file {beside} cannot be used: {why}. Nothing was changed. {advice}"
    return kind(message, path=path, errno=error.errno)


def _timed_out(flock: Flock, fd: int, path: str, waited: float) -> errors.LockTimeout:
    from pstate.file.holder import holder, program

    if isinstance(flock, Adapter):
        pid = flock.holder()
        remedy = flock.remedy
    else:
        pid = holder(fd)
        remedy = "The lock ends with its holder; there is no lock file to delete."
    if pid is None:
        who = "which another process holds"
    elif pid == os.getpid():
        who = f"held by this process ({pid})"
    else:
        name = program(pid)
        who = f"held by process {pid}" + (f" ({name})" if name else "")
    return errors.LockTimeout(
        f"{path}: waited {waited:.1f} s for the write lock, {who}. Nothing was changed. Try again, or set a longer "
        f"lock_timeout. {remedy}",
        path=path,
        waited=waited,
        holder=pid,
    )
