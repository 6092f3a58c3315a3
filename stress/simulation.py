"""The checks that simulate: every schedule of small scenarios, and random schedules of large ones.

No other check can try a kill, a failing call or a power cut in *every* state: on a real machine, most states last for
microseconds. The price is a model: what a disk may lose is what `pstate.testing.disk` says.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterator
from dataclasses import replace
from queue import SimpleQueue
from typing import Any

from stress.check import BrokenPromise, Trial, check
from stress.explore import Tally, explore
from stress.scenarios import SCENARIOS
from stress.wander import wander

#: One for each core of a small machine; each takes the next scenario when it has done one.
WORKERS = 2

#: A run that may take so many seconds follows the large scenarios with any number of switches.
WHOLE = 3600


def explored(arguments: tuple[int, bool]) -> tuple[int, Tally, str]:
    """For a scenario's number, and whether without a limit of switches: what was tried, and how it failed."""
    number, whole = arguments
    scenario = SCENARIOS[number]
    if whole:
        scenario = replace(scenario, switches=None)
    try:
        return number, explore(scenario), ""
    except BrokenPromise as failure:
        return number, Tally(), str(failure)


@check("schedules", "a kill or power cut in any state of any schedule of a small scenario loses nothing", share=0)
def schedules(trial: Trial) -> None:
    whole = trial.seconds >= WHOLE
    for number, tally, failure in _in_workers(explored, [(number, whole) for number in range(len(SCENARIOS))], trial):
        scenario = SCENARIOS[number]
        if failure:
            (trial.folder / f"{scenario.name}.txt").write_text(failure)
            raise BrokenPromise(failure)
        switches = "any" if whole or scenario.switches is None else f"≤ {scenario.switches}"
        trial.rows.append((scenario.name, switches, tally.states, tally.runs, tally.cuts))
        trial.count("scenarios")
        trial.count("states", tally.states)
        trial.count("schedules", tally.runs)
        trial.count("power cuts", tally.cuts)


def _in_workers(function: Any, arguments: Any, trial: Trial) -> Iterator[Any]:
    """Results of *function* as they come, from processes that end with this one."""
    with multiprocessing.get_context("forkserver").Pool(WORKERS) as pool:
        results: SimpleQueue[Any] = SimpleQueue()
        jobs = [
            pool.apply_async(function, (each,), callback=results.put, error_callback=results.put) for each in arguments
        ]
        for _ in jobs:
            while results.empty():
                jobs[0].wait(0.2)
                trial.goes_on()  # shows the progress
            result = results.get()
            if isinstance(result, BaseException):
                raise result
            yield result


def wandered(arguments: tuple[int, float]) -> tuple[int, str]:
    """How many plans of this seed were followed in that many seconds, and how one failed."""
    import time

    seed, seconds = arguments
    until = time.monotonic() + seconds
    try:
        return wander(seed, lambda number: time.monotonic() < until), ""
    except BrokenPromise as failure:
        return 0, str(failure)


@check(
    "chance",
    "random programs of 2 to 4 processes, with kills, failing calls, power cuts and editors, lose nothing",
    share=3,
)
def chance(trial: Trial) -> None:
    seeds = [(trial.seed + number, max(0.1, trial.left - 0.5)) for number in range(WORKERS)]
    for number, failure in _in_workers(wandered, seeds, trial):
        if failure:
            (trial.folder / "schedule.txt").write_text(failure)
            raise BrokenPromise(failure)
        trial.count("runs", number)
    trial.figures["runs per second"] = f"{trial.counts['runs'] / max(0.1, trial.seconds):,.0f}"
