"""Fork at random moments, inside and outside transactions, and prove that no child breaks what is its parent's.

A family is a real interpreter that has a state open, counts in it, and forks again and again; so do its children. They
use the state that they were born with, or only leave: by the end of the block, an exception, `sys.exit`, `os._exit`,
`close`, a kill. Then there are threads that count during the forks, parents that are killed in their transaction while
children live, and every start method of multiprocessing. Each increment is told of in one write to a pipe after its
transaction, so the number in the file must be that of the messages, and at most one more for each that was killed.

The pipe ends only when the last of the family is gone, so its end is also the proof that nobody hangs. A family is
an interpreter of its own, because children that unwind, exit and run finalizers would take a fork of the check along.
"""

from __future__ import annotations

import contextlib
import faulthandler
import io
import multiprocessing
import os
import random
import select
import signal
import subprocess
import sys
import threading
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from pstate import ClosedError, LockTimeout, TransactionError
from pstate.file import limits
from stress.check import BrokenPromise, Trial, check, log_to, rounds
from stress.real.workers import PATIENCE, Silence, expect_tidy, is_locked, open_state, read_fresh

#: Vacuums are due after so few bytes in some of the families.
SMALL_JOURNAL = 2_000
#: After so many seconds a member of a family that still lives hangs.
WATCHED = 15
#: How deep families go: children of children.
GENERATIONS = 3
LEAVING = ["os._exit", "sys.exit", "raise", "close", "close and sys.exit", "reopen", "kill", "drop"]


class Leave(Exception):
    """What a child leaves with that nobody catches."""


# ---------------------------------------------------------------------- in the family


