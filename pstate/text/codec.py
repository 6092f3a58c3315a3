"""One value and its text: YAML as PyYAML's safe loader reads it, and text that every loader reads alike.

Owns all knowledge of YAML and its traps, and is the only module that touches PyYAML, which is imported by the first
call that needs it. Reading goes through PyYAML's *events*, not its loaders: these share aliased objects, keep the last
of two equal keys, have no limit on depth or on aliases, and the C one overflows the stack of the interpreter. What a
plain scalar means is still decided by PyYAML's own tables and constructors, so that a person's file is read exactly as
`yaml.safe_load` reads it; merge keys as their specification has them, from which PyYAML 6.0.4 departs.

Base documents mostly hold nothing unusual, and are then read by `block`, which gives what the events give, or nothing.

What is a storable value belongs to `values`; what surrounds a body or a base document in the file belongs to `format`.
"""

from __future__ import annotations

import functools
import json
import json.encoder
import re
import sys
from collections.abc import Callable, Iterable
from datetime import date, datetime
from typing import TYPE_CHECKING, Any, NoReturn

from pstate.errors import InvalidStateError
from pstate.text import block
from pstate.text.parts import WIDTH, Merged, Parts
from pstate.values import MAX_DEPTH

if TYPE_CHECKING:
    from yaml.error import Mark

# A record's value stands in a list of values in an operation in the list of operations.
_DEPTH_IN_RECORD = MAX_DEPTH + 4

# Aliases may make a document this much longer than it is: whatever its size, or so many times its size.
_EXPANSION_FREE = 1_000_000
_EXPANSION_FACTOR = 10

# Loaders look for the ":" of a key no further than 1,024 characters; longer keys need "? ". Some room is left.
_LONGEST_SIMPLE_KEY = 1000

# Python refuses to convert longer decimals, from 640 digits if so configured (sys.set_int_max_str_digits); hexadecimal
# ones it always converts.
_DECIMAL_DIGITS = 600
_DECIMAL_LIMIT = 10**_DECIMAL_DIGITS

_BOM = b"\xef\xbb\xbf"
_UNTOUCHED = "Nothing was changed."


# -------------------------------------------------------------------------------------------------------------- reading


class Base:
    """The base document of a state file: its value, and how it stands there."""

    __slots__ = ("appendable", "bom", "newline", "value")

    def __init__(self, value: dict[Any, Any], appendable: bool, newline: str = "\n", bom: bool = False) -> None:
        self.value = value  #: the root mapping, a plain tree
        self.appendable = appendable  #: a base marker can follow these bytes without changing what they mean
        self.newline = newline  #: "\n", or "\r\n" when the first line ends so
        self.bom = bom  #: begins with a byte order mark

    def __repr__(self) -> str:
        return f"Base({self.value!r}, appendable={self.appendable}, newline={self.newline!r}, bom={self.bom})"


class Document:
    """One document of a YAML stream."""

    __slots__ = ("explicit_end", "line", "value")

    def __init__(self, value: Any, line: int, explicit_end: bool) -> None:
        self.value = value  #: a plain tree, of any kind
        self.line = line  #: where it begins, counted from 1
        self.explicit_end = explicit_end  #: closed by a `...` line of its own

    def __repr__(self) -> str:
        return f"Document({self.value!r}, line={self.line}, explicit_end={self.explicit_end})"


Notice = Callable[[str, Any, int, int], bool]
"""Called with a plain scalar's text, its value, line and column. True: call again when the same text comes again."""


def load(data: bytes, path: str) -> Base:
    """Read the base document in *data*, the bytes of the file *path* up to its base marker.

    An empty file, one of blank lines and comments, and a document that is null are an empty state.
    Raises InvalidStateError, with line and column, for all that is no single YAML mapping that a state can hold.
    """
    if not data:
        return Base({}, False)
    value = block.read(data.removeprefix(_BOM), resolve)
    if value is block.UNSURE:
        return load_events(data, path)
    return _base(data, value, False)


def load_events(data: bytes, path: str, notice: Notice | None = None) -> Base:
    """What `load` returns or raises, always by PyYAML's events, which are the measure of `block`.

    *notice* is told of each plain scalar that could be taken for something else than a text.
    """
    if b"\r" in data:
        _refuse_lone_returns(data, path)
    documents = _read(data, path, MAX_DEPTH, single=True, notice=notice)
    if not documents:
        return _base(data, None, False)
    return _base(data, documents[0].value, documents[0].explicit_end)


def _base(data: bytes, value: dict[Any, Any] | None, explicit_end: bool) -> Base:
    first = data.find(b"\n")
    newline = "\r\n" if data[max(first - 1, 0) : first] == b"\r" else "\n"
    appendable = value is not None and data.endswith(b"\n") and not explicit_end
    return Base({} if value is None else value, appendable, newline, data.startswith(_BOM))


def resolve(text: str) -> Any:
    """What PyYAML's tables make of the plain scalar *text*; `block.UNSURE` when that is a mistake, or no scalar."""
    yaml = _yaml()
    for tag, matches in yaml.resolvers.get(text[:1], ()):
        if matches(text):
            construct = yaml.constructors.get(tag)
            try:
                return block.UNSURE if construct is None else construct(text)
            except (ValueError, LookupError, AttributeError, ArithmeticError, yaml.Error):
                return block.UNSURE
    return text


def trace(data: bytes, path: str) -> tuple[Any, Parts]:
    """The value of the document *data*, without byte order mark and carriage returns, and what it consists of.

    None and nothing, where there is no document. Raises InvalidStateError like `load`.
    """
    parts: list[Any] = []
    value = block.read(data, resolve, parts)
    if value is block.UNSURE:
        return trace_events(data, path)
    return value, Parts(parts, is_quick=True)


def trace_events(data: bytes, path: str) -> tuple[Any, Parts]:
    """What `trace` returns or raises, always by PyYAML's events."""
    parts: list[Any] = []
    merges: dict[int, Merged] = {}
    documents = _read(data, path, MAX_DEPTH, single=True, parts=parts, merges=merges)
    return (documents[0].value if documents else None), Parts(parts, is_quick=False, merges=merges)


def load_all(data: bytes, path: str, notice: Notice | None = None) -> list[Document]:
    """Read every document of the YAML stream *data*, of whatever kind. Raises InvalidStateError like `load`.

    *notice* is as for `load_events`.
    """
    return _read(data, path, _DEPTH_IN_RECORD, notice=notice)


