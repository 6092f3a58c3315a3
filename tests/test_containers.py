"""The mapped containers: a plain dict, list or set in everything but that each change is one record.

The state machine at the end compares the whole API with the builtins. Before it are the promises that have
no counterpart there: places, references, what is one commit and what is none, what runs in which moment.
"""

from __future__ import annotations

import collections
import contextlib
import copy
import dataclasses
import datetime as dt
import enum
import gc
import itertools
import json
import operator
import pickle
import pprint
import random
import threading
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from typing import Any, ClassVar

import pytest
from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from tools.containers import WatchedStore, in_order, state

from pstate import store
from pstate.errors import RemovedError, ReservedNameError, UnsupportedTypeError, UnsupportedValueError
from pstate.memory import frames, ops, sets
from pstate.memory.dicts import MappedDict
from pstate.memory.lists import MappedList
from pstate.memory.nodes import Mapped
from pstate.memory.sets import MappedSet
from pstate.state import Transaction
from pstate.values import MAX_DEPTH, same


def records(node: Any) -> list[Any]:
    """The records since the last call."""
    store = node._store
    new = store.records[:]
    store.records.clear()
    store.check_tree()
    return new


class Level(enum.IntEnum):
    LOW = 1


# --- reading


def test_no_method_of_the_builtins_reads_or_writes_behind_the_stores_back() -> None:
    """Every method that dict, list and set have is ours, or one that looks at no content."""
    harmless = {
        "__class__", "__class_getitem__", "__delattr__", "__dir__", "__doc__", "__format__", "__getattribute__",
        "__getstate__", "__init_subclass__", "__new__", "__reduce__", "__setattr__", "__sizeof__", "__str__",
        "__subclasshook__", "__hash__",
    }  # fmt: skip
    for mapped, builtin in ((MappedDict, dict), (MappedList, list), (MappedSet, set)):
        for name in dir(builtin):
            ordering_of_dicts = builtin is dict and name in {"__lt__", "__le__", "__gt__", "__ge__"}
            if name not in harmless and not ordering_of_dicts:
                assert name in {*vars(mapped), *vars(Mapped)}, f"{mapped.__name__}.{name}"
        assert mapped.__hash__ is None


def test_mapped_containers_are_made_by_the_state_only() -> None:
    root = state(d={"a": 1}, l=[1], s={1})
    for node, value in ((root.d, {}), (root.l, []), (root.s, set())):
        with pytest.raises(TypeError, match="into a state"):
            node.__init__(value)  # the builtin one would replace the content
    assert root == {"d": {"a": 1}, "l": [1], "s": {1}}


@dataclasses.dataclass
class Holder:
    content: Any


TREE = {"d": {"l": [{"s": {1}}, [2]], "e": {}}, "l": [{"k": 1}, [3]], "s": {4}}


@pytest.mark.parametrize(
    "rebuilt",
    [
        pytest.param(lambda node: dataclasses.asdict(Holder(node))["content"], id="asdict"),
        pytest.param(lambda node: dataclasses.asdict(Holder([{"x": node}]))["content"][0]["x"], id="asdict, nested"),
        pytest.param(lambda node: dataclasses.astuple(Holder(node))[0], id="astuple"),
        pytest.param(lambda node: type(node)(node), id="type(x)(x)"),
        pytest.param(lambda node: node.__class__(node), id="x.__class__(x)"),
        pytest.param(lambda node: type(node)(pairs(node)), id="type(x)(a list)"),
        pytest.param(lambda node: type(node)(pair for pair in pairs(node)), id="type(x)(a generator)"),
        pytest.param(lambda node: filled(type(node)(), node), id="type(x)(), filled"),
        pytest.param(
            lambda node: type(node)(**node) if isinstance(node, dict) else type(node)(node), id="type(x)(**x)"
        ),
        pytest.param(copy.copy, id="copy"),
        pytest.param(copy.deepcopy, id="deepcopy"),
        pytest.param(lambda node: copy.deepcopy(Holder(node)).content, id="deepcopy of an object that holds it"),
        pytest.param(lambda node: pickle.loads(pickle.dumps(Holder(node))).content, id="pickle"),
    ],
)
def test_what_rebuilds_a_container_by_its_class_gets_the_plain_kind_all_the_way_down(
    rebuilt: Callable[[Any], Any],
) -> None:
    root = state(**TREE)
    for name, plain in TREE.items():
        node = root[name]
        made = rebuilt(node)
        assert same(plain, made)
        assert {dict, list, set, int, str} >= kinds_in(made), made
    assert records(root) == []


def pairs(node: Any) -> list[Any]:
    return list(node.items() if isinstance(node, dict) else node)


def filled(made: Any, node: Any) -> Any:
    """What code does that makes an empty container first."""
    for item in pairs(node):
        if isinstance(made, dict):
            made[item[0]] = copy.copy(item[1])
        elif isinstance(made, list):
            made.append(copy.copy(item))
        else:
            made.add(item)
    return made


def kinds_in(value: Any) -> set[type]:
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, (list, set)) else ()
    return {type(value)}.union(*map(kinds_in, inner))


def test_a_class_that_is_called_takes_what_the_builtin_takes_and_reads_one_moment() -> None:
    root = state(d={"a": 1}, l=[1], s={1})
    for node, wrong in ((root.d, [1]), (root.d, 5), (root.l, 5), (root.s, 5), (root.s, [[]])):
        with pytest.raises(TypeError):
            type(node)(wrong)
    for node in (root.d, root.l, root.s):
        with pytest.raises(TypeError):
            type(node)((), ())
        root._store.reads = 0
        assert type(node)(node) == node.copy()
        assert root._store.reads == 2  # one each: the constructors of the builtins may read memory as it is


def test_containers_come_back_as_real_dicts_lists_and_sets() -> None:
    root = state(d={"a": [1]}, l=[{"b": {2}}], s={3})

    assert isinstance(root, dict)
    assert isinstance(root.d, dict)
    assert isinstance(root.l, list)
    assert isinstance(root.s, set)
    assert root.d["a"][0] == root.d.a[0] == 1
    assert root.l[0].b == {2}
    assert root.l is root.l
    for node in (root, root.d, root.l, root.s):
        with pytest.raises(TypeError, match="unhashable"):
            hash(node)


# --- attributes


def test_items_are_attributes() -> None:
    root = state(a=1, d={})
    root.b = [1]
    root.d.c = 2
    del root.a

    assert root == {"d": {"c": 2}, "b": [1]}
    assert hasattr(root, "b")
    assert not hasattr(root, "a")
    assert getattr(root, "a", 5) == 5
    assert [["set", [], "b", [1]]] == records(root)[0]


@pytest.mark.parametrize("touch", [lambda d: d.missing, lambda d: delattr(d, "missing"), lambda d: d.__missing__])
def test_a_missing_attribute_is_an_attribute_error(touch: Callable[[Any], Any]) -> None:
    with pytest.raises(AttributeError):
        touch(state(d={}).d)


def test_a_missing_attribute_names_place_and_key() -> None:
    with pytest.raises(AttributeError, match=r"state\.jobs\[1\] has no key 'at'") as caught:
        _ = state(jobs=[{}, {}]).jobs[1].at
    assert caught.value.name == "at"


@pytest.mark.parametrize("name", ["items", "update", "clear", "keys", "fromkeys"])
def test_a_key_that_is_a_method_works_as_an_item_only(name: str) -> None:
    root = state(d={})
    root.d[name] = 1
    records(root)

    assert root.d[name] == 1
    assert callable(getattr(root.d, name))
    for touch in (lambda: setattr(root.d, name, 2), lambda: delattr(root.d, name)):
        with pytest.raises(ReservedNameError) as caught:
            touch()
        assert f'state.d["{name}"]' in str(caught.value)
        assert isinstance(caught.value, AttributeError)
    assert root.d == {name: 1}
    assert records(root) == []


def test_names_with_a_leading_underscore_are_never_state() -> None:
    root = state(d={"_x": 1})
    with pytest.raises(AttributeError):
        _ = root.d._x
    with pytest.raises(AttributeError, match=r"""state\.d\["_y"\]"""):
        root.d._y = 1
    with pytest.raises(AttributeError):
        del root.d._x
    assert root.d == {"_x": 1}
    assert records(root) == []


