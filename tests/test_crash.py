"""Death, damage and failing systems, at every byte and at every system call.

The state file is judged from outside: by a second opener, by stock YAML loaders, and by what is left in the folder.
"""

from __future__ import annotations

import errno
import logging
import os
import re
import stat
import traceback
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any
from zlib import crc32

import pytest
import yaml
from tools.crash import KILLED, LOADERS, Dying, FailingAt, State, in_child, opened, peek, plain_document, replayed
from tools.disks import Disk, Failing, Rebooted, Seam, spare_the_disk

from pstate import (
    CorruptStateError,
    DurabilityUnknown,
    EditConflict,
    InvalidEditError,
    PersistedState,
    PStateError,
    StateFileError,
    StoreFailedError,
    WriteError,
)
from pstate.file import format as f
from pstate.file.fs import SYSTEM, FileSystem
from pstate.values import same

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="children are forked here")


@pytest.fixture(autouse=True, scope="module")
def cheap_syncs() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        for name in ("sync", "sync_data", "sync_folder"):
            patch.setattr(SYSTEM, name, getattr(SYSTEM, name))
        spare_the_disk(SYSTEM)
        yield


BASE = b"# the file of a program\ncounter: 3  # how far\nkey:\n  nested: 2\nlog: []\n"


def commits_of_several_shapes(state: PersistedState) -> Iterator[None]:
    """One commit per step."""
    state["counter"] = 4
    yield
    state["key"]["nested"] = {"deep": [1, 2.5e300, None]}
    yield
    state["log"].extend(["a", "b", "c"])
    yield
    with state.transaction():
        state["counter"] += 1
        state["log"].insert(0, "both, or neither")
        del state["key"]["nested"]["deep"][1]
    yield
    state["log"].sort(reverse=True)
    yield
    state["seen"] = {1, "\u00e9\U0001f600\u2028", b"\0\xff", date(2024, 2, 29)}
    yield
    state["seen"].discard(1)
    yield
    state[3] = datetime(2024, 2, 29, 12, tzinfo=UTC)
    yield
    state["t" * 1100] = float("nan")
    yield
    del state["key"]
    yield


@dataclass
class History:
    """What a process committed before it died."""

    data: bytes
    ends: list[int]  #: where each commit ends in the file, the first is the base document
    states: list[State]  #: the state at each of them

    def at(self, length: int) -> State:
        """The state of the first *length* bytes."""
        return self.states[max(n for n, end in enumerate(self.ends) if end <= max(length, self.ends[0]))]


def history_of(
    path: Path, steps: Callable[[PersistedState], Iterator[None]], base: bytes = BASE, **options: Any
) -> History:
    path.write_bytes(base)
    state = PersistedState.open(path, **options)
    history = History(b"", [len(base)], [state.snapshot()])
    for _ in steps(state):
        history.ends.append(path.stat().st_size)
        history.states.append(state.snapshot())
    history.data = path.read_bytes()
    state.close()
    path.unlink()
    return history


@pytest.fixture(scope="module")
def history(tmp_path_factory: pytest.TempPathFactory) -> History:
    return history_of(tmp_path_factory.mktemp("history") / "state.yaml", commits_of_several_shapes)


def a_few_commits(state: PersistedState) -> Iterator[None]:
    state["counter"] = 4
    yield
    state["key"]["nested"] = 3
    yield
    with state.transaction():
        state["counter"] = 5
        state["log"].append("x")
    yield


@pytest.fixture(scope="module")
def short(tmp_path_factory: pytest.TempPathFactory) -> History:
    base = b"counter: 3\nkey:\n  nested: 2\nlog: []\n"
    return history_of(tmp_path_factory.mktemp("short") / "state.yaml", a_few_commits, base)


# ------------------------------------------------------------------ every cut


def test_the_journal_says_the_same_to_every_stock_loader(history: History) -> None:
    for name, loader in LOADERS.items():
        for end, state in zip(history.ends, history.states, strict=True):
            assert same(state, replayed(history.data[:end], loader)), (name, end)


def test_every_cut_of_a_journal_opens_as_a_prefix_of_the_commits(history: History, tmp_path: Path) -> None:
    """And a reader writes nothing."""
    path = tmp_path / "state.yaml"
    for cut in range(history.ends[0], len(history.data) + 1):
        path.write_bytes(history.data[:cut])
        assert same(history.at(cut), peek(path)), cut


@pytest.mark.parametrize("part", range(4))
def test_after_every_cut_the_next_writer_goes_on_and_says_what_it_cut(
    history: History, tmp_path: Path, caplog: pytest.LogCaptureFixture, part: int
) -> None:
    path = tmp_path / "state.yaml"
    for cut in range(history.ends[0] + part, len(history.data) + 1, 4):
        caplog.clear()
        path.write_bytes(history.data[:cut])
        state = PersistedState(path)
        assert same(history.at(cut), state.snapshot()), cut
        state["after"] = cut
        assert same({**history.at(cut), "after": cut}, replayed(path.read_bytes())), cut
        state.close()
        assert same({**history.at(cut), "after": cut}, plain_document(path.read_bytes())), cut
        end = max(end for end in history.ends if end <= cut)
        warnings = [r.getMessage() for r in caplog.records if r.levelno >= logging.WARNING]
        if cut == end or history.data[end:cut] in (
            b"...",
            b"... ",
        ):  # which a person may write too, and which changes no value
            assert warnings == []
        else:
            assert len(warnings) == 1, cut
            assert str(path) in warnings[0]
            assert re.search(rf"\b{cut - end} bytes\b", warnings[0]), warnings
            assert re.search(rf"\boffset {end}\b", warnings[0]), warnings
    assert ["state.yaml"] == os.listdir(tmp_path)