def decode_body(text: str, path: str, line: int) -> list[Any]:
    """Read what `encode_body` wrote: equal values of equal types. *line* is where it stands in the file *path*.

    Raises InvalidStateError when *text* is no list.
    """
    if "\\u" not in text or _SURROGATE_ESCAPE.search(text) is None:
        json_text = text.strip(_JSON_SPACE)
        try:
            # `decode` looks for the white space itself, which takes as long as half of the reading.
            operations, end = _decode_json(json_text)
        except (ValueError, RecursionError):
            pass  # YAML where the two differ, or damage; the YAML reader says which, and where.
        else:
            if end == len(json_text) and type(operations) is list:
                return operations
    documents = _read(f"--- {text}\n".encode("utf-8", "surrogatepass"), path, _DEPTH_IN_RECORD, line - 1)
    if len(documents) != 1 or type(documents[0].value) is not list:
        raise _error(path, line, 5, "a record must be a list of operations", "Keep a copy of the file")
    operations = documents[0].value
    return operations


def _no_constant(name: str) -> NoReturn:
    raise ValueError(name)


_SURROGATE_ESCAPE = re.compile(r"\\u[dD][89a-fA-F]")
_SURROGATE_ESCAPES = re.compile(
    r"\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|\\u[dD][89a-fA-F][0-9a-fA-F]{2}"
)
_JSON_SPACE = " \t\r\n"
_decode_json = json.JSONDecoder(parse_constant=_no_constant).raw_decode


def _error(path: str, line: int, column: int, what: str, remedy: str) -> InvalidStateError:
    message = f"{path}:{line}:{column}: {what}. {_UNTOUCHED} {remedy}."
    return InvalidStateError(message, path=path, line=line, column=column, reason=what)


def _refuse_lone_returns(data: bytes, path: str) -> None:
    found = re.search(rb"\r(?!\n)", data)
    if found is not None:
        line, column = _line_and_column(data, found.start())
        what = "a line ends in a carriage return alone, which hides the commit markers"
        raise _error(path, line, column, what, "Save the file with LF or CRLF line ends")


def _line_and_column(content: bytes, offset: int) -> tuple[int, int]:
    """Where *offset* is, counted from 1, the column in characters."""
    start = content.rfind(b"\n", 0, offset) + 1
    return content.count(b"\n", 0, offset) + 1, len(content[start:offset].decode("utf-8", "replace")) + 1


class _Refused(Exception):
    """What is wrong, and where: without a *mark*, at the present event."""

    def __init__(self, what: str, remedy: str = "Correct this line", mark: Mark | None = None) -> None:
        super().__init__(what)
        self.what = what
        self.remedy = remedy
        self.mark: Any = mark


class _Twice(_Refused):
    """A key that is equal to another one before it, which is number *number* of its mapping."""

    def __init__(self, what: str, remedy: str, number: int) -> None:
        super().__init__(what, remedy)
        self.number = number


def _too_deep(mark: Mark | None = None) -> _Refused:
    return _Refused(f"nested deeper than {MAX_DEPTH} levels", "Store flatter values", mark)


def _read(
    data: bytes,
    path: str,
    limit: int,
    lines_before: int = 0,
    single: bool = False,
    notice: Notice | None = None,
    parts: list[Any] | None = None,
    merges: dict[int, Merged] | None = None,
) -> list[Document]:
    """All documents of *data*; of a base document (*single*) the one, which must be a mapping or null.

    What it consists of goes into *parts*, and what its merge keys bring into *merges*.
    """
    content = data.removeprefix(_BOM)
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError as error:
        line, column = _line_and_column(content, error.start)
        offset = error.start + len(data) - len(content)
        what = f"byte 0x{data[offset]:02x} at offset {offset} is not UTF-8 ({error.reason})"
        raise _error(path, line + lines_before, column, what, "Save the file as UTF-8") from None

    yaml = _yaml()
    try:
        next_event = yaml.parser(content, text).get_event
        if parts is not None:
            next_event = _recording(yaml, next_event, parts)
        reader = _Reader(yaml, next_event, limit, len(content), single, text)
        if parts is not None and merges is not None:
            reader.merged = functools.partial(reader.merged_noted, parts, merges)  # type: ignore[method-assign]
        if notice is not None:
            reader.plain = functools.partial(reader.plain_noticed, notice)  # type: ignore[method-assign]
        return reader.documents()
    except _Twice as refused:
        if parts is None:  # read it once more, to find the first of the two
            _read(data, path, limit, lines_before, single, parts=[])
        what = refused.what + _place_of_key(parts or [], text, refused.number, refused.mark.line, lines_before)
        raise _error(
            path, refused.mark.line + 1 + lines_before, refused.mark.column + 1, what, refused.remedy
        ) from None
    except _Refused as refused:
        line, column = refused.mark.line + 1 + lines_before, refused.mark.column + 1
        raise _error(path, line, column, refused.what, refused.remedy) from refused.__cause__
    except yaml.ReaderError:
        found = yaml.not_printable.search(text)
        offset = 0 if found is None else len(text[: found.start()].encode())
        line, column = _line_and_column(content, offset)
        which = "a character" if found is None else f"U+{ord(found.group()):04X}"
        what = f"{which} may not stand in YAML as it is"
        raise _error(path, line + lines_before, column, what, "Write it as an escape in double quotes") from None


def _place_of_key(parts: list[Any], text: str, number: int, line: int, lines_before: int) -> str:
    """Where key *number* of a mapping stands, of which a later key, in *line*, is the last one of the *parts*."""
    around: list[list[int]] = [[]]
    for kind, start in zip(parts[::WIDTH], parts[1::WIDTH], strict=True):
        if kind == "end":
            around.pop()
            continue
        around[-1].append(start)
        if kind in ("mapping", "sequence"):
            around.append([])
    # A merge key is none of the keys.
    starts = [start for start in around[-1][::2] if not text.startswith("<<", start)]
    start = starts[number]
    first = text.count("\n", 0, start)
    if first == line:
        return f", first in column {start - text.rfind(chr(10), 0, start)} of this line"
    return f", first in line {first + 1 + lines_before}"


# What a person may have meant where a token cannot begin, and what to do.
_TEMPLATE = re.compile(r"\{[%{#]")
_QUOTE_IT = "Correct this line: put the value in quotes"


