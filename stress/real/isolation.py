"""Run transactions that read and append to lists, in processes and threads, and look whether any order explains them.

What each of them has read and appended is recorded, with the times of its beginning and end, and judged afterwards:
`history` says how. Counters and sums find a lost update, this finds every way in which transactions can disagree about
who was first: dirty, aborted and intermediate reads, write skew, views that move back, a commit that was acknowledged
and not yet seen. A single read outside transactions is judged as a transaction that only reads.

The times count because the promise does: a reader sees whatever was committed before it looked. Processes that are
killed leave transactions: what they meant to append is known, but not whether they did.
"""

from __future__ import annotations

import random
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

from stress.check import BrokenPromise, Trial, check, rounds
from stress.real.history import ABORTED, COMMITTED, UNKNOWN, Read, Transaction, judge
from stress.real.workers import Address, Crew, Ended, Link, Worker, expect_tidy, in_threads, open_state, vacuum_often

KEYS = [f"k{n}" for n in range(6)]
#: Vacuums are due after so few bytes in some of the processes.
SMALL_JOURNAL = 10_000
#: How long one history is, in seconds after the first client is at work; on a server, where commits are slower.
LENGTH, LENGTH_ON_SERVER = 0.8, 4.0


class Undo(Exception):
    """Leaves a transaction that is not meant to be committed."""


def as_a_copy(state: Any, lists: Any, key: str, own: list[int]) -> Read:
    return Read(key, state[key].copy(), own)


def as_a_list(state: Any, lists: Any, key: str, own: list[int]) -> Read:
    return Read(key, list(lists[key]), own)


def in_a_loop(state: Any, lists: Any, key: str, own: list[int]) -> Read:
    values = []
    for value in state[key]:
        values.append(value)
    return Read(key, values, own)


def by_its_length(state: Any, lists: Any, key: str, own: list[int]) -> Read:
    """One value is read without any lock between threads: another way through the code."""
    return Read(key, own=own, length=len(lists[key]))


def by_its_last_value(state: Any, lists: Any, key: str, own: list[int]) -> Read:
    try:
        return Read(key, own=own, last=lists[key][-1])
    except IndexError:
        return Read(key, own=own, length=0)


READING = [as_a_copy, as_a_list, in_a_loop, by_its_length, by_its_last_value, by_its_length, by_its_last_value]


APPENDING: list[Callable[[Any, Any, str, int], None]] = [
    lambda state, lists, key, value: state[key].append(value),
    lambda state, lists, key, value: lists[key].append(value),
    lambda state, lists, key, value: state[key].extend([value]),
    lambda state, lists, key, value: lists[key].insert(len(lists[key]), value),
]


class Client:
    """One thread that makes transactions, notes them, and tells of each before it begins."""

    def __init__(self, link: Link, state: Any, name: str, number: int, seed: float) -> None:
        self.link = link
        self.state = state
        self.name = name
        self.dice = random.Random(seed)
        self.next = number * 1_000_000  #: no value is ever appended twice
        self.made = 0
        # References from the beginning, which must follow everything that others do.
        self.lists = {key: state[key] for key in KEYS}

    def run(self) -> Iterator[None]:
        done: list[Transaction] = []
        while True:
            dice = self.dice
            self.made += 1
            keys = [dice.choice(KEYS) for _ in range(dice.randrange(1, 5))]
            plan: list[tuple[str, int]] = []
            for key in keys:
                self.next += 1
                plan.append((key, self.next if dice.random() < 0.5 else 0))
            outcome = dice.choices(
                ["commit", "raise", "rollback", "savepoint", "single", "look", "look at all"], [8, 2, 1, 2, 2, 3, 2]
            )[0]
            if outcome == "savepoint":
                plan = [(key, value) for key, value in plan if value] or [(KEYS[0], self.next)]
            now = Transaction(f"{self.name} #{self.made} {outcome}", 0, status=UNKNOWN)
            if outcome in ("commit", "savepoint"):
                now.appends = [each for each in plan if each[1]]
            elif outcome == "single":
                now.appends = [(plan[0][0], self.next)]
            # What is told goes out before it begins, and with it what was done before: one message for both.
            self.link.tell((self.name, done, now))
            now.appends = []
            now.began = time.monotonic_ns()
            self.take(now, plan, outcome)
            now.ended = time.monotonic_ns()
            done = [now]
            if outcome == "look":
                # Many, because the moments when a transaction of another thread is half done are short.
                done += [self.look(now.name) for _ in range(dice.randrange(20))]
            yield

    def look(self, name: str) -> Transaction:
        look = Transaction(name, time.monotonic_ns())
        look.reads = [self.dice.choice(READING)(self.state, self.lists, self.dice.choice(KEYS), [])]
        look.ended = time.monotonic_ns()
        return look

    def take(self, now: Transaction, plan: list[tuple[str, int]], outcome: str) -> None:
        """Carry out *plan*, and note in *now* what was seen and done."""
        state = self.state
        now.status = COMMITTED
        if outcome == "single":
            key = plan[0][0]
            self.dice.choice(APPENDING[:3])(state, self.lists, key, self.next)
            now.appends = [(key, self.next)]
        elif outcome == "look":
            key = plan[0][0]
            now.reads = [self.dice.choice(READING)(state, self.lists, key, [])]
        elif outcome == "look at all":
            seen = state.snapshot()
            now.reads = [Read(key, seen[key]) for key in KEYS]
        else:
            try:
                with state.transaction(timeout=60) as block:
                    if outcome == "savepoint":
                        self.give_up_part(now)
                    self.work(now, plan)
                    if outcome == "raise":
                        raise Undo
                    if outcome == "rollback":
                        block.rollback()
            except Undo:
                pass
            if outcome in ("raise", "rollback"):
                now.status = ABORTED
                now.undone += now.appends
                now.appends = []

    def work(self, now: Transaction, plan: list[tuple[str, int]]) -> None:
        for key, value in plan:
            if self.dice.random() < 0.3:
                time.sleep(0)  # give the other threads a turn, in the middle
            if value:
                self.dice.choice(APPENDING)(self.state, self.lists, key, value)
                now.appends.append((key, value))
            else:
                own = [value for of, value in now.appends if of == key]
                now.reads.append(self.dice.choice(READING)(self.state, self.lists, key, own))

    def give_up_part(self, now: Transaction) -> None:
        """A savepoint, and what was appended after it is given up."""
        kept = list(now.appends)
        key = self.dice.choice(KEYS)
        self.next += 1
        try:
            with self.state.transaction():
                self.work(now, [(key, self.next), (key, 0)])
                raise Undo
        except Undo:
            now.undone += now.appends[len(kept) :]
            now.appends = kept


