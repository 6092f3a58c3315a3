"""What a log asks of a server, each request in one round trip: which statements those are, and what they answer.

Beside `link`, which sends them, this is the only module that knows SQL. A simulation has another class with the same
methods.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from itertools import starmap
from math import ceil
from time import monotonic
from typing import NamedTuple, Protocol

from pstate.logger import Logger
from pstate.rows import statements
from pstate.rows.address import Address
from pstate.rows.bell import Bell
from pstate.rows.link import FORGOTTEN, Link, Lost, Refused, Row
from pstate.signals import expected

__all__ = ["Commit", "Lost", "PostgresServer", "Refused", "Row", "Server"]

logger = Logger("pstate.rows.server")

#: How long a request may take at least, in seconds: `lock_timeout` is for other writers, and may be 0.
PATIENCE = 5.0
#: After how many seconds without a request the server ends a block, and gives its lock to others.
LEASE = 30.0
#: For how many seconds, and for how many revisions, records are kept, for watches and histories.
RETENTION, MOST = 7 * 24 * 3600.0, 100_000

#: SQLSTATE of what two programs get that make the tables at the same time.
_ALREADY_THERE = {"42P06", "42P07", "42710", "23505"}


class Commit(NamedTuple):
    """What is to follow the newest commit, if that is the one that is named here."""

    store: str
    rev: int  #: of the newest commit
    head: str  #: its token
    token: str
    body: str
    by: str
    document: str | None  #: of an edit


class Server(Protocol):
    """A server, and a session with it.

    Each request raises ServerUnavailable where the server cannot be reached before *deadline*, of `monotonic`; then
    nothing was sent. It raises Lost where the session has ended since, and the server has done it or not; and
    Refused where the server answers with an error, and has done nothing.
    """

    @property
    def session(self) -> int:
        """The number of the session; 0 while there is none."""
        ...

    @property
    def is_durable(self) -> bool:
        """Whether a commit is on stable storage when it is acknowledged, as far as the server says."""
        ...

    def connect(self, deadline: float) -> None:
        """Begin a session where there is none."""
        ...

    def close(self) -> None:
        """End the session, which has nothing under way."""
        ...

    def forget(self) -> None:
        """In a forked child: the session is the parent's."""
        ...

    def unavailable(self, error: Exception) -> Exception:
        """The ServerUnavailable that says *error*."""
        ...

    def make_tables(self, deadline: float) -> None:
        """Make the tables where they are missing."""
        ...

    def begin_store(self, name: str, identity: str, token: str, deadline: float) -> None:
        """Begin an empty state, if there is none of this *name*."""
        ...

    def load(self, name: str, deadline: float) -> list[Row]:
        """All of a state, see `statements.LOAD`."""
        ...

    def catch_up(self, store: str, rev: int, deadline: float) -> list[Row]:
        """The records from revision *rev* on, see `statements.CATCH_UP`."""
        ...

    def lock(self, store: str, rev: int, patience: float | None, deadline: float) -> list[Row]:
        """Begin a transaction that has the lock of *store*, and `catch_up`. *patience*: seconds; None is for ever."""
        ...

    def commit_alone(self, commit: Commit, deadline: float) -> bool:
        """Do *commit*, without waiting for anybody; whether it was done."""
        ...

    def commit_locked(self, commit: Commit, deadline: float) -> bool:
        """Do *commit*, if it can be done, and end the transaction that `lock` has begun; whether it was done."""
        ...

    def end(self, word: str, deadline: float) -> None:
        """End the transaction: *word* is COMMIT or ROLLBACK."""
        ...

    def token_of(self, store: str, rev: int, deadline: float) -> str | None:
        """The token of revision *rev*; None where it is not kept, or not there."""
        ...

    def newer_snapshot(self, store: str, after: int, last: int, deadline: float) -> tuple[int, str] | None:
        """The newest snapshot after revision *after*, up to *last*: its revision, and its document."""
        ...

    def put_snapshot(self, store: str, rev: int, token: str, document: str, deadline: float) -> None:
        """Keep *document*, which is what revision *rev* says. What is older than RETENTION, or more than MOST records
        before, may go."""
        ...

    def history(self, store: str, last: int, deadline: float) -> list[Row]:
        """The oldest snapshot, and the records from there to revision *last*, see `statements.HISTORY`."""
        ...

    def bell(self, store: str, ring: Callable[[], None]) -> Bell | None:
        """What wakes a watch, and then calls *ring*; None if nothing does."""
        ...

    def holder(self, store: str) -> tuple[str | None, float | None]:
        """The program that has the lock of *store*, and for how many seconds, as far as the server tells."""
        ...


