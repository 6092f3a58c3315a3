"""What the documents say about bytes, values, names and behaviour is so.

docs/format.md: each example is checked byte by byte, each numbered rule is broken once. docs/guarantees.md: each test
and constant that is named exists, and what only that page promises is shown here. Python blocks and links are
test_readme.py's.
"""

from __future__ import annotations

import ast
import asyncio
import heapq
import importlib
import io
import json
import os
import pkgutil
import re
import shutil
import signal
import subprocess
import sys
import time
import tokenize
from collections import OrderedDict
from collections.abc import Callable
from datetime import UTC, date, datetime
from pathlib import Path
from types import FrameType
from typing import Any
from zlib import crc32

import pytest
import yaml
from sybil import Sybil
from sybil.parsers.markdown import PythonCodeBlockParser, SkipParser
from tools.disks import Disk
from tools.docs import PAGES

import pstate
from pstate import EditConflict, InvalidStateError, PersistedState, ReentrantError
from pstate.file import format as f
from pstate.file.format import Verdict
from pstate.memory import ops
from pstate.text import dumping, reading, records
from pstate.values import same

ROOT = Path(__file__).parent.parent
FORMAT = (ROOT / "docs" / "format.md").read_text(encoding="utf-8")
GUARANTEES = (ROOT / "docs" / "guarantees.md").read_text(encoding="utf-8")
SECURITY = (ROOT / "SECURITY.md").read_text(encoding="utf-8")
ROOT_PAGES = [ROOT / f"{name}.md" for name in ("README", "CHANGELOG", "SECURITY", "CONTRIBUTING")]
DOCUMENTS = [*ROOT_PAGES, *sorted((ROOT / "docs").rglob("*.md"))]

CLEAN, TORN, MOVED, DAMAGED = Verdict.CLEAN, Verdict.TORN, Verdict.MOVED, Verdict.DAMAGED


def shown(caption: str) -> bytes:
    """The bytes of the example with that caption on the page about the format."""
    block = re.search(rf"<!-- bytes: {caption} -->\n```yaml\n(.*?)^```$", FORMAT, re.M | re.S)
    assert block is not None, caption
    return block[1].encode()


def tables(text: str) -> list[list[list[str]]]:
    """The cells of all tables of *text*, without their heads."""
    found: list[list[list[str]]] = []
    for block in re.findall(r"(?:^\|.*\n)+", text, re.M):
        rows = [line.strip("|").split("|") for line in block.splitlines()]
        found.append([[cell.strip() for cell in row] for row in rows[2:]])
    return found


def in_ticks(cell: str) -> str:
    assert cell.startswith("`"), cell
    return cell.strip("`")


JOURNAL = shown("journal")
TRAILER = shown("moved")
JOURNALS = ["journal", "first commit", "moved by an edit", "operations", "written"]


# ------------------------------------------------------------------ the examples, byte by byte


@pytest.mark.parametrize("caption", JOURNALS)
def test_the_bytes_of_an_example_are_those_that_we_write(caption: str) -> None:
    """Built again from what a stock loader reads in them, by the rules as the page has them."""
    data = shown(caption)
    lines = data.splitlines(keepends=True)
    at = next(number for number, line in enumerate(lines) if line.startswith(b"... # pstate "))
    base = b"".join(lines[:at])
    fields = lines[at].split()
    generation, flag = fields[4].decode(), fields[8]
    marker = f.BaseMarker(generation, len(base), crc32(base), fields[7].decode(), flag == b"w")

    assert lines[at] == marker.encode()
    documents = list(yaml.safe_load_all(data))
    crc = int(generation, 16)
    rebuilt = base + marker.encode()
    for record in documents[1:]:
        if record is None:
            break  # the trailer
        body = records.encode_body(record)
        written, crc_of_record = f.encode_record(body, crc)
        crc = crc32(body.encode(), crc)
        assert crc == crc_of_record
        assert b"--- " + body.encode() + b"\n... # %08x\n" % crc == written
        rebuilt += written
    assert data[: len(rebuilt)] == rebuilt
    image = f.scan(data)
    assert (base, len(rebuilt), crc) == (image.base, image.end, image.crc)
    assert documents[1 : 1 + image.index] == [reading.decode_body(body, "", 1) for body in image.bodies]
    assert (MOVED if data[len(rebuilt) :] else CLEAN) is image.verdict


@pytest.mark.parametrize(
    ("caption", "closed"),
    [("journal", "closed"), ("operations", "operations closed"), ("written", "written closed")],
)
def test_closing_an_example_gives_the_document_that_is_shown(caption: str, closed: str, tmp_path: Path) -> None:
    path = tmp_path / "state.yaml"
    path.write_bytes(shown(caption))

    with PersistedState(path) as state:
        assert yaml.safe_load(shown(closed)) == state

    assert shown(closed) == path.read_bytes()


def test_the_canonical_document_is_as_it_is_shown() -> None:
    comment, _, canonical = shown("closed").partition(b"\n")

    assert comment.startswith(b"#")
    assert canonical == dumping.dump(yaml.safe_load(canonical))


