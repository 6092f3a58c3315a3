"""Raise exceptions from signal handlers at random moments, and prove that memory and file stay one.

A timer with a random number of microseconds strikes while a program changes the state, enters and leaves transactions,
vacuums, opens and closes. Each action is also carried out on a plain copy of the state. If it came
to its end, the state must be that copy; if it was cut off, that copy or the one from before, and nothing between. The
same must be read by the state itself, by a reader that stays open, by one that opens the file now, and by another
process, which has also been writing meanwhile. And nothing may stay: no lock, no descriptor, no file beside.

The tests interrupt each action at every instruction, one by one. Here is what they cannot have: real signals with the
pauses that they meet in system calls, another writer at the same time, and states that many strikes have left behind.
"""

from __future__ import annotations

import copy
import errno
import gc
import logging
import os
import random
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

from pstate.file import limits
from pstate.store import import_late
from stress.check import BrokenPromise, Trial, check, rounds
from stress.real.workers import PATIENCE, Crew, Ended, Link, expect_tidy, is_locked, open_state, read_fresh

#: How long one program is struck, in seconds, before the next one begins with a new file.
LENGTH = 1.5
#: Vacuums are due after so few bytes in some of the programs.
SMALL_JOURNAL = 4_000


class Strike(Exception):
    """What the handler raises; code that goes on after any Exception swallows it."""


class HardStrike(BaseException):
    """What the handler raises otherwise, as KeyboardInterrupt is raised."""


class Deadline(TimeoutError):
    """What the handler of an alarm raises usually: an OSError, with an errno or without."""


#: What the handler raises, and with which arguments. That comes out of the action, or nothing.
STRIKES: list[tuple[type[BaseException], tuple[Any, ...]]] = [
    (Strike, ()),
    (HardStrike, ()),
    (Deadline, ()),
    (Deadline, (errno.ETIMEDOUT, "the alarm rang")),
    (Deadline, (errno.EIO, "a file of the handler's own cannot be read")),
]
KINDS = tuple({kind for kind, _ in STRIKES})


class Undo(Exception):
    """Leaves a transaction that is not meant to be committed."""


Change = Callable[[Any, int], Any]


def replace_tree(s: Any, k: int) -> None:
    s["tree"] = {"a": {"n": k}, "s": {k}, "l": [[k], {"k": k}]}


def set_slice(s: Any, k: int) -> None:
    s["log"][1:3] = [k, k, k]


def drop_first(s: Any, k: int) -> None:
    del s["log"][: max(1, len(s["log"]) - 5)]


#: Each is one call, and so one commit.
CHANGES: list[Change] = [
    lambda s, k: s.__setitem__("n", k),
    lambda s, k: s["log"].append(k),
    lambda s, k: s["log"].extend([k, {"k": k}, [k]]),
    lambda s, k: s["log"].insert(0, k),
    lambda s, k: s["log"].reverse(),
    set_slice,
    drop_first,
    lambda s, k: s["tree"]["a"].update(n=k, m=[k]),
    lambda s, k: s["tree"]["s"].add(k),
    lambda s, k: s["tree"]["s"].clear(),
    lambda s, k: s["tree"].setdefault(f"x{k % 3}", {"k": k}),
    lambda s, k: s["tree"].pop(f"x{k % 3}", None),
    lambda s, k: s.setdefault(f"y{k % 3}", {"k": [k]}),
    lambda s, k: s.pop(f"y{k % 3}", None),
    lambda s, k: s.update(n=k, m=k),
    replace_tree,
]


def place(frame: FrameType | None) -> str:
    """Where a signal arrived: the innermost calls."""
    calls: list[str] = []
    while frame is not None and len(calls) < 8:
        calls.append(f"{os.path.basename(frame.f_code.co_filename)}:{frame.f_lineno} {frame.f_code.co_name}")
        frame = frame.f_back
    return " < ".join(calls)


