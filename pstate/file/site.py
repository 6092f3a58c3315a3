"""The path of a state: the file that it shows at present, and the errors for what is wrong with it."""

from __future__ import annotations

import os

from pstate.errors import DurabilityUnknown, InvalidEditError, StateFileError, UnreadableError, WriteError
from pstate.file import files, limits
from pstate.file.fs import FileSystem, is_shortage
from pstate.file.journal import Journal
from pstate.signals import expected


class Site:
    """The path that a log follows. Each look follows a symbolic link in it again."""

    __slots__ = ("fs", "path", "read_only")

    def __init__(self, path: str, fs: FileSystem, read_only: bool) -> None:
        self.path = path
        self.fs = fs
        self.read_only = read_only

    def open_journal(self) -> Journal:
        """The file at the path, opened. Raises the errors of the system, and as `files.open_state`."""
        journal = files.open_state(self.fs, self.path, read_only=self.read_only)
        journal.path = self.fs.real_path(self.path)
        if self.read_only:
            journal.refusal = self.refusal()
        return journal

    def refusal(self) -> str:
        """Why a log that is `read_only` refuses writes."""
        return (
            f"{self.path}: the state was opened read_only. Nothing was changed. Open it without read_only to change it."
        )

    def open_other(self) -> Journal | None:
        """The file that others have put at the path, opened; None if there is none. Raises InvalidEditError."""
        try:
            return self.open_journal()
        except expected(FileNotFoundError):
            return None
        except expected(OSError) as error:
            if is_shortage(error):
                raise
            raise self.unusable(error) from error

    def status(self) -> os.stat_result | None:
        """The status of the file at the path; None if there is none. Raises WriteError if the system does not tell."""
        try:
            return self.fs.stat(self.path)
        except expected(FileNotFoundError):
            return None
        except expected(OSError) as error:
            message = (
                f"{self.path}: the path cannot be reached: {error.strerror or error}. Nothing was changed. Until it "
                "can be reached, reads return the last good state, and writes are refused."
            )
            raise WriteError(message, path=self.path, errno=error.errno) from error

    def await_file(self) -> os.stat_result | None:
        """Wait for the path to come back: some editors move the old file away before they write the new one."""
        deadline = self.fs.clock() + limits.MISSING
        while (status := self.status()) is None and self.fs.clock() < deadline:
            self.fs.sleep(0.005)
        return status

    def is_moved(self, journal: Journal) -> bool:
        """Whether *journal* is no longer at its path without links."""
        try:
            return not journal.is_file_of(self.fs.stat(journal.path))
        except expected(FileNotFoundError):
            return True

    def leads_elsewhere(self, journal: Journal) -> bool:
        """Whether a link in the path leads to another name than that of *journal*.

        A program writes a file before it switches a link to it, so there is no save to wait for.
        """
        return self.fs.real_path(self.path) != journal.path

    # ------------------------------------------------------------------ errors

    def unreadable(self, error: OSError) -> UnreadableError:
        """*error* of the system as an UnreadableError."""
        message = f"{self.path}: the file cannot be read: {error.strerror}. Nothing was changed. {files.remedy(error)}"
        return UnreadableError(message, path=self.path, errno=error.errno)

    def unusable(self, error: OSError) -> InvalidEditError:
        """The error for a file that others have put at the path, and that cannot be opened because of *error*."""
        message = (
            f"{self.path}: the file was replaced while it was open, and the new one cannot be used: {error}. Nothing "
            "was changed. Until it can be used, reads return the last good state, and writes are refused."
        )
        return InvalidEditError(message, path=self.path)

    def emptied(self) -> InvalidEditError:
        """The error for an empty file. Every editor that saves in place empties the file first."""
        message = (
            f"{self.path}: the file was emptied while it was open. Until it has content again, reads return the last "
            "good state, and writes are refused. To begin an empty state, write {} into it."
        )
        return InvalidEditError(message, path=self.path, line=1, column=1)

    def invalid(self, error: StateFileError) -> InvalidEditError:
        """The error for an edit that cannot be read because of *error*."""
        message = (
            f"{error} The file was edited while it was open. Until it parses, reads return the last good state, and "
            "writes are refused."
        )
        return InvalidEditError(message, path=self.path, line=error.line, column=error.column)

    def not_at_path(self, error: Exception) -> DurabilityUnknown:
        """The error for a commit that was written, if the look at the path after it found another file, or failed."""
        message = (
            f"{self.path}: the change is committed and visible, but it may not be in the file at the path, which "
            f"another program has replaced, deleted or made unreachable meanwhile: {error} The next change tries to "
            "write it there. It is lost if all programs that know it end before that."
        )
        return DurabilityUnknown(message, path=self.path, errno=getattr(error, "errno", None))