def run_clients(link: Link, path: Address, seed: int, numbers: list[int]) -> None:
    """A process with some clients, each a thread."""
    dice = random.Random(seed)
    sys.setswitchinterval(dice.choice([1e-3, 1e-4, 1e-5]))
    if dice.random() < 0.5:
        vacuum_often(SMALL_JOURNAL)
    state = open_state(path, lock_timeout=60)
    clients = [Client(link, state, f"{link.name}.{number}", number, dice.random()) for number in numbers]
    in_threads(link, [client.run for client in clients])
    state.close()


class Recorder:
    """The history so far, as the clients tell it."""

    def __init__(self, trial: Trial) -> None:
        self.trial = trial
        self.done: list[Transaction] = []
        self.begun: dict[str, Transaction] = {}

    def note(self, message: Any) -> None:
        name, done, begun = message
        for each in done:
            self.done.append(each)
            self.trial.count("transactions" if each.appends or each.undone else "looks")
        self.begun[name] = begun

    def all(self) -> list[Transaction]:
        """With those that we do not know the end of: they began, and perhaps committed."""
        return self.done + list(self.begun.values())


def one_history(trial: Trial, path: Address) -> None:
    dice = trial.random
    with open_state(path, defaults={key: [] for key in KEYS}):
        pass
    recorder = Recorder(trial)
    length = LENGTH_ON_SERVER if isinstance(path, str) else LENGTH
    number = 0
    with Crew(trial) as crew:

        def start() -> Worker:
            nonlocal number
            numbers = [number + n for n in range(1, dice.randrange(2, 5))]
            number = numbers[-1]
            return crew.start(f"process {numbers[0]}", run_clients, path, dice.randrange(1 << 32), numbers)

        workers = [start() for _ in range(dice.randrange(2, 4))]
        until = 0.0
        most = 300 if isinstance(path, str) else 1500
        until_the_kill = dice.randrange(most // 15, most)
        while not until or time.monotonic() < until:
            for worker, message in crew.listen(workers):
                if message is None:
                    raise BrokenPromise(f"{worker} died by itself, of {worker.process.exitcode}")
                until = until or time.monotonic() + min(length, trial.left)
                recorder.note(message)
                until_the_kill -= 1
            if until_the_kill <= 0:
                until_the_kill = dice.randrange(most // 15, most)
                victim = workers.pop(dice.randrange(len(workers)))
                victim.kill()
                for message in victim.heard():
                    recorder.note(message)
                trial.count("kills")
                workers.append(start())
        for worker in workers:
            worker.tell("stop")
        for worker in workers:
            while not isinstance(message := worker.hear(), Ended):
                recorder.note(message)
            worker.join()
    with open_state(path) as state:
        state.last = "word"
        final = state.snapshot()
    expect_tidy(path, final)
    trial.count("dependencies", judge(recorder.all(), {key: final[key] for key in KEYS}))
    trial.count("histories")


@check(
    "isolation",
    "Transactions and reads of all processes and threads have one order, which agrees with time.",
    share=2.0,
)
def isolation(trial: Trial) -> None:
    rounds(trial, "history", one_history)
