"""Paths: what is printed is read back, and what is read leads there."""

from __future__ import annotations

from datetime import date
from typing import Any

import pytest
import yaml
from hypothesis import example, given
from hypothesis import strategies as st

from pstate.cli import paths, values
from pstate.cli.command import Usage
from pstate.cli.surprises import surprise
from pstate.values import same

TEXTS = st.text(st.characters(exclude_categories=["Cs"]))
KEYS = st.one_of(
    TEXTS,
    st.integers(),
    st.booleans(),
    st.none(),
    st.floats(allow_nan=False),
    st.binary(),
    st.dates(),
    st.datetimes(),
)


@given(st.lists(KEYS))
@example(["a.b", "", " ", '"', "'", "\\", "]", "[", "\n", "-", "3", "yes", "ä"])
@example([-1, True, None, float("inf"), -0.0, b"", 10**700])
def test_what_is_shown_is_read_back(path: list[Any]) -> None:
    read = paths.parse(paths.show(path))

    assert len(path) == len(read)
    assert all(map(same, path, read)), paths.show(path)


@pytest.mark.parametrize(
    ("text", "path"),
    [
        (".", []),
        ("a", ["a"]),
        ("a.b.c", ["a", "b", "c"]),
        ("jobs[3].name", ["jobs", 3, "name"]),
        ("jobs[-1]", ["jobs", -1]),
        ("jobs[ 3 ]", ["jobs", 3]),
        ('jobs[3]["odd key"]', ["jobs", 3, "odd key"]),
        ("jobs['it''s']", None),
        (r"['it\'s']", ["it's"]),
        (r'["\x41"]', ["A"]),
        ('["a]b"]', ["a]b"]),
        ("a-b.c_d.3", ["a-b", "c_d", "3"]),
        ("ключ", ["ключ"]),
        ("[true][null][1.5][2026-01-02]", [True, None, 1.5, date(2026, 1, 2)]),
        ("[!!str 3]", ["3"]),
    ],
)
def test_what_people_write_is_read(text: str, path: list[Any] | None) -> None:
    if path is None:
        with pytest.raises(Usage):
            paths.parse(text)
    else:
        assert path == paths.parse(text)


@pytest.mark.parametrize(
    ("text", "value", "sentence"),
    [
        ("yes", True, "yes is read as true"),
        ("Off", False, "Off is read as false"),
        ("010", 8, "010 is read as 8, an octal number"),
        ("12:30", 750, "12:30 is read as 750, in base 60"),
        ("1:30.5", 90.5, "1:30.5 is read as 90.5, in base 60"),
        ("1_000", 1000, "1_000 is read as 1000"),
        ("2026-01-02", date(2026, 1, 2), "2026-01-02 is read as a date"),
        ("1e5", "1e5", "1e5 is read as a string, not as a number; write 100000.0"),
        ("0o17", "0o17", "0o17 is read as a string, not as a number; write 15"),
        ("08", "08", "08 is read as a string, not as a number; write 8"),
        ("NaN", "NaN", "NaN is read as a string, not as a number; write .nan"),
        ("y", "y", "y is read as a string, and by some other loaders as a boolean"),
        ("None", "None", "None is read as a string; write null"),
    ],
)
def test_surprises_are_told(text: str, value: Any, sentence: str) -> None:
    assert same(yaml.safe_load(text), value)
    found = surprise(text, value)
    assert found is not None
    assert found.sentence.startswith(sentence)


@pytest.mark.parametrize(
    ("text", "value"),
    [("true", True), ("0", 0), ("-7", -7), ("0x1F", 31), ("1.5", 1.5), ("null", None), ("~", None), ("words", "words")],
)
def test_what_is_as_it_looks_is_no_surprise(text: str, value: Any) -> None:
    assert surprise(text, value) is None


@given(st.from_regex(values.SIMPLE, fullmatch=True))
@example("a: b")
@example("1: [2]")
@example("-5")
@example("yes")
@example("1e5 ")
@example("a - b")
@example("x:")
def test_a_simple_value_is_what_a_yaml_loader_makes_of_it(text: str) -> None:
    try:
        expected = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, AttributeError):
        return  # what PyYAML cannot read, we refuse, or read better
    try:
        read = values.parse(text, False)
    except Usage:
        assert not isinstance(expected, str | int | float | bool | None)
    else:
        assert same(expected, read)
