"""The time line: what came as one commit, or as one edit, from the oldest that is kept to the newest."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Any, NamedTuple

from pstate.cli.view import looks
from pstate.engine import Origin
from pstate.memory.changes import Change
from pstate.memory.ops import ABSENT
from pstate.values import FAST

#: How many lines are kept, and how many of one commit.
LINES = 5_000
EACH = 50
#: How many characters of a value are kept.
_VALUE = 120
_LARGE = 1 << 64
#: So many lines may have come between a commit of the view and the end of its thread.
_CLAIMED = 3_000


class _Said(str):
    """What is kept of a value that is too large to be kept."""


class Line(NamedTuple):
    """One change."""

    time: float
    origin: Origin | None
    number: int | None  #: of the commit
    is_first: bool  #: of what came together
    sign: str
    path: tuple[Any, ...]
    values: tuple[Any, ...]  #: the old and the new one, each where there is one; or words, where *sign* is a blank

    @property
    def words(self) -> str:
        """The values, in one safe line. Made when it is asked for: most lines are never looked at."""
        return " -> ".join(value if isinstance(value, _Said) else looks.brief(value, _VALUE) for value in self.values)


class Timeline:
    """The last lines. A line has a number that it keeps, also when those before it are dropped."""

    def __init__(self) -> None:
        self._lines: deque[Line] = deque(maxlen=LINES)
        self.end = 0  #: the number after the last line

    @property
    def begin(self) -> int:
        """The number of the first line that is kept."""
        return self.end - len(self._lines)

    def line(self, number: int) -> Line:
        """A line that is kept."""
        return self._lines[number - self.begin]

    def add(self, time: float, origin: Origin | None, number: int | None, changes: Sequence[Change]) -> None:
        """What has come together."""
        for count, change in enumerate(changes[:EACH]):
            values = () if change.is_member else tuple(_light(each) for each in change[1:3] if each is not ABSENT)
            self._put(Line(time, origin, number, not count, sign(change), change.path, values))
        if len(changes) > EACH:
            self._put(Line(time, origin, number, False, " ", (), (_Said(f"… {len(changes) - EACH:,} more"),)))

    def say(self, time: float, words: str) -> None:
        """Something that is not a change."""
        self._put(Line(time, None, None, True, " ", (), (_Said(words),)))

    def claim(self, number: int, path: tuple[Any, ...]) -> bool:
        """The last commit *number* that has changed *path* is the view's own. Returns whether it is here."""
        for back in range(1, min(_CLAIMED, len(self._lines)) + 1):
            line = self._lines[-back]
            if line.number == number and line.path == path and line.origin == "other":
                self._lines[-back] = line._replace(origin="here")
                return True
        return False

    def _put(self, line: Line) -> None:
        self._lines.append(line)
        self.end += 1


def sign(change: Change) -> str:
    """+ where a value is new, - where it is gone, ~ where it has changed; as in `pstate log`."""
    return "+" if change.old is ABSENT else "-" if change.new is ABSENT else "~"


def _light(value: Any) -> Any:
    """*value*, or what is shown of it if that takes less room."""
    kind = type(value)
    if (-_LARGE < value < _LARGE) if kind is int else (kind in FAST and kind is not bytes):
        return value
    if kind is str and len(value) <= _VALUE:
        return value
    return _Said(looks.brief(value, _VALUE))
