"""`pstate check`: reports on files, and tells a script whether they can be used."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from pstate.cli import progress, show
from pstate.cli.command import Command, Parser, file_or_url
from pstate.cli.mending.examine import ERROR, NOTE, WARNING, Finding, Report, examine
from pstate.cli.mending.presence import UNKNOWN_SIZE
from pstate.cli.urls import Url
from pstate.signals import expected

#: How many notes of one kind are shown of a file, without --all.
_SHOWN = 3
_COLOURS = {ERROR: "red", WARNING: "yellow", NOTE: "cyan"}


def _declare(parser: Parser) -> None:
    parser.add_argument("files", metavar="FILE", nargs="+", type=file_or_url, help="state files, or URLs of states")
    parser.add_argument("--json", action="store_true", help="print JSON, one object a line")
    parser.add_argument("--all", action="store_true", help=f"all notes, not only the first {_SHOWN} of each kind")
    parser.add_argument("--strict", action="store_true", help="exit with code 1 for warnings too")


def _run(arguments: Any) -> int:
    bad = {ERROR, WARNING} if arguments.strict else {ERROR}
    code = 0
    for file in arguments.files:
        with progress.shown(f"reading {file}", _size(file)) as step:
            report = _report(file, step)
        show.write(_json(report) if arguments.json else text(report, arguments.all))
        show.flush()
        if any(finding.severity in bad for finding in report.findings):
            code = 1
    return code


def _report(file: str, step: Callable[[str], None]) -> Report:
    if isinstance(file, Url):
        from pstate.cli.servers.examine import examine_url

        return examine_url(file, step)
    return examine(file, step)


def _size(file: str) -> int:
    if isinstance(file, Url):
        return UNKNOWN_SIZE
    try:
        return os.stat(file).st_size
    except expected(OSError):
        return 0


def _json(report: Report) -> str:
    findings = [
        {name: value for name, value in finding._asdict().items() if value is not None} for finding in report.findings
    ]
    fields = {"file": report.path, "ok": report.is_usable, **report.facts, "findings": findings}
    return show.json_text(fields) + "\n"


def text(report: Report, all_notes: bool) -> str:
    """The report on a file, for a person."""
    lines = [f"{report.path}: {_verdict(report)}"]
    seen: dict[str, int] = {}
    for finding in report.findings:
        count = seen[finding.kind] = seen.get(finding.kind, 0) + 1
        if finding.severity != NOTE or all_notes or count <= _SHOWN:
            lines.append(f"  {show.coloured(finding.severity, _COLOURS[finding.severity])}: {_short(finding, report)}")
    for kind, count in seen.items():
        if not all_notes and count > _SHOWN and any(_is_note(finding, kind) for finding in report.findings):
            lines.append(f"  {show.coloured(NOTE, _COLOURS[NOTE])}: {count - _SHOWN} more of this kind: {kind} (--all)")
    return "\n".join(lines) + "\n"


def _is_note(finding: Finding, kind: str) -> bool:
    return finding.kind == kind and finding.severity == NOTE


def _short(finding: Finding, report: Report) -> str:
    """The message without the path that the line above has said; its line numbers stay."""
    text = finding.message.removeprefix(report.path)
    return f"line {text[1:]}" if text[1:2].isdigit() and text != finding.message else text.removeprefix(": ")


def _verdict(report: Report) -> str:
    if not report.is_usable:
        return show.coloured("cannot be used", "red")
    facts = report.facts
    words = [f"{facts['bytes']:,} bytes"]
    if "keys" in facts:
        words.append(f"{facts['keys']} {'key' if facts['keys'] == 1 else 'keys'}")
    if "revision" in facts:
        words.append(f"revision {facts['revision']:,}, with {facts['commits']:,} commits after the last snapshot")
    elif "generation" in facts:
        commits = f"{facts['commits']} {'commit' if facts['commits'] == 1 else 'commits'}"
        words.append(f"a journal of {commits} ({facts['journal']:,} bytes, generation {facts['generation']}")
        words[-1] += f", durability {facts['durability']})"
    else:
        words.append("a plain document")
    return f"{show.coloured('good', 'green')}, {', '.join(words)}"


COMMANDS = {
    "check": Command(
        "check",
        "check whether a file is good, and report everything about it",
        "Check each FILE completely: the document, records, checksums, bytes after the last commit, values that YAML\n"
        "reads differently than people expect, and files that crashes left beside FILE.\n"
        "FILE is not locked and not changed.\n"
        "Exit code 1 if a file cannot be used. Torn tails are normal after a crash, and only warnings.",
        "$ pstate check odd.yaml\n"
        "$PWD/odd.yaml: good, 34 bytes, 3 keys, a plain document\n"
        "  note: line 1:10: no is read as false; quote it if it is a string.\n"
        "  note: line 2:7: 0644 is read as 420, an octal number; write 420, or quote it.\n"
        "  note: line 3:8: 1e5 is read as a string, not as a number; write 100000.0, or quote it.",
        _declare,
        _run,
    )
}
