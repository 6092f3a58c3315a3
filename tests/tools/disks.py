"""File systems for tests: the real one, with a hand on chosen calls.

`Disk` can look at a call, make it otherwise, or refuse it; a test says so in `before` and `after`. `Failing` refuses
chosen calls, `Seam` counts all, `Gated` holds syncs back, and `Rebooted` is the same machine after its next boot.
A double that is used in one file and is really different stays there.
"""

from __future__ import annotations

import errno
import fcntl
import functools
import math
import os
import threading
from collections.abc import Callable
from typing import Any

from pstate.file.fs import FileSystem
from stress.files.rebooted import Rebooted

CHANGING = ("open", "write", "truncate", "sync", "rename", "rename_new", "exchange", "unlink", "sync_folder")
CALLS = (
    "open", "close", "lseek", "pread", "write", "truncate", "sync", "sync_data", "stat", "fstat", "rename", "unlink",
    "rename_new", "exchange", "sync_folder", "copy_attributes",
)  # fmt: skip

#: How long a sync may be held back before the test fails, in seconds.
PATIENCE = 20.0


def spare_the_disk(fs: FileSystem) -> None:
    """Make syncs cost nothing: a process that dies takes nothing with it that the system has been given."""
    fs.sync = fs.sync_data = _nothing
    fs.sync_folder = _nothing  # type: ignore[method-assign, assignment]


def _nothing(_: object) -> None:
    pass


class Disk(FileSystem):
    """The real system, with a look at each call of *names* (by default, of those that change something).

    `before` is called with the name of the call and its arguments. It may do part of it, raise, wait or kill. If it
    returns something, that is the result, and the call is not made. `after` is called in the same way when the call
    has succeeded. `calls` has the names so far. Nothing of this happens unless `armed`.
    """

    spares_the_disk = False  #: whether syncs do nothing

    def __init__(self, *names: str) -> None:
        super().__init__()
        if self.spares_the_disk:
            spare_the_disk(self)
        self.armed = True
        self.calls: list[str] = []
        self.before: Callable[..., Any] = _not_at_all
        self.after: Callable[..., Any] = _not_at_all
        for name in names or CHANGING:
            setattr(self, name, functools.partial(self._call, name, getattr(self, name)))

    def _call(self, name: str, real: Callable[..., Any], *args: Any) -> Any:
        if not self.armed:
            return real(*args)
        self.calls.append(name)
        return self.act(len(self.calls) - 1, name, real, args)

    def act(self, number: int, name: str, real: Callable[..., Any], args: tuple[Any, ...]) -> Any:
        """Make call *number*, counted from 0 and since it was armed."""
        result = self.before(name, *args)
        if result is None:
            result = real(*args)
            self.after(name, *args)
        return result


def _not_at_all(*_: object) -> None:
    pass


class Seam(Disk):
    """Counts all calls, also those of the lock, once it is armed. No disk is synced."""

    spares_the_disk = True

    def __init__(self) -> None:
        super().__init__(*CALLS)
        self.flock = functools.partial(self._call, "flock", fcntl.flock)
        self.armed = False


class Failing(Disk):
    """Each call whose name is in `failing` is refused with *error*, from the `first` of them to the `last`.

    A write that is refused takes a *part* of its data before: the system takes it, and refuses the next write. `count`
    is how many calls there were whose names were in `failing`. No disk is synced.
    """

    spares_the_disk = True

    def __init__(self, *failing: str, error: int = errno.EIO, part: float = 0.5) -> None:
        super().__init__(*CALLS)
        self.error = error
        self.part = part
        self.failing = set(failing)
        self.first: float = 0
        self.last: float = math.inf
        self.count = 0
        self._is_torn = False

    def act(self, number: int, name: str, real: Callable[..., Any], args: tuple[Any, ...]) -> Any:
        if name in self.failing:
            self.count += 1
            is_torn, self._is_torn = self._is_torn and name == "write", False
            if is_torn or self.first <= self.count - 1 <= self.last:
                if name == "write" and not is_torn and (taken := int(len(args[1]) * self.part)):
                    self._is_torn = True
                    return real(args[0], args[1][:taken])
                raise OSError(self.error, os.strerror(self.error))
        return super().act(number, name, real, args)


class Gated(FileSystem):
    """Its syncs wait at a gate, and may fail after it."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = threading.Event()
        self.gate.set()
        self.syncs = 0
        self.waiting = threading.Event()
        self.problem: OSError | None = None
        self.sync_data = self._sync

    def close_the_gate(self) -> None:
        """The next sync waits; `waiting` tells when it does."""
        self.gate.clear()
        self.waiting.clear()
        self.syncs = 0

    def _sync(self, fd: int) -> None:
        self.syncs += 1
        self.waiting.set()
        assert self.gate.wait(PATIENCE)
        if self.problem is not None:
            raise self.problem


__all__ = ["CALLS", "CHANGING", "Disk", "Failing", "Gated", "Rebooted", "Seam", "spare_the_disk"]
