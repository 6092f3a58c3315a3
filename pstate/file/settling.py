"""Brings commits to stable storage, for durability "power"."""

from __future__ import annotations

import os
import threading
from typing import NoReturn

from pstate.engine import Memory
from pstate.errors import DurabilityUnknown
from pstate.file.journal import Journal, View
from pstate.file.look import Look
from pstate.file.site import Site
from pstate.logger import Logger
from pstate.signals import expected, is_foreign

logger = Logger("pstate.file.settling")


class Settling:
    """Brings commits to stable storage, with one sync for all threads that wait for one. Its callers hold no lock."""

    __slots__ = ("_fs", "_look", "_memory", "_site", "_turn", "_under_way")

    def __init__(self, site: Site, look: Look, memory: Memory) -> None:
        self._site, self._fs, self._look, self._memory = site, site.fs, look, memory
        #: The lock that the syncing thread holds; None while no thread syncs. `_turn` guards this attribute.
        self._under_way: threading.RLock | None = None
        self._turn = threading.RLock()

    def settle(self, view: View) -> None:
        """Return when the commits up to *view* are on stable storage. With durability "power", a commit counts only
        then, and so does a value that was read.

        Threads that arrive during a sync have written already. So the first of them syncs for all, and the others find
        it done. Raises DurabilityUnknown in each of them.
        """
        while not self.is_settled(view):
            _, _, _, _, journal = self._memory.view or view
            if self.is_refused(journal):
                raise DurabilityUnknown(
                    f"{self._site.path}: the change is committed and visible, but bringing it to stable storage, "
                    "together with a change of another thread, failed. The state refuses writes until you call "
                    "vacuum(), which writes a new file, or close it and open it again.",
                    path=self._site.path,
                )
            # A lock for each sync: the thread that has just released a common lock would often get it again, while
            # others still wait for a sync that is over.
            with self._turn:
                under_way = self._under_way
                mine = self._under_way = under_way or threading.RLock()
            if under_way is None:
                with mine:
                    # The present state of memory was written before, and includes the file of an older view.
                    newest = self._memory.view or view
                    _, end, _, _, journal = newest
                    base = journal.base
                    is_newest = self._memory.view is newest
                    self._sync(journal)
                    # Not if the document has changed meanwhile: its end may be before the one that was synced.
                    if is_newest and journal.base is base:
                        journal.synced = end
                self._end_sync(mine)
                return
            with under_way:
                pass
            self._end_sync(under_way)  # in case the syncing thread was interrupted

    def _end_sync(self, ended: threading.RLock) -> None:
        with self._turn:
            if self._under_way is ended:
                self._under_way = None

    def settle_what_is_read(self, view: View | None) -> None:
        """`settle` for a reader, which cannot do anything about a failure: it is logged, and writes are refused."""
        if view is None:
            return
        _, _, _, _, journal = view
        if not journal.refusal:
            try:
                self.settle(view)
            except expected(DurabilityUnknown) as error:
                logger.error("%s", error)

    def is_settled(self, view: View) -> bool:
        """Whether the commits up to *view* are known to be on stable storage."""
        _, end, _, _, journal = view
        return journal.synced >= end

    def _sync(self, journal: Journal) -> None:
        part = "it"
        try:
            journal.demand()
            self._fs.sync_data(journal.fd)
            if journal.folder_due:
                part = "its folder"
                self._fs.sync_folder(os.path.dirname(journal.path))
                journal.folder_due = False
        except OSError as error:
            # Noted before any call: a signal handler may raise there, and the next sync would succeed.
            journal.unjudged = error
            self._look.look_at = self._look.look_due = 0.0
            self.failed(journal, error, part)

    def failed(self, journal: Journal, error: OSError, part: str = "it") -> NoReturn:
        """Raise DurabilityUnknown after a sync of *journal*, or of its *part*, has raised *error*, which is noted. If a
        signal handler has raised *error*, raise that.
        """
        if not self.is_refused(journal):
            raise error
        message = (
            f"{self._site.path}: the change is committed and visible, but bringing {part} to stable storage failed: "
            f"{error.strerror or error}. A later sync cannot be trusted, because the system forgets the failed pages. "
            "The state refuses writes until you call vacuum(), which writes a new file, or close it and open it again."
        )
        raise DurabilityUnknown(message, path=self._site.path, errno=error.errno) from error

    def is_refused(self, journal: Journal) -> bool:
        """Whether *journal* refuses writes, as it does after a sync for which the system has reported an error."""
        error = journal.unjudged
        if error is not None:
            if not is_foreign(error):
                journal.refusal = (
                    f"{self._site.path}: an earlier sync failed, so writes are refused: none could be promised. "
                    "Nothing was changed. Call vacuum(), which writes a new file, or close the state and open it again."
                )
            if journal.unjudged is error:
                journal.unjudged = None
        return bool(journal.refusal)

    def forget(self) -> None:
        """In a forked child: the syncing thread exists only in the parent."""
        self._turn = threading.RLock()
        self._under_way = None
