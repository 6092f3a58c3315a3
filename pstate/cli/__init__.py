"""The command line: finds the command, runs it, and turns what it raises into one sentence and an exit code.

What a command does is in a module of its own, imported when it is asked for: a shell loop pays for each start.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Sequence
from typing import NoReturn

from pstate.cli.command import No, NotPrinted, Usage, parse, parser_of, printing
from pstate.cli.table import EXIT_CODES, LOCKED, MODULES, NO, NOT_WRITTEN, OK, UNUSABLE, USAGE, command
from pstate.errors import (
    DurabilityUnknown,
    LockTimeout,
    PStateError,
    ReadOnlyError,
    UnsupportedTypeError,
    UnsupportedValueError,
    WriteError,
)
from pstate.signals import expected, tolerating


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line *argv*, that of the process by default; returns the exit code."""
    if getattr(sys, "stdout", None) is None:  # closed, as some daemons have it
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115, for the rest of the process
    try:
        _fill_standard_streams()
        code = _guarded(list(sys.argv[1:] if argv is None else argv))
        with printing():
            sys.stdout.flush()
        return code
    except expected(BrokenPipeError):
        _give_up_output()
        _die_by(signal.SIGPIPE)  # who reads has enough: `pstate log FILE | head`
    except NotPrinted as error:
        _give_up_output()
        print(f"pstate: {error}", file=sys.stderr)
        return NOT_WRITTEN
    except expected(OSError) as error:
        if _has_lost_its_folder():
            message = "the folder that this program works in does not exist any more. Nothing was done."
            print(f"pstate: {message}", file=sys.stderr)
            return UNUSABLE
        print(f"pstate: {error}", file=sys.stderr)
        return NOT_WRITTEN
    except KeyboardInterrupt:
        # A shell ends its loop only if the program in it has died of the signal.
        _die_by(signal.SIGINT)


def _fill_standard_streams() -> None:
    """Where standard input, output or error is closed, the next file that is opened would be it, and be printed to."""
    while (fd := os.open(os.devnull, os.O_RDWR)) <= 2:
        pass
    os.close(fd)


def _give_up_output() -> None:
    """Python would complain once more, when it flushes at its end."""
    with tolerating(OSError, ValueError, AttributeError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


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
    except expected(No, Usage, PStateError) as error:
        sys.stdout.flush()
        print(f"{getattr(error, 'usage', '')}pstate: {error}", file=sys.stderr)
        return _code_of(error)


def _run(words: list[str]) -> int:
    if not words or words[0] in ("-h", "--help", "help"):
        if words[1:] and words[1] in MODULES:
            return _run([words[1], "--help"])
        if words[1:] and words[0] == "help":
            raise _no_command(words[1])
        print(overview(), end="", file=sys.stdout if words else sys.stderr)
        return OK if words else USAGE
    if words[0] in ("-V", "--version"):
        import pstate

        print(f"pstate {pstate.__version__}")
        return OK
    if words[0] == "complete":  # for the scripts of `pstate completion`; nobody types it
        from pstate.cli.completion import complete

        return complete(words[1:])
    if words[0] not in MODULES:
        raise _no_command(words[0])
    found = command(words[0])
    return found.run(parse(parser_of(found), words[1:]))


def _no_command(word: str) -> Usage:
    return Usage(f"there is no command {word!r}. Nothing was done. Run: pstate --help")


def overview() -> str:
    """What `pstate --help` says."""
    lines = [
        "usage: pstate COMMAND ...",
        "",
        "Look at state files, and change them, beside the programs that use them.",
    ]
    lines += ["", "commands:", *(f"  {name:<12}{command(name).summary}" for name in MODULES)]
    lines += ["", "exit codes:", *(f"  {code}  {meaning}" for code, meaning in EXIT_CODES.items())]
    lines += ["", "Each command tells more, with an example: pstate COMMAND --help", ""]
    return "\n".join(lines)


def _code_of(error: Exception) -> int:
    if isinstance(error, No):
        return NO
    if isinstance(error, Usage | UnsupportedTypeError | UnsupportedValueError):
        return USAGE
    if isinstance(error, LockTimeout):
        return LOCKED
    if isinstance(error, ReadOnlyError | WriteError | DurabilityUnknown):
        return NOT_WRITTEN
    return UNUSABLE


def _die_by(number: signal.Signals) -> NoReturn:
    signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)
    raise SystemExit(128 + number)
