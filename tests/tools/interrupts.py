"""A signal at every place where one can arrive, and what must hold afterwards.

CPython runs signal handlers at few places only: after a call, at the beginning of a function, at the end of a loop. A
trace function that raised by itself would raise at others too, and above all inside other `try` blocks: an interrupt
after the last call of a `try` belongs to that `try`, but the instruction after it does not. So `Interrupter` makes a
real signal pending before the n-th such place, and leaves it to the interpreter where the exception is raised.
"""

from __future__ import annotations

import contextlib
import ctypes
import dis
import gc
import logging
import os
import random
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

import pstate
from pstate import PersistedState
from pstate.engines import is_url
from pstate.file.fs import FileSystem
from pstate.memory import ops
from pstate.values import same
from tools import homes
from tools.processes import Other, is_locked

State = dict[Any, Any]
Action = Callable[[Any], Any]

#: Interrupt at every place, not at a sample: minutes instead of seconds.
EVERY = bool(os.environ.get("PSTATE_EVERY_INTERRUPT"))

_PLACES = {
    number
    for number, name in enumerate(dis.opname)
    if name in ("CALL", "CALL_KW", "CALL_FUNCTION_EX", "JUMP_BACKWARD") or name.startswith("POP_JUMP_BACKWARD")
}

# What a tracer raises where a comprehension jumps back skips the `finally` around it in Python 3.12.1, and a pending
# signal is raised in the tracer. Without one it is raised where it should be.
_LOSES_FINALLY = sys.version_info[:2] == (3, 12)
_ENDS_OF_A_COMPREHENSION = ("LIST_APPEND", "SET_ADD", "MAP_ADD")


#: Files -> what is known of the functions in them. By their numbers, because a hash of a code object reads all of it;
#: the code is kept, so that its number stays its own.
_known: dict[tuple[str, ...], dict[int, tuple[CodeType, set[int]]]] = {}


class _Signal:
    """``-signal`` makes SIGINT pending. An operator, because the interpreter looks for signals after every call."""

    __neg__ = ctypes.PYFUNCTYPE(None)(("PyErr_SetInterrupt", ctypes.pythonapi))


def trace_opcodes(frame: FrameType, tracer: Callable[[FrameType, str, Any], Any]) -> None:
    """Have *tracer* called for each instruction of *frame*, not for its lines.

    Python 3.13 needs `f_trace` first, else it tells nothing before the next call of the function; 3.12 needs
    `expect_opcodes`.
    """
    frame.f_trace = tracer
    frame.f_trace_lines = False
    frame.f_trace_opcodes = True


def expect_opcodes() -> None:
    """Before `sys.settrace`: Python 3.12 tells no instructions if no frame wants them by then."""
    sys._getframe().f_trace_opcodes = True


class Interrupter:
    """Runs an action and sends SIGINT when it is about to pass certain places, counted from 1.

    *files*: what counts are the places in functions of files whose path ends or begins so. `passed` is how many there
    were, `fired` how many signals were sent, `swallowed` what a finalizer has raised meanwhile (nobody can catch that).
    """

    def __init__(
        self,
        *numbers: int,
        files: tuple[str, ...] = (),
        handler: Callable[[int, FrameType | None], Any] = signal.default_int_handler,
    ) -> None:
        self._handler = handler
        self._numbers = list(numbers)
        self._files = (os.path.dirname(pstate.__file__) + os.sep, *files)
        self._codes = _known.setdefault(self._files, {})
        self._signal = _Signal()
        self._next = self._numbers.pop(0) if self._numbers else 0
        self.passed = 0
        self.fired = 0
        self.swallowed: list[Any] = []
        self.where = ""

    def run(self, action: Callable[[], Any], keep: bool = False) -> BaseException | None:
        """Returns what the action raised, with its traceback (and so all frames) if we are told to *keep* it."""
        hook, handler, tracer = sys.unraisablehook, signal.getsignal(signal.SIGINT), sys.gettrace()
        sys.unraisablehook = self._swallow
        signal.signal(signal.SIGINT, self._handler)
        gc.disable()  # what earlier runs have left would be finalized in the middle, at places that are counted
        try:
            expect_opcodes()
            sys.settrace(self._trace)
            try:
                action()
            finally:
                sys.settrace(tracer)
        except BaseException as error:
            if not keep:
                # They hold the frames, and a frame the objects that are expected to end.
                error.__traceback__ = error.__context__ = None
            return error
        finally:
            gc.enable()
            signal.signal(signal.SIGINT, handler)
            sys.unraisablehook = hook
        return None

    def _swallow(self, args: Any) -> None:
        args.exc_value.__traceback__ = args.exc_value.__context__ = None
        self.swallowed.append(args.exc_value)

    def _trace(self, frame: FrameType, event: str, argument: Any) -> Any:
        code = frame.f_code
        known = self._codes.get(id(code))
        if known is None:
            known = self._codes[id(code)] = (code, self._places(code))
        places = known[1]
        if event == "call":
            if not places:
                return None
            trace_opcodes(frame, self._trace)
        elif event != "opcode" or frame.f_lasti not in places:
            return self._trace
        self.passed += 1
        if self.passed == self._next:
            self._next = self._numbers.pop(0) if self._numbers else 0
            self.fired += 1
            self.where += f" {os.path.basename(frame.f_code.co_filename)}:{frame.f_lineno} {event}"
            # Nothing may be called from here on.
            -self._signal
        return self._trace

    def _places(self, code: CodeType) -> set[int]:
        if not code.co_filename.startswith(self._files) or code.co_name == "<module>":
            return set()
        found = set()
        before = ""
        for each in dis.get_instructions(code):
            if each.opcode in _PLACES and not (_LOSES_FINALLY and before in _ENDS_OF_A_COMPREHENSION):
                found.add(each.offset)
            before = each.opname
        return found or {-1}


