"""Kill writers at random moments, and prove that no acknowledged commit is lost and none is seen half.

Several processes write one file. Each tells us over a pipe of every commit *after* its call has returned, and only then
begins the next: so after a death at most one commit of each writer is unknown, and everything that was told must
stay. Every kind of commit writes its number in several places (in one call, or in one transaction), so half of one
shows as two numbers that differ; a sum over all writers shows a commit that was built on an old state.

Some are killed from outside at moments that nobody chose, among them right after they said that they are within a
transaction, and some kill themselves in the middle of a system call: there a write is torn at a chosen byte, and a
vacuum dies between any two of its steps. The second kind is what a storm from outside meets too rarely, the first is
what a list of chosen moments forgets.
"""

from __future__ import annotations

import os
import random
import signal
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

from pstate.file import format as f
from pstate.file.fs import FileSystem
from stress.check import BrokenPromise, Trial, check, rounds
from stress.real import servers
from stress.real.workers import (
    PATIENCE,
    Address,
    Crew,
    Ended,
    Link,
    Silence,
    Worker,
    expect_tidy,
    open_state,
    read_fresh,
    vacuum_often,
)

#: Vacuums are due after so few bytes in the workers, that every storm has many.
SMALL_JOURNAL = 3_000
#: A value that takes the system long enough to write to be killed within.
LARGE = 300_000
#: Calls that change something, before or within which a worker can kill itself: name -> what it is part of.
CHANGING = {
    "write": "within a write",
    "truncate": "within a write",
    "sync_data": "within a sync",
    "sync": "within a vacuum",
    "rename_new": "within a vacuum",
    "exchange": "within a vacuum",
    "unlink": "within a vacuum",
    "sync_folder": "within a vacuum",
}


