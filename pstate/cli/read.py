"""`pstate get`: values, for a shell or a person."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from pstate.cli import paths, session, show
from pstate.cli.command import Command, No, Parser, Usage, declare_file, declare_form


def _declare(parser: Parser) -> None:
    declare_file(parser)
    parser.add_argument(
        "paths",
        metavar="PATH",
        nargs="*",
        default=["."],
        help="where: jobs[3].name, .jobs[-1], jobs[*].name, jobs[1:3], jobs[-2:]; the whole state by default",
    )
    declare_form(parser)
    parser.add_argument("-r", "--raw", action="store_true", help="print strings as they are, also with --json")
    parser.add_argument(
        "-0",
        "--null",
        action="store_true",
        help="print each element of a list or set, each key of a mapping, or the value, and a NUL byte after it",
    )
    parser.add_argument("-d", "--default", metavar="TEXT", help="what to print for a PATH that does not exist")


def _run(arguments: Any) -> int:
    wanted = [_Wanted(text) for text in arguments.paths]
    state = session.snapshot(arguments.file)
    texts: list[str] = []
    for each in wanted:
        for value in each.found(state, arguments.file):
            if not isinstance(value, No):
                texts += _texts(value, arguments, each.text)
            elif arguments.default is None:
                raise value
            else:
                texts.append(arguments.default)
    if arguments.null:
        show.write("".join(text + "\0" for text in texts))
    elif texts:
        between = "\n---\n" if arguments.form == "yaml" else "\n"
        show.write(between.join(texts) + "\n")
    return 0


class _Wanted:
    """One PATH."""

    def __init__(self, text: str) -> None:
        self.text = text
        self._is_pattern = "*" in text or ":" in text or "[]" in text
        if self._is_pattern:
            from pstate.cli import patterns

            self._path = patterns.parse(text)
        else:
            self._path = paths.parse(text)

    def found(self, state: Any, file: str) -> Iterator[Any]:
        """The value at each place that it leads to; a No in the place of one that does not exist."""
        if self._is_pattern:
            from pstate.cli import patterns

            yield from patterns.find(state, self._path, file)
            return
        try:
            value = paths.find(state, self._path, file)
        except No as error:
            value = error
        yield value


def _texts(value: Any, arguments: Any, path: str) -> list[str]:
    """*value* as it is printed: its parts, with --null."""
    is_split = arguments.null and isinstance(value, dict | list | set)
    texts = [_text(item, arguments) for item in (list(value) if is_split else [value])]
    if arguments.null and any("\0" in text for text in texts):
        raise Usage(f"{arguments.file}: a string at {path} has a NUL byte in it. Print it with --json.")
    return texts


def _text(value: Any, arguments: Any) -> str:
    return value if arguments.raw and type(value) is str else show.value_text(value, arguments.form)


COMMANDS = {
    "get": Command(
        "get",
        "print values",
        "Print the value at each PATH, or the whole state. All of them are of one moment.\n"
        "A string is printed as it is, any other value as YAML. [*] leads to each element of a list or a set, and to\n"
        "each value of a mapping; [1:3] is a part of a list. No lock is taken, and no byte of the file changes.\n"
        "Exit code 1, and no output, if a PATH does not exist and there is no --default.",
        "$ pstate get state.yaml jobs[0].name counter\nwash\n3\n"
        "$ pstate get state.yaml --json jobs[-1]\n"
        '{"name": "dry", "tries": 2}\n'
        "$ pstate get state.yaml 'jobs[*].name'\nwash\ndry",
        _declare,
        _run,
    )
}
