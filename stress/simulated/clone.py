"""What a fork makes of the objects of a simulated process: a copy that has its descriptors, its locks and its memory.

A real fork copies everything at once; here the objects are copied one by one, and then the store's own hook for the
child runs, as the interpreter runs it.
"""

from __future__ import annotations

import weakref
from typing import Any

from pstate import PersistedState, engines, store
from pstate.file.fs import Descriptor
from pstate.file.journal import Journal
from pstate.file.log import FileLog
from pstate.memory import ops
from pstate.state import Transaction
from pstate.store import Store
from pstate.testing.system import SimulatedSystem


def forked(
    state: PersistedState, transaction: Transaction, system: SimulatedSystem
) -> tuple[PersistedState, Transaction]:
    """*state*, and *transaction* in which it is, as the child of a fork finds them; *system* is the child's."""
    parent = state._store
    child = _copied(Store, parent)
    child.engine = engines.Files(system)
    assert isinstance(parent.log, FileLog)
    log = child.log = _log(parent.log, child, system)
    child.fresh = log.fresh
    child.root = ops.graft(ops.plain(parent.root), child, ops.ROOT, None)
    handle = PersistedState.__new__(PersistedState)
    for name, value in (("_store", child), ("_parent", ops.ROOT), ("_key", None), ("_reopen", state._reopen)):
        object.__setattr__(handle, name, value)
    child._handles = (weakref.ref(handle),)
    child._fill(handle)
    store._kept_alive.add(child)
    left = Transaction(child, None)
    left._changes, left._mark = transaction._changes, transaction._mark
    child.after_fork()
    return handle, left


def _log(one: FileLog, memory: Store, system: SimulatedSystem) -> FileLog:
    """The log of the child. Of what *one* knows, it has what `forget` lets go of."""
    log = FileLog(one.address, memory, system, lock_timeout=one.lock_timeout)
    log.settles = one.settles
    copies: dict[int, Journal] = {}
    for mine, theirs in ((log.standing, one.standing), (log.hold, one.hold)):
        journal = theirs.journal
        if journal is not None:
            if id(journal) not in copies:
                copies[id(journal)] = _journal(journal, system)
            mine.journal = copies[id(journal)]
    if log.hold.journal is not None:
        log.hold.take(log.hold.journal)
    return log


def _copied(kind: Any, one: Any) -> Any:
    copy = object.__new__(kind)
    for name in kind.__slots__:
        if name != "__weakref__":
            setattr(copy, name, getattr(one, name))
    return copy


def _journal(one: Journal, system: SimulatedSystem) -> Journal:
    copy: Journal = _copied(Journal, one)
    copy.fs, copy.write, copy.unlock = system, system.write, int
    copy._file = Descriptor(system)
    copy._file.identity = one._file.identity
    copy._file._noted.append(one.fd)
    copy._file._path = one.path
    return copy
