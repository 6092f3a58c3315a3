"""`pstate.at`: one place, by its path, and each change of it is one commit; `reset`, `path_of` and `is_closed`."""

from __future__ import annotations

import os
import pickle
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from tools.processes import Crowd

import pstate
from pstate import (
    ABSENT,
    ClosedError,
    PersistedState,
    ReadOnlyError,
    RemovedError,
    TransactionError,
    UnsupportedTypeError,
    UnsupportedValueError,
    at,
    is_closed,
    path_of,
    reset,
)
from pstate.places import Place
from pstate.values import same

CONTENT = {"n": 1, "none": None, "jobs": [{"name": "wash"}, {"name": "dry"}], "seen": {1, "a"}, "deep": {"a": {"b": 2}}}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state.yaml"


@pytest.fixture
def state(path: Path) -> Iterator[Any]:
    with PersistedState.open(path, defaults=CONTENT) as state:
        yield state


@pytest.fixture
def crowd(path: Path) -> Iterator[Crowd]:
    with Crowd(path) as crowd:
        yield crowd


def commits(path: Path) -> int:
    return path.read_text().count("\n--- ")


# ------------------------------------------------------------------ what each does


@pytest.mark.parametrize(
    ("place", "value"),
    [
        ("n", 1),
        ("none", None),
        ("jobs[0].name", "wash"),
        ("jobs[-1].name", "dry"),
        ("jobs.1.name", "dry"),
        (("jobs", -1, "name"), "dry"),
        (["deep", "a", "b"], 2),
        ('deep["a"].b', 2),
        ("seen.a", "a"),
        ("seen[1]", 1),
        ("seen[true]", 1),  # the member that is equal
        (".", CONTENT),
        ((), CONTENT),
    ],
)
def test_what_is_at_a_place(state: Any, place: Any, value: Any) -> None:
    assert same(value, at(state, place).get(ABSENT))


@pytest.mark.parametrize(
    "place", ["x", "x.y", "n.x", "none.x", "jobs[2]", "jobs[-3].name", "jobs.name", "seen.b", "jobs[0].name.x"]
)
def test_where_there_is_nothing_the_default_is_given(state: Any, place: str) -> None:
    assert (None, 5, ABSENT) == (at(state, place).get(), at(state, place).get(5), at(state, place).get(ABSENT))


def test_a_container_at_a_place_is_the_one_in_the_state(state: Any) -> None:
    assert state.jobs[0] is at(state, "jobs[0]").get()
    assert state.jobs is at(state.jobs, ".").get()


CHANGES: list[tuple[str, Any, Callable[[Place], Any], Any, Any]] = [
    ("set", "n", lambda place: place.set(2), None, 2),
    ("set new", "new", lambda place: place.set([1]), None, [1]),
    ("set in a list", "jobs[-1]", lambda place: place.set({"a": [1]}), None, {"a": [1]}),
    ("set deep", "deep.a.b", lambda place: place.set("x"), None, "x"),
    ("parents", "deep.x.y.z", lambda place: place.set(1, parents=True), None, 1),
    ("parents that exist", "deep.a.b", lambda place: place.set(1, parents=True), None, 1),
    ("all parents", "x.y", lambda place: place.set([1], parents=True), None, [1]),
    ("delete", "deep.a", lambda place: place.delete(), None, ABSENT),
    ("delete an element", "jobs[1]", lambda place: place.delete(), None, ABSENT),
    ("delete a member", "seen.a", lambda place: place.delete(), None, ABSENT),
    ("pop", "deep.a.b", lambda place: place.pop(), 2, ABSENT),
    ("pop an element", "jobs[-1].name", lambda place: place.pop(), "dry", ABSENT),
    ("pop a member", "seen[1]", lambda place: place.pop(), 1, ABSENT),
    ("pop a container", "deep.a", lambda place: place.pop(), {"b": 2}, ABSENT),
    ("incr", "n", lambda place: place.incr(), 2, 2),
    ("incr by a float", "deep.a.b", lambda place: place.incr(0.5), 2.5, 2.5),
    ("incr down", "n", lambda place: place.incr(-3), -2, -2),
    ("incr what is missing", "deep.count", lambda place: place.incr(2), 2, 2),
    ("compare", "n", lambda place: place.compare_and_set(1, 5), True, 5),
    ("compare containers", "deep.a", lambda place: place.compare_and_set({"b": 2}, []), True, []),
    ("compare with a tuple", "jobs[0]", lambda place: place.compare_and_set({"name": "wash"}, (1, 2)), True, [1, 2]),
    ("compare with nothing", "new", lambda place: place.compare_and_set(ABSENT, 5), True, 5),
    ("compare and delete", "n", lambda place: place.compare_and_set(1, ABSENT), True, ABSENT),
]


