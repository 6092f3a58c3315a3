"""Which values are state: everything accepted comes out equal and of equal type, everything else says where and why."""

from __future__ import annotations

import array
import collections
import dataclasses
import datetime as dt
import decimal
import enum
import fractions
import ipaddress
import math
import pathlib
import re
import types
import uuid
import zoneinfo
from typing import Any

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pstate.errors import UnsupportedTypeError, UnsupportedValueError
from pstate.values import FAST, FAST_KEYS, MAX_DEPTH, SCALARS, check_key, check_member, place_text, same, take

UTC = dt.timezone.utc  # noqa: UP017 - the same object under the name that the messages have
NOON = dt.datetime(2026, 1, 1, 12, tzinfo=UTC)
PARIS = zoneinfo.ZoneInfo("Europe/Paris") if "Europe/Paris" in zoneinfo.available_timezones() else None

SCALAR_VALUES = [
    None, True, False, 0, -1, 10**400, 0.0, -0.0, 1.5, math.inf, -math.inf, math.nan, "", "a", "ä", "𝕏", "\x00\x85",
    b"", b"\xff", dt.date(1, 1, 1), dt.datetime(9999, 12, 31, 23, 59, 59, 999999), dt.datetime(2026, 1, 1, tzinfo=UTC),
    dt.datetime(2026, 1, 1, tzinfo=dt.timezone(dt.timedelta(hours=-3, minutes=-30))),
]  # fmt: skip


class Colour(enum.Enum):
    RED = "red"


class Level(enum.IntEnum):
    LOW = 1


class Name(enum.StrEnum):
    A = "a"


class MyInt(int): ...


class MyStr(str): ...


class MyFloat(float): ...


class MyBytes(bytes): ...


class MyDate(dt.date): ...


class MyDateTime(dt.datetime): ...


@dataclasses.dataclass
class Point:
    x: int = 1


class Opaque:
    __slots__ = ()


class WithDict:
    def __init__(self) -> None:
        self.a = 1


# The marks that the classes of other libraries have; each also has what would lead to other advice.


class Iterable_:
    def __iter__(self) -> Any:
        return iter(())

    def keys(self) -> list[str]:
        return []

    def __getitem__(self, key: str) -> None: ...


class Pydantic(Iterable_):
    def model_dump(self, mode: str = "python") -> None: ...

    def dict(self) -> None: ...


class Pydantic1(Iterable_):
    __slots__ = ("__fields_set__",)


class Attrs(Iterable_):
    __attrs_attrs__ = ()


class Msgspec(Iterable_):
    __struct_fields__ = ("a",)


class Array(Iterable_):
    def tolist(self) -> None: ...


def of_module(module: str, name: str, *bases: type) -> Any:
    return type(name, bases, {"__module__": module})()


class Numpy:
    """Classes that look like those of numpy, which is too large to be installed for one test."""

    class generic:
        __module__ = "numpy"
        __qualname__ = "generic"

        def __init__(self, value: Any) -> None:
            self.inner = value

        def item(self) -> Any:
            return self.inner

    class complexfloating(generic):
        __module__ = "numpy"
        __qualname__ = "complexfloating"

        def __init__(self, value: complex = 0j) -> None:
            self.real, self.imag = Numpy.float64(value.real), Numpy.float64(value.imag)

    class float64(float):
        __module__ = "numpy"
        __qualname__ = "float64"

    class datetime64(generic):
        __module__ = "numpy"
        __qualname__ = "datetime64"

        def item(self) -> Any:
            """As for nanoseconds, the unit of pandas."""
            return round(self.inner.timestamp() * 1e9)

        def astype(self, unit: str) -> Numpy.generic:
            assert unit == "datetime64[us]"
            return Numpy.generic(self.inner)

    class timedelta64(generic):
        __module__ = "numpy"
        __qualname__ = "timedelta64"

        def __init__(self, value: float, unit: str) -> None:
            assert unit == "s"
            super().__init__(value)

        def __truediv__(self, other: Numpy.timedelta64) -> Numpy.float64:
            return Numpy.float64(self.inner / other.inner)

    class ndarray:
        __module__ = "numpy"
        __qualname__ = "ndarray"

        def __init__(self, value: list[Any]) -> None:
            self.inner = value

        def tolist(self) -> list[Any]:
            return self.inner


