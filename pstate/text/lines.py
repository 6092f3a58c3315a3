"""A mapping or a list in block style, as lines: entries come in, move and go with the comments that belong to them."""

from __future__ import annotations

import re
from typing import Any

from pstate.text.matching import Source
from pstate.text.places import COMMENT_LINE, NO_CONTENT, PROPERTIES, SPACE, Edit, Places, Uncertain, applied, skip
from pstate.text.style import PLAIN_FLOW, Block

_BLANK_LINES = re.compile(r"(?:[ \t]*\n)*")


class Lines:
    """A mapping or a list in block style, as lines. The entries are numbered."""

    def __init__(self, places: Places, i: int, entries: list[tuple[int, int]]) -> None:
        self.places = places
        self.text = places.text
        self.entries = entries
        self.is_list = places.kinds[i] == "sequence"
        start = places.starts[i]
        self.first = skip(PROPERTIES, self.text, start) if self.is_list else places.starts[i + 1]
        line = places.line_of(self.first)
        self.column = self.first - line  #: of each entry
        before = self.text[line : self.first].replace("-", " ")
        self.is_odd = before != " " * self.column or (self.is_list and self.text[self.first] != "-")
        self.is_compact = "-" in self.text[line : self.first]  #: whether the first entry follows a dash of another list

    def at(self, number: int) -> int:
        """The position after the colon or dash of an entry."""
        if self.is_list:
            return self.start(number) + 1
        colon = self.places.ends[self.entries[number][0]]
        if self.text[colon : colon + 1] == ":":
            return colon + 1
        colon = skip(SPACE, self.text, colon)
        if self.text[colon : colon + 1] != ":":
            raise Uncertain
        return colon + 1

    def start(self, number: int) -> int:
        """Where an entry begins in its line."""
        if not number:
            return self.first
        if not self.is_list:
            return self.places.starts[self.entries[number][0]]
        dash = skip(SPACE, self.text, self.places.end(self.entries[number - 1][1]))
        if self.text[dash : dash + 1] != "-":
            raise Uncertain
        return dash

    def begin(self, number: int) -> int:
        """Where the lines of an entry begin, with the comments directly above it."""
        if self.is_odd:
            raise Uncertain  # a key after a question mark, say
        start = self.start(number)
        if not number and self.is_compact:
            return start
        line = self.places.line_of(start)
        if self.text[line:start] != " " * self.column:
            raise Uncertain
        floor = self.end(number - 1) if number else self.places.top
        while line > floor:
            above = self.places.line_of(line - 1)
            if COMMENT_LINE.match(self.text, above) is None:
                break
            line = above
        return line

    def end(self, number: int) -> int:
        """Where the lines of an entry end. Comments below a block in it belong to it, if they are indented more."""
        value = self.entries[number][1]
        end = line = self.places.content_end(value)
        if self.places.is_block(value):
            while found := NO_CONTENT.match(self.text, line):
                if "#" in found[0]:
                    if found[0].index("#") <= self.column:
                        break
                    end = found.end()
                line = found.end()
        return end

    def above(self, number: int) -> str:
        """The comments directly above an entry."""
        return self.text[self.begin(number) : self.places.line_of(self.start(number))]

    def moved(self, number: int, edits: list[Edit]) -> str:
        """The lines of an entry, with its comments and *edits*, for another place in the block."""
        text = applied(self.text, self.begin(number), self.end(number), edits)
        return " " * self.column + text if self.is_compact and not number else text

    def place(self, before: int | None) -> int:
        """Where a new entry after the entry *before* goes: before comments that follow on their own."""
        return self.begin(0) if before is None else self.end(before)

    def new(self, key: Any, value: Any, place: int, style: Block) -> str:
        """The lines of a new entry for *place*."""
        indent = " " * self.column
        if self.places.would_swallow(value, place, self.column):
            text = "- " + PLAIN_FLOW.text(value) if self.is_list else PLAIN_FLOW.pair(key, value)
            return f"{indent}{text}\n"
        return style.item(value, indent) if self.is_list else style.pair(key, value, indent)

    def write_out(self, number: int, pairs: dict[Any, Any], style: Block) -> Edit:
        """Replace the merge key that has brought the *pairs* by them. The comments above it and after it stay."""
        stop = self.end(number)
        indent = " " * self.column
        text = style.pairs(list(pairs.items())[:-1], indent) + self.new(*list(pairs.items())[-1], stop, style)
        comment = self.places.comment(self.entries[number][1], self.at(number)).lstrip()
        lead = f"{comment}\n{indent}" if comment else ""
        return self.start(number), stop, lead + text[self.column :]

    def insert(self, source: Source, written: dict[int, str]) -> None:
        """Write the new entries, each after the one that it follows."""
        before: int | None = None
        for number, origin in enumerate(source):
            if number not in written:
                before = origin
                continue
            place, text = self.place(before), written[number]
            if before is None and self.is_compact:
                text = text[self.column :] + " " * self.column
            self.edit(place, place, text)

    def is_open(self, number: int, offset: int) -> bool:
        """Whether a block of text at the end of an entry would continue with the text at *offset*."""
        places, value = self.places, self.entries[number][1]
        is_block = places.styles[places.last(value)] in ("|", ">")
        if is_block and places.is_swallowed(offset, self.column, keeps=False):
            return True
        # The end of the entry may be deleted, so any block of text in it counts.
        return places.is_swallowed(offset, self.column, keeps=True) and places.any_keeps(value)

    def delete(self, gone: set[int]) -> set[int]:
        """Delete entries, each with the comments that belong to it.

        Returns entries that stay, and end in a block of text that would continue with the text after the deleted ones.
        """
        opened: set[int] = set()
        number = 0
        if self.is_compact and 0 in gone:
            stop = self.end(0)
            number = 1
            while number in gone and self.begin(number) == stop:
                stop = self.end(number)
                number += 1
            # The next entry moves up to the dash.
            line = self.text[stop : self.places.line_after(stop)]
            self.edit(self.first, stop + len(line) - len(line.lstrip(" ")), "")
        before = -1  # the last entry that stays
        for entry in range(len(self.entries)):
            if entry not in gone:
                before = entry
                continue
            end = self.end(entry)
            if before >= 0 and self.is_open(before, end):
                # Without the blank lines below, it ends where it did before.
                end = skip(_BLANK_LINES, self.text, end)
                if self.is_open(before, end):
                    opened.add(before)
            if entry >= number:
                self.edit(self.begin(entry), end, "")
        return opened

    def edit(self, start: int, end: int, new: str) -> None:
        self.places.edits.append((start, end, new))
