"""Finds places in the text of a document, and applies edits to it.

`splice` decides what changes.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from typing import Any

from pstate.text.parts import Parts

Edit = tuple[int, int, str]  #: where the replaced text begins and ends, and the new text
SPACE = re.compile(r"(?:[ \t\n]|#[^\n]*)*")  #: between two tokens
NO_CONTENT = re.compile(r"[ \t]*(?:#[^\n]*)?\n")  #: a line without content
COMMENT_LINE = re.compile(r"[ \t]*#")
COMMENT = re.compile(r"[ \t]+#[^\n]*")
#: Anchor and tag of a node, and the text between them and it.
PROPERTIES = re.compile(r"(?:[&!][^ \t\n]*(?:[ \t\n]|#[^\n]*)*)*")
BLANK_LINE = re.compile(r"\n([ \t]*)(?=\n)")


class Uncertain(Exception):
    """It is not certain how this node can change without harm to the text around it."""


def by_place(edit: Edit) -> tuple[int, int]:
    """The sort key of edits."""
    return edit[:2]


def skip(pattern: re.Pattern[str], text: str, offset: int) -> int:
    """The end of the match of *pattern* at *offset*, or *offset*."""
    found = pattern.match(text, offset)
    return found.end() if found else offset


def within(edits: list[Edit], start: int, end: int) -> list[Edit]:
    """The *edits*, which are sorted, that begin at *start* or later, and before *end*."""
    return edits[bisect_left(edits, start, key=_start) : bisect_left(edits, end, key=_start)]


def _start(edit: Edit) -> int:
    return edit[0]


def applied(text: str, start: int, end: int, edits: list[Edit]) -> str:
    """*text* from *start* to *end* with the *edits*, which are sorted."""
    pieces: list[str] = []
    for first, last, new in edits:
        pieces += text[start:first], new
        start = last
    pieces.append(text[start:end])
    return "".join(pieces)


#: Above the first key: lines that cannot belong to it.
_ABOVE_ALL = re.compile(r"(?:(?:[ \t]*(?:#[^\n]*)?|%[^\n]*|---(?:[ \t]+#[^\n]*)?[ \t]*)\n)*")
#: A comment for tools that applies to the whole file: for editors, schemas, linters, licences, a shell.
_MODELINE = re.compile(
    r"(?m)^[ \t]*(?:#!|#(?:[^\n]*[ \t])?(?:-\*-[^\n]*-\*-|vim?:|ex:[ \t]*(?:set?[ \t]|[a-z]+=)|yaml-language-server:"
    r"|yamllint[ \t]|SPDX-[A-Za-z-]+:|\$schema:))[^\n]*\n"
)
#: After a colon or dash: anchor and tag, then a comment, then the end of the line.
_HEADER = re.compile(r"(?:[ \t]+[&!|>][^ \t\n]*)*([ \t]+#[^\n]*)?[ \t]*\n")
INDENT = re.compile(r"[ \t]*")


class Places:
    """The places of the parts of a document in its text, and its edits. Nodes are named by the number of their part."""

    def __init__(self, text: str, parts: Parts) -> None:
        self.text = text  #: with LF, also at its end
        # The columns of `Parts`; and for each node, the number of the part after it and its contents.
        self.kinds, self.starts, self.ends = parts.kinds, parts.starts, parts.ends
        self.styles, self.names, self.tagged = parts.styles, parts.names, parts.tagged
        self.after = _after(parts.kinds)
        self.edits: list[Edit] = []
        lines = text[: skip(_ABOVE_ALL, text, 0)]
        self.top = max((found.end() for found in _MODELINE.finditer(lines)), default=0)  #: the end of the last modeline

    def line_of(self, offset: int) -> int:
        return self.text.rfind("\n", 0, offset) + 1

    def line_after(self, offset: int) -> int:
        return self.text.find("\n", offset) + 1 or len(self.text)

    def is_block(self, i: int) -> bool:
        """Whether node *i* is a collection in block style."""
        return self.styles[i] == "" and (self.kinds[i] == "mapping" or self.kinds[i] == "sequence")

    def last(self, i: int) -> int:
        """The last part with text of node *i*: a scalar, an alias, or the end of a flow collection."""
        starts, ends = self.starts, self.ends
        j = self.after[i] - 1
        while self.kinds[j] == "end" and starts[j] == ends[j]:
            j -= 1
        if starts[j] == ends[j] and self.text[starts[j] - 1 : starts[j]] not in (":", "-", "?"):
            return j - 1  # a key without a colon: its value has the place of the next token
        return j

    def end(self, i: int) -> int:
        """Where the text of node *i* ends, without the rest of its line."""
        last = self.last(i)
        if self.styles[last] in ("|", ">") and not self.keeps(last):
            return self.starts[last] + len(self.source(last).rstrip())
        return self.ends[last]

    def source(self, i: int) -> str:
        """The text of part *i*, with its properties."""
        return self.text[self.starts[i] : self.ends[i]]

    def keeps(self, i: int) -> bool:
        """Whether the blank lines after a block of text are a part of it."""
        return "+" in self.source(i).partition("\n")[0].partition("#")[0]

    def any_keeps(self, i: int) -> bool:
        return any(self.styles[j] in ("|", ">") and self.keeps(j) for j in range(i, self.after[i]))

    def content_end(self, i: int) -> int:
        """The end of the last line of node *i*."""
        end = self.end(i)
        return end if self.text[end - 1 : end] == "\n" else self.line_after(end)

    def would_swallow(self, value: Any, offset: int, indent: int) -> bool:
        """Whether *value*, if it ends with a block of text, would take the text at *offset* for a part of it."""
        while value and isinstance(value, dict | list):
            value = value[-1] if isinstance(value, list) else next(reversed(value.values()))
        return isinstance(value, str) and "\n" in value and self.would_go_on(value, offset, indent)

    def would_go_on(self, value: str, offset: int, indent: int) -> bool:
        """The same for *value* itself."""
        # A blank line may come to follow it, too, if the text in between is deleted.
        if self.has_blank_line(0, indent, keeps=value.endswith("\n\n")):
            return True
        return self.is_swallowed(offset, indent, keeps=False)

    def has_blank_line(self, start: int, indent: int, keeps: bool) -> bool:
        """Whether a line of blanks follows *start* that a block of text above would take for its own.

        Any line counts if the block *keeps* those at its end, else one that is further in. *indent* is the column of
        its entry.
        """
        return any(keeps or len(found[1]) > indent + 1 for found in BLANK_LINE.finditer(self.text, max(start - 1, 0)))

    def is_swallowed(self, offset: int, indent: int, keeps: bool) -> bool:
        """Whether a block of text that ends at *offset* would continue with the text there; with blank lines too, if it
        *keeps* them, or if they are further in than the text. Its entry is after *indent* columns.
        """
        while found := NO_CONTENT.match(self.text, offset):
            if "#" in found[0]:
                return found[0].index("#") > indent
            if keeps or len(found[0]) > indent + 2:
                return True
            offset = found.end()
        return False

    def comment(self, i: int, at: int) -> str:
        """The comment after the colon or dash that ends at *at*, or else after node *i*, which follows that."""
        header = _HEADER.match(self.text, at)
        if header is not None:
            return header[1] or ""
        if self.is_block(i):
            return ""  # it belongs to the first entry, which is in this line
        comment = COMMENT.match(self.text, self.end(i))
        return comment[0] if comment else ""

    def column(self, offset: int) -> int:
        return offset - self.line_of(offset)

    def indent(self, offset: int) -> str:
        """The blanks that the line of *offset* begins with."""
        line = self.line_of(offset)
        return self.text[line : skip(INDENT, self.text, line)]


def _after(kinds: list[str]) -> list[int]:
    """For each part, the number of the one after it and its contents."""
    after = list(range(1, len(kinds) + 1))
    around: list[int] = []
    # Most parts are scalars, and a comprehension skips one in a third of the time of a loop.
    for i in [i for i, kind in enumerate(kinds) if kind != "scalar"]:
        kind = kinds[i]
        if kind == "end":
            after[around.pop()] = i + 1
        elif kind == "mapping" or kind == "sequence":
            around.append(i)
    return after
