"""`pstate pull` and `push`: a state from a server to a file, and back.

`push` replaces the state on the server, so it must know that the file was made from the newest revision. The document
does not say that: it is the person's. So a *note* beside the file, FILE.server, names the state (its id, which is new
when it is deleted and created again), the revision and the token of its commit. `pull` and `push` write it. Without a
note, or with that of another revision, `push` refuses, unless the document is the same byte for byte. A note that was
lost costs a --force, and no commit.
"""

from __future__ import annotations

import json
import os
from typing import Any, NamedTuple

from pstate.cli import progress, session, show
from pstate.cli.command import Command, No, Parser, Usage, declare_file, declare_writing, file_or_url, tell, varied
from pstate.cli.mending import presence, unopened
from pstate.cli.transfer import targets
from pstate.cli.urls import Url
from pstate.engine import Overtaken, State, View
from pstate.errors import WriteError
from pstate.memory.frames import store_of
from pstate.signals import expected
from pstate.state import PersistedState

#: Of the note beside a file.
SUFFIX = ".server"
_STANDARD_OUTPUT = "-"


class Found(NamedTuple):
    """A state on a server, at one moment."""

    view: View
    state: State
    document: bytes  #: with what a person wrote besides the values
    identity: Any  #: `pstate.rows.log.Identity`
    commits: int  #: after the last snapshot


def found_in(state: PersistedState) -> Found:
    """What *state*, which is on a server, says now."""
    core = store_of(state)
    found: Found = core.read(_found, core)
    return found


def _found(core: Any) -> Found:
    log = core.log
    identity = log.identity()
    return Found(core.view, core.plain(), log.document(), identity, identity.revision - log.journal.base)


# ----------------------------------------------------------------------------------------------------------------- pull


def _declare_pull(parser: Parser) -> None:
    parser.add_argument("url", metavar="URL", type=file_or_url, help="the state: postgresql://HOST/DATABASE#NAME")
    parser.add_argument("file", metavar="FILE", type=file_or_url, help="the file to write; - is standard output")
    parser.add_argument("--force", action="store_true", help="replace FILE if it exists")


def _pull(arguments: Any) -> int:
    url, file = arguments.url, arguments.file
    if not isinstance(url, Url) or isinstance(file, Url):
        raise Usage(f"pull takes a URL, and then a file. Nothing was done. To copy it back: pstate push {url} {file}")
    if file != _STANDARD_OUTPUT:
        targets.refuse(file, "yaml", "", arguments.force)
    with progress.shown(f"reading {url}", presence.UNKNOWN_SIZE):
        with session.no_collector(), session.looked_at(url) as state:
            found = found_in(state)
    if file == _STANDARD_OUTPUT:
        show.write(found.document.decode())
        return 0
    try:
        targets.put_text(found.document, file, arguments.force)
    except expected(WriteError) as error:
        if not arguments.force and os.path.lexists(file):
            raise No(f"{file}: already exists. Nothing was written. To replace it: --force") from error
        raise
    _write_note(file, found.identity, url)
    return 0


# ----------------------------------------------------------------------------------------------------------------- push


def _declare_push(parser: Parser) -> None:
    declare_file(parser, "the state file")
    parser.add_argument("url", metavar="URL", type=file_or_url, help="the state: postgresql://HOST/DATABASE#NAME")
    parser.add_argument(
        "--force", action="store_true", help="replace the state, also if FILE was not made from its newest revision"
    )
    declare_writing(parser)


def _push(arguments: Any) -> int:
    file, url = arguments.file, arguments.url
    if isinstance(file, Url) or not isinstance(url, Url):
        append = "" if isinstance(file, Url) else f" To append to a list: pstate append {file} {url} VALUE"
        raise Usage(f"push takes a file, and then a URL. Nothing was done.{append}")
    with progress.shown(f"reading {file}", presence.must_exist(file)) as say, session.no_collector():
        document = _document_of(file)
        say(f"writing {url}")
        with session.database(url, arguments.lock_timeout) as there:
            identity = there.create(document)
        if identity is None:
            with session.opened(varied(arguments, file=url)) as state:
                identity = _replace(state, arguments, document)
    _write_note(file, identity, url)
    return 0


