"""The compiled hot path and pure Python do the same: values, errors, texts, bytes and memory.

Each program is run by two processes, one of which has the compiled part switched off by PSTATE_PURE. A difference is
shown with the step that it comes after; hypothesis makes the program small.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, example, given, settings
from tools.programs import needs_compiled, programs, simple

from stress.check import CHECKS, BrokenPromise, Trial
from stress.real import flavours
from stress.real.flavours import Died, Pair, Program, Runner, difference

#: How many random programs are run. `make stress` runs them for as long as it is told.
EXAMPLES = int(os.environ.get("PSTATE_PROGRAMS", "40"))

#: Keys that a record needs no escape for, and those that it does.
PLAIN_KEYS = ["'n'", "'new'", "''", "'a b'", "'null'", "'#'", "'k' * 900", "'items'", "'_u'"]
OTHER_KEYS = ["'\"'", "'\\\\'", "'\\n'", "'\\x7f'", "'\\xe9'", "'k' * 2000", "1", "True", "1.5", "None", "b'x'"]
VALUES = [
    "True", "False", "None", "0", "-1", "10**9", "2**63 - 1", "2**63", "-2**63", "-2**63 - 1", "10**400", "1.5", "-0.0",
    "0.1", "1e15", "1e16", "1e-4", "1e-5", "float('inf')", "-float('inf')", "float('nan')", "''", "'b'", "'null'",
    "'\"'", "'\\\\'", "'\\n'", "'\\x00'", "'\\x7f'", "'\\xe9'", "'\\U0001f600'", "'k' * 1899", "'k' * 1900",
    "'k' * 4096", "b'x'", "date(2020, 1, 2)", "datetime(2020, 1, 2)", "{}", "[]", "set()", "{'n': 1}", "s.d",
    "Text('b')", "Number(3)", "Fraction(0.5)", "Other()", "'\\ud800'",
    "Liar()", "HTTPStatus.OK",
]  # fmt: skip


def everywhere(value: str) -> list[Any]:
    """Each way to set *value*, also over a value of another kind, and in a block."""
    ways = [f"s.n = {value}", "s.n", f"s['n'] = {value}", f"s.d.n = {value}", f"s.d['e']['n'] = {value}"]
    lists = [f"s.l.append({value})", f"s.l[0].n = {value}", f"s.l[2] = {value}", f"s.update(n={value}, x={value})"]
    block: list[Any] = [f"s.n = {value}", "s.n = 1", f"s.n = {value}", f"s.d.n = {value}", "s.n", "s.d.n"]
    return [*ways, *lists, ["block", "s", "commit", block], "s.n", ["block", "s", "undo", block], "s.n"]


def by_key(key: str) -> list[Any]:
    """Each use of *key*."""
    ways = [f"s[{key}] = 1", f"s[{key}]", f"s[{key}] += 1", f"setattr(s, {key}, 2)", f"getattr(s, {key}, None)"]
    ways += [f"s.d[{key}] = 3", f"s.d[{key}] = {{'n': 1}}", f"s.d[{key}].n += 1", f"s.get({key})", f"{key} in s"]
    return [*ways, ["block", "s", "commit", ways], f"s.l.append({key})", f"del s[{key}]", f"s[{key}]"]


#: Name -> a program that shows one kind of difference, if there is one.
FIXED: dict[str, Program] = {
    **{f"value {value}": simple(*everywhere(value)) for value in VALUES},
    **{f"key {key}": simple(*by_key(key)) for key in PLAIN_KEYS + OTHER_KEYS},
    "a container comes to an item that the block has set": simple(
        ["block", "s", "commit", ["s.n = 1", "s.n = {'n': 1}", "s.n.n = 2", "s.n = 3", "s.n = [1]", "s.n"]], "s.n"
    ),
    "a block inside a block is undone": simple(
        ["block", "s", "commit", ["s.n = 1", ["block", "s", "undo", ["s.n = 2", "s.d.n = 2", "s.new = 2"]], "s.n",
        "s.n = 3"]],
        "s.snapshot()",
    ),
    "a block that rolls back itself": simple(
        ["block", "s", "commit", ["s.n = 1", "t.rollback()", "s.n", "s.n = 2", "s.new = 3"]], "s.n", "s.n = 4"
    ),
    "an error leaves a block": simple(
        ["block", "s", "through", ["s.n = 1", "s.d.n = 2", "s.nothing"]], "s.n", "s.n = 5", "s.d.n"
    ),
    "a block of reads": simple(["block", "s", "commit", ["s.n", "s.d.n", "s['x']", "'n' in s", "len(s)"]]),
    "an empty block": simple(["block", "s", "commit", []], "s.n = 1"),
    "a container that was taken out": simple(
        "held = s.pop('d')", "held.n = 1", "held['new'] = 2", "held", "s.d = held", "held.n = 3", "s.d.n",
        ["block", "s", "undo", ["held = s.pop('d')", "held.n = 7"]], "held.n", "s.d.n", "held.n = 8", "s.d.n",
    ),
    "a container that was replaced": simple(
        "held = s.d", "s.d = {'n': 9}", "held.n", "held.n = 1", "s.d.n", "s.d = 1", "held = s.l[0]", "s.l.pop(0)",
        "held.n = 2", "s.l",
    ),
    "a container that another process has removed": simple(
        "o = stranger()", "held = s.d", "del o.d", "held.n", "held.n = 1", "held.e", "s.n = 2"
    ),
    "what another process commits": simple(
        "o = stranger()", "o.n = 5", "s.n", "o.n = 6", "o.d.n = 7", "o.l.append(1)", "o.new = {'n': 1}", "del o.x",
        "s.n",
        "s.n += 1", "o.n", "o.update(n=1, m='b', x=1.5, y=None, z=True)", "s.n += 1", "o.m = '\\xe9'", "o.n = 2**70",
        "s.snapshot()", ["block", "s", "commit", ["o.n = 1", "s.n += 1"]], "o.n", ["block", "o", "commit", ["s.n = 1"]],
        ["block", "o", "commit", ["o.n = 1", "o.d.n = 2"]], "s.d.n",
    ),
    "several handles": simple(
        "u = opened()", "k = opened(Having)", "r = opened(read_only=True)", "s.n = 1", "u.n", "k.n", "r.n", "u.n += 1",
        "k.total += 1", "s.n", "k.count()", "k._mark", "u.d.n = 5", "s.d.n", ["block", "u", "commit", ["s.n = 7",
        "k.n"]],
        "s.close()", "u.n += 1", "k.n", "s.n", "s.n = 1", "r.n = 1", "r['n'] = 1", "r.d.n = 1",
        ["block", "r", "commit", ["r.n"]], "del r.n",
    ),
    "a class with its own __getattr__ and __getitem__": simple(
        "k = opened(Getting)", "k.n", "k.owned", "k.nothing", "k['n']", "k['nothing']", "k.d.n", "k.get('n')",
        "k.n = 1",
        "k['n'] = 2", "k['n'] += 1", "k._nothing", "hasattr(k, 'nothing')", "k.close()", "k.n", "k['n']", "k.n = 1",
    ),
    "a class with its own __setitem__": simple(
        "k = opened(Setting)", "k.n = 1", "k.n", "k['n'] = 1", "k.n", "k.update(n=1)", "k.n", "k.d.n = 1", "k.d.n",
        ["block", "k", "commit", ["k.n = 10", "k['n'] = 20", "k.x = 'b'"]], "s.n", "k.setdefault('new', 1)",
    ),
    "a class with its own __setattr__": simple(
        "k = opened(Naming)", "k.upper = 1", "k.UPPER", "k.n = 2", "k.n", ["block", "k", "commit", ["k.upper = 3"]],
        "k['upper'] = 1", "object.__setattr__(k, '_mark', 1)", "k._mark", "object.__setattr__(k, 'n', 5)", "k.n",
        "k['n']",
    ),
    "a class with a property": simple(
        "k = opened(Having)", "k.total", "k.total = 5", "k.n", "k.broken", "k.count()", "k.count = 1", "k._mark = 2",
        "k._mark", "del k._mark", "del k.total", "k.total += 1", ["block", "k", "commit", ["k.total = 1", "k.count()"]],
    ),
    "names that are not keys": simple(
        "s.items = 1", "s.update = 1", "s._u = 1", "s._store = 1", "s._key", "s.d._u = 1", "s.d.items = 1",
        "s.d._key = 1",
        "s.nothing", "s.d.nothing", "s['nothing']", "s.d['nothing']", "s.__nothing__", "del s.nothing",
        "del s['nothing']",
        "object.__setattr__(s.d, 'n', 1)", "object.__delattr__(s, 'n')", "s.transaction = 1", "getattr(s, '')",
        "setattr(s, '', 1)", "s.d.__dict__", "setattr(s.d, Text('n'), 1)", "getattr(s.d, Text('n'))",
    ),
    "keys that look like another": simple(
        "s[Text('n')] = 1", "s[Text('n')]", "s[Same()]", "s[Same()] = 1", "s[Trap()]", "s[Trap()] = 1", "Trap() in s",
        "s.get(Trap())", "s[True] = 1", "s[1]", "s[1.0]", "s[1.0] = 2", "list(s.items())[-1]", "s[[]]", "s[[]] = 1",
        "s[float('nan')] = 1", "len(s)",
    ),
    "threads take turns": simple(
        ["thread", "a", ["s.n = 1", ["block", "s", "commit", ["s.n = 2", ["thread", "b", ["s.n", "s.n = 3", "s.d.n",
        "len(s)"]]]]]],
        "s.n", ["block", "s", "commit", [["thread", "a", ["s.n", "s.n = 1", ["block", "s", "commit", ["s.n = 1"]]]],
        "s.n += 1"]],
        "s.n",
    ),
    "a block ends in another thread": simple(
        "b = s.transaction()", "b.__enter__()", "s.n = 1", ["thread", "a", ["b.__exit__(None, None, None)"]], "s.n = 2",
        "b.__exit__(None, None, None)", "s.n", "s.n = 3",
    ),
    "a block is entered and left by hand": simple(
        "b = s.transaction()", "b.__enter__() is b", "b.__enter__()", "s.n = 1", "c = s.transaction()",
        "c.__enter__() is c",
        "s.n = 2", "b.__exit__(None, None, None)", "s.n", "c.__exit__(None, None, None)", "s.n = 3", "b.rollback()",
        "b.__exit__(None, None, None)", "s.transaction(timeout=0)(len)(s)",
    ),
    "a vacuum is due": simple(
        *(f"s.n = {number}" for number in range(120)), "s.x = 'k' * 1500",
        *(f"s.d.n = {number}" for number in range(60)),
        ["block", "s", "commit", ["s.x = 'b' * 1800", "s.n = 1", "s.d.n = 1"]], "s.n = 5", journal_minimum=3000,
    ),
    "a vacuum, and an opening": simple(
        "s.n = 1", "s.vacuum()", "s.n", "s.n = 2", ["block", "s", "commit", ["s.n = 3"]], "s.close()", "s.n", "s.n = 1",
        ["block", "s", "commit", []], "s = opened()", "s.n", "s.n = 4", "s.close(keep_journal=True)", "s = opened()",
        "s.n = 5",
    ),
    "the first change after an opening is in a block": simple(
        "s.vacuum()", ["block", "s", "commit", ["s.n = 1", "s.n = 2"]], "s.n = 3", "s.vacuum()",
        ["block", "s", "undo", ["s.n = 4"]], "s.n = 5",
    ),
    "a look is due": simple(
        "s.n = 1", "due(); s.n", "s.n", "due(); s.n = 2", ["block", "s", "commit", ["due()", "s.n = 3", "s.n"]],
        "due(); held = s.transaction(); held.__enter__()", "s.n = 1", "held.__exit__(None, None, None)",
    ),
    "a watch": simple(
        "s.n = 1", "w = s.watch()", "s.n = 2", "s.d.n = 3", ["block", "s", "commit", ["s.n = 4", "s.n = 5"]],
        "o = stranger()",
        "o.n = 6", "s.n", "[(c.path, c.old, c.new, c.origin) for c in w.poll()]", "w.close()", "s.n = 7",
        "[(c.path, c.old, c.new) for c in s.history()]",
    ),
    "no room": simple(
        "s.n = 1",
        *(["full", room, ["s.n = 2", "s.n", "s.d.n = 3", "s.l.append(1)", ["block", "s", "commit", ["s.n = 4",
        "s.x = 1"]], "s.n"]]
          for room in (0, 1, 20, 40, 60)),
        "s.n = 5", ["full", 10, ["s.vacuum()"]], "s.n = 6",
    ),
    "a person's document": simple(
        "s.n += 1", "s.d.n = 5", "s.new = 1", "s.n", "s.snapshot()",
        base="# how far\nn: 3  # counted\n\nd:\n  # inner\n  n: 1\n  e: {n: 2}\nl: [{n: 1}, 2, 3]  # a list\n",
    ),
    "a document that cannot take a marker": simple("s.n = 1", "s.n = 2", base="{n: 1}"),
    "durability power": simple(
        "s.n = 1", "s.n += 1", ["block", "s", "commit", ["s.n = 3", "s.d.n = 4"]], "s.l.append(1)", "s.n",
        options={"durability": "power"},
    ),
    "power comes later": simple("s.n = 1", "u = opened(durability='power')", "s.n = 2", "u.n", "s.n = 3"),
    "another lock": simple(
        "s.n = 1", "s.n += 1", ["block", "s", "commit", ["s.n = 3"]], "o = stranger()", "s.n",
        options={"locking": "filelock"}
    ),
    "lists": simple(
        "s.l.append(1)", "s.l.append('b')", "s.l.append([1])", "s.l.append({'n': 1})", "s.l[0].n = 4",
        "s.l[1].append(5)",
        "s.l[1][0] = 6", "s.l[0]['n'] += 1", "s.l.insert(0, 1)", "s.l[1].n += 1", "s.l.pop(0)", "s.l.append(s.l)",
        "len(s.l)",
        ["block", "s", "commit", ["s.l.append(7)", "s.l.append(8)", "s.l[0].n = 9", "s.l"]],
        ["block", "s", "undo", ["s.l.append(9)", "s.l[0].n = 1"]], "s.l", "list.append(s.l, 1)", "s.l.append(2)", "s.l",
        "held = s.l", "s.l = []", "held.append(1)", "s.l.append(1)", "s.l.append(2**64)", "s.l.append('\\xe9')",
    ),
    "the deepest level": simple(
        "held = s", *("held['d'] = {}; held = held.d" for _ in range(98)), "held.n = 1", "held.n += 1",
        "held['d'] = {}",
        "held['d']['d'] = {}", "held.n",
    ),
    "a state that was never opened": simple(
        "k = Having.__new__(Having)", "k.n", "k['n']", "k.n = 1", "k['n'] = 1", "k.get('n')", "len(k)", "'n' in k",
        "k.transaction().__enter__()", "k.count()", "k.total", "k._mark", "repr(k)", "k.close()",
        "m = Counted.__new__(Counted)",
        "m.n", "m['n']", "m.n = 1", "m['n'] = 1", "m.get('n')", "m = MappedDict.__new__(MappedDict)", "m",
        "m = dict.__new__(MappedDict)",
        "m.n", "m['n']", "m.n = 1", "m['n'] = 1", "m.get('n')", "m = list.__new__(MappedList)", "m[0]", "m.append(1)",
        "m[:]",
        "t = Transaction.__new__(Transaction)", "t.__enter__()", "t.__exit__(None, None, None)", "t.rollback()",
        "del t",
    ),
    "what is mixed in": simple(
        "k = opened(Mixing)", "k.n", "k['n']", "k.mixed", "k.n = 1", "k['n'] = 2", "del k['n']", "k.n", "k.n = 3",
        "k.nothing",
        ["block", "k", "commit", ["k.n = 5", "k['n']", "del k.n"]], "k.get('n')", "k.d['n']", "k.mixed = 1", "k.mixed",
    ),
    "a class that changes later": simple(
        "k = opened(Having)", "k.n = 1", "Having.__getitem__ = lambda self, key: 'patched'", "k['n']", "k.n",
        "k.get('n')", "k.total",
        "del Having.__getitem__", "k['n']", "Having.__getattr__ = lambda self, name: 'patched ' + name", "k.n", "k.d",
        "k.nothing",
        "del Having.__getattr__", "k.n", "Having.__setitem__ = lambda self, key, value: None", "k.n = 5", "k['n'] = 6",
        "s.n",
        "del Having.__setitem__", "Having.n = 7", "k.n", "k.n = 8", "k['n']", "del Having.n", "k.n",
        "Having._reserved = Having._reserved | {'n'}", "k.n = 9", "k.n", "k['n']", "del Having._reserved", "k.n = 10",
        "k.n",
    ),
    "keys of the names that a class has": simple(
        "k = opened(Having)", "k['broken'] = 5", "k.broken", "k['total'] = 6", "k.total", "k['count'] = 7", "k.count()",
        "k['_mark'] = 8", "k._mark", "s.broken", "s.total", "s.count", "k['no_such_key'] = 9", "k.broken",
        "del k['broken']",
        "k.broken", ["block", "k", "commit", ["k.broken", "k.total = 1", "k['total']", "k.no_such_key"]],
    ),
    "the base of a class changes later": simple(
        "k = opened(Mixing)", "k.n", "k.nothing", "Mixed.__getattr__ = lambda self, name: 'mixed ' + name", "k.n",
        "k.nothing",
        "del Mixed.__getattr__", "k.n", "k.nothing", "m = opened(Having)", "m.n", "was = PersistedState.__getattr__",
        "PersistedState.__getattr__ = lambda self, name: 'patched ' + name", "m.n", "k.n", "s.n", "s.nothing",
        "del PersistedState.__getattr__", "m.n", "k.n", "s.n", "s.nothing",
        "MappedDict.get, was = (lambda self, key: 'got'), MappedDict.get", "s.get('n')", "s.d.get('n')",
        "MappedDict.get = was",
        "s.get('n')", "MappedDict.__setitem__, was = (lambda self, key, value: None), MappedDict.__setitem__",
        "s['n'] = 1",
        "s.n = 2", "s.n", "s.d.n = 3", "s.d.n", "MappedDict.__setitem__ = was", "s['n'] = 4", "s.n",
        "class Later(Having):\n    def __getattr__(self, name):\n        return 'later ' + name", "j = opened(Later)",
        "j.n",
        "j.nothing", "class Last(Having):\n    pass", "i = opened(Last)", "i.n", "i.n = 5", "i.nothing", "j.close()",
        "i.close()",
    ),
    "numbers of threads, and timeouts": simple(
        *(f"s.transaction({arguments}).__enter__() and None"
          for arguments in ("timeout='1'", "timeout=float('nan')", "timeout=None, more=1", "-1", "Liar()")),
        "s = opened(lock_timeout=None)", "s.n = 1", ["block", "s", "commit", ["s.n = 2"]],
        "s = opened(lock_timeout=-1)", "s.n = 1", ["block", "s", "commit", ["s.n = 2"]], "s.n",
    ),
    "memory changed by others": simple(
        "dict.__setitem__(s.d, 'n', 7)", "s.d.n", "s.d.n += 1", "s.snapshot()", "dict.__setitem__(s, 'n', 9)", "s.n",
        "s.n += 1",
    ),
}  # fmt: skip


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    with Pair(tmp_path_factory.mktemp("programs")) as pair:
        yield pair


@needs_compiled
def test_one_of_the_two_is_compiled_and_the_other_is_not(pair: Pair) -> None:
    assert (False, True) == (pair.pure.compiled, pair.compiled.compiled)


@needs_compiled
@pytest.mark.parametrize("name", FIXED)
def test_a_fixed_program_is_the_same_in_both(pair: Pair, name: str) -> None:
    pair.compare(FIXED[name])


@needs_compiled
@settings(
    max_examples=EXAMPLES,
    suppress_health_check=list(HealthCheck),
    phases=[Phase.explicit, Phase.reuse, Phase.generate, Phase.shrink],
)
@example(simple("s.n = 1"))
@given(program=programs())
def test_a_random_program_is_the_same_in_both(pair: Pair, program: Program) -> None:
    pair.compare(program)


#: Calls of what is compiled, with too few arguments, with too many, and with some that make no sense.
WRONG = [
    *(
        f"s.{name}({arguments})"
        for name in ("__getitem__", "__getattr__", "__setitem__", "__setattr__", "get", "d.__setattr__", "d.get")
        for arguments in ("", "'n'", "'n', 1", "'n', 1, 2", "'n', 1, 2, 3", "1", "1, 2", "None, 2", "[]", "[], 1",
        "*[]")
    ),
    *(
        f"s.l.{name}({arguments})"
        for name in ("__getitem__", "append")
        for arguments in (
            "", "0", "0, 1", "'n'", "1.0", "True", "None", "-1", "-9", "99", "2**70", "slice(0, 1)", "Other()",
            "Liar()",
        )
    ),
    *(
        f"s.transaction().{name}({arguments})"
        for name in ("__enter__", "__exit__")
        for arguments in ("1", "None", "None, None", "None, None, None", "None, None, None, None", "1, 2, 3",
        "None, 1, 2")
    ),
    "setattr(s, 1, 2)", "getattr(s, 1)", "setattr(s, None, 2)", "s.l[0:1]", "s.l[0, 1]", "s.l[Other()]",
    "s.l[Text('0')]",
    "MappedDict.__getitem__(1, 'n')", "MappedDict.__setattr__(object(), 'n', 1)", "MappedList.append(7, 1)",
    "MappedDict.__getitem__()", "Transaction.__exit__()",
]  # fmt: skip


@needs_compiled
def test_wrong_arguments_are_errors_of_the_same_type(pair: Pair) -> None:
    """The texts are those of Python for functions, and for what is compiled: nobody promises them."""
    program = simple(*WRONG)
    by_pure, by_compiled = pair.pure.run(program), pair.compiled.run(program)
    for answer in (by_pure, by_compiled):
        answer["log"] = [re.sub(r"^(TypeError|AttributeError): .*", "one of these", line) for line in answer["log"]]

    assert not difference(by_pure, by_compiled)
    assert 40 < by_pure["log"].count("one of these")


# ---------------------------------------------------------------------- a difference is seen

#: What is planted in one of two processes -> a piece of what the comparison says.
PLANTED: dict[str, tuple[str, str]] = {
    "bytes": (
        "from pstate.text import records; from pstate import store\n"
        "store.encode_set = lambda *args: records.encode_set(*args).replace(',', ', ')",
        "compiled: file ",
    ),
    "value": (
        "from pstate.memory.dicts import MappedDict\nMappedDict.__getitem__ = lambda self, key: dict.get(self, key)",
        "compiled: NoneType None",
    ),
    "type": (
        "from pstate.memory.dicts import MappedDict\nget = MappedDict.get\n"
        "MappedDict.get = lambda self, key, default=None: float(get(self, key, default))",
        "compiled: float 1.0",
    ),
    "text": (
        "from pstate.memory import dicts\ndicts.shown_place = lambda *args: 'here'",
        "compiled: AttributeError: here has no key",
    ),
    "memory": (
        "from pstate.store import Store\nmirror = Store._mirror\nStore.check = lambda store: None\n"
        "Store._mirror = lambda store, ops: None if ops[0][0] == 'delete' else mirror(store, ops)",
        "in the memory",
    ),
    "closed": (
        "from pstate.file import vacuum\nmade = vacuum.document\n"
        "def document(*args):\n    data, *rest = made(*args)\n    return data + b'# more\\n', *rest\n"
        "vacuum.document = document",
        "in the closed",
    ),
    "log": (
        "import logging; from pstate.store import Store\ncommit = Store.mutate\n"
        "Store.mutate = lambda *args: logging.getLogger('pstate').error('more') or commit(*args)",
        "compiled: log ERROR more",
    ),
    "death": ("import os; from pstate.store import Store\nStore.mutate = lambda *args: os.kill(os.getpid(), 11)",
    "died with -11"),
}  # fmt: skip
TOUCHING = simple("s.n = 1", "s['n']", "s.get('n')", "s['nothing']", "s.l.append(1)", "s.pop('x')", "s.nothing")


@pytest.mark.parametrize("kind", ["nothing", *PLANTED])
def test_a_difference_is_seen(tmp_path: Path, kind: str) -> None:
    """Both processes are pure, so that nothing else differs."""
    prelude, said = PLANTED.get(kind, ("", ""))
    pure, other = Runner(True, tmp_path / "1"), Runner(True, tmp_path / "2", prelude=prelude)
    try:
        found = difference(pure.run(TOUCHING), other.run(TOUCHING))
    except Died as error:
        found = str(error)
    finally:
        pure.close()
        other.close()
    assert said in found, found
    assert bool(said) == bool(found)


def test_the_check_of_make_stress_finds_a_planted_difference(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(flavours.PRELUDES, False, PLANTED["type"][0])
    with pytest.raises(BrokenPromise, match=r"pure: .*\n  compiled: "):
        CHECKS["flavours"].function(Trial(4711, 20, tmp_path))


NO_TRANSACTIONS = """
from pstate.state import Transaction
Transaction.__enter__ = lambda self: self
Transaction.__exit__ = lambda *args: None
"""


@pytest.mark.parametrize("prelude", ["", NO_TRANSACTIONS], ids=["sound", "no transactions"])
def test_processes_of_both_flavours_count_in_one_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, prelude: str
) -> None:
    """Some of them are killed. Without transactions, an increment is lost soon."""
    for pure in (True, False):
        monkeypatch.setitem(flavours.PRELUDES, pure, prelude)
    trial = Trial(4711, 1, tmp_path)

    with pytest.raises(BrokenPromise, match="P7: ") if prelude else contextlib.nullcontext():
        flavours.count_together(trial, tmp_path / "state.yaml", 20 if prelude else 1)

    assert prelude or trial.counts["commits of both flavours"] > 100


__all__ = ["FIXED"]
