"""Draw the pictures of docs/concepts.md from real runs on the simulated disk: `make reference`.

`pstate.file.format.scan` judges which bytes are torn. A line is new if the step before does not have it. What a
program finds is what one that opens the files finds. tests/test_pictures.py draws the pictures again, and compares.
"""

from __future__ import annotations

import json
import logging
import os
import re
from collections.abc import Callable, Iterator
from html import escape
from pathlib import Path
from textwrap import wrap
from typing import Any, NamedTuple

from pstate import PersistedState
from pstate.file import format as f
from pstate.testing import Killed, SimulatedDisk, SimulatedSystem, kill

FOLDER = Path(__file__).parent / "pictures"
PATH = "/bank.yaml"
BASE = b"# who has how much\nalice: 30\nbob: 0\n"

Files = dict[str, bytes]


class Step(NamedTuple):
    """The files at one moment, and what to say about them."""

    title: str
    note: str
    files: Files


# ---------------------------------------------------------------------- what happens


class Run:
    """One program on a simulated disk. Each of its system calls is noted, and can end it."""

    def __init__(self, files: Files, name: str = "first") -> None:
        self.disk = SimulatedDisk(files)
        self.calls: list[tuple[str, Files]] = []  #: each with the files before it
        self.dies_at: str | None = None  #: the call that the program dies in
        self.system = SimulatedSystem(self.disk, self.look, name=name)
        self.state = PersistedState.open(PATH, fs=self.system)

    def look(self, system: SimulatedSystem, name: str, arguments: tuple[Any, ...]) -> None:
        self.calls.append((name, self.disk.files()))
        if name == self.dies_at:
            fd, data = arguments
            system.put(system.descriptors[fd], data[: len(data) * 2 // 3])
            kill(system)
            raise Killed

    def files(self) -> Files:
        return self.disk.files()

    def after(self, name: str) -> Files:
        """The files after the last call of that name."""
        names = [call for call, _ in self.calls]
        return self.calls[len(names) - names[::-1].index(name)][1]

    def pay(self, amount: int) -> None:
        with self.state.transaction():
            self.state.alice -= amount
            self.state.bob += amount

    def dies_paying(self, amount: int) -> Files:
        """The files after the program was killed in the middle of its write."""
        self.dies_at = "write"
        try:
            self.pay(amount)
        except Killed:
            pass
        return self.files()


def commit() -> Iterator[Step]:
    yield Step("Before", "A plain YAML document. Reading does not change it.", {PATH: BASE})
    torn = Run({PATH: BASE}).dies_paying(10)
    yield Step("During the write of a transaction", "The record is incomplete, so it does not count.", torn)
    run = Run({PATH: BASE})
    run.pay(10)
    yield Step("After the transaction", "The line that begins with ... is its commit marker.", run.files())
    run.state.bob = 12
    yield Step(
        "After one more commit", "A commit is one record and one marker; a transaction is one commit.", run.files()
    )


def crash() -> Iterator[Step]:
    first = Run({PATH: BASE})
    first.pay(10)
    files = first.dies_paying(5)
    yield Step("A program is killed while it writes", "The tail is torn. Readers ignore it.", files)
    second = Run(files, "second")
    yield Step(
        "The next program opens the file",
        "It takes the lock, cuts the torn tail off, and logs that.",
        second.after("truncate"),
    )
    yield Step("It finishes opening", "It tidies up after the crash: one document again.", second.files())
    second.pay(5)
    yield Step("It pays", "Its first commit begins a new journal.", second.files())
    second.state.close()
    yield Step("It closes the file", "No other program is writing, so the journal ends.", second.files())


def vacuum() -> Iterator[Step]:
    run = Run({PATH: BASE})
    run.pay(10)
    yield Step("A file with a journal", "A vacuum begins when the journal has grown long, or at a close.", run.files())
    run.state.vacuum()
    yield Step(
        "The new file is written and synced",
        "It has a name of its own, under which no program looks.",
        run.after("sync"),
    )
    yield Step(
        "The old file gets a trailer",
        "It describes the new file. While the old file is at the path, it has no meaning.",
        run.after("write"),
    )
    yield Step(
        "The two files are exchanged",
        "This is one step: at every moment, a complete file is at the path.",
        run.after("exchange"),
    )
    yield Step("The old file is deleted", "The folder is synced before that.", run.files())


def edit() -> Iterator[Step]:
    run = Run({PATH: BASE})
    yield Step("An editor reads the file", "A program has it open as well.", run.files())
    run.pay(10)
    yield Step("The program commits", "The editor does not know that.", run.files())
    editor = SimulatedSystem(run.disk, name="editor")
    fd = editor.open("/saved", os.O_CREAT | os.O_WRONLY, 0o644)
    editor.write(fd, b"# who has how much\nalice: 30\nbob: 0\ncarol: 7   # new here\n")
    editor.close(fd)
    editor.rename("/saved", PATH)
    yield Step("The editor saves", "Its file lacks the payment.", run.files())
    for _ in range(2):  # at the first look, it might be half a save
        run.system.now += 1
        run.state.snapshot()
    yield Step(
        "The program checks the file", "It takes the edit, and applies the commits that the edit lacks.", run.files()
    )


STORIES: dict[str, Callable[[], Iterator[Step]]] = {"commit": commit, "crash": crash, "vacuum": vacuum, "edit": edit}


# ---------------------------------------------------------------------- how it is drawn

#: As wide as the text of a page on a phone that is 360 pixels wide, so that nothing is made smaller there.
WIDTH, MARGIN, LINE = 328, 8, 18
#: How many characters fit in a line: of a file, with room for its kind after it, and of text.
ROOM, WORDS = 36, 48
STYLE = """\
text{font:13px sans-serif;fill:#222}
.b{font-weight:bold}
.n{fill:#444}
.k{font-size:12px;text-anchor:end;fill:#555}
.t{font:bold 12px monospace;fill:#666}
.m{font:12px monospace;white-space:pre}
.f{fill:#fff;stroke:#999}
"""
TINTS = {"new": "#dcf3e1", "torn": "#fbdcd7"}


def kinds(name: str, data: bytes, before: set[str] | None) -> list[tuple[str, str]]:
    """The lines of a file, each with "torn", "new" or nothing; in the first step (*before* is None) none is new."""
    image = f.scan(data)
    end = image.end if image.verdict is f.Verdict.TORN and name == PATH else len(data)
    found = []
    at = 0
    for line in data.decode().splitlines(keepends=True):
        at += len(line.encode())
        shown = line.rstrip("\n")
        found.append((shown, "torn" if at > end else "new" if before is not None and shown not in before else ""))
    return found


def seen(files: Files) -> str:
    """The state that a program finds when it opens the file now."""
    system = SimulatedSystem(SimulatedDisk(files), name="reader")
    try:
        return json.dumps(PersistedState.open(PATH, fs=system, read_only=True).snapshot())
    finally:
        kill(system)


def pieces(line: str) -> list[str]:
    """*line* of a file in pieces that fit, cut between two operations, or else after a comma or a blank."""
    found = []
    while len(line) > ROOM:
        head = line[:ROOM]
        ends = [match.end() for match in re.finditer(r"\],(?=\[\")", head)] or [
            match.end() for match in re.finditer(r"[, ]", head)
        ]
        found.append(line[: ends[-1]])
        line = f"\N{DOWNWARDS ARROW WITH TIP RIGHTWARDS} {line[ends[-1] :]}"
    return [*found, line]


def svg(steps: list[Step]) -> str:
    """All *steps*, one below the other."""
    parts: list[str] = []
    y = 0
    before: set[str] | None = None
    for number, step in enumerate(steps, 1):
        y += 12
        for style, words in (("b", f"{number}. {step.title}"), ("n", step.note)):
            for line in wrap(words, WORDS):
                y += LINE
                parts.append(text(MARGIN, y, line, style))
        files = {name: kinds(name, data, before) for name, data in step.files.items()}
        for name, shown in sorted(files.items(), reverse=True):  # the one at the path first
            y += 12
            height = LINE * sum(len(pieces(line)) for line, _ in shown) + 30
            parts.append(box(y, height, 'class="f" rx="4"'))
            parts.append(text(MARGIN + 8, y + 16, name.lstrip("/"), "t"))
            y += 24
            for line, kind in shown:
                for piece in pieces(line):
                    if kind:
                        parts.append(box(y, LINE, f'fill="{TINTS[kind]}"', inset=1))
                    parts.append(text(MARGIN + 8, y + 13, piece, "m"))
                    y += LINE
                if kind:
                    parts.append(text(WIDTH - MARGIN - 6, y - 5, kind, "k"))
            y += 6
        y += 18
        parts.append(text(MARGIN, y, "A program that opens it now finds:", "n"))
        y += LINE
        parts.append(text(MARGIN, y, seen(step.files), "m"))
        before = {line for shown in files.values() for line, kind in shown if kind != "torn"}
    height = y + 18
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}">\n'
        f"<style>\n{STYLE}</style>\n"
        f'<rect width="{WIDTH}" height="{height}" rx="6" fill="#f6f6f4"/>\n' + "\n".join(parts) + "\n</svg>\n"
    )


def box(y: int, height: int, attributes: str, inset: int = 0) -> str:
    x = MARGIN + inset
    return f'<rect x="{x}" y="{y}" width="{WIDTH - 2 * x}" height="{height}" {attributes}/>'


def text(x: int, y: int, content: str, style: str) -> str:
    return f'<text class="{style}" x="{x}" y="{y}" xml:space="preserve">{escape(content, quote=False)}</text>'


def picture(name: str) -> str:
    return svg(list(STORIES[name]()))


if __name__ == "__main__":
    logging.getLogger("pstate").setLevel(logging.CRITICAL)  # a torn tail that is cut is meant here
    for name in STORIES:
        (FOLDER / f"{name}.svg").write_text(picture(name), encoding="utf-8")