def _explained(problem: str, context: str, text: str, offset: int) -> tuple[str, str] | None:
    """What is wrong at *offset*, by its name, and what to do; None where the parser's own words say it."""
    if "Unicode character escape" in problem:
        found = _SURROGATE_ESCAPES.search(text, max(offset - 2, 0))
        if found is not None and found.start() <= offset:
            return _surrogate(found[0])
    if "tab character" in problem or ("cannot start any token" in problem and text[offset : offset + 1] == "\t"):
        before = text[text.rfind("\n", 0, offset) + 1 : offset]
        where = "as indentation" if not before.strip() else "after a dash" if not before.strip(" -") else "here"
        what = f"a tab is used {where}, where YAML allows only spaces"
        return what, "Correct this line: put spaces in the place of the tab"
    character = text[offset : offset + 1]
    template = _TEMPLATE.match(text, max(offset - 1, 0))
    if template is not None and character in "%{#":
        what = f"`{template[0]}` begins a template, which is not YAML"
        return what, "Correct this line: write what the template gives, or put it in quotes"
    if "cannot start any token" in problem or "expected node content" in problem:
        shown = "a backtick" if character == "`" else f"`{character}`"
        return f"{shown} cannot begin a value or a key", _QUOTE_IT
    if "expected alphabetic" in problem and context.endswith(("alias", "anchor")):
        mark = "*" if context.endswith("alias") else "&"
        return f"`{mark}` begins an {context.rpartition(' ')[2]}, and no name follows it", _QUOTE_IT
    return None


def _surrogate(escape: str) -> tuple[str, str]:
    """Why a surrogate cannot stand in YAML, and what to do: *escape* is one, or the two that JSON writes for one
    character.
    """
    pair = bytes.fromhex(escape.replace("\\u", ""))
    try:
        character = pair.decode("utf-16-be")
    except UnicodeDecodeError:
        return f"{escape} is a surrogate, which is not a character", "Correct this line: write the character itself"
    what = f"{escape} is how JSON writes {character}, and YAML has no such escapes (surrogates)"
    return what, f"Correct this line: write {character} itself; or read the file with `pstate import`, as JSON"


def _recording(yaml: _Yaml, next_event: Callable[[], Any], parts: list[Any]) -> Callable[[], Any]:
    Scalar, MappingStart, MappingEnd, Alias = yaml.Scalar, yaml.MappingStart, yaml.MappingEnd, yaml.Alias
    SequenceStart, SequenceEnd, DocumentEnd = yaml.SequenceStart, yaml.SequenceEnd, yaml.DocumentEnd
    plain_lists = (None, "!", _TAG + "seq")
    note = parts.extend

    def record() -> Any:
        event = next_event()
        kind = event.__class__
        start, end = event.start_mark.index, event.end_mark.index
        if kind is Scalar:
            note(("scalar", start, end, event.style or "", event.anchor, event.tag is not None))
        elif kind is MappingEnd or kind is SequenceEnd:
            note(("end", start, end, "", None, False))
        elif kind is MappingStart:
            tagged = _MAPPING_KINDS.get(event.tag) != _DICT
            note(("mapping", start, end, "flow" if event.flow_style else "", event.anchor, tagged))
        elif kind is SequenceStart:
            tagged = event.tag not in plain_lists
            note(("sequence", start, end, "flow" if event.flow_style else "", event.anchor, tagged))
        elif kind is Alias:
            note(("alias", start, end, "", event.anchor, False))
        elif kind is DocumentEnd:
            note(("document end", start, end if event.explicit else start, "", None, False))
        return event

    return record


class _Pair(list[Any]):
    """Key and value in an `!!omap` or `!!pairs`, while it is read."""


class _Sentinel:
    __slots__ = ("text",)

    def __init__(self, text: str) -> None:
        self.text = text


_NO_KEY = _Sentinel("no key yet")
_MISS = _Sentinel("not seen before")
_MERGE = _Sentinel("<<")
_VALUE = _Sentinel("=")
_OPEN = _Sentinel("an anchor in whose node we are")

_NO_SUCH_KEY = ("a list or a mapping cannot be a key", "Use a text or a number as the key")

# What a collection in the making is.
_LIST, _DICT, _SET, _OMAP, _PAIR = range(5)

_TAG = "tag:yaml.org,2002:"
_SEQUENCE_KINDS = {None: _LIST, "!": _LIST, _TAG + "seq": _LIST, _TAG + "omap": _OMAP, _TAG + "pairs": _OMAP}
_MAPPING_KINDS = {None: _DICT, "!": _DICT, _TAG + "map": _DICT, _TAG + "set": _SET}


# What the tables take for a float and PyYAML gives to float(); its way there takes ten times as long.
_SIMPLE_FLOAT = re.compile(r"-?[0-9]+\.[0-9]+(?:[eE][-+][0-9]+)?").fullmatch


