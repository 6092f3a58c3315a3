"""Bad input gets a clear error, and nothing is lost: every case, with class, evidence, message and bytes.

A message says where, what, what was left untouched and what to do. Whatever is refused, the file and its folder are
what they were before.
"""

from __future__ import annotations

import errno
import inspect
import logging
import os
import pickle
import pprint
import re
import stat
import subprocess
import sys
import textwrap
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, time, timedelta, timezone
from decimal import Decimal
from enum import Enum
from fractions import Fraction
from pathlib import Path
from time import sleep
from typing import Any
from uuid import UUID

import pytest
import yaml
from tools.disks import Disk, Failing

from pstate import (
    ClosedAttributeError,
    ClosedError,
    CorruptStateError,
    InvalidStateError,
    LockTimeout,
    MissingPathError,
    NotAFileError,
    PersistedState,
    PStateError,
    RemovedError,
    ReservedNameError,
    StateFileError,
    TransactionError,
    UnreadableError,
    UnsupportedTypeError,
    UnsupportedValueError,
    WriteError,
)
from pstate.file import format as f

ROOT = os.geteuid() == 0 if hasattr(os, "geteuid") else False
NOBODY = 65534
READABLE = b"counter: 3\njobs:\n- one\n"


def listing(folder: Path) -> dict[str, tuple[Any, ...]]:
    """Everything that a refused call must leave as it is: names, kinds, sizes, content, inodes, times."""
    found: dict[str, tuple[Any, ...]] = {}
    for entry in folder.iterdir():
        status = entry.lstat()
        content = entry.read_bytes() if stat.S_ISREG(status.st_mode) else b""
        found[entry.name] = (status.st_mode, status.st_ino, status.st_mtime_ns, content)
    return found


@contextmanager
def nothing_changes(folder: Path) -> Iterator[None]:
    before = listing(folder)
    yield
    assert before == listing(folder)


def refuses(folder: Path, call: Callable[[], Any], kind: type[PStateError], builtin: type[Exception]) -> Any:
    """*call* raises *kind*, which is a *builtin* too, and changes nothing in *folder*. Returns the error."""
    with nothing_changes(folder), pytest.raises(kind) as caught:
        call()
    assert type(caught.value) is kind
    assert isinstance(caught.value, builtin)
    again = pickle.loads(pickle.dumps(caught.value))
    assert (type(again), str(again), again.__dict__) == (kind, str(caught.value), caught.value.__dict__)
    return caught.value


def sentences(message: str, place: str, *parts: str) -> None:
    """*message* begins with *place* and holds *parts*, each a regular expression, in this order."""
    assert message.startswith(place), message
    position = len(place)
    for part in parts:
        found = re.compile(part).search(message, position)
        assert found, f"{part!r} is not in the rest of {message!r}"
        position = found.end()


# ---------------------------------------------------------------------- content that cannot be read


@pytest.mark.parametrize("read_only", [False, True], ids=["", "read_only"])
@pytest.mark.parametrize(
    ("content", "line", "column", "what", "remedy"),
    [
        pytest.param(b"a: 1\nb: [1, 2\nc: 3\n", 3, None, "not YAML", "Correct", id="bracket not closed"),
        pytest.param(b"a: 1\n\tb: 2\n", 2, 1, "not YAML", "Correct", id="tab as indentation"),
        pytest.param(b"a: 'open\nb: 2\n", 3, 1, "not YAML", "Correct", id="quote not closed"),
        pytest.param(b"a: 1\n b: 2\n", 2, 3, "not YAML", "Correct", id="wrong indentation"),
        pytest.param(b"a: b: c\n", 1, 5, "not YAML", "Correct", id="two colons"),
        pytest.param(b"a: @b\n", 1, 4, "not YAML", "Correct", id="reserved character"),
        pytest.param(b"a: @b\n", 1, 4, "`@` cannot begin", "put the value in quotes", id="an at sign, by its name"),
        pytest.param(b"a: [`b`]\n", 1, 5, "a backtick cannot begin", "in quotes", id="a backtick, by its name"),
        pytest.param(b"a: 5\nb: %x\n", 2, 4, "`%` cannot begin", "in quotes", id="a percent sign, by its name"),
        pytest.param(b"a: ]\n", 1, 4, "`\\]` cannot begin", "in quotes", id="a bracket that nothing opened"),
        pytest.param(b"a: *.txt\n", 1, 5, "`\\*` begins an alias", "in quotes", id="an asterisk, by its name"),
        pytest.param(b"a: 1\n\tb: 2\n", 2, 1, "a tab is used as indentation", "spaces", id="a tab below a value"),
        pytest.param(b"a:\n\tb: 2\n", 2, 1, "a tab is used as indentation", "spaces", id="a tab below a key"),
        pytest.param(b"a: |\n\tb\n", 2, 1, "a tab is used as indentation", "spaces", id="a tab in a literal"),
        pytest.param(b"a:\n-\tb: 2\n", 2, 2, "a tab is used after a dash", "spaces", id="a tab after a dash"),
        pytest.param(b"a: {% x %}\n", 1, 5, "`\\{%` begins a template", "Correct", id="a template's block"),
        pytest.param(b"{%- if x %}\na: 1\n", 1, 2, "`\\{%` begins a template", "Correct", id="a template's line"),
        pytest.param(b"a: {{ x }}\n", 1, 5, "`\\{\\{` begins a template", "quotes", id="a template's value"),
        pytest.param(
            rb'{"a": "\ud83d\ude00"}',
            1,
            10,
            "ud83d.ude00 is how JSON writes \U0001f600",
            "write \U0001f600 itself.*pstate import",
            id="a pair of surrogate escapes",
        ),
        pytest.param(rb'a: "\udc00 x"', 1, 7, "udc00 is a surrogate", "the character itself", id="half a pair"),
        pytest.param(b"- a\n- b\n", 1, 1, "list", "key: value", id="a list"),
        pytest.param(b"# list\n\n[1, 2]\n", 3, 1, "list", "key: value", id="a flow list below a comment"),
        pytest.param(b"only text\n", 1, 1, "mapping", "key: value", id="a string"),
        pytest.param(b"42\n", 1, 1, "mapping", "key: value", id="a number"),
        pytest.param(b"!!set {a, b}\n", 1, None, "set|mapping", "", id="a set"),
        pytest.param(b"a: 1\n---\nb: 2\n", 2, 1, "second document", "one document", id="two documents"),
        pytest.param(b"a: 1\n...\n---\nb: 2\n", 3, 1, "second document", "one document", id="ended, then another"),
        pytest.param(b"a: 1\nb: \xe4\n", 2, 4, "0xe4.*not UTF-8", "UTF-8", id="Latin-1"),
        pytest.param(b"a: 1\nb: \xed\xa0\x80\n", 2, 4, "not UTF-8", "UTF-8", id="a surrogate in UTF-8"),
        pytest.param("a: 1\n".encode("utf-16"), 1, 1, "not UTF-8", "UTF-8", id="UTF-16"),
        pytest.param(b"a: \x00\n", 1, 4, "U\\+0000", "escape", id="a zero byte"),
        pytest.param(b"\x00" * 100 + b"a: 1\n", 1, 1, "U\\+0000", "escape", id="zeroes before text"),
        pytest.param(b"a: 1\nb: 2\na: 3\n", 3, 1, "'?\"?a\"?'? occurs twice", "one of the two", id="a key twice"),
        pytest.param(b"a: 1\nb: 2\na: 3\n", 3, 1, "twice.*first in line 1", "one of", id="a key twice, and where"),
        pytest.param(
            b"x: &x {p: 1}\nm:\n  <<: *x\n  a: {a: 1}\n  l:\n  - a: 1\n  p: 2\n  p: 3\n",
            8,
            3,
            "first in line 7",
            "",
            id="a key twice beside a merge key",
        ),
        pytest.param(b"a:\n- b: {x: 1, y: 2, 'x': 3}\n", 2, 19, "first in column 7 of this", "", id="twice in a line"),
        pytest.param(
            b"2: a\ntrue: a\n1: b\n", 3, 1, "equal to the key true before it, first in line 2", "", id="1, true"
        ),
        pytest.param(b"m:\n  x: 1\n  x: 2\n", 3, 3, "x.* occurs twice", "one of the two", id="a key twice below"),
        pytest.param(b"{a: 1, 'a': 2}\n", 1, 8, "occurs twice", "one of the two", id="a key twice, quoted"),
        pytest.param(b"1: a\n0x1: b\n", 2, 1, "twice|equal", "", id="the same number twice"),
        pytest.param(b"1: a\ntrue: b\n", 2, 1, "equal", "quotes", id="1 and true are one key in Python"),
        pytest.param(b"? [1]\n: a\n", 1, 3, "cannot be a key", "string or a number", id="a list as a key"),
        pytest.param(b"? {a: 1}\n: a\n", 1, 3, "cannot be a key", "string or a number", id="a mapping as a key"),
        pytest.param(b".nan: 1\n", 1, 1, "NaN cannot be a key", "another key", id="NaN as a key"),
        pytest.param(b"a: *unknown\n", 1, 4, "alias \\*unknown", "Correct", id="an alias of nothing"),
        pytest.param(b"a: &a [*a]\n", 1, 8, "\\*a is inside the node", "tree", id="an alias inside itself"),
        pytest.param(b"a: {<<: 3}\n", 1, None, "merged by <<", "quotes", id="a merge of a number"),
        pytest.param(b"a: !!python/object/apply:os.system ['touch pwned']\n", 1, 4, "tag", "Remove", id="python call"),
        pytest.param(b"a: !!python/name:os.system\n", 1, 4, "tag", "Remove", id="python name"),
        pytest.param(b"a: !!python/tuple [1]\n", 1, 4, "tag", "Remove", id="python tuple"),
        pytest.param(b"a: 1\nb: !mine {c: 1}\n", 2, 4, "!mine", "Remove", id="unknown tag"),
        pytest.param(b"a: !<tag:example.com,2000:x> 1\n", 1, 4, "example.com", "Remove", id="unknown long tag"),
        pytest.param(b"a: !!int many\n", 1, 4, "many", "Correct", id="a tag that does not fit its text"),
        pytest.param(b"a: !!int [1]\n", 1, 4, "tag", "Remove", id="a tag that does not fit its kind"),
        pytest.param(b"a: 2024-13-45\n", 1, 4, "2024-13-45", "quotes", id="no such day"),
        pytest.param(b"a: " + b"[" * 150 + b"]" * 150 + b"\n", 1, None, "100 levels", "flatter", id="too deep"),
        pytest.param(b"a: 1\rb: 2\r", 1, None, "carriage return|CR", "LF", id="CR only"),
    ],
)
def test_content_that_is_no_state_is_refused(
    tmp_path: Path, content: bytes, line: int, column: int | None, what: str, remedy: str, read_only: bool
) -> None:
    """The error names file, line and column, says what is wrong there and what to do; the file is not touched."""
    path = tmp_path / "state.yaml"
    path.write_bytes(content)

    for form in (path, str(path)):
        error = refuses(
            tmp_path, lambda form=form: PersistedState.open(form, read_only=read_only), InvalidStateError, ValueError
        )
        assert isinstance(error, StateFileError)
        assert str(path) == error.path
        assert line == error.line
        assert column is None or column == error.column
        assert isinstance(error.column, int)
        assert error.column >= 1
        place = f"{path}:{error.line}:{error.column}: "
        sentences(str(error), place, what, "not touched|Nothing was changed|not changed", remedy)
    refuses(tmp_path, lambda: PersistedState(path, counter=0), InvalidStateError, ValueError)


