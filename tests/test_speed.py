"""The compiled hot path where it meets what it was not made for: each check of it, by what happens without that.

`tools/speed_faults.py` has the list of the checks. What is promised whichever flavour runs is in the other tests.
"""

from __future__ import annotations

import fcntl
import os
import resource
import subprocess
import sys
import textwrap
import threading
import time
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from tools.engines import opened, store_of

import pstate
import pstate.store
from pstate import DurabilityUnknown, PersistedState, speed
from pstate.engines import FILES
from pstate.errors import PStateError
from pstate.file import format, limits
from pstate.file.fs import SYSTEM
from pstate.file.journal import View
from pstate.file.log import FileLog
from pstate.file.look import Trouble
from pstate.file.recovery import Records
from pstate.file.settling import Settling
from pstate.memory import ops
from pstate.memory.lists import MappedList
from pstate.memory.transaction import Pending
from pstate.store import Store
from pstate.testing.memory import MemoryEngine
from pstate.values import same
from stress.real.workers import read_fresh

pytestmark = pytest.mark.skipif(not speed.compiled, reason="nothing is compiled here")

BEGINNING: dict[str, Any] = {"n": 0, "d": {"n": 0, "e": {"n": 0}}, "l": [0, {"n": 0}], "s": {1}}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state.yaml"


@pytest.fixture
def state(path: Path) -> Iterator[Any]:
    """A state whose next access is a usual one, for which no look at the path is due."""
    state: Any = PersistedState.open(path, defaults=BEGINNING, lock_timeout=0.0)
    usual(state)
    yield state
    state.close()


def usual(state: Any) -> Any:
    state.n = 1  # from here on there is a journal
    with state.transaction():
        pass  # from here on the end of this thread is noticed
    usual_look(state)
    return state


def usual_look(state: Any) -> None:
    look = state._store.log.look
    look.look_at = look.look_due = look.check_at = 1e18


def journal(state: Any) -> Any:
    return state._store.view[4]


