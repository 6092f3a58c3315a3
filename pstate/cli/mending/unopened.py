"""Reads a state file without opening it as a state: without waiting, and without changing a byte.

Other commands use the package `file` through this module only.
"""

from __future__ import annotations

import os
from typing import Any

from pstate.cli.mending.presence import missing
from pstate.engine import State
from pstate.errors import CorruptStateError
from pstate.file import files, recovery, vacuum
from pstate.file.fs import SYSTEM
from pstate.memory import ops
from pstate.memory.changes import grown
from pstate.signals import expected


def content(file: str) -> bytes:
    """All bytes of *file*, of one moment. Raises as opening a state does."""
    path = os.path.realpath(file)
    try:
        journal = files.open_state(SYSTEM, path, read_only=True)
    except expected(FileNotFoundError) as error:
        raise missing(file, error) from error
    try:
        return journal.read()
    finally:
        journal.close()


def replayed(found: recovery.Content, file: str, data: bytes) -> Any:
    """The state after the last commit of the file with the bytes *data*, read as *found*, as a plain tree."""
    root = grown(found.state)
    for number, operations in enumerate(found.records, 1):
        try:
            ops.replay(root, [operations], None)
        except (LookupError, TypeError, ValueError) as error:
            raise does_not_fit(found, file, data, number, error) from error
    return ops.plain(root)


def read(data: bytes, file: str) -> recovery.Content:
    """The checked content of the bytes *data* of *file*. Raises StateFileError."""
    return recovery.read(data, file, SYSTEM.boot_id)


def does_not_fit(found: recovery.Content, file: str, data: bytes, number: int, error: Exception) -> CorruptStateError:
    """For record *number*, the first one that does not fit what the ones before it have made, as *error* says."""
    return recovery.does_not_fit(file, data, number - 1, len(found.records) - number, error)


def document(found: recovery.Content, state: State, file: str) -> bytes:
    """The document that a vacuum would write for *state*; the file itself, if a vacuum would not change it."""
    base = found.image.base
    is_as_it_is = not found.image.bodies and not recovery.is_theirs(base)
    return base if is_as_it_is else vacuum.document(base, state, file)[0]
