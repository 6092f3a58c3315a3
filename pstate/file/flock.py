"""The strategies that exclude other writers, called like `fcntl.flock`: ``flock(fd, operation)``.

The operations are `EXCLUSIVE_NOW` and `UNLOCK`. A strategy raises BlockingIOError when another one holds the lock.
Unlocking without holding it, and locking twice, are harmless. With ``locking="file"``, the strategy is `fcntl.flock`
itself, a C function that nothing can interrupt halfway. All others are an `Adapter`.
"""

from __future__ import annotations

import errno
from collections.abc import Callable
from contextlib import suppress
from typing import Final

Flock = Callable[[int, int], None]

# LOCK_EX | LOCK_NB and LOCK_UN of flock, which are the same numbers on all systems that have it.
EXCLUSIVE_NOW: Final = 6
UNLOCK: Final = 8


class Adapter:
    """A lock that is not the file itself, called like `flock`. It ignores the descriptor."""

    __slots__ = ("beside", "remedy")

    remedy: str  #: the end of the message of a LockTimeout: what helps, and what does not
    beside: str | None  #: the lock file, if we chose it

    def __call__(self, fd: int, operation: int) -> None:
        if operation == UNLOCK:
            try:
                self.release()
            except BaseException:
                # One asynchronous exception must not leave the lock held. An error of the second try says nothing new.
                with suppress(Exception):
                    self.release()
                raise
        elif not self.take():
            raise BlockingIOError(errno.EAGAIN, "another process or thread holds the lock")

    def take(self) -> bool:
        """Lock without waiting. False if another process or thread holds it, True if we held it already."""
        raise NotImplementedError

    def release(self) -> None:
        """Unlock, if we hold it."""
        raise NotImplementedError

    def forget(self) -> None:
        """In the child of a fork: hold nothing, and do not release the lock of the parent."""
        raise NotImplementedError

    def holder(self) -> int | None:
        """The process that holds it, or None if that is unknown."""
        raise NotImplementedError