class Hurried(FileSystem):
    """The real system, but a look at the path is always due, and no disk is synced. `pause` is how it waits.

    No save is younger than some seconds. Else it would depend on the speed of the test whether a reader waits for the
    end of a save, and since its clock runs faster than the time stamps of files, it would give up too early.
    """

    def __init__(self) -> None:
        super().__init__()
        self._now = 0.0
        self.clock = self._tick
        self.wall = lambda: time.time() + 3.0
        self.sync = self.sync_data = lambda fd: None
        self.pause: Callable[[], Any] = lambda: None
        self.sleep = lambda seconds: self.pause()

    def _tick(self) -> float:
        self._now += 0.06  # longer than any interval of the store, shorter than its timeouts
        return self._now

    def sync_folder(self, path: str) -> None:
        pass


class Scene:
    """One state file, open here and in another process, in which one change is interrupted."""

    def __init__(self, folder: Path, other: Other) -> None:
        self.folder = folder
        self.other = other
        self.state: Any = None
        self.path = ""
        self.options: dict[str, Any] = {}
        self.fs = Hurried()
        self.abandoned: list[Any] = []
        self.errors: list[BaseException | None] = []  #: what the last action raised, kept as a debugger would
        self._blocked = False
        self.looks = 0  #: how many reads it may take until an edit is noticed

    def set(self, content: bytes | None, prepare: Callable[[Scene], Any], **options: Any) -> None:
        """A new file in a new folder, with *content*, opened by both."""
        self.errors.clear()
        self.let_go()
        self.looks = 0
        home = self.folder / f"{len(os.listdir(self.folder))}"
        home.mkdir()
        self.path = str(home / "state.yaml")
        if content is not None:
            Path(self.path).write_bytes(content)
        locking = options.get("locking", "file")
        self.fs = Hurried()
        self.options = {"lock_timeout": 5, "fs": self.fs, **options}
        self.state = PersistedState.open(self.path, **self.options)
        theirs = locking if isinstance(locking, str) else "file"
        self.other.run(f"state = open_hurried({self.path!r}, {theirs!r})")
        prepare(self)

    def let_go(self) -> None:
        if self.state is not None:
            try:
                self.state.close()
            except pstate.TransactionError:  # the test has failed already: a block that nobody ended
                self.abandoned.append(self.state)
            self.state = None

    def descriptors(self) -> list[str]:
        """What this process has open of our folder; empty where the system does not tell."""
        names = []
        for number in os.listdir("/proc/self/fd") if os.path.exists("/proc/self/fd") else []:
            with contextlib.suppress(FileNotFoundError):
                names.append(os.readlink(f"/proc/self/fd/{number}"))
        return [name for name in names if name.startswith(str(self.folder))]

    def block_it(self, pauses: int, change: str) -> None:
        """The other process is in a transaction until we have waited that many times for the lock, or `unblock`."""
        self.other.enter(change)
        self._blocked = True
        left = iter(range(pauses))
        self.fs.pause = lambda: self.unblock() if next(left, None) is None else None

    def unblock(self) -> None:
        if self._blocked:
            self._blocked = False
            self.other.leave()

    def abandon(self) -> None:
        """After a failure: what is wrong with this file is not the next one's business."""
        self.abandoned.append(self.state)
        self.state = None
        self.other.run("old = globals().setdefault('old', []); old.append(state); state = None")

    # what one sees of the state

    def here(self) -> State:
        """Memory, by all the ways there are."""
        state = self.state
        singly = {key: _plain(state[key]) for key in state}
        whole: State = state.snapshot()
        raw = {key: _plain(value) for key, value in dict.items(state)}
        assert same(singly, whole), f"single values {singly} and the whole {whole} differ"
        assert same(raw, whole), f"what C code sees {raw} and the whole {whole} differ"
        return whole

    def fresh(self) -> State:
        """What an opener finds in a copy of the file's bytes."""
        copy = Path(self.path).with_name("copy.yaml")
        copy.write_bytes(Path(self.path).read_bytes())
        with PersistedState.open(copy, read_only=True, fs=Hurried()) as state:
            seen = state.snapshot()
        copy.unlink()
        return seen

    def there(self) -> State:
        seen: State = self.other.ask("state.snapshot()")
        return seen

    def is_free(self) -> None:
        """The other process gets the write lock at once."""
        self.other.run("with state.transaction(timeout=0): pass")

    def settle(self, outcomes: list[State], lock_first: bool) -> None:
        """What must hold after an interruption: all of one of *outcomes* or nothing of it, and life goes on."""
        if lock_first:
            self.is_free()
        for _ in range(self.looks):
            self.state.snapshot()
            self.there()
        here = self.here()
        assert same(here, self.fresh()), f"memory {here}, file {self.fresh()}"
        assert same(here, self.there()), f"memory {here}, other process {self.there()}"
        assert any(same(here, each) for each in outcomes), f"{here} is none of {outcomes}"
        if not lock_first:
            self.is_free()
        self.go_on()

    def is_clean(self) -> None:
        """A vacuum leaves nothing beside the file, and takes nothing that it finds there for a person's."""
        self.state.vacuum()
        left = set(os.listdir(os.path.dirname(self.path))) - {"state.yaml", "state.yaml.lock"}
        assert not left, f"beside the file: {sorted(left)}"

    def go_on(self) -> None:
        """Everybody changes the state and sees what the others changed.

        With numbers of the same length as those of the action: then the file may have a size that was seen before.
        """
        state = self.state
        state["n"] = 7
        assert self.there()["n"] == 7, "another process is stale"
        self.other.run("state['n'] = 8")
        assert state["n"] == 8, "this process is stale"
        in_thread(lambda: state.__setitem__("n", 9))
        assert self.there()["n"] == self.here()["n"] == self.fresh()["n"] == 9


