"""Merges a person's save with our commits."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from pstate.engine import State
from pstate.errors import EditConflict, StateFileError, WriteError
from pstate.file import format as f
from pstate.file import recovery, vacuum
from pstate.file.beside import Beside
from pstate.file.hold import Hold
from pstate.file.journal import Journal, Known, View, known
from pstate.file.look import Trouble
from pstate.file.rewriting import Rewriting
from pstate.file.saves import Saves
from pstate.file.trail import place_behind
from pstate.logger import Logger
from pstate.signals import expected
from pstate.text import dumping, reading

if TYPE_CHECKING:
    from pstate.file import edits

logger = Logger("pstate.file.merging")


class Merging:
    """Judges a save once, and writes the result. The caller holds the lock."""

    __slots__ = ("beside", "fs", "hold", "look", "memory", "past", "rewriting", "saves", "site", "standing")

    def __init__(self, saves: Saves, rewriting: Rewriting) -> None:
        self.saves, self.rewriting = saves, rewriting
        self.site, self.fs, self.look, self.past, self.standing = (
            saves.site, saves.fs, saves.look, saves.past, saves.standing,
        )  # fmt: skip
        self.hold: Hold = rewriting.hold
        self.beside: Beside = rewriting.beside
        self.memory = self.standing.memory

    def resolve_saved_elsewhere(self, old: Journal, timeout: float | None, ancestor: State | None = None) -> bool:
        """Handle another file that an editor has put at the path. We hold the lock of *old*, and take that of the new
        file.

        The process that judges the save leaves a trailer in the old file, so that all others only follow. With
        *ancestor*, another process has done so, but had read our commits only up to that state. False if the path shows
        yet another file by now.
        """
        new = self.site.open_other()
        if new is None:
            return False
        if new.identity == old.identity:
            # A vacuum of another file has exchanged it away and back. Our own lock would exclude us from it.
            new.close()
            return False
        view = self.standing.view
        _, _, _, commits, _ = view
        self.hold.unlocker(new)
        try:
            self.hold.acquire(new, timeout)
            status = self.site.status()
            if status is None or not new.is_file_of(status):
                return False
            conflict = self._resolve(new, ancestor)
        except vacuum.EditCameOut:
            return False
        finally:
            if self.standing.journal is old:
                vacuum.give_up(new)
            else:
                # From here on, the new file is the state in any case, and its lock is the one to release.
                # Without a call, so that no exception of a signal handler comes in between.
                held = self.standing.journal or new
                self.hold.journal = held
                self.hold.unlock = held.unlock
                try:
                    # A file that a link led to stays a file of its own. Without commits, no process needs the trailer.
                    if commits or not self.site.leads_elsewhere(old):
                        try:
                            vacuum.leave_edit_trailer(old, known(view))
                        except BaseException:
                            vacuum.leave_edit_trailer(old, known(view))  # as below
                            raise
                finally:
                    try:
                        self.hold.leave(old)
                    except BaseException:
                        self.hold.leave(old)  # an exception may have come before its first instruction
                        raise
        self.rewriting.await_watchers(old)
        if conflict is not None:
            raise conflict
        return True

    def resolve_saved_in_place(self, journal: Journal) -> bool:
        """Handle an edit that was written into our file, whose lock we hold.

        False if the path shows another file by now.
        """
        try:
            conflict = self._resolve(journal)
        except vacuum.EditCameOut:
            return False
        if conflict is not None:
            raise conflict
        return True

    def _resolve(self, journal: Journal, ancestor: State | None = None) -> EditConflict | None:
        """Merge a person's save in *journal* with our commits; memory and the file become the result.

        Returns the error to raise if one file could not keep both; then our state is in a file beside. Raises
        InvalidEditError if the edit does not parse, WriteError if the result could not be written, and EditCameOut if
        another edit came in between. Nothing has changed then, in memory or in the file.
        """
        view = self.standing.view
        _, end, _, _, ours = view
        mtime = self.saves.await_quiet(journal)
        data = journal.read()
        mine = self.memory.plain()
        if not data and end:
            raise self.site.emptied()
        try:
            image = recovery.judge(f.scan(data), data, self.site.path, self.fs.boot_id)
            base = reading.load(image.base, self.site.path)
            from pstate.file import edits

            result = edits.reconcile(self._history(view, mine, data), image, base.value, data, ancestor)
        except expected(StateFileError) as error:
            raise self.site.invalid(error) from error
        for sentence in result.lost:
            logger.warning(
                "%s: an edit and a program changed the same value, and the edit wins: %s", self.site.path, sentence
            )
        kept = self.beside.keep("conflict", dumping.dump(mine), ours) if result.conflict else None
        if image.rest:
            self._keep_rest(image)
            journal.truncate(image.end)
        if result.write:
            edited = (journal.fd, image.end, image.crc, image.index, journal)
            if journal is ours:
                generation, index = known(view)
                judged = generation, max(index, result.contains)
            else:
                # This trailer is for processes that have gone on in that file; our file gets its own.
                judged = (image.marker.generation if image.marker else f.NO_GENERATION), image.index
            self._write_merged(edited, data[: image.end], image.base, result.state, judged)
        else:
            if self.standing.trails:
                self.standing.trails.become(journal, result.state, "edit", image.index, place_behind(image))
            self.standing.become(result.state, journal, data, image, base.appendable, mtime)
        logger.info("%s: an edit was read and merged", self.site.path)
        if not result.conflict:
            return None
        message = (
            f"{self.site.path}: the file was edited, and {result.conflict}. The file has the edit. The state with the "
            f"commits of this program was kept in {kept}. Compare the two files, and merge them by hand."
        )
        logger.error("%s", message)
        return EditConflict(message, path=self.site.path, conflict_path=kept)

    def _write_merged(self, edited: View, content: bytes, base: bytes, state: State, judged: Known) -> None:
        """Replace the file *edited* by one with *state*, which the edit *base* and our commits make together."""
        try:
            self.rewriting.put(edited, content, vacuum.document(base, state, self.site.path), state, judged)
        except expected(OSError) as error:
            message = (
                f"{self.site.path}: the file was edited while it was open, and the edit and the commits of this "
                f"program could not be written together: {error}. Nothing was changed: the file has the edit, and "
                "reads return the last state of this program. The folder must be writable and have room for a copy."
            )
            self.look.trouble = (self.look.trouble or Trouble())._replace(is_unmerged=True)
            raise WriteError(message, path=self.site.path, errno=error.errno) from error

    def _history(self, view: View, mine: State, data: bytes) -> edits.History:
        from pstate.file import edits

        _, _, crc, index, journal = view
        return edits.History(
            path=self.site.path,
            state=mine,
            base=journal.base,
            generation=journal.marker.generation if journal.marker else None,
            index=index,
            crc=crc,
            previous=self.past.known(),
            replay=partial(self.standing.replay, file=lambda: data),
            bodies=journal.bodies(index),
        )

    def cut(self, journal: Journal) -> bool:
        """Cut the bytes after `end`. False if the file is not the one that memory knows, which is an edit then.

        Nothing is cut before a scan of the whole file has shown our history (I1): after a person has saved in place,
        `end` alone means nothing.
        """
        _, end, _, index, _ = self.standing.view
        data = journal.read()
        image = recovery.scan(data)
        if not self.standing.is_ours(image, journal):
            return False
        recovery.judge(image, data, self.site.path, self.fs.boot_id)
        if image.trailer is not None:
            logger.info("%s: the trailer of an unfinished vacuum was cut off. The state is unchanged.", self.site.path)
        elif not self._keep_rest(image):
            logger.warning(
                "%s: the torn tail of an interrupted write was cut off: %d bytes after commit %d (offset %d), %r. "
                "It does not count as a commit.",
                self.site.path, len(image.rest), index, end, image.rest[:80],
            )  # fmt: skip
        try:
            if image.trailer is not None:
                vacuum.discard_dead(journal, image.trailer)
            journal.truncate(end)
        except expected(OSError) as error:
            message = (
                f"{self.site.path}: {len(image.rest)} bytes that an interrupted write left after commit {index} could "
                f"not be cut off: {error.strerror or error}. Nothing was changed. Repair the disk, and try again."
            )
            raise WriteError(message, path=self.site.path, errno=error.errno) from error
        return True

    def _keep_rest(self, image: f.Image) -> bool:
        """Keep bytes that a power cut has made unreadable in a file beside. False if they are an unfinished write."""
        if not f.has_more(image):
            return False
        kept = self.beside.keep("cut", image.rest, self.standing.journal)
        logger.error(
            "%s: %d bytes after commit %d (offset %d) are unreadable after a power cut, and %d commits after them "
            "are lost. All of these bytes were kept in %s",
            self.site.path, len(image.rest), image.index, image.end, image.following, kept,
        )  # fmt: skip
        return True

    def is_edited_unseen(self) -> bool:
        """Whether the path shows a file that no process has merged with our commits."""
        journal = self.standing.journal
        assert journal is not None
        status = self.site.status()
        if status is None or journal.marker is None:
            return False
        if not journal.is_file_of(status):
            return f.scan(journal.read()).trailer is None
        view = self.memory.view
        return view is not None and not journal.holds(view)

    def keep_ours(self, error: Exception) -> None:
        """Keep our state in a file beside: the file does not take our commits, and only this process may know them."""
        try:
            kept = self.beside.keep("conflict", dumping.dump(self.memory.plain()), self.standing.journal)
        except expected(OSError) as failure:
            logger.error(
                "%s The state with the commits of this program could not be kept beside the file either: %s",
                error,
                failure,
            )
        else:
            logger.error("%s The state with the commits of this program was kept in %s", error, kept)
