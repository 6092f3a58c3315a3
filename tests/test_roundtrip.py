"""What goes in comes out: through the journal after `os._exit`, through the document after close, by stock loaders too.

And what is refused leaves no byte. The golden files are what format version 1 was when they were written.
"""

from __future__ import annotations

import decimal
import itertools
import math
import os
import sys
import tempfile
from collections import OrderedDict
from collections.abc import Callable, Iterator
from datetime import date, datetime, time, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tools import homes
from tools.crash import LOADERS, Crashing, in_child, opened, peek, plain_document, replayed
from tools.disks import Failing, spare_the_disk

import pstate
from pstate import (
    PersistedState,
    ReservedNameError,
    TransactionError,
    UnsupportedTypeError,
    UnsupportedValueError,
    WriteError,
    errors,
)
from pstate.engines import is_url
from pstate.file.fs import SYSTEM
from pstate.values import same
from stress.real import postgres

GOLDEN = Path(__file__).parent / "golden" / "v1"


@pytest.fixture(autouse=True, scope="module")
def cheap_syncs() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        for name in ("sync", "sync_data", "sync_folder"):
            patch.setattr(SYSTEM, name, getattr(SYSTEM, name))
        spare_the_disk(SYSTEM)
        yield


# ------------------------------------------------------------------ values


def nested(levels: int) -> Any:
    value: Any = "deep"
    for _ in range(levels):
        value = [value]
    return value


def imul(target: Any, other: Any) -> None:
    target *= other


def ior(target: Any, other: Any) -> None:
    target |= other


TEXTS = st.text(st.characters(codec="utf-8"), max_size=30) | st.sampled_from(
    [
        "",
        " ",
        "\n",
        "a\n",
        "\na",
        "a\n\n",
        " a\n b\n",
        "\t",
        "\r",
        "\r\n",
        "a\rb",
        "\x00",
        "\x07",
        "\x1b",
        "\x7f",
        "\x80",
        "\x85",
        "\x9f",
        "\xa0",
        "\u2028",
        "\u2029",
        "\ufeff",
        "\ufeffa",
        "\ufffe",
        "\uffff",
        "\U0001f600",
        "\U0010ffff",
        "null",
        "~",
        "yes",
        "NO",
        "on",
        "true",
        "1",
        "0123",
        "0o17",
        "0x1f",
        "1e3",
        "1.0",
        ".5",
        "1_000",
        "1:30",
        ".inf",
        "-.inf",
        ".nan",
        "2024-02-29",
        "2024-02-29 12:00:00",
        "=",
        "<<",
        "-",
        "- a",
        "--- a",
        "---",
        "...",
        "... # pstate 1",
        "... # 0123abcd",
        "\n... # pstate 1 x\n",
        "# c",
        "a # b",
        "a: b",
        "a:",
        ":",
        "?",
        "? a",
        "!!str a",
        "!a",
        "&a",
        "*a",
        "@a",
        "`a`",
        "%YAML 1.1",
        "{",
        "}",
        "[",
        "]",
        ",",
        "|",
        ">",
        "|+",
        "'",
        '"',
        "\\",
        "\\n",
        "a'b\"c",
        "x" * 200,
        "word " * 40,
        "x" * 1100,
        "\u00e9" * 600,
        "k\n" * 50,
    ]
)
FLOATS = st.floats(allow_nan=True) | st.sampled_from(
    [
        0.0,
        -0.0,
        1e16,
        1e-7,
        1e22,
        5e-324,
        1.7976931348623157e308,
        123456789.123,
        1.0,
        1e100,
        math.inf,
        -math.inf,
        math.nan,
    ]
)
INTEGERS = st.integers() | st.sampled_from([0, -1, 2**63, -(2**64), 10**40, 0o777, 60])
OFFSETS = st.integers(-23 * 60 - 59, 23 * 60 + 59).map(lambda minutes: timezone(timedelta(minutes=minutes)))
MOMENTS = st.datetimes(timezones=st.none() | OFFSETS) | st.sampled_from(
    [datetime.min, datetime.max, datetime(1, 1, 1, 0, 0, 0, 1), datetime(2024, 2, 29, 23, 59, 59, 999999)]
)
SCALARS = (
    st.none() | st.booleans() | INTEGERS | FLOATS | TEXTS | st.binary(max_size=40) | st.dates() | MOMENTS
)  # fmt: skip
KEYS = (
    st.none()
    | st.booleans()
    | INTEGERS
    | st.floats(allow_nan=False)
    | TEXTS
    | st.binary(max_size=20)
    | st.dates()
    | MOMENTS
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(KEYS, inner, max_size=4)
        | st.sets(KEYS, max_size=4)
    ),
    max_leaves=12,
)  # fmt: skip
STATES = st.dictionaries(KEYS, VALUES, min_size=1, max_size=4)