class ServerScene(Scene):
    """The same for a state at a URL. Each round has one of its own."""

    def __init__(self, folder: Path, other: Other, url: str) -> None:
        super().__init__(folder, other)
        self._url = url
        self._began = homes.ServerHome(url).now()
        self._count = 0

    def set(self, content: bytes | None, prepare: Callable[[Scene], Any], **options: Any) -> None:
        """A new state that says *content*, opened by both."""
        self.errors.clear()
        self.let_go()
        self._count += 1
        self.path = f"{self._url} {self._count}"
        self.options = {"lock_timeout": 5, **options}
        self.state = PersistedState.open(self.path, **self.options)
        if content is not None:
            self.state._store.save({}, content)
        self.other.run(f"state = pstate.PersistedState.open({self.path!r}, lock_timeout=0.5)")
        prepare(self)

    def descriptors(self) -> list[str]:
        """The sessions of this process that were begun since."""
        return homes.ServerHome(self.path).sessions(os.getpid(), self._began)

    def fresh(self) -> State:
        """What an opener finds."""
        return homes.ServerHome(self.path).reopened()

    def is_clean(self) -> None:
        """A vacuum takes nothing away."""
        before = self.here()
        self.state.vacuum()
        assert same(before, self.fresh())


#: What the other process needs for `Scene`.
PREPARE_OTHER = """
from tools.interrupts import Hurried
hurried = Hurried()
def open_hurried(path, locking):
    return pstate.PersistedState.open(path, fs=hurried, locking=locking, lock_timeout=0.5)
"""


def _plain(value: Any) -> Any:
    return ops.plain(value) if type(value) in ops.NODES else value


