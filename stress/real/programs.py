"""Programs as data, and their results: each thing that they see, and each byte that they leave.

A program is a dict that JSON can hold: the options to open a state with, a base document that a person wrote, and a
list of steps. A step is a line of Python (its value is noted, or what it raises), or a list that begins with a word:

- ``["block", handle, end, steps]``: a transaction. *end* is "commit"; "undo", an exception at its end; or "through",
  where what a step raises leaves the block.
- ``["thread", name, steps]``: another thread takes these steps, while this one waits.
- ``["full", room, steps]``: meanwhile the file may grow by *room* bytes only.

The lines are run in the names of `Names`. So two programs are equal if their JSON is, one can be run by two processes,
and one that fails can be pasted into a script.

`python -m stress.real.programs` runs programs from standard input, a line of JSON each, and answers with a line of
JSON each. `stress.real.flavours` compares what two of them answer.
"""

from __future__ import annotations

import contextlib
import gc
import json
import logging
import os
import queue
import re
import resource
import sys
import threading
import zlib
from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime, timedelta, timezone
from http import HTTPStatus
from pathlib import Path
from typing import Any

from pstate import PersistedState, speed, store
from pstate.engines import FILES
from pstate.file import limits, vacuum
from pstate.file.fs import SYSTEM
from pstate.file.log import FileLog
from pstate.memory import ops
from pstate.memory.dicts import MappedDict
from pstate.memory.lists import MappedList
from pstate.memory.sets import MappedSet
from pstate.state import Transaction
from stress.real.workers import check_invariants, die_with_parent

Program = dict[str, Any]

#: The fields of an error that its message says, or that are not strings.
TOLD = ("message", "obj")

#: The names of a program that are handles, containers, or None of these.
MEMORY = ("s", "u", "r", "o", "k", "held", "kept")

#: What a state of a program begins with, if a line asks for it.
BEGINNING: dict[Any, Any] = {
    "n": 0,
    "x": "text",
    "d": {"n": 1, "e": {"n": 2}},
    "l": [{"n": 3}, [1, 2], 3],
    "z": {1, 2},
    "a": {"b": {"c": {"d": {"n": 4}}}},
}


class Undo(Exception):
    """Leaves a block that is not meant to be committed."""


# ---------------------------------------------------------------------- classes that programs use


class Text(str):
    """A subclass, which no state takes."""


class Number(int):
    """A subclass, which no state takes."""


class Fraction(float):
    """A subclass, which no state takes."""


class Other:
    """A value that a state refuses, and that some libraries make: a number without being one."""

    def __index__(self) -> int:
        return 7

    def __float__(self) -> float:
        return 7.0

    def __repr__(self) -> str:
        return "Other()"


class Trap:
    """An object whose comparison raises. As a key, it is refused before anybody compares it."""

    def __eq__(self, other: object) -> bool:
        raise LookupError("compared")

    def __hash__(self) -> int:
        return hash("n")

    def __repr__(self) -> str:
        return "Trap()"


class Same:
    """An object that is equal to the key "n", and finds it."""

    def __eq__(self, other: object) -> bool:
        return other == "n"

    def __hash__(self) -> int:
        return hash("n")

    def __repr__(self) -> str:
        return "Same()"


class Liar:
    """An object that says that it is an integer, as a mock does."""

    __class__ = property(lambda self: int)  # pyright: ignore[reportIncompatibleMethodOverride]

    def __repr__(self) -> str:
        return "Liar()"


class Mixed:
    """What is mixed into a state, and comes before it."""

    def __getitem__(self, key: Any) -> Any:
        return ("mixed", super().__getitem__(key))  # type: ignore[misc]

    def __getattribute__(self, name: str) -> Any:
        return "mixed" if name == "mixed" else super().__getattribute__(name)

    def __delitem__(self, key: Any) -> None:
        super().__delitem__(key)  # type: ignore[misc]


class Mixing(Mixed, PersistedState):
    """A subclass with something before us."""


class Counted(MappedDict):
    """A subclass of the kind below, which has a `__dict__` and no file."""


