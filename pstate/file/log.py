"""The log below the store, in one file: lock, catch up, commit, vacuum, follow, edit; whichever inode is at the path.

This is the protocol of docs/guarantees.md, with its invariants by number. It knows bytes, paths and inodes; what it
knows of the state is the `Memory` that it is given. The store above it knows the state and none of these.

The caller holds the store's thread lock in every method but `fresh`.
"""

from __future__ import annotations

import bisect
import contextlib
import errno
import os
import threading
from collections.abc import Callable, Iterable
from functools import partial
from typing import TYPE_CHECKING, Protocol, TypeAlias
from zlib import crc32

from pstate.engine import Origin
from pstate.errors import (
    CorruptStateError,
    DurabilityUnknown,
    EditConflict,
    InvalidEditError,
    LockTimeout,
    MissingPathError,
    PStateError,
    ReadOnlyError,
    StateFileError,
    StoreFailedError,
    UnreadableError,
    WriteError,
)
from pstate.file import files, lock, recovery, vacuum
from pstate.file import format as f
from pstate.file.format import RECORD, encode_record
from pstate.file.fs import NO_DESCRIPTOR, SHORTAGE, FileSystem
from pstate.file.journal import Journal, View
from pstate.file.lock import EXCLUSIVE_NOW, UNLOCK, Flock
from pstate.file.recovery import Operations, Records, State
from pstate.file.trail import Trails, place_behind
from pstate.file.vacuum import Known
from pstate.logger import Logger
from pstate.signals import expected, is_foreign, tolerating
from pstate.text import codec
from pstate.values import same

if TYPE_CHECKING:
    from pstate.file import edits

logger = Logger("pstate.file.log")

#: How old the last look at the path may be when a commit returns, in seconds. A commit that an editor's rename
#: overtakes within it is found by the next look of a living process (docs/guarantees.md, "Editors"). A read or a change
#: that begins looks after half of it: so nearly every look comes before a write, where what it finds can still be
#: refused.
LOOK_INTERVAL = 0.010
#: How long after a commit its descriptor counts as ours without a question, in seconds: a loop of commits takes less
#: from one to the next, a program that closes all descriptors and opens a file takes more.
TRUST = 5e-6
#: How often a base document whose time stamp moved is compared with ours, at most; and how much of the time it may
#: cost.
CHECK_INTERVAL = 0.050
CHECK_COST = 100
#: A vacuum is due when the journal is this many times the base document, and at least this many bytes: then the bytes
#: that vacuums write are at most a quarter of those that the commits wrote, however large the state.
JOURNAL_FACTOR = 4
JOURNAL_MINIMUM = 1 << 20
#: How long a file that is saved in place must have been left alone before it counts as saved, in seconds; and how long
#: a writer waits for that.
QUIET = 0.050
QUIET_AT_MOST = 2.0
#: And how long a reader waits, where the file may be a vacuum's that others have acknowledged commits of.
QUIET_FOR_READERS = 4 * QUIET
#: How long a person may keep a copy in an editor across a vacuum so that we still notice commits that it lacks, in
#: seconds. After that, a value that goes back to what it was is taken for what the person wants.
STALE_COPY = 600.0
#: And across how many vacuums: so many documents are kept for it, besides the one in the file; but of those that are
#: more than so many bytes together, only the last few.
STALE_COPIES = 100
STALE_BYTES = 1 << 20
STALE_AT_LEAST = 4
#: How much younger than its time stamp a write may be where that is in whole seconds. FAT keeps every other second.
COARSE = 2.0
#: How long a path may be missing before it counts as deleted, in seconds: some editors move the file away, then write
#: it.
MISSING = 1.0


#: A document, with whether it is the canonical one; what it says; and whether a base marker may stand behind it.
_Edit: TypeAlias = tuple[tuple[bytes, bool], State, bool]


class Memory(Protocol):
    """What the log brings up to date. Every method may be called again after it was interrupted half way."""

    #: The boundary that memory stands at (I4), or None while it is being changed or must not be trusted. Here and not
    #: in the log, because every read of a value looks at it twice.
    view: View | None

    def apply(self, operations: Operations) -> None:
        """Apply one committed record. Raises LookupError, TypeError or ValueError when it does not fit."""
        ...

    def adopt(self, state: State) -> None:
        """Become *state*, keeping the containers that are at the same places."""
        ...

    def plain(self) -> State:
        """A deep copy of the state in built-in types."""
        ...

    def replay(self, state: State, records: Iterable[Operations]) -> State:
        """What *state* becomes by *records*; memory is not touched. Raises as `apply`."""
        ...


def _is_shortage(error: Exception) -> bool:
    """Whether *error* says that we have no descriptor left: nobody has done anything to the file."""
    return isinstance(error, OSError) and error.errno in SHORTAGE


def _takes_marker(journal: Journal) -> bool:
    """Whether a base marker may stand behind the document, or does already; if not, it is written anew first (F3)."""
    return journal.appendable or journal.marker is not None or bool(f.first_node(journal.base))


def _goes_on(image: f.Image, journal: Journal) -> bool:
    """Whether *image* has the history of *journal*, perhaps with more, or edited."""
    if journal.marker is None:
        return image.base == journal.base
    return image.marker is not None and image.marker.generation == journal.marker.generation


def _is_easy(journal: Journal) -> bool:
    """Whether a commit may go straight behind *journal*: the marker has a place, and a vacuum of others shows."""
    return _takes_marker(journal) and journal.takes_trailer