class PostgresServer:
    """See `Server`."""

    __slots__ = ("_address", "_backend", "_link", "_said", "is_durable")

    def __init__(self, address: Address) -> None:
        self._address = address
        self._link = Link(address, self._look_at_session)
        self._said = ""
        #: The server's process of the last session that was not closed: its number, and when it began.
        self._backend: tuple[str, str] | None = None
        self.is_durable = True

    def _look_at_session(self) -> None:
        until = monotonic() + PATIENCE
        ((encoding, synchronous, backend, began),) = self._link.ask_all(statements.SESSION, until)[0]
        if encoding != "UTF8":
            raise Refused(
                "", f"the database keeps strings in {encoding}, and a state needs a database that was created with UTF8"
            )
        former = self._backend
        # The backend of a pooler is everybody's, and another one each time.
        is_ours = int(backend) == self._link.backend
        self._backend = (backend, began) if is_ours and began is not None else None
        self._link.prepares = is_ours
        if former is not None:
            with contextlib.suppress(Refused):  # a server may not let us: then the lease ends it
                self._link.ask(statements.TERMINATE, former, until)
        if synchronous == "off" and self.is_durable:
            logger.warning(
                "%s: synchronous_commit is off on the server, so a crash of it loses commits that were acknowledged",
                self._address.shown,
            )
        self.is_durable = synchronous != "off"

    @property
    def session(self) -> int:
        """See `Server`."""
        return self._link.number if self._link.is_up else 0

    @property
    def backend(self) -> int:
        """The number of the server's process."""
        return self._link.backend

    def connect(self, deadline: float) -> None:
        """See `Server`."""
        self._link.connect(deadline)

    def close(self) -> None:
        """See `Server`."""
        self._link.drop()
        self._backend = None

    def forget(self) -> None:
        """See `Server`."""
        self._link.forget()
        self._backend = None

    def unavailable(self, error: Exception) -> Exception:
        """See `Server`."""
        return self._link.unavailable(error)

    def make_tables(self, deadline: float) -> None:
        """See `Server`."""
        try:
            self._link.ask_all(statements.DDL, deadline)
        except Refused as error:
            if error.state not in _ALREADY_THERE:
                raise

    def begin_store(self, name: str, identity: str, token: str, deadline: float) -> None:
        """See `Server`."""
        self._link.ask(statements.BEGIN_STORE, (identity, name, token), deadline)

    def load(self, name: str, deadline: float) -> list[Row]:
        """See `Server`."""
        return self._link.ask(statements.LOAD, (name,), deadline)

    def catch_up(self, store: str, rev: int, deadline: float) -> list[Row]:
        """See `Server`."""
        return self._link.ask(statements.CATCH_UP, (store, rev), deadline)

    def lock(self, store: str, rev: int, patience: float | None, deadline: float) -> list[Row]:
        """See `Server`."""
        self._link.connect(deadline)
        for statement in (statements.LOCK, statements.CATCH_UP, statements.COMMIT):
            self._link.remembered(statement, deadline)
        # For the server, 0 is for ever.
        milliseconds = 0 if patience is None else max(1, min(ceil(patience * 1000), 2**31 - 1))
        begin = statements.BEGIN.format(patience=milliseconds, lease=int(LEASE * 1000))
        requests = (statements.LOCK, (store,)), (statements.CATCH_UP, (store, rev))
        try:
            return self._link.ask_all("; ".join([begin, *starmap(self._link.written, requests)]), deadline)[-1]
        except expected(Refused) as error:
            if error.state != FORGOTTEN:
                raise
            self._link.ask_all("ROLLBACK", deadline)
            return self._link.ask_all("; ".join([begin, *starmap(self._link.written, requests)]), deadline)[-1]

    def commit_alone(self, commit: Commit, deadline: float) -> bool:
        """See `Server`."""
        return bool(self._link.ask(statements.TRY, (*commit[:6], "false"), deadline))

    def commit_locked(self, commit: Commit, deadline: float) -> bool:
        """See `Server`."""
        is_edit = commit.document is not None
        texts = [self._link.written(statements.COMMIT, (*commit[:6], "true" if is_edit else "false"))]
        if is_edit:
            snapshot = commit.store, commit.rev + 1, commit.document, commit.token
            texts.append(self._link.written(statements.SNAPSHOT, snapshot))
        return bool(self._link.ask_all("; ".join([*texts, "COMMIT"]), deadline)[0])

    def end(self, word: str, deadline: float) -> None:
        """See `Server`."""
        self._link.ask_all(word, deadline)

    def token_of(self, store: str, rev: int, deadline: float) -> str | None:
        """See `Server`."""
        rows = self._link.ask(statements.OUTCOME, (store, rev), deadline)
        return rows[0][0] if rows else None

    def newer_snapshot(self, store: str, after: int, last: int, deadline: float) -> tuple[int, str] | None:
        """See `Server`."""
        rows = self._link.ask(statements.NEWER_SNAPSHOT, (store, after, last), deadline)
        return (int(rows[0][0]), rows[0][1]) if rows else None

    def put_snapshot(self, store: str, rev: int, token: str, document: str, deadline: float) -> None:
        """See `Server`. Three requests: nobody waits for the last two."""
        self._link.ask(statements.SNAPSHOT, (store, rev, document, token), deadline)
        self._link.ask(statements.FORGET_RECORDS, (store, str(RETENTION), MOST), deadline)
        self._link.ask(statements.FORGET_SNAPSHOTS, (store,), deadline)

    def history(self, store: str, last: int, deadline: float) -> list[Row]:
        """See `Server`."""
        return self._link.ask(statements.HISTORY, (store, last), deadline)

    def bell(self, store: str, ring: Callable[[], None]) -> Bell:
        """See `Server`. It has a session of its own."""
        return Bell(self._address, store, ring, self._say)

    def _say(self, what: str) -> None:
        """To the log, unless it was said last, perhaps by another watch."""
        if what != self._said:
            self._said = what
            logger.info("%s: %s", self._address.shown, what)

    def holder(self, store: str) -> tuple[str | None, float | None]:
        """See `Server`."""
        rows = self._link.ask(statements.HOLDER, (store,), monotonic() + PATIENCE)
        if not rows or rows[0][0] is None:
            return None, None
        program, user, host, seconds = rows[0]
        if seconds is None:  # another user's: that, and the host, are hidden from us
            return f"{program or 'a program'} (user {user})", None
        return f"{program or 'a program'} (user {user}, {host or 'a local socket'})", float(seconds)

    # What the command line asks for, and no log

    def has_tables(self, deadline: float) -> bool:
        """Whether the database has the tables of pstate."""
        return bool(self._link.ask(statements.HAS_TABLES, (), deadline)[0][0] == "t")

    def id_of(self, name: str, deadline: float) -> str | None:
        """The id of the state *name*, if there is one."""
        rows = self._link.ask(statements.HAS_STORE, (name,), deadline)
        return rows[0][0] if rows else None

    def create_store(self, name: str, identity: str, token: str, document: str, by: str, deadline: float) -> None:
        """Begin the state *name* with *document*, if there is none of this name. May be sent again."""
        self._link.ask(statements.CREATE_STORE, (identity, name, token, document, by), deadline)

    def stores(self, name: str, deadline: float) -> list[Row]:
        """All states, or the one called *name*, see `statements.STORES`."""
        return self._link.ask(statements.STORES, (name,), deadline)

    def sessions(self, name: str, deadline: float) -> list[Row]:
        """The sessions of pstate, and the one that has the lock of *name*, see `statements.SESSIONS`."""
        return self._link.ask(statements.SESSIONS, (name,), deadline)

    def settings(self, deadline: float) -> Row:
        """What the server is set to: see `statements.SETTINGS`."""
        return self._link.ask(statements.SETTINGS, (), deadline)[0]