class Getting(PersistedState):
    """A subclass with its own ways of reading, which end in ours."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("own"):
            return f"own {name}"
        return super().__getattr__(name)

    def __getitem__(self, key: Any) -> Any:
        return ("item", super().__getitem__(key))


class Setting(PersistedState):
    """A subclass that changes what is set as an item, and so as an attribute."""

    def __setitem__(self, key: Any, value: Any) -> None:
        super().__setitem__(key, value + 1 if type(value) is int else value)


class Naming(PersistedState):
    """A subclass with its own way of setting attributes."""

    def __setattr__(self, name: str, value: Any) -> None:
        if name.startswith("upper"):
            name = name.upper()
        super().__setattr__(name, value)


class Having(PersistedState):
    """A subclass with a property, a method, and an attribute of Python's."""

    _mark: Any = None

    @property
    def total(self) -> Any:
        return self["n"]

    @total.setter
    def total(self, value: Any) -> None:
        self["n"] = value

    @property
    def broken(self) -> Any:
        return self.no_such_key

    def count(self) -> Any:
        self.n += 1
        object.__setattr__(self, "_mark", self.n)
        return self._mark


CLASSES: dict[str, type[PersistedState]] = {
    each.__name__: each for each in (PersistedState, Getting, Setting, Naming, Having, Mixing)
}
#: What lines use without opening a state with it.
KINDS: dict[str, Any] = {
    each.__name__: each
    for each in (
        Text, Number, Fraction, Other, Trap, Same, Liar, Mixed, Counted, MappedDict, MappedList, MappedSet, Transaction,
        date, datetime, timedelta, timezone, HTTPStatus,
    )
}  # fmt: skip

# ---------------------------------------------------------------------- what is noted


def spelled(value: Any, depth: int = 0) -> str:
    """*value* with its types, at every depth. Memory is looked at as it is: no look of ours may bring it up to date."""
    kind = type(value).__name__
    if depth > 120:
        return "and so on"  # a cycle
    if isinstance(value, dict):
        items = [(spelled(key, depth), spelled(item, depth + 1)) for key, item in dict.items(value)]
        return f"{kind}{{{', '.join(f'{key}: {item}' for key, item in items)}}}"
    for base in (set, frozenset, list, tuple):
        if isinstance(value, base):
            look: Any = base.__iter__
            inner = [spelled(each, depth + 1) for each in look(value)]
            return f"{kind}({', '.join(inner if base in (list, tuple) else sorted(inner))})"
    if value is None or isinstance(value, (bool, int, float, str, bytes, date)):
        try:
            return f"{kind} {value!r}"
        except ValueError:
            return f"{kind} {hex(value)}"  # type: ignore[arg-type]  # more digits than Python writes
    return kind


def told(error: BaseException) -> str:
    """The type of *error*, its text, its fields, and the type of its cause."""
    fields = {name: spelled(field) for name, field in sorted(vars(error).items()) if name not in TOLD}
    if isinstance(error, AttributeError):
        fields["name"] = repr(error.name)
    if isinstance(error, OSError):
        fields["errno"] = repr(error.errno)
    return f"{type(error).__name__}: {error} {fields} from {type(error.__cause__).__name__}"


