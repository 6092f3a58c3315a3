"""Measure pstate beside the stores that people would take instead, and beside its own promises.

    python perftest.py                  every work, five rounds, a table
    python perftest.py --only counter   the works whose name contains this
    python perftest.py --quick          one round each, to see that it runs
    python perftest.py --markdown FILE  write the tables between the marks of a document
    python perftest.py --plot FILE      draw the first work as an SVG (needs matplotlib)

In a round all take turns, so that a busy moment of the machine hits all of them; what is shown are the medians of the
rounds, and the medians of the ratios within a round.
"""

from __future__ import annotations

import argparse
import datetime
import math
import os
import platform
import sys
import tempfile
from pathlib import Path

from rich.console import Console
from rich.table import Table

from perf.peers import Result, module
from perf.works import Work, is_reached, measured, works

BEGIN, END = "<!-- written by perftest.py: begin -->", "<!-- written by perftest.py: end -->"


def told(work: Work, seconds: float) -> str:
    """*seconds*, or what else *work* measures, for people."""
    if math.isnan(seconds):
        return ""
    if work.name.startswith("bytes"):
        return f"{seconds / 1e6:.2f} MB" if seconds >= 1e5 else f"{seconds:.1f} B"
    for factor, unit in ((1, "s"), (1e3, "ms")):
        if seconds * factor >= 1:
            return f"{seconds * factor:.3g} {unit}"
    return f"{seconds * 1e6:.3g} µs"


def row(work: Work, result: Result) -> tuple[str, str, str, str, str]:
    """Who, what it survives, how long, how many times pstate's time, and whether that was promised."""
    reached = is_reached(work, result)
    bar = next((least for label, least in work.bars.items() if result.label.startswith(label)), 0.0)
    promise = "" if reached is None else f"{'yes' if reached else 'NO'}, {bar:.3g}×"
    ratio = "" if math.isnan(result.ratio) else f"{result.ratio:.2f}×"
    return result.label, result.durability, result.note or told(work, result.seconds), ratio, promise


def shown(work: Work, results: list[Result]) -> Table:
    """The results for a terminal."""
    table = Table(title=work.name, title_justify="left", title_style="bold", box=None, pad_edge=False)
    for title in ("", "survives", "time", "of pstate's", "promised"):
        table.add_column(title, justify="right" if title in ("time", "of pstate's") else "left")
    for result in results:
        table.add_row(*row(work, result), style="bold" if result is results[0] else "")
    return table


def markdown(found: list[tuple[Work, list[Result]]], rounds: int) -> str:
    """The results for a document."""
    lines = [
        f"`python perftest.py --rounds {rounds}` on {datetime.date.today()}, CPython {platform.python_version()}, "
        f"{platform.system()}, {os.cpu_count()} cores:"
    ]
    for work, results in found:
        lines += [
            "",
            f"### {work.name}",
            "",
            "| | survives | time | of pstate's | promised |",
            "|---|---|---:|---:|---|",
        ]
        lines += [f"| {' | '.join(row(work, result))} |" for result in results]
    return "\n".join(lines)


def write(path: Path, text: str) -> None:
    """Put *text* between the marks of the document at *path*."""
    before, mark, rest = path.read_text(encoding="utf-8").partition(BEGIN)
    _, end, after = rest.partition(END)
    if not mark or not end:
        raise SystemExit(f"{path}: the marks {BEGIN} and {END} are missing; nothing was written.")
    path.write_text(f"{before}{BEGIN}\n\n{text}\n\n{END}{after}", encoding="utf-8")


def plot(path: Path, work: Work, results: list[Result]) -> None:
    """Draw *results* as bars; shorter is faster."""
    matplotlib = module("matplotlib")
    matplotlib.use("svg")
    # Text as text, and the same picture for the same figures.
    matplotlib.rcParams |= {"svg.fonttype": "none", "svg.hashsalt": "pstate"}
    pyplot = module("matplotlib.pyplot")
    taking_part = sorted((one for one in results if not one.note), key=lambda one: one.seconds, reverse=True)
    figure, axes = pyplot.subplots(figsize=(7, 0.4 * len(taking_part) + 1))
    colors = ["#2a6f97" if one.label == "pstate" else "#adb5bd" for one in taking_part]
    bars = axes.barh([one.label for one in taking_part], [one.seconds * 1e6 for one in taking_part], color=colors)
    axes.bar_label(bars, [f" {told(work, one.seconds)}" for one in taking_part])
    axes.set_xscale("log")
    axes.set_xlabel("µs for each, logarithmic")
    axes.set_title(work.name, loc="left", fontsize=10)
    axes.spines[["top", "right"]].set_visible(False)
    figure.tight_layout()
    figure.savefig(path, format="svg", metadata={"Date": None})


def main(arguments: list[str] | None = None) -> int:
    """Exit code 1 when a promise was not kept, and `--check` was given."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, prog="perftest.py"
    )
    parser.add_argument(
        "--only", action="append", default=[], metavar="TEXT", help="only works with this in their name"
    )
    parser.add_argument("--quick", action="store_true", help="one round of each")
    parser.add_argument("--rounds", type=int, default=5, help="how often each is measured (default: %(default)s)")
    parser.add_argument("--check", action="store_true", help="exit code 1 when a promise was not kept")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="write the tables into this document")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="draw the first work that is measured")
    options = parser.parse_args(arguments)
    chosen = [work for work in works() if not options.only or any(text in work.name for text in options.only)]
    if not chosen:
        parser.error(
            f"no work has {' or '.join(options.only)!r} in its name; there are: " + "; ".join(w.name for w in works())
        )
    rounds = 1 if options.quick else options.rounds
    console = Console()
    found: list[tuple[Work, list[Result]]] = []
    with tempfile.TemporaryDirectory(dir=os.environ.get("PERFTEST_FOLDER")) as folder:
        with console.status("") as status:
            for work in chosen:
                results = measured(work, rounds, Path(folder), status.update)
                found.append((work, results))
                console.print(shown(work, results))
                console.print()
    if options.markdown is not None:
        write(options.markdown, markdown(found, rounds))
    if options.plot is not None:
        plot(options.plot, *found[0])
    missed = [
        (work.name, result.label) for work, results in found for result in results if is_reached(work, result) is False
    ]
    for name, label in missed:
        console.print(f"[bold red]not reached[/]: {name}, beside {label}")
    return int(options.check and bool(missed))


if __name__ == "__main__":
    sys.exit(main())
