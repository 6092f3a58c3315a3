"""The quick reader: what it answers is what PyYAML's events say, and where it is not certain it gives up.

The measure is `reading.load_events`, so that a document is either read in both ways with the same result, or given up.
"""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta, timezone
from pathlib import Path
from random import Random
from typing import Any

import pytest
import yaml
from hypothesis import example, given, settings
from hypothesis import strategies as st

from pstate.errors import InvalidStateError
from pstate.text import block, dumping, reading
from pstate.values import MAX_DEPTH
from stress.check import BrokenPromise, Trial
from stress.files import documents
from stress.files.documents import alike, difference, python_parser, runs_from

pytestmark = pytest.mark.skipif(not block._IS_EXACT, reason="the regular expressions of this Python make mistakes")

# The inputs of https://github.com/yaml/yaml-test-suite at ccfa74e, by their names there; its marks for blanks, tabs and
# line ends are replaced.
SUITE = Path(__file__).parent / "golden" / "yaml-test-suite" / "documents.json"
INFINITY = float("inf")
WEST = timezone(-timedelta(hours=5, minutes=30))


def read(text: str) -> Any:
    return block.read(text.encode(), reading.resolve)


def check(text: str) -> bool:
    """Whether *text* is answered; fails when the answer is wrong, for one of the parsers."""
    found = difference(text.encode())
    assert not found
    if found is not None:
        with python_parser():
            assert not difference(text.encode())
    return found is not None


@pytest.fixture(params=[1, 2, block.MANY], ids=lambda many: f"runs from {many}")
def runs(request: pytest.FixtureRequest) -> Iterator[None]:
    """Run the test with collections of this many entries counting as long."""
    with runs_from(request.param):
        yield


# ------------------------------------------------------------------------------------------------------------- examples

