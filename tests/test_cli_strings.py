"""env, ini and csv, which know only strings: what comes back, what is refused, and what a shell makes of it."""

from __future__ import annotations

import configparser
import csv
import datetime as dt
import io
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tools.cli import Run, run

from pstate import PersistedState
from pstate.cli.transfer import plain, targets, texts
from pstate.cli.transfer.departure import WORDS, Departure
from pstate.cli.transfer.faults import LEFT_OUT
from pstate.values import same

__all__ = ["run"]

FORMATS = list(texts.OF_STRINGS)


def write(file: str, value: dict[Any, Any]) -> None:
    with PersistedState(file) as opened:
        opened.update(value)


def state(file: str = "new.yaml") -> dict[Any, Any]:
    with PersistedState.open(file, read_only=True) as opened:
        return opened.snapshot()


# ------------------------------------------------------------------------------------------------- there and back again

SCALARS: dict[str, Any] = {
    "int": -3,
    "float": 1.5,
    "large": 1e16,
    "yes": True,
    "day": dt.date(2026, 11, 23),
    "time": dt.datetime(2026, 11, 23, 9, 5, tzinfo=dt.UTC),
    "word": "wash",
    "empty": "",
    "spaces": "two words",
    "unicode": "naïve 😀",
    "version": "1.10",
    "octal": "007",
    "exponent": "1e5",
    "norway": "no",
    "null_word": "null",
}
NUMBER_LIKE: dict[str, Any] = {"digits": "8080", "true_word": "true", "date_word": "2026-11-23", "minus": "-1.5"}
ODD: dict[str, Any] = {
    "quote": "it's",
    "double": 'say "hi"',
    "both": 'it\'s "$HOME" `id` \\',
    "dollar": "$HOME",
    "newline": "a\nb\n",
    "return": "a\r\nb",
    "hash": "#no # comment",
    "tilde": "~/x:~",
    "blanks": "  x  ",
    "glob": "*.py [a] {b,c} !x & ; |",
    "ends": "back\\",
}
VALUES: dict[str, Any] = {
    "env": {**SCALARS, **NUMBER_LIKE, **ODD},
    "ini": {
        "one": {**SCALARS, "none": None, "Two Words": "a\n\nb", "%": "%(x)s"},
        "DEFAULT": {"k": "v"},
        "no keys": {},
    },
    "csv": [
        {**SCALARS, **NUMBER_LIKE, **ODD, "none": None, 'a "key", odd\n': 1},
        dict.fromkeys((*SCALARS, *NUMBER_LIKE, *ODD, "none", 'a "key", odd\n')),
    ],
}


@pytest.mark.parametrize("format_", FORMATS)
def test_what_goes_out_comes_back(run: Run, format_: str) -> None:
    write("from.yaml", {"x": VALUES[format_]})

    assert (0, "", "") == run("export", "from.yaml", f"out.{format_}", "--only", "x")
    assert (0, "", "") == run("import", f"out.{format_}", "new.yaml", "--into", "x")
    assert same({"x": VALUES[format_]}, state())


strings = st.text(st.characters(exclude_categories=["Cs"]))
near = st.text("ab=:#;[]\"' \\\n\r\t$`~,.-0123456789etf", max_size=8)
zones = st.none() | st.integers(-1439, 1439).map(lambda minutes: dt.timezone(dt.timedelta(minutes=minutes)))
scalars = (
    strings | near | st.none() | st.booleans() | st.integers() | st.floats() | st.dates()
    | st.datetimes(timezones=zones) | st.integers().map(str) | st.floats().map(str) | st.dates().map(str)
)  # fmt: skip
TREES: dict[str, Any] = {
    "env": st.dictionaries(st.from_regex("[A-Za-z_][A-Za-z0-9_]*", fullmatch=True) | near, scalars, max_size=6),
    "ini": st.dictionaries(strings | near, st.dictionaries(strings | near, scalars, max_size=4), max_size=3),
    "csv": st.lists(st.sampled_from("abc"), unique=True).flatmap(
        lambda keys: st.lists(st.fixed_dictionaries(dict.fromkeys(keys, scalars)), max_size=4)
    ) | st.lists(st.dictionaries(strings | near, scalars, max_size=2), max_size=2),
}  # fmt: skip