class Account(MappedDict):
    """As `PersistedState` is subclassed: it has a `__dict__`."""

    limit: ClassVar[int] = 5
    counter: int

    @property
    def double(self) -> int:
        return int(self["n"]) * 2

    @property
    def broken(self) -> int:
        raise AttributeError("the property says so")

    @property
    def settable(self) -> Any:
        return self["n"]

    @settable.setter
    def settable(self, value: Any) -> None:
        self["n"] = value

    @settable.deleter
    def settable(self) -> None:
        del self["n"]


def account(**tree: Any) -> Account:
    root = Account.__new__(Account)
    for name, value in (("_parent", ops.ROOT), ("_key", None)):
        object.__setattr__(root, name, value)
    core = WatchedStore()
    core.attach(root, None)
    store._kept_alive.discard(core)  # nobody closes it
    root.update(tree)
    return root


def test_a_subclass_has_properties_class_attributes_and_private_names() -> None:
    root = account(n=2)
    root._private = 1
    root.counter = 3
    root.settable = 4

    assert root._private == 1
    assert root == {"n": 4, "counter": 3}
    assert root.double == 8
    for name in ("double", "limit", "broken"):
        with pytest.raises(ReservedNameError):
            setattr(root, name, 1)
    with pytest.raises(AttributeError, match="the property says so"):
        _ = root.broken
    del root.settable, root._private
    assert root == {"counter": 3}
    assert not hasattr(root, "_private")


@pytest.mark.parametrize("name", ["_store", "_parent", "_key", "_plain", "_reserved", "_direct", "_internal"])
def test_names_that_the_class_uses_itself_are_refused_as_attributes(name: str) -> None:
    root = account(n=2, d={})
    for change in (lambda: setattr(root, name, 1), lambda: delattr(root, name)):
        with pytest.raises(ReservedNameError, match=name) as caught:
            change()
        assert f"state.{name}" == caught.value.place
    with pytest.raises(AttributeError, match="leading underscore"):
        setattr(root.d, name, 1)
    with pytest.raises(ReservedNameError, match=rf"class Sub: .*{name}"):
        type("Sub", (MappedDict,), {name: 1})

    assert {"n": 2, "d": {}} == root


def test_an_empty_name_is_a_key_like_any_other() -> None:
    root = state(d={})
    assert not hasattr(root, "")
    assert getattr(root, "", 5) == 5
    setattr(root, "", 1)
    assert hasattr(root, "")
    assert getattr(root, "") == root[""] == 1
    delattr(root, "")
    assert root == {"d": {}}


def test_a_key_that_python_will_not_write_in_decimal_stands_in_messages_all_the_same() -> None:
    key = 10**5000
    root = state(d={key: {"l": [0]}})
    inner = root.d[key]

    assert not hasattr(inner, "missing")
    with pytest.raises(UnsupportedTypeError, match=r"0x[0-9a-f]{4000,}") as caught:
        inner.l.append(1j)
    assert f"state.d[{key:#x}].l[1]" == caught.value.place
    with pytest.raises(UnsupportedTypeError, match=r"0x[0-9a-f]{4000,}"):
        root.d.update({key: 1j})
    with pytest.raises(IndexError, match="0x"):
        ops.find(root, ["d", key, "l", key])


def test_dir_shows_the_keys_that_are_attributes() -> None:
    names = dir(state(alpha=1, **{"not one": 2}))

    assert "alpha" in names
    assert "items" in names
    assert "not one" not in names


# --- values


def test_a_refused_value_names_its_place_and_leaves_nothing() -> None:
    root = state(jobs=[{}, {"at": 1}], tags={1}, d={"x": [0]})
    for change, place in [
        (lambda: setattr(root, "x", 1j), "state.x"),
        (lambda: root.jobs[1].update(at=[{"b": 1j}]), "state.jobs[1].at[0].b"),
        (lambda: root.jobs.append(1j), "state.jobs[2]"),
        (lambda: root.jobs.extend([1, 1j]), "state.jobs[3]"),
        (lambda: root.jobs.insert(1, {"a": 1j}), "state.jobs[1].a"),
        (lambda: operator.setitem(root.jobs, slice(1, None), [0, 0, [1j]]), "state.jobs[3][0]"),
        (lambda: operator.setitem(root.jobs, 0, 1j), "state.jobs[0]"),
        (lambda: root.tags.add(1j), "state.tags"),
        (lambda: root.tags.update([5, 1j]), "state.tags"),
        (lambda: root.d.setdefault("new one", 1j), 'state.d["new one"]'),
        (lambda: operator.ior(root.d, {"a": 1, "b": 1j}), "state.d.b"),
        (lambda: operator.setitem(root.d, (1, 2), 1), "state.d"),
        (lambda: operator.setitem(root.d, Level.LOW, 1), "state.d"),
        (lambda: operator.setitem(root.d, [1], 1), "state.d"),
        (lambda: operator.setitem(root.d, [1], root.jobs), "state.d"),
        (lambda: root.d.setdefault([1], 1), "state.d"),
        (lambda: root.tags.update([[1]]), "state.tags"),
        (lambda: root.tags.symmetric_difference_update([[1]]), "state.tags"),
        (lambda: operator.setitem(root.d, "x", Level.LOW), "state.d.x"),
        (lambda: operator.iadd(root.d.x, (Level.LOW,)), "state.d.x[1]"),
    ]:
        with pytest.raises(UnsupportedTypeError) as caught:
            change()
        assert caught.value.place == place
        assert records(root) == []
        assert root == {"jobs": [{}, {"at": 1}], "tags": {1}, "d": {"x": [0]}}


def test_a_value_is_refused_where_it_would_stand_too_deep() -> None:
    root = state(a=[])
    node, levels = root.a, 2
    while levels < MAX_DEPTH:
        node.append([])
        node, levels = node[0], levels + 1
    node.append(1)

    with pytest.raises(UnsupportedValueError, match="too deep"):
        node.append([])
    with pytest.raises(UnsupportedValueError, match="too deep"):
        root.a.append(root)
    assert node == [1]


def test_a_container_that_is_assigned_is_copied_in() -> None:
    root = state(a={"l": [1]})
    mine = {"x": [1]}
    root.b = mine
    root.c = root.a
    root.d = root
    mine["x"].append(2)
    root.a.l.append(2)

    assert root.b == {"x": [1]}
    assert root.c == {"l": [1]}
    assert root.d == {"a": {"l": [1]}, "b": {"x": [1]}, "c": {"l": [1]}}
    assert root.c.l is not root.a.l
    assert len(records(root)) == 4


def test_two_elements_can_be_exchanged() -> None:
    root = state(l=[{"n": 0}, {"n": 1}])
    root.l[0], root.l[1] = root.l[1], root.l[0]

    assert root.l == [{"n": 1}, {"n": 0}]
    records(root)


def test_what_a_key_becomes_is_what_the_record_says() -> None:
    """A subclass or another zone of an equal key must not get into the file."""
    utc, one = dt.UTC, dt.timezone(dt.timedelta(hours=1))
    noon = dt.datetime(2026, 1, 1, 12, tzinfo=utc)
    name = type("Name", (str,), {})("a")
    root = state(d={"a": 1, 1: 2, noon: 3}, s={"a", 1, noon})
    for key in (name, Level.LOW, noon.astimezone(one)):
        assert key in root.d
        assert key in root.s
        del root.d[key]
        root.s.remove(key)

    assert repr([op[2] for record in records(root) for op in record][::2]) == repr(["a", 1, noon])
    assert root == {"d": {}, "s": set()}


# --- one call, one record


