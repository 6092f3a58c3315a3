"""The screen of `pstate view`: what is where, and what the keys do. All that may wait is in other threads."""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Callable
from typing import Any, ClassVar, Protocol

from textual import events
from textual.app import App, ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical, VerticalScroll
from textual.content import Content
from textual.screen import ModalScreen
from textual.widgets import Footer, Input, Static

from pstate.cli.view import editing, looks, painting
from pstate.cli.view.editing import Saving
from pstate.cli.view.following import News
from pstate.cli.view.model import Model
from pstate.cli.view.spots import NOTHING
from pstate.cli.view.widgets import TimeView, TreeView
from pstate.memory import ops
from pstate.memory.ops import ABSENT
from pstate.values import same

#: How long one picture is shown, and how much of that may be spent with what has come, in seconds.
FRAME, BUDGET = 1 / 12, 0.03
#: How long a message is shown, in seconds.
TOLD = 8.0

HELP = """\
 ↑ ↓ PgUp PgDn Home End   go there
 → ←        open, close; go in, go out
 Enter Space   open or close; in the time line: go there
 /          show only rows with all of these words in path or value; Esc: all rows
 e          edit the value: one commit, if it is still what was shown
 j          time line: the commits and edits, as they come
 Tab        tree, time line
 q Ctrl-C   quit

 ~ changed   + new   - something in it was deleted
 here    by this view          other   by another program
 edit    by a person who saved the file
 before  in the journal when the view began

 A mark is bright while it is new. A closed row shows the last change
 of all that is in it."""


class Source(Protocol):
    """Where the news come from: `Follower`, or a test."""

    news: deque[News]
    trouble: str
    failure: BaseException | None


def _oldest(waiting: deque[News]) -> News | None:
    """Take the oldest out of *waiting*. The thread that follows may take all of it at the same moment."""
    try:
        return waiting.popleft()
    except IndexError:
        return None


class Help(ModalScreen[None]):
    """The keys and the marks."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,q,question_mark,enter,space", "dismiss(None)", "Close", key_display="Esc")
    ]

    def compose(self) -> ComposeResult:
        with VerticalScroll(id="help"):
            yield Static(HELP, markup=False)
        yield Footer(show_command_palette=False, compact=True)


class Field(Input):
    """A line to type into that takes keys in the order in which they come.

    textual looks for the binding of a key when the key has gone up to the app, and inserts a character at once: of
    many keys that come together, a backspace would be carried out last.
    """

    BINDINGS: ClassVar[list[BindingType]] = [Binding("enter", "submit", "Done", key_display="⏎")]

    async def _on_key(self, event: events.Key) -> None:
        bindings = self._bindings.key_to_bindings.get(event.key)
        if bindings and not self.check_consume_key(event.key, event.character):
            event.stop()
            event.prevent_default()
            await self.run_action(bindings[0].action)
        else:
            await super()._on_key(event)


class Ask(Vertical):
    """One line to type into, with a line above and one below."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "app.leave_input", "Cancel", key_display="Esc"),
    ]

    def compose(self) -> ComposeResult:
        yield Static(id="asked", markup=False)
        yield Field(id="typed", compact=True, select_on_focus=False)
        yield Static(id="hint", markup=False)

    def ask(self, title: str, text: str, hint: str) -> None:
        """Begin."""
        self.display = True
        self.query_one("#asked", Static).update(Content(title))
        self.hint(hint)
        field = self.query_one(Input)
        field.value = text
        field.cursor_position = len(text)
        field.focus()

    def hint(self, text: str, is_bad: bool = False) -> None:
        """Say something below."""
        hint = self.query_one("#hint", Static)
        hint.set_class(is_bad, "bad")
        hint.update(Content(text))


