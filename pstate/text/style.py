"""Writes new text in a person's style: in blocks, in flow collections, and as a scalar over several lines.

`splice` finds out the style, and puts these pieces into the document. `dumping` decides how a scalar is written. With
the default styles, the result is that of `dumping.dump`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from pstate.errors import InvalidStateError
from pstate.text import dumping, reading, scalars
from pstate.values import SCALARS, ordered

#: A flow collection whose line becomes longer than this by one more element is written as a block.
LONGEST_FLOW = 100
#: The width of a folded text, if the person's does not show one.
_WIDTH = 80
#: A shorter longest line does not show a width.
_NARROWEST = 40
#: Characters that loaders do not read back from a block of text.
_NOT_RAW = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\ufeff\ufffe\uffff\ud800-\udfff]")
#: Where a folded text may continue in the next line.
_FOLD = re.compile(r"(?<=[^ \t]) (?=[^ \t])")


class Flow:
    """The style of a flow collection, and of its contents."""

    __slots__ = ("key_quote", "quote", "spread", "step", "tight")

    def __init__(
        self,
        key_quote: str = "",
        quote: str = "",
        tight: bool = False,
        spread: frozenset[type] = frozenset(),
        step: str = "  ",
    ) -> None:
        self.key_quote = key_quote  #: of keys that are strings
        self.quote = quote  #: of other strings
        self.tight = tight  #: without a blank after colons and commas
        self.spread = spread  #: the kinds of collections that have a line for each entry
        self.step = step  #: the indentation of such lines

    @property
    def is_json(self) -> bool:
        return self.key_quote == self.quote == '"'

    def text(self, value: Any, indent: str = "") -> str:
        """*value* between other values, in a line that begins with *indent*."""
        kind = value.__class__
        if value and (kind is dict or kind is list):
            inner = indent + self.step if kind in self.spread else indent
            if kind is dict:
                pieces = [self.pair(key, item, inner) for key, item in value.items()]
            else:
                pieces = [self.text(item, inner) for item in value]
            first, last = "{}" if kind is dict else "[]"
            if kind in self.spread:
                return f"{first}\n{inner}" + f",\n{inner}".join(pieces) + f"\n{indent}{last}"
            return first + ("," if self.tight else ", ").join(pieces) + last
        return self._scalar(value, self.quote)

    @staticmethod
    def _scalar(value: Any, quote: str) -> str:
        if value.__class__ is str and quote:
            return dumping.quoted_text(value, quote) or scalars.scalar(value)
        return dumping.flow_scalar(value)

    def pair(self, key: Any, value: Any, indent: str = "") -> str:
        """The same for *key* and *value* in a mapping."""
        text = self._scalar(key, self.key_quote)
        if not scalars.is_simple_key(text):
            text = f"? {text} "
        return text + (":" if self.tight and text[-1] == '"' else ": ") + self.text(value, indent)


PLAIN_FLOW = Flow()


class Block:
    """The style of block collections."""

    __slots__ = ("gap", "item_quote", "items", "key_quote", "list_step", "step")

    def __init__(
        self,
        step: str = "  ",
        list_step: str | None = None,
        gap: int = 1,
        key_quote: str = "",
        item_quote: str = "",
        items: Flow | None = None,
    ) -> None:
        self.step = step  #: the indentation of a mapping, relative to its key
        self.list_step = step if list_step is None else list_step  #: that of a list
        self.gap = gap  #: blanks after a dash; 0 if a mapping begins in the next line
        self.key_quote = key_quote  #: of keys that are strings
        self.item_quote = item_quote  #: of strings in the list that gets new elements, not in the collections in it
        self.items = items  #: the style of collections in that list, if that is flow style

    def pair(self, key: Any, value: Any, indent: str) -> str:
        """The lines of *key* and *value* in a mapping after *indent*."""
        text = dumping.shown_key(key)
        if key.__class__ is str and self.key_quote and text[0] not in "\"'":
            text = dumping.quoted_text(key, self.key_quote) or text
        if not scalars.is_simple_key(text):
            text = f"? {text}\n{indent}"
        return f"{indent}{text}:{self.value(value, indent)}"

    def pairs(self, pairs: Iterable[tuple[Any, Any]], indent: str) -> str:
        return "".join([self.pair(key, value, indent) for key, value in pairs])

    def value(self, value: Any, indent: str) -> str:
        """The text after the colon of a key after *indent*, with its newline."""
        if value and value.__class__ is dict:
            return "\n" + self.pairs(value.items(), indent + self.step)
        if value and value.__class__ is list:
            return "\n" + self._items(value, indent + self.list_step)
        return self._inline(value, indent + self.step)

    def item(self, value: Any, indent: str) -> str:
        """The lines of an element of a list whose dashes are after *indent*."""
        return f"{indent}-{self.behind_dash(value, indent)}"

    def behind_dash(self, value: Any, indent: str) -> str:
        """The text after such a dash, with its newline."""
        inner = indent + " " * (1 + max(self.gap, 1))
        inside = Block(self.step, self.list_step, self.gap, self.key_quote) if self.item_quote or self.items else self
        if value and isinstance(value, dict | list):
            if self.items is not None:
                text = self.items.text(value)
                if len(inner) + len(text) <= LONGEST_FLOW:
                    return f"{inner[len(indent) + 1 :]}{text}\n"
            if isinstance(value, list):
                return inside._items(value, inner)[len(indent) + 1 :]
            if not self.gap:
                return "\n" + inside.pairs(value.items(), indent + self.step)
            return inside.pairs(value.items(), inner)[len(indent) + 1 :]
        if value.__class__ is str and self.item_quote and "\n" not in value:
            text = dumping.quoted_text(value, self.item_quote) or scalars.scalar(value)
            return f"{inner[len(indent) + 1 :]}{text}\n"
        return inner[len(indent) + 2 :] + self._inline(value, inner)

    def _items(self, value: list[Any], indent: str) -> str:
        return "".join([self.item(item, indent) for item in value])

    @staticmethod
    def _inline(value: Any, inner: str) -> str:
        """The same for a value without lines of its own, except for a block of text, or a set, after *inner*."""
        if value.__class__ in SCALARS or not value:
            return f" {dumping.block_scalar(value, inner)}\n"
        members = [f"{inner}? {dumping.shown_key(member)}\n" for member in ordered(value)]
        return " !!set\n" + "".join(members)


# ------------------------------------------------------------------------------------------------ scalars over lines


def over_lines(text: str, style: str, indent: str, inner: str, header: str, lines: list[str]) -> str | None:
    """*text* as a literal, or folded if *style* is ">", with its lines after *inner*: the header, its newline, and the
    lines. None if that is not possible, or would not be read back.

    It is the value of a key or an element after *indent*, and replaces the *lines* below *header*. Lines that are the
    same stay, with blanks in empty ones.
    """
    body = text.rstrip("\n")
    ends = len(text) - len(body)
    digit = len(inner) - len(indent)
    if not body or _NOT_RAW.search(text) is not None:
        return None
    # Loaders take the indentation from the first line, and may refuse a tab in it.
    is_told = body.lstrip("\n")[0] in " \t" or any(mark.isdigit() for mark in header)
    if is_told and digit > 9:
        return None
    head = (str(digit) if is_told else "") + ("-", "", "+")[min(ends, 2)]
    before = [line[len(inner) :] for line in lines]
    ways: list[tuple[str, list[str]]] = [("|", body.split("\n"))]
    if style == ">":
        width = _width(before, len(inner))
        ways[:0] = [(">", list(_folded(body, before, width))), (">", list(_folded(body, [], width)))]
    for mark, written in ways:
        written += [""] * (ends - 1)
        # Read it as the value of a key at the beginning of its line.
        if _says(_rendered(mark + head, written, " " * digit), text):
            first = common(before, written)
            last = common(before[first:][::-1], written[first:][::-1])
            kept = [f"{line}\n" for line in lines]
            new = _rendered(mark + head, written[first : len(written) - last], inner)
            return new.replace("\n", "\n" + "".join(kept[:first]), 1) + "".join(kept[len(kept) - last :])
    return None


def common(a: Sequence[object], b: Sequence[object]) -> int:
    """How many elements at the beginning are equal."""
    return next((number for number, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))


def _rendered(header: str, lines: list[str], inner: str) -> str:
    return f"{header}\n" + "".join([inner + line + "\n" if line else "\n" for line in lines])


def _says(written: str, text: str) -> bool:
    try:
        return reading.load(f"_: {written}".encode(), "").value == {"_": text}
    except InvalidStateError:
        return False


def _paragraphs(lines: list[str]) -> Iterator[list[str]]:
    """The *lines* of a folded text, grouped by the line of its value."""
    found: list[str] = []
    for line in lines:
        if found and (not line or line[0] in " \t"):
            yield found
            found = []
        if line[:1] in (" ", "\t"):
            yield [line]
        elif line:
            found.append(line)
    if found:
        yield found


def _width(lines: list[str], column: int) -> int:
    """The width of the person's lines: that of the longest one, if it is one of several and long enough."""
    longest = max(
        [len(line) for paragraph in _paragraphs(lines) if len(paragraph) > 1 for line in paragraph], default=0
    )
    return longest if longest >= _NARROWEST else max(_WIDTH - column, _NARROWEST)


