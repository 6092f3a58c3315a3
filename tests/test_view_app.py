"""The screen of `pstate view`, driven by textual's pilot: what it shows, and what the keys do."""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("textual", reason="textual is not installed: pip install textual")

from textual import events
from textual.pilot import Pilot

from pstate import PersistedState
from pstate.cli.view.app import ViewApp
from pstate.cli.view.following import Follower
from pstate.cli.view.model import Model

PATIENCE = 30.0
CONTENT = "counter: 3\njobs:\n  - {name: wash, tries: 0}\n  - {name: dry, tries: 2}\nseen: !!set {a: null}\n"


class Arguments:
    def __init__(self, path: Path, lock_timeout: float = 10.0) -> None:
        self.file, self.durability, self.lock_timeout, self.locking = str(path), None, lock_timeout, "file"


class Shown:
    """A view on a simulated screen."""

    def __init__(self, app: ViewApp, pilot: Pilot[int], path: Path) -> None:
        self.app = app
        self.pilot = pilot
        self.path = path

    def lines(self) -> list[str]:
        return [strip.text.rstrip() for strip in self.app.screen._compositor.render_strips()]

    def text(self) -> str:
        return "\n".join(self.lines())

    async def until(self, condition: Callable[[], Any]) -> None:
        deadline = time.monotonic() + PATIENCE
        while not condition():
            assert time.monotonic() < deadline, self.text()
            await self.pilot.pause(0.02)

    async def sees(self, *texts: str) -> None:
        await self.until(lambda: all(text in self.text() for text in texts))

    async def press(self, *keys: str) -> None:
        await self.pilot.press(*keys)


@contextlib.asynccontextmanager
async def viewing(
    path: Path,
    content: str = CONTENT,
    size: tuple[int, int] = (80, 24),
    place: list[Any] | None = None,
    lock_timeout: float = 10.0,
) -> AsyncIterator[Shown]:
    path.write_text(content, encoding="utf-8")
    follower = Follower(PersistedState.open(path, read_only=True), str(path))
    app = ViewApp(Model(follower.document, place or [], path.name), follower, Arguments(path, lock_timeout))
    follower.start()
    try:
        async with app.run_test(size=size) as pilot:
            shown = Shown(app, pilot, path)
            await shown.until(lambda: len(shown.lines()) > 1 and shown.lines()[1].strip())
            yield shown
    finally:
        follower.end()
    assert not follower.is_alive()


Body = Callable[[Path], Coroutine[Any, Any, None]]


def on_screen(body: Body) -> Callable[[Path], None]:
    """Make a test of a coroutine: the plugin that would is not needed for more."""

    def test(tmp_path: Path) -> None:
        asyncio.run(body(tmp_path / "state.yaml"))

    test.__name__, test.__doc__, test.__module__ = body.__name__, body.__doc__, body.__module__
    return test


@on_screen
async def test_it_shows_the_state_and_the_keys(path: Path) -> None:
    async with viewing(path) as view:
        assert "▾ state.yaml  3 keys" == view.lines()[1]
        assert "    counter  3" == view.lines()[2]
        keys = ("/ Filter", "e Edit", "j Time line", "? Help", "q Quit")
        await view.until(lambda: all(key in view.lines()[-1] for key in keys))


@on_screen
async def test_commits_and_edits_come_by_themselves_and_say_whose_they_are(path: Path) -> None:
    async with viewing(path) as view:
        with PersistedState(path) as state:
            state.counter = 4
            await view.sees("counter  4", "~ other")
            state.vacuum()
            path.write_text(path.read_text().replace("counter: 4", "counter: 5"))
            await view.sees("counter  5", "~ edit", "1 edit")
        line = next(line for line in view.lines() if "counter" in line)
        assert line.rstrip()[-8:].count(":") == 2  # the time


@on_screen
async def test_arrows_enter_and_space_open_and_close(path: Path) -> None:
    async with viewing(path) as view:
        await view.press("down", "down", "enter")
        await view.sees("▾ jobs  2 elements", '▸ 0  {name: "wash", tries: 0}')
        await view.press("down", "right")
        await view.sees('name  "wash"')
        await view.press("right")
        assert ("jobs", 0, "name") == view.app.model.cursor.path
        await view.press("left", "left", "left", "left")
        await view.until(lambda: "▸ jobs" in view.text())
        await view.press("end")
        assert ("seen",) == view.app.model.cursor.path
        await view.press("space")
        await view.sees("▾ seen  1 member")
        await view.press("home", "pagedown", "pageup", "up")
        assert () == view.app.model.cursor.path