@pytest.mark.parametrize("inside", [False, True], ids=["alone", "in a transaction"])
@pytest.mark.parametrize(
    ("place", "change", "answer", "after"), [each[1:] for each in CHANGES], ids=[each[0] for each in CHANGES]
)
def test_a_change_is_one_commit_or_part_of_the_transaction(
    state: Any, path: Path, place: str, change: Callable[[Place], Any], answer: Any, after: Any, inside: bool
) -> None:
    before = commits(path)
    if inside:
        with state.transaction():
            assert answer == change(at(state, place))
            assert before == commits(path)
            state.more = 1
    else:
        assert answer == change(at(state, place))
    assert before + 1 == commits(path)
    with PersistedState.open(path, read_only=True) as another:
        assert state == another
        assert same(after, at(another, place).get(ABSENT))


@pytest.mark.parametrize(("place", "change"), [each[1:3] for each in CHANGES], ids=[each[0] for each in CHANGES])
def test_a_transaction_that_fails_undoes_it(state: Any, place: str, change: Callable[[Place], Any]) -> None:
    with pytest.raises(ZeroDivisionError):
        with state.transaction():
            change(at(state, place))
            1 / 0

    assert CONTENT == state


def test_what_was_popped_is_an_ordinary_container(state: Any, path: Path) -> None:
    popped = at(state, "deep.a").pop()
    before = commits(path)
    popped["c"] = 1

    assert {"b": 2, "c": 1} == popped
    assert before == commits(path)


def test_what_is_set_is_a_copy(state: Any) -> None:
    mine = {"a": [1]}
    at(state, "x").set(mine)
    mine["a"].append(2)

    assert {"a": [1]} == state.x


@pytest.mark.parametrize(
    ("place", "old", "new"),
    [
        ("n", 2, 3),
        ("n", True, 3),
        ("n", 1.0, 3),
        ("n", ABSENT, 3),
        ("new", 1, 3),
        ("x.y", 1, 3),
        ("deep.a", {"b": 2.0}, 3),
        ("none", ABSENT, 3),
        ("x", None, ABSENT),
        ("none.x", 1, ABSENT),
    ],
)
def test_what_is_not_equal_and_of_the_same_type_is_not_set(
    state: Any, path: Path, place: str, old: Any, new: Any
) -> None:
    before = path.read_bytes()

    assert not at(state, place).compare_and_set(old, new)
    assert before == path.read_bytes()


def test_nothing_compared_with_nothing_and_deleted_is_no_commit(state: Any, path: Path) -> None:
    before = path.read_bytes()

    assert at(state, "new").compare_and_set(ABSENT, ABSENT)
    assert 7 == at(state, "x.y").pop(7)
    assert ABSENT is at(state, "x.y").pop(ABSENT)
    assert before == path.read_bytes()


# ------------------------------------------------------------------ what is refused


