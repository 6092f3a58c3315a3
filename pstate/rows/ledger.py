"""What a program knows of the commits of one state: a document, and the records after it; and notes for watches."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple, Protocol

from pstate.engine import Bell, Body, Leg, Operations, Origin, State
from pstate.text import reading


class Record(NamedTuple):
    """One commit."""

    token: str  #: that its author has made, and nobody else
    body: Body
    is_ours: bool  #: this process has committed it


class Ledger:
    """A document at one revision, and the records after that. Records are only ever appended."""

    __slots__ = ("base", "document", "due_after", "is_canonical", "next", "origin", "records", "size", "token", "where")

    def __init__(
        self, where: str, base: int, token: str, document: str, origin: Origin | None = None, is_canonical: bool = False
    ) -> None:
        self.where = where  #: the address, for messages
        self.base = base  #: the revision of the document
        self.token = token  #: of that revision
        self.document = document
        #: The origin of the document, if it says something else than the ledger before it; else None.
        self.origin: Origin | None = origin
        self.is_canonical = is_canonical  #: nothing in the document is a person's
        self.records: list[Record] = []
        self.due_after = 0  #: no snapshot is due before this revision
        self.size = 0  #: of the bodies, about
        self.next: Ledger | None = None

    @property
    def last(self) -> int:
        """The newest revision here."""
        return self.base + len(self.records)

    def token_of(self, rev: int) -> str:
        """The token of revision *rev*."""
        return self.records[rev - self.base - 1].token if rev > self.base else self.token

    def add(self, record: Record) -> None:
        """Append the *record* that follows."""
        self.size += len(record.body)
        self.records.append(record)

    def state(self) -> State:
        """What the document says."""
        return reading.load(self.document.encode(), self.where).value

    def after(self, rev: int, last: int | None = None) -> list[Record]:
        """The records after revision *rev*, up to *last* or the end."""
        return self.records[rev - self.base : None if last is None else last - self.base]

    def decoded(self, records: list[Record], before: int) -> Iterator[Operations]:
        """*records*, which come after revision *before*, each decoded when it is its turn."""
        return (reading.decode_body(each.body, self.where, rev) for rev, each in enumerate(records, before + 1))


class Point(NamedTuple):
    """A boundary between two commits: what a view is here."""

    ledger: Ledger
    rev: int

    def up_to(self, newest: Ledger) -> Iterator[tuple[Ledger, int]]:
        """The ledgers from this point to *newest*, each with the revision to go on from."""
        ledger, rev = self
        yield ledger, rev
        while ledger is not newest and ledger.next is not None:
            last, ledger = ledger.last, ledger.next
            yield ledger, last if ledger.origin is None else ledger.base


class Located(Protocol):
    """What knows where memory is."""

    at: Point | None


class Ringing(Bell, Protocol):
    """A bell in a session of its own."""

    def close(self) -> None:
        """End the session."""
        ...

    def forget(self) -> None:
        """In a forked child: the session is the parent's."""
        ...


class Trail:
    """The notes for one watch, which begins at a point: see `engine.Trail`. It reads ledgers, so it misses nothing."""

    def __init__(self, memory: Located, at: Point, unknown: int, bell: Ringing | None) -> None:
        self.bell = bell
        self._memory = memory
        self._at = at
        self._unknown = unknown
        self._legs: list[Leg] = []
        self.conflict: Exception | None = None

    def close(self) -> None:
        """Nobody waits for it any more."""
        if self.bell is not None:
            self.bell.close()

    def forget(self) -> None:
        """In a forked child."""
        if self.bell is not None:
            self.bell.forget()

    def collect(self) -> int:
        """See `engine.Trail`."""
        memory = self._memory.at
        if memory is not None and memory != self._at:
            # No call among these, so that no exception of a signal handler comes in between.
            legs = self._noted(memory)
            self._legs, self._at = legs, memory
        return len(self._legs)

    def _noted(self, memory: Point) -> list[Leg]:
        legs = self._legs[:]
        for ledger, rev in self._at.up_to(memory.ledger):
            origin = ledger.origin
            if origin is not None and ledger is not self._at.ledger:
                legs.append(Leg(ledger.state(), origin, [], ledger.base, frozenset(), self._unknown))
            last = memory.rev if ledger is memory.ledger else None
            records = ledger.after(rev, last)
            if records:
                others = frozenset(number for number, record in enumerate(records, rev + 1) if not record.is_ours)
                legs.append(Leg(None, None, ledger.decoded(records, rev), rev, others, self._unknown))
        return legs

    def take(self, number: int | None = None) -> list[Leg]:
        """See `engine.Trail`."""
        if number is None:
            number = self.collect()
        legs, self._legs = self._legs[:number], self._legs[number:]
        return legs