ANSWERED: list[tuple[str, Any]] = [
    # documents
    ("", None),
    ("\n  \n# nothing\n", None),
    ("# no newline", None),
    ("{}\n", {}),
    ("# nothing yet\n{} # really\n\n", {}),
    ("a: 1", {"a": 1}),
    ("a: 1\n\n\n", {"a": 1}),
    ("  a: 1\n  b: 2\n", {"a": 1, "b": 2}),
    ("a: 1\r\nb: 2\r\n", {"a": 1, "b": 2}),
    ("a: |\r\n  x\r\n  y\r\n", {"a": "x\ny\n"}),
    # comments and blanks
    ("# head\n\na: 1 # one\n\n  # two\nb:  # three\n  # four\n  c: x#y  \n", {"a": 1, "b": {"c": "x#y"}}),
    ("a: '#' # c\nb: \"#\"    #c\nc: [] # c]\nd: {} #\n", {"a": "#", "b": "#", "c": [], "d": {}}),
    ("#\ttab\na: 1 # a\ttab\nb: 'a\ttab'\n", {"a": 1, "b": "a\ttab"}),
    ("a:\n\n\n  b: 1\n", {"a": {"b": 1}}),
    # mappings
    ("a:\nb:\n", {"a": None, "b": None}),
    ("a:\n b:\n  c:\n      d: 1\n e: 2\nf: 3\n", {"a": {"b": {"c": {"d": 1}}, "e": 2}, "f": 3}),
    ("a b: 1\na  c : 2\n'q': 3\n\"d: e\": 4\n", {"a b": 1, "a  c": 2, "q": 3, "d: e": 4}),
    ("1: a\nno: b\n~: c\n1.5: d\n2026-11-23: e\n", {1: "a", False: "b", None: "c", 1.5: "d", date(2026, 11, 23): "e"}),
    ("a:b: 1\n-a: 2\nключ: é\n", {"a:b": 1, "-a": 2, "ключ": "é"}),
    ("'': 1\n\"a\\u0041\": 2\n'it''s': 3\n", {"": 1, "aA": 2, "it's": 3}),
    (f"{'k' * 1000}: 1\n", {"k" * 1000: 1}),
    # lists
    ("a:\n- 1\n-\n- b\nc: 2\n", {"a": [1, None, "b"], "c": 2}),
    ("a:\n  - 1\n  - - 2\n    - 3\n  -  -  - 4\n        - 5\n", {"a": [1, [2, 3], [[4, 5]]]}),
    (
        "a:\n- b: 1\n  c:\n  - 2\n  d:\n- e: 3\n-   f: 4\n    g: 5\n",
        {"a": [{"b": 1, "c": [2], "d": None}, {"e": 3}, {"f": 4, "g": 5}]},
    ),
    ("a:\n-\n  b: 1\n-\n  - 2\n- # c\n  - 3\n", {"a": [{"b": 1}, [2], [3]]}),
    ("a:\n- - b: 1\n    c: 2\n  - d\n- e\n", {"a": [[{"b": 1, "c": 2}, "d"], "e"]}),
    ("a:\n- - \n- -\n", {"a": [[None], [None]]}),
    # texts
    ("a: two  words, [and] {more} & * ! | > % @ ` ' \"\n", {"a": "two  words, [and] {more} & * ! | > % @ ` ' \""}),
    (
        "a: http://x.y/z?a=b#c\nb: a:b\nc: -x\nd: --flag\n",
        {"a": "http://x.y/z?a=b#c", "b": "a:b", "c": "-x", "d": "--flag"},
    ),
    ("a: \u00a0b\u3000\n", {"a": "\u00a0b\u3000"}),
    ('a: "\\n\\t\\"\\\\\\/\\u00e9"\nb: " x "\nc: ""\n', {"a": '\n\t"\\/é', "b": " x ", "c": ""}),
    ("a: 'it''s'\nb: ' x '\nc: ''\nd: '\\n'\n", {"a": "it's", "b": " x ", "c": "", "d": "\\n"}),
    (
        "a: |\n  x\n    y\n\n  z\nb: |-\n    x\n\nc: |+\n  x\n\n\nd: 1\n",
        {"a": "x\n  y\n\nz\n", "b": "x", "c": "x\n\n\n", "d": 1},
    ),
    ("a:\n- |\n  # x\n# c\n- |-\n   - y\n", {"a": ["# x\n", "- y"]}),
    # other scalars
    ("a: [0, 1, -1, +5, 12345678901234567890]\n", {"a": [0, 1, -1, 5, 12345678901234567890]}),
    (
        "a: 0\nb: -0\nc: 0.5\nd: -0.0\ne: 1.5e+3\nf: 1e5\n",
        {"a": 0, "b": 0, "c": 0.5, "d": -0.0, "e": 1500.0, "f": "1e5"},
    ),
    ("a: .inf\nb: -.INF\nc: 1.\nd: .5\ne: 1_000.5\n", {"a": INFINITY, "b": -INFINITY, "c": 1.0, "d": 0.5, "e": 1000.5}),
    (
        "a: 0777\nb: 08\nc: 0x1F\nd: 0b11\ne: 1_000\nf: 1:30\ng: 1:30.5\n",
        {"a": 511, "b": "08", "c": 31, "d": 3, "e": 1000, "f": 90, "g": 90.5},
    ),
    (
        "a: yes\nb: Off\nc: TRUE\nd: yEs\ne: y\nf: nULL\ng: NULL\nh: ~\ni: ~x\n",
        {"a": True, "b": False, "c": True, "d": "yEs", "e": "y", "f": "nULL", "g": None, "h": None, "i": "~x"},
    ),
    (
        "a: 2026-11-23\nb: 2026-11-23 09:05:00\nc: 2026-1-2\nd: 2026-11-23x\n",
        {"a": date(2026, 11, 23), "b": datetime(2026, 11, 23, 9, 5), "c": "2026-1-2", "d": "2026-11-23x"},
    ),
    (
        "a: 2026-11-23 09:05:00+00:00\nb: 2026-11-23T09:05:00.000001-05:30\nc: 2026-11-23T09:05:00Z\n",
        {
            "a": datetime(2026, 11, 23, 9, 5, tzinfo=UTC),
            "b": datetime(2026, 11, 23, 9, 5, 0, 1, WEST),
            "c": datetime(2026, 11, 23, 9, 5, tzinfo=UTC),
        },
    ),
    (
        "a: 1.2.3\nb: 3 apples\nc: .hidden\nd: <x\ne: =x\n",
        {"a": "1.2.3", "b": "3 apples", "c": ".hidden", "d": "<x", "e": "=x"},
    ),
    ('a: !!binary "YWJj"\nb: !!binary ""\n', {"a": b"abc", "b": b""}),
    # sets and flow
    (
        "a: !!set\n  ? x\n  # c\n\n  ? 1 # one\nb: !!set {}\nc:\n- !!set\n  ? 'y'\n",
        {"a": {"x", 1}, "b": set(), "c": [{"y"}]},
    ),
    (
        "a: [b, 'c, d', \"e\", yes, 1.5]\nb: [ x y ,z ] # c\nc: {a: 1, 'b': two words, \"c\": no}\nd: { }\n",
        {"a": ["b", "c, d", "e", True, 1.5], "b": ["x y", "z"], "c": {"a": 1, "b": "two words", "c": False}, "d": {}},
    ),
    ("a:\n" + "".join(f"{' ' * n}a:\n" for n in range(1, MAX_DEPTH)), ...),
    # a document that begins with its marker
    ("---\na: 1\n", {"a": 1}),
    ("# head\n\n--- # c\n# c\na: 1\n", {"a": 1}),
    ("---\r\na: 1\r\n", {"a": 1}),
    ("---\n{}\n", {}),
    # blocks of text
    (
        "a: >\n  one\n  two\n\n  three\n    four\n  five\nb: >-\n  one\n  two\n\nc: >+\n  x\n\n\nd: 1\n",
        {"a": "one two\nthree\n  four\nfive\n", "b": "one two", "c": "x\n\n\n", "d": 1},
    ),
    ("a: >\n\n\n  x\n\n\n   y\n\n   z\n  z\n", {"a": "\n\nx\n\n\n y\n\n z\nz\n"}),
    ("a: | # c\n  # x\n\n\n\n  y: z\n# c\nb: > # c\n\n  x\n", {"a": "# x\n\n\n\ny: z\n", "b": "\nx\n"}),
    ("a: |\n  x\n \n  \n   \n  y\t\tz \n  \ty\n\nb: 1\n", {"a": "x\n\n\n \ny\t\tz \n\ty\n", "b": 1}),
    ("a: |+\n  x\n   \n  \n \nb: 1\n", {"a": "x\n \n\n\n", "b": 1}),
    ("a: |\n  x\n   \n", {"a": "x\n \n"}),
    ("a:\n- >-\n x\n y\n-\n  |\n  x\n", {"a": ["x y", "x\n"]}),
    # scalars of several lines
    ("a: b\n  c - d\n\n\n   e # f\n# g\nh: 1\n", {"a": "b c - d\n\ne", "h": 1}),
    ("a:\n  - b\n    c\n  - d: e\n     f\n    g: 2026-11-23\n     09:05:00\n", ...),
    ("a:\n  b\nc: # d\n\n  # e\n  'f'\ng:\n  h\n i\nj:\n-\n k\n- l\n", ...),
    ("a: 12\n 34\nb: yes\n\n  no\n", {"a": "12 34", "b": "yes\nno"}),
    (
        "a: 'b\n  c ''\n\n  d  \n  '\ne: \"b \n\n\n c\\\n   d\\n\\\n \\  e \\ \n\"\n",
        {"a": "b c '\nd ", "e": "b\n\ncd\n  e   "},
    ),
    ("a: '\nb: c'\n- : '\n'\n".replace("- :", "d:"), {"a": " b: c", "d": " "}),
    (
        'a: "a long text that safe_dump has put in quotes for its blank at the end and then has\\\n  \\ wrapped "\n',
        {"a": "a long text that safe_dump has put in quotes for its blank at the end and then has wrapped "},
    ),
    (
        'a: "\\x41\\e\\_\\N\\L\\P\\v\\0\\a\\ \\U0001F600\\U0000e000\\U0010ffff"\n',
        {"a": "A\x1b\xa0\x85\u2028\u2029\v\0\a \U0001f600\ue000\U0010ffff"},
    ),
    # flow collections in others, and over several lines
    (
        "a: [[b], [], {}, {c: [d, {e: f}]}]\nb: {c: {}, d: [[]]}\n",
        {"a": [["b"], [], {}, {"c": ["d", {"e": "f"}]}], "b": {"c": {}, "d": [[]]}},
    ),
    (
        "a: [ # b\n  c, d\n  , # e\n\n  'f\n  g'\n]\nb: {\nc: 1,\nd:\n 2,\n} # h\ni: 1\n",
        {"a": ["c", "d", "f g"], "b": {"c": 1, "d": 2}, "i": 1},
    ),
    (
        "a: [ $x ]\nb: { path: ^/, host: http://x.y:80/z }\n",
        {"a": ["$x"], "b": {"path": "^/", "host": "http://x.y:80/z"}},
    ),
    ("a: [a b  c, -x, --, a#b, a'b, !x]\n".replace(", !x", ""), {"a": ["a b  c", "-x", "--", "a#b", "a'b"]}),
    ('{"a":[1,"b"],"c":{"d" : null},\n\n"e":"f: [g]"}\n', {"a": [1, "b"], "c": {"d": None}, "e": "f: [g]"}),
    ("a:\n  [b,\nc]\nd:\n- {e: f}\n-\n  [g]\n", {"a": ["b", "c"], "d": [{"e": "f"}, ["g"]]}),
    ("a: " + "[" * (MAX_DEPTH - 1) + "]" * (MAX_DEPTH - 1) + "\n", ...),
    ("--- # c\n# nothing\n", None),
    # blocks of text whose head tells the margin, or without a line, or without a newline at their end
    (
        "a: |2\n   x\n  y\n\nb:\n  c: >1-\n\n    x\n   y\n  d:\n  - |2+\n     x\n\n",
        {"a": " x\ny\n", "b": {"c": "\n x\ny", "d": [" x\n\n"]}},
    ),
    (
        "a:\n  b: |\n\n  # c\n  d: >-\n  e: |-\nf:\n- |\n- > # c\n\n- g\n",
        {"a": {"b": "", "d": "", "e": ""}, "f": ["", "", "g"]},
    ),
    ("a: |\n  x\n  y", {"a": "x\ny"}),
    ("a: >-\n  x\n  y", {"a": "x y"}),
    # lines of a plain scalar that begin with a dash
    ("a: b\n  - c\n  -d\ne:\n- f\n  - g\n  - h\n", {"a": "b - c -d", "e": ["f - g - h"]}),
    # anchors, aliases and merge keys
    ("a: &x 1\nb: &y-1 'z' # c\nc: [*x, *y-1 ]\nd: *x # c\n", {"a": 1, "b": "z", "c": [1, "z"], "d": 1}),
    (
        "a: &x\n  b: 1\nc:\n- *x\n- &y\n  d: *x\n- *y\n",
        {"a": {"b": 1}, "c": [{"b": 1}, {"d": {"b": 1}}, {"d": {"b": 1}}]},
    ),
    (
        "a: &x # c\n- 1\nb: &y |\n  t\nc: [{d: *y}, *x]\ne: &z {}\n",
        {"a": [1], "b": "t\n", "c": [{"d": "t\n"}, [1]], "e": {}},
    ),
    ("a: &x\nb: &y ~\nc: &z\n  d\ne: *z\nf:\n  *z\n", {"a": None, "b": None, "c": "d", "e": "d", "f": "d"}),
    (
        "a: &x {b: 1, c: 2}\nd: &y {c: 3, e: 4}\nf:\n  c: 5\n  <<: *x\n  g: 6\nh:\n- <<: [*x, *y]\n  b: 7\n",
        {"a": {"b": 1, "c": 2}, "d": {"c": 3, "e": 4}, "f": {"b": 1, "c": 5, "g": 6}, "h": [{"c": 2, "e": 4, "b": 7}]},
    ),
    (
        "a: &x\n  b: 1\nc: &y\n  <<: *x\n  d: 2\ne:\n  <<: *y\nf: *y\n<<: {g: {}}\n",
        {"g": {}, "a": {"b": 1}, "c": {"b": 1, "d": 2}, "e": {"b": 1, "d": 2}, "f": {"b": 1, "d": 2}},
    ),
]


