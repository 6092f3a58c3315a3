"""`pstate export`: writes a state as a file of another store, or writes nothing."""

from __future__ import annotations

from typing import Any

from pstate.cli import paths, progress, session, show
from pstate.cli.command import Command, Parser, Usage, declare_file
from pstate.cli.mending import presence
from pstate.cli.transfer import targets, texts
from pstate.cli.transfer.departure import WORDS, Departure
from pstate.cli.transfer.faults import LEFT_OUT, declare_skipping
from pstate.cli.urls import is_url

_STANDARD_OUTPUT = "-"


def _declare(parser: Parser) -> None:
    declare_file(parser)
    parser.add_argument(
        "target", metavar="TARGET", nargs="?", default=_STANDARD_OUTPUT, help="a file (standard output)"
    )
    parser.add_argument("--to", dest="format", choices=targets.FORMATS, help="the format (from the name of TARGET)")
    parser.add_argument("--only", metavar="PATH", default=".", help="export only the value at PATH")
    parser.add_argument("--force", action="store_true", help="replace TARGET if it exists")
    declare_skipping(parser)


def _run(arguments: Any) -> int:
    file, target = arguments.file, arguments.target
    if is_url(target):
        raise Usage(f"{target}: is a URL. Nothing was written. To put a state on a server: pstate push {file} {target}")
    name = arguments.format or targets.SUFFIXES.get(texts.ending(target))
    if name is None:
        raise Usage(
            f"{target}: its name does not end in a known format. Nothing was written. Name the format with --to."
        )
    if target == _STANDARD_OUTPUT and name not in targets.TEXTS:
        raise Usage(f"--to {name} needs a TARGET. Nothing was written. Give its path.")
    place = paths.parse(arguments.only)
    size = presence.must_exist(file)
    if target != _STANDARD_OUTPUT:
        targets.refuse(target, name, file, arguments.force)
    with session.no_collector(), progress.shown(f"reading {file}", size) as say:
        departure = Departure(WORDS[name], place)
        state = session.snapshot(file)
        say("checking each value")
        tree = departure.tree(paths.find(state, place, file))
        departure.faults.settle(file, arguments.skip_unsupported and tree is not LEFT_OUT)
        say(f"writing {name}")
        if target == _STANDARD_OUTPUT:
            show.write(targets.TEXTS[name](tree).decode())
        else:
            targets.put(tree, target, name, arguments.force, say)
    return 0


COMMANDS = {
    "export": Command(
        "export",
        "write a state as a file of another store",
        "Write the state as JSON, TOML, YAML, env, ini, csv, or a file of persistedstate, shelve, sqlitedict,\n"
        "diskcache, pickledb or tinydb. If the format cannot hold a value, the value is named and nothing is written.\n"
        "TARGET is written beside its place and renamed when it is complete. FILE is not locked and not changed.\n"
        "Exit code 1 if a value cannot be exported, or if TARGET already exists.",
        "$ pstate export state.yaml jobs.json --only jobs\n"
        "$ pstate get state.yaml --json jobs > same.json\n"
        "$ pstate import jobs.json other.yaml --into jobs\n"
        "$ pstate diff other.yaml state.yaml\n"
        '+ counter: 3\n+ seen: !!set {"a": null}\n'
        "$ pstate export state.yaml --to json || echo no\nno\n"
        "$ pstate export state.yaml --only jobs --to csv\n"
        "name,tries\n"
        '"wash",0\n"dry",2',
        _declare,
        _run,
    )
}
