"""Stores beside which pstate is measured, each by the calls that its own documentation uses.

A peer belongs to a class of durability, and is compared within it: what an acknowledged change survives. "kill" means
kill -9, "power" means a power cut, "neither" means that either may lose it, or tear the file.
"""

from __future__ import annotations

import importlib
import os
import sqlite3
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar
from zlib import crc32

#: Peers need not be installed, to run or to be checked for types.
module: Callable[[str], Any] = importlib.import_module

KEYS = [f"key{number}" for number in range(10)]


class Peer:
    """A counter in a store. Each method loops itself, so that only the store's own calls are measured."""

    label = ""
    durability = "kill"
    needs = ""  #: a module that may not be installed

    def __init__(self, folder: Path) -> None:
        raise NotImplementedError

    def count(self, times: int) -> None:
        """Increment the counter, one durable change each time."""
        raise NotImplementedError

    def read(self, times: int) -> None:
        """Read the counter."""
        raise NotImplementedError

    def tens(self, times: int) -> None:
        """Set ten keys in one transaction."""
        raise NotImplementedError

    def close(self) -> None:
        raise NotImplementedError

    @classmethod
    def missing(cls) -> str:
        """What must be installed first; or ""."""
        try:
            importlib.import_module(cls.needs or "sys")
        except ImportError:
            return cls.needs
        return ""


class PState(Peer):
    label = "pstate"
    options: ClassVar[dict[str, Any]] = {}

    def __init__(self, folder: Path) -> None:
        from pstate import PersistedState

        self.state: Any = PersistedState.open(folder / "state.yaml", defaults={"counter": 0}, **self.options)

    def count(self, times: int) -> None:
        state = self.state
        for _ in range(times):
            state.counter += 1

    def read(self, times: int) -> None:
        state = self.state
        for _ in range(times):
            _ = state.counter

    def tens(self, times: int) -> None:
        state = self.state
        for number in range(times):
            with state.transaction():
                for key in KEYS:
                    state[key] = number

    def close(self) -> None:
        self.state.close()


class PStatePower(PState):
    label = 'pstate, durability="power"'
    durability = "power"
    options: ClassVar[dict[str, Any]] = {"durability": "power"}


class PersistedStatePeer(Peer):
    label = "persistedstate"
    needs = "persistedstate"

    def __init__(self, folder: Path) -> None:
        self.state: Any = module("persistedstate").PersistedState(folder / "state", counter=0)

    count = PState.count
    read = PState.read
    close = PState.close


class Sqlite(Peer):
    label = "sqlite3 WAL, NORMAL"
    synchronous = "NORMAL"

    def __init__(self, folder: Path) -> None:
        self.connection = sqlite3.connect(folder / "db", isolation_level=None)
        self.connection.execute("PRAGMA journal_mode=WAL")
        self.connection.execute(f"PRAGMA synchronous={self.synchronous}")
        self.connection.execute("CREATE TABLE state (key TEXT PRIMARY KEY, value)")
        self.connection.execute("INSERT INTO state VALUES ('counter', 0)")

    def count(self, times: int) -> None:
        execute = self.connection.execute
        for _ in range(times):
            execute("UPDATE state SET value = value + 1 WHERE key = 'counter'")

    def read(self, times: int) -> None:
        execute = self.connection.execute
        for _ in range(times):
            _ = execute("SELECT value FROM state WHERE key = 'counter'").fetchone()[0]

    def tens(self, times: int) -> None:
        connection = self.connection
        for number in range(times):
            connection.execute("BEGIN IMMEDIATE")
            for key in KEYS:
                connection.execute("INSERT OR REPLACE INTO state VALUES (?, ?)", (key, number))
            connection.execute("COMMIT")

    def close(self) -> None:
        self.connection.close()


class SqliteFull(Sqlite):
    label = "sqlite3 WAL, FULL"
    durability = "power"
    synchronous = "FULL"


class Lmdb(Peer):
    label = "lmdb, sync=False"
    needs = "lmdb"
    sync = False

    def __init__(self, folder: Path) -> None:
        self.environment: Any = module("lmdb").open(str(folder / "lmdb"), sync=self.sync, map_size=1 << 26)
        with self.environment.begin(write=True) as transaction:
            transaction.put(b"counter", b"0")

    def count(self, times: int) -> None:
        begin = self.environment.begin
        for _ in range(times):
            with begin(write=True) as transaction:
                transaction.put(b"counter", b"%d" % (int(transaction.get(b"counter")) + 1))

    def read(self, times: int) -> None:
        begin = self.environment.begin
        for _ in range(times):
            with begin() as transaction:
                _ = int(transaction.get(b"counter"))

    def tens(self, times: int) -> None:
        begin = self.environment.begin
        keys = [key.encode() for key in KEYS]
        for number in range(times):
            with begin(write=True) as transaction:
                for key in keys:
                    transaction.put(key, b"%d" % number)

    def close(self) -> None:
        self.environment.close()


