"""How people's programs save a file: real editors, where they are installed, and the system calls of others.

Each way of saving reads the file, waits for as long as it is told to, as a person thinks, replaces some lines of the
document, and saves everything else as it read it, the journal included.
"""

from __future__ import annotations

import os
import pty
import re
import select
import shutil
import subprocess
import tempfile
import termios
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

#: How long a real editor may take to show what it has done, in seconds.
PATIENCE = 60.0

#: How a line begins (letters, digits, blanks, colons and dashes) -> the lines that take its place, each with its
#: newline; "" deletes it. The first line that begins so is meant.
Changes = dict[str, str]


def _at_once() -> None:
    """Nobody has to be waited for."""


@dataclass
class Save:
    """One save: what a person changes, and what is known of how it went."""

    path: Path
    changes: Changes
    hold: Callable[[], None] = _at_once  #: called when the editor has read the file, and before it writes
    breathe: Callable[[], None] = _at_once  #: called between the steps of a save in place, where we know them
    longest_pause: float = 0.0  #: between two steps of a save in place, in seconds, where we know that
    into: int = -1  #: a descriptor of the file that was written in place, where we know that; the caller's to close

    def read(self) -> bytes:
        """What is going to be saved, for editors that are none."""
        content = self.path.read_bytes()
        for prefix, lines in self.changes.items():
            found = re.search(rb"(?m)^%b.*\n" % prefix.encode(), content)
            if found is None:
                raise ValueError(f"the document has no line that begins with {prefix!r}: {content[:500]!r}")
            content = content[: found.start()] + lines.encode() + content[found.end() :]
        self.hold()
        return content


@dataclass(frozen=True)
class Editor:
    """A way of saving."""

    name: str
    save: Callable[[Save], None]
    in_place: bool = False
    at_once: bool = False  #: the path shows the old file or the whole new one, at every moment
    program: str = ""  #: what must be installed

    @property
    def installed(self) -> bool:
        return not self.program or shutil.which(self.program) is not None

    def __str__(self) -> str:
        return self.name


# ---------------------------------------------------------------------- by the system calls


def by_rename(save: Save) -> None:
    content, beside = save.read(), save.path.with_name("saved")
    beside.write_bytes(content)
    save.breathe()
    beside.replace(save.path)


def by_rename_with_a_backup(save: Save) -> None:
    """The old file stays as the backup, and is the same inode."""
    content, backup = save.read(), save.path.with_name(save.path.name + "~")
    backup.unlink(missing_ok=True)
    os.link(save.path, backup)
    beside = save.path.with_name("saved")
    beside.write_bytes(content)
    beside.replace(save.path)


def by_moving_away(save: Save) -> None:
    """The path is missing for a moment."""
    content = save.read()
    save.path.replace(save.path.with_name(save.path.name + "~"))
    save.path.write_bytes(content)


def by_deleting(save: Save) -> None:
    content = save.read()
    save.path.unlink()
    save.path.write_bytes(content)


