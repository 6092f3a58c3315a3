"""Opening the state file, and the files of ours beside it: which path, which flags, which error for which refusal.

What is in a file is the business of others (`journal`, `recovery`).
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

#: The bytes that a name may have on the file systems we know (NAME_MAX).
LONGEST_NAME = 255
_NOT_PERMITTED = (errno.EACCES, errno.EPERM, errno.EROFS)


def open_state(fs: FileSystem, path: str, *, read_only: bool) -> Journal:
    """Open the state file at *path*.

    Raises FileNotFoundError when there is none (just now), NotAFileError, ReadOnlyError when it may not be opened so,
    and UnreadableError for what the system says otherwise.
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
            continue  # somebody was faster
        except expected(FileNotFoundError) as error:
            raise missing(path, error) from error


def _journal(fs: FileSystem, path: str, flags: int, read_only: bool) -> Journal:
    try:
        journal = Journal(fs, path, flags, 0o666)
    except expected(IsADirectoryError, NotADirectoryError):
        _refuse_kind(path, "is a directory, or lies in what is none")
    except expected(OSError) as error:
        if error.errno == errno.ENXIO:
            _refuse_kind(path, "is no regular file")
        if isinstance(error, (FileNotFoundError, FileExistsError)):
            raise
        if error.errno not in _NOT_PERMITTED:
            message = f"{path}: cannot be opened: {error.strerror or error}. Nothing was changed. {remedy(error)}"
            raise UnreadableError(message, path=path, errno=error.errno) from error
        raise _not_permitted(path, error, created=bool(flags & os.O_CREAT), read_only=read_only) from error
    if not stat.S_ISREG(journal.mode):
        _refuse_kind(path, "is a directory" if stat.S_ISDIR(journal.mode) else "is no regular file")
    return journal


def remedy(error: OSError) -> str:
    """What to do where the system could not open a file."""
    if error.errno in SHORTAGE:
        return "Close what is not needed, or raise the limit (ulimit -n), and try again."
    return "Give a path that the system can open, or mend what keeps it from that."


def _refuse_kind(path: str, kind: str) -> NoReturn:
    message = f"{path}: {kind}. Nothing was changed. Give the path of a file, or of one that does not exist yet."
    raise NotAFileError(message, path=path) from None


def _not_permitted(path: str, error: OSError, *, created: bool, read_only: bool) -> ReadOnlyError:
    why = error.strerror
    if error.errno == errno.EROFS:
        why = "it lies on a file system that is mounted read-only"
    if created:
        what, advice = "created", "Get the permission to write in its folder, or choose another path."
    elif read_only:
        what, advice = "opened for reading", "Get the permission to read it."
    else:
        what = "opened for writing"
        advice = "Get the permission, or open it with PersistedState.open(path, read_only=True)."
    message = f"{path}: cannot be {what}: {why}. Nothing was changed. {advice}"
    return ReadOnlyError(message, path=path, errno=error.errno)


def missing(path: str, error: OSError) -> MissingPathError:
    """What to say when there is no file at *path*, and none may be begun."""
    folder = os.path.dirname(path)
    if is_folder(folder):
        message = (
            f"{path}: there is no such file (any more). Nothing was changed. "
            "Opening it without read_only begins a new one."
        )
    else:
        message = (
            f"{path}: the folder {folder} does not exist. Nothing was created. Create the folder first: "
            "pstate creates files, not folders."
        )
    return MissingPathError(message, path=path, errno=error.errno)


def fitting(name: str, more: int) -> str:
    """*name*, or a short one that stands for it where *more* bytes behind it would be too many for a file system."""
    encoded = os.fsencode(name)
    return name if len(encoded) + more <= LONGEST_NAME else f"{crc32(encoded):08x}"


def write_all(fs: FileSystem, fd: int, content: bytes) -> None:
    """Write *content* to a new file that nobody else knows yet, in as many pieces as the system wants."""
    written = 0
    while written < len(content):
        written += fs.write(fd, content[written:])


def read_beside(fs: FileSystem, path: str, owner: int, at_most: int = sys.maxsize) -> tuple[bytes, int] | None:
    """The bytes of the file *path* beside a state of the user *owner*, *at_most* so many, and how many names it has.

    None where there is nothing. Raises NotOurs where it is not a regular file of *owner* or of this process's user, or
    may not be read; and what the system says otherwise.
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
            # Half of what must be kept looks like all of it, and takes the room that was missing.
            with tolerating(OSError):
                fs.unlink(kept)
            raise
        return kept
    finally:
        file.close()
