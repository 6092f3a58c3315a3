"""Progress: on a terminal only, truthful, never in the way of what is printed, and gone at the end."""

from __future__ import annotations

import os
import pty
import re
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tools.cli import environment

from pstate.cli import progress
from pstate.cli.mending import unopened
from pstate.text import block, reading

#: A document that takes a while to read: a table of rows that are alike would be read at once.
DOCUMENT = "counter: 3\njobs:\n" + "".join(
    f"  - name: job {number}\n    tries: {number % 7}\n    tags:\n      - a{number % 13}\n      - b\n"
    for number in range(25_000)
)
#: Runs a command line without the patience, so that much shorter files show it.
PROGRAM = (
    "import sys\nfrom pstate.cli import main, progress\nprogress._PATIENCE, progress._PAUSE = 0.0, 0.01\n"
    "progress._LONG_PAUSE = 0.05\n"
    "import rich.console, rich.progress_bar, rich.table, rich.text\n"
)
RUN = "sys.exit(main())\n"
NO_RICH = "sys.modules['rich.console'] = None\n"


class Terminal:
    """A program with a terminal as standard error, and perhaps as standard output."""

    def __init__(
        self, folder: Path, *words: str, program: str = PROGRAM + RUN, both: bool = False, **more: str
    ) -> None:
        self.master, slave = pty.openpty()
        self.text = b""
        self.process = subprocess.Popen(
            [sys.executable, "-c", program, *words],
            cwd=folder,
            env={**environment(folder / "bin"), "TERM": "xterm", "COLUMNS": "80", **more},
            stdin=slave,
            stdout=slave if both else subprocess.PIPE,
            stderr=slave,
            start_new_session=True,
        )
        os.close(slave)

    def until(self, wanted: bytes) -> None:
        """Read until *wanted* is on the terminal."""
        while wanted not in self.text:
            assert self._read(), self.text

    def finish(self) -> bytes:
        """Standard output, at the end."""
        out, reader = b"", None
        if self.process.stdout is not None:
            pieces: list[bytes] = []
            stdout = self.process.stdout
            reader = threading.Thread(target=lambda: pieces.append(stdout.read()))
            reader.start()
        while self._read():
            pass
        if reader is not None:
            reader.join()
            out = pieces[0]
            stdout.close()
        self.process.wait()
        os.close(self.master)
        return out

    def _read(self) -> bool:
        assert select.select([self.master], [], [], 50)[0]
        try:
            piece = os.read(self.master, 65536)
        except OSError:  # the last one who had it open is gone
            return False
        self.text += piece
        return bool(piece)

    def screen(self) -> list[str]:
        """What a person sees at the end, line by line, without colours."""
        lines = [""]
        column = 0
        for token in re.findall(rb"\x1b\[[0-9;?]*[A-Za-z]|\r|\n|[^\x1b\r\n]+", self.text):
            if token == b"\r":
                column = 0
            elif token == b"\n":
                lines.append("")
                column = 0
            elif token.startswith(b"\x1b"):
                assert token[-1:] in b"Km", token  # colours, and erasing: nothing that would have to be undone
                if token == b"\x1b[K":
                    lines[-1] = lines[-1][:column]
            else:
                text = token.decode("utf-8", "replace")
                lines[-1] = lines[-1][:column].ljust(column) + text + lines[-1][column + len(text) :]
                column += len(text)
        return [line.rstrip() for line in lines if line.strip()]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "large.yaml").write_text(DOCUMENT)
    (tmp_path / "small.yaml").write_text("counter: 3\n")
    return tmp_path


def percents(text: bytes) -> list[int]:
    return [int(number) for number in re.findall(rb"([0-9]+)%", text)]


COMMANDS: dict[str, tuple[list[str], int, bytes]] = {
    "get": (["get", "large.yaml", "counter"], 0, b"3\n"),
    "set": (["set", "large.yaml", "counter", "4"], 0, b""),
    "incr": (["incr", "large.yaml", "counter"], 0, b"4\n"),
    "diff": (["diff", "large.yaml"], 0, b""),
    "log": (["log", "large.yaml"], 0, b""),
    "check": (
        ["check", "large.yaml"],
        0,
        f"$PWD/large.yaml: good, {len(DOCUMENT):,} bytes, 2 keys, a plain document\n".encode(),
    ),
    "repair": (["repair", "large.yaml"], 0, None),
    "resolve": (["resolve", "--edit", "large.yaml"], 0, None),
    "export": (["export", "large.yaml", "out.json"], 0, b""),
    "import": (["import", "large.yaml", "new.yaml"], 0, b""),
}  # type: ignore[dict-item]


@pytest.mark.parametrize("name", COMMANDS)
def test_each_command_that_may_take_long_shows_it(folder: Path, name: str) -> None:
    words, code, expected = COMMANDS[name]
    terminal = Terminal(folder, *words)

    out = terminal.finish()

    assert code == terminal.process.returncode, terminal.text
    assert b"reading large.yaml" in terminal.text
    assert percents(terminal.text)
    assert [] == terminal.screen()
    if expected is not None:
        assert expected.replace(b"$PWD", os.fsencode(folder)) == out
    assert b"\x1b" not in out


def test_without_rich_there_are_plain_lines(folder: Path) -> None:
    terminal = Terminal(folder, "get", "large.yaml", "counter", program=PROGRAM + NO_RICH + RUN)

    assert b"3\n" == terminal.finish()
    assert terminal.screen()
    for line in terminal.screen():
        assert re.fullmatch(r"pstate: reading large\.yaml: ([0-9]+%, )?[0-9]+ s", line)
    assert b"\x1b" not in terminal.text


