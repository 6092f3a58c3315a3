"""Random programs over a state: every operation, every kind of key and value, blocks, threads, handles, refusals.

The caller gives the dice: a `random.Random` for a long run, or hypothesis, which makes a failing program small.
"""

from __future__ import annotations

from collections.abc import Sequence
from random import Random
from typing import Any, Protocol, TypeVar

from stress.real.programs import Program

T = TypeVar("T")


class Dice(Protocol):
    """Where chance comes from. A smaller number, and an earlier choice, are the simpler ones."""

    def number(self, most: int) -> int:
        """One of 0 to *most*."""
        ...

    def choice(self, choices: Sequence[T]) -> T:
        """One of *choices*."""
        ...


class Chance:
    """Dice of a `random.Random`."""

    def __init__(self, random: Random) -> None:
        self._random = random

    def number(self, most: int) -> int:
        return self._random.randint(0, most)

    def choice(self, choices: Sequence[T]) -> T:
        return self._random.choice(choices)


# ---------------------------------------------------------------------- what is set, and where

#: Values that the compiled hot path may write by itself, and those beside them.
SCALARS = [
    "1", "0", "-1", "7", "True", "False", "None", "'b'", "''", "'a b: c # d'", "1.5", "0.1", "-0.0", "100.0",
]  # fmt: skip
EDGES = [
    "2**31", "-2**31 - 1", "2**62", "2**63 - 1", "2**63", "-2**63", "-2**63 - 1", "2**64", "10**18", "10**40",
    "-10**400", "10**5000", "1e16", "1e15", "1e-5", "0.0001", "1e22", "123456789012345680.0", "5e-324",
    "1.7976931348623157e308", "float('inf')", "-float('inf')", "float('nan')", "'\"'", "'back\\\\slash'", "'\\n'",
    "'\\t'", "'\\x00'", "'\\x1f'", "'\\x7f'", "'\\x85'", "'\\xa0'", "'\\xe9'", "'\\u2028'", "'\\ufeff'",
    "'\\U0001f600'", "'\\ud800'", "'null'", "'true'", "'1'", "'- a'", "'... # 0123abcd'", "'--- '", "'k' * 999",
    "'k' * 1023", "'k' * 1024", "'k' * 1898", "'k' * 1899", "'k' * 1900", "'k' * 1901", "'k' * 2048", "'k' * 4096",
    "'\\xe9' * 1500", "'k' * 20000", "b''", "b'\\x00\\xff'", "date(2020, 2, 29)", "datetime(2020, 1, 2, 3, 4, 5)",
    "datetime(2020, 1, 2, 3, 4, 5, 678901)", "datetime(2020, 1, 2, tzinfo=UTC)",
    "datetime(2020, 1, 2, tzinfo=timezone(timedelta(hours=-3)))",
]  # fmt: skip
CONTAINERS = [
    "{}", "[]", "set()", "{'n': 1}", "[1]", "{1, 'b'}", "{'n': {'n': [1, {'n': 2}]}}", "(1, 2)", "frozenset({1})",
    "{'e': {'n': 5}}", "[{'n': 6}, [7]]", "{1: 2, None: 3, True: 4, 1.5: 5, b'x': 6}", "s.d", "s.l", "s.z", "held",
    "s", "s.snapshot()",
]  # fmt: skip
REFUSED = [
    "Other()", "Text('b')", "Number(3)", "Fraction(0.5)", "Liar()", "HTTPStatus.OK", "object()", "Other", "1j",
    "range(3)", "{'n': Other()}",
    "[[Text('b')]]", "{float('nan'): 1}", "{'\\ud800': 1}", "bytearray(b'x')", "timedelta(1)",
    "[x := [], x.append(x)][0]",
]  # fmt: skip

#: Keys, as items.
KEYS = ["'n'", "'x'", "'m'", "'d'", "'l'", "'e'", "'new'"]
ODD_KEYS = [
    "''", "'a b'", "'q\"'", "'back\\\\slash'", "'\\xe9'", "'\\x7f'", "'\\x01'", "'\\U0001f600'", "'items'", "'_u'",
    "'total'", "'broken'",
    "'null'", "'1'", "'k' * 200", "'k' * 1024", "'k' * 3000", "1", "0", "True", "False", "1.0", "1.5", "-0.0",
    "2**63", "10**30", "None", "date(2020, 1, 2)", "datetime(2020, 1, 2)", "b'x'", "float('inf')",
]  # fmt: skip
REFUSED_KEYS = [
    "float('nan')", "'\\ud800'", "Text('n')", "Number(1)", "(1, 2)", "[1]", "{}", "Other()", "Liar()", "Trap()",
    "Same()", "...",
]  # fmt: skip
NAMES = [
    "n",
    "x",
    "m",
    "d",
    "l",
    "e",
    "new",
    "items",
    "_u",
    "update",
    "\u00e9",
    "transaction",
    "owned",
    "upper",
    "total",
]

