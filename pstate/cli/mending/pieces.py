"""A damaged journal, piece by piece: what its base marker still says, and which records a checksum still confirms.

`format.scan` stops at the first wrong byte, as every user of the file must. Here a person has asked what else the file
contains. Each record is chained to the checksum of the one before it, which is in the file. So a record after the
damage can be confirmed by what its predecessor's marker says, and one whose own marker is damaged by its successor.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Iterator
from typing import NamedTuple
from zlib import crc32

from pstate.file import format as f

_WIDTH = 54  #: of a base marker, without its line end
_FIRST_RECORD = re.compile(rb"^--- \[\[[^\n]*\n\.\.\. # [0-9a-f]{8}\r?$", re.MULTILINE)
_COMMIT_MARKER = re.compile(rb"\.\.\. # ([0-9a-f]{8})\r?")
_JOINED = re.compile(rb"(?s)(.{4}.*).\.\.\. # ([0-9a-f]{8})\r?")
_HEX = re.compile(rb"[0-9a-f]{8}")


class Head(NamedTuple):
    """The document above a journal, and what its base marker says of it."""

    base: bytes
    line: int  #: of the marker
    start: int  #: of the first record
    is_intact: bool | None  #: the document is the one that the journal was written on; None if nobody can tell
    marker: f.BaseMarker | None  #: if it can be read
    generation: bytes  #: as in the file, perhaps damaged


class Proof(enum.Enum):
    """How far a piece of a journal can be believed."""

    CHAINED = "confirmed, as are all before it"
    BEHIND = "confirmed, after something damaged"
    UNKNOWN = "nothing is left to confirm it by"
    WRONG = "its checksum is wrong"
    NONE = "not a record"


class Piece(NamedTuple):
    """Some lines of a journal."""

    first: int
    last: int
    raw: bytes
    body: bytes | None  #: of what has the form of a record
    proof: Proof
    note: str = ""  #: what is damaged, although the record can be believed


# ------------------------------------------------------------------------------------------------------------- the head


def head(data: bytes) -> Head | None:
    """Where the journal in *data* begins, however damaged its marker is; None if there is none."""
    offset = f.find_marker(data)
    if offset < 0:
        first = _FIRST_RECORD.search(data)
        if first is None:
            return None
        offset = _marker_before(data, first.start())
        if offset == first.start():
            return Head(data[:offset], f.line_number(data, offset), offset, None, None, b"")
    return _head_at(data, offset)


def _marker_before(data: bytes, first: int) -> int:
    """Where the base marker before the record at *first* begins, if its own beginning is lost; *first* if it is not
    found.
    """
    for end in (first - 1, first - 2):  # a carriage return may precede it
        offset = end - _WIDTH
        if offset >= 0 and _described(data, offset) == offset:
            return offset
    line = data.rfind(b"\n", 0, max(0, first - 1)) + 1
    return line if b"pstate" in data[line:first] or data.startswith(b"...", line) else first


def _described(data: bytes, offset: int) -> int | None:
    """The length that the marker at *offset* has for the document."""
    digits = data[offset + 24 : offset + 34]
    return int(digits) if len(digits) == 10 and digits.isdigit() else None


def _head_at(data: bytes, offset: int) -> Head:
    base, line = data[:offset], f.line_number(data, offset)
    found = f.read_marker(data, offset)
    generation, crc = data[offset + 15 : offset + 23], data[offset + 35 : offset + 43]
    if base and not base.endswith(b"\n") and crc == b"%08x" % crc32(base[:-1] + b"\n"):
        base, line = base[:-1] + b"\n", line + 1  # the newline before the marker is damaged
    if found is not None:
        marker, start = found
        intact = marker.describes(base) or _is_near(base, marker.length, crc)
        return Head(base, line, start, intact, marker, generation)
    start = offset + _WIDTH + 1
    if data[start - 1 : start] == b"\r":
        start += 1
    if not data.startswith(b"--- ", start):
        start = data.find(b"\n", offset) + 1 or len(data)
    intact = _is_near(base, _described(data, offset), crc)
    return Head(base, line, start, intact or None, None, generation)


def _is_near(base: bytes, length: int | None, crc: bytes) -> bool:
    """Whether *base* is the document that a damaged marker was written after.

    That is so if the checksum is right, whatever the length; or the length, and all digits of the checksum but one. An
    edit leaves so many of them as they were once in 35 million times.
    """
    for text in (base, base.removeprefix(b"\xef\xbb\xbf").replace(b"\r\n", b"\n")):
        wrong = sum(a != b for a, b in zip(b"%08x" % crc32(text), crc, strict=False)) if len(crc) == 8 else 8
        if not wrong or (wrong == 1 and len(text) == length):
            return True
    return False


# ---------------------------------------------------------------------------------------------------------- the records


def pieces(data: bytes, found: Head) -> list[Piece]:
    """Everything after the base marker, up to the last record. A torn write after that is not a record."""
    result = list(_pieces(data, found))
    while result and result[-1].body is None:
        result.pop()
    return result


def _pieces(data: bytes, found: Head) -> Iterator[Piece]:
    lines = data[found.start :].split(b"\n")
    torn = lines.pop()  # not ended by a newline, or nothing: no part of a commit
    number = f.line_number(data, found.start)
    crc = _first_crc(found.generation, lines)
    proof = Proof.CHAINED
    index = 0
    junk: list[bytes] = []
    while index < len(lines):
        line = lines[index].removesuffix(b"\r")
        below = lines[index + 1] if index + 1 < len(lines) else torn
        ends = _COMMIT_MARKER.fullmatch(below) if index + 1 < len(lines) else None
        good = None if crc is None else _confirmed(lines, index, crc)
        if junk and (good is not None or (ends is not None and line.startswith(b"--- "))):
            yield Piece(number + index - len(junk), number + index - 1, b"\n".join(junk), None, Proof.NONE)
            junk.clear()
        if good is not None:
            body, crc, taken, note = good
            raw = b"\n".join(lines[index : index + taken])
            yield Piece(number + index, number + index + max(taken, 1) - 1, raw, body, proof, note)
            if not taken:  # the newline after the marker is damaged: the next record is in the same line
                index += 1
                lines[index] = lines[index][lines[index].find(b"--- ") :]
            index += taken
        elif ends is not None and line.startswith(b"--- "):
            now = Proof.UNKNOWN if crc is None else Proof.WRONG
            yield Piece(number + index, number + index + 1, line + b"\n" + below, line[4:], now)
            crc, proof = int(ends[1], 16), Proof.BEHIND
            index += 2
        else:
            joined = _COMMIT_MARKER.search(line, max(0, len(line) - 14))
            crc = int(joined[1], 16) if joined is not None else None
            proof = Proof.BEHIND
            junk.append(lines[index])
            index += 1
    if junk:
        yield Piece(number + index - len(junk), number + index - 1, b"\n".join(junk), None, Proof.NONE)


def _confirmed(lines: list[bytes], index: int, crc: int) -> tuple[bytes, int, int, str] | None:
    """The record that begins in line *index*, chained to *crc*, if a checksum confirms it: its body and checksum, how
    many lines it takes, and what is damaged in it. 0 lines: it shares its second one with the next record.
    """
    line = lines[index].removesuffix(b"\r")
    body = line[4:]
    computed = crc32(body, crc)
    below = lines[index + 1] if index + 1 < len(lines) else b""
    note = "" if line.startswith(b"--- ") else "its first bytes are damaged"
    if below.removesuffix(b"\r") == b"... # %08x" % computed:
        return body, computed, 2, note
    if below.startswith(b"... # %08x" % computed) and b"--- " in below:
        return body, computed, 0, "its line end is damaged"
    joined = _JOINED.fullmatch(line)
    if joined is not None and crc32(joined[1][4:], crc) == int(joined[2], 16):
        return joined[1][4:], int(joined[2], 16), 1, "a line end in it is damaged"
    if index + 3 < len(lines):
        successor = crc32(lines[index + 2].removesuffix(b"\r")[4:], computed)
        if lines[index + 3].removesuffix(b"\r") == b"... # %08x" % successor:
            return body, computed, 2, "its marker is damaged, and the record after it confirms it"
    return None


def _first_crc(generation: bytes, lines: list[bytes]) -> int | None:
    """What the first record is chained to: the generation, in which one digit may be damaged."""
    known = int(generation, 16) if _HEX.fullmatch(generation) else None
    ends = _COMMIT_MARKER.fullmatch(lines[1]) if len(lines) > 1 else None
    if ends is None or len(generation) != 8:
        return known
    body, written = lines[0].removesuffix(b"\r")[4:], int(ends[1], 16)
    changed = [generation[:i] + b"%x" % digit + generation[i + 1 :] for i in range(8) for digit in range(16)]
    for candidate in (generation, *changed):
        if _HEX.fullmatch(candidate) and crc32(body, int(candidate, 16)) == written:
            return int(candidate, 16)
    return known
