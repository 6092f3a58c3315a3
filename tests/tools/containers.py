"""The store that the tests of containers look into: the real one, on the engine in memory.

It asserts what the store promises the containers, as strictly as it can: a plan changes nothing, an operation that is
prepared changes nothing, an operation holds plain values only, and no plan comes back to the store. A second store of
the same state stands for another process. `check` compares the two.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from pstate.memory import ops
from pstate.memory.dicts import MappedDict
from pstate.memory.lists import MappedList
from pstate.memory.sets import MappedSet
from pstate.store import Store
from pstate.testing.memory import MemoryEngine
from pstate.text.reading import decode_body
from pstate.text.records import encode_body
from pstate.values import SCALARS, same, take
from tools.engines import Wrapped, Wrapping

ADDRESS = "the state of a test"


class Checked(Wrapped):
    """The log of a `WatchedStore`."""

    store: Any = None

    def commit(self, body: str, after: Any = None) -> Any:
        store = self.store
        if after is None:
            assert same(store.before, ops.plain(store.root)), "prepare has changed memory"
        view = self.log.commit(body, after)
        store.records.append(decode_body(body, ADDRESS, 1))
        return view


class WatchedStore(Store):
    """A store that says what it was asked for."""

    def __init__(self, tree: dict[Any, Any] | None = None, *, cached: bool = True) -> None:
        self.cached = cached
        self.records: list[list[list[Any]]] = []  #: what was committed
        self.planned = 0  #: how many changes of the state had something to do, also in a block
        self.reads = 0
        self.before: Any = None  #: memory, when the last change was planned
        self.before_fresh: Callable[[], None] | None = None
        self.before_read: Callable[[], None] | None = None
        self.before_mutate: Callable[[], None] | None = None
        self._is_put = False
        memory = MemoryEngine()
        super().__init__(ADDRESS, engine=Wrapping(memory, Checked), lock_timeout=None)
        self.log.store = self  # type: ignore[attr-defined]
        self._open_log()
        self._is_fresh = self.fresh
        self.fresh = self._asked
        self.other = Store(ADDRESS, engine=memory, lock_timeout=None)
        self.other._open_log()
        if tree:
            operations = [("set", key, value) for key, value in take(tree, "state").items()]
            self.before = {}
            Store.mutate(self, self.root, lambda root: (operations, None))
            self.records.clear()

    def _asked(self) -> Any:
        if self.before_fresh is not None:
            self.before_fresh()
        return self._is_fresh() if self.cached and not self._busy else None

    def read(self, function: Callable[..., Any], *args: Any) -> Any:
        assert not self._is_at_work_here(), "a plan or an operation reads through the store"
        self.reads += 1
        if self.before_read is not None:
            self.before_read()
        return super().read(function, *args)

    def put(self, node: Any, key: Any, value: Any) -> None:
        assert not self._is_at_work_here(), "a plan or an operation changes the state"
        if self.before_mutate is not None:
            self.before_mutate()
        self.refresh()
        count, self.before, self._is_put = self.planned, ops.plain(self.root), True
        try:
            super().put(node, key, value)
        finally:
            self._is_put = False
        if self.planned == count and isinstance(ops.node_path(node), list):
            self.planned += 1  # without a plan

    def mutate(self, node: Any, plan: Callable[..., tuple[Any, Any]], *args: Any) -> Any:
        assert not self._is_at_work_here(), "a plan or an operation changes the state"
        if self.before_mutate is not None and not self._is_put:
            self.before_mutate()
        return super().mutate(node, partial(self._planned, plan), *args)

    def _planned(self, plan: Callable[..., tuple[Any, Any]], node: Any, *args: Any) -> tuple[Any, Any]:
        self.before = ops.plain(self.root)
        operations, result = plan(node, *args)
        assert same(self.before, ops.plain(self.root)), "a plan has changed memory"
        assert_plain(operations)
        if operations and isinstance(ops.node_path(node), list):
            self.planned += 1
        return operations, result

    def _is_at_work_here(self) -> bool:
        return self._busy and self.mutex._is_owned()  # type: ignore[attr-defined]

    def refresh(self) -> None:
        """Look for commits of others, which counts as no read."""
        Store.read(self, int)

    def others(self, *record: list[Any]) -> None:
        """Another process commits a record, and this one sees it."""
        other = self.other
        try:
            other.log.begin(0)
            view = other.log.commit(encode_body(list(record)))
            other.view = None
            other.apply(list(record))
            other.log.publish(view)
        finally:
            other.log.hold.unlock()
        self.refresh()

    def check(self) -> None:
        """Not after each test: some change memory on purpose, without a commit. See `check_tree`."""

    def check_tree(self) -> None:
        """The tree is well linked, and another process sees the same, or will when the block has ended."""
        check_links(self.root, self)
        theirs = Store.read(self.other, ops.plain, self.other.root)
        if self.changes is not None and self.changes.operations:
            record = decode_body(encode_body(self.changes.operations), ADDRESS, 1)
            theirs = self.other.replay(theirs, [record])
        assert in_order(self.root) == in_order(theirs)


def state(**tree: Any) -> Any:
    """The root of a new store."""
    return WatchedStore(tree).root


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