class FileLog:
    """The state file at one path. A symbolic link in the path is followed anew by each look."""

    # Slots, because an instance of so many attributes would have slow ones.
    __slots__ = (
        "_check_at",
        "_clock",
        "_complaint",
        "_folder_due",
        "_journal",
        "_kept",
        "_known",
        "_locks_descriptors",
        "_look_at",
        "_look_due",
        "_lseek",
        "_mtime",
        "_previous",
        "_put_off",
        "_ready",
        "_refusal",
        "_retry_at",
        "_settled",
        "_sure",
        "_turn",
        "_under_way",
        "_unjudged",
        "_unmerged",
        "_unquiet",
        "_vacuum_at",
        "fd",
        "flock",
        "fs",
        "held",
        "lock_timeout",
        "memory",
        "path",
        "power",
        "read_only",
        "trails",
    )

    def __init__(
        self,
        path: str,
        memory: Memory,
        fs: FileSystem,
        *,
        power: bool = False,
        lock_timeout: float | None = 10.0,
        locking: object = "file",
        read_only: bool = False,
    ) -> None:
        self.path = path
        self.memory = memory
        self.fs = fs
        self.power = power
        self.lock_timeout = lock_timeout
        self.read_only = read_only
        #: What `flock` was last called with, or -1. The caller of `begin` calls ``flock(fd, UNLOCK)`` in its `finally`:
        #: there, before any other call, because an asynchronous exception comes after a call.
        self.fd = -1
        #: Its journal, so that the number cannot be closed, and given to another file, before it was unlocked.
        self.held: Journal | None = None
        self.flock: Flock = fs.flock if fs.flock and locking == "file" else lock.make(locking, path)
        #: Otherwise one lock stands for the path, whatever file is there.
        self._locks_descriptors = locking == "file"
        self._clock = fs.clock
        self._lseek = fs.lseek
        self._journal: Journal | None = None
        #: Where memory stood before the last change of it.
        self._known: View | None = None
        #: The journal that `prepare` has found in order.
        self._ready: Journal | None = None
        #: Until when the last look at the path counts for a read or a change that begins, and for a commit that
        #: returns. Only a look that found our file moves them into the future (`_looked`), so a commit that comes
        #: before has nothing to fear from any other look.
        self._look_at = self._look_due = 0.0
        #: Until when a read need not repeat a look that found something else. A commit takes no notice of it.
        self._retry_at = 0.0
        #: Until then the descriptor counts as ours, see `TRUST`.
        self._sure = 0.0
        self._check_at = 0.0
        self._mtime = -1
        self._vacuum_at = 0
        self._folder_due = False
        #: Up to where all is on stable storage, as far as was asked for; see `settle`.
        self._settled: View | None = None
        #: Held by the thread that syncs; None when none does. Whose turn it is is found out under the other.
        self._under_way: threading.RLock | None = None
        self._turn = threading.RLock()
        #: What the last sync has raised, until it is known whether the system did.
        self._unjudged: OSError | None = None
        #: Why no write is begun, or "".
        self._refusal = ""
        if read_only:
            self._refusal = (
                f"{path}: was opened read_only. Nothing was changed. Open it without read_only to change it."
            )
        self._complaint = ""
        self._put_off = False
        #: An edit is in the file that could not be brought together with our commits, which are in memory only.
        self._unmerged = False
        #: Inode, size and time stamps of a file that somebody is saving, and since when they have been like that.
        self._unquiet: tuple[tuple[int, int, int, int], float] | None = None
        #: What was last kept beside, as which role, and where.
        self._kept: tuple[str, bytes, str] | None = None
        #: Of those who watch the state.
        self.trails = Trails(fs)
        #: Base documents and generations of the journals before this one, and until when each matters.
        self._previous: tuple[tuple[bytes, str | None, float], ...] = ()

    # ------------------------------------------------------------------ reading

    def fresh(self) -> View | None:
        """The current view if memory is the newest commit, else None: then `refresh` under the thread lock.

        Within a generation the file only grows, so its size is its version.
        """
        view = self.memory.view
        lseek, clock = self._lseek, self._clock  # as in `begin`
        try:
            if view is not None and lseek(view[0], 0, 2) == view[1] and clock() < self._look_at:
                return view
        except expected(OSError):
            pass  # the descriptor is not ours any more: `refresh` finds out
        return None

    def fresh_durable(self) -> View | None:
        """`fresh` with durability "power": what others act on, a power cut must not take back (F12)."""
        view = self.fresh()
        return view if view is not None and self._is_settled(view) else None

    @property
    def at_rest(self) -> bool:
        """No descriptor is open: not yet, or after `rest`."""
        return self._journal is None

    def open(self) -> None:
        """Read the file into memory; it is created when it is missing. Waits for no lock.

        A torn tail, which only a crash leaves, is tidied up if the lock is free. Otherwise no byte changes.
        Raises StateFileError with the reason when the content cannot be used, MissingPathError, NotAFileError,
        ReadOnlyError or UnreadableError (each an OSError) when the path cannot.
        """
        try:
            self._reload(create=not self.read_only)
        except expected(OSError) as error:
            if isinstance(error, PStateError):
                raise
            raise self._told(error) from error
        view = self.memory.view
        assert view is not None
        if not self.read_only and self._lseek(view[0], 0, os.SEEK_END) != view[1]:
            self.tidy(after_crash=True)

    def expect_change(self) -> None:
        """Let the next read or change look at the path, even if the last look still counts."""
        self._look_at = self._look_due = self._check_at = 0.0

    def follow_links(self) -> None:
        """Somebody opens the path again: if a link in it leads elsewhere by now, the next read or change looks."""
        if self._journal is not None and self.fs.real_path(self.path) != self._journal.path:
            self.expect_change()

    def refresh(self) -> None:
        """Make memory the newest commit. Never waits for another process.

        Raises EditConflict when a person's edit was found that our commits could not be brought together with, and
        UnreadableError when the newest commit is in a file that cannot be opened just now.
        """
        while True:
            try:
                return self._refresh()
            except expected(OSError) as error:
                if not self._is_loss(error):
                    self._retry_at = 0.0  # the next read tries again
                    if isinstance(error, PStateError):
                        raise
                    raise self._told(error) from error
            if not self._regained():
                return None

    def _told(self, error: OSError) -> UnreadableError:
        """*error*, which is the system's, as one of ours."""
        message = f"{self.path}: cannot be read: {error.strerror}. Nothing was changed. {files.remedy(error)}"
        return UnreadableError(message, path=self.path, errno=error.errno)

    def _refresh(self) -> None:
        if self.memory.view is None:
            # What was interrupted may be in this file, and the state in another one by now.
            self._reload()
        while True:
            rest = self._catch_up()
            assert self.memory.view is not None
            journal = self.memory.view[4]
            now = self._clock()
            if rest == b"" and (now < self._look_at or now < self._retry_at):
                return
            try:
                status = self._status()
            except expected(WriteError) as error:
                self._complain(error)
                status = None
            if status is None:
                # Deleted, or a vacuum or an editor is between two steps; memory is the last state that there was.
                self._retry_at = now + LOOK_INTERVAL
                return
            if (status.st_dev, status.st_ino) != journal.identity:
                trailer = self._read_trailer(rest)
                if trailer is None:
                    self._edit_seen(now, status)
                    return
                try:
                    followed = self._follow(trailer, QUIET_FOR_READERS)
                except expected(StateFileError) as error:
                    # Somebody has edited the successor already, and it does not parse (yet).
                    self._complain(error)
                    self._retry_at = self._clock() + CHECK_INTERVAL
                    return
                if not followed:
                    return
                continue
            if rest is None or self._changed_in_place(status, now) or (rest and self._is_foreign(journal, now)):
                self._edit_seen(now, status)
                return
            self._looked(now)
            # What else is behind `end` is no record yet: torn, or a trailer before its rename. Its size proves nothing,
            # so the next read looks again (F17).
            return

    def _catch_up(self) -> bytes | None:
        """Apply what was committed since. Returns the bytes behind the last commit, None if the file has shrunk.

        Raises as `Journal.demand`: what another file says is not believed.
        """
        view = self.memory.view
        assert view is not None
        fd, end, crc, index, journal = view
        journal.demand()
        while True:
            size = self._lseek(fd, 0, os.SEEK_END)
            if size == end:
                return b""
            if size < end:
                return None
            data = journal.read(end)
            if end + len(data) >= size:
                break  # otherwise somebody cut it between the two calls, and perhaps to save in place
        start = 0
        base, marker = journal.base, journal.marker
        if marker is None:
            prefix = f.first_node(base)
            if prefix and data.startswith(prefix):
                start = len(prefix)
                base += prefix
            found = f.read_marker(data, start)
            if found is None or not found[0].describes(base):
                return data
            marker, start = found
            crc = f.first_crc(marker.generation)
        bodies, stop, crc = f.read_records(data, start, crc)
        if not bodies:
            return data
        records = recovery.decode(bodies, self.path, journal.read, index)
        self.trails.others(index, index + len(bodies))
        self._known = view
        self.memory.view = None
        for number, record in enumerate(records):
            try:
                self.memory.apply(record)
            except expected(LookupError, TypeError, ValueError) as error:
                following = len(records) - number - 1
                raise recovery.does_not_fit(self.path, journal.read(), index + number, following, error) from error
        if marker is not journal.marker:
            journal.set_base(base, marker, appendable=True)
            self._plan_vacuum(journal, len(base))
        # By position: a commit of ours that an exception kept from being published may stand there already.
        journal.content[end:] = data[:stop]
        self.memory.view = (fd, end + stop, crc, index + len(bodies), journal)
        return data[stop:]

    def _status(self) -> os.stat_result | None:
        """What the path shows; None where it shows nothing. Raises WriteError where nobody can tell."""
        try:
            return self.fs.stat(self.path)
        except expected(FileNotFoundError):
            return None
        except expected(OSError) as error:
            message = (
                f"{self.path}: the path cannot be reached: {error.strerror or error}. Nothing was changed: reads go on "
                "from the last good state, writes are refused until it can."
            )
            raise WriteError(message, path=self.path, errno=error.errno) from error

    def _changed_in_place(self, status: os.stat_result, now: float) -> bool:
        """Whether somebody rewrote our file where it is. Its time stamp tells when to compare its content."""
        if status.st_mtime_ns == self._mtime or now < self._check_at:
            return False
        assert self.memory.view is not None
        if not self.memory.view[4].holds(self.memory.view):
            return True
        self._mtime = status.st_mtime_ns
        self._check_at = now + max(CHECK_INTERVAL, CHECK_COST * (self._clock() - now))
        return False

    def _is_foreign(self, journal: Journal, now: float) -> bool:
        """Whether the bytes behind `end` are there because the whole file is another one than memory knows."""
        if now < self._check_at:
            return False
        foreign = not self._is_ours(recovery.scan(journal.read()), journal)
        self._check_at = now + max(CHECK_INTERVAL, CHECK_COST * (self._clock() - now))
        return foreign

    def _is_ours(self, image: f.Image, journal: Journal) -> bool:
        """Whether *image*, of the whole file, shows the history that memory knows, up to the same commit."""
        assert self.memory.view is not None
        _, end, crc, index, _ = self.memory.view
        return (image.end, image.crc, image.index) == (end, crc, index) and crc32(image.base) == journal.base_crc

    def _is_quiet(self, status: os.stat_result) -> bool:
        """Whether a save seems to be over: the file with this *status* has not changed for a while.

        An editor writes a large file in pieces, and what stands in it between two of them may well parse. That it is
        another file than ours says nothing: some editors move the old one away first, and write at the path then.
        """
        age = self._age(status)
        if age is not None and age > 2 * QUIET:
            return True
        now = self._clock()
        seen = self._unquiet
        looks = status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns
        if seen is None or seen[0] != looks:
            self._unquiet = seen = looks, now
        return now - seen[1] >= QUIET

    def _age(self, status: os.stat_result) -> float | None:
        """For how many seconds, at least, nobody has written to the file with this *status*. None if its time stamps
        lie in the future, as they do after the clock was set back: then they say nothing.

        Each write sets both time stamps. `tar` and `scp -p` set the first one back, so the younger one counts.
        """
        wall = self.fs.wall()
        past = [stamp for stamp in (status.st_mtime_ns, status.st_ctime_ns) if stamp <= wall * 1e9]
        if not past:
            return None
        youngest = max(past)
        return wall - youngest / 1e9 - (0.0 if youngest % 1_000_000_000 else COARSE)

    def _edit_seen(self, now: float, status: os.stat_result) -> None:
        """A reader found an edit. To bring it together with commits takes the lock; a reader does not wait for it."""
        self._retry_at = now + min(QUIET, CHECK_INTERVAL)
        before = self._journal
        assert before is not None
        is_other = (status.st_dev, status.st_ino) != before.identity
        if not self._is_quiet(status) and not self._is_switched(before, is_other):
            if (not is_other or _is_easy(before)) and self._age(status) is not None:
                return  # the last good state, until the editor has finished
            try:
                # Not at once the last good state: it may be a vacuum's, of a file that took no trailer, and others may
                # have acknowledged what it says. Or no time stamp can tell when the save was.
                self._await_quiet(self._open_journal(), QUIET_FOR_READERS)
            except expected(OSError, InvalidEditError) as error:
                if _is_shortage(error):
                    raise
                self._retry_at = self._clock() + CHECK_INTERVAL
                return
        if self.read_only:
            try:
                self._load(self._saved(), "edit")
            except expected(OSError, StateFileError) as error:
                if _is_shortage(error):
                    raise
                self._complain(error)
            return
        try:
            self.begin(0, look=True)
        except expected(LockTimeout):
            # Whoever holds it sees the edit too. Until then, the last good state. But where no commits are known there
            # is nothing to bring together, and it may be a vacuum's, of a file that took no trailer.
            view = self.memory.view
            if is_other and self._journal is before and view is not None and not view[3] and not _is_easy(before):
                try:
                    self._load(self._saved(), "edit")
                except expected(OSError, StateFileError) as error:
                    if _is_shortage(error):
                        raise
                    self._complain(error)
        except expected(InvalidEditError, WriteError) as error:
            self._complain(error)
        finally:
            try:
                self.release()
            except BaseException:
                self.release()
                raise
        if self._journal is before:
            self._retry_at = self._clock() + CHECK_INTERVAL

    def _is_switched(self, before: Journal, is_other: bool) -> bool:
        """Whether the path shows another file than *before* because a link in it leads elsewhere.

        A program writes a file before it switches a link to it, so no save has to be waited for.
        """
        return is_other and self.fs.real_path(self.path) != before.path

    def _saved(self) -> Journal:
        """What a person has saved at the path. Raises InvalidEditError when it is empty, and we know more."""
        journal = self._open_journal()
        view = self.memory.view
        if view is not None and view[1] and not self.fs.fstat(journal.fd).st_size:
            raise self._emptied()
        return journal

    def _emptied(self) -> InvalidEditError:
        """Every editor that saves in place empties the file first."""
        message = (
            f"{self.path}: the file was emptied while it was open. Reads go on from the last good state, writes "
            "are refused until it has content again. To begin an empty state, write {} into it."
        )
        return InvalidEditError(message, path=self.path, line=1, column=1)

    def _looked(self, now: float) -> None:
        """The path shows our file, as of *now*. One that is replaced without a trailer is looked at by every read."""
        if self._journal and _is_easy(self._journal):
            self._look_at, self._look_due = now + LOOK_INTERVAL / 2, now + LOOK_INTERVAL
        else:
            self._look_at = self._look_due = now
        self._retry_at = 0.0
        self._complaint = ""
        self._unmerged = False

    def _complain(self, error: Exception) -> None:
        """Log what keeps us on the last good state, once, however often it is found before all is well again."""
        message = str(error)
        if message != self._complaint:
            self._complaint = message
            logger.warning("%s", message)

    # ------------------------------------------------------------------ opening and following

    def _reload(self, create: bool = False) -> None:
        """Memory is not to be trusted, or there is none yet: read the file whole."""
        if self._journal is not None and not self._journal.is_ours():
            self._regain_or_raise()
            if self.memory.view is not None:
                return
        if self._journal is not None:
            # Not what the path shows now: a commit of ours may be in this file, and must be known before an edit is
            # judged.
            try:
                self._load(self._journal)
            except expected(StateFileError):
                if self._known is None or self._known[4] is not self._journal:
                    raise
                # A person has edited it meanwhile, and what was interrupted stands behind: we know both sides.
                self._restore(self._known)
            return
        if create:
            # Without links, because a link that leads nowhere cannot be opened to create what it leads to.
            journal = files.create_state(self.fs, self.fs.real_path(self.path))
        else:
            try:
                journal = self._open_journal()
            except expected(FileNotFoundError) as error:
                raise files.missing(self.path, error) from error
        # Whoever made the file, or renamed it, may have died before syncing the folder (F12).
        self._folder_due = True
        self._load(journal)

    def _is_loss(self, error: OSError) -> bool:
        """Whether *error* came because the program has closed the descriptor of the file."""
        view = self.memory.view
        journal = view[4] if view is not None else self._journal
        return error.errno == errno.EBADF and journal is not None and not journal.is_ours()

    def _regain(self, at_most: float) -> bool:
        """The program has closed our descriptor, and the number may be another file's: open the file again.

        Memory goes on in it where it has our journal, whatever else has become of it. Otherwise others have replaced
        the file, and what it says is read, as in a forked child. False when the path shows nothing. Raises as
        `_follow`.
        """
        view = self.memory.view
        old = view[4] if view is not None else self._journal
        assert old is not None
        if old.fd != NO_DESCRIPTOR:
            logger.warning("%s: the program has closed the descriptor of the file; it is opened again", self.path)
            old.lose(old.fd)
            self._retry_at = 0.0
        self.drop_lock()
        self._settled = self._ready = None
        while True:
            new = None
            try:
                new = self._open_journal()
                self._go_on_in(new, old, at_most)
                return True
            except expected(FileNotFoundError):
                return False
            except expected(OSError) as error:
                if error.errno != errno.EBADF or (new is not None and new.is_ours()):
                    raise  # otherwise another thread has just closed this one as well

    def _go_on_in(self, new: Journal, old: Journal, at_most: float) -> None:
        """Bring memory, which stands in *old*, to *new*, which the path shows. See `_regain`."""
        self._folder_due = True  # as in `_reload`
        image = f.scan(new.read())
        if not _goes_on(image, old):
            self._await_quiet(new, at_most)
            if old.content and not self.fs.fstat(new.fd).st_size:
                new.demand()
                raise self._emptied()
            self._load(new)
            self._remember(old)
            return
        new.demand()
        new.take_over(old)
        # Everything in it is looked at again, as behind a save in place: it may have been one.
        self.expect_change()
        self._retry_at = 0.0
        self._mtime = -1
        self.trails.move(new)
        if self._known is not None and self._known[4] is old:
            self._known = (new.fd, *self._known[1:4], new)
        view = self.memory.view
        self._journal = new
        if view is not None:
            self.memory.view = (new.fd, *view[1:4], new)

    def _regained(self) -> bool:
        """`_regain` for a reader: where it cannot be, the last good state goes on to be read."""
        started = self._clock()
        if started < self._retry_at and self._journal is not None and self._journal.fd == NO_DESCRIPTOR:
            return False  # it was in vain a moment ago
        try:
            return self._regain(QUIET_FOR_READERS)
        except StateFileError as error:
            self._complain(error)
            self._retry_at = self._clock() + max(CHECK_INTERVAL, CHECK_COST * (self._clock() - started))
            return False

    def _regain_or_raise(self) -> None:
        """`_regain` for a writer, or for a reader that has no last good state."""
        try:
            if not self._regain(QUIET_AT_MOST) and self._await_path() is None:
                message = (
                    f"{self.path}: was deleted while it was open, and the program has closed the descriptor of it. "
                    "Nothing was changed. To begin a new file, close the state and open it again."
                )
                raise MissingPathError(message, path=self.path, errno=errno.ENOENT)
        except StateFileError as error:
            raise self._invalid_edit(error) from error

    def _restore(self, view: View) -> None:
        """Make memory what it was at *view*, from what we know and not from the file."""
        fd, end, crc, index, journal = view
        records = recovery.decode(journal.bodies(index), self.path, journal.read)
        self.memory.adopt(self._replay(recovery.document(journal.base, self.path), records, journal.read))
        self.memory.view = (fd, end, crc, index, journal)

    def _open_journal(self) -> Journal:
        journal = files.open_state(self.fs, self.path, read_only=self.read_only)
        journal.path = self.fs.real_path(self.path)
        return journal

    def _load(self, journal: Journal, origin: Origin = "other") -> None:
        """Read *journal* whole and make memory equal to it. Raises StateFileError, with memory as it was.

        *origin*: where what differs comes from, if the file is not the one that memory knows.
        """
        mtime = self.fs.fstat(journal.fd).st_mtime_ns
        data = journal.read()
        journal.demand()  # or it would be another file that was read
        try:
            content = recovery.read(data, self.path, self.fs.boot_id)
        except CorruptStateError:
            # A reader waits for no lock: somebody may have cut a torn tail, and written there, while we read.
            before, data = data, journal.read()
            if data == before:
                raise
            content = recovery.read(data, self.path, self.fs.boot_id)
        state = self._replay(content.state, content.records, journal.read)
        if self.trails:
            self.trails.load(journal, content.image, content.state, state, origin)
        self._become(state, journal, data, content.image, content.appendable, mtime)

    def _become(
        self, state: State, journal: Journal, data: bytes, image: f.Image, appendable: bool, mtime: int
    ) -> None:
        """Memory is *state* from now on, which is what *journal* says, or is about to."""
        self.memory.view = None
        self._ready = None  # the same journal may have another document now, which no marker may stand behind
        journal.set_base(image.base, image.marker, appendable)
        journal.content[:] = data[: image.end]
        self.memory.adopt(state)
        self._mtime = mtime
        self._publish(journal, (journal.fd, image.end, image.crc, image.index, journal))

    def _replay(self, state: State, records: list[Operations] | Records, file: Callable[[], bytes]) -> State:
        """What *state* becomes by *records*, the first ones of what *file* gives. Raises CorruptStateError."""
        if not records:
            return state
        try:
            return self.memory.replay(state, records)
        except expected(StateFileError):
            raise  # a record that cannot be decoded
        except expected(LookupError, TypeError, ValueError) as error:
            known = list(records)
            good = bisect.bisect_left(range(len(known)), True, key=lambda count: not self._fit(state, known, count))
            following = len(records) - good
            raise recovery.does_not_fit(self.path, file(), good - 1, following, error) from error

    def _fit(self, state: State, records: list[Operations], count: int) -> bool:
        """Whether *state* takes the first *count* of *records*."""
        try:
            self.memory.replay(state, records[:count])
        except expected(LookupError, TypeError, ValueError):
            return False
        return True

    def _publish(self, journal: Journal, view: View) -> None:
        self._journal = journal
        if self._settled is not None and self._settled[4] is not journal:
            self._settled = None  # or the file before would stay open until the next sync
        now = self._clock()
        self._check_at = now
        self._plan_vacuum(journal, len(journal.base))
        self._looked(now)
        self.memory.view = view

    def _follow(self, trailer: f.Trailer, at_most: float) -> bool:
        """A vacuum has replaced our file: go on in the one that is at the path. False when none is there just now.

        *at_most*: how long to wait for somebody who is saving it. Raises StateFileError, with memory as it was.
        """
        try:
            journal = self._open_journal()
        except expected(FileNotFoundError):
            return False
        except expected(OSError) as error:
            if _is_shortage(error):
                raise
            raise self._unusable(error) from error
        view = self.memory.view
        assert view is not None
        self._folder_due = True  # as in `_reload`
        base = journal.read(0, trailer.length) if trailer.index == view[3] else b""
        if base and len(base) == trailer.length and crc32(base) == trailer.crc and self._ends_there(journal, base):
            # What memory holds; reading it again would be the most expensive thing here.
            self._mtime = self.fs.fstat(journal.fd).st_mtime_ns
            journal.set_base(base, None, appendable=True)
            if self.trails:
                self.trails.become(journal, None, "other", 0, None)
            self._remember(view[4])
            self._publish(journal, (journal.fd, len(base), 0, 0, journal))
            return True
        try:
            # Another vacuum has come since, or a person's save, which may not be over.
            self._await_quiet(journal, at_most)
            if trailer.length and not self.fs.fstat(journal.fd).st_size:
                message = f"{self.path}: is empty just now, somebody seems to be saving it."
                raise InvalidEditError(message, path=self.path, line=1, column=1)
            self._load(journal, "edit" if vacuum.is_of_edit(trailer) else "other")
            self._remember(view[4])
        except BaseException:
            if self._journal is not journal:
                journal.close()
            raise
        return True

    def _ends_there(self, journal: Journal, base: bytes) -> bool:
        """Whether *base*, with which *journal* begins, is its whole base document, not the beginning of one."""
        behind = journal.read(len(base), 64)
        found = f.read_marker(behind)
        return not behind or (found is not None and found[0].describes(base))

    def _remember(self, journal: Journal) -> None:
        """Keep what *journal* began with, if it has commits: an editor may hold a copy from before them.

        Not of a file that a link has led to, and that is still where it was: when the link leads there again, what it
        says is what counts: it is not a copy.
        """
        if journal.marker is not None and (journal.path == self.path or not self._is_at(journal, journal.path)):
            generation = journal.marker.generation
            now = self._clock()
            kept = [previous for previous in self._previous if previous[2] > now]
            kept.append((journal.base, generation, now + STALE_COPY))
            while len(kept) > STALE_COPIES or (
                len(kept) > STALE_AT_LEAST and sum(len(previous[0]) for previous in kept) > STALE_BYTES
            ):
                del kept[0]
            self._previous = tuple(kept)

    # ------------------------------------------------------------------ writing

    def begin(self, timeout: float | None, look: bool = False) -> float:
        """Take the write lock, catch up, and make sure that ours is the file at the path.

        Afterwards the file ends at `view` (I3). *look*: at the path too, even if the last look still counts. The caller
        unlocks in its `finally`, whether this raises or not. Returns the time. Raises LockTimeout, InvalidEditError,
        EditConflict, StoreFailedError, ReadOnlyError, WriteError.
        """
        view = self.memory.view
        # Names of their own for what is called here: CPython 3.11 takes 0.1 µs more for a method that is in a slot.
        clock, flock, lseek = self._clock, self.flock, self._lseek
        now = clock()
        if (
            view is not None
            and now < self._look_at
            and not look
            and not self._refusal
            and (now < self._sure or self._is_as_it_was(view))
        ):
            fd, end, _, _, self.held = view
            self.fd = fd
            try:
                flock(fd, EXCLUSIVE_NOW)
                if lseek(fd, 0, 2) == end:
                    return now
            except expected(OSError):
                pass  # held, or worse: below we wait, or say what is wrong
        while True:
            try:
                self._begin(timeout)
                return self._clock()
            except expected(OSError) as error:
                if not self._is_loss(error):
                    if isinstance(error, PStateError):
                        raise
                    raise self._told(error) from error
            self._regain_or_raise()

    def _is_as_it_was(self, view: View) -> bool:
        """Whether the descriptor of *view* may be locked: it stands, since the last look a moment ago, for a file that
        ends where ours does.
        """
        fd, end, _, _, journal = view
        if journal.marker is None:
            return journal.is_ours()  # the sizes of new files are equal
        try:
            return journal.fd == fd and self._lseek(fd, 0, os.SEEK_END) == end
        except expected(OSError):
            return False

    def _begin(self, timeout: float | None) -> None:
        self._is_failed_sync(self._unjudged)
        if self._refusal:
            raise (ReadOnlyError if self.read_only else StoreFailedError)(self._refusal, path=self.path)
        deadline = None if timeout is None or timeout < 0 else self._clock() + timeout
        while True:
            if self.memory.view is None:
                self._reload()
            assert self.memory.view is not None
            journal = self.memory.view[4]
            self._hold(journal)
            left = None if deadline is None else max(0.0, deadline - self._clock())
            # What others commit until they let us in need not wait until then: half of the time of two who count.
            lock.acquire(
                self.flock, journal.fd, self.path, left, self._clock, self.fs.sleep, self._catch_up,
                partial(self._may_unlock, journal),
            )  # fmt: skip
            if self._is_current(journal, left):
                return
            # Ours is the old file's lock, and `journal` keeps its descriptor from being used again until here.
            self._unlock(journal)

    def release(self) -> None:
        """Unlock, whether locked or not. An exception may come before its first instruction: then call it again."""
        self.drop_lock()
        if self.fd >= 0:
            self.flock(self.fd, UNLOCK)

    def _unlock(self, journal: Journal) -> None:
        if self._may_unlock(journal):
            self.flock(journal.fd, UNLOCK)

    def _may_unlock(self, journal: Journal) -> bool:
        """Whether a lock call for *journal* touches no file of others."""
        return not self._locks_descriptors or journal.is_ours()

    def unlock_again(self, error: OSError) -> bool:
        """Unlock, after the system has refused it with *error*; returns whether to raise that.

        A lock that cannot be given back because its descriptor is closed went with that.
        """
        self.release()
        return self.fd >= 0 or error.errno != errno.EBADF

    def drop_lock(self) -> None:
        """Have nothing to unlock, if the descriptor that we had locked is not ours any more: the lock went with it."""
        if self._locks_descriptors and self.held is not None and not self.held.is_ours():
            self.fd = -1

    def _hold(self, journal: Journal) -> None:
        self.held = journal
        self.fd = journal.fd

    def _is_current(self, journal: Journal, timeout: float | None) -> bool:
        """With the lock: catch up, tidy the end. False when we went on to another file, which is not locked yet."""
        while True:
            rest = self._catch_up()
            status = self._status() or self._await_path()
            now = self._clock()
            if status is None:
                if not self._write_again():
                    continue
                logger.warning("%s: was deleted while it was open; written again", self.path)
                return True
            if (status.st_dev, status.st_ino) != journal.identity:
                trailer = self._read_trailer(rest)
                if trailer is None and rest != b"":
                    trailer = self._trailer_after_edit(journal)
                    if trailer is not None and self._lacks(trailer):
                        records = recovery.decode(journal.bodies(trailer.index), self.path, journal.read)
                        ancestor = self._replay(recovery.document(journal.base, self.path), records, journal.read)
                        return self._resolve_saved_elsewhere(journal, timeout, ancestor)
                if trailer is None:
                    if rest:
                        self._cut(journal)  # or the trailer that we leave would not stand behind the last commit
                    return self._resolve_saved_elsewhere(journal, timeout)
                try:
                    self._follow(trailer, QUIET_AT_MOST)
                except expected(StateFileError) as error:
                    raise self._invalid_edit(error) from error
                return False
            if rest is None or self._changed_in_place(status, now):
                return self._resolve_saved_in_place(journal)
            if not rest:
                self._looked(now)
                return True
            if not self._cut(journal):
                return self._resolve_saved_in_place(journal)

    def _write_again(self) -> bool:
        """Write the state to its path, where nothing is. False when something is by now."""
        try:
            self._replace(absent=True)
        except vacuum.EditCameOut:
            return False
        except expected(OSError) as error:
            if isinstance(error, PStateError):
                raise
            message = (
                f"{self.path}: was deleted while it was open, and could not be written again: "
                f"{error.strerror or error}. Nothing was changed; the state is in memory. Make its folder anew."
            )
            raise WriteError(message, path=self.path, errno=error.errno) from error
        return True

    def _await_path(self) -> os.stat_result | None:
        """Wait for the path to come back: some editors move the old file away before they write the new one."""
        deadline = self._clock() + MISSING
        while (status := self._status()) is None and self._clock() < deadline:
            self.fs.sleep(0.005)
        return status

    def _trailer_after_edit(self, journal: Journal) -> f.Trailer | None:
        """The trailer of another process that has dealt with an edit in place of our file, if there is one."""
        trailer = f.scan(journal.read()).trailer
        if trailer is None or not self._is_of_ours(trailer):
            return None
        # What it says of the new file holds for the edited state, not for what memory is.
        return f.Trailer(trailer.generation, 0, trailer.crc, trailer.index, trailer.own_crc)

    def _read_trailer(self, rest: bytes | None) -> f.Trailer | None:
        """The trailer that *rest*, what stands behind `view`, consists of."""
        trailer = f.read_trailer(rest) if rest else None
        return trailer if trailer is not None and self._is_of_ours(trailer) else None

    def _is_of_ours(self, trailer: f.Trailer) -> bool:
        """Whether who wrote *trailer* knew our generation, if it had begun then.

        Otherwise a save in place within our first commit has overwritten that, with a copy that had another one's.
        """
        assert self.memory.view is not None
        generation, index = vacuum.known(self.memory.view)
        return not index or trailer.generation in (generation, f.NO_GENERATION)

    def _lacks(self, trailer: f.Trailer) -> bool:
        """Whether we know commits that the one who dealt with an edit in place had not read before it."""
        assert self.memory.view is not None
        generation, index = vacuum.known(self.memory.view)
        # Who stood in front of the first commit knew no generation yet.
        return trailer.generation in (generation, f.NO_GENERATION) and trailer.index < index

    def _cut(self, journal: Journal) -> bool:
        """Cut what stands behind `end`. False when the file is not the one that memory knows: then it is an edit.

        Nothing is cut before a scan of the whole file has shown our history (I1): `end` alone means nothing after a
        person has saved in place (F9b).
        """
        assert self.memory.view is not None
        _, end, _, index, _ = self.memory.view
        data = journal.read()
        image = recovery.scan(data)
        if not self._is_ours(image, journal):
            return False
        recovery.judge(image, data, self.path, self.fs.boot_id)
        if image.trailer is not None:
            logger.info("%s: cut the trailer of a vacuum that did not end", self.path)
        elif not self._keep_rest(image):
            logger.warning(
                "%s: torn tail cut: %d bytes after commit %d (offset %d), %r",
                self.path, len(image.rest), index, end, image.rest[:80],
            )  # fmt: skip
        try:
            if image.trailer is not None:
                vacuum.discard_dead(journal, image.trailer)
            journal.truncate(end)
        except expected(OSError) as error:
            message = (
                f"{self.path}: {len(image.rest)} bytes that an interrupted write left behind commit {index} could not "
                f"be cut off: {error.strerror or error}. Nothing was changed. Mend the disk, and try again."
            )
            raise WriteError(message, path=self.path, errno=error.errno) from error
        return True

    def _keep_rest(self, image: f.Image) -> bool:
        """Keep beside what a power cut has made unreadable. False where it is only a write that did not end."""
        if not f.has_more(image):
            return False
        kept = self._keep_beside("cut", image.rest)
        logger.error(
            "%s: %d bytes after commit %d (offset %d) are unreadable after a power cut, %d commits behind them "
            "are lost; all of it was kept in %s",
            self.path, len(image.rest), image.index, image.end, image.following, kept,
        )  # fmt: skip
        return True

    def prepare(self) -> View:
        """Make sure that the base document can take a journal of ours; returns the view to `commit` behind.

        The caller holds the lock, and memory is what the file says. Raises WriteError when it cannot.
        """
        view = self.memory.view
        assert view is not None
        journal = view[4]
        marker = journal.marker
        if marker is None:
            if _takes_marker(journal):
                return view
        elif self.power or not marker.power:
            self._ready = journal
            return view
        # Either a base that a marker would change or end badly (F3), or a journal that promises "power" to a reader
        # after a crash, which our commits would break.
        try:
            self._replace(merge=False)
        except vacuum.EditCameOut as error:
            # The change was planned on what memory is: it must not become another state in the middle of it.
            raise self._edited_meanwhile() from error
        except expected(OSError) as error:
            message = (
                f"{self.path}: the document must be written anew before a commit can stand behind it, which failed: "
                f"{error}. Nothing was changed. The folder must be writable and have room for a copy."
            )
            raise WriteError(message, path=self.path, errno=error.errno) from error
        assert self.memory.view is not None
        return self.memory.view

    def commit(self, body: str, view: View | None = None) -> View:
        """Write *body* as one record; returns the view behind it, which is not yet memory's.

        The caller holds the lock, and memory is what the file says, or was when `prepare` returned *view*. When this
        raises an OSError, nothing was committed; after an asynchronous exception the file decides, and the next
        `refresh` finds out. EditConflict where a person has saved since `prepare`, too.
        """
        if view is None:
            view = self.memory.view if self._journal is self._ready else self.prepare()
            assert view is not None
        elif self._is_saved_over(view):
            raise self._edited_meanwhile()
        elif self._clock() >= self._look_at:
            self._refuse_broken_save(view[4])
        fd, end, crc, index, journal = view
        if journal.marker is None:
            return self._commit_first(body, view)
        self._known = view
        # `encode_record` and `Journal.append`, written out: two calls fewer are 2 % of `counter += 1`.
        data = body.encode()
        crc = crc32(data, crc)
        record = RECORD % (data, crc)
        write = journal.write
        try:
            written = write(fd, record)
            while written < len(record):
                written += write(fd, record[written:])
        except expected(OSError) as error:
            journal.undo(end, end + len(record), error)
        journal.content[end:] = record
        return (fd, end + len(record), crc, index + 1, journal)

    def _is_saved_over(self, view: View) -> bool:
        """Whether somebody has saved in place since the transaction began, so that its record would stand behind bytes
        that it does not go on from.

        What ends in our last commit is no such case: the edit above it is brought together with the record afterwards.
        """
        fd, end, crc, index, journal = view
        try:
            size = self._lseek(fd, 0, 2)
        except expected(OSError):
            size = -1
        if size == end:
            return False
        journal.demand()
        return not (index and b"# %08x" % crc in journal.read(max(0, size - 17), 17))

    def _refuse_broken_save(self, journal: Journal) -> None:
        """A transaction has taken long. Raise InvalidEditError if the path shows by now what is not a state.

        A save that is one is brought together with the record, after it was written.
        """
        journal.demand()
        status = self._status()
        if status is None or (status.st_dev, status.st_ino) == journal.identity:
            return
        try:
            saved = self._saved()
            data = saved.read()
            # Not `recovery.read`: an edit above our journal is one that can be brought together with the record.
            recovery.document(recovery.judge(f.scan(data), data, self.path, self.fs.boot_id).base, self.path)
        except InvalidEditError:
            raise
        except StateFileError as error:
            raise self._invalid_edit(error) from error
        except expected(OSError) as error:
            if _is_shortage(error):
                raise WriteError(str(error), path=self.path, errno=error.errno) from error
            raise self._unusable(error) from error

    def _edited_meanwhile(self) -> EditConflict:
        """For a change that was planned on what memory is; the next look at the file finds the edit."""
        self.expect_change()
        message = (
            f"{self.path}: the file was edited while a change of it was under way. The change was undone; the edit "
            "is in the file. Do it again on what the state is then."
        )
        return EditConflict(message, path=self.path)

    def _commit_first(self, body: str, view: View) -> View:
        """The first record of a generation comes in one write with the base marker."""
        fd, end, _, _, journal = view
        prefix = f.first_node(journal.base)
        base = journal.base + prefix
        generation = self._draw_generation()
        marker = f.BaseMarker(generation, len(base), crc32(base), self.fs.boot_id(), self.power)
        record, crc = encode_record(body, f.first_crc(generation))
        data = prefix + marker.encode() + record
        journal.append(data, end)
        # From here on the old view does not go with the journal: whoever finds None reads the file again.
        self.memory.view = None
        journal.set_base(base, marker, appendable=True)
        journal.content[end:] = data
        self._plan_vacuum(journal, len(base))
        return (fd, end + len(data), crc, 1, journal)

    def _draw_generation(self) -> str:
        """A repeated generation would make the records of an old journal valid in a new one (F11)."""
        while True:
            generation = self.fs.token()
            if generation != f.NO_GENERATION and all(generation != previous[1] for previous in self._previous):
                return generation

    def settle(self, view: View) -> None:
        """Return when the commits up to *view* are on stable storage: with durability "power", before they are
        acknowledged, or acted on.

        The caller holds no lock. Who comes while another thread syncs has written already; so the first of those who
        wait syncs for all of them, and the others find it done. Raises DurabilityUnknown, to each of them.
        """
        while not self._is_settled(view):
            self._is_failed_sync(self._unjudged)
            if self._refusal:
                raise DurabilityUnknown(
                    f"{self.path}: the change is committed and visible, but bringing it to stable storage together "
                    "with another thread's failed. This state takes no more writes: vacuum() writes a fresh file, or "
                    "close it and open it again.",
                    path=self.path,
                )
            # A lock for each sync: one for all would go again and again to the thread that has just given it back,
            # while those who wait for it have nothing left to wait for.
            with self._turn:
                under_way = self._under_way
                mine = self._under_way = under_way or threading.RLock()
            if under_way is None:
                with mine:
                    # What memory is now was written before, and the file of an older view has gone into it.
                    newest = self.memory.view or view
                    self._sync(newest[4])
                    self._settled = newest
                self._end_sync(mine)
                return
            with under_way:
                pass
            self._end_sync(under_way)  # for who was interrupted

    def _end_sync(self, ended: threading.RLock) -> None:
        with self._turn:
            if self._under_way is ended:
                self._under_way = None

    def settle_what_is_read(self, view: View | None) -> None:
        """`settle` for a reader, who cannot help it when that fails: it is logged, and writes are refused."""
        if view is not None and not self._refusal:
            try:
                self.settle(view)
            except expected(DurabilityUnknown) as error:
                logger.error("%s", error)

    def _is_settled(self, view: View) -> bool:
        settled = self._settled
        return settled is not None and settled[4] is view[4] and settled[1] >= view[1]

    def _sync(self, journal: Journal) -> None:
        part = "it"
        try:
            journal.demand()
            self.fs.sync_data(journal.fd)
            if self._folder_due:
                part = "its folder"
                self._folder_due = False  # before: another thread may have a new reason meanwhile
                try:
                    self.fs.sync_folder(os.path.dirname(journal.path))
                except BaseException:
                    self._folder_due = True
                    raise
        except OSError as error:
            # Noted before anything is called: a signal handler may raise there, and the next sync would succeed.
            self._unjudged = error
            self._look_at = self._look_due = 0.0
            if not self._is_failed_sync(error):
                raise
            message = (
                f"{self.path}: the change is committed and visible, but bringing {part} to stable storage failed: "
                f"{error.strerror or error}. A later sync cannot be trusted (the system forgets the failed pages), so "
                "this state takes no more writes: vacuum() writes a fresh file, or close it and open it again."
            )
            raise DurabilityUnknown(message, path=self.path, errno=error.errno) from error

    def _is_failed_sync(self, error: OSError | None) -> bool:
        """Whether *error*, of a sync, is the system's; then writes are refused from now on."""
        failed = error is not None and not is_foreign(error)
        if failed:
            self._refusal = (
                f"{self.path}: an earlier sync failed, so nothing here can be promised any more. Nothing was changed. "
                "vacuum() writes a fresh file; or close the state and open it again."
            )
        if self._unjudged is error:
            self._unjudged = None
        return failed

    def publish(self, view: View) -> None:
        """The record up to *view* was written and applied: make it visible to other threads.

        Then look at the path, if the last look does not count any more, and vacuum when it is due: a failure of that is
        logged, the commit is valid. With durability "power", always look: `settle`, which comes after the locks are
        given back, must sync the file that is at the path. Memory is what the file is, also when this raises:
        EditConflict, or DurabilityUnknown when the file at the path does not have the commit.
        """
        self.memory.view = view
        clock = self._clock
        now = clock()
        self._sure = now + TRUST
        if not self.power and view[1] < self._vacuum_at and now < self._look_due:
            return
        if self.power or now >= self._look_due:
            try:
                if not self._is_current_or_again(view[4]):
                    return
            except expected(InvalidEditError, OSError) as error:
                raise self._not_at_path(error) from error
        self._vacuum_if_due()

    def _is_current_or_again(self, journal: Journal) -> bool:
        """`_is_current` behind a commit, which is made again where the descriptor turns out not to be ours."""
        try:
            return self._is_current(journal, self.lock_timeout)
        except expected(OSError) as error:
            if not self._is_loss(error):
                raise
        self.begin(self.lock_timeout, look=True)
        return True

    def _not_at_path(self, error: Exception) -> DurabilityUnknown:
        """For a commit that was written, where the look at the path that follows found another file, or failed."""
        message = (
            f"{self.path}: the change is committed and visible, but it may not be in the file at the path, which "
            f"another program has replaced, deleted or made unreachable meanwhile: {error} The next change tries to "
            "bring it there. It is lost if all programs that know it end before that."
        )
        return DurabilityUnknown(message, path=self.path, errno=getattr(error, "errno", None))

    # ------------------------------------------------------------------ vacuum

    def _plan_vacuum(self, journal: Journal, length: int) -> None:
        self._vacuum_at = length + max(JOURNAL_FACTOR * length, JOURNAL_MINIMUM)
        self._put_off = False

    def begin_vacuum(self, timeout: float | None) -> None:
        """As `begin`, also after a failed sync: a fresh file is the way out of it."""
        self._is_failed_sync(self._unjudged)
        refusal = self._refusal
        if not self.read_only:
            self._refusal = ""
        try:
            self.begin(timeout, look=True)
        finally:
            self._refusal = refusal

    def vacuum(self) -> None:
        """Write the file anew, as one plain document. The caller holds the lock. Raises WriteError."""
        try:
            self._replace()
        except vacuum.EditCameOut:
            self.begin(self.lock_timeout, look=True)
        except expected(PStateError):
            raise
        except expected(OSError) as error:
            message = (
                f"{self.path}: the file could not be written anew: {error.strerror or error}. "
                "The state is unchanged, in memory and in the file; its journal stays. "
                "Its folder must be writable and have room for a copy."
            )
            raise WriteError(message, path=self.path, errno=error.errno) from error
        self._refusal = ""

    def save(self, original: State, text: bytes, base: codec.Base) -> list[str]:
        """Bring *text*, which says *base* and was made of a copy that said *original*, together with the state.

        The result is one plain document at the path, with all that a person has written in *text*. The caller holds the
        lock, and has looked. Returns one sentence for each value of programs that gave way. Raises as `vacuum`, and
        DurabilityUnknown. Of a process that dies before the exchange, the new document is kept beside the file, as a
        person's save that a vacuum has met; behind it, the old one is, if it could not take a trailer.
        """
        from pstate.file import edits

        lost: list[str] = []

        def edited(ours: State) -> _Edit:
            merged, lost[:] = edits.merge(original, base.value, ours)
            if same(merged, base.value):
                return (text, False), merged, base.appendable
            return vacuum.document(text, merged, self.path), merged, True

        while True:
            assert self._journal is not None
            before = self._journal
            try:
                self._replace(edit=edited)
            except vacuum.EditCameOut:
                self.begin(self.lock_timeout, look=True)
                continue
            except expected(OSError) as error:
                status = self._status()
                if status is None or (status.st_dev, status.st_ino) == before.identity:
                    message = (
                        f"{self.path}: the file could not be written anew: {error.strerror or error}. Nothing was "
                        "changed. Its folder must be writable and have room for a copy."
                    )
                    raise WriteError(message, path=self.path, errno=error.errno) from error
                logger.warning("%s: was saved, and tidying up behind it failed: %s", self.path, error)
                self.expect_change()
                if self.power:
                    self.refresh()
                    self.settle_what_is_read(self.memory.view)
            return lost

    def _vacuum_if_due(self) -> None:
        try:
            if self._lseek(self.fd, 0, os.SEEK_END) >= self._vacuum_at:
                self._replace()
        except vacuum.EditCameOut:
            pass  # the next look finds it
        except expected(InvalidEditError) as error:
            self._complain(error)
        except expected(OSError) as error:
            # Tried again when the journal has doubled, so that what the attempts cost stays in proportion (F23).
            self._vacuum_at *= 2
            tell = logger.debug if self._put_off else logger.warning
            self._put_off = True
            tell("%s: vacuum put off, the journal goes on growing: %s", self.path, error)

    def _replace(self, merge: bool = True, absent: bool = False, edit: Callable[[State], _Edit] | None = None) -> None:
        """Vacuum. The caller holds the lock and has caught up. Raises OSError, EditCameOut, and as an edit may.

        With *edit*, the state becomes what that makes of it, which nobody has known before.
        Without *merge*, an edit in place is left for later, by EditCameOut. With *absent*, nothing is at the path: then
        our file is not the state any more, and what somebody has made of it is none of our business.
        """
        view = self.memory.view
        assert view is not None
        content = view[4].read()
        # Scanning would cost 1 µs for each record of the journal, at each close.
        if (
            not absent
            and content != view[4].content
            and (not self._is_ours(recovery.scan(content), view[4]) or len(content) != view[1])
        ):
            if not merge or not self._resolve_saved_in_place(view[4]):
                raise vacuum.EditCameOut
            view = self.memory.view
            assert view is not None
            content = view[4].read(0, view[1])
        state = self.memory.plain()
        if edit is not None:
            document, state, appendable = edit(state)
            # The trailer makes all others read it, as behind any edit.
            self._put(view, content, document, state, vacuum.known(view), appendable=appendable)
            return
        document = vacuum.document(view[4].base, state, self.path, view[4].canonical)
        self._put(view, content, document, state, absent=absent)

    def _put(
        self,
        view: View,
        content: bytes,
        document: tuple[bytes, bool],
        state: State,
        judged: Known | None = None,
        absent: bool = False,
        appendable: bool = True,
    ) -> None:
        """Write *document*, which says *state*, in the place of the file that ends at *view*, and whose lock we hold;
        then memory is that.

        *content* is what that file says, which is what *state* was made from.

        With *judged*, *state* is a person's edit brought together with the commits that we knew. Until the new file is
        at the path nothing of it is noted, so that whatever interrupts us leaves what we know as it was.

        *document* comes with whether it is the canonical one. *appendable*: a marker may stand behind it, as behind all
        that is not a person's own.
        """
        old, known = view[4], self._journal
        text, canonical = document
        if absent:
            old.path = self.fs.real_path(self.path)  # a link may lead elsewhere by now
        elif old.path != self.path and not self._is_at(old, old.path):
            # The link was switched between the two calls that opened the file.
            old.path = self.fs.real_path(self.path)
            raise vacuum.EditCameOut
        self._clear_leftovers(old)

        def publish(new: Journal) -> None:
            new.published = True
            new.appendable = appendable
            new.canonical = canonical
            self._journal = self.held = new
            self.fd = new.fd
            self._folder_due = True
            if self.trails:
                self.trails.become(new, None if judged is None else state, "edit", 0, None)
            if judged is not None:
                self.memory.view = None
                self.memory.adopt(state)
            if known is not None:
                self._remember(known)
            self._mtime = new.mtime
            self._publish(new, (new.fd, len(text), 0, 0, new))

        try:
            vacuum.replace(self.fs, self.flock, old, view, content, text, publish, judged, absent)
            self._folder_due = False
            self._settled = self.memory.view
        except vacuum.EditCameOut:
            self.expect_change()
            raise
        finally:
            # The new file's lock is the one that the caller releases. The old one's descriptor is not closed before its
            # last view is gone: another thread may be about to ask for its size, and the number could be another
            # file's.
            if self._journal is not known and self._locks_descriptors:
                self._unlock(old)
        self._await_watchers(old)

    def _is_at(self, journal: Journal, path: str) -> bool:
        """Whether *path* shows *journal*."""
        try:
            status = self.fs.stat(path)
        except expected(FileNotFoundError):
            return False
        return (status.st_dev, status.st_ino) == journal.identity

    def _clear_leftovers(self, old: Journal) -> None:
        """Delete what killed vacuums of *old* have left; what may be a person's is kept."""
        assert self.memory.view is not None
        base = self.memory.view[4].base
        for name, stranger in vacuum.leftovers(old):
            if not self._says_the_same(stranger, base):
                kept = self._keep_beside("conflict", stranger)
                logger.error("%s: a save that a killed vacuum had pushed aside was kept in %s", self.path, kept)
            self.fs.unlink(name)

    def _says_the_same(self, content: bytes, base: bytes) -> bool:
        """Whether the file with *content* says what the document *base* says.

        So does the file that a vacuum had replaced, when a power cut took the trailer that proves it.
        """
        try:
            found = recovery.read(content, self.path, self.fs.boot_id)
            state = self._replay(found.state, found.records, lambda: content)
            return same(state, recovery.document(base, self.path))
        except expected(StateFileError):
            return False

    def tidy(self, after_crash: bool = False, keep_journal: bool = False) -> None:
        """Leave one plain document, if nobody else is writing. Never raises for what does not work: it is logged.

        *after_crash*: only if there was a torn tail to cut, which nobody alive has left. *keep_journal*: not at all;
        what is left is the look at the path, which a commit of a moment ago may still want (I6).
        """
        if self._journal is None or self.read_only:
            return
        try:
            size = self._lseek(self._journal.fd, 0, os.SEEK_END) if after_crash else 0
            for _ in range(3):
                if self._status() is None:
                    return  # deleted: then a person wants it gone
                self.begin(0, look=True)
                view = self.memory.view
                assert view is not None
                has_cut = self._lseek(view[0], 0, os.SEEK_END) < size
                if keep_journal or view[4].marker is None or (after_crash and not has_cut):
                    self._clear_leftovers(view[4])
                    break
                with contextlib.suppress(vacuum.EditCameOut):
                    self._replace()
                    break
        except expected(LockTimeout) as error:
            # Whoever holds it leaves the file tidy; but what an editor has put there lacks our commits.
            if self._is_edited_unseen():
                self._keep_ours(error)
        except expected(OSError, PStateError) as error:
            if isinstance(error, InvalidEditError) or self._unmerged:
                self._keep_ours(error)
            else:
                logger.warning("%s: left with its journal: %s", self.path, error)
        finally:
            try:
                self.release()
            except BaseException:
                self.release()
                raise

    def _is_edited_unseen(self) -> bool:
        """Whether the path shows something that nobody has brought together with our commits."""
        assert self._journal is not None
        status = self._status()
        if status is None or self._journal.marker is None:
            return False
        if (status.st_dev, status.st_ino) != self._journal.identity:
            return f.scan(self._journal.read()).trailer is None
        view = self.memory.view
        return view is not None and not self._journal.holds(view)

    def _keep_ours(self, error: Exception) -> None:
        """We may be the last to know our commits, and the file does not take them."""
        try:
            kept = self._keep_beside("conflict", codec.dump(self.memory.plain()))
        except expected(OSError) as failure:
            logger.error("%s And the state with our commits could not be kept beside it: %s", error, failure)
        else:
            logger.error("%s The state with our commits was kept in %s", error, kept)

    def rest(self) -> None:
        """Let go of the file. The next use opens it again."""
        if self.trails:
            self.trails.rest()
        self.memory.view = None
        self.fd = -1
        self._journal = self.held = self._ready = self._known = self._settled = None

    def forget(self) -> None:
        """In a forked child: let go of everything inherited, without unlocking what the parent holds (F15)."""
        lock.forget(self.flock)
        self._turn = threading.RLock()
        self._under_way = None
        for journal in (self._journal, self.held):
            if journal is not None:
                journal.close()
        self.trails.forget()
        self.rest()
        self._previous = ()

    # ------------------------------------------------------------------ a person's edits

    def _resolve_saved_elsewhere(self, old: Journal, timeout: float | None, ancestor: State | None = None) -> bool:
        """An editor has put another file at the path. We hold the lock of *old*; take the new one's, and judge once.

        The process that judges leaves a trailer in the old file, so that all others only follow. With *ancestor*,
        another process has done so, but had read our commits only up to that state. False when the path shows yet
        another file by now.
        """
        try:
            new = self._open_journal()
        except expected(FileNotFoundError):
            return False
        except expected(OSError) as error:
            if _is_shortage(error):
                raise
            raise self._unusable(error) from error
        if new.identity == old.identity:
            # A vacuum of another file had exchanged it away and back; our own lock would keep us from this one.
            new.close()
            return False
        old_view = self.memory.view
        assert old_view is not None
        try:
            lock.acquire(self.flock, new.fd, self.path, timeout, self._clock, self.fs.sleep)
            status = self._status()
            if status is None or (status.st_dev, status.st_ino) != new.identity:
                return False
            conflict = self._resolve(new, ancestor)
        except vacuum.EditCameOut:
            return False
        finally:
            if self._journal is old:
                new.close()
            else:
                # From here on the new file is the state, whatever else happens; its lock is the one to release.
                self._folder_due = self._folder_due or self._journal is new
                self.held = self._journal or new
                self.fd = self.held.fd
                try:
                    # A file that a link led to goes on being one. Without commits, nobody needs the trailer.
                    if old_view[3] or not self._is_switched(old, is_other=True):
                        vacuum.leave_edit_trailer(old, vacuum.known(old_view))
                finally:
                    if self._locks_descriptors:
                        self._unlock(old)
        self._await_watchers(old)
        if conflict is not None:
            raise conflict
        return True

    def _await_watchers(self, old: Journal) -> None:
        """Another file has come in the place of *old*, which we have unlocked. Those who watch that are waited for.

        With a lock for the path they could not come before we give it back.
        """
        if self._locks_descriptors:
            vacuum.await_watchers(old)

    def _unusable(self, error: OSError) -> InvalidEditError:
        message = (
            f"{self.path}: what somebody has put at the path while it was open cannot be used: {error}. Nothing was "
            "changed: reads go on from the last good state, writes are refused until it can."
        )
        return InvalidEditError(message, path=self.path)

    def _resolve_saved_in_place(self, journal: Journal) -> bool:
        """An editor has written into our file, whose lock we hold.

        False when the path shows another file by now.
        """
        try:
            conflict = self._resolve(journal)
        except vacuum.EditCameOut:
            return False
        if conflict is not None:
            raise conflict
        return True

    def _resolve(self, journal: Journal, ancestor: State | None = None) -> EditConflict | None:
        """Bring what a person saved into *journal* together with our commits; memory and the file are the result.

        Returns the error to raise when both could not be kept in one file; then ours is in a file beside. Raises
        InvalidEditError when the edit does not parse, WriteError when the result could not be written, EditCameOut when
        another edit came in between: nothing has changed then, and we know what we knew.
        """
        view = self.memory.view
        assert view is not None
        mtime = self._await_quiet(journal)
        data = journal.read()
        mine = self.memory.plain()
        if not data and view[1]:
            raise self._emptied()
        try:
            image = recovery.judge(f.scan(data), data, self.path, self.fs.boot_id)
            base = codec.load(image.base, self.path)
            from pstate.file import edits

            result = edits.reconcile(self._history(view, mine, data), image, base.value, data, ancestor)
        except expected(StateFileError) as error:
            raise self._invalid_edit(error) from error
        for sentence in result.lost:
            logger.warning("%s: both a person and a program changed this; the edit wins: %s", self.path, sentence)
        kept = self._keep_beside("conflict", codec.dump(mine)) if result.conflict else None
        if image.rest:
            self._keep_rest(image)
            journal.truncate(image.end)
        if result.write:
            edited = (journal.fd, image.end, image.crc, image.index, journal)
            if journal is view[4]:
                generation, index = vacuum.known(view)
                judged = generation, max(index, result.contains)
            else:
                # The trailer is for those who have gone on in that file; ours gets one of its own.
                judged = (image.marker.generation if image.marker else f.NO_GENERATION), image.index
            self._write_merged(edited, data[: image.end], image.base, result.state, judged)
        else:
            if self.trails:
                self.trails.become(journal, result.state, "edit", image.index, place_behind(image))
            self._become(result.state, journal, data, image, base.appendable, mtime)
        logger.info("%s: took over an edit", self.path)
        if not result.conflict:
            return None
        message = (
            f"{self.path}: the file was edited, and {result.conflict}. The edit is in place; the state with our "
            f"commits was kept in {kept}. Compare the two."
        )
        logger.error("%s", message)
        return EditConflict(message, path=self.path, conflict_path=kept)

    def _is_at_work(self, journal: Journal) -> bool:
        """Whether *journal*, another file than ours, is one that programs commit to: no editor is in the middle of it.

        A document that could take neither marker nor trailer is replaced without one (F3); then this is what tells.
        """
        data = journal.read()
        image = f.scan(data)
        if image.trailer is not None:
            return f.split_trailer(data) is not None  # a vacuum has replaced it meanwhile, and knew all of it
        return bool(image.bodies) and not image.base_edited and not image.rest

    def _await_quiet(self, journal: Journal, at_most: float | None = None) -> int:
        """Wait until whoever saves *journal* has finished; returns its time stamp. Raises InvalidEditError."""
        deadline = self._clock() + (QUIET_AT_MOST if at_most is None else at_most)
        while not self._is_quiet(status := self.fs.fstat(journal.fd)):
            ours = self._journal
            if (
                ours is not None
                and journal is not ours
                and (self._is_at_work(journal) or self._is_switched(ours, is_other=True))
            ):
                break
            if self._clock() >= deadline:
                message = (
                    f"{self.path}: another program is still saving the file. Nothing was changed. "
                    "Reads go on from the last good state; try again when it has finished."
                )
                raise InvalidEditError(message, path=self.path)
            self.fs.sleep(QUIET / 10)
        return status.st_mtime_ns

    def _write_merged(self, edited: View, content: bytes, base: bytes, state: State, judged: Known) -> None:
        try:
            self._put(edited, content, vacuum.document(base, state, self.path), state, judged)
        except expected(OSError) as error:
            message = (
                f"{self.path}: the file was edited while it was open, and the edit and our commits could not be "
                f"written together: {error}. Nothing was changed: the edit is in the file, reads go on from our last "
                "state. The folder must be writable and have room for a copy."
            )
            self._unmerged = True
            raise WriteError(message, path=self.path, errno=error.errno) from error

    def _history(self, view: View, mine: State, data: bytes) -> edits.History:
        from pstate.file import edits

        _, _, crc, index, journal = view
        now = self._clock()
        return edits.History(
            path=self.path,
            state=mine,
            base=journal.base,
            generation=journal.marker.generation if journal.marker else None,
            index=index,
            crc=crc,
            previous=[(base, generation) for base, generation, until in self._previous if now < until],
            replay=partial(self._replay, file=lambda: data),
            bodies=journal.bodies(index),
        )

    def _invalid_edit(self, error: StateFileError) -> InvalidEditError:
        message = (
            f"{error} The file was edited while it was open: reads go on from the last good state, "
            "writes are refused until it parses."
        )
        return InvalidEditError(message, path=self.path, line=error.line, column=error.column)

    def _keep_beside(self, role: str, content: bytes) -> str:
        """Keep *content* in a file beside the state, named after the generation; returns its path."""
        if self._kept is not None and self._kept[:2] == (role, content):
            with tolerating(OSError):
                self.fs.stat(self._kept[2])
                return self._kept[2]  # the same conflict, met again
        journal = self._journal
        generation = journal.marker.generation if journal and journal.marker else self.fs.token()
        ending = ".yaml" if role == "conflict" else ""
        try:
            kept = files.keep_beside(self.fs, self.fs.real_path(self.path), f"{role}-{generation}{ending}", content)
        except expected(OSError) as error:
            message = (
                f"{self.path}: what must be kept beside it could not be written there: {error.strerror or error}. "
                "Nothing was changed. The folder must be writable."
            )
            raise WriteError(message, path=self.path, errno=error.errno) from error
        self._kept = role, content, kept
        return kept
