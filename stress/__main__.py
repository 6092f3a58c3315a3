"""Run the checks: `python -m stress list`, `python -m stress run [NAME...] [--seconds N] [--seed N]`.

Exit code 0: every promise held. 1: one broke, or a check hung; its evidence is kept, and the seed that repeats it is
printed. 2: the command line is wrong. 3: nothing broke, but there was no time for some of the checks.
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
import threading
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
from stress.limit import OutOfTime, Watchdog, descendants, helpers, kill, limited, process_start

#: How much longer than asked a run may take, in seconds. A check that does not stop by itself gets half of it, and a
#: tenth of what is left for the others: on a slow machine, the end of a round takes long.
GRACE = 9.0

#: So many seconds later, the run is killed.
LAST = 2.0


@dataclass
class Verdict:
    """How a check ended."""

    check: Check
    trial: Trial
    took: float
    failure: BaseException | None = None
    is_begun: bool = True
    is_cut: bool = False  #: it was stopped, in the middle of something

    @property
    def word(self) -> str:
        """The verdict in a word or two."""
        if self.failure is not None:
            return "broke"
        if not self.is_begun or (self.is_cut and not self.trial.counts):
            return "not tried"
        return "held, cut off" if self.is_cut else "held"


class Hung(BrokenPromise):
    """A check did not stop when its time was over, and gave no sign of life."""


def load_checks() -> None:
    """Import every module here, which registers its checks."""
    for module in pkgutil.walk_packages(stress.__path__, "stress."):
        if module.name != "stress.__main__":
            importlib.import_module(module.name)


def describe(trial: Trial) -> str:
    """What *trial* has tried, in a line."""
    tried = [f"{number:,} {what}" for what, number in trial.counts.items()]
    left = [f"{len(trial.unfinished):,} not completed"] if trial.unfinished else []
    return ", ".join(tried + left + [f"{name} {value}" for name, value in trial.figures.items()])


def table(verdicts: list[Verdict], running: tuple[Check, Trial] | None = None) -> Table:
    """The verdicts so far, for people."""
    shown = Table(box=None, pad_edge=False, header_style="bold")
    for title in ("check", "verdict", "seconds", "tried"):
        shown.add_column(title, justify="right" if title == "seconds" else "left", overflow="fold")
    for verdict in verdicts:
        style = "bold red" if verdict.failure else "green" if verdict.word == "held" else "yellow"
        word = Text(verdict.word.upper() if verdict.failure else verdict.word, style)
        shown.add_row(verdict.check.name, word, f"{verdict.took:.1f}", describe(verdict.trial))
    if running is not None:
        check, trial = running
        shown.add_row(check.name, Text("running", "yellow"), f"{time.monotonic() - trial.started:.0f}", describe(trial))
    return shown


def run_one(
    check: Check, seed: int, seconds: float, most: float, evidence: Path, show: Live, verdicts: list[Verdict], url: str
) -> Verdict:
    """Run *check* for *seconds*, and for no more than *most*; its folder is kept when it fails."""
    folder = evidence / check.name
    folder.mkdir(parents=True)
    told = time.monotonic()

    def tell(trial: Trial) -> None:
        nonlocal told
        show.update(table(verdicts, (check, trial)))
        if not show.console.is_terminal and time.monotonic() - told > 10:  # nothing is shown live in a log
            told = time.monotonic()
            show.console.print(f"{check.name}: {told - trial.started:.0f} s, {describe(trial)}", highlight=False)

    trial = Trial(seed, seconds, folder, tell, url)
    started = time.monotonic()
    failure: BaseException | None = None
    is_cut = False
    try:
        with limited(most):
            check.function(trial)
    except OutOfTime as error:
        is_cut = True
        silence = started + most - trial.seen
        if silence >= 0.8 * (most - seconds):
            failure = Hung(
                f"did not stop when its {seconds:.1f} s were over, and gave no sign of life for {silence:.1f} s"
            ).with_traceback(error.__traceback__)
    except Exception as error:
        failure = error
    if failure is None:
        shutil.rmtree(folder, ignore_errors=is_cut)
    else:
        (folder / "failure.txt").write_text(
            f"python -m stress run {check.name} --seed {seed}\n\n{''.join(traceback.format_exception(failure))}"
        )
    return Verdict(check, trial, time.monotonic() - started, failure, is_cut=is_cut)


def run(names: list[str], seconds: float, seed: int, began: float, url: str = "") -> list[Verdict]:
    """Run the checks *names* one after the other; they divide *seconds*, counted from *began*, between them.

    What one takes too long is taken from those that follow, down to a twentieth of their share. That, and the end of
    one that does not stop, is in GRACE, after which the rest is not tried.
    """
    checks = [CHECKS[name] for name in names]
    shares = everyone = sum(check.share for check in checks)
    evidence = Path(tempfile.mkdtemp(prefix="stress-"))
    verdicts: list[Verdict] = []
    console = Console()
    until = began + seconds
    with (
        Watchdog(until + GRACE + LAST) as watchdog,
        Live(table([]), console=console, refresh_per_second=4, transient=console.is_terminal) as show,
    ):
        for check in checks:
            now = time.monotonic()
            mine = max((until - now) / shares, seconds / everyone / 20) * check.share
            shares -= check.share
            most = min(mine + GRACE / 2 + max(0.0, until - now) / 10, until + GRACE - now)
            if most <= 0:
                verdicts.append(Verdict(check, Trial(seed, 0.0, evidence), 0.0, is_begun=False))
            else:
                watchdog.tell(check.name)
                before = {*descendants(os.getpid()), watchdog.pid}
                verdicts.append(run_one(check, seed, mine, most, evidence, show, verdicts, url))
                if verdicts[-1].is_cut:  # what it has begun, nobody ends any more
                    kill(descendants(os.getpid()) - before - helpers())
            if not console.is_terminal:  # should the run be killed, this is known
                last = verdicts[-1]
                console.print(f"{check.name}: {last.word}, {last.took:.1f} s", highlight=False)
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
        word = f"**{verdict.word}**" if verdict.failure else verdict.word
        lines.append(f"| {check.name} | {check.promise} | {word} | {describe(verdict.trial)} |")
    rows = [row for verdict in verdicts for row in verdict.trial.rows]
    if rows:
        lines += [
            "",
            "The scenarios that `schedules` completed. If a scenario has kills, failing calls or power cuts, they are "
            "tried in each of its states. Only switches away from a process that could continue are counted:",
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
    unfinished = [each for verdict in verdicts for each in verdict.trial.unfinished]
    if unfinished:
        lines += ["", f"Not completed in this time, and therefore not in the table above: {', '.join(unfinished)}."]
    return "\n".join(lines)


def write(path: Path, text: str) -> None:
    """Put *text* between the marks in the file at *path*."""
    before, _, rest = path.read_text(encoding="utf-8").partition(BEGIN)
    _, _, after = rest.partition(END)
    path.write_text(f"{before}{BEGIN}\n\n{text}\n\n{END}{after}", encoding="utf-8")


def main(arguments: list[str] | None = None, began: float | None = None) -> int:
    """Run the command line *arguments*, that of the process by default, which has begun at *began*; the exit code."""
    began = time.monotonic() if began is None else began
    load_checks()
    parser = argparse.ArgumentParser(
        prog="python -m stress",
        description=__doc__.splitlines()[0] if __doc__ else None,
        epilog=f"The checks: {', '.join(CHECKS)}.",
    )
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("list", help="show the checks, each with the promise that it tries to break")
    running = commands.add_parser("run", help="run checks")
    running.add_argument("names", nargs="*", metavar="NAME", help="which (default: all but soak)")
    running.add_argument("--seconds", type=float, default=300.0, help="how long, about (default: %(default).0f)")
    running.add_argument("--seed", type=int, help="repeat a run (default: drawn, and printed)")
    running.add_argument(
        "--url", default="", help="a PostgreSQL server for the checks that need one (default: each starts its own)"
    )
    running.add_argument("--write", type=Path, metavar="FILE", help="put a report between the marks in this document")
    options = parser.parse_args(arguments)
    if options.command == "list":
        listed = Table(box=None, pad_edge=False, show_header=False)
        for check in CHECKS.values():
            attacked = [promise for promise, names in stress.PROMISES.items() if check.name in names]
            listed.add_row(check.name, check.promise, " ".join(attacked) or "all")
        Console().print(listed)
        return 0
    unknown = [name for name in options.names if name not in CHECKS]
    if unknown:
        parser.error(f"{unknown[0]!r} is not a check. The checks are: {', '.join(CHECKS)}")
    seed = random.SystemRandom().randrange(1 << 32) if options.seed is None else options.seed
    Console().print(f"seed {seed}", highlight=False)
    missing = {name: why for name, check in CHECKS.items() if (why := check.missing(options.url))}
    for name in options.names:
        if name in missing:
            parser.error(f"{name} cannot be tried here: {missing[name]}")
    names = options.names or [name for name in CHECKS if name != "soak" and name not in missing]
    if not options.names:
        for name, why in missing.items():
            Console().print(f"{name} is left out: {why}", highlight=False)
    verdicts = run(names, options.seconds, seed, began, options.url)
    if options.write is not None:
        write(options.write, report(verdicts, seed, options.seconds))
    if any(verdict.failure for verdict in verdicts):
        return 1
    return 3 if any(verdict.word == "not tried" for verdict in verdicts) else 0


if __name__ == "__main__":
    code = main(began=process_start())
    if any(not thread.daemon for thread in threading.enumerate() if thread is not threading.main_thread()):
        sys.stdout.flush()
        os._exit(code)  # Python would wait for what a check has left
    sys.exit(code)
