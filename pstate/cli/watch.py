"""`pstate watch`: prints each change of a file as it happens, or runs a command on it."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from typing import Any

from pstate.cli import changes, paths, session, show
from pstate.cli.command import (
    Command,
    No,
    Parser,
    Usage,
    count,
    declare_file,
    declare_json,
    declare_path,
    seconds,
    tell,
)
from pstate.cli.mending import presence
from pstate.cli.urls import Url
from pstate.memory.changes import Change
from pstate.memory.ops import ABSENT
from pstate.signals import expected

_FROM = {"other": "a program", "edit": "an edit", None: "somebody"}
#: Longest value in the environment of a command, in characters. Linux allows 128 KiB; a character may be 4 bytes.
_LONGEST = 30_000
_OURS = ("PSTATE_OLD", "PSTATE_NEW", "PSTATE_ORIGIN")


def _declare(parser: Parser) -> None:
    declare_file(parser)
    declare_path(parser, optional=True)
    declare_json(parser)
    parser.add_argument("--now", action="store_true", help="start with the present values, as if they were new")
    parser.add_argument("-n", "--count", metavar="N", type=count, help="exit after N changes")
    parser.add_argument(
        "--timeout", metavar="SECONDS", type=seconds, help="exit with code 1 after SECONDS without a change"
    )
    parser.add_argument("--batch", action="store_true", help="run COMMAND once for all changes of a commit")
    parser.add_argument(
        "--exit-on-error", action="store_true", help="exit when COMMAND fails, with its exit code; 128 + N for signal N"
    )
    parser.take_command("run COMMAND for each change, instead of printing it")


def _run(arguments: Any) -> int:
    place = paths.parse(arguments.path)
    if arguments.command and shutil.which(arguments.command[0]) is None:
        raise Usage(f"the command {arguments.command[0]!r} does not exist. Nothing was done.")
    if arguments.exit_on_error and not arguments.command:
        raise Usage("--exit-on-error needs a COMMAND after --. Nothing was done.")
    presence.must_exist(arguments.file)
    left = arguments.count
    with session.looked_at(arguments.file) as state:
        for told in session.news(state.watch(place, now=arguments.now), arguments.timeout):
            if not told:
                continue
            found = told[:left]
            if arguments.command:
                for together in [found] if arguments.batch else [[change] for change in found]:
                    code = _call(arguments, together)
                    if code and arguments.exit_on_error:
                        return code
            else:
                for change in found:
                    _print(change, arguments.json)
            if left is not None:
                left -= len(found)
                if not left:
                    return 0
    raise No(f"{arguments.file}: nothing has changed for {arguments.timeout:g} s.")


def _print(change: Change, as_json: bool) -> None:
    if as_json:
        show.write(_json(change))
    else:
        show.write(f"{changes.line(change)}  {show.coloured('by ' + _FROM[change.origin], 'dim')}\n")
    show.flush()


def _json(change: Change) -> str:
    return show.json_text({**changes.fields(change), "origin": change.origin, "commit": change.commit}) + "\n"


def _call(arguments: Any, found: list[Change]) -> int:
    """Run the command for *found*, and say if it fails. Returns its exit code, as a shell gives it."""
    change = found[0]
    environment = {
        "PSTATE_FILE": str(arguments.file) if isinstance(arguments.file, Url) else os.path.abspath(arguments.file),
        "PSTATE_PATH": paths.show(list(change.path)),
    }
    if change.origin is not None:  # values from before the watch have an unknown origin
        environment["PSTATE_ORIGIN"] = change.origin
    for name, value in (("PSTATE_OLD", change.old), ("PSTATE_NEW", change.new)):
        text = None if value is ABSENT else show.value_text(value, "raw")
        if text is not None and len(text) <= _LONGEST and "\0" not in text:
            environment[name] = text
    words, told = " ".join(arguments.command), "".join(map(_json, found)).encode()
    try:
        done = subprocess.run(
            arguments.command,
            input=told,
            env={**{name: text for name, text in os.environ.items() if name not in _OURS}, **environment},
            check=False,
        )
    except expected(OSError, ValueError) as error:
        raise No(f"the command {words!r} could not be run: {error}. {arguments.file} is unchanged.") from error
    then = "exiting" if arguments.exit_on_error else "continuing"
    if done.returncode > 0:
        tell(f"pstate: {words!r} failed with exit code {done.returncode}; {then}")
    elif done.returncode < 0:
        number = -done.returncode
        tell(f"pstate: {words!r} was killed by signal {number} ({signal.strsignal(number)}); {then}")
        return 128 + number
    return done.returncode


COMMANDS = {
    "watch": Command(
        "watch",
        "print each change as it happens, or run a command on it",
        "Wait for changes of FILE, or of the value at PATH, by any program or editor. Print each, or run COMMAND.\n"
        "COMMAND gets the change as a line of JSON on standard input, and these environment variables: PSTATE_FILE,\n"
        "PSTATE_PATH, PSTATE_ORIGIN (other or edit; not set for --now), PSTATE_OLD and PSTATE_NEW. The last two are\n"
        "values as `pstate get` prints them; they are not set if there is no value, or if it is too long.\n"
        "While COMMAND runs, further changes wait. Setting the same value again is not a change.\n"
        "FILE is not locked and not changed.",
        "$ (for n in 1 2 3 4 5; do sleep 0.2; pstate incr state.yaml counter; done > /dev/null) &\n"
        "$ pstate watch state.yaml counter --count 1 -- sh -c 'echo \"$PSTATE_PATH has changed\"'\n"
        "counter has changed\n"
        "$ pstate watch state.yaml jobs --timeout 0.1 || echo nothing new\n"
        "nothing new",
        _declare,
        _run,
    )
}