def _folded(body: str, lines: list[str], width: int) -> Iterator[str]:
    """The lines of *body*, folded; the old *lines* that are the same stay."""
    before = [list(paragraph) for paragraph in _paragraphs(lines)]
    known = {" ".join(paragraph): paragraph for paragraph in before}
    paragraphs = body.split("\n")
    filled = [paragraph for paragraph in paragraphs if paragraph]
    like = dict(zip(filled, before, strict=False)) if len(filled) == len(before) else {}
    is_after_text = False
    for paragraph in paragraphs:
        if not paragraph:
            yield ""
            continue
        is_text = paragraph[0] not in " \t"
        if is_text and is_after_text:
            yield ""  # a single line break between two lines of text would be read as a blank
        is_after_text = is_text
        if not is_text:
            yield paragraph
        elif paragraph in known:
            yield from known[paragraph]
        else:
            yield from _wrapped(paragraph, like.get(paragraph, []), width)


def _wrapped(paragraph: str, lines: list[str], width: int) -> list[str]:
    """The lines of one *paragraph*, which was *lines*. Lines at its beginning and end stay if they are the same."""
    head, tail, first, last = list[str](), list[str](), 0, len(lines)
    while first < last and paragraph.startswith(lines[first] + " "):
        head.append(lines[first])
        paragraph = paragraph[len(lines[first]) + 1 :]
        first += 1
    while first < last and paragraph.endswith(" " + lines[last - 1]):
        last -= 1
        tail.insert(0, lines[last])
        paragraph = paragraph[: -len(lines[last]) - 1]
    middle = [""]
    for word in _FOLD.split(paragraph):
        longer = f"{middle[-1]} {word}" if middle[-1] else word
        if len(longer) <= width or not middle[-1]:
            middle[-1] = longer
        else:
            middle.append(word)
    return head + middle + tail
