"""A server with a standby that takes over: programs find it, and are told once of what it lacks."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from time import monotonic, sleep
from typing import Any

import pytest
from tools.engines import opened

from pstate import ConflictError, HistoryLost, ReadOnlyError, ServerUnavailable
from stress.real import postgres

psycopg = pytest.importorskip("psycopg", reason="psycopg is not installed")
from pstate.rows import server as servers  # noqa: E402
from pstate.rows.servers import Servers  # noqa: E402


class Pair:
    """A server, and a standby that gets its commits some time after they were acknowledged."""

    def __init__(self, place: Path) -> None:
        # It may die, and the standby without it must not wait for long: both are of a test.
        options = ("fsync=off", "wal_retrieve_retry_interval=100ms")
        self.first = postgres.Server(place / "first", options=options)
        self.first.begin()
        self.second = postgres.Server(place / "second", options=options)
        self.second.make_standby(self.first)
        self.second.start()

    def url(self, name: Path, *, reverse: bool = False, options: str = "") -> str:
        """Of the state *name*, with both hosts."""
        ports = [self.first.port, self.second.port]
        hosts = ",".join(f"127.0.0.1:{port}" for port in (ports[::-1] if reverse else ports))
        return f"postgresql://pstate@{hosts}/postgres{options}#{name}"

    def await_standby(self, name: Path) -> None:
        """Return when the standby has all commits of the state *name*."""
        statement = "SELECT rev FROM pstate.store WHERE name = %s"
        end = monotonic() + 40
        with psycopg.connect(self.first.url) as first, psycopg.connect(self.second.url, autocommit=True) as second:
            expected = first.execute(statement, (str(name),)).fetchone()
            while True:
                try:
                    if second.execute(statement, (str(name),)).fetchone() == expected:
                        return
                except psycopg.errors.UndefinedTable:
                    pass  # the tables were made just now
                assert monotonic() < end
                sleep(0.01)


@pytest.fixture
def pair() -> Iterator[Pair]:
    if postgres.binaries() is None:
        pytest.skip(postgres.MISSING)
    with postgres.folder() as place:
        yield Pair(place)


@pytest.fixture
def program() -> Iterator[Callable[..., Any]]:
    """Opens a state as another program does."""
    with ExitStack() as stack:
        numbers = iter(range(100))

        def program(url: str, **options: Any) -> Any:
            return stack.enter_context(opened(Servers(next(numbers)), url, **{"lock_timeout": 40.0, **options}))

        yield program


class Users:
    """Programs with the state *name*, whose last commits the standby lacks."""

    def __init__(self, pair: Pair, program: Any, name: Path) -> None:
        url = pair.url(name)
        self.states = [program(url) for _ in range(4)]
        self.reader = program(url, read_only=True)
        self.everybody = (*self.states, self.reader)
        for number in range(4):
            self.states[0].n = number
        pair.await_standby(name)

    def go_on(self) -> None:
        """Commit what will be lost, and begin a block."""
        for number in range(4, 7):
            self.states[0].n = number
        assert [state.n for state in self.everybody] == [6] * 5
        self._block = self.states[3].transaction()
        self._block.__enter__()
        self.states[3].n = 7

    def are_told_once(self, expected: dict[str, int]) -> None:
        """The state is *expected* after the failover, and each program is told that it was another one."""
        with pytest.raises(ConflictError, match="The block was rolled back"):
            self._block.__exit__(None, None, None)
        for state, use in zip(self.everybody, (_change, _begin_block, _read, _read, _read), strict=True):
            with pytest.raises(HistoryLost, match="which it had acknowledged") as caught:
                use(state)
            assert "Nothing was changed by this call" in str(caught.value)
            assert state.snapshot() == expected
        for state in self.states:
            with state.transaction():
                state.n += 1
            state.setdefault("l", []).append(1)
        assert {state.n for state in self.everybody} == {7}
        assert self.reader.l == [1, 1, 1, 1]


def _change(state: Any) -> None:
    state.changed = True


def _begin_block(state: Any) -> None:
    with state.transaction():
        raise AssertionError("it has begun")


def _read(state: Any) -> int:
    return int(state.n)


def test_commits_that_the_standby_lacks_are_told_of_once(
    pair: Pair, program: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Also where others have committed since: the numbers of their commits are those of the lost ones, and more."""
    alone, shared = tmp_path / "alone", tmp_path / "shared"
    users = [Users(pair, program, name) for name in (alone, shared)]
    pair.second.stop("immediate")
    for each in users:
        each.go_on()
    pair.first.stop("immediate")
    pair.second.start()
    pair.second.promote()
    theirs = program(f"{pair.second.url}#{shared}")
    assert theirs.snapshot() == {"n": 3}
    for number in range(4):
        theirs.m = number
    for each, expected in zip(users, ({"n": 3}, {"n": 3, "m": 3}), strict=True):
        each.are_told_once(expected)
    assert caplog.text.count("which it had acknowledged") == 10


def test_a_standby_is_not_asked_before_it_takes_over_unless_the_url_says_so(
    pair: Pair, program: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """It may lag, and a read must see what was acknowledged before it."""
    state, other = program(pair.url(tmp_path, reverse=True)), program(pair.url(tmp_path))
    with psycopg.connect(pair.second.url, autocommit=True) as standby:
        state.n = 0
        pair.await_standby(tmp_path)
        standby.execute("SELECT pg_wal_replay_pause()")
        state.n = 1
        assert other.n == state.n == 1

        monkeypatch.setattr(servers, "PATIENCE", 2.0)
        with pytest.raises(ServerUnavailable, match=r"hot standby mode.*add target_session_attrs=any"):
            program(f"{pair.second.url}#{tmp_path}", read_only=True, lock_timeout=2)
        monkeypatch.undo()
        asks = f"{pair.second.url}?target_session_attrs=any#{tmp_path}"
        reader = program(asks, read_only=True)
        assert reader.n == 0  # as old as the standby is
        writer = program(asks)
        with pytest.raises(ReadOnlyError, match="Nothing was changed"):
            writer.n = 2
        standby.execute("SELECT pg_wal_replay_resume()")
        pair.await_standby(tmp_path)
        assert reader.n == writer.n == 1

    with other.transaction():
        other.n += 1
        pair.await_standby(tmp_path)
        pair.first.stop("immediate")
        pair.second.promote()
    assert state.n == other.n == 2
    state.n += 1
    assert other.n == 3
    assert "ERROR" not in caplog.text
