"""`pstate import`: real files of the real packages, what is refused and how it is named, and what hostile files do."""

from __future__ import annotations

import base64
import datetime as dt
import json
import os
import pickle
import shelve
import signal
import sqlite3
import subprocess
import sys
import zlib
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo

import diskcache
import persistedstate
import pickledb
import pytest
import sqlitedict
import tinydb
from tools.cli import FILES, Run, environment, run

from pstate import PersistedState
from pstate.cli.transfer import sources
from pstate.values import same

__all__ = ["run"]


def state(file: str = "new.yaml") -> dict[Any, Any]:
    with PersistedState.open(file, read_only=True) as opened:
        return opened.snapshot()


def contents(folder: str | Path = ".") -> dict[str, bytes]:
    """Every file below *folder*: no byte of a source may change, and no file may come."""
    return {str(path): path.read_bytes() for path in sorted(Path(folder).rglob("*")) if path.is_file()}


# ---------------------------------------------------------------------------------------------------------- the formats

TREE: dict[str, Any] = {
    "n": 3,
    "big": 2**70,
    "f": 1.5,
    "yes": True,
    "none": None,
    "text": "naïve 😀\n",
    "list": [1, ["a", {}], {"k": []}],
    "map": {"deep": {"er": [None, False]}},
}


def write_json(path: str) -> None:
    Path(path).write_text(json.dumps(TREE), encoding="utf-8")


def write_toml(path: str) -> None:
    Path(path).write_text(
        'n = 3\nwhen = 2026-11-23T09:05:00+01:00\nday = 2026-11-23\ninf = -inf\n[map]\n"a b" = [1, "x"]\n'
    )


def write_persistedstate(path: str) -> None:
    with persistedstate.PersistedState(path) as opened:
        for key, value in TREE.items():
            opened[key] = value


def write_killed_persistedstate(path: str) -> None:
    code = (
        "import os, sys, persistedstate\nopened = persistedstate.PersistedState(sys.argv[1])\n"
        "opened.n = 3\nopened.map = {'a': [1]}\nos.kill(os.getpid(), 9)"
    )
    done = subprocess.run([sys.executable, "-c", code, path], check=False)
    assert -signal.SIGKILL == done.returncode


def write_pickledb(path: str) -> None:
    opened = pickledb.PickleDB(path)
    for key, value in TREE.items():
        if key != "big":
            opened.set(key, value)
    opened.save()


def write_pickledb_in_sqlite(path: str) -> None:
    # As PickleDBSQLite does, which needs one package more.
    database = sqlite3.connect(path)
    with database:
        database.execute("CREATE TABLE IF NOT EXISTS kv (key TEXT PRIMARY KEY, value BLOB NOT NULL)")
        rows = [(key, json.dumps(value).encode()) for key, value in TREE.items()]
        database.executemany("INSERT INTO kv (key, value) VALUES (?, ?)", rows)
    database.close()


def write_tinydb(path: str) -> None:
    with tinydb.TinyDB(path) as opened:
        opened.insert({"name": "wash"})
        opened.insert({"name": "dry"})
        opened.table("hosts").insert({"ip": None})


def write_json_sqlitedict(path: str) -> None:
    with sqlitedict.SqliteDict(path, encode=json.dumps, decode=json.loads) as opened:
        opened.update(TREE)
        opened.commit()


RAW = {"n": 3, 7: "x", 1.5: b"\0\xff", b"k": -2.5, "long": "ä\r\n" * 20_000, "blob": b"\1" * 50_000}


def write_raw_diskcache(path: str) -> None:
    with diskcache.Cache(path) as cache:
        for key, value in RAW.items():
            cache[key] = value


def write_fanout_cache(path: str) -> None:
    with diskcache.FanoutCache(path, shards=3) as cache:
        for number in range(20):
            cache[f"key{number}"] = number


def write_json_diskcache(path: str) -> None:
    with diskcache.Cache(path, disk=diskcache.JSONDisk) as cache:
        for key, value in TREE.items():
            cache[key] = value
        cache["long"] = list(range(30_000))


TABLES = {"_default": {1: {"name": "wash"}, 2: {"name": "dry"}}, "hosts": {1: {"ip": None}}}


class Source(NamedTuple):
    name: str
    write: Callable[[str], None]
    expected: Any
    format: str | None  #: what has to be said; None: it is recognised


PLAIN = [
    Source("x.json", write_json, TREE, None),
    Source("no-suffix", write_json, TREE, None),
    Source("x.toml", write_toml, {
        "n": 3, "day": dt.date(2026, 11, 23), "inf": -float("inf"), "map": {"a b": [1, "x"]},
        "when": dt.datetime(2026, 11, 23, 9, 5, tzinfo=dt.timezone(dt.timedelta(hours=1))),
    }, None),
    Source("x.state", write_persistedstate, TREE, None),
    Source("x.yaml", write_persistedstate, TREE, "persistedstate"),
    Source("x.state", write_killed_persistedstate, {"n": 3, "map": {"a": [1]}}, None),
    Source("x.db", write_pickledb, {key: value for key, value in TREE.items() if key != "big"}, None),
    Source("x.db", write_pickledb, {key: value for key, value in TREE.items() if key != "big"}, "pickledb"),
    Source("x.sqlite", write_pickledb_in_sqlite, TREE, None),
    Source("x.sqlite", write_pickledb_in_sqlite, TREE, "pickledb"),
    Source("x.json", write_tinydb, TABLES, None),
    Source("x.db", write_tinydb, TABLES, "tinydb"),
    Source("x.sqlite", write_json_sqlitedict, TREE, None),
    Source("cache", write_raw_diskcache, RAW, None),
    Source("cache", write_fanout_cache, {f"key{number}": number for number in range(20)}, None),
    Source("cache", write_json_diskcache, {**TREE, "long": list(range(30_000))}, None),
]  # fmt: skip


