"""The states of one database, for the command line: which there are, who uses one, and how one begins."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from functools import partial
from time import monotonic
from typing import NamedTuple, Self, TypeVar
from uuid import uuid4

from pstate.errors import CommitUnknown, MissingPathError, ServerUnavailable, WriteError
from pstate.rows import address as addresses
from pstate.rows import refusals
from pstate.rows import server as servers
from pstate.rows.address import Address
from pstate.rows.log import LARGEST, Identity
from pstate.rows.server import Lost, PostgresServer, Refused, Row
from pstate.signals import expected

R = TypeVar("R")


class Stored(NamedTuple):
    """One state of a database."""

    name: str
    revision: int
    bytes: int  #: of the newest snapshot, and the records after it
    changed: str  #: when it was committed last, in ISO 8601
    by: str  #: by which process


class User(NamedTuple):
    """One session that has a state open."""

    host: str
    pid: int | None
    program: str
    user: str
    address: str  #: from which it comes, as far as the server tells
    holds: bool  #: the lock
    seconds: float | None  #: for how long


class Database:
    """The database at *address*, which is asked, and waited for, up to *timeout* seconds. To be closed."""

    def __init__(self, address: Address, timeout: float = 10.0) -> None:
        self._address = address
        self._server = PostgresServer(address)
        self._timeout = max(timeout, servers.PATIENCE)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self._server.close()

    def _ask(self, request: Callable[[float], R]) -> R:
        """What *request*, which may be sent again, answers with."""
        deadline = monotonic() + self._timeout
        while True:
            try:
                return request(deadline)
            except expected(Lost) as error:
                if monotonic() >= deadline:
                    raise self._server.unavailable(error) from None
            except expected(Refused) as error:
                raise refusals.of_read(self._address.shown, error) from None

    def has_tables(self) -> bool:
        """Whether `make_tables` was called once."""
        return self._ask(self._server.has_tables)

    def make_tables(self) -> None:
        """Make the tables where they are missing."""
        if not self.has_tables():
            self._ask(self._server.make_tables)

    def has_state(self) -> bool:
        """Whether the state that the address names exists."""
        return self.has_tables() and self._ask(partial(self._server.id_of, self._address.name)) is not None

    def create(self, document: bytes) -> Identity | None:
        """Begin the state that the address names with *document*, and the tables where they are missing.

        None if it exists; nothing is changed then. Raises CommitUnknown, and WriteError for a document that is long.
        """
        self._refuse_long(document)
        self.make_tables()
        name, identity, token = self._address.name, str(uuid4()), str(uuid4())
        by = f"{socket.gethostname()}:{os.getpid()}"
        is_sent = False

        def begin(deadline: float) -> None:
            nonlocal is_sent
            self._server.connect(deadline)
            is_sent = True
            self._server.create_store(name, identity, token, document.decode(), by, deadline)

        try:
            self._ask(begin)
            is_ours = self._ask(partial(self._server.id_of, name)) == identity
        except expected(ServerUnavailable) as error:
            if not is_sent:
                raise
            raise CommitUnknown(
                f"{self._address.shown}: the server was lost while the state was created. It exists now, or not.",
                path=self._address.shown,
            ) from error
        return Identity(identity, 0, token) if is_ours else None

    def _refuse_long(self, document: bytes) -> None:
        if len(document) > LARGEST:
            raise WriteError(
                f"{self._address.shown}: the document has {len(document):,} bytes, and a server stores up to "
                f"{LARGEST:,}. Nothing was changed.",
                path=self._address.shown,
            )

    def states(self) -> list[Stored]:
        """All states, or the one that the address names."""
        self._need_tables()
        rows = self._ask(partial(self._server.stores, self._address.name))
        return [Stored(name, int(revision), int(size), changed, by) for name, revision, size, changed, by in rows]

    def users(self) -> list[User]:
        """Those that have the state open that the address names, as far as their sessions say so."""
        self._need_tables()
        rows = self._ask(partial(self._server.sessions, self._address.name))
        return [user for user in map(self._user, rows) if user is not None]

    def _user(self, row: Row) -> User | None:
        name, user, host, holds, seconds = row
        session = addresses.session(name or "", self._address.name)
        if holds != "t" and (session is None or not session.is_of_state):
            return None
        since = float(seconds) if holds == "t" and seconds is not None else None
        where, pid, program = (session.host, session.pid, session.program) if session else (host or "", None, name)
        return User(where, pid, program or "", user or "", host or "", holds == "t", since)

    def _need_tables(self) -> None:
        if not self.has_tables():
            raise MissingPathError(
                f"{self._address.shown}: the database does not have the tables of pstate. To create them: pstate init "
                f"{self._address.shown.partition('#')[0]}",
                path=self._address.shown,
            )

    def is_safe(self) -> dict[str, bool]:
        """The settings of the server on which the safety of commits depends, and whether each is on."""
        names = "synchronous_commit", "fsync", "full_page_writes"
        return {name: value != "off" for name, value in zip(names, self._ask(self._server.settings), strict=True)}