@pytest.mark.parametrize("format_", FORMATS)
def test_whatever_is_not_refused_comes_back(format_: str) -> None:
    @settings(max_examples=300, deadline=None)
    @given(TREES[format_])
    def there_and_back(value: Any) -> None:
        departure = Departure(WORDS[format_])
        tree = departure.tree(value)
        if tree is LEFT_OUT or any(WORDS[format_].gaps(tree)) or tree == [{}] * len(tree):
            assert departure.faults.count or tree == {}
            return

        back = texts.READERS[format_](targets.TEXTS[format_](tree), "out")

        assert same(tree, back)
        assert departure.faults.count or same(value, back)

    there_and_back()


@given(strings | near | st.integers().map(str) | st.floats().map(repr) | st.datetimes(timezones=zones).map(str))
def test_text_is_another_value_only_if_that_changes_no_character(text: str) -> None:
    value = plain.value_of(text)

    assert text == plain.text_of(value)


@pytest.mark.parametrize("shell", ["sh", "bash"])
def test_a_shell_sources_env(run: Run, shell: str) -> None:
    write("from.yaml", VALUES["env"])
    assert 0 == run("export", "from.yaml", ".env").code

    script = "set -e; . ./.env; " + "".join(f'printf "%s\\0" "${name}"; ' for name in VALUES["env"])
    done = subprocess.run([shell, "-c", script], env={"HOME": "/root"}, capture_output=True, check=False)

    assert (0, b"") == (done.returncode, done.stderr)
    assert [plain.text_of(value) for value in VALUES["env"].values()] == done.stdout.decode().split("\0")[:-1]


@pytest.mark.parametrize("shell", ["sh", "bash"])
def test_an_import_reads_env_as_a_shell_does(run: Run, tmp_path: Path, shell: str) -> None:
    @settings(max_examples=60, deadline=None)
    @given(st.lists(st.text("ab=:#\"' \\\n\t.0", max_size=10), min_size=1, max_size=4))
    def as_a_shell(values: list[str]) -> None:
        data = "".join(f"K{number}={value}\n" for number, value in enumerate(values))
        try:
            found = texts.OF_STRINGS["env"](data.encode(), "x", False)
        except texts.BadSource:
            return  # what a shell makes of it, such as a command, is not an assignment
        script = "set -e; . ./x; " + "".join(f'printf "%s\\0" "${name}"; ' for name in found)
        Path("x").write_text(data)
        done = subprocess.run([shell, "-c", script], env={}, capture_output=True, check=False)
        assert (0, b"") == (done.returncode, done.stderr)
        assert list(found.values()) == done.stdout.decode().split("\0")[:-1]

    as_a_shell()


def test_other_programs_read_ini_and_csv(run: Run) -> None:
    write(
        "from.yaml",
        {"ini": {"A b": {"Key": "x\ny", "n": 3}}, "csv": [{"name": 'a "b"\nc', "n": 3}, {"name": "", "n": None}]},
    )

    ini = run("export", "from.yaml", "--to", "ini", "--only", "ini").out
    parser = configparser.ConfigParser()
    parser.read_string(ini)
    assert {"key": "x\ny", "n": "3"} == dict(parser["A b"])
    rows = run("export", "from.yaml", "--to", "csv", "--only", "csv").out
    assert [{"name": 'a "b"\nc', "n": "3"}, {"name": "", "n": ""}] == list(csv.DictReader(io.StringIO(rows)))


def test_what_pythons_csv_module_writes_is_read(run: Run) -> None:
    with open("x.csv", "w", newline="", encoding="utf-8-sig") as file:
        csv.writer(file).writerows([["id", "a,b", "when"], [1, "x\ny", "2026-11-23"], [2, 'q"', ""]])

    assert 0 == run("import", "x.csv", "new.yaml", "--into", "rows").code
    day = dt.date(2026, 11, 23)
    assert [{"id": 1, "a,b": "x\ny", "when": day}, {"id": 2, "a,b": 'q"', "when": None}] == state()["rows"]


