"""The quick way to read a base document: the block style that we write and that people write, or no answer at all.

Reads line by line, and many equal rows at a time, without PyYAML, which need not even be imported. It is exact: what it
returns is what `codec` makes of the events of PyYAML's parsers. Where that would take more than it knows for certain
(anchors, most tags, folded and multi-line texts, flow collections in others, two documents, any mistake), it answers
`UNSURE`, and the reader that knows everything reads the document from its beginning. So there are no errors here, and
no marks; and whoever extends this module adds something that is certain, or leaves it out.

What a plain scalar means is decided here where PyYAML's tables leave no doubt; the others are handed to *resolve*.
"""

from __future__ import annotations

import re
import sys
from binascii import a2b_base64
from collections.abc import Callable
from datetime import date, datetime
from enum import Enum
from itertools import repeat
from operator import eq
from typing import Any, Final

from pstate.parts import END, WIDTH
from pstate.values import MAX_DEPTH


class Unsure(Enum):
    """No answer."""

    UNSURE = "read it the other way"


UNSURE: Final = Unsure.UNSURE


class _GiveUp(Exception):
    pass


# ------------------------------------------------------------------------------------------------------------- patterns

# Printable ASCII, newline and tab; a tab only in comments and quotes, elsewhere it is mostly a mistake.
_SURE_BYTES = bytes([9, 10, *range(32, 127)])
# Of the other characters, in which UTF-8 can be: controls, line breaks of YAML 1.1, what YAML calls not printable.
_NOT_SURE = "[\x00-\x9f\u2028\u2029\ufeff\ufffe\uffff]"

# Possessive repeats match wrongly before 3.11.5 (https://github.com/python/cpython/issues/106052, and 100061). Those
# that hold groups may fail up to 3.13 at least (101955): here none does. PyPy makes mistakes of its own in them
# (https://github.com/pypy/pypy/issues/5504).
_IS_EXACT = sys.implementation.name == "cpython" and sys.version_info >= (3, 11, 5)

# A blank in these patterns is a blank, never \s, and a digit is [0-9]: Python's classes hold more than YAML's. All text
# ends in a newline. Repeats are possessive, so that nothing is read in two ways, and no text takes long.
#
# A plain scalar ends before ": ", " #" and the end of its line, and does not begin like anything else.
_FIRST = r"""[^ \t\n\-?:,\[\]{}#&*!|>'"%@`]|-(?=[0-9A-Za-z_.\-])"""
_PLAIN = rf"(?:{_FIRST})(?:[^ \t\n:]++|:(?![ \t\n])| ++(?![\t\n#]|:[ \t\n]))*+"
_DOUBLE = r'"(?:[^"\\\n]++|\\[^\n])*+"'
_SINGLE = r"'(?:[^'\n]++|'')*+'"
_SCALAR = rf"{_PLAIN}|{_DOUBLE}|{_SINGLE}"
_QUOTES = "\"'"

# Most keys, and most values, are of these kinds, which are found sooner.
_NAME = r"[A-Za-z_][0-9A-Za-z_\-]*+"
_KEY = rf"{_NAME}(?=:)|{_SCALAR}"
_VALUE = rf"[0-9A-Za-z_/][^\t\n:#]*+(?<! )(?=\n)|{_SCALAR}"

_BLANKS = r"(?: *+(?:#[^\n]*+)?+\n)*+"
_TAIL = r" *+(?:(?<![^ \n])#[^\n]*+)?+"

# The indentation, the dashes, the key, the value, or the first line of one that is no scalar. All of them None is a
# line that we do not know.
_finditer = re.compile(
    rf"{_BLANKS}( *+)((?:-(?: ++|(?=\n)))*+)"
    rf"(?:({_KEY}) {{0,9}}+:(?: ++|(?=\n)))?(?:({_VALUE})|([\[{{|!][^\n]*+))?{_TAIL}\n"
    r"|[^\n]*\n"
).finditer
_are_blanks = re.compile(_BLANKS).fullmatch
_match_member = re.compile(rf"{_BLANKS}( *+)\? ++({_SCALAR}){_TAIL}\n").match

# The lines of a literal block. None of them is of blanks only, because what these mean depends on their number.
_match_literal = re.compile(r"( +)[^ \n][^\n]*+\n(?:\1 *+[^ \n][^\n]*+\n|\n)*+(?! ++\n)").match

_is_integer = re.compile(r"[-+]?(?:0|[1-9][0-9]{0,599})").fullmatch
_is_float = re.compile(r"[-+]?[0-9]+\.[0-9]+(?:[eE][-+][0-9]+)?").fullmatch
_is_date = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}").fullmatch
_is_datetime = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}[ T](?:[01][0-9]|2[0-3])(?::[0-9]{2}){2}(?:\.[0-9]{6})?"
    r"(?:[-+](?:[01][0-9]|2[0-3]):[0-5][0-9])?"
).fullmatch
# Nothing else that begins like a number is one, or a timestamp, in PyYAML's tables; the words are below.
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

