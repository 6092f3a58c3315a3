"""The checks on real files (stress/) hold for half a second each, count what they try, and leave nothing behind."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from random import Random

import pytest

import stress.files.crash_states
import stress.files.cut
import stress.real.disk_full
import stress.real.edits
import stress.soak
from stress.check import CHECKS, Trial
from stress.real.comments import Comments


@pytest.mark.parametrize("name", ["cut", "flip", "crash-states", "disk-full", "edits"])
def test_it_holds(name: str, tmp_path: Path) -> None:
    folder = tmp_path / name
    folder.mkdir()
    trial = Trial(seed=1, seconds=0.5, folder=folder)
    CHECKS[name].function(trial)
    assert sum(trial.counts.values()) > 1, trial.counts
    with open("/proc/self/mounts") as mounts:
        assert str(tmp_path) not in mounts.read()


def test_a_soak_takes_turns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stress.soak, "SHORTEST", 0.1)
    monkeypatch.setattr(stress.soak, "LONGEST", 0.2)
    for name in list(CHECKS):
        if name not in ("soak", "cut", "flip"):
            monkeypatch.delitem(CHECKS, name)
    trial = Trial(seed=1, seconds=0.5, folder=tmp_path)
    CHECKS["soak"].function(trial)
    assert trial.counts["turns"] > 1
    assert os.listdir(tmp_path) == []


DOCUMENT = """\
# the beginning

# above a
a: 1  # trailing a
list:
  # above one
  # above one, too
  - one
  - two

# the end
"""


@pytest.mark.parametrize(
    ("harm", "problem"),
    [
        pytest.param(lambda text: text, "", id="nothing"),
        pytest.param(lambda text: text.replace("a: 1", "a: 17"), "", id="another value"),
        pytest.param(lambda text: text.replace("  - two\n", "").replace("list:\n", "list:\n  - two\n"), "", id="moved"),
        pytest.param(lambda text: text.removeprefix("# the beginning\n"), "begins with", id="begins otherwise"),
        pytest.param(lambda text: text.removesuffix("# the end\n"), "ends with", id="ends otherwise"),
        pytest.param(lambda text: text.replace("  # trailing a", ""), "does not occur once", id="one is missing"),
        pytest.param(lambda text: text.replace("# above a\n", ""), "does not occur once", id="one above is missing"),
        pytest.param(
            lambda text: text.replace("# above a\na: 1", "a: 1\n# above a"), "not occur once", id="one has moved"
        ),
        pytest.param(
            lambda text: text.replace("  - one\n  - two", "  - two\n  - one"), "once", id="at another element"
        ),
        pytest.param(lambda text: text.replace("- two", "- two  # above one"), "occurs twice", id="one was doubled"),
    ],
)
def test_comments_that_are_not_where_they_belong_are_found(harm: Callable[[str], str], problem: str) -> None:
    comments = Comments("# the beginning\n\n", "\n# the end\n", ["a:", "list:", "  - one", "  - two"])
    comments.above["a:"], comments.trailing["a:"] = ["# above a"], "# trailing a"
    comments.above["  - one"] = ["# above one", "# above one, too"]

    found = "; ".join(comments.problems(harm(DOCUMENT)))
    assert problem in found
    assert bool(problem) == bool(found)


def test_comments_that_are_written_are_known() -> None:
    comments, dice = Comments("", "", ["a:", "  - one"]), Random(1)
    text = "a: 1\nlist:\n  - one\n"
    for line, value in [("a:", "2"), ("  - one", "")] * 4:
        before = next(each for each in text.split("\n") if each.startswith(line)) + "\n"
        text = text.replace(before, comments.change(dice, line, value)[line])

    assert [] == comments.problems(text)
    assert len(comments) == text.count("#") > 2
