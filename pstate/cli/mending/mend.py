"""Replaces a damaged file: keeps a copy beside it, and puts a new file in its place.

It is exchanged as by a vacuum (`vacuum.replace`), under its lock, so that nothing is half there whenever we die, and
programs that have it open go on in the new one. The file must still be exactly what the person was shown.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from typing import Any, NoReturn

from pstate.cli import show
from pstate.cli.command import No, Parser, Usage, declare_writing
from pstate.cli.users import User, users_of
from pstate.engine import State
from pstate.errors import DurabilityUnknown, InvalidStateError, WriteError
from pstate.file import files, lock, vacuum
from pstate.file import format as f
from pstate.file.flock import UNLOCK, Flock
from pstate.file.fs import SYSTEM
from pstate.file.journal import Journal, View, known
from pstate.signals import expected, tolerating
from pstate.text import reading
from pstate.values import same

#: For messages that end a command before it has replaced the file.
UNTOUCHED = "Nothing was changed."


def declare(parser: Parser) -> None:
    """The options of all commands that replace a damaged file."""
    parser.add_argument("-n", "--dry-run", action="store_true", help="only show what would be kept and what lost")
    parser.add_argument("--json", action="store_true", help="print JSON, an object in one line")
    parser.add_argument(
        "--while-open",
        action="store_true",
        help="even if programs that may have newer values have the file open for writing",
    )
    declare_writing(parser, durability=False)


def verdict(word: str, copy: str | None) -> str:
    """The last line for a person: the file is *word*, with a *copy* of what it was; or nothing was done."""
    return f"{show.coloured(word, 'green')}; as it was: {copy}\n" if copy else f"{UNTOUCHED}\n"


def done(word: str, copy: str | None) -> str:
    """What happened to the file, for a message about something else."""
    return f"The file is {word}; as it was: {copy}" if copy else UNTOUCHED


def refuse_while_open(path: str, arguments: Any) -> None:
    """Raise No while programs have the file open that may know more of the state than the file does."""
    writers = [user for user in users_of(path) if user.writes]
    if writers and not arguments.while_open:
        raise No(
            f"{path}: {_named(writers)} it open, and may have newer values in memory than the file has. Nothing was "
            "changed. End it first: when it closes, it repairs the file, or saves its values in a file beside it. "
            "Then look at both files. To continue anyway: --while-open"
        )


def _named(users: list[User]) -> str:
    names = [f"{user.program} (process {user.pid})" for user in users]
    return f"{', '.join(names)} {'has' if len(names) == 1 else 'have'}"


def must_come_back(path: str, text: bytes, state: State) -> None:
    """Raise InvalidStateError unless *text*, which would be written to *path*, is read back as *state*.

    Records of other programs may produce values that a document cannot hold.
    """
    try:
        if same(reading.load(text, path).value, state):
            return
        reason = "it would be another state"
    except InvalidStateError as error:
        reason = error.reason
    message = (
        f"{path}: the result could not be read back ({reason}). Nothing was changed. Keep a copy of the file, and copy "
        "what you need from it by hand."
    )
    raise InvalidStateError(message, path=path, reason=reason)


def replace(path: str, before: bytes, text: bytes, role: str, arguments: Any) -> str:
    """Put *text* in the place of the file *path* with the bytes *before*.

    Returns the path of the copy, which has *role* in its name. Raises No where the file is not *before* any more, and
    LockTimeout, ReadOnlyError, WriteError or DurabilityUnknown.
    """
    old = files.open_state(SYSTEM, path, read_only=False)
    try:
        flock = lock.make(arguments.locking, path)
    except ImportError as error:
        raise Usage(str(error)) from error
    with _locked(flock, old, path, arguments.lock_timeout):
        if old.identity != _identity(path) or old.read() != before:
            _refuse_changed(path)
        try:
            kept = files.keep_beside(SYSTEM, path, role, before)
            SYSTEM.sync_folder(os.path.dirname(path))
            _clear_leftovers(old, before)
        except expected(OSError) as error:
            message = (
                f"{path}: its copy could not be written: {error.strerror or error}. Nothing was changed. "
                "The folder must be writable and have room for two files of this size."
            )
            raise WriteError(message, path=path, errno=error.errno) from error
        _exchange(flock, old, before, text, kept)
        return kept


@contextlib.contextmanager
def _locked(flock: Flock, old: Journal, path: str, timeout: float) -> Iterator[None]:
    try:
        lock.acquire(flock, old.fd, path, timeout)
        yield
    finally:
        try:
            flock(old.fd, UNLOCK)
        finally:
            old.close()


def _identity(path: str) -> tuple[int, int] | None:
    with tolerating(OSError):
        status = os.stat(path)
        return status.st_dev, status.st_ino
    return None


def _refuse_changed(path: str) -> NoReturn:
    raise No(f"{path}: the file has changed in the meantime. Nothing was changed. Look at it again.") from None


def _clear_leftovers(old: Journal, before: bytes) -> None:
    """Of vacuums that were killed, as the next one would; what may be a person's save is kept."""
    split = f.split_trailer(before)
    if split is not None:
        vacuum.discard_dead(old, split[1])
    for name, stranger in vacuum.leftovers(old):
        files.keep_beside(SYSTEM, old.path, f"conflict-{SYSTEM.token()}.yaml", stranger)
        SYSTEM.unlink(name)


def _exchange(flock: Flock, old: Journal, before: bytes, text: bytes, kept: str) -> None:
    path = old.path
    image = f.scan(before)
    old.set_base(image.base, image.marker, appendable=False)
    view: View = (old.fd, len(before), image.crc, image.index, old)
    published: list[Journal] = []

    def publish(new: Journal) -> None:
        new.published = True
        published.append(new)

    try:
        # Nobody's memory is what the new file says, as after an edit: the trailer makes all others read it.
        vacuum.replace(SYSTEM, flock, old, view, before, text, publish, known(view))
    except vacuum.EditCameOut:
        _refuse_changed(path)
    except expected(OSError) as error:
        if published:
            message = (
                f"{path}: was repaired, with a copy in {kept}, but syncing its folder failed: "
                f"{error.strerror or error}. Keep the copy until the disk works again."
            )
            raise DurabilityUnknown(message, path=path, errno=error.errno) from error
        message = (
            f"{path}: the new file could not be written: {error.strerror or error}. Nothing was changed, and the copy "
            f"{kept} is no longer needed. The folder must be writable and have room for two files of this size."
        )
        raise WriteError(message, path=path, errno=error.errno) from error
    finally:
        for new in published:
            flock(new.fd, UNLOCK)
            new.close()
