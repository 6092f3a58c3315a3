"""Reads documents and records: YAML as PyYAML's safe loader reads it.

Most base documents have nothing unusual. `block` reads these, and returns the value that `events` returns, or none.
Most records are JSON, and the json module reads these. Everything else goes to `events`, which is imported only then.

`values` decides what can be stored; `format` knows the bytes around a body or a base document in the file.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any, NoReturn

from pstate.text import block
from pstate.text.parts import BOM, Merged, Parts
from pstate.values import MAX_DEPTH

if TYPE_CHECKING:
    from pstate.text.events import Document, Notice


# The value of a record is in a list of values, in an operation, in the list of operations.
_DEPTH_IN_RECORD = MAX_DEPTH + 4


class Base:
    """The base document of a state file: its value, and how it is written."""

    __slots__ = ("appendable", "bom", "newline", "value")

    def __init__(self, value: dict[Any, Any], appendable: bool, newline: str = "\n", bom: bool = False) -> None:
        self.value = value  #: the root mapping, a plain tree
        self.appendable = appendable  #: whether a base marker can follow these bytes without changing their meaning
        self.newline = newline  #: "\n", or "\r\n" if the first line ends with that
        self.bom = bom  #: whether it begins with a byte order mark

    def __repr__(self) -> str:
        return f"Base({self.value!r}, appendable={self.appendable}, newline={self.newline!r}, bom={self.bom})"


def load(data: bytes, path: str) -> Base:
    """Read the base document in *data*, the bytes of the file *path* up to its base marker.

    An empty file, one of blank lines and comments, and a document that is null are an empty state.
    Raises InvalidStateError, with line and column, for anything but a single YAML mapping that a state can be.
    """
    if not data:
        return Base({}, False)
    value = block.read(data.removeprefix(BOM), resolve)
    if value is block.UNSURE:
        return load_events(data, path)
    return _base(data, value, False)


def load_events(data: bytes, path: str, notice: Notice | None = None) -> Base:
    """The same as `load`, but always by PyYAML's events, which define what `block` must return.

    *notice* is called for each plain scalar that could be taken for another type than a string.
    """
    from pstate.text.events import read

    if b"\r" in data:
        _refuse_lone_returns(data, path)
    documents = read(data, path, MAX_DEPTH, single=True, notice=notice)
    if not documents:
        return _base(data, None, False)
    return _base(data, documents[0].value, documents[0].explicit_end)


def _base(data: bytes, value: dict[Any, Any] | None, explicit_end: bool) -> Base:
    first = data.find(b"\n")
    newline = "\r\n" if data[max(first - 1, 0) : first] == b"\r" else "\n"
    appendable = value is not None and data.endswith(b"\n") and not explicit_end
    return Base({} if value is None else value, appendable, newline, data.startswith(BOM))


def resolve(text: str) -> Any:
    """The value of the plain scalar *text* by PyYAML's tables; `block.UNSURE` for a mistake, or for another kind."""
    from pstate.text import tables  # imported for the first scalar that is not clear without them

    yaml = tables.pyyaml()
    for tag, matches in yaml.resolvers.get(text[:1], ()):
        if matches(text):
            construct = yaml.constructors.get(tag)
            try:
                return block.UNSURE if construct is None else construct(text)
            except (ValueError, LookupError, AttributeError, ArithmeticError, yaml.Error):
                return block.UNSURE
    return text


def trace(data: bytes, path: str) -> tuple[Any, Parts]:
    """The value of the document *data*, without byte order mark and carriage returns, and what it consists of.

    None and nothing, where there is no document. Raises InvalidStateError like `load`.
    """
    parts: list[Any] = []
    value = block.read(data, resolve, parts)
    if value is block.UNSURE:
        return trace_events(data, path)
    return value, Parts(parts, is_quick=True)


def trace_events(data: bytes, path: str) -> tuple[Any, Parts]:
    """What `trace` returns or raises, always by PyYAML's events."""
    from pstate.text.events import read

    parts: list[Any] = []
    merges: dict[int, Merged] = {}
    documents = read(data, path, MAX_DEPTH, single=True, parts=parts, merges=merges)
    return (documents[0].value if documents else None), Parts(parts, is_quick=False, merges=merges)


def load_all(data: bytes, path: str, notice: Notice | None = None) -> list[Document]:
    """Read every document of the YAML stream *data*, of any kind. Raises InvalidStateError like `load`.

    *notice* is as for `load_events`.
    """
    from pstate.text.events import read

    return read(data, path, _DEPTH_IN_RECORD, notice=notice)


def decode_body(text: str, path: str, line: int) -> list[Any]:
    """Read a body that `encode_body` wrote: equal values of equal types. *line* is its line in the file *path*.

    Raises InvalidStateError if *text* is not a list.
    """
    if "\\u" not in text or _SURROGATE_ESCAPE.search(text) is None:
        json_text = text.strip(_JSON_SPACE)
        try:
            # `decode` would look for the white space itself, which takes half as long as the reading.
            operations, end = _decode_json(json_text)
        except (ValueError, RecursionError):
            pass  # YAML that is not JSON, or damage; the YAML reader finds out which, and where
        else:
            if end == len(json_text) and type(operations) is list:
                return operations
    from pstate.text.events import read

    documents = read(f"--- {text}\n".encode("utf-8", "surrogatepass"), path, _DEPTH_IN_RECORD, line - 1)
    if len(documents) != 1 or type(documents[0].value) is not list:
        from pstate.text.mistakes import invalid

        raise invalid(path, line, 5, "a record must be a list of operations", "Keep a copy of the file")
    operations = documents[0].value
    return operations


def _no_constant(name: str) -> NoReturn:
    raise ValueError(name)


_SURROGATE_ESCAPE = re.compile(r"\\u[dD][89a-fA-F]")
_JSON_SPACE = " \t\r\n"
_decode_json = json.JSONDecoder(parse_constant=_no_constant).raw_decode


def _refuse_lone_returns(data: bytes, path: str) -> None:
    found = re.search(rb"\r(?!\n)", data)
    if found is not None:
        from pstate.text.mistakes import invalid, line_and_column

        line, column = line_and_column(data, found.start())
        what = "a line ends with a carriage return only, which hides the commit markers"
        raise invalid(path, line, column, what, "Save the file with LF or CRLF line ends")
