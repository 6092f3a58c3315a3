"""Read millions of YAML documents in the quick way and by PyYAML's events, and prove that both say the same.

A value that is read wrongly is a value lost: nobody notices, and the next vacuum writes it down. `pstate.text.block`
may give up on any document; but where it answers, PyYAML's events (`reading.load_events`) must give the same values, of
the same types, the keys in the same order, and no error; and the same places in the text, which `splice` edits.

The documents are drawn, not collected: block style in all the ways of people, and then characters and lines inserted,
deleted, doubled and moved, because the mistakes are at the borders. Long collections are read many entries at a time,
and in two thirds of the rounds short ones are as well. Some documents are read by both parsers of PyYAML, the one in C
and the one in Python, which differ in places. The figures tell how many documents were answered: of those on which
`block` gave up nothing is proven, and nothing needs to be.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from random import Random
from typing import Any

from pstate.errors import InvalidStateError
from pstate.text import block, reading, tables
from pstate.text.parts import Parts
from pstate.values import same
from stress.check import BrokenPromise, Trial, check

#: Every so many documents one is read by the parser in Python too, which takes ten times as long.
PURE = 8

KEYS = [
    *"abcxyn", "key", "name", "id", "a b", "k-1", "yes", "no", "on", "null", "~", "1", "0", "-1", "1.5", "2026-11-23",
    "true", "True", '"q"', "'s'", '"a: b"', "'a #b'", '"1"', "'1'", "ключ", "a.b", "/p", "=", "<<", "x#y", "x:y", "é",
    "1.0", "01", "0x1", "1_0", "1:30", ".5", ".nan", '"\\u0061"', "a'b", 'a"b', "-a", "--", "---", "...", "$x",
    "k" * 30,
]  # fmt: skip
VALUES = [
    *KEYS, *"0189-?:,[]{}#&*!|>'\"%@`.+_/~", "", "", " ", "text", "two words", "two  blanks", "a, b", "it's",
    'say "x"', "http://x.y/z?a=b#c", "a #b", "a:b", "a: b", "a:", "-", "- a", "-5", "+5", "-0", "0.5", "-0.0", "1.",
    "1e5", "1.5e3", "1.5e+3", "1.5E-3", "1_000", "1_000.5", "0777", "08", "0b11", "0b12", "0xFf", "0xg", "1:30",
    "1:99", "190:20:30.15", ".inf", "-.inf", "+.INF", ".Inf", ".NaN", ".nAn", ".5", "-.5", "+.5", "._", "1__0", "1_",
    "_1", "12345678901234567890", "2026-11-23", "2026-1-2", "2026-02-30", "2026-11-23 09:05:00",
    "2026-11-23T09:05:00Z", "2026-11-23 09:05:00+00:00", "2026-11-23 09:05:00.123456-05:30", "2026-11-23 09:05:00.5",
    "2026-11-23 24:00:00", "2026-11-23 9:5:0", "2026-11-23 09:05:60", "2026-11-23 09:05:00 +1",
    "2026-11-23 09:05:00+24:00", "0000-01-01", "yes", "YES", "yEs", "No", "off", "On", "NULL", "Null", "nUll",
    "FALSE", "=", "<<", "y", "N", "1.2.3", "v1.2", "3 apples", "-flag", "--flag", '""', "''", '"a"', "'a'", '"a\\nb"',
    '"\\u00e9"', '"\\ud800"', '"\\ud83d\\ude00"', '"\\x41"', '"\\/"', '"\\q"', '"\\""', "'it''s'", "'a", '"a', "'a'b",
    '"a"b', '"a" b', "'a' # c", '"a"#c', '"a\\"', '" a "', "' a '", "\"it's\"", "'\"'", "[]", "{}", "[ ]", "{ }",
    "[a]", "[a, b]", "[1, 2, 3]", "[a,b]", "[a,]", "[,]", "[a, 'b', \"c\"]", "[[a]]", "[a: b]", "{a: b}",
    "{a: 1, b: 2}", "{a}", "{a: }", "{a: 1, a: 2}", "{a:1}", '{"a": 1}', '{"a":1}', "[] # c", "[]#c", "[] x",
    "[a b, c]", "[-1, +1]", "[-, a]", "[- a]", "[~]", "[a #b]", "[a # b]", "[a] # [b]", "{a: [b]}", "{? a : b}",
    "[yes, 1.5]", "[2026-11-23]", "[<<]", "{<<: a}", "{=: a}", "{1: a, true: b}", "[.5, a.b]", "[a\\b]", "[---]",
    "[...]", "[a...b, c]", "!!set {}", "!!set", "!!set {a}", '!!binary "YWJj"', '!!binary "YWI"', "!!str a", "!a b",
    "&a b", "*a", "&a", "*b", "[*a, *b]", "&c [a]", "{a: *a}", "&d |",
    "| ", ">", "|2", "? a", "?a", ": a", ":a", "%a", "@a", "`a", "a\tb", "a \t", "\ta", "é", "ü x",
    "日本", "\u00a0", "a\u00a0", "\u2028", "\x85", "\ufeff", "😀", "\x07", "\x7f", "\ue000", "\ufffe", "a" * 130,
]  # fmt: skip
TAILS = ["", "", "", "", "", "", " # c", "  #", " #c: d", "#x", " ", "   ", "\t", " #\té"]
BETWEEN = ["", "", "#", "# note", "  # note: x", "    ", "#\t", " - # x", "   #- a", "---", "...", "# ünï"]
PIECES = [
    *"-:#?!&*|>'\"%@`[]{},~=<.+_/\\$ \n", *"abn019eEx", "\n", "\n", " ", " ", "  ", "- ", ": ", " #", "? ", ":\n",
    "-\n", "\n- ", "\n  ", "\n\n", "a: ", "b:", "''", '""', "[]", "{}", "|\n", "|-\n", "|+\n", "!!set", "\n---\n",
    "...\n", "\t", "\r\n", "\r", "é", "\u00a0", "\u2028", "\x85", "\ufeff", "<<: ", "= ", "1", "1.5", "true", "&a ",
    "*a", "!!str ", "\\n", ">\n", ">-\n", "\\\n", "\\ ", " \n", ", ", ",\n", "\n    a",
]  # fmt: skip


# ------------------------------------------------------------------------------------------------------------ documents


def document(random: Random) -> str:
    """A document in block style; mostly a mapping, and mostly right."""
    if random.random() < 0.1:
        return "".join(random.choices(PIECES, k=random.randrange(14)))
    if random.random() < 0.05:
        text = "".join(rows(random))
    else:
        # Words that any document may hold, and with them the others too in some.
        sober = random.random() < 0.7
        lines = [*collection(random, "", random.choice([1, 2, 3, 3, 4, 6]), 0.97, sober)]
        text = "\n".join(lines) + random.choice(["\n", "\n", "\n", "\n\n", "", "\n  "])
    if random.random() < 0.2:
        text = named(random, text)
    if random.random() < 0.05:
        text = text.replace("\n", "\r\n")
    if random.random() < 0.15:
        text = random.choice(HEADS) + text
    return "\ufeff" + text if random.random() < 0.02 else text


def named(random: Random, text: str) -> str:
    """*text* with some of its values named, others in the place of these, and some of them merged into mappings."""
    lines = ["p: &p {a: 1, s: [2]}", "q: &q", "  a: x", "  t:", "    <<: *p"]
    known, names = ["p", "q"], list("edcba")
    for line in text.split("\n"):
        what, head, colon, value = random.random(), *line.partition(": ")
        if what < 0.06:
            lines.append(f"{head}: *{random.choice(known)}")
        elif what < 0.12 and names and (colon or line.endswith(":")):
            known.append(names.pop())
            lines.append(f"{head}: &{known[-1]} {value}" if colon else f"{line} &{known[-1]}")
        else:
            lines.append(line)
            if what < 0.2:
                indent = line[: len(line) - len(line.lstrip(" "))]
                value = f"*{random.choice(known)}" if what < 0.17 else f"[*{random.choice(known)}, *q]"
                lines.append(f"{indent}<<: {value}")
    return "\n".join(lines)


HEADS = [
    "---\n",
    "---\n",
    "--- # c\n",
    "# c\n\n---\n",
    "---  \n# c\n",
    "--- #\n",
    "---\n---\n",
    "---\t\n",
    "---#\n",
    " ---\n",
]
SOBER_KEYS = ["a", "b", "c", "x", "key", "name", "a b", "k-1", "1", '"q"', "'s'", '"a: b"', "é"]
SOBER = [
    "text",
    "two words",
    "1",
    "-5",
    "0.5",
    "true",
    "no",
    "~",
    "null",
    '"a"',
    "'b'",
    "a:b",
    "",
    "",
    "[]",
    "{}",
    "[a, 1]",
]


def collection(random: Random, indent: str, depth: int, mapping: float, sober: bool) -> Iterator[str]:
    """The lines of a mapping, or of a list, each with its *indent*."""
    is_mapping = random.random() < mapping
    used: list[str] = []
    for _ in range(random.choice([1, 1, 2, 2, 3, 5])):
        if random.random() < 0.08:
            yield random.choice(BETWEEN[:8] if sober else BETWEEN)
        if is_mapping:
            key = random.choice(SOBER_KEYS if sober else KEYS)
            if key in used and random.random() < 0.95:
                key += str(len(used)) if key[-1] not in "'\"" else f" {len(used)}"
            if key[0] in "'\"" and key[-1] not in "'\"":
                continue
            used.append(key)
            head = f"{indent}{key}{random.choice(['', '', '', '', ' ']) if not sober else ''}:"
        else:
            head = f"{indent}-"
        yield from entry(random, head, indent, depth, is_mapping, sober)


def entry(random: Random, head: str, indent: str, depth: int, in_mapping: bool, sober: bool) -> Iterator[str]:
    """The lines of *head*, the key with its colon or the dash, and of its value."""
    gap = random.choice([" ", " ", " ", " ", "  ", "   "])
    tail = random.choice(TAILS[:9] if sober else TAILS)
    what = random.random()
    step = " " * random.choice([1, 2, 2, 2, 2, 4])
    if depth > 1 and what < 0.45:
        dashed = in_mapping and random.random() < 0.3
        if not in_mapping and random.random() < 0.7:
            # What is inside begins after the dash.
            inner = indent + " " * (1 + len(gap))
            lines = [*collection(random, inner, depth - 1, 0.6, sober)]
            yield head + gap + lines[0][len(inner) :]
            yield from lines[1:]
            return
        yield head + tail
        if random.random() < 0.1:
            yield random.choice(BETWEEN[:8])
        yield from collection(random, indent if dashed else indent + step, depth - 1, 0 if dashed else 0.6, sober)
    elif what < 0.52:
        digit = random.choice(["", "", "", "", "", "1", "2", str(len(step))])
        yield f"{head} {random.choice('|>')}{digit}{random.choice(['', '-', '+'])}{tail}"
        if random.random() < 0.1:
            return
        yield from [""] * random.choice([0, 0, 0, 1])
        yield from further(random, indent + step, sober)
        yield from [random.choice(["", "", " ", indent + step])] * random.choice([0, 0, 0, 1, 2])
    elif what < 0.56:
        # A scalar of several lines, plain or in quotes.
        quote = random.choice(["", "", "'", '"'])
        lines = [*further(random, indent + step, True)]
        end = random.choice(["", "\\", "\\ ", "\\\\"]) if quote == '"' else ""
        yield f"{head}{gap}{quote}{random.choice(['a', 'two words', '', '12', 'yes', '2026-11-23'])}{end}"
        yield from lines[:-1]
        yield lines[-1] + quote + tail
    elif what < 0.62:
        lines = flow(random, 3, indent + step, sober).split("\n")
        yield from (
            [f"{head}{gap}{lines[0]}", *lines[1:-1], lines[-1] + tail]
            if lines[1:]
            else [f"{head}{gap}{lines[0]}{tail}"]
        )
    elif what < 0.64:
        yield head + tail
        yield indent + step + random.choice(SOBER if sober else VALUES) + tail
    elif what < 0.69:
        yield f"{head} !!set{tail if not sober else ''}"
        members = SOBER_KEYS if sober else [*KEYS, *VALUES]
        for _ in range(random.randrange(1, 4)):
            yield f"{indent}{step}? {random.choice(members)}"
    else:
        yield head + gap + random.choice(SOBER if sober else VALUES) + tail


def further(random: Random, indent: str, sober: bool) -> Iterator[str]:
    """Lines of a string, most after *indent*."""
    for _ in range(random.randrange(1, 4)):
        blank = random.random() < 0.2
        extra = random.choice(["", "", "", " ", "  "])
        line = "" if blank else indent + extra + random.choice(VALUES if not sober else SOBER)
        yield line if random.random() < 0.95 else line + " "


def flow(random: Random, depth: int, indent: str, sober: bool) -> str:
    """A flow collection, perhaps of several lines; mostly right."""
    is_list = random.random() < 0.5
    gap = random.choice(["", "", "", " ", "\n" + indent, f" # c\n{indent}"])
    entries = []
    for _ in range(random.choice([0, 1, 2, 2, 3])):
        key = (
            ""
            if is_list
            else f"{random.choice(SOBER_KEYS if sober else KEYS)}{random.choice([': ', ': ', ': ', ':', ' : '])}"
        )
        is_deep = depth > 1 and random.random() < 0.3
        value = random.choice(SOBER if sober else VALUES)
        entries.append(key + (flow(random, depth - 1, indent, sober) if is_deep else value))
    comma = random.choice([", ", ", ", ",", " , ", f",\n{indent}", f", # c\n{indent}"])
    text = comma.join(entries) + ("," if random.random() < 0.1 else "")
    return "".join(["[" if is_list else "{", gap, text, gap, "]" if is_list else "}"])


def rows(random: Random, many: int = block.MANY) -> Iterator[str]:
    """A list of mappings with the same keys, long enough to be read many rows at a time, with some odd ones."""
    keys = random.sample(["id", "name", "done", "x-y", "yes", "a b", '"q"', "note"], k=random.randrange(1, 4))
    indent, gap = random.choice(["", "", "  "]), random.choice([" ", " ", "   "])
    makers: list[Callable[[int], str]] = [
        str,
        lambda n: f"row {n}",
        lambda n: random.choice(["true", "false"]),
        lambda n: f'"text {n}"',
        lambda n: f"{n}.5",
        lambda n: random.choice(SOBER[:13]),
    ]
    chosen = [random.choice(makers) for _ in keys]
    odd = random.choice([0, 0.005, 0.03, 0.3])
    yield "rows:\n"
    for number in range(many + random.randrange(2, 40)):
        for place, (key, make) in enumerate(zip(keys, chosen, strict=True)):
            head = indent + ("-" + gap if place == 0 else " " * (1 + len(gap)))
            value = random.choice(VALUES) if random.random() < odd else make(number)
            yield f"{head}{key}: {value}{random.choice(TAILS) if random.random() < odd else ''}\n"
        if random.random() < odd:
            yield random.choice(["\n", "# between\n", f"{indent}    more: 1\n", f"{indent}- \n", f"{indent}- a\n"])


def mutated(random: Random, text: str) -> str:
    """*text* with a few characters, or lines, inserted, deleted, doubled, changed or moved."""
    for _ in range(random.choice([1, 1, 1, 2, 3])):
        at = random.randrange(len(text) + 1)
        what = random.randrange(9)
        if what < 2:
            text = text[:at] + random.choice(PIECES) + text[at:]
        elif what == 2:
            text = text[:at] + text[at + random.choice([1, 1, 1, 2, 5]) :]
        elif what == 3:
            text = text[:at] + random.choice(PIECES) + text[at + 1 :]
        elif what == 4:
            stop = at + random.choice([1, 1, 2, 4, 10])
            text = text[:stop] + text[at:stop] + text[stop:]
        else:
            lines = text.split("\n")
            number = random.randrange(len(lines))
            line = lines[number]
            if what == 5:
                lines[number] = " " * random.choice([1, 1, 2, 3]) + line
            elif what == 6:
                lines[number] = line[random.choice([1, 1, 2, 3]) :]
            elif what == 7:
                lines.insert(random.randrange(len(lines) + 1), line)
            else:
                del lines[number]
            text = "\n".join(lines)
    return text


def damaged(random: Random, data: bytes) -> bytes:
    """*data* with a byte that may be none of UTF-8."""
    at = random.randrange(len(data) + 1)
    return data[:at] + bytes([random.randrange(256)]) + data[at + random.randrange(2) :]


# ---------------------------------------------------------------------------------------------------------------- judge


def alike(a: Any, b: Any) -> bool:
    """Whether two plain trees are the same, in the sense of `values.same`, and their keys in the same order."""
    if type(a) is not type(b):
        return False
    if type(a) is dict:
        return len(a) == len(b) and all(map(alike, a, b)) and all(map(alike, a.values(), b.values()))
    if type(a) is list:
        return len(a) == len(b) and all(map(alike, a, b))
    return same(a, b)


def difference(data: bytes) -> str | None:
    """How the quick way differs from the events on *data*; empty when they agree, None where it gave up."""
    try:
        if block.read(data.removeprefix(b"\xef\xbb\xbf"), reading.resolve) is block.UNSURE:
            return None
        quick = reading.load(data, "")
    except Exception as error:
        return f"{data!r} makes it fail: {error!r}"
    try:
        slow = reading.load_events(data, "")
    except InvalidStateError as error:
        return f"{data!r} is read as {quick!r}, but is an error: {error}"
    if (
        not alike(quick.value, slow.value)
        or repr(quick)[-60:].rpartition("}")[2] != repr(slow)[-60:].rpartition("}")[2]
    ):
        return f"{data!r} is read as {quick!r}, but is {slow!r}"
    text = data.removeprefix(b"\xef\xbb\xbf").replace(b"\r\n", b"\n")
    text += b"" if text.endswith(b"\n") else b"\n"  # a caller that asks for parts has a whole line at the end
    value, parts = reading.trace(text, "")
    known, expected = reading.trace_events(text, "")
    if not alike(value, known) or places(text, parts) != places(text, expected):
        return f"of {data!r}, the parts are {places(text, parts)!r}, but should be {places(text, expected)!r}"
    return ""


def places(data: bytes, parts: Parts) -> list[tuple[Any, ...]]:
    """The *parts* of *data*, as far as all parsers agree where they are, and somebody asks."""
    text = data.decode()
    found = []
    for kind, start, end, style, name, tagged in zip(
        parts.kinds, parts.starts, parts.ends, parts.styles, parts.names, parts.tagged, strict=True
    ):
        is_block = style == "" and kind in ("mapping", "sequence")
        # Nothing, where no colon or dash is: where the next token is, or the end of a block.
        is_nowhere = start == end and (kind != "scalar" or text[start - 1] not in ":-?")
        place = (0, 0) if is_nowhere and not is_block else (start, start if is_block else end)
        found.append((kind, *place, style, name, tagged))
    return found


@contextmanager
def python_parser() -> Iterator[None]:
    """Read events with PyYAML's parser in Python, as on a system without the other one."""
    before = tables.pyyaml
    pure = tables.PyYaml(pure=True)
    tables.pyyaml = lambda: pure  # type: ignore[assignment]
    try:
        yield
    finally:
        tables.pyyaml = before


