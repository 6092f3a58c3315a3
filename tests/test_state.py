"""The public class: options, defaults, subclasses, its end."""

from __future__ import annotations

import abc
import contextlib
import dataclasses
import enum
import functools
import gc
import inspect
import io
import os
import re
import textwrap
import typing
from pathlib import Path
from typing import Any, ClassVar, Final

import pytest
import yaml
from tools.processes import Crowd

import pstate.state
from pstate import (
    ClosedError,
    InvalidStateError,
    PersistedState,
    ReadOnlyError,
    ReservedNameError,
    TransactionError,
    UnsupportedTypeError,
)
from pstate.memory.core import Core


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state.yaml"


class Config(PersistedState):
    def __init__(self, path: Path) -> None:
        self._early = 7
        super().__init__(path, retries=3)
        self._asked: list[str] = []

    @property
    def doubled(self) -> int:
        return int(self.retries * 2)

    @doubled.setter
    def doubled(self, value: int) -> None:
        self.retries = value // 2

    def __setitem__(self, key: Any, value: Any) -> None:
        self._asked.append(key)
        super().__setitem__(key, value)


def test_a_subclass_may_have_attributes_properties_and_a_say(path: Path) -> None:
    with Config(path) as config:
        config.doubled = 10
        config.other = 1
        assert (7, 5, ["retries", "other"]) == (config._early, config.retries, config._asked)
        with pytest.raises(ReservedNameError):
            config.items = 3
        config["items"] = 3

    assert {"retries": 5, "other": 1, "items": 3} == yaml.safe_load(path.read_bytes())


@pytest.mark.parametrize("name", ["_open", "_reopen", "_commit_defaults", "_thread_lock", "_plain", "_store"])
def test_a_subclass_cannot_take_a_name_that_the_class_uses_itself(path: Path, name: str) -> None:
    with pytest.raises(ReservedNameError, match=name):
        type("Sub", (PersistedState,), {name: lambda self: None})

    class Early(PersistedState):
        def __init__(self, path: Path) -> None:
            setattr(self, name, 1)
            super().__init__(path)

    with pytest.raises(ReservedNameError, match=name):
        Early(path)
    assert not path.exists()
    with PersistedState(path) as state:
        with pytest.raises(ReservedNameError, match=name):
            setattr(state, name, 1)
        state.a = 1
    assert b"a: 1\n" == path.read_bytes()


def test_a_default_under_a_huge_key_is_refused_by_name(path: Path) -> None:
    with pytest.raises(UnsupportedTypeError, match=r"^state\[0x1"):
        PersistedState.open(path, defaults={1 << 20_000: 1j})


def test_options_never_collide_with_keys(path: Path) -> None:
    with PersistedState.open(path, defaults={"durability": 1, "read_only": 2}, durability="power") as state:
        assert (1, 2) == (state.durability, state.read_only)


def test_defaults_are_one_commit_for_the_keys_that_are_missing(path: Path) -> None:
    path.write_text("a: 1\n")
    with PersistedState(path, a=2, b=[]) as state:
        assert {"a": 1, "b": []} == state
        assert 1 == path.read_text().count("\n--- ")


FILLED: list[tuple[dict[str, Any], dict[str, Any], dict[str, Any]]] = [
    ({"d": {"a": 1}}, {"d": {"a": 2, "b": 3}}, {"d": {"a": 1, "b": 3}}),
    ({"d": {"e": {"f": {}}}}, {"d": {"e": {"f": {"g": 1}}}}, {"d": {"e": {"f": {"g": 1}}}}),
    ({"d": {"x": 1}}, {"d": {"e": {"f": [1]}}, "n": 1}, {"d": {"x": 1, "e": {"f": [1]}}, "n": 1}),
    ({"d": {}, "e": {}}, {"d": {"a": 1}, "e": {"b": 2}}, {"d": {"a": 1}, "e": {"b": 2}}),
    ({"l": [{}], "s": {1}}, {"l": [{"a": 1}, 2], "s": {2}, "n": 0}, {"l": [{}], "s": {1}, "n": 0}),
    ({"d": {3: None}}, {"d": {3: {"a": 1}, 4: {}}}, {"d": {3: None, 4: {}}}),
]


