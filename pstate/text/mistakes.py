"""Errors in a document: what is wrong, where, and what a person can do about it."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from pstate.errors import InvalidStateError
from pstate.text.parts import WIDTH
from pstate.values import MAX_DEPTH

if TYPE_CHECKING:
    from pstate.text.tables import Mark
from pstate.text.scalars import scalar

_UNTOUCHED = "Nothing was changed."
_SURROGATE_ESCAPES = re.compile(
    r"\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|\\u[dD][89a-fA-F][0-9a-fA-F]{2}"
)


def invalid(path: str, line: int, column: int, what: str, remedy: str) -> InvalidStateError:
    """The error for the mistake *what* in *line* and *column* of the file *path*, counted from 1."""
    message = f"{path}:{line}:{column}: {what}. {_UNTOUCHED} {remedy}."
    return InvalidStateError(message, path=path, line=line, column=column, reason=what)


def line_and_column(content: bytes, offset: int) -> tuple[int, int]:
    """The line and the column of *offset*, counted from 1, the column in characters."""
    start = content.rfind(b"\n", 0, offset) + 1
    return content.count(b"\n", 0, offset) + 1, len(content[start:offset].decode("utf-8", "replace")) + 1


class Refused(Exception):
    """A mistake, and its place: without a *mark*, the present event."""

    def __init__(self, what: str, remedy: str = "Correct this line", mark: Mark | None = None) -> None:
        super().__init__(what)
        self.what = what
        self.remedy = remedy
        self.mark: Any = mark


class Twice(Refused):
    """A key that is equal to an earlier one, which has the number *number* in its mapping."""

    def __init__(self, what: str, remedy: str, number: int) -> None:
        super().__init__(what, remedy)
        self.number = number


def too_deep(mark: Mark | None = None) -> Refused:
    return Refused(f"nested deeper than {MAX_DEPTH} levels", "Store flatter values", mark)


def place_of_key(parts: list[Any], text: str, number: int, line: int, lines_before: int) -> str:
    """The place of key *number* of a mapping whose later key, in *line*, is the last one of the *parts*."""
    around: list[list[int]] = [[]]
    for kind, start in zip(parts[::WIDTH], parts[1::WIDTH], strict=True):
        if kind == "end":
            around.pop()
            continue
        around[-1].append(start)
        if kind in ("mapping", "sequence"):
            around.append([])
    # A merge key does not count as a key.
    starts = [start for start in around[-1][::2] if not text.startswith("<<", start)]
    start = starts[number]
    first = text.count("\n", 0, start)
    if first == line:
        return f", first in column {start - text.rfind(chr(10), 0, start)} of this line"
    return f", first in line {first + 1 + lines_before}"


# Mistakes of people that the parser reports as a token that cannot begin.
_TEMPLATE = re.compile(r"\{[%{#]")
_QUOTE_IT = "Correct this line: put the value in quotes"


def explain(problem: str, context: str, text: str, offset: int) -> tuple[str, str] | None:
    """The mistake at *offset*, by its name, and what to do; None if the parser's own words say it."""
    if "Unicode character escape" in problem:
        found = _SURROGATE_ESCAPES.search(text, max(offset - 2, 0))
        if found is not None and found.start() <= offset:
            return surrogate(found[0])
    if "tab character" in problem or ("cannot start any token" in problem and text[offset : offset + 1] == "\t"):
        before = text[text.rfind("\n", 0, offset) + 1 : offset]
        where = "as indentation" if not before.strip() else "after a dash" if not before.strip(" -") else "here"
        what = f"a tab is used {where}, where YAML allows only spaces"
        return what, "Correct this line: replace the tab by spaces"
    character = text[offset : offset + 1]
    template = _TEMPLATE.match(text, max(offset - 1, 0))
    if template is not None and character in "%{#":
        what = f"`{template[0]}` begins a template, which is not YAML"
        return what, "Correct this line: write the result of the template, or put it in quotes"
    if "cannot start any token" in problem or "expected node content" in problem:
        shown = "a backtick" if character == "`" else f"`{character}`"
        return f"{shown} cannot begin a value or a key", _QUOTE_IT
    if "expected alphabetic" in problem and context.endswith(("alias", "anchor")):
        mark = "*" if context.endswith("alias") else "&"
        return f"`{mark}` begins an {context.rpartition(' ')[2]}, but no name follows it", _QUOTE_IT
    return None


def surrogate(escape: str) -> tuple[str, str]:
    """Why YAML cannot have the surrogate *escape*, or the two of JSON for one character, and what to do."""
    pair = bytes.fromhex(escape.replace("\\u", ""))
    try:
        character = pair.decode("utf-16-be")
    except UnicodeDecodeError:
        return f"{escape} is a surrogate, which is not a character", "Correct this line: write the character itself"
    what = f"{escape} is how JSON writes {character}, but YAML has no such escapes (surrogates)"
    return what, f"Correct this line: write {character} itself. Or read the file as JSON, with `pstate import`"


def short(value: Any) -> str:
    """The scalar *value* for a message, cut if it is long."""
    shown = repr(value) if type(value) is str else scalar(value)
    return shown if len(shown) <= 60 else shown[:59] + "…"