@pytest.mark.parametrize("base", [b"", b"# only a comment\n", b"\n\n", b"a: 1\n", b"{}\n", b"a: '...'\n"])
def test_every_cut_of_a_first_commit(base: bytes, tmp_path: Path) -> None:
    def step(state: PersistedState) -> Iterator[None]:
        state["first"] = 1
        yield

    history = history_of(tmp_path / "whole.yaml", step, base)
    path = tmp_path / "state.yaml"
    for cut in range(len(base), len(history.data) + 1):
        path.write_bytes(history.data[:cut])
        expected = history.states[cut == len(history.data)]
        assert same(expected, peek(path)), cut
        state = PersistedState(path)
        assert same(expected, state.snapshot()), cut
        state["second"] = 2
        assert same({**expected, "second": 2}, replayed(path.read_bytes())), cut
        if base.startswith(b"#") and not history.data[:cut].endswith((b"\n...", b"\n... ")):
            assert path.read_bytes().startswith(base)
        state.close()
        assert same({**expected, "second": 2}, plain_document(path.read_bytes())), cut


def test_a_writer_that_is_open_cuts_what_another_left(history: History, tmp_path: Path) -> None:
    """The torn tail of a process that died, seen by one that lives."""
    path = tmp_path / "state.yaml"
    end, cut = history.ends[3], history.ends[4]
    path.write_bytes(history.data[:end])
    state = PersistedState(path)
    body = history.data[end + len(b"--- ") : cut].partition(b"\n")[0].decode()
    for length in range(1, cut - end, 7):
        record, _ = f.encode_record(body, state._store.view[2])
        with open(path, "ab") as file:
            file.write(record[:length])
        assert same(history.states[3], {k: v for k, v in state.snapshot().items() if k != "after"})
        state["after"] = length
        assert same({**history.states[3], "after": length}, replayed(path.read_bytes()))
    state.close()


# ------------------------------------------------------------------ every bit


def flips(data: bytes, start: int, stop: int) -> Iterator[tuple[int, bytes]]:
    for offset in range(start, stop):
        for bit in range(8):
            yield offset, data[:offset] + bytes([data[offset] ^ 1 << bit]) + data[offset + 1 :]


def outcome(path: Path, data: bytes) -> State | Exception:
    """What opening a file with these bytes gives; after an error, it must be untouched."""
    path.write_bytes(data)
    refusal: StateFileError
    try:
        return peek(path)
    except StateFileError as error:
        refusal = error
    assert data == path.read_bytes()
    assert str(path) in str(refusal)
    return refusal


def test_every_bit_flip_in_the_document_under_a_journal_is_an_error(short: History, tmp_path: Path) -> None:
    """Whether a person did it or the disk: the journal was written for another document, and nobody guesses."""
    path = tmp_path / "state.yaml"
    for offset, data in flips(short.data, 0, short.ends[0]):
        found = outcome(path, data)
        if offset == short.ends[0] - 1:
            assert isinstance(found, StateFileError), (offset, data, found)  # the marker does not begin a line any more
        else:
            assert isinstance(found, EditConflict), (offset, data, found)
            assert found.path == str(path)
            assert found.line == data[: short.ends[0]].count(b"\n") + 1


def test_every_bit_flip_in_the_base_marker_is_an_error_or_harmless(short: History, tmp_path: Path) -> None:
    path = tmp_path / "state.yaml"
    stop = short.data.index(b"\n", short.ends[0]) + 1
    for offset, data in flips(short.data, short.ends[0], stop):
        found = outcome(path, data)
        if not isinstance(found, StateFileError):
            assert same(short.states[-1], found), (offset, data)


@pytest.mark.parametrize("index", [1, 2])
def test_every_bit_flip_before_a_commit_is_an_error(short: History, tmp_path: Path, index: int) -> None:
    path = tmp_path / "state.yaml"
    start = short.data.index(b"\n", short.ends[0]) + 1 if index == 1 else short.ends[index - 1]
    for offset, data in flips(short.data, start, short.ends[index]):
        found = outcome(path, data)
        assert isinstance(found, CorruptStateError), (offset, data, found)
        assert (str(path), start, index - 1) == (found.path, found.offset, found.index)
        assert found.line == short.data[:start].count(b"\n") + 1
        assert found.following >= 1
        assert f"{path}:{found.line}" in str(found)


def test_every_bit_flip_in_the_last_record_is_an_error(short: History, tmp_path: Path) -> None:
    """It was acknowledged: a write that did not end would have left the beginning of it."""
    path = tmp_path / "state.yaml"
    for offset, data in flips(short.data, short.ends[-2], len(short.data)):
        found = outcome(path, data)
        assert isinstance(found, CorruptStateError), (offset, data, found)
        assert (short.ends[-2], len(short.ends) - 2, 0) == (found.offset, found.index, found.following)


def test_a_bit_flip_in_a_closed_file_is_read_as_it_stands_or_refused(tmp_path: Path) -> None:
    path = tmp_path / "state.yaml"
    data = b"counter: 3\nkey:\n  nested: [1, 'a']\n"
    for _, changed in flips(data, 0, len(data)):
        found = outcome(path, changed)
        if not isinstance(found, Exception):
            expected = yaml.load(changed, getattr(yaml, "CSafeLoader", yaml.SafeLoader))
            assert same({} if expected is None else expected, found), changed