@pytest.mark.parametrize(
    ("content", "state"),
    [
        pytest.param(b"", {}, id="empty"),
        pytest.param(b"\n\n  \n", {}, id="blank"),
        pytest.param(b"# nothing here yet\n", {}, id="comment only"),
        pytest.param(b"# nothing here yet", {}, id="comment only, without newline"),
        pytest.param(b"\xef\xbb\xbf", {}, id="BOM only"),
        pytest.param(b"\xef\xbb\xbf# comment\r\n", {}, id="BOM and comment, CRLF"),
        pytest.param(b"---\n", {}, id="document start only"),
        pytest.param(b"{}\n", {}, id="empty mapping"),
        pytest.param(b"\xef\xbb\xbfa: 1\nb: x\n", {"a": 1, "b": "x"}, id="BOM"),
        pytest.param(b"a: 1\r\nb: x\r\n", {"a": 1, "b": "x"}, id="CRLF"),
        pytest.param(b"\xef\xbb\xbfa: 1\r\nb:\r\n- x\r\n", {"a": 1, "b": ["x"]}, id="BOM and CRLF"),
        pytest.param(b"a: |\r\n  one\r\n  two\r\nb: 1\r\n", {"a": "one\ntwo\n", "b": 1}, id="CRLF in a block text"),
        pytest.param(b"%YAML 1.1\n---\na: 1\n", {"a": 1}, id="directive"),
        pytest.param(b"a: 1\n...\n", {"a": 1}, id="own document end"),
        pytest.param(b"a: 1", {"a": 1}, id="without newline"),
        pytest.param(b"a: |+\n  text\n\n", {"a": "text\n\n"}, id="kept newlines at the end"),
        pytest.param(b"a: |\n  text", {"a": "text"}, id="block text without newline"),
        pytest.param(b"a: &x [1, 2]\nb: *x\n", {"a": [1, 2], "b": [1, 2]}, id="anchor and alias"),
        pytest.param(
            b"base: &b {x: 1, y: 2}\nown:\n  <<: *b\n  y: 3\n",
            {"base": {"x": 1, "y": 2}, "own": {"x": 1, "y": 3}},
            id="merge key",
        ),
        pytest.param(
            b"p: &p {x: 1}\nq: &q {x: 2, z: 3}\nr: {<<: [*p, *q], w: 4}\n",
            {"p": {"x": 1}, "q": {"x": 2, "z": 3}, "r": {"x": 1, "z": 3, "w": 4}},
            id="several merged",
        ),
        pytest.param(b"a: !!str 1\nb: !!set {x}\nc: !!binary aGk=\n", {"a": "1", "b": {"x"}, "c": b"hi"}, id="tags"),
    ],
)  # fmt: skip
def test_unusual_but_valid_files_are_accepted_and_kept_working(
    tmp_path: Path, content: bytes, state: dict[str, Any]
) -> None:
    """Opening changes no byte; a commit after it, a crash and a close all work, and stock YAML reads the result."""
    path = tmp_path / "state.yaml"
    path.write_bytes(content)
    with nothing_changes(tmp_path):
        with PersistedState.open(path) as opened:
            assert state == opened.snapshot()
        with PersistedState.open(path, read_only=True) as opened:
            assert state == opened.snapshot()

    with PersistedState.open(path) as opened:
        opened.added = 1
        assert {**state, "added": 1} == opened.snapshot()
        crashed = path.read_bytes()
        opened.added += 1
    assert {**state, "added": 2} == (yaml.safe_load(path.read_bytes()))
    assert ["state.yaml"] == os.listdir(tmp_path)

    path.write_bytes(crashed)
    with PersistedState.open(path) as opened:
        assert {**state, "added": 1} == opened.snapshot()


def test_an_alias_is_expanded_as_a_tree(tmp_path: Path) -> None:
    """Changing one of the two places leaves the other alone, now and after opening again."""
    path = tmp_path / "state.yaml"
    path.write_bytes(b"a: &x {n: [1]}\nb: *x\n")
    with PersistedState.open(path) as state:
        state.a.n.append(2)
        assert {"a": {"n": [1, 2]}, "b": {"n": [1]}} == state.snapshot()
    assert {"a": {"n": [1, 2]}, "b": {"n": [1]}} == yaml.safe_load(path.read_bytes())


def python(code: str, *arguments: object, **options: Any) -> subprocess.CompletedProcess[str]:
    """Run *code* in a process of its own, with `PATH` and everything of the package imported."""
    head = """
        import errno, os, resource, sys
        import pstate
        from pstate import *
        PATH = sys.argv[1]
    """
    source = textwrap.dedent(head) + textwrap.dedent(code)
    command = [*options.pop("prefix", []), sys.executable, "-c", source, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=50, check=False, **options)


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(
            "a: &a [x, x, x, x, x, x, x, x, x]\n"
            + "".join(
                f"{b}: &{b} [{', '.join(['*' + a] * 9)}]\n" for a, b in zip("abcdefghi", "bcdefghij", strict=True)
            ),
            id="billion laughs, lists",
        ),
        pytest.param(
            "a: &a {x: 1}\n"
            + "".join(
                f"{b}: &{b} {{{', '.join(f'k{n}: *{a}' for n in range(9))}}}\n"
                for a, b in zip("abcdefghi", "bcdefghij", strict=True)
            ),
            id="mappings",
        ),
        pytest.param(
            f"a: &a '{'x' * 100_000}'\n" + "b: &b [" + ", ".join(["*a"] * 1000) + "]\n"
            "c: &c [" + ", ".join(["*b"] * 1000) + "]\nd: [" + ", ".join(["*c"] * 1000) + "]\n",
            id="a long text, quadratic",
        ),
    ],
)
def test_an_alias_bomb_is_refused_before_memory_is(tmp_path: Path, content: str) -> None:
    """Some hundred bytes that stand for gigabytes: an error, in a process that may not have the memory."""
    path = tmp_path / "state.yaml"
    path.write_text(content)
    with nothing_changes(tmp_path):
        done = python(
            """
            limit = 200 << 20
            resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
            try:
                PersistedState.open(PATH)
            except InvalidStateError as error:
                assert error.path == PATH and error.line and error.column
                print(error)
            """,
            path,
        )
    assert (0, "") == (done.returncode, done.stderr)
    sentences(done.stdout, f"{path}:", "alias", "not touched|Nothing was changed", ".")


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(b"a: " + b"[" * 100_000, id="opened only"),
        pytest.param(b"a: " + b"[" * 100_000 + b"]" * 100_000 + b"\n", id="closed too"),
        pytest.param(b"[" * 100_000, id="at the root"),
        pytest.param(b"a: " + b"{x: " * 100_000 + b"}" * 100_000, id="braces"),
        pytest.param(b"a:\n" + b"".join(b" " * n + b"x:\n" for n in range(1, 1000)), id="indentation"),
        pytest.param(b"a: " + b"- " * 100_000, id="dashes"),
        pytest.param(b"a:\n  " + b"- " * 100_000 + b"x\n", id="nested dashes"),
        pytest.param(b"a:\n  " + b"? " * 100_000 + b"x\n", id="nested question marks"),
    ],
)
def test_absurd_nesting_does_not_crash_the_interpreter(tmp_path: Path, content: bytes) -> None:
    """A recursive parser would overflow its stack: C code with a crash, Python code with a RecursionError."""
    path = tmp_path / "state.yaml"
    path.write_bytes(content)
    with nothing_changes(tmp_path):
        done = python(
            """
            try:
                PersistedState.open(PATH)
            except InvalidStateError as error:
                assert isinstance(error, ValueError) and error.path == PATH and error.line
                print(error)
            """,
            path,
        )
    assert (0, "") == (done.returncode, done.stderr)
    sentences(done.stdout, f"{path}:", "not touched|Nothing was changed")
    assert len(done.stdout) < 1000


def test_python_tags_are_never_executed(tmp_path: Path) -> None:
    """Not even looked up: no module is imported for them."""
    path = tmp_path / "state.yaml"
    path.write_text(
        f"a: !!python/object/apply:os.mkdir ['{tmp_path}/pwned']\nb: !!python/module:antigravity\n", encoding="utf-8"
    )
    done = python(
        """
        try:
            PersistedState.open(PATH)
        except InvalidStateError:
            print("antigravity" in sys.modules)
        """,
        path,
    )
    assert ("False\n", "") == (done.stdout, done.stderr)
    assert ["state.yaml"] == os.listdir(tmp_path)


def test_a_file_of_a_newer_version_is_refused_with_the_advice_to_upgrade(tmp_path: Path) -> None:
    """Its journal may mean what we do not know."""
    path = tmp_path / "state.yaml"
    path.write_bytes(b"a: 1\n... # pstate 999 5f2c81d0 something new\n--- [[1]]\n")
    error = refuses(tmp_path, lambda: PersistedState(path), InvalidStateError, ValueError)
    sentences(str(error), str(path), "newer.*999", "Nothing was changed", "Upgrade")
    assert (str(path), 2) == (error.path, error.line)


# ---------------------------------------------------------------------- damage in a journal


def journal_of_five(folder: Path) -> tuple[Path, bytes]:
    """A state file as a killed process leaves it."""
    path = folder / "state.yaml"
    path.write_bytes(READABLE)
    with PersistedState.open(path) as state:
        for number in range(5):
            state.counter = 100 + number
        content = path.read_bytes()
    path.write_bytes(content)
    return path, content


