"""Replace the state file by a fresh one without a journal: write, leave the moved trailer, exchange, sync the folder.

Which process dies where, and who cleans up (docs/guarantees.md has the table for users):

====================================  =====================================  =======================================
crash after                           the path shows                         cleaned up by
====================================  =====================================  =======================================
1 new file begun, under NAME.vacuum   old file                               the next vacuum deletes it
2 new file complete and synced        old file                               the next vacuum deletes it
3 locked, trailer appended to the old old file, trailer ignored by readers   the next writer cuts it
4 renamed to NAME.swap                old file, trailer ignored by readers   the next writer: both, `discard_dead`
5 exchanged                           new file; old one under NAME.swap      the next vacuum: it ends in a trailer
6 a person's file came out            new file; the person's as NAME.swap    the next vacuum keeps it, see `leftovers`
7 folder synced, old file unlinked    new file                               nobody needs to
====================================  =====================================  =======================================

Where the system cannot exchange two files, the file at NAME.swap is renamed over the path in place of row 5: then the
path shows the new file, and the old one has no name any more, so that nobody needs to clean up.

The two temporary names tell a file that nobody but a vacuum can have made (`.NAME.vacuum` never stood at the path) from
one that may be a person's (`.NAME.swap` may have come out of the exchange). In a folder where others may write,
anything can be under them: what is not a file of ours is left alone, and the next of `names` is used.
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

#: How long to wait for those who watch the old file, in seconds. They look 50 times a second.
WATCHERS_AT_MOST = 1.0

#: Names that somebody else has taken, as long as that is so: each is told of once.
_taken: set[str] = set()


class EditCameOut(Exception):
    """What stood at the path was not our file any more: a person has saved meanwhile. The save is back at the path."""


def temporary(path: str, role: str) -> str:
    """The name of a vacuum's own file beside *path*; *role* is "vacuum" or "swap"."""
    folder, name = os.path.split(path)
    return os.path.join(folder, f".{files.fitting(name, len('..vacuum-9999'))}.{role}")


def names(path: str, role: str) -> Iterator[str]:
    """The names that a vacuum uses for *role*: the first, or a later one where somebody else has taken those before."""
    first = temporary(path, role)
    yield first
    for number in count(2):
        yield f"{first}-{number}"


def is_temporary(name: str, path: str, role: str) -> bool:
    """Whether *name* is one of `names`."""
    first = temporary(path, role)
    return name == first or (name.startswith(f"{first}-") and name[len(first) + 1 :].isdigit())


def document(base: bytes, state: State, path: str, canonical: bool = False) -> tuple[bytes, bool]:
    """The document that says *state*, with what a person wrote in *base*; and whether it is the canonical one, in which
    nothing may be a person's.

    *canonical*: it is known that nobody but `dumping.dump` wrote *base*.
    """
    if canonical or base in (b"", f.EMPTY_MAPPING) or recovery.is_theirs(base):
        return dumping.dump(state), True
    from pstate.text import splice

    plain = cache(partial(dumping.dump, state))  # mostly nobody asks for it, and it takes a sixth of the vacuum
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

    The caller holds the write lock of *old*, which ends at *view*, is what the path shows, and consists of *content*.
    As soon as the new file is at the path, and locked, *publish* is called with its journal: from there on it is the
    state. *judged* is given when *text* is more than what *old* says: a person's edit brought together with the commits
    up to there. With *absent*, the path shows nothing, and has not for a while: a person has deleted the file.
    Raises OSError, or EditCameOut, with the old file at the path as it was, or as a person has saved it meanwhile.
    """
    path = old.path
    _, end, _, _, _ = view
    new, building = _write(fs, old, text, absent)
    swap = building
    trailer = b""
    try:
        flock(new.fd, EXCLUSIVE_NOW)  # so that no follower commits before we have switched
        if old.read() != content:
            raise EditCameOut  # somebody has saved in place since
        # Before the exchange: a reader of the old file must not miss the move. And before the second name: there, the
        # trailer is the proof that the file is ours.
        if len(content) == end and _takes_trailer(old, content):
            # Otherwise, if we died within it, the file would say something else. One that ends elsewhere was moved away
            # and changed.
            recognised = (len(text), new.base_crc) if judged is None else _EDITED
            trailer = _trailer(content, judged or known(view), *recognised)
            old.append(trailer, end)
        # Each noted before it is tried: an exception may come as soon as the file has that name.
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
            give_up(new)  # the path shows it, and whoever follows finds it unlocked
        raise
    fs.sync_folder(os.path.dirname(path))
    # Only after the sync: before it, a power cut may leave the path naming a file without a link.
    if _identity(fs, swap) == old.identity:
        fs.unlink(swap)
    return new


def await_watchers(old: Journal) -> None:
    """Wait until those who watch *old*, in whose place a file has come that we have locked, have gone over to that one.

    Nobody can commit to it before, and replace it by yet another one: they would never see what stood in it.
    """
    deadline = old.fs.clock() + WATCHERS_AT_MOST
    while old.fs.is_watched(old.fd):
        if old.fs.clock() >= deadline:
            logger.info("%s: who watches it does not come; not waiting any longer", old.path)
            return
        old.fs.sleep(0.001)


def give_up(new: Journal) -> None:
    """Close *new*, and with it its lock, however long the exception is kept, and if another one comes here."""
    try:
        new.close()
    except BaseException:
        new.close()
        raise


def _takes_trailer(old: Journal, content: bytes) -> bool:
    """Whether a moved trailer may stand behind *content*, which *old* consists of."""
    if old.marker is None and old.base == content:
        return old.takes_trailer  # to find it out takes 2 ms for 1 MB
    return f.find_marker(content) >= 0 or f.takes_trailer(content)


#: Length and checksum in the trailer of a file that a person's edit has replaced: the new one says something else than
#: any memory, so there is nothing to recognise it by.
_EDITED = 0, 0xFFFFFFFF


def is_of_edit(trailer: f.Trailer) -> bool:
    """Whether *trailer* tells of a person's edit, which somebody has brought together with the commits up to there."""
    return (trailer.length, trailer.crc) == _EDITED


