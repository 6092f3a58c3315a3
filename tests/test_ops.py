"""The operations: each does what it says, its inverse restores exactly, a refused one changes nothing; and adopting."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tools.containers import WatchedStore, check_links, in_order

from pstate.memory import ops
from pstate.memory.ops import DETACHED, REMOVED, ROOT
from pstate.values import same

TREE: dict[Any, Any] = {
    "a": 1,
    "inner": {"x": [1, 2], 1: {}, None: 0},
    "jobs": [{"n": 0}, [1], {7}, 3, {"n": 4}],
    "tags": {1, "a", 2.5},
}


def node_at(store: WatchedStore, *path: Any) -> Any:
    return ops.find(store.root, path)


def containers_of(node: Any) -> dict[int, Any]:
    """Every container in the tree of *node*, by identity."""
    found = {id(node): node}
    items = dict.values(node) if isinstance(node, dict) else list.__iter__(node) if isinstance(node, list) else ()
    for item in items:
        if type(item) in ops.NODES:
            found.update(containers_of(item))
    return found


OPERATIONS = [
    ([], ("set", "a", 2), lambda t: t.update(a=2)),
    ([], ("set", "new", [1, {"k": {2}}]), lambda t: t.update(new=[1, {"k": {2}}])),
    ([], ("set", "inner", {"y": 1}), lambda t: t.update(inner={"y": 1})),
    ([], ("set", "jobs", 0), lambda t: t.update(jobs=0)),
    (["inner"], ("set", True, "one"), lambda t: t["inner"].update({True: "one"})),
    ([], ("delete", "a"), lambda t: t.pop("a")),
    ([], ("delete", "inner"), lambda t: t.pop("inner")),
    ([], ("delete", "tags"), lambda t: t.pop("tags")),
    (["inner"], ("delete", True), lambda t: t["inner"].pop(1)),
    (["inner"], ("delete", None), lambda t: t["inner"].pop(None)),
    ([], ("keys", ("tags", "jobs", "inner", "a")), lambda t: reorder(t, ("tags", "jobs", "inner", "a"))),
    (["jobs"], ("set", 0, {"m": []}), lambda t: t["jobs"].__setitem__(0, {"m": []})),
    (["jobs"], ("set", 3, [3]), lambda t: t["jobs"].__setitem__(3, [3])),
    (["jobs"], ("set", 4, 5), lambda t: t["jobs"].__setitem__(4, 5)),
    (["jobs"], ("delete", 0), lambda t: t["jobs"].pop(0)),
    (["jobs"], ("delete", 4), lambda t: t["jobs"].pop(4)),
    (["jobs"], ("insert", 0, [0]), lambda t: t["jobs"].insert(0, [0])),
    (["jobs"], ("insert", 5, "end"), lambda t: t["jobs"].insert(5, "end")),
    (["jobs"], ("splice", 0, 0, []), lambda t: None),
    (["jobs"], ("splice", 1, 4, [{}, [0]]), lambda t: t["jobs"].__setitem__(slice(1, 4), [{}, [0]])),
    (["jobs"], ("splice", 0, 5, []), lambda t: t["jobs"].clear()),
    (["jobs"], ("splice", 5, 5, [1, {2}, 3]), lambda t: t["jobs"].extend([1, {2}, 3])),
    (["jobs"], ("order", [4, 0, 3, 1, 2]), lambda t: t.update(jobs=[t["jobs"][i] for i in (4, 0, 3, 1, 2)])),
    (["tags"], ("add", ["b", 1, 9]), lambda t: t["tags"].update({"b", 9})),
    (["tags"], ("discard", [True, "nothing", "a"]), lambda t: t["tags"].difference_update({1, "a"})),
]


def reorder(tree: dict[Any, Any], keys: tuple[Any, ...]) -> None:
    items = [(key, tree[key]) for key in keys]
    tree.clear()
    tree.update(items)


@pytest.mark.parametrize(("path", "op", "model"), OPERATIONS, ids=[f"{path} {op}" for path, op, _ in OPERATIONS])
@pytest.mark.parametrize("ours", [True, False])
def test_an_operation_does_what_it_says_and_its_inverse_restores_everything(
    path: list[Any], op: ops.Op, model: Any, ours: bool
) -> None:
    store = WatchedStore(TREE)
    node = node_at(store, *path)
    before, there = in_order(store.root), containers_of(store.root)
    expected = copy.deepcopy(TREE)
    model(expected)
    prepared = op if op[0] == "keys" else ops.prepare(node, op, store)
    inverses = ops.inverse(node, prepared)
    assert in_order(store.root) == before

    ops.apply(node, prepared, ours)

    assert in_order(store.root) == in_order(ops.graft(expected, store, ROOT, None))
    check_links(store.root, store)
    kept = containers_of(store.root)
    for identity, container in there.items():
        top = ops.node_path(container)
        assert isinstance(top, list) if identity in kept else top is (DETACHED if ours else REMOVED)

    for inverse in inverses:
        ops.apply(node, inverse, True)

    assert in_order(store.root) == before
    assert containers_of(store.root).keys() == there.keys()
    check_links(store.root, store)
    assert all(ops.node_path(container) is DETACHED for identity, container in kept.items() if identity not in there)


@pytest.mark.parametrize(
    ("path", "op", "error"),
    [
        ([], ("delete", "missing"), KeyError),
        ([], ("delete", []), TypeError),
        ([], ("set", [], 1), TypeError),
        ([], ("set", (1,), 1), TypeError),
        ([], ("set", float("nan"), 1), ValueError),
        ([], ("set", "a", 1j), TypeError),
        ([], ("set", "a", (1,)), TypeError),
        ([], ("set", "a", [{"b": (1,)}]), TypeError),
        ([], ("insert", 0, 1), TypeError),
        ([], ("add", [1]), TypeError),
        ([], ("keys", ("a",)), TypeError),
        ([], ("nonsense",), TypeError),
        (["jobs"], ("set", 5, 1), IndexError),
        (["jobs"], ("set", -1, 1), IndexError),
        (["jobs"], ("set", True, 1), TypeError),
        (["jobs"], ("set", "a", 1), TypeError),
        (["jobs"], ("set", 0, 1j), TypeError),
        (["jobs"], ("delete", 5), IndexError),
        (["jobs"], ("delete", None), TypeError),
        (["jobs"], ("insert", 6, 1), IndexError),
        (["jobs"], ("insert", 0, Ellipsis), TypeError),
        (["jobs"], ("splice", 3, 2, []), ValueError),
        (["jobs"], ("splice", 0, 6, []), IndexError),
        (["jobs"], ("splice", -1, 2, []), IndexError),
        (["jobs"], ("splice", 0, 0, 5), TypeError),
        (["jobs"], ("splice", 0, 0, [1, Ellipsis]), TypeError),
        (["jobs"], ("order", [0, 1, 2, 3]), ValueError),
        (["jobs"], ("order", [0, 1, 2, 3, 3]), ValueError),
        (["jobs"], ("order", [False, True, 2, 3, 4]), ValueError),
        (["jobs"], ("order", None), TypeError),
        (["jobs"], ("add", [1]), TypeError),
        (["tags"], ("add", [[]]), TypeError),
        (["tags"], ("add", [float("nan")]), ValueError),
        (["tags"], ("add", 1), TypeError),
        (["tags"], ("set", 0, 1), TypeError),
    ],
    ids=str,
)
def test_an_operation_that_does_not_fit_is_refused_before_anything_changes(
    path: list[Any], op: ops.Op, error: type[Exception]
) -> None:
    store = WatchedStore(TREE)
    before, there = in_order(store.root), containers_of(store.root).keys()

    with pytest.raises(error):
        ops.prepare(node_at(store, *path), op, store)

    assert in_order(store.root) == before
    assert containers_of(store.root).keys() == there
    check_links(store.root, store)


@pytest.mark.parametrize(
    ("path", "error"),
    [
        (["missing"], KeyError),
        (["a"], TypeError),
        (["a", "b"], TypeError),
        (["jobs", 5], IndexError),
        (["jobs", -1], IndexError),
        (["jobs", "a"], TypeError),
        (["jobs", True], TypeError),
        (["tags", 1], TypeError),
        ([[]], TypeError),
    ],
    ids=str,
)
def test_a_path_that_leads_to_no_container_is_an_error(path: list[Any], error: type[Exception]) -> None:
    with pytest.raises(error):
        node_at(WatchedStore(TREE), *path)


def test_every_container_knows_its_path_and_depth() -> None:
    store = WatchedStore(TREE)
    for path in ([], ["inner"], ["inner", "x"], ["inner", 1], ["jobs"], ["jobs", 0], ["jobs", 2], ["tags"]):
        assert ops.node_path(node_at(store, *path)) == path
        assert ops.depth(node_at(store, *path)) == len(path) + 1


def test_what_hangs_on_something_taken_out_has_no_path() -> None:
    store = WatchedStore(TREE)
    inner, x = node_at(store, "inner"), node_at(store, "inner", "x")
    ops.apply(store.root, ("delete", "inner"), True)
    assert ops.node_path(inner) is ops.node_path(x) is DETACHED

    jobs, job = node_at(store, "jobs"), node_at(store, "jobs", 0)
    ops.apply(store.root, ("delete", "jobs"), False)
    assert ops.node_path(jobs) is ops.node_path(job) is REMOVED


def test_a_link_that_an_interrupted_change_left_behind_leads_nowhere() -> None:
    store = WatchedStore(TREE)
    inner, job = node_at(store, "inner"), node_at(store, "jobs", 0)
    dict.__setitem__(store.root, "inner", 1)
    list.__delitem__(job._parent, 0)

    assert ops.node_path(inner) is REMOVED
    assert ops.node_path(job) is REMOVED


def test_an_element_is_found_by_identity_wherever_it_has_moved() -> None:
    store = WatchedStore({"l": [[] for _ in range(50)]})
    nodes, elements = node_at(store, "l"), list(list.__iter__(node_at(store, "l")))
    ops.apply(nodes, ("order", [*range(25, 50), *range(24, -1, -1)]), True)
    for _ in range(7):
        ops.apply(nodes, ops.prepare(nodes, ("insert", 3, []), store), True)
    ops.apply(nodes, ("splice", 40, 50, []), True)

    for element in elements:
        index = ops.index_of(nodes, element)
        if element._parent is nodes:
            assert list.__getitem__(nodes, index) is element
        else:
            assert index == -1


def test_deleting_saves_the_key_order() -> None:
    store = WatchedStore({"a": 1, "b": 2, "c": 3})

    for key, value in [("c", 3), ("a", 1)]:
        assert ops.inverse(store.root, ("delete", key)) == [("set", key, value), ("keys", ("a", "b", "c"))]


def test_a_key_order_is_saved_once_for_each_savepoint() -> None:
    store = WatchedStore({str(n): n for n in range(6)})
    before = in_order(store.root)
    ordered: set[int] = set()
    undo: list[ops.Op] = []
    for op in [
        ("delete", "1"),
        ("set", "new", 1),
        ("delete", "0"),
        ("set", "1", 5),
        ("delete", "3"),
        ("delete", "new"),
    ]:
        undo[:0] = ops.inverse(store.root, op, ordered)
        ops.apply(store.root, op, True)

    assert sum(op[0] == "keys" for op in undo) == 1
    for op in undo:
        ops.apply(store.root, op, True)
    assert in_order(store.root) == before


def test_a_stored_key_is_found_under_its_equals() -> None:
    store = WatchedStore({"d": {1: "a", 0.0: "b", "s": "c"}, "s": {1, 0.0, "s"}})
    for node in (node_at(store, "d"), node_at(store, "s")):
        assert repr(ops.stored_key(node, True)) == "1"
        assert repr(ops.stored_key(node, False)) == "0.0"
        assert repr(ops.stored_key(node, type("Name", (str,), {})("s"))) == "'s'"
        with pytest.raises(KeyError):
            ops.stored_key(node, 7)


def test_a_plain_copy_is_deep_and_shares_nothing() -> None:
    store = WatchedStore(TREE)
    plain = ops.plain(store.root)

    assert same(plain, TREE)
    assert type(plain) is dict
    assert type(plain["jobs"]) is list
    assert type(plain["tags"]) is set
    plain["jobs"][0]["n"] = 9
    plain["tags"].clear()
    assert same(ops.plain(store.root), TREE)


# --- adopting


def test_adopting_keeps_the_containers_whose_place_and_kind_agree() -> None:
    store = WatchedStore(TREE)
    inner, x, jobs, tags = (node_at(store, *p) for p in (["inner"], ["inner", "x"], ["jobs"], ["tags"]))
    tree = {"tags": {5}, "jobs": [1], "inner": {"x": [2], "z": {}}}

    ops.adopt(store.root, tree, store)

    assert in_order(store.root) == in_order(ops.graft(tree, store, ROOT, None))
    check_links(store.root, store)
    assert [node_at(store, *p) for p in (["inner"], ["inner", "x"], ["jobs"], ["tags"])] == [inner, x, jobs, tags]
    assert all(map(lambda a, b: a is b, store.root.values(), [tags, jobs, inner]))


def test_adopting_marks_what_has_gone() -> None:
    store = WatchedStore(TREE)
    inner, one, job, tags = (node_at(store, *p) for p in (["inner"], ["inner", 1], ["jobs", 0], ["tags"]))

    ops.adopt(store.root, {"inner": [], "jobs": [], "tags": 1}, store)

    assert [ops.node_path(node) for node in (inner, one, job, tags)] == [REMOVED] * 4


def test_adopting_a_list_keeps_equal_elements_around_an_edit() -> None:
    """A person adds or deletes a line in the middle of a list: references to the others stay right."""
    store = WatchedStore({"l": [{"n": n} for n in range(6)]})
    elements = list(node_at(store, "l"))

    ops.adopt(store.root, {"l": [{"n": 0}, {"n": 1}, {"n": "new"}, {"n": 2}, {"n": 3}, {"n": 4}, {"n": 5}]}, store)
    assert [list(node_at(store, "l")).index(element) for element in elements] == [0, 1, 3, 4, 5, 6]
    assert [ops.node_path(element) for element in elements] == [["l", n] for n in (0, 1, 3, 4, 5, 6)]

    ops.adopt(store.root, {"l": [{"n": 0}, {"n": 3}, {"n": 4}, {"n": 5}]}, store)
    assert [ops.node_path(element) for element in elements[3:]] == [["l", 1], ["l", 2], ["l", 3]]
    assert ops.node_path(elements[2]) is REMOVED


def test_adopting_a_list_keeps_a_changed_element_at_its_place() -> None:
    store = WatchedStore({"l": [{"n": 0}, {"n": 1}, {"n": 2}]})
    changed = node_at(store, "l", 1)

    ops.adopt(store.root, {"l": [{"n": 0}, {"n": "edited"}, {"n": 2}]}, store)

    assert node_at(store, "l", 1) is changed
    assert ops.plain(changed) == {"n": "edited"}


def test_adopting_repairs_a_half_changed_memory() -> None:
    """An exception at any instruction of a change may leave memory like this; the reload must not trust its links."""
    store = WatchedStore(TREE)
    job = node_at(store, "jobs", 0)
    stray = ops.graft([1], store, DETACHED, None)
    dict.__setitem__(store.root, "extra", job)  # one object in two places
    dict.__setitem__(store.root, "tags", stray)  # not linked yet
    object.__setattr__(node_at(store, "inner", "x"), "_parent", REMOVED)  # marked already, not gone yet
    object.__setattr__(node_at(store, "jobs"), "_key", "wrong")

    tree = {**TREE, "extra": {"n": 5}}
    ops.adopt(store.root, tree, store)

    assert in_order(store.root) == in_order(ops.graft(tree, store, ROOT, None))
    check_links(store.root, store)


def test_adopting_another_kind_is_refused() -> None:
    store = WatchedStore(TREE)
    for tree in ([], set(), 1, None):
        with pytest.raises(TypeError):
            ops.adopt(store.root, tree, store)
    assert same(ops.plain(store.root), TREE)


scalars = st.none() | st.booleans() | st.integers(0, 3) | st.sampled_from(["a", "b", 0.0])
trees = st.recursive(
    scalars | st.sets(scalars, max_size=3),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(["a", "b", 1, True, None]), inner),
    max_leaves=15,
)
states = st.dictionaries(st.sampled_from(["a", "b", "c"]), trees)


@given(states, st.lists(states, min_size=1, max_size=3))
def test_adopting_gives_exactly_the_tree_and_no_other_references(first: Any, others: list[Any]) -> None:
    store = WatchedStore(first)
    held: dict[int, Any] = {}
    for tree in others:
        held.update(containers_of(store.root))
        ops.adopt(store.root, tree, store)

        assert in_order(store.root) == in_order(ops.graft(tree, store, ROOT, None))
        check_links(store.root, store)
        there = containers_of(store.root)
        for identity, container in held.items():
            path = ops.node_path(container)
            if identity in there:
                assert isinstance(path, list)
                assert ops.find(store.root, path) is container
            else:
                assert path is REMOVED