_ESCAPES = {'"': '"', "\\": "\\", "/": "/", "b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t"}
# As JSON has them; but a surrogate is no character in YAML, nor is a pair of them.
_is_escaped = re.compile(r'(?:[^\\]++|\\(?:["\\/bfnrt]|u(?![dD][89a-fA-F])[0-9a-fA-F]{4}))*+').fullmatch
_substitute_escapes = re.compile(r"\\(?:u(....)|(.))").sub

# Loaders look for the ":" of a key no further than 1,024 characters; some room for blanks before it is left.
_LONGEST_KEY = 1000


# -------------------------------------------------------------------------------------------------------------- scalars


def _unescaped(found: re.Match[str]) -> str:
    code, letter = found.groups()
    return _ESCAPES[letter] if code is None else chr(int(code, 16))


class _Scalars(dict[str, Any]):
    """Text of a scalar, with its quotes, to its value; finds out what it does not hold yet."""

    __slots__ = ("resolve",)

    def __init__(self, resolve: Callable[[str], Any]) -> None:
        super().__init__(_WORDS)
        self.resolve = resolve

    def __missing__(self, text: str) -> Any:
        first = text[0]
        value: Any = text
        if first == '"':
            value = text[1:-1]
            if "\\" in value:
                if _is_escaped(value) is None:
                    raise _GiveUp
                value = _substitute_escapes(_unescaped, value)
        elif first == "'":
            value = text[1:-1].replace("''", "'")
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


# --------------------------------------------------------------------------------------------- what is no simple scalar

# In a flow collection of one line: words without ":" and "#", and scalars in quotes. Few documents have one, so it is
# the first one that compiles these, and the cache of `re` that keeps them.
_WORD = r"""[^\x00- !"#$%&'()*,:;<=>?@\[\\\]^`{|}]++"""
_ITEM = rf"(?:(?![+\-.](?![0-9A-Za-z.])){_WORD}(?: ++{_WORD})*+|{_DOUBLE}|{_SINGLE})"
_PAIR = rf"{_ITEM}: ++{_ITEM}"
_FLOW_LIST = rf"\[( *+(?:{_ITEM}(?: *+, *+{_ITEM})*+)?+) *+\]{_TAIL}"
_FLOW_DICT = rf"\{{( *+(?:{_PAIR}(?: *+, *+{_PAIR})*+)?+) *+\}}{_TAIL}"
_BINARY = rf'!!binary "((?:[A-Za-z0-9+/]{{4}})*+(?:[A-Za-z0-9+/]{{2}}==|[A-Za-z0-9+/]{{3}}=)?+)"{_TAIL}'
_is_literal = re.compile(r"\|([-+]?) *+").fullmatch
_is_set = re.compile(rf"!!set( \{{\}})?{_TAIL}").fullmatch


