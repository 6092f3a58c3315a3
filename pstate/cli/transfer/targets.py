"""Writes a tree as a file, or files, of another store: beside the target, synced, and renamed when complete.

The package of a store writes its files, if it is installed. Of the text formats, only TOML needs a package.
"""

from __future__ import annotations

import errno
import importlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable
from typing import Any

from pstate.cli.command import No, Usage
from pstate.cli.transfer import env, ini, table
from pstate.cli.transfer.faults import Say
from pstate.errors import WriteError
from pstate.file.fs import NO_SUCH_RENAME, SYSTEM, Descriptor, open_beside
from pstate.signals import expected, tolerating
from pstate.text import dumping

#: What a dbm may append to the name of a shelf.
_ENDINGS = ("", ".db", ".dat", ".dir", ".bak", ".pag")
_MADE = "made"

#: A folder replaces nothing: it cannot replace a file, and only a person should delete a folder.
_FOLDERS = {"diskcache"}


# ------------------------------------------------------------------------------------------------------ text formats


def _json(tree: Any) -> bytes:
    return (json.dumps(tree, ensure_ascii=False, allow_nan=False, indent=2) + "\n").encode()


def _toml(tree: Any) -> bytes:
    return str(_package("tomli_w", "toml", "tomli-w").dumps(tree)).encode()


TEXTS: dict[str, Callable[[Any], bytes]] = {
    "json": _json,
    "toml": _toml,
    "yaml": dumping.dump_value,
    "env": env.write,
    "ini": ini.write,
    "csv": table.write,
    "persistedstate": dumping.dump_value,  # after a clean close its file is plain YAML
}
SUFFIXES = {
    ".json": "json", ".toml": "toml", ".yaml": "yaml", ".yml": "yaml", ".env": "env", ".ini": "ini", ".csv": "csv",
}  # fmt: skip


# ----------------------------------------------------------------------------------------------------- stores


def _shelve(tree: dict[str, Any], path: str, say: Say) -> None:
    import shelve

    with shelve.open(path, flag="n") as shelf:
        _fill(shelf, tree, say)
    with shelve.open(path, flag="r") as shelf:
        # With Berkeley DB, which is dbm.ndbm in Debian's Python, the list of the keys ends at an empty one.
        if tree.keys() - set(shelf):
            raise OSError(errno.EINVAL, "the dbm of this Python does not give back every key, such as an empty one")


def _sqlitedict(tree: dict[str, Any], path: str, say: Say) -> None:
    with _package("sqlitedict").SqliteDict(path, outer_stack=False) as store:
        store.update(tree)
        store.commit()


def _diskcache(tree: dict[Any, Any], path: str, say: Say) -> None:
    if os.path.expandvars(path) != path:  # diskcache would make another folder
        raise OSError(errno.EINVAL, "diskcache takes $ in a path for a variable")
    # Otherwise it deletes values beyond its size limit.
    with _package("diskcache").Cache(path, eviction_policy="none") as cache, cache.transact():
        _fill(cache, tree, say)


def _pickledb(tree: dict[str, Any], path: str, say: Say) -> None:
    store = _package("pickledb").PickleDB(path)
    store.db = tree  # its `set` begins an event loop for each key
    store.save()


def _tinydb(tree: dict[str, Any], path: str, say: Say) -> None:
    with _package("tinydb").TinyDB(path) as store:
        store.storage.write(tree)  # all tables at once; `insert` writes the whole file for each


def _fill(store: Any, tree: dict[Any, Any], say: Say) -> None:
    for number, (key, value) in enumerate(tree.items()):
        if number % 1000 == 0:
            say(f"writing value {number:,} of {len(tree):,}")
        store[key] = value


STORES: dict[str, Callable[[Any, str, Say], None]] = {
    "shelve": _shelve,
    "sqlitedict": _sqlitedict,
    "diskcache": _diskcache,
    "pickledb": _pickledb,
    "tinydb": _tinydb,
}
FORMATS = (*TEXTS, *STORES)


