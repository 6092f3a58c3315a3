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
from pathlib import Path
from textwrap import indent
from threading import Thread
from typing import Any
from zlib import crc32

from perf import floor, peers, sharing
from perf.peers import Peer, Result
from pstate import PersistedState
from pstate.file import limits
from pstate.file.fs import FileSystem

#: A measurement of something slow does it less often, so that a round takes about so many seconds of it.
SECONDS = 0.15
TIMES = 10_000
#: 25,000 rows of three values each are about 1 MB of YAML.
ROWS = 25_000
#: How many commits tell how much of what is written vacuums have written.
COMMITS = 60_000


#: What is not to be worse may look so much worse, as no two measurements are the same.
NOT_WORSE = 1.1
#: A configuration such as people write, half of it comments.
WRITTEN = Path(__file__).with_name("written.yaml")


@dataclass(frozen=True)
class Contestant:
    """One that takes part in a work."""

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
    short: str = ""  #: its name in the short table, if it is one of those that a reader sees first
    worst: bool = False  #: the worst of the rounds counts, not their median


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
    """Seconds for each increment, in one transaction (*inside*) or each by itself."""
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
        return _timed(state.close)  # it rewrites the file
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


def commented() -> str:
    """1 MB with comments."""
    return "".join([SECTION.format(number, number % 97) for number in range(ROWS // 16)])


def offices() -> str:
    """40 KB in the style of a person: ten of the configurations, each below a key of its own."""
    text = WRITTEN.read_text()
    return "".join([f"office-{number}:\n" + indent(text, "  ") for number in range(10)])


#: A small file opens faster than a clock can tell.
OPENINGS = 20


def open_commented(how: str, text: str, times: int, folder: Path) -> float:
    """Seconds for reading the document *text*, which a person has written, into memory."""
    import yaml

    path = folder / "state.yaml"
    path.write_text(text)
    took = 0.0
    gc.collect()
    for _ in range(times):
        started = time.perf_counter()
        found = yaml.load(path.read_bytes(), Loader=yaml.CSafeLoader) if how == "yaml" else _open(folder)
        took += time.perf_counter() - started
        if how == "pstate":
            found.close()
    return took / times


def vacuum_commented(changes: int, folder: Path) -> float:
    """Seconds for a vacuum of 1 MB with comments, in which so many values have changed."""
    path = folder / "state.yaml"
    path.write_text(commented())
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


# ------------------------------------------------------------------ whole scripts, memory, file size


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


def file_size(how: str, folder: Path) -> float:
    """Bytes of the closed file of a state of 1 MB."""
    import yaml

    if how == "yaml":
        return float(len(yaml.dump({"rows": rows()}, Dumper=yaml.CSafeDumper, sort_keys=False)))
    _open(folder, how == "persistedstate", rows=rows()).close()
    return float(sum([file.stat().st_size for file in folder.iterdir()]))


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


def _commented(text: str, times: int) -> list[Contestant]:
    return [
        _ours(partial(open_commented, "pstate", text, times)),
        Contestant("PyYAML's C loader", "", partial(open_commented, "yaml", text, times)),
    ]


def _done_by_several(number: int) -> Work:
    return Work(
        f"{number} processes, `with transaction: n += 1`",
        [
            _ours(partial(sharing.each, "pstate", number)),
            Contestant("bare flock, lseek, write, flock", "kill", partial(sharing.each, "bare", number)),
            Contestant("sqlite3 BEGIN IMMEDIATE", "kill", partial(sharing.each, "sqlite3", number)),
            Contestant(
                "diskcache transact()",
                "kill",
                partial(sharing.each, "diskcache", number),
                peers.DiskCache.missing(),
            ),
        ],
        {"sqlite3 BEGIN IMMEDIATE": 2, "diskcache transact()": 3},
        f"`n += 1` by {number} processes, a transaction each",
    )


def _shares_of_several(number: int) -> Work:
    shares = sharing.Shares(number)
    return Work(
        f"{number} processes, the share of each",
        [
            _ours(shares.slowest, "pstate, the slowest of them"),
            _ours(shares.fastest, "pstate, the fastest of them"),
        ],
        {"pstate, the fastest of them": 1 / 2},
    )


def _waits_of_several(number: int) -> Work:
    return Work(
        f"{number} processes, the longest wait for a turn in two seconds",
        [
            _ours(partial(sharing.longest_wait, "pstate", number)),
            Contestant("sqlite3 BEGIN IMMEDIATE", "kill", partial(sharing.longest_wait, "sqlite3", number)),
            _limit("0.1 s", 0.1),
        ],
        {"0.1 s": 1},
        worst=True,
    )


def works() -> list[Work]:
    """All works, in the order of the table."""
    return [
        Work(
            "counter += 1",
            looped([floor.AppendFromC, floor.AppendAndLookFromC, *peers.COUNTING], "count"),
            {
                "the same calls, made from C": 1 / 2.2,
                "persistedstate": 3,
                "sqlite3 WAL, NORMAL": 3.5,
                "lmdb, sync=False": 1.3,
                "shelve": 1,
                "diskcache": 10,
                "sqlitedict, autocommit": 20,
            },
            "`counter += 1`",
        ),
        Work(
            "counter += 1, 10,000 times, open and close included",
            looped([peers.PState, peers.PersistedStatePeer, peers.Sqlite, peers.Lmdb], "count", whole=True),
            {"persistedstate": 1, "sqlite3 WAL, NORMAL": 1},
        ),
        Work(
            'counter += 1 with durability="power"',
            looped(peers.COUNTING_POWER, "count", whole=True),
            {"bare write, fdatasync": 1 / 1.2, "sqlite3 WAL, FULL": 1, "lmdb, sync=True": 1},
            '`counter += 1`, durability="power"',
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
                _ours(partial(increments, False), "pstate, outside a transaction"),
                Contestant("a dict with attributes", "neither", increments_of_a_dict),
            ],
            {"pstate, outside a transaction": 5},
            "`counter += 1` in a transaction",
        ),
        Work(
            "a transaction of ten sets",
            looped(peers.TENS, "tens"),
            {"sqlite3 WAL, NORMAL": 3.5, "lmdb, sync=False": 0.7},
            "a transaction of ten sets",
        ),
        Work(
            'a transaction of ten sets, durability="power"',
            looped(peers.TENS_POWER, "tens"),
            {"sqlite3 WAL, FULL": 1, "lmdb, sync=True": 1},
        ),
        Work(
            "read the counter",
            looped([floor.AppendFromC, *peers.READING], "read"),
            {"persistedstate": 2, "lmdb, sync=False": 2, "sqlite3 WAL, NORMAL": 10, "diskcache": 20},
            "`state.counter`, read",
        ),
        Work(
            "append to a list at depth 5",
            _against_theirs(nested_append),
            {"persistedstate": 1.5},
            "an append at depth 5",
        ),
        Work("set a key at depth 5", _against_theirs(nested_set), {"persistedstate": 2.5}, "a set at depth 5"),
        Work(
            "insert before 10,000 dicts, then write into the last",
            _against_theirs(insert_in_front),
            {"persistedstate": 20},
        ),
        Work(
            "open a closed file of 1 MB",
            _against_yaml(open_one_megabyte, "PyYAML's C loader"),
            {"PyYAML's C loader": 10, "persistedstate": 50},
            "open 1 MB",
        ),
        Work(
            "vacuum a state of 1 MB",
            _against_yaml(vacuum_one_megabyte, "PyYAML's C dumper"),
            {"PyYAML's C dumper": 8, "persistedstate": 40},
            "vacuum 1 MB",
        ),
        Work(
            "open 1 MB that a person has commented",
            _commented(commented(), 1),
            {"PyYAML's C loader": 4},
            "open 1 MB with comments",
        ),
        Work(
            "open a configuration that a person has written",
            _commented(WRITTEN.read_text(), OPENINGS),
            {"PyYAML's C loader": 4},
        ),
        Work(
            "open ten such configurations in one file",
            _commented(offices(), OPENINGS),
            {"PyYAML's C loader": 4},
        ),
        Work(
            "vacuum 1 MB that a person has commented",
            [
                _ours(partial(vacuum_commented, 5), "pstate, ten changes"),
                _ours(partial(vacuum_commented, ROWS), "pstate, 3,000 changes"),
                Contestant("PyYAML's C loader", "", partial(open_commented, "yaml", commented(), 1)),
                _limit("0.25 s for 1 MB", 0.25),
            ],
            {"0.25 s": 1},
            "vacuum 1 MB with comments",
        ),
        Work(
            "recover a journal, each record",
            [
                *_against_theirs(recover),
                Contestant("checksum and JSON alone", "", decode_only),
                _limit("400,000 records a second", 1 / 400_000),
            ],
            {"persistedstate": 100, "400,000": 1},
        ),
        Work(
            "catch up with another process, each record",
            [_ours(catch_up), _limit("1,000,000 records a second", 1e-6)],
            {"1,000,000": 1},
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
        *[
            work
            for several in (_done_by_several, _shares_of_several, _waits_of_several)
            for work in map(several, (2, 4))
        ],
        Work(
            "a whole script: start, open, set a key, end",
            [_ours(partial(script, "pstate")), _theirs(partial(script, "persistedstate"))],
            {"persistedstate": 1 / 1.1, "pstate (pure Python)": 1 / NOT_WORSE},
            "a script that sets a key",
        ),
        Work(
            "bytes of memory for 1 MB of YAML",
            [_ours(partial(memory, "pstate")), Contestant("plain dicts", "", partial(memory, "plain"))],
            {"plain dicts": 1 / 1.5, "pstate (pure Python)": 1 / NOT_WORSE},
        ),
        Work(
            "bytes of the file for 1 MB of YAML",
            _against_yaml(file_size, "PyYAML's dumper"),
            {"pstate (pure Python)": 1},
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
        if work.worst:
            results.append(Result(one.label, one.durability, max(took[one.label]), min(ratios)))
        else:
            of_rounds = statistics.median(took[one.label])
            results.append(Result(one.label, one.durability, of_rounds, statistics.median(ratios)))
    return results


def is_reached(work: Work, result: Result) -> bool | None:
    """Whether pstate is as fast beside *result* as it has promised; None where it has promised nothing."""
    bar = next((least for label, least in work.bars.items() if result.label.startswith(label)), None)
    return None if bar is None or result.note else result.ratio >= bar