class Room(collections.namedtuple("Room", "name size")):
    __slots__ = ()


@attrs.define
class Job:
    name: str = "dry"
    tries: int = 3


class Model:
    """Looks like one of pydantic's."""

    def model_dump(self, mode: str = "python") -> Any:
        return {"at": dt.time(1)} if mode == "python" else {"at": "01:00:00"}


class Walk:
    def __fspath__(self) -> str:
        return "x"


@pytest.mark.parametrize("value", SCALAR_VALUES, ids=repr)
def test_a_scalar_is_taken_as_it_is(value: Any) -> None:
    assert take(value, "state.x", 1) is value or value == take(value, "state.x", 1)
    assert same(value, take(value, "state.x", 1))
    assert same([value], take([value], "state.x", 1))
    assert same({"k": value}, take({"k": value}, "state.x", 1))


@pytest.mark.parametrize("key", [value for value in SCALAR_VALUES if value == value], ids=repr)
def test_every_kind_of_scalar_is_a_key_and_a_member(key: Any) -> None:
    assert same(key, check_key(key, "state"))
    assert same(key, check_member(key, "state"))
    assert same({key: 1}, take({key: 1}, "state.x", 1))
    assert same({key}, take({key}, "state.x", 1))


@pytest.mark.parametrize(
    ("value", "plain"),
    [
        pytest.param((1, (2, 3)), [1, [2, 3]], id="tuple"),
        pytest.param(frozenset({1}), {1}, id="frozenset"),
        pytest.param(collections.OrderedDict(b=1, a=(2,)), {"b": 1, "a": [2]}, id="OrderedDict"),
        pytest.param(collections.defaultdict(list, a=[1]), {"a": [1]}, id="defaultdict"),
        pytest.param(collections.Counter("aab"), {"a": 2, "b": 1}, id="Counter"),
        pytest.param(collections.namedtuple("P", "x y")(1, 2), [1, 2], id="namedtuple"),
    ],
)
def test_containers_and_their_subclasses_become_the_exact_builtin_kinds(value: Any, plain: Any) -> None:
    assert same(plain, take(value, "state.x", 1))
    assert type(take(value, "state.x", 1)) is type(plain)


def test_methods_of_other_classes_are_not_taken_for_ours() -> None:
    """Whatever they are called."""

    class Stack(list[Any]):
        def _plain(self) -> str:
            return "whatever"

    assert same([1, 2], take(Stack([1, 2]), "state.x", 1))
    assert same({"a": [1]}, take({"a": Stack([1])}, "state.x", 1))


def test_the_order_of_an_ordered_dict_is_the_one_that_it_shows() -> None:
    value = collections.OrderedDict(a=1, b=2)
    value.move_to_end("a")

    assert ["b", "a"] == list(take(value, "state.x", 1))


def test_what_is_taken_shares_nothing_with_what_was_given() -> None:
    inner: list[Any] = [1]
    value = {"a": inner, "b": inner, "c": {1}}
    plain = take(value, "state.x", 1)
    inner.append(2)
    value["c"].add(2)  # type: ignore[attr-defined]

    assert plain == {"a": [1], "b": [1], "c": {1}}
    assert plain["a"] is not plain["b"]


def test_the_same_object_in_two_places_is_no_cycle() -> None:
    shared = {"k": [1]}

    assert take([shared, shared, [shared]], "state.x", 1) == [shared, shared, [shared]]


