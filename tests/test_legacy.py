"""What `persistedstate` wrote is read back as the memory of the process that wrote it, however it died.

The installed `persistedstate` writes the files; older formats are in golden/persistedstate, as those versions wrote.
"""

from __future__ import annotations

import io
import itertools
import json
import math
import os
import pathlib
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import persistedstate
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from tools.crash import peek

from pstate import PersistedState
from pstate.errors import CorruptStateError, InvalidStateError
from pstate.file import legacy, recovery
from pstate.text import reading
from pstate.values import same

GOLDEN = Path(__file__).parent / "golden" / "persistedstate"
MARKER = b"\n---\n### LAST VALID STATE ###\n"


def plain(value: Any) -> Any:
    """The memory of a `persistedstate` as builtins."""
    if isinstance(value, Mapping):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [plain(item) for item in value]
    return value


def opened(data: bytes) -> legacy.Recovered:
    """Read *data* as the store does: a journal through `legacy`, the rest as a base document."""
    is_legacy = legacy.is_legacy(data)
    assert recovery.is_theirs(data) == is_legacy  # which asks only where it sees a sign
    if is_legacy:
        return legacy.load(data, "state.yaml")
    return legacy.Recovered(reading.load(data, "state.yaml").value)


def journal(*records: Any, base: bytes = b"a: 1") -> bytes:
    return base + b"".join(b"\n---\n" + json.dumps(record, ensure_ascii=False).encode() for record in records)


# ------------------------------------------------------------------------------------------------- golden files


@pytest.mark.parametrize("name", sorted(json.loads(GOLDEN.joinpath("expected.json").read_bytes())))
def test_files_of_every_version_open(name: str) -> None:
    data = GOLDEN.joinpath(name).read_bytes()
    expected = json.loads(GOLDEN.joinpath("expected.json").read_bytes())[name]
    version, case = name.removesuffix(".state").split("-")
    if version == "23.1":
        assert not legacy.is_legacy(data)
        recovered = legacy.load_lines(data, name)
    else:
        assert legacy.is_legacy(data) == (case != "closed")
        recovered = opened(data)
    assert same(recovered.value, expected)
    assert recovered.interrupted_vacuum == (case == "vacuum")
    assert recovered.torn == b""
    assert not recovered.doubtful


@pytest.mark.parametrize("version", ["23.5", "26.1"])
def test_refused_operations_are_named_with_their_lines(version: str) -> None:
    recovered = legacy.load(GOLDEN.joinpath(f"{version}-killed.state").read_bytes(), "s")
    assert [(skipped.line, skipped.text, skipped.reason) for skipped in recovered.skipped] == [
        (20, '["delete", [], "missing"]', "the key 'missing' does not exist"),
        (32, '["set", ["jobs"], 9, 1]', "the list has 3 elements, and the index is 9"),
    ]
    assert recovered.records == 12


# --------------------------------------------------------------------------------------- journals of the real one

WRITER = r"""
import json, os, sys
from persistedstate import PersistedState

state = PersistedState(sys.argv[1], count=0, jobs=[])
for number in range(20):
    state.count += 1
    state.jobs.append({"id": number, "tags": []})
    state.jobs[number]["tags"].append("\x7f\x85\ufeff\u2028 \U0001f600")
for refused in ("del state['missing']", "state.jobs[99] = 1", "state[[1]] = 2", "state.jobs['x'] = 1"):
    try:
        exec(refused)
    except (LookupError, TypeError):
        pass
    else:
        raise AssertionError(refused)
state.last = [1e16, -0.0, 10**30, None, True]
os._exit(0)
"""


