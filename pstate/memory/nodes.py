"""The common base of mapped containers, their place in a state, and copies into and out of it.

`MappedDict`, `MappedList` and `MappedSet` are real dicts, lists and sets whose every change is one commit. A mutator
does three things. It copies the values in by `values.take`, which may run code of the program and refuse a value. It
hands the store a *plan*: a function that looks at memory and returns the operations of the change, or raises what the
builtin would raise. And it returns. A reader asks the store for the right moment to look. The containers know no file
and no lock; an `Owner` is all they need.

Two ways to read:

- One value, the hot path: if `store.fresh()` says that memory is the newest commit, take the value, then check that
  `store.view` is still the same. If it is, nothing changed in between, so no lock was needed.
- Everything else: `store.read(function, ...)` calls a function that looks at memory while no thread changes it.

Copies of whole containers (`copy()`, slices, ``+``, ``|``) are plain builtin containers, all the way down: they are
values, not parts of the state. Single elements and iteration give the mapped containers themselves. Iteration walks the
state as it was when the loop began. Comparing, searching and sorting may run code of the program, which gets plain
copies too; only `sort(key=...)` passes the mapped elements.

Only a state makes mapped containers. The classes themselves, called as ``type(x)(...)``, make the plain kind, for code
that rebuilds containers without knowing their classes, such as `dataclasses.asdict`.

After the close, every read raises ClosedError. Debuggers and log lines do not need a value, so some operations do not
raise, and return nothing that could be an old value: see `closed_repr`.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import TYPE_CHECKING, Any

from pstate.errors import ClosedError
from pstate.memory.ops import KINDS, NODES, Top, depth, node_path, plain, stored_key
from pstate.values import COPIES, FAST, FAST_KEYS, place_text, take

if TYPE_CHECKING:
    from pstate.memory.owner import Intent, Owner

NO_CHANGE: Intent = ([], None)


class Mapped:
    """A container in a state. Its builtin kind is the other base of its class.

    Here is the code that is the same for the three kinds. Code that only looks alike is in their modules.
    """

    __slots__ = ()

    _store: Owner
    _parent: Any  #: the container around it, or one of `ops.Top`
    _key: Any  #: its key there; in a list, the index where it was last seen

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        raise TypeError(
            f"a {type(self).__name__} cannot be made by calling its class. Assign a plain container into a state."
        )

    def _plain(self) -> Any:
        """A plain, consistent copy, all the way down."""
        return self._store.read(plain, self)

    def __ne__(self, other: object) -> bool:
        equal = self.__eq__(other)
        return equal if equal is NotImplemented else not equal

    def __repr__(self) -> str:
        try:
            copied = self._plain()
        except ClosedError as error:
            return closed_repr(self, error)
        caller = sys._getframe().f_back  # None if only C code has called
        if caller is not None and caller.f_globals.get("__name__") == "pprint":
            from pstate.memory import showing

            return showing.in_pprint(copied, caller, Mapped.__repr__)
        return repr(copied)

    # For interactive shells. They show a plain copy, so that all of it is of one moment.

    def _repr_pretty_(self, printer: Any, cycle: bool) -> None:
        """For IPython: as the builtin kind."""
        try:
            printer.pretty(self._plain())
        except ClosedError:
            printer.text(repr(self))

    def __rich_repr__(self) -> Iterator[Any] | None:
        """For rich: the builtin kind with the name of the class around it; None if only `repr` is possible."""
        try:
            return iter([self._plain()])
        except ClosedError:
            return None

    def _repr_html_(self) -> str | None:
        """For Jupyter: a tree that can be folded; None if only `repr` is possible."""
        try:
            copied = self._plain()
        except ClosedError:
            return None
        from pstate.memory import showing

        return showing.html(copied, type(self).__name__)

    def __copy__(self) -> Any:
        return self._plain()

    def __deepcopy__(self, memo: Any) -> Any:
        return self._plain()


COPIES[Mapped] = Mapped._plain


def register(kind: type, mapped: type[Mapped]) -> None:
    """Let *mapped* represent the builtin *kind* in every state."""
    KINDS[kind] = mapped
    NODES.add(mapped)


def truth(length: Callable[[Any], int]) -> Callable[[Any], bool]:
    """Make the `__bool__` of a mapped kind from its builtin *length*."""

    def __bool__(self: Any) -> bool:
        store = self._store
        view = store.fresh()
        if view is not None:
            size = length(self)
            if store.view is view:
                return size > 0
        try:
            return bool(store.read(length, self))
        except ClosedError:
            return True  # `while state.todo:` must not end as if all work was done

    return __bool__


def shown_place(node: Any, *keys: Any) -> str:
    """The place of *node* in its state, as a program writes it, followed by *keys*; for error messages."""
    path = node_path(node)
    if isinstance(path, Top):
        return place_text(keys, root=f"({path.value})")
    return place_text([*path, *keys])


def take_item(node: Any, key: Any, value: Any) -> Any:
    """*value* as a plain tree that can become the item *key* of *node*. Raises as `values.take`."""
    return take(value, partial(shown_place, node, key), depth(node))


def take_items(node: Any, first: int, values: Iterable[Any]) -> list[Any]:
    """*values* as plain trees that can go into the list *node*, from the index *first* on. Raises as `values.take`."""
    taken = list(unmapped(values))
    around = depth(node)
    for index, value in enumerate(taken):
        if type(value) not in FAST:
            taken[index] = take(value, partial(shown_place, node, first + index), around)
    return taken


def unmapped(value: Any) -> Any:
    """A mapped container as a plain, consistent copy; anything else as it is."""
    return value._plain() if isinstance(value, Mapped) else value


def recorded(node: Any, key: Any) -> Any:
    """*key*, which *node* has, in a form that a record may contain."""
    kind = type(key)
    return key if kind is str or kind in FAST_KEYS or kind is float else stored_key(node, key)


def backwards(snapshot: list[Any]) -> Iterator[Any]:
    """*snapshot* from its end. For type checkers, the result of `reversed` is not an Iterator."""
    iterator: Iterator[Any] = reversed(snapshot)
    return iterator


def closed_repr(node: Any, error: ClosedError) -> str:
    """The `repr` of *node* after *error*, which says that its state is not open.

    Other operations that do not raise then: the node is true, is equal to itself only, and has no keys as attributes.
    None of these results is a value that the file may no longer have.
    """
    state = f" of {error.path!r}, closed" if error.path else ", not open"
    return f"<{type(node).__name__}{state}>"
