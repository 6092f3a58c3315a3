"""What each engine promises the store: one set of tests, which the tests of every engine inherit.

Several stores of one address, opened past the registry, are to each other what processes are. How to hold a new engine
to all of this: inherit `Conformance`, say how to make the engine and an address, and name the class ``Test...``.
"""

from __future__ import annotations

import contextlib
import math
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime, timedelta, timezone
from typing import Any

import pytest
from tools.engines import handle_of, opened, store_of
from tools.interrupts import Interrupter, chosen

from pstate import (
    ABSENT,
    ClosedError,
    InvalidStateError,
    LockTimeout,
    MissingPathError,
    PersistedState,
    ReadOnlyError,
    RemovedError,
    TransactionError,
)
from pstate.engine import Engine, Leg, Log, Overtaken, Trail
from pstate.memory import ops
from pstate.store import Store
from pstate.text.records import encode_body
from pstate.values import same

SCALARS = [
    None, True, False, 0, -1, 10**40, 0.0, -0.0, 1.5, 1e300, math.inf, -math.inf, math.nan, "", "a", "yes", "1", " a ",
    "ä", "𝕏", "two\nlines\n", "\x00\x85", "... # pstate", b"", b"\xff\x00", date(1, 1, 1), datetime(2026, 1, 1, 12),
    datetime(2026, 1, 1, 12, 0, 0, 5, UTC), datetime(2026, 1, 1, tzinfo=timezone(timedelta(hours=-3, minutes=-30))),
]  # fmt: skip
CONTAINERS: list[Any] = [
    {}, [], set(), [[]], [{}, [{"k": {1, "a", None}}]], {"a": {1: {True: 1}, None: {2.5: [set()]}}},
    dict.fromkeys(["x", "two words", "", 7, -1.5, None, date(1, 1, 1), b"k"], "value"), {1, 2.5, "s", None, b"m"},
]  # fmt: skip


def _kind(value: Any) -> str:
    return type(value).__name__


def body(*operations: list[Any]) -> str:
    """One record, as an engine is given it."""
    return encode_body(list(operations))


def commit(state: PersistedState, *operations: list[Any]) -> Any:
    """One commit by nothing but the methods of the log; returns the view after it."""
    store = store_of(state)
    log: Log = store.log
    try:
        log.begin(0)
        view = log.commit(body(*operations))
        store.view = None
        store.apply([list(operation) for operation in operations])
        log.publish(view)
    finally:
        log.hold.unlock()
    return view


def told(legs: list[Leg]) -> list[Any]:
    """The states and the records in *legs*, each with its number and origin."""
    found: list[Any] = []
    for leg in legs:
        if leg.state is not None:
            found.append((leg.state, leg.origin))
        found += [(number, leg.origin_of(number), record) for number, record in enumerate(leg.records, leg.before + 1)]
    return found


class Base:
    """How to come by an engine, and by states in it."""

    # What engines may do differently.

    #: False where `freshness` never says that memory is fresh, because somebody has to ask.
    knows_freshness = True
    #: False where each commit is on stable storage when it is acknowledged.
    power_is_asked_for = True
    #: False where the commit of a block lets others go on, before `unlock`.
    unlocks_only_when_told = True
    #: False where `tidy` leaves the journal, because nobody needs it to be short.
    tidying_ends_the_journal = True

    def make_engine(self) -> Engine:
        raise NotImplementedError

    def make_hurried_engine(self) -> Engine:
        """One that waits for nobody, where the engine would wait for people: for tests with hundreds of attempts."""
        return self.make_engine()

    def make_address(self, tmp_path: Any) -> str:
        raise NotImplementedError

    @pytest.fixture
    def engine(self) -> Engine:
        return self.make_engine()

    @pytest.fixture
    def process(self, engine: Engine, tmp_path: Any) -> Iterator[Callable[..., PersistedState]]:
        """Opens the state once more, as another process does."""
        address, states = self.make_address(tmp_path), list[PersistedState]()

        def process(**options: Any) -> PersistedState:
            states.append(opened(options.pop("engine", engine), address, **options))
            return states[-1]

        yield process
        for state in states:
            state.close()

    @pytest.fixture
    def one(self, process: Callable[..., PersistedState]) -> PersistedState:
        return process()

    @pytest.fixture
    def other(self, one: PersistedState, process: Callable[..., PersistedState]) -> PersistedState:
        return process()

    @pytest.fixture
    def trail_of(self) -> Iterator[Callable[..., Trail]]:
        """Begins a trail of a state that is followed to the end of the test."""
        begun: list[tuple[Log, Trail]] = []

        def trail_of(state: PersistedState, history: bool = False) -> Trail:
            log = store_of(state).log
            begun.append((log, log.trail(history)))
            assert log.follow(begun[-1][1]) is log.journal
            return begun[-1][1]

        yield trail_of
        for log, trail in begun:
            log.unfollow(trail)


