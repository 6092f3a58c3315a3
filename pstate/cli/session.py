"""A state for the time of one command: read without a lock, or changed and left as it was found.

A journal is ended by the process that began it. A command that finds the journal of a running program adds its records
and leaves it in place; one that finds a plain document leaves a plain document. So a loop of commands beside a program
never rewrites the file, and a file that no program has open never keeps a journal.
"""

from __future__ import annotations

import contextlib
import gc
import os
from collections.abc import Iterator
from time import monotonic
from typing import TYPE_CHECKING, Any

from pstate.cli import progress
from pstate.cli.command import Usage, in_our_words, tell
from pstate.cli.mending.presence import UNKNOWN_SIZE, must_exist
from pstate.cli.urls import Url, exact
from pstate.errors import HistoryLost, MissingPathError, PStateError, ServerUnavailable
from pstate.memory.frames import store_of
from pstate.signals import expected, tolerating
from pstate.state import PersistedState

if TYPE_CHECKING:
    from pstate.memory.changes import Change
    from pstate.rows.database import Database
    from pstate.watch import Watch

#: For the lock, to end our journal, in seconds.
_LONGEST_WAIT = 1.0
#: For a server, where no option says how long, in seconds.
_PATIENCE = 10.0


@contextlib.contextmanager
def opened(arguments: Any, create: bool = True) -> Iterator[PersistedState]:
    """The state at `arguments.file`, to be changed, with the options of `declare_writing`.

    Raises MissingPathError if the file does not exist and *create* is false.
    """
    file = arguments.file
    if isinstance(file, Url):
        with _opened_on_server(arguments, file, create) as state:
            yield state
        return
    if not create:
        must_exist(file)
    with progress.shown(f"reading {file}", _size(file)):
        state = _open(arguments, arguments.durability or "process")
    log = store_of(state).log
    found = log.generation
    if log.promises_power and not arguments.durability:
        # This journal has only synced commits: another commit would rewrite the file first.
        with state:
            state = _open(arguments, "power")  # the same store, which from now on heeds the stricter of the two
    try:
        yield state
    finally:
        with progress.shown(f"writing {file}", _size(file)), no_collector():
            _leave(state, found)


@contextlib.contextmanager
def _opened_on_server(arguments: Any, url: Url, create: bool) -> Iterator[PersistedState]:
    if arguments.locking != "file":
        raise Usage(f"{url}: --locking is for files. Nothing was done. Leave it out: the server locks.")
    with progress.shown(f"reading {url}", UNKNOWN_SIZE):
        if not create and is_new(url, arguments.lock_timeout):
            raise no_state(url)
        state = _open(arguments, arguments.durability or "process")
    with state:
        yield state


def no_state(url: Url) -> MissingPathError:
    """The error where no state exists at *url*."""
    message = f"{url}: the state does not exist. Nothing was changed. To create it: pstate set {url} KEY VALUE"
    return MissingPathError(message, path=str(url))


def _size(file: str) -> int:
    with tolerating(OSError, ValueError):
        return os.stat(file).st_size
    return 0


def _open(arguments: Any, durability: Any) -> PersistedState:
    try:
        with no_collector():
            return PersistedState.open(
                exact(arguments.file),
                durability=durability,
                lock_timeout=arguments.lock_timeout,
                locking=arguments.locking,
            )
    except ImportError as error:
        raise Usage(str(error)) from error


def looked_at(file: str) -> PersistedState:
    """The state at *file*, opened to be read."""
    try:
        return PersistedState.open(exact(file), read_only=True, lock_timeout=_PATIENCE)
    except ImportError as error:
        raise Usage(f"{error}. Nothing was done.") from error


def _leave(state: PersistedState, found: str | None) -> None:
    """Close *state*, and end its journal if this command began it: *found* is the generation from before."""
    core = store_of(state)
    if core.log.generation in (None, found):
        state.close(keep_journal=True)
        return
    # The journal is ours. A plain close gives up if another writer holds the lock at this moment. That may be a command
    # as short as this one, which leaves the file to us. A process that holds the lock for longer closes by itself.
    core.lock_timeout = min(core.lock_timeout, _LONGEST_WAIT)
    try:
        state.vacuum()
    except expected(PStateError):
        state.close()  # logs the reason, and keeps what must be kept
    else:
        state.close(keep_journal=True)


@contextlib.contextmanager
def no_collector() -> Iterator[None]:
    """Without Python's collector, which would look at each new container again and again, and find nothing.

    That would take a tenth to a third of the time.
    """
    was = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was:
            gc.enable()


def database(url: Url, timeout: float | None = None) -> Database:
    """The database that *url* is in, to be used as a context. Raises Usage if the library for it is not installed."""
    try:
        from pstate.rows.database import Database
    except ImportError as error:
        raise Usage(f"{error}. Nothing was done.") from error
    return Database(url.address, _PATIENCE if timeout is None else timeout)


def is_new(file: str, timeout: float | None = None) -> bool:
    """Whether a change will create *file*. False where that cannot be told: opening it then says why."""
    if isinstance(file, Url):
        with database(file, timeout) as found:
            return not found.has_state()
    try:
        os.stat(file)
    except expected(FileNotFoundError):
        return os.path.isdir(os.path.dirname(os.path.abspath(file)))
    except expected(OSError, ValueError):
        pass
    return False


def news(watch: Watch, timeout: float | None = None) -> Iterator[list[Change]]:
    """The changes of each commit, as they happen; and an empty list after each look.

    It ends when nothing has changed for *timeout* seconds, without the time that its user takes. It goes on when a
    server is away for a while, and says so.
    """
    is_away, left = False, float("inf") if timeout is None else timeout
    while True:
        try:
            found = watch.commits()
            if is_away:
                is_away = False
                tell("pstate: the server can be used again; continuing")
        except expected(ServerUnavailable, HistoryLost) as error:
            if not is_away:
                tell(f"pstate: {in_our_words(str(error))} Continuing.")
            is_away, found = isinstance(error, ServerUnavailable), []
        yield from found
        yield []
        if found and timeout is not None:
            left = timeout
        if left <= 0:
            return
        began = monotonic()
        watch.wait(left)
        left -= monotonic() - began


def snapshot(file: str) -> dict[Any, Any]:
    """The newest state of *file*, in plain types. It waits for no other process, and changes no byte."""
    with (
        progress.shown(f"reading {file}", must_exist(file)),
        no_collector(),
        looked_at(file) as state,
    ):
        return state.snapshot()
