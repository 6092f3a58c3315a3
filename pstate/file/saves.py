"""Handles another file at the path than the one that memory is at: waits for a save to end, and goes on in the file."""

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
    """Handles files that others have put at the path, without changing any."""

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
                    "Reads return the last good state. Try again when it has finished."
                )
                raise InvalidEditError(message, path=self.site.path)
            self.fs.sleep(limits.QUIET / 10)
        return status.st_mtime_ns

    def _is_at_work(self, journal: Journal) -> bool:
        """Whether programs commit to *journal*, another file than ours, so that no editor is writing it.

        A document that can take neither marker nor trailer is replaced without a trailer. Then only this tells.
        """
        data = journal.read()
        image = f.scan(data)
        if image.trailer is not None:
            return f.split_trailer(data) is not None  # a vacuum has replaced it meanwhile, and knew all of it
        return bool(image.bodies) and not image.base_edited and not image.rest

    def saved(self) -> Journal:
        """The file that a person has saved at the path. Raises InvalidEditError if it is empty, and memory is not."""
        journal = self.site.open_journal()
        if self.is_emptied(journal):
            raise self.site.emptied()
        return journal

    def is_emptied(self, journal: Journal) -> bool:
        """Whether *journal*, which a person has saved, is empty, and memory is not."""
        view = self.standing.memory.view
        if view is None:
            return False
        _, end, _, _, _ = view
        return bool(end) and not self.fs.fstat(journal.fd).st_size

    def follow(self, trailer: f.Trailer, at_most: float) -> bool:
        """Go on in the file at the path, because a vacuum has replaced ours. False if there is none at the moment.

        *at_most*: how long to wait if it is being saved. Raises StateFileError, with memory as it was.
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
            # It has the state in memory. Reading it again would be the most expensive step here.
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
                message = (
                    f"{self.site.path}: the file is empty, probably because another program is saving it. Nothing was "
                    "changed. Reads return the last good state. Try again when it has finished."
                )
                raise InvalidEditError(message, path=self.site.path, line=1, column=1)
            self.standing.load(journal, "edit" if vacuum.is_of_edit(trailer) else "other")
            self.past.remember(before)
        except BaseException:
            if self.standing.journal is not journal:
                journal.close()
            raise
        return True

    def is_saved_over(self, view: View) -> bool:
        """Whether the file was saved in place since the transaction began, so that its record would follow other bytes
        than our last commit.

        If the file ends with our last commit, it does not count: the edit above it is merged with the record later.
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
        """Raise InvalidEditError if, after a long transaction, the path shows a file that is not a state.

        If it is a state, it is merged with the record after that was written.
        """
        journal.demand()
        status = self.site.status()
        if status is None or journal.is_file_of(status):
            return
        try:
            saved = self.saved()
            data = saved.read()
            # Not `recovery.read`: an edit above our journal can be merged with the record.
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
        """The error for a change that was planned on the state before an edit. The next look finds the edit."""
        self.look.expect_change()
        message = (
            f"{self.site.path}: the file was edited while a change of it was under way. The change was undone, and the "
            "file has the edit. Repeat the change: it then begins with the edited state."
        )
        return EditConflict(message, path=self.site.path)
