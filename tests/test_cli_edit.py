"""`pstate edit` with editors that are scripts: what is saved arrives, and nothing else is lost."""

from __future__ import annotations

import os
import pty
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tools.cli import FILES, Run, environment, run

from pstate import PersistedState, WriteError
from pstate.cli import changes, values
from pstate.memory.changes import between
from pstate.values import same

__all__ = ["run"]

Editor = Callable[[str], None]


@pytest.fixture
def editor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Editor:
    """Makes $EDITOR a Python program, in which `path` is the copy and `text` what it says."""

    def make(code: str) -> None:
        script = tmp_path / "editor.py"
        script.write_text(f"import sys, os\npath = sys.argv[-1]\ntext = open(path).read()\n{code}\n")
        monkeypatch.setenv("EDITOR", f"'{sys.executable}' {script} --wait")
        monkeypatch.delenv("VISUAL", raising=False)

    return make


def test_an_edit_by_sed_arrives(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VISUAL", "sed -i s/wash/iron/")

    assert (0, "", "") == run("edit", "state.yaml")
    assert FILES["state.yaml"].replace("wash", "iron") == Path("state.yaml").read_text()


def test_comments_and_layout_are_kept(run: Run, editor: Editor) -> None:
    text = "# how many\ncounter:    3\n\njobs: [a,   b]  # to do\n"
    Path("state.yaml").write_text(text)
    editor("open(path, 'w').write(text.replace('3', '4').replace('many', 'often'))")

    assert (0, "", "") == run("edit", "state.yaml")
    assert text.replace("3", "4").replace("many", "often") == Path("state.yaml").read_text()
    assert sorted(FILES) == sorted(name for name in os.listdir() if name.endswith("yaml") or name.startswith("."))


def test_a_program_that_has_the_file_open_sees_the_edit(run: Run, editor: Editor) -> None:
    Path("state.yaml").write_text("# comment\ncounter: 3\nmine: 0\n")
    editor("open(path, 'w').write(text.replace('3', '4'))")
    with subprocess.Popen(
        [sys.executable, "-c", "from pstate import PersistedState; s = PersistedState('state.yaml')\n"
         "print(s.counter, flush=True); input(); print(s.counter, flush=True); s.mine = 1; s.close()"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    ) as program:  # fmt: skip
        assert program.stdout is not None
        assert "3\n" == program.stdout.readline()
        assert 0 == run("edit", "state.yaml").code
        assert "# comment\ncounter: 4\nmine: 0\n" == Path("state.yaml").read_text()
        assert "4\n" == program.communicate("\n")[0]
    assert "# comment\ncounter: 4\nmine: 1\n" == Path("state.yaml").read_text()


def test_what_others_commit_meanwhile_is_kept(run: Run, editor: Editor) -> None:
    """Value by value; where both changed the same one, the edit wins, and it is said."""
    editor(
        "os.system(f'{sys.executable} -m pstate set state.yaml jobs[0].tries 9')\n"
        "os.system(f'{sys.executable} -m pstate set state.yaml other 1')\n"
        "os.system(f'{sys.executable} -m pstate incr state.yaml counter 5')\n"
        "open(path, 'w').write(text.replace('counter: 3', 'counter: 4').replace('  ? a', '  ? a\\n  ? b'))"
    )

    code, _, err = run("edit", "state.yaml")

    assert 0 == code
    assert "both you and a program changed a value, and yours was saved: state.counter was 8" in err
    with PersistedState("state.yaml") as found:
        assert (4, 9, 1, {"a", "b"}) == (found.counter, found.jobs[0].tries, found.other, found.seen)


def test_comments_are_shown_and_kept_while_programs_are_at_work(run: Run, editor: Editor) -> None:
    """Old comments and those written now are kept, above a journal, and over commits in the meantime."""
    Path("state.yaml").write_text("# how many\ncounter:   3  # so far\njobs: [wash, dry]\n")
    editor(
        "os.system(f'{sys.executable} -m pstate incr state.yaml counter')\n"
        "assert text == '# how many\\ncounter:   4  # so far\\njobs: [wash, dry]\\n', text\n"
        "open(path, 'w').write(text.replace('wash', 'iron').replace('so far', 'today') + '# the end\\n')"
    )
    with PersistedState("state.yaml") as live:
        live.counter = 4

        assert (0, "", "") == run("edit", "state.yaml")

        assert (["iron", "dry"], 5) == (live.jobs, live.counter)
        assert "# how many\ncounter:   5  # today\njobs: [iron, dry]\n# the end\n" == Path("state.yaml").read_text()
        live.counter = 6
    assert "# how many\ncounter:   6  # today\njobs: [iron, dry]\n# the end\n" == Path("state.yaml").read_text()


def test_where_the_file_cannot_be_replaced_the_values_are_saved(
    run: Run, editor: Editor, monkeypatch: pytest.MonkeyPatch
) -> None:
    editor("open(path, 'w').write('# new\\n' + text.replace('wash', 'iron'))")

    def refused(*_: object) -> None:
        raise WriteError("state.yaml: cannot be rewritten.")

    monkeypatch.setattr("pstate.file.log.FileLog.save", refused)
    code, _, err = run("edit", "state.yaml")

    assert (0, "iron") == (code, run("get", "state.yaml", "jobs[0].name").out.strip())
    assert "the values are saved, but not your comments and layout: state.yaml: cannot be" in err


def test_an_unchanged_copy_changes_nothing(run: Run, editor: Editor) -> None:
    editor("pass")

    code, out, err = run("edit", "journal.yaml")

    assert (0, "", "pstate: the copy was not changed, so nothing was.\n") == (code, out, err)
    assert FILES["journal.yaml"] == Path("journal.yaml").read_text()


def kept(err: str) -> Path:
    found = re.search(r"your text was kept in (\S+)", err)
    assert found is not None, err
    return Path(found[1])


def test_without_a_terminal_what_does_not_parse_is_kept_and_named(run: Run, editor: Editor) -> None:
    editor("open(path, 'w').write(text + 'more: [1,\\n')")

    code, out, err = run("edit", "state.yaml")

    assert (3, "") == (code, out)
    assert "state.yaml:10:1: not YAML" in err
    assert "    9 | more: [1," in err
    assert kept(err).read_text() == FILES["state.yaml"] + "more: [1,\n"
    assert FILES["state.yaml"] == Path("state.yaml").read_text()


def test_an_editor_that_fails_changes_nothing(run: Run, editor: Editor, monkeypatch: pytest.MonkeyPatch) -> None:
    editor("open(path, 'w').write('x: 1\\n'); sys.exit(3)")
    code, _, err = run("edit", "state.yaml")
    assert 1 == code
    assert "ended with exit code 3. Nothing was changed." in err
    assert "x: 1\n" == kept(err).read_text()

    monkeypatch.setenv("EDITOR", "/nowhere/editor")
    code, _, err = run("edit", "state.yaml")
    assert (1, False) == (code, "kept" in err)
    assert FILES["state.yaml"] == Path("state.yaml").read_text()


@pytest.mark.parametrize(("answer", "code", "counter"), [("e", 0, 7), ("", 0, 7), ("d", 1, 3), ("k", 3, 3)])
def test_at_a_terminal_one_may_edit_again(tmp_path: Path, answer: str, code: int, counter: int) -> None:
    """The first time the editor writes what does not parse, the second time it corrects it."""
    (tmp_path / "state.yaml").write_text(FILES["state.yaml"])
    (tmp_path / "editor.py").write_text(
        "import sys\npath = sys.argv[1]\ntext = open(path).read()\n"
        "new = text.replace('[7', '7') if '[7' in text else text.replace('counter: 3', 'counter: [7')\n"
        "open(path, 'w').write(new)\n"
    )
    mine, theirs = pty.openpty()
    try:
        with subprocess.Popen(
            ["pstate", "edit", "state.yaml"],
            cwd=tmp_path,
            env={**environment(tmp_path / "bin"), "EDITOR": f"{sys.executable} editor.py"},
            stdin=theirs,
            stderr=subprocess.PIPE,
            text=True,
        ) as process:
            os.write(mine, f"{answer}\n".encode())
            _, err = process.communicate(timeout=50)
    finally:
        os.close(mine)
        os.close(theirs)

    assert code == process.returncode
    assert "state.yaml:2:1: not YAML" in err or "not YAML" in err
    assert "e to edit again" in err
    assert ("kept in" in err) == (answer == "k")
    assert counter == PersistedState(tmp_path / "state.yaml").counter


def test_lock_keeps_other_writers_out(run: Run, editor: Editor) -> None:
    editor(
        "code = os.system(f'{sys.executable} -m pstate set state.yaml counter 9 --lock-timeout 0.05')\n"
        "open(path, 'w').write(text.replace('counter: 3', f'counter: {100 + os.waitstatus_to_exitcode(code)}'))"
    )

    assert 0 == run("edit", "--lock", "state.yaml").code
    assert Path("state.yaml").read_text().startswith("counter: 104\n")


@pytest.mark.parametrize(
    "text", ["", "# nothing\n", "a: 1", "a:\n- 1\n", "\ufeffa: 1\r\nb: 2\r\n", "a: 1\n...\n", "a: |\n  x\n"]
)
def test_any_valid_document_can_come_out_of_an_editor(run: Run, editor: Editor, text: str) -> None:
    Path("new").write_bytes(text.encode())
    editor("import shutil; shutil.copyfile('new', path)")
    Path("state.yaml").write_text("# comment\nx: 1\n")

    with PersistedState("state.yaml") as live:
        assert 1 == live.x
        assert 0 == run("edit", "state.yaml").code
        assert text.encode() == Path("state.yaml").read_bytes()
        assert "x" not in live
        live.y = 2
    assert 2 == PersistedState("state.yaml").y


# ----------------------------------------------------------------------------------------------------------- a new file


def test_a_file_that_does_not_exist_begins_with_what_is_saved(run: Run, editor: Editor) -> None:
    editor("assert text == '' and path.endswith('/new.yaml'); open(path, 'w').write('# mine\\na:   1\\n')")

    assert (0, "", "") == run("edit", "new.yaml")
    assert "# mine\na:   1\n" == Path("new.yaml").read_text()


@pytest.mark.parametrize("code", ["", "open(path, 'w').write('\\n')"])
def test_where_nothing_is_saved_no_file_begins(run: Run, editor: Editor, code: str) -> None:
    editor(code)

    assert (0, "", "pstate: nothing was written, so new.yaml was not created.\n") == run("edit", "new.yaml")
    assert not Path("new.yaml").exists()


@pytest.mark.parametrize("text", ["- a\n", "just words\n", "a: [1\n", "a: 1\n---\nb: 2\n"])
def test_what_is_not_a_mapping_begins_no_file_and_is_kept(run: Run, editor: Editor, text: str) -> None:
    editor(f"open(path, 'w').write({text!r})")

    code, out, err = run("edit", "new.yaml")
    assert (3, "") == (code, out)
    assert text == kept(err).read_text()
    assert not Path("new.yaml").exists()


def test_what_a_program_begins_while_the_editor_runs_is_kept(run: Run, editor: Editor) -> None:
    editor(
        "os.system(f'{sys.executable} -m pstate set new.yaml . \"{{a: 1, both: 1}}\"')\n"
        "open(path, 'w').write('b: 2  # two\\nboth: 2\\n')"
    )

    code, _, err = run("edit", "new.yaml")
    assert (0, True) == (code, "yours was saved: state.both was 1" in err), err
    assert {"a": 1, "b": 2, "both": 2} == PersistedState("new.yaml").snapshot()
    assert "# two" in Path("new.yaml").read_text()


def test_where_no_file_can_be_created_the_editor_does_not_run(run: Run, editor: Editor) -> None:
    editor("open('ran', 'w')")

    assert 3 == run("edit", "missing/new.yaml").code
    code, _, err = run("edit", "new.yaml", "--lock")
    assert (2, True) == (code, "new.yaml: does not exist, so --lock cannot lock it" in err)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "access", lambda path, mode: False)
        code, _, err = run("edit", "new.yaml")
    assert (5, True) == (code, "is not writable. Nothing was done." in err)
    assert not Path("ran").exists()


def test_a_new_file_whose_disk_is_full_keeps_the_text(
    run: Run, editor: Editor, monkeypatch: pytest.MonkeyPatch
) -> None:
    editor("open(path, 'w').write('a: 1\\n')")

    def fails(*arguments: Any, **options: Any) -> Any:
        raise WriteError("new.yaml: cannot be created: No space left on device. Nothing was changed.")

    monkeypatch.setattr("pstate.cli.session._open", fails)
    code, _, err = run("edit", "new.yaml")
    assert (5, "a: 1\n") == (code, kept(err).read_text())
    assert not Path("new.yaml").exists()


SCALARS = st.one_of(st.none(), st.booleans(), st.integers(-1, 2), st.sampled_from([0.0, 1.0, 2.5, "a", "b"]))
TREES = st.recursive(
    SCALARS | st.sets(SCALARS, max_size=3),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(SCALARS, inner, max_size=4),
    max_leaves=12,
)
STATES = st.dictionaries(SCALARS, TREES, max_size=4)


@given(STATES, STATES)
def test_any_state_becomes_any_other_in_one_commit(old: dict[Any, Any], new: dict[Any, Any]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        with PersistedState.open(f"{folder}/state.yaml", defaults=old) as state:
            with state.transaction():
                values.become(state, new)
            assert same(new, state.snapshot())
        with PersistedState.open(f"{folder}/state.yaml", read_only=True) as state:
            assert same(new, state.snapshot())


@given(STATES, STATES)
def test_a_difference_is_found_where_there_is_one(old: dict[Any, Any], new: dict[Any, Any]) -> None:
    assert [] == list(between(old, old))
    found = list(between(old, new))
    assert found or same(old, new) or keys_only(old, new)
    for change in found:
        assert changes.line(change)
        assert not same(change.old, change.new) or change.is_member


def keys_only(old: Any, new: Any) -> bool:
    """Whether nothing differs but the types of equal keys: 1, 1.0 and True are one key."""
    return bool(old == new)