def leave_edit_trailer(old: Journal, judged: Known) -> None:
    """Tell the programs that still have *old* open that a person's edit has replaced it, and was brought together with
    the commits up to *judged*: then they only follow, and none of them makes those commits once more.

    The path shows another file by now. So nothing depends any more on what *old* says: it gets the newline that a
    trailer needs, and loses the trailer that it has. The caller holds its lock. A failure is only logged.
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
        logger.warning("%s: other programs will have to judge the edit themselves: %s", old.path, error)


def _trailer(content: bytes, judged: Known, length: int, crc: int) -> bytes:
    """What tells whoever stands at the end of *content* that the state goes on in the file that is then at its path.

    *judged* is the last commit that the new file contains, *length* and *crc* are those of its base document.
    """
    if content and not content.endswith(b"\n"):
        # The newline that a trailer would need could change the value of a block scalar, if we die within the write.
        # Nobody can append to such a file either, and whoever vacuums it looks at the path first.
        return b""
    return f.Trailer(judged[0], length, crc, judged[1], crc32(content)).encode()


def _write(fs: FileSystem, old: Journal, text: bytes, absent: bool) -> tuple[Journal, str]:
    """The new file, complete and on stable storage, and its name.

    With *absent*, it is for us alone where it cannot be as *old* was: there is no other file that could stay.
    """
    old.demand()  # or the new file would get the mode and the owner of another one
    new, building = _begin(fs, old.path)
    try:
        files.write_all(fs, new.fd, text)
        try:
            fs.copy_attributes(old.fd, new.fd)
        except expected(PermissionError) as error:
            if not absent:
                raise
            logger.warning("%s: is readable and writable for its new owner only: %s", old.path, error.strerror)
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
    """Give the file *building* the name *swap*. False where somebody has taken that."""
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
        # An editor has put another one there, or is about to, and may insist on being the first.
        raise EditCameOut from None
    except expected(OSError) as error:
        if error.errno not in NO_SUCH_RENAME:
            raise
        # No such renames here: between the looks and ours a save can be lost (docs/guarantees.md).
        if _identity(fs, path) != (None if absent else old.identity) or (not absent and old.read() != content):
            raise EditCameOut from None
        fs.rename(swap, path)
        return
    if _identity(fs, swap) != old.identity or old.read() != content:
        fs.exchange(swap, path)
        raise EditCameOut


def _take_back(old: Journal, content: bytes, trailer: bytes) -> None:
    """Cut *trailer* off the end of *old*, which was *content* before it.

    Not off a file that a person is saving in place: the next piece of the save may be written before we cut. Whoever
    takes over the save, which is when it has ended, cuts it there.
    """
    try:
        if trailer and old.read() == content + trailer:
            old.truncate(len(content))
    except expected(OSError) as error:
        # A dead trailer: readers ignore it, the next writer cuts it.
        logger.warning("%s: the trailer of a failed vacuum stays: %s", old.path, error)


def _identity(fs: FileSystem, path: str) -> tuple[int, int] | None:
    try:
        status = fs.stat(path)
    except expected(FileNotFoundError):
        return None
    return status.st_dev, status.st_ino


def discard_dead(old: Journal, trailer: f.Trailer) -> None:
    """Delete the new file of a vacuum that died between its trailer and its exchange.

    The caller holds the write lock, has found *trailer* at the end of *old*, which is still at its path, and will cut
    it. Before that, because the trailer is the proof that the file under the temporary name is the vacuum's own.
    """
    for name, content in _ours(old, "swap"):
        if len(content) == trailer.length and crc32(content) == trailer.crc:
            old.fs.unlink(name)


def leftovers(old: Journal) -> Iterator[tuple[str, bytes]]:
    """Delete what crashed vacuums of *old* left, and go through what may be a person's files: name and content.

    The caller holds the write lock of *old* and has cut a dead trailer. The files still stand under their names.
    """
    for name, _ in _ours(old, "vacuum"):
        with tolerating(FileNotFoundError):
            old.fs.unlink(name)
    for name, content in _ours(old, "swap"):
        # An editor's copy may end in our trailer too; only the checksum of all bytes before it proves the file ours.
        if f.split_trailer(content) is not None:
            old.fs.unlink(name)
        else:
            yield name, f.without_torn_trailer(content)  # see `leave_edit_trailer`


def _ours(old: Journal, role: str) -> Iterator[tuple[str, bytes]]:
    """The names for *role* under which there is a file of ours, each with its content.

    What is not ours is left alone: a link, a pipe, a file of somebody who has nothing to do with *old*.
    """
    for name in names(old.path, role):
        try:
            found = files.read_beside(old.fs, name, old.owner)
            if found is None:
                _taken.discard(name)
                return
            content, links = found
            # Somebody may have made a link to any file of ours. One with a trailer loses no more than this name of it.
            if links > 1 and f.split_trailer(content) is None:
                raise NotOurs(errno.EEXIST, "has another name too, by a hard link", name)
        except expected(NotOurs) as error:
            if name not in _taken:
                _taken.add(name)
                logger.warning(
                    "%s: %s, so it is not a file of ours. It is left alone, and another name is used. Delete it if "
                    "nobody needs it.",
                    name, error.strerror,
                )  # fmt: skip
            continue
        _taken.discard(name)
        yield name, content
