"""The write lock, by every strategy: exclusion between real processes, waiting, naming the holder, fork and Ctrl-C.

The other side is a process (for a lock between threads, a thread) that does what it is told over a pipe: no test waits
for time to pass.
"""

from __future__ import annotations

import dis
import errno
import fcntl
import math
import os
import pickle
import re
import signal
import subprocess
import sys
import threading
import types
from collections.abc import Callable, Iterator
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path
from types import FrameType
from typing import Any

import filelock
import portalocker
import pytest
from tools.interrupts import expect_opcodes, trace_opcodes
from tools.processes import BIRTH  # not a fork of ours: that would share what these tests are about

from pstate import PersistedState, errors
from pstate.file import holder as holders
from pstate.file import lock
from pstate.file.flock import EXCLUSIVE_NOW, UNLOCK, Flock
from pstate.file.fs import SYSTEM, WAITED_FOR, clear_mark, set_mark
from pstate.file.holder import holder, program

KERNEL = ["file", "filelock", "portalocker"]  # these end with their holder, whatever it dies of
OBJECTS = [
    "SoftFileLock",
    "FileLock",
    "portalocker.Lock",
    "redis-like",
    "multiprocessing.Lock",
    "multiprocessing.RLock",
]
KINDS = [*KERNEL, *OBJECTS, "threading.Lock", "threading.RLock"]
# filelock's objects refuse by themselves to be used in a child, so they have a test of their own.
FORKED = [each for each in KINDS if each not in ("SoftFileLock", "FileLock")]

needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
needs_proc = pytest.mark.skipif(not os.path.exists("/proc/locks"), reason="this system does not tell who holds a lock")


