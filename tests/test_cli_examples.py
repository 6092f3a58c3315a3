"""What the help, docs/cli.md and the README show of the command line runs, and prints what they say."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from tools.cli import PAGE, ROOT, shell, write_files

from pstate.cli.reference import updated
from pstate.cli.table import MODULES, command

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


def check(example: str, folder: Path, tmp_path: Path) -> None:
    """In one shell, so that what one line does the next one sees; what goes to the terminal for people is left out."""
    mark = "\x01"
    script = "".join(f"{line.rstrip()}\nprintf '{mark}'\n" for line, _ in steps(example))
    done = shell(script, folder, tmp_path / "bin")

    printed = done.stdout.removesuffix(mark).split(mark)
    assert [text.replace("$PWD", str(folder)).rstrip("\n") for _, text in steps(example)] == [
        text.rstrip("\n") for text in printed
    ], done.stderr


@pytest.mark.parametrize("name", MODULES)
def test_the_example_of_each_command_runs(name: str, tmp_path: Path) -> None:
    folder = tmp_path / "work"
    folder.mkdir()
    write_files(folder)
    example = command(name).example

    assert f"pstate {name}" in example
    check(example, folder, tmp_path)


def test_the_example_of_the_readme_runs(tmp_path: Path) -> None:
    folder = tmp_path / "work"
    folder.mkdir()
    assert README is not None
    check(README[1], folder, tmp_path)


def test_the_page_is_what_the_commands_say() -> None:
    """`make reference` writes it."""
    assert updated(PAGE) == PAGE
