"""The simulated server finds what is planted, and nothing where nothing is."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

pytest.importorskip("psycopg", reason="psycopg is not installed")

from pstate.rows.log import RowsLog
from pstate.rows.server import Commit, Lost
from stress.check import BrokenPromise
from stress.simulated.server import SCENARIOS, Scenario, explore


@pytest.mark.parametrize("scenario", SCENARIOS[:3], ids=lambda scenario: scenario.name)
@pytest.mark.timeout(200)
def test_every_schedule_of_a_small_scenario_holds(scenario: Scenario) -> None:
    ends, is_complete = explore(scenario)
    assert is_complete
    assert ends > 500


def _no_fence(log: Any, deadline: float) -> None:
    """What an interrupted author has sent is forgotten."""
    log._pending = None


def _not_decided(log: Any) -> None:
    """What an interrupted author has sent is left to the next use."""


def _not_done(log: Any, commit: Commit, deadline: float) -> bool:
    """A commit whose answer was lost is taken for one that was not done."""
    return False


def _done(log: Any, commit: Commit, deadline: float) -> bool:
    """A commit whose answer was lost is taken for one that was done."""
    return True


def _done_again(log: Any, commit: Commit, deadline: float) -> bool:
    """It is done again, and nobody looks whether it was done before."""
    return bool(log._with_lock(lambda _: log._commit_locked(commit, deadline), deadline, deadline))


def _looked_at_without_the_lock(log: Any, commit: Commit, deadline: float) -> bool:
    """A look that does not wait for the lost session says that it was not done, and then that one does it."""
    while True:
        try:
            if log.server.token_of(commit.store, commit.rev + 1, deadline) is None:
                return False
            return bool(log.server.token_of(commit.store, commit.rev + 1, deadline) == commit.token)
        except Lost:
            pass


@pytest.mark.parametrize(
    ("name", "fault", "scenario"),
    [
        ("_fence", _no_fence, "two changes, through a pooler"),
        ("_decide", _not_decided, "two changes, through a pooler"),
        ("_settled", _not_done, "two changes"),
        ("_settled", _done, "two changes"),
        ("_settled", _done_again, "two changes"),
        ("_settled", _looked_at_without_the_lock, "two changes, through a pooler"),
    ],
    ids=lambda each: each.__name__ if callable(each) else each,
)
@pytest.mark.timeout(200)
def test_a_planted_fault_is_caught(
    monkeypatch: pytest.MonkeyPatch, name: str, fault: Callable[..., Any], scenario: str
) -> None:
    monkeypatch.setattr(RowsLog, name, fault)
    with pytest.raises(BrokenPromise, match=r"acknowledged|doubled|refused|interrupted"):
        explore(next(each for each in SCENARIOS if each.name == scenario))
