"""`pstate repair`: what it says it kept is in the file, what was lost is named, and the damaged file is kept."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from tools.cli import FILES, Run, holding, run
from tools.crash import KILLED, Dying, FailingAt, in_child
from tools.repair import BASE, BODIES, EVERY, FILE, STATES, asked, beside, harmed, journal, state

from pstate import PersistedState
from pstate.cli import main
from pstate.cli.mending import examine, mend
from pstate.errors import PStateError
from pstate.file import vacuum
from pstate.file.format import Trailer
from pstate.values import same

__all__ = ["run"]

GOLDEN = Path(__file__).parent / "golden"
#: Record 2 is damaged, 3 and 4 are whole.
DAMAGED = FILE.replace(b'"nested",3]', b'"nestex",3]')


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody else writes here: files need not be looked at twice."""
    monkeypatch.setattr(examine, "QUIET", 0)


def repaired(run: Run, content: bytes, *options: str) -> dict[str, Any]:
    """What `pstate repair` says of *content*, after which the file opens, and the copy is *content*."""
    Path("state.yaml").write_bytes(content)
    found = asked(run, "repair", "--yes", "state.yaml", *options)
    if found["ok"]:
        assert content == Path("state.yaml").read_bytes()
    else:
        assert found["done"]
        assert content == Path(found["copy"]).read_bytes()
        with PersistedState("state.yaml") as opened:  # and can be changed
            opened["after"] = opened.pop("after", None)
            del opened["after"]
    return found


# ---------------------------------------------------------------------------------------------------- a damaged journal


def test_the_commits_before_the_damage_are_kept_and_the_others_are_shown(run: Run) -> None:
    found = repaired(run, DAMAGED)

    assert STATES[1] == state()
    assert BASE.replace(b"3", b"4") == Path("state.yaml").read_bytes()
    assert 1 == found["records"]
    assert [(8, 9), (10, 11), (12, 13)] == [(lost["first"], lost["last"]) for lost in found["lost"]]
    assert '--- [["set",["key"],"nestex",3]' in found["lost"][0]["what"]
    assert [{"path": "counter", "old": 4, "new": 5}] == found["lost"][1]["changes"]
    assert "does not fit the state (KeyError: 'log')" in found["lost"][2]["what"]


def test_salvage_keeps_what_is_whole_behind_the_damage_and_fits(run: Run) -> None:
    found = repaired(run, DAMAGED, "--salvage")

    assert {"counter": 5, "key": {"nested": 2}} == state()
    assert 2 == found["records"]
    assert [8, 12] == [lost["first"] for lost in found["lost"]]


def test_what_is_shown_is_for_people(run: Run) -> None:
    Path("state.yaml").write_bytes(DAMAGED)
    here = Path.cwd() / "state.yaml"

    code, out, err = run("repair", "--dry-run", "state.yaml")

    assert (0, "") == (code, err)
    assert f"{here}: cannot be used\n  error: line 8: damaged record: " in out
    assert "kept: the document, commit 1\nlost:\n  lines 8 to 9: record 2, its checksum is wrong: " in out
    assert "  lines 10 to 11: record 3, after the damage\n      ~ counter: 4 -> 5\n" in out
    assert "with --salvage: the document, 2 of the commits up to 3; 2 of these 3 are lost\n" in out
    assert out.endswith("Nothing was changed.\n")
    assert (DAMAGED, set()) == (here.read_bytes(), beside())


