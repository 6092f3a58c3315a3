"""Reads the valid entries of an invalid YAML document, each by itself.

Only lines are taken or left, so nothing is invented; but an entry that is whole may belong elsewhere, if what is
missing before it held its beginning. So this is done only with --salvage.
"""

from __future__ import annotations

import contextlib
import re
from typing import Any, NamedTuple

from pstate.errors import InvalidStateError
from pstate.text import reading

#: A line with its number, counted from 1.
Line = tuple[int, bytes]

_ENTRY = re.compile(rb"[ ]*(?:-(?:[ ]|\r?\n)|\?[ ]|[^\n]+?:(?:[ ]|\r?\n))")
_OPENS = re.compile(rb"[ ]*(?:-|(?:\?[ ])?[^\n]*[^\s\n][^\n]*:|[^\s\n]:)[ ]*(?:#[^\n]*)?\r?\n")
_SEPARATOR = re.compile(rb"(?:---|\.\.\.)(?:\s|$)")
#: In a piece of a document, it would be the wrong place.
_WHERE = re.compile(r" at offset \d+| that begins in line \d+")


class Span(NamedTuple):
    """Lines that are left out."""

    first: int
    last: int
    reason: str


class Fragments(NamedTuple):
    """What was found: *text* is a document that parses."""

    text: bytes
    lost: list[Span]


class _Broken(Exception):
    """Nothing of these lines can be kept."""


def readable(text: bytes, path: str) -> Fragments | None:
    """The entries of the document *text* that are whole; None if there is none."""
    lines = list(enumerate(_lines(text), 1))
    end = _end_of_first(lines)
    start = _begin_of_mapping(lines[:end])
    for deep in (True, False):
        lost = [Span(*_numbers(lines[:start]), "the key that they belong to is missing")] if start else []
        kept = _kept(lines[start:end], lost, deep)
        document = b"".join(line for _, line in kept)
        if kept and end < len(lines):
            lost.append(Span(lines[end][0], lines[-1][0], "they are after the end of the document"))
        try:
            if reading.load(document, path).value:
                return Fragments(document, sorted(lost))
        except InvalidStateError:
            continue  # pieces that are whole by themselves, and not together: fewer of them may be
    return None


def _lines(text: bytes) -> list[bytes]:
    """*text* in lines that end in LF; a lone carriage return does not end one."""
    lines = [line + b"\n" for line in text.split(b"\n")]
    lines[-1] = lines[-1][:-1]
    return [line for line in lines if line]


def _end_of_first(lines: list[Line]) -> int:
    """How many of *lines* belong to the first document."""
    has_content = False
    for index, (_, line) in enumerate(lines):
        if _SEPARATOR.match(line) and has_content:
            return index
        has_content = has_content or _is_content(line)
    return len(lines)


def _begin_of_mapping(lines: list[Line]) -> int:
    """How many of *lines* are before the first key of the root, and so belong to a missing key."""
    content = [(index, line) for index, (_, line) in enumerate(lines) if _is_content(line)]
    level = min((_indent(line) for _, line in content), default=0)
    first = next((index for index, line in content if _indent(line) == level and line[level : level + 1] != b"-"), 0)
    return first if content and content[0][0] < first else 0


def _is_content(line: bytes) -> bool:
    return bool(line.strip()) and line.lstrip()[:1] != b"#" and not _SEPARATOR.match(line) and line[:1] != b"%"


def _indent(line: bytes) -> int:
    return len(line) - len(line.lstrip(b" "))


def _groups(lines: list[Line]) -> list[list[Line]]:
    """*lines* in entries of the collection that they are, each with the comments above it."""
    content = [(index, line) for index, (_, line) in enumerate(lines) if _is_content(line)]
    if not content:
        return []
    level = _indent(content[0][1])
    in_list = content[0][1].lstrip(b" ")[:1] == b"-"
    starts = []
    for index, line in content:
        first = line.lstrip(b" ")[:1]
        if _indent(line) <= level and (in_list or first != b"-") and first not in (b"]", b"}", b")", b":"):
            while index > 0 and not _is_content(lines[index - 1][1]) and _indent(lines[index - 1][1]) <= level:
                index -= 1
            starts.append(index)
    starts = [0, *starts[1:]]
    return [lines[start:stop] for start, stop in zip(starts, [*starts[1:], len(lines)], strict=True)]


