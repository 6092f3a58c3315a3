"""`pstate repair`: makes a damaged file usable. It asks first, and keeps a copy of the file."""

from __future__ import annotations

import os
import sys
from typing import Any

from pstate.cli import progress, show
from pstate.cli.command import Command, No, Parser, Usage, declare_file, only_files, tell
from pstate.cli.mending import mend, presence
from pstate.cli.mending.check import text
from pstate.cli.mending.examine import examine, settled
from pstate.cli.mending.salvage import Plan, lost_lines, plan, problem
from pstate.errors import PStateError, StateFileError
from pstate.signals import expected


def _declare(parser: Parser) -> None:
    declare_file(parser, "the state file")
    parser.add_argument(
        "--salvage",
        action="store_true",
        help="also keep complete parts after the damage, though they may not fit together",
    )
    parser.add_argument("-y", "--yes", action="store_true", help="repair without asking")
    mend.declare(parser)


def _run(arguments: Any) -> int:
    only_files(
        arguments.file,
        f"A database that lost data is restored from a backup. To look at the state: pstate check {arguments.file}",
    )
    path = os.path.realpath(arguments.file)
    size = presence.must_exist(arguments.file)
    with progress.shown(f"reading {arguments.file}", size) as say:
        data = settled(path)[0]
        error = problem(data, path)
        if not arguments.json:
            show.write(text(examine(path, say), all_notes=False), mend.UNTOUCHED)
    if error is None:
        if arguments.json:
            show.write(show.json_text({"file": path, "ok": True, "done": False}) + "\n")
        else:
            show.write("Nothing to repair. The next writer cleans up after interrupted writes.\n")
        return 0
    with progress.shown("looking for what can be kept", size):
        found = plan(data, path, error, arguments.salvage)
        mend.must_come_back(path, found.text, found.state)
        if not arguments.json:
            show.write(_shown(found, _with_salvage(data, path, error, found, arguments)), mend.UNTOUCHED)
    copy, refusal = None, None
    try:
        if not arguments.dry_run:
            mend.refuse_while_open(path, arguments)
            _ask(path, arguments)
            copy = mend.replace(path, data, found.text, "before-repair", arguments)
    except expected(No, Usage, PStateError) as raised:
        refusal = raised
    effect = mend.done("repaired", copy) if refusal is None else str(refusal)
    if arguments.json:
        show.write(show.json_text(_fields(path, error, found, copy)) + "\n", effect)
    if refusal is not None:
        raise refusal
    if not arguments.json:
        show.write(mend.verdict("repaired", copy), effect)
    return 0


def _with_salvage(data: bytes, path: str, error: StateFileError, found: Plan, arguments: Any) -> Plan | None:
    """What --salvage would keep, if that is more, and it was not given."""
    if arguments.salvage:
        return None
    try:
        more = plan(data, path, error, True)
    except (No, StateFileError):
        return None
    return more if len(more.lost) < len(found.lost) else None


def _shown(found: Plan, more: Plan | None) -> str:
    """What would be kept and what lost, for a person."""
    lines = [f"{show.coloured('kept', 'green')}: {', '.join(found.kept)}"]
    if found.lost:
        lines.append(f"{show.coloured('lost', 'red')}:")
    lines += lost_lines(found.lost)
    if more is not None:
        lines.append(f"with --salvage: {', '.join(more.kept)}; {len(more.lost)} of these {len(found.lost)} are lost")
    return "".join(f"{line}\n" for line in lines)


def _ask(path: str, arguments: Any) -> None:
    """Raise No unless the person wants it."""
    if arguments.yes:
        return
    if arguments.json or not sys.stdin.isatty():
        raise No(
            f"{path}: standard input is not a terminal, so nobody can confirm. "
            "Nothing was changed. To repair: --yes; to look: --dry-run"
        )
    show.flush()
    tell("A copy of the file will be kept beside it. Repair it? y or n [n]: ", end="")
    if sys.stdin.readline().strip().lower() not in ("y", "yes"):
        raise No(f"{path}: not repaired. Nothing was changed.")


def _fields(path: str, error: StateFileError, found: Plan, copy: str | None) -> dict[str, Any]:
    """What was found and done, for a program."""
    return {
        "file": path,
        "ok": False,
        "problem": str(error),
        "line": error.line,
        "kept": found.kept,
        "records": found.records,
        "lost": [each.fields() for each in found.lost],
        "done": copy is not None,
        "copy": copy,
    }


COMMANDS = {
    "repair": Command(
        "repair",
        "repair a damaged file",
        "Show what is wrong with FILE, what can be kept and what is lost, and ask before repairing it.\n"
        "A copy of FILE is kept beside it. The repaired file is an earlier state: the document, and all commits\n"
        "before the damage. With --salvage, also later commits that are complete and fit, and the keys and\n"
        "elements of an invalid document that can be read. Files of persistedstate are repaired too.\n"
        "Exit code 0 if nothing is wrong; 1 if you say no, or if FILE needs --salvage or an editor.",
        "$ pstate repair --yes broken.yaml | sed -n '/^kept/,$p'\n"
        "kept: the document, commit 1\n"
        "lost:\n"
        '  lines 7 to 8: record 2, its checksum is wrong: \'--- [["set",["key"],"nestex",3]]\'\n'
        "  lines 9 to 10: record 3, after the damage\n"
        "      ~ counter: 4 -> 5\n"
        "with --salvage: the document, 2 of the commits up to 3; 1 of these 2 are lost\n"
        "repaired; as it was: $PWD/broken.yaml.before-repair\n"
        "$ pstate get broken.yaml counter\n"
        "4",
        _declare,
        _run,
    )
}
