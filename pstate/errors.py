"""Every error that pstate raises by itself, each also the built-in kind that people already catch.

    PStateError
    ├── StateFileError (ValueError)         the file cannot be used as it is: path, line, column
    │   ├── InvalidStateError               not a YAML mapping that pstate reads
    │   ├── CorruptStateError               a damaged record, or other bytes after the last good one
    │   ├── EditConflict                    an edit and commits that cannot be reconciled
    │   └── InvalidEditError                edited while open, and does not parse (yet)
    ├── MissingPathError (FileNotFoundError)
    ├── NotAFileError (OSError)
    ├── UnreadableError (OSError)           the system does not let the file be opened or read
    ├── ReadOnlyError (PermissionError)
    ├── WriteError (OSError)                a write failed and was undone
    │   ├── StoreFailedError                writes are refused, the message says until when
    │   └── ConflictError                   on a server: a block lost its lock, and others committed
    ├── DurabilityUnknown (OSError)         committed, but the sync failed
    ├── ServerUnavailable (ConnectionError) the server cannot be reached; nothing was changed
    ├── CommitUnknown (ConnectionError)     the server was lost in the middle of a commit
    ├── HistoryLost (RuntimeError)          the server lacks commits that it had acknowledged
    ├── LockTimeout (TimeoutError)
    ├── ClosedError (ValueError)
    │   └── ClosedAttributeError (AttributeError)
    ├── RemovedError (ReferenceError)       a reference that another process removed
    ├── ReentrantError (RuntimeError)
    ├── BypassedError (RuntimeError)        C code changed a list behind the state's back
    ├── TransactionError (RuntimeError)
    ├── PatchedError (RuntimeError)         gevent or eventlet has replaced the threads too late
    ├── UnsupportedTypeError (TypeError)
    ├── UnsupportedValueError (ValueError)
    └── ReservedNameError (AttributeError)

Imports nothing, so that every module can raise what it means.
"""

from __future__ import annotations

from typing import Any


class PStateError(Exception):
    """The base of them all: one sentence for a person, and the evidence as attributes for a program."""

    def __init__(self, message: str, **evidence: Any) -> None:
        super().__init__(message)
        self.message = message
        for name, value in evidence.items():
            setattr(self, name, value)

    def __str__(self) -> str:
        return self.message

    def __reduce__(self) -> tuple[Any, ...]:
        evidence = dict(self.__dict__)
        if isinstance(self, OSError):
            # These are slots of the built-in kind.
            evidence |= {name: getattr(self, name) for name in ("errno", "strerror", "filename")}
        return _rebuild, (type(self), self.message, evidence)


def _rebuild(kind: type[PStateError], message: str, evidence: dict[str, Any]) -> PStateError:
    error = kind(message)
    for name, value in evidence.items():
        setattr(error, name, value)
    return error


class StateFileError(PStateError, ValueError):
    """The content of the state file cannot be used as it is. The file was not touched."""

    path: str = ""  #: the state file
    line: int | None = None  #: counted from 1
    column: int | None = None  #: counted from 1
    reason: str = ""  #: what is wrong there, where it is one thing in one place


class InvalidStateError(StateFileError):
    """The file is no YAML mapping that pstate reads: not YAML, not UTF-8, duplicate keys, too deep, unknown tags."""


class CorruptStateError(StateFileError):
    """After the last good commit stands something else than the beginning of one write; or a record that is committed
    makes no sense.
    """

    offset: int = 0  #: where the bad record begins, in bytes
    index: int = 0  #: the number of the last good commit before it
    following: int = 0  #: how many commits behind it are still readable


class EditConflict(StateFileError):
    """A person's edit and our commits cannot both hold. Neither was destroyed."""

    conflict_path: str | None = None  #: where our side was kept, if it was not left in the file


class InvalidEditError(StateFileError):
    """The file was edited while it was open and does not parse. Reads go on from the last good state."""


class MissingPathError(PStateError, FileNotFoundError):
    """The folder of the state file does not exist (pstate creates none), or a file opened `read_only` does not."""

    path: str = ""