def is_locked(path: Path) -> bool:
    with open(path, "rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        return False


def test_a_lock_of_the_program_is_not_given_back(
    state: Any, path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The program closes all descriptors during a commit, when a look is due, and the file cannot be opened again."""
    other, published = tmp_path / "other", FileLog.publish
    fd = os.open(other, os.O_RDWR | os.O_CREAT)
    fcntl.flock(fd, fcntl.LOCK_EX)

    def publish(log: FileLog, view: View) -> None:
        os.dup2(fd, view[0])
        path.rename(tmp_path / "away")
        published(log, view)

    monkeypatch.setattr(FileLog, "publish", publish)
    monkeypatch.setattr(limits, "MISSING", 0.0)
    state._store.log.look.look_due = state._store.log.look.check_at = 0.0
    with pytest.raises(DurabilityUnknown):
        state.n = 5

    assert is_locked(other)
    (tmp_path / "away").rename(path)
    os.close(fd)
    monkeypatch.undo()
    assert state.n == 5


class StandIn:
    """Another object in the place of one of ours."""

    def __init__(self, real: Any) -> None:
        self.__dict__["real"] = real

    def __getattr__(self, name: str) -> Any:
        return getattr(self.real, name)

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(self.real, name, value)

    def __bool__(self) -> bool:
        return bool(self.real)


def another(real: Any) -> Any:
    """*real* as an object of a subclass, which may do anything otherwise."""
    kind = type(f"Own{type(real).__name__}", (type(real),), {"__slots__": ()})
    made = kind.__new__(kind)
    for name in {name for base in type(real).__mro__ for name in getattr(base, "__slots__", ())} - {
        "__del__",
        "__weakref__",
    }:
        if hasattr(real, name):
            setattr(made, name, getattr(real, name))
    return made


class Blind(Store):
    """It says that the position of memory is unknown."""

    @property
    def view(self) -> Any:
        return None

    @view.setter
    def view(self, value: Any) -> None:
        pass


class OwnStore(Store):
    """A subclass may do anything otherwise."""


class Case(NamedTuple):
    """What hands a call over to Python. `s` is a state, whose next call would be a usual one; `o` another process'."""

    before: str
    do: str
    count: str  #: the name in `speed.counts` that must not be taken
    after: str = ""
    power: bool = False
    is_whole: bool = True  #: it can be compared with the file afterwards


ENTER = "b = s.transaction(); b.__enter__(); "
LEFT = "b.__exit__(None, None, None)"
SET, GET, BLOCK = ("s.n = 5", "put"), ("assert s.n == 1", "read"), (ENTER, "enter", LEFT)
LEAVE = (LEFT, "leave")

CASES = {
    # which objects
    "another class of store, a read": Case("s = usual(opened(FILES, str(path), OwnStore))", *GET),
    "another class of store, a set": Case("s = usual(opened(FILES, str(path), OwnStore))", *SET),
    "another class of store, an append": Case(
        "s = usual(opened(FILES, str(path), OwnStore))", "s.l.append(1)", "append"
    ),
    "another class of store, a block": Case("s = usual(opened(FILES, str(path), OwnStore))", *BLOCK),
    "another class of store, a set in a block": Case(
        "s = usual(opened(FILES, str(path), OwnStore)); " + ENTER, "s.n = 5", "put_in_transaction", LEFT
    ),
    "another class of store, the end of a block": Case(
        "s = usual(opened(FILES, str(path), OwnStore)); " + ENTER + "s.n = 5", *LEAVE
    ),
    "another engine, a read": Case("s = opened(MemoryEngine(), 'm'); s.n = 1", *GET),
    "another engine, a set": Case("s = opened(MemoryEngine(), 'm'); s.n = 1", *SET),
    "another engine, an append": Case("s = opened(MemoryEngine(), 'm'); s.l = []", "s.l.append(1)", "append"),
    "another engine, a block": Case("s = opened(MemoryEngine(), 'm')", *BLOCK),
    "another class of log": Case("store.log = another(log)", *SET, "store.log = log"),
    "another class of log, a read": Case("store.log = another(log)", *GET, "store.log = log"),
    "another class of log, an append": Case("store.log = another(log)", "s.l.append(5)", "append", "store.log = log"),
    "another class of look": Case("log.look = another(look)", *SET, "log.look = look"),
    "another class of look, a read": Case("log.look = another(look)", *GET, "log.look = look"),
    "another class of hold": Case("log.hold = another(hold)", *SET, "log.hold = hold"),
    "another class of Standing": Case("log.standing = another(standing)", *SET, "log.standing = standing"),
    "another class of trails": Case("o.n = 1; standing.trails = another(standing.trails)", "assert s.n == 1",
        "catch_up"),
    "another class of journal": Case("store.view = (*store.view[:4], another(j))", *GET, "store.view = None"),
    "another class of descriptor": Case("o.n = 1; kept = j._file; j._file = another(kept)", "assert s.n == 1",
        "catch_up", "j._file = kept"),
    "another class of settling": Case("log.settling = another(log.settling)", "s.n = 5", "settle", power=True),
    "no view": Case("store.view = None", *SET),
    "no view, a read": Case("store.view = None", *GET),
    "a view that is not a tuple": Case("store.view = [*store.view]", *SET),
    "a view of another size": Case("store.view = (*store.view, 1)", "refused('s.n', ValueError)", "read",
        "store.view = store.view[:5]"),
    "an identity that is not a tuple": Case("j.identity = [*j.identity]", *GET),
    "an identity of another size": Case("j.identity = (*j.identity, 1)", *GET),
    "memory in another file than the log": Case("standing.journal = StandIn(j)", *SET, "standing.journal = j"),
    "another list of handles": Case("store._handles = [*store._handles]", *SET, "store._handles = ()"),
    "another lock of the threads": Case("store.mutex = threading._PyRLock()", *SET),
    # system calls
    "another lseek": Case("log._lseek = lambda *given: os.lseek(*given)", *GET),
    "another clock": Case("log._clock = lambda: time.monotonic()", *GET),
    "another flock": Case("hold.flock = lambda *given: fcntl.flock(*given)", *SET),
    "another write": Case("j.write = lambda *given: os.write(*given)", *SET),
    "another pread": Case("o.n = 1; replace(SYSTEM, 'pread')", "assert s.n == 1", "catch_up"),
    "another sync": Case("replace(SYSTEM, 'sync_data')", "s.n = 5", "settle", power=True),
    "another file system, a sync": Case("log.settling._fs = StandIn(SYSTEM)", "s.n = 5", "settle", power=True),
    "another get_ident": Case("replace(threading, 'get_ident')", f"refused({ENTER[:-2]!r}, PatchedError)",
        "enter", "undo()"),
    # the file
    "no marker": Case("s.vacuum(); usual_look(s); j = journal(s); j.is_ready = True", *SET),
    "a journal that is not ready": Case("j.is_ready = False", *SET),
    "a journal that is refused": Case("j.refusal = 'no'", "refused('s.n = 5')", "put", "j.refusal = ''"),
    "content that is not that of the file": Case("j.content += b'x'", *SET),
    "a vacuum is due": Case("j.vacuum_at = 0", *SET),
    "a vacuum is due at the very end": Case("j.vacuum_at = store.view[1] + len(record(5))", *SET),
    "a look is due": Case("look.look_at = 0.0", *SET),
    "a look is due, a read": Case("look.look_at = 0.0", *GET),
    "a look is due, a block": Case("look.look_at = 0.0", *BLOCK),
    "another one's container, a set": Case("o.x = {}", *SET),
    "another one's container, a block": Case("o.x = {}", *BLOCK),
    "another one's container, a read": Case("o.n = {}", "assert s.n == {}", "catch_up"),
    "the lock is held, a set": Case("lock = locked(path)", "refused('s.n = 5', LockTimeout)", "put", "lock.close()"),
    "the lock is held, a block": Case(
        "lock = locked(path)", f"refused({ENTER[:-2]!r}, LockTimeout)", "enter", "lock.close()"
    ),
    "a disk that is full": Case("limit(5)", "refused('s.n = 5', WriteError)", "put", "limit()"),
    "a disk that is full, a block": Case(
        ENTER + "s.n = 5; limit(20)", f"refused({LEFT!r}, WriteError)", "leave", "limit()"
    ),
    # the state of the store
    "a transaction in disorder, a set": Case(ENTER + "store.owner = 0", *SET, LEFT),
    "a transaction in disorder, a block": Case(ENTER + "store.owner = 0; c = s.transaction()", "c.__enter__()", "enter",
        "c.__exit__(None, None, None); " + LEFT),
    "a change is under way, a set": Case("store._busy = True", "refused('s.n = 5', ReentrantError)", "put",
        "store._busy = False"),
    "a change is under way, a block": Case("store._busy = True", f"refused({ENTER[:-2]!r}, ReentrantError)", "enter",
        "store._busy = False"),
    "a change is under way, a read": Case("o.n = 2; store._busy = True", "refused('s.n', ReentrantError)", "catch_up",
        "store._busy = False"),
    "a transaction of another thread, a read": Case("thread = other_thread(s)", "refused('s.n', LockTimeout)", "read",
        "thread.end()"),
    "a transaction of another thread, a set": Case("thread = other_thread(s)", "refused('s.n = 5', LockTimeout)", "put",
        "thread.end()"),
    "a transaction of another thread, a block": Case("thread = other_thread(s)",
        f"refused({ENTER[:-2]!r}, LockTimeout)", "enter", "thread.end()"),
    "a store that is closed, a block": Case("store.closed = True", f"refused({ENTER[:-2]!r}, ClosedError)", "enter",
        "store.closed = False"),
    "a thread whose end is not noticed": Case("noticed.clear()", *BLOCK[:2],
        LEFT + "; noticed.add(threading.get_ident())"),
    # containers
    "a set over a container": Case("s.n = {}; s.d.n = 1", *SET),
    "a set over a container in a block": Case("s.n = {};" + ENTER, "s.n = 5", "put_in_transaction", LEFT),
    "a list that was bypassed": Case("list.append(s.l, 1)", "refused('s.l.append(5)', BypassedError)", "append"),
    "an append in a block": Case(ENTER, "s.l.append(5)", "append", LEFT),
    "a container that was taken out": Case("d = s.pop('d')", "d.n = 5", "put"),
    "a list that was taken out": Case("l = s.pop('l')", "l.append(5)", "append"),
    "a container whose key is another": Case(
        "d = s.d; ops.set_slot(d, '_key', 'no')", "refused('d.n = 5')", "put", "ops.set_slot(d, '_key', 'd')"
    ),
    "an element that has moved": Case("e = s.l[1]; s.l.insert(0, 9)", "e.n = 5", "put"),
    "an element that has moved to the end": Case("e = s.l[1]; s.l.insert(0, 9); del s.l[0]; del s.l[0]", "e.n = 5",
        "put"),
    "a path with another key": Case("s[1] = {'n': 1}; e = s[1]", "e.n = 5", "put"),
    "a path that is deep": Case("e = nested(s, 70)", "e.n = 5", "put"),
    "a path that is deep, in a block": Case("e = nested(s, 70); " + ENTER, "e.n = 5", "put_in_transaction", LEFT),
    # values and keys
    **{
        f"the value {value}": Case("", f"s.n = {value}", "put")
        for value in ("'\"'", "'\\\\'", "'\\n'", "'\\x1f'", "'\\x7f'", "'\\xe9'", "1e22", "1e-7", "2**63",
            "-(2**63) - 1", "float('inf')", "float('nan')", "b''")
    },
    **{
        f"the key {key}": Case("", f"s[{key}] = 5", "put")
        for key in ("'\"'", "'\\\\'", "'\\n'", "'\\x7f'", "'\\xe9'", "1", "True", "None", "1.5", "b''")
    },
    "a name that is not for keys": Case("", "s._n = 5", "put"),
    "a name of a method": Case("", "refused('s.items = 5')", "put"),
    # blocks
    "a block in a block": Case(ENTER + "c = s.transaction()", "c.__enter__()", "enter",
        "c.__exit__(None, None, None); " + LEFT),
    "a block that is entered twice": Case(ENTER, "refused('b.__enter__()', TransactionError)", "enter", LEFT),
    "the end of a block in a block": Case(ENTER + "s.n = 5; c = s.transaction(); c.__enter__()",
        "c.__exit__(None, None, None)", "leave", LEFT),
    "the end of a block around another": Case(ENTER + "s.n = 5; c = s.transaction(); c.__enter__()",
        f"refused({LEFT!r}, TransactionError)", "leave", "refused('c.__exit__(None, None, None)', TransactionError)"),
    "a block that is spoiled": Case(ENTER + "s.n = 5; store.changes.spoiled = 'it is'",
        f"refused({LEFT!r}, TransactionError)", "leave"),
    "a block that has failed": Case(ENTER + "s.n = 5", "b.__exit__(LookupError, LookupError(), None)", "leave"),
    "a block that was rolled back": Case(ENTER + "s.n = 5; b.rollback()", *LEAVE),
    "a block in disorder": Case(ENTER + "s.n = 5; store.owner = 0", *LEAVE),
    "a block without a change": Case(ENTER, *LEAVE),
    "a block whose changes are undone": Case(
        ENTER + "c = s.transaction(); c.__enter__(); s.n = 5; c.rollback(); c.__exit__(None, None, None)", *LEAVE
    ),
    "a block of another transaction": Case(ENTER + "s.n = 5; kept, b._changes = b._changes, another_pending()",
        LEFT, "leave", "b._changes = kept; " + LEFT),
    "a block that has nothing to write": Case(ENTER + "s.n = 5; store.changes.operations.clear()", *LEAVE,
        is_whole=False),
    "a container in a block": Case(ENTER, "s.n = {}", "put_in_transaction", LEFT),
    "what is not a value, in a block": Case(ENTER, "refused('s.n = object()')", "put_in_transaction", LEFT),
    "what is not a key, in a block": Case(ENTER, "refused('s[object()] = 1')", "put_in_transaction", LEFT),
    "a key that is a lone surrogate, in a block": Case(ENTER, "refused('s[chr(0xd800)] = 1')",
        "put_in_transaction", LEFT),
    "somebody who heeds no lock, in a block": Case(ENTER + "add(encode('[[\"set\",[],\"n\",9]]', store.view[2])[0])",
        "assert s.n == 1", "catch_up", "b.__exit__(LookupError, None, None)", is_whole=False),
    "a block that appends": Case(ENTER + "s.l.append(5)", *LEAVE),
    "a block that deletes": Case(ENTER + "del s.d", *LEAVE),
    "a block that sets a container": Case(ENTER + "s.n = {'n': 5}", *LEAVE),
    "a block that sets what is not ASCII": Case(ENTER + "s.n = '\\xe9'", *LEAVE),
    "a block that sets at a key that is not ASCII": Case(ENTER + "s['\\xe9'] = 5", *LEAVE),
    "a block that sets below a key that is not ASCII": Case("s['\\xe9'] = {};" + ENTER + "s['\\xe9'].n = 5", *LEAVE),
    "a block at whose end a vacuum is due": Case(ENTER + "s.n = 5; j.vacuum_at = 0", *LEAVE),
    "a block at whose end a look is due": Case(ENTER + "s.n = 5; look.look_at = 0.0", *LEAVE),
    "a block at whose end the journal is not ready": Case(ENTER + "s.n = 5; j.is_ready = False", *LEAVE),
    "a block in which somebody has saved": Case(ENTER + "s.n = 5; add(b'# ' + b'x' * 30)",
        f"refused({LEFT!r}, EditConflict)", "leave", is_whole=False),
    "a set in a block, where the journal is not ready": Case(ENTER + "j.is_ready = False", "s.n = 5",
        "put_in_transaction", LEFT),
    # others
    "somebody watches": Case("w = s.watch(); w.poll(); o.n = 2",
        "assert s.n == 2; assert [change.origin for change in w.poll()] == ['other']", "catch_up", "w.close()"),
    "the bytes after it are torn": Case("add(b'--- [[')", "assert s.n == 1", "catch_up"),
    "another one sets over a container": Case("o.d = 5", "assert s.d == 5", "catch_up"),
    "another one inserts": Case("o.l.insert(0, 5)", "assert s.l[0] == 5", "catch_up"),
    "another one deletes": Case("del o.d", "refused('s.d')", "catch_up"),
    # whose descriptor it is
    **{
        f"the descriptor has another {what}": Case(
            f"o.n = 1; file = j._file; file.identity = changed(file.identity, {index})",
            "assert s.n == 1; assert journal(s) is not j",
            "",
        )
        for index, what in enumerate(("device", "inode", "mode"))
    },
    "a descriptor that is lost": Case("o.n = 1; os.close(j.fd); j._file._noted[:] = []",
        "assert s.n == 1; assert journal(s) is not j", ""),
    "another descriptor of the file": Case("o.n = 1; fd = j.fd; j._file._noted[:] = [os.dup(fd)]", "assert s.n == 1",
        "catch_up", "os.close(j._file._noted[0]); j._file._noted[:] = [fd]"),
    # durability "power"
    "not settled yet, a read": Case("j.synced = 0", *GET, power=True),
    "not settled yet, a block": Case("j.synced = 0", *BLOCK, power=True),
    "another one's commit, a block with power": Case("p = opened(FILES, str(path), durability='power'); p.n = 2",
        *BLOCK, power=True),
    "a folder that is due": Case("j.folder_due = True", "s.n = 5", "settle", power=True),
    "a sync that nobody has judged": Case("j.unjudged = OSError(5, 'no')", "refused('s.n = 5')", "settle", power=True),
    "a sync that is under way": Case("log.settling._under_way = threading.RLock()", "s.n = 5", "settle", power=True),
}  # fmt: skip


class Program:
    """What the lines of a case find."""

    def __init__(self, path: Path, monkeypatch: pytest.MonkeyPatch, power: bool) -> None:
        self.path, self.monkeypatch = path, monkeypatch
        durability: Any = "power" if power else "process"
        state = PersistedState.open(path, defaults=BEGINNING, durability=durability, lock_timeout=0.0)
        usual(state)
        log = store_of(state).log
        self.names: dict[str, Any] = {
            **vars(pstate.errors), **vars(pstate), "os": os, "time": time, "threading": threading, "fcntl": fcntl,
            "ops": ops, "opened": opened, "FILES": FILES, "OwnStore": OwnStore, "MemoryEngine": MemoryEngine,
            "usual": usual, "usual_look": usual_look, "another": another, "StandIn": StandIn,
            "SYSTEM": SYSTEM, "journal": journal,
            "path": path, "s": state, "o": opened(FILES, str(path)), "store": store_of(state), "log": log,
            "look": log.look, "hold": log.hold, "standing": log.standing, "j": journal(state),
            "noticed": pstate.store._noticed, "refused": self.refused, "replace": self.replace, "locked": locked,
            "limit": self.limit, "add": self.add, "encode": format.encode_record,
            "undo": self.monkeypatch.undo, "nested": nested, "changed": changed,
            "other_thread": OtherThread, "another_pending": another_pending,
            "record": lambda value: format.encode_record(f'[["set",[],"n",{value}]]', 0)[0],
        }  # fmt: skip

    def run(self, code: str) -> None:
        exec(code, self.names)

    def refused(self, code: str, kind: type[Exception] = Exception) -> None:
        with pytest.raises(kind):
            exec(code, self.names)

    def replace(self, owner: Any, name: str) -> None:
        """Another function of Python in the place of the one that is called *name*."""
        real = getattr(owner, name)
        self.monkeypatch.setattr(owner, name, lambda *given: real(*given))  # noqa: PLW0108

    def add(self, data: bytes) -> None:
        """Somebody who heeds no lock appends *data* to the file."""
        with self.path.open("ab") as file:
            file.write(data)

    def end(self) -> None:
        self.monkeypatch.undo()
        for state in [each for each in self.names.values() if isinstance(each, PersistedState)]:
            state.close()

    def limit(self, more: int | None = None) -> None:
        """No file may become longer than this one by *more* bytes."""
        hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
        size = hard if more is None else self.path.stat().st_size + more
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))


