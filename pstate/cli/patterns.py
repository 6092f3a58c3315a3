"""The PATHs of `pstate get` that lead to several places, ``jobs[*].name``, and to a part of a list, ``jobs[1:3]``.

Imported only for a PATH that has one of these.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from pstate.cli import paths
from pstate.cli.command import Usage
from pstate.text import scalars

#: In the place of a key: each element of a list or a set, each value of a mapping.
_EACH = object()


def parse(text: str) -> list[Any]:
    """The keys in *text*, with a slice or _EACH where it has one in brackets. Raises Usage."""
    return paths.parse(text, _several)


def _several(inside: str) -> Any:
    if inside in ("", "*"):
        return _EACH
    first, _, last = inside.partition(":")
    if ":" in last:
        raise Usage(f"PATH: [{inside}] has a step. Nothing was done. Write [first:last]; last is not included.")
    return slice(int(first) if first else None, int(last) if last else None)


def find(root: Any, pattern: list[Any], file: str) -> Iterator[Any]:
    """What is at each place that *pattern* leads to; a No in the place of each that does not exist.

    Raises No where something on the way has no elements.
    """
    yield from _walk(root, [], pattern, file)


def _walk(value: Any, done: list[Any], pattern: list[Any], file: str) -> Iterator[Any]:
    for number, key in enumerate(pattern):
        if key is _EACH:
            for inner, item in _elements(value, done, file):
                yield from _walk(item, [*done, inner], pattern[number + 1 :], file)
            return
        if isinstance(key, slice):
            if not isinstance(value, list):
                raise paths.misfit(file, done, value, "list")
            # An index after a slice counts in the part, which has no PATH of its own.
            value, done, file = value[key], [], f"{file}: in {_shown(done, key)}"
            continue
        try:
            value = paths.step(value, key)
        except LookupError:
            yield paths.absent(file, [*done, key], value)
            return
        done = [*done, key]
    yield value


def _elements(value: Any, done: list[Any], file: str) -> Iterator[tuple[Any, Any]]:
    if isinstance(value, dict):
        return iter(value.items())
    if isinstance(value, list):
        return enumerate(value)
    if isinstance(value, set):
        from pstate.values import ordered

        return ((member, member) for member in ordered(value))
    raise paths.misfit(file, done, value, "mapping, a list or a set")


def _shown(done: list[Any], part: slice) -> str:
    first, last = ("" if index is None else scalars.scalar(index) for index in (part.start, part.stop))
    return f"{paths.show(done) if done else ''}[{first}:{last}]"
