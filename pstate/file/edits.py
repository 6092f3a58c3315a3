"""Merges a person's edit with our commits, value by value (`text.merge`). Pure functions on plain trees.

`log` notices an edit, and writes the result.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any
from zlib import crc32

from pstate.engine import Operations, State
from pstate.file import format as f
from pstate.file.recovery import decode, document, edited_above_journal
from pstate.text.merge import merge as merge
from pstate.values import same


@dataclass(frozen=True, slots=True)
class History:
    """What a process knows when it meets an edit."""

    path: str
    state: State  #: the state in memory
    base: bytes  #: the document before the journal
    generation: str | None  #: of the journal; None without one
    index: int  #: the last commit that memory has
    crc: int  #: its checksum
    #: Base document and generation of each earlier journal that had commits of ours not long ago.
    previous: list[tuple[bytes, str | None]]
    replay: Callable[[State, list[Operations]], State]
    bodies: list[str]  #: the records of the journal, up to there


@dataclass(frozen=True, slots=True)
class Result:
    """The state after an edit."""

    state: State
    write: bool  #: whether the file does not have it yet
    lost: list[str]  #: our values that gave way to the edit
    conflict: str = ""  #: why the edit cannot have all our commits, so that they must be kept elsewhere
    contains: int = 0  #: the last commit of our generation that the edit had in its journal


def reconcile(known: History, image: f.Image, edited: State, data: bytes, ancestor: State | None = None) -> Result:
    """The state after an edit that left *data*, which is *image*, with the state *edited* in its base document.

    With *ancestor*, another process has merged the edit with our commits, but only up to that state. Raises
    EditConflict when document and journal do not belong together and we know neither.
    """
    records = decode(image.bodies, known.path, lambda: data)
    if ancestor is not None:
        return _merged(ancestor, known.replay(edited, records), known.state)
    if image.marker is None:
        result = _merged(document(known.base, known.path), edited, known.state)
        return replace(result, conflict=_stale(known, edited))
    if image.marker.generation == known.generation or (known.generation is None and image.marker.describes(known.base)):
        contains = image.index >= known.index and _chain(image, known.index) == known.crc
        before = document(known.base, known.path)
        if contains and not image.base_edited:
            return Result(known.replay(edited, records), write=False, lost=[])
        if contains:
            merged, lost = merge(before, edited, known.replay(before, records))
            return Result(merged, True, lost, _stale(known, edited), contains=image.index)
        common = _common(known.bodies, image.bodies)
        if common < image.index and not image.base_edited:
            # Others have gone on from the copy, without the commits that it lacks.
            edited, before = known.replay(edited, records), known.replay(before, records[:common])
        merged, lost = merge(before, edited, known.state)
        return Result(merged, True, lost, _stale(known, edited) if image.base_edited else "")
    for base, generation in known.previous:
        if image.marker.generation == generation:
            merged, lost = merge(document(base, known.path), edited, known.state)
            return Result(merged, True, lost)
    if image.base_edited:
        raise edited_above_journal(image, data, known.path)
    theirs = known.replay(edited, records)
    result = _merged(document(known.base, known.path), theirs, known.state)
    stale = _stale(known, edited)
    if not stale and not result.write and not result.lost:
        return result
    return Result(theirs, False, [], stale or "another program has committed to it without our commits")


def _stale(known: History, edited: State) -> str:
    """Why *edited* may lack commits that are no longer in our journal; or ""."""
    now = document(known.base, known.path)
    if not any(reverts(document(base, known.path), edited, now) for base, _ in known.previous):
        return ""
    return "it has values from before a vacuum of ours, so it seems to be a copy from before our commits"


def _merged(old: State, edited: State, ours: State) -> Result:
    merged, lost = merge(old, edited, ours)
    return Result(merged, not same(merged, edited), lost)


def _common(mine: list[str], theirs: list[str]) -> int:
    """How many records at their beginning two journals have in common."""
    return next((n for n, (a, b) in enumerate(zip(mine, theirs, strict=False)) if a != b), min(len(mine), len(theirs)))


def _chain(image: f.Image, index: int) -> int:
    """The checksum of commit *index* of *image*; 0 without one, as in the view of a file without a journal."""
    if index == 0 or image.marker is None:
        return 0
    crc = f.first_crc(image.marker.generation)
    for body in image.bodies[:index]:
        crc = crc32(body.encode(), crc)
    return crc


def reverts(old: Any, edited: Any, new: Any) -> bool:
    """Whether *edited* has, at some place, the value that *old* had there and *new* no longer has."""
    if same(old, new):
        return False
    if type(old) is type(edited) is type(new) is dict:
        missing = object()
        keys = {*old, *edited, *new}
        return any(reverts(old.get(key, missing), edited.get(key, missing), new.get(key, missing)) for key in keys)
    return old is edited or (type(old) is type(edited) and same(old, edited))
