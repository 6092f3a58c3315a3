"""Log messages of the package. `logging` is imported with the first message.

That import takes as long as opening a state, and most programs never cause a message.

Handlers, filters and record factories are code of the program, and may wait for anything. A handler may use the very
state that the message is about. So no message is handed over while its thread holds a lock of ours. It waits in
`waiting`, and the code that releases such a lock calls `send` if `waiting` is not empty. If the process dies, the
messages that wait are lost, and nothing else.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from threading import get_ident
from typing import Any, NamedTuple

_DEBUG, _INFO, _WARNING, _ERROR = 10, 20, 30, 40

#: Each says whether the calling thread holds a lock of ours. A module that has locks adds one.
lock_holders: list[Callable[[], bool]] = []


class _Message(NamedTuple):
    """The parts of a log record, as of the moment when the message was logged."""

    logger: str
    level: int
    path: str
    line: int
    function: str
    text: str
    arguments: tuple[Any, ...]
    time: float


#: For each thread, the messages that wait until it has released its locks. Nearly always empty.
waiting: dict[int, list[_Message]] = {}


class Logger:
    """``logging.getLogger(name)``, from the first use on, and without the locks of this package."""

    __slots__ = ("_name",)

    def __init__(self, name: str) -> None:
        self._name = name

    def debug(self, text: str, *arguments: Any) -> None:
        """As that of `logging`."""
        self._tell(_DEBUG, text, arguments)

    def info(self, text: str, *arguments: Any) -> None:
        """As that of `logging`."""
        self._tell(_INFO, text, arguments)

    def warning(self, text: str, *arguments: Any) -> None:
        """As that of `logging`."""
        self._tell(_WARNING, text, arguments)

    def error(self, text: str, *arguments: Any) -> None:
        """As that of `logging`."""
        self._tell(_ERROR, text, arguments)

    def _tell(self, level: int, text: str, arguments: tuple[Any, ...]) -> None:
        frame = sys._getframe(2)
        code = frame.f_code
        message = _Message(
            self._name, level, code.co_filename, frame.f_lineno, code.co_name, text, arguments, time.time()
        )
        waiting.setdefault(get_ident(), []).append(message)
        send()


def send() -> None:
    """Hand over the messages of the calling thread, in order, unless it holds a lock of ours."""
    thread = get_ident()
    if any(holds() for holds in lock_holders) or _is_sending():
        return  # a message that a handler logs comes after the one that the handler was called for
    while messages := waiting.get(thread):
        message = messages.pop(0)
        if not messages:
            del waiting[thread]
        _hand_over(message)


def _is_sending() -> bool:
    """Whether the calling thread is in another `send`. The stack says so: an interruption would leave a flag set."""
    frame = sys._getframe(1).f_back
    while frame is not None:
        if frame.f_code is send.__code__:
            return True
        frame = frame.f_back
    return False


def _hand_over(message: _Message) -> None:
    try:
        import logging
    except ImportError:
        if not sys.is_finalizing():
            raise
        return  # at its very end, Python imports nothing

    logger = logging.getLogger(message.logger)
    if not logger.isEnabledFor(message.level):
        return
    record = logger.makeRecord(
        logger.name,
        message.level,
        message.path,
        message.line,
        message.text,
        message.arguments,
        None,
        message.function,
    )
    # The message has waited. Its time is the one at which it was logged.
    record.relativeCreated -= (record.created - message.time) * 1000
    record.created = message.time
    record.msecs = int(message.time % 1 * 1000) + 0.0
    logger.handle(record)


def forget() -> None:
    """In a forked child: drop the messages that wait, because the parent hands them over."""
    waiting.clear()
