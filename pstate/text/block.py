"""The quick reader of base documents: it reads the block style that pstate and people write, or returns no result.

It reads line by line, and many equal rows at a time, without PyYAML, which need not even be imported. It is exact: its
result is the one that `events` makes of the events of PyYAML's parsers. If that needs more than this module knows for
certain (most tags, keys of several lines, two documents, any mistake), it returns `UNSURE`, and `events`, which knows
everything, reads the document from its beginning. So there are no errors here, and no marks. Extend this module only by
cases that are certain.

It decides what a plain scalar means if PyYAML's tables leave no doubt; the others go to *resolve*.
"""

from __future__ import annotations

import functools
import re
import sys
from binascii import a2b_base64
from collections.abc import Callable
from datetime import date, datetime
from enum import Enum
from itertools import repeat
from operator import eq
from typing import Any, Final

from pstate.text.parts import END, EXPANSION_FACTOR, EXPANSION_FREE, WIDTH
from pstate.values import MAX_DEPTH


class Unsure(Enum):
    """No result."""

    UNSURE = "read it the other way"


UNSURE: Final = Unsure.UNSURE


class _GiveUp(Exception):
    pass


# ------------------------------------------------------------------------------------------------------------- patterns

# Printable ASCII, newline and tab. A tab only in comments and quotes; elsewhere it is mostly a mistake.
_SURE_BYTES = bytes([9, 10, *range(32, 127)])
# Other characters that need another reader: controls, line breaks of YAML 1.1, and those that YAML calls not printable.
_NOT_SURE = "[\x00-\x9f\u2028\u2029\ufeff\ufffe\uffff]"

# Possessive repeats match wrongly before 3.11.5 (https://github.com/python/cpython/issues/106052, and 100061). Those
# with groups may fail up to 3.13 at least (101955); none here has groups. PyPy has other bugs in them
# (https://github.com/pypy/pypy/issues/5504).
_IS_EXACT = sys.implementation.name == "cpython" and sys.version_info >= (3, 11, 5)

# A blank in these patterns is a blank, never \s, and a digit is [0-9], because Python's classes have more characters
# than YAML's. All text ends with a newline. Repeats are possessive, so that nothing is read in two ways, and reading
# never takes long.
#
# A plain scalar ends before ": ", " #" and the end of its line, and does not begin like another token.
_FIRST = r"""[^ \t\n\-?:,\[\]{}#&*!|>'"%@`]|-(?=[0-9A-Za-z_.\-])"""
_PLAIN = rf"(?:{_FIRST})(?:[^ \t\n:]++|:(?![ \t\n])| ++(?![\t\n#]|:[ \t\n]))*+"
_DOUBLE = r'"(?:[^"\\\n]++|\\[^\n])*+"'
_SINGLE = r"'(?:[^'\n]++|'')*+'"
_SCALAR = rf"{_PLAIN}|{_DOUBLE}|{_SINGLE}"
# A further line of a plain scalar, whose first character may be any.
_MORE = r"(?!#)(?:[^ \t\n:]++|:(?![ \t\n])| ++(?![\t\n#]|:[ \t\n]))++"
# The same quotes over several lines.
_LONG_DOUBLE = r'"(?:[^"\\]++|\\[^\x00])*+"'
_LONG_SINGLE = r"'(?:[^']++|'')*+'"
_QUOTES = "\"'"

# Most keys, and most values, are of these kinds, which match faster.
_NAME = r"[A-Za-z_][0-9A-Za-z_\-]*+"
_KEY = rf"{_NAME}(?=:)|{_SCALAR}"
_VALUE = rf"[0-9A-Za-z_/][^\t\n:#]*+(?<! )(?=\n)|{_SCALAR}"

# "." matches a long comment faster than "[^\n]" does.
_BLANKS = r"(?: *+(?:#.*+)?+\n)*+"
_TAIL = r" *+(?:(?<![^ \n])#[^\n]*+)?+"

# The indentation, the dashes, the key, the value, or the first line of a value that is not a scalar. If all of them are
# None, the line is unknown.
_finditer = re.compile(
    rf"{_BLANKS}( *+)((?:-(?: ++|(?=\n)))*+)"
    rf"(?:({_KEY})(?:: (?! )|:(?=\n)| {{0,9}}+:(?: ++|(?=\n))))?"
    rf"(?:(?=\n)|({_VALUE})|([\[{{>|!&*\"'].*+))?(?:\n|{_TAIL}\n)"
    r"|.*\n"
).finditer
_are_blanks = re.compile(_BLANKS).fullmatch
_match_indent: Any = re.compile(r"(?: *+\n)*+( *+)").match
_match_start = re.compile(rf"{_BLANKS}---{_TAIL}\n").match
_match_member = re.compile(rf"{_BLANKS}( *+)\? ++({_SCALAR}){_TAIL}\n").match

# The lines of a block of text, with the margin of the first one. Empty lines before that have no blanks, because the
# number of blanks would count. If the head gives the margin, they may have blanks.
_match_lines = re.compile(r"\n*+( +)[^ \t\n][^\n]*+\n(?:\1[^\n]*+\n| *+\n)*+").match

