"""Rows as strips of styled text, for any width. Knows no state."""

from __future__ import annotations

import time
from collections.abc import Callable

from rich.segment import Segment
from rich.style import Style
from textual.strip import Strip

from pstate.cli.view import looks
from pstate.cli.view.model import Row
from pstate.cli.view.spots import Mark
from pstate.cli.view.timeline import Line
from pstate.engine import Origin

#: For how many seconds a mark is new, and after how many it is old.
NEW, OLD = 2.0, 30.0

_WHO: dict[Origin | None, str] = {"here": "here", "other": "other", "edit": "edit", None: "before"}
_WHO_STYLE: dict[Origin | None, Style] = {
    "here": Style(color="#8bd49c"),
    "other": Style(color="#7cb7ff"),
    "edit": Style(color="#f2a6d8"),
    None: Style(color="#8a93a3"),
}
_KIND_STYLE = {
    "text": Style(color="#c3d8a5"),
    "value": Style(color="#f0c987"),
    "member": Style(color="#c3d8a5"),
    "mapping": Style(color="#8a93a3"),
    "list": Style(color="#8a93a3"),
    "set": Style(color="#8a93a3"),
    "missing": Style(color="#8a93a3", italic=True),
}
_LABEL = Style(color="#e4e8ef")
_QUIET = Style(color="#6c7686")
_BOLD = Style(bold=True)
_NEW = Style(bold=True, reverse=True)
_CURSOR = Style(bgcolor="#2f3b52")
_CURSOR_AWAY = Style(bgcolor="#242b38")
_REVERSE = Style(reverse=True)

#: From this width on, a mark has the time, and the number of changes.
WITH_WHO, WITH_TIME, WITH_COUNT = 32, 46, 90


def clock_time(seconds: float) -> str:
    """The time of the day."""
    return time.strftime("%H:%M:%S", time.localtime(seconds))


def tree_row(row: Row, width: int, now: float, cursor: str, zone: Callable[[float], str] = clock_time) -> Strip:
    """*row* of the tree; *cursor* is "here", "away" (another widget has the focus) or nothing."""
    age = now - row.mark.time if row.mark is not None else OLD
    indent = min(2 * row.depth, width // 3)
    arrow = ("▾ " if row.is_open else "▸ ") if row.kind in ("mapping", "list", "set") else "  "
    fresh = _BOLD if age < NEW else Style()
    parts = [
        Segment(" " * indent + arrow, _QUIET),
        Segment(row.label, _LABEL + fresh + (_BOLD if not row.depth else Style())),
        Segment("  " if row.label else "", Style()),
        Segment(row.text, _KIND_STYLE[row.kind] + fresh),
    ]
    return _line(parts, _mark(row.mark, width, age, zone), width, cursor)


def _mark(mark: Mark | None, width: int, age: float, zone: Callable[[float], str]) -> list[Segment]:
    if mark is None:
        return []
    colour = _WHO_STYLE[mark.origin]
    style = colour + (_NEW if age < NEW else _BOLD if age < OLD else Style(dim=True))
    who = _WHO[mark.origin]
    if width < WITH_WHO:
        return [Segment(f"{mark.sign}{who[0]}", style)]
    parts = [Segment(f" {mark.sign} {who:<5} ", style)]
    if width >= WITH_TIME:
        parts.append(Segment(f" {zone(mark.time)}", _QUIET if age >= NEW else colour))
    if width >= WITH_COUNT:
        parts.append(Segment(f"{f'×{mark.count:,}' if mark.count > 1 else '':>9}", _QUIET))
    return parts


def time_row(line: Line, width: int, now: float, cursor: str, zone: Callable[[float], str] = clock_time) -> Strip:
    """*line* of the time line."""
    age = now - line.time
    colour = _WHO_STYLE[line.origin]
    parts = []
    if width >= WITH_WHO:
        # What is in the journal already says neither when it came, nor who has committed it.
        is_past = line.origin is None and line.number is not None
        when = "" if is_past or not line.is_first else zone(line.time)
        parts.append(Segment(f"{when:<8} ", _QUIET))
    who = _WHO[line.origin] if line.sign != " " or line.origin is not None else ""
    style = colour + (_NEW if age < NEW and line.origin is not None else _BOLD)
    parts.append(Segment(f"{who if line.is_first else '':<5}" if width >= WITH_WHO else who[:1] or " ", style))
    if width >= WITH_TIME:
        number = "" if line.number is None or not line.is_first else f"{line.number}"
        parts.append(Segment(f" {number:>5}", _QUIET))
    parts.append(Segment(f" {line.sign} " if line.sign != " " else " ", colour))
    if line.sign != " ":
        parts.append(Segment(looks.place(line.path), _LABEL))
        parts.append(Segment("  ", Style()))
    parts.append(Segment(line.words, _QUIET if line.sign == " " else _KIND_STYLE["value"]))
    return _line(parts, [], width, cursor)


def _line(left: list[Segment], right: list[Segment], width: int, cursor: str) -> Strip:
    """*left*, cut where it meets *right*, in exactly *width* columns."""
    end = Strip([*right, Segment(" ")] if right and width >= WITH_WHO else right)
    room = max(0, width - end.cell_length - (1 if right else 0))
    begin = Strip(left)
    if begin.cell_length > room:
        begin = Strip([*begin.crop(0, max(0, room - 1)), Segment("…", _QUIET)])
    strip = Strip([*begin.adjust_cell_length(room), Segment(" " if right else ""), *end]).adjust_cell_length(width)
    if cursor:
        # The second is for terminals without colours, whose filter drops the first.
        strip = strip.apply_style(_REVERSE if cursor == "plain" else _CURSOR if cursor == "here" else _CURSOR_AWAY)
    return strip
