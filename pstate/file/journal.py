"""One open state file in one generation: its descriptor, what is known of its base document, append and cut.

A journal knows no other file: `lock` decides which process may write, and `log` which file is the right one.
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
#: was changed in between. It holds the journal, so that its descriptor is not closed, and its number given to another
#: file, while a thread may still ask for its size.
View = tuple[int, int, int, int, "Journal"]
#: Where a record begins: its offset, and the checksum that it is chained to.
Place = tuple[int, int]


#: How much of a history is known: the generation of its journal, and the number of its records.
Known = tuple[str, int]

_all: weakref.WeakSet[Journal] = weakref.WeakSet()


def known(view: View) -> Known:
    """How much of the history a process at *view* knows."""
    _, _, _, index, journal = view
    return (journal.marker.generation if journal.marker else NO_GENERATION), index


def close_inherited() -> None:
    """In a forked child: close all journals, also those that another thread of the parent was opening."""
    for journal in list(_all):
        journal.close()


class Journal:
    """One descriptor. `close` is idempotent, and implied by dropping the last reference.

    Each method that changes the file, or trusts its content, first checks that the descriptor is still ours (`demand`).
    The exception is the record of a commit after the first: the check would take as long as the write
    (`FileLog.begin`).
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
        """Open the state file *path* (or the file *at*, which will become it). Raises the errors of the system."""
        self.fs = fs
        #: Its path without links: a vacuum works there, even if a link leads elsewhere by then.
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
        #: The time stamp at which its content was last known to be ours.
        self.mtime = status.st_mtime_ns
        #: The C function that unlocks it: see `Hold`, which knows its kind of lock.
        self.unlock: Unlock = int
        #: Why writes are refused, or "".
        self.refusal = ""
        #: The error of the last sync, until it is known whether it came from the system.
        self.unjudged: OSError | None = None
        #: Whether the folder must be synced: the process that made or renamed the file may have died before that.
        self.folder_due = True
        #: The end of the part that is known to be on stable storage.
        self.synced = 0
        #: The length at which a vacuum is due; and whether a vacuum that was due has failed.
        self.vacuum_at = 0
        self.is_put_off = False
        #: Whether the marker, and the durability that it promises, allow that a record follows.
        self.is_ready = False
        self.base = b""
        self.base_crc = 0
        self.marker: BaseMarker | None = None
        self.appendable = True
        self.canonical = False  #: whether the base document is known to be as `dumping.dump` writes it
        self.takes_trailer = False  #: whether a vacuum can leave a trailer for the programs that have the file open
        #: The bytes of the file up to the last commit that we know. After a save in place, only this copy has them, and
        #: commits that the save lacks are restored from it. By comparing it, a vacuum finds out about such a save.
        self.content = bytearray()
        self.published = False  #: whether a vacuum made it, and it has become the state

    def close(self) -> None:
        self.fd = NO_DESCRIPTOR
        self._file.close()

    def is_ours(self) -> bool:
        """Whether the descriptor still means the file that we opened."""
        return self._file.is_ours()

    def lose(self, number: int) -> None:
        """Forget descriptor *number*, if that was ours: the program has closed it."""
        if self.fd == number:
            self.fd = NO_DESCRIPTOR
        self._file.lose(number)

    def demand(self) -> None:
        """Raise WriteError, with EBADF, if the descriptor is no longer ours. Then the log opens the file again."""
        if not self._file.is_ours():
            raise self._lost()

    def _lost(self) -> WriteError:
        message = (
            f"{self.path}: this program has closed the descriptor of the open state file. Nothing was changed. The "
            "next use opens the file again. Leave the descriptors of pstate open, or open the state after closing all "
            "others."
        )
        return WriteError(message, path=self.path, errno=errno.EBADF)

    def take_over(self, lost: Journal) -> None:
        """Take over what *lost* knew. This is its file, opened again."""
        self.set_base(lost.base, lost.marker, lost.appendable)
        self.refusal = self.refusal or lost.refusal
        self.unjudged = lost.unjudged
        self.vacuum_at = lost.vacuum_at
        self.is_put_off = lost.is_put_off
        self.canonical = lost.canonical
        self.takes_trailer = lost.takes_trailer
        self.content[:] = lost.content

    def __del__(self) -> None:
        # An error is logged here. If a signal cuts this off, the finalizer of the descriptor still runs.
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
        # So vacuums write at most a quarter of the bytes that commits wrote, for a state of any size.
        self.vacuum_at = len(base) + max(limits.JOURNAL_FACTOR * len(base), limits.JOURNAL_MINIMUM)
        self.is_put_off = False

    def takes_marker(self) -> bool:
        """Whether a base marker may follow the document, or does already; if not, it must be rewritten first."""
        return self.appendable or self.marker is not None or bool(first_node(self.base))

    def is_easy(self) -> bool:
        """Whether a commit may simply be appended: a marker can follow, and a vacuum of others leaves a trailer."""
        return self.takes_marker() and self.takes_trailer

    def is_file_of(self, status: os.stat_result) -> bool:
        """Whether *status* is that of the file, no matter by which path it was found."""
        return (status.st_dev, status.st_ino) == self.identity

    def bodies(self, index: int) -> list[str]:
        """The bodies of the first *index* records, or of all if there are fewer."""
        return self.behind(None)[0][:index]

    def behind(self, place: Place | None) -> tuple[list[str], Place | None]:
        """The bodies of the known records from *place* on, or of all; and the place after the last one."""
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
        """The bytes from *offset* on: *length* of them, or all; fewer if the file ends before.

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
                f"{self.path}: the file cannot be read: {error.strerror or error}. Nothing was changed. "
                "Use the path of an ordinary file, or repair the disk."
            )
            raise UnreadableError(message, path=self.path, errno=error.errno) from error
        return b"".join(parts) if len(parts) != 1 else parts[0]

    def holds(self, view: View) -> bool:
        """Whether the file still begins with our base document, and still has our last commit at `end`."""
        _, end, crc, index, _ = view
        if crc32(self.read(0, len(self.base))) != self.base_crc:
            return False
        # After the digits comes "\n", or "\r\n" from an editor.
        return not index or b"# %08x" % crc in self.read(max(0, end - 17), 17)

    def truncate(self, length: int) -> None:
        """Cut the file off at *length*. Raises the errors of the system, and as `demand`."""
        self.demand()
        self.fs.truncate(self.fd, length)

    def append(self, data: bytes, end: int) -> None:
        """Append all of *data* to the file, which ends at *end*, or none of it.

        The caller holds the write lock and has checked the end. Raises WriteError if the file ends at *end* again, and
        StoreFailedError if it could not be cut back.
        """
        self.demand()
        try:
            written = self.write(self.fd, data)
            while written < len(data):
                # Only this call says why the system took a part: disk full, a quota, a limit on the file's size.
                written += self.write(self.fd, data[written:])
        except expected(OSError) as error:
            self.undo(end, end + len(data), error)

    def undo(self, end: int, complete: int, cause: OSError) -> NoReturn:
        """After *cause*, cut the file back to *end*. Raises as `append`.

        Not called for an exception of a signal handler: then the next read finds out what is in the file. If the file
        ends at *complete* in spite of *cause*, the record is whole, and stays: then *cause* is raised.
        """
        if cause.errno is not None and not self.is_ours():
            raise self._lost() from cause
        try:
            size = self.fs.lseek(self.fd, 0, os.SEEK_END)
            if size not in (end, complete):
                self.truncate(end)
        except expected(OSError) as error:
            message = (
                f"{self.path}: writing a record failed ({cause.strerror or cause}), and cutting off the unfinished "
                f"record failed too ({error.strerror or error}). Nothing was committed, and readers ignore the record. "
                "The state refuses writes until the record can be cut off. Repair the disk, and try again."
            )
            raise StoreFailedError(message, path=self.path, errno=error.errno) from cause
        if size == complete:
            raise cause
        message = (
            f"{self.path}: writing failed: {cause.strerror or cause}. The change was undone, in memory and in the "
            "file. Make room or repair the disk, and try again."
        )
        raise WriteError(message, path=self.path, errno=cause.errno) from cause
