"""`pstate view`: whether there is a terminal, and what is done before the screen begins and after its end."""

from __future__ import annotations

import os
import signal
import sys
import threading
from importlib.util import find_spec
from typing import Any, NoReturn

from pstate.cli import paths, session
from pstate.cli.command import Command, Parser, Usage, declare_file, declare_path, declare_writing, tell
from pstate.cli.mending import presence
from pstate.signals import expected

INSTALL = "pip install textual"


def _declare(parser: Parser) -> None:
    declare_file(parser)
    declare_path(parser, optional=True)
    declare_writing(parser)


def _run(arguments: Any) -> int:
    place = paths.parse(arguments.path)
    if find_spec("textual") is None:
        raise Usage(f"pstate view needs textual, which is not installed. Nothing was done. Run: {INSTALL}")
    _refuse_terminal(arguments.file)
    try:
        from pstate.cli.view import app
    except ImportError as error:
        if (error.name or "").partition(".")[0] not in ("textual", "rich"):
            raise
        raise Usage(
            f"pstate view needs another version of textual: {error}. Nothing was done. Run: {INSTALL}"
        ) from None
    import asyncio

    from pstate.cli.view.following import Follower
    from pstate.cli.view.model import Model

    presence.must_exist(arguments.file)
    state = session.looked_at(arguments.file)
    follower = None
    try:
        follower = Follower(state, arguments.file)
        model = Model(follower.document, place, os.path.basename(arguments.file))
        _forget_size()
        # The thread that follows many commits must not keep a key waiting for 5 ms each time.
        sys.setswitchinterval(0.001)
        follower.start()
        screen = app.ViewApp(model, follower, arguments)
        ended_by = asyncio.run(_shown(screen, follower))
    finally:
        if follower is not None:
            follower.end()
        else:
            state.close()
    return _leave(screen, ended_by)


def _refuse_terminal(file: str) -> None:
    """Raise Usage where a screen cannot be drawn."""
    instead = f"Nothing was done. To print changes as they come: pstate watch {file}"
    for stream, name in ((sys.stdout, "output"), (sys.stdin, "input"), (sys.stderr, "error")):
        if not stream.isatty():
            raise Usage(f"pstate view needs a terminal, and standard {name} is not one. {instead}")
    if os.environ.get("TERM", "") in ("", "dumb", "unknown"):
        raise Usage(
            "pstate view needs a terminal that can place text, and the environment variable TERM says that this one "
            f"cannot. {instead}"
        )


def _forget_size() -> None:
    """Let the terminal say how large it is: COLUMNS and LINES may be of another one, or from before a change."""
    if all(os.get_terminal_size(sys.stdout.fileno())):
        for name in ("COLUMNS", "LINES"):
            os.environ.pop(name, None)


async def _shown(screen: Any, follower: Any) -> signal.Signals | None:
    """Run *screen* to its end; returns the signal that has ended it, if one has."""
    import asyncio

    loop = asyncio.get_running_loop()
    ended_by: signal.Signals | None = None

    over = threading.Event()

    def end(number: signal.Signals) -> None:
        nonlocal ended_by
        if ended_by is None:
            ended_by = number
            loop.remove_signal_handler(number)  # the next one ends us at once
            threading.Thread(target=_end_hard, args=(number, over, follower, screen), daemon=True).start()
            screen.exit(0)

    async def notice_hangup() -> None:
        # A program that ignores SIGHUP, as under nohup, would read the end of its input again and again.
        while True:
            await asyncio.sleep(_LOOK)
            try:
                os.get_terminal_size(sys.stdin.fileno())
            except expected(OSError):
                end(signal.SIGHUP)

    for number in _ENDING:
        loop.add_signal_handler(number, end, number)
    noticing = asyncio.create_task(notice_hangup())
    try:
        await screen.run_async()
    except expected(OSError):
        if ended_by != signal.SIGHUP:
            raise  # else the terminal is gone, and there is nothing to be put in order
    finally:
        over.set()
        noticing.cancel()
        for number in _ENDING:
            loop.remove_signal_handler(number)
    return ended_by


#: For how long the screen may be put in order after a signal, in seconds.
_POLITE = 2.0
#: How often it is asked whether the terminal is there still, in seconds.
_LOOK = 1.0
_ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def _end_hard(number: signal.Signals, over: threading.Event, follower: Any, screen: Any) -> None:
    """End by the signal *number* if the screen does not: textual may wait for a terminal that takes nothing more."""
    if not over.wait(_POLITE):
        follower.end()
        saving = screen.saving
        if saving is not None:
            saving.join()
        os.kill(os.getpid(), number)


def _leave(screen: Any, ended_by: signal.Signals | None) -> int:
    """Say what has come of an edit that was under way at the end, and end as the signal asks, if one has come."""
    code = screen.return_code or 0
    saving = screen.saving
    if saving is not None:
        if saving.is_alive():
            tell("pstate: waiting for the lock, to commit the last edit")
            saving.join()
        if saving.failure is not None:
            raise saving.failure
        tell(f"pstate: {saving.outcome.words}")
        code = code or int(not saving.outcome.is_done)
    if ended_by is None and screen.is_interrupted:
        ended_by = signal.SIGINT
    if ended_by is not None:
        _die_by(ended_by)
    return int(code)


def _die_by(number: signal.Signals) -> NoReturn:
    """A shell ends its loop, and a supervisor its wait, only if the program has died of the signal."""
    signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)
    raise SystemExit(128 + number)


COMMANDS = {
    "view": Command(
        "view",
        "look at a live tree of the state, and edit values in it",
        "Show FILE, or what is at PATH, as a tree in the terminal that follows each commit and each edit as it comes.\n"
        "What has changed is marked, with the time and who did it: here (an edit made in this view), other (another\n"
        "program) or edit (a person who saved the file). The keys are at the bottom of the screen, and ? explains\n"
        "them: arrows and Enter open and close, / filters by path and value, e edits a value as one commit, j shows\n"
        "the commits as a time line, q quits. An edit waits for other writers up to --lock-timeout. It changes\n"
        "nothing if the value is not what was shown any more. Looking takes no lock and changes no byte.\n"
        f"Needs textual: {INSTALL}",
        "$ pstate view state.yaml jobs < /dev/null 2> /dev/null || echo 'this is not a terminal'\n"
        "this is not a terminal",
        _declare,
        _run,
    )
}
