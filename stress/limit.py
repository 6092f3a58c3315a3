"""The end of a run: a check that does not stop when its time is over is stopped, whatever it waits for.

Checks stop by themselves (`Trial.goes_on`). Where one does not, `limited` raises in it. Where that does not help,
because it is deep in C code or has blocked all signals, a process of its own kills the whole run (`Watchdog`). This
file is also its program.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from types import FrameType
from typing import Self

#: What is raised once may be swallowed, and what cleans up needs some time: it is raised again after so many seconds.
AGAIN = 3.0

#: Nothing else uses it. pytest's plugin for timeouts and some checks have SIGALRM.
_SIGNAL = signal.SIGXCPU

#: The number of the process that all orphans get for a parent.
_FIRST = 1


class OutOfTime(BaseException):
    """The check has not stopped. No `except Exception` in it catches this."""


@contextlib.contextmanager
def limited(seconds: float) -> Iterator[None]:
    """Raise OutOfTime in the block, wherever it is, when *seconds* have passed. Only the main thread can be stopped."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    main = threading.get_ident()
    is_over = threading.Event()

    def stop(number: int, frame: FrameType | None) -> None:
        if not is_over.is_set():
            raise OutOfTime

    def wait() -> None:
        pause = seconds
        while not is_over.wait(pause):
            signal.pthread_kill(main, _SIGNAL)
            pause = AGAIN

    before = signal.signal(_SIGNAL, stop)
    thread = threading.Thread(target=wait, name="the limit of a check", daemon=True)
    thread.start()
    try:
        yield
    finally:
        is_over.set()
        thread.join()
        signal.signal(_SIGNAL, before)


def process_start() -> float:
    """When this process has begun, by the monotonic clock: on a busy machine, the imports alone may take seconds."""
    try:
        with open("/proc/self/stat", "rb") as file:
            ticks = int(file.read().rpartition(b")")[2].split()[19])
    except OSError:
        return time.monotonic()
    age = time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / os.sysconf("SC_CLK_TCK")
    return time.monotonic() - max(0.0, age)


class Watchdog:
    """A process that kills this one and all its descendants at *until*, by the monotonic clock, unless the block has
    ended."""

    def __init__(self, until: float) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-I", "-S", __file__, str(os.getpid()), str(until)],
            stdin=subprocess.PIPE,
            start_new_session=True,  # Ctrl-C is not for it
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()

    @property
    def pid(self) -> int:
        return self._process.pid

    def tell(self, name: str) -> None:
        """The check *name* begins: what to say if it is the last."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{name}\n".encode())
        self._process.stdin.flush()


def helpers() -> set[int]:
    """The processes that `multiprocessing` has begun for itself, and wants to find again."""
    from multiprocessing import forkserver, resource_tracker

    tracker, server = resource_tracker._resource_tracker, forkserver._forkserver
    found = (getattr(tracker, "_pid", None), getattr(server, "_forkserver_pid", None))
    return {pid for pid in found if pid is not None}


def descendants(pid: int) -> set[int]:
    """The processes that the process *pid* has begun, and those that they have begun.

    The first process of a system has nearly all, most of which it has not begun: of it, none.
    """
    if pid == _FIRST:
        return set()
    parents: dict[int, int] = {}
    for name in os.listdir("/proc") if os.path.isdir("/proc") else ():
        if name.isdigit():
            with contextlib.suppress(OSError):
                with open(f"/proc/{name}/stat", "rb") as file:
                    parents[int(name)] = int(file.read().rpartition(b")")[2].split()[1])
    found = [pid]
    for each in found:
        found += [child for child, parent in parents.items() if parent == each]
    return set(found[1:])


def kill(pids: set[int]) -> None:
    """End the processes *pids*, where they still live."""
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def _watch(run: int, until: float) -> None:
    """Kill the process *run*, which must have begun this one: nobody else's, should it have ended."""
    name = ""
    while (left := until - time.monotonic()) > 0:
        if select.select([0], [], [], left)[0]:
            told = os.read(0, 4096).decode()
            if not told:
                return
            name = told.split()[-1]
    if not name or run == _FIRST or os.getppid() != run:
        return
    print(f"\nThe check {name} could not be stopped: the whole run was killed.", file=sys.stderr, flush=True)
    kill({*(descendants(run) - {os.getpid()}), run})


if __name__ == "__main__":
    _watch(int(sys.argv[1]), float(sys.argv[2]))
