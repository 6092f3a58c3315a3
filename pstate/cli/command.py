"""What a command is: its help, its arguments and its function; the ways to say no; and the standard streams.

Each command has a parser of argparse, made when the command is run.
"""

from __future__ import annotations

import argparse
import contextlib
import errno
import os
import re
import sys
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NamedTuple, NoReturn, TextIO

from pstate.cli import progress, urls
from pstate.signals import expected, tolerating


class No(Exception):
    """The answer is no, which a script can ask for: a place does not exist, a value is not equal."""


class Quiet(No):
    """The answer is no, and the exit code says it: nothing is printed."""


class Usage(Exception):
    """The command line is wrong; *usage* is shown before the sentence."""

    def __init__(self, message: str, usage: str = "") -> None:
        super().__init__(message)
        self.usage = usage


class NotPrinted(Exception):
    """Standard output takes no more; *is_closed* where it has never taken anything."""

    def __init__(self, message: str, is_closed: bool) -> None:
        super().__init__(message)
        self.is_closed = is_closed


# ---------------------------------------------------------------------------------------------------- the three streams


def open_closed_streams() -> None:
    """Open something in the place of each standard stream that is closed, before anything else gets its number.

    Otherwise a state file could become descriptor 1, and get what a child process prints. What is opened refuses to be
    read or written, with the error of a closed descriptor, so every command notices in the usual way.
    """
    for fd, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(fd)
        except expected(OSError) as error:
            if error.errno != errno.EBADF:
                raise
            # The lowest number that is free is this one: those below it are open by now.
            os.set_inheritable(os.open(os.devnull, os.O_RDONLY if fd else os.O_WRONLY), True)
        if getattr(sys, name, None) is None:
            errors = "backslashreplace" if name == "stderr" else "strict"
            setattr(sys, name, open(fd, "w" if fd else "r", encoding="utf-8", errors=errors, closefd=False))  # noqa: SIM115


@contextlib.contextmanager
def printing(done: str = "") -> Iterator[None]:
    """Around what writes to standard output. If that fails, the message ends with *done*, what was done before."""
    try:
        yield
    except expected(BrokenPipeError):
        raise
    except expected(OSError) as error:
        is_closed = error.errno == errno.EBADF
        why = "it is closed" if is_closed else error.strerror
        raise NotPrinted(f"standard output could not be written: {why}. {done}".rstrip(), is_closed) from error


def tell(text: str, end: str = "\n") -> None:
    """Print *text* on standard error, for a person. If that fails, the command goes on."""
    progress.clear()
    try:
        print(text, end=end, file=sys.stderr, flush=True)
    except expected(OSError, ValueError):
        give_up(sys.stderr)


def give_up(stream: TextIO) -> None:
    """Drop what *stream* could not write. Python would try again at its end, and change the exit code."""
    with tolerating(OSError, ValueError, AttributeError):
        sink = os.open(os.devnull, os.O_WRONLY)
        os.dup2(sink, stream.fileno())
        os.close(sink)


def input_bytes() -> bytes:
    """All of standard input."""
    buffer: Any = getattr(sys.stdin, "buffer", None)
    data: bytes = sys.stdin.read().encode("utf-8", "surrogateescape") if buffer is None else buffer.read()
    return data


@contextlib.contextmanager
def any_integer() -> Iterator[None]:
    """Let Python convert integers of more than 4,300 digits from and to decimals, which it refuses by default.

    The limit protects servers from strangers, but a person who runs a command has chosen the integer. State files and
    other sources are read with the limit, as programs read them.
    """
    before = sys.get_int_max_str_digits()
    sys.set_int_max_str_digits(0)
    try:
        yield
    finally:
        sys.set_int_max_str_digits(before)


class Input:
    """Standard input, which one argument of a command can be read from."""

    def __init__(self) -> None:
        self._reader = ""  #: the argument that was read from it

    def text(self, name: str) -> str:
        """All of it for the argument *name*, in UTF-8 whatever the locale says, as files are. Raises Usage."""
        if self._reader:
            raise Usage(
                f"{name} is -, but standard input was already read for {self._reader}. Nothing was done. "
                "Only one argument can be read from there."
            )
        self._reader = name
        try:
            return input_bytes().decode()
        except expected(OSError) as error:
            why = "it is closed" if error.errno == errno.EBADF else error.strerror
        except UnicodeDecodeError as error:
            why = f"byte 0x{error.object[error.start]:02x} at offset {error.start} is not UTF-8"
        raise Usage(f"{name}: standard input cannot be read: {why}. Nothing was done.") from None


