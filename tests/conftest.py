"""What every test gets: stacks when it hangs or crashes, this checkout in child processes, hypothesis' settings.

A test that meets a deadlock must say where: the timeouts are in pyproject.toml, the stacks of child processes come from
PYTHONFAULTHANDLER here.
"""

from __future__ import annotations

import gc
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from threading import get_ident
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from tools.edits import Peer, World
from tools.engines import opened
from tools.processes import Pool

import pstate.store
from pstate import PersistedState, speed
from pstate.logger import waiting
from pstate.testing import SimulatedSystem
from stress.real import postgres

ROOT = Path(__file__).parent.parent
# The folder of the tests is for the fork server, which loads their tools once for all that it forks.
os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(ROOT), str(ROOT / "tests"), os.environ.get("PYTHONPATH")]))
os.environ.setdefault("PYTHONFAULTHANDLER", "1")  # for child processes; pytest switches its own on
# A shell that runs us in the background has it ignored, and child processes would inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)
os.environ.setdefault("PYTHONUNBUFFERED", "1")  # what a child printed before SIGKILL is part of the evidence

# The machine is shared with the other workers of pytest-xdist, so time says nothing about an example: no deadline.
# Failures are repeated from the blob that is printed, so the seed may differ from run to run.
settings.register_profile("ci", deadline=None, print_blob=True, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("thorough", settings.get_profile("ci"), max_examples=2000)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci"))


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "file_only(reason): a state on a server is not, or has not, what this is about")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """What looks at the state alone runs for each engine that others share: see `tools.homes`."""
    if "address" in metafunc.fixturenames:
        kinds = ["file"] if metafunc.definition.get_closest_marker("file_only") else ["file", "server"]
        metafunc.parametrize("address", kinds, indirect=True)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What is marked as `pure` runs where nothing is compiled: on a server, and with PSTATE_PURE=1."""
    skip = pytest.mark.skip(reason="looks at steps of Python code that the compiled part takes in one: PSTATE_PURE=1")
    for item in items:
        on_server = isinstance(item, pytest.Function) and _runs_on_server(item)
        if speed.compiled and item.get_closest_marker("pure") and not on_server:
            item.add_marker(skip)


def _runs_on_server(item: pytest.Function) -> bool:
    return hasattr(item, "callspec") and item.callspec.params.get("address") == "server"


def pytest_collection_finish() -> None:
    """What was collected stays to the end: no full garbage collection, here or in a fork, need look at it again."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def _nothing_untold() -> Iterator[None]:
    """What the package had to tell while it held a lock was handed to `logging` when it gave that back."""
    yield
    assert not waiting.get(get_ident())


@pytest.fixture(autouse=True)
def _invariants_hold(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What a test leaves open is in order: see `pstate.store.Store.check`. *monkeypatch* is undone after it.

    Simulated states are checked by the simulation, at every stop.
    """
    before = pstate.store._all.copy()
    yield
    for reference in pstate.store._all.copy() - before:
        store = reference()
        if store is not None and not isinstance(getattr(store.engine, "fs", None), SimulatedSystem):
            store.check()


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[postgres.Server]:
    """A PostgreSQL server of this process. Skips the test where there is none on this machine."""
    if postgres.binaries() is None:
        pytest.skip(postgres.MISSING)
    with postgres.running() as server:
        yield server


@pytest.fixture
def address(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Where a new state is kept, in a folder of its own or on the server: with `file_only`, in a folder."""
    return str(tmp_path / "state.yaml") if request.param == "file" else request.getfixturevalue("url")


@pytest.fixture
def url(postgres_server: postgres.Server, tmp_path: Path) -> str:
    """Where a new state is kept on the server."""
    pytest.importorskip("psycopg", reason="psycopg is not installed")
    return f"{postgres_server.url}#{tmp_path}"


@pytest.fixture
def process(url: str) -> Iterator[Callable[..., PersistedState]]:
    """Opens the state on the server once more, as another process does. Another URL and options may be given."""
    from pstate.rows.servers import Servers

    states = list[PersistedState]()

    def process(**options: Any) -> PersistedState:
        states.append(opened(Servers(len(states)), options.pop("url", url), **options))
        return states[-1]

    yield process
    for state in states:
        state.close()


@pytest.fixture
def sql(postgres_server: postgres.Server) -> Iterator[Callable[..., list[Any]]]:
    """Asks the server past pstate."""
    import psycopg

    with psycopg.connect(postgres_server.url, autocommit=True) as connection:

        def sql(statement: str, *values: Any) -> list[Any]:
            cursor = connection.execute(statement, values)
            return cursor.fetchall() if cursor.description else []

        yield sql


@pytest.fixture(scope="module")
def pool() -> Iterator[Pool]:
    peers = Pool(Peer)
    yield peers
    peers.end()


@pytest.fixture
def world(tmp_path: Path, pool: Pool) -> Iterator[World]:
    """A state file, and programs that have it open. Modules say what it contains."""
    world = World(tmp_path / "state.yaml", pool)
    yield world
    world.release()