@pytest.mark.parametrize(
    ("call", "expected"),
    [
        (lambda r: r.update(a=1, b=[2]), [["set", [], "a", 1], ["set", [], "b", [2]]]),
        (lambda r: r.l.sort(), [["order", ["l"], [1, 2, 0]]]),
        (lambda r: r.l.reverse(), [["order", ["l"], [2, 1, 0]]]),
        (lambda r: r.l.extend([7, 8]), [["splice", ["l"], 3, 3, [7, 8]]]),
        (lambda r: r.l.extend([7]), [["insert", ["l"], 3, 7]]),
        (lambda r: r.l.append(7), [["insert", ["l"], 3, 7]]),
        (lambda r: r.l.insert(-1, 7), [["insert", ["l"], 2, 7]]),
        (lambda r: r.l.insert(99, 7), [["insert", ["l"], 3, 7]]),
        (lambda r: r.l.insert(-99, 7), [["insert", ["l"], 0, 7]]),
        (lambda r: r.l.pop(), [["delete", ["l"], 2]]),
        (lambda r: r.l.remove(1), [["delete", ["l"], 1]]),
        (lambda r: r.l.clear(), [["splice", ["l"], 0, 3, []]]),
        (lambda r: operator.setitem(r.l, -1, 7), [["set", ["l"], 2, 7]]),
        (lambda r: operator.delitem(r.l, slice(None, None, 2)), [["delete", ["l"], 2], ["delete", ["l"], 0]]),
        (lambda r: operator.delitem(r.l, slice(2, 0, -1)), [["splice", ["l"], 1, 3, []]]),
        (lambda r: operator.imul(r.l, 2), [["splice", ["l"], 3, 3, [3, 1, 2]]]),
        (lambda r: r.s.update([5, 4], {6}), [["add", ["s"], [5, 4, 6]]]),
        (lambda r: r.s.symmetric_difference_update({1, 5}), [["discard", ["s"], [1]], ["add", ["s"], [5]]]),
        (lambda r: r.d.clear(), [["delete", ["d"], "y"], ["delete", ["d"], "x"]]),
        (lambda r: r.d.setdefault("z", {}), [["set", ["d"], "z", {}]]),
        (lambda r: r.d.popitem(), [["delete", ["d"], "y"]]),
        (lambda r: operator.setitem(r, "n", 0), [["set", [], "n", 0]]),
    ],
)
def test_one_call_is_one_record(call: Callable[[Any], Any], expected: Any) -> None:
    root = state(l=[3, 1, 2], s={1}, d={"x": 1, "y": 2}, n=0)
    call(root)

    assert records(root) == [expected]


@pytest.mark.parametrize(
    "call",
    [
        lambda r: r.update(), lambda r: r.update({}), lambda r: r.l.extend(()), lambda r: r.s.add(1),
        lambda r: r.s.discard(7), lambda r: r.s.update([1]), lambda r: r.s.difference_update([7]),
        lambda r: r.e.clear(),
        lambda r: r.s.intersection_update([1, 2]), lambda r: r.s.symmetric_difference_update([]),
        lambda r: r.l.sort(), lambda r: r.one.reverse(), lambda r: r.one.clear() or r.one.clear() or r.one.append(1),
        lambda r: operator.imul(r.l, 1), lambda r: operator.setitem(r.l, slice(1, 1), []),
        lambda r: operator.delitem(r.l, slice(2, 1)), lambda r: r.pop("missing", None), lambda r: r.setdefault("l", 5),
        lambda r: r.l.sort(key=abs),
    ],
)  # fmt: skip
def test_a_call_that_changes_nothing_writes_nothing(call: Callable[[Any], Any]) -> None:
    root = state(l=[1, 2, 3], s={1}, e={}, one=[1])
    call(root)

    changed = records(root)
    assert changed == [] or len(changed) == 2 == len(changed)  # clear and append, and the second clear in between not
    assert root == {"l": [1, 2, 3], "s": {1}, "e": {}, "one": [1]}


def test_an_augmented_assignment_is_one_record() -> None:
    """`state.x += [1]` changes the list and then assigns it to where it is."""
    root = state(l=[1], d={"a": 1}, s={1}, deep=[{"l": [0]}, [1]])
    held = root.l, root.d, root.s, root.deep[1]
    for change in (
        "root.l += [2]",
        "root['l'] += (3,)",
        "root.l *= 2",
        "root.d |= {'b': 2}",
        "root.s |= {2}",
        "root.s -= {1}",
        "root.s ^= {5}",
        "root.s &= {5}",
        "root.deep[0].l += [1]",
        "root.deep[1] += [2]",
        "root.deep[-1] += [3]",
        "root.n = 0",
        "root.n += 1",
    ):
        exec(change, {"root": root})
        assert len(records(root)) == 1, change

    assert root == {
        "l": [1, 2, 3] * 2, "d": {"a": 1, "b": 2}, "s": {5}, "deep": [{"l": [0, 1]}, [1, 2, 3]], "n": 1,
    }  # fmt: skip
    assert all(map(operator.is_, held, (root.l, root.d, root.s, root.deep[1])))


def test_an_augmented_assignment_through_a_second_handle_is_one_record() -> None:
    """`PersistedState` objects hold what the root holds; the parent of the elements is the root."""
    root = state(l=[1])
    handle = Account.__new__(Account)
    for name, value in (("_store", root._store), ("_parent", ops.ROOT), ("_key", None)):
        object.__setattr__(handle, name, value)
    dict.update(handle, dict.items(root))
    handle.l += [2]

    assert records(root) == [[["insert", ["l"], 1, 2]]]


def test_assigning_a_child_to_another_place_is_a_copy() -> None:
    root = state(l=[1], m=[2])
    root.m = root.l
    root.l.append(5)

    assert root == {"l": [1, 5], "m": [1]}


def test_a_large_stepped_deletion_is_one_short_change() -> None:
    root = state(l=[[n] for n in range(1000)])
    kept = [root.l[n] for n in range(1, 1000, 2)]
    del root.l[::2]

    (record,) = records(root)
    assert [op[0] for op in record] == ["order", "splice"]
    assert all(map(operator.is_, kept, root.l))


BOUNDS = (None, -5, -4, -2, -1, 0, 1, 3, 4, 6)


@pytest.mark.parametrize("step", [None, 1, 2, 3, -1, -2, -5])
def test_every_slice_is_the_one_of_a_plain_list(step: int | None) -> None:
    root = state(l=[])
    node = root.l
    for start, stop in itertools.product(BOUNDS, BOUNDS):
        piece = slice(start, stop, step)
        size = len([0, 1, 2, 3][piece])
        for values in (None, [], ["x"] * size, ["x", "y"]):
            plain = [0, 1, 2, 3]
            node[:] = plain
            assert node[piece] == plain[piece]
            for container in (plain, node):
                with contextlib.suppress(ValueError):
                    if values is None:
                        del container[piece]
                    else:
                        container[piece] = values
            assert node == plain, (piece, values)
    records(root)


# --- references


def test_a_reference_stays_right_while_others_come_and_go() -> None:
    root = state(jobs=[{"n": n} for n in range(5)])
    job = root.jobs[2]
    root.jobs.insert(0, {"n": "new"})
    job.a = 1
    del root.jobs[1]
    root.jobs.reverse()
    job.b = 2
    root.jobs.sort(key=lambda job: str(job.n))
    job.c = 3
    root._store.others(["insert", ["jobs"], 0, "theirs"], ["splice", ["jobs"], 1, 2, [[], []]])
    job.d = 4

    assert [at for at, element in enumerate(root.jobs) if element is job] == [3]
    assert job == {"n": 2, "a": 1, "b": 2, "c": 3, "d": 4}
    assert root.jobs[3] == job
    root._store.check_tree()


@pytest.mark.parametrize(
    "take_out",
    [
        lambda r: r.pop("x"), lambda r: r.__delitem__("x"), lambda r: r.__setattr__("x", 1), lambda r: r.clear(),
        lambda r: r.update(x=5), lambda r: r.popitem(), lambda r: r.__delattr__("x"), lambda r: r.__setitem__("x", {}),
    ],
)  # fmt: skip
def test_a_container_that_this_process_takes_out_goes_on_as_an_ordinary_one(take_out: Callable[[Any], Any]) -> None:
    root = state(x={"l": [1]})
    x, inner = root.x, root.x.l
    take_out(root)
    count = len(root._store.records)
    x.a = 1
    inner.append(2)
    x.l += [3]

    assert x == {"l": [1, 2, 3], "a": 1}
    assert len(root._store.records) == count
    root.y = x
    x.a = 2
    assert root.y == {"l": [1, 2, 3], "a": 1}
    with pytest.raises(UnsupportedTypeError, match="taken out"):
        x.a = 1j


@pytest.mark.parametrize(
    "take_out",
    [
        lambda r: r.l.pop(0), lambda r: r.l.__delitem__(0), lambda r: r.l.__setitem__(0, 1), lambda r: r.l.clear(),
        lambda r: r.l.__setitem__(slice(None), r.l), lambda r: r.l.remove({"a": 1}), lambda r: r.l.__imul__(0),
        lambda r: r.l.__delitem__(slice(None, None, 2)), lambda r: r.l.__setitem__(slice(None, None, 2), [1, 2]),
    ],
)  # fmt: skip
def test_an_element_that_is_taken_out_goes_on_too(take_out: Callable[[Any], Any]) -> None:
    root = state(l=[{"a": 1}, 2, 3])
    job = root.l[0]
    take_out(root)
    before, count = in_order(root), len(root._store.records)
    job.b = 2

    assert job == {"a": 1, "b": 2}
    assert in_order(root) == before
    assert len(root._store.records) == count


