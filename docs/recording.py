"""Draw docs/pictures/view.svg, a recording of `pstate view`, from a real run of it: `make reference`.

Programs, a person with an editor and a person at the keys change a real file; only the clock is a made-up one. The
pictures of the screen follow each other as in a film. Where nothing moves (a printer, or a reader who has asked for
that), one of them is shown. tests/test_view_recording.py draws it again and compares.
"""

from __future__ import annotations

import asyncio
import logging
import tempfile
from collections import deque
from collections.abc import AsyncIterator
from html import escape
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

from rich.style import Style
from textual.pilot import Pilot
from textual.widgets import Input

from pstate import PersistedState
from pstate.cli.view.app import ViewApp
from pstate.cli.view.following import Feed, News
from pstate.cli.view.model import Model
from pstate.memory.changes import grown

TARGET = Path(__file__).parent / "pictures" / "view.svg"
COLUMNS, ROWS = 48, 17
NOON = 12 * 3600.0
CONTENT = """\
# what the three workers do
limits: {disk: 20, retries: 3}
jobs:
  - {name: wash, done: 40}
  - {name: dry, done: 7}
  - {name: iron, done: 0}
workers: {ada: 12, bob: 9, cleo: 14}
note: ready
"""


class Picture(NamedTuple):
    """The screen at one moment, for how many seconds it is shown, and what is said of it."""

    caption: str
    seconds: float
    rows: list[list[tuple[str, Style]]]


# ------------------------------------------------------------------ what happens


class Clock:
    """The time of the film."""

    def __init__(self) -> None:
        self.now = NOON + 4 * 60

    def __call__(self) -> float:
        return self.now


class Source:
    """What the view follows: as a `Follower`, but when it is asked to, and by the clock of the film."""

    def __init__(self, path: Path, clock: Clock) -> None:
        self.state = PersistedState.open(path, read_only=True)
        self.feed = Feed(self.state)
        self.news: deque[News] = deque()
        self.trouble = ""
        self.failure: BaseException | None = None
        self._clock = clock

    def look(self) -> int:
        """Hear of what has come; returns how much that is."""
        found = [news._replace(time=self._clock()) for news in self.feed.news()]
        self.news.extend(found)
        return len(found)

    def close(self) -> None:
        self.feed.close()
        self.state.close()


class Arguments:
    """The command line."""

    def __init__(self, path: Path) -> None:
        self.file, self.durability, self.lock_timeout, self.locking = str(path), None, 10.0, "file"


def time_of_day(seconds: float) -> str:
    """The time in the film, wherever that is drawn."""
    minutes, second = divmod(int(seconds), 60)
    return f"{minutes // 60:02}:{minutes % 60:02}:{second:02}"


class Film:
    """The view of one file, and what is done to it."""

    def __init__(self, app: ViewApp, pilot: Pilot[int], source: Source, clock: Clock, programs: Any) -> None:
        self.programs = programs
        self.app = app
        self.pilot = pilot
        self.source = source
        self.clock = clock

    async def heard(self, number: int) -> None:
        """Wait until *number* commits or edits have come, and show them."""
        while number > 0:
            self.programs.snapshot()  # they are at work, so they find what an editor saves
            number -= self.source.look()
            await self.pilot.pause(0.01)
        await self.settled()

    async def settled(self) -> None:
        self.app.frame()
        while self.source.news or self.app.saving is not None or self.is_looking:
            await self.pilot.pause(0.01)
            self.app.frame()
        for _ in range(3):
            await self.pilot.pause()
        self.app.frame()
        await self.pilot.pause()

    @property
    def is_looking(self) -> bool:
        looked_for = self.app.model.filter
        return looked_for is not None and not looked_for.is_done

    async def press(self, *keys: str) -> None:
        await self.pilot.press(*keys)
        await self.settled()

    def picture(self, caption: str, seconds: float) -> Picture:
        rows = []
        for strip in self.app.screen._compositor.render_strips():
            rows.append([(segment.text, segment.style or Style()) for segment in strip])
        return Picture(caption, seconds, rows)


