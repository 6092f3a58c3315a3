"""Changes a person's document to another state, and keeps its comments, order and style.

The text is kept, and pieces of it are replaced, at the offsets that the parser has reported: values that differ, and
entries that came and went. This module decides which comment belongs to which entry (docs/format.md has the rules). If
it is not certain how a node changes, it is written as `dumping` writes it, and the text around it stays.

The state does not depend on this module: changed pieces of the document are read again, and if they do not have the
right state, the canonical document is written instead. Only `_read_pieces` must be right: it combines the changed
pieces with the unchanged ones, which were read before.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Callable, Iterator
from typing import Any

from pstate.logger import Logger
from pstate.text import block, dumping, reading
from pstate.text.canonical import has_comment_line as has_comment_line  # the other questions of a vacuum
from pstate.text.canonical import is_canonical
from pstate.text.canonical import literals as literals
from pstate.text.habits import Habits, is_chosen
from pstate.text.layout import Layout
from pstate.text.lines import Lines
from pstate.text.matching import (
    MERGES,
    Rearranged,
    alike,
    beside_merges,
    elements_from,
    instead_of_merges,
    keys_from,
    printed,
    staying_of,
)
from pstate.text.parts import BOM, Parts
from pstate.text.places import (
    COMMENT,
    PROPERTIES,
    Edit,
    Uncertain,
    applied,
    by_place,
    skip,
    within,
)
from pstate.text.style import LONGEST_FLOW, PLAIN_FLOW, Block, over_lines
from pstate.values import SCALARS, identity, same

logger = Logger("pstate.text.splice")

State = dict[Any, Any]
Load = Callable[[bytes, str], reading.Base]
#: How often the document is searched for aliases whose anchor has changed; after that, no alias stays.
_ROUNDS = 3
#: Marks an anchor that no alias may name any more.
_GONE = object()


def rewrite(base: bytes, state: State, canonical: Callable[[], bytes], path: str) -> bytes:
    """The document *base* of the file *path*, with as few changes as possible so that its state is *state*.

    A base marker can follow it. *base* is a document that `reading.load` reads, *canonical* returns the document of
    `dumping.dump` for *state*. That is the result if nothing of *base* is worth keeping, or can be kept.
    """
    if not has_comment_line(base) and is_canonical(base, canonical()) and literals(base) <= literals(canonical()):
        return canonical()
    reason: object = "the result would have another state"
    for coarse in (False, True):
        try:
            text, load = _spliced(base, state, path, coarse)
            if load is None:
                return text
            found = load(text, path)
            if found.appendable and alike(found.value, state):
                return text
        except (Uncertain, ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
            reason = error  # a mistake in this module must not keep a state from being written
    logger.warning(
        "%s: the file was rewritten without its comments and its layout, which could not be kept: %s", path, reason
    )
    return canonical()


def _spliced(base: bytes, state: State, path: str, coarse: bool = False) -> tuple[bytes, Load | None]:
    """The new document, and the function that has to read it again; None if its state is certain.

    With *coarse*, each value of a root key that changes is rewritten as a whole.
    """
    bom = BOM if base.startswith(BOM) else b""
    original = base.removeprefix(BOM).decode("utf-8")
    newline = "\r\n" if original.partition("\n")[0].endswith("\r") else "\n"
    if original and not original.endswith("\n"):
        original += newline  # if that changes the value of a block scalar, it differs, and is rewritten
    text = original.replace("\r\n", "\n")
    value, parts = reading.trace(text.encode(), path)
    named: dict[str, Any] = {}  #: the values of anchors in the new document that differ from those in the old one
    left = _ROUNDS
    while True:
        splice = _Splice(text, parts, named, coarse)
        splice.document(value, state)
        if not left or all(named.get(name, _Splice) is value for name, value in splice.named.items()):
            break
        # Once more: aliases that name these may have to go, and may be in nodes that others name.
        named = splice.named if left > 1 else dict.fromkeys([name for _, name in parts.named(aliases=False)], _GONE)
        left -= 1
    edits = sorted(splice.edits, key=by_place)
    found = _read_pieces(splice, value, edits)
    load: Load | None = reading.load if parts.is_quick else reading.load_events  # it stays quick, or not
    if found is not None and alike(found, state):
        load = None
    if "\r" in original:
        edits = list(_with_returns(edits, original, newline))
    return bom + applied(original, 0, len(original), edits).encode(), load


def _read_pieces(splice: _Splice, value: Any, edits: list[Edit]) -> State | None:
    """The state of the document with the *edits*, if it is *value* without them; None if that is not certain.

    Lines that do not change keep their meaning: in documents of the quick reader, a key of the root ends everything
    before it, and does not depend on it. So the document is split at these keys, and read again with a single line in
    place of each piece that stays. Reading all of it would take as long as all the other steps.

    Such a line is read as a key of the root only if the piece before it is complete: a string in quotes cannot continue
    over its two quotes, and in a flow collection it is not a key of the root.
    """
    text = splice.text
    keys = splice.entries(0, len(value)) if splice.is_quick and value else None
    if keys is None or splice.styles[0] == "flow" or splice.column(splice.starts[0]):
        return None
    bounds = [block.body_start(text), *[splice.starts[key] for key, _ in keys[1:]], len(text) + 1]
    if edits and edits[0][0] < bounds[0]:
        return None
    pieces = ['_: "\'"\n']  # so that what follows is a key, too
    names = list(value)
    staying: dict[str, Any] = {}  #: names by the keys that replace them
    number = place = 0  # of the piece, and of the edit
    while number < len(names):
        first, known, start, stop = number, place, bounds[number], bounds[number + 1]
        number += 1
        while place < len(edits) and edits[place][0] < stop:
            while edits[place][1] > stop:
                number += 1
                stop = bounds[number]
            place += 1
        if known == place:
            staying[f"_{first}"] = names[first]
            lines = f'_{first}: "\'"\n'
        else:
            lines = applied(text, start, stop, edits[known:place])
            # Blank lines and comments could belong to a block of text above them.
            if (first and lines.startswith((" ", "\n", "#"))) or (lines and not lines.endswith("\n")):
                return None
        pieces.append(lines)
    read = block.read("".join(pieces).encode(), reading.resolve)
    if read is block.UNSURE or read is None or not staying.keys() <= read.keys():
        return None
    del read["_"]
    found = {staying.get(key, key): value[staying[key]] if key in staying else item for key, item in read.items()}
    return found if len(found) == len(read) else None


def _with_returns(edits: list[Edit], original: str, newline: str) -> Iterator[Edit]:
    """The *edits* of the *original* text without its carriage returns, for that text."""
    returns = [found.start() - number for number, found in enumerate(re.finditer("\r", original))]
    for start, end, new in edits:
        yield (
            start + bisect_left(returns, start),
            end + bisect_left(returns, end),
            new.replace("\n", newline),
        )


class _Splice(Habits):
    """The edits of one document. Nodes are named by the number of their part."""

    def __init__(self, text: str, parts: Parts, known: dict[str, Any], coarse: bool) -> None:
        super().__init__(text, parts)
        self.is_quick, self.merges = parts.is_quick, parts.merges
        # Only NaN is not equal to itself.
        self.has_nan = "nan" in text.lower()
        self.coarse = coarse
        self.anchors = [i for i, _ in parts.named(aliases=False)]
        self.known = known  #: the new values of anchors, if they differ from the old ones
        self.aliases = [i for i, _ in parts.named(aliases=True)]
        self.dangling = [i for i in self.aliases if self.names[i] in known]
        self.named = known.copy()  #: the same, as found in this round
        self.flow = PLAIN_FLOW  #: the style of the outermost flow collection around the present node

    # -- the document

    def document(self, old: Any, new: State) -> None:
        if not self.kinds:
            self.edits.append((len(self.text), len(self.text), dumping.dump(new).decode()))
            return
        try:
            if old is None:
                raise Uncertain
            if self.styles[0] == "flow":
                self.flow = self.flow_style(0)
            if not self.is_unchanged(0, old, new):
                self.change(0, old, new, 0)
        except Uncertain:
            self.edits.clear()
            self.replace_root(new)
        start, end = self.starts[-1], self.ends[-1]
        if self.kinds[-1] == "document end" and start < end:
            # No line of ours may follow a `...` of the document itself.
            behind = self.text[end : self.line_after(end)]
            self.edits.append((start, end + len(behind) - len(behind.lstrip()), ""))

    def replace_root(self, new: State) -> None:
        """Replace all entries. The lines above the first key, and after the last one, stay."""
        self.lose(0, self.after[0])
        if self.styles[0] == "flow" and self.flow.is_json:
            self.edits.append((self.starts[0], self.end(0), self.flow.text(new)))
            return
        comment = None if self.is_block(0) else COMMENT.match(self.text, self.end(0))
        line = self.line_of(self.starts[0])
        before = self.text[line : self.starts[0]].rstrip()  # perhaps "---"
        text = comment[0] if comment else ""
        text = before + text if before else text.lstrip(" \t")
        stop = self.content_end(0)
        written = dumping.dump(new).decode()
        if self.would_swallow(new, stop, 0):
            *pairs, last = new.items()
            written = (dumping.dump(dict(pairs)).decode() if pairs else "") + PLAIN_FLOW.pair(*last) + "\n"
        self.edits.append((line, stop, (text + "\n" if text else "") + written))

    # -- what changes

    def lose(self, start: int, stop: int) -> None:
        """Note that no alias may name an anchor in the parts from *start* to *stop* any more."""
        anchors = self.anchors
        if anchors:
            for i in anchors[bisect_left(anchors, start) : bisect_left(anchors, stop)]:
                self.named[self.names[i] or ""] = _GONE

    def is_unchanged(self, i: int, old: Any, new: Any) -> bool:
        """Whether node *i* may stay. In doubt, a collection may not, and its values are compared one by one."""
        if not self.is_sound(i):
            if self.kinds[i] != "alias":
                return False
            says = self.known[self.names[i] or ""]
            return says is not _GONE and alike(says, new)
        if old.__class__ is str:
            return new.__class__ is str and old == new
        if old.__class__ in SCALARS or old.__class__ is set:
            return same(old, new)
        # If they differ, the comparison is mostly short.
        return (old == new or self.has_nan) and printed(old) == printed(new)

    def visit(self, i: int, old: Any, new: Any, at: int, indent: int) -> None:
        """Change node *i* from *old* to *new*. It follows a colon or dash that ends at *at*, in a block whose entries
        are after *indent* columns; or, with a negative *at*, it is in a flow collection.
        """
        known = len(self.edits)
        if at >= 0 and self.styles[i] == "flow":
            self.flow = self.flow_style(i)
        if self.coarse or old.__class__ in SCALARS:
            self.replace(i, old, new, at, indent)
        else:
            try:
                self.change(i, old, new, at)
            except Uncertain:
                del self.edits[known:]
                self.replace(i, old, new, at, indent)
        name = self.anchor(i)
        if name and self.named.get(name) is not _GONE and not alike(old, new):
            self.named[name] = new

    def anchor(self, i: int) -> str:
        """The name of the anchor of node *i*, or ""."""
        return "" if self.kinds[i] == "alias" else self.names[i] or ""

    def change(self, i: int, old: Any, new: Any, at: int) -> None:
        """`visit` for a collection whose entries stay if they are the same. Raises Uncertain."""
        if old.__class__ is not new.__class__ or old.__class__ in SCALARS or not old or not new:
            raise Uncertain
        entries = self.entries(i, len(old))
        if entries is None:
            if self.is_sound(i) and alike(old, new):
                return
            raise Uncertain
        if self.after[i] - 1 in self.merges:
            change = self.merging(i, entries, old, new)
        elif self.kinds[i] == "mapping":
            values = list(new.values())
            change = Rearranged(entries, keys_from(old, new), list(old), list(old.values()), values, list(new))
        else:
            source, equal = elements_from(old, new)
            change = Rearranged(entries, source, [], old, new, [], equal)
        if self.styles[i] == "flow":
            self.change_flow(i, change, at)
        else:
            self.change_block(i, change)

    def is_sound(self, i: int) -> bool:
        """Whether no alias in node *i* names an anchor whose node has changed."""
        dangling = self.dangling
        return not dangling or bisect_left(dangling, i) == bisect_left(dangling, self.after[i])

    def entries(self, i: int, count: int) -> list[tuple[int, int]] | None:
        """Key and value of each pair in mapping *i*, merge keys too; of each element in a list the same twice.

        None if its text does not show them: with a tag, with an alias as a key that must go, or for an alias.
        """
        kinds, tagged, after = self.kinds, self.tagged, self.after
        if tagged[i] or kinds[i] not in ("mapping", "sequence"):
            return None
        is_mapping = kinds[i] == "mapping"
        found = []
        j = i + 1
        while kinds[j] != "end":
            key = j
            if is_mapping:
                if tagged[key] or (kinds[key] != "scalar" and self.names[key] in self.known):
                    return None
                j += 1
            found.append((key, j))
            j = after[j]
        return found if len(found) == count or after[i] - 1 in self.merges else None

    # -- merge keys

    def merging(self, i: int, entries: list[tuple[int, int]], old: dict[Any, Any], new: dict[Any, Any]) -> Rearranged:
        """The change of mapping *i*, which has merge keys. They stay if all the pairs that they bring are right, where
        own keys win over merged ones. Otherwise the first one is replaced by the pairs that it has brought.
        """
        own, parts = self.merges[self.after[i] - 1]
        marks = [number for number, (key, _) in enumerate(entries) if self.source(key) == "<<"]
        merges = set(marks)
        numbers = [number for number in range(len(entries)) if number not in merges]
        if len(numbers) != len(own):
            raise Uncertain
        keys = dict(zip(numbers, own, strict=True))
        origins = {identity(key): number for number, key in keys.items()}
        written_out: dict[int, dict[Any, Any]] = {}
        brought = self.brought([entries[number][1] for number in marks], parts)
        places = None if brought is None else beside_merges(len(entries), keys, origins, brought, new)
        if places is None:
            places, pairs = instead_of_merges(marks[0], origins, new)
            if pairs:
                written_out[marks[0]] = pairs
                self.lose(entries[marks[0]][0], self.after[entries[marks[0]][1]])
        return Rearranged(
            entries,
            [origin for origin, _ in places],
            list(own),
            [old[keys[number]] if number in keys else None for number in range(len(entries))],
            [None if key is MERGES else new[key] for _, key in places],
            [key for _, key in places],
            merges=merges,
            written_out=written_out,
        )

    def brought(self, nodes: list[int], parts: list[dict[Any, Any]]) -> dict[Any, Any] | None:
        """The pairs that merge keys with these values will bring, if they stay; None if they cannot.

        They have brought the *parts*; later ones win over earlier ones.
        """
        if not all(map(self.is_sound, nodes)):
            sources = [source for node in nodes for source in self.merged_nodes(node)]
            if len(sources) != len(parts):
                return None
            parts = parts.copy()
            for number, source in enumerate(sources):
                if self.is_sound(source):
                    continue
                says = self.known[self.names[source] or ""] if self.kinds[source] == "alias" else None
                if not isinstance(says, dict):
                    return None
                parts[number] = says
        return {key: value for part in parts for key, value in part.items()}

    def merged_nodes(self, i: int) -> list[int]:
        """The mappings that a merge key with the value *i* merges. The first one in a list wins over the others."""
        if self.kinds[i] != "sequence":
            return [i]
        found = []
        j = i + 1
        while self.kinds[j] != "end":
            found.append(j)
            j = self.after[j]
        return found[::-1]

    # -- rewriting a node

    def replace(self, i: int, old: Any, new: Any, at: int, indent: int) -> None:
        kind, start, end, style = self.kinds[i], self.starts[i], self.ends[i], self.styles[i]
        self.lose(i + 1, self.after[i])
        name = self.anchor(i)
        anchor = f"&{name} " if name else ""
        if at < 0:
            if start == end:
                raise Uncertain
            self.edits.append((start, self.end(i), anchor + self.flow_inline(i, old, new)))
            return
        is_inline = kind == "alias" or (kind == "scalar" and style not in ("|", ">"))
        if new.__class__ in SCALARS and is_inline:
            text = self.inline(style, old, new)
            if text:
                self.edits.append((at, at, " " + text) if start == end else (start, end, anchor + text))
                return
        if style == "flow" and old and new and new.__class__ in (dict, list) and new.__class__ is old.__class__:
            text = self.flow.text(new, self.indent(start))
            if "\n" in text or self.column(start) + len(text) <= LONGEST_FLOW:
                self.edits.append((start, self.end(i), anchor + text))
                return
        stop = self.content_end(i)
        text = self.lines(i, new, stop, indent) or self.fresh(i, new, at, stop, indent)
        first, _, rest = text.partition("\n")
        if name:
            first = f" &{name}{first}"
        self.edits.append((at, stop, first + self.comment(i, at) + "\n" + rest))

    def fresh(self, i: int, new: Any, at: int, stop: int, indent: int) -> str:
        """The text that replaces node *i*, from the colon or dash that ends at *at* up to *stop*."""
        if self.would_swallow(new, stop, indent):
            return " " + PLAIN_FLOW.text(new) + "\n"
        style = self.block_style(i)
        if self.text[at - 1] != "-":
            return style.value(new, " " * indent)
        if self.anchor(i):
            # Before a mapping that begins in the same line, the anchor would be that of the first key.
            return Block(style.step, "  ", style.gap).value(new, " " * indent)
        return style.behind_dash(new, " " * indent)

    def lines(self, i: int, new: Any, stop: int, indent: int) -> str:
        """*new* as a scalar over several lines, like node *i*, up to *stop*; "" if that is not possible."""
        if self.styles[i] not in ("|", ">") or new.__class__ is not str:
            return ""
        source = self.text[skip(PROPERTIES, self.text, self.starts[i]) : self.ends[i]]
        header, _, rest = source.partition("\n")
        header = header.partition("#")[0]
        lines = rest.rstrip().split("\n")
        digits = [int(mark) for mark in header if mark.isdigit()]
        first = next((line for line in lines if line.strip(" ")), " " * indent + self.step(i))
        column = indent + digits[0] if digits else len(first) - len(first.lstrip(" "))
        if column <= indent or self.would_go_on(new, stop, column - 1):
            return ""
        text = over_lines(new, self.styles[i], " " * indent, " " * column, header, lines)
        return " " + text if text else ""

    def close(self, i: int, value: Any) -> None:
        """Write the block of text at the end of node *i*, which was *value*, in one line, unless it has changed."""
        last = self.last(i)
        start, stop = self.starts[last], self.content_end(last)
        if any(edit[0] < stop and start < edit[1] for edit in self.edits):
            return
        if self.names[last] is not None or self.tagged[last] or self.styles[last] not in ("|", ">"):
            raise Uncertain
        while isinstance(value, dict | list):
            value = value[-1] if isinstance(value, list) else next(reversed(value.values()))
        header = self.text[start : self.line_after(start) - 1]
        comment = COMMENT.search(header)
        self.edits.append((start, stop, PLAIN_FLOW.text(value) + (comment[0] if comment else "") + "\n"))

    def inline(self, style: str, old: Any, new: Any) -> str:
        """*new* in one line, with the quotes of *old* if a person chose them; "" if it should have several lines."""
        if new.__class__ is str and style in ("'", '"') and "\n" not in new:
            text = dumping.quoted_text(new, style) if is_chosen(style, old) else None
            if text is not None:
                return text
        text = dumping.block_scalar(new, " ")
        return "" if "\n" in text else text

    def flow_inline(self, i: int, old: Any, new: Any) -> str:
        """The same for node *i* in a flow collection."""
        style = self.styles[i]
        if new.__class__ is str and style in ("'", '"') and not self.flow.is_json and is_chosen(style, old):
            text = dumping.quoted_text(new, style)
            if text is not None:
                return text
        return self.flow.text(new, self.indent(self.starts[i]))

    # -- flow collections

    def change_flow(self, i: int, change: Rearranged, at: int) -> None:
        start, known = self.starts[i], len(self.edits)
        if start == self.ends[i]:
            raise Uncertain  # `[a: 1]`, a mapping without brackets
        for value, old, new, _ in self.changed(change):
            self.visit(value, old, new, -1, 0)
        if change.written_out or not change.in_place:
            self.rebuild_flow(i, change, known)
        if at >= 0:
            end = self.end(i)
            text = applied(self.text, start, end, sorted(self.edits[known:], key=by_place))
            longest = max(LONGEST_FLOW, self.column(start) + end - start)
            is_json = not i and self.flow.is_json  # and must stay JSON
            if "\n" not in text and self.column(start) + len(text) > longest and not is_json:
                raise Uncertain

    def changed(self, change: Rearranged) -> Iterator[tuple[int, Any, Any, int]]:
        """The values that differ in entries that stay: node, old value, new value, number of the entry."""
        for number, origin in enumerate(change.source):
            if origin is None or origin in change.merges:
                continue
            if origin not in change.equal or self.dangling:
                value, old, new = change.entries[origin][1], change.old[origin], change.new[number]
                if not self.is_unchanged(value, old, new):
                    yield value, old, new, origin

    def rebuild_flow(self, i: int, change: Rearranged, known: int) -> None:
        """Write a flow collection from the text of the entries that stay, and of new ones."""
        inner, self.edits[known:] = sorted(self.edits[known:], key=by_place), []
        spans = self.spans(change)
        begin, end = skip(PROPERTIES, self.text, self.starts[i]) + 1, self.end(i) - 1
        bounds = [begin, *[offset for span in spans for offset in span], end]
        gaps = [self.text[start:stop] for start, stop in zip(bounds[::2], bounds[1::2], strict=True)]
        layout = Layout(gaps, self.flow.tight, self.indent(self.starts[i]))
        bodies = []
        for number, origin in enumerate(change.source):
            if origin in change.written_out:
                pairs = change.written_out[origin].items()
                bodies.append(layout.between.join([self.flow.pair(*pair, layout.indent) for pair in pairs]))
            elif origin is not None:
                start, stop = spans[origin]
                body = applied(self.text, start, stop, within(inner, start, stop))
                bodies.append(body + " " if body.endswith(":") else body)  # before a comma, YAML needs the blank
            elif self.kinds[i] == "mapping":
                bodies.append(self.flow.pair(change.keys[number], change.new[number], layout.indent))
            else:
                bodies.append(self.flow.text(change.new[number], layout.indent))
        self.lose_entries(i, change)
        self.edits.append((begin, end, layout.text(change.source, bodies)))

    def spans(self, change: Rearranged) -> list[tuple[int, int]]:
        """Where the text of each entry of a flow collection is."""
        text, starts = self.text, self.starts
        found = []
        for key, value in change.entries:
            is_empty = starts[value] == self.ends[value]
            last = self.end(key if is_empty else value)
            if is_empty and text[last : last + 1] == ":":
                last += 2 if text[last + 1] == " " else 1
            found.append((starts[key], last))
        return found

    def lose_entries(self, i: int, change: Rearranged) -> None:
        """`lose` the anchors in entries that are gone, and those that would come to follow one of their aliases."""
        for number in set(range(len(change.entries))).difference(change.kept):
            key, value = change.entries[number]
            self.lose(key, self.after[value])
        if change.kept == sorted(change.kept) or not self.anchors:
            return
        places: dict[str, int] = {}  #: of anchors, in the new order of the entries
        for is_alias in (False, True):
            numbers = self.aliases if is_alias else self.anchors
            for place, origin in enumerate(change.kept):
                key, value = change.entries[origin]
                for j in numbers[bisect_left(numbers, key) : bisect_left(numbers, self.after[value])]:
                    name = self.names[j] or ""
                    if not is_alias:
                        places[name] = place
                    elif places.get(name, -1) > place and origin not in change.written_out:
                        self.named[name] = _GONE

    # -- blocks

    def change_block(self, i: int, change: Rearranged) -> None:
        lines = Lines(self, i, change.entries)
        style = self.block_style(i, change) if change.written_out or not change.in_place else Block()
        staying = staying_of(change.source)
        if not staying:
            raise Uncertain
        moved: dict[int, list[Edit]] = {origin: [] for origin in change.kept if origin not in staying}
        for value, old, new, entry in self.changed(change):
            known = len(self.edits)
            self.visit(value, old, new, lines.at(entry), lines.column)
            if entry in moved:
                moved[entry], self.edits[known:] = sorted(self.edits[known:], key=by_place), []
        for entry, pairs in change.written_out.items():
            edit = lines.write_out(entry, pairs, style)
            moved.get(entry, self.edits).append(edit)
        if change.in_place:
            return
        self.lose_entries(i, change)
        written: dict[int, str] = {}  #: the lines of the new entries
        before: int | None = None
        lines.place(before)  # raises Uncertain
        for number, origin in enumerate(change.source):
            if origin in staying:
                before = origin
                continue
            place = lines.place(before)
            above = ""
            if origin is not None:
                # A blank line may come to follow it, too, if the text in between is deleted.
                keeps = self.any_keeps(change.entries[origin][1]) and self.has_blank_line(0, lines.column, keeps=True)
                if not keeps and not lines.is_open(origin, place):
                    written[number] = lines.moved(origin, moved[origin])
                    continue
                if origin in change.merges:
                    raise Uncertain
                above = lines.above(origin)
            key = None if lines.is_list else change.keys[number]
            written[number] = above + lines.new(key, change.new[number], place, style)
        gone = set(range(len(change.entries))) - staying
        lines.insert(change.source, written)
        for entry in lines.delete(gone):
            self.close(change.entries[entry][1], change.old[entry])
