"""`pstate export`: what the real packages read of it, what comes back by `pstate import`, and what is refused."""

from __future__ import annotations

import datetime as dt
import itertools
import json
import os
import shelve
import signal
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import diskcache
import persistedstate
import pickledb
import pytest
import sqlitedict
import tinydb
import yaml
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from tools.cli import FILES, Run, run

from pstate import PersistedState
from pstate.cli import main
from pstate.cli.transfer import targets, texts
from pstate.values import same

__all__ = ["run"]

#: Those of trees; test_cli_strings.py has the others, which know only strings.
FORMATS = [name for name in targets.FORMATS if name not in texts.OF_STRINGS]

#: Where a store is more than one file, or a folder, is up to it.
NAMES = {
    "json": "out.json", "toml": "out.toml", "yaml": "out.yaml", "persistedstate": "out.state", "shelve": "out.shelf",
    "sqlitedict": "out.sqlite", "diskcache": "out.cache", "pickledb": "out.db", "tinydb": "out.tiny",
}  # fmt: skip

#: sqlitedict leaves a connection to Python's collector; Python 3.13 warns about that.
pytestmark = pytest.mark.filterwarnings("ignore:.*sqlite3.Connection:pytest.PytestUnraisableExceptionWarning")


def write(file: str, value: dict[Any, Any]) -> None:
    Path(file).unlink(missing_ok=True)
    with PersistedState(file) as opened:
        opened.update(value)


def state(file: str) -> dict[Any, Any]:
    with PersistedState.open(file, read_only=True) as opened:
        return opened.snapshot()


def names() -> set[str]:
    return {path.name for path in Path().iterdir()}


# ----------------------------------------------------------------------------------------- what the packages find in it

VALUE: dict[str, Any] = {
    "n": 3,
    "big": 2**60,
    "text": "naïve\r\n 😀",
    "list": [1, [], {}, "x", 1.5],
    "map": {"a b": {"c": True}},
}
TABLES: dict[str, Any] = {"_default": {1: {"name": "wash"}, 7: {}}, "empty": {}, "hosts": {2: {"ip": [None]}}}


def read_json(path: str) -> Any:
    return json.loads(Path(path).read_bytes())


def read_toml(path: str) -> Any:
    return tomllib.loads(Path(path).read_text(encoding="utf-8"))


def read_yaml(path: str) -> Any:
    return yaml.safe_load(Path(path).read_bytes())


def read_persistedstate(path: str) -> Any:
    with persistedstate.PersistedState(path) as opened:
        return json.loads(json.dumps(opened, default=lambda o: dict(o) if hasattr(o, "keys") else list(o)))


def read_shelve(path: str) -> Any:
    with shelve.open(path, flag="r") as shelf:
        return dict(shelf)


def read_sqlitedict(path: str) -> Any:
    with sqlitedict.SqliteDict(path, flag="r") as opened:
        return dict(opened.items())


def read_diskcache(path: str) -> Any:
    with diskcache.Cache(path) as cache:
        return {key: cache[key] for key in cache}


def read_pickledb(path: str) -> Any:
    opened = pickledb.PickleDB(path)
    opened.load()
    return {key: opened.get(key) for key in opened.all()}


def read_tinydb(path: str) -> Any:
    with tinydb.TinyDB(path) as opened:
        return {
            name: {document.doc_id: dict(document) for document in opened.table(name)}
            for name in (*opened.tables(), *(["empty"] if "empty" in TABLES else []))
        }


READ: dict[str, Callable[[str], Any]] = {
    "json": read_json, "toml": read_toml, "yaml": read_yaml, "persistedstate": read_persistedstate,
    "shelve": read_shelve, "sqlitedict": read_sqlitedict, "diskcache": read_diskcache, "pickledb": read_pickledb,
    "tinydb": read_tinydb,
}  # fmt: skip


def test_every_format_is_tested() -> None:
    assert set(READ) == set(NAMES) == set(FORMATS)


