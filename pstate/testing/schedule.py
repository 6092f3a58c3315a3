"""Describes system calls for people: commits by their changes, other changes of files by name, reads not at all."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from pstate.file import format as f
from pstate.testing.system import SimulatedSystem
from pstate.text import reading
from pstate.values import place_text

#: Calls that change nothing on the disk, and are left out.
READS = frozenset(
    (
        "lseek", "pread", "stat", "fstat", "copy_attributes", "flock", "close", "sleep", "watch", "unwatch",
        "is_watched",
    )
)  # fmt: skip

#: A longer value is shown by its beginning.
LONGEST_VALUE = 60


@dataclass(frozen=True, slots=True)
class Call:
    """A system call that is about to be made."""

    name: str
    arguments: tuple[Any, ...]
    path: str  #: of its file; "" if that has no name
    there: bool  #: whether the file exists
    before: bytes  #: the content before a write

    @classmethod
    def of(cls, system: SimulatedSystem, name: str, arguments: tuple[Any, ...]) -> Call:
        first = arguments[0]
        description = system.descriptors.get(first) if isinstance(first, int) else None
        if description is None:
            path = first if isinstance(first, str) else ""
            return cls(name, arguments, path, path in system.disk.names, b"")
        inode = description.inode
        path = next((path for path, each in system.disk.names.items() if each is inode), "")
        return cls(name, arguments, path, True, inode.content if name == "write" else b"")

    @property
    def after(self) -> bytes:
        """The content after a write, because the store only appends."""
        return self.before + bytes(self.arguments[1])

    def commits(self) -> list[str]:
        """The bodies of the records that a write completes."""
        if self.name != "write":
            return []
        return f.scan(self.after).bodies[len(f.scan(self.before).bodies) :]

    def changes(self) -> bool:
        """Whether the call may change the disk."""
        if self.name == "open":
            return bool(self.arguments[1] & os.O_CREAT) and not self.there
        return self.name not in READS and (self.name != "unlink" or self.there)

    def told(self, commit: int) -> str:
        """The call in a few words. The next commit has the number *commit*."""
        bodies = self.commits()
        if bodies:
            return "; ".join(f"commit {commit + number}: {_changes(body)}" for number, body in enumerate(bodies))
        if not self.changes():
            return f"the next system call, {self.name}"
        name = os.path.basename(self.path)
        if self.name == "write":
            return f"write {name}, {len(self.arguments[1])} bytes"
        if self.name == "truncate":
            return f"cut {name} to {self.arguments[1]} bytes"
        if self.name in ("rename", "rename_new", "exchange"):
            second = os.path.basename(self.arguments[1])
            return f"exchange {name} and {second}" if self.name == "exchange" else f"rename {name} to {second}"
        return {"open": f"create {name}", "unlink": f"delete {name}", "sync_folder": "sync the folder"}.get(
            self.name, f"sync {name}"
        )


def told(calls: Iterable[Call], commit: int = 1) -> list[str]:
    """The *calls* that change the disk, one line each; *commit* is the number of their first commit."""
    lines = []
    for call in calls:
        if call.changes():
            lines.append(call.told(commit))
            commit += len(call.commits())
    return lines


def _changes(body: str) -> str:
    return "; ".join(_change(*operation) for operation in reading.decode_body(body, "", 0))


def _change(name: str, path: list[Any], *rest: Any) -> str:
    """An operation (see `ops`), as a program would write it."""
    place = place_text(path)
    match name:
        case "set":
            return f"{place_text([*path, rest[0]])} = {_short(rest[1])}"
        case "delete":
            return f"del {place_text([*path, rest[0]])}"
        case "insert":
            return f"{place}.insert({rest[0]}, {_short(rest[1])})"
        case "splice":
            return f"{place}[{rest[0]}:{rest[1]}] = {_short(rest[2])}"
        case "add":
            return f"{place} |= {_short(set(rest[0]))}"
        case "discard":
            return f"{place} -= {_short(set(rest[0]))}"
    return f"{place} in another order"


def _short(value: Any) -> str:
    text = _text(value)
    return text if len(text) <= LONGEST_VALUE else text[: LONGEST_VALUE - 1] + "…"


def _text(value: Any) -> str:
    """`repr`, with sets in the same order in every run."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key!r}: {_text(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_text, value)) + "]"
    if isinstance(value, set):
        return "{" + ", ".join(sorted(map(repr, value))) + "}" if value else "set()"
    return repr(value)