def test_the_trailers_that_are_shown_are_those_of_their_files() -> None:
    trailer = f.scan(JOURNAL + TRAILER).trailer
    assert trailer is not None
    closed = shown("closed")
    assert f.Trailer("5f2c81d0", len(closed), crc32(closed), 4, crc32(JOURNAL)).encode() == trailer.encode()
    assert TRAILER == trailer.encode()

    edited = shown("moved by an edit")
    before = edited[: edited.rindex(b"---")]
    assert edited == before + f.Trailer("5f2c81d0", 0, 0xFFFFFFFF, 1, crc32(before)).encode()


class Witness(Disk):
    """Reproducible, and notes every call that changes something."""

    def __init__(self) -> None:
        super().__init__("write", "truncate", "sync", "sync_data", "rename_new", "unlink", "exchange", "sync_folder")
        self.changed: list[str] = []
        self.after = lambda name, *_: self.changed.append(name)  # what failed has changed nothing
        self.drawn = 0x5F2C81CF

    def token(self) -> str:
        self.drawn += 1
        return f"{self.drawn:08x}"

    def boot_id(self) -> str:
        return "0123abcd"


def test_the_tables_that_are_shown_are_those_that_are_made() -> None:
    """And the page says of each column what it is."""
    statements = importlib.import_module("pstate.rows.statements")
    shown = re.search(r"<!-- tables -->\n```sql\n(.*?)^```$", FORMAT, re.M | re.S)
    assert shown is not None
    made = {
        f"{table}.{column}"
        for table, columns in re.findall(r"EXISTS pstate\.(\w+) \(\n(.*?)^\)", shown[1], re.M | re.S)
        for column in re.findall(r"^    ([a-z]+) ", columns, re.M)
    }
    explained = {name for rows in tables(FORMAT) for row in rows for name in re.findall(r"`([a-z]+\.[a-z]+)`", row[0])}

    assert shown[1] == statements.DDL
    assert made == explained


def test_a_real_session_leaves_the_bytes_that_are_shown(tmp_path: Path) -> None:
    """The journal as it grows, and the file that the vacuum has replaced."""
    path = tmp_path / "state.yaml"
    path.write_bytes(JOURNAL[: f.find_marker(JOURNAL)])
    state: Any = PersistedState.open(path, fs=Witness())
    with open(path, "rb") as old:
        state.counter += 1
        with state.transaction():
            state.key.nested = 3
            state["log"] = ["both, or neither"]
        state.ratio = 1e20
        state.seen = {"a", 7}
        assert JOURNAL == path.read_bytes()

        state.vacuum()

        assert JOURNAL + TRAILER == old.read()
    assert shown("closed") == path.read_bytes()
    state.close()


def test_the_operations_that_are_shown_are_the_closed_set(tmp_path: Path) -> None:
    """Named in the table, used in the example, written by the calls that the example is of."""
    table = [row for rows in tables(FORMAT) for row in rows if row[0].startswith('`["')]
    named = {json.loads(re.sub(r"(?<=, )\w+", "0", in_ticks(row[0])))[0] for row in table}
    used = {operation[0] for operation in list(yaml.safe_load_all(shown("operations")))[1]}
    assert ops.__doc__ is not None
    written = set(re.findall(r'\("(\w+)"', ops.__doc__)) - {"keys"}  # which no record contains

    assert named == used == written

    path = tmp_path / "state.yaml"
    path.write_bytes(shown("operations").partition(b"... # pstate")[0])
    state: Any = PersistedState.open(path, fs=Witness())
    with state.transaction():
        state.jobs.append("wash")
        state.jobs.sort()
        state.jobs[1:3] = ["dry", "fold"]
        del state.jobs[0]
        state.seen.add("b")
        state.seen.discard("a")
        state.n = 2
    assert shown("operations") == path.read_bytes()
    state.close()


def value_rows() -> list[tuple[str, str]]:
    rows = FORMAT[FORMAT.index("### Values") : FORMAT.index("## The document that a vacuum writes")]
    return [(in_ticks(row[0]), in_ticks(row[1])) for row in tables(rows)[0]]


@pytest.mark.parametrize(("expression", "text"), value_rows(), ids=lambda cell: cell[:30])
def test_a_value_is_written_as_the_table_says(expression: str, text: str) -> None:
    value = eval(expression, {"date": date, "datetime": datetime, "UTC": UTC})
    body = records.encode_body([["set", [], "k", value]])

    assert f'[["set",[],"k",{text}]]' == body
    assert same(value, reading.decode_body(body, "", 1)[0][3])
    assert same(value, yaml.safe_load(body)[0][3])


