"""Move money between accounts in many processes and threads, and let everybody count it in every way there is.

A transfer is one transaction, so the sum of the accounts is the same in every state that was ever committed. A reader
that sees another sum has seen half of a transfer, two states at once, or a transaction that was rolled back. No reader
needs to know the transfers, so every one of them can judge alone, in its own process, as fast as it can read.

The sum does not show a transfer that was lost whole. So every account also counts its transfers, and the acknowledged
ones of each clerk must be in the file in the end, although some clerks are killed.
"""

from __future__ import annotations

import random
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

from stress.check import BrokenPromise, Trial, check, rounds
from stress.real.workers import Address, Crew, Ended, Link, Worker, expect_tidy, in_threads, open_state, vacuum_often

NAMES = [f"account {n}" for n in range(8)]
EACH = 1_000
SUM = EACH * len(NAMES)
#: Vacuums are due after so few bytes in some of the processes.
SMALL_JOURNAL = 20_000
#: For how many seconds the bank is open.
OPEN, OPEN_ON_SERVER = 1.5, 5.0


class Refused(Exception):
    """Leaves a transfer in the middle."""


# ---------------------------------------------------------------------- ways to count


def by_snapshot(state: Any) -> int:
    return sum(state.snapshot()["accounts"].values())


def by_values(state: Any) -> int:
    return sum(state.accounts.values())


def by_a_loop(state: Any) -> int:
    names = set(state.accounts)
    found = 0
    for name, value in state.accounts.items():
        names.remove(name)
        found += value
    if names:
        raise BrokenPromise(f"P6: a loop did not meet {sorted(names)}")
    return found


def by_the_list(state: Any) -> int:
    """The same money again, in a list."""
    return sum(state.row)


def by_a_loop_over_the_list(state: Any) -> int:
    found = 0
    for value in state.row:
        found += value
    return found


def by_all_of_it(state: Any) -> int:
    """Several containers of one commit say the same."""
    seen = state.snapshot()
    if list(seen["accounts"].values()) != seen["row"]:
        raise BrokenPromise(f"P6: half of a transfer is seen: {seen['accounts']} and {seen['row']}")
    if sum(seen["clerks"].values()) != seen["transfers"]:
        raise BrokenPromise(
            f"P7: the clerks made {sum(seen['clerks'].values())} transfers, together {seen['transfers']}"
        )
    return sum(seen["row"])


def within_a_transaction(state: Any) -> int:
    with state.transaction(timeout=60):
        first = sum(state.accounts.values())
        second = sum(state.row)
    if first != second:
        raise BrokenPromise(f"P7: within one transaction, the accounts hold {first}, the list {second}")
    return int(first)


def by_the_bell(state: Any) -> int:
    """Single values: one that is only ever 1 within transfers."""
    if state.ringing or state.bell["ringing"]:
        raise BrokenPromise("P6: a value is seen that existed only within transactions")
    return SUM


READING: list[Callable[[Any], int]] = [
    by_snapshot,
    by_values,
    by_a_loop,
    by_the_list,
    by_a_loop_over_the_list,
    by_all_of_it,
    by_the_bell,
]


def count_money(state: Any, dice: random.Random, who: str, ways: list[Callable[[Any], int]] = READING) -> None:
    """Count in one way. Raises BrokenPromise."""
    way = dice.choice(ways)
    found = way(state)
    by_the_bell(state)
    if found != SUM:
        raise BrokenPromise(f"P6: {who} counted {found} {way.__name__.replace('_', ' ')}, there are {SUM}")


# ---------------------------------------------------------------------- who works at the bank


def move(state: Any, clerk: str, dice: random.Random) -> bool:
    """One transfer, if it is not refused."""
    giver, taker = dice.sample(range(len(NAMES)), 2)
    amount = dice.randrange(1, 50)
    how = dice.random()
    try:
        with state.transaction():
            state.ringing = state.bell["ringing"] = 1
            state.accounts[NAMES[giver]] -= amount
            state.row[giver] -= amount
            if how < 0.1:
                raise Refused
            if how < 0.2:
                try:
                    with state.transaction():  # a savepoint that is given up
                        state.accounts[NAMES[taker]] += 2 * amount
                        raise Refused
                except Refused:
                    pass
            state.row[taker] += amount
            state.accounts[NAMES[taker]] += amount
            state.transfers += 1
            state.clerks[clerk] += 1
            state.ringing = state.bell["ringing"] = 0
            if sum(state.accounts.values()) != SUM:
                raise BrokenPromise("P7: a transaction does not see its own changes, or sees those of others")
            if how < 0.3:
                raise Refused
    except Refused:
        return False
    return True