class RedisLike:
    """What redis.lock.Lock does, with a file for the server: `acquire(blocking=…)` returns whether it worked."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.local = types.SimpleNamespace(token=None)

    def acquire(self, sleep: float | None = None, blocking: bool | None = None) -> bool:
        assert blocking is False
        try:
            os.close(os.open(self.path, os.O_CREAT | os.O_EXCL))
        except FileExistsError:
            return False
        self.local.token = "mine"
        return True

    def release(self) -> None:
        if self.local.token is None:
            raise RuntimeError("Cannot release an unlocked lock")
        self.local.token = None
        os.unlink(self.path)


def locking_of(kind: str, path: str, shared: Any) -> Any:
    """What a user passes as `locking=`; *shared* is the object that must be the same on both sides."""
    match kind:
        case "SoftFileLock":
            return filelock.SoftFileLock(path + ".soft", thread_local=False)
        case "FileLock":
            return filelock.FileLock(path + ".theirs", thread_local=False)
        case "portalocker.Lock":
            return portalocker.Lock(path + ".theirs", timeout=0)
        case "redis-like":
            return RedisLike(path + ".redis")
        case _:
            return shared or kind


def shared_of(kind: str) -> Any:
    match kind:
        case "multiprocessing.Lock":
            return BIRTH.Lock()
        case "multiprocessing.RLock":
            return BIRTH.RLock()
        case "threading.Lock":
            return threading.Lock()
        case "threading.RLock":
            return threading.RLock()
        case _:
            return None


def serve(pipe: Connection, kind: str, path: str, shared: Any) -> None:
    """The other side: lock, unlock, count, fork as told."""
    flock = lock.make(locking_of(kind, path, shared), path)
    fd = os.open(path, os.O_RDWR | os.O_APPEND)
    while True:
        try:
            command, argument = pipe.recv()
        except EOFError:
            break
        answer: Any = None
        match command:
            case "try":
                answer = takes(flock, fd)
            case "unlock":
                flock(fd, UNLOCK)
            case "count":
                for _ in range(argument):
                    counted(flock, fd, path)
            case "fork":
                answer = forked(flock, fd, path)
        pipe.send(answer)
    os.close(fd)


def takes(flock: Flock, fd: int) -> bool:
    try:
        flock(fd, EXCLUSIVE_NOW)
    except BlockingIOError:
        return False
    return True


def counted(flock: Flock, fd: int, path: str) -> None:
    """Read, then write: two at once would lose a count."""
    try:
        lock.acquire(flock, fd, path, None)
        counter = Path(path + ".counter")
        counter.write_text(str(int(counter.read_text()) + 1))
    finally:
        flock(fd, UNLOCK)


def forked(flock: Flock, fd: int, path: str) -> tuple[int, bool]:
    """Fork a child that inherits the lock and lives until it is killed; tell its pid and whether it could lock."""
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        with suppress(BaseException):
            lock.forget(flock)
            os.close(fd)
            fd = os.open(path, os.O_RDWR | os.O_APPEND)
            flock(fd, UNLOCK)  # what unwinding the parent's blocks would do
            taken = takes(flock, fd)
            flock(fd, UNLOCK)
            os.write(write, b"1" if taken else b"0")
            signal.pause()
        os._exit(1)
    os.close(write)
    try:
        return pid, os.read(read, 1) == b"1"
    finally:
        os.close(read)


class Other:
    """Somebody else who locks the same file."""

    def __init__(self, kind: str, path: str, shared: Any) -> None:
        self.pipe, theirs = BIRTH.Pipe()
        arguments = (theirs, kind, path, shared)
        self.process: Any = None
        if kind.startswith("threading"):
            self.thread = threading.Thread(target=serve, args=arguments)
            self.thread.start()
        else:
            self.process = BIRTH.Process(target=serve, args=arguments)
            self.process.start()
            theirs.close()

    def asked(self, command: str, argument: Any = None) -> Any:
        self.told(command, argument)
        return self.pipe.recv()

    def told(self, command: str, argument: Any = None) -> None:
        self.pipe.send((command, argument))

    def killed(self) -> None:
        self.process.kill()
        self.process.join()

    def ended(self) -> None:
        self.pipe.close()
        if self.process is None:
            self.thread.join()
        else:
            self.process.join()
            self.process.close()


class Scene:
    """One state file, our lock on it, and the others'."""

    def __init__(self, kind: str, folder: Path) -> None:
        self.kind = kind
        self.path = str(folder / "state.yaml")
        Path(self.path).touch()
        self.fd = os.open(self.path, os.O_RDWR | os.O_APPEND)
        self.shared = shared_of(kind)
        self.flock = self.made()
        self.others: list[Other] = []

    def made(self) -> Flock:
        return lock.make(locking_of(self.kind, self.path, self.shared), self.path)

    def other(self) -> Other:
        self.others.append(Other(self.kind, self.path, self.shared))
        return self.others[-1]

    def acquired(self, timeout: float | None = 30, **seams: Any) -> None:
        lock.acquire(self.flock, self.fd, self.path, timeout, **seams)

    def unlock(self) -> None:
        self.flock(self.fd, UNLOCK)

    def is_free(self) -> bool:
        """Whether somebody who has nothing to do with our adapter could take the lock."""
        fd = os.open(self.path, os.O_RDWR)
        flock = self.made()
        try:
            return takes(flock, fd)
        finally:
            flock(fd, UNLOCK)
            os.close(fd)

    def ended(self) -> None:
        self.unlock()
        os.close(self.fd)
        for other in self.others:
            other.ended()


@pytest.fixture
def scene(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Scene]:
    scene = Scene(getattr(request, "param", "file"), tmp_path)
    yield scene
    scene.ended()


def of(*kinds: str) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("scene", kinds, indirect=True)


# Exclusion


@of(*KINDS)
def test_one_holder_at_a_time(scene: Scene) -> None:
    other = scene.other()
    assert other.asked("try")
    assert not takes(scene.flock, scene.fd)

    other.asked("unlock")
    assert takes(scene.flock, scene.fd)
    assert not other.asked("try")

    scene.unlock()
    assert other.asked("try")
    other.asked("unlock")


@of(*KINDS)
def test_nobody_loses_a_count(scene: Scene) -> None:
    Path(scene.path + ".counter").write_text("0")
    others = [scene.other(), scene.other()]
    for other in others:
        other.told("count", 40)
    for _ in range(40):
        counted(scene.flock, scene.fd, scene.path)
    for other in others:
        other.pipe.recv()

    assert "120" == Path(scene.path + ".counter").read_text()


