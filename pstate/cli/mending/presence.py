"""Whether there is a file, and what to say where there is none. Every command asks, so this imports little."""

from __future__ import annotations

import os

from pstate.errors import MissingPathError
from pstate.file import files
from pstate.signals import expected


def must_exist(file: str) -> int:
    """The size of *file*; 0 where opening it says what is wrong. Raises MissingPathError where there is none."""
    try:
        return os.stat(file).st_size
    except expected(FileNotFoundError) as error:
        raise missing(file, error) from error
    except expected(OSError):
        return 0


def missing(file: str, error: OSError) -> MissingPathError:
    """What to say when there is no *file*."""
    path = os.path.abspath(file)
    if not os.path.isdir(os.path.dirname(path)):
        return files.missing(path, error)
    message = f"{path}: there is no such file. Nothing was changed. To begin one: pstate set {file} KEY VALUE"
    return MissingPathError(message, path=path, errno=error.errno)