class OtherThread:
    """It is in a transaction, in which it has changed something."""

    def __init__(self, state: Any) -> None:
        self.begun, self.over = threading.Event(), threading.Event()
        self.thread = threading.Thread(target=self.wait, args=(state,))
        self.thread.start()
        assert self.begun.wait(20)

    def wait(self, state: Any) -> None:
        with state.transaction():
            state.n = 77
            self.begun.set()
            self.over.wait(20)

    def end(self) -> None:
        self.over.set()
        self.thread.join()


def another_pending() -> Pending:
    """What a block may still have whose transaction another thread has ended."""
    pending = Pending()
    pending.thread, pending.mutex = threading.get_ident(), threading.RLock()
    pending.operations.append(["set", [], "n", 99])
    return pending


def locked(path: Path) -> Any:
    file = open(path, "rb")  # noqa: SIM115
    fcntl.flock(file, fcntl.LOCK_EX)
    return file


def nested(state: Any, levels: int) -> Any:
    value: Any = {"n": 1}
    for _ in range(levels):
        value = {"d": value}
    state.deep = value
    found = state.deep
    for _ in range(levels):
        found = found.d
    return found


def changed(identity: Any, index: int) -> Any:
    return tuple(number + (place == index) for place, number in enumerate(identity))


@pytest.mark.parametrize("name", CASES)
def test_what_is_not_usual_is_handed_over(path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    case = CASES[name]
    program = Program(path, monkeypatch, case.power)
    program.run(case.before)
    before = speed.counts()

    program.run(case.do)

    after = speed.counts()
    program.run(case.after)
    assert not case.count or after[case.count][0] == before[case.count][0]
    state = program.names["s"]
    if case.is_whole and state._store.engine is FILES:
        state._store.check()
        assert same(state.snapshot(), read_fresh(path))
    program.end()


#: What would be taken without `before`.
USUAL = {
    "read": "s.n", "put": "s.n = 5", "append": "s.l.append(5)", "enter": ENTER, "catch_up": "o.n = 2; s.n",
    "put_in_transaction": ENTER + "s.n = 5", "leave": ENTER + "s.n = 5; " + LEFT, "settle": "s.n = 5",
}  # fmt: skip


@pytest.mark.parametrize("name", USUAL)
def test_the_usual_case_is_taken(path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """So the cases above differ from it by one thing."""
    program = Program(path, monkeypatch, name == "settle")
    before = speed.counts()[name][0]

    program.run(USUAL[name])

    assert speed.counts()[name][0] > before
    if "b" in program.names:
        program.run(LEFT)
    program.end()


@pytest.mark.parametrize("name", ["look", "hold", "standing", "site", "standing.trails", "settling"])
def test_another_object_in_the_place_of_ours_is_asked_by_python(state: Any, path: Path, name: str) -> None:
    *around, last = name.split(".")
    owner = getattr(state._store.log, around[0]) if around else state._store.log
    setattr(owner, last, StandIn(getattr(owner, last)))
    state._store.log.settles = last == "settling"
    others = PersistedState(path)

    before = speed.counts()["put"][0]
    state.n = 5
    assert (speed.counts()["put"][0] > before) == (name in ("site", "standing.trails", "settling"))
    state._store.log.look.look_due = 0.0
    state.d.n = 6
    with state.transaction():
        state.n += 1
    others.n += 1

    assert state.n == 7
    assert others.d.n == 6
    others.close()


def run(code: str, *arguments: Any) -> None:
    """Run *code* in a process of its own. It must end well."""
    command = [sys.executable, "-c", textwrap.dedent(code), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=50)
    assert not done.returncode, done.stdout + done.stderr


COUNT = """
    import sys
    from pstate import PersistedState, speed

    def count(path, speed=speed):
        state = PersistedState(path, n=0, l=[])
        for _ in range(3):
            state.n += 1
            state.l.append(1)
            with state.transaction():
                state.n += 1
        assert state.n == 6 and list(state.l) == [1, 1, 1], state
        state.close()
"""


@pytest.mark.parametrize(
    "patch",
    [
        "threading.RLock = threading._PyRLock",
        "threading.get_ident = lambda get_ident=threading.get_ident: get_ident()",
    ],
)
def test_other_threads_than_pythons_are_pure(path: Path, patch: str) -> None:
    code = f"import threading\n{patch}\n" + textwrap.dedent(COUNT)
    run(code + "assert not speed.compiled\nassert speed.counts() == {}\ncount(sys.argv[1])", path)


def test_a_second_import_is_pure_and_the_first_goes_on(path: Path, tmp_path: Path) -> None:
    code = """
    assert speed.compiled
    before = speed.counts()["put"][0]
    first = count, PersistedState, speed
    kept = {name: sys.modules.pop(name) for name in [*sys.modules] if name.partition(".")[0] == "pstate"}
    from pstate import PersistedState, speed
    assert PersistedState is not first[1]
    assert not speed.compiled and speed.counts() == {}
    count(sys.argv[1])
    PersistedState = first[1]
    count(sys.argv[2])
    assert first[2].counts()["put"][0] > before
    """
    run(textwrap.dedent(COUNT) + textwrap.dedent(code), path, tmp_path / "other.yaml")


def test_modules_that_are_loaded_again_go_on(path: Path, tmp_path: Path) -> None:
    code = """
    import importlib, pstate.memory.dicts, pstate.store, pstate.state
    for number, module in enumerate((speed, pstate.state, pstate.store, pstate.memory.dicts, pstate)):
        importlib.reload(module)
        from pstate import PersistedState
        count(f"{sys.argv[1]}{number}.yaml")
    """
    run(textwrap.dedent(COUNT) + textwrap.dedent(code), tmp_path / "state")


@pytest.mark.parametrize("is_first", [True, False])
def test_a_subinterpreter_is_pure(tmp_path: Path, is_first: bool) -> None:
    """Also where it is the first one that imports the package."""
    counted = textwrap.dedent(COUNT)
    code = f"""
    import sys
    try:
        import _xxsubinterpreters as interpreters
    except ImportError:
        import _interpreters as interpreters
    given = f"import sys; sys.path[:] = {{sys.path}}; path = {{sys.argv[2]!r}}\\n"
    error = interpreters.run_string(
        interpreters.create(), given + {counted!r} + "assert not speed.compiled\\ncount(path)\\n"
    )
    assert error is None, error
    """
    main = counted + "assert speed.compiled\ncount(sys.argv[1] + str(n))\n"
    parts = ["n = 1\n" + main, textwrap.dedent(code), "n = 2\n" + main]
    run("".join(parts[is_first:]), tmp_path / "main", tmp_path / "other.yaml")


#: What a commit does when a look at the path is due: whether Python has to look, too.
LOOKS = {
    "the usual case": ("", False),
    "another stat": ("replace(SYSTEM, 'stat')", True),
    "another class of site": ("log.site = another(log.site)", True),
    "a file that takes no trailer": ("j.takes_trailer = False", True),
    "nothing is at the path": ("path.rename(away)", True),
    "another file is at the path": ("away.write_bytes(path.read_bytes()); away.replace(path)", True),
    "a comparison of the content is due": ("look.check_at = 0.0", True),
    "a vacuum is due": ("j.vacuum_at = 0", True),
}


@pytest.mark.parametrize("name", LOOKS)
@pytest.mark.parametrize("do", ["s.n = 5", "b.__exit__(None, None, None)"])
def test_a_look_at_the_path(path: Path, monkeypatch: pytest.MonkeyPatch, name: str, do: str) -> None:
    before, is_pythons = LOOKS[name]
    program = Program(path, monkeypatch, False)
    published, asked = FileLog.publish, []

    def publish(log: FileLog, view: View) -> None:
        asked.append(view)
        published(log, view)

    monkeypatch.setattr(FileLog, "publish", publish)
    monkeypatch.setattr(limits, "MISSING", 0.0)
    program.names["away"] = path.with_name("away")
    if do != "s.n = 5":
        program.run(ENTER + "s.n = 5")
    program.run(before)
    program.run("look.look_due = 0.0")

    program.run(do)

    assert bool(asked) == is_pythons
    assert not is_locked(path)
    look = store_of(program.names["s"]).log.look
    assert look.look_at < look.look_due < time.monotonic() + 1 or name == "a file that takes no trailer"
    assert program.names["s"].n == 5
    assert read_fresh(path)["n"] == 5
    program.end()


@pytest.mark.parametrize("do", ["s.n = 5", "b.__exit__(None, None, None)"])
def test_a_look_by_a_descriptor_that_is_not_ours(path: Path, monkeypatch: pytest.MonkeyPatch, do: str) -> None:
    program = Program(path, monkeypatch, False)
    asked: list[View] = []
    monkeypatch.setattr(FileLog, "publish", lambda _, view: asked.append(view))
    if do != "s.n = 5":
        program.run(ENTER + "s.n = 5")
    program.run("kept, j._file.identity = j._file.identity, changed(j._file.identity, 1); look.look_due = 0.0")

    program.run(do)

    assert asked
    program.run("j._file.identity = kept; usual_look(s)")
    program.end()


def test_a_store_of_another_class_is_asked_where_memory_is(state: Any) -> None:
    log = state._store.log
    assert log.fresh() is state._store.view
    log.memory = another(state._store)
    assert log.fresh() is state._store.view
    log.memory = Blind.__new__(Blind)
    for name in ("log", "owner", "changes"):
        setattr(log.memory, name, getattr(state._store, name))
    Store.view.__set__(log.memory, state._store.view)  # type: ignore[attr-defined]
    assert log.fresh() is None
    log.memory = state._store


def test_another_log_than_that_of_the_store_asks_python(state: Any) -> None:
    log = another(state._store.log)
    other = FileLog("elsewhere", state._store, SYSTEM)
    assert other.fresh() is None  # nothing was looked at
    assert log.fresh() is state._store.view


def test_a_note_of_trouble_is_cleared_by_a_look(state: Any) -> None:
    look = state._store.log.look
    look.look_due, look.trouble, look.retry_at = 0.0, Trouble("told"), 1e18

    state.n = 5

    assert (look.trouble, look.retry_at) == (None, 0.0)


def test_a_commit_counts_its_descriptor_as_ours_for_a_moment(state: Any) -> None:
    log = state._store.log
    log._sure_until = 0.0
    state.n = 5
    assert 0 < log._sure_until <= time.monotonic() + limits.TRUST


def test_a_lock_of_another_file_is_not_touched(state: Any, tmp_path: Path) -> None:
    """The program has closed all descriptors, and has locked a file that has got the number of ours."""
    other = tmp_path / "other"
    other.write_bytes(b"x")
    fd = os.open(other, os.O_RDWR)
    fcntl.flock(fd, fcntl.LOCK_EX)
    os.dup2(fd, journal(state).fd)

    state._store.log._sure_until = 0.0
    state.n = 5
    with state.transaction():
        state.n = 6

    assert is_locked(other)
    os.close(fd)
    assert other.read_bytes() == b"x"


BODIES = [
    *(
        f'[["set",[],"n",{value}]]'
        for value in ("0", "-0", "00", "010", "08", "01", "-01", "1", "-1", "1.", ".5", "-.5", "1.5", "-1.5", "-0.0",
            "1.50", "1e5",
            "1.5e5", "1.5e+5", "-", "--1", "+1", "9" * 18, "9" * 19, "9" * 25, "1_0", "0x1", "1:30", "1.5.5", "0.1",
            "1." + "3" * 58, "1." + "3" * 70, "9" * 18 + ".5", "9" * 19 + ".5", "true", "false", "null", "True", "nul",
            "truex", "nullx", "~", "", " 1", "1 ", '""', '"a"', '"\\""', '"\\n"', '"\\u00e9"', '"a', '"a"b"',
            "2020-01-01", "[]", "[1]", "{}", "!!binary \"eA==\"", ".inf", ".nan", "1,2", '"a","b"')
    ),
    *(
        f'[["set",{path},"n",5]]'
        for path in ("[]", '["d"]', '["d","e"]', '["d","e","f"]', '["n"]', '["l"]', '["l",1]', '["l",0]', '["l",-1]',
            '["l",2]', '["l","1"]', '["l",1.0]', '["l",true]', '["s"]', '["s",1]', '[1]', '[null]', '["no"]', "[", "",
            '["d",]', '["d"', '[,"d"]', '["d""e"]', '["l",99999999999999999999]', "{}")
    ),
    *(
        f'[["insert",["l"],{rest}]]'
        for rest in ("2,5", "0,5", "1,5", "3,5", "-1,5", "2", "2,", "2,5,6", "true,5", '"2",5', "2.0,5", "2,[]", "2, 5")
    ),
    '[["insert",["l"],2,5],["insert",["l"],3,6]]', '[["insert",["l"],2,5],["insert",["l"],2,6]]',
    '[["insert",["l"],2,5],["set",[],"n",1],["insert",["l"],3,6],["insert",["d","l"],0,7],["insert",["l"],4,8]]',
    '[["insert",["l"],2,5],["insert",["d","l"],0,7],["insert",["l"],2,8]]',
    '[["set",[],xn",5]]', '[["set",[],"n","a\\]]', '[["set",[],"n\\,5]]',
    '[["set",["d"\\],"n",5]]', '[["set",[],"n","\xe9]]',
    '[["insert",["d"],0,5]]', '[["insert",["s"],0,5]]', '[["insert",["l",1],0,5]]',
    '[["set",[],"d",5]]', '[["set",[],"l",5]]', '[["set",[],"s",5]]', '[["set",[],1,5]]', '[["set",[],null,5]]',
    '[["set",[],"n"]]', '[["set",[],"n",5,6]]', '[["set",[],,5]]', '[["set",["l"],0,5]]', '[["set",["l"],"0",5]]',
    '[["set",[],"n",5]', '["set",[],"n",5]', '[["set",[],"n",5]]]', '[["set",[],"n",5]],', '[["set",[],"n",5]] ', "[]",
    '[["set",[],"n",5],]', '[["set",[],"n",5],["delete",[],"n"]]', '[["delete",[],"n"]]', '[["put",[],"n",5]]', "",
    '[["set",[],"a",1],["set",[],"b",2.5],["set",["d"],"c","x"],["set",[],"a",null]]',
    '[["set",[],"\xe9",5]]', '[["set",["\xe9"],"n",5]]', '[["set",[],"n","\xe9"]]', "[[]]", "[", '[["set"',
]  # fmt: skip


def test_records_are_replayed_as_by_python() -> None:
    for body in BODIES:
        compiled, pure = replayed(body)
        assert same(compiled[0], pure[0]), (body, compiled, pure)
        assert compiled[1:] == pure[1:], body


def replayed(body: str) -> list[Any]:
    """What a state becomes by *body* and another record, compiled and in pure Python."""
    tree = {"n": 0, "d": {"n": 0, "e": {"n": 0}, "l": []}, "l": [0, {"n": 0}], "s": {1}, "\xe9": {"n": 0}}
    found = []
    for replay in (ops.replay, speed.replaced[ops, "replay"]):
        root = ops.graft(tree, None, ops.DETACHED, None)
        try:
            replay(root, Records([body, '[["set",[],"last",1]]'], "state.yaml", lambda: b""), None)
            error = ""
        except (PStateError, LookupError, TypeError, ValueError) as raised:
            error = f"{type(raised).__name__}: {raised}"
        sizes = [node._size for node in dict.values(root) if type(node) is MappedList]
        found.append((ops.plain(root), error, [*dict.keys(root)], sizes))
    return found


def test_records_of_another_process_are_applied_as_by_python(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number, body in enumerate(BODIES):
        compiled = applied(body, tmp_path / f"{number}c.yaml")
        with monkeypatch.context() as pure:
            for (kind, name), function in speed.replaced.items():
                pure.setattr(kind, name, function)
            expected = applied(body, tmp_path / f"{number}p.yaml")
        assert compiled[0] == expected[0], body
        assert same(compiled[1], expected[1]), (body, compiled, expected)


def applied(body: str, path: Path) -> tuple[str, Any]:
    """What somebody reads who has a state open to which another process adds *body*, and another record."""
    state: Any = PersistedState(path, d={"n": 0, "e": {"n": 0}, "l": []}, l=[0, {"n": 0}], s={1})
    usual(state)
    with open(path, "ab") as file:
        file.write(b"".join(records([body, '[["set",[],"last",1]]'], state._store.view[2])))
    try:
        state.get("n")  # the way of one value is another than that of all
        found = "", state.snapshot()
    except PStateError as error:
        found = type(error).__name__, None
    state._store.log.rest()  # without a vacuum, which would say it again
    state._store.closed = True
    return found


def records(bodies: list[str], crc: int) -> Iterator[bytes]:
    for body in bodies:
        record, crc = format.encode_record(body, crc)
        yield record


def damaged() -> Iterator[tuple[str, bytes]]:
    """Records, and what they become."""
    whole = b"".join(records(['[["set",[],"n",1]]', '[["set",[],"m","x"]]', "[]", '[["set",[],"k",1.5]]'], 7))
    yield "whole", whole
    for length in range(len(whole)):
        yield f"cut at {length}", whole[:length]
        yield f"changed at {length}", whole[:length] + bytes([whole[length] ^ 1]) + whole[length + 1 :]
        yield f"upper case at {length}", whole[:length] + whole[length : length + 1].upper() + whole[length + 1 :]
        yield f"more at {length}", whole[:length] + b"\n" + whole[length:]
    yield "CRLF", whole.replace(b"\n", b"\r\n")
    yield "some CRLF", whole.replace(b"\n...", b"\r\n...")
    yield "some other CRLF", whole.replace(b"\n---", b"\r\n---")
    yield "more after it", whole + b"--- # pstate moved"
    bad = b"\xff"
    crc = zlib.crc32(bad, 7)
    yield "no UTF-8", format.RECORD % (bad, crc) + b"".join(records(["[]"], crc))
    yield "UTF-8", b"".join(records(['[["set",[],"n","\xe9\u20ac\U0001f600"]]', "[]"], 7))
    bad = b"[]\r"
    crc = zlib.crc32(bad, 7)
    yield "a checksum of the carriage return", format.RECORD % (bad, crc) + b"".join(records(["[]"], crc))
    yield "long", b"".join(records(['[["set",[],"n","' + "x" * 70001 + '"]]', "[]"], 7))


@pytest.mark.parametrize("start", [0, 1, 37, 10**9, -1])
@pytest.mark.parametrize("crc", [7, 8])
def test_records_are_read_as_by_python(start: int, crc: int) -> None:
    python = speed.replaced[format, "read_records"]
    for name, data in damaged():
        if start >= 0:
            assert format.read_records(data, start, crc) == python(data, start, crc), name


@pytest.mark.parametrize("length", [*range(70), 1000, 5000])
def test_each_length_of_a_string_is_written(state: Any, path: Path, length: int) -> None:
    """So that the checksum is right for each, and so is the room for what follows it."""
    state.n = "x" * length
    state.d.e.n = "y" * length
    with state.transaction():
        state.n = "z" * length
        state["k" * length] = 1
        state.d.n = "z" * (length + 1)

    assert same(read_fresh(path), state.snapshot())


@pytest.mark.parametrize("length", range(1990, 2060))
def test_a_record_that_outgrows_its_room(state: Any, path: Path, length: int) -> None:
    state.n = "x" * length
    with state.transaction():
        state.n = "z" * length
        state.d.n = 5

    assert same(read_fresh(path), state.snapshot())


def test_other_handles_show_what_is_set(state: Any, path: Path) -> None:
    other: Any = PersistedState(path)
    usual_look(state)
    stranger: Any = opened(FILES, str(path))
    state.n = 5
    assert dict.get(other, "n") == 5
    with state.transaction():
        state.n = 6
        assert dict.get(other, "n") == 6
        state.n = 7
        assert dict.get(other, "n") == 7
    stranger.n = 8
    assert state.n == 8
    assert dict.get(other, "n") == 8
    state._store.check()
    other.close()
    stranger.close()


def test_a_block_that_fails_gives_the_lock_back(state: Any, path: Path) -> None:
    with pytest.raises(LookupError), state.transaction():
        state.n = 5
        raise LookupError
    assert not is_locked(path)
    assert state.n == 1
    assert state._store.view is not None


@pytest.mark.parametrize("value", [0, 2**63 - 1, -(2**63), 1.5, -0.0, 1e15, "", "a", True, False, None])
def test_values_come_back(state: Any, path: Path, value: Any) -> None:
    others: Any = opened(FILES, str(path))
    others.n
    state.n = value
    state.l.append(value)
    assert same(others.snapshot(), state.snapshot())
    assert same(read_fresh(path), state.snapshot())
    with state.transaction():
        state.n = 0
        state.n = value
        assert same(state.n, value)
    assert same(read_fresh(path), state.snapshot())
    others.close()


def test_a_lock_is_noted_for_python(state: Any, path: Path) -> None:
    hold = state._store.log.hold
    hold.drop()
    state.n = 5
    state._store.check()
    assert hold.journal is journal(state)

    hold.drop()
    with pytest.raises(LookupError), state.transaction():
        raise LookupError
    assert not is_locked(path)


class OwnPublish:
    """Notes *error* as that of another thread's sync, while a commit is published."""

    def __init__(self, state: Any, monkeypatch: pytest.MonkeyPatch, **noted: Any) -> None:
        published, real = FileLog.publish, SYSTEM.stat

        def publish(log: FileLog, view: View) -> None:
            published(log, view)
            for name, value in noted.items():
                setattr(journal(state), name, value)

        monkeypatch.setattr(SYSTEM, "stat", lambda path: real(path))  # noqa: PLW0108
        monkeypatch.setattr(FileLog, "publish", publish)


@pytest.mark.parametrize("noted", [{"refusal": "no"}, {"unjudged": OSError(5, "no")}], ids=["judged", "not judged"])
def test_another_threads_failed_sync_is_heeded(path: Path, monkeypatch: pytest.MonkeyPatch, noted: Any) -> None:
    program = Program(path, monkeypatch, True)
    before = speed.counts()["settle"][0]
    OwnPublish(program.names["s"], monkeypatch, **noted)

    program.refused("s.n = 5", DurabilityUnknown)

    assert speed.counts()["settle"][0] == before
    program.run("j.refusal = ''; j.unjudged = None")
    program.end()


def test_what_is_synced_is_noted(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = Program(path, monkeypatch, True)
    asked: list[View] = []
    monkeypatch.setattr(Settling, "settle", lambda _, view: asked.append(view))
    for code in ("s.n = 5", "s.l.append(5)", "with s.transaction(): s.n = 6"):
        usual_look(program.names["s"])
        program.run(code)
        assert journal(program.names["s"]).synced == program.names["store"].view[1]
    assert not asked
    program.end()


def test_one_item_that_is_set_twice_in_a_block_is_one_operation(state: Any) -> None:
    before = speed.counts()["put_in_transaction"][0]
    with state.transaction():
        state.n = 5
        state.d.n = 5
        state.n = 6
        assert state._store.changes.operations == [["set", [], "n", 6], ["set", ["d"], "n", 5]]
        assert len(state._store.changes.undo) == 2
    assert speed.counts()["put_in_transaction"][0] == before + 3


@pytest.mark.parametrize("inner", [True, False])
def test_what_is_set_in_a_block_is_undone(state: Any, path: Path, inner: bool) -> None:
    before = state.snapshot()
    with state.transaction() as block:
        if inner:
            with state.transaction() as block:
                state.n = state.d.n = state.new = 5
                state.n = 6
                block.rollback()
        else:
            state.n = state.d.n = state.new = 5
            state.n = 6
            block.rollback()
        assert same(ops.plain(state._store.root), before)
    assert same(state.snapshot(), before)
    assert same(read_fresh(path), before)


def test_a_block_that_is_left_keeps_nothing(state: Any) -> None:
    block = state.transaction()
    with block:
        state.n = 5
    assert block._changes is None
    with block:
        state.n = 6
    assert state.n == 6


def test_where_memory_was_is_noted(state: Any, path: Path) -> None:
    others: Any = opened(FILES, str(path))
    for code in ("state.n = 5", "state.l.append(5)", "others.n = 6; state.n", "with state.transaction(): state.n = 7"):
        before = state._store.view
        exec(code, {"state": state, "others": others})
        assert state._store.log.standing.before == before
    others.close()


def test_an_element_is_found_as_by_python(state: Any) -> None:
    state.l = [*range(5)]
    for index in range(-7, 8):
        try:
            expected: Any = [*range(5)][index]
        except IndexError:
            with pytest.raises(IndexError):
                state.l[index]
        else:
            assert state.l[index] == expected
    for index in (2**70, -(2**70)):
        with pytest.raises(IndexError):
            state.l[index]


def test_a_lock_of_each_block_is_held_and_given_back(state: Any, path: Path) -> None:
    assert not is_locked(path)
    with state.transaction():
        assert is_locked(path)
        state.n = 5
        assert is_locked(path)
    assert not is_locked(path)
    state.n = 6
    assert not is_locked(path)
    state.l.append(1)
    assert not is_locked(path)
    assert state._store.mutex.acquire(blocking=False)
    state._store.mutex.release()
    assert "owner=0" in repr(state._store.mutex)
