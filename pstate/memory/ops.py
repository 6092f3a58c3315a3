"""The closed set of operations (check one against memory, invert it, apply it), and the tree that they work on.

An operation here is relative to its container (a *node*): a tuple without the path.

    ("set", key, value)     dict; list, 0 <= key < len     ("splice", start, stop, values)   list[start:stop] = values
    ("delete", key)         dict; list, 0 <= key < len     ("order", permutation)            list: new[i] = old[p[i]]
    ("insert", i, value)    list, 0 <= i <= len            ("add", members), ("discard", members)   set
    ("keys", order)         dict: put the keys into this order; only ever an inverse, never in a record

Everything here reads and writes memory directly, with the methods of the builtin kinds. The store decides which thread
may do so when, and what is written to the file; the containers decide which call makes which operations. A caller of a
function here has exclusive access to memory.

How a change is made: `prepare` each operation (it may refuse, nothing has changed yet), [`inverse`,] `apply`, which
only assigns. In memory, containers are of the mapped kinds that `KINDS` names. Each knows its parent and its key there
(in a list, only where it was last seen), so its path can be found at any time.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from enum import Enum
from functools import partial
from itertools import chain, repeat
from typing import TYPE_CHECKING, Any, TypeAlias

from pstate.errors import UnsupportedTypeError, UnsupportedValueError
from pstate.values import SCALARS, shown, unchanged_ends

if TYPE_CHECKING:
    from pstate.memory.owner import Owner

Node: TypeAlias = Any
"""A mapped container: a dict, list or set with the slots `_store`, `_parent` and `_key`."""

Op: TypeAlias = tuple[Any, ...]

_Setter: TypeAlias = Callable[[Node, Any], None]
_Makers: TypeAlias = tuple[Callable[[], Node], _Setter, _Setter, _Setter]


class Top(Enum):
    """Used instead of a parent at the top of a tree."""

    ROOT = "the state itself"
    DETACHED = "taken out by this process: an ordinary container now"
    REMOVED = "removed by another process or by an edit: it takes no changes"


ROOT, DETACHED, REMOVED = Top.ROOT, Top.DETACHED, Top.REMOVED

KINDS: dict[type, Any] = {}
"""Builtin kind to mapped kind: dict, list, set. The module of each kind registers it, see `nodes`."""

NODES: set[type] = set()
"""The mapped kinds."""

_MAKERS: dict[type, _Makers] = {}  # builtin kind to what `_makers` returns for it


class Absent(Enum):
    """The kind of `ABSENT`."""

    ABSENT = "no value"

    def __repr__(self) -> str:
        return "ABSENT"

    __str__ = __repr__

    def __bool__(self) -> bool:
        return False


ABSENT = Absent.ABSENT
"""The value of a missing item, where None could be an item."""
_ONLY_DICTS = {dict}
_dict_get, _dict_set, _dict_items, _dict_update = dict.get, dict.__setitem__, dict.items, dict.update
_list_extend = list.extend
set_slot = object.__setattr__  # the __setattr__ of MappedDict sets a key


# --- the tree


def graft(value: Any, store: Owner | None, parent: Any, key: Any) -> Any:
    """Return the plain *value* in its form in memory: a scalar itself, a container as a mapped copy below *parent*."""
    kind = type(value)
    makers = _MAKERS.get(kind)
    if makers is None:
        if kind in SCALARS:
            return value
        makers = _makers(kind)
    new, put_store, put_parent, put_key = makers
    node: Node = new()
    put_store(node, store)
    put_parent(node, parent)
    put_key(node, key)
    if kind is dict:
        _dict_update(node, value)
        for name, item in value.items():
            if type(item) not in SCALARS:
                _dict_set(node, name, graft(item, store, node, name))
    elif kind is list:
        set_slot(node, "_drift", 0)
        set_slot(node, "_size", len(value))
        kinds = set(map(type, value))
        if kinds <= SCALARS:
            _list_extend(node, value)
        elif kinds == _ONLY_DICTS:
            _list_extend(node, _graft_rows(value, store, node))
        else:
            items = [
                item if type(item) in SCALARS else graft(item, store, node, index) for index, item in enumerate(value)
            ]
            _list_extend(node, items)
    else:
        set.update(node, value)
    return node


def _graft_rows(rows: list[dict[Any, Any]], store: Owner | None, parent: Node) -> list[Node]:
    """`graft` for a list of dicts, which the interpreter makes all at once in a third of the time."""
    new, put_store, put_parent, put_key = _MAKERS.get(dict) or _makers(dict)
    nodes: list[Node] = [new() for _ in rows]
    for put, values in (
        (put_store, repeat(store)),
        (put_parent, repeat(parent)),
        (put_key, range(len(rows))),
        (_dict_update, rows),
    ):
        deque(map(put, nodes, values), maxlen=0)
    if not SCALARS.issuperset(map(type, chain.from_iterable(map(dict.values, rows)))):
        for node, row in zip(nodes, rows, strict=True):
            for name, item in row.items():
                if type(item) not in SCALARS:
                    _dict_set(node, name, graft(item, store, node, name))
    return nodes


def _makers(kind: Any) -> _Makers:
    """The functions that make an empty node for the builtin *kind*, and set its slots `_store`, `_parent` and `_key`.

    All nodes of a document go through these: the setter of a slot takes half the time of object.__setattr__.
    """
    if kind not in KINDS:
        raise TypeError(f"not a plain value: {kind.__qualname__}")
    mapped = KINDS[kind]
    makers = partial(kind.__new__, mapped), mapped._store.__set__, mapped._parent.__set__, mapped._key.__set__
    _MAKERS[kind] = makers
    return makers


def plain(node: Node) -> Any:
    """Return a plain, deep copy of *node*."""
    if isinstance(node, dict):
        # Not dict.copy: it uses the __iter__ of a subclass, which reads through the store. And not a comprehension,
        # which costs a call: 7 instead of 9 ms for 25,000 dicts of three values.
        copied = {}
        for key, item in _dict_items(node):
            copied[key] = plain(item) if type(item) in NODES else item
        return copied
    if isinstance(node, list):
        return [plain(item) if type(item) in NODES else item for item in list.__iter__(node)]
    return set().union(node)  # merged by the interpreter itself, so without the iterator of the mapped set


def find(root: Node, path: Iterable[Any]) -> Node:
    """Return the container at *path*. Raises LookupError or TypeError if the path does not lead to one."""
    node = root
    for key in path:
        if isinstance(node, dict):
            node = dict.__getitem__(node, key)
        elif isinstance(node, list):
            if type(key) is not int:
                raise TypeError(f"{shown(key)} is not an index of a list")
            if not 0 <= key < list.__len__(node):
                raise IndexError(f"list index {shown(key)} out of range")
            node = list.__getitem__(node, key)
        else:
            raise TypeError(f"a {_kind(node)} has no key {shown(key)}")
    if node is not root and type(node) not in NODES:
        raise TypeError(f"a {_kind(node)} is not a container")
    return node


def node_path(node: Node) -> list[Any] | Top:
    """Return the keys that lead from the root to *node*; DETACHED or REMOVED if it is not in the state."""
    path: list[Any] = []
    parent: Node = node._parent
    while parent.__class__ is not Top:
        if isinstance(parent, list):
            index = index_of(parent, node)
            if index < 0:
                return REMOVED
            path.append(index)
        else:
            key = node._key
            if _dict_get(parent, key) is not node:
                return REMOVED  # a change that was cut in two has left the link behind
            path.append(key)
        node = parent
        parent = node._parent
    if parent is not ROOT:
        return parent
    path.reverse()
    return path


def depth(node: Node) -> int:
    """How many containers are around the elements of *node*, itself included."""
    count = 1
    while type(node._parent) is not Top:
        node = node._parent
        count += 1
    return count


def index_of(parent: Node, node: Node) -> int:
    """The index of the object *node* in the list *parent*, or -1.

    Elements move when others before them come and go, and updating each of them would make an insert slow. So the key
    of an element is the index where it was last seen, and the search goes outwards from there. It compares by identity:
    an equal element is a different one.
    """
    size = list.__len__(parent)
    seen: int = node._key
    drift: int = parent._drift
    item = list.__getitem__
    if 0 <= seen < size and item(parent, seen) is node:
        return seen
    # Most elements have moved as far as the last one that was looked for.
    hint = min(max(seen + drift, 0), size)
    low, high = hint - 1, hint
    while low >= 0 or high < size:
        for index in (high, low):
            if 0 <= index < size and item(parent, index) is node:
                set_slot(node, "_key", index)
                parent._drift = index - seen
                return index
        low -= 1
        high += 1
    return -1


def stored_key(node: Node, key: Any) -> Any:
    """Return the stored key (or member) of *node* that is equal to *key*: 1 for True, say. It must exist."""
    if type(key) is str or type(key) is bytes:
        return key  # equal strings are the same in everything
    probe = _Probe(key)
    if not (dict.__contains__(node, probe) if isinstance(node, dict) else set.__contains__(node, probe)):
        raise KeyError(key)
    return probe.found


class _Probe:
    """Equal to the objects that *key* is equal to, and remembers the last: a hash table does not return its own key."""

    __slots__ = ("found", "key")

    def __init__(self, key: Any) -> None:
        self.key = key
        self.found: Any = None

    def __hash__(self) -> int:
        return hash(self.key)

    def __eq__(self, other: object) -> bool:
        if self.key is other or self.key == other:
            self.found = other
            return True
        return False


# --- operations


def prepare(node: Node, op: Op, store: Owner | None) -> Op:
    """Return *op* ready for `apply`, which then cannot fail: checked against *node*, its values grafted.

    Raises KeyError, IndexError, TypeError or ValueError if it does not fit; nothing has changed then.
    """
    name = op[0]
    if isinstance(node, dict):
        if name == "set":
            _, key, value = op
            check_hashable(key)
            return op if type(value) in SCALARS else ("set", key, graft(value, store, node, key))
        if name == "delete":
            _, key = op
            if not dict.__contains__(node, key):
                raise KeyError(key)
            return op
    elif isinstance(node, list):
        size = list.__len__(node)
        if name == "set":
            _, index, value = op
            _check_index(index, size - 1)
            return op if type(value) in SCALARS else ("set", index, graft(value, store, node, index))
        if name == "insert":
            _, index, value = op
            _check_index(index, size)
            return op if type(value) in SCALARS else ("insert", index, graft(value, store, node, index))
        if name == "delete":
            _, index = op
            _check_index(index, size - 1)
            return op
        if name == "splice":
            _, start, stop, values = op
            _check_index(start, size)
            _check_index(stop, size)
            if stop < start:
                raise ValueError(f"a splice of [{start}:{stop}], whose end is before its start")
            _check_list(values)
            return "splice", start, stop, [graft(value, store, node, start + i) for i, value in enumerate(values)]
        if name == "order":
            _, permutation = op
            _check_list(permutation)
            if any(type(index) is not int for index in permutation) or sorted(permutation) != list(range(size)):
                raise ValueError(f"the order is not a permutation of {size} elements")
            return op
    elif name in ("add", "discard"):
        _, members = op
        _check_list(members)
        for member in members:
            check_hashable(member)
        return op
    raise TypeError(f"a {_kind(node)} has no operation {name!r}")


def replay(root: Node, records: Iterable[list[Any]], store: Owner | None) -> None:
    """Carry out *records*, whose operations have their paths, on the tree *root*, which belongs to the caller.

    Raises as `find` and `prepare` if an operation does not fit; those before it are done then.
    """
    for operations in records:
        for name, path, *rest in operations:
            node = find(root, path)
            apply(node, prepare(node, (name, *rest), store), False)


def inverse(node: Node, op: Op, ordered: set[int] | None = None) -> list[Op]:
    """Return the operations that undo *op*, which is prepared and not yet applied.

    They need no `prepare`, and hold the containers themselves: applied in this order, they put the same objects back.
    Deleting a key costs a copy of all keys, to restore their order. A transaction avoids all but the first copy by
    passing the same set *ordered* to every call since its last savepoint: the later inverses are applied before the
    first one, so the order that is saved there is enough.
    """
    name = op[0]
    if isinstance(node, dict):
        key = op[1]
        if name == "keys":
            return [("keys", tuple(dict.keys(node)))]
        old = dict.get(node, key, ABSENT)
        if name == "set":
            return [("delete", key) if old is ABSENT else ("set", key, old)]
        key = stored_key(node, key)
        if ordered is not None:
            if id(node) in ordered:
                return [("set", key, old)]
            ordered.add(id(node))
        return [("set", key, old), ("keys", tuple(dict.keys(node)))]
    if isinstance(node, list):
        if name == "set":
            return [("set", op[1], list.__getitem__(node, op[1]))]
        if name == "insert":
            return [("delete", op[1])]
        if name == "delete":
            return [("insert", op[1], list.__getitem__(node, op[1]))]
        if name == "splice":
            _, start, stop, values = op
            return [("splice", start, start + len(values), list.__getitem__(node, slice(start, stop)))]
        back = [0] * len(op[1])
        for new, old in enumerate(op[1]):
            back[old] = new
        return [("order", back)]
    contains = set.__contains__
    if name == "add":
        return [("discard", [member for member in op[1] if not contains(node, member)])]
    return [("add", [stored_key(node, member) for member in op[1] if contains(node, member)])]


def apply(node: Node, op: Op, ours: bool) -> None:
    """Carry out the prepared *op*. Only assigns, so it cannot fail.

    A container that leaves the tree is marked: DETACHED if the change is *ours*, and it becomes an ordinary container;
    otherwise REMOVED, because others have taken it away from the references to it. One that comes in gets its parent.
    """
    name = op[0]
    old: Any
    if isinstance(node, dict):
        key = op[1]
        if name == "set":
            value = op[2]
            old = _dict_get(node, key)
            if old.__class__ in NODES:
                set_slot(old, "_parent", DETACHED if ours else REMOVED)
            _dict_set(node, key, value)
            if value.__class__ in NODES:
                _link(value, node, key)
        elif name == "delete":
            old = dict.__getitem__(node, key)
            if type(old) in NODES:
                set_slot(old, "_parent", DETACHED if ours else REMOVED)
            dict.__delitem__(node, key)
        else:
            items = [(key, dict.__getitem__(node, key)) for key in op[1]]
            dict.clear(node)
            dict.update(node, items)
    elif isinstance(node, list):
        index = op[1]
        if name == "set":
            value = op[2]
            old = list.__getitem__(node, index)
            if type(old) in NODES:
                set_slot(old, "_parent", DETACHED if ours else REMOVED)
            list.__setitem__(node, index, value)
            if type(value) in NODES:
                _link(value, node, index)
        elif name == "insert":
            value = op[2]
            list.insert(node, index, value)
            if type(value) in NODES:
                _link(value, node, index)
        elif name == "delete":
            old = list.__getitem__(node, index)
            if type(old) in NODES:
                set_slot(old, "_parent", DETACHED if ours else REMOVED)
            list.__delitem__(node, index)
        elif name == "splice":
            _, start, stop, values = op
            for old in list.__getitem__(node, slice(start, stop)):
                if type(old) in NODES:
                    set_slot(old, "_parent", DETACHED if ours else REMOVED)
            list.__setitem__(node, slice(start, stop), values)
            for index, value in enumerate(values, start):
                if type(value) in NODES:
                    _link(value, node, index)
        else:
            moved = [list.__getitem__(node, index) for index in op[1]]
            list.__setitem__(node, slice(None), moved)
            for index, value in enumerate(moved):
                if type(value) in NODES:
                    set_slot(value, "_key", index)
        set_slot(node, "_size", list.__len__(node))
    elif name == "add":
        set.update(node, op[1])
    else:
        set.difference_update(node, op[1])


def _link(child: Node, parent: Node, key: Any) -> None:
    set_slot(child, "_parent", parent)
    set_slot(child, "_key", key)


def _kind(value: Any) -> str:
    return next((kind.__name__ for kind in (dict, list, set) if isinstance(value, kind)), type(value).__name__)


def check_hashable(key: Any) -> None:
    """Raise TypeError or ValueError if *key* cannot be a key in a record."""
    if type(key) not in SCALARS:
        raise UnsupportedTypeError(f"a {type(key).__name__} cannot be a key")
    if key != key:
        raise UnsupportedValueError("NaN cannot be a key")


def _check_index(index: Any, last: int) -> None:
    if type(index) is not int:
        raise TypeError(f"{shown(index)} is not an index of a list")
    if not 0 <= index <= last:
        raise IndexError(f"list index {shown(index)} out of range")


def _check_list(values: Any) -> None:
    if not isinstance(values, (list, tuple)):
        raise TypeError(f"{shown(values)} is not a list")


# --- a whole new content


def adopt(node: Node, tree: Any, store: Owner | None) -> None:
    """Make *node* equal to the plain *tree*, in place, so that references into it stay valid if they still make sense.

    A container stays if path and kind agree: in a dict key by key; in a list the equal ones at the beginning and at the
    end and, if most of the list is unchanged, those at the same index. The others are marked REMOVED. Every link is set
    again, so that the tree is right afterwards even if an earlier change of it was cut in two.
    """
    if not isinstance(tree, dict | list | set) or not isinstance(node, type(tree)):
        raise TypeError(f"a {_kind(node)} cannot become a {_kind(tree)}")
    _adopt(node, tree, store, {id(node)})


def _adopt(node: Node, tree: Any, store: Owner | None, used: set[int]) -> None:
    if isinstance(node, dict):
        had = dict(dict.items(node))
        new: Any = {key: _successor(had.get(key), item, store, node, key, used) for key, item in tree.items()}
        _remove(had.values(), used)
        dict.clear(node)
        dict.update(node, new)
    elif isinstance(node, list):
        was = list.copy(node)
        new = [
            _successor(old, item, store, node, index, used)
            for index, (old, item) in enumerate(zip(_aligned(was, tree), tree, strict=True))
        ]
        _remove(was, used)
        list.__setitem__(node, slice(None), new)
        set_slot(node, "_size", len(new))
    else:
        set.clear(node)
        set.update(node, tree)


def _successor(old: Any, item: Any, store: Owner | None, parent: Node, key: Any, used: set[int]) -> Any:
    """The node for *item* below *parent*: the container *old* if possible, else a new one."""
    if type(item) in SCALARS:
        return item
    if type(old) is not KINDS[type(item)] or id(old) in used:
        return graft(item, store, parent, key)
    used.add(id(old))
    _link(old, parent, key)
    _adopt(old, item, store, used)
    return old


def _remove(items: Iterable[Any], used: set[int]) -> None:
    for item in items:
        if type(item) in NODES and id(item) not in used:
            set_slot(item, "_parent", REMOVED)


def _aligned(old: list[Any], tree: list[Any]) -> Iterator[Any]:
    """For each element of *tree*, the one of *old* that may become it, or None."""
    first, last = unchanged_ends(old, tree, _matches)
    yield from old[:first]
    middle, wanted = old[first : len(old) - last], tree[first : len(tree) - last]
    # An element that differs may be another one that has moved here. A reference that silently means another element is
    # worse than one that raises. Only if most of the list is as it was, a different element counts as changed.
    unchanged = first + last
    if len(middle) == len(wanted):
        unchanged += sum(map(_matches, middle, wanted))
    yield from middle if 2 * unchanged >= len(tree) and len(middle) == len(wanted) else [None] * len(wanted)
    yield from old[len(old) - last :]


def _matches(old: Any, item: Any) -> bool:
    """Whether *old* in memory has the content of the plain *item*."""
    if type(old) not in NODES:
        return type(old) is type(item) and bool(old == item)
    if type(old) is not KINDS.get(type(item)):
        return False
    if isinstance(old, dict):
        return dict.__len__(old) == len(item) and all(
            key in item and _matches(value, item[key]) for key, value in dict.items(old)
        )
    if isinstance(old, list):
        return list.__len__(old) == len(item) and all(map(_matches, list.__iter__(old), item))
    return bool(plain(old) == item)
