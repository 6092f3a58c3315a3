"""Let 2 to 16 processes increment one number as fast as they can, and prove that every increment counts.

Each process knows how often it came out of its transaction, so the number in the file must be their sum: one too few
is a lost update. Two that read the same number would also show as the same value taken twice, by whom and which, so
each process keeps what it saw: the sum says that something is wrong, the values say where.

The figures are what contention costs: commits per second of all together, the longest time that anybody waited for one
increment, and the share of the slowest process compared with that of the fastest. Nobody promises fairness
(docs/guarantees.md, "Locks"), but everybody must get on at all.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from itertools import pairwise

from stress.check import BrokenPromise, Trial, check, logged
from stress.real.workers import PATIENCE, Address, Crew, Link, expect_tidy, open_state

PROCESSES = [2, 4, 8, 16]
#: About what it takes to have one process more on a busy machine, in seconds.
BIRTH = 0.03


def increment(link: Link, path: Address) -> tuple[list[int], float]:
    """Increment from the first call to the second; returns the values that were reached, and the longest wait."""
    state = open_state(path, lock_timeout=PATIENCE)
    reached: list[int] = []
    longest = 0.0
    link.tell("ready")
    link.hear()
    while not link.is_called():
        began = time.perf_counter()
        with state.transaction():
            state.n += 1
            reached.append(state.n)
        longest = max(longest, time.perf_counter() - began)
    state.close()
    return reached, longest


def one_race(trial: Trial, path: Address, processes: int, seconds: float) -> None:
    with open_state(path, defaults={"n": 0}):
        pass
    with Crew(trial) as crew:
        workers = [crew.start(f"process {n}", increment, path) for n in range(processes)]
        for worker in workers:
            assert worker.hear() == "ready"
        began = time.monotonic()
        for worker in workers:
            worker.tell("go")
        first = workers[0]
        first.pipe.poll(seconds)  # for that long, unless it ends before, which is a failure
        for worker in workers:
            worker.tell("stop")
        took = time.monotonic() - began
        results: list[tuple[list[int], float]] = [worker.result() for worker in workers]
    counts = [len(reached) for reached, _ in results]
    judge(path, [reached for reached, _ in results])
    trial.count("increments", sum(counts))
    trial.count("races")
    longest = max(wait for _, wait in results)
    shown = [f"{sum(counts) / took:,.0f}/s", f"longest wait {longest * 1000:.0f} ms"]
    trial.figures[f"{processes} processes:"] = ", ".join([*shown, f"fairness {min(counts) / max(1, *counts):.2f}"])


def judge(path: Address, reached: list[list[int]]) -> None:
    """Compare the file with what the processes reached. Raises BrokenPromise."""
    with open_state(path) as state:
        n = state.n
    whose: dict[int, int] = {}
    for process, values in enumerate(reached):
        for before, after in pairwise(values):
            if after <= before:
                raise BrokenPromise(f"P7: process {process} reached {after} after {before}")
        for value in values:
            if value in whose:
                raise BrokenPromise(f"P7: process {whose[value]} and process {process} both reached {value}")
            whose[value] = process
    if n != len(whose):
        raise BrokenPromise(f"P5: there were {len(whose)} increments, and the file says {n}")
    expect_tidy(path, {"n": n})


def races(trial: Trial, address: Callable[[int], Address]) -> None:
    """One race for each number of processes, at the *address* for it."""
    for number, processes in enumerate(PROCESSES):
        seconds = trial.left / (len(PROCESSES) - number) - BIRTH * processes
        if number and seconds < 0:
            break  # a short run has no time for so many
        one_race(trial, address(processes), processes, max(0.1, seconds))
        trial.goes_on()


@check("contention", "All increments of many processes count, and every process gets its turn.")
def contention(trial: Trial) -> None:
    def address(processes: int) -> Address:
        folder = trial.folder / f"{processes}"
        folder.mkdir()
        return folder / "state.yaml"

    with logged(trial.folder):
        races(trial, address)