REFUSED: list[tuple[str, Callable[[Place], Any], type[Exception], str]] = [
    ("x.y", lambda place: place.set(1), KeyError, "state.x: there is no such key."),
    ("x.y", lambda place: place.set(1), KeyError, "parents=True"),
    ("jobs[2]", lambda place: place.set(1), IndexError, "state.jobs[2]: the list has 2 elements."),
    ("jobs[-3].x", lambda place: place.set(1, parents=True), IndexError, "state.jobs[-3]: the list has 2 elements."),
    ("jobs.name", lambda place: place.set(1), TypeError, "state.jobs.name: state.jobs is a list, which has no such"),
    ("n.x", lambda place: place.set(1), TypeError, "state.n.x: state.n is an int, which has no such key."),
    ("none.x.y", lambda place: place.set(1, parents=True), TypeError, "state.none.x: state.none is None, which"),
    ("seen.a", lambda place: place.set(1), TypeError, "state.seen.a: state.seen is a set, which has no keys."),
    ("seen.b", lambda place: place.set(1), TypeError, "state.seen.b: state.seen is a set, which has no keys."),
    ("seen.b", lambda place: place.delete(), KeyError, "state.seen.b: there is no such member."),
    ("deep.x", lambda place: place.delete(), KeyError, "state.deep.x: there is no such key."),
    ("deep.x.y", lambda place: place.pop(), KeyError, "state.deep.x: there is no such key."),
    ("jobs[9]", lambda place: place.pop(), IndexError, "state.jobs[9]: the list has 2 elements."),
    ("jobs[0].name.x", lambda place: place.pop(), TypeError, "state.jobs[0].name is a str, which has no such key."),
    ("jobs[9]", lambda place: place.incr(), IndexError, "state.jobs[9]: the list has 2 elements."),
    ("x.y", lambda place: place.incr(), KeyError, "state.x: there is no such key."),
    ("jobs[0].name", lambda place: place.incr(), TypeError, "state.jobs[0].name: a str is not a number."),
    ("none", lambda place: place.incr(), TypeError, "state.none: None is not a number."),
    ("jobs", lambda place: place.incr(), TypeError, "state.jobs: a list is not a number."),
    ("seen[1]", lambda place: place.incr(), TypeError, "state.seen is a set, which has no keys."),
    ("n", lambda place: place.incr("1"), TypeError, "state.n: by must be an int or a float, not str."),  # type: ignore[arg-type]
    ("n", lambda place: place.incr(True), TypeError, "state.n: by must be an int or a float, not bool."),
    ("n", lambda place: place.set(1j), UnsupportedTypeError, "state.n: complex cannot be stored."),
    ("deep.a.b", lambda place: place.set([1j]), UnsupportedTypeError, "state.deep.a.b[0]: complex cannot be stored."),
    ("n", lambda place: place.compare_and_set(1, 1j), UnsupportedTypeError, "state.n: complex cannot be stored."),
    ("n", lambda place: place.compare_and_set(1j, 1), UnsupportedTypeError, "state.n: complex cannot be stored."),
    (".", lambda place: place.set({}), ValueError, "state: an empty path is the container itself"),
    (".", lambda place: place.delete(), ValueError, "state: an empty path is the container itself"),
    (".", lambda place: place.incr(), ValueError, "state: an empty path is the container itself"),
    (".", lambda place: place.compare_and_set({}, {}), ValueError, "state: an empty path is the container itself"),
]


@pytest.mark.parametrize(
    ("place", "change", "kind", "said"), REFUSED, ids=[f"{each[0]}, {each[3]}" for each in REFUSED]
)
def test_what_is_refused_names_the_place_and_changes_nothing(
    state: Any, path: Path, place: str, change: Callable[[Place], Any], kind: type[Exception], said: str
) -> None:
    before = path.read_bytes()
    with pytest.raises(kind) as caught:
        change(at(state, place))

    assert said in caught.value.args[0]
    assert "Nothing was changed." in caught.value.args[0]
    assert before == path.read_bytes()
    assert CONTENT == state


def test_a_number_that_cannot_grow_so_far_stays(state: Any) -> None:
    state.n = 10**400
    with pytest.raises(OverflowError, match=r"^state\.n: .*Nothing was changed\.$"):
        at(state, "n").incr(0.5)
    assert 10**400 == state.n


@pytest.mark.parametrize(
    ("place", "kind"),
    [
        ("", ValueError),
        ("a..b", ValueError),
        (1.5j, TypeError),
        ([object()], TypeError),
        (["\ud800"], UnsupportedValueError),
    ],
)
def test_what_is_not_a_path_is_refused(state: Any, place: Any, kind: type[Exception]) -> None:
    with pytest.raises(kind):
        at(state, place)


