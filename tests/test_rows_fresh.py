"""Reads that may be old: the option `fresh` of states on a server, and of files, which need none."""

from __future__ import annotations

import pickle
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tools.engines import opened, store_of

from pstate import PersistedState, ServerUnavailable
from stress.real import postgres

pytest.importorskip("psycopg", reason="psycopg is not installed")

from pstate.rows import age, server
from pstate.rows.servers import Servers


@pytest.fixture
def url(postgres_server: postgres.Server, tmp_path: Path) -> str:
    return f"{postgres_server.url}#{tmp_path}"


@pytest.fixture
def process(url: str) -> Iterator[Callable[..., PersistedState]]:
    """Opens the state once more, as another process does."""
    states = list[PersistedState]()

    def process(**options: Any) -> PersistedState:
        states.append(opened(Servers(100 + len(states)), url, **options))
        return states[-1]

    yield process
    for state in states:
        state.close()


class Clock:
    """The real one, which a test puts forward by more than a test takes."""

    def __init__(self) -> None:
        self.ahead = 0.0

    def __call__(self) -> float:
        return time.monotonic() + self.ahead


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(age, "monotonic", clock)
    monkeypatch.setattr("pstate.rows.log.monotonic", clock)
    return clock


@pytest.fixture
def trips(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """One item for each time that the server is asked what is new."""
    asked = list[int]()
    original = server.PostgresServer.catch_up

    def catch_up(self: Any, store: str, rev: int, deadline: float) -> Any:
        asked.append(rev)
        return original(self, store, rev, deadline)

    monkeypatch.setattr(server.PostgresServer, "catch_up", catch_up)
    return asked


def test_by_default_each_read_asks(process: Any, trips: list[int]) -> None:
    state, other = process(), process()
    for number in range(3):
        other.n = number
        assert state.n == number
    assert len(trips) == 3


def test_a_read_asks_when_the_last_answer_is_too_old(process: Any, trips: list[int], clock: Clock) -> None:
    other, state = process(), process(fresh=5000)
    other.n = 1
    assert "n" not in state
    assert state.snapshot() == {}
    assert not trips
    clock.ahead += 4000
    assert state.snapshot() == {}
    clock.ahead += 1001
    assert state.n == 1
    assert len(trips) == 1
    other.n = 2
    assert [state.n for _ in range(3)] == [1, 1, 1]
    assert len(trips) == 1


def test_the_age_counts_from_the_start_of_the_trip(process: Any, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    other, state = process(), process(fresh=5000)
    clock.ahead += 5000
    original = server.PostgresServer.catch_up

    def slow(self: Any, store: str, rev: int, deadline: float) -> Any:
        found = original(self, store, rev, deadline)
        clock.ahead += 4000  # the answer is on its way
        return found

    monkeypatch.setattr(server.PostgresServer, "catch_up", slow)
    assert "n" not in state
    other.n = 1
    assert "n" not in state
    clock.ahead += 1001
    assert state.n == 1


def test_a_read_is_never_behind_what_this_process_has_committed(process: Any, trips: list[int], clock: Clock) -> None:
    state, other = process(fresh=5000), process()
    state.n = 1
    assert state.n == 1
    with state.transaction():
        state.n += 1
    assert state.n == 2
    other.n = 10
    with state.transaction():
        state.n += 1
    assert state.n == 11
    assert not trips


def test_a_read_after_an_interrupted_commit_asks(
    process: Any, trips: list[int], clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The change may be committed, so what memory has may lack it."""
    state = process(fresh=5000)
    state.n = 1
    original = server.PostgresServer.commit_alone

    def interrupted(self: Any, commit: Any, deadline: float) -> bool:
        original(self, commit, deadline)
        raise KeyboardInterrupt

    monkeypatch.setattr(server.PostgresServer, "commit_alone", interrupted)
    with pytest.raises(KeyboardInterrupt):
        state.n = 2
    monkeypatch.undo()
    assert state.n == 2


def test_a_change_is_refused_only_for_what_is_newest(process: Any, clock: Clock) -> None:
    """A KeyError, and a change that changes nothing, count only after the server was asked."""
    state, other = process(fresh=5000), process()
    other.n = 1
    del state["n"]
    assert "n" not in other
    state.n = 1
    other.n = 2
    state.n = 1
    assert other.n == 1


def test_what_others_do_in_a_block_is_not_seen_early(process: Any) -> None:
    state, other = process(fresh=60), process()
    with other.transaction():
        other.n = 1
        assert "n" not in state
    assert "n" not in state
    with state.transaction():
        assert state.n == 1
    assert state.n == 1


def test_the_smaller_of_two_counts_for_both(url: str) -> None:
    with PersistedState.open(url, fresh=60) as state:
        assert store_of(state).fresh() is not None
        with PersistedState.open(url, fresh=70) as second:
            assert store_of(second) is store_of(state)
            assert store_of(state).log._age.at_most == 60
        with PersistedState.open(url):
            assert store_of(state).fresh() is None
        assert store_of(state).fresh() is None


def test_it_is_pickled(url: str) -> None:
    with PersistedState.open(url, fresh=0.25) as state:
        assert pickle.loads(pickle.dumps(state))._reopen[1]["fresh"] == 0.25


@pytest.mark.parametrize("value", [-1, -0.001, float("nan"), float("inf"), "1", None, True, [1]])
def test_another_value_is_refused_before_anything_is_opened(value: Any, tmp_path: Path) -> None:
    for address in (str(tmp_path / "state.yaml"), "postgresql://127.0.0.1:1/none#x"):
        with pytest.raises(ValueError, match=r"fresh must be a number of seconds.*Nothing was opened"):
            PersistedState.open(address, fresh=value)
    assert not list(tmp_path.iterdir())


def test_a_file_is_never_behind(tmp_path: Path) -> None:
    path = tmp_path / "state.yaml"
    with PersistedState.open(path, fresh=60) as state:
        state.n = 1
        path.write_text("n: 2\n")
        with PersistedState.open(path, fresh=0.0) as second:
            assert state.n == second.n


def test_a_server_that_is_away_is_noticed_when_the_answer_is_too_old(
    process: Any, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = process(fresh=5000)
    state.n = 1

    def away(self: Any, store: str, rev: int, deadline: float) -> Any:
        raise ServerUnavailable("away", path="x")

    monkeypatch.setattr(server.PostgresServer, "catch_up", away)
    assert state.n == 1
    clock.ahead += 5000
    with pytest.raises(ServerUnavailable):
        state.snapshot()
    with pytest.raises(ServerUnavailable):
        state.snapshot()
