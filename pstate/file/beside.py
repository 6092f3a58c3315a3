"""Keeps content that would otherwise be lost in files beside the state."""

from __future__ import annotations

from pstate.errors import WriteError
from pstate.file import files
from pstate.file.journal import Journal
from pstate.file.site import Site
from pstate.signals import expected, tolerating


class Beside:
    """Keeps content in files beside the state, and the same content only once."""

    __slots__ = ("_kept", "_site")

    def __init__(self, site: Site) -> None:
        self._site = site
        #: The role, the content and the path of the last file.
        self._kept: tuple[str, bytes, str] | None = None

    def keep(self, role: str, content: bytes, journal: Journal | None) -> str:
        """Keep *content* in a file that is named after *role* and the generation of *journal*; returns its path.

        Raises WriteError.
        """
        fs, path = self._site.fs, self._site.path
        if self._kept is not None and self._kept[:2] == (role, content):
            with tolerating(OSError):
                fs.stat(self._kept[2])
                return self._kept[2]  # the same conflict, met again
        generation = journal.marker.generation if journal and journal.marker else fs.token()
        ending = ".yaml" if role == "conflict" else ""
        try:
            kept = files.keep_beside(fs, fs.real_path(path), f"{role}-{generation}{ending}", content)
        except expected(OSError) as error:
            message = (
                f"{path}: a copy of content that would be lost could not be written beside the file: "
                f"{error.strerror or error}. Nothing was changed. Make the folder writable, and make room in it."
            )
            raise WriteError(message, path=path, errno=error.errno) from error
        self._kept = role, content, kept
        return kept
