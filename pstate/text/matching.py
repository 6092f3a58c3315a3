"""Matches the entries of two collections: which old entry each new one is, and which are alike."""

from __future__ import annotations

import marshal
from bisect import bisect_left
from typing import Any

from pstate.text.style import common
from pstate.values import identity, same

Source = list[int | None]  #: for each entry, the number of the old one that it is, or None

#: How many elements are compared to find the one that another was made from.
FEW = 16
#: Marks an entry that is a merge key.
MERGES = object()


def alike(a: Any, b: Any) -> bool:
    """Whether two plain trees are the same, in the order of their keys too."""
    return printed(a) == printed(b) or (same(a, b) and _in_order(a, b))


def _in_order(a: Any, b: Any) -> bool:
    if a.__class__ is dict:
        return list(a) == list(b) and all(map(_in_order, a.values(), b.values()))
    return a.__class__ is not list or all(map(_in_order, a, b))


def printed(value: Any) -> object:
    """An object that is equal for two plain trees only if they are alike; made by C code."""
    try:
        # Takes half as long as `repr`. From version 3 on, the bytes of equal trees may differ in shared objects.
        return marshal.dumps(value, 0)
    except ValueError:  # there is a date in it
        pass
    try:
        return repr(value)
    except ValueError:
        return object()  # an integer beyond Python's limit on decimals


class Rearranged:
    """The change of a collection: which of its entries stay, and where."""

    def __init__(
        self,
        entries: list[tuple[int, int]],
        source: Source,
        keys_before: list[Any],
        old: list[Any],
        new: list[Any],
        keys: list[Any],
        equal: set[int] | None = None,
        merges: set[int] | None = None,
        written_out: dict[int, dict[Any, Any]] | None = None,
    ) -> None:
        self.entries = entries  #: key and value by their nodes; the same node twice for an element
        self.source = source  #: the old entry that each entry of *new* comes from
        self.kept = [origin for origin in source if origin is not None]
        self.in_place = source == list(range(len(entries)))
        self.keys_before = keys_before  #: of the entries that are not merge keys, if it is a mapping
        self.old = old  #: values
        self.new = new
        self.keys = keys  #: of *new*, if it is a mapping
        self.equal = equal or set()  #: entries whose value is known to be the same
        self.merges = merges or set()  #: entries that are merge keys
        self.written_out = written_out or {}  #: merge keys that are replaced by the pairs that they have brought


def keys_from(old: dict[Any, Any], new: dict[Any, Any]) -> Source:
    """For each pair of *new*, the pair of *old* with the same key."""
    if old.keys() == new.keys() and printed(list(old)) == printed(list(new)):
        return list(range(len(old)))
    numbers = {identity(key): number for number, key in enumerate(old)}
    return [numbers.get(identity(key)) for key in new]


def beside_merges(
    count: int, keys: dict[int, Any], origins: dict[Any, int], brought: dict[Any, Any], new: dict[Any, Any]
) -> list[tuple[int | None, Any]] | None:
    """The origin and the key of each entry of a mapping that will be *new*, if its merge keys, which have *brought*
    these pairs, stay; None if they cannot.

    It has *count* entries; *keys* are its own ones by number, and *origins* the numbers by key.
    """
    wanted = [key for key in new if key not in brought or identity(key) in origins or not alike(new[key], brought[key])]
    if printed(list({**brought, **dict.fromkeys(wanted)})) != printed(list(new)):
        return None
    staying = set(map(identity, wanted))
    places: list[tuple[int | None, Any]] = []
    # Own keys that are merged too have the place of the merged ones, so only the others have an order to keep.
    rest = iter([(origins.get(identity(key)), key) for key in wanted if key not in brought])
    for number in range(count):
        if number not in keys:
            places.append((number, MERGES))
        elif identity(keys[number]) in staying:
            if keys[number] in brought:
                places.append((number, keys[number]))
                continue
            for place in rest:
                places.append(place)
                if place[0] is not None:
                    break
    return [*places, *rest, *[(None, key) for key in wanted if key in brought and identity(key) not in origins]]