@pytest.mark.parametrize(
    ("value", "name", "instead"),
    [
        (Colour.RED, "Colour", "value.value"),
        (Level.LOW, "Level", "value.value"),
        (Name.A, "Name", "value.value"),
        (MyInt(1), "MyInt", "int(value)"),
        (MyStr("a"), "MyStr", "str(value)"),
        (MyFloat(1), "MyFloat", "float(value)"),
        (MyBytes(b"a"), "MyBytes", "bytes(value)"),
        (MyDate(2026, 1, 1), "MyDate", "datetime.date.fromisoformat(value.isoformat())"),
        (MyDateTime(2026, 1, 1), "MyDateTime", "datetime.datetime.fromisoformat(value.isoformat())"),
        (pathlib.Path("a"), "Path", "str(value)"),
        (pathlib.PureWindowsPath("a"), "pathlib.PureWindowsPath", "str(value)"),
        (Walk(), "Walk", "os.fspath(value)"),
        (decimal.Decimal(1), "decimal.Decimal", "str(value)"),
        (fractions.Fraction(1), "fractions.Fraction", "str(value)"),
        (uuid.UUID(int=1), "uuid.UUID", "str(value)"),
        (dt.time(1), "datetime.time", "value.isoformat()"),
        (dt.timedelta(1), "datetime.timedelta", "value.total_seconds()"),
        (1j, "complex", "[value.real, value.imag]"),
        (range(3), "range", "list(value)"),
        ((n for n in ()), "generator", "list(value)"),
        (collections.deque(), "collections.deque", "list(value)"),
        ({}.keys(), "dict_keys", "list(value)"),
        (types.MappingProxyType({}), "mappingproxy", "dict(value)"),
        (collections.UserDict(), "collections.UserDict", "dict(value)"),
        (Point(), "Point", "dataclasses.asdict(value)"),
        (bytearray(b"a"), "bytearray", "bytes(value)"),
        (memoryview(b"a"), "memoryview", "bytes(value)"),
        (ValueError("a"), "ValueError", "str(value)"),
        (int, "type", "value.__qualname__"),
        (len, "builtin_function_or_method", "what you need of it"),
        (test_the_same_object_in_two_places_is_no_cycle, "function", "value.__qualname__"),
        (Pydantic(), "Pydantic", 'value.model_dump(), or value.model_dump(mode="json") for'),
        (Pydantic1(), "Pydantic1", "value.dict()."),
        (Attrs(), "Attrs", "attrs.asdict(value)."),
        (Msgspec(), "Msgspec", "msgspec.to_builtins(value)."),
        (Array(), "Array", "value.tolist()."),
        (of_module("numpy", "int64", of_module("numpy", "generic").__class__), "numpy.int64", "value.item()."),
        (of_module("numpy", "complex64", Numpy.complexfloating), "numpy.complex64", "[float(value.real), float(value"),
        (Numpy.datetime64(NOON), "numpy.datetime64", 'value.astype("datetime64[us]").item(), or value.item() for a'),
        (of_module("pandas", "DataFrame", Iterable_), "pandas.DataFrame", 'value.to_dict("records").'),
        (collections.UserString("a"), "collections.UserString", "str(value)."),
        (Opaque(), "Opaque", "what you need of it"),
        (WithDict(), "WithDict", "dict(vars(value))"),
    ],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,
)
def test_a_value_that_is_no_state_is_refused_with_what_to_store_instead(value: Any, name: str, instead: str) -> None:
    with pytest.raises(UnsupportedTypeError) as caught:
        take({"jobs": [0, {"at": value}]}, "state", 0)

    assert caught.value.place == "state.jobs[1].at"
    assert str(caught.value).startswith("state.jobs[1].at: ")
    assert name in str(caught.value)
    assert f"Store {instead}" in str(caught.value)
    assert "Nothing was changed." in str(caught.value)
    assert isinstance(caught.value, TypeError)


WORDS = {"attrs": attrs, "dataclasses": dataclasses, "datetime": dt, "numpy": Numpy}

CONVERTED: list[tuple[Any, Any]] = [
    (Colour.RED, "red"),
    (Level.LOW, 1),
    (Name.A, "a"),
    (MyInt(3), 3),
    (MyStr("ä"), "ä"),
    (MyFloat(1.5), 1.5),
    (MyBytes(b"a"), b"a"),
    (MyDate(2026, 1, 1), dt.date(2026, 1, 1)),
    (MyDateTime(2026, 1, 1, tzinfo=UTC), dt.datetime(2026, 1, 1, tzinfo=UTC)),
    (pathlib.Path("a/b"), "a/b"),
    (pathlib.PureWindowsPath("a"), "a"),
    (decimal.Decimal("1.10"), "1.10"),
    (fractions.Fraction(1, 3), "1/3"),
    (uuid.UUID(int=1), "00000000-0000-0000-0000-000000000001"),
    (dt.time(1, 2), "01:02:00"),
    (dt.timedelta(minutes=1.5), 90.0),
    (UTC, "UTC"),
    (1 + 2j, [1.0, 2.0]),
    (Point(7), {"x": 7}),
    (Job(), {"name": "dry", "tries": 3}),
    (range(2), [0, 1]),
    (collections.deque([1]), [1]),
    (collections.UserDict(a=1), {"a": 1}),
    (array.array("i", [1]), [1]),
    (bytearray(b"a"), b"a"),
    (re.compile("a.*"), "a.*"),
    (ipaddress.ip_address("::1"), "::1"),
    (WithDict(), {"a": 1}),
    (Numpy.generic(3), 3),
    (Numpy.float64(1.5), 1.5),
    (Numpy.complexfloating(1 + 2j), [1.0, 2.0]),
    (Numpy.datetime64(NOON), NOON),
    (Numpy.timedelta64(5, "s"), 5.0),
    (Numpy.ndarray([[1], [2]]), [[1], [2]]),
]


