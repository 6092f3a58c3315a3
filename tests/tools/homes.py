"""Where a state is kept, a file or a server, for tests that hold of both: what a stranger finds there.

A test that takes the fixture `address` runs with a path and with a URL. What only a file has is marked with
`file_only`, which says why.
"""

from __future__ import annotations

import time
import uuid
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import pytest

from pstate.engines import is_url
from pstate.file import format
from pstate.text import reading
from pstate.values import same
from stress.real.workers import is_locked
from tools.crash import State, by_c_loader, peek, replay_documents, replayed

#: Why a test does not run with a URL: its argument says it.
file_only = pytest.mark.file_only


class Home(Protocol):
    """One state, as nobody but a stranger sees it."""

    def found(self) -> State:
        """The committed state, by a stock YAML loader."""
        ...

    def reopened(self) -> State:
        """The committed state, as a program finds it that opens it now and writes nothing."""
        ...

    def commits(self) -> int:
        """How many commits follow the last document."""
        ...

    def last(self) -> list[Any]:
        """The operations of the newest commit."""
        ...

    def is_locked(self) -> bool:
        """Whether somebody has the write lock."""
        ...

    def expect_tidy(self, content: State) -> None:
        """After the last close, *content* is all that is left."""
        ...


def at(address: str | Path) -> Home:
    """The home at a path or a URL."""
    return ServerHome(str(address)) if is_url(str(address)) else FileHome(Path(address))


def of(state: Any) -> Home:
    """The home of *state*."""
    return at(state.__reduce__()[1][1])


class FileHome(NamedTuple):
    """A file."""

    path: Path

    def found(self) -> State:
        """See `Home`."""
        return replayed(self.path.read_bytes())

    def reopened(self) -> State:
        """See `Home`."""
        return peek(self.path)

    def commits(self) -> int:
        """See `Home`."""
        return format.scan(self.path.read_bytes()).index

    def last(self) -> list[Any]:
        """See `Home`."""
        return reading.decode_body(format.scan(self.path.read_bytes()).bodies[-1], str(self.path), 1)

    def is_locked(self) -> bool:
        """See `Home`."""
        return is_locked(self.path)

    def expect_tidy(self, content: State) -> None:
        """See `Home`: one plain document, and nothing beside it."""
        (document,) = by_c_loader(self.path.read_bytes())
        assert same(content, document), document
        assert [self.path.name] == [each.name for each in self.path.parent.iterdir()]


class ServerHome(NamedTuple):
    """A row of a server, with its records and snapshots. It is asked in SQL, past pstate."""

    url: str

    def _ask(self, statement: str, **values: Any) -> list[Any]:
        import psycopg

        server, _, name = self.url.partition("#")
        with psycopg.connect(server) as connection:
            return connection.execute(statement, {"name": name, **values}).fetchall()

    def end_session(self, backend: int) -> None:
        """Let the server take the program whose session is *backend* for dead, and return when that has ended."""
        self._ask("SELECT pg_terminate_backend(%(backend)s, 10000)", backend=backend)

    def now(self) -> str:
        """The server's clock."""
        return str(self._ask("SELECT now()::text")[0][0])

    def sessions(self, process: int, since: str) -> list[str]:
        """The sessions of *process* that were begun after *since* and have not ended, after they had time to."""
        until = time.monotonic() + 10
        statement = """\
            SELECT pid::text FROM pg_stat_activity WHERE application_name LIKE 'pstate %%:' || %(process)s::text
              AND backend_start > %(since)s::timestamptz"""
        while found := self._ask(statement, process=process, since=since):
            if time.monotonic() > until:
                break
            time.sleep(0.01)  # a server notices by itself that a session has ended
        return [pid for (pid,) in found]

    def _records(self) -> list[str]:
        return [body for (body,) in self._ask(_RECORDS)]

    def found(self) -> State:
        """See `Home`."""
        # One statement, so all of it is of one moment.
        documents: list[Any] = []
        for number, (text,) in enumerate(self._ask(f"{_SNAPSHOT} UNION ALL ({_RECORDS})")):
            documents += by_c_loader(text) if number else by_c_loader(text)[:1] or [None]
        return replay_documents(documents)

    def reopened(self) -> State:
        """See `Home`."""
        from pstate.rows.servers import Servers
        from tools.engines import opened

        with opened(Servers(uuid.uuid4().int), self.url, read_only=True) as state:
            return state.snapshot()

    def commits(self) -> int:
        """See `Home`."""
        return len(self._records())

    def last(self) -> list[Any]:
        """See `Home`."""
        return reading.decode_body(self._records()[-1], self.url, 1)

    def is_locked(self) -> bool:
        """See `Home`."""
        return not self._ask("SELECT FROM pstate.store WHERE name = %(name)s FOR UPDATE SKIP LOCKED")

    def expect_tidy(self, content: State) -> None:
        """See `Home`: nobody has the lock. The records stay."""
        found = self.found()
        assert same(content, found), found
        assert not self.is_locked()


_SNAPSHOT = """\
(SELECT n.document FROM pstate.snapshot n JOIN pstate.store s ON s.id = n.store WHERE s.name = %(name)s
 ORDER BY n.rev DESC LIMIT 1)"""
_RECORDS = """\
SELECT r.body FROM pstate.record r JOIN pstate.store s ON s.id = r.store WHERE s.name = %(name)s
  AND r.rev > (SELECT max(rev) FROM pstate.snapshot n WHERE n.store = s.id) ORDER BY r.rev"""
