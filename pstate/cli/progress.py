"""The progress of a command that takes longer than a second: shown on a terminal, on standard error.

A thread draws it. To learn how far the command is, it looks at local variables of the loops that step through a
document or a journal, so these loops do nothing for it. The only module besides `show` that knows rich; without rich,
or on a dumb terminal, it prints a line every few seconds.
"""

from __future__ import annotations

import contextlib
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

from pstate.signals import expected, tolerating

#: Smaller files take less than a second.
_LARGE = 1_000_000
#: Nothing is shown before, or for so long after any other output, in seconds.
_PATIENCE = 1.0
#: Between two drawings of a line, and between two plain lines, in seconds.
_PAUSE = 0.2
_LONG_PAUSE = 5.0

#: The width of the bar.
_BAR = 20
_ERASE = "\r\x1b[K"

Draw = Callable[[str, float | None, float], None]

_active: _Progress | None = None


@contextlib.contextmanager
def shown(phase: str, size: int) -> Iterator[Callable[[str], None]]:
    """Show *phase*, work on a file of *size* bytes, while it lasts; call what this gives with the next phase.

    Inside another `shown`, it is a phase of the outer one.
    """
    global _active
    if _active is not None:
        outer, before = _active, _active.phase
        outer.phase = phase
        try:
            yield outer.say
        finally:
            outer.phase = before
    elif size < _LARGE or not sys.stderr.isatty():
        yield _say_nothing
    else:
        begun = _Progress(phase)
        try:
            _active = begun
            begun.start()
            yield begun.say
        finally:
            _active = None
            begun.end()


def clear() -> None:
    """Make way for other output on the terminal."""
    if _active is not None:
        _active.clear()


def _say_nothing(phase: str) -> None:
    pass


class _Progress(threading.Thread):
    def __init__(self, phase: str) -> None:
        super().__init__(name="pstate progress", daemon=True)
        self.phase = phase
        self._since = time.monotonic()
        self._due = self._since + _PATIENCE
        self._watched = threading.get_ident()
        self._ended = threading.Event()
        self._lock = threading.Lock()  #: guards `_is_drawn` and the line on the terminal
        self._is_drawn = False

    def say(self, phase: str) -> None:
        self.phase = phase

    def clear(self) -> None:
        """Erase the line, and draw no other one before there was no output for a while."""
        with self._lock:
            self._due = time.monotonic() + _PATIENCE
            self._erase()

    def end(self) -> None:
        """Erase the line, for good."""
        self._ended.set()
        with self._lock:
            self._erase()

    def _erase(self) -> None:
        if self._is_drawn:
            self._is_drawn = False
            with tolerating(OSError, ValueError):  # the terminal is gone
                _write(_ERASE)

    def run(self) -> None:
        draw: Draw | None = None
        while not self._ended.wait(max(_PAUSE, self._due - time.monotonic())):
            if time.monotonic() < self._due:
                continue
            draw = draw or _rich(self) or _Lines().draw
            fraction = self._fraction()
            with self._lock:
                if self._ended.is_set() or time.monotonic() < self._due:
                    continue
                try:
                    draw(self.phase, fraction, time.monotonic() - self._since)
                except expected(OSError, ValueError):
                    return

    def _fraction(self) -> float | None:
        """How much of the phase is done, if a loop is running that tells."""
        frame = sys._current_frames().get(self._watched)
        while frame is not None:
            measure = _MEASURES.get((frame.f_globals.get("__name__"), frame.f_code.co_qualname))
            if measure is not None:
                return measure(frame.f_locals)
            frame = frame.f_back
        return None

    def drawn(self, line: str) -> None:
        """Draw *line* in the place of the last one."""
        self._is_drawn = True
        _write(f"\r{line}\x1b[K")


def _of_block(values: dict[str, Any]) -> float | None:
    found, size = values.get("found"), values.get("size")
    return found.start() / size if found is not None and size else None


def _of_events(values: dict[str, Any]) -> float | None:
    event, reader = values.get("event"), values.get("self")
    return event.start_mark.index / len(reader.text) if event is not None and reader is not None else None


def _of_records(values: dict[str, Any]) -> float | None:
    number, found = values.get("number"), values.get("found")
    return number / len(found.records) if number is not None and found is not None else None


def _of_content(values: dict[str, Any]) -> float | None:
    return _of_records({**values, "found": values.get("content")})


#: What the local variables of a loop say of how much of its work is done, by its module and name.
_MEASURES: dict[tuple[Any, str], Callable[[dict[str, Any]], float | None]] = {
    ("pstate.text.block", "_read"): _of_block,
    ("pstate.text.events", "_Reader.document"): _of_events,
    ("pstate.cli.mending.unopened", "replayed"): _of_records,
    ("pstate.cli.history", "_recorded"): _of_content,
}


def _write(text: str) -> None:
    sys.stderr.write(text)
    sys.stderr.flush()


def _rich(progress: _Progress) -> Draw | None:
    """Draws a line with a bar of rich's; None where that cannot be."""
    try:
        from rich.console import Console
        from rich.progress_bar import ProgressBar
        from rich.table import Table
        from rich.text import Text
    except ImportError:
        return None
    console = Console(stderr=True, highlight=False)
    if console.is_dumb_terminal or not console.is_terminal:
        return None

    def draw(phase: str, fraction: float | None, seconds: float) -> None:
        done = Text(f"{_percent(fraction)}{_time(seconds)}", no_wrap=True)
        what = Text(phase, no_wrap=True)
        what.truncate(max(10, console.width - _BAR - len(done) - 3), overflow="ellipsis")
        line = Table.grid(padding=(0, 1))
        line.add_row(what, ProgressBar(total=1.0, completed=fraction or 0.0, width=_BAR, pulse=fraction is None), done)
        with console.capture() as captured:
            console.print(line, end="", width=max(1, console.width - 1))
        progress.drawn(captured.get().rstrip("\n"))

    return draw


class _Lines:
    """Plain lines: when a phase begins, and every few seconds."""

    def __init__(self) -> None:
        self._phase = ""
        self._due = 0.0

    def draw(self, phase: str, fraction: float | None, seconds: float) -> None:
        if phase != self._phase or seconds >= self._due:
            self._phase, self._due = phase, seconds + _LONG_PAUSE
            _write(f"pstate: {phase}: {_percent(fraction)}{_time(seconds)}\n")


def _percent(fraction: float | None) -> str:
    return "" if fraction is None else f"{fraction:.0%}, "


def _time(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 60 else f"{seconds // 60:.0f} min {seconds % 60:.0f} s"