def instead_of_merges(
    mark: int, origins: dict[Any, int], new: dict[Any, Any]
) -> tuple[list[tuple[int | None, Any]], dict[Any, Any]]:
    """The same if the merge keys go, with the pairs that replace the first one, which is number *mark*."""
    places: list[tuple[int | None, Any]] = []
    pairs: dict[Any, Any] = {}
    for key, value in new.items():
        origin = origins.get(identity(key))
        if origin is None and not pairs:
            places.append((mark, MERGES))
        if origin is None and places[-1][1] is MERGES:
            pairs[key] = value
        else:
            places.append((origin, key))
    return places, pairs


def elements_from(old: list[Any], new: list[Any]) -> tuple[Source, set[int]]:
    """For each element of *new*, an equal one of *old*, else one that may have changed into it; and which are equal."""
    was, now = list(map(printed, old)), list(map(printed, new))
    head = common(was, now)
    tail = common(was[head:][::-1], now[head:][::-1])
    source: Source = [None] * len(new)
    source[:head] = range(head)
    source[len(new) - tail :] = range(len(old) - tail, len(old))
    places: dict[object, list[int]] = {}
    for number in range(len(old) - tail - 1, head - 1, -1):
        places.setdefault(was[number], []).append(number)
    last = head - 1
    for number in range(head, len(new) - tail):
        equal = places.get(now[number])
        if equal:
            # The first one that keeps the order, if it is among the first few; or else the first, which has moved.
            few = range(-1, -min(len(equal), FEW) - 1, -1)
            source[number] = last = equal.pop(next((k for k in few if equal[k] > last), -1))
    equal_ones = {origin for origin in source if origin is not None}
    if None in source:
        _pair_changed(source, old, new)
    return source, equal_ones


def _pair_changed(source: Source, old: list[Any], new: list[Any]) -> None:
    """Match the elements between two that stay: if there are equally many, each is the old one, changed; else match
    those that are alike.
    """
    used = {origin for origin in source if origin is not None}
    staying = staying_of(source)
    left, run = -1, list[int]()
    for number, origin in enumerate([*source, len(old)]):
        if origin is None:
            run.append(number)
        elif origin in staying or number == len(source):
            free = [place for place in range(left + 1, origin) if place not in used]
            if len(free) == len(run):
                for later, place in zip(run, free, strict=True):
                    source[later] = place
            else:
                _pair_alike(run, free, source, old, new)
            left, run = origin, []


def _pair_alike(run: list[int], free: list[int], source: Source, old: list[Any], new: list[Any]) -> None:
    first = 0
    for number in run:
        for k in range(first, min(len(free), first + FEW)):
            if _are_like(old[free[k]], new[number]):
                source[number] = free[k]
                first = k + 1
                break


def staying_of(source: Source) -> set[int]:
    """The longest sequence of old entries that keep their order; the others have moved."""
    ends: list[int] = []  # the last one of the best sequence of each length
    before: dict[int, int | None] = {}
    for origin in source:
        if origin is not None:
            length = bisect_left(ends, origin)
            before[origin] = ends[length - 1] if length else None
            ends[length : length + 1] = [origin]
    staying = set()
    last = ends[-1] if ends else None
    while last is not None:
        staying.add(last)
        last = before[last]
    return staying


def _are_like(a: Any, b: Any) -> bool:
    """Whether one may have been made from the other: mappings with an equal value at the same key, or with lists there
    that have an equal element at the same index.
    """
    if not a.__class__ is b.__class__ is dict:
        return False
    return any(key in b and (same(item, b[key]) or _begin_alike(item, b[key])) for key, item in a.items())


def _begin_alike(a: Any, b: Any) -> bool:
    return a.__class__ is b.__class__ is list and any(map(same, a[:FEW], b[:FEW]))