@pytest.mark.parametrize(("text", "expected"), ANSWERED, ids=[ascii(text)[:40] for text, _ in ANSWERED])
def test_what_is_answered(runs, text, expected):
    seen = read(text)
    if expected is not ...:
        assert alike(expected, seen), seen
    assert check(text)


GIVEN_UP = {
    "anchors and aliases": [
        "&x a: 1\n",
        "a: 1\nb: *x\n",
        "a: &x 1\nb: &x 2\n",
        "a: &x\n  b: *x\n",
        "a: &x [*x]\n",
        "a: &x\n  *x\n",
        "a: &x ~\nb: *x\n",
        "a: &x\n  b\n  c: 1\n",
        "a:\n  &x b\n",
        "a:\n- &x b: 1\n",
        "a: &x &y b\n",
        "a: &x !!set {}\n",
        "a: &x b\n  c\n",
        "a: &x 1\nb: *x c\n",
        "a: &x 1\nb: *x: c\n",
        "a: &x 1\n*x : 2\n",
        "a: &x 1\nb: [*x c]\n",
        "a: [&x 1, *x]\n",
        "a: &x#c\n",
        "a: &é 1\n",
    ],
    "merge keys": [
        "<<: 1\n",
        "<<:\n",
        "<<:\n  a: 1\n",
        "<<: [1]\n",
        "a: &x [1]\nb:\n  <<: *x\n",
        "a: &x {b: 1}\nc:\n  <<: *x\n  <<: *x\n",
        "a: &x {b: 1}\nc: {<<: *x}\n",
        "a: &x {b: 1}\nc:\n  <<: &y *x\n",
        "<<: &y {a: 1}\n",
        "a: &x {b: 1}\nc:\n  <<: [[*x]]\n",
    ],
    "aliases that multiply": [
        "a: &a [x,x,x,x,x,x,x,x,x]\n"
        + "".join(f"{b}: &{b} [{', '.join([f'*{a}'] * 9)}]\n" for a, b in itertools.pairwise("abcdefg"))
    ],
    "aliases too deep": [
        "a: &x " + "[" * 60 + "]" * 60 + "\nb: " + "[" * (MAX_DEPTH - 59) + "*x" + "]" * (MAX_DEPTH - 59) + "\n"
    ],
    "tags": [
        "a: !!str 1\n",
        "a: ! x\n",
        "!!map\na: 1\n",
        "a: !!set {x}\n",
        "a: !!binary YWJj\n",
        'a: !!binary "YWI"\n',
    ],
    "tags of keys": ['!!binary "YWJj": 1\n', "a: !!set\n  ? !!str x\n"],
    "odd sets": ["a: !!set\nb: 1\n", "a: !!set\n? x\n", "a: !!set\n  x: 1\n", "a: !!set\n  ? x\n  : 1\n", "a: !!set\n"],
    "members that are not in one column": ["a: !!set\n    ? x\n  ? y\n", "a: !!set\n  ? x\n    ? y\n"],
    "members twice": ["a: !!set\n  ? x\n  ? 'x'\n", "a: !!set\n  ? 1\n  ? true\n", "a: !!set\n  ? .nan\n"],
    "indented blocks": ["a: |2\n x\n", "a: |-1\n  x\n", "a: >0\n  x\n", "a: |12\n  x\n", "a: |# c\n  x\n"],
    "odd literal blocks": [
        "a: |\n \n  x\n",
        "a: |+\nb: 1\n",
        "a: |\n \nb: 1\n",
        "a: |\n  x\n ",
        "a: |\n  x\n \ty\n",
        "a: |\n  \tx\n",
        "a: |\n",
        "a: |\n    x\n  y\n",
    ],
    "empty literal blocks": [
        "a:\n  b: |\n   \n  c: 1\n",
        "a:\n  b: |2\n  c: 1\n",
        "- |\n- a\n",
        "a:\n- |+\n- b\n",
    ],
    "scalars of several lines": [
        "a: b # c\n  d\n",
        "a: b\n# c\n  d\n",
        "a: b\n  c # d\n  e\n",
        "a: b\n  c: d\n",
        "a: b\n  c:\n",
        "a: b\n  c\td\n",
        "a: 'b'\n  c\n",
        "a:\n- b\nc\n",
        "a: [b\n  c]\n",
        "a: 'b\n\tc'\n",
        "a: 'b\n  c' d\n",
        "a: 'b\n  c'#d\n",
        "'a\n  b': c\n",
        "a: 'b\n---\n  c'\n",
        "a\n  b: c\n",
        "a:\nb\n",
        "a:\n'b'\n",
        "a:\n  b: c\n  d\n",
        "- a:\n  b\n",
        "a\n  b\n",
    ],
    "mistakes in flow": [
        "a: [b\n",
        "a: [b]]\n",
        "a: [b] c\n",
        "a: [b]#c\n",
        "a: {b: 1}}\n",
        "a: {b: 1, b: 2}\n",
        "a: [-]\n",
        "a: [,]\n",
        "a: [b, , c]\n",
        "a: [b c: d]\n",
        "a: [b: c]\n",
        "a: {b}\n",
        "a: {b: }\n",
        "a: {b:1}\n",
        "a: {b, c: d}\n",
        "a: {'b\n c': d}\n",
        "a: {b\n : d}\n",
        "a: {[b]: d}\n",
        "a: {b: c:d?}\n",
        "a: [b?c]\n",
        "a: [b:, c]\n",
        "a: [b,#c\n d]\n",
        "a: [#c\n d]\n",
        "a: [b}\n",
        "a: [b,\n---\n c]\n",
        "a: [b\n",
        "a: [b,\n  c]: d\n",
        "a: [b,\tc]\n",
        "a: [*b, &c d, !e f]\n",
        "a:\n[b]\n",
        "a: " + "[" * MAX_DEPTH + "]" * MAX_DEPTH + "\n",
    ],
    "documents": [
        "---\n",
        "---\n---\na: 1\n",
        "---\na: 1\n---\nb: 1\n",
        "---\na: 1\n...\n",
        " ---\na: 1\n",
        "---\t\na: 1\n",
        "---#c\na: 1\n",
        "...\na: 1\n",
        "a: 1\n---\nb: 1\n",
        "a: 1\n...\n",
        "%YAML 1.1\n---\na: 1\n",
        "---a: 1\n",
        "--- a: 1\n",
    ],
    "no mapping": ["a\n", "- a\n", "[]\n", "1\n", "~\n", "'a'\n", "!!set {}\n", "{}\n{}\n", "{}\na: 1\n", "a: 1\n{}\n"],
    "words with a meaning of their own": ["<<: x\n", "a: <<\n", "=: 1\n", "a: =\n", "a:\n- <<\n"],
    "keys": ["? a\n: b\n", "? a\n", "[a]: 1\n", "{}: 1\n", ".nan: 1\n", f"{'k' * 1001}: 1\n", ": a\n", "|: 1\n"],
    "keys twice": [
        "a: 1\na: 2\n",
        "a: 1\n'a': 2\n",
        "1: a\ntrue: b\n",
        "1: a\n1.0: b\n",
        "a:\n  b: 1\n  b: 2\n",
        "- a: 1\n  a: 2\n",
    ],
    "indentation": [
        "a:\n- 1\n- []\n-\n- 2\n  b: 1\n",
        "a: 1\n b: 2\n",
        " a: 1\nb: 2\n",
        "a:\n  b: 1\n c: 2\n",
        "a:\n  - b\n - c\n",
        "a:\n  b: 1\n- c\n",
        "a:\n- b\n  c: 1\n",
        "a: b\n- c\n",
        "a:\n  - b\n  c: 1\n",
        "a: 1\n  # c\n  b: 2\n",
    ],
    "two values in one": [
        "a: b: c\n",
        "a: - b\n",
        "- a: b: c\n",
        "a: 'b' c\n",
        "a: 'b': c\n",
        "a: b:\n",
        "a: 'b'#c\n",
        "a 'b': c\n: d\n",
    ],
    "no key": ["a: 1\nb\n", "a: 1\nb:c\n", "a: 1\n'b'\n", "a: 1\n[]\n"],
    "open quotes": ["a: 'b\n", 'a: "b\n', 'a: "b\\"\n', "'a: 1\n", "a: 'b''\n"],
    "escapes": [
        'a: "\\x4"\n',
        'a: "\\U0000d800"\n',
        'a: "\\U00110000"\n',
        'a: "\\U0001F60"\n',
        'a: "\\q"\n',
        'a: "\\ud83d\\ude00"\n',
        'a: "\\ud800"\n',
        'a: "\\u00g0"\n',
        'a: "\\u00"\n',
        'a: "\\\tb"\n',
    ],
    "indicators": [*(f"a: {character}b\n" for character in "*!|>%@`?:,]}"), "%a: 1\n", "`a: 1\n"],
    "no such value": [
        "a: 2026-02-30\n",
        "a: 2026-11-23 24:00:00\n",
        "a: 2026-11-23 09:60:00\n",
        "a: 0x_\n",
        "a: 0000-01-01\n",
    ],
    "tabs": ["a:\t1\n", "\ta: 1\n", "a: 1\t\n", "a: 1\t# c\n", "a: b\tc\n", "-\ta\n", "a:\n\t\n", "a\t: 1\n", "\t\n"],
    "carriage returns": ["a: 1\rb: 2\n", "a: 1\r", "a: 'x\r'\n"],
    "characters": [
        f"a: 'x{character}'\n" for character in "\x00\x07\x1b\x7f\x80\x85\x9f\u2028\u2029\ufeff\ufffe\uffff"
    ],
    "depth": [
        "".join(f"{' ' * n}a:\n" for n in range(MAX_DEPTH)) + " " * MAX_DEPTH + "a: 1\n",
        "a:\n" + "- " * MAX_DEPTH + "a\n",
        "a:\n" + "- " * (MAX_DEPTH - 1) + "a: 1\n",
        "".join(f"{' ' * n}a:\n" for n in range(MAX_DEPTH)) + " " * (MAX_DEPTH - 1) + "- a\n",
    ],
    "empty ones too deep": [
        "".join(f"{' ' * n}a:\n" for n in range(MAX_DEPTH - 1)) + " " * (MAX_DEPTH - 1) + "a: []\n"
    ],
}