@pytest.mark.parametrize("mask", [0x01, 0x20, 0xFF])
@pytest.mark.parametrize("options", [(), ("--salvage",)], ids=["", "salvage"])
def test_a_damaged_byte_anywhere(run: Run, mask: int, options: tuple[str, ...]) -> None:
    """No byte outside the bodies and the document costs a commit, and no state comes out that never was."""
    lost = set()
    for offset in range(0 if EVERY else mask % 5, len(FILE), 1 if EVERY else 5):
        content = bytearray(FILE)
        content[offset] ^= mask
        Path("state.yaml").write_bytes(content)
        for name in beside():
            os.unlink(name)
        code, out, err = run("repair", "--yes", "--json", "state.yaml", *options)
        if code:
            assert content == Path("state.yaml").read_bytes()
            assert set() == beside()
            is_newer = content[len(BASE) + 13 : len(BASE) + 14].isdigit() and offset == len(BASE) + 13
            assert is_newer or ("resolve" in err and offset < len(BASE) + 43), (offset, err)
            continue
        found = json.loads(out)
        if not found["ok"]:
            assert content == Path(found["copy"]).read_bytes()
            # Only a salvaged state may be one that never was; and the document may have lost a line.
            if not options:
                assert state() == STATES[found["records"]], offset
                if found["records"] < 4:
                    lost.add(offset)
        elif state() != STATES[4]:
            assert state() == STATES[3]  # a damaged last record looks like an unfinished one
            assert offset >= len(FILE) - len(BODIES[3]) - 20
    bodies = [FILE.index(body.encode()) for body in BODIES]
    for offset in lost:
        assert any(start <= offset < start + len(body) for start, body in zip(bodies, BODIES, strict=True)), offset


@pytest.mark.parametrize("name", sorted(path.name for path in (GOLDEN / "v1").glob("*.yaml")))
def test_a_file_damaged_in_every_line(run: Run, name: str) -> None:
    for content in harmed((GOLDEN / "v1" / name).read_bytes()):
        check(run, content)


def check(run: Run, content: bytes) -> None:
    """Repair *content*, salvaging or not: the file opens then, or nothing has changed and it is said what to do."""
    for options in ((), ("--salvage",)):
        for name in beside():
            os.unlink(name)
        Path("state.yaml").write_bytes(content)
        opens = True
        try:
            before = state()
        except PStateError:
            opens = False
        code, out, err = run("repair", "--yes", "--json", "state.yaml", *options)
        assert "Traceback" not in err
        if code:
            assert not opens
            assert (content, set()) == (Path("state.yaml").read_bytes(), beside()), err
            assert "resolve" in err or "newer" in err or "--salvage" in err or options or code == 3, err
            continue
        found = json.loads(out)
        assert opens == found["ok"]
        if opens:
            assert (before, content) == (state(), Path("state.yaml").read_bytes())
        else:
            assert content == Path(found["copy"]).read_bytes()
            assert same(state(), yaml.safe_load(Path("state.yaml").read_bytes()) or {})


def test_a_record_that_does_not_fit_ends_what_is_kept(run: Run) -> None:
    bodies = [*BODIES[:2], '[["set",[],"x",1],["delete",[],"nope"]]', BODIES[2]]
    content = journal(bodies=bodies)

    found = repaired(run, content)

    assert STATES[2] == state()
    assert "does not fit the state (KeyError: 'nope')" in found["lost"][0]["what"]
    repaired(run, content, "--salvage")
    assert STATES[3] == state()  # with nothing of the record that does not fit


@pytest.mark.parametrize("body", ['{"a": 1}', '[["set"', "[1]", '[["fly",[],1]]', '[["set",7,"a",1]]'])
def test_a_committed_record_that_means_nothing_ends_what_is_kept(run: Run, body: str) -> None:
    found = repaired(run, journal(bodies=[BODIES[0], body, BODIES[2]]))

    assert STATES[1] == state()
    assert [8, 10] == [lost["first"] for lost in found["lost"]]


@pytest.mark.parametrize("option", ["--yes", "--dry-run"])
def test_what_no_document_can_hold_is_not_written(run: Run, option: str) -> None:
    """Each value can be written alone, but the second is nested too deeply inside the first."""
    deep = '[["set",[],"a",' + "[" * 90 + "0" + "]" * 90 + "]]"
    deeper = '[["set",["a"' + ",0" * 80 + "],0," + "[" * 90 + "]" * 90 + "]]"
    content = journal(bodies=[deep, deeper, "{}", BODIES[0]])
    Path("state.yaml").write_bytes(content)

    code, _, err = run("repair", option, "state.yaml")

    assert 3 == code
    assert "the result could not be read back (nested deeper than 100 levels). Nothing was changed." in err
    assert (content, set()) == (Path("state.yaml").read_bytes(), beside())


