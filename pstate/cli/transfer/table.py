"""csv: a list of mappings, one a row, below a row of their keys, as RFC 4180 and Python's csv module write them.

Quotes carry the type, as with `csv.QUOTE_STRINGS`: a quoted field is a string, an empty field without quotes is null.
`csv.reader` does not tell which fields are quoted, so the reader is here.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, NamedTuple

from pstate.cli.transfer import plain
from pstate.cli.transfer.faults import bad_place

#: One field with what ends it: a quoted one, or the characters of a plain one.
_FIELD = re.compile(r'(?:"([^"]*(?:""[^"]*)*)"|([^",\r\n]*))(,|\r?\n|\r|\Z)')
_NEEDS_QUOTES = re.compile(r'[",\r\n]')


class _Unquoted(str):
    """A field without quotes, which may be a number."""

    __slots__ = ()


class _Row(NamedTuple):
    position: int
    fields: list[str]


def write(tree: list[dict[str, Any]]) -> bytes:
    """*tree*, a list of mappings of scalars. A key that one of them lacks is an empty field there."""
    columns = _columns(tree)
    if not columns:
        return b""  # each value was left out
    lines = [",".join(f'"{_doubled(key)}"' if not key or _NEEDS_QUOTES.search(key) else key for key in columns)]
    lines += [",".join(_field(row.get(key)) for key in columns) for row in tree]
    return "".join(f"{line}\n" for line in lines).encode()


def _columns(tree: list[dict[str, Any]]) -> list[str]:
    """All keys, in the order of their first occurrence."""
    return list(dict.fromkeys(key for row in tree for key in row))


def _field(value: Any) -> str:
    if value is None:
        return ""
    return f'"{_doubled(value)}"' if type(value) is str else plain.text_of(value)


def _doubled(text: str) -> str:
    return text.replace('"', '""')


def misfit(path: list[Any], value: Any) -> str | None:
    """Why *value* cannot be at *path*."""
    if not path:
        if type(value) is not list:
            return "CSV is a list of mappings. --only PATH exports one"
        if not any(value) and all(type(row) is dict for row in value):
            return "CSV has no columns for a list without keys"
    if len(path) == 1 and type(value) is not dict:
        return "CSV is a list of mappings"
    if len(path) > 1 and type(value) in (dict, list):
        return "a field of CSV holds a single value"
    return None


def gaps(tree: Any) -> Iterator[tuple[list[Any], str]]:
    """Where mappings of *tree* lack keys that others have, and why that is a fault."""
    if type(tree) is list and all(type(row) is dict for row in tree):
        columns = _columns(tree)
        for index, row in enumerate(tree):
            for key in columns:
                if key not in row:
                    yield [index, key], "is missing, and would come back as null"


def read(text: str, name: str, is_typed: bool) -> list[dict[str, Any]]:
    """The rows in *text*. Without *is_typed*, all fields are strings. Raises BadSource."""
    rows = _rows(text, name)
    head = next(rows, None)
    if head is None:
        raise bad_place(text, 0, name, "a row with the names of the columns must come first")
    columns = [str(field) for field in head.fields]
    if len(set(columns)) < len(columns):
        twice = next(key for key in columns if columns.count(key) > 1)
        raise bad_place(text, head.position, name, f"two columns have the name {twice!r}")
    found = []
    for row in rows:
        if len(row.fields) != len(columns):
            if row.fields == [""] and type(row.fields[0]) is _Unquoted:
                continue  # an empty line
            what = f"this row has {len(row.fields)} fields, and the first one has {len(columns)}"
            raise bad_place(text, row.position, name, what)
        found.append(row.fields)
    values = [_values(list(column), is_typed) for column in zip(*found, strict=True)]
    return [dict(zip(columns, row, strict=True)) for row in zip(*values, strict=True)]


def _rows(text: str, name: str) -> Iterator[_Row]:
    position = begun = 0
    fields: list[str] = []
    while position < len(text) or fields:
        found = _FIELD.match(text, position)
        if found is None:
            raise bad_place(text, *_trouble(text, position, name))
        quoted, plainly, end = found.groups()
        fields.append(_Unquoted(plainly) if quoted is None else quoted.replace('""', '"'))
        position = found.end()
        if end != ",":
            yield _Row(begun, fields)
            fields, begun = [], position


def _trouble(text: str, position: int, name: str) -> tuple[int, str, str]:
    """What is wrong with the field at *position*."""
    if text[position] != '"':
        return text.index('"', position), name, "a quote in a field that does not begin with one"
    closed = re.compile(r'"[^"]*(?:""[^"]*)*"').match(text, position)
    if closed is None:
        return position, name, "unterminated quote"
    return closed.end(), name, "text follows the closing quote of a field"


def _values(column: list[str], is_typed: bool) -> list[Any]:
    """The fields of one *column* as values.

    All its unquoted fields stay strings if one of them is one: prices of 12.75 and 12.50 would become a number and a
    string otherwise.
    """
    if not is_typed:
        return [str(field) for field in column]
    values = [plain.value_of(field) if type(field) is _Unquoted else None for field in column]
    if any(type(value) is _Unquoted and value for value in values):
        return [str(field) if field or type(field) is str else None for field in column]
    return [
        (value if field else None) if type(field) is _Unquoted else field
        for field, value in zip(column, values, strict=True)
    ]
