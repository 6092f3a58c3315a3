"""When the document is written anew: by a vacuum, before a commit that it cannot take, and where it was deleted."""

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

#: A document, with whether it is the canonical one; what it says; and whether a base marker may follow it.
Edit: TypeAlias = tuple[tuple[bytes, bool], State, bool]


class Renewal:
    """Writes the state as one plain document. The caller holds the lock, and has caught up."""

    __slots__ = ("fs", "look", "memory", "merging", "rewriting", "site", "standing")

    def __init__(self, merging: Merging) -> None:
        self.merging, self.rewriting, self.standing = merging, merging.rewriting, merging.standing
        self.site, self.fs, self.look, self.memory = merging.site, merging.fs, merging.look, merging.memory

    def replace(self, merge: bool = True, absent: bool = False, edit: Callable[[State], Edit] | None = None) -> None:
        """Vacuum. Raises OSError, EditCameOut, and as an edit may.

        With *edit*, the state becomes what that makes of it, which nobody has known before.
        Without *merge*, an edit in place is left for later, by EditCameOut. With *absent*, nothing is at the path: then
        our file is not the state any more, and what somebody has made of it is none of our business.
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
            # The trailer makes all others read it, as behind any edit.
            self.rewriting.put(view, content, document, state, known(view), appendable=appendable)
            return
        document = vacuum.document(journal.base, state, self.site.path, journal.canonical)
        self.rewriting.put(view, content, document, state, absent=absent)

    def write_again(self) -> bool:
        """Write the state to its path, where nothing is. False when something is by now."""
        try:
            self.replace(absent=True)
        except vacuum.EditCameOut:
            return False
        except expected(OSError) as error:
            if isinstance(error, PStateError):
                raise
            message = (
                f"{self.site.path}: was deleted while it was open, and could not be written again: "
                f"{error.strerror or error}. Nothing was changed; the state is in memory. Make its folder anew."
            )
            raise WriteError(message, path=self.site.path, errno=error.errno) from error
        return True

    def before_commit(self) -> None:
        """Write the document anew, because no record can follow it as it is. Raises WriteError and EditCameOut."""
        try:
            self.replace(merge=False)
        except expected(OSError) as error:
            message = (
                f"{self.site.path}: the document must be written anew before a commit can follow it, which failed: "
                f"{error}. Nothing was changed. The folder must be writable and have room for a copy."
            )
            raise WriteError(message, path=self.site.path, errno=error.errno) from error

    def if_due(self) -> None:
        """Vacuum when the journal has become long enough. What does not work is logged: the commits are valid."""
        _, _, _, _, journal = self.standing.view
        try:
            if self.fs.lseek(journal.fd, 0, os.SEEK_END) >= journal.vacuum_at:
                self.replace()
        except vacuum.EditCameOut:
            pass  # the next look finds it
        except expected(InvalidEditError) as error:
            self.look.complain(error)
        except expected(OSError) as error:
            # Tried again when the journal has doubled, so that what the attempts cost stays in proportion.
            journal.vacuum_at *= 2
            tell = logger.debug if journal.is_put_off else logger.warning
            journal.is_put_off = True
            tell("%s: vacuum put off, the journal goes on growing: %s", self.site.path, error)
