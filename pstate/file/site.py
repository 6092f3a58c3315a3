"""The path of a state: what it shows just now, and the errors that say what is wrong with it."""

from __future__ import annotations

import os

from pstate.errors import DurabilityUnknown, InvalidEditError, StateFileError, UnreadableError, WriteError
from pstate.file import files, limits
from pstate.file.fs import FileSystem, is_shortage
from pstate.file.journal import Journal
from pstate.signals import expected


class Site:
    """The path that a log follows. Each look follows a symbolic link in it anew."""

    __slots__ = ("fs", "path", "read_only")

    def __init__(self, path: str, fs: FileSystem, read_only: bool) -> None:
        self.path = path
        self.fs = fs
        self.read_only = read_only

    def open_journal(self) -> Journal:
        """The file at the path, opened. Raises what the system says, and as `files.open_state`."""
        journal = files.open_state(self.fs, self.path, read_only=self.read_only)
        journal.path = self.fs.real_path(self.path)
        if self.read_only:
            journal.refusal = self.refusal()
        return journal

    def refusal(self) -> str:
        """Why a log that is `read_only` takes no writes."""
        return f"{self.path}: was opened read_only. Nothing was changed. Open it without read_only to change it."

    def open_other(self) -> Journal | None:
        """What others have put at the path, opened; None where nothing is there just now. Raises InvalidEditError."""
        try:
            return self.open_journal()
        except expected(FileNotFoundError):
            return None
        except expected(OSError) as error:
            if is_shortage(error):
                raise
            raise self.unusable(error) from error

    def status(self) -> os.stat_result | None:
        """What the path shows; None where it shows nothing. Raises WriteError where nobody can tell."""
        try:
            return self.fs.stat(self.path)
        except expected(FileNotFoundError):
            return None
        except expected(OSError) as error:
            message = (
                f"{self.path}: the path cannot be reached: {error.strerror or error}. Nothing was changed: reads go on "
                "from the last good state, writes are refused until it can."
            )
            raise WriteError(message, path=self.path, errno=error.errno) from error

    def await_file(self) -> os.stat_result | None:
        """Wait for the path to come back: some editors move the old file away before they write the new one."""
        deadline = self.fs.clock() + limits.MISSING
        while (status := self.status()) is None and self.fs.clock() < deadline:
            self.fs.sleep(0.005)
        return status

    def is_moved(self, journal: Journal) -> bool:
        """Whether *journal* is not at the path any more that it was opened by, without links."""
        try:
            return not journal.is_file_of(self.fs.stat(journal.path))
        except expected(FileNotFoundError):
            return True

    def leads_elsewhere(self, journal: Journal) -> bool:
        """Whether a link in the path leads to another name than that of *journal*.

        A program writes a file before it switches a link to it, so no save has to be waited for.
        """
        return self.fs.real_path(self.path) != journal.path

    # ------------------------------------------------------------------ errors

    def unreadable(self, error: OSError) -> UnreadableError:
        """*error*, which is the system's, as one of ours."""
        message = f"{self.path}: cannot be read: {error.strerror}. Nothing was changed. {files.remedy(error)}"
        return UnreadableError(message, path=self.path, errno=error.errno)

    def unusable(self, error: OSError) -> InvalidEditError:
        """For what somebody has put at the path, and what raises *error* when it is opened."""
        message = (
            f"{self.path}: what somebody has put at the path while it was open cannot be used: {error}. Nothing was "
            "changed: reads go on from the last good state, writes are refused until it can."
        )
        return InvalidEditError(message, path=self.path)

    def emptied(self) -> InvalidEditError:
        """For an empty file. Every editor that saves in place empties the file first."""
        message = (
            f"{self.path}: the file was emptied while it was open. Reads go on from the last good state, writes "
            "are refused until it has content again. To begin an empty state, write {} into it."
        )
        return InvalidEditError(message, path=self.path, line=1, column=1)

    def invalid(self, error: StateFileError) -> InvalidEditError:
        """For an edit that *error* says cannot be read."""
        message = (
            f"{error} The file was edited while it was open: reads go on from the last good state, "
            "writes are refused until it parses."
        )
        return InvalidEditError(message, path=self.path, line=error.line, column=error.column)

    def not_at_path(self, error: Exception) -> DurabilityUnknown:
        """For a commit that was written, where the look at the path that follows found another file, or failed."""
        message = (
            f"{self.path}: the change is committed and visible, but it may not be in the file at the path, which "
            f"another program has replaced, deleted or made unreachable meanwhile: {error} The next change tries to "
            "bring it there. It is lost if all programs that know it end before that."
        )
        return DurabilityUnknown(message, path=self.path, errno=getattr(error, "errno", None))
