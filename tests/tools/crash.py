"""What the tests of crashes, damage and round trips share: stock readers, a plain replay, dying and failing systems.

Nothing here uses the package to say what a file means: `replayed` reads a stream with a stock YAML loader and carries
the operations out on plain containers.
"""

from __future__ import annotations

import errno
import functools
import os
import pickle
import struct
import traceback
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import yaml
from ruamel.yaml import YAML

from pstate import PersistedState
from tools.disks import Seam

State = dict[Any, Any]

KILLED = 9  #: exit code of a child that the file system double has killed

# ------------------------------------------------------------------ reading as a stranger


def play(state: Any, operations: Iterable[Any]) -> Any:
    """Carry the operations of one record out on a plain tree, as docs/format.md tells a stranger to."""
    for name, path, *rest in operations:
        node = state
        for key in path:
            node = node[key]
        match name, rest:
            case "set", [key, value]:
                node[key] = value
            case "delete", [key]:
                del node[key]
            case "insert", [index, value]:
                assert 0 <= index <= len(node)
                node.insert(index, value)
            case "splice", [start, stop, values]:
                assert 0 <= start <= stop <= len(node)
                node[start:stop] = values
            case "order", [permutation]:
                assert sorted(permutation) == list(range(len(node)))
                node[:] = [node[index] for index in permutation]
            case "add", [members]:
                node.update(members)
            case "discard", [members]:
                node.difference_update(members)
            case _:
                raise AssertionError(f"no operation: {name} {rest}")
    return state


def replay_documents(documents: list[Any]) -> State:
    state = documents[0] if documents else {}
    state = {} if state is None else state
    for operations in documents[1:]:
        if operations is not None:  # what follows the last marker of a comment-only line
            play(state, operations)
    return state


def by_c_loader(data: bytes) -> list[Any]:
    return list(yaml.load_all(data, getattr(yaml, "CSafeLoader", yaml.SafeLoader)))


def by_pure_loader(data: bytes) -> list[Any]:
    return list(yaml.load_all(data, yaml.SafeLoader))


def by_ruamel(data: bytes) -> list[Any]:
    return list(YAML(typ="safe", pure=True).load_all(data))


LOADERS = {"yaml C": by_c_loader, "yaml pure": by_pure_loader, "ruamel safe": by_ruamel}


def replayed(data: bytes, loader: Callable[[bytes], list[Any]] = by_c_loader) -> State:
    """The state that a stranger with a stock loader finds in the stream *data*, whose records are all whole."""
    return replay_documents(loader(data))


def plain_document(data: bytes) -> State:
    """The state of a closed file, by a stock loader; it must be one document, or none as a person may have left it."""
    documents = by_c_loader(data)
    assert len(documents) <= 1, data
    return replay_documents(documents)


def opened(data: bytes, folder: Path, name: str = "copy.yaml", **options: Any) -> State:
    """The state that pstate finds in a file with these bytes; the file itself is not kept."""
    path = folder / name
    path.write_bytes(data)
    try:
        state = PersistedState.open(path, **options)
        try:
            return state.snapshot()
        finally:
            state.close()
    finally:
        path.unlink(missing_ok=True)


def peek(path: Path, **options: Any) -> State:
    """The state at *path*, without a byte being written."""
    before = path.read_bytes()
    state = PersistedState.open(path, read_only=True, **options)
    try:
        return state.snapshot()
    finally:
        state.close()
        assert before == path.read_bytes(), "a read_only opener has written"


# ------------------------------------------------------------------ children that die


def in_child(function: Callable[[], object]) -> int:
    """Run *function* in a forked child that ends without any clean-up; returns its exit code, 0 when it did it all."""
    pid = os.fork()
    if pid == 0:
        try:
            function()
        except BaseException:
            traceback.print_exc()
            os._exit(70)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


class Crashing:
    """A child that, for each task, forks a grandchild that does it and dies by `os._exit`.

    The fork of a small process is cheaper than that of one which has collected a whole test suite.
    """

    def __init__(self, task: Callable[[Any], object]) -> None:
        mine, self._tasks = os.pipe()
        self._answers, answer = os.pipe()
        self._pid = os.fork()
        if self._pid == 0:
            os.close(self._tasks)
            while (argument := _receive(mine)) is not None:
                code = in_child(functools.partial(task, pickle.loads(argument)))
                os.write(answer, bytes([code & 255]))
            os._exit(0)
        os.close(mine)
        os.close(answer)

    def __call__(self, argument: Any) -> None:
        data = pickle.dumps(argument)
        data = struct.pack("<I", len(data)) + data
        while data:
            data = data[os.write(self._tasks, data) :]
        assert os.read(self._answers, 1) == b"\0", "the child failed, see its traceback"

    def close(self) -> None:
        os.close(self._tasks)
        os.waitpid(self._pid, 0)
        os.close(self._answers)


def _receive(fd: int) -> bytes | None:
    header = _exactly(fd, 4)
    return _exactly(fd, struct.unpack("<I", header)[0]) if header else None


def _exactly(fd: int, length: int) -> bytes:
    data = b""
    while len(data) < length:
        part = os.read(fd, length - len(data))
        if not part:
            return b""
        data += part
    return data


# ------------------------------------------------------------------ systems that die or fail

NEED_ROOM = ("write", "open", "sync", "copy_attributes", "rename", "rename_new")


class Dying(Seam):
    """The process dies in call *number*, before it has any effect; with *tear*, in the middle of write *number*.

    It says over *report* what it has called.
    """

    def __init__(self, number: int, tear: bool, report: int) -> None:
        super().__init__()
        self.number = number
        self.tear = tear
        self.report = report

    def act(self, number: int, name: str, real: Callable[..., Any], args: tuple[Any, ...]) -> Any:
        if self.tear:
            if name == "write" and self.calls.count("write") == self.number + 1:
                real(args[0], args[1][: len(args[1]) // 2])
                self.die()
        elif number == self.number:
            self.die()
        return real(*args)

    def die(self) -> None:
        os.write(self.report, " ".join(self.calls).encode())
        os._exit(KILLED)


class FailingAt(Seam):
    """Call *number* fails with *error* if it is one that can; with *lasting*, so does every later one.

    `lseek` does not fail on a file that is open. A write is half done before it fails, as on a disk that runs full.
    """

    def __init__(self, number: int, error: int = errno.EIO, lasting: bool = False) -> None:
        super().__init__()
        self.number = number
        self.error = error
        self.lasting = lasting
        self.failed = ""  #: the name of the call that failed first

    def act(self, number: int, name: str, real: Callable[..., Any], args: tuple[Any, ...]) -> Any:
        if name in ("lseek", "flock") or (self.error == errno.ENOSPC and name not in NEED_ROOM):
            return real(*args)
        if number == self.number or (self.lasting and self.failed):
            self.failed = self.failed or name
            if name == "write" and number == self.number and len(args[1]) > 1:
                self.number += 1  # the rest of the write is what fails
                return real(args[0], args[1][: len(args[1]) // 2])
            if name == "close":
                real(*args)  # the descriptor is gone, whatever close says
            raise OSError(self.error, os.strerror(self.error))
        return real(*args)
