"""Recognises, by the frame of the caller, code that copies a container one item at a time.

`dict(state)` and `{**state}` take the keys, and then get each item. The json module takes nested containers one by one.
Both must see one moment, and only the frame of its caller tells a container that it is being copied. So this module
looks into frames. No other one does.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from threading import get_ident
from types import CodeType, FrameType
from typing import TYPE_CHECKING, Any

from pstate.memory.nodes import Mapped
from pstate.memory.ops import set_slot

if TYPE_CHECKING:
    from pstate.memory.owner import Intent, Owner

_dict_item = dict.__getitem__

Copy = tuple[int, CodeType, int, list[tuple[Any, Any]]]
"""The copying frame, its code and instruction, and the items that it has not received yet, the next one last."""


class CopyUnderWay:
    """Replaces the store of one `MappedDict` while the interpreter copies it: ``dict(state)``, ``{**state}``.

    CPython iterates `keys()` and then gets each item by `__getitem__`. With another process' commit in between, the
    copy would be half old and half new, or fail. So a caller that iterates `keys()` gets the items of that moment, as
    long as the same instruction of the same frame asks for them, in their order. Anything else is passed on to the
    store, and ends the copy. A read outside such a copy never comes here, and costs nothing.
    """

    __slots__ = ("_copies", "_store", "fresh")

    def __init__(self, store: Owner) -> None:
        self._store = store
        #: By thread. The frame by its id, because a reference would keep its locals, and so the state, alive.
        self._copies: dict[int, Copy] = {}
        self.fresh = _never

    @staticmethod
    def begin(mapping: Mapped, items: list[tuple[Any, Any]], frame: FrameType) -> None:
        """Give *items* to *frame*, which has just asked for the keys of *mapping*."""
        copy = id(frame), frame.f_code, frame.f_lasti, items[::-1]
        store = store_of(mapping)
        # Threads share this object: one must not remove it while another one puts its copy into it.
        store.alone(store.lock_timeout, CopyUnderWay._begin, mapping, copy)

    @staticmethod
    def _begin(mapping: Mapped, copy: Copy) -> None:
        stand_in: Any = mapping._store
        if type(stand_in) is not CopyUnderWay:
            stand_in = CopyUnderWay(stand_in)
        stand_in._copies[get_ident()] = copy
        set_slot(mapping, "_store", stand_in)

    def read(self, function: Callable[..., Any], node: Any, *args: Any) -> Any:
        copy = self._copies.get(get_ident())
        if copy is not None:
            frame, code, instruction, items = copy
            caller = sys._getframe(2)
            if (
                function is _dict_item
                and (id(caller), caller.f_code, caller.f_lasti) == (frame, code, instruction)
                and items[-1][0] is args[0]
            ):
                value = items.pop()[1]
                if not items:
                    self._end(node)
                return value
            self._end(node)
        return self._store.read(function, node, *args)

    def put(self, node: Any, key: Any, value: Any) -> None:
        self._end(node)
        self._store.put(node, key, value)

    def mutate(self, node: Any, plan: Callable[..., Intent], *args: Any) -> Any:
        self._end(node)
        return self._store.mutate(node, plan, *args)

    def _end(self, node: Any) -> None:
        self._store.alone(self._store.lock_timeout, self._ended, node)

    def _ended(self, node: Any) -> None:
        self._copies.pop(get_ident(), None)
        if not self._copies and node._store is self:
            set_slot(node, "_store", self._store)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)


def store_of(node: Any) -> Any:
    """The real store of *node*, also while the interpreter copies the node."""
    store = node._store
    return store._store if type(store) is CopyUnderWay else store


def _never() -> None:
    return None


def for_json() -> bool:
    """Whether the json module iterates. It takes nested containers one by one, and must see them all at one moment."""
    return sys._getframe(2).f_globals.get("__name__") == "json.encoder"
