"""Every command with standard streams that are closed, full, or read by nobody: one sentence, and never a traceback."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest
from tools.cli import FILES, ROOT, folder, shell

from pstate.cli.command import in_our_words
from pstate.cli.table import MODULES

__all__ = ["folder"]

CLOSED = "pstate: standard output could not be written: it is closed."

#: For each command: words that make it print, and what the error says about the files.
PRINTS = {
    "get": ("get state.yaml", ""),
    "incr": ("incr state.yaml counter", " The change is committed."),
    "apply": ("apply state.yaml script", " The changes are committed."),
    "check": ("check state.yaml", ""),
    "repair": ("repair --yes broken.yaml", " Nothing was changed."),
    "resolve": ("resolve --both edited.yaml", " Nothing was changed."),
    "log": ("log journal.yaml", ""),
    "watch": ("watch state.yaml --now --count 1", ""),
    "diff": ("diff journal.yaml", ""),
    "who": ("who --json state.yaml 3<state.yaml", ""),
    "import": ("import new.yaml state.yaml --dry-run", ""),
    "export": ("export state.yaml --to yaml", ""),
    "init": ("init --sql postgresql://db.example/app", ""),
    "completion": ("completion bash", ""),
    "keys": ("keys state.yaml", ""),
    "type": ("type state.yaml counter", ""),
    "len": ("len state.yaml jobs", ""),
    "pop": ("pop state.yaml counter", " Nothing was changed."),
}
#: The others, which print nothing.
SILENT = {
    "set": "set state.yaml counter 9",
    "delete": "delete state.yaml counter",
    "append": "append state.yaml jobs 1",
    "add": "add state.yaml seen b",
    "edit": "edit state.yaml",
    "vacuum": "vacuum journal.yaml",
    "insert": "insert state.yaml jobs[0] 1",
    "mv": "mv state.yaml counter count",
    "cp": "cp state.yaml counter count",
}
#: Those that print nothing, and change none of the files.
MUTE = {"has": "has state.yaml counter", "new": "new other.yaml"}
#: What draws on a terminal: it has tests of its own, in tests/test_view_terminal.py.
DRAWS = {"view"}
#: What needs a server, in tests/test_cli_urls.py.
SERVED = {"list", "pull", "push"}
SETTINGS = "printf 'incr counter\\n' > script; echo 'k: 1' > new.yaml; export EDITOR='sed -i s/wash/iron/'; "


def test_every_command_is_here() -> None:
    assert set(MODULES) == PRINTS.keys() | SILENT.keys() | MUTE.keys() | DRAWS | SERVED


@pytest.mark.parametrize("name", [*PRINTS, "--help", "--version", "get --help"])
def test_a_closed_standard_output_is_exit_code_1(folder: Path, tmp_path: Path, name: str) -> None:
    words, effect = PRINTS.get(name, (name, ""))
    before = {file: (folder / file).read_bytes() for file in FILES}
    # `who` tells of other processes: of this shell, which has the file open as its descriptor 3.
    open_too = "exec 3<state.yaml; " if name == "who" else ""

    done = shell(f"{SETTINGS}{open_too}pstate {words} >&-", folder, tmp_path / "bin")

    assert (1, f"{CLOSED}{effect}\n") == (done.returncode, done.stderr)
    changed = [file for file in FILES if before[file] != (folder / file).read_bytes()]
    assert changed == (["state.yaml"] if "committed" in effect else [])


@pytest.mark.parametrize("name", SILENT)
def test_a_command_that_prints_nothing_needs_no_standard_output(folder: Path, tmp_path: Path, name: str) -> None:
    file = SILENT[name].split()[1]
    before = (folder / file).read_bytes()

    done = shell(f"{SETTINGS}pstate {SILENT[name]} >&- <&-", folder, tmp_path / "bin")

    assert (0, "") == (done.returncode, done.stderr)
    assert before != (folder / file).read_bytes()


@pytest.mark.parametrize("name", MUTE)
def test_a_command_that_answers_by_its_exit_code_needs_no_stream(folder: Path, tmp_path: Path, name: str) -> None:
    done = shell(f"pstate {MUTE[name]} <&- >&- 2>&-", folder, tmp_path / "bin")

    assert (0, "", "") == (done.returncode, done.stdout, done.stderr)


@pytest.mark.parametrize("how", ["2>&-", "2>/dev/full", "<&-", "<&- 2>&-", "2> >(exit)"])
@pytest.mark.parametrize("name", [*PRINTS, *SILENT])
def test_other_closed_streams_change_nothing(folder: Path, tmp_path: Path, name: str, how: str) -> None:
    words = SILENT.get(name) or PRINTS[name][0]

    done = shell(f"{SETTINGS}exec 3<state.yaml; (pstate {words} > out) {how}", folder, tmp_path / "bin")

    assert (1 if name == "diff" else 0, "", "") == (done.returncode, done.stdout, done.stderr)
    assert bool((folder / "out").read_text()) == (name in PRINTS)


@pytest.mark.parametrize("how", ["2>&-", "2>/dev/full"])
def test_a_message_that_nobody_can_see_goes_nowhere_else(folder: Path, tmp_path: Path, how: str) -> None:
    script = f"(pstate get state.yaml nothing; echo $?; pstate set state.yaml x no; echo $?; pstate; echo $?) {how}"
    done = shell(script, folder, tmp_path / "bin")

    assert ("1\n0\n2\n", "") == (done.stdout, done.stderr)


@pytest.mark.parametrize(
    ("script", "code", "said"),
    [
        ("pstate set state.yaml x - <&-", 2, "VALUE: standard input cannot be read: it is closed. Nothing was done."),
        ("pstate apply state.yaml <&-", 2, "SCRIPT: standard input cannot be read: it is closed. Nothing was done."),
        ("pstate import - state.yaml <&-", 3, "-: cannot be read: Bad file descriptor. Nothing was changed."),
        ("pstate repair broken.yaml <&- >out", 1, "so nobody can confirm. Nothing was changed."),
        ("printf 'a\\xff' | pstate set state.yaml x -", 2, "byte 0xff at offset 1 is not UTF-8. Nothing was done."),
        ("printf 'set x \\xff' | pstate apply state.yaml", 2, "byte 0xff at offset 6 is not UTF-8. Nothing was done."),
        ("pstate repair --json --yes broken.yaml >&-", 1, "closed. The file is repaired; as it was: "),
        ("pstate repair --json --yes broken.yaml >/dev/full", 5, "space left on device. The file is repaired; as it"),
        ("pstate resolve --json --both edited.yaml >&-", 1, "closed. The file is resolved; as it was: "),
        ("pstate check state.yaml >/dev/full", 5, "standard output could not be written: No space left on device."),
        ("pstate who state.yaml 3<state.yaml >/dev/full", 1, ""),
        ("PYTHONUNBUFFERED=1 pstate --help >&-", 1, CLOSED),
        ("PYTHONUNBUFFERED=1 pstate get --help >/dev/full", 5, "No space left on device."),
        ("pstate get state.yaml 1</dev/null", 1, CLOSED),
    ],
)
def test_each_failure_is_one_sentence(folder: Path, tmp_path: Path, script: str, code: int, said: str) -> None:
    done = shell(script, folder, tmp_path / "bin")

    assert code == done.returncode, done.stderr
    assert said in done.stderr
    assert len(done.stderr.splitlines()) == bool(said)


def test_a_state_does_not_become_a_standard_stream(folder: Path, tmp_path: Path) -> None:
    """What the command of a watch prints would go into the file."""
    before = (folder / "state.yaml").read_bytes()
    script = "pstate watch state.yaml --now --count 1 -- sh -c 'echo noise; echo noise >&2' <&- >&- 2>&-"

    assert 0 == shell(script, folder, tmp_path / "bin").returncode
    assert before == (folder / "state.yaml").read_bytes()


def test_input_is_utf8_whatever_the_locale_says(folder: Path, tmp_path: Path) -> None:
    settings = "export LC_ALL=C PYTHONUTF8=0 PYTHONCOERCECLOCALE=0"
    script = f"{settings}; echo ä | pstate set state.yaml x -; pstate get state.yaml x"

    done = shell(script, folder, tmp_path / "bin")
    assert ("ä\n", "") == (done.stdout, done.stderr)


# ---------------------------------------------------------------------------------------------- words of the library

#: What a person at a command line cannot write.
_PYTHON = re.compile(r"lock_timeout|read_only|locking=|durability=|PersistedState|keep_journal")


def sentences(module: Path) -> list[str]:
    """The strings of *module* that may be a part of a message; those that follow each other are one."""
    tree = ast.parse(module.read_text(encoding="utf-8"))
    no_message = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}  # docstrings
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            no_message |= {id(part) for part in ast.walk(node)} - {id(node)}
            found.append("".join(str(part.value) if isinstance(part, ast.Constant) else "?" for part in node.values))
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in no_message:
            found.append(node.value)
    return found


@pytest.mark.parametrize(
    "name", ["store", "errors", *(f"file/{path.stem}" for path in sorted((ROOT / "pstate" / "file").glob("*.py")))]
)
def test_messages_name_the_options_of_the_command_line(name: str) -> None:
    """Those that a command can meet; a program meets more, such as a lock object that is not one."""
    told = [text for text in sentences(ROOT / "pstate" / f"{name}.py") if " " in text and "Nothing was" in text]
    for text in told:
        if "is open in this process" not in text and "Nothing was opened" not in text:
            assert not _PYTHON.search(in_our_words(text)), in_our_words(text)


def test_a_timeout_names_the_option(folder: Path, tmp_path: Path) -> None:
    from tools.cli import holding

    with holding(folder / "state.yaml"):
        done = shell("pstate set state.yaml x 1 --lock-timeout 0.05", folder, tmp_path / "bin")

    assert 4 == done.returncode
    assert "set a longer --lock-timeout" in done.stderr
    assert not _PYTHON.search(done.stderr)


def test_a_library_that_is_missing_names_the_option(folder: Path, tmp_path: Path) -> None:
    (folder / "filelock.py").write_text("raise ImportError('not here')")
    done = shell("PYTHONPATH=. pstate set state.yaml x 1 --locking filelock", folder, tmp_path / "bin")

    assert 2 == done.returncode
    assert "--locking filelock needs the library filelock" in done.stderr
    assert not _PYTHON.search(done.stderr)
