"""Rewrites the document: in a vacuum, before a commit that cannot follow it, and after the file was deleted."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TypeAlias

from pstate.engine import State
from pstate.errors import InvalidEditError, PStateError, WriteError
from pstate.file import recovery, vacuum
from pstate.file.journal import known
from pstate.file.merging import Merging
from pstate.logger import Logger
from pstate.signals import expected

logger = Logger("pstate.file.renewal")

#: A document, with whether it is the canonical one; its state; and whether a base marker may follow it.
Edit: TypeAlias = tuple[tuple[bytes, bool], State, bool]


class Renewal:
    """Writes the state as one plain document. The caller holds the lock, and has caught up."""

    __slots__ = ("fs", "look", "memory", "merging", "rewriting", "site", "standing")

    def __init__(self, merging: Merging) -> None:
        self.merging, self.rewriting, self.standing = merging, merging.rewriting, merging.standing
        self.site, self.fs, self.look, self.memory = merging.site, merging.fs, merging.look, merging.memory

    def replace(self, merge: bool = True, absent: bool = False, edit: Callable[[State], Edit] | None = None) -> None:
        """Vacuum. Raises OSError, EditCameOut, and as an edit may.

        With *edit*, the state becomes what that function returns.
        Without *merge*, an edit in place is left for later, by EditCameOut. With *absent*, the path shows no file: then
        our file is no longer the state, and edits of it do not matter.
        """
        view = self.standing.view
        _, end, _, _, journal = view
        content = journal.read()
        # Scanning would cost 1 µs for each record of the journal, at each close.
        if (
            not absent
            and content != journal.content
            and (not self.standing.is_ours(recovery.scan(content), journal) or len(content) != end)
        ):
            if not merge or not self.merging.resolve_saved_in_place(journal):
                raise vacuum.EditCameOut
            view = self.standing.view
            _, end, _, _, journal = view
            content = journal.read(0, end)
        state = self.memory.plain()
        if edit is not None:
            document, state, appendable = edit(state)
            # The trailer makes all other programs read it, as after any edit.
            self.rewriting.put(view, content, document, state, known(view), appendable=appendable)
            return
        document = vacuum.document(journal.base, state, self.site.path, journal.canonical)
        self.rewriting.put(view, content, document, state, absent=absent)

    def write_again(self) -> bool:
        """Write the state to its path, where no file is. False if there is one by now."""
        try:
            self.replace(absent=True)
        except vacuum.EditCameOut:
            return False
        except expected(OSError) as error:
            if isinstance(error, PStateError):
                raise
            message = (
                f"{self.site.path}: the file was deleted while it was open, and could not be written again: "
                f"{error.strerror or error}. Nothing was changed; the state is in memory. Create its folder again, or "
                "make it writable."
            )
            raise WriteError(message, path=self.site.path, errno=error.errno) from error
        return True

    def before_commit(self) -> None:
        """Rewrite the document, because no record can follow it as it is. Raises WriteError and EditCameOut."""
        try:
            self.replace(merge=False)
        except expected(OSError) as error:
            message = (
                f"{self.site.path}: the document must be rewritten before a commit can follow it, and that failed: "
                f"{error}. Nothing was changed. The folder must be writable and have room for a copy."
            )
            raise WriteError(message, path=self.site.path, errno=error.errno) from error

    def if_due(self) -> None:
        """Vacuum if the journal is long enough. A failure is only logged, because the commits are valid."""
        _, _, _, _, journal = self.standing.view
        try:
            if self.fs.lseek(journal.fd, 0, os.SEEK_END) >= journal.vacuum_at:
                self.replace()
        except vacuum.EditCameOut:
            pass  # the next look finds it
        except expected(InvalidEditError) as error:
            self.look.complain(error)
        except expected(OSError) as error:
            # Tried again when the journal has doubled, so that the cost of the attempts stays in proportion.
            journal.vacuum_at *= 2
            tell = logger.debug if journal.is_put_off else logger.warning
            journal.is_put_off = True
            tell(
                "%s: the file could not be rewritten, so its journal keeps growing. No commit is lost. It is tried "
                "again later: %s",
                self.site.path,
                error,
            )
