"""Locks that are not the state file itself: those of filelock and portalocker, and lock objects of the program.

Only this module imports these libraries. It is imported when a program chooses one of them, or passes a lock object.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from itertools import compress, islice
from operator import call, methodcaller
from typing import Any, Final

from pstate.file.flock import Adapter
from pstate.file.fs import SYSTEM, Descriptor, Identity, NotOurs, open_beside, real_path
from pstate.file.holder import holder
from pstate.signals import came_from_handler, expected, is_foreign, tolerating

_CONTENDED: Final = frozenset({errno.EAGAIN, errno.EWOULDBLOCK, errno.EACCES})


_RELEASE: Final = methodcaller("release")
_RELEASE_ALL: Final = methodcaller("release", force=True)


class _Object(Adapter):
    """A lock object with acquire and release: filelock's, or one of the user.

    Locks between threads and processes have no owner: releasing one that we do not hold releases that of another
    thread or process. So taking the lock and noting that are one call of a C function, and so are noting and releasing
    it (`list.extend` over iterators written in C). If the lock's own methods are C too, no signal handler runs in
    between. If they are Python code, the handler may run within them; then `_depth` tells whether the lock was taken,
    for the kinds that know. For others, we assume that we do not hold it: a lock that stays locked shows as a
    LockTimeout, but one that is released too early shows nowhere.
    """

    __slots__ = ("_again", "_done", "_held", "_identity", "_lock", "_release", "_try")

    def __init__(self, lock: Any, again: Callable[[], Any] | None = None, path: str | None = None) -> None:
        self._again = again  # makes a new lock object for the child of a fork, if we may
        self.beside = path
        self._held: list[Any] = []  # the lock object, while we hold it
        self._done: list[None] = []
        self._identity: Identity | None = None  # of its open file, while we hold it
        self._release = _RELEASE
        self._set(lock)
        kind = f"{type(lock).__module__}.{type(lock).__qualname__}"
        self.remedy = (
            f"The lock ends with its holder. Do not delete {path}."
            if path is not None
            else f"The lock is the object that was passed as locking= ({kind})."
        )

    def _set(self, lock: Any) -> None:
        self._lock = lock
        self._try = partial(lock.acquire, **(_refusing_keywords(lock) or {}))

    def take(self) -> bool:
        held = self._held
        if held:
            if not self._is_lost():
                return True
            self.release()
        if self.beside is not None:
            _refuse_strangers(self.beside)
        before = _depth(self._lock)
        # filelock counts nested holds. If the count was 0 before, release all, even if an interruption has changed it.
        self._release = _RELEASE_ALL if before == 0 and _is_counting(self._lock) else _RELEASE
        try:
            held.extend(compress((self._lock,), map(call, (self._try,))))
        except BaseException as error:
            if _is_refusal(error):
                return False
            if before is not None and not held and (_depth(self._lock) or 0) > before:
                with suppress(Exception):
                    self._release(self._lock)
            raise
        if held:
            _move_up(self._lock)
            fd = _file_of(self._lock)
            self._identity = None if fd is None else SYSTEM.identity(fd)
        return bool(held)

    def _is_lost(self) -> bool:
        """Whether the program has closed the lock's file, and its descriptor may be another file's."""
        if self._identity is None:
            return False
        fd = _file_of(self._lock)
        return fd is not None and SYSTEM.identity(fd) != self._identity

    def release(self) -> None:
        held = self._held
        if not held:
            return
        if self._is_lost():
            _replace_file(self._lock)
        self._identity = None
        before = _depth(self._lock)
        done = self._done
        done.clear()
        try:
            done.extend(map(self._release, islice(iter(held.pop, None), 1)))
        except BaseException:
            # A signal handler may have run within the lock's own method, and raised any exception.
            if not held and not done and before is not None and _depth(self._lock) == before:
                with suppress(Exception):
                    self._release(self._lock)
            raise

    def forget(self) -> None:
        self._identity = None
        held = bool(self._held)
        self._held.clear()
        if held:
            _disown(self._lock)
        if self._again is not None:
            self._set(self._again())

    def holder(self) -> int | None:
        if self.beside is not None:
            return holder(self.beside)
        pid = getattr(self._lock, "pid", None)  # filelock.SoftFileLock reads it from its file
        if isinstance(pid, int):
            return pid
        for name in ("lock_file", "filename"):  # filelock, portalocker
            path = getattr(self._lock, name, None)
            if isinstance(path, str):
                return holder(path)
        return None


class _Portalocker(Adapter):
    """`portalocker.lock` on a file beside the state.

    The file is opened for each locking, as portalocker's own Lock does: a file that is kept open would exclude no one
    after its name was deleted.
    """

    __slots__ = ("_file", "_flags", "_library", "_path")

    def __init__(self, library: Any, path: str) -> None:
        self._library = library
        self._flags = library.LockFlags.EXCLUSIVE | library.LockFlags.NON_BLOCKING
        self.beside = self._path = path
        self._file = Descriptor(SYSTEM)  # while it is open it may be locked
        self.remedy = f"The lock ends with its holder. Do not delete {path}."

    def take(self) -> bool:
        if self._file.is_ours():
            return True
        taken = False
        try:
            while not taken:
                _open_lock_file(self._file, self._path, 0o666)
                fd = self._file.number
                try:
                    self._library.lock(fd, self._flags)
                except self._library.LockException as error:
                    cause = next((each for each in error.args if isinstance(each, OSError)), None)
                    if cause is not None and is_foreign(cause):
                        raise cause from error
                    if isinstance(error, self._library.AlreadyLocked) or (cause and cause.errno in _CONTENDED):
                        return False
                    if cause is not None:
                        raise cause from error
                    raise
                taken = self._is_at_its_path(fd)
                if not taken:
                    self.release()
            return True
        finally:
            if not taken:
                self.release()

    def _is_at_its_path(self, fd: int) -> bool:
        """Whether the file that we locked is the one that others will open."""
        try:
            return os.path.samestat(os.fstat(fd), os.stat(self._path))
        except expected(FileNotFoundError):
            return False

    def release(self) -> None:
        try:
            if self._file.is_ours():
                # Closing would not suffice: a child of a fork may still have the descriptor open.
                self._library.unlock(self._file.number)
        finally:
            self.forget()

    def forget(self) -> None:
        self._file.close()

    def holder(self) -> int | None:
        return holder(self._path)


def _open_lock_file(file: Descriptor, path: str, mode: int) -> None:
    """Open the lock file *path* into *file*; create it, with *mode*, if it does not exist.

    Raises NotOurs if it is not a regular file with a single name. Its owner does not matter: all users of a state lock
    one file, and each user who may open it can hold the lock.
    """
    while True:
        try:
            # Without O_CREAT: with it, Linux refuses files of other users in a folder like /tmp (fs.protected_regular).
            status = open_beside(SYSTEM, file, path, os.O_RDWR)
        except expected(FileNotFoundError):
            try:
                open_beside(SYSTEM, file, path, os.O_RDWR | os.O_CREAT | os.O_EXCL, mode)
            except expected(FileExistsError):
                continue
            return
        if status.st_nlink > 1:
            file.close()
            raise NotOurs(errno.EEXIST, "has a second name, by a hard link", path)
        return


def _refuse_strangers(path: str) -> None:
    """Raise as `_open_lock_file` before a library opens the lock file *path* in its own way.

    Older versions of filelock follow a link, and empty the file. If the file does not exist, it is created: in a folder
    like /tmp, no other user can replace it then.
    """
    with tolerating(FileNotFoundError):
        status = os.lstat(path)
        if stat.S_ISREG(status.st_mode) and status.st_nlink == 1:
            return
    file = Descriptor(SYSTEM)
    try:
        _open_lock_file(file, path, 0o644)
    finally:
        file.close()


def make(locking: object, path: str) -> Adapter:
    """`lock.make` for all locks that are not the file itself. Raises as it does."""
    beside = real_path(path) + ".lock"
    if locking == "filelock":
        again = partial(_new_filelock, beside)
        return _Object(again(), again, beside)
    if locking == "portalocker":
        try:
            import portalocker
        except ImportError as error:
            raise _missing("portalocker", path, error) from error
        return _Portalocker(portalocker, beside)
    if isinstance(locking, str):
        raise TypeError(
            f'{path}: locking={locking!r} is unknown. Nothing was opened. Pass "file", "filelock", "portalocker" or a '
            "lock object."
        )
    unusable = _unusable(locking)
    if unusable:
        raise TypeError(
            f'{path}: locking={locking!r} {unusable}. Nothing was opened. Pass "file", "filelock", "portalocker", or '
            "an object with a release(), and an acquire() that has an argument not to wait."
        )
    return _Object(locking)


def _new_filelock(path: str) -> Any:
    try:
        import filelock
    except ImportError as error:
        raise _missing("filelock", path.removesuffix(".lock"), error) from error
    import inspect

    options: dict[str, Any] = {"timeout": 0, "thread_local": False}
    # Falling back to a lock by the mere existence of a file would exclude no process that locks the file itself.
    if "fallback_to_soft" in inspect.signature(filelock.BaseFileLock.__init__).parameters:
        options["fallback_to_soft"] = False
    return filelock.FileLock(path, **options)


def _missing(library: str, path: str, error: ImportError) -> ImportError:
    kind = ModuleNotFoundError if isinstance(error, ModuleNotFoundError) else ImportError
    return kind(
        f'{path}: locking="{library}" needs the library {library}, which cannot be imported ({error}). '
        f"Run: pip install {library}",
        name=library,
    )


def _unusable(lock: object) -> str | None:
    """Why *lock* is not a lock object that we can use; None if it is one."""
    import inspect

    if isinstance(lock, type):
        return "is a class, not a lock object"
    for name in ("acquire", "release"):
        method = getattr(lock, name, None)
        if not callable(method):
            return f"has no {name}()"
        if inspect.iscoroutinefunction(method):
            return f"has an asynchronous {name}()"
    return None if _refusing_keywords(lock) else "has an acquire() that always waits"


def _refusing_keywords(lock: Any) -> dict[str, Any] | None:
    """How to tell *lock* not to wait."""
    import inspect

    try:
        parameters = inspect.signature(lock.acquire).parameters
    except (TypeError, ValueError):
        return {"blocking": False}  # a C function without a signature, such as threading's locks
    if "fail_when_locked" in parameters:
        return {"timeout": 0, "fail_when_locked": True}
    for name, value in (("blocking", False), ("block", False), ("timeout", 0)):
        if name in parameters:
            return {name: value}
    if any(each.kind is inspect.Parameter.VAR_KEYWORD for each in parameters.values()):
        return {"blocking": False}
    return None


def _disown(lock: Any) -> None:
    """In the child of a fork: reset *lock*, which the parent holds, because this process does not hold it.

    Only for the kinds that would count as held by the child, or as locked without an end, or that would release the
    parent's lock when they are collected. The parent is not affected.
    """
    # CPython's own method for the purpose (logging uses it). A lock between threads was copied with the memory, locked,
    # and no thread is left to unlock the copy; a multiprocessing.RLock counts how often its thread has taken it.
    for owner, name in ((lock, "_at_fork_reinit"), (getattr(lock, "_semlock", None), "_after_fork")):
        reset = getattr(owner, name, None)
        if reset is not None:
            reset()
    file = getattr(lock, "fh", None)  # portalocker: while there is one, `acquire` returns it as already locked
    if file is not None:
        lock.fh = None
        file.close()
    if _is_counting(lock) and lock._context.lock_file_fd is not None:  # filelock, before it did this by itself
        fd, lock._context.lock_file_fd = lock._context.lock_file_fd, None
        lock._context.lock_counter = 0
        os.close(fd)


def _file_of(lock: Any) -> int | None:
    """The descriptor of the file that *lock* has open, for the kinds that we know."""
    fd = getattr(getattr(lock, "_context", None), "lock_file_fd", None)  # filelock
    if fd is None and hasattr(getattr(lock, "fh", None), "fileno"):  # portalocker
        fd = lock.fh.fileno()
    return fd if isinstance(fd, int) else None


def _move_up(lock: Any) -> None:
    """Replace the number of a standard stream that was closed and that filelock has now: nothing may print into it."""
    low = lock._context.lock_file_fd if _is_counting(lock) else None
    if low in (0, 1, 2):
        import fcntl

        lock._context.lock_file_fd = fcntl.fcntl(low, fcntl.F_DUPFD_CLOEXEC, 3)
        os.close(low)


#: File objects whose descriptors are no longer theirs. Kept, because they would close them.
_lost: Final[list[Any]] = []


def _replace_file(lock: Any) -> None:
    """Give *lock*, whose file the program has closed, another file to unlock and close."""
    if _is_counting(lock):
        lock._context.lock_file_fd = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    else:
        _lost.append(lock.fh)
        lock.fh = open(os.devnull, "r+b")  # noqa: SIM115, the lock closes it


def _is_refusal(error: BaseException) -> bool:
    """Whether *error* of a lock object means that another process or thread holds it."""
    if came_from_handler(error):
        return False  # a signal handler may raise a TimeoutError, too
    if isinstance(error, (BlockingIOError, TimeoutError)):  # filelock.Timeout is one
        return True
    return any(kind.__name__ == "AlreadyLocked" for kind in type(error).__mro__)  # portalocker, not imported for this


def _is_counting(lock: Any) -> bool:
    """Whether *lock* is of filelock, whose locks count how often they were acquired, and can be released at once."""
    return hasattr(getattr(lock, "_context", None), "lock_counter") and hasattr(lock, "is_locked")


def _depth(lock: Any) -> int | None:
    """How often we hold *lock*, by its own count; None if it has none."""
    if _is_counting(lock):
        depth: int = lock._context.lock_counter
        # An interrupted acquire may have taken back its count but not the lock, or the reverse.
        return max(depth, 1) if lock.is_locked else 0
    local = getattr(lock, "local", None)  # redis
    if local is not None and hasattr(local, "token"):
        return int(local.token is not None)
    if hasattr(lock, "fh"):  # portalocker
        return int(lock.fh is not None)
    return None
