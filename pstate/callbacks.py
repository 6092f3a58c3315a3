"""`on_change`: calls a function with each change that a watch finds, in a thread of its own."""

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
from pstate.watch import Watch

logger = Logger("pstate.callbacks")


def on_change(
    state: PersistedState, path: str | Iterable[Any] | None, callback: Callable[[Change], object]
) -> Subscription:
    """Call *callback* with each `Change` of *state* at *path* from now on, no matter who makes it.

    *path* is that of `PersistedState.watch`; None is the whole state. The calls are made one after another, in the
    order of the commits, in a daemon thread. No lock is held during a call, so *callback* may use the state; it is then
    called for its own changes too. If it raises an exception, that is logged, and the calls go on with the next change.

    Returns an object whose `close` ends the calls; as a context manager, it ends them at the end of the block. They
    also end when *state* is closed, after the changes that were committed before, and do not go on in a forked child.
    The object keeps *state* alive until then. Raises TransactionError inside a transaction of the same thread, and
    TypeError or ValueError for a wrong argument.
    """
    path_of_file = core_of(state).path
    if not isinstance(state, PersistedState):
        raise TypeError(
            f"{path_of_file}: on_change takes a state, not a {type(state).__name__} in one. Nothing was done. Pass the "
            "state, and the path of what to watch in it."
        )
    if not callable(callback):
        raise TypeError(
            f"{path_of_file}: the callback must be a function of one argument, not a {type(callback).__name__}. "
            "Nothing was done."
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
        """Begin no further call. Idempotent. Does not wait for a call that is under way, so a callback may use it."""
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
                is_over = is_closed(self._state)  # asked first: the look finds what was committed before the close
                found = self._look()
                for change in found:
                    if not self._ended.is_set():
                        self._call(change)
                if is_over:
                    self._ended.set()
                elif not found:
                    self._watch.wait()
        finally:
            self._watch.close()

    def _look(self) -> list[Change]:
        try:
            found = self._watch.poll()
        except expected(PStateError, OSError) as error:
            # The next look finds what was committed meanwhile. An error that stays is logged once.
            said, self._said = self._said, str(error)
            if said != self._said:
                logger.error("%s: on_change could not look for changes. It tries again: %s", self._path, error)
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
                "%s: the callback %s raised an exception for %r. It is still called for the next change.\n%s",
                self._path,
                name,
                change,
                traceback.format_exc().rstrip(),
            )

    @property
    def _path(self) -> str:
        return core_of(self._state).path