@pytest.mark.parametrize("value", [{}, [], "state.yaml", None])
def test_only_a_state_and_what_is_in_it_has_places(value: Any) -> None:
    for function in (lambda: at(value, "a"), lambda: reset(value), lambda: path_of(value), lambda: is_closed(value)):
        with pytest.raises(TypeError, match=r"^the first argument must be a state, or a container in one, not a "):
            function()


def test_a_value_as_deep_as_a_state_can_be_goes_in_and_no_deeper_one(state: Any) -> None:
    value: Any = 1
    for _ in range(97):
        value = [value]
    at(state, "deep.a.x").set(value)
    at(state, "x.y.z").set(value, parents=True)

    with pytest.raises(UnsupportedValueError, match="too deep"):
        at(state, "deep.a.x").set([value])
    with pytest.raises(UnsupportedValueError, match="too deep"):
        at(state, "x.y.w").set([value], parents=True)
    with pytest.raises(UnsupportedValueError, match="too deep"):
        at(state.deep, "a.x").set([value])


def test_a_closed_state_has_no_places_any_more(path: Path) -> None:
    state = PersistedState.open(path, defaults=CONTENT)
    nodes = [(state, "deep.a.b"), (state.deep, "a.b")]
    state.close()

    for node, place in nodes:
        for use in (
            lambda node, place: at(node, place).get(),
            lambda node, place: at(node, place).set(1),
            lambda node, place: at(node, place).set([1]),
            lambda node, place: at(node, place).delete(),
            lambda node, place: at(node, place).incr(),
            lambda node, place: at(node, place).compare_and_set(1, [2]),
        ):
            with pytest.raises(ClosedError):
                use(node, place)
        assert "<Place state.deep.a.b>" == repr(at(node, place))
    with pytest.raises(ClosedError):
        reset(state)
    with pytest.raises(ClosedError):
        reset(state, "n")


def test_a_state_that_is_not_open_yet_has_none_either(path: Path) -> None:
    class App(PersistedState):
        def __init__(self) -> None:
            for use in (
                lambda: at(self, "a").get(),
                lambda: at(self, "a").set([1]),
                lambda: at(self, "a").incr(),
                lambda: reset(self),
                lambda: reset(self, "a"),
                lambda: path_of(self),
            ):
                with pytest.raises(ClosedError, match="before it was opened"):
                    use()
            assert is_closed(self)
            super().__init__(path, a=1)

    with App() as app:
        assert not is_closed(app)
        assert 2 == at(app, "a").incr()


def test_a_state_that_is_read_only_is_only_read(path: Path) -> None:
    PersistedState.open(path, defaults=CONTENT).close()
    with PersistedState.open(path, read_only=True) as state:
        assert 2 == at(state, "deep.a.b").get()
        for change in (lambda: at(state, "n").set(2), lambda: at(state, "n").incr(), lambda: at(state, "n").delete()):
            with pytest.raises(ReadOnlyError):
                change()


def test_a_block_that_was_rolled_back_changes_nothing_more(state: Any) -> None:
    with state.transaction() as block:
        block.rollback()
        with pytest.raises(TransactionError):
            at(state, "n").incr()
    assert 1 == state.n


# ------------------------------------------------------------------ containers


def test_a_place_in_a_container_goes_with_the_container(state: Any) -> None:
    place = at(state.jobs[1], "name")
    state.jobs.insert(0, {"name": "new"})
    place.set("iron")

    assert [{"name": "new"}, {"name": "wash"}, {"name": "iron"}] == state.jobs
    assert "<Place state.jobs[2].name>" == repr(place)
    with pytest.raises(KeyError, match=r"state\.jobs\[2\]\.x: there is no such key"):
        at(state.jobs[2], "x").delete()


def test_a_place_of_a_state_is_where_its_path_leads_at_that_moment(state: Any) -> None:
    place = at(state, "jobs[1].name")
    state.jobs.insert(0, {"name": "new"})
    place.set("iron")

    assert [{"name": "new"}, {"name": "iron"}, {"name": "dry"}] == state.jobs