@pytest.mark.parametrize(
    "text", [pytest.param(text, id=f"{why}-{ascii(text)[:30]}") for why, all in GIVEN_UP.items() for text in all]
)
def test_what_is_given_up(runs, text):
    assert read(text) is block.UNSURE


def test_bytes_that_are_no_text_are_given_up():
    for data in (
        b"a: \xff\n",
        b"a: \xc3\n",
        b"a: \xc3x\xa9\n",
        b"\xed\xa0\x80: 1\n",
        b"a: 1 # \xff\n",
        "a: 1\n".encode("utf-16"),
    ):
        assert block.read(data, reading.resolve) is block.UNSURE


def test_an_interpreter_whose_patterns_match_wrongly_gives_up(monkeypatch):
    monkeypatch.setattr(block, "_IS_EXACT", False)

    assert read("a: 1\n") is block.UNSURE
    assert reading.load(b"a: 1\n", "s.yaml").value == {"a": 1}


def test_errors_are_those_of_the_events():
    """The message, line and column are what they would be if there were no quick reader."""
    for text in itertools.chain.from_iterable(GIVEN_UP.values()):
        outcomes = []
        for load in (reading.load, reading.load_events):
            try:
                outcomes.append(repr(load(text.encode(), "s.yaml")))
            except InvalidStateError as error:
                outcomes.append(str(error))
        assert outcomes[0] == outcomes[1]


