"""Real processes for the tests of what processes promise each other, and the few things that such tests share.

An `Other` is a process of its own that runs what it is told over a pipe and answers when that is done. A test that
drives some of them reads like a schedule: this process does this, then the editor saves, then that process does that.
No test waits for time to pass. It is a `Worker` of the stress checks, so it is born from a fork server, which knows
nothing of the states that the test has open.
"""

from __future__ import annotations

import contextlib
import gc
import os
import pickle
import signal
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import filelock
import yaml

import pstate
from pstate import PersistedState
from stress.real.workers import BIRTH, METHOD, Link, Worker, end, is_locked
from tools import homes
from tools.disks import Disk

if METHOD == "forkserver":
    BIRTH.set_forkserver_preload(["tools.processes", "tools.edits", "test_lock", "json"])

KERNEL = ["file", "filelock", "portalocker"]  #: these end with their holder, whatever it dies of
KINDS = [*KERNEL, "SoftFileLock", "multiprocessing.Lock"]

#: How long a process may take to answer before the test says which one did not.
PATIENCE = 45


class Jobs(PersistedState):
    """A subclass, as a user writes one."""

    def finish(self, name: str) -> None:
        with self.transaction():
            self["finished"] = self.get("finished", 0) + 1
            self[name] = "finished"


def increment(state: PersistedState) -> int:
    """What a pool maps: one exact step."""
    with state.transaction():
        state.n += 1
        return int(state.n)


def finish(argument: tuple[Jobs, str]) -> str:
    """What a pool maps over a subclass."""
    jobs, name = argument
    jobs.finish(name)
    return type(jobs).__name__


def locking_of(kind: str, path: str, shared: Any) -> Any:
    """What a user passes as `locking=`; *shared* is the lock object that must be the same in all processes."""
    if kind == "SoftFileLock":
        return filelock.SoftFileLock(path + ".soft", thread_local=False)
    return shared if kind == "multiprocessing.Lock" else kind


def serve(link: Link, prepare: Callable[..., dict[str, Any]], args: tuple[Any, ...]) -> None:
    """What an `Other` does: run what it is told in the names that *prepare* returns, and answer."""
    gc.freeze()  # what the fork server has loaded is not garbage
    os.dup2(2, 1)
    names = prepare(link, *args)
    while True:
        how, code = link.hear()
        answer: Any = None
        try:
            if how == "forget":
                names.clear()
                gc.collect()
                names.update(prepare(link, *args))
            elif how == "ask":
                answer = eval(code, names)
            else:
                exec(code, names)
            data = pickle.dumps((True, answer))
        except BaseException as error:
            error.__traceback__ = error.__context__ = error.__cause__ = None
            data = pickle.dumps((False, error))
        answer = None
        link.pipe.send_bytes(data)


def with_a_state(link: Link, path: str, kind: str, shared: Any, options: dict[str, Any]) -> dict[str, Any]:
    """The names of a process of a `Crowd`: it has the state open as `state`."""
    fs = Disk()
    options = {"stepping": False, "opened": True, **options}
    if options.pop("stepping"):
        options["fs"] = fs
    opened = options.pop("opened")
    names: dict[str, Any] = {
        "path": path,
        "pipe": link.pipe,
        "fs": fs,
        "os": os,
        "pstate": pstate,
        "yaml": yaml,
        "increment": increment,
        "is_locked": is_locked,
        "reopened": lambda: PersistedState.open(path, locking=locking_of(kind, path, shared), **options),
    }
    if opened:
        names["state"] = names["reopened"]()
    return names


class Other(Worker):
    """Another process, which runs what it is told in the names that ``prepare(link, *args)`` returns."""

    def __init__(self, prepare: Callable[..., dict[str, Any]], *args: Any) -> None:
        super().__init__(None, "another one", serve, (prepare, args))
        self.waiting = 0  #: answers that were not received yet

    def ask(self, expression: str) -> Any:
        """What *expression* is over there; containers come as plain values. Raises what it raises."""
        self.tell(expression, "ask")
        return self.answer()

    def run(self, code: str) -> None:
        """Let it run *code*, and wait until that is done. Raises what it raises."""
        self.tell(code)
        self.answer()

    def tell(self, code: str, how: str = "run") -> None:
        """Let it begin to run *code*; `answer` waits for the end of it, `hear` for what it sends meanwhile."""
        self.pipe.send((how, _outdented(code)))
        self.waiting += 1

    def answer(self) -> Any:
        succeeded, answer = self.hear()
        self.waiting -= 1
        if not succeeded:
            raise answer
        return answer

    def hear(self, limit: float = PATIENCE) -> Any:
        """The next thing that it sends. Raises EOFError when it is dead."""
        return super().hear(limit)

    def has_answered(self) -> bool:
        return bool(self.pipe.poll(0))

    def forget(self) -> None:
        """Let it drop all that it has, and begin again."""
        self.tell("", "forget")
        self.answer()

    def enter(self, change: str = "pass") -> None:
        """Begin a transaction that lasts until `leave`, and make *change* in it."""
        self.run(f"block = state.transaction(); block.__enter__()\n{_outdented(change)}")

    def leave(self) -> None:
        self.run("block.__exit__(None, None, None)")


