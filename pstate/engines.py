"""Chooses the engine of an address. Except for the modules in `file`, only this one knows an engine."""

from __future__ import annotations

from typing import NamedTuple

from pstate.engine import Engine, Log, Memory
from pstate.file.fs import SYSTEM, FileSystem
from pstate.file.journal import close_inherited
from pstate.file.log import FileLog

__all__ = ["FILES", "Files", "FileSystem", "engine_of", "is_url"]

#: Modules of engines that are imported when they are needed first.
IMPORTED_LATE = (
    "ctypes", "fcntl", "pstate.file.edits", "pstate.file.holder", "pstate.file.legacy", "pstate.file.lock_objects",
    "pwd", "struct",
)  # fmt: skip


class Files(NamedTuple):
    """States in files, seen through *fs*."""

    fs: FileSystem

    def log(
        self,
        address: str,
        memory: Memory,
        *,
        settles: bool,
        lock_timeout: float | None,
        locking: object,
        read_only: bool,
        fresh: float = 0.0,
    ) -> Log:
        """See `engine.Engine.log`. A file is always as new as can be, which costs a read next to nothing."""
        return FileLog(
            address,
            memory,
            self.fs,
            settles=settles,
            lock_timeout=lock_timeout,
            locking=locking,
            read_only=read_only,
        )

    @property
    def key(self) -> int:
        """See `engine.Engine.key`."""
        return id(self.fs)

    def name(self, address: str) -> str:
        """The path without links."""
        return self.fs.real_path(address)

    def close_inherited(self) -> None:
        """See `engine.Engine.close_inherited`."""
        close_inherited()


#: States in files of the operating system.
FILES = Files(SYSTEM)


def is_url(address: str) -> bool:
    """Whether *address* is a state on a server, and not a path."""
    return address.startswith(("postgresql://", "postgres://"))


def engine_of(address: str, fs: FileSystem | None = None) -> Engine:
    """The engine for *address*, a path or a URL; *fs* is another operating system, for tests.

    A test that needs another engine passes it to `store.Store`, or to `store.shared`. Raises ImportError if the library
    for a server is not installed.
    """
    if is_url(address):
        from pstate.rows.servers import SERVERS

        return SERVERS
    return FILES if fs is None or fs is SYSTEM else Files(fs)
