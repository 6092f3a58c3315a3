"""`pstate who` and `pstate vacuum`: which processes use a file, and how it becomes one plain document again."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any, NamedTuple

from pstate.cli import session, show
from pstate.cli.command import Command, Parser, declare_file, declare_json, declare_writing
from pstate.cli.mending import presence
from pstate.cli.urls import Url
from pstate.file import vacuum
from pstate.file.holder import holder, program
from pstate.signals import expected, tolerating


class User(NamedTuple):
    """A process that has the file open."""

    pid: int
    program: str
    holds: bool  #: the write lock
    writes: bool  #: it could
    is_behind: bool  #: it has a replaced file open, and opens the new one when it next looks


def users_of(path: str) -> list[User]:
    """The processes that have the file at *path* open, as /proc says, which shows those of other people only to root.

    Empty on a system without /proc.
    """
    try:
        status = os.stat(path)
        pids = sorted(int(name) for name in os.listdir("/proc") if name.isdigit())
    except expected(OSError):
        return []
    holders = {holder(path), holder(path + ".lock")}
    found = []
    for pid in pids:
        if pid == os.getpid():
            continue
        opened = list(_descriptors(pid, path, status))
        if opened:
            is_behind = all(replaced for replaced, _ in opened)
            writes = any(may_write for _, may_write in opened)
            found.append(User(pid, program(pid) or "?", pid in holders, writes, is_behind))
    return found


def _descriptors(pid: int, path: str, status: os.stat_result) -> Iterator[tuple[bool, bool]]:
    """For each descriptor of *pid* for the file: whether that was replaced, and whether the descriptor can write."""
    folder = f"/proc/{pid}/fd"
    with tolerating(OSError):
        for name in os.listdir(folder):
            with tolerating(OSError):  # closed meanwhile
                # By name too: a vacuum may have put another file at the path since *status* was read.
                known = os.readlink(f"{folder}/{name}")
                is_behind = _was_replaced(known, path)
                if is_behind or known == path or os.path.samestat(os.stat(f"{folder}/{name}"), status):
                    yield is_behind, _may_write(f"/proc/{pid}/fdinfo/{name}")


def _was_replaced(known: str, path: str) -> bool:
    """Whether a descriptor with the name *known* is of a file that is no longer at *path*.

    A vacuum replaced it, or an editor, which renamed its new file to the path, or the old one away.
    """
    name = known.removesuffix(" (deleted)")
    return name != known and (name in (path, path + "~") or vacuum.is_temporary(name, path, "swap"))


def _may_write(info: str) -> bool:
    with open(info, encoding="ascii") as lines:
        for line in lines:
            if line.startswith("flags:"):
                return bool(int(line.split()[1], 8) & (os.O_WRONLY | os.O_RDWR))
    return False


def _declare_who(parser: Parser) -> None:
    declare_file(parser)
    declare_json(parser)


def _who(arguments: Any) -> int:
    if isinstance(arguments.file, Url):
        from pstate.cli.servers import present

        return present.who(arguments.file, arguments.json)
    presence.must_exist(arguments.file)
    users = users_of(os.path.realpath(arguments.file))
    if arguments.json:
        show.write("".join(show.json_text(user._asdict()) + "\n" for user in users))
    elif users:
        rows = [[str(user.pid), _role(user), user.program] for user in users]
        show.table(["PID", "HAS IT OPEN", "PROGRAM"], rows)
    return 0 if users else 1


def _role(user: User) -> str:
    role = "to write" if user.writes else "to read"
    if user.holds:
        role += ", holds the lock"
    return role + (", not yet the new file" if user.is_behind else "")


def _declare_vacuum(parser: Parser) -> None:
    declare_file(parser)
    declare_writing(parser)


def _vacuum(arguments: Any) -> int:
    with session.opened(arguments, create=False) as state:
        state.vacuum()
    return 0


COMMANDS = {
    "who": Command(
        "who",
        "show which programs use a file",
        "Print the processes that have FILE open, and which of them holds the write lock, as /proc shows them.\n"
        "Only root sees the processes of other users. Exit code 1 if none is found.",
        "$ pstate who state.yaml || echo nobody\nnobody",
        _declare_who,
        _who,
    ),
    "vacuum": Command(
        "vacuum",
        "make a file one plain document",
        "Rewrite FILE as one plain document, without its journal. Programs that have it open continue with the new\n"
        "file. Comments, and the layout of what a person wrote, are kept.",
        "$ pstate vacuum journal.yaml\n$ cat journal.yaml\ncounter: 4\nkey:\n  nested: 3\nlog:\n  - both, or neither",
        _declare_vacuum,
        _vacuum,
    ),
}
