"""A network that cuts, delays, loses and repeats: a commit takes effect once, or its author is told that it did not."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tools.engines import opened, store_of
from tools.proxy import Fault, Proxy, lengths

from pstate import CommitUnknown, ConflictError, PersistedState, ServerUnavailable
from stress.real import postgres

pytest.importorskip("psycopg", reason="psycopg is not installed")
from pstate.rows.servers import Servers


@pytest.fixture
def proxy(postgres_server: postgres.Server) -> Iterator[Proxy]:
    proxy = Proxy(postgres_server.port)
    yield proxy
    proxy.close()


@pytest.fixture
def name(tmp_path: Path) -> str:
    return f"#{tmp_path}"


@pytest.fixture
def state(proxy: Proxy, name: str) -> Iterator[PersistedState]:
    """The state, through the proxy."""
    url = f"postgresql://pstate@127.0.0.1:{proxy.port}/postgres?sslmode=disable&gssencmode=disable"
    state = opened(Servers(1), url + name)
    state.update(n=0, l=[])
    yield state
    proxy.fault, proxy.is_up = None, True
    state.close()


@pytest.fixture
def witness(state: PersistedState, postgres_server: postgres.Server, name: str) -> Iterator[PersistedState]:
    """The same state, past the proxy."""
    with opened(Servers(2), postgres_server.url + name) as witness:
        yield witness


def _increment(state: PersistedState) -> None:
    """One round trip, and no read: a plan on what memory is."""
    store = store_of(state)
    store.mutate(store.root, lambda root: ([("set", "n", dict.get(root, "n") + 1)], None))


def _in_block(state: PersistedState) -> None:
    with state.transaction():
        state.n += 1


@pytest.mark.parametrize("others", [False, True], ids=["alone", "others commit"])
@pytest.mark.parametrize("what", ["request", "answer", "late"])
@pytest.mark.parametrize("change", [_increment, _in_block], ids=["change", "block"])
@pytest.mark.timeout(300)
def test_a_commit_that_is_cut_at_any_byte_is_there_once(
    proxy: Proxy,
    state: PersistedState,
    witness: PersistedState,
    change: Callable[[PersistedState], None],
    what: str,
    others: bool,
) -> None:
    for _ in range(5):
        change(state)  # until statements are prepared
    sent, received = lengths(proxy, lambda: change(state))
    last = sent if what != "answer" else received
    expected, appended = witness.n, 0
    for place in range(0, last + 1, 1 if what == "request" and not others else 7):
        if change is _in_block:
            block = state.transaction()
            block.__enter__()
            state.n += 1
            proxy.fault = _fault(what, place)
            _leave(block)
        else:
            proxy.fault = _fault(what, place)
            change(state)
        expected += 1
        proxy.deliver()
        if others:
            witness.l.append(place)
            appended += 1
        assert witness.n == expected, place
        assert state.n == expected, place
        assert len(state.l) == len(witness.l) == appended
    numbers = [each.new for each in witness.history("n")]
    assert numbers == sorted(set(numbers))


def _fault(what: str, place: int) -> Fault:
    if what == "answer":
        return Fault(None, answered=place)
    return Fault(place, is_late=what == "late")


def _leave(block: Any) -> None:
    assert not block.__exit__(None, None, None)


def test_a_block_whose_session_was_lost_is_committed_where_nobody_else_has(
    proxy: Proxy, state: PersistedState, witness: PersistedState
) -> None:
    with state.transaction():
        state.n += 1
        proxy.cut()
    assert witness.n == state.n == 1


def test_a_block_whose_session_was_lost_conflicts_with_what_was_committed_since(
    proxy: Proxy, state: PersistedState, witness: PersistedState
) -> None:
    with pytest.raises(ConflictError, match="another program has committed since"):
        with state.transaction():
            state.n += 1
            proxy.cut()
            witness.n = 10
    assert witness.n == state.n == 10
    state.n += 1
    assert witness.n == 11


def test_a_server_that_is_away_changes_nothing_and_is_waited_for_no_longer_than_the_timeout(
    proxy: Proxy, state: PersistedState, witness: PersistedState, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pstate.rows.server.PATIENCE", 0.3)
    store_of(state).log.lock_timeout = store_of(state).lock_timeout = 0.3
    proxy.is_up = False
    proxy.cut()
    for use in (lambda: state.n, lambda: _increment(state), lambda: _in_block(state), state.snapshot):
        with pytest.raises(ServerUnavailable, match="Nothing was changed"):
            use()
    proxy.is_up = True
    assert state.n == witness.n == 0
    _increment(state)
    assert state.n == witness.n == 1


def test_a_commit_whose_outcome_nobody_can_tell_is_found_out_by_the_next_use(
    proxy: Proxy, state: PersistedState, witness: PersistedState, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pstate.rows.server.PATIENCE", 0.3)
    store_of(state).log.lock_timeout = store_of(state).lock_timeout = 0.3
    for fault in (Fault(1, is_late=True), Fault(None, answered=0)):
        before = witness.n
        proxy.fault, proxy.is_up = fault, False  # the session that is open goes on
        with pytest.raises(CommitUnknown, match="committed, or not") as caught:
            _increment(state)
        assert "Nothing was changed" not in str(caught.value)
        assert "\n" not in str(caught.value)
        proxy.is_up = True
        seen = state.n
        proxy.deliver()
        assert state.n == witness.n == seen
        assert seen == before + (not fault.is_late)


@pytest.mark.parametrize("change", [_increment, _in_block], ids=["change", "block"])
def test_the_outcome_of_a_commit_whose_author_is_interrupted_does_not_change_later(
    proxy: Proxy,
    state: PersistedState,
    witness: PersistedState,
    change: Callable[[PersistedState], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from pstate.rows.link import Link

    answers = Link._answers
    due: list[Fault] = []

    def send_late() -> None:
        proxy.fault = Fault(1, is_late=True)
        due.append(proxy.fault)

    def interrupted(link: Link, conn: Any, deadline: float) -> Any:
        if not due:
            return answers(link, conn, deadline)
        due.clear()
        assert not conn.flush()
        assert proxy.has_late.wait(20)
        raise KeyboardInterrupt

    monkeypatch.setattr(Link, "_answers", interrupted)
    with pytest.raises(KeyboardInterrupt):
        if change is _in_block:
            with state.transaction():
                state.n += 1
                send_late()
        else:
            send_late()
            change(state)
    seen = witness.n
    proxy.deliver()
    assert witness.n == seen
    assert state.n == seen
    change(state)
    assert witness.n == seen + 1
