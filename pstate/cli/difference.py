"""`pstate diff`: compares two states, or a state with its base document."""

from __future__ import annotations

import os
from typing import Any

from pstate.cli import changes, progress, session, show
from pstate.cli.command import Command, Parser, declare_file, declare_json, file_or_url, only_files
from pstate.cli.mending import presence, unopened
from pstate.memory.changes import between


def _declare(parser: Parser) -> None:
    declare_file(parser, "the state before; without OTHER, its base document is compared with its newest commit")
    parser.add_argument("other", metavar="OTHER", nargs="?", type=file_or_url, help="the state after")
    declare_json(parser)


def _run(arguments: Any) -> int:
    with progress.shown(f"reading {arguments.file}", presence.must_exist(arguments.file)) as say:
        old, new = _sides(arguments.file, arguments.other)
        say("comparing")
        found = list(between(old, new))
    for change in found:
        show.write((show.json_text(changes.fields(change)) if arguments.json else changes.line(change)) + "\n")
    return 1 if found else 0


def _sides(file: str, other: str | None) -> tuple[Any, Any]:
    if other is not None:
        return session.snapshot(file), session.snapshot(other)
    only_files(file, f"Give the state to compare it with, or see what was committed: pstate log {file}")
    data = unopened.content(file)
    path = os.path.abspath(file)
    found = unopened.read(data, path)
    return found.state, unopened.replayed(found, path, data)


COMMANDS = {
    "diff": Command(
        "diff",
        "compare two states",
        "Print each value that differs: + it is new, - it was deleted, ~ it was changed. The order of keys,\n"
        "comments and layout do not count. Exit code 1 if there are differences.",
        "$ cp state.yaml before.yaml\n"
        "$ pstate incr state.yaml counter > /dev/null\n"
        "$ pstate delete state.yaml jobs[0]\n"
        "$ pstate diff before.yaml state.yaml || echo they differ\n"
        "~ counter: 3 -> 4\n"
        '- jobs[0]: {"name": "wash","tries": 0}\n'
        "they differ",
        _declare,
        _run,
    )
}