@contextmanager
def runs_from(many: int) -> Iterator[None]:
    """Let collections of *many* entries count as long."""
    before = block.MANY, block.PATTERN_EVERY
    block.MANY, block.PATTERN_EVERY = many, many
    try:
        yield
    finally:
        block.MANY, block.PATTERN_EVERY = before


@check("yaml", "The quick reader gives the same answers as PyYAML's events.")
def yaml(trial: Trial) -> None:
    random = trial.random
    while trial.goes_on():
        texts = [document(random) for _ in range(500)]
        texts += [mutated(random, text) for text in texts for _ in range(3)]
        batch = [text.encode("utf-8") for text in texts]
        batch += [damaged(random, data) for data in random.sample(batch, k=50)]
        with runs_from(random.choice([1, 3, block.MANY])):
            answered = [data for data in batch if judge(trial, data)]
            with python_parser():
                for data in answered[::PURE]:
                    judge(trial, data)
        trial.count("documents", len(batch))
        trial.count("answers", len(answered))
        trial.count("answers also compared with the parser in Python", len(answered[::PURE]))


def judge(trial: Trial, data: bytes) -> bool:
    """Whether *data* was read in the quick way. Raises BrokenPromise when it was read wrongly."""
    found = difference(data)
    if found:
        (trial.folder / "document.yaml").write_bytes(data)
        raise BrokenPromise(found)
    return found is not None
