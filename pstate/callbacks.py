"""Functions that are called with what changes: `on_change`, a watch that a thread of its own reads."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from types import TracebackType
from typing import Any, Self

from pstate.errors import PStateError
from pstate.logger import Logger
from pstate.memory.changes import Change
from pstate.signals import expected
from pstate.state import PersistedState, core_of, is_closed
from pstate.watch import WATCH_INTERVAL, Watch

logger = Logger("pstate.callbacks")


def on_change(
    state: PersistedState, path: str | Iterable[Any] | None, callback: Callable[[Change], object]
) -> Subscription:
    """Call *callback* with each `Change` of *state* at *path* from now on, no matter who makes it.

    *path* is that of `PersistedState.watch`; None is the whole state. The calls come one after the other, in the order
    of the commits, in a daemon thread. No lock is held meanwhile, so *callback* may use the state; what it changes is
    told to it as well. An exception that it raises is logged, and the next change is told as usual.

    Returns an object whose `close` ends it; as a context manager, it ends with the block. It also ends when *state* is
    closed, after all that was committed before, and does not go on in a forked child. It keeps *state* alive until
    then. Raises TransactionError inside of a transaction of the same thread, TypeError or ValueError for a wrong
    argument.
    """
    path_of_file = core_of(state).path
    if not isinstance(state, PersistedState):
        raise TypeError(
            f"{path_of_file}: a {type(state).__name__} in a state cannot be watched by itself. Nothing was done. Pass "
            "the state, and the path."
        )
    if not callable(callback):
        raise TypeError(
            f"{path_of_file}: the callback is a function of one change, not a {type(callback).__name__}. Nothing was "
            "done."
        )
    return Subscription(state, Watch(state, path), callback)


class Subscription:
    """The calls of one callback, from `on_change`."""

    def __init__(self, state: PersistedState, watch: Watch, callback: Callable[[Change], object]) -> None:
        self._state = state
        self._watch = watch
        self._callback = callback
        self._ended = threading.Event()
        self._said = ""  #: the last error that was logged
        threading.Thread(target=self._run, name="pstate on_change", daemon=True).start()

    def close(self) -> None:
        """Begin no call any more. Idempotent. Does not wait for a call that is under way, so a callback may use it."""
        self._ended.set()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _run(self) -> None:
        try:
            while not self._ended.is_set():
                is_over = is_closed(self._state)  # before the look that finds what was committed until then
                found = self._look()
                for change in found:
                    if not self._ended.is_set():
                        self._call(change)
                if is_over:
                    self._ended.set()
                elif not found:
                    self._ended.wait(WATCH_INTERVAL)
        finally:
            self._watch.close()

    def _look(self) -> list[Change]:
        try:
            found = self._watch.poll()
        except expected(PStateError, OSError) as error:
            # It is tried again, and what was committed meanwhile is told then. An error that stays is logged once.
            said, self._said = self._said, str(error)
            if said != self._said:
                logger.error("%s: on_change could not look for changes, and tries again: %s", self._path, error)
            return []
        self._said = ""
        return found

    def _call(self, change: Change) -> None:
        try:
            self._callback(change)
        except Exception:
            import traceback

            name = getattr(self._callback, "__qualname__", None) or repr(self._callback)
            logger.error(
                "%s: the callback %s has raised an exception for %r. The next change is told as usual.\n%s",
                self._path,
                name,
                change,
                traceback.format_exc().rstrip(),
            )

    @property
    def _path(self) -> str:
        return core_of(self._state).path
