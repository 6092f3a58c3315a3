"""The text of one scalar, in quotes if it needs them: for a record, and for a key in flow style.

Every loader of YAML 1.1 and 1.2 reads it as the same value of the same type.
"""

from __future__ import annotations

import functools
import json
import json.encoder
import re
from collections.abc import Callable
from datetime import date, datetime
from typing import Any

# Loaders look for the ":" of a key in 1,024 characters at most; longer keys need "? ". Some room is left.
LONGEST_SIMPLE_KEY = 1000

# Python refuses to convert longer decimals, from 640 digits if so configured (sys.set_int_max_str_digits). It always
# converts hexadecimal integers.
DECIMAL_DIGITS = 600
_DECIMAL_LIMIT = 10**DECIMAL_DIGITS


_quote_json: Callable[[str], str] = json.encoder.encode_basestring


@functools.cache
def _escaped() -> re.Pattern[str]:
    """Characters that a loader refuses raw, takes for a line break, or drops. JSON's own escapes cover the others."""
    return re.compile("[\x7f-\x9f\u2028\u2029\ufeff\ufffe\uffff\ud800-\udfff]")


def _escaped_character(found: re.Match[str]) -> str:
    character = found.group()
    if "\ud800" <= character <= "\udfff":
        raise UnicodeEncodeError("utf-8", found.string, found.start(), found.end(), "surrogates not allowed")
    return f"\\u{ord(character):04x}"


def escape(quoted: str) -> str:
    """*quoted*, a string in double quotes, with escapes for characters that a loader would not read as they are."""
    return _escaped().sub(_escaped_character, quoted)


def quoted(text: str) -> str:
    """*text* in double quotes. Raises UnicodeEncodeError for a lone surrogate."""
    quoted = _quote_json(text)
    if quoted.isascii() and "\x7f" not in quoted:
        return quoted
    return escape(quoted)


def _integer(value: int) -> str:
    if -_DECIMAL_LIMIT < value < _DECIMAL_LIMIT:
        return repr(value)
    return hex(value)


def _float(value: float) -> str:
    text = repr(value)
    if "n" in text:  # inf, -inf, nan
        return text.replace("inf", ".inf").replace("nan", ".nan")
    if "e" in text and "." not in text:
        return text.replace("e", ".0e")  # YAML 1.1 reads 1e+16 as a string.
    return text


def _binary(value: bytes) -> str:
    from base64 import b64encode

    return f'!!binary "{b64encode(value).decode("ascii")}"'


#: How a scalar is written, by its exact type.
WRITERS: dict[type, Callable[[Any], str]] = {
    str: quoted,
    int: _integer,
    bool: lambda value: "true" if value else "false",
    type(None): lambda value: "null",
    float: _float,
    bytes: _binary,
    date: lambda value: value.isoformat(),
    datetime: lambda value: value.isoformat(" "),
}


def scalar(value: Any) -> str:
    """The text of the scalar *value* in a record. Raises UnicodeEncodeError for a lone surrogate."""
    kind = value.__class__
    if kind is int:
        return repr(value) if -_DECIMAL_LIMIT < value < _DECIMAL_LIMIT else hex(value)
    if kind is str:
        quoted = _quote_json(value)
        if quoted.isascii() and "\x7f" not in quoted:
            return quoted
        return escape(quoted)
    return WRITERS[kind](value)


def is_simple_key(text: str) -> bool:
    """Whether a loader reads *text* as a key without a question mark before it."""
    return len(text) <= LONGEST_SIMPLE_KEY
