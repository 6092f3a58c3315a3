"""A document that a person wrote, changed so that it says another state: comments, order and style survive.

The text is kept, and pieces of it are replaced, at the offsets that the parser has named: values that differ, entries
that came and went. Which comment belongs to which entry is decided here (docs/format.md has the rules). Where it is not
certain how a node changes, it is written as `dumping` writes it, and what surrounds it stays.

Nothing here has to be right for the state to be right: what changes in the document is read again, and if it does not
say what it should, the canonical one is taken. What does not change was read to begin with; `_read_pieces` puts the two
together, and has to be right.
"""

from __future__ import annotations

import functools
import marshal
import re
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Any

from pstate.errors import InvalidStateError
from pstate.logger import Logger
from pstate.text import block, dumping, reading
from pstate.text.parts import Parts
from pstate.text.style import LONGEST_FLOW, PLAIN_FLOW, Block, Flow, common, over_lines
from pstate.values import SCALARS, identity, same

logger = Logger("pstate.text.splice")

State = dict[Any, Any]
Edit = tuple[int, int, str]  #: where the replaced text begins and ends, and what comes there
Load = Callable[[bytes, str], reading.Base]
Source = list[int | None]  #: for each entry, the number of the old one that it is, or None

#: How many elements are looked at to find the one that another has come from.
_FEW = 16
#: More than this, nobody means to indent.
_DEEPEST = 8
#: How many parts are looked at to find a style.
_MANY = 1000
#: How often the document is gone through for aliases whose anchor has changed; after that, no alias stays.
_ROUNDS = 3

_BOM = b"\xef\xbb\xbf"
_SPACE = re.compile(r"(?:[ \t\n]|#[^\n]*)*")  #: between two tokens
_NO_CONTENT = re.compile(r"[ \t]*(?:#[^\n]*)?\n")  #: a line without content
_COMMENT_LINE = re.compile(r"[ \t]*#")
_COMMENT = re.compile(r"[ \t]+#[^\n]*")
#: Above the first key: lines that cannot belong to it.
_ABOVE_ALL = re.compile(r"(?:(?:[ \t]*(?:#[^\n]*)?|%[^\n]*|---(?:[ \t]+#[^\n]*)?[ \t]*)\n)*")
#: A comment that tools read, and that speaks of the whole file: for editors, schemas, linters, licences, a shell.
_MODELINE = re.compile(
    r"(?m)^[ \t]*(?:#!|#(?:[^\n]*[ \t])?(?:-\*-[^\n]*-\*-|vim?:|ex:[ \t]*(?:set?[ \t]|[a-z]+=)|yaml-language-server:"
    r"|yamllint[ \t]|SPDX-[A-Za-z-]+:|\$schema:))[^\n]*\n"
)
#: Behind a colon or dash: anchor and tag, then a comment, then the end of the line.
_HEADER = re.compile(r"(?:[ \t]+[&!|>][^ \t\n]*)*([ \t]+#[^\n]*)?[ \t]*\n")
#: Anchor and tag of a node, and what stands between them and it.
_PROPERTIES = re.compile(r"(?:[&!][^ \t\n]*(?:[ \t\n]|#[^\n]*)*)*")
#: A line of a canonical document, or the lines of a text: indentation and dashes, and what stands behind them.
_CANONICAL = re.compile(rb"(?s)((?:  )*(?:- )*)([^ ].*)")
#: The end of a line that opens a block of text, or a set.
_OPENS_TEXT, _OPENS_SET = re.compile(rb"\|[-+]?\n"), re.compile(rb"!!set\n")
#: The line of a key or an element that begins a literal.
_LITERAL = re.compile(rb"[^\n]*[:-] \|[-+]?")
_BAR = re.compile(rb" \|[-+]?(?=\n)")
_INDENT = re.compile(r"[ \t]*")
_COLON = re.compile(r"[ \t\n]*:")
#: A dash, and what follows in its line.
_DASH = re.compile(r"-( +)(?=[^ \n#])")
#: What is no string for JSON, without quotes.
_JSON_WORD = re.compile(r"true|false|null|-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][-+]?[0-9]+)?")
_COMMENT_IN_FLOW = re.compile(r"#[^\n]*")
#: Between two entries that have a line each: a comma, a comment behind it, and further lines.
_GAP = re.compile(r"(?:[ \t]*,)?([ \t]*#[^\n]*)?[ \t]*(?:\n((?:[ \t]*(?:#[^\n]*)?\n)*[ \t]*))?")
_BLANK_LINES = re.compile(r"(?:[ \t]*\n)*")
_BLANK_LINE = re.compile(r"\n([ \t]*)(?=\n)")


#: Of an anchor: no alias may name it any more.
_GONE = object()
#: Of an entry: it is a merge key.
_MERGES = object()


class _Uncertain(Exception):
    """It is not certain how this node changes without harm to what surrounds it."""


