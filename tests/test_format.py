"""The file as bytes: `format.scan` is the only judge of what is committed, torn, damaged or moved."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from zlib import crc32

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pstate import InvalidStateError
from pstate.file import format as f
from pstate.file.format import Verdict
from pstate.text import dumping, reading, records
from pstate.values import same

CLEAN, TORN, MOVED, DAMAGED = Verdict.CLEAN, Verdict.TORN, Verdict.MOVED, Verdict.DAMAGED

BASE = b"# a comment\ncounter: 3\nkey:\n  nested: 2\n"
BODIES = [
    '[["set",[],"counter",4]]',
    '[["set",["key"],"nested",3],["insert",["log"],0,"both, or neither"]]',
    '[["set",[],"text","\u00e9 \U0001f600"]]',
    '[["delete",[],"counter"]]',
]
GENERATION = "5f2c81d0"

Harm = Callable[[bytes], bytes]


def marker_of(base: bytes, generation: str = GENERATION, power: bool = False) -> f.BaseMarker:
    return f.BaseMarker(generation, len(base), crc32(base), "0123abcd", power)


def file_of(bodies: list[str], base: bytes = BASE) -> bytes:
    data, crc = base, f.first_crc(GENERATION)
    if bodies:
        data += marker_of(base).encode()
    for body in bodies:
        record, crc = f.encode_record(body, crc)
        data += record
    return data


FILE = file_of(BODIES)


def parts(data: bytes) -> tuple[bytes, bytes, list[bytes]]:
    """Base document, base marker, records: found by their lines, not by the code under test."""
    found = re.search(rb"^\.\.\. # pstate .*\n", data, re.MULTILINE)
    assert found
    return data[: found.start()], found[0], re.findall(rb"--- .*\n\.\.\. # .*\n", data[found.end() :])


RECORDS = parts(FILE)[2]


# ------------------------------------------------------------------ the verbs of damage


def cut_bytes(count: int) -> Harm:
    return lambda data: data[:-count]


def append(tail: bytes) -> Harm:
    return lambda data: data + tail


def with_records(change: Callable[[list[bytes]], list[bytes]]) -> Harm:
    def harm(data: bytes) -> bytes:
        base, marker, records = parts(data)
        return base + marker + b"".join(change(records))

    return harm


def flipped(data: bytes, offset: int, bit: int = 0) -> bytes:
    return data[:offset] + bytes([data[offset] ^ 1 << bit]) + data[offset + 1 :]


def flip_bit_in_body(index: int) -> Harm:
    def change(records: list[bytes]) -> list[bytes]:
        records[index] = flipped(records[index], 9)
        return records

    return with_records(change)


def flip_bit_in_marker(index: int) -> Harm:
    """In the last digit of the checksum."""

    def change(records: list[bytes]) -> list[bytes]:
        records[index] = flipped(records[index], len(records[index]) - 2)
        return records

    return with_records(change)


def flip_bit_in_dots(index: int) -> Harm:
    def change(records: list[bytes]) -> list[bytes]:
        records[index] = flipped(records[index], records[index].index(b"\n...") + 1)
        return records

    return with_records(change)


def flip_bit_in_base_marker(offset: int) -> Harm:
    def harm(data: bytes) -> bytes:
        return flipped(data, data.index(b"... # pstate") + offset)

    return harm


def repeat_record(index: int) -> Harm:
    def change(records: list[bytes]) -> list[bytes]:
        at = index % len(records)
        return [*records[: at + 1], records[at], *records[at + 1 :]]

    return with_records(change)


def drop_record(index: int) -> Harm:
    def change(records: list[bytes]) -> list[bytes]:
        del records[index]
        return records

    return with_records(change)


def swap_records(first: int, second: int) -> Harm:
    def change(records: list[bytes]) -> list[bytes]:
        records[first], records[second] = records[second], records[first]
        return records

    return with_records(change)


def join_records(index: int) -> Harm:
    """The newline between two records is lost."""

    def change(records: list[bytes]) -> list[bytes]:
        records[index] = records[index][:-1]
        return records

    return with_records(change)


def zero_record(index: int) -> Harm:
    def change(records: list[bytes]) -> list[bytes]:
        records[index] = b"\0" * len(records[index])
        return records

    return with_records(change)


def insert_behind(index: int, junk: bytes) -> Harm:
    def change(records: list[bytes]) -> list[bytes]:
        records[index] += junk
        return records

    return with_records(change)


def crlf(data: bytes) -> bytes:
    return data.replace(b"\n", b"\r\n")


def bom(data: bytes) -> bytes:
    return b"\xef\xbb\xbf" + data


def trailer_of(data: bytes, generation: str = GENERATION) -> bytes:
    """As docs/format.md spells it."""
    return b"--- # pstate moved %s 0000000040 12345678 0000000004 %08x\n" % (generation.encode(), crc32(data))


def trailer_behind(data: bytes) -> bytes:
    return data + trailer_of(data)


@pytest.mark.parametrize(
    ("harm", "verdict", "commits", "following"),
    [
        pytest.param(lambda data: data, CLEAN, 4, 0, id="unharmed"),
        pytest.param(crlf, CLEAN, 4, 0, id="CRLF"),
        pytest.param(bom, CLEAN, 4, 0, id="byte order mark"),
        pytest.param(lambda data: bom(crlf(data)), CLEAN, 4, 0, id="both"),
        pytest.param(cut_bytes(1), TORN, 3, 0, id="last marker without its newline"),
        pytest.param(cut_bytes(2), TORN, 3, 0, id="last marker without its last digit"),
        pytest.param(cut_bytes(15), TORN, 3, 0, id="last record without its marker"),
        pytest.param(cut_bytes(30), TORN, 3, 0, id="last record cut within its body"),
        pytest.param(lambda data: crlf(data)[:-1], TORN, 3, 0, id="CRLF cut in two"),
        pytest.param(append(b"-"), TORN, 4, 0, id="first byte of a record"),
        pytest.param(append(b"--- "), TORN, 4, 0, id="record without a body"),
        pytest.param(append(b'--- [["set",[],"counter",5]]\n'), TORN, 4, 0, id="body without a marker"),
        pytest.param(append(b"\0" * 4096), DAMAGED, 4, 0, id="zeroes after the last commit"),
        pytest.param(append(b"\n"), TORN, 4, 0, id="empty line after the last commit"),
        pytest.param(append(b"junk\n"), DAMAGED, 4, 0, id="junk after the last commit"),
        pytest.param(flip_bit_in_body(-1), DAMAGED, 3, 0, id="bit flipped in the last record"),
        pytest.param(flip_bit_in_marker(-1), DAMAGED, 3, 0, id="bit flipped in the last marker"),
        pytest.param(flip_bit_in_dots(-1), DAMAGED, 3, 0, id="bit flipped in the last marker's dots"),
        pytest.param(flip_bit_in_body(-2), DAMAGED, 2, 1, id="bit flipped with a commit after it"),
        pytest.param(flip_bit_in_marker(-2), DAMAGED, 2, 1, id="bit flipped in a marker with a commit after it"),
        pytest.param(
            flip_bit_in_dots(-2), DAMAGED, 2, None, id="bit flipped in a marker's dots with a commit after it"
        ),
        pytest.param(flip_bit_in_body(0), DAMAGED, 0, 3, id="bit flipped in the first record"),
        pytest.param(flip_bit_in_marker(0), DAMAGED, 0, 3, id="bit flipped in the first marker"),
        pytest.param(repeat_record(-1), DAMAGED, 4, 0, id="same record twice at the end"),
        pytest.param(repeat_record(1), DAMAGED, 2, 2, id="same record twice in the middle"),
        pytest.param(drop_record(-1), CLEAN, 3, 0, id="last record missing"),
        pytest.param(drop_record(1), DAMAGED, 1, 1, id="record missing in the middle"),
        pytest.param(drop_record(0), DAMAGED, 0, 2, id="first record missing"),
        pytest.param(swap_records(0, 1), DAMAGED, 0, None, id="first records in the wrong order"),
        pytest.param(swap_records(1, 2), DAMAGED, 1, None, id="records in the wrong order"),
        pytest.param(join_records(1), DAMAGED, 1, None, id="newline of a marker lost with commits after it"),
        pytest.param(zero_record(1), DAMAGED, 1, 2, id="hole of zeroes with commits after it"),
        pytest.param(zero_record(-2), DAMAGED, 2, None, id="hole of zeroes before the last commit"),
        pytest.param(insert_behind(1, b"\n"), DAMAGED, 2, 2, id="empty line between records"),
        pytest.param(insert_behind(1, b"# a remark\n"), DAMAGED, 2, 2, id="comment between records"),
        pytest.param(insert_behind(2, b"\n"), DAMAGED, 3, 1, id="empty line before the last record"),
        pytest.param(insert_behind(2, b"\0" * 512), DAMAGED, 3, 1, id="zeroes before the last record"),
        pytest.param(flip_bit_in_base_marker(15), DAMAGED, 0, 3, id="bit flipped in the generation"),
        pytest.param(trailer_behind, MOVED, 4, 0, id="moved trailer"),
        pytest.param(lambda data: crlf(trailer_behind(data)), MOVED, 4, 0, id="moved trailer, CRLF"),
        pytest.param(lambda data: trailer_behind(data)[:-1], TORN, 4, 0, id="moved trailer without its newline"),
        pytest.param(lambda data: trailer_behind(data)[:-30], TORN, 4, 0, id="moved trailer cut"),
        pytest.param(lambda data: trailer_behind(data) + b"x", DAMAGED, 4, 0, id="junk after a moved trailer"),
    ],
)
def test_every_kind_of_damage_has_its_verdict(
    harm: Harm, verdict: Verdict, commits: int, following: int | None
) -> None:
    data = harm(FILE)
    image = f.scan(data)

    assert (verdict, commits) == (image.verdict, image.index)
    assert BODIES[:commits] == image.bodies
    assert data[image.end :] == image.rest
    if following is None:
        assert image.following > 0
    else:
        assert following == image.following
    assert bool(image.reason) == (verdict in (TORN, DAMAGED))
    assert not image.base_edited


def test_a_commit_behind_a_moved_trailer_is_not_lost_silently() -> None:
    """A trailer counts only as the last line: an editor's copy may end in one, and a commit may follow it."""
    record, _ = f.encode_record('[["set",[],"late",1]]', f.scan(FILE).crc)
    image = f.scan(trailer_behind(FILE) + record)

    assert (DAMAGED, 1) == (image.verdict, image.following)
    assert image.trailer is None


