"""Measure pstate beside the stores that people would take instead, and beside its own promises.

    python perftest.py                  every work, five rounds, a table
    python perftest.py --only counter   the works whose name contains this
    python perftest.py --quick          one round each, to see that it runs
    python perftest.py --markdown FILE  write the tables into the section of this Python in a document
    python perftest.py --summary        and what is at the beginning of that document: what is won, and a short table
    python perftest.py --plot FILE      draw the first work as an SVG (needs matplotlib)

In a round all take turns, so that a busy moment of the machine hits all of them; what is shown are the medians of the
rounds, and the medians of the ratios within a round. Where pstate is compiled, the pure one is measured beside it.
"""

from __future__ import annotations

import argparse
import datetime
import math
import os
import platform
import re
import sys
import tempfile
from pathlib import Path

from rich.console import Console
from rich.table import Table

from perf.flavours import PURE, chosen, flavour
from perf.page import parted
from perf.peers import Result, module
from perf.works import Work, is_reached, measured

BEGIN, END = "<!-- written by perftest.py: begin -->", "<!-- written by perftest.py: end -->"
SUMMARY_BEGIN, SUMMARY_END = "<!-- the short table: begin -->", "<!-- the short table: end -->"
WON_BEGIN, WON_END = "<!-- what is won: begin -->", "<!-- what is won: end -->"

Found = list[tuple[Work, list[Result]]]

#: From this ratio on, pstate is said to be faster.
CLEARLY = 1.5

#: The columns of the short table, and with what the label of a result in each begins.
COLUMNS = {
    "pstate": "pstate",
    "pure Python": PURE,
    "persistedstate": "persistedstate",
    "SQLite": "sqlite3",
    "LMDB": "lmdb,",
    "diskcache": "diskcache",
    "PyYAML in C": "PyYAML",
}


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
    """The label, what it survives, its time, that divided by pstate's, and whether that was promised."""
    reached = is_reached(work, result)
    bar = next((least for label, least in work.bars.items() if result.label.startswith(label)), 0.0)
    promise = "" if reached is None else f"{'yes' if reached else 'NO'}, {bar:.3g}×"
    ratio = "" if math.isnan(result.ratio) else f"{result.ratio:.2f}×"
    return result.label, result.durability, result.note or told(work, result.seconds), ratio, promise


def shown(work: Work, results: list[Result]) -> Table:
    """The results for a terminal."""
    table = Table(title=work.name, title_justify="left", title_style="bold", box=None, pad_edge=False)
    for title in ("", "survives", "time", "relative", "promised"):
        table.add_column(title, justify="right" if title in ("time", "relative") else "left")
    for result in results:
        table.add_row(*row(work, result), style="bold" if result is results[0] else "")
    return table


def markdown(found: Found, rounds: int) -> str:
    """The results for a document."""
    lines = [
        f"`python perftest.py --rounds {rounds}` on {datetime.date.today()}, CPython {platform.python_version()}, "
        f"{platform.system()}, {os.cpu_count()} cores; {flavour()}:"
    ]
    for work, results in found:
        lines += [
            "",
            f"### {work.name}",
            "",
            "| | survives | time | relative | promised |",
            "|---|---|---:|---:|---|",
        ]
        lines += [f"| {' | '.join(row(work, result))} |" for result in results]
    return "\n".join(lines)


def summary(found: Found) -> str:
    """The short table: what a reader asks first, a column for each store that most people know."""
    lines = [f"| CPython {version()} | {' | '.join(COLUMNS)} |", f"|---|{'---:|' * len(COLUMNS)}"]
    for work, results in found:
        if work.short:
            cells = [cell(work, results, beginning) for beginning in COLUMNS.values()]
            lines.append(f"| {work.short} | **{cells[0]}** | {' | '.join(cells[1:])} |")
    return "\n".join(lines)


def won(found: Found) -> str:
    """A line for each work of the short table in which pstate is clearly faster than other stores."""
    lines = []
    for work, results in found:
        faster: dict[str, float] = {}
        for name, beginning in COLUMNS.items():
            ratios = [one.ratio for one in results if one.label.startswith(beginning)]
            if name not in ("pstate", "pure Python") and ratios and ratios[0] >= CLEARLY:
                faster[name] = ratios[0]
        if work.short and faster:
            beside = [f"{multiple(faster[name])} as fast as {name}" for name in sorted(faster, key=faster.__getitem__)]
            lines.append(f"- **{work.short}:** {told(work, results[0].seconds)}, {', '.join(beside)}.")
    return "\n".join(lines)