class LmdbSync(Lmdb):
    label = "lmdb, sync=True"
    durability = "power"
    sync = True


class _Mapping(Peer):
    """What is used as a dict with a key "counter"."""

    db: Any
    key: str | bytes = "counter"

    def count(self, times: int) -> None:
        db, key = self.db, self.key
        for _ in range(times):
            db[key] += 1

    def read(self, times: int) -> None:
        db, key = self.db, self.key
        for _ in range(times):
            _ = db[key]

    def close(self) -> None:
        self.db.close()


class Lmdbm(_Mapping):
    label = "lmdbm"
    durability = "power"
    needs = "lmdbm"
    key = b"counter"

    def __init__(self, folder: Path) -> None:
        base: Any = module("lmdbm").Lmdb

        class Numbers(base):  # type: ignore[misc]
            def _pre_value(self, value: int) -> bytes:
                return b"%d" % value

            def _post_value(self, value: bytes) -> int:
                return int(value)

        self.db = Numbers.open(str(folder / "lmdbm"), "c")
        self.db[self.key] = 0


class Shelve(_Mapping):
    label = "shelve"
    durability = "neither"

    def __init__(self, folder: Path) -> None:
        import shelve

        self.db = shelve.open(str(folder / "shelf"))  # noqa: SIM115
        self.db["counter"] = 0


class DiskCache(_Mapping):
    label = "diskcache"
    needs = "diskcache"

    def __init__(self, folder: Path) -> None:
        self.db = module("diskcache").Cache(str(folder / "cache"))
        self.db["counter"] = 0

    def count(self, times: int) -> None:
        increment = self.db.incr
        for _ in range(times):
            increment("counter")

    def tens(self, times: int) -> None:
        db = self.db
        for number in range(times):
            with db.transact():
                for key in KEYS:
                    db[key] = number


class SqliteDictPeer(_Mapping):
    label = "sqlitedict, autocommit"
    needs = "sqlitedict"

    def __init__(self, folder: Path) -> None:
        self.db = module("sqlitedict").SqliteDict(str(folder / "dict.sqlite"), autocommit=True)
        self.db["counter"] = 0


class PickleDb(Peer):
    label = "pickledb, save() each time"
    durability = "kill"
    needs = "pickledb"

    def __init__(self, folder: Path) -> None:
        self.db: Any = module("pickledb").PickleDB(str(folder / "db.json"))
        self.db.load()
        self.db.set("counter", 0)
        self.db.save()

    def count(self, times: int) -> None:
        db = self.db
        for _ in range(times):
            db.set("counter", db.get("counter") + 1)
            db.save()

    def read(self, times: int) -> None:
        db = self.db
        for _ in range(times):
            _ = db.get("counter")

    def close(self) -> None:
        pass


class TinyDb(Peer):
    label = "tinydb"
    durability = "neither"
    needs = "tinydb"

    def __init__(self, folder: Path) -> None:
        self.db: Any = module("tinydb").TinyDB(folder / "tiny.json")
        self.db.insert({"counter": 0})

    def count(self, times: int) -> None:
        update, plus_one = self.db.update, module("tinydb.operations").increment("counter")
        for _ in range(times):
            update(plus_one)

    def read(self, times: int) -> None:
        everything = self.db.all
        for _ in range(times):
            _ = everything()[0]["counter"]

    def close(self) -> None:
        self.db.close()


class Zodb(Peer):
    label = "ZODB"
    durability = "power"
    needs = "ZODB"

    def __init__(self, folder: Path) -> None:
        self.commit: Callable[[], None] = module("transaction").commit
        self.db: Any = module("ZODB").DB(str(folder / "data.fs"))
        self.connection: Any = self.db.open()
        self.root: Any = self.connection.root
        self.root.counter = 0
        self.commit()

    def count(self, times: int) -> None:
        root, commit = self.root, self.commit
        for _ in range(times):
            root.counter += 1
            commit()

    def read(self, times: int) -> None:
        root = self.root
        for _ in range(times):
            _ = root.counter

    def tens(self, times: int) -> None:
        root, commit = self.root, self.commit
        for number in range(times):
            for key in KEYS:
                setattr(root, key, number)
            commit()

    def close(self) -> None:
        self.connection.close()
        self.db.close()