def _document_of(file: str) -> bytes:
    """The state in *file*, with what a person wrote, as one document."""
    path, data = os.path.realpath(file), unopened.content(file)
    content = unopened.read(data, path)
    return unopened.document(content, unopened.replayed(content, path, data), path)


def _replace(state: PersistedState, arguments: Any, document: bytes) -> Any:
    """Make *state* what *document* says, as one commit; returns the identity of that. Raises No."""
    core: Any = store_of(state)
    note = None if arguments.force else _read_note(arguments.file)
    while True:
        found = found_in(state)
        if found.document == document:
            return found.identity
        if not arguments.force:
            _refuse(arguments, note, found.identity)
        try:
            core.save(found.state, document, found.view)
        except Overtaken:
            continue  # another program has committed at this moment
        return core.alone(None, core.log.identity)


def _refuse(arguments: Any, note: Note | None, now: Any) -> None:
    """Raise No unless *note* says that the file was made from the commit *now*."""
    file, url = arguments.file, arguments.url
    if note is None:
        why = f"{file}{SUFFIX} does not exist, so it is unknown which revision the file was made from"
    elif note.state != now.store:
        why = f"it was made from another state: one that was deleted, or the one at {note.url}"
    elif (note.revision, note.token) != (now.revision, now.token):
        why = f"it was made from revision {note.revision:,}, and the state is at revision {now.revision:,} by now"
    else:
        return
    raise No(
        f"{file}: {why}. Nothing was changed. To see what differs: pstate diff {url} {file}. To merge by hand: pstate "
        f"edit {url}. To replace the state: --force"
    )


# ------------------------------------------------------------------------------------------------------------- the note


class Note(NamedTuple):
    """Which commit a file was made from, or was made into."""

    url: str
    state: str
    revision: int
    token: str


def _write_note(file: str, identity: Any, url: Url) -> None:
    note = Note(str(url), identity.store, identity.revision, identity.token)
    path = os.path.realpath(file) + SUFFIX
    try:
        targets.put_text((json.dumps(note._asdict()) + "\n").encode(), path, True)
    except expected(WriteError) as error:
        tell(f"pstate: {error} Everything else is done, but the next pstate push of {file} needs --force.")


def _read_note(file: str) -> Note | None:
    """The note beside *file*; None where there is none. Raises Usage if somebody has changed it."""
    path = os.path.realpath(file) + SUFFIX
    try:
        with open(path, encoding="utf-8") as source:
            return Note(**json.load(source))
    except expected(FileNotFoundError):
        return None
    except expected(OSError, ValueError, TypeError) as error:
        raise Usage(f"{path}: is not a note of pstate: {error}. Nothing was changed. Delete it.") from error


COMMANDS = {
    "pull": Command(
        "pull",
        "copy a state to a file",
        "Write the state at URL to FILE, as the YAML document with its comments, complete or not at all.\n"
        "FILE.server notes which revision that is, for pstate push. Programs that have FILE open take a new FILE as\n"
        "an edit. Exit code 1 if FILE exists and there is no --force: nothing is changed then.",
        '$ pstate set "$URL#jobs" color red\n'
        '$ pstate pull "$URL#jobs" copy.yaml\n'
        "$ cat copy.yaml\ncolor: red\n"
        '$ pstate pull "$URL#jobs" copy.yaml || echo no\nno',
        _declare_pull,
        _pull,
    ),
    "push": Command(
        "push",
        "copy a file to a state",
        "Make the state at URL from FILE, with its comments. A state that exists is replaced, in one commit, if FILE\n"
        "was made from its newest revision: FILE.server, which pull and push write, says which one it was.\n"
        "Otherwise, nothing is changed without --force, and the exit code is 1.",
        '$ pstate push state.yaml "$URL#jobs"\n'
        "$ pstate set state.yaml counter 4\n"
        '$ pstate push state.yaml "$URL#jobs"\n'
        '$ pstate get "$URL#jobs" counter\n4\n'
        '$ pstate incr "$URL#jobs" counter\n5\n'
        "$ pstate set state.yaml counter 7\n"
        '$ pstate push state.yaml "$URL#jobs" || echo no\nno',
        _declare_push,
        _push,
    ),
}