def rewrite(base: bytes, state: State, canonical: bytes, path: str) -> bytes:
    """The document *base* of the file *path*, changed as little as possible so that it says *state*.

    A base marker can stand behind it. *base* is a document that `reading.load` reads, *canonical* what `dumping.dump`
    writes for *state*; that is returned where nothing of *base* is worth keeping, or can be kept.
    """
    if is_canonical(base, canonical) and literals(base) <= literals(canonical):
        return canonical
    reason: object = "it would not say what it should"
    for coarse in (False, True):
        try:
            text, load = _spliced(base, state, path, coarse)
            if load is None:
                return text
            found = load(text, path)
            if found.appendable and _alike(found.value, state):
                return text
        except (_Uncertain, ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
            reason = error  # whatever mistake is in here: a state must not become one that cannot be written
    logger.warning("%s: what a person wrote besides the values could not be kept in the document: %s", path, reason)
    return canonical


def literals(document: bytes) -> Counter[bytes]:
    """The lines of *document* that begin a literal. A person may have wanted one where `dumping.dump` writes none, and
    nothing else tells.
    """
    # A pattern that began with the line would be tried at each character.
    ends = [found.end() for found in _BAR.finditer(document)]
    lines = [document[document.rfind(b"\n", 0, end) + 1 : end] for end in ends]
    return Counter(filter(_LITERAL.fullmatch, lines))


def is_canonical(base: bytes, canonical: bytes) -> bool:
    """Whether *base* is as `dumping.dump` writes it, so that there is nothing to keep.

    *canonical* is what it wrote for a state that was made from *base*, so that most lines are in both.

    Each line is looked at, and whether what is below it is indented as it should be. To read the document would take
    ten times as long.
    """
    if base == canonical or not base:
        return True
    if not base.endswith(b"\n") or base.startswith((b" ", b"\n", b"#")) or base.endswith(b":\n"):
        return False
    lines = _lines(base)
    if b"\n#" in base or b"" in lines:
        return False  # a blank line is ours in a text only
    for line, following in pairwise(lines):
        if line.endswith(b":") and _width(following, b" ") != _width(line, b" -") + 2 and b"\n" not in line:
            return False
    ours = set(_lines(canonical))
    others = [line for line in lines if line not in ours]
    lines.append(b"")
    number = -1
    for line in others:
        number = lines.index(line, number + 1)
        if _goes_on(line, lines[number + 1]):
            return False
    if any(b" #" in line and b'"' not in line and b"\n" not in line for line in others):
        return False  # for sure, and soon
    found = [_CANONICAL.fullmatch(line) for line in others]
    items = [match[2] + b" null" if match[2].endswith(b":") else _below(match) for match in found if match is not None]
    if len(items) != len(found):
        return False
    text = b"".join([b"  - %b\n" % item for item in items])
    try:
        value = reading.load(b"_:\n" + text, "").value
    except InvalidStateError:
        return False
    if not items:
        return True
    if dumping.dump(value) != b"_:\n" + text:
        return False
    # A line without key and dash is a further one of the scalar above it.
    entries = zip(found, value["_"], strict=True)
    return all(item.__class__ is dict or (match and match[1].endswith(b"- ")) for match, item in entries)


def _lines(data: bytes) -> list[bytes]:
    """The lines of the document *data*; those of a block of text, or of a set, in one with the line that opens it.

    What is not indented as ours are is not taken for a part of it.
    """
    lines: list[bytes] = []
    position = 0
    # Two patterns that begin with one character each are found ten times as fast as one of both.
    opens = [*_OPENS_TEXT.finditer(data), *_OPENS_SET.finditer(data)]
    for found in sorted(opens, key=re.Match.start):
        if found.start() < position:
            continue  # in a text
        start, stop = data.rfind(b"\n", 0, found.start()) + 1, found.end()
        line = data[start:stop]
        margin = _width(line, b" -")
        margin += 2 * (start + margin != found.start())  # below a key
        lines += data[position:start].split(b"\n")[:-1]
        position = _match_below(margin)(data, stop).end()
        lines.append(data[start : position - 1])
    lines += data[position:].split(b"\n")[:-1]
    return lines


@functools.cache
def _match_below(margin: int) -> Any:
    return re.compile(rb"(?: {%d}[^\n]*\n|\n)*" % margin).match


def _below(found: re.Match[bytes]) -> bytes:
    """The lines that were *found* without indentation and dashes, as they stand below those of an element."""
    first, *others = found[2].split(b"\n")
    width = len(found[1])
    return b"\n".join([first, *[line and b"    " + line[width:] for line in others]])


def _goes_on(line: bytes, following: bytes) -> bool:
    """Whether a scalar that is plain and ends with its *line* in ours goes on in the *following* one."""
    column, other = _width(line, b" -"), _width(following, b" ")
    return other > column or (other == column and following.startswith(b"-", other))


def _width(line: bytes, characters: bytes) -> int:
    return len(line) - len(line.lstrip(characters))


def _alike(a: Any, b: Any) -> bool:
    """Whether two plain trees are the same, in the order of their keys too."""
    return _printed(a) == _printed(b) or (same(a, b) and _in_order(a, b))


def _in_order(a: Any, b: Any) -> bool:
    if a.__class__ is dict:
        return list(a) == list(b) and all(map(_in_order, a.values(), b.values()))
    return a.__class__ is not list or all(map(_in_order, a, b))


def _printed(value: Any) -> object:
    """Something that is equal for two plain trees only if they are alike; made by C code."""
    try:
        # Half as long as `repr` takes. From version 3 on, equal trees may differ in what they name once.
        return marshal.dumps(value, 0)
    except ValueError:  # there is a date in it
        pass
    try:
        return repr(value)
    except ValueError:
        return object()  # an integer beyond Python's limit on decimals


def _spliced(base: bytes, state: State, path: str, coarse: bool = False) -> tuple[bytes, Load | None]:
    """The new document, and what has to read it again; None if it is certain that it says *state*.

    If it is to be *coarse*, what changes below a key of the root is written anew.
    """
    bom = _BOM if base.startswith(_BOM) else b""
    original = base.removeprefix(_BOM).decode("utf-8")
    newline = "\r\n" if original.partition("\n")[0].endswith("\r") else "\n"
    if original and not original.endswith("\n"):
        original += newline  # the value of a block scalar may change by it; then it differs, and is written anew
    text = original.replace("\r\n", "\n")
    value, parts = reading.trace(text.encode(), path)
    named: dict[str, Any] = {}  #: what anchors name in the new document, as far as it is not what they named
    left = _ROUNDS
    while True:
        splice = _Splice(text, parts, named, coarse)
        splice.document(value, state)
        if not left or all(named.get(name, _Splice) is value for name, value in splice.named.items()):
            break
        # Once more: the aliases that name these may have to go, and may have stood in what others name.
        named = splice.named if left > 1 else dict.fromkeys([name for _, name in parts.named(aliases=False)], _GONE)
        left -= 1
    edits = sorted(splice.edits, key=_place)
    found = _read_pieces(splice, value, edits)
    load: Load | None = reading.load if parts.is_quick else reading.load_events  # what was not quick will not be
    if found is not None and _alike(found, state):
        load = None
    if "\r" in original:
        edits = list(_with_returns(edits, original, newline))
    return bom + _apply(original, 0, len(original), edits).encode(), load


def _read_pieces(splice: _Splice, value: Any, edits: list[Edit]) -> State | None:
    """What the document says with the *edits*, if without them it says *value*; None where that is not certain.

    As far as no line changes, it says what it said: in what the quick reader reads, a key of the root ends all that is
    before it, and means the same whatever that is. So the document is taken to pieces there, and what is read again has
    one line in place of each piece that stays. To read all of it would take as long as all the rest.

    That line is read as a key of the root, or what is before it has not ended: no text in quotes can go on over its two
    quotes, and in a collection in flow style it is not a key of the root.
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
    staying: dict[str, Any] = {}  #: names by the keys that stand for them
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
            lines = _apply(text, start, stop, edits[known:place])
            # Blank lines and comments could belong to the text above them.
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
    """The *edits* of a text whose carriage returns were taken out, for the *original* one."""
    returns = [found.start() - number for number, found in enumerate(re.finditer("\r", original))]
    for start, end, new in edits:
        yield (
            start + bisect_left(returns, start),
            end + bisect_left(returns, end),
            new.replace("\n", newline),
        )


def _place(edit: Edit) -> tuple[int, int]:
    return edit[:2]


def _skip(pattern: re.Pattern[str], text: str, offset: int) -> int:
    """Behind what *pattern*, which may be nothing, finds at *offset*."""
    found = pattern.match(text, offset)
    return found.end() if found else offset


def _within(edits: list[Edit], start: int, end: int) -> list[Edit]:
    """Those of the *edits*, which are sorted, that begin from *start* on and before *end*."""
    return edits[bisect_left(edits, start, key=_start) : bisect_left(edits, end, key=_start)]


def _start(edit: Edit) -> int:
    return edit[0]


def _apply(text: str, start: int, end: int, edits: list[Edit]) -> str:
    """*text* from *start* to *end* with the *edits*, which are sorted."""
    pieces: list[str] = []
    for first, last, new in edits:
        pieces += text[start:first], new
        start = last
    pieces.append(text[start:end])
    return "".join(pieces)


class _Splice:
    """The edits of one document. Nodes are known by the number of their part."""

    def __init__(self, text: str, parts: Parts, known: dict[str, Any], coarse: bool) -> None:
        self.text = text  #: with LF, the last line too
        # The columns of `Parts`, and where in them the one behind a node and all that is in it stands.
        self.kinds, self.starts, self.ends = parts.kinds, parts.starts, parts.ends
        self.styles, self.names, self.tagged = parts.styles, parts.names, parts.tagged
        self.is_quick, self.merges = parts.is_quick, parts.merges
        # Nothing else is not equal to itself.
        self.has_nan = "nan" in text.lower()
        self.coarse = coarse
        self.after = _after(parts.kinds)
        self.anchors = [i for i, _ in parts.named(aliases=False)]
        self.known = known  #: what anchors are going to name, where it is not what they named
        self.aliases = [i for i, _ in parts.named(aliases=True)]
        self.dangling = [i for i in self.aliases if self.names[i] in known]
        self.named = known.copy()  #: the same, as it turns out to be
        self.edits: list[Edit] = []
        self.flow = PLAIN_FLOW  #: how the outermost flow collection is written that we are in
        lines = text[: _skip(_ABOVE_ALL, text, 0)]
        self.top = max((found.end() for found in _MODELINE.finditer(lines)), default=0)  #: behind the last modeline

    # -- the document

    def document(self, old: Any, new: State) -> None:
        if not self.kinds:
            self.edits.append((len(self.text), len(self.text), dumping.dump(new).decode()))
            return
        try:
            if old is None:
                raise _Uncertain
            if self.styles[0] == "flow":
                self.flow = self.flow_style(0)
            if not self.is_unchanged(0, old, new):
                self.change(0, old, new, 0)
        except _Uncertain:
            self.edits.clear()
            self.replace_root(new)
        start, end = self.starts[-1], self.ends[-1]
        if self.kinds[-1] == "document end" and start < end:
            # Nothing of ours may stand behind a `...` of the document's own.
            behind = self.text[end : self.line_after(end)]
            self.edits.append((start, end + len(behind) - len(behind.lstrip()), ""))

    def replace_root(self, new: State) -> None:
        """What stands above the first key, and behind the last, stays."""
        self.lose(0, self.after[0])
        if self.styles[0] == "flow" and self.flow.is_json:
            self.edits.append((self.starts[0], self.end(0), self.flow.text(new)))
            return
        comment = None if self.is_block(0) else _COMMENT.match(self.text, self.end(0))
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

    # -- places

    def line_of(self, offset: int) -> int:
        return self.text.rfind("\n", 0, offset) + 1

    def line_after(self, offset: int) -> int:
        return self.text.find("\n", offset) + 1 or len(self.text)

    def is_block(self, i: int) -> bool:
        """Whether node *i* is a collection in block style."""
        return self.styles[i] == "" and (self.kinds[i] == "mapping" or self.kinds[i] == "sequence")

    def last(self, i: int) -> int:
        """Where the text of node *i* ends: a scalar, an alias, or the end of a flow collection."""
        starts, ends = self.starts, self.ends
        j = self.after[i] - 1
        while self.kinds[j] == "end" and starts[j] == ends[j]:
            j -= 1
        if starts[j] == ends[j] and self.text[starts[j] - 1 : starts[j]] not in (":", "-", "?"):
            return j - 1  # a key without a colon: the place of its value is where the next token is
        return j

    def end(self, i: int) -> int:
        """Where the text of node *i* ends, without what is behind it on its line."""
        last = self.last(i)
        if self.styles[last] in ("|", ">") and not self.keeps(last):
            return self.starts[last] + len(self.source(last).rstrip())
        return self.ends[last]

    def source(self, i: int) -> str:
        """The text of part *i*, with its properties."""
        return self.text[self.starts[i] : self.ends[i]]

    def keeps(self, i: int) -> bool:
        """Whether the blank lines behind a block of text are a part of it."""
        return "+" in self.source(i).partition("\n")[0].partition("#")[0]

    def any_keeps(self, i: int) -> bool:
        return any(self.styles[j] in ("|", ">") and self.keeps(j) for j in range(i, self.after[i]))

    def content_end(self, i: int) -> int:
        """Behind the last line of node *i*."""
        end = self.end(i)
        return end if self.text[end - 1 : end] == "\n" else self.line_after(end)

    # -- what changes

    def lose(self, start: int, stop: int) -> None:
        """Note that no alias may name an anchor among the parts from *start* to *stop* any more."""
        anchors = self.anchors
        if anchors:
            for i in anchors[bisect_left(anchors, start) : bisect_left(anchors, stop)]:
                self.named[self.names[i] or ""] = _GONE

    def is_unchanged(self, i: int, old: Any, new: Any) -> bool:
        """Whether node *i* may stay; in doubt not, for a collection whose values are then looked at one by one."""
        if not self.is_sound(i):
            if self.kinds[i] != "alias":
                return False
            says = self.known[self.names[i] or ""]
            return says is not _GONE and _alike(says, new)
        if old.__class__ is str:
            return new.__class__ is str and old == new
        if old.__class__ in SCALARS or old.__class__ is set:
            return same(old, new)
        # If they differ, it mostly takes not long to find that out.
        return (old == new or self.has_nan) and _printed(old) == _printed(new)

    def visit(self, i: int, old: Any, new: Any, at: int, indent: int) -> None:
        """Make node *i*, which says *old*, say *new*. It stands behind a colon or dash that ends at *at*, in a block
        whose entries are behind *indent* columns; or, with a negative *at*, in a flow collection.
        """
        known = len(self.edits)
        if at >= 0 and self.styles[i] == "flow":
            self.flow = self.flow_style(i)
        if self.coarse or old.__class__ in SCALARS:
            self.replace(i, old, new, at, indent)
        else:
            try:
                self.change(i, old, new, at)
            except _Uncertain:
                del self.edits[known:]
                self.replace(i, old, new, at, indent)
        name = self.anchor(i)
        if name and self.named.get(name) is not _GONE and not _alike(old, new):
            self.named[name] = new

    def anchor(self, i: int) -> str:
        """The name of the anchor of node *i*, or ""."""
        return "" if self.kinds[i] == "alias" else self.names[i] or ""

    def change(self, i: int, old: Any, new: Any, at: int) -> None:
        """`visit` for a collection whose entries stay, as far as they are the same ones. Raises _Uncertain."""
        if old.__class__ is not new.__class__ or old.__class__ in SCALARS or not old or not new:
            raise _Uncertain
        entries = self.entries(i, len(old))
        if entries is None:
            if self.is_sound(i) and _alike(old, new):
                return
            raise _Uncertain
        if self.after[i] - 1 in self.merges:
            change = self.merging(i, entries, old, new)
        elif self.kinds[i] == "mapping":
            values = list(new.values())
            change = _Change(entries, _keys_from(old, new), list(old), list(old.values()), values, list(new))
        else:
            source, equal = _elements_from(old, new)
            change = _Change(entries, source, [], old, new, [], equal)
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

        None where it does not say what stands there: with a tag, an alias as a key that must go; or is an alias.
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

    def merging(self, i: int, entries: list[tuple[int, int]], old: dict[Any, Any], new: dict[Any, Any]) -> _Change:
        """What becomes of mapping *i*, which has merge keys. They stay where they bring nothing that is not to be
        there: own keys beat merged ones. Else the first one becomes the pairs that it has brought.
        """
        own, parts = self.merges[self.after[i] - 1]
        marks = [number for number, (key, _) in enumerate(entries) if self.source(key) == "<<"]
        merges = set(marks)
        numbers = [number for number in range(len(entries)) if number not in merges]
        if len(numbers) != len(own):
            raise _Uncertain
        keys = dict(zip(numbers, own, strict=True))
        origins = {identity(key): number for number, key in keys.items()}
        written_out: dict[int, dict[Any, Any]] = {}
        brought = self.brought([entries[number][1] for number in marks], parts)
        places = None if brought is None else _beside_merges(len(entries), keys, origins, brought, new)
        if places is None:
            places, pairs = _instead_of_merges(marks[0], origins, new)
            if pairs:
                written_out[marks[0]] = pairs
                self.lose(entries[marks[0]][0], self.after[entries[marks[0]][1]])
        return _Change(
            entries,
            [origin for origin, _ in places],
            list(own),
            [old[keys[number]] if number in keys else None for number in range(len(entries))],
            [None if key is _MERGES else new[key] for _, key in places],
            [key for _, key in places],
            merges=merges,
            written_out=written_out,
        )

    def brought(self, nodes: list[int], parts: list[dict[Any, Any]]) -> dict[Any, Any] | None:
        """What the merge keys with these values are going to bring, if they stay; None where they cannot.

        They have brought the *parts*, later ones over earlier ones.
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
        """The mappings that a merge key with the value *i* merges, the first in a list over the others."""
        if self.kinds[i] != "sequence":
            return [i]
        found = []
        j = i + 1
        while self.kinds[j] != "end":
            found.append(j)
            j = self.after[j]
        return found[::-1]

    # -- writing a node anew

    def replace(self, i: int, old: Any, new: Any, at: int, indent: int) -> None:
        kind, start, end, style = self.kinds[i], self.starts[i], self.ends[i], self.styles[i]
        self.lose(i + 1, self.after[i])
        name = self.anchor(i)
        anchor = f"&{name} " if name else ""
        if at < 0:
            if start == end:
                raise _Uncertain
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
        """What stands behind the colon or dash that ends at *at*, instead of node *i*, up to *stop*."""
        if self.would_swallow(new, stop, indent):
            return " " + PLAIN_FLOW.text(new) + "\n"
        style = self.block_style(i)
        if self.text[at - 1] != "-":
            return style.value(new, " " * indent)
        if self.anchor(i):
            # Before a mapping that begins in the same line, it would be one of the first key.
            return Block(style.step, "  ", style.gap).value(new, " " * indent)
        return style.behind_dash(new, " " * indent)

    def lines(self, i: int, new: Any, stop: int, indent: int) -> str:
        """*new* as a scalar over lines, as node *i* is one, up to *stop*; "" where that cannot be."""
        if self.styles[i] not in ("|", ">") or new.__class__ is not str:
            return ""
        source = self.text[_skip(_PROPERTIES, self.text, self.starts[i]) : self.ends[i]]
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

    def would_swallow(self, value: Any, offset: int, indent: int) -> bool:
        """Whether *value*, if a block of text stands at its end, would take what is at *offset* for a part of it."""
        while value and isinstance(value, dict | list):
            value = value[-1] if isinstance(value, list) else next(reversed(value.values()))
        return isinstance(value, str) and "\n" in value and self.would_go_on(value, offset, indent)

    def would_go_on(self, value: str, offset: int, indent: int) -> bool:
        """The same for *value* itself."""
        # A blank line may come to stand behind it also when what is between is deleted.
        if self.has_blank_line(0, indent, keeps=value.endswith("\n\n")):
            return True
        return self.is_swallowed(offset, indent, keeps=False)

    def has_blank_line(self, start: int, indent: int, keeps: bool) -> bool:
        """Whether there is a line of blanks behind *start* that a block of text above it would take for its own: any,
        if it *keeps* those at its end, else one that is further in. Its entry stands behind *indent* columns.
        """
        return any(keeps or len(found[1]) > indent + 1 for found in _BLANK_LINE.finditer(self.text, max(start - 1, 0)))

    def is_swallowed(self, offset: int, indent: int, keeps: bool) -> bool:
        """Whether a block of text that ends at *offset* would go on with what is there, blank lines too if it *keeps*
        them, or if they are further in than the text. Its entry stands behind *indent* columns.
        """
        while found := _NO_CONTENT.match(self.text, offset):
            if "#" in found[0]:
                return found[0].index("#") > indent
            if keeps or len(found[0]) > indent + 2:
                return True
            offset = found.end()
        return False

    def close(self, i: int, value: Any) -> None:
        """Write the block of text at the end of node *i*, which said *value*, in one line, unless it has changed."""
        last = self.last(i)
        start, stop = self.starts[last], self.content_end(last)
        if any(edit[0] < stop and start < edit[1] for edit in self.edits):
            return
        if self.names[last] is not None or self.tagged[last] or self.styles[last] not in ("|", ">"):
            raise _Uncertain
        while isinstance(value, dict | list):
            value = value[-1] if isinstance(value, list) else next(reversed(value.values()))
        header = self.text[start : self.line_after(start) - 1]
        comment = _COMMENT.search(header)
        self.edits.append((start, stop, PLAIN_FLOW.text(value) + (comment[0] if comment else "") + "\n"))

    def inline(self, style: str, old: Any, new: Any) -> str:
        """*new* in one line, in quotes as *old* was if a person chose them; or "", if it is better not in one line."""
        if new.__class__ is str and style in ("'", '"') and "\n" not in new:
            text = dumping.quoted_text(new, style) if _is_chosen(style, old) else None
            if text is not None:
                return text
        text = dumping.block_scalar(new, " ")
        return "" if "\n" in text else text

    def flow_inline(self, i: int, old: Any, new: Any) -> str:
        """The same for node *i* in a flow collection."""
        style = self.styles[i]
        if new.__class__ is str and style in ("'", '"') and not self.flow.is_json and _is_chosen(style, old):
            text = dumping.quoted_text(new, style)
            if text is not None:
                return text
        return self.flow.text(new, self.indent(self.starts[i]))

    def comment(self, i: int, at: int) -> str:
        """The comment behind the colon or dash that ends at *at*, or else behind node *i*, in front of which it is."""
        header = _HEADER.match(self.text, at)
        if header is not None:
            return header[1] or ""
        if self.is_block(i):
            return ""  # belongs to the first entry, which stands in this line
        comment = _COMMENT.match(self.text, self.end(i))
        return comment[0] if comment else ""

    def column(self, offset: int) -> int:
        return offset - self.line_of(offset)

    def indent(self, offset: int) -> str:
        """What the line of *offset* begins with."""
        line = self.line_of(offset)
        return self.text[line : _skip(_INDENT, self.text, line)]

    # -- how the person writes

    def block_style(self, i: int, change: _Change | None = None) -> Block:
        """The style of new entries in the block collection *i*, which is to *change*, or of what comes in its place."""
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
        return quote if quote in ("'", '"') and any(_is_chosen(quote, value) for _, value in found) else ""

    def step(self, i: int) -> str:
        """How much further in than its key a mapping is that comes to be in collection *i*, or in its place."""
        for j, step in self.near(i, "mapping"):
            if step > 0 and self.kinds[j + 1] != "end":
                return " " * step
        return "  "

    def list_style(self, i: int) -> tuple[str, int] | None:
        """The same for a list, which may be no further in, and how many blanks are behind its dashes."""
        for j, step in self.near(i, "sequence"):
            if step >= 0:
                return " " * step, self.gap(j)
        return None

    def near(self, i: int, kind: str) -> Iterator[tuple[int, int]]:
        """The block collections of this *kind* that are the value of a key, and how much further in than it: in
        collection *i*, itself, then the nearest ones before it, then those behind it. Not all, if that would take long.
        """
        kinds, after = self.kinds, self.after[i]
        first = max(i - _MANY, 0)
        inside, itself = range(i + 1, min(after, i + _MANY)), range(i, i + 1)
        for numbers in (inside, itself, range(max(i - 1, 0), first, -1), range(after, after + _MANY)):
            found = zip(numbers, kinds[numbers.start : numbers.stop : numbers.step], strict=False)
            few = [j for j, other in found if other == kind][:_FEW]
            for j in few:
                if j and self.is_block(j) and kinds[j - 1] == "scalar" and _COLON.match(self.text, self.ends[j - 1]):
                    column = self.column(_skip(_PROPERTIES, self.text, self.starts[j]))
                    step = column - self.column(self.starts[j - 1])
                    if step <= _DEEPEST:
                        yield j, step

    def gap(self, i: int) -> int:
        """How many blanks stand behind the dashes of list *i*; 0 where a mapping begins in the next line."""
        dash = _skip(_PROPERTIES, self.text, self.starts[i])
        found = _DASH.match(self.text, dash)
        if found is None:
            return 0 if self.kinds[i + 1] == "mapping" and self.is_block(i + 1) else 1
        return len(found[1])

    def flow_style(self, i: int) -> Flow:
        """The style of the flow collection *i*, and of what is in it."""
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

    # -- flow collections

    def change_flow(self, i: int, change: _Change, at: int) -> None:
        start, known = self.starts[i], len(self.edits)
        if start == self.ends[i]:
            raise _Uncertain  # `[a: 1]`, a mapping without brackets
        for value, old, new, _ in self.changed(change):
            self.visit(value, old, new, -1, 0)
        if change.written_out or not change.in_place:
            self.rebuild_flow(i, change, known)
        if at >= 0:
            end = self.end(i)
            text = _apply(self.text, start, end, sorted(self.edits[known:], key=_place))
            longest = max(LONGEST_FLOW, self.column(start) + end - start)
            is_json = not i and self.flow.is_json  # and must stay so
            if "\n" not in text and self.column(start) + len(text) > longest and not is_json:
                raise _Uncertain

    def changed(self, change: _Change) -> Iterator[tuple[int, Any, Any, int]]:
        """The values that differ in entries that stay: node, what it said, what it is to say, which entry."""
        for number, origin in enumerate(change.source):
            if origin is None or origin in change.merges:
                continue
            if origin not in change.equal or self.dangling:
                value, old, new = change.entries[origin][1], change.old[origin], change.new[number]
                if not self.is_unchanged(value, old, new):
                    yield value, old, new, origin

    def rebuild_flow(self, i: int, change: _Change, known: int) -> None:
        """A flow collection from the text of the entries that stay, and of new ones."""
        inner, self.edits[known:] = sorted(self.edits[known:], key=_place), []
        spans = self.spans(change)
        begin, end = _skip(_PROPERTIES, self.text, self.starts[i]) + 1, self.end(i) - 1
        bounds = [begin, *[offset for span in spans for offset in span], end]
        gaps = [self.text[start:stop] for start, stop in zip(bounds[::2], bounds[1::2], strict=True)]
        layout = _Layout(gaps, self.flow.tight, self.indent(self.starts[i]))
        bodies = []
        for number, origin in enumerate(change.source):
            if origin in change.written_out:
                pairs = change.written_out[origin].items()
                bodies.append(layout.between.join([self.flow.pair(*pair, layout.indent) for pair in pairs]))
            elif origin is not None:
                start, stop = spans[origin]
                body = _apply(self.text, start, stop, _within(inner, start, stop))
                bodies.append(body + " " if body.endswith(":") else body)  # a colon and a comma is none for YAML
            elif self.kinds[i] == "mapping":
                bodies.append(self.flow.pair(change.keys[number], change.new[number], layout.indent))
            else:
                bodies.append(self.flow.text(change.new[number], layout.indent))
        self.lose_entries(i, change)
        self.edits.append((begin, end, layout.text(change.source, bodies)))

    def spans(self, change: _Change) -> list[tuple[int, int]]:
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

    def lose_entries(self, i: int, change: _Change) -> None:
        """`lose` what is in entries that are gone, and anchors that would come to be behind one of their aliases."""
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

    def change_block(self, i: int, change: _Change) -> None:
        lines = _Lines(self, i, change.entries)
        style = self.block_style(i, change) if change.written_out or not change.in_place else Block()
        staying = _staying(change.source)
        if not staying:
            raise _Uncertain
        moved: dict[int, list[Edit]] = {origin: [] for origin in change.kept if origin not in staying}
        for value, old, new, entry in self.changed(change):
            known = len(self.edits)
            self.visit(value, old, new, lines.at(entry), lines.column)
            if entry in moved:
                moved[entry], self.edits[known:] = sorted(self.edits[known:], key=_place), []
        for entry, pairs in change.written_out.items():
            edit = lines.write_out(entry, pairs, style)
            moved.get(entry, self.edits).append(edit)
        if change.in_place:
            return
        self.lose_entries(i, change)
        written: dict[int, str] = {}  #: the lines of the entries that come in
        before: int | None = None
        lines.place(before)  # raises _Uncertain
        for number, origin in enumerate(change.source):
            if origin in staying:
                before = origin
                continue
            place = lines.place(before)
            above = ""
            if origin is not None:
                # A blank line may come to stand behind it also when what is between is deleted.
                keeps = self.any_keeps(change.entries[origin][1]) and self.has_blank_line(0, lines.column, keeps=True)
                if not keeps and not lines.is_open(origin, place):
                    written[number] = lines.moved(origin, moved[origin])
                    continue
                if origin in change.merges:
                    raise _Uncertain
                above = lines.above(origin)
            key = None if lines.is_list else change.keys[number]
            written[number] = above + lines.new(key, change.new[number], place, style)
        gone = set(range(len(change.entries))) - staying
        lines.insert(change.source, written)
        for entry in lines.delete(gone):
            self.close(change.entries[entry][1], change.old[entry])


class _Change:
    """What becomes of a collection: which of its entries stay, and where."""

    def __init__(
        self,
        entries: list[tuple[int, int]],
        source: Source,
        keys_before: list[Any],
        old: list[Any],
        new: list[Any],
        keys: list[Any],
        equal: set[int] | None = None,
        merges: set[int] | None = None,
        written_out: dict[int, dict[Any, Any]] | None = None,
    ) -> None:
        self.entries = entries  #: key and value by their nodes; of an element the same twice
        self.source = source  #: what each entry of *new* comes from
        self.kept = [origin for origin in source if origin is not None]
        self.in_place = source == list(range(len(entries)))
        self.keys_before = keys_before  #: of the entries that are no merge keys, if it is a mapping
        self.old = old  #: values
        self.new = new
        self.keys = keys  #: of *new*, if it is a mapping
        self.equal = equal or set()  #: entries whose value is known to be the same
        self.merges = merges or set()  #: entries that are merge keys
        self.written_out = written_out or {}  #: of these, those that the pairs come instead of that they have brought


class _Layout:
    """What stands between the entries of a flow collection: blanks, commas, lines and comments."""

    def __init__(self, gaps: list[str], tight: bool, around: str) -> None:
        lead, *between = gaps[:-1]
        commas = [_COMMENT_IN_FLOW.sub("", gap).strip() for gap in between]
        if (lead.strip() and "#" not in lead) or any(comma != "," for comma in commas):
            raise _Uncertain  # a question mark, say
        self.gaps = gaps
        self.around = around  #: the indentation of the line in which the collection begins
        self.has_comments = any("#" in gap for gap in gaps)
        lines = [gap for gap in between if "\n" in gap]
        line = lead if "\n" in lead else lines[-1] if lines else around
        self.indent = line.rpartition("\n")[2].replace(", ", "")  #: of the lines of new entries
        if self.has_comments or (not between and "\n" in lead):
            self.between = f",\n{self.indent}"
        elif lines and len(lines) == len(between):
            self.between = min(lines, key=len)  # a blank line is none that new entries get
        else:
            self.between = next((gap for gap in between if "\n" not in gap), "," if tight else ", ")

    def text(self, source: Source, bodies: list[str]) -> str:
        """The text between the brackets, of the entries of the old one with these numbers, or new ones."""
        return self.commented(source, bodies) if self.has_comments else self.plain(source, bodies)

    def plain(self, source: Source, bodies: list[str]) -> str:
        pieces = [self.gaps[0]]
        for origin, body in zip(source, bodies, strict=True):
            if len(pieces) > 1:
                pieces.append(self.gaps[origin] if origin else self.between)
            pieces.append(body)
        return "".join([*pieces, self.gaps[-1]])

    def commented(self, source: Source, bodies: list[str]) -> str:
        """The same where each entry but the first has a line of its own, and comments as entries of a block have."""
        kept = {origin for origin in source if origin is not None}
        count = len(self.gaps) - 1
        behind: list[str] = []  # the comment behind each gap's comma or bracket
        above: list[str] = []  # what is between there and the entry's line
        for number, gap in enumerate(self.gaps):
            found = _GAP.fullmatch(gap)
            if found is None or (0 < number < count and found[2] is None):
                raise _Uncertain
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
        for number in range(count - 1, -1, -1):  # what stands on its own stays when the entry below it goes
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
    """Of the *lines* above an entry, and its indentation: what stands on its own, and what belongs to it."""
    *whole, indent = lines.split("\n")
    first = len(whole)
    while first and _COMMENT_LINE.match(whole[first - 1]):
        first -= 1
    return "".join([line + "\n" for line in whole[:first]]), "\n".join([*whole[first:], indent])


class _Lines:
    """A mapping or a list in block style, as lines. The entries are numbered."""

    def __init__(self, splice: _Splice, i: int, entries: list[tuple[int, int]]) -> None:
        self.splice = splice
        self.text = splice.text
        self.entries = entries
        self.is_list = splice.kinds[i] == "sequence"
        start = splice.starts[i]
        self.first = _skip(_PROPERTIES, self.text, start) if self.is_list else splice.starts[i + 1]
        line = splice.line_of(self.first)
        self.column = self.first - line  #: of each entry
        before = self.text[line : self.first].replace("-", " ")
        self.is_odd = before != " " * self.column or (self.is_list and self.text[self.first] != "-")
        self.is_compact = "-" in self.text[line : self.first]  #: the first entry stands behind a dash of another list

    def at(self, number: int) -> int:
        """Behind the colon or dash of an entry."""
        if self.is_list:
            return self.start(number) + 1
        colon = self.splice.ends[self.entries[number][0]]
        if self.text[colon : colon + 1] == ":":
            return colon + 1
        colon = _skip(_SPACE, self.text, colon)
        if self.text[colon : colon + 1] != ":":
            raise _Uncertain
        return colon + 1

    def start(self, number: int) -> int:
        """Where an entry begins in its line."""
        if not number:
            return self.first
        if not self.is_list:
            return self.splice.starts[self.entries[number][0]]
        dash = _skip(_SPACE, self.text, self.splice.end(self.entries[number - 1][1]))
        if self.text[dash : dash + 1] != "-":
            raise _Uncertain
        return dash

    def begin(self, number: int) -> int:
        """Where the lines of an entry begin, with the comments directly above it."""
        if self.is_odd:
            raise _Uncertain  # a key behind a question mark, say
        start = self.start(number)
        if not number and self.is_compact:
            return start
        line = self.splice.line_of(start)
        if self.text[line:start] != " " * self.column:
            raise _Uncertain
        floor = self.end(number - 1) if number else self.splice.top
        while line > floor:
            above = self.splice.line_of(line - 1)
            if _COMMENT_LINE.match(self.text, above) is None:
                break
            line = above
        return line

    def end(self, number: int) -> int:
        """Where the lines of an entry end; comments below a block in it are part of it, if they are indented more."""
        value = self.entries[number][1]
        end = line = self.splice.content_end(value)
        if self.splice.is_block(value):
            while found := _NO_CONTENT.match(self.text, line):
                if "#" in found[0]:
                    if found[0].index("#") <= self.column:
                        break
                    end = found.end()
                line = found.end()
        return end

    def above(self, number: int) -> str:
        """The comments directly above an entry."""
        return self.text[self.begin(number) : self.splice.line_of(self.start(number))]

    def moved(self, number: int, edits: list[Edit]) -> str:
        """The lines of an entry, with its comments and *edits*, as they stand elsewhere in the block."""
        text = _apply(self.text, self.begin(number), self.end(number), edits)
        return " " * self.column + text if self.is_compact and not number else text

    def place(self, before: int | None) -> int:
        """Where an entry comes in behind the entry *before*, before what stands there on its own."""
        return self.begin(0) if before is None else self.end(before)

    def new(self, key: Any, value: Any, place: int, style: Block) -> str:
        """The lines of a new entry, if they come to be at *place*."""
        indent = " " * self.column
        if self.splice.would_swallow(value, place, self.column):
            text = "- " + PLAIN_FLOW.text(value) if self.is_list else PLAIN_FLOW.pair(key, value)
            return f"{indent}{text}\n"
        return style.item(value, indent) if self.is_list else style.pair(key, value, indent)

    def write_out(self, number: int, pairs: dict[Any, Any], style: Block) -> Edit:
        """The *pairs* instead of the merge key that has brought them; the comments above it and behind it stay."""
        stop = self.end(number)
        indent = " " * self.column
        text = style.pairs(list(pairs.items())[:-1], indent) + self.new(*list(pairs.items())[-1], stop, style)
        comment = self.splice.comment(self.entries[number][1], self.at(number)).lstrip()
        lead = f"{comment}\n{indent}" if comment else ""
        return self.start(number), stop, lead + text[self.column :]

    def insert(self, source: Source, written: dict[int, str]) -> None:
        """Write the entries that come in, each behind the one that it follows."""
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
        """Whether a block of text at the end of an entry would go on with what is at *offset*."""
        splice, value = self.splice, self.entries[number][1]
        is_block = splice.styles[splice.last(value)] in ("|", ">")
        if is_block and splice.is_swallowed(offset, self.column, keeps=False):
            return True
        # Of what is in the entry, the end may be deleted.
        return splice.is_swallowed(offset, self.column, keeps=True) and splice.any_keeps(value)

    def delete(self, gone: set[int]) -> set[int]:
        """Take entries out, each with the comments that belong to it.

        Returns those that stay, and end in a block of text that would go on with what was behind the ones taken out.
        """
        opened: set[int] = set()
        number = 0
        if self.is_compact and 0 in gone:
            stop = self.end(0)
            number = 1
            while number in gone and self.begin(number) == stop:
                stop = self.end(number)
                number += 1
            # What comes next moves up behind the dash.
            line = self.text[stop : self.splice.line_after(stop)]
            self.edit(self.first, stop + len(line) - len(line.lstrip(" ")), "")
        before = -1  # the last entry that stays
        for entry in range(len(self.entries)):
            if entry not in gone:
                before = entry
                continue
            end = self.end(entry)
            if before >= 0 and self.is_open(before, end):
                # Without the blank lines below, it ends where it ended.
                end = _skip(_BLANK_LINES, self.text, end)
                if self.is_open(before, end):
                    opened.add(before)
            if entry >= number:
                self.edit(self.begin(entry), end, "")
        return opened

    def edit(self, start: int, end: int, new: str) -> None:
        self.splice.edits.append((start, end, new))


def _is_chosen(quote: str, text: Any) -> bool:
    """Whether a person chose the *quote* for *text*: a single one, or one that it does not need."""
    return quote == "'" or dumping.block_scalar(text, "") == text


def _after(kinds: list[str]) -> list[int]:
    """For each part, the number of the one behind it and all that is in it."""
    after = list(range(1, len(kinds) + 1))
    around: list[int] = []
    for i, kind in enumerate(kinds):
        if kind == "scalar":
            continue
        if kind == "end":
            after[around.pop()] = i + 1
        elif kind == "mapping" or kind == "sequence":
            around.append(i)
    return after


def _keys_from(old: dict[Any, Any], new: dict[Any, Any]) -> Source:
    """Which pair of *old* each of *new* is: the one with its key."""
    if old.keys() == new.keys() and _printed(list(old)) == _printed(list(new)):
        return list(range(len(old)))
    numbers = {identity(key): number for number, key in enumerate(old)}
    return [numbers.get(identity(key)) for key in new]


def _beside_merges(
    count: int, keys: dict[int, Any], origins: dict[Any, int], brought: dict[Any, Any], new: dict[Any, Any]
) -> list[tuple[int | None, Any]] | None:
    """Where each entry of a mapping comes from that is to be *new*, and its key, if its merge keys stay and have
    *brought* this; None where they cannot.

    It has *count* entries; *keys* are its own ones by number, and *origins* these numbers.
    """
    wanted = [
        key for key in new if key not in brought or identity(key) in origins or not _alike(new[key], brought[key])
    ]
    if _printed(list({**brought, **dict.fromkeys(wanted)})) != _printed(list(new)):
        return None
    staying = set(map(identity, wanted))
    places: list[tuple[int | None, Any]] = []
    # Keys that are merged too stand where the merged ones do: only the others have an order to keep.
    rest = iter([(origins.get(identity(key)), key) for key in wanted if key not in brought])
    for number in range(count):
        if number not in keys:
            places.append((number, _MERGES))
        elif identity(keys[number]) in staying:
            if keys[number] in brought:
                places.append((number, keys[number]))
                continue
            for place in rest:
                places.append(place)
                if place[0] is not None:
                    break
    return [*places, *rest, *[(None, key) for key in wanted if key in brought and identity(key) not in origins]]


def _instead_of_merges(
    mark: int, origins: dict[Any, int], new: dict[Any, Any]
) -> tuple[list[tuple[int | None, Any]], dict[Any, Any]]:
    """The same if the merge keys go, with the pairs that come in the place of the first one, which is number *mark*."""
    places: list[tuple[int | None, Any]] = []
    pairs: dict[Any, Any] = {}
    for key, value in new.items():
        origin = origins.get(identity(key))
        if origin is None and not pairs:
            places.append((mark, _MERGES))
        if origin is None and places[-1][1] is _MERGES:
            pairs[key] = value
        else:
            places.append((origin, key))
    return places, pairs


def _elements_from(old: list[Any], new: list[Any]) -> tuple[Source, set[int]]:
    """Which element of *old* each of *new* is, an equal one, else what may have become it; and which are equal."""
    was, now = list(map(_printed, old)), list(map(_printed, new))
    head = common(was, now)
    tail = common(was[head:][::-1], now[head:][::-1])
    source: Source = [None] * len(new)
    source[:head] = range(head)
    source[len(new) - tail :] = range(len(old) - tail, len(old))
    places: dict[object, list[int]] = {}
    for number in range(len(old) - tail - 1, head - 1, -1):
        places.setdefault(was[number], []).append(number)
    last = head - 1
    for number in range(head, len(new) - tail):
        equal = places.get(now[number])
        if equal:
            # The first that keeps the order, if it is among the first few; or else the first: then it has moved.
            few = range(-1, -min(len(equal), _FEW) - 1, -1)
            source[number] = last = equal.pop(next((k for k in few if equal[k] > last), -1))
    equal_ones = {origin for origin in source if origin is not None}
    if None in source:
        _pair_changed(source, old, new)
    return source, equal_ones


def _pair_changed(source: Source, old: list[Any], new: list[Any]) -> None:
    """Between two elements that stay, as many new ones as old ones are these, changed; else those that are alike."""
    used = {origin for origin in source if origin is not None}
    staying = _staying(source)
    left, run = -1, list[int]()
    for number, origin in enumerate([*source, len(old)]):
        if origin is None:
            run.append(number)
        elif origin in staying or number == len(source):
            free = [place for place in range(left + 1, origin) if place not in used]
            if len(free) == len(run):
                for later, place in zip(run, free, strict=True):
                    source[later] = place
            else:
                _pair_alike(run, free, source, old, new)
            left, run = origin, []


def _pair_alike(run: list[int], free: list[int], source: Source, old: list[Any], new: list[Any]) -> None:
    first = 0
    for number in run:
        for k in range(first, min(len(free), first + _FEW)):
            if _are_like(old[free[k]], new[number]):
                source[number] = free[k]
                first = k + 1
                break


def _staying(source: Source) -> set[int]:
    """The longest run of old entries that keep their order; the others have moved."""
    ends: list[int] = []  # the last one of the best run of each length
    before: dict[int, int | None] = {}
    for origin in source:
        if origin is not None:
            length = bisect_left(ends, origin)
            before[origin] = ends[length - 1] if length else None
            ends[length : length + 1] = [origin]
    staying = set()
    last = ends[-1] if ends else None
    while last is not None:
        staying.add(last)
        last = before[last]
    return staying


def _are_like(a: Any, b: Any) -> bool:
    """Whether one may have been made from the other: mappings that have a value at the same key in common, or lists
    there that have an element at the same place in common.
    """
    if not a.__class__ is b.__class__ is dict:
        return False
    return any(key in b and (same(item, b[key]) or _begin_alike(item, b[key])) for key, item in a.items())


def _begin_alike(a: Any, b: Any) -> bool:
    return a.__class__ is b.__class__ is list and any(map(same, a[:_FEW], b[:_FEW]))
