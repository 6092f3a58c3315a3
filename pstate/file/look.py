"""Decides when to look at the path again, and whether a save of the file there is over."""

from __future__ import annotations

import os
from typing import NamedTuple

from pstate.file import limits
from pstate.file.fs import FileSystem
from pstate.logger import Logger

logger = Logger("pstate.file.look")


class Trouble(NamedTuple):
    """Why reads return the last good state, and writes are refused: the file at the path cannot be used at present."""

    told: str = ""  #: the message that was logged
    is_unmerged: bool = False  #: whether an edit is in the file, and our commits are in memory only


class Look:
    """Until when the last look at the path counts, and the trouble that it has found.

    Only a look that has found our file moves `look_at` and `look_due` into the future (`looked`). So a commit before
    those times need not consider any other look.
    """

    __slots__ = ("_unquiet", "check_at", "fs", "look_at", "look_due", "retry_at", "trouble")

    def __init__(self, fs: FileSystem) -> None:
        self.fs = fs
        #: Until when the last look counts for a read or a change that begins, and for a commit that returns.
        self.look_at = self.look_due = 0.0
        #: Until when a read need not repeat a look that found another file. A commit ignores it.
        self.retry_at = 0.0
        #: Until when the content of a file whose time stamp has moved need not be compared again.
        self.check_at = 0.0
        #: None while there is no trouble: `looked` clears it.
        self.trouble: Trouble | None = None
        #: Inode, size and time stamps of a file that is being saved, and since when they have been the same.
        self._unquiet: tuple[tuple[int, int, int, int], float] | None = None

    def looked(self, now: float, is_easy: bool) -> None:
        """The path shows our file, as of *now*. Every read looks at one that is not *easy*: see `Journal.is_easy`."""
        if is_easy:
            self.look_at, self.look_due = now + limits.LOOK_INTERVAL / 2, now + limits.LOOK_INTERVAL
        else:
            self.look_at = self.look_due = now
        self.retry_at = 0.0
        self.trouble = None

    def expect_change(self) -> None:
        """Let the next read or change look at the path, even if the last look still counts."""
        self.look_at = self.look_due = self.check_at = 0.0

    def retry_after(self, started: float) -> None:
        """Put off the next look, in proportion to the time of the last one, from *started* until now, which failed."""
        now = self.fs.clock()
        self.retry_at = now + max(limits.CHECK_INTERVAL, limits.CHECK_COST * (now - started))

    def check_after(self, started: float) -> None:
        """Put off the next comparison of the content, after one from *started* until now that found no difference."""
        self.check_at = started + max(limits.CHECK_INTERVAL, limits.CHECK_COST * (self.fs.clock() - started))

    def check(self) -> None:
        """See `engine.Log.check`."""
        assert self.look_at <= self.look_due, "I6: a look counts for a change that begins, but not for a commit"

    def complain(self, error: Exception) -> None:
        """Log why reads return the last good state: once, until the trouble is over or has another reason."""
        message = str(error)
        trouble = self.trouble or Trouble()
        if message != trouble.told:
            self.trouble = trouble._replace(told=message)
            logger.warning("%s", message)

    def is_quiet(self, status: os.stat_result) -> bool:
        """Whether a save seems to be over: the file with this *status* has not changed for a while.

        An editor writes a large file in pieces, and its content between two of them may parse. A file other than ours
        need not be complete, either: some editors first move the old one away, and then write at the path.
        """
        age = self.age(status)
        if age is not None and age > 2 * limits.QUIET:
            return True
        now = self.fs.clock()
        seen = self._unquiet
        looks = status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns
        if seen is None or seen[0] != looks:
            self._unquiet = seen = looks, now
        return now - seen[1] >= limits.QUIET

    def age(self, status: os.stat_result) -> float | None:
        """For how many seconds, at least, the file with this *status* has not been written to. None if its time stamps
        are in the future, as after the clock was set back: then they say nothing.

        Each write sets both time stamps. `tar` and `scp -p` set the first one back, so the younger one counts.
        """
        wall = self.fs.wall()
        past = [stamp for stamp in (status.st_mtime_ns, status.st_ctime_ns) if stamp <= wall * 1e9]
        if not past:
            return None
        youngest = max(past)
        return wall - youngest / 1e9 - (0.0 if youngest % 1_000_000_000 else limits.COARSE)
