"""`pstate resolve`: a person chooses between an edit of a document and the commits of a crashed program below it.

The file has only the length and checksum of the document from before the edit. If a copy that matches is found, edit
and commits are merged as in a running program (`edits.merge`). If not, the commits that fit can still be applied to the
edited document.
"""

from __future__ import annotations

import os
from typing import Any, NamedTuple

from pstate.cli import changes, progress, show
from pstate.cli.command import Command, No, Parser, Usage, declare_file, only_files
from pstate.cli.mending import ancestors, mend, presence, unopened
from pstate.cli.mending.ancestors import Ancestor
from pstate.cli.mending.examine import settled
from pstate.cli.mending.pieces import Head, head, pieces
from pstate.cli.mending.salvage import Lost, Replay, lost_lines, problem
from pstate.engine import State
from pstate.errors import InvalidStateError, PStateError
from pstate.file import edits, vacuum
from pstate.file import format as f
from pstate.memory.changes import Change, between
from pstate.signals import expected
from pstate.text import reading


class Resolution(NamedTuple):
    """The file after the command."""

    text: bytes
    state: State
    told: list[str]  #: what a person must know about it
    lost: list[Lost]


def _declare(parser: Parser) -> None:
    declare_file(parser, "the state file")
    side = parser.add_mutually_exclusive_group(required=True)
    side.add_argument(
        "--edit", dest="side", action="store_const", const="edit", help="keep the edited document, drop the commits"
    )
    side.add_argument(
        "--journal",
        dest="side",
        action="store_const",
        const="journal",
        help="keep the commits, undo the edit; needs the document from before the edit",
    )
    side.add_argument(
        "--both",
        dest="side",
        action="store_const",
        const="both",
        help="keep the edit, and the commits that fit",
    )
    parser.add_argument("--ancestor", metavar="OLD", help="a copy of the document from before the edit (searched for)")
    mend.declare(parser)


def _run(arguments: Any) -> int:
    only_files(
        arguments.file, f"A server keeps no edit that is not merged. To edit the state: pstate edit {arguments.file}"
    )
    path = os.path.realpath(arguments.file)
    with progress.shown(f"reading {arguments.file}", presence.must_exist(arguments.file)) as say:
        data = settled(path)[0]
        found = _edited(path, data)
        if found is None:
            return _say_nothing_to_do(path, arguments)
        say("merging the edit and the commits")
        ancestor = _ancestor(path, found, arguments.ancestor)
        resolution = _resolution(path, data, found, ancestor, arguments.side)
        mend.must_come_back(path, resolution.text, resolution.state)
        where = None if ancestor is None else ancestor.where
        if not arguments.json:
            show.write(_shown(path, found, where, resolution), mend.UNTOUCHED)
    copy, refusal = None, None
    try:
        if not arguments.dry_run:
            mend.refuse_while_open(path, arguments)
            copy = mend.replace(path, data, resolution.text, "before-resolve", arguments)
    except expected(No, Usage, PStateError) as raised:
        refusal = raised
    effect = mend.done("resolved", copy) if refusal is None else str(refusal)
    if arguments.json:
        show.write(show.json_text(_fields(path, found, where, resolution, copy)) + "\n", effect)
    if refusal is not None:
        raise refusal
    if not arguments.json:
        show.write(mend.verdict("resolved", copy), effect)
    return 0


def _edited(path: str, data: bytes) -> Head | None:
    """The journal whose document was edited; None where the file can be used. Raises what else is wrong."""
    error = problem(data, path)
    if error is None:
        return None
    found = head(data)
    if found is None or found.marker is None or found.is_intact or f.scan(data).version != f.VERSION:
        raise No(f"{error} This is not an edit above a journal. To see what can be kept: pstate repair {path}")
    return found


def _say_nothing_to_do(path: str, arguments: Any) -> int:
    if arguments.json:
        show.write(show.json_text({"file": path, "ok": True, "done": False}) + "\n")
    else:
        show.write(f"{path}: nothing to resolve, the file can be used as it is.\n")
    return 0


def _ancestor(path: str, found: Head, given: str | None) -> Ancestor | None:
    assert found.marker is not None
    if given is None:
        return ancestors.find(path, found.marker)
    content = unopened.content(given)
    base = ancestors.of(content, found.marker)
    if base is None:
        raise No(
            f"{given}: is not what the document was before the edit: that had {found.marker.length} bytes, with the "
            f"checksum {found.marker.crc:08x}. Nothing was changed. Look for an older copy."
        )
    return Ancestor(base, given)


# ------------------------------------------------------------------------------------------------------------ the sides