def _package(module: str, name: str = "", requirement: str = "") -> Any:
    try:
        return importlib.import_module(module)
    except ImportError:
        raise Usage(
            f"--to {name or module} needs a package that is not installed. Nothing was written. "
            f"Run: pip install {requirement or module}"
        ) from None


# ---------------------------------------------------------------------------------------------------------- the target


def refuse(target: str, name: str, state: str, may_replace: bool) -> None:
    """Raise No if something at *target* prevents an export of format *name*; *state* is the file of the state."""
    for path in _paths(target, name):
        if not os.path.lexists(path):
            continue
        with tolerating(OSError):
            if os.path.samefile(path, state):
                raise No(f"{path}: is the state itself. Nothing was written. Choose another target.")
        if os.path.isdir(path) or name in _FOLDERS:
            kind = "is a folder" if os.path.isdir(path) else "already exists"
            raise No(f"{path}: {kind}. Nothing was written. Delete it, or choose another target.")
        if not may_replace:
            raise No(f"{path}: already exists. Nothing was written. To replace it: --force")


def _paths(target: str, name: str) -> list[str]:
    return [target + ending for ending in (_ENDINGS if name == "shelve" else ("",))]


def put(tree: Any, target: str, name: str, may_replace: bool, say: Say) -> None:
    """Make *target* from *tree*. Raises WriteError, and then nothing has changed."""

    def make(made: str) -> None:
        if name in TEXTS:
            with open(made, "wb") as file:
                file.write(TEXTS[name](tree))
        else:
            STORES[name](tree, made, say)

    put_made(make, target, may_replace)


def put_text(text: bytes, target: str, may_replace: bool) -> None:
    """Make *target* with *text*. Raises WriteError, and then nothing has changed."""

    def make(made: str) -> None:
        with open(made, "wb") as file:
            file.write(text)

    put_made(make, target, may_replace)


def put_made(make: Callable[[str], None], target: str, may_replace: bool) -> None:
    """Put the files that *make* makes, when it is given a path, at *target*. Raises as `put`."""
    import sqlite3

    target = os.path.realpath(target)
    folder = None
    try:
        folder = tempfile.mkdtemp(prefix=".pstate-export-", dir=os.path.dirname(target))
        made = os.path.join(folder, _MADE)
        make(made)
        files = {
            os.path.join(folder, file_name): target + file_name.removeprefix(_MADE)
            for file_name in sorted(os.listdir(folder))
        }
        if may_replace:
            for new, old in files.items():
                _take_over(old, new)
        _sync(folder)
        for new, old in files.items():
            _move(new, old, may_replace)
        SYSTEM.sync_folder(os.path.dirname(target))
    except expected(OSError, sqlite3.Error) as error:
        why = getattr(error, "strerror", None) or error
        raise WriteError(
            f"{target}: could not be written: {why}. Nothing was changed.",
            path=target,
            errno=getattr(error, "errno", None),
        ) from error
    finally:
        if folder is not None:
            shutil.rmtree(folder, ignore_errors=True)


def _move(made: str, target: str, may_replace: bool) -> None:
    if may_replace:
        os.rename(made, target)
        return
    try:
        SYSTEM.rename_new(made, target)  # the target may exist by now, after `refuse` has looked
    except expected(OSError) as error:
        if error.errno not in NO_SUCH_RENAME:
            raise
        if os.path.lexists(target):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), target) from error
        os.rename(made, target)


def _take_over(target: str, made: str) -> None:
    """Give the file *made* the owner and mode of the one at *target*, which it will replace."""
    old, new = Descriptor(SYSTEM), Descriptor(SYSTEM)
    try:
        try:
            open_beside(SYSTEM, old, target, os.O_RDONLY)
        except expected(FileNotFoundError):
            return
        open_beside(SYSTEM, new, made, os.O_RDWR)
        SYSTEM.copy_attributes(old.number, new.number)
    finally:
        old.close()
        new.close()


def _sync(folder: str) -> None:
    for inside, _, names in os.walk(folder, topdown=False):
        for name in names:
            with open(os.path.join(inside, name), "rb") as file:
                SYSTEM.sync(file.fileno())
        SYSTEM.sync_folder(inside)
