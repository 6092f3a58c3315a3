"""A store in memory for the tests of the containers: no file, no lock, and every record is kept.

It does what `pstate.store` promises to the containers, as strictly as it can: all operations of a call are prepared
before the first is applied, a record holds plain values only, and each record can be undone. Every record is replayed
onto a second tree; `check` compares the two.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pstate.errors import RemovedError
from pstate.memory import ops
from pstate.memory.dicts import MappedDict
from pstate.memory.lists import MappedList
from pstate.memory.sets import MappedSet
from pstate.values import SCALARS, same, take


class MemoryStore:
    """What the containers need of a store, and what the tests need to know."""

    def __init__(self, tree: dict[Any, Any] | None = None, *, cached: bool = True) -> None:
        self.cached = cached
        self.view: object = object()
        self.lock_timeout = None
        self.busy = False
        self.records: list[list[list[Any]]] = []
        self.undo: list[list[tuple[Any, ops.Op]]] = []
        self.reads = 0
        self.before_fresh: Callable[[], None] | None = None
        self.before_read: Callable[[], None] | None = None
        self.before_mutate: Callable[[], None] | None = None
        self.root = ops.graft(take(tree or {}, "state"), self, ops.ROOT, None)
        self.replica = ops.graft(take(tree or {}, "state"), self, ops.ROOT, None)

    def fresh(self) -> object | None:
        if self.before_fresh is not None:
            self.before_fresh()
        return self.view if self.cached and not self.busy else None

    def read(self, function: Callable[..., Any], *args: Any) -> Any:
        assert not self.busy, "a plan or an operation reads through the store"
        self.reads += 1
        if self.before_read is not None:
            self.before_read()
        return function(*args)

    def alone(self, timeout: None, function: Callable[..., Any], *args: Any) -> Any:
        return function(*args)

    def put(self, node: Any, key: Any, value: Any) -> None:
        self.mutate(node, lambda _: ([("set", key, value)], None))

    def mutate(self, node: Any, plan: Callable[..., tuple[list[ops.Op], Any]], *args: Any) -> Any:
        assert not self.busy, "a plan or an operation changes the state"
        if self.before_mutate is not None:
            self.before_mutate()
        self.busy = True
        try:
            path = ops.node_path(node)
            if path is ops.REMOVED:
                raise RemovedError("removed")
            before = ops.plain(self.root)
            operations, result = plan(node, *args)
            assert same(before, ops.plain(self.root)), "a plan has changed memory"
            if not operations:
                return result
            assert_plain(operations)
            prepared = [ops.prepare(node, op, self) for op in operations]
            assert same(before, ops.plain(self.root)), "prepare has changed memory"
            undo: list[tuple[Any, ops.Op]] = []
            ordered: set[int] = set()
            for op in prepared:
                undo.extend((node, back) for back in reversed(ops.inverse(node, op, ordered)))
                ops.apply(node, op, True)
            if path is not ops.DETACHED:
                assert isinstance(path, list)
                self.records.append([[op[0], path, *op[1:]] for op in operations])
                self.undo.append(undo)
                self.replay(self.replica, self.records[-1])
                self.view = object()
            return result
        finally:
            self.busy = False

    def replay(self, root: Any, record: list[list[Any]]) -> None:
        """Apply a record as another process does."""
        for name, path, *rest in record:
            node = ops.find(root, path)
            ops.apply(node, ops.prepare(node, (name, *rest), self), False)

    def others(self, *record: list[Any]) -> None:
        """Another process commits a record."""
        self.replay(self.root, list(record))
        self.replay(self.replica, list(record))
        self.view = object()

    def roll_back(self, count: int) -> None:
        """Undo the last *count* records."""
        for _ in range(count):
            for node, op in reversed(self.undo.pop()):
                ops.apply(node, op, True)
            self.records.pop()
        self.replica = ops.graft(ops.plain(self.root), self, ops.ROOT, None)
        self.view = object()

    def check(self) -> None:
        """The tree is well linked, and what its records make of the second one."""
        check_links(self.root, self)
        assert in_order(self.root) == in_order(self.replica)


def state(**tree: Any) -> Any:
    """The root of a new memory store."""
    return MemoryStore(tree).root


def check_links(node: Any, store: Any) -> None:
    """Every container below *node* knows its place."""
    assert node._store is store
    if isinstance(node, dict):
        children = list(dict.items(node))
    elif isinstance(node, list):
        children = list(enumerate(list.__iter__(node)))
    else:
        return
    for key, child in children:
        if type(child) in SCALARS:
            continue
        assert type(child) in (MappedDict, MappedList, MappedSet)
        assert child._parent is node
        if isinstance(node, dict):
            assert child._key == key
        else:
            assert ops.index_of(node, child) == key
        check_links(child, store)


def in_order(node: Any) -> str:
    """The content of *node*, types and the order of keys included; sets sorted."""
    if isinstance(node, dict):
        return "{" + ", ".join(f"{key!r}: {in_order(item)}" for key, item in dict.items(node)) + "}"
    if isinstance(node, list):
        return "[" + ", ".join(in_order(item) for item in list.__iter__(node)) + "]"
    if isinstance(node, set):
        return "set(" + ", ".join(sorted(repr(member) for member in ops.plain(node))) + ")"
    if isinstance(node, tuple):
        return "(" + ", ".join(map(in_order, node)) + ")"
    return repr(node)


def assert_plain(value: Any) -> None:
    """Nothing but exact builtin types (a record may also hold tuples: operations)."""
    if type(value) is dict:
        for key, item in value.items():
            assert type(key) in SCALARS
            assert_plain(item)
    elif type(value) in (list, tuple, set):
        for item in value:
            assert_plain(item)
    else:
        assert type(value) in SCALARS, type(value)