class Append(Peer):
    """The floor: the system calls of a commit with nothing around them, the record ready made."""

    label = "bare flock, lseek, write, flock"
    record = b'--- [["set",[],"counter",1234]]\n... # 12345678\n'

    def __init__(self, folder: Path) -> None:
        self.fd = os.open(folder / "log", os.O_RDWR | os.O_CREAT | os.O_APPEND)

    def count(self, times: int) -> None:
        import fcntl

        fd, record, write, lseek, flock = self.fd, self.record, os.write, os.lseek, fcntl.flock
        for _ in range(times):
            flock(fd, 6)
            lseek(fd, 0, 2)
            write(fd, record)
            flock(fd, 8)

    def read(self, times: int) -> None:
        fd, lseek = self.fd, os.lseek
        for _ in range(times):
            lseek(fd, 0, 2)

    def close(self) -> None:
        os.close(self.fd)


class Attributes(dict[str, Any]):
    """What `state.counter` costs in any class that does it in Python."""

    __slots__ = ()

    def __getattr__(self, name: str) -> Any:
        return self[name]

    def __setattr__(self, name: str, value: Any) -> None:
        self[name] = value


class InOneLoop(Append):
    """The floor in Python: the steps of a read and of a commit, without anything else."""

    label = "the same steps in one loop"

    def count(self, times: int) -> None:
        import fcntl

        fd, write, lseek, flock, clock = self.fd, os.write, os.lseek, fcntl.flock, time.monotonic
        state, end, crc, look_at = Attributes(counter=0), lseek(self.fd, 0, 2), 0, time.monotonic() + 1e9
        for _ in range(times):
            if lseek(fd, 0, 2) != end or clock() > look_at:
                raise AssertionError("somebody else writes")
            value = state.counter + 1
            flock(fd, 6)
            if lseek(fd, 0, 2) != end:
                raise AssertionError("somebody else writes")
            data = f'[["set",[],"counter",{value}]]'.encode()
            crc = crc32(data, crc)
            end += write(fd, b"--- %b\n... # %08x\n" % (data, crc))
            state.counter = value
            if clock() > look_at:
                raise AssertionError("somebody else writes")
            flock(fd, 8)

    def read(self, times: int) -> None:
        fd, lseek, clock = self.fd, os.lseek, time.monotonic
        state, end, look_at = Attributes(counter=0), lseek(self.fd, 0, 2), clock() + 1e9
        for _ in range(times):
            if lseek(fd, 0, 2) == end and clock() < look_at:
                _ = state.counter

    def tens(self, times: int) -> None:
        import fcntl

        fd, write, lseek, flock = self.fd, os.write, os.lseek, fcntl.flock
        state, end, crc = Attributes(), lseek(self.fd, 0, 2), 0
        for number in range(times):
            flock(fd, 6)
            if lseek(fd, 0, 2) != end:
                raise AssertionError("somebody else writes")
            for key in KEYS:
                setattr(state, key, number)
            operations = ",".join([f'["set",[],"{key}",{value}]' for key, value in state.items()])
            data = f"[{operations}]".encode()
            crc = crc32(data, crc)
            end += write(fd, b"--- %b\n... # %08x\n" % (data, crc))
            flock(fd, 8)


class AppendSync(Append):
    label = "bare write, fdatasync"
    durability = "power"

    def count(self, times: int) -> None:
        fd, record, write, sync = self.fd, self.record, os.write, os.fdatasync
        for _ in range(times):
            write(fd, record)
            sync(fd)


@dataclass(frozen=True)
class Result:
    """One peer at one work."""

    label: str
    durability: str
    seconds: float  #: for one operation, the median of the rounds; nan where it could not be measured
    ratio: float  #: to pstate's, the median of the rounds; 2 means that pstate is twice as fast
    note: str = ""


COUNTING: list[type[Peer]] = [
    Append, InOneLoop, PState, PersistedStatePeer, Sqlite, Lmdb, DiskCache, SqliteDictPeer, PickleDb, Shelve, TinyDb,
]  # fmt: skip
COUNTING_POWER: list[type[Peer]] = [AppendSync, PStatePower, SqliteFull, LmdbSync, Lmdbm, Zodb]
READING: list[type[Peer]] = [
    Append, InOneLoop, PState, PersistedStatePeer, Lmdb, Sqlite, DiskCache, SqliteDictPeer, Shelve,
]  # fmt: skip
TENS: list[type[Peer]] = [PState, InOneLoop, Sqlite, Lmdb, DiskCache]
TENS_POWER: list[type[Peer]] = [PStatePower, SqliteFull, LmdbSync, Zodb]
