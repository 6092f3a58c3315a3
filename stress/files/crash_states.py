"""Record the system calls of a real run, and open every state of the disk that a power cut in it could leave.

The run is a program of commits, transactions, vacuums, closes and opens. It says before and after each commit that it
begins, and has returned; so at every call it is known what the file must have (what was acknowledged with durability
"power", what was vacuumed with "process") and what it may have at most.

The disk is modelled by what the manual pages promise, and no more. A file's data is durable after its fsync or
fdatasync. Without one, any part of what was written since may be missing: the writes from some point on, a part of a
write, blocks in any position, which are zeros then, or what they were before; and its length may be any that it had.
Entries of the folder are durable after its fsync; without it, the changes from some point on are missing, but they
are made in their order. Nothing orders data and entries. A real disk does less harm than that, but not the same on
every system: a state that only the model has is a state that some file system has.

Each state is written into a fresh folder and opened, under another boot id. Why not the real block device, replayed:
it needs a kernel module, sees only what one file system did in one run, and takes seconds for what takes milliseconds.
"""

from __future__ import annotations

import itertools
import os
import pickle
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

import yaml

from pstate.values import same
from stress.check import BrokenPromise, Trial, check, logged
from stress.files.disk_trace import Event, Recorder, Recording, noted, read_strace, strace_command
from stress.files.journals import State, commit
from stress.files.rebooted import Rebooted
from stress.real.workers import LOADER, open_state

NAME = "state.yaml"
#: What a disk may write whole or not at all: sectors, and the pages that a system writes.
BLOCKS = (512, 4096)
#: Up to so many combinations of blocks are tried all; of more, as many at random.
MOST_COMBINATIONS = 24
#: How many bytes of a write are tried as its last one, at most, at each point of the run.
MOST_CUTS = 24
#: Of how many states of one run, at most, and for how long, in seconds: then the next run has other ones.
MOST_STATES = 20_000
LONGEST = 20.0

#: Of these, long texts are made.
LONG = ["x" * 20, "--- " * 5, "... # pstate 1 ", "--- [[]]\n... # 0123abcd\n"]

Files = frozenset[tuple[str, bytes]]


# ---------------------------------------------------------------------- the program


def program(folder: Path, seed: int, durability: str, results: Path, fs: Any = None) -> None:
    """Commit, vacuum, close and open at random; say so on the null device, and write down the states at the end."""
    dice = Random(seed)
    options: dict[str, Any] = {"durability": durability} | ({"fs": fs} if fs else {})
    said = (fs or os).open(os.devnull, os.O_WRONLY | os.O_CLOEXEC, 0)

    def say(word: str) -> None:
        (fs or os).write(said, f"{word} {len(states) - 1}".encode())

    states: list[State] = []
    state = open_state(folder / NAME, **options)
    states.append(state.snapshot())
    for _ in range(dice.randrange(3, 9)):
        match dice.randrange(10):
            case 0 | 1:
                state.vacuum()
                say("vacuumed")
            case 2:
                state.close()
                say("vacuumed") if len(states) > 1 else None  # otherwise there may have been nothing to do
                state = open_state(folder / NAME, **options)
            case 3 | 4:
                # More than a sector: any part of it may be what reaches the disk.
                say("begins")
                state["long"] = dice.choice(LONG) * dice.randrange(99)
                states.append(state.snapshot())
                say("committed")
            case _:
                say("begins")
                commit(state, dice, dice.choice([20, 20, 400, 2000]))
                states.append(state.snapshot())
                say("committed")
    if dice.random() < 0.5:
        state.close()
        say("vacuumed") if len(states) > 1 else None
    results.write_bytes(pickle.dumps(states))
    os._exit(0) if fs is None else None


