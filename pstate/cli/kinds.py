"""What a value is, in the words of the command line. Imported by `pstate type`, and to say what is wrong."""

from __future__ import annotations

from datetime import date, datetime
from typing import Any

#: A subclass comes before its base: a datetime is a date, and True is an integer.
_NAMES: tuple[tuple[type, str], ...] = (
    (dict, "mapping"),
    (list, "list"),
    (set, "set"),
    (str, "string"),
    (bool, "boolean"),
    (int, "integer"),
    (float, "float"),
    (bytes, "bytes"),
    (datetime, "datetime"),
    (date, "date"),
)
NAMES = (*(name for _, name in _NAMES), "null")


def name(value: Any) -> str:
    """One of `NAMES`."""
    return next((name for base, name in _NAMES if isinstance(value, base)), "null")


def described(value: Any) -> str:
    """*value* in a sentence, with its size: ``a list of 2 elements``, ``an integer``, ``null``."""
    kind = name(value)
    if kind in ("null", "bytes"):
        return kind
    text = f"{'an' if kind == 'integer' else 'a'} {kind}"
    return f"{text} of {elements(value)}" if kind == "list" else text


def elements(value: Any) -> str:
    """How many elements the list *value* has: ``1 element``, ``2 elements``."""
    return f"{len(value)} element{'' if len(value) == 1 else 's'}"