@pytest.mark.parametrize("read_only", [False, True], ids=["", "read_only"])
@pytest.mark.parametrize("number", [0, 1, 3])
@pytest.mark.parametrize(
    "harm",
    [
        pytest.param(lambda record: record.replace(b'"counter"', b'"cOunter"'), id="changed letter"),
        pytest.param(lambda record: b"\0" * len(record), id="hole of zeroes"),
        pytest.param(lambda record: b"", id="record removed"),
        pytest.param(lambda record: record * 2, id="record repeated"),
        pytest.param(lambda record: record[:-5], id="record cut short"),
    ],
)
def test_damage_in_the_middle_of_a_journal_is_an_error(
    tmp_path: Path, harm: Callable[[bytes], bytes], number: int, read_only: bool
) -> None:
    """A bad record with commits after it is not an unfinished write: never repaired unasked, with all the evidence."""
    path, content = journal_of_five(tmp_path)
    starts = [match.start() for match in re.finditer(rb"(?m)^--- ", content)] + [len(content)]
    begin, end = starts[number], starts[number + 1]
    path.write_bytes(content[:begin] + harm(content[begin:end]) + content[end:])

    error = refuses(tmp_path, lambda: PersistedState.open(path, read_only=read_only), CorruptStateError, ValueError)
    good = number + (1 if harm(b"--- x") == b"--- x" * 2 else 0)
    assert str(path) == error.path
    assert good == error.index
    line = content[: starts[good]].count(b"\n") + 1
    assert (line, starts[good]) == (error.line, error.offset)
    # Without the last but one, it is the last record that is bad, and nothing follows.
    assert (number != 3 or bool(harm(b"--- a record"))) <= error.following <= 4 - number
    sentences(
        str(error),
        f"{path}:{line}: ",
        "damaged record",
        str(error.following) if error.following else "not",
        "Nothing was changed",
        f"pstate repair {path}",
    )


SENSELESS = {
    "no list": '{"a": 1}',
    "no YAML": '[["set",[],"counter",5',
    "no such operation": '[["twist",[],"counter",5]]',
    "no such place": '[["set",["missing"],"counter",5]]',
    "a missing key": '[["delete",[],"missing"]]',
    "a missing key of 5000 digits": f'[["delete",[],{1 << 17_000:#x}]]',
    "no index": '[["insert",["jobs"],7,"x"]]',
}


def senseless(content: bytes, body: str, count: int) -> tuple[bytes, int, int]:
    """*content* with a committed record after the first *count*, and a good one after it; where it is."""
    image = f.scan(content)
    for number, match in enumerate(re.finditer(rb"(?m)^--- ", content)):
        if number == count:
            content = content[: match.start()]
            break
    crc = f.scan(content).crc
    assert image.index >= f.scan(content).index == count
    begin = len(content)
    for text in (body, '[["set",[],"counter",6]]'):
        record, crc = f.encode_record(text, crc)
        content += record
    return content, begin, content[:begin].count(b"\n") + 1


@pytest.mark.parametrize("live", [False, True], ids=["opened", "found by a live process"])
@pytest.mark.parametrize("count", [1, 5])
@pytest.mark.parametrize("what", SENSELESS)
def test_a_committed_record_that_makes_no_sense_is_named_with_its_place(
    tmp_path: Path, what: str, count: int, live: bool
) -> None:
    """Its checksum is right, so nobody is told to correct it."""
    path, content = journal_of_five(tmp_path)
    content, begin, line = senseless(content, SENSELESS[what], count)

    if live:
        path.write_bytes(content[:begin])
        state = PersistedState.open(path, read_only=True)
        path.write_bytes(content)
        error = refuses(tmp_path, state.snapshot, CorruptStateError, ValueError)
        state.close()
    else:
        path.write_bytes(content)
        error = refuses(tmp_path, lambda: PersistedState(path), CorruptStateError, ValueError)

    assert (str(path), line, begin, count, 1) == (
        error.path, error.line, error.offset, error.index, error.following
    )  # fmt: skip
    sentences(str(error), f"{path}:{line}: ", f"record {count + 1} ", "checksum is right", "Nothing was changed")
    assert "Correct" not in str(error)


def test_a_record_that_cannot_be_read_is_named_before_one_that_does_not_fit(tmp_path: Path) -> None:
    """Records are decoded while they are replayed, but nothing is said of one before all can be read."""
    path, content = journal_of_five(tmp_path)
    crc = f.scan(content).crc
    for body in (SENSELESS["a missing key"], '[["set",[],"counter",6]]', SENSELESS["no YAML"]):
        record, crc = f.encode_record(body, crc)
        content += record
    path.write_bytes(content)

    error = refuses(tmp_path, lambda: PersistedState(path), CorruptStateError, ValueError)

    assert (7, 0) == (error.index, error.following)
    sentences(str(error), f"{path}:{error.line}: ", "record 8 ", "cannot be read", "Nothing was changed")


def test_damage_found_by_a_live_process_harms_neither_side(tmp_path: Path) -> None:
    """It serves its last good state, and refuses to write after the damage."""
    path, content = journal_of_five(tmp_path)
    with PersistedState.open(path) as state:
        damaged = content.replace(b'"counter",102', b'"cOunter",1022')
        path.write_bytes(damaged)
        with nothing_changes(tmp_path):
            assert 104 == state.counter
            with pytest.raises(StateFileError) as caught:
                state.counter = 5
            assert str(path) in str(caught.value)
            assert 104 == state.counter
        path.write_bytes(content)
        state.counter = 5
    assert {"counter": 5, "jobs": ["one"]} == yaml.safe_load(path.read_bytes())


# ---------------------------------------------------------------------- paths