def test_on_a_dumb_terminal_there_are_plain_lines(folder: Path) -> None:
    terminal = Terminal(folder, "get", "large.yaml", "counter", TERM="dumb")

    terminal.finish()
    assert all(line.startswith("pstate: reading large.yaml: ") for line in terminal.screen())
    assert b"\x1b" not in terminal.text


def test_where_nobody_looks_nothing_is_shown(folder: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM + RUN, "get", "large.yaml", "counter"],
        cwd=folder,
        capture_output=True,
        check=True,
    )

    assert (b"3\n", b"") == (done.stdout, done.stderr)


@pytest.mark.parametrize("words", [["get", "small.yaml"], ["get", "large.yaml", "counter"]])
def test_a_command_that_is_quick_shows_nothing_and_imports_nothing(folder: Path, words: list[str]) -> None:
    """A small file begins no thread; and with a large one, there is a second of patience."""
    program = "import sys\nfrom pstate.cli import main, progress\nprogress._PATIENCE = 100.0\n"
    check = "code = main()\nassert 'rich' not in sys.modules\nsys.exit(code)\n"
    terminal = Terminal(folder, *words, program=program + check)

    terminal.finish()
    assert (0, b"") == (terminal.process.returncode, terminal.text)


def test_what_is_printed_begins_on_a_clean_line(folder: Path) -> None:
    """Also in the middle, and on the same terminal."""
    program = (
        PROGRAM + "from pstate.cli.command import tell\nfrom pstate.cli import show\nimport time\n"
        "with progress.shown('working', 10**9) as say:\n"
        "    while not progress._active._is_drawn: time.sleep(0.001)\n"
        "    tell('a note')\n"
        "    while not progress._active._is_drawn: time.sleep(0.001)\n"
        "    show.write('a line\\n'); show.flush()\n"
        "    while not progress._active._is_drawn: time.sleep(0.001)\n"
        "    with progress.shown('inside', 10**9):\n"
        "        assert progress._active.phase == 'inside'\n"
        "    assert progress._active.phase == 'working'\n"
        "print('the end')\n"
    )
    terminal = Terminal(folder, program=program, both=True)

    terminal.finish()
    assert 0 == terminal.process.returncode, terminal.text
    assert ["a note", "a line", "the end"] == terminal.screen()


@pytest.mark.parametrize("columns", ["40", "80"])
def test_a_long_name_leaves_room_for_the_rest(folder: Path, columns: str) -> None:
    name = "x" * 200 + ".yaml"
    (folder / "large.yaml").rename(folder / name)
    terminal = Terminal(folder, "get", name, "counter", COLUMNS=columns)

    terminal.finish()
    drawn = re.sub(rb"\x1b\[[0-9;]*[mK]", b"", terminal.text).decode().split("\r")
    assert any("…" in line and line.endswith(" s") and "%" in line for line in drawn)
    assert all(len(line) < int(columns) for line in drawn)


def test_an_interrupt_leaves_the_terminal_clean(folder: Path) -> None:
    program = (
        PROGRAM
        + "from pstate.cli import read\nimport time\n"
        + (
            "def slow(arguments):\n"
            "    with progress.shown('working', 10**9):\n"
            "        while True: time.sleep(0.01)\n"
            "read.COMMANDS['get'] = read.COMMANDS['get']._replace(run=slow)\n"
        )
    )
    terminal = Terminal(folder, "get", "small.yaml", program=program + RUN)

    terminal.until(b"working")
    terminal.process.send_signal(signal.SIGINT)
    terminal.finish()

    assert -signal.SIGINT == terminal.process.returncode
    assert [] == terminal.screen()


# ------------------------------------------------------------------------------------------------------- how far it is


def fractions(work: Callable[[], Any]) -> list[float]:
    """What the progress of *work* in this thread would say, at many moments."""
    watching = progress._Progress("")
    found: list[float] = []
    ended = threading.Event()

    def watch() -> None:
        while not ended.is_set():
            fraction = watching._fraction()
            if fraction is not None:
                found.append(fraction)
            time.sleep(0.001)

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        work()
    finally:
        ended.set()
        thread.join()
    return found


def of_a_document() -> Iterator[Callable[[], Any]]:
    data = DOCUMENT.encode()
    yield lambda: block.read(data, reading.resolve)
    yield lambda: reading.load_events(data, "x")


def of_a_journal(folder: Path) -> Iterator[Callable[[], Any]]:
    from pstate import PersistedState
    from pstate.cli import history

    path = folder / "journal.yaml"
    path.write_text(f"text: {'x' * 500_000}\n")
    with PersistedState(path) as state:
        for number in range(5_000):
            state.list = [number] * 20
        data = path.read_bytes()
    path.write_bytes(data)
    found = unopened.read(data, "x")
    assert len(found.records) == 5_000
    yield lambda: unopened.replayed(found, "x", data)
    yield lambda: list(history._recorded(str(path), []))


@pytest.mark.parametrize("work", range(4))
def test_the_share_that_is_done_is_the_true_one(tmp_path: Path, work: int) -> None:
    """It is read from the variables of loops: this fails when one of them gets another name."""
    works = [*of_a_document(), *of_a_journal(tmp_path)]

    found = fractions(works[work])

    assert len(found) > 3
    assert found == sorted(found)
    assert found[0] < 0.5 < found[-1] <= 1
