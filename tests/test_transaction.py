"""Transactions: all or nothing, savepoints, rollback, what cannot be a transaction."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext, suppress
from typing import Any

import pytest
from tools import homes

from pstate import BypassedError, PersistedState, ReentrantError, RemovedError, TransactionError, store
from pstate.values import same


class Abort(Exception):
    pass


@pytest.fixture
def state(address: str) -> PersistedState:
    return PersistedState(address, a=1, b=1, jobs=[{"id": 1}, {"id": 2}], key={"x": 1, "y": 2})


def records(state: PersistedState) -> int:
    return homes.of(state).commits()


def test_a_block_is_one_record(state: PersistedState) -> None:
    before = records(state)
    with state.transaction():
        state.a = 2
        state.jobs.append(3)
        del state.key["x"]

    assert before + 1 == records(state)


def operations(state: PersistedState) -> list[Any]:
    """The operations of the last record."""
    return homes.of(state).last()


def test_an_item_that_is_set_again_and_again_is_one_operation(state: PersistedState) -> None:
    with state.transaction():
        for number in range(100):
            state.a = number
            state.jobs[1]["id"] += 1
            state["new"] = str(number)

    assert [["set", [], "a", 99], ["set", ["jobs", 1], "id", 102], ["set", [], "new", "99"]] == operations(state)


@pytest.mark.parametrize(
    "change",
    [
        lambda state: state.jobs.insert(0, {"id": 0}),
        lambda state: state.jobs.pop(0),
        lambda state: state.__setitem__("jobs", [{"id": 7}, {"id": 8}]),
        lambda state: state.jobs.__setitem__(1, {"id": 9}),
        lambda state: state.pop("a"),
        lambda state: state.__setitem__("a", {"id": 1}),
        lambda state: state.clear(),
        lambda state: state.update(a=5, jobs=[{"id": 1}, {"id": [2]}]),
    ],
)
def test_what_is_set_around_a_larger_change_comes_in_order(
    state: PersistedState, change: Callable[[PersistedState], object]
) -> None:
    second = state.jobs[1]
    with state.transaction():
        state.a = second["id"] = 20
        change(state)
        state.a = 30
        with suppress(RemovedError):
            second["id"] = 30
        state.a = 40
        second["id"] = 40

    assert same(state.snapshot(), homes.of(state).reopened())
    before = state.snapshot()
    with suppress(Abort), state.transaction():
        state.b = 5
        with suppress(KeyError, AttributeError, IndexError):
            change(state)
        state.b = 6
        raise Abort
    assert list(before.items()) == list(state.snapshot().items())


def test_a_savepoint_keeps_the_value_that_an_item_had_there(state: PersistedState) -> None:
    with state.transaction():
        state.a = 10
        with suppress(Abort), state.transaction():
            state.a = 11
            state.a = 12
            raise Abort
        assert 10 == state.a
        state.a = 11
        assert ["set", [], "a", 11] == state._store.changes.operations[-1]
        with state.transaction():
            state.a = 13
        state.a = 14
        with state.transaction() as inner:
            state.a = 15
            inner.rollback()
        assert 14 == state.a
    assert 14 == state.a
    with suppress(Abort), state.transaction():
        state.a = 15
        with state.transaction():
            state.a = 16
        state.a = 17
        raise Abort
    assert 14 == state.a


def test_a_block_without_changes_writes_nothing(state: PersistedState) -> None:
    before = records(state)
    with state.transaction():
        assert 1 == state.a

    assert before == records(state)


def test_inner_rollback_keeps_the_outer_transactions_changes(state: PersistedState) -> None:
    """An exception that leaves a nested transaction undoes that block only."""
    with state.transaction():
        state.a = 2
        with suppress(Abort), state.transaction():
            state.b = 2
            raise Abort

    assert (2, 1) == (state.a, state.b)


def test_rollback_undoes_the_block_without_an_exception(state: PersistedState) -> None:
    before, count = state.snapshot(), records(state)
    with state.transaction() as block:
        state.a = 2
        del state.jobs[0]
        block.rollback()
        assert before == state
        with pytest.raises(TransactionError):
            state.b = 2

    assert (before, count) == (state, records(state))
    state.b = 3
    assert 3 == state.b


def test_rollback_of_a_savepoint_leaves_the_block_around_it_alive(state: PersistedState) -> None:
    with state.transaction():
        state.a = 2
        with state.transaction() as inner:
            state.b = 2
            inner.rollback()
        state.c = 3

    assert (2, 1, 3) == (state.a, state.b, state.c)


def test_a_block_that_was_rolled_back_stays_so_whatever_ends_inside_of_it(state: PersistedState) -> None:
    """Blocks that begin after the rollback, and end in any way, do not bring it back to life."""
    before, count = state.snapshot(), records(state)
    with state.transaction() as block:
        state.a = 2
        block.rollback()
        with state.transaction() as inner:
            with pytest.raises(TransactionError):
                state.b = 2
            inner.rollback()
        with suppress(Abort), state.transaction():
            raise Abort
        with pytest.raises(TransactionError):
            state.c = 3

    assert (before, count) == (state, records(state))


def test_rolling_back_a_block_around_undoes_the_blocks_inside_of_it(state: PersistedState) -> None:
    with state.transaction():
        state.a = 2
        with state.transaction() as middle:
            state.b = 2
            with state.transaction() as inner:
                state.c = 2
                middle.rollback()
                with pytest.raises(TransactionError):
                    state.c = 3
                inner.rollback()
            with pytest.raises(TransactionError):
                state.c = 3
        state.d = 4

    assert (2, 1, None, 4) == (state.a, state.b, state.get("c"), state.d)


@pytest.mark.parametrize("ending", [nullcontext(), suppress(Abort)], ids=["left", "left by an exception"])
def test_key_order_comes_back_when_a_block_around_was_rolled_back_first(
    state: PersistedState, ending: AbstractContextManager[None]
) -> None:
    """What the inner block remembers of orders is void then."""
    before = list(state)
    with suppress(Abort), state.transaction():
        with state.transaction() as middle:
            del state["a"]
            with ending, state.transaction():
                middle.rollback()
                if isinstance(ending, suppress):
                    raise Abort
        del state["b"]
        state.b = 2
        raise Abort

    assert before == list(state)


def test_a_container_taken_out_comes_back_as_it_was(state: PersistedState) -> None:
    """What was changed after it had been taken out is in no record, so a rollback must undo it too."""
    before = state.snapshot()
    job, jobs = state.jobs[1], state.jobs
    with suppress(Abort), state.transaction():
        taken = state.pop("jobs")
        taken.append("lost?")
        taken[0]["id"] = "lost?"
        raise Abort

    assert before == state
    assert state.jobs is jobs
    job.id = 7
    assert 7 == state.jobs[1].id


def test_key_order_comes_back(state: PersistedState) -> None:
    with suppress(Abort), state.transaction():
        del state["a"]
        state.a = 1
        with suppress(Abort), state.transaction():
            del state["jobs"]
            raise Abort
        assert ["b", "jobs", "key", "a"] == list(state)
        raise Abort

    assert ["a", "b", "jobs", "key"] == list(state)


def test_a_decorated_function_is_one_record_a_call(state: PersistedState) -> None:
    @state.transaction()
    def move(amount: int) -> int:
        state.a -= amount
        state.b += amount
        if state.a < 0:
            raise Abort
        return int(state.a)

    before = records(state)
    assert 0 == move(1)
    with pytest.raises(Abort):
        move(1)
    assert (0, 2, before + 1) == (state.a, state.b, records(state))


def test_a_coroutine_or_generator_cannot_be_a_transaction(state: PersistedState) -> None:
    async def coroutine() -> None: ...

    def generator():  # type: ignore[no-untyped-def]
        yield

    for function in (coroutine, generator):
        with pytest.raises(TransactionError):
            state.transaction()(function)


def test_a_transaction_that_is_under_way_cannot_be_entered_again(state: PersistedState) -> None:
    block = state.transaction()
    with block, pytest.raises(TransactionError), block:
        pass
    with block:
        state.a = 5
    assert 5 == state.a


def test_rollback_outside_of_a_block_is_refused(state: PersistedState) -> None:
    with state.transaction() as block:
        state.a = 2
    with pytest.raises(TransactionError):
        block.rollback()
    assert 2 == state.a


@pytest.mark.parametrize("method", ["close", "vacuum"])
def test_the_state_cannot_be_closed_or_vacuumed_inside_of_a_block(state: PersistedState, method: str) -> None:
    with state.transaction():
        state.a = 2
        with pytest.raises(TransactionError):
            getattr(state, method)()
    assert 2 == state.a


@pytest.mark.parametrize("inside", [False, True], ids=["single change", "in a transaction"])
def test_a_change_round_the_state_is_refused_before_it_spoils_the_file(state: PersistedState, inside: bool) -> None:
    """C code changes a list without a record: the next record would not fit what other processes have."""
    before, count = state.snapshot(), records(state)
    list.append(state.jobs, "raw")
    with pytest.raises(BypassedError), state.transaction() if inside else nullcontext():
        state.jobs.append(3)

    assert (before, count) == (state.snapshot(), records(state))
    state.jobs.append(3)
    assert [*before["jobs"], 3] == state.jobs


@pytest.mark.pure
@pytest.mark.parametrize("changed", [True, False])
def test_what_a_handler_changes_behind_the_commit_of_a_block_is_refused_not_lost(
    state: PersistedState, monkeypatch: pytest.MonkeyPatch, changed: bool
) -> None:
    """A signal comes between the commit and the end of the block: no record would have it any more."""
    commit, refused = store.Store.commit_block, []

    def commit_and_strike(self: store.Store) -> None:
        commit(self)
        try:
            state["late"] = 1
        except ReentrantError as error:
            refused.append(error)

    monkeypatch.setattr(store.Store, "commit_block", commit_and_strike)
    with state.transaction():
        if changed:
            state["a"] = 2

    assert 1 == len(refused)
    assert "late" not in state
    state["late"] = 2
    assert 2 == state["late"]


@pytest.mark.pure
def test_a_rollback_in_the_middle_of_the_commit_is_refused(
    state: PersistedState, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A finalizer calls it. Memory would be undone, and the record written."""
    encode, refused = store.encode_body, []

    def encode_and_roll_back(operations: list[Any]) -> str:
        try:
            block.rollback()
        except ReentrantError as error:
            refused.append(error)
        return encode(operations)

    monkeypatch.setattr(store, "encode_body", encode_and_roll_back)
    with state.transaction() as block:
        state["a"] = 2

    assert 1 == len(refused)
    assert 2 == state["a"]
    state._store.check()


def test_a_transaction_in_which_code_went_round_the_state_is_rolled_back(address: str) -> None:
    state = PersistedState(address, a=1, jobs=[1])
    with pytest.raises(TransactionError):
        with state.transaction():
            state["a"] = 2
            list.append(state["jobs"], 9)
            with pytest.raises(BypassedError):
                state["jobs"].append(3)
    assert {"a": 1, "jobs": [1]} == state.snapshot() == homes.at(address).reopened()
    state.close()