def test_journal_of_a_process_that_died(tmp_path: Path) -> None:
    path = tmp_path / "state.yaml"
    subprocess.run([sys.executable, "-c", WRITER, path], check=True)
    data = path.read_bytes()
    with pytest.raises(yaml.YAMLError):
        list(yaml.safe_load_all(data))  # persistedstate cannot open this one again itself
    assert legacy.is_legacy(data)
    recovered = legacy.load(data, str(path))
    expected = {
        "count": 20,
        "jobs": [{"id": number, "tags": ["\x7f\x85\ufeff\u2028 \U0001f600"]} for number in range(20)],
        "last": [1e16, -0.0, 10**30, None, True],
    }
    assert same(recovered.value, expected)
    assert len(recovered.skipped) == 4
    assert recovered.records == 2 + 20 * 3 + 1


keys = st.sampled_from(["a", "b", "c", "key with: colon"])
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=6)
scalars = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=True) | texts
flat_values = scalars | st.lists(scalars, max_size=4) | st.dictionaries(texts, scalars, max_size=3)
deep_values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(keys, inner, max_size=3), max_leaves=8
)
Step = tuple[str, list[int], Any, Any]


def steps(values: st.SearchStrategy[Any]) -> st.SearchStrategy[list[Step]]:
    """Changes anywhere in the tree: a verb, which container (by turns of children), a key or index, a value."""
    verbs = st.sampled_from(["set", "delete", "insert", "append", "pop", "setdefault", "reverse", "remove", "clear"])
    places = st.lists(st.integers(0, 5), max_size=3)
    return st.lists(st.tuples(verbs, places, keys | st.integers(-4, 6), values), max_size=25)


def apply(state: Any, step: Step) -> None:
    verb, place, key, value = step
    target = state
    for turn in place:
        items = list(target.values()) if isinstance(target, Mapping) else list(target)
        inner = [item for item in items if isinstance(item, (Mapping, Sequence)) and not isinstance(item, str)]
        if not inner:
            break
        target = inner[turn % len(inner)]
    if target is not state and isinstance(target, Mapping):
        key = str(key)  # a nested mapping that is journaled whole has only such keys
    if verb == "set":
        target[key] = value
    elif verb == "delete":
        del target[key]
    elif verb == "insert":
        target.insert(key, value)
    elif verb == "append":
        target.append(value)
    elif verb == "pop":
        target.pop() if isinstance(target, Sequence) else target.pop(key)
    elif verb == "setdefault":
        target.setdefault(key, value)
    elif verb == "remove":
        target.remove(next(iter(target)))
    else:
        getattr(target, verb)()


def written(path: Path, base: bytes, changes: list[Step]) -> tuple[bytes, Any]:
    """The bytes in the file while `persistedstate` is at work, and its memory."""
    path.write_bytes(base)
    state = persistedstate.PersistedState(path)
    for step in changes:
        try:
            apply(state, step)
        except (LookupError, TypeError, ValueError, AttributeError, StopIteration):
            pass  # refused; most of these are journaled all the same
    try:
        return path.read_bytes(), plain(state)
    finally:
        state.close()


@pytest.fixture(scope="module")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Callable[[], Path]:
    """New names: a `persistedstate` that failed to open a file still vacuums it, when it is collected."""
    folder = tmp_path_factory.mktemp("legacy")
    numbers = itertools.count()
    return lambda: folder / f"{next(numbers)}.state"


@settings(max_examples=100)
@given(base=st.sampled_from([b"", b"a: 1\nb: [1, 2]", b"# one\nc: {x: 1}\n"]), changes=steps(flat_values))
def test_any_journal_gives_what_memory_had(scratch: Callable[[], Path], base: bytes, changes: list[Step]) -> None:
    data, memory = written(scratch(), base, [step for step in changes if not _nests_in_list(step)])
    recovered = opened(data)
    assert same(recovered.value, memory)
    assert not recovered.doubtful
    assert recovered.torn == b""


def _nests_in_list(step: Step) -> bool:
    """Containers in lists are what `persistedstate` loses track of: the next test is about them."""
    verb, place, _, value = step
    return isinstance(value, (list, dict)) and (bool(place) or verb in ("insert", "append"))


