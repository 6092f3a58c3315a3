"""What the help, docs/cli.md and the README show of the command line runs, and prints what they say."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from tools.cli import PAGE, ROOT, database, shell, write_files

from pstate.cli.reference import updated
from pstate.cli.table import MODULES, command

__all__ = ["database"]

README = re.search(r"^```console\n(\$ pstate .*?)^```$", (ROOT / "README.md").read_text("utf-8"), re.M | re.S)


def steps(example: str) -> list[tuple[str, str]]:
    """Each command line with what it prints."""
    found: list[tuple[str, str]] = []
    for line in example.splitlines(keepends=True):
        if line.startswith("$ "):
            found.append((line[2:], ""))
        else:
            found[-1] = found[-1][0], found[-1][1] + line
    return found


def check(example: str, folder: Path, tmp_path: Path, **environment: str) -> None:
    """In one shell, so that what one line does the next one sees; what goes to the terminal for people is left out."""
    mark = "\x01"
    script = "".join(f"{line.rstrip()}\nprintf '{mark}'\n" for line, _ in steps(example))
    done = shell(script, folder, tmp_path / "bin", **environment)

    printed = done.stdout.removesuffix(mark).split(mark)
    assert [text.replace("$PWD", str(folder)).rstrip("\n") for _, text in steps(example)] == [
        text.rstrip("\n") for text in printed
    ], done.stderr


@pytest.mark.parametrize("name", MODULES)
def test_the_example_of_each_command_runs(name: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    folder = tmp_path / "work"
    folder.mkdir()
    write_files(folder)
    example = command(name).example

    assert f"pstate {name}" in example
    url = {"URL": request.getfixturevalue("database")} if "$URL" in example else {}
    check(example, folder, tmp_path, **url)


def test_the_example_of_the_readme_runs(tmp_path: Path) -> None:
    folder = tmp_path / "work"
    folder.mkdir()
    assert README is not None
    check(README[1], folder, tmp_path)


def test_the_examples_between_the_lines_of_the_page_run(tmp_path: Path) -> None:
    """Those of a command are in its help, too."""
    folder = tmp_path / "work"
    folder.mkdir()
    write_files(folder)
    prose = PAGE[: PAGE.index("<!-- commands, written by make reference -->")]
    examples = re.findall(r"^```console\n(.*?)^```$", prose, re.M | re.S)

    assert 3 == len(examples)
    check("".join(examples), folder, tmp_path)


def compared() -> list[str]:
    """The command lines of pstate in the table beside other tools, in their order."""
    table = PAGE[PAGE.index("| to | pstate |") :]
    cells = [line.split(" | ")[1] for line in table[: table.index("\n\n")].splitlines()[2:]]
    return [command for cell in cells for command in re.findall(r"`([^`]*)`", cell)]


def test_what_is_compared_with_other_tools_runs(tmp_path: Path) -> None:
    """In the order of the table, on one file; `watch` with an end, and `edit` with an editor that ends."""
    folder = tmp_path / "work"
    folder.mkdir()
    write_files(folder)
    (folder / "script").write_text("incr counter\n")
    more = {"watch": " --now --count 1"}
    lines = [f"pstate {line}{more.get(line.split()[0], '')} > out || test $? = 1" for line in compared()]

    assert len(lines) > 25
    script = "\n".join(["set -e; mv state.yaml f; export EDITOR='sed -i 1i#noted'", *lines])
    done = shell(script, folder, tmp_path / "bin")
    assert (0, "") == (done.returncode, done.stderr)


def test_the_page_is_what_the_commands_say() -> None:
    """`make reference` writes it."""
    assert updated(PAGE) == PAGE