def test_long_integers_and_keys_are_written_as_the_page_says() -> None:
    digits = 10**600
    assert f"{digits - 1}" in records.encode_body([["set", [], "k", digits - 1]])
    assert hex(digits) in records.encode_body([["set", [], "k", digits]])
    key = "k" * 998
    assert f'{{"{key}": 1}}' in records.encode_body([["set", [], "k", {key: 1}]])
    assert f'{{? "{key}k" : 1}}' in records.encode_body([["set", [], "k", {f"{key}k": 1}]])
    for text in ("n", "NO", "1e3", "1:30"):
        assert f'k: "{text}"\n'.encode() == dumping.dump({"k": text})
    assert b'"n": 1\n' == dumping.dump({"n": 1})
    assert b"{}\n" == dumping.dump({})
    assert b"a: []\nb: !!set {}\nc: {}\n" == dumping.dump({"a": [], "b": set(), "c": {}})


def test_the_journal_of_persistedstate_that_is_shown_opens(tmp_path: Path) -> None:
    block = re.search(r"^```\n(---\n.*?)^```$", FORMAT, re.M | re.S)
    assert block is not None
    path = tmp_path / "state.yaml"
    path.write_text(f"counter: 3\nkey:\n  nested: 2\nlog: []\n{block[1]}")

    with PersistedState(path) as state:
        assert {"key": {"nested": 3}, "log": ["both, or neither"]} == state


def test_fields_have_the_width_that_the_tables_say() -> None:
    for begin, end, line in (
        ("## Base marker", "A base marker is valid", JOURNAL.splitlines()[4]),
        ("## Moved trailer", "A moved trailer is valid", TRAILER.rstrip(b"\n")),
    ):
        rows = tables(FORMAT[FORMAT.index(begin) : FORMAT.index(end)])[0]
        first, *widths = [int(row[1]) for row in rows]
        assert len(in_ticks(rows[0][0].replace("` `", " "))) in (first, first - 1)  # Markdown may eat its last blank
        assert widths == [len(field) for field in line[first:].split(b" ")]


# ------------------------------------------------------------------ each numbered rule, broken once


def rules(heading: str) -> int:
    """How many rules the list after the sentence *heading* has."""
    at = FORMAT.index(heading) + len(heading)
    block = re.match(r"\n\n((?:\d+\. .*\n)+)", FORMAT[at:])
    assert block is not None, heading
    numbers = [int(line.partition(".")[0]) for line in block[1].splitlines()]
    assert list(range(1, len(numbers) + 1)) == numbers
    return len(numbers)


BROKEN_BASES = {
    1: b"a: \xff\n",
    2: b"a: 1\rb: 2\n",
    3: b"a: 1\n---\nb: 2\n",
    4: b"- 1\n",
    5: b"a: !!python/object/apply:os.getcwd []\n",
    6: b"a: 1\na: 2\n",
    7: b"a: " + b"[" * 100 + b"]" * 100 + b"\n",
    8: b"a: &a [*a]\n",
}


@pytest.mark.parametrize("rule", range(1, 1 + rules("A base document is valid if and only if")))
def test_a_base_document_that_breaks_a_rule_is_refused(rule: int, tmp_path: Path) -> None:
    path = tmp_path / "state.yaml"
    path.write_bytes(BROKEN_BASES[rule])

    with pytest.raises(InvalidStateError) as caught:
        PersistedState(path)

    assert caught.value.line is not None
    assert BROKEN_BASES[rule] == path.read_bytes()


def test_base_documents_just_within_the_rules_are_read() -> None:
    for base, value in (
        (b"\xef\xbb\xbfa: 1\r\nb: 2\r\n", {"a": 1, "b": 2}),
        (b"", {}),
        (b"# nothing\n\n", {}),
        (b"null\n", {}),
        (b"a: &a [1]\nb: *a\n", {"a": [1], "b": [1]}),
    ):
        assert value == reading.load(base, "").value
    assert reading.load(b"a: " + b"[" * 99 + b"]" * 99 + b"\n", "").value


TAKE_NO_MARKER = {1: b"a: 1", 2: b"# nothing\n", 3: b"a: 1\n...\n"}


@pytest.mark.parametrize("rule", range(1, 1 + rules("A base document can *take a marker* if and only if")))
def test_a_base_document_that_takes_no_marker(rule: int, tmp_path: Path) -> None:
    """The first commit puts `{}` before it, or rewrites it."""
    base = TAKE_NO_MARKER[rule]
    assert reading.load(JOURNAL[: f.find_marker(JOURNAL)], "").appendable
    assert not reading.load(base, "").appendable
    path = tmp_path / "state.yaml"
    path.write_bytes(base)

    state: Any = PersistedState.open(path, fs=Witness())
    state.b = 2

    before = f.scan(path.read_bytes()).base
    assert (b"# nothing\n{}\n" if rule == 2 else b"a: 1\n") == before
    state.close()


def test_a_comment_without_a_newline_gets_one_before_the_node() -> None:
    assert b"\n{}\n" == f.first_node(b"# nothing")
    assert b"{}\n" == f.first_node(b"# nothing yet\n")
    assert shown("first commit").startswith(b"# nothing yet\n" + f.first_node(b"# nothing yet\n") + b"... # pstate ")


