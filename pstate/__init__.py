"""A transactional store for small state: one YAML file that a person can edit, mapped to Python objects.

>>> from pstate import PersistedState
>>> state = PersistedState("example.state", last_id=0)
>>> state.last_id += 1                       # committed when this line is done
>>> with state.transaction():                # both, or neither, for every process
...     state.first = 1
...     state.second = 2
>>> state.close()
"""

from pstate.errors import (
    BypassedError,
    ClosedError,
    CorruptStateError,
    DurabilityUnknown,
    EditConflict,
    InvalidEditError,
    InvalidStateError,
    LockTimeout,
    MissingPathError,
    NotAFileError,
    PStateError,
    ReadOnlyError,
    ReentrantError,
    RemovedError,
    ReservedNameError,
    StateFileError,
    StoreFailedError,
    TransactionError,
    UnreadableError,
    UnsupportedTypeError,
    UnsupportedValueError,
    WriteError,
)
from pstate.state import PersistedState

__version__ = "0.1.0"

__all__ = [
    "BypassedError",
    "ClosedError",
    "CorruptStateError",
    "DurabilityUnknown",
    "EditConflict",
    "InvalidEditError",
    "InvalidStateError",
    "LockTimeout",
    "MissingPathError",
    "NotAFileError",
    "PStateError",
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
    "WriteError",
]
