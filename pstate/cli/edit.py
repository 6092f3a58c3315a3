"""`pstate edit`: runs an editor on a copy of the state, and merges the saved copy into the file.

Unlike `visudo`, it does not hold the lock while the editor runs: a lunch break would be a LockTimeout for everybody
else. The copy counts as an edit of the state that it was made from. At the end it is merged with what other programs
committed in the meantime, like any save (`pstate.text.merge`), and the file is rewritten as by a vacuum. With `--lock`,
other programs wait.
"""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from typing import Any, NamedTuple

from pstate.cli import session, values
from pstate.cli.command import Command, No, Parser, Usage, declare_file, declare_writing, tell
from pstate.cli.mending import unopened
from pstate.cli.urls import Url
from pstate.errors import InvalidStateError, WriteError
from pstate.memory.frames import store_of
from pstate.signals import expected
from pstate.text import merge, reading


class Original(NamedTuple):
    """What the editor starts with."""

    text: bytes  #: the copy
    state: dict[Any, Any]  #: the state in it


class Edited(NamedTuple):
    """What the editor saved."""

    text: bytes
    state: dict[Any, Any]


class Discarded(No):
    """The person has discarded the copy."""


def _declare(parser: Parser) -> None:
    declare_file(parser)
    parser.add_argument("--lock", action="store_true", help="lock the file while the editor runs")
    declare_writing(parser)


def _run(arguments: Any) -> int:
    if isinstance(arguments.file, Url):
        file: str = arguments.file
        if arguments.lock:
            raise Usage(
                f"{file}: --lock is for files, because a server gives the lock to others after a while. Nothing was "
                "done. Leave it out: what you save is merged."
            )
    else:
        file = os.path.realpath(arguments.file)
    if session.is_new(file, arguments.lock_timeout):
        _edit_new(arguments, file)
        return 0
    # The state is opened before the editor starts: nobody should write a document that cannot be saved.
    is_known = isinstance(file, Url)  # to exist: the server was asked
    with session.opened(arguments, create=is_known) as state, _copied(file) as copy:
        with state.transaction() if arguments.lock else contextlib.nullcontext():
            original = _original(file, state)
            edited = copy.edit(original.text)
        if edited is None:
            tell("pstate: the copy was not changed, so nothing was.")
        else:
            _bring_in(state, original, edited)
    return 0


def _edit_new(arguments: Any, file: str) -> None:
    """Let a person write the first document of *file*, which does not exist. Without one, it is not created."""
    if arguments.lock:
        raise Usage(f"{file}: does not exist, so --lock cannot lock it. Nothing was done. Leave out --lock.")
    folder = os.path.dirname(file)
    if not isinstance(file, Url) and not os.access(folder, os.W_OK | os.X_OK):
        raise WriteError(f"{file}: cannot be created: {folder} is not writable. Nothing was done.", path=file)
    with _copied(file) as copy:
        edited = copy.edit(b"")
        if edited is None:
            tell(f"pstate: nothing was written, so {arguments.file} was not created.")
            return
        # If another program has created it in the meantime, this is an edit of its empty beginning.
        with session.opened(arguments) as state:
            _bring_in(state, Original(b"", {}), edited)


class _Copy:
    """The file that the editor works on."""

    def __init__(self, path: str) -> None:
        self.path = path
        self._given = b""

    def edit(self, given: bytes) -> Edited | None:
        """Let a person edit *given*; None if it is left as it is. Raises No, or InvalidStateError if it is invalid."""
        self._given = given
        with open(self.path, "wb") as target:
            target.write(given)
        return _let_edit(self.path, given)

    def has_changed(self) -> bool:
        """Whether it is not what was given to the editor, if that can be told."""
        try:
            return _read(self.path) != self._given
        except expected(OSError):
            return False


@contextlib.contextmanager
def _copied(file: str) -> Iterator[_Copy]:
    """A copy of *file* for an editor. It is deleted at the end, except if that would lose what a person wrote."""
    folder = tempfile.mkdtemp(prefix="pstate-")  # readable for nobody else
    copy = _Copy(os.path.join(folder, _name_of_copy(file)))
    is_done = False
    try:
        yield copy
        is_done = True
    except Discarded:
        is_done = True
        raise
    finally:
        if is_done or not copy.has_changed():
            shutil.rmtree(folder, ignore_errors=True)
        else:
            tell(f"pstate: your text was kept in {copy.path}")