DICTS = ["s", "s.d", "s['d'].e", "s.d['e']", "s.l[0]", "s.a.b.c.d", "held", "kept"]
LISTS = ["s.l", "s['l'][1]", "s.l[1]", "held"]
SETS = ["s.z", "s['z']", "held"]

#: Lines over $h (a handle), $p (a dict), $k (a key), $v (a value), $m (a name), $i and $j (indexes).
COMMON = [
    "$p[$k] = $v", "$p.$m = $v", "s.n += 1", "s['n'] += 1", "$p.n += 1", "$p[$k]", "$p.$m", "s.n = $v",
    "$p.get($k)", "$k in $p", "len($p)", "s.x = $v", "s.d.n = $v",
]  # fmt: skip
ON_DICTS = [
    "$p.get($k, $v)", "bool($p)", "list($p)", "list($p.items())", "list(reversed($p))", "$p == $v",
    "$p.copy()", "$p.keys() & {'n', 'x'}", "$p.update({$k: $v, 'm': 1})", "$p.update(m=$v, n=2)",
    "$p.update([($k, $v)])", "$p |= {$k: $v}", "$p | {'m': 1}", "$p.setdefault($k, $v)",
    "$p.setdefault($k)", "$p.pop($k)", "$p.pop($k, $v)", "$p.popitem()", "del $p[$k]", "del $p.$m",
    "$p.clear()", "setattr($p, $k, $v)", "getattr($p, '$m', $v)", "hasattr($p, '$m')", "$p[$k] = $p[$k]",
    "$p[$k] = $p", "$p.__getitem__($k)", "$p.__setitem__($k, $v)", "type($p).__setattr__($p, '$m', $v)",
    "object.__setattr__($p, '$m', $v)", "dict.get($p, $k)", "repr($p)", "$p.$m += $v", "$p[$k] += $v",
    "$p[$k] -= 1", "s[$k], s.n = $v, $v", "$p[$k]", "sorted($p, key=repr)",
]  # fmt: skip
ON_LISTS = [
    "$p.append($v)", "$p.append(1)", "$p.insert($i, $v)", "$p.extend([$v, $v])", "$p.extend($p)",
    "$p += [$v]", "$p[$i]", "$p[$i] = $v", "$p[$i:$j]", "$p[$i:$j] = [$v, 2]", "$p[::2] = [$v]",
    "del $p[$i]", "del $p[$i:$j]", "$p.pop()", "$p.pop($i)", "$p.remove($v)", "$p.sort()",
    "$p.sort(key=repr, reverse=True)", "$p.reverse()", "$p.clear()", "len($p)", "$v in $p", "$p.index($v)",
    "$p.count($v)", "list($p)", "$p * 2", "$p *= 2", "$p + [$v]", "$p == $v", "$p[0].n = $v",
    "$p[0]['n'] = $v", "$p[$i].append($v)", "$p[0].n += 1", "list.append($p, $v)",
]  # fmt: skip
ON_SETS = [
    "$p.add($k)", "$p.add($v)", "$p.discard($k)", "$p.remove($k)", "$p.pop()", "$p.update([$k, 'm'])",
    "$p |= {$k}", "$p -= {$k, 1}", "$p ^= {$k, 2}", "$p &= {1, $k}", "$p.clear()", "$k in $p",
    "len($p)", "$p == {1, 2}", "sorted($p, key=repr)",
]  # fmt: skip
ON_HANDLES = [
    "$h.n", "$h['n']", "$h.n = $v", "$h.n += 1", "$h[$k] = $v", "$h.$m", "$h.$m = $v", "$h.d.n",
    "$h.d[$k] = $v", "$h.get($k)", "len($h)", "$h.l.append($v)", "del $h[$k]", "$h.snapshot()",
    "$h.update({$k: $v, 'm': 1})", "$h.total = $v", "$h.total", "$h.broken", "$h.count()", "$h.upper = $v",
    "$h.owned", "$h._mark", "$h._mark = $v", "object.__setattr__($h, '_mark', $v)", "$h.close()",
    "$h._store", "$h._key = $v", "$h._store = $v", "del $h.n", "$h.pop('m', $v)",
]  # fmt: skip
#: The first letter is the handle's name.
OPENINGS = [
    "u = opened()", "r = opened(read_only=True)", "o = stranger()", "k = opened(Getting)", "k = opened(Setting)",
    "k = opened(Naming)", "k = opened(Having)", "k = opened(Mixing)",
]  # fmt: skip
ALIASES = [
    "held = s.d", "held = s.l", "held = s.z", "held = s.a.b", "held = s.l[0]", "held = s.d.e",
    "held = s.pop('d', None)",
    "held = s.l.pop(0)", "s.d = held", "s.m = held", "s.l.append(held)", "s.d = {'n': 1, 'e': {'n': 2}}",
    "s.l = [{'n': 3}, [1, 2], 3]", "s.z = {1, 2}", "s.d.e = {'n': 8}", "held.n = $v", "held.append($v)",
    "held[$k] = $v", "kept['$m'] = s.d", "kept = s.get($k, {})", "s['$m'], s['n'] = s.get('n'), s.get($k)",
    "s.n = {}", "s.n = 1", "s.n = []", "s.n.n = $v", "s.d = 1", "held is s.d", "s.d is s['d']",
]  # fmt: skip
RARE = [
    "s.vacuum()", "s = opened()", "s.close(); s = opened()", "due()", "due(); s.n", "due(); s.n += 1",
    "s.snapshot()", "dict(s)", "s == s.snapshot()", "t.rollback()", "repr(s)", "dir(s)[-3:]", "list(s.history())[-2:]",
    "[(c.path, c.old, c.new) for c in s.history()]", "w = s.watch()", "w.poll()", "w.close()",
    "s.close(keep_journal=True); s = opened()", "s.transaction(timeout=0).__enter__()",
    "s = opened(durability='power')", "import gc; gc.collect()",
]  # fmt: skip