# --------------------------------------------------------------------------------------------- the same as the events


def test_short_documents_of_all_kinds_are_read_as_the_events_have_them(runs):
    answered = 0
    for length in range(7):
        for characters in itertools.product("a: \n-", repeat=length):
            answered += bool(difference("".join(characters).encode()) is not None and check("".join(characters)))
    assert answered > 500


@pytest.mark.parametrize(
    ("head", "alphabet", "length"),
    [
        ("", "a:\n #'", 5),
        ("a:\n", "b: \n-#", 5),
        ("x:\n - a:\n", "b: \n-", 5),
        ("a: |\n", "b \n#:", 5),
        ("a: |+\n", "b \n#\t", 5),
        ("x:\n- !!set\n", "b? \n#", 5),
        ("a: [", "b, ]#'", 5),
        ("a: {b", ": ,c}b", 5),
        ("a: [", "b[],\n ", 5),
        ("a: {b: ", "c[{}],\n", 5),
        ("---\na: >\n  b\n", " b\n#>", 5),
        ("a: >\n", " b\n\t", 5),
        ("a: b\n", " b:\n#-", 5),
        ("a:\n- b\n", " b:\n#-", 5),
        ("a:\n", " 'b\n#", 5),
        ("a: 'b", " '\nb", 5),
        ('a: "b', ' "\n\\b', 5),
        ("-", "- a:\n#", 5),
        ('a: "', 'b" \\n#', 5),
        ("a: '", "b' :#", 5),
        ("a: |2\n", "b \n#", 5),
        ("a:\n- |1+\n", " b\n:", 5),
        ("a:\n b: |\n", " b\n:#", 5),
        ("a:\n  b: >", "12-+\n b", 5),
        ("x: &a 1\ny: ", "*a& :\n", 5),
        ("x: &a 1\ny: [", "*a,] :", 5),
        ("a: &", "ab \n:-", 5),
        ("a:\n- &b\n", " b:\n-*", 5),
        ("a: ", "019:._-+ex", 4),
        ("a: ", "yYnNoOfF~=<.", 3),
    ],
)
def test_whatever_follows(head, alphabet, length):
    """All endings of this length that can be made of a few characters."""
    for characters in itertools.product(alphabet, repeat=length):
        text = head + "".join(characters)
        for whole in (text, text + "\n"):
            assert not difference(whole.encode()), whole