@settings(max_examples=120)
@given(changes=steps(deep_values))
def test_a_state_that_memory_did_not_have_is_never_given_silently(
    scratch: Callable[[], Path], changes: list[Step]
) -> None:
    """Paths through lists may be stale in the journal; where that can have changed the state, it is reported."""
    data, memory = written(scratch(), b"l:\n- {a: 1}\n- [1, 2]\n- {b: {c: 2}}\n", changes)
    recovered = opened(data)
    assert same(recovered.value, memory) or recovered.doubtful


small_values = st.integers() | st.lists(st.integers(), max_size=3) | st.dictionaries(keys, st.integers(), max_size=3)


@settings(max_examples=60)
@given(changes=steps(small_values))
def test_what_persistedstate_can_open_again_is_read_as_it_reads_it(
    scratch: Callable[[], Path], changes: list[Step]
) -> None:
    data, memory = written(scratch(), b"", changes)
    recovered = opened(data)
    copy = scratch()
    copy.write_bytes(data)
    try:
        state = persistedstate.PersistedState(copy)
    except (LookupError, TypeError):
        # The last one: 26.1 raises in pop() of a list's only item, when that is gone already.
        assert recovered.skipped or same(recovered.value, memory)
        return
    assert same(recovered.value, plain(state))
    assert not recovered.skipped
    state.close()


# ------------------------------------------------------------------------------------------------------ torn tails


@pytest.mark.parametrize("base", [b"", b"a: 1", b"a: 1\n", b"# one\nz: [1, {}]\na: \xc3\xa9\n"])
def test_every_cut_of_a_journal_gives_the_records_before_it(base: bytes) -> None:
    records = [
        ["set", [], "text", "é😀]\x7f\u2028"],
        ["set", [], "l", [1, [2, {"x": "]"}], 3]],
        ["delete", [], "missing"],
        ["insert", ["l"], 1, 12345],
        ["delete", [], "text"],
    ]
    data = journal(*records, base=base)
    for cut in range(len(base) + 2, len(data) + 1):
        whole = max(n for n in range(len(records) + 1) if len(journal(*records[:n], base=base)) <= cut)
        complete = journal(*records[:whole], base=base)
        if cut == len(complete) + 2 and not whole and not base:
            continue  # "\n-": a plain document, a list
        recovered = opened(data[:cut])
        expected = legacy.load(complete, "s").value if whole else reading.load(base, "s").value
        assert same(recovered.value, expected), cut
        assert recovered.records == whole - (whole > 2)
        assert complete + recovered.torn == data[:cut] or recovered.torn.strip(b"-\n") in data[len(complete) : cut]
        assert bool(recovered.torn) == (cut > len(complete) + 1)


def test_a_tail_of_zeroes_is_torn() -> None:
    """A file system may grow the file before the bytes arrive."""
    data = journal(["set", [], "a", 2])
    for tail in (bytes(30), b"\n---\n" + bytes(30), b'\n---\n["set", [' + bytes(30)):
        recovered = opened(data + tail)
        assert recovered.value == {"a": 2}
        assert recovered.torn


def test_an_empty_document_is_no_record() -> None:
    """`persistedstate` opens a journal whose tail was torn after the separator, and goes on."""
    data = b'a: 1\n---\n\n---\n["set", [], "a", 2]\n---\n---\n["set", [], "b", 3]'
    assert opened(data).value == {"a": 2, "b": 3}


@pytest.mark.parametrize("tail", [b"-", b"--", b"---"])
def test_a_torn_separator_of_persistedstate_takes_commits(tmp_path: Path, tail: bytes) -> None:
    path = tmp_path / "state.yaml"
    path.write_bytes(b'a: 1\n---\n["set", [], "a", 4]\n' + tail)
    state = PersistedState(path)
    state["b"] = 1
    state.close()
    assert {"a": 4, "b": 1} == peek(path)


def test_a_document_that_ends_in_a_dash_is_read_as_pyyaml_reads_it(tmp_path: Path) -> None:
    path = tmp_path / "state.yaml"
    path.write_bytes(b"a:\n- x\n-")
    assert {"a": ["x", None]} == peek(path)