# ------------------------------------------------------------------------------------------------------------ the types


def test_types_are_decided_on_import(run: Run) -> None:
    Path(".env").write_text(
        "export PORT=8080 # here\n\n  # no\nNAME='8080'\nV=1.10\nE=\nT=true\nN=null\nA=a\\ b\nQ=\"a\\$b\\n\"\n"
    )

    assert (0, "", "") == run("import", ".env", "new.yaml")
    expected = {"PORT": 8080, "NAME": "8080", "V": "1.10", "E": "", "T": True, "N": "null", "A": "a b", "Q": "a$b\\n"}
    assert same(expected, state())
    assert (0, "", "") == run("import", ".env", "new.yaml", "--string", "--replace")
    assert same({**expected, "PORT": "8080", "T": "true"}, state())


def test_a_column_is_of_strings_if_one_of_its_fields_would_change(run: Run) -> None:
    """Else of two prices one would be a number, and the other a string."""
    Path("x.csv").write_text('price,zip,n,flag,gone\n12.75,01234,1,true,\n12.50,98765,"2",false,\n')

    assert 0 == run("import", "x.csv", "new.yaml", "--into", "x").code
    assert [
        {"price": "12.75", "zip": "01234", "n": 1, "flag": True, "gone": None},
        {"price": "12.50", "zip": "98765", "n": "2", "flag": False, "gone": None},
    ] == state()["x"]
    assert 0 == run("import", "x.csv", "new.yaml", "--into", "x", "--string", "--replace").code
    assert {"price": "12.75", "zip": "01234", "n": "1", "flag": "true", "gone": ""} == state()["x"][0]


@pytest.mark.parametrize("name", [".env", "x.env", ".env.local", "X.ENV", "x.ini", "x.csv"])
def test_the_name_says_the_format(run: Run, name: str) -> None:
    Path(name).write_text({"x.ini": "[s]\nk = 1\n", "x.csv": "k\n1\n"}.get(name, "k=1\n"))

    assert 0 == run("import", name, "new.yaml", "--into", "x").code
    assert state()["x"] in ({"k": 1}, {"s": {"k": 1}}, [{"k": 1}])


@pytest.mark.parametrize("format_", FORMATS)
def test_a_byte_order_mark_and_the_line_ends_of_windows_are_no_part_of_values(run: Run, format_: str) -> None:
    text = {"env": 'A=1\nB="x"\n\n# c\nC=y # d\n', "ini": "[A]\nb = 1\nc\n# d\n\n", "csv": 'a,b\n1,"x"\n\n2,y\n'}[
        format_
    ]
    reader = texts.READERS[format_]

    assert reader(text.encode(), "x") == reader(b"\xef\xbb\xbf" + text.replace("\n", "\r\n").encode(), "x")


@pytest.mark.parametrize("words", [["x.json", "--string"], ["x.yaml", "--string"], ["cache", "--string"]])
def test_strings_are_asked_for_only_where_types_are_decided(run: Run, words: list[str]) -> None:
    import diskcache

    Path("x.json").write_text("{}")
    Path("x.yaml").write_text("{}")
    diskcache.Cache("cache").close()

    code, _, err = run("import", *words, "new.yaml")
    assert (2, True) == (code, "--string is for env, ini and csv only" in err)
    assert not Path("new.yaml").exists()


# ------------------------------------------------------------------------------------------------------ what is refused

