"""The container API through a file and a server, against plain `dict`, `list` and `set`; with crashes and rollbacks.

After every step what a stranger replays is what was committed, and memory is what the program sees: both are the model.
"""

from __future__ import annotations

import copy
import itertools
import os
import tempfile
from collections.abc import Callable, Iterator
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from tools import homes
from tools.crash import State, peek, plain_document, play, replayed
from tools.disks import spare_the_disk

from pstate import PersistedState, TransactionError
from pstate.file import format
from pstate.file.fs import SYSTEM
from pstate.text import reading
from pstate.values import same
from stress.real import postgres


@pytest.fixture(autouse=True, scope="module")
def cheap_syncs() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        for name in ("sync", "sync_data", "sync_folder"):
            patch.setattr(SYSTEM, name, getattr(SYSTEM, name))
        spare_the_disk(SYSTEM)
        yield


Path_ = tuple[Any, ...]

KEYS = st.sampled_from(["a", "b", "c", "items", "d e", 1, True, 0, None, 2.0, b"k", date(2024, 2, 29), "\u00e9\u2028"])
SCALARS = st.sampled_from(
    [0, 1, -1, True, None, "", "x", "1", 1.0, -0.0, 2**70, b"\0", date(1, 1, 1), "a\nb", "\U0001f600"]
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(KEYS, inner, max_size=3)
        | st.sets(KEYS, max_size=3)
    ),
    max_leaves=5,
)  # fmt: skip
INDICES = st.integers(-4, 4)
BOUNDS = st.none() | st.integers(-4, 4)
SLICES = st.builds(slice, BOUNDS, BOUNDS, st.sampled_from([None, 1, 2, -1, -2]))
LISTS = st.lists(VALUES, max_size=3)
NUMBERS = st.lists(st.integers(0, 5), max_size=4)
DICTS = st.dictionaries(KEYS, VALUES, max_size=3)
SETS = st.sets(KEYS, max_size=4)
#: Like the ones that the state makes of a tuple or frozenset, so that the model need not convert.
Call = Callable[[Any], Any]


def call(name: str, *arguments: st.SearchStrategy[Any]) -> st.SearchStrategy[tuple[str, Call]]:
    return st.tuples(*arguments).map(
        lambda drawn: (f"{name}{drawn}", lambda target: getattr(target, name)(*copy.deepcopy(drawn)))
    )


def inplace(
    operator: Callable[[Any, Any], Any], argument: st.SearchStrategy[Any]
) -> st.SearchStrategy[tuple[str, Call]]:
    return argument.map(
        lambda drawn: (f"{operator.__name__} {drawn}", lambda target: operator(target, copy.deepcopy(drawn)))
    )


def ior(target: Any, other: Any) -> None:
    target |= other


def iand(target: Any, other: Any) -> None:
    keep(target, other, lambda: target.__iand__(other))


def intersection_update(target: Any, other: Any) -> None:
    keep(target, other, lambda: target.intersection_update(other))


def keep(target: Any, other: Any, function: Callable[[], Any]) -> None:
    """Of 1 and True a built-in set keeps either, as their sizes have it; a state keeps the member that it has."""
    kept = target - (target - other)
    function()
    if type(target) is set:
        target.clear()
        target.update(kept)


def isub(target: Any, other: Any) -> None:
    target -= other


def ixor(target: Any, other: Any) -> None:
    target ^= other


def iadd(target: Any, other: Any) -> None:
    target += other


def imul(target: Any, other: Any) -> None:
    target *= other


def set_item(target: Any, pair: tuple[Any, Any]) -> None:
    target[pair[0]] = pair[1]


def delete_item(target: Any, key: Any) -> None:
    del target[key]


def sort_by_text(target: Any, reverse: bool) -> None:
    target.sort(key=repr, reverse=reverse)


def add_to_item(target: Any, key: Any) -> None:
    target[key] += 1


def swap(target: Any, pair: tuple[int, int]) -> None:
    first, second = pair
    target[first], target[second] = target[second], target[first]


def walk(target: Any, _: Any) -> Any:
    return [list(target), list(target.values()), [list(item) for item in target.items()], list(reversed(target))]


