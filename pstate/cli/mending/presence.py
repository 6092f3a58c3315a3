"""Whether a file exists, and the error if it does not. Every command asks, so this module imports little."""

from __future__ import annotations

import os

from pstate.cli.urls import Url
from pstate.errors import MissingPathError
from pstate.file import files
from pstate.signals import expected

#: The size of a state on a server: reading it may take long.
UNKNOWN_SIZE = 1 << 30


def must_exist(file: str) -> int:
    """The size of *file*; 0 if opening it will fail. Raises MissingPathError if it does not exist.

    A URL is not looked at: opening it to read fails in the same way.
    """
    if isinstance(file, Url):
        return UNKNOWN_SIZE
    try:
        return os.stat(file).st_size
    except expected(FileNotFoundError) as error:
        raise missing(file, error) from error
    except expected(OSError):
        return 0


def missing(file: str, error: OSError) -> MissingPathError:
    """The error if *file* does not exist."""
    path = os.path.abspath(file)
    if not os.path.isdir(os.path.dirname(path)):
        return files.missing(path, error)
    message = f"{path}: the file does not exist. Nothing was changed. To create it: pstate set {file} KEY VALUE"
    return MissingPathError(message, path=path, errno=error.errno)