NAMED = [
    *["a: &x\n", "  b: 1\n", "c: *x\n", "<<: *x\n", "  <<: *x\n", "  <<: [*x, *y]\n", "d: &y\n", "- &x\n", "- *x\n"],
    *["  e: *y\n", "  - &y z\n", "  f\n", "    <<: {b: 2}\n", "g:\n", "h: &y {b: 3, k: 4}\n", "# c\n", "i: &x ~\n"],
]


def test_whatever_lines_with_names_follow_each_other():
    for lines in itertools.product(NAMED, repeat=3):
        assert not difference("".join(lines).encode()), lines
    for lines in itertools.product(NAMED, repeat=2):
        for first in ("a: &x\n  b: 1\nh: &y {b: 3, k: 4}\n", "g:\n  a: &x\n    b: 1\n  h: &y {b: 3}\n"):
            assert not difference((first + "".join(lines)).encode()), lines


@settings(max_examples=100, deadline=None)  # `python -m stress run yaml` tries many thousands of the same documents
@given(st.randoms(use_true_random=False), st.sampled_from([1, 3, block.MANY]))
def test_documents_of_people_are_read_as_the_events_have_them(random: Random, many: int):
    text = documents.document(random)
    with runs_from(many):
        check(text)
        check(documents.mutated(random, text))


