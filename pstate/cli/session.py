"""A state file for the time of one command: read without a lock, or changed and left as it was found.

A journal is ended by the process that began it. A command that finds the journal of a running program adds its records
and leaves it in place; one that finds a plain document leaves a plain document. So a loop of commands beside a program
never rewrites the file, and a file that no program has open never keeps a journal.
"""

from __future__ import annotations

import contextlib
import gc
import os
from collections.abc import Iterator
from typing import Any

from pstate.cli import progress
from pstate.cli.command import Usage
from pstate.cli.mending.presence import must_exist
from pstate.errors import PStateError
from pstate.memory.frames import store_of
from pstate.signals import expected, tolerating
from pstate.state import PersistedState

#: For the lock, to end our journal, in seconds.
_LONGEST_WAIT = 1.0


@contextlib.contextmanager
def opened(arguments: Any, create: bool = True) -> Iterator[PersistedState]:
    """The state at `arguments.file`, to be changed, with the options of `declare_writing`.

    Raises MissingPathError if the file does not exist and *create* is false.
    """
    if not create:
        must_exist(arguments.file)
    file = arguments.file
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


def _size(file: str) -> int:
    with tolerating(OSError, ValueError):
        return os.stat(file).st_size
    return 0


def _open(arguments: Any, durability: Any) -> PersistedState:
    try:
        with no_collector():
            return PersistedState.open(
                arguments.file, durability=durability, lock_timeout=arguments.lock_timeout, locking=arguments.locking
            )
    except ImportError as error:
        raise Usage(str(error)) from error


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


def is_new(file: str) -> bool:
    """Whether a change will create *file*. False where that cannot be told: opening it then says why."""
    try:
        os.stat(file)
    except expected(FileNotFoundError):
        return os.path.isdir(os.path.dirname(os.path.abspath(file)))
    except expected(OSError, ValueError):
        pass
    return False


def snapshot(file: str) -> dict[Any, Any]:
    """The newest state of *file*, in plain types. It waits for no other process, and changes no byte."""
    with (
        progress.shown(f"reading {file}", must_exist(file)),
        no_collector(),
        PersistedState.open(file, read_only=True) as state,
    ):
        return state.snapshot()