@pytest.mark.parametrize("source", PLAIN, ids=lambda source: f"{source.write.__name__}-{source.name}-{source.format}")
def test_what_needs_no_pickle_comes_without_one(run: Run, source: Source) -> None:
    """Equal and of equal type; the source keeps its bytes, and nothing comes beside it."""
    source.write(source.name)
    before = contents()
    words = ["--from", source.format] if source.format else []

    done = run("import", source.name, "new.yaml", *words)
    assert (0, "", "") == done
    assert same(source.expected, state())
    after = contents()
    assert after.pop("new.yaml").startswith(b"" if source.expected else b"{}")
    assert before == after


def test_the_database_in_a_folder_may_be_named_itself(run: Run) -> None:
    write_raw_diskcache("cache")

    assert 0 == run("import", "cache/cache.db", "new.yaml").code
    assert 3 == state()["n"]


def test_a_list_needs_a_place(run: Run) -> None:
    Path("list.json").write_text('[1, {"a": null}]')
    Path("list.yaml").write_text("- 1\n- a:\n")

    for name in ("list.json", "list.yaml"):
        code, _, err = run("import", name, "new.yaml")
        assert (1, True) == (code, "--into KEY" in err), err
        assert not Path("new.yaml").exists()
    assert 0 == run("import", "list.json", "new.yaml", "--into", "jobs").code
    assert 0 == run("import", "list.yaml", "new.yaml", "--into", "deep.er.jobs").code
    assert {"jobs": [1, {"a": None}], "deep": {"er": {"jobs": [1, {"a": None}]}}} == state()


@pytest.mark.parametrize("text", ["5", "null", "true", '"x"', "1.5"])
def test_a_scalar_needs_a_place(run: Run, text: str) -> None:
    for name in ("x.json", "x.yaml"):
        Path(name).write_text(text)
        if name == "x.json" or text != "null":  # which is an empty state
            assert 1 == run("import", name, "new.yaml").code
        assert 0 == run("import", name, "new.yaml", "--into", "x", "--replace").code
        assert same({} if (name, text) == ("x.yaml", "null") else json.loads(text), state()["x"])


@pytest.mark.parametrize("name", ["a?b#c%20.db", "ü.db", "sp ace.db", os.fsdecode(b"\xff.db"), "$HOME.db", "~"])
def test_a_name_may_be_odd(run: Run, name: str) -> None:
    write_json_sqlitedict("x")
    os.rename("x", name)

    assert 0 == run("import", name, "new.yaml").code
    assert same(TREE, state())


def test_what_makes_no_sense_is_wrong_usage(run: Run) -> None:
    write_json("x.json")

    assert 2 == run("import", "x.json", "new.yaml", "--table", "t").code
    assert 2 == run("import", "-", "new.yaml", "--from", "shelve").code
    assert 2 == run("import", "x.json", "new.yaml", "--from", "xml").code
    assert 2 == run("import", "x.json", "new.yaml", "--into", "a..b").code
    assert not Path("new.yaml").exists()


def test_standard_input_is_a_source(run: Run) -> None:
    assert 0 == run("import", "-", "new.yaml", stdin='{"a": [1]}').code
    assert 0 == run("import", "-", "new.yaml", "--from", "toml", stdin="b = 2").code
    assert 0 == run("import", "-", "new.yaml", "--into", "c", stdin="x: !!set {y}").code
    assert {"a": [1], "b": 2, "c": {"x": {"y"}}} == state()


def test_another_state_is_a_source_with_its_journal(run: Run) -> None:
    before = Path("journal.yaml").read_bytes()

    assert 0 == run("import", "journal.yaml", "new.yaml").code
    assert {"counter": 4, "key": {"nested": 3}, "log": ["both, or neither"]} == state()
    assert before == Path("journal.yaml").read_bytes()


def test_the_line_format_of_the_oldest_persistedstate_has_to_be_named(run: Run) -> None:
    Path("old.state").write_text('counter: 1\nname: "x"\ncounter: 2\n')

    assert 3 == run("import", "old.state", "new.yaml").code
    assert 0 == run("import", "old.state", "new.yaml", "--from", "persistedstate").code
    assert {"counter": 2, "name": "x"} == state()


def test_json_of_other_encodings_is_json(run: Run) -> None:
    for encoding in ("utf-8-sig", "utf-16", "utf-32-le"):
        Path("x.json").write_bytes('{"naïve": 1}'.encode(encoding))
        assert 0 == run("import", "x.json", "new.yaml", "--replace").code
        assert {"naïve": 1} == state()


# ---------------------------------------------------------------------------------------------------------- the pickles


class Bomb:
    """Unpickled, it leaves a file that tells."""

    def __reduce__(self) -> Any:
        return os.mkdir, ("exploded",)


def write_shelve(path: str, values: dict[str, Any]) -> None:
    with shelve.open(path) as shelf:
        shelf.update(values)


def write_shelve_of_313(path: str, values: dict[str, Any]) -> None:
    """As dbm.sqlite3 of Python 3.13 does."""
    database = sqlite3.connect(path)
    with database:
        database.execute(
            "CREATE TABLE IF NOT EXISTS Dict (\n    key BLOB UNIQUE NOT NULL,\n    value BLOB NOT NULL\n  )"
        )
        rows = [(key.encode(), pickle.dumps(value)) for key, value in values.items()]
        database.executemany("REPLACE INTO Dict (key, value) VALUES (CAST(? AS BLOB), CAST(? AS BLOB))", rows)
    database.close()


def write_sqlitedict(path: str, values: dict[str, Any]) -> None:
    with sqlitedict.SqliteDict(path, outer_stack=False) as opened:
        opened.update(values)
        opened.commit()


def write_sqlitedict_keys(path: str, values: dict[str, Any]) -> None:
    """Keys that are pickles, in base64."""
    encoders = {"encode_key": sqlitedict.encode_key, "decode_key": sqlitedict.decode_key}
    with sqlitedict.SqliteDict(path, encode=json.dumps, outer_stack=False, **encoders) as opened:
        for key, value in values.items():
            if type(value) is Bomb:
                opened.conn.execute(
                    'REPLACE INTO "unnamed" (key, value) VALUES (?, ?)',
                    (base64.b64encode(pickle.dumps(value)).decode(), "1"),
                )
            else:
                opened[key] = value
        opened.commit()


