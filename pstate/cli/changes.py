"""How a change is printed: a line for a person, fields for a program."""

from __future__ import annotations

from typing import Any

from pstate.cli import show
from pstate.memory.changes import Change
from pstate.memory.ops import ABSENT
from pstate.text import paths, records

_COLOURS = {"+": "green", "-": "red", "~": "yellow"}


def line(change: Change) -> str:
    """``~ counter: 3 -> 4``; + for a new value, - for one that was deleted."""
    sign = "+" if change.old is ABSENT else "-" if change.new is ABSENT else "~"
    values = [records.flow(value) for value in (change.old, change.new) if value is not ABSENT]
    text = f"{sign} {paths.show(list(change.path))}"
    return show.coloured(text if change.is_member else f"{text}: {' -> '.join(values)}", _COLOURS[sign])


def fields(change: Change) -> dict[str, Any]:
    """Its path as a string, and the old and the new value, if they exist."""
    values = {"old": change.old, "new": change.new}
    present = {name: value for name, value in values.items() if value is not ABSENT}
    return {"path": paths.show(list(change.path)), **present}
