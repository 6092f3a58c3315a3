"""One operation of a state, again and again, where another allocation fails each time: `test_speed_memory.py` runs it.

``python -m tools.no_memory NAME PATH``, in a process of its own, because what is looked for may be a crash.
"""

from __future__ import annotations

import fcntl
import gc
import sys
from contextlib import suppress
from copy import deepcopy
from typing import Any, NamedTuple

from pstate import PersistedState, TransactionError
from pstate.engines import FILES
from pstate.file import format
from pstate.file.recovery import Records
from pstate.memory import ops
from pstate.values import same
from stress.real.workers import read_fresh
from tools.engines import opened, store_of

BEGINNING: dict[str, Any] = {"n": 0, "d": {"n": 0, "e": {"n": 0}}, "l": [0, {"n": 0}]}


class Operation(NamedTuple):
    """What is run without memory. `k` is another number each time, `s` the state, `o` that of another process."""

    do: str
    makes: str = ""  #: of `p`, the state as a plain dict; "" where it changes nothing
    value: str = ""  #: what the expression *do* must be, of `p`
    before: str = ""  #: with memory
    after: str = ""  #: the same
    power: bool = False
    all_or_error: bool = False  #: MemoryError, for one allocation that fails, says that nothing was committed


BLOCK = {"before": "b = s.transaction(); b.__enter__(); s.d.n = -k", "after": "b.__exit__(None, None, None)"}
ENTERED = "b.__exit__(None, None, None) if b._changes is not None else None"

OPERATIONS = {
    "read an attribute": Operation("s.n", value="p['n']"),
    "read an item": Operation("s['n']", value="p['n']"),
    "read by get": Operation("s.get('n')", value="p['n']"),
    "read nothing by get": Operation("s.get('no', 5)", value="5"),
    "read in a nested dict": Operation("s.d.e.n", value="p['d']['e']['n']"),
    "read in a list": Operation("s.l[0]", value="p['l'][0]"),
    "set": Operation("s.n = k", "p['n'] = k", all_or_error=True),
    "set an item": Operation("s['n'] = k", "p['n'] = k", all_or_error=True),
    "set a float": Operation("s.n = k / 4", "p['n'] = k / 4", all_or_error=True),
    "set a long string": Operation("s.n = text", "p['n'] = text"),
    "set in a nested dict": Operation("s.d.e.n = k", "p['d']['e']['n'] = k", all_or_error=True),
    "set in a dict in a list": Operation("s.l[1].n = k", "p['l'][1]['n'] = k"),
    "set a new key": Operation("s[key] = k", "p[key] = k"),
    "increment": Operation("s.n += 1", "p['n'] += 1"),
    "append": Operation("s.l.append(k)", "p['l'].append(k)"),
    "enter": Operation("b.__enter__()", before="b = s.transaction()", after=ENTERED),
    "enter after another one's commit": Operation(
        "b.__enter__()", before="b = s.transaction(); o.n = k; o.l.append(k)", after=ENTERED
    ),
    "set in a block": Operation("s.n = k", "p['n'] = k", **BLOCK),
    "set in a block again": Operation(
        "s.n = k", "p['n'] = k", before="b = s.transaction(); b.__enter__(); s.n = -k", after=BLOCK["after"]
    ),
    "set a new key in a block": Operation("s[key] = k", "p[key] = k", **BLOCK),
    "set in a nested dict in a block": Operation("s.d.e.n = k", "p['d']['e']['n'] = k", **BLOCK),
    "leave": Operation(
        "b.__exit__(None, None, None)", before="b = s.transaction(); b.__enter__(); s.n = k; s.d.e.n = k"
    ),
    "know another one's commits": Operation(
        "s.n", value="p['n']", before="o.n = k; o.d.e.n = k; o.l.append(k); o[key] = k; o.n = text; o.n = k / 4"
    ),
    "know another one's many commits": Operation("s.n", value="p['n']", before="for _ in range(70): o.n += 1"),
    "know another one's appends": Operation("s.n", value="p['n']", before="for _ in range(10): o.l.append(k)"),
    "set after another one's commit": Operation("s.n = k", "p['n'] = k", before="o.d.n = k; o.l.append(k)"),
    "set with power": Operation("s.n = k", "p['n'] = k", power=True),
    "leave with power": Operation(
        "b.__exit__(None, None, None)", before="b = s.transaction(); b.__enter__(); s.n = k", power=True
    ),
    "look at the path": Operation(
        "s.n = k", "p['n'] = k", before="look.look_due = 0.0", after="look.look_due = max(look.look_due, look.look_at)"
    ),
    "read records": Operation("format.read_records(data, 0, 7)", value="records"),
    "replay": Operation("ops.replay(root, recorded, None)", value="None", before="ops.adopt(root, {}, None)"),
}  # fmt: skip


