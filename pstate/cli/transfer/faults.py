"""The values that cannot be carried: each place with its reason, and one error for all of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

from pstate.cli import paths
from pstate.cli.command import No, Parser, tell
from pstate.errors import PStateError

#: Called with the name of the next phase, for the progress.
Say: TypeAlias = Callable[[str], Any]

#: Stands for a tree whose values cannot be carried at all.
LEFT_OUT: Any = object()

#: This many places are listed, and the others counted: a person reads the first screen.
SHOWN = 20


class BadSource(PStateError):
    """The source of an import does not exist, cannot be read, or is not valid."""


def bad_line(name: str, line: int, what: str, column: int = 1) -> BadSource:
    """The error for *what* is wrong in the source *name*, with its place."""
    return BadSource(
        f"{name}:{line}:{column}: {what}. Nothing was changed. Correct the source.", line=line, column=column
    )


def bad_place(text: str, position: int, name: str, what: str) -> BadSource:
    """`bad_line` for what is at *position* in *text*, all of the source."""
    line = text.count("\n", 0, position) + 1
    return bad_line(name, line, what, position - text.rfind("\n", 0, position))


class Faults:
    """The places that cannot be carried, below *place*."""

    def __init__(self, place: Sequence[Any] = ()) -> None:
        self.count = 0
        self._place = list(place)
        self._lines: list[str] = []

    def add(self, path: list[Any], reason: str) -> None:
        self.count += 1
        if self.count <= SHOWN:
            self._lines.append(f"  {paths.show([*self._place, *path])}: {reason}\n")

    def lines(self) -> str:
        """Each place with its reason, one a line; the first of them, if there are many."""
        return "".join(self._lines) + (f"  and {self.count - SHOWN:,} more\n" if self.count > SHOWN else "")

    def settle(self, name: str, may_leave_out: bool, more: str = "") -> None:
        """Raise No with the places in *name*, and *more* sentences; or say that they were left out."""
        if not self.count:
            return
        lines = self.lines()
        if may_leave_out:
            tell(f"pstate: {name}: {counted(self.count, 'value')} left out:\n{lines.rstrip()}")
        else:
            raise No(
                f"{name}: {counted(self.count, 'value')} cannot be carried:\n{lines}"
                f"Nothing was changed. {more}--skip-unsupported leaves out what cannot be carried."
            )


def counted(count: int, noun: str) -> str:
    """*count* of *noun*, in words."""
    return f"{count:,} {noun}" + ("" if count == 1 else "s")


def declare_skipping(parser: Parser) -> None:
    """The option that accepts an incomplete import or export."""
    parser.add_argument(
        "--skip-unsupported", action="store_true", help="leave out values that cannot be carried, and list them"
    )
