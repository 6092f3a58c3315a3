"""Makes plain trees from the events of PyYAML's parsers. They define what a document means.

Reading uses PyYAML's *events*, not its loaders: these share aliased objects, keep the last of two equal keys, have no
limit on depth or on aliases, and the C one overflows the stack of the interpreter. PyYAML's own tables and constructors
still decide what a plain scalar means, so that a person's file is read exactly as `yaml.safe_load` reads it. Merge keys
are read by their specification, from which PyYAML 6.0.4 deviates.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NoReturn

from pstate.text import tables
from pstate.text.parts import BOM, EXPANSION_FACTOR, EXPANSION_FREE, WIDTH, Merged

if TYPE_CHECKING:
    from pstate.text.tables import Mark
from pstate.text.mistakes import (
    Refused,
    Twice,
    explain,
    invalid,
    line_and_column,
    place_of_key,
    short,
    surrogate,
    too_deep,
)
from pstate.text.scalars import DECIMAL_DIGITS
from pstate.text.tables import TAG, PyYaml
from pstate.values import ordered


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
"""Called with a plain scalar's text, its value, line and column. True: call it again if the same text occurs again."""


def read(
    data: bytes,
    path: str,
    limit: int,
    lines_before: int = 0,
    single: bool = False,
    notice: Notice | None = None,
    parts: list[Any] | None = None,
    merges: dict[int, Merged] | None = None,
) -> list[Document]:
    """All documents of *data*. A base document (*single*) has one, which must be a mapping or null.

    Its parts are appended to *parts*, and the pairs of its merge keys go into *merges*.
    """
    content = data.removeprefix(BOM)
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError as error:
        line, column = line_and_column(content, error.start)
        offset = error.start + len(data) - len(content)
        what = f"byte 0x{data[offset]:02x} at offset {offset} is not UTF-8 ({error.reason})"
        raise invalid(path, line + lines_before, column, what, "Save the file as UTF-8") from None

    yaml = tables.pyyaml()
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
    except Twice as refused:
        if parts is None:  # read it once more, to find the first of the two
            read(data, path, limit, lines_before, single, parts=[])
        what = refused.what + place_of_key(parts or [], text, refused.number, refused.mark.line, lines_before)
        raise invalid(
            path, refused.mark.line + 1 + lines_before, refused.mark.column + 1, what, refused.remedy
        ) from None
    except Refused as refused:
        line, column = refused.mark.line + 1 + lines_before, refused.mark.column + 1
        raise invalid(path, line, column, refused.what, refused.remedy) from refused.__cause__
    except yaml.ReaderError:
        found = yaml.not_printable.search(text)
        offset = 0 if found is None else len(text[: found.start()].encode())
        line, column = line_and_column(content, offset)
        which = "a character" if found is None else f"U+{ord(found.group()):04X}"
        what = f"YAML does not allow {which} as it is"
        raise invalid(path, line + lines_before, column, what, "Write it as an escape in double quotes") from None


def _recording(yaml: PyYaml, next_event: Callable[[], Any], parts: list[Any]) -> Callable[[], Any]:
    Scalar, MappingStart, MappingEnd, Alias = yaml.Scalar, yaml.MappingStart, yaml.MappingEnd, yaml.Alias
    SequenceStart, SequenceEnd, DocumentEnd = yaml.SequenceStart, yaml.SequenceEnd, yaml.DocumentEnd
    plain_lists = (None, "!", TAG + "seq")
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

_NO_SUCH_KEY = ("a list or a mapping cannot be a key", "Use a string or a number as the key")

# The kinds of a collection that is being read.
_LIST, _DICT, _SET, _OMAP, _PAIR = range(5)
_SEQUENCE_KINDS = {None: _LIST, "!": _LIST, TAG + "seq": _LIST, TAG + "omap": _OMAP, TAG + "pairs": _OMAP}
_MAPPING_KINDS = {None: _DICT, "!": _DICT, TAG + "map": _DICT, TAG + "set": _SET}


# Scalars that the tables take for a float and PyYAML passes to float(), but in ten times the time.
_SIMPLE_FLOAT = re.compile(r"-?[0-9]+\.[0-9]+(?:[eE][-+][0-9]+)?").fullmatch


