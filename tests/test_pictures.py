"""The pictures of docs/concepts.md show what the store really writes: they are drawn again, and compared."""

from __future__ import annotations

import importlib.util
import re
from html import unescape
from itertools import pairwise
from pathlib import Path

import pytest

DOCS = Path(__file__).parent.parent / "docs"
_spec = importlib.util.spec_from_file_location("pictures", DOCS / "pictures.py")
assert _spec is not None
assert _spec.loader is not None
pictures = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(pictures)


@pytest.mark.parametrize("name", pictures.STORIES)
def test_a_picture_shows_what_the_store_does(name: str) -> None:
    """`make reference` draws it."""
    assert (DOCS / "pictures" / f"{name}.svg").read_text(encoding="utf-8") == pictures.picture(name)


@pytest.mark.parametrize("name", pictures.STORIES)
def test_a_picture_can_be_read_on_a_phone(name: str) -> None:
    """It is as wide as the text there, no letters are small, and every line fits."""
    picture = pictures.picture(name)
    assert 'viewBox="0 0 328 ' in picture
    assert 12 <= min(map(int, re.findall(r"(\d+)px", picture)))
    texts = re.findall(r'<text class="(\w)" x="(\d+)" y="(\d+)"[^>]*>([^<]*)<', picture)
    widths = {"m": 7.25, "t": 7.25, "n": 6.5, "b": 7.2, "k": 6.5}
    rows: dict[str, list[tuple[float, float]]] = {}
    for style, x, y, content in texts:
        width = len(unescape(content)) * widths[style]
        left = int(x) - width if style == "k" else int(x)
        assert 0 < left < left + width < 328, content
        rows.setdefault(y, []).append((left, left + width))
    for row in rows.values():
        assert all(end < left for (_, end), (left, _) in pairwise(sorted(row)))


def test_a_long_line_is_cut_where_it_can_be_read() -> None:
    line = '--- [["set",[],"alice",20],["set",[],"bob",10]]'
    assert ['--- [["set",[],"alice",20],', '↳ ["set",[],"bob",10]]'] == pictures.pieces(line)
    assert ["alice: 30"] == pictures.pieces("alice: 30")


@pytest.mark.parametrize("name", pictures.STORIES)
def test_a_picture_never_shows_half_a_payment(name: str) -> None:
    """A program that opens the files at any step finds all of a transaction, or nothing of it."""
    found = [re.findall(r"\d+", pictures.seen(step.files)) for step in pictures.STORIES[name]()]

    # In the picture of a commit, the last step gives Bob two more.
    assert {tuple(map(int, amounts[:2])) for amounts in found} <= {(30, 0), (20, 10), (15, 15), (20, 12)}
    assert 1 < len({tuple(amounts) for amounts in found}) or name == "vacuum"


def test_what_is_torn_is_shown_as_torn() -> None:
    """And only that: the steps of a commit and of a crash that are cut short, and no other line."""
    torn = [
        (name, number, line)
        for name, story in pictures.STORIES.items()
        for number, step in enumerate(story(), 1)
        for path, data in step.files.items()
        for line, kind in pictures.kinds(path, data, None)
        if kind == "torn"
    ]

    assert [("commit", 2), ("commit", 2), ("crash", 1)] == [(name, number) for name, number, _ in torn]
    assert not torn[-1][2].endswith("]]")


def test_every_picture_is_on_the_page() -> None:
    page = (DOCS / "concepts.md").read_text(encoding="utf-8")

    assert sorted(pictures.STORIES) == sorted(re.findall(r"\(pictures/(\w+)\.svg\)", page))