@pytest.mark.parametrize("format_", FORMATS)
def test_the_package_reads_the_same_state(run: Run, format_: str) -> None:
    value = TABLES if format_ == "tinydb" else VALUE
    write("from.yaml", value)
    before = Path("from.yaml").read_bytes()
    there = names()

    assert (0, "", "") == run("export", "from.yaml", NAMES[format_], "--to", format_)
    assert before == Path("from.yaml").read_bytes()
    assert all(name.startswith(NAMES[format_]) for name in names() - there)
    assert same(value, READ[format_](NAMES[format_]))


@pytest.mark.parametrize("name", ["out.json", "out.toml", "out.yaml", "out.YML"])
def test_the_end_of_a_name_says_the_format(run: Run, name: str) -> None:
    write("from.yaml", VALUE)

    assert 0 == run("export", "from.yaml", name).code
    assert same(VALUE, READ[{"L": "yaml"}.get(name[-1], name.partition(".")[2])](name))
    code, _, err = run("export", "from.yaml", "out.db")
    assert (2, True) == (code, "Name the format with --to" in err)


def test_texts_go_to_standard_output(run: Run) -> None:
    Path("from.yaml").write_text("a: é\nb:\n  c: [1]\n")

    assert (
        '{\n  "a": "é",\n  "b": {\n    "c": [\n      1\n    ]\n  }\n}\n'
        == run("export", "from.yaml", "--to", "json").out
    )
    assert "a: é\nb:\n  c:\n    - 1\n" == run("export", "from.yaml", "-", "--to", "yaml").out
    assert {"a": "é", "b": {"c": [1]}} == tomllib.loads(run("export", "from.yaml", "--to", "toml").out)
    assert "[1]" == "".join(run("export", "from.yaml", "--to", "json", "--only", "b.c").out.split())
    assert 2 == run("export", "from.yaml", "--to", "shelve").code
    assert 2 == run("export", "from.yaml").code
    assert 1 == run("export", "from.yaml", "--to", "json", "--only", "nope").code