DICT_CALLS = st.one_of(
    inplace(set_item, st.tuples(KEYS, VALUES)),
    inplace(delete_item, KEYS),
    inplace(add_to_item, KEYS),
    call("pop", KEYS),
    call("pop", KEYS, VALUES),
    call("popitem"),
    call("setdefault", KEYS, VALUES),
    call("update", DICTS),
    call("update", st.lists(st.tuples(KEYS, VALUES), max_size=3)),
    inplace(ior, DICTS),
    call("clear"),
    call("get", KEYS),
    call("copy"),
    call("__contains__", KEYS),
    call("__len__"),
    inplace(walk, KEYS),
)  # fmt: skip
LIST_CALLS = st.one_of(
    call("append", VALUES),
    call("extend", LISTS),
    call("insert", INDICES, VALUES),
    inplace(set_item, st.tuples(INDICES, VALUES)),
    inplace(set_item, st.tuples(SLICES, LISTS)),
    inplace(delete_item, INDICES),
    inplace(delete_item, SLICES),
    inplace(add_to_item, INDICES),
    inplace(swap, st.tuples(INDICES, INDICES)),
    call("pop"),
    call("pop", INDICES),
    call("remove", SCALARS),
    call("index", SCALARS),
    call("count", SCALARS),
    call("reverse"),
    call("sort"),
    inplace(sort_by_text, st.booleans()),
    inplace(iadd, LISTS),
    inplace(imul, st.integers(-1, 2)),
    call("clear"),
    call("copy"),
    call("__getitem__", SLICES),
    call("__getitem__", INDICES),
)
SET_CALLS = st.one_of(
    call("add", KEYS),
    call("discard", KEYS),
    call("remove", KEYS),
    call("update", SETS, SETS),
    inplace(intersection_update, SETS),
    call("difference_update", SETS),
    call("symmetric_difference_update", SETS),
    inplace(ior, SETS),
    inplace(iand, SETS),
    inplace(isub, SETS),
    inplace(ixor, SETS),
    call("clear"),
    call("issubset", SETS),
    call("isdisjoint", SETS),
    call("union", SETS),
)
CALLS: dict[Any, st.SearchStrategy[tuple[str, Call]]] = {dict: DICT_CALLS, list: LIST_CALLS, set: SET_CALLS}


def containers_in(value: Any, path: Path_ = ()) -> Iterator[Path_]:
    """The paths of all containers in a plain tree."""
    if isinstance(value, dict):
        yield path
        for key, item in value.items():
            yield from containers_in(item, (*path, key))
    elif isinstance(value, list):
        yield path
        for index, item in enumerate(value):
            yield from containers_in(item, (*path, index))
    elif isinstance(value, set):
        yield path


def find(root: Any, path: Path_) -> Any:
    for key in path:
        root = root[key]
    return root


def answer(function: Call, target: Any) -> tuple[str, Any]:
    try:
        result = function(target)
    except Exception as error:
        kinds = (TransactionError, KeyError, IndexError, TypeError, ValueError, AttributeError)
        return next((kind.__name__ for kind in kinds if isinstance(error, kind)), repr(error)), None
    return "returned", copy.deepcopy(result)


class Abort(Exception):
    pass


