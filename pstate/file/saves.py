"""A file at the path that is not the one that memory is at: whether a save is over, and going on in what is there."""

from __future__ import annotations

from zlib import crc32

from pstate.errors import EditConflict, InvalidEditError, StateFileError, WriteError
from pstate.file import format as f
from pstate.file import limits, recovery, vacuum
from pstate.file.fs import is_shortage
from pstate.file.journal import Journal, View
from pstate.file.past import Past
from pstate.file.standing import Standing
from pstate.signals import expected


class Saves:
    """Meets what others have put at the path, and changes no file."""

    __slots__ = ("fs", "look", "past", "site", "standing")

    def __init__(self, standing: Standing, past: Past) -> None:
        self.site, self.fs, self.look = standing.site, standing.fs, standing.look
        self.standing, self.past = standing, past

    def await_quiet(self, journal: Journal, at_most: float | None = None) -> int:
        """Wait until the program that saves *journal* has finished; returns its time stamp. Raises InvalidEditError."""
        deadline = self.fs.clock() + (limits.QUIET_AT_MOST if at_most is None else at_most)
        while not self.look.is_quiet(status := self.fs.fstat(journal.fd)):
            ours = self.standing.journal
            if (
                ours is not None
                and journal is not ours
                and (self._is_at_work(journal) or self.site.leads_elsewhere(ours))
            ):
                break
            if self.fs.clock() >= deadline:
                message = (
                    f"{self.site.path}: another program is still saving the file. Nothing was changed. "
                    "Reads go on from the last good state; try again when it has finished."
                )
                raise InvalidEditError(message, path=self.site.path)
            self.fs.sleep(limits.QUIET / 10)
        return status.st_mtime_ns

    def _is_at_work(self, journal: Journal) -> bool:
        """Whether *journal*, another file than ours, is one that programs commit to: no editor is in the middle of it.

        A document that could take neither marker nor trailer is replaced without one; then this is what tells.
        """
        data = journal.read()
        image = f.scan(data)
        if image.trailer is not None:
            return f.split_trailer(data) is not None  # a vacuum has replaced it meanwhile, and knew all of it
        return bool(image.bodies) and not image.base_edited and not image.rest

    def saved(self) -> Journal:
        """What a person has saved at the path. Raises InvalidEditError when it is empty, and we know more."""
        journal = self.site.open_journal()
        if self.is_emptied(journal):
            raise self.site.emptied()
        return journal

    def is_emptied(self, journal: Journal) -> bool:
        """Whether *journal*, what a person has saved, is empty, and memory is not."""
        view = self.standing.memory.view
        if view is None:
            return False
        _, end, _, _, _ = view
        return bool(end) and not self.fs.fstat(journal.fd).st_size

    def follow(self, trailer: f.Trailer, at_most: float) -> bool:
        """A vacuum has replaced our file: go on in the one that is at the path. False when none is there just now.

        *at_most*: how long to wait for somebody who is saving it. Raises StateFileError, with memory as it was.
        """
        journal = self.site.open_other()
        if journal is None:
            return False
        _, _, _, index, before = self.standing.view
        base = journal.read(0, trailer.length) if trailer.index == index else b""
        if (
            base
            and len(base) == trailer.length
            and crc32(base) == trailer.crc
            and self.standing.ends_there(journal, base)
        ):
            # What memory holds; reading it again would be the most expensive thing here.
            journal.mtime = self.fs.fstat(journal.fd).st_mtime_ns
            journal.set_base(base, None, appendable=True)
            if self.standing.trails:
                self.standing.trails.become(journal, None, "other", 0, None)
            self.past.remember(before)
            self.standing.publish(journal, (journal.fd, len(base), 0, 0, journal))
            return True
        try:
            # Another vacuum has come since, or a person's save, which may not be over.
            self.await_quiet(journal, at_most)
            if trailer.length and not self.fs.fstat(journal.fd).st_size:
                message = f"{self.site.path}: is empty just now, somebody seems to be saving it."
                raise InvalidEditError(message, path=self.site.path, line=1, column=1)
            self.standing.load(journal, "edit" if vacuum.is_of_edit(trailer) else "other")
            self.past.remember(before)
        except BaseException:
            if self.standing.journal is not journal:
                journal.close()
            raise
        return True

    def is_saved_over(self, view: View) -> bool:
        """Whether somebody has saved in place since the transaction began, so that its record would follow bytes that
        it does not go on from.

        A file that ends in our last commit is not such a case: the edit above it is brought together with the record
        afterwards.
        """
        fd, end, crc, index, journal = view
        try:
            size = self.fs.lseek(fd, 0, 2)
        except expected(OSError):
            size = -1
        if size == end:
            return False
        journal.demand()
        return not (index and b"# %08x" % crc in journal.read(max(0, size - 17), 17))

    def refuse_broken_save(self, journal: Journal) -> None:
        """A transaction has taken long. Raise InvalidEditError if the path shows by now what is not a state.

        A save that is one is brought together with the record, after it was written.
        """
        journal.demand()
        status = self.site.status()
        if status is None or journal.is_file_of(status):
            return
        try:
            saved = self.saved()
            data = saved.read()
            # Not `recovery.read`: an edit above our journal is one that can be brought together with the record.
            recovery.document(recovery.judge(f.scan(data), data, self.site.path, self.fs.boot_id).base, self.site.path)
        except InvalidEditError:
            raise
        except StateFileError as error:
            raise self.site.invalid(error) from error
        except expected(OSError) as error:
            if is_shortage(error):
                raise WriteError(str(error), path=self.site.path, errno=error.errno) from error
            raise self.site.unusable(error) from error

    def edited_meanwhile(self) -> EditConflict:
        """For a change that was planned on what memory is; the next look at the file finds the edit."""
        self.look.expect_change()
        message = (
            f"{self.site.path}: the file was edited while a change of it was under way. The change was undone; the "
            "edit is in the file. Do it again on what the state is then."
        )
        return EditConflict(message, path=self.site.path)