_is_integer = re.compile(r"[-+]?(?:0|[1-9][0-9]{0,599})").fullmatch
_is_float = re.compile(r"[-+]?[0-9]+\.[0-9]+(?:[eE][-+][0-9]+)?").fullmatch
_is_date = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}").fullmatch
_is_datetime = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}[ T](?:[01][0-9]|2[0-3])(?::[0-9]{2}){2}(?:\.[0-9]{6})?"
    r"(?:[-+](?:[01][0-9]|2[0-3]):[0-5][0-9])?"
).fullmatch
# In PyYAML's tables, nothing else that begins like a number is one, or a timestamp. The words are below.
_may_be_number = re.compile(
    r"[-+]?(?:0[bx].*|\.?[0-9][0-9_]*(?::[0-9]+)*(?:\.[0-9_]*)?(?:[eE][-+][0-9]+)?)|[0-9]{4}-[0-9]{1,2}-[0-9].*"
).fullmatch

_INFINITY = 1e300 * 1e300
_NAN = -_INFINITY / _INFINITY  # the one of PyYAML

_WORDS: dict[str, Any] = {
    **dict.fromkeys(("~", "null", "Null", "NULL")),
    **dict.fromkeys((form for word in ("yes", "true", "on") for form in (word, word.title(), word.upper())), True),
    **dict.fromkeys((form for word in ("no", "false", "off") for form in (word, word.title(), word.upper())), False),
    **dict.fromkeys((sign + form for sign in ("", "+") for form in (".inf", ".Inf", ".INF")), _INFINITY),
    **dict.fromkeys(("-.inf", "-.Inf", "-.INF"), -_INFINITY),
    **dict.fromkeys((".nan", ".NaN", ".NAN"), _NAN),
}

_ESCAPES = {
    **{'"': '"', "\\": "\\", "/": "/", " ": " ", "0": "\0", "a": "\a", "b": "\b", "e": "\x1b", "f": "\f", "n": "\n"},
    **{"r": "\r", "t": "\t", "v": "\v", "N": "\x85", "_": "\xa0", "L": "\u2028", "P": "\u2029"},
}
# A surrogate is not a character in YAML, nor is a pair of them.
_HEX = "[0-9a-fA-F]"
_is_escaped = re.compile(
    rf'(?:[^\\]++|\\(?:["\\/ 0abefnrtvN_LP]|x{_HEX}{{2}}|(?:u|U0000)(?![dD][89a-fA-F]){_HEX}{{4}}'
    rf"|U(?:000[1-9a-fA-F]|0010){_HEX}{{4}}))*+"
).fullmatch
_substitute_escapes = re.compile(r"\\(?:x(..)|u(.{4})|U(.{8})|(.))").sub

# The first characters of plain scalars that are strings, unless they are one of the words.
_LETTERS: Final = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz_/")

# Loaders look for the ":" of a key in 1,024 characters at most; some room for blanks before it is left.
_LONGEST_KEY = 1000


# -------------------------------------------------------------------------------------------------------------- scalars


def _unescaped(found: re.Match[str]) -> str:
    what = found[found.lastindex or 0]
    return _ESCAPES[what] if found.lastindex == 4 else chr(int(what, 16))


def _folded(text: str, has_escapes: bool) -> str:
    """The *text* of several lines between two quotes, folded: only line ends that belong to it stay."""
    if "\t" in text:
        raise _GiveUp
    first, *others = text.split("\n")
    pieces: list[str] = []
    line, is_joined = _ended(first, has_escapes)
    breaks = 0
    for number, following in enumerate(others, 1):
        following = following.lstrip(" ")
        pieces.append(line)
        if not following and number < len(others):
            line = ""
            breaks += 1
            continue
        pieces.append("\n" * breaks or ("" if is_joined else " "))
        line, is_joined = _ended(following, has_escapes) if number < len(others) else (following, False)
        breaks = 0
    return "".join([*pieces, line])


def _ended(line: str, has_escapes: bool) -> tuple[str, bool]:
    """A *line* between quotes without the blanks at its end, and whether the next one continues it without a blank."""
    bare = line.rstrip(" ")
    if has_escapes and (len(bare) - len(bare.rstrip("\\"))) % 2:
        return (bare[:-1], True) if bare == line else (bare + " ", False)
    return bare, False


class _Scalars(dict[str, Any]):
    """Text of a scalar, with its quotes, to its value. Computes a value that is missing."""

    __slots__ = ("resolve",)

    def __init__(self, resolve: Callable[[str], Any]) -> None:
        super().__init__(_WORDS)
        self.resolve = resolve

    def __missing__(self, text: str) -> Any:
        first = text[0]
        value: Any = text
        if first == '"':
            value = text[1:-1]
            if "\n" in value:
                value = _folded(value, True)
            if "\\" in value:
                if _is_escaped(value) is None:
                    raise _GiveUp
                value = _substitute_escapes(_unescaped, value)
        elif first == "'":
            value = text[1:-1]
            if "\n" in value:
                value = _folded(value, False)
            value = value.replace("''", "'")
        elif first in "0123456789+-.":
            value = self._number(text)
        elif text == "<<" or text == "=":
            raise _GiveUp
        self[text] = value
        return value

    def _number(self, text: str) -> Any:
        """The value of a plain *text* that begins like a number."""
        if _is_integer(text) is not None:
            return int(text)
        if _is_float(text) is not None:
            return float(text)
        if _may_be_number(text) is None:
            return text
        try:
            if _is_date(text) is not None:
                return date.fromisoformat(text)
            if _is_datetime(text) is not None:
                return datetime.fromisoformat(text)
        except ValueError:  # no such day
            raise _GiveUp from None
        value = self.resolve(text)
        if value is UNSURE:
            raise _GiveUp
        return value


