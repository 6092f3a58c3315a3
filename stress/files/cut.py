"""Cut journals at every byte, flip every bit, damage them otherwise: what opens is a state that was, or it is refused.

The journals come from a real state, with what its memory said after each commit; so a wrong reader does not vouch for
itself. A cut is what a dying writer leaves: it must open, as the commits that are whole. Any other damage nobody can
have left in the middle of a file but a broken disk, or a person: it must be refused, unless the right state comes out,
or unless what is left is the beginning of the next record. Then it is what a write that did not end leaves, and the
commits before it are the state.

Most of it goes through `pstate.file.recovery.read`, which judges the bytes of a file: with a real file for each bit,
only a fiftieth could be tried. Samples go the whole way: opened, compared, written to, closed; and when refused, left
as they were.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from random import Random

import yaml

from pstate import PStateError
from pstate.file import format as f
from pstate.file import recovery
from pstate.file.fs import SYSTEM
from pstate.values import same
from stress.check import BrokenPromise, Trial, check, logged
from stress.files.journals import Journal, State, make
from stress.files.rebooted import Rebooted
from stress.real.workers import LOADER, open_state

_RECORD = re.compile(rb"--- [^\n]*\n\.\.\. # [0-9a-f]{8}\r?\n")
_MARKER_LINE = re.compile(rb"\.\.\. # pstate [^\n]*\n")
_OURS = re.compile(rb"^(?:\.\.\. # |--- |\0)", re.MULTILINE)
#: One of so many damaged files is opened for real.
SAMPLED = 97
SECTOR = 512


REBOOTED = Rebooted()


class Reader:
    """Reads damaged forms of one journal, and knows which state may come out."""

    def __init__(self, trial: Trial, journal: Journal) -> None:
        self.trial = trial
        self.journal = journal
        self._bodies = f.scan(journal.data).bodies
        self._base = recovery.read(journal.base, "base", SYSTEM.boot_id).state
        trial.expect(
            same(self._base, journal.states[0]) and len(self._bodies) == journal.count,
            f"P5: a whole journal of {journal.count} commits reads as {len(self._bodies)}",
        )
        self._tried = 0

    def read(self, data: bytes, rebooted: bool) -> int | PStateError | None:
        """After how many commits the state is the one that *data* says; or why it was refused.

        None when nothing in it says that a program ever wrote to it: then it is a document, whatever it says.
        """
        fs = REBOOTED if rebooted else SYSTEM
        self._tried += 1
        try:
            content = recovery.read(data, "damaged.yaml", fs.boot_id)
            count = len(list(content.records))
        except PStateError as error:
            return error
        if content.image.bodies != self._bodies[:count] or not same(content.state, self._base):
            if not _OURS.search(data):
                return None
            raise BrokenPromise(f"P6: a state that never was: {str(content.state)[:200]} and {count} records")
        return count

    def judge(self, data: bytes, what: str, rebooted: bool = False, only: int | None = None) -> None:
        """Read *data*, a damaged form of the journal, and judge what comes out.

        *only*: what must come out. Raises BrokenPromise, with the file kept as evidence.
        """
        try:
            found = self.read(data, rebooted)
            if only is not None:
                if found != only:
                    raise BrokenPromise(f"P5: {only} commits are whole, {found!r} were found")
            elif isinstance(found, int) and found < self.journal.count and not rebooted:
                self._expect_a_beginning(data, found)
            if self._tried % SAMPLED == 0:
                self._open_for_real(data, found, rebooted)
        except Exception as error:
            for name, content in (("damaged.yaml", data), ("whole.yaml", self.journal.data)):
                (self.trial.folder / name).write_bytes(content)
            if isinstance(error, BrokenPromise):
                raise BrokenPromise(f"{what}: {error}") from error
            raise BrokenPromise(f"P11: {what}: {error!r}, which is not an error of pstate") from error

    def _expect_a_beginning(self, data: bytes, found: int) -> None:
        """Anything but the beginning of the next record says that this is damage, and not a write that did not end."""
        if found == 0 and f.lost_marker(data) >= 0:
            return  # a hole; what would tell whether a power cut explains it is what is missing (docs/format.md)
        left = data[self.journal.ends[found] :]
        if b"\n" not in left and f.is_begun(left, f.scan(data).crc):
            return  # nobody can tell a record whose end is missing from a write that did not end (docs/howto-damage.md)
        if found and left.strip(b"\r\n") and not self.journal.data[self.journal.ends[found] :].startswith(left):
            raise BrokenPromise(
                f"P11: of {self.journal.count} commits {found} were read, without an error, although no write has left "
                f"{left[:80]!r} behind them"
            )
        end = start = self.journal.ends[found]
        if found == 0 and (marker := _MARKER_LINE.match(data, end)):
            end = start = marker.end()  # the first commit's, and it may be what is bad
        if bad := _RECORD.match(data, end):
            start = bad.end() - 1
        for number in range(1, self.journal.count + 1):
            place = data.find(self.journal.record(number), start + 1)
            if place >= 0:
                raise BrokenPromise(
                    f"P11: of {self.journal.count} commits {found} were read, without an error, although commit "
                    f"{number} follows the damage, whole, at byte {place}"
                )

    def _open_for_real(self, data: bytes, found: int | PStateError | None, rebooted: bool) -> None:
        if found is None:
            return
        path = self.trial.folder / "real.yaml"
        path.write_bytes(data)
        fs = REBOOTED if rebooted else SYSTEM
        self.trial.count("real opens")
        try:
            state = open_state(path, fs=fs, lock_timeout=1)
        except PStateError as error:
            if not isinstance(found, PStateError):
                raise BrokenPromise(f"reading the bytes gives {found} commits, opening the file {error!r}") from error
            if path.read_bytes() != data:
                raise BrokenPromise(f"P11: the file was refused, and changed: {error}") from error
            path.unlink()
            return
        try:
            if isinstance(found, PStateError):
                raise BrokenPromise(f"reading the bytes raises {found!r}, opening the file does not")
            expected = self.journal.states[found]
            if not same(expected, state.snapshot()):
                raise BrokenPromise(f"after {found} commits it was {expected!r}, it opens as {state.snapshot()!r}")
            state["next"] = "word"
        finally:
            state.close()
        _expect_closed(path, {**expected, "next": "word"})
        for each in path.parent.glob("*real.yaml*"):
            each.unlink()


def _expect_closed(path: Path, expected: State) -> None:
    documents = list(yaml.load_all(path.read_bytes(), LOADER))
    if len(documents) != 1 or not same(documents[0], expected):
        raise BrokenPromise(f"P1: after the next commit and the close the file says {documents!r}, not {expected!r}")
    beside = [each.name for each in path.parent.glob(f".{path.name}*")]
    if beside:
        raise BrokenPromise(f"P1: after a clean close there is {', '.join(beside)}")


# ---------------------------------------------------------------------- cut


def whole_commits(journal: Journal, length: int) -> int:
    """How many commits are whole in the first *length* bytes."""
    return sum(end <= length for end in journal.ends[1:])


@check("cut", "A file that is cut at any byte opens with its complete commits, and works from there.")
def cut(trial: Trial) -> None:
    with logged(trial.folder):
        while trial.goes_on():
            journal = make(trial.folder / "made.yaml", trial.random)
            reader = Reader(trial, journal)
            lengths = list(range(journal.ends[0], len(journal.data) + 1))
            trial.random.shuffle(lengths)  # when the time ends in the middle, it is not always the same half
            for length in lengths:
                what = f"cut to {length} of {len(journal.data)} bytes"
                whole = whole_commits(journal, length)
                reader.judge(journal.data[:length], what, rebooted=trial.random.random() < 0.3, only=whole)
                trial.count("cuts")
                if not trial.goes_on():
                    break
            # Cut within the base document, it is a document that a person may have written: read, or refused.
            for length in range(0, journal.ends[0], 7):
                _read_a_shorter_document(trial, journal.data[:length])
                trial.count("cuts within the document")
            trial.count("journals")
        _note_speed(trial, "cuts")


def _read_a_shorter_document(trial: Trial, data: bytes) -> None:
    try:
        recovery.read(data, "damaged.yaml", SYSTEM.boot_id)
    except PStateError:
        pass  # which is what most of them deserve
    except Exception as error:
        (trial.folder / "damaged.yaml").write_bytes(data)
        raise BrokenPromise(f"P11: a document cut to {len(data)} bytes: {error!r}, no error of pstate's") from error


def _note_speed(trial: Trial, what: str) -> None:
    took = max(0.001, trial.seconds - trial.left)
    trial.figures[f"{what} per second"] = f"{trial.counts[what] / took:,.0f}"


# ---------------------------------------------------------------------- flip, and what else a disk or a person does


def damages(journal: Journal, dice: Random) -> Iterator[tuple[str, str, bytes]]:
    """Damaged forms of *journal*, endlessly: what was done in a plural noun, exactly what, and the bytes."""
    data = journal.data
    lines = data.splitlines(keepends=True)
    first = data.count(b"\n", 0, journal.ends[0])
    while True:
        offset = dice.randrange(len(data))
        stop = min(len(data), offset + dice.choice([1, 2, 9, 80, 700]))
        piece = bytes([dice.choice([0, 10, 13, 32, 45, 46, 35, 91, 0xEF, dice.randrange(256)])])
        yield "bytes inserted", f"{piece!r} inserted at {offset}", data[:offset] + piece + data[offset:]
        if offset < journal.ends[0]:
            # Without its end, and without the marker, it may be a document that a person has cut short.
            stop = min(stop, journal.ends[0])
        yield "bytes removed", f"bytes {offset} to {stop} removed", data[:offset] + data[stop:]
        yield "bytes repeated", f"bytes {offset} to {stop} repeated", data[:stop] + data[offset:stop] + data[stop:]
        one, two = (dice.randrange(first, len(lines)) for _ in "12")
        yield "lines removed", f"line {one + 1} removed", b"".join(lines[:one] + lines[one + 1 :])
        yield "lines repeated", f"line {one + 1} repeated", b"".join(lines[: one + 1] + lines[one:])
        swapped = lines.copy()
        swapped[one], swapped[two] = swapped[two], swapped[one]
        yield "lines exchanged", f"lines {one + 1} and {two + 1} exchanged", b"".join(swapped)
        one, two = (dice.randrange(1, journal.count + 1) for _ in "12")
        records = [journal.record(number) for number in range(1, journal.count + 1)]
        head = data[: journal.ends[1] - len(records[0])]
        moved = records.copy()
        moved.insert(two - 1, moved.pop(one - 1))
        yield "records moved", f"record {one} moved to {two}", head + b"".join(moved)
        yield "records removed", f"record {one} removed", head + b"".join(records[: one - 1] + records[one:])
        yield "records repeated", f"record {one} repeated", head + b"".join(records[:one] + records[one - 1 :])
        yield "zeros", f"bytes {offset} to {stop} zeroed", data[:offset] + bytes(stop - offset) + data[stop:]
        block = dice.choice([SECTOR, 8 * SECTOR])
        # The base document was synced when the journal began. A sector is whole, so its end is followed by no bytes of
        # another file, but zeros, as above.
        start, stop = (
            max(-(-journal.ends[0] // SECTOR) * SECTOR, offset - offset % block),
            offset - offset % block + block,
        )
        if start < min(stop, len(data)):
            old = journal.older[start:stop].ljust(stop - start, b"\0")[: len(data) - start]
            yield "old blocks", f"{stop - start} bytes at {start} are old", data[:start] + old + data[stop:]


def flips(journal: Journal, dice: Random) -> Iterator[tuple[str, str, bytes]]:
    """Each bit of each byte flipped, once."""
    numbers = list(range(8 * len(journal.data)))
    dice.shuffle(numbers)
    for number in numbers:
        offset, bit = divmod(number, 8)
        damaged = bytearray(journal.data)
        damaged[offset] ^= 1 << bit
        yield "bits flipped", f"bit {bit} of byte {offset} flipped", bytes(damaged)


@check("flip", "No damage is read as a state that never existed, or hides complete commits: every bit, and more.")
def flip(trial: Trial) -> None:
    with logged(trial.folder):
        while trial.goes_on():
            journal = make(trial.folder / "made.yaml", trial.random, most=6)
            reader = Reader(trial, journal)
            others = damages(journal, trial.random)
            for kind, what, data in flips(journal, trial.random):
                _judge(trial, reader, kind, what, data)
                if trial.random.random() < 0.3:
                    _judge(trial, reader, *next(others))
                if not trial.goes_on():
                    break
            trial.count("journals")
        _note_speed(trial, "bits flipped")


def _judge(trial: Trial, reader: Reader, kind: str, what: str, data: bytes) -> None:
    if data == reader.journal.data:
        return
    rebooted = trial.random.random() < 0.2
    reader.judge(data, f"{what}{', after a reboot' * rebooted}", rebooted)
    trial.count(kind)
