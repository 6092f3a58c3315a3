"""Three programs write to a YAML file full of comments while a person edits it; nothing of either side is lost.

    python examples/shared_with_a_person.py [STATE.yaml] [--editor vim | --me] [--quick]

The person is a script that drives a real editor, whichever is found: it reads the file, takes its time while the
programs commit, and saves over what they have written. With `--me` it is you, with your $EDITOR. The file is shown at
each step. At the end the programs close it, and everything is counted.
Exit code 0: no comment, no edit and no commit is lost. 1: something is.
"""

from __future__ import annotations

import argparse
import difflib
import os
import re
import select
import shlex
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from pstate import InvalidEditError, PersistedState

sys.path.insert(0, str(Path(__file__).parent.parent))
from stress.real.editors import EDITORS, Changes, Editor, Save

BAKERS: list[str] = ["anna", "ben", "cleo"]
FLOUR = 100_000
DOCUMENT = """\
# The bakery. People edit this file, programs write to it.

# minutes in the oven
time: 35  # rye needs more
price: 4.20  # euros, since May
orders:  # what to bake next
  - rye
  # only on Sundays
  - spelt

# ---- counted by the programs ----
counts:
  flour: 100000  # one for each loaf
  loaves: 0
bakers:
  anna: 0  # the fastest
  ben: 0
  cleo: 0  # new
log:
  - opened

# to be decided:
# holidays: [1 January]
"""

#: What the person does, in one session after the other: how a line begins, and what takes its place.
SESSIONS: list[tuple[str, Changes]] = [
    (
        "changes a value, and says why",
        {"time:": "# 35 was too short, says everybody\ntime: 40  # 45 for rye\n"},
    ),
    (
        "adds keys, and comments on present ones",
        {
            "price:": "price: 4.20  # euros, since May\n# the big one is new\novens:\n  - small  # 12\n  - big\n",
            "  - spelt": "  - spelt  # from the mill, not the shop\n",
            "# ----": "# ---- counted by the programs; hands off ----\n",
        },
    ),
    (
        "deletes an order and a comment, and makes another one a value",
        {
            "  - rye": "",
            "# 35 was": "",
            "# to be": "# decided:\n",
            "# holidays:": "holidays: [1 January, 1 May]\n",
        },
    ),
]

#: The editors to choose from, in the order in which they are looked for. All of them put a new file in the place of the
#: old one. nano and others empty the file and write into it; what cannot be promised then is in docs/guarantees.md.
SCRIPTED = {
    "vim": "vim, backupcopy=auto",
    "emacs": "emacs, moving away",
    "sed": "sed",
    "none": "rename",
}
#: What the programs write: numbers after keys, and lines of the log.
COUNTED = re.compile(rf"(?m)^(  (?:flour|loaves|{'|'.join(BAKERS)}):) \d+")
LOGGED = re.compile(rf"(?m)^  - (?:{'|'.join(BAKERS)}) \d+\n?")
SKIPPED = "    ⋮"
WIDTH = max(60, min(shutil.get_terminal_size().columns, 118))
COLOURED = sys.stdout.isatty() and "NO_COLOR" not in os.environ
GREEN, RED, YELLOW, FAINT = "32", "31", "33", "2"


# ---------------------------------------------------------------------- the programs


def bake(path: str, name: str, pause: float) -> None:
    """What each program does: one transaction after the other until its standard input ends; it tells of each."""
    with PersistedState.open(path) as state:
        number = 0
        while not select.select([sys.stdin], [], [], pause)[0]:
            try:
                with state.transaction():
                    state.counts.flour -= 1
                    state.counts.loaves += 1
                    state.bakers[name] += 1
                    state.log.append(f"{name} {number + 1}")
            except InvalidEditError:
                continue  # what the person has saved does not parse; it will
            number += 1
            print(number, flush=True)