@of(*KINDS)
def test_locking_twice_and_unlocking_twice_are_harmless(scene: Scene) -> None:
    other = scene.other()
    scene.unlock()
    assert takes(scene.flock, scene.fd)
    assert takes(scene.flock, scene.fd)
    assert not other.asked("try")

    scene.unlock()
    assert other.asked("try")

    scene.unlock()
    assert not takes(scene.flock, scene.fd), "unlocking without holding freed somebody else's lock"
    other.asked("unlock")


@of(*KERNEL, "SoftFileLock", "FileLock", "portalocker.Lock")
def test_the_lock_ends_with_its_holder(scene: Scene) -> None:
    other = scene.other()
    assert other.asked("try")
    other.killed()
    scene.acquired()


def test_the_flock_of_a_shell_takes_part(scene: Scene) -> None:
    scene.acquired()
    try:
        result = subprocess.run(["flock", "--nonblock", scene.path, "true"], check=False)
    except FileNotFoundError:
        pytest.skip("no flock command here")
    assert 1 == result.returncode


@of("filelock", "portalocker")
def test_lock_files_are_beside_the_file_itself_whatever_name_it_is_opened_by(scene: Scene, tmp_path: Path) -> None:
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    link = folder / "link.yaml"
    link.symlink_to(scene.path)
    scene.acquired()

    assert Path(scene.path + ".lock").exists()
    assert not takes(lock.make(scene.kind, str(link)), scene.fd)
    assert [link] == list(folder.iterdir())


def test_a_lock_file_that_was_deleted_is_not_the_one_that_is_locked(scene: Scene, monkeypatch: Any) -> None:
    """Somebody deletes the lock file between our opening and our locking it."""
    flock = lock.make("portalocker", scene.path)
    path = Path(scene.path + ".lock")
    real = portalocker.lock
    calls = []

    def deleted_before(fd: int, flags: Any) -> None:
        calls.append(fd)
        if len(calls) == 1:
            path.unlink()
        real(fd, flags)

    monkeypatch.setattr(portalocker, "lock", deleted_before)
    assert takes(flock, scene.fd)
    monkeypatch.undo()

    assert 2 == len(calls)
    assert not takes(lock.make("portalocker", scene.path), scene.fd)
    flock(scene.fd, UNLOCK)


def test_a_file_is_locked_by_flock_itself(scene: Scene) -> None:
    """Python code around it could be interrupted before it unlocks."""
    fcntl = pytest.importorskip("fcntl")
    assert scene.flock is fcntl.flock
    assert (fcntl.LOCK_EX | fcntl.LOCK_NB, fcntl.LOCK_UN) == (EXCLUSIVE_NOW, UNLOCK)


# Waiting


