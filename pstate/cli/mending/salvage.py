"""Finds out what can be kept of a damaged file, and what is lost. This module prints nothing, and changes no byte.

Without options, a repair keeps the commits before the damage, which give an earlier state. Complete records after the
damage are kept only if a person asks for it: each was a change of a state that is lost.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

from pstate.cli import changes
from pstate.cli.command import No
from pstate.cli.mending import unopened
from pstate.cli.mending.fragments import Fragments, Span, readable
from pstate.cli.mending.pieces import Head, Piece, Proof, head, pieces
from pstate.engine import State
from pstate.errors import InvalidStateError, StateFileError
from pstate.file import format as f
from pstate.file import recovery, vacuum
from pstate.file.fs import SYSTEM
from pstate.memory import ops
from pstate.memory.changes import Change, effects, grown
from pstate.text import dumping, reading, records
from pstate.values import same

#: How much of what is damaged is shown, in bytes.
_SHOWN = 80


class Lost(NamedTuple):
    """Some lines that the repaired file does not contain."""

    first: int
    last: int
    what: str
    changes: list[Change]  #: that they would have made

    def fields(self) -> dict[str, Any]:
        """For a program."""
        return {**self._asdict(), "changes": [changes.fields(change) for change in self.changes]}


def lost_lines(lost: list[Lost]) -> Iterator[str]:
    """*lost*, for a person."""
    for each in lost:
        place = f"line {each.first}" if each.first == each.last else f"lines {each.first} to {each.last}"
        yield f"  {place}: {each.what}"
        yield from (f"      {changes.line(change)}" for change in each.changes)


class Plan(NamedTuple):
    """What a repair would do."""

    text: bytes  #: the repaired file
    state: State  #: what it says
    kept: list[str]
    lost: list[Lost]
    records: int  #: how many are kept


class NeedsMore(No):
    """Nothing can be kept without --salvage or an editor."""


def problem(data: bytes, path: str) -> StateFileError | None:
    """Why the file with the bytes *data* cannot be used; None if it can."""
    try:
        unopened.replayed(recovery.read(data, path, SYSTEM.boot_id), path, data)
    except StateFileError as error:
        return error
    return None


def plan(data: bytes, path: str, error: StateFileError, everything: bool) -> Plan:
    """What can be kept of the file with the bytes *data*, which cannot be used because of *error*.

    *everything*: also keep complete parts after the damage. Raises NeedsMore if there is nothing else to keep, No if
    another command or an editor can help, and *error* itself if nothing can.
    """
    if f.scan(data).version > f.VERSION:
        raise error
    found = head(data)
    if found is not None:
        return _of_journal(data, path, found, everything)
    from pstate.file import legacy

    if recovery.is_theirs(data) or legacy.may_be_damaged(data):
        return _of_theirs(data, path, everything)
    return _of_document(data, path, error, everything)


# ------------------------------------------------------------------------------------------------------------ a journal


def _of_journal(data: bytes, path: str, found: Head, everything: bool) -> Plan:
    is_edited = found.is_intact is False
    base, kept = found.base, ["the document"]
    lost: list[Lost] = []
    try:
        state = reading.load(base, path).value
    except InvalidStateError as error:
        base, lost = _fragments(base, path, error, everything, is_edited, has_journal=True)
        state = reading.load(base, path).value
        kept = ["the readable part of the document"] if state else []
    else:
        if is_edited:
            raise No(
                f"{path}:{found.line}: the document above line {found.line} was edited above the journal of a program "
                "that did not close the file, and only you know which of both counts. Nothing was changed. Run: "
                f"pstate resolve {path} --edit, or --both, which keeps the commits too; with -n it only shows."
            )
    if found.marker is None:
        kept.append(f"(its marker in line {found.line} is damaged)")
        if found.is_intact is None:
            kept.append("(it is unknown whether the document was edited since the commits)")
    replay = Replay(state, everything)
    for number, piece in enumerate(pieces(data, found), 1):
        replay.take(number, piece, path)
    kept += replay.kept
    text = vacuum.document(base, replay.state, path)[0] if replay.records else base
    return Plan(text, replay.state, kept, lost + replay.lost, replay.records)


class Replay:
    """The records of a damaged journal, applied to a state one after the other, as far as they can be believed."""

    def __init__(self, state: State, everything: bool) -> None:
        self._root = grown(state)
        self._everything = everything  #: also apply complete records after the first loss
        self._prefix: State | None = None  #: the state before the first loss
        self._last = 0  #: of those that were kept
        self.records = 0  #: that were kept
        self.all: list[Lost] = []  #: all records, as if they were lost
        self.notes: list[str] = []
        self.lost: list[Lost] = []

    @property
    def state(self) -> State:
        """The state after the records that were kept."""
        prefix = None if self._everything else self._prefix
        return ops.plain(self._root) if prefix is None else prefix

    @property
    def kept(self) -> list[str]:
        """What was kept, for a person."""
        if not self.records:
            return ["no commit"]
        if self.records < self._last:
            return [f"{self.records} of the commits up to {self._last}", *self.notes]
        return ["commit 1" if self._last == 1 else f"commits 1 to {self._last}", *self.notes]

    def take(self, number: int, piece: Piece, path: str) -> None:
        """Apply *piece*, which is record *number*, or note why it is lost. Its changes are recorded in both cases."""
        operations, reason = _operations(piece, path)
        if reason or piece.proof is not Proof.CHAINED:
            self._end_prefix()
        found: list[Change] = []
        if not reason:
            found, reason = self._attempt(operations)
        if reason:
            self._end_prefix()
        self.all.append(Lost(piece.first, piece.last, f"record {number}{reason and ', '}{reason}", found))
        if reason or not (self._everything or self._prefix is None):
            lost = self.all[-1]
            self.lost.append(lost if reason else lost._replace(what=f"{lost.what}, after the damage"))
            return
        self.records += 1
        self._last = number
        if piece.note:
            self.notes.append(f"(record {number} in line {piece.first}: {piece.note})")
        elif piece.proof is Proof.UNKNOWN:
            self.notes.append(f"(record {number} in line {piece.first}: {piece.proof.value})")

    def _end_prefix(self) -> None:
        if self._prefix is None:
            self._prefix = ops.plain(self._root)

    def _attempt(self, operations: list[Any]) -> tuple[list[Change], str]:
        """Carry *operations* out, all or none; returns what they change, and why not."""
        undo: list[tuple[Any, Any]] = []
        found: list[Change] = []
        try:
            for operation in operations:
                name, place, *rest = operation
                node = ops.find(self._root, place)
                prepared = ops.prepare(node, (name, *rest), None)
                found += effects(node, tuple(place), name, rest)
                undo += [(node, inverse) for inverse in reversed(ops.inverse(node, prepared))]
                ops.apply(node, prepared, False)
        except (LookupError, TypeError, ValueError, RecursionError) as error:
            for node, inverse in reversed(undo):
                ops.apply(node, inverse, False)
            why = f"does not fit the state ({type(error).__name__}: {error})"
            return [], f"{why}: {_shown(records.flow(operations).encode())}"
        return found, ""


def _operations(piece: Piece, path: str) -> tuple[list[Any], str]:
    """The operations in *piece*, or why there are none."""
    if piece.body is None:
        return [], f"damaged: {_shown(piece.raw)}"
    if piece.proof is Proof.WRONG:
        return [], f"{piece.proof.value}: {_shown(piece.raw)}"
    try:
        return reading.decode_body(piece.body.decode("utf-8"), path, piece.first), ""
    except UnicodeDecodeError:
        return [], f"is not UTF-8: {_shown(piece.raw)}"
    except StateFileError as error:
        return [], f"cannot be read ({error.reason}): {_shown(piece.raw)}"


def _shown(raw: bytes) -> str:
    """The beginning of *raw*, as a person may see it on a terminal."""
    line = raw.partition(b"\n")[0]
    text = line[:_SHOWN].decode("utf-8", "backslashreplace")
    return repr(text) + (f" and {len(line) - _SHOWN} bytes more" if len(line) > _SHOWN else "")


# ----------------------------------------------------------------------------------------------------------- a document


def _of_document(data: bytes, path: str, error: StateFileError, everything: bool) -> Plan:
    lines = _of_lines(data, path) if everything else None
    try:
        text, lost = _fragments(data, path, error, everything)
    except StateFileError:
        if lines is None:
            raise No(
                f"{error} Nothing can be kept automatically: correct it with an editor, or use an older copy."
            ) from None
        return lines
    state = reading.load(text, path).value
    if lines is not None and not same(state, lines.state):
        return lines
    return Plan(text, state, ["the readable part of the document"], lost, 0)


def _of_lines(data: bytes, path: str) -> Plan | None:
    """As a file of persistedstate 23.1 or 23.2, where only the last line of each key counts."""
    from pstate.file import legacy

    try:
        recovered = legacy.load_lines(data, path)
        text = dumping.dump(recovered.value)
    except StateFileError:
        return None
    kept = [f"{recovered.records} lines as persistedstate 23.1 wrote them; the last line of each key counts"]
    lost = []
    if recovered.torn.strip():
        line = data.count(b"\n") + 1
        lost = [Lost(line, line, f"unfinished: {_shown(recovered.torn)}", [])]
    # If no key occurs twice, it is a document, with comments and a layout.
    is_theirs = recovered.records > len(recovered.value) > 0
    return Plan(text, recovered.value, kept, lost, recovered.records) if is_theirs else None


def _fragments(
    base: bytes, path: str, error: StateFileError, everything: bool, is_edited: bool = False, has_journal: bool = False
) -> tuple[bytes, list[Lost]]:
    """The document of what is whole in *base*, and what is lost of it. Raises NeedsMore, or *error*."""
    found = readable(base, path)
    if found is None:
        if not has_journal:
            raise error
        found = Fragments(f.EMPTY_MAPPING, [Span(1, base.count(b"\n") or 1, "nothing of it can be read")])
    lost = [Lost(span.first, span.last, span.reason, []) for span in found.lost]
    if not everything:
        edited = " Then: pstate resolve" if is_edited else ""
        raise NeedsMore(
            f"{error} Correct it with an editor.{edited} "
            f"Or keep the readable part, without {_lines(found.lost)}: pstate repair --salvage {path}"
        )
    return found.text, lost


def _lines(spans: list[Span]) -> str:
    count = sum(span.last - span.first + 1 for span in spans)
    first = min(span.first for span in spans)
    return f"line {first}" if count == 1 else f"{count} lines from line {first} on"


# ---------------------------------------------------------------------------------------------- files of persistedstate


def _of_theirs(data: bytes, path: str, everything: bool) -> Plan:
    from pstate.file import legacy

    base, journal = legacy.split(data)
    shift, kept = 0, ["the document"]
    lost: list[Lost] = []
    try:
        recovered, gone = legacy.salvage(data, path, everything)
    except StateFileError as error:
        try:
            reading.load(base, path)
        except InvalidStateError:
            text, lost = _fragments(base, path, error, everything, has_journal=True)
        else:
            raise error from None
        kept = ["the readable part of the document"] if text != f.EMPTY_MAPPING else []
        shift = base.count(b"\n") - text.removesuffix(b"\n").count(b"\n")
        recovered, gone = legacy.salvage(text.removesuffix(b"\n") + journal, path, everything)
    lost += [
        Lost(each.line + shift, each.line + shift, f"{each.reason or 'after the damage'}: {each.text[:_SHOWN]}", [])
        for each in gone
    ]
    kept.append(f"{recovered.records} records of persistedstate")
    kept += [
        f"(line {each.line + shift}, as persistedstate refused it: {each.text[:_SHOWN]})" for each in recovered.skipped
    ]
    if recovered.torn.strip():
        kept.append(f"(without an unfinished last one: {_shown(recovered.torn.strip())})")
    kept += [f"(line {each.line + shift}, check it: {each.reason})" for each in recovered.doubtful]
    return Plan(dumping.dump(recovered.value), recovered.value, kept, lost, recovered.records)
