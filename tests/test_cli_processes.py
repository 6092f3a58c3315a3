"""The command line as shells have it: real processes, many at once, beside programs that have the file open."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml
from test_startup import HEAVY
from tools.cli import FILES, environment, folder, holding, shell

from pstate import PersistedState
from pstate.text import block

__all__ = ["folder"]


def test_loops_of_incr_count_exactly_and_leave_a_plain_document(folder: Path, tmp_path: Path) -> None:
    loop = "for i in $(seq 6); do pstate incr state.yaml counter; done"

    done = shell(f"({loop}) & ({loop}) & ({loop}) & ({loop}) & wait", folder, tmp_path / "bin")

    assert "" == done.stderr
    assert list(range(4, 28)) == sorted(map(int, done.stdout.split()))
    content = (folder / "state.yaml").read_text()
    assert content.startswith("counter: 27\n")
    assert "... # pstate" not in content
    assert sorted(FILES) == sorted(os.listdir(folder))


def test_a_loop_beside_a_program_leaves_its_file_and_its_journal_alone(folder: Path, tmp_path: Path) -> None:
    path = folder / "state.yaml"
    with PersistedState(path) as live:
        live.mine = 0
        before = path.stat().st_ino

        shell(
            "for i in 1 2 3; do pstate incr state.yaml counter; pstate get state.yaml; done", folder, tmp_path / "bin"
        )

        assert before == path.stat().st_ino
        assert 4 == path.read_text().count("\n--- [[")
        assert 6 == live.counter
        live.mine = 1
    assert {"counter": 6, "mine": 1} == {
        key: value for key, value in yaml.safe_load(path.read_text()).items() if key in ("counter", "mine")
    }


@pytest.mark.parametrize("command", ["get", "log", "check", "diff", "who"])
def test_what_only_looks_changes_no_byte_and_waits_for_nobody(folder: Path, tmp_path: Path, command: str) -> None:
    before = (folder / "journal.yaml").read_bytes()
    with holding(folder / "journal.yaml"):
        done = shell(f"pstate {command} journal.yaml", folder, tmp_path / "bin", timeout=9)

        assert before == (folder / "journal.yaml").read_bytes()
    assert "" == done.stderr


def test_looking_at_a_crashed_file_changes_no_byte(folder: Path, tmp_path: Path) -> None:
    path = folder / "journal.yaml"
    path.write_bytes(path.read_bytes() + b"--- [[torn")
    before = path.read_bytes()

    done = shell(
        "pstate get journal.yaml counter; pstate log journal.yaml; pstate check journal.yaml", folder, tmp_path / "bin"
    )

    assert done.stdout.startswith("4\n   1 ~ counter: 3 -> 4\n")
    assert before == path.read_bytes()


def test_a_journal_that_was_found_stays(folder: Path, tmp_path: Path) -> None:
    """The program that began it may still run where it cannot be seen (in a container, say)."""
    shell("pstate set journal.yaml counter 5", folder, tmp_path / "bin")

    content = (folder / "journal.yaml").read_text()
    assert 3 == content.count("\n--- [[")
    assert 5 == PersistedState(folder / "journal.yaml").counter


@pytest.mark.skipif(not block._IS_EXACT, reason="the regular expressions of this Python make mistakes")
@pytest.mark.parametrize("words", [["get", "plain.yaml", "counter"], ["set", "plain.yaml", "counter", "3"]])
def test_what_is_usual_imports_little(folder: Path, words: list[str]) -> None:
    """50 ms are for Python, pstate and argparse; not even PyYAML is needed where nothing is unusual."""
    (folder / "plain.yaml").write_text("counter: 3\njobs:\n  - name: wash\n")
    program = (
        "import json, sys; before = set(sys.modules)\n"
        "from pstate.cli import main\n"
        "main(sys.argv[1:])\n"
        "print(json.dumps([sorted(before), sorted(set(sys.modules) - before)]))\n"
    )
    kept = {name: value for name, value in os.environ.items() if not name.startswith("COV")}
    done = subprocess.run(
        [sys.executable, "-c", program, *words], cwd=folder, env=kept, check=True, capture_output=True, text=True
    )
    before, imported = map(set, json.loads(done.stdout.splitlines()[-1]))

    assert set() == before & HEAVY
    unwanted = (HEAVY | {"shlex", "ast", "difflib"}) - (
        {"ctypes", "pstate.text.splice"} if words[0] == "set" else set()
    )  # for its vacuum
    assert set() == imported & unwanted
    needed = {
        "command",
        "table",
        "paths",
        "progress",
        "session",
        "show",
        "read" if words[0] == "get" else "write",
        "urls",
        "values",
    }
    needed |= {"mending", "mending.presence"}
    found = {name.removeprefix("pstate.cli.") for name in imported if name.startswith("pstate.cli.")}
    assert found <= needed


def test_python_m_pstate_is_the_same(folder: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "pstate", "get", "state.yaml", "counter"],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )

    assert (0, "3\n", "") == (done.returncode, done.stdout, done.stderr)


def test_a_reader_that_has_enough_is_no_error(folder: Path, tmp_path: Path) -> None:
    with PersistedState(folder / "long.yaml") as state:
        state.rows = ["x" * 1000] * 5000  # more than a pipe holds
        done = shell(
            "pstate get long.yaml | head -c 10; echo ${PIPESTATUS[0]}; pstate get -0 long.yaml rows | head -c 1 >&2; "
            "echo ${PIPESTATUS[0]}",
            folder,
            tmp_path / "bin",
        )

    assert (["141", "141"], "x") == (done.stdout.split()[-2:], done.stderr)


def test_ctrl_c_ends_it_by_the_signal_without_a_traceback(folder: Path, tmp_path: Path) -> None:
    with subprocess.Popen(
        ["pstate", "log", "--follow", "journal.yaml"],
        cwd=folder,
        env=environment(tmp_path / "bin"),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        process.send_signal(signal.SIGINT)
        _, err = process.communicate()

    assert (-signal.SIGINT, "") == (process.returncode, err)


def test_log_follows_commits_vacuums_and_edits(folder: Path, tmp_path: Path) -> None:
    path = folder / "state.yaml"
    with subprocess.Popen(
        ["pstate", "log", "--follow", "state.yaml"],
        cwd=folder,
        env=environment(tmp_path / "bin"),
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None

        def line() -> str:
            assert process.stdout is not None
            return process.stdout.readline().rstrip()

        with PersistedState(path) as state:
            state.counter = 4
            assert "   1 ~ counter: 3 -> 4" == line()
            state.jobs[0].name = "iron"
            assert '   2 ~ jobs[0].name: "wash" -> "iron"' == line()
            state.vacuum()
            state.counter = 5
            assert "   1 ~ counter: 4 -> 5" == line()
        other = folder / "other.yaml"
        other.write_text(path.read_text().replace("counter: 5", "counter: 50"))
        os.replace(other, path)
        assert "     ~ counter: 5 -> 50" == line()
        path.write_text("counter: [\n")
        time.sleep(0.3)
        path.write_text("counter: 51\n")
        assert "     ~ counter: 50 -> 51" == line()
        process.send_signal(signal.SIGINT)


def test_bash_completes_commands_options_and_keys(folder: Path, tmp_path: Path) -> None:
    asked = """
        eval "$(pstate completion bash)"
        complete_line() { COMP_WORDS=(pstate "$@"); COMP_CWORD=$#; _pstate 2>/dev/null; echo "${COMPREPLY[*]}"; }
        complete_line de
        complete_line get --j
        complete_line get state.yaml co
        complete_line get state.yaml 'jobs[0].'
        complete_line set state.yaml counter 1 --durability p
        complete_line completion z
        complete_line get st
        complete_line watch state.yaml -- co
        complete_line watch state.yaml -- ls --j
        complete_line import old.json state.yaml --into jobs[0].n
        complete_line export state.yaml --only co
        complete_line export --only co
    """
    done = shell(asked, folder, tmp_path / "bin")

    assert [
        "delete", "--json", "counter", "jobs[0].name jobs[0].tries", "process power", "zsh", "",
        "", "", "jobs[0].name", "counter", "",
    ] == [" ".join(line.split()) for line in done.stdout.splitlines()]  # fmt: skip


@pytest.mark.parametrize("name", ["bash", "zsh", "fish"])
def test_every_shell_has_a_script(folder: Path, tmp_path: Path, name: str) -> None:
    done = shell(f"pstate completion {name}", folder, tmp_path / "bin")

    assert "pstate complete " in done.stdout


def test_a_journal_that_survives_power_cuts_goes_on_as_one(folder: Path, tmp_path: Path) -> None:
    """After a commit that was not synced, the file would be rewritten first."""
    path = folder / "state.yaml"
    with PersistedState.open(path, durability="power") as live:
        live.counter = 4
        before = path.stat().st_ino

        shell("pstate incr state.yaml counter; pstate incr state.yaml counter", folder, tmp_path / "bin")

        assert (6, before) == (live.counter, path.stat().st_ino)
        assert " w\n--- [[" in path.read_text()


@pytest.mark.parametrize(
    ("script", "code", "said"),
    [
        (
            "pstate get state.yaml > /dev/full",
            5,
            "pstate: standard output could not be written: No space left on device.",
        ),
        ("pstate log journal.yaml > /dev/full", 5, "standard output could not be written"),
        ("pstate incr state.yaml counter > /dev/full", 5, "No space left on device. The change is committed.\n"),
        ("echo incr counter | pstate apply state.yaml > /dev/full", 5, " The changes are committed.\n"),
        (
            "pstate incr state.yaml counter >&-",
            1,
            "pstate: standard output could not be written: it is closed. The change is committed.\n",
        ),
        ("pstate get state.yaml counter < /dev/null", 0, ""),
        ("mkdir gone && cd gone && rmdir ../gone && pstate get nothing", 3, "does not exist any more. Nothing was"),
        ("mkdir gone && cd gone && rmdir ../gone && pstate set nothing a 1", 3, "does not exist any more. Nothing was"),
        ("mkdir gone && cd gone && rmdir ../gone && pstate check nothing", 3, "does not exist any more. Nothing was"),
        ("ln -s loop loop; pstate export loop --to json", 3, "/loop: the file cannot be opened: Too many levels"),
    ],
)
def test_odd_surroundings_are_no_traceback(folder: Path, tmp_path: Path, script: str, code: int, said: str) -> None:
    done = shell(script, folder, tmp_path / "bin")

    assert code == done.returncode, done.stderr
    assert said in done.stderr
    assert "Traceback" not in done.stderr