@on_screen
async def test_the_filter_shows_what_is_typed_and_escape_all_rows(path: Path) -> None:
    async with viewing(path) as view:
        await view.press("slash", *"dry")
        await view.sees('name  "dry"', "“dry”: 3 rows")
        assert "counter" not in view.text()
        await view.press("enter")
        assert "tree" == view.app.focused.id
        await view.press("down", "down", "down")
        await view.press("escape")
        await view.sees("counter  3", 'name  "dry"')  # what the cursor is on stays in sight
        await view.press("slash", "x", "escape")
        await view.sees("counter  3")


@on_screen
async def test_a_value_is_edited_as_one_commit(path: Path) -> None:
    async with viewing(path) as view:
        await view.press("down", "e")
        await view.sees("counter =", "= int 3")
        await view.press("backspace", *"12:30")
        await view.sees("= int 750")  # what it means is shown before it is committed
        await view.press("enter")
        await view.sees("counter  750", "~ here", "counter is 750 now")
        await view.until(lambda: path.read_text().startswith("counter: 750\njobs:"))  # no journal is left
        assert "tree" == view.app.focused.id


@on_screen
async def test_keys_that_come_at_once_are_taken_in_their_order(path: Path) -> None:
    """A terminal under load, and a paste, hand over many at a time; a key that deletes must not come late."""
    async with viewing(path) as view:
        await view.press("down", "e")
        await view.until(lambda: view.app.focused.id == "typed")
        for key, character in (("backspace", None), ("4", "4"), ("home", None), ("1", "1"), ("enter", None)):
            view.app.post_message(events.Key(key, character))
        await view.sees("counter  14")


@on_screen
async def test_wrong_yaml_is_shown_where_it_is_typed(path: Path) -> None:
    async with viewing(path) as view:
        await view.press("down", "e", "backspace", *"[1, 2")
        await view.sees("VALUE", "not YAML")
        await view.press("enter")
        await view.sees("not YAML")
        assert view.app.saving is None
        await view.press("right_square_bracket", "enter")
        await view.sees("counter  [1, 2]")


@on_screen
async def test_what_another_has_committed_in_between_is_not_overwritten(path: Path) -> None:
    async with viewing(path) as view:
        with PersistedState(path) as state:
            await view.press("down", "e")
            state.counter = 9
            await view.press("backspace", "7", "enter")
            await view.sees("counter is 9 by now. Nothing was changed. ⏎ again replaces it.")
            assert 9 == state.counter
            await view.press("enter")
            await view.sees("counter is 7 now")
            assert 7 == state.counter
            await view.press("e", "backspace", "8")
            state.counter = 10
            await view.press("enter")
            await view.sees("counter is 10 by now")
            await view.press("escape")
            assert 10 == state.counter


@on_screen
async def test_another_s_transaction_keeps_no_key_waiting(path: Path) -> None:
    """Not even while an edit waits for it."""
    async with viewing(path, lock_timeout=4) as view:
        with PersistedState(path) as state:
            state.counter = 4
            await view.sees("counter  4")
            entered, leave = threading.Event(), threading.Event()

            def hold() -> None:
                with state.transaction():
                    entered.set()
                    leave.wait(PATIENCE)

            thread = threading.Thread(target=hold)
            thread.start()
            entered.wait(PATIENCE)
            try:
                await view.press("down", "e", "backspace", "5", "enter")
                await view.sees("Waiting for the lock")
                await view.press("escape", "down", "enter")
                await view.sees("▾ jobs")
                await view.until(lambda: view.app.saving is None)
                await view.sees("Nothing was done")  # its outcome is told all the same
            finally:
                leave.set()
                thread.join()
            assert 4 == state.counter


@on_screen
async def test_what_cannot_be_edited_says_why(path: Path) -> None:
    async with viewing(path, "long: " + "x" * 20_000 + "\nset: !!set {a: null}\n") as view:
        await view.press("e")
        await view.sees("pstate edit")
        await view.press("down", "e")
        await view.sees("long is too long for one line")
        await view.press("down", "enter", "down", "e")
        await view.sees("The member of a set has no value of its own")


@pytest.mark.parametrize("why", ["", "you may not write to the file"])
def test_a_file_that_may_not_be_written_is_only_looked_at(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, why: str
) -> None:
    monkeypatch.setattr("pstate.cli.view.editing.why_not", lambda file: why)

    async def body() -> None:
        async with viewing(tmp_path / "state.yaml") as view:
            assert ("read-only" in view.lines()[0]) == bool(why)
            assert ("Read-only: you may not write" in view.text()) == bool(why)
            await view.press("down", "e")
            await view.sees("Nothing can be edited here" if why else "counter =")

    asyncio.run(body())