def test_damage_before_a_commit_is_an_error_for_everybody(history: History, tmp_path: Path) -> None:
    """For a new opener, and for one that lives: it serves the last good state and writes nothing."""
    path = tmp_path / "state.yaml"
    good, bad, behind = (
        history.data[: history.ends[3]],
        history.ends[3],
        history.data[history.ends[4] : history.ends[5]],
    )
    record = bytearray(history.data[bad : history.ends[4]])
    record[10] ^= 1
    path.write_bytes(good)
    state = PersistedState(path)
    assert same(history.states[3], state.snapshot())
    with open(path, "ab") as file:
        file.write(record + behind)
    damaged = path.read_bytes()

    assert same(history.states[3], state.snapshot())
    with pytest.raises(CorruptStateError) as caught:
        state["after"] = 1
    assert damaged == path.read_bytes()
    assert (caught.value.offset, caught.value.index, caught.value.following) == (bad, 3, 1)
    (tmp_path / "elsewhere").mkdir()
    with pytest.raises(CorruptStateError):
        opened(damaged, tmp_path / "elsewhere")
    assert same(history.states[3], state.snapshot())
    state.close()
    assert damaged == path.read_bytes()
    assert {"state.yaml", "elsewhere"} == set(os.listdir(tmp_path))


def in_two(data: bytes, ends: list[int], length: int) -> bytes:
    """From the middle of the last but one record to the beginning of the last one, all is zeros."""
    return data[: ends[-3] + length] + bytes(ends[-2] - ends[-3] - length) + data[ends[-2] :]


#: What no write of ours leaves after the last good commit.
NO_TAILS: dict[str, Callable[[History], bytes]] = {
    "10": lambda history: in_two(history.data, history.ends, 10),
    "23": lambda history: in_two(history.data, history.ends, 23),
    "zeros": lambda history: history.data + bytes(600),
    "a line": lambda history: history.data + b"note: mine\n",
    "no newline": lambda history: history.data + b"note",
    "a record": lambda history: history.data + b'--- [["set",[],"n",1]]\n... # 0123abcd\n',
    "a body and zeros": lambda history: history.data + b'--- [["set",[],"n",1]]' + bytes(9),
    "a base marker": lambda history: history.data + b"... # pstate 1 5f2c81d0 0000000011 8d61214e 0123abcd p\n",
    "a trailer twice": lambda history: history.data + 2 * f.Trailer("5f2c81d0", 1, 0, 1, 0).encode(),
    "half of a body, and a newline": lambda history: history.data + b'--- [["set",[],"n\n',
    "the last newline": lambda history: history.data[:-1] + b"\x0b",
}


@pytest.mark.parametrize("tail", NO_TAILS)
def test_what_no_write_leaves_is_an_error_and_stays(history: History, tmp_path: Path, tail: str) -> None:
    """For a new opener, `read_only` too, and for one that lives; no byte changes, and nothing is put beside."""
    path = tmp_path / "state.yaml"
    data = NO_TAILS[tail](history)
    path.write_bytes(history.data)
    living = PersistedState(path)
    assert same(history.states[-1], living.snapshot())
    path.write_bytes(data)
    for read_only in (True, False):
        with pytest.raises(CorruptStateError) as caught:
            PersistedState.open(path, read_only=read_only, fs=FileSystem())
        assert str(path) in str(caught.value)
        assert caught.value.offset == f.scan(data).end
    with pytest.raises((CorruptStateError, InvalidEditError)):
        # A change of the same size in the middle is noticed at the vacuum at the latest.
        living.vacuum() if len(data) == len(history.data) else living.update(after=1)
    assert same(history.states[-1], living.snapshot())
    assert data == path.read_bytes()
    assert ["state.yaml"] == os.listdir(tmp_path)

    path.write_bytes(history.data)
    living["after"] = 1
    assert same({**history.states[-1], "after": 1}, replayed(path.read_bytes()))
    living.close()


def test_a_reader_that_meets_a_writer_who_cuts_reads_again(short: History, tmp_path: Path) -> None:
    """It waits for no lock, so its bytes may be of two moments."""

    mixed = [short.data[:-9] + bytes(9)]

    def meet(name: str, fd: int, length: int, offset: int) -> bytes | None:
        return (mixed.pop()[offset : offset + length] or None) if mixed else None

    path = tmp_path / "state.yaml"
    path.write_bytes(short.data)
    fs = Disk("pread")
    fs.before = meet
    with PersistedState.open(path, read_only=True, fs=fs) as state:
        assert same(short.states[-1], state.snapshot())


# ------------------------------------------------------------------ after a power cut


def with_hole(history: History, index: int) -> bytes:
    start, stop = history.ends[index], history.ends[index + 1]
    return history.data[:start] + b"\0" * (stop - start) + history.data[stop:]


@pytest.mark.parametrize("index", [0, 2, 5])
def test_a_hole_after_another_boot_is_a_prefix_and_the_rest_is_kept(
    history: History, tmp_path: Path, caplog: pytest.LogCaptureFixture, index: int
) -> None:
    """Unsynced blocks reach the disk in any order, so a power cut leaves holes before good records."""
    path = tmp_path / "state.yaml"
    start = max(history.ends[index], history.data.index(b"\n", history.ends[0]) + 1)
    stop = history.ends[index + 1]
    data = history.data[:start] + b"\0" * (stop - start) + history.data[stop:]
    path.write_bytes(data)
    assert same(history.states[index], peek(path, fs=Rebooted()))

    state = PersistedState.open(path, fs=Rebooted())
    assert same(history.states[index], state.snapshot())
    state["after"] = 1
    state.close()
    assert same({**history.states[index], "after": 1}, plain_document(path.read_bytes()))
    generation = re.search(rb"# pstate \d+ ([0-9a-f]{8})", data)
    assert generation
    kept = tmp_path / f"state.yaml.cut-{generation[1].decode()}"
    assert {"state.yaml", kept.name} == set(os.listdir(tmp_path))
    assert kept.read_bytes() == data[start:]
    errors = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    assert any(str(len(data) - start) in error and str(kept) in error for error in errors), errors