def test_a_hole_in_a_synced_journal(run: Run) -> None:
    start, end = FILE.index(BODIES[1].encode()), FILE.index(BODIES[2].encode()) - 30
    content = FILE[:start] + bytes(end - start) + FILE[end:]

    found = repaired(run, content, "--salvage")

    assert 2 == found["records"]
    assert {"counter": 5, "key": {"nested": 2}} == state()


def test_a_journal_without_its_base_marker(run: Run) -> None:
    lines = FILE.splitlines(keepends=True)
    content = b"".join(line for line in lines if not line.startswith(b"... # pstate"))

    found = repaired(run, content)

    assert 0 == found["records"]  # there is nothing that would confirm the first one
    assert "(it is unknown whether the document was edited since the commits)" in found["kept"]
    assert 4 == repaired(run, content, "--salvage")["records"]
    assert STATES[4] == state()


def test_the_newline_in_front_of_the_base_marker_is_put_back(run: Run) -> None:
    assert 4 == repaired(run, FILE.replace(b"2\n... # pstate", b"2 ... # pstate"))["records"]
    assert STATES[4] == state()


def test_line_ends_of_another_system(run: Run) -> None:
    found = repaired(run, DAMAGED.replace(b"\n", b"\r\n"))

    assert 1 == found["records"]
    assert b"counter: 4\r\n" in Path("state.yaml").read_bytes()


# ---------------------------------------------------------------------------------------------------- nothing to repair


@pytest.mark.parametrize("content", [b"", b"a: 1\n", FILE, FILE + b'--- [["set"', FILE + b"\0" * 600, FILE[:-1]])
def test_a_file_that_opens_is_left_alone(run: Run, content: bytes) -> None:
    Path("state.yaml").write_bytes(content)

    code, out, _ = run("repair", "state.yaml")

    assert 0 == code
    assert out.endswith("Nothing to repair. The next writer cleans up after interrupted writes.\n")
    assert (content, set()) == (Path("state.yaml").read_bytes(), beside())


@pytest.mark.parametrize(
    ("content", "code", "said"),
    [
        (FILE.replace(b"pstate 1 ", b"pstate 2 "), 3, "written by a newer pstate (format 2;"),
        (FILE.replace(b"# how far", b"# too far"), 1, "pstate resolve "),
        (b"[", 1, "Nothing can be kept automatically: correct it with an editor, or use an older copy."),
        (b"a: [\nb: 1\n", 1, "pstate repair --salvage "),
        (b"- a\n- b\n", 1, "this is a list"),
        (b"a: \xff\n", 1, "Save the file as UTF-8. Nothing can be kept automatically"),
    ],
)
def test_what_another_one_must_do_is_said(run: Run, content: bytes, code: int, said: str) -> None:
    Path("state.yaml").write_bytes(content)

    result = run("repair", "--yes", "state.yaml")

    assert code == result.code
    assert said in result.err
    assert (content, set()) == (Path("state.yaml").read_bytes(), beside())


def test_a_file_that_is_missing(run: Run) -> None:
    assert 3 == run("repair", "--yes", "nothing.yaml").code
    assert 3 == run("repair", "--yes", ".").code


# ------------------------------------------------------------------------------------------------------------ documents


