"""`pstate import --merge`: a tree laid over what a state already has.

Mappings are merged key by key, at every level. Any other value of the source replaces the one in the state: a list is
replaced whole, because nothing says which of its elements correspond. A value of another kind is a conflict, since one
side would lose a whole mapping or list.
"""

from __future__ import annotations

from typing import Any

from pstate.cli.command import No
from pstate.cli.transfer.faults import Faults, counted
from pstate.values import same

_KINDS: dict[type, str] = {dict: "mapping", list: "list", set: "set"}


class Overlay:
    """One merge. Where kinds conflict, the source wins if *may_replace*, and else the place is a fault."""

    def __init__(self, may_replace: bool) -> None:
        self._faults = Faults()
        self._may_replace = may_replace

    def merge(self, mapping: Any, tree: dict[Any, Any], place: list[Any]) -> None:
        """Merge *tree* into *mapping*, which is at *place*."""
        for key, value in tree.items():
            if key not in mapping:
                mapping[key] = value
            elif _has_exactly(mapping, key):
                self.put(mapping, key, value, [*place, key])
            else:
                self._faults.add([*place, key], "FILE has another key that is equal to this one")

    def put(self, container: Any, key: Any, value: Any, place: list[Any]) -> None:
        """Merge *value* into what *container* has at *key*, which is *place*."""
        present = container[key]
        if isinstance(present, dict) and isinstance(value, dict):
            self.merge(present, value, place)
        elif not (self._may_replace or present is None or _kind(present) == _kind(value)):
            self._faults.add(place, f"a {_kind(present)} in FILE, a {_kind(value)} in SOURCE")
        elif not same(present, value):
            container[key] = value

    def settle(self, file: str) -> None:
        """Raise No if there is a conflict."""
        if self._faults.count:
            raise No(
                f"{file}: {counted(self._faults.count, 'value')} cannot be merged:\n{self._faults.lines()}"
                "Nothing was changed. --replace takes the value of SOURCE where the kinds differ."
            )


def _kind(value: Any) -> str:
    return next((name for kind, name in _KINDS.items() if isinstance(value, kind)), "scalar")


def _has_exactly(mapping: Any, key: Any) -> bool:
    """Whether the key of *mapping* that is equal to *key* is of its type too: 1, 1.0 and true are equal."""
    kind: type = type(key)
    return kind not in (bool, int, float) or any(type(present) is kind and present == key for present in mapping)
