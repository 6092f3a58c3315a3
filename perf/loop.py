"""Measure for how long an event loop stands still while a program uses a state.

    python -m perf.loop                  a table
    python -m perf.loop --markdown FILE  write the table between its marks in a document
    python -m perf.loop --rounds 3       fewer rounds, to see that it runs

A task notes when it gets its turn. The longest time between two turns, while something is done once, is the time for
which the loop did not run. What is shown is the median: of the rounds, and of a hundred times in each if it is quick.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

from perf.page import parted
from pstate import PersistedState, speed

BEGIN, END = "<!-- written by perf/loop.py: begin -->", "<!-- written by perf/loop.py: end -->"

#: For so many seconds, another process holds the lock.
HELD = 0.5
#: How often something quick is done in a round.
QUICK = 100
#: 25,000 rows are about 1 MB of YAML.
ROWS = 25_000

HOLDER = """
import sys, time
from pstate import PersistedState
with PersistedState(sys.argv[1]) as state, state.transaction():
    print("in", flush=True)
    time.sleep(float(sys.argv[2]))
"""


@dataclass(frozen=True)
class Case:
    """Something that a program does with a state. *prepare* gives the function that does it, and undoes the rest."""

    name: str
    prepare: Callable[[Path], contextlib.AbstractContextManager[Callable[[], Any]]]
    times: int = 1  #: how often in a round


@contextlib.contextmanager
def nothing(folder: Path) -> Iterator[Callable[[], Any]]:
    yield lambda: None


@contextlib.contextmanager
def read(folder: Path) -> Iterator[Callable[[], Any]]:
    with PersistedState(folder / "read.yaml", counter=0) as state:
        warm(state)
        yield lambda: state.counter


@contextlib.contextmanager
def change(folder: Path) -> Iterator[Callable[[], Any]]:
    with PersistedState(folder / "change.yaml", counter=0) as state:
        warm(state)
        yield lambda: state.__setitem__("counter", state.counter + 1)


@contextlib.contextmanager
def change_with_power(folder: Path) -> Iterator[Callable[[], Any]]:
    with PersistedState.open(folder / "power.yaml", defaults={"counter": 0}, durability="power") as state:
        warm(state)
        yield lambda: state.__setitem__("counter", state.counter + 1)


@contextlib.contextmanager
def ten_sets(folder: Path) -> Iterator[Callable[[], Any]]:
    with PersistedState(folder / "ten.yaml", counter=0) as state:
        warm(state)

        def work() -> None:
            with state.transaction():
                for number in range(10):
                    state[number] = time.perf_counter()

        yield work


@contextlib.contextmanager
def opened(folder: Path) -> Iterator[Callable[[], Any]]:
    path = written(folder)
    states: list[PersistedState] = []
    try:
        yield lambda: states.append(PersistedState(path))
    finally:
        for state in states:
            state.close()


@contextlib.contextmanager
def vacuumed(folder: Path) -> Iterator[Callable[[], Any]]:
    with PersistedState(written(folder)) as state:
        state["rows"][0]["tries"] += 1
        yield state.vacuum


@contextlib.contextmanager
def held(folder: Path) -> Iterator[Callable[[], Any]]:
    path = folder / "held.yaml"
    with PersistedState(path, counter=0) as state:
        command = [sys.executable, "-c", HOLDER, str(path), str(HELD)]
        with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == b"in\n"
            yield lambda: state.__setitem__("counter", 1)


def warm(state: PersistedState) -> None:
    """Do what is done once: the first change of a file writes its base marker, too."""
    for _ in range(100):
        with state.transaction():
            state["counter"] += 1
        state["counter"] += 1


def written(folder: Path) -> Path:
    """A closed file of about 1 MB."""
    path = folder / "large.yaml"
    if not path.exists():
        with PersistedState(path) as state:
            state["rows"] = [{"name": f"row {number}", "tries": 0, "done": False} for number in range(ROWS)]
    return path


CASES = [
    Case("nothing: the noise of the machine", nothing, QUICK),
    Case("`state.counter`, read", read, QUICK),
    Case("`state.counter += 1`", change, QUICK),
    Case('`state.counter += 1` with `durability="power"`', change_with_power, QUICK),
    Case("a transaction of ten sets", ten_sets, QUICK),
    Case("open a file of 1 MB", opened),
    Case("vacuum a file of 1 MB", vacuumed),
    Case(f"a change, while another process holds the lock for {HELD:g} s", held),
]


async def stand_still(work: Callable[[], Any], times: int, in_thread: bool) -> list[float]:
    """For how many seconds other tasks get no turn while *work* is done, on the loop or by `asyncio.to_thread`."""
    worst, is_done = 0.0, False

    async def tick() -> None:
        nonlocal worst
        last = time.perf_counter()
        while not is_done:
            await asyncio.sleep(0)
            now = time.perf_counter()
            worst, last = max(worst, now - last), now

    await asyncio.to_thread(int)  # starts the thread
    ticking = asyncio.create_task(tick())
    found = []
    for _ in range(times):
        await asyncio.sleep(0)
        worst = 0.0
        if in_thread:
            await asyncio.to_thread(work)
        else:
            work()
        await asyncio.sleep(0)
        found.append(worst)
    is_done = True
    await ticking
    return found


def measured(case: Case, folder: Path, rounds: int, in_thread: bool) -> float:
    """The median of all times."""
    found: list[float] = []
    for _ in range(rounds):
        with case.prepare(folder) as work:
            found += asyncio.run(stand_still(work, case.times, in_thread))
    return statistics.median(found)


def told(seconds: float) -> str:
    return f"{seconds * 1e3:.2g} ms" if seconds < 0.0995 else f"{seconds * 1e3:.0f} ms"


def table(rounds: int) -> str:
    """The results for a document."""
    flavour = "compiled" if speed.compiled else "pure Python"
    lines = [
        f"`python -m perf.loop --rounds {rounds}` on {date.today()}, CPython {platform.python_version()}, "
        f"{platform.system()}, {os.cpu_count()} cores; {flavour}:",
        "",
        "| | on the loop | in `asyncio.to_thread` |",
        "|---|---:|---:|",
    ]
    with tempfile.TemporaryDirectory() as name:
        for case in CASES:
            blocked, beside = (measured(case, Path(name), rounds, in_thread) for in_thread in (False, True))
            lines.append(f"| {case.name} | {told(blocked)} | {told(beside)} |")
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, prog="python -m perf.loop"
    )
    parser.add_argument("--rounds", type=int, default=15, help="how often each is measured (default: %(default)s)")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="write the table into this document")
    options = parser.parse_args(arguments)
    before, after = "", ""
    if options.markdown is not None:
        try:
            before, _, after = parted(options.markdown.read_text(encoding="utf-8"), BEGIN, END)
        except ValueError as error:
            raise SystemExit(f"{options.markdown}: {error}. Nothing was written.") from None
    text = table(options.rounds)
    print(text)
    if options.markdown is not None:
        options.markdown.write_text(f"{before}{BEGIN}\n\n{text}\n\n{END}{after}", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
