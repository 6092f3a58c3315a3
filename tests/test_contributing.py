"""What CONTRIBUTING.md shows is taken from the repository, and what it names exists."""

from __future__ import annotations

import errno
import os
import re
import textwrap
from pathlib import Path
from typing import Any

import pytest

from pstate import PersistedState, WriteError
from pstate.testing import SimulatedDisk, SimulatedSystem

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
EXAMPLES = re.findall(r"^( *)<!-- from: (\S+) -->\n *```python\n(.*?)^ *```$", PAGE, re.M | re.S)


@pytest.mark.parametrize(("indent", "file", "example"), EXAMPLES, ids=[file for _, file, _ in EXAMPLES])
def test_an_example_is_in_the_file_that_it_is_from(indent: str, file: str, example: str) -> None:
    """At whatever depth, line by line."""
    source = (ROOT / file).read_text(encoding="utf-8")
    lines = textwrap.dedent(example).rstrip()

    assert any(textwrap.indent(lines, " " * depth) in source for depth in (0, 4, 8))


def test_every_python_block_says_where_it_is_from() -> None:
    assert PAGE.count("```python") == len(EXAMPLES) >= 5


def test_the_error_that_is_shown_is_what_the_store_says() -> None:
    found = re.search(r"^<!-- said -->\n```text\n(.*?)^```$", PAGE, re.M | re.S)
    assert found is not None
    full = False

    def refuse(system: SimulatedSystem, name: str, arguments: tuple[Any, ...]) -> None:
        if full and name == "write":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    path = "/home/me/state.yaml"
    state = PersistedState.open(path, fs=SimulatedSystem(SimulatedDisk({path: b"counter: 1\n"}), refuse))
    state.counter = 2
    full = True
    with pytest.raises(WriteError) as error:
        state.vacuum()
    full = False
    state.close()

    assert found[1].split() == str(error.value).split()


def test_every_file_that_is_named_exists() -> None:
    named = re.findall(r"`((?:pstate|tests|docs|examples|stress|\.ci)/[\w./*-]+)`", PAGE)
    linked = re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", PAGE)

    assert len(named) > 20
    assert [] == [name for name in [*named, *linked] if not list(ROOT.glob(name.rstrip("/")))]


def test_every_name_of_a_table_is_in_its_file() -> None:
    """`NAME` in, or of, `FILE`."""
    found = re.findall(r"`(\w+)` (?:in|of) `([\w./]+\.py)`", PAGE)

    assert {"SCENARIOS", "FAULTS", "MODULES", "QUICK", "PAGES", "engine_of"} == {name for name, _ in found}
    for name, file in found:
        assert re.search(rf"^(def )?{name}\b", (ROOT / file).read_text(encoding="utf-8"), re.M), name


def test_every_target_is_one() -> None:
    targets = set(re.findall(r"(?:`|\$ )make (\w+)", PAGE))
    rules = re.search(r"^\.PHONY: (.*)$", (ROOT / "Makefile").read_text(encoding="utf-8"), re.M)
    assert rules is not None

    assert {"test", "lint", "docs", "stress", "reference"} <= targets <= set(rules[1].split())


def test_every_folder_of_tests_is_in_the_table() -> None:
    rows = set(re.findall(r"^\| `([\w/]+/)` \|", PAGE, re.M))
    folders = {
        f"{path.relative_to(ROOT).as_posix()}/"
        for top in ("tests", "stress")
        for path in (ROOT / top).iterdir()
        if path.is_dir() and not path.name.startswith(("_", "."))
    }

    assert rows == folders