def test_a_container_that_others_removed_can_be_read_and_not_changed() -> None:
    root = state(d={"l": [1]}, jobs=[{}, {"n": 1}], s=set())
    d, inner, job, tags = root.d, root.d.l, root.jobs[1], root.s
    root._store.others(["delete", [], "d"], ["splice", ["jobs"], 0, 2, []], ["set", [], "s", {5}])

    assert d == {"l": [1]}
    assert job.n == 1
    for change in (lambda: d.update(a=1), lambda: inner.append(1), job.clear, lambda: tags.add(1)):
        with pytest.raises(RemovedError):
            change()
    assert root == {"jobs": [], "s": {5}}


def test_another_process_change_reaches_references_already_held() -> None:
    root = state(d={"l": [1]})
    inner = root.d.l
    root._store.others(["insert", ["d", "l"], 0, 0], ["set", ["d"], "n", 1])

    assert inner == [0, 1]
    assert root.d.n == 1


# --- reading


@pytest.mark.parametrize(
    ("begin", "expected"),
    [
        (lambda root: root.d, ["a", "b"]),
        (lambda root: root.d.keys(), ["a", "b"]),
        (lambda root: root.d.values(), [1, 2]),
        (lambda root: root.d.items(), [("a", 1), ("b", 2)]),
        (lambda root: reversed(root.d), ["b", "a"]),
        (lambda root: root.l, [1, 2]),
        (lambda root: reversed(root.l), [2, 1]),
        (lambda root: root.s, [1, 2]),
    ],
)
@pytest.mark.parametrize("ours", [True, False])
def test_iteration_walks_the_state_as_it_was_when_the_loop_began(begin: Any, expected: Any, ours: bool) -> None:
    root = state(d={"a": 1, "b": 2}, l=[1, 2], s={1, 2})
    seen = []
    for element in begin(root):
        seen.append(element)
        if ours:
            root.d.c = len(root.l)
            root.l.clear()
            root.s.clear()
        else:
            root._store.others(["delete", ["d"], [*root.d][-1]], ["splice", ["l"], 0, 1, []], ["discard", ["s"], [2]])
        assert list(begin(root)) != expected

    assert seen == expected


def test_views_are_live() -> None:
    root = state(d={"a": 1})
    keys, values, items = root.d.keys(), root.d.values(), root.d.items()
    root.d.b = 2

    assert list(keys) == ["a", "b"] == list(keys.mapping)
    assert list(values) == [1, 2]
    assert list(items) == [("a", 1), ("b", 2)]
    assert (len(keys), len(values), len(items)) == (2, 2, 2)
    assert "b" in keys
    assert 2 in values
    assert ("b", 2) in items
    assert ("b", 3) not in items
    assert 5 not in items
    assert repr(keys) == "dict_keys(['a', 'b'])"
    assert repr(values) == "dict_values([1, 2])"
    assert repr(items) == "dict_items([('a', 1), ('b', 2)])"
    assert keys == {"a", "b"} == items.mapping.keys()
    assert [*reversed(keys)] == ["b", "a"]
    assert [*reversed(values)] == [2, 1]
    assert [*reversed(items)] == [("b", 2), ("a", 1)]


@pytest.mark.parametrize("name", ["and_", "or_", "sub", "xor", "lt", "le", "gt", "ge", "eq", "ne"])
def test_views_are_sets(name: str) -> None:
    operation = getattr(operator, name)
    root = state(d={"a": 1, "b": 2}, e={"b": 2, "c": 3})
    plain, mapped = {"a": 1, "b": 2}, root.d
    for view in (dict.keys, dict.items):
        ours = getattr(mapped, view.__name__)()
        theirs = view(plain)
        for other in (set(theirs), set(), {"b"}, {("b", 2)}, {"b": 2}.keys(), {"b": 2}.items()):
            assert operation(ours, other) == operation(theirs, other)
            assert operation(other, ours) == operation(other, theirs)
        others = getattr(root.e, view.__name__)()
        assert operation(ours, others) == operation(theirs, view({"b": 2, "c": 3}))
        assert ours.isdisjoint(others) is False


def test_whole_copies_are_plain_all_the_way_down() -> None:
    root = state(d={"l": [{"s": {1}}]})
    for copied in (
        root.copy(), root | {}, {} | root, copy.copy(root), copy.deepcopy(root), pickle.loads(pickle.dumps(root)),
        {"d": root.d.copy()}, {"d": {"l": root.d.l[:]}}, {"d": {"l": root.d.l + []}}, {"d": {"l": [] + root.d.l}},  # noqa: RUF005
        {"d": {"l": root.d.l * 1}}, {"d": {"l": [{"s": root.d.l[0].s | set()}]}},
        {"d": {"l": [{"s": frozenset(root.d.l[0].s) and root.d.l[0].s.union()}]}},
    ):  # fmt: skip
        assert same(copied, {"d": {"l": [{"s": {1}}]}})
        assert [type(copied), type(copied["d"]), type(copied["d"]["l"]), type(copied["d"]["l"][0])] == [
            dict, dict, list, dict,
        ]  # fmt: skip
        assert type(copied["d"]["l"][0]["s"]) is set


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_pickle_gives_plain_values(protocol: int) -> None:
    root = state(d={"a": [1]}, s={1, 2})
    for node in (root, root.d, root.d.a, root.s):
        loaded = pickle.loads(pickle.dumps(node, protocol))
        assert same(loaded, node.copy())
        assert type(loaded) in (dict, list, set)


def test_what_python_does_with_containers_works() -> None:
    root = state(d={"a": 1, "b": [1, {"c": 2}]}, l=["x", "y"], s={1, 2}, n=[3, 1, 2])

    assert json.dumps(root.d) == '{"a": 1, "b": [1, {"c": 2}]}'
    assert json.dumps(root.d, indent=1, sort_keys=True) == json.dumps(root.d.copy(), indent=1, sort_keys=True)
    assert pprint.pformat(root.d) == "{'a': 1, 'b': [1, {'c': 2}]}"
    assert f"{root.l} {root.d!r}" == "['x', 'y'] {'a': 1, 'b': [1, {'c': 2}]}"
    assert ", ".join(root.l) == "x, y"
    assert [*root.l, *root.n] == ["x", "y", 3, 1, 2]
    assert {**root.d} == dict(root.d) == {"a": 1, "b": [1, {"c": 2}]}
    assert (lambda **kwargs: kwargs)(**root.d) == root.d
    assert "{a}".format_map(root.d) == "%(a)s" % root.d == "1"  # noqa: UP031
    assert sorted(root.n) == [1, 2, 3]
    assert (min(root.n), max(root.n), sum(root.n), any(root.n)) == (1, 3, 6, True)
    assert [set(root.s), frozenset(root.s), {*root.s}, list(root.s)] == [{1, 2}, {1, 2}, {1, 2}, [1, 2]]
    assert list(zip(*[root.l, root.n], strict=False)) == [("x", 3), ("y", 1)]
    first, *rest = root.n
    assert (first, rest) == (3, [1, 2])
    assert collections.ChainMap(root.d)["a"] == 1
    assert collections.Counter(root.l) == {"x": 1, "y": 1}
    assert not state()
    assert MappedDict[str, int] is not None
    random.Random(1).shuffle(root.n)
    assert sorted(root.n) == [1, 2, 3]
    plain: Any = {}
    plain.update(root.d)
    plain |= root.d
    assert plain == root.d
    assert [0] + root.n == [0, *root.n]  # noqa: RUF005
    assert ({5} | root.s, {1, 5} & root.s, {1, 5} - root.s, {1, 5} ^ root.s) == ({1, 2, 5}, {1}, {5}, {2, 5})
    assert ({1} < root.s, {1, 2} <= root.s, [3] < root.n, {"a": 1} == root.d) == (True, True, True, False) or root.n[
        0
    ] != 3
    root._store.check_tree()


def test_match_statements_see_mappings_and_sequences() -> None:
    match state(d={"kind": "move", "to": [1, 2]}, l=[]).d:
        case {"kind": "move", "to": [x, y], **rest}:
            assert (x, y, rest) == (1, 2, {})
        case _:
            pytest.fail("no match")


def test_fromkeys_is_the_plain_one() -> None:
    assert type(MappedDict.fromkeys("ab", 0)) is dict
    assert state().fromkeys("ab") == {"a": None, "b": None}


