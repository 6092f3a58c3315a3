"""Where the compiled hot path is promised, it is taken; where it must hand over, Python does the whole of it, right.

A compiled function that never acts would pass every other test, only slower. So each case says by which function it
is done, or by which it must not be, and what must be true afterwards. `pstate.speed.counts` has the numbers.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import pytest
from tools.disks import Seam
from tools.engines import opened as opened_by
from tools.engines import store_of
from tools.programs import needs_compiled

import pstate
from pstate import LockTimeout, PersistedState, speed
from pstate.engines import FILES
from pstate.file import limits
from pstate.testing.memory import MemoryEngine
from pstate.values import same
from stress.real.workers import read_fresh

pytestmark = needs_compiled

BEGINNING: dict[str, Any] = {
    "n": 0, "x": "text", "d": {"n": 1, "e": {"n": 2, "f": {"g": {"n": 3}}}}, "l": [{"n": 4}, 5], "z": {1},
}  # fmt: skip


class Own(PersistedState):
    """A subclass that changes nothing of how keys are read and set."""

    def count(self) -> None:
        self.n += 1


class Setting(PersistedState):
    """Its `__setitem__` must be called, also for attributes."""

    def __setitem__(self, key: Any, value: Any) -> None:
        super().__setitem__(key, value + 1 if type(value) is int else value)


class Case(NamedTuple):
    """What a case does after *before*, by which compiled functions, by which not, and what holds afterwards."""

    do: str
    taken: str = ""  #: names of `counts`, each of which must have acted
    not_taken: str = ""  #: and those that must not
    holds: str = "True"
    before: str = ""
    options: Mapping[str, Any] = MappingProxyType({})


BLOCK = "with s.transaction():\n    {}"

TAKEN: dict[str, Case] = {
    # reads
    "attribute": Case("assert s.n == 0", "read"),
    "item": Case("assert s['n'] == 0", "read"),
    "get": Case("assert s.get('n') == 0", "read"),
    "get with a default": Case("assert s.get('nothing', 7) == 7", "read"),
    "attribute of a nested dict": Case("assert d.n == 1", "read", before="d = s.d"),
    "item of a nested dict": Case("assert d['n'] == 1", "read", before="d = s.d"),
    "read in a block": Case("assert s.n == 1", "read", before="b = s.transaction(); b.__enter__(); s.n = 1"),
    "read by a read_only handle": Case("assert r.n == 0", "read", before="r = opened(read_only=True)"),
    "read by a subclass": Case("assert k.n == 0", "read", before="k = opened(Own)"),
    # commits
    "set by attribute": Case("s.n = 5", "put", holds="s.n == 5"),
    "set by item": Case("s['n'] = 5", "put", holds="s.n == 5"),
    "a new key": Case("s.new = 5", "put", holds="s.new == 5 and len(s) == 6"),
    "increment": Case("s.n += 1", "put read", holds="s.n == 1"),
    "set in a nested dict": Case("s.d.n = 5", "put", holds="s.d.n == 5"),
    "item of a nested dict is set": Case("s['d']['e']['n'] = 5", "put", holds="s.d.e.n == 5"),
    "set at depth 5": Case("s.d.e.f.g.n = 5", "put", holds="s.d.e.f.g.n == 5"),
    "set by a subclass": Case("k.count()", "put", holds="s.n == 1", before="k = opened(Own)"),
    "set with another handle open": Case("s.n = 5", "put", holds="u.n == 5", before="u = opened()"),
    "the largest integer": Case("s.n = 2**63 - 1", "put", holds="s.n == 2**63 - 1"),
    "the smallest integer": Case("s.n = -(2**63)", "put", holds="s.n == -(2**63)"),
    "a bool": Case("s.n = True", "put", holds="s.n is True"),
    "None": Case("s.n = None", "put", holds="s.n is None"),
    "a float": Case("s.n = 1.5", "put", holds="s.n == 1.5"),
    "a string": Case("s.n = 'a b: # c'", "put", holds="s.n == 'a b: # c'"),
    "an empty string": Case("s.n = ''", "put", holds="s.n == ''"),
    "a long string": Case("s.n = 'k' * 5000", "put", holds="s.n == 'k' * 5000"),
    "a long key": Case("s['k' * 5000] = 1", "put", holds="s['k' * 5000] == 1"),
    "a string of 1 KB": Case("s.n = 'k' * 1024", "put", holds="s.n == 'k' * 1024"),
    # transactions
    "a block": Case(BLOCK.format("s.n = 5"), "enter put_in_transaction leave", holds="s.n == 5"),
    "a block that increments": Case(BLOCK.format("s.n += 1; s.n += 1"), "read put_in_transaction", holds="s.n == 2"),
    "a block of several keys": Case(BLOCK.format("s.n = 5; s.x = 6; s.new = 7"), "enter leave", holds="s.new == 7"),
    "a block that sets in a nested dict": Case(BLOCK.format("s.d.n = 5"), "enter leave", holds="s.d.n == 5"),
    "a block that sets an item": Case(BLOCK.format("s['n'] = 5"), "put_in_transaction", holds="s.n == 5"),
    "an empty block": Case(BLOCK.format("pass"), "enter", holds="s.n == 0"),
    # what others do
    "another one's record is applied": Case("assert s.n == 5", "catch_up", before="o = stranger(); o.n = 5"),
    "another one's records are applied": Case(
        "assert s.new == 6 and s.n == 5", "catch_up", before="o = stranger(); o.n = 5; o.new = 6; o.x = 'b'"
    ),
    "a block after another one's commit": Case(
        BLOCK.format("s.n += 1"), "enter leave", holds="s.n == 6", before="o = stranger(); o.n = 5"
    ),
    # the rest
    "append": Case("s.l.append(6)", "append", holds="s.l[-1] == 6"),
    "append to a nested list": Case("s.d.l.append('b')", "append", holds="s.d.l == ['b']", before="s.d.l = []"),
    "power": Case("s.n = 5", "settle", holds="s.n == 5", options={"durability": "power"}),
    "records are read": Case(
        "u = opened(); assert u.n == 39", "decode",
        before="for number in range(40): s.n = number\ns.close(keep_journal=True)", holds="u.n == 39",
    ),
}  # fmt: skip

NOT_TAKEN: dict[str, Case] = {
    # values
    "a container": Case("s.n = {'n': 1}", not_taken="put", holds="s.n.n == 1"),
    "an empty list": Case("s.n = []", not_taken="put", holds="s.n == []"),
    "a string with a quote": Case("s.n = 'a\"b'", not_taken="put", holds="s.n == 'a\"b'"),
    "a string with a backslash": Case("s.n = 'a\\\\b'", not_taken="put", holds="s.n == 'a\\\\b'"),
    "a string with a control character": Case("s.n = 'a\\nb'", not_taken="put", holds="s.n == 'a\\nb'"),
    "a string with 0x7f": Case("s.n = '\\x7f'", not_taken="put", holds="s.n == '\\x7f'"),
    "a string that is not ASCII": Case("s.n = '\\xe9'", not_taken="put", holds="s.n == '\\xe9'"),
    "a float with an exponent": Case("s.n = 1e22", not_taken="put", holds="s.n == 1e22"),
    "a small float with an exponent": Case("s.n = 1e-7", not_taken="put", holds="s.n == 1e-7"),
    "infinity": Case("s.n = float('inf')", not_taken="put", holds="s.n == float('inf')"),
    "not a number": Case("s.n = float('nan')", not_taken="put", holds="s.n != s.n"),
    "a huge integer": Case("s.n = 2**63", not_taken="put", holds="s.n == 2**63"),
    "a small huge integer": Case("s.n = -(2**63) - 1", not_taken="put", holds="s.n == -(2**63) - 1"),
    "bytes": Case("s.n = b'x'", not_taken="put", holds="s.n == b'x'"),
    "a refused value": Case("refused('s.n = object()')", not_taken="put", holds="s.n == 0"),
    "a subclass of str": Case("refused('s.n = Text(\"b\")')", not_taken="put", holds="s.n == 0"),
    # keys
    "a key with a quote": Case("s['a\"b'] = 1", not_taken="put", holds="s['a\"b'] == 1"),
    "a key with a backslash": Case("s['a\\\\b'] = 1", not_taken="put", holds="s['a\\\\b'] == 1"),
    "a key with a control character": Case("s['a\\nb'] = 1", not_taken="put", holds="s['a\\nb'] == 1"),
    "a key that is not ASCII": Case("s['\\xe9'] = 1", not_taken="put", holds="s['\\xe9'] == 1"),
    "a key that is a number": Case("s[1] = 1", not_taken="put", holds="s[1] == 1"),
    "a key that is a bool": Case("s[True] = 1", not_taken="put", holds="s[True] == 1"),
    "a key that is None": Case("s[None] = 1", not_taken="put", holds="s[None] == 1"),
    "a key that is a subclass of str": Case("refused('s[Text(\"n\")] = 1')", not_taken="put", holds="s.n == 0"),
    "a key with a quote on the path": Case("s['\"'].n = 1", not_taken="put", holds="s['\"'].n == 1",
        before="s['\"'] = {}"),
    # places
    "the old value is a container": Case("s.d = 5", not_taken="put", holds="s.d == 5"),
    "the old value in a block is a container": Case(
        BLOCK.format("s.d = 5"), not_taken="put_in_transaction", holds="s.d == 5"
    ),
    "a container in a block": Case(BLOCK.format("s.n = []"), not_taken="put_in_transaction", holds="s.n == []"),
    "a container that was taken out": Case("d.n = 5", not_taken="put", holds="d.n == 5 and 'd' not in s",
        before="d = s.pop('d')"),
    "a container that was replaced": Case("d.n = 5", not_taken="put", holds="s.d.n == 6",
        before="d = s.d; s.d = {'n': 6}"),
    "a name with an underscore": Case("s._mark = 5", not_taken="put", holds="s._mark == 5 and '_mark' not in s"),
    "a name of a method": Case("refused('s.items = 5')", not_taken="put", holds="'items' not in s"),
    # the state of the store
    "a subclass with its own __setitem__": Case("k.n = 5", holds="s.n == 6", before="k = opened(Setting)"),
    "a watch": Case("s.n = 5", holds="[c.new for c in w.poll()] == [5]", before="w = s.watch()"),
    "a vacuum is due": Case("s.n = 5", not_taken="put", holds="plain()", before="journal().vacuum_at = 0"),
    "a look is due before a commit": Case("s.n = 5", not_taken="put", holds="s.n == 5", before="look().look_at = 0.0"),
    "a look is due before a read": Case("assert s.n == 0", not_taken="read", before="look().look_at = 0.0"),
    "a save by rename before a read": Case("assert s.n == 7", not_taken="read",
        before="saved('n: 7\\n'); look().look_at = 0.0"),
    "a save by rename before a commit": Case("s.n += 1", not_taken="put", holds="s.n == 8",
        before="saved('n: 7\\n'); look().look_at = 0.0"),
    "a change after an opening": Case("s.n = 5", not_taken="put", holds="s.n == 5", before="s.vacuum()"),
    "another one's commit before ours": Case("s.n += 1", holds="s.n == 6", before="o = stranger(); o.n = 5"),
    "another one's container": Case(
        "assert s.n.n == 1", not_taken="catch_up", holds="s.n.n == 1", before="o = stranger(); o.n = {'n': 1}"
    ),
    "another one's deletion": Case("assert 'x' not in s", not_taken="catch_up", before="o = stranger(); del o.x"),
    "a transaction of another thread, a read": Case(
        "refused('s.n', LockTimeout)", not_taken="read", before="in_thread(s)", options={"lock_timeout": 0.0}
    ),
    "a transaction of another thread, a commit": Case(
        "refused('s.n = 5', LockTimeout)", not_taken="put", before="in_thread(s)", options={"lock_timeout": 0.0}
    ),
    "a transaction of another thread, a block": Case(
        "refused('s.transaction().__enter__()', LockTimeout)", not_taken="enter", before="in_thread(s)",
        options={"lock_timeout": 0.0}
    ),
    "another one has the lock, a commit": Case(
        "refused('s.n = 5', LockTimeout)", not_taken="put", before="o = stranger(); b = o.transaction(); b.__enter__()",
        options={"lock_timeout": 0.0},
    ),
    "another one has the lock, a block": Case(
        "refused('s.transaction().__enter__()', LockTimeout)", not_taken="enter",
        before="o = stranger(); b = o.transaction(); b.__enter__()", options={"lock_timeout": 0.0},
    ),
    "the descriptor was closed, a read": Case("assert s.n == 0", not_taken="read", before="os.close(fd())"),
    "the descriptor was closed, a commit": Case("s.n = 5", not_taken="put", holds="s.n == 5", before="os.close(fd())"),
    "the descriptor was closed, a block": Case(
        BLOCK.format("s.n = 5"), not_taken="enter", holds="s.n == 5", before="os.close(fd())"
    ),
    "the descriptor is another file's": Case(
        "s.n = 5", not_taken="put", holds="s.n == 5 and other.read_bytes() == b'not ours'",
        before="other = path.with_name('other'); other.write_bytes(b'not ours'); become(other, fd())",
    ),
    "closed": Case("refused('s.n', pstate.ClosedError); refused('s.n = 5', pstate.ClosedError)", not_taken="read put",
        before="s.close()"),
    # other ways
    "another seam, a commit": Case("s.n = 5", not_taken="put read", holds="s.n == 5", options={"fs": Seam}),
    "another seam, a block": Case(
        BLOCK.format("s.n += 1"), not_taken="enter leave put", holds="s.n == 1", options={"fs": Seam}
    ),
    "another seam, an append": Case("s.l.append(6)", not_taken="append", holds="s.l[-1] == 6", options={"fs": Seam}),
    "another lock": Case("s.n = 5", not_taken="put", holds="s.n == 5", options={"locking": "filelock"}),
    "another lock, a block": Case(BLOCK.format("s.n = 5"), not_taken="enter leave", holds="s.n == 5",
        options={"locking": "filelock"}),
    "read_only": Case("refused('r.n = 5', pstate.ReadOnlyError)", not_taken="put", before="r = opened(read_only=True)"),
    "read_only, a block": Case(
        "refused('r.transaction().__enter__()', pstate.ReadOnlyError)", not_taken="enter",
        before="r = opened(read_only=True)"
    ),
    "the engine in memory": Case(
        "m.n = 5; m.n += 1\nwith m.transaction():\n    m.n += 1\nassert m.n == 7", not_taken="put enter leave catch_up",
        before="m = opened_by(MemoryEngine(), 'memory'); m.n = 0",
    ),
    "power is not a plain commit": Case("s.n = 5", not_taken="", holds="s.n == 5", options={"durability": "power"}),
    "a list on the path": Case("s.l[0].n = 5; s.l[0]['n'] += 1", holds="s.l[0].n == 6"),
}  # fmt: skip


class Text(str):
    pass


class Program:
    """A state, and what the lines of a case find."""

    def __init__(self, path: Path, options: Mapping[str, Any]) -> None:
        self.path = path
        self.options = {name: value() if isinstance(value, type) else value for name, value in options.items()}
        self.is_over = threading.Event()
        self.threads: list[threading.Thread] = []
        self.names: dict[str, Any] = {
            "os": os, "pstate": pstate, "Own": Own, "Setting": Setting, "Text": Text, "LockTimeout": LockTimeout,
            "opened_by": opened_by, "MemoryEngine": MemoryEngine, "path": path, "opened": self.opened,
            "stranger": lambda: opened_by(FILES, str(path)), "refused": self.refused, "journal": lambda: self.view()[4],
            "fd": lambda: self.view()[0], "look": lambda: store_of(self.names["s"]).log.look, "saved": self.saved,
            "plain": self.plain, "in_thread": self.in_thread, "become": self.become,
        }  # fmt: skip
        self.names["s"] = self.opened()
        self.names["s"].x = "text"  # from here on there is a journal
        with self.names["s"].transaction():
            pass  # from here on the end of this thread is noticed

    def opened(self, kind: type[PersistedState] = PersistedState, **options: Any) -> Any:
        options = {**self.options, **options}
        return kind.open(self.path, defaults=None if options.get("read_only") else BEGINNING, **options)

    def run(self, code: str) -> None:
        exec(code, self.names)

    def view(self) -> Any:
        return store_of(self.names["s"]).view

    def refused(self, code: str, kind: type[Exception] = Exception) -> None:
        with pytest.raises(kind):
            self.run(code)

    def saved(self, text: str) -> None:
        """An editor saves by rename."""
        new = self.path.with_name("new")
        new.write_text(text)
        new.replace(self.path)

    def plain(self) -> bool:
        """The file is a document without a journal."""
        return b"... # " not in self.path.read_bytes()

    def in_thread(self, state: Any) -> None:
        """Another thread is in a transaction, until the end."""
        begun = threading.Event()

        def wait() -> None:
            with state.transaction():
                state.x = "not committed yet"
                begun.set()
                self.is_over.wait(20)

        self.threads.append(threading.Thread(target=wait))
        self.threads[0].start()
        assert begun.wait(20)

    def become(self, other: Path, number: int) -> None:
        """The program closes all descriptors, and opens another file."""
        fd = os.open(other, os.O_RDWR)
        os.dup2(fd, number)
        os.close(fd)

    def end(self) -> None:
        self.is_over.set()
        for thread in self.threads:
            thread.join()
        for name in ("b",):
            if name in self.names:
                self.names[name].__exit__(None, None, None)
        for value in [*self.names.values()]:
            if isinstance(value, PersistedState):
                value.close()


Make = Callable[[Mapping[str, Any]], Program]


@pytest.fixture
def make(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Make]:
    """No look at the path comes by the clock, and a save is over at once."""
    monkeypatch.setattr(limits, "LOOK_INTERVAL", 1000.0)
    monkeypatch.setattr(limits, "QUIET", 0.0)
    made: list[Program] = []

    def make(options: Mapping[str, Any]) -> Program:
        made.append(Program(tmp_path / "state.yaml", options))
        return made[-1]

    yield make
    for program in made:
        program.end()


def taken() -> dict[str, int]:
    return {name: numbers[0] for name, numbers in speed.counts().items()}


def carried_out(program: Program, case: Case) -> dict[str, int]:
    """Which compiled functions *case* was done by, and how often. Asserts that it was done right."""
    program.run(case.before)
    code = compile(case.do, "<case>", "exec")
    before = taken()
    exec(code, program.names)
    after = taken()
    assert eval(case.holds, program.names)
    return {name: number - before[name] for name, number in after.items()}


def expect_one_state(program: Program) -> None:
    """What memory says is what somebody reads who opens the file now."""
    state = program.names["s"]
    if store_of(state).closed or program.threads or "b" in program.names:
        return
    assert same(read_fresh(program.path), state.snapshot())
    store_of(state).check()


@pytest.mark.parametrize("name", TAKEN)
def test_the_compiled_function_is_taken(make: Make, name: str) -> None:
    case = TAKEN[name]
    program = make(case.options)

    acted = carried_out(program, case)

    assert [] == [each for each in case.taken.split() if acted[each] == 0], acted
    expect_one_state(program)


@pytest.mark.parametrize("name", NOT_TAKEN)
def test_python_does_what_is_not_the_usual_case(make: Make, name: str) -> None:
    case = NOT_TAKEN[name]
    program = make(case.options)

    acted = carried_out(program, case)

    assert [] == [each for each in case.not_taken.split() if acted[each] > 0], acted
    expect_one_state(program)


def test_each_count_is_of_something_that_a_case_takes() -> None:
    named = {name for case in TAKEN.values() for name in case.taken.split()}
    assert named == set(speed.counts())


def test_what_is_taken_and_what_is_not_is_counted_apart(make: Make) -> None:
    state = make({}).names["s"]
    before = speed.counts()["put"]

    state.n = 1
    state.n = "\xe9"

    acted, handed_over = speed.counts()["put"]
    assert acted - before[0] == 1
    assert handed_over - before[1] > 0  # as an attribute, and as the item that it is


def test_a_loop_is_taken_each_time(make: Make) -> None:
    """Once would be enough for the cases above."""
    state = make({}).names["s"]
    before = taken()
    for _ in range(500):
        state.n += 1
        with state.transaction():
            state.n += 1

    acted = {name: number - before[name] for name, number in taken().items()}
    assert 1000 == state.n
    assert {"put": 1000, "put_in_transaction": 500, "enter": 500, "leave": 500} == {
        name: acted[name] for name in ("put", "put_in_transaction", "enter", "leave")
    }
    assert acted["read"] >= 1000