class _Keys(dict[Any, Any]):
    """The same for keys and members of sets."""

    __slots__ = ("scalars",)

    def __init__(self, scalars: _Scalars) -> None:
        super().__init__()
        self.scalars = scalars

    def __missing__(self, text: str) -> Any:
        key = self.scalars[text]
        if len(text) > _LONGEST_KEY or key != key:
            raise _GiveUp
        self[text] = key
        return key


# ---------------------------------------------------------------------------------------------------- all other values

# In a flow collection, a plain scalar also ends before a comma and a bracket, and has no "?", which parsers read in two
# ways. A key ends with a colon, which needs a blank after it if the key is not in quotes. Few documents have flow
# collections, so these patterns are compiled for the first one.
_ANCHOR = r"[0-9A-Za-z_\-]++"
_FLOW_PLAIN = (
    rf"(?:{_FIRST})"
    r"(?:[^ \t\n:,?\[\]{}]++|:(?![ \t\n,?\[\]{}])| ++(?![\t\n#:,?\[\]{}]))*+"
)
_FLOW_SPACE = r"(?: ++|\n|(?<=[ \n])#[^\n]*+)*+"
_FLOW_KEY = rf"(?:{_FLOW_PLAIN}) {{0,9}}+:(?=[ \n])|(?:{_DOUBLE}|{_SINGLE}) {{0,9}}+:"
_FLOW_VALUE = rf"{_FLOW_PLAIN}|{_LONG_DOUBLE}|{_LONG_SINGLE}|\*{_ANCHOR}"
_FLOW_END = rf"{_FLOW_SPACE}([,\]}}])"
_FLOW_ENTRY = rf"{_FLOW_SPACE}(?:({_FLOW_KEY}){_FLOW_SPACE})?(?:({_FLOW_VALUE}){_FLOW_END}|([\[{{])|([\]}}]))"
_REST = rf"{_TAIL}\n"
_LONG_QUOTED = rf"({_LONG_DOUBLE}|{_LONG_SINGLE}){_TAIL}\n"
_FURTHER_LINE = rf"((?: *+\n)*+)( ++)({_MORE}){_TAIL}\n"
_BINARY = rf'!!binary "((?:[A-Za-z0-9+/]{{4}})*+(?:[A-Za-z0-9+/]{{2}}==|[A-Za-z0-9+/]{{3}}=)?+)"{_TAIL}'
_NAMED = rf"&({_ANCHOR})(?: ++(?!#)|{_TAIL}(?=\n))"
_ALIAS = rf"\*({_ANCHOR}){_TAIL}\n"
_NAMED_SCALAR = rf"({_SCALAR}){_TAIL}\n"
_is_block_head = re.compile(rf"[|>]([1-9]?)([-+]?){_TAIL}").fullmatch
_match_empty_lines = re.compile(r"(\n*+)( *+)(?=[^ \t\n])").match
_is_set = re.compile(rf"!!set( \{{\}})?{_TAIL}").fullmatch


class _Anchors:
    """The nodes that have names, the copies that aliases make of them, and the mappings that are merged.

    An alias is a copy, as in `events`. A named node is known by the collection that it is in and by its key there,
    because it may have no value yet. Whether a node has ended is found out when it matters, by the open collections.
    """

    __slots__ = ("expanded", "merges", "nodes", "room", "unsettled", "weights")

    def __init__(self, size: int) -> None:
        self.room = max(EXPANSION_FREE, EXPANSION_FACTOR * size)
        self.expanded = 0
        self.nodes: dict[str, tuple[Any, Any]] = {}
        self.unsettled: dict[str, tuple[int, int]] = {}  #: where they begin, and how much was expanded before them
        self.weights: dict[str, int] = {}  #: of those that have ended
        self.merges: list[tuple[dict[Any, Any], list[dict[Any, Any]]]] = []  #: into mappings that may be open

    def name(self, name: str, container: Any, key: Any, start: int, expanded: int) -> None:
        if name in self.nodes:
            raise _GiveUp
        self.nodes[name] = container, key
        self.unsettled[name] = start, expanded

    def settle(self, position: int, around: list[Any]) -> None:
        """Weigh the nodes, and merge into the mappings, that have ended at *position*: those not in *around*.

        A node weighs at least as in `events`, because it counts up to *position*.
        """
        are_open = set(map(id, around))
        for name, (start, before) in list(self.unsettled.items()):
            container, key = self.nodes[name]
            if id(container[key]) not in are_open:
                del self.unsettled[name]
                self.weights[name] = position - start + self.expanded - before
        waiting = self.merges
        self.merges = []
        for own, others in waiting:
            if id(own) in are_open:
                self.merges.append((own, others))
                continue
            whole: dict[Any, Any] = {}
            for other in [*others, own]:
                whole.update(other)
            own.clear()
            own.update(whole)

    def merge(self, own: dict[Any, Any], value: Any) -> None:
        """Merge *value*, the value of an alias or of a list of them, into *own* as soon as that has ended."""
        others = value[::-1] if value.__class__ is list else [value]
        if any(other.__class__ is not dict for other in others) or any(own is merged for merged, _ in self.merges):
            raise _GiveUp
        self.merges.append((own, others))

    def alias(self, name: str, position: int, around: list[Any], room: int) -> Any:
        """A copy of the node *name*, with at most *room* levels of collections."""
        self.settle(position, around)
        if name not in self.weights:
            raise _GiveUp
        self.expanded += self.weights[name]
        container, key = self.nodes[name]
        # None may be a node that has not begun yet.
        if container[key] is None or self.expanded > self.room:
            raise _GiveUp
        return _copied(container[key], room)