def commit_and_die(task: tuple[str, dict[Any, Any]]) -> None:
    path, values = task
    state = PersistedState(path)
    for key, value in values.items():
        state[key] = value
    os._exit(0)


@pytest.fixture(scope="module")
def crashing() -> Iterator[Crashing]:
    if not hasattr(os, "fork"):
        pytest.skip("children are forked here")
    crashing = Crashing(commit_and_die)
    yield crashing
    crashing.close()


@settings(max_examples=120)
@given(values=STATES)
@example(values={"k" * 1100: {"k" * 5000: {"\U0001f600" * 600: 1}}})
@example(values={"i": 10**5000, "j": -(10**4300)})
@example(values={"a": nested(98)})
@example(values={True: 1, 2: True, 3.5: 3, None: None, b"": b"\n", date(1, 1, 1): datetime.min})
def test_values_come_back_after_a_crash_and_after_a_close(crashing: Crashing, values: dict[Any, Any]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        expect_back(crashing, str(Path(folder, "state.yaml")), values)


@settings(max_examples=25)
@given(values=STATES)
@example(values={"k" * 1100: {"k" * 5000: {"\U0001f600" * 600: 1}}})
@example(values={"i": 10**5000, "j": -(10**4300)})
@example(values={"a": nested(98)})
@example(values={True: 1, 2: True, 3.5: 3, None: None, b"": b"\n", date(1, 1, 1): datetime.min})
@example(values={"s": "\x00\x85\ufeff\u2028 a\n", "f": -0.0, "n": math.nan, "i": math.inf, "e": {1, "a", None}})
def test_values_come_back_from_a_server(
    crashing: Crashing, postgres_server: postgres.Server, values: dict[Any, Any]
) -> None:
    """Each table has text, and the text is that of a file."""
    pytest.importorskip("psycopg", reason="psycopg is not installed")
    expect_back(crashing, f"{postgres_server.url}#values {next(numbers)}", values)


numbers = itertools.count()


def expect_back(crashing: Crashing, address: str, values: dict[Any, Any]) -> None:
    """Equal, and of equal types: from records and from the document, by pstate and by a stock loader."""
    home = homes.at(address)
    limit = sys.get_int_max_str_digits()
    crashing((address, values))
    assert same(values, home.reopened())
    sys.set_int_max_str_digits(0)  # Python's, not YAML's
    try:
        assert same(values, home.found())
    finally:
        sys.set_int_max_str_digits(limit)
    state = PersistedState(address)
    state["last"] = 0
    assert same({**values, "last": 0}, state.snapshot())
    if is_url(address):
        state.vacuum()  # which a file does when it is closed
    state.close()
    assert same({**values, "last": 0}, home.reopened())
    sys.set_int_max_str_digits(0)
    try:
        home.expect_tidy({**values, "last": 0})
    finally:
        sys.set_int_max_str_digits(limit)


@settings(max_examples=25)
@given(values=STATES)
def test_every_stock_loader_reads_journal_and_document_alike(values: dict[Any, Any]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "state.yaml")
        state = PersistedState(path)
        state.update(values)
        state["list"] = [values]
        journal = path.read_bytes()
        state.close()
        for name in ("yaml C", "yaml pure"):
            assert same({**values, "list": [values]}, replayed(journal, LOADERS[name])), (name, journal)
            assert same({**values, "list": [values]}, replayed(path.read_bytes(), LOADERS[name])), (
                name,
                path.read_bytes(),
            )


@settings(max_examples=60)
@given(values=st.lists(VALUES, max_size=4), more=VALUES)
def test_values_within_lists_and_operations_come_back(values: list[Any], more: Any) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "state.yaml")
        state = PersistedState(path, box={"list": [0]})
        box = state["box"]
        box["list"].extend(values)
        box["list"].insert(0, more)
        box["list"][1:2] = [more, more]
        box["list"].reverse()
        expected = {"box": {"list": [more, more, more, *values][:0] + ([more, more, more, *values][::-1])}}
        assert same(expected, state.snapshot())
        assert same(expected, replayed(path.read_bytes())), path.read_bytes()
        assert same(expected, peek(path))
        state.close()
        assert same(expected, plain_document(path.read_bytes()))


