"""The system calls of a real run that touch one folder, as a list of events: read from strace, or noted by a seam.

strace sees what the kernel was asked for, whatever the program thinks that it does; the seam is for systems without it.
Both number the files in the order in which they were created, so that a name may pass from one to another.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field
from pathlib import Path

from pstate.file.fs import FileSystem

#: What is asked of strace. What could change a file in the folder and is not understood below is an error there.
CALLS = (
    "open", "openat", "creat", "close", "dup", "dup2", "dup3", "fcntl", "write", "pwrite64", "writev", "pwritev",
    "ftruncate", "truncate", "fallocate", "rename", "renameat", "renameat2", "link", "linkat", "symlink", "symlinkat",
    "unlink", "unlinkat", "fsync", "fdatasync", "sync_file_range",
)  # fmt: skip

_LINE = re.compile(r"(\w+)\((.*)\) += (-?\d+)(?: .*)?")
_TEXT = re.compile(r'"((?:\\x[0-9a-f]{2})*)"(\.\.\.)?')


@dataclass(frozen=True)
class Event:
    """One call that succeeded.

    ============  =====================================================================
    create        *name*, *file*
    write         *file*, *data* at the offset *size*
    truncate      *file* to *size*
    sync          *file*
    sync folder
    rename        *name* to *other*, whatever that was
    exchange      *name* and *other*
    unlink        *name*
    say           *data*: what the program tells us, in the order of its calls
    ============  =====================================================================
    """

    kind: str
    file: int = -1
    name: str = ""
    other: str = ""
    size: int = 0
    data: bytes = b""


@dataclass
class Recorder:
    """Turns calls on descriptors and paths into events on numbered files."""

    folder: str
    events: list[Event] = field(default_factory=list)
    _names: dict[str, int] = field(default_factory=dict)
    _sizes: dict[int, int] = field(default_factory=dict)
    _descriptors: dict[int, int] = field(default_factory=dict)

    def begin_with(self, name: str, size: int) -> None:
        """The folder has the file number 0 from the beginning."""
        self._names[name] = 0
        self._sizes[0] = size

    def name(self, path: str) -> str:
        """The name in our folder that *path* is; "" for others."""
        head, tail = os.path.split(path)
        return tail if head == self.folder else ""

    def open(self, path: str, flags: int, fd: int) -> None:
        self._descriptors.pop(fd, None)
        if path == self.folder:
            self._descriptors[fd] = -1
        elif path == os.devnull:
            self._descriptors[fd] = -2
        elif name := self.name(path):
            if flags & os.O_TRUNC or (flags & os.O_CREAT and not flags & os.O_EXCL):
                raise NotImplementedError(f"{name} was opened with flags {flags:#o}")
            if flags & os.O_CREAT:
                file = len(self._sizes)
                self._names[name] = file
                self._sizes[file] = 0
                self.events.append(Event("create", file, name))
            if flags & os.O_ACCMODE != os.O_RDONLY and not flags & (os.O_APPEND | os.O_EXCL):
                raise NotImplementedError(f"{name} was opened for writing, not for appending")
            self._descriptors[fd] = self._names[name]

    def close(self, fd: int) -> None:
        self._descriptors.pop(fd, None)

    def write(self, fd: int, data: bytes) -> None:
        file = self._descriptors.get(fd)
        if file == -2:
            self.events.append(Event("say", data=data))
        elif file is not None:
            self.events.append(Event("write", file, size=self._sizes[file], data=data))
            self._sizes[file] += len(data)

    def truncate(self, fd: int, size: int) -> None:
        file = self._descriptors.get(fd)
        if file is not None:
            self.events.append(Event("truncate", file, size=size))
            self._sizes[file] = size

    def sync(self, fd: int) -> None:
        file = self._descriptors.get(fd)
        if file == -1:
            self.events.append(Event("sync folder"))
        elif file is not None:
            self.events.append(Event("sync", file))

    def rename(self, first: str, second: str, exchange: bool = False) -> None:
        one, two = self.name(first), self.name(second)
        if not one and not two:
            return
        if exchange:
            self._names[one], self._names[two] = self._names[two], self._names[one]
        else:
            self._names[two] = self._names.pop(one)
        self.events.append(Event("exchange" if exchange else "rename", name=one, other=two))

    def unlink(self, path: str) -> None:
        if name := self.name(path):
            del self._names[name]
            self.events.append(Event("unlink", name=name))


# ---------------------------------------------------------------------- strace


def read_strace(text: str, recorder: Recorder) -> None:
    """Note what a `strace -xx` of one process, with *CALLS*, says."""
    for line in text.splitlines():
        found = _LINE.fullmatch(line)
        if found is None or int(found[3]) < 0:
            continue
        call, arguments, result = found[1], found[2], int(found[3])
        texts: list[bytes] = []

        def take(match: re.Match[str], texts: list[bytes] = texts) -> str:
            if match[2]:
                raise ValueError("strace has shortened a string")
            texts.append(bytes.fromhex(match[1].replace("\\x", "")))
            return f"TEXT{len(texts) - 1}"

        words = [word.strip() for word in _TEXT.sub(take, arguments).split(",")]
        _note(recorder, call, words, texts, result)


def _note(recorder: Recorder, call: str, words: list[str], texts: list[bytes], result: int) -> None:
    paths = [os.fsdecode(text) for text in texts]
    match call:
        case "openat":
            recorder.open(paths[0], _flags(words[2]), result)
        case "close":
            recorder.close(int(words[0]))
        case "write":
            recorder.write(int(words[0]), texts[0][:result] if texts else b"")
        case "ftruncate":
            recorder.truncate(int(words[0]), int(words[1]))
        case "fsync" | "fdatasync":
            recorder.sync(int(words[0]))
        case "rename" | "renameat" | "renameat2":
            recorder.rename(paths[0], paths[1], exchange="RENAME_EXCHANGE" in words[-1])
        case "unlink" | "unlinkat":
            recorder.unlink(paths[0])
        case "fcntl":
            if "DUPFD" in words[1] and int(words[0]) in recorder._descriptors:
                raise NotImplementedError(f"{call}({words})")
        case _:
            ours = any(recorder.name(path) for path in paths)
            if ours or (words[0].isdigit() and int(words[0]) in recorder._descriptors):
                raise NotImplementedError(f"{call}({words})")


def _flags(text: str) -> int:
    return sum({getattr(os, name) for name in text.split("|") if hasattr(os, name)})


# ---------------------------------------------------------------------- the seam


class Recording(FileSystem):
    """The real system; what it did is noted."""

    def __init__(self, recorder: Recorder) -> None:
        super().__init__()
        self.recorder = recorder
        self.open = self._open
        self.close = self._close
        self.write = self._write
        self.truncate = self._truncate
        self.sync = self._sync
        self.sync_data = self._sync_data
        self.rename = self._rename
        self.unlink = self._unlink

    def _open(self, path: str, flags: int, mode: int = 0) -> int:
        fd = os.open(path, flags, mode)
        self.recorder.open(path, flags, fd)
        return fd

    def _close(self, fd: int) -> None:
        os.close(fd)
        self.recorder.close(fd)

    def _write(self, fd: int, data: bytes) -> int:
        written = os.write(fd, data)
        self.recorder.write(fd, data[:written])
        return written

    def _truncate(self, fd: int, size: int) -> None:
        os.ftruncate(fd, size)
        self.recorder.truncate(fd, size)

    def _sync(self, fd: int) -> None:
        os.fsync(fd)
        self.recorder.sync(fd)

    def _sync_data(self, fd: int) -> None:
        getattr(os, "fdatasync", os.fsync)(fd)
        self.recorder.sync(fd)

    def _rename(self, first: str, second: str) -> None:
        os.replace(first, second)
        self.recorder.rename(first, second)

    def _unlink(self, path: str) -> None:
        os.unlink(path)
        self.recorder.unlink(path)

    def exchange(self, first: str, second: str) -> None:
        super().exchange(first, second)
        self.recorder.rename(first, second, exchange=True)

    def rename_new(self, source: str, target: str) -> None:
        super().rename_new(source, target)
        self.recorder.rename(source, target)

    def sync_folder(self, path: str) -> None:
        super().sync_folder(path)
        if path == self.recorder.folder:
            self.recorder.events.append(Event("sync folder"))


def strace_command(output: Path) -> list[str]:
    """How to run a program so that `read_strace` can read *output*."""
    trace = ",".join(f"?{call}" for call in CALLS)  # not every machine has them all
    return ["strace", "-qq", "-xx", "-s", "16777216", "-e", "signal=none", "-e", f"trace={trace}", "-o", str(output)]


def noted(text: bytes) -> tuple[str, int]:
    """What a program has said: a word and a number."""
    word, number = text.split()
    return word.decode(), int(number)
