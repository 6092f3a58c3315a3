"""The text of a record: operations in one line, which JSON, YAML 1.1 and `reading.decode_body` read alike.

It is JSON if JSON and YAML agree, else YAML in flow style.
"""

from __future__ import annotations

import functools
import json
import json.encoder
import re
from collections.abc import Iterable
from datetime import datetime
from typing import Any

from pstate.text.scalars import DECIMAL_DIGITS, LONGEST_SIMPLE_KEY, WRITERS, escape, scalar
from pstate.values import ordered

_encode_json = json.JSONEncoder(ensure_ascii=False, separators=(",", ": ")).encode
_SAFE_TYPES = frozenset((str, int, bool, type(None)))
_NESTED_TYPES = frozenset((str, int, bool, type(None), float, list, dict))
_LONG_DECIMAL = re.compile(rf"[0-9]{{{DECIMAL_DIGITS + 1}}}")
# An escape takes six characters, quotes two.
_LONGEST_SURE_KEY = (LONGEST_SIMPLE_KEY - 2) // 6


def encode_body(operations: list[Any]) -> str:
    """The text of *operations* in a record: one line, which JSON, YAML 1.1 and `decode_body` read alike.

    It is JSON if JSON and YAML agree, else YAML in flow style. Raises UnicodeEncodeError for a lone surrogate.
    """
    if len(operations) == 1:
        text = _on_scalars(operations[0])
        if text:
            return text
    else:
        texts = list(map(_on_scalars, operations))
        if all(texts):
            return "[" + ",".join([text[1:-1] for text in texts]) + "]"
    if _is_json(operations):
        try:
            text = _encode_json(operations)
        except ValueError:
            return flow(operations)  # an integer beyond Python's limit on decimals
        if len(text) <= DECIMAL_DIGITS or _LONG_DECIMAL.search(text) is None:
            if text.isascii() and "\x7f" not in text:
                return text
            # Here, everything that is not ASCII is in quotes.
            return escape(text)
    return flow(operations)


def _on_scalars(operation: list[Any]) -> str:
    """`encode_body` of one *operation* that has only scalars after its path, as most have; "" for another one.

    The check whether JSON may write it, and JSON itself, would take 1 µs more, and 2 µs for a record of one operation.
    """
    if operation[0] == "set":
        _, path, key, value = operation
        return encode_set(path, key, value) if value.__class__ in WRITERS else ""
    if operation[0] == "insert" and operation[3].__class__ in WRITERS:
        _, path, index, value = operation
        return f'[["insert",{key_text(path)},{index},{scalar(value)}]]'
    if operation[-1].__class__ in WRITERS:
        name, path, *scalars = operation
        return f'[["{name}",{key_text(path)},{",".join(map(scalar, scalars))}]]'
    return ""


def encode_set(path: list[Any], key: Any, value: Any) -> str:
    """`encode_body` of one `set` of a scalar."""
    # A comparison with a constant of one machine word saves 30 ns; larger integers are written like all scalars.
    if value.__class__ is int and -1_000_000_000 < value < 1_000_000_000:
        if not path and key.__class__ is str:
            return f"{_root_keys.get(key) or _root_key(key)}{value}]]"
        return f'[["set",{key_text(path)},{scalar(key)},{value}]]'
    return f'[["set",{key_text(path) if path else "[]"},{scalar(key)},{scalar(value)}]]'


_root_keys: dict[str, str] = {}


def _root_key(key: str) -> str:
    """The beginning of a record that sets *key* of the root; remembered for the next time."""
    text = f'[["set",[],{scalar(key)},'
    if len(_root_keys) < 1000 and len(key) < 100:
        _root_keys[key] = text
    return text


def key_text(path: list[Any]) -> str:
    """The text of a *path*, a list of keys and indices, in a record."""
    try:
        return _path_text(*path)
    except _Ambiguous:
        return "[" + ",".join(map(scalar, path)) + "]"


class _Ambiguous(Exception):
    """Keys that are equal, and of one type, may be written differently: 0.0 and -0.0, one moment in two time zones."""


# Programs write to the same places again and again: 0.1 instead of 0.65 µs at depth 5. By type as well, because 1 and
# True are equal.
@functools.lru_cache(1000, typed=True)
def _path_text(*path: Any) -> str:
    if not {float, datetime}.isdisjoint(map(type, path)):
        raise _Ambiguous
    return "[" + ",".join(map(scalar, path)) + "]"


def _is_json(value: Any) -> bool:
    """Whether YAML reads the JSON of *value* alike. Checks whole containers at a time, not each value."""
    values: Iterable[Any]
    if value.__class__ is list:
        values = value
    elif value.__class__ is dict:
        if value and (set(map(type, value)) != {str} or max(map(len, value)) > _LONGEST_SURE_KEY):
            return False
        values = value.values()
    else:
        return False
    types = set(map(type, values))
    if types <= _SAFE_TYPES:
        return True
    if not types <= _NESTED_TYPES:
        return False
    if float in types:
        # Exponents, inf and nan are written differently. Their reprs have one of these letters, and no others do.
        texts = repr([number for number in values if number.__class__ is float])
        if "e" in texts or "n" in texts:
            return False
    if list in types or dict in types:
        for child in values:
            kind = child.__class__
            if (kind is list or kind is dict) and not _is_json(child):
                return False
    return True


def flow(value: Any) -> str:
    """The plain tree *value* in one line, as in a record. `load_all` reads it back. Raises as `encode_body`."""
    kind = value.__class__
    if kind is list or kind is tuple:
        return "[" + ",".join(map(flow, value)) + "]"
    if kind is dict:
        return "{" + ",".join([f"{_flow_key(key)}: {flow(item)}" for key, item in value.items()]) + "}"
    if kind is set or kind is frozenset:
        return "!!set {" + ",".join([f"{_flow_key(key)}: null" for key in ordered(value)]) + "}"
    return scalar(value)


def _flow_key(key: Any) -> str:
    text = scalar(key)
    return text if len(text) <= LONGEST_SIMPLE_KEY else f"? {text} "