async def pictures(folder: Path) -> list[Picture]:
    """The whole film, on a file in *folder*."""
    path, clock = folder / "laundry.yaml", Clock()
    path.write_text(CONTENT, encoding="utf-8")
    source = Source(path, clock)
    app = ViewApp(Model(grown(source.feed.document), [], path.name, clock), source, Arguments(path), clock, time_of_day)
    try:
        with PersistedState(path) as programs:
            async with app.run_test(size=(COLUMNS, ROWS)) as pilot:
                app.query_one(Input).cursor_blink = False
                film = Film(app, pilot, source, clock, programs)
                return [picture async for picture in scenes(film, programs, path)]
    finally:
        source.close()


async def scenes(film: Film, programs: Any, path: Path) -> AsyncIterator[Picture]:
    """What happens, one picture after the other."""
    clock = film.clock
    await film.press("down", "down", "enter")
    yield film.picture("A state, as a tree", 2.5)

    for step, seconds in enumerate((1.2, 1.2, 2.0), 1):
        clock.now += 1
        with programs.transaction():
            programs.jobs[0].done += 1
            programs.workers.ada += 1
        programs.jobs[1].done += 3
        if step == 2:
            programs.workers.cleo += 1
        await film.heard(3 if step == 2 else 2)
        yield film.picture("Programs commit; the view follows", seconds)

    clock.now += 4
    path.write_text(path.read_text(encoding="utf-8").replace("disk: 20", "disk: 80"), encoding="utf-8")
    await film.heard(1)
    yield film.picture("Somebody saves the file in an editor", 3.0)

    clock.now += 5
    await film.press("end", "e", *["backspace"] * len('"ready"'), *"{shift: late, left: 3")
    yield film.picture("e edits a value: wrong YAML is shown", 3.0)
    await film.press("right_curly_bracket")
    yield film.picture("… and what it means, before the commit", 2.5)

    await film.press("enter")
    clock.now += 1
    await film.heard(1)
    yield film.picture("One commit, and it is marked as yours", 3.0)

    clock.now += 2
    programs.jobs.append({"name": "fold", "done": 0})
    await film.heard(1)
    await film.press("j")
    yield film.picture("j shows the journal as a time line", 4.0)

    clock.now += 40
    await film.press("j", "slash", *"done")
    yield film.picture("/ filters by path and by value", 3.0)


# ------------------------------------------------------------------ how it is drawn

CELL, LINE, SIZE, MARGIN, BAR, FOOT = 10.2, 23, 17, 12, 34, 42
GROUND = "#14181f"
#: The number of the picture that is shown where nothing moves.
STILL = 8


def svg(film: list[Picture]) -> str:
    """The pictures of *film*, one after the other."""
    width, height = COLUMNS * CELL + 2 * MARGIN, BAR + ROWS * LINE + FOOT
    length = sum(picture.seconds for picture in film)
    styles: dict[str, str] = {}
    groups, rules, begin = [], [], 0.0
    for number, picture in enumerate(film):
        end = begin + picture.seconds
        rules.append(shown(number, begin / length * 100, end / length * 100))
        begin = end
        groups.append(f'<g id="p{number}" opacity="{int(number == STILL)}">\n{drawn(picture, height, styles)}</g>\n')
    names = "".join(f".{name}{{{rule}}}\n" for rule, name in styles.items())
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:g} {height:g}" width="{width:g}" '
        f'height="{height:g}" role="img" aria-label="A recording of pstate view">\n'
        f"<!-- textual {version('textual')} -->\n"
        "<style>\n"
        "g rect{shape-rendering:crispEdges}\n"
        f"text{{font:{SIZE}px ui-monospace,'DejaVu Sans Mono',Menlo,Consolas,monospace;white-space:pre}}\n"
        ".c{font:600 17px system-ui,'DejaVu Sans',sans-serif;fill:#e4e8ef;text-anchor:middle}\n"
        f".w{{font-size:15px;fill:#9aa6b8}}\n{names}"
        f"@media (prefers-reduced-motion:no-preference){{\n{''.join(rules)}"
        f"g{{animation-duration:{length:g}s;animation-iteration-count:infinite;animation-timing-function:step-end}}\n}}\n"
        "</style>\n"
        f'<rect width="{width:g}" height="{height:g}" rx="9" fill="#0c0f14"/>\n'
        f'<rect x="{MARGIN}" y="{BAR}" width="{COLUMNS * CELL:g}" height="{ROWS * LINE}" fill="{GROUND}"/>\n'
        + "".join(
            f'<circle cx="{20 + 20 * number}" cy="{BAR / 2:g}" r="6" fill="{colour}"/>\n'
            for number, colour in enumerate(("#f2a6d8", "#f0c987", "#8bd49c"))
        )
        + f'<text class="w" x="84" y="{BAR / 2 + 5:g}">$ pstate view laundry.yaml</text>\n'
        + "".join(groups)
        + "</svg>\n"
    )