def test_a_container_that_was_taken_out_takes_changes_in_memory_only(state: Any, path: Path) -> None:
    taken = state.pop("deep")
    before = path.read_bytes()
    at(taken, "a.b").incr()

    assert {"a": {"b": 3}} == taken
    assert before == path.read_bytes()


def test_a_container_that_others_have_removed_takes_none(crowd: Crowd) -> None:
    crowd.begin(deep={"a": {"b": 1}})
    state, other = crowd.open(), crowd.other()
    deep = state.deep
    other.run("del state['deep']")

    assert not state
    for change in (lambda: at(deep, "a.b").set(2), lambda: at(deep, "a.b").incr(), lambda: at(deep, "a").delete()):
        with pytest.raises(RemovedError):
            change()


# ------------------------------------------------------------------ others


def test_processes_never_get_the_same_number(crowd: Crowd) -> None:
    crowd.begin(deep={})
    others = [crowd.other(), crowd.other()]
    state = crowd.open()
    for other in others:
        other.tell("[pstate.at(state, 'deep.count').incr() for _ in range(100)]", "ask")
    numbers = [at(state, "deep.count").incr() for _ in range(100)]
    for other in others:
        numbers += other.answer()

    assert [*range(1, 301)] == sorted(numbers)


def test_one_process_takes_what_all_want(crowd: Crowd) -> None:
    crowd.begin(jobs=[None] * 50)
    others = [crowd.other(), crowd.other(), crowd.other()]
    for other in others:
        other.tell(
            "[i for i in range(50) if pstate.at(state, ('jobs', i)).compare_and_set(None, {'by': os.getpid()})]", "ask"
        )
    taken = [index for other in others for index in other.answer()]

    assert [*range(50)] == sorted(taken)


def test_the_way_to_a_place_may_change_between_two_looks(crowd: Crowd) -> None:
    """What the path leads to is looked for under the lock, so a holder that another one has replaced is never used."""
    crowd.begin(box={"n": 0}, moved=0)
    state, other = crowd.open(), crowd.other()
    other.tell("for i in range(200): state['box'] = {'n': pstate.at(state, 'box.n').get() * 0 + i}")
    added = 0
    while not other.has_answered():
        at(state, "box.n").incr()
        added += 1
    other.answer()

    assert added
    assert 199 <= state.box.n <= 199 + added
    assert state.box.n == other.ask("state['box']['n']")