class Machine(RuleBasedStateMachine):
    """`model` is what the program sees; `saved` holds a copy for each open block, the outermost first."""

    def __init__(self) -> None:
        super().__init__()
        self.state: Any = None
        self.model: dict[Any, Any] = {}
        self.saved: list[dict[Any, Any]] = []
        self.blocks: list[Any] = []
        self.dead = -1  #: the depth of a block that was rolled back and is still open, or -1
        self.held: list[tuple[Any, Path_]] = []

    @initialize(
        base=st.sampled_from(["", "# empty\n", "a: 1\nb: [1, {c: 2}]\n", "a: {b: {c: []}}", "s: !!set {a, b}\n...\n"])
    )
    def begin(self, base: str) -> None:
        self.put(base)
        self.model = replayed(base.encode())

    def put(self, base: str) -> None:
        """Begin a state with the document *base*."""
        raise NotImplementedError

    def open(self) -> None:
        raise NotImplementedError

    def at_rest(self) -> State:
        """What a stranger finds after a close or a vacuum."""
        raise NotImplementedError

    def die(self, torn: int) -> None:
        """What a process that dies now leaves behind is all that is left."""
        raise NotImplementedError

    def committed_elsewhere(self) -> State:
        """What a stranger finds at any time."""
        raise NotImplementedError

    @property
    def committed(self) -> dict[Any, Any]:
        return self.saved[0] if self.saved else self.model

    # ------------------------------------------------------------------ changes

    @rule(data=st.data(), steps=st.integers(1, 3))
    def change(self, data: st.DataObject, steps: int) -> None:
        """Call anything on any container; it answers as the plain one does, and so does its refusal."""
        for _ in range(steps):
            paths = list(containers_in(self.model))
            path = paths[data.draw(st.integers(0, len(paths) - 1), label="container")]
            plain = find(self.model, path)
            name, function = data.draw(CALLS[type(plain)], label="call")
            mapped = find(self.state, path)
            assert type(plain) in type(mapped).__mro__
            if self.dead >= 0:
                # It reads or refuses; that nothing changes is an invariant.
                expected = answer(function, copy.deepcopy(plain))
                found = answer(function, mapped)
                assert found[0] in (expected[0], "TransactionError"), f"{name}: {expected} != {found}"
                continue
            before = copy.deepcopy(plain)
            expected = answer(function, plain)
            if expected[0] != "returned":
                # A built-in may have changed in part: `l.sort()`, `l += iterator`. A state does all or nothing.
                self.put_back(path, before)
            if isinstance(plain, list):
                plain[:] = map(copy.deepcopy, plain)  # after `l *= 2` a list shares its items, and a state has copies
            found = answer(function, mapped)
            assert expected[0] == found[0], f"{name} on {before!r}: {expected} != {found}"
            assert same(expected[1], found[1]), f"{name} on {before!r}: {expected} != {found}"

    def put_back(self, path: Path_, before: Any) -> None:
        plain = find(self.model, path)
        if isinstance(plain, list):
            plain[:] = before
        else:
            plain.clear()
            plain.update(before)

    @precondition(lambda self: self.dead < 0)
    @rule(name=st.sampled_from(["a", "b", "abc", "x1"]), value=VALUES)
    def set_attribute(self, name: str, value: Any) -> None:
        setattr(self.state, name, value)
        self.model[name] = copy.deepcopy(value)
        assert same(value, getattr(self.state, name))

    @precondition(lambda self: self.dead < 0)
    @rule(data=st.data())
    def pop_from_a_set(self, data: st.DataObject) -> None:
        paths = [
            path for path in containers_in(self.model) if find(self.model, path) and type(find(self.model, path)) is set
        ]
        if paths:
            path = data.draw(st.sampled_from(paths))
            member = find(self.state, path).pop()
            find(self.model, path).remove(member)

    @precondition(lambda self: self.dead < 0)
    @rule(data=st.data())
    def copy_within_the_state(self, data: st.DataObject) -> None:
        """Assigning a container of the state copies it in."""
        paths = list(containers_in(self.model))
        path = data.draw(st.sampled_from(paths))
        if len(path) > 6:
            return
        self.state["copied"] = find(self.state, path)
        self.model["copied"] = copy.deepcopy(find(self.model, path))

    # ------------------------------------------------------------------ blocks

    @precondition(lambda self: len(self.blocks) < 3)
    @rule()
    def enter(self) -> None:
        block = self.state.transaction()
        block.__enter__()
        self.blocks.append(block)
        self.saved.append(copy.deepcopy(self.model))

    @precondition(lambda self: self.blocks)
    @rule()
    def leave(self) -> None:
        self.blocks.pop().__exit__(None, None, None)
        self.saved.pop()
        if len(self.blocks) <= self.dead:
            self.dead = -1

    @precondition(lambda self: self.blocks)
    @rule()
    def leave_by_an_exception(self) -> None:
        self.blocks.pop().__exit__(Abort, Abort(), None)
        self.model = self.saved.pop()
        if len(self.blocks) <= self.dead:
            self.dead = -1

    @precondition(lambda self: self.blocks and self.dead < 0)
    @rule()
    def roll_back(self) -> None:
        self.blocks[-1].rollback()
        self.model = copy.deepcopy(self.saved[-1])
        self.dead = len(self.blocks) - 1

    @precondition(lambda self: self.dead < 0)
    @rule(data=st.data())
    def whole_block_that_raises(self, data: st.DataObject) -> None:
        before = copy.deepcopy(self.model)
        blocks = len(self.blocks)
        with pytest.raises(Abort), self.state.transaction():
            self.change(data, 2)
            raise Abort
        assert len(self.blocks) == blocks
        self.model = before

    # ------------------------------------------------------------------ life and death

    @precondition(lambda self: not self.blocks)
    @rule()
    def close_and_open(self) -> None:
        self.state.close()
        assert same(self.model, self.at_rest())
        self.open()

    @precondition(lambda self: not self.blocks)
    @rule()
    def vacuum(self) -> None:
        self.state.vacuum()
        assert same(self.model, self.at_rest())

    @rule(torn=st.sampled_from([0, 1, 18, 30]))
    def crash_and_open(self, torn: int) -> None:
        self.die(torn)
        self.model = self.committed
        self.saved, self.blocks, self.dead = [], [], -1
        self.open()

    def abandon(self) -> None:
        while self.blocks:
            self.blocks.pop().__exit__(Abort, Abort(), None)
        self.state.close()

    # ------------------------------------------------------------------ what always holds

    @invariant()
    def memory_is_the_model(self) -> None:
        if self.state is None:
            return
        assert same(self.model, self.state.snapshot()), f"{self.state.snapshot()} != {self.model}"
        assert list(self.model) == list(self.state)
        assert self.model == self.state
        assert len(self.model) == len(self.state)

    @invariant()
    def others_find_what_was_committed(self) -> None:
        if self.state is None:
            return
        found = self.committed_elsewhere()
        assert same(self.committed, found), f"{found} != {self.committed}"
        assert list(self.committed) == list(found)

    def teardown(self) -> None:
        if self.state is not None:
            self.abandon()
            if not self.saved:
                assert same(self.model, self.at_rest())


