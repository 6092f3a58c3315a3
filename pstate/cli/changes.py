"""Changes of a state, by path: the difference of two trees, and what the operations of a record do; and their lines."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

from pstate import codec, ops
from pstate.cli import paths, show
from pstate.values import same, unchanged_ends

ABSENT = ops.ABSENT


class Change(NamedTuple):
    """What became of the value at one place."""

    path: list[Any]
    old: Any  #: a plain tree, or ABSENT
    new: Any
    is_member: bool = False  #: of a set: the last key of the path says it all

    def line(self) -> str:
        """For a person."""
        sign = "+" if self.old is ABSENT else "-" if self.new is ABSENT else "~"
        parts = [codec.flow(value) for value in (self.old, self.new) if value is not ABSENT]
        text = f"{sign} {paths.show(self.path)}" + ("" if self.is_member else ": " + " -> ".join(parts))
        return show.coloured(text, {"+": "green", "-": "red", "~": "yellow"}[sign])

    def fields(self) -> dict[str, Any]:
        """For a program."""
        values = {"old": self.old, "new": self.new}
        return {"path": paths.show(self.path), **{name: value for name, value in values.items() if value is not ABSENT}}


def between(old: Any, new: Any, path: list[Any]) -> Iterator[Change]:
    """How the plain tree *new* at *path* differs from *old*. The order of keys is no difference."""
    if same(old, new):
        return
    kind = type(old) if type(old) is type(new) else None
    if kind is dict:
        for key, value in old.items():
            if key in new:
                yield from between(value, new[key], [*path, key])
            else:
                yield Change([*path, key], value, ABSENT)
        for key, value in new.items():
            if key not in old:
                yield Change([*path, key], ABSENT, value)
    elif kind is list:
        yield from _between_lists(old, new, path)
    elif kind is set:
        yield from (Change([*path, member], member, ABSENT, True) for member in codec.ordered(old - new))
        yield from (Change([*path, member], ABSENT, member, True) for member in codec.ordered(new - old))
    else:
        yield Change(path, old, new)


def _between_lists(old: list[Any], new: list[Any], path: list[Any]) -> Iterator[Change]:
    first, last = unchanged_ends(old, new)
    if len(old) == len(new):
        for index in range(first, len(old) - last):
            yield from between(old[index], new[index], [*path, index])
        return
    yield from (Change([*path, index], old[index], ABSENT) for index in range(first, len(old) - last))
    yield from (Change([*path, index], ABSENT, new[index]) for index in range(first, len(new) - last))


def of_operation(root: Any, operation: list[Any]) -> list[Change]:
    """What *operation*, of a record, will do to *root*. Raises LookupError or TypeError where it does not fit."""
    name, path, *rest = operation
    node = ops.find(root, path)
    if name == "set":
        return [Change([*path, rest[0]], _plain_item(node, rest[0]), rest[1])]
    if name == "delete":
        return [Change([*path, rest[0]], _plain_item(node, rest[0]), ABSENT)]
    if name == "insert":
        return [Change([*path, rest[0]], ABSENT, rest[1])]
    if name == "splice":
        start, stop, values = rest
        gone = [Change([*path, index], _plain_item(node, index), ABSENT) for index in range(start, stop)]
        return gone + [Change([*path, index], ABSENT, value) for index, value in enumerate(values, start)]
    if name == "order":
        old = ops.plain(node)
        return [Change(path, old, [old[index] for index in rest[0]])]
    if name == "add":
        return [Change([*path, member], ABSENT, member, True) for member in rest[0]]
    return [Change([*path, member], member, ABSENT, True) for member in rest[0]]


def _plain_item(node: Any, key: Any) -> Any:
    # The methods of the builtin kinds: nothing here belongs to a store that could be asked for the newest value.
    if isinstance(node, dict):
        item = dict.get(node, key, ABSENT)
    else:
        item = list.__getitem__(node, key) if 0 <= key < list.__len__(node) else ABSENT
    return ops.plain(item) if type(item) in ops.NODES else item


def touches(change: Change, place: list[Any]) -> bool:
    """Whether *change* is of what stands at *place*, of something in it, or of something that it is in."""
    return all(a == b or (type(a) is int and str(a) == b) for a, b in zip(change.path, place, strict=False))
