"""A run of the checks ends in its time, whatever a check does, and says what it completed and what it left."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from test_stress import evidence, made_up, trial

from stress import __main__ as frame
from stress.check import BrokenPromise, Trial
from stress.limit import OutOfTime, descendants, limited
from stress.simulated import simulation, wander
from stress.simulated.explore import Failure, Tally, explore
from stress.simulated.faults import FAULTS, planted
from stress.simulated.scenarios import SCENARIOS, named
from stress.simulated.world import Actor, Scenario

__all__ = ["evidence", "made_up", "trial"]

ROOT = Path(__file__).parent.parent


@pytest.fixture(autouse=True)
def little_grace(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(frame, "GRACE", 2.0)
    monkeypatch.setattr("stress.limit.AGAIN", 0.3)


# ------------------------------------------------------------------------------------------- checks that do not stop


def works_on(trial: Trial) -> None:
    """With signs of life, and without an end."""
    while True:
        trial.count("rounds")
        trial.goes_on()
        time.sleep(0.01)


BEGUN: list[subprocess.Popen[bytes]] = []


def waits_for_a_child(trial: Trial) -> None:
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"]) as child:
        BEGUN.append(child)
        child.wait()


def waits_for_a_thread(trial: Trial) -> None:
    threading.Event().wait()


def swallows(trial: Trial) -> None:
    try:
        threading.Event().wait()
    except BaseException:
        threading.Event().wait()  # as what cleans up may


def computes(trial: Trial) -> None:
    while True:
        sum(range(1000))


@pytest.mark.parametrize("check", [waits_for_a_child, waits_for_a_thread, swallows, computes])
def test_a_check_that_hangs_is_stopped_and_named(
    check: Callable[[Trial], None], evidence: Path, made_up: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    made_up("hanging", check)
    made_up("next", lambda trial: trial.count("rounds"))
    began = time.monotonic()

    assert 1 == frame.main(["run", "hanging", "next", "--seconds", "0.4", "--seed", "5"])
    assert time.monotonic() - began < 15
    shown = capsys.readouterr().out
    assert "s were over, and gave no sign of life" in shown
    assert "1 rounds" in shown
    (told,) = evidence.glob("*/hanging/failure.txt")
    assert check.__name__ in told.read_text()
    while BEGUN:
        assert -9 == BEGUN.pop().wait(10)


def test_a_check_that_is_only_slow_is_cut_off(evidence: Path, made_up: Any, capsys: pytest.CaptureFixture[str]) -> None:
    made_up("slow", works_on)

    assert 0 == frame.main(["run", "slow", "--seconds", "0.2"])
    assert "held, cut off" in capsys.readouterr().out
    assert [] == list(evidence.iterdir())


def test_a_check_for_which_there_is_no_time_was_not_tried(
    evidence: Path, made_up: Any, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    page = tmp_path / "page.md"
    page.write_text(f"{frame.BEGIN}\n{frame.END}\n")
    for name in ("first", "second", "third", "last"):
        made_up(name, works_on)

    assert 3 == frame.main(["run", "first", "second", "third", "last", "--seconds", "0.2", "--write", str(page)])
    assert "not tried" in capsys.readouterr().out
    assert "| last | The promise of last. | not tried |  |" in page.read_text()
    assert "| first | The promise of first. | held, cut off |" in page.read_text()


PROGRAM = """
import signal, sys, threading
sys.path.insert(0, ".")
from stress import __main__ as frame
from stress.check import CHECKS, Check

def deaf(trial):
    signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    print("deaf", flush=True)
    threading.Lock().acquire() or threading.Event().wait()
    threading.Event().wait()

