"""Replaces the file at the path by a new one with another document."""

from __future__ import annotations

from pstate.engine import State
from pstate.errors import StateFileError
from pstate.file import recovery, vacuum
from pstate.file.beside import Beside
from pstate.file.journal import Journal, Known, View
from pstate.file.past import Past
from pstate.file.standing import Standing
from pstate.logger import Logger
from pstate.signals import expected
from pstate.values import same

logger = Logger("pstate.file.rewriting")


class Rewriting:
    """Replaces the file that memory is at by a new one at the path, and locks that before it releases the old one."""

    __slots__ = ("beside", "fs", "hold", "past", "site", "standing")

    def __init__(self, standing: Standing, past: Past, beside: Beside) -> None:
        self.site, self.fs = standing.site, standing.fs
        self.standing, self.hold, self.past, self.beside = standing, standing.hold, past, beside

    def put(
        self,
        view: View,
        content: bytes,
        document: tuple[bytes, bool],
        state: State,
        judged: Known | None = None,
        absent: bool = False,
        appendable: bool = True,
    ) -> None:
        """Replace the file that ends at *view*, whose lock we hold, by one with *document*, whose state is *state*.
        Then memory is at the new file.

        *content* is the content of the old file, from which *state* was made.

        With *judged*, *state* is a person's edit merged with the commits up to there. Nothing of it is noted before the
        new file is at the path, so that an interruption leaves our knowledge as it was.

        *document* comes with whether it is the canonical one. *appendable*: whether a marker may follow it, as it may
        after any document that a person has not written.
        """
        standing, hold, memory = self.standing, self.hold, self.standing.memory
        _, _, _, _, old = view
        before = standing.journal
        text, canonical = document
        if absent:
            old.path = self.fs.real_path(self.site.path)  # a link may lead elsewhere by now
        elif old.path != self.site.path and self.site.is_moved(old):
            # The link was switched between the two calls that opened the file.
            old.path = self.fs.real_path(self.site.path)
            raise vacuum.EditCameOut
        self.clear_leftovers(old)

        def publish(new: Journal) -> None:
            new.appendable = appendable
            new.canonical = canonical
            unlock = hold.unlocker(new)
            # Without a call, so that no exception of a signal handler comes in between.
            new.published = True
            standing.journal = hold.journal = new
            hold.unlock = unlock
            if standing.trails:
                standing.trails.become(new, None if judged is None else state, "edit", 0, None)
            if judged is not None:
                memory.view = None
                memory.adopt(state)
            if before is not None:
                self.past.remember(before)
            standing.publish(new, (new.fd, len(text), 0, 0, new))

        try:
            new = vacuum.replace(self.fs, hold.flock, old, view, content, text, publish, judged, absent)
            new.folder_due = False
            new.synced = len(text)
        except vacuum.EditCameOut:
            standing.look.expect_change()
            raise
        finally:
            # The caller releases the lock of the new file. The descriptor of the old one is not closed before its last
            # view is gone: another thread may be about to ask for its size, and the number could mean another file.
            if standing.journal is not before:
                try:
                    hold.leave(old)
                except BaseException:
                    hold.leave(old)  # an exception may have come before its first instruction
                    raise
        self.await_watchers(old)

    def clear_leftovers(self, old: Journal) -> None:
        """Delete files that killed vacuums of *old* have left. A file that may be a person's is kept."""
        _, _, _, _, journal = self.standing.view
        for name, stranger in vacuum.leftovers(old):
            if not self._says_the_same(stranger, journal.base):
                kept = self.beside.keep("conflict", stranger, self.standing.journal)
                logger.error(
                    "%s: a process that was killed while it rewrote the file had moved a person's save aside. The save "
                    "was kept in %s. Compare it with the file.",
                    self.site.path,
                    kept,
                )
            self.fs.unlink(name)

    def _says_the_same(self, content: bytes, base: bytes) -> bool:
        """Whether the file with *content* has the same state as the document *base*.

        The file that a vacuum has replaced has, if a power cut removed the trailer that proves it.
        """
        try:
            found = recovery.read(content, self.site.path, self.fs.boot_id)
            state = self.standing.replay(found.state, found.records, lambda: content)
            return same(state, recovery.document(base, self.site.path))
        except expected(StateFileError):
            return False

    def await_watchers(self, old: Journal) -> None:
        """Wait for processes that watch *old*, which another file has replaced, and which we have unlocked.

        Not with a lock for the path: they could not move to the new file before we release it.
        """
        if self.hold.is_of_file:
            vacuum.await_watchers(old)