def write_diskcache(path: str, values: dict[str, Any]) -> None:
    with diskcache.Cache(path) as cache:
        for key, value in values.items():
            cache[key] = value


def write_diskcache_files(path: str, values: dict[str, Any]) -> None:
    with diskcache.Cache(path, disk_min_file_size=1) as cache:
        for key, value in values.items():
            cache[key] = value


def write_diskcache_keys(path: str, values: dict[str, Any]) -> None:
    with diskcache.Cache(path) as cache:
        for value in values.values():
            if type(value) is Bomb:
                cache[value] = 1


PICKLING = [
    ("shelf", write_shelve), ("x.db", write_shelve_of_313), ("x.db", write_sqlitedict), ("x.db", write_sqlitedict_keys),
    ("cache", write_diskcache), ("cache", write_diskcache_files), ("cache", write_diskcache_keys),
]  # fmt: skip


@pytest.mark.parametrize(("name", "write"), PICKLING)
@pytest.mark.parametrize("skip", [False, True])
def test_nothing_is_unpickled_unless_asked_for(
    run: Run, name: str, write: Callable[[str, dict[str, Any]], None], skip: bool
) -> None:
    write(name, {"key": Bomb()})
    before = contents()

    done = run("import", name, "new.yaml", *(["--skip-unsupported"] if skip else []))
    assert not Path("exploded").exists()
    assert (0 if skip else 1, "") == done[:2]
    assert "a pickle" in done.err
    assert skip or "runs the code in it" in done.err
    assert skip or before == contents()

    run("import", name, "new.yaml", "--unsafe-pickle", "--replace")
    assert Path("exploded").exists()  # or this test would prove nothing


@pytest.mark.parametrize("format_", ["json", "toml", "yaml", "persistedstate", "pickledb", "tinydb", None])
def test_a_pickle_is_no_text(run: Run, format_: str | None) -> None:
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        Path("x").write_bytes(pickle.dumps(Bomb(), protocol))

        done = run("import", "x", "new.yaml", *(["--from", format_] if format_ else []), "--unsafe-pickle")
        assert (1 if (format_, protocol) == ("yaml", 0) else 3, "") == done[:2]  # YAML reads this pickle as a string
        assert not Path("exploded").exists()
        assert not Path("new.yaml").exists()


VALUES = {
    **TREE,
    "bytes": b"\0",
    "day": dt.date(2026, 1, 2),
    "moment": dt.datetime(2026, 1, 2, 3, 4, 5, 6),
    "set": {1, "a"},
    "naïve": {1: 2, None: 3},
}


@pytest.mark.parametrize(("name", "write"), [case for case in PICKLING if not case[1].__name__.endswith("_keys")])
def test_pickles_come_when_asked_for(run: Run, name: str, write: Callable[[str, dict[str, Any]], None]) -> None:
    write(name, VALUES)
    before = contents()

    assert (0, "", "") == run("import", name, "new.yaml", "--unsafe-pickle")
    assert same(VALUES, state())
    assert before == {name: data for name, data in contents().items() if name != "new.yaml"}


def test_pickled_keys_come_when_asked_for(run: Run) -> None:
    write_sqlitedict_keys("x.db", {"a": 1})
    with diskcache.Cache("cache") as cache:
        cache[None] = 1
        cache[True] = 2
        cache[(1, 2)] = 3

    assert 0 == run("import", "x.db", "new.yaml", "--unsafe-pickle").code
    assert {"a": 1} == state()
    done = run("import", "cache", "new.yaml", "--unsafe-pickle")
    assert (1, "") == done[:2]
    assert "the key (1, 2): tuple cannot be a dict key" in done.err
    assert 0 == run("import", "cache", "new.yaml", "--unsafe-pickle", "--skip-unsupported").code
    assert {"a": 1, None: 1, True: 2} == state()


def test_equal_keys_are_not_lost(run: Run) -> None:
    with diskcache.Cache("cache") as cache:
        cache[1] = "one"
        cache[True] = "true"

    done = run("import", "cache", "new.yaml", "--unsafe-pickle")
    assert (1, "") == done[:2]
    assert "another key that is equal to this one" in done.err


@pytest.mark.parametrize(
    ("module", "made"),
    [("dumb", "shelf"), ("gnu", "shelf"), ("ndbm", "shelf")],
)
def test_a_shelf_of_each_dbm_that_this_python_has(run: Run, module: str, made: str) -> None:
    reader = pytest.importorskip(f"dbm.{module}", exc_type=ImportError)
    with reader.open(made, "n") as database, shelve.Shelf(database) as shelf:
        shelf["a"] = [1]

    assert 0 == run("import", made, "new.yaml", "--unsafe-pickle").code
    assert {"a": [1]} == state()


def test_a_shelf_may_be_named_by_its_files(run: Run) -> None:
    pytest.importorskip("dbm.dumb")
    import dbm.dumb

    with shelve.Shelf(dbm.dumb.open("shelf", "n")) as shelf:
        shelf["a"] = 1
    for name in ("shelf", "shelf.dat", "shelf.dir"):
        assert 0 == run("import", name, "new.yaml", "--unsafe-pickle", "--replace").code