class Doomed(FileSystem):
    """The real system; this process dies in the n-th call that changes something, a write at any byte of it."""

    def __init__(self, doom: int, dice: random.Random, told: Callable[[str], None]) -> None:
        super().__init__()
        self._left = doom
        self._told = told
        self._dice = dice
        for name in CHANGING:
            setattr(self, name, self._deadly(name, getattr(self, name)))

    def _deadly(self, name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def deadly(*args: Any) -> Any:
            self._left -= 1
            if self._left == 0:
                self._told(CHANGING[name])
                if name == "write" and len(args[1]) > 1:
                    os.write(args[0], args[1][: self._dice.randrange(1, len(args[1]))])
                os.kill(os.getpid(), signal.SIGKILL)
            return call(*args)

        return deadly


def doom_requests(doom: int, dice: random.Random, told: Callable[[str], None]) -> None:
    """This process dies at the n-th request to a server: before it, before its answer is read, or after that."""
    from pstate.rows import link

    run = link.Link._run
    left = doom

    def deadly(self: link.Link, send: Callable[[], None], deadline: float) -> Any:
        nonlocal left
        left -= 1
        if left:
            return run(self, send, deadline)
        when = dice.choice(["before a request", "before an answer", "before an answer", "after an answer"])
        if when == "before an answer":
            send()
            assert self._conn is not None
            while self._conn.flush():
                pass
        elif when == "after an answer":
            run(self, send, deadline)
        told(when)
        os.kill(os.getpid(), signal.SIGKILL)
        raise AssertionError("killed")

    setattr(link.Link, "_run", deadly)  # noqa: B010


# ---------------------------------------------------------------------- the commits of a writer


def one_value(mine: Any, state: Any, k: int) -> None:
    mine.value = k


def several_keys(mine: Any, state: Any, k: int) -> None:
    mine.pair.update(a=k, b=[k], c={"k": k})


def several_elements(mine: Any, state: Any, k: int) -> None:
    mine.rows.extend([k, k, k])


def a_whole_container(mine: Any, state: Any, k: int) -> None:
    mine.tree = {"k": k, "list": [k] * (k % 5), "inner": {"k": k, "set": {k, -k - 1}}}


def a_large_value(mine: Any, state: Any, k: int) -> None:
    mine.large = f"{k}:" + "x" * (LARGE if k % 2 else 1)


def a_transaction(mine: Any, state: Any, k: int, told: Callable[[], None] = lambda: None) -> None:
    with state.transaction():
        mine.deep.k = k
        mine.deep.log.append([k, {"k": k}])
        told()
        state.total += 1
        del mine.deep.log[:-4]
        mine.deep.again.k = k


def a_job(mine: Any, state: Any, k: int) -> None:
    """Take the first job of the common queue, and put a new one at its end."""
    with state.transaction():
        mine.taken.sum += state.queue.jobs.pop(0)
        mine.taken.k = k
        state.queue.jobs.append(state.queue.made)
        state.queue.made += 1


COMMITS: dict[str, Callable[[Any, Any, int], None]] = {
    "value": one_value,
    "pair": several_keys,
    "rows": several_elements,
    "tree": a_whole_container,
    "large": a_large_value,
    "deep": a_transaction,
    "taken": a_job,
}
WEIGHTS = [8, 6, 6, 6, 1, 12, 6]
#: How many jobs the common queue has.
JOBS = 3


def beginning() -> dict[str, Any]:
    """What a writer's part of the state is before its first commit."""
    return {
        "value": 0,
        "pair": {"a": 0, "b": [0], "c": {"k": 0}},
        "rows": [0, 0, 0],
        "tree": {"k": 0, "list": [], "inner": {"k": 0, "set": {0, -1}}},
        "large": "0:x",
        "deep": {"k": 0, "log": [[0, {"k": 0}]], "again": {"k": 0}},
        "taken": {"k": 0, "sum": 0},
    }


def numbers(mine: dict[str, Any]) -> dict[str, int]:
    """The last commit of each kind in a writer's part of the state. Raises BrokenPromise for half a commit."""
    pair, rows, tree, deep = mine["pair"], mine["rows"], mine["tree"], mine["deep"]
    large, _, rest = mine["large"].partition(":")
    found = {
        "value": mine["value"],
        "pair": pair["a"],
        "rows": rows[-1],
        "tree": tree["k"],
        "large": int(large),
        "deep": deep["k"],
        "taken": mine["taken"]["k"],
    }
    k = found["rows"]
    count = len(rows) // 3
    logged = [n for n, _ in deep["log"]]
    whole = {
        "value": True,
        "pair": pair == {"a": found["pair"], "b": [found["pair"]], "c": {"k": found["pair"]}},
        "rows": rows == [n for n in range(k - count + 1, k + 1) for _ in range(3)],
        "tree": tree["inner"] == {"k": tree["k"], "set": {tree["k"], -tree["k"] - 1}}
        and tree["list"] == [tree["k"]] * (tree["k"] % 5),
        "large": rest == "x" * (LARGE if found["large"] % 2 else 1),
        "deep": deep["again"]["k"] == deep["k"]
        and logged == list(range(deep["k"] - len(logged) + 1, deep["k"] + 1))
        and all(inner == {"k": n} for n, inner in deep["log"]),
        "taken": True,  # see `judge_jobs`
    }
    for kind, is_whole in whole.items():
        if not is_whole:
            raise BrokenPromise(f"P6: half of a commit is visible: {kind}: {str(mine[kind])[:500]}")
    return found


def judge_jobs(seen: dict[str, Any]) -> None:
    """Each job is in the queue, or was taken by one writer. Raises BrokenPromise."""
    taken = [mine["taken"] for mine in seen["of"].values()]
    jobs, made = seen["queue"]["jobs"], seen["queue"]["made"]
    count, total = sum(each["k"] for each in taken) + len(jobs), sum(each["sum"] for each in taken) + sum(jobs)
    if (count, total) != (made, made * (made - 1) // 2):
        raise BrokenPromise(
            f"P7: {made} jobs were made, and {count} are in the queue or taken; their numbers add up to {total}"
        )


class Undo(Exception):
    """Leaves a transaction that must not be seen."""


def write(link: Link, path: Address, durability: str, seed: int, doom: int) -> None:
    """A writer, until it is called or killed. Tells ("done", kind, k) after each commit."""
    vacuum_often(SMALL_JOURNAL)
    dice = random.Random(seed)
    options: dict[str, Any] = {"durability": durability, "lock_timeout": None}

    def dies(when: str) -> None:
        link.tell(("dies", when))

    if doom and isinstance(path, str):
        doom_requests(doom, dice, dies)
    elif doom:
        options["fs"] = Doomed(doom, dice, dies)
    state = open_state(path, **options)
    mine = state.of[link.name]
    last = numbers(state.snapshot()["of"][link.name])
    link.tell(("here",))
    while not link.is_called():
        chance = dice.random()
        if chance < 0.03:
            state.vacuum()
        elif chance < 0.06:
            state.close()
            state = open_state(path, **options)
            mine = state.of[link.name]
        elif chance < 0.10:
            try:
                with state.transaction():
                    mine.value = -1
                    mine.rows.append(-1)
                    state.total += 1_000_000
                    raise Undo
            except Undo:
                pass
        elif len(mine.rows) > 60:
            del mine.rows[:30]
        # A large value makes everybody slow, so that it does not stay for long.
        kind = "large" if last["large"] % 2 and chance > 0.7 else dice.choices(list(COMMITS), WEIGHTS)[0]
        k = last[kind] + 1
        if kind == "deep" and dice.random() < 0.3:
            a_transaction(mine, state, k, lambda: link.tell(("within",)))
        else:
            COMMITS[kind](mine, state, k)
        last[kind] = k
        link.tell(("done", kind, k))
    if dice.random() < 0.5:
        state.close()


class Storm:
    """Writers of one file, what they have acknowledged, and the looks at the file."""

    def __init__(self, trial: Trial, crew: Crew, path: Address, durability: str, names: str) -> None:
        self.trial = trial
        self.crew = crew
        self.path = path
        self.durability = durability
        self.told: dict[str, Counter[str]] = {name: Counter() for name in names}
        self.writers: dict[str, Worker] = {}
        self.within: set[str] = set()  #: who said so, and has not yet said that the transaction is done
        content = {
            "total": 0,
            "of": {name: beginning() for name in names},
            "queue": {"jobs": [*range(JOBS)], "made": JOBS},
        }
        with open_state(path, defaults=content):
            pass

    def start(self, name: str) -> None:
        random = self.trial.random
        doom = random.randrange(1, 250) if random.random() < 0.5 else 0
        self.writers[name] = self.crew.start(name, write, self.path, self.durability, random.randrange(1 << 32), doom)

    def note(self, name: str, message: Any) -> None:
        """Note what a writer told."""
        if message[0] == "within":
            self.within.add(name)
        elif message[0] == "dies":
            self.trial.count(f"kills {message[1]}")
        elif message[0] == "done":
            _, kind, k = message
            self.within.discard(name)
            self.trial.expect(
                k == self.told[name][kind] + 1,
                f"P5: {name} acknowledged {kind} {k} after {self.told[name][kind]}",
            )
            self.told[name][kind] = k
            self.trial.count("commits")

    def hear(self, name: str) -> None:
        """Note what *name* has told by now."""
        for message in self.writers[name].heard():
            if not isinstance(message, Ended):
                self.note(name, message)

    def look(self) -> None:
        """Compare the file with what was told."""
        for name in self.writers:
            self.hear(name)
        lower = {name: Counter(told) for name, told in self.told.items()}
        seen = read_fresh(self.path)
        for name in self.writers:
            self.hear(name)
        in_transactions = 0
        for name, mine in seen["of"].items():
            found = numbers(mine)
            for kind, k in found.items():
                if k < lower[name][kind]:
                    raise BrokenPromise(
                        f"P5: {name} acknowledged {kind} {lower[name][kind]}, and the file says {k}: it is lost"
                    )
            ahead = {kind: k - self.told[name][kind] for kind, k in found.items() if k > self.told[name][kind]}
            if sum(ahead.values()) > 1:
                raise BrokenPromise(f"P6: {name} has more than one commit in the file that it did not tell of: {ahead}")
            in_transactions += found["deep"]
        if seen["total"] != in_transactions:
            raise BrokenPromise(
                f"P7: the writers' transactions add up to {in_transactions}, their common total says {seen['total']}"
            )
        judge_jobs(seen)
        self.trial.count("reads")

    def bury(self, name: str) -> None:
        """After the death of *name*: what is in the file is what its successor goes on with."""
        worker = self.writers.pop(name)
        self.trial.count("kills")
        if name in self.within:
            self.within.discard(name)
            self.trial.count("kills within a transaction")
        worker.close()
        self.crew.workers.remove(worker)

    def settle(self, name: str) -> None:
        """Its one commit without an acknowledgement counts or not; from now on that stays so."""
        for kind, k in numbers(read_fresh(self.path)["of"][name]).items():
            self.told[name][kind] = k


def one_storm(trial: Trial, path: Address) -> None:
    dice = trial.random
    names = "abcd"[: dice.randrange(2, 5)]
    durability = dice.choice(["process", "process", "power"])
    with Crew(trial) as crew:
        storm = Storm(trial, crew, path, durability, names)
        for name in names:
            storm.start(name)
        for _ in range(dice.randrange(4, 12)):
            victim = dice.choice(names)
            for _ in range(dice.randrange(25)):
                if victim in listen(storm) or (victim in storm.within and dice.random() < 0.5):
                    break
            time.sleep(dice.choice([0, dice.random() * 0.004]))  # not always right after it has told something
            storm.writers[victim].kill()
            storm.hear(victim)
            die(storm, victim)
            # The lock is free, and everybody goes on.
            before = {name: storm.told[name].total() for name in names}
            until = time.monotonic() + PATIENCE
            while stuck := [name for name in names if storm.told[name].total() == before[name]]:
                for name in listen(storm):
                    before[name] = -1
                if time.monotonic() > until:
                    raise Silence(f"after the death of {victim}, {', '.join(stuck)} committed nothing any more")
            if not trial.goes_on():
                break
        stop(storm)
    with open_state(path, lock_timeout=1) as state:
        with state.transaction():
            state.last = "word"
        final = state.snapshot()
    expect_tidy(path, final)
    trial.count("storms")


def listen(storm: Storm) -> list[str]:
    """Hear one thing of every worker that says one now. One that died by itself gets a successor; returns which."""
    dead = []
    for worker, message in storm.crew.listen(list(storm.writers.values())):
        if message is None:
            dead.append(worker.name)
        else:
            storm.note(worker.name, message)
    # Only now: a burial hears what everybody has told since.
    for name in dead:
        storm.writers[name].join()
        die(storm, name)
    return dead


def die(storm: Storm, name: str) -> None:
    if isinstance(storm.path, str):
        servers.await_end(storm.path, storm.writers[name].pid)
    elif f.scan(storm.path.read_bytes()).rest:
        storm.trial.count("torn tails seen")
    storm.look()
    storm.bury(name)
    storm.settle(name)
    storm.start(name)


def stop(storm: Storm) -> None:
    """End the storm: some are killed all at once, the others finish what they do."""
    everybody = storm.trial.random.random() < 0.3
    for worker in storm.writers.values():
        worker.process.kill() if everybody else worker.tell()
    for name, worker in storm.writers.items():
        try:
            while not isinstance(message := worker.hear(), Ended):
                storm.note(name, message)
        except EOFError:
            storm.trial.count("kills")
        worker.join()
        if isinstance(storm.path, str):
            servers.await_end(storm.path, worker.pid)
    storm.look()


@check("kill", "No acknowledged commit is lost when writers are killed anywhere, and none is seen half.", share=2.0)
def kill(trial: Trial) -> None:
    rounds(trial, "storm", one_storm)
