"""Makes a folder for servers of tests, and ends both when the process that asked for it is over, even by kill -9.

``python -I keeper.py USER`` prints the folder. The servers may run as USER. The end is when the standard input ends, or
when the parent does: a child of the parent may have inherited the other end of the pipe.

It is a process and a session of its own, and imports nothing of the project.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import pwd
import select
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

#: How long servers may take to end, in seconds, before they are killed.
PATIENCE = 10.0


def main(user: str) -> None:
    """Make the folder, wait for the end, and remove all."""
    parent = os.getppid()
    folder = Path(tempfile.mkdtemp(prefix="pstate-postgres-"))
    try:
        if os.getuid() == 0:
            os.chown(folder, pwd.getpwnam(user).pw_uid, -1)
        with contextlib.suppress(BrokenPipeError):
            print(folder, flush=True)
            wait(parent)
    finally:
        remove(folder)


def wait(parent: int) -> None:
    """Return when nobody needs the servers any more."""
    ends: list[int] = [0]
    with contextlib.suppress(OSError):  # a kernel without pidfds: then the pipe tells
        ends.append(os.pidfd_open(parent))
    if os.getppid() == parent:
        select.select(ends, [], [])


def remove(folder: Path) -> None:
    """End the processes that use *folder*, and remove it with the memory that they shared."""
    give_up = time.monotonic() + PATIENCE
    segments = list(shared_memory(folder))
    asked: set[int] = set()
    while left := list(processes(folder)):
        is_late = time.monotonic() > give_up
        for pid in left:
            # For a server, SIGQUIT is an end at once; its children know that as well.
            if is_late or pid not in asked:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL if is_late else signal.SIGQUIT)
        asked.update(left)
        select.select([], [], [], 0.02)
    for key, number in segments:
        release(key, number)
    shutil.rmtree(folder)


def processes(folder: Path) -> Iterator[int]:
    """The processes that work in *folder*, or were started with a path in it."""
    inside = f"{folder}/"
    for each in Path("/proc").iterdir():
        if each.name.isdecimal() and int(each.name) != os.getpid():
            with contextlib.suppress(OSError):  # it is over, or somebody else's
                words = (each / "cmdline").read_bytes().split(b"\0")
                if any(
                    word.startswith(inside.encode()) for word in words
                ) or f"{(each / 'cwd').readlink()}/".startswith(inside):
                    yield int(each.name)


def shared_memory(folder: Path) -> Iterator[tuple[int, int]]:
    """The key and the number of the shared memory of each server: a server that is killed leaves it in the system."""
    for path in folder.glob("**/postmaster.pid"):
        with contextlib.suppress(OSError, ValueError, IndexError):
            key, number = path.read_text().splitlines()[6].split()
            yield int(key), int(number)


def release(key: int, number: int) -> None:
    """Remove the shared memory *number*, if it still has *key*, and nobody uses it."""
    for line in Path("/proc/sysvipc/shm").read_text().splitlines()[1:]:
        found = line.split()
        if (int(found[0]), int(found[1])) == (key, number) and found[6] == "0":
            remove_segment: Callable[..., int] = ctypes.CDLL(None).shmctl
            remove_segment(number, 0, None)


if __name__ == "__main__":
    main(sys.argv[1])
