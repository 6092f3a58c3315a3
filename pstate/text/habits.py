"""Finds a person's style in a document: quotes, indentation, dashes, and the style of collections."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from pstate.text import dumping
from pstate.text.matching import FEW, Rearranged
from pstate.text.places import PROPERTIES, Places, skip
from pstate.text.style import Block, Flow

#: A deeper indentation than this is not taken for a style.
_DEEPEST = 8
#: How many parts are looked at to find a style.
_MANY = 1000
_COLON = re.compile(r"[ \t\n]*:")
#: A dash, and the blanks after it in its line.
_DASH = re.compile(r"-( +)(?=[^ \n#])")
#: A value without quotes that JSON does not read as a string.
_JSON_WORD = re.compile(r"true|false|null|-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][-+]?[0-9]+)?")


class Habits(Places):
    """A person's style in a document: for new entries, and for values that replace others."""

    def block_style(self, i: int, change: Rearranged | None = None) -> Block:
        """The style of new entries in the block collection *i*, which will *change*, or of its replacement."""
        step = self.step(i)
        list_step, gap = self.list_style(i) or (step, 1)
        if change is None:
            return Block(step, list_step, gap)
        nodes = [entry for number, entry in enumerate(change.entries) if number not in change.merges]
        if self.kinds[i] == "mapping":
            quote = self.common_quote([key for key, _ in nodes], change.keys_before)
            return Block(step, list_step, gap, key_quote=quote)
        values = [value for _, value in nodes]
        filled = [value for value in values if self.kinds[value] != "scalar" and self.after[value] > value + 2]
        items = None
        if filled and all(self.styles[value] == "flow" for value in filled):
            items = self.flow_style(filled[0])
            items = None if items.spread else items
        quote = self.common_quote(values, change.old)
        return Block(step, list_step, self.gap(i), item_quote=quote, items=items)

    def common_quote(self, nodes: list[int], values: list[Any]) -> str:
        """The quote that a person chose for all strings among the *values*, which are these *nodes*; or ""."""
        found = {(self.styles[i], value) for i, value in zip(nodes, values, strict=True) if value.__class__ is str}
        quotes = {quote for quote, _ in found}
        quote = quotes.pop() if len(quotes) == 1 else ""
        return quote if quote in ("'", '"') and any(is_chosen(quote, value) for _, value in found) else ""

    def step(self, i: int) -> str:
        """The indentation, relative to its key, of a mapping in collection *i*, or in its place."""
        for j, step in self.near(i, "mapping"):
            if step > 0 and self.kinds[j + 1] != "end":
                return " " * step
        return "  "

    def list_style(self, i: int) -> tuple[str, int] | None:
        """The same for a list, for which it may be empty, and the number of blanks after its dashes."""
        for j, step in self.near(i, "sequence"):
            if step >= 0:
                return " " * step, self.gap(j)
        return None

    def near(self, i: int, kind: str) -> Iterator[tuple[int, int]]:
        """The block collections of this *kind* that are the value of a key, with their indentation relative to it.

        Those in collection *i* first, itself, the nearest ones before it, then those after it. Only some of many.
        """
        kinds, after = self.kinds, self.after[i]
        first = max(i - _MANY, 0)
        inside, itself = range(i + 1, min(after, i + _MANY)), range(i, i + 1)
        for numbers in (inside, itself, range(max(i - 1, 0), first, -1), range(after, after + _MANY)):
            found = zip(numbers, kinds[numbers.start : numbers.stop : numbers.step], strict=False)
            few = [j for j, other in found if other == kind][:FEW]
            for j in few:
                if j and self.is_block(j) and kinds[j - 1] == "scalar" and _COLON.match(self.text, self.ends[j - 1]):
                    column = self.column(skip(PROPERTIES, self.text, self.starts[j]))
                    step = column - self.column(self.starts[j - 1])
                    if step <= _DEEPEST:
                        yield j, step

    def gap(self, i: int) -> int:
        """How many blanks follow the dashes of list *i*; 0 if a mapping begins in the next line."""
        dash = skip(PROPERTIES, self.text, self.starts[i])
        found = _DASH.match(self.text, dash)
        if found is None:
            return 0 if self.kinds[i + 1] == "mapping" and self.is_block(i + 1) else 1
        return len(found[1])

    def flow_style(self, i: int) -> Flow:
        """The style of the flow collection *i*, and of its contents."""
        quotes: tuple[set[str], set[str]] = (set(), set())  # of keys, and of other strings
        tight = False
        for j in range(i, min(self.after[i], i + _MANY)):
            if self.kinds[j] in ("scalar", "alias") and self.starts[j] < self.ends[j]:
                colon = _COLON.match(self.text, self.ends[j])
                if colon or self.styles[j] or _JSON_WORD.fullmatch(self.source(j)) is None:
                    quotes[0 if colon else 1].add(self.styles[j])
                if colon is not None:
                    tight = self.text[colon.end()] not in " \n"
        key_quote, quote = ("".join(found) if len(found) == 1 else "" for found in quotes)
        if not quotes[0]:
            key_quote = quote
        elif not quotes[1]:
            quote = key_quote
        spread = set()
        for kind, name in ((dict, "mapping"), (list, "sequence")):
            j = next((j for j in range(i + 1, min(self.after[i], i + _MANY)) if self.is_filled(j, name)), i)
            if self.is_spread(j):
                spread.add(kind)
        step = self.indent(self.starts[i + 1]).removeprefix(self.indent(self.starts[i])) if self.is_spread(i) else ""
        return Flow(key_quote, quote, tight, frozenset(spread), step or "  ")

    def is_filled(self, i: int, kind: str) -> bool:
        return self.kinds[i] == kind and self.kinds[i + 1] != "end" and self.starts[i] < self.ends[i]

    def is_spread(self, i: int) -> bool:
        """Whether the first entry of flow collection *i* begins in a line of its own."""
        return self.kinds[i + 1] != "end" and "\n" in self.text[self.ends[i] : self.starts[i + 1]]


def is_chosen(quote: str, text: Any) -> bool:
    """Whether a person chose the *quote* for *text*: a single one, or one that the string does not need."""
    return quote == "'" or dumping.block_scalar(text, "") == text