def test_a_shelf_of_a_dbm_that_this_python_lacks_says_so(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    Path("shelf").write_bytes((0x13579ACE).to_bytes(4, sys.byteorder) + bytes(100))
    monkeypatch.setitem(sys.modules, "dbm.gnu", None)

    done = run("import", "shelf", "new.yaml", "--unsafe-pickle")
    assert (3, "") == done[:2]
    assert "was written by dbm.gnu, which this Python does not have" in done.err


def test_what_a_pickle_raises_is_a_place(run: Run) -> None:
    database = sqlite3.connect("x.db")
    with database:
        database.execute('CREATE TABLE "unnamed" (key TEXT PRIMARY KEY, value BLOB)')
        values = {
            "gone": b"\x80\x04cno_such_module\nThing\n.",
            "cut": pickle.dumps([1, 2, 3])[:-3],
            "old": pickle.dumps(5, 0),
            "noise": b"\xff\xfe",
            "text": "it is not JSON",
            "json": "[1, 1e999]",
            "good": "[true]",
            "null": None,
            "int": 5,
        }
        database.executemany('INSERT INTO "unnamed" VALUES (?, ?)', list(values.items()))
    database.close()

    done = run("import", "x.db", "new.yaml", "--unsafe-pickle")
    assert (1, "") == done[:2]
    places = dict(line.strip().split(": ", 1) for line in done.err.splitlines() if line.startswith("  "))
    assert {"gone", "cut", "noise", "text", "json"} == set(places)
    assert "ModuleNotFoundError" in places["gone"]
    assert not Path("new.yaml").exists()
    assert 0 == run("import", "x.db", "new.yaml", "--unsafe-pickle", "--skip-unsupported").code
    assert {"old": 5, "good": [True], "null": None, "int": 5} == state()


# ------------------------------------------------------------------------------------------------------ what is refused


def test_each_place_is_named_and_nothing_is_changed(run: Run) -> None:
    write_shelve("shelf", {
        "jobs": [{"when": dt.time(1)}, dt.timedelta(1), {"deep": [Path("x")]}],
        "good": 1,
        "keys": {(1, 2): 3, float("nan"): 4, "ok": {frozenset(): 1}},
        "text": "\ud800",
        "members": {(1,), "a"},
    })  # fmt: skip

    done = run("import", "shelf", "state.yaml", "--unsafe-pickle")
    assert (1, "") == done[:2]
    assert [
        "jobs[0].when: datetime.time cannot be stored, because YAML 1.1 has no such type. Store value.isoformat().",
        "jobs[1]: datetime.timedelta cannot be stored, because YAML 1.1 has no such type. Store value.total_seconds().",
        "jobs[2].deep[0]: pathlib.PosixPath cannot be stored. Store str(value).",
        "keys: the key (1, 2): tuple cannot be a dict key. "
        "Use a scalar: None, bool, int, float, str, bytes, date, datetime.",
        "keys: the key nan: NaN cannot be a key: it is not equal to itself, so it would never be found. "
        "Use None or a string.",
    ] == sorted(line.strip() for line in done.err.splitlines() if line.startswith(("  jobs", "  keys: ")))
    for place in ("keys.ok: the key frozenset()", "text: the str '\\ud800' holds a lone", "members: the member (1,)"):
        assert f"  {place}" in done.err
    assert "shelf: 8 values cannot be carried" in done.err
    assert FILES["state.yaml"] == Path("state.yaml").read_text()

    done = run("import", "shelf", "new.yaml", "--unsafe-pickle", "--skip-unsupported")
    assert (0, "") == done[:2]
    assert "shelf: 8 values left out:" in done.err
    assert {"jobs": [{}, {"deep": []}], "good": 1, "keys": {"ok": {}}, "members": {"a"}} == state()


def test_twenty_places_are_named_and_the_others_counted(run: Run) -> None:
    write_shelve("shelf", {f"k{number:04}": 1j for number in range(1234)})

    err = run("import", "shelf", "new.yaml", "--unsafe-pickle").err
    assert 20 == err.count("complex cannot be stored")
    assert "  and 1,214 more\n" in err


def test_a_source_of_which_nothing_can_be_carried_is_refused_even_so(run: Run) -> None:
    for text in ('{"a":' * 200 + "1" + "}" * 200, "[" * 150 + "]" * 150):
        Path("x.json").write_text(text)
        done = run("import", "x.json", "new.yaml", "--into", "x")
        assert (1, "") == done[:2]
        assert "nested too deep" in done.err


def test_the_place_counts_for_the_depth(run: Run) -> None:
    Path("x.json").write_text("[" * 99 + "]" * 99)

    assert 0 == run("import", "x.json", "new.yaml", "--into", "a").code
    assert 1 == run("import", "x.json", "new.yaml", "--into", "b.c").code
    assert {"a"} == set(state())


def test_what_becomes_another_type_is_told(run: Run) -> None:
    write_shelve("shelf", {
        "a": (1, (2,)), "b": OrderedDict(x=1), "c": frozenset({1}),
        "d": dt.datetime(2026, 7, 1, tzinfo=ZoneInfo("Europe/Berlin")),
    })  # fmt: skip

    done = run("import", "shelf", "new.yaml", "--unsafe-pickle")
    assert (0, "") == done[:2]
    assert {
        "pstate: shelf: 2 × tuple has become list",
        "pstate: shelf: 1 × OrderedDict has become dict",
        "pstate: shelf: 1 × frozenset has become set",
        "pstate: shelf: 1 × datetime of a zone has become datetime of a fixed offset",
    } == set(done.err.splitlines())
    assert {"a": [1, [2]], "b": {"x": 1}, "c": {1}} == {key: value for key, value in state().items() if key != "d"}


def test_a_cyclic_pickle_is_refused(run: Run) -> None:
    cyclic: list[Any] = [1]
    cyclic.append({"self": cyclic})
    write_shelve("shelf", {"a": cyclic})

    done = run("import", "shelf", "new.yaml", "--unsafe-pickle")
    assert (1, "") == done[:2]
    assert "a[1].self: the value contains itself" in done.err


def test_what_a_cache_knows_beyond_values_is_told(run: Run) -> None:
    with diskcache.Cache("cache") as cache:
        cache.set("kept", 1, expire=1e6, tag="t")
        cache.set("gone", 2, expire=1e6)
        cache.set("plain", 3)
    database = sqlite3.connect("cache/cache.db")
    with database:
        database.execute("UPDATE Cache SET expire_time = 1 WHERE key = 'gone'")
    database.close()

    done = run("import", "cache", "new.yaml")
    assert (0, "") == done[:2]
    assert {"kept": 1, "plain": 3} == state()
    assert [
        "pstate: cache: 1 value left out: expired",
        "pstate: cache: 1 value taken without the time at which it would have expired",
        "pstate: cache: 1 value taken without its tag",
    ] == done.err.splitlines()


# -------------------------------------------------------------------------------------------------- what already exists


def test_keys_that_are_there_are_refused(run: Run) -> None:
    Path("x.json").write_text('{"counter": 9, "jobs": [], "new": 1}')

    done = run("import", "x.json", "state.yaml")
    assert (1, "") == done[:2]
    assert "state.yaml: already has 2 keys of SOURCE: counter, jobs. Nothing was changed." in done.err
    assert FILES["state.yaml"] == Path("state.yaml").read_text()
    assert 0 == run("import", "x.json", "state.yaml", "--replace").code
    assert {"counter": 9, "jobs": [], "new": 1, "seen": {"a"}} == state("state.yaml")


def test_a_place_that_is_there_is_refused(run: Run) -> None:
    Path("x.json").write_text("[0]")
    Path("map.json").write_text('{"tries": 9, "x": 1}')

    for place in ("counter", "jobs[0]", "jobs", "seen"):
        done = run("import", "x.json", "state.yaml", "--into", place)
        assert (1, True) == (done.code, "already exists" in done.err)
    for place in ("counter.x", "jobs[7]", "jobs[7].x", "seen.b", "seen.b.c"):
        assert 1 == run("import", "x.json", "state.yaml", "--into", place, "--replace").code
    assert 1 == run("import", "map.json", "state.yaml", "--into", "jobs[0]").code
    assert FILES["state.yaml"] == Path("state.yaml").read_text()

    assert 0 == run("import", "map.json", "state.yaml", "--into", "jobs[0]", "--replace").code
    assert 0 == run("import", "x.json", "state.yaml", "--into", "jobs[1]", "--replace").code
    assert [{"name": "wash", "tries": 9, "x": 1}, [0]] == state("state.yaml")["jobs"]
    assert 0 == run("import", "x.json", "state.yaml", "--into", "jobs[0].deep.er").code


def test_a_dry_run_shows_what_would_come_and_changes_nothing(run: Run) -> None:
    Path("x.json").write_text('{"counter": 9, "new": {"a": [1]}}')
    before = contents()

    assert (0, '~ counter: 3 -> 9\n+ new: {"a": [1]}\n', "") == run("import", "x.json", "state.yaml", "-n", "--replace")
    assert (0, '+ counter: 9\n+ new: {"a": [1]}\n', "") == run("import", "x.json", "new.yaml", "--dry-run")
    assert 1 == run("import", "x.json", "state.yaml", "-n").code
    assert before == contents()


def test_it_is_one_commit(run: Run) -> None:
    Path("x.json").write_text(json.dumps({f"k{number}": [number] for number in range(50)}))
    with PersistedState("state.yaml") as opened:
        opened.counter = 4

        assert 0 == run("import", "x.json", "state.yaml").code
        commits = [json.loads(line)["commit"] for line in run("log", "state.yaml", "--json").out.splitlines()]
        assert [1, 2] == commits
        assert [7] == opened["k7"]


def test_comments_of_the_file_stay(run: Run) -> None:
    Path("new.yaml").write_text("# mine\na: 1  # one\n")
    Path("x.json").write_text('{"b": 2}')

    assert 0 == run("import", "x.json", "new.yaml").code
    assert "# mine\na: 1  # one\nb: 2\n" == Path("new.yaml").read_text()


@pytest.mark.parametrize("words", [["--replace"], ["--into", "x"], []])
def test_a_file_cannot_be_brought_into_itself(run: Run, words: list[str]) -> None:
    os.symlink("state.yaml", "link.yaml")

    for source in ("state.yaml", "./state.yaml", "link.yaml"):
        assert 2 == run("import", source, "state.yaml", *words).code
    assert FILES["state.yaml"] == Path("state.yaml").read_text()


# ------------------------------------------------------------------------------------------------------ damaged sources


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("x.json", b'{"a": 1,\n "b": }', "x.json:2:7: this is not JSON: Expecting value"),
        ("x.json", b'{"a": [1, 2', "x.json:1:12: this is not JSON"),
        ("x.json", b"", "x.json:1:1: this is not JSON"),
        ("x.json", b'{"a": 1}\n{"b": 2}', "x.json:2:1: this is not JSON: Extra data"),
        ("x.json", b'{"a":\n "\xff"}', "x.json:2:3: this is not UTF-8"),
        ("x.json", b'{"a": {"b": 1, "b": 2}}', 'the key "b" occurs twice in one mapping'),
        ("x.json", b'{"a": 1e999}', "the number 1e999 is beyond what Python's float can hold"),
        ("x.json", b"[" * 100_000, "it is nested more deeply"),
        ("x.json", b'{"a": ' + b"9" * 5000 + b"}", "Exceeds the limit"),
        ("x.toml", b"a = 1\nb = \n", "x.toml:2:5: this is not TOML: Invalid value"),
        ("x.toml", b"a = 1\na = 2\n", "x.toml:2:6: this is not TOML: Cannot overwrite a value"),
        ("x.toml", b"a = [1,", "x.toml:1:8: this is not TOML: "),
        ("x.toml", b"\xff", "x.toml:1:1: this is not UTF-8"),
        ("x.toml", b"a = 1e999", "the number 1e999 is beyond"),
        ("x.toml", b"a = " + b"[" * 100_000, "it is nested more deeply"),
        ("x.yaml", b"a: 1\nb: [\n", "x.yaml:3:1: "),
        ("x.yaml", b"a: 1\na: 2\n", "x.yaml:2:1: "),
        ("x.yaml", b"--- 1\n--- 2\n", "x.yaml:"),
        ("x.yaml", FILES["journal.yaml"].replace("counter: 3", "counter: 2").encode(), "x.yaml:4: "),
        ("x.yaml", b"a: 1\n... # pstate 9 22ff0040 0000000028 f60bcbac 928b1655 p\n", "x.yaml:"),
        ("x", b"just some words\n", "the format is not recognized"),
        ("x", b"a = 1\n", "the format is not recognized"),
        ("x", b"\0\1\2\3" * 10, "the format is not recognized"),
        ("x", b"SQLite format 3\0", "x: SQLite cannot read it"),
        ("x", b"SQLite format 3\0" + b"\x10\0\1\1" * 1000, "x: SQLite cannot read it"),
    ],
)
def test_a_source_that_is_damaged_is_an_error_with_its_place(run: Run, name: str, content: bytes, said: str) -> None:
    Path(name).write_bytes(content)

    done = run("import", name, "new.yaml")
    assert (3, "") == done[:2], done.err
    assert said in done.err
    assert "Nothing was changed" in done.err
    assert not Path("new.yaml").exists()


