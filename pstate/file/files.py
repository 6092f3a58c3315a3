"""Opens the state file, and our files beside it: which path, which flags, which error for which refusal.

Other modules know the contents (`journal`, `recovery`).
"""

from __future__ import annotations

import errno
import os
import stat
import sys
from typing import NoReturn
from zlib import crc32

from pstate.errors import MissingPathError, NotAFileError, ReadOnlyError, UnreadableError
from pstate.file.fs import SHORTAGE, Descriptor, FileSystem, NotOurs, is_folder, must_be_ours, open_beside
from pstate.file.journal import Journal
from pstate.signals import expected, tolerating

#: The longest name on the file systems that we know, in bytes (NAME_MAX).
LONGEST_NAME = 255
_NOT_PERMITTED = (errno.EACCES, errno.EPERM, errno.EROFS)


def open_state(fs: FileSystem, path: str, *, read_only: bool) -> Journal:
    """Open the state file at *path*.

    Raises FileNotFoundError if it does not exist at the moment, NotAFileError, ReadOnlyError if the permission is
    missing, and UnreadableError for any other error of the system.
    """
    flags = os.O_NONBLOCK | os.O_NOCTTY | (os.O_RDONLY if read_only else os.O_RDWR | os.O_APPEND)
    return _journal(fs, path, flags, read_only)


def create_state(fs: FileSystem, path: str) -> Journal:
    """Open the state file at *path*, or begin an empty one there.

    Raises as `open_state`, and MissingPathError when the folder is missing: pstate creates files, not folders.
    """
    while True:
        with tolerating(FileNotFoundError):
            return open_state(fs, path, read_only=False)
        try:
            flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_EXCL
            return _journal(fs, path, flags, read_only=False)
        except expected(FileExistsError):
            continue  # another program was faster
        except expected(FileNotFoundError) as error:
            raise missing(path, error) from error


def _journal(fs: FileSystem, path: str, flags: int, read_only: bool) -> Journal:
    try:
        journal = Journal(fs, path, flags, 0o666)
    except expected(IsADirectoryError, NotADirectoryError):
        _refuse_kind(path, "is a directory, or a part of the path before it is not one")
    except expected(OSError) as error:
        if error.errno == errno.ENXIO:
            _refuse_kind(path, "is not a regular file")
        if isinstance(error, (FileNotFoundError, FileExistsError)):
            raise
        if error.errno not in _NOT_PERMITTED:
            message = f"{path}: the file cannot be opened: {error.strerror or error}. Nothing was changed. "
            message += remedy(error)
            raise UnreadableError(message, path=path, errno=error.errno) from error
        raise _not_permitted(path, error, created=bool(flags & os.O_CREAT), read_only=read_only) from error
    if not stat.S_ISREG(journal.mode):
        _refuse_kind(path, "is a directory" if stat.S_ISDIR(journal.mode) else "is not a regular file")
    return journal


def remedy(error: OSError) -> str:
    """What to do after the system could not open a file."""
    if error.errno in SHORTAGE:
        return "Close files that you do not need, or raise the limit (ulimit -n), and try again."
    return "Use a path that the system can open, or remove the cause of the error."


def _refuse_kind(path: str, kind: str) -> NoReturn:
    message = f"{path}: {kind}. Nothing was changed. Use the path of a file, or one that does not exist yet."
    raise NotAFileError(message, path=path) from None


def _not_permitted(path: str, error: OSError, *, created: bool, read_only: bool) -> ReadOnlyError:
    why = error.strerror
    if error.errno == errno.EROFS:
        why = "it is on a file system that is mounted read-only"
    if created:
        what, advice = "created", "Get the permission to write to its folder, or use another path."
    elif read_only:
        what, advice = "opened for reading", "Get the permission to read it."
    else:
        what = "opened for writing"
        advice = "Get the permission to write it, or open it with PersistedState.open(path, read_only=True)."
    message = f"{path}: the file cannot be {what}: {why}. Nothing was changed. {advice}"
    return ReadOnlyError(message, path=path, errno=error.errno)


def missing(path: str, error: OSError) -> MissingPathError:
    """The error for a *path* without a file, if no new one may be created there."""
    folder = os.path.dirname(path)
    if is_folder(folder):
        message = (
            f"{path}: the file does not exist. Nothing was changed. To create it, open the state without read_only."
        )
    else:
        message = (
            f"{path}: the folder {folder} does not exist. Nothing was created. Create the folder first: "
            "pstate creates files, not folders."
        )
    return MissingPathError(message, path=path, errno=error.errno)


def fitting(name: str, more: int) -> str:
    """*name*, or a short replacement if *more* bytes after it would be too many for a file system."""
    encoded = os.fsencode(name)
    return name if len(encoded) + more <= LONGEST_NAME else f"{crc32(encoded):08x}"


def write_all(fs: FileSystem, fd: int, content: bytes) -> None:
    """Write *content* to a new file that no other program knows yet, in several pieces if the system needs that."""
    written = 0
    while written < len(content):
        written += fs.write(fd, content[written:])


def read_beside(fs: FileSystem, path: str, owner: int, at_most: int = sys.maxsize) -> tuple[bytes, int] | None:
    """The first *at_most* bytes of the file *path* beside a state of the user *owner*, and the number of its names.

    None if it does not exist. Raises NotOurs if it is not a regular file of *owner* or of this process's user, or may
    not be read; and any other error of the system.
    """
    file = Descriptor(fs)
    try:
        try:
            status = open_beside(fs, file, path, os.O_RDONLY)
        except expected(FileNotFoundError):
            return None
        except expected(PermissionError) as error:
            raise NotOurs(error.errno, "cannot be read", path) from error
        must_be_ours(fs, path, status, owner)
        content = bytearray()
        while len(content) < at_most:
            part = fs.pread(file.number, min(at_most - len(content), 1 << 20), len(content))
            if not part:
                break
            content += part
        return bytes(content), status.st_nlink
    finally:
        file.close()


def keep_beside(fs: FileSystem, path: str, role: str, content: bytes) -> str:
    """Write *content* to a new file *path*.*role*, with a number if need be, synced; returns its path."""
    stem, ending = os.path.splitext(role)
    folder, name = os.path.split(path)
    name = fitting(name, len(role) + 4)
    number = 1
    file = Descriptor(fs)
    try:
        while True:
            kept = os.path.join(folder, f"{name}.{stem}{'' if number == 1 else f'-{number}'}{ending}")
            try:
                open_beside(fs, file, kept, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
                break
            except expected(FileExistsError):
                number += 1
        try:
            write_all(fs, file.number, content)
            fs.sync(file.number)
        except BaseException:
            # Half of the content would look like all of it, and take up the room that was missing.
            with tolerating(OSError):
                fs.unlink(kept)
            raise
        return kept
    finally:
        file.close()
