"""`pstate apply`: many changes as one transaction."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from typing import Any

from pstate.cli import write as changes
from pstate.cli.command import Command, Input, Parser, Usage, declare_file, declare_writing, parse
from pstate.signals import expected


def _declare(parser: Parser) -> None:
    declare_file(parser)
    parser.add_argument("script", metavar="SCRIPT", nargs="?", default="-", help="a file; standard input without")
    declare_writing(parser)


def _run(arguments: Any) -> int:
    # All of it is read before the file is touched.
    standard_input = Input()
    steps = list(_steps(*_text(arguments.script, standard_input), arguments.file, standard_input))
    return changes.commit(arguments, steps, "The changes are committed.")


def _text(script: str, standard_input: Input) -> tuple[str, str]:
    if script == "-":
        return standard_input.text("SCRIPT"), "script"
    try:
        with open(script, encoding="utf-8") as file:
            return file.read(), script
    except expected(OSError, UnicodeDecodeError) as error:
        raise Usage(f"{script}: cannot be read: {error}. Nothing was done.") from error


def _steps(text: str, name: str, file: str, standard_input: Input) -> Iterator[changes.Step]:
    parsers: dict[str, Parser] = {}
    for line, words in _lines(text, name):
        where = f"{name}:{line}"
        if words[0] not in changes.CHANGES:
            raise Usage(
                f"{where}: {words[0]!r} is none of {', '.join(changes.CHANGES)}. Nothing was done. "
                "A line is a command without FILE."
            )
        declare, change = changes.CHANGES[words[0]]
        if words[0] not in parsers:
            parsers[words[0]] = Parser(prog=words[0], add_help=False, allow_abbrev=False)
            declare(parsers[words[0]])
        try:
            given = parse(parsers[words[0]], words[1:])
            given.file = file
            yield changes.step(f"{where}: ", change, given, standard_input)
        except Usage as error:
            raise Usage(f"{where}: {error}") from error


def _lines(text: str, name: str) -> Iterator[tuple[int, list[str]]]:
    """The words of each line, by the rules of a shell; what stands in quotes may go over several lines."""
    begun, pending = 0, ""
    for number, line in enumerate(text.splitlines(keepends=True), 1):
        if not pending:
            begun = number
        pending += line
        try:
            words = shlex.split(pending, comments=True)
        except ValueError:
            continue  # a quote without its end, yet
        pending = ""
        if words:
            yield begun, words
    if pending:
        raise Usage(f"{name}:{begun}: unterminated quote. Nothing was done.")


COMMANDS = {
    "apply": Command(
        "apply",
        "carry out a script of changes as one transaction",
        "Carry out the lines of SCRIPT as one commit: all of them, or none.\n"
        "A line is set, delete, append, add or incr as on the command line, without FILE; # begins a comment.\n"
        "If a line has exit code 1, so has the whole, and nothing is changed.",
        "$ printf '%s\\n' 'delete jobs[0]' 'incr counter' 'set last wash' | pstate apply state.yaml\n4\n"
        "$ pstate get state.yaml last\nwash\n"
        "$ echo 'set counter 0 --if-equals 3' | pstate apply state.yaml || echo no\nno",
        _declare,
        _run,
    )
}
