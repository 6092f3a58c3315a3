"""The parts of docs/cli.md that `make reference` writes, from the same declarations as each command's --help."""

from __future__ import annotations

import argparse
from pathlib import Path

from pstate.cli.command import Command, parser_of
from pstate.cli.table import EXIT_CODES, MODULES, command


def updated(page: str) -> str:
    """*page* with new text in these parts."""
    codes = "".join(f"| {code} | {meaning} |\n" for code, meaning in EXIT_CODES.items())
    parts = {
        "exit codes": "| code | meaning |\n|---|---|\n" + codes,
        "commands": "".join(_section(command(name)) for name in MODULES),
    }
    for name, text in parts.items():
        begin, end = f"<!-- {name}, written by make reference -->\n", "<!-- end -->"
        before, _, rest = page.partition(begin)
        _, _, after = rest.partition(end)
        page = f"{before}{begin}\n{text.strip()}\n\n{end}{after}"
    return page


def _section(described: Command) -> str:
    parser = parser_of(described)
    positionals = [action for action in parser._actions if not action.option_strings]
    options = [action for action in parser._actions if action.option_strings and action.dest != "help"]
    words = ["pstate", described.name, *(["[OPTIONS]"] if options else []), *map(_positional, positionals)]
    usage = "  \n".join(f"`{line.strip()}`" for line in (parser.usage or " ".join(words)).splitlines())
    rows = [(f"`{action.metavar}`", action.help or "") for action in positionals]
    rows += [(_option(action), action.help or "") for action in options]
    table = "".join(f"| {name} | {_text(meaning)} |\n" for name, meaning in rows)
    return (
        f"\n## pstate {described.name}\n\n{usage}\n\n{_text(described.details)}\n\n"
        f"| | |\n|---|---|\n{table}\n```console\n{described.example}\n```\n"
    )


def _text(text: str) -> str:
    return text.replace("[", "\\[").replace("|", "\\|")


def _positional(action: argparse.Action) -> str:
    name = str(action.metavar)
    return {"?": f"[{name}]", "+": f"{name}...", "*": f"[{name}...]"}.get(str(action.nargs), name)


def _option(action: argparse.Action) -> str:
    value = f" {action.metavar or '{' + ','.join(action.choices or ()) + '}'}" if action.nargs is None else ""
    return ", ".join(f"`{flag}{value}`" for flag in action.option_strings)


if __name__ == "__main__":
    target = Path("docs/cli.md")
    target.write_text(updated(target.read_text(encoding="utf-8")), encoding="utf-8")
