"""The state at one URL, kept as rows of a PostgreSQL server: see `engine.Log`.

The compare-and-set on the newest commit (its revision and its token) is what brings commits into one order. The lock
of the row is for those whose code cannot be run again: a block, and a change that was overtaken.

A commit whose answer was lost is *pending*: before anything else, the log finds out whether it was done, and makes sure
that the server does not do it later.
"""

from __future__ import annotations

import os
import socket
import weakref
from collections.abc import Callable, Hashable, Iterable
from functools import partial
from time import monotonic
from typing import TYPE_CHECKING, NamedTuple, TypeVar
from uuid import uuid4

from pstate.engine import Body, Fresh, Log, Memory, Operations, Overtaken, State
from pstate.errors import (
    CommitUnknown,
    ConflictError,
    CorruptStateError,
    HistoryLost,
    LockTimeout,
    MissingPathError,
    PStateError,
    ReadOnlyError,
    ServerUnavailable,
    UnreadableError,
    WriteError,
)
from pstate.logger import Logger
from pstate.rows import refusals
from pstate.rows import server as servers
from pstate.rows.age import Age
from pstate.rows.hold import Hold
from pstate.rows.ledger import Ledger, Point, Record, Trail
from pstate.rows.server import Commit, Lost, Refused, Row, Server
from pstate.signals import expected, tolerating
from pstate.text import dumping, merge, reading
from pstate.values import same

logger = Logger("pstate.rows.log")

R = TypeVar("R")

#: How many records after a snapshot, and how many characters of them, before the next snapshot is due.
SNAPSHOT_RECORDS, SNAPSHOT_SIZE, SNAPSHOT_FACTOR = 1000, 1 << 18, 4
#: The longest document that is stored, in bytes.
LARGEST = 64 << 20

_FORMAT = "1"


class Loaded(NamedTuple):
    """A state as the server has it."""

    store: str  #: its id
    ledger: Ledger


class Identity(NamedTuple):
    """One commit of one state. No other commit has an equal one, also if the state is deleted and begun again."""

    store: str
    revision: int
    token: str