class _Special:
    """Reads the values that do not stand in one word on their line."""

    __slots__ = ("keys", "parts", "scalars", "text", "whole")

    def __init__(self, text: str, whole: bool, scalars: _Scalars, keys: _Keys, parts: list[Any] | None) -> None:
        self.text = text
        self.whole = whole  #: the newline at its end is its own
        self.scalars = scalars
        self.keys = keys
        self.parts = parts  #: where to note what it reads

    def read(self, shown: str, start: int, end: int, level: int, room: bool) -> tuple[Any, int]:
        """The value that *shown*, the end of a line from *start* on, begins, and where it ends.

        *end* is the beginning of the next line, *level* the column of the collection around, *room* whether a
        collection in it would not be too deep.
        """
        first = shown[0]
        if first == "|":
            return self._literal(shown, start, end, level)
        if first == "!" and (binary := re.fullmatch(_BINARY, shown)) is not None:
            if self.parts is not None:
                self.parts += ("scalar", start, start + binary.end(1) + 1, '"', None, True)
            return a2b_base64(binary[1]), end
        if not room:
            raise _GiveUp
        if first == "[":
            return self._flow_list(shown, start), end
        if first == "{":
            return self._flow_dict(shown, start), end
        found = _is_set(shown)
        if found is None:
            raise _GiveUp
        if found[1] is None:
            return self._set(start, end, level)
        if self.parts is not None:
            stop = start + found.end(1)
            self.parts += ("mapping", start, stop - 1, "flow", None, True, "end", stop - 1, stop, "", None, False)
        return set(), end

    def _literal(self, shown: str, start: int, end: int, level: int) -> tuple[str, int]:
        head = _is_literal(shown)
        found = _match_literal(self.text, end)
        if head is None or found is None or len(found[1]) <= level:
            raise _GiveUp
        if (found.end() == len(self.text) and not self.whole) or "\t" in found[0]:
            raise _GiveUp
        margin = found[1]
        value = found[0][len(margin) :].replace("\n" + margin, "\n")
        chomp = head[1]
        if chomp != "+":
            value = value.rstrip("\n")
            if not chomp:
                value += "\n"
        if self.parts is not None:
            self.parts += ("scalar", start, found.end(), "|", None, False)
        return value, found.end()

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

    def _flow_list(self, shown: str, start: int) -> list[Any]:
        if shown == "[]":
            self._note_flow("sequence", shown, start, 1)
            return []
        whole = re.fullmatch(_FLOW_LIST, shown)
        if whole is None:
            raise _GiveUp
        self._note_flow("sequence", shown, start, whole.end(1))
        return [self.scalars[item] for item in re.findall(_ITEM, whole[1])]

    def _flow_dict(self, shown: str, start: int) -> dict[Any, Any]:
        if shown == "{}":
            self._note_flow("mapping", shown, start, 1)
            return {}
        whole = re.fullmatch(_FLOW_DICT, shown)
        if whole is None:
            raise _GiveUp
        self._note_flow("mapping", shown, start, whole.end(1))
        items = re.findall(_ITEM, whole[1])
        found: dict[Any, Any] = {}
        for name, item in zip(items[::2], items[1::2], strict=True):
            key = self.keys[name]
            if key in found:
                raise _GiveUp
            found[key] = self.scalars[item]
        return found

    def _note_flow(self, kind: str, shown: str, start: int, stop: int) -> None:
        """Note the parts of a flow collection, whose last item ends before *stop* in *shown*."""
        if self.parts is None:
            return
        self.parts += (kind, start, start + 1, "flow", None, False)
        for found in re.compile(_ITEM).finditer(shown, 1, stop):
            first, last = found.span()
            style = shown[first] if shown[first] in _QUOTES else ""
            self.parts += ("scalar", start + first, start + last, style, None, False)
        end = start + shown.index("]" if kind == "sequence" else "}", stop) + 1
        self.parts += ("end", end - 1, end, "", None, False)


# ----------------------------------------------------------------------------------------------------------- equal rows

MANY = 100
"""A collection this long is worth a pattern of its own for those of its entries that look alike."""

PATTERN_EVERY = 10_000
"""One more pattern for so many characters: making one takes as long as reading these line by line."""

_is_name = re.compile(_NAME).fullmatch

# Scalars, one a line, of which each is plain and a text if it is no word, or plain and an integer.
_are_texts = re.compile(r"(?:[A-Za-z_/][^\n]*+(?:\n|$))*+").fullmatch
_are_integers = re.compile(r"(?:(?:0|-?[1-9][0-9]{0,17}+)(?:\n|$))*+").fullmatch


class _Runs:
    """Reads entries that stand one below the other and look alike, all of them at once, column by column."""

    __slots__ = ("patterns", "scalars", "text")

    def __init__(self, text: str, scalars: _Scalars) -> None:
        self.text = text
        self.scalars = scalars
        self.patterns: dict[str, tuple[Callable[[str, int], Any], Callable[[str], list[Any]]]] = {}

    def read(self, container: Any, start: int, head: str, has_key: bool) -> int:
        """Add to *container* the entries from *start* on that look alike; returns where they end, which may be *start*.

        *head* is what the first line has before its key or value.
        """
        columns: list[list[str]]
        if container.__class__ is dict:
            columns, end = self._columns([(head, _KEY), (": ", _VALUE)], start)
            keys = self._values(columns[0])
            found = dict(zip(keys, self._values(columns[1]), strict=True))
            if len(found) < len(keys) or not container.keys().isdisjoint(found):
                raise _GiveUp
            if max(map(len, columns[0]), default=0) > _LONGEST_KEY or not all(map(eq, keys, keys)):
                raise _GiveUp
            container.update(found)
        elif not has_key:
            columns, end = self._columns([(head, _VALUE)], start)
            container += self._values(columns[0])
        else:
            like = container[-1]
            # Other keys are written in several ways, or mean something else without their quotes.
            if like.__class__ is not dict or not like or not all(map(_is_sure_key, like)):
                return start
            names = tuple(like)
            heads = [head, *["\n" + " " * len(head)] * (len(names) - 1)]
            row = [(f"{before}{name}: ", _VALUE) for before, name in zip(heads, names, strict=True)]
            columns, end = self._columns(row, start)
            values = zip(*map(self._values, columns), strict=True)
            container += map(dict, map(zip, repeat(names), values))
        return end

    def _columns(self, row: list[tuple[str, str]], start: int) -> tuple[list[list[str]], int]:
        """What stands in each column of the rows from *start* on, and where they end.

        A *row* is made of what stands before a column, and a pattern for what stands in it.
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
        # A flat list: what stands between the rows, which is nothing, the columns of the first, nothing, and so on.
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
    """The mapping in *content*, the bytes of a base document behind its byte order mark; None for an empty one.

    *resolve* gives the value of a plain scalar, or `UNSURE`. What the document consists of goes into *parts*: what
    PyYAML's events tell, but for the places of the ends of block collections.
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
    """*content* as text, if there is no character in it that needs a closer look.

    Raises UnicodeDecodeError, too.
    """
    if b"\r" in content:
        content = content.replace(b"\r\n", b"\n")  # one that is alone is none of the bytes below
    others = content.translate(None, _SURE_BYTES)
    if others and re.search(_NOT_SURE, others.decode("utf-8")) is not None:
        raise _GiveUp
    if content.startswith((b"---", b"...")) or b"\n---" in content or b"\n..." in content:
        raise _GiveUp  # a marker, or a text that looks like one
    return content.decode("utf-8")