def test_threads_never_get_the_same_number(state: Any) -> None:
    numbers: list[int] = []

    def count() -> None:
        for _ in range(200):
            numbers.append(at(state, "deep.a.count").incr())

    threads = [threading.Thread(target=count) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert [*range(1, 801)] == sorted(numbers)


def test_a_value_of_another_state_is_copied_before_the_lock_is_taken(tmp_path: Path) -> None:
    """Two threads that copy between two states in opposite directions would wait for each other."""
    one = PersistedState.open(tmp_path / "one.yaml", defaults={"x": [0]}, lock_timeout=30)
    two = PersistedState.open(tmp_path / "two.yaml", defaults={"x": [1]}, lock_timeout=30)
    both = threading.Barrier(2)

    def copy(source: Any, target: Any) -> None:
        both.wait()
        for _ in range(100):
            at(target, "x").set(source.x)

    threads = [threading.Thread(target=copy, args=pair) for pair in ((one, two), (two, one))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
        assert not thread.is_alive()
    one.close()
    two.close()


# ------------------------------------------------------------------ the defaults


def test_a_default_comes_back(state: Any, path: Path) -> None:
    at(state, "deep.a.b").set(5)
    state.jobs.clear()
    state.own = 1
    before = commits(path)

    reset(state, "deep.a.b")
    assert (2, []) == (state.deep.a.b, state.jobs)
    assert before + 1 == commits(path)

    del state["deep"]
    reset(state, "deep.a.b")
    assert {"a": {"b": 2}} == state.deep

    state.deep.extra = 1
    reset(state, "deep")
    assert CONTENT["deep"] == state.deep

    reset(state, ("jobs",))
    assert CONTENT["jobs"] == state.jobs
    reset(state, "jobs[1].name")
    assert {**CONTENT, "own": 1} == state


def test_all_defaults_come_back_in_one_commit_and_other_keys_stay(state: Any, path: Path) -> None:
    state.own = 1
    state.n = True  # not what it was, although it is equal
    del state["jobs"]
    state.deep.a.b = 9
    jobs, before = state.seen, commits(path)

    reset(state)

    assert {**CONTENT, "own": 1} == state
    assert state.n is not True
    assert before + 1 == commits(path)
    assert jobs is state.seen  # what is as it was is not set
    reset(state)
    assert before + 1 == commits(path)
    with state.transaction() as block:
        state.n = 7
        reset(state)
        block.rollback()
    assert 1 == state.n


@pytest.mark.parametrize("place", ["own", "deep.x", "n.x", "jobs[2]", "none.x"])
def test_what_has_no_default_stays(state: Any, place: str) -> None:
    state.own = 1
    with pytest.raises(KeyError, match=r"state\..*: the state was opened without a default .* Nothing was changed\."):
        reset(state, place)
    assert {**CONTENT, "own": 1} == state


def test_a_default_does_not_come_back_through_what_is_no_container(state: Any) -> None:
    state.deep = 5
    with pytest.raises(TypeError, match=r"state\.deep\.a: state\.deep is an int"):
        reset(state, "deep.a")
    assert 5 == state.deep


def test_the_defaults_belong_to_the_state_that_was_opened_with_them(state: Any, path: Path) -> None:
    with pytest.raises(TypeError, match="only the state has defaults"):
        reset(state.deep)
    with PersistedState(path, n=8) as another:
        reset(another)
        assert (8, 8) == (state.n, another.n)
    reset(state, "n")
    assert 1 == state.n
    with PersistedState(path) as third:
        reset(third)
        with pytest.raises(KeyError):
            reset(third, "n")


def test_a_default_is_nobody_elses(path: Path) -> None:
    mine: dict[str, Any] = {"jobs": [1]}
    with PersistedState.open(path, defaults=mine) as state:
        mine["jobs"].append(2)
        state.jobs.append(3)
        reset(state)
        state.jobs.append(4)
        reset(state, "jobs")
        assert [1] == state.jobs


def test_a_pickled_state_takes_its_defaults_along_and_commits_none(state: Any) -> None:
    del state["n"]
    another = pickle.loads(pickle.dumps(state))
    assert "n" not in another
    reset(another, "n")
    assert 1 == state.n
    another.close()


# ------------------------------------------------------------------ which file


def test_a_state_and_its_containers_say_which_file_it_is_also_after_the_close(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(path.parent)
    state: Any = PersistedState(path.name, deep={"a": {}})
    nodes = [state, state.deep, state.deep.a]
    assert [os.path.realpath(path)] * 3 == [os.path.realpath(path_of(node)) for node in nodes]
    assert all(os.path.isabs(path_of(node)) for node in nodes)
    assert not any(map(is_closed, nodes))

    with PersistedState(path) as another:
        state.close()
        assert (True, False) == (is_closed(state), is_closed(another))
    assert is_closed(another)
    assert all(map(is_closed, nodes))
    assert [os.path.realpath(path)] * 3 == [os.path.realpath(path_of(node)) for node in nodes]


def test_keys_of_these_names_are_keys(path: Path) -> None:
    names = ["at", "reset", "path", "path_of", "is_closed", "on_change"]
    with PersistedState.open(path, defaults=dict.fromkeys(names, 1)) as state:
        assert [1] * len(names) == [getattr(state, name) for name in names]
    assert dict.fromkeys(names, 1) == yaml.safe_load(path.read_bytes())


def test_what_is_exported_late_is_what_the_package_says() -> None:
    assert all(getattr(pstate, name) for name in pstate.__all__ if name != "ABSENT")
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        pstate.nothing  # type: ignore[attr-defined]