def in_pieces(save: Save) -> None:
    """As VS Code does: truncate, then write, a large file in pieces."""
    content = save.read()
    step = max(1, len(content) // 3)
    fd = os.open(save.path, os.O_RDWR | os.O_TRUNC)
    save.into = os.dup(fd)
    try:
        before = time.monotonic()
        for start in range(0, len(content), step):
            save.breathe()
            os.write(fd, content[start : start + step])
            now = time.monotonic()
            save.longest_pause = max(save.longest_pause, now - before)
            before = now
    finally:
        os.close(fd)


def without_truncation(save: Save) -> None:
    """Write over it, then cut what is too long."""
    content = save.read()
    with save.path.open("r+b", buffering=0) as file:
        save.into = os.dup(file.fileno())
        file.write(content)
        before = time.monotonic()
        file.truncate()
        save.longest_pause = time.monotonic() - before


# ---------------------------------------------------------------------- real programs


class Dialogue:
    """A program, and what it is told and shows: through pipes, or on a terminal."""

    def __init__(self, command: list[str], process: subprocess.Popen[bytes], keyboard: int, screen: int) -> None:
        self.process = process
        self.command = command
        self._keyboard = keyboard
        self._screen = screen
        self._seen = b""

    def say(self, text: str) -> None:
        data = text.encode()
        while data:
            data = data[os.write(self._keyboard, data) :]

    def await_answer(self, *wanted: bytes) -> int:
        """Wait until it shows one of the regular expressions *wanted*; returns which, or -1 when it has ended."""
        until = time.monotonic() + PATIENCE
        while True:
            for number, pattern in enumerate(wanted):
                if re.search(pattern, self._seen):
                    self._seen = b""
                    return number
            if not select.select([self._screen], [], [], max(0, until - time.monotonic()))[0]:
                raise TimeoutError(f"{self.command} does not show {wanted!r}, but {self._seen[-500:]!r}")
            try:
                part = os.read(self._screen, 65536)
            except OSError:  # what a terminal says when nobody has it open any more
                part = b""
            if not part:
                return -1
            self._seen += part

    def expect(self, wanted: bytes) -> None:
        if self.await_answer(wanted) < 0:
            raise self._failure()

    def end(self) -> None:
        """Wait for its end. Raises OSError when it failed."""
        while self.await_answer(rb"(?!)") >= 0:
            pass
        if self.process.wait(PATIENCE):
            raise self._failure()

    def _failure(self) -> OSError:
        return OSError(f"{self.command} failed: {self._seen[-1500:]!r}")


@contextmanager
def dialogue(command: list[str], cwd: Path, on_a_terminal: bool = False) -> Iterator[Dialogue]:
    """Run *command*. It does not live longer than the block."""
    if on_a_terminal:
        ours, theirs = pty.openpty()
        termios.tcsetwinsize(theirs, (24, 80))
        environment = {**os.environ, "TERM": "xterm", "LC_ALL": "C.UTF-8"}
    else:
        ours, theirs = -1, subprocess.PIPE
        environment = None
    process = subprocess.Popen(
        command,
        cwd=cwd,
        env=environment,
        stdin=theirs,
        stdout=theirs,
        stderr=theirs if on_a_terminal else subprocess.STDOUT,
        start_new_session=on_a_terminal,
    )
    try:
        if on_a_terminal:
            os.close(theirs)
            yield Dialogue(command, process, ours, ours)
        else:
            assert process.stdin is not None
            assert process.stdout is not None
            yield Dialogue(command, process, process.stdin.fileno(), process.stdout.fileno())
    finally:
        process.kill()
        process.wait()
        if on_a_terminal:
            os.close(ours)
        else:
            for pipe in (process.stdin, process.stdout):
                assert pipe is not None
                pipe.close()


def run(command: list[str], cwd: Path, stdin: bytes = b"") -> bytes:
    """The output of *command*. Raises OSError when it fails."""
    result = subprocess.run(command, cwd=cwd, input=stdin, capture_output=True, timeout=PATIENCE, check=False)
    if result.returncode:
        raise OSError(f"{command} failed: {result.stdout[-500:]!r} {result.stderr[:1000]!r}")
    return result.stdout


def sed(save: Save) -> None:
    """It reads and writes at once, so the person thinks before."""
    scripts = []
    for prefix, lines in save.changes.items():
        text = lines.removesuffix("\n").replace("\\", r"\\").replace("\n", "\\\n")
        scripts += ["-e", f"/^{prefix}/c\\\n{text}" if lines else f"/^{prefix}/d"]
    save.hold()
    run(["sed", "-i", *scripts, save.path.name], save.path.parent)


def ed(save: Save) -> None:
    with dialogue(["ed", "-s", save.path.name], save.path.parent) as program:
        program.say("1p\n")
        program.expect(rb"\n")
        save.hold()
        for prefix, lines in save.changes.items():
            # From the last line, a search goes on at the first one.
            program.say(f"$\n/^{prefix}/" + (f"c\n{lines}.\n" if lines else "d\n"))
        program.say("w\nq\n")
        program.end()


def vim(save: Save, options: str) -> None:
    """Typed on a terminal, where it asks whether to write a file that has changed since it was read."""
    command = ["vim", "-u", "NONE", "-i", "NONE", "-N", "-n", save.path.name]
    with dialogue(command, save.path.parent, on_a_terminal=True) as program:
        program.say(f":set nobackup backupskip= {options}\r:echo 'lines' line('$') 'read'\r")
        program.expect(rb"lines \d+ read")
        save.hold()
        for prefix, lines in save.changes.items():
            text = re.sub(r"([/&~\\])", r"\\\1", lines.removesuffix("\n")).replace("\n", r"\r")
            # From the last line, a search goes on at the first one.
            program.say(f":$\r:/^{prefix}/" + (f"s/.*/{text}/\r" if lines else "d\r"))
        program.say(":echo 'mistake' v:errmsg 'end'\r")
        if program.await_answer(rb"mistake +end", rb"mistake .* end"):
            raise ValueError(f"vim does not find all of {list(save.changes)}")
        program.say(":w!\r")
        # E949: between vim's look at the file and its write, somebody has put another file there. Then once more.
        while (answer := program.await_answer(rb"written", rb"\(y/n\)", rb"E949")) > 0:
            program.say(["y", "\r:w!\r"][answer - 1])
        program.say(":q!\r")
        program.end()


def emacs(save: Save, copying: str) -> None:
    replacements = " ".join(
        f'(goto-char (point-min)) (re-search-forward "^{prefix}.*\\n") (replace-match {_lisp(lines)} t t)'
        for prefix, lines in save.changes.items()
    )
    # That the file has changed since it was read is what a person is asked about, and says yes to.
    code = f"""(progn
        (setq create-lockfiles nil version-control 'never backup-by-copying {copying}
              backup-by-copying-when-privileged-mismatch nil
              backup-enable-predicate (lambda (_) t))
        (load "userlock" nil t) (fset 'ask-user-about-supersession-threat #'ignore)
        (fset 'yes-or-no-p (lambda (&rest _) t)) (fset 'y-or-n-p (lambda (&rest _) t))
        (find-file {_lisp(save.path.name)}) (message "has read") (read-from-minibuffer "")
        {replacements} (save-buffer))"""
    with dialogue(["emacs", "-Q", "--batch", "--eval", code], save.path.parent) as program:
        program.expect(rb"has read")
        save.hold()
        program.say("\n")
        program.end()


def _lisp(text: str) -> str:
    return '"' + text.replace("\\", r"\\").replace('"', r"\"") + '"'


def nano(save: Save) -> None:
    """Typed on a terminal: search for each line, cut it, type others; leave, and save over the file as it is by now."""
    with tempfile.NamedTemporaryFile("w", suffix=".nanorc") as settings:
        settings.write("set regexp\nset casesensitive\nset cutfromcursor\nset saveonexit\nunset autoindent\n")
        settings.flush()
        command = ["nano", f"--rcfile={settings.name}", save.path.name]
        with dialogue(command, save.path.parent, on_a_terminal=True) as program:
            program.expect(rb"Read \d+ line")
            save.hold()
            for prefix, lines in save.changes.items():
                program.say("\x17")  # Ctrl-W
                program.expect(rb"Search")
                program.say(f"^{prefix}\r")
                program.say("\x03")  # Ctrl-C: where is the cursor?
                if program.await_answer(rb"col +1/", rb"not found"):
                    raise ValueError(f"nano finds no line that begins with {prefix!r}")
                cut = "\x0b"  # Ctrl-K: to the end of the line, and then that end
                program.say(cut + lines.removesuffix("\n").replace("\n", "\r") if lines else cut + cut)
            program.say("\x18")  # Ctrl-X
            while program.await_answer(rb"continue saving\?|has changed") >= 0:
                program.say("y")
            program.end()


def git_checkout(save: Save) -> None:
    """What is in the index replaces the file."""
    folder, name = save.path.parent, save.path.name
    _index(save)
    run(["git", "checkout", "-q", "--", name], folder)


def git_switch(save: Save) -> None:
    """Another commit is checked out, as by a switch to another branch, or by a pull."""
    folder = save.path.parent
    _index(save)
    tree = run(["git", "write-tree"], folder).decode().strip()
    identity = ["-c", "user.name=a person", "-c", "user.email="]
    commit = run(["git", *identity, "commit-tree", "-m", "another branch", tree], folder).decode().strip()
    run(["git", "checkout", "-q", "--force", "--detach", commit], folder)


def _index(save: Save) -> None:
    """Put what is saved into git's index."""
    folder, name = save.path.parent, save.path.name
    if not (folder / ".git").exists():
        run(["git", "init", "-q"], folder)
    blob = run(["git", "hash-object", "-w", "--stdin"], folder, save.read()).decode().strip()
    run(["git", "update-index", "--add", "--cacheinfo", f"100644,{blob},{name}"], folder)


EDITORS = [
    Editor("rename", by_rename, at_once=True),
    Editor("rename with a backup", by_rename_with_a_backup, at_once=True),
    Editor("move away", by_moving_away),
    Editor("delete", by_deleting),
    Editor("in pieces", in_pieces, in_place=True),
    Editor("without truncation", without_truncation, in_place=True),
    Editor("sed", sed, at_once=True, program="sed"),
    Editor("ed", ed, in_place=True, program="ed"),
    Editor("vim, backupcopy=no", partial(vim, options="writebackup backupcopy=no"), program="vim"),
    Editor("vim, backupcopy=auto", partial(vim, options="writebackup backupcopy=auto"), program="vim"),
    Editor("vim, backupcopy=yes", partial(vim, options="writebackup backupcopy=yes"), in_place=True, program="vim"),
    Editor("vim, nowritebackup", partial(vim, options="nowritebackup"), in_place=True, program="vim"),
    Editor("emacs, moving away", partial(emacs, copying="nil"), program="emacs"),
    Editor("emacs, copying", partial(emacs, copying="t"), in_place=True, program="emacs"),
    Editor("nano", nano, in_place=True, program="nano"),
    Editor("git checkout", git_checkout, program="git"),
    Editor("git switch", git_switch, program="git"),
]
