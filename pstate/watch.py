"""The changes of a state, commit by commit: those of the past with `history`, those to come with `Watch`.

The log notes in a `Trail` what cannot be read later. This module makes changes of the notes, with old values from a
tree of its own.
"""

from __future__ import annotations

import os
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from itertools import chain
from threading import get_ident
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeAlias

from pstate import logger as told
from pstate.engine import Leg, Operations, Origin, State, Trail
from pstate.errors import ClosedError, EditConflict, PStateError, ReentrantError, TransactionError
from pstate.logger import send, waiting
from pstate.memory import changes, dicts, frames, ops
from pstate.memory.changes import Change
from pstate.signals import expected
from pstate.text import paths

if TYPE_CHECKING:
    from pstate.memory.core import Core

#: How often a watch looks for changes, in seconds.
WATCH_INTERVAL = 0.020


#: The looks that are under way: process, thread, and watch.
_looks: set[tuple[int, int, int]] = set()


def _is_looking() -> bool:
    here = os.getpid(), get_ident()
    return any(look[:2] == here for look in _looks.copy())


told.lock_holders.append(_is_looking)


#: What came together: its origin, the number of the commit, which a difference does not have, and the changes.
Together: TypeAlias = tuple[Origin | None, int | None, list[Change]]


class Watch:
    """The changes of a state from now on, from `PersistedState.watch`: an iterator, and an asynchronous one.

    Each is a `Change`. Iterating waits for the next one. It ends when the state or the watch is closed, or when nothing
    has changed for *timeout* seconds. Changes that you have not read yet are kept in memory, so close a watch that you
    no longer read.
    """

    def __init__(
        self,
        state: dicts.MappedDict,
        path: str | Iterable[Any] | None = None,
        timeout: float | None = None,
        history: bool = False,
        now: bool = False,
    ) -> None:
        self._state = state
        self._core: Core = frames.store_of(state)
        self._place = paths.keys_of(path)
        self._timeout = timeout
        #: The changes of each commit in one list, which is never empty.
        self._found: deque[list[Change]] = deque()
        self._is_closed = False
        #: Whether an exception of a signal handler has cut a look in two: which changes it found is unknown then.
        self._is_torn = False
        self._process = os.getpid()
        #: A cancelled `__anext__` may have left a look under way in its thread.
        self._looking = threading.RLock()
        self._is_looking = False
        self._refuse_own_transaction()
        self._have_followed(partial(self._begin, history))
        if now and (found := list(changes.between_at({}, ops.plain(self._root), self._place))):
            self._found.append(found)

    def _begin(self, history: bool, root: Any, marked: object) -> object:
        log = self._core.log
        if marked is not None and log.journal is marked:
            return marked
        document = log.history()[0] if history else ops.plain(root)
        self._root = changes.grown(document)
        self._trail: Trail = log.trail(history)
        return self._go_on(root, marked)

    def _go_on(self, root: Any, marked: object) -> object:
        return self._core.log.follow(self._trail)

    def _have_followed(self, begin: Callable[[Any, object], object]) -> None:
        """Begin, in this process, by *begin*: it is given the journal of the last try, and returns the present one."""
        core, marked = self._core, None
        # Until it stays the same: a process that replaced the file before it had our mark does not wait for us.
        while (journal := core.read(begin, core.root, marked)) is not marked:
            marked = journal
        trail = self._trail
        if core.log.has_followers:
            threading.Thread(target=_follow, args=(weakref.ref(trail), core), name="pstate watch", daemon=True).start()

    def poll(self) -> list[Change]:
        """The changes since the last call, or the last step of an iteration. Does not wait for a change, only for a
        transaction of another thread.

        Raises as reading the state does.
        """
        return list(chain.from_iterable(self.commits()))

    def commits(self) -> list[list[Change]]:
        """`poll`, with the changes of each commit in a list of their own."""
        self._look()
        found: list[list[Change]] = []
        while self._found:
            found.append(self._found.popleft())
        return found

    def wait(self, seconds: float | None = None) -> None:
        """Wait until `poll` may find something, for at most *seconds*; None is for as long as is of use.

        It may return early, and for nothing, so call `poll` in a loop. For a file, the wait is one interval of 20 ms.
        """
        bell = self._trail.bell
        seconds = float("inf") if seconds is None else max(0.0, seconds)
        if bell is None or self._is_closed:
            time.sleep(min(seconds, WATCH_INTERVAL))
        else:
            bell.wait(seconds)

    async def _wait_async(self, seconds: float) -> None:
        import asyncio

        bell = self._trail.bell
        if bell is None or self._is_closed:
            await asyncio.sleep(min(seconds, WATCH_INTERVAL))
        else:
            await bell.wait_async(seconds)

    def close(self) -> None:
        """End the watch. Changes that were not read are dropped. Idempotent."""
        if not self._is_closed:
            core = self._core
            core.alone(core.lock_timeout, core.log.unfollow, self._trail)
            self._is_closed = True
            self._found.clear()

    def _look(self) -> None:
        if self._process != os.getpid():  # forked, perhaps while another thread was in a look
            self._looking, self._is_looking = threading.RLock(), False
        look = os.getpid(), get_ident(), id(self)
        try:
            with self._looking:
                if self._is_looking:
                    raise ReentrantError(
                        f"{self._core.path}: a signal handler used a watch while it interrupted a look of the same "
                        "watch. Nothing was done. Set a flag in the handler, and use the watch after it has returned."
                    )
                self._is_looking = True
                try:
                    _looks.add(look)
                    self._found.extend(found for _, _, found in self._news() if found)
                finally:
                    self._is_looking = False
                    _looks.discard(look)
        finally:
            if waiting:
                send()

    def _news(self) -> Iterator[Together]:
        legs = self._take()
        self._is_torn = True
        for leg in legs:
            if leg.state is not None:
                difference = changes.between_at(ops.plain(self._root), leg.state, self._place)
                found = [change._replace(origin=leg.origin) for change in difference]
                self._root = changes.grown(leg.state)
                yield leg.origin, None, found
            for number, operations in enumerate(leg.records, leg.before + 1):
                origin = leg.origin_of(number)
                commit = [change for operation in operations for change in self._play(operation)]
                yield origin, number, [change._replace(origin=origin, commit=number) for change in commit]
        self._is_torn = False

    def _play(self, operation: list[Any]) -> list[Change]:
        return changes.play(self._root, operation, self._place)

    def _take(self) -> list[Leg]:
        if self._is_closed:
            return []
        core, trail = self._core, self._trail
        conflict, trail.conflict = trail.conflict, None
        if conflict is not None:
            raise conflict
        number: int | None = None  # of notes; None is up to the end
        state: State | None = None
        try:
            if self._process != os.getpid() and not self._is_in_own_transaction():
                self._have_followed(self._go_on)  # the child does not have the parent's thread
                self._process = os.getpid()
            if self._is_torn:
                state = core.read(_take_state, core.root, trail)
            else:
                # Only counted here, and taken below when nothing is waited for, such as a sync with durability
                # "power": an exception meanwhile leaves the notes in place.
                number = core.read(_collect, None, trail)
            self._is_closed = frames.store_of(self._state) is not core
        except ClosedError:
            self._is_closed = True
            state = ops.plain(core.root) if self._is_torn else None
        if state is not None:
            return [Leg(state, None, [], 0, frozenset(), 0)]
        legs: list[Leg] = core.alone(core.lock_timeout, trail.take, number)
        return legs

    def _is_in_own_transaction(self) -> bool:
        return bool(self._core.is_mine)

    def _refuse_own_transaction(self) -> None:
        if self._is_in_own_transaction():
            raise TransactionError(
                f"{self._core.path}: a watch inside a transaction of the same thread would wait forever, because "
                "nothing else can commit before its end. Nothing was done. Watch outside the block."
            )

    # An iterator that waits. `_is_over` is called after a look that has found nothing.

    def _is_over(self, deadline: float) -> bool:
        if self._is_closed:
            return True
        self._refuse_own_transaction()
        if time.monotonic() >= deadline:
            self.close()
        return self._is_closed

    def _next(self) -> Change:
        together = self._found[0]
        if len(together) == 1:
            self._found.popleft()
        return together.pop(0)

    def _deadline(self) -> float:
        return float("inf") if self._timeout is None else time.monotonic() + self._timeout

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Change:
        deadline = self._deadline()
        while not self._found:
            self._look()
            if not self._found:
                if self._is_over(deadline):
                    raise StopIteration
                self.wait(_left(deadline))
        return self._next()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Change:
        import asyncio

        deadline = self._deadline()
        while not self._found:
            # In a thread, because a transaction of another thread must not block the loop.
            await asyncio.to_thread(self._look)
            if not self._found:
                if self._is_over(deadline):
                    raise StopAsyncIteration
                await self._wait_async(_left(deadline))
        return self._next()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


