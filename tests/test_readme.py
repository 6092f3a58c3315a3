"""What the README and the documents show runs, and does what they say."""

from __future__ import annotations

import contextlib
import io
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from sybil import Sybil
from sybil.parsers.markdown import PythonCodeBlockParser, SkipParser
from tools.docs import HOST, PAGES, served

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
EXECUTED = [document for document in DOCUMENTS if document not in PAGES]  # test_pages.py follows those


@pytest.mark.parametrize("document", EXECUTED, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_python_block_runs(
    document: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    """In order, in one namespace, in an empty folder. Those that name a server come last: there may be none."""
    monkeypatch.chdir(tmp_path)
    parsed = Sybil(parsers=[PythonCodeBlockParser(), SkipParser()]).parse(document)
    examples = list(parsed.examples())
    on_server = [example for example in examples if HOST in str(example.parsed)]
    with contextlib.redirect_stdout(io.StringIO()):  # a hundred thousand lines
        for example in examples:
            if example not in on_server:
                example.evaluate()
    parsed.namespace.clear()  # dropping the last reference closes

    assert all(is_plain(path) for path in tmp_path.iterdir())
    if on_server:
        with served(request):
            for example in on_server:
                example.evaluate()
            parsed.namespace.clear()


def is_plain(path: Path) -> bool:
    return not any(line.startswith(("---", "...")) for line in path.read_text(encoding="utf-8").splitlines())


def test_no_line_of_code_in_the_readme_is_too_long_for_a_terminal() -> None:
    """The page of a package index shows 80 columns."""
    code = re.findall(r"^ *```(?:python|console|sh)\b[^\n]*\n(.*?)^ *```$", README, re.M | re.S)
    lines = [line for block in code for line in block.splitlines()]

    assert len(lines) > 50
    assert [] == [line for line in lines if len(line) > 80 and not line.startswith("{")]


def test_the_numbers_that_the_readme_compares_are_measured_ones() -> None:
    """Each is a row of the first table that `make bench` has written."""
    rows = re.findall(r"^\| \**([^|]+?)\** \| \**([\d.]+ [mµ]s)\** \| [^|]+ \|$", README, re.M)
    peers = {
        "pstate": "pstate",
        "SQLite (WAL)": "sqlite3 WAL, NORMAL",
        "shelve": "shelve",
        "a JSON file (pickleDB)": "pickledb, save() each time",
        "LMDB": "lmdb, sync=False",
    }
    pure = re.search(r"a change takes ([\d.]+ µs)", README)
    assert pure is not None

    assert {(peers[name], time) for name, time in rows} | {("pstate (pure Python)", pure[1])} <= measured()
    assert set(peers) == {name for name, _ in rows}


def measured() -> set[tuple[str, str]]:
    """Names and times in the first table of docs/performance.md that measures `counter += 1`."""
    page = (ROOT / "docs" / "performance.md").read_text(encoding="utf-8")
    table = page.partition("### counter += 1\n")[2].partition("\n### ")[0]
    return {(name, time) for name, time in re.findall(r"^\| ([^|]+) \| \w+ \| ([^|]+) \|", table, re.M)}


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_link_leads_somewhere(document: Path) -> None:
    """Into the repository, that is; nothing is asked of the network."""
    targets = re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", document.read_text(encoding="utf-8"))

    assert [] == [link for link in targets if "://" not in link and not (document.parent / link).exists()]


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_file_that_is_named_exists(document: Path) -> None:
    """A walk through the source must not lead to a module that was renamed."""
    named = re.findall(r"`((?:pstate|tests|docs|examples|stress)/[\w./-]+)`", document.read_text(encoding="utf-8"))

    assert [] == [name for name in named if not (ROOT / name).exists()]


def test_the_first_example_continues_from_the_first_unprocessed_item(tmp_path: Path) -> None:
    """Killed in the middle, as often as you like, no item is skipped, and none done twice that was committed."""
    script = tmp_path / "example.py"
    script.write_text(first_python_block(), encoding="utf-8")

    first, last = run_and_kill(script, after=300)
    assert 1 == first
    for after in (1, 50):
        first, next_last = run_and_kill(script, after)
        assert first in (last, last + 1)  # killed before its commit, or after it
        last = next_last


def first_python_block() -> str:
    block = re.search(r"^```python\n(.*?)^```$", README, re.M | re.S)
    assert block is not None
    return block[1]


def run_and_kill(script: Path, after: int) -> tuple[int, int]:
    """Run *script*, kill it when it has printed *after* items, return the numbers of its first and last item."""
    environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
    command = [sys.executable, script.name]
    with subprocess.Popen(command, cwd=script.parent, stdout=subprocess.PIPE, text=True, env=environment) as process:
        assert process.stdout is not None
        lines = [process.stdout.readline() for _ in range(after)]
        process.send_signal(signal.SIGKILL)
        lines += process.stdout.readlines()
    numbers = [int(line.rpartition("#")[2]) for line in lines if line.endswith("\n")]
    assert list(range(numbers[0], numbers[0] + len(numbers))) == numbers
    return numbers[0], numbers[-1]
