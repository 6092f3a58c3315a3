"""Checks the values of a source before an import: each is taken, changed with a note, or refused.

`pstate.values.take` decides what a state can hold, as for an assignment. It stops at the first value that is refused,
so this module walks the tree, to find all of them. It is the only module that unpickles.
"""

from __future__ import annotations

from collections import Counter
from datetime import datetime
from typing import Any

from pstate.cli.transfer.faults import LEFT_OUT, Faults
from pstate.errors import PStateError, UnsupportedTypeError, UnsupportedValueError
from pstate.values import FAST, MAX_DEPTH, check_key, check_member, shown, take

_UNPICKLING = (
    "Reading a pickle runs the code in it. If you trust everyone who can write this source, read it with "
    "--unsafe-pickle. "
)


class Pickled:
    """A value, or a key, that is a pickle in the source."""

    __slots__ = ("data",)

    def __init__(self, data: bytes) -> None:
        self.data = data


class Unfit:
    """Stands for a value, or a key, that the reader of a format could not read."""

    __slots__ = ("reason",)

    def __init__(self, reason: str) -> None:
        self.reason = reason


class Arrival:
    """One walk over what a source holds.

    *depth* is the number of containers around the place where it is to go, as for `take`.
    """

    def __init__(self, may_unpickle: bool, depth: int = 0) -> None:
        self.faults = Faults()
        self._may_unpickle = may_unpickle
        self._depth = depth
        self._pickles = 0
        self._became: Counter[tuple[str, str]] = Counter()
        self._path: list[Any] = []
        self._around: set[int] = set()

    def tree(self, value: Any) -> Any:
        """*value* as a plain tree, without what is in `faults`; LEFT_OUT if that is all of it."""
        return self._value(value)

    def remedy(self) -> str:
        """What to do about `faults`, other than leaving them out."""
        return _UNPICKLING if self._pickles else ""

    def notes(self) -> list[str]:
        """Which types have changed between the source and the state."""
        return [f"{count:,} × {old} has become {new}" for (old, new), count in self._became.items()]

    def _value(self, value: Any) -> Any:
        kind = type(value)
        if kind in FAST or (kind is str and value.isascii()):
            return value
        if kind is Pickled or kind is Unfit:
            value = self._opened(value, "")
            return value if value is LEFT_OUT else self._value(value)
        if (
            not isinstance(value, (dict, list, tuple, set, frozenset))
            or self._depth + len(self._path) >= MAX_DEPTH
            or id(value) in self._around
        ):
            return self._judged(value)
        self._around.add(id(value))
        taken: Any
        if isinstance(value, dict):
            taken = self._mapping(value)
        elif isinstance(value, (list, tuple)):
            taken = self._list(value)
        else:
            taken = {member for item in value if (member := self._key(item, "member")) is not LEFT_OUT}
        self._around.discard(id(value))
        if kind is not type(taken):
            self._became[kind.__name__, type(taken).__name__] += 1
        return taken

    def _mapping(self, value: dict[Any, Any]) -> dict[Any, Any]:
        taken: dict[Any, Any] = {}
        for key, item in value.items():
            key = self._key(key, "key")
            if key is LEFT_OUT:
                continue
            self._path.append(key)
            if key in taken:  # two pickles, or a pickle and another value, such as True and 1
                self.faults.add(self._path, "the source has another key that is equal to this one")
            else:
                item = self._value(item)
                if item is not LEFT_OUT:
                    taken[key] = item
            self._path.pop()
        return taken

    def _list(self, value: Any) -> list[Any]:
        taken = []
        for index, item in enumerate(value):
            self._path.append(index)
            item = self._value(item)
            self._path.pop()
            if item is not LEFT_OUT:
                taken.append(item)
        return taken

    def _key(self, key: Any, role: str) -> Any:
        if type(key) is Pickled or type(key) is Unfit:
            key = self._opened(key, f"a {role}, ")
            if key is LEFT_OUT:
                return key
        try:
            return (check_key if role == "key" else check_member)(key, role)
        except (UnsupportedTypeError, UnsupportedValueError) as error:
            self.faults.add(self._path, f"the {role} {_short(key)}: {_reason(error)}")
            return LEFT_OUT

    def _judged(self, value: Any) -> Any:
        try:
            taken = take(value, "value", self._depth + len(self._path))
        except (UnsupportedTypeError, UnsupportedValueError) as error:
            self.faults.add(self._path, _reason(error))
            return LEFT_OUT
        if type(value) is datetime and taken.tzinfo != value.tzinfo:
            self._became["datetime of a zone", "datetime of a fixed offset"] += 1
        return taken

    def _opened(self, found: Pickled | Unfit, role: str) -> Any:
        """What is in the pickle *found*, if unpickling is allowed."""
        if isinstance(found, Unfit):
            self.faults.add(self._path, role + found.reason)
            return LEFT_OUT
        if not self._may_unpickle:
            self._pickles += 1
            self.faults.add(self._path, f"{role}a pickle")
            return LEFT_OUT
        import pickle

        try:
            return pickle.loads(found.data)
        except Exception as error:  # the code of others: a class that is gone, a constructor that raises what it likes
            self.faults.add(self._path, f"{role}a pickle that cannot be read ({type(error).__name__}: {error})")
            return LEFT_OUT


def _reason(error: PStateError) -> str:
    # The place is known better here, and one message says for all places what happens to the import.
    return str(error).partition(": ")[2].removesuffix(" Nothing was changed.")


def _short(value: Any) -> str:
    text = shown(value)
    return text if len(text) <= 40 else f"{text[:37]}..."