def shown(number: int, begin: float, end: float) -> str:
    """The rules that show picture *number* from *begin* to *end*, in percent of the film."""
    before = "0%{opacity:0}" if begin else ""
    after = f"{end:.2f}%{{opacity:0}}" if end < 99.99 else ""
    return (
        f"#p{number}{{animation-name:k{number}}}\n"
        f"@keyframes k{number}{{{before}{begin:.2f}%{{opacity:1}}{after}100%{{opacity:{int(not after)}}}}}\n"
    )


class Box(NamedTuple):
    """The background of some characters."""

    x: float
    y: int
    width: float
    back: str


def drawn(picture: Picture, height: float, styles: dict[str, str]) -> str:
    """The rows of *picture*, with the caption below; each style that is new goes into *styles*."""
    boxes: list[Box] = []
    texts: list[str] = []
    for row, segments in enumerate(picture.rows):
        x, y = float(MARGIN), BAR + row * LINE
        for text, style in segments:
            width = len(text) * CELL
            front, back = colours(style)
            if boxes and boxes[-1].y == y and boxes[-1].back == back:
                boxes[-1] = boxes[-1]._replace(width=boxes[-1].width + width)
            else:
                boxes.append(Box(x, y, width, back))
            if text.strip():
                # From the first character to the last one: where it begins and how long it is holds for any font.
                bare = text.strip(" ")
                at = x + (len(text) - len(text.lstrip(" "))) * CELL
                weight = ";font-weight:700" if style.bold else ""
                slant = ";font-style:italic" if style.italic else ""
                texts.append(
                    f'<text x="{at:g}" y="{y + 17}" textLength="{len(bare) * CELL:g}" lengthAdjust="spacingAndGlyphs" '
                    f'class="{name(styles, front + weight + slant)}">{escape(bare, quote=False)}</text>\n'
                )
            x += width
    words = (
        f'<text class="c" x="{COLUMNS * CELL / 2 + MARGIN:g}" y="{height - 15:g}">{escape(picture.caption)}</text>\n'
    )
    behind = "".join(
        f'<rect x="{box.x:g}" y="{box.y}" width="{box.width:g}" height="{LINE}" class="{name(styles, box.back)}"/>\n'
        for box in boxes
        if box.back != f"fill:{GROUND}"
    )
    return behind + "".join(texts) + words


def colours(style: Style) -> tuple[str, str]:
    """The colors of *style*: of the characters, and of their background."""
    front = style.color.get_truecolor().hex if style.color is not None else "#e4e8ef"
    back = style.bgcolor.get_truecolor().hex if style.bgcolor is not None else GROUND
    if style.reverse:
        front, back = back, front
    return f"fill:{front}", f"fill:{back}"


def name(styles: dict[str, str], rule: str) -> str:
    """The class for *rule*."""
    return styles.setdefault(rule, f"s{len(styles)}")


def recording() -> str:
    with tempfile.TemporaryDirectory() as folder:
        return svg(asyncio.run(pictures(Path(folder))))


if __name__ == "__main__":
    logging.getLogger("pstate").setLevel(logging.CRITICAL)  # that an edit is not understood at once is meant here
    TARGET.write_text(recording(), encoding="utf-8")