class Member:
    """One process of the family: the root, and in each child what it has inherited of this object."""

    def __init__(self, path: Path, seed: str, pipe: int) -> None:
        self.path = path
        self.pipe = pipe
        self.generation = 0
        self.dice = random.Random(seed)
        if self.dice.random() < 0.5:
            limits.JOURNAL_MINIMUM = SMALL_JOURNAL
        self.state: Any = open_state(path, lock_timeout=PATIENCE)
        self.deep: Any = self.state.deep  #: a reference from before the forks

    def tell(self, line: str) -> None:
        """One write, so that lines of all the family do not mix."""
        os.write(self.pipe, f"{line}\n".encode())

    def expect(self, condition: bool, message: str) -> None:
        if not condition:
            raise BrokenPromise(message)

    def increment(self) -> None:
        self.state.n += 1
        self.deep.n += 1
        self.state.log.append(self.state.n)
        del self.state.log[:-5]

    def count(self, times: int) -> None:
        for _ in range(times):
            with self.state.transaction():
                self.increment()
            self.tell("increments")

    def look(self) -> None:
        seen = self.state.snapshot()
        n = seen["n"]
        whole = seen["deep"]["n"] == n and seen["log"] == list(range(max(1, n - 4), n + 1))
        self.expect(whole, f"P6: process {os.getpid()} sees half of a transaction: {seen}")

    # what it does

    def live(self) -> None:
        steps: list[Callable[[], None]] = [
            self.fork_outside,
            self.fork_within,
            self.fork_and_kill,
            self.fork_with_a_busy_thread,
            lambda: self.count(3),
            self.state.vacuum,
        ]
        for _ in range(self.dice.randrange(3, 8) if self.generation == 0 else self.dice.randrange(3)):
            self.dice.choices(steps, [4, 6, 2, 2, 3, 1])[0]()
            self.look()

    def become_child(self) -> None:
        self.generation += 1
        # It does not repeat what its parent, or a child before it, has drawn.
        self.dice = random.Random(self.dice.random() + self.generation)
        watch()

    def fork(self, where: str = "outside transactions") -> int:
        self.dice.random()
        pid = os.fork()
        if pid == 0:
            self.become_child()
        else:
            self.tell(f"forks {where}")
        return pid

    def fork_outside(self) -> None:
        self.count(1)
        way = self.dice.choice(LEAVING)
        pid = self.fork()
        if pid == 0:
            if self.dice.random() < 0.7:
                self.look()
                self.count(self.dice.randrange(4))
            if self.generation < GENERATIONS and self.dice.random() < 0.4:
                self.live()
            self.leave(way)
        if self.dice.random() < 0.5:
            self.count(3)
        self.bury(pid, way)

    def fork_within(self) -> None:
        """In its parent's transaction a child sees what is committed, and does nothing to what is not."""
        me = os.getpid()
        way = self.dice.choice([*LEAVING, "end of the block", "end of the block", "rollback"])
        waits = self.dice.random() < 0.6
        with contextlib.ExitStack() as blocks:
            block = blocks.enter_context(self.state.transaction())
            before = self.state.n
            self.increment()
            if self.dice.random() < 0.3:
                block = blocks.enter_context(self.state.transaction())
            pid = self.fork("within a transaction")
            if pid == 0:
                self.be_within(block, before, waits)
                if way == "rollback":
                    with contextlib.suppress(TransactionError):
                        block.rollback()
                        raise BrokenPromise("P4: a child has rolled its parent's transaction back")
                elif way != "end of the block":
                    self.leave(way, use=not waits)
            elif waits:
                self.bury(pid, way)
                self.expect(self.state.n == before + 1, "P4: a child has changed its parent's transaction")
                self.expect(is_locked(self.path), "P7: a child has unlocked its parent's transaction")
        if os.getpid() != me:
            self.leave("os._exit", use=not waits)
        self.tell("increments")
        if not waits:
            self.bury(pid, way)

    def be_within(self, block: Any, before: int, waits: bool) -> None:
        if self.dice.random() < 0.3:
            return
        if waits:
            self.expect(
                self.state.n == before, f"P6: a child sees {self.state.n} of a transaction that began at {before}"
            )
            self.expect(self.deep.n == before, "P6: a child sees its parent's transaction through a reference")
            if self.dice.random() < 0.5:
                with contextlib.suppress(LockTimeout), self.state.transaction(timeout=0):
                    raise BrokenPromise("P7: a child has entered a transaction while its parent is in one")
        else:
            self.expect(self.state.n >= before, "P6: a child sees an old state")
            self.count(1)
        self.look()

    def fork_and_kill(self) -> None:
        """A child that counts until it is killed."""
        pid = self.fork()
        if pid == 0:
            while True:
                self.count(1)
        for _ in range(self.dice.randrange(6)):
            self.count(1)
        os.kill(pid, signal.SIGKILL)
        self.tell("kills")
        self.wait_for(pid, -signal.SIGKILL)

    def fork_with_a_busy_thread(self) -> None:
        """Only the thread that forks lives on in a child; what others were busy with is nobody's there."""
        ended = threading.Event()
        errors: list[BaseException] = []

        def busy() -> None:
            try:
                while not ended.is_set():
                    self.count(1)
            except BaseException as error:
                errors.append(error)

        thread = threading.Thread(target=busy)
        thread.start()
        try:
            for _ in range(self.dice.randrange(1, 4)):
                way = self.dice.choice(["os._exit", "close", "reopen"])
                pid = self.fork("beside a busy thread")
                if pid == 0:
                    self.look()
                    self.count(1)
                    self.leave(way)
                self.bury(pid, way)
        finally:
            ended.set()
            thread.join()
        if errors:
            raise errors[0]

    def leave(self, way: str, use: bool = True) -> None:
        """End this child. *use*: also by ways that use the state, which may wait for the parent's transaction."""
        if way == "close" or way == "close and sys.exit":
            self.state.close()
            with contextlib.suppress(ClosedError):
                len(self.state)
                raise BrokenPromise("a child has closed the state, and can still use it")
        elif way == "reopen":
            self.state.close()
            self.state = open_state(self.path, lock_timeout=PATIENCE)
            self.deep = self.state.deep
            if use:
                self.count(1)
        elif way == "drop":
            del self.state, self.deep  # finalizers run, perhaps within the parent's block
        if way in ("sys.exit", "close and sys.exit"):
            sys.exit(3)
        if way == "raise":
            raise Leave
        if way == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        os._exit(0)

    def bury(self, pid: int, way: str) -> None:
        codes = {"sys.exit": 3, "close and sys.exit": 3, "raise": 1, "kill": -signal.SIGKILL}
        self.wait_for(pid, codes.get(way, 0))

    def wait_for(self, pid: int, code: int) -> None:
        # The child is watched, so that it ends, whatever happens.
        found = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        self.expect(found == code, f"a child ended with {found}, not with {code}")

    # how the root ends

    def start_processes(self) -> None:
        """With every way in which multiprocessing starts them; they get the state as an argument."""
        method = self.dice.choice(multiprocessing.get_all_start_methods())
        context: Any = multiprocessing.get_context(method)
        process = context.Process(target=count_many, args=(self.state, 5))
        process.start()
        self.tell(f"processes by {method}")
        self.count(2)
        process.join()
        self.expect(process.exitcode == 0, f"a process that {method} has started ended with {process.exitcode}")
        for _ in range(5):
            self.tell("increments")

    def die_before_the_child(self) -> None:
        """The root is killed in its transaction: the lock is free then, although a child lives."""
        read, write = os.pipe()
        born, birth = os.pipe()
        with self.state.transaction():
            self.increment()
            if self.fork("within a transaction") == 0:
                os.close(write)
                os.write(birth, b".")
                os.read(read, 1)  # returns when nobody has the other end any more: the root is dead
                with self.state.transaction(timeout=5):
                    self.increment()
                self.tell("increments")
                self.look()
                os._exit(0)
            os.read(born, 1)
            self.tell("parents killed")
            os.kill(os.getpid(), signal.SIGKILL)


