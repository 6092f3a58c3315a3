"""What is on stable storage: durability "power"."""

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
    """Brings commits to stable storage, by one sync for all threads that wait for one. Its callers hold no lock."""

    __slots__ = ("_fs", "_look", "_memory", "_site", "_turn", "_under_way")

    def __init__(self, site: Site, look: Look, memory: Memory) -> None:
        self._site, self._fs, self._look, self._memory = site, site.fs, look, memory
        #: The thread that syncs holds it; None when none does. `_turn` guards this attribute.
        self._under_way: threading.RLock | None = None
        self._turn = threading.RLock()

    def settle(self, view: View) -> None:
        """Return when the commits up to *view* are on stable storage: with durability "power", before they are
        acknowledged, or acted on.

        Threads that arrive during a sync have written already. So the first of them syncs for all, and the others find
        it done. Raises DurabilityUnknown, to each of them.
        """
        while not self.is_settled(view):
            _, _, _, _, journal = self._memory.view or view
            if self.is_refused(journal):
                raise DurabilityUnknown(
                    f"{self._site.path}: the change is committed and visible, but bringing it to stable storage "
                    "together with another thread's failed. This state takes no more writes: vacuum() writes a fresh "
                    "file, or close it and open it again.",
                    path=self._site.path,
                )
            # A lock for each sync: one for all would go again and again to the thread that has just given it back,
            # while those who wait for it have nothing left to wait for.
            with self._turn:
                under_way = self._under_way
                mine = self._under_way = under_way or threading.RLock()
            if under_way is None:
                with mine:
                    # What memory is now was written before, and the file of an older view has gone into it.
                    newest = self._memory.view or view
                    _, end, _, _, journal = newest
                    base = journal.base
                    is_newest = self._memory.view is newest
                    self._sync(journal)
                    # Not where the document has changed meanwhile: its end may be before the one that was synced.
                    if is_newest and journal.base is base:
                        journal.synced = end
                self._end_sync(mine)
                return
            with under_way:
                pass
            self._end_sync(under_way)  # for a thread that was interrupted

    def _end_sync(self, ended: threading.RLock) -> None:
        with self._turn:
            if self._under_way is ended:
                self._under_way = None

    def settle_what_is_read(self, view: View | None) -> None:
        """`settle` for a reader, who cannot help it when that fails: it is logged, and writes are refused."""
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
            # Noted before anything is called: a signal handler may raise there, and the next sync would succeed.
            journal.unjudged = error
            self._look.look_at = self._look.look_due = 0.0
            self.failed(journal, error, part)

    def failed(self, journal: Journal, error: OSError, part: str = "it") -> NoReturn:
        """A sync of *journal*, or of *part* of what belongs to it, has raised *error*, and that is noted. Raises
        DurabilityUnknown; or *error*, where a signal handler has raised that.
        """
        if not self.is_refused(journal):
            raise error
        message = (
            f"{self._site.path}: the change is committed and visible, but bringing {part} to stable storage failed: "
            f"{error.strerror or error}. A later sync cannot be trusted (the system forgets the failed pages), so this "
            "state takes no more writes: vacuum() writes a fresh file, or close it and open it again."
        )
        raise DurabilityUnknown(message, path=self._site.path, errno=error.errno) from error

    def is_refused(self, journal: Journal) -> bool:
        """Whether *journal* takes no more writes. It does not after a sync that failed, if the system has said so."""
        error = journal.unjudged
        if error is not None:
            if not is_foreign(error):
                journal.refusal = (
                    f"{self._site.path}: an earlier sync failed, so nothing here can be promised any more. Nothing was "
                    "changed. vacuum() writes a fresh file; or close the state and open it again."
                )
            if journal.unjudged is error:
                journal.unjudged = None
        return bool(journal.refusal)

    def forget(self) -> None:
        """In a forked child: the thread that syncs is the parent's."""
        self._turn = threading.RLock()
        self._under_way = None
