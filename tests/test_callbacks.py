"""`pstate.on_change`: each change is told once, in order, without a lock, whatever the callback does."""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tools.processes import Crowd, Fork

from pstate import ABSENT, Change, ClosedError, PersistedState, TransactionError, UnreadableError, Watch, on_change

PATIENCE = 20.0


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state.yaml"


@pytest.fixture
def crowd(path: Path) -> Iterator[Crowd]:
    with Crowd(path) as crowd:
        yield crowd


class Told:
    """A callback that keeps what it is told."""

    def __init__(self) -> None:
        self.queue: queue.Queue[Change] = queue.Queue()

    def __call__(self, change: Change) -> None:
        self.queue.put(change)

    def next(self) -> tuple[Any, ...]:
        change = self.queue.get(timeout=PATIENCE)
        return change.path, change.old, change.new, change.origin


def threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "pstate on_change"]


@pytest.fixture(autouse=True)
def _no_thread_stays() -> Iterator[None]:
    yield
    for thread in threads():
        thread.join(PATIENCE)
        assert not thread.is_alive()


def test_changes_are_told_in_their_order_whoever_makes_them(crowd: Crowd) -> None:
    crowd.begin(n=0, jobs=[])
    state, other, told = crowd.open(), crowd.other(), Told()
    state.n = 1  # before: not told
    with on_change(state, None, told):
        state.n = 2
        assert (("n",), 1, 2, "here") == told.next()
        other.run("state['n'] = 3; state['jobs'].append('a')")
        assert (("n",), 2, 3, "other") == told.next()
        assert (("jobs", 0), ABSENT, "a", "other") == told.next()
        state.vacuum()
        crowd.file.write_text("n: 4\njobs: [a]\n")
        assert (("n",), 3, 4, "edit") == told.next()
    assert told.queue.empty()


def test_only_what_is_at_the_path_is_told(path: Path) -> None:
    told = Told()
    with PersistedState(path, jobs=[{"name": "a", "tries": 0}], n=0) as state, on_change(state, "jobs[0].name", told):
        state.n = 1
        state.jobs[0].tries = 1
        state.jobs[0].name = "b"
        assert (("jobs", 0, "name"), "a", "b", "here") == told.next()
        assert told.queue.empty()


