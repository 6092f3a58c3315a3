"""How people's programs save a file: real editors, where they are installed, and the system calls of others.

Each way of saving replaces the values of some keys in the document, and keeps everything else as it read it, the
journal included. An editor that has the file open for a while saves what it read then: it gets that as `copy`.
"""

from __future__ import annotations

import os
import pty
import re
import select
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

#: How long a real editor may take, in seconds.
PATIENCE = 60.0

Changes = dict[str, str]


@dataclass
class Save:
    """One save: what a person changes, and what is known of how it went."""

    path: Path
    changes: Changes  #: key -> the text of its new value
    copy: bytes | None  #: what the editor had read, if not just now
    breathe: Callable[[], None]  #: let the programs do something meanwhile
    longest_pause: float = 0.0  #: between two steps of a save in place, in seconds, where we know that
    into: int = -1  #: a descriptor of the file that was written in place, where we know that; the caller's to close

    def content(self) -> bytes:
        """The file with the changes."""
        content = self.path.read_bytes() if self.copy is None else self.copy
        for key, value in self.changes.items():
            content, count = re.subn(rb"(?m)^%b: .*$" % key.encode(), f"{key}: {value}".encode(), content, count=1)
            if not count:
                raise ValueError(f"the document has no line for {key}: {content[:500]!r}")
        return content


@dataclass(frozen=True)
class Editor:
    """A way of saving."""

    name: str
    save: Callable[[Save], None]
    in_place: bool = False
    takes_copy: bool = True  #: it can save what was read a while ago
    program: str = ""  #: what must be installed

    @property
    def installed(self) -> bool:
        return not self.program or shutil.which(self.program) is not None


# ---------------------------------------------------------------------- by the system calls


def by_rename(save: Save) -> None:
    beside = save.path.with_name("saved")
    beside.write_bytes(save.content())
    save.breathe()
    beside.replace(save.path)


def by_rename_with_a_backup(save: Save) -> None:
    """The old file stays as the backup, and is the same inode."""
    content, backup = save.content(), save.path.with_name(save.path.name + "~")
    backup.unlink(missing_ok=True)
    os.link(save.path, backup)
    beside = save.path.with_name("saved")
    beside.write_bytes(content)
    beside.replace(save.path)


def by_moving_away(save: Save) -> None:
    """The path is missing for a moment."""
    content = save.content()
    save.path.replace(save.path.with_name(save.path.name + "~"))
    save.path.write_bytes(content)


def by_deleting(save: Save) -> None:
    content = save.content()
    save.path.unlink()
    save.path.write_bytes(content)


def in_pieces(save: Save) -> None:
    """As VS Code does: truncate, then write, a large file in pieces."""
    content = save.content()
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
    content = save.content()
    with save.path.open("r+b", buffering=0) as file:
        save.into = os.dup(file.fileno())
        file.write(content)
        before = time.monotonic()
        file.truncate()
        save.longest_pause = time.monotonic() - before


# ---------------------------------------------------------------------- real programs


def _run(command: list[str], cwd: Path, stdin: bytes = b"") -> bytes:
    run = subprocess.run(command, cwd=cwd, input=stdin, capture_output=True, timeout=PATIENCE, check=False)
    if run.returncode:
        raise OSError(f"{command[0]} failed: {run.stdout[-500:]!r} {run.stderr[:1000]!r}")
    return run.stdout


def sed(save: Save) -> None:
    scripts = [word for key, value in save.changes.items() for word in ("-e", f"s/^{key}: .*/{key}: {value}/")]
    _run(["sed", "-i", *scripts, save.path.name], save.path.parent)


def vim(save: Save, backupcopy: str) -> None:
    commands = [f"set backupskip= backupcopy={backupcopy} writebackup nobackup"]
    commands += [f"%s/^{key}: .*/{key}: {value}/" for key, value in save.changes.items()]
    words = [word for command in [*commands, "w!", "q!"] for word in ("-c", command)]
    # That the file has changed since it was read is what a person is asked about, and says yes to.
    _run(["vim", "-u", "NONE", "-i", "NONE", "-n", "-es", *words, save.path.name], save.path.parent, b"y\n" * 20)


def vim_by_rename(save: Save) -> None:
    vim(save, "no")


def vim_in_place(save: Save) -> None:
    vim(save, "yes")