BASES: list[str | None] = [
    None,
    "",
    "# how far\nn: 3  # counted\n\nd:\n  # inner\n  n: 1\n  e: {n: 2}\nl:\n- n: 3\n- [1, 2]\n- 3  # end\nz: !!set {}\n",
    "n: 0x10\nx: 'single'\nd: {n: 1, e: {n: 2}}",
    "{n: 1, x: [a, b], 2020-01-02: day, ~: nothing, 1.5: float}\n",
    "a: &a {n: 1}\nb: *a\nd: {<<: *a, e: {n: 2}}\n",
    "n: 1\n... # a comment\n",
    "n: 1\r\nx: |\r\n  block\r\n",
]
#: Documents that no state can be read from.
BROKEN = ["n: [\n", "- a list\n"]
ENDS = ["commit", "commit", "undo", "through"]


def value(dice: Dice) -> str:
    """The Python of a value."""
    return dice.choice(dice.choice([SCALARS, SCALARS, SCALARS, EDGES, EDGES, CONTAINERS, REFUSED]))


def key(dice: Dice) -> str:
    """The Python of a key."""
    return dice.choice(dice.choice([KEYS, KEYS, KEYS, KEYS, ODD_KEYS, ODD_KEYS, REFUSED_KEYS]))


def line(dice: Dice, handles: Sequence[str]) -> str:
    """One line of a program."""
    lines, places = dice.choice(
        [
            (COMMON, DICTS),
            (COMMON, DICTS),
            (COMMON, handles),
            (ON_DICTS, DICTS),
            (ON_DICTS, handles),
            (ON_LISTS, LISTS),
            (ON_SETS, SETS),
            (ON_HANDLES, handles),
            (ALIASES, DICTS),
            (RARE, DICTS),
        ]
    )
    drawn = dice.choice(lines)
    for name, draw in (("$p", places), ("$h", handles), ("$m", NAMES)):
        if name in drawn:
            drawn = drawn.replace(name, dice.choice(draw))
    for name in ("$i", "$j"):
        if name in drawn:
            drawn = drawn.replace(name, str(dice.number(6) - 2))
    for name, draw_one in (("$k", key), ("$v", value)):
        while name in drawn:
            drawn = drawn.replace(name, draw_one(dice), 1)
    if lines is ON_SETS:
        drawn = drawn.replace(
            "None", "0"
        )  # before Python 3.12 its hash, and so the order of a set, is another each time
    return drawn


def step(dice: Dice, handles: Sequence[str], depth: int = 0) -> Any:
    """One step of a program; *depth* blocks and threads are around it."""
    kind = dice.number(19) if depth < 3 else 0
    if kind < 15:
        return line(dice, handles)
    inner = [step(dice, handles, depth + 1) for _ in range(dice.number(6))]
    if kind == 15:
        return ["full", dice.choice([0, 1, 5, 30, 40, 100]), inner]
    if kind == 16:
        return ["thread", dice.choice(["a", "b"]), inner]
    return ["block", dice.choice(["s", *handles]), dice.choice(ENDS), inner]


def options(dice: Dice) -> Program:
    """A program without steps: what its state is opened with, and what is in the file then."""
    durability = dice.choice(["process", "process", "process", "power"])
    locking = dice.choice(["file", "file", "file", "file", "file", "filelock"])
    return {
        "base": dice.choice(BASES) if dice.number(30) else dice.choice(BROKEN),
        "options": {"durability": durability, "locking": locking},
        "journal_minimum": dice.choice([1 << 20, 1 << 20, 3000]),
    }


def program(dice: Dice, length: int) -> Program:
    """A program of *length* steps, before which it gets some handles and a container."""
    openings = [dice.choice(OPENINGS) for _ in range(dice.number(3))]
    handles = ["s", *(opening[0] for opening in openings)]
    begun = ["s = opened()", *openings, "held = s.d"]
    return {**options(dice), "steps": [*begun, *(step(dice, handles) for _ in range(length))]}