class NotAFileError(PStateError, OSError):
    """The path of the state is a directory, a socket or a device."""

    path: str = ""


class UnreadableError(PStateError, OSError):
    """The system does not let the state file be opened, begun or read: the name is too long, its links lead in a
    circle, the disk has an error, there are too many open files. Nothing was changed.
    """

    path: str = ""


class ReadOnlyError(PStateError, PermissionError):
    """A change was asked of a state that cannot be written: opened `read_only`, or without permission."""

    path: str = ""


class WriteError(PStateError, OSError):
    """The system refused a write, or the program has closed the descriptor of the file (`errno` is EBADF then). The
    change was undone: nothing is different, in memory or in the file.
    """

    path: str = ""


class StoreFailedError(WriteError):
    """A failure has left the file in a state in which a write cannot be promised. The state refuses writes until what
    the message names is done: until an unfinished record can be cut off, or, after a failed sync, until a `vacuum` or
    until the file is opened again.
    """


class ConflictError(WriteError):
    """The server ended the session of a block, and somebody else has committed since. The block was rolled back."""


class DurabilityUnknown(PStateError, OSError):
    """The change is committed and visible, but the sync to stable storage failed."""

    path: str = ""


class ServerUnavailable(PStateError, ConnectionError):
    """The server that keeps the state cannot be reached, or does not answer in time. Nothing was changed."""

    path: str = ""  #: the URL without its password


class CommitUnknown(PStateError, ConnectionError):
    """The server was lost in the middle of a commit, and did not come back in time: the change is committed, or not.

    The next use of the state finds out, before it reads or changes anything.
    """

    path: str = ""  #: the URL without its password


class HistoryLost(PStateError, RuntimeError):
    """The server does not have commits that it had acknowledged, as after a failover to a server that lagged behind.

    Raised once. The next use of the state goes on with what the server has. Nothing was changed.
    """

    path: str = ""  #: the URL without its password


class LockTimeout(PStateError, TimeoutError):
    """Somebody else kept the write lock longer than we were allowed to wait. Nothing was changed."""

    path: str = ""  #: the state file
    waited: float = 0.0  #: seconds
    holder: int | None = None  #: process id, where the system tells it
    holder_name: str | None = None  #: on a server: host, process, user and address of the holder, as far as it tells
    thread: str | None = None  #: where the holder is this process, the name of the thread that was waited for


class ClosedError(PStateError, ValueError):
    """The state was used after `close()`, or before it was opened."""

    path: str = ""  #: the state file; empty where the state was not opened yet


class ClosedAttributeError(ClosedError, AttributeError):
    """A key was read as an attribute then: for `hasattr`, and `getattr` with a default, there is none."""


class RemovedError(PStateError, ReferenceError):
    """A change through a reference to a container that another process, or an edit, has removed."""

    path: str = ""  #: the state file; where in it the container stood, nobody can say any more


class ReentrantError(PStateError, RuntimeError):
    """A signal handler or finalizer used the state in the middle of a change that it had interrupted."""


class BypassedError(PStateError, RuntimeError):
    """Code that goes round the state has changed a list of it in memory. Nothing was written; memory is read again."""

    path: str = ""


class TransactionError(PStateError, RuntimeError):
    """A transaction was used in a way that has no meaning: twice, after its rollback, on a coroutine; or its blocks
    were left in another thread, or in another order, than they were entered, so that all of it was rolled back.
    """


class PatchedError(PStateError, RuntimeError):
    """gevent or eventlet has replaced the threads of Python after pstate was imported. Nothing was done."""


class UnsupportedTypeError(PStateError, TypeError):
    """A value that is no state. Nothing was changed."""

    place: str = ""  #: where in the state, as one would write it: ``state.jobs[3].at``


class UnsupportedValueError(PStateError, ValueError):
    """A value of the right type that cannot be written: cyclic, too deep, a lone surrogate. Nothing was changed."""

    place: str = ""


class ReservedNameError(PStateError, AttributeError):
    """A key that is also a method cannot be set as an attribute; by item it can."""

    place: str = ""
