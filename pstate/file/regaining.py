"""Opens or reads the file again when memory, or its descriptor, can no longer be trusted."""

from __future__ import annotations

import errno

from pstate.errors import MissingPathError, StateFileError
from pstate.file import files, limits
from pstate.file import format as f
from pstate.file.fs import NO_DESCRIPTOR
from pstate.file.journal import Journal, View
from pstate.file.saves import Saves
from pstate.logger import Logger
from pstate.signals import expected

logger = Logger("pstate.file.regaining")


class Regaining:
    """Reads the file again after an interrupted change, and opens it again if the program has closed it."""

    __slots__ = ("fs", "hold", "look", "past", "saves", "site", "standing")

    def __init__(self, saves: Saves) -> None:
        self.saves = saves
        self.site, self.fs, self.look, self.past, self.standing = (
            saves.site, saves.fs, saves.look, saves.past, saves.standing,
        )  # fmt: skip
        self.hold = self.standing.hold

    def reload(self, create: bool = False) -> None:
        """Read the whole file, because memory cannot be trusted, or is empty."""
        standing = self.standing
        if standing.journal is not None and not standing.journal.is_ours():
            self.regain_or_raise()
            if standing.memory.view is not None:
                return
        if standing.journal is not None:
            # Not the file at the path: a commit of ours may be in this one, and must be known before an edit is judged.
            try:
                standing.load(standing.journal)
            except expected(StateFileError):
                if standing.before is None or _journal(standing.before) is not standing.journal:
                    raise
                # A person has edited it meanwhile, and the interrupted record follows the edit: we know both sides.
                standing.restore(standing.before)
            return
        if create:
            # Without links: opening a link that leads nowhere cannot create its target.
            journal = files.create_state(self.fs, self.fs.real_path(self.site.path))
        else:
            try:
                journal = self.site.open_journal()
            except expected(FileNotFoundError) as error:
                raise files.missing(self.site.path, error) from error
        standing.load(journal)

    def is_loss(self, error: OSError) -> bool:
        """Whether *error* came because the program has closed the descriptor of the file."""
        journal = self._current()
        return error.errno == errno.EBADF and journal is not None and not journal.is_ours()

    def _regain(self, at_most: float) -> bool:
        """Open the file again, because the program has closed our descriptor, whose number may mean another file.

        If the file has our journal, memory goes on in it, even if it was changed otherwise. If not, others have
        replaced it, and it is read, as in a forked child. False if the path shows nothing. Raises as `Saves.follow`.
        """
        old = self._current()
        assert old is not None
        if old.fd != NO_DESCRIPTOR:
            logger.warning(
                "%s: this program has closed the descriptor of the file, which is opened again. Leave the descriptors "
                "of pstate open.",
                self.site.path,
            )
            old.lose(old.fd)
            self.look.retry_at = 0.0
        self.hold.drop_lost()
        old.is_ready = False
        while True:
            new = None
            try:
                new = self.site.open_journal()
                self._go_on_in(new, old, at_most)
                return True
            except expected(FileNotFoundError):
                return False
            except expected(OSError) as error:
                if error.errno != errno.EBADF or (new is not None and new.is_ours()):
                    raise  # otherwise another thread has just closed this one as well

    def _go_on_in(self, new: Journal, old: Journal, at_most: float) -> None:
        """Move memory from *old* to *new*, which the path shows. See `_regain`."""
        image = f.scan(new.read())
        if not _goes_on(image, old):
            self.saves.await_quiet(new, at_most)
            if old.content and not self.fs.fstat(new.fd).st_size:
                new.demand()
                raise self.site.emptied()
            self.standing.load(new)
            self.past.remember(old)
            return
        new.demand()
        new.take_over(old)
        # All of it is checked again, as after a save in place: there may have been one.
        self.look.expect_change()
        self.look.retry_at = 0.0
        new.mtime = -1
        standing = self.standing
        standing.hold.unlocker(new)
        standing.trails.move(new)
        if standing.before is not None and _journal(standing.before) is old:
            standing.before = _moved(standing.before, new)
        view = standing.memory.view
        standing.journal = new
        if view is not None:
            standing.memory.view = _moved(view, new)

    def regained(self) -> bool:
        """`_regain` for a reader. If it fails, reads return the last good state."""
        started = self.fs.clock()
        journal = self.standing.journal
        if started < self.look.retry_at and journal is not None and journal.fd == NO_DESCRIPTOR:
            return False  # it failed a moment ago
        try:
            return self._regain(limits.QUIET_FOR_READERS)
        except StateFileError as error:
            self.look.complain(error)
            self.look.retry_after(started)
            return False

    def regain_or_raise(self) -> None:
        """`_regain` for a writer, or for a reader without a last good state."""
        try:
            if not self._regain(limits.QUIET_AT_MOST) and self.site.await_file() is None:
                message = (
                    f"{self.site.path}: the file was deleted while it was open, and this program has closed its "
                    "descriptor. Nothing was changed. To begin a new file, close the state and open it again."
                )
                raise MissingPathError(message, path=self.site.path, errno=errno.ENOENT)
        except StateFileError as error:
            raise self.site.invalid(error) from error

    def _current(self) -> Journal | None:
        """The journal that memory is at, if that is known."""
        view = self.standing.memory.view
        return self.standing.journal if view is None else _journal(view)


def _goes_on(image: f.Image, journal: Journal) -> bool:
    """Whether *image* has the history of *journal*. It may have more commits, or edits."""
    if journal.marker is None:
        return image.base == journal.base
    return image.marker is not None and image.marker.generation == journal.marker.generation


def _journal(view: View) -> Journal:
    _, _, _, _, journal = view
    return journal


def _moved(view: View, journal: Journal) -> View:
    """*view* in *journal*, which is the same file, opened again."""
    _, end, crc, index, _ = view
    return (journal.fd, end, crc, index, journal)