# ----------------------------------------------------------------------------------------------------------- messages

#: What a Python program would write, and what to write on a command line instead. Earlier ones are replaced first.
_WORDS = (
    (r"or open it with PersistedState\.open\(path, read_only=True\)", "or only look at it, with: pstate get"),
    (r"open the state without read_only", "change it with pstate set"),
    (r"[Oo]pen it without read_only", "Use another command"),
    (r"was opened read_only", "was opened to look at it only"),
    (
        r"Open it with locking=filelock\.SoftFileLock\(.*?\), which needs none, or with another lock object",
        "Let a Python program change it that opens it with another lock object, such as filelock.SoftFileLock",
    ),
    (r"""locking=["'](\w+)["']""", r"--locking \1"),
    (r"""durability=["'](\w+)["']""", r"--durability \1"),
    (
        r"; use sys\.set_int_max_str_digits\(\) to increase the limit",
        "; the environment variable PYTHONINTMAXSTRDIGITS lifts it",
    ),
    (r"; a longer lock_timeout waits longer", ""),  # not every command has the option
    (r", or open the state with read_only=True", ""),
    (r"; the next use of the state finds out which", ". Look at the state before you repeat the command"),
    (
        r"Run it again; keep blocks shorter than the lease of the lock",
        "Run the command again; the lease of the lock is",
    ),
    (r"\(([0-9]+) s without a request\)", r"\1 s"),
    (r"\block_timeout\b", "--lock-timeout"),
)


def in_our_words(message: str) -> str:
    """*message*, an error of the library or of a command, with options as they are written on a command line."""
    for pattern, words in _WORDS:
        message = re.sub(pattern, words, message)
    return message


# ----------------------------------------------------------------------------------------------------------- commands


class Parser(argparse.ArgumentParser):
    """argparse's, but a mistake is raised as Usage: the message for a line of a script begins with its number."""

    #: Whether the words after "--" are a command line of their own.
    takes_command = False

    def take_command(self, meaning: str) -> None:
        """Let a command follow "--"."""
        self.takes_command = True
        self.add_argument("command", metavar="-- COMMAND", nargs="*", help=meaning)

    def print_help(self, file: Any = None) -> None:
        with printing():  # argparse would take no notice of a failure
            sys.stdout.write(self.format_help())
            sys.stdout.flush()

    def error(self, message: str) -> NoReturn:
        raise Usage(f"{message}. Nothing was done.", self.format_usage())


class Command(NamedTuple):
    """One command. The lines of *example* that begin with ``$`` are for a shell; the others are what it prints."""

    name: str
    summary: str
    details: str
    example: str
    declare: Callable[[Parser], None]
    run: Callable[[Any], int]


def parser_of(command: Command) -> Parser:
    """The parser for what follows the name of *command*."""
    parser = Parser(
        prog=f"pstate {command.name}",
        description=command.details,
        epilog="example:\n" + "".join(f"  {line}\n" for line in command.example.splitlines()),
        # With a width: otherwise each `add_argument` asks for the terminal's, and imports shutil, which takes 2 ms.
        formatter_class=partial(argparse.RawDescriptionHelpFormatter, width=100),
        allow_abbrev=False,  # a script must not depend on which options there are
    )
    command.declare(parser)
    return parser


def parse(parser: Parser, words: list[str]) -> Any:
    """The arguments in *words*. Options may be anywhere, also between the words of a repeated argument."""
    if parser.takes_command:
        split = words.index("--") if "--" in words else len(words)
        parser.takes_command = False
        given = parse(parser, words[:split])
        if given.command:
            parser.error("write -- before the command")
        given.command = words[split + 1 :]
        return given
    if not any(word.startswith("-") for word in words):
        return parser.parse_args(words)  # the other call begins with the text of the usage, which takes 2 ms
    # The words after "--" go through argparse under other names, because what it does with them depends on its version.
    end = words.index("--") if "--" in words else len(words)
    literal = {f"\0{number}": word for number, word in enumerate(words[end + 1 :])}
    given = parser.parse_intermixed_args([*words[:end], *literal])
    kinds = {action.dest: action.type for action in parser._actions if action.type in (file_or_url, url)}
    for name, value in vars(given).items():
        if isinstance(value, list):
            setattr(given, name, [_literal(word, literal, kinds.get(name), parser) for word in value])
        elif isinstance(value, str):
            setattr(given, name, _literal(value, literal, kinds.get(name), parser))
    return given


