"""The compiled hot path gives back what it takes: no call leaves an object behind, or drops one that is not its own.

A reference too many is memory that is never freed, and one too few is a crash, later and elsewhere. Each line is run
some hundred times, and what grows, or shrinks, by as much is one of these.
"""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from test_speed_counts import BEGINNING, Setting
from tools.engines import opened as opened_by
from tools.programs import needs_compiled

from pstate import LockTimeout, PersistedState
from pstate.engines import FILES

pytestmark = needs_compiled

TIMES = 300
#: Caches and the allocator change by a few; a leak changes by TIMES.
FEW = TIMES // 3

BLOCK = "with s.transaction():\n    {}"

LINES = {
    "read": "s.n; s['n']; s.get('n'); s.get('nothing'); 'n' in s; len(s); s.d.n; s.l[0].n",
    "missing": "refused('s.nothing'); refused('s[\\'nothing\\']'); refused('s.l[99]')",
    "set": "s.n = 1; s['n'] = 2.5; s.n = 'text'; s.n = None; s.n = True; s.n = 2**40",
    "set in a nested dict": "s.d.n = 1; s.d.e.n = 2.5; s['d']['e']['n'] = 'text'",
    "a new key": "s.new = 1000; del s.new",
    "a long string": "s.n = long",
    "left to Python": "s.n = '\\xe9'; s.n = 1e300; s.n = 2**80; s['\\xe9'] = 1; s.n = {}; s.n = 1; s.l[0].n = 5",
    "refused": "refused('s.n = object()'); refused('s[[]] = 1'); refused('s.items = 1')",
    "another class": "k.n = 1; k.n; k['n'] = 2",
    "a block": BLOCK.format("s.n += 1; s.n = 2.5; s.d.n = 3; s.new = 4; del s.new"),
    "an empty block": BLOCK.format("pass"),
    "an undone block": "with s.transaction() as t:\n    s.n = 1000; s.d.n = 1001; t.rollback()",
    "a block that an error leaves": "refused('with s.transaction():\\n    s.n = 1000\\n    raise LookupError')",
    "a block in a block": BLOCK.format("with s.transaction():\n        s.n = 1000"),
    "append": "s.l.append(1000); s.l.append('text'); s.l.pop(); s.l.pop()",
    "another one's commits": "o.n = 1000; s.n; o.n = 'text'; o.d.n = 1001; s.d.n; o.m = 2.5; s.n; del o.m; s.n",
    "another one's container": "o.n = {'n': 1}; s.n; o.n = 1; s.n",
    "blocks in turn": "with o.transaction():\n    o.n += 1000\nwith s.transaction():\n    s.n = 1\n",
    "the lock is held": "with o.transaction():\n    o.n = 1\n    refused('s.n = 2')\n    s.n",
    "power": "p.n = 1000; p.n; p.d.n = 1001",
    "a block with power": "with p.transaction():\n    p.n = 1000",
}  # fmt: skip


def refused(names: dict[str, Any]) -> Callable[[str], None]:
    """What a line calls to have another one refused."""

    def refused(code: str) -> None:
        try:
            exec(code, names)
        except (AttributeError, LookupError, TypeError, LockTimeout):
            return
        raise AssertionError(f"{code} was not refused")

    return refused


@pytest.fixture
def names(tmp_path: Path) -> Iterator[dict[str, Any]]:
    path = tmp_path / "state.yaml"
    opened = {
        "s": PersistedState.open(path, defaults=BEGINNING, lock_timeout=0.0),
        "k": Setting.open(path, lock_timeout=0.0),
        "o": opened_by(FILES, str(path), lock_timeout=0.0),
        "p": PersistedState.open(tmp_path / "power.yaml", defaults=BEGINNING, durability="power"),
    }
    names: dict[str, Any] = {**opened, "long": "k" * 5000}
    names["refused"] = refused(names)
    yield names
    names.clear()
    for state in opened.values():
        state.close()


def measured(names: dict[str, Any]) -> dict[str, int]:
    """How many objects there are, and how often those are referred to that a line uses."""
    gc.collect()
    shared = {
        "None": None,
        "True": True,
        "False": False,
        "1": 1,
        "'n'": sys.intern("n"),
        "()": (),
        "long": names["long"],
    }
    # From Python 3.12 on, some are immortal: their number never changes.
    return {"objects": sys.getallocatedblocks(), **{name: sys.getrefcount(value) for name, value in shared.items()}}


@pytest.mark.parametrize("name", LINES)
def test_nothing_is_left_behind(names: dict[str, Any], name: str) -> None:
    code = compile(LINES[name], "<line>", "exec")
    for _ in range(TIMES // 10):
        exec(code, names)
    names["s"].vacuum()
    before = measured(names)

    for _ in range(TIMES):
        exec(code, names)

    names["s"].vacuum()
    after = measured(names)
    grown = {what: after[what] - before[what] for what in before}
    assert not {what: number for what, number in grown.items() if abs(number) > FEW}


def test_a_leak_is_seen(names: dict[str, Any]) -> None:
    before = measured(names)
    kept = [[None] for _ in range(TIMES)]

    grown = {what: number - before[what] for what, number in measured(names).items()}
    assert grown["objects"] > FEW
    assert grown["None"] > FEW or sys.version_info >= (3, 12)
    assert kept
