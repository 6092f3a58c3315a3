"""Watch one number in many processes while others count it up, vacuum, close, are killed, and a person saves the file.

The number grows by 1 in each transaction. So a watch must tell every value exactly once and in order, each with the one
before it; one that is missing, told twice or told as a jump shows at once, to every watch, without knowing what the
others did. Some watch in a process that counts too, some in one that only reads; some ask all the time, some so seldom
that the thread of the watch has to keep it all; some watch the one value, some the whole state. Some are stopped for
less than `WATCHERS_AT_MOST`, and must miss nothing by it; some are killed, and must keep nobody: each vacuum is timed.

On other days a person saves a value of his own, with the lock of the file, as ``flock FILE sed -i`` does. It must be
told once, as an edit. A commit to the old file within `LOOK_INTERVAL` is merged with the save: then an
edit, and nothing else, may take commits back and bring them again (docs/guarantees.md, "Watching"). The chain holds.
"""

from __future__ import annotations

import fcntl
import os
import random
import signal
import threading
import time
from pathlib import Path
from typing import Any

from pstate import Change, StateFileError
from pstate.file.vacuum import WATCHERS_AT_MOST
from stress.check import BrokenPromise, Trial, check, rounds
from stress.real.workers import PATIENCE, Crew, Link, Worker, expect_tidy, open_state

#: What a busy machine may add to a second, in seconds.
GRACE = 5.0
#: How long a watching process is stopped, at most.
STILL = WATCHERS_AT_MOST / 3


def counts(path: Path, dice: random.Random, ended: Any, tell: Any = lambda number: None) -> None:
    """Count until *ended*; vacuum, or close and open again, every now and then. Tells how often it has counted."""
    state = patiently(open_state, path, lock_timeout=PATIENCE)
    while not ended():
        burst = dice.randrange(1, 20)
        for _ in range(burst):
            patiently(add, state)
        tell(burst)
        kind = dice.random()
        if kind < 0.4:
            patiently(timed, state.vacuum)
        elif kind < 0.6:
            timed(state.close)
            state = patiently(open_state, path, lock_timeout=PATIENCE)
        elif kind < 0.8:
            time.sleep(dice.random() * 0.02)
    state.close()


def add(state: Any) -> None:
    with state.transaction():
        state.n += 1


def patiently(function: Any, *args: Any, **options: Any) -> Any:
    """Call *function*, again while a person's save is above the journal of others.

    They know both sides, and bring them together when they look next. A program that comes from an older file cannot.
    """
    until = time.monotonic() + PATIENCE
    while True:
        try:
            return function(*args, **options)
        except StateFileError:
            if time.monotonic() > until:
                raise
            time.sleep(0.01)


def timed(vacuum: Any) -> None:
    """A vacuum waits for the lock, and for those who watch; not for a dead one."""
    before = time.monotonic()
    vacuum()
    took = time.monotonic() - before
    if took > WATCHERS_AT_MOST + GRACE:
        raise BrokenPromise(f"I12: a vacuum took {took:.1f} s")


class Ear:
    """What somebody who watches has heard, judged as it comes."""

    def __init__(self, name: str, state: Any, whole: bool) -> None:
        self._name = name
        self._watch = state.watch() if whole else state.watch("n")
        seen = self._watch._root  # as it was when the watch began: nothing was asked for yet
        self.n: int = dict.__getitem__(seen, "n")
        self._person: int = dict.__getitem__(seen, "person")
        self.told = 0

    def hear(self) -> None:
        for change in self._watch.poll():
            self._judge(change)

    def _judge(self, change: Change) -> None:
        broken = BrokenPromise(f"P13: {self._name} was told {change} after {self.n}, and after save {self._person}")
        if change.path == ("person",):
            if change.origin != "edit" or change.old != self._person or change.new <= self._person:
                raise broken
            self._person = change.new
            return
        if change.path != ("n",) or change.old != self.n:
            raise broken
        if change.origin != "edit" and change.new != self.n + 1:
            raise broken
        self.n = change.new
        self.told += 1


def counter(link: Link, path: Path, seed: int) -> None:
    """A process that counts, and watches nothing."""
    counts(path, random.Random(seed), link.is_called, link.tell)


