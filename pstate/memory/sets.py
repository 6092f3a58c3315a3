"""`MappedSet`: a set in a state."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import partial
from itertools import chain
from typing import TYPE_CHECKING, Any, Self, SupportsIndex

from pstate.errors import ClosedError
from pstate.memory.nodes import NO_CHANGE, Mapped, recorded, register, shown_place, truth, unmapped
from pstate.memory.ops import stored_key
from pstate.values import check_member

if TYPE_CHECKING:
    from pstate.memory.owner import Intent

_set_has, _set_len, _set_iter = set.__contains__, set.__len__, set.__iter__


class MappedSet(Mapped, set[Any]):
    """A set in a state."""

    __slots__ = ("_key", "_parent", "_queue", "_store")

    _queue: list[Any]

    if TYPE_CHECKING:

        def _plain(self) -> set[Any]: ...

    def __new__(cls, *args: Any) -> Self:
        made: Any = set(*map(unmapped, args))
        return made  # type: ignore[no-any-return]

    # reading

    def __contains__(self, member: object) -> bool:
        store = self._store
        view = store.fresh()
        if view is not None:
            found = _set_has(self, member)
            if store.view is view:
                return found
        return bool(store.read(_set_has, self, member))

    def __len__(self) -> int:
        store = self._store
        view = store.fresh()
        if view is not None:
            size = _set_len(self)
            if store.view is view:
                return size
        return int(store.read(_set_len, self))

    __bool__ = truth(_set_len)

    def __iter__(self) -> Iterator[Any]:
        return iter(self._store.read(_members, self))

    def copy(self) -> set[Any]:
        """Return a plain set."""
        return self._plain()

    def __eq__(self, other: object) -> bool:
        if self is other:
            return True
        if not isinstance(other, (set, frozenset)):
            return NotImplemented
        try:
            return bool(self._plain() == unmapped(other))
        except ClosedError:
            return False

    def __lt__(self, other: Any) -> bool:
        return self._plain() < unmapped(other) if isinstance(other, (set, frozenset)) else NotImplemented

    def __le__(self, other: Any) -> bool:
        return self._plain() <= unmapped(other) if isinstance(other, (set, frozenset)) else NotImplemented

    def __gt__(self, other: Any) -> bool:
        return self._plain() > unmapped(other) if isinstance(other, (set, frozenset)) else NotImplemented

    def __ge__(self, other: Any) -> bool:
        return self._plain() >= unmapped(other) if isinstance(other, (set, frozenset)) else NotImplemented

    __hash__ = None

    def __and__(self, other: Any) -> set[Any]:
        return self._plain() & unmapped(other) if isinstance(other, (set, frozenset)) else NotImplemented

    def __or__(self, other: Any) -> set[Any]:
        return self._plain() | unmapped(other) if isinstance(other, (set, frozenset)) else NotImplemented

    def __sub__(self, other: Any) -> set[Any]:
        return self._plain() - unmapped(other) if isinstance(other, (set, frozenset)) else NotImplemented

    def __xor__(self, other: Any) -> set[Any]:
        return self._plain() ^ unmapped(other) if isinstance(other, (set, frozenset)) else NotImplemented

    def __rand__(self, other: Any) -> Any:
        return other & self._plain() if isinstance(other, (set, frozenset)) else NotImplemented

    def __ror__(self, other: Any) -> Any:
        return other | self._plain() if isinstance(other, (set, frozenset)) else NotImplemented

    def __rsub__(self, other: Any) -> Any:
        return other - self._plain() if isinstance(other, (set, frozenset)) else NotImplemented

    def __rxor__(self, other: Any) -> Any:
        return other ^ self._plain() if isinstance(other, (set, frozenset)) else NotImplemented

    def union(self, *others: Iterable[Any]) -> set[Any]:
        """Return a plain set of the members of this set and of all *others*."""
        return self._plain().union(*map(unmapped, others))

    def intersection(self, *others: Iterable[Any]) -> set[Any]:
        """Return a plain set of the members that are in all *others* too."""
        return self._plain().intersection(*map(unmapped, others))

    def difference(self, *others: Iterable[Any]) -> set[Any]:
        """Return a plain set of the members that are in none of the *others*."""
        return self._plain().difference(*map(unmapped, others))

    def symmetric_difference(self, other: Iterable[Any], /) -> set[Any]:
        """Return a plain set of the members that are in this set or in *other*, but not in both."""
        return self._plain().symmetric_difference(unmapped(other))

    def isdisjoint(self, other: Iterable[Any], /) -> bool:
        """Return whether this set and *other* have no member in common."""
        return self._plain().isdisjoint(unmapped(other))

    def issubset(self, other: Iterable[Any], /) -> bool:
        """Return whether all members are in *other*."""
        return self._plain().issubset(unmapped(other))

    def issuperset(self, other: Iterable[Any], /) -> bool:
        """Return whether all members of *other* are in this set."""
        return self._plain().issuperset(unmapped(other))

    def __reduce_ex__(self, protocol: SupportsIndex) -> Any:
        return set, (self._store.read(_members, self),)

    # changing

    def add(self, member: Any, /) -> None:
        """Add *member* in one commit. Commits nothing if it is a member already."""
        if type(member) is not str or not member.isascii():
            member = check_member(member, partial(shown_place, self))
        self._store.mutate(self, _add, [member])

    def discard(self, member: Any, /) -> None:
        """Delete *member* in one commit. Commits nothing if it is not a member."""
        self._store.mutate(self, _discard, member, False)

    def remove(self, member: Any, /) -> None:
        """Delete *member* in one commit. Raises KeyError if it is not a member."""
        self._store.mutate(self, _discard, member, True)

    def pop(self) -> Any:
        """Delete a member in one commit, and return it. Raises KeyError for an empty set."""
        return self._store.mutate(self, _pop_member)

    def clear(self) -> None:
        """Delete all members in one commit."""
        self._store.mutate(self, _discard_all, None)

    def _members_of(self, others: Iterable[Iterable[Any]]) -> list[Any]:
        place = partial(shown_place, self)
        members = chain.from_iterable(unmapped(other) for other in others)
        # Each member once, in the given order. The order of a set would change from run to run.
        return list(dict.fromkeys(check_member(member, place) for member in members))

    def update(self, *others: Iterable[Any]) -> None:
        """Add the members of all *others* in one commit: all of them or, if one is refused, none."""
        self._store.mutate(self, _add, self._members_of(others))

    def intersection_update(self, *others: Iterable[Any]) -> None:
        """Keep only the members that are in all *others*, in one commit."""
        self._store.mutate(self, _keep, [set(unmapped(other)) for other in others])

    def difference_update(self, *others: Iterable[Any]) -> None:
        """Delete the members that are in one of the *others*, in one commit."""
        self._store.mutate(self, _discard_all, set().union(*map(unmapped, others)))

    def symmetric_difference_update(self, other: Iterable[Any], /) -> None:
        """Add the members of *other* that are new, and delete those that are not, in one commit."""
        self._store.mutate(self, _toggle, self._members_of([other]))

    def __ior__(self, other: Any) -> MappedSet:
        if not isinstance(other, (set, frozenset)):
            return NotImplemented
        self.update(other)
        return self

    def __iand__(self, other: Any) -> MappedSet:
        if not isinstance(other, (set, frozenset)):
            return NotImplemented
        self.intersection_update(other)
        return self

    def __isub__(self, other: Any) -> MappedSet:
        if not isinstance(other, (set, frozenset)):
            return NotImplemented
        self.difference_update(other)
        return self

    def __ixor__(self, other: Any) -> MappedSet:
        if not isinstance(other, (set, frozenset)):
            return NotImplemented
        self.symmetric_difference_update(other)
        return self


def _members(node: Any) -> list[Any]:
    return [*_set_iter(node)]


def _add(node: Any, members: list[Any]) -> Intent:
    new = [member for member in members if not _set_has(node, member)]
    return ([("add", new)] if new else []), None


def _discard(node: Any, member: Any, required: bool) -> Intent:
    if _set_has(node, member):
        return [("discard", [recorded(node, member)])], None
    if required:
        raise KeyError(member)
    return NO_CHANGE


def _discard_all(node: Any, members: set[Any] | None) -> Intent:
    gone = [member for member in _set_iter(node) if members is None or member in members]
    return ([("discard", gone)] if gone else []), None


def _keep(node: Any, others: list[set[Any]]) -> Intent:
    gone = [member for member in _set_iter(node) if not all(member in other for other in others)]
    return ([("discard", gone)] if gone else []), None


def _toggle(node: Any, members: list[Any]) -> Intent:
    gone = [member for member in members if _set_has(node, member)]
    new = [member for member in members if not _set_has(node, member)]
    return [(name, found) for name, found in (("discard", gone), ("add", new)) if found], None


def _pop_member(node: Any) -> Intent:
    if not _set_len(node):
        raise KeyError("pop from an empty set")
    # In a set that is emptied from the front, finding the first member takes longer each time. So there is a queue of
    # members. It may be outdated, and is filled again when it is empty: constant time for each call, for sets of any
    # size.
    queue = getattr(node, "_queue", [])
    while queue and not _set_has(node, queue[-1]):
        queue.pop()
    if not queue:
        queue = node._queue = _members(node)
    member = stored_key(node, queue[-1])
    return [("discard", [member])], member


register(set, MappedSet)