@pytest.mark.parametrize(
    "format_", [None, "json", "toml", "yaml", "persistedstate", "shelve", "sqlitedict", "diskcache"]
)
def test_a_source_that_is_not_there_or_a_folder_is_an_error(run: Run, format_: str | None) -> None:
    Path("folder").mkdir()
    for name in ("nope", "folder", "nope/deeper"):
        done = run("import", name, "new.yaml", *(["--from", format_] if format_ else []))
        assert (3, "") == done[:2], done.err
        assert f"pstate: {name}" in done.err
        assert not Path("new.yaml").exists()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_source_that_may_not_be_read_is_an_error(run: Run) -> None:
    write_json("x.json")
    Path("x.json").chmod(0)

    done = run("import", "x.json", "new.yaml")
    assert (3, True) == (done.code, "Permission denied" in done.err)


def damaged_databases() -> list[Any]:
    return [
        pytest.param(lambda data: data[: len(data) // 2], id="cut in the middle"),
        pytest.param(lambda data: data[: len(data) // 4096 * 4096 - 4096], id="without its last page"),
        pytest.param(lambda data: data[:8192] + b"\xff" * 4096 + data[12288:], id="a page of noise"),
        pytest.param(lambda data: data[:8192] + bytes(4096) + data[12288:], id="a page of zeros"),
    ]


@pytest.mark.parametrize("harm", damaged_databases())
@pytest.mark.parametrize("write", [write_json_sqlitedict, write_raw_diskcache])
def test_a_damaged_database_is_an_error_and_never_a_part(
    run: Run, write: Callable[[str], None], harm: Callable[[bytes], bytes]
) -> None:
    write("x")
    path = Path("x/cache.db" if Path("x").is_dir() else "x")
    if path.name == "x":
        with sqlitedict.SqliteDict("x", encode=json.dumps, decode=json.loads, outer_stack=False) as opened:
            opened.update({f"k{number}": "x" * 1000 for number in range(50)})
            opened.commit()
    else:
        with diskcache.Cache("x") as cache:
            for number in range(50):
                cache[f"k{number}"] = "x" * 1000
    path.write_bytes(harm(path.read_bytes()))

    done = run("import", "x", "new.yaml")
    assert (3, "") == done[:2], done
    assert not Path("new.yaml").exists()


def test_a_damaged_shelf_is_an_error(run: Run) -> None:
    import dbm.dumb

    with shelve.Shelf(dbm.dumb.open("shelf", "n")) as shelf:
        shelf["a"] = [1] * 1000
        shelf["b"] = 1
    index = Path("shelf.dir").read_text()
    bad = [
        "'a', 5\n",
        "'a', ('x', 2)\n",
        "'a', (0, 'y')\n",
        "5, (0, 1)\n",
        "[" * 50_000,
        "'a', (0, 1" + "0" * 18 + ")\n",
    ]
    for text in (index[:-5], index.replace("(", "open("), *bad):
        Path("shelf.dir").write_text(text)
        done = run("import", "shelf", "new.yaml", "--unsafe-pickle")
        assert (3, "") == done[:2], (text, done)
    Path("shelf.dir").write_text(index)
    Path("shelf.dat").write_bytes(Path("shelf.dat").read_bytes()[:100])
    done = run("import", "shelf", "new.yaml", "--unsafe-pickle")
    assert (1, True, True) == (done.code, "  a: a pickle that cannot be read" in done.err, "  b: " in done.err)


@pytest.mark.parametrize("filename", ["../../secret.txt", "{root}/secret.txt", "link", "folder", "missing.val", "fifo"])
def test_a_cache_cannot_make_other_files_come(run: Run, tmp_path: Path, filename: str) -> None:
    """A database that somebody else has made says where its files are."""
    Path("secret.txt").write_text("secret")
    write_raw_diskcache("deep/cache")
    os.symlink(tmp_path / "secret.txt", "deep/cache/link")
    os.mkdir("deep/cache/folder")
    os.mkfifo("deep/cache/fifo")
    database = sqlite3.connect("deep/cache/cache.db")
    with database:
        database.execute("UPDATE Cache SET filename = ? WHERE mode = 3", (filename.format(root=tmp_path),))
    database.close()

    done = run("import", "deep/cache", "new.yaml")
    assert (1, "") == done[:2]
    assert "  long: its file" in done.err
    assert not Path("new.yaml").exists()


def test_a_view_is_no_table(run: Run) -> None:
    """It could go on for ever."""
    database = sqlite3.connect("x.db")
    with database:
        endless = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT i AS key, i AS value FROM n"
        database.execute(f"CREATE VIEW Cache AS {endless}")
        database.execute(f"CREATE VIEW Dict AS {endless}")
    database.close()

    for format_ in ("sqlitedict", "shelve", "diskcache"):
        done = run("import", "x.db", "new.yaml", "--from", format_, "--unsafe-pickle")
        assert (3, "") == done[:2]


def test_a_cache_with_values_of_wrong_types_is_no_crash(run: Run) -> None:
    write_raw_diskcache("cache")
    database = sqlite3.connect("cache/cache.db")
    with database:
        database.execute("UPDATE Cache SET filename = x'00', expire_time = 'soon' WHERE mode = 2")
        database.execute("UPDATE Cache SET mode = 'x', expire_time = NULL WHERE key = 7")
    database.close()

    done = run("import", "cache", "new.yaml")
    assert (1, "") == done[:2]
    assert "  [7]: x is not a mode of diskcache" in done.err


def test_text_that_is_no_utf8_in_a_database_is_a_place(run: Run) -> None:
    database = sqlite3.connect("x.db")
    with database:
        database.execute('CREATE TABLE "unnamed" (key TEXT PRIMARY KEY, value BLOB)')
        database.execute("""INSERT INTO "unnamed" VALUES (CAST(x'ff61' AS TEXT), '1')""")
        database.execute("""INSERT INTO "unnamed" VALUES ('b', CAST(x'22ff22' AS TEXT))""")
    database.close()

    done = run("import", "x.db", "new.yaml")
    assert (1, "") == done[:2]
    assert "the key '\\udcffa': " in done.err
    assert "  b: " in done.err


# ---------------------------------------------------------------------------------------- databases that are being used


def test_a_database_with_a_log_beside_it_is_read_and_left_alone(run: Run) -> None:
    """A killed writer leaves a write-ahead log, in which the newest values are."""
    code = (
        "import os, sys, diskcache\ncache = diskcache.Cache(sys.argv[1])\n"
        "cache['a'] = 1\ncache['b'] = 'x'\nos.kill(os.getpid(), 9)"
    )
    subprocess.run([sys.executable, "-c", code, "cache"], check=False)
    assert Path("cache/cache.db-wal").stat().st_size
    before = contents("cache")

    assert 0 == run("import", "cache", "new.yaml").code
    assert {"a": 1, "b": "x"} == state()
    assert before == contents("cache")


def test_an_unfinished_transaction_is_not_taken(run: Run) -> None:
    """A killed writer leaves a journal with which SQLite rolls back: in a copy."""
    code = (
        "import json, os, sqlite3, sys\n"
        "database = sqlite3.connect(sys.argv[1], isolation_level=None)\n"
        "database.execute('PRAGMA cache_size = 1')\n"
        "database.execute('CREATE TABLE unnamed (key TEXT PRIMARY KEY, value BLOB)')\n"
        "database.execute(\"INSERT INTO unnamed VALUES ('a', '1')\")\n"
        "database.execute('BEGIN')\n"
        "database.execute(\"UPDATE unnamed SET value = '2'\")\n"
        "for n in range(500): database.execute('INSERT INTO unnamed VALUES (?, ?)', (str(n), json.dumps('x' * 500)))\n"
        "os.kill(os.getpid(), 9)"
    )
    subprocess.run([sys.executable, "-c", code, "x.db"], check=False)
    assert Path("x.db-journal").stat().st_size
    before = contents()

    assert 0 == run("import", "x.db", "new.yaml").code
    assert {"a": 1} == state()
    assert before == {name: data for name, data in contents().items() if name != "new.yaml"}


def test_what_is_written_to_while_it_is_read_is_refused(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    from pstate.cli.transfer import databases

    write_raw_diskcache("cache")
    rows = databases._rows

    def rows_and_write(*arguments: Any) -> Any:
        yield from rows(*arguments)
        with diskcache.Cache("cache") as cache:
            cache["new"] = 1

    monkeypatch.setattr(databases, "_rows", rows_and_write)
    done = run("import", "cache", "new.yaml")
    assert (3, "") == done[:2]
    assert "a program wrote to it during the import" in done.err


def test_a_database_that_is_locked_says_so(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    write_json_sqlitedict("x.db")
    connect = sqlite3.connect
    monkeypatch.setattr(sqlite3, "connect", lambda *args, **options: connect(*args, **{**options, "timeout": 0}))
    other = connect("x.db", isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")

    done = run("import", "x.db", "new.yaml")
    other.close()
    assert (3, True) == (done.code, "database is locked" in done.err)


def test_of_several_tables_one_is_named(run: Run) -> None:
    for table in ("first", 'se"cond'):
        with sqlitedict.SqliteDict("x.db", tablename=table, encode=json.dumps, outer_stack=False) as opened:
            opened["name"] = table
            opened.commit()

    done = run("import", "x.db", "new.yaml")
    assert (3, True) == (done.code, 'it has the tables first, se"cond.' in done.err)
    assert 0 == run("import", "x.db", "new.yaml", "--table", 'se"cond').code
    assert {"name": 'se"cond'} == state()
    assert 3 == run("import", "x.db", "other.yaml", "--table", "nope").code


# --------------------------------------------------------------------------------------------------------- as a program


def test_killed_midway_it_leaves_the_file_as_it_was_or_with_all(tmp_path: Path) -> None:
    """It is killed before each kind of system call: the state is the old one, or the new one."""
    source = {f"k{number}": ["x" * 50] for number in range(2000)}
    (tmp_path / "x.json").write_text(json.dumps(source))
    file = tmp_path / "state.yaml"
    seen = {}
    for call in ("write", "sync_data", "sync", "rename", "rename_new", "exchange", "unlink"):
        file.write_text("# mine\nold: 1\n")
        code = (
            "import os, sys\nfrom pstate.file import fs\nfrom pstate.cli import main\n"
            f"assert fs.SYSTEM.{call}\nfs.SYSTEM.{call} = lambda *given: os.kill(os.getpid(), 9)\n"
            "sys.exit(main(sys.argv[1:]))"
        )
        words = [sys.executable, "-c", code, "import", "x.json", "state.yaml"]
        done = subprocess.run(words, cwd=tmp_path, check=False)
        assert done.returncode in (0, -signal.SIGKILL), call
        with PersistedState.open(file, read_only=True) as opened:
            keys = set(opened.snapshot())
        assert keys in ({"old"}, {"old", *source})
        seen[call] = done.returncode, len(keys)
    assert {(-9, 1), (-9, 2001)} <= set(seen.values()), seen


def test_a_file_that_cannot_be_written_is_left_alone(run: Run, tmp_path: Path) -> None:
    write_json("x.json")

    assert 3 == run("import", "x.json", "nowhere/new.yaml").code
    assert not Path("nowhere").exists()


def test_a_pipe_is_a_source(tmp_path: Path) -> None:
    done = subprocess.run(
        ["bash", "-c", "pstate import <(echo '{\"a\": 1}') new.yaml && cat new.yaml"],
        cwd=tmp_path, env=environment(tmp_path / "bin"), capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (0, "a: 1\n") == (done.returncode, done.stdout), done.stderr


def test_json_by_zlib_that_is_none_is_a_place(run: Run) -> None:
    with diskcache.Cache("cache", disk=diskcache.JSONDisk) as cache:
        cache["a"] = 1
        cache[[1, 2]] = 2
    database = sqlite3.connect("cache/cache.db")
    with database:
        key = zlib.compress(b'"b"')
        for broken, value in ((key, b"no zlib"), (zlib.compress(b'"c"'), zlib.compress(b"{"))):
            database.execute("INSERT INTO Cache (key, raw, mode, value) VALUES (?, 1, 1, ?)", (broken, value))
    database.close()

    done = run("import", "cache", "new.yaml")
    assert (1, "") == done[:2]
    places = [line.strip() for line in done.err.splitlines() if line.startswith("  ")]
    assert [".: a key, list cannot be one", "b: it is not JSON"] == sorted(places)[:2]
    assert sorted(places)[2].startswith("c: Expecting property name")


def test_a_source_says_its_size(run: Run) -> None:
    """Which decides whether progress is shown."""
    write_raw_diskcache("cache")

    assert 50_000 < sources.size("cache")
    assert 0 == sources.size("-")


def test_an_empty_pipe_is_no_source(run: Run) -> None:
    """It is what a program leaves that has failed."""
    done = run("import", "-", "new.yaml", stdin="\n")
    assert (
        3,
        "pstate: standard input: is empty. Nothing was changed. To import an empty document: --from yaml\n",
    ) == (
        done.code,
        done.err,
    )
    assert not Path("new.yaml").exists()
    assert 0 == run("import", "-", "new.yaml", "--from", "yaml", stdin="").code


# -------------------------------------------------------------------------------------------------------------- merging

OLD: dict[str, Any] = {"a": {"b": {"c": 1, "d": [1, 2], "none": None}, "e": "x"}, "list": [1], "s": {1}, "n": 1}


def test_a_merge_goes_into_mappings_at_every_level(run: Run) -> None:
    with PersistedState("new.yaml") as opened:
        opened.update(OLD)
    Path("x.json").write_text('{"a": {"b": {"c": 2, "d": [3], "none": {"x": 1}}, "f": {}}, "n": "1", "g": 1}')

    assert (0, "", "") == run("import", "x.json", "new.yaml", "--merge")
    merged = {"b": {"c": 2, "d": [3], "none": {"x": 1}}, "e": "x", "f": {}}
    assert same({**OLD, "a": merged, "n": "1", "g": 1}, state())


def test_a_merge_is_one_commit_of_what_differs(run: Run) -> None:
    with PersistedState("new.yaml") as opened:
        opened.update(OLD)
        opened.journal = True
        before = Path("new.yaml").read_bytes()
        Path("x.json").write_text('{"a": {"b": {"c": 2, "d": [1, 2]}, "e": "x"}, "list": [1], "n": 1}')

        assert "~ a.b.c: 1 -> 2\n" == run("import", "x.json", "new.yaml", "--merge", "--dry-run").out
        assert (0, "", "") == run("import", "x.json", "new.yaml", "--merge")
        added = Path("new.yaml").read_bytes().removeprefix(before)
    assert b'--- [["set",["a","b"],"c",2]]\n' == added[: added.index(b"...")]


@pytest.mark.parametrize(
    ("path", "text", "said"),
    [
        ("a", "1", "a mapping in FILE, a scalar in SOURCE"),
        ("a", "null", "a mapping in FILE, a scalar in SOURCE"),
        ("a.b.d", '{"0": 1}', "a list in FILE, a mapping in SOURCE"),
        ("a.e", "[1]", "a scalar in FILE, a list in SOURCE"),
        ("s", "[1]", "a set in FILE, a list in SOURCE"),
    ],
)
def test_a_merge_refuses_a_conflict_of_kinds(run: Run, path: str, text: str, said: str) -> None:
    with PersistedState("new.yaml") as opened:
        opened.update(OLD)
    source = text
    for key in reversed(path.split(".")):
        source = f'{{"{key}": {source}, "further": 1}}'
    Path("x.json").write_text(source)
    Path("value.json").write_text(text)

    for words in (["x.json"], ["value.json", "--into", path]):
        code, out, err = run("import", *words, "new.yaml", "--merge")
        assert (1, "") == (code, out)
        assert f"new.yaml: 1 value cannot be merged:\n  {path}: {said}\nNothing was changed. --replace" in err
        assert same(OLD, state())
    assert 0 == run("import", "x.json", "new.yaml", "--merge", "--replace").code
    found: Any = state()
    for key in path.split("."):
        assert "further" in found
        found = found[key]
    assert same(json.loads(text), found)


def test_a_merge_does_not_take_one_key_for_another(run: Run) -> None:
    Path("new.yaml").write_text("a:\n  1: x\n")
    Path("x.yaml").write_text("a:\n  true: y\n")

    code, _, err = run("import", "x.yaml", "new.yaml", "--merge", "--replace")
    assert (1, True) == (code, "  a[true]: FILE has another key that is equal to this one" in err)
    assert {"a": {1: "x"}} == state()


def test_a_merge_begins_a_file(run: Run) -> None:
    Path("x.json").write_text('{"a": {"b": 1}}')

    assert 0 == run("import", "x.json", "new.yaml", "--merge", "--into", "c").code
    assert {"c": {"a": {"b": 1}}} == state()