def test_containers_of_two_stores_compare_and_combine() -> None:
    a, b = state(d={"x": [1]}, l=[1], s={1}), state(d={"x": [1]}, l=[1], s={1})

    assert a == b
    assert a.d | b.d == {"x": [1]}
    assert a.l + b.l == [1, 1]
    assert a.s | b.s == a.s & b.s == {1}
    assert a.s.union(b.s) == {1}
    assert a.l <= b.l
    a.l.extend(b.l)
    a.s.update(b.s)
    a.d.update(b.d)
    assert a.l == [1, 1]
    assert {1} <= a.s
    assert a.l != [1]
    assert a.d != 5
    assert a.l != (1, 1)


def test_nan_is_found_as_the_builtins_find_it() -> None:
    nan = float("nan")
    root = state(l=[nan], d={"a": nan})

    assert root.l == root.l
    assert nan in root.l
    assert root.l.index(nan) == 0
    assert root == {"l": [nan], "d": {"a": nan}}
    assert root.l != [float("nan")]


# --- the moment of a read


def test_a_single_read_takes_no_lock_when_memory_is_fresh() -> None:
    root = state(d={"a": 1}, l=[1], s={1})
    d, l, s = root.d, root.l, root.s  # noqa: E741
    root._store.reads = 0
    assert (d["a"], d.a, d.get("b"), "a" in d, len(d), l[0], len(l), 1 in s, len(s)) == (
        1,
        1,
        None,
        True,
        1,
        1,
        1,
        True,
        1,
    )
    with pytest.raises(KeyError):
        d["b"]
    with pytest.raises(IndexError):
        l[1]

    assert root._store.reads == 0


def test_a_value_taken_while_memory_changed_is_not_believed() -> None:
    """The view is looked at again after the value was taken."""

    root = state(d={"a": 1}, l=[1], s={1})
    store = root._store
    d, l, s = root.d, root.l, root.s  # noqa: E741
    store.fresh = lambda: store.log.renewed(store.view)  # which is not memory's any more
    for read in (
        lambda: d["a"], lambda: d.a, lambda: d.get("b"), lambda: "a" in d, lambda: len(d), lambda: l[0], lambda: len(l),
        lambda: 1 in s, lambda: len(s),
    ):  # fmt: skip
        store.reads = 0
        read()
        assert store.reads == 1
    for missing in (lambda: d["b"], lambda: l[1]):
        store.reads = 0
        with pytest.raises(LookupError):
            missing()
        assert store.reads == 1


def interrupted(root: Any, *changes: list[Any]) -> None:
    """From now on another process commits before every second access."""
    pending = list(changes)
    turn = [0]

    def commit() -> None:
        turn[0] += 1
        if turn[0] % 2 == 0 and pending:
            root._store.others(pending.pop(0))

    root._store.before_fresh = root._store.before_read = commit


@pytest.mark.parametrize(
    "copied",
    [
        lambda d: dict(d),  # noqa: PLW0108
        lambda d: {**d},
        lambda d: (lambda **kwargs: kwargs)(**d),
        lambda d: operator.ior({}, d),
        lambda d: collections.OrderedDict(d),  # noqa: PLW0108
    ],
)
def test_copying_a_dict_in_c_gives_one_moment(copied: Callable[[Any], Any]) -> None:
    """CPython asks for the keys and then for each item: another process' commit may come in between."""
    before = {"a": 1, "b": 1, "c": 1, "d": 1}
    root = state(d=before)
    d = root.d
    interrupted(root, ["set", ["d"], "c", 2], ["delete", ["d"], "d"], ["set", ["d"], "a", 2])

    assert copied(d) in (before, {**before, "c": 2}, {"a": 1, "b": 1, "c": 2}, {"a": 2, "b": 1, "c": 2})
    root._store.before_fresh = root._store.before_read = None
    root._store.others(["set", ["d"], "a", 9])
    assert d._store is root._store
    assert d.a == 9


@pytest.mark.parametrize("what", ["another thread ends its copy", "another thread reads the file again"])
def test_copying_a_dict_in_c_gives_one_moment_whatever_other_threads_do(
    monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    """They share the stand-in that holds the moment, and a key goes before this copy has come to it."""
    root = state(d={"a": 1, "b": 2})
    d, store = root.d, root._store
    with ThreadPoolExecutor(1) as pool:
        keys = pool.submit(lambda: iter(d.keys())).result()
        calls: list[str] = []

        def meanwhile() -> int:
            if threading.current_thread() is threading.main_thread():
                calls.append(what)
                if calls == ["another thread ends its copy"] * 2:
                    wait([pool.submit(lambda: d[next(keys)])], timeout=0.2)
                    store.others(["delete", ["d"], "b"])
                elif calls == ["another thread reads the file again"] * 3:
                    ops.adopt(root, {"d": {"a": 1}}, store)
            return threading.get_ident()

        monkeypatch.setattr(frames, "get_ident", meanwhile)

        assert {"a": 1, "b": 2} == dict(d)
        assert calls[2:]


def test_reading_items_after_iterating_keys_reads_the_newest() -> None:
    """Only a copy in C is of one moment; a loop in Python sees each value as it is."""
    root = state(d={"a": 1, "b": 1})
    seen = []
    for key in root.d.keys():  # noqa: SIM118
        root._store.others(["set", ["d"], key, 2])
        seen.append(root.d[key])
    assert seen == [2, 2]

    iterator = iter(root.d.keys())
    root._store.others(["set", ["d"], "a", 3])
    assert root.d[next(iterator)] == 3
    assert list(root.d.keys()) == ["a", "b"]
    root.d.a = 4
    assert root.d.a == 4
    assert root.d._store is root._store


def test_iterating_keys_does_not_keep_the_state_alive() -> None:
    def use() -> weakref.ref[Any]:
        root = account(a=1, b=2)
        for _ in root.keys():  # noqa: SIM118
            pass
        return weakref.ref(root)

    gc.disable()
    try:
        assert use()() is None
    finally:
        gc.enable()


@pytest.mark.parametrize("options", [{}, {"indent": 1}, {"sort_keys": True}])
@pytest.mark.parametrize("top", ["d", "l"])
def test_json_gets_one_moment(options: dict[str, Any], top: str) -> None:
    """Another process writes the same number to three places again and again: a copy has one number."""
    root = state(d={"a": [0], "b": [0], "c": {"n": 0}}, l=[[0], [0], {"n": 0}])
    numbers = iter(range(1, 100))

    def commit() -> None:
        n = next(numbers)
        for path in (["d", "a"], ["d", "b"], ["l", 0], ["l", 1]):
            root._store.others(["set", path, 0, n])
        root._store.others(["set", ["d", "c"], "n", n], ["set", ["l", 2], "n", n])

    node = root[top]
    root._store.before_fresh = root._store.before_read = commit
    dumped = json.loads(json.dumps(node, **options))
    a, b, c = dumped.values() if top == "d" else dumped

    assert a[0] == b[0] == c["n"] > 0


def test_equality_and_repr_are_of_one_moment() -> None:
    before = {"a": [1], "b": [1]}
    for read in (repr, lambda d: d == before, lambda d: d.copy(), lambda d: list(d.items()), lambda d: d | {}):
        root = state(d=before)
        d = root.d
        store = root._store
        store.reads = 0
        read(d)
        assert store.reads == 1


def test_setdefault_with_a_container_gives_the_one_in_the_state() -> None:
    root = state()
    root.setdefault("jobs", []).append(1)
    root.setdefault("jobs", []).append(2)

    assert root == {"jobs": [1, 2]}
    assert root.setdefault("n", 5) == 5
    assert root.setdefault("n", 6) == 5
    assert root.setdefault("none") is None


def test_setdefault_returns_what_another_process_set_first() -> None:
    root = state()
    root._store.before_mutate = lambda: root._store.others(["set", [], "n", "theirs"])

    assert root.setdefault("n", "ours") == "theirs"
    assert root == {"n": "theirs"}


def test_a_sort_key_gets_the_elements_and_may_use_the_state() -> None:
    root = state(jobs=[{"at": 2}, {"at": 0}, {"at": 1}], bias=5)
    jobs = list(root.jobs)
    root.jobs.sort(key=lambda job: job.at * root.bias, reverse=True)

    assert [job.at for job in root.jobs] == [2, 1, 0]
    assert [jobs.index(job) for job in root.jobs] == [0, 2, 1]
    assert records(root) == [[["order", ["jobs"], [0, 2, 1]]]]


def test_a_sort_during_which_another_process_changes_the_list_sorts_the_new_one() -> None:
    root = state(jobs=[{"at": 2}, {"at": 0}])
    pending = [["set", ["jobs", 0], "at", -1], ["insert", ["jobs"], 0, {"at": 7}]]

    def commit() -> None:
        if pending:
            root._store.others(pending.pop(0))

    root._store.before_mutate = commit
    root.jobs.sort(key=lambda job: job.at)

    assert root.jobs == [{"at": -1}, {"at": 0}, {"at": 7}]


def test_a_sort_key_that_changes_the_list_is_an_error_as_for_a_plain_list() -> None:
    root = state(l=[1, 2])
    with pytest.raises(ValueError, match="modified during sort"):
        root.l.sort(key=lambda n: root.l.__setitem__(0, root.l[0] + 1) or n)


def test_a_failing_sort_changes_nothing() -> None:
    root = state(l=[3, "a", 1])
    for options in ({}, {"key": lambda n: n}, {"key": lambda n: 1 / 0}):
        with pytest.raises((TypeError, ZeroDivisionError)):
            root.l.sort(**options)

    assert root.l == [3, "a", 1]
    assert records(root) == []


def test_other_peoples_code_runs_before_the_change_begins() -> None:
    """What an iterable, a mapping or an index does may use the state; within a change the store would refuse it."""
    root = state(l=[1, 2], s={1}, d={"a": 1})

    class Index:
        def __index__(self) -> int:
            return len(root.l) - 1

    class Pairs(collections.UserDict[Any, Any]):
        def __getitem__(self, key: Any) -> Any:
            return [root.d.a]

    root.l.extend(n + len(root.l) for n in list(root.l))
    root.l[Index() :] = (len(root.l) for _ in range(1))
    root.l.insert(Index(), 9)
    root.l[Index()] = 7
    del root.l[Index()], root.l[Index() : Index()]
    root.l *= Index()
    root.s.update(n for n in root.l)
    root.s &= {1, 4, *root.s}
    root.d.update(Pairs(b=0))
    assert root.l[Index()] == root.l[-1]

    assert root.d == {"a": 1, "b": [1]}
    root._store.check_tree()


def test_popping_from_a_large_set_does_not_get_slower() -> None:
    root = state(s=set(range(3000)))
    plans = 0
    members = sets._members

    def counted(node: Any) -> list[Any]:
        nonlocal plans
        plans += 1
        return members(node)

    sets._members = counted  # type: ignore[assignment]
    try:
        tags = root.s
        root._store.__class__ = Quick
        root._store.log = root._store.log.log
        seen = [tags.pop() for _ in range(1500)]
        tags.update(range(5000, 5100))
        seen += [tags.pop() for _ in range(1600)]
    finally:
        sets._members = members
    assert len(set(seen)) == 3100
    assert plans <= 2


class Quick(WatchedStore):
    """Without the checks that look at everything."""

    mutate = store.Store.mutate


# --- the whole API against the builtins

SCALARS = st.none() | st.booleans() | st.integers(-2, 5) | st.sampled_from(["a", "b", "ä", "", 1.0, 2.5, b"x"])
# No two equal ones: which of 1 and True a builtin set keeps depends on which operand it happens to walk.
MEMBER = st.none() | st.integers(-2, 5) | st.sampled_from(["a", "b", "ä", "", 2.5, b"x"])
KEYS = st.sampled_from(["a", "b", "c", "items", 1, True, 0.0, None, "two words"])
VALUES = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(KEYS, inner, max_size=3)
        | st.lists(inner, max_size=2).map(tuple)
        | st.sets(MEMBER, max_size=3)
    ),
    max_leaves=6,
)
INDEX = st.integers(-6, 6)
SLICE = st.builds(slice, st.none() | INDEX, st.none() | INDEX, st.none() | st.sampled_from([1, 1, 2, 3, -1, -2, -3, 0]))
WRONG = st.sampled_from([5, "x", None, [[]], 1.5])