def advised(said: str, verb: str) -> list[str]:
    """What *said* tells to write, as code. What is for a person follows it."""
    found = re.search(rf"{verb} (.+?)\. Nothing was changed", said)
    assert found, said
    return [re.split(r" for |, or the parts", part)[0] for part in re.split(r", or (?=value|key)", found[1])]


@pytest.mark.parametrize(("value", "stored"), CONVERTED, ids=lambda value: type(value).__qualname__)
def test_the_conversion_that_is_named_makes_what_can_be_stored(value: Any, stored: Any) -> None:
    with pytest.raises(UnsupportedTypeError) as caught:
        take(value, "state.x", 1)

    code = advised(str(caught.value), "Store")[0]
    assert same(stored, take(eval(code, {**WORDS, "value": value}), "state.x", 1))


@pytest.mark.parametrize(
    ("key", "stored"), [pair for pair in CONVERTED if type(pair[1]) not in (list, dict)], ids=lambda key: str(type(key))
)
def test_the_conversion_that_is_named_makes_a_key(key: Any, stored: Any) -> None:
    try:
        hash(key)
    except TypeError:
        return  # Python itself refuses it
    with pytest.raises(UnsupportedTypeError) as caught:
        check_key(key, "state.x")

    code = advised(str(caught.value), "Use")[0]
    assert same(stored, check_key(eval(code, {**WORDS, "key": key}), "state.x"))


def test_a_model_that_has_more_than_yaml_has_a_second_conversion() -> None:
    with pytest.raises(UnsupportedTypeError) as caught:
        take(Model(), "state.x", 1)

    first, second = advised(str(caught.value), "Store")
    with pytest.raises(UnsupportedTypeError, match=r"state\.x\.at: datetime\.time cannot be stored"):
        take(eval(first, {"value": Model()}), "state.x", 1)
    assert {"at": "01:00:00"} == take(eval(second, {"value": Model()}), "state.x", 1)


def test_a_named_tuple_becomes_a_list_as_each_tuple_does() -> None:
    assert same(["hall", 3], take(Room("hall", 3), "state.x", 1))
    with pytest.raises(UnsupportedTypeError, match="Room cannot be a dict key"):
        check_key(Room("hall", 3), "state.x")


@pytest.mark.parametrize("key", [(1, 2), frozenset(), Level.LOW, MyStr("a"), pathlib.Path("a"), None.__class__, 1j])
def test_a_key_that_is_no_scalar_of_ours_is_refused(key: Any) -> None:
    for call in (
        lambda: take({"a": {key: 1}}, "state", 0),
        lambda: take({"a": {key}}, "state", 0),
        lambda: check_key(key, "state.a"),
        lambda: check_member(key, "state.a"),
    ):
        with pytest.raises(UnsupportedTypeError, match="Use ") as caught:
            call()
        assert caught.value.place == "state.a"


def test_nan_is_a_value_but_no_key() -> None:
    assert math.isnan(take(math.nan, "state.x", 1))
    for call in (
        lambda: take({math.nan: 1}, "state.x", 1),
        lambda: take({math.nan}, "state.x", 1),
        lambda: check_key(math.nan, "state.x"),
        lambda: check_member(math.nan, "state.x"),
    ):
        with pytest.raises(UnsupportedValueError, match=r"state\.x: NaN cannot be a"):
            call()


