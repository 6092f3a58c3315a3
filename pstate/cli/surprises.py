"""Plain scalars that a person may have meant otherwise: what YAML 1.1 makes of them, in a few words."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from datetime import date, datetime
from typing import Any, NamedTuple

from pstate import codec


class Surprise(NamedTuple):
    """One kind of misunderstanding, and what is to be said of this scalar."""

    kind: str
    sentence: str


def surprise(text: str, value: Any) -> Surprise | None:
    """What could surprise a person in the plain scalar *text*, which is read as *value*; None if nothing could."""
    kind = value.__class__
    if kind is int:
        return None if text.isdigit() and text[:1] != "0" else _of_integer(text, value)
    if kind is str:
        return _of_text(text)
    if kind is bool:
        if text.lower() in ("true", "false"):
            return None
        return Surprise("boolean", f"{text} is read as {str(value).lower()}; quote it if it is a text")
    if kind is float:
        return (
            Surprise("base 60", f"{text} is read as {value}, in base 60; quote it if it is a text")
            if ":" in text
            else None
        )
    if kind is date or kind is datetime:
        what = "a date" if kind is date else "a date and time"
        return Surprise("date", f"{text} is read as {what}; quote it if it is a text")
    return None


def _of_integer(text: str, value: int) -> Surprise | None:
    if ":" in text:
        return Surprise("base 60", f"{text} is read as {value}, in base 60; quote it if it is a text")
    digits = text.lstrip("+-")
    if digits[:1] == "0" and digits[1:].replace("_", "").isdigit():
        return Surprise("octal", f"{text} is read as {value}, an octal number; write {value}, or quote it")
    if "_" in text and digits[:1] != "0":
        return Surprise("underscore", f"{text} is read as {value}; quote it if it is a text")
    return None


def _of_text(text: str) -> Surprise | None:
    if text in ("y", "Y", "n", "N"):
        return Surprise("letter", f"{text} is read as a text, and by some other loaders as a boolean; quote it")
    if text == "None":
        return Surprise("null", "None is read as a text; write null, or quote it")
    number = _number(text)
    if number is not None:
        return Surprise(
            "number", f"{text} is read as a text, not as a number; write {codec.scalar(number)}, or quote it"
        )
    return None


def _number(text: str) -> int | float | None:
    """The number that *text* is for Python, and so for many people."""
    kinds: tuple[Callable[[str], int | float], ...] = (int, lambda digits: int(digits, 0), float)
    for kind in kinds:
        with contextlib.suppress(ValueError):
            return kind(text)
    return None
