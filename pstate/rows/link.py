"""One session with a server: requests that end in time, and whose answers are rows of strings.

This is libpq as psycopg has it (`psycopg.pq`), and not psycopg's cursors: each request must have an end, an exception
of a signal handler must leave nothing half read, and nothing may be sent that the log does not know of.
"""

from __future__ import annotations

import os
import re
import select
import socket
import sys
from collections.abc import Callable, Sequence
from time import monotonic
from typing import TYPE_CHECKING, Any
from zlib import crc32

from pstate.errors import ServerUnavailable
from pstate.logger import Logger
from pstate.rows.address import Address, session_name
from pstate.signals import expected, tolerating

try:
    from psycopg import Error as LibpqError
    from psycopg import pq
except ImportError as error:
    raise ImportError(
        "a state at a postgresql:// URL needs psycopg, which is not installed: pip install 'psycopg[binary]'"
    ) from error

if TYPE_CHECKING:
    from psycopg.pq.abc import PGconn, PGresult

logger = Logger("pstate.rows.link")

Row = tuple[Any, ...]  #: of strings, or None

#: How long one host is tried, in seconds, where there are others.
HOST_AT_MOST = 5.0
#: Pauses between attempts to reach the server, in seconds.
PAUSE_FIRST, PAUSE_AT_MOST = 0.02, 1.0
#: How often a statement is sent before the server is asked to remember it: a script that sets one value does not pay.
UNPREPARED = 2

_FAILED = (pq.ExecStatus.FATAL_ERROR, pq.ExecStatus.BAD_RESPONSE)
#: The server does not know what it was asked to remember: a pooler has sent us to another session.
FORGOTTEN = "26000"
#: It was asked to remember what it remembers already: likewise.
_KNOWN = "42P05"

_PARAMETER = re.compile(r"\$(\d)")


class Lost(Exception):
    """The session has ended in the middle of a request. The server has done it, or not."""


class _Late(Lost):
    """The time is over."""


class Refused(Exception):
    """The server has answered with an error: the statement has changed nothing."""

    def __init__(self, state: str, message: str) -> None:
        super().__init__(message)
        self.state = state  #: five characters: SQLSTATE