@pytest.mark.parametrize("text", ["\ud800", "a\udc80", "ä\udfff"])
def test_a_lone_surrogate_is_refused_everywhere(text: str) -> None:
    for value in (text, [text], {text: 1}, {"k": text}, {text}):
        with pytest.raises(UnsupportedValueError, match="lone surrogate"):
            take(value, "state.x", 1)
    with pytest.raises(UnsupportedValueError, match="lone surrogate"):
        check_key(text, "state.x")


def test_a_cyclic_value_is_refused_where_it_closes() -> None:
    value: list[Any] = [1]
    value.append({"again": value})

    with pytest.raises(UnsupportedValueError, match="contains itself") as caught:
        take(value, "state.x", 1)
    assert caught.value.place == "state.x[1].again"
    assert isinstance(caught.value, ValueError)


@pytest.mark.parametrize("depth", [0, 1, 50])
def test_a_value_may_reach_the_deepest_level_and_no_further(depth: int) -> None:
    value: Any = 1
    for _ in range(MAX_DEPTH - depth):
        value = [value]

    assert value == take(value, "state", depth)
    with pytest.raises(UnsupportedValueError, match="too deep"):
        take([value], "state", depth)


def test_a_scalar_may_stand_below_the_deepest_container() -> None:
    assert take(1, "state", MAX_DEPTH) == 1


def test_the_place_is_asked_for_only_when_a_value_is_refused() -> None:
    def place() -> str:
        asked.append(1)
        return "state.x"

    asked: list[int] = []
    take([1, {"a": "ä"}], place, 1)
    check_key("ä", place)

    assert not asked
    with pytest.raises(UnsupportedTypeError, match=r"state\.x\[0\]: "):
        take([1j], place, 1)


def test_a_naive_datetime_loses_only_its_fold() -> None:
    taken = take(dt.datetime(2026, 10, 25, 2, 30, fold=1), "state.x", 1)

    assert taken.fold == 0
    assert taken == dt.datetime(2026, 10, 25, 2, 30)


@pytest.mark.skipif(PARIS is None, reason="no time zone data on this machine")
@pytest.mark.parametrize("fold", [0, 1])
def test_an_aware_datetime_keeps_moment_and_offset(fold: int) -> None:
    moment = dt.datetime(2026, 10, 25, 2, 30, tzinfo=PARIS, fold=fold)
    taken = take([moment], "state.x", 1)[0]

    assert taken.astimezone(UTC) == moment.astimezone(UTC)
    assert taken.utcoffset() == moment.utcoffset() == dt.timedelta(hours=2 - fold)
    assert type(taken.tzinfo) is dt.timezone
    assert taken.fold == 0


def test_an_offset_with_seconds_becomes_utc() -> None:
    moment = dt.datetime(1800, 1, 1, tzinfo=dt.timezone(dt.timedelta(minutes=9, seconds=21)))
    taken = take(moment, "state.x", 1)

    assert taken == moment
    assert taken.utcoffset() == dt.timedelta(0)
    with pytest.raises(UnsupportedValueError, match="years 1 to 9999"):
        take(dt.datetime(1, 1, 1, tzinfo=moment.tzinfo), "state.x", 1)


@pytest.mark.skipif(PARIS is None, reason="no time zone data on this machine")
@pytest.mark.parametrize(
    ("hour", "ordinary"),
    [(dt.datetime(2026, 10, 25, 2, 30), False), (dt.datetime(2026, 3, 29, 2, 30), False), (NOON, True)],
    ids=["twice", "never", "once"],
)
@pytest.mark.parametrize("fold", [0, 1])
def test_equal_means_the_same_moment_at_the_same_offset(hour: dt.datetime, ordinary: bool, fold: int) -> None:
    """Python calls two datetimes of different zones different where one of them is in an hour that comes twice, or
    never: the documentation says what to compare.
    """
    moment = hour.replace(tzinfo=PARIS, fold=fold)
    taken = take([moment], "state.x", 1)[0]

    assert ordinary is (taken == moment)
    assert taken.timestamp() == moment.timestamp()
    assert taken.utcoffset() == moment.utcoffset()
    assert taken.replace(tzinfo=None) == moment.replace(tzinfo=None)
    assert taken.astimezone(UTC) == moment.astimezone(UTC)