def changed(data: bytes, old: bytes, new: bytes) -> bytes:
    assert data.count(old) == 1, old
    return data.replace(old, new)


MARKER_LINE = JOURNAL.splitlines(keepends=True)[4]
LAST = b"... # 2246595c\n"
MOVED_PLAIN = b"a: 1\n" + f.Trailer(f.NO_GENERATION, 5, 1, 0, crc32(b"a: 1\n")).encode()

# What each rule's variant is judged as, and how many commits are left. The file has four.
BROKEN_MARKERS = {
    1: (changed(JOURNAL, b"c8fe1559", b"C8FE1559"), DAMAGED, 0),
    2: (changed(JOURNAL, b"# pstate 1 ", b"# pstate 2 "), DAMAGED, 0),
    3: (JOURNAL[: JOURNAL.index(b"--- ")], TORN, 0),
}
BROKEN_RECORDS = {
    1: (changed(JOURNAL, b'--- [["set",[],"seen"', b'---  [["set",[],"seen"'), DAMAGED, 3),
    2: (changed(JOURNAL, b'{7: null,"a": null}]]\n', b'{7: null,\n"a": null}]]\n'), DAMAGED, 3),
    3: (changed(JOURNAL, LAST, LAST.upper()), DAMAGED, 3),
    4: (changed(JOURNAL, LAST, b"... # %08x\n" % crc32(b'[["set",[],"seen",!!set {7: null,"a": null}]]')), DAMAGED, 3),
}
BROKEN_TRAILERS = {
    1: (JOURNAL + TRAILER[:-1], TORN, 4),
    2: (JOURNAL + b"\n" + TRAILER, DAMAGED, 4),
    3: (changed(MOVED_PLAIN, b"a: 1", b"a: 2"), TORN, 0),
}
JUDGED = {
    1: (JOURNAL, CLEAN, 4),
    2: (JOURNAL + TRAILER, MOVED, 4),
    3: (changed(JOURNAL, MARKER_LINE, b"... # pstate whatever\n"), DAMAGED, 0),
    4: (JOURNAL + f.encode_record('[["set",[],"counter",5]]', int(JOURNAL[-9:-1], 16))[0][:-8], TORN, 4),
    5: (changed(JOURNAL, b"... # 5fccd6ff", b"... # 5fccd6fe"), DAMAGED, 2),
}
BROKEN_TORN_LINES = {
    1: (b"a: 1\n... # pst\n", CLEAN, 0),
    2: (b"a: 1\n... # a remark", CLEAN, 0),
    3: (b"a:\n- x\n-", CLEAN, 0),
}
BROKEN_HOLES = {
    1: (b"a: 1\nb\0\0", CLEAN, 0),
    2: (b"a: 1\n\0\0b", CLEAN, 0),
    3: (JOURNAL + b"\0" * 512, DAMAGED, 4),
}
LISTS = {
    "If there is no base marker, the last line of a file is torn if and only if": BROKEN_TORN_LINES,
    "The base marker counts as *lost* if and only if": BROKEN_HOLES,
    "A base marker is valid if and only if": BROKEN_MARKERS,
    "A record is committed if and only if": BROKEN_RECORDS,
    "A moved trailer is valid if and only if": BROKEN_TRAILERS,
    "The bytes after the last commit are": JUDGED,
}


@pytest.mark.parametrize(
    ("heading", "rule"), [(heading, rule) for heading in LISTS for rule in range(1, 1 + rules(heading))]
)
def test_a_file_that_breaks_a_rule_is_judged_as_the_page_says(heading: str, rule: int) -> None:
    data, verdict, commits = LISTS[heading][rule]
    image = f.scan(data)

    assert (verdict, commits) == (image.verdict, image.index)


def test_no_rule_is_without_its_variant() -> None:
    for heading, variants in LISTS.items():
        assert rules(heading) == len(variants)
    assert MOVED is f.scan(MOVED_PLAIN).verdict
    for torn in (b"a: 1\n... # pst", b"a: 1\n-", b"a: 1\n\0\0", b"a: 1\n.." + bytes(16)):
        assert (TORN, b"a: 1\n") == (f.scan(torn).verdict, f.scan(torn).base)
    assert 1 == rules("The base document counts as *unedited* if and only if")


def test_an_edited_base_document_is_told_from_one_with_other_line_ends() -> None:
    assert f.scan(changed(JOURNAL, b"counter: 3", b"counter: 5")).base_edited
    for harmless in (JOURNAL, b"\xef\xbb\xbf" + JOURNAL, JOURNAL.replace(b"\n", b"\r\n")):
        assert not f.scan(harmless).base_edited
        assert 4 == f.scan(harmless).index