def record(trial: Trial, seed: int, durability: str, document: bytes | None) -> tuple[list[Event], list[State]]:
    """The events of a run of `program`, and its states."""
    folder, results = trial.folder / "run", trial.folder / "states"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    recorder = Recorder(str(folder))
    if document is not None:
        (folder / NAME).write_bytes(document)
        recorder.begin_with(NAME, len(document))
    if shutil.which("strace") and not trial.figures.get("strace", "").startswith("does not"):
        output = trial.folder / "strace.txt"
        task = (
            f"from pathlib import Path; from stress.files.crash_states import program; program(Path({str(folder)!r}), "
        )
        task += f"{seed}, {durability!r}, Path({str(results)!r}))"
        paths = os.pathsep.join(path or os.getcwd() for path in sys.path)
        run = subprocess.run(
            [*strace_command(output), sys.executable, "-c", task],
            env={**os.environ, "PYTHONPATH": paths},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        if run.returncode == 0:
            trial.figures["recorded by"] = "strace"
            read_strace(output.read_text(), recorder)
            return recorder.events, pickle.loads(results.read_bytes())
        if "ptrace" not in run.stderr.lower():
            raise BrokenPromise(f"the program failed: {run.stderr}")
        trial.figures["strace"] = "does not work here"
    trial.figures["recorded by"] = "a seam in the program (strace does not exist here)"
    program(folder, seed, durability, results, Recording(recorder))
    return recorder.events, pickle.loads(results.read_bytes())


# ---------------------------------------------------------------------- the disk


@dataclass
class File:
    """What a file has been since its last sync: `versions[0]` is durable."""

    versions: list[bytes] = field(default_factory=lambda: [b""])

    def contents(self, dice: Random) -> Iterator[bytes]:
        """What it may be after a power cut now."""
        yield from self.versions
        for before, after in itertools.pairwise(self.versions):
            if len(after) > len(before):
                lengths = range(len(before) + 1, len(after))
                for length in lengths if len(lengths) <= MOST_CUTS else dice.sample(lengths, MOST_CUTS):
                    yield after[:length]
        if len(self.versions) > 1:
            for block in BLOCKS:
                yield from self._in_blocks(block, dice)

    def _in_blocks(self, block: int, dice: Random) -> Iterator[bytes]:
        """Every length that it had, with each block as it was at any time."""
        longest = max(map(len, self.versions))
        choices = []
        for start in range(0, longest, block):
            seen = dict.fromkeys(version[start : start + block].ljust(block, b"\0") for version in self.versions)
            choices.append(list(seen))
        number = 1
        for choice in choices:
            number *= len(choice)
        if number <= MOST_COMBINATIONS:
            combinations: Iterator[tuple[bytes, ...]] = itertools.product(*choices)
        else:
            combinations = (tuple(map(dice.choice, choices)) for _ in range(MOST_COMBINATIONS))
        lengths = {len(version) for version in self.versions}
        for blocks in combinations:
            whole = b"".join(blocks)
            yield from (whole[:length] for length in lengths)
            yield whole[: dice.randint(min(lengths), longest)]


@dataclass
class Disk:
    """The folder as the calls so far have left it, and as a power cut may."""

    files: dict[int, File] = field(default_factory=dict)
    entries: list[dict[str, int]] = field(default_factory=lambda: [{}])  #: since the last sync; the first is durable

    def take(self, event: Event) -> None:
        """Carry *event* out."""
        entries = dict(self.entries[-1])
        match event.kind:
            case "create":
                self.files[event.file] = File()
                entries[event.name] = event.file
            case "rename":
                entries[event.other] = entries.pop(event.name)
            case "exchange":
                entries[event.name], entries[event.other] = entries[event.other], entries[event.name]
            case "unlink":
                del entries[event.name]
            case "sync folder":
                self.entries = [entries]
            case "write":
                file = self.files[event.file]
                if event.data:
                    file.versions.append(file.versions[-1].ljust(event.size, b"\0") + event.data)
            case "truncate":
                file = self.files[event.file]
                file.versions.append(file.versions[-1][: event.size].ljust(event.size, b"\0"))
            case "sync":
                file = self.files[event.file]
                file.versions = [file.versions[-1]]
        if entries != self.entries[-1]:
            self.entries.append(entries)

    def after_a_cut(self, dice: Random) -> Iterator[Files]:
        """What the folder may be."""
        for entries in self.entries:
            newest = {name: self.files[file].versions[-1] for name, file in entries.items()}
            oldest = {name: self.files[file].versions[0] for name, file in entries.items()}
            yield frozenset(oldest.items())
            for name, file in entries.items():
                for content in self.files[file].contents(dice):
                    yield frozenset({**newest, name: content}.items())
                    yield frozenset({**oldest, name: content}.items())


@dataclass(frozen=True)
class Bounds:
    """How many commits the file must have, and how many it may have."""

    least: int
    most: int
    point: int  #: the events so far
    may_be_missing: bool  #: the file itself


def states_of(events: list[Event], document: bytes | None, power: bool, dice: Random) -> Iterator[tuple[Files, Bounds]]:
    """Every state that a power cut during *events* may leave, with what must be found in it."""
    disk = Disk()
    if document is not None:
        disk.files[0] = File([document])
        disk.entries = [{NAME: 0}]
    least = most = 0
    missing = document is None
    for number, event in enumerate(events, 1):
        disk.take(event)
        if event.kind == "say":
            word, count = noted(event.data)
            if word == "begins":
                most = count + 1
            elif power or word == "vacuumed":
                least = count
                missing = missing and power and count == 0
            continue
        bounds = Bounds(least, most, number, missing)
        for files in disk.after_a_cut(dice):
            yield files, bounds


# ---------------------------------------------------------------------- what must be found


class Judge:
    """Opens states of a disk."""

    def __init__(self, trial: Trial, states: list[State], folder: Path) -> None:
        self.trial = trial
        self.folder = folder  #: empty before and after each look
        self.states = states
        self._fs = Rebooted()

    def look(self, files: Files, bounds: Bounds) -> None:
        """Open *files*, compare, go on. Raises BrokenPromise."""
        for name, content in files:
            (self.folder / name).write_bytes(content)
        path = self.folder / NAME
        try:
            if not path.exists() and not bounds.may_be_missing:
                raise BrokenPromise("the file is missing")
            with open_state(path, fs=self._fs, lock_timeout=1) as state:
                found = state.snapshot()
                self._expect(found, bounds)
                state["next"] = "word"
            self._expect_tidy(path, found)
        except Exception as error:
            evidence = self.trial.folder / "disk"
            evidence.mkdir()
            for name, content in files:
                (evidence / name).write_bytes(content)
            raise BrokenPromise(f"{error if isinstance(error, BrokenPromise) else repr(error)}") from error
        for name in os.listdir(self.folder):
            os.unlink(self.folder / name)

    def _expect(self, found: State, bounds: Bounds) -> None:
        if any(same(found, state) for state in self.states[bounds.least : bounds.most + 1]):
            return
        for number, state in enumerate(self.states):
            if same(found, state):
                raise BrokenPromise(
                    f"P5: {bounds.least} commits are required and {bounds.most} allowed, {number} were found"
                )
        raise BrokenPromise(f"P6: a state that never was: {str(found)[:500]}")

    def _expect_tidy(self, path: Path, found: State) -> None:
        """It has been found, and closed with one more commit."""
        documents = list(yaml.load_all(path.read_bytes(), LOADER))
        if len(documents) != 1 or not same(documents[0], {**found, "next": "word"}):
            raise BrokenPromise(f"P1: after the next commit and the close the file says {str(documents)[:500]}")
        for name in os.listdir(path.parent):
            if name == path.name:
                continue
            if name.startswith(f"{path.name}.cut-"):
                self.trial.count("unreadable ends kept")
            elif name.startswith(f"{path.name}.conflict-"):
                # No person took part: it is a vacuum's file, taken for a save because the trailer that would prove it
                # is lost. Nothing is lost by that, but somebody must look at it.
                self.trial.count("needless conflict files")
            else:
                raise BrokenPromise(f"P1: after a clean close there is {name}")


@check(
    "crash-states",
    "In every state that a power cut leaves, the file opens as its durability promises, and works.",
    share=2,
)
def crash_states(trial: Trial) -> None:
    with logged(trial.folder):
        while trial.goes_on():
            durability = trial.random.choice(["process", "power"])
            document = trial.random.choice([None, b"", b"a: 1\nkey: [1, 2]\n", b"# a comment\n"])
            seed = trial.random.randrange(1 << 32)
            events, states = record(trial, seed, durability, document)
            trial.count("runs")
            trial.count("system calls", sum(event.kind != "say" for event in events))
            _try_states(trial, events, states, durability, document)


def _try_states(
    trial: Trial, events: list[Event], states: list[State], durability: str, document: bytes | None
) -> None:
    distinct: dict[tuple[Files, int, int, bool], Bounds] = {}
    for files, bounds in states_of(events, document, durability == "power", trial.random):
        distinct.setdefault((files, bounds.least, bounds.most, bounds.may_be_missing), bounds)
        if len(distinct) >= MOST_STATES:
            break
    order = list(distinct.items())
    trial.random.shuffle(order)
    until = trial.left - LONGEST
    # In memory where there is such a place: what a state needs most is files that are made and deleted.
    memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    with tempfile.TemporaryDirectory(dir=memory, prefix="stress-") as folder:
        judge = Judge(trial, states, Path(folder))
        for number, ((files, *_), bounds) in enumerate(order):
            # Some of each run even when the time was up before it began.
            if number > 20 and (not trial.goes_on() or trial.left < until):
                trial.count("states left out", len(order) - number)
                break
            try:
                judge.look(files, bounds)
            except BrokenPromise as error:
                (trial.folder / "events.txt").write_text("".join(f"{n:4} {each}\n" for n, each in enumerate(events, 1)))
                raise BrokenPromise(
                    f'durability "{durability}", power cut after call {bounds.point} of events.txt, with what "disk" '
                    f"has: {error}"
                ) from error
            trial.count("states")
