"""The works: what each measures, who takes part, and how much faster pstate has to be.

A measurement gets a folder of its own and returns seconds for one operation. The one named first is the one that the
others are compared with.
"""

from __future__ import annotations

import gc
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from threading import Thread
from typing import Any
from zlib import crc32

from perf import peers
from perf.peers import Peer, Result
from pstate import PersistedState
from pstate.file import limits, lock
from pstate.file.flock import UNLOCK, Flock
from pstate.file.fs import SYSTEM, FileSystem

#: A measurement of something slow does it less often, so that a round takes about so many seconds of it.
SECONDS = 0.15
TIMES = 10_000
#: 25,000 rows of three values each are about 1 MB of YAML.
ROWS = 25_000
#: How long several processes want the same file.
SHARED_SECONDS = 0.5
#: How many commits tell how much of what is written vacuums have written.
COMMITS = 60_000


@dataclass(frozen=True)
class Contestant:
    """Who takes part in a work."""

    label: str
    durability: str
    measure: Callable[[Path], float]
    missing: str = ""  #: what is not installed


@dataclass(frozen=True)
class Work:
    """Something that is measured. *bars* say, for a contestant, the least ratio that pstate has promised."""

    name: str
    contestants: list[Contestant]
    bars: dict[str, float]


# ------------------------------------------------------------------ counting, reading, ten at once


def _calibrated(kind: type[Peer], method: str, folder: Path) -> int:
    """How often *method* fits into a round: as often as ten times in a tenth of it let expect."""
    peer = kind(folder)
    loop = getattr(peer, method)
    try:
        times = 10
        while True:
            started = time.perf_counter()
            loop(times)
            took = time.perf_counter() - started
            if took > SECONDS / 10 or times >= TIMES:
                return max(1, min(TIMES, int(times * SECONDS / max(took, 1e-9))))
            times *= 10
    finally:
        peer.close()


class Loop:
    """A method of a peer, called as often as fits; with *whole*, open and close belong to it."""

    def __init__(self, kind: type[Peer], method: str, whole: bool = False) -> None:
        self.kind = kind
        self.method = method
        self.whole = whole
        self.times = 0

    def __call__(self, folder: Path) -> float:
        if not self.times:
            with tempfile.TemporaryDirectory(dir=folder) as name:
                self.times = _calibrated(self.kind, self.method, Path(name))
        began = time.perf_counter()
        peer = self.kind(folder)
        started = began if self.whole else time.perf_counter()
        getattr(peer, self.method)(self.times)
        ended = time.perf_counter()
        peer.close()
        return ((time.perf_counter() if self.whole else ended) - started) / self.times


def looped(kinds: list[type[Peer]], method: str, whole: bool = False) -> list[Contestant]:
    """Each of *kinds* in a `Loop`."""
    found = []
    for kind in kinds:
        missing = kind.missing()
        found.append(Contestant(kind.label, kind.durability, Loop(kind, method, whole), missing))
    return sorted(found, key=lambda one: not one.label.startswith("pstate"))


# ------------------------------------------------------------------ single measurements


def _open(folder: Path, theirs: bool = False, **defaults: Any) -> Any:
    if theirs:
        return peers.module("persistedstate").PersistedState(folder / "state", **defaults)
    return PersistedState(folder / "state.yaml", **defaults)


def _timed(function: Callable[[], object], times: int = 1) -> float:
    gc.collect()
    started = time.perf_counter()
    function()
    return (time.perf_counter() - started) / times


def increments(inside: bool, folder: Path) -> float:
    """Seconds for each increment, *inside* of one transaction or each by itself."""
    with _open(folder, counter=0) as state:

        def count() -> None:
            with state.transaction() if inside else nullcontext():
                for _ in range(TIMES):
                    state.counter += 1

        return _timed(count, TIMES)


