"""The checks that simulate: every schedule of small scenarios, and random schedules of large ones.

No other check can try a kill, a failing call or a power cut in *every* state: on a real machine, most states last for
microseconds. The price is a model: what a disk may lose is what `pstate.testing.disk` says.
"""

from __future__ import annotations

import multiprocessing
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import replace
from queue import Empty, SimpleQueue
from typing import Any, NamedTuple

from stress.check import BrokenPromise, Trial, check
from stress.simulated.explore import Tally, explore
from stress.simulated.scenarios import SCENARIOS
from stress.simulated.wander import wander

#: One for each core of a small machine; each takes the next task when it has done one.
WORKERS = 2

#: How much is tried of each scenario before any gets more, and how many times as much each gets then. So smaller ones
#: come first, and nobody has to say which these are: what is begun again costs less than half of what is completed.
FIRST, FACTOR = 50, 4

#: How long a worker has to come to an end when the time is over, in seconds; SHORTENING is a part of it.
PATIENCE = 3.0

#: How long a failure that is found in the last moment is made shorter, in seconds.
SHORTENING = 2.0


class Task(NamedTuple):
    """A scenario to be explored, as far as *work* and the time, *until*, go."""

    number: int
    whole: bool  #: without its limit of switches
    work: int
    until: float

    def scenario(self) -> Any:
        scenario = SCENARIOS[self.number]
        return replace(scenario, switches=None) if self.whole else scenario


def explored(task: Task) -> tuple[Task, Tally, str]:
    """What was tried, and how it failed."""
    try:
        tally = explore(task.scenario(), lambda tally: tally.work < task.work and time.monotonic() < task.until)
        return task, tally, ""
    except BrokenPromise as failure:
        return task, Tally(), str(failure)


@check("schedules", "A kill or a power cut in any state of any schedule of a small scenario loses nothing.", share=20)
def schedules(trial: Trial) -> None:
    numbers = range(len(SCENARIOS))
    found = _completed([Task(number, False, FIRST, trial.until) for number in numbers], trial)
    if len(found) == len(SCENARIOS) and all(tally.is_complete for tally in found.values()):
        limited = [number for number in numbers if SCENARIOS[number].switches is not None]
        wholes = _completed([Task(number, True, FIRST, trial.until) for number in limited], trial)
    else:
        wholes = {}
    for number, scenario in enumerate(SCENARIOS):
        tally, switches = found.get(number, Tally(is_complete=False)), scenario.switches
        if number in wholes and wholes[number].is_complete:
            tally, switches = wholes[number], None
        if tally.is_complete:
            shown = "any" if switches is None else f"≤ {switches}"
            trial.rows.append((scenario.name, shown, tally.states, tally.runs, tally.cuts))
            trial.count("scenarios")
        else:
            trial.unfinished.append(f"{scenario.name} ({tally.states:,} states)")
    # Of what is begun again, what was tried last; of what is not complete, too.
    for tally in [*found.values(), *wholes.values()]:
        trial.count("states", tally.states)
        trial.count("schedules", tally.runs)
        trial.count("power cuts", tally.cuts)


def _completed(tasks: list[Task], trial: Trial) -> dict[int, Tally]:
    """What was tried of each scenario, by its number: all of it where there was time, the smaller ones first.

    Raises BrokenPromise.
    """
    waiting = deque(tasks)
    most: dict[int, Tally] = {}
    for task, tally, failure in _in_workers(explored, waiting, trial):
        if failure:
            name = SCENARIOS[task.number].name
            (trial.folder / f"{name}.txt").write_text(failure)
            raise BrokenPromise(failure)
        if task.number not in most or tally.is_complete or tally.work > most[task.number].work:
            most[task.number] = tally
        if not tally.is_complete and trial.left:
            waiting.append(task._replace(work=task.work * FACTOR))
        trial.figures["of the scenarios, completed"] = f"{sum(each.is_complete for each in most.values())}"
    trial.figures.pop("of the scenarios, completed", None)  # was for those who look on
    return most


def _in_workers(function: Any, tasks: deque[Any], trial: Trial) -> Iterator[Any]:
    """Results of *function* as they come, from processes that end with this one; *tasks* may grow meanwhile.

    Ends when all are done, or soon after the time is over, however long a task takes then.
    """
    with multiprocessing.get_context("forkserver").Pool(WORKERS) as pool:
        results: SimpleQueue[Any] = SimpleQueue()
        running = 0
        while True:
            while tasks and running < WORKERS and trial.left:
                pool.apply_async(function, (tasks.popleft(),), callback=results.put, error_callback=results.put)
                running += 1
            if not running:
                return
            try:
                result = results.get(timeout=0.1)
            except Empty:
                trial.goes_on()  # shows the progress
                if time.monotonic() > trial.until + PATIENCE:
                    return
                continue
            running -= 1
            if isinstance(result, BaseException):
                raise result
            yield result


def wandered(arguments: tuple[int, float]) -> tuple[int, str]:
    """How many plans of this seed were followed until then, and how one failed."""
    seed, until = arguments
    try:
        return wander(seed, lambda number: time.monotonic() < until, until + SHORTENING), ""
    except BrokenPromise as failure:
        return 0, str(failure)


@check(
    "chance",
    "Random programs of 2 to 4 processes, with kills, failing calls, power cuts and editors, lose nothing.",
    share=3,
)
def chance(trial: Trial) -> None:
    seeds = deque((trial.seed + number, trial.until - 0.2) for number in range(WORKERS))
    for number, failure in _in_workers(wandered, seeds, trial):
        if failure:
            (trial.folder / "schedule.txt").write_text(failure)
            raise BrokenPromise(failure)
        trial.count("runs", number)
    trial.figures["runs per second"] = f"{trial.counts['runs'] / max(0.1, trial.seconds):,.0f}"
