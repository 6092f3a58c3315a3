"""Reads a whole file: its document, its records, and whether to trust it. Nothing is changed here.

`format.scan` judges the bytes. This module makes a state of them, or an error that tells a person what to do.
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
    "it is not the beginning of a record, which an unfinished write leaves. Text that a person wrote there belongs "
    'above the first line that begins with "... # pstate"'
)


class Content(NamedTuple):
    """The content of a file that can be trusted: its state is *state* after *records*."""

    state: State  #: that of the base document
    image: f.Image
    appendable: bool  #: whether a base marker may follow the base document
    records: list[Operations] | Records  #: iterating over them may raise CorruptStateError


def read(data: bytes, path: str, boot_id: Callable[[], str]) -> Content:
    """The content of the file with the bytes *data*. *boot_id* returns the id of this boot. It is called only for bad
    bytes, which are damage unless a power cut explains them.

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
    """`format.scan`, but a file of `persistedstate` with its journal is one document, as for `read`."""
    image = f.scan(data)
    return f.Image(data, end=len(data)) if _is_legacy(image, data) else image


def _is_legacy(image: f.Image, data: bytes) -> bool:
    return not image.hole and is_theirs(data)


def is_theirs(data: bytes) -> bool:
    """Whether `persistedstate` wrote *data*. `legacy` is imported only if there is a sign of it: a separator, perhaps
    torn, or the first key of the document a second time.
    """
    if f.find_marker(data) >= 0:
        return False
    head = data[: data.find(b":") + 1] or b"{"
    half = 0 if b"\r" in data else len(data) // 2 - 1  # where the repetition begins, at the earliest
    is_repeated = data.find(head, max(half, len(head))) >= 0
    # Only at the beginning of a line: people underline with the same characters in comments.
    is_separated = data.startswith(b"---") or b"\n---" in data
    if not is_repeated and not is_separated and b"### LAST VALID STATE ###" not in data and data[-1:] != b"-":
        return False
    from pstate.file import legacy

    return legacy.is_legacy(data)


def _read_legacy(data: bytes, path: str) -> Content:
    from pstate.file import legacy

    recovered = legacy.load(data, path)
    for skipped in recovered.skipped:
        logger.warning(
            "%s:%d: an operation that persistedstate had refused was left out: %s", path, skipped.line, skipped.reason
        )
    for doubt in recovered.doubtful:
        logger.warning("%s:%d: this record is in doubt, so check its value: %s", path, doubt.line, doubt.reason)
    if recovered.torn:
        logger.warning("%s: the torn tail of an interrupted write was left out: %r", path, recovered.torn[:80])
    # The journal is not ours, so the whole file counts as a document, which the first commit rewrites.
    return Content(recovered.value, f.Image(data, end=len(data)), appendable=False, records=[])


def document(base: bytes, path: str) -> State:
    """The state of the base document *base*, which may be one of `persistedstate`."""
    if is_theirs(base):
        from pstate.file import legacy

        return legacy.load(base, path).value
    return reading.load(base, path).value


def decode(bodies: list[str], path: str, file: Callable[[], bytes], before: int = 0) -> list[Operations]:
    """The operations in the bodies of committed records, which *before* others precede in the file.

    Raises CorruptStateError; *file* returns the bytes of the whole file, for the line of the error.
    """
    return list(Records(bodies, path, file, before))


class Records:
    """The result of `decode`, but each record is decoded when an iteration reaches it.

    For a whole journal: decoding all at once would make some lists for each record, and Python's garbage collector
    would look at all of them again and again. That takes longer than the decoding (1.3 us instead of 0.5 us a record).
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
    """The error for the record after commit *index* of the file with the bytes *data*: its checksum is right, but it
    makes no sense, for the reason *what*. It cannot be corrected by hand.
    """
    offset = f.record_offset(data, index + 1)
    line = None if offset is None else f.line_number(data, offset)
    good = "" if line is None else f" The file is good up to line {line - 1}."
    message = (
        f"{path}{'' if line is None else f':{line}'}: record {index + 1} is committed, and its checksum is right, but "
        f"it {what}. Nothing was changed. Do not edit the record: that would break its checksum.{good} To keep what "
        f"can be kept, and a copy of the file: pstate repair {path}"
    )
    return CorruptStateError(message, path=path, line=line, offset=offset or 0, index=index, following=following)


def judge(image: f.Image, data: bytes, path: str, boot_id: Callable[[], str]) -> f.Image:
    """Return *image*, of *data*, if it can be trusted up to its `end`, else raise.

    A torn tail, the beginning of one write, is normal after a crash. Anything else after the last good commit is an
    error, unless a power cut explains it: then the rest is a prefix of the commits, as durability "process" promises.
    """
    if image.version != f.VERSION:
        message = (
            f"{path}: the file was written by a newer pstate (format {image.version}; this one reads {f.VERSION}). "
            "Nothing was changed. Upgrade pstate."
        )
        raise InvalidStateError(message, path=path, line=f.line_number(data, len(image.base)))
    if image.verdict is f.Verdict.DAMAGED and not _power_cut_explains(image, boot_id):
        line = f.line_number(data, image.end)
        following = "1 commit follows" if image.following == 1 else f"{image.following} commits follow"
        why = f"{following}, so this is not an unfinished write" if image.following else _NOT_BEGUN
        message = (
            f"{path}:{line}: damaged record: {image.reason}, and {why}. "
            f"Nothing was changed. The file is good up to line {line - 1}. To keep what can be kept, "
            f"and a copy of the file: pstate repair {path}"
        )
        raise CorruptStateError(
            message, path=path, line=line, offset=image.end, index=image.index, following=image.following
        )
    return image


def _power_cut_explains(image: f.Image, boot_id: Callable[[], str]) -> bool:
    """Whether a power cut may have caused the damage: blocks reach the disk in any order, so bytes that were not synced
    may have holes.
    """
    marker = image.marker
    if marker is None:
        return image.hole  # the marker, which names the boot, is missing itself
    if marker.power and image.following:
        return False  # only the last write may not have been synced
    boot = boot_id()
    return f.UNKNOWN_BOOT not in (marker.boot, boot) and marker.boot != boot


def edited_above_journal(image: f.Image, data: bytes, path: str) -> EditConflict:
    """The error for a journal that was written after another document than the one above it."""
    line = f.line_number(data, len(image.base))
    commits = "1 commit" if image.index == 1 else f"{image.index} commits"
    message = (
        f"{path}:{line}: the document above line {line} was edited after a program had ended without closing the file, "
        f"with {commits} below that line. No running program knows the document from before the edit. Nothing was "
        f"changed. To keep the edit: pstate resolve {path} --edit, which deletes the lines from {line} on. To keep the "
        "commits and undo the edit: --journal. To keep both: --both. A copy is kept; -n only shows the result."
    )
    return EditConflict(message, path=path, line=line, conflict_path=None)


def does_not_fit(path: str, data: bytes, index: int, following: int, error: Exception) -> CorruptStateError:
    """The error for the record after commit *index*, whose operations do not fit the state."""
    try:
        why = f"{type(error).__name__}: {error}"
    except ValueError:
        why = type(error).__name__  # for a KeyError with an integer that Python refuses to write
    return senseless(path, data, index, following, f"does not fit the state before it ({why})")