_COLLECTIONS: frozenset[type] = frozenset((dict, list, set))


def _copied(value: Any, room: int) -> Any:
    kind = value.__class__
    if kind not in _COLLECTIONS:
        return value
    if not room:
        raise _GiveUp
    copied = value.copy()
    if kind is not set:
        for place, item in value.items() if kind is dict else enumerate(value):
            if item.__class__ in _COLLECTIONS:
                copied[place] = _copied(item, room - 1)
    return copied


class _Special:
    """Reads the values that are not a single word on their line."""

    __slots__ = ("anchors", "around", "keys", "named", "parts", "scalars", "stack", "text", "whole")

    def __init__(
        self,
        text: str,
        whole: bool,
        scalars: _Scalars,
        keys: _Keys,
        parts: list[Any] | None,
        stack: list[tuple[Any, int, bool]],
    ) -> None:
        self.text = text
        self.stack = stack  #: the collections around the innermost one
        self.around: Any = None  #: the innermost one
        self.anchors: _Anchors | None = None
        #: the name of the node that was read last, where it begins, how much was expanded before it, and whether it may
        #: continue in the next lines
        self.named: tuple[str, int, int, bool] | None = None
        self.whole = whole  #: whether the newline at the end belongs to the document
        self.scalars = scalars
        self.keys = keys
        self.parts = parts  #: the list for the parts that it reads

    def read(self, shown: str, start: int, end: int, level: int, around: Any) -> tuple[Any, int]:
        """The value that *shown*, the end of a line from *start* on, begins, and where it ends.

        *end* is the beginning of the next line, *level* the column of the collection *around*.
        """
        first = shown[0]
        self.around = around
        if first == "|" or first == ">":
            return self._lines(shown, start, end, level)
        if first in _QUOTES:
            return self._quoted(start)
        if first == "&":
            return self._named(start, end, level)
        room = MAX_DEPTH - len(self.stack)
        if first == "*":
            found = re.compile(_ALIAS).match(self.text, start)
            if found is None:
                raise _GiveUp
            return self._alias(found[1], start, room), end
        if first == "!" and (binary := re.fullmatch(_BINARY, shown)) is not None:
            if self.parts is not None:
                self.parts += ("scalar", start, start + binary.end(1) + 1, '"', None, True)
            return a2b_base64(binary[1]), end
        if not room:
            raise _GiveUp
        if shown == "[]" or shown == "{}":
            if self.parts is not None:
                kind = "sequence" if first == "[" else "mapping"
                self.parts += (
                    kind,
                    start,
                    start + 1,
                    "flow",
                    None,
                    False,
                    "end",
                    start + 1,
                    start + 2,
                    "",
                    None,
                    False,
                )
            return [] if first == "[" else {}, end
        if first == "[" or first == "{":
            return self._flow(start, room)
        found = _is_set(shown)
        if found is None:
            raise _GiveUp
        if found[1] is None:
            return self._set(start, end, level)
        if self.parts is not None:
            stop = start + found.end(1)
            self.parts += ("mapping", start, stop - 1, "flow", None, True, "end", stop - 1, stop, "", None, False)
        return set(), end

    def _named(self, start: int, end: int, level: int) -> tuple[Any, int]:
        """The value after an anchor; None if it can only be in the next lines."""
        found = re.compile(_NAMED).match(self.text, start)
        if found is None or self.parts is not None:
            raise _GiveUp
        position, value = found.end(), None
        is_open = self.text[position] == "\n"
        named = found[1], start, self.names().expanded, is_open
        if not is_open:
            scalar = re.compile(_NAMED_SCALAR).match(self.text, position)
            if scalar is not None:
                value, end = self.scalars[scalar[1]], scalar.end()
            elif self.text[position] in "&*!":
                raise _GiveUp
            else:
                value, end = self.read(self.text[position : end - 1], position, end, level, self.around)
        self.named = named
        return value, end

    def names(self) -> _Anchors:
        """The names in the document. Made only when needed, because few documents have names."""
        if self.anchors is None:
            self.anchors = _Anchors(len(self.text))
        return self.anchors

    def name(self, container: Any, key: Any) -> bool:
        """Give the name that was read to the node *key* in *container*; returns whether the node may still follow."""
        assert self.named is not None
        name, start, expanded, is_open = self.named
        self.names().name(name, container, key, start, expanded)
        self.named = None
        return is_open

    def merge(self, own: dict[Any, Any], value: Any) -> None:
        """Merge *value* into *own*. Raises _GiveUp if it cannot be merged, or has a name."""
        if self.named is not None or self.parts is not None:
            raise _GiveUp
        self.names().merge(own, value)

    def _alias(self, name: str, start: int, room: int) -> Any:
        if self.parts is not None:
            raise _GiveUp
        return self.names().alias(name, start, [self.around, *[entry[0] for entry in self.stack]], room)

    def _lines(self, shown: str, start: int, end: int, level: int) -> tuple[str, int]:
        """A block of text, literal or folded."""
        head = _is_block_head(shown)
        if head is None:
            raise _GiveUp
        if head[1]:
            margin = " " * (level + int(head[1]))
            found = re.compile(rf"(?:{margin}[^\n]*+\n| *+\n)++").match(self.text, end)
        else:
            found = _match_lines(self.text, end)
            margin = found[1] if found is not None else ""
        if found is None or len(margin) <= level:
            return self._no_lines(head, end, level)
        body, last = found[0], found.end()
        if " \n" in body:
            body = "\n".join([line[len(margin) :] for line in body.split("\n")])
        else:
            body = body.replace("\n" + margin, "\n").removeprefix(margin)
        value = body.rstrip("\n")
        breaks = len(body) - len(value)
        if not value:
            raise _GiveUp
        if last == len(self.text) and not self.whole:
            if breaks > 1 or value[-1] == " " or self.parts is not None:
                raise _GiveUp
            breaks = 0
        if shown[0] == ">":
            value = _filled(value.split("\n"))
        if head[2] != "-":
            value += "\n" * (breaks if head[2] else min(breaks, 1))
        if self.parts is not None:
            self.parts += ("scalar", start, last, shown[0], None, False)
        return value, last

    def _no_lines(self, head: re.Match[str], end: int, level: int) -> tuple[str, int]:
        """A block of text without lines: the text after its empty lines is not further in than the text around it."""
        found = _match_empty_lines(self.text, end)
        if head[1] or head[2] == "+" or found is None or len(found[2]) > level or self.parts is not None:
            raise _GiveUp
        return "", found.end(1)

    def _quoted(self, start: int) -> tuple[str, int]:
        """A string whose closing quote is in another line."""
        found = re.compile(_LONG_QUOTED).match(self.text, start)
        if found is None:
            raise _GiveUp
        if self.parts is not None:
            self.parts += ("scalar", start, found.end(1), self.text[start], None, False)
        value: str = self.scalars[found[1]]
        return value, found.end()

    def plain(self, first: re.Match[str], level: int) -> tuple[Any, int]:
        """A plain scalar whose *first* line is that of an entry, and which continues in the next ones."""
        text, end = first.string, first.end()
        pieces = [first[4]]
        match = re.compile(_FURTHER_LINE).match
        stop = first.end(4)
        # A comment ends it.
        while not text[stop:end].strip(" \n") and (found := match(text, end)) is not None and len(found[2]) > level:
            pieces += "\n" * found[1].count("\n") or " ", found[3]
            stop, end = found.end(3), found.end()
        if len(pieces) == 1 or first[4][0] in _QUOTES:
            raise _GiveUp
        if self.parts is not None:
            self.parts[-WIDTH:] = ("scalar", first.start(4), stop, "", None, False)
        return self.scalars["".join(pieces)], end

    def _set(self, start: int, end: int, level: int) -> tuple[set[Any], int]:
        members: set[Any] = set()
        column = -1
        if self.parts is not None:
            self.parts += ("mapping", start, start, "", None, True)
        while (found := _match_member(self.text, end)) is not None:
            indent, text = found.groups()
            if column < 0:
                column = len(indent)
            if len(indent) != column:
                break
            member = self.keys[text]
            if member in members:
                raise _GiveUp
            members.add(member)
            end = found.end()
            if self.parts is not None:
                first, last = found.span(2)
                self.parts += ("scalar", first, last, text[0] if text[0] in _QUOTES else "", None, False)
                self.parts += ("scalar", end, end, "", None, False)
        if column <= level:
            raise _GiveUp
        if self.parts is not None:
            self.parts += END
        return members, end

    def _flow(self, start: int, room: int) -> tuple[Any, int]:
        """A flow collection, with its contents, up to the end of its last line."""
        text, parts = self.text, self.parts
        match_entry, match_end, match_rest = _flow_matches()
        top: list[Any] = []
        container: Any = top
        stack: list[Any] = []
        key: Any = None
        position = start
        while True:
            found = match_entry(text, position)
            if found is None:
                raise _GiveUp
            name, shown, mark, opening, closing = found.groups()
            position = found.end()
            if closing is None:
                if (name is None) is not (container.__class__ is list):
                    raise _GiveUp
                if name is not None:
                    name = name[:-1].rstrip(" ")
                    key = self.keys[name]
                    if key in container:
                        raise _GiveUp
                    if parts is not None:
                        _note_scalar(parts, found.start(1), name)
                value: Any
                if opening is not None:
                    value = [] if opening == "[" else {}
                elif shown[0] == "*":
                    value = self._alias(shown[1:], found.start(2), room - len(stack))
                else:
                    value = self.scalars[shown]
                if name is None:
                    container.append(value)
                else:
                    container[key] = value
                if opening is not None:
                    stack.append(container)
                    container = value
                    if len(stack) > room:
                        raise _GiveUp
                    if parts is not None:
                        kind = "sequence" if opening == "[" else "mapping"
                        parts += (kind, position - 1, position, "flow", None, False)
                    continue
                if parts is not None:
                    _note_scalar(parts, found.start(2), shown)
            elif name is None:
                mark = closing  # of a collection that is empty, or has a comma at its end
            else:
                raise _GiveUp
            while mark != ",":
                if (mark == "]") is not (container.__class__ is list):
                    raise _GiveUp
                if parts is not None:
                    parts += ("end", position - 1, position, "", None, False)
                container = stack.pop()
                found = match_end(text, position) if stack else match_rest(text, position)
                if found is None:
                    raise _GiveUp
                position = found.end()
                if not stack:
                    return top[0], position
                mark = found[1]