@pytest.mark.parametrize(
    ("content", "kept", "lost"),
    [
        (b"a: 1\nb: [\n# c\nc: 3\n", b"a: 1\n# c\nc: 3\n", [(2, 2)]),
        (b"a: 1\njobs:\n  - x: 1\n    y: '\n  - x: 2\n", b"a: 1\njobs:\n  - x: 1\n  - x: 2\n", [(4, 4)]),
        (b"jobs:\n- {a\n- b\nc: 3\n", b"jobs:\n- b\nc: 3\n", [(2, 2)]),
        (b"a: 1\nb: 2\na: 3\n", b"b: 2\na: 3\n", [(1, 1)]),
        (b"a: 1\n---\nb: 2\n", b"a: 1\n", [(2, 3)]),
        (b"t: |\n  one\n  \xff\n  two\na: 1\n", b"a: 1\n", [(1, 4)]),
        (b"t: one\n  two \xff\na: 1\n", b"a: 1\n", [(1, 2)]),
        (b"# \xff\na: 1\nb: 2\n", b"a: 1\nb: 2\n", [(1, 1)]),
        (b"<<<<<<< HEAD\na: 1\n=======\na: 2\n>>>>>>> x\n", b"a: 2\n", [(1, 1), (2, 2), (3, 3), (5, 5)]),
        (b"  - x\nb: 1\n", b"b: 1\n", [(1, 1)]),
        (b"- a: 1\n  b: [\n  c: 2\nd: 3\n", b"d: 3\n", [(1, 3)]),
        (b"l:\n  - a: {\n    b: 1\n    c: 2\n", b"l:\n  - b: 1\n    c: 2\n", [(2, 2)]),
        (b"? a\n: 1\nb: [\nc: 1\n", b"? a\n: 1\nc: 1\n", [(3, 3)]),
        (b"a: &x 1\nb: *y\n", b"a: &x 1\n", [(2, 2)]),
        (b"a: 1\0\0\nb: 2", b"b: 2", [(1, 1)]),
        (b"a: !!python/object:x {}\nb: 2\n", b"b: 2\n", [(1, 1)]),
        (b"\xef\xbb\xbfa: 1\nb: {\n", b"\xef\xbb\xbfa: 1\n", [(2, 2)]),
        (b"a: 1\r\nb: [\r\nc: 1\r\n", b"a: 1\r\nc: 1\r\n", [(2, 2)]),
        (b"a: 1\rb: 2\nc: 3\n", b"c: 3\n", [(1, 1)]),
    ],
)
def test_what_is_whole_of_a_document(run: Run, content: bytes, kept: bytes, lost: list[tuple[int, int]]) -> None:
    found = repaired(run, content, "--salvage")

    assert kept == Path(found["copy"].removesuffix(".before-repair")).read_bytes() or state() == yaml.safe_load(kept)
    assert lost == [(each["first"], each["last"]) for each in found["lost"]]


def test_a_document_that_does_not_parse_above_a_journal(run: Run) -> None:
    content = FILE.replace(b"counter: 3", b"counter: [")

    Path("state.yaml").write_bytes(content)
    assert 1 == run("repair", "--yes", "state.yaml").code
    found = repaired(run, content, "--salvage")

    assert {"key": {"nested": 3}, "counter": 5, "log": ["both, or neither", "last"]} == state()
    assert [(1, 2)] == [(lost["first"], lost["last"]) for lost in found["lost"]] or 2 == found["lost"][0]["first"]


# ---------------------------------------------------------------------------------------------- files of persistedstate

OLD = b"""a: 1
---
["set", [], "a", 2]
---
["set", [], "b", {"c": 1e+16}]
---
["set", [], "d" 4]
---
["set", ["b"], "e", 5]
"""


def test_a_damaged_file_of_persistedstate(run: Run) -> None:
    found = repaired(run, OLD)

    assert {"a": 2, "b": {"c": 1e16}} == state()
    assert [7, 9] == [lost["first"] for lost in found["lost"]]
    found = repaired(run, OLD, "--salvage")
    assert {"a": 2, "b": {"c": 1e16, "e": 5}} == state()
    assert [7] == [lost["first"] for lost in found["lost"]]


