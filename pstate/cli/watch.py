"""`pstate watch`: each change of a file, as it comes, printed or given to a command."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from typing import Any

from pstate.cli import changes, paths, show
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
from pstate.memory.changes import Change
from pstate.memory.ops import ABSENT
from pstate.signals import expected
from pstate.state import PersistedState
from pstate.watch import WATCH_INTERVAL, Watch

_FROM = {"other": "a program", "edit": "an edit", None: "somebody"}
#: In the environment of a command, in characters: Linux takes 128 KiB for one, and a character may be four bytes.
_LONGEST = 30_000
_OURS = ("PSTATE_OLD", "PSTATE_NEW", "PSTATE_ORIGIN")


def _declare(parser: Parser) -> None:
    declare_file(parser)
    declare_path(parser, optional=True)
    declare_json(parser)
    parser.add_argument("--now", action="store_true", help="begin with what is there, as if it had just come")
    parser.add_argument("-n", "--count", metavar="N", type=count, help="end after N changes")
    parser.add_argument(
        "--timeout", metavar="SECONDS", type=seconds, help="end when nothing has changed for so long, with exit code 1"
    )
    parser.add_argument("--batch", action="store_true", help="run the command once for what came as one commit")
    parser.take_command("run for each change, instead of printing it")


def _run(arguments: Any) -> int:
    place = paths.parse(arguments.path)
    if arguments.command and shutil.which(arguments.command[0]) is None:
        raise Usage(f"there is no command {arguments.command[0]!r}. Nothing was done.")
    presence.must_exist(arguments.file)
    left = arguments.count
    with PersistedState.open(arguments.file, read_only=True) as state:
        for found in _awaited(state.watch(place, now=arguments.now), arguments.timeout):
            found = found[:left]
            if arguments.command:
                for together in [found] if arguments.batch else [[change] for change in found]:
                    _call(arguments, together)
            else:
                for change in found:
                    _print(change, arguments.json)
            if left is not None:
                left -= len(found)
                if not left:
                    return 0
    raise No(f"{arguments.file}: nothing has changed for {arguments.timeout:g} s.")


def _awaited(watch: Watch, timeout: float | None) -> Iterator[list[Change]]:
    """What came together, as it comes, until nothing has come for *timeout* seconds."""
    since = time.monotonic()
    while timeout is None or time.monotonic() - since < timeout:
        for found in watch.commits():
            yield found
            since = time.monotonic()
        time.sleep(WATCH_INTERVAL)


def _print(change: Change, as_json: bool) -> None:
    if as_json:
        show.write(_json(change))
    else:
        show.write(f"{changes.line(change)}  {show.coloured('by ' + _FROM[change.origin], 'dim')}\n")
    show.flush()


def _json(change: Change) -> str:
    return show.json_text({**changes.fields(change), "origin": change.origin, "commit": change.commit}) + "\n"


def _call(arguments: Any, found: list[Change]) -> None:
    """Run the command for *found*. That it fails is told, and no reason to end."""
    change = found[0]
    environment = {
        "PSTATE_FILE": os.path.abspath(arguments.file),
        "PSTATE_PATH": paths.show(list(change.path)),
    }
    if change.origin is not None:  # nobody knows whose it is that was there before
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
        raise No(f"the command {words!r} could not be run: {error}. {arguments.file} is as it was.") from error
    if done.returncode > 0:
        tell(f"pstate: {words!r} ended with exit code {done.returncode}; going on")
    elif done.returncode < 0:
        died = signal.strsignal(-done.returncode)
        tell(f"pstate: {words!r} died of signal {-done.returncode} ({died}); going on")


COMMANDS = {
    "watch": Command(
        "watch",
        "print each change as it comes, or run a command on it",
        "Wait for changes of FILE, or of what is at PATH, from whatever program or editor they come, and print each,\n"
        "or run COMMAND. It gets the change as a line of JSON on standard input, and in the environment PSTATE_FILE,\n"
        "PSTATE_PATH, PSTATE_ORIGIN (other or edit; none for --now), and PSTATE_OLD and PSTATE_NEW: the values as\n"
        "`pstate get` prints them, each where there is one that is not too long. Changes that come while COMMAND runs\n"
        "wait for it. What is set to the value that it has is no change. No lock is taken, no byte changes.",
        "$ (for n in 1 2 3 4 5; do sleep 0.2; pstate incr state.yaml counter; done > /dev/null) &\n"
        "$ pstate watch state.yaml counter --count 1 -- sh -c 'echo \"$PSTATE_PATH has changed\"'\n"
        "counter has changed\n"
        "$ pstate watch state.yaml jobs --timeout 0.1 || echo nothing new\n"
        "nothing new",
        _declare,
        _run,
    )
}
