"""`MappedList`: a list in a state."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator
from operator import index as as_index
from typing import TYPE_CHECKING, Any, Self, SupportsIndex

from pstate.errors import ClosedError
from pstate.memory.frames import for_json
from pstate.memory.nodes import (
    NO_CHANGE,
    Mapped,
    backwards,
    register,
    shown_place,
    take_item,
    take_items,
    truth,
    unmapped,
)
from pstate.memory.ops import NODES, Op, plain
from pstate.values import FAST, SCALARS

if TYPE_CHECKING:
    from pstate.memory.owner import Intent

_list_item, _list_len, _list_copy, _list_has = list.__getitem__, list.__len__, list.copy, list.__contains__


class MappedList(Mapped, list[Any]):
    """A list in a state. A reference to an element stays valid when elements before it come and go."""

    __slots__ = ("_drift", "_key", "_parent", "_size", "_store")

    _size: int  #: its length by its operations; if the list has another length, code has bypassed them
    _drift: int  #: how far the last element that was looked for had moved, see `ops.index_of`

    if TYPE_CHECKING:

        def _plain(self) -> list[Any]: ...

    def __new__(cls, *args: Any) -> Self:
        values: list[Any] = list(*map(unmapped, args))
        made: Any = list(map(unmapped, values))
        return made  # type: ignore[no-any-return]

    # reading

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return self._store.read(_slice, self, _resolved(index))
        if type(index) is not int:
            index = _index(index)
        store = self._store
        view = store.fresh()
        if view is not None:
            try:
                value = _list_item(self, index)
            except IndexError:
                if store.view is view:
                    raise
            else:
                if store.view is view:
                    return value
        return store.read(_list_item, self, index)

    def __len__(self) -> int:
        store = self._store
        view = store.fresh()
        if view is not None:
            size = _list_len(self)
            if store.view is view:
                return size
        return int(store.read(_list_len, self))

    __bool__ = truth(_list_len)

    def __contains__(self, value: object) -> bool:
        if type(value) in SCALARS:
            return bool(self._store.read(_list_has, self, value))
        return unmapped(value) in self._plain()

    def __iter__(self) -> Iterator[Any]:
        if for_json():
            return iter(self._plain())
        return iter(self._store.read(_list_copy, self))

    def __reversed__(self) -> Iterator[Any]:
        return backwards(self._store.read(_list_copy, self))

    def index(self, value: Any, start: Any = 0, stop: Any = sys.maxsize, /) -> int:
        """Return the first index of *value* from *start* to *stop*. Raises ValueError if there is none."""
        if type(value) in SCALARS:
            return int(self._store.read(list.index, self, value, as_index(start), as_index(stop)))
        return self._plain().index(unmapped(value), start, stop)

    def count(self, value: Any, /) -> int:
        """Return how often *value* occurs."""
        if type(value) in SCALARS:
            return int(self._store.read(list.count, self, value))
        return self._plain().count(unmapped(value))

    def copy(self) -> list[Any]:
        """Return a plain list; containers in it are plain copies as well."""
        return self._plain()

    def __eq__(self, other: object) -> bool:
        if self is other:
            return True
        if not isinstance(other, list):
            return NotImplemented
        try:
            return len(self) == len(other) and self._plain() == unmapped(other)
        except ClosedError:
            return False

    def __lt__(self, other: Any) -> bool:
        return self._plain() < unmapped(other) if isinstance(other, list) else NotImplemented

    def __le__(self, other: Any) -> bool:
        return self._plain() <= unmapped(other) if isinstance(other, list) else NotImplemented

    def __gt__(self, other: Any) -> bool:
        return self._plain() > unmapped(other) if isinstance(other, list) else NotImplemented

    def __ge__(self, other: Any) -> bool:
        return self._plain() >= unmapped(other) if isinstance(other, list) else NotImplemented

    __hash__ = None

    def __add__(self, other: Any) -> list[Any]:
        return self._plain() + unmapped(other) if isinstance(other, list) else NotImplemented

    def __radd__(self, other: Any) -> list[Any]:
        return other + self._plain() if isinstance(other, list) else NotImplemented

    def __mul__(self, times: Any) -> list[Any]:
        return self._plain() * times if hasattr(times, "__index__") else NotImplemented

    __rmul__ = __mul__

    def __reduce_ex__(self, protocol: SupportsIndex) -> Any:
        return list, (self._plain(),)

    # changing

    def __setitem__(self, index: Any, value: Any) -> None:
        if isinstance(index, slice):
            index = _resolved(index)
            if not hasattr(type(value), "__iter__") and not hasattr(type(value), "__getitem__"):
                raise TypeError("can only assign an iterable")
            first = index.indices(_list_len(self))[0]
            self._store.mutate(self, _set_slice, index, take_items(self, first, value))
            return
        if type(index) is not int:
            index = _index(index)
        kind = type(value)
        if kind not in FAST and not (kind is str and value.isascii()):
            if kind in NODES and self._store.read(_holds_index, self, index, value):
                return  # the second half of `state.jobs[0] += [1]`
            value = take_item(self, index, value)
        self._store.mutate(self, _set_index, index, value)

    def __delitem__(self, index: Any) -> None:
        if isinstance(index, slice):
            self._store.mutate(self, _delete_slice, _resolved(index))
        else:
            self._store.mutate(self, _delete_index, _index(index), "list assignment index out of range")

    def append(self, value: Any, /) -> None:
        """Add *value* at the end in one commit."""
        kind = type(value)
        if kind not in FAST and not (kind is str and value.isascii()):
            value = take_item(self, _list_len(self), value)
        self._store.mutate(self, _append, value)

    def insert(self, index: Any, value: Any, /) -> None:
        """Insert *value* before *index* in one commit."""
        index = as_index(index)
        if type(value) not in FAST:
            value = take_item(self, index, value)
        self._store.mutate(self, _insert, index, value)

    def extend(self, values: Iterable[Any], /) -> None:
        """Add all *values* at the end in one commit: all of them or, if one is refused, none."""
        self._store.mutate(self, _extend, take_items(self, _list_len(self), values))

    def __iadd__(self, values: Iterable[Any]) -> MappedList:  # type: ignore[misc]
        self.extend(values)
        return self

    def __imul__(self, times: Any) -> MappedList:
        if not hasattr(times, "__index__"):
            return NotImplemented
        self._store.mutate(self, _repeat, as_index(times))
        return self

    def pop(self, index: Any = -1, /) -> Any:
        """Delete the element at *index* in one commit, and return it. Raises IndexError if there is none."""
        return self._store.mutate(self, _delete_index, as_index(index), "pop index out of range")

    def remove(self, value: Any, /) -> None:
        """Delete the first element that is equal to *value* in one commit. Raises ValueError if there is none."""
        self._store.mutate(self, _remove, unmapped(value))

    def clear(self) -> None:
        """Delete all elements in one commit."""
        self._store.mutate(self, _clear)

    def reverse(self) -> None:
        """Reverse the order of the elements in one commit."""
        self._store.mutate(self, _reverse)

    def sort(self, *, key: Callable[[Any], Any] | None = None, reverse: Any = False) -> None:
        """Sort in one commit; elements keep their identity.

        *key* gets the elements themselves and runs without a lock, so it may use the state. If another process or
        thread changes the list meanwhile, the keys are taken again; in a transaction that cannot happen. Raises
        ValueError, as for a builtin list, if the list keeps changing, for instance by *key* itself.
        """
        if key is None:
            self._store.mutate(self, _sort, reverse)
            return
        for _ in range(10):
            elements, content = self._store.read(_elements_and_content, self)
            order = _order([key(element) for element in elements], reverse)
            if self._store.mutate(self, _reorder, content, order):
                return
        raise ValueError(
            f"{shown_place(self)}: list modified during sort. Nothing was changed. Sort it in a transaction."
        )


def _index(index: Any) -> int:
    if not hasattr(index, "__index__"):
        raise TypeError(f"list indices must be integers or slices, not {type(index).__name__}")
    return as_index(index)


def _resolved(piece: slice) -> slice:
    """The slice with plain integers, so that no `__index__` of the program runs under the lock."""
    start, stop, step = (None if part is None else as_index(part) for part in (piece.start, piece.stop, piece.step))
    if step == 0:
        raise ValueError("slice step cannot be zero")
    return slice(start, stop, step)


def _slice(node: Any, piece: slice) -> list[Any]:
    return [plain(item) if type(item) in NODES else item for item in _list_item(node, piece)]


def _holds_index(node: Any, index: int, value: Any) -> bool:
    return -_list_len(node) <= index < _list_len(node) and _list_item(node, index) is value


def _set_index(node: Any, index: int, value: Any) -> Intent:
    size = _list_len(node)
    if not -size <= index < size:
        raise IndexError("list assignment index out of range")
    return [("set", index % size, value)], None


def _delete_index(node: Any, index: int, problem: str) -> Intent:
    size = _list_len(node)
    if not -size <= index < size:
        raise IndexError(problem if size or "pop" not in problem else "pop from empty list")
    return [("delete", index % size)], _list_item(node, index)


def _set_slice(node: Any, piece: slice, values: list[Any]) -> Intent:
    start, stop, step = piece.indices(_list_len(node))
    if step == 1:
        stop = max(start, stop)
        return ([("splice", start, stop, values)] if values or start < stop else []), None
    places = range(start, stop, step)
    if len(places) != len(values):
        raise ValueError(f"attempt to assign sequence of size {len(values)} to extended slice of size {len(places)}")
    return [("set", index, value) for index, value in zip(places, values, strict=True)], None


def _delete_slice(node: Any, piece: slice) -> Intent:
    size = _list_len(node)
    places = range(*piece.indices(size))
    if places.step < 0:
        places = places[::-1]
    if not places:
        return NO_CHANGE
    if places.step == 1:
        return [("splice", places.start, places.stop, [])], None
    if len(places) <= 8:
        return [("delete", index) for index in reversed(places)], None
    # Many single deletions would each move the rest. Instead, move the elements to delete to the end, and cut there.
    kept = [index for index in range(size) if index not in places]
    return [("order", [*kept, *places]), ("splice", len(kept), size, [])], None


def _append(node: Any, value: Any) -> Intent:
    return [("insert", _list_len(node), value)], None


def _insert(node: Any, index: int, value: Any) -> Intent:
    size = _list_len(node)
    return [("insert", max(0, index + size) if index < 0 else min(index, size), value)], None


def _extend(node: Any, values: list[Any]) -> Intent:
    size = _list_len(node)
    if len(values) == 1:
        return [("insert", size, values[0])], None
    return ([("splice", size, size, values)] if values else []), None


def _repeat(node: Any, times: int) -> Intent:
    if times <= 0:
        return _clear(node)
    return _extend(node, plain(node) * (times - 1))


def _remove(node: Any, value: Any) -> Intent:
    try:
        index = list.index(node if type(value) in SCALARS else plain(node), value)
    except ValueError:
        raise ValueError("list.remove(x): x not in list") from None
    return [("delete", index)], None


def _clear(node: Any) -> Intent:
    size = _list_len(node)
    return ([("splice", 0, size, [])] if size else []), None


def _reverse(node: Any) -> Intent:
    size = _list_len(node)
    return ([("order", list(range(size - 1, -1, -1)))] if size > 1 else []), None


def _order(keys: list[Any], reverse: Any) -> list[int]:
    return sorted(range(len(keys)), key=keys.__getitem__, reverse=reverse)


def _permute(order: list[int]) -> list[Op]:
    return [("order", order)] if any(new != old for new, old in enumerate(order)) else []


def _sort(node: Any, reverse: Any) -> Intent:
    return _permute(_order(plain(node), reverse)), None


def _elements_and_content(node: Any) -> tuple[list[Any], list[Any]]:
    return _list_copy(node), plain(node)


def _reorder(node: Any, content: list[Any], order: list[int]) -> Intent:
    return (_permute(order), True) if plain(node) == content else ([], False)


register(list, MappedList)
