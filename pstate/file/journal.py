"""One open state file in one generation: its descriptor, what is known of its base document, append and cut.

A journal knows no other file: who may write is `lock`, which file is the right one is `log`.
"""

from __future__ import annotations

import errno
import os
import weakref
from typing import NoReturn
from zlib import crc32

from pstate.engine import Unlock
from pstate.errors import StoreFailedError, UnreadableError, WriteError
from pstate.file import limits
from pstate.file.format import (
    NO_GENERATION,
    BaseMarker,
    first_crc,
    first_node,
    read_marker,
    read_records,
    takes_trailer,
)
from pstate.file.fs import NO_DESCRIPTOR, Descriptor, FileSystem, open_beside
from pstate.signals import expected

#: A boundary of the log: descriptor, `end` (bytes), checksum and index of the last commit, the journal.
#: One immutable object, so that a thread that reads it sees all of it or nothing, and `is` tells whether memory
#: was changed in between. It holds the journal, so that the descriptor in it cannot be closed, and its number given
#: to another file, while somebody may still ask for its size.
View = tuple[int, int, int, int, "Journal"]
#: Where a record begins: its offset, and the checksum that it is chained to.
Place = tuple[int, int]


#: What somebody knows of a history: the generation of its journal, and how many records of that.
Known = tuple[str, int]

_all: weakref.WeakSet[Journal] = weakref.WeakSet()


def known(view: View) -> Known:
    """What a process at *view* knows of the history."""
    _, _, _, index, journal = view
    return (journal.marker.generation if journal.marker else NO_GENERATION), index


def close_inherited() -> None:
    """In a forked child: also what another thread of the parent had open in the middle of something."""
    for journal in list(_all):
        journal.close()