def watcher(link: Link, path: Path, seed: int) -> int:
    """A process that watches until it is told which number is the last; perhaps it counts too, until it is called."""
    dice = random.Random(seed)
    writes = dice.random() < 0.4
    read_only = not writes and dice.random() < 0.6
    patience = dice.choice([0.0, 0.001, 0.03, 0.5])
    state = patiently(open_state, path, lock_timeout=PATIENCE, read_only=read_only)
    name = f"{link.name}, {'read only' if read_only else 'counting' if writes else 'only looking'}, every {patience} s,"
    ear = Ear(name, state, dice.random() < 0.5)
    link.tell("watching")
    stop = threading.Event()
    errors: list[BaseException] = []

    def work() -> None:
        try:
            counts(path, random.Random(seed + 1), stop.is_set)
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=work, daemon=True)
    if writes:
        thread.start()
    while not link.is_called():
        ear.hear()
        time.sleep(patience)
    link.hear()
    stop.set()
    if writes:
        thread.join()
    if errors:
        raise errors[0]
    link.tell("quiet")
    last = link.hear()
    until = time.monotonic() + PATIENCE
    while ear.n != last and time.monotonic() < until:
        ear.hear()
        time.sleep(0.001)
    ear.hear()
    if ear.n != last:
        raise BrokenPromise(f"P13: {name} was told up to {ear.n}, the last is {last}")
    state.close()
    return ear.told


def save(path: Path, number: int) -> None:
    """``flock FILE sed -i``: no commit comes between reading and writing."""
    while True:
        fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)
            if os.fstat(fd).st_ino != path.stat().st_ino:
                continue
            content = path.read_bytes()
            new = path.with_name("sed")
            new.write_bytes(content.replace(b"person: %d\n" % (number - 1), b"person: %d\n" % number, 1))
            os.rename(new, path)
            return
        finally:
            os.close(fd)


def one_day(trial: Trial, path: Path, edited: bool) -> None:
    """About two seconds."""
    dice = trial.random
    with open_state(path, defaults={"n": 0, "person": 0}):
        pass
    with Crew(trial) as crew:

        def start(kind: Any, name: str) -> Worker:
            return crew.start(name, kind, path, dice.randrange(1 << 32))

        counters = [start(counter, f"counter {number}") for number in range(dice.randrange(1, 4))]
        watchers = [start(watcher, f"watcher {number}") for number in range(dice.randrange(2, 4))]
        for worker in watchers:
            if worker.hear() != "watching":
                raise BrokenPromise(f"{worker} does not watch")
        closing = time.monotonic() + min(2.0, trial.left)
        saves = 0
        while time.monotonic() < closing:
            for worker, message in crew.listen([*counters, *watchers]):
                if message is None:
                    raise BrokenPromise(f"{worker} died by itself, of {worker.process.exitcode}")
                trial.count("commits", message)
            chance = dice.random()
            if edited and chance < 0.02:
                saves += 1
                save(path, saves)
                trial.count("saves")
                until = time.monotonic() + PATIENCE
                with patiently(open_state, path, read_only=True) as state:
                    while state.person != saves:
                        trial.expect(time.monotonic() < until, f"P10: save {saves} is not seen")
                        time.sleep(0.005)
            elif chance < 0.01 and not edited:
                index = dice.randrange(len(counters))
                counters[index].kill()
                for message in counters[index].heard():
                    trial.count("commits", message)
                counters[index] = start(counter, counters[index].name)
                trial.count("kills of counting processes")
            elif chance < 0.015 and not edited:
                index = dice.randrange(len(watchers))
                watchers[index].kill()
                watchers[index] = start(watcher, watchers[index].name)
                watchers[index].hear()
                trial.count("kills of watching processes")
            elif chance < 0.03:
                worker = dice.choice(watchers)
                os.kill(worker.pid, signal.SIGSTOP)
                try:
                    time.sleep(dice.random() * STILL)
                finally:
                    os.kill(worker.pid, signal.SIGCONT)
                trial.count("halts")
        for worker in [*counters, *watchers]:
            worker.tell("stop")
        for worker in counters:
            worker.result()
        for worker in watchers:
            worker.hear()
        with patiently(open_state, path, read_only=True) as state:
            last = state.n
        for worker in watchers:
            worker.tell(last)
            trial.count("changes reported", worker.result())
    for kept in path.parent.glob("*.conflict-*"):
        kept.unlink()  # a close after a save, while another one had the lock, has kept what it knew
    expect_tidy(path, {"n": last, "person": saves})
    trial.count("days")


@check("watch", "Every watch reports every commit once, in order, while others commit, vacuum, save, stop and die.")
def watch(trial: Trial) -> None:
    rounds(trial, "day", lambda trial, path: one_day(trial, path, edited=trial.random.random() < 0.4))