# -------------------------------------------------------------------------------------------- interrupted vacuums

Write = tuple[int, bytes | None]  # offset and bytes; None truncates


class Recorder(io.FileIO):
    """A file that remembers the system calls which changed it."""

    def __init__(self, path: str, calls: list[Write]) -> None:
        super().__init__(path, "r+")
        self.calls = calls

    def write(self, data: Any) -> int:
        self.calls.append((self.tell(), bytes(data)))
        return super().write(data)

    def truncate(self, size: int | None = None) -> int:
        size = self.tell() if size is None else size
        self.calls.append((size, None))
        return super().truncate(size)


@pytest.fixture
def vacuum(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[bytes, Any, list[Write]]]:
    """Work on a file with `persistedstate`, and return the bytes and the memory before its vacuum, and its writes."""

    def run(base: bytes, work: Callable[[Any], object]) -> tuple[bytes, Any, list[Write]]:
        path = tmp_path / "state.yaml"
        path.write_bytes(base)
        calls: list[Write] = []
        with monkeypatch.context() as patch:
            patch.setattr(
                pathlib.Path,
                "open",
                lambda self, mode, encoding: io.TextIOWrapper(
                    io.BufferedRandom(Recorder(os.fspath(self), calls)), encoding=encoding
                ),
            )
            state = persistedstate.PersistedState(path)
        work(state)
        memory, before = plain(state), path.read_bytes()
        calls.clear()
        state.close()
        return before, memory, calls

    return run


def cuts(before: bytes, calls: list[Write], every_byte: bool = True) -> Iterator[bytes]:
    """The file after each byte, or after each system call, of *calls*."""
    data = bytearray(before)
    yield bytes(data)
    for offset, written_bytes in calls:
        if written_bytes is None:
            del data[offset:]
            yield bytes(data)
            continue
        size = 1 if every_byte else len(written_bytes)
        for start in range(0, len(written_bytes), size):
            part = written_bytes[start : start + size]
            data[offset + start : offset + start + len(part)] = part
            yield bytes(data)


def test_the_writes_of_a_vacuum_are_those_that_the_tests_imitate(
    vacuum: Callable[..., tuple[bytes, Any, list[Write]]],
) -> None:
    before, memory, calls = vacuum(b"a: 1", lambda state: state.update(b=[1, 2]))
    assert calls == imitated(before, memory, "23.6")


def imitated(before: bytes, memory: Any, version: str) -> list[Write]:
    """The writes of a vacuum of a small state."""
    base = yaml.safe_dump(memory, allow_unicode=True, sort_keys=True).encode()
    if version < "23.6":
        return [(len(before), base), (0, base), (len(base), None)]
    return [(len(before), base + MARKER + base), (0, base + b"...\n"), (len(base) - 1, None)]


WORK: dict[str, tuple[bytes, Callable[[Any], object]]] = {
    "first session": (b"", lambda state: state.update(a=1, b=[1] * 9, nan=math.nan)),
    "set, delete, nest": (
        b"a: 1\nb:\n- 1\n- 2\nc: text",
        lambda state: (state.update(a=5, d=[1, {"x": "y"}]), state.pop("c")),
    ),
    "edited base": (
        b"# mine\nz: 1 # last\nb: [1, 2]\n",
        lambda state: (state["b"].append(3), state.update(a="é\x7f ")),
    ),
    "shrinks": (b"a: 1\nb:\n- 1\nlong: " + b"x" * 200 + b"\n", lambda state: state.pop("long")),
    "grows": (b"a: 1\n", lambda state: state.update(l=[1] * 30, m=[1] * 30)),
    "refused": (b"a: 1", lambda state: (state.update(b=2), state.popitem(), state.update(c=[None]))),
    "multi-line text": (b"a: 1", lambda state: state.update(t="one\n---\n### LAST VALID STATE ###\n" * 3)),
    "stale paths": (
        b"",
        lambda state: (state.update(l=[{"x": 1}, {"x": 2}, {}]), state["l"].pop(), state["l"][0].update(x=3)),
    ),
}


