"""What YAML 1.1 reads otherwise than many people expect: the plain scalars of a file, and the VALUE of a command."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable
from datetime import date, datetime
from typing import Any, NamedTuple

from pstate.text import reading, records, scalars

#: A version rather than a number, such as 1.10.
_ENDS_IN_ZERO = re.compile(r"[0-9]+\.[0-9]+0")

#: How many characters are shown of what was typed, or is stored.
_SHOWN = 60


class Surprise(NamedTuple):
    """One kind of misunderstanding, and the sentence about this scalar."""

    kind: str
    sentence: str


def surprise(text: str, value: Any) -> Surprise | None:
    """What could surprise a person about the plain scalar *text*, which is read as *value*; None if nothing could."""
    kind = value.__class__
    if kind is int:
        return None if text.isdigit() and text[:1] != "0" else _of_integer(text, value)
    if kind is str:
        return _of_text(text)
    if kind is bool:
        if text.lower() in ("true", "false"):
            return None
        return Surprise("boolean", f"{text} is read as {str(value).lower()}; quote it if it is a string")
    if kind is float:
        if ":" in text:
            return Surprise("base 60", f"{text} is read as {value}, in base 60; quote it if it is a string")
        if _ENDS_IN_ZERO.fullmatch(text):
            return Surprise("zero", f"{text} is read as {scalars.scalar(value)}; quote it if it is a string")
        return None
    if kind is date or kind is datetime:
        what = "a date" if kind is date else "a date and time"
        return Surprise("date", f"{text} is read as {what}; quote it if it is a string")
    return None


def _of_integer(text: str, value: int) -> Surprise | None:
    decimal = scalars.scalar(value)  # Python may refuse to write so many digits
    if ":" in text:
        return Surprise("base 60", f"{text} is read as {decimal}, in base 60; quote it if it is a string")
    digits = text.lstrip("+-")
    if digits[:1] == "0" and digits[1:].replace("_", "").isdigit():
        return Surprise("octal", f"{text} is read as {decimal}, an octal number; write {decimal}, or quote it")
    if "_" in text and digits[:1] != "0":
        return Surprise("underscore", f"{text} is read as {decimal}; quote it if it is a string")
    return None


def _of_text(text: str) -> Surprise | None:
    if text in ("y", "Y", "n", "N"):
        return Surprise("letter", f"{text} is read as a string, and by some other loaders as a boolean; quote it")
    if text == "None":
        return Surprise("null", "None is read as a string; write null, or quote it")
    number = _number(text)
    if number is not None:
        return Surprise(
            "number", f"{text} is read as a string, not as a number; write {scalars.scalar(number)}, or quote it"
        )
    return None


def _number(text: str) -> int | float | None:
    """The number that *text* is for Python, and for many people."""
    kinds: tuple[Callable[[str], int | float], ...] = (int, lambda digits: int(digits, 0), float)
    for kind in kinds:
        with contextlib.suppress(ValueError):
            return kind(text)
    return None


# ----------------------------------------------------------------------------------------------- a VALUE of a command


def remarks(text: str, value: Any, may_be_string: bool) -> list[str]:
    """The remarks for a person who typed *text* as a VALUE, which is stored as *value*.

    None if that is what was typed. *may_be_string*: the command can store *text* as it is, with --string.
    """
    typed = re.sub(r"\r?\n\Z", "", text)  # that of `echo`
    kind = value.__class__
    if kind in (dict, list, set):
        return _of_collection(typed, value, may_be_string)
    sentence = _of_string(typed, value, may_be_string) if kind is str else _of_scalar(typed, value, may_be_string)
    return [sentence] if sentence else []


def _of_string(typed: str, value: str, may_be_string: bool) -> str | None:
    first, last = typed.lstrip()[:1], typed.rstrip()[-1:]
    if first == "!" or (first in ("'", '"') and last == first) or (first in ("|", ">") and "\n" in typed):
        return None  # it says itself that it is a string, and which
    if value != typed:
        return _stored(typed, value, "", may_be_string)
    found = surprise(typed, value)
    return f"{found.sentence}." if found is not None and found.kind != "letter" else None


def _of_scalar(typed: str, value: Any, may_be_string: bool) -> str | None:
    canonical = scalars.scalar(value)
    if typed[:1] == "!" or not (isinstance(value, date) or typed.lower() != canonical.lower()):
        return None
    what = {date: "a date, ", datetime: "a date and time, "}.get(value.__class__, "")
    return _stored(typed, value, what, may_be_string)


def _of_collection(typed: str, value: Any, may_be_string: bool) -> list[str]:
    first, last = typed.lstrip()[:1], typed.rstrip()[-1:]
    if "\n" not in typed and (first not in ("[", "{", "!") or last not in ("]", "}")):
        what = {dict: "a mapping", list: "a list", set: "a set"}[value.__class__]
        return [_stored(typed, value, f"{what}, ", may_be_string)]
    found: dict[str, None] = {}

    def notice(text: str, value: Any, line: int, column: int) -> bool:
        about = surprise(text, value)
        if about is not None and about.kind != "letter":
            found[f"{about.sentence}."] = None
        return False

    reading.load_all(typed.encode(), "VALUE", notice)
    return list(found)


def _stored(typed: str, value: Any, what: str, may_be_string: bool) -> str:
    if not may_be_string:
        return f"{_short(typed)} is read as {what}{_short(records.flow(value))}."
    return f"{_short(typed)} is stored as {what}{_short(records.flow(value))}. To store the string: --string"


def _short(text: str) -> str:
    line = text if text.isprintable() else repr(text)
    return line if len(line) <= _SHOWN else f"{line[:_SHOWN]}..."