def test_more_than_a_cache_holds_by_default_is_kept(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(diskcache.core.DEFAULT_SETTINGS, "size_limit", 1000)
    write("from.yaml", {f"k{number}": "x" * 500 for number in range(100)})

    assert 0 == run("export", "from.yaml", "out", "--to", "diskcache").code
    assert 100 == len(read_diskcache("out"))


# ------------------------------------------------------------------------------------------------- there and back again

strings = st.text(st.characters(exclude_categories=["Cs"]))
of_64_bits = st.integers(-(2**63), 2**63 - 1)
zones = st.none() | st.integers(-1439, 1439).map(lambda minutes: dt.timezone(dt.timedelta(minutes=minutes)))
dates = st.dates() | st.datetimes(timezones=zones)
keys = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | strings | st.binary() | dates
json_scalars = st.none() | st.booleans() | of_64_bits | st.floats(allow_nan=False, allow_infinity=False) | strings
toml_scalars = st.booleans() | of_64_bits | st.floats() | strings | dates
ANY = keys | st.floats() | st.sets(keys, max_size=3)


def trees(leaves: Any, keys: Any) -> Any:
    inside = st.recursive(leaves, lambda tree: st.lists(tree, max_size=4) | st.dictionaries(keys, tree, max_size=4))
    return st.dictionaries(keys, inside, max_size=5)


STATES: dict[str, Any] = {
    "json": trees(json_scalars, strings),
    "toml": trees(toml_scalars, strings),
    "yaml": trees(ANY, keys),
    "persistedstate": trees(json_scalars, strings),
    "shelve": st.dictionaries(strings, trees(ANY, keys), max_size=4),
    "sqlitedict": st.dictionaries(strings, trees(ANY, keys), max_size=4),
    "diskcache": st.dictionaries(keys, keys | trees(ANY, keys) | st.sets(keys, max_size=3), max_size=4),
    "pickledb": trees(json_scalars, strings),
    "tinydb": st.dictionaries(
        strings, st.dictionaries(st.integers(0, 10**17), trees(json_scalars, strings), max_size=3)
    ),
}


@pytest.mark.parametrize("format_", FORMATS)
def test_what_goes_out_comes_back(tmp_path_factory: pytest.TempPathFactory, format_: str) -> None:
    """Import of export is the same state, of the same types; sometimes the packages would not say so themselves."""

    @settings(max_examples=25, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
    @given(STATES[format_])
    def there_and_back(value: dict[Any, Any]) -> None:
        folder = tmp_path_factory.mktemp("round")
        first, out, second = str(folder / "first.yaml"), str(folder / NAMES[format_]), str(folder / "second.yaml")
        write(first, value)

        code = main(["export", first, out, "--to", format_])
        assume(code == 0 or format_ != "shelve" or "" not in value)  # which the dbm of this Python may not keep
        assert 0 == code
        assert 0 == main(["import", out, second, "--from", format_, "--unsafe-pickle"])
        assert same(value, state(second))

    there_and_back()


@pytest.mark.parametrize("format_", [name for name in FORMATS if name not in ("pickledb", "persistedstate")])
def test_what_goes_out_is_recognised(run: Run, format_: str) -> None:
    value = TABLES if format_ == "tinydb" else VALUE
    write("from.yaml", value)

    assert 0 == run("export", "from.yaml", NAMES[format_], "--to", format_).code
    assert 0 == run("import", NAMES[format_], "back.yaml", "--unsafe-pickle").code
    assert same(value, state("back.yaml"))


# ------------------------------------------------------------------------------------------------------ what is refused

ODD: dict[Any, Any] = {
    "none": None,
    "bytes": b"x",
    "sets": {1},
    "day": dt.date(2026, 1, 2),
    "moment": dt.datetime(2026, 1, 2),
    "inf": [-float("inf")],
    "nan": float("nan"),
    "deep": {"er": [{1: 2}]},
    5: "key",
    "big": 2**64,
    "huge": 10**700,
    "long": "\r" * 40_000,
}
REFUSED = {
    "json": {"bytes", "sets", "day", "moment", "inf[0]", "nan", "deep.er[0][1]", "[5]", "huge"},
    "toml": {"none", "bytes", "sets", "deep.er[0][1]", "[5]", "big", "huge"},
    "yaml": set(),
    "persistedstate": {"bytes", "sets", "day", "moment", "inf[0]", "nan", "deep.er[0][1]", "[5]", "huge"},
    "shelve": {"[5]"},
    "sqlitedict": {"[5]"},
    "diskcache": {"nan", "long"},
    "pickledb": {"bytes", "sets", "day", "moment", "inf[0]", "nan", "deep.er[0][1]", "[5]", "big", "huge"},
    "tinydb": {"none", "bytes", "sets", "day", "moment", "inf", "nan", "deep.er", "[5]", "big", "huge", "long"},
}


@pytest.mark.parametrize("format_", FORMATS)
def test_each_place_without_a_word_is_named_and_nothing_is_written(run: Run, format_: str) -> None:
    write("from.yaml", ODD)
    there = names()

    code, out, err = run("export", "from.yaml", NAMES[format_], "--to", format_)
    places = {line.strip().split(": ", 1)[0] for line in err.splitlines() if line.startswith("  ")}
    assert REFUSED[format_] == places
    assert (1 if REFUSED[format_] else 0, "") == (code, out)
    if not REFUSED[format_]:
        return
    assert there == names()
    assert (0, "") == run("export", "from.yaml", NAMES[format_], "--to", format_, "--skip-unsupported")[:2]
    assert 0 == run("import", NAMES[format_], "back.yaml", "--from", format_, "--unsafe-pickle").code
    top = {key for key in ODD if f"[{key}]" not in REFUSED[format_] and key not in REFUSED[format_]}
    assert top == set(state("back.yaml"))


def test_the_sentences(run: Run) -> None:
    write("from.yaml", ODD)

    err = run("export", "from.yaml", "--to", "pickledb", "x").err
    assert (
        "pstate: from.yaml: 10 values cannot be carried:\n"
        "  bytes: pickledb has no bytes\n"
        "  sets: pickledb has no sets\n"
        "  day: pickledb has no dates\n"
        "  moment: pickledb has no times\n"
        "  inf[0]: pickledb has no infinity\n"
        "  nan: pickledb has no NaN\n"
        "  deep.er[0][1]: pickledb has no keys but strings\n"
        "  [5]: pickledb has no keys but strings\n"
        "  big: pickledb has no integers of more than 64 bits\n"
        "  huge: pickledb has no integers of more than 64 bits\n"
        "Nothing was changed. --skip-unsupported leaves out what cannot be carried.\n"
    ) == err


def test_tinydb_wants_tables(run: Run) -> None:
    write("from.yaml", {"jobs": [{"name": "wash"}], "hosts": {"a": {"ip": 1}, 1: 5, -1: {}, 2: {"ip": b""}}})

    err = run("export", "from.yaml", "out", "--to", "tinydb").err
    assert "  jobs: tinydb holds tables of documents: {table: {1: {key: value}}}\n" in err
    assert "  hosts.a: the documents of tinydb are numbered\n" in err
    assert "  hosts[1]: tinydb holds tables of documents" in err
    assert "  hosts[-1]: the documents of tinydb are numbered\n" in err
    assert "  hosts[2].ip: tinydb has no bytes\n" in err


@pytest.mark.parametrize("format_", [name for name in FORMATS if name not in ("json", "yaml")])
def test_what_is_no_mapping_is_refused(run: Run, format_: str) -> None:
    code, out, err = run(
        "export", "state.yaml", NAMES[format_], "--to", format_, "--only", "jobs", "--skip-unsupported"
    )

    assert (1, "") == (code, out)
    assert "has a mapping at the top" in err


@pytest.mark.parametrize("only", ["counter", "seen", "jobs[0].name", "jobs"])
def test_any_value_is_a_document(run: Run, only: str) -> None:
    assert 0 == run("export", "state.yaml", "out.yaml", "--only", only).code
    expected = eval(f"s['{only}']" if "[" not in only else "s['jobs'][0]['name']", {"s": state("state.yaml")})
    assert expected == read_yaml("out.yaml")


# ----------------------------------------------------------------------------------------------------------- the target


@pytest.mark.parametrize("format_", FORMATS)
def test_what_is_there_is_not_replaced_unless_asked_for(run: Run, format_: str) -> None:
    value = TABLES if format_ == "tinydb" else VALUE
    write("from.yaml", value)
    target = Path(NAMES[format_])
    target.write_text("mine")
    target.chmod(0o640)

    code, out, err = run("export", "from.yaml", str(target), "--to", format_)
    assert (1, "") == (code, out)
    assert f"{target}: already exists. Nothing was written. " in err
    assert "mine" == target.read_text()

    if format_ in ("shelve", "diskcache"):
        return  # the files of the one have other names, by the module of dbm; the other is a folder
    assert 0 == run("export", "from.yaml", str(target), "--to", format_, "--force").code
    assert same(value, READ[format_](str(target)))
    assert 0o640 == target.stat().st_mode & 0o777


def test_a_shelf_is_replaced_whole(run: Run) -> None:
    for number in range(2):
        write("from.yaml", {"n": number})
        code = run("export", "from.yaml", "out", "--to", "shelve").code
        assert (1 if number else 0) == code
        assert 0 == run("export", "from.yaml", "out", "--to", "shelve", "--force").code
        assert {"n": number} == read_shelve("out")


@pytest.mark.parametrize("force", [[], ["--force"]])
def test_neither_a_folder_nor_the_state_itself_is_replaced(run: Run, force: list[str]) -> None:
    Path("folder").mkdir()
    os.symlink("state.yaml", "link")
    os.symlink("nowhere", "dangling")
    os.link("state.yaml", "hard")

    for target in ("folder", "state.yaml", "link", "hard"):
        code, out, err = run("export", "state.yaml", target, "--to", "yaml", *force)
        assert (1, "") == (code, out)
        assert "is a folder" in err or "is the state itself" in err
    assert (0 if force else 1) == run("export", "state.yaml", "dangling", "--to", "yaml", *force).code
    assert FILES["state.yaml"] == Path("state.yaml").read_text()


@pytest.mark.parametrize("format_", FORMATS)
def test_a_target_that_cannot_be_written_is_an_error(run: Run, format_: str) -> None:
    write("from.yaml", {})

    for target in ("nowhere/out", "state.yaml/out", "x" * 300):
        code, out, err = run("export", "from.yaml", target, "--to", format_)
        assert (5, "") == (code, out), err
        assert "could not be written" in err
    assert not [name for name in names() if name.startswith((".pstate", "x"))]


@pytest.mark.parametrize("format_", [*FORMATS[1:2], "sqlitedict", "diskcache", "pickledb", "tinydb"])
def test_a_package_that_is_missing_is_named(run: Run, monkeypatch: pytest.MonkeyPatch, format_: str) -> None:
    monkeypatch.setitem(sys.modules, {"toml": "tomli_w"}.get(format_, format_), None)
    write("from.yaml", {})
    there = names()

    code, out, err = run("export", "from.yaml", "out", "--to", format_)
    assert (2, "") == (code, out)
    assert f"pip install {'tomli-w' if format_ == 'toml' else format_}\n" in err
    assert there == names()


def test_what_comes_to_be_there_meanwhile_is_not_replaced(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    from pstate.cli.transfer import targets

    monkeypatch.setattr(targets, "refuse", lambda *given: None)
    Path("out.json").write_text("mine")

    code, _, err = run("export", "state.yaml", "out.json", "--only", "jobs")
    assert (5, True) == (code, "File exists" in err)
    assert "mine" == Path("out.json").read_text()


def test_a_dollar_in_a_path_is_no_variable(run: Run) -> None:
    write("from.yaml", {"a": 1})
    Path("$HOME").mkdir()

    for format_ in FORMATS:
        code, _, err = run("export", "from.yaml", f"$HOME/{NAMES[format_]}", "--to", format_, "--skip-unsupported")
        assert (5 if format_ == "diskcache" else 0) == code, err
        assert (format_ == "diskcache") == ("takes $ in a path for a variable" in err)
    assert NAMES["diskcache"] not in os.listdir("$HOME")


def test_a_disk_that_is_full_leaves_the_target_as_it_was(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    from pstate.file.fs import SYSTEM

    def full(fd: int) -> None:
        raise OSError(28, "No space left on device")

    Path("out.json").write_text("mine")
    monkeypatch.setattr(SYSTEM, "sync", full)
    there = names()

    code, _, err = run("export", "state.yaml", "out.json", "--only", "jobs", "--force")
    assert (5, True) == (code, "No space left on device. Nothing was changed." in err)
    assert ("mine", there) == (Path("out.json").read_text(), names())


def test_a_shelf_that_forgets_a_key_is_not_written(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """As that of Berkeley DB does, whose list of keys ends at an empty one."""

    class Forgetful(shelve.Shelf[Any]):
        def __iter__(self) -> Iterator[str]:
            return itertools.takewhile(bool, super().__iter__())

    kept: dict[Any, bytes] = {}
    monkeypatch.setattr(shelve, "open", lambda path, flag: Forgetful(kept))
    write("from.yaml", {"a": 1, "": 2, "b": 3})
    there = names()

    code, _, err = run("export", "from.yaml", "out.shelf", "--to", "shelve")
    assert (5, there) == (code, names())
    assert "the dbm of this Python does not give back every key" in err


def test_killed_midway_it_leaves_the_target_as_it_was(tmp_path: Path) -> None:
    (tmp_path / "state.yaml").write_text("a: 1\n")
    (tmp_path / "out.json").write_text("mine")
    code = (
        "import os, sys\nfrom pstate.file import fs\nfrom pstate.cli import main\n"
        "fs.SYSTEM.sync = lambda fd: os.kill(os.getpid(), 9)\nsys.exit(main(sys.argv[1:]))"
    )
    words = [sys.executable, "-c", code, "export", "state.yaml", "out.json", "--force"]

    assert -signal.SIGKILL == subprocess.run(words, cwd=tmp_path, check=False).returncode
    assert "mine" == (tmp_path / "out.json").read_text()


def test_a_state_that_is_missing_or_broken_is_an_error(run: Run) -> None:
    Path("bad.yaml").write_text("a: [")

    assert 3 == run("export", "nope.yaml", "out.json").code
    assert 3 == run("export", "bad.yaml", "out.json").code
    assert not Path("out.json").exists()


def test_a_program_that_has_the_state_open_is_not_disturbed(run: Run) -> None:
    with PersistedState("state.yaml") as opened:
        with opened.transaction():
            opened.counter = 4
            assert 0 == run("export", "state.yaml", "--to", "json", "--only", "counter").code
        assert "4\n" == run("export", "state.yaml", "--to", "json", "--only", "counter").out
