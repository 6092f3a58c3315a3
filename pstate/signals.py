"""Tells exceptions of our own calls from those of a signal handler that ran meanwhile.

A handler of SIGALRM that raises TimeoutError is the usual deadline of a program, and TimeoutError is an OSError. Such
an exception says nothing about a disk, a lock or a file: it belongs to the program. So every `except` of the package
that could catch an OSError asks here (`tests/test_signals.py` finds those that do not)::

    try:
        fs.truncate(fd, end)
    except expected(OSError) as error:
        ...

    with tolerating(FileNotFoundError):
        fs.unlink(name)

It costs nothing where nothing is raised.
"""

from __future__ import annotations

import contextlib
import sys
from types import FrameType, TracebackType
from typing import Any, TypeVar

from pstate.errors import PStateError

E = TypeVar("E", bound=BaseException)


def expected(*kinds: type[E]) -> tuple[type[E], ...]:
    """What an `except` clause catches: *kinds*, or nothing if a signal handler raised the current exception."""
    error = sys.exception()
    return () if error is not None and is_foreign(error) else kinds


class tolerating(contextlib.suppress):
    """`contextlib.suppress`, except for exceptions of a signal handler, which propagate."""

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool:
        return error is not None and not is_foreign(error) and bool(super().__exit__(kind, error, traceback))


def is_foreign(error: BaseException) -> bool:
    """Whether *error*, which has just been caught, was not raised by the function that we called.

    The system gives each of its errors a number. An error without a number comes from elsewhere: from a handler in C,
    or another thread raised it in this one.
    """
    if isinstance(error, OSError) and error.errno is None and not isinstance(error, PStateError):
        return True
    return came_from_handler(error)


def came_from_handler(error: BaseException) -> bool:
    """Whether *error*, which has just been caught, was raised by a signal handler, or by a function that it called.

    The number of an error proves nothing: a handler may raise ``TimeoutError(errno.ETIMEDOUT, ...)``, or fail at a file
    of its own. But only a handler gets the frame that it interrupts as an argument.
    """
    place = error.__traceback__
    while place is not None and (place := place.tb_next) is not None:  # the first one has caught it
        # Not the frame before it in the traceback, which leaves out the frames of an import.
        caller = place.tb_frame.f_back
        if caller is not None and any(_is_or_holds(value, caller) for value in place.tb_frame.f_locals.values()):
            return True
    return False


def _is_or_holds(value: Any, frame: FrameType) -> bool:
    """Whether *value* is *frame*, or the arguments of ``def handler(*arguments)`` with it."""
    return value is frame or (type(value) is tuple and any(each is frame for each in value))