class RowsLog:
    """See `engine.Log`."""

    #: Nobody waits for a trail.
    has_followers = False

    def __init__(
        self,
        address: str,
        name: str,
        memory: Memory,
        server: Server,
        *,
        settles: bool = False,
        lock_timeout: float | None = 10.0,
        read_only: bool = False,
        known_as: Hashable = None,
        fresh: float = 0.0,
    ) -> None:
        self.address = address
        self._known_as = address if known_as is None else known_as  #: see `Engine.name`
        self.memory = memory
        self.settles = settles and not read_only
        self.lock_timeout = lock_timeout
        self.read_only = read_only
        self.server = server
        self.hold = Hold(server)
        self._age = Age(memory, fresh)
        self._name = name
        self._by = f"{socket.gethostname()}:{os.getpid()}"
        self._store = ""  #: its id
        #: What is known of the commits; None before the first `open`, and at rest where no trail needs it.
        self.ledger: Ledger | None = None
        #: A commit that was sent, and whose outcome is unknown.
        self._pending: Commit | None = None
        #: The last commit was overtaken, so the next one begins with a look.
        self._is_behind = False
        #: Where memory is, or was last.
        self.at: Point | None = None
        self._is_open = False
        #: What `_past` has read last.
        self._older: Ledger | None = None
        self._trails: weakref.WeakSet[Trail] = weakref.WeakSet()

    # The server

    def _until(self, timeout: float | None) -> float:
        """When a wait of *timeout* seconds ends that has requests in it."""
        return float("inf") if timeout is None or timeout < 0 else monotonic() + max(timeout, servers.PATIENCE)

    def _again(self, request: Callable[[float], R], deadline: float) -> R:
        """What *request*, which may be sent again, answers with: a read."""
        while True:
            try:
                return request(deadline)
            except expected(Lost) as error:
                if monotonic() >= deadline:
                    raise self.server.unavailable(error) from None
            except expected(Refused) as error:
                raise refusals.of_read(self.address, error) from None

    # A commit

    def begin(self, timeout: float | None) -> None:
        """See `engine.Log`. It takes nothing, unless the commit before it was overtaken: then it is `begin_block`."""
        self._refuse_read_only()
        if self._is_behind:
            self.begin_block(timeout)
        elif self.memory.view is None or self._pending is not None:
            self._renew(self._until(timeout))

    def confirm(self) -> None:
        """See `engine.Log`: `begin` has not looked."""
        if self.hold.session:
            return
        before = self.memory.view
        self._renew(self._until(self.lock_timeout))
        if self.memory.view is not before:
            raise Overtaken

    def begin_block(self, timeout: float | None) -> None:
        """See `engine.Log`: one round trip."""
        self._refuse_read_only()
        began = monotonic()
        until = float("inf") if timeout is None or timeout < 0 else began + timeout
        deadline = self._until(timeout)
        while True:
            if self.memory.view is None or self._pending is not None:
                self._renew(deadline)
            try:
                rows = self._with_lock(list, until, deadline)
            except expected(Refused) as error:
                raise self._refusal_of_lock(error, began) from None
            self._is_behind = False
            if self._learn(rows):
                self._follow_ledger()
                self._age.asked(began)
                return
            self.hold.release()
            self._lose_history(deadline)

    #: Nothing here refuses commits and not these.
    begin_rewrite = begin_block

    def _with_lock(self, use: Callable[[list[Row]], R], until: float, deadline: float) -> R:
        """Take the lock of the row, for which others are waited for *until* then, and call *use* with what is new.

        That is the records from the newest one that is known on. Where the session is lost, all of it is done again.
        Raises Refused, and ServerUnavailable after *deadline*: then nothing is held.
        """
        while True:
            try:
                self.server.connect(deadline)
                self.hold.take()
                patience = None if until == float("inf") else max(0.0, until - monotonic())
                return use(self.server.lock(self._store, self._known.last, patience, deadline))
            except expected(Lost) as error:
                self.hold.end()
                if monotonic() >= deadline:
                    raise self.server.unavailable(error) from None
            except BaseException:
                self.hold.release()
                raise

    def _refusal_of_lock(self, error: Refused, began: float) -> Exception:
        if refusals.is_lock_timeout(error):
            return self._timed_out(monotonic() - began)
        return refusals.of_read(self.address, error)

    def _refuse_read_only(self) -> None:
        if self.read_only:
            raise ReadOnlyError(
                f"{self.address}: the state was opened read_only. Nothing was changed.", path=self.address
            )

    def _timed_out(self, waited: float) -> LockTimeout:
        name, since = self._holder()
        who = f" by {name}" if name else ""
        since_when = f", whose transaction began {since:.1f} s ago" if since is not None else ""
        return LockTimeout(
            f"{self.address}: waited {waited:.1f} s for the write lock, which is held{who}{since_when}. Nothing was "
            "changed. Try again, or set a longer lock_timeout.",
            path=self.address,
            waited=waited,
            holder_name=name,
        )

    def _holder(self) -> tuple[str | None, float | None]:
        try:
            return self.server.holder(self._store)
        except expected(Lost, Refused, ServerUnavailable):
            return None, None

    def prepare(self) -> Point:
        """See `engine.Log`."""
        return self._view

    def commit(self, body: Body, after: Point | None = None) -> Point:
        """See `engine.Log`: one round trip."""
        return self._commit(body, after or self._view)

    def _commit(self, body: Body, after: Point, document: str | None = None) -> Point:
        """Commit *body*, or an edit, which is *document*. Raises ServerUnavailable and CommitUnknown, too."""
        is_block = self.hold.session != 0
        deadline = self._until(self.lock_timeout)
        if not is_block:
            self.server.connect(deadline)  # what fails before it is sent has changed nothing
        head = after.ledger.token_of(after.rev)
        commit = Commit(self._store, after.rev, head, str(uuid4()), body, self._by, document)
        self._age.commits()
        try:
            done = self._carry_out(commit, is_block, deadline)
        except expected(PStateError):
            raise
        except BaseException:
            self._decide()
            raise
        if not done:
            self._is_behind = True
            if not is_block:
                raise Overtaken
            raise ConflictError(
                f"{self.address}: the server ended the session of this block, and another program has committed since. "
                "The block was rolled back. Run it again; keep blocks shorter than the lease of the lock "
                f"({servers.LEASE:.0f} s without a request).",
                path=self.address,
            )
        if document is None:
            after.ledger.add(Record(commit.token, body, True))
            return Point(after.ledger, after.rev + 1)
        return Point(self._go_on_in(Ledger(self.address, after.rev + 1, commit.token, document, "edit")), after.rev + 1)

    def _carry_out(self, commit: Commit, is_block: bool, deadline: float) -> bool:
        """Whether *commit* was done. Where it was sent and nobody can tell, raises CommitUnknown, and it is pending."""
        try:
            if is_block and self.hold.is_lost:
                done = self._settled(commit, deadline)
            elif is_block:
                done = self._commit_locked(commit, deadline)
            else:
                self._pending = commit
                done = self.server.commit_alone(commit, deadline)
        except expected(Lost) as error:
            self.hold.end()
            try:
                done = self._settled(commit, deadline)
            except expected(ServerUnavailable) as unavailable:
                self.memory.view = None
                raise self._unknown(error, unavailable) from None
        except expected(ServerUnavailable) as unavailable:
            if self._pending is None:
                raise
            self.memory.view = None
            raise self._unknown(Lost("the session of the block had ended"), unavailable) from None
        except expected(Refused) as error:
            self._pending = None
            raise refusals.of_commit(self.address, error) from None
        self._pending = None
        return done

    def _commit_locked(self, commit: Commit, deadline: float) -> bool:
        self._pending = commit
        done = self.server.commit_locked(commit, deadline)
        self.hold.end()
        return done

    def _decide(self) -> None:
        """The author of the pending commit was interrupted: what others see from now on must be its outcome.

        Where that takes too long, or is interrupted, too, the next use of the state goes on with it.
        """
        if self._pending is not None:
            with tolerating(PStateError):
                self.hold.release()
                self._fence(monotonic() + servers.PATIENCE)

    def _settled(self, commit: Commit, deadline: float) -> bool:
        """Whether *commit*, whose session was lost, was done: where it was not, it is done now, if it can be.

        With the lock of the row: what the lost session was about to do was done before, or fails after this. Raises
        ServerUnavailable where that cannot be found out.
        """

        def settle(rows: list[Row]) -> bool:
            if not self._has_history(rows):
                self.hold.release()
                return False
            token = self.server.token_of(commit.store, commit.rev + 1, deadline)
            if token is not None:
                self.hold.release()
                return token == commit.token
            if not self._commit_locked(commit, deadline):
                raise self.server.unavailable(Lost("the records that would tell were deleted already"))
            return True

        try:
            return self._with_lock(settle, deadline, deadline)
        except expected(Refused) as error:
            raise self.server.unavailable(error) from None

    def _has_history(self, rows: list[Row]) -> bool:
        """Whether *rows*, of `CATCH_UP`, are those of a server that had the newest commit that is known.

        The newest record of a server is always kept. An older one may have been deleted.
        """
        if not rows:
            return False
        ledger = self._known
        return int(rows[0][0]) != ledger.last or rows[0][1] == ledger.token_of(ledger.last)

    def _unknown(self, lost: Exception, unavailable: Exception) -> CommitUnknown:
        return CommitUnknown(
            f"{self.address}: the server was lost in the middle of a commit ({self._reason(lost)}), and could not be "
            f"asked whether it was done: {self._reason(unavailable)}. The change is committed, or not; the next use of "
            "the state finds out which.",
            path=self.address,
        )

    def _reason(self, error: Exception) -> str:
        return error.reason if isinstance(error, ServerUnavailable) else str(error).rstrip(".")

    def publish(self, view: Point) -> None:
        """See `engine.Log`. A snapshot may be due; where it fails, it is logged, and due again."""
        self._is_at(view)
        self._age.committed()
        if self._is_due(view.ledger):
            try:
                self._make_snapshot(view)
            except expected(Lost, Refused, ServerUnavailable) as error:
                self._put_off(view.ledger)
                logger.warning("%s: a snapshot could not be written, and is due again: %s", self.address, error)

    def settle(self, view: Point) -> None:
        """See `engine.Log`: the server has acknowledged it."""

    def settle_what_is_read(self, view: Point | None) -> None:
        """See `settle`."""

    def stricter(self) -> None:
        """See `engine.Log`."""
        self.settles = not self.read_only

    # Reading

    def freshness(self) -> Fresh:
        """See `engine.Log`."""
        return self._age.view if self._age.at_most else _never

    def fresher(self, seconds: float) -> None:
        """See `engine.Log`."""
        self._age.limit(seconds)

    @property
    def _view(self) -> Point:
        view: Point | None = self.memory.view
        assert view is not None
        return view

    @property
    def _known(self) -> Ledger:
        assert self.ledger is not None
        return self.ledger

    def _is_at(self, view: Point) -> None:
        self.at = view
        self.memory.view = view

    def open(self) -> None:
        """See `engine.Log`. The tables and the state are begun where they are missing."""
        deadline = self._until(self.lock_timeout)
        if self.ledger is not None:
            self._renew(deadline)
            return
        while True:
            began = monotonic()
            try:
                found = self._load(deadline)
            except expected(refusals.NoTables):
                self._refuse_missing("the server has no tables of pstate")
                self._again(self.server.make_tables, deadline)
                continue
            if found is not None:
                self._adopt_loaded(found)
                self._age.asked(began)
                return
            self._refuse_missing("the state does not exist")
            self._again(partial(self.server.begin_store, self._name, str(uuid4()), str(uuid4())), deadline)

    def _load(self, deadline: float) -> Loaded | None:
        """What the server has; None where it has no such state. Raises NoTables."""
        rows = self._again(partial(self.server.load, self._name), deadline)
        if not rows:
            return None
        _, rev, identity, head, form = rows[0]
        if form != _FORMAT:
            raise UnreadableError(
                f"{self.address}: the state is in format {form}, which a newer pstate has written. Nothing was "
                "changed. Update pstate.",
                path=self.address,
            )
        snapshots = [(int(each[1]), each[4]) for each in rows if each[0] == "1"]
        records = [(int(each[1]), each[3], each[4]) for each in rows if each[0] == "2"]
        base, document = snapshots[0] if snapshots else (-1, "")
        if [each[0] for each in records] != list(range(base, int(rev) + 1)) or records[-1][1] != head:
            raise CorruptStateError(
                f"{self.address}: records up to {rev} are missing, or not those that the state names. Nothing was "
                "changed. Restore the database from a backup.",
                path=self.address,
            )
        ledger = Ledger(self.address, base, records[0][1], document)
        for _, token, body in records[1:]:
            ledger.add(Record(token, body, False))
        return Loaded(identity, ledger)

    def _refuse_missing(self, what: str) -> None:
        if self.read_only:
            raise MissingPathError(
                f"{self.address}: {what}. Nothing was changed. To create it, open the state without read_only.",
                path=self.address,
            )

    def _adopt_loaded(self, found: Loaded) -> None:
        """Make memory what the server has."""
        ledger = found.ledger
        ledger.origin = None if self.ledger is None else "other"
        state = self.memory.replay(ledger.state(), ledger.decoded(ledger.records, ledger.base))
        self._store = found.store
        self.memory.view = None
        self._go_on_in(ledger)
        self.memory.adopt(state)
        self._is_open = True
        self._is_at(Point(ledger, ledger.last))

    def _go_on_in(self, ledger: Ledger) -> Ledger:
        """Let *ledger* follow the one that is known."""
        if self.ledger is not None:
            self.ledger.next = ledger  # first: an exception in between must not cut trails off from it
        self.ledger = ledger
        return ledger

    @property
    def at_rest(self) -> bool:
        """See `engine.Log`."""
        return not self._is_open

    def refresh(self) -> None:
        """See `engine.Log`: one round trip, unless memory is as new as was asked for."""
        if self._age.view() is None:
            self._renew(self._until(self.lock_timeout))

    def _renew(self, deadline: float) -> None:
        if self.ledger is None:
            self.open()
            return
        began = monotonic()
        if self._pending is not None:
            self._fence(deadline)
        began = monotonic()
        rows = self._again(partial(self.server.catch_up, self._store, self._known.last), deadline)
        if not self._learn(rows):
            self._lose_history(deadline)
            return
        self._is_behind = False
        self._is_open = True
        if self.memory.view is None:
            self._rebuild()
        else:
            self._follow_ledger()
        self._age.asked(began)
        self._shorten_ledger(deadline)

    def _learn(self, rows: list[Row]) -> bool:
        """Add what `CATCH_UP` has found to the ledger. False where the server does not go on from what is known."""
        ledger = self._known
        if not rows or int(rows[0][0]) != ledger.last or rows[0][1] != ledger.token_of(ledger.last):
            return False
        pending = self._pending
        for number, token, is_edit, text in rows[1:]:
            if int(number) != ledger.last + 1:
                return False
            if is_edit == "t":
                if text is None:
                    return False  # the snapshot has gone already
                ledger = self._go_on_in(Ledger(self.address, int(number), token, text, "edit"))
            else:
                ledger.add(Record(token, text, pending is not None and token == pending.token))
        self._pending = None
        return True

    def _follow_ledger(self) -> None:
        """Bring memory from its view to the newest record that is known."""
        view = self._view
        if view.ledger is self.ledger and view.rev == view.ledger.last:
            return
        for ledger, rev in view.up_to(self._known):
            if ledger.origin is not None and ledger is not view.ledger:
                state = ledger.state()
                self.memory.view = None
                self.memory.adopt(state)
            for operations in ledger.decoded(ledger.after(rev), rev):
                self.memory.view = None
                self.memory.apply(operations)
        self._is_at(Point(self._known, self._known.last))

    def _rebuild(self) -> None:
        """Make memory what the ledger says: an exception had left it half changed."""
        ledger = self._known
        state = self.memory.replay(ledger.state(), ledger.decoded(ledger.records, ledger.base))
        self.memory.adopt(state)
        self._is_at(Point(ledger, ledger.last))

    def _lose_history(self, deadline: float) -> None:
        """The server's records do not continue those that are known: read the state again.

        Raises HistoryLost where the server had acknowledged what it does not have.
        """
        ledger = self._known
        rev, token = ledger.last, ledger.token_of(ledger.last)
        theirs = self._again(partial(self.server.token_of, self._store, rev), deadline)
        found = self._load(deadline)
        self._pending = None
        self._is_behind = False
        if found is None:
            raise MissingPathError(f"{self.address}: the state was deleted on the server.", path=self.address)
        is_same = found.store == self._store
        is_lost = found.ledger.last < rev or theirs not in (None, token)
        self._adopt_loaded(found)
        if is_same and not is_lost:
            return  # the records that would have led there were deleted, as they were too old
        what = (
            f"the server does not have revision {rev}, which it had acknowledged, as after a failover to a server that "
            "lacked it"
            if is_same
            else "the state was deleted on the server, and created again"
        )
        logger.error("%s: %s", self.address, what)
        raise HistoryLost(
            f"{self.address}: {what}. Nothing was changed by this call. The next use of the state goes on with what "
            f"the server has: revision {found.ledger.last}.",
            path=self.address,
        )

    def _fence(self, deadline: float) -> None:
        """Make sure that the pending commit, whose author was interrupted, is not done later than now.

        Where nothing was committed after it, an empty record takes its place: the server then refuses it.
        """
        assert self._pending is not None
        fence = self._pending._replace(token=str(uuid4()), body="[]", document=None)
        began = monotonic()

        def put(_: list[Row]) -> None:
            self.server.commit_locked(fence, deadline)  # not done, where something was committed: also this one
            self.hold.end()

        try:
            self._with_lock(put, deadline, deadline)
        except expected(Refused) as error:
            raise self._refusal_of_lock(error, began) from None

    def renewed(self, view: Point) -> Point:
        """See `engine.Log`."""
        return Point(*view)

    # Snapshots

    def _is_due(self, ledger: Ledger) -> bool:
        is_long = len(ledger.records) >= SNAPSHOT_RECORDS or ledger.size > max(
            SNAPSHOT_SIZE, SNAPSHOT_FACTOR * len(ledger.document)
        )
        return is_long and ledger.last >= ledger.due_after

    def _put_off(self, ledger: Ledger) -> None:
        ledger.due_after = ledger.last + SNAPSHOT_RECORDS // 4

    def _shorten_ledger(self, deadline: float) -> None:
        """Where the ledger has grown long, begin a new one at a snapshot that somebody else has made meanwhile."""
        view = self._view
        if self._is_due(view.ledger):
            ask = partial(self.server.newer_snapshot, self._store, view.ledger.base, view.rev)
            if found := self._again(ask, deadline):
                self._go_on_from(view, *found)
            else:
                self._put_off(view.ledger)

    def _go_on_from(self, view: Point, base: int, document: str, is_canonical: bool = False) -> None:
        """Begin a new ledger with *document*, which says what revision *base* is."""
        new = Ledger(self.address, base, view.ledger.token_of(base), document, is_canonical=is_canonical)
        for record in view.ledger.after(base):
            new.add(record)
        self._go_on_in(new)
        self._is_at(Point(new, view.rev))

    def vacuum(self) -> None:
        """See `engine.Log`: a snapshot of this revision. The records stay for as long as `server.RETENTION` says."""
        try:
            self._make_snapshot(self._view, is_asked=True)
        except expected(Lost, Refused, ServerUnavailable) as error:
            raise WriteError(
                f"{self.address}: the snapshot could not be written: {self._reason(error)}. The state is as it was.",
                path=self.address,
            ) from None

    def _make_snapshot(self, view: Point, is_asked: bool = False) -> None:
        ledger = view.ledger
        deadline = self._until(self.lock_timeout)
        if not is_asked:
            found = self.server.newer_snapshot(self._store, ledger.base, view.rev, deadline)
            if found and view.rev - found[0] < SNAPSHOT_RECORDS // 2:
                self._go_on_from(view, *found)
                return
        text, is_canonical = _document(ledger, self.memory.plain(), self.address)
        if len(text) > LARGEST:
            raise Refused("54000", f"the document has {len(text)} bytes, and the largest that is stored has {LARGEST}")
        document = text.decode()
        self.server.put_snapshot(self._store, view.rev, ledger.token_of(view.rev), document, deadline)
        if self.hold.session:
            self.server.end("COMMIT", deadline)
            self.hold.end()
        self._go_on_from(view, view.rev, document, is_canonical)

    def save(self, original: State, text: bytes) -> list[str]:
        """See `engine.Log`. The comments of *text* are kept."""
        edited = reading.load(text, self.address).value
        merged, lost = merge.merge(original, edited, self.memory.plain())
        if not same(merged, edited):
            text = _document(Ledger(self.address, 0, "", text.decode()), merged, self.address)[0]
        view = self._commit("[]", self._view, text.decode())
        self.memory.view = None
        self.memory.adopt(view.ledger.state())
        self._is_at(view)
        return lost

    # For the command line, within a read of the store

    def document(self) -> bytes:
        """The document that a snapshot would have: the state of memory, with what a person wrote."""
        ledger, rev = self._view
        if rev == ledger.base:
            return ledger.document.encode()
        return _document(ledger, self.memory.plain(), self.address)[0]

    def identity(self) -> Identity:
        """The commit that memory is at."""
        ledger, rev = self._view
        return Identity(self._store, rev, ledger.token_of(rev))

    # The rest of its life

    def tidy(self, *, keep_journal: bool = False) -> None:
        """See `engine.Log`: a server needs nothing."""

    def rest(self) -> None:
        """See `engine.Log`."""
        self.memory.view = None
        self._is_open = False
        self.server.close()
        for trail in self._trails:
            trail.close()
        self.hold.end()
        if not self._trails:
            self.ledger = None

    def forget(self) -> None:
        """See `engine.Log`. What is known of the commits is as true in the child; what is pending is the parent's."""
        self.server.forget()
        for trail in self._trails:
            trail.forget()
        self.hold.end()
        self.memory.view = None
        self._is_open = False
        self._pending = None
        self._by = f"{socket.gethostname()}:{os.getpid()}"

    def check(self) -> None:
        """See `engine.Log`."""
        view: Point | None = self.memory.view
        if view is not None:
            assert view.ledger is self.ledger, "I4: memory is in another ledger than the log"
            assert view.rev <= view.ledger.last, "I4: memory is at a revision that is not known"

    # Its name

    def follow_links(self) -> None:
        """See `engine.Log`: a URL is a name, and nothing else."""

    def leads_to(self, name: Hashable) -> bool:
        """See `engine.Log`."""
        return name == self._known_as

    def stay_at(self, name: Hashable) -> None:
        """See `follow_links`."""

    # What has changed in the state

    @property
    def generation(self) -> str | None:
        """See `engine.Log`."""
        ledger = self.ledger
        return f"{self._store}-{ledger.base}" if ledger is not None and ledger.records else None

    @property
    def promises_power(self) -> bool:
        """See `engine.Log`: as the server is set."""
        return self.server.is_durable

    @property
    def journal(self) -> Ledger:
        """See `engine.Log`."""
        return self._known

    def records(self) -> tuple[State, Iterable[Operations]]:
        """See `engine.Log`."""
        ledger, rev = self._view
        return ledger.state(), ledger.decoded(ledger.after(ledger.base, rev), ledger.base)

    def history(self) -> tuple[State, int, Iterable[Operations]]:
        """See `engine.Log`: from the oldest snapshot on that the server has, or from the last edit on."""
        past, rev = self._past(), self._view.rev
        return past.state(), past.base, past.decoded(past.after(past.base, rev), past.base)

    def _past(self) -> Ledger:
        """The ledger of memory, or one that begins earlier and leads to it."""
        ledger, rev = self._view
        if ledger.origin is not None:
            return ledger  # the trail of an edit, or of a state that was read again, begins with that
        if self._older is not None and (self._older.next, self._older.last) == (ledger, rev):
            return self._older
        rows = self._again(partial(self.server.history, self._store, rev), self._until(self.lock_timeout))
        if len(rows) < 2 or int(rows[0][1]) >= ledger.base:
            return ledger
        (_, base, _, document), (_, _, token, _), *records = rows
        past = Ledger(self.address, int(base), token, document)
        for _, _, token, body in records:
            past.add(Record(token, body, False))
        past.next, self._older = ledger, past
        return past

    def trail(self, history: bool) -> Trail:
        """See `engine.Log`."""
        ledger, rev = self._view
        bell = self.server.bell(self._store, self._age.expire)
        if history:
            past = self._past()
            return Trail(self, Point(past, past.base), rev, bell)
        return Trail(self, Point(ledger, rev), 0, bell)

    def follow(self, trail: Trail) -> Ledger:
        """See `engine.Log`. Nobody waits for a trail: the ledgers keep what it has not read yet."""
        self._trails.add(trail)
        return self._known

    def unfollow(self, trail: Trail | None = None) -> None:
        """See `engine.Log`."""
        if trail is not None:
            self._trails.discard(trail)
            trail.close()


def _never() -> None:
    """A read cannot know without asking."""


def _document(ledger: Ledger, state: State, where: str) -> tuple[bytes, bool]:
    """The document that says *state*, with what a person wrote in that of *ledger*; and whether nothing is."""
    if ledger.is_canonical or ledger.document in ("", "{}\n"):
        return dumping.dump(state), True
    from pstate.text import splice

    return splice.rewrite(ledger.document.encode(), state, partial(dumping.dump, state), where), False


if TYPE_CHECKING:
    _: type[Log] = RowsLog
