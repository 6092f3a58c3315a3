"""Decides whether a document is as `dumping` writes it, so that there is nothing of a person to keep."""

from __future__ import annotations

import functools
import re
from collections import Counter
from itertools import pairwise
from typing import Any

from pstate.errors import InvalidStateError
from pstate.text import dumping, reading

#: A line of a canonical document, or the lines of a block of text: indentation and dashes, and the rest.
_CANONICAL = re.compile(rb"(?s)((?:  )*(?:- )*)([^ ].*)")
#: The end of a line that opens a block of text, or a set.
_OPENS_TEXT, _OPENS_SET = re.compile(rb"\|[-+]?\n"), re.compile(rb"!!set\n")
#: The line of a key or an element that begins a literal.
_LITERAL = re.compile(rb"[^\n]*[:-] \|[-+]?")
_BAR = re.compile(rb" \|[-+]?(?=\n)")


def literals(document: bytes) -> Counter[bytes]:
    """The lines of *document* that begin a literal. They show where a person wanted one that `dumping.dump` would not
    write.
    """
    # A pattern that begins with the line would be tried at each character.
    ends = [found.end() for found in _BAR.finditer(document)]
    lines = [document[document.rfind(b"\n", 0, end) + 1 : end] for end in ends]
    return Counter(filter(_LITERAL.fullmatch, lines))


def has_comment_line(document: bytes) -> bool:
    """Whether a line of *document* begins with a `#`. `dumping.dump` never writes such a line, so its document is not
    needed to compare.
    """
    return document.startswith(b"#") or b"\n#" in document


def is_canonical(base: bytes, canonical: bytes) -> bool:
    """Whether *base* is as `dumping.dump` writes it, so that there is nothing to keep.

    *canonical* is its document for a state that was made from *base*, so most lines are in both.

    Each line is checked, with the indentation of the lines below it. Reading the document would take ten times as long.
    """
    if base == canonical or not base:
        return True
    if not base.endswith(b"\n") or base.startswith((b" ", b"\n")) or base.endswith(b":\n"):
        return False
    lines = _lines(base)
    if has_comment_line(base) or b"" in lines:
        return False  # `dumping.dump` writes blank lines only in blocks of text
    for line, following in pairwise(lines):
        if line.endswith(b":") and _width(following, b" ") != _width(line, b" -") + 2 and b"\n" not in line:
            return False
    ours = set(_lines(canonical))
    others = [line for line in lines if line not in ours]
    lines.append(b"")
    number = -1
    for line in others:
        number = lines.index(line, number + 1)
        if _goes_on(line, lines[number + 1]):
            return False
    if any(b" #" in line and b'"' not in line and b"\n" not in line for line in others):
        return False  # certain, and found quickly
    found = [_CANONICAL.fullmatch(line) for line in others]
    items = [match[2] + b" null" if match[2].endswith(b":") else _below(match) for match in found if match is not None]
    if len(items) != len(found):
        return False
    text = b"".join([b"  - %b\n" % item for item in items])
    try:
        value = reading.load(b"_:\n" + text, "").value
    except InvalidStateError:
        return False
    if not items:
        return True
    if dumping.dump(value) != b"_:\n" + text:
        return False
    # A line without a key and a dash continues the scalar above it.
    entries = zip(found, value["_"], strict=True)
    return all(item.__class__ is dict or (match and match[1].endswith(b"- ")) for match, item in entries)


def _lines(data: bytes) -> list[bytes]:
    """The lines of the document *data*. A block of text, or a set, is one item with the line that opens it.

    Lines with another indentation than that of `dumping.dump` are not taken for a part of it.
    """
    lines: list[bytes] = []
    position = 0
    # Two patterns that begin with one character each are found ten times as fast as one of both.
    opens = [*_OPENS_TEXT.finditer(data), *_OPENS_SET.finditer(data)]
    for found in sorted(opens, key=re.Match.start):
        if found.start() < position:
            continue  # inside a block of text
        start, stop = data.rfind(b"\n", 0, found.start()) + 1, found.end()
        line = data[start:stop]
        margin = _width(line, b" -")
        margin += 2 * (start + margin != found.start())  # below a key
        lines += data[position:start].split(b"\n")[:-1]
        position = _match_below(margin)(data, stop).end()
        lines.append(data[start : position - 1])
    lines += data[position:].split(b"\n")[:-1]
    return lines


@functools.cache
def _match_below(margin: int) -> Any:
    return re.compile(rb"(?: {%d}[^\n]*\n|\n)*" % margin).match


def _below(found: re.Match[bytes]) -> bytes:
    """The lines that were *found* without indentation and dashes, indented as the lines of an element."""
    first, *others = found[2].split(b"\n")
    width = len(found[1])
    return b"\n".join([first, *[line and b"    " + line[width:] for line in others]])


def _goes_on(line: bytes, following: bytes) -> bool:
    """Whether a plain scalar that ends with its *line* in a canonical document continues in the *following* one."""
    column, other = _width(line, b" -"), _width(following, b" ")
    return other > column or (other == column and following.startswith(b"-", other))


def _width(line: bytes, characters: bytes) -> int:
    return len(line) - len(line.lstrip(characters))