@pytest.mark.parametrize("name", sorted(set(WORK) - {"stale paths"}))
def test_vacuum_killed_at_any_byte_keeps_the_state(
    name: str, vacuum: Callable[..., tuple[bytes, Any, list[Write]]]
) -> None:
    before, memory, calls = vacuum(*WORK[name])
    for data in cuts(before, calls):
        assert same(opened(data).value, memory), data


def test_vacuum_killed_behind_the_padding_tells_what_stale_paths_meant(
    vacuum: Callable[..., tuple[bytes, Any, list[Write]]],
) -> None:
    before, memory, calls = vacuum(*WORK["stale paths"])
    assert legacy.load(before, "s").value != memory
    padding = before + yaml.safe_dump(memory).encode()
    for data in cuts(before, calls):
        recovered = opened(data)
        assert recovered.value == memory or (len(data) <= len(padding) + 3 and recovered.doubtful), data


@pytest.mark.parametrize("base", [b"{}", b"a: 1\nb:\n- 1\n- 2", b"count: 1\n", b"z: [1, 2] # mine\na: 1\n", b""])
def test_vacuum_without_a_journal_killed_once_the_copy_is_begun(
    base: bytes, vacuum: Callable[..., tuple[bytes, Any, list[Write]]]
) -> None:
    """Before that, only a base that `persistedstate` wrote, and at least a line of padding, tell padding from state."""
    before, memory, calls = vacuum(base, lambda state: None)
    begun = len(before) + len(yaml.safe_dump(memory).encode()) + 3
    for number, data in enumerate(cuts(before, calls)):
        if number >= begun or number == 0:
            assert same(opened(data).value, memory), data


def test_vacuum_of_a_large_state_killed_between_two_system_calls(
    vacuum: Callable[..., tuple[bytes, Any, list[Write]]],
) -> None:
    base = yaml.safe_dump({f"key {n:04}": ["some text", n] for n in range(1500)}).encode()[:-1]
    for work in (lambda state: None, lambda state: state.update({"key 0700": "x" * 9000, "new": 1})):
        before, memory, calls = vacuum(base, work)
        assert len(calls) > 5
        for data in cuts(before, calls, every_byte=False):
            assert same(opened(data).value, memory)


def test_vacuum_killed_again_after_a_session_on_the_mixture(
    vacuum: Callable[..., tuple[bytes, Any, list[Write]]],
) -> None:
    """If what the kill left happens to be YAML, `persistedstate` opens it and appends after the copy."""
    before, old, calls = vacuum(b"a: 1", lambda state: None)
    mixture = list(cuts(before, calls, every_byte=False))[-2]
    before, memory, calls = vacuum(mixture, lambda state: state.update(a=2, new=3))
    assert before.count(b"LAST VALID") == 1
    assert memory == {"a": 2, "new": 3}
    for data in cuts(before, calls):
        assert opened(data).value == memory, data
    last = before.rindex(b"\n---\n")
    for cut in range(last, len(before)):
        assert opened(before[:cut]).value == {"a": 2}, before[:cut]
    for cut in range(len(mixture), last - 20):
        assert opened(before[:cut]).value == old, before[:cut]


@pytest.mark.parametrize("name", ["first session", "set, delete, nest", "edited base", "shrinks", "refused"])
def test_vacuum_of_23_5_killed_at_any_byte_gives_the_state_or_an_error(
    name: str, vacuum: Callable[..., tuple[bytes, Any, list[Write]]]
) -> None:
    """Without the marker not every mixture can be told apart. None is read as another state."""
    base, work = WORK[name]
    before, memory, _ = vacuum(base + b"\n" * (not base.endswith(b"\n") and base != b""), work)
    errors = 0
    for data in cuts(before, imitated(before, memory, "23.5")):
        try:
            assert same(opened(data).value, memory), data
        except (CorruptStateError, InvalidStateError):
            errors += 1
    assert errors <= 6