def _name_of_copy(file: str) -> str:
    if isinstance(file, Url):
        return re.sub(r"[^\w.-]", "_", file.address.name)[:60].lstrip(".-") + ".yaml"  # for the colours of an editor
    return os.path.basename(file)


def _original(file: str, state: Any) -> Original:
    if isinstance(file, Url):
        from pstate.cli.servers import carry

        found = carry.found_in(state)
        return Original(found.document, found.state)
    data = unopened.content(file)
    content = unopened.read(data, file)
    plain = unopened.replayed(content, file, data)
    return Original(unopened.document(content, plain, file), plain)


def _read(path: str) -> bytes:
    with open(path, "rb") as file:
        return file.read()


# ----------------------------------------------------------------------------------------------------------- the editor


def _let_edit(copy: str, given: bytes) -> Edited | None:
    """What the person makes of *copy*; None if nothing. Raises InvalidStateError if it is not a state, or No."""
    while True:
        _run_editor(copy)
        text = _read(copy)
        if text == given or not (given or text.strip()):
            return None
        try:
            return Edited(text, reading.load(text, copy).value)
        except InvalidStateError as error:
            tell(_excerpt(text, error))
            answer = _ask(error) if sys.stdin.isatty() else "k"
            if answer == "d":
                raise Discarded("your text was discarded. Nothing was changed.") from None
            if answer == "k":
                raise


def _run_editor(copy: str) -> None:
    editor = os.environ.get("VISUAL") or os.environ.get("EDITOR") or "vi"
    try:
        process = subprocess.Popen([*shlex.split(editor), copy])
    except expected(OSError, ValueError) as error:
        raise No(f"the editor {editor!r} could not be run: {error}. Nothing was changed. Set VISUAL.") from error
    # Ctrl-C in a terminal is meant for the editor, but also reaches this process.
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        code = process.wait()
    finally:
        signal.signal(signal.SIGINT, before)
    if code:
        raise No(f"the editor {editor!r} ended with exit code {code}. Nothing was changed.")


def _ask(error: InvalidStateError) -> str:
    tell(f"pstate: {error}")
    tell("e to edit again, k to keep the copy and quit, d to discard it [e]: ", end="")
    answer = sys.stdin.readline()
    return answer.strip()[:1].lower() or ("e" if answer else "k")


def _excerpt(text: bytes, error: InvalidStateError) -> str:
    """The lines around *error*, with a mark below its place."""
    lines = text.decode("utf-8", "replace").split("\n")
    line, column = error.line or 1, error.column or 1
    shown = [f"{number:>5} | {lines[number - 1]}" for number in range(max(1, line - 2), min(line, len(lines)) + 1)]
    return "\n".join([*shown, " " * (column + 7) + "^"])


# ------------------------------------------------------------------------------------------------------------ the state


def _bring_in(state: Any, original: Original, edited: Edited) -> None:
    """Merge the edit with what other programs have committed since the copy was made."""
    try:
        lost = store_of(state).save(original.state, edited.text)
    except expected(WriteError) as error:
        # The file cannot be replaced, so only the values are saved, as one commit.
        with state.transaction():
            merged, lost = merge.merge(original.state, edited.state, state.snapshot())
            values.become(state, merged)
        tell(f"pstate: the values are saved, but not your comments and layout: {error}")
    for sentence in lost:
        tell(f"pstate: both you and a program changed a value, and yours was saved: {sentence}")


COMMANDS = {
    "edit": Command(
        "edit",
        "edit a file while programs use it, or write a new one",
        "Run $VISUAL, $EDITOR or vi on a copy of the state, and merge the saved copy into FILE.\n"
        "Values that programs commit in the meantime are kept. If you and a program changed the same value, yours is\n"
        "saved, and the other one is printed. If the copy is not valid, you see the line and can edit again.\n"
        "Comments in FILE and in the copy are kept. Afterwards, FILE is one plain document.\n"
        "If FILE does not exist, the editor starts empty, and FILE is created if you save a mapping.",
        "$ EDITOR='sed -i s/wash/iron/' pstate edit state.yaml\n$ pstate get state.yaml jobs[0].name\niron",
        _declare,
        _run,
    )
}