@pytest.mark.parametrize(("content", "defaults", "after"), FILLED)
def test_defaults_are_one_commit_for_nested_keys_too(
    path: Path, content: dict[str, Any], defaults: dict[str, Any], after: dict[str, Any]
) -> None:
    path.write_text(yaml.safe_dump(content))
    with PersistedState.open(path, defaults=defaults) as state:
        assert after == state
        assert [*after] == [*state]
        assert 1 == path.read_text().count("\n--- ")
        with PersistedState.open(path, defaults=defaults):
            assert 1 == path.read_text().count("\n--- ")


@pytest.mark.parametrize("value", [None, 5, "text", [1], {1}, {}])
@pytest.mark.parametrize("default", [None, 7, [2], {2}, {"a": {"b": 1}}])
def test_a_value_of_another_kind_than_its_default_stays(path: Path, value: Any, default: Any) -> None:
    content = {"d": {"x": value}}
    path.write_text(yaml.safe_dump(content))
    before = path.read_bytes()
    with PersistedState.open(path, defaults={"d": {"x": default}}) as state:
        if value == {} and isinstance(default, dict):
            assert {"d": {"x": default}} == state
        else:
            assert content == state
            assert before == path.read_bytes()


def test_nested_defaults_of_a_state_that_is_read_only(path: Path) -> None:
    path.write_text("d: {a: 1}\n")
    with PersistedState.open(path, defaults={"d": {"a": 2}}, read_only=True) as state:
        assert {"d": {"a": 1}} == state
    with pytest.raises(ReadOnlyError, match=r"lacks keys that have defaults\. Nothing was changed"):
        PersistedState.open(path, defaults={"d": {"b": 2}}, read_only=True)
    assert b"d: {a: 1}\n" == path.read_bytes()


def test_nested_defaults_keep_the_containers_and_what_a_person_wrote(path: Path) -> None:
    path.write_text("# mine\nd:\n  a: 1  # stays\n")
    with PersistedState(path) as state:
        d = state.d
        with PersistedState(path, d={"a": 2, "b": [1]}):
            assert d is state.d
            assert {"a": 1, "b": [1]} == d
    assert "# mine\nd:\n  a: 1  # stays\n  b:\n    - 1\n" == path.read_text()


def test_two_programs_that_begin_a_file_fill_it_once(tmp_path: Path) -> None:
    """The second one finds under the lock that nothing is missing any more."""
    with Crowd(tmp_path / "state.yaml") as crowd:
        others = [crowd.other(opened=False) for _ in range(3)]
        crowd.begin(d={"a": {}})
        for other in others:
            other.tell(
                "state = pstate.PersistedState(path, d={'a': {'n': 0}, 'm': 0}); pstate.at(state, 'd.a.n').incr()"
            )
        for other in others:
            other.answer()
        assert {"d": {"a": {"n": 3}, "m": 0}} == crowd.open()
        assert 4 == crowd.file.read_text().count("\n--- ")


def test_a_refused_default_leaves_nothing_behind(path: Path) -> None:
    with pytest.raises(TypeError, match=r"state\['at'\]|state.at"):
        PersistedState(path, at=object())

    assert not path.exists()


def test_read_only_with_a_default_that_is_missing_says_so(path: Path) -> None:
    path.write_text("a: 1\n")
    with PersistedState.open(path, defaults={"a": 2}, read_only=True) as state:
        assert 1 == state.a
    with pytest.raises(ReadOnlyError):
        PersistedState.open(path, defaults={"b": 2}, read_only=True)
    assert "a: 1\n" == path.read_text()


def test_close_is_idempotent_and_its_own(path: Path) -> None:
    first, second = PersistedState(path, a=1), PersistedState(path)
    first.close()
    first.close()
    second.a = 2
    with pytest.raises(ClosedError, match="Open it again"):
        _ = first.a
    second.close()

    assert "a: 2\n" == path.read_text()
    assert [path.name] == os.listdir(path.parent)


def test_dropping_the_last_reference_tidies_the_file(path: Path) -> None:
    state = PersistedState(path, a={"b": 1})
    nested = state.a
    del state
    gc.collect()

    assert "a:\n  b: 1\n" == path.read_text()
    nested.b = 2  # and a reference into it opens the file again
    with PersistedState.open(path, read_only=True) as reader:
        assert {"a": {"b": 2}} == reader