class Trial:
    """A state, and what an operation finds."""

    def __init__(self, path: str, operation: Operation) -> None:
        self.path, self.operation = path, operation
        durability: Any = "power" if operation.power else "process"
        self.state: Any = PersistedState.open(path, durability=durability, defaults=BEGINNING, lock_timeout=1.0)
        self.codes = [compile(code, code, "exec") for code in (operation.before, operation.after)]
        self.do = compile(operation.do, operation.do, "eval" if operation.value else "exec")
        data = self._records()
        root = ops.graft({}, None, ops.DETACHED, None)
        self.names: dict[str, Any] = {
            "s": self.state, "o": opened(FILES, path, lock_timeout=1.0), "text": "x" * 3000, "format": format,
            "ops": ops, "data": data, "records": format.read_records(data, 0, 7), "root": root,
            "recorded": Records(format.read_records(data, 0, 7)[0], path, bytes),
            "look": store_of(self.state).log.look, "b": None,
        }  # fmt: skip

    def _records(self) -> bytes:
        bodies = ['[["set",[],"n",1]]', '[["set",[],"text","x"],["set",[],"f",1.5]]', '[["set",[],"l",[1]]]',
            '[["insert",["l"],1,2]]']  # fmt: skip
        data, crc = b"", 7
        for body in bodies * 10:
            if body.startswith('[["insert'):
                body = '[["set",[],"m",null]]'
            record, crc = format.encode_record(body, crc)
            data += record
        return data

    def usual(self, number: int) -> None:
        """Let the next access be a usual one, for which no look at the path is due."""
        self.names.update(k=number, key=f"key{number}")
        look = store_of(self.state).log.look
        self.state.n = -1
        if number % 20 == 0:
            self.state.vacuum()
            self.state.n = -1
        with self.state.transaction():
            pass
        look.look_at = look.look_due = look.check_at = 1e18

    def run(self, number: int, first: int, last: int) -> bool:
        """Whether the operation came to an allocation that fails: those from *first* up to *last* do.

        Asserts that it has done all or nothing, and that the state goes on.
        """
        self.usual(number)
        names = self.names
        exec(self.codes[0], names)
        before, ahead = self._read(), self._plain()
        do, value, raised = self.do, None, False
        gc.collect()  # which empties the free lists of the interpreter, too
        set_nomemory(first, last)
        try:
            value = eval(do, names)
        except (MemoryError, TransactionError):
            raised = True
        is_reached = not has_failing(last)
        remove_mem_hooks()
        try:
            exec(self.codes[1], names)
        except TransactionError:
            assert raised, "a block was rolled back, and nothing was raised before"
        if raised:
            names["b"] = None  # what could not be left is rolled back by its finalizer
        if raised and self.operation.all_or_error and last == first + 1:
            assert same(self._read(), before), "it was committed"
        self._judge([before, ahead], value, raised)
        return is_reached

    def _plain(self) -> Any:
        """The state, as it is for this thread."""
        return deepcopy(ops.plain(store_of(self.state).root)) if self.state._store.changes else self._read()

    def _read(self) -> Any:
        return read_fresh(self.path)

    def _judge(self, earlier: list[Any], value: Any, raised: bool) -> None:
        operation, state = self.operation, self.state
        done = deepcopy(earlier[-1])
        exec(operation.makes, {**self.names, "p": done})
        assert state._store.changes is None, "a block is open still"
        with open(self.path, "rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        found = self._read()
        assert same(state.snapshot(), found), (state.snapshot(), found)
        store_of(state).check()
        if not raised:
            assert same(found, done), (found, done)
            if operation.value:
                assert value == eval(operation.value, {**self.names, "p": done}), value
        else:
            assert any(same(found, each) for each in (done, *earlier)), (found, done, earlier)
        state.n = "goes on"
        assert self._read()["n"] == "goes on"
        assert self.names["o"].n == "goes on"


def has_failing(last: int) -> bool:
    """Whether an allocation up to *last* is still to come, and fails."""
    try:
        for _ in range(last + 1):
            bytearray(600)
    except MemoryError:
        return True
    return False


def main(name: str, path: str) -> None:
    operation = OPERATIONS[name]
    trial = Trial(path, operation)
    trial.run(0, 1 << 30, 0)
    gc.freeze()
    needed = next(count for count in range(5000) if not trial.run(count + 1, count, count + 1))
    # Not all from there on: CPython 3.11 has a loop without an end where it has no memory for a number.
    for failing in (2, 5, 20):
        for count in range(needed + 1):
            trial.run(count + 1, count, count + failing)
    with suppress(TransactionError):
        trial.state.close()
    print(needed)


if __name__ == "__main__":
    from _testcapi import remove_mem_hooks, set_nomemory  # type: ignore[import-not-found]

    main(*sys.argv[1:])
