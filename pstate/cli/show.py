"""How things are printed: values as they are, as YAML or as JSON; colours and tables.

With `progress`, the only module that knows `rich`, which is used if it is installed and the output goes to a terminal.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
from collections.abc import Sequence
from datetime import date
from typing import Any, TextIO

from pstate.cli import progress
from pstate.cli.command import any_integer, printing
from pstate.text import dumping, scalars
from pstate.values import ordered

_COLOURS = {"red": 31, "green": 32, "yellow": 33, "cyan": 36, "dim": 2}


def write(text: str, done: str = "") -> None:
    """Print *text* in UTF-8, as the file is, whatever the locale says. If that fails, the message ends with *done*."""
    progress.clear()
    with printing(done):
        _write(text)
        if done:
            sys.stdout.flush()


def flush() -> None:
    """Print now what was written: a program may be waiting for a line."""
    with printing():
        sys.stdout.flush()


def _write(text: str) -> None:
    buffer = getattr(sys.stdout, "buffer", None)
    if buffer is None:
        sys.stdout.write(text)
    else:
        sys.stdout.flush()
        left = memoryview(text.encode(errors="surrogateescape"))  # a file name may have some
        while left:  # with PYTHONUNBUFFERED, this is a file without a buffer, which may write only a part
            left = left[buffer.write(left) :]


def value_text(value: Any, form: str) -> str:
    """*value* as `pstate get` prints it, without a newline at its end; *form* is "raw", "yaml" or "json"."""
    if form == "json":
        return json_text(value)
    if form == "raw" and type(value) is str:
        return value
    text = dumping.dump_value(value).decode()
    # If the text ends with a block of lines, the newline before this one is a part of that.
    return text[:-1]


def json_text(value: Any) -> str:
    """*value* as JSON, or the closest equivalent: see docs/cli.md."""
    with any_integer():
        return json.dumps(_as_json(value), ensure_ascii=False, allow_nan=False)


def _as_json(value: Any) -> Any:
    if isinstance(value, dict):
        return {key if type(key) is str else scalars.scalar(key): _as_json(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_as_json(item) for item in value]
    if isinstance(value, set):
        return [_as_json(item) for item in ordered(value)]
    if isinstance(value, bytes):
        import base64

        return base64.b64encode(value).decode("ascii")
    if isinstance(value, date):
        return value.isoformat()
    if isinstance(value, float) and (value != value or value in (float("inf"), -float("inf"))):
        return None
    return value


def has_colours(stream: TextIO) -> bool:
    """Whether *stream* is a terminal, and colours are not turned off (https://no-color.org)."""
    return stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def coloured(text: str, colour: str, stream: TextIO | None = None) -> str:
    """*text* in *colour*, if *stream*, by default standard output, has colours."""
    return f"\x1b[{_COLOURS[colour]}m{text}\x1b[0m" if has_colours(stream or sys.stdout) else text


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print *rows* below *head*: on a terminal as a table of rich, otherwise as columns of plain text."""
    if sys.stdout.isatty():
        with contextlib.suppress(ImportError):
            from rich.console import Console
            from rich.table import Table

            drawn = Table(*head, box=None, header_style="bold", pad_edge=False)
            for row in rows:
                drawn.add_row(*row)
            Console(highlight=False, markup=False).print(drawn)
            return
    widths = [max(len(row[column]) for row in [head, *rows]) for column in range(len(head))]
    for row in [head, *rows]:
        write("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() + "\n")
