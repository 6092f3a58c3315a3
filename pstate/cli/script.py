"""`pstate apply`: many changes as one transaction."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from typing import Any

from pstate.cli import rearrange, write
from pstate.cli.command import Command, Input, Parser, Usage, declare_file, declare_writing, parse
from pstate.signals import expected

#: What a line may begin with: how its arguments are declared, and what it does.
CHANGES = {**write.CHANGES, **rearrange.CHANGES}


def _declare(parser: Parser) -> None:
    declare_file(parser)
    parser.add_argument("script", metavar="SCRIPT", nargs="?", default="-", help="a file; standard input by default")
    declare_writing(parser)


def _run(arguments: Any) -> int:
    # All of it is read before the file is touched.
    standard_input = Input()
    steps = list(_steps(*_text(arguments.script, standard_input), arguments.file, standard_input))
    return write.commit(arguments, steps, "The changes are committed.")


def _text(script: str, standard_input: Input) -> tuple[str, str]:
    if script == "-":
        return standard_input.text("SCRIPT"), "script"
    try:
        with open(script, encoding="utf-8") as file:
            return file.read(), script
    except expected(OSError, UnicodeDecodeError) as error:
        raise Usage(f"{script}: cannot be read: {error}. Nothing was done.") from error


def _steps(text: str, name: str, file: str, standard_input: Input) -> Iterator[write.Step]:
    parsers: dict[str, Parser] = {}
    for line, words in _lines(text, name):
        where = f"{name}:{line}"
        if words[0] not in CHANGES:
            raise Usage(f"{where}: {_wrong(words[0])} Nothing was done. A line is a command without FILE.")
        declare, change = CHANGES[words[0]]
        if words[0] not in parsers:
            parsers[words[0]] = Parser(prog=words[0], add_help=False, allow_abbrev=False)
            declare(parsers[words[0]])
        try:
            given = parse(parsers[words[0]], words[1:])
            given.file = file
            yield write.step(f"{where}: ", change, given, standard_input)
        except Usage as error:
            raise Usage(f"{where}: {error}") from error


def _wrong(word: str) -> str:
    from pstate.cli import suggest

    near = suggest.command(word)
    if near in CHANGES:
        return f"{word!r} is not a change. Did you mean {near}?"
    return f"{word!r} is none of {', '.join(CHANGES)}."


def _lines(text: str, name: str) -> Iterator[tuple[int, list[str]]]:
    """The words of each line, by the rules of a shell; quotes may span several lines."""
    begun, pending = 0, ""
    for number, line in enumerate(text.splitlines(keepends=True), 1):
        if not pending:
            begun = number
        pending += line
        try:
            words = shlex.split(pending, comments=True)
        except ValueError:
            continue  # the quote ends in a later line
        pending = ""
        if words:
            yield begun, words
    if pending:
        raise Usage(f"{name}:{begun}: unterminated quote. Nothing was done.")


COMMANDS = {
    "apply": Command(
        "apply",
        "carry out a script in one commit",
        "Carry out the lines of SCRIPT in one commit: all of them, or none.\n"
        f"Each line is a command without FILE: {', '.join(list(CHANGES)[:-1])} or {list(CHANGES)[-1]}.\n"
        "# begins a comment. If a line has exit code 1, so has apply, and nothing is changed.\n"
        "What pop takes out is printed before the commit, with all other output.",
        "$ printf '%s\\n' 'delete jobs[0]' 'incr counter' 'set last wash' | pstate apply state.yaml\n4\n"
        "$ pstate get state.yaml last\nwash\n"
        "$ echo 'set counter 0 --if-equals 3' | pstate apply state.yaml || echo no\nno",
        _declare,
        _run,
    )
}