frame.load_checks()
frame.GRACE = frame.LAST = 0.5
CHECKS["deaf"] = Check("deaf", "It hears.", deaf, 1.0)
frame.main(["run", "deaf", "--seconds", "0.3"])
"""


def test_a_run_that_cannot_be_stopped_is_killed(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        cwd=ROOT,
        env={**os.environ, "TMPDIR": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )

    assert "deaf\n" in done.stdout
    assert -9 == done.returncode
    assert "The check deaf could not be stopped" in done.stderr


def test_the_watchdog_kills_only_the_run_that_has_begun_it(tmp_path: Path) -> None:
    """Not another process that has its number, nor what all orphans belong to."""
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as stranger:
        program = [sys.executable, str(ROOT / "stress" / "limit.py"), str(stranger.pid), str(time.monotonic() + 1)]
        with subprocess.Popen(program, stdin=subprocess.PIPE) as watchdog:
            assert watchdog.stdin is not None
            watchdog.stdin.write(b"kill\n")
            watchdog.stdin.flush()
            assert 0 == watchdog.wait(30)
        assert stranger.poll() is None
    assert set() == descendants(1)


def test_the_limit_is_that_of_its_block(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(OutOfTime), limited(0.05):
        threading.Event().wait()
    with limited(0.2):
        pass
    time.sleep(0.3)  # nothing may come any more, however long one waits


# ------------------------------------------------------------------------------------------------------- schedules


def slowly(actor: Actor) -> None:
    for number in range(3):
        time.sleep(0.05)
        actor.commit(f"{actor.name}{number}")


SLOW = Scenario("planted: slow", {"a": slowly, "b": slowly}, opened=("a", "b"))


def test_a_slow_scenario_stops_when_its_time_is_over() -> None:
    until = time.monotonic() + 0.5

    tally = explore(SLOW, lambda tally: time.monotonic() < until)
    assert not tally.is_complete
    assert tally.states
    assert time.monotonic() < until + 5


@pytest.mark.parametrize("name", ["increments", "transaction and reader", "saved by rename, a", "power: a new file"])
def test_more_time_goes_on_where_less_has_stopped(name: str) -> None:
    whole = explore(named(name))
    before = Tally()
    for work in range(1, whole.work, max(1, whole.work // 4)):
        tally = explore(named(name), lambda tally, work=work: tally.work < work)
        assert not tally.is_complete
        assert before.states <= tally.states <= whole.states
        assert before.cuts <= tally.cuts <= whole.cuts
        before = tally
    assert whole.is_complete
    assert explore(named(name), lambda tally: tally.work < whole.work + 1) == whole


def test_what_was_completed_and_what_was_left_is_told(trial: Trial, monkeypatch: pytest.MonkeyPatch) -> None:
    began = time.monotonic()
    trial.seconds = 3.0

    simulation.schedules(trial)

    assert time.monotonic() - began < trial.seconds + simulation.PATIENCE + 5
    completed = [row[0] for row in trial.rows]
    left = [each.rpartition(" (")[0] for each in trial.unfinished]
    assert sorted(completed + left) == sorted(scenario.name for scenario in SCENARIOS)
    assert completed
    assert left
    assert trial.counts["scenarios"] == len(completed)
    for name, switches, states, runs, cuts in trial.rows[:3]:
        whole = explore(named(name))
        assert (whole.states, whole.runs, whole.cuts) == (states, runs, cuts), (name, switches)
    told = frame.report([frame.Verdict(frame.CHECKS["schedules"], trial, 3.0)], 5, 3.0)
    assert f"{len(left)} not completed" in told
    assert f"Not completed in this time, and therefore not in the table above: {trial.unfinished[0]}" in told
    assert f"| {left[0]} |" not in told


def test_small_scenarios_are_completed_before_large_ones(trial: Trial, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever their order in the list."""
    sizes = {0: 50_000, 1: 900, 2: 200, 3: 7_000}
    ended: list[int] = []

    def in_turn(function: Any, tasks: Any, trial: Trial) -> Any:
        while tasks:
            task = tasks.popleft()
            done = min(task.work, sizes[task.number])
            if done == sizes[task.number]:
                ended.append(task.number)
            yield task, Tally(states=done, is_complete=done == sizes[task.number]), ""

    monkeypatch.setattr(simulation, "_in_workers", in_turn)
    simulation._completed([simulation.Task(number, False, simulation.FIRST, trial.until) for number in sizes], trial)

    assert [2, 1, 3, 0] == ended


def sleeps(seconds: float) -> float:
    time.sleep(seconds)
    return seconds


def test_a_worker_that_does_not_come_back_is_not_waited_for(trial: Trial, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(simulation, "PATIENCE", 0.5)
    trial.seconds = 30.0  # for the birth of the workers
    began = time.monotonic()
    found = []
    for seconds in simulation._in_workers(sleeps, deque([0.0, 600.0, 0.01, 600.0, 0.0]), trial):
        found.append(seconds)
        trial.seconds = time.monotonic() - trial.started + 0.5  # there is a worker that sleeps, or soon will be

    assert 0.0 in found
    assert 600.0 not in found
    assert time.monotonic() - began < 40


def test_a_failure_that_is_found_late_is_told_although_it_is_long() -> None:
    lock = next(fault for fault in FAULTS if fault.name == "no lock")
    with planted(lock), pytest.raises(Failure) as caught:
        wander.wander(6, lambda number: number < 500, until=0.0)

    assert isinstance(caught.value.__cause__, Failure)
    assert caught.value.steps == caught.value.__cause__.steps


def test_a_check_that_breaks_in_time_breaks(evidence: Path, made_up: Any, capsys: pytest.CaptureFixture[str]) -> None:
    def breaks(trial: Trial) -> None:
        while trial.goes_on():
            time.sleep(0.01)
        raise BrokenPromise("P1: it is broken")

    made_up("breaking", breaks)
    assert 1 == frame.main(["run", "breaking", "--seconds", "0.2"])
    assert "P1: it is broken" in capsys.readouterr().out
