"""What a whole file says: which document, which records, and whether to believe it. Nothing is changed here.

The verdict on the bytes is `format.scan`'s. Here it becomes a state, or an error that tells a person what to do.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

from pstate.engine import Operations, State
from pstate.errors import CorruptStateError, EditConflict, InvalidStateError
from pstate.file import format as f
from pstate.logger import Logger
from pstate.text import reading

logger = Logger("pstate.file.recovery")

_NOT_BEGUN = (
    "an unfinished write leaves the beginning of one record, which this is not. What a person wrote there belongs "
    'above the first line that begins with "... # pstate"'
)


class Content(NamedTuple):
    """A file that can be believed: its state is *state* after *records*."""

    state: State  #: what the base document says
    image: f.Image
    appendable: bool  #: a base marker may stand behind the base document
    records: list[Operations] | Records  #: going through them may raise CorruptStateError


def read(data: bytes, path: str, boot_id: Callable[[], str]) -> Content:
    """What the file with the bytes *data* says. *boot_id* tells this boot's id, asked only when bytes are bad: a power
    cut explains what else is damage.

    Raises InvalidStateError, CorruptStateError, and EditConflict for a document edited above a journal.
    """
    image = f.scan(data)
    if _is_legacy(image, data):
        return _read_legacy(data, path)
    judge(image, data, path, boot_id)
    if image.base_edited:
        raise edited_above_journal(image, data, path)
    base = reading.load(image.base, path)
    return Content(base.value, image, base.appendable, Records(image.bodies, path, lambda: data))


def scan(data: bytes) -> f.Image:
    """`format.scan`, but a file of `persistedstate` with its journal is one document, as `read` takes it."""
    image = f.scan(data)
    return f.Image(data, end=len(data)) if _is_legacy(image, data) else image


def _is_legacy(image: f.Image, data: bytes) -> bool:
    return not image.hole and is_theirs(data)


def is_theirs(data: bytes) -> bool:
    """Whether `persistedstate` left *data*. `legacy` is asked, and imported, where one of its signs is there: a
    separator, perhaps torn, or the first key of the document once more.
    """
    if f.find_marker(data) >= 0:
        return False
    head = data[: data.find(b":") + 1] or b"{"
    half = 0 if b"\r" in data else len(data) // 2 - 1  # where the repetition begins, at the earliest
    is_repeated = data.find(head, max(half, len(head))) >= 0
    # At the beginning of a line: people underline with the same characters in their comments.
    is_separated = data.startswith(b"---") or b"\n---" in data
    if not is_repeated and not is_separated and b"### LAST VALID STATE ###" not in data and data[-1:] != b"-":
        return False
    from pstate.file import legacy

    return legacy.is_legacy(data)


def _read_legacy(data: bytes, path: str) -> Content:
    from pstate.file import legacy

    recovered = legacy.load(data, path)
    for skipped in recovered.skipped:
        logger.warning("%s:%d: left out what persistedstate had refused: %s", path, skipped.line, skipped.reason)
    for doubt in recovered.doubtful:
        logger.warning("%s:%d: check this place: %s", path, doubt.line, doubt.reason)
    if recovered.torn:
        logger.warning("%s: torn tail left out: %r", path, recovered.torn[:80])
    # The journal behind it is not ours: the whole file counts as a document that the first commit writes anew.
    return Content(recovered.value, f.Image(data, end=len(data)), appendable=False, records=[])


def document(base: bytes, path: str) -> State:
    """The state that the base document *base* says, one of `persistedstate` too."""
    if is_theirs(base):
        from pstate.file import legacy

        return legacy.load(base, path).value
    return reading.load(base, path).value


def decode(bodies: list[str], path: str, file: Callable[[], bytes], before: int = 0) -> list[Operations]:
    """The operations in the bodies of committed records, which *before* others precede in the file.

    Raises CorruptStateError; *file* gives the bytes of the whole file, to say where it is.
    """
    return list(Records(bodies, path, file, before))


class Records:
    """What `decode` returns, but each record is decoded when somebody who goes through them comes to it.

    For a whole journal: all at once would be some lists for each record, and Python's garbage collector looks at all
    of them again and again; that takes twice as long as decoding (1.3 us instead of 0.5 us a record).
    """

    __slots__ = ("_before", "_bodies", "_file", "_path")

    def __init__(self, bodies: list[str], path: str, file: Callable[[], bytes], before: int = 0) -> None:
        self._bodies = bodies
        self._path = path
        self._file = file
        self._before = before

    def __len__(self) -> int:
        return len(self._bodies)

    def __iter__(self) -> Iterator[Operations]:
        return map(self.decode, range(len(self._bodies)))

    def decode(self, index: int) -> Operations:
        """The operations of the record number *index*, from 0. Raises CorruptStateError."""
        try:
            return reading.decode_body(self._bodies[index], self._path, 1)
        except InvalidStateError as error:
            what = f"cannot be read: {error.reason}"
            following = len(self._bodies) - index - 1
            raise senseless(self._path, self._file(), self._before + index, following, what) from error


def senseless(path: str, data: bytes, index: int, following: int, what: str) -> CorruptStateError:
    """The error for the record behind commit *index* of the file with the bytes *data*: its checksum is right, and yet
    it means nothing, for the reason *what*. Nobody can correct it by hand.
    """
    offset = f.record_offset(data, index + 1)
    line = None if offset is None else f.line_number(data, offset)
    good = "" if line is None else f"; up to line {line - 1} it is good"
    message = (
        f"{path}{'' if line is None else f':{line}'}: record {index + 1} is committed, its checksum is right, and it "
        f"{what}. Nothing was changed. Do not edit it, that would break the checksum{good}. To keep what can be kept, "
        f"with a copy of the file: pstate repair {path}"
    )
    return CorruptStateError(message, path=path, line=line, offset=offset or 0, index=index, following=following)


def judge(image: f.Image, data: bytes, path: str, boot_id: Callable[[], str]) -> f.Image:
    """Return *image*, of *data*, if it can be believed up to its `end`, else raise.

    A torn tail, the beginning of one write, is normal life. Anything else after the last good commit is an error,
    unless a power cut explains it: then what stands before is a prefix of the commits, which is what durability
    "process" promises.
    """
    if image.version != f.VERSION:
        message = (
            f"{path}: written by a newer pstate (format {image.version}; this one reads {f.VERSION}). "
            "Nothing was changed. Upgrade pstate."
        )
        raise InvalidStateError(message, path=path, line=f.line_number(data, len(image.base)))
    if image.verdict is f.Verdict.DAMAGED and not _power_cut_explains(image, boot_id):
        line = f.line_number(data, image.end)
        following = "1 commit follows" if image.following == 1 else f"{image.following} commits follow"
        why = f"{following}, so this is no unfinished write" if image.following else _NOT_BEGUN
        message = (
            f"{path}:{line}: damaged record: {image.reason}, and {why}. "
            f"Nothing was changed; up to line {line - 1} it is good. To keep what can be kept, "
            f"with a copy of the file: pstate repair {path}"
        )
        raise CorruptStateError(
            message, path=path, line=line, offset=image.end, index=image.index, following=image.following
        )
    return image


def _power_cut_explains(image: f.Image, boot_id: Callable[[], str]) -> bool:
    """Blocks reach the disk in any order, so a power cut may leave a hole in what was not synced."""
    marker = image.marker
    if marker is None:
        return image.hole  # what would tell the boot is what is missing
    if marker.power and image.following:
        return False  # only the last write was perhaps not synced
    boot = boot_id()
    return f.UNKNOWN_BOOT not in (marker.boot, boot) and marker.boot != boot


def edited_above_journal(image: f.Image, data: bytes, path: str) -> EditConflict:
    """The error for a journal that was written on another document than the one above it."""
    line = f.line_number(data, len(image.base))
    message = (
        f"{path}:{line}: the document above line {line} was edited while {image.index} commits of a program that did "
        "not close the file stood below it, and nobody is left who knows what it was before. Nothing was changed. "
        f"To keep the edit: pstate resolve {path} --edit, which deletes the lines from {line} on; to keep the commits "
        "and undo the edit: --journal; or --both. A copy is kept, and -n only shows what results."
    )
    return EditConflict(message, path=path, line=line, conflict_path=None)


def does_not_fit(path: str, data: bytes, index: int, following: int, error: Exception) -> CorruptStateError:
    """The error for the record behind commit *index*, whose operations the state cannot take."""
    try:
        why = f"{type(error).__name__}: {error}"
    except ValueError:
        why = type(error).__name__  # of a KeyError with an integer that Python refuses to write
    return senseless(path, data, index, following, f"does not fit the state that it was written for ({why})")
