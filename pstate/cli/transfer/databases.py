"""Reads shelve, sqlitedict and diskcache, without the packages that wrote them.

SQLite opens a database read-only, but may still change files: with a write-ahead log, it creates files beside the
database, and it rolls an unfinished transaction back. If such files exist, this module reads a copy. If not, it tells
SQLite that the file is immutable. If a program writes to the file during the import, it is an error.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import stat
import tempfile
import time
import zlib
from collections.abc import Iterator
from typing import Any, NamedTuple

from pstate.cli.transfer import texts
from pstate.cli.transfer.arrival import Pickled, Unfit
from pstate.cli.transfer.faults import BadSource, Say, counted
from pstate.signals import expected, tolerating

_MAGIC = b"SQLite format 3\0"
_SHELF = "Dict"  #: the table of dbm.sqlite3
_FROM_DBM = "key BLOB UNIQUE NOT NULL"
_SHARD = re.compile(r"[0-9]{3}")
_RAW, _BINARY, _TEXT, _PICKLE = 1, 2, 3, 4  #: diskcache's modes
_STEP = 10_000

#: A pickle begins with its protocol, from 2 on; the ones before are recognised by their last byte.
_PICKLE_BEGINS = re.compile(rb"\x80[\x02-\x05]")
_PICKLE_ENDS = b"."


class Found(NamedTuple):
    """The content of a source."""

    tree: dict[Any, Any]  #: with `Pickled` and `Unfit` in it
    notes: list[str]  #: what was not imported, because a state cannot hold it


# --------------------------------------------------------------------------------------------------------------- SQLite


def is_sqlite(path: str) -> bool:
    """Whether the file at *path* begins like a database of SQLite."""
    if not os.path.isfile(path):
        return False  # what is read from a pipe is gone
    with tolerating(OSError), open(path, "rb") as file:
        return file.read(len(_MAGIC)) == _MAGIC
    return False


def format_of(path: str) -> str:
    """Which of the formats a file of SQLite is, by its tables."""
    with _opened(path, check=False) as database:
        tables = _tables(database)
    if "Cache" in tables and "Settings" in tables:
        return "diskcache"
    return "shelve" if _FROM_DBM in tables.get(_SHELF, "") else "sqlitedict"


@contextlib.contextmanager
def _opened(path: str, check: bool = True) -> Iterator[Any]:
    """The database at *path*, as it is at one moment, with all bytes of it looked at if *check*.

    An error of SQLite becomes BadSource.
    """
    import sqlite3
    from urllib.parse import quote

    folder = None
    database = None
    try:
        before = _signature(path)
        source, options = path, "mode=ro"
        beside = [path + ending for ending in ("-wal", "-journal") if _size(path + ending)]
        if beside:
            folder = tempfile.mkdtemp(prefix="pstate-")  # readable for nobody else
            source, options = os.path.join(folder, "copy"), "mode=rw"
            for name in (path, *beside):
                shutil.copyfile(name, source + name[len(path) :])
            _refuse_change(path, before)
        elif before[1][18:20] == b"\2\2":  # with a write-ahead log, when it is in use
            options = "mode=ro&immutable=1"
        database = sqlite3.connect(
            f"file:{quote(os.fsencode(os.path.abspath(source)))}?{options}", uri=True, isolation_level=None, timeout=5
        )
        # Text that is not UTF-8 becomes a string that a state refuses, with its place.
        database.text_factory = lambda text: text.decode("utf-8", "surrogateescape")
        database.execute("PRAGMA trusted_schema = OFF")
        database.execute("BEGIN")
        if check:
            (verdict,) = database.execute("PRAGMA quick_check(1)").fetchone()
            if verdict != "ok":
                raise BadSource(f"{path}: the database is damaged: {verdict}. Nothing was changed. Mend it first.")
        yield database
        if "immutable" in options:
            _refuse_change(path, before)
    except sqlite3.Error as error:
        raise BadSource(
            f"{path}: SQLite cannot read it: {error}. Nothing was changed. "
            "If a program has it open, close that first; else mend it, with: sqlite3 FILE .recover"
        ) from error
    except expected(OSError) as error:
        raise unreadable(path, error) from error
    finally:
        if database is not None:
            database.close()
        if folder is not None:
            shutil.rmtree(folder, ignore_errors=True)


def _signature(path: str) -> tuple[Any, bytes]:
    """What differs after a program has written to the database at *path*."""
    with open(path, "rb") as file:
        head = file.read(100)
    states = []
    for name in (path, f"{path}-wal", f"{path}-journal"):
        try:
            status = os.stat(name)
            states.append((status.st_size, status.st_mtime_ns, status.st_ino))
        except expected(FileNotFoundError):
            states.append((0, 0, 0))
    return states, head


def _refuse_change(path: str, before: tuple[Any, bytes]) -> None:
    if _signature(path) != before:
        raise BadSource(
            f"{path}: a program wrote to it during the import. Nothing was changed. Close that program first."
        )


def _size(path: str) -> int:
    try:
        return os.stat(path).st_size
    except expected(FileNotFoundError):
        return 0


def unreadable(path: str, error: OSError) -> BadSource:
    """The error if the source at *path* cannot be read."""
    return BadSource(f"{path}: cannot be read: {error.strerror or error}. Nothing was changed.", errno=error.errno)


def _tables(database: Any) -> dict[str, str]:
    """The tables of *database*, with the statements that made them."""
    rows = database.execute("SELECT name, sql FROM sqlite_master WHERE type = 'table' ORDER BY rowid")
    return {name: sql or "" for name, sql in rows if not name.startswith("sqlite_")}


def _rows(path: str, database: Any, table: str, columns: str, say: Say) -> Iterator[tuple[Any, ...]]:
    if table not in _tables(database):  # and a view may be anything
        raise BadSource(f"{path}: it has no table {table!r}. Nothing was changed.")
    quoted = table.replace('"', '""')
    for number, row in enumerate(database.execute(f'SELECT {columns} FROM "{quoted}" ORDER BY rowid')):
        if number % _STEP == 0:
            say(f"reading {table}: {counted(number, 'row')}")
        yield row


# ----------------------------------------------------------------------------------------------------------- sqlitedict


def read_sqlitedict(path: str, table: str | None, say: Say) -> Found:
    """The pairs of one table: its values are JSON, numbers, or pickles. PickleDBSQLite has the same."""
    with _opened(path) as database:
        table = table or _only_table(path, _pair_tables(database))
        rows = list(_rows(path, database, table, "key, value", say))
    return Found({_sqlitedict_key(key): _sqlitedict_value(value) for key, value in rows}, [])


def _pair_tables(database: Any) -> list[str]:
    return [
        table
        for table in _tables(database)
        if [column for _, column, *_ in database.execute("SELECT * FROM pragma_table_info(?)", (table,))]
        == ["key", "value"]
    ]


def _only_table(path: str, tables: list[str]) -> str:
    if len(tables) == 1:
        return tables[0]
    if not tables:
        raise BadSource(
            f"{path}: none of its tables has the columns key and value, as in sqlitedict. Nothing was changed."
        )
    raise BadSource(
        f"{path}: it has the tables {', '.join(tables)}. Nothing was changed. Choose one: --table {tables[0]}"
    )


def _sqlitedict_key(key: Any) -> Any:
    if type(key) is str and key.startswith("gA"):
        import base64
        import binascii

        with contextlib.suppress(binascii.Error, ValueError):
            data = base64.b64decode(key, validate=True)
            if _PICKLE_BEGINS.match(data) and data.endswith(_PICKLE_ENDS):
                return Pickled(data)  # by sqlitedict.encode_key
    return key


def _sqlitedict_value(value: Any) -> Any:
    if type(value) not in (bytes, str):
        return value
    if type(value) is bytes and _PICKLE_BEGINS.match(value):
        return Pickled(value)
    try:
        return texts.json_value(value if isinstance(value, str) else value.decode())
    except ValueError as error:
        if type(value) is bytes and value.endswith(_PICKLE_ENDS):
            return Pickled(value)
        return Unfit(f"neither a pickle nor JSON ({error})")


# --------------------------------------------------------------------------------------------------------------- shelve


def shelf_at(path: str) -> tuple[str, str] | None:
    """The name by which `dbm` knows the shelf at *path*, and the module that reads it; None if there is none."""
    import dbm

    for ending in ("", ".db", ".dat", ".dir", ".pag"):
        if path.endswith(ending):
            name = path.removesuffix(ending)
            module = dbm.whichdb(name)
            if module:
                return name, module
    return None


def read_shelve(path: str, table: str | None, say: Say) -> Found:
    """All of it pickles, but for the keys."""
    for name in (path, f"{path}.db"):
        if is_sqlite(name):
            with _opened(name) as database:
                rows = list(_rows(path, database, _SHELF, "key, value", say))
            return Found({_shelve_key(key): Pickled(value) for key, value in rows}, [])
    found = shelf_at(path)
    if found is None:
        raise BadSource(f"{path}: this is not a shelf: no module of dbm recognizes it. Nothing was changed.")
    return Found(dict(_dbm_pairs(path, *found, say)), [])


def _dbm_pairs(path: str, name: str, module: str, say: Say) -> Iterator[tuple[Any, Any]]:
    import dbm
    import importlib

    try:
        reader = importlib.import_module(module)
    except ImportError:
        raise BadSource(
            f"{path}: was written by {module}, which this Python does not have. Nothing was changed. "
            "Import it with the Python that wrote it."
        ) from None
    try:
        with reader.open(name, "r") as shelf:
            for number, key in enumerate(shelf.keys()):
                if number % _STEP == 0:
                    say(f"reading {counted(number, 'value')}")
                yield _shelve_key(key), Pickled(shelf[key])
    except expected(*dbm.error) as error:  # among them OSError
        raise BadSource(f"{path}: {module} cannot read it: {error}. Nothing was changed.") from error
    except (ValueError, TypeError, AttributeError, SyntaxError, MemoryError, RecursionError) as error:
        # Of dbm.dumb, whose index is written as Python.
        raise BadSource(f"{path}: its index is damaged ({error}). Nothing was changed.") from error


def _shelve_key(key: Any) -> Any:
    return key.decode("utf-8", "surrogateescape") if type(key) is bytes else key


# ------------------------------------------------------------------------------------------------------------ diskcache


def caches_in(path: str) -> list[str]:
    """The databases of the diskcache at *path*: one, or one for each shard of a FanoutCache."""
    if not os.path.isdir(path):
        return [path] if os.path.exists(path) else []
    names = (
        [""] if os.path.exists(os.path.join(path, "cache.db")) else sorted(filter(_SHARD.fullmatch, os.listdir(path)))
    )
    found = [os.path.join(path, name, "cache.db") for name in names]
    return [file for file in found if os.path.exists(file)]


class _Row(NamedTuple):
    key: Any
    is_raw: int
    expires: float | None
    tag: Any
    mode: int
    filename: str | None
    value: Any


def read_diskcache(path: str, table: str | None, say: Say) -> Found:
    """All that has not expired, the values in files of their own too."""
    now = time.time()
    tree: dict[Any, Any] = {}
    expired = expiring = tagged = 0
    databases = caches_in(path)
    if not databases:
        raise BadSource(f"{path}: it does not contain a cache.db. Nothing was changed.")
    for file in databases:
        folder = os.path.realpath(os.path.dirname(file))
        with _opened(file) as database:
            columns = "key, raw, CAST(expire_time AS REAL), tag, mode, filename, value"
            rows = [_Row(*row) for row in _rows(path, database, "Cache", columns, say)]
        as_json = bool(rows) and all(row.is_raw and _unzipped(row.key) is not None for row in rows)
        for number, row in enumerate(rows):
            if number % _STEP == 0:
                say(f"reading {counted(number, 'value')} of {len(rows):,}")
            if row.expires is not None and row.expires <= now:
                expired += 1
                continue
            expiring += row.expires is not None
            tagged += row.tag is not None
            value = _diskcache_value(row, folder)
            key = _json_key(row.key) if as_json else row.key if row.is_raw else Pickled(row.key)
            if key in tree:  # such as 1 and 1.0 in two shards, or 1 and true in JSON
                key = Unfit(f"equal to another one: {key!r}")
            tree[key] = _json_item(value) if as_json else value
    notes = [f"{counted(expired, 'value')} left out: expired"] if expired else []
    if expiring:
        notes.append(f"{counted(expiring, 'value')} taken without the time at which it would have expired")
    if tagged:
        notes.append(f"{counted(tagged, 'value')} taken without its tag")
    return Found(tree, notes)


def _diskcache_value(row: _Row, folder: str) -> Any:
    if row.filename is None:
        value = row.value
    else:
        try:
            value = _content(row.filename, folder)
        except expected(OSError, ValueError, TypeError) as error:
            return Unfit(f"its file {row.filename!r} cannot be read ({error})")
    if row.mode == _TEXT and type(value) is bytes:
        return value.decode("utf-8", "surrogateescape")
    if row.mode == _PICKLE and type(value) is bytes:
        return Pickled(value)
    if row.mode == _RAW or (row.mode == _BINARY and type(value) is bytes):
        return value
    return Unfit(f"{row.mode} is not a mode of diskcache")


def _content(filename: str, folder: str) -> bytes:
    path = os.path.realpath(os.path.join(folder, filename))
    if os.path.commonpath([path, folder]) != folder:  # a database may say what it likes
        raise ValueError("it is outside the cache")
    with open(path, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK)) as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise ValueError("it is not a regular file")
        return file.read()


# ---------------------------------------------------------------------------- diskcache.JSONDisk, which compresses JSON


def _unzipped(data: Any) -> str | None:
    """The text in *data*, or None."""
    if type(data) is not bytes or not data.startswith(b"x"):
        return None
    try:
        return zlib.decompress(data).decode()
    except (zlib.error, UnicodeDecodeError):
        return None


def _json_item(data: Any) -> Any:
    if type(data) in (Pickled, Unfit):
        return data
    text = _unzipped(data)
    try:
        return Unfit("it is not JSON") if text is None else texts.json_value(text)
    except ValueError as error:
        return Unfit(str(error))


def _json_key(data: bytes) -> Any:
    key = _json_item(data)
    return Unfit(f"{type(key).__name__} cannot be one") if isinstance(key, list | dict) else key


#: The formats in which one file can hold several stores.
WITH_TABLES = ("sqlitedict",)

READERS = {"shelve": read_shelve, "sqlitedict": read_sqlitedict, "diskcache": read_diskcache}