def test_a_close_that_keeps_the_journal_writes_nothing(path: Path) -> None:
    """For a short program beside a long one, which would have to follow a new file for each."""
    path.write_text("a: 1\n")
    with PersistedState(path) as other:
        other.b = 1
        state = PersistedState(path)  # the same store: only the last one lets go of the file
        state.a = 2
        state.close(keep_journal=True)
        with pytest.raises(ClosedError):
            state.get("a")
        assert 2 == other.a
        before = path.read_bytes()
        other.close(keep_journal=True)

        assert before == path.read_bytes()
    assert b"... # pstate 1 " in before
    with PersistedState(path) as again:
        assert {"a": 2, "b": 1} == again
        again.a = 3
    assert {"a": 3, "b": 1} == yaml.safe_load(path.read_bytes())


def test_a_save_is_brought_together_with_what_was_committed(path: Path) -> None:
    """As an editor's would be, comments and all."""
    path.write_text("a: 1  # one\n")
    with PersistedState(path) as state:
        core = state._store
        with pytest.raises(InvalidStateError):
            core.save({"a": 1}, b"[")
        assert "a: 1  # one\n" == path.read_text()

        assert [] == core.save({"a": 1}, b"a: 2  # two")
        assert (2, "a: 2  # two") == (state.a, path.read_text())

        state.b = 1
        state.a = 3
        assert ["state.a was 3"] == core.save({"a": 2}, b"a: 4  # four\nc: 1 # new\n")
        assert {"a": 4, "b": 1, "c": 1} == state
        assert "a: 4  # four\nc: 1 # new\nb: 1\n" == path.read_text()
        with state.transaction(), pytest.raises(TransactionError):
            core.save({}, b"")
    assert {"a": 4, "b": 1, "c": 1} == yaml.safe_load(path.read_bytes())


def test_a_close_that_keeps_the_journal_looks_for_a_save_that_lacks_the_last_commit(path: Path) -> None:
    """Nobody may be left who knows that commit."""
    path.write_text("a: 1\n")
    state = PersistedState(path)
    state.b = 1
    state.b = 2
    other = path.with_name("other")
    other.write_text("a: 10\n")
    os.replace(other, path)
    state.close(keep_journal=True)

    assert {"a": 10, "b": 2} == yaml.safe_load(path.read_bytes())


@pytest.mark.parametrize("name", ["defaults", "durability", "fresh", "fs", "lock_timeout", "locking", "read_only"])
def test_an_option_of_open_is_not_taken_for_the_default_of_a_key(path: Path, name: str) -> None:
    """A program that has meant durability="power" would find out after the power cut."""
    for kind in (PersistedState, Named):
        with pytest.raises(TypeError) as caught:
            kind(path, n=1, **{name: "power"})  # type: ignore[arg-type]
        said = f"{name}='power'"
        assert str(caught.value) == (
            f"{name} is an option of open: {kind.__name__}.open(path, {said}). Nothing was opened. For a key of that "
            f"name: {kind.__name__}.open(path, defaults=dict({said}))"
        )
        assert not path.exists()
    with PersistedState.open(path, defaults={name: "power"}) as state:
        assert "power" == state[name] == getattr(state, name)
    with PersistedState(path, n=1) as state:
        assert {name: "power", "n": 1} == state


def test_every_option_of_open_is_known_as_one() -> None:
    options = [name for name, one in inspect.signature(PersistedState.open).parameters.items() if name != "path"]

    assert options
    assert set(options) == pstate.state._OPTIONS


class Named(PersistedState):
    """A subclass without an `__init__` of its own."""


# ------------------------------------------------------------------ names of a class


class Mixin:
    counter = 0


class Data:
    def __get__(self, instance: Any, owner: Any = None) -> int:
        return 7


def refused_class(name: str, body: str, bases: str = "PersistedState") -> None:
    source = f"class App({bases}):\n" + textwrap.indent(body, "    ")
    with pytest.raises(ReservedNameError, match=rf"class App: its attribute '{name}' would hide the key") as caught:
        exec(source, dict(CLASS_NAMES))
    assert f"App(path, {name}=...)" in str(caught.value)
    assert "ClassVar" in str(caught.value)
    assert caught.value.name == name