def _read(text: str, whole: bool, resolve: Callable[[str], Any], parts: list[Any] | None) -> dict[Any, Any] | None:
    """The same for *text*, which ends in a newline; it had that already if it is *whole*."""
    scalars = _Scalars(resolve)
    keys = _Keys(scalars)
    special = _Special(text, whole, scalars, keys, parts)
    runs = _Runs(text, scalars)

    # The innermost open collection, and the column of its keys or dashes. Around the root is a list of one element.
    top: list[Any] = [None]
    container: Any = top
    level = -1
    is_list = True
    stack: list[tuple[Any, int, bool]] = []
    # The last entry has no value yet, so it is null, or what the next lines hold; in a mapping it is that of `key`.
    is_open = True
    key: Any = None
    # How many entries of long collections to read one by one before we look for a run again, and how often in vain.
    # In a run, nobody knows where each of them stands.
    many = MANY if parts is None else sys.maxsize
    pause = misses = 0

    position, size = 0, len(text)
    while position < size:
        for found in _finditer(text, position):
            indent, dashes, name, shown, other = found.groups()
            if name is None and not dashes:
                if indent is None and _are_blanks(text, found.start()) is not None:
                    position = size
                    break
                # A value on a line of its own is a whole document, or nothing that we read.
                if container is not top or not is_open or other is None or other[0] != "{":
                    raise _GiveUp
                top[0], _ = special.read(other, found.start(5), found.end(), level, True)
                is_open = False
                continue

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
                if parts is not None:  # instead of the null that was there
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
                    # Only a list whose dashes stand below the key that it belongs to ends here.
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
                    position = runs.read(container, found.start(1), indent + dashes, name is not None)
                    more = len(container) - had
                    misses = 0 if more > 8 else min(2 * misses + 1, 1000)
                    pause = misses
                    if more:
                        is_open = False
                        if is_list and name is not None:
                            # The last row may go on.
                            stack.append((container, level, is_list))
                            container, level, is_list = container[-1], column + len(dashes), False
                        break

            if dashes:
                # Collections that begin behind a dash: lists, and a mapping.
                for offset in range(1, len(dashes)):
                    if dashes[offset] == "-":
                        stack.append((container, level, True))
                        new = []
                        container.append(new)
                        container, level = new, column + offset
                        if parts is not None:
                            start = found.start(2) + offset
                            parts += ("sequence", start, start, "", None, False)
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
                    start, end = found.span(3)
                    parts += ("scalar", start, end, name[0] if name[0] in _QUOTES else "", None, False)
                if shown is not None:
                    start, end = found.span(4)
                    parts += ("scalar", start, end, shown[0] if shown[0] in _QUOTES else "", None, False)
                elif other is None:
                    # Behind the colon, or the last dash.
                    behind = (
                        found.start(2) + len(dashes.rstrip()) if name is None else text.index(":", found.end(3)) + 1
                    )
                    parts += ("scalar", behind, behind, "", None, False)

            if shown is not None:
                value = scalars[shown]
                is_open = False
            elif other is None:
                value = None
                is_open = True
            else:
                value, position = special.read(other, found.start(5), found.end(), level, len(stack) < MAX_DEPTH)
                is_open = False
            if is_list:
                container.append(value)
            else:
                key = keys[name]
                if key in container:
                    raise _GiveUp
                container[key] = value
            if other is not None and position != found.end():
                break
        else:
            break
    if parts is not None and top[0] is not None:
        parts += END * len(stack)
        parts += ("document end", size, size, "", None, False)
    return _checked(top[0])


def _checked(value: Any) -> dict[Any, Any] | None:
    if value.__class__ is list:
        raise _GiveUp
    found: dict[Any, Any] | None = value
    return found
