"""Replaces the state file by a new one without a journal: write, leave the moved trailer, exchange, sync the folder.

What a crash after each step leaves, and what cleans up (docs/guarantees.md has the table for users):

====================================  =====================================  =======================================
crash after                           the path shows                         cleaned up by
====================================  =====================================  =======================================
1 new file begun, under NAME.vacuum   old file                               the next vacuum deletes it
2 new file complete and synced        old file                               the next vacuum deletes it
3 locked, trailer appended to the old old file, trailer ignored by readers   the next writer cuts it
4 renamed to NAME.swap                old file, trailer ignored by readers   the next writer: both, `discard_dead`
5 exchanged                           new file; old one under NAME.swap      the next vacuum: it ends in a trailer
6 a person's file came out            new file; the person's as NAME.swap    the next vacuum keeps it, see `leftovers`
7 folder synced, old file unlinked    new file                               (nothing to clean up)
====================================  =====================================  =======================================

If the system cannot exchange two files, the file at NAME.swap is renamed over the path instead of row 5: then the path
shows the new file, and the old one no longer has a name, so there is nothing to clean up.

The two temporary names tell a file that only a vacuum can have made (`.NAME.vacuum` was never at the path) from one
that may be a person's (`.NAME.swap` may have come out of the exchange). In a folder where others may write, anything
can have these names: a file that is not ours is left alone, and the next of `names` is used.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from functools import cache, partial
from itertools import count
from zlib import crc32

from pstate.engine import State
from pstate.file import files, recovery
from pstate.file import format as f
from pstate.file.flock import EXCLUSIVE_NOW, Flock
from pstate.file.fs import NO_SUCH_RENAME, FileSystem, NotOurs
from pstate.file.journal import Journal, Known, View, known
from pstate.logger import Logger
from pstate.signals import expected, tolerating
from pstate.text import dumping

logger = Logger("pstate.file.vacuum")

#: How long to wait for processes that watch the old file, in seconds. They look 50 times a second.
WATCHERS_AT_MOST = 1.0

#: Temporary names that files of others have at present: each is logged once.
_taken: set[str] = set()


class EditCameOut(Exception):
    """The file at the path was no longer ours: a person has saved meanwhile. The save is back at the path."""


def temporary(path: str, role: str) -> str:
    """The name of a vacuum's own file beside *path*; *role* is "vacuum" or "swap"."""
    folder, name = os.path.split(path)
    return os.path.join(folder, f".{files.fitting(name, len('..vacuum-9999'))}.{role}")


def names(path: str, role: str) -> Iterator[str]:
    """The names that a vacuum uses for *role*: the first, or a later one if files of others have those before it."""
    first = temporary(path, role)
    yield first
    for number in count(2):
        yield f"{first}-{number}"


def is_temporary(name: str, path: str, role: str) -> bool:
    """Whether *name* is one of `names`."""
    first = temporary(path, role)
    return name == first or (name.startswith(f"{first}-") and name[len(first) + 1 :].isdigit())


def document(base: bytes, state: State, path: str, canonical: bool = False) -> tuple[bytes, bool]:
    """The document for *state*, with the comments and the style of *base*; and whether it is the canonical one, in
    which nothing is a person's.

    *canonical*: *base* is known to be written by `dumping.dump`.
    """
    if canonical or base in (b"", f.EMPTY_MAPPING) or recovery.is_theirs(base):
        return dumping.dump(state), True
    from pstate.text import splice

    plain = cache(partial(dumping.dump, state))  # rarely needed, and it takes a sixth of the vacuum
    text = splice.rewrite(base, state, plain, path)
    if splice.has_comment_line(text) and not recovery.is_theirs(text):
        return text, False
    if text == plain() or recovery.is_theirs(text):
        return plain(), not splice.literals(plain())
    return text, False