Case = tuple[str, st.SearchStrategy[tuple[Any, ...]], Callable[..., Any]]


def augmented(name: str) -> Callable[[Any, Any], Any]:
    """`c op= x`, which must give the same object."""
    operation = getattr(operator, name)

    def run(container: Any, other: Any) -> Any:
        result = operation(container, other)
        return result is container or result

    return run


def binary(name: str) -> Callable[[Any, Any], Any]:
    operation: Callable[[Any, Any], Any] = getattr(operator, name)
    return operation


def reflected(name: str) -> Callable[[Any, Any], Any]:
    return lambda container, other: getattr(operator, name)(other, container)


def method(name: str) -> Callable[..., Any]:
    return lambda container, *args: getattr(container, name)(*args)


def multiplied(container: Any, times: Any) -> Any:
    """`*=`; in a plain list the containers would then be in several places, in a state each place has its own."""
    if type(container) is list and isinstance(times, int):
        old = list(container)
        container *= times
        container[len(old) :] = copy.deepcopy(container[len(old) :])
        return True
    result = operator.imul(container, times)
    return result is container or result


def canonical(value: Any) -> str:
    return in_order(value)


DICT: list[Case] = [
    ("[k]=v", st.tuples(KEYS, VALUES), lambda d, k, v: d.__setitem__(k, v)),
    ("[unhashable]=", st.tuples(st.just([]), VALUES), lambda d, k, v: d.__setitem__(k, v)),
    ("del[k]", st.tuples(KEYS | WRONG), operator.delitem),
    ("[k]", st.tuples(KEYS | WRONG), operator.getitem),
    ("in", st.tuples(KEYS | WRONG), operator.contains),
    ("get", st.tuples(KEYS | WRONG), method("get")),
    ("get default", st.tuples(KEYS, SCALARS), method("get")),
    ("pop", st.tuples(KEYS), method("pop")),
    ("pop default", st.tuples(KEYS, SCALARS), method("pop")),
    ("popitem", st.tuples(), method("popitem")),
    ("setdefault", st.tuples(KEYS, VALUES), method("setdefault")),
    ("update mapping", st.tuples(st.dictionaries(KEYS, VALUES, max_size=3)), method("update")),
    ("update pairs", st.tuples(st.lists(st.tuples(KEYS, VALUES), max_size=3)), method("update")),
    ("update keywords", st.tuples(VALUES, VALUES), lambda d, a, z: d.update(a=a, z=z)),
    ("update both", st.tuples(st.dictionaries(KEYS, VALUES), VALUES), lambda d, m, a: d.update(m, self=a, other=1)),
    ("update wrong", st.tuples(WRONG), lambda d, x: d.update([] if x == [[]] else x)),
    ("update()", st.tuples(), method("update")),
    ("|=", st.tuples(st.dictionaries(KEYS, VALUES) | st.lists(st.tuples(KEYS, VALUES))), augmented("ior")),
    ("|= wrong", st.tuples(st.sampled_from([5, None])), augmented("ior")),
    ("|", st.tuples(st.dictionaries(KEYS, VALUES) | WRONG), binary("or_")),
    ("r|", st.tuples(st.dictionaries(KEYS, VALUES) | WRONG), reflected("or_")),
    ("clear", st.tuples(), method("clear")),
    ("copy", st.tuples(), method("copy")),
    ("len", st.tuples(), len),
    ("bool", st.tuples(), bool),
    ("iter", st.tuples(), list),
    ("reversed", st.tuples(), lambda d: list(reversed(d))),
    ("keys", st.tuples(), lambda d: list(d.keys())),
    ("values", st.tuples(), lambda d: list(d.values())),
    ("items", st.tuples(), lambda d: list(d.items())),
    ("in values", st.tuples(VALUES), lambda d, v: v in d.values()),
    ("in items", st.tuples(KEYS, VALUES), lambda d, k, v: (k, as_plain(v)) in d.items()),
    ("keys &", st.tuples(st.sets(KEYS)), lambda d, s: d.keys() & s),
    ("== ", st.tuples(VALUES), operator.eq),
    ("< ", st.tuples(st.dictionaries(KEYS, SCALARS)), operator.lt),
    ("dict()", st.tuples(), dict),
    ("{**}", st.tuples(), lambda d: {**d}),
]

