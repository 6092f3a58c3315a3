"""What the commands that write say about a VALUE that is stored otherwise than it was typed; and what they read."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from tools.cli import Run, run

from pstate import PersistedState

__all__ = ["run"]

HUGE = 10**5000 + 7
DECIMAL = "1" + "0" * 4999 + "7"


def state(file: str = "state.yaml") -> dict[Any, Any]:
    with PersistedState.open(file, read_only=True) as opened:
        return opened.snapshot()


STORED = [
    ("12:30", 750, "12:30 is stored as 750"),
    ("no", False, "no is stored as false"),
    ("On", True, "On is stored as true"),
    ("1.10", 1.1, "1.10 is stored as 1.1"),
    ("01234", 668, "01234 is stored as 668"),
    ("+5", 5, "+5 is stored as 5"),
    ("0x1F", 31, "0x1F is stored as 31"),
    ("~", None, "~ is stored as null"),
    ("---", None, "--- is stored as null"),
    ("|", "", '| is stored as ""'),
    ("a # b", "a", 'a # b is stored as "a"'),
    ("1 # one", 1, "1 # one is stored as 1"),
    ('"a" # b', "a", '"a" # b is stored as "a"'),
    ("[a] # b", ["a"], '[a] # b is stored as a list, ["a"]'),
    (" a ", "a", ' a  is stored as "a"'),
    ("a\nb", "a b", "'a\\nb' is stored as \"a b\""),
    ("&a b", "b", '&a b is stored as "b"'),
    ("error: x", {"error": "x"}, 'error: x is stored as a mapping, {"error": "x"}'),
    ("C:", {"C": None}, 'C: is stored as a mapping, {"C": null}'),
    ("- a", ["a"], '- a is stored as a list, ["a"]'),
    ("{mode: no}", {"mode": False}, "no is read as false; quote it"),
    ("[1.10, 12:30]", [1.1, 750], "1.10 is read as 1.1; quote it"),
    ("1e5", "1e5", "1e5 is read as a string, not as a number"),
    ("None", "None", "None is read as a string"),
]
AS_TYPED = [
    "a", "it's", "a, b", "http://x", "a#b", "0", "7", "-7", "1.5", "-0.0", "1.0", "true", "True", "null", "NULL",
    ".inf", ".NaN", "y", "'no'", '"1.10"', "!!str no", "!!int '5'", "[a, 1, true]", "{a: 1}", "a: 1\nb: 2", "|\n a",
]  # fmt: skip


@pytest.mark.parametrize(("typed", "value", "said"), STORED)
def test_a_value_that_is_stored_otherwise_is_told(run: Run, typed: str, value: Any, said: str) -> None:
    code, out, err = run("set", "state.yaml", "x", "--", typed)

    assert (0, "") == (code, out)
    assert value == state()["x"]
    assert type(value) is type(state()["x"])
    assert err.startswith(f"pstate: {said}")


@pytest.mark.parametrize("typed", AS_TYPED)
def test_a_value_that_is_stored_as_it_was_typed_is_not_told(run: Run, typed: str) -> None:
    assert (0, "", "") == run("set", "state.yaml", "x", "--", typed)


@pytest.mark.parametrize("typed", [typed for typed, _, _ in STORED])
def test_a_string_is_stored_as_it_was_typed(run: Run, typed: str) -> None:
    assert (0, "", "") == run("set", "state.yaml", "x", "--string", "--", typed)
    assert typed == state()["x"]


def test_every_command_that_stores_a_value_tells(run: Run) -> None:
    told = "pstate: no is stored as false. To store the string: --string\n"

    assert told == run("set", "state.yaml", "x", "no").err
    assert told == run("set", "state.yaml", "x", "-", stdin="no\n").err
    assert told == run("append", "state.yaml", "list", "a", "no").err
    assert told == run("add", "state.yaml", "seen", "a", "no").err
    assert "pstate: 010 is read as 8.\n" == run("incr", "state.yaml", "counter", "010").err
    script = "set x no\n# a comment\nappend list no 'a # b'\nset y no --string\nincr counter\n"
    code, out, err = run("apply", "state.yaml", stdin=script)

    assert (0, "12\n") == (code, out)
    assert [
        "pstate: script:1: no is stored as false. To store the string: --string",
        "pstate: script:3: no is stored as false. To store the string: --string",
        'pstate: script:3: a # b is stored as "a". To store the string: --string',
    ] == err.splitlines()


def test_what_is_refused_was_not_stored_and_is_not_told(run: Run) -> None:
    assert (
        "pstate: state.yaml: counter is 3, not false. Nothing was changed.\n"
        == run("set", "state.yaml", "counter", "no", "--if-equals", "no").err
    )
    assert "is stored" not in run("apply", "state.yaml", stdin="set x no\nset jobs[9] no\n").err


def test_standard_input_is_read_once(run: Run) -> None:
    for words, first in [
        (("append", "state.yaml", "list", "-s", "-", "-"), "VALUE"),
        (("set", "state.yaml", "x", "-s", "-", "--if-equals", "-"), "VALUE"),
    ]:
        code, out, err = run(*words, stdin="wash")
        assert (2, "") == (code, out)
        assert f" is -, but standard input was already read for {first}. Nothing was done." in err
    code, _, err = run("apply", "state.yaml", stdin="set x -s -")
    assert 2 == code
    assert err.startswith("pstate: script:1: VALUE is -, but standard input was already read for SCRIPT")
    assert "x" not in state()


def test_delete_compares_strings(run: Run) -> None:
    run("set", "state.yaml", "answer", "no", "--string")

    code, _, err = run("delete", "state.yaml", "answer", "--if-equals", "no")
    assert (1, 'pstate: state.yaml: answer is "no", not false. Nothing was changed.\n') == (code, err)
    assert (0, "", "") == run("delete", "state.yaml", "answer", "--if-equals", "no", "--string")
    assert "answer" not in state()
    run("set", "state.yaml", "answer", "no", "--string")
    assert (0, "", "") == run("apply", "state.yaml", stdin="delete answer -s --if-equals no\n")


# ------------------------------------------------------------------------------------------------------- long integers


@pytest.fixture
def huge(run: Run) -> Run:
    """Files with an integer of more than 4,300 digits: as a value, as a key, in a list, in a record."""
    with PersistedState("huge.yaml") as opened:
        opened.update({"n": HUGE, "below": [-HUGE], HUGE: "key"})
    with PersistedState("recorded.yaml", n=1) as opened:
        opened.n = HUGE
        opened.close(keep_journal=True)
    return run


def loaded(text: str) -> Any:
    before = sys.get_int_max_str_digits()
    sys.set_int_max_str_digits(0)
    try:
        return json.loads(text)
    finally:
        sys.set_int_max_str_digits(before)


def test_json_has_integers_of_any_length(huge: Run) -> None:
    before = sys.get_int_max_str_digits()

    assert {"n": HUGE, "below": [-HUGE], hex(HUGE): "key"} == loaded(huge("get", "huge.yaml", "--json").out)
    assert f"{DECIMAL}\n" == huge("get", "huge.yaml", "--json", "n").out
    assert [{"path": "n", "old": 1, "new": HUGE}] == loaded(huge("log", "recorded.yaml", "--json").out.split("\n")[1])[
        "changes"
    ]
    assert HUGE == loaded(huge("diff", "recorded.yaml", "--json").out)["new"]
    watched = huge("watch", "huge.yaml", "n", "--now", "--json", "--count", "1").out
    assert HUGE == loaded(watched)["new"]
    assert before == sys.get_int_max_str_digits()


def test_a_command_of_watch_gets_integers_of_any_length(huge: Run) -> None:
    assert 0 == huge("watch", "huge.yaml", "n", "--now", "--count", "1", "--", "sh", "-c", "cat > told").code
    assert HUGE == loaded(Path("told").read_text())["new"]


def test_integers_of_any_length_are_read(huge: Run) -> None:
    assert (0, "", "") == huge("set", "huge.yaml", "m", DECIMAL)
    assert HUGE == state("huge.yaml")["m"]
    assert (0, "", "") == huge("set", "huge.yaml", "m", "1", "--if-equals", DECIMAL)
    assert (0, f"{hex(HUGE + 1)}\n", "") == huge("incr", "huge.yaml", "m", DECIMAL)
    assert "key\n" == huge("get", "huge.yaml", f"[{DECIMAL}]").out
    assert (0, "", "") == huge("apply", "huge.yaml", stdin=f"append below {DECIMAL}\n")


def test_a_file_is_read_as_programs_read_it(run: Run) -> None:
    """Or `check` would call a file good that no program can open."""
    Path("long.yaml").write_text(f"n: {DECIMAL}\n")
    Path("long.json").write_text(f'{{"n": {DECIMAL}}}')

    assert 1 == run("check", "long.yaml").code
    assert 3 == run("get", "long.yaml").code
    code, _, err = run("import", "long.json", "new.yaml")
    assert (3, True) == (code, "the environment variable PYTHONINTMAXSTRDIGITS lifts it" in err)
    assert "sys." not in err


def test_check_tells_of_integers_of_any_length(run: Run) -> None:
    Path("long.yaml").write_text("n: 0" + "7" * 9000 + "\nt: 1" + ":20" * 4000 + "\n")

    code, out, err = run("check", "long.yaml")
    assert (0, "") == (code, err)
    assert "an octal number" in out
    assert "in base 60" in out