class Time:
    """A clock that only sleeping moves."""

    def __init__(self) -> None:
        self.now = 100.0
        self.pauses: list[float] = []

    def clock(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.pauses.append(seconds)
        self.now += seconds


def refusing(fd: int, operation: int) -> None:
    if operation == EXCLUSIVE_NOW:
        raise BlockingIOError(errno.EAGAIN, "busy")


def test_waiting_ends_with_the_timeout(scene: Scene) -> None:
    time = Time()
    with pytest.raises(errors.LockTimeout) as caught:
        lock.acquire(refusing, scene.fd, scene.path, 1.5, time.clock, time.sleep)

    assert math.isclose(1.5, sum(time.pauses))
    assert math.isclose(1.5, caught.value.waited)


def test_pauses_grow_from_50_microseconds_with_the_time_that_is_waited(scene: Scene) -> None:
    """A process that sleeps long while others come and go gets a small share; one that waits long must not be busy."""
    time = Time()
    calls: list[int] = []
    with pytest.raises(errors.LockTimeout):
        lock.acquire(refusing, scene.fd, scene.path, 1, time.clock, time.sleep, lambda: calls.append(len(time.pauses)))

    waited, expected = 0.0, 50e-6
    for pause in time.pauses[:-1]:
        assert 0.74 * expected <= pause <= 1.26 * expected
        expected = min(2 * expected, max(1e-3, waited / 200), 10e-3)
        waited += pause
    assert time.pauses[-2] > 3.5e-3
    assert len(time.pauses) < 600
    assert [*range(1, len(time.pauses) + 1)] == calls, "between two tries, there is something to do"


@needs_proc
def test_who_waits_has_a_mark_and_who_comes_again_gives_way(scene: Scene) -> None:
    """For long enough: the other one asks again meanwhile."""
    holder, busy, pauses = os.open(scene.path, os.O_RDWR), lock.make("file", scene.path), []
    busy(holder, EXCLUSIVE_NOW)
    lock.give_way(busy, holder, pauses.append)
    assert [] == pauses

    def meanwhile() -> None:
        lock.give_way(busy, holder, pauses.append)
        busy(holder, UNLOCK)

    lock.acquire(busy, scene.fd, scene.path, 10, meanwhile=meanwhile)
    busy(scene.fd, UNLOCK)
    lock.give_way(busy, holder, pauses.append)
    os.close(holder)

    (pause,) = pauses
    assert pause > 1.25e-3


@needs_proc
def test_a_state_gives_way_to_those_who_wait(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With each look at the path, before it locks the file again."""
    waiting = []
    with PersistedState(tmp_path / "state.yaml", n=0) as state:
        state.n = 1
        fd = os.open(tmp_path / "state.yaml", os.O_RDWR)
        monkeypatch.setattr(SYSTEM, "sleep", lambda seconds: waiting.append(has_lock(fd)))
        set_mark(fd, WAITED_FOR)
        state._store.log.look.expect_change()
        state.n = 2
        clear_mark(fd, WAITED_FOR)
        state._store.log.look.expect_change()
        state.n = 3
        os.close(fd)

    assert [False] == waiting


def has_lock(fd: int) -> bool:
    """Whether somebody else holds the lock of the file of *fd*."""
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    fcntl.flock(fd, fcntl.LOCK_UN)
    return False


def test_a_timeout_of_zero_tries_once(scene: Scene) -> None:
    calls = []

    def flock(fd: int, operation: int) -> None:
        calls.append(operation)
        refusing(fd, operation)

    time = Time()
    with pytest.raises(errors.LockTimeout):
        lock.acquire(flock, scene.fd, scene.path, 0, time.clock, time.sleep)
    assert [] == time.pauses
    assert [EXCLUSIVE_NOW, UNLOCK] == calls


@pytest.mark.parametrize("forever", [None, -1, float("inf")])
def test_no_timeout_waits_for_ever(scene: Scene, forever: float | None) -> None:
    time = Time()

    def flock(fd: int, operation: int) -> None:
        if time.now < 1_000_000:
            refusing(fd, operation)

    def sleep(seconds: float) -> None:
        time.sleep(seconds * 1e6)

    lock.acquire(flock, scene.fd, scene.path, forever, time.clock, sleep)
    assert time.now >= 1_000_000


@of(*KINDS)
def test_waiting_succeeds_when_the_holder_lets_go(scene: Scene) -> None:
    other = scene.other()
    assert other.asked("try")
    slept = []

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        other.asked("unlock")

    scene.acquired(sleep=sleep)
    assert 1 == len(slept)
    assert not other.asked("try")


@of(*KINDS)
def test_the_lock_is_not_held_after_an_interrupted_wait(scene: Scene) -> None:
    other = scene.other()
    assert other.asked("try")

    def sleep(seconds: float) -> None:
        other.asked("unlock")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        scene.acquired(sleep=sleep)
    assert other.asked("try")
    other.asked("unlock")


def test_really_waits_that_long(scene: Scene) -> None:
    assert scene.other().asked("try")
    with pytest.raises(errors.LockTimeout) as caught:
        scene.acquired(0.05)
    assert 0.05 <= caught.value.waited < 5


# The holder


@needs_proc
@of(*KERNEL, "SoftFileLock", "FileLock", "portalocker.Lock")
def test_a_timeout_names_the_holder(scene: Scene) -> None:
    if scene.kind == "SoftFileLock" and not hasattr(filelock.SoftFileLock, "pid"):
        pytest.skip("this filelock does not tell")
    other = scene.other()
    assert other.asked("try")
    with pytest.raises(errors.LockTimeout) as caught:
        scene.acquired(0)

    error = caught.value
    assert (scene.path, other.process.pid) == (error.path, error.holder)
    who = re.escape(f"{scene.path}: waited 0.0 s for the write lock, held by process {other.process.pid} (")
    assert re.match(
        who + r"python[\d.]* -c\)\. Nothing was changed\. Try again, or set a longer lock_timeout\. ", str(error)
    )
    assert isinstance(error, TimeoutError)
    assert error.holder == pickle.loads(pickle.dumps(error)).holder


@pytest.mark.parametrize(
    ("scene", "ending"),
    [
        ("file", "The lock ends with its holder; there is no lock file to delete."),
        ("filelock", "The lock ends with its holder. Do not delete {}.lock."),
        ("portalocker", "The lock ends with its holder. Do not delete {}.lock."),
        (
            "SoftFileLock",
            f"The lock is the object that was passed as locking= ({filelock.SoftFileLock.__module__}.SoftFileLock).",
        ),
    ],
    indirect=["scene"],
)
def test_a_timeout_says_what_to_do(scene: Scene, ending: str) -> None:
    assert scene.other().asked("try")
    with pytest.raises(errors.LockTimeout) as caught:
        scene.acquired(0)
    assert str(caught.value).endswith(f"set a longer lock_timeout. {ending.format(scene.path)}")


@of("redis-like", "multiprocessing.Lock")
def test_a_timeout_does_not_guess_the_holder(scene: Scene) -> None:
    other = scene.other()
    assert other.asked("try")
    with pytest.raises(errors.LockTimeout, match=r"for the write lock, which another process holds\. ") as caught:
        scene.acquired(0)
    assert caught.value.holder is None
    other.asked("unlock")


@needs_proc
def test_a_timeout_says_that_it_is_this_process(scene: Scene) -> None:
    scene.acquired()
    fd = os.open(scene.path, os.O_RDWR)
    with pytest.raises(errors.LockTimeout, match=rf"held by this process \({os.getpid()}\)"):
        lock.acquire(scene.flock, fd, scene.path, 0)
    os.close(fd)


@needs_proc
def test_the_holder_is_found_by_path_and_by_descriptor(scene: Scene) -> None:
    assert holder(scene.path) is None
    scene.acquired()
    assert os.getpid() == holder(scene.path) == holder(scene.fd)
    assert holder(scene.path + ".missing") is None


LOCKS = """\
1: POSIX  ADVISORY  WRITE 11 {place} 0 EOF
2: -> FLOCK  ADVISORY  WRITE 12 {place} 0 EOF
3: FLOCK  ADVISORY  WRITE 13 fe:99:1 0 EOF
4: FLOCK  ADVISORY  WRITE 0 {place} 0 EOF
5: FLOCK  ADVISORY  WRITE
6: FLOCK  ADVISORY  WRITE x <none>:0 0 EOF
7: FLOCK  ADVISORY  WRITE {pid} {found} 0 EOF
"""


@needs_proc
@pytest.mark.parametrize(
    ("pid", "device", "expected"), [(4711, None, 4711), (None, "ff:ff", "us"), (1 << 30, "ff:ff", None)]
)
def test_only_a_holder_of_this_file_is_named(
    scene: Scene, tmp_path: Path, monkeypatch: Any, pid: int | None, device: str | None, expected: Any
) -> None:
    """Where the system tells another device than `stat` (btrfs, overlayfs), the holder has to have the file open."""
    status = os.stat(scene.path)
    place = f"{os.major(status.st_dev):02x}:{os.minor(status.st_dev):02x}:{status.st_ino}"
    found = f"{device}:{status.st_ino}" if device else place
    table = tmp_path / "locks"
    table.write_text(LOCKS.format(place=place, found=found, pid=pid or os.getpid()))
    monkeypatch.setattr(holders, "told", lambda _: table.read_bytes())

    assert (os.getpid() if expected == "us" else expected) == holder(scene.path)


@needs_proc
@pytest.mark.parametrize(
    ("arguments", "shown"),
    [
        pytest.param(["-c", "{}"], "{python} -c", id="code"),
        pytest.param(["-X", "dev", "-u", "{script}", "--password=secret"], "{python} worker.py", id="script"),
        pytest.param(["-m", "worker", "secret"], "{python} -m worker", id="module"),
    ],
)
def test_a_program_is_named_without_its_arguments(tmp_path: Path, arguments: list[str], shown: str) -> None:
    body = "print('ready', flush=True); input()"
    script = tmp_path / "worker.py"
    script.write_text(body)
    command = [sys.executable, *(each.format(body, script=script) for each in arguments)]
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(command, cwd=tmp_path, **pipes) as process:
        assert process.stdout is not None
        process.stdout.readline()
        assert shown.format(python=os.path.basename(sys.executable)) == program(process.pid)
        process.communicate(b"\n")
    assert program(process.pid) is None


# Fork


@needs_fork
@of(*FORKED)
def test_a_forked_child_does_not_free_its_parents_lock(scene: Scene) -> None:
    """And with the parent ends the lock, although the child lives on (where the system can tell)."""
    other = scene.other()
    assert other.asked("try")
    child, child_could_lock = other.asked("fork")
    try:
        # A lock between threads exists once in each process; all others are the parent's, still.
        assert child_could_lock == scene.kind.startswith("threading")
        assert not takes(scene.flock, scene.fd)
        if scene.kind in KERNEL:
            other.killed()
            scene.acquired()
        else:
            other.asked("unlock")
            scene.acquired()
    finally:
        os.kill(child, signal.SIGKILL)


@needs_fork
@of("SoftFileLock", "FileLock")
def test_an_inherited_lock_object_of_filelock_does_not_free_its_parents_lock(scene: Scene) -> None:
    other = scene.other()
    assert other.asked("try")
    child, child_could_lock = other.asked("fork")
    with suppress(ProcessLookupError):
        os.kill(child, signal.SIGKILL)
    assert not child_could_lock
    assert not takes(scene.flock, scene.fd)


# Asynchronous exceptions


class Interrupt:
    """Raise KeyboardInterrupt at the n-th place where CPython would run a signal handler, in our code or a library's.

    These are: the beginning of a function, the end of a call, and the end of a round of a loop.
    """

    PLACES = ("RESUME", "CALL", "JUMP_BACKWARD")
    OURS = re.compile(
        r".*[/\\]pstate[/\\]file[/\\](lock|lock_objects|flock|holder)\.py|.*[/\\]site-packages[/\\](filelock|portalocker)[/\\]"
    )

    def __init__(self, n: int) -> None:
        self.left = n
        self.swallowed = False  #: by a finalizer or the end of a generator, which can raise it to nobody

    def __enter__(self) -> Interrupt:
        self.hook = sys.unraisablehook
        sys.unraisablehook = self.ignored
        expect_opcodes()
        sys.settrace(self.called)
        return self

    def __exit__(self, *_: object) -> None:
        sys.settrace(None)
        sys.unraisablehook = self.hook

    def ignored(self, args: Any) -> None:
        self.swallowed = True

    def called(self, frame: FrameType, event: str, argument: Any) -> Any:
        if not self.OURS.match(frame.f_code.co_filename):
            return None
        before = ""

        def stepped(frame: FrameType, event: str, argument: Any) -> Any:
            nonlocal before
            if event == "opcode":
                if before.startswith(self.PLACES):
                    self.left -= 1
                    if self.left == 0:
                        sys.settrace(None)
                        raise KeyboardInterrupt
                before = dis.opname[frame.f_code.co_code[frame.f_lasti]]
            return stepped

        trace_opcodes(frame, stepped)
        return stepped


def used(scene: Scene) -> bool:
    """The way in which the store uses a lock: what the module's docstring asks for."""
    try:
        return takes(scene.flock, scene.fd)
    finally:
        try:
            scene.unlock()
        except BaseException:
            scene.unlock()
            raise


def interruptions(use: Callable[[], object], undo: Callable[[], object] = lambda: None) -> Iterator[int]:
    """Interrupt *use* at every place, one after the other; *undo* it where it did not learn of the interruption."""
    for n in range(1, 10_000):
        with suppress(KeyboardInterrupt, BaseExceptionGroup), Interrupt(n) as interrupt:
            use()
        if interrupt.left > 0:
            assert n > 5, "hardly a place was found"
            return
        if interrupt.swallowed:
            undo()
        yield n
    raise AssertionError("no end of it")


def leaves_the_lock_free(scene: Scene) -> None:
    for n in interruptions(lambda: used(scene)):
        assert scene.is_free(), f"still locked after interruption {n}"
    assert used(scene)


def leaves_somebody_elses_lock(scene: Scene) -> None:
    fd = os.open(scene.path, os.O_RDWR)
    flock = scene.made()
    assert takes(flock, fd)
    for n in interruptions(lambda: used(scene)):
        assert not scene.is_free(), f"freed by interruption {n}"
        scene.unlock()
        assert not scene.is_free(), f"freed by unlocking after interruption {n}"
        # filelock 4 may keep a record of an interrupted acquire and walk it in the next: that would never end.
        scene.flock = scene.made()
    flock(fd, UNLOCK)
    os.close(fd)
    assert used(scene)


def acquires_or_holds_nothing(scene: Scene) -> None:
    for n in interruptions(lambda: scene.acquired(0), scene.unlock):
        assert scene.is_free(), f"still locked after interruption {n}"


def in_its_own_process(check: Callable[[Scene], None], kind: str, folder: Path) -> None:
    scene = Scene(kind, folder)
    check(scene)
    scene.ended()


@pytest.mark.parametrize("check", [leaves_the_lock_free, leaves_somebody_elses_lock, acquires_or_holds_nothing])
@pytest.mark.parametrize(
    "kind", ["filelock", "portalocker", "FileLock", "portalocker.Lock", "multiprocessing.Lock", "threading.Lock"]
)
def test_an_interruption_anywhere(check: Callable[[Scene], None], kind: str, tmp_path: Path) -> None:
    """In its own process, because a library that was interrupted need not be fit for other tests."""
    with BIRTH.Pool(1) as pool:
        pool.apply(in_its_own_process, (check, kind, tmp_path))


# What is refused


def test_an_unknown_name_is_refused(scene: Scene) -> None:
    with pytest.raises(
        TypeError, match=r"state\.yaml: locking='flok' is unknown\. Nothing .* Pass \"file\", \"filelock\""
    ):
        lock.make("flok", scene.path)


class Waiting:
    def acquire(self) -> bool:
        raise AssertionError("must not be called")

    def release(self) -> None: ...


class Asynchronous:
    async def acquire(self, timeout: float = 0) -> bool:
        raise AssertionError("must not be called")

    async def release(self) -> None: ...


@pytest.mark.parametrize(
    ("locking", "why"),
    [
        (None, r"locking=None has no acquire\(\)"),
        (types.SimpleNamespace(acquire=lambda timeout: True), r"has no release\(\)"),
        (Waiting(), r"has an acquire\(\) that always waits"),
        (Asynchronous(), r"has an asynchronous acquire\(\)"),
        (filelock.SoftFileLock, r"is a class, not a lock object"),
    ],
)
def test_what_is_no_lock_is_refused(scene: Scene, locking: Any, why: str) -> None:
    with pytest.raises(TypeError, match=why):
        lock.make(locking, scene.path)


@pytest.mark.parametrize("library", ["filelock", "portalocker"])
def test_a_missing_library_says_how_to_get_it(scene: Scene, monkeypatch: Any, library: str) -> None:
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(ModuleNotFoundError, match=f"pip install {library}$") as caught:
        lock.make(library, scene.path)
    assert library == caught.value.name


def test_no_lock_library_is_imported_before_it_is_chosen() -> None:
    code = (
        "import sys; from pstate.file import lock; lock.make('file', 'x'); "
        "print({'filelock', 'portalocker'} & {*sys.modules})"
    )
    root = os.path.dirname(os.path.dirname(os.path.dirname(lock.__file__)))
    output = subprocess.run([sys.executable, "-c", code], cwd=root, check=True, capture_output=True, text=True).stdout
    assert "set()" == output.strip()


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS])
def test_a_file_system_without_locks_is_an_error_that_names_a_way_out(scene: Scene, number: int) -> None:
    def flock(fd: int, operation: int) -> None:
        if operation == EXCLUSIVE_NOW:
            raise OSError(number, os.strerror(number))

    time = Time()
    with pytest.raises(
        errors.WriteError, match=r"no locks .*locking=filelock\.SoftFileLock\('.*state\.yaml\.lock'\)"
    ) as caught:
        lock.acquire(flock, scene.fd, scene.path, 10, time.clock, time.sleep)
    assert (number, scene.path) == (caught.value.errno, caught.value.path)
    assert [] == time.pauses


