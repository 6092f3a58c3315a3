"""What the view shows: the state, what has changed in it, which row is which. Knows no terminal and no thread."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from typing import Any, NamedTuple

from pstate.cli.view import looks
from pstate.cli.view.filtering import Filter
from pstate.cli.view.following import News
from pstate.cli.view.spots import NOTHING, Mark, Spot, item_of
from pstate.cli.view.timeline import Timeline, sign
from pstate.memory import ops
from pstate.memory.changes import Change
from pstate.memory.ops import ABSENT
from pstate.text import paths
from pstate.values import same

#: A commit that changes more places is marked at the containers only.
MARKED = 1_000
#: Of so many seconds is the rate that is shown.
_RATE = 2.0
#: For how many seconds a commit of the view is expected.
_SOON = 10.0
_GONE = "nothing is here now"


class Row(NamedTuple):
    """One row of the tree."""

    path: tuple[Any, ...]
    depth: int
    label: str
    kind: str  #: "mapping", "list", "set", "member", "text", "value", "missing"
    is_open: bool
    text: str  #: the value, or what is in it
    mark: Mark | None


class Model:
    """The state below *place*, as *file* names it, and the time line; follows `News`."""

    def __init__(self, root: Any, place: list[Any], name: str, clock: Callable[[], float] = time.time) -> None:
        self.root = root
        self.place = place
        self.timeline = Timeline()
        self.filter: Filter | None = None
        self.commits = 0  #: how many have come since the view began
        self.edits = 0
        self.version = 0  #: another number when something that is shown may have changed
        self._claimed: tuple[int, tuple[Any, ...], Any] | None = None
        self._claimed_until = 0.0
        self._name = name
        self._clock = clock
        self._spots = Spot(None, None)
        self._recent: deque[tuple[float, int]] = deque()
        self.top: tuple[Any, ...] = ()
        self._find_top()
        self.cursor = self._spots.reach(self.top)
        self.cursor.open(True)
        self._last_row = 0

    # ------------------------------------------------------------------ what comes

    def follow(self, news: News) -> None:
        """Carry out what has come."""
        ours = self._claim_of(news)
        if ours is not None and news.root is None:
            news = news._replace(origin="here")
        if news.root is not None:
            self._become(news)
        for operation, changes in news.steps:
            self._carry_out(operation)
            if not news.is_past:
                self._mark(changes, news)
        if ours is not None:
            self._claimed = None
            self._mark_as_ours(ours.path)
        self._find_top()
        if news.skipped:
            what = "commits and edits" if news.edits else "commits"
            self.timeline.say(news.time, f"{news.skipped:,} {what} came too fast to be shown one by one")
        else:
            near = [change for change in news.changes if self._is_near(change.path)]
            self.timeline.add(news.time, news.origin, news.number, near)
        self.edits += news.edits
        if news.commits:
            self.commits += news.commits
            self._recent.append((self._clock(), news.commits))
        self.version += 1

    def _mark_skipped(self, news: News) -> None:
        """Mark the last change of each place that exists. In a list, it is unknown which element was meant."""
        for change in news.changes:
            around: Any = self.root
            for key in change.path[:-1]:
                around = item_of(around, key) if isinstance(around, dict) else NOTHING
            if not isinstance(around, dict):
                continue
            is_gone = item_of(around, change.path[-1]) is NOTHING
            spot = self._spots.reach(change.path[:-1] if is_gone else change.path)
            spot.note(
                "-" if is_gone else sign(change),
                change.origin,
                news.time,
                change.commit,
                news.counts.get(change.path, 1),
            )

    def claim(self, number: int | None, path: tuple[Any, ...], value: Any) -> None:
        """Commit *number*, which sets *path* to *value*, is the view's own. It has come already, or comes soon."""
        if number is None:
            return
        has_come = self.timeline.claim(number, path)
        spot = self._spots.find(path)
        mark = spot.mark if spot is not None else None
        # If the journal went before it could be read, the number is unknown.
        is_it = mark is not None and (mark.number == number or (mark.number is None and same(self.value(path), value)))
        if mark is not None and is_it and mark.time > self._clock() - _SOON:
            mark.origin, has_come = "here", True
        # A vacuum begins the numbers again, so it is not for ever.
        self._claimed = None if has_come else (number, path, value)
        self._claimed_until = self._clock() + _SOON
        self.version += 1

    def _claim_of(self, news: News) -> Change | None:
        """The change that is the view's own, where *news* tell of it."""
        if self._claimed is None or self._clock() > self._claimed_until:
            self._claimed = None
            return None
        number, path, value = self._claimed
        for change in news.changes:
            is_it = change.commit == number or (change.commit is None and same(change.new, value))
            if is_it and change.path == path:
                return change
        return None

    def _mark_as_ours(self, path: tuple[Any, ...]) -> None:
        spot = self._spots.find(path)
        if spot is not None and spot.mark is not None:
            spot.mark.origin = "here"

    def _carry_out(self, operation: list[Any]) -> None:
        name, path, *rest = operation
        node = ops.find(self.root, path)
        prepared = ops.prepare(node, (name, *rest), None)
        spot = self._spots.find(path)
        if spot is not None:
            spot.changed(name, rest, node)
        ops.apply(node, prepared, False)

    def _become(self, news: News) -> None:
        """Go on with another state. Elements of lists that have moved lose their marks: they are told as new."""
        self.root = news.root
        self._spots.renew(news.root)
        for change in news.changes:
            if (change.old is ABSENT or change.new is ABSENT) and isinstance(self.value(change.path[:-1]), list):
                self._unmark(change.path[:-1], 0 if news.skipped else change.path[-1])
            elif news.skipped and isinstance(change.new, list):  # another order, perhaps
                self._unmark(change.path, 0)
        if self.filter is not None:
            self.filter.stale()
        if news.skipped:
            self._mark_skipped(news)
        else:
            self._mark(news.changes, news)

    def _unmark(self, path: tuple[Any, ...], index: int) -> None:
        spot = self._spots.find(path)
        if spot is not None:
            spot.unmark_from(index)

    def _mark(self, changes: list[Change], news: News) -> None:
        if len(changes) > MARKED:
            for path in dict.fromkeys(change.path[:-1] for change in changes):
                self._spots.reach(path).note("~", news.origin, news.time, news.number)
            if self.filter is not None:
                self.filter.stale()
            return
        for change in changes:
            is_gone = change.new is ABSENT
            path = change.path[:-1] if is_gone else change.path
            self._spots.reach(path).note(sign(change), news.origin, news.time, news.number)
            if self.filter is not None:
                self.filter.changed(change.path, NOTHING if is_gone else change.new)

    @property
    def rate(self) -> float:
        """How many commits have come in a second, of late."""
        now = self._clock()
        while self._recent and self._recent[0][0] < now - _RATE:
            self._recent.popleft()
        return sum(number for _, number in self._recent) / _RATE

    def _find_top(self) -> None:
        """Where the place is just now: it may be written as ``jobs[-1]``."""
        node, keys = self.root, []
        for key in self.place:
            if isinstance(node, list):
                try:
                    key = range(list.__len__(node))[paths.index(key)]
                except LookupError:
                    node = NOTHING
            node = item_of(node, key)
            keys.append(key)
        self.top = tuple(keys)

    def _is_near(self, path: tuple[Any, ...]) -> bool:
        shared = min(len(path), len(self.top))
        return path[:shared] == self.top[:shared]

    # ------------------------------------------------------------------ the rows

    def value(self, path: tuple[Any, ...]) -> Any:
        """What is at *path*, or `NOTHING`."""
        node = self.root
        for key in path:
            node = item_of(node, key)
        return node

    @property
    def count(self) -> int:
        """How many rows there are."""
        if self.filter is not None:
            return max(1, len(self.filter.rows))
        spot = self._spots.find(self.top)
        return 1 + (spot.rows(self.value(self.top)) if spot is not None else 0)

    def path(self, number: int) -> tuple[Any, ...]:
        """Where row *number* is."""
        if self.filter is not None:
            return self.filter.rows[number] if number < len(self.filter.rows) else self.top
        spot = self._spots.find(self.top)
        if number <= 0 or spot is None:
            return self.top
        return self.top + spot.place_of(number - 1, self.value(self.top))

    def number(self, path: tuple[Any, ...]) -> int | None:
        """The row of *path*; None if it is not shown."""
        if self.filter is not None:
            return self.filter.row_of.get(path)
        spot = self._spots.find(self.top)
        if path[: len(self.top)] != self.top or spot is None:
            return None
        if path == self.top:
            return 0
        row = spot.row_of(path[len(self.top) :], self.value(self.top))
        return None if row is None else row + 1

    def row(self, number: int) -> Row:
        """Row *number*, as it is to be shown."""
        path = self.path(number)
        value = self.value(path)
        spot = self._spots.find(path)
        is_container = isinstance(value, dict | list | set)
        is_open = is_container and (self.filter is not None or (spot is not None and spot.is_open))
        depth = len(path) - len(self.top)
        mark = None
        if spot is not None:
            mark = spot.mark if is_open or not is_container else spot.latest
        around = self.value(path[:-1]) if path else None
        kind = _kind(value, isinstance(around, set))
        if is_container:
            text = looks.size(value) if is_open or not looks.len_of(value) else looks.brief(value)
        else:
            text = _GONE if value is NOTHING else looks.brief(value)
        if not depth:
            label = looks.place(self.place) if self.place else self._name
        else:
            label = "" if kind == "member" else looks.key(path[-1])
        return Row(path, depth, label, kind, is_open, text, mark)

    # ------------------------------------------------------------------ the cursor

    @property
    def cursor_row(self) -> int:
        """The row that the cursor is in."""
        if not self.cursor.is_gone:
            number = self.number(self.cursor.path)
            if number is not None:
                self._last_row = number
                return number
        # What it was on is gone, or not shown: it goes to what has come into the row.
        number = min(self._last_row, self.count - 1)
        self.move_to(number)
        return number

    def move_to(self, number: int) -> None:
        """Put the cursor into row *number*, or the first or last one."""
        number = max(0, min(number, self.count - 1))
        self.cursor = self._spots.reach(self.path(number))
        self._last_row = number
        self.version += 1

    def open(self, is_open: bool) -> bool:
        """Open or close what the cursor is on; whether that is another state than before."""
        value = self.value(self.cursor.path)
        if self.filter is not None or not isinstance(value, dict | list | set) or self.cursor.is_open == is_open:
            return False
        self.cursor.open(is_open)
        self.version += 1
        return True

    def toggle(self) -> None:
        """Open what the cursor is on, or close it."""
        self.open(not self.cursor.is_open)

    def step_out(self) -> None:
        """Close what the cursor is on, or go to what it is in."""
        if not self.open(False):
            path = self.cursor.path
            number = self.number(path[:-1]) if len(path) > len(self.top) else None
            if number is not None:
                self.move_to(number)

    def step_in(self) -> None:
        """Open what the cursor is on, or go to the first of what is in it."""
        value = self.value(self.cursor.path)
        if not self.open(True) and isinstance(value, dict | list | set) and looks.len_of(value):
            self.move_to(self.cursor_row + 1)

    def show(self, path: tuple[Any, ...]) -> bool:
        """Put the cursor on *path*, or on what exists of the way to it, and open the rows around. Whether it exists."""
        self.filter = None
        there = path[: len(self.top)] == self.top
        if not there:
            path = self.top
        while len(path) > len(self.top) and self.value(path) is NOTHING:
            path, there = path[:-1], False
        for length in range(len(self.top), len(path)):
            self._spots.reach(path[:length]).open(True)
        self.cursor = self._spots.reach(path)
        self.version += 1
        return there

    # ------------------------------------------------------------------ the filter

    def look_for(self, text: str) -> None:
        """Show only what has all words of *text* in it; everything for an empty one."""
        path = self.cursor.path
        if text.strip():
            self.filter = Filter(text, self.top)
        elif self.filter is not None:
            self.filter = None
            if not self.cursor.is_gone:
                self.show(path)
        self.version += 1

    def look_on(self) -> None:
        """Go on looking, for a moment."""
        if self.filter is not None and self.filter.step(self.root):
            self.version += 1


def _kind(value: Any, is_member: bool) -> str:
    if value is NOTHING:
        return "missing"
    for kind, name in ((dict, "mapping"), (list, "list"), (set, "set")):
        if isinstance(value, kind):
            return name
    if is_member:
        return "member"
    return "text" if isinstance(value, str) else "value"