@functools.cache
def _flow_matches() -> list[Callable[[str, int], Any]]:
    return [re.compile(pattern).match for pattern in (_FLOW_ENTRY, _FLOW_END, _REST)]


def _filled(lines: list[str]) -> str:
    """The text of a folded block: its *lines* joined by blanks, except for indented and empty ones."""
    pieces: list[str] = []
    before = ""  # the last line that was not empty
    breaks = 0
    for line in lines:
        if not line:
            breaks += 1
            continue
        if before:
            if before[0] in " \t" or line[0] in " \t":
                breaks += 1
            pieces.append("\n" * breaks or " ")
        else:
            pieces.append("\n" * breaks)
        pieces.append(line)
        before = line
        breaks = 0
    return "".join(pieces)


# ----------------------------------------------------------------------------------------------------------- equal rows

MANY = 100
"""A collection this long is worth a pattern of its own for those of its entries that look alike."""

PATTERN_EVERY = 10_000
"""At most one more pattern for so many characters: making one takes as long as reading them line by line."""

_is_name = re.compile(_NAME).fullmatch

# Scalars, one on each line: all plain, and strings if they are not special words; or all plain integers.
_are_texts = re.compile(r"(?:[A-Za-z_/][^\n]*+(?:\n|$))*+").fullmatch
_are_integers = re.compile(r"(?:(?:0|-?[1-9][0-9]{0,17}+)(?:\n|$))*+").fullmatch


