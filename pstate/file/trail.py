"""Notes of the changes of a state for its watches. The log makes them before the changes can no longer be read.

The journals have the records themselves, as far as memory knows them. So a watch costs a commit nothing. But before
memory leaves a journal, its records must be noted, and the next journal may not be vacuumed before its watches have
moved to it. So watches keep a mark on their file, and a process that replaces the file waits for them (I12).
"""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from itertools import chain
from zlib import crc32

from pstate.engine import Leg, Origin, State
from pstate.file import recovery
from pstate.file.format import Image, first_crc
from pstate.file.fs import FileSystem
from pstate.file.journal import Journal, Place


class Trail:
    """The notes for one watch, which begins after record *index* of *journal*, at *place*."""

    def __init__(self, journal: Journal, index: int, place: Place | None, unknown: int) -> None:
        self._legs: list[Leg] = []
        self._journal = journal
        self._index = index
        self._place = place
        #: The records after the first number of each pair, up to the second.
        self._others: list[tuple[int, int]] = []
        self._unknown = unknown
        #: An error that only the following thread has met. The next look raises it.
        self.conflict: Exception | None = None
        self.bell = None  #: a look at a file costs little

    def take(self, number: int | None = None) -> list[Leg]:
        """Remove and return the first *number* of the notes, or all."""
        if number is None:
            number = self.collect()
        legs, self._legs = self._legs[:number], self._legs[number:]
        return legs

    def collect(self) -> int:
        """Note the records in the journal; returns the number of notes."""
        bodies, place = self._journal.behind(self._place)
        if bodies:
            records = recovery.decode(bodies, self._journal.path, bytes)
            others = frozenset(chain.from_iterable(range(start + 1, last + 1) for start, last in self._others))
            legs = [*self._legs, Leg(None, None, records, self._index, others, self._unknown)]
            # Without a call, so that no exception of a signal handler comes in between.
            self._legs, self._index, self._place = legs, self._index + len(bodies), place
            self._others = [(start, last) for start, last in self._others if last > self._index]
        return len(self._legs)

    def others(self, before: int, last: int) -> None:
        """Note that the records after number *before*, up to *last*, are of other processes."""
        self._others.append((before, last))

    def become(self, journal: Journal, state: State | None, origin: Origin, index: int, place: Place | None) -> None:
        """Go on in *journal*, after record *index*, at *place*. Memory becomes *state*, or stays as it is with None."""
        self.collect()
        if state is not None:
            self._legs.append(Leg(state, origin, [], 0, frozenset(), 0))
        self._journal, self._index, self._place = journal, index, place
        self._others, self._unknown = [], 0

    def move(self, journal: Journal) -> None:
        """Go on in *journal*, which has taken over what the one before knew."""
        self._journal = journal

    def load(self, journal: Journal, image: Image, base: State, state: State, origin: Origin) -> None:
        """Note that *journal*, which is *image*, is about to be read into memory. Its document is *base*, its state
        *state*.
        """
        self.collect()
        before = self._journal.marker
        if before is None or image.marker is None or image.marker.generation != before.generation:
            self.become(journal, base, origin, 0, None)
        elif self._is_beginning_of(image):
            self._journal = journal
        else:
            # An old copy, which a person has put there: its records were noted before.
            self.become(journal, state, "edit", image.index, place_behind(image))
            return
        self.others(self._index, image.index)

    def _is_beginning_of(self, image: Image) -> bool:
        """Whether *image*, of our generation, continues the records that we know."""
        assert image.marker is not None
        crc = first_crc(image.marker.generation)
        expected = self._place[1] if self._place is not None else crc
        for body in image.bodies[: self._index]:
            crc = crc32(body.encode(), crc)
        return image.index >= self._index and crc == expected


def place_behind(image: Image) -> Place | None:
    """The place after the last record of *image*; None without a record."""
    return (image.end, image.crc) if image.index else None


class Trails:
    """The trails of all watches of one state. Each method calls that of each trail; the caller has the memory."""

    __slots__ = ("_fs", "_is_followed", "_marked", "_references")

    def __init__(self, fs: FileSystem) -> None:
        self._fs = fs
        #: Weak references, because a watch without a reference needs no notes. Nearly always empty.
        self._references: tuple[weakref.ref[Trail], ...] = ()
        self._marked: Journal | None = None
        #: Whether threads of this process follow them. Without those, others would wait for us in vain.
        self._is_followed = False

    def __bool__(self) -> bool:
        return bool(self._references)

    def _each(self) -> Iterator[Trail]:
        return (trail for reference in self._references if (trail := reference()) is not None)

    def add(self, trail: Trail, journal: Journal) -> None:
        """Begin *trail*, or go on with it in a forked child. Memory is the newest commit, in *journal*."""
        self._references = (*(weakref.ref(other) for other in self._each() if other is not trail), weakref.ref(trail))
        self._is_followed = True
        self._mark(journal)

    def remove(self, trail: Trail | None = None) -> None:
        """End *trail*, and those without a reference."""
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

    def move(self, journal: Journal) -> None:
        """Go on in *journal*: the same file, opened again, with all that is known of it."""
        for trail in self._each():
            trail.move(journal)
        self._mark(journal)

    def load(self, journal: Journal, image: Image, base: State, state: State, origin: Origin) -> None:
        """See `Trail.load`."""
        for trail in self._each():
            trail.load(journal, image, base, state, origin)
        self._mark(journal)

    def check(self, journal: Journal | None) -> None:
        """See `engine.Log.check`. *journal* is the one that memory is at."""
        assert self._marked in (None, journal), "I12: the mark of the watches is on another file than memory is at"

    def rest(self) -> None:
        """Release the journal, which is being closed. The next one will be loaded."""
        self._mark(None)

    def forget(self) -> None:
        """In a forked child: the mark and the threads belong to the parent."""
        self._marked = None
        self._is_followed = False

    def _mark(self, journal: Journal | None) -> None:
        """Move the mark of the watches to *journal*, after they have noted all records of the one before."""
        if journal is not None and not (self._is_followed and any(True for _ in self._each())):
            journal = None
        if journal is not None and journal.is_ours():
            self._fs.watch(journal.fd)  # first: an exception of a signal handler leaves one mark too many, not too few
        before, self._marked = self._marked, journal
        if before is not None and before is not journal and before.is_ours():
            self._fs.unwatch(before.fd)