@settings(max_examples=400, deadline=None)
@given(st.lists(st.sampled_from(documents.PIECES), max_size=16).map("".join), st.sampled_from([1, block.MANY]))
def test_any_text_is_read_as_the_events_have_it_or_given_up(text: str, many: int):
    with runs_from(many):
        check(text)


@settings(max_examples=300, deadline=None)
@given(
    st.text(st.sampled_from("0123456789:._-+eExXbBTtZ aAfFiInN~oO")) | st.text(),
    st.sampled_from(["a: {}\n", "{}: a\n"]),
)
@example("1:2:3", "a: {}\n")
@example("2026-11-23 1:2:3", "a: {}\n")
@example("2001-12-14t21:59:43.10-05:00", "a: {}\n")
def test_any_scalar_means_what_the_tables_say(text: str, frame: str):
    check(frame.format(text.replace("\n", "").replace("\r", "")))


def test_the_tables_of_pyyaml_are_those_that_we_know():
    """A first character that is new in them would be a string here."""
    first = set(yaml.resolver.Resolver.yaml_implicit_resolvers)

    assert first == {"", *"yYnNtTfFoO~<=.+-0123456789", *"!&*"}  # the last begin no plain scalar


def test_long_collections_are_read_as_short_ones_are():
    for seed in range(40):
        text = "".join(documents.rows(Random(seed), 120))
        if not check(text):
            continue
        quick = read(text)
        with runs_from(10**9):
            assert alike(quick, read(text))


def test_a_run_ends_where_the_entries_look_different(runs):
    odd = [
        "- a: 1\n",
        "- a: 1\n  b: x\n  c: y\n",
        "- b: 1\n  a: x\n",
        "- a: '1'\n  b: yes # c\n",
        "- a:\n  b: x\n",
        "- x\n",
        "\n# c\n",
    ]
    odd += ["- a: 1\n  b:\n  - 2\n", "-\n", "- []\n", "- - a: 1\n", "- a: 1\n  b: |\n    t\n", "-  a: 1\n   b: x\n"]
    for line in odd:
        text = "rows:\n" + "- a: 1\n  b: x\n" * 130 + line + "- a: 2\n  b: y z\n" * 130 + "next: 1\n"
        assert check(text), line


@pytest.mark.parametrize(
    "text",
    [
        "rows:\n" + "- yes: 1\n" * 130,
        "rows:\n" + "- 'yes': 1\n" * 130 + "- yes: 1\n",
        "rows:\n" + "- 'a': 1\n- a: yes\n- a: 12\n- a: -0\n- a: 1.5\n" * 60,
        "rows:\n" + "- no\n- 1\n" * 130,
        "rows:\n" + "".join(f"- {n}\n" for n in range(-130, 130)),
        "rows:\n" + "- 0\n" * 130 + "- 007\n",
        "".join(f"key {n}: {n}\n" for n in range(300)),
        "".join(f"{n}: no\n" for n in range(300)) + "next:\n  - 1\n",
        "".join(f"key {n}: text {n}\n" for n in range(300)) + "last:\n  a: 1\n",
    ],
    ids=lambda text: ascii(text)[:30],
)
def test_runs_are_read_as_the_events_have_them(text):
    assert check(text)


@pytest.mark.parametrize(
    "text",
    [
        "".join(f"key {n}: {n}\n" for n in range(300)) + "key 7: 1\n",
        "".join(f"key {n}: {n}\n" for n in range(99)) + "x: 1\nx: 2\n" + "y: 1\n",
        "".join(f"{n}: {n}\n" for n in range(2, 300)) + "1: a\ntrue: b\n",
        "".join(f"key {n}: {n}\n" for n in range(300)) + ".nan: 1\n",
        "".join(f"key {n}: {n}\n" for n in range(300)) + "k" * 1100 + ": 1\n",
        "rows:\n" + "- a: 1\n  b: x\n" * 130 + "  a: 1\n",
        "rows:\n" + "- a: 1\n  b: x\n" * 130 + "- a: 1\n  b: <<\n",
        "rows:\n" + "- 1\n" * 130 + "- []\n-\n- 2\n  b: 1\n",
    ],
    ids=lambda text: ascii(text)[-30:],
)
def test_a_mistake_in_a_run_is_seen(text):
    assert read(text) is block.UNSURE
    with pytest.raises(InvalidStateError):
        reading.load(text.encode(), "s.yaml")