@pytest.mark.parametrize("index", range(len(BODIES)))
def test_every_bit_flip_in_a_record_is_damage(index: int) -> None:
    base, marker, records = parts(FILE)
    start = len(base + marker + b"".join(records[:index]))
    for offset in range(start, start + len(records[index])):
        for bit in range(8):
            image = f.scan(flipped(FILE, offset, bit))
            assert image.index == index, (offset - start, bit)
            assert image.verdict is DAMAGED, (offset - start, bit)


FILLERS: dict[str, Callable[[int], bytes]] = {
    "zeros": bytes,
    "blanks": lambda length: b" " * length,
    "letters": lambda length: b"x" * length,
    "newlines": lambda length: b"\n" * length,
    "quotes": lambda length: b'"' * length,
    "brackets": lambda length: b"]" * length,
    "another string": lambda length: (b'a: [1, "b"]\n' * length)[:length],
    "nothing": lambda length: b"",
}


@pytest.mark.parametrize("filler", FILLERS)
@pytest.mark.parametrize("index", range(1, len(BODIES)))
def test_damage_that_reaches_from_one_record_into_the_next_is_never_torn(index: int, filler: str) -> None:
    """The last one would be cut off with it, acknowledged as it is."""
    base, marker, records = parts(FILE)
    start = len(base + marker + b"".join(records[: index - 1]))
    middle = start + len(records[index - 1])
    for first in range(start, middle):
        for behind in {middle - 1, middle, middle + 1, middle + 5, middle + 9, middle + len(records[index]) - 16}:
            if behind <= first:
                continue
            data = FILE[:first] + FILLERS[filler](behind - first) + FILE[behind:]
            if data != FILE:
                image = f.scan(data)
                assert image.verdict is DAMAGED, (first - start, behind - start)
                assert BODIES[: image.index] == image.bodies


