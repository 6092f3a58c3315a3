"""`pstate get`: one value, for a shell or a person."""

from __future__ import annotations

from typing import Any

from pstate.cli import paths, session, show
from pstate.cli.command import Command, No, Parser, Usage, declare_file, declare_form, declare_path


def _declare(parser: Parser) -> None:
    declare_file(parser)
    declare_path(parser, optional=True)
    declare_form(parser)
    parser.add_argument(
        "-0",
        "--null",
        action="store_true",
        help="print each element of a list or set, each key of a mapping, or the value, with a NUL byte behind it",
    )
    parser.add_argument("-d", "--default", metavar="TEXT", help="what to print if there is nothing at PATH")


def _run(arguments: Any) -> int:
    path = paths.parse(arguments.path)
    try:
        state = session.snapshot(arguments.file)
        value = paths.find(state, path, arguments.file)
    except No:
        if arguments.default is None:
            raise
        show.write(arguments.default + ("\0" if arguments.null else "\n"))
        return 0
    if arguments.null:
        items = list(value) if isinstance(value, dict | list | set) else [value]
        texts = [show.value_text(item, arguments.form) for item in items]
        if any("\0" in text for text in texts):
            raise Usage(f"{arguments.file}: a text at {arguments.path} has a NUL byte in it. Print it with --json.")
        show.write("".join(text + "\0" for text in texts))
    else:
        show.write(show.value_text(value, arguments.form) + "\n")
    return 0


COMMANDS = {
    "get": Command(
        "get",
        "print the value at a place",
        "Print the value at PATH, or the whole state.\n"
        "A text is printed as it is, any other value as YAML. No lock is taken, and no byte of the file changes.\n"
        "Exit code 1 if there is nothing at PATH, and no --default.",
        "$ pstate get state.yaml jobs[0].name\nwash\n"
        "$ pstate get state.yaml --json jobs[-1]\n"
        '{"name": "dry", "tries": 2}',
        _declare,
        _run,
    )
}
