"""One place in a state, found by its path: `at` reads and changes the value there, `reset` sets it to its default.

They are functions of the package because a method would take its name from the keys that are attributes.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from pstate.memory import ops
from pstate.memory.nodes import Mapped, shown_place
from pstate.memory.ops import ABSENT
from pstate.state import PersistedState, Transaction, core_of, defaults_of
from pstate.text import paths
from pstate.values import FAST, check_key, same, take

if TYPE_CHECKING:
    from pstate.memory.core import Core
    from pstate.memory.owner import Intent

_RAISE: Any = object()


def at(state: Mapped, path: str | Iterable[Any]) -> Place:
    """The place at *path* in *state*, or in a container of one: ``pstate.at(state, "jobs[0].name").set("dry")``

    *path*: a string (``"jobs[-1].name"``) or keys (``("jobs", -1, "name")``), as in `PersistedState.watch`. The place
    need not exist. Each method looks at the present state, and changes it by one commit, or within the transaction
    around it.

    Raises TypeError for anything but a state or a container in one, and TypeError or ValueError for a wrong path.
    """
    core_of(state)
    return Place(state, [check_key(key, "the path") for key in paths.keys_of(path)])


def reset(state: PersistedState, path: str | Iterable[Any] | None = None) -> None:
    """Set the value at *path* back to the default that *state* was opened with, in one commit.

    Without *path*, each key that has a default is set back; keys without one stay as they are. A key that was deleted
    comes back, and so do the dicts that *path* leads through.

    Raises KeyError if *path* has no default, TypeError if a value on the way is not a container or *state* is not a
    `PersistedState`, and what any change raises. Nothing was changed then.
    """
    defaults = defaults_of(state)
    keys = paths.keys_of(path)
    if not keys:
        core = core_of(state)
        core.mutate(core.root, _reset_keys, defaults)
        return
    default = _look(defaults, keys, ABSENT)
    if default is ABSENT:
        raise KeyError(
            f"{shown_place(state, *keys)}: the state was opened without a default for this place. Nothing was changed."
            " Pass a default for it when you open the state."
        )
    Place(state, keys).set(default, parents=True)


class Place:
    """One place in a state, from `at`.

    A change raises KeyError or IndexError if the place, or a container on the way to it, does not exist, TypeError if a
    value there has the wrong type, and what any change of a state raises. Nothing was changed then. The message names
    the place.
    """

    __slots__ = ("_base", "_keys")

    def __init__(self, base: Mapped, keys: list[Any]) -> None:
        self._base = base
        self._keys = keys

    def __repr__(self) -> str:
        return f"<Place {self._shown()}>"

    def get(self, default: Any = None) -> Any:
        """The value there, or *default* if there is none. A container is the one in the state, not a copy.

        ``get(pstate.ABSENT)`` tells a missing value from None. Raises what every read raises.
        """
        return self._core.read(_look, self._base, self._keys, default)

    def set(self, value: Any, *, parents: bool = False) -> None:
        """Set a key of a dict, or an existing element of a list, to *value*.

        *parents*: make a dict for each key on the way that is missing, in the same commit. Raises UnsupportedTypeError
        or UnsupportedValueError for a value that cannot be stored.
        """
        self._refuse_top()
        value = self._taken(value)
        core = self._core
        with Transaction(core, None):
            self._put(core, value, parents)

    def delete(self) -> None:
        """Delete a key of a dict, an element of a list or a member of a set."""
        self.pop()

    def pop(self, default: Any = _RAISE) -> Any:
        """Delete the value there, and return it. If there is none, return *default* if that is given.

        A container that is returned is an ordinary one from then on.
        """
        self._refuse_top()
        core = self._core
        with Transaction(core, None):
            found = _look(self._base, self._keys, ABSENT)
            if found is ABSENT:
                if default is _RAISE:
                    raise self._nothing_there()
                return default
            self._delete(core)
        return found

    def incr(self, by: float = 1) -> Any:
        """Add *by* to the number there, and return the sum. A key that is missing counts as 0.

        If several threads and processes do so at the same time, each of them gets a different number.
        """
        self._refuse_top()
        if type(by) not in (int, float):
            raise TypeError(
                f"{self._shown()}: by must be an int or a float, not {type(by).__name__}. Nothing was changed."
            )
        core = self._core
        with Transaction(core, None):
            old = _look(self._base, self._keys, ABSENT)
            number = 0 if old is ABSENT else old
            if type(number) not in (int, float):
                raise TypeError(f"{self._shown()}: {_kind(old)} is not a number. Nothing was changed.")
            try:
                new = number + by
            except OverflowError as error:
                raise OverflowError(f"{self._shown()}: {error}. Nothing was changed.") from None
            self._put(core, new)
        return new

    def compare_and_set(self, old: Any, new: Any) -> bool:
        """Set the value there to *new* if it is *old*, of the same type. Returns whether it was.

        `pstate.ABSENT` stands for no value: as *old*, it sets a value only if there is none yet; as *new*, it deletes.
        True and 1 are not the same, nor are 1 and 1.0. Raises as `set`, also for an *old* that cannot be stored.
        """
        self._refuse_top()
        old, new = self._taken(old), self._taken(new)
        core = self._core
        with Transaction(core, None):
            found = _look(self._base, self._keys, ABSENT)
            if old is ABSENT or found is ABSENT:
                if old is not found:
                    return False
            elif not same(_plain(found), old):
                return False
            if new is not ABSENT:
                self._put(core, new)
            elif found is not ABSENT:
                self._delete(core)
        return True

    # The methods that follow the path look at memory directly, within a transaction or a read of the store.

    @property
    def _core(self) -> Core:
        return core_of(self._base)

    def _shown(self, depth: int | None = None) -> str:
        """The place as a program would write it, or the one on the way to it after *depth* keys."""
        return shown_place(self._base, *self._keys[:depth])

    def _refuse_top(self) -> None:
        if not self._keys:
            raise ValueError(
                f"{self._shown()}: an empty path is the container itself, which can only be read. Nothing was changed. "
                "Pass the path of a value in it."
            )

    def _taken(self, value: Any) -> Any:
        """*value* as a plain tree. Called before the transaction, because it may run code of the program."""
        if type(value) in FAST or value is ABSENT:
            return value
        around = self._core.read(ops.depth, self._base) + len(self._keys) - 1
        return take(value, self._shown, around)

    def _nothing_there(self) -> Exception:
        """Why `_look` has found nothing."""
        node: Any = self._base
        for depth, key in enumerate(self._keys):
            found = _item(node, key)
            if found is ABSENT:
                return self._misfit(node, depth)
            node = found
        raise AssertionError(self._keys)

    def _misfit(self, node: Any, depth: int) -> Exception:
        """For *node*, which is on the way after *depth* keys, and has nothing at the next one."""
        where, place = self._shown(depth + 1), self._shown(depth)
        if isinstance(node, dict | set):
            kind = "key" if isinstance(node, dict) else "member"
            is_on_the_way = isinstance(node, dict) and depth < len(self._keys) - 1
            advice = " set(value, parents=True) makes the dicts on the way." if is_on_the_way else ""
            return KeyError(f"{where}: there is no such {kind}. Nothing was changed.{advice}")
        if isinstance(node, list) and _is_index(self._keys[depth]):
            return IndexError(f"{where}: the list has {list.__len__(node)} elements. Nothing was changed.")
        return TypeError(f"{where}: {place} is {_kind(node)}, which has no such key. Nothing was changed.")

    def _put(self, core: Core, value: Any, parents: bool = False) -> None:
        """Set the last key to *value*, a plain tree."""
        node: Any = self._base
        last = len(self._keys) - 1
        for depth, key in enumerate(self._keys):
            found = _item(node, key)
            if isinstance(node, dict) and (depth == last or (found is ABSENT and parents)):
                for inner in reversed(self._keys[depth + 1 :]):
                    value = {inner: value}
                core.put(node, key, value)
                return
            if isinstance(node, set):
                raise TypeError(
                    f"{self._shown()}: {self._shown(depth)} is a set, which has no keys. Nothing was changed. Use its "
                    "add()."
                )
            if found is ABSENT:
                raise self._misfit(node, depth)
            if depth == last:
                core.mutate(node, _replace, paths.index(key), value)
            node = found

    def _delete(self, core: Core) -> None:
        """Delete the last key, which exists."""
        core.mutate(_look(self._base, self._keys[:-1], ABSENT), _remove, self._keys[-1])


def _item(node: Any, key: Any) -> Any:
    """The value that the container *node* has at *key*, or ABSENT; for a set, the member itself."""
    if isinstance(node, dict):
        return dict.get(node, key, ABSENT)
    try:
        if isinstance(node, list):
            return list.__getitem__(node, paths.index(key))
        return ops.stored_key(node, key) if isinstance(node, set) and set.__contains__(node, key) else ABSENT
    except LookupError:
        return ABSENT


def _look(node: Any, keys: list[Any], default: Any) -> Any:
    for key in keys:
        node = _item(node, key)
        if node is ABSENT:
            return default
    return node


def _plain(value: Any) -> Any:
    return ops.plain(value) if isinstance(value, Mapped) else value


def _replace(node: Any, index: int, value: Any) -> Intent:
    return [("set", index % list.__len__(node), value)], None


def _remove(node: Any, key: Any) -> Intent:
    if isinstance(node, set):
        return [("discard", [ops.stored_key(node, key)])], None
    return [
        ("delete", paths.index(key) % list.__len__(node) if isinstance(node, list) else ops.stored_key(node, key))
    ], None


def _reset_keys(root: Any, defaults: dict[Any, Any]) -> Intent:
    changed = [key for key, default in defaults.items() if not same(_plain(dict.get(root, key, ABSENT)), default)]
    return [("set", key, defaults[key]) for key in changed], None


def _is_index(key: Any) -> bool:
    try:
        paths.index(key)
    except LookupError:
        return False
    return True


def _kind(value: Any) -> str:
    """The type of *value*, for a message."""
    if value is None:
        return "None"
    name = next((kind.__name__ for kind in (dict, list, set) if isinstance(value, kind)), type(value).__name__)
    return f"{'an' if name == 'int' else 'a'} {name}"