@pytest.mark.parametrize("content", [b"a: 1", b"a:\n- x\n", b"a: 1\nb:\n", b"# nothing\n"])
def test_a_file_where_a_torn_trailer_could_change_a_value_gets_none_before_the_exchange(
    tmp_path: Path, content: bytes
) -> None:
    path = tmp_path / "state.yaml"
    path.write_bytes(content)
    at_exchange: list[bytes] = []

    class Looking(Witness):
        def exchange(self, first: str, second: str) -> None:
            at_exchange.append(path.read_bytes())
            super().exchange(first, second)

    with PersistedState.open(path, fs=Looking()) as state:
        state.vacuum()

    assert content == at_exchange[0]


# ------------------------------------------------------------------ what the documents name


@pytest.mark.parametrize("page", [GUARANTEES, SECURITY], ids=["guarantees", "security"])
def test_every_test_that_is_named_exists(page: str) -> None:
    named = re.findall(r"\[`(test_\w+)`\]\((?:\.\./)?tests/(test_\w+\.py)\)", page)
    existing: dict[str, set[str]] = {}
    for _, file in named:
        if file not in existing:
            tree = ast.parse((ROOT / "tests" / file).read_text(encoding="utf-8"))
            existing[file] = {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}

    assert named
    assert [] == [(name, file) for name, file in named if name not in existing[file]]
    assert page.count("`test_") == len(named)  # none is named without its file


def test_every_claim_about_security_names_a_test_or_says_that_there_is_none() -> None:
    claims = [row for rows in tables(SECURITY) for row in rows]
    assert claims
    for claim in claims:
        assert "`test_" in claim[1] or claim[1] in ("no test", "the same tests"), claim


def test_every_promise_is_shown_by_a_test() -> None:
    """In the list behind the fold, or in the section that it names."""
    promised = re.findall(r"^\*\*(P\d+)\.", GUARANTEES, re.M)
    shown = dict(re.findall(r"^- \*\*(P\d+)\.\*\* ((?:\[`test_|Those).*)$", GUARANTEES, re.M))

    assert promised == list(shown)
    assert ["P10"] == [number for number, tests in shown.items() if "[`test_" not in tests]
    assert "](#editors)" in shown["P10"]


FOLD = re.compile(r'^<details markdown="1">\n<summary>[^\n<]+</summary>\n\n(.*?)\n\n</details>$', re.M | re.S)


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_what_is_folded_is_markdown_on_github_and_in_the_site(document: Path) -> None:
    """The site wants the attribute, GitHub the empty lines."""
    text = document.read_text(encoding="utf-8")
    inside = FOLD.findall(text)

    assert text.count("<details") == text.count("</details>") == len(inside)
    assert not any("<details" in each or re.search("^#", each, re.M) for each in inside)  # headings are for the list


def test_the_guarantees_are_read_in_five_minutes() -> None:
    """Without the proofs, which are folded."""
    text = re.sub(r"\]\([^)]*\)", "]", FOLD.sub("", GUARANTEES))

    assert len(re.findall(r"\w[\w'`.=-]*", text)) <= 1500
    assert "`test_" not in text


def test_promises_and_invariants_are_numbered_and_have_tests() -> None:
    promises = [int(number) for number in re.findall(r"^\*\*P(\d+)\.", GUARANTEES, re.M)]
    assert list(range(1, len(promises) + 1)) == promises
    invariants = [row for rows in tables(GUARANTEES) for row in rows if re.fullmatch(r"I\d+", row[0])]
    assert [f"I{number}" for number in range(1, len(invariants) + 1)] == [row[0] for row in invariants]
    assert all("`test_" in row[2] for row in invariants)


def cited(source: str) -> set[str]:
    """The rules that comments and docstrings of *source* cite by number, such as I4."""
    texts = [
        token.string
        for token in tokenize.generate_tokens(io.StringIO(source).readline)
        if token.type == tokenize.COMMENT or (token.type == tokenize.STRING and '"""' in token.string)
    ]
    return {number for text in texts for number in re.findall(r"\b[A-Z]\d{1,2}\b", text)}


def test_comments_cite_only_rules_that_are_on_the_page() -> None:
    rules = set(re.findall(r"^\| (I\d+) \|", GUARANTEES, re.M)) | set(re.findall(r"^\*\*(P\d+)\.", GUARANTEES, re.M))
    files = [file for folder in ("pstate", "stress", "tests", "perf") for file in (ROOT / folder).rglob("*.py")]
    found = {str(file.relative_to(ROOT)): cited(file.read_text(encoding="utf-8")) - rules for file in files}

    assert {name: numbers for name, numbers in found.items() if numbers} == {}
    assert cited('x = "F1"  # as I4 says\n') == {"I4"}


UNITS = {"ms": 1e-3, "µs": 1e-6, "s": 1.0, "bytes": 1, "times": 1, "levels": 1, "digits": 1, "vacuums": 1,
         "records": 1, "characters": 1}  # fmt: skip


def constants() -> list[tuple[str, str]]:
    rows = [row for rows in tables(GUARANTEES) for row in rows if re.fullmatch(r"`_?[A-Z_]+`", row[0])]
    return [(in_ticks(row[0]), row[1]) for row in rows]