class Link:
    """A session with the server at *address*, begun when it is needed, and again when it was lost."""

    __slots__ = ("_conn", "_count", "_poll", "_prepared", "_use", "address", "number", "on_begin", "prepares")

    def __init__(self, address: Address, on_begin: Callable[[], None]) -> None:
        self.address = address
        #: Called in each new session. What it raises ends the session.
        self.on_begin = on_begin
        self._conn: PGconn | None = None
        self._poll: Any = None
        self.number = 0  #: of the session, which tells it from the ones before
        #: Whether the server may be asked to remember statements: not where a pooler chooses the session each time.
        self.prepares = True
        self._count: dict[str, int] = {}
        self._prepared: dict[str, str] = {}

    # A session

    @property
    def is_up(self) -> bool:
        """A session was begun, and nobody has noticed its end."""
        return self._conn is not None

    def connect(self, deadline: float) -> PGconn:
        """The session, begun if need be. Raises ServerUnavailable when *deadline*, of `monotonic`, has passed."""
        if self._conn is not None:
            return self._conn
        pause = PAUSE_FIRST
        told: Exception | None = None
        while True:
            try:
                return self._begin(deadline)
            except expected(Lost, Refused, OSError, LibpqError) as error:
                self.drop()
                # The last attempt has little time: what the one before it was told says more.
                told = told if told is not None and isinstance(error, _Late) else error
                left = deadline - monotonic()
                if left <= 0 or _is_final(error):
                    raise self.unavailable(told, _is_final(error)) from None
                select.select([], [], [], min(pause, left))
                pause = min(2 * pause, PAUSE_AT_MOST)
            except BaseException:
                self.drop()
                raise

    def unavailable(self, error: Exception, is_final: bool = False) -> ServerUnavailable:
        """What is raised where the server has not answered because of *error*, and nothing was sent that counts.

        *is_final*: the error would come again.
        """
        reason = " ".join(self.address.without_secrets(str(error)).split()).rstrip(".") or type(error).__name__
        if is_final:
            advice = "Correct the URL, or what it refers to."
        elif "hot standby" in reason:
            advice = "To read from a standby, which may lag, add target_session_attrs=any to the URL."
        else:
            advice = "Try again when it can be reached; a longer lock_timeout waits longer."
        return ServerUnavailable(
            f"{self.address.shown}: the server cannot be used: {reason}. Nothing was changed. {advice}",
            path=self.address.shown,
            reason=reason,
        )

    def _begin(self, deadline: float) -> PGconn:
        hosts = self._hosts()
        for number, options in enumerate(hosts, 1):
            until = deadline if number == len(hosts) else min(deadline, monotonic() + HOST_AT_MOST)
            try:
                return self._begin_at(options, until)
            except expected(Lost, Refused, OSError, LibpqError):
                self.drop()
                if number == len(hosts):
                    raise
        raise AssertionError("there is always one host")

    def _hosts(self) -> list[bytes]:
        """The server's URL, once for each host of it: libpq would wait without end for one that says nothing."""
        found = {option.keyword: option.val for option in pq.Conninfo.parse(self.address.server.encode()) if option.val}
        defaults = {
            "fallback_application_name": session_name(
                socket.gethostname(), os.getpid(), os.path.basename(sys.argv[0]) if sys.argv else "", self.address.name
            ),
            "client_encoding": "UTF8",
            "tcp_user_timeout": "10000",
            "keepalives_idle": "5",
            "keepalives_interval": "2",
            "keepalives_count": "3",
            # A standby may lag, and a read must see what was acknowledged before it.
            "target_session_attrs": "primary" if pq.version() >= 140000 else "read-write",
        }
        found = {key.encode(): value.encode() for key, value in defaults.items()} | found
        hosts, ports = (found.get(key, b"").split(b",") for key in (b"host", b"port"))
        if len(hosts) < 2:
            return [_conninfo(found)]
        ports = ports if len(ports) == len(hosts) else ports * len(hosts)
        addresses = found.get(b"hostaddr", b"").split(b",")
        each = [found | {b"host": host, b"port": port} for host, port in zip(hosts, ports, strict=True)]
        if len(addresses) == len(hosts):
            each = [one | {b"hostaddr": address} for one, address in zip(each, addresses, strict=True)]
        return [_conninfo(one) for one in each]

    def _begin_at(self, options: bytes, deadline: float) -> PGconn:
        conn = pq.PGconn.connect_start(options)
        self._conn = conn
        self._poll = None
        status: int = pq.PollingStatus.WRITING
        while status not in (pq.PollingStatus.OK, pq.PollingStatus.FAILED):
            if conn.status == pq.ConnStatus.BAD:
                break
            # Each attempt of libpq may have another descriptor.
            poll = select.poll()
            poll.register(conn.socket, select.POLLIN if status == pq.PollingStatus.READING else select.POLLOUT)
            if not poll.poll(_milliseconds(deadline)):
                raise _Late("no answer in time while the connection was made")
            status = conn.connect_poll()
        if conn.status != pq.ConnStatus.OK:
            raise Lost(self._said(conn))
        conn.nonblocking = 1
        self._poll = select.poll()
        self._poll.register(conn.socket, select.POLLIN)
        self._use = select.POLLIN
        self._count, self._prepared = {}, {}
        self.number += 1
        self.on_begin()
        return conn

    @property
    def descriptor(self) -> int:
        """Of the session's socket."""
        assert self._conn is not None
        return self._conn.socket

    @property
    def backend(self) -> int:
        """The number of the server's process, as the session was told. A pooler tells one of its own."""
        assert self._conn is not None
        return self._conn.backend_pid

    def drop(self) -> None:
        """End the session. What was sent may be done by the server, or not."""
        conn, self._conn = self._conn, None
        if conn is not None:
            conn.finish()

    def forget(self) -> None:
        """In a forked child: the session is the parent's. libpq would say good-bye to the server for it."""
        conn, self._conn = self._conn, None
        if conn is not None:
            _of_parents.append(conn)
            with tolerating(OSError):
                nowhere = os.open(os.devnull, os.O_RDWR)
                os.dup2(nowhere, conn.socket)
                os.close(nowhere)

    def literal(self, value: str | int | None) -> str:
        """*value* as it is written in a statement, quoted by libpq."""
        if value is None:
            return "NULL"
        if isinstance(value, int):
            return str(value)
        assert self._conn is not None
        return bytes(pq.Escaping(self._conn).escape_literal(value.encode())).decode()

    # Requests

    def ask(self, statement: str, values: Sequence[str | int | None], deadline: float) -> list[Row]:
        """The rows that one *statement*, a transaction of its own unless one is open, answers with: one round trip.

        Raises ServerUnavailable, Refused or Lost.
        """
        conn = self.connect(deadline)
        given = [None if value is None else str(value).encode() for value in values]
        if conn.transaction_status == pq.TransactionStatus.IDLE and (name := self.remembered(statement, deadline)):
            try:
                (rows,) = self._run(lambda: conn.send_query_prepared(name.encode(), given), deadline)
                return rows
            except expected(Refused) as error:
                if error.state != FORGOTTEN:
                    raise
        (rows,) = self._run(lambda: conn.send_query_params(statement.encode(), given), deadline)
        return rows

    def remembered(self, statement: str, deadline: float) -> str:
        """The name by which the server remembers *statement*, or "". From the third use on, it is asked to: a trip.

        Not in a transaction, which an error would end. Raises as `ask`.
        """
        if not self.prepares:
            return ""
        name = self._prepared.get(statement, "")
        if not name:
            count = self._count[statement] = self._count.get(statement, 0) + 1
            if count > UNPREPARED:
                conn = self.connect(deadline)
                # One name is one statement, in all programs: a pooler may send us to a session that knows the name.
                name = f"pstate_{crc32(statement.encode()):08x}"
                try:
                    self._run(lambda: conn.send_prepare(name.encode(), statement.encode()), deadline)
                except expected(Refused) as error:
                    if error.state != _KNOWN:
                        raise
                self._prepared[statement] = name
        return name

    def written(self, statement: str, values: Sequence[str | int | None]) -> str:
        """*statement* with *values* written out, for `ask_all`: short where the server remembers it."""
        literals = [self.literal(value) for value in values]
        if name := self._prepared.get(statement):
            return f"EXECUTE {name}({','.join(literals)})"
        return _PARAMETER.sub(lambda found: literals[int(found[1]) - 1], statement)

    def ask_all(self, statements: str, deadline: float) -> list[list[Row]]:
        """The rows of each of several *statements*, separated by semicolons: one round trip.

        One simple query. In a pipeline, the server would not end a transaction that nobody goes on with (PostgreSQL
        15), and an error would leave statements that are prepared only in the mind of the client. Raises as `ask`.
        """
        conn = self.connect(deadline)
        return self._run(lambda: conn.send_query(statements.encode()), deadline)

    def _run(self, send: Callable[[], None], deadline: float) -> list[list[Row]]:
        conn = self._conn
        assert conn is not None
        try:
            send()
            return self._answers(conn, deadline)
        except expected(Refused) as error:
            if conn.status == pq.ConnStatus.BAD:
                self.drop()
                raise Lost(str(error)) from None
            if error.state == FORGOTTEN:
                logger.info("%s: sessions are shared by a pooler, so statements are not prepared", self.address.shown)
                self.prepares, self._prepared = False, {}
            raise
        except expected(LibpqError) as error:
            self.drop()
            raise Lost(self.address.without_secrets(" ".join(str(error).split()))) from None
        except BaseException:
            self.drop()  # it is unknown what was sent and what was read
            raise

    def _answers(self, conn: PGconn, deadline: float) -> list[list[Row]]:
        while conn.flush():
            if self._wait(select.POLLIN | select.POLLOUT, deadline) & select.POLLIN:
                conn.consume_input()  # or both sides wait until the other one reads
        found: list[list[Row]] = []
        refused: Refused | None = None
        while True:
            while conn.is_busy():
                self._wait(select.POLLIN, deadline)
                conn.consume_input()
            result = conn.get_result()
            if result is None:
                break
            if result.status in _FAILED:
                refused = self._refusal(result)
            elif refused is None:
                found.append(_rows(result))
        if refused is not None:
            raise refused
        if conn.status == pq.ConnStatus.BAD:
            raise Lost(self._said(conn))
        return found

    def hear(self, seconds: float, wanted: str | None = None) -> bool:
        """Wait at most *seconds* for a notification; with *wanted*, for that one. Whether it has come.

        A session that is lost is dropped.
        """
        conn = self._conn
        if conn is None:
            return False
        try:
            if self._told(conn, wanted):
                return True
            poll = select.poll()
            poll.register(conn.socket, select.POLLIN)
            if poll.poll(max(0, int(seconds * 1000))):
                conn.consume_input()
            return self._told(conn, wanted)
        except expected(LibpqError):
            self.drop()
            return False

    @staticmethod
    def _told(conn: PGconn, wanted: str | None) -> bool:
        found = False
        while (notification := conn.notifies()) is not None:
            found = found or wanted is None or notification.extra.decode() == wanted
        return found

    def _wait(self, events: int, deadline: float) -> int:
        assert self._poll is not None
        assert self._conn is not None
        if events != self._use:
            self._poll.modify(self._conn.socket, events)
            self._use = events
        ready = self._poll.poll(_milliseconds(deadline))
        if not ready:
            raise Lost("no answer in time")
        return int(ready[0][1])

    def _refusal(self, result: PGresult) -> Refused:
        state = (result.error_field(pq.DiagnosticField.SQLSTATE) or b"").decode()
        said = (result.error_field(pq.DiagnosticField.MESSAGE_PRIMARY) or result.error_message or b"").decode(
            "utf-8", "replace"
        )
        return Refused(state, self.address.without_secrets(" ".join(said.split())))

    def _said(self, conn: PGconn) -> str:
        message = bytes(conn.error_message or b"").decode("utf-8", "replace")
        return self.address.without_secrets(" ".join(message.split())) or "the connection was lost"


def _rows(result: PGresult) -> list[Row]:
    columns = range(result.nfields)
    return [
        tuple(None if (value := result.get_value(row, column)) is None else value.decode() for column in columns)
        for row in range(result.ntuples)
    ]


def _conninfo(options: dict[bytes, bytes]) -> bytes:
    return b" ".join(
        key + b"='" + value.replace(b"\\", b"\\\\").replace(b"'", b"\\'") + b"'" for key, value in options.items()
    )


def _milliseconds(deadline: float) -> int | None:
    left = deadline - monotonic()
    return None if left == float("inf") else max(0, min(int(left * 1000) + 1, 2**31 - 1))


def _is_final(error: Exception) -> bool:
    """Whether *error* would come again, however long the server is given."""
    if isinstance(error, Refused):
        return True
    said = str(error)
    return any(part in said for part in _FINAL)


#: Of messages of libpq and the server, which have no code at the beginning of a session.
_FINAL = (
    "password authentication failed", "no password supplied", "no pg_hba.conf entry", 'database "', 'role "',
    "certificate", "does not support SSL", "service file", "definition of service",
)  # fmt: skip

#: Sessions of parents: they live as long as the process, because their end would be told to the server.
_of_parents: list[Any] = []