def test_an_exception_is_logged_and_ends_nothing(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    told = Told()

    def clumsy(change: Change) -> None:
        told(change)
        1 / (change.new - 1)

    with PersistedState(path, n=0) as state, on_change(state, "n", clumsy):
        state.n = 1
        state.n = 2
        assert [(("n",), 0, 1, "here"), (("n",), 1, 2, "here")] == [told.next(), told.next()]
    (record,) = [record for record in caplog.records if record.levelno >= logging.ERROR]
    assert f"{path}: the callback" in record.getMessage()
    assert "clumsy" in record.getMessage()
    assert "ZeroDivisionError" in record.getMessage()


def test_no_lock_is_held_while_the_callback_runs(path: Path) -> None:
    inside, go_on, told = threading.Event(), threading.Event(), Told()

    def slow(change: Change) -> None:
        told(change)
        inside.set()
        assert go_on.wait(PATIENCE)

    with PersistedState.open(path, defaults={"n": 0, "m": 0}, lock_timeout=1) as state, on_change(state, "n", slow):
        state.n = 1
        assert inside.wait(PATIENCE)
        with state.transaction():
            state.m = 1
            state.n = 2
        go_on.set()
        assert [(("n",), 0, 1, "here"), (("n",), 1, 2, "here")] == [told.next(), told.next()]


def test_a_callback_may_use_the_state_and_end_itself(path: Path) -> None:
    told = Told()

    def count_up(change: Change) -> None:
        told(change)
        with state.transaction():
            state.n += 1
        if state.n == 5:
            subscription.close()

    with PersistedState(path, n=0) as state:
        subscription = on_change(state, "n", count_up)
        state.n = 1
        assert [(n, n + 1) for n in range(4)] == [told.next()[1:3] for _ in range(4)]
        for thread in threads():
            thread.join(PATIENCE)
        assert 5 == state.n
        assert told.queue.empty()


def test_a_transaction_of_another_thread_is_waited_for(path: Path) -> None:
    told = Told()
    with PersistedState(path, n=0) as state, on_change(state, "n", told):
        with state.transaction():
            state.n = 1
            time.sleep(0.1)  # a few looks
            assert told.queue.empty()
            state.n = 2
        assert (("n",), 0, 2, "here") == told.next()
        assert told.queue.empty()


def test_after_close_nothing_is_told(path: Path) -> None:
    told, kept = Told(), Told()
    with PersistedState(path, n=0) as state, on_change(state, "n", kept):
        subscription = on_change(state, "n", told)
        subscription.close()
        subscription.close()
        state.n = 1
        assert (("n",), 0, 1, "here") == kept.next()
        assert told.queue.empty()


def test_the_close_of_the_state_ends_it_after_all_that_was_committed_before(path: Path) -> None:
    told = Told()
    state = PersistedState(path, n=0)
    on_change(state, "n", told)
    for n in range(1, 101):
        state.n = n
    with PersistedState(path):  # the file stays open here
        state.close()
        assert [*range(1, 101)] == [told.next()[2] for _ in range(100)]
        for thread in threads():
            thread.join(PATIENCE)
        assert not threads()


def test_what_the_last_close_finds_is_told_as_well(path: Path) -> None:
    told, begun = Told(), threading.Event()

    def slow(change: Change) -> None:
        begun.set()
        told(change)

    state = PersistedState(path, n=0)
    on_change(state, "n", slow)
    state.n = 1
    assert begun.wait(PATIENCE)
    state.n = 2
    state.close()
    assert [1, 2] == [told.next()[2], told.next()[2]]


def test_a_look_that_fails_is_logged_once_and_tried_again(
    path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    told, failed = Told(), threading.Semaphore(0)
    fails = [True]
    poll = Watch.poll

    def unreliable(self: Watch) -> list[Change]:
        if fails[0]:
            failed.release()
            raise UnreadableError(f"{path}: cannot be read", path=str(path))
        return poll(self)

    with PersistedState(path, n=0) as state:
        monkeypatch.setattr(Watch, "poll", unreliable)
        with on_change(state, "n", told):
            state.n = 1
            for _ in range(3):
                assert failed.acquire(timeout=PATIENCE)
            fails[0] = False
            assert (("n",), 0, 1, "here") == told.next()
    said = [record.getMessage() for record in caplog.records if "could not look" in record.getMessage()]
    assert [f"{path}: on_change could not look for changes. It tries again: {path}: cannot be read"] == said


def test_a_thread_that_waits_for_changes_keeps_no_program_from_its_end(path: Path) -> None:
    with PersistedState(path, n=0) as state, on_change(state, "n", Told()):
        assert [True] == [thread.daemon for thread in threads()]


def test_a_forked_child_has_no_callbacks(path: Path) -> None:
    told = Told()
    with PersistedState(path, n=0) as state, on_change(state, "n", told) as subscription:

        def child() -> list[Any]:
            state.n = 1
            subscription.close()
            return [*threads(), *told.queue.queue]

        assert [] == Fork(child).result()
        assert (("n",), 0, 1, "other") == told.next()


def test_what_cannot_be_watched_is_refused(path: Path) -> None:
    told = Told()
    with PersistedState(path, d={}) as state:
        with pytest.raises(TypeError, match="Pass the state, and the path"):
            on_change(state.d, "x", told)  # type: ignore[arg-type]
        with pytest.raises(TypeError, match="the first argument must be a state"):
            on_change({}, "x", told)  # type: ignore[arg-type]
        with pytest.raises(TypeError, match="the callback must be a function of one argument, not a str"):
            on_change(state, "x", "told")  # type: ignore[arg-type]
        with pytest.raises(ValueError, match="a key is missing here"):
            on_change(state, "a..b", told)
        with pytest.raises(TransactionError), state.transaction():
            on_change(state, "x", told)
    with pytest.raises(ClosedError):
        on_change(state, "x", told)
    assert not threads()
