"""Several processes that all change the same file: how much they get done, who gets how much, how long one waits."""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from multiprocessing import get_context
from pathlib import Path
from threading import Barrier
from typing import NamedTuple

from perf import peers
from pstate import PersistedState
from pstate.file import lock
from pstate.file.flock import UNLOCK, Flock
from pstate.file.fs import SYSTEM

#: How long several processes want the same file.
SHARED_SECONDS = 0.5


class Turns(NamedTuple):
    """What one process got of the file."""

    done: int
    longest_wait: float  #: in seconds, its own change included


@contextmanager
def _pstate(folder: Path) -> Iterator[Callable[[], None]]:
    with PersistedState(folder / "state.yaml", n=0) as state:

        def turn() -> None:
            with state.transaction():
                state.n += 1

        yield turn


@contextmanager
def _bare(folder: Path) -> Iterator[Callable[[], None]]:
    """The floor: lock, see where the file ends, append, unlock; who has to wait asks again as pstate does."""
    path = str(folder / "log")
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND)
    flock: Flock = SYSTEM.flock or lock.make("file", path)

    def turn() -> None:
        lock.acquire(flock, fd, path, 60)
        os.lseek(fd, 0, 2)
        os.write(fd, peers.Append.record)
        flock(fd, UNLOCK)

    try:
        yield turn
    finally:
        os.close(fd)


@contextmanager
def _sqlite(folder: Path) -> Iterator[Callable[[], None]]:
    connection = sqlite3.connect(folder / "db", isolation_level=None, timeout=60)
    execute = connection.execute
    execute("PRAGMA synchronous=NORMAL")

    def turn() -> None:
        execute("BEGIN IMMEDIATE")
        execute("UPDATE state SET n = n + 1")
        execute("COMMIT")

    try:
        yield turn
    finally:
        connection.close()


@contextmanager
def _diskcache(folder: Path) -> Iterator[Callable[[], None]]:
    with peers.module("diskcache").Cache(str(folder / "cache")) as cache:

        def turn() -> None:
            with cache.transact():
                cache["n"] = cache.get("n", 0) + 1

        yield turn


_KINDS: dict[str, Callable[[Path], AbstractContextManager[Callable[[], None]]]] = {
    "pstate": _pstate,
    "bare": _bare,
    "sqlite3": _sqlite,
    "diskcache": _diskcache,
}

_all_are_ready: Barrier


def _get_ready(barrier: Barrier) -> None:
    global _all_are_ready
    _all_are_ready = barrier


def _take_turns(kind: str, folder: Path, seconds: float) -> Turns:
    """What one process of several gets in so many *seconds*, which begin when all of them have opened the file."""
    with _KINDS[kind](folder) as turn:
        _all_are_ready.wait(60)
        done, longest = 0, 0.0
        before = time.monotonic()
        until = before + seconds
        while before < until:
            turn()
            now = time.monotonic()
            if now - before > longest:
                longest = now - before
            before = now
            done += 1
        return Turns(done, longest)


def shared(kind: str, number: int, folder: Path, seconds: float) -> list[Turns]:
    """What each of that many processes gets in so many *seconds* of a tight loop."""
    if kind == "sqlite3":
        connection = sqlite3.connect(folder / "db", isolation_level=None)
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("CREATE TABLE state (n INTEGER)")
        connection.execute("INSERT INTO state VALUES (0)")
        connection.close()
    context = get_context("spawn")
    with context.Pool(number, _get_ready, [context.Barrier(number)]) as pool:
        return pool.starmap(_take_turns, [(kind, folder, seconds)] * number, chunksize=1)


def each(kind: str, number: int, folder: Path) -> float:
    """Seconds for each `with transaction: n += 1` of that many processes."""
    found = shared(kind, number, folder, SHARED_SECONDS)
    return SHARED_SECONDS / max(1, sum([one.done for one in found]))


def longest_wait(kind: str, number: int, folder: Path) -> float:
    """The longest that one of that many processes waited for its turn."""
    return max([one.longest_wait for one in shared(kind, number, folder, 4 * SHARED_SECONDS)])


class Shares:
    """How often the slowest and the fastest of several processes get to it."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.done: list[int] = []
        self.seconds = 0.0

    def slowest(self, folder: Path) -> float:
        # Long enough for many turns: who gets the next one is chance.
        self.seconds = 4 * SHARED_SECONDS
        self.done = [one.done for one in shared("pstate", self.number, folder, self.seconds)]
        return self.seconds / max(1, min(self.done))

    def fastest(self, folder: Path) -> float:
        """Of the same run."""
        return self.seconds / max(1, *self.done)