def replace(
    fs: FileSystem,
    flock: Flock,
    old: Journal,
    view: View,
    content: bytes,
    text: bytes,
    publish: Callable[[Journal], None],
    judged: Known | None = None,
    absent: bool = False,
) -> Journal:
    """Put a new file with the base document *text* at the path of *old*; returns its journal.

    The caller holds the write lock of *old*, which ends at *view*, is at the path, and consists of *content*. As soon
    as the new file is at the path, and locked, *publish* is called with its journal: from there on, it is the state.
    *judged* is given if *text* is more than the state of *old*: a person's edit merged with the commits up to there.
    With *absent*, the path has shown no file for a while, because a person has deleted it. Raises OSError or
    EditCameOut, with the old file at the path as it was, or as a person has saved it meanwhile.
    """
    path = old.path
    _, end, _, _, _ = view
    new, building = _write(fs, old, text, absent)
    swap = building
    trailer = b""
    try:
        flock(new.fd, EXCLUSIVE_NOW)  # so that no follower commits before we have switched
        if old.read() != content:
            raise EditCameOut  # it was saved in place since
        # Before the exchange, because a reader of the old file must not miss the move. And before the second name,
        # because there the trailer is the proof that the file is ours.
        if len(content) == end and _takes_trailer(old, content):
            # Otherwise, a trailer that is torn by a crash would change the state of the file. A file that ends
            # elsewhere was moved away and changed.
            recognised = (len(text), new.base_crc) if judged is None else _EDITED
            trailer = _trailer(content, judged or known(view), *recognised)
            old.append(trailer, end)
        # Each name is noted before it is tried: an exception may come as soon as the file has it.
        for swap in names(path, "swap"):
            if _has_renamed(fs, building, swap):
                break
        _put(fs, swap, path, old, content + trailer, absent)
    except BaseException:
        try:
            if _identity(fs, path) != new.identity:
                for name in (building, swap):
                    if _identity(fs, name) == new.identity:
                        with tolerating(OSError):
                            fs.unlink(name)
                _take_back(old, content, trailer)
        finally:
            give_up(new)
        raise
    try:
        if judged is not None and not trailer:
            leave_edit_trailer(old, judged)
        publish(new)
    except BaseException:
        if not new.published:
            give_up(new)  # the path shows it, and processes that follow find it unlocked
        raise
    fs.sync_folder(os.path.dirname(path))
    # Only after the sync: before it, a power cut may leave the path with the file that was deleted.
    if _identity(fs, swap) == old.identity:
        fs.unlink(swap)
    return new


def await_watchers(old: Journal) -> None:
    """Wait until the processes that watch *old* have moved to the file that has replaced it, which we have locked.

    Before that, no process can commit to the new file, and replace it too: the watches would miss its records.
    """
    deadline = old.fs.clock() + WATCHERS_AT_MOST
    while old.fs.is_watched(old.fd):
        if old.fs.clock() >= deadline:
            logger.info(
                "%s: a process that watches the file has not moved to the new one within %s s, and is not waited for. "
                "Its watch may report several commits as one.",
                old.path,
                WATCHERS_AT_MOST,
            )
            return
        old.fs.sleep(0.001)


def give_up(new: Journal) -> None:
    """Close *new*, which releases its lock, at once: an exception that is being handled may keep it alive."""
    try:
        new.close()
    except BaseException:
        new.close()
        raise


def _takes_trailer(old: Journal, content: bytes) -> bool:
    """Whether a moved trailer may follow *content*, which *old* consists of."""
    if old.marker is None and old.base == content:
        return old.takes_trailer  # finding it out takes 2 ms for 1 MB
    return f.find_marker(content) >= 0 or f.takes_trailer(content)


#: Length and checksum in the trailer of a file that a person's edit has replaced. The new file differs from the memory
#: of every process, so none could recognise it.
_EDITED = 0, 0xFFFFFFFF


def is_of_edit(trailer: f.Trailer) -> bool:
    """Whether *trailer* is for a person's edit, which a process has merged with the commits up to there."""
    return (trailer.length, trailer.crc) == _EDITED


def leave_edit_trailer(old: Journal, judged: Known) -> None:
    """Leave a trailer in *old* that says: a person's edit has replaced the file, and was merged with the commits up to
    *judged*. Then programs that still have *old* open only follow, and do not make those commits a second time.

    The path shows another file by now, so no state depends on the content of *old*: it gets the newline that a trailer
    needs, and loses the trailer that it has. The caller holds its lock. A failure is only logged.
    """
    try:
        data = old.read()
        split = f.split_trailer(data)
        if split is not None:
            data = data[: split[0]]
            old.truncate(len(data))
        newline = b"" if data.endswith(b"\n") else b"\n"
        old.append(newline + _trailer(data + newline, judged, *_EDITED), len(data))
    except expected(OSError) as error:
        logger.warning(
            "%s: other programs cannot be told that an edit was read, so they will merge it themselves: %s",
            old.path,
            error,
        )


def _trailer(content: bytes, judged: Known, length: int, crc: int) -> bytes:
    """The trailer after *content*, which tells processes at the end of it that the state is in the file at the path.

    *judged* is the last commit that the new file contains, *length* and *crc* are those of its base document.
    """
    if content and not content.endswith(b"\n"):
        # If a crash cut the write, the newline that a trailer needs could change the value of a block scalar. No
        # process can append to such a file either, and a vacuum of it looks at the path first.
        return b""
    return f.Trailer(judged[0], length, crc, judged[1], crc32(content)).encode()


def _write(fs: FileSystem, old: Journal, text: bytes, absent: bool) -> tuple[Journal, str]:
    """The new file, complete and on stable storage, and its name.

    With *absent*, only its new owner may use it if the rights of *old* cannot be set: there is no file to keep instead.
    """
    old.demand()  # because the new file gets the mode and the owner of this one
    new, building = _begin(fs, old.path)
    try:
        files.write_all(fs, new.fd, text)
        try:
            fs.copy_attributes(old.fd, new.fd)
        except expected(PermissionError) as error:
            if not absent:
                raise
            logger.warning(
                "%s: the file that was written again can be read and written by its new owner only: %s",
                old.path,
                error.strerror,
            )
        fs.sync(new.fd)
        new.mtime = fs.fstat(new.fd).st_mtime_ns
    except BaseException:
        new.close()
        with tolerating(OSError):
            fs.unlink(building)
        raise
    new.set_base(text, None, appendable=True)
    return new, building