CLASS_NAMES: dict[str, Any] = {
    "PersistedState": PersistedState, "Mixin": Mixin, "Path": Path, "field": dataclasses.field, "typing": typing,
    "ClassVar": ClassVar, "Final": Final, "Data": Data, "functools": functools, "enum": enum, "Named": Named,
    "Generic": typing.Generic, "T": typing.TypeVar("T"), "ABC": abc.ABC, "AbstractContextManager":
    contextlib.AbstractContextManager,
}  # fmt: skip


@pytest.mark.parametrize(
    "body",
    [
        "counter: int = 0", "counter = 0", "counter: int = None", "counter: list = []", "counter: 'int' = 3",
        "counter: set = set()", "counter: Path = Path('x')", "counter: list = field(default_factory=list)",
        "counter: Final = 3", "counter: object = object()", "counter = enum", "__slots__ = ('counter',)",
        "x: int\ncounter: str = ''", "def other(self): ...\ncounter = 1.5", "counter: 'NotClassVar[int]' = 1",
    ],
)  # fmt: skip
def test_a_value_of_a_class_that_would_hide_a_key_is_refused_where_the_class_is_defined(body: str) -> None:
    refused_class("counter", body)
    refused_class("counter", body, "Named")


def test_a_value_of_a_class_that_is_mixed_in_is_refused_too() -> None:
    for bases in ("PersistedState, Mixin", "Mixin, PersistedState", "Named, Mixin"):
        refused_class("counter", "pass", bases)
    with pytest.raises(ReservedNameError, match="'_store'"):
        type("App", (type("Inner", (), {"_store": 1}), PersistedState), {})


@pytest.mark.parametrize("name", ["items", "close", "open", "keys"])
def test_a_method_is_not_replaced_by_a_value(name: str) -> None:
    refused_class(name, f"{name}: list = []")


def test_what_a_class_may_have_is_no_key_and_hides_the_item_from_nobody(path: Path) -> None:
    body = """
    counter: int
    limit: ClassVar[int] = 1
    quoted: "ClassVar[int]" = 2
    spelled_out: typing.ClassVar = 3
    _private: int = 4
    __dunder__ = 5
    described = Data()
    def method(self): return 6
    @property
    def prop(self): return 7
    @functools.cached_property
    def cached(self): return 8
    @staticmethod
    def static(): return 9
    @classmethod
    def of_class(cls): return 10
    part = functools.partialmethod(method)
    function = len
    class Nested: ...
    class Colour(enum.Enum):
        RED = 1
    """
    namespace: dict[str, Any] = dict(CLASS_NAMES)
    for future in ("", "from __future__ import annotations\n"):
        for bases in ("PersistedState", "ABC, PersistedState", "PersistedState, Generic[T], AbstractContextManager"):
            exec(f"{future}class App({bases}):{body}", namespace)
    exec("class Child(App):\n    limit = 11\n    def method(self): return 12", namespace)
    path.write_text("{counter: 1, limit: key, method: key, prop: key}\n")

    with namespace["Child"](path) as state:
        assert (1, 11, 2, 3, 4, 12, 8) == (
            state.counter, state.limit, state.quoted, state.spelled_out, state._private, state.method(), state.cached
        )  # fmt: skip
        assert {"counter": 1, "limit": "key", "method": "key", "prop": "key"} == state
        for name in ("limit", "method", "prop", "Nested"):
            with pytest.raises(ReservedNameError):
                setattr(state, name, 1)


# ------------------------------------------------------------------ the class, called by code that does not know it


def test_a_state_in_a_dataclass_becomes_a_plain_dict(path: Path) -> None:
    @dataclasses.dataclass
    class Context:
        state: PersistedState

    for kind in (PersistedState, Named):
        with kind(path, d={"l": [1]}) as state:
            plain = dataclasses.asdict(Context(state))["state"]
            assert (dict, {"d": {"l": [1]}}) == (type(plain), plain)
            assert list is type(plain["d"]["l"])
            for pairs in (state, state.items(), zip(["d"], [state.d], strict=True), map(tuple, state.items())):
                made: Any = type(state)(pairs)  # type: ignore[arg-type]
                assert (dict, dict, list) == (type(made), type(made["d"]), type(made["d"]["l"]))