class _Reader:
    """Turns a parser's events into plain trees, without recursion.

    An alias becomes a copy, so that the result is a tree; keys are unique; depth and growth by aliases are limited.
    """

    def __init__(
        self, yaml: PyYaml, next_event: Callable[[], Any], limit: int, size: int, single: bool, text: str
    ) -> None:
        self.yaml = yaml
        self.text = text
        self.next_event = next_event
        self.limit = limit
        self.room = max(EXPANSION_FREE, EXPANSION_FACTOR * size)
        self.expanded = 0
        self.single = single
        # Scalars are immutable, so equal ones can share one object. Keys occur again and again.
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
                        raise Refused("a second document begins here", "Keep one document in the file")
                    self.anchors = {}
                    value, explicit_end = self.document()
                    if self.single and value is not None and value.__class__ is not dict:
                        what = {list: "a list", set: "a set"}.get(value.__class__, "a single value")
                        what = f"this is {what}, where a state is a mapping"
                        raise Refused(what, "Begin with a line like `key: value`", event.start_mark)
                    found.append(Document(value, event.start_mark.line + 1, explicit_end))
                elif kind is yaml.StreamEnd:
                    return found
        except Refused as refused:
            refused.mark = refused.mark or self.event.start_mark
            raise
        except yaml.MarkedError as error:
            mark = error.problem_mark or error.context_mark or self.event.start_mark
            if "nesting depth" in str(error.problem):
                # A limit of libyaml, which it reaches before us because it reads ahead.
                raise too_deep(mark) from None
            context = error.context
            explained = explain(str(error.problem), context or "", self.text, mark.index)
            if explained is not None:
                raise Refused(f"not YAML: {explained[0]}", explained[1], mark) from None
            if context and error.context_mark and error.context_mark.line != mark.line:
                context += f" that begins in line {error.context_mark.line + 1}"
            what = ", ".join(part for part in (context, error.problem) if part)
            raise Refused(f"not YAML: {what}", mark=mark) from None

    def document(self) -> tuple[Any, bool]:
        """The value of the document that has begun, and whether it ends with a `...` line.

        The loop is one long function because it runs for each event, and its state is in local variables.
        """
        yaml = self.yaml
        next_event, memo, limit = self.next_event, self.memo, self.limit
        resolvers, is_pure = yaml.resolvers, yaml.is_pure
        Scalar, MappingStart, MappingEnd = yaml.Scalar, yaml.MappingStart, yaml.MappingEnd
        SequenceStart, SequenceEnd, Alias = yaml.SequenceStart, yaml.SequenceEnd, yaml.Alias

        root: list[Any] = []
        stack: list[Any] = []
        # The innermost open collection. `append` is None in a mapping, and `key` is its key that waits for a value.
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
                    explained = explain("", "", self.text, event.start_mark.index)
                    raise Refused(*explained or _NO_SUCH_KEY)
                if len(stack) >= limit:
                    raise too_deep()
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
                    raise Refused(*_NO_SUCH_KEY)

            else:
                break  # the end of the document

            if append is not None:
                append(value)
            elif key is _NO_KEY:
                if value.__class__ is not str:
                    if value is _VALUE:
                        value = "="
                    elif value != value:
                        raise Refused("NaN cannot be a key, because it is not equal to itself", "Use another key")
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
        """The value of the plain scalar *text* by PyYAML's tables."""
        value: Any = text
        if text.isdigit() and "1" <= text[0] <= "9" and text.isascii() and len(text) <= DECIMAL_DIGITS:
            value = int(text)
        elif _SIMPLE_FLOAT(text) is not None:
            value = float(text)
        else:
            for tag, matches in self.yaml.resolvers.get(text[:1], ()):
                if matches(text):
                    value = self.construct(tag, text, as_key)
                    break
        if value.__class__ is not _Sentinel:  # These are allowed only in some places, so they are checked each time.
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
        if tag == TAG + "str" or tag == "!":
            return text
        return self.construct(tag, text, as_key)

    def construct(self, tag: str, text: str, as_key: bool) -> Any:
        if tag == TAG + "merge" or tag == TAG + "value":
            if not as_key:
                raise Refused(f"a plain {text} has a special meaning in YAML", "Put it in quotes")
            return _MERGE if tag == TAG + "merge" else _VALUE
        constructor = self.yaml.constructors.get(tag)
        if constructor is None:
            self.refuse_tag(tag, "a scalar")
        try:
            return constructor(text)
        except (ValueError, LookupError, AttributeError, ArithmeticError, self.yaml.Error) as error:
            what = f"{short(text)} is not a valid {tag.removeprefix(TAG)}"
            if isinstance(error, ValueError | ArithmeticError) and text.isprintable():
                what += f" ({str(error).partition(':')[0]})"
            raise Refused(what, "Correct it, or put it in quotes to make it a string") from error

    def refuse_tag(self, tag: str, what: str) -> NoReturn:
        known = tag in _SEQUENCE_KINDS or tag in _MAPPING_KINDS or tag in self.yaml.constructors
        shown = "!!" + tag.removeprefix(TAG) if tag.startswith(TAG) else tag if tag[:1] == "!" else f"!<{tag}>"
        if known:
            raise Refused(f"the tag {shown} does not fit {what}", "Remove the tag")
        raise Refused(f"the tag {shown} is not one that pstate can store", "Remove the tag, and store plain values")

    @staticmethod
    def refuse_surrogates(text: str) -> None:
        # libyaml refuses them, but the pure parser accepts them.
        found = None if text.isascii() else re.search("[\ud800-\udbff][\udc00-\udfff]|[\ud800-\udfff]", text)
        if found is not None:
            raise Refused(*surrogate("".join([f"\\u{ord(character):04x}" for character in found[0]])))

    # -- collections

    def finish(self, container: Any, kind: int, depth: int, mark: Mark) -> Any:
        if kind == _SET:
            return set(self.merged(container, depth))
        if kind == _PAIR:
            if len(container) != 2:
                raise Refused("each entry of an !!omap or !!pairs has one key", "Begin a new entry", mark)
            return container
        if not all(type(pair) is _Pair for pair in container):
            raise Refused("the entries of an !!omap or !!pairs are mappings of one key", "Write - key: value", mark)
        return [list(pair) for pair in container]

    def merge(self, value: Any, depth: int) -> None:
        parts = value if type(value) is list else [value]
        for part in parts:
            if type(part) is not dict and type(part) is not set:
                raise Refused("only mappings can be merged by <<", "Put << in quotes if it is an ordinary key")
        # The first one in a list wins. A set is a mapping to nulls.
        parts = [part if type(part) is dict else dict.fromkeys(ordered(part)) for part in reversed(parts)]
        self.merges.setdefault(depth, []).extend(parts)

    def merged(self, own: dict[Any, Any], depth: int) -> dict[Any, Any]:
        """*own* with the pairs of its merge keys: they come before its own in order, which win."""
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
            raise Twice(f"the key {short(key)} occurs twice in this mapping", "Keep one of the two", number)
        what = f"the key {short(key)} is equal to the key {short(first)} before it"
        raise Twice(what, "Put one in quotes", number)

    # -- anchors and aliases

    def open_anchor(self, event: Any) -> None:
        if event.anchor in self.anchors:
            raise Refused(f"the anchor &{event.anchor} occurs twice", "Rename one of the two")
        self.anchors[event.anchor] = _OPEN, self.expanded

    def close_anchor(self, start: Any, end: Any, value: Any) -> None:
        before = self.anchors[start.anchor][1]
        written = end.end_mark.index - start.start_mark.index
        if value.__class__ is _Pair and value[0].__class__ not in _COLLECTIONS:
            value = {value[0]: value[1]}  # Elsewhere it is an ordinary mapping.
        self.anchors[start.anchor] = value, written + self.expanded - before

    def alias(self, name: str, as_key: bool, depth: int) -> Any:
        found = self.anchors.get(name)
        if found is None:
            raise Refused(f"the alias *{name} has no anchor before it", "Correct the name")
        value, weight = found
        if value is _OPEN:
            raise Refused(f"the alias *{name} is inside the node that it names", "A state is a tree: write it out")
        self.expanded += weight
        if self.expanded > self.room:
            raise Refused("the aliases would expand this file too much", "Write the values out")
        if value.__class__ is _Sentinel:
            if not as_key:
                raise Refused(f"a plain {value.text} has a special meaning in YAML", "Put it in quotes")
            return value
        if value.__class__ in _COLLECTIONS:
            if as_key:
                raise Refused(*_NO_SUCH_KEY)
            return _copy(value, self.limit - depth)
        return value


_COLLECTIONS: frozenset[type] = frozenset((dict, list, set, _Pair))


def _copy(value: Any, levels: int) -> Any:
    if levels <= 0:
        raise too_deep()
    kind = value.__class__
    if kind is dict:
        return {k: _copy(v, levels - 1) if v.__class__ in _COLLECTIONS else v for k, v in value.items()}
    if kind is set:
        return value.copy()
    return kind(_copy(v, levels - 1) if v.__class__ in _COLLECTIONS else v for v in value)