def multiple(ratio: float) -> str:
    return f"{ratio:.1f} times" if ratio < 10 else f"{ratio:.0f} times"


def cell(work: Work, results: list[Result], beginning: str) -> str:
    """What the first of *results* whose label has this *beginning* took; "" where there is none."""
    return next((told(work, one.seconds) for one in results if one.label.startswith(beginning)), "")


def version() -> str:
    """The version of this Python, as a section of the document is named."""
    return ".".join(platform.python_version_tuple()[:2])


def put_summary(page: str, table: str, lines: str) -> str:
    """*page* with the short *table*, and the *lines* about what is won, between their marks."""
    before, _, after = parted(page, SUMMARY_BEGIN, SUMMARY_END)
    page = f"{before}{SUMMARY_BEGIN}\n\n{table}\n\n{SUMMARY_END}{after}"
    before, _, after = parted(page, WON_BEGIN, WON_END)
    return f"{before}{WON_BEGIN}\n\n{lines}\n\n{WON_END}{after}"


def put_section(page: str, name: str, text: str) -> str:
    """*page* with *text* as the section *name* between its marks; the sections of other versions stay."""
    before, between, after = parted(page, BEGIN, END)
    sections = dict(re.findall(r"(?ms)^## CPython ([\d.]+)\n(.*?)(?=^## |\Z)", between))
    sections[name] = text
    ordered = sorted(sections.items(), key=lambda section: [int(part) for part in section[0].split(".")])
    written = "\n\n".join([f"## CPython {name}\n\n{text.strip()}" for name, text in ordered])
    return f"{before}{BEGIN}\n\n{written}\n\n{END}{after}"


def with_results(path: Path, found: Found, rounds: int, short: bool) -> str:
    """The document at *path* with the results, also in its *short* table. Raises SystemExit where it has no marks."""
    try:
        page = put_section(path.read_text(encoding="utf-8"), version(), markdown(found, rounds))
        return put_summary(page, summary(found), won(found)) if short else page
    except ValueError as error:
        raise SystemExit(f"{path}: {error}; nothing was written.") from None


def plot(path: Path, work: Work, results: list[Result]) -> None:
    """Draw *results* as bars; shorter is faster."""
    matplotlib = module("matplotlib")
    matplotlib.use("svg")
    # Text as text, and the same picture for the same figures.
    matplotlib.rcParams |= {"svg.fonttype": "none", "svg.hashsalt": "pstate"}
    pyplot = module("matplotlib.pyplot")
    taking_part = sorted((one for one in results if not one.note), key=lambda one: one.seconds, reverse=True)
    figure, axes = pyplot.subplots(figsize=(4.2, 0.34 * len(taking_part) + 1))
    ours = {"pstate": "#2a6f97", PURE: "#89b6cf"}
    colors = [ours.get(one.label, "#adb5bd") for one in taking_part]
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
    parser.add_argument("--summary", action="store_true", help="write its beginning, too")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="draw the first work that is measured")
    options = parser.parse_args(arguments)
    known = chosen()
    works = [work for work in known if not options.only or any(text in work.name for text in options.only)]
    if not works:
        parser.error(
            f"no work has {' or '.join(options.only)!r} in its name; there are: " + "; ".join(w.name for w in known)
        )
    if options.markdown is not None:
        with_results(options.markdown, [], 0, options.summary)  # or all would be measured in vain
    rounds = 1 if options.quick else options.rounds
    console = Console()
    found: Found = []
    with tempfile.TemporaryDirectory(dir=os.environ.get("PERFTEST_FOLDER")) as folder:
        with console.status("") as status:
            for work in works:
                results = measured(work, rounds, Path(folder), status.update)
                found.append((work, results))
                console.print(shown(work, results))
                console.print()
    if options.markdown is not None:
        text = with_results(options.markdown, found, rounds, options.summary)
        options.markdown.write_text(text, encoding="utf-8")
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
