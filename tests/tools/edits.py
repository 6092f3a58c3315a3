"""What the tests of hand edits need: editors (ways to save a file), and live processes that are driven over pipes.

A `Peer` is an `Other` for such tests. Its looks at the path are not throttled, so nothing here waits for a clock.
"""

from __future__ import annotations

import gc
import logging
import os
import pickle
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import yaml

import pstate
from pstate.file import limits
from stress.real.workers import Link
from tools.processes import Other, Pool

Save = Callable[[Path, bytes], None]

# ---------------------------------------------------------------------- editors


def save_by_rename(path: Path, content: bytes) -> None:
    """`sed -i`, and most editors: write a file beside it, rename it over."""
    beside = path.with_name(path.name + ".sed")
    beside.write_bytes(content)
    beside.replace(path)


def save_by_rename_keeping_a_link(path: Path, content: bytes) -> None:
    """emacs and others: the old file stays under a backup's name, and is the same inode."""
    backup = path.with_name(path.name + "~")
    backup.unlink(missing_ok=True)
    os.link(path, backup)
    save_by_rename(path, content)


def save_by_moving_away(path: Path, content: bytes) -> None:
    """vim: rename the old file to the backup, so that the path is missing for a moment, then write a new one."""
    path.replace(path.with_name(path.name + "~"))
    path.write_bytes(content)


def save_by_deleting(path: Path, content: bytes) -> None:
    """git checkout and simple tools: unlink, then write a new file."""
    path.unlink()
    path.write_bytes(content)


def save_in_place(path: Path, content: bytes) -> None:
    """nano, `cat >`, every `open(path, "w")`: truncate, write."""
    path.write_bytes(content)


def save_in_place_without_truncation(path: Path, content: bytes) -> None:
    """`dd conv=notrunc` and hex editors: write over it, then cut what is too long."""
    with path.open("r+b") as file:
        file.write(content)
        file.truncate()


SAVES: list[Save] = [
    save_by_rename,
    save_by_rename_keeping_a_link,
    save_by_moving_away,
    save_by_deleting,
    save_in_place,
    save_in_place_without_truncation,
]


def in_place_in_pieces(path: Path, *pieces: bytes) -> Iterator[None]:
    """An editor that is slow: one descriptor, truncated, then one `write` per step."""
    fd = os.open(path, os.O_WRONLY | os.O_TRUNC)
    try:
        yield
        for piece in pieces:
            os.write(fd, piece)
            yield
    finally:
        os.close(fd)


# ---------------------------------------------------------------------- live processes


class _Lines(logging.Handler):
    """What pstate has logged in a peer."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[tuple[str, str]] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append((record.levelname, record.getMessage()))


_heard = _Lines()


def _in_a_hurry(link: Link) -> dict[str, Any]:
    """The names of a peer, which looks at the path at every call, and keeps what pstate logs."""
    limits.LOOK_INTERVAL = limits.CHECK_INTERVAL = limits.QUIET = 0.0
    limits.CHECK_COST = 0
    limits.MISSING = 0.02
    limits.STALE_COPY = 600.0
    logging.getLogger("pstate").addHandler(_heard)
    logging.getLogger("pstate").setLevel(logging.DEBUG)
    _heard.lines.clear()
    return {
        "__name__": "__main__",
        "gc": gc,
        "os": os,
        "pickle": pickle,
        "sys": sys,
        "pstate": pstate,
        "PersistedState": pstate.PersistedState,
        "limits": limits,
        "lines": _heard.lines,
    }


class Peer(Other):
    """A process for the tests of edits. `state` is what it has open."""

    def __init__(self) -> None:
        super().__init__(_in_a_hurry)

    def open(self, path: Path, options: str = "") -> None:
        self.run(f"state = PersistedState.open({str(path)!r}, {options})")

    def snapshot(self) -> Any:
        return self.ask("state.snapshot()")

    def log(self, level: str = "") -> list[str]:
        """What pstate has logged there since the start of the test."""
        return [message for name, message in self.ask("lines") if not level or name == level]


class World:
    """One state file, the processes that have it open, and what must hold at the end of every test."""

    def __init__(self, path: Path, pool: Pool) -> None:
        self.path = path
        self._pool = pool
        self.peers: list[Peer] = []

    def write(self, text: str | bytes) -> None:
        """The file as it is before anybody opens it."""
        self.path.write_bytes(text if isinstance(text, bytes) else text.encode())

    def peer(self, options: str = "") -> Peer:
        """One more process with the state open."""
        peer = self.closed_peer()
        peer.open(self.path, options)
        return peer

    def closed_peer(self) -> Peer:
        """One more process; it has not opened the state yet."""
        peer = self._pool.take()
        self.peers.append(peer)
        return peer

    def crash(self, *source: str) -> None:
        """A process opens the state, runs *source*, and is killed."""
        peer = self.peer()
        for line in source:
            peer.run(line)
        self.kill(peer)

    def kill(self, peer: Peer) -> None:
        peer.kill()
        self.peers.remove(peer)
        self._pool.give_back(peer)

    @property
    def content(self) -> bytes:
        return self.path.read_bytes()

    @property
    def listing(self) -> dict[str, bytes]:
        """Every file in the folder with its content."""
        return {entry.name: entry.read_bytes() for entry in self.path.parent.iterdir() if entry.is_file()}

    def conflicts(self) -> list[Path]:
        return sorted(self.path.parent.glob(self.path.name + ".conflict-*"))

    def all_agree(self) -> Any:
        """The state, which all live processes and a newly opened one see alike."""
        snapshots = [peer.snapshot() for peer in self.peers]
        late = self._pool.take()
        try:
            late.open(self.path, "read_only=True")
            snapshots.append(late.snapshot())
            late.run("state.close(); del state")
        finally:
            self._pool.give_back(late)
        assert all(snapshot == snapshots[0] for snapshot in snapshots), snapshots
        return snapshots[0]

    def go_on(self) -> Any:
        """Every process commits once more and sees all the others' commits; returns the state without these."""
        before = self.all_agree()
        marks = {}
        for number, peer in enumerate(self.peers):
            if peer.ask("state._store.log.read_only"):
                continue
            peer.run(f"state.went_on_{number} = {number}")
            marks[f"went_on_{number}"] = number
        assert self.all_agree() == {**before, **marks}
        for peer in self.peers:
            for name in list(marks):
                if not peer.ask("state._store.log.read_only"):
                    peer.run(f"del state.{name}")
                    del marks[name]
        assert self.all_agree() == before
        return before

    def finish(self) -> Any:
        """Everybody goes on, then closes: one plain YAML document, and no file of ours beside it."""
        writers = [peer for peer in self.peers if not peer.ask("state._store.log.read_only")]
        state = self.go_on()
        for peer in self.peers:
            peer.run("state.close()")
        if writers:
            documents = list(yaml.safe_load_all(self.content))
            assert [state] == documents
            assert b"... #" not in self.content
        ours = [name for name in self.listing if name.startswith(".") or ".cut-" in name]
        assert ours == []
        self.release()
        return state

    def release(self) -> None:
        """Back to the pool, with nothing open; called twice when the test has failed."""
        peers, self.peers = self.peers, []
        for peer in peers:
            if peer.waiting:
                peer.kill()
            elif peer.is_alive():
                peer.forget()
            self._pool.give_back(peer)