def test_what_a_person_may_take_for_an_argument_of_the_class_makes_no_state_that_is_not_kept(path: Path) -> None:
    for wrong in ({"a": 1}, [("a", 1)], {"a"}, (), path.parent.iterdir().__class__, io.BytesIO()):
        with pytest.raises(TypeError):
            PersistedState(wrong)  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        Config(pair for pair in [("a", 1)])  # type: ignore[arg-type]


CORE = sorted(name for name in {*dir(Core)} - {*dir(typing.Protocol)} if name[:1] != "_")


@pytest.mark.parametrize("name", CORE)
def test_a_closed_state_has_all_that_a_state_and_its_blocks_ask_of_a_store(tmp_path: Path, name: str) -> None:
    """What it lacks would be an AttributeError where a program expects ClosedError."""
    state = PersistedState(tmp_path / "state.yaml")
    getattr(state._store, name)
    state.close()
    answers = {"changes": None, "closed": True, "fresh": None, "is_mine": False, "lock_timeout": None, "view": None}

    if name == "path":
        assert str(tmp_path / "state.yaml") == state._store.path
    elif name in answers:
        answer = getattr(state._store, name)
        assert answers[name] is (answer() if name == "fresh" else answer)
    else:
        with pytest.raises(ClosedError):
            getattr(state._store, name)()


def test_states_and_containers_ask_nothing_else_of_a_store() -> None:
    state = Path(pstate.state.__file__)
    asked = set(re.findall(r"(?:_store|core)\.([a-z]\w*)", state.read_text(encoding="utf-8")))
    for module in (state.parent / "memory").glob("*.py"):
        asked |= set(re.findall(r"\b(?:_store|store)\.([a-z]\w*)", module.read_text(encoding="utf-8")))

    assert {"fresh", "view", "read", "put", "mutate", "enter"} <= asked <= {*CORE}


# ------------------------------------------------------------------ defaults that are named like a method


@pytest.fixture
def warned(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a process that has warned about nothing yet."""
    monkeypatch.setattr(pstate.state, "_warned", set())


@pytest.mark.usefixtures("warned")
def test_a_default_that_is_named_like_a_method_is_logged_once(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The attribute is the method, so `state.open` would silently not be the value."""
    for _ in range(2):
        with PersistedState.open(path, defaults={"open": 1, "n": 2, "_open": 3}) as state:
            assert state["open"] == 1

    assert [
        f"{path}: the default 'open' has the name of a method of PersistedState, so state.open is that method. "
        'Use the item: state["open"]'
    ] == [record.getMessage() for record in caplog.records]
    assert [("pstate.state", "WARNING")] == [(record.name, record.levelname) for record in caplog.records]


@pytest.mark.usefixtures("warned")
def test_defaults_in_dicts_are_looked_at_too(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """`watch` is a method of the state, but not of a dict in it."""
    with PersistedState(path, limits={"items": 1, "watch": 2, "deep": {"pop": 3}}, jobs=[{"items": 4}]):
        pass

    said = [record.getMessage() for record in caplog.records]
    assert ['state.limits["items"]', 'state.limits.deep["pop"]'] == [text.rpartition(": ")[2] for text in said]
    assert all("of MappedDict" in text for text in said)


@pytest.mark.usefixtures("warned")
def test_each_class_warns_for_itself_and_a_property_is_not_a_method(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    class Jobs(PersistedState):
        def begin(self) -> None: ...

        @property
        def copy(self) -> Any:  # type: ignore[override]
            return self["copy"]

    with Jobs(path, begin=1, copy=2) as state:
        assert state.copy == 2
    with PersistedState(path, begin=1, copy=2):
        pass

    said = [record.getMessage().partition(" has the name of a method of ") for record in caplog.records]
    assert [("begin", "Jobs"), ("copy", "PersistedState")] == [
        (before.split("'")[1], after.partition(",")[0]) for before, _, after in said
    ]


@pytest.mark.usefixtures("warned")
def test_a_state_that_cannot_be_opened_warns_about_no_default(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path.write_text("- 1\n")
    with pytest.raises(InvalidStateError):
        PersistedState(path, pop=1)

    assert not caplog.records