class _Runs:
    """Reads consecutive entries that look alike, all of them at once, column by column."""

    __slots__ = ("patterns", "scalars", "text")

    def __init__(self, text: str, scalars: _Scalars) -> None:
        self.text = text
        self.scalars = scalars
        self.patterns: dict[str, tuple[Callable[[str, int], Any], Callable[[str], list[Any]]]] = {}

    def read(self, container: Any, start: int, head: str, column: int, has_key: bool) -> int:
        """Add to *container* the entries from *start* on that look alike; returns where they end, which may be *start*.

        *head* is the text before the key or value in the first line, *column* that of the key or dash: a plain scalar
        continues in lines that are further in.
        """
        columns: list[list[str]]
        if container.__class__ is dict:
            columns, end = self._columns([(head, _KEY), (": ", _VALUE)], start, column)
            keys = self._values(columns[0])
            found = dict(zip(keys, self._values(columns[1]), strict=True))
            if len(found) < len(keys) or not container.keys().isdisjoint(found):
                raise _GiveUp
            if max(map(len, columns[0]), default=0) > _LONGEST_KEY or not all(map(eq, keys, keys)):
                raise _GiveUp
            container.update(found)
        elif not has_key:
            columns, end = self._columns([(head, _VALUE)], start, column)
            container += self._values(columns[0])
        else:
            like = container[-1]
            # Other keys can be written in several ways, or have another meaning without their quotes.
            if like.__class__ is not dict or not like or not all(map(_is_sure_key, like)):
                return start
            names = tuple(like)
            heads = [head, *["\n" + " " * len(head)] * (len(names) - 1)]
            row = [(f"{before}{name}: ", _VALUE) for before, name in zip(heads, names, strict=True)]
            columns, end = self._columns(row, start, len(head))
            values = zip(*map(self._values, columns), strict=True)
            container += map(dict, map(zip, repeat(names), values))
        return end

    def _columns(self, row: list[tuple[str, str]], start: int, column: int) -> tuple[list[list[str]], int]:
        """The texts in each column of the rows from *start* on, and where they end.

        A *row* consists, for each column, of the text before it and a pattern for its content.
        """
        width = len(row)
        text = "".join([f"{before}({pattern})" for before, pattern in row]) + "\n"
        known: Any = self.patterns.get(text)
        if known is None:
            if len(self.patterns) > start // PATTERN_EVERY:
                return [[] for _ in row], start
            whole = "".join([f"{before}(?:{pattern})" for before, pattern in row]) + "\n"
            known = self.patterns[text] = re.compile(f"(?:{whole})*+").match, re.compile(text).split
        match_all, split = known
        end = match_all(self.text, start).end()
        if len(_match_indent(self.text, end)[1]) > column:
            # The last value may continue there, so its row does not count.
            for _ in row:
                end = self.text.rfind("\n", start, end - 1) + 1 or start
        # A flat list: the text between the rows, which is empty, the columns of the first, empty, and so on.
        flat = split(self.text[start:end])
        return [flat[column :: width + 1] for column in range(1, width + 1)], end

    def _values(self, texts: list[str]) -> list[Any]:
        lines = "\n".join(texts)
        if _are_texts(lines) and _WORDS.keys().isdisjoint(texts):
            return texts
        if _are_integers(lines):
            return list(map(int, texts))
        return list(map(self.scalars.__getitem__, texts))