@on_screen
async def test_the_time_line_shows_what_comes_and_leads_to_it(path: Path) -> None:
    async with viewing(path) as view:
        with PersistedState(path) as state:
            with state.transaction():
                state.jobs[1].tries = 3
                state.counter = 4
            await view.press("j")
            await view.sees("other     1 ~ jobs[1].tries  2 -> 3", "~ counter  3 -> 4")
            assert "time" == view.app.focused.id
            await view.press("up", "enter")
            assert ("jobs", 1, "tries") == view.app.model.cursor.path
            assert "tree" == view.app.focused.id
            await view.press("j")
            await view.until(lambda: "jobs[1].tries  2 -> 3" not in view.text())


@on_screen
async def test_help_explains_keys_and_marks_while_things_go_on(path: Path) -> None:
    async with viewing(path) as view:
        await view.press("question_mark")
        await view.sees("by another program")
        with PersistedState(path) as state:
            state.counter = 4
            await view.until(lambda: view.app.model.commits == 1)
        await view.press("escape")
        await view.sees("counter  4")


@on_screen
async def test_a_file_that_is_deleted_and_comes_back_is_told(path: Path) -> None:
    async with viewing(path, size=(200, 24)) as view:
        path.unlink()
        await view.sees("was deleted", "counter  3")
        path.write_text("counter: [\n")
        await view.sees("not YAML", "counter  3")
        path.write_text("counter: 5\n")
        await view.sees("counter  5")
        await view.until(lambda: "not YAML" not in view.text())
        await view.press("j")
        await view.sees("the file is good again")


NASTY = (
    "'[red]k[/red]': '[bold]v[/bold]'\n\"\\e[2J\": \"\\a\\0\\u202eright\"\n漢字: 👨\u200d👩\u200d👧\nlong: "
    + "x" * 5_000
    + "\n"
)


@pytest.mark.parametrize("width", [1, 5, 20, 33, 47, 80, 200])
def test_values_are_shown_as_they_are_at_any_width(tmp_path: Path, width: int) -> None:
    """Markup is text, and nothing of a value gets to the terminal that moves anything."""

    async def body() -> None:
        async with viewing(tmp_path / "state.yaml", NASTY, size=(width, 14)) as view:
            with PersistedState(tmp_path / "state.yaml") as state:
                state["deep"] = [[[[[[[["bottom"]]]]]]]]
                state["new"] = "[red]x"
                await view.until(lambda: view.app.model.commits >= 2)
            await view.press("end", "up", *["right"] * 16, "j", "question_mark", "escape", "j", "e", "escape")
            for line in view.lines():
                assert not any(ord(character) < 32 or character in "\u202e\u200d\x7f" for character in line)
            for strip in view.app.screen._compositor.render_strips():
                assert strip.cell_length <= width
            if width >= 80:
                await view.press("home")
                await view.sees('"[red]k[/red]"  "[bold]v[/bold]"', '"\\u001b[2J"', "漢字", "\\u200d")

    asyncio.run(body())


def test_without_colours_there_are_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")

    async def body() -> None:
        async with viewing(tmp_path / "state.yaml") as view:
            with PersistedState(tmp_path / "state.yaml") as state:
                state.counter = 4
                await view.sees("counter  4")
            for strip in view.app.screen._compositor.render_strips():
                for segment in strip.apply_filter(view.app.get_line_filters()[-1], view.app.screen.styles.background):
                    for colour in (segment.style.color, segment.style.bgcolor) if segment.style else ():
                        assert colour is None or colour.is_default

    asyncio.run(body())


#: A busy machine may keep the view from running for longer than a close waits for it. Then commits would come as one.
WRITER = """
import sys
from pstate import PersistedState
from pstate.file import vacuum
vacuum.WATCHERS_AT_MOST = 30.0
with PersistedState.open(sys.argv[1], lock_timeout=60.0) as state:
    for number in range(1, 2001):
        state[sys.argv[2]] = number
"""


@on_screen
async def test_three_programs_that_commit_as_fast_as_they_can_are_counted_and_keep_no_key_waiting(path: Path) -> None:
    async with viewing(path, "a: 0\nb: 0\nc: 0\n") as view:
        programs = [subprocess.Popen([sys.executable, "-c", WRITER, str(path), key]) for key in "abc"]
        pressed = 0
        while any(program.poll() is None for program in programs):
            await view.press("down" if pressed % 2 else "up")
            pressed += 1
        assert [0, 0, 0] == [program.returncode for program in programs]
        await view.sees("a  2000", "b  2000", "c  2000")
        await view.until(lambda: view.app.model.commits >= 6000)

    assert 6000 == view.app.model.commits
    assert pressed


def test_an_error_in_the_thread_that_follows_ends_the_view(tmp_path: Path) -> None:
    """It would look as if nothing happened any more."""

    async def body() -> None:
        async with viewing(tmp_path / "state.yaml") as view:
            view.app.source.failure = RuntimeError("planted")
            await view.until(lambda: not view.app.is_running)

    with pytest.raises(RuntimeError, match="planted"):
        asyncio.run(body())
