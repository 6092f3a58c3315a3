"""docs/architecture.md is true: the pictures, the way of a change, and every function that is named."""

from __future__ import annotations

import importlib
import importlib.util
import re
import sys
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

import pstate
from pstate import PersistedState
from pstate.file import limits

DOCS = Path(__file__).parent.parent / "docs"
PAGE = (DOCS / "architecture.md").read_text(encoding="utf-8")
_spec = importlib.util.spec_from_file_location("house", DOCS / "house.py")
assert _spec is not None
assert _spec.loader is not None
house = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(house)

#: `file.py`: `function`, as the page names a step.
NAMED = re.findall(r"`([\w/]+)\.py`: `([\w.]+)`", PAGE)


@pytest.mark.parametrize("name", house.PICTURES)
def test_a_picture_shows_the_imports(name: str) -> None:
    """`make reference` draws it."""
    assert (DOCS / "pictures" / f"{name}.svg").read_text(encoding="utf-8") == house.PICTURES[name]()


@pytest.mark.parametrize(("module", "function"), NAMED)
def test_every_function_that_is_named_exists(module: str, function: str) -> None:
    found: Any = importlib.import_module(f"pstate.{module.replace('/', '.')}")
    for part in function.split("."):
        found = getattr(found, part)


def test_a_change_makes_the_calls_that_the_page_lists(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "TRUST", 60.0)  # or the descriptor is asked for, on a slow machine
    monkeypatch.setattr(limits, "LOOK_INTERVAL", 60.0)
    inside = str(Path(pstate.__file__).parent)
    calls: list[tuple[str, str]] = []

    def note(frame: FrameType, event: str, _: object) -> None:
        code = frame.f_code
        if event == "call" and code.co_filename.startswith(inside):
            name = str(Path(code.co_filename).relative_to(inside).with_suffix("").as_posix())
            calls.append((name, code.co_qualname))

    with PersistedState(tmp_path / "state.yaml", counter=0) as state:
        state.counter = 1
        state.counter = 2
        sys.setprofile(note)
        try:
            state.counter += 1
        finally:
            sys.setprofile(None)

    section = PAGE.partition("## The way of `state.counter += 1`")[2].partition("\nThen ")[0]
    assert re.findall(r"^\d\. `([\w/]+)\.py`: `([\w.]+)`", section, re.M) == calls
