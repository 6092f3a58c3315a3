"""The state in one file: the steps of the protocol, in their order.

This is the protocol of docs/guarantees.md, with its invariants by number. It knows bytes, paths and inodes, and the
state only as the `Memory` that it is given. The store above it knows the state and none of these.

Each object below this one owns its fields, and none knows one above it: `Site` (the path), `Look` (when to look at it
again), `Hold` (the lock), `Settling` (stable storage), `Standing` (the position of memory), `Past` (earlier journals),
`Beside` (files beside the state), `Saves` (files that others put at the path), `Rewriting` (a new file there),
`Merging` (an edit, and commits of ours), `Renewal` (vacuums), `Regaining` (opening or reading the file again).

The caller holds the store's thread lock, except in `fresh`, `settle` and `settle_what_is_read`.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterable
from zlib import crc32

from pstate.engine import Memory, Operations, State
from pstate.errors import (
    InvalidEditError,
    LockTimeout,
    PStateError,
    ReadOnlyError,
    StateFileError,
    StoreFailedError,
    WriteError,
)
from pstate.file import format as f
from pstate.file import limits, lock, recovery, vacuum
from pstate.file.beside import Beside
from pstate.file.flock import EXCLUSIVE_NOW
from pstate.file.format import RECORD, encode_record
from pstate.file.fs import FileSystem, is_shortage
from pstate.file.hold import Hold
from pstate.file.journal import Journal, View
from pstate.file.look import Look
from pstate.file.merging import Merging
from pstate.file.past import Past
from pstate.file.regaining import Regaining
from pstate.file.renewal import Edit, Renewal
from pstate.file.rewriting import Rewriting
from pstate.file.saves import Saves
from pstate.file.settling import Settling
from pstate.file.site import Site
from pstate.file.standing import Standing
from pstate.file.trail import Trail
from pstate.logger import Logger
from pstate.signals import expected
from pstate.text import reading
from pstate.values import same

logger = Logger("pstate.file.log")


class FileLog:
    """The state file at one path: an engine, see `pstate.engine.Log`."""

    __slots__ = (
        "_clock",
        "_lseek",
        "_sure_until",
        "fs",
        "hold",
        "lock_timeout",
        "look",
        "memory",
        "merging",
        "past",
        "regaining",
        "renewal",
        "rewriting",
        "saves",
        "settles",
        "settling",
        "site",
        "standing",
    )

    def __init__(
        self,
        path: str,
        memory: Memory,
        fs: FileSystem,
        *,
        settles: bool = False,
        lock_timeout: float | None = 10.0,
        locking: object = "file",
        read_only: bool = False,
    ) -> None:
        # A lock that is not the file itself is for one path, so a link in that is followed only once.
        self.site = Site(path if locking == "file" or read_only else fs.real_path(path), fs, read_only)
        self.fs, self.memory = fs, memory
        self._clock, self._lseek = fs.clock, fs.lseek
        self.lock_timeout = lock_timeout
        self.settles = settles and not read_only
        #: Until then the descriptor counts as ours, see `limits.TRUST`.
        self._sure_until = 0.0
        self.look = Look(fs)
        self.hold = Hold(self.site, locking)
        self.settling = Settling(self.site, self.look, memory)
        self.past = Past(self.site)
        self.standing = Standing(self.site, self.look, self.hold, memory)
        self.saves = Saves(self.standing, self.past)
        self.rewriting = Rewriting(self.standing, self.past, Beside(self.site))
        self.merging = Merging(self.saves, self.rewriting)
        self.renewal = Renewal(self.merging)
        self.regaining = Regaining(self.saves)

    # ------------------------------------------------------------------ a commit

    def begin(self, timeout: float | None, look: bool = False) -> None:
        """Take the write lock, catch up, and make sure that our file is the one at the path.

        Afterwards the file ends at `view` (I3). *look*: look at the path even if the last look still counts. The caller
        unlocks in its `finally`, whether this raises or not. Raises LockTimeout, InvalidEditError, EditConflict,
        StoreFailedError, ReadOnlyError, WriteError.
        """
        view = self.memory.view
        # Local names for the calls here: CPython 3.11 takes 0.1 µs more for a method in a slot.
        clock, lseek = self._clock, self._lseek
        now = clock()
        if view is not None and now < self.look.look_at and not look:
            fd, end, _, _, journal = view
            if not journal.refusal and (now < self._sure_until or self._is_as_it_was(view)):
                hold = self.hold
                hold.journal = journal
                hold.unlock = journal.unlock
                flock = hold.flock
                try:
                    flock(fd, EXCLUSIVE_NOW)
                    if lseek(fd, 0, 2) == end:
                        return
                except expected(OSError):
                    pass  # held, or an error: `_begin` waits, or raises the reason
        self._begin(timeout)

    def confirm(self) -> None:
        """See `engine.Log`: `begin` has locked the file, and looked."""

    #: The code of a block cannot be repeated, so no other process may commit from here on. With a file, none can after
    #: any `begin`.
    begin_block = begin

    def begin_rewrite(self, timeout: float | None) -> None:
        """As `begin`, but also after a failed sync, because a new file ends that trouble."""
        self._begin(timeout, is_rewrite=True)

    def _begin(self, timeout: float | None, is_rewrite: bool = False) -> None:
        journal = self.standing.journal
        if journal is not None and timeout != 0:
            self.hold.give_way(journal)
        while True:
            try:
                return self._take_lock(timeout, is_rewrite)
            except expected(OSError) as error:
                if not self.regaining.is_loss(error):
                    if isinstance(error, PStateError):
                        raise
                    raise self.site.unreadable(error) from error
            self.regaining.regain_or_raise()

    def _is_as_it_was(self, view: View) -> bool:
        """Whether the descriptor of *view* may be locked: it still means a file that ends where ours does."""
        fd, end, _, _, journal = view
        if journal.marker is None:
            return journal.is_ours()  # new files have equal sizes, so the size proves nothing
        try:
            return journal.fd == fd and self._lseek(fd, 0, os.SEEK_END) == end
        except expected(OSError):
            return False

    def _take_lock(self, timeout: float | None, is_rewrite: bool) -> None:
        if self.site.read_only:
            raise ReadOnlyError(self.site.refusal(), path=self.site.path)
        failed = self.standing.journal
        if failed is not None and self.settling.is_refused(failed) and not is_rewrite:
            raise StoreFailedError(failed.refusal, path=self.site.path)
        deadline = None if timeout is None or timeout < 0 else self._clock() + timeout
        left = None if deadline is None else timeout
        while True:
            if self.memory.view is None:
                self.regaining.reload()
            _, _, _, _, journal = self.standing.view
            self.hold.take(journal)
            # While it waits, it applies the commits of others: that saves half of the time of two processes that count.
            self.hold.acquire(journal, left, self.standing.catch_up)
            if self._become_current(journal, left):
                return
            # We hold the lock of the old file, and `journal` keeps its descriptor from being used again until here.
            self.hold.release_other(journal)
            left = None if deadline is None else max(0.0, deadline - self._clock())

    def _become_current(self, journal: Journal, timeout: float | None) -> bool:
        """With the lock of *journal*: catch up, cut a torn tail, and handle a file that others have put at the path.

        False if memory went on to another file, which is not locked yet.
        """
        standing, merging = self.standing, self.merging
        while True:
            rest = standing.catch_up()
            status = self.site.status() or self.site.await_file()
            now = self._clock()
            if status is None:
                if not self.renewal.write_again():
                    continue
                logger.warning(
                    "%s: the file was deleted while it was open. It was written again, with the state from memory.",
                    self.site.path,
                )
                return True
            if not journal.is_file_of(status):
                trailer = standing.read_trailer(rest)
                if trailer is None and rest != b"":
                    trailer = standing.trailer_after_edit(journal)
                    if trailer is not None and standing.lacks(trailer):
                        ancestor = standing.replay_known(trailer.index)
                        return merging.resolve_saved_elsewhere(journal, timeout, ancestor)
                if trailer is None:
                    if rest:
                        merging.cut(journal)  # because the trailer that we leave must follow the last commit
                    return merging.resolve_saved_elsewhere(journal, timeout)
                try:
                    self.saves.follow(trailer, limits.QUIET_AT_MOST)
                except expected(StateFileError) as error:
                    raise self.site.invalid(error) from error
                return False
            if rest is None or standing.is_changed_in_place(status, now):
                return merging.resolve_saved_in_place(journal)
            if not rest:
                standing.looked(now)
                return True
            if not merging.cut(journal):
                return merging.resolve_saved_in_place(journal)

    def prepare(self) -> View:
        """Make sure that a record of ours can follow the base document; returns the view to `commit` after.

        The caller holds the lock, and memory equals the file. Raises WriteError if that fails, and EditConflict.
        """
        view = self.standing.view
        _, _, _, _, journal = view
        marker = journal.marker
        if marker is None:
            if journal.takes_marker():
                return view
        elif self.settles or not marker.power:
            journal.is_ready = True
            return view
        # Either a marker would change the document, or cannot follow it; or the journal promises "power" to a reader
        # after a crash, which our commits would break.
        try:
            self.renewal.before_commit()
        except vacuum.EditCameOut as error:
            # The change was planned on the present state, which must not change in the middle of it.
            raise self.saves.edited_meanwhile() from error
        return self.standing.view

    def commit(self, body: str, after: View | None = None) -> View:
        """Write *body* as one record; returns the view after it, which is not yet memory's.

        The caller holds the lock, and memory equals the file, or did when `prepare` returned *after*. If this raises an
        OSError, nothing was committed; after an asynchronous exception, the next `refresh` finds out from the file.
        Raises EditConflict, also if a person has saved since `prepare`.
        """
        view: View | None = after or self.memory.view
        assert view is not None
        fd, end, crc, index, journal = view
        if after is not None:
            if self.saves.is_saved_over(after):
                raise self.saves.edited_meanwhile()
            if self._clock() >= self.look.look_at:
                self.saves.refuse_broken_save(journal)
        elif not journal.is_ready:
            view = self.prepare()
            fd, end, crc, index, journal = view
        if journal.marker is None:
            return self._commit_first(body, view)
        self.standing.before = view
        # `encode_record` and `Journal.append`, inlined: two calls fewer save 2 % of `counter += 1`.
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

    def _commit_first(self, body: str, view: View) -> View:
        """Write the first record of a generation, together with the base marker, by one call."""
        fd, end, _, _, journal = view
        prefix = f.first_node(journal.base)
        base = journal.base + prefix
        generation = self.past.draw_generation()
        marker = f.BaseMarker(generation, len(base), crc32(base), self.fs.boot_id(), self.settles)
        record, crc = encode_record(body, f.first_crc(generation))
        data = prefix + marker.encode() + record
        journal.append(data, end)
        # From here on, the old view does not fit the journal: a reader that finds None reads the file again.
        self.memory.view = None
        journal.set_base(base, marker, appendable=True)
        journal.content[end:] = data
        return (fd, end + len(data), crc, 1, journal)

    def publish(self, view: View) -> None:
        """Make the record up to *view*, which was written and applied, visible to other threads.

        Then look at the path, if the last look no longer counts, and vacuum if that is due; if the vacuum fails, that
        is logged, and the commit is valid. With durability "power", always look: `settle`, which is called after the
        locks are released, must sync the file that is at the path. Memory equals the file, also if this raises:
        EditConflict, or DurabilityUnknown if the file at the path does not have the commit.
        """
        self.memory.view = view
        clock = self._clock
        now = clock()
        self._sure_until = now + limits.TRUST
        _, end, _, _, journal = view
        if not self.settles and end < journal.vacuum_at and now < self.look.look_due:
            return
        if self.settles or now >= self.look.look_due:
            try:
                if not self._become_current_or_again(journal):
                    return
            except expected(InvalidEditError, OSError) as error:
                raise self.site.not_at_path(error) from error
        self.renewal.if_due()

    def _become_current_or_again(self, journal: Journal) -> bool:
        """`_become_current` after a commit, and once more if the descriptor is no longer ours."""
        try:
            return self._become_current(journal, self.lock_timeout)
        except expected(OSError) as error:
            if not self.regaining.is_loss(error):
                raise
        self.begin(self.lock_timeout, look=True)
        return True

    def settle(self, view: View) -> None:
        """See `Settling.settle`."""
        self.settling.settle(view)

    def settle_what_is_read(self, view: View | None) -> None:
        """See `Settling.settle_what_is_read`."""
        self.settling.settle_what_is_read(view)

    def stricter(self) -> None:
        """Promise durability "power" from now on, because one more opener needs it."""
        self.settles = not self.site.read_only

    def fresher(self, seconds: float) -> None:
        """See `engine.Log`: each read looks, so memory is always as new as can be."""

    # ------------------------------------------------------------------ reading

    def freshness(self) -> Callable[[], View | None]:
        """The function that every read calls, see `fresh`; another one after `stricter`."""
        return self.fresh_durable if self.settles else self.fresh

    def fresh(self) -> View | None:
        """The current view if memory is the newest commit, else None: then `refresh` under the thread lock.

        Within a generation the file only grows, so its size is its version.
        """
        view: View | None = self.memory.view
        lseek, clock = self._lseek, self._clock  # as in `begin`
        try:
            if view is not None:
                fd, end, _, _, _ = view
                if lseek(fd, 0, 2) == end and clock() < self.look.look_at:
                    return view
        except expected(OSError):
            pass  # the descriptor is no longer ours: `refresh` finds that out
        return None

    def fresh_durable(self) -> View | None:
        """`fresh` with durability "power": a power cut must not undo a commit that was read."""
        view = self.fresh()
        return view if view is not None and self.settling.is_settled(view) else None

    def open(self) -> None:
        """Read the file into memory; create it if it is missing. Does not wait for a lock.

        A torn tail, which only a crash leaves, is tidied up if the lock is free. Otherwise no byte changes.
        Raises StateFileError with the reason if the content cannot be used, and MissingPathError, NotAFileError,
        ReadOnlyError or UnreadableError (each an OSError) if the path cannot.
        """
        try:
            self.regaining.reload(create=not self.site.read_only)
        except expected(OSError) as error:
            if isinstance(error, PStateError):
                raise
            raise self.site.unreadable(error) from error
        fd, end, _, _, _ = self.standing.view
        if not self.site.read_only and self._lseek(fd, 0, os.SEEK_END) != end:
            self.tidy(after_crash=True)

    @property
    def at_rest(self) -> bool:
        """Whether no file is open: not opened yet, or closed by `rest`."""
        return self.standing.journal is None

    def follow_links(self) -> None:
        """Called when the path is opened again. If a link in it now leads elsewhere, the next read or change looks."""
        journal = self.standing.journal
        if journal is not None and self.site.leads_elsewhere(journal):
            self.look.expect_change()

    def refresh(self) -> None:
        """Make memory the newest commit. Never waits for another process.

        Raises EditConflict if a person's edit was found that cannot be merged with our commits, and UnreadableError if
        the newest commit is in a file that cannot be opened at present.
        """
        while True:
            try:
                return self._refresh()
            except expected(OSError) as error:
                if not self.regaining.is_loss(error):
                    self.look.retry_at = 0.0  # the next read tries again
                    if isinstance(error, PStateError):
                        raise
                    raise self.site.unreadable(error) from error
            if not self.regaining.regained():
                return None

    def _refresh(self) -> None:
        if self.memory.view is None:
            # An interrupted commit may be in this file, and the state in another one by now.
            self.regaining.reload()
        while True:
            rest = self.standing.catch_up()
            _, _, _, _, journal = self.standing.view
            now = self._clock()
            if rest == b"" and (now < self.look.look_at or now < self.look.retry_at):
                return
            try:
                status = self.site.status()
            except expected(WriteError) as error:
                self.look.complain(error)
                status = None
            if status is None:
                # Deleted, or a vacuum or an editor is between two steps. Memory has the last state.
                self.look.retry_at = now + limits.LOOK_INTERVAL
                return
            if not journal.is_file_of(status):
                # Read ours again: a vacuum leaves its trailer, and all commits before it, ahead of the exchange. What
                # was read before the look does not tell a vacuum from a save.
                trailer = self.standing.read_trailer(self.standing.catch_up())
                if trailer is None:
                    self._edit_seen(now, status)
                    return
                try:
                    followed = self.saves.follow(trailer, limits.QUIET_FOR_READERS)
                except expected(StateFileError) as error:
                    # The successor was edited already, and does not parse (yet).
                    self.look.complain(error)
                    self.look.retry_at = self._clock() + limits.CHECK_INTERVAL
                    return
                if not followed:
                    return
                continue
            if (
                rest is None
                or self.standing.is_changed_in_place(status, now)
                or (rest and self.standing.is_foreign(journal, now))
            ):
                self._edit_seen(now, status)
                return
            self.standing.looked(now)
            # Other bytes after `end` are not a record yet: torn, or a trailer before its rename. The size proves
            # nothing then, so the next read looks again.
            return

    def _read_saved(self) -> None:
        """Read a person's save into memory, without the lock. An error is logged once."""
        try:
            saved = self.saves.saved()
            # Others may have handled the save before we opened it. Then our file says so, and the next look follows.
            if self.standing.read_trailer(self.standing.catch_up()) is None:
                self.standing.load(saved, "edit")
        except expected(OSError, StateFileError) as error:
            if is_shortage(error):
                raise
            self.look.complain(error)

    def _edit_seen(self, now: float, status: os.stat_result) -> None:
        """Handle an edit that a reader has found. To merge it needs the lock, but a reader does not wait for that."""
        self.look.retry_at = now + min(limits.QUIET, limits.CHECK_INTERVAL)
        before = self.standing.journal
        assert before is not None
        is_other = not before.is_file_of(status)
        if not self.look.is_quiet(status) and not (is_other and self.site.leads_elsewhere(before)):
            if (not is_other or before.is_easy()) and self.look.age(status) is not None:
                return  # the last good state, until the editor has finished
            try:
                # Do not return the last good state at once: the file may come from a vacuum of a file that could not
                # take a trailer, with commits that others have acknowledged. Or its time stamps may say nothing.
                self.saves.await_quiet(self.site.open_journal(), limits.QUIET_FOR_READERS)
            except expected(OSError, InvalidEditError) as error:
                if is_shortage(error):
                    raise
                self.look.retry_at = self._clock() + limits.CHECK_INTERVAL
                return
        if self.site.read_only:
            self._read_saved()
            return
        try:
            self.begin(0, look=True)
        except expected(LockTimeout):
            # The process that holds it finds the edit too; until then, memory keeps the last good state. But if no
            # commits are known, there is nothing to merge, and the file may come from a vacuum, as above.
            if is_other and self.standing.journal is before and self.standing.has_no_commits() and not before.is_easy():
                self._read_saved()
        except expected(InvalidEditError, WriteError) as error:
            self.look.complain(error)
        finally:
            try:
                self.hold.release()
            except BaseException:
                self.hold.release()
                raise
        if self.standing.journal is before:
            self.look.retry_at = self._clock() + limits.CHECK_INTERVAL

    # ------------------------------------------------------------------ the rest of its life

    def vacuum(self) -> None:
        """Rewrite the file as one plain document. The caller holds the lock. Raises WriteError."""
        try:
            self.renewal.replace()
        except vacuum.EditCameOut:
            self.begin(self.lock_timeout, look=True)
        except expected(PStateError):
            raise
        except expected(OSError) as error:
            message = (
                f"{self.site.path}: the file could not be rewritten: {error.strerror or error}. "
                "The state is unchanged, in memory and in the file, which keeps its journal. "
                "Its folder must be writable and have room for a copy."
            )
            raise WriteError(message, path=self.site.path, errno=error.errno) from error

    def save(self, original: State, text: bytes) -> list[str]:
        """Merge *text*, which was made from a copy with *original*, with the state.

        The result is one plain document at the path, with the comments and the order of *text*. The caller holds the
        lock, and has looked. Returns one sentence for each value of programs that gave way. Raises as `vacuum`,
        DurabilityUnknown, and InvalidStateError if *text* is not a state. If the process dies before the exchange, the
        new document is kept beside the file, like a person's save that a vacuum has met; if it dies after the exchange,
        the old one is kept, if it could not take a trailer.
        """
        from pstate.file import edits

        base = reading.load(text, self.site.path)
        lost: list[str] = []

        def edited(ours: State) -> Edit:
            merged, lost[:] = edits.merge(original, base.value, ours)
            if same(merged, base.value):
                return (text, False), merged, base.appendable
            return vacuum.document(text, merged, self.site.path), merged, True

        while True:
            assert self.standing.journal is not None
            before = self.standing.journal
            try:
                self.renewal.replace(edit=edited)
            except vacuum.EditCameOut:
                self.begin(self.lock_timeout, look=True)
                continue
            except expected(OSError) as error:
                status = self.site.status()
                if status is None or before.is_file_of(status):
                    message = (
                        f"{self.site.path}: the file could not be rewritten: {error.strerror or error}. Nothing was "
                        "changed. Its folder must be writable and have room for a copy."
                    )
                    raise WriteError(message, path=self.site.path, errno=error.errno) from error
                logger.warning(
                    "%s: the state was saved, but tidying up after that failed: %s",
                    self.site.path,
                    error,
                )
                self.look.expect_change()
                if self.settles:
                    self.refresh()
                    self.settling.settle_what_is_read(self.memory.view)
            return lost

    def tidy(self, *, after_crash: bool = False, keep_journal: bool = False) -> None:
        """Leave one plain document, if no other process is writing. Failures are logged, not raised.

        *after_crash*: only if there is a torn tail to cut, which a process that died has left. *keep_journal*: do not
        rewrite, but still look at the path, which a commit of a moment ago may need (I6).
        """
        if self.standing.journal is None or self.site.read_only:
            return
        try:
            size = self._lseek(self.standing.journal.fd, 0, os.SEEK_END) if after_crash else 0
            for _ in range(3):
                if self.site.status() is None:
                    return  # a person has deleted it, and wants it gone
                self.begin(0, look=True)
                fd, _, _, _, journal = self.standing.view
                has_cut = self._lseek(fd, 0, os.SEEK_END) < size
                if keep_journal or journal.marker is None or (after_crash and not has_cut):
                    self.rewriting.clear_leftovers(journal)
                    break
                with contextlib.suppress(vacuum.EditCameOut):
                    self.renewal.replace()
                    break
        except expected(LockTimeout) as error:
            # The process that holds it leaves the file tidy. But a file that an editor has put there lacks our commits.
            if self.merging.is_edited_unseen():
                self.merging.keep_ours(error)
        except expected(OSError, PStateError) as error:
            trouble = self.look.trouble
            if isinstance(error, InvalidEditError) or (trouble is not None and trouble.is_unmerged):
                self.merging.keep_ours(error)
            else:
                logger.warning(
                    "%s: the file was closed with its journal, because it could not be rewritten: %s",
                    self.site.path,
                    error,
                )
        finally:
            try:
                self.hold.release()
            except BaseException:
                self.hold.release()
                raise

    def rest(self) -> None:
        """Close the file. The next use opens it again."""
        self.standing.rest()
        self.hold.drop()

    def forget(self) -> None:
        """In a forked child: close all inherited files, without unlocking them for the parent."""
        lock.forget(self.hold.flock)
        self.settling.forget()
        for journal in (self.standing.journal, self.hold.journal):
            if journal is not None:
                journal.close()
        self.standing.trails.forget()
        self.rest()
        self.past.forget()

    def check(self) -> None:
        """See `engine.Log.check`."""
        self.hold.check()
        self.look.check()
        self.standing.check()

    # ------------------------------------------------------------------ its name

    @property
    def address(self) -> str:
        """The path, for messages."""
        return self.site.path

    @property
    def read_only(self) -> bool:
        """Whether it was opened for reading only."""
        return self.site.read_only

    def leads_to(self, name: str) -> bool:
        """Whether the path leads to the file *name*, a path without links."""
        return name in (self.site.path, self.fs.real_path(self.site.path))

    def stay_at(self, name: str) -> None:
        """Follow the path *name* from now on."""
        self.site.path = name

    def renewed(self, view: View) -> View:
        """A new object that is equal to *view*."""
        fd, end, crc, index, journal = view
        return (fd, end, crc, index, journal)

    # ------------------------------------------------------------------ the history of the state

    @property
    def has_followers(self) -> bool:
        """False in a simulation."""
        return self.fs.flock is None

    @property
    def generation(self) -> str | None:
        """The generation of the journal, as far as memory knows; None if no record was written yet."""
        journal = self.standing.journal
        return journal.marker.generation if journal is not None and journal.marker is not None else None

    @property
    def promises_power(self) -> bool:
        """Whether the journal was begun with durability "power"."""
        journal = self.standing.journal
        return journal is not None and journal.marker is not None and journal.marker.power

    @property
    def journal(self) -> Journal:
        """The file that memory is at."""
        journal = self.standing.journal
        assert journal is not None
        return journal

    def records(self) -> tuple[State, Iterable[Operations]]:
        """The state of the journal's base document, and the commits since then, each decoded when it is reached."""
        _, _, _, index, journal = self.standing.view
        path = self.site.path
        return recovery.document(journal.base, path), recovery.decode(journal.bodies(index), path, bytes)

    def history(self) -> tuple[State, int, Iterable[Operations]]:
        """`records`: what was committed before the last vacuum is not kept."""
        document, records = self.records()
        return document, 0, records

    def trail(self, history: bool) -> Trail:
        """Notes of the changes of the state from now on; with *history*, from the base document of the journal on."""
        _, end, crc, index, journal = self.standing.view
        if history:
            return Trail(journal, 0, None, index)
        return Trail(journal, index, (end, crc) if journal.marker else None, 0)

    def follow(self, trail: Trail) -> Journal:
        """Keep *trail* up to date; returns the journal in which its watch now has a mark."""
        self.standing.trails.add(trail, self.journal)
        return self.journal

    def unfollow(self, trail: Trail | None = None) -> None:
        """End *trail*, and those without a reference."""
        self.standing.trails.remove(trail)
