"""Worker processes for the checks: born fast, heard over a pipe, never waited for without a limit, never left behind.

A `Worker` is a process of its own that runs a function of a module with a `Link` to us. What it tells has happened: a
message that arrived is the proof that what it did before is done, so no check waits for time to pass. A `Crew` holds
the workers of a round and kills what is left of them at its end, however it ends.

Workers are born from a fork server, which knows nothing of our states and threads. They ignore Ctrl-C, which the
terminal sends to all of us, and die when the fork server does, which dies with us: so nothing survives a killed run.

The tests drive their processes with the same `Worker` (`tests/tools/processes.py`).
"""

from __future__ import annotations

import contextlib
import ctypes
import faulthandler
import importlib.util
import multiprocessing
import os
import pickle
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from multiprocessing.connection import Connection, wait
from pathlib import Path
from types import TracebackType
from typing import Any, Concatenate, ParamSpec, Self

import yaml

from pstate import LockTimeout, PersistedState, store
from pstate.engines import is_url
from pstate.file import format as f
from pstate.file import limits
from stress.check import BrokenPromise, Trial, log_to

P = ParamSpec("P")

#: Where a state is: a path, or a URL as a string.
Address = Path | str

METHOD = "forkserver" if "forkserver" in multiprocessing.get_all_start_methods() else "spawn"
BIRTH: Any = multiprocessing.get_context(METHOD)
if METHOD == "forkserver":
    BIRTH.set_forkserver_preload(["pstate", "yaml", "ctypes", "json", "stress.real.workers"])

#: How long a process may take to answer, in seconds, before the check says which one did not.
PATIENCE = 30.0

#: A stock loader, the fastest that there is.
LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

_PR_SET_PDEATHSIG = 1  # linux/prctl.h


class Silence(BrokenPromise):
    """A process did not answer in time: something hangs."""


class Link:
    """What a worker has of us: where it tells what it has done, and hears what it shall do."""

    def __init__(self, pipe: Connection, name: str, folder: Path) -> None:
        self.pipe = pipe
        self._telling = threading.Lock()
        self.name = name
        self.folder = folder  #: the trial's, for evidence

    def tell(self, message: Any) -> None:
        """Any thread may. Waits while we do not listen, so do it outside transactions."""
        with self._telling:
            self.pipe.send(message)

    def hear(self) -> Any:
        """Wait for what we say. Raises EOFError when we are gone."""
        return self.pipe.recv()

    def is_called(self) -> bool:
        """Whether there is something to hear. A worker in a loop ends it then."""
        return self.pipe.poll(0)


class _Raised:
    """The last message of a worker whose function raised."""

    def __init__(self, error: BaseException) -> None:
        self.text = "".join(traceback.format_exception(error)).rstrip()
        self.promise = str(error) if isinstance(error, BrokenPromise) else ""


class Ended:
    """The last message of a worker whose function returned; with what it returned."""

    def __init__(self, result: Any) -> None:
        self.result = result