class Notes(logging.Handler):
    """What a program has seen, in lines that do not tell where, when and in which process it was."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.lines: list[str] = []
        self._folder = str(folder)

    def note(self, text: str) -> None:
        text = text.replace(self._folder, "FOLDER")
        text = re.sub(rf"\bprocess \(?{os.getpid()}\b", "process PID", text)
        text = re.sub(r"\b\d+\.\d s\b", "N s", re.sub(r"\b0x[0-9a-f]{8,}\b", "ADDRESS", text))
        self.lines.append(re.sub(r"'(waited|holder|thread)': '[^']*'", r"'\1'", text))

    def emit(self, record: logging.LogRecord) -> None:
        self.note(f"log {record.levelname} {record.getMessage()}")

    def unraisable(self, args: Any) -> None:
        self.note(f"unraisable {told(args.exc_value)}")


# ---------------------------------------------------------------------- the names that lines use


class Names:
    """The names that a line of a program finds: `s` is the state, `held` a container that was taken from it."""

    def __init__(self, path: Path, options: dict[str, Any]) -> None:
        self.path = path
        self.options = {"lock_timeout": 0, **options}
        self.names: dict[str, Any] = {
            **CLASSES,
            **KINDS,
            "UTC": UTC,
            "path": path,
            "check_invariants": check_invariants,
            "opened": self.opened,
            "stranger": self.stranger,
            "due": self.due,
            "kept": {},
        }

    def opened(self, kind: type[PersistedState] = PersistedState, **options: Any) -> PersistedState:
        """One more handle of the state, with defaults unless it may not write."""
        options = {**self.options, **options}
        if not options.get("read_only"):
            options.setdefault("defaults", BEGINNING)
        return kind.open(self.path, **options)

    def stranger(self) -> PersistedState:
        """The state as another process has it: in a store of its own, which the others of this process do not share."""
        handle = PersistedState.__new__(PersistedState)
        for name, value in (("_parent", ops.ROOT), ("_key", None), ("_reopen", (str(self.path), {}))):
            ops.set_slot(handle, name, value)
        store.Store(str(self.path), engine=FILES, lock_timeout=0).attach(handle, 0)
        return handle

    def due(self) -> None:
        """Let the next read and the next change look at the path, as if time had passed."""
        for each in store._each():
            look: Any = getattr(each.log, "look", None)
            if look is not None:
                look.look_at = look.look_due = 0.0


@contextlib.contextmanager
def limited(size: int) -> Iterator[None]:
    """No file can grow beyond *size* bytes in the block. Python ignores the signal, so that a write takes a part."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


class Turns:
    """Threads that take steps in turn: a thread that gives its turn away waits until it comes back."""

    def __init__(self) -> None:
        self._orders: dict[str, queue.SimpleQueue[Callable[[], None] | None]] = {}
        self._threads: list[threading.Thread] = []
        self._at_work: list[str] = []

    def give(self, name: str, work: Callable[[], None]) -> None:
        """Let the thread *name* do *work*. One that has given its turn away does it here."""
        if name in self._at_work:
            work()
            return
        if name not in self._orders:
            orders = self._orders[name] = queue.SimpleQueue()
            thread = threading.Thread(target=self._serve, args=(orders,), name=name, daemon=True)
            self._threads.append(thread)
            thread.start()
        done = threading.Event()

        def work_and_tell() -> None:
            try:
                work()
            finally:
                done.set()

        self._at_work.append(name)
        self._orders[name].put(work_and_tell)
        done.wait()
        self._at_work.remove(name)

    @staticmethod
    def _serve(orders: queue.SimpleQueue[Callable[[], None] | None]) -> None:
        while (work := orders.get()) is not None:
            work()

    def end(self) -> None:
        for orders in self._orders.values():
            orders.put(None)
        for thread in self._threads:
            thread.join()


# ---------------------------------------------------------------------- running one