def in_code(name: str) -> Any:
    """The value of the constant, in whatever module of the package it is."""
    values = {
        getattr(module, name)
        for info in pkgutil.walk_packages(pstate.__path__, "pstate.")
        if info.name not in ("pstate.__main__", "pstate.testing.pytest_plugin")
        if name in vars(module := importlib.import_module(info.name))
    }
    assert 1 == len(values), name
    return values.pop()


@pytest.mark.parametrize(("name", "text"), constants())
def test_every_constant_is_the_one_in_the_code(name: str, text: str) -> None:
    number, unit = text.split()

    assert pytest.approx(float(number.replace(",", "")) * UNITS[unit]) == in_code(name)


@pytest.mark.parametrize(
    ("name", "value", "sentence"),
    [
        ("MAX_DEPTH", 100, "nested no deeper than 100 levels"),
        ("EXPANSION_FREE", 1_000_000, "by more than 1,000,000 characters"),
        ("EXPANSION_FACTOR", 10, "or 10 times its own bytes"),
        ("LONGEST_SIMPLE_KEY", 1000, "more than 1,000 characters"),
        ("DECIMAL_DIGITS", 600, "more than 600 decimal digits"),
        ("VERSION", 1, "its version is 1"),
        ("NO_GENERATION", "00000000", "never `00000000`"),
        ("SECTOR", 512, "a multiple of 512 bytes"),
        ("_FORMAT", "1", "Its number is 1"),
        ("_SIGNATURE", b"... # pstate ", "begins with `... # pstate `"),
    ],
)
def test_every_number_on_the_page_about_the_format_is_the_one_in_the_code(name: str, value: Any, sentence: str) -> None:
    assert sentence in FORMAT
    assert value == in_code(name)


def test_the_pauses_and_the_timeout_in_the_text_are_those_of_the_code(tmp_path: Path) -> None:
    assert "a read waits up to 200 ms" in GUARANTEES
    assert pytest.approx(0.2) == in_code("QUIET_FOR_READERS")
    assert "`lock_timeout` (10 seconds by default)" in GUARANTEES
    assert "within a tenth of a second" in GUARANTEES  # test_it_wakes_up_within_a_tenth_of_a_second
    assert "for a second at most" in GUARANTEES
    assert 1.0 == in_code("WATCHERS_AT_MOST")
    assert (
        "with pauses from 50 µs, doubled up to 1 ms, or to a two-hundredth of the time waited, 10 ms at most, "
        "until "
        "`lock_timeout`, which is 10 seconds" in GUARANTEES
    )
    assert (50e-6, 1e-3, 1 / 200, 10e-3) == tuple(
        map(in_code, ("_FIRST_PAUSE", "_PAUSE_WHEN_BUSY", "_PART_OF_WAIT", "_LONGEST_PAUSE"))
    )
    with PersistedState(tmp_path / "state.yaml") as state:
        assert 10.0 == state._store.lock_timeout


def test_the_times_of_servers_in_the_text_are_those_of_the_code() -> None:
    pytest.importorskip("psycopg", reason="psycopg is not installed")
    server = importlib.import_module("pstate.rows.server")
    log = importlib.import_module("pstate.rows.log")
    bell = importlib.import_module("pstate.rows.bell")
    howto, concepts = (
        (ROOT / "docs" / name).read_text(encoding="utf-8") for name in ("howto/postgres.md", "concepts.md")
    )

    assert server.LEASE == 30
    assert "A block that lasts longer than 30 s loses its lock" in GUARANTEES
    assert "lasts longer than 30 seconds" in howto
    assert "After 30 seconds without a request" in concepts
    assert server.PATIENCE == 5
    assert "waits for `lock_timeout`, and at least 5 s," in GUARANTEES
    assert "and at least 5 seconds" in howto
    assert server.RETENTION == 7 * 86400
    assert server.MOST == 100_000
    assert "for 7 days, or 100,000 revisions" in GUARANTEES
    assert "7 days, or 100,000 revisions" in concepts
    assert "7 days, or 100,000 revisions" in howto
    assert bell.POLL == 0.05
    assert bell.LONGEST == 1
    assert "every 50 ms" in howto
    assert "at least every second" in howto
    assert log.LARGEST == 64 * 2**20
    assert "more than 64 MiB" in howto
    assert "more than 64 MiB" in concepts


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_link_leads_to_a_file_and_a_heading(document: Path) -> None:
    for target, heading in re.findall(r"\]\(([^)#:]*)(?:#([^)]*))?\)", document.read_text(encoding="utf-8")):
        file = document.parent / target if target else document
        assert file.exists(), target
        if heading:
            lines = re.findall(r"^#+ (.*)$", file.read_text(encoding="utf-8"), re.M)
            anchors = {re.sub(r"[^\w\- ]", "", line.lower()).replace(" ", "-") for line in lines}
            assert heading in anchors, f"{target}#{heading}"


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_python_block_is_overlooked(document: Path) -> None:
    """test_readme.py runs what the parser finds: it must find all there are, but the files that test_pages.py saves."""
    title = '(?! title=")' if document in (*PAGES, ROOT / "README.md") else ""
    blocks = re.findall(rf"^ *```(?:python|py|pycon)\b{title}", document.read_text(encoding="utf-8"), re.M)
    parsed = Sybil(parsers=[PythonCodeBlockParser(), SkipParser()]).parse(document)

    assert len(blocks) == len(list(parsed.examples()))


