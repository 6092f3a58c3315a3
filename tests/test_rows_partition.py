"""Machines that lose sight of each other: a lease ends, a block that was overtaken conflicts, and nothing hangs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from time import monotonic
from typing import Any

import pytest
from tools import network as networks
from tools.network import Host, Network
from tools.processes import Other

from pstate import CommitUnknown, ConflictError, PersistedState, ServerUnavailable
from stress.real import postgres
from stress.real.workers import Link, end

pytest.importorskip("psycopg", reason="psycopg is not installed")
from pstate.rows import server as servers


def _on_host(link: Link, pid: int, url: str, lock_timeout: float) -> dict[str, Any]:
    """The names of a program on the host of process *pid*: it has the state open as `state`."""
    networks.enter(pid)
    state = PersistedState.open(url, lock_timeout=lock_timeout)
    return {"state": state, "servers": servers, "monotonic": monotonic}


@pytest.fixture(scope="module")
def network() -> Iterator[Network]:
    """A host for a server, and two for programs."""
    if postgres.binaries() is None:
        pytest.skip(postgres.MISSING)
    with ExitStack() as stack:
        try:
            network = stack.enter_context(networks.network(3))
        except networks.Unsupported as unsupported:
            pytest.skip(f"no network of our own: {unsupported}")
        yield network


@pytest.fixture(scope="module")
def server(network: Network) -> Iterator[postgres.Server]:
    host = network.hosts[0]
    with postgres.folder() as place:
        server = postgres.Server(place, 5432, ("fsync=off",), host.address, host.pid)
        server.make()
        server.write("pg_hba.conf", "host all all samenet trust\n")
        server.start()
        yield server


class Programs:
    """Two programs with one state, each on a host of its own; the first one can be cut off."""

    def __init__(self, network: Network, url: str, lock_timeout: float) -> None:
        self._network = network
        _, *hosts = network.hosts
        self.cable: Host = hosts[0]
        self.one, self.two = (Other(_on_host, host.pid, url, lock_timeout) for host in hosts)
        self.one.run("state.update(n=0, l=[])")

    def cut(self) -> None:
        self._network.cut(self.cable)

    def heal(self) -> None:
        self._network.heal(self.cable)

    def both(self, expression: str) -> Any:
        """What *expression* is for either."""
        first, second = self.one.ask(expression), self.two.ask(expression)
        assert first == second
        return first


@pytest.fixture
def make(network: Network, server: postgres.Server, request: pytest.FixtureRequest) -> Iterator[Any]:
    with ExitStack() as stack:

        def make(lock_timeout: float = 40, options: str = "") -> Programs:
            programs = Programs(network, f"{server.url}{options}#{request.node.name}", lock_timeout)
            stack.callback(end, [programs.one, programs.two])
            stack.callback(programs.heal)
            return programs

        yield make


def test_the_lock_of_a_block_that_was_cut_off_is_free_when_its_lease_ends(make: Any) -> None:
    """And when it is back, its block is not committed."""
    programs = make()
    programs.one.run("servers.LEASE = 2")
    programs.one.enter("state.n = 1; state.l.append('lost')")
    programs.cut()
    programs.two.run("state.n = 10")  # waits for the end of the lease
    programs.heal()
    with pytest.raises(ConflictError, match="another program has committed since"):
        programs.one.leave()
    assert programs.both("state.snapshot()") == {"n": 10, "l": []}
    programs.one.run("state.n += 1")
    assert programs.both("state.n") == 11


def test_a_block_that_is_cut_off_for_two_seconds_is_committed_once(make: Any) -> None:
    programs = make()
    programs.one.enter("state.l.append(1)")
    programs.cut()
    programs.one.tell("block.__exit__(None, None, None)")
    assert not programs.one.pipe.poll(2)
    programs.heal()
    programs.one.answer()
    assert programs.both("state.l") == [1]


@pytest.mark.parametrize("others", [False, True], ids=["alone", "others commit"])
def test_a_change_that_is_cut_off_is_settled_once(make: Any, others: bool) -> None:
    """Its session is given up while it is cut off, so another one finds out what happened to it."""
    programs = make(options="?tcp_user_timeout=500")
    programs.one.run("state.l.append(0); session = state._store.log.server.session")
    programs.cut()
    programs.one.tell("state.l.append(1)")
    assert not programs.one.pipe.poll(2)
    if others:
        programs.two.run("state.n = 5")
    programs.heal()
    programs.one.answer()
    assert programs.one.ask("state._store.log.server.session > session")
    assert programs.both("state.snapshot()") == {"n": 5 if others else 0, "l": [0, 1]}


def test_nothing_hangs_past_its_timeout(make: Any) -> None:
    """Each use of a program that is cut off for good, from a session that looks alive and without one."""
    programs = make(lock_timeout=0.5)
    programs.one.run("servers.PATIENCE = 1.0")
    uses = ("state.n", "state.snapshot()", "state.transaction().__enter__()", "state.l.append(1)")
    for use in uses:
        programs.cut()
        for _ in range(2):
            began = monotonic()
            with pytest.raises((ServerUnavailable, CommitUnknown)):
                programs.one.ask(use)
            # A commit has one timeout for itself, and one to find out what happened to it.
            assert monotonic() - began < 20
        programs.heal()
        programs.one.run("servers.PATIENCE = 30.0")
        assert programs.both("state.n") == 0
        programs.one.run("servers.PATIENCE = 1.0")
    assert len(programs.both("state.l")) <= 2
    seen = programs.both("state.l")
    programs.two.run("state.l.append(2)")
    assert programs.both("state.l") == [*seen, 2]