def in_thread(task: Callable[[], Any]) -> None:
    """Run *task* in another thread, which must not wait for a lock that nobody will free."""
    errors: list[BaseException] = []

    def body() -> None:
        try:
            task()
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=body, daemon=True)
    thread.start()
    thread.join(2)
    if thread.is_alive():
        stack = traceback.extract_stack(sys._current_frames()[thread.ident or 0])
        raise AssertionError(f"another thread waits for ever: {''.join(traceback.format_list(stack[-6:]))}")
    if errors:
        raise errors[0]


def chosen(total: int, at_most: int, seed: str) -> list[int]:
    """The numbers of the places to interrupt at: all up to *total*, or those that a test has time for."""
    if EVERY or total <= at_most:
        return list(range(1, total + 1))
    return sorted(random.Random(seed).sample(range(1, total + 1), at_most))


class Lightning(Exception):
    """What the handler raises in a storm."""


def weather(path: str, locking: str, seconds: float, least: int, seed: int) -> dict[str, int]:
    """Count in the state at *path* under real signals at random moments; returns what happened how often.

    It takes *seconds*, and longer if there were not *least* interruptions by then.

    After each interruption memory must say whether the step was made, and it must be a step or none. Call it in the
    main thread of a process of its own: it takes SIGALRM.
    """
    chance = random.Random(seed)
    on_server = is_url(path)
    raising = False

    def strike(number: int, frame: FrameType | None) -> None:
        nonlocal raising
        if raising:
            raising = False
            raise Lightning

    def single(step: int) -> None:
        state["n"] = step

    def block(step: int) -> None:
        with state.transaction():
            state["n"] = step
            state["log"].append(step)
            state["last"]["step"] = step

    def inner_blocks(step: int) -> None:
        with state.transaction():
            state["log"].append(-1)
            with state.transaction() as inner:
                state["n"] = -1
                inner.rollback()
            state["log"].pop()
            with state.transaction():
                block(step)

    def vacuum(step: int) -> None:
        single(step)
        state.vacuum()

    def ignored(args: Any) -> None:
        # In a finalizer it cannot be raised to anybody, and at the end of a block there is one.
        if not isinstance(args.exc_value, Lightning):
            sys.__unraisablehook__(args)

    logging.getLogger("pstate").addHandler(logging.NullHandler())  # it says that blocks were cut off
    sys.unraisablehook = ignored
    signal.signal(signal.SIGALRM, strike)
    told = {"steps": 0, "struck": 0, "committed": 0}
    state: Any = PersistedState.open(
        path, locking=locking, defaults={"n": 0, "log": [], "last": {"step": 0}}, lock_timeout=30
    )
    reader: Any = PersistedState.open(path, read_only=True)
    end = time.monotonic() + seconds
    step = 0
    length = 0
    while time.monotonic() < end or told["struck"] < least:
        step += 1
        kind = chance.choice([single] * 8 + [block] * 8 + [inner_blocks] * 4 + [vacuum])
        before = {"log": length}
        struck = False
        where = ""
        delay = chance.random() * (0.0030 if kind is vacuum or on_server else 0.0004)
        try:
            raising = True
            signal.setitimer(signal.ITIMER_REAL, delay)
            kind(step)
            raising = False
        except Lightning as error:
            struck = True
            where = "".join(traceback.format_tb(error.__traceback__, -6))
            told["struck"] += 1
        raising = False
        assert state["n"] == step or (struck and state["n"] == step - 1), (kind.__name__, state["n"], step, struck)
        if state["n"] == step:
            told["committed"] += struck
            length += kind in (block, inner_blocks)
            if kind in (block, inner_blocks):
                assert state["log"][-1] == state["last"]["step"] == step
        else:
            step -= 1
        assert len(state["log"]) == length, (kind.__name__, before, len(state["log"]))
        assert reader["n"] == step, f"{kind.__name__}: {reader['n']} in the file, {step} in memory\n{where}"
        told["steps"] += 1
        if length > 50:
            state["log"].clear()
            length = 0
    signal.setitimer(signal.ITIMER_REAL, 0)
    raising = False
    assert same(state.snapshot(), reader.snapshot())
    reader.close()
    system = {} if on_server else {"fs": Hurried()}
    with PersistedState.open(path, read_only=True, **system) as again:
        assert same(state.snapshot(), again.snapshot())
    state.close()
    return told


__all__ = [
    "EVERY",
    "PREPARE_OTHER",
    "Action",
    "Hurried",
    "Interrupter",
    "Scene",
    "ServerScene",
    "State",
    "chosen",
    "expect_opcodes",
    "in_thread",
    "is_locked",
    "trace_opcodes",
    "weather",
]