def _is_sure_key(key: Any) -> bool:
    return key.__class__ is str and _is_name(key) is not None and key not in _WORDS


# ------------------------------------------------------------------------------------------------------- the document


def read(
    content: bytes, resolve: Callable[[str], Any], parts: list[Any] | None = None
) -> dict[Any, Any] | Unsure | None:
    """The mapping in *content*, the bytes of a base document after its byte order mark; None for an empty one.

    *resolve* returns the value of a plain scalar, or `UNSURE`. The parts of the document are appended to *parts*, as
    PyYAML's events report them, except for the places of the ends of block collections.
    """
    if not _IS_EXACT:
        return UNSURE
    try:
        text = _text(content)
        whole = text.endswith("\n")
        return _read(text if whole else text + "\n", whole, resolve, parts)
    except (_GiveUp, UnicodeDecodeError):
        return UNSURE


def _text(content: bytes) -> str:
    """*content* as text, if all its characters are certain.

    Raises UnicodeDecodeError, too.
    """
    if b"\r" in content:
        content = content.replace(b"\r\n", b"\n")  # a carriage return alone is not one of the bytes below
    others = content.translate(None, _SURE_BYTES)
    if others and re.search(_NOT_SURE, others.decode("utf-8")) is not None:
        raise _GiveUp
    return content.decode("utf-8")


def body_start(text: str) -> int:
    """Where the document in *text* begins: after its first line if that is `---`, or 0.

    Raises _GiveUp if there is another marker, or a line that looks like one.
    """
    if not (text.startswith(("---", "...")) or "\n---" in text or "\n..." in text):
        return 0
    found = _match_start(text)
    if found is None or (start := found.end()) == len(text):
        raise _GiveUp
    if "\n---" in text[start - 1 :] or "\n..." in text[start - 1 :]:
        raise _GiveUp
    return start


