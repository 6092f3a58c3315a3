"""Measure pstate against `persistedstate`, side by side in one run: interleaved, medians, microseconds of processor
time.

Both survive kill -9 and neither a power cut; pstate also locks, checks and marks every commit, and looks for those of
other
processes before it answers. Processor time, because a busy machine stretches the clock of whoever happens to run then.

    python perftest.py [--rounds N]
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import persistedstate
import yaml

from pstate import PersistedState

COUNT = 10_000


def count_up(kind: Callable[[str], Any], path: Path) -> tuple[float, float]:
    """Microseconds for each `counter += 1` and for each read of it, on a fresh file."""
    state = kind(str(path))
    state.counter = 0
    started = time.process_time()
    for _ in range(COUNT):
        state.counter += 1
    counted = time.process_time()
    for _ in range(COUNT):
        _ = state.counter
    read = time.process_time()
    state.close()
    path.unlink()
    return (counted - started) / COUNT * 1e6, (read - counted) / COUNT * 1e6


def beside(folder: Path, size: int) -> float:
    """Microseconds for each change of one key in a state of about *size* bytes."""
    path = folder / "large.yaml"
    rows = [{"id": number, "name": f"row {number}", "done": False} for number in range(max(1, size // 40))]
    state = PersistedState(path, rows=rows, counter=0)
    state.vacuum()
    state.counter = 0
    started = time.process_time()
    for number in range(COUNT):
        state.counter = number
    took = time.process_time() - started
    state.close()
    path.unlink()
    return took / COUNT * 1e6


def opening(folder: Path) -> tuple[float, float]:
    """Milliseconds to open a closed file of about 1 MB, and for PyYAML's C loader to read it."""
    path = folder / "open.yaml"
    rows = [{"id": number, "name": f"row {number}", "done": False} for number in range(25_000)]
    PersistedState(path, rows=rows).close()
    started = time.process_time()
    PersistedState(path).close()
    opened = time.process_time()
    with path.open("rb") as file:
        yaml.load(file, Loader=yaml.CSafeLoader)
    return (opened - started) * 1e3, (time.process_time() - opened) * 1e3


def median(rounds: list[tuple[float, ...]]) -> tuple[float, ...]:
    return tuple(map(statistics.median, zip(*rounds, strict=True)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rounds", type=int, default=11, help="how often each is measured (default: 11)")
    rounds = parser.parse_args().rounds
    with tempfile.TemporaryDirectory(dir=os.environ.get("PERFTEST_FOLDER")) as name:
        folder = Path(name)
        ours, theirs = [], []
        for _ in range(rounds):
            ours.append(count_up(PersistedState, folder / "ours"))
            theirs.append(count_up(persistedstate.PersistedState, folder / "theirs"))
        for what, a, b in zip(("counter += 1", "read counter"), median(ours), median(theirs), strict=True):
            print(f"{what:14} pstate {a:6.2f} µs   persistedstate {b:6.2f} µs   ratio {a / b:5.2f}")
        growing = median([(beside(folder, 1_000), beside(folder, 1_000_000)) for _ in range(max(1, rounds // 4))])
        print(
            f"one change     in 1 KB {growing[0]:5.2f} µs   in 1 MB {growing[1]:13.2f} µs   ratio "
            f"{growing[1] / growing[0]:5.2f}"
        )
        opened = median([opening(folder) for _ in range(max(1, rounds // 4))])
        print(
            f"open 1 MB      pstate {opened[0]:6.0f} ms   CSafeLoader {opened[1]:9.0f} ms   ratio "
            f"{opened[0] / opened[1]:5.2f}"
        )


if __name__ == "__main__":
    main()