def test_every_decision_is_listed() -> None:
    folder = ROOT / "docs" / "decisions"
    listed = re.findall(r"^- \[(.*)\]\((.*)\)$", (folder / "README.md").read_text(encoding="utf-8"), re.M)

    assert sorted(path.name for path in folder.glob("0*.md")) == [name for _, name in listed]
    for title, name in listed:
        assert f"# {title}\n" == (folder / name).read_text(encoding="utf-8").splitlines(keepends=True)[0]


# ------------------------------------------------------------------ what only docs/guarantees.md promises


def test_the_calls_of_each_durability_are_those_that_are_documented(tmp_path: Path) -> None:
    documented = {
        (row[0], row[1]): [] if row[2] == "none" else row[2].split(", ")
        for rows in tables(GUARANTEES)
        for row in rows
        if row[1] in ("process", "power")
    }
    seen = {key: calls for durability in ("process", "power") for key, calls in calls_of(tmp_path, durability).items()}

    assert documented
    assert documented == {key: calls for key, calls in seen.items() if key in documented}


def calls_of(folder: Path, durability: Any) -> dict[tuple[str, str], list[str]]:
    fs = Witness()
    path = folder / f"{durability}.yaml"
    seen: dict[tuple[str, str], list[str]] = {}

    def note(what: str) -> None:
        seen[what, durability] = list(fs.changed)
        fs.changed.clear()

    state: Any = PersistedState.open(path, fs=fs, durability=durability)
    fs.changed.clear()
    state.a = 1
    note("first commit of a new file")
    state.a = 2
    note("commit")
    with state.transaction():
        state.a = 3
        state.b = 4
    note("transaction")
    assert {"a": 3, "b": 4} == state.snapshot()
    note("read")
    state.vacuum()
    note("vacuum")
    state.close()
    state = PersistedState.open(path, fs=fs, durability=durability)
    fs.changed.clear()
    assert 3 == state.a
    note("first read of an existing file")
    state.close()
    return seen


def test_a_handler_that_uses_the_state_in_the_middle_of_a_change_is_refused(tmp_path: Path) -> None:
    """The signal arrives before the next write."""
    fs = Disk("write")

    def ring(*_: Any) -> None:
        fs.armed = False
        signal.raise_signal(signal.SIGUSR1)

    fs.before, fs.armed = ring, False
    state: Any = PersistedState.open(tmp_path / "state.yaml", fs=fs)
    refused: list[ReentrantError] = []

    def handler(number: int, frame: FrameType | None) -> None:
        for use in (lambda: setattr(state, "b", 1), state.snapshot, state.vacuum):
            with pytest.raises(ReentrantError) as caught:
                use()
            refused.append(caught.value)

    before = signal.signal(signal.SIGUSR1, handler)
    try:
        fs.armed = True
        state.a = 1
    finally:
        signal.signal(signal.SIGUSR1, before)

    assert 3 == len(refused)
    assert {"a": 1} == state
    state.close()


def test_importing_it_needs_the_calls_of_posix() -> None:
    """Windows has no os.pread: when this fails, the page about what holds where is too modest."""
    done = subprocess.run(
        [sys.executable, "-c", "import os\ndel os.pread\nimport pstate"], capture_output=True, text=True, check=False
    )

    assert "has no attribute 'pread'" in done.stderr


def in_another_process(path: Path, code: str) -> None:
    script = f"from pstate import PersistedState\nwith PersistedState({str(path)!r}) as state:\n    {code}"
    subprocess.run([sys.executable, "-c", script], check=True)