class _Reader:
    """Turns a parser's events into plain trees, without recursion.

    An alias becomes a copy, so that the result is a tree; keys are unique; depth and growth by aliases are limited.
    """

    def __init__(
        self, yaml: _Yaml, next_event: Callable[[], Any], limit: int, size: int, single: bool, text: str
    ) -> None:
        self.yaml = yaml
        self.text = text
        self.next_event = next_event
        self.limit = limit
        self.room = max(_EXPANSION_FREE, _EXPANSION_FACTOR * size)
        self.expanded = 0
        self.single = single
        # Scalars are immutable, so equal texts can share one object; keys come again and again.
        self.memo: dict[str, Any] = {}
        self.anchors: dict[str, tuple[Any, int]] = {}
        self.merges: dict[int, list[dict[Any, Any]]] = {}
        self.event: Any = None

    def documents(self) -> list[Document]:
        yaml = self.yaml
        found: list[Document] = []
        try:
            while True:
                event = self.event = self.next_event()
                kind = event.__class__
                if kind is yaml.DocumentStart:
                    if self.single and found:
                        raise _Refused("a second document begins here", "Keep one document in the file")
                    self.anchors = {}
                    value, explicit_end = self.document()
                    if self.single and value is not None and value.__class__ is not dict:
                        what = {list: "a list", set: "a set"}.get(value.__class__, "a single value")
                        what = f"this is {what}, where a state is a mapping"
                        raise _Refused(what, "Begin with a line like `key: value`", event.start_mark)
                    found.append(Document(value, event.start_mark.line + 1, explicit_end))
                elif kind is yaml.StreamEnd:
                    return found
        except _Refused as refused:
            refused.mark = refused.mark or self.event.start_mark
            raise
        except yaml.MarkedError as error:
            mark = error.problem_mark or error.context_mark or self.event.start_mark
            if "nesting depth" in str(error.problem):
                # A limit of libyaml's, which it reaches before us because it reads ahead.
                raise _too_deep(mark) from None
            context = error.context
            explained = _explained(str(error.problem), context or "", self.text, mark.index)
            if explained is not None:
                raise _Refused(f"not YAML: {explained[0]}", explained[1], mark) from None
            if context and error.context_mark and error.context_mark.line != mark.line:
                context += f" that begins in line {error.context_mark.line + 1}"
            what = ", ".join(part for part in (context, error.problem) if part)
            raise _Refused(f"not YAML: {what}", mark=mark) from None

    def document(self) -> tuple[Any, bool]:
        yaml = self.yaml
        next_event, memo, limit = self.next_event, self.memo, self.limit
        resolvers, is_pure = yaml.resolvers, yaml.is_pure
        Scalar, MappingStart, MappingEnd = yaml.Scalar, yaml.MappingStart, yaml.MappingEnd
        SequenceStart, SequenceEnd, Alias = yaml.SequenceStart, yaml.SequenceEnd, yaml.Alias

        root: list[Any] = []
        stack: list[Any] = []
        # The innermost open collection; `append` is None in a mapping, `key` is what waits there for its value.
        container: Any = root
        append: Callable[[Any], None] | None = root.append
        key: Any = _NO_KEY
        kind = _LIST
        start: Any = None

        while True:
            event = self.event = next_event()
            event_class = event.__class__

            if event_class is Scalar:
                text = event.value
                if event.tag is None:
                    if event.implicit[0]:
                        value = memo.get(text, _MISS)
                        if value is _MISS:
                            if text[:1] in resolvers:
                                value = self.plain(text, append is None and key is _NO_KEY)
                            else:
                                value = memo[text] = text
                    else:
                        value = text
                        if is_pure:
                            self.refuse_surrogates(text)
                else:
                    value = self.tagged(event, append is None and key is _NO_KEY)
                if event.anchor is not None:
                    self.open_anchor(event)
                    self.anchors[event.anchor] = value, len(text) + 1

            elif event_class is MappingStart or event_class is SequenceStart:
                if append is None and key is _NO_KEY:
                    explained = _explained("", "", self.text, event.start_mark.index)
                    raise _Refused(*explained or _NO_SUCH_KEY)
                if len(stack) >= limit:
                    raise _too_deep()
                if event.anchor is not None:
                    self.open_anchor(event)
                stack.append((container, append, key, kind, start))
                start = event
                if event_class is SequenceStart:
                    kind = _SEQUENCE_KINDS.get(event.tag, -1)
                    container = []
                    append = container.append
                elif kind == _OMAP and event.tag in _MAPPING_KINDS:
                    kind = _PAIR
                    container = _Pair()
                    append = container.append
                else:
                    kind = _MAPPING_KINDS.get(event.tag, -1)
                    container = {}
                    append = None
                    key = _NO_KEY
                if kind < 0:
                    self.refuse_tag(event.tag, "a list" if event_class is SequenceStart else "a mapping")
                continue

            elif event_class is MappingEnd or event_class is SequenceEnd:
                value = container
                if kind == _DICT:
                    if self.merges:
                        value = self.merged(value, len(stack))
                elif kind != _LIST:
                    value = self.finish(value, kind, len(stack), start.start_mark)
                if start.anchor is not None:
                    self.close_anchor(start, event, value)
                container, append, key, kind, start = stack.pop()

            elif event_class is Alias:
                value = self.alias(event.anchor, append is None and key is _NO_KEY, len(stack))
                if kind == _OMAP:
                    if type(value) is dict and len(value) == 1:
                        value = _Pair(next(iter(value.items())))
                elif value.__class__ is _Pair:
                    raise _Refused(*_NO_SUCH_KEY)

            else:
                break  # the end of the document

            if append is not None:
                append(value)
            elif key is _NO_KEY:
                if value.__class__ is not str:
                    if value is _VALUE:
                        value = "="
                    elif value != value:
                        raise _Refused("NaN cannot be a key, it is not equal to itself", "Use another key")
                if value in container:
                    self.refuse_second(value, container)
                key = value
            elif key is _MERGE:
                self.merge(value, len(stack))
                key = _NO_KEY
            else:
                container[key] = value
                key = _NO_KEY

        return root[0], bool(event.explicit)

    # -- scalars

    def plain(self, text: str, as_key: bool) -> Any:
        """The value of the plain scalar *text*, as PyYAML's tables have it."""
        value: Any = text
        if text.isdigit() and "1" <= text[0] <= "9" and text.isascii() and len(text) <= _DECIMAL_DIGITS:
            value = int(text)
        elif _SIMPLE_FLOAT(text) is not None:
            value = float(text)
        else:
            for tag, matches in self.yaml.resolvers.get(text[:1], ()):
                if matches(text):
                    value = self.construct(tag, text, as_key)
                    break
        if value.__class__ is not _Sentinel:  # These are only good in some places: ask again each time.
            self.memo[text] = value
        return value

    def plain_noticed(self, notice: Notice, text: str, as_key: bool) -> Any:
        value = _Reader.plain(self, text, as_key)
        mark = self.event.start_mark
        if value.__class__ is not _Sentinel and notice(text, value, mark.line + 1, mark.column + 1):
            self.memo.pop(text, None)
        return value

    def tagged(self, event: Any, as_key: bool) -> Any:
        tag, text = event.tag, event.value
        if tag == "!" and event.implicit[0]:
            return self.plain(text, as_key)
        if self.yaml.is_pure:
            self.refuse_surrogates(text)
        if tag == _TAG + "str" or tag == "!":
            return text
        return self.construct(tag, text, as_key)

    def construct(self, tag: str, text: str, as_key: bool) -> Any:
        if tag == _TAG + "merge" or tag == _TAG + "value":
            if not as_key:
                raise _Refused(f"a plain {text} has a meaning of its own in YAML", "Put it in quotes")
            return _MERGE if tag == _TAG + "merge" else _VALUE
        constructor = self.yaml.constructors.get(tag)
        if constructor is None:
            self.refuse_tag(tag, "a scalar")
        try:
            return constructor(text)
        except (ValueError, LookupError, AttributeError, ArithmeticError, self.yaml.Error) as error:
            what = f"{_short(text)} is no {tag.removeprefix(_TAG)}"
            if isinstance(error, ValueError | ArithmeticError) and text.isprintable():
                what += f" ({str(error).partition(':')[0]})"
            raise _Refused(what, "Correct it, or put it in quotes to make it a text") from error

    def refuse_tag(self, tag: str, what: str) -> NoReturn:
        known = tag in _SEQUENCE_KINDS or tag in _MAPPING_KINDS or tag in self.yaml.constructors
        shown = "!!" + tag.removeprefix(_TAG) if tag.startswith(_TAG) else tag if tag[:1] == "!" else f"!<{tag}>"
        if known:
            raise _Refused(f"the tag {shown} does not fit {what}", "Remove the tag")
        raise _Refused(f"the tag {shown} stands for no value that is stored here", "Remove the tag; store plain values")

    @staticmethod
    def refuse_surrogates(text: str) -> None:
        # libyaml refuses them by itself, the pure parser lets them pass.
        found = None if text.isascii() else re.search("[\ud800-\udbff][\udc00-\udfff]|[\ud800-\udfff]", text)
        if found is not None:
            raise _Refused(*_surrogate("".join([f"\\u{ord(character):04x}" for character in found[0]])))

    # -- collections

    def finish(self, container: Any, kind: int, depth: int, mark: Mark) -> Any:
        if kind == _SET:
            return set(self.merged(container, depth))
        if kind == _PAIR:
            if len(container) != 2:
                raise _Refused("each entry of an !!omap or !!pairs has one key", "Begin a new entry", mark)
            return container
        if not all(type(pair) is _Pair for pair in container):
            raise _Refused("the entries of an !!omap or !!pairs are mappings of one key", "Write - key: value", mark)
        return [list(pair) for pair in container]

    def merge(self, value: Any, depth: int) -> None:
        parts = value if type(value) is list else [value]
        for part in parts:
            if type(part) is not dict and type(part) is not set:
                raise _Refused("only mappings can be merged by <<", "Put << in quotes if it is a key of yours")
        # The first in a list wins. A set is a mapping to nulls.
        parts = [part if type(part) is dict else dict.fromkeys(ordered(part)) for part in reversed(parts)]
        self.merges.setdefault(depth, []).extend(parts)

    def merged(self, own: dict[Any, Any], depth: int) -> dict[Any, Any]:
        """*own* with what its merge keys brought: before it in order, behind it in rank."""
        parts = self.merges.pop(depth, None)
        if parts is None:
            return own
        whole: dict[Any, Any] = {}
        for part in parts:
            whole.update(part)
        whole.update(own)
        return whole

    def merged_noted(
        self, noted: list[Any], merges: dict[int, Merged], own: dict[Any, Any], depth: int
    ) -> dict[Any, Any]:
        parts = self.merges.get(depth)
        if parts is not None:
            merges[len(noted) // WIDTH - 1] = list(own), parts
        return _Reader.merged(self, own, depth)

    @staticmethod
    def refuse_second(key: Any, container: dict[Any, Any]) -> NoReturn:
        number, first = next((number, other) for number, other in enumerate(container) if other == key)
        if type(first) is type(key):
            raise _Twice(f"the key {_short(key)} stands twice in this mapping", "Keep one of the two", number)
        what = f"the key {_short(key)} is equal to the key {_short(first)} before it"
        raise _Twice(what, "Put one in quotes", number)

    # -- anchors and aliases

    def open_anchor(self, event: Any) -> None:
        if event.anchor in self.anchors:
            raise _Refused(f"the anchor &{event.anchor} is here twice", "Rename one of the two")
        self.anchors[event.anchor] = _OPEN, self.expanded

    def close_anchor(self, start: Any, end: Any, value: Any) -> None:
        before = self.anchors[start.anchor][1]
        written = end.end_mark.index - start.start_mark.index
        if value.__class__ is _Pair and value[0].__class__ not in _COLLECTIONS:
            value = {value[0]: value[1]}  # Elsewhere it is the mapping that it looks like.
        self.anchors[start.anchor] = value, written + self.expanded - before

    def alias(self, name: str, as_key: bool, depth: int) -> Any:
        found = self.anchors.get(name)
        if found is None:
            raise _Refused(f"the alias *{name} has no anchor before it", "Correct the name")
        value, weight = found
        if value is _OPEN:
            raise _Refused(f"the alias *{name} stands inside of what it names", "A state is a tree: write it out")
        self.expanded += weight
        if self.expanded > self.room:
            raise _Refused("the aliases multiply this file beyond all measure", "Write the values out")
        if value.__class__ is _Sentinel:
            if not as_key:
                raise _Refused(f"a plain {value.text} has a meaning of its own in YAML", "Put it in quotes")
            return value
        if value.__class__ in _COLLECTIONS:
            if as_key:
                raise _Refused(*_NO_SUCH_KEY)
            return _copy(value, self.limit - depth)
        return value


_COLLECTIONS: frozenset[type] = frozenset((dict, list, set, _Pair))


def _copy(value: Any, levels: int) -> Any:
    if levels <= 0:
        raise _too_deep()
    kind = value.__class__
    if kind is dict:
        return {k: _copy(v, levels - 1) if v.__class__ in _COLLECTIONS else v for k, v in value.items()}
    if kind is set:
        return value.copy()
    return kind(_copy(v, levels - 1) if v.__class__ in _COLLECTIONS else v for v in value)


def _short(value: Any) -> str:
    shown = repr(value) if type(value) is str else scalar(value)
    return shown if len(shown) <= 60 else shown[:59] + "…"


class _Yaml:
    """What we use of PyYAML, taken once, so that tables changed later by others do not change what a file means."""

    def __init__(self, pure: bool = False) -> None:
        import yaml
        import yaml.constructor
        import yaml.events
        import yaml.parser
        import yaml.reader
        import yaml.resolver
        import yaml.scanner

        self.Error = yaml.YAMLError
        self.MarkedError = yaml.MarkedYAMLError
        self.ReaderError = yaml.reader.ReaderError
        self.Scalar = yaml.events.ScalarEvent
        self.Alias = yaml.events.AliasEvent
        self.MappingStart, self.MappingEnd = yaml.events.MappingStartEvent, yaml.events.MappingEndEvent
        self.SequenceStart, self.SequenceEnd = yaml.events.SequenceStartEvent, yaml.events.SequenceEndEvent
        self.DocumentStart, self.DocumentEnd = yaml.events.DocumentStartEvent, yaml.events.DocumentEndEvent
        self.StreamEnd = yaml.events.StreamEndEvent
        self.not_printable: re.Pattern[str] = yaml.reader.Reader.NON_PRINTABLE

        table: dict[str | None, list[tuple[str, re.Pattern[str]]]] = yaml.resolver.Resolver.yaml_implicit_resolvers
        everywhere = table.get(None, [])
        self.resolvers = {
            first: [(tag, pattern.match) for tag, pattern in [*resolvers, *everywhere]]
            for first, resolvers in table.items()
            if first is not None
        }

        safe = yaml.constructor.SafeConstructor()

        def construct(method: Callable[[Any], Any], tag: str) -> Callable[[str], Any]:
            return lambda text: method(yaml.ScalarNode(tag, text))

        self.constructors: dict[str, Callable[[str], Any]] = {
            _TAG + name: construct(getattr(safe, f"construct_yaml_{name}"), _TAG + name)
            for name in ("null", "bool", "int", "float", "binary", "timestamp", "str")
        }

        c_parser: Callable[[bytes], Any] | None = None
        if not pure:
            try:
                from yaml._yaml import CParser  # yaml.cyaml has it too, but its stubs do not tell
            except ImportError:
                pass
            else:
                c_parser = CParser
        self.is_pure = c_parser is None

        class PureParser(yaml.reader.Reader, yaml.scanner.Scanner, yaml.parser.Parser):
            def __init__(self, text: str) -> None:
                yaml.reader.Reader.__init__(self, text)
                yaml.scanner.Scanner.__init__(self)
                yaml.parser.Parser.__init__(self)

        # libyaml takes bytes; the pure parser would decode them once more.
        self.parser: Callable[[bytes, str], Any] = (
            (lambda content, text: PureParser(text)) if c_parser is None else (lambda content, text: c_parser(content))
        )


@functools.cache
def _yaml() -> _Yaml:
    return _Yaml()


# -------------------------------------------------------------------------------------------- scalars, in flow and keys

_quote_json: Callable[[str], str] = json.encoder.encode_basestring


@functools.cache
def _escaped() -> re.Pattern[str]:
    """What a loader refuses raw, takes for a line break, or eats. JSON's own escapes cover the rest."""
    return re.compile("[\x7f-\x9f\u2028\u2029\ufeff\ufffe\uffff\ud800-\udfff]")


def _escape(found: re.Match[str]) -> str:
    character = found.group()
    if "\ud800" <= character <= "\udfff":
        raise UnicodeEncodeError("utf-8", found.string, found.start(), found.end(), "surrogates not allowed")
    return f"\\u{ord(character):04x}"


def _quoted(text: str) -> str:
    quoted = _quote_json(text)
    if quoted.isascii() and "\x7f" not in quoted:
        return quoted
    return _escaped().sub(_escape, quoted)


def _integer(value: int) -> str:
    if -_DECIMAL_LIMIT < value < _DECIMAL_LIMIT:
        return repr(value)
    return hex(value)


def _float(value: float) -> str:
    text = repr(value)
    if "n" in text:  # inf, -inf, nan
        return text.replace("inf", ".inf").replace("nan", ".nan")
    if "e" in text and "." not in text:
        return text.replace("e", ".0e")  # YAML 1.1 takes 1e+16 for a text.
    return text


def _binary(value: bytes) -> str:
    from base64 import b64encode

    return f'!!binary "{b64encode(value).decode("ascii")}"'


_SCALARS: dict[type, Callable[[Any], str]] = {
    str: _quoted,
    int: _integer,
    bool: lambda value: "true" if value else "false",
    type(None): lambda value: "null",
    float: _float,
    bytes: _binary,
    date: lambda value: value.isoformat(),
    datetime: lambda value: value.isoformat(" "),
}


def scalar(value: Any) -> str:
    """The text of the scalar *value* in a record. Raises UnicodeEncodeError for a lone surrogate."""
    kind = value.__class__
    if kind is int:
        return repr(value) if -_DECIMAL_LIMIT < value < _DECIMAL_LIMIT else hex(value)
    if kind is str:
        quoted = _quote_json(value)
        if quoted.isascii() and "\x7f" not in quoted:
            return quoted
        return _escaped().sub(_escape, quoted)
    return _SCALARS[kind](value)


def ordered(members: Iterable[Any]) -> list[Any]:
    """The members of a set, always in the same order: by type, then by value."""
    groups: dict[str, list[Any]] = {}
    for member in members:
        groups.setdefault(type(member).__name__, []).append(member)
    ordered: list[Any] = []
    for name in sorted(groups):
        # Aware and naive datetimes do not compare with each other.
        ordered += sorted(groups[name], key=datetime.isoformat if name == "datetime" else None)
    return ordered


# -------------------------------------------------------------------------------------------------------------- records

_encode_json = json.JSONEncoder(ensure_ascii=False, separators=(",", ": ")).encode
_SAFE_TYPES = frozenset((str, int, bool, type(None)))
_NESTED_TYPES = frozenset((str, int, bool, type(None), float, list, dict))
_LONG_DECIMAL = re.compile(rf"[0-9]{{{_DECIMAL_DIGITS + 1}}}")
# An escape takes six characters, quotes two.
_LONGEST_SURE_KEY = (_LONGEST_SIMPLE_KEY - 2) // 6


def encode_body(operations: list[Any]) -> str:
    """The text of *operations* as it stands in a record: one line, which JSON, YAML 1.1 and `decode_body` read alike.

    JSON where JSON and YAML agree, else YAML in flow style. Raises UnicodeEncodeError for a lone surrogate.
    """
    if len(operations) == 1:
        text = _on_scalars(operations[0])
        if text:
            return text
    else:
        texts = list(map(_on_scalars, operations))
        if all(texts):
            return "[" + ",".join([text[1:-1] for text in texts]) + "]"
    if _is_json(operations):
        try:
            text = _encode_json(operations)
        except ValueError:
            return _flow(operations)  # an integer beyond Python's limit on decimals
        if len(text) <= _DECIMAL_DIGITS or _LONG_DECIMAL.search(text) is None:
            if text.isascii() and "\x7f" not in text:
                return text
            # All that is not ASCII stands in quotes here.
            return _escaped().sub(_escape, text)
    return _flow(operations)


def _on_scalars(operation: list[Any]) -> str:
    """`encode_body` of one *operation* that has only scalars behind its path, as most have; "" for another one.

    Finding out that JSON may write it, and JSON itself, would take 1 µs more, and 2 µs for a record of one.
    """
    if operation[0] == "set":
        _, path, key, value = operation
        return encode_set(path, key, value) if value.__class__ in _SCALARS else ""
    if operation[0] == "insert" and operation[3].__class__ in _SCALARS:
        _, path, index, value = operation
        return f'[["insert",{key_text(path)},{index},{scalar(value)}]]'
    if operation[-1].__class__ in _SCALARS:
        name, path, *scalars = operation
        return f'[["{name}",{key_text(path)},{",".join(map(scalar, scalars))}]]'
    return ""


def encode_set(path: list[Any], key: Any, value: Any) -> str:
    """`encode_body` of one `set` of a scalar."""
    # A comparison with a constant of one machine word takes 30 ns less; larger ones go the way of all scalars.
    if value.__class__ is int and -1_000_000_000 < value < 1_000_000_000:
        if not path and key.__class__ is str:
            return f"{_root_keys.get(key) or _root_key(key)}{value}]]"
        return f'[["set",{key_text(path)},{scalar(key)},{value}]]'
    return f'[["set",{key_text(path) if path else "[]"},{scalar(key)},{scalar(value)}]]'


_root_keys: dict[str, str] = {}


def _root_key(key: str) -> str:
    """How a record begins that sets *key* of the root; remembered for keys that come again."""
    text = f'[["set",[],{scalar(key)},'
    if len(_root_keys) < 1000 and len(key) < 100:
        _root_keys[key] = text
    return text


def key_text(path: list[Any]) -> str:
    """The text of a *path*, a list of keys and indices, in a record."""
    try:
        return _path_text(*path)
    except _Ambiguous:
        return "[" + ",".join(map(scalar, path)) + "]"


class _Ambiguous(Exception):
    """Keys that are equal, and of one type, may have other texts: 0.0 and -0.0, one moment in two time zones."""


# The same places are written to again and again: 0.1 instead of 0.65 µs at depth 5. By type as well, or 1 and True
# would be one.
@functools.lru_cache(1000, typed=True)
def _path_text(*path: Any) -> str:
    if not {float, datetime}.isdisjoint(map(type, path)):
        raise _Ambiguous
    return "[" + ",".join(map(scalar, path)) + "]"


def _is_json(value: Any) -> bool:
    """Whether JSON writes what YAML reads; looks at whole containers at a time, not at each value."""
    values: Iterable[Any]
    if value.__class__ is list:
        values = value
    elif value.__class__ is dict:
        if value and (set(map(type, value)) != {str} or max(map(len, value)) > _LONGEST_SURE_KEY):
            return False
        values = value.values()
    else:
        return False
    types = set(map(type, values))
    if types <= _SAFE_TYPES:
        return True
    if not types <= _NESTED_TYPES:
        return False
    if float in types:
        # Exponents, inf and nan are written differently; a repr has one of these letters for them and for nothing else.
        texts = repr([number for number in values if number.__class__ is float])
        if "e" in texts or "n" in texts:
            return False
    if list in types or dict in types:
        for child in values:
            kind = child.__class__
            if (kind is list or kind is dict) and not _is_json(child):
                return False
    return True


def flow(value: Any) -> str:
    """The plain tree *value* in one line, as in a record; `load_all` reads it back. Raises as `encode_body`."""
    return _flow(value)


def _flow(value: Any) -> str:
    kind = value.__class__
    if kind is list or kind is tuple:
        return "[" + ",".join(map(_flow, value)) + "]"
    if kind is dict:
        return "{" + ",".join([f"{_flow_key(key)}: {_flow(item)}" for key, item in value.items()]) + "}"
    if kind is set or kind is frozenset:
        return "!!set {" + ",".join([f"{_flow_key(key)}: null" for key in ordered(value)]) + "}"
    return scalar(value)


def _flow_key(key: Any) -> str:
    text = scalar(key)
    return text if len(text) <= _LONGEST_SIMPLE_KEY else f"? {text} "


# ---------------------------------------------------------------------------------------------------- the base document

# Plain only where no loader of YAML 1.1 or 1.2 can see anything but a text: it begins with a letter, "_" or "/", and
# words are one space apart, with no ":" at their end and no "#" at their beginning. A word of PyYAML's and ruamel's
# tables that begins with a letter is in _WORDS.
_WORDS = frozenset(("y", "n", "yes", "no", "on", "off", "true", "false", "null", "none", "nan", "inf"))
_LONGEST_WORD = max(map(len, _WORDS))
_IN_WORD = r"A-Za-z0-9_./+@$%^()=;,'\"!?~&*<>|\\\-"
# Not possessive: CPython 3.11.0 to 3.11.4 matches some of such patterns wrongly (issues 100061, 106052).
_WORD_ENDS = rf"[{_IN_WORD}#:]*(?<!:)"
_PLAIN = re.compile(rf"[A-Za-z_/]{_WORD_ENDS}(?: [{_IN_WORD}]{_WORD_ENDS})*")
_NOT_ASCII = re.compile(r"[^\x00-\x7f]")


def dump(value: dict[Any, Any]) -> bytes:
    """The canonical base document of the plain tree *value*: block style, UTF-8, LF, keys in their order.

    Raises UnicodeEncodeError for a lone surrogate.
    """
    if not value:
        return b"{}\n"
    out: list[str] = []
    _write_dict(value, "", "", out, {})
    return "".join(out).encode("utf-8")


def dump_value(value: Any) -> bytes:
    """The document of the plain tree *value*, of any kind, as `dump` would write it. Raises as `dump`."""
    out: list[str] = []
    if value.__class__ is dict and value:
        _write_dict(value, "", "", out, {})
    elif value.__class__ is list and value:
        _write_list(value, "", "", out, {})
    elif value.__class__ is set and value:
        out.append("!!set\n")
        _write_set(value, "", out)
    else:
        # A block of lines needs an indentation, which its header tells where there is none around it.
        _write_value("-", value, "  ", out, {})
        out[0] = out[0][2:]
    return "".join(out).encode("utf-8")


def _plain(text: str) -> bool:
    """Whether *text* may stand without quotes."""
    if _PLAIN.fullmatch(text) is None:
        if text.isascii() or not text.isprintable():
            return False
        # Letters of the world's scripts are as plain as ours; so is what else prints, but not in the first place.
        if not (text[0].isalpha() or text[0] in "_/"):
            return False
        if _PLAIN.fullmatch(_NOT_ASCII.sub("x", text)) is None:
            return False
    return len(text) > _LONGEST_WORD or text.lower() not in _WORDS


def _block_text(text: str, indent: str) -> str | None:
    """The literal block of *text* with its lines behind *indent*, if it looks the same to all loaders; the last newline
    is left to the caller.
    """
    if text[0] in "\n " or " \n" in text or text[-1] == " ":
        return None
    lines = text.split("\n")
    if not all(map(str.isprintable, lines)):  # no tabs, returns, other line breaks, controls
        return None
    if text[-1] != "\n":
        chomp = "|-"
    else:
        lines.pop()
        chomp = "|" if lines[-1] else "|+"
    body = "\n".join([indent + line if line else "" for line in lines])
    return f"{chomp}\n{body}"


def _fenced(text: str, indent: str) -> str:
    """*text* as a value, where it may not be plain: as a block of lines behind *indent*, or in quotes."""
    block = _block_text(text, indent) if "\n" in text else None
    return _quoted(text) if block is None else block


def _head(key: Any, indent: str, heads: dict[str, str]) -> str:
    """*key* and its colon, in a line behind *indent*; remembered in *heads* for the texts that come again."""
    text = _key(key)
    if len(text) > _LONGEST_SIMPLE_KEY:
        return f"? {text}\n{indent}:"
    if key.__class__ is str:  # Only texts are remembered: 1, 1.0 and True would be one.
        heads[key] = text + ":"
    return text + ":"


def _key(key: Any) -> str:
    if key.__class__ is str and _plain(key):
        return key
    return scalar(key)


def _write_dict(value: dict[Any, Any], lead: str, indent: str, out: list[str], heads: dict[str, str]) -> None:
    """Write a line for each key of *value*, behind *lead* the first and behind *indent* the others."""
    inner = indent + "  "
    for key, item in value.items():
        head = heads.get(key)
        if head is None:
            head = _head(key, indent, heads)
        # What most values are, first and with fewer calls: 22 instead of 29 ms for 25,000 rows of a number, a text and
        # a truth value.
        kind = item.__class__
        if kind is str:
            out.append(f"{lead}{head} {item if _plain(item) else _fenced(item, inner)}\n")
        elif kind is int and -1_000_000_000 < item < 1_000_000_000:
            out.append(f"{lead}{head} {item}\n")
        elif kind is bool:
            out.append(f"{lead}{head} {'true' if item else 'false'}\n")
        else:
            _write_value(lead + head, item, inner, out, heads)
        lead = indent


def _write_value(head: str, value: Any, inner: str, out: list[str], heads: dict[str, str]) -> None:
    """Write *head*, a colon or a dash at its end, and its *value*, whose further lines begin with *inner*."""
    kind = value.__class__
    if kind in _SCALARS:
        text = _SCALARS[kind](value) if kind is not str else value if _plain(value) else _fenced(value, inner)
        out.append(f"{head} {text}\n")
    elif not value:
        out.append(f"{head} {_EMPTY[kind]}\n")
    elif kind is dict:
        out.append(head + "\n")
        _write_dict(value, inner, inner, out, heads)
    elif kind is list:
        out.append(head + "\n")
        _write_list(value, inner, inner, out, heads)
    else:
        out.append(head + " !!set\n")
        _write_set(value, inner, out)


_EMPTY: dict[type, str] = {dict: "{}", list: "[]", set: "!!set {}"}


def _write_list(value: list[Any], lead: str, indent: str, out: list[str], heads: dict[str, str]) -> None:
    """Write *value*, the first dash behind *lead* and the others behind *indent*."""
    inner = indent + "  "
    for item in value:
        # The first line of what is inside stands behind the dash.
        if item.__class__ is dict and item:
            _write_dict(item, lead + "- ", inner, out, heads)
        elif item.__class__ is list and item:
            _write_list(item, lead + "- ", inner, out, heads)
        else:
            _write_value(lead + "-", item, inner, out, heads)
        lead = indent


def _write_set(value: set[Any], indent: str, out: list[str]) -> None:
    for member in ordered(value):
        out.append(f"{indent}? {_key(member)}\n")


# ----------------------------------------------------------------------------------------- pieces for others' documents

# Between the brackets of a flow collection, a comma or a bracket ends a plain text, and so does a colon for some.
_ENDS_IN_FLOW = re.compile(r"[,:?\[\]{}#]")


def shown_key(key: Any) -> str:
    """*key* as the canonical document has it."""
    return _key(key)


def is_simple_key(text: str) -> bool:
    """Whether a loader that meets *text* takes it for a key without a question mark in front of it."""
    return len(text) <= _LONGEST_SIMPLE_KEY


def block_scalar(value: Any, inner: str) -> str:
    """The scalar or empty collection *value* as the canonical document has it, further lines behind *inner*."""
    if value.__class__ is str:
        return str(value) if _plain(value) else _fenced(value, inner)
    return _SCALARS[value.__class__](value) if value.__class__ in _SCALARS else _EMPTY[value.__class__]


def flow_scalar(value: Any) -> str:
    """*value*, a scalar, a set or an empty collection, between other values of a flow collection, as a person would
    write it.
    """
    if value.__class__ is str and _plain(value) and _ENDS_IN_FLOW.search(value) is None:
        return str(value)
    return _flow(value)


def quoted_text(text: str, quote: str) -> str | None:
    """*text* in one line, in quotes of this kind; None where the kind cannot have it."""
    if quote == '"':
        return _quoted(text)
    return "'" + text.replace("'", "''") + "'" if text.isprintable() else None


# --------------------------------------------------------------------------------------------------------- other people


def register_representers(dict_type: type, list_type: type, set_type: type) -> bool:
    """Make PyYAML's dumpers write these types, and types derived from them, as a plain map, seq and set: as their
    `copy()`.

    Does nothing and returns False while nobody has imported PyYAML. Calling it again changes nothing.
    """
    yaml = sys.modules.get("yaml")
    if yaml is None or not hasattr(yaml, "SafeDumper"):
        return False
    # A dumper that was given representers of its own has a copy of the table, so each is told.
    # What is written is a copy of one moment: an element at a time, another process' commits would come in between.
    safe = yaml.representer.SafeRepresenter
    kinds: list[tuple[Any, Callable[[Any, Any], Any]]] = [
        (dict_type, lambda dumper, node: safe.represent_dict(dumper, node.copy())),
        (list_type, lambda dumper, node: safe.represent_list(dumper, node.copy())),
        (set_type, lambda dumper, node: safe.represent_set(dumper, node.copy())),
    ]
    dumpers = [safe, yaml.representer.Representer, yaml.SafeDumper, yaml.Dumper]
    dumpers += [getattr(yaml, name) for name in ("CSafeDumper", "CDumper") if hasattr(yaml, name)]
    for dumper in dumpers:
        for kind, represent in kinds:
            dumper.add_multi_representer(kind, represent)
    return True
