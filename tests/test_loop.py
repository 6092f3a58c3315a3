"""The measurement of how long an event loop stands still runs, and finds a loop that does."""

from __future__ import annotations

import asyncio
import re
import time
from pathlib import Path

import pytest

from perf import loop

ROOT = Path(__file__).parent.parent


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop, "HELD", 0.1)
    monkeypatch.setattr(loop, "ROWS", 20)


def test_work_on_the_loop_stops_it_and_work_in_a_thread_does_not() -> None:
    """The sleep is the work: it gives up Python's global lock, so a thread may do it beside the loop."""
    (blocked,) = asyncio.run(loop.stand_still(lambda: time.sleep(0.5), 1, in_thread=False))
    (beside,) = asyncio.run(loop.stand_still(lambda: time.sleep(0.5), 1, in_thread=True))

    assert blocked >= 0.5
    assert beside < 0.4


@pytest.mark.usefixtures("short")
def test_each_case_is_measured_both_ways_and_written_between_the_marks(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    document = tmp_path / "page.md"
    document.write_text(f"before\n{loop.BEGIN}\nold\n{loop.END}\nafter\n", encoding="utf-8")

    assert 0 == loop.main(["--rounds", "1", "--markdown", str(document)])

    text = document.read_text(encoding="utf-8")
    assert text.startswith(f"before\n{loop.BEGIN}\n\n`python -m perf.loop --rounds 1` on ")
    assert text.endswith(f" ms |\n\n{loop.END}\nafter\n")
    assert names(text) == [case.name for case in loop.CASES]
    assert capsys.readouterr().out in text


def test_the_page_has_all_cases() -> None:
    page = (ROOT / "docs" / "async.md").read_text(encoding="utf-8")

    assert names(page) == [case.name for case in loop.CASES]


def test_a_document_without_marks_is_refused_before_anything_is_measured(tmp_path: Path) -> None:
    document = tmp_path / "page.md"
    document.write_text("nothing\n", encoding="utf-8")

    with pytest.raises(SystemExit, match=r"page\.md: the marks .* are missing\. Nothing was written\."):
        loop.main(["--markdown", str(document)])


def names(text: str) -> list[str]:
    return re.findall(r"^\| (.+?) \| [\d.e+]+ ms \| [\d.e+]+ ms \|$", text, re.M)