def _read(text: str, whole: bool, resolve: Callable[[str], Any], parts: list[Any] | None) -> dict[Any, Any] | None:
    """The same for *text*, which ends with a newline; it had that from the beginning if it is *whole*.

    The loop is one long function because it runs for each line, and its state is in local variables. A call for each
    kind of line would take as long as handling the line.
    """
    scalars = _Scalars(resolve)
    keys = _Keys(scalars)
    # Most keys and values are plain strings. Equal ones become one object, without a call of ours.
    letters, shared, longest = _LETTERS, scalars.setdefault, _LONGEST_KEY
    runs = _Runs(text, scalars)

    # The innermost open collection, and the column of its keys or dashes. A list of one element is around the root.
    top: list[Any] = [None]
    container: Any = top
    level = -1
    is_list = True
    stack: list[tuple[Any, int, bool]] = []
    special = _Special(text, whole, scalars, keys, parts, stack)
    # Whether the last entry, in a mapping that of `key`, has no value yet: then it is null, or in the next lines.
    is_open = True
    key: Any = None
    # How many entries of long collections to read one by one before looking for a run again, and how often in vain.
    # A run does not give the places of its entries, so it is not used to note parts.
    many = MANY if parts is None else sys.maxsize
    pause = misses = 0

    # The match of the line of a scalar, which may continue in the next line.
    last: re.Match[str] | None = None

    begin = position = body_start(text)
    size = len(text)
    while position < size:
        for found in _finditer(text, position):
            indent, dashes, name, shown, other = found.groups()
            if name is None and (not dashes or (not is_open and len(indent) > level)):
                if indent is None and _are_blanks(text, found.start()) is not None:
                    position = size
                    break
                if not is_open:
                    # This can only continue the scalar of the line before.
                    if last is None or last.end() != found.start():
                        raise _GiveUp
                    value, position = special.plain(last, level)
                elif (
                    indent is None or len(indent) <= level or (container is top and (other is None or other[0] != "{"))
                ):
                    raise _GiveUp
                else:
                    if parts is not None and container is not top:
                        del parts[-WIDTH:]  # the null that was noted
                    if other is not None:
                        value, position = special.read(other, found.start(5), found.end(), level, container)
                        if special.named is not None:
                            raise _GiveUp
                    else:
                        value, position = scalars[shown], found.end()
                        last = found
                        if parts is not None:
                            _note_scalar(parts, found.start(4), shown)
                    is_open = False
                container[-1 if is_list else key] = value
                break

            # Which collection has an entry in this line?
            column = len(indent)
            if column == level:
                pass
            elif column > level:
                if not is_open:
                    raise _GiveUp
                stack.append((container, level, is_list))
                new: Any = [] if dashes else {}
                container[-1 if is_list else key] = new
                container, level, is_list = new, column, bool(dashes)
                if len(stack) > MAX_DEPTH:
                    raise _GiveUp
                if parts is not None:  # instead of the null that was noted
                    parts[-WIDTH:] = ("sequence" if dashes else "mapping", found.end(1), found.end(1), "", None, False)
            else:
                while column < level:
                    container, level, is_list = stack.pop()
                    if parts is not None:
                        parts += END
                if column != level:
                    raise _GiveUp
                is_open = False
            if is_list:
                if not dashes:
                    # Only a list whose dashes are in the column of its key ends here.
                    container, level, is_list = stack.pop()
                    if column != level or is_list:
                        raise _GiveUp
                    is_open = False
                    if parts is not None:
                        parts += END
            elif dashes:
                if not is_open:
                    raise _GiveUp
                stack.append((container, level, is_list))
                container[key] = container = []
                is_list = True
                if parts is not None:
                    parts[-WIDTH:] = ("sequence", found.end(1), found.end(1), "", None, False)

            if len(container) >= many and "-" not in dashes[1:]:
                if pause:
                    pause -= 1
                else:
                    had = len(container)
                    position = runs.read(container, found.start(1), indent + dashes, column, name is not None)
                    more = len(container) - had
                    misses = 0 if more > 8 else min(2 * misses + 1, 1000)
                    pause = misses
                    if more:
                        is_open = False
                        if is_list and name is not None:
                            # The last row may continue.
                            stack.append((container, level, is_list))
                            container, level, is_list = container[-1], column + len(dashes), False
                        break

            if dashes:
                # Collections that begin after a dash: lists, and a mapping.
                for offset in range(1, len(dashes)):
                    if dashes[offset] == "-":
                        stack.append((container, level, True))
                        new = []
                        container.append(new)
                        container, level = new, column + offset
                        if parts is not None:
                            place = found.start(2) + offset
                            parts += ("sequence", place, place, "", None, False)
                if name is not None:
                    stack.append((container, level, True))
                    new = {}
                    container.append(new)
                    container, level, is_list = new, column + len(dashes), False
                    if parts is not None:
                        parts += ("mapping", found.start(3), found.start(3), "", None, False)
                if len(stack) > MAX_DEPTH:
                    raise _GiveUp

            if parts is not None:
                if name is not None:
                    start = found.start(3)
                    parts += ("scalar", start, start + len(name), name[0] if name[0] in _QUOTES else "", None, False)
                if shown is not None:
                    start = found.start(4)
                    parts += ("scalar", start, start + len(shown), shown[0] if shown[0] in _QUOTES else "", None, False)
                elif other is None:
                    # After the colon, or the last dash.
                    behind = (
                        found.start(2) + len(dashes.rstrip()) if name is None else text.index(":", found.end(3)) + 1
                    )
                    parts += ("scalar", behind, behind, "", None, False)

            if shown is not None:
                value = shared(shown, shown) if shown[0] in letters else scalars[shown]
                is_open = False
                last = found
            elif other is None:
                value = None
                is_open = True
            else:
                value, position = special.read(other, found.start(5), found.end(), level, container)
                is_open = False
            if name is None:
                container.append(value)
            elif name == "<<":
                special.merge(container, value)
            else:
                key = shared(name, name) if name[0] in letters and len(name) <= longest else keys[name]
                if key in container:
                    raise _GiveUp
                container[key] = value
            if other is not None:
                if special.named is not None:
                    is_open = special.name(container, len(container) - 1 if is_list else key)
                if position != found.end():
                    break
        else:
            break
    if begin and top[0] is None and parts is not None:
        raise _GiveUp  # an empty node
    if special.anchors is not None:
        special.anchors.settle(size, [])
    if parts is not None and top[0] is not None:
        parts += END * len(stack)
        parts += ("document end", size, size, "", None, False)
    return _checked(top[0])


def _note_scalar(parts: list[Any], start: int, shown: str) -> None:
    parts += ("scalar", start, start + len(shown), shown[0] if shown[0] in _QUOTES else "", None, False)


def _checked(value: Any) -> dict[Any, Any] | None:
    if value.__class__ is list:
        raise _GiveUp
    found: dict[Any, Any] | None = value
    return found
