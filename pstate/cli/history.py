"""`pstate log`: the records of the journal as changes, and with --follow those that are committed from now on."""

from __future__ import annotations

import os
from collections.abc import Iterator
from itertools import groupby
from typing import Any

from pstate.cli import changes, paths, progress, session, show
from pstate.cli.command import Command, Parser, declare_file, declare_json, declare_path
from pstate.cli.mending import presence, unopened
from pstate.cli.urls import Url
from pstate.memory.changes import Change, grown, play


def _declare(parser: Parser) -> None:
    declare_file(parser)
    declare_path(parser, optional=True)
    declare_json(parser)
    parser.add_argument("-f", "--follow", action="store_true", help="also print what is committed from now on")


def _run(arguments: Any) -> int:
    place = paths.parse(arguments.path)
    size = presence.must_exist(arguments.file)
    if not arguments.follow:
        with progress.shown(f"reading {arguments.file}", size):
            for found in _of(arguments.file, place):
                _print(found, arguments.json)
        return 0
    with session.looked_at(arguments.file) as state:
        for found in session.news(state.watch(place, history=True)):
            if found:
                _print(found, arguments.json)
            show.flush()
    return 0


def _of(file: str, place: list[Any]) -> Iterator[list[Change]]:
    """The changes at *place* of each commit that is kept."""
    if not isinstance(file, Url):
        yield from _recorded(file, place)
        return
    with session.looked_at(file) as state:
        for _, found in groupby(state.history(place), key=lambda change: change.commit):
            yield list(found)


def _recorded(file: str, place: list[Any]) -> Iterator[list[Change]]:
    """What each record of *file* changes at *place*. Raises CorruptStateError at a record that does not fit."""
    path, data = os.path.realpath(file), unopened.content(file)
    content = unopened.read(data, path)
    root = grown(content.state)
    for number, operations in enumerate(content.records, 1):
        try:
            found = [change for operation in operations for change in play(root, operation, place)]
        except (LookupError, TypeError, ValueError) as error:
            raise unopened.does_not_fit(content, path, data, number, error) from error
        if found:
            yield [change._replace(commit=number) for change in found]


def _print(found: list[Change], as_json: bool) -> None:
    number = found[0].commit
    if as_json:
        show.write(show.json_text({"commit": number, "changes": [changes.fields(change) for change in found]}) + "\n")
    else:
        for change in found:
            show.write(f"{'' if number is None else number:>4} {changes.line(change)}\n")


COMMANDS = {
    "log": Command(
        "log",
        "show the commits in the journal",
        "Print the changes of each commit in the journal, with the number of the commit: + a value is new, - it was\n"
        "deleted, ~ it was changed. With PATH, only the changes at this place, or in it.\n"
        "A journal goes back to the last vacuum; a plain document has none. No lock is taken, no byte changes.\n"
        "With --follow, a change without a number is an edit, or was committed just before a vacuum.",
        "$ pstate log journal.yaml\n"
        "   1 ~ counter: 3 -> 4\n"
        "   2 ~ key.nested: 2 -> 3\n"
        '   2 + log: ["both, or neither"]\n'
        "$ pstate log journal.yaml --json counter\n"
        '{"commit": 1, "changes": [{"path": "counter", "old": 3, "new": 4}]}',
        _declare,
        _run,
    )
}
