"""Real processes for the tests of what processes promise each other, and the few things that such tests share.

An `Other` is a process of its own that runs what it is told over a pipe and answers when that is done, so that no test
waits for time to pass. It is born from a fork server, which knows nothing of the states that the test has open.
"""

from __future__ import annotations

import contextlib
import multiprocessing
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
from pstate.file.fs import FileSystem

METHOD = "forkserver" if "forkserver" in multiprocessing.get_all_start_methods() else "spawn"
BIRTH: Any = multiprocessing.get_context(METHOD)
if METHOD == "forkserver":
    BIRTH.set_forkserver_preload(["tools.processes", "tools.edits", "test_lock", "json"])

KERNEL = ["file", "filelock", "portalocker"]  #: these end with their holder, whatever it dies of
KINDS = [*KERNEL, "SoftFileLock", "multiprocessing.Lock"]

#: How long a process may take to answer before the test says which one did not.
PATIENCE = 45


class Stepping(FileSystem):
    """The real system, with a look before each call that changes something.

    `before` is called with the name of the call and its arguments. It may do part of it, raise, wait or kill. If it
    returns something, that is the result, and the call is not made.
    """

    CHANGING = ("open", "write", "truncate", "sync", "rename", "rename_new", "exchange", "unlink", "sync_folder")

    def __init__(self) -> None:
        super().__init__()
        self.before: Callable[..., Any] = lambda name, *args: None
        for name in self.CHANGING:
            setattr(self, name, self._stepping(name, getattr(self, name)))

    def _stepping(self, name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def step(*args: Any) -> Any:
            result = self.before(name, *args)
            return call(*args) if result is None else result

        return step


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


def is_locked(path: str) -> bool:
    """Whether somebody holds the lock of `locking="file"`."""
    import fcntl

    fd = os.open(path, os.O_RDWR)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(fd)
    return False


def locking_of(kind: str, path: str, shared: Any) -> Any:
    """What a user passes as `locking=`; *shared* is the lock object that must be the same in all processes."""
    if kind == "SoftFileLock":
        return filelock.SoftFileLock(path + ".soft", thread_local=False)
    return shared if kind == "multiprocessing.Lock" else kind


def _serve(pipe: Any, path: str, kind: str, shared: Any, options: dict[str, Any]) -> None:
    fs = Stepping()
    world: dict[str, Any] = {
        "path": path,
        "pipe": pipe,
        "fs": fs,
        "os": os,
        "pstate": pstate,
        "yaml": yaml,
        "increment": increment,
        "is_locked": is_locked,
    }
    if options.pop("stepping", False):
        options["fs"] = fs
    world["reopened"] = lambda: PersistedState.open(path, locking=locking_of(kind, path, shared), **options)
    if options.pop("opened", True):
        world["state"] = world["reopened"]()
    while True:
        try:
            how, code = pipe.recv()
        except EOFError:
            return
        answer: Any = None
        try:
            if how == "ask":
                answer = eval(code, world)
                pickle.dumps(answer)
            else:
                exec(code, world)
        except BaseException as error:
            pipe.send((False, error))
        else:
            pipe.send((True, answer))


class Other:
    """Another process that has the state open as `state`."""

    def __init__(self, path: str, kind: str = "file", shared: Any = None, **options: Any) -> None:
        self.pipe, theirs = BIRTH.Pipe()
        self.process: Any = BIRTH.Process(target=_serve, args=(theirs, path, kind, shared, options), daemon=True)
        self.process.start()
        theirs.close()
        self.pid: int = self.process.pid

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

    def answer(self) -> Any:
        succeeded, answer = self.hear()
        if not succeeded:
            raise answer
        return answer

    def hear(self) -> Any:
        """The next thing that it sends. Raises EOFError when it is dead."""
        if not self.pipe.poll(PATIENCE):
            raise TimeoutError(f"process {self.pid} does not answer")
        try:
            return self.pipe.recv()
        except ConnectionResetError:
            raise EOFError from None

    def has_answered(self) -> bool:
        return bool(self.pipe.poll(0))

    def enter(self, change: str = "pass") -> None:
        """Begin a transaction that lasts until `leave`, and make *change* in it."""
        self.run(f"block = state.transaction(); block.__enter__()\n{_outdented(change)}")

    def leave(self) -> None:
        self.run("block.__exit__(None, None, None)")

    def kill(self) -> None:
        """SIGKILL, and wait for its death."""
        self.process.kill()
        self.process.join(PATIENCE)

    def join(self) -> int | None:
        """Wait for a death that it was told to die."""
        self.process.join(PATIENCE)
        code: int | None = self.process.exitcode
        return code


def _outdented(code: str) -> str:
    lines = [line for line in code.split("\n") if line.strip()]
    indent = min(len(line) - len(line.lstrip()) for line in lines)
    return "\n".join(line[indent:] for line in lines)


class Crowd:
    """One state file, this process' states of it, and the other processes that have it open."""

    def __init__(self, path: Path, kind: str = "file") -> None:
        self.file = path
        self.path = str(path)
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
        other = Other(self.path, self.kind, self.shared, **options)
        self.others.append(other)
        return other

    def begin(self, **content: Any) -> None:
        """A file that was closed cleanly, with *content*."""
        self.file.write_text(yaml.safe_dump(content))

    def as_stranger(self) -> Any:
        """The file as a stock loader reads it; fails if it is more than one document."""
        return yaml.safe_load(self.file.read_bytes())

    def folder(self) -> list[str]:
        return sorted(os.listdir(self.file.parent))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for other in self.others:
            other.process.kill()
        for other in self.others:
            other.process.join(PATIENCE)
            other.pipe.close()
            other.process.close()
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
    "Stepping",
    "finish",
    "increment",
    "is_locked",
    "is_plain",
]
