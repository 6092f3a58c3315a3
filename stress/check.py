"""What a check is: it tries to break one promise, counts what it tried, and keeps the evidence when it succeeds.

A check is a function that gets a `Trial`. It goes on while `trial.goes_on()`, draws all chance from `trial.random`,
works in `trial.folder`, counts what it tries with `trial.count(...)`, and raises `BrokenPromise` when a promise broke.
The folder is kept then, and deleted otherwise. A round is short: a check that does not stop soon after its time is over
is stopped.
"""

from __future__ import annotations

import contextlib
import logging
import os
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from random import Random


class BrokenPromise(AssertionError):
    """A promise of docs/guarantees.md did not hold. The message tells which, and the schedule that showed it."""


@dataclass
class Trial:
    """One run of one check."""

    seed: int
    seconds: float  #: how long it may take, about
    folder: Path  #: its own, empty at the beginning
    report: Callable[[Trial], None] = lambda trial: None  #: called when there is progress to show
    url: str = ""  #: a server for the checks that need one; without it, each starts its own
    counts: Counter[str] = field(default_factory=Counter)  #: what was tried: plural noun -> how many
    figures: dict[str, str] = field(default_factory=dict)  #: what was measured: name -> value with its unit
    #: For a table of its own: scenario, switches, distinct states, schedules, states of the medium after a power cut.
    rows: list[tuple[str, str, int, int, int]] = field(default_factory=list)
    unfinished: list[str] = field(default_factory=list)  #: what there was no time for, of what could be completed
    started: float = field(default_factory=time.monotonic)
    seen: float = field(default_factory=time.monotonic)  #: when it last gave a sign of life
    _reported: float = 0.0

    def __post_init__(self) -> None:
        self.random = Random(self.seed)

    @property
    def until(self) -> float:
        """When its time is over, by the monotonic clock, which all processes share."""
        return self.started + self.seconds

    @property
    def left(self) -> float:
        """Seconds that are left; never negative."""
        return max(0.0, self.until - time.monotonic())

    def goes_on(self) -> bool:
        """Whether there is time for one more round. Shows the progress so far."""
        self._show(0.1)
        return self.left > 0

    def count(self, what: str, number: int = 1) -> None:
        """Note that *number* more of *what* (a plural noun) were tried."""
        self.counts[what] += number
        self._show(0.5)

    def expect(self, condition: object, message: str) -> None:
        """Raise BrokenPromise with *message* unless *condition* holds."""
        if not condition:
            raise BrokenPromise(message)

    def _show(self, pause: float) -> None:
        now = self.seen = time.monotonic()
        if now - self._reported >= pause:
            self._reported = now
            self.report(self)


def nothing(url: str) -> str:
    """Nothing is missing."""
    return ""


@dataclass(frozen=True)
class Check:
    """A check by its name."""

    name: str
    promise: str  #: what it tries to break, in a sentence
    function: Callable[[Trial], None]
    share: float  #: of the time of a run, beside others
    #: With the URL of a server, or "": why the check cannot be tried here; "" if it can.
    missing: Callable[[str], str] = nothing


CHECKS: dict[str, Check] = {}


def check(
    name: str, promise: str, share: float = 1.0, missing: Callable[[str], str] = nothing
) -> Callable[[Callable[[Trial], None]], Callable[[Trial], None]]:
    """Register the function below as the check *name*."""

    def register(function: Callable[[Trial], None]) -> Callable[[Trial], None]:
        CHECKS[name] = Check(name, promise, function, share, missing)
        return function

    return register


def rounds(trial: Trial, name: str, one: Callable[[Trial, Path], None]) -> None:
    """Go on with rounds of *one*, each on the path of a state in a folder *name* that is empty at its beginning."""
    with logged(trial.folder):
        while trial.goes_on():
            folder = trial.folder / name
            folder.mkdir(exist_ok=True)
            one(trial, folder / "state.yaml")
            for leftover in folder.iterdir():
                leftover.unlink()


def log_to(folder: Path) -> None:
    """What pstate logs is evidence, and nothing for the terminal: torn tails are daily bread here."""
    logger = logging.getLogger("pstate")
    handler = logging.FileHandler(folder / "log.txt")
    handler.setFormatter(logging.Formatter(f"%(asctime)s {os.getpid()} %(levelname)s %(message)s"))
    logger.addHandler(handler)
    logger.propagate = False


@contextlib.contextmanager
def logged(folder: Path) -> Iterator[None]:
    """The same for the process of the check, until the end of the block."""
    logger = logging.getLogger("pstate")
    before, propagates = list(logger.handlers), logger.propagate
    log_to(folder)
    try:
        yield
    finally:
        for handler in [each for each in logger.handlers if each not in before]:
            logger.removeHandler(handler)
            handler.close()
        logger.propagate = propagates
