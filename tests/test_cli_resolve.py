"""`pstate resolve`: an edit above the journal of a crashed program, with and without the document from before it."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
from test_cli_repair import HAS_OPEN, program
from tools.cli import Run, run
from tools.crash import KILLED, Dying, in_child
from tools.repair import BASE, FILE, STATES, asked, beside, state

from pstate import PersistedState
from pstate.cli import main
from pstate.cli.mending import examine, mend
from pstate.errors import EditConflict

__all__ = ["run"]

#: The edit changes one value that the commits change too, and adds one.
EDITED_BASE = BASE.replace(b"counter: 3", b"counter: 30   # by hand") + b"size: 1\n"
EDITED = EDITED_BASE + FILE[len(BASE) :]
EDIT = {"counter": 30, "key": {"nested": 2}, "size": 1}
LOG = ["both, or neither", "last"]


@pytest.fixture(autouse=True)
def edited(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(examine, "QUIET", 0)
    Path("state.yaml").write_bytes(EDITED)
    with pytest.raises(EditConflict, match=r"pstate resolve .*/state.yaml --edit, which deletes the lines from 6 on\."):
        state()


def resolved(run: Run, *options: str) -> dict[str, Any]:
    found = asked(run, "resolve", "state.yaml", *options)
    assert found["done"]
    assert EDITED == Path(found["copy"]).read_bytes()
    assert {"state.yaml.before-resolve"} <= beside()
    return found


# ------------------------------------------------------------------------------------------------ without the ancestor


def test_the_edit_is_kept_and_what_is_dropped_is_shown(run: Run) -> None:
    found = resolved(run, "--edit")

    assert EDITED_BASE == Path("state.yaml").read_bytes()
    assert [7, 9, 11, 13] == [lost["first"] for lost in found["lost"]]
    assert [{"path": "counter", "old": 30, "new": 4}] == found["lost"][0]["changes"]
    assert [] == found["changes"]


def test_the_commits_are_applied_to_the_edit(run: Run) -> None:
    found = resolved(run, "--both")

    assert {"counter": 5, "key": {"nested": 3}, "size": 1, "log": LOG} == state()
    assert b"counter: 5   # by hand\n" in Path("state.yaml").read_bytes()
    assert any("the commit wins" in sentence for sentence in found["told"])
    assert {"path": "counter", "old": 30, "new": 5} in found["changes"]


def test_a_commit_that_does_not_fit_the_edit_is_lost_and_shown(run: Run) -> None:
    Path("state.yaml").write_bytes(BASE.replace(b"key:\n  nested: 2\n", b"") + FILE[len(BASE) :])

    found = asked(run, "resolve", "state.yaml", "--both")

    assert {"counter": 5} == state()
    assert ["KeyError: 'key'", "KeyError: 'log'"] == [
        lost["what"].split("(")[1].split(")")[0] for lost in found["lost"]
    ]
    assert ["kept: 2 of the commits up to 3"] == found["told"][:1]


def test_an_edit_is_not_undone_by_guessing(run: Run) -> None:
    code, _, err = run("resolve", "state.yaml", "--journal")

    assert 1 == code
    assert "no copy was found beside the file or in git. Nothing was changed." in err
    assert (EDITED, set()) == (Path("state.yaml").read_bytes(), beside())


# --------------------------------------------------------------------------------------------------- with the ancestor


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("state.yaml~", BASE),
        (".state.yaml.swap", BASE),
        ("state.bak", BASE.replace(b"\n", b"\r\n")),
        ("old state.yaml", FILE),
        ("state.yaml.orig", FILE[: len(BASE) + 20]),
    ],
)
def test_a_copy_from_before_the_edit_is_found_beside(run: Run, name: str, content: bytes) -> None:
    Path("state.yaml.conflict-1.yaml").write_bytes(b"another: 1\n")
    Path(name).write_bytes(content)

    found = asked(run, "resolve", "state.yaml", "--both")

    assert str(Path.cwd() / name) == found["ancestor"]
    assert {"counter": 30, "key": {"nested": 3}, "size": 1, "log": LOG} == state()
    assert "changed by the edit and by a commit; the edit wins: state.counter was 5" in found["told"]


def test_the_edit_is_undone_with_the_document_from_before(run: Run) -> None:
    Path("old").write_bytes(BASE)

    found = resolved(run, "--journal", "--ancestor", "old")

    assert STATES[4] == state()
    assert Path("state.yaml").read_bytes().startswith(b"# how far\ncounter: 5\n")
    assert {"path": "size", "old": 1} in found["changes"]


def test_an_edit_that_does_not_parse_can_be_undone(run: Run) -> None:
    broken = EDITED.replace(b"size: 1", b"size: [")
    Path("state.yaml").write_bytes(broken)
    Path("state.yaml~").write_bytes(BASE)

    for side in ("--edit", "--both"):
        code, _, err = run("resolve", "state.yaml", side)
        assert 1 == code
        assert "state.yaml:6:1: not YAML" in err
        assert "Correct it first; or undo the edit: --journal" in err
    assert broken == Path("state.yaml").read_bytes()
    assert None is asked(run, "resolve", "state.yaml", "--journal")["changes"]
    assert STATES[4] == state()


def test_the_last_version_in_git_is_found(run: Run) -> None:
    Path("state.yaml").write_bytes(BASE)
    for words in (["init", "-q"], ["add", "state.yaml"], ["commit", "-q", "-m", "Begin"]):
        identity = ["-c", "user.name=n", "-c", "user.email=e"]
        subprocess.run(["git", *identity, *words], check=True, env={**os.environ, "GIT_CONFIG_GLOBAL": os.devnull})
    Path("state.yaml").write_bytes(EDITED)

    found = resolved(run, "--journal")

    assert "git, HEAD" == found["ancestor"]
    assert STATES[4] == state()


def test_another_document_is_no_ancestor(run: Run) -> None:
    Path("old").write_bytes(b"more: 1\n" + BASE)

    code, _, err = run("resolve", "state.yaml", "--both", "--ancestor", "old")

    assert 1 == code
    assert f"that had {len(BASE)} bytes, with the checksum " in err
    assert 3 == run("resolve", "state.yaml", "--both", "--ancestor", "nothing").code
    assert (EDITED, set()) == (Path("state.yaml").read_bytes(), beside())


# ---------------------------------------------------------------------------------------------- together with damage


def test_a_journal_that_is_damaged_too(run: Run) -> None:
    content = EDITED.replace(b'"nested",3]', b'"nestex",3]')
    Path("state.yaml").write_bytes(content)
    Path("state.yaml~").write_bytes(BASE)

    assert "pstate resolve " in run("repair", "--yes", "state.yaml").err
    found = asked(run, "resolve", "state.yaml", "--journal")

    assert STATES[1] == state()
    assert [9, 11, 13] == [lost["first"] for lost in found["lost"]]


@pytest.mark.parametrize(
    "content",
    [FILE.replace(b'"nested",3]', b'"nestex",3]'), b"a: [\n", FILE.replace(b"e 1 ", b"e 2 "), b"a: 1\n---\nb: 2\n"],
)
def test_what_is_no_edit_is_for_repair(run: Run, content: bytes) -> None:
    Path("state.yaml").write_bytes(content)

    code, _, err = run("resolve", "state.yaml", "--both")

    assert 1 == code
    assert "pstate repair " in err
    assert (content, set()) == (Path("state.yaml").read_bytes(), beside())


@pytest.mark.parametrize("content", [FILE, b"a: 1\n", b""])
def test_a_file_that_opens_is_left_alone(run: Run, content: bytes) -> None:
    Path("state.yaml").write_bytes(content)

    result = run("resolve", "state.yaml", "--both")

    assert (0, True) == (result.code, "nothing to resolve" in result.out)
    assert {"ok": True, "done": False} == {
        key: value for key, value in asked(run, "resolve", "state.yaml", "--edit").items() if key != "file"
    }
    assert (content, set()) == (Path("state.yaml").read_bytes(), beside())


def test_a_side_must_be_chosen(run: Run) -> None:
    assert 2 == run("resolve", "state.yaml").code
    assert 2 == run("resolve", "state.yaml", "--edit", "--both").code
    assert 3 == run("resolve", "nothing.yaml", "--edit").code


def test_a_dry_run_says_the_same_and_does_nothing(run: Run) -> None:
    for side in ("--edit", "--both"):
        Path("state.yaml").write_bytes(EDITED)
        shown = asked(run, "resolve", "-n", "state.yaml", side)

        assert EDITED == Path("state.yaml").read_bytes()
        done = asked(run, "resolve", "state.yaml", side)
        assert {**done, "done": False, "copy": None} == shown
    Path("state.yaml").write_bytes(EDITED)
    assert run("resolve", "-n", "state.yaml", "--edit").out.endswith(
        "the document above the journal stays\nNothing was changed.\n"
    )


# ------------------------------------------------------------------------------------------------ others, and deaths


@pytest.mark.parametrize("save", ["in place", "by rename", "by moving away"])
def test_a_program_that_knew_the_document_brings_both_together_itself(run: Run, save: str) -> None:
    os.unlink("state.yaml")
    Path("state.yaml").write_bytes(FILE)
    with program(HAS_OPEN) as process:
        if save == "in place":
            Path("state.yaml").write_bytes(EDITED)
        else:
            if save == "by moving away":
                os.rename("state.yaml", "state.yaml~")
            Path("new").write_bytes(EDITED)
            os.rename("new", "state.yaml")
            Path("state.yaml~").unlink(missing_ok=True)

        code, _, err = run("resolve", "state.yaml", "--edit")

        assert 1 == code
        assert f"(process {process.pid}) has it open, and may have newer values in memory" in err
        assert EDITED == Path("state.yaml").read_bytes()
        process.communicate("state.close()\n")
    assert {"counter": 30, "key": {"nested": 3}, "size": 1, "log": LOG} == state()
    assert 0 == run("resolve", "state.yaml", "--edit").code


def test_death_at_every_call(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mend, "SYSTEM", mend.SYSTEM)
    for number in range(200):
        for name in beside():
            os.unlink(name)
        Path("state.yaml").write_bytes(EDITED)

        def die(number: int = number) -> None:
            fs = Dying(number, False, os.open(os.devnull, os.O_WRONLY))
            mend.SYSTEM, fs.armed = fs, True
            os._exit(main(["resolve", "--both", "state.yaml"]))

        code = in_child(die)
        if Path("state.yaml").read_bytes().startswith(EDITED):
            assert 0 == run("resolve", "--both", "state.yaml").code
        assert {"counter": 5, "key": {"nested": 3}, "size": 1, "log": LOG} == state()
        assert any(Path(name).read_bytes().startswith(EDITED) for name in beside() if ".before-resolve" in name)
        if code != KILLED:
            break
    assert 0 == code
    assert number >= 20


def test_the_resolved_file_is_one_to_go_on_with(run: Run) -> None:
    resolved(run, "--both")

    with PersistedState("state.yaml") as opened:
        opened.counter += 1
    assert 6 == state()["counter"]