def test_a_named_offset_loses_its_name() -> None:
    moment = dt.datetime(2026, 1, 1, tzinfo=dt.timezone(dt.timedelta(hours=1), "CET"))

    assert repr(take(moment, "state.x", 1)) == repr(moment.replace(tzinfo=dt.timezone(dt.timedelta(hours=1))))


def test_a_time_zone_without_an_offset_is_none() -> None:
    class Nowhere(dt.tzinfo):
        def utcoffset(self, when: dt.datetime | None) -> None:
            return None

    assert take(dt.datetime(2026, 1, 1, tzinfo=Nowhere()), "state.x", 1).tzinfo is None


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ([], "state"),
        (["jobs", 3, "at"], "state.jobs[3].at"),
        (["not an identifier"], 'state["not an identifier"]'),
        (["items", "class", "_x", "ä"], 'state["items"]["class"]["_x"].ä'),
        ([None, True, 1.5, dt.date(2026, 1, 1)], "state[None][True][1.5][datetime.date(2026, 1, 1)]"),
        (['a"b'], 'state["a\\"b"]'),
    ],
)
def test_a_place_is_written_as_a_program_would_write_it(path: list[Any], text: str) -> None:
    assert place_text(path) == text


@pytest.mark.parametrize(
    ("a", "b"),
    [
        (1, True), (0, False), (1, 1.0), (0.0, -0.0), (None, 0), ("a", b"a"), ([], {}), ({1}, {True}),
        ({1: 1}, {1.0: 1}), ({1: 1}, {1: True}), ([1], [1, 2]), ({"a": 1}, {"a": 1, "b": 2}), ({0.0}, {-0.0}),
        (dt.date(2026, 1, 1), dt.datetime(2026, 1, 1)), ({1}, {2}),
        (dt.datetime(2026, 1, 1), dt.datetime(2026, 1, 1, tzinfo=UTC)),
        (NOON, NOON.astimezone(dt.timezone(dt.timedelta(hours=1)))),
    ],
)  # fmt: skip
def test_same_sees_every_difference(a: Any, b: Any) -> None:
    assert not same(a, b)
    assert not same(b, a)
    assert not same([{"k": a}], [{"k": b}])


@pytest.mark.parametrize(
    ("a", "b"),
    [(math.nan, float("nan")), ([math.nan], [float("nan")]), ({"a": 1, "b": 2}, {"b": 2, "a": 1}), ({2, 1}, {1, 2})],
)
def test_same_sees_through_nan_and_order(a: Any, b: Any) -> None:
    assert same(a, b)


def test_the_quick_sets_hold_exact_scalar_types_only() -> None:
    assert FAST_KEYS < FAST < SCALARS
    assert SCALARS - FAST == {str, dt.datetime}


scalars = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(), st.binary(), st.dates(), st.datetimes(),
    st.datetimes(timezones=st.sampled_from([UTC, dt.timezone(dt.timedelta(minutes=-90))])),
)  # fmt: skip
scalars = scalars.map(lambda value: value.replace(fold=0) if isinstance(value, dt.datetime) else value)
keys = scalars.filter(lambda key: key == key)
trees = st.recursive(
    scalars | st.sets(keys, max_size=3),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(keys, inner, max_size=4),
    max_leaves=12,
)


@given(trees)
def test_a_plain_tree_is_taken_unchanged(tree: Any) -> None:
    taken = take(tree, "state.x", 1)

    assert same(tree, taken)
    assert order_free(tree) == order_free(taken)
    assert type(tree) is not dict or list(tree) == list(taken)
    assert same(taken, take(taken, "state.x", 1))


@given(trees, trees)
def test_same_agrees_with_the_representation(a: Any, b: Any) -> None:
    if repr(a) == repr(b):
        assert same(a, b)
    else:
        assert same(a, b) == (order_free(a) == order_free(b))


def order_free(tree: Any) -> str:
    if type(tree) is dict:
        return "{" + ", ".join(sorted(f"{key!r}: {order_free(item)}" for key, item in tree.items())) + "}"
    if type(tree) is list:
        return "[" + ", ".join(map(order_free, tree)) + "]"
    if type(tree) is set:
        return "set " + ", ".join(sorted(map(repr, tree)))
    return repr(tree)
