"""Run the checks: `python -m stress list`, `python -m stress run [NAME...] [--seconds N] [--seed N]`.

Exit code 0: every promise held. 1: one broke; its evidence is kept, and the seed that repeats it is printed. 2: the
command line is wrong.
"""

from __future__ import annotations

import argparse
import datetime
import importlib
import os
import pkgutil
import platform
import random
import shutil
import sys
import tempfile
import time
import traceback
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

import stress
from stress.check import CHECKS, BrokenPromise, Check, Trial


@dataclass
class Verdict:
    """How a check ended."""

    check: Check
    trial: Trial
    took: float
    failure: BaseException | None = None


def load_checks() -> None:
    """Import every module here, which registers its checks."""
    for module in pkgutil.iter_modules(stress.__path__):
        if module.name != "__main__":
            importlib.import_module(f"stress.{module.name}")


def describe(trial: Trial) -> str:
    """What *trial* has tried, in a line."""
    tried = [f"{number:,} {what}" for what, number in trial.counts.items()]
    return ", ".join(tried + [f"{name} {value}" for name, value in trial.figures.items()])


def table(verdicts: list[Verdict], running: tuple[Check, Trial] | None = None) -> Table:
    """The verdicts so far, for people."""
    shown = Table(box=None, pad_edge=False, header_style="bold")
    for title in ("check", "verdict", "seconds", "tried"):
        shown.add_column(title, justify="right" if title == "seconds" else "left", overflow="fold")
    for verdict in verdicts:
        word = Text("BROKE", "bold red") if verdict.failure else Text("held", "green")
        shown.add_row(verdict.check.name, word, f"{verdict.took:.1f}", describe(verdict.trial))
    if running is not None:
        check, trial = running
        shown.add_row(check.name, Text("running", "yellow"), f"{time.monotonic() - trial.started:.0f}", describe(trial))
    return shown


def run_one(check: Check, seed: int, seconds: float, evidence: Path, show: Live, verdicts: list[Verdict]) -> Verdict:
    """Run *check*; its folder is kept when it fails."""
    folder = evidence / check.name
    folder.mkdir(parents=True)
    told = time.monotonic()

    def tell(trial: Trial) -> None:
        nonlocal told
        show.update(table(verdicts, (check, trial)))
        if not show.console.is_terminal and time.monotonic() - told > 10:  # nothing is shown live in a log
            told = time.monotonic()
            show.console.print(f"{check.name}: {told - trial.started:.0f} s, {describe(trial)}", highlight=False)

    trial = Trial(seed, seconds, folder, tell)
    started = time.monotonic()
    failure: BaseException | None = None
    try:
        check.function(trial)
    except Exception as error:
        failure = error
        (folder / "failure.txt").write_text(
            f"python -m stress run {check.name} --seed {seed}\n\n{''.join(traceback.format_exception(error))}"
        )
    else:
        shutil.rmtree(folder)
    return Verdict(check, trial, time.monotonic() - started, failure)


def run(names: list[str], seconds: float, seed: int) -> list[Verdict]:
    """Run the checks *names* one after the other; those with a share divide *seconds* between them.

    What takes its own time may take all of it. Then the others get a fifth of their share all the same: a check that
    has tried nothing has not held.
    """
    checks = [CHECKS[name] for name in names]
    shares = everyone = sum(check.share for check in checks)
    evidence = Path(tempfile.mkdtemp(prefix="stress-"))
    verdicts: list[Verdict] = []
    console = Console()
    until = time.monotonic() + seconds
    with Live(table([]), console=console, refresh_per_second=4, transient=console.is_terminal) as show:
        for check in sorted(checks, key=lambda check: check.share > 0):  # what takes its own time comes first
            time_left = max(0.0, until - time.monotonic())
            mine = max(time_left / shares, seconds / everyone / 5) * check.share if check.share else seconds
            verdicts.append(run_one(check, seed, mine, evidence, show, verdicts))
            shares -= check.share
            show.update(table(verdicts))
    if console.is_terminal:
        console.print(table(verdicts))
    for verdict in verdicts:
        if verdict.failure is not None:
            kind = "" if isinstance(verdict.failure, BrokenPromise) else f"{type(verdict.failure).__name__}: "
            console.print(f"\n[bold red]{verdict.check.name}[/]: {verdict.check.promise}")
            console.print(f"{kind}{verdict.failure}", markup=False, highlight=False, soft_wrap=True)
            console.print(f"Evidence: {evidence / verdict.check.name}", markup=False, highlight=False, soft_wrap=True)
            console.print(f"Again: python -m stress run {verdict.check.name} --seed {seed}", highlight=False)
    if not any(verdict.failure for verdict in verdicts):
        shutil.rmtree(evidence, ignore_errors=True)
    return verdicts


