"""The base documents of earlier journals."""

from __future__ import annotations

from pstate.file import format as f
from pstate.file import limits
from pstate.file.journal import Journal
from pstate.file.site import Site


class Past:
    """Base documents and generations of the journals before this one, and until when each is kept."""

    __slots__ = ("_previous", "_site")

    def __init__(self, site: Site) -> None:
        self._site = site
        self._previous: tuple[tuple[bytes, str, float], ...] = ()

    def remember(self, journal: Journal) -> None:
        """Keep the base document of *journal*, if it has commits: an editor may have a copy from before them.

        Not of a file that a link has led to, and that still exists: if the link leads there again, its content counts,
        because it is not a copy.
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
        """The base documents that an editor may still have a copy of, each with its generation."""
        now = self._site.fs.clock()
        return [(base, generation) for base, generation, until in self._previous if now < until]

    def draw_generation(self) -> str:
        """A new generation. A repeated one would make the records of an old journal valid in a new one."""
        while True:
            generation = self._site.fs.token()
            if generation != f.NO_GENERATION and all(generation != previous[1] for previous in self._previous):
                return generation

    def forget(self) -> None:
        """In a forked child: the parent handles copies in editors."""
        self._previous = ()