def test_a_directory_is_no_state_file(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    for read_only in (False, True):
        error = refuses(
            tmp_path,
            lambda read_only=read_only: PersistedState.open(folder, read_only=read_only),
            NotAFileError,
            OSError,
        )
        assert str(folder) == error.path
        sentences(str(error), f"{folder}: ", "directory", "Nothing was changed", "path of a file")
    assert [] == os.listdir(folder)


@pytest.mark.parametrize("read_only", [False, True], ids=["", "read_only"])
@pytest.mark.parametrize("name", ["n" * 256, "loop", "loop/state.yaml", "/proc/version"])
def test_what_the_system_does_not_open_or_read_is_refused_as_that(tmp_path: Path, name: str, read_only: bool) -> None:
    os.symlink("loop", tmp_path / "loop")
    path = tmp_path / name
    if name.startswith("/proc"):
        read_only = True
        if not path.exists():
            pytest.skip(f"this system has no {path}")
    error = refuses(tmp_path, lambda: PersistedState.open(path, read_only=read_only), UnreadableError, OSError)
    assert str(path) == error.path
    assert error.errno in (errno.ENAMETOOLONG, errno.ELOOP, errno.EINVAL)
    sentences(str(error), f"{path}: ", "cannot be (opened|read)", "Nothing was changed", "Use")


@pytest.mark.parametrize(
    ("arguments", "kind", "says"),
    [
        ({"path": b"state.yaml"}, TypeError, "str or an os.PathLike"),
        ({"path": "state\0.yaml"}, ValueError, "is not a path"),
        ({"path": "state\ud800.yaml"}, ValueError, "is not a path"),
        ({"defaults": [1]}, TypeError, "defaults must be a dict"),
        ({"durability": "both"}, ValueError, "durability must be"),
        ({"locking": "flock"}, TypeError, "locking='flock' is unknown"),
        ({"locking": 5}, TypeError, "locking=5"),
        ({"lock_timeout": "5"}, TypeError, "lock_timeout must be a number"),
        ({"lock_timeout": float("nan")}, ValueError, "lock_timeout must be a number"),
    ],
)
def test_a_wrong_argument_is_refused_before_anything_is_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: dict[str, Any], kind: type[Exception], says: str
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(kind, match=says) as caught:
        PersistedState.open(**{"path": "state.yaml", **arguments})

    assert "Nothing was opened." in str(caught.value) or "Nothing was done." in str(caught.value)
    assert [] == os.listdir(tmp_path)


def test_a_wrong_timeout_of_a_transaction_is_refused(tmp_path: Path) -> None:
    with PersistedState(tmp_path / "state.yaml") as state:
        with pytest.raises(TypeError, match="timeout must be a number"):
            state.transaction(timeout="5")  # type: ignore[arg-type]
        state.a = 1


def test_a_relative_path_in_a_folder_that_is_gone_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    refuses(tmp_path, lambda: PersistedState("state.yaml"), MissingPathError, FileNotFoundError)


@pytest.mark.parametrize("trouble", ["a file in the place of the folder", "a loop", "no permission"])
def test_while_the_path_cannot_be_reached_reads_go_on_and_writes_are_refused(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, trouble: str
) -> None:
    """Logged once. When the path exists again, so does everything else."""
    folder = tmp_path / "folder"
    folder.mkdir()
    path = folder / "state.yaml"
    number = {"a file in the place of the folder": errno.ENOTDIR, "a loop": errno.ELOOP}.get(trouble, errno.EACCES)

    def refuse(call: str, name: str) -> None:
        if number == errno.EACCES:  # which root always has
            raise PermissionError(number, os.strerror(number), name)

    fs = Disk("stat")
    fs.before, fs.armed = refuse, False
    state = PersistedState.open(path, fs=fs, defaults={"a": 1})
    folder.rename(tmp_path / "moved")
    fs.armed = True
    if number == errno.ENOTDIR:
        folder.write_bytes(b"")
    elif number == errno.ELOOP:
        folder.symlink_to("folder")
    else:
        (tmp_path / "moved").rename(folder)

    sleep(0.02)
    for _ in range(3):
        assert 1 == state.a
        sleep(0.02)
    assert 1 == len([record for record in caplog.records if record.levelno >= logging.WARNING])
    for change in (lambda: setattr(state, "a", 2), state.transaction().__enter__):
        sleep(0.02)
        with pytest.raises(WriteError) as caught:
            change()
        assert number == caught.value.errno
        sentences(
            str(caught.value),
            f"{path}: ",
            os.strerror(number),
            "reads return the last good state",
            "writes are refused",
        )
        assert 1 == state.a

    fs.armed = False
    if number != errno.EACCES:
        folder.unlink()
        (tmp_path / "moved").rename(folder)
    state.a = 3
    state.close()
    assert {"a": 3} == yaml.safe_load(path.read_bytes())
    assert ["state.yaml"] == os.listdir(folder)


@pytest.mark.parametrize("read_only", [False, True], ids=["", "read_only"])
def test_a_fifo_is_refused_without_waiting(tmp_path: Path, read_only: bool) -> None:
    """An ordinary `open` of it would wait for somebody at the other end, for ever."""
    path = tmp_path / "fifo"
    os.mkfifo(path)
    error = refuses(tmp_path, lambda: PersistedState.open(path, read_only=read_only), NotAFileError, OSError)
    assert str(path) == error.path
    sentences(str(error), f"{path}: ", "not a regular file", "Nothing was changed", "path of a file")


@pytest.mark.parametrize("read_only", [False, True], ids=["", "read_only"])
@pytest.mark.parametrize("path", ["/dev/null", "/dev/zero", "/dev/full"])
def test_a_device_is_no_state_file(path: str, read_only: bool) -> None:
    if not os.path.exists(path):
        pytest.skip(f"this system has no {path}")
    with pytest.raises(NotAFileError) as caught:
        PersistedState.open(path, read_only=read_only)
    assert path == caught.value.path
    sentences(str(caught.value), f"{path}: ", "not a regular file", "Nothing was changed", "path of a file")


def test_a_socket_is_no_state_file(tmp_path: Path) -> None:
    import socket

    with socket.socket(socket.AF_UNIX) as listener:
        folder = os.getcwd()
        os.chdir(tmp_path)
        try:
            listener.bind("socket")
        finally:
            os.chdir(folder)
        path = tmp_path / "socket"
        error = refuses(tmp_path, lambda: PersistedState(path), NotAFileError, OSError)
        assert str(path) == error.path
        sentences(str(error), f"{path}: ", "Nothing was changed", "path of a file")


@pytest.mark.parametrize("read_only", [False, True], ids=["", "read_only"])
def test_a_missing_folder_is_not_created(tmp_path: Path, read_only: bool) -> None:
    path = tmp_path / "missing" / "state.yaml"
    error = refuses(
        tmp_path, lambda: PersistedState.open(path, read_only=read_only), MissingPathError, FileNotFoundError
    )
    assert (str(path), errno.ENOENT) == (error.path, error.errno)
    sentences(str(error), f"{path}: ", re.escape(str(path.parent)), "does not exist", "Nothing was created", "Create")


def test_a_file_as_a_folder(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with nothing_changes(tmp_path), pytest.raises(OSError) as caught:
        PersistedState(tmp_path / "file" / "state.yaml")
    assert "state.yaml" in str(caught.value)


def test_a_missing_file_is_not_created_read_only(tmp_path: Path) -> None:
    path = tmp_path / "state.yaml"
    error = refuses(tmp_path, lambda: PersistedState.open(path, read_only=True), MissingPathError, FileNotFoundError)
    assert (str(path), errno.ENOENT) == (error.path, error.errno)
    sentences(str(error), f"{path}: ", "does not exist", "read_only")


def test_a_symlink_that_leads_nowhere_is_filled_and_stays_a_symlink(tmp_path: Path) -> None:
    """As `open(path, "w")` does."""
    target, link = tmp_path / "target.yaml", tmp_path / "link.yaml"
    link.symlink_to("target.yaml")
    with PersistedState(link, counter=1) as state:
        state.counter += 1
    assert link.is_symlink()
    assert {"counter": 2} == yaml.safe_load(target.read_bytes())


def test_a_symlink_loop_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    with pytest.raises(OSError) as caught:
        PersistedState(tmp_path / "a")
    assert errno.ELOOP == caught.value.errno
    assert {"a", "b"} == set(os.listdir(tmp_path))


class _Path:
    def __init__(self, path: Any) -> None:
        self.path = path

    def __fspath__(self) -> Any:
        return self.path


@pytest.mark.parametrize(
    "path",
    [None, 3, 1.5, b"state.yaml", _Path(b"state.yaml"), ["state.yaml"], object()],
    ids=lambda p: type(p).__name__,
)
@pytest.mark.parametrize("how", [PersistedState, PersistedState.open], ids=["constructor", "open"])
def test_only_a_str_or_a_path_of_str_is_a_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, path: Any, how: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(TypeError) as caught:
        how(path)
    assert re.search("path|PathLike", str(caught.value))
    assert [] == os.listdir(tmp_path)


def test_every_kind_of_str_path_is_accepted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for path in ("state.yaml", Path("state.yaml"), tmp_path / "state.yaml", _Path("state.yaml"), "./x/../state.yaml"):
        (tmp_path / "x").mkdir(exist_ok=True)
        with PersistedState(path, n=0) as state:  # type: ignore[arg-type]
            state.n += 1
    assert {"n": 5} == yaml.safe_load((tmp_path / "state.yaml").read_bytes())


def test_a_path_with_a_zero_byte_is_refused(tmp_path: Path) -> None:
    with nothing_changes(tmp_path), pytest.raises(ValueError):
        PersistedState(f"{tmp_path}/a\0b")


def test_an_empty_path_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with nothing_changes(tmp_path), pytest.raises((OSError, ValueError)):
        PersistedState("")


def test_a_name_that_is_too_long_is_refused(tmp_path: Path) -> None:
    with nothing_changes(tmp_path), pytest.raises(OSError):
        PersistedState(tmp_path / ("x" * 300))


def test_the_longest_possible_name_works_or_says_why(tmp_path: Path) -> None:
    """A vacuum's temporary name is longer than the file's: commits and close go on all the same."""
    path = tmp_path / ("x" * 255)
    with PersistedState(path, n=0) as state:
        state.n += 1
        assert {"n": 1} == state.snapshot()
    with PersistedState(path) as state:
        assert {"n": 1} == state.snapshot()
    assert [path.name] == os.listdir(tmp_path)


# ---------------------------------------------------------------------- options


@pytest.mark.parametrize("durability", ["", "none", "POWER", None, True, 1])
def test_an_unknown_durability_is_refused(tmp_path: Path, durability: Any) -> None:
    path = tmp_path / "state.yaml"
    with nothing_changes(tmp_path), pytest.raises(ValueError) as caught:
        PersistedState.open(path, durability=durability)
    sentences(str(caught.value), "", "process", "power", re.escape(repr(durability)))


@pytest.mark.parametrize(
    "locking", ["", "flock", "FILE", None, True, 1, object()], ids=lambda value: re.sub(" at 0x.*", "", repr(value))
)
def test_an_unknown_locking_is_refused(tmp_path: Path, locking: Any) -> None:
    path = tmp_path / "state.yaml"
    with nothing_changes(tmp_path), pytest.raises((ValueError, TypeError)) as caught:
        PersistedState.open(path, locking=locking)
    assert "locking" in str(caught.value)
    assert '"file"' in str(caught.value) or "'file'" in str(caught.value) or "acquire" in str(caught.value)


def test_unknown_options_are_refused(tmp_path: Path) -> None:
    with nothing_changes(tmp_path), pytest.raises(TypeError):
        PersistedState.open(tmp_path / "state.yaml", durabilty="power")  # type: ignore[call-arg]


def test_a_default_that_is_no_state_leaves_no_file_behind(tmp_path: Path) -> None:
    error = refuses(
        tmp_path, lambda: PersistedState(tmp_path / "state.yaml", ok=1, bad=object()), UnsupportedTypeError, TypeError
    )
    assert "bad" in error.place
    with nothing_changes(tmp_path), pytest.raises(UnsupportedValueError):
        PersistedState.open(tmp_path / "state.yaml", defaults={"x": "\ud800"})


# ---------------------------------------------------------------------- permissions


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that nobody (the user) can reach: `tmp_path` lies below one that is only ours."""
    import shutil
    import tempfile

    folder = Path(tempfile.mkdtemp(prefix="pstate-test-"))
    folder.chmod(0o777)
    yield folder
    folder.chmod(0o777)
    shutil.rmtree(folder)


def as_nobody(code: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    """Permissions mean nothing to root, and the tests may run as root."""
    # What is imported late may lie where nobody can read.
    modules = "ctypes, logging, yaml, pstate.file.legacy, pstate.file.holder, pstate.text.events, pstate.text.splice"
    become = f"import {modules}; os.setgroups([]); os.setgid({NOBODY}); os.setuid({NOBODY})\n" if ROOT else ""
    return python(become + textwrap.dedent(code), *arguments)


needs_setuid = pytest.mark.skipif(not hasattr(os, "setuid"), reason="the system has no users to become")


@needs_setuid
def test_a_file_that_is_not_writable_is_refused_but_can_be_read(open_folder: Path) -> None:
    path = open_folder / "state.yaml"
    path.write_bytes(READABLE)
    path.chmod(0o444)
    with nothing_changes(open_folder):
        done = as_nobody(
            """
            try:
                PersistedState.open(PATH)
            except ReadOnlyError as error:
                assert isinstance(error, PermissionError) and error.path == PATH and error.errno == errno.EACCES
                print(error)
            state = PersistedState.open(PATH, read_only=True)
            assert state.counter == 3 and list(state.jobs) == ["one"]
            try:
                state.counter = 4
            except ReadOnlyError as error:
                assert isinstance(error, PermissionError) and error.path == PATH
                print(error)
            assert state.counter == 3
            state.close()
            """,
            path,
        )
    assert (0, "") == (done.returncode, done.stderr)
    first, second = done.stdout.splitlines()
    sentences(first, f"{path}: ", "cannot be opened for writing", "Nothing was changed", "permission", "read_only=True")
    sentences(second, f"{path}: ", "read_only", "Nothing was changed", "without read_only")


@needs_setuid
def test_a_file_that_is_not_readable_is_refused(open_folder: Path) -> None:
    path = open_folder / "state.yaml"
    path.write_bytes(READABLE)
    path.chmod(0o200 if not ROOT else 0o000)
    done = as_nobody(
        """
        for read_only in (False, True):
            try:
                PersistedState.open(PATH, read_only=read_only)
            except PermissionError as error:
                assert error.errno == errno.EACCES
                print(error)
        """,
        path,
    )
    assert (0, "") == (done.returncode, done.stderr)
    messages = done.stdout.splitlines()
    assert 2 == len(messages)
    assert all(str(path) in message for message in messages)
    assert "for writing" not in messages[1], "it was opened read_only, so that is not what failed"
    path.chmod(0o600)
    assert READABLE == path.read_bytes()


@needs_setuid
def test_a_folder_that_is_not_writable_cannot_get_a_new_state(open_folder: Path) -> None:
    open_folder.chmod(0o755 if ROOT else 0o555)
    path = open_folder / "state.yaml"
    done = as_nobody(
        """
        try:
            PersistedState.open(PATH)
        except PermissionError as error:
            assert isinstance(error, PStateError), "an error of ours: " + repr(error)
            print(error)
        """,
        path,
    )
    assert (0, "") == (done.returncode, done.stderr)
    sentences(done.stdout, f"{path}: ", "created|writ", "Nothing was")
    assert [] == os.listdir(open_folder)


@needs_setuid
@pytest.mark.parametrize("content", [READABLE, b"# empty\n"], ids=["a mapping", "comment only"])
def test_in_a_folder_that_is_not_writable_commits_go_on_and_the_journal_stays(
    open_folder: Path, content: bytes
) -> None:
    """A vacuum needs the folder, a commit only the file. It is logged; close does not raise."""
    path = open_folder / "state.yaml"
    path.write_bytes(content)
    path.chmod(0o666)
    open_folder.chmod(0o755 if ROOT else 0o555)
    done = as_nobody(
        """
        import logging
        logging.basicConfig(stream=sys.stdout, format="%(levelname)s %(message)s")
        for number in (4, 5):
            state = PersistedState.open(PATH)
            state.counter = number
            try:
                state.vacuum()
            except WriteError as error:
                assert isinstance(error, OSError) and error.errno == errno.EACCES and error.path == PATH
                print("RAISED", error)
            assert state.counter == number
            state.close()
        """,
        path,
    )
    assert (0, "") == (done.returncode, done.stderr)
    lines = done.stdout.splitlines()
    raised = [line for line in lines if line.startswith("RAISED")]
    assert 2 == len(raised)
    sentences(raised[0], f"RAISED {path}: ", "could not be rewritten", "unchanged", "keeps its journal")
    assert any(line.startswith("WARNING") and str(path) in line for line in lines)
    assert ["state.yaml"] == os.listdir(open_folder)
    with PersistedState.open(path, read_only=True) as state:
        assert 5 == state.counter


@needs_setuid
def test_where_the_document_must_be_written_anew_an_unwritable_folder_is_an_error(open_folder: Path) -> None:
    """A block text without newline can take no marker: then the commit needs the folder, and says so."""
    path = open_folder / "state.yaml"
    path.write_bytes(b"a: |\n  text")
    path.chmod(0o666)
    open_folder.chmod(0o755 if ROOT else 0o555)
    with nothing_changes(open_folder):
        done = as_nobody(
            """
            state = PersistedState.open(PATH)
            try:
                state.counter = 4
            except WriteError as error:
                assert isinstance(error, OSError) and error.path == PATH and error.errno == errno.EACCES
                print(error)
            assert state.snapshot() == {"a": "text"}
            state.close()
            """,
            path,
        )
    assert (0, "") == (done.returncode, done.stderr)
    sentences(done.stdout, f"{path}: ", "rewritten", "Nothing was changed", "folder must be writable")


def in_a_namespace(setup: str, code: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    """Run *setup* (shell) and *code* in a mount namespace of their own; skips where that is not permitted."""
    try:
        probe = subprocess.run(
            ["unshare", "-m", "--propagation", "private", "true"], capture_output=True, timeout=10, check=False
        )
    except FileNotFoundError:
        pytest.skip("there is no unshare command here")
    if probe.returncode:
        pytest.skip(f"mount namespaces are not permitted here: {probe.stderr.decode().strip()}")
    shell = f'set -e\n{setup}\nexec "$PYTHON" "$@"'
    head = "import errno, os, resource, sys\nimport pstate\nfrom pstate import *\nPATH = sys.argv[1]\n"
    command = [
        "unshare",
        "-m",
        "--propagation",
        "private",
        "sh",
        "-c",
        shell,
        "sh",
        "-c",
        head + textwrap.dedent(code),
        *map(str, arguments),
    ]
    environment = {**os.environ, "PYTHON": sys.executable, "TARGET": str(arguments[0]), "FOLDER": str(arguments[1])}
    done = subprocess.run(command, capture_output=True, text=True, timeout=50, check=False, env=environment)
    if done.returncode == 32 or "mount:" in done.stderr:
        pytest.skip(f"mounting is not permitted here: {done.stderr.strip()}")
    return done


def test_a_state_on_a_read_only_file_system(tmp_path: Path) -> None:
    """Refused for writing with the advice, readable with it."""
    path = tmp_path / "state.yaml"
    path.write_bytes(READABLE)
    done = in_a_namespace(
        'mount --bind "$FOLDER" "$FOLDER"\nmount -o remount,ro,bind "$FOLDER"',
        """
        try:
            PersistedState.open(PATH)
        except ReadOnlyError as error:
            assert isinstance(error, PermissionError) and error.errno == errno.EROFS and error.path == PATH
            print(error)
        try:
            PersistedState.open(PATH + ".new")
        except PermissionError as error:
            assert isinstance(error, PStateError)
        else:
            raise AssertionError("created on a read-only file system")
        with PersistedState.open(PATH, read_only=True) as state:
            assert state.counter == 3
        """,
        path,
        tmp_path,
    )
    assert (0, "") == (done.returncode, done.stderr)
    sentences(done.stdout, f"{path}: ", "read-only", "Nothing was changed", "read_only=True")


# ---------------------------------------------------------------------- files that cannot be renamed over


SEVERAL_SESSIONS = """
    import logging
    logging.basicConfig(stream=sys.stdout, format="%(levelname)s %(name)s %(message)s")
    import pstate.file.log
    pstate.file.limits.JOURNAL_MINIMUM = 200  # a vacuum is due again and again
    for session in range(2):
        state = PersistedState(PATH, counter=0)
        print("SESSION", state.counter)
        for _ in range(100):
            state.counter += 1
        state.close()
"""


def test_a_single_file_mounted_into_a_container(tmp_path: Path) -> None:
    """It cannot be replaced: commits go on, close does not raise, the journal stays, and the log does not overflow."""
    path, inner = tmp_path / "outside.yaml", tmp_path / "folder" / "state.yaml"
    inner.parent.mkdir()
    path.write_bytes(READABLE)
    inner.write_bytes(b"")
    done = in_a_namespace(f'mount --bind "{path}" "$TARGET"', SEVERAL_SESSIONS, inner, inner.parent)
    assert (0, "") == (done.returncode, done.stderr)
    lines = done.stdout.splitlines()
    assert ["SESSION 3", "SESSION 103"] == [line for line in lines if line.startswith("SESSION")]
    warnings = [line for line in lines if line.startswith("WARNING")]
    assert 1 <= len(warnings) <= 4, "logged once for each open state, not at every commit"
    assert all(str(inner) in line for line in warnings)
    assert ["state.yaml"] == os.listdir(inner.parent)
    with PersistedState.open(path, read_only=True) as state:
        assert {"counter": 203, "jobs": ["one"]} == state.snapshot()
    assert path.read_bytes().startswith(READABLE + b"... # pstate ")


@pytest.mark.parametrize("number", [errno.EBUSY, errno.EXDEV, errno.EPERM, errno.EIO])
def test_a_file_that_cannot_be_replaced_keeps_its_journal(
    tmp_path: Path, number: int, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same by a double, for every reason that a system may have: never truncated and rewritten in place instead."""
    monkeypatch.setattr("pstate.file.limits.JOURNAL_MINIMUM", 200)
    path = tmp_path / "state.yaml"
    path.write_bytes(READABLE)
    inode = path.stat().st_ino
    fs = Disk("rename", "exchange")
    asked: list[str] = []

    def refuse(call: str, first: str, second: str) -> None:
        """What a file mounted on its own says to being replaced, and systems without an exchange."""
        if call == "exchange" or str(path) in (first, second):
            asked.append(call)
            raise OSError(number, os.strerror(number), str(path))

    fs.before = refuse
    with caplog.at_level(logging.WARNING, "pstate"):
        with PersistedState.open(path, fs=fs) as state:
            for _ in range(200):
                state.counter += 1
            with pytest.raises(WriteError) as caught:
                state.vacuum()
            assert 203 == state.counter
    assert (str(path), number) == (caught.value.path, caught.value.errno)
    sentences(str(caught.value), f"{path}: ", "could not be rewritten", "unchanged", "keeps its journal")
    assert asked
    messages = [record.getMessage() for record in caplog.records]
    assert 1 <= len(messages) <= 4, "logged once, and once more at close; not at every attempt"
    assert all(str(path) in message for message in messages)
    assert inode == path.stat().st_ino
    assert ["state.yaml"] == os.listdir(tmp_path)
    assert path.read_bytes().startswith(READABLE + b"... # pstate ")
    with PersistedState.open(path) as state:
        assert {"counter": 203, "jobs": ["one"]} == state.snapshot()
    assert {"counter": 203, "jobs": ["one"]} == yaml.safe_load(path.read_bytes())


# ---------------------------------------------------------------------- disk full, I/O errors


def test_a_full_disk(tmp_path: Path) -> None:
    """A real one: the refused commit leaves no trace, room made brings everything back, nothing committed is lost."""
    folder = tmp_path / "full"
    folder.mkdir()
    done = in_a_namespace(
        'mount -t tmpfs -o size=64k pstate "$FOLDER"',
        """
        import logging
        logging.basicConfig(stream=sys.stdout)
        with open(PATH, "wb") as file:
            file.write(b"counter: 0\\n")
        state = PersistedState.open(PATH)
        count = 0
        try:
            while count < 10000:
                state.text = "x" * 1000
                state.counter += 1
                count += 1
        except WriteError as error:
            assert isinstance(error, OSError) and error.errno == errno.ENOSPC and error.path == PATH
            print(error)
        else:
            raise AssertionError("the disk never filled")
        size = os.path.getsize(PATH)
        assert state.counter == count, (state.counter, count)
        for _ in range(3):
            try:
                state["more"] = "y" * 10_000
            except WriteError:
                pass
            else:
                raise AssertionError("no room, but written")
            assert "more" not in state and os.path.getsize(PATH) == size
        try:
            with state.transaction():
                state.counter = -1
                state["more"] = "y" * 10_000
        except WriteError:
            pass
        else:
            raise AssertionError("no room, but committed")
        assert state.counter == count and "more" not in state
        try:
            state.vacuum()  # may find room or not, but must lose nothing
        except WriteError as error:
            assert error.errno == errno.ENOSPC
        assert state.counter == count
        state.close()
        again = PersistedState.open(PATH)
        assert again.counter == count and "more" not in again, again.counter
        again.close()
        assert os.listdir(os.path.dirname(PATH)) == ["state.yaml"], os.listdir(os.path.dirname(PATH))
        """,
        folder / "state.yaml",
        folder,
    )
    assert (0, "") == (done.returncode, done.stderr)
    sentences(
        done.stdout, f"{folder / 'state.yaml'}: ", "No space left", "undone, in memory and in the file", "Make room"
    )


def session(fs: Failing, path: Path, acknowledged: list[int], refused: list[BaseException]) -> None:
    """Commits, a transaction and a vacuum; whatever is refused is noted, and the session goes on."""
    state = PersistedState.open(path, fs=fs)
    for number in range(1, 5):
        try:
            if number == 3:
                state.vacuum()
            with state.transaction():
                state.counter = number
                state.text = "x" * 50 * number
        except OSError as error:
            refused.append(error)
        else:
            acknowledged.append(number)
        last = acknowledged[-1] if acknowledged else 0
        assert last == state.counter, "memory is the last acknowledged commit"
        assert "x" * 50 * last == state.text
    state.close()
    for refusal in refused:
        assert isinstance(refusal, PStateError), refusal
        assert str(path) in str(refusal)


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO])
@pytest.mark.parametrize("part", [0.0, 0.5, 0.99], ids=["nothing written", "half written", "nearly all written"])
def test_an_error_at_any_single_write_loses_nothing(tmp_path: Path, part: float, number: int) -> None:
    """Of a record, of a first marker, of a vacuum's file, of a trailer: undone, or put off; the next commit works."""
    at = 0
    while True:
        path = tmp_path / str(at) / "state.yaml"
        path.parent.mkdir()
        path.write_bytes(b"# comment\ncounter: 0\ntext: ''\n")
        fs = Failing("write", error=number, part=part)
        fs.first = fs.last = at
        acknowledged: list[int] = []
        refused: list[BaseException] = []
        session(fs, path, acknowledged, refused)
        last = acknowledged[-1] if acknowledged else 0
        with PersistedState.open(path) as state:
            assert {"counter": last, "text": "x" * 50 * last} == state.snapshot(), f"write {at} failed"
        assert {"counter": last, "text": "x" * 50 * last} == yaml.safe_load(path.read_bytes())
        assert ["state.yaml"] == os.listdir(path.parent)
        assert len(refused) <= 1
        assert all(error.errno == number for error in refused)  # type: ignore[attr-defined]
        assert 3 <= len(acknowledged)
        if fs.count <= at:
            break
        at += 1
    assert at >= 7, "the writes of four commits, of two new files and of two trailers"


