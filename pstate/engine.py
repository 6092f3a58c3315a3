"""The door between the store and the engine that keeps its commits."""

from __future__ import annotations

from typing import Any, Literal, NamedTuple, TypeAlias

#: A state in built-in types.
State: TypeAlias = dict[Any, Any]

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
