"""The engine in memory keeps what every engine promises, and is of another kind than the file."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from tools.crash import in_child
from tools.engines import opened, store_of

from engine.conformance import Conformance, body
from pstate import LockTimeout, PersistedState, store
from pstate.engine import Engine, Overtaken
from pstate.memory import ops
from pstate.testing.memory import MemoryEngine, MemoryLog

ADDRESS = "the state of a test"


class TestMemory(Conformance):
    def make_engine(self) -> Engine:
        return MemoryEngine()

    def make_address(self, tmp_path: Path) -> str:
        return ADDRESS


@pytest.fixture
def engine() -> MemoryEngine:
    return MemoryEngine()


@pytest.fixture
def one(engine: MemoryEngine) -> Iterator[PersistedState]:
    with opened(engine, ADDRESS, lock_timeout=0) as one:
        yield one


@pytest.fixture
def other(engine: MemoryEngine) -> Iterator[PersistedState]:
    with opened(engine, ADDRESS, lock_timeout=0) as other:
        yield other


def test_a_single_change_takes_no_lock_and_can_be_overtaken(one: PersistedState, other: PersistedState) -> None:
    log: MemoryLog = store_of(one).log
    log.begin(0)
    other.n = "theirs"
    with pytest.raises(Overtaken):
        log.commit(body(["set", [], "n", "ours"]))
    log.hold.unlock()
    assert one.n == other.n == "theirs"
    assert len(list(one.history())) == 1


def test_a_block_overtakes_a_change_that_has_begun(one: PersistedState, other: PersistedState) -> None:
    log: MemoryLog = store_of(one).log
    log.begin(0)
    with other.transaction():
        with pytest.raises(Overtaken):
            log.commit(body(["set", [], "n", "ours"]))
        log.hold.unlock()
        with pytest.raises(LockTimeout):
            log.begin(0)
        other.n = "theirs"
    assert one.n == "theirs"


def test_commits_are_kept_as_text(one: PersistedState, other: PersistedState) -> None:
    """So no value of one store is an object of another one."""
    one.l = [{"x": [1]}]
    assert store_of(one).log.link.body == '[["set", [], "l", [{"x": [1]}]]]'.replace(", ", ",")
    other.l[0].x.append(2)
    assert ops.plain(store_of(one).root) == {"l": [{"x": [1]}]}
    assert one.l == [{"x": [1, 2]}]


def test_two_engines_have_nothing_in_common(one: PersistedState) -> None:
    one.n = 1
    with opened(MemoryEngine(), ADDRESS) as further:
        assert further.snapshot() == {}


def test_a_forked_child_goes_on_with_a_copy(engine: MemoryEngine, other: PersistedState) -> None:
    """Where somebody of the parent was in a block, nobody of the child is."""
    handle = PersistedState.__new__(PersistedState)
    for name, value in (("_parent", ops.ROOT), ("_key", None)):
        ops.set_slot(handle, name, value)
    core = store.shared(
        ADDRESS, handle, durability="process", lock_timeout=0, locking="file", read_only=False, engine=engine
    )
    assert store.shared(
        ADDRESS, handle, durability="process", lock_timeout=0, locking="file", read_only=False, engine=engine
    ) is core  # fmt: skip

    def child() -> None:
        assert handle.n == 0
        handle.n = 1
        with handle.transaction():
            handle.n += 1
        assert handle.n == 2

    with handle:
        handle.n = 0
        with other.transaction():
            assert in_child(child) == 0
            with pytest.raises(LockTimeout):
                handle.n = 5
        assert handle.n == other.n == 0