LIST: list[Case] = [
    ("[i]", st.tuples(INDEX | SLICE | WRONG), operator.getitem),
    ("[i]=", st.tuples(INDEX, VALUES), lambda x, i, v: x.__setitem__(i, v)),
    ("[wrong]=", st.tuples(WRONG, SCALARS), lambda x, i, v: x.__setitem__("a" if i == 5 else i, v)),
    ("[::]=", st.tuples(SLICE, st.lists(VALUES, max_size=4)), lambda x, i, v: x.__setitem__(i, v)),
    ("[::]= tuple", st.tuples(SLICE, st.lists(SCALARS, max_size=3)), lambda x, i, v: x.__setitem__(i, tuple(v))),
    ("[::]= fitting", st.tuples(SLICE, VALUES), lambda x, i, v: x.__setitem__(i, fitting(x, i, v))),
    ("[::]= wrong", st.tuples(SLICE, st.sampled_from([5, None])), lambda x, i, v: x.__setitem__(i, v)),
    ("[::]= iterator", st.tuples(SLICE), lambda x, i: x.__setitem__(i, iter("ab"))),
    ("[::]= self", st.tuples(SLICE), lambda x, i: x.__setitem__(i, copy.deepcopy(list(x)))),
    ("del[i]", st.tuples(INDEX | SLICE | WRONG), operator.delitem),
    ("append", st.tuples(VALUES), method("append")),
    ("insert", st.tuples(INDEX, VALUES), method("insert")),
    ("insert wrong", st.tuples(st.just("x"), VALUES), method("insert")),
    ("extend", st.tuples(st.lists(VALUES, max_size=4)), method("extend")),
    ("extend generator", st.tuples(st.lists(VALUES, max_size=3)), lambda x, v: x.extend(e for e in v)),
    ("extend wrong", st.tuples(st.sampled_from([5, None])), method("extend")),
    ("extend str", st.tuples(st.just("xyz")), method("extend")),
    ("+=", st.tuples(st.lists(VALUES, max_size=3) | st.just("xy") | st.just(5)), augmented("iadd")),
    ("*=", st.tuples(st.integers(-1, 2) | st.sampled_from(["x", 1.5])), multiplied),
    ("pop", st.tuples(), method("pop")),
    ("pop i", st.tuples(INDEX | st.just("x")), method("pop")),
    ("remove", st.tuples(VALUES), method("remove")),
    ("remove own", st.tuples(INDEX), lambda x, i: x.remove(copy.deepcopy(x[i]))),
    ("index", st.tuples(VALUES), method("index")),
    ("index from", st.tuples(SCALARS, INDEX, INDEX), method("index")),
    ("index own", st.tuples(INDEX), lambda x, i: x.index(x[i])),
    ("count", st.tuples(VALUES), method("count")),
    ("in", st.tuples(VALUES), operator.contains),
    ("clear", st.tuples(), method("clear")),
    ("reverse", st.tuples(), method("reverse")),
    ("sort", st.tuples(st.booleans()), lambda x, r: x.sort(reverse=r)),
    ("sort by key", st.tuples(st.booleans()), lambda x, r: x.sort(key=canonical, reverse=r)),
    ("sort by len", st.tuples(), lambda x: x.sort(key=len)),
    ("sort wrong", st.tuples(), lambda x: x.sort(canonical)),
    ("copy", st.tuples(), method("copy")),
    ("len", st.tuples(), len),
    ("iter", st.tuples(), list),
    ("tuple", st.tuples(), tuple),
    ("reversed", st.tuples(), lambda x: list(reversed(x))),
    ("+", st.tuples(st.lists(VALUES, max_size=2) | WRONG), binary("add")),
    ("r+", st.tuples(st.lists(VALUES, max_size=2) | st.sampled_from([5, "x"])), reflected("add")),
    ("*", st.tuples(st.integers(-1, 2) | st.sampled_from(["x", 1.5])), binary("mul")),
    ("r*", st.tuples(st.integers(-1, 2) | st.sampled_from([1.5])), reflected("mul")),
    ("==", st.tuples(VALUES), operator.eq),
    ("<", st.tuples(st.lists(st.integers(-2, 5)) | WRONG), operator.lt),
    ("<=", st.tuples(st.lists(st.integers(-2, 5)) | WRONG), operator.le),
    (">", st.tuples(st.lists(st.integers(-2, 5)) | WRONG), operator.gt),
    (">=", st.tuples(st.lists(st.integers(-2, 5)) | WRONG), operator.ge),
]

MEMBERS = st.sets(MEMBER, max_size=4)
ITERABLES = MEMBERS | st.lists(MEMBER, max_size=4) | MEMBERS.map(frozenset) | st.just("ab")
SET: list[Case] = [
    *((name, st.tuples(MEMBER | st.just([])), method(name)) for name in ("add", "discard", "remove")),
    ("in", st.tuples(MEMBER | st.just([]) | MEMBERS), operator.contains),
    ("clear", st.tuples(), method("clear")),
    ("copy", st.tuples(), method("copy")),
    ("len", st.tuples(), len),
    ("iter", st.tuples(), lambda s: set(iter(s))),
    *(
        (name, st.lists(ITERABLES, max_size=3).map(tuple), method(name))
        for name in (
            "update", "intersection_update", "difference_update", "union", "intersection", "difference",
        )
    ),
    *(
        (name, st.tuples(ITERABLES | st.sampled_from([5, None])), method(name))
        for name in (
            "symmetric_difference_update", "symmetric_difference", "issubset", "issuperset", "isdisjoint", "update",
            "intersection_update", "difference_update",
        )
    ),
    *((name, st.tuples(MEMBERS | WRONG), augmented(name)) for name in ("ior", "iand", "isub", "ixor")),
    *((name, st.tuples(MEMBERS | WRONG), binary(name)) for name in ("or_", "and_", "sub", "xor", "eq", "ne")),
    *((name, st.tuples(MEMBERS | WRONG), binary(name)) for name in ("lt", "le", "gt", "ge")),
    *((name, st.tuples(MEMBERS), reflected(name)) for name in ("or_", "and_", "sub", "xor", "lt", "le", "gt", "ge")),
]  # fmt: skip


def fitting(container: Any, piece: slice, value: Any) -> list[Any]:
    """The slice needs one value for each place."""
    return [copy.deepcopy(value) for _ in range(len(list(range(len(container)))[piece]))]


def plainly(value: Any) -> Any:
    """A result as plain values, tuples kept."""
    if isinstance(value, tuple):
        return tuple(map(plainly, value))
    if type(value) in (list, dict):
        items = value.items() if isinstance(value, dict) else enumerate(value)
        plain = {key: plainly(item) for key, item in items}
        return plain if isinstance(value, dict) else list(plain.values())
    if type(value) in ops.NODES:
        return ops.plain(value)
    return as_plain(value) if isinstance(value, (set, frozenset)) else value