def _begin(fs: FileSystem, path: str) -> tuple[Journal, str]:
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_APPEND
    for building in names(path, "vacuum"):
        with tolerating(FileExistsError):
            return Journal(fs, path, flags, 0o600, at=building), building
    raise AssertionError("there is always a next name")


def _has_renamed(fs: FileSystem, building: str, swap: str) -> bool:
    """Give the file *building* the name *swap*. False if another file has that."""
    try:
        fs.rename_new(building, swap)
    except expected(FileExistsError):
        return False
    except expected(OSError) as error:
        if error.errno not in NO_SUCH_RENAME:
            raise
        if _identity(fs, swap) is not None:
            return False
        fs.rename(building, swap)
    return True


def _put(fs: FileSystem, swap: str, path: str, old: Journal, content: bytes, absent: bool) -> None:
    """Bring the file at *swap* to *path*, unless *path* shows another file than *old*, or that one not *content*."""
    try:
        if absent:
            fs.rename_new(swap, path)
            return
        fs.exchange(swap, path)
    except expected(FileExistsError, FileNotFoundError) as error:
        if isinstance(error, FileExistsError) and _identity(fs, path) is None:
            raise  # a symbolic link that leads nowhere
        # An editor has put another file there, or is about to, and some editors fail if a file exists.
        raise EditCameOut from None
    except expected(OSError) as error:
        if error.errno not in NO_SUCH_RENAME:
            raise
        # Without such renames, a save between the check and our rename can be lost (docs/guarantees.md).
        if _identity(fs, path) != (None if absent else old.identity) or (not absent and old.read() != content):
            raise EditCameOut from None
        fs.rename(swap, path)
        return
    if _identity(fs, swap) != old.identity or old.read() != content:
        fs.exchange(swap, path)
        raise EditCameOut


def _take_back(old: Journal, content: bytes, trailer: bytes) -> None:
    """Cut *trailer* off the end of *old*, which was *content* before it.

    Not off a file that a person is saving in place: the next piece of the save may be written before we cut. The
    process that reads the save, after its end, cuts the trailer there.
    """
    try:
        if trailer and old.read() == content + trailer:
            old.truncate(len(content))
    except expected(OSError) as error:
        logger.warning(
            "%s: the trailer of a failed vacuum could not be cut off: %s. Readers ignore it, and the next writer cuts "
            "it off.",
            old.path,
            error,
        )


def _identity(fs: FileSystem, path: str) -> tuple[int, int] | None:
    try:
        status = fs.stat(path)
    except expected(FileNotFoundError):
        return None
    return status.st_dev, status.st_ino


def discard_dead(old: Journal, trailer: f.Trailer) -> None:
    """Delete the new file of a vacuum that died between its trailer and its exchange.

    The caller holds the write lock, has found *trailer* at the end of *old*, which is still at its path, and will cut
    it afterwards, because the trailer is the proof that the file with the temporary name comes from the vacuum.
    """
    for name, content in _ours(old, "swap"):
        if len(content) == trailer.length and crc32(content) == trailer.crc:
            old.fs.unlink(name)


def leftovers(old: Journal) -> Iterator[tuple[str, bytes]]:
    """Delete files that crashed vacuums of *old* have left, and return those that may be a person's: name and content.

    The caller holds the write lock of *old* and has cut a dead trailer. The returned files still have their names.
    """
    for name, _ in _ours(old, "vacuum"):
        with tolerating(FileNotFoundError):
            old.fs.unlink(name)
    for name, content in _ours(old, "swap"):
        # A copy of an editor may end in our trailer too. Only the checksum of all bytes before it proves it ours.
        if f.split_trailer(content) is not None:
            old.fs.unlink(name)
        else:
            yield name, f.without_torn_trailer(content)  # see `leave_edit_trailer`


def _ours(old: Journal, role: str) -> Iterator[tuple[str, bytes]]:
    """The names for *role* that files of ours have, each with its content.

    Others are left alone: a link, a pipe, a file of a user who has nothing to do with *old*.
    """
    for name in names(old.path, role):
        try:
            found = files.read_beside(old.fs, name, old.owner)
            if found is None:
                _taken.discard(name)
                return
            content, links = found
            # Other users can make links to any file of ours. One with a trailer loses only this name.
            if links > 1 and f.split_trailer(content) is None:
                raise NotOurs(errno.EEXIST, "has a second name, by a hard link", name)
        except expected(NotOurs) as error:
            if name not in _taken:
                _taken.add(name)
                logger.warning(
                    "%s: this file %s, so it is not one of pstate. It is left alone, and another temporary name is "
                    "used. Delete it if it is not needed.",
                    name, error.strerror,
                )  # fmt: skip
            continue
        _taken.discard(name)
        yield name, content