class Opening(Base):
    """`Engine.log`, `Log.open`, `at_rest`, `rest`, `forget`, and the names of an address."""

    def test_a_log_is_at_rest_until_it_is_opened_and_after_rest(self, one: PersistedState) -> None:
        store = store_of(one)
        assert not store.log.at_rest
        one.n = 1
        store.log.rest()

        assert store.log.at_rest
        assert store.view is None
        assert store.fresh() is None
        assert one.n == 1
        assert not store.log.at_rest

    def test_a_state_begins_empty(self, one: PersistedState, other: PersistedState) -> None:
        assert one.snapshot() == other.snapshot() == {}

    def test_opening_waits_for_no_writer(self, one: PersistedState, process: Any) -> None:
        with one.transaction():
            one.n = 1
            assert process(lock_timeout=0).snapshot() == {}

    def test_what_was_committed_is_there_after_all_have_closed_it(self, process: Any) -> None:
        for number in range(3):
            state = process()
            assert state.get("n", 0) == number
            state.n = number + 1
            state.close()

    def test_what_was_committed_is_there_for_others_while_it_is_open(self, one: PersistedState, process: Any) -> None:
        one.update(n=1, jobs=[{"id": 1}])
        del one.n
        assert process().snapshot() == {"jobs": [{"id": 1}]}

    def test_another_address_is_another_state(self, engine: Engine, one: PersistedState, tmp_path: Any) -> None:
        address = self.make_address(tmp_path)
        further = opened(engine, address + "2")
        further.n = 2
        one.n = 1

        assert further.n == 2
        assert engine.name(address) == engine.name(address)
        assert engine.name(address) != engine.name(address + "2")
        assert store_of(one).log.leads_to(engine.name(address))
        assert not store_of(one).log.leads_to(engine.name(address + "2"))
        further.close()

    def test_an_address_is_for_people(self, one: PersistedState, tmp_path: Any) -> None:
        assert store_of(one).log.address == self.make_address(tmp_path)

    def test_an_engine_is_hashable(self, engine: Engine) -> None:
        assert {engine: 1}[engine] == 1

    def test_read_only_refuses_every_change_and_sees_those_of_others(self, one: PersistedState, process: Any) -> None:
        one.n = 1
        reader = process(read_only=True)
        store = store_of(reader)
        assert store.log.read_only
        assert not store_of(one).log.read_only

        for change in (
            lambda: setattr(reader, "n", 2),
            lambda: reader.update(n=2, m=3),
            lambda: reader.transaction().__enter__(),
            reader.vacuum,
            lambda: store.save({"n": 1}, b"n: 5\n"),
        ):
            with pytest.raises(ReadOnlyError):
                change()
        assert reader.n == 1
        one.n = 4
        assert reader.n == 4

    def test_read_only_begins_no_state(self, process: Any) -> None:
        with pytest.raises(MissingPathError):
            process(read_only=True)
        assert process().snapshot() == {}

    def test_links_that_lead_nowhere_else_change_nothing(self, one: PersistedState, other: PersistedState) -> None:
        one.n = 1
        store_of(one).log.follow_links()
        other.n = 2
        assert one.n == 2

    def test_a_log_can_be_told_to_stay_at_a_name(
        self, engine: Engine, one: PersistedState, other: PersistedState, tmp_path: Any
    ) -> None:
        name = engine.name(self.make_address(tmp_path))
        store_of(one).log.stay_at(name)
        one.n = 1
        assert store_of(one).log.leads_to(name)
        assert other.n == 1

    def test_what_was_forgotten_is_at_rest_and_holds_nothing(self, one: PersistedState, other: PersistedState) -> None:
        one.n = 1
        store_of(one).after_fork()
        assert store_of(one).log.at_rest
        other.n = 2
        assert one.n == 2

    def test_tidying_keeps_the_values(self, one: PersistedState, process: Any) -> None:
        one.update(n=1, s={1, 2})
        for keep_journal in (True, False):
            store_of(one).log.tidy(keep_journal=keep_journal)
            assert same(one.snapshot(), {"n": 1, "s": {1, 2}})
            assert same(process().snapshot(), {"n": 1, "s": {1, 2}})

    def test_tidying_keeps_the_journal_where_it_is_told_to(self, one: PersistedState) -> None:
        one.n = 1
        log = store_of(one).log
        before = log.generation
        log.tidy(keep_journal=True)
        assert log.generation == before
        log.tidy()
        one.refreshed = 1
        assert (log.generation != before) is self.tidying_ends_the_journal

    def test_tidying_waits_for_nobody(self, one: PersistedState, other: PersistedState) -> None:
        one.n = 1
        with one.transaction():
            one.n = 2
            store_of(other).log.tidy()
            assert other.n == 1
        assert other.n == 2


