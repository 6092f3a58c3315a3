"""Every error that pstate raises. Each is also the built-in exception that programs catch already.

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
    ├── BypassedError (RuntimeError)        C code changed a list without telling the state
    ├── TransactionError (RuntimeError)
    ├── PatchedError (RuntimeError)         gevent or eventlet replaced the threads too late
    ├── UnsupportedTypeError (TypeError)
    ├── UnsupportedValueError (ValueError)
    └── ReservedNameError (AttributeError)

Imports nothing, so that every module can raise what it means.
"""

from __future__ import annotations

from typing import Any


class PStateError(Exception):
    """The base of all errors: a message for people, and its facts as attributes for programs."""

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
            # The built-in exception has these as slots.
            evidence |= {name: getattr(self, name) for name in ("errno", "strerror", "filename")}
        return _rebuild, (type(self), self.message, evidence)


def _rebuild(kind: type[PStateError], message: str, evidence: dict[str, Any]) -> PStateError:
    error = kind(message)
    for name, value in evidence.items():
        setattr(error, name, value)
    return error


class StateFileError(PStateError, ValueError):
    """The content of the state file cannot be used as it is. The file was not changed."""

    path: str = ""  #: the state file
    line: int | None = None  #: counted from 1
    column: int | None = None  #: counted from 1
    reason: str = ""  #: what is wrong there, if a single place is


class InvalidStateError(StateFileError):
    """The file is not a YAML mapping that pstate reads: not YAML, not UTF-8, duplicate keys, too deep, unknown tags."""


class CorruptStateError(StateFileError):
    """The bytes after the last good commit are not the beginning of an unfinished write, or a committed record does not
    fit the state.
    """

    offset: int = 0  #: where the bad record begins, in bytes
    index: int = 0  #: the number of the last good commit before it
    following: int = 0  #: how many commits after it are still readable


class EditConflict(StateFileError):
    """A person's edit and the commits of programs cannot be brought together. Both were kept."""

    conflict_path: str | None = None  #: the file that has the commits, if they are not in the state file


class InvalidEditError(StateFileError):
    """The file was edited while it was open, and does not parse. Reads still return the last good state."""


class MissingPathError(PStateError, FileNotFoundError):
    """The folder of the state file does not exist (pstate does not create folders), or a file opened `read_only` does
    not exist.
    """

    path: str = ""


class NotAFileError(PStateError, OSError):
    """The path of the state is a directory, a socket or a device."""

    path: str = ""


class UnreadableError(PStateError, OSError):
    """The system cannot open, create or read the state file: the name is too long, its symbolic links form a loop, the
    disk has an error, or too many files are open. Nothing was changed.
    """

    path: str = ""


class ReadOnlyError(PStateError, PermissionError):
    """A program tried to change a state that it may not write: opened `read_only`, or without permission."""

    path: str = ""


class WriteError(PStateError, OSError):
    """The system refused a write, or the program has closed the descriptor of the file (`errno` is EBADF then). The
    change was undone, in memory and in the file.
    """

    path: str = ""


class StoreFailedError(WriteError):
    """After an earlier failure, pstate cannot guarantee that a write is kept, so it refuses writes. The message says
    what ends that: an unfinished record that can be cut off again or, after a failed sync, a `vacuum` or opening the
    file again.
    """


class ConflictError(WriteError):
    """The server ended the session of a block, and somebody else has committed since. The block was rolled back."""


class DurabilityUnknown(PStateError, OSError):
    """The change is committed and visible, but the sync to stable storage failed."""

    path: str = ""


class ServerUnavailable(PStateError, ConnectionError):
    """The server that keeps the state cannot be reached, or does not answer in time. Nothing was changed."""

    path: str = ""  #: the URL without its password
    reason: str = ""  #: in the words of the server, or of libpq


class CommitUnknown(PStateError, ConnectionError):
    """The server was lost in the middle of a commit, and did not come back in time: the change is committed, or not.

    The next use of the state finds out, before it reads or changes anything.
    """

    path: str = ""  #: the URL without its password


class HistoryLost(PStateError, RuntimeError):
    """The server does not have commits that it had acknowledged, as after a failover to a server that lacked them.

    Raised once. The next use of the state goes on with what the server has. Nothing was changed.
    """

    path: str = ""  #: the URL without its password


class LockTimeout(PStateError, TimeoutError):
    """Another process or thread held the lock for longer than the timeout. Nothing was changed."""

    path: str = ""  #: the state file
    waited: float = 0.0  #: seconds
    holder: int | None = None  #: the process that has the lock, if the system tells it
    holder_name: str | None = None  #: on a server: host, process, user and address of the holder, as far as it tells
    thread: str | None = None  #: the name of the thread that has it, if it is one of this process


class ClosedError(PStateError, ValueError):
    """The state was used after `close()`, or before it was opened."""

    path: str = ""  #: the state file; empty if the state was not opened yet


class ClosedAttributeError(ClosedError, AttributeError):
    """A key was read as an attribute after the close. `hasattr` is false then, and `getattr` returns its default."""


class RemovedError(PStateError, ReferenceError):
    """A program changed a container that another process, or an edit, has removed from the state."""

    path: str = ""  #: the state file; the place of the container in it is no longer known


class ReentrantError(PStateError, RuntimeError):
    """A signal handler or finalizer used the state while the change that it interrupted was under way."""


class BypassedError(PStateError, RuntimeError):
    """Code that bypasses the state changed a list of it in memory. Nothing was written, and memory is read again."""

    path: str = ""


class TransactionError(PStateError, RuntimeError):
    """A transaction cannot be used in this way: twice, after its rollback, or on a coroutine. Or its blocks were left
    in another thread, or in another order, than they were entered: then all of it was rolled back.
    """


class PatchedError(PStateError, RuntimeError):
    """gevent or eventlet replaced Python's threads after pstate was imported. Nothing was done."""


class UnsupportedTypeError(PStateError, TypeError):
    """The type of a value cannot be stored. Nothing was changed."""

    place: str = ""  #: where in the state, as a program writes it: ``state.jobs[3].at``


class UnsupportedValueError(PStateError, ValueError):
    """The type of a value is right, but the value cannot be stored: cyclic, too deep, or with a lone surrogate. Nothing
    was changed.
    """

    place: str = ""


class ReservedNameError(PStateError, AttributeError):
    """A key that is also the name of a method cannot be set as an attribute. Set it as an item."""

    place: str = ""
