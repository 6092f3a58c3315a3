"""A place in the state, as people write it: ``jobs[3].name``, ``jobs[-1]["odd key"]``, ``a.b``.

A path is a list of keys and indices. `parse` and `show` are each other's inverse; `step` walks.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable
from typing import Any

from pstate.errors import InvalidStateError
from pstate.values import SCALARS

_NAME = re.compile(r"""[^.\[\]"'\s]+""")
_SIMPLE = re.compile(r"[A-Za-z_][A-Za-z0-9_-]*")
_BRACKET = re.compile(r"""\[\s*(?:("(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*')|([^\]]*?))\s*\]""", re.S)
_INTEGER = re.compile(r"-?\d+")
#: What leads to several places, and is not a key: ``[*]``, ``[]``, ``[1:3]``.
SEVERAL = re.compile(r"\*?|(?:-?\d+)?(?::(?:-?\d+)?)+")


def keys_of(path: str | Iterable[Any] | None) -> list[Any]:
    """The keys and indices of *path*: a string as on the command line, or the keys themselves; None is the whole state.

    Raises ValueError or TypeError for anything else.
    """
    if path is None:
        return []
    return parse(path) if isinstance(path, str) else check(path)


def parse(text: str, several: Callable[[str], Any] | None = None) -> list[Any]:
    """The keys and indices in *text*; ``.`` is the whole state. Raises ValueError.

    A key between dots is a string. A key in brackets is a number, a quoted string, or any other key as YAML writes it.
    A dot may come first, and before a bracket, as in jq and yq. *several* makes a key of what is in brackets and fits
    `SEVERAL`; without it, that is refused, because it does not lead to one place.
    """
    if text == ".":
        return []
    path: list[Any] = []
    position = 0
    while position < len(text) or not path:
        start = position + (text[position : position + 1] == ".")
        if text[start : start + 1] == "[":
            found = _BRACKET.match(text, start)
            if found is None:
                raise _wrong(text, start, "this bracket is not closed")
            if found[1]:
                path.append(_quoted(text, start, found[1]))
            elif SEVERAL.fullmatch(found[2]):
                if several is None:
                    raise _wrong(text, start, _ONE_PLACE if found[2] else "a key is missing in the brackets")
                path.append(several(found[2]))
            else:
                path.append(_unquoted(text, start, found[2]))
        else:
            found = _NAME.match(text, start)
            if position > 0 and start == position:
                raise _wrong(text, position, f"a key with {text[position]!r} in it needs brackets and quotes")
            if found is None:
                raise _wrong(text, position, "a key is missing here")
            path.append(found[0])
        position = found.end()
    return path


_ONE_PLACE = "[*] and slices lead to several places, which only pstate get can print"


def _wrong(text: str, position: int, what: str) -> ValueError:
    return ValueError(
        f"path {text!r}, character {position + 1}: {what}. Nothing was done. "
        """Write jobs[3].name, or jobs["odd key"]."""
    )


def _quoted(text: str, position: int, quoted: str) -> str:
    try:
        return str(json.loads(quoted))
    except ValueError:
        import ast

        try:
            return str(ast.literal_eval(quoted))  # in Python's spelling
        except (ValueError, SyntaxError):
            raise _wrong(text, position, "this is not a quoted string") from None


def _unquoted(text: str, position: int, key: str) -> Any:
    if _INTEGER.fullmatch(key) and len(key) < 600:
        return int(key)
    from pstate.text import reading

    try:
        documents = reading.load_all(f"[{key}]".encode(), "PATH")
        (value,) = documents[0].value
    except (InvalidStateError, UnicodeError, ValueError):
        raise _wrong(text, position, "this is not a key") from None
    if type(value) is str and key[:1] != "!":
        raise _wrong(text, position, "a string in brackets needs quotes")
    if type(value) not in SCALARS or value != value:
        raise _wrong(text, position, "this is not a key")
    return value


def show(path: list[Any]) -> str:
    """The string that `parse` reads as *path*."""
    from pstate.text import scalars

    parts: list[str] = []
    for key in path:
        if type(key) is str and _SIMPLE.fullmatch(key):
            parts.append(f".{key}" if parts else key)
        elif type(key) is str:
            parts.append(f"[{json.dumps(key, ensure_ascii=False)}]")
        else:
            parts.append(f"[{scalars.scalar(key)}]")
    return "".join(parts) or "."


def step(container: Any, key: Any) -> Any:
    """The value at *key* in *container*. Raises LookupError."""
    if isinstance(container, dict):
        return container[key]
    if isinstance(container, list):
        return container[index(key)]
    if isinstance(container, set) and key in container:
        return key
    raise LookupError(key)


def index(key: Any) -> int:
    """*key* as an index of a list; digits between dots are one too. Raises LookupError."""
    if type(key) is int:
        return key
    if type(key) is str and _INTEGER.fullmatch(key) and len(key) < 600:
        return int(key)
    raise LookupError(key)


def check(keys: Iterable[Any]) -> list[Any]:
    """*keys* as a path. Raises TypeError if they are not one."""
    path = list(keys) if isinstance(keys, list | tuple) else [keys]
    for key in path:
        if type(key) not in SCALARS or key != key:
            raise TypeError(
                f"{keys!r} is not a path. Nothing was done. Write a string, such as 'jobs[3].name', or the keys and "
                "indices themselves, such as ('jobs', 3, 'name')."
            )
    return path