@pytest.mark.parametrize("entry", ["- a\n", "- a: 1\n  b: x\n", "  - a\n", "a {}: b\n"])
def test_a_run_is_not_over_before_its_last_text(entry):
    text = "rows:\n" + "".join(entry.format(number) for number in range(130)) + "     continued\nnext: 1\n"

    assert check(text)
    assert "continued" in str(read(text))


def suite() -> dict[str, str]:
    found: dict[str, str] = json.loads(SUITE.read_text(encoding="utf-8"))
    return found


def test_the_documents_of_the_yaml_test_suite_are_read_as_the_events_have_them(runs):
    """Each as it is, as a part of a mapping, and with a character less."""
    answered = 0
    for text in suite().values():
        answered += check(text)
        check("key:\n" + "".join(f"  {line}" for line in text.splitlines(keepends=True)))
        check("key: " + text)
        check("key:\n- " + text.replace("\n", "\n  "))
        for at in range(0, len(text), 7):
            assert not difference((text[:at] + text[at + 1 :]).encode())
    assert answered >= 20  # most are none of ours: lists, tags, several documents


# ------------------------------------------------------------------------------------------------ what it is for

keys = st.one_of(
    st.text(st.characters(exclude_categories=["Cs"]), max_size=40),
    st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False), st.dates(), st.datetimes(),
)  # fmt: skip
zones = st.integers(-23 * 60 - 59, 23 * 60 + 59).map(lambda minutes: timezone(timedelta(minutes=minutes)))
lines = st.lists(st.sampled_from(["a", "b c", "# x", "- y", "  z", "k: v", "é", ""])).map("\n".join)
scalars = st.one_of(keys, lines, st.floats(), st.binary(max_size=70), st.datetimes(timezones=zones))
trees = st.recursive(
    scalars | st.sets(keys, max_size=4),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(keys, inner, max_size=4),
    max_leaves=20,
)


@settings(max_examples=300, deadline=None)
@given(st.dictionaries(keys, trees, max_size=5), st.sampled_from([1, block.MANY]))
@example({"a": 10**700, "b": "x\n\ny\n\n", "c": {"": [[[]], {}, set(), [{}]]}}, 1)
def test_all_that_we_write_is_answered(tree: dict[Any, Any], many: int):
    """But for keys of more than 1,000 characters, and bytes as keys: too rare to be worth a risk."""
    with runs_from(many):
        assert alike(tree, block.read(dumping.dump(tree), reading.resolve))


def test_most_files_are_read_without_pyyaml():
    """Importing it takes longer than reading a small file."""
    text = (
        "# comment\na: 1\nb:\n  - x y\n  - 1.5\n  - 2026-11-23\n  - 2026-11-23 09:05:00\n  - 1.2.3\nc: yes\nd: 'q'\n"
        "e: [a, b]\nf: !!set\n  ? x\ng: |\n  t\nh: http://x.y\ni: 3 apples\n"
    )
    script = f"""if True:
        import sys
        from pstate.text import reading
        reading.load({text!r}.encode(), "s.yaml")
        assert "yaml" not in sys.modules
        reading.load(b"a: 0777", "s.yaml")
        assert "yaml" in sys.modules
    """
    subprocess.run([sys.executable, "-c", script], check=True)


def test_no_text_takes_long():
    """Each character is looked at a few times; a document that is refused late takes no longer."""
    size = 200_000
    for part in (
        "a: 'x",
        "- ",
        "a b ",
        '"\\"',
        "a: b\n",
        "- a\n",
        "''",
        "[a, ",
        "#",
        " ",
        "\n",
        "a:\n  - |\n    x\n",
        ":",
    ):
        text = "a: " + part * (size // len(part))
        for end in ("", "\n", "\n\t", "': b: c\n"):
            read(text + end)
            read(text.removeprefix("a: ") + end)


FAULTS = {
    "a word": ("_WORDS", {**block._WORDS, "text": "other"}),
    "folding": ("_filled", " ".join),
    "lines in quotes": ("_folded", lambda text, has_escapes: text.replace("\n", " ")),
    "further lines": ("_FURTHER_LINE", block._FURTHER_LINE.replace("(?!#)", "")),
    "comments in flow": ("_FLOW_ENTRY", block._FLOW_ENTRY.replace(r"(?![\t\n#:", r"(?![\t\n:")),
    "keys in flow": ("_FLOW_ENTRY", block._FLOW_ENTRY.replace(r":(?=[ \n])", ":")),
    "a second marker": ("body_start", lambda text: len("---\n") if text.startswith("---\n") else 0),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_the_check_notices_a_wrong_answer(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, fault: str) -> None:
    monkeypatch.setattr(block, *FAULTS[fault])
    block._flow_matches.cache_clear()
    try:
        with pytest.raises(BrokenPromise):
            documents.yaml(Trial(1, 30, tmp_path))
    finally:
        block._flow_matches.cache_clear()
    assert (tmp_path / "document.yaml").read_bytes()