BAD = {
    "env": {
        "A=1\nA=2\n": "x:2:1: A is assigned twice; the first time is in line 1",
        "A=1\n 2B=1\n": "x:2:2: '2B=1' is not KEY=value",
        "A = 1\n": "x:1:1: 'A = 1' is not KEY=value",
        "export A\n": "x:1:1: 'export A' is not KEY=value",
        "Ä=1\n": "x:1:1: 'Ä=1' is not KEY=value",
        "A+=1\n": "x:1:1: 'A+=1' is not KEY=value",
        "=1\n": "x:1:1: '=1' is not KEY=value",
        "A=hello world\n": "x:1:8: a shell ends the value before this ' '. Put the value in quotes",
        "A=a;b\n": "x:1:4: a shell ends the value before this ';'",
        "A=$HOME\n": "x:1:3: a shell expands $ here",
        'A=1\nB="x\ny${C}"\n': "x:3:2: a shell expands $ here",
        "A=`id`\n": "x:1:3: a shell expands ` here",
        "A=~/x\n": "x:1:3: a shell expands ~ here",
        "A=x:~\n": "x:1:5: a shell expands ~ here",
        "A='x\ny\n": "x:1:3: unterminated quote",
        'A="x\n': "x:1:3: unterminated quote",
        "A=\\": "x:1:3: a backslash at the end of the file",
        "A=a\rb\n": "x:1:4: a carriage return outside quotes",
        "A=\0é\udcff": "x:1:5: this is not UTF-8",
    },
    "ini": {
        "a = 1\n": "x:1:1: a [section] must come first",
        "[a]\nb = 1\n[a]\n": "x:3:1: the section 'a' exists already",
        "[a]\nb = 1\nb = 2\n": "x:3:1: the key 'b' exists already in the section 'a'",
        "[a]\n= 1\n": "x:2:1: not a section, a key, or the next line of a value",
        "[a]\nb\n  c\n": "x:3:1: not a section, a key, or the next line of a value",
    },
    "csv": {
        "": "x:1:1: a row with the names of the columns must come first",
        "a,b,a\n": "x:1:1: two columns have the name 'a'",
        "a,b\n1\n": "x:2:1: this row has 1 fields, and the first one has 2",
        "a,b\n1,2\n1,2,3\n": "x:3:1: this row has 3 fields, and the first one has 2",
        'a,b\n"x\ny",2\n"1,2\n': "x:4:1: unterminated quote",
        'a,b\n1,x"y\n': "x:2:4: a quote in a field that does not begin with one",
        'a,b\n"x"y,2\n': "x:2:4: text follows the closing quote of a field",
    },
}  # fmt: skip


@pytest.mark.parametrize(
    ("format_", "content"), [(format_, content) for format_ in FORMATS for content in BAD[format_]]
)
def test_a_source_that_is_wrong_is_an_error_with_its_place(run: Run, format_: str, content: str) -> None:
    Path("x").write_bytes(content.encode("utf-8", "surrogateescape"))

    code, out, err = run("import", "x", "new.yaml", "--from", format_, "--into", "x")

    assert (3, "") == (code, out)
    assert err.startswith(f"pstate: {BAD[format_][content]}")
    assert err.endswith("Nothing was changed. Correct the source.\n")
    assert not Path("new.yaml").exists()


WRONG: dict[str, Any] = {
    "env": {
        "a-b": 1, "1a": 1, "": 1, "ä": 1, "k=": 1, 5: 1, "none": None, "list": [1], "map": {"a": 1}, "set": {1},
        "b": b"x", "nul": "a\0b", "inf": float("inf"), "huge": 10**700, "good": 1,
    },
    "ini": {
        "top": 1, "": {}, "a\nb": {}, 5: {}, "s": {
            "": 1, "a=b": 1, "a:b": 1, "#c": 1, ";c": 1, "[d]": 1, " e": 1, "f\n": 1, 6: 1, "digits": "8080",
            "word": "true", "lead": " x", "trail": "x\n", "inner": "a\n b", "comment": "a\n#b", "map": {"a": 1},
            "list": [1], "nan": float("nan"), "good": "x",
        },
    },
    "csv": [
        {"a": 1, "b": [1]}, {"a": {"x": 1}, "b": 2}, {"a": {1}, "b": b"x"}, 5, [1], {"a": float("inf"), "b": 10**700},
        {"a": 1, "b": 1, 5: 5},
    ],
}  # fmt: skip
PLACES = {
    "env": {"a-b", '["1a"]', '[""]', '["ä"]', '["k="]', "[5]", "none", "list", "map", "set", "b", "nul", "inf", "huge"},
    "ini": {
        "top", '[""]', '["a\\nb"]', "[5]", 's[""]', 's["a=b"]', 's["a:b"]', 's["#c"]', 's[";c"]', 's["[d]"]', 's[" e"]',
        's["f\\n"]', "s[6]", "s.digits", "s.word", "s.lead", "s.trail", "s.inner", "s.comment", "s.map", "s.list",
        "s.nan",
    },
    "csv": {"[0].b", "[1].a", "[2].a", "[2].b", "[3]", "[4]", "[5].a", "[5].b", "[6][5]"},
}  # fmt: skip


