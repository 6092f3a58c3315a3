"""Reads a source by its path, after finding out its format."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from typing import Any

from pstate.cli.command import Usage, input_bytes
from pstate.cli.transfer import databases, texts
from pstate.cli.transfer.faults import BadSource, Say
from pstate.errors import PStateError
from pstate.signals import expected

FORMATS = (*texts.READERS, *databases.READERS)

#: Standard input, where the source has this name.
STANDARD_INPUT = "-"


def read(path: str, name: str | None, table: str | None, as_strings: bool, say: Say) -> databases.Found:
    """What the source at *path* holds, in the format *name*, or in the one that it looks like. Raises BadSource.

    *table* is for formats that have tables, *as_strings* for those that know only strings.
    """
    try:
        return _read(path, name, table, as_strings, say)
    except expected(OSError) as error:
        if isinstance(error, PStateError):
            raise
        raise databases.unreadable(path, error) from error


def _read(path: str, name: str | None, table: str | None, as_strings: bool, say: Say) -> databases.Found:
    is_typed = path == STANDARD_INPUT
    name = name or (None if is_typed else _database_at(path))
    if name == "pickledb" and databases.is_sqlite(path):
        name = "sqlitedict"  # PickleDBSQLite has the same table, with JSON in it
    if table is not None and name not in databases.WITH_TABLES:
        raise Usage(f"{path}: only a sqlitedict has tables. Nothing was changed. Leave out --table.")
    if name in databases.READERS:
        if is_typed:
            raise Usage(f"a {name} cannot come from standard input. Nothing was changed. Give its path.")
        if as_strings:
            raise _not_only_strings(path)
        return databases.READERS[name](path, table, say)
    if is_typed:
        return _read_text(input_bytes(), "standard input", name, "", as_strings)
    return _read_text(_content(path), path, name, texts.ending(path), as_strings)


def _not_only_strings(path: str) -> Usage:
    return Usage(f"{path}: --string is for env, ini and csv only. Nothing was changed. Leave it out.")


def size(path: str) -> int:
    """How many bytes the source at *path* has, about."""
    files = [path]
    if os.path.isdir(path):
        files = [os.path.join(folder, name) for folder, _, names in os.walk(path) for name in names]
    return sum(os.stat(file).st_size for file in files if os.path.exists(file))


def _database_at(path: str) -> str | None:
    """The format of *path*, if it is not text."""
    if os.path.isdir(path):
        if databases.caches_in(path):
            return "diskcache"
        raise BadSource(f"{path}: this folder is not a diskcache: it does not contain a cache.db. Nothing was changed.")
    if databases.is_sqlite(path):
        return databases.format_of(path)
    if os.path.exists(path) and (texts.ending(path) in texts.SUFFIXES or not os.path.isfile(path)):
        return None
    return "shelve" if databases.shelf_at(path) else None


def _read_text(data: bytes, path: str, name: str | None, suffix: str, as_strings: bool) -> databases.Found:
    reader: Callable[..., Any] = texts.READERS[name] if name else texts.SUFFIXES.get(suffix, texts.read_any)
    if as_strings:
        if reader not in texts.OF_STRINGS.values():
            raise _not_only_strings(path)
        reader = partial(reader, is_typed=False)
    if reader is texts.read_any and b"\0" in data[:1000]:
        raise BadSource(f"{path}: the format is not recognized. Nothing was changed. Name it with --from.")
    if reader is texts.read_any and not data.strip():
        # Probably a program that failed before a pipe. A file that is meant to be empty has the name of a format.
        raise BadSource(f"{path}: is empty. Nothing was changed. To import an empty document: --from yaml")
    return databases.Found(reader(data, path), [])


def _content(path: str) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read()
    except expected(FileNotFoundError):
        raise BadSource(f"{path}: the file does not exist. Nothing was changed.") from None