def test_a_permission_error_of_flock_means_that_somebody_else_holds_it(scene: Scene) -> None:
    refused: list[BaseException] = [PermissionError(errno.EACCES, "as some network file systems put it")]

    def flock(fd: int, operation: int) -> None:
        if operation == EXCLUSIVE_NOW and refused:
            raise refused.pop()

    time = Time()
    lock.acquire(flock, scene.fd, scene.path, 10, time.clock, time.sleep)
    assert 1 == len(time.pauses)


@of("filelock", "portalocker")
def test_a_lock_file_that_cannot_be_made_is_an_error_at_once(scene: Scene) -> None:
    Path(scene.path + ".lock").mkdir()
    time = Time()
    with pytest.raises(OSError, match=re.escape(scene.path)) as caught:
        scene.acquired(10, clock=time.clock, sleep=time.sleep)
    assert not isinstance(caught.value, errors.LockTimeout)
    assert [] == time.pauses


def test_what_a_lock_object_raises_by_itself_is_passed_on(scene: Scene) -> None:
    class Unreachable:
        def acquire(self, blocking: bool = True) -> bool:
            raise ConnectionError("no server")

        def release(self) -> None: ...

    with pytest.raises(ConnectionError, match="no server"):
        lock.acquire(lock.make(Unreachable(), scene.path), scene.fd, scene.path, 10)


