"""The tree and the time line on the screen. Only the rows that are seen are ever made."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

from textual import events
from textual.binding import Binding, BindingType
from textual.geometry import Size
from textual.message import Message
from textual.scroll_view import ScrollView
from textual.strip import Strip

from pstate.cli.view import painting
from pstate.cli.view.model import Model
from pstate.cli.view.painting import OLD
from pstate.cli.view.timeline import Timeline


class _Rows(ScrollView, can_focus=True):
    """Rows with a cursor in one of them."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("up", "cursor(-1)", "Up", show=False),
        Binding("down", "cursor(1)", "Down", show=False),
        Binding("pageup", "page(-1)", "Page up", show=False),
        Binding("pagedown", "page(1)", "Page down", show=False),
        Binding("home", "cursor(-1_000_000_000)", "First", show=False),
        Binding("end", "cursor(1_000_000_000)", "Last", show=False),
    ]

    def __init__(self, clock: Callable[[], float], zone: Callable[[float], str], is_plain: bool, id: str) -> None:
        super().__init__(id=id)
        self._clock = clock
        self._zone = zone
        self._is_plain = is_plain  #: there are no colours
        self._seen: Any = None
        self._offset = 0  #: how far below the first row that is seen the cursor was

    def action_page(self, direction: int) -> None:
        self.action_cursor(direction * max(1, self.size.height - 1))

    def action_cursor(self, by: int) -> None:
        raise NotImplementedError

    def cursor_word(self, is_here: bool) -> str:
        """How the cursor is to be painted."""
        if not is_here:
            return ""
        if self._is_plain:
            return "plain" if self.has_focus else ""
        return "here" if self.has_focus else "away"

    @property
    def width(self) -> int:
        """How wide a row is, beside the scroll bar."""
        return self.scrollable_content_region.width

    def fit(self, count: int, row: int, is_moved: bool) -> None:
        """There are *count* rows, the cursor in *row*. What comes before it does not move it on the screen."""
        height = self.size.height
        self.virtual_size = Size(self.width, count)
        if height <= 0:
            return
        y = round(self.scroll_offset.y)
        if not is_moved and 0 <= self._offset < height:
            y = row - self._offset
        y = max(0, min(y, row, max(0, count - height)))
        y = max(y, row - height + 1)
        self.scroll_to(0, y, animate=False, force=True, immediate=True)
        self._offset = row - y

    def on_resize(self, event: events.Resize) -> None:
        self._seen = None

    def _on_mouse_scroll_down(self, event: events.MouseScrollDown) -> None:
        event.stop()
        self.action_cursor(3)

    def _on_mouse_scroll_up(self, event: events.MouseScrollUp) -> None:
        event.stop()
        self.action_cursor(-3)


class TreeView(_Rows):
    """The state."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("left", "step_out", "Close", show=False),
        Binding("right", "step_in", "Open", show=False),
        Binding("enter,space", "fold", "Open", key_display="⏎", show=True),
    ]

    def __init__(
        self, model: Model, clock: Callable[[], float], zone: Callable[[float], str], is_plain: bool = False
    ) -> None:
        super().__init__(clock, zone, is_plain, id="tree")
        self.model = model

    def render_line(self, y: int) -> Strip:
        number = round(self.scroll_offset.y) + y
        if number >= self.model.count:
            return Strip.blank(self.width)
        cursor = self.cursor_word(number == self.model.cursor_row)
        return painting.tree_row(self.model.row(number), self.width, self._clock(), cursor, self._zone)

    def sync(self, is_moved: bool = False) -> None:
        """Show the model as it is now, if it is another one than before. Marks grow old by themselves."""
        seen = self.model.version, int(self._clock() * 2), self.has_focus, self.size, self.width
        if seen != self._seen or is_moved:
            self._seen = seen
            self.fit(self.model.count, self.model.cursor_row, is_moved)
            self.refresh()

    def action_cursor(self, by: int) -> None:
        self.model.move_to(self.model.cursor_row + by)
        self.sync(is_moved=True)

    def action_fold(self) -> None:
        self.model.toggle()
        self.sync()

    def action_step_out(self) -> None:
        self.model.step_out()
        self.sync(is_moved=True)

    def action_step_in(self) -> None:
        self.model.step_in()
        self.sync(is_moved=True)

    def on_click(self, event: events.Click) -> None:
        number = round(self.scroll_offset.y) + event.y
        if number < self.model.count:
            is_again = number == self.model.cursor_row
            self.model.move_to(number)
            if is_again:
                self.model.toggle()
            self.sync(is_moved=True)


class TimeView(_Rows):
    """The time line. At its end, it goes on with what comes."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("enter,space", "show", "Go", key_display="⏎", show=True)]

    class Chosen(Message):
        """The change of a place was chosen."""

        def __init__(self, path: tuple[Any, ...]) -> None:
            super().__init__()
            self.path = path

    def __init__(
        self, timeline: Timeline, clock: Callable[[], float], zone: Callable[[float], str], is_plain: bool = False
    ) -> None:
        super().__init__(clock, zone, is_plain, id="time")
        self.timeline = timeline
        self._chosen: int | None = None  #: the number of a line; None goes on with the last one

    @property
    def _row(self) -> int:
        """In which of the rows the cursor is."""
        last = self.timeline.end - 1
        number = last if self._chosen is None else max(self.timeline.begin, self._chosen)
        return max(0, number - self.timeline.begin)

    def render_line(self, y: int) -> Strip:
        number = self.timeline.begin + round(self.scroll_offset.y) + y
        width = self.width
        if number >= self.timeline.end:
            return Strip.blank(width)
        cursor = self.cursor_word(number - self.timeline.begin == self._row)
        return painting.time_row(self.timeline.line(number), width, self._clock(), cursor, self._zone)

    def sync(self, is_moved: bool = False) -> None:
        """Show the time line as it is now, if that is another one than before."""
        seen = self.timeline.end, int(self._clock()) if self._is_young else 0, self.has_focus, self.size, self._chosen
        if self.display and (seen != self._seen or is_moved):
            self._seen = seen
            count = self.timeline.end - self.timeline.begin
            self.fit(count, self._row, is_moved or self._chosen is None)
            self.refresh()

    @property
    def _is_young(self) -> bool:
        end = self.timeline.end
        return end > self.timeline.begin and self._clock() - self.timeline.line(end - 1).time < OLD

    def action_cursor(self, by: int) -> None:
        timeline = self.timeline
        number = max(timeline.begin, min(timeline.begin + self._row + by, timeline.end - 1))
        self._chosen = None if number >= timeline.end - 1 else number
        self.sync(is_moved=True)

    def action_show(self) -> None:
        number = self.timeline.begin + self._row
        if number < self.timeline.end:
            self.post_message(self.Chosen(self.timeline.line(number).path))

    def on_click(self, event: events.Click) -> None:
        self.action_cursor(round(self.scroll_offset.y) + event.y - self._row)