def test_a_copy_without_marker_that_contradicts_the_journal_is_an_error() -> None:
    """23.5: is `l` of the head mixed from two states, or is the copy unfinished? Nothing in the file tells."""
    data = b'l:\n- 1\n- 1\n- 1\n\n---\n["delete", ["l"], 0]l:\n- 1\n'
    with pytest.raises(CorruptStateError, match=r"^state.yaml:7: a vacuum") as caught:
        legacy.load(data, "state.yaml")
    assert caught.value.line == 7


# --------------------------------------------------------------------------------------------------------- reading


def test_numbers_are_those_that_were_meant() -> None:
    value = [1e16, 1e-7, math.inf, -math.inf, math.nan, -0.0, 10**40, 1.5, 0]
    assert same(opened(journal(["set", [], "n", value])).value["n"], value)


@pytest.mark.parametrize("code", [0x7F, 0x80, 0x85, 0x9F, 0xFEFF, 0x2028, 0x2029, 0xFFFE, 0xFFFF, 0x1F600])
def test_any_character_in_a_record(code: int) -> None:
    text = f"a{chr(code)}b{chr(code)}"
    recovered = opened(journal(["set", [], text, [text]], ["set", [text], 0, {text: text}]))
    assert recovered.value == {"a": 1, text: [{text: text}]}


def test_raw_control_characters_in_a_record() -> None:
    assert opened(b'a: 1\n---\n["set", [], "b", "x\x01\ty"]').value == {"a": 1, "b": "x\x01\ty"}


def test_keys_keep_the_type_that_they_have_in_the_record() -> None:
    data = journal(*(["set", [], key, {"1": 2}] for key in (1, True, None, 1.5, "1")))
    assert same(opened(data).value, {"a": 1, 1: {"1": 2}, None: {"1": 2}, 1.5: {"1": 2}, "1": {"1": 2}})


def test_what_cannot_be_a_key_is_skipped() -> None:
    recovered = opened(
        journal(["set", [], [1], 2], ["set", [], math.nan, 2], ["insert", [], 0, 1], ["set", ["a"], 0, 1])
    )
    assert recovered.value == {"a": 1}
    assert [skipped.reason for skipped in recovered.skipped] == [
        "a list or a mapping cannot be a key",
        "NaN cannot be a key",
        "a mapping has no insert",
        "state.a is not a mapping or a list, or does not exist",
    ]


def test_a_whole_mapping_behind_records_replaces_the_state() -> None:
    data = b'a: 1\n---\n["set", [], "b", 2]\n---\nc: 3\n---\n["set", [], "d", 4]'
    assert legacy.load(data, "s").value == {"c": 3, "d": 4}


def test_windows_line_ends() -> None:
    data = journal(["set", [], "b", 2], ["delete", [], "a"], base=b"a: 1\n").replace(b"\n", b"\r\n")
    assert opened(data).value == {"b": 2}
    copy = b"b: 2\r\n"
    assert opened(data + copy + MARKER.replace(b"\n", b"\r\n") + copy).value == {"b": 2}


@pytest.mark.parametrize("head", [b"---\n", b"# one\n---\n", b"%YAML 1.1\n---\n"])
def test_a_base_with_a_separator_of_its_own(head: bytes) -> None:
    assert opened(journal(["set", [], "b", 2], base=head + b"a: 1\n")).value == {"a": 1, "b": 2}


@pytest.mark.parametrize("operation", [["delete", ["l"], 0], ["delete", ["l"], -1], ["insert", ["l"], 0, 1]])
def test_paths_through_a_list_whose_elements_moved_are_doubtful(operation: list[Any]) -> None:
    data = journal(["set", [], "l", [{}, {}, {}]], operation, ["set", ["l", 1], "x", 1])
    recovered = opened(data)
    assert [doubtful.line for doubtful in recovered.doubtful] == [7]
    assert recovered.value["l"][1] == {"x": 1}


