"""The command line: finds the command, runs it, and turns what it raises into one sentence and an exit code.

Each command is in a module that is imported when the command is run: a shell loop pays for each start.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Sequence
from typing import NoReturn

from pstate.cli import urls
from pstate.cli.command import (
    No,
    NotPrinted,
    Quiet,
    Usage,
    give_up,
    in_our_words,
    open_closed_streams,
    parse,
    parser_of,
    printing,
    tell,
)
from pstate.cli.table import LOCKED, MODULES, NO, NOT_WRITTEN, OK, UNKNOWN, UNUSABLE, USAGE, command
from pstate.errors import (
    CommitUnknown,
    DurabilityUnknown,
    LockTimeout,
    PStateError,
    ReadOnlyError,
    UnsupportedTypeError,
    UnsupportedValueError,
    WriteError,
)
from pstate.signals import expected


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line *argv*, that of the process by default; returns the exit code."""
    try:
        open_closed_streams()
        code = _guarded(list(sys.argv[1:] if argv is None else argv))
        with printing():
            sys.stdout.flush()
        return code
    except expected(BrokenPipeError):
        give_up(sys.stdout)
        _die_by(signal.SIGPIPE)  # the program that reads has enough: `pstate log FILE | head`
    except NotPrinted as error:
        give_up(sys.stdout)
        tell(f"pstate: {error}")
        return NO if error.is_closed else NOT_WRITTEN
    except expected(OSError) as error:
        if _has_lost_its_folder():
            tell("pstate: the folder that this program works in does not exist any more. Nothing was done.")
            return UNUSABLE
        tell(f"pstate: {error}")
        return NOT_WRITTEN
    except KeyboardInterrupt:
        # A shell ends its loop only if the program in it has died of the signal.
        _die_by(signal.SIGINT)
    finally:
        tell("", end="")  # what the log could not write there is dropped as well


def _has_lost_its_folder() -> bool:
    try:
        os.getcwd()
    except expected(FileNotFoundError):
        return True
    return False


def _guarded(words: list[str]) -> int:
    try:
        return _run(words)
    except SystemExit as asked:  # argparse, after --help
        return asked.code if isinstance(asked.code, int) else USAGE
    except Quiet:
        return NO
    except expected(No, Usage, PStateError) as error:
        _flush_output()
        message = f"{getattr(error, 'usage', '')}pstate: {in_our_words(str(error))}"
        tell(urls.hidden(message, words) if any(map(urls.is_url, words)) else message)
        return _code_of(error)


def _flush_output() -> None:
    """Put what was printed before the message that follows. Where that fails, the message says more."""
    try:
        sys.stdout.flush()
    except expected(BrokenPipeError):
        raise
    except expected(OSError):
        give_up(sys.stdout)


def _run(words: list[str]) -> int:
    if not words or words[0] in ("-h", "--help", "help"):
        if words[1:] and words[1] in MODULES:
            return _run([words[1], "--help"])
        if words[1:] and words[0] == "help":
            raise _no_command(words[1:])
        from pstate.cli.overview import overview

        if not words:
            tell(overview(), end="")
            return USAGE
        with printing():
            print(overview(), end="", flush=True)
        return OK
    if words[0] in ("-V", "--version"):
        import pstate
        from pstate.speed import compiled

        with printing():
            print(f"pstate {pstate.__version__} ({'compiled' if compiled else 'pure Python'})", flush=True)
        return OK
    if words[0] == "complete":  # for the scripts of `pstate completion`; nobody types it
        from pstate.cli.completion import complete

        return complete(words[1:])
    if words[0] not in MODULES:
        raise _no_command(words)
    found = command(words[0])
    return found.run(parse(parser_of(found), words[1:]))


def _no_command(words: list[str]) -> Usage:
    """The refusal of *words*, the first of which is not a command."""
    from pstate.cli import suggest

    word, near = words[0], suggest.command(words[0])
    if word[:1] != "-" and words[1:] and words[1] in MODULES and os.path.lexists(word):
        advice = f"The command comes first: pstate {words[1]} {word}"
    else:
        advice = f"Did you mean: pstate {near}" if near is not None else "Run: pstate --help"
    return Usage(f"there is no command {word!r}. Nothing was done. {advice}")


def _code_of(error: Exception) -> int:
    if isinstance(error, No):
        return NO
    if isinstance(error, Usage | UnsupportedTypeError | UnsupportedValueError):
        return USAGE
    if isinstance(error, LockTimeout):
        return LOCKED
    if isinstance(error, CommitUnknown):
        return UNKNOWN
    if isinstance(error, ReadOnlyError | WriteError | DurabilityUnknown):
        return NOT_WRITTEN
    return UNUSABLE


def _die_by(number: signal.Signals) -> NoReturn:
    signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)
    raise SystemExit(128 + number)