def test_a_damaged_separator_costs_no_record(run: Run) -> None:
    repaired(
        run, OLD.replace(b'\n---\n["set", [], "b"', b'\n-x-\n["set", [], "b"').replace(b'"d" 4', b'"d", 4'), "--salvage"
    )

    assert {"a": 2, "b": {"c": 1e16, "e": 5}, "d": 4} == state()


def test_a_damaged_document_above_records_of_persistedstate(run: Run) -> None:
    content = (
        OLD.replace(b"a: 1", b"a: 1\nz: [\ny: 1").replace(b'"d" 4', b'"d", 4').replace(b'"e", 5', b'"e" 5')
        + b'---\n["delete", [], "b"]\n'
    )

    found = repaired(run, content, "--salvage")

    assert {"a": 2, "y": 1, "d": 4} == state()
    assert [2, 11] == [lost["first"] for lost in found["lost"]]


def test_lines_of_persistedstate_23_1(run: Run) -> None:
    """With a key twice, the file cannot be told from a person's mistake: so it must be asked for."""
    content = (GOLDEN / "persistedstate" / "23.1-killed.state").read_bytes()
    expected = json.loads((GOLDEN / "persistedstate" / "expected.json").read_bytes())["23.1-killed.state"]

    repaired(run, content, "--salvage")

    assert same(expected, state())


@pytest.mark.parametrize("name", sorted(path.name for path in (GOLDEN / "persistedstate").glob("*.state")))
def test_a_file_of_persistedstate_damaged_in_every_line(run: Run, name: str) -> None:
    for content in harmed((GOLDEN / "persistedstate" / name).read_bytes()):
        check(run, content)


# ------------------------------------------------------------------------------------------------------ how it is asked


def test_without_a_terminal_nothing_is_done_unasked(run: Run) -> None:
    Path("state.yaml").write_bytes(DAMAGED)

    for words in (["repair", "state.yaml"], ["repair", "--json", "state.yaml"]):
        code, out, err = run(*words, stdin="y\n")
        assert 1 == code
        assert "standard input is not a terminal, so nobody can confirm" in err
        assert "record 2" in out
    assert (DAMAGED, set()) == (Path("state.yaml").read_bytes(), beside())


