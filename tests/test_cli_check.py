"""`pstate check`: what it finds, where, and which exit code that is."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

import pytest
from tools.cli import FILES, Run, run

from pstate import PersistedState
from pstate.file import vacuum
from pstate.file.fs import SYSTEM
from pstate.text import dumping

__all__ = ["run"]

#: Of this boot: no power cut explains what is wrong in it.
JOURNAL = FILES["journal.yaml"].encode().replace(b"928b1655", SYSTEM.boot_id().encode())

OLD = FILES["journal.yaml"].encode()


def findings(run: Run, content: bytes, *options: str) -> tuple[int, list[tuple[Any, ...]]]:
    Path("state.yaml").write_bytes(content)
    code, out, _ = run("check", "--json", "state.yaml", *options)
    found = [(finding["severity"], finding["kind"], finding.get("line")) for finding in json.loads(out)["findings"]]
    assert content == Path("state.yaml").read_bytes()
    return code, [each for each in found if each[1] != "journal"]


@pytest.mark.parametrize(
    ("content", "code", "found"),
    [
        pytest.param(b"", 0, [], id="empty"),
        pytest.param(b"a: 1\n", 0, [], id="plain"),
        pytest.param(JOURNAL, 0, [], id="journal"),
        pytest.param(b"a: 1", 0, [("note", "ending", None)], id="no newline"),
        pytest.param(JOURNAL + b'--- [["set"', 0, [("warning", "torn tail", 9)], id="torn"),
        pytest.param(JOURNAL + b"\0" * 100, 1, [("error", "CorruptStateError", 9)], id="zeros"),
        pytest.param(OLD + b"\0" * 100, 0, [("warning", "torn tail", 9)], id="zeros before this boot"),
        pytest.param(JOURNAL.replace(b",4]", b",5]"), 1, [("error", "CorruptStateError", 5)], id="damaged"),
        pytest.param(OLD.replace(b",4]", b",5]"), 0, [("warning", "power cut", 5)], id="damaged before this boot"),
        pytest.param(JOURNAL.replace(b": 3", b": 2"), 1, [("error", "EditConflict", 4)], id="edited above"),
        pytest.param(JOURNAL.replace(b"pstate 1", b"pstate 2"), 1, [("error", "InvalidStateError", 4)], id="newer"),
        pytest.param(b"a: 1\nb: [\n", 1, [("error", "InvalidStateError", 3)], id="not YAML"),
        pytest.param(b"a: 1\na: 2\n", 1, [("error", "InvalidStateError", 2)], id="key twice"),
        pytest.param(b"a: \xff\n", 1, [("error", "InvalidStateError", 1)], id="not UTF-8"),
        pytest.param(b'a: 1\n---\n["set", [], "a", 2]\n', 0, [("note", "persistedstate", None)], id="persistedstate"),
        pytest.param(b"on: yes\n", 0, [("note", "boolean", 1), ("note", "boolean", 1)], id="booleans"),
        pytest.param(b"m: 0644\n\nt: 1:30\n", 0, [("note", "octal", 1), ("note", "base 60", 3)], id="numbers"),
        pytest.param(b"d: 2026-01-02\nv: 'yes'\nw: \"1e5\"\n", 0, [("note", "date", 1)], id="quotes"),
        pytest.param(b"t: |\n  yes\n  1e5\nu: a\n  no\n", 0, [], id="no scalar of its own"),
    ],
)
def test_what_is_found(run: Run, content: bytes, code: int, found: list[tuple[Any, ...]]) -> None:
    assert (code, found) == findings(run, content)


def test_a_record_that_does_not_fit_is_an_error_with_its_line(run: Run) -> None:
    from zlib import crc32

    from pstate.file.format import BaseMarker, encode_record

    base = b"a: 1\n"
    record, crc = encode_record('[["set",[],"b",1]]', 0x22FF0040)
    bad, _ = encode_record('[["delete",[],"nope"]]', crc)
    marker = BaseMarker("22ff0040", len(base), crc32(base), "0123abcd", False)

    assert (1, [("error", "CorruptStateError", 5)]) == findings(run, base + marker.encode() + record + bad)


def test_warnings_count_only_if_asked(run: Run) -> None:
    torn = JOURNAL + b"--- ["

    assert 0 == findings(run, torn)[0]
    assert 1 == findings(run, torn, "--strict")[0]
    assert 0 == findings(run, b"a: yes\n", "--strict")[0]


def test_what_crashes_and_conflicts_left_beside_is_named(run: Run) -> None:
    here = str(Path("state.yaml").absolute())
    beside = [
        (vacuum.temporary(here, "vacuum"), "note", "orphan"),
        (vacuum.temporary(here, "swap"), "warning", "orphan"),
        (here + ".conflict-22ff0040.yaml", "warning", "conflict"),
        (here + ".cut-22ff0040", "warning", "cut"),
    ]
    for path, _, _ in beside:
        Path(path).write_text("a: 1\n")
    os.link("state.yaml", "second.yaml")

    found = json.loads(run("check", "state.yaml", "--json").out)["findings"]

    assert {(severity, kind) for _, severity, kind in beside} | {("warning", "hard link")} == {
        (finding["severity"], finding["kind"]) for finding in found
    }
    for path, _, _ in beside:
        assert any(finding["message"].startswith(path + ": ") for finding in found), path


def test_a_live_journal_is_not_called_abandoned(run: Run) -> None:
    import contextlib
    import subprocess
    import sys

    assert "no program that you can see has it open" in run("check", "journal.yaml").out
    code = "import sys; f = open('journal.yaml', 'rb'); print('in', flush=True); sys.stdin.read()"
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        with contextlib.closing(process.stdin):  # type: ignore[type-var]
            assert process.stdout is not None
            process.stdout.readline()
            out = run("check", "journal.yaml").out

    assert "a journal of 2 commits (185 bytes, generation 22ff0040, durability process)" in out
    assert "no program that you can see" not in out


def test_many_notes_of_a_kind_are_counted(run: Run) -> None:
    Path("state.yaml").write_text("".join(f"k{i}: yes\n" for i in range(10)))

    lines = run("check", "state.yaml").out.splitlines()
    assert 5 == len(lines)
    assert "  note: 7 more of this kind: boolean (--all)" == lines[-1]
    assert 11 == len(run("check", "--all", "state.yaml").out.splitlines())


def test_several_files_are_one_verdict(run: Run) -> None:
    Path("bad.yaml").write_text("[")

    code, out, _ = run("check", "state.yaml", "bad.yaml", "odd.yaml")

    assert 1 == code
    assert ["good", "cannot be used", "good"] == [
        line.split(": ")[1].partition(",")[0] for line in out.splitlines() if not line.startswith(" ")
    ]


def test_ten_megabytes_take_seconds(run: Run) -> None:
    """1.1 s on the machine of docs/performance.md; a fifth of it here, as other tests run meanwhile."""
    rows = [{"name": f"item {i}", "count": i * 7, "ok": i % 2 == 0, "ratio": i / 7} for i in range(25_000)]
    Path("large.yaml").write_bytes(dumping.dump({"rows": rows}))
    with PersistedState("large.yaml") as live:
        for i in range(1000):
            live.counter = i
        started = time.process_time()
        code, out, _ = run("check", "large.yaml")
        took = time.process_time() - started

    assert 0 == code
    assert "1000 commits" in out
    assert took < 3
