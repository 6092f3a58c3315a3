"""What each format can hold, and the walk over a state that finds the values that it cannot.

Some libraries change values silently: orjson writes infinity as null, SQLite stores NaN as null, and json writes the
key 1 as a string. A value that would come back changed is refused here, before a library writes it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from datetime import date, datetime
from types import NoneType
from typing import Any, NamedTuple

from pstate.cli.transfer import env, ini, plain, table
from pstate.cli.transfer.faults import LEFT_OUT, Faults

_JSON = frozenset({NoneType, bool, int, float, str, dict, list})
_TOML = frozenset({bool, int, float, str, date, datetime, dict, list})

#: Of more digits than this Python converts no decimals, or may be told not to; and few other readers do.
_DIGITS = 600
_NAMES: dict[type, str] = {
    NoneType: "null", bytes: "bytes", set: "sets", date: "dates", datetime: "times", dict: "mappings", list: "lists",
}  # fmt: skip


class Words(NamedTuple):
    """What a format can hold."""

    title: str
    kinds: frozenset[type] | None = None  #: at any depth; None: whatever a state holds
    is_finite: bool = False  #: no infinity, no NaN
    integers: tuple[int, int] | None = None  #: the smallest and the largest
    needs_mapping: bool = True  #: at the top
    text_keys: bool = True  #: at the top; deeper ones too where *kinds* says what a value may be
    misfit: Callable[[list[Any], Any], str | None] = lambda path, value: None  #: what else is wrong with a value
    key_misfit: Callable[[list[Any]], str | None] = lambda path: None  #: what else is wrong with the last key of a path
    gaps: Callable[[Any], Iterator[tuple[list[Any], str]]] = lambda tree: iter(())  #: what is missing, with the reason


def _too_long(path: list[Any], value: Any) -> str | None:
    if type(value) is int and abs(value) >= 10**_DIGITS:
        return f"an integer of more than {_DIGITS} digits, which few readers take"
    return None


def _any_of(*misfits: Callable[[list[Any], Any], str | None]) -> Callable[[list[Any], Any], str | None]:
    return lambda path, value: next(filter(None, (misfit(path, value) for misfit in misfits)), None)


def _no_document(path: list[Any], value: Any) -> str | None:
    if len(path) in (1, 2) and type(value) is not dict:
        return "tinydb holds tables of documents: {table: {1: {key: value}}}"
    return None


def _not_in_a_cache(path: list[Any], value: Any) -> str | None:
    if len(path) == 1 and type(value) is float and math.isnan(value):
        return "diskcache reads NaN as None"
    if len(path) == 1 and type(value) is str and "\r" in value and len(value.encode()) >= 2**15:
        return "in a string of this length, diskcache changes carriage returns to line feeds"
    return None


WORDS = {
    "json": Words("JSON", _JSON, True, needs_mapping=False, misfit=_too_long),
    "toml": Words("TOML", _TOML, integers=(-(2**63), 2**63 - 1)),
    "yaml": Words("YAML", needs_mapping=False, text_keys=False),
    "persistedstate": Words("persistedstate", _JSON, True, misfit=_too_long),
    "env": Words("env", plain.KINDS | {dict}, True, misfit=_any_of(env.misfit, _too_long), key_misfit=env.key_misfit),
    "ini": Words(
        "INI",
        plain.KINDS | {NoneType, dict},
        True,
        misfit=_any_of(ini.misfit, _too_long),
        key_misfit=ini.key_misfit,
    ),
    "csv": Words(
        "CSV",
        plain.KINDS | {NoneType, dict, list},
        True,
        needs_mapping=False,
        misfit=_any_of(table.misfit, _too_long),
        gaps=table.gaps,
    ),
    "shelve": Words("shelve"),
    "sqlitedict": Words("sqlitedict"),
    "diskcache": Words("diskcache", text_keys=False, misfit=_not_in_a_cache),
    "pickledb": Words("pickledb", _JSON, True, (-(2**63), 2**64 - 1)),
    "tinydb": Words("tinydb", _JSON, True, misfit=_any_of(_no_document, _too_long)),
}


class Departure:
    """One walk over a plain tree that is to be written in *words*; *place* is its path in the state."""

    def __init__(self, words: Words, place: Sequence[Any] = ()) -> None:
        self.faults = Faults(place)
        self._words = words
        self._path: list[Any] = []
        self._has_documents = words.title == "tinydb"

    def tree(self, value: Any) -> Any:
        """*value* without what is in `faults`; LEFT_OUT if that is all of it."""
        if self._words.needs_mapping and type(value) is not dict:
            self.faults.add([], f"{self._words.title} has a mapping at the top")
            return LEFT_OUT
        for path, reason in self._words.gaps(value):
            self.faults.add(path, reason)
        return self._value(value)

    def _value(self, value: Any) -> Any:
        reason = self._fault(value)
        if reason is not None:
            self.faults.add(self._path, reason)
            return LEFT_OUT
        is_watched = self._words.kinds is not None or not self._path  # deeper, a pickle takes all
        if type(value) is dict and is_watched:
            return {key: taken for key, item in value.items() if (taken := self._item(key, item, True)) is not LEFT_OUT}
        if type(value) is list and is_watched:
            items = (self._item(index, item, False) for index, item in enumerate(value))
            return [taken for taken in items if taken is not LEFT_OUT]
        return value

    def _item(self, key: Any, item: Any, is_key: bool) -> Any:
        self._path.append(key)
        reason = self._key_fault(key) if is_key else None
        if reason is None:
            item = self._value(item)
        else:
            self.faults.add(self._path, reason)
            item = LEFT_OUT
        self._path.pop()
        return item

    def _fault(self, value: Any) -> str | None:
        words = self._words
        if words.kinds is not None:
            kind = type(value)
            if kind not in words.kinds:
                return f"{words.title} has no {_NAMES[kind]}"
            if kind is float and words.is_finite and not math.isfinite(value):
                return f"{words.title} has no {'NaN' if math.isnan(value) else 'infinity'}"
            if kind is int and words.integers is not None and not words.integers[0] <= value <= words.integers[1]:
                return f"{words.title} has no integers of more than 64 bits"
        return words.misfit(self._path, value)

    def _key_fault(self, key: Any) -> str | None:
        if self._has_documents and len(self._path) == 2:
            is_number = type(key) is int and 0 <= key < 10**18
            return None if is_number else "the documents of tinydb are numbered"
        if self._words.text_keys and type(key) is not str:
            return f"{self._words.title} has no keys but strings"
        return self._words.key_misfit(self._path)