class FileMachine(Machine):
    """A state in a file. The bytes are looked at, too."""

    def __init__(self) -> None:
        super().__init__()
        # Removed by the object that made it, and by nothing that works out a path.
        self.temporary = tempfile.TemporaryDirectory(prefix="pstate-model-")
        self.folder = Path(self.temporary.name)
        self.path = self.folder / "state.yaml"
        self.crashes = 0

    def put(self, base: str) -> None:
        self.path.write_bytes(base.encode())
        self.open()

    def open(self) -> None:
        self.state = PersistedState(self.path)

    def at_rest(self) -> State:
        assert ["state.yaml"] == os.listdir(self.folder)
        return plain_document(self.path.read_bytes())

    def die(self, torn: int) -> None:
        """Go on with a copy of the file as it is."""
        data = self.path.read_bytes()
        if format.find_marker(data) >= 0:
            record, _ = format.encode_record('[["set",[],"a",1]]', format.scan(data).crc)
            data += record[:torn]
        self.crashes += 1
        self.path = self.folder / f"crash{self.crashes}" / "state.yaml"
        self.path.parent.mkdir()
        self.path.write_bytes(data)
        self.abandon()
        for left in self.folder.glob("*.yaml"):
            left.unlink()
        self.folder = self.path.parent

    def committed_elsewhere(self) -> State:
        data = self.path.read_bytes()
        image = format.scan(data)
        assert image.verdict is format.Verdict.CLEAN
        state: State = reading.load(image.base, "").value
        for body in image.bodies:
            play(state, reading.decode_body(body, "", 0))
        if len(image.bodies) % 4 == 1:
            assert same(state, replayed(data))
            assert same(state, peek(self.path))
        return state

    def teardown(self) -> None:
        try:
            super().teardown()
        finally:
            self.temporary.cleanup()


class ServerMachine(Machine):
    """A state on a server, each in a name of its own."""

    server: postgres.Server
    numbers = itertools.count()

    def put(self, base: str) -> None:
        self.url = f"{self.server.url}#model {next(self.numbers)}"
        self.home = homes.ServerHome(self.url)
        self.open()
        self.state._store.save({}, base.encode())

    def open(self) -> None:
        self.state = PersistedState(self.url)

    def at_rest(self) -> State:
        assert not self.home.is_locked()
        return self.home.found()

    def die(self, torn: int) -> None:
        """The server notices that the session has ended."""
        self.home.end_session(self.state._store.log.server.backend)
        self.abandon()

    def committed_elsewhere(self) -> State:
        found = self.home.found()
        if len(self.state) % 4 == 1:
            assert same(found, self.home.reopened())
        return found


def run(machine: type[Machine], examples: int) -> None:
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=examples,
            stateful_step_count=25,
            deadline=None,
            print_blob=True,
            suppress_health_check=list(HealthCheck),
        ),
    )


@pytest.mark.parametrize("part", range(3))
def test_the_containers_do_what_plain_ones_do(part: int) -> None:
    run(FileMachine, settings().max_examples // 3)  # parts, so that they run side by side


def test_the_containers_do_what_plain_ones_do_on_a_server(
    postgres_server: postgres.Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With HYPOTHESIS_PROFILE=thorough, for minutes."""
    pytest.importorskip("psycopg", reason="psycopg is not installed")
    monkeypatch.setattr(ServerMachine, "server", postgres_server, raising=False)
    run(ServerMachine, settings().max_examples // 10)
