"""Changes of a state by path: the difference of two trees, and the effects of a record's operations at a place.

Pure functions on trees: plain ones, and `grown` ones, which belong to one caller.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

from pstate.engine import Origin
from pstate.memory import ops
from pstate.memory.ops import ABSENT
from pstate.text import paths
from pstate.values import ordered, same, unchanged_ends


class Change(NamedTuple):
    """The change of the value at one place."""

    path: tuple[Any, ...]  #: keys and indices, from the state down; an index is the one at the time of the change
    old: Any = ABSENT  #: a copy in built-in types; `ABSENT` if there was no value
    new: Any = ABSENT  #: a copy in built-in types; `ABSENT` if the value was deleted
    origin: Origin | None = None  #: this process, another one, or a person's edit; None if it is unknown
    commit: int | None = None  #: the number of its record since the last vacuum; None for a change without a record
    is_member: bool = False  #: whether the last key of *path* is a member of a set


def between(old: Any, new: Any, path: tuple[Any, ...] = ()) -> Iterator[Change]:
    """How the plain tree *new* at *path* differs from *old*. The order of keys does not count."""
    if same(old, new):
        return
    kind = type(old) if type(old) is type(new) else None
    if kind is dict:
        for key, value in old.items():
            if key in new:
                yield from between(value, new[key], (*path, key))
            else:
                yield Change((*path, key), value, ABSENT)
        for key, value in new.items():
            if key not in old:
                yield Change((*path, key), ABSENT, value)
    elif kind is list:
        yield from _between_lists(old, new, path)
    elif kind is set:
        yield from (Change((*path, member), member, ABSENT, is_member=True) for member in ordered(old - new))
        yield from (Change((*path, member), ABSENT, member, is_member=True) for member in ordered(new - old))
    else:
        yield Change(path, old, new)


def _between_lists(old: list[Any], new: list[Any], path: tuple[Any, ...]) -> Iterator[Change]:
    first, last = unchanged_ends(old, new)
    if len(old) == len(new):
        for index in range(first, len(old) - last):
            yield from between(old[index], new[index], (*path, index))
        return
    yield from (Change((*path, index), old[index], ABSENT) for index in range(first, len(old) - last))
    yield from (Change((*path, index), ABSENT, new[index]) for index in range(first, len(new) - last))


def between_at(old: Any, new: Any, place: list[Any]) -> Iterator[Change]:
    """How the plain state *new* differs from *old* at *place*, and in it."""
    before, after = _look(old, place), _look(new, place)
    if before.value is not ABSENT and after.value is not ABSENT:
        yield from between(before.value, after.value, after.path)
    elif before.value is not after.value:
        yield _seen(before, after)


def grown(state: Any) -> Any:
    """The plain tree *state* as a tree that operations can be applied to."""
    return ops.graft(state, None, ops.DETACHED, None)


def play(root: Any, operation: list[Any], place: list[Any]) -> list[Change]:
    """Carry out *operation*, of a record, on the grown tree *root*; returns its changes at *place*, and in it.

    A place is a position: an insert before ``jobs[0]`` changes the value at ``jobs[0]``. Raises LookupError, TypeError
    or ValueError if the operation does not fit; nothing has changed then.
    """
    name, path, *rest = operation
    node = ops.find(root, path)
    prepared = ops.prepare(node, (name, *rest), None)
    if len(path) >= len(place):
        is_inside = not place or _resolve(root, place) == path[: len(place)]
        found = list(effects(node, tuple(path), name, rest)) if is_inside else []
        ops.apply(node, prepared, False)
        return found
    is_around = _resolve(root, place[: len(path)]) == path
    if not is_around or (isinstance(node, dict) and rest[0] != place[len(path)]):
        ops.apply(node, prepared, False)
        return []
    before = _look(root, place)
    ops.apply(node, prepared, False)
    after = _look(root, place)
    if before.value is ABSENT or after.value is ABSENT:
        return [_seen(before, after)] if before.value is not after.value else []
    return [] if same(before.value, after.value) else [_seen(before, after)]


def effects(node: Any, path: tuple[Any, ...], name: str, rest: list[Any]) -> Iterator[Change]:
    """What the operation *name*, which fits, will change in *node*, which is at *path*."""
    if name in ("add", "discard"):
        for member in rest[0]:
            if set.__contains__(node, member) == (name == "discard"):
                old, new = (ABSENT, member) if name == "add" else (member, ABSENT)
                yield Change((*path, member), old, new, is_member=True)
    elif name == "order":
        old = ops.plain(node)
        new = [old[index] for index in rest[0]]
        if not same(old, new):
            yield Change(path, old, new)
    elif name == "splice":
        start, stop, values = rest
        for index in range(start, stop):
            yield Change((*path, index), _plain(_item(node, index)), ABSENT)
        for index, value in enumerate(values, start):
            yield Change((*path, index), ABSENT, value)
    else:
        key = rest[0]
        try:
            old = ABSENT if name == "insert" else _plain(_item(node, key))
        except LookupError:
            old = ABSENT
        new = ABSENT if name == "delete" else rest[1]
        if old is ABSENT or new is ABSENT or not same(old, new):
            yield Change((*path, key), old, new)


class _Sight(NamedTuple):
    """The present value at a place: its actual keys and indices, and a plain copy of the value, or `ABSENT`."""

    path: tuple[Any, ...]
    value: Any
    is_member: bool


def _look(tree: Any, place: list[Any]) -> _Sight:
    keys = _resolve(tree, place)
    if keys is None:
        return _Sight(tuple(place), ABSENT, False)
    around = None
    for key in keys:
        around, tree = tree, _item(tree, key)
    return _Sight(tuple(keys), _plain(tree), isinstance(around, set))


def _seen(before: _Sight, after: _Sight) -> Change:
    path = before.path if after.value is ABSENT else after.path
    return Change(path, before.value, after.value, is_member=before.is_member or after.is_member)


def _resolve(tree: Any, place: list[Any]) -> list[Any] | None:
    """The actual keys and indices of *place*, which may be ``jobs[-1]``; None if there is no value."""
    keys: list[Any] = []
    for key in place:
        try:
            if isinstance(tree, list):
                key = range(list.__len__(tree))[paths.index(key)]
            tree = _item(tree, key)
        except (LookupError, TypeError):
            return None
        keys.append(key)
    return keys


# The methods of the built-in kinds: these containers do not belong to a store that has the newest value.


def _item(tree: Any, key: Any) -> Any:
    if isinstance(tree, dict):
        return dict.__getitem__(tree, key)
    if isinstance(tree, list):
        return list.__getitem__(tree, key)
    if isinstance(tree, set) and set.__contains__(tree, key):
        return key
    raise KeyError(key)


def _plain(value: Any) -> Any:
    return ops.plain(value) if isinstance(value, dict | list | set) else value