@pytest.mark.parametrize(
    "more", [b"", b'--- [["set",[],"b",2]]\n... # 0123abcd\n'], ids=["alone", "with a record after it"]
)
def test_zeros_where_the_first_commit_should_be_are_a_hole(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, more: bytes
) -> None:
    """The boot id that would tell of a power cut is lost with the marker; nothing is thrown away."""
    path = tmp_path / "state.yaml"
    data = b"a: 1\n" + b"\0" * 507 + more
    path.write_bytes(data)
    assert {"a": 1} == peek(path)
    assert data == path.read_bytes()

    with PersistedState(path) as state:
        assert {"a": 1} == state
        state["after"] = 1

    assert {"a": 1, "after": 1} == plain_document(path.read_bytes())
    kept = [name for name in os.listdir(tmp_path) if name.startswith("state.yaml.cut-")]
    assert [data[5:]] * bool(more) == [(tmp_path / name).read_bytes() for name in kept]
    (said,) = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    assert f"{len(data) - 5} bytes" in said
    assert "offset 5" in said


def test_a_hole_within_one_boot_is_damage(history: History, tmp_path: Path) -> None:
    with pytest.raises(CorruptStateError):
        opened(with_hole(history, 2), tmp_path)


def test_a_hole_after_another_boot_is_damage_when_every_commit_was_synced(tmp_path: Path) -> None:
    history = history_of(tmp_path / "state.yaml", a_few_commits, durability="power")
    data = with_hole(history, 1)
    path = tmp_path / "state.yaml"
    path.write_bytes(data)
    with pytest.raises(CorruptStateError):
        PersistedState.open(path, fs=Rebooted())
    assert data == path.read_bytes()
    # The last record may have been under way.
    assert same(history.states[-2], opened(with_hole(history, 2), tmp_path, fs=Rebooted()))


def test_a_system_without_a_boot_id_forgives_no_hole(history: History, tmp_path: Path) -> None:
    with pytest.raises(CorruptStateError):
        opened(with_hole(history, 2), tmp_path, fs=Rebooted("00000000"))
    unknown = re.sub(rb"( [0-9a-f]{8}) p\n", b" 00000000 p\n", with_hole(history, 2), count=1)
    with pytest.raises(CorruptStateError):
        opened(unknown, tmp_path, fs=Rebooted())


def test_a_generation_is_never_that_of_the_journal_before(tmp_path: Path) -> None:
    """Records of an old journal, in blocks that a power cut brings back, would be valid in the new one."""
    fs = FileSystem()
    tokens = iter(["00000000", "11111111", "11111111", "22222222"])
    fs.token = lambda: next(tokens)  # type: ignore[method-assign]
    path = tmp_path / "state.yaml"
    state = PersistedState.open(path, fs=fs)
    state["a"] = 1
    assert b"# pstate 1 11111111 " in path.read_bytes()
    state.vacuum()
    state["a"] = 2
    assert b"# pstate 1 22222222 " in path.read_bytes()
    state.close()


def test_what_is_kept_beside_is_on_the_disk_before_it_is_cut(tmp_path: Path) -> None:
    path = tmp_path / "state.yaml"
    writer = PersistedState.open(path, fs=FileSystem())
    for n in range(4):
        writer["n"] = n
    data = path.read_bytes()
    writer.close()
    lines = data.splitlines(keepends=True)
    lines[4] = b"\0" * len(lines[4])
    path.write_bytes(b"".join(lines))
    fs = Seam()
    fs.boot_id = Rebooted().boot_id  # type: ignore[method-assign]
    fs.armed = True
    state = PersistedState.open(path, fs=fs)
    cut = fs.calls.index("truncate")
    assert ["write", "sync", "close"] == fs.calls[cut - 3 : cut]
    state.close()


# ------------------------------------------------------------------ documents that a journal may follow

BASES = {
    "empty": b"",
    "blank": b"\n \n\n",
    "comment only": b"# nothing yet\n",
    "comment only, no newline": b"# nothing yet",
    "plain": b"a: 1  # one\n",
    "no trailing newline": b"# head\na: 1",
    "comment at the end": b"a: 1\n# the end\n",
    "comment at the end, no newline": b"a: 1\n# the end",
    "key without a value": b"a:\n",
    "key without a value, no newline": b"a:",
    "flow": b"{a: 1}\n",
    "flow, no newline": b"{a: 1}",
    "literal": b"a: |\n  t\n",
    "literal, no newline": b"a: |\n  t",
    "literal keep, no newline": b"a: |+\n  t",
    "literal keep, blank lines": b"a: |+\n  t\n\n\n",
    "literal keep, spaces at the end": b"a: |+\n  t\n  ",
    "literal strip, no newline": b"a: |-\n  t",
    "folded": b"a: >\n  t\n  u\n",
    "folded, no newline": b"a: >\n  t\n  u",
    "empty literal": b"a: |\n",
    "quoted over lines": b'a: "t\n  u"\n',
    "own end": b"a: 1\n...\n",
    "own end, no newline": b"a: 1\n...",
    "own end with a comment": b"a: 1\n... # done\n",
    "own start": b"---\na: 1\n",
    "own start and end": b"---\na: 1\n...\n",
    "own start, empty": b"---\n",
    "%YAML": b"%YAML 1.1\n---\na: 1\n",
    "%TAG": b"%TAG !e! tag:example.org,2000:\n---\na: 1\n",
    "null": b"~\n",
    "byte order mark": b"\xef\xbb\xbfa: 1\n",
    "byte order mark only": b"\xef\xbb\xbf",
    "byte order mark and comment": b"\xef\xbb\xbf# nothing\n",
    "CRLF": b"a: 1\r\nb: 2\r\n",
    "CRLF, comment only": b"# nothing\r\n",
    "CRLF, literal": b"a: |\r\n  t\r\n",
    "CRLF, no newline": b"a: 1\r\nb: 2",
    "anchors and merge keys": b"x: &x {p: 1}\ny: *x\nz:\n  <<: *x\n  q: 2\n",
    "marker in a string": b"a: \"... # pstate 1\"\nb: '--- [1]'\n",
    "marker in a comment": b"a: 1\n # ... # pstate 1 x\n",
}


