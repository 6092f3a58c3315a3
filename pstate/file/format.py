"""The state file as bytes: base document, base marker, records, commit markers, the checksum chain, the moved trailer.

Pure functions; no file is opened here, and no record is decoded. `scan` is the only place that decides which bytes are
committed, torn, damaged or moved. The format is specified in docs/format.md; if this module and that page disagree,
the page is right.
"""

from __future__ import annotations

import codecs
import enum
import re
from functools import partial
from itertools import islice, pairwise
from typing import NamedTuple
from zlib import crc32

from pstate.errors import InvalidStateError
from pstate.text import reading

VERSION = 1
UNKNOWN_BOOT = "00000000"  #: written where the system has no boot id; equals no boot, not even itself
NO_GENERATION = "00000000"

EMPTY_MAPPING = b"{}\n"

RECORD = b"--- %b\n... # %08x\n"  #: body and checksum
#: The bytes that a disk writes as a whole or not at all; larger blocks are multiples of it.
SECTOR = 512
_BEGINNING = re.compile(rb"--- ")
_ZEROS = re.compile(rb"\0+")
_SIGNATURE = b"... # pstate "
_MOVED = b"--- # pstate moved "
#: With at least so many bytes, the beginning of a line of ours is not the end of a person's document: `... #`, `--- #`.
_UNMISTAKABLE = 5
_MARKER = re.compile(rb"\.\.\. # pstate (\d+) ([0-9a-f]{8}) (\d{10}) ([0-9a-f]{8}) ([0-9a-f]{8}) ([pw])\r?\n")
_RECORD = re.compile(rb"--- ([^\n]*)\n\.\.\. # ([0-9a-f]{8})\r?\n")
#: A string in a body, and its closing quote; nothing, or half of an escape, if the body ends within the string.
_QUOTED = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*("|\\?\Z)')
#: The bytes of a body outside strings: brackets, numbers, dates, null and tags. It never has a control character.
_OUTSIDE_TEXTS = re.compile(rb"[][{}0-9A-Za-z.:,?!+ _-]*")
#: A closing bracket is followed by another one, or by a comma.
_GOES_ON_AMISS = re.compile(rb"[]}][^]},]")
_CONTROL = re.compile(rb"[\x00-\x1f\x7f]")
_BRACKET = re.compile(rb"[][{}]")
_COMMIT_MARKER = re.compile(rb"\.\.\. # [0-9a-f]{8}(?:--- [^\n]*)?\r?")
_LAST_AT_COLUMN_0 = re.compile(rb"(?s).*\n([^ \t#\r\n][^\n]*)")
_LAST_WITH_CONTENT = re.compile(rb"(?s).*\n[ \t]*([^ \t#\r\n][^\n]*)")
_COMMENT = re.compile(rb"[ \t]#")
_TRAILER = re.compile(
    rb"--- # pstate moved ([0-9a-f]{8}) (\d{10}) ([0-9a-f]{8}) (\d{10}) ([0-9a-f]{8})\r?\n",
)


class Verdict(enum.Enum):
    """What follows the last commit."""

    CLEAN = "clean"  #: nothing
    TORN = "torn"  #: the beginning of one write that was not finished: the next writer cuts it off
    MOVED = "moved"  #: the trailer of a vacuum: the state is in the file that is now at the path
    DAMAGED = "damaged"  #: anything else, whether records follow or not


class BaseMarker(NamedTuple):
    """The line that ends the base document and names the generation of the journal that follows."""

    generation: str  #: 8 hex digits, drawn at random for each journal
    length: int  #: of the base document, in bytes
    crc: int  #: CRC-32 of the base document
    boot: str  #: 8 hex digits of the system's boot id
    power: bool  #: written with durability "power"

    def encode(self) -> bytes:
        flag = "w" if self.power else "p"
        text = f"... # pstate {VERSION} {self.generation} {self.length:010d} {self.crc:08x} {self.boot} {flag}\n"
        return text.encode("ascii")

    def describes(self, base: bytes) -> bool:
        """Whether *base* is the document that this marker was written after.

        An editor that only changed the line ends, or added a byte order mark, has changed no value.
        """
        if len(base) == self.length and crc32(base) == self.crc:
            return True
        plain = base.removeprefix(b"\xef\xbb\xbf").replace(b"\r\n", b"\n")
        return len(plain) == self.length and crc32(plain) == self.crc


class Trailer:
    """The last line of a file that has been replaced: how to recognise its successor."""

    __slots__ = ("crc", "generation", "index", "length", "own_crc")

    def __init__(self, generation: str, length: int, crc: int, index: int, own_crc: int) -> None:
        self.generation = generation  #: of the file that the trailer ends
        self.length = length  #: of the new base document, in bytes
        self.crc = crc  #: CRC-32 of the new base document
        self.index = index  #: the last commit of the old file that the new base contains
        self.own_crc = own_crc  #: CRC-32 of every byte of the old file before the trailer

    def encode(self) -> bytes:
        text = f"--- # pstate moved {self.generation} {self.length:010d} {self.crc:08x} {self.index:010d}"
        return f"{text} {self.own_crc:08x}\n".encode("ascii")


#: The lines of fixed width: how they are read, and one of each.
_SAMPLES = {
    _MARKER: BaseMarker(NO_GENERATION, 0, 0, UNKNOWN_BOOT, False).encode(),
    _TRAILER: Trailer(NO_GENERATION, 0, 0, 0, 0).encode(),
}


class Image:
    """A whole state file, judged. Offsets count bytes from the beginning of the file."""

    __slots__ = (
        "base",
        "bodies",
        "crc",
        "end",
        "following",
        "hole",
        "marker",
        "reason",
        "rest",
        "trailer",
        "verdict",
        "version",
    )

    def __init__(
        self,
        base: bytes,
        marker: BaseMarker | None = None,
        bodies: list[str] | None = None,
        end: int = 0,
        crc: int = 0,
        rest: bytes = b"",
        verdict: Verdict = Verdict.CLEAN,
    ) -> None:
        self.base = base
        self.marker = marker
        self.bodies: list[str] = bodies or []  #: of the committed records, in order
        self.end = end  #: the end of the last commit, or of the base document if there is none
        self.crc = crc  #: the checksum that the next record is chained to
        self.rest = rest  #: everything after `end`
        self.verdict = verdict
        self.trailer: Trailer | None = None
        self.following = 0  #: whole records after the damage, as far as they can be recognised
        self.hole = False  #: whether zeros are in the place of the base marker, which a power cut kept from the disk
        self.reason = ""  #: what is wrong with the first bytes of `rest`
        self.version = VERSION  #: that of the base marker; all else is empty if it is not ours

    @property
    def index(self) -> int:
        """The number of the last commit in this generation; 0 without one."""
        return len(self.bodies)

    @property
    def base_edited(self) -> bool:
        """Whether the base document is not the one that the journal was written after."""
        return self.marker is not None and bool(self.bodies) and not self.marker.describes(self.base)


def first_crc(generation: str) -> int:
    """The checksum that the first record of *generation* is chained to."""
    return int(generation, 16)


def encode_record(body: str, crc: int) -> tuple[bytes, int]:
    """The bytes of a record with *body* after a commit with checksum *crc*, and the record's own checksum."""
    data = body.encode("utf-8")
    crc = crc32(data, crc)
    return RECORD % (data, crc), crc


def read_records(data: bytes, start: int, crc: int) -> tuple[list[str], int, int]:
    """The bodies of the committed records in *data* from offset *start* on, chained to *crc*.

    Returns them with the end of the last one and its checksum. Stops at the first byte that does not begin a valid
    record, without judging it.
    """
    bodies: list[str] = []
    match = _RECORD.match
    while found := match(data, start):
        body, written = found.groups()
        # An editor may have saved the file with CRLF; a body never ends in a carriage return of its own.
        body = body.removesuffix(b"\r")
        computed = crc32(body, crc)
        if computed != int(written, 16):
            break
        try:
            bodies.append(body.decode("utf-8"))
        except UnicodeDecodeError:
            break
        crc = computed
        start = found.end()
    return bodies, start, crc


def read_marker(data: bytes, start: int = 0) -> tuple[BaseMarker, int] | None:
    """The base marker that begins at *start*, and its end; None without one of our version."""
    found = _MARKER.match(data, start)
    if found is None or int(found[1]) != VERSION:
        return None
    generation, length, crc, boot, flag = found.groups()[1:]
    marker = BaseMarker(generation.decode(), int(length), int(crc, 16), boot.decode(), flag == b"w")
    return marker, found.end()


def read_trailer(rest: bytes) -> Trailer | None:
    """The moved trailer that *rest*, everything after the last commit, consists of; None if it is not one."""
    found = _TRAILER.fullmatch(rest)
    if found is None:
        return None
    generation, length, crc, index, own_crc = found.groups()
    return Trailer(generation.decode(), int(length), int(crc, 16), int(index), int(own_crc, 16))


def split_trailer(data: bytes) -> tuple[int, Trailer] | None:
    """Where the trailer that ends *data* begins, and the trailer, if its checksum holds for all before it."""
    start = _last_line(data)
    trailer = read_trailer(data[start:])
    if trailer is None or crc32(data[:start]) != trailer.own_crc:
        return None
    return start, trailer


def without_torn_trailer(data: bytes) -> bytes:
    """*data* without the beginning of a moved trailer at its end; for a file that no state depends on."""
    last = data[(start := _last_line(data)) :]
    is_torn = len(last) > len(b"--- ") and (last.startswith(_MOVED) or _MOVED.startswith(last))
    return data[:start] if is_torn and not last.endswith(b"\n") else data


def _last_line(data: bytes) -> int:
    """Where the last line of *data* begins."""
    return data.rfind(b"\n", 0, max(0, len(data) - 1)) + 1


def find_marker(data: bytes) -> int:
    """The offset of the first line that begins like a base marker, or -1.

    No scalar of a base document can have such a line at column 0 (docs/format.md), so the first one is the true one.
    """
    if data.startswith(_SIGNATURE):
        return 0
    return data.find(b"\n" + _SIGNATURE) + 1 or -1


def torn_line(data: bytes) -> int:
    """The offset of an unfinished line of ours that ends *data*, after a base document without a marker; or -1.

    The newline belongs to the line. Without it, any part of the line is the torn tail of a first commit or of a vacuum.
    But a person may have written the first bytes of it, and no newline. Those count as ours only if we may have begun a
    line there, and if they are not YAML.
    """
    line_start = data.rfind(b"\n") + 1
    line = data[line_start:]
    if line in (b"{", b"{}") and has_no_node(data[:line_start]):
        return line_start  # the beginning of `first_node`
    if not line or not any(line.startswith(ours) or ours.startswith(line) for ours in (_SIGNATURE, _MOVED)):
        return -1
    if len(line) >= _UNMISTAKABLE or (_takes_line(data[:line_start]) and not _is_document(data)):
        return line_start
    return -1


def _takes_line(base: bytes) -> bool:
    """Whether we may have begun a line of ours after *base*."""
    try:
        return reading.load(base, "").appendable
    except InvalidStateError:
        return False


def _is_document(data: bytes) -> bool:
    try:
        reading.load(data, "")
    except InvalidStateError:
        return False
    return True


def takes_trailer(base: bytes) -> bool:
    """Whether a moved trailer may follow *base*, a document without a marker: it must be recognised if torn anywhere.

    The first byte of it could be the last element of a list: after `a:`, say, or `- x`. Only the last lines decide,
    because every look at the path asks for it; in doubt, they decide against the trailer. Without one, a program with
    the file open takes the new one for an edit that changes nothing, and looks at the path before each read.
    """
    last = _LAST_AT_COLUMN_0.match(b"\n" + base.removeprefix(b"\xef\xbb\xbf"))
    content = _LAST_WITH_CONTENT.match(b"\n" + base.removeprefix(b"\xef\xbb\xbf"))
    if not base.endswith(b"\n") or last is None or content is None:
        return False
    line = last[1]
    if line[:1] in b"-?:.%&!" or (b":" not in line and b"}" not in line):
        return False  # a list, an end of the document, perhaps not a mapping
    # A value that would follow: after a colon, or after its anchor or tag. Text that looks like a comment may be one.
    line = content[1].rstrip()
    ends = [line, *(line[: comment.start()].rstrip() for comment in _COMMENT.finditer(line))]
    return not any(end.endswith((b":", b"?", b"-")) or end.split()[-1:][0][:1] in (b"&", b"!") for end in ends if end)


def is_begun(rest: bytes, crc: int, edited: bool = False) -> bool:
    """Whether *rest*, after the last commit, whose checksum is *crc*, is an unfinished write of ours, or blank lines.

    An unfinished write is the beginning of a record or of a moved trailer. In an *edited* file, the editor may have
    ended it with a newline.
    """
    tail = rest.rstrip(b"\r\n")
    if not tail or _is_beginning(rest, crc):
        return True
    return edited and _RECORD.match(rest) is None and _is_beginning(tail, crc)


def has_more(image: Image) -> bool:
    """Whether the bytes to cut off *image* may be more than the beginning of one write, and zeros after it."""
    torn = image.rest.rstrip(b"\0")
    if image.hole:
        torn = torn.removesuffix(b"\n")  # of the trailer of a vacuum that died
        return not any(map(partial(_is_line_begun, torn), _SAMPLES))
    return image.verdict is Verdict.DAMAGED and not is_begun(torn, image.crc)


def _is_beginning(rest: bytes, crc: int) -> bool:
    if _is_line_begun(rest, _TRAILER):
        return True
    body, newline, marker = rest[4:].partition(b"\n")
    body = body.removesuffix(b"\r")
    if not (rest + b"--- ["[len(rest) :]).startswith(b"--- [") or not _is_body(body, bool(newline)):
        return False
    # The part of the marker that was written must be that of this body.
    return (b"... # %08x" % crc32(body, crc)).startswith(marker.removesuffix(b"\r"))


def _is_line_begun(line: bytes, pattern: re.Pattern[bytes]) -> bool:
    """Whether *line* is the beginning of a line of fixed width that *pattern* matches, at most without its newline."""
    whole = line + _SAMPLES[pattern][len(line.removesuffix(b"\r")) :]
    return b"\n" not in line and pattern.fullmatch(whole) is not None


def _is_body(body: bytes, whole: bool) -> bool:
    """Whether *body* may be the beginning of the body of a record or, if it must be *whole*, all of one.

    A body is a list, so its closing bracket ends it, and the marker of another record is never taken for a part of it.
    """
    try:
        codecs.getincrementaldecoder("utf-8")().decode(body, whole)
    except UnicodeDecodeError:
        return False
    outside = _QUOTED.sub(b"", body)
    if _CONTROL.search(body) or not _OUTSIDE_TEXTS.fullmatch(outside) or _GOES_ON_AMISS.search(outside):
        return False
    depth = 0
    for bracket in _BRACKET.finditer(outside):
        depth += 1 if bracket[0] in b"[{" else -1
        if not depth:
            return bracket.end() == len(outside) and body.endswith(bracket[0])
    return not whole


def has_no_node(base: bytes) -> bool:
    """Whether *base* is empty, or consists of lines that are blank or comments."""
    lines = base.removeprefix(b"\xef\xbb\xbf").split(b"\n")
    return all(not line.strip() or line.lstrip().startswith(b"#") for line in lines)


def first_node(base: bytes) -> bytes:
    """What must be written between *base* and a base marker, because each YAML document needs a node; or b""."""
    if not has_no_node(base):
        return b""
    return EMPTY_MAPPING if base.endswith(b"\n") or base in (b"", b"\xef\xbb\xbf") else b"\n" + EMPTY_MAPPING


def lost_marker(data: bytes) -> int:
    """Where the base document ends in a file whose first commit has not reached the disk, although its length has; or
    -1.

    Zeros follow then, up to the end of a sector or of the file. YAML has no zeros; UTF-16 and UTF-32 have, but not so
    many in a row.
    """
    start = data.find(b"\0")
    if start < 0:
        return -1
    zeros = _ZEROS.match(data, start)
    assert zeros is not None
    if zeros.end() != len(data) and zeros.end() % SECTOR:
        return -1
    line = data.rfind(b"\n", 0, start) + 1
    if line == start:
        return start
    # The beginning of the marker may have reached the disk: in another sector, or by a write that was not finished.
    # If there are so few zeros that one or two damaged bytes explain them, they are damage.
    begun = data[line:start]
    is_ours = begun.startswith(_SIGNATURE) or (len(begun) > 1 and _SIGNATURE.startswith(begun))
    return line if is_ours and (not start % SECTOR or zeros.end() - start >= 16) else -1


def scan(data: bytes) -> Image:
    """Judge a whole state file. Never raises: the image says what is wrong."""
    offset = find_marker(data)
    if offset >= 0 and data.find(b"\n", offset) < 0:
        offset = -1  # unfinished, see torn_line
    if (offset < 0 or read_marker(data, offset) is None) and (hole := lost_marker(data)) >= 0:
        # Before it, the trailer of a vacuum that died may be back: the power cut undid the cut that removed it.
        image = scan(data[:hole])
        image.rest, image.trailer = data[image.end :], None
        image.hole, image.reason = True, "zeros where the base marker should be"
        image.following = _following(data[hole:], None)
        image.verdict = Verdict.DAMAGED if image.following else Verdict.TORN
        return image
    if offset < 0:
        torn = torn_line(data)
        end = len(data) if torn < 0 else torn
        image = Image(data[:end], end=end, rest=data[end:])
        if image.rest:
            is_torn = EMPTY_MAPPING.startswith(image.rest) or any(map(partial(_is_line_begun, image.rest), _SAMPLES))
            # After a power cut, the file may have its length, but not the end of a trailer.
            is_torn = is_torn or _is_line_begun(image.rest.rstrip(b"\0"), _TRAILER)
            image.verdict = Verdict.TORN if is_torn else Verdict.DAMAGED
            image.reason = "an unfinished line of pstate" if is_torn else "a line that begins like one of pstate"
            return image
        if split := split_trailer(data):
            # A vacuum of a file that had no journal: base document, trailer.
            image.end, image.trailer = split
            image.base, image.rest = data[: image.end], data[image.end :]
            image.verdict = Verdict.MOVED
        elif read_trailer(data[(start := _last_line(data)) :]) is not None:
            # A person has saved, during a vacuum, a copy that was read in the middle of it, or in place.
            image.base, image.end, image.rest = data[:start], start, data[start:]
            image.verdict, image.reason = Verdict.TORN, "the trailer of a vacuum of another document"
        return image
    found = read_marker(data, offset)
    if found is None:
        line = data[offset : data.find(b"\n", offset)]
        image = Image(data[:offset], end=offset, rest=data[offset:], verdict=Verdict.DAMAGED)
        fields = line.split()
        version = fields[3] if len(fields) > 3 else b""
        image.version = int(version) if version.isdigit() else VERSION
        image.reason = f"the base marker reads {line.decode('utf-8', 'backslashreplace')!r}"
        return image
    marker, start = found
    bodies, end, crc = read_records(data, start, first_crc(marker.generation))
    image = Image(data[:offset], marker, bodies, end, crc, rest=data[end:])
    if not image.rest and bodies:
        return image
    image.trailer = read_trailer(image.rest)
    if image.trailer is not None:
        image.verdict = Verdict.MOVED
        return image
    image.following = _following(image.rest, crc)
    image.verdict = Verdict.TORN if is_begun(image.rest, crc, image.base_edited) else Verdict.DAMAGED
    image.reason = _reason(image.rest, crc)
    if not bodies and image.verdict is Verdict.TORN:
        # The marker is written together with the first record: alone, it is the beginning of a torn write.
        image.marker, image.end, image.crc, image.rest = None, offset, 0, data[offset:]
    return image


def _following(rest: bytes, crc: int | None) -> int:
    """How many whole records follow the bad bytes that *rest* begins with; *crc* is that of the last good record.

    Their checksums need not be checked (the one before them may be lost): an unfinished write leaves the beginning of
    one record, and no program appends before that is cut off.
    """
    first = _RECORD.match(rest)
    lines = rest[first.end() if first else 0 :].split(b"\n")
    # Each line is read once: a record may begin anywhere in a line, but it ends with it.
    is_record = [
        b"--- " in line and _COMMIT_MARKER.fullmatch(marker) is not None for line, marker in pairwise(lines[:-1])
    ]
    if first is None and is_record:
        # This line may be the rest of the bad record itself, with text that looks like the beginning of a record. It is
        # a record if zeros precede it, which have replaced the records before it, or if it follows the last good one.
        starts = [found.start() for found in islice(_BEGINNING.finditer(lines[0]), 8)]
        goes_on = crc is not None and any(read_records(rest, start, crc)[0] for start in starts)
        line = lines[0].removesuffix(b"\r")
        is_whole = any(line[start - 1 : start] == b"\0" and _is_body(line[start + 4 :], True) for start in starts)
        is_record[0] = is_record[0] and (is_whole or goes_on)
    return sum(is_record)


def _reason(rest: bytes, crc: int) -> str:
    """What is wrong with the first bytes of *rest*, for a person."""
    found = _RECORD.match(rest)
    if found is None:
        return "the record is not complete"
    computed = crc32(found[1].removesuffix(b"\r"), crc)
    written = found[2].decode()
    if computed != int(written, 16):
        return f"the checksum in the marker is {written}, that of the bytes is {computed:08x}"
    return "the record is not UTF-8"


def record_offset(data: bytes, index: int) -> int | None:
    """Where the committed record number *index* begins in the whole file *data*; None if it does not exist."""
    marker = find_marker(data)
    found = read_marker(data, marker) if marker >= 0 else None
    if found is None:
        return None
    offset = found[1]
    for _ in range(index - 1):
        record = _RECORD.match(data, offset)
        if record is None:
            return None
        offset = record.end()
    return offset if _RECORD.match(data, offset) else None


def line_number(data: bytes, offset: int) -> int:
    """The line, counted from 1, of the byte at *offset*."""
    return data.count(b"\n", 0, offset) + 1