@pytest.mark.parametrize("format_", FORMATS)
def test_each_place_without_a_word_is_named_and_nothing_is_written(
    run: Run, monkeypatch: pytest.MonkeyPatch, format_: str
) -> None:
    monkeypatch.setattr("pstate.cli.transfer.faults.SHOWN", 100)
    write("from.yaml", {"x": WRONG[format_]})
    words = ("export", "from.yaml", f"out.{format_}", "--only", "x")

    code, out, err = run(*words)

    assert (1, "") == (code, out)
    places = {line.strip().split(": ", 1)[0] for line in err.splitlines() if line.startswith("  ")}
    assert {f"x.{place}".replace("x.[", "x[") for place in PLACES[format_]} == places
    assert not Path(f"out.{format_}").exists()
    assert 0 == run(*words, "--skip-unsupported").code
    assert 0 == run("import", f"out.{format_}", "new.yaml", "--into", "x").code
    good = {
        "env": {"good": 1},
        "ini": {"s": {"good": "x"}},
        "csv": [{"a": 1, "b": None}, {"a": None, "b": 2}, *[{"a": None, "b": None}] * 2, {"a": 1, "b": 1}],
    }
    assert same(good[format_], state()["x"])


def test_rows_without_a_key_are_named(run: Run) -> None:
    write("from.yaml", {"x": [{"a": 1}, {"b": 2}]})

    err = run("export", "from.yaml", "--to", "csv", "--only", "x").err
    assert "  x[0].b: is missing, and would come back as null\n  x[1].a: is missing" in err
    assert "a,b\n1,\n,2\n" == run("export", "from.yaml", "--to", "csv", "--only", "x", "--skip-unsupported").out


@pytest.mark.parametrize("value", [{"a": 1}, 5, [], [{}]])
def test_csv_wants_a_list_of_mappings(run: Run, value: Any) -> None:
    write("from.yaml", {"x": value})

    code, out, err = run("export", "from.yaml", "--to", "csv", "--only", "x", "--skip-unsupported")
    assert (1, "", True) == (code, out, "x: CSV " in err)


def test_in_a_single_column_an_empty_line_is_null(run: Run) -> None:
    write("from.yaml", {"x": [{"a": None}, {"a": ""}, {"a": 1}]})

    assert 'a\n\n""\n1\n' == run("export", "from.yaml", "--to", "csv", "--only", "x").out


# ----------------------------------------------------------------------------------------------------------- the target


@pytest.mark.parametrize("format_", FORMATS)
def test_a_disk_that_is_full_leaves_the_target_as_it_was(run: Run, format_: str) -> None:
    write("from.yaml", {"x": VALUES[format_]})
    target = Path(f"out.{format_}")
    target.write_text("mine")
    there = set(os.listdir())

    def full(tree: Any) -> bytes:
        raise OSError(28, os.strerror(28))

    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(targets.TEXTS, format_, full)
        code, out, err = run("export", "from.yaml", str(target), "--only", "x", "--force")
    assert (5, "", True) == (code, out, "No space left on device" in err)
    assert ("mine", there) == (target.read_text(), set(os.listdir()))


def test_a_large_table_is_read_in_reasonable_time(run: Run) -> None:
    """Each field costs about the same, whatever there is of them."""
    Path("x.csv").write_text("a,b,c\n" + '1,"x ""y""",2026-11-23\n' * 100_000)

    assert 0 == run("import", "x.csv", "new.yaml", "--into", "x").code
    assert 100_000 == len(state()["x"])
