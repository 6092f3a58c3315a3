"""A write that the system refuses, or takes a part of, is the same in the compiled hot path and in pure Python.

The error has the same text, the file the same bytes, memory is what it was, and the next change goes on. A limit on the
size of files refuses at a chosen byte of a record; a disk that is full refuses at the end of a page.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from tools.programs import simple

from stress.real.disk_full import make_disk
from stress.real.flavours import Pair

#: What is refused: a step, and what it would have set.
REFUSED: dict[str, Any] = {
    "a commit": "s.n = 12345678",
    "a nested commit": "s.d.e.n = 12345678",
    "a long value": "s.x = 'k' * 1500",
    "an increment": "s.n += 12345677",
    "an append": "s.l.append(12345678)",
    "a container": "s.d = {'n': 12345678}",
    "a block": ["block", "s", "commit", ["s.n = 12345678", "s.d.n = 5"]],
    "a block with a savepoint": ["block", "s", "commit", ["s.n = 12345678", ["block", "s", "undo", ["s.n = 5"]]]],
}
#: How many bytes there is room for: none, a part of the record, all of it but the last byte or so, and enough.
ROOMS = [0, 1, 11, 30, 39, 40, 41, 42, 43, 44, 45, 46, 60, 5000]


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    with Pair(tmp_path_factory.mktemp("programs")) as pair:
        yield pair


def after(log: list[str], step: str) -> list[str]:
    """What was noted of *step*, and the file after it."""
    begin = next(number for number, line in enumerate(log) if line.startswith("step ") and step in line)
    end = next(number for number in range(begin, len(log)) if log[number].startswith("file "))
    return log[begin + 1 : end + 1]


@pytest.mark.parametrize("name", REFUSED)
def test_a_limit_in_the_middle_of_a_record(pair: Pair, name: str) -> None:
    for room in ROOMS:
        program = simple("s.n = 1", ["full", room, [REFUSED[name]]], "s.snapshot()", "s.n = 2", "s.snapshot()")

        log = pair.compare(program)["log"]

        (_, before), (*said, refused), (seen, _) = after(log, "s.n = 1"), after(log, "full"), after(log, "s.snapshot()")
        assert (before == refused) == any("File too large" in line for line in said), log
        assert before != refused or "12345678" not in seen + "".join(log[-5:])
        assert "int 2" in after(log[log.index(seen) :], "s.snapshot()")[0]
    assert before != refused
    assert "12345678" in seen or "kkk" in seen


@pytest.mark.parametrize("durability", ["process", "power"])
def test_several_refusals_and_a_vacuum_that_is_refused(pair: Pair, durability: str) -> None:
    refused = [["full", room, [*REFUSED.values(), "s.vacuum()", "s.n"]] for room in (0, 20, 50)]

    log = pair.compare(simple("s.n = 1", *refused, "s.n += 1", options={"durability": durability}))["log"]

    assert 2 < sum("File too large" in line for line in log)
    assert not any(line.startswith("AssertionError") for line in log)


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root may mount a disk")
def test_a_disk_that_is_full(tmp_path: Path) -> None:
    """It takes what fits into the page, which is a part of a record."""
    try:
        pair = Pair(tmp_path, where=partial(make_disk, tmp_path, 1 << 16))
    except subprocess.SubprocessError:
        pytest.skip("no disk may be mounted here")
    full: list[Any] = [
        "import os; from stress.real.disk_full import leave_room",
        "f = os.open(path.parent.parent / 'filler', os.O_RDWR | os.O_CREAT)",
        "leave_room(f, 0)",
        *("s.x = 'k' * 1500", "s.n = 5") * 3,
        "s.l.append('k' * 1500)",
        ["block", "s", "commit", ["s.n = 6", "s.x = 'b' * 1800", "s.d.n = 7"]],
        "s.snapshot()",
        "os.ftruncate(f, 0)",
        "s.n = 8",
        "s.x = 'end'",
        "os.close(f)",
    ]
    with pair:
        answer = pair.compare(simple("s.n = 1", *full))

    assert 1 < sum("No space left" in line for line in answer["log"]), answer["log"]
    assert "n: 8" in answer["closed"].replace('"', "")
    assert "end" in answer["closed"]
