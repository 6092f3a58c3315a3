r"""env: one KEY=value a line, as a POSIX shell sources it and as dotenv tools read it.

Values are read as a shell reads them, without its expansions: single quotes keep everything, double quotes know
``\\``, ``\"``, ``\$``, ``\``` and a backslash before a newline, and outside quotes a backslash keeps the next
character. What a shell would expand, or would not take for part of the value, is refused.
"""

from __future__ import annotations

import re
from typing import Any

from pstate.cli.transfer import plain
from pstate.cli.transfer.faults import bad_place

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*", re.ASCII)
_SAFE = re.compile(r"[A-Za-z0-9_./:@%+,-]+", re.ASCII)
_BETWEEN = re.compile(r"(?:[ \t\n]|#[^\n]*|\r(?=\n|\Z))*")
_KEY = re.compile(r"(?:export[ \t]+)?([^\s=]*)=")
_END = re.compile(r"(?:[ \t]+(?:#[^\n]*)?)?\r?(?:\n|\Z)")
_UNQUOTED = re.compile(r"""[^ \t\r\n'"\\$`|&;<>()]+""")
_TILDE = re.compile(r"(?:^|:)~")
_SINGLE = re.compile(r"'([^']*)'")
_DOUBLE = re.compile(r'"((?:[^"\\$`]|\\.)*)"', re.DOTALL)
_IN_DOUBLE = re.compile(r'\\([\\"$`\n])')


def write(tree: dict[str, Any]) -> bytes:
    """*tree* as lines that a POSIX shell can source."""
    return "".join(f"{key}={_written(value)}\n" for key, value in tree.items()).encode()


def _written(value: Any) -> str:
    text = plain.text_of(value)
    if _SAFE.fullmatch(text) and plain.value_of(text) == value:
        return text
    if "'" not in text:
        return f"'{text}'"
    # dotenv tools do not know that the quoted parts of a value can follow each other, as in 'it'\''s'.
    return '"' + re.sub(r'([\\"$`])', r"\\\1", text) + '"'


def misfit(path: list[Any], value: Any) -> str | None:
    """Why *value* cannot be at *path*."""
    if path and type(value) is dict:
        return "env has one level: no mappings in mappings. --only PATH exports one of them"
    if type(value) is str and "\0" in value:
        return "a NUL character, which no environment variable can hold"
    return None


def key_misfit(path: list[Any]) -> str | None:
    """Why the last key of *path* cannot be one."""
    if _NAME.fullmatch(path[-1]):
        return None
    return "not a valid name for a variable: a shell takes ASCII letters, digits and _, and no digit first"


def read(text: str, name: str, is_typed: bool) -> dict[str, Any]:
    """What *text* assigns. Unquoted values become numbers and so on if *is_typed*. Raises BadSource."""
    found: dict[str, Any] = {}
    places: dict[str, int] = {}
    position = _end(_BETWEEN, text, 0)
    while position < len(text):
        begun = position
        assigned = _KEY.match(text, position)
        key = assigned[1] if assigned else ""
        if assigned is None or not _NAME.fullmatch(key):
            raise bad_place(text, begun, name, _no_assignment(text, begun))
        if key in found:
            first = text.count("\n", 0, places[key]) + 1
            raise bad_place(text, begun, name, f"{key} is assigned twice; the first time is in line {first}")
        value, is_plain, position = _value(text, assigned.end(), name)
        found[key] = plain.value_of(value) if is_plain and is_typed else value
        places[key] = begun
        position = _end(_BETWEEN, text, position)
    return found


def _no_assignment(text: str, position: int) -> str:
    line = text[position:].partition("\n")[0].strip()
    return f"{line[:40]!r} is not KEY=value, with a key of ASCII letters, digits and _ and no digit first"


def _value(text: str, position: int, name: str) -> tuple[str, bool, int]:
    """The value at *position*, whether nothing in it is quoted, and the end of its line."""
    parts: list[str] = []
    is_plain = True
    while not _END.match(text, position):
        character = text[position]
        if part := _UNQUOTED.match(text, position):
            if tilde := _TILDE.search(part[0]):
                raise bad_place(text, *_trouble(text, position + tilde.end() - 1, name))
            parts.append(part[0])
            position = part.end()
            continue
        is_plain = False
        if character == "'" and (part := _SINGLE.match(text, position)):
            parts.append(part[1])
        elif character == '"' and (part := _DOUBLE.match(text, position)):
            parts.append(_IN_DOUBLE.sub(lambda found: found[1].replace("\n", ""), part[1]))
        elif character == "\\" and position + 1 < len(text):
            parts.append(text[position + 1].replace("\n", ""))
            position += 2
            continue
        else:
            raise bad_place(text, *_trouble(text, position, name))
        position = part.end()
    return "".join(parts), is_plain, _end(_END, text, position)


def _trouble(text: str, position: int, name: str) -> tuple[int, str, str]:
    """What is wrong at *position*, where a value does not go on."""
    character = text[position]
    if character == '"':
        for inside in re.compile(r"\\.|([\"$`])", re.DOTALL).finditer(text, position + 1):
            if inside[1] in ("$", "`"):
                position, character = inside.start(), inside[1]
                break
    if character in ("'", '"'):
        return position, name, "unterminated quote"
    if character in ("$", "`", "~"):
        return position, name, f"a shell expands {character} here, which an import does not. Use single quotes"
    if character == "\\":
        return position, name, "a backslash at the end of the file"
    if character == "\r":
        return position, name, "a carriage return outside quotes"
    return position, name, f"a shell ends the value before this {character!r}. Put the value in quotes"


def _end(pattern: re.Pattern[str], text: str, position: int) -> int:
    found = pattern.match(text, position)
    return position if found is None else found.end()