@pytest.mark.parametrize("base", BASES.values(), ids=BASES)
def test_first_commit_on_any_document(base: bytes, tmp_path: Path) -> None:
    """Every stock loader finds it after a crash, and changes nothing else."""
    path = tmp_path / "state.yaml"
    path.write_bytes(base)
    before = yaml.safe_load(base) or {}
    assert same(before, peek(path))

    def two_commits() -> None:
        state = PersistedState(path)
        assert path.read_bytes() == base, "opening has written"
        state["new"] = [1]
        state["new"].append(2)
        os._exit(KILLED)

    assert in_child(two_commits) == KILLED
    data = path.read_bytes()
    expected = {**before, "new": [1, 2]}
    for name, loader in LOADERS.items():
        assert same(expected, replayed(data, loader)), (name, data)
    assert ["state.yaml"] == os.listdir(tmp_path)
    if data.startswith(base) and b"#" in base:
        assert data[len(base) :].lstrip(b"\n").startswith((b"... # pstate ", b"{}\n... # pstate "))
    if not before and b"#" in base:
        assert base.strip().removeprefix(b"\xef\xbb\xbf") in data, "the comments are gone"
    state = PersistedState(path)
    assert same(expected, state.snapshot())
    state["more"] = 3
    state.close()
    assert same({**expected, "more": 3}, plain_document(path.read_bytes()))


@pytest.mark.parametrize("base", BASES.values(), ids=BASES)
def test_opening_and_closing_changes_no_byte(base: bytes, tmp_path: Path) -> None:
    path = tmp_path / "state.yaml"
    path.write_bytes(base)
    state = PersistedState(path)
    state.snapshot()
    state.close()
    assert base == path.read_bytes()


KEPT = [
    "plain",
    "comment at the end",
    "own start",
    "%YAML",
    "byte order mark",
    "CRLF",
    "anchors and merge keys",
    "literal",
]


@pytest.mark.parametrize("name", KEPT)
def test_the_document_stays_as_a_person_wrote_it_while_the_journal_grows(name: str, tmp_path: Path) -> None:
    path = tmp_path / "state.yaml"
    path.write_bytes(BASES[name])
    state = PersistedState(path)
    state["new"] = 1
    assert path.read_bytes().startswith(BASES[name])
    state.close()


# ------------------------------------------------------------------ death at every system call


@dataclass
class Scenario:
    """Something a program does to a state file; each call that the system sees meanwhile is a place to die at."""

    name: str
    base: bytes | None
    act: Callable[[Any], object]  #: gets the state, or what opens it where `opens`
    change: State  #: what *act* adds to the state
    opens: bool = False
    options: tuple[tuple[str, Any], ...] = ()
    first: Callable[[PersistedState], object] | None = None  #: a commit before, so that there is a journal
    tail: bytes = b""  #: follows the journal
    small_journal: bool = False  #: a vacuum is due at once

    def __str__(self) -> str:
        return self.name


def set_a(state: PersistedState) -> None:
    state["a"] = 2


def set_c(state: PersistedState) -> None:
    state["c"] = 1


def transact(state: PersistedState) -> None:
    with state.transaction():
        state["a"] = 2
        with suppress(KeyError), state.transaction():
            state["gone"] = 1
            raise KeyError
        state["text"] = "x" * 5000


def open_and_set(reopen: Callable[[], PersistedState]) -> None:
    reopen()["a"] = 2


def saved(before: bytes) -> bytes:
    return before.replace(b"a: 1", b"a: 2  # twice")


def save(state: PersistedState) -> None:
    before = Path(state._store.path).read_bytes()
    assert [] == state._store.save(state.snapshot(), saved(before))


def save_above(state: PersistedState) -> None:
    """What a person has made of a copy in which the last commit was not yet."""
    assert [] == state._store.save({"a": 1}, b"# how many\na: 2  # twice\n")


POWER = (("durability", "power"),)
TORN = b'--- [["set",[],"a'
SCENARIOS = [
    Scenario("first commit, empty file", b"", set_a, {"a": 2}),
    Scenario("first commit, only comments", b"# nothing\n", set_a, {"a": 2}),
    Scenario("first commit", b"a: 1\nb: 1\n", set_a, {"a": 2}),
    Scenario("first commit, document rewritten", b"a: 1\nb: |+\n  t", set_a, {"a": 2}),
    Scenario("first commit, new file", None, open_and_set, {"a": 2}, opens=True),
    Scenario("first commit, power", b"a: 1\n", set_a, {"a": 2}, options=POWER),
    Scenario("commit", b"a: 1\n", set_a, {"a": 2}, first=set_c),
    Scenario("commit, power", b"a: 1\n", set_a, {"a": 2}, first=set_c, options=POWER),
    Scenario("commit that vacuums", b"a: 1\n", set_a, {"a": 2}, first=set_c, small_journal=True),
    Scenario("transaction", b"a: 1\n", transact, {"a": 2, "text": "x" * 5000}, first=set_c),
    Scenario("first transaction", b"a: 1\n", transact, {"a": 2, "text": "x" * 5000}),
    Scenario("vacuum", b"a: 1\n", lambda state: state.vacuum(), {}, first=set_c),
    Scenario("vacuum, power", b"a: 1\n", lambda state: state.vacuum(), {}, first=set_c, options=POWER),
    Scenario("vacuum without a journal", b"a: 1\n", lambda state: state.vacuum(), {}),
    Scenario("close", b"a: 1\n", lambda state: state.close(), {}, first=set_c),
    Scenario("save", b"# how many\na: 1\n", save, {"a": 2}),
    Scenario("save, power", b"a: 1\n", save, {"a": 2}, options=POWER),
    Scenario("save above a journal", b"# how many\na: 1\n", save_above, {"a": 2}, first=set_c),
    Scenario("save without a trailer", b"a: 1\nb:\n- 1\n", save, {"a": 2}),
    Scenario("save of what takes no marker", b"b: 1\na: 1", save, {"a": 2}),
    Scenario("open with a torn tail", b"a: 1\n", lambda reopen: reopen(), {}, opens=True, tail=TORN,
             first=set_c),
    Scenario("open with a torn tail and commit", b"a: 1\n", open_and_set, {"a": 2}, opens=True, tail=TORN,
             first=set_c),
    Scenario("commit after a torn tail", b"a: 1\n", set_a, {"a": 2}, tail=TORN, first=set_c),
]  # fmt: skip