# Every way to be told not to wait


class By:
    """A lock object whose `acquire` has the given signature."""

    def __init__(self, acquire: Callable[..., Any]) -> None:
        self.acquire = acquire
        self.released = 0

    def release(self) -> None:
        self.released += 1


class AlreadyLocked(Exception):
    """By its name portalocker's, which is not imported in order to compare."""


def raising(error: BaseException) -> Any:
    raise error


@pytest.mark.parametrize(
    ("acquire", "expected"),
    [
        pytest.param(lambda blocking: blocking is False, True, id="blocking"),
        pytest.param(lambda blocking=True, timeout=-1: blocking is False and timeout == -1, True, id="like threading"),
        pytest.param(
            lambda block=True, timeout=None: block is False and timeout is None, True, id="like multiprocessing"
        ),
        pytest.param(lambda timeout=None: timeout == 0, True, id="timeout only"),
        pytest.param(
            lambda timeout=None, check_interval=None, fail_when_locked=None: timeout == 0 and fail_when_locked is True,
            True,
            id="like portalocker",
        ),
        pytest.param(lambda **options: options == {"blocking": False}, True, id="any keyword"),
        pytest.param(lambda blocking: None, False, id="nothing returned is not a promise"),
        pytest.param(lambda timeout: raising(TimeoutError()), False, id="TimeoutError"),
        pytest.param(lambda timeout: raising(BlockingIOError()), False, id="BlockingIOError"),
        pytest.param(lambda timeout: raising(AlreadyLocked()), False, id="AlreadyLocked"),
    ],
)
def test_how_a_lock_object_is_asked_and_how_it_answers(scene: Scene, acquire: Any, expected: bool) -> None:
    theirs = By(acquire)
    flock = lock.make(theirs, scene.path)
    assert expected == takes(flock, scene.fd)

    flock(scene.fd, UNLOCK)
    flock(scene.fd, UNLOCK)
    assert expected == theirs.released