def test_what_goes_round_pstate_is_what_is_documented(tmp_path: Path) -> None:
    """Each call that the caveat names: what it reads or changes raw, and what the others do."""
    path = tmp_path / "state.yaml"
    state: Any = PersistedState(path, jobs=[1, 2], ms={1}, d={"a": 1})
    jobs, ms, d = state.jobs, state.ms, state.d
    raw_reads: dict[str, Callable[[], Any]] = {
        "set(ms)": lambda: set(ms),
        "frozenset(ms)": lambda: frozenset(ms),
        "{*ms}": lambda: {*ms},
        "plain |= ms": lambda: set().__ior__(ms),
        "plain.update(ms)": lambda: updated(set(), ms),
        "plain.union(ms)": lambda: set().union(ms),
        "frozenset() | ms": lambda: frozenset() | ms,
    }
    state.empty = {}
    empty = state.empty
    record_of_another(state, path, '[["set",["empty"],"a",1]]')
    assert "`json.dumps(d)` of a mapped dict `d` that is empty in memory" in GUARANTEES
    assert "{}" == json.dumps(empty) == json.dumps(empty)
    assert "`OrderedDict() == d`" in GUARANTEES
    assert OrderedDict() == empty
    assert '{"a": 1}' == json.dumps(empty.copy()) == json.dumps(empty)
    assert OrderedDict() != empty

    good_reads: dict[str, tuple[Callable[[], Any], Any]] = {
        "ms.copy()": (lambda: {*ms.copy()}, {1, 2}),
        "state.snapshot()": (lambda: state.snapshot()["ms"], {1, 2}),
        "list(l)": (lambda: list(jobs), [1, 2, 3]),
        "dict(d)": (lambda: dict(d), {"a": 1, "b": 2}),
        "sorted(ms)": (lambda: sorted(ms), [1, 2]),
        "json.dumps": (lambda: json.loads(json.dumps(d)), {"a": 1, "b": 2}),
    }
    for name, read in raw_reads.items():
        assert f"`{name}`" in GUARANTEES
        state.ms = {1}
        ms = state.ms
        record_of_another(state, path, '[["add",["ms"],[2]]]')
        assert {1} == read(), name
    for name, (good, newest) in good_reads.items():
        assert f"`{name}`" in GUARANTEES
        with state.transaction():
            state.ms, state.jobs, state.d = {1}, [1, 2], {"a": 1}
        ms, jobs, d = state.ms, state.jobs, state.d
        record_of_another(state, path, '[["add",["ms"],[2]],["insert",["jobs"],2,3],["set",["d"],"b",2]]')
        assert newest == good(), name

    state.jobs = [2, 3]
    before = path.read_bytes()
    heapq.heappush(state.jobs, 1)
    list.append(state.jobs, 4)
    assert before == path.read_bytes()
    assert {1, 2, 3, 4} == {*list.__iter__(state.jobs)}
    state.close()


def updated(plain: set[Any], other: Any) -> set[Any]:
    plain.update(other)
    return plain


def record_of_another(state: Any, path: Path, body: str) -> None:
    """What another process would append; quicker than starting one for each."""
    state.snapshot()
    record, _ = f.encode_record(body, state._store.view[2])
    with open(path, "ab") as file:
        file.write(record)


def test_a_value_set_back_after_a_vacuum_is_a_conflict(tmp_path: Path) -> None:
    path = tmp_path / "state.yaml"
    path.write_text("mode: fast\n")
    state: Any = PersistedState(path)
    state.mode = "slow"
    state.vacuum()

    saved = tmp_path / "saved"
    saved.write_text("mode: fast\n")
    saved.replace(path)

    with pytest.raises(EditConflict) as caught:
        while state.mode == "slow":
            time.sleep(0.001)  # until the look is due
    assert "fast" == state.mode
    assert caught.value.conflict_path is not None
    assert {"mode": "slow"} == yaml.safe_load(Path(caught.value.conflict_path).read_text())
    state.close()


def test_tasks_share_the_transaction_of_their_thread(tmp_path: Path) -> None:
    state: Any = PersistedState(tmp_path / "state.yaml", a=0)

    async def both() -> None:
        inside, done = asyncio.Event(), asyncio.Event()

        async def one() -> None:
            with pytest.raises(ZeroDivisionError), state.transaction():
                state.a = 1
                inside.set()
                await done.wait()
                raise ZeroDivisionError

        async def two() -> None:
            await inside.wait()
            state.b = 2
            done.set()

        await asyncio.gather(one(), two())

    asyncio.run(both())

    assert {"a": 0} == state
    state.close()


def test_a_failed_open_by_persistedstate_loses_records(tmp_path: Path) -> None:
    """And pstate reads all of them: so it is to be asked first."""
    path = tmp_path / "old.state"
    path.write_text('\n---\n["set", [], "a", 1]\n---\n["delete", [], "missing"]\n---\n["set", [], "b", 2]')
    copy = tmp_path / "copy.state"
    shutil.copy(path, copy)

    script = f"from persistedstate import PersistedState\nPersistedState({str(path)!r})"
    failed = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)

    assert "KeyError: 'missing'" in failed.stderr
    assert {"a": 1} == yaml.safe_load(path.read_text())
    with PersistedState(copy) as state:
        assert {"a": 1, "b": 2} == state


def test_a_copy_of_an_open_file_is_the_whole_state(tmp_path: Path) -> None:
    path = tmp_path / "state.yaml"
    state: Any = PersistedState(path, a=1)
    state.b = 2
    shutil.copy(path, tmp_path / "copy.yaml")
    state.c = 3

    in_another_process(tmp_path / "copy.yaml", "assert state == {'a': 1, 'b': 2}, state")
    assert {"a": 1, "b": 2} == yaml.safe_load((tmp_path / "copy.yaml").read_text())
    assert ["copy.yaml", "state.yaml"] == sorted(os.listdir(tmp_path))
    state.close()