def as_plain(value: Any) -> Any:
    """What a builtin tree with tuples in it is in a state."""
    if isinstance(value, dict):
        return {key: as_plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [as_plain(item) for item in value]
    return set(value) if isinstance(value, (set, frozenset)) else value


def outcome(run: Callable[..., Any], container: Any, args: tuple[Any, ...]) -> tuple[Any, Exception | None]:
    try:
        return run(container, *copy.deepcopy(args)), None
    except Exception as error:
        return None, error


class Containers(RuleBasedStateMachine):
    """Every call on a container of the state and on its plain twin: same result, same error, same content after."""

    @initialize(
        tree=st.dictionaries(st.sampled_from(["a", "b", "l", "s"]), VALUES, max_size=4),
        cached=st.booleans(),
        in_block=st.booleans(),
    )
    def begin(self, tree: dict[Any, Any], cached: bool, in_block: bool) -> None:
        tree = as_plain({"d": {}, "list": [1, [2], {"k": 3}], "set": {1, "a"}, **tree})
        self.store = WatchedStore(tree, cached=cached)
        self.model = copy.deepcopy(tree)
        self.outermost: Transaction | None = None
        self.blocks: list[Transaction] = []  # one inside the other; each begins with one change
        self.before: list[Any] = []  # the model before each of them
        self.held: list[tuple[Any, Any]] = []
        if in_block:
            self.enter_a_block()

    @contextlib.contextmanager
    def change(self) -> Iterator[None]:
        """What changes the state: one record outside a block, else a block of its own, which stays open."""
        backup, planned, committed = copy.deepcopy(self.model), self.store.planned, len(self.store.records)
        block = Transaction(self.store, None).__enter__() if self.outermost is not None else None
        yield
        written = self.store.planned - planned
        assert len(self.store.records) - committed == (written if block is None else 0)
        if block is not None and written:
            self.blocks.append(block)
            self.before.append(backup)
        elif block is not None:
            block.__exit__(None, None, None)

    def twins(self, kind: type) -> list[tuple[Any, Any]]:
        found: list[tuple[Any, Any]] = []

        def walk(node: Any, twin: Any) -> None:
            assert ops.KINDS[type(twin)] is type(node)
            if isinstance(node, kind):
                found.append((node, twin))
            if isinstance(node, dict):
                assert [*dict.keys(node)] == [*twin]
                pairs = [(dict.__getitem__(node, key), twin[key]) for key in twin]
            elif isinstance(node, list):
                pairs = list(zip(list.__iter__(node), twin, strict=True))
            else:
                pairs = []
            for child, child_twin in pairs:
                if type(child) in ops.NODES:
                    walk(child, child_twin)

        walk(self.store.root, self.model)
        found += [(node, twin) for node, twin in self.held if isinstance(node, kind)]
        return found

    def both(self, kind: type, cases: list[Case], data: st.DataObject) -> None:
        node, twin = data.draw(st.sampled_from(self.twins(kind)), label="on")
        _, strategy, run = data.draw(st.sampled_from(cases), label="call")
        args = data.draw(strategy, label="args")
        self.call(node, twin, run, args)

    def call(self, node: Any, twin: Any, run: Callable[..., Any], args: tuple[Any, ...]) -> None:
        backup, count = copy.deepcopy(self.model), self.store.planned
        with self.change():
            content = twin.copy()  # a failed sort leaves a plain list half sorted
            result, problem = outcome(run, twin, (*args[:1], *map(as_plain, args[1:])))
            if problem is None:
                self.adjust(twin)
            elif isinstance(twin, list):
                twin[:] = content
            ours, our_problem = outcome(run, node, args)
            if problem is None:
                assert our_problem is None, f"only ours raised {our_problem!r}"
                assert in_order(plainly(ours)) == in_order(plainly(result)), (ours, result)
            else:
                assert isinstance(our_problem, type(problem)), f"{our_problem!r} for {problem!r}"
                assert self.store.planned == count
        written = self.store.planned - count
        assert written <= 1
        if in_order_plain(backup) != in_order_plain(self.model):
            assert written == 1
        if len(in_order_plain(self.model)) > 1000:
            for key in ("part", *self.model):
                if key in self.model and len(in_order_plain(self.model)) > 500:
                    self.call(self.store.root, self.model, lambda root, key: root.pop(key, None), (key,))
            if "d" not in self.model:
                self.call(self.store.root, self.model, lambda root: root.update(d={}), ())

    def adjust(self, twin: Any) -> None:
        """Tuples that a call has put into the plain container are lists in a state."""
        if isinstance(twin, dict):
            for key, item in twin.items():
                if not_plain(item):
                    twin[key] = as_plain(item)
        elif isinstance(twin, list):
            for index, item in enumerate(twin):
                if not_plain(item):
                    twin[index] = as_plain(item)

    @rule(data=st.data())
    def call_a_dict(self, data: st.DataObject) -> None:
        self.both(dict, DICT, data)

    @rule(data=st.data())
    def call_a_list(self, data: st.DataObject) -> None:
        if self.twins(list):
            self.both(list, LIST, data)

    @rule(data=st.data())
    def call_a_set(self, data: st.DataObject) -> None:
        if self.twins(set):
            self.both(set, SET, data)

    @rule(data=st.data())
    def pop_a_member(self, data: st.DataObject) -> None:
        """Which one is the set's business."""
        sets = [pair for pair in self.twins(set) if pair[1]]
        if sets:
            node, twin = data.draw(st.sampled_from(sets))
            popped: list[Any] = []

            def pop(container: Any) -> None:
                if container is node:
                    popped.append(container.pop())
                    assert popped[0] not in container

            with self.change():
                pop(node)
                assert repr(popped[0]) in {repr(member) for member in twin}
                twin.remove(popped[0])

    @rule(data=st.data(), key=KEYS, value=VALUES)
    def by_attribute(self, data: st.DataObject, key: Any, value: Any) -> None:
        name = key if isinstance(key, str) else "b"
        node, twin = data.draw(st.sampled_from(self.twins(dict)))
        if name == "items":
            with pytest.raises(ReservedNameError):
                setattr(node, name, value)
            return
        self.call(node, twin, lambda d, v: setattr(d, name, v) if d is node else d.__setitem__(name, v), (value,))
        assert in_order(as_result(getattr(node, name))) == in_order(as_plain(value))

    @rule(data=st.data(), value=st.lists(SCALARS, min_size=1, max_size=2))
    def augmented_assignment(self, data: st.DataObject, value: list[Any]) -> None:
        """`parent[key] += value` is one record, and the element stays the same object."""
        parents = [
            (node, twin, key)
            for node, twin in self.twins(dict) + self.twins(list)
            for key, item in (twin.items() if isinstance(twin, dict) else enumerate(twin))
            if isinstance(item, list)
        ]
        if parents:
            node, twin, key = data.draw(st.sampled_from(parents))

            def run(container: Any) -> None:
                container[key] += value

            element = node[key]
            count = self.store.planned
            self.call(node, twin, run, ())
            assert node[key] is element
            assert self.store.planned - count == isinstance(ops.node_path(node), list)

    @rule(data=st.data())
    def assign_a_part_of_the_state(self, data: st.DataObject) -> None:
        source, source_twin = data.draw(st.sampled_from(self.twins(object)), label="from")
        node, twin = data.draw(st.sampled_from(self.twins(dict)), label="to")
        if len(canonical(source_twin)) < 300:
            same_place = dict.get(node, "part") is source
            count = self.store.planned
            copied = source_twin if same_place else copy.deepcopy(source_twin)
            self.call(node, twin, lambda d: d.__setitem__("part", source if d is node else copied), ())
            assert not same_place or count == self.store.planned

    @rule(data=st.data())
    def hold(self, data: st.DataObject) -> None:
        """Keep a reference; it is compared after every step from now on, whatever happens to it."""
        self.held.append(data.draw(st.sampled_from(self.twins(object))))

    @precondition(lambda self: self.outermost is None)
    @rule()
    def enter_a_block(self) -> None:
        self.outermost = Transaction(self.store, None).__enter__()

    @precondition(lambda self: len(self.blocks) > 2)
    @rule()
    def leave_all_blocks(self) -> None:
        """Which commits what was not rolled back, as one record."""
        count = len(self.store.records)
        while self.blocks:
            self.blocks.pop().__exit__(None, None, None)
        self.outermost.__exit__(None, None, None)
        assert len(self.store.records) - count == bool(self.before)
        self.outermost, self.before = None, []

    @precondition(lambda self: self.before)
    @rule(data=st.data())
    def roll_back(self, data: st.DataObject) -> None:
        """Some of the blocks, the innermost one first; with changes of containers that were taken out meanwhile."""
        steps = data.draw(st.integers(1, len(self.before)))
        attached = [node for node, _ in self.held if isinstance(ops.node_path(node), list)]
        for block in reversed(self.blocks[-steps:]):
            block.__exit__(ZeroDivisionError, ZeroDivisionError(), None)
        self.model = self.before[-steps]
        del self.before[-steps:], self.blocks[-steps:]
        self.held = []
        assert in_order(self.store.root) == in_order_plain(self.model)
        for node in attached:
            path = ops.node_path(node)
            assert path is ops.DETACHED or ops.find(self.store.root, path) is node

    def teardown(self) -> None:
        if getattr(self, "outermost", None) is not None:
            self.leave_all_blocks()

    @invariant()
    def the_records_tell_everything(self) -> None:
        if hasattr(self, "store"):
            self.store.check_tree()
            assert in_order(self.store.root) == in_order_plain(self.model), (self.store.root, self.model)

    @invariant()
    def references_stay_right(self) -> None:
        for node, twin in getattr(self, "held", ()):
            assert in_order(node) == in_order_plain(twin)
            path = ops.node_path(node)
            assert path is ops.DETACHED or ops.find(self.store.root, path) is node


def as_result(value: Any) -> Any:
    return ops.plain(value) if type(value) in ops.NODES else value


def not_plain(value: Any) -> bool:
    if isinstance(value, tuple):
        return True
    if isinstance(value, (dict, list)):
        return any(map(not_plain, value.values() if isinstance(value, dict) else value))
    return False


def in_order_plain(tree: Any) -> str:
    return in_order(as_plain(tree))


Containers.TestCase.settings = settings(max_examples=60, stateful_step_count=40, phases=set(Phase) - {Phase.explain})
TestContainers = Containers.TestCase
