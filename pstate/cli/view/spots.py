"""What the view remembers of places in the state: which are open, what has changed there, how many rows they take.

A tree of its own beside the state, with a `Spot` only where there is something to remember. An operation on the state
is carried out on it as well, so that a mark, an open place and the cursor stay with their element when the list around
it grows or shrinks.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterator
from typing import Any

from pstate.cli.view import looks
from pstate.engine import Origin


class Mark:
    """What was last done to a value, by whom, and how often something was done to it."""

    __slots__ = ("count", "number", "origin", "sign", "time")

    def __init__(self, sign: str, origin: Origin | None, time: float, number: int | None, count: int) -> None:
        self.sign = sign  #: + is new, ~ has changed, - something in it is gone
        self.origin: Origin | None = origin
        self.time = time
        self.number = number  #: of the commit
        self.count = count


class Spot:
    """One place in the state."""

    __slots__ = ("_keys", "_rows", "_stops", "children", "is_gone", "is_open", "key", "latest", "mark", "parent")

    def __init__(self, parent: Spot | None, key: Any) -> None:
        self.parent = parent
        self.key = key
        self.children: dict[Any, Spot] = {}
        self.mark: Mark | None = None
        self.latest: Mark | None = None  #: the youngest mark here or below
        self.is_open = False
        self.is_gone = False
        self._keys: list[Any] | range | None = None
        self._rows: int | None = None
        #: Of the open children: which number each has, and how many rows there are before and in it.
        self._stops: tuple[list[int], list[int], list[Spot]] | None = None

    # ------------------------------------------------------------------ where it is

    @property
    def path(self) -> tuple[Any, ...]:
        keys: list[Any] = []
        spot = self
        while spot.parent is not None:
            keys.append(spot.key)
            spot = spot.parent
        return tuple(reversed(keys))

    def at(self, key: Any) -> Spot:
        """The child at *key*, made if there is none."""
        found = self.children.get(key)
        if found is None:
            found = self.children[key] = Spot(self, key)
        return found

    def find(self, path: Any) -> Spot | None:
        """What is remembered at *path* below here, if anything is."""
        spot: Spot | None = self
        for key in path:
            if spot is None:
                return None
            spot = spot.children.get(key)
        return spot

    def reach(self, path: Any) -> Spot:
        """The spot at *path* below here, made if there is none."""
        spot = self
        for key in path:
            spot = spot.at(key)
        return spot

    # ------------------------------------------------------------------ which rows it has

    def keys(self, node: Any) -> list[Any] | range:
        """The keys, indices or members of *node*, which is here, in the order in which they are shown."""
        if self._keys is None:
            if isinstance(node, dict):
                self._keys = list(dict.__iter__(node))
            elif isinstance(node, list):
                self._keys = range(list.__len__(node))
            else:
                self._keys = looks.members(node) if isinstance(node, set) else []
        return self._keys

    def rows(self, node: Any) -> int:
        """How many rows there are below this one, where *node* is."""
        if not self.is_open:
            return 0
        if self._rows is None:
            self._rows = len(self.keys(node)) + sum(child.rows(item_of(node, key)) for key, child in self._opened(node))
        return self._rows

    def _opened(self, node: Any) -> Iterator[tuple[Any, Spot]]:
        return ((key, child) for key, child in self.children.items() if child.is_open and not isinstance(node, set))

    def _stopped(self, node: Any) -> tuple[list[int], list[int], list[Spot]]:
        if self._stops is None:
            opened = dict(self._opened(node))
            found = []
            if isinstance(node, list):
                found = sorted((key, child) for key, child in opened.items())
            elif opened:
                found = [(number, opened[key]) for number, key in enumerate(self.keys(node)) if key in opened]
            numbers, ends, before = [], [], 0
            for number, child in found:
                before += child.rows(item_of(node, child.key))
                numbers.append(number)
                ends.append(number + 1 + before)
            self._stops = numbers, ends, [child for _, child in found]
        return self._stops

    def place_of(self, row: int, node: Any) -> tuple[Any, ...]:
        """The path, from here, of row number *row* below this one."""
        numbers, ends, children = self._stopped(node)
        stop = bisect_right(ends, row)  # the open children before the row, with all that is in them
        before = ends[stop - 1] - numbers[stop - 1] - 1 if stop else 0
        if stop < len(numbers) and row > numbers[stop] + before:
            child = children[stop]
            inside = row - numbers[stop] - before - 1
            return (child.key, *child.place_of(inside, item_of(node, child.key)))
        return (self.keys(node)[row - before],)

    def row_of(self, path: tuple[Any, ...], node: Any) -> int | None:
        """The row below this one in which *path*, from here, is shown; None where it is in what is not open."""
        if not self.is_open:
            return None
        key, *rest = path
        keys = self.keys(node)
        try:
            number = keys.index(key)
        except ValueError:
            return None
        numbers, ends, _ = self._stopped(node)
        stop = bisect_right(numbers, number - 1)
        row = number + (ends[stop - 1] - numbers[stop - 1] - 1 if stop else 0)
        if not rest:
            return row
        child = self.children.get(key)
        inside = child.row_of(tuple(rest), item_of(node, key)) if child is not None else None
        return None if inside is None else row + 1 + inside

    def open(self, is_open: bool) -> None:
        """Show what is in it, or do not."""
        if self.is_open != is_open:
            self.is_open = is_open
            self._resized()

    def _resized(self) -> None:
        """It has another number of rows."""
        spot: Spot | None = self
        while spot is not None:
            spot._rows = spot._stops = None
            spot = spot.parent

    # ------------------------------------------------------------------ what happens to it

    def note(self, sign: str, origin: Origin | None, time: float, number: int | None, count: int = 1) -> None:
        """Mark it, and let all around it know."""
        if self.mark is None:
            self.mark = Mark(sign, origin, time, number, count)
        else:
            mark = self.mark
            mark.sign, mark.origin, mark.time, mark.number = sign, origin, time, number
            mark.count += count
        spot: Spot | None = self
        while spot is not None:
            spot.latest = self.mark
            spot = spot.parent

    def unmark_from(self, index: int) -> None:
        """Forget what has been done to the elements of this list from *index* on."""
        for key, child in self.children.items():
            if key >= index:
                child.unmark()

    def unmark(self) -> None:
        """Forget what has been done here and below."""
        self.mark = self.latest = None
        for child in self.children.values():
            child.unmark()

    def changed(self, name: str, rest: Any, node: Any) -> None:
        """The operation *name*, see `pstate.memory.ops`, is about to be carried out on *node*, which is here."""
        if name == "set":
            self._set(rest[0], rest[1], node)
            return
        if isinstance(node, list):
            self._moved(_moves(name, rest))
        elif name == "delete":
            self._forget(rest[0])
        elif name == "discard":
            for member in rest[0]:
                self._forget(member)
        self._keys = None
        self._resized()

    def _set(self, key: Any, value: Any, node: Any) -> None:
        child = self.children.get(key)
        if child is not None:
            if child.is_open or child.children:  # not the usual counter
                child.renew(value)
        elif isinstance(node, dict) and not dict.__contains__(node, key):
            if type(self._keys) is list:
                self._keys.append(key)  # where a dict puts it
            self._resized()

    def _forget(self, key: Any) -> None:
        child = self.children.pop(key, None)
        if child is not None:
            child._leave()

    def _leave(self) -> None:
        self.is_gone = True
        for child in self.children.values():
            child._leave()

    def _moved(self, move: Callable[[int], int | None]) -> None:
        """Each element of the list goes where *move* says; None is nowhere."""
        children = {}
        for key, child in self.children.items():
            new = move(key)
            if new is None:
                child._leave()
            else:
                child.key = new
                children[new] = child
        self.children = children

    def renew(self, value: Any) -> None:
        """It has become *value*, another one: what is not in that is forgotten, what is in it stays open."""
        self._keys = None
        for key in [key for key in self.children if item_of(value, key) is NOTHING]:
            self._forget(key)
        for key, child in self.children.items():
            child.renew(item_of(value, key))
        if self.is_open and not isinstance(value, dict | list | set):
            self.is_open = False
        self._resized()


NOTHING = object()


def item_of(node: Any, key: Any) -> Any:
    """What *node* has at *key*, asking nobody, or `NOTHING`."""
    if isinstance(node, dict):
        return dict.get(node, key, NOTHING)
    if isinstance(node, list):
        return list.__getitem__(node, key) if type(key) is int and 0 <= key < list.__len__(node) else NOTHING
    return key if isinstance(node, set) and set.__contains__(node, key) else NOTHING


def _moves(name: str, rest: Any) -> Callable[[int], int | None]:
    """Where each element of a list goes by an operation, None for those that go."""
    if name == "order":
        return {old: number for number, old in enumerate(rest[0])}.get
    if name == "splice":
        start, stop, number = rest[0], rest[1], len(rest[2])
    else:
        start, stop, number = (rest[0], rest[0], 1) if name == "insert" else (rest[0], rest[0] + 1, 0)

    def move(index: int) -> int | None:
        if index < start:
            return index
        return None if index < stop else index + number - (stop - start)

    return move
