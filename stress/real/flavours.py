"""The compiled hot path and pure Python do the same: one program in two processes, and both kinds on one file.

Random programs are run by two processes, one of which has the compiled hot path switched off. Both must see the same
values, raise the same errors with the same texts, and leave the same bytes, before and after the close: then a program
cannot tell which of them it uses, and neither can a file.

Between two programs, processes of both kinds count in one file and read it, and are killed at any moment. What they
have acknowledged is compared with what the file says: none is lost, and none is counted twice.
"""

from __future__ import annotations

import json
import os
import random
import select
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import stress
from stress.check import BrokenPromise, Trial, check, logged
from stress.real.grammar import Chance, program
from stress.real.programs import Program
from stress.real.workers import PATIENCE, die_with_parent, expect_tidy, open_state, read_fresh

ROOT = Path(stress.__file__).parent.parent

#: What a process runs before anything else, by whether it is pure: tests plant faults by it.
PRELUDES: dict[bool, str] = {True: "", False: ""}


class Died(BrokenPromise):
    """A process died of a program."""


class Process:
    """A Python process of one flavour, told and heard by lines."""

    def __init__(self, pure: bool, *arguments: str, where: Callable[[], None] | None = None) -> None:
        self.name = "pure" if pure else "compiled"
        # The order of sets must be the same in both.
        own = {"PYTHONPATH": str(ROOT), "PYTHONFAULTHANDLER": "1", "PYTHONHASHSEED": "0"}
        environment = {**os.environ, **own}
        environment.pop("PSTATE_PURE", None)
        if pure:
            environment["PSTATE_PURE"] = "1"
        self._process = subprocess.Popen(
            [sys.executable, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=environment,
            start_new_session=True,  # Ctrl-C is not for it
            preexec_fn=where,  # noqa: PLW1509  # it only ever makes a disk
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._in, self._out = self._process.stdin, self._process.stdout
        self._heard = b""

    @property
    def pid(self) -> int:
        return self._process.pid

    def tell(self, message: Any) -> None:
        try:
            self._in.write(json.dumps(message).encode() + b"\n")
            self._in.flush()
        except BrokenPipeError:
            pass  # `hear` says what it has died of

    def hear(self, limit: float = PATIENCE) -> Any:
        """The next thing that it tells. Raises EOFError when it is dead, and BrokenPromise when it says nothing."""
        while b"\n" not in self._heard:
            if not select.select([self._out], [], [], limit)[0]:
                raise BrokenPromise(f"the {self.name} process {self.pid} did not answer for {limit:.0f} s")
            data = os.read(self._out.fileno(), 1 << 16)
            if not data:
                raise EOFError
            self._heard += data
        line, _, self._heard = self._heard.partition(b"\n")
        return json.loads(line)

    def heard(self) -> list[Any]:
        """What it has told by now, and all that it told until it died, if it is dead."""
        messages = []
        try:
            while b"\n" in self._heard or select.select([self._out], [], [], 0)[0]:
                messages.append(self.hear())
        except EOFError:
            pass
        return messages

    def kill(self) -> None:
        self._process.kill()
        self._process.wait(PATIENCE)

    def code(self) -> int:
        """Wait for an end that is due, and return the exit code."""
        return self._process.wait(PATIENCE)

    def close(self) -> None:
        self._process.kill()
        self._process.wait(PATIENCE)
        self._out.close()
        try:
            self._in.close()
        except BrokenPipeError:
            pass

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


# ---------------------------------------------------------------------- one program, two processes


class Runner:
    """A long-lived process of one flavour that runs programs, each in an empty *folder* of its own."""

    def __init__(self, pure: bool, folder: Path, prelude: str = "", where: Callable[[], None] | None = None) -> None:
        self.pure = pure
        self.folder = folder / ("pure" if pure else "compiled")
        self.folder.mkdir(parents=True, exist_ok=True)
        self._prelude = prelude or PRELUDES[pure]
        self._where = where
        self._begin()

    def _begin(self) -> None:
        self.process = Process(self.pure, "-m", "stress.real.programs", where=self._where)
        self.process.tell({"prelude": self._prelude})
        self.compiled: bool = self.process.hear()

    def run(self, program: Program) -> dict[str, Any]:
        """The results of *program*. Raises Died, and goes on with a new process."""
        self.process.tell({"program": program, "folder": str(self.folder)})
        try:
            answer: dict[str, Any] = self.process.hear()
        except EOFError:
            code = self.process.code()
            self.process.close()
            self._begin()
            raise Died(f"the {self.process.name} process died with {code} of\n{shown(program)}") from None
        return answer

    def close(self) -> None:
        self.process.close()


class Pair:
    """A pure process and a compiled one, if there is one, that must do the same."""

    def __init__(self, folder: Path, where: Callable[[], None] | None = None) -> None:
        self.pure = Runner(True, folder, where=where)
        self.compiled = Runner(False, folder, where=where)

    def compare(self, program: Program) -> dict[str, Any]:
        """Run *program* by both, and return its results. Raises BrokenPromise with the first difference."""
        by_pure, by_compiled = self.pure.run(program), self.compiled.run(program)
        found = difference(by_pure, by_compiled)
        if found:
            raise BrokenPromise(f"{found}\nof\n{shown(program)}")
        return by_compiled

    def smaller(self, program: Program, seconds: float = 3.0) -> Program:
        """*program*, in which the two differ, without the steps that it does not need for that."""
        until = time.monotonic() + seconds
        for number in reversed(range(len(program["steps"]))):
            steps = [step for place, step in enumerate(program["steps"]) if place != number]
            try:
                self.compare({**program, "steps": steps})
            except BrokenPromise:
                program = {**program, "steps": steps}
            if time.monotonic() > until:
                break
        return program

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.pure.close()
        self.compiled.close()


def shown(program: Program) -> str:
    """*program*, to be read and repeated."""
    rest = {name: value for name, value in program.items() if name != "steps"}
    return "\n".join([json.dumps(rest), *map(json.dumps, program["steps"])])


def difference(pure: dict[str, Any], compiled: dict[str, Any]) -> str:
    """The first thing that differs between two answers, with the step that it comes after; nothing if none does."""
    step = ""
    for ours, theirs in zip(pure["log"], compiled["log"], strict=False):
        if ours != theirs:
            return f"after {step}\n  pure:     {ours}\n  compiled: {theirs}"
        if ours.startswith("step "):
            step = ours
    for what in ("log", "memory", "journal", "closed"):
        if pure[what] != compiled[what]:
            return f"in the {what}\n  pure:     {pure[what]!r}\n  compiled: {compiled[what]!r}"
    return ""


# ---------------------------------------------------------------------- both flavours on one file


def count(path: str, name: str, seed: int) -> None:
    """Count in transactions and by single increments, and tell after each, until somebody says stop."""
    die_with_parent()
    state = open_state(Path(path), lock_timeout=PATIENCE)
    dice = random.Random(seed)
    mine, together = f"{name} alone", f"{name} together"
    told(0)
    while not select.select([0], [], [], 0)[0]:
        chance = dice.random()
        if chance < 0.02:
            state.close()
            state = open_state(Path(path), lock_timeout=PATIENCE)
        elif chance < 0.5:
            state[mine] += 1
            told([mine, state[mine]])
        elif chance < 0.55:
            state.log.append(name)
            told(["log", 0])
        else:
            with state.transaction():
                state.n += 1
                state[together] += 1
                state.deep.n = state.n
            told([together, state[together]])
    state.close()


def read(path: str) -> None:
    """Read until somebody says stop. Raises AssertionError when a number becomes smaller, or is half there."""
    die_with_parent()
    state = open_state(Path(path), read_only=True)
    told(0)
    last = reads = 0
    while not select.select([0], [], [], 0)[0]:
        n = state.n
        assert n >= last, f"read {n} after {last}"
        last = n
        reads += 1
        if reads % 50 == 0:
            seen = state.snapshot()
            summed = sum(value for key, value in seen.items() if key.endswith("together"))
            assert seen["n"] == seen["deep"]["n"] == summed, seen
    told(reads)


def told(message: Any) -> None:
    os.write(1, json.dumps(message).encode() + b"\n")


class Counters:
    """Counters of both flavours on one file, and what they have acknowledged."""

    def __init__(self, trial: Trial, path: Path) -> None:
        self.trial = trial
        self.path = path
        self.acknowledged: dict[str, int] = {}
        self.flavours = {"a": True, "b": False, "c": trial.random.random() < 0.5}
        beginning: dict[str, Any] = {"n": 0, "deep": {"n": 0}, "log": []}
        for name in self.flavours:
            for how in ("alone", "together"):
                beginning[f"{name} {how}"] = self.acknowledged[f"{name} {how}"] = 0
        open_state(path, defaults=beginning).close()
        self.writers = {name: self.start(name) for name in self.flavours}
        self.readers = [Process(pure, "-m", __name__, "read", str(path), PRELUDES[pure]) for pure in (True, False)]
        for reader in self.readers:
            reader.hear()

    def start(self, name: str) -> Process:
        seed = str(self.trial.random.randrange(1 << 32))
        pure = self.flavours[name]
        return Process(pure, "-m", __name__, "count", str(self.path), PRELUDES[pure], name, seed)

    def note(self, messages: list[Any]) -> None:
        for message in messages:
            if message:
                key, number = message
                self.trial.count("commits of both flavours")
                if key != "log":
                    self.acknowledged[key] = number

    def judge(self, name: str) -> None:
        """*name* is dead, and has told all that it will ever tell: one commit at most was not acknowledged."""
        seen = read_fresh(self.path)
        ahead = 0
        for how in ("alone", "together"):
            key = f"{name} {how}"
            if not 0 <= seen[key] - self.acknowledged[key] <= 1:
                raise BrokenPromise(f"P5: acknowledged was {key} {self.acknowledged[key]}, the file says {seen[key]}")
            ahead += seen[key] - self.acknowledged[key]
            self.acknowledged[key] = seen[key]
        if ahead > 1:
            raise BrokenPromise(f"P6: {name} has two commits in the file that it did not tell of")
        together = sum(value for key, value in seen.items() if key.endswith("together"))
        if not seen["n"] == seen["deep"]["n"] == together:
            raise BrokenPromise(f"P7: increments were lost or doubled: {seen}")

    def kill(self, name: str) -> None:
        writer = self.writers[name]
        writer.kill()
        self.note(writer.heard())
        writer.close()
        self.judge(name)
        self.trial.count("kills of a counter")
        self.writers[name] = self.start(name)

    def stop(self) -> None:
        """All end by themselves; then the last close leaves one plain document."""
        everybody = [*self.writers.values(), *self.readers]
        for process in everybody:
            process.tell("stop")
        for process in everybody:
            if process.code():
                raise BrokenPromise(f"P8: the {process.name} process ended with {process.code()}, see its traceback")
        for name, writer in self.writers.items():
            self.note(writer.heard())
            self.judge(name)
        for reader in self.readers:
            self.trial.count("reads of both flavours", sum(map(int, reader.heard())))
        with open_state(self.path) as state:
            state.last = "word"
            final = state.snapshot()
        expect_tidy(self.path, final)

    def close(self) -> None:
        for process in (*self.writers.values(), *self.readers):
            process.close()


def count_together(trial: Trial, path: Path, seconds: float) -> None:
    """Let processes of both flavours count for *seconds*, and kill some of them."""
    counters = Counters(trial, path)
    try:
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            # Not a wait for anything: at which moment of a commit the kill comes is left to chance.
            time.sleep(trial.random.random() * 0.2)
            for writer in counters.writers.values():
                counters.note(writer.heard())
            counters.kill(trial.random.choice("abc"))
            trial.goes_on()
        counters.stop()
    finally:
        counters.close()


def compare_one(trial: Trial, pair: Pair) -> None:
    """Compare the results of one random program. Raises BrokenPromise with a small one that shows the difference."""
    drawn = program(Chance(trial.random), trial.random.randrange(5, 200))
    try:
        answer = pair.compare(drawn)
    except BrokenPromise:
        pair.compare(pair.smaller(drawn))
        raise
    trial.count("programs")
    trial.count("steps", sum(line.startswith("step ") for line in answer["log"]))


@check("flavours", "The compiled part and pure Python read, raise and write the same, even on one file.", share=2.0)
def flavours(trial: Trial) -> None:
    with logged(trial.folder), Pair(trial.folder / "programs") as pair:
        trial.figures["compiled"] = "yes" if pair.compiled.compiled else "no: pure beside pure"
        while trial.goes_on() or not trial.counts:
            compare_one(trial, pair)
            until = time.monotonic() + min(10.0, trial.left / 2)
            while time.monotonic() < until:
                compare_one(trial, pair)
            if trial.goes_on():
                folder = trial.folder / "counters"
                folder.mkdir()
                count_together(trial, folder / "state.yaml", min(5.0, trial.left))
                shutil.rmtree(folder)


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    task, where, prelude, *rest = sys.argv[1:]
    exec(prelude, {})
    if task == "count":
        count(where, rest[0], int(rest[1]))
    else:
        read(where)
