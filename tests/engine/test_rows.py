"""The engine on a PostgreSQL server keeps what every engine promises."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest

from engine.conformance import Conformance
from pstate.engine import Engine
from stress.real import postgres

pytest.importorskip("psycopg", reason="psycopg is not installed")
from pstate.rows.servers import Servers

_numbers = itertools.count()


class TestRows(Conformance):
    knows_freshness = False
    power_is_asked_for = False
    unlocks_only_when_told = False
    tidying_ends_the_journal = False

    @pytest.fixture(autouse=True)
    def _server(self, postgres_server: postgres.Server) -> None:
        self.server = postgres_server

    def make_engine(self) -> Engine:
        return Servers(next(_numbers))

    def make_address(self, tmp_path: Path) -> str:
        return f"{self.server.url}#{tmp_path}"