@pytest.mark.parametrize("start", range(0, 8))
def test_from_some_write_on_every_write_fails(tmp_path: Path, start: int) -> None:
    """A disk that stays full: reads go on, nothing acknowledged is lost, close does not raise."""
    path = tmp_path / "state.yaml"
    path.write_bytes(b"counter: 0\ntext: ''\n")
    fs = Failing("write", error=errno.ENOSPC)
    fs.first = start
    acknowledged: list[int] = []
    session(fs, path, acknowledged, [])
    last = acknowledged[-1] if acknowledged else 0
    with PersistedState.open(path) as state:
        assert last == state.counter
        state.counter = 100
    assert 100 == yaml.safe_load(path.read_bytes())["counter"]
    assert ["state.yaml"] == os.listdir(tmp_path)


@pytest.mark.parametrize("call", ["truncate", "sync", "rename_new", "exchange", "unlink", "sync_folder"])
def test_an_error_at_any_other_single_call_of_a_vacuum_loses_nothing(tmp_path: Path, call: str) -> None:
    """The vacuum is put off or has happened; the state is the same, before and after opening again."""
    at = 0
    while True:
        path = tmp_path / str(at) / "state.yaml"
        path.parent.mkdir()
        path.write_bytes(b"counter: 0\ntext: ''\n")
        fs = Failing(call)
        fs.first = fs.last = at
        acknowledged: list[int] = []
        refused: list[BaseException] = []
        session(fs, path, acknowledged, refused)
        last = acknowledged[-1]
        with PersistedState.open(path) as state:
            assert {"counter": last, "text": "x" * 50 * last} == state.snapshot(), f"{call} {at} failed"
            state.counter = 100
        assert 100 == yaml.safe_load(path.read_bytes())["counter"]
        assert ["state.yaml"] == os.listdir(path.parent)
        if fs.count <= at:
            break
        at += 1