class Program:
    """The process that is struck."""

    def __init__(self, link: Link, path: Path, seed: int) -> None:
        self.link = link
        self.path = path
        self.dice = random.Random(seed)
        self.options = {"lock_timeout": PATIENCE, "durability": self.dice.choice(["process", "process", "power"])}
        if self.dice.random() < 0.5:
            limits.JOURNAL_MINIMUM = SMALL_JOURNAL
        self.armed = False
        self.struck = 0
        self.place = ""  #: where the last action was struck
        self.kind, self.arguments = STRIKES[0]
        self.state = open_state(path, **self.options)
        self.reader = open_state(path, read_only=True)
        self.expected: dict[Any, Any] = self.state.snapshot()
        self.others = 0  #: commits of the other process
        self.told = dict.fromkeys(["actions", "strikes", "actions cut off", "of them committed"], 0)

    # the weather

    def strike(self, number: int, frame: FrameType | None) -> None:
        if self.armed:
            self.armed = False
            self.struck += 1
            self.place = place(frame)
            raise self.kind(*self.arguments)

    def under_fire(self, action: Callable[[], Any]) -> bool:
        """Carry out *action* while it is struck; whether it came to its end."""
        dice = self.dice
        delay = 10 ** dice.uniform(-5, -2.7)
        self.kind, self.arguments = dice.choice(STRIKES)
        ended = False
        self.place = ""
        try:
            try:
                self.armed = True
                signal.setitimer(signal.ITIMER_REAL, delay)
                action()
                ended = True
            finally:
                self.armed = False
        except KINDS:
            pass
        while True:
            # The strike may have come before the `finally` could disarm.
            try:
                self.armed = False
                signal.setitimer(signal.ITIMER_REAL, 0)
                return ended
            except KINDS:
                continue

    # what it does

    def step(self, k: int) -> None:
        dice = self.dice
        name = dice.choices(
            ["change", "transaction", "undone", "vacuum", "close", "open", "read"], [10, 10, 3, 2, 2, 1, 2]
        )[0]
        changes = [dice.choice(CHANGES) for _ in range(dice.randrange(1, 5))]
        together = dice.random() < 0.6
        if together:
            self.link.tell(("write", dice.randrange(1, 8)))
        before = copy.deepcopy(self.expected)
        after = copy.deepcopy(self.expected)
        if name == "change":
            changes[0](after, k)
            ended = self.under_fire(lambda: changes[0](self.state, k))
        elif name == "transaction":
            for change in changes:
                change(after, k)
            nested = dice.random() < 0.3
            ended = self.under_fire(lambda: self.transaction(changes, k, nested))
        elif name == "undone":
            ended = self.under_fire(lambda: self.undone(changes, k))
        elif name == "vacuum":
            ended = self.under_fire(self.state.vacuum)
        elif name == "close":
            ended = self.under_fire(self.state.close)
            self.state.close()
            ended = self.under_fire(self.open) and ended
            self.open()
        elif name == "open":
            ended = self.under_fire(self.look)
        else:
            ended = self.under_fire(lambda: (self.state.snapshot(), list(self.state["log"]), self.reader["n"]))
        if together:
            self.link.tell("written?")
            self.others = self.link.hear()
        self.told["actions"] += 1
        self.told["actions cut off"] += not ended
        before["other"] = after["other"] = self.others
        what = f"{name}, step {k}, struck at {self.place or 'no time'}"
        self.judge(what, before, after, ended)
        if k % 10 == 0:
            self.judge_more(what)

    def transaction(self, changes: list[Change], k: int, nested: bool) -> None:
        with self.state.transaction():
            for change in changes:
                change(self.state, k)
            if nested:
                try:
                    with self.state.transaction():
                        self.state["n"] = -1
                        replace_tree(self.state, -1)
                        raise Undo
                except Undo:
                    pass

    def undone(self, changes: list[Change], k: int) -> None:
        try:
            with self.state.transaction():
                for change in changes:
                    change(self.state, k)
                raise Undo
        except Undo:
            pass

    def open(self) -> None:
        self.state = open_state(self.path, defaults={"n": 0}, **self.options)

    def look(self) -> None:
        with open_state(self.path, read_only=self.dice.random() < 0.5, **self.options) as state:
            len(state)

    # what must hold then

    def judge(self, what: str, before: dict[Any, Any], after: dict[Any, Any], ended: bool) -> None:
        if is_locked(self.path):
            raise BrokenPromise(f"P3: after {what}, the lock is still held")
        here = self.state.snapshot()
        if here != after and (ended or here != before):
            was = "ended" if ended else f"cut off, before it {before}"
            raise BrokenPromise(f"P3: {what} ({was}): expected {after}, memory says {here}")
        self.told["of them committed"] += not ended and before != after and here == after
        self.expected = here
        self.compare(f"{what}, a reader that stays open", self.reader.snapshot())
        self.judge_in_thread(what)
        singly = {key: self.state[key] for key in self.state}
        self.compare(f"{what}, key by key", singly)

    def judge_in_thread(self, what: str) -> None:
        """A lock between threads that stays with this one is none for it."""
        seen: list[Any] = []
        thread = threading.Thread(target=lambda: seen.append(self.state.snapshot()), daemon=True)
        thread.start()
        thread.join(PATIENCE)
        if thread.is_alive():
            raise BrokenPromise(f"P3: after {what}, another thread waits for a lock that nobody gives back")
        self.compare(f"{what}, another thread", seen[0])

    def compare(self, who: str, seen: Any) -> None:
        if seen != self.expected:
            raise BrokenPromise(f"P3: after {who}, memory says {self.expected}, seen is {seen}")

    def judge_more(self, what: str) -> None:
        self.compare(f"{what}, who opens the file", read_fresh(self.path))
        self.link.tell("seen?")
        self.compare(f"{what}, another process", self.link.hear())
        self.judge_descriptors(what)

    def judge_descriptors(self, what: str) -> None:
        """Two are open then: of the state and of its reader."""
        found: list[str] = []
        for _ in range(5):
            # Each also knows the file before the last vacuum, until the next commit that no other follows.
            self.state["n"] = self.expected["n"]
            self.reader.snapshot()
            found = self.descriptors()
            if len(found) <= 2:
                return
            gc.collect()  # an exception in a circle of garbage may keep one a while
        raise BrokenPromise(f"P3: after {what}, more is open than the state and its reader: {found}")

    def descriptors(self) -> list[str]:
        """What is open of the file's folder; nothing where the system does not tell."""
        found = []
        for number in os.listdir("/proc/self/fd") if os.path.exists("/proc/self/fd") else []:
            try:
                name = os.readlink(f"/proc/self/fd/{number}")
            except FileNotFoundError:
                continue  # the descriptor of this very listing
            if name.startswith(f"{self.path.parent}{os.sep}"):
                found.append(name)
        return found

    def run(self, seconds: float) -> dict[str, int]:
        # In a finalizer it cannot be raised to anybody, and at the end of a block there is one.
        sys.unraisablehook = lambda args: None if isinstance(args.exc_value, KINDS) else sys.__unraisablehook__(args)
        logging.raiseExceptions = False  # a strike while something is logged is swallowed there
        # An OSError that strikes while Python looks for a module means to it that there is none: ImportError comes out.
        import_late()
        signal.signal(signal.SIGALRM, self.strike)
        until = time.monotonic() + seconds
        k = 0
        while k < 10 or time.monotonic() < until:
            k += 1
            self.step(k)
        self.judge_more("the last step")
        self.reader.close()
        self.state.close()
        if found := self.descriptors():
            raise BrokenPromise(f"P3: after the close, something is still open: {found}")
        self.told["strikes"] = self.struck
        return self.told