#: By the scenario's name, what a process that died after a first commit has left; made once, because forks are dear.
left_behind: dict[str, bytes] = {}


def write_the_file(scenario: Scenario, path: Path) -> None:
    """The file as it is before the scenario opens it."""
    if scenario.name in left_behind:
        path.write_bytes(left_behind[scenario.name])
    elif scenario.base is not None:
        path.write_bytes(scenario.base)
        if scenario.first is not None and scenario.opens:

            def die_after_a_commit() -> None:
                state = PersistedState(path)
                scenario.first(state)  # type: ignore[misc]
                os._exit(0)

            assert in_child(die_after_a_commit) == 0
            left_behind[scenario.name] = path.read_bytes()


def set_up(scenario: Scenario, path: Path, fs: Seam) -> tuple[Any, State]:
    """Bring state and file to where the scenario begins; returns what its `act` gets, and the state before."""

    def reopen() -> PersistedState:
        return PersistedState.open(path, fs=fs, lock_timeout=0.5, **dict(scenario.options))

    if scenario.opens:
        before = peek(path) if path.exists() else {}
        if scenario.tail:
            with open(path, "ab") as file:
                file.write(scenario.tail)
        return reopen, before
    state = reopen()
    if scenario.first is not None:
        scenario.first(state)
    before = state.snapshot()
    if scenario.tail:
        with open(path, "ab") as file:
            file.write(scenario.tail)
    if scenario.small_journal:
        state._store.log.journal.vacuum_at = 0
    return state, before


def go_on(path: Path, expected: State, message: str, base: bytes | None = None) -> None:
    """A newcomer finds *expected*, can commit, and leaves a tidy folder.

    After a save that was cut short, the side of it may be kept there that is not the state, as it may be a person's.
    *base* is the document before it then.
    """
    state = PersistedState.open(path, lock_timeout=0.5)
    assert same(expected, state.snapshot()), message
    state["newcomer"] = 1
    assert same({**expected, "newcomer": 1}, peek(path)), message
    state.close()
    assert same({**expected, "newcomer": 1}, plain_document(path.read_bytes())), message
    kept = [] if base is None else list(path.parent.glob("state.yaml.conflict-*"))
    other = base if expected.get("a") == 2 else saved(base or b"") + (b"c: 1\n" if "c" in expected else b"")
    # A trailer that was torn after the exchange may have brought a newline.
    assert all(each.read_bytes() in (other, other + b"\n") for each in kept), message
    assert ["state.yaml", *(each.name for each in kept)] == sorted(os.listdir(path.parent)), message


@pytest.mark.parametrize(
    ("scenario", "witnessed"),
    [pytest.param(scenario, False, id=f"{scenario}, alone") for scenario in SCENARIOS]
    # A witness would tidy a torn tail up itself, and one of a file that does not exist yet would create it.
    + [pytest.param(each, True, id=f"{each}, witnessed") for each in SCENARIOS if not each.tail and not each.opens],
)
def test_death_at_every_call(scenario: Scenario, witnessed: bool, tmp_path: Path) -> None:
    """The state is the one before or the one after, and everybody can go on.

    Witnessed: another process had the file open all the time.
    """
    for tear in (False, True):
        for number in range(100):
            path = tmp_path / f"{number}{'torn' * tear}" / "state.yaml"
            path.parent.mkdir()
            if die_once(scenario, witnessed, path, number, tear):
                break
        else:
            raise AssertionError("no end")
        assert number > 0, "nothing was called"


def die_once(scenario: Scenario, witnessed: bool, path: Path, number: int, tear: bool) -> bool:
    """Whether the scenario came to its end."""
    write_the_file(scenario, path)
    ready, go = os.pipe(), os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            fs = Dying(number, tear, ready[1])
            subject, _ = set_up(scenario, path, fs)
            os.write(ready[1], b"x")
            os.read(go[0], 1)
            fs.armed = True
            scenario.act(subject)
            os._exit(0)
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(70)
    assert os.read(ready[0], 1) == b"x"
    before = peek(path) if path.exists() else {}
    witness = PersistedState.open(path, lock_timeout=0.5) if witnessed else None
    os.write(go[1], b"x")
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    os.close(ready[1])
    calls = os.read(ready[0], 9999).decode()
    for fd in (ready[0], *go):
        os.close(fd)
    message = f"death in {calls}{' torn' if tear else ''}"
    assert code in (0, KILLED), f"{message}: exit code {code}"

    after = {**before, **scenario.change}
    found = peek(path) if path.exists() else {}
    if code == 0:
        assert same(after, found), message
    else:
        assert same(before, found) or same(after, found), f"{message}: {found}"
    if witness is not None:
        assert same(found, witness.snapshot()), message
        witness["witness"] = 1
        found = {**found, "witness": 1}
        assert same(found, witness.snapshot()), message
        assert same(found, peek(path)), message
        witness.close()
    go_on(path, found, message, scenario.base if scenario.act in (save, save_above) and code else None)
    return code == 0


