"""The write lock: which file is locked, and how to unlock it."""

from __future__ import annotations

import errno
from collections.abc import Callable
from functools import partial

from pstate.engine import Unlock
from pstate.file import lock
from pstate.file.flock import UNLOCK, Flock
from pstate.file.journal import Journal
from pstate.file.site import Site


class Hold:
    """The file that was locked last. A single call unlocks it, in the `finally` of the caller that locked it."""

    __slots__ = ("_site", "flock", "is_of_file", "journal", "unlock")

    def __init__(self, site: Site, locking: object) -> None:
        self._site = site
        #: Whether each file has a lock of its own, so that others can lock a new file while we hold the old one.
        #: Otherwise one lock is for the path, no matter which file it shows.
        self.is_of_file = locking == "file"
        self.flock: Flock = site.fs.flock if site.fs.flock and self.is_of_file else lock.make(locking, site.path)
        #: The locked journal. Held here so that its descriptor is not closed, and its number given to another file,
        #: before it is unlocked.
        self.journal: Journal | None = None
        #: A C function, because an asynchronous exception comes after a call: a Python function could be cut off before
        #: its first instruction. It may be called twice, and when nothing is held.
        self.unlock: Unlock = int

    def take(self, journal: Journal) -> None:
        """Note that the next lock is that of *journal*, so that `unlock` releases it."""
        self.journal = journal
        self.unlock = self.unlocker(journal)

    def unlocker(self, journal: Journal) -> Unlock:
        """The function that unlocks *journal*. It is made once for each journal."""
        if journal.unlock is int:
            journal.unlock = partial(self.flock, journal.fd, UNLOCK)
        return journal.unlock

    def acquire(self, journal: Journal, timeout: float | None, meanwhile: Callable[[], object] = int) -> None:
        """Lock *journal*, see `lock.acquire`; call *meanwhile* at each pause. Raises LockTimeout."""
        fs = self._site.fs
        may_unlock = partial(self._may_unlock, journal)
        lock.acquire(self.flock, journal.fd, self._site.path, timeout, fs.clock, fs.sleep, meanwhile, may_unlock)

    def give_way(self, journal: Journal) -> None:
        """See `lock.give_way`."""
        if self._may_unlock(journal):
            lock.give_way(self.flock, journal.fd, self._site.fs.sleep)

    def release(self) -> None:
        """Unlock, whether locked or not. An exception may come before its first instruction: then call it again."""
        self.drop_lost()
        self.unlock()

    def release_other(self, journal: Journal) -> None:
        """Unlock *journal*, which is not, or no longer, the one that is held."""
        if self._may_unlock(journal):
            self.flock(journal.fd, UNLOCK)

    def leave(self, old: Journal) -> None:
        """Unlock *old*, which another file has replaced that is held now. A lock for the path is not released here."""
        if self.is_of_file:
            self.release_other(old)

    def _may_unlock(self, journal: Journal) -> bool:
        """Whether a lock call for *journal* cannot affect another file."""
        return not self.is_of_file or journal.is_ours()

    def unlock_again(self, error: OSError) -> bool:
        """Unlock again after the system has refused it with *error*; returns whether to raise that.

        A lock that cannot be released because its descriptor is closed has ended with the descriptor.
        """
        self.release()
        return self.unlock is not int or error.errno != errno.EBADF

    def drop_lost(self) -> None:
        """Hold nothing, if the descriptor that was locked is no longer ours: the lock has ended with it."""
        if self.is_of_file and self.journal is not None and not self.journal.is_ours():
            self.unlock = int

    def check(self) -> None:
        """See `engine.Log.check`."""
        is_of_journal = self.journal is not None and self.unlock is self.journal.unlock
        assert self.unlock is int or is_of_journal, "I2: `unlock` would unlock another file than the one that is held"

    def drop(self) -> None:
        """Hold nothing, without unlocking."""
        self.unlock = int
        self.journal = None
