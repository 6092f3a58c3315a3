"""docs/types.md tells what type checkers find: mypy and pyright are run on the files that it shows.

Skipped where they are not installed: `make .venv/has-lint`.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs" / "types.md").read_text(encoding="utf-8")
FILES = dict(re.findall(r'^```python title="(\w+\.py)"\n(.*?)^```$', PAGE, re.M | re.S))

#: Where the file is, and where its line is.
Place = tuple[str, int]


def marked() -> set[Place]:
    """The lines of the page's files that say that they are errors."""
    return {
        (name, number)
        for name, text in FILES.items()
        for number, line in enumerate(text.splitlines(), 1)
        if "  # error" in line
    }


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, text in FILES.items():
        (tmp_path / name).write_text(text, encoding="utf-8")
    return tmp_path


def by_mypy(folder: Path) -> set[Place]:
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--no-error-summary", "--hide-error-context", *sorted(FILES)],
        cwd=folder,
        env={**os.environ, "MYPYPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode in (0, 1), done.stderr
    return {(file, int(line)) for file, line in re.findall(r"^(\w+\.py):(\d+): error:", done.stdout, re.M)}


def by_pyright(folder: Path) -> set[Place]:
    settings = {"extraPaths": [str(ROOT)], "typeCheckingMode": "standard", "reportMissingModuleSource": False}
    (folder / "pyrightconfig.json").write_text(json.dumps(settings), encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-m", "pyright", "--pythonpath", sys.executable, "--outputjson"],
        cwd=folder,
        env={**os.environ, "PYRIGHT_PYTHON_IGNORE_WARNINGS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode in (0, 1), done.stdout + done.stderr
    found = json.loads(done.stdout)["generalDiagnostics"]
    return {(Path(one["file"]).name, one["range"]["start"]["line"] + 1) for one in found if one["severity"] == "error"}


CHECKERS = {"mypy": by_mypy, "pyright": by_pyright}


@pytest.mark.timeout(300)  # mypy reads all of the package first
@pytest.mark.parametrize("name", CHECKERS)
def test_a_type_checker_finds_what_the_page_marks_and_nothing_else(name: str, folder: Path) -> None:
    if find_spec(name) is None:
        pytest.skip(f"{name} is not installed: make .venv/has-lint")

    assert marked() == CHECKERS[name](folder)


@pytest.mark.timeout(300)
@pytest.mark.parametrize("name", CHECKERS)
def test_what_the_page_calls_any_is_any(name: str, folder: Path) -> None:
    """And each annotated key has its type: otherwise the line would be an error."""
    if find_spec(name) is None:
        pytest.skip(f"{name} is not installed: make .venv/has-lint")
    untyped = ["state.toatl", 'state["total"]', 'state.get("total")', 'state.snapshot()["total"]', "place.get()"]
    typed = ["state.total", "state.owner", "state.names", "state.jobs", 'state.jobs[0]["name"]']
    lines = [
        "from typing import Any, assert_type",
        "import pstate",
        "from model import Job, Jobs",
        'state = Jobs("jobs.yaml")',
        'place = pstate.at(state, "total")',
        *(f"assert_type({expression}, Any)" for expression in untyped),
        *(
            f"assert_type({expression}, {kind})"
            for expression, kind in zip(typed, ["int", "str | None", "set[str]", "list[Job]", "str"], strict=True)
        ),
    ]
    (folder / "names.py").write_text("\n".join(lines) + "\n", encoding="utf-8")

    assert set() == {place for place in CHECKERS[name](folder) if place[0] == "names.py"}
    (folder / "names.py").write_text("\n".join([*lines, "assert_type(state.total, str)"]) + "\n", encoding="utf-8")
    assert {("names.py", len(lines) + 1)} == {place for place in CHECKERS[name](folder) if place[0] == "names.py"}


def test_the_page_shows_every_kind_of_mistake() -> None:
    assert {"wrong.py", "names.py", "nested.py"} == {name for name, _ in marked()}
