"""The site on a phone and on a desk, in a real browser. Set PSTATE_SCREENSHOTS to a folder to keep the screenshots.

Skipped where Chromium, or what builds the site, is not installed: `apt-get install chromium`, `make .venv/has-docs`.
"""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from tools.browser import Browser, chromium

ROOT = Path(__file__).parent.parent
PAGES = ["index", "tutorial", "guarantees", "concepts", "performance", "cli", "reference", "howto/postgres"]
PHONE, DESK = 360, 1280

PROGRAM = chromium()
WHY_NOT = (
    "Chromium is not installed"
    if PROGRAM is None
    else ""
    if importlib.util.find_spec("mkdocs")
    else "mkdocs is not installed: make .venv/has-docs"
)

pytestmark = [
    pytest.mark.skipif(bool(WHY_NOT), reason=WHY_NOT),
    pytest.mark.timeout(300),  # the site is built in a quarter of a minute, or in a whole one on a busy machine
]

#: What is wider than the screen, except what scrolls in a box of its own.
WIDER = """
[...document.querySelectorAll(".md-content *")].filter(element => {
  if (element.getBoundingClientRect().right <= screen.width) return false;
  for (let box = element.parentElement; box; box = box.parentElement)
    if (["auto", "scroll", "hidden"].includes(getComputedStyle(box).overflowX)) return false;
  return true;
}).map(element => element.outerHTML.slice(0, 80))
"""
PICTURES = """
Promise.all([...document.querySelectorAll(".md-content img")].map(async picture => {
  picture.loading = "eager";
  await picture.decode();
  return [picture.getAttribute("src"), picture.getBoundingClientRect().width / picture.naturalWidth];
}))
"""


@pytest.fixture
def browser() -> Iterator[Browser]:
    assert PROGRAM is not None
    with Browser(PROGRAM) as browser:
        yield browser


def kept(tmp_path: Path) -> Path:
    """The folder for the screenshots."""
    folder = Path(os.environ.get("PSTATE_SCREENSHOTS", tmp_path / "screenshots"))
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def test_the_pages_are_legible_on_a_phone_and_on_a_desk(browser: Browser, tmp_path: Path) -> None:
    """Nothing is wider than the screen but what scrolls in a box of its own, and no picture has tiny letters.

    One test, so that the site is built once.
    """
    site, screenshots = tmp_path / "site", kept(tmp_path)
    subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--quiet", "--site-dir", site],
        cwd=ROOT,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
        check=True,
    )
    wrong: list[object] = []
    shown = 0
    for page in PAGES:
        for width in (PHONE, DESK):
            browser.show(site / f"{page}.html", width)
            browser.screenshot(screenshots / f"{page.replace('/', '-')}-{width}.png")
            wide = browser.value("document.scrollingElement.scrollWidth")
            assert browser.value("screen.width") == width
            if wide > width:
                wrong.append((page, width, wide, browser.value(WIDER)))
            pictures = browser.value(PICTURES)
            wrong += [(page, width, name, scale) for name, scale in pictures if scale < 0.79]
            shown += len(pictures)

    assert shown >= 8
    assert [] == wrong


def test_a_page_that_is_too_wide_is_found_out(browser: Browser, tmp_path: Path) -> None:
    """A check that cannot fail would prove nothing."""
    page = tmp_path / "wide.html"
    page.write_text(
        '<meta name="viewport" content="width=device-width">'
        '<div class="md-content"><p><b style="display:block;width:500px">wide</b></p>'
        '<p style="overflow-x:auto"><i style="display:block;width:700px">scrolls</i></p></div>'
    )

    browser.show(page, PHONE)

    assert browser.value("document.scrollingElement.scrollWidth") > PHONE
    assert [element[:2] for element in browser.value(WIDER)] == ["<b"]