def count_many(state: Any, times: int) -> None:
    for _ in range(times):
        with state.transaction():
            state.n += 1
            state.deep.n += 1
            state.log.append(state.n)
            del state.log[:-5]


def watch() -> None:
    """End this process, with its stacks on stderr, before anybody's patience ends."""
    # `dump_traceback_later` waits in a child for the thread that it had in the parent.
    faulthandler.register(signal.SIGALRM, chain=True)
    signal.alarm(WATCHED)


def main(path: str, seed: str, pipe: str, folder: str) -> None:
    """The root of a family."""
    watch()
    log_to(Path(folder))
    member: Member | None = None
    try:
        member = Member(Path(path), seed, int(pipe))
        member.live()
        if member.dice.random() < 0.25:
            member.start_processes()
        if member.dice.random() < 0.3:
            member.die_before_the_child()
        member.state.close()
    except (Leave, SystemExit):
        raise
    except BaseException as error:
        text = str(error) if isinstance(error, BrokenPromise) else traceback.format_exc()
        os.write(int(pipe), f"!{text!r}\n".encode())
        raise


# ---------------------------------------------------------------------- in the check


@contextlib.contextmanager
def family(trial: Trial, path: Path) -> Iterator[tuple[io.FileIO, subprocess.Popen[bytes]]]:
    """A new family, and the end of its pipe. After the block nobody of it lives."""
    read, write = os.pipe()
    here = Path(__file__).parent.parent.parent
    paths = os.pathsep.join([str(here), *filter(None, [os.environ.get("PYTHONPATH")])])
    arguments = [str(path), str(trial.random.randrange(1 << 32)), str(write), str(trial.folder)]
    with open(trial.folder / "stderr.txt", "ab") as errors, open(read, "rb", buffering=0) as pipe:
        try:
            root = subprocess.Popen(
                [sys.executable, "-m", "stress.real.fork", *arguments],
                pass_fds=[write],
                stdin=subprocess.DEVNULL,
                stdout=errors,
                stderr=errors,
                env={**os.environ, "PYTHONPATH": paths},
                start_new_session=True,
            )
        finally:
            os.close(write)
        try:
            yield pipe, root
        finally:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(root.pid, signal.SIGKILL)  # all of them: the session is their own
            root.wait()


def lines(pipe: io.FileIO, who: str) -> Iterator[str]:
    """What the family tells, until the last of it is gone."""
    rest = b""
    until = time.monotonic() + PATIENCE
    while True:
        if not select.select([pipe], [], [], max(0.0, until - time.monotonic()))[0]:
            raise Silence(f"{who}: somebody of it still lives after {PATIENCE:.0f} s; see stderr.txt")
        data = pipe.read(1 << 16)
        if not data:
            return
        *whole, rest = (rest + data).split(b"\n")
        for line in whole:
            yield line.decode()


def one_family(trial: Trial, path: Path) -> None:
    with open_state(path, defaults={"n": 0, "deep": {"n": 0}, "log": []}):
        pass
    told: Counter[str] = Counter()
    with family(trial, path) as (pipe, root):
        for line in lines(pipe, f"the family of process {root.pid}"):
            if line.startswith("!"):
                raise BrokenPromise(f"in the family of process {root.pid}: {eval(line[1:])}")
            told[line] += 1
            trial.count(line)
        code = root.wait(PATIENCE)
    expected = -signal.SIGKILL if told["parents killed"] else 0
    trial.expect(code == expected, f"the root of a family ended with {code}; see stderr.txt")
    if is_locked(path):
        raise BrokenPromise("P7: all of the family are gone, and the lock is held")
    final = read_fresh(path)
    least, most = told["increments"], told["increments"] + told["kills"]
    if not least <= final["n"] <= most:
        raise BrokenPromise(f"P5: {least} increments were told of, {told['kills']} killed, the file says {final['n']}")
    if final["deep"]["n"] != final["n"]:
        raise BrokenPromise(f"P6: half of a transaction is in the file: {final}")
    with open_state(path) as state:
        state.last = "word"
    expect_tidy(path, {**final, "last": "word"})
    trial.count("families")


@check("fork", "A forked child breaks nothing of its parent, and can use the state itself.")
def fork(trial: Trial) -> None:
    rounds(trial, "family", one_family)


if __name__ == "__main__":
    main(*sys.argv[1:])