# ------------------------------------------------------------------ failure of every system call

FAILURES = [(errno.EIO, False), (errno.EACCES, False), (errno.ENOSPC, False), (errno.ENOSPC, True)]
WRITING = ("write", "truncate", "sync", "rename_new", "unlink", "exchange", "sync_folder", "copy_attributes")


@pytest.mark.parametrize(("error", "lasting"), FAILURES, ids=["EIO", "EACCES", "ENOSPC", "disk stays full"])
@pytest.mark.parametrize("scenario", SCENARIOS, ids=str)
def test_failure_of_every_call(scenario: Scenario, error: int, lasting: bool, tmp_path: Path) -> None:
    """A clear error and nothing is changed, or the call did what it should; the next one works."""
    problems = []
    for number in range(100):
        path = tmp_path / str(number) / "state.yaml"
        path.parent.mkdir()
        fs = FailingAt(number, error, lasting)
        try:
            fail_once(scenario, path, fs)
        except (AssertionError, OSError, ValueError) as problem:
            problems.append(f"{fs.failed} fails after {fs.calls[:number]}: {problem!r:.600}")
        if not fs.failed and number >= len(fs.calls):
            break
    assert not problems, f"{len(problems)} problems:\n" + "\n".join(problems)
    assert number > 0


def fail_once(scenario: Scenario, path: Path, fs: FailingAt) -> None:
    write_the_file(scenario, path)
    subject, before = set_up(scenario, path, fs)
    fs.armed = True
    raised: Exception | None = None
    result: object = None
    try:
        result = scenario.act(subject)
    except Exception as caught:
        raised = caught
    fs.armed = False
    if raised is not None:
        raised.__traceback__ = None  # it holds what was being opened
    after = {**before, **scenario.change}
    found = peek(path) if path.exists() else {}
    if raised is None:
        assert same(after, found), found
    elif isinstance(raised, DurabilityUnknown):
        assert same(after, found), found
        if fs.failed in ("sync_data", "sync_folder"):
            return  # more in test_a_failed_sync_...
        assert fs.failed in ("stat", "pread"), repr(raised)  # of the look that follows the write
    else:
        assert scenario.name != "close", f"close() raises {raised!r}"
        assert isinstance(raised, OSError), repr(raised)
        assert same(before, found), f"raised {raised!r}, but {found}"
        if fs.failed in WRITING:
            assert isinstance(raised, PStateError), repr(raised)
            assert str(path) in str(raised)
        assert raised.errno in (fs.error, None), repr(raised)
    if scenario.opens:
        del result  # closes it
    elif scenario.name != "close":
        assert same(found, subject.snapshot()), f"in memory: {subject.snapshot()}"
        subject["next"] = 1
        found = {**found, "next": 1}
        assert same(found, peek(path))
        subject.close()
    go_on(path, found, "", scenario.base if scenario.act in (save, save_above) and fs.failed else None)


@pytest.mark.parametrize("transaction", [False, True])
def test_a_disk_that_is_full_gives_a_clear_error(transaction: bool, tmp_path: Path) -> None:
    path = tmp_path / "state.yaml"
    path.write_bytes(b"a: 1\n")
    fs = Failing(error=errno.ENOSPC)
    state = PersistedState.open(path, fs=fs)
    for value in (2, 3):  # the first commit, and another
        before, contents = path.read_bytes(), state.snapshot()
        fs.failing = {"write"}
        with pytest.raises(WriteError) as caught:
            if transaction:
                with state.transaction():
                    state["a"] = value
                    state["b"] = value
            else:
                state["a"] = value
        assert caught.value.errno == errno.ENOSPC
        assert (caught.value.path, str(path) in str(caught.value)) == (str(path), True)
        assert (before, contents) == (path.read_bytes(), state.snapshot())
        fs.failing = set()
        state["a"] = value
    state.close()
    go_on(path, {"a": 3}, "")


def test_a_store_that_cannot_even_cut_back_takes_no_more_writes(tmp_path: Path) -> None:
    path = tmp_path / "state.yaml"
    path.write_bytes(b"a: 1\n")
    fs = Failing()
    state = PersistedState.open(path, fs=fs)
    state["a"] = 2
    fs.failing = {"write", "truncate"}
    with pytest.raises(StoreFailedError):
        state["a"] = 3
    assert state["a"] == 2
    assert peek(path) == {"a": 2}
    fs.failing = set()
    # Refused, or done properly: it must not follow a torn record.
    with suppress(StoreFailedError):
        state["a"] = 4
    assert peek(path) == {"a": state["a"]}
    state.close()
    go_on(path, {"a": 4} if peek(path) == {"a": 4} else {"a": 2}, "")


@pytest.mark.parametrize("failing", ["sync_data", "sync_folder"])
def test_a_failed_sync_says_so_and_refuses_writes_until_a_vacuum(failing: str, tmp_path: Path) -> None:
    """The record is committed and visible; whether it is durable is unknown, and a second sync may lie."""
    path = tmp_path / "state.yaml"
    fs = Failing()
    state = PersistedState.open(path, fs=fs, durability="power")
    if failing == "sync_data":
        state["a"] = 1
    fs.failing = {failing}
    with pytest.raises(DurabilityUnknown) as caught:
        state["a"] = 2
    assert isinstance(caught.value, OSError)
    assert str(path) in str(caught.value)
    fs.failing = set()

    assert state["a"] == 2
    assert peek(path) == {"a": 2}
    before = path.read_bytes()
    for refused in (lambda: state.update(a=3), lambda: state.pop("a"), lambda: state.transaction().__enter__()):
        with pytest.raises(StoreFailedError):
            refused()
        assert (before, {"a": 2}) == (path.read_bytes(), state.snapshot())
    state.vacuum()
    state["a"] = 3
    state.close()
    go_on(path, {"a": 3}, "")