class ViewApp(App[int]):
    """The view."""

    TITLE = "pstate view"
    ENABLE_COMMAND_PALETTE = False
    CSS = """
    Screen { layers: base; background: #14181f; color: #e4e8ef; }
    #head { height: 1; background: #223049; color: #e4e8ef; }
    #trouble { height: auto; max-height: 5; background: #5b2530; color: #ffe3e6; display: none; padding: 0 1; }
    #tree, #time { overflow-x: hidden; overflow-y: auto; scrollbar-size-vertical: 1; scrollbar-background: #1b222e;
        scrollbar-color: #4a5d80; scrollbar-color-hover: #7cb7ff; scrollbar-color-active: #7cb7ff;
        scrollbar-background-hover: #1b222e; scrollbar-background-active: #1b222e; }
    #tree { height: 1fr; background: #14181f; }
    #time { height: 40%; background: #101319; border-top: solid #33415c; display: none; }
    #detail { height: auto; max-height: 4; padding: 0 1; background: #1b222e; color: #9aa6b8; }
    #ask { height: auto; background: #1b222e; display: none; }
    #asked { height: 1; color: #9aa6b8; padding: 0 1; }
    #typed { background: #26324a; padding: 0 1; }
    #hint { height: auto; max-height: 4; color: #8bd49c; padding: 0 1; }
    #hint.bad, #detail.bad { color: #ff9aa8; }
    Help { align: center middle; }
    #help { width: 80; max-width: 100%; height: auto; max-height: 90%; background: #1b222e; border: round #4a5d80; }
    Footer { background: #223049; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("slash", "ask_filter", "Filter", key_display="/"),
        Binding("e", "edit", "Edit"),
        Binding("j", "toggle_time", "Time line"),
        Binding("question_mark", "help", "Help", key_display="?"),
        Binding("q", "leave", "Quit"),
        Binding("ctrl+c", "interrupt", "Quit", show=False, priority=True),
        Binding("ctrl+q", "leave", "Quit", show=False, priority=True),
        Binding("ctrl+z", "suspend_process", "Suspend", show=False),
        Binding("escape", "clear_filter", "All rows", show=False),
    ]

    def __init__(
        self,
        model: Model,
        source: Source,
        arguments: Any,
        clock: Callable[[], float] = time.time,
        zone: Callable[[float], str] = painting.clock_time,
    ) -> None:
        is_plain = "NO_COLOR" in os.environ
        super().__init__(ansi_color=True if is_plain else None)
        self.model = model
        self.source = source
        self.is_interrupted = False
        self.saving: Saving | None = None
        self._arguments = arguments
        self._clock = clock
        self._zone = zone
        self._refused = editing.why_not(arguments.file)
        self._tree = TreeView(model, clock, zone, is_plain)
        self._time = TimeView(model.timeline, clock, zone, is_plain)
        self._head = Static(id="head", markup=False)
        self._trouble = Static(id="trouble", markup=False)
        self._detail = Static(id="detail", markup=False)
        self._ask = Ask(id="ask")
        self._edited: tuple[tuple[Any, ...], Any] | None = None  #: where, and the value that was shown
        self._said = ""
        self._said_until = 0.0
        self._is_bad = False
        self._told_trouble = ""

    def compose(self) -> ComposeResult:
        yield self._head
        yield self._trouble
        yield self._tree
        yield self._time
        yield self._detail
        yield self._ask
        yield Footer(show_command_palette=False, compact=True)

    def on_mount(self) -> None:
        # What the package logs would be written across the screen.
        self.begin_capture_print(self)
        self._tree.focus()
        if self._refused:
            self.say(f"Read-only: {self._refused}", seconds=1e9)
        self.frame()
        self.set_interval(FRAME, self.frame)

    def on_print(self, event: events.Print) -> None:
        words = looks.safe(" ".join(event.text.split()))
        if words:
            self.model.timeline.say(self._clock(), words)
            if self.saving is not None:
                self.say(words, is_bad=True)

    # ------------------------------------------------------------------ each picture

    def frame(self) -> None:
        """Take the changes that have come, until the time of a frame is over, and show them."""
        if not self._tree.is_attached:
            return  # the end has begun
        source, model = self.source, self.model
        if source.failure is not None:
            raise source.failure
        until = time.perf_counter() + BUDGET
        while time.perf_counter() < until and (news := _oldest(source.news)) is not None:
            model.follow(news)
        model.look_on()
        self._hear_of_saving()
        self._show_head()
        self._show_trouble()
        self._show_detail()
        self._tree.sync()
        self._time.sync()

    def _show_head(self) -> None:
        model, waiting = self.model, len(self.source.news)
        value = model.value(model.top)
        parts = [looks.size(value) if isinstance(value, dict | list | set) else ""]
        if self._refused:
            parts.append("read-only")
        if model.filter is not None:
            found = max(0, len(model.filter.rows) - 1)
            more = "+" if model.filter.is_cut else "" if model.filter.is_done else "…"
            parts.append(f"“{looks.cut(looks.safe(model.filter.text), 20)}”: {found:,}{more} rows")
        if model.commits:
            rate = model.rate
            parts.append(
                f"{model.commits:,} commit{'s' * (model.commits != 1)}" + (f" {rate:,.0f}/s" if rate >= 1 else "")
            )
        if model.edits:
            parts.append(f"{model.edits:,} edit{'s' * (model.edits != 1)}")
        if waiting > 1_000:
            parts.append(f"{waiting:,} to come")
        name = looks.safe(os.path.basename(self._arguments.file))
        words = "  ·  ".join(filter(None, parts))
        dot = ("○", "#ff9aa8") if self.source.trouble else ("●", "#8bd49c")
        self._head.update(Content.assemble(" ", (dot[0], dot[1]), " ", (name, "bold"), "  ", (words, "#b6c2d6")))

    def _show_trouble(self) -> None:
        trouble = looks.safe(self.source.trouble.replace("\n", " "))
        if trouble != self._told_trouble:
            self._told_trouble = trouble
            self._trouble.display = bool(trouble)
            self._trouble.update(Content(trouble))
            self.model.timeline.say(self._clock(), trouble or "the file is good again")

    def _show_detail(self) -> None:
        detail = self._detail
        if self._said and time.monotonic() > self._said_until:
            self._said = ""
        detail.display = bool(self._said) or not self._ask.display
        detail.set_class(bool(self._said) and self._is_bad, "bad")
        if self._said:
            detail.update(Content(self._said))
            return
        spot = self.model.cursor
        words = looks.place(spot.path)
        mark = spot.mark
        if mark is not None:
            times = f", {mark.count:,} times" if mark.count > 1 else ""
            who = {"here": "here", "other": "by another program", "edit": "by an edit", None: ""}[mark.origin]
            what = {"+": "new", "~": "changed", "-": "something deleted"}[mark.sign]
            words += f"  {what} {who} at {self._zone(mark.time)}{times}"
        detail.update(Content(words))

    def say(self, words: str, is_bad: bool = False, seconds: float = TOLD) -> None:
        """Show *words* for a while."""
        self._said, self._is_bad, self._said_until = words, is_bad, time.monotonic() + seconds

    # ------------------------------------------------------------------ the keys

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """What the keys at the bottom of the screen may do: to type is not to begin to."""
        return not (action == "ask_filter" and self._ask.display)

    def action_help(self) -> None:
        self.push_screen(Help())

    def action_leave(self) -> None:
        self.exit(0)

    def action_interrupt(self) -> None:
        self.is_interrupted = True
        self.exit(0)

    def action_toggle_time(self) -> None:
        self._time.display = not self._time.display
        (self._time if self._time.display else self._tree).focus()
        self._time.sync(is_moved=True)

    def on_time_view_chosen(self, event: TimeView.Chosen) -> None:
        self._tree.focus()
        if not self.model.show(event.path):
            self.say(f"{looks.place(event.path)} no longer exists")
        self._tree.sync(is_moved=True)

    def action_ask_filter(self) -> None:
        text = self.model.filter.text if self.model.filter is not None else ""
        self._edited = None
        self._said = ""
        self._ask.ask("Filter, by words in path or value:", text, "")

    def action_clear_filter(self) -> None:
        self.model.look_for("")
        self._tree.sync(is_moved=True)

    def action_edit(self) -> None:
        path = self.model.cursor.path
        value = self.model.value(path)
        problem = self._refused and f"Nothing can be edited here: {self._refused}."
        if not path:
            problem = "The whole state is edited with: pstate edit"
        elif value is NOTHING:
            problem = f"Nothing is at {looks.place(path)} now."
        elif isinstance(self.model.value(path[:-1]), set):
            problem = "The member of a set has no value of its own: edit the set."
        elif self.saving is not None:
            problem = "The edit before is not committed yet: another program is writing."
        text = None if problem else looks.whole(value)
        if text is None:
            self.say(problem or f"{looks.place(path)} is too long for one line. Edit it with: pstate edit", is_bad=True)
            return
        self._edited = path, _plain(value)
        self._said = ""
        self._ask.ask(f"{looks.place(path)} =", text, self._meaning(text)[0])

    def action_leave_input(self) -> None:
        if self._edited is None:
            self.action_clear_filter()
        self._end_input()

    def _end_input(self) -> None:
        self._edited = None
        self._ask.display = False
        self._tree.focus()

    def on_input_changed(self, event: Input.Changed) -> None:
        if not self._ask.display:
            return
        if self._edited is None:
            self.model.look_for(event.value)
        else:
            self._ask.hint(*self._meaning(event.value))

    def on_input_submitted(self, event: Input.Submitted) -> None:
        if self._edited is None:
            self._end_input()
            return
        reading = editing.read(event.value)
        if reading.problem or self.saving is not None:
            return  # it is said below the line
        path, shown = self._edited
        if same(shown, reading.value):
            self._end_input()
            self.say(f"{looks.place(path)} is as it was: nothing to commit")
            return
        self._ask.hint("Waiting for the lock, to commit …")
        self.saving = Saving(self._arguments, path, shown, reading.value)
        self.saving.start()

    @staticmethod
    def _meaning(text: str) -> tuple[str, bool]:
        reading = editing.read(text)
        return (reading.problem, True) if reading.problem else (f"= {reading.remark}   ⏎ commits", False)

    def _hear_of_saving(self) -> None:
        saving = self.saving
        if saving is None or saving.is_alive():
            return
        self.saving = None
        if saving.failure is not None:
            raise saving.failure
        outcome = saving.outcome
        assert outcome is not None
        if outcome.is_done:
            self.model.claim(outcome.number, saving.path, saving.value)
            self._end_input()
            self.say(outcome.words)
        elif self._edited is None:  # left in the meantime
            self.say(outcome.words, is_bad=True)
        elif outcome.current is not ABSENT:
            # The present value has been shown: a second press of the key overwrites it.
            self._edited = self._edited[0], outcome.current
            self._ask.hint(f"{outcome.words} ⏎ again replaces it.", is_bad=True)
        else:
            self._ask.hint(outcome.words, is_bad=True)


def _plain(value: Any) -> Any:
    return ops.plain(value) if isinstance(value, dict | list | set) else value