def emacs(save: Save, copying: str) -> None:
    replacements = " ".join(
        f'(goto-char (point-min)) (re-search-forward "^{key}: .*") (replace-match "{key}: {value}" t t)'
        for key, value in save.changes.items()
    )
    # That the file has changed since it was read is what a person is asked about, and says yes to.
    program = f"""(progn
        (setq create-lockfiles nil version-control 'never backup-by-copying {copying}
              backup-by-copying-when-privileged-mismatch nil
              backup-enable-predicate (lambda (_) t))
        (load "userlock" nil t) (fset 'ask-user-about-supersession-threat #'ignore)
        (fset 'yes-or-no-p (lambda (&rest _) t)) (fset 'y-or-n-p (lambda (&rest _) t))
        (find-file "{save.path.name}") {replacements} (save-buffer))"""
    _run(["emacs", "-Q", "--batch", "--eval", program], save.path.parent)


def emacs_by_moving_away(save: Save) -> None:
    emacs(save, "nil")


def emacs_in_place(save: Save) -> None:
    emacs(save, "t")


def git_checkout(save: Save) -> None:
    """What stands in the index replaces the file."""
    folder, name = save.path.parent, save.path.name
    if not (folder / ".git").exists():
        _run(["git", "init", "-q"], folder)
    blob = _run(["git", "hash-object", "-w", "--stdin"], folder, save.content()).decode().strip()
    _run(["git", "update-index", "--add", "--cacheinfo", f"100644,{blob},{name}"], folder)
    _run(["git", "checkout", "-q", "--", name], folder)


def nano(save: Save) -> None:
    """Typed on a terminal: replace by regular expressions, leave, save over whatever is there by now."""
    pid, terminal = pty.fork()
    if pid == 0:
        os.environ["TERM"] = "xterm"
        os.execvp("nano", ["nano", "--ignorercfiles", "--saveonexit", str(save.path)])
    try:
        until = time.monotonic() + PATIENCE
        _await_screen(terminal, until, b"\\^X|Exit|Read|Search")
        expressions = [(b"\x1br", rb"\[Regexp\]")]  # Alt-R; from then on it stays so
        for key, value in save.changes.items():
            for keys, answer in [
                (b"\x1c", rb"Search"),  # Ctrl-\, replace
                *expressions,
                (f"^{key}: .*\r".encode(), rb"Replace with"),
                (f"{key}: {value}\r".encode(), rb"this instance"),
                (b"A", rb"Replaced"),
            ]:
                os.write(terminal, keys)
                _await_screen(terminal, until, answer)
            expressions = []
        os.write(terminal, b"\x18")
        while _await_screen(terminal, until, rb"modified"):
            os.write(terminal, b"y")  # since it was opened; save all the same?
    except EOFError:
        pass  # it has ended
    except BaseException:
        os.kill(pid, signal.SIGKILL)
        raise
    finally:
        os.close(terminal)
        os.waitpid(pid, 0)


def _await_screen(terminal: int, until: float, wanted: bytes) -> bytes:
    """Read until *wanted* was shown. Raises EOFError at the end of the program, TimeoutError."""
    seen = b""
    while not re.search(wanted, seen):
        if not select.select([terminal], [], [], max(0, until - time.monotonic()))[0]:
            raise TimeoutError(f"the editor does not show {wanted!r}, but {seen[-500:]!r}")
        try:
            part = os.read(terminal, 65536)
        except OSError:
            part = b""
        if not part:
            raise EOFError
        seen += part
    return seen


EDITORS = [
    Editor("rename", by_rename),
    Editor("rename with a backup", by_rename_with_a_backup),
    Editor("move away", by_moving_away),
    Editor("delete", by_deleting),
    Editor("in pieces", in_pieces, in_place=True),
    Editor("without truncation", without_truncation, in_place=True),
    Editor("sed", sed, takes_copy=False, program="sed"),
    Editor("vim, backupcopy=no", vim_by_rename, takes_copy=False, program="vim"),
    Editor("vim, backupcopy=yes", vim_in_place, in_place=True, takes_copy=False, program="vim"),
    Editor("emacs, moving away", emacs_by_moving_away, takes_copy=False, program="emacs"),
    Editor("emacs, copying", emacs_in_place, in_place=True, takes_copy=False, program="emacs"),
    Editor("nano", nano, in_place=True, takes_copy=False, program="nano"),
    Editor("git checkout", git_checkout, program="git"),
]
