"""Journals of random operations, each with every state that it went through: what the checks of damage are judged by.

The states are not computed by reading the file: they are what memory said after each commit. So a reader that is wrong
about a file is not its own judge.
"""

from __future__ import annotations

import datetime
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

from stress.real.workers import open_state

State = dict[Any, Any]

#: Texts that look like parts of the file, and others that a reader of bytes could stumble over.
TEXTS = [
    "", "x", "both, or neither", "--- ", "\n--- [1]\n... # 0123abcd\n", "... # pstate 1", "...", "a: 1\nb: 2",
    "é😀\u2028", "\0\1\x7f", "--- [[\"set\",[],\"a\",1]] ", " # ", "{}", "'\"\\", "true", "1e3", "\ufeff", "\r\n",
]  # fmt: skip


def any_value(dice: Random, depth: int = 0, length: int = 40) -> Any:
    """A value of any kind; texts are about *length* characters long at most."""
    kind = dice.randrange(11 if depth < 3 else 8)
    if kind < 2:
        return dice.choice([0, 1, -7, 10**20, True, False, None, 0.5, -0.0, 1e16, float("inf")])
    if kind < 4:
        return dice.choice(TEXTS) + dice.choice(TEXTS)
    if kind < 6:
        return dice.choice(["x", "é", "--- ", "\n", "0 "]) * dice.randrange(max(1, length))
    if kind == 6:
        return dice.randbytes(dice.randrange(8))
    if kind == 7:
        return datetime.date(2026, dice.randrange(1, 13), dice.randrange(1, 29))
    if kind == 8:
        return {any_key(dice): any_value(dice, depth + 1, length) for _ in range(dice.randrange(4))}
    if kind == 9:
        return {dice.choice([1, 2, "a", "b", "--- ", None]) for _ in range(dice.randrange(4))}
    return [any_value(dice, depth + 1, length) for _ in range(dice.randrange(4))]


def any_key(dice: Random) -> Any:
    return dice.choice(["a", "b", "key", "k" * 20, "--- ", "n: 1", "é", 7, -1, None])


def _places(container: Any) -> list[Any]:
    """*container* and all that are in it."""
    found = [container]
    if not isinstance(container, set):
        children = list(container.values()) if isinstance(container, dict) else list(container)
        for child in children:
            if isinstance(child, dict | list | set):
                found += _places(child)
    return found


def change(state: Any, dice: Random, length: int = 40) -> None:
    """One change of *state*, or of a container in it, at random. It may turn out to change nothing."""
    place = dice.choice(_places(state))
    value = any_value(dice, 1, length)
    if isinstance(place, dict):
        if place and dice.random() < 0.2:
            del place[dice.choice(list(place))]
        elif dice.random() < 0.2:
            place.update({any_key(dice): value, any_key(dice): any_value(dice, 2, length)})
        else:
            place[any_key(dice)] = value
    elif isinstance(place, list):
        match dice.randrange(6):
            case 0:
                place.append(value)
            case 1:
                place.insert(dice.randrange(len(place) + 1), value)
            case 2:
                place[dice.randrange(len(place) + 1) :] = [value, value]
            case 3:
                place.reverse()
            case 4 if place:
                del place[dice.randrange(len(place))]
            case _:
                place.extend([1, value])
    elif dice.random() < 0.3:
        place.clear()
    else:
        place ^= {dice.choice([1, 2, "a", "c", "--- "])}


def commit(state: Any, dice: Random, length: int = 40) -> None:
    """A change, or a transaction of some."""
    if dice.random() < 0.3:
        with state.transaction():
            for _ in range(dice.randrange(1, 4)):
                change(state, dice, length)
    else:
        change(state, dice, length)


@dataclass(frozen=True)
class Journal:
    """A file that a program has not closed, and what it said after each of its commits."""

    data: bytes
    states: list[State]  #: states[n] is the one after n commits
    ends: list[int]  #: ends[n] is where the file ended then; ends[0], the end of the base document
    older: bytes  #: an earlier file of the same history, as old blocks of the disk may have it

    @property
    def base(self) -> bytes:
        return self.data[: self.ends[0]]

    def record(self, number: int) -> bytes:
        """The bytes of commit *number*, without the base marker that came with the first."""
        data = self.data[self.ends[number - 1] : self.ends[number]]
        return data[data.index(b"\n--- ") + 1 :] if number == 1 else data

    @property
    def count(self) -> int:
        return len(self.states) - 1


def make(path: Path, dice: Random, most: int = 8, length: int = 40) -> Journal:
    """A journal of 1 to *most* commits after a base document. *path* is free again afterwards."""
    durability = dice.choice(["process", "power"])
    with open_state(path, durability=durability) as state:
        for _ in range(dice.randrange(4)):
            commit(state, dice, length)
        state["pad"] = "p" * dice.randrange(700)
        older = path.read_bytes()
    if dice.random() < 0.3:  # one that a person wrote
        path.write_bytes(b"# by hand\n" + path.read_bytes() + b"\n# the end\n")
    state = open_state(path, durability=durability)
    states, ends = [state.snapshot()], [path.stat().st_size]
    wanted = dice.randrange(1, most + 1)
    while len(states) <= wanted:
        commit(state, dice, length)
        size = path.stat().st_size
        if size != ends[-1]:  # it changed something
            states.append(state.snapshot())
            ends.append(size)
    data = path.read_bytes()
    path.unlink()
    state.close()  # leaves a deleted file deleted, so the journal was not tidied up
    return Journal(data, states, ends, older)
