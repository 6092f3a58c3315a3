"""What the journals before this one began with."""

from __future__ import annotations

from pstate.file import format as f
from pstate.file import limits
from pstate.file.journal import Journal
from pstate.file.site import Site


class Past:
    """Base documents and generations of the journals before this one, and until when each matters."""

    __slots__ = ("_previous", "_site")

    def __init__(self, site: Site) -> None:
        self._site = site
        self._previous: tuple[tuple[bytes, str, float], ...] = ()

    def remember(self, journal: Journal) -> None:
        """Keep what *journal* began with, if it has commits: an editor may hold a copy from before them.

        Not of a file that a link has led to, and that is still where it was: when the link leads there again, what it
        says is what counts, because it is not a copy.
        """
        if journal.marker is None or (journal.path != self._site.path and not self._site.is_moved(journal)):
            return
        now = self._site.fs.clock()
        kept = [previous for previous in self._previous if previous[2] > now]
        kept.append((journal.base, journal.marker.generation, now + limits.STALE_COPY))
        while len(kept) > limits.STALE_COPIES or (
            len(kept) > limits.STALE_AT_LEAST and sum(len(previous[0]) for previous in kept) > limits.STALE_BYTES
        ):
            del kept[0]
        self._previous = tuple(kept)

    def known(self) -> list[tuple[bytes, str | None]]:
        """The base documents that a copy in an editor may still have, each with its generation."""
        now = self._site.fs.clock()
        return [(base, generation) for base, generation, until in self._previous if now < until]

    def draw_generation(self) -> str:
        """A new generation: a repeated one would make the records of an old journal valid in a new one."""
        while True:
            generation = self._site.fs.token()
            if generation != f.NO_GENERATION and all(generation != previous[1] for previous in self._previous):
                return generation

    def forget(self) -> None:
        """In a forked child: the editors' copies are the parent's business."""
        self._previous = ()