def branch(link: Link, path: Address, seed: int, clerks: list[str]) -> None:
    """A process with clerks and a reader, each a thread, on one state. Tells a clerk's name after each transfer."""
    dice = random.Random(seed)
    sys.setswitchinterval(dice.choice([1e-3, 1e-4, 1e-5]))
    if dice.random() < 0.5:
        vacuum_often(SMALL_JOURNAL)
    state = open_state(path, lock_timeout=60)

    def clerk(name: str, dice: random.Random) -> Iterator[None]:
        while True:
            if move(state, name, dice):
                link.tell(name)
            elif dice.random() < 0.05:
                state.vacuum()
            yield

    def reader(dice: random.Random) -> Iterator[None]:
        while True:
            for _ in range(20):
                count_money(state, dice, f"a thread of {link.name}", [*READING, within_a_transaction])
                yield
            link.tell(20)

    bodies = [partial(clerk, name, random.Random(dice.random())) for name in clerks]
    in_threads(link, [*bodies, partial(reader, random.Random(dice.random()))])
    state.close()


def auditor(link: Link, path: Address, seed: int) -> None:
    """A process that only looks: with a state that stays open, read only, and with one that is opened each time."""
    dice = random.Random(seed)
    with open_state(path, read_only=True) as stays:
        while not link.is_called():
            for _ in range(10):
                count_money(stays, dice, f"{link.name}, read only,")
                with open_state(path, read_only=dice.random() < 0.5) as fresh:
                    count_money(fresh, dice, f"{link.name}, with a fresh state,")
            link.tell(20)


def one_day(trial: Trial, path: Address) -> None:
    """The bank is open for about a second after the first message; on a server, where all is slower, for longer."""
    dice = trial.random
    staff = {f"branch {b}": [f"clerk {b}{n}" for n in range(dice.randrange(1, 4))] for b in range(dice.randrange(2, 4))}
    told = {clerk: 0 for clerks in staff.values() for clerk in clerks}
    killed: Counter[str] = Counter()
    content = {
        "accounts": dict.fromkeys(NAMES, EACH),
        "row": [EACH] * len(NAMES),
        "transfers": 0,
        "clerks": dict(told),
        "ringing": 0,
        "bell": {"ringing": 0},
    }
    with open_state(path, defaults=content):
        pass

    def note(message: Any) -> None:
        if isinstance(message, str):
            told[message] += 1
            trial.count("transfers")
        elif isinstance(message, int):
            trial.count("reads", message)

    with Crew(trial) as crew:

        def start(name: str) -> Worker:
            return crew.start(name, branch, path, dice.randrange(1 << 32), staff[name])

        branches = {name: start(name) for name in staff}
        auditors = [crew.start(f"auditor {n}", auditor, path, dice.randrange(1 << 32)) for n in range(2)]
        closing = 0.0
        until_the_next = dice.randrange(50, 400)
        while not closing or time.monotonic() < closing:
            for worker, message in crew.listen([*branches.values(), *auditors]):
                if message is None:
                    raise BrokenPromise(f"{worker} died by itself, of {worker.process.exitcode}")
                closing = closing or time.monotonic() + min(
                    OPEN_ON_SERVER if isinstance(path, str) else OPEN, trial.left
                )
                note(message)
                until_the_next -= 1
            if until_the_next <= 0:
                until_the_next = dice.randrange(50, 400)
                name = dice.choice(list(staff))
                branches[name].kill()
                for message in branches[name].heard():
                    note(message)
                killed.update(staff[name])
                trial.count("kills")
                branches[name] = start(name)
                with open_state(path, read_only=True) as state:
                    count_money(state, dice, "the process after a kill")
        for worker in [*branches.values(), *auditors]:
            worker.tell("close")
        for worker in [*branches.values(), *auditors]:
            while not isinstance(message := worker.hear(), Ended):
                note(message)
            worker.join()
    with open_state(path) as state:
        count_money(state, dice, "the last one", [by_all_of_it])
        state.last = "word"
        final = state.snapshot()
    for clerk, number in final["clerks"].items():
        if not told[clerk] <= number <= told[clerk] + killed[clerk]:
            raise BrokenPromise(
                f"P5: {clerk} told of {told[clerk]} transfers and died {killed[clerk]} times, the file says {number}"
            )
    expect_tidy(path, final)
    trial.count("days")


@check("bank", "The sum of the accounts is the same for every process, at every moment.")
def bank(trial: Trial) -> None:
    rounds(trial, "day", one_day)
