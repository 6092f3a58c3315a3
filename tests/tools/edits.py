"""What the tests of hand edits need: editors (ways to save a file), and live processes that are driven over pipes.

A `Peer` is a real Python process that has the state open, born from a fork server, which has not. It is told what to
run as source text and answers with the value or with the exception itself, so a test reads like a schedule: this
process does this, then the editor saves, then that process does that. Its looks at the path are not throttled, so
nothing here waits for a clock.
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
from tools.processes import BIRTH
from pstate.file import limits

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


def _serve(pipe: Any) -> None:
    """What a peer does: run what it is told, and answer."""
    gc.freeze()  # what the fork server has loaded is no garbage
    os.dup2(2, 1)
    handler = _Lines()
    logging.getLogger("pstate").addHandler(handler)
    logging.getLogger("pstate").setLevel(logging.DEBUG)
    clean = {
        "__name__": "__main__",
        "gc": gc,
        "os": os,
        "pickle": pickle,
        "sys": sys,
        "pstate": pstate,
        "PersistedState": pstate.PersistedState,
        "limits": limits,
        "lines": handler.lines,
    }
    space: dict[str, Any] = {}
    while True:
        try:
            kind, source = pipe.recv()
        except EOFError:
            break
        answer: Any = None
        try:
            if kind == "reset":
                limits.LOOK_INTERVAL = limits.CHECK_INTERVAL = limits.QUIET = 0.0
                limits.CHECK_COST = 0
                limits.MISSING = 0.02
                limits.STALE_COPY = 600.0
                handler.lines.clear()
                space.clear()
                space.update(clean)
                gc.collect()
            elif kind == "get":
                answer = eval(source, space)
            else:
                exec(source, space)
            data = pickle.dumps((True, answer))
        except BaseException as error:
            error.__traceback__ = error.__context__ = error.__cause__ = None
            data = pickle.dumps((False, error))
        answer = None
        pipe.send_bytes(data)


class Peer:
    """One live process. `state` is what it has open."""

    def __init__(self) -> None:
        self.waiting = 0  #: answers that were not received yet
        self._pipe, theirs = BIRTH.Pipe()
        self.process: Any = BIRTH.Process(target=_serve, args=(theirs,), daemon=True)
        self.process.start()
        theirs.close()

    def send(self, kind: str, source: str) -> None:
        """Tell it to run *source* ("do" or "get") without waiting for the answer: `receive` that."""
        self._pipe.send((kind, source))
        self.waiting += 1

    def receive(self) -> Any:
        """The answer; the exception that the source raised is raised here."""
        good, answer = self._pipe.recv()
        self.waiting -= 1
        if not good:
            raise answer
        return answer

    def do(self, source: str) -> None:
        self.send("do", source)
        self.receive()

    def get(self, source: str) -> Any:
        self.send("get", source)
        return self.receive()

    def open(self, path: Path, options: str = "") -> None:
        self.do(f"state = PersistedState.open({str(path)!r}, {options})")

    def snapshot(self) -> Any:
        return self.get("state.snapshot()")

    def log(self, level: str = "") -> list[str]:
        """What pstate has logged there since the start of the test."""
        return [message for name, message in self.get("lines") if not level or name == level]

    def kill(self) -> None:
        """SIGKILL, and wait until it is gone."""
        self.process.kill()
        self.process.join()

    @property
    def alive(self) -> bool:
        return bool(self.process.is_alive())

    def end(self) -> None:
        self._pipe.close()
        self.process.join(10)


class Peers:
    """Live processes, used again by the next test, because starting one costs more than a test."""

    def __init__(self) -> None:
        self.idle: list[Peer] = []

    def take(self) -> Peer:
        peer = self.idle.pop() if self.idle else Peer()
        peer.send("reset", "")
        peer.receive()
        return peer

    def give_back(self, peer: Peer) -> None:
        if peer.alive:
            self.idle.append(peer)
        else:
            peer.end()

    def end(self) -> None:
        for peer in self.idle:
            peer.end()


class World:
    """One state file, the processes that have it open, and what must hold at the end of every test."""

    def __init__(self, path: Path, pool: Peers) -> None:
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
            peer.do(line)
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
            late.do("state.close(); del state")
        finally:
            self._pool.give_back(late)
        assert all(snapshot == snapshots[0] for snapshot in snapshots), snapshots
        return snapshots[0]

    def go_on(self) -> Any:
        """Every process commits once more and sees all the others' commits; returns the state without these."""
        before = self.all_agree()
        marks = {}
        for number, peer in enumerate(self.peers):
            if peer.get("state._store.log.read_only"):
                continue
            peer.do(f"state.went_on_{number} = {number}")
            marks[f"went_on_{number}"] = number
        assert self.all_agree() == {**before, **marks}
        for peer in self.peers:
            for name in list(marks):
                if not peer.get("state._store.log.read_only"):
                    peer.do(f"del state.{name}")
                    del marks[name]
        assert self.all_agree() == before
        return before

    def finish(self) -> Any:
        """Everybody goes on, then closes: one plain YAML document, and no file of ours beside it."""
        writers = [peer for peer in self.peers if not peer.get("state._store.log.read_only")]
        state = self.go_on()
        for peer in self.peers:
            peer.do("state.close()")
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
            elif peer.alive:
                peer.send("reset", "")
                peer.receive()
            self._pool.give_back(peer)
