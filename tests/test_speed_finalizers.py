"""Finalizers that run in the middle of a compiled function, as CPython 3.11 runs them at each allocation.

Such a finalizer may use the state: it belongs to the same thread, and so to its transaction.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from pstate import PersistedState, TransactionError, speed
from pstate.errors import ReentrantError
from stress.real.workers import read_fresh

pytestmark = pytest.mark.skipif(not speed.compiled, reason="nothing is compiled here")

#: So many allocations that the garbage collector counts are tried; a call makes fewer.
ALLOCATIONS = 12


class Garbage:
    """A cycle, which only the garbage collector finds."""

    def __init__(self, finalizer: Callable[[], Any]) -> None:
        self.me = self
        self.finalizer = finalizer

    def __del__(self) -> None:
        self.finalizer()


@contextmanager
def at_allocation(number: int, finalizer: Callable[[], Any]) -> Iterator[None]:
    """Let *finalizer* run at that allocation in the block, counted from 0, at which the garbage collector comes."""
    before = gc.get_threshold()
    gc.collect()
    Garbage(finalizer)
    try:
        gc.set_threshold(gc.get_count()[0] + number, 1000, 1000)
        yield
    finally:
        gc.set_threshold(*before)
        gc.collect()


Opened = Callable[[], Any]


@pytest.fixture
def opened(tmp_path: Path) -> Iterator[Opened]:
    """A state with a journal, and with the same content at each call."""
    path = tmp_path / "state.yaml"
    state: Any = PersistedState(path)

    def again() -> Any:
        with state.transaction():
            state.clear()
            state.update(l=[{"n": 0, "d": {"n": 0}}], d={"d": {"n": 0}}, n=0)
        return state

    yield again
    state.close()


MEDDLERS: dict[str, Callable[[Any], Any]] = {
    "the list on the path moves": lambda state: state.l.insert(0, {"n": -1}),
    "the container goes": lambda state: state.l.clear(),
    "all goes": lambda state: state.clear(),
    "the item becomes a container": lambda state: state.l[0].d.update(n=[1]),
    "the item is set": lambda state: state.l[0].d.update(n=-1),
    "the new item is set": lambda state: state.l[0].d.update(new=-1),
    "another item is set": lambda state: state.update(n=-1),
    "the block is rolled back": lambda state: state._store.end_block(state._store.changes, None),
}


def meddling(state: Any, meddler: str) -> Callable[[], None]:
    """What *meddler* does, as far as it can: in the middle of a change nothing can be done to the state."""

    def meddle() -> None:
        with suppress(ReentrantError, LookupError, AttributeError, TransactionError):
            MEDDLERS[meddler](state)

    return meddle


def expect_one_state(state: Any, path: Path) -> None:
    state._store.check()
    assert state.snapshot() == read_fresh(path)


@pytest.mark.parametrize("name", ["n", "new"])
@pytest.mark.parametrize("is_undone", [False, True], ids=["committed", "undone"])
@pytest.mark.parametrize("meddler", MEDDLERS)
def test_in_a_set_in_a_block(opened: Opened, meddler: str, is_undone: bool, name: str, tmp_path: Path) -> None:
    for number in range(ALLOCATIONS):
        state = opened()
        node, before = state.l[0].d, state.snapshot()
        with state.transaction() as block:
            with suppress(TransactionError), at_allocation(number, meddling(state, meddler)):
                node[name] = 1000 + number
            assert not state._store.ended or dict.get(node, name) != 1000 + number
            if is_undone or meddler == "the block is rolled back":
                block.rollback()
                assert state.snapshot() == before
        expect_one_state(state, tmp_path / "state.yaml")


@pytest.mark.parametrize("line", ["state.l[0].d.n = 5", "state.l.append(5)", "state.l[0].d.n", "state.n = 5"])
@pytest.mark.parametrize("meddler", MEDDLERS)
def test_in_a_call_of_its_own(opened: Opened, line: str, meddler: str, tmp_path: Path) -> None:
    code = compile(line, "<line>", "exec")
    for number in range(ALLOCATIONS):
        state = opened()
        with suppress(LookupError, AttributeError):  # for what the finalizer has taken out
            with at_allocation(number, meddling(state, meddler)):
                exec(code, {"state": state})
        expect_one_state(state, tmp_path / "state.yaml")


@pytest.mark.parametrize("meddler", MEDDLERS)
def test_at_the_ends_of_a_block(opened: Opened, meddler: str, tmp_path: Path) -> None:
    for number in range(ALLOCATIONS):
        state = opened()
        block = state.transaction()
        with at_allocation(number, meddling(state, meddler)):
            block.__enter__()
        with suppress(TransactionError):  # it was rolled back
            state.n = 2
        with at_allocation(number, meddling(state, meddler)):
            block.__exit__(None, None, None)
        expect_one_state(state, tmp_path / "state.yaml")


def test_a_block_that_begins_in_another(opened: Opened, tmp_path: Path) -> None:
    """The finalizer has entered one already, or does so within the one that has just begun."""
    for number in range(ALLOCATIONS):
        state = opened()
        first, second = state.transaction(), state.transaction()

        def enter(block: Any = first) -> None:
            with suppress(ReentrantError):
                block.__enter__()

        with at_allocation(number, enter):
            second.__enter__()
        state.n = 5
        entered = [block for block in (first, second) if block._changes is not None]
        assert len({id(block._changes) for block in entered}) == 1
        for block in sorted(entered, key=lambda block: block._mark is None):  # the inner one first
            block.__exit__(None, None, None)
        expect_one_state(state, tmp_path / "state.yaml")
