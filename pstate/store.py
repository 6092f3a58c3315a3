"""The hall between memory and an engine: one commit protocol, transactions, threads, fork and the end of the process.

The store keeps the tree of containers (`memory`) equal to the log of an engine (`engine.Log`): it decides who may
change memory when, and in which order memory and log change. It does not know where the commits are.

A thread holds the *mutex* while it reads or changes something, and as long as its transaction is open. In Python, no
thread can release a lock of another one. So a thread that has to end the transaction of another one replaces the mutex
by a new one (`_take_over`); a thread that waits looks again and again which one it is.

The rules for memory (docs/guarantees.md numbers them): nothing in memory changes before the record is in the file,
except inside the owner's transaction. While memory changes, `self.view` is None, so that no other thread takes it for
fresh; the new view is set last. A thread that finds None, and no transaction, reads the file again, so an exception at
any instruction needs no handling of its own.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import sys
import threading
import weakref
from collections.abc import Callable, Hashable, Iterable
from functools import partial
from threading import get_ident
from time import monotonic, sleep
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

from pstate import engines
from pstate import logger as told
from pstate.engine import Engine, Fresh, Log, Overtaken, State, View
from pstate.errors import (
    BypassedError,
    ClosedError,
    LockTimeout,
    PatchedError,
    ReentrantError,
    RemovedError,
    ServerUnavailable,
    StateFileError,
    TransactionError,
    WriteError,
)
from pstate.logger import Logger, send, waiting
from pstate.memory import ops, sets
from pstate.memory.dicts import MappedDict
from pstate.memory.lists import MappedList
from pstate.memory.ops import ABSENT, DETACHED, NODES, REMOVED, ROOT, apply, node_path, prepare
from pstate.memory.transaction import Pending, Savepoint, beginning
from pstate.signals import expected, tolerating
from pstate.text.records import encode_body, encode_set
from pstate.values import SCALARS, same

if TYPE_CHECKING:
    from pstate.memory.core import Block
    from pstate.memory.owner import Intent

R = TypeVar("R")
#: A function that makes the operations of a change, and its result, from the newest state.
Plan: TypeAlias = "Callable[..., Intent]"

_dict_get, _dict_set = dict.get, dict.__setitem__


logger = Logger("pstate.store")

#: How long a thread waits, at least, for another one that is in the middle of a read or a change, in seconds. A shorter
#: `lock_timeout`, such as 0, counts only against a transaction of another thread.
PATIENCE = 1.0
#: How often a thread that waits for the mutex checks whether it was replaced, in seconds.
_LOOK = 0.05

_GENERATOR = 0x20  #: the flag of a generator's code; `inspect`, which names it, takes long to import


class Store:
    """One state file in one process, shared by every `PersistedState` that opens it here."""

    # Slots: without them, an instance with so many attributes would have slow ones.
    __slots__ = (
        "__weakref__",
        "_base_view",
        "_busy",
        "_ending",
        "_handles",
        "_interrupted",
        "changes",
        "closed",
        "ended",
        "engine",
        "fresh",
        "lock_timeout",
        "locking",
        "log",
        "mutex",
        "owner",
        "path",
        "root",
        "view",
    )

    def __init__(
        self,
        path: str,
        *,
        durability: str = "process",
        lock_timeout: float | None = 10.0,
        locking: object = "file",
        read_only: bool = False,
        fresh: float = 0.0,
        engine: Engine = engines.FILES,
    ) -> None:
        self.engine = engine
        self.lock_timeout = lock_timeout
        self.locking = locking
        self.root = dict.__new__(MappedDict)
        for name, value in (("_store", self), ("_parent", ROOT), ("_key", None)):
            object.__setattr__(self.root, name, value)
        #: Where memory is, or None: see `engine.Memory`.
        self.view: View | None = None
        self.log: Log = engine.log(
            path,
            self,
            settles=durability == "power",
            lock_timeout=lock_timeout,
            locking=locking,
            read_only=read_only,
            fresh=fresh,
        )
        #: For messages.
        self.path = self.log.address
        #: See `engine.Log.freshness`: bound once, because every read of a value asks it.
        self.fresh: Fresh = self.log.freshness()
        self.closed = False
        self.mutex = threading.RLock()
        self._ending = threading.RLock()  #: see `_take_over`
        #: A change or a catch-up is under way in the thread that owns the mutex.
        self._busy = False
        #: The open transaction, if there is one. A plain attribute: an exception can come at the beginning of a
        #: property.
        self.changes: Pending | None = None
        #: The thread that owns the transaction, while that is in order and no change is under way; else 0. Only a
        #: short cut: without it, the same question is answered under the mutex.
        self.owner = 0
        self._base_view: View | None = None  #: the view before the transaction's first change
        self._interrupted = False
        #: How deep the outermost block is that was rolled back and has not been left yet; 0 if there is none.
        self.ended = 0
        self._handles: tuple[weakref.ref[MappedDict], ...] = ()
        _all.add(weakref.ref(self, _all.discard))

    # ------------------------------------------------------------------ reading

    def read(self, function: Callable[..., Any], *args: Any) -> Any:
        """Call *function* on memory while it is the newest commit and no thread changes it.

        In this thread's transaction, memory includes its changes. Raises ClosedError after `close`, and LockTimeout if
        another thread's transaction lasts longer than `lock_timeout`.
        """
        if self.owner == get_ident():
            return function(*args)
        mutex = self.mutex
        try:
            if not mutex.acquire(False):
                began = monotonic()
                while not (mutex := self._wait(began, self.lock_timeout, "read")).acquire(False):
                    pass
            if self._busy:
                raise self._reentrant()
            if self.changes is not None:
                return function(*args)
            self._busy = True
            try:
                if self.closed:
                    self._refuse_closed(args[0])
                else:
                    self.log.refresh()
            finally:
                self._busy = False
            result = function(*args)
            view = self.view
        finally:
            try:
                mutex.release()
            except RuntimeError:
                pass  # we have not got it
            if waiting:
                send()
        if self.log.settles:
            self.log.settle_what_is_read(view)
        return result

    def _refuse_closed(self, node: Any) -> None:
        """Raise ClosedError, unless *node* is an ordinary container because it was taken out of the state."""
        if not isinstance(node, (dict, list, set)) or node_path(node) is not DETACHED:
            message = f"{self.path}: the state was used after close(). Nothing was changed. Open it again."
            raise ClosedError(message, path=self.path)

    def _reentrant(self) -> ReentrantError:
        return ReentrantError(
            f"{self.path}: a signal handler or finalizer used the state while it interrupted a change of it in the "
            "same thread. Nothing was changed by this call. Set a flag in the handler, and use the state after it has "
            "returned."
        )

    # ------------------------------------------------------------------ other threads

    @property
    def is_mine(self) -> bool:
        """Whether a transaction of the calling thread is open."""
        changes = self.changes
        return changes is not None and changes.thread == get_ident()

    @property
    def is_held(self) -> bool:
        """Whether the calling thread holds a lock of this state."""
        return self.is_mine or any(mutex._is_owned() for mutex in (self.mutex, self._ending))  # type: ignore[attr-defined]

    def _wait(self, began: float, timeout: float | None, what: str = "changed") -> threading.RLock:
        """Wait until the mutex, which another thread has, is free, and return it. The caller tries to acquire it.

        Raises LockTimeout when *timeout* seconds have passed since the wait *began*, and says that nothing was *what*.
        """
        while True:
            mutex, changes = self.mutex, self.changes
            is_short = changes is None and timeout is not None and 0 <= timeout < PATIENCE
            left = _left(began, PATIENCE if is_short else timeout)
            # At the end of the interpreter, the other threads no longer run.
            if (left is not None and left <= 0) or sys.is_finalizing():
                raise self._timed_out(monotonic() - began, changes, what)
            try:
                if mutex.acquire(timeout=_LOOK if left is None else min(left, _LOOK)):
                    return mutex
            finally:
                try:
                    mutex.release()
                except RuntimeError:
                    pass  # we have not got it

    def _timed_out(self, waited: float, changes: Pending | None, what: str) -> LockTimeout:
        """For a thread that has waited for the owner of the transaction *changes*, or else of the mutex."""
        if changes is None:
            # A lock of Python names its owner only in its repr.
            thread = _name_of(repr(self.mutex).partition("owner=")[2].partition(" ")[0].strip("'"))
            doing = "is in the middle of a read or a change"
            advice = "It may be waiting for another process, or reading a large file."
        else:
            thread = _name_of(str(changes.thread))
            doing = f"has been in a transaction for {monotonic() - changes.since:.1f} s"
            advice = "A transaction belongs to the thread that entered it: do not wait for another thread inside it."
        return LockTimeout(
            f"{self.path}: waited {waited:.1f} s for the thread {thread!r} of this process, which {doing}. Nothing was "
            f"{what}. {advice} Try again, or set a longer timeout.",
            path=self.path,
            waited=waited,
            holder=os.getpid(),
            thread=thread,
        )

    def alone(self, timeout: float | None, function: Callable[..., R], *args: Any) -> R:
        """Call *function* with the mutex. Raises LockTimeout where another thread has it longer than *timeout*."""
        mutex = self.mutex
        try:
            if not mutex.acquire(False):
                began = monotonic()
                while not (mutex := self._wait(began, timeout, "done")).acquire(False):
                    pass
            return function(*args)
        finally:
            try:
                mutex.release()
            except RuntimeError:
                pass  # we have not got it
            if waiting:
                send()

    # ------------------------------------------------------------------ changing

    def put(self, node: ops.Node, key: Any, value: Any) -> None:
        """Set the item *key* of the dict *node* to *value*, both checked."""
        if (
            self.owner != get_ident()
            or value.__class__ not in SCALARS
            or not self._put_in_transaction(node, key, value)
        ):
            self.mutate(node, _set, key, value)

    def _put_in_transaction(self, node: ops.Node, key: Any, value: Any) -> bool:
        """Set a scalar in our own transaction. False, with nothing done, when the case is not an easy one.

        An item that this transaction has set before needs no further operation, so a loop that counts writes only one.
        """
        self.owner = 0
        self._busy = True
        try:
            changes = self.changes
            assert changes is not None
            if node._parent is ROOT:
                node = self.root
            op = changes.latest.get((id(node), key))
            if op is not None:
                self._interrupted = True
                op[3] = value
            else:
                path: Any = [] if node is self.root else node_path(node)
                old = _dict_get(node, key, ABSENT)
                if path.__class__ is not list or old.__class__ in NODES:
                    return False
                if self._base_view is None:
                    self._base_view = self.log.prepare()
                self._interrupted = True
                self.view = None
                changes.put(node, path, key, value, old)
            _dict_set(node, key, value)
            if node is self.root:
                for reference in self._handles:
                    handle = reference()
                    if handle is not None:
                        _dict_set(handle, key, value)
            self._interrupted = False
            self.owner = get_ident()
            return True
        finally:
            self._busy = False

    def mutate(self, node: ops.Node, plan: Plan, *args: Any) -> Any:
        """Carry out the operations that *plan* makes from the newest state, as one commit. Returns the plan's result.

        If this raises an Exception, nothing has changed, in memory or in the file.
        """
        mutex = self.mutex
        timeout = self.lock_timeout
        try:
            if not mutex.acquire(False):
                began = monotonic()
                while not (mutex := self._wait(began, timeout)).acquire(False):
                    pass
                timeout = _left(began, timeout)
            if self._busy:
                raise self._reentrant()
            if self.changes is not None:
                return self._mutate_in_transaction(node, plan, args)
            view = self.view
            path: Any = None
            if node._parent is ROOT:
                node = self.root
                path = []
            elif view is not None:
                path = node_path(node)
                if path is DETACHED:
                    # This does not concern other processes, so it waits for none.
                    self._busy = True
                    try:
                        return self._mutate_outside(node, path, plan, args)
                    finally:
                        self._busy = False
            log = self.log
            while True:
                self._busy = True
                try:
                    if self.closed:
                        self._refuse_closed(node)
                    else:
                        log.begin(timeout)
                    if path.__class__ is not list or (path and self.view is not view):
                        path = node_path(node)
                        if path.__class__ is not list:
                            return self._mutate_outside(node, path, plan, args)
                    if node.__class__ is MappedList and list.__len__(node) != node._size:
                        raise self._bypassed()
                    if plan is _set and args[1].__class__ in SCALARS:
                        # Most changes are of this kind. It needs no `prepare`, which saves a tenth of the time.
                        prepared, result = [("set", *args)], None
                        body = encode_set(path, *args)
                    else:
                        try:
                            operations, result = plan(node, *args)
                            prepared = [prepare(node, op, self) for op in operations]
                            body = encode_body([[op[0], path, *op[1:]] for op in operations]) if operations else ""
                        except expected(Exception):
                            log.confirm()
                            raise
                        if not body:
                            log.confirm()
                            return result
                    view = log.commit(body)
                    self.view = None
                    for op in prepared:
                        apply(node, op, True)
                    if not path:
                        self._mirror(prepared)
                    log.publish(view)
                    break
                except Overtaken:
                    continue
                except WriteError:
                    log.hold.drop_lost()
                    raise
                finally:
                    self._busy = False
                    try:
                        unlock = log.hold.unlock  # see `FileLog.begin`
                        unlock()
                    except expected(OSError) as error:
                        if log.hold.unlock_again(error):
                            raise
                    except BaseException:
                        # An exception may have come before the first instruction of a lock object in Python.
                        log.hold.release()
                        raise
        finally:
            try:
                mutex.release()
            except RuntimeError:
                pass  # we have not got it
            if waiting:
                send()
        if log.settles:
            log.settle(view)
        return result

    def _bypassed(self) -> BypassedError:
        """A record of this change would not fit the file. Memory can no longer be trusted."""
        self.view = None
        return BypassedError(
            f"{self.path}: code that bypasses the state (heapq, or list.append(state.jobs, x)) has changed a list of "
            "it in memory. Nothing was written. The next access reads the file again, without that change. Work on a "
            "copy, and assign that.",
            path=self.path,
        )

    def _mutate_outside(self, node: ops.Node, top: ops.Top, plan: Plan, args: tuple[Any, ...]) -> Any:
        """Change a container that is not in the state: an ordinary one, or an error if others have removed it."""
        if top is REMOVED:
            raise RemovedError(
                f"{self.path}: this container is no longer in the state: another process, or an edit, has removed it. "
                "Nothing was changed. Read it from the state again.",
                path=self.path,
            )
        operations, result = plan(node, *args)
        for op in [prepare(node, op, self) for op in operations]:
            if self.changes is not None:
                # If this transaction has taken it out, a rollback puts it back as it was.
                self.changes.add_undo(node, op)
            apply(node, op, True)
        return result

    def _mutate_in_transaction(self, node: ops.Node, plan: Plan, args: tuple[Any, ...]) -> Any:
        changes = self.changes
        assert changes is not None
        if changes.spoiled:
            raise TransactionError(f"{self.path}: {changes.spoiled} Leave the block.")
        if self._interrupted:
            raise TransactionError(
                f"{self.path}: an exception interrupted a change of this transaction halfway, so none of it will be "
                "committed. Leave the block."
            )
        if self.ended:
            raise TransactionError(
                f"{self.path}: the transaction was rolled back, so this block cannot change the state. Nothing was "
                "changed. Leave the block first."
            )
        self.owner = 0
        self._busy = True
        try:
            if node._parent is ROOT:
                node = self.root
                path: Any = []
            else:
                path = node_path(node)
                if type(path) is not list:
                    return self._mutate_outside(node, path, plan, args)
            if node.__class__ is MappedList and list.__len__(node) != node._size:
                self._interrupted = True
                raise self._bypassed()
            operations, result = plan(node, *args)
            if operations:
                # First what can fail: a change that is refused leaves the transaction as it was.
                ready = [prepare(node, op, self) for op in operations]
                if self._base_view is None:
                    self._base_view = self.log.prepare()
                self._interrupted = True
                self.view = None
                for op, prepared in zip(operations, ready, strict=True):
                    changes.add(node, path, op, prepared)
                    apply(node, prepared, True)
                    if node is self.root:
                        self._mirror((prepared,))
                self._interrupted = False
            return result
        finally:
            self._busy = False
            self._go_on()

    def _go_on(self) -> None:
        """Note that the transaction is in order again, if it is."""
        changes = self.changes
        if changes is not None and not self._interrupted and not self.ended:
            self.owner = changes.thread

    # ------------------------------------------------------------------ memory, as the log sees it

    def apply(self, operations: list[Any]) -> None:
        """Apply a record that another process has committed. See `engine.Memory`."""
        root = self.root
        for name, path, *rest in operations:
            node = ops.find(root, path)
            op = prepare(node, (name, *rest), self)
            apply(node, op, False)
            if node is root:
                self._mirror((op,))

    def adopt(self, state: State) -> None:
        ops.adopt(self.root, state, self)
        self._mirror_all()

    def plain(self) -> State:
        copied: State = ops.plain(self.root)
        return copied

    def replay(self, state: State, records: Iterable[list[Any]]) -> State:
        scratch = ops.graft(state, self, DETACHED, None)
        ops.replay(scratch, records, self)
        replayed: State = ops.plain(scratch)
        return replayed

    # Each `PersistedState` is a dict too, with the items of the root. One store may have several.

    def _mirror(self, operations: Iterable[ops.Op]) -> None:
        """Apply operations of the root to every handle."""
        for reference in self._handles:
            handle = reference()
            if handle is None:
                continue
            for op in operations:
                if op[0] == "set":
                    _dict_set(handle, op[1], op[2])
                elif op[0] == "delete":
                    dict.__delitem__(handle, op[1])
                else:
                    self._fill(handle)
                    break

    def _mirror_all(self) -> None:
        for reference in self._handles:
            handle = reference()
            if handle is not None:
                self._fill(handle)

    def _fill(self, handle: MappedDict) -> None:
        dict.clear(handle)
        for key, value in dict.items(self.root):
            _dict_set(handle, key, value)

    # ------------------------------------------------------------------ transactions

    def enter(self, timeout: float | None, block: Block) -> None:
        """Begin a transaction that collects the changes of *block*, or set a savepoint in that of this thread.

        With a savepoint, *block* gets its mark and the changes of that transaction. Raises LockTimeout and
        PatchedError. After an exception, no lock is held that was not held before, unless the changes of *block* have
        become the open transaction: then the caller has to `leave` it.
        """
        changes = block._changes
        assert changes is not None
        if threading.get_ident is not get_ident:
            raise patched(self.path)
        thread = get_ident()
        current = self.changes
        if current is not None and current.thread == thread and self.mutex._is_owned():  # type: ignore[attr-defined]
            self._begin_block(block, current)
            return
        if timeout is None:
            timeout = self.lock_timeout
        mutex = self.mutex
        try:
            if not mutex.acquire(False):
                began = monotonic()
                while not (mutex := self._wait(began, timeout)).acquire(False):
                    pass
                timeout = _left(began, timeout)
            if self.changes is not None:
                self._begin_block(block, self.changes)
                return
            if self._busy:
                raise self._reentrant()
            self._busy = True
            try:
                if self.closed:
                    self._refuse_closed(None)
                if thread not in _noticed:
                    _here.end = _EndOfThread(thread)
                self.log.begin_block(timeout)
                changes.since = monotonic()
                if self.log.settles:
                    self.log.settle_what_is_read(self.view)
                self._base_view = None
                self._interrupted = False
                self.ended = 0
                changes.thread = thread
                changes.mutex = mutex
                self.changes = changes
                self.owner = thread
            finally:
                self._busy = False
                if self.changes is not changes:
                    try:
                        self.log.hold.release()
                    except BaseException:
                        self.log.hold.release()
                        raise
        finally:
            if self.changes is not changes:
                try:
                    mutex.release()
                except RuntimeError:
                    pass  # we have not got it
                if waiting:
                    send()

    def _begin_block(self, block: Block, changes: Pending) -> None:
        """Begin *block* within the transaction *changes* of this thread."""
        if self._busy:
            raise self._reentrant()
        mark = changes.savepoint()
        # Without a call, so that no exception of a signal handler comes in between.
        block._mark = mark
        block._changes = changes
        changes.depth = mark[3]

    def _is_lost(self, changes: Pending) -> bool:
        """Whether *changes*, of this thread, is no longer the open transaction, because another thread has ended it.

        That thread has the mutex while it does so, and we wait for it. If it fails, everything is as it was.
        """
        if not self.mutex._is_owned() and self.changes is changes:  # type: ignore[attr-defined]
            self.alone(None, bool)
        return self.changes is not changes

    def _is_amiss(self, changes: Pending) -> bool:
        """Whether a block of *changes* cannot be left as usual, for a thread that does not have their mutex."""
        return changes.thread != get_ident() or self._is_lost(changes) or bool(changes.spoiled)

    def end(self, changes: Pending, failed: bool) -> View | None:
        """Leave the outermost block, the only one of *changes* that is open: commit it, or undo it if it *failed*.

        Returns the view to `settle`. Raises as `commit_block` and `end_amiss`. In each case, the block was left, unless
        an asynchronous exception came at the beginning: then the caller has to give it up.
        """
        if (self.changes is not changes or not self.mutex._is_owned()) and self._is_amiss(changes):  # type: ignore[attr-defined]
            self.end_amiss(changes, 1, failed)
            return None
        try:
            if failed:
                self.roll_back()
                return None
            return self.commit_block()
        finally:
            try:
                self.leave(changes)
            except BaseException:
                self.leave(changes)
                raise

    def give_up(self, changes: Pending) -> None:
        """Leave the outermost block, after an asynchronous exception has kept `end` from that. Idempotent.

        It is unknown whether it was committed, so the next access reads the file.
        """
        if (
            self.changes is changes
            and changes.depth == 1
            and changes.thread == get_ident()
            and not self._is_lost(changes)
        ):
            self.leave(changes)

    def commit_block(self) -> View | None:
        """Commit the open transaction; returns the view to `settle` after `leave`.

        If it raises an Exception that means "not committed", the transaction was rolled back.
        """
        changes = self.changes
        assert changes is not None
        if self._interrupted:
            self.roll_back()
            raise TransactionError(
                f"{self.path}: an exception interrupted a change of this transaction halfway, so all of it was rolled "
                "back."
            )
        # Until `leave`: no record would contain what a signal handler adds to the block from here on.
        self.owner = 0
        self._busy = True
        if self._base_view is None or not changes.operations:
            self.log.hold.drop_lost()
            if self._base_view is not None:
                self.view = self.log.renewed(self._base_view)
            return None
        try:
            view = self.log.commit(encode_body(changes.operations), self._base_view)
        except expected(WriteError, UnicodeError, StateFileError, ServerUnavailable):
            # Nothing was written. Any other exception comes from a signal handler, perhaps after the write: then the
            # next access reads from the file whether it was committed.
            self.log.hold.drop_lost()
            self._undo(changes.back_to(beginning()))
            self.view = self.log.renewed(self._base_view)
            raise
        self.log.publish(view)
        return view if self.log.settles else None

    def roll_back(self, mark: Savepoint | None = None) -> None:
        """Undo the open transaction, or what came after *mark*."""
        changes = self.changes
        assert changes is not None
        if mark is None:
            self.log.hold.drop_lost()  # before `leave` unlocks
        if self._base_view is None or (mark is not None and 0 < self.ended < mark[3]):
            return  # nothing was changed, or an outer block has undone it
        if self._interrupted:
            return  # memory stays untrusted, so the next access reads the file
        self.owner = 0
        self._busy = True
        try:
            self._interrupted = True
            self._undo(changes.back_to(mark or beginning()))
            self._interrupted = False
            if not changes.operations:
                # A new object: a thread that read a value while the old one was set must not find it again.
                self.view = self.log.renewed(self._base_view)
                self._base_view = None
        finally:
            self._busy = False
            self._go_on()

    def end_block(self, changes: Pending, mark: Savepoint | None) -> None:
        """Undo the block that began at *mark*. Until it is left, neither it nor a block inside it can change anything.

        Raises TransactionError if it is not open or belongs to another thread, and ReentrantError in the middle of a
        change or of the commit. Nothing was done then.
        """
        depth = mark[3] if mark else 1
        if self.changes is not changes or not changes.is_open(depth):
            raise TransactionError(f"{self.path}: rollback() outside the block. Nothing was changed.")
        if changes.thread != get_ident():
            raise TransactionError(
                f"{self.path}: rollback() in another thread than the one that entered the transaction. Nothing was "
                "done. Roll it back in that thread."
            )
        if self._busy:
            raise self._reentrant()  # from a finalizer in the middle of the commit, which would still write the changes
        if not self._is_lost(changes):
            self.roll_back(mark)
            self.owner = 0
            self.ended = min(self.ended or depth, depth)

    def leave_block(self, changes: Pending, mark: Savepoint, failed: bool) -> None:
        """Leave the innermost block, which is inside the outermost one; undo it if it *failed*.

        In each case, it was left, unless an asynchronous exception came at the beginning: then call this again.
        """
        is_ours = self.changes is changes and self.mutex._is_owned()  # type: ignore[attr-defined]
        if changes.spoiled or (not is_ours and self._is_amiss(changes)):
            self.end_amiss(changes, mark[3], failed)
            return
        try:
            if failed:
                self.roll_back(mark)
            elif not 0 < self.ended < mark[3]:
                changes.release(mark)
        finally:
            changes.leave(mark[3])
            if self.ended == mark[3]:
                self.ended = 0
                self._go_on()

    def end_amiss(self, changes: Pending, depth: int, failed: bool) -> None:
        """Leave a block, at *depth*, that cannot be left in order: all of its transaction is rolled back.

        Either this is another thread, or a block inside it is still open. Raises TransactionError, unless the block
        itself has *failed*. Does nothing if it was left already, or in a forked child.
        """
        if self.changes is changes and changes.is_open(depth):
            if changes.thread != get_ident():
                self._end_of_other_thread(changes, depth)
            elif not self._is_lost(changes):
                self._spoil(
                    changes,
                    depth,
                    "a block of this transaction was left before another block that was entered after it, so all of "
                    "the transaction was rolled back. Do not await or yield in a block.",
                )
        if not failed:
            self._refuse_spoiled(changes)

    def _refuse_spoiled(self, changes: Pending) -> None:
        if changes.spoiled:
            raise TransactionError(f"{self.path}: {changes.spoiled}")

    def _spoil(self, changes: Pending, depth: int, reason: str) -> None:
        """Roll all of *changes* back, and leave the block at *depth*.

        A change in another block of it raises the *reason*, until all blocks were left.
        """
        try:
            changes.spoiled = changes.spoiled or reason
            self.ended = 1
            self.owner = 0
            self.roll_back()
        finally:
            changes.leave(depth)
            if not changes.depth:
                try:
                    self.leave(changes)
                except BaseException:
                    self.leave(changes)
                    raise

    def _end_of_other_thread(self, changes: Pending, depth: int) -> None:
        """Leave a block, at *depth*, of a transaction of another thread."""
        if self._ending._is_owned():  # type: ignore[attr-defined]
            raise self._reentrant()
        try:
            with self._ending:
                self._end_taken_over(changes, depth)
        finally:
            if waiting:
                send()

    def _end_taken_over(self, changes: Pending, depth: int) -> None:
        if self.changes is not changes:
            return
        theirs = changes.mutex
        if self._take_over(changes):
            ours = self.mutex
            try:
                if changes.is_open(depth):
                    self._spoil(
                        changes,
                        depth,
                        "a block of this transaction was left in another thread than the one that entered it, so all "
                        "of the transaction was rolled back. Enter and leave a block in the same thread.",
                    )
            finally:
                if self.changes is changes:
                    # Other blocks of it are open in that thread. Our mutex stays locked for threads that know it.
                    self.mutex = changes.mutex = theirs
                else:
                    with contextlib.suppress(RuntimeError):  # `leave` has done it
                        ours.release()

    def _take_over(self, changes: Pending) -> bool:
        """Replace the mutex that another thread holds for its transaction *changes* by a new one.

        False if the transaction has ended meanwhile. Raises LockTimeout if that thread is busy in it for too long. From
        here on, that thread waits for the new mutex. The old one stays locked, so that a thread that waits for it looks
        for the new one. If this fails, the new one stays locked instead.
        """
        ours, theirs = threading.RLock(), changes.mutex
        ours.acquire()
        began = monotonic()
        taken = False
        try:
            self.mutex = ours
            while self.changes is changes and not taken:
                self.owner = 0  # before we look; at the end of an operation, that thread may have set it again
                # After this look, that thread begins nothing in Python, because `mutex` is not the one it holds. The
                # rest is read without a call, so no other thread runs in between: `owner` lets the compiled part begin,
                # `_busy` says that it has begun, and `changes` whether the transaction was left during the look.
                if self._is_at_work(changes.thread) or self._busy or self.owner:
                    if monotonic() - began >= PATIENCE:
                        raise self._timed_out(monotonic() - began, changes, "done")
                    sleep(0.001)
                elif self.changes is changes:
                    changes.mutex = ours
                    taken = True
        finally:
            if not taken:
                self.mutex = theirs
        return taken

    def _is_at_work(self, thread: int) -> bool:
        """Whether Python code of this store runs in another *thread*. What the compiled part does, only `_busy` shows.

        Not if it waits for our mutex: then it has not begun. An operation that it began before is in an outer frame.
        """
        waits = False
        frame = sys._current_frames().get(thread)
        while frame is not None:
            code = frame.f_code
            if code.co_filename != Store._wait.__code__.co_filename:
                waits = False
            elif frame.f_locals.get("self") is self:
                # An earlier mutex may be its own, and does not stop it.
                waits = waits or (code is Store._wait.__code__ and frame.f_locals.get("mutex") is self.mutex)
                if not waits:
                    return True
            if frame.f_back is None and code.co_flags & _GENERATOR:
                return True  # it has yielded meanwhile, to a caller that no longer shows
            frame = frame.f_back
        return False

    def _undo(self, inverses: list[tuple[ops.Node, ops.Op]]) -> None:
        for node, op in inverses:
            apply(node, op, True)
            if node is self.root:
                self._mirror((op,))

    def leave(self, changes: Pending) -> None:
        """Unlock after the last block of *changes*, no matter how it ended. Idempotent."""
        if self.changes is not changes:
            return  # forked inside the block: the lock is the parent's
        try:
            self.owner = 0
            self._base_view = None
            self.ended = 0
            try:
                unlock = self.log.hold.unlock  # see `FileLog.begin`
                unlock()
            except expected(OSError) as error:
                if self.log.hold.unlock_again(error):
                    raise
            except BaseException:
                self.log.hold.release()  # as in `mutate`
                raise
        finally:
            self.changes = None
            self._busy = False
            changes.mutex.release()
            if waiting:
                send()

    def end_of_thread(self, name: str) -> None:
        """Roll back the transaction that the calling thread, called *name*, has open. The thread is about to end."""
        changes = self.changes
        if changes is not None and changes.thread == get_ident():
            if self._is_lost(changes):
                return
            logger.error(
                "%s: the thread %r ended inside a transaction, which was rolled back. Its changes are not in the file.",
                self.path,
                name,
            )
            while changes.depth:
                self._spoil(
                    changes,
                    changes.depth,
                    "the thread that entered this transaction has ended inside it, so all of the transaction was "
                    "rolled back.",
                )

    # ------------------------------------------------------------------ the rest of a store's life

    def vacuum(self) -> None:
        """Rewrite the file as one plain document. Raises TransactionError inside a transaction."""
        self._rewrite("vacuum()", self.log.vacuum)

    def _rewrite(self, name: str, rewrite: Callable[[], R]) -> R:
        """Exclude all others, and call *rewrite*. *name* is the name of the caller, for messages."""
        rewritten: R = self.alone(self.lock_timeout, self._rewrite_alone, name, rewrite)
        return rewritten

    def _rewrite_alone(self, name: str, rewrite: Callable[[], R]) -> R:
        if self._busy:
            raise self._reentrant()
        if self.changes is not None:
            raise TransactionError(
                f"{self.path}: {name} inside a transaction. Nothing was done. Leave the block first."
            )
        self._busy = True
        try:
            if self.closed:
                self._refuse_closed(None)
            self.log.begin_rewrite(self.lock_timeout)
            return rewrite()
        finally:
            self._busy = False
            try:
                self.log.hold.release()
            except BaseException:
                self.log.hold.release()
                raise

    def save(self, original: State, text: bytes, only_at: View | None = None) -> list[str]:
        """Take over the document *text*, with its comments, that a person has made from a copy with *original*.

        Values that were committed meanwhile are kept. If both sides changed the same value, the edit wins, and the list
        that is returned has a sentence about it. Raises as `vacuum`, and InvalidStateError if *text* is not a state.
        With *only_at*, it raises Overtaken, and changes nothing, if memory's view is another one by now.
        """
        return self._rewrite("save()", partial(self._save, original, text, only_at))

    def _save(self, original: State, text: bytes, only_at: View | None) -> list[str]:
        if only_at is not None and self.view is not only_at:
            raise Overtaken
        return self.log.save(original, text)

    def _open_log(self) -> None:
        self._busy = True
        try:
            self.log.open()
        except BaseException:
            self.log.rest()
            raise
        finally:
            self._busy = False
        if "yaml" in sys.modules:
            from pstate.memory import pyyaml

            pyyaml.register_representers(MappedDict, MappedList, sets.MappedSet)

    def attach(self, handle: MappedDict, timeout: float | None) -> bool:
        """Make *handle*, a `PersistedState`, show the root from now on.

        False when another thread has just closed the store. Opens the file if need be, see `FileLog.open`. Raises
        LockTimeout where another thread's transaction lasts longer than *timeout*.
        """
        return self.alone(timeout, self._attach, handle)

    def _attach(self, handle: MappedDict) -> bool:
        if self.closed:
            return False
        object.__setattr__(handle, "_store", self)  # first, so that the finalizer of the handle finds the store
        _kept_alive.add(self)
        if self.log.at_rest:
            self._open_log()
        else:
            self.log.follow_links()
        self._handles = (*(r for r in self._handles if r() is not None), weakref.ref(handle))
        self._fill(handle)
        return True

    def detach(self, handle: MappedDict | None) -> None:
        """Forget *handle*, which is being finalized. With the last one, close the file; a later access reopens it.

        The garbage collector calls this at any time and in any thread, so a store that is busy is left as it is.
        """
        mutex = self.mutex
        owned = mutex._is_owned()  # type: ignore[attr-defined]
        try:
            if (owned or mutex.acquire(blocking=False)) and not self._busy:
                self._drop(handle)
                if not self._handles and self.changes is None and not self.closed:
                    self._let_go()
        finally:
            if not owned:
                try:  # without a call before it, during which a signal could arrive
                    mutex.release()
                except RuntimeError:  # another thread has it
                    pass
            if waiting:
                send()

    def close(self, handle: MappedDict | None = None, keep_journal: bool = False) -> None:
        """Forget *handle*, or all; with the last one, the store ends: TransactionError inside a transaction.

        Raises LockTimeout where another thread's transaction lasts longer than `lock_timeout`.
        """
        self.alone(self.lock_timeout, self._close, handle, keep_journal)

    def _close(self, handle: MappedDict | None, keep_journal: bool) -> None:
        if self._busy:
            raise self._reentrant()
        last = all(r() is None or r() is handle for r in self._handles)
        if self.changes is not None and (handle is None or last):
            raise TransactionError(
                f"{self.path}: close() inside a transaction. Nothing was done. Leave the block first."
            )
        self._drop(handle)
        if handle is None or not self._handles:
            self.closed = True
            self._let_go(keep_journal)

    def tidy_at_exit(self) -> None:
        """Leave one plain document, and stay open for code that writes even later."""
        self.alone(PATIENCE, self._tidy_at_exit)

    def _tidy_at_exit(self) -> None:
        if self._busy or self.changes is not None:
            return  # exit() was called in the middle of an operation
        self._busy = True
        try:
            self.log.tidy()
        finally:
            self._busy = False

    def _drop(self, handle: MappedDict | None) -> None:
        self._handles = tuple(r for r in self._handles if r() is not None and r() is not handle)

    def _let_go(self, keep_journal: bool = False) -> None:
        self._busy = True
        try:
            # At its very end, Python imports nothing, not even our modules. `_at_exit` has tidied up before.
            if not sys.is_finalizing():
                self.log.tidy(keep_journal=keep_journal)
            self.log.rest()
        finally:
            self._busy = False
            _kept_alive.discard(self)

    def check(self) -> None:
        """Assert the invariants that hold between operations. Do nothing during one. For tests.

        Raises AssertionError, with the number that the rule has in docs/guarantees.md.
        """
        mutex = self.mutex
        if not mutex.acquire(False):
            return
        try:
            if not self._busy and not self.closed:
                self._check()
        finally:
            mutex.release()

    def _check(self) -> None:
        for reference in self._handles:
            handle = reference()  # its truth value would be a read
            assert handle is None or [*dict.items(handle)] == [*dict.items(self.root)], (
                "I5: a handle shows a different state from the root"
            )
        self.log.check()
        if self.changes is not None:
            assert self.owner in (0, self.changes.thread), "I5: another thread's transaction counts as ours"
            return
        assert not self.owner, "I5: a thread counts as being in a transaction, but none is open"
        assert self._base_view is None, "I8: a transaction is over, but its base is still kept"
        if self.view is not None:
            document, records = self.log.records()
            assert same(self.replay(document, records), self.plain()), "I5: memory is not the result of its commits"

    def after_fork(self) -> None:
        """In the child: drop the locks, descriptors and transactions, which belong to the parent."""
        self.mutex = threading.RLock()
        self._ending = threading.RLock()
        self._busy = False
        self.owner = 0
        self.changes = None
        self._base_view = None
        self.log.forget()


class ThreadLock:
    """A lock that excludes the other threads of this process: see `PersistedState._thread_lock`."""

    def __init__(self, core: Store) -> None:
        self._core = core
        self._mutex = core.mutex

    def acquire(self) -> bool:
        """Raises LockTimeout if another thread has it for longer than `lock_timeout`."""
        began = monotonic()
        self._mutex = self._core.mutex
        while not self._mutex.acquire(False):
            self._mutex = self._core._wait(began, self._core.lock_timeout, "done")
        return True

    def release(self) -> None:
        """Raises RuntimeError if this thread does not have it."""
        self._mutex.release()
        if waiting:
            send()

    __enter__ = acquire

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.release()


def _left(began: float, timeout: float | None) -> float | None:
    """What is left of *timeout* seconds since *began*, never less than 0; None without a limit."""
    return None if timeout is None or timeout < 0 else max(0.0, timeout - (monotonic() - began))


#: The threads whose end we will notice, by an object that ends with them.
_noticed: set[int] = set()
_here = threading.local()


class _EndOfThread:
    """An object whose finalizer runs when its thread ends."""

    # For `__del__`, after an exception of a signal handler has cut `__init__` off.
    _process = 0
    _thread = 0
    _name = ""

    def __init__(self, thread: int) -> None:
        self._thread = thread
        self._name = _name_of(str(thread))  # Python forgets it before the finalizer runs
        self._process = os.getpid()
        _noticed.add(thread)

    def __del__(self) -> None:
        # In a forked child, the other threads of the parent have not ended.
        if self._process == os.getpid() and not sys.is_finalizing():
            _noticed.discard(self._thread)
            for store in _each():
                store.end_of_thread(self._name)


def _name_of(thread: str) -> str:
    """The name of the thread with the identifier *thread*, or *thread* if that is a name already."""
    return next((each.name for each in threading.enumerate() if str(each.ident) == thread), thread)


def patched(path: str) -> PatchedError:
    """For a program in which other functions tell threads apart than the ones that we have imported."""
    return PatchedError(
        f"{path}: gevent or eventlet replaced Python's threads after pstate was imported, so all greenlets would share "
        "one transaction. Nothing was done. Call monkey.patch_all() (or monkey_patch()) first in the program, before "
        "any other import."
    )


def _set(node: ops.Node, key: Any, value: Any) -> Intent:
    return [("set", key, value)], None


# One store for each file in a process: `flock` excludes by descriptor, so two stores would lock each other out.
_stores: weakref.WeakValueDictionary[tuple[Any, ...], Store] = weakref.WeakValueDictionary()
#: The stores whose path is a symbolic link, or goes through one. They follow it.
_by_link: weakref.WeakSet[Store] = weakref.WeakSet()
_stores_mutex = threading.RLock()  # a signal handler may open another state while one is being opened
# The stores with handles, kept alive here: in a cycle of garbage, descriptors may be closed before the `__del__` of a
# handle tidies up.
_kept_alive: set[Store] = set()
#: Every store that exists, also one that is closing.
_all: set[weakref.ref[Store]] = set()


def _each() -> list[Store]:
    # Making a copy gives the garbage collector no chance to take a store out meanwhile.
    return [store for reference in _all.copy() if (store := reference()) is not None]


def _holds_a_lock() -> bool:
    """Whether the calling thread holds a lock that another thread may wait for."""
    return bool(_stores_mutex._is_owned()) or any(store.is_held for store in _each())  # type: ignore[attr-defined]


told.lock_holders.append(_holds_a_lock)


def shared(
    path: str,
    handle: MappedDict,
    *,
    durability: str,
    lock_timeout: float | None,
    locking: object,
    read_only: bool,
    fresh: float = 0.0,
    engine: Engine,
) -> Store:
    """The store of the state at *path* in this process, opened, and shown by *handle* from now on.

    A second call for the state returns the same store. The stricter durability counts for both, the smaller *fresh*,
    and the last lock_timeout. Raises ValueError for another kind of locking, because the two would not exclude each
    other, LockTimeout if another thread's transaction in that file lasts longer than *lock_timeout*, and PatchedError.
    """
    if threading.get_ident is not get_ident:
        raise patched(path)
    while True:
        with _stores_mutex:
            real = engine.name(path)
            store = _find(path, real, read_only, engine)
            is_new = store is None
            if store is None:
                store = Store(
                    path,
                    durability=durability,
                    lock_timeout=lock_timeout,
                    locking=locking,
                    read_only=read_only,
                    fresh=fresh,
                    engine=engine,
                )
                _stores[engine.key, store.path, read_only] = store
                if store.path != real:
                    _by_link.add(store)
            elif store.locking != locking:
                raise ValueError(
                    f"{path}: the file is open in this process with locking={store.locking!r}, which does not exclude "
                    f"locking={locking!r}. Nothing was opened. Use the same locking for both."
                )
        # Without the common mutex: this waits for another thread's transaction, which may open states itself.
        if store.attach(handle, lock_timeout):
            if not is_new:
                store.lock_timeout = store.log.lock_timeout = lock_timeout
                if durability == "power" and not read_only:
                    store.log.stricter()
                store.log.fresher(fresh)
                store.fresh = store.log.freshness()
            return store


def _find(path: str, real: Hashable, read_only: bool, engine: Engine) -> Store | None:
    """The open store of the state at *path*, which is *real* without links, no matter by which name it was opened."""
    for name in (path, real):
        store = _stores.get((engine.key, name, read_only))
        if store is not None and not store.closed and store.log.leads_to(real):
            return store
    for store in list(_by_link):
        if (store.engine, store.log.read_only) == (engine, read_only) and not store.closed and store.log.leads_to(real):
            # Each of its names means this state, and some are not the link. So it stays with the state.
            store.log.stay_at(real)
            _stores[engine.key, real, read_only] = store
            _by_link.discard(store)
            return store
    return None


def abandon(engine: Engine) -> None:
    """For simulations: the process that had its states by *engine* is dead, so its finalizers must not touch a file."""
    for store in [store for store in _kept_alive.copy() if store.engine == engine]:
        store.closed = True
        _kept_alive.discard(store)


#: The modules that are imported when they are first needed.
_IMPORTED_LATE = (
    "base64", "html", "inspect", "logging", "pprint", "pstate.callbacks", "pstate.memory.changes",
    "pstate.memory.pyyaml", "pstate.memory.showing", "pstate.places", "pstate.text.events", "pstate.text.mistakes",
    "pstate.text.reading", "pstate.text.scalars", "pstate.text.splice", "pstate.text.tables", "pstate.watch",
    "traceback", "yaml", *engines.IMPORTED_LATE,
)  # fmt: skip


def import_late() -> None:
    """Import the modules now that would be imported when they are first needed."""
    for name in _IMPORTED_LATE:
        with tolerating(ImportError):  # not every Python has ctypes
            __import__(name)


def _before_fork() -> None:
    """Import all modules, and wait for imports of other threads. A module that another thread is importing would stay
    locked in the child, which does not have that thread: an import there would wait for ever.
    """
    if _kept_alive and threading.active_count() > 1:
        import_late()


def _after_fork_in_child() -> None:
    global _stores_mutex, _here
    _stores_mutex = threading.RLock()
    _here = threading.local()
    _noticed.clear()
    told.forget()
    for store in list(_stores.values()):
        store.after_fork()
    for engine in {engines.FILES, *(store.engine for store in _each())}:
        engine.close_inherited()


def _at_exit() -> None:
    """Tidy up, but close nothing: handlers that were registered before this one, and finalizers, run after it."""
    for store in _kept_alive.copy():
        # A daemon thread may be in a transaction for ever.
        with tolerating(LockTimeout, ReentrantError):
            store.tidy_at_exit()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before_fork, after_in_child=_after_fork_in_child)
atexit.register(_at_exit)