class Run:
    """One program in one folder."""

    def __init__(self, program: Program, folder: Path) -> None:
        self.path = folder / "state.yaml"
        if program.get("base") is not None:
            self.path.write_text(program["base"], encoding="utf-8", newline="")
        self.notes = Notes(folder)
        self.names = Names(self.path, program.get("options", {})).names
        self.turns = Turns()
        self.steps = program["steps"]

    def carry_out(self) -> dict[str, Any]:
        """What the program saw, what memory is at its end, and the file before and after the close."""
        for number, step in enumerate(self.steps):
            self.notes.note(f"step {number} {json.dumps(step)}")
            self.step(step, through=False)
            self.notes.note(f"file {self.mark()}")
        self.notes.note("end")
        self.try_line("s.snapshot()")
        self.try_line("check_invariants()")
        memory = {name: spelled(value) for name, value in self.names.items() if name in MEMORY}
        journal = self.bytes()
        self.notes.note("close")
        self.close()
        return {"log": self.notes.lines, "memory": memory, "journal": journal, "closed": self.bytes()}

    def bytes(self) -> str:
        return self.path.read_bytes().decode("latin-1") if self.path.exists() else ""

    def mark(self) -> str:
        data = self.path.read_bytes() if self.path.exists() else b""
        return f"{len(data)} {zlib.crc32(data):08x}"

    def close(self) -> None:
        for name in [name for name, value in self.names.items() if isinstance(value, PersistedState)]:
            self.try_line(f"{name}.close()")
        self.turns.end()
        self.names.clear()

    # steps

    def step(self, step: Any, through: bool) -> None:
        """Take one step. *through*: what it raises is raised here as well."""
        if isinstance(step, str):
            self.try_line(step, through)
        elif step[0] == "thread":
            _, name, steps = step
            self.turns.give(name, lambda: self.all_of(steps, False))
        elif step[0] == "full":
            _, room, steps = step
            with limited(len(self.bytes()) + room):
                self.all_of(steps, through)
        else:
            _, handle, end, steps = step
            self.block(handle, end, steps, through)

    def all_of(self, steps: list[Any], through: bool) -> None:
        for step in steps:
            self.step(step, through)

    def block(self, handle: str, end: str, steps: list[Any], through: bool) -> None:
        try:
            with eval(f"{handle}.transaction()", self.names) as transaction:
                outer = self.names.get("t")
                self.names["t"] = transaction
                try:
                    self.all_of(steps, end == "through")
                finally:
                    self.names["t"] = outer
                if end == "undo":
                    raise Undo
            self.notes.note("left")
        except Undo:
            self.notes.note("undone")
        except Exception as error:
            self.notes.note(f"left by {told(error)}")
            if through:
                raise

    def try_line(self, line: str, through: bool = False) -> None:
        try:
            self.notes.note(self.line(line))
        except Exception as error:
            self.notes.note(told(error))
            error.__traceback__ = None
            if through:
                raise

    def line(self, line: str) -> str:
        try:
            code = compile(line, "<program>", "eval")
        except SyntaxError:
            exec(compile(line, "<program>", "exec"), self.names)
            return ""
        return spelled(eval(code, self.names))


@contextlib.contextmanager
def reproducible(program: Program, notes: Notes) -> Iterator[None]:
    """What differs between two runs in one way or another does not, and what is told otherwise is noted."""
    generations = iter(range(0x1234_5678, 0x7FFF_FFFF))
    changed: list[tuple[Any, str, Any]] = [
        (SYSTEM, "token", lambda: f"{next(generations):08x}"),
        (SYSTEM, "boot_id", lambda: "0123abcd"),
        (FileLog, "has_followers", False),  # a thread that follows for a watch takes its turns when it likes
        (vacuum, "WATCHERS_AT_MOST", 0.0),
        (limits, "JOURNAL_MINIMUM", program.get("journal_minimum", limits.JOURNAL_MINIMUM)),
        (limits, "LOOK_INTERVAL", 1000.0),  # `Names.due` says when to look at the path, and no clock
        (sys, "unraisablehook", notes.unraisable),
    ]
    logger = logging.getLogger("pstate")
    logger.addHandler(notes)
    with contextlib.ExitStack() as stack:
        for owner, name, value in changed:
            if name in vars(owner):
                stack.callback(setattr, owner, name, vars(owner)[name])
            else:
                stack.callback(delattr, owner, name)
            setattr(owner, name, value)
        stack.callback(logger.removeHandler, notes)
        yield


def run(program: Program, folder: Path) -> dict[str, Any]:
    """Run *program* in *folder*, which is emptied before, and leave nothing in this process."""
    folder.mkdir(parents=True, exist_ok=True)  # on a disk of this process, too
    for leftover in folder.iterdir():
        leftover.unlink()
    one = Run(program, folder)
    with reproducible(program, one.notes):
        result = one.carry_out()
        del one
        gc.collect()
    return result


def main() -> None:
    """Answer each program that comes, until nobody sends one."""
    die_with_parent()
    logging.getLogger("pstate").propagate = False
    names: dict[str, Any] = {}
    for line in sys.stdin:
        order = json.loads(line)
        if "prelude" in order:
            exec(order["prelude"], names)
            answer: Any = speed.compiled
        else:
            answer = run(order["program"], Path(order["folder"]))
            answer["counts"] = speed.counts()
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