class Worker:
    """A process that runs ``function(link, *args)``. Made by `Crew.start`.

    Its log, and its stacks when it hangs, go into *folder*. Without one it logs nothing, and the stacks go to stderr.
    """

    def __init__(self, folder: Path | None, name: str, function: Callable[..., Any], args: tuple[Any, ...]) -> None:
        self.name = name
        self.pipe, theirs = BIRTH.Pipe()
        self.process: Any = BIRTH.Process(target=_work, args=(theirs, name, folder, function, args), daemon=True)
        with _uninterrupted():
            self.process.start()
        theirs.close()
        self.pid: int = self.process.pid
        self._folder = folder

    def __str__(self) -> str:
        return f"{self.name} (process {self.pid})"

    def tell(self, message: Any = None) -> None:
        """Say something; that it has died meanwhile is not an error here."""
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            self.pipe.send(message)

    def hear(self, limit: float = PATIENCE) -> Any:
        """The next thing that it tells; `Ended` after the last.

        Raises EOFError when it is dead, Silence when it says nothing for *limit* seconds, and BrokenPromise when it
        raised: no worker does so unless something is wrong.
        """
        if not self.pipe.poll(limit):
            raise Silence(self._silence(limit))
        try:
            message = self.pipe.recv()
        except (ConnectionResetError, OSError, pickle.UnpicklingError):
            raise EOFError from None  # killed in the middle of a message
        if isinstance(message, _Raised):
            raise BrokenPromise(f"{self}: {message.promise or message.text}")
        return message

    def heard(self) -> Iterator[Any]:
        """What it has told by now, without waiting. Ends where it died."""
        with contextlib.suppress(EOFError):
            while self.pipe.poll(0):
                yield self.hear(0)

    def result(self, limit: float = PATIENCE) -> Any:
        """Wait for the end of its function, and return what that returned. What it told before is skipped."""
        while not isinstance(message := self.hear(limit), Ended):
            pass
        self.join(limit)
        return message.result

    def kill(self) -> None:
        """SIGKILL, and wait for its death. What it has told can be heard afterwards."""
        self.process.kill()
        self.join()

    def join(self, limit: float = PATIENCE) -> int:
        """Wait for a death that was ordered, and return the exit code. Raises Silence."""
        self.process.join(limit)
        code: int | None = self.process.exitcode
        if code is None:
            raise Silence(self._silence(limit))
        return code

    def is_alive(self) -> bool:
        return bool(self.process.is_alive())

    def close(self) -> None:
        self.pipe.close()
        if self.process.exitcode is not None:
            self.process.close()

    def _silence(self, limit: float) -> str:
        """Which process is silent, and where it hangs, as far as it still can tell that."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGUSR1)
        if self._folder is None:
            return f"{self} did not answer for {limit:.0f} s"
        stacks = self._folder / f"{self.name}.stacks"
        until = time.monotonic() + 2
        while time.monotonic() < until and not (stacks.exists() and stacks.stat().st_size):
            time.sleep(0.01)  # it is stuck; nothing else announces what its signal handler writes
        where = stacks.read_text() if stacks.exists() else ""
        return f"{self} did not answer for {limit:.0f} s\n{where}".rstrip()


class Crew:
    """The workers of a round. Leaving the block kills those that still live."""

    def __init__(self, trial: Trial) -> None:
        self.trial = trial
        self.workers: list[Worker] = []

    def start(
        self, name: str, function: Callable[Concatenate[Link, P], Any], *args: P.args, **kwargs: P.kwargs
    ) -> Worker:
        """Begin ``function(link, *args)`` in a new process. The function is one of a module."""
        if kwargs:
            raise TypeError("workers take no keywords")
        worker = Worker(self.trial.folder, name, function, args)
        self.workers.append(worker)
        return worker

    def listen(self, workers: list[Worker], limit: float = PATIENCE) -> list[tuple[Worker, Any]]:
        """Wait until one of *workers* tells something; returns the next message of each that did.

        None means that a worker has died. Raises Silence when none of them tells anything for *limit* seconds.
        """
        ready = wait([worker.pipe for worker in workers], limit)
        if not ready:
            raise Silence("\n".join(worker._silence(limit) for worker in workers))
        messages: list[tuple[Worker, Any]] = []
        for worker in workers:
            if worker.pipe in ready:
                try:
                    messages.append((worker, worker.hear()))
                except EOFError:
                    messages.append((worker, None))
        return messages

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        end(self.workers)


def end(workers: Sequence[Worker]) -> None:
    """Kill those of *workers* that still live, and wait for the death of each."""
    for worker in workers:
        if worker.process.exitcode is None:
            worker.process.kill()
    for worker in workers:
        worker.process.join(PATIENCE)
        worker.close()


@contextlib.contextmanager
def _uninterrupted() -> Iterator[None]:
    """Keep Ctrl-C away from a birth: what is half born is noted nowhere. The fork server is born so, too."""
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)


def _work(
    pipe: Connection, name: str, folder: Path | None, function: Callable[..., Any], args: tuple[Any, ...]
) -> None:
    """What a worker process does."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGINT])
    die_with_parent()
    link = Link(pipe, name, folder or Path(os.devnull))
    with open(folder / f"{name}.stacks", "w") if folder else os.fdopen(os.dup(2), "w") as stacks:
        if folder:
            log_to(folder)
        faulthandler.register(signal.SIGUSR1, file=stacks)
        try:
            result = function(link, *args)
            check_invariants()
        except EOFError:
            return  # nobody listens any more
        except BaseException as error:
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                link.tell(_Raised(error))
            return
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            link.tell(Ended(result))