class Programs:
    """The processes, and how many commits of each have returned."""

    def __init__(self, path: Path, pause: float) -> None:
        self.pause = pause  #: of each between two commits, in seconds
        self.done = dict.fromkeys(BAKERS, 0)
        self._news = threading.Condition()
        self._processes = {
            name: subprocess.Popen(
                [sys.executable, __file__, str(path), "--baker", name, "--pause", str(pause)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
            )
            for name in BAKERS
        }
        self._listeners = [threading.Thread(target=self._listen, args=(name,)) for name in BAKERS]
        for listener in self._listeners:
            listener.start()

    def _listen(self, name: str) -> None:
        stdout = self._processes[name].stdout
        assert stdout is not None
        for line in stdout:
            with self._news:
                self.done[name] = int(line)
                self._news.notify_all()
        with self._news:
            self._news.notify_all()

    def wait_for(self, commits: int) -> int:
        """Wait until each has made so many more commits; returns how many all have made meanwhile."""
        with self._news:
            before = dict(self.done)
            while any(self.done[name] < before[name] + commits for name in BAKERS):
                self._news.wait(1.0)
                for name, process in self._processes.items():
                    if process.poll() is not None:
                        raise SystemExit(f"{name} has ended with exit code {process.returncode}")
            return sum(self.done.values()) - sum(before.values())

    def end(self) -> None:
        """Let each close the file, and wait for that."""
        for process in self._processes.values():
            assert process.stdin is not None
            process.stdin.close()
        for process, listener in zip(self._processes.values(), self._listeners, strict=True):
            process.wait()
            listener.join()


# ---------------------------------------------------------------------- the person


def edit_by_hand(path: Path, state: PersistedState) -> None:
    """Let the one who sits here edit the file, until it can be read."""
    command = os.environ.get("VISUAL") or os.environ.get("EDITOR") or "vi"
    while True:
        subprocess.run([*shlex.split(command), str(path)], check=True)
        try:
            with state.transaction():  # a writer waits for the end of a save, and does not put up with nonsense
                return
        except InvalidEditError as error:
            print(f"  {error}")
            input("  Press Enter to go on editing. ")


def halves(path: Path) -> tuple[str, list[str]]:
    """What a person sees: the document, and the lines with the commits below it."""
    text = path.read_bytes().decode()
    end = re.search(r"(?m)^\.\.\. # pstate |\Z", text)
    assert end is not None
    return text[: end.start()], text[end.start() :].splitlines()


def edited(text: str, changes: Changes) -> str:
    """*text* as the person wants it."""
    for line, lines in changes.items():
        text = re.sub(rf"(?m)^{re.escape(line)}.*\n", lambda _, lines=lines: lines, text, count=1)  # type: ignore[misc]
    return text


def without_counts(text: str) -> str:
    """*text* without what the programs write."""
    return COUNTED.sub(r"\1", LOGGED.sub("", text))


# ---------------------------------------------------------------------- what is shown


def painted(text: str, colour: str) -> str:
    return f"\x1b[{colour}m{text}\x1b[0m" if COLOURED else text


def headline(text: str) -> None:
    print(f"\n── {text} {'─' * max(3, WIDTH - len(text) - 4)}")


def show(path: Path, before: str) -> str:
    """Print the file: what the person has changed since *before*, and what the programs have; returns the document."""
    text, commits = halves(path)
    for mark, line in compared(before, text):
        colour = {"+": GREEN, "-": RED, "~": YELLOW}.get(mark, FAINT if line.lstrip().startswith("#") else "0")
        print("  " + painted(f"{mark} {line}"[: WIDTH - 2], colour))
    for line in [*commits[:1], *["⋮"] * (len(commits) > 3), *commits[-2:]]:
        print("    " + painted(line[: WIDTH - 4], FAINT))
    print(f"  {path.name}: the document" + (f", and {len(commits) // 2} commits below it" if commits else ""))
    return text


def compared(before: str, after: str) -> Iterator[tuple[str, str]]:
    """The lines of *after*, those that a person has changed marked with + and -, what programs have counted with ~."""
    old, new = shortened(before), shortened(after)
    matcher = difflib.SequenceMatcher(None, [*map(without_counts, old)], [*map(without_counts, new)], autojunk=False)
    for kind, start, end, first, last in matcher.get_opcodes():
        if kind != "equal":
            yield from (("-", line) for line in old[start:end])
        for number, line in enumerate(new[first:last]):
            if kind != "equal":
                yield ("~" if COUNTED.match(line) or LOGGED.match(line) or line == SKIPPED else "+"), line
            else:
                yield ("~" if line != old[start + number] else " "), line


def shortened(text: str) -> list[str]:
    """The lines of *text*, and of the log only the last entry."""
    lines = text.splitlines()
    entries = [number for number, line in enumerate(lines) if LOGGED.match(line)]
    if len(entries) > 1:
        lines[entries[0] : entries[-1]] = [SKIPPED]
    return lines


# ---------------------------------------------------------------------- verification


def verify(path: Path, wanted: str, done: dict[str, int]) -> list[tuple[str, object, object]]:
    """Look at the closed file as a stranger does; returns what was looked at, what must be, and what is."""
    text = path.read_text(encoding="utf-8")
    state: dict[str, Any] = yaml.safe_load(text)
    comments = re.findall(r"#.*", wanted)
    total = sum(done.values())
    rows: list[tuple[str, object, object]] = [
        ("comments", len(comments), sum(text.count(comment) == 1 for comment in comments)),
        ("bytes that the person wrote", without_counts(wanted), without_counts(text)),
    ]
    for name, number in done.items():
        rows.append((f"commits of {name}", number, state["bakers"][name]))
        tokens = [int(entry.split()[1]) for entry in state["log"] if entry.startswith(f"{name} ")]
        rows.append((f"entries of {name} in the log, in order", [*range(1, number + 1)], tokens))
    rows.append(("loaves", total, state["counts"]["loaves"]))
    rows.append(("flour", FLOUR - total, state["counts"]["flour"]))
    ours = re.compile(rf"\.{re.escape(path.name)}\.\w+|{re.escape(path.name)}\.(?:conflict|cut)-.*")
    rows.append(
        ("files of ours left behind", [], sorted(each.name for each in path.parent.iterdir() if ours.match(each.name)))
    )
    return rows


def print_table(rows: list[tuple[str, object, object]]) -> bool:
    """Returns whether all is as it must be."""
    width = max(len(what) for what, _, _ in rows)
    for what, expected, found in rows:
        if expected == found:
            number = len(found) if isinstance(found, (str, list)) else found
            print(f"  {painted('✓', GREEN)} {what:{width}}  {number:>7,}")
        else:
            print(f"  {painted('✗', RED)} {what:{width}}  must be {expected!r}\n{'':{width}}        but is {found!r}")
    return all(expected == found for _, expected, found in rows)


# ---------------------------------------------------------------------- the demonstration


def demonstrate(path: Path, editor: Editor | None, commits: int, pause: float) -> bool:
    """Run it with the person's *editor*, or with the one who sits here."""
    path.write_text(DOCUMENT, encoding="utf-8")
    with PersistedState.open(path) as state:
        programs = Programs(path, pause)
        try:
            wanted, shown = edit(path, state, programs, editor, commits)
        finally:
            programs.end()
    headline("the programs have closed the file")
    show(path, shown)
    headline("verification: yaml.safe_load reads the file, and everything is counted")
    return print_table(verify(path, wanted, programs.done))


def edit(path: Path, state: PersistedState, programs: Programs, editor: Editor | None, commits: int) -> tuple[str, str]:
    """Let the person edit the file, again and again; returns what the person wants, and what was shown last."""
    wanted = shown = DOCUMENT
    headline("the file, while the programs begin")
    programs.wait_for(commits)
    show(path, shown)
    for number, (what, changes) in enumerate(SESSIONS, 1):
        if editor:

            def think(number: int = number) -> None:
                if number == 2:
                    state.vacuum()  # the commits go into the document, which the editor has read before
                print(f"  {programs.wait_for(commits)} commits while the editor has the file open")

            headline(f"{editor.name}: the person {what}")
            editor.save(Save(path, changes, hold=think))
            wanted = edited(wanted, changes)
        else:
            headline(f"edit {number} of {len(SESSIONS)} is yours; leave the counts to the programs")
            edit_by_hand(path, state)
        # A program that has committed so often since, with its pauses, has looked at the file since.
        print(f"  {programs.wait_for(5 + round(0.1 / programs.pause))} commits after the save")
        shown = show(path, shown)
    return (wanted if editor else shown), shown


def choose(name: str | None) -> Editor:
    """The editor *name*, or the first that is installed."""
    editors = {editor.name: editor for editor in EDITORS}
    return next(editors[full] for short, full in SCRIPTED.items() if name in (short, None) and editors[full].installed)


def main() -> int:
    parser = argparse.ArgumentParser(description="Three programs and a person share one YAML file.")
    parser.add_argument("state", nargs="?", metavar="STATE.yaml", help="a new file (default: a temporary one)")
    who = parser.add_mutually_exclusive_group()
    who.add_argument("--editor", choices=SCRIPTED, help="what the scripted person uses (default: what is found)")
    who.add_argument("--me", action="store_true", help="edit it yourself, with $EDITOR")
    parser.add_argument("--quick", action="store_true", help="few commits")
    parser.add_argument("--baker", choices=BAKERS, help=argparse.SUPPRESS)
    parser.add_argument("--pause", type=float, default=0.005, help="of a program between two commits, in seconds")
    options = parser.parse_args()
    if options.baker:
        bake(options.state, options.baker, options.pause)
        return 0
    try:
        editor = None if options.me else choose(options.editor)
    except StopIteration:
        parser.error(f"{options.editor} is not installed")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(options.state or Path(folder, "bakery.yaml"))
        if path.exists():
            parser.error(f"{path} exists; the demonstration wants a new file")
        good = demonstrate(path, editor, 10 if options.quick else 100, options.pause)
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
