"""What becomes of a state, noted for those who watch it, by the log, at the few places where it cannot be read later.

The records themselves stand in the journals, as far as memory knows them. So a commit costs nothing for being watched;
but a journal that is left must be noted first, and nobody may vacuum the next one before its watchers have come to it:
they keep a mark on the file that they are in, and whoever replaces that waits for them (I12).
"""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from itertools import chain
from typing import Literal, NamedTuple, TypeAlias

from pstate.format import Image
from pstate.fs import FileSystem
from pstate.journal import Journal, Place
from pstate.recovery import State

#: By this process, by another one, by a person.
Origin: TypeAlias = Literal["here", "other", "edit"]


class Leg(NamedTuple):
    """What the state did in one document: some records, perhaps after it had become what that says."""

    state: State | None  #: what it had become; None where it went on as it was
    origin: Origin | None  #: of that
    bodies: list[str]
    before: int  #: the number of the last record before them
    others: frozenset[int]  #: the numbers of those that are of other processes
    unknown: int  #: up to this number, nobody knows whose they are

    def origin_of(self, number: int) -> Origin | None:
        """Who has committed record *number*; None where nobody knows."""
        if number <= self.unknown:
            return None
        return "other" if number in self.others else "here"


class Trail:
    """The notes for one watch, which begins behind record *index* of *journal*, at *place*."""

    def __init__(self, journal: Journal, index: int, place: Place | None, unknown: int) -> None:
        self._legs: list[Leg] = []
        self._journal = journal
        self._index = index
        self._place = place
        #: Behind the first of each pair, up to the second.
        self._others: list[tuple[int, int]] = []
        self._unknown = unknown

    def take(self) -> list[Leg]:
        """What was noted since the last call."""
        self.collect()
        legs, self._legs = self._legs, []
        return legs

    def collect(self) -> None:
        """Note what stands in the journal."""
        bodies, place = self._journal.behind(self._place)
        if bodies:
            others = frozenset(chain.from_iterable(range(start + 1, last + 1) for start, last in self._others))
            legs = [*self._legs, Leg(None, None, bodies, self._index, others, self._unknown)]
            # No call among these, so that no exception of a signal handler comes in between.
            self._legs, self._index, self._place = legs, self._index + len(bodies), place
            self._others = [(start, last) for start, last in self._others if last > self._index]

    def others(self, before: int, last: int) -> None:
        """The records behind number *before*, up to *last*, are of other processes."""
        self._others.append((before, last))

    def become(self, journal: Journal, state: State | None, origin: Origin, index: int, place: Place | None) -> None:
        """Memory goes on in *journal*, behind record *index*, at *place*: as *state*, or as it is if that is None."""
        self.collect()
        if state is not None:
            self._legs.append(Leg(state, origin, [], 0, frozenset(), 0))
        self._journal, self._index, self._place = journal, index, place
        self._others, self._unknown = [], 0

    def load(self, journal: Journal, image: Image, base: State, origin: Origin) -> None:
        """*journal*, which is *image*, is about to be read into memory; its document says *base*."""
        self.collect()
        before = self._journal
        goes_on = (
            before.marker is not None
            and image.marker is not None
            and image.marker.generation == before.marker.generation
            and image.base == before.base
            and image.index >= self._index
        )
        if goes_on:
            self._journal = journal
        else:
            self.become(journal, base, origin, 0, None)
        self.others(self._index, image.index)


class Trails:
    """The trails of all watches of one state. What is called here is called for each; the caller has the memory."""

    __slots__ = ("_fs", "_marked", "_references")

    def __init__(self, fs: FileSystem) -> None:
        self._fs = fs
        #: Borrowed: a watch that nobody has any more is not told. Nearly always empty.
        self._references: tuple[weakref.ref[Trail], ...] = ()
        self._marked: Journal | None = None

    def __bool__(self) -> bool:
        return bool(self._references)

    def _each(self) -> Iterator[Trail]:
        return (trail for reference in self._references if (trail := reference()) is not None)

    def add(self, trail: Trail, journal: Journal) -> None:
        """Begin *trail*. Memory is the newest commit, in *journal*."""
        self._references = (*map(weakref.ref, self._each()), weakref.ref(trail))
        self._mark(journal)

    def remove(self, trail: Trail | None = None) -> None:
        """End *trail*, and those that nobody has any more."""
        self._references = tuple(weakref.ref(other) for other in self._each() if other is not trail)
        if not self._references:
            self._mark(None)

    def others(self, before: int, last: int) -> None:
        """See `Trail.others`."""
        for trail in self._each():
            trail.others(before, last)

    def become(self, journal: Journal, state: State | None, origin: Origin, index: int, place: Place | None) -> None:
        """See `Trail.become`."""
        for trail in self._each():
            trail.become(journal, state, origin, index, place)
        self._mark(journal)

    def load(self, journal: Journal, image: Image, base: State, origin: Origin) -> None:
        """See `Trail.load`."""
        for trail in self._each():
            trail.load(journal, image, base, origin)
        self._mark(journal)

    def rest(self) -> None:
        """The journal is let go of; the next one is to be loaded."""
        for trail in self._each():
            trail.collect()
        self._mark(None)

    def forget(self) -> None:
        """In a forked child: the mark is the parent's."""
        self._marked = None

    def _mark(self, journal: Journal | None) -> None:
        """Those who watch are in *journal* from now on, and have all that stands in the one before."""
        before, self._marked = self._marked, journal
        if journal is not None:
            self._fs.watch(journal.fd)
        if before is not None and before is not journal and before.fd >= 0:
            self._fs.unwatch(before.fd)
