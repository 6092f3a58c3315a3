"""The keys, the values and the items of a `MappedDict`, live, as `dict` has them."""

from __future__ import annotations

import sys
from collections.abc import ItemsView, Iterator, KeysView, Mapping, ValuesView
from types import MappingProxyType
from typing import Any

from pstate.errors import ClosedError
from pstate.memory.frames import CopyUnderWay, for_json
from pstate.memory.nodes import backwards, closed_repr, unmapped


def keys_of(node: Any) -> list[Any]:
    return [*dict.keys(node)]


def values_of(node: Any) -> list[Any]:
    return [*dict.values(node)]


def items_of(node: Any) -> list[tuple[Any, Any]]:
    return [*dict.items(node)]


class _View:
    """The common base of the three views of a dict. `_now` makes the builtin view of this moment."""

    __slots__ = ()
    _mapping: Any  #: the `MappedDict`

    def _now(self) -> Any:
        raise NotImplementedError

    def __bool__(self) -> bool:
        return bool(self._mapping)

    def __repr__(self) -> str:
        try:
            return repr(self._now())
        except ClosedError as error:
            return closed_repr(self, error)

    @property
    def mapping(self) -> Mapping[Any, Any]:
        return MappingProxyType(self._mapping)


class _SetLikeView(_View):
    """The set operations of a dict view, each on the keys or items of one moment."""

    __slots__ = ()

    def __eq__(self, other: object) -> bool:
        try:
            return bool(self._now() == _now(other))
        except ClosedError:
            return self is other

    def __ne__(self, other: object) -> bool:
        return not self == other

    def __lt__(self, other: Any) -> Any:
        return self._now() < _now(other)

    def __le__(self, other: Any) -> Any:
        return self._now() <= _now(other)

    def __gt__(self, other: Any) -> Any:
        return self._now() > _now(other)

    def __ge__(self, other: Any) -> Any:
        return self._now() >= _now(other)

    def __and__(self, other: Any) -> Any:
        return self._now() & _now(other)

    def __or__(self, other: Any) -> Any:
        return self._now() | _now(other)

    def __sub__(self, other: Any) -> Any:
        return self._now() - _now(other)

    def __xor__(self, other: Any) -> Any:
        return self._now() ^ _now(other)

    def __rand__(self, other: Any) -> Any:
        return _now(other) & self._now()

    def __ror__(self, other: Any) -> Any:
        return _now(other) | self._now()

    def __rsub__(self, other: Any) -> Any:
        return _now(other) - self._now()

    def __rxor__(self, other: Any) -> Any:
        return _now(other) ^ self._now()

    def isdisjoint(self, other: Any) -> bool:
        return bool(self._now().isdisjoint(_now(other)))

    __hash__ = None  # type: ignore[assignment]


def _now(other: Any) -> Any:
    return other._now() if isinstance(other, _SetLikeView) else unmapped(other)


class MappedKeys(_SetLikeView, KeysView[Any]):
    """The keys of a `MappedDict`, live; iteration walks those of the moment when it began."""

    __slots__ = ()

    def _now(self) -> Any:
        return dict.fromkeys(self._mapping._store.read(keys_of, self._mapping)).keys()

    def __iter__(self) -> Iterator[Any]:
        mapping = self._mapping
        items: list[tuple[Any, Any]] = mapping._store.read(items_of, mapping)
        if items:
            CopyUnderWay.begin(mapping, items, sys._getframe(1))
        return iter([key for key, _ in items])

    def __reversed__(self) -> Iterator[Any]:
        keys: Iterator[Any] = reversed(self._mapping)
        return keys


class MappedItems(_SetLikeView, ItemsView[Any, Any]):
    """The items of a `MappedDict`, live; iteration walks those of the moment when it began."""

    __slots__ = ()

    def _now(self) -> Any:
        return self._mapping._plain().items()

    def __contains__(self, item: object) -> bool:
        return isinstance(item, tuple) and len(item) == 2 and super().__contains__(item)

    def __iter__(self) -> Iterator[tuple[Any, Any]]:
        if for_json():
            return iter(self._now())
        return iter(self._mapping._store.read(items_of, self._mapping))

    def __reversed__(self) -> Iterator[tuple[Any, Any]]:
        return backwards(self._mapping._store.read(items_of, self._mapping))


class MappedValues(_View, ValuesView[Any]):
    """The values of a `MappedDict`, live; iteration walks those of the moment when it began."""

    __slots__ = ()

    def _now(self) -> Any:
        return self._mapping._plain().values()

    def __contains__(self, value: object) -> bool:
        return unmapped(value) in self._now()

    def __iter__(self) -> Iterator[Any]:
        return iter(self._mapping._store.read(values_of, self._mapping))

    def __reversed__(self) -> Iterator[Any]:
        return backwards(self._mapping._store.read(values_of, self._mapping))
