"""What a command is: its words for people, its arguments, and what it does; and the two ways to say no.

The parsers are argparse's, one for a command, made when the command is run.
"""

from __future__ import annotations

import argparse
import contextlib
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NamedTuple, NoReturn

from pstate.signals import expected


class No(Exception):
    """The answer is no, which a script can ask for: nothing is there, it is not equal."""


class Usage(Exception):
    """The command line is wrong; *usage* is shown before the sentence."""

    def __init__(self, message: str, usage: str = "") -> None:
        super().__init__(message)
        self.usage = usage


class NotPrinted(Exception):
    """Standard output takes no more."""


@contextlib.contextmanager
def printing(done: str = "") -> Iterator[None]:
    """What is written here goes to standard output; *done* is what has been done, should that fail."""
    try:
        yield
    except expected(BrokenPipeError):
        raise
    except expected(OSError) as error:
        raise NotPrinted(f"standard output could not be written: {error.strerror}. {done}".rstrip()) from error


class Parser(argparse.ArgumentParser):
    """argparse's, but what is wrong is raised, so that a line of a script can say where it stands."""

    #: What stands behind "--" is a command line of its own.
    takes_command = False

    def take_command(self, meaning: str) -> None:
        """Let a command follow, behind "--"."""
        self.takes_command = True
        self.add_argument("command", metavar="-- COMMAND", nargs="*", help=meaning)

    def error(self, message: str) -> NoReturn:
        raise Usage(f"{message}. Nothing was done.", self.format_usage())


class Command(NamedTuple):
    """One command. *example* is lines for a shell, those that begin with ``$``, and what they print."""

    name: str
    summary: str
    details: str
    example: str
    declare: Callable[[Parser], None]
    run: Callable[[Any], int]


def parser_of(command: Command) -> Parser:
    """The parser for what stands behind the name of *command*."""
    parser = Parser(
        prog=f"pstate {command.name}",
        description=command.details,
        epilog="example:\n" + "".join(f"  {line}\n" for line in command.example.splitlines()),
        # With a width: asking for the terminal's, in each `add_argument`, would import shutil, which takes 2 ms.
        formatter_class=partial(argparse.RawDescriptionHelpFormatter, width=100),
        allow_abbrev=False,  # a script must not depend on which options there are
    )
    command.declare(parser)
    return parser


def parse(parser: Parser, words: list[str]) -> Any:
    """What *words* say. Options may stand anywhere, also between arguments of which there may be several."""
    if parser.takes_command:
        split = words.index("--") if "--" in words else len(words)
        parser.takes_command = False
        given = parse(parser, words[:split])
        if given.command:
            parser.error("a command stands behind --")
        given.command = words[split + 1 :]
        return given
    if not any(word.startswith("-") for word in words):
        return parser.parse_args(words)  # the other one makes the text of the usage first, in 2 ms
    # What stands behind "--" goes through argparse under other names: what it does with it depends on its version.
    end = words.index("--") if "--" in words else len(words)
    literal = {f"\0{number}": word for number, word in enumerate(words[end + 1 :])}
    given = parser.parse_intermixed_args([*words[:end], *literal])
    for name, value in vars(given).items():
        if isinstance(value, list):
            setattr(given, name, [literal.get(word, word) for word in value])
        elif isinstance(value, str):
            setattr(given, name, literal.get(value, value))
    return given


def declare_file(parser: Parser, what: str = "the state file") -> None:
    """The first argument of nearly all commands."""
    parser.add_argument("file", metavar="FILE", type=_file, help=what)


def _file(text: str) -> str:
    if not text:  # the folder that we are in would be taken for it
        raise argparse.ArgumentTypeError("it is empty: the name of a file must stand here")
    return text


def declare_path(parser: Parser, optional: bool = False) -> None:
    """A place in the state."""
    example = 'jobs[3].name, jobs[-1], jobs["odd key"]'
    if optional:
        parser.add_argument("path", metavar="PATH", nargs="?", default=".", help=f"where: {example}; all of it without")
    else:
        parser.add_argument("path", metavar="PATH", help=f"where: {example}")


def declare_form(parser: Parser) -> None:
    """How values are printed."""
    group = parser.add_mutually_exclusive_group()
    group.add_argument("--json", dest="form", action="store_const", const="json", help="print JSON")
    group.add_argument("--yaml", dest="form", action="store_const", const="yaml", help="print YAML, texts too")
    parser.set_defaults(form="raw")


def declare_json(parser: Parser) -> None:
    """For commands that print lines for people, or for programs."""
    parser.add_argument("--json", action="store_true", help="print JSON, an object in each line")


def declare_writing(parser: Parser, durability: bool = True) -> None:
    """How a change reaches the file."""
    parser.add_argument(
        "--lock-timeout", metavar="SECONDS", type=seconds, default=10.0, help="how long to wait for other writers (10)"
    )
    survives = "what a change survives: the death of processes, or a power cut as well (as in the journal, or process)"
    if durability:
        parser.add_argument("--durability", choices=("process", "power"), help=survives)
    parser.add_argument(
        "--locking",
        choices=("file", "filelock", "portalocker"),
        default="file",
        help="what the programs that share the file lock (file)",
    )


def seconds(text: str) -> float:
    """What an option says that is a time. Raises ValueError."""
    number = float(text)
    if not number >= 0:
        raise ValueError(text)
    return number


def count(text: str) -> int:
    """What an option says that is a number of changes."""
    try:
        number = int(text)
    except ValueError:
        number = 0
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of changes, 1 or more")
    return number