def test_a_failed_sync_is_over_when_the_file_is_opened_again(tmp_path: Path) -> None:
    path = tmp_path / "state.yaml"
    fs = Failing()
    state = PersistedState.open(path, fs=fs, durability="power")
    state["a"] = 1
    fs.failing = {"sync_data"}
    with pytest.raises(DurabilityUnknown):
        state["a"] = 2
    fs.failing = set()
    state.close()
    go_on(path, {"a": 2}, "")


# ------------------------------------------------------------------ what a vacuum keeps


def grown(path: Path, **options: Any) -> PersistedState:
    state = PersistedState.open(path, **options)
    state["a"] = 1
    state["b"] = 2
    return state


@pytest.mark.parametrize("mode", [0o600, 0o640, 0o664, 0o444])
def test_a_vacuum_keeps_the_mode(mode: int, tmp_path: Path) -> None:
    path = tmp_path / "state.yaml"
    path.write_bytes(b"x: 1\n")
    state = grown(path)
    path.chmod(mode)
    inode = path.stat().st_ino
    state.vacuum()
    assert path.stat().st_ino != inode
    assert stat.S_IMODE(path.stat().st_mode) == mode
    state.close()


def test_a_vacuum_keeps_the_owner(tmp_path: Path) -> None:
    path = tmp_path / "state.yaml"
    path.write_bytes(b"x: 1\n")
    try:
        os.chown(path, 12345, 23456)
    except PermissionError:
        pytest.skip("only root gives files away")
    state = grown(path)
    state.vacuum()
    state.close()
    assert (12345, 23456) == (path.stat().st_uid, path.stat().st_gid)


def test_a_vacuum_keeps_extended_attributes(tmp_path: Path) -> None:
    path = tmp_path / "state.yaml"
    path.write_bytes(b"x: 1\n")
    try:
        os.setxattr(path, "user.note", b"mine")
    except (OSError, AttributeError):
        pytest.skip("no extended attributes here")
    state = grown(path)
    state.close()
    assert os.getxattr(path, "user.note") == b"mine"


@pytest.mark.parametrize("relative", [False, True])
def test_a_vacuum_keeps_a_symbolic_link_and_replaces_its_target(relative: bool, tmp_path: Path) -> None:
    target, links = tmp_path / "data" / "real.yaml", tmp_path / "links"
    target.parent.mkdir()
    links.mkdir()
    target.write_bytes(b"x: 1\n")
    link = links / "state.yaml"
    link.symlink_to("../data/real.yaml" if relative else target)
    state = grown(link)
    state.vacuum()
    state["c"] = 3
    state.close()
    assert link.is_symlink()
    assert {"x": 1, "a": 1, "b": 2, "c": 3} == yaml.safe_load(target.read_bytes())
    assert (["real.yaml"], ["state.yaml"]) == (os.listdir(target.parent), os.listdir(links))


def test_a_person_s_file_under_the_temporary_name_is_kept(tmp_path: Path) -> None:
    """A crash between two exchanges leaves a person's save there: only what is provably a vacuum's is deleted."""
    path = tmp_path / "state.yaml"
    path.write_bytes(b"x: 1\n")
    (tmp_path / ".state.yaml.swap").write_bytes(b"x: 1\nmine: precious\n")
    state = grown(path)
    state.vacuum()
    state.close()
    kept = [each.read_bytes() for each in tmp_path.iterdir()]
    assert any(b"precious" in content for content in kept)
    assert same({"x": 1, "a": 1, "b": 2}, {k: v for k, v in plain_document(path.read_bytes()).items() if k != "mine"})


@pytest.mark.parametrize("zeros", [b"", b"\0", b"\0" * 600], ids=["killed", "one zero", "zeros"])
@pytest.mark.parametrize(
    "document", [b"a: 1\n", b"a: |\n  one\n  --- [[]]\n", b"a: |-\n  one\n", b'a: "x --- y"\n', b"a:\n  b: >\n    c\n"]
)
def test_every_cut_of_a_trailer_behind_a_document_leaves_what_it_says(
    tmp_path: Path, document: bytes, zeros: bytes
) -> None:
    """Also where the first bytes of the trailer look like a record of persistedstate, and where the power went."""
    path = tmp_path / "state.yaml"
    path.write_bytes(document)
    expected = peek(path)
    trailer = f.Trailer(f.NO_GENERATION, len(document), crc32(document), 0, crc32(document)).encode()
    # With fewer bytes before the zeros, their origin is unknown: the file is not read, and left as it is.
    for length in range(len(b"--- # pstate moved ") if zeros else 0, len(trailer)):
        path.write_bytes(document + trailer[:length] + zeros)
        assert same(expected, peek(path)), trailer[:length]
        with PersistedState(path) as state:
            state["next"] = 1
        assert same({**expected, "next": 1}, peek(path)), trailer[:length]
        assert os.listdir(tmp_path) == ["state.yaml"], trailer[:length]


def test_a_copy_that_ends_in_our_trailer_is_kept_if_its_checksum_is_wrong(tmp_path: Path) -> None:
    """An editor's copy may end so; only the checksum of all bytes before it proves a file ours (I7)."""
    path = tmp_path / "state.yaml"
    path.write_bytes(b"x: 1\n")
    mine = b"x: 1\nmine: precious\n--- # pstate moved 00000000 0000000005 01234567 0000000000 01234567\n"
    (tmp_path / ".state.yaml.swap").write_bytes(mine)
    state = PersistedState(path)
    state["a"] = 1
    state.close()
    assert mine in [each.read_bytes() for each in tmp_path.iterdir()]
