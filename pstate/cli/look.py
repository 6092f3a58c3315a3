"""`pstate keys`, `has`, `type` and `len`: what a shell asks about a value without printing it."""

from __future__ import annotations

from typing import Any

from pstate.cli import kinds, paths, session, show
from pstate.cli.command import Command, No, Parser, Usage, declare_file, declare_path
from pstate.values import ordered


def _declare_place(parser: Parser) -> None:
    declare_file(parser)
    declare_path(parser, optional=True)


def _value(arguments: Any) -> tuple[list[Any], Any]:
    """The place and its value. Raises No if it does not exist."""
    place = paths.parse(arguments.path)
    return place, paths.find(session.snapshot(arguments.file), place, arguments.file)


# ----------------------------------------------------------------------------------------------------------------- keys


def _declare_keys(parser: Parser) -> None:
    _declare_place(parser)
    group = parser.add_mutually_exclusive_group()
    group.add_argument("--json", action="store_true", help="print each key as JSON")
    group.add_argument("-p", "--paths", action="store_true", help="print a PATH for each, as other commands take it")
    parser.add_argument("-0", "--null", action="store_true", help="print a NUL byte after each, instead of a newline")


def _keys(arguments: Any) -> int:
    place, value = _value(arguments)
    if isinstance(value, set):
        keys: Any = ordered(value)
    elif isinstance(value, dict):
        keys = value
    elif isinstance(value, list):
        keys = range(len(value))
    else:
        raise paths.misfit(arguments.file, place, value, "mapping, a list or a set")
    end = "\0" if arguments.null else "\n"
    texts = [_key(key, place, arguments) for key in keys]
    if arguments.null and any("\0" in text for text in texts):
        raise Usage(f"{arguments.file}: a key at {arguments.path} has a NUL byte in it. Print it with --json.")
    show.write("".join(text + end for text in texts))
    return 0


def _key(key: Any, place: list[Any], arguments: Any) -> str:
    if arguments.paths:
        return paths.show([*place, key])
    return show.value_text(key, "json" if arguments.json else "raw")


# ------------------------------------------------------------------------------------------------------------------ has


def _declare_has(parser: Parser) -> None:
    declare_file(parser)
    parser.add_argument("paths", metavar="PATH", nargs="+", help='where: jobs[3].name, jobs["odd key"], seen.member')


def _has(arguments: Any) -> int:
    places = [paths.parse(text) for text in arguments.paths]
    state = session.snapshot(arguments.file)
    try:
        for place in places:
            paths.find(state, place, arguments.file)
    except No:
        return 1
    return 0


# --------------------------------------------------------------------------------------------------------- type and len


def _type(arguments: Any) -> int:
    show.write(kinds.name(_value(arguments)[1]) + "\n")
    return 0


def _len(arguments: Any) -> int:
    place, value = _value(arguments)
    if not isinstance(value, dict | list | set | str | bytes):
        where = f"{arguments.file}: {paths.show(place)}"
        raise No(f"{where} is {kinds.described(value)}, which has no length.")
    show.write(f"{len(value)}\n")
    return 0


COMMANDS = {
    "keys": Command(
        "keys",
        "print the keys of a mapping",
        "Print the keys of the mapping at PATH, one a line; the indices of a list; the members of a set.\n"
        "Exit code 1 if PATH does not exist, or leads to a single value.",
        "$ pstate keys state.yaml\ncounter\njobs\nseen\n"
        '$ for job in $(pstate keys --paths state.yaml jobs); do echo "$job"; done\njobs[0]\njobs[1]',
        _declare_keys,
        _keys,
    ),
    "has": Command(
        "has",
        "test whether a value exists",
        "Answer by the exit code whether each PATH exists: 0 if all of them do, 1 if not. Nothing is printed.\n"
        "null exists. So does a member of a set, as in seen.member.",
        "$ pstate has state.yaml jobs[1] && echo yes\nyes\n$ pstate has state.yaml jobs[2] || echo no\nno",
        _declare_has,
        _has,
    ),
    "type": Command(
        "type",
        "print the type of a value",
        f"Print what is at PATH: {', '.join(kinds.NAMES[:-1])} or {kinds.NAMES[-1]}.\n"
        "Exit code 1 if PATH does not exist.",
        "$ pstate type state.yaml jobs\nlist\n$ pstate type state.yaml counter\ninteger",
        _declare_place,
        _type,
    ),
    "len": Command(
        "len",
        "count elements",
        "Print the number of elements of a list, of members of a set, of keys of a mapping, of characters of a\n"
        "string, or of bytes. Exit code 1 if PATH does not exist, or its value has no length.",
        "$ pstate len state.yaml jobs\n2",
        _declare_place,
        _len,
    ),
}
