"""A transactional store for small state: one YAML file that a person can edit, mapped to Python objects.

>>> from pstate import PersistedState
>>> state = PersistedState("example.state", last_id=0)
>>> state.last_id += 1                       # committed when this line is done
>>> with state.transaction():                # both, or neither, for every process
...     state.first = 1
...     state.second = 2
>>> state.close()
"""

from typing import TYPE_CHECKING

from pstate.errors import (
    BypassedError,
    ClosedAttributeError,
    ClosedError,
    CommitUnknown,
    ConflictError,
    CorruptStateError,
    DurabilityUnknown,
    EditConflict,
    HistoryLost,
    InvalidEditError,
    InvalidStateError,
    LockTimeout,
    MissingPathError,
    NotAFileError,
    PatchedError,
    PStateError,
    ReadOnlyError,
    ReentrantError,
    RemovedError,
    ReservedNameError,
    ServerUnavailable,
    StateFileError,
    StoreFailedError,
    TransactionError,
    UnreadableError,
    UnsupportedTypeError,
    UnsupportedValueError,
    WriteError,
)
from pstate.memory.ops import ABSENT
from pstate.state import PersistedState, is_closed, path_of

from pstate import speed as speed  # isort: skip: replaces functions of all the modules above by compiled ones

__version__ = "0.1.0"

if TYPE_CHECKING:
    from pstate.callbacks import on_change
    from pstate.memory.changes import Change
    from pstate.places import at, reset
    from pstate.watch import Watch

__all__ = [
    "ABSENT",
    "BypassedError",
    "Change",
    "ClosedAttributeError",
    "ClosedError",
    "CorruptStateError",
    "DurabilityUnknown",
    "ServerUnavailable",
    "CommitUnknown",
    "ConflictError",
    "HistoryLost",
    "EditConflict",
    "InvalidEditError",
    "InvalidStateError",
    "LockTimeout",
    "MissingPathError",
    "NotAFileError",
    "PStateError",
    "PatchedError",
    "PersistedState",
    "ReadOnlyError",
    "ReentrantError",
    "RemovedError",
    "ReservedNameError",
    "StateFileError",
    "StoreFailedError",
    "TransactionError",
    "UnreadableError",
    "UnsupportedTypeError",
    "UnsupportedValueError",
    "Watch",
    "WriteError",
    "at",
    "is_closed",
    "on_change",
    "path_of",
    "reset",
]


def __getattr__(name: str) -> object:
    """Import what few scripts need when it is first used."""
    if name == "Change":
        from pstate.memory.changes import Change

        return Change
    if name == "Watch":
        from pstate.watch import Watch

        return Watch
    if name in ("at", "reset"):
        from pstate import places

        return getattr(places, name)
    if name == "on_change":
        from pstate.callbacks import on_change

        return on_change
    raise AttributeError(f"module 'pstate' has no attribute {name!r}")