def _kept(lines: list[Line], lost: list[Span], deep: bool) -> list[Line]:
    """The lines of the entries in *lines* that are whole; what is not goes to *lost*."""
    entries: dict[int, tuple[list[Line], list[Span]]] = {}
    owner: dict[Any, int] = {}
    for number, group in enumerate(_groups(lines)):
        spans: list[Span] = []
        try:
            kept, keys = _whole(group, spans, deep)
        except _Broken as error:
            lost.append(Span(*_numbers(group), str(error)))
            continue
        for key in keys:
            # The last one counts: so it does for stock loaders, and in the files of persistedstate 23.1.
            earlier, _ = entries.pop(owner.get(key, number), ([], []))
            if earlier:
                lost.append(Span(*_numbers(earlier), f"the key occurs again in line {_numbers(group)[0]}"))
            owner[key] = number
        entries[number] = kept, spans
    for _, spans in entries.values():
        lost += spans
    return [line for kept, _ in entries.values() for line in kept]


def _whole(group: list[Line], lost: list[Span], deep: bool) -> tuple[list[Line], list[Any]]:
    """What can be kept of *group*, and its keys. Raises _Broken."""
    try:
        return group, _keys(group)
    except InvalidStateError as error:
        reason = _WHERE.sub("", error.reason)
        if not deep:
            raise _Broken(reason) from error
    start = next(index for index, (_, line) in enumerate(group) if _is_content(line))
    with contextlib.suppress(InvalidStateError):
        keys = _keys(group[start:])
        lost.append(Span(group[0][0], group[start - 1][0], reason))  # the comments above it
        return group[start:], keys
    kept = _inside(group, lost, reason)
    try:
        return kept, _keys(kept)
    except InvalidStateError:
        raise _Broken(reason) from None


def _numbers(group: list[Line]) -> tuple[int, int]:
    content = [number for number, line in group if _is_content(line)]
    return content[0], content[-1]


def _keys(group: list[Line]) -> list[Any]:
    """The keys in *group*, entries of a mapping; of an element of a list, one that equals no other.

    Raises InvalidStateError where it does not parse.
    """
    text = b"".join(line for _, line in group)
    if re.search(rb"\r(?!\n)", text):
        raise InvalidStateError("", reason="a line ends in a carriage return alone")
    documents = reading.load_all(text, "")
    value = documents[0].value if len(documents) == 1 else None
    if type(value) is list and len(value) == 1:
        return [object()]
    if type(value) is not dict or not value:
        raise InvalidStateError("", reason="it is not an entry of a mapping")
    return [("key", key) for key in value]


def _inside(group: list[Line], lost: list[Span], reason: str) -> list[Line]:
    """The valid part of the invalid entry *group*. Raises _Broken."""
    start = next(index for index, (_, line) in enumerate(group) if _is_content(line))
    number, head = group[start]
    if _OPENS.fullmatch(head):
        below = group[start + 1 :]
        return [*group[: start + 1], *_entries(below, lost, reason)]
    if head.lstrip(b" ")[:2] != b"- ":
        raise _Broken(reason)
    # An element that begins with its first key: the dash is a space of the mapping's indentation.
    dash = _indent(head)
    kept = _entries([(number, _with(head, dash, b" ")), *group[start + 1 :]], lost, reason)
    first = next(index for index, (_, line) in enumerate(kept) if _is_content(line))
    number, line = kept[first]
    if line[dash : dash + 2] != b"  ":
        raise _Broken(reason)
    return [*group[:start], *kept[:first], (number, _with(line, dash, b"-")), *kept[first + 1 :]]


def _with(line: bytes, index: int, byte: bytes) -> bytes:
    return line[:index] + byte + line[index + 1 :]


def _entries(lines: list[Line], lost: list[Span], reason: str) -> list[Line]:
    """The valid part of *lines*, which must be a block of entries: a string needs all its lines."""
    for group in _groups(lines):
        head = next(line for _, line in group if _is_content(line))
        if not _ENTRY.match(head):
            raise _Broken(reason)
    kept = _kept(lines, lost, deep=True)
    if not any(_is_content(line) for _, line in kept):
        raise _Broken(reason)
    return kept
