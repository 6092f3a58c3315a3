"""The recording of `pstate view` shows what it really does: it is drawn again, and compared."""

from __future__ import annotations

import importlib.util
import re
import xml.etree.ElementTree as ET
from importlib.metadata import version
from pathlib import Path

import pytest

pytest.importorskip("textual", reason="textual is not installed: pip install textual")

DOCS = Path(__file__).parent.parent / "docs"
PICTURE = (DOCS / "pictures" / "view.svg").read_text(encoding="utf-8")
_spec = importlib.util.spec_from_file_location("recording", DOCS / "recording.py")
assert _spec is not None
assert _spec.loader is not None
recording = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(recording)


def test_the_recording_shows_what_the_view_does() -> None:
    """`make reference` draws it."""
    drawn_with = re.search(r"<!-- textual (\S+) -->", PICTURE)
    assert drawn_with is not None
    if drawn_with[1] != version("textual"):
        pytest.skip(f"the recording was drawn with textual {drawn_with[1]}, and another one draws some lines otherwise")
    assert PICTURE == recording.recording()


def test_the_recording_needs_nothing_from_elsewhere_and_shows_one_picture_where_nothing_moves() -> None:
    root = ET.fromstring(PICTURE)
    groups = [group for group in root.iter("{http://www.w3.org/2000/svg}g") if "id" in group.attrib]

    assert 1 == [group.get("opacity") for group in groups].count("1")
    assert "http" not in PICTURE.replace("http://www.w3.org/2000/svg", "")
    assert "@import" not in PICTURE
    assert len(PICTURE) < 100_000


def test_the_recording_can_be_read_on_a_phone() -> None:
    """At 360 pixels, less the margins of a page, a character is tall enough."""
    root = ET.fromstring(PICTURE)
    assert recording.SIZE * 330 / float(root.attrib["width"]) > 10