def check_invariants() -> None:
    """Assert what must hold in each state that this process has left open: see `pstate.store.Store.check`."""
    for each in store._each():
        each.check()


def die_with_parent() -> None:
    """Let the system kill this process when its parent dies. Where it cannot, the broken pipe ends it later."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def in_threads(link: Link, bodies: list[Callable[[], Iterator[None]]]) -> None:
    """Take steps of all *bodies*, each in its own thread, until we are called. What one raises ends all."""
    ended = threading.Event()
    errors: list[BaseException] = []

    def run(body: Callable[[], Iterator[None]]) -> None:
        try:
            for _ in body():
                if ended.is_set():
                    return
        except BaseException as error:
            errors.append(error)
            ended.set()

    threads = [threading.Thread(target=run, args=(body,), daemon=True) for body in bodies]
    for thread in threads:
        thread.start()
    while not ended.wait(0.02) and not link.is_called():
        pass
    ended.set()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]
    check_invariants()


# ---------------------------------------------------------------------- what checks look at afterwards


def open_state(path: Address, **options: Any) -> Any:
    """The state at *path*. Any, because a type checker does not know the names in a state."""
    return PersistedState.open(path, **options)


def read_fresh(path: Address) -> dict[Any, Any]:
    """The whole state, as somebody reads it who opens the file now and writes nothing."""
    with PersistedState.open(path, read_only=True) as state:
        return state.snapshot()


def vacuum_often(size: int) -> None:
    """Let vacuums of this process be due after *size* bytes, and as many snapshots on a server."""
    limits.JOURNAL_MINIMUM = size
    if "pstate.rows.log" in sys.modules or importlib.util.find_spec("psycopg"):
        rows: Any = importlib.import_module("pstate.rows.log")
        rows.SNAPSHOT_RECORDS, rows.SNAPSHOT_SIZE = size // 100, size


def is_locked(path: str | Path) -> bool:
    """Whether somebody holds the lock of `locking="file"`."""
    import fcntl

    fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(fd)
    return False


def expect_tidy(path: Address, content: dict[Any, Any]) -> None:
    """After the last close: one plain YAML document that says *content*, nothing beside it, nobody in the lock.

    Raises BrokenPromise. The file is the only one in its folder. A server has nothing but the lock to be left.
    """
    if isinstance(path, str) and is_url(path):
        expect_free(path, content)
        return
    path = Path(path)
    data = path.read_bytes()
    documents = list(yaml.load_all(data, LOADER))
    if f.scan(data).marker is not None or len(documents) != 1:
        raise BrokenPromise("P1: the file that was closed cleanly is not one plain YAML document")
    if documents != [content]:
        raise BrokenPromise(f"P1: a stock loader reads {documents[0]!r}, the state said {content!r}")
    beside = sorted(set(os.listdir(path.parent)) - {path.name})
    if beside:
        raise BrokenPromise(f"P1: after a clean close there is {', '.join(beside)} beside the file")
    if is_locked(path):
        raise BrokenPromise("P7: nobody has the file open, and its lock is held")


def expect_free(url: str, content: dict[Any, Any]) -> None:
    """After the last close: an opener finds *content* on the server, and gets the lock. Raises BrokenPromise."""
    try:
        with PersistedState.open(url, lock_timeout=1) as state, state.transaction():
            found = state.snapshot()
    except LockTimeout as error:
        raise BrokenPromise(f"P7: nobody has the state open, and its lock is held: {error}") from None
    if found != content:
        raise BrokenPromise(f"P5: an opener reads {found!r}, the state said {content!r}")