def test_when_even_cutting_back_fails_the_state_refuses_writes(tmp_path: Path) -> None:
    """The end of the file is unknown then; nothing is committed until the unfinished record can be cut off."""
    path = tmp_path / "state.yaml"
    path.write_bytes(READABLE)
    fs = Failing()
    state = PersistedState.open(path, fs=fs)
    state.counter = 4
    fs.failing = {"write", "truncate"}
    with pytest.raises(WriteError) as caught:
        state.counter = 5
    sentences(str(caught.value), f"{path}: ", "failed", "Nothing was committed", "refuses writes until", "try again")
    assert 4 == state.counter
    with pytest.raises(OSError):
        state.counter = 6
    assert 4 == state.counter
    state.close()
    with PersistedState.open(path) as state:
        assert {"counter": 4, "jobs": ["one"]} == state.snapshot()
        state.counter += 1
    assert {"counter": 5, "jobs": ["one"]} == yaml.safe_load(path.read_bytes())


# ---------------------------------------------------------------------- the lock is held


HOLDER = """
    state = PersistedState(PATH, counter=0)
    with state.transaction():
        state.counter = 99
        print("holding", flush=True)
        sys.stdin.readline()
"""


@contextmanager
def another_process_holds_the_lock(path: Path) -> Iterator[int]:
    head = "import sys\nfrom pstate import *\nPATH = sys.argv[1]\n"
    command = [sys.executable, "-c", head + textwrap.dedent(HOLDER), str(path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdin is not None
        assert b"holding\n" == process.stdout.readline()
        yield process.pid
        process.kill()


@pytest.mark.parametrize("timeout", [0, 0.05])
def test_a_lock_held_by_another_process_is_a_timeout_that_names_it(tmp_path: Path, timeout: float) -> None:
    """Reads and opening do not wait; a change does, for as long as it may."""
    path = tmp_path / "state.yaml"
    path.write_bytes(READABLE)
    with another_process_holds_the_lock(path) as holder:
        with PersistedState.open(path, lock_timeout=timeout) as state:
            assert {"counter": 3, "jobs": ["one"]} == state.snapshot()
            calls: list[Callable[[], Any]] = [
                lambda: state.__setattr__("counter", 4),
                lambda: state.jobs.append("two"),
                lambda: state.transaction().__enter__(),
                lambda: state.transaction(timeout=timeout).__enter__(),
                state.vacuum,
                lambda: PersistedState.open(path, defaults={"another": 1}, lock_timeout=timeout),
            ]
            for call in calls:
                error = refuses(tmp_path, call, LockTimeout, TimeoutError)
                assert (str(path), holder) == (error.path, error.holder)
                assert timeout <= error.waited < timeout + 20
                sentences(str(error), f"{path}: ", "waited", "lock", str(holder), "lock_timeout|timeout")
            assert {"counter": 3, "jobs": ["one"]} == state.snapshot()
    with PersistedState.open(path) as state:
        state.counter = 4
    assert {"counter": 4, "jobs": ["one"]} == yaml.safe_load(path.read_bytes())


def test_another_threads_transaction_is_a_timeout_that_names_this_process(tmp_path: Path) -> None:
    path = tmp_path / "state.yaml"
    state = PersistedState.open(path, defaults={"counter": 0}, lock_timeout=0.05)
    inside, leave = threading.Event(), threading.Event()

    def hold() -> None:
        with state.transaction():
            inside.set()
            leave.wait(30)

    thread = threading.Thread(target=hold)
    thread.start()
    try:
        assert inside.wait(30)
        error = refuses(tmp_path, lambda: state.transaction().__enter__(), LockTimeout, TimeoutError)
        assert (str(path), os.getpid()) == (error.path, error.holder)
        sentences(str(error), f"{path}: ", "waited", "thread", "Nothing was changed", "Try again")
    finally:
        leave.set()
        thread.join()
    state.close()


# ---------------------------------------------------------------------- keys that cannot be attributes


@pytest.mark.parametrize(
    "name",
    ["items", "keys", "values", "get", "pop", "update", "clear", "copy", "setdefault", "close", "transaction", "vacuum",
     "snapshot", "open", "fromkeys", "popitem"],
)  # fmt: skip
def test_a_method_name_is_a_key_by_item_and_a_clear_error_by_attribute(tmp_path: Path, name: str) -> None:
    path = tmp_path / "state.yaml"
    with PersistedState(path, first=1) as state:
        error = refuses(tmp_path, lambda: setattr(state, name, 1), ReservedNameError, AttributeError)
        sentences(str(error), "", name, "Nothing was changed", rf"\[.{name}.\]")
        assert name in error.place
        assert callable(getattr(state, name))
        state[name] = 2
        assert 2 == state[name]
        assert callable(getattr(state, name))
        with pytest.raises(AttributeError):
            delattr(state, name)
        assert 2 == state[name]
        del state[name]
        assert {"first": 1} == state.snapshot()


def test_a_method_name_below_the_root(tmp_path: Path) -> None:
    with PersistedState(tmp_path / "state.yaml", below={"x": 1}) as state:
        error = refuses(tmp_path, lambda: setattr(state.below, "items", 1), ReservedNameError, AttributeError)
        sentences(str(error), "", "items", "Nothing was changed", r"\[.items.\]")
        state.below.close = 3  # a method of the state only, so a key here
        assert 3 == state.below["close"]
        assert {"below": {"x": 1, "close": 3}} == state.snapshot()


def test_names_with_an_underscore_are_python_attributes_and_never_state(tmp_path: Path) -> None:
    path = tmp_path / "state.yaml"

    class Mine(PersistedState):
        pass

    with Mine(path, first=1) as state:
        before = path.read_bytes()
        state._private = [1]
        assert [1] == state._private
        assert before == path.read_bytes()
        assert "_private" not in state
        state["_private"] = 2
        assert [1] == state._private
        assert 2 == state["_private"]
        del state._private
        with pytest.raises(AttributeError):
            state._private
        assert 2 == state["_private"]
    assert {"first": 1, "_private": 2} == yaml.safe_load(path.read_bytes())


def test_a_missing_attribute_is_an_attribute_error_that_names_the_place(tmp_path: Path) -> None:
    with PersistedState(tmp_path / "state.yaml", below={}) as state:
        with pytest.raises(AttributeError, match="nothing"):
            state.nothing
        with pytest.raises(AttributeError, match="nothing"):
            state.below.nothing
        with pytest.raises(AttributeError, match="nothing"):
            del state.nothing
        with pytest.raises(KeyError, match="nothing"):
            state["nothing"]
        assert not hasattr(state, "nothing")
        assert 5 == getattr(state, "nothing", 5)


# ---------------------------------------------------------------------- use after close


ON_THE_STATE: dict[str, Callable[[Any], Any]] = {
    "attribute": lambda s: s.counter,
    "item": lambda s: s["counter"],
    "missing item": lambda s: s["missing"],
    "get": lambda s: s.get("counter"),
    "in": lambda s: "counter" in s,
    "len": len,
    "iter": list,
    "keys": lambda s: list(s.keys()),
    "values": lambda s: list(s.values()),
    "items": lambda s: list(s.items()),
    "<=": lambda s: s.keys() <= {"counter"},
    "reversed": lambda s: list(reversed(s)),
    "|": lambda s: s | {},
    "copy": lambda s: s.copy(),
    "snapshot": lambda s: s.snapshot(),
    "set attribute": lambda s: setattr(s, "counter", 1),
    "set item": lambda s: s.__setitem__("counter", 1),
    "del attribute": lambda s: delattr(s, "counter"),
    "del item": lambda s: s.__delitem__("counter"),
    "pop": lambda s: s.pop("counter"),
    "popitem": lambda s: s.popitem(),
    "setdefault": lambda s: s.setdefault("new", 1),
    "update": lambda s: s.update(new=1),
    "|=": lambda s: s.__ior__({"new": 1}),
    "clear": lambda s: s.clear(),
    "transaction": lambda s: s.transaction().__enter__(),
    "vacuum": lambda s: s.vacuum(),
}

BELOW: dict[str, Callable[[Any], Any]] = {
    "dict item": lambda s: s["d"]["x"],
    "dict attribute": lambda s: s["d"].x,
    "dict set": lambda s: s["d"].__setitem__("x", 2),
    "dict iter": lambda s: list(s["d"]),
    "dict len": lambda s: len(s["d"]),
    "type(dict)": lambda s: type(s["d"])(s["d"]),
    "dict clear": lambda s: s["d"].clear(),
    "list item": lambda s: s["l"][0],
    "list slice": lambda s: s["l"][:],
    "list len": lambda s: len(s["l"]),
    "list iter": lambda s: list(s["l"]),
    "list <": lambda s: s["l"] < [],
    "type(list)": lambda s: type(s["l"])(s["l"]),
    "list in": lambda s: 1 in s["l"],
    "list index": lambda s: s["l"].index(1),
    "list append": lambda s: s["l"].append(1),
    "list set": lambda s: s["l"].__setitem__(0, 2),
    "list sort": lambda s: s["l"].sort(),
    "list +": lambda s: s["l"] + [1],
    "list +=": lambda s: s["l"].__iadd__([1]),
    "list pop": lambda s: s["l"].pop(),
    "set in": lambda s: 1 in s["s"],
    "set len": lambda s: len(s["s"]),
    "set iter": lambda s: list(s["s"]),
    "set <=": lambda s: s["s"] <= {1},
    "type(set)": lambda s: type(s["s"])(s["s"]),
    "set |": lambda s: s["s"] | {1},
    "set add": lambda s: s["s"].add(9),
    "set |=": lambda s: s["s"].__ior__({9}),
    "set discard": lambda s: s["s"].discard(1),
    "set pop": lambda s: s["s"].pop(),
}


@pytest.fixture
def closed(tmp_path: Path) -> tuple[PersistedState, dict[str, Any]]:
    path = tmp_path / "state.yaml"
    state = PersistedState(path, counter=3, d={"x": 1}, l=[1, 2], s={1, 2})
    held = {"d": state.d, "l": state.l, "s": state.s}
    state.close()
    return state, held


@pytest.mark.parametrize("use", ON_THE_STATE.values(), ids=ON_THE_STATE)
def test_a_closed_state_refuses_every_use(
    tmp_path: Path, closed: tuple[PersistedState, dict[str, Any]], use: Callable[[Any], Any]
) -> None:
    """A clear error, never an old value, never a change."""
    state, _ = closed
    attribute = use is ON_THE_STATE["attribute"]  # which `hasattr` must find missing
    error = refuses(tmp_path, lambda: use(state), ClosedAttributeError if attribute else ClosedError, ValueError)
    assert str(tmp_path / "state.yaml") == error.path
    sentences(str(error), f"{error.path}: ", r"close\(\)", "Nothing was changed", "Open it again")


@pytest.mark.parametrize("use", BELOW.values(), ids=BELOW)
def test_a_reference_into_a_closed_state_refuses_every_use(
    tmp_path: Path, closed: tuple[PersistedState, dict[str, Any]], use: Callable[[Any], Any]
) -> None:
    _, held = closed
    attribute = use is BELOW["dict attribute"]
    error = refuses(tmp_path, lambda: use(held), ClosedAttributeError if attribute else ClosedError, ValueError)
    assert str(tmp_path / "state.yaml") == error.path
    sentences(str(error), f"{error.path}: ", r"close\(\)", "Nothing was changed", "Open it again")


def test_what_debuggers_and_log_lines_ask_of_a_closed_state_is_answered_without_an_old_value(tmp_path: Path) -> None:
    path = tmp_path / "state.yaml"
    state = PersistedState(path, counter=3, d={"x": 1}, e={}, l=[1, 2], s={1, 2})
    other = PersistedState(path.with_name("other.yaml"), d={"x": 1})
    still_open = other.d
    nodes = [state, state.d, state.e, state.l, state.s]
    nodes += [view() for node in (state, state.d) for view in (node.keys, node.values, node.items)]
    state.close()

    with nothing_changes(tmp_path):
        for node in nodes:
            said = f"<{type(node).__name__} of {str(path)!r}, closed>"
            assert [said] * 4 == [repr(node), str(node), f"{node}", f"{node!r}"]
            assert said in logging.LogRecord("n", 1, "p", 1, "%s", (node,), None).getMessage()
            assert said in pprint.pformat([node])
            assert node
            for plain in ({}, {"x": 1}, [], [1, 2], set(), {1, 2}, still_open, None, other.keys()):
                assert (False, False) == (node == plain, plain == node)
                assert (True, True) == (node != plain, plain != node)
            assert [node] == [another for another in nodes if another == node or node == another]
            assert not node != node  # noqa: SIM202 - that is what is tried
            for name in ("counter", "x", "missing", "_thread_lock", "_ipython_display_", "__wrapped__"):
                assert not hasattr(node, name)
                assert getattr(node, name, 5) == 5
            assert {"__repr__", "__len__"} <= set(dir(node))
            assert "counter" not in dir(node)
            assert inspect.getmembers(node)  # asks for everything that `dir` names
    other.close()


def test_a_state_that_is_not_open_yet_or_could_not_be_opened_answers_in_the_same_way(tmp_path: Path) -> None:
    """It is what a traceback with the variables of its frames shows."""
    early: list[Any] = []

    class App(PersistedState):
        def __init__(self, path: Path) -> None:
            early.append((repr(self), bool(self), self == {}, self != {}, hasattr(self, "n"), "n" in dir(self)))
            for use in (lambda: self.n, lambda: self["n"], lambda: len(self), lambda: setattr(self, "n", 1)):
                with pytest.raises(ClosedError, match=r"before it was opened.*super\(\).__init__") as caught:
                    use()
                assert "" == caught.value.path
            super().__init__(path)

    with App(tmp_path / "state.yaml") as state:
        state.n = 1
    assert [("<App, not open>", True, False, True, False, False)] == early

    (tmp_path / "broken.yaml").write_text("a: [")
    for path in (tmp_path / "missing" / "state.yaml", tmp_path / "broken.yaml"):
        with pytest.raises(PStateError) as caught:
            App(path)
        found = [frame.frame.f_locals.get("self") for frame in caught.traceback]
        assert "<App, not open>" in map(repr, found)


def test_closing_twice_and_leaving_after_close_is_fine(tmp_path: Path) -> None:
    with PersistedState(tmp_path / "state.yaml", n=1) as state:
        state.close()
        with nothing_changes(tmp_path):
            state.close()
    with pytest.raises(ClosedError):
        state.n
    with PersistedState(tmp_path / "state.yaml") as again:
        assert 1 == again.n


def test_a_decorated_function_after_close(tmp_path: Path) -> None:
    state = PersistedState(tmp_path / "state.yaml", n=1)

    @state.transaction()
    def step() -> None:
        state.n += 1

    step()
    state.close()
    refuses(tmp_path, step, ClosedError, ValueError)


def test_close_and_vacuum_inside_a_transaction_are_refused(tmp_path: Path) -> None:
    with PersistedState(tmp_path / "state.yaml", n=1) as state:
        with state.transaction():
            state.n = 2
            for call in (state.close, state.vacuum):
                error = refuses(tmp_path, call, TransactionError, RuntimeError)
                sentences(str(error), str(tmp_path / "state.yaml"), "transaction", "Nothing was", "Leave the block")
        assert 2 == state.n


# ---------------------------------------------------------------------- references that another process removed


@pytest.mark.parametrize(
    ("take", "change", "removal"),
    [
        pytest.param("state.d", lambda c: c.__setitem__("x", 2), "del state['d']", id="dict deleted"),
        pytest.param("state.d", lambda c: c.update(x=2), "state.d = {'x': 1}", id="dict replaced"),
        pytest.param("state.l", lambda c: c.append(1), "state.pop('l')", id="list popped"),
        pytest.param("state.s", lambda c: c.add(1), "state.clear()", id="set cleared away"),
        pytest.param("state.l[0]", lambda c: c.append(1), "del state.l[0]", id="element deleted"),
        pytest.param("state.l[0]", lambda c: c.clear(), "state.l[:] = [[1]]", id="element replaced"),
        pytest.param("state.d['deep']", lambda c: c.append(1), "del state['d']", id="what is around it deleted"),
    ],
)
def test_a_reference_that_another_process_removed_refuses_changes(
    tmp_path: Path, take: str, change: Callable[[Any], Any], removal: str
) -> None:
    """Silently changing something that is in no state would lose the change."""
    path = tmp_path / "state.yaml"
    with PersistedState(path, d={"x": 1, "deep": [1]}, l=[[1], [2]], s={1}, other=0) as state:
        held = eval(take, {"state": state})
        done = python(f"with PersistedState(PATH) as state:\n    {removal}\n    os._exit(0)", path)
        assert (0, "") == (done.returncode, done.stderr)
        error = refuses(tmp_path, lambda: change(held), RemovedError, ReferenceError)
        sentences(str(error), f"{path}: ", "another process", "Nothing was changed", "again")
        assert str(path) == error.path
        state.other = 1
        assert 1 == state.other


# ---------------------------------------------------------------------- values that cannot be stored


class Colour(Enum):
    RED = 1


class Text(str):
    pass


@dataclass
class Job:
    at: int = 1


class Odd:
    __slots__ = ()


CYCLE: list[Any] = [1]
CYCLE.append(CYCLE)
CYCLIC: dict[str, Any] = {}
CYCLIC["self"] = {"again": [CYCLIC]}
DEEP: list[Any] = []
for _ in range(150):
    DEEP = [DEEP]


@pytest.mark.parametrize(
    ("value", "kind", "words"),
    [
        pytest.param(object(), UnsupportedTypeError, "object cannot be stored", id="object"),
        pytest.param(Odd(), UnsupportedTypeError, "Odd cannot be stored", id="slots"),
        pytest.param(Job(), UnsupportedTypeError, "dataclasses.asdict", id="dataclass"),
        pytest.param(Colour.RED, UnsupportedTypeError, r"value\.value", id="enum"),
        pytest.param(Text("a"), UnsupportedTypeError, r"str\(value\)", id="subclass of str"),
        pytest.param(Decimal("1.5"), UnsupportedTypeError, r"str\(value\)", id="Decimal"),
        pytest.param(Fraction(1, 2), UnsupportedTypeError, r"str\(value\)", id="Fraction"),
        pytest.param(UUID(int=1), UnsupportedTypeError, r"str\(value\)", id="UUID"),
        pytest.param(Path("x"), UnsupportedTypeError, r"str\(value\)", id="Path"),
        pytest.param(time(1, 2), UnsupportedTypeError, r"isoformat\(\)", id="time"),
        pytest.param(timedelta(1), UnsupportedTypeError, r"total_seconds\(\)", id="timedelta"),
        pytest.param(1j, UnsupportedTypeError, "real", id="complex"),
        pytest.param(bytearray(b"x"), UnsupportedTypeError, r"bytes\(value\)", id="bytearray"),
        pytest.param(range(3), UnsupportedTypeError, r"list\(value\)", id="range"),
        pytest.param((n for n in range(3)), UnsupportedTypeError, r"list\(value\)", id="generator"),
        pytest.param(len, UnsupportedTypeError, "cannot be stored", id="function"),
        pytest.param(int, UnsupportedTypeError, "cannot be stored", id="class"),
        pytest.param(re.compile("x"), UnsupportedTypeError, "pattern", id="pattern"),
        pytest.param(ValueError("x"), UnsupportedTypeError, r"str\(value\)", id="exception"),
        pytest.param("a\ud800b", UnsupportedValueError, "surrogate", id="lone surrogate"),
        pytest.param(CYCLE, UnsupportedValueError, "cyclic", id="cyclic list"),
        pytest.param(CYCLIC, UnsupportedValueError, "cyclic", id="cyclic dict"),
        pytest.param(DEEP, UnsupportedValueError, "100 levels", id="too deep"),
        pytest.param({(1, 2): 1}, UnsupportedTypeError, "tuple cannot be a dict key", id="tuple as key"),
        pytest.param({float("nan"): 1}, UnsupportedValueError, "NaN cannot be a key", id="NaN as key"),
        pytest.param({"a\udfff": 1}, UnsupportedValueError, "key .*surrogate", id="surrogate in a key"),
        pytest.param({Colour.RED: 1}, UnsupportedTypeError, r"key\.value", id="enum as key"),
        pytest.param({frozenset({1})}, UnsupportedTypeError, "cannot be a set member", id="set in a set"),
        pytest.param({(1,)}, UnsupportedTypeError, "tuple cannot be a set member", id="tuple in a set"),
        pytest.param(
            datetime(1, 1, 1, tzinfo=timezone(timedelta(seconds=30))), UnsupportedValueError, "offset with seconds",
            id="moment before the year 1",
        ),
    ],
)  # fmt: skip
@pytest.mark.parametrize("journal", [False, True], ids=["clean", "with a journal"])
def test_a_value_that_is_no_state_is_refused_and_named(
    tmp_path: Path, value: Any, kind: type[PStateError], words: str, journal: bool
) -> None:
    """By every way in: the error names the place and what to store instead, nothing changes, in memory or on disk."""
    path = tmp_path / "state.yaml"
    path.write_bytes(b"jobs: [{at: 1}, {}, {}, {}]\nd: {}\nplain: 1\nmembers: !!set {a}\n")
    builtin = TypeError if kind is UnsupportedTypeError else ValueError
    with PersistedState.open(path) as state:
        if journal:
            state.plain = 2
        before = state.snapshot()
        calls: list[tuple[str, Callable[[], Any]]] = [
            ("state.x", lambda: setattr(state, "x", value)),
            ("state.x", lambda: state.__setitem__("x", value)),
            ("state.jobs[3].at", lambda: state.jobs[3].__setitem__("at", value)),
            ("state.jobs", lambda: state.jobs.append(value)),
            ("state.jobs", lambda: state.jobs.insert(0, value)),
            ("state.jobs", lambda: state.jobs.extend([1, value])),
            ("state.jobs", lambda: state.jobs.__setitem__(slice(0, 1), [value])),
            ("state.d", lambda: state.d.update({"a b": 1, "c": {"e": [0, value]}})),
            ("state.d", lambda: state.d.setdefault("c", value)),
            ("state.x", lambda: setattr(state, "x", {"ok": 1, "bad": [1, value]})),
        ]
        for place, call in calls:
            error = refuses(tmp_path, call, kind, builtin)
            assert error.place.startswith(place), (error.place, place)
            sentences(str(error), f"{error.place}: ", words)
            assert "Nothing was changed" in str(error)
            assert before == state.snapshot()
        with suppress(kind), state.transaction():
            state.plain = 99
            state.x = value
        assert before == state.snapshot()
        error = refuses(tmp_path, lambda: setattr(state, "x", {"ok": 1, "bad": [1, value]}), kind, builtin)
        assert error.place.startswith("state.x.bad[1]")


def test_places_are_written_as_a_program_would(tmp_path: Path) -> None:
    with PersistedState(tmp_path / "state.yaml", jobs=[{}, {"not an identifier": {}, 3: {}}]) as state:
        for container, key, place in [
            (state.jobs[1]["not an identifier"], "at", 'state.jobs[1]["not an identifier"].at'),
            (state.jobs[1][3], "items", 'state.jobs[1][3]["items"]'),
            (state.jobs[0], "class", 'state.jobs[0]["class"]'),
            (state.jobs[0], None, "state.jobs[0][None]"),
            (state.jobs[0], 7, "state.jobs[0][7]"),
        ]:
            with pytest.raises(UnsupportedTypeError) as caught:
                container[key] = object()
            assert place == caught.value.place
            assert str(caught.value).startswith(f"{place}: ")


@pytest.mark.parametrize(
    "key",
    [(1, 2), frozenset({1}), Colour.RED, Text("x"), Decimal(1), object()],
    ids=lambda value: re.sub(" at 0x.*", "", repr(value)),
)
def test_a_key_that_is_no_scalar_is_refused(tmp_path: Path, key: Any) -> None:
    with PersistedState(tmp_path / "state.yaml", d={}, s={1}) as state:
        for call in (
            lambda: state.__setitem__(key, 1),
            lambda: state.d.__setitem__(key, 1),
            lambda: state.d.setdefault(key, 1),
            lambda: state.d.update({key: 1}),
            lambda: state.s.add(key),
            lambda: state.s.update([2, key]),
        ):
            error = refuses(tmp_path, call, UnsupportedTypeError, TypeError)
            assert "Nothing was changed" in str(error)
        assert {"d": {}, "s": {1}} == state.snapshot()


def test_accepted_relatives_of_the_plain_types(tmp_path: Path) -> None:
    """Not everything that is not exactly plain is refused: tuples, frozensets and ordered dicts are copied in."""
    with PersistedState(tmp_path / "state.yaml") as state:
        state.x = {"t": (1, 2), "f": frozenset({1}), "o": OrderedDict(a=1)}
        state.moment = datetime(2024, 1, 1, 12, 0, tzinfo=UTC)
        assert {"t": [1, 2], "f": {1}, "o": {"a": 1}} == state.x


def test_a_refused_call_on_a_missing_place_writes_nothing(tmp_path: Path) -> None:
    """The mistakes that `persistedstate` journaled all the same."""
    path = tmp_path / "state.yaml"
    with PersistedState(path, d={}, l=[1], s={1}) as state:
        state.touched = 1
        calls: list[tuple[type[Exception], Callable[[], Any]]] = [
            (KeyError, lambda: state.__delitem__("missing")),
            (KeyError, lambda: state.pop("missing")),
            (KeyError, lambda: state.d.__delitem__("missing")),
            (KeyError, state.d.popitem),
            (IndexError, lambda: state.l.__setitem__(5, 9)),
            (IndexError, lambda: state.l.__delitem__(5)),
            (IndexError, lambda: state.l.pop(5)),
            (ValueError, lambda: state.l.remove(9)),
            (ValueError, lambda: state.l.__setitem__(slice(None, None, 2), [1, 2, 3])),
            (TypeError, lambda: state.l.__setitem__("x", 9)),
            (KeyError, lambda: state.s.remove(9)),
            (TypeError, lambda: state.l.extend(3)),
            (TypeError, lambda: state.update(3)),
        ]
        for kind, call in calls:
            with nothing_changes(tmp_path), pytest.raises(kind):
                call()
        assert {"d": {}, "l": [1], "s": {1}, "touched": 1} == state.snapshot()