def threads(number: int, folder: Path) -> float:
    """Seconds for each commit with durability "power", by that many threads."""
    each = max(1, 1_600 // number)
    with PersistedState.open(folder / "state.yaml", durability="power") as state:

        def commit(name: str) -> None:
            for value in range(each):
                state[name] = value

        workers = [Thread(target=commit, args=(f"t{index}",)) for index in range(number)]

        def run() -> None:
            for worker in workers:
                worker.start()
            for worker in workers:
                worker.join()

        return _timed(run, each * number)


DEEP = {"a": {"b": {"c": {"d": {"list": [], "n": 0}}}}}


def increments_of_a_dict(folder: Path) -> float:
    """The floor of an increment in Python: nothing but an attribute that is an item."""
    state = peers.Attributes(counter=0)

    def count() -> None:
        for _ in range(TIMES):
            state.counter += 1

    return _timed(count, TIMES)


def nested_append(theirs: bool, folder: Path) -> float:
    state = _open(folder, theirs, **DEEP)

    def append() -> None:
        for number in range(2_000):
            state.a["b"]["c"]["d"]["list"].append(number)

    took = _timed(append, 2_000)
    state.close()
    return took


def nested_set(theirs: bool, folder: Path) -> float:
    state = _open(folder, theirs, **DEEP)

    def put() -> None:
        for number in range(2_000):
            state.a["b"]["c"]["d"]["n"] = number

    took = _timed(put, 2_000)
    state.close()
    return took


def insert_in_front(theirs: bool, folder: Path) -> float:
    rows = [{"id": number} for number in range(10_000)]
    state = _open(folder, theirs, rows=rows)

    def insert() -> None:
        for number in range(10):
            state.rows.insert(0, {"id": -1})
            state.rows[len(state.rows) - 1]["id"] = number

    took = _timed(insert, 10)
    state.close()
    return took


def rows(number: int = ROWS) -> list[dict[str, Any]]:
    return [{"id": index, "name": f"row {index}", "done": False} for index in range(number)]


def open_one_megabyte(how: str, folder: Path) -> float:
    import yaml

    state = _open(folder, how == "persistedstate", rows=rows())
    state.close()
    if how == "yaml":
        text = (folder / "state.yaml").read_bytes()
        return _timed(lambda: yaml.load(text, Loader=yaml.CSafeLoader))
    opened = []
    took = _timed(lambda: opened.append(_open(folder, how == "persistedstate")))
    opened[0].close()
    return took


def vacuum_one_megabyte(how: str, folder: Path) -> float:
    import yaml

    if how == "yaml":
        value = {"rows": rows()}
        return _timed(lambda: yaml.dump(value, Dumper=yaml.CSafeDumper))
    state = _open(folder, how == "persistedstate", rows=rows())
    if how == "persistedstate":
        return _timed(state.close)  # it writes the file anew
    took = _timed(state.vacuum)
    state.close()
    return took


#: A part of a document that a person has commented, as long as 16 rows.
SECTION = """
# what robot {0} does; read when it starts
robot{0}:  # by hand
  enabled: yes   # was off
  title: 'Robot no. {0}'
  interval: {1} # seconds
  tags: [alpha, beta, 'gamma {0}']
  limits: {{low: 1, high: 20, unit: ms}}  # measured
  retry:
    # more is of no use
    times: 3
    wait: 0.5
  jobs:
    # the first one needs care
    - name: wash   # first
      id: {0}
      done: false
      note: "ends at {1}:00"
    - name: iron
      id: {1}
      done: true
    - name: fold
      id: 7
      range: [1, {1}]
      done: false
    # the rest can wait
    - name: sort
      id: 8
      done: false # not yet
    - name: mend
      id: 9
      done: false
"""


def vacuum_commented(changes: int, folder: Path) -> float:
    """Seconds for a vacuum of 1 MB with comments, in which so many values have changed."""
    path = folder / "state.yaml"
    path.write_text("".join([SECTION.format(number, number % 97) for number in range(ROWS // 16)]))
    state = _open(folder)
    with state.transaction():
        for section in list(state.values())[:changes]:
            section["interval"] += 1
            section["jobs"][-1]["done"] = True
    took = _timed(state.vacuum)
    state.close()
    if "enabled: yes   # was off\n" not in path.read_text():
        raise AssertionError("the comments are gone")
    return took


def recover(theirs: bool, folder: Path) -> float:
    """Seconds for each record of a journal that a killed program has left."""
    number = 900 if theirs else 100_000  # it vacuums after 1,000
    program = (
        f"import os, sys\n{'' if theirs else 'from pstate.file import limits; limits.JOURNAL_MINIMUM = 1 << 40'}\n"
        f"from {'persistedstate' if theirs else 'pstate'} import PersistedState\n"
        "state = PersistedState(sys.argv[1], counter=0)\n"
        f"for value in range({number}): state.counter = value\n"
        "os._exit(0)"
    )
    subprocess.run([sys.executable, "-c", program, str(folder / ("state" if theirs else "state.yaml"))], check=True)
    opened = []
    took = _timed(lambda: opened.append(_open(folder, theirs)), number)
    if opened[0].counter != number - 1:
        raise AssertionError(f"{opened[0].counter} was recovered, not {number - 1}")
    opened[0].close()
    return took


def decode_only(folder: Path) -> float:
    """The floor of a record in Python: its checksum, its JSON, and an item of a dict."""
    bodies = [b'[["set",[],"counter",%d]]' % number for number in range(TIMES)]
    decode, state = json.JSONDecoder().decode, {}

    def apply() -> None:
        crc = 0
        for body in bodies:
            crc = crc32(body, crc)
            ((_, _, key, value),) = decode(body.decode())
            state[key] = value

    return _timed(apply, TIMES)


def catch_up(folder: Path) -> float:
    """Seconds for each record of another process that the next read has to apply."""
    program = (
        "import sys; from pstate import PersistedState\n"
        "state = PersistedState(sys.argv[1])\n"
        "for value in range(1000): state.counter = value\n"
        "import os; os._exit(0)"
    )
    with _open(folder, counter=0) as state:
        state.counter = 1
        subprocess.run([sys.executable, "-c", program, str(folder / "state.yaml")], check=True)
        took = _timed(lambda: state.counter, 1_000)
        if state.counter != 999:
            raise AssertionError(f"{state.counter} was found, not 999")
        return took


def change_beside(size: int, folder: Path) -> float:
    """Seconds for each change of one key in a state of about *size* bytes."""
    with _open(folder, rows=rows(max(1, size // 40)), counter=0) as state:
        state.vacuum()
        state.counter = 0

        def change() -> None:
            for number in range(2_000):
                state.counter = number

        return _timed(change, 2_000)


class Counting(FileSystem):
    """The operating system; it counts the bytes that go through it."""

    def __init__(self) -> None:
        super().__init__()
        self.written = 0
        self.write = self._write

    def _write(self, fd: int, data: bytes) -> int:
        written = os.write(fd, data)
        self.written += written
        return written


def bytes_written(vacuums: bool, folder: Path) -> float:
    """Bytes that a commit writes, those of the *vacuums* included or not, in a state of 0.2 MB."""
    system = Counting()
    factor = limits.JOURNAL_MINIMUM
    try:
        if not vacuums:
            limits.JOURNAL_MINIMUM = 1 << 40
        with PersistedState.open(
            folder / "state.yaml", fs=system, defaults={"rows": rows(5_000), "counter": 0}
        ) as state:
            state.vacuum()
            system.written = 0
            number = 0
            # Two vacuums and more: the largest share that they can have.
            while number < COMMITS:
                state.counter = number
                number += 1
            return system.written / number
    finally:
        limits.JOURNAL_MINIMUM = factor


# ------------------------------------------------------------------ several processes, whole scripts, memory


def _count_in_transactions(kind: str, folder: str, seconds: float) -> int:
    """How many increments one process of several makes in that time."""
    done = 0
    if kind == "pstate":
        with PersistedState(f"{folder}/state.yaml", n=0) as state:
            until = time.monotonic() + seconds
            while time.monotonic() < until:
                with state.transaction():
                    state.n += 1
                done += 1
    elif kind == "bare":
        done = _count_bare(f"{folder}/log", seconds)
    elif kind == "diskcache":
        cache = peers.module("diskcache").Cache(f"{folder}/cache")
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            with cache.transact():
                cache["n"] = cache.get("n", 0) + 1
            done += 1
    else:
        import sqlite3

        connection = sqlite3.connect(f"{folder}/db", isolation_level=None, timeout=60)
        connection.execute("PRAGMA synchronous=NORMAL")
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            connection.execute("BEGIN IMMEDIATE")
            connection.execute("UPDATE state SET n = n + 1")
            connection.execute("COMMIT")
            done += 1
    return done


def _count_bare(path: str, seconds: float) -> int:
    """The floor: lock, see where the file ends, append, unlock; who has to wait asks again as pstate does."""
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND)
    flock: Flock = SYSTEM.flock or lock.make("file", path)
    until, done = time.monotonic() + seconds, 0
    try:
        while time.monotonic() < until:
            lock.acquire(flock, fd, path, 60)
            os.lseek(fd, 0, 2)
            os.write(fd, peers.Append.record)
            flock(fd, UNLOCK)
            done += 1
    finally:
        os.close(fd)
    return done


def processes(kind: str, number: int, folder: Path) -> float:
    """Seconds for each `with transaction: n += 1` of that many processes in a tight loop."""
    return SHARED_SECONDS / max(1, sum(_done(kind, number, folder, SHARED_SECONDS)))


def _done(kind: str, number: int, folder: Path, seconds: float) -> list[int]:
    """How many each of that many processes has made in so many *seconds*."""
    if kind == "sqlite3":
        import sqlite3

        connection = sqlite3.connect(folder / "db", isolation_level=None)
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("CREATE TABLE state (n INTEGER)")
        connection.execute("INSERT INTO state VALUES (0)")
        connection.close()
    with get_context("spawn").Pool(number) as pool:
        pool.map(abs, range(number))  # all have started
        tasks = [(kind, str(folder), seconds)] * number
        return pool.starmap(_count_in_transactions, tasks, chunksize=1)


class Shares:
    """How often the slowest and the fastest of several processes that all want to commit get to it."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.done: list[int] = []
        self.seconds = 0.0

    def slowest(self, folder: Path) -> float:
        # Long enough for many turns: who gets the next one is chance.
        self.seconds = 4 * SHARED_SECONDS
        self.done = _done("pstate", self.number, folder, self.seconds)
        return self.seconds / max(1, min(self.done))

    def fastest(self, folder: Path) -> float:
        """Of the same run."""
        return self.seconds / max(1, *self.done)


def script(module: str, folder: Path) -> float:
    """Seconds for a program that starts Python, opens a state, sets a key and ends."""
    program = f"from {module} import PersistedState\nstate = PersistedState({str(folder / 'state')!r})\nstate.key = 1"
    # Modules are compiled when they are installed, or at the first run.
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}

    def run() -> None:
        subprocess.run([sys.executable, "-c", program], check=True, env=environment)

    run()
    return _timed(run)


def memory(how: str, folder: Path) -> float:
    """Bytes that 1 MB of YAML take in memory, asked of a fresh process."""
    path = folder / "state.yaml"
    _open(folder, rows=rows()).close()
    get = (
        f"yaml.load(open({str(path)!r}), Loader=yaml.CSafeLoader)"
        if how == "plain"
        else f"PersistedState({str(path)!r})"
    )
    program = (
        "import gc, os, tracemalloc, yaml\nfrom pstate import PersistedState\n"
        f"tracemalloc.start()\nstate = {get}\ngc.collect()\nprint(tracemalloc.get_traced_memory()[0])"
    )
    found = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    return float(found.stdout)


# ------------------------------------------------------------------ all of them


def _ours(measure: Callable[[Path], float], label: str = "pstate", durability: str = "kill") -> Contestant:
    return Contestant(label, durability, measure)


def _limit(label: str, seconds: float) -> Contestant:
    return Contestant(label, "", lambda folder: seconds)


def _theirs(measure: Callable[[Path], float]) -> Contestant:
    return Contestant("persistedstate", "kill", measure, peers.PersistedStatePeer.missing())


def _against_theirs(measure: Callable[[bool, Path], float]) -> list[Contestant]:
    return [_ours(partial(measure, False)), _theirs(partial(measure, True))]


def _against_yaml(measure: Callable[[str, Path], float], label: str) -> list[Contestant]:
    return [
        _ours(partial(measure, "pstate")),
        Contestant(label, "", partial(measure, "yaml")),
        _theirs(partial(measure, "persistedstate")),
    ]


def works() -> list[Work]:
    """All works, in the order of the table."""
    cache = peers.DiskCache.missing()
    return [
        Work(
            "counter += 1, 10,000 times, open and close included",
            looped(peers.COUNTING, "count", whole=True),
            {
                "persistedstate": 1.5,
                "sqlite3 WAL, NORMAL": 1,
                "lmdb, sync=False": 1,
                "shelve": 1,
                "diskcache": 10,
                "sqlitedict, autocommit": 20,
            },
        ),
        Work(
            'counter += 1 with durability="power"',
            looped(peers.COUNTING_POWER, "count", whole=True),
            {"bare write, fdatasync": 1 / 1.15, "sqlite3 WAL, FULL": 1, "lmdb, sync=True": 1},
        ),
        Work(
            'commits of 8 threads, durability="power"',
            [
                Contestant("pstate, 8 threads", "power", partial(threads, 8)),
                Contestant("pstate, 1 thread", "power", partial(threads, 1)),
            ],
            {"pstate, 1 thread": 3},
        ),
        Work(
            "10,000 increments in one transaction",
            [
                _ours(partial(increments, True)),
                _ours(partial(increments, False), "pstate, outside of one"),
                Contestant("a dict with attributes", "neither", increments_of_a_dict),
            ],
            {"pstate, outside of one": 5},
        ),
        Work(
            "a transaction of ten sets",
            looped(peers.TENS, "tens"),
            {"sqlite3 WAL, NORMAL": 1, "lmdb, sync=False": 1},
        ),
        Work(
            'a transaction of ten sets, durability="power"',
            looped(peers.TENS_POWER, "tens"),
            {"sqlite3 WAL, FULL": 1, "lmdb, sync=True": 1},
        ),
        Work(
            "read the counter",
            looped(peers.READING, "read"),
            {"persistedstate": 0.5, "diskcache": 10, "sqlite3 WAL, NORMAL": 10},
        ),
        Work("append to a list at depth 5", _against_theirs(nested_append), {"persistedstate": 1.5}),
        Work("set a key at depth 5", _against_theirs(nested_set), {"persistedstate": 1.5}),
        Work(
            "insert in front of 10,000 dicts, then write into the last",
            _against_theirs(insert_in_front),
            {"persistedstate": 20},
        ),
        Work(
            "open a closed file of 1 MB",
            _against_yaml(open_one_megabyte, "PyYAML's C loader"),
            {"PyYAML's C loader": 10, "persistedstate": 50},
        ),
        Work(
            "vacuum a state of 1 MB",
            _against_yaml(vacuum_one_megabyte, "PyYAML's C dumper"),
            {"PyYAML's C dumper": 8, "persistedstate": 40},
        ),
        Work(
            "vacuum 1 MB that a person has commented",
            [
                _ours(partial(vacuum_commented, 5), "pstate, ten changes"),
                _ours(partial(vacuum_commented, ROWS), "pstate, 3,000 changes"),
                _limit("0.2 s for 1 MB", 0.2),
            ],
            {"0.2 s": 1},
        ),
        Work(
            "recover a journal, each record",
            [
                *_against_theirs(recover),
                Contestant("checksum and JSON alone", "", decode_only),
                _limit("200,000 records a second", 5e-6),
            ],
            {"persistedstate": 100, "200,000": 1},
        ),
        Work(
            "catch up with another process, each record",
            [_ours(catch_up), _limit("200,000 records a second", 5e-6)],
            {"200,000": 1},
        ),
        Work(
            "change one key beside 10 MB",
            [
                _ours(partial(change_beside, 10_000_000)),
                _ours(partial(change_beside, 1_000), "pstate, beside 1 KB"),
            ],
            {"pstate, beside 1 KB": 1 / 1.2},
        ),
        Work(
            "bytes written by each commit",
            [
                _ours(partial(bytes_written, True), "pstate, vacuums included"),
                _ours(partial(bytes_written, False), "pstate, the records alone"),
            ],
            {"pstate, the records alone": 1 / 4},
        ),
        *(
            Work(
                f"{number} processes, `with transaction: n += 1`",
                [
                    _ours(partial(processes, "pstate", number)),
                    Contestant("bare flock, lseek, write, flock", "kill", partial(processes, "bare", number)),
                    Contestant("sqlite3 BEGIN IMMEDIATE", "kill", partial(processes, "sqlite3", number)),
                    Contestant("diskcache transact()", "kill", partial(processes, "diskcache", number), cache),
                ],
                {"sqlite3 BEGIN IMMEDIATE": 3, "diskcache transact()": 3},
            )
            for number in (2, 4)
        ),
        *(
            Work(
                f"{number} processes, who gets how much",
                [
                    _ours((shares := Shares(number)).slowest, "pstate, the slowest of them"),
                    _ours(shares.fastest, "pstate, the fastest of them"),
                ],
                {"pstate, the fastest of them": 1 / 2},
            )
            for number in (2, 4)
        ),
        Work(
            "a whole script: start, open, set a key, end",
            [_ours(partial(script, "pstate")), _theirs(partial(script, "persistedstate"))],
            {"persistedstate": 1 / 1.1},
        ),
        Work(
            "bytes of memory for 1 MB of YAML",
            [_ours(partial(memory, "pstate")), Contestant("plain dicts", "", partial(memory, "plain"))],
            {"plain dicts": 1 / 1.5},
        ),
    ]


def measured(work: Work, rounds: int, folder: Path, progress: Callable[[str], None]) -> list[Result]:
    """Every contestant of *work*, one after the other, *rounds* times and once before to warm up."""
    taking_part = [one for one in work.contestants if not one.missing]
    took: dict[str, list[float]] = {one.label: [] for one in taking_part}
    for number in range(rounds + 1):
        for one in taking_part:
            progress(f"{work.name}: {one.label}, round {number} of {rounds}" if number else f"{work.name}: {one.label}")
            with tempfile.TemporaryDirectory(dir=folder) as name:
                seconds = one.measure(Path(name))
            if number:
                took[one.label].append(seconds)
    first = took[taking_part[0].label]
    results = []
    for one in work.contestants:
        if one.missing:
            results.append(Result(one.label, one.durability, float("nan"), float("nan"), f"{one.missing} is missing"))
            continue
        ratios = [theirs / ours for theirs, ours in zip(took[one.label], first, strict=True)]
        results.append(Result(one.label, one.durability, statistics.median(took[one.label]), statistics.median(ratios)))
    return results


def is_reached(work: Work, result: Result) -> bool | None:
    """Whether pstate is as fast beside *result* as it has promised; None where it has promised nothing."""
    bar = next((least for label, least in work.bars.items() if result.label.startswith(label)), None)
    return None if bar is None or result.note else result.ratio >= bar