class Journal:
    """One descriptor. `close` is idempotent, and implied by dropping the last reference.

    What changes the file, or believes what is in it, asks first whether the descriptor is still ours (`demand`), but
    for the record of a commit that is not the first: that would take as long as its write (`FileLog.begin`).
    """

    __slots__ = (
        "__weakref__",
        "_file",
        "appendable",
        "base",
        "base_crc",
        "canonical",
        "content",
        "fd",
        "folder_due",
        "fs",
        "identity",
        "is_put_off",
        "is_ready",
        "marker",
        "mode",
        "mtime",
        "owner",
        "path",
        "published",
        "refusal",
        "synced",
        "takes_trailer",
        "unjudged",
        "unlock",
        "vacuum_at",
        "write",
    )

    def __init__(self, fs: FileSystem, path: str, flags: int, mode: int = 0, at: str = "") -> None:
        """Open the state file *path* (or the file *at*, which is to become it). Raises what the system says."""
        self.fs = fs
        #: Where the file is, without links: a vacuum works there, also when a link leads elsewhere by then.
        self.path = path
        self.write = fs.write
        self.fd = NO_DESCRIPTOR
        self._file = Descriptor(fs)
        _all.add(self)
        if at:
            status = open_beside(fs, self._file, at, flags, mode, self)
            self.fd = self._file.number
        else:
            self.fd = self._file.open(path, flags, mode, self)
            status = fs.fstat(self.fd)
        self.owner = status.st_uid
        self.identity = (status.st_dev, status.st_ino)
        self.mode = status.st_mode
        #: The time stamp as of which its content is known to be ours.
        self.mtime = status.st_mtime_ns
        #: The call that unlocks it, of C: see `Hold`, which knows which lock it has.
        self.unlock: Unlock = int
        #: Why no write is begun in it, or "".
        self.refusal = ""
        #: What the last sync has raised, until it is known whether the system did.
        self.unjudged: OSError | None = None
        #: A process that made the file, or renamed it, may have died before it synced the folder.
        self.folder_due = True
        #: Up to where all is on stable storage, as far as was asked for.
        self.synced = 0
        #: Where it ends when a vacuum is due; and a vacuum that was due has failed.
        self.vacuum_at = 0
        self.is_put_off = False
        #: The marker, and the durability that it promises, are such that a record may follow.
        self.is_ready = False
        self.base = b""
        self.base_crc = 0
        self.marker: BaseMarker | None = None
        self.appendable = True
        self.canonical = False  #: the base document is known to be as `dumping.dump` writes it
        self.takes_trailer = False  #: a vacuum tells those who have the file open where the state goes on
        #: The bytes of the file up to its last commit that we know. After a save in place they are nowhere else, and
        #: commits that it lacks come back from them; and comparing them is how a vacuum sees that there was none.
        self.content = bytearray()
        self.published = False  #: a vacuum made it, and it has become the state

    def close(self) -> None:
        self.fd = NO_DESCRIPTOR
        self._file.close()

    def is_ours(self) -> bool:
        """Whether the descriptor still stands for the file that we opened."""
        return self._file.is_ours()

    def lose(self, number: int) -> None:
        """The program has closed descriptor *number*; forget it, if that was ours."""
        if self.fd == number:
            self.fd = NO_DESCRIPTOR
        self._file.lose(number)

    def demand(self) -> None:
        """Raise WriteError, with EBADF, where the descriptor is not ours any more: the log opens the file again."""
        if not self._file.is_ours():
            raise self._lost()

    def _lost(self) -> WriteError:
        message = (
            f"{self.path}: the program has closed the descriptor of the open state file. Nothing was changed. The file "
            "is opened again at the next use. Leave descriptors of pstate open, or open the state after closing all."
        )
        return WriteError(message, path=self.path, errno=errno.EBADF)

    def take_over(self, lost: Journal) -> None:
        """Know what *lost* knew. This is its file, opened again."""
        self.set_base(lost.base, lost.marker, lost.appendable)
        self.refusal = self.refusal or lost.refusal
        self.unjudged = lost.unjudged
        self.vacuum_at = lost.vacuum_at
        self.is_put_off = lost.is_put_off
        self.canonical = lost.canonical
        self.takes_trailer = lost.takes_trailer
        self.content[:] = lost.content

    def __del__(self) -> None:
        # A refusal is logged then. If a signal comes first, the finalizer of the descriptor is still to come.
        if hasattr(self, "_file"):
            self._file.close()

    def set_base(self, base: bytes, marker: BaseMarker | None, appendable: bool) -> None:
        """Remember the base document, to recognise it later and as the ancestor of a person's edit."""
        self.canonical = self.canonical and base == self.base
        self.base = base
        self.base_crc = crc32(base)
        self.marker = marker
        self.appendable = appendable
        self.takes_trailer = marker is not None or takes_trailer(base)
        self.content = bytearray(base)
        self.is_ready = False
        self.synced = 0
        # The bytes that vacuums write are at most a quarter of those that commits wrote, however large the state is.
        self.vacuum_at = len(base) + max(limits.JOURNAL_FACTOR * len(base), limits.JOURNAL_MINIMUM)
        self.is_put_off = False

    def takes_marker(self) -> bool:
        """Whether a base marker may follow the document, or does already; if not, it is written anew first."""
        return self.appendable or self.marker is not None or bool(first_node(self.base))

    def is_easy(self) -> bool:
        """Whether a commit may go straight to the end: the marker has a place, and a vacuum of others shows."""
        return self.takes_marker() and self.takes_trailer

    def is_file_of(self, status: os.stat_result) -> bool:
        """Whether *status* is that of the file, whatever path it was asked for by."""
        return (status.st_dev, status.st_ino) == self.identity

    def bodies(self, index: int) -> list[str]:
        """The bodies of the first *index* records, as far as there are."""
        return self.behind(None)[0][:index]

    def behind(self, place: Place | None) -> tuple[list[str], Place | None]:
        """The bodies of the records that we know from *place* on, or of all; and the place behind the last one."""
        if place is not None:
            start = place[0]
            if start == len(self.content):
                return [], place
            bodies, stop, crc = read_records(bytes(self.content[start:]), 0, place[1])
            return bodies, (start + stop, crc)
        if self.marker is None:
            return [], None
        content = bytes(self.content)
        found = read_marker(content, len(self.base))
        if found is None:
            return [], None
        bodies, stop, crc = read_records(content, found[1], first_crc(found[0].generation))
        return bodies, (stop, crc)

    def read(self, offset: int = 0, length: int | None = None) -> bytes:
        """The bytes from *offset* on: *length* of them, or all; fewer where the file ends before.

        Raises UnreadableError, and as `demand`.
        """
        parts = []
        try:
            if length is None:
                length = self.fs.lseek(self.fd, 0, os.SEEK_END) - offset
            while length > 0:
                part = self.fs.pread(self.fd, length, offset)
                if not part:
                    break
                parts.append(part)
                offset += len(part)
                length -= len(part)
        except expected(OSError) as error:
            if error.errno == errno.EBADF:
                raise self._lost() from error
            message = (
                f"{self.path}: cannot be read: {error.strerror or error}. Nothing was changed. "
                "Give the path of an ordinary file, or mend the disk."
            )
            raise UnreadableError(message, path=self.path, errno=error.errno) from error
        return b"".join(parts) if len(parts) != 1 else parts[0]

    def holds(self, view: View) -> bool:
        """Whether the file still begins with our base document and still has our last commit where `end` says."""
        _, end, crc, index, _ = view
        if crc32(self.read(0, len(self.base))) != self.base_crc:
            return False
        # Behind the digits stand "\n", or "\r\n" after an editor.
        return not index or b"# %08x" % crc in self.read(max(0, end - 17), 17)

    def truncate(self, length: int) -> None:
        """Cut the file off at *length*. Raises what the system says, and as `demand`."""
        self.demand()
        self.fs.truncate(self.fd, length)

    def append(self, data: bytes, end: int) -> None:
        """Bring *data* into the file behind *end*, or nothing of it.

        The caller holds the write lock and has seen that the file ends at *end*. Raises WriteError when the file is
        back at *end*, StoreFailedError when even cutting back failed.
        """
        self.demand()
        try:
            written = self.write(self.fd, data)
            while written < len(data):
                # Only now the system says why it took a part: disk full, a quota, a limit on the file's size.
                written += self.write(self.fd, data[written:])
        except expected(OSError) as error:
            self.undo(end, end + len(data), error)

    def undo(self, end: int, complete: int, cause: OSError) -> NoReturn:
        """After *cause*, bring the file back to *end*. Raises as `append`.

        The exception of a signal handler does not come here: then the file decides. Where it has come to *complete*
        all the same, the record is whole, and stays, whatever was raised: then *cause* is raised.
        """
        if cause.errno is not None and not self.is_ours():
            raise self._lost() from cause
        try:
            size = self.fs.lseek(self.fd, 0, os.SEEK_END)
            if size not in (end, complete):
                self.truncate(end)
        except expected(OSError) as error:
            message = (
                f"{self.path}: writing failed ({cause.strerror or cause}), and cutting the unfinished record off "
                f"failed too ({error.strerror or error}). It is torn and no reader counts it, nothing was committed. "
                "The state refuses writes until the record can be cut off: mend the disk, and try again."
            )
            raise StoreFailedError(message, path=self.path, errno=error.errno) from cause
        if size == complete:
            raise cause
        message = (
            f"{self.path}: writing failed: {cause.strerror or cause}. The change was undone, in memory and in the "
            "file. Make room or mend the disk, and try again."
        )
        raise WriteError(message, path=self.path, errno=cause.errno) from cause