class Commits(Base):
    """`begin`, `commit`, `publish`: the order of commits, and what is new for whom."""

    def test_a_commit_is_the_newest_for_all(self, one: PersistedState, other: PersistedState) -> None:
        for number in range(5):
            one.n = number
            assert other.n == number
            other.m = number
            assert one.m == number

    def test_memory_is_at_the_view_that_was_published(self, one: PersistedState) -> None:
        store = store_of(one)
        before = store.view
        view = commit(one, ["set", [], "n", 1])

        assert view is not before
        assert store.view is view
        assert store.fresh() is (view if self.knows_freshness else None)
        assert one.n == 1

    def test_a_view_is_not_memorys_before_it_is_published(self, one: PersistedState, other: PersistedState) -> None:
        store = store_of(one)
        store.log.begin(0)
        before = store.view
        view = store.log.commit(body(["set", [], "n", 1]))

        assert view is not before
        assert store.view is not view
        store.view = None
        store.log.hold.unlock()
        assert other.n == 1  # it was committed
        assert one.n == 1  # and memory, which was left untrusted, finds out

    def test_no_two_commits_have_the_same_view(self, one: PersistedState) -> None:
        views = [commit(one, ["set", [], "n", number]) for number in range(4)]
        assert len(set(map(id, views))) == 4

    def test_freshness_says_none_as_soon_as_somebody_has_committed(
        self, one: PersistedState, other: PersistedState
    ) -> None:
        store = store_of(one)
        one.n = 0
        before = store.view
        assert store.fresh() is (before if self.knows_freshness else None)
        other.n = 1

        assert store.fresh() is None
        with store.mutex:
            store.log.refresh()
        assert store.view is not before
        assert store.fresh() is (store.view if self.knows_freshness else None)
        assert dict.get(store.root, "n") == 1

    def test_memory_has_no_view_while_an_engine_changes_it(self, one: PersistedState, process: Any) -> None:
        """Or another thread would take what is half changed for fresh."""
        seen: list[str] = []

        class Looking(Store):
            def apply(self, operations: list[Any]) -> None:
                seen.append(f"apply: {self.view}")
                super().apply(operations)

            def adopt(self, state: dict[Any, Any]) -> None:
                seen.append(f"adopt: {self.view}")
                super().adopt(state)

        one.n = 1
        other = process(kind=Looking)
        one.n = 2
        assert other.n == 2
        store_of(one).save({"n": 2}, b"n: 3\n")
        assert other.n == 3
        store_of(other).log.rest()
        assert other.n == 3
        assert set(seen) == {"apply: None", "adopt: None"}

    def test_refresh_changes_nothing_where_nothing_is_new(self, one: PersistedState) -> None:
        one.n = 1
        store = store_of(one)
        view = store.view
        store.log.refresh()
        assert store.view is view

    def test_begin_brings_memory_to_the_newest_commit(self, one: PersistedState, other: PersistedState) -> None:
        other.n = 1
        store = store_of(one)
        for begin in (store.log.begin, store.log.begin_block, store.log.begin_rewrite):
            other.n += 1
            try:
                begin(1)
                with contextlib.suppress(Overtaken):
                    store.log.confirm()
                assert dict.get(store.root, "n") == other.n
            finally:
                store.log.hold.release()

    def test_a_change_is_planned_on_the_newest_state(self, one: PersistedState, other: PersistedState) -> None:
        one.l = []
        for number in range(6):
            (one, other)[number % 2].l.append(number)
        assert one.l == other.l == [0, 1, 2, 3, 4, 5]

    def test_of_two_that_were_planned_on_one_state_only_one_is_committed(
        self, one: PersistedState, other: PersistedState
    ) -> None:
        """Either the second one is excluded, or the first one is overtaken: what was acknowledged is kept."""
        one.n = 0
        log: Log = store_of(one).log
        store_of(other).lock_timeout = 0
        log.begin(0)
        try:
            other.n = "theirs"
        except LockTimeout:
            store_of(one).view = log.commit(body(["set", [], "n", "ours"]))
            store_of(one).view, expected = None, "ours"
        else:
            with pytest.raises(Overtaken):
                log.commit(body(["set", [], "n", "ours"]))
            expected = "theirs"
        finally:
            log.hold.unlock()
        assert one.n == other.n == expected

    def test_threads_of_several_stores_lose_no_change(self, one: PersistedState, other: PersistedState) -> None:
        one.update(n=0, l=[])

        def work(state: PersistedState) -> None:
            store = store_of(state)
            for _ in range(100):
                store.mutate(store.root, lambda root: ([("set", "n", dict.get(root, "n") + 1)], None))
                state.l.append(1)
                with state.transaction():
                    state.n += 1

        threads = [threading.Thread(target=work, args=(state,)) for state in (one, other)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert one.n == other.n == 400
        assert len(one.l) == len(other.l) == 200

    @pytest.mark.parametrize("what", ["plan", "value"])
    def test_a_change_that_is_refused_leaves_all_as_it_was(
        self, one: PersistedState, other: PersistedState, what: str
    ) -> None:
        one.l = [3, 1]
        view = store_of(one).view
        if what == "plan":
            with pytest.raises(IndexError):
                one.l.pop(7)
        else:
            with pytest.raises(TypeError):
                one.l = [object()]
        assert store_of(one).view is view
        assert one.l == other.l == [3, 1]
        other.l.append(4)  # nothing is held
        assert one.l == [3, 1, 4]

    def test_references_stay_right_across_the_commits_of_others(
        self, one: PersistedState, other: PersistedState
    ) -> None:
        one.update(jobs=[{"n": 0}, {"n": 1}, {"n": 2}], d={"s": {1}})
        first, last, members = one.jobs[0], one.jobs[2], one.d.s
        other.jobs.insert(0, {"n": -1})
        other.jobs[3].n = "two"
        other.d.s.add(2)

        assert last.n == "two"
        assert one.jobs[3] is last
        assert members == {1, 2}
        last.n = 2
        del other.jobs[1]
        assert other.jobs == [{"n": -1}, {"n": 1}, {"n": 2}]
        with pytest.raises(RemovedError):
            first.n = 5

    def test_a_renewed_view_is_equal_and_another_object(self, one: PersistedState, other: PersistedState) -> None:
        one.n = 1
        store = store_of(one)
        view = store.view
        renewed = store.log.renewed(view)
        assert renewed == view
        assert renewed is not view

        store.view = renewed
        assert store.fresh() is (renewed if self.knows_freshness else None)
        one.n = 2
        assert other.n == 2

    def test_what_is_held_can_be_given_back_at_any_time(self, one: PersistedState, other: PersistedState) -> None:
        hold = store_of(one).log.hold
        for _ in range(2):
            hold.unlock()
            hold.release()
            hold.drop_lost()
        store_of(one).log.begin(0)
        hold.unlock()
        hold.unlock()
        store_of(other).lock_timeout = 0
        other.n = 1
        assert one.n == 1
        assert store_of(one).log.hold is hold

    def test_giving_back_takes_nothing_from_others(self, one: PersistedState, other: PersistedState) -> None:
        log = store_of(one).log
        log.begin_block(0)
        log.hold.unlock()
        store_of(one).lock_timeout = 0
        with other.transaction():
            log.hold.unlock()
            log.hold.release()
            with pytest.raises(LockTimeout):
                one.n = 1


class Blocks(Base):
    """`begin_block`, `prepare`, and what a transaction makes of them."""

    def test_a_block_excludes_changes_and_blocks_of_others(self, one: PersistedState, other: PersistedState) -> None:
        one.n = 0
        store_of(other).lock_timeout = 0
        with one.transaction():
            for change in (
                lambda: setattr(other, "n", 1),
                lambda: other.update(n=1, m=1),
                lambda: other.transaction().__enter__(),
                other.vacuum,
                lambda: store_of(other).save({"n": 0}, b"n: 5\n"),
            ):
                with pytest.raises(LockTimeout) as caught:
                    change()
                assert caught.value.path == store_of(one).path
            one.n = 7
        assert other.n == one.n == 7
        other.n = 8
        assert one.n == 8

    def test_a_timeout_is_waited_for(self, one: PersistedState, other: PersistedState) -> None:
        with one.transaction():
            for wait in (lambda: other.transaction(timeout=0.05).__enter__(), lambda: setattr(other, "n", 1)):
                store_of(other).lock_timeout = 0.05
                with pytest.raises(LockTimeout) as caught:
                    wait()
                assert 0.05 <= caught.value.waited < 5

    @pytest.mark.parametrize("for_ever", [None, -1])
    def test_others_go_on_when_a_block_ends(self, one: PersistedState, other: PersistedState, for_ever: Any) -> None:
        store_of(other).lock_timeout = for_ever
        one.n = 0
        with one.transaction():
            one.n = 1
            waiting = threading.Thread(target=lambda: other.update(m=2))
            waiting.start()
            assert "m" not in one
        waiting.join()
        assert one.snapshot() == other.snapshot() == {"n": 1, "m": 2}

    def test_nobody_sees_a_block_before_its_end(self, one: PersistedState, other: PersistedState) -> None:
        one.n = 0
        with one.transaction():
            one.n = 1
            one.m = [1]
            assert other.snapshot() == {"n": 0}
        assert other.snapshot() == {"n": 1, "m": [1]}

    def test_a_block_is_one_commit(self, one: PersistedState, other: PersistedState, trail_of: Any) -> None:
        trail = trail_of(other)
        with one.transaction():
            one.n = 1
            one.l = [1]
            one.l.append(2)
        assert other.n == 1
        trail.collect()
        assert told(trail.take()) == [
            (
                1,
                "other",
                [["set", [], "n", 1], ["set", [], "l", [1]], ["insert", ["l"], 1, 2]],
            )
        ]

    def test_a_block_that_changes_nothing_commits_nothing(
        self, one: PersistedState, other: PersistedState, trail_of: Any
    ) -> None:
        one.n = 1
        assert other.n == 1
        trail = trail_of(other)
        with one.transaction():
            assert one.n == 1
        with one.transaction() as transaction:
            one.n = 2
            transaction.rollback()
        assert other.n == one.n == 1
        trail.collect()
        assert trail.take() == []

    def test_an_exception_undoes_a_block(self, one: PersistedState, other: PersistedState) -> None:
        one.update(n=0, l=[1])
        part = one.l
        with pytest.raises(ZeroDivisionError):
            with one.transaction():
                one.n = 1
                part.append(2)
                del one.l
                raise ZeroDivisionError
        assert one.snapshot() == other.snapshot() == {"n": 0, "l": [1]}
        assert one.l is part
        part.append(3)
        assert other.l == [1, 3]

    def test_a_block_inside_is_a_savepoint(self, one: PersistedState, other: PersistedState) -> None:
        with one.transaction():
            one.l = [1]
            with pytest.raises(ZeroDivisionError):
                with one.transaction():
                    one.l.append("undone")
                    raise ZeroDivisionError
            with one.transaction():
                one.l.append(2)
        assert one.l == other.l == [1, 2]

    def test_a_block_after_the_commits_of_others_goes_on_from_those(
        self, one: PersistedState, other: PersistedState
    ) -> None:
        one.n = 0
        for _ in range(3):
            other.n += 1
            with one.transaction():
                one.n += 1
        assert one.n == other.n == 6

    def test_in_a_block_a_record_follows_what_was_prepared(self, one: PersistedState, other: PersistedState) -> None:
        store = store_of(one)
        try:
            store.log.begin_block(0)
            after = store.log.prepare()
            store.view = None  # memory changes from here on
            view = store.log.commit(body(["set", [], "n", 1]), after)
            store.apply([["set", [], "n", 1]])
            store.log.publish(view)
            assert store.view is view
        finally:
            store.log.hold.unlock()
        assert one.n == other.n == 1

    def commit_and_publish(self, store: Store, after: Any) -> Any:
        view = store.log.commit(body(["set", [], "n", 1]), after)
        store.apply([["set", [], "n", 1]])
        store.log.publish(view)
        return view

    def test_a_block_excludes_others_until_it_gives_back_what_it_holds(
        self, one: PersistedState, other: PersistedState
    ) -> None:
        """Also where its record was committed already: a vacuum may come before the end."""
        store = store_of(one)
        store_of(other).lock_timeout = 0
        try:
            store.log.begin_block(0)
            after = store.log.prepare()
            store.view = None
            if self.unlocks_only_when_told:
                view = self.commit_and_publish(store, after)
            for change in (lambda: setattr(other, "n", 2), lambda: other.transaction().__enter__()):
                with pytest.raises(LockTimeout):
                    change()
            if not self.unlocks_only_when_told:
                view = self.commit_and_publish(store, after)
            assert store.view is view
        finally:
            store.log.hold.unlock()
        assert other.n == 1
        other.n = 2
        assert one.n == 2

    def test_a_block_that_is_given_up_is_not_committed(self, one: PersistedState, other: PersistedState) -> None:
        one.n = 0
        store = store_of(one)
        store.log.begin_block(0)
        store.log.prepare()
        store.log.hold.unlock()
        other.n += 1
        assert one.n == other.n == 1


class Values(Base):
    """What is committed is read back as it was: equal values of equal types."""

    @pytest.mark.parametrize("value", SCALARS + CONTAINERS, ids=_kind)
    def test_a_value_comes_back_as_it_was(self, one: PersistedState, process: Any, value: Any) -> None:
        other = process()
        one["v"] = value
        one["nested"] = {"l": [value]}
        expected = {"v": value, "nested": {"l": [value]}}
        assert same(other.snapshot(), expected)
        assert same(process().snapshot(), expected)
        one.vacuum()
        assert same(other.snapshot(), expected)
        assert same(process().snapshot(), expected)

    @pytest.mark.parametrize("key", [scalar for scalar in SCALARS if scalar == scalar], ids=_kind)
    def test_a_key_comes_back_as_it_was(self, one: PersistedState, other: PersistedState, key: Any) -> None:
        one["d"] = {}
        one["d"][key] = 1
        one["d"][key] = 2
        assert same(other.snapshot(), {"d": {key: 2}})
        del other["d"][key]
        assert one.snapshot() == {"d": {}}

    def test_every_operation_comes_to_others(self, one: PersistedState, other: PersistedState) -> None:
        one.update(d={"a": 1, "b": 2}, l=[3, 1, 2], s={1})
        for change in (
            lambda: one.d.update(c=3, a=0),
            lambda: one.d.pop("b"),
            lambda: one.l.insert(1, [5]),
            lambda: one.l.__delitem__(0),
            lambda: one.l.__setitem__(0, {"x": 1}),
            lambda: one.l.extend([9, 8]),
            lambda: one.l.sort(key=str),
            lambda: one.l.__setitem__(slice(1, 3), [7]),
            lambda: one.s.update({2, "a"}),
            lambda: one.s.discard(1),
            lambda: one.update(d={}),
        ):
            change()
            assert same(one.snapshot(), other.snapshot())
            assert [*one.d] == [*other.d]
        assert other.snapshot() == {"s": {2, "a"}, "d": {}, "l": [1, 7, 9, {"x": 1}]}

    def test_the_order_of_keys_is_kept(self, one: PersistedState, process: Any) -> None:
        one.update(z=1, a=2)
        one.m = 3
        one.z = 4
        del one.a
        one.a = 5
        assert [*process()] == [*one] == ["z", "m", "a"]
        one.vacuum()
        assert [*process()] == ["z", "m", "a"]


class Life(Base):
    """`vacuum`, `save`, `settle` and the journal's identity."""

    def test_a_vacuum_keeps_values_and_references(self, one: PersistedState, other: PersistedState) -> None:
        one.update(n=1, jobs=[{"id": 1}], s={1})
        ours, theirs = one.jobs[0], other.jobs[0]
        before = store_of(one).log.journal
        one.vacuum()

        assert store_of(one).log.journal is not before
        assert same(one.snapshot(), {"n": 1, "jobs": [{"id": 1}], "s": {1}})
        assert same(other.snapshot(), one.snapshot())
        theirs.id = 2
        assert ours.id == 2
        ours.id = 3
        assert theirs.id == 3
        assert other.jobs[0] is theirs

    def test_others_come_to_the_new_journal(self, one: PersistedState, other: PersistedState, process: Any) -> None:
        one.n = 0
        for state in (one, other, one, one, other):
            state.vacuum()
            one.n += 1
            other.n += 1
        assert one.n == other.n == process().n == 10

    def test_a_vacuum_in_a_block_is_refused(self, one: PersistedState) -> None:
        with one.transaction():
            with pytest.raises(TransactionError):
                one.vacuum()
            one.n = 1
        assert one.n == 1

    def test_a_vacuum_begins_a_new_generation(self, one: PersistedState, other: PersistedState) -> None:
        log = store_of(one).log
        assert log.generation is None
        one.n = 1
        first = log.generation
        assert isinstance(first, str)
        assert other.n == 1
        assert store_of(other).log.generation == first
        one.n = 2
        assert log.generation == first
        one.vacuum()
        assert log.generation is None
        assert log.records()[0] == {"n": 2}
        one.n = 3
        assert log.generation not in (None, first)

    def test_the_journal_is_the_same_object_until_the_commits_go_elsewhere(self, one: PersistedState) -> None:
        log = store_of(one).log
        one.n = 1
        before = log.journal
        one.n = 2
        with one.transaction():
            one.n = 3
        assert log.journal is before
        one.vacuum()
        assert log.journal is not before

    def test_records_are_the_commits_since_the_last_document(self, one: PersistedState, other: PersistedState) -> None:
        one.n = 1
        one.vacuum()
        other.l = []
        one.l.append({"x": 1})
        document, records = store_of(one).log.records()
        assert document == {"n": 1}
        assert list(records) == [[["set", [], "l", []]], [["insert", ["l"], 0, {"x": 1}]]]

    def test_records_are_those_of_the_moment_when_they_were_asked_for(self, one: PersistedState) -> None:
        one.n = 1
        _, records = store_of(one).log.records()
        one.n = 2
        assert list(records) == [[["set", [], "n", 1]]]

    @pytest.mark.parametrize("commits_first", [True, False])
    def test_power_counts_from_when_somebody_asks_for_it(self, one: PersistedState, commits_first: bool) -> None:
        store = store_of(one)
        if commits_first:
            one.n = 0
            assert store.log.promises_power is not self.power_is_asked_for
        assert not store.log.settles
        store.log.stricter()
        store.fresh = store.log.freshness()

        assert store.log.settles
        one.n = 1
        one.n = 2
        assert one.n == 2
        assert store.view is not None
        assert store.fresh() is (store.view if self.knows_freshness else None)
        store.log.settle(store.view)
        store.log.settle_what_is_read(store.view)
        assert commits_first or store.log.promises_power

    def test_a_reader_never_settles(self, one: PersistedState, process: Any) -> None:
        one.n = 1
        log = store_of(process(read_only=True, durability="power")).log
        assert not log.settles
        log.stricter()
        assert not log.settles

    def test_with_power_all_is_as_without(self, process: Any) -> None:
        one, other = process(durability="power"), process()
        assert store_of(one).log.settles
        with one.transaction():
            one.n = 1
        one.n += 1
        assert store_of(one).log.promises_power
        other.n += 1
        assert one.n == 3
        assert store_of(one).log.promises_power is not self.power_is_asked_for

    def test_a_save_becomes_the_state(self, one: PersistedState, other: PersistedState) -> None:
        one.update(n=1, l=[1])
        assert store_of(one).save({"n": 1, "l": [1]}, b"n: 2  # by hand\nnew: {}\n") == []
        assert one.snapshot() == other.snapshot() == {"n": 2, "new": {}}
        other.new.x = 1
        assert one.new == {"x": 1}

    def test_a_save_is_merged_with_what_was_committed_since(self, one: PersistedState, other: PersistedState) -> None:
        one.update(edited=0, ours=0, both=0, l=[1])
        original, part = one.snapshot(), other.l
        other.update(ours=1, both="ours")
        other.l.append(2)
        lost = store_of(one).save(original, b"edited: 5\nours: 0\nboth: edit\nl: [1]\n")

        assert one.snapshot() == other.snapshot() == {"edited": 5, "ours": 1, "both": "edit", "l": [1, 2]}
        assert lost == ["state.both was 'ours'"]
        assert other.l is part
        part.append(3)
        assert one.l == [1, 2, 3]

    def test_a_save_that_is_not_a_state_changes_nothing(self, one: PersistedState, other: PersistedState) -> None:
        one.n = 1
        for text in (b"[1, 2]\n", b"n: [1\n", b"a: 1\na: 2\n"):
            with pytest.raises(InvalidStateError):
                store_of(one).save({"n": 1}, text)
        assert one.snapshot() == other.snapshot() == {"n": 1}
        other.n = 2
        assert one.n == 2

    def test_a_closed_state_is_closed_for_one_and_not_for_others(
        self, one: PersistedState, other: PersistedState
    ) -> None:
        second = handle_of(store_of(one))
        one.n = 1
        one.close()
        with pytest.raises(ClosedError):
            one.n = 2
        second.n += 1
        assert other.n == 2
        second.close()
        other.n = 3
        assert other.n == 3


class Past(Base):
    """`trail`, `follow` and what watches and histories make of them."""

    def test_a_trail_tells_each_record_with_its_number_and_origin(
        self, one: PersistedState, other: PersistedState, trail_of: Any
    ) -> None:
        one.n = 1
        trail = trail_of(one)
        one.n = 2
        other.n = 3
        assert one.n == 3
        one.n = 4

        assert trail.collect() >= 1
        assert told(trail.take()) == [
            (2, "here", [["set", [], "n", 2]]),
            (3, "other", [["set", [], "n", 3]]),
            (4, "here", [["set", [], "n", 4]]),
        ]
        assert trail.take() == []

    def test_a_trail_with_history_begins_at_the_document(
        self, one: PersistedState, other: PersistedState, trail_of: Any
    ) -> None:
        one.n = 1
        other.n = 2
        assert one.n == 2
        trail = trail_of(one, history=True)
        one.n = 3
        assert told(trail.take()) == [
            (1, None, [["set", [], "n", 1]]),
            (2, None, [["set", [], "n", 2]]),
            (3, "here", [["set", [], "n", 3]]),
        ]

    def test_so_many_notes_are_taken_as_are_asked_for(self, one: PersistedState, trail_of: Any) -> None:
        trail = trail_of(one)
        one.n = 1
        count = trail.collect()
        one.n = 2
        assert told(trail.take(count)) == [(1, "here", [["set", [], "n", 1]])]
        assert trail.take(0) == []
        assert told(trail.take()) == [(2, "here", [["set", [], "n", 2]])]

    def test_nothing_is_noted_beyond_what_memory_has_seen(
        self, one: PersistedState, other: PersistedState, trail_of: Any
    ) -> None:
        trail = trail_of(one)
        other.n = 1
        assert trail.collect() == 0
        assert one.n == 1
        assert trail.collect() == 1

    def test_a_watch_tells_every_change_across_vacuums(self, one: PersistedState, other: PersistedState) -> None:
        one.n = 0
        with one.watch("n") as watch:
            for vacuum in (lambda: None, one.vacuum, other.vacuum):
                one.n += 1
                other.n += 1
                vacuum()
            one.n += 1
            changes = watch.poll()
        assert [change.new for change in changes] == [1, 2, 3, 4, 5, 6, 7]
        assert [change.origin for change in changes] == ["here", "other"] * 3 + ["here"]

    def test_a_watch_tells_of_a_save_as_an_edit(self, one: PersistedState, other: PersistedState) -> None:
        one.update(n=0, m=0)
        with one.watch() as ours, other.watch() as theirs:
            store_of(one).save({"n": 0, "m": 0}, b"n: 1\nm: 0\n")
            one.m = 5
            assert other.m == 5
            for watch, origin in ((ours, "here"), (theirs, "other")):
                told = [(change.path, change.old, change.new, change.origin) for change in watch.poll()]
                assert told == [(("n",), 0, 1, "edit"), (("m",), 0, 5, origin)]

    def test_the_history_has_the_commits_since_the_last_vacuum(
        self, one: PersistedState, other: PersistedState
    ) -> None:
        one.n = 0
        one.vacuum()
        one.n = 1
        other.n = 2
        with one.transaction():
            one.update(n=3, m=1)
        told = list(one.history())[-4:]  # an engine may know of earlier ones
        first = told[0].commit
        assert [(change.path, change.old, change.new, change.commit - first, change.origin) for change in told] == [
            (("n",), 0, 1, 0, None),
            (("n",), 1, 2, 1, None),
            (("n",), 2, 3, 2, None),
            (("m",), ABSENT, 1, 2, None),
        ]

    def test_a_watch_waits_for_the_next_change(self, one: PersistedState, other: PersistedState) -> None:
        one.n = 0
        with one.watch("n", timeout=20) as watch:
            thread = threading.Thread(target=lambda: other.update(n=1))
            thread.start()
            assert next(watch).new == 1
            thread.join()


class Interruptions(Base):
    """An exception of a signal handler, at every place where one may come, leaves a state that all agree on."""

    CHANGES: dict[str, Callable[[PersistedState], object]] = {  # noqa: RUF012 - nobody changes it
        "put": lambda state: setattr(state, "n", 1),
        "mutate": lambda state: state.l.append({"x": 1}),
        "block": lambda state: state.transaction()(_in_a_block)(state),
        "vacuum": lambda state: state.vacuum(),
        "save": lambda state: store_of(state).save({"n": 0, "l": []}, b"n: 1\nl: [[]]\n"),
        "refresh": lambda state: state.snapshot(),
        "open": lambda state: (store_of(state).log.rest(), state.snapshot()),
    }

    @pytest.mark.parametrize("what", CHANGES)
    def test_after_an_interrupted_call_all_agree(self, process: Any, what: str) -> None:
        engine = self.make_hurried_engine()
        one, other = process(engine=engine), process(engine=engine)
        change = self.CHANGES[what]

        def prepared() -> None:
            one.update(n=0, l=[])
            one.vacuum()
            other.others = [1]

        prepared()
        counting = Interrupter()
        assert counting.run(lambda: change(one)) is None
        after = one.snapshot()
        for number in chosen(counting.passed, 40, f"{type(self).__name__} {what}"):
            prepared()
            before = other.snapshot()
            interrupter = Interrupter(number)
            error = interrupter.run(lambda: change(one))
            assert isinstance(error, KeyboardInterrupt) or interrupter.swallowed or not interrupter.fired

            seen = other.snapshot()
            assert same(seen, before) or same(seen, after), interrupter.where
            assert same(one.snapshot(), seen), interrupter.where
            part = one.l
            other.l.append("theirs")  # nothing is held
            part.append("ours")
            assert one.l == other.l == [*seen["l"], "theirs", "ours"], interrupter.where
            assert part is one.l
            assert not store_of(one).is_held

    def test_a_record_that_was_committed_and_not_published_is_found(
        self, one: PersistedState, other: PersistedState
    ) -> None:
        one.n = 0
        store = store_of(one)
        for is_block in (False, True):
            (store.log.begin_block if is_block else store.log.begin)(0)
            after = store.log.prepare() if is_block else None
            store.log.commit(body(["set", [], "n", one_more := ops.plain(store.root)["n"] + 1]), after)
            store.view = None
            store.log.hold.unlock()
            assert one.n == other.n == one_more


def _in_a_block(state: PersistedState) -> None:
    state.n = 1
    state.l.append(2)


class Conformance(Opening, Commits, Blocks, Values, Life, Past, Interruptions):
    """All of it."""
