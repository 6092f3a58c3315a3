"""`pstate import`: puts the content of another store into a state, as one commit or not at all."""

from __future__ import annotations

import os
from typing import Any

from pstate.cli import changes, paths, progress, session, show
from pstate.cli.command import Command, No, Parser, Usage, declare_file, declare_writing, tell
from pstate.cli.transfer import sources
from pstate.cli.transfer.arrival import Arrival
from pstate.cli.transfer.faults import LEFT_OUT, counted, declare_skipping
from pstate.cli.transfer.overlay import Overlay
from pstate.cli.urls import Url, is_url
from pstate.memory.changes import between
from pstate.memory.ops import ABSENT


def _declare(parser: Parser) -> None:
    parser.add_argument("source", metavar="SOURCE", help="a file, or the folder of a diskcache; - is standard input")
    declare_file(parser)
    parser.add_argument(
        "--from", dest="format", choices=sources.FORMATS, help="the format of SOURCE (from its name and content)"
    )
    parser.add_argument("--into", metavar="PATH", default=".", help="the place in FILE (the top)")
    parser.add_argument("--replace", action="store_true", help="replace keys and values that FILE already has")
    parser.add_argument(
        "--merge",
        action="store_true",
        help="merge mappings with those in FILE, at every level; otherwise the value from SOURCE wins",
    )
    parser.add_argument("-n", "--dry-run", action="store_true", help="print what would change, and change nothing")
    parser.add_argument("--table", metavar="NAME", help="the table of a sqlitedict that has several")
    parser.add_argument("-s", "--string", action="store_true", help="take all values of env, ini and csv as strings")
    parser.add_argument("--unsafe-pickle", action="store_true", help="read pickles, which runs the code in them")
    declare_skipping(parser)
    declare_writing(parser)


def _run(arguments: Any) -> int:
    place = paths.parse(arguments.into)
    source, file = arguments.source, arguments.file
    if is_url(source):
        raise Usage(
            f"{source}: is a URL. Nothing was changed. To import a state from a server: pstate get {source} --yaml | "
            f"pstate import - {file} --from yaml"
        )
    if os.path.exists(file) and os.path.exists(source) and os.path.samefile(source, file):
        raise Usage(f"{file}: is both SOURCE and FILE. Nothing was changed. Copy it first.")
    with session.no_collector(), progress.shown(f"reading {source}", sources.size(source)) as say:
        found = sources.read(source, arguments.format, arguments.table, arguments.string, say)
        say("checking each value")
        arrival = Arrival(arguments.unsafe_pickle, len(place))
        tree = arrival.tree(found.tree)
        arrival.faults.settle(source, arguments.skip_unsupported and tree is not LEFT_OUT, arrival.remedy())
        if not place and not isinstance(tree, dict):
            raise No(
                f"{source}: a state is a mapping, and this is not. Nothing was changed. Choose a place: --into KEY"
            )
        for note in (*found.notes, *arrival.notes()):
            tell(f"pstate: {source}: {note}")
        if arguments.dry_run:
            _show(arguments, place, tree)
            return 0
        say("committing")
        with session.opened(arguments) as state:
            with state.transaction():
                _put(state, place, tree, arguments)
    return 0


def _show(arguments: Any, place: list[Any], tree: Any) -> None:
    """Print what `_put` would change."""
    exists = not session.is_new(file) if isinstance(file := arguments.file, Url) else os.path.exists(file)
    before = session.snapshot(arguments.file) if exists else {}
    after = session.snapshot(arguments.file) if exists else {}
    _put(after, place, tree, arguments)
    for change in between(before, after):
        show.write(changes.line(change) + "\n")


def _put(root: Any, place: list[Any], tree: Any, arguments: Any) -> None:
    """Put *tree* at *place*, in a state or in a plain tree. Raises No."""
    overlay = Overlay(arguments.replace) if arguments.merge else None
    _put_at(root, place, tree, overlay, arguments)
    if overlay is not None:
        overlay.settle(arguments.file)


def _put_at(root: Any, place: list[Any], tree: Any, overlay: Overlay | None, arguments: Any) -> None:
    if not place:
        _put_keys(root, place, tree, overlay, arguments)
        return
    holder = root
    for depth, key in enumerate(place[:-1], 1):
        if isinstance(holder, dict) and key not in holder:
            holder[key] = {}
        holder = _at(holder, key)
        if holder is ABSENT:
            raise No(f"{arguments.file}: {paths.show(place[:depth])} cannot have keys. Nothing was changed.")
    key = place[-1]
    present = _at(holder, key)
    if isinstance(present, dict) and isinstance(tree, dict):
        _put_keys(present, place, tree, overlay, arguments)
    elif overlay is not None and present is not ABSENT and isinstance(holder, dict | list):
        overlay.put(holder, paths.index(key) if isinstance(holder, list) else key, tree, place)
    elif present is not ABSENT and not arguments.replace:
        raise No(f"{arguments.file}: {paths.show(place)} already exists. Nothing was changed. To replace it: --replace")
    elif isinstance(holder, dict):
        holder[key] = tree
    elif isinstance(holder, list) and present is not ABSENT:
        holder[paths.index(key)] = tree
    else:
        raise paths.nothing(arguments.file, place, holder)


def _at(container: Any, key: Any) -> Any:
    try:
        return paths.step(container, key)
    except LookupError:
        return ABSENT


def _put_keys(mapping: Any, place: list[Any], tree: dict[Any, Any], overlay: Overlay | None, arguments: Any) -> None:
    if overlay is not None:
        overlay.merge(mapping, tree, place)
        return
    there = [] if arguments.replace else [key for key in tree if key in mapping]
    if there:
        first = ", ".join(paths.show([*place, key]) for key in there[:3])
        more = f" and {len(there) - 3:,} more" if len(there) > 3 else ""
        raise No(
            f"{arguments.file}: already has {counted(len(there), 'key')} of SOURCE: {first}{more}. "
            "Nothing was changed. To replace: --replace; to merge mappings: --merge; to import elsewhere: --into PATH"
        )
    mapping.update(tree)


COMMANDS = {
    "import": Command(
        "import",
        "import the content of another store",
        "Put the content of SOURCE into FILE, as one commit or not at all. Values that a state cannot hold are named.\n"
        "SOURCE is JSON, TOML, YAML, env, ini, csv, or a file of persistedstate, shelve, sqlitedict, diskcache,\n"
        "pickledb or tinydb. It is only read, and never unpickled without --unsafe-pickle.\n"
        "FILE is created if it does not exist. Keys that it already has are refused without --replace or --merge.\n"
        "Exit code 1 if a value cannot be imported, 3 if SOURCE cannot be read.",
        '$ echo \'{"tries": 3, "hosts": ["a", "b"]}\' > old.json\n'
        "$ pstate import old.json state.yaml --into limits --dry-run\n"
        '+ limits: {"tries": 3,"hosts": ["a","b"]}\n'
        "$ pstate import old.json state.yaml --into limits\n"
        "$ pstate get state.yaml limits.tries\n3\n"
        "$ echo 'tries=4' | pstate import - state.yaml --from env --into limits --merge\n"
        "$ pstate get state.yaml limits --json\n"
        '{"tries": 4, "hosts": ["a", "b"]}',
        _declare,
        _run,
    )
}