@settings(max_examples=60)
@given(keys=st.lists(KEYS, min_size=1, max_size=5), gone=st.integers(0, 4))
def test_keys_and_members_of_every_kind_come_back(keys: list[Any], gone: int) -> None:
    """As dict keys in paths, as set members, added and taken away."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "state.yaml")
        state = PersistedState(path, tree={}, seen=set())
        tree: dict[Any, Any] = {}
        seen: set[Any] = set()
        for key in keys:
            state["tree"][key] = {}
            state["tree"][key][key] = [1]
            state["tree"][key][key].append(2)
            state["seen"].add(key)
            tree[key] = {key: [1, 2]}
            seen.add(key)
        for key in keys[gone:]:
            state["seen"].discard(key)
            seen.discard(key)
        expected = {"tree": dict(tree.items()), "seen": seen}
        assert expected == state.snapshot()
        assert same(state.snapshot(), replayed(path.read_bytes())), path.read_bytes()
        assert same(state.snapshot(), peek(path))
        before = state.snapshot()
        state.close()
        assert same(before, plain_document(path.read_bytes())), path.read_bytes()


def test_tuples_frozen_sets_and_subclasses_become_plain(tmp_path: Path) -> None:
    path = tmp_path / "state.yaml"
    state = PersistedState(path)
    state["t"] = (1, (2,))
    state["f"] = frozenset({1})
    state["o"] = OrderedDict(b=1, a=(2,))
    expected = {"t": [1, [2]], "f": {1}, "o": {"b": 1, "a": [2]}}
    assert same(expected, state.snapshot())
    assert same(expected, peek(path))
    state.close()
    assert same(expected, plain_document(path.read_bytes()))


def test_the_order_of_keys_comes_back(tmp_path: Path) -> None:
    path = tmp_path / "state.yaml"
    state = PersistedState(path)
    for key in "zebra":
        state[key] = {"b": 1, "a": 2}
    del state["e"]
    state["e"] = 0
    order = list(state)
    assert order == ["z", "b", "r", "a", "e"]
    assert order == list(peek(path))
    state.close()
    assert order == list(plain_document(path.read_bytes()))
    assert list(plain_document(path.read_bytes())["z"]) == ["b", "a"]


# ------------------------------------------------------------------ what is refused

CYCLE: list[Any] = []
CYCLE.append({"me": CYCLE})
DEEP: Any = nested(200)


class Name(str):
    """A subclass of a scalar would come back as something else."""


def start(path: Path) -> PersistedState:
    return PersistedState(path, n=1, d={"a": 1, "sub": {}}, l=[3, 1, 2], s={1, 2}, mixed=[1, "a"])


def failing_iterator() -> Iterator[int]:
    yield 1
    raise RuntimeError("in the middle")


def sort_key(_: Any) -> Any:
    raise RuntimeError("in the key")


def refuse_in_transaction(state: PersistedState) -> None:
    with state.transaction():
        state["n"] = 2
        state["l"].sort()
        state["d"].clear()
        state["s"] |= {9}
        del state["mixed"]
        1 / 0


REFUSED: dict[str, tuple[Callable[[Any], object], type[Exception] | tuple[type[Exception], ...]]] = {
    "del missing key": (lambda s: s.__delitem__("x"), KeyError),
    "del missing attribute": (lambda s: delattr(s, "x"), AttributeError),
    "del missing key below": (lambda s: s["d"].__delitem__("x"), KeyError),
    "get missing key": (lambda s: s["d"]["x"], KeyError),
    "pop missing key": (lambda s: s["d"].pop("x"), KeyError),
    "popitem of an empty dict": (lambda s: s["d"]["sub"].popitem(), KeyError),
    "del index": (lambda s: s["l"].__delitem__(3), IndexError),
    "del negative index": (lambda s: s["l"].__delitem__(-4), IndexError),
    "set index": (lambda s: s["l"].__setitem__(9, 1), IndexError),
    "set index that is a string": (lambda s: s["l"].__setitem__("1", 1), TypeError),
    "set index that is a float": (lambda s: s["l"].__setitem__(1.0, 1), TypeError),
    "pop index": (lambda s: s["l"].pop(3), IndexError),
    "pop index that is a string": (lambda s: s["l"].pop("a"), TypeError),
    "insert at no index": (lambda s: s["l"].insert("a", 1), TypeError),
    "list remove": (lambda s: s["l"].remove(9), ValueError),
    "list index": (lambda s: s["l"].index(9), ValueError),
    "extended slice of another length": (lambda s: s["l"].__setitem__(slice(None, None, 2), [1]), ValueError),
    "slice step 0": (lambda s: s["l"].__setitem__(slice(0, 1, 0), [1]), ValueError),
    "slice of no iterable": (lambda s: s["l"].__setitem__(slice(0, 1), 1), TypeError),
    "extend by no iterable": (lambda s: s["l"].extend(1), TypeError),
    "extend by an iterator that fails": (lambda s: s["l"].extend(failing_iterator()), RuntimeError),
    "extend, the second is refused": (lambda s: s["l"].extend([1, object()]), TypeError),
    "multiply by a float": (lambda s: imul(s["l"], 1.5), TypeError),
    "sort of what has no order": (lambda s: s["mixed"].sort(), TypeError),
    "sort by a key that fails": (lambda s: s["l"].sort(key=sort_key), RuntimeError),
    "set remove": (lambda s: s["s"].remove(9), KeyError),
    "set add unhashable": (lambda s: s["s"].add([]), TypeError),
    "set add what is not a scalar": (lambda s: s["s"].add((1, 2)), TypeError),
    "set add NaN": (lambda s: s["s"].add(math.nan), ValueError),
    "set update by no iterable": (lambda s: s["s"].update(1), TypeError),
    "set update, the second is refused": (lambda s: s["s"].update([7], [object()]), TypeError),
    "set |= a list": (lambda s: ior(s["s"], [1]), TypeError),
    "update, the second is refused": (lambda s: s.update(a=1, b=object()), TypeError),
    "update by no mapping": (lambda s: s["d"].update(1), TypeError),
    "update by a triple": (lambda s: s["d"].update([(1, 2, 3)]), ValueError),
    "object": (lambda s: s.__setitem__("x", object()), UnsupportedTypeError),
    "object below": (lambda s: s["d"].__setitem__("x", {"y": [object()]}), UnsupportedTypeError),
    "decimal": (lambda s: s.__setitem__("x", decimal.Decimal(1)), UnsupportedTypeError),
    "time": (lambda s: s.__setitem__("x", time(1)), UnsupportedTypeError),
    "complex": (lambda s: s.__setitem__("x", 1j), UnsupportedTypeError),
    "bytearray": (lambda s: s.__setitem__("x", bytearray()), UnsupportedTypeError),
    "subclass of str": (lambda s: s.__setitem__("x", Name("a")), UnsupportedTypeError),
    "function": (lambda s: s.__setitem__("x", len), UnsupportedTypeError),
    "lone surrogate": (lambda s: s.__setitem__("x", "\ud800"), UnsupportedValueError),
    "lone surrogate in a key": (lambda s: s.__setitem__("\udfff", 1), UnsupportedValueError),
    "cyclic": (lambda s: s.__setitem__("x", CYCLE), UnsupportedValueError),
    "cyclic, appended": (lambda s: s["l"].append(CYCLE), UnsupportedValueError),
    "too deep": (lambda s: s.__setitem__("x", DEEP), UnsupportedValueError),
    "too deep where it is": (lambda s: s["d"]["sub"].__setitem__("x", nested(99)),
                             UnsupportedValueError),
    "key NaN": (lambda s: s.__setitem__(math.nan, 1), UnsupportedValueError),
    "key tuple": (lambda s: s.__setitem__((1,), 1), UnsupportedTypeError),
    "key unhashable": (lambda s: s.__setitem__([], 1), TypeError),
    "setdefault refused": (lambda s: s.setdefault("x", object()), TypeError),
    "attribute that is a method": (lambda s: setattr(s, "items", 1), ReservedNameError),
    "attribute that is a method below": (lambda s: setattr(s["d"], "pop", 1), ReservedNameError),
    "attribute of our own API": (lambda s: setattr(s, "transaction", 1), ReservedNameError),
    "arithmetic": (lambda s: s.__setitem__("n", s["n"] + "1"), TypeError),
    "close in a transaction": (lambda s: (s.transaction().__enter__(), s.close()), TransactionError),
    "transaction that raises": (refuse_in_transaction, ZeroDivisionError),
}  # fmt: skip


@pytest.mark.parametrize("name", [name for name in REFUSED if name != "close in a transaction"])
def test_what_is_refused_leaves_no_byte_and_no_trace(name: str, tmp_path: Path) -> None:
    """In memory and in the file; in a transaction, all else of it stays."""
    operation, error = REFUSED[name]
    path = tmp_path / "state.yaml"
    state = start(path)
    state["n"] = 1
    before, data, order = state.snapshot(), path.read_bytes(), list(state)
    with pytest.raises(error):
        operation(state)
    assert data == path.read_bytes()
    assert same(before, state.snapshot())
    assert order == list(state)
    assert same(before, peek(path))

    if not name.startswith("transaction"):
        with state.transaction():
            state["first"] = 1
            with pytest.raises(error):
                operation(state)
            assert data == path.read_bytes()
            assert same({**before, "first": 1}, state.snapshot())
        assert same({**before, "first": 1}, replayed(path.read_bytes()))
    state.close()


def test_what_is_refused_on_a_file_without_a_journal_writes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "state.yaml"
    start(path).close()
    data = path.read_bytes()
    for name, (operation, error) in REFUSED.items():
        state = PersistedState(path)
        if name == "close in a transaction":
            with pytest.raises(error), state.transaction():
                state.close()
        else:
            with pytest.raises(error):
                operation(state)
        assert data == path.read_bytes(), name
        state.close()
        assert data == path.read_bytes(), name


def test_refused_defaults_leave_no_file(tmp_path: Path) -> None:
    path = tmp_path / "state.yaml"
    with pytest.raises(TypeError):
        PersistedState(path, a=1, b=object())
    assert os.listdir(tmp_path) == []


def roll_back(state: PersistedState) -> None:
    with state.transaction() as transaction:
        state["n"] = 9
        transaction.rollback()


NO_CHANGE: dict[str, Callable[[Any], object]] = {
    "discard missing member": lambda s: s["s"].discard(9),
    "update with nothing": lambda s: s.update(),
    "extend by nothing": lambda s: s["l"].extend([]),
    "pop with default": lambda s: s["d"].pop("x", None),
    "setdefault present": lambda s: s.setdefault("n", 5),
    "empty transaction": lambda s: s.transaction()(lambda: None)(),
    "rolled back transaction": roll_back,
    "clear of what is empty": lambda s: s["d"]["sub"].clear(),
}


@pytest.mark.parametrize("name", NO_CHANGE)
def test_what_changes_nothing_writes_nothing(name: str, tmp_path: Path) -> None:
    path = tmp_path / "state.yaml"
    state = start(path)
    before, data = state.snapshot(), path.read_bytes()
    NO_CHANGE[name](state)
    assert (data, before) == (path.read_bytes(), state.snapshot())
    state.close()


def test_one_call_is_one_record_however_many_elements_it_touches(tmp_path: Path) -> None:
    path = tmp_path / "state.yaml"
    state = start(path)
    for call in (
        lambda: state["l"].extend(range(50)),
        state["l"].sort,
        state["l"].reverse,
        lambda: state["l"].__delitem__(slice(None, None, 3)),
        lambda: state["l"].__setitem__(slice(None, None, 2), [0] * len(state["l"][::2])),
        lambda: state["l"].__imul__(2),
        lambda: state.update(a=1, b=2, c=3),
        lambda: state["s"].update(range(50)),
        lambda: state["s"].symmetric_difference_update({1, 100}),
        lambda: state["s"].intersection_update({1, 100, 7}),
        state["l"].clear,
        state["d"].clear,
        state.popitem,
    ):
        records = path.read_bytes().count(b"\n--- ")
        call()
        assert path.read_bytes().count(b"\n--- ") == records + 1
        assert same(state.snapshot(), replayed(path.read_bytes()))
    state.close()


def test_a_write_that_fails_rolls_a_whole_transaction_back(tmp_path: Path) -> None:
    path = tmp_path / "state.yaml"
    start(path).close()
    fs = Failing()
    state = PersistedState.open(path, fs=fs)
    held = state["d"]["sub"]
    for _ in range(2):
        before, data = state.snapshot(), path.read_bytes()
        fs.failing = {"write"}
        with pytest.raises(WriteError), state.transaction():
            state["l"].append(1)
            state["d"]["sub"]["x"] = [1]
            state["l"].sort()
            with state.transaction():
                state["s"].clear()
                del state["d"]
        fs.failing = set()
        assert (before, data) == (state.snapshot(), path.read_bytes())
        held["n"] = before["d"]["sub"].get("n", 0) + 1  # a reference from before is still good
        assert state["d"]["sub"]["n"] == held["n"]
        assert same(state.snapshot(), peek(path))
    state.close()


# ------------------------------------------------------------------ golden files


def golden() -> dict[str, Any]:
    return yaml.safe_load(GOLDEN.joinpath("expected.yml").read_bytes())  # type: ignore[no-any-return]


@pytest.mark.parametrize("name", sorted(golden()))
def test_files_of_format_1_are_read_as_they_were_written(name: str, tmp_path: Path) -> None:
    """Every later version reads them, or says why not; the script beside them tells how they were made."""
    expected = golden()[name]
    data = GOLDEN.joinpath(name).read_bytes()
    path = tmp_path / "state.yaml"
    path.write_bytes(data)
    if "error" in expected:
        with pytest.raises(getattr(errors, expected["error"])):
            PersistedState.open(path)
        assert data == path.read_bytes()
        return
    assert same(expected["state"], peek(path))
    state = PersistedState.open(path)
    assert same(expected["state"], state.snapshot())
    state["after"] = 1
    assert same({**expected["state"], "after": 1}, peek(path))
    state.close()
    assert same({**expected["state"], "after": 1}, plain_document(path.read_bytes()))


def test_golden_files_are_complete() -> None:
    assert {path.name for path in GOLDEN.glob("*.yaml")} == set(golden())


def test_the_package_says_its_version() -> None:
    assert isinstance(pstate.__version__, str)


def test_a_child_that_dies_leaves_its_commits(tmp_path: Path) -> None:
    """The plainest case, without any double."""
    path = tmp_path / "state.yaml"

    def work() -> None:
        state = PersistedState(path, n=0)
        for _ in range(5):
            state["n"] += 1
        with state.transaction():
            state["n"] = 100
            os._exit(0)

    assert in_child(work) == 0
    assert opened(path.read_bytes(), tmp_path) == {"n": 5}
