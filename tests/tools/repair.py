"""What the tests of repair and resolve share: files with a journal, ways to damage them, and what is in them then."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from zlib import crc32

from pstate import PersistedState
from pstate.file.format import BaseMarker, encode_record
from tools.cli import Run

#: Damage at every place, not at a sample: minutes instead of seconds.
EVERY = bool(os.environ.get("PSTATE_EVERY_DAMAGE"))

GENERATION = "22ff0040"
BASE = b"# how far\ncounter: 3\nkey:\n  nested: 2\n"
BODIES = [
    '[["set",[],"counter",4]]',
    '[["set",["key"],"nested",3],["set",[],"log",["both, or neither"]]]',
    '[["set",[],"counter",5]]',
    '[["insert",["log"],1,"last"]]',
]
#: What the file says after each commit.
STATES: list[dict[str, Any]] = [
    {"counter": 3, "key": {"nested": 2}},
    {"counter": 4, "key": {"nested": 2}},
    {"counter": 4, "key": {"nested": 3}, "log": ["both, or neither"]},
    {"counter": 5, "key": {"nested": 3}, "log": ["both, or neither"]},
    {"counter": 5, "key": {"nested": 3}, "log": ["both, or neither", "last"]},
]


def journal(base: bytes = BASE, bodies: list[str] = BODIES) -> bytes:
    """A file whose every commit was synced, so that no power cut explains what is wrong in it."""
    data = base + BaseMarker(GENERATION, len(base), crc32(base), "0123abcd", power=True).encode()
    crc = int(GENERATION, 16)
    for body in bodies:
        record, crc = encode_record(body, crc)
        data += record
    return data


FILE = journal()


def state(file: str = "state.yaml") -> dict[Any, Any]:
    with PersistedState.open(file, read_only=True) as opened:
        return opened.snapshot()


def asked(run: Run, *words: str, code: int = 0) -> dict[str, Any]:
    """What the command *words* says in JSON."""
    result = run(*words, "--json")
    assert (code, "Traceback" in result.err) == (result.code, False), result.err
    found: dict[str, Any] = json.loads(result.out)
    return found


def harmed(data: bytes) -> Iterator[bytes]:
    """*data*, damaged in each of its lines in each of some ways; without EVERY, one way for each line, in turn."""
    for number, content in enumerate(_harmed(data)):
        if EVERY or number % 7 == number // 7 % 7:
            yield content


def _harmed(data: bytes) -> Iterator[bytes]:
    lines = data.split(b"\n")
    for index, line in enumerate(lines):
        before, behind = lines[:index], lines[index + 1 :]
        yield b"\n".join(before)
        yield b"\n".join([*before, *behind])
        yield b"\n".join([*before, b"a \xff {", *behind])
        yield b"\n".join([*before, line[: len(line) // 2], *behind])
        yield b"\n".join([*before, line, line, *behind])
        yield b"\n".join([*before, b"\0" * len(line), *behind])
        yield b"\n".join([*before, b"<<<<<<< HEAD", line, *behind])


def beside(name: str = "state.yaml") -> set[str]:
    """The files that have come to the folder."""
    return {path.name for path in Path().iterdir() if path.name.lstrip(".").startswith(name) and path.name != name}
