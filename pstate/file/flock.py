"""What excludes other writers, called like `fcntl.flock`: ``flock(fd, operation)``.

The operations are `EXCLUSIVE_NOW` and `UNLOCK`. A strategy raises BlockingIOError when somebody else holds the lock;
unlocking without holding and locking twice are harmless. With ``locking="file"`` it *is* `fcntl.flock`, a C function,
so that nothing can interrupt it half way. All others are an `Adapter`.
"""

from __future__ import annotations

import errno
from collections.abc import Callable
from contextlib import suppress
from typing import Final

Flock = Callable[[int, int], None]

# LOCK_EX | LOCK_NB and LOCK_UN of flock, which are the same numbers wherever there is one.
EXCLUSIVE_NOW: Final = 6
UNLOCK: Final = 8


class Adapter:
    """A lock that is not the file itself, called like `flock`; which descriptor it is given does not matter."""

    __slots__ = ("beside", "remedy")

    remedy: str  #: the end of the message of a LockTimeout: what is, and is not, worth doing
    beside: str | None  #: the lock file, if we chose it

    def __call__(self, fd: int, operation: int) -> None:
        if operation == UNLOCK:
            try:
                self.release()
            except BaseException:
                # One asynchronous exception must not leave the lock held. What the second try raises says nothing new.
                with suppress(Exception):
                    self.release()
                raise
        elif not self.take():
            raise BlockingIOError(errno.EAGAIN, "locked by somebody else")

    def take(self) -> bool:
        """Lock without waiting. False: somebody else holds it. True if we held it already."""
        raise NotImplementedError

    def release(self) -> None:
        """Unlock, if we hold it."""
        raise NotImplementedError

    def forget(self) -> None:
        """In the child of a fork: hold nothing, and do not free what the parent holds."""
        raise NotImplementedError

    def holder(self) -> int | None:
        """The process that holds it, where that can be told."""
        raise NotImplementedError