def be_struck(link: Link, path: Path, seed: int, seconds: float) -> dict[str, int]:
    return Program(link, path, seed).run(seconds)


def other(link: Link, path: Path) -> None:
    """Another process: commits as often as it is told, and says what it sees."""
    state = open_state(path, lock_timeout=PATIENCE)
    link.tell(None)
    while True:
        message = link.hear()
        if message == "seen?":
            link.tell(state.snapshot())
        elif message == "stop":
            state.close()
            return
        else:
            for _ in range(message):
                with state.transaction():
                    state.other += 1
            link.tell(state.other)


def one_program(trial: Trial, path: Path) -> None:
    beginning = {"n": 0, "log": [], "tree": {"a": {"n": 0}, "s": set(), "l": []}, "other": 0}
    with open_state(path, defaults=beginning):
        pass
    with Crew(trial) as crew:
        neighbour = crew.start("other", other, path)
        neighbour.hear()
        struck = crew.start(
            "struck", be_struck, path, trial.random.randrange(1 << 32), min(LENGTH, max(0.2, trial.left))
        )
        while not isinstance(message := struck.hear(), Ended):
            if message == "written?":
                struck.tell(neighbour.hear())
            elif message == "seen?":
                neighbour.tell(message)
                struck.tell(neighbour.hear())
            else:
                neighbour.tell(message[1])
                trial.count("commits of others meanwhile", message[1])
        neighbour.tell("stop")
        neighbour.result()
    for what, number in message.result.items():
        trial.count(what, number)
    final = read_fresh(path)
    with open_state(path) as state:
        state.last = "word"
    expect_tidy(path, {**final, "last": "word"})
    trial.count("programs")


@check("signals", "An exception of a signal handler leaves a change complete or undone, and memory equal to the file.")
def signals(trial: Trial) -> None:
    rounds(trial, "program", one_program)
