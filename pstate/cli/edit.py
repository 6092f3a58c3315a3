"""`pstate edit`: a person's editor on a copy, and what it was saved as brought together with the state.

The lock is not held while the editor runs, as `visudo` would: a lunch break would be everybody's LockTimeout. The copy
is an edit of the state that it was made from, so at the end it is merged with what others have committed meanwhile,
like any save (`pstate.text.merge`), and the file is written from it as a vacuum would write it. With `--lock`, others
wait.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
from typing import Any, NamedTuple

from pstate.cli import session, values
from pstate.cli.command import Command, No, Parser, declare_file, declare_writing, tell
from pstate.cli.mending import unopened
from pstate.errors import InvalidStateError, WriteError
from pstate.memory.frames import store_of
from pstate.signals import expected
from pstate.text import merge, reading


class Original(NamedTuple):
    """What the editor is given."""

    text: bytes  #: the copy
    state: dict[Any, Any]  #: what the copy says


class Edited(NamedTuple):
    """What the editor has left."""

    text: bytes
    state: dict[Any, Any]


class Discarded(No):
    """The person does not want the copy any more."""


def _declare(parser: Parser) -> None:
    declare_file(parser)
    parser.add_argument("--lock", action="store_true", help="keep all other writers out while the editor runs")
    declare_writing(parser)


def _run(arguments: Any) -> int:
    file = os.path.realpath(arguments.file)
    # Opened before the editor runs: where nothing can be written, nobody shall write for nothing.
    with session.opened(arguments, create=False) as state:
        copy = os.path.join(tempfile.mkdtemp(prefix="pstate-"), os.path.basename(file))  # readable for nobody else
        given = b""
        is_done = False
        try:
            with state.transaction() if arguments.lock else contextlib.nullcontext():
                original = _original(file)
                given = original.text
                with open(copy, "wb") as target:
                    target.write(given)
                edited = _let_edit(copy, given)
            if edited is None:
                tell("pstate: the copy was not changed, so nothing was.")
            else:
                _bring_in(state, original, edited)
            is_done = True
        except Discarded:
            is_done = True
            raise
        finally:
            if is_done or not _has_changed(copy, given):
                shutil.rmtree(os.path.dirname(copy), ignore_errors=True)
            else:
                tell(f"pstate: what you have written was kept in {copy}")
    return 0


def _original(file: str) -> Original:
    data = unopened.content(file)
    found = unopened.read(data, file)
    state = unopened.replayed(found, file, data)
    return Original(unopened.document(found, state, file), state)


def _has_changed(copy: str, given: bytes) -> bool:
    try:
        return _read(copy) != given
    except expected(OSError):
        return False


def _read(path: str) -> bytes:
    with open(path, "rb") as file:
        return file.read()


# ----------------------------------------------------------------------------------------------------------- the editor


def _let_edit(copy: str, given: bytes) -> Edited | None:
    """What the person makes of *copy*; None if nothing. Raises InvalidStateError for what does not parse, or No."""
    while True:
        _run_editor(copy)
        text = _read(copy)
        if text == given:
            return None
        try:
            return Edited(text, reading.load(text, copy).value)
        except InvalidStateError as error:
            tell(_excerpt(text, error))
            answer = _ask(error) if sys.stdin.isatty() else "k"
            if answer == "d":
                raise Discarded(f"{copy}: discarded. Nothing was changed.") from None
            if answer == "k":
                raise


def _run_editor(copy: str) -> None:
    editor = os.environ.get("VISUAL") or os.environ.get("EDITOR") or "vi"
    try:
        process = subprocess.Popen([*shlex.split(editor), copy])
    except expected(OSError, ValueError) as error:
        raise No(f"the editor {editor!r} could not be run: {error}. Nothing was changed. Set VISUAL.") from error
    # Ctrl-C in a terminal is for the editor, but comes to us too.
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        code = process.wait()
    finally:
        signal.signal(signal.SIGINT, before)
    if code:
        raise No(f"the editor {editor!r} ended with exit code {code}. Nothing was changed.")


def _ask(error: InvalidStateError) -> str:
    tell(f"pstate: {error}")
    tell("e to edit again, k to keep the copy and end, d to discard it [e]: ", end="")
    answer = sys.stdin.readline()
    return answer.strip()[:1].lower() or ("e" if answer else "k")


def _excerpt(text: bytes, error: InvalidStateError) -> str:
    """The lines around *error*, with a mark below it."""
    lines = text.decode("utf-8", "replace").split("\n")
    line, column = error.line or 1, error.column or 1
    shown = [f"{number:>5} | {lines[number - 1]}" for number in range(max(1, line - 2), min(line, len(lines)) + 1)]
    return "\n".join([*shown, " " * (column + 7) + "^"])


# ------------------------------------------------------------------------------------------------------------ the state


def _bring_in(state: Any, original: Original, edited: Edited) -> None:
    """Make the state what the edit says, with what others have committed since the copy was made."""
    try:
        lost = store_of(state).save(original.state, edited.text)
    except expected(WriteError) as error:
        # The file cannot be replaced: then at least the values, as one commit.
        with state.transaction():
            merged, lost = merge.merge(original.state, edited.state, state.snapshot())
            values.become(state, merged)
        tell(f"pstate: the values are saved, comments and layout are as they were: {error}")
    for sentence in lost:
        tell(f"pstate: changed by the edit and by a program, the edit wins: {sentence}")


COMMANDS = {
    "edit": Command(
        "edit",
        "edit a file while programs use it",
        "Run $VISUAL, $EDITOR or vi on a copy of the state, and bring what it is saved as into FILE, as one commit.\n"
        "What others commit meanwhile is kept, value by value; where both changed the same one, the edit wins, and\n"
        "the other value is printed. While the copy does not parse, you are shown the line and may edit again.\n"
        "Comments are kept, those in FILE and those that you write. FILE is one plain document afterwards.",
        "$ EDITOR='sed -i s/wash/iron/' pstate edit state.yaml\n$ pstate get state.yaml jobs[0].name\niron",
        _declare,
        _run,
    )
}