def _resolution(path: str, data: bytes, found: Head, ancestor: Ancestor | None, side: str) -> Resolution:
    if side == "journal":
        if ancestor is None:
            raise No(
                f"{path}:{found.line}: to undo the edit, the document from before it is needed, and no copy was found "
                "beside the file or in git. Nothing was changed. Name a copy: --ancestor OLD; or apply the commits "
                "that fit to the edited document: --both"
            )
        replay = _replay(path, data, found, reading.load(ancestor.base, ancestor.where).value, everything=False)
        text = vacuum.document(ancestor.base, replay.state, path)[0]
        return Resolution(text, replay.state, ["the edit is undone", *_counted(replay)], replay.lost)
    edited = _document(path, found)
    if side == "edit":
        replay = _replay(path, data, found, edited if ancestor is None else _state(ancestor), everything=True)
        return Resolution(found.base, edited, ["the document is kept as it was edited"], replay.all)
    if ancestor is None:
        replay = _replay(path, data, found, edited, everything=True)
        told = ["if both changed the same value, the commit wins, because the document from before the edit is unknown"]
        text = vacuum.document(found.base, replay.state, path)[0]
        return Resolution(text, replay.state, [*_counted(replay), *told], replay.lost)
    old = _state(ancestor)
    replay = _replay(path, data, found, old, everything=False)
    merged, gave_way = edits.merge(old, edited, replay.state)
    told = [f"changed by the edit and by a commit; the edit wins: {sentence}" for sentence in gave_way]
    return Resolution(vacuum.document(found.base, merged, path)[0], merged, [*_counted(replay), *told], replay.lost)


def _state(ancestor: Ancestor) -> State:
    return reading.load(ancestor.base, ancestor.where).value


def _document(path: str, found: Head) -> State:
    try:
        return reading.load(found.base, path).value
    except InvalidStateError as error:
        raise No(
            f"{error} This is the document that was edited, above the journal from line {found.line} on. Correct it "
            "first; or undo the edit: --journal; or keep what is whole: pstate repair --salvage"
        ) from error


def _replay(path: str, data: bytes, found: Head, state: State, everything: bool) -> Replay:
    replay = Replay(state, everything)
    for number, piece in enumerate(pieces(data, found), 1):
        replay.take(number, piece, path)
    return replay


def _counted(replay: Replay) -> list[str]:
    return [f"kept: {', '.join(replay.kept)}"]


# ------------------------------------------------------------------------------------------------------------- printing


def _shown(path: str, found: Head, where: str | None, resolution: Resolution) -> str:
    lines = [f"{path}:{found.line}: the document above the journal of a program that did not close the file was edited"]
    if where is not None:
        lines.append(f"what it was before the edit: {where}")
    lines += resolution.told
    if resolution.lost:
        lines += [f"{show.coloured('lost', 'red')}:", *lost_lines(resolution.lost)]
    differences = _differences(path, found, resolution)
    if differences is None:
        return "".join(f"{line}\n" for line in lines)
    lines.append(
        "what happens to the document above the journal:" if differences else "the document above the journal stays"
    )
    return "".join(f"{line}\n" for line in [*lines, *(f"  {changes.line(change)}" for change in differences)])


def _differences(path: str, found: Head, resolution: Resolution) -> list[Change] | None:
    """From the document as it is to the result; None if it does not parse."""
    try:
        return list(between(reading.load(found.base, path).value, resolution.state))
    except InvalidStateError:
        return None


def _fields(path: str, found: Head, where: str | None, resolution: Resolution, copy: str | None) -> dict[str, Any]:
    differences = _differences(path, found, resolution)
    return {
        "file": path,
        "ok": False,
        "line": found.line,
        "ancestor": where,
        "told": resolution.told,
        "lost": [each.fields() for each in resolution.lost],
        "changes": None if differences is None else [changes.fields(change) for change in differences],
        "done": copy is not None,
        "copy": copy,
    }


COMMANDS = {
    "resolve": Command(
        "resolve",
        "choose between an edit and the commits of a crashed program",
        "If a program did not close FILE, and then its document was edited above the journal, FILE cannot be opened.\n"
        "Choose: keep the edit, or the commits, or both. `resolve` looks for the document from before the edit beside\n"
        "FILE and in git, and recognizes it by its checksum. If it is found, edit and commits are merged value by\n"
        "value, and the edit wins if both changed the same one. If not, the commits are applied to the edited\n"
        "document. The result is shown, and a copy of FILE is kept beside it. Exit code 1 if it cannot be done.",
        "$ pstate resolve edited.yaml --both\n"
        "$PWD/edited.yaml:5: the document above the journal of a program that did not close the file was edited\n"
        "kept: commits 1 to 3\n"
        "if both changed the same value, the commit wins, because the document from before the edit is unknown\n"
        "what happens to the document above the journal:\n"
        "  ~ counter: 3 -> 5\n"
        "  ~ key.nested: 2 -> 3\n"
        "resolved; as it was: $PWD/edited.yaml.before-resolve\n"
        "$ cat edited.yaml\n"
        "counter: 5\n"
        "key:\n"
        "  nested: 3   # too many?\n"
        "size: 1",
        _declare,
        _run,
    )
}