def test_appending_moves_nothing() -> None:
    data = journal(["set", [], "l", [{}]], ["insert", ["l"], 1, {}], ["set", ["l", 0], "x", 1], ["delete", ["l"], 1])
    assert not opened(data).doubtful


# -------------------------------------------------------------------------------------------- what is not certain


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"a: 1\n",
        b"---\na: 1\n",
        b"a:\n-",
        b"a:\n- 1\n-",
        b"a: 1\n---\nb: 2\n",
        b"a: 1\n---\n[1, 2]\n",
        b'a: 1\n---\n["set", [], "a", 2]\n---\nb: 3\n',
        b"a: 1\na: 2\n",
        b"a: 1\nb: 2\na: 1\nc: 3\n",
        b"a: '### LAST VALID STATE ###'\n",
        b'- ["set", [], "a", 1]\n',
        b"\xff\xfe",
        b"a: |\n  ---\n  ['set', [], 1, 2]\n",
    ],
)
def test_other_files_are_not_taken_for_journals(data: bytes) -> None:
    assert not legacy.is_legacy(data)


def test_damage_before_a_record_is_an_error_not_a_torn_tail() -> None:
    good = [["set", [], "a", 2], ["set", [], "a", 3], ["set", [], "a", 4]]
    data = journal(*good)
    second = data.index(b'["set", [], "a", 3]')
    for bad in (
        data.replace(b'"a", 3]', b'"a", 3'),
        data.replace(b'"a", 3', b'"a", \xff'),
        data.replace(b'"set", [], "a", 3', b'"put", [], "a", 3'),
    ):
        with pytest.raises(CorruptStateError, match=r"^state.yaml:5: damaged record") as caught:
            legacy.load(bad, "state.yaml")
        assert (caught.value.line, caught.value.index, caught.value.following) == (5, 1, 1)
        assert caught.value.offset == second - 4


def test_a_record_deeper_than_a_state_may_be_is_an_error() -> None:
    for depth in (98, 99, 100_000):
        data = b'a: 1\n---\n["set", [], "b", ' + b"[" * depth + b"]" * depth + b"]"
        if depth == 98:
            assert opened(data).records == 1
        elif depth == 99:
            assert opened(data).value["b"]
        else:
            with pytest.raises((CorruptStateError, InvalidStateError)):
                opened(data)
    data = b'a: 1\n---\n["set", [], "b", ' + b"[" * 100 + b"]" * 100 + b"]"
    with pytest.raises(InvalidStateError, match="nests deeper than 100 levels"):
        opened(data)


def test_a_lone_surrogate_is_an_error() -> None:
    with pytest.raises(InvalidStateError, match="lone surrogate"):
        opened(b'a: 1\n---\n["set", [], "b", "\\ud800"]')


def test_a_base_that_does_not_parse_is_an_error_with_its_line() -> None:
    with pytest.raises(InvalidStateError) as caught:
        opened(b'a: 1\nb: "\n---\n["set", [], "a", 2]')
    assert caught.value.line in (2, 3)
    mixture = b"x: 1" + MARKER + b"a: 1\nb: : 2\n\n---\n" + b'["set", [], "a", 2]'
    with pytest.raises(InvalidStateError) as caught:
        opened(mixture)
    assert caught.value.line == 5


# ----------------------------------------------------------------------------------------------- lines of 23.1


def test_lines_of_23_1_cut_anywhere() -> None:
    data = GOLDEN.joinpath("23.1-killed.state").read_bytes()
    for cut in range(len(data)):
        lines = data[:cut].split(b"\n")
        recovered = legacy.load_lines(data[:cut], "s")
        assert recovered.torn == b"" or recovered.torn == lines[-1]
        assert recovered.records in (len(lines) - 1, len(lines))


def test_lines_of_23_1_with_damage_are_an_error() -> None:
    with pytest.raises(CorruptStateError, match=r"^s:2: "):
        legacy.load_lines(b"a: 1\nb: {\nc: 3\n", "s")
