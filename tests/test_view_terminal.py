"""`pstate view` in a real terminal, that of tmux: what is on it, and that it is in order however the view ends."""

from __future__ import annotations

import contextlib
import os
import pty
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from tools.cli import environment, folder, shell

from pstate import PersistedState
from pstate.file.fs import SYSTEM

__all__ = ["folder"]

PATIENCE = 40.0
BEGUN, ENDED = "the shell has begun", "the view has ended with"

in_tmux = pytest.mark.skipif(shutil.which("tmux") is None, reason="tmux is not installed")
with_textual = pytest.mark.skipif(find_spec("textual") is None, reason="textual is not installed")


def until(condition: Callable[[], Any], what: Callable[[], str]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, what()
        time.sleep(0.05)


class Terminal:
    """A terminal with a shell, which runs one command and says how that has ended."""

    def __init__(self, folder: Path, command: str, size: tuple[int, int] = (80, 24)) -> None:
        self._socket = folder.parent / "tmux"
        self.folder = folder
        # Once: it writes the script that is about to run.
        self._environment = {**environment(folder.parent / "bin"), "TERM": "xterm-256color", "SHELL": "/bin/sh"}
        script = folder.parent / "script"
        script.write_text(
            f'stty -a > ../before; echo "{BEGUN}"\n{command}\n'
            f'code=$?; stty -a > ../after; echo "{ENDED} $code"; exec cat\n'
        )
        width, height = map(str, size)
        self.tmux("-f", "/dev/null", "new-session", "-d", "-x", width, "-y", height, f"sh {script}")

    def tmux(self, *words: str) -> str:
        done = subprocess.run(
            ["tmux", "-S", str(self._socket), *words],
            cwd=self.folder,
            env=self._environment,
            capture_output=True,
            text=True,
            check=True,
        )
        return done.stdout

    def text(self) -> str:
        return self.tmux("capture-pane", "-p", "-J")

    def sees(self, *texts: str) -> None:
        until(lambda: all(text in self.text() for text in texts), self.text)

    def press(self, *keys: str) -> None:
        self.tmux("send-keys", *keys)

    def view(self) -> int:
        """The process that has the file open to look at it."""
        for entry in Path("/proc").iterdir():
            with contextlib.suppress(OSError):
                words = (entry / "cmdline").read_bytes().split(b"\0")
                is_it = b"view" in words and not words[0].endswith((b"sh", b"tmux"))
                if is_it and os.path.samefile(entry / "cwd", self.folder):
                    return int(entry.name)
        raise AssertionError(self.text())

    def is_in_order(self) -> None:
        """The screen is the one from before, with a cursor, and the shell reads lines again."""
        flags = self.tmux("display", "-p", "#{alternate_on} #{cursor_flag} #{mouse_any_flag} #{keypad_cursor_flag}")
        assert "0 1 0 0" == flags.strip()
        assert BEGUN in self.text()
        assert (self.folder.parent / "before").read_text() == (self.folder.parent / "after").read_text()

    def end(self) -> None:
        with contextlib.suppress(subprocess.CalledProcessError):
            self.tmux("kill-server")


@pytest.fixture
def terminal(folder: Path) -> Iterator[Callable[..., Terminal]]:
    made: list[Terminal] = []

    def make(command: str = "pstate view state.yaml", **options: Any) -> Terminal:
        made.append(Terminal(folder, command, **options))
        return made[-1]

    yield make
    for each in made:
        each.end()


def is_watched(path: Path) -> bool:
    fd = os.open(path, os.O_RDONLY)
    try:
        return SYSTEM.is_watched(fd)
    finally:
        os.close(fd)


def is_over(process: int) -> bool:
    """Perhaps no program is left to ask how it has ended."""
    try:
        return ") Z " in Path(f"/proc/{process}/stat").read_text()
    except FileNotFoundError:
        return True


WRITER = """
import os, sys, time
from pstate import PersistedState
with PersistedState(sys.argv[1]) as state:
    number = 0
    while not os.path.exists(sys.argv[3]):
        time.sleep(0.05)  # three that never pause leave a machine of two cores no time to draw
        for number in range(number, number + 100):
            state[sys.argv[2]] = number
    state[sys.argv[2]] = "done"
"""


@in_tmux
@with_textual
@pytest.mark.timeout(180)
def test_a_file_that_three_programs_write_at_the_same_time(folder: Path, terminal: Callable[..., Terminal]) -> None:
    """And a person: a key is answered meanwhile, an edit is one commit among theirs, and nothing is lost."""
    path = folder / "state.yaml"
    screen = terminal()
    screen.sees("counter  3", "q Quit")
    stop = folder / "stop"
    programs = [subprocess.Popen([sys.executable, "-c", WRITER, str(path), key, str(stop)]) for key in "abc"]
    screen.sees("a  ", "b  ", "c  ", "other")
    screen.press("Down", "e")
    screen.sees("counter =")
    screen.press("BSpace", "4", "2", "Enter")
    screen.sees("counter  42", "~ here")
    stop.touch()
    assert [0, 0, 0] == [program.wait(PATIENCE) for program in programs]
    screen.sees('a  "done"', 'b  "done"', 'c  "done"', "commits")
    screen.press("j")
    screen.sees('-> "done"')
    screen.press("q")
    screen.sees(f"{ENDED} 0")
    screen.is_in_order()
    with PersistedState(path) as state:
        assert (42, ["done"] * 3) == (state.counter, [state.a, state.b, state.c])
    assert b"pstate" not in path.read_bytes()
    assert not is_watched(path)


@in_tmux
@with_textual
@pytest.mark.parametrize("how", ["SIGTERM", "SIGHUP", "SIGINT", "C-c"])
def test_a_signal_leaves_the_terminal_and_the_file_in_order(
    folder: Path, terminal: Callable[..., Terminal], how: str
) -> None:
    before = (folder / "state.yaml").read_bytes()
    screen = terminal()
    screen.sees("counter  3", "q Quit")
    if how.startswith("SIG"):
        number = int(signal.Signals[how])
        os.kill(screen.view(), number)
    else:
        number = int(signal.SIGINT)
        screen.press(how)
    screen.sees(f"{ENDED} {128 + number}")
    screen.is_in_order()
    assert before == (folder / "state.yaml").read_bytes()
    assert not is_watched(folder / "state.yaml")


@in_tmux
@with_textual
@pytest.mark.parametrize("prefix", ["", "trap '' HUP; "], ids=["hangup", "ignored"])
def test_a_terminal_that_goes_away_ends_the_view(folder: Path, terminal: Callable[..., Terminal], prefix: str) -> None:
    """Where SIGHUP is ignored, as under nohup, no signal tells. Then the view finds out by itself."""
    screen = terminal(f"{prefix}pstate view state.yaml")
    screen.sees("counter  3", "q Quit")
    process = screen.view()
    screen.end()
    until(lambda: is_over(process), lambda: Path(f"/proc/{process}/status").read_text())
    assert not is_watched(folder / "state.yaml")


BROKEN = """
import sys
from pstate.cli import main
from pstate.cli.view.model import Model

def toggle(self):
    raise RuntimeError("planted")

Model.toggle = toggle
sys.exit(main(["view", "state.yaml"]))
"""


@in_tmux
@with_textual
def test_an_error_of_our_own_leaves_the_terminal_in_order(folder: Path, terminal: Callable[..., Terminal]) -> None:
    (folder / "broken.py").write_text(BROKEN)
    screen = terminal(f"{sys.executable} broken.py view")
    screen.sees("counter  3", "q Quit")
    screen.press("Enter")
    screen.sees("RuntimeError: planted", f"{ENDED} 1")
    flags = screen.tmux("display", "-p", "#{alternate_on} #{cursor_flag}")
    assert "0 1" == flags.strip()
    assert (folder.parent / "before").read_text() == (folder.parent / "after").read_text()
    assert not is_watched(folder / "state.yaml")


@in_tmux
@with_textual
def test_a_terminal_of_20_columns(folder: Path, terminal: Callable[..., Terminal]) -> None:
    """Whatever the environment says that it has."""
    screen = terminal("COLUMNS=80 LINES=24 pstate view state.yaml", size=(20, 8))
    screen.sees("counter  3")
    with PersistedState(folder / "state.yaml") as state:
        state.counter = 4
        screen.sees("counter  4", "~o")
    screen.press("q")
    screen.sees(f"{ENDED} 0")


@in_tmux
@with_textual
def test_a_terminal_that_cannot_place_text_is_refused(folder: Path, terminal: Callable[..., Terminal]) -> None:
    screen = terminal("TERM=dumb pstate view state.yaml")
    screen.sees("the environment variable TERM says", "pstate watch state.yaml", f"{ENDED} 2")


@pytest.mark.parametrize(("redirection", "name"), [("> out", "output"), ("< /dev/null", "input"), ("2> err", "error")])
@with_textual
def test_what_is_not_a_terminal_is_refused(folder: Path, tmp_path: Path, redirection: str, name: str) -> None:
    done = in_a_terminal(folder, f"pstate view state.yaml {redirection}")
    said = done + ((folder / "err").read_text() if name == "error" else "")
    assert f"pstate view needs a terminal, and standard {name} is not one. Nothing was done." in said
    assert "code 2" in done


def test_without_textual_it_says_how_to_install_it(folder: Path, tmp_path: Path) -> None:
    (folder / "without.py").write_text(
        "import sys\nsys.modules['textual'] = None\n"
        "from pstate.cli import main\nsys.exit(main(['view', 'state.yaml']))\n"
    )
    done = shell(f"{sys.executable} without.py", folder, tmp_path / "bin")

    assert (2, "") == (done.returncode, done.stdout)
    assert done.stderr == (
        "pstate: pstate view needs textual, which is not installed. Nothing was done. Run: pip install textual\n"
    )


def test_no_other_command_imports_textual(folder: Path, tmp_path: Path) -> None:
    program = (
        "import sys\nfrom pstate.cli import main\n"
        "for words in (['--help'], ['get', 'state.yaml'], ['completion', 'bash']):\n    main(words)\n"
        "sys.exit(any(name.split('.')[0] in ('textual', 'rich', 'asyncio') for name in sys.modules))\n"
    )
    (folder / "others.py").write_text(program)
    assert 0 == shell(f"{sys.executable} others.py", folder, tmp_path / "bin").returncode


@in_tmux
@with_textual
def test_a_file_that_is_missing_or_no_state_is_told_before_the_screen_begins(
    folder: Path, terminal: Callable[..., Terminal]
) -> None:
    (folder / "list.yaml").write_text("- 1\n")
    screen = terminal("pstate view nowhere.yaml; echo $?; pstate view list.yaml; echo $?; pstate view state.yaml 'a['")
    screen.sees("nowhere.yaml: the file does not exist", "this is a list", f"{ENDED} 2")


def in_a_terminal(folder: Path, command: str) -> str:
    """What *command* prints on a terminal that nobody draws, and its exit code."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        ["sh", "-c", f"{command}; echo code $?"],
        cwd=folder,
        env={**environment(folder.parent / "bin"), "TERM": "xterm"},
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
    )
    os.close(theirs)
    said = b""
    with contextlib.suppress(OSError):  # EIO, at the end
        while data := os.read(ours, 4096):
            said += data
    process.wait(PATIENCE)
    os.close(ours)
    return said.decode().replace("\r\n", "\n")


STUCK = """
import asyncio, sys, time
from pstate.cli.view import command

command._POLITE = 0.1

class Screen:
    saving = None

    def exit(self, code):
        pass

    async def run_async(self):
        print("begun", flush=True)
        while True:
            time.sleep(0.01)  # as a write that nobody takes
            await asyncio.sleep(0)

class Follower:
    def end(self):
        print("closed", flush=True)

asyncio.run(command._shown(Screen(), Follower()))
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_a_screen_that_cannot_end_does_not_keep_the_state_open(tmp_path: Path, number: signal.Signals) -> None:
    with subprocess.Popen([sys.executable, "-c", STUCK], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert b"begun\n" == process.stdout.readline()
        process.send_signal(number)
        assert b"closed\n" == process.stdout.readline()
        process.wait(PATIENCE)

    assert -number == process.returncode