BEGIN, END = "<!-- written by the run: begin -->", "<!-- written by the run: end -->"


def report(verdicts: list[Verdict], seed: int, seconds: float) -> str:
    """What was tried, in Markdown."""
    lines = [
        f"`python -m stress run --seconds {seconds:.0f} --seed {seed}`, on {datetime.date.today()}, "
        f"CPython {platform.python_version()}, {platform.system()}, {os.cpu_count()} cores:",
        "",
        "| check | what it tries to break | verdict | tried |",
        "|---|---|---|---|",
    ]
    for verdict in verdicts:
        check = verdict.check
        word = "**broke**" if verdict.failure else "held"
        lines.append(f"| {check.name} | {check.promise} | {word} | {describe(verdict.trial)} |")
    rows = [row for verdict in verdicts for row in verdict.trial.rows]
    if rows:
        lines += [
            "",
            "The scenarios of `schedules`. Where one has kills, failing calls or power cuts, each state has them. "
            "Switches are those from a process that could have gone on:",
            "",
            "| scenario | switches | distinct states | schedules | states after a power cut |",
            "|---|---|---:|---:|---:|",
        ]
        _, _, states, runs, cuts = zip(*rows, strict=True)
        rows.append(("**all**", "", sum(states), sum(runs), sum(cuts)))
        lines += [
            f"| {name} | {switches} | {states:,} | {runs:,} | {f'{cuts:,}' if cuts else ''} |"
            for name, switches, states, runs, cuts in rows
        ]
    return "\n".join(lines)


def write(path: Path, text: str) -> None:
    """Put *text* between the marks in the file at *path*."""
    before, _, rest = path.read_text(encoding="utf-8").partition(BEGIN)
    _, _, after = rest.partition(END)
    path.write_text(f"{before}{BEGIN}\n\n{text}\n\n{END}{after}", encoding="utf-8")


def main(arguments: list[str] | None = None) -> int:
    load_checks()
    parser = argparse.ArgumentParser(prog="python -m stress", description=__doc__.splitlines()[0] if __doc__ else None)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("list", help="show the checks, each with the promise that it tries to break")
    running = commands.add_parser("run", help="run checks")
    running.add_argument("names", nargs="*", metavar="NAME", help="which (default: all but soak)")
    running.add_argument("--seconds", type=float, default=300.0, help="how long, about (default: %(default).0f)")
    running.add_argument("--seed", type=int, help="repeat a run (default: drawn, and printed)")
    running.add_argument("--write", type=Path, metavar="FILE", help="put a report between the marks in this document")
    options = parser.parse_args(arguments)
    if options.command == "list":
        listed = Table(box=None, pad_edge=False, show_header=False)
        for check in CHECKS.values():
            listed.add_row(check.name, check.promise)
        Console().print(listed)
        return 0
    unknown = [name for name in options.names if name not in CHECKS]
    if unknown:
        parser.error(f"there is no check {unknown[0]!r}; there are: {', '.join(CHECKS)}")
    seed = random.SystemRandom().randrange(1 << 32) if options.seed is None else options.seed
    Console().print(f"seed {seed}", highlight=False)
    names = options.names or [name for name in CHECKS if name != "soak"]
    verdicts = run(names, options.seconds, seed)
    if options.write is not None:
        write(options.write, report(verdicts, seed, options.seconds))
    return int(any(verdict.failure for verdict in verdicts))


if __name__ == "__main__":
    sys.exit(main())
