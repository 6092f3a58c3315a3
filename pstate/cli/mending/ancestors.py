"""Finds a document from before an edit, beside the file or in git, and proves it by length and checksum.

A base marker says how long the document was that its journal was written on, and its CRC-32. Editors leave a backup,
people keep copies, and git has the last version: if one of these is that document, it shows what was edited.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from typing import NamedTuple

from pstate.file import files
from pstate.file import format as f
from pstate.file.format import BaseMarker
from pstate.file.fs import SYSTEM
from pstate.signals import tolerating

#: Of a folder with very many files that look like copies, so many are read.
_MOST = 100
#: For git to give a file, in seconds.
_GIT_TIMEOUT = 10.0


class Ancestor(NamedTuple):
    """The document that a journal was written on."""

    base: bytes
    where: str  #: for a person


def find(path: str, marker: BaseMarker) -> Ancestor | None:
    """The document that *marker* of the file *path* was written after; None if it is not found."""
    for where, content in _candidates(path, marker.length):
        found = of(content, marker)
        if found is not None:
            return Ancestor(found, where)
    return None


def of(content: bytes, marker: BaseMarker) -> bytes | None:
    """The document that *marker* describes, if *content* is it, or a state file that begins with it."""
    for base in (content, f.scan(content).base, content[: marker.length]):
        if marker.describes(base):
            return base
    return None


def _candidates(path: str, length: int) -> Iterator[tuple[str, bytes]]:
    folder, name = os.path.split(path)
    stem = os.path.splitext(name)[0]
    with tolerating(OSError):
        owner = os.stat(path).st_uid
        others = sorted(other for other in os.listdir(folder) if stem in other and other != name)
        for other in others[:_MOST]:
            whole = os.path.join(folder, other)
            with tolerating(OSError):
                # The limit allows for other line ends, and for the marker after the document. Only files of the same
                # owner: a checksum of 32 bits does not protect against somebody who forges a document.
                found = files.read_beside(SYSTEM, whole, owner, 2 * length + 200)
                if found is not None:
                    yield whole, found[0]
    # `cat-file` does not run filters that the repository configures, and fetches nothing.
    command = ["git", "-C", folder, "cat-file", "blob", f"HEAD:./{name}"]
    with tolerating(OSError, subprocess.SubprocessError):
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            check=True,
            timeout=_GIT_TIMEOUT,
            env={**os.environ, "GIT_NO_LAZY_FETCH": "1"},
        )
        yield "git, HEAD", done.stdout