class Pool:
    """Processes that the next test uses again, because starting one costs more than a test."""

    def __init__(self, make: Callable[[], Other]) -> None:
        self._make = make
        self._idle: list[Any] = []

    def take(self) -> Any:
        """An idle one, or a new one. Any, because only the caller knows what it makes."""
        if not self._idle:
            return self._make()
        other = self._idle.pop()
        other.forget()
        return other

    def give_back(self, other: Other) -> None:
        if other.is_alive():
            self._idle.append(other)
        else:
            other.close()

    def end(self) -> None:
        """Let them end by themselves."""
        for other in self._idle:
            other.pipe.close()
        for other in self._idle:
            other.join()
            other.close()


def _outdented(code: str) -> str:
    lines = [line for line in code.split("\n") if line.strip()]
    indent = min((len(line) - len(line.lstrip()) for line in lines), default=0)
    return "\n".join(line[indent:] for line in lines)


class Crowd:
    """One state, at a path or a URL, this process' states of it, and the other processes that have it open."""

    def __init__(self, address: Path | str, kind: str = "file") -> None:
        self.file = Path(address)  #: if it is one
        self.path = str(address)
        self.kind = kind
        self.shared = BIRTH.Lock() if kind == "multiprocessing.Lock" else None
        self.states: list[PersistedState] = []
        self.others: list[Other] = []

    def open(self, **options: Any) -> Any:
        """Here. Any, because a checker does not know the names in a state."""
        state = PersistedState.open(self.path, locking=locking_of(self.kind, self.path, self.shared), **options)
        self.states.append(state)
        return state

    def other(self, **options: Any) -> Other:
        other = Other(with_a_state, self.path, self.kind, self.shared, options)
        self.others.append(other)
        return other

    def begin(self, **content: Any) -> None:
        """A file that was closed cleanly, with *content*."""
        self.file.write_text(yaml.safe_dump(content))

    def as_stranger(self) -> Any:
        """The file as a stock loader reads it; fails if it is more than one document."""
        return yaml.safe_load(self.file.read_bytes())

    def home(self) -> homes.Home:
        """What a stranger finds."""
        return homes.at(self.path)

    def folder(self) -> list[str]:
        return sorted(os.listdir(self.file.parent))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        end(self.others)
        for state in self.states:
            with contextlib.suppress(pstate.TransactionError, pstate.LockTimeout):
                state.close()


class Fork:
    """`os.fork` for a test: the child runs *body* and never comes back into the test; `result` is what it returned.

    An exception in the child is raised by `result`. SystemExit is an answer like any other.
    """

    def __init__(self, body: Callable[[], Any]) -> None:
        read, write = os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            os.close(read)
            self._child(body, write)
        os.close(write)
        self.read = read

    @staticmethod
    def _child(body: Callable[[], Any], write: int) -> None:
        try:
            signal.alarm(PATIENCE)  # a deadlocked child would outlive the test
            try:
                answer = (True, body())
                data = pickle.dumps(answer)
            except BaseException as error:
                data = pickle.dumps((False, error))
            with os.fdopen(write, "wb") as pipe:
                pipe.write(data)
        finally:
            os._exit(0)

    def result(self) -> Any:
        with os.fdopen(self.read, "rb") as pipe:
            data = pipe.read()
        os.waitpid(self.pid, 0)
        if not data:
            raise EOFError("the child died without an answer")
        succeeded, answer = pickle.loads(data)
        if not succeeded:
            raise answer
        return answer


def is_plain(value: Any) -> bool:
    """Whether *value* consists of exact builtin types at every depth."""
    kind = type(value)
    if kind is dict:
        return all(is_plain(key) and is_plain(each) for key, each in value.items())
    if kind in (list, set):
        return all(is_plain(each) for each in value)
    return kind.__module__ in ("builtins", "datetime")


__all__ = [
    "BIRTH",
    "KERNEL",
    "KINDS",
    "PATIENCE",
    "Crowd",
    "Fork",
    "Jobs",
    "Other",
    "Pool",
    "end",
    "finish",
    "increment",
    "is_locked",
    "is_plain",
    "with_a_state",
]
