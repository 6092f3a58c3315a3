"""The filter: which rows are shown for what a person has typed, found a few at a time."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

from pstate.cli.view import looks
from pstate.cli.view.spots import NOTHING, item_of

Path = tuple[Any, ...]

#: So many rows are shown at most.
MOST = 10_000
#: For how long it may look in one go, in seconds, and how long it rests before it begins again.
SLICE = 0.02
REST = 0.5


class Filter:
    """The rows at and below the place *top* in which all words of *text* occur, and those around them.

    A word is looked for in the path and in the value, whatever its case.
    """

    def __init__(self, text: str, top: Path) -> None:
        self.text = text
        self.rows: list[Path] = []
        self.row_of: dict[Path, int] = {}
        self.is_done = False
        self.is_cut = False  #: there are more than `MOST`
        self._words = text.casefold().split()
        self._top = top
        self._scan: Iterator[None] | None = None
        self._found: list[Path] = []
        self._is_stale = True
        self._rest_until = 0.0

    def matches(self, path: Path, value: Any) -> bool:
        """Whether the row of *value* at *path* has all the words in it."""
        text = looks.place(path)
        if not isinstance(value, dict | list | set):
            text += ": " + looks.brief(value)
        text = text.casefold()
        return all(word in text for word in self._words)

    def changed(self, path: Path, value: Any) -> None:
        """*value* is at *path* now; `NOTHING` where nothing is any more."""
        if (
            isinstance(value, dict | list | set)
            or value is NOTHING
            or (path in self.row_of) != self.matches(path, value)
        ):
            self._is_stale = True

    def stale(self) -> None:
        """Anything may have changed."""
        self._is_stale = True

    def step(self, root: Any, seconds: float = SLICE) -> bool:
        """Look for *seconds* at most in the state *root*; whether the rows are others now."""
        now = time.monotonic()
        if self._scan is None:
            if not self._is_stale or now < self._rest_until:
                return False
            self._is_stale = False
            self._found = []
            self._scan = self._look(root)
        shown, until = len(self.rows), now + seconds
        for _ in self._scan:
            if time.monotonic() > until:
                break
        else:
            self._scan = None
            self._rest_until = time.monotonic() + REST
            self.is_done = True
            self._show(self._found)
            return True
        # The first time, what has been found is shown at once; later, what was found before stays until the end.
        if not self.is_done and len(self._found) > shown:
            self._show(self._found)
            return True
        return False

    def _show(self, found: list[Path]) -> None:
        self.rows = list(found)
        self.row_of = {path: number for number, path in enumerate(self.rows)}

    def _look(self, root: Any) -> Iterator[None]:
        """Find the rows, one after the other, in the order in which they are shown."""
        found = self._found
        node = root
        for key in self._top:
            node = item_of(node, key)
        found.append(self._top)
        self.is_cut = False
        # What is to be looked at, the next last; and of what is around it, how much is shown.
        stack: list[tuple[Path, Any, bool]] = []
        shown: list[Path] = [self._top]
        self._push(stack, self._top, node, False)
        while stack:
            path, node, is_inside = stack.pop()
            value = item_of(node, path[-1])
            if value is NOTHING:
                continue  # it has gone since
            # If the path of a place contains all the words, so do the paths inside it.
            is_match = is_inside or self.matches(path, value)
            if is_match:
                while shown[-1] != path[: len(shown[-1])]:
                    shown.pop()
                for length in range(len(shown[-1]) + 1, len(path) + 1):
                    shown.append(path[:length])
                    found.append(path[:length])
                if len(found) > MOST:
                    self.is_cut = True
                    return
            self._push(stack, path, value, is_match)
            yield

    @staticmethod
    def _push(stack: list[tuple[Path, Any, bool]], path: Path, node: Any, is_inside: bool) -> None:
        if isinstance(node, dict):
            keys = list(dict.__iter__(node))
        elif isinstance(node, list):
            keys = list(range(list.__len__(node)))
        else:
            keys = looks.members(node) if isinstance(node, set) else []
        stack.extend(((*path, key), node, is_inside) for key in reversed(keys))