@pytest.mark.parametrize("name", ["operations-killed", "values-killed", "crlf-killed", "power-killed"])
def test_every_cut_of_every_kind_of_record_is_torn(name: str) -> None:
    """Also where an editor, which has changed the document too, has ended it with a newline since."""
    data = Path(__file__).parent.joinpath("golden", "v1", f"{name}.yaml").read_bytes()
    whole = f.scan(data)
    assert whole.verdict is CLEAN
    assert whole.marker is not None
    start = len(whole.base) + len(whole.marker.encode())
    for length in [*range(start, start + 4000), *range(start + 4000, len(data), 7)]:
        image = f.scan(data[:length])
        assert image.verdict in (CLEAN, TORN), (length, data[length - 40 : length])
        assert whole.bodies[: image.index] == image.bodies
        if image.bodies:
            for end in (b"\n", b"\r\n"):
                assert f.scan(b"# edited\n" + data[:length] + end).verdict in (CLEAN, TORN)
                assert f.scan(data[:length] + end).verdict is not MOVED


@pytest.mark.timeout(10)
@pytest.mark.parametrize(
    "text", ['"' * 100_000, '\\"' * 50_000, "[" * 100_000, "... # 0123abcd" * 10_000, "é" * 50_000]
)
def test_a_long_text_that_is_torn_is_judged_at_once(text: str) -> None:
    body = records.encode_body([["set", [], "text", text]])
    for cut in (body[:-2], body[: len(body) // 2], body):
        assert f.scan(FILE + b"--- " + cut.encode()).verdict is TORN
        assert f.scan(FILE + b"--- " + cut.encode() + b'x"\n... # 0123abcd\n').verdict is DAMAGED


@pytest.mark.parametrize("bit", range(8))
def test_no_bit_flip_in_the_base_marker_hides_commits(bit: int) -> None:
    """It is damage, an edit, another version, or no marker at all; never a shorter journal that looks whole or torn."""
    hidden = []
    for offset in range(len(marker_of(BASE).encode()) - 1):
        image = f.scan(flip_bit_in_base_marker(offset)(FILE) if bit == 0 else flipped(FILE, len(BASE) + offset, bit))
        if image.marker is None:
            told = image.verdict is DAMAGED or image.version != f.VERSION or b"--- [" in image.base
        else:
            told = image.verdict is DAMAGED or image.base_edited or (image.verdict is CLEAN and image.bodies == BODIES)
        if not told:
            hidden.append((offset, image))

    assert [] == hidden


@pytest.mark.parametrize("generation", ["00000001", "5f2c81d0", "ffffffff"])
@pytest.mark.parametrize("power", [False, True])
def test_base_marker_round_trip_in_fixed_width(generation: str, power: bool) -> None:
    marker = marker_of(BASE, generation, power)
    encoded = marker.encode()

    assert (marker, len(encoded)) == f.read_marker(encoded)
    assert len(marker_of(b"", "00000000").encode()) == len(encoded)
    assert encoded.endswith(b" w\n" if power else b" p\n")


def test_trailer_round_trip_in_fixed_width() -> None:
    trailer = f.read_trailer(trailer_of(FILE))

    assert trailer is not None
    assert (GENERATION, 40, 0x12345678) == (trailer.generation, trailer.length, trailer.crc)
    assert (4, crc32(FILE)) == (trailer.index, trailer.own_crc)
    assert trailer_of(FILE) == trailer.encode()
    assert f.read_trailer(trailer_of(FILE)[:-1]) is None
    assert len(f.Trailer(GENERATION, 0, 0, 0, 0).encode()) == len(trailer_of(FILE))


@pytest.mark.parametrize("data", [BASE, FILE], ids=["plain", "with a journal"])
def test_every_cut_of_a_moved_trailer_is_torn(data: bytes) -> None:
    trailer = trailer_of(data)
    whole = f.scan(data)
    for cut in range(1, len(trailer)):
        image = f.scan(data + trailer[:cut])
        assert (TORN, whole.base, whole.bodies) == (image.verdict, image.base, image.bodies), cut
        assert len(data) == image.end


def test_a_file_without_a_journal_may_be_moved_too() -> None:
    image = f.scan(BASE + trailer_of(BASE, f.NO_GENERATION))

    assert (MOVED, BASE) == (image.verdict, image.base)
    assert image.trailer is not None
    assert trailer_of(BASE, f.NO_GENERATION) == image.trailer.encode()
    assert image.end == len(BASE)


# ------------------------------------------------------------------ the first commit, torn


def first_commit(base: bytes) -> tuple[bytes, bytes]:
    """The base document, as the first commit makes it, and the bytes of that one write."""
    empty = all(not line.strip() or line.startswith(b"#") for line in base.removeprefix(b"\xef\xbb\xbf").split(b"\n"))
    prefix = b"" if not empty else b"{}\n" if not base or base.endswith(b"\n") else b"\n{}\n"
    record, _ = f.encode_record(BODIES[0], f.first_crc(GENERATION))
    return base + prefix, prefix + marker_of(base + prefix).encode() + record


@pytest.mark.parametrize(
    "base", [b"", b"\n", b"# only\n# comments\n", b"# c", b"\xef\xbb\xbf# c\n", BASE, b"{}\n", b"a: '...'\n"]
)
def test_every_cut_of_a_first_commit_shows_the_document_without_it(base: bytes) -> None:
    whole, written = first_commit(base)
    for cut in range(len(written)):
        data = base + written[:cut]
        image = f.scan(data)

        # `{}` is the empty document's value too, and a bare `...` changes none: they may as well stay.
        ended = (base + b"...", whole + b"...", base + b"... ", whole + b"... ")
        assert image.base in (base, base + b"\n", whole, *ended), cut
        assert [] == image.bodies
        assert image.marker is None
        assert image.verdict in ((CLEAN, TORN) if data == image.base else (TORN,)), cut
        assert image.base + image.rest == data
        assert image.end == len(image.base)
    assert f.scan(base + written).bodies == BODIES[:1]


#: Ends of documents after which a line of ours is not easily told from a person's.
BASES = [
    b"a: 1\n", b"a:\n", b"a: &x\n", b"a: # c\n", b"a:\n# c\n\n",
    b"a:\n- x\n", b"a:\n- - -\n", b"a:\n- b: c\n  d: e\n", b"a:\n  - x\n", b"a:\n  b:\n", b"a: |\n  t\n",
    b"a: |\n  t:\n", b"a: |\n", b"'k #1': &x # c\n", b"? x\n", b"? x\n: y\n", b"{}\n", b"{a: [\n1]\n}\n",
    b'a: "x\n y"\n', b"a: x\n  y\n", b"a:\n  ? b\n", b"a: 1\r\n", b"a:\r\n- x\r\n",
    b"\xef\xbb\xbfa: 1\n", b"---\na: 1\n", b"%YAML 1.1\n---\na:\n", b"null\n", b"---\n", b"a: 1\n...\n",
]  # fmt: skip


@pytest.mark.parametrize("base", BASES)
def test_every_cut_of_a_line_of_ours_shows_the_document_before_it(base: bytes) -> None:
    """Wherever one may be written at all; and where it may not, a person's last line is not taken for it."""
    before = reading.load(base, "")
    lines = []
    if before.appendable:
        lines.append(marker_of(base).encode())
    if f.takes_trailer(base):
        assert before.appendable
        lines.append(trailer_of(base, f.NO_GENERATION))
    for line in lines:
        for cut in range(1, len(line)):
            image = f.scan(base + line[:cut])
            assert same(before.value, reading.load(image.base, "").value), line[:cut]
            assert image.base + image.rest == base + line[:cut]
    for line in (b"-", b"--", b"---", b".", b"..", b"...", b"- y"):
        image = f.scan(base + line)
        try:
            reading.load(base + line, "")
        except InvalidStateError:
            continue
        assert (CLEAN, base + line) == (image.verdict, image.base)


@pytest.mark.parametrize("base", [b"a: 1\n", b"{}\n", b"a:\n  - x\n", b"seen: !!set\n  ? a\n", b"a: |\n  t\n"])
def test_a_document_as_we_write_it_takes_a_trailer(base: bytes) -> None:
    assert base == dumping.dump(reading.load(base, "").value)
    assert f.takes_trailer(base)


LINES = [
    "a:", "b: 1", "  c:", "  - d", "- e", "# f", "", " &g", " !!seq", "  h", "? i", ": j", "k: |", "l: {m: 1}", " # n:",
    "o: p #q:", "...", "---", "{}", "'r': s",
]  # fmt: skip


@settings(max_examples=300)
@given(st.lists(st.sampled_from(LINES), max_size=6))
def test_where_a_trailer_is_taken_its_first_byte_is_no_yaml(lines: list[str]) -> None:
    base = "".join(line + "\n" for line in lines).encode()
    try:
        reading.load(base, "")
    except InvalidStateError:
        return

    if f.takes_trailer(base):
        for line in (b"-", b"--", b"---", b"--- "):
            with pytest.raises(InvalidStateError):
                reading.load(base + line, "")


@pytest.mark.parametrize("data", [b"-", b"--", b".", b"..", b"# c\n-", b"a:\n- x\n-", b"a:\n-", b"---", b"# c\n--- "])
def test_what_a_person_may_have_written_is_not_torn(data: bytes) -> None:
    image = f.scan(data)

    assert (CLEAN, data, b"") == (image.verdict, image.base, image.rest)


# ------------------------------------------------------------------ the first commit, lost in a power cut


def padded(data: bytes, size: int = f.SECTOR) -> bytes:
    """Up to the end of a sector."""
    return data + b"\0" * (-len(data) % size)


@pytest.mark.parametrize(
    ("data", "verdict", "following"),
    [
        pytest.param(BASE + b"\0" * 100, TORN, 0, id="zeros to the end of the file"),
        pytest.param(BASE + b"\0", TORN, 0, id="one zero"),
        pytest.param(padded(BASE), TORN, 0, id="zeros to the end of a sector"),
        pytest.param(padded(BASE) + b"xyz", TORN, 0, id="the beginning of a record in the next sector"),
        pytest.param(padded(BASE) + RECORDS[1], DAMAGED, 1, id="a record after the sector"),
        pytest.param(padded(BASE) + RECORDS[2] + RECORDS[3], DAMAGED, 2, id="records after the sector"),
        pytest.param(BASE + b"... # pstate 1 5f2c" + b"\0" * 30, TORN, 0, id="the beginning of the marker is left"),
        pytest.param(BASE + b"... #" + b"\0" * 30, TORN, 0, id="less of it"),
        pytest.param(BASE + b".." + b"\0" * 30, TORN, 0, id="two bytes of it"),
        pytest.param(padded(trailer_behind(BASE)), TORN, 0, id="the trailer of a dead vacuum before it"),
        pytest.param(padded(BASE + b"--- # pstate mo"), CLEAN, 0, id="a torn trailer before it"),
        pytest.param(BASE + b"." + b"\0" * 9, CLEAN, 0, id="a single byte may be UTF-32"),
        pytest.param(BASE + b"x" + b"\0" * 9, CLEAN, 0, id="after something else"),
        pytest.param(BASE + b"\0" * 9 + b"x", CLEAN, 0, id="not to the end of a sector"),
        pytest.param("a: 1\nb: 2\n".encode("utf-16"), CLEAN, 0, id="UTF-16"),
        pytest.param("a: 1\nb: 2\n".encode("utf-16-le"), CLEAN, 0, id="UTF-16 LE"),
        pytest.param("a: 1\nb: 2\n".encode("utf-32-be"), CLEAN, 0, id="UTF-32 BE"),
    ],
)
def test_zeros_where_the_base_marker_should_be_are_a_hole(data: bytes, verdict: Verdict, following: int) -> None:
    image = f.scan(data)

    assert (verdict, following, verdict is not CLEAN) == (image.verdict, image.following, image.hole)
    assert (BASE if image.hole else data) == image.base
    assert image.base + image.rest == data
    assert not image.bodies
    assert image.trailer is None


def test_a_file_of_nothing_but_zeros_is_a_new_one_that_lost_its_first_commit() -> None:
    image = f.scan(b"\0" * 4096)

    assert (TORN, b"", True) == (image.verdict, image.base, image.hole)


def test_zeros_behind_a_base_marker_are_no_lost_one() -> None:
    assert not f.scan(FILE + b"\0" * 512).hole
    assert BODIES == f.scan(FILE + b"\0" * 512).bodies


@pytest.mark.parametrize("base", [b"{", b"{}", b"{}\n", b"# c\n{}", b"a: 1\n", b"a: 1"])
def test_bases_that_a_person_wrote_are_whole(base: bytes) -> None:
    """What looks like the beginning of a first commit is judged torn only where nothing is lost by that."""
    image = f.scan(base)

    assert image.bodies == []
    assert image.base + image.rest == base
    if image.verdict is TORN:
        assert image.rest in (b"{", b"{}")


def test_a_marker_line_is_found_only_at_column_0() -> None:
    base = b'text: "\n  ... # pstate 1 "\nother: x ... # pstate 1\n'

    assert f.find_marker(base) == -1
    image = f.scan(file_of(BODIES, base))
    assert (base, BODIES) == (image.base, image.bodies)


def test_a_file_that_is_a_marker_from_its_first_byte() -> None:
    assert f.find_marker(marker_of(b"").encode()) == 0
    image = f.scan(file_of(BODIES, b""))
    assert (b"", BODIES, CLEAN) == (image.base, image.bodies, image.verdict)


@pytest.mark.parametrize("version", [0, 2, 9, 10, 4711])
def test_another_version_is_named(version: int) -> None:
    image = f.scan(FILE.replace(b"# pstate 1 ", b"# pstate %d " % version))

    assert (version, DAMAGED, []) == (image.version, image.verdict, image.bodies)


def test_an_edited_base_is_told_from_damage() -> None:
    image = f.scan(FILE.replace(b"counter: 3\n", b"counter: 100\n"))

    assert image.base_edited
    assert (CLEAN, BODIES) == (image.verdict, image.bodies)


@pytest.mark.parametrize("change", [crlf, bom, lambda data: bom(crlf(data))])
def test_line_ends_and_byte_order_mark_are_no_edit(change: Harm) -> None:
    assert not f.scan(change(FILE)).base_edited
    assert f.scan(change(FILE.replace(b"counter: 3", b"counter: 4"))).base_edited


def test_line_numbers_count_from_one() -> None:
    assert f.line_number(FILE, 0) == 1
    assert f.line_number(FILE, len(BASE)) == 5
    assert f.line_number(FILE, len(BASE) - 1) == 4


@pytest.mark.timeout(10)
def test_a_long_torn_tail_is_judged_at_once() -> None:
    """A long text full of what a record begins with: the time must grow with its length, not with its square."""
    image = f.scan(FILE + b'--- [["set",[],"table","' + b"--- " * 50_000)

    assert (TORN, BODIES) == (image.verdict, image.bodies)


@given(st.binary(max_size=200))
def test_any_bytes_can_be_judged(data: bytes) -> None:
    image = f.scan(data)

    assert 0 <= image.end <= len(data)
    assert data[image.end :] == image.rest


@settings(max_examples=200)
@given(
    st.lists(st.sampled_from([b"--- ", b"... # ", b"... # pstate 1 ", b"\n", b"\r\n", b"{}", b"a: 1\n", b"\0",
                              b"5f2c81d0", FILE, FILE[:60], FILE[60:], FILE[-44:], b"--- # pstate moved "]), max_size=8)
)  # fmt: skip
def test_any_mixture_of_our_own_pieces_can_be_judged(pieces: list[bytes]) -> None:
    data = b"".join(pieces)
    image = f.scan(data)

    assert data[image.end :] == image.rest
    assert data.startswith(image.base)
    # What is committed chains from the marker, whatever is around it.
    crc = f.first_crc(image.marker.generation) if image.marker else 0
    for body in image.bodies:
        crc = crc32(body.encode(), crc)
    assert crc == image.crc


@settings(max_examples=200)
@given(st.lists(st.text(st.characters(codec="utf-8")), min_size=1, max_size=5))
def test_what_is_encoded_is_scanned_whole_and_each_cut_is_a_prefix(texts: list[str]) -> None:
    bodies = [records.encode_body([["set", [], text, {text: [text]}]]) for text in texts]
    data = file_of(bodies)
    assert (bodies, CLEAN) == (f.scan(data).bodies, f.scan(data).verdict)

    for cut in range(len(BASE) + 1, len(data)):
        image = f.scan(data[:cut])
        assert image.bodies == bodies[: image.index]
        assert len(image.bodies) < len(bodies)
        assert image.verdict in (CLEAN, TORN)
        assert image.base in (BASE, BASE + b"...", BASE + b"... ")


def test_a_damaged_byte_of_the_marker_at_the_end_of_a_sector_hides_no_commit() -> None:
    """One zero in the marker is damage, however it lies: it must not pass for a hole that a power cut has left."""
    base = b"# " + b"x" * 440 + b"\n" + BASE
    marker = f.BaseMarker("5f2c81d0", len(base), crc32(base), "00000000", False).encode()
    record, _ = f.encode_record('[["set",[],"counter",4]]', f.first_crc("5f2c81d0"))
    data = bytearray(base + marker + record)
    assert len(base) < f.SECTOR < len(base + marker)
    data[f.SECTOR - 1] = 0

    image = f.scan(bytes(data))

    assert not image.hole
    assert image.verdict is DAMAGED


def test_the_rest_of_a_lost_record_is_no_commit_whatever_its_text_says() -> None:
    """With a hole before it, a string that looks like the beginning of a record is still the end of the lost one."""
    body = '[["set",[],"text","' + "x" * 600 + ' --- [[ "]]'
    record, _ = f.encode_record(body, f.first_crc("5f2c81d0"))
    marker = f.BaseMarker("5f2c81d0", len(BASE), crc32(BASE), "00000000", True).encode()
    first, _ = f.encode_record('[["set",[],"counter",4]]', f.first_crc("5f2c81d0"))

    image = f.scan(BASE + marker + first + b"\0" * 512 + record[512:])

    assert (DAMAGED, 0, 1) == (image.verdict, image.following, image.index)


@pytest.mark.parametrize(
    ("tail", "following"),
    [
        (b'--- [[]]\\n... # 0123abcd\\n"]]\n... # 3332db01\n', 0),
        (b'--- [["set",[],"a","\\n--- [[]]\\n"]]\n... # 3332db01\n', 1),
        (b'x --- [["set",[],"a",1]]\n... # 3332db01\n', 0),
    ],
    ids=["the end of a string of the lost record", "a whole record", "not after the zeros"],
)
def test_what_follows_zeros_counts_as_a_commit_only_if_it_is_a_whole_record(tail: bytes, following: int) -> None:
    image = f.scan(FILE + b"\0" * 512 + tail)

    assert (DAMAGED, following) == (image.verdict, image.following)
    assert BODIES == image.bodies
