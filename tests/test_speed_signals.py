"""Exceptions of a signal handler at every moment of the hot path: memory is the file, and no lock is kept.

A process counts in single commits, in transactions and in containers, while another one commits as well, so that it
catches up all the time. A timer strikes at a random moment. Where each action has come to then must be known.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tools.crash import plain_document
from tools.programs import needs_compiled

from pstate import PersistedState, speed, store
from stress.real.workers import die_with_parent, is_locked, read_fresh

ROOT = Path(__file__).parent.parent
PATIENCE = 20.0


class Strike(Exception):
    """What the handler raises; code that goes on after any Exception swallows it."""


class HardStrike(BaseException):
    """What the handler raises otherwise, as KeyboardInterrupt is raised."""


class Counting:
    """The process that is struck."""

    def __init__(self, path: Path, durability: Any) -> None:
        self.path = path
        beginning = {"n": 0, "m": 0, "d": {"k": 0, "l": 0}, "log": [], "other": 0}
        self.state: Any = PersistedState.open(path, defaults=beginning, lock_timeout=PATIENCE, durability=durability)
        self.dice = random.Random(4711)
        self.strikes = self.others = 0
        self.is_armed = False
        self.kind: type[BaseException] = Strike

    def strike(self, *_: object) -> None:
        if self.is_armed:
            self.strikes += 1
            raise self.kind

    def count(self) -> None:
        """Each line is a commit, and so is the block. A strike ends it."""
        state = self.state
        while True:
            state.n += 1
            state["n"] += 1
            with state.transaction():
                state.m += 1
                state.d.k = state.m
                with contextlib.suppress(LookupError), state.transaction():
                    state.m = -1
                    raise LookupError
                state["d"]["l"] = state["m"]
            state.log.append(state.m)
            if len(state.log) > 20:
                state.log.clear()
            assert state.other >= self.others
            self.others = state.other

    def under_fire(self) -> None:
        """Count until a strike ends that. One that a finalizer swallows is followed by another one."""
        self.kind = self.dice.choice([Strike, HardStrike])
        try:
            self.is_armed = True
            signal.setitimer(signal.ITIMER_REAL, 10 ** self.dice.uniform(-5, -2.7), 0.01)
            self.count()
        except (Strike, HardStrike):
            self.is_armed = False
        signal.setitimer(signal.ITIMER_REAL, 0)

    def run(self, seconds: float) -> None:
        sys.unraisablehook = lambda args: None if isinstance(args.exc_value, (Strike, HardStrike)) else hook(args)
        hook = sys.__unraisablehook__
        signal.signal(signal.SIGALRM, self.strike)
        until = time.monotonic() + seconds
        last = 0
        while time.monotonic() < until:
            self.under_fire()
            last = self.judge(last)
        self.state.close()

    def judge(self, last: int) -> int:
        """What must hold after a strike; returns how far the count is."""
        for each in store._each():
            assert not each.mutex._is_owned(), "the lock of the threads is kept"
            assert each.changes is None, "a transaction is open still"
        seen = self.state.snapshot()
        assert seen["n"] >= last, "a commit is lost"
        assert seen["m"] == seen["d"]["k"] == seen["d"]["l"], "a transaction is half done"
        with self.state.transaction():  # waits for the other process, and keeps it out
            memory = self.state.snapshot()
            assert read_fresh(self.path) == memory, "memory is not the file"
        if self.strikes % 10 == 0:
            self.await_other()
        return int(seen["n"])

    def await_other(self) -> None:
        """The other process goes on, so nobody keeps the lock of the file."""
        before, until = self.state.other, time.monotonic() + PATIENCE
        while self.state.other == before:
            assert time.monotonic() < until, "the other process does not get the lock"


@contextlib.contextmanager
def another_process(path: Path, durability: str) -> Iterator[None]:
    """One that commits as long as the block lasts."""
    code = f"import test_speed_signals as t; t.goes_on({str(path)!r}, {durability!r})"
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdout.readline()
        yield
        process.stdin.close()
        assert process.wait(PATIENCE) == 0


def goes_on(path: str, durability: Any) -> None:
    """Commit until standard input ends."""
    die_with_parent()
    state: Any = PersistedState.open(Path(path), lock_timeout=PATIENCE, durability=durability)
    print("here", flush=True)
    while not select.select([0], [], [], 0.0002)[0]:
        state.other += 1
        with state.transaction():
            state.other += 1
    state.close()


def storm(path: str, seconds: float, durability: str) -> None:
    """What the process of a test does. The last line that it prints says what it has tried."""
    counting = Counting(Path(path), durability)
    with another_process(Path(path), durability):
        counting.run(seconds)
    with PersistedState.open(path) as state:
        memory = state.snapshot()
    assert not is_locked(path)
    assert plain_document(Path(path).read_bytes()) == memory
    print(
        json.dumps(
            {"strikes": counting.strikes, "compiled": speed.compiled, "n": memory["n"], "counts": speed.counts()}
        )
    )


@pytest.mark.parametrize("durability", ["process", "power"])
@pytest.mark.parametrize("flavour", ["pure", pytest.param("compiled", marks=needs_compiled)])
def test_a_storm_of_signals_leaves_memory_and_file_one(tmp_path: Path, flavour: str, durability: str) -> None:
    seconds = float(os.environ.get("PSTATE_STORM", "0.7"))
    code = f"import test_speed_signals as t; t.storm({str(tmp_path / 'state.yaml')!r}, {seconds}, {durability!r})"
    environment = {name: value for name, value in os.environ.items() if name != "PSTATE_PURE"}
    environment["PYTHONPATH"] = os.pathsep.join((str(ROOT), str(ROOT / "tests")))
    if flavour == "pure":
        environment["PSTATE_PURE"] = "1"

    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=50, check=False
    )

    assert 0 == done.returncode, done.stderr[-3000:]
    tried = json.loads(done.stdout.splitlines()[-1])
    assert (flavour == "compiled") == tried["compiled"]
    assert 20 < tried["strikes"]
    if flavour == "compiled":
        expected = {"put", "enter", "leave", "put_in_transaction", "catch_up"} - (
            {"put"} if durability == "power" else set()
        )
        assert {name for name in expected if tried["counts"][name][0] == 0} == set()
