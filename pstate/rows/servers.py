"""The engine for the states of PostgreSQL servers: see `engine.Engine`."""

from __future__ import annotations

from collections.abc import Hashable
from typing import TYPE_CHECKING, NamedTuple

from pstate.engine import Engine, Log, Memory
from pstate.rows import address as addresses
from pstate.rows.log import RowsLog
from pstate.rows.server import PostgresServer


class Servers(NamedTuple):
    """States at URLs. Another object has the same ones, in stores of its own: for tests."""

    number: int = 0

    def log(
        self,
        address: str,
        memory: Memory,
        *,
        settles: bool = False,
        lock_timeout: float | None = 10.0,
        locking: object = "file",
        read_only: bool = False,
        fresh: float = 0.0,
    ) -> Log:
        """See `engine.Engine`. Raises ValueError for *locking* that is for files."""
        parsed = addresses.parse(address)
        if locking != "file":
            raise ValueError(
                f"{parsed.shown}: locking={locking!r} is for files. Nothing was opened. Leave it out: the server locks."
            )
        server = PostgresServer(parsed)
        return RowsLog(
            parsed.shown,
            parsed.name,
            memory,
            server,
            settles=settles,
            lock_timeout=lock_timeout,
            read_only=read_only,
            known_as=self.name(address),
            fresh=fresh,
        )

    @property
    def key(self) -> Hashable:
        """See `engine.Engine`."""
        return ("rows", self.number)

    def name(self, address: str) -> Hashable:
        """The URL, and what is secret in it: a program that corrects its password must not get the old session."""
        parsed = addresses.parse(address)
        return (parsed.shown, parsed.secrets) if parsed.secrets else parsed.shown

    def close_inherited(self) -> None:
        """See `engine.Engine`: each log has forgotten its session."""


#: States at URLs.
SERVERS = Servers()

if TYPE_CHECKING:
    _: type[Engine] = Servers