@pytest.mark.parametrize(("answer", "code"), [("y\n", 0), ("yes\n", 0), ("n\n", 1), ("\n", 1), ("\x04", 1)])
def test_a_terminal_is_asked(tmp_path: Path, answer: str, code: int) -> None:
    (tmp_path / "state.yaml").write_bytes(DAMAGED)
    control, terminal = pty.openpty()
    with subprocess.Popen(
        [sys.executable, "-m", "pstate", "repair", "state.yaml"],
        cwd=tmp_path, stdin=terminal, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        os.close(terminal)
        os.write(control, answer.encode())
        out, err = process.communicate()
    os.close(control)

    assert code == process.returncode, err
    assert "Repair it? y or n [n]: " in err
    assert ("repaired" in out) == (code == 0)
    assert (DAMAGED == (tmp_path / "state.yaml").read_bytes()) == (code == 1)


def test_a_dry_run_says_the_same_and_does_nothing(run: Run) -> None:
    Path("state.yaml").write_bytes(DAMAGED)
    shown = asked(run, "repair", "-n", "state.yaml")

    assert (DAMAGED, set()) == (Path("state.yaml").read_bytes(), beside())
    done = asked(run, "repair", "-y", "state.yaml")
    assert {**done, "done": False, "copy": None} == shown


def test_copies_of_earlier_repairs_stay(run: Run) -> None:
    repaired(run, DAMAGED)
    repaired(run, b"a: 1\nb: [\n", "--salvage")

    assert {"state.yaml.before-repair", "state.yaml.before-repair-2"} == beside()
    assert DAMAGED == Path("state.yaml.before-repair").read_bytes()
    assert ".before-repair: the file as it was before the repair" in run("check", "state.yaml").out


def test_permissions_and_links_stay(run: Run) -> None:
    Path("target.yaml").write_bytes(DAMAGED)
    Path("target.yaml").chmod(0o640)
    Path("link.yaml").symlink_to("target.yaml")

    found = asked(run, "repair", "--yes", "link.yaml")

    assert Path("link.yaml").is_symlink()
    assert 0o640 == Path("target.yaml").stat().st_mode & 0o777
    assert str(Path.cwd() / "target.yaml.before-repair") == found["copy"]
    assert STATES[1] == state("link.yaml")


# ---------------------------------------------------------------------------------------------- others at the same time


@contextlib.contextmanager
def program(code: str) -> Any:
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert "open\n" == process.stdout.readline()
        yield process


HAS_OPEN = """
import sys
from pstate import PersistedState
state = PersistedState("state.yaml")
print("open", flush=True)
for line in sys.stdin:
    print(eval(line), flush=True)
"""


def test_a_program_that_knows_more_must_be_ended_first(run: Run) -> None:
    """It has the whole state in memory, and keeps that beside when it is closed."""
    Path("state.yaml").write_bytes(FILE)
    with program(HAS_OPEN) as process:
        with open("state.yaml", "r+b") as file:  # in place, as a disk does it
            file.write(DAMAGED)
        code, _, err = run("repair", "--yes", "state.yaml")

        assert 1 == code
        assert f"(process {process.pid}) has it open, and may have newer values in memory" in err
        assert (DAMAGED, set()) == (Path("state.yaml").read_bytes(), beside())
        process.communicate("state.close()\n")
    (kept,) = beside()
    assert STATES[4] == state(kept)
    assert 0 == run("repair", "--yes", "state.yaml").code


def test_a_program_goes_on_in_the_repaired_file_if_that_is_wanted(run: Run) -> None:
    Path("state.yaml").write_bytes(FILE)
    with program(HAS_OPEN) as process:
        with open("state.yaml", "r+b") as file:
            file.write(DAMAGED)
        assert 0 == run("repair", "--yes", "--while-open", "state.yaml").code
        out, _ = process.communicate("state.counter\nstate.update(mine=1)\nstate.close()\n")

    assert ["4", "None", "None"] == out.split()
    assert {**STATES[1], "mine": 1} == state()


def test_a_reader_is_no_hindrance(run: Run) -> None:
    Path("state.yaml").write_bytes(DAMAGED)
    with program("f = open('state.yaml'); print('open', flush=True); input()") as process:
        assert 0 == run("repair", "--yes", "state.yaml").code
        process.communicate("\n")
    assert STATES[1] == state()


def test_the_lock_of_the_file_is_waited_for(run: Run) -> None:
    with holding(Path("state.yaml")) as pid:
        inode = os.stat("state.yaml").st_ino
        with open("state.yaml", "r+b") as file:
            file.write(DAMAGED)
        code, _, err = run("repair", "--yes", "--while-open", "--lock-timeout", "0.1", "state.yaml")

        assert 4 == code
        assert str(pid) in err
        assert (inode, set()) == (os.stat("state.yaml").st_ino, beside())


def test_what_has_changed_since_it_was_shown_is_not_touched(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    Path("state.yaml").write_bytes(DAMAGED)
    monkeypatch.setattr(mend, "refuse_while_open", lambda *_: Path("state.yaml").write_bytes(FILE))

    code, _, err = run("repair", "--yes", "state.yaml")

    assert 1 == code
    assert "the file has changed in the meantime" in err
    assert (FILE, set()) == (Path("state.yaml").read_bytes(), beside())


@pytest.mark.parametrize("locking", ["filelock", "portalocker"])
def test_with_another_kind_of_lock(run: Run, locking: str) -> None:
    Path("state.yaml").write_bytes(DAMAGED)

    assert 0 == run("repair", "--yes", "--locking", locking, "state.yaml").code
    with PersistedState.open("state.yaml", locking=locking, lock_timeout=0) as opened:  # type: ignore[arg-type]
        opened.counter += 1
    assert 5 == state()["counter"]


def test_leftovers_of_killed_vacuums_do_not_stand_in_the_way(run: Run) -> None:
    here = str(Path("state.yaml").absolute())
    Path(vacuum.temporary(here, "vacuum")).write_bytes(b"half")
    Path(vacuum.temporary(here, "swap")).write_bytes(b"a: person's\n")

    repaired(run, DAMAGED)

    left = beside() - {"state.yaml.before-repair"}
    assert 1 == len(left)
    assert b"a: person's\n" == Path(left.pop()).read_bytes()


# ------------------------------------------------------------------------------------------ deaths, and disks that fail


def attempt(fs: Any) -> int:
    """Repair `state.yaml` by *fs*."""
    mend.SYSTEM = fs
    fs.armed = True
    try:
        return main(["repair", "--yes", "state.yaml"])
    finally:
        fs.armed = False


@pytest.mark.parametrize("content", [DAMAGED, b"a: 1\nb: [\n"], ids=["journal", "document"])
@pytest.mark.parametrize("tear", [False, True])
def test_death_at_every_call(run: Run, monkeypatch: pytest.MonkeyPatch, content: bytes, tear: bool) -> None:
    """The file is as it was, or it is repaired and the copy exists. A second repair finds its way from everywhere."""
    monkeypatch.setattr(mend, "SYSTEM", mend.SYSTEM)
    options = ["--salvage"] if content != DAMAGED else []
    expected = STATES[1] if content == DAMAGED else {"a": 1}
    for number in range(200):
        for name in beside():
            os.unlink(name)
        Path("state.yaml").write_bytes(content)

        def die(number: int = number) -> None:
            fs = Dying(number, tear, os.open(os.devnull, os.O_WRONLY))
            mend.SYSTEM, fs.armed = fs, True
            os._exit(main(["repair", "--yes", "state.yaml", *options]))

        code = in_child(die)
        now = Path("state.yaml").read_bytes()
        if now.startswith(content):
            assert now == content or len(now) == len(content) + len(Trailer("0" * 8, 0, 0, 0, 0).encode()) or tear
            assert 0 == run("repair", "--yes", "state.yaml", *options).code
        assert expected == state()
        assert any(Path(name).read_bytes().startswith(content) for name in beside() if ".before-repair" in name)
        if code != KILLED:
            break
    assert 0 == code
    assert number >= (2 if tear else 20)  # a document that cannot be read may get no trailer


@pytest.mark.parametrize("lasting", [False, True])
def test_failure_of_every_call(run: Run, monkeypatch: pytest.MonkeyPatch, lasting: bool) -> None:
    monkeypatch.setattr(mend, "SYSTEM", mend.SYSTEM)
    real = mend.SYSTEM
    for number in range(200):
        for name in beside():
            os.unlink(name)
        Path("state.yaml").write_bytes(DAMAGED)
        fs = FailingAt(number, lasting=lasting)
        mend.SYSTEM = fs
        fs.armed = True
        code, _, err = run("repair", "--yes", "state.yaml")
        fs.armed = False
        mend.SYSTEM = real

        assert "Traceback" not in err
        now = Path("state.yaml").read_bytes()
        if now.startswith(DAMAGED):
            assert code
            assert all(Path(name).read_bytes() == DAMAGED for name in beside() if ".before-repair" in name)
        else:
            assert STATES[1] == state()
        if not fs.failed:
            break
    assert 0 == code


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_may_not_be_written(run: Run) -> None:
    Path("state.yaml").write_bytes(DAMAGED)
    Path().chmod(0o500)
    try:
        code, _, err = run("repair", "--yes", "state.yaml")
    finally:
        Path().chmod(0o700)

    assert 5 == code
    assert "the copy could not be written" in err
    assert DAMAGED == Path("state.yaml").read_bytes()


def test_the_files_of_the_page_are_what_they_say(run: Run) -> None:
    assert "broken.yaml" in FILES
    assert "damaged record" in run("check", "broken.yaml").out
    assert "was edited" in run("check", "edited.yaml").out
