"""The hall between memory and an engine: one commit protocol, transactions, threads, fork and the end of the process.

The store keeps the tree of containers (`memory`) equal to the log of an engine (`engine.Log`): it decides who may
change memory when, and in which order memory and log change. It does not know where the commits are.

A thread has the *mutex* while it reads or changes something, and for as long as its transaction is open. No lock of
Python's can be given back by another thread. So a thread that has to end the transaction of another one puts a new
mutex in the place of the old one (`_take_over`): who waits asks again which it is.

The rules for memory (docs/guarantees.md numbers them): nothing in memory changes before the record is in the file,
except inside the owner's transaction. While memory changes, `self.view` is None, so that no other thread takes it for
fresh; the new view is the last thing to be set. A thread that finds None, and no transaction, reads the file again: so
an exception at any instruction needs no handling of its own.
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
#: What makes the operations of a change, and its result, of the newest state.
Plan: TypeAlias = "Callable[..., Intent]"

_dict_get, _dict_set = dict.get, dict.__setitem__


logger = Logger("pstate.store")

#: How long a thread waits, at least, for another one that is in the middle of a read or a change, in seconds. What
#: another thread does is not what `lock_timeout=0` does not wait for, unless it is a whole block.
PATIENCE = 1.0
#: How often a thread that waits for the mutex looks whether there is another one, in seconds.
_LOOK = 0.05


class Store:
    """One state file in one process, shared by every `PersistedState` that opens it here."""

    # Slots, because an instance of so many attributes would have slow ones.
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
        )
        #: For people.
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
        #: The thread whose transaction it is, while that is in order and nobody is at work on it; else 0. Only ever a
        #: short cut: without it, the same is found out under the mutex.
        self.owner = 0
        self._base_view: View | None = None  #: the view before the transaction's first change
        self._interrupted = False
        #: How deep the outermost block is that was rolled back and has not been left yet; 0 if there is none.
        self.ended = 0
        self._handles: tuple[weakref.ref[MappedDict], ...] = ()
        _all.add(weakref.ref(self, _all.discard))

    # ------------------------------------------------------------------ reading

    def read(self, function: Callable[..., Any], *args: Any) -> Any:
        """Call *function* on memory while it is the newest commit and nobody changes it.

        In this thread's transaction, memory is what the transaction made of it. Raises ClosedError after `close`, and
        LockTimeout where another thread's transaction lasts longer than `lock_timeout`.
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
        """Raise ClosedError, unless *node* was taken out of the state and is an ordinary container."""
        if not isinstance(node, (dict, list, set)) or node_path(node) is not DETACHED:
            message = f"{self.path}: the state was used after close(). Nothing was changed. Open it again."
            raise ClosedError(message, path=self.path)

    def _reentrant(self) -> ReentrantError:
        return ReentrantError(
            f"{self.path}: the state was used by a signal handler or finalizer that had interrupted a change of it in "
            "the same thread. Nothing was changed by this call. Set a flag in the handler, and use the state outside "
            "of it."
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
        """Wait until the mutex, which another thread has, is free, and return it: the caller tries to get it.

        Raises LockTimeout when *timeout* seconds have passed since the wait *began*, and says that nothing was *what*.
        """
        while True:
            mutex, changes = self.mutex, self.changes
            is_short = changes is None and timeout is not None and 0 <= timeout < PATIENCE
            left = _left(began, PATIENCE if is_short else timeout)
            # The other threads do not run any more when the interpreter has come to its end.
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
        """For a thread that has waited for the one whose transaction *changes* is, or that has the mutex."""
        if changes is None:
            # A lock of Python's tells its owner to people only.
            thread = _name_of(repr(self.mutex).partition("owner=")[2].partition(" ")[0].strip("'"))
            doing = "is in the middle of a read or a change"
            advice = "It may wait for another process, or be at a large file."
        else:
            thread = _name_of(str(changes.thread))
            doing = f"has been in a transaction for {monotonic() - changes.since:.1f} s"
            advice = "A transaction belongs to the thread that entered it: within it, do not wait for another thread."
        return LockTimeout(
            f"{self.path}: waited {waited:.1f} s for the thread {thread!r} of this process, which {doing}. Nothing was "
            f"{what}. {advice} Retry, or allow a longer time.",
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
        """Set a scalar in our own transaction. False, and nothing was done, when it is none of the easy cases.

        An item that this transaction has set before costs no further operation, and a loop that counts writes one.
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
        """Carry out the operations that *plan* makes of the newest state as one commit; returns the plan's result.

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
                    # No business of other processes, so nobody is waited for.
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
                        # Most changes are like this one, which needs no `prepare`: a tenth less time.
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
                        # An exception may have come before the first instruction of a lock that is written in Python.
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
        """A record of this change would not fit the file. Memory is not to be trusted any more."""
        self.view = None
        return BypassedError(
            f"{self.path}: code that goes round the state (heapq, or list.append(state.jobs, x)) has changed a list "
            "of it in memory. Nothing was written; memory is read from the file again, without that change. Work on "
            "a copy.",
            path=self.path,
        )

    def _mutate_outside(self, node: ops.Node, top: ops.Top, plan: Plan, args: tuple[Any, ...]) -> Any:
        """A container that is not in the state: an ordinary one if we took it out, an error if others removed it."""
        if top is REMOVED:
            raise RemovedError(
                f"{self.path}: this container is not in the state any more: another process, or an edit, has removed "
                "it. Nothing was changed. Take it from the state anew.",
                path=self.path,
            )
        operations, result = plan(node, *args)
        for op in [prepare(node, op, self) for op in operations]:
            if self.changes is not None:
                # It may have been taken out within the transaction, and then a rollback puts it back as it was.
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
                f"{self.path}: an exception has cut a change of this transaction in two. Nothing of it will be "
                "committed; leave the block."
            )
        if self.ended:
            raise TransactionError(
                f"{self.path}: the transaction was rolled back, so this block changes nothing any more. Nothing was "
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
                # What can fail comes first: a change that is refused leaves the transaction as it was.
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
        """The transaction is in order again, as far as it is."""
        changes = self.changes
        if changes is not None and not self._interrupted and not self.ended:
            self.owner = changes.thread

    # ------------------------------------------------------------------ memory, as the log sees it

    def apply(self, operations: list[Any]) -> None:
        """Apply a record that somebody else has committed. See `engine.Memory`."""
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

    # A `PersistedState` is a dict too, with what the root holds. There may be several of one store.

    def _mirror(self, operations: Iterable[ops.Op]) -> None:
        """Bring operations that were applied to the root to every handle."""
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
        """Begin a transaction that collects the changes of *block*, or set a savepoint in this thread's one.

        Then *block* has its mark, and the changes of that one. Raises LockTimeout, and PatchedError. After any
        exception no lock is held that was not held before, unless the changes of *block* have become the open
        transaction: then the caller has to `leave` it.
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
        # No call among these, so that no exception of a signal handler comes in between.
        block._mark = mark
        block._changes = changes
        changes.depth = mark[3]

    def _is_lost(self, changes: Pending) -> bool:
        """Whether *changes*, of this thread, is the open transaction no more, because another thread has ended it.

        That one has the mutex while it does so, and is waited for. It may not succeed: then all is as it was.
        """
        if not self.mutex._is_owned() and self.changes is changes:  # type: ignore[attr-defined]
            self.alone(None, bool)
        return self.changes is not changes

    def _is_amiss(self, changes: Pending) -> bool:
        """Whether a block of *changes* cannot be left as usual, where this thread has not got their mutex."""
        return changes.thread != get_ident() or self._is_lost(changes) or bool(changes.spoiled)

    def end(self, changes: Pending, failed: bool) -> View | None:
        """Leave the outermost block, the only one of *changes* that is open: commit it, or undo it if it *failed*.

        Returns what is to `settle`. Raises as `commit_block` and `end_amiss`. However this ends, the block was left,
        unless an asynchronous exception has come at the beginning: then it has to be given up.
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
        """Leave the outermost block, where an asynchronous exception has kept `end` from it. Idempotent.

        Nobody knows whether it was committed: the next access reads the file.
        """
        if (
            self.changes is changes
            and changes.depth == 1
            and changes.thread == get_ident()
            and not self._is_lost(changes)
        ):
            self.leave(changes)

    def commit_block(self) -> View | None:
        """Commit the open transaction; returns what is to `settle` after `leave`.

        When it raises an Exception that means "not committed", it was rolled back.
        """
        changes = self.changes
        assert changes is not None
        if self._interrupted:
            self.roll_back()
            raise TransactionError(
                f"{self.path}: an exception had cut a change of this transaction in two, so all of it was rolled back."
            )
        # Until `leave`: what a signal handler added to the block from here on would be in no record.
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
            # Nothing was written. Any other exception may have come behind the write, from a signal handler: then the
            # file says, at the next access.
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
            return  # nothing was changed, or it was undone with a block around
        if self._interrupted:
            return  # memory stays untrusted: the next access reads the file
        self.owner = 0
        self._busy = True
        try:
            self._interrupted = True
            self._undo(changes.back_to(mark or beginning()))
            self._interrupted = False
            if not changes.operations:
                # A new object: a thread that read a value under the old one must not find it again.
                self.view = self.log.renewed(self._base_view)
                self._base_view = None
        finally:
            self._busy = False
            self._go_on()

    def end_block(self, changes: Pending, mark: Savepoint | None) -> None:
        """Undo the block that began at *mark*; until it is left, nothing can be changed, in blocks inside of it too.

        Raises TransactionError where that is not open, or another thread's, and ReentrantError in the middle of a
        change, or of the commit: then nothing was done.
        """
        depth = mark[3] if mark else 1
        if self.changes is not changes or not changes.is_open(depth):
            raise TransactionError(f"{self.path}: rollback() outside of the block. Nothing was changed.")
        if changes.thread != get_ident():
            raise TransactionError(
                f"{self.path}: a transaction belongs to the thread that entered it, and this is another one. Nothing "
                "was done. Roll it back there."
            )
        if self._busy:
            raise self._reentrant()  # from a finalizer in the middle of the commit, which would write what is undone
        if not self._is_lost(changes):
            self.roll_back(mark)
            self.owner = 0
            self.ended = min(self.ended or depth, depth)

    def leave_block(self, changes: Pending, mark: Savepoint, failed: bool) -> None:
        """Leave the innermost block, which is inside of the transaction's; undo it if it *failed*.

        However this ends, it was left, unless an asynchronous exception has come at the beginning: then do it again.
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
        """Leave a block, at *depth*, that cannot be left as it should be: all of its transaction is rolled back.

        Either this is another thread, or a block inside of it is open still. Raises TransactionError, unless the block
        has *failed* itself. Does nothing where it was left already, or in a forked child.
        """
        if self.changes is changes and changes.is_open(depth):
            if changes.thread != get_ident():
                self._end_of_other_thread(changes, depth)
            elif not self._is_lost(changes):
                self._spoil(
                    changes,
                    depth,
                    "a block of this transaction was left before another one that had been entered after it. So all "
                    "of the transaction was rolled back. Do not await or yield in a block.",
                )
        if not failed:
            self._refuse_spoiled(changes)

    def _refuse_spoiled(self, changes: Pending) -> None:
        if changes.spoiled:
            raise TransactionError(f"{self.path}: {changes.spoiled}")

    def _spoil(self, changes: Pending, depth: int, reason: str) -> None:
        """Roll all of *changes* back, and leave the block at *depth*.

        Those who go on within other blocks of it are told the *reason*, and change nothing, until all were left.
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
                        "a block of this transaction was left in another thread than the one that entered it. So all "
                        "of the transaction was rolled back. Enter and leave a block in the same thread.",
                    )
            finally:
                if self.changes is changes:
                    # Other blocks of it are open in that thread. Ours is never free, for those who know it already.
                    self.mutex = changes.mutex = theirs
                else:
                    with contextlib.suppress(RuntimeError):  # `leave` has done it
                        ours.release()

    def _take_over(self, changes: Pending) -> bool:
        """Have a new mutex in the place of that which another thread has for its transaction *changes*.

        False when that has ended meanwhile. Raises LockTimeout when that thread is at work in it for too long. What
        that thread does from here on waits for the new mutex. The old one will never be free again, so that whoever has
        asked for it too early asks again. Where nothing comes of it, it is the new one that is never free.
        """
        ours, theirs = threading.RLock(), changes.mutex
        ours.acquire()
        began = monotonic()
        taken = False
        try:
            self.mutex = ours
            while self.changes is changes and not taken:
                self.owner = 0  # before we look; and when it has come out of something, it may have set it again
                if not self._is_at_work(changes.thread) and not self.owner:
                    changes.mutex = ours
                    taken = True
                elif monotonic() - began >= PATIENCE:
                    raise self._timed_out(monotonic() - began, changes, "done")
                else:
                    sleep(0.001)
        finally:
            if not taken:
                self.mutex = theirs
        return taken

    def _is_at_work(self, thread: int) -> bool:
        """Whether another *thread* is in the middle of a read or a change of this state.

        Not if it waits for our mutex: it has not begun yet. What it has begun before that is found further out.
        """
        if self._busy:
            return True
        waits = False
        frame = sys._current_frames().get(thread)
        while frame is not None:
            code = frame.f_code
            if code.co_filename != Store._wait.__code__.co_filename:
                waits = False
            elif frame.f_locals.get("self") is self:
                waits = waits or code is Store._wait.__code__
                if not waits:
                    return True
            frame = frame.f_back
        return False

    def _undo(self, inverses: list[tuple[ops.Node, ops.Op]]) -> None:
        for node, op in inverses:
            apply(node, op, True)
            if node is self.root:
                self._mirror((op,))

    def leave(self, changes: Pending) -> None:
        """Unlock after the last block of *changes*, however it ended. Idempotent."""
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
        """The calling thread ends, which is called *name*. A transaction that it has open will never be left by it."""
        changes = self.changes
        if changes is not None and changes.thread == get_ident():
            if self._is_lost(changes):
                return
            logger.error("%s: the thread %r has ended in a transaction, which was rolled back", self.path, name)
            for depth in range(changes.depth, 0, -1):
                self._spoil(
                    changes,
                    depth,
                    "the thread that entered this transaction has ended in it. So all of the transaction was rolled "
                    "back.",
                )

    # ------------------------------------------------------------------ the rest of a store's life

    def vacuum(self) -> None:
        """Write the file anew as one plain document. Raises TransactionError inside a transaction."""
        self._rewrite("vacuum()", self.log.vacuum)

    def _rewrite(self, name: str, rewrite: Callable[[], R]) -> R:
        """Exclude all others, and call *rewrite*. *name* is what the caller is called, for people."""
        rewritten: R = self.alone(self.lock_timeout, self._rewrite_alone, name, rewrite)
        return rewritten

    def _rewrite_alone(self, name: str, rewrite: Callable[[], R]) -> R:
        if self._busy:
            raise self._reentrant()
        if self.changes is not None:
            raise TransactionError(
                f"{self.path}: {name} inside a transaction. Nothing was done; leave the block first."
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

    def save(self, original: State, text: bytes) -> list[str]:
        """Take over the document *text* that a person has made of a copy that said *original*, comments and all.

        What was committed meanwhile is kept, value by value; where both changed the same one, the edit wins, and a
        sentence of the list that is returned says so. Raises as `vacuum`, and InvalidStateError when *text* is no
        state.
        """
        return self._rewrite("save()", partial(self.log.save, original, text))

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
        object.__setattr__(handle, "_store", self)  # first: whatever comes now, the handle knows whom to tell
        _kept_alive.add(self)
        if self.log.at_rest:
            self._open_log()
        else:
            self.log.follow_links()
        self._handles = (*(r for r in self._handles if r() is not None), weakref.ref(handle))
        self._fill(handle)
        return True

    def detach(self, handle: MappedDict | None) -> None:
        """*handle* is going away by itself. With the last one, let go of the file; a reference held elsewhere reopens
        it.

        Called by the garbage collector, at any time and in any thread: what is busy is left as it is.
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
                try:  # without a call in front of it, where a signal could come
                    mutex.release()
                except RuntimeError:  # somebody else's
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
                f"{self.path}: close() inside a transaction. Nothing was done; leave the block first."
            )
        self._drop(handle)
        if handle is None or not self._handles:
            self.closed = True
            self._let_go(keep_journal)

    def tidy_at_exit(self) -> None:
        """Leave one plain document, and stay open for those who write even later."""
        self.alone(PATIENCE, self._tidy_at_exit)

    def _tidy_at_exit(self) -> None:
        if self._busy or self.changes is not None:
            return  # somebody has called exit() in the middle
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
            # At its very end, Python imports nothing, no module of ours either. `_at_exit` has tidied up before.
            if not sys.is_finalizing():
                self.log.tidy(keep_journal=keep_journal)
            self.log.rest()
        finally:
            self._busy = False
            _kept_alive.discard(self)

    def check(self) -> None:
        """Assert what holds whenever nobody is in the middle of something; where somebody is, do nothing. For tests.

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
            handle = reference()  # not asked for its truth value: that would be a read
            assert handle is None or [*dict.items(handle)] == [*dict.items(self.root)], (
                "I5: a handle shows another state than the root"
            )
        self.log.check()
        if self.changes is not None:
            assert self.owner in (0, self.changes.thread), "I5: another thread's transaction counts as ours"
            return
        assert not self.owner, "I5: a thread counts as being in a transaction, and none is open"
        assert self._base_view is None, "I8: a transaction is over, and what was before it is kept"
        if self.view is not None:
            document, records = self.log.records()
            assert same(self.replay(document, records), self.plain()), "I5: memory is not what its commits make"

    def after_fork(self) -> None:
        """In the child: nothing of the parent's locks, descriptors and transactions is ours."""
        self.mutex = threading.RLock()
        self._ending = threading.RLock()
        self._busy = False
        self.owner = 0
        self.changes = None
        self._base_view = None
        self.log.forget()


class ThreadLock:
    """What excludes the other threads of this process, as a lock: see `PersistedState._thread_lock`."""

    def __init__(self, core: Store) -> None:
        self._core = core
        self._mutex = core.mutex

    def acquire(self) -> bool:
        """Raises LockTimeout where another thread has it longer than `lock_timeout`."""
        began = monotonic()
        self._mutex = self._core.mutex
        while not self._mutex.acquire(False):
            self._mutex = self._core._wait(began, self._core.lock_timeout, "done")
        return True

    def release(self) -> None:
        """Raises RuntimeError where this thread has not got it."""
        self._mutex.release()
        if waiting:
            send()

    __enter__ = acquire

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.release()


def _left(began: float, timeout: float | None) -> float | None:
    """What is left of *timeout* seconds since *began*; None where it is for ever, so never less than 0 for the end."""
    return None if timeout is None or timeout < 0 else max(0.0, timeout - (monotonic() - began))


#: The threads whose end we will notice, by something that they have and that goes with them.
_noticed: set[int] = set()
_here = threading.local()


class _EndOfThread:
    """What goes with a thread."""

    # What `__del__` finds where an exception of a signal handler has cut `__init__` off.
    _process = 0
    _thread = 0
    _name = ""

    def __init__(self, thread: int) -> None:
        self._thread = thread
        self._name = _name_of(str(thread))  # by its end, Python has forgotten it
        self._process = os.getpid()
        _noticed.add(thread)

    def __del__(self) -> None:
        # In a forked child, the other threads of the parent have not ended.
        if self._process == os.getpid() and not sys.is_finalizing():
            _noticed.discard(self._thread)
            for store in _each():
                store.end_of_thread(self._name)


def _name_of(thread: str) -> str:
    """The name of the *thread* with this identifier, or what it is called already."""
    return next((each.name for each in threading.enumerate() if str(each.ident) == thread), thread)


def patched(path: str) -> PatchedError:
    """For a program in which other functions tell threads apart by now than we do."""
    return PatchedError(
        f"{path}: gevent or eventlet has replaced the threads of Python after pstate was imported, so a transaction of "
        "one greenlet would be that of all. Nothing was done. Call monkey.patch_all() (or monkey_patch()) first in the "
        "program, before anything else is imported."
    )


def _set(node: ops.Node, key: Any, value: Any) -> Intent:
    return [("set", key, value)], None


# One store for each file in a process: `flock` excludes per descriptor, so that two would lock each other out.
_stores: weakref.WeakValueDictionary[tuple[Any, ...], Store] = weakref.WeakValueDictionary()
#: Those whose name was a symbolic link, or went through one. They follow it.
_by_link: weakref.WeakSet[Store] = weakref.WeakSet()
_stores_mutex = threading.RLock()  # a signal handler may open another state while one is being opened
# What has handles is kept alive: in a cycle of garbage, descriptors may be closed before a handle's `__del__` tidies
# up.
_kept_alive: set[Store] = set()
#: Every store that there is, also one that is closing, or was let go of.
_all: set[weakref.ref[Store]] = set()


def _each() -> list[Store]:
    # A copy is made without a chance for the garbage collector, which may take a store out meanwhile.
    return [store for reference in _all.copy() if (store := reference()) is not None]


def _holds_a_lock() -> bool:
    """Whether the calling thread holds any lock that another thread may wait for."""
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
    engine: Engine,
) -> Store:
    """The store of the state at *path* in this process, opened, and shown by *handle* from now on.

    A second opener gets the same one. The stricter durability counts for both, the last lock_timeout too. Raises
    ValueError for another kind of locking: the two would not exclude each other. LockTimeout where another thread's
    transaction in that file lasts longer than *lock_timeout*, and PatchedError.
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
                    engine=engine,
                )
                _stores[engine.key, store.path, read_only] = store
                if store.path != real:
                    _by_link.add(store)
            elif store.locking != locking:
                raise ValueError(
                    f"{path}: is open in this process with locking={store.locking!r}; locking={locking!r} would not "
                    "exclude it. Nothing was opened. Use the same."
                )
        # Not within the mutex of all: this waits for another thread's transaction, which may open states itself.
        if store.attach(handle, lock_timeout):
            if not is_new:
                store.lock_timeout = store.log.lock_timeout = lock_timeout
                if durability == "power" and not read_only:
                    store.log.stricter()
                    store.fresh = store.log.freshness()
            return store


def _find(path: str, real: Hashable, read_only: bool, engine: Engine) -> Store | None:
    """The open store of the state at *path*, without links *real*, by whatever name it was opened."""
    for name in (path, real):
        store = _stores.get((engine.key, name, read_only))
        if store is not None and not store.closed and store.log.leads_to(real):
            return store
    for store in list(_by_link):
        if (store.engine, store.log.read_only) == (engine, read_only) and not store.closed and store.log.leads_to(real):
            # Each of its names means this state, and not each of them is the link. So it stays with the state.
            store.log.stay_at(real)
            _stores[engine.key, real, read_only] = store
            _by_link.discard(store)
            return store
    return None


def abandon(engine: Engine) -> None:
    """For simulations: the process that had its states by *engine* is dead. Its finalizers touch nothing any more."""
    for store in [store for store in _kept_alive.copy() if store.engine == engine]:
        store.closed = True
        _kept_alive.discard(store)


#: What is imported when it is needed first.
_IMPORTED_LATE = (
    "base64", "html", "inspect", "logging", "pprint", "pstate.callbacks", "pstate.memory.changes",
    "pstate.memory.pyyaml", "pstate.memory.showing", "pstate.places", "pstate.text.events", "pstate.text.mistakes",
    "pstate.text.reading", "pstate.text.scalars", "pstate.text.splice", "pstate.text.tables", "pstate.watch",
    "traceback", "yaml", *engines.IMPORTED_LATE,
)  # fmt: skip


def import_late() -> None:
    """Import now what would be imported when it is needed first."""
    for name in _IMPORTED_LATE:
        with tolerating(ImportError):  # not every Python has ctypes
            __import__(name)


def _before_fork() -> None:
    """A module that another thread is about to import would stay locked in the child, where that thread is not: whoever
    needs it there would wait for ever. So all of them are imported, and waited for.
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
    """What was registered before us comes after us, and so do finalizers: so nothing is closed."""
    for store in _kept_alive.copy():
        # A daemon thread may be in a transaction for ever.
        with tolerating(LockTimeout, ReentrantError):
            store.tidy_at_exit()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before_fork, after_in_child=_after_fork_in_child)
atexit.register(_at_exit)