def _left(deadline: float) -> float:
    return max(0.0, deadline - time.monotonic())


def _follow(reference: weakref.ref[Trail], core: Core) -> None:
    """Keep the notes up to date, also while the watch is not read: vacuums of others wait for us (I12)."""
    while not core.closed and (trail := reference()) is not None:
        try:
            core.read(_collect, None, trail)
        except expected(EditConflict) as error:
            trail.conflict = error  # the next look raises it
        except expected(PStateError, OSError):
            pass  # the next look meets it too, and raises it
        del trail
        time.sleep(WATCH_INTERVAL)
    core.alone(None, core.log.unfollow)
    core.detach(None)  # the last handle may have gone meanwhile


def _collect(_: None, trail: Trail) -> int:
    return trail.collect()


def _take_state(root: Any, trail: Trail) -> State:
    trail.take()
    state: State = ops.plain(root)
    return state


def history(state: dicts.MappedDict, path: str | Iterable[Any] | None = None) -> Iterator[Change]:
    """See `PersistedState.history`."""
    core, place = frames.store_of(state), paths.keys_of(path)
    if core.is_mine:
        raise TransactionError(
            f"{core.path}: history() inside a transaction, whose changes are not committed yet. Nothing was done. Call "
            "it before or after the block."
        )
    return _told(place, *core.read(_history, core))


def _told(place: list[Any], document: State, before: int, records: Iterable[Operations]) -> Iterator[Change]:
    root = changes.grown(document)
    for number, operations in enumerate(records, before + 1):
        for operation in operations:
            for change in changes.play(root, operation, place):
                yield change._replace(commit=number)


def _history(core: Core) -> tuple[State, int, Iterable[Operations]]:
    found: tuple[State, int, Iterable[Operations]] = core.log.history()
    return found
