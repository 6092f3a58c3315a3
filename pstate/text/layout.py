"""The text between the entries of a flow collection: blanks, commas, line breaks and comments."""

from __future__ import annotations

import re

from pstate.text.matching import Source
from pstate.text.places import COMMENT_LINE, Uncertain

_COMMENT_IN_FLOW = re.compile(r"#[^\n]*")
#: Between two entries that have a line each: a comma, a comment after it, and further lines.
_GAP = re.compile(r"(?:[ \t]*,)?([ \t]*#[^\n]*)?[ \t]*(?:\n((?:[ \t]*(?:#[^\n]*)?\n)*[ \t]*))?")


class Layout:
    """The text between the entries of a flow collection: blanks, commas, line breaks and comments."""

    def __init__(self, gaps: list[str], tight: bool, around: str) -> None:
        lead, *between = gaps[:-1]
        commas = [_COMMENT_IN_FLOW.sub("", gap).strip() for gap in between]
        if (lead.strip() and "#" not in lead) or any(comma != "," for comma in commas):
            raise Uncertain  # a question mark, say
        self.gaps = gaps
        self.around = around  #: the indentation of the line in which the collection begins
        self.has_comments = any("#" in gap for gap in gaps)
        lines = [gap for gap in between if "\n" in gap]
        line = lead if "\n" in lead else lines[-1] if lines else around
        self.indent = line.rpartition("\n")[2].replace(", ", "")  #: of the lines of new entries
        if self.has_comments or (not between and "\n" in lead):
            self.between = f",\n{self.indent}"
        elif lines and len(lines) == len(between):
            self.between = min(lines, key=len)  # new entries get no blank lines
        else:
            self.between = next((gap for gap in between if "\n" not in gap), "," if tight else ", ")

    def text(self, source: Source, bodies: list[str]) -> str:
        """The text between the brackets: the old entries with the numbers in *source*, or new ones."""
        return self.commented(source, bodies) if self.has_comments else self.plain(source, bodies)

    def plain(self, source: Source, bodies: list[str]) -> str:
        pieces = [self.gaps[0]]
        for origin, body in zip(source, bodies, strict=True):
            if len(pieces) > 1:
                pieces.append(self.gaps[origin] if origin else self.between)
            pieces.append(body)
        return "".join([*pieces, self.gaps[-1]])

    def commented(self, source: Source, bodies: list[str]) -> str:
        """The same, if each entry except the first has a line of its own, and comments as in a block."""
        kept = {origin for origin in source if origin is not None}
        count = len(self.gaps) - 1
        behind: list[str] = []  # the comment after each gap's comma or bracket
        above: list[str] = []  # the text between there and the line of the entry
        for number, gap in enumerate(self.gaps):
            found = _GAP.fullmatch(gap)
            if found is None or (0 < number < count and found[2] is None):
                raise Uncertain
            behind.append(found[1] or "")
            above.append(found[2] or "")
        is_inline = "\n" not in self.gaps[0]
        free: list[str] = []
        own: list[str] = []
        for lines in above[:-1]:
            stays, belongs = _parted(lines)
            free.append(stays)
            own.append(belongs)
        closing = above[-1]
        for number in range(count - 1, -1, -1):  # comments on their own stay when the entry below them goes
            if number not in kept:
                if number + 1 < count:
                    free[number + 1] = free[number] + free[number + 1]
                else:
                    closing = free[number] + closing
        has_comma = "," in _COMMENT_IN_FLOW.sub("", self.gaps[-1])
        pieces = [behind[0]]
        for number, (origin, body) in enumerate(zip(source, bodies, strict=True)):
            if number == 0 and origin == 0 and is_inline:
                pieces[0] = self.gaps[0]
            elif origin is None or (origin == 0 and is_inline):
                pieces.append("\n" + self.indent)
            else:
                pieces.append("\n" + free[origin] + own[origin])
            pieces.append(body + ("," if has_comma or number < len(bodies) - 1 else ""))
            pieces.append("" if origin is None else behind[origin + 1])
        if above[-1] or "#" in pieces[-1] or "\n" in self.gaps[-1]:
            pieces.append("\n" + (closing or self.around))
        else:
            pieces.append(self.gaps[-1].lstrip(","))
        return "".join(pieces)


def _parted(lines: str) -> tuple[str, str]:
    """The *lines* above an entry, with its indentation, in two parts: those on their own, and those of the entry."""
    *whole, indent = lines.split("\n")
    first = len(whole)
    while first and COMMENT_LINE.match(whole[first - 1]):
        first -= 1
    return "".join([line + "\n" for line in whole[:first]]), "\n".join([*whole[first:], indent])