def _literal(word: str, literal: dict[str, str], kind: Any, parser: Parser) -> str:
    if word not in literal:
        return word
    try:
        return kind(literal[word]) if kind is not None else literal[word]
    except argparse.ArgumentTypeError as error:
        parser.error(str(error))


def varied(arguments: Any, **others: Any) -> Any:
    """A copy of *arguments* with *others* in it."""
    return argparse.Namespace(**{**vars(arguments), **others})


def declare_file(parser: Parser, what: str = "the state file, or the URL of a state") -> None:
    """The first argument of nearly all commands."""
    parser.add_argument("file", metavar="FILE", type=file_or_url, help=what)


def file_or_url(text: str) -> str:
    """The type of an argument that is a file, or the URL of a state."""
    if not text:  # the folder that we are in would be taken for it
        raise argparse.ArgumentTypeError("it is empty: give the name of a file")
    if urls.is_of_another_kind(text):
        scheme = text.partition("://")[0]  # what follows may hold a password
        raise argparse.ArgumentTypeError(
            f"{scheme}://... is neither a file nor the URL of a state: postgresql://HOST/DATABASE#NAME. If it is a "
            "file, put ./ before it"
        )
    return _typed(urls.state, text) if urls.is_url(text) else text


def url(text: str) -> str:
    """The type of an argument that is the URL of a database, or of a state in it."""
    return _typed(urls.database_or_state, text)


def _typed(kind: Callable[[str], str], text: str) -> str:
    try:
        return kind(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error).removesuffix(".")) from None


def only_files(file: str, instead: str) -> None:
    """Raise Usage if *file* is a URL: the command is for files. *instead*: what to do."""
    if isinstance(file, urls.Url):
        raise Usage(f"{file}: this command is for files, and this is a state on a server. Nothing was done. {instead}")


def declare_path(parser: Parser, optional: bool = False) -> None:
    """A place in the state."""
    example = 'jobs[3].name, .jobs[-1], jobs["odd key"]'
    if optional:
        help_text = f"where: {example}; the whole state by default"
        parser.add_argument("path", metavar="PATH", nargs="?", default=".", help=help_text)
    else:
        parser.add_argument("path", metavar="PATH", help=f"where: {example}")


def declare_form(parser: Parser) -> None:
    """How values are printed."""
    group = parser.add_mutually_exclusive_group()
    group.add_argument("--json", dest="form", action="store_const", const="json", help="print JSON")
    group.add_argument("--yaml", dest="form", action="store_const", const="yaml", help="print YAML, also of strings")
    parser.set_defaults(form="raw")


def declare_json(parser: Parser) -> None:
    """For commands that print lines for people, or for programs."""
    parser.add_argument("--json", action="store_true", help="print JSON, one object a line")


def declare_writing(parser: Parser, durability: bool = True) -> None:
    """How a change gets into the file."""
    parser.add_argument(
        "--lock-timeout",
        metavar="SECONDS",
        type=seconds,
        default=10.0,
        help="how long to wait for other writers (default: 10)",
    )
    survives = "what a change survives: the death of processes, or power cuts too (default: as the journal, or process)"
    if durability:
        parser.add_argument("--durability", choices=("process", "power"), help=survives)
    parser.add_argument(
        "--locking",
        choices=("file", "filelock", "portalocker"),
        default="file",
        help="what the programs that share the file lock (default: file)",
    )


def seconds(text: str) -> float:
    """The time that an option gives. Raises ValueError."""
    number = float(text)
    if not number >= 0:
        raise ValueError(text)
    return number


def count(text: str) -> int:
    """The number of changes that an option gives."""
    number = 0
    with contextlib.suppress(ValueError), any_integer():
        number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of changes, 1 or more")
    return number
