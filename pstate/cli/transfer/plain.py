"""Scalars in the formats that know only strings: env, ini and csv.

One rule decides types in both directions. Unquoted text is a number, a boolean, a date or a time only if pstate writes
that value with exactly the same characters. So `8080` is an integer, while `007`, `1.10`, `1e5` and `yes` stay strings:
an import never changes a character that an export could not restore.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import date, datetime
from typing import Any

#: What these formats hold, apart from null, which is up to each of them.
KINDS: frozenset[type] = frozenset({bool, int, float, str, date, datetime})

_INTEGER = re.compile(r"0|-?[1-9][0-9]{0,599}")
_FLOAT = re.compile(r"-?[0-9]+(?:\.[0-9]+)?(?:e[-+][0-9]+)?")
_DATE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
_TIME = re.compile(_DATE.pattern + r"T[-+:.0-9]+")

_READERS: tuple[tuple[re.Pattern[str], Callable[[str], Any]], ...] = (
    (_INTEGER, int),
    (_FLOAT, float),
    (_DATE, date.fromisoformat),
    (_TIME, datetime.fromisoformat),
)


def text_of(value: Any) -> str:
    """*value*, a scalar of `KINDS`, as plain text."""
    if type(value) is bool:
        return "true" if value else "false"
    return value.isoformat() if isinstance(value, date) else str(value)


def value_of(text: str) -> Any:
    """The value that `text_of` writes as *text*; *text* itself where there is none."""
    first = text[:1]
    if not first.isascii() or not (first.isdigit() or first in "-tf") or not text:
        return text
    if text in ("true", "false"):
        return text == "true"
    for pattern, read in _READERS:
        if pattern.fullmatch(text):
            try:
                value = read(text)
            except ValueError:  # the 31st of February, or more digits than this Python converts
                return text
            return value if text_of(value) == text else text
    return text
