"""Reads text formats from bytes: JSON, TOML, YAML, env, ini, csv, and files of persistedstate, pickledb and tinydb.

Each reader is given the bytes, and the name of the source for messages, and raises BadSource with line and column.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import re
from collections import Counter
from collections.abc import Callable
from typing import Any

from pstate.cli.mending import unopened
from pstate.cli.transfer import env, ini, table
from pstate.cli.transfer.faults import BadSource, bad_line, bad_place
from pstate.errors import StateFileError
from pstate.file import legacy
from pstate.text import reading

_NUMBER = re.compile(r"0|[1-9][0-9]{0,17}")
_IN_TOML = re.compile(r" \(at (?:line (\d+), column (\d+)|end of document)\)$")


def read_json(data: bytes, name: str) -> Any:
    """Any value: a mapping, a list, a scalar. NaN and Infinity are read as Python writes them."""
    text = _decoded(data, json.detect_encoding(data), name)
    try:
        return json_value(text)
    except json.JSONDecodeError as error:
        raise bad_line(name, error.lineno, f"this is not JSON: {error.msg}", error.colno) from None
    except ValueError as error:
        raise BadSource(f"{name}: {error}. Nothing was changed. Correct the source.") from None


def json_value(text: str) -> Any:
    """The value of the JSON *text*. Raises ValueError, also if Python would silently read another value."""
    try:
        return json.loads(text, object_pairs_hook=_mapping, parse_float=_float)
    except RecursionError:
        raise ValueError("it is nested more deeply than a state can be") from None


def _mapping(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    mapping = dict(pairs)
    if len(mapping) < len(pairs):
        ((twice, _),) = Counter(key for key, _ in pairs).most_common(1)
        raise ValueError(f"the key {json.dumps(twice)} occurs twice in one mapping")
    return mapping


def _float(text: str) -> float:
    number = float(text)
    if math.isinf(number) and text.lstrip("+-") != "inf":
        raise ValueError(f"the number {text} is beyond what Python's float can hold")
    return number


def read_toml(data: bytes, name: str) -> Any:
    import tomllib

    text = _decoded(data, "utf-8-sig", name)
    try:
        return tomllib.loads(text, parse_float=_float)
    except tomllib.TOMLDecodeError as error:
        found = _IN_TOML.search(str(error))
        end = text.count("\n") + 1, len(text) - text.rfind("\n")
        line, column = (int(found[1]), int(found[2])) if found and found[1] else end
        raise bad_line(name, line, f"this is not TOML: {_IN_TOML.sub('', str(error))}", column) from None
    except RecursionError:
        raise BadSource(f"{name}: it is nested more deeply than a state can be. Nothing was changed.") from None
    except ValueError as error:
        raise BadSource(f"{name}: {error}. Nothing was changed. Correct the source.") from None


def read_yaml(data: bytes, name: str) -> Any:
    """A document of any kind, or a file of pstate or persistedstate, with or without its journal."""
    try:
        return unopened.replayed(unopened.read(data, name), name, data)
    except StateFileError:
        try:
            documents = reading.load_all(data, name)
        except StateFileError:
            documents = []
        if len(documents) == 1 and not isinstance(documents[0].value, dict):
            return documents[0].value  # which is not a state, but can be a value in one
        raise


def read_persistedstate(data: bytes, name: str) -> Any:
    try:
        return unopened.replayed(unopened.read(data, name), name, data)
    except StateFileError:
        with contextlib.suppress(StateFileError):
            found = legacy.load_lines(data, name)  # of 23.1 and 23.2, which only the user can know
            if found.records and not found.torn:
                return found.value
        raise


def read_pickledb(data: bytes, name: str) -> Any:
    """Which is JSON, whatever the package is called."""
    tree = read_json(data, name)
    if not isinstance(tree, dict):
        raise BadSource(f"{name}: pickledb has a mapping in its file. Nothing was changed. Perhaps: --from json")
    return tree


def read_tinydb(data: bytes, name: str) -> Any:
    """Tables of documents, by their ids, which are integers in tinydb, though JSON cannot say so."""
    tree = read_json(data, name) if data.strip() else {}
    if not _are_tables(tree):
        raise BadSource(f"{name}: tinydb has tables of numbered documents. Nothing was changed. Perhaps: --from json")
    return _numbered(tree)


def _of_strings(read: Callable[[str, str, bool], Any]) -> Callable[..., Any]:
    """The reader of a format that knows only strings."""

    def reader(data: bytes, name: str, is_typed: bool = True) -> Any:
        return read(_decoded(data, "utf-8-sig", name), name, is_typed)

    return reader


def read_any_json(data: bytes, name: str) -> Any:
    """JSON; with the table that every tinydb begins with, a tinydb."""
    tree = read_json(data, name)
    return _numbered(tree) if _are_tables(tree) and "_default" in tree else tree


def read_any(data: bytes, name: str) -> Any:
    """A source whose format is not named."""
    if data.removeprefix(b"\xef\xbb\xbf").lstrip()[:1] in (b"{", b"["):
        try:
            return read_any_json(data, name)
        except BadSource:
            pass  # YAML may begin so too
    tree = read_yaml(data, name)
    if isinstance(tree, str):
        raise BadSource(f"{name}: the format is not recognized. Nothing was changed. Name it with --from.")
    return tree


#: Those that decide which strings are numbers and so on; `is_typed=False` leaves all of them strings.
OF_STRINGS: dict[str, Callable[..., Any]] = {
    "env": _of_strings(env.read),
    "ini": _of_strings(ini.read),
    "csv": _of_strings(table.read),
}
READERS: dict[str, Callable[[bytes, str], Any]] = {
    "json": read_json,
    "toml": read_toml,
    "yaml": read_yaml,
    **OF_STRINGS,
    "persistedstate": read_persistedstate,
    "pickledb": read_pickledb,
    "tinydb": read_tinydb,
}
SUFFIXES: dict[str, Callable[[bytes, str], Any]] = {
    ".json": read_any_json,
    ".toml": read_toml,
    ".yaml": read_yaml,
    ".yml": read_yaml,
    ".env": OF_STRINGS["env"],
    ".ini": OF_STRINGS["ini"],
    ".csv": OF_STRINGS["csv"],
}


def ending(path: str) -> str:
    """The part of a name that says the format, such as ``.json``: of ``.env`` and ``.env.local`` too."""
    name = os.path.basename(path).lower()
    return ".env" if name == ".env" or name.startswith(".env.") else os.path.splitext(name)[1]


def _are_tables(tree: Any) -> bool:
    return isinstance(tree, dict) and all(
        isinstance(table, dict)
        and all(map(_NUMBER.fullmatch, table))
        and all(isinstance(document, dict) for document in table.values())
        for table in tree.values()
    )


def _numbered(tables: dict[str, Any]) -> dict[str, Any]:
    return {name: {int(key): document for key, document in table.items()} for name, table in tables.items()}


def _decoded(data: bytes, encoding: str, name: str) -> str:
    try:
        return data.decode(encoding)
    except UnicodeDecodeError as error:
        good = data[: error.start].decode(encoding, "replace")
        what = f"this is not {encoding.upper().removesuffix('-SIG')}: {error.reason}"
        raise bad_place(good, len(good), name, what) from None
