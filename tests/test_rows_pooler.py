"""With pgbouncer in transaction mode, each transaction of a program may be in another session of the server."""

from __future__ import annotations

import functools
import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from tools import pooler as poolers
from tools.engines import opened, store_of
from tools.pooler import Pooler
from tools.proxy import Fault, Proxy, lengths

from pstate import ConflictError, LockTimeout, PersistedState
from stress.real import postgres

psycopg = pytest.importorskip("psycopg", reason="psycopg is not installed")
from pstate.rows import server as servers  # noqa: E402
from pstate.rows.servers import Servers  # noqa: E402


@pytest.fixture(scope="module")
def server() -> Iterator[postgres.Server]:
    """A server that logs each statement."""
    if postgres.binaries() is None:
        pytest.skip(postgres.MISSING)
    if poolers.program() is None:
        pytest.skip("pgbouncer is not installed")
    with postgres.running("log_statement=all") as server:
        yield server


@pytest.fixture(scope="module")
def pooler(server: postgres.Server) -> Iterator[Pooler]:
    with poolers.pooling(server) as pooler:
        yield pooler


@pytest.fixture
def program(pooler: Pooler, tmp_path: Path) -> Iterator[Callable[..., Any]]:
    """Opens the state once more, as another program does, through the pooler; or past it at *url*."""
    with ExitStack() as stack:
        numbers = iter(range(100))

        def program(url: str = pooler.url, lock_timeout: float = 40) -> Any:
            return stack.enter_context(opened(Servers(next(numbers)), f"{url}#{tmp_path}", lock_timeout=lock_timeout))

        yield program


@pytest.fixture(autouse=True)
def _no_session_is_ended_by_us(server: postgres.Server) -> Iterator[None]:
    """The sessions are everybody's."""
    yield
    assert "pg_terminate_backend" not in (server.folder / "log").read_text()


class Sessions:
    """Both sessions of the pooler with the server. All but one are kept busy, so that it is known which one is used."""

    def __init__(self, url: str, stack: ExitStack) -> None:
        self._holders = [stack.enter_context(psycopg.connect(url)) for _ in range(2)]
        self.use(0)

    def use(self, number: int) -> None:
        """Let session *number* be used from now on, and no other one."""
        for holder in self._holders:
            holder.execute("SELECT 1")
        self.release(number)

    def release(self, number: int) -> None:
        """Let session *number* be used as well."""
        self._holders[number].rollback()


@pytest.fixture
def sessions(pooler: Pooler) -> Iterator[Sessions]:
    with ExitStack() as stack:
        yield Sessions(pooler.url, stack)


def _increment(state: PersistedState, before: Callable[[], None] = lambda: None) -> None:
    """One round trip, and no read: a plan on what memory is. *before* is called before it."""
    store = store_of(state)
    before()
    store.mutate(store.root, lambda root: ([("set", "n", dict.get(root, "n") + 1)], None))


def _in_block(state: PersistedState, before: Callable[[], None] = lambda: None) -> None:
    """*before* is called before the end of the block."""
    with state.transaction():
        state.n += 1
        before()


def test_programs_share_sessions_and_lose_nothing(program: Any, server: postgres.Server) -> None:
    states = [program() for _ in range(4)]
    states[0].update(n=0, m={}, l=[])
    errors: list[BaseException] = []

    def work(number: int, state: Any) -> None:
        try:
            for step in range(20):
                with state.transaction():
                    state.n += 1
                state.m[number] = step
                assert state.m[number] == step
            state.l.append(number)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=each) for each in enumerate(states)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors
    expected = {"n": 80, "m": dict.fromkeys(range(4), 19)}
    found = program(server.url).snapshot()
    assert sorted(found.pop("l")) == [0, 1, 2, 3]
    assert found == expected


def test_what_one_program_prepares_is_not_what_another_one_gets(program: Any, sessions: Sessions) -> None:
    """A name of a statement that two programs gave to different ones would be the wrong one for either."""
    reader, writer = program(), program()
    writer.n = 0
    for _ in range(6):
        assert reader.n == 0  # in session 0
    sessions.use(1)
    for _ in range(6):
        _increment(writer)
    for number in range(7, 13):
        assert reader.n == number - 1
        _increment(writer)
    sessions.use(0)
    for number in range(13, 19):
        _increment(writer)
        assert reader.n == number


def test_a_block_goes_on_in_its_session_and_leaves_no_setting_there(program: Any, sessions: Sessions) -> None:
    state, other = program(), program(lock_timeout=0.2)
    with state.transaction():
        state.n = 1
        sessions.release(1)
        with pytest.raises(LockTimeout):
            other.n = 2
        state.n = 3
    sessions.use(0)
    assert other.n == 3
    link = store_of(other).log.server._link
    for name in ("lock_timeout", "idle_in_transaction_session_timeout"):
        assert link.ask(f"SHOW {name}", (), float("inf")) == [("0",)]


def test_a_watch_misses_nothing(program: Any) -> None:
    state, other = program(), program()
    other.n = 0
    with state.watch("n", timeout=20) as watch:

        def work() -> None:
            for number in range(1, 31):
                other.n = number

        thread = threading.Thread(target=work)
        thread.start()
        seen = []
        for change in watch:
            seen.append((change.old, change.new))
            if change.new == 30:
                break
        thread.join()
    assert seen == [(number, number + 1) for number in range(30)]


def test_a_block_that_outlives_its_lease_conflicts(program: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(servers, "LEASE", 0.3)
    state, other = program(), program()
    state.n = 1
    with pytest.raises(ConflictError, match="another program has committed since"):
        with state.transaction():
            state.n = 2
            other.n = 10  # waits for the end of the lease
    assert state.n == other.n == 10
    with state.transaction():
        state.n += 1
    assert other.n == 11


@pytest.mark.parametrize("change", [_increment, _in_block], ids=["change", "block"])
@pytest.mark.parametrize("what", ["request", "answer", "late"])
def test_an_unknown_outcome_is_found_out(
    pooler: Pooler, program: Any, what: str, change: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The session of a block that was cut off cannot be named here, so the end of its lease is waited for."""
    monkeypatch.setattr(servers, "LEASE", 0.5)
    proxy = Proxy(pooler.port)
    try:
        witness = program()
        state = program(f"postgresql://pstate@127.0.0.1:{proxy.port}/postgres?sslmode=disable&gssencmode=disable")
        witness.n = 0
        for _ in range(4):
            change(state)
        sent, received = lengths(proxy, lambda: change(state))
        expected = witness.n
        last = received if what == "answer" else sent
        for place in sorted({0, 1, last // 3, last // 2, last - 1, last}):
            fault = Fault(None, answered=place) if what == "answer" else Fault(place, is_late=what == "late")
            change(state, functools.partial(setattr, proxy, "fault", fault))
            expected += 1
            proxy.deliver()
            assert (witness.n, state.n) == (expected, expected), place
    finally:
        proxy.close()


def test_what_the_log_says_of_a_pooler_is_said_once(
    program: Any, sessions: Sessions, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "pstate"):
        state = program()
        for number in range(4):
            for session in (0, 1):
                sessions.use(session)
                state.n = number
                assert state.n == number
    assert caplog.text.count("pooler") <= 1
