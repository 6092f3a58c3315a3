"""Fill the disk while programs write: a change that is refused has changed nothing, one that is acknowledged is in it.

The disk is a tmpfs of some hundred kilobytes, in a mount namespace of its own: it is gone when the processes in it are,
however they end, and nobody else can fill it. A file beside the state takes room away and gives it back, also while a
program writes. Where such a disk may not be made, the system's limit on the size of files replaces it.

One process does one thing at a time, so after each it is known what memory (of everybody), the file, and the folder
must be: a refusal that left half a record, or a change in memory that is in no file, is seen at once and not when it
has done harm. In between all write at the same time, each to its own key.
"""

from __future__ import annotations

import ctypes
import errno
import logging
import os
import resource
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from pstate import PersistedState, StoreFailedError, WriteError
from pstate.file import format as f
from pstate.file import limits
from pstate.values import same
from stress.check import BrokenPromise, Trial, check, logged
from stress.real.workers import Crew, Link, Worker, expect_tidy, open_state, read_fresh

_CLONE_NEWNS = 0x0002_0000  # linux/sched.h
_CLONE_NEWUSER = 0x1000_0000
_MS_REMOUNT = 32
_MS_REC_PRIVATE = 0x4000 | (1 << 18)  # linux/mount.h

#: What the system says when it refuses: no room, a quota, a limit.
NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
#: Vacuums are due after so few bytes, that they meet a full disk too.
SMALL_JOURNAL = 8_000
LARGE = 30_000
STEPS = 40


# ---------------------------------------------------------------------- the disk


def _system(name: str, *args: Any) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if getattr(libc, name)(*args):
        number = ctypes.get_errno()
        raise OSError(number, f"{name}: {os.strerror(number)}")


def make_disk(folder: Path, size: int) -> None:
    """Mount a disk of *size* bytes at *folder*, for this process and those that it begins; it ends with them.

    Raises OSError, and AttributeError, where that may not be, or is not possible.
    """
    uid, gid = os.getuid(), os.getgid()
    if uid == 0:
        _system("unshare", _CLONE_NEWNS)
    else:
        _system("unshare", _CLONE_NEWNS | _CLONE_NEWUSER)
        # A user who has no number there can make no files.
        Path("/proc/self/uid_map").write_text(f"{uid} {uid} 1")
        Path("/proc/self/setgroups").write_text("deny")
        Path("/proc/self/gid_map").write_text(f"{gid} {gid} 1")
    _system("mount", b"none", b"/", None, ctypes.c_ulong(_MS_REC_PRIVATE), None)
    options = f"size={size}".encode()
    _system("mount", b"tmpfs", os.fsencode(folder), b"tmpfs", ctypes.c_ulong(0), options)


def keep_disk(link: Link, folder: Path, size: int) -> None:
    """Mount a disk of *size* bytes at *folder*, for us and those who join; change its room, and look at the state.

    Tells first whether that worked. The disk lives as long as we do.
    """
    try:
        make_disk(folder, size)
        (folder / "state").mkdir()
    except (OSError, AttributeError) as error:
        link.tell(str(error))
        return
    link.tell("")
    state, filler = folder / "state" / "state.yaml", os.open(folder / "filler", os.O_RDWR | os.O_CREAT)
    while True:
        match link.hear():
            case "look":
                link.tell(looked(state))
            case "file":
                link.tell(state.read_bytes())
            case "tidy", content:
                expect_tidy(state, content)
                link.tell(None)
            case "room", room:
                leave_room(filler, room)
                link.tell(None)
            case "grow":
                os.ftruncate(filler, 0)
                options = f"size={10 * size}".encode()
                _system("mount", None, os.fsencode(folder), None, ctypes.c_ulong(_MS_REMOUNT), options)
                link.tell(None)


def looked(state: Path) -> tuple[dict[Any, Any], list[str], bytes]:
    """What the file says, what is in its folder, and what follows the last commit."""
    return read_fresh(state), sorted(os.listdir(state.parent)), f.scan(state.read_bytes()).rest


def leave_room(filler: int, room: int) -> None:
    """Grow or shrink the file *filler* until about *room* bytes are free."""
    free = os.statvfs(filler).f_bavail * os.statvfs(filler).f_frsize
    size = os.fstat(filler).st_size
    if free < room:
        os.ftruncate(filler, max(0, size - (room - free)))
    else:
        try:
            os.pwrite(filler, bytes(free - room), size)
        except OSError as error:
            if error.errno != errno.ENOSPC:
                raise  # somebody else was faster, which is as good


def join_disk(pid: int) -> None:
    """See the disk that process *pid* keeps."""
    for space in ("user", "mnt"):
        if os.stat(f"/proc/{pid}/ns/{space}").st_ino != os.stat(f"/proc/self/ns/{space}").st_ino:
            fd = os.open(f"/proc/{pid}/ns/{space}", os.O_RDONLY | os.O_CLOEXEC)
            try:
                _system("setns", fd, 0)
            finally:
                os.close(fd)


# ---------------------------------------------------------------------- the programs


def write(link: Link, path: Path, disk: int, durability: str) -> None:
    """A program with the state open, that does what it is told. Tells how that went, and what memory is then."""
    limits.JOURNAL_MINIMUM = SMALL_JOURNAL
    logging.raiseExceptions = False  # the limit is also one for the file of the log
    if disk:
        join_disk(disk)
    options: dict[str, Any] = {"durability": durability}
    state = open_state(path, **options)
    link.tell(("done", state.snapshot()))
    while True:
        order: Any = link.hear()
        match order:
            case "limit", size:
                resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))
            case "reopen", _:
                state.close()
                state = open_state(path, **options)
            case "close", _:
                snapshot = state.snapshot()
                state.close()
                link.tell(("done", snapshot))
                return
            case "burst", sizes:
                link.tell(burst(state, link.name, sizes))
                continue
        try:
            carry_out(state, order)
        except StoreFailedError:
            raise  # a full disk lets everybody cut
        except WriteError as error:
            if error.errno not in NO_ROOM:
                raise
            link.tell(("refused", state.snapshot()))
        else:
            link.tell(("done", state.snapshot()))


def carry_out(state: Any, order: Any) -> None:
    """One change of *state*; the same on a plain dict, for the one that says what the file must have."""
    match order:
        case "set", (key, value):
            state[key] = value
        case "update", items:
            state.update(items)
        case "append", (key, value):
            if key in state:
                state[key].append(value)
            else:
                state[key] = [value]
        case "transaction", items:
            with state.transaction() if isinstance(state, PersistedState) else nullcontext():
                for key, value in items.items():
                    state[key] = value
        case "delete", key:
            if key in state:
                del state[key]
        case "vacuum", _:
            if isinstance(state, PersistedState):
                state.vacuum()


def burst(state: Any, key: str, sizes: list[int]) -> tuple[Any, int, int]:
    """Write values of these sizes; returns the last that was acknowledged, and how many were, and were refused."""
    last, done, refused = state.get(key), 0, 0
    for number, size in enumerate(sizes):
        value = [number, "b" * size]
        try:
            state[key] = value
        except WriteError as error:
            if error.errno not in NO_ROOM or isinstance(error, StoreFailedError):
                raise
            refused += 1
        else:
            last, done = value, done + 1
        seen = state.get(key)
        if last != seen:
            raise BrokenPromise(f"I8: {key} was last acknowledged as {str(last)[:80]}, memory says {str(seen)[:80]}")
    return last, done, refused


# ---------------------------------------------------------------------- the check


class Round:
    """A disk, the programs on it, and what the state must be."""

    def __init__(self, trial: Trial, crew: Crew, folder: Path) -> None:
        dice = trial.random
        self.trial = trial
        self.dice = dice
        self.size = dice.choice([96, 192, 320]) * 1024
        self.state: dict[str, Any] = {}
        self.folder = folder
        self.disk: Worker | None = None
        if dice.random() < 0.85:
            disk = crew.start("disk", keep_disk, folder, self.size)
            problem = disk.hear()
            if problem:
                trial.figures["no tmpfs"] = f"({problem})"
            else:
                self.disk = disk
        trial.count("rounds on a tmpfs" if self.disk else "rounds with a limit on the size of files")
        self.path = folder / "state" / "state.yaml"
        if self.disk is None:
            self.path.parent.mkdir(exist_ok=True)
        durability = dice.choice(["process", "process", "power"])
        pid = self.disk.pid if self.disk else 0
        names = "abc"[: dice.randrange(1, 4)]
        self.writers = [crew.start(name, write, self.path, pid, durability) for name in names]
        for writer in self.writers:
            self.expect_answer(writer, "opens", writer.hear())

    # What is asked of the disk

    def ask(self, order: Any) -> Any:
        assert self.disk is not None
        self.disk.tell(order)
        return self.disk.hear()

    def make_room(self, room: int) -> None:
        """Leave about *room* bytes."""
        self.trial.count("changes of the free space")
        if self.disk is not None:
            self.ask(("room", room))
        else:
            size = self.path.stat().st_size
            limit = resource.RLIM_INFINITY if room >= self.size else size // 2 if room == 0 else size + room
            for writer in self.writers:
                writer.tell(("limit", limit))
                self.expect_answer(writer, "gets another limit", writer.hear())

    def look(self, what: str) -> None:
        """The file and the folder must be what is known."""
        found, names, rest = looked(self.path) if self.disk is None else self.ask("look")
        if not same(found, self.state):
            raise BrokenPromise(f"{what}: the file says {difference(self.state, found)}")
        if rest:
            # The next writer would cut it, so that no state tells; but the file is not what it was.
            raise BrokenPromise(f"I8: {what}: {len(rest)} bytes follow the last commit: {rest[:80]!r}")
        if names != [self.path.name]:
            raise BrokenPromise(f"{what}: beside the state there is {', '.join(set(names) - {self.path.name})}")

    # What programs do

    def expect_answer(self, writer: Worker, what: str, answer: tuple[str, Any]) -> None:
        _, memory = answer
        if not same(memory, self.state):
            raise BrokenPromise(f"I8: {writer.name} {what}, and its memory says {difference(self.state, memory)}")

    def order(self) -> tuple[str, Any]:
        """Something to do."""
        dice = self.dice
        key = dice.choice("ijklm")
        size = dice.choice([5, 5, 200, 3000, LARGE])
        value = f"{dice.randrange(100)}" + "v" * dice.randrange(size)
        return dice.choices(
            [
                ("set", (key, value)),
                ("append", ("list", value)),
                ("update", {key: value, "n": [value[:9]]}),
                ("transaction", {key: 1, "n": dice.randrange(100), "m": value}),
                ("delete", dice.choice([key, "list"])),
                ("vacuum", None),
                ("reopen", None),
            ],
            [8, 4, 4, 6, 3, 3, 2],
        )[0]

    def step(self) -> None:
        """One program does one thing."""
        writer, order = self.dice.choice(self.writers), self.order()
        writer.tell(order)
        answer = writer.hear()
        what = f"{order[0]} was {answer[0]}"
        self.trial.count(f"{'vacuums' if order[0] == 'vacuum' else 'closes' if order[0] == 'reopen' else 'changes'}")
        if answer[0] == "refused":
            self.trial.count("refusals")
        else:
            carry_out(self.state, order)
        self.expect_answer(writer, what, answer)
        self.look(f"{writer.name}: {what}")

    def burst(self) -> None:
        """All write at once, while room comes and goes."""
        dice = self.dice
        for writer in self.writers:
            writer.tell(("burst", [dice.choice([3, 50, 900, 9000]) for _ in range(dice.randrange(5, 30))]))
        if self.disk is not None:
            for _ in range(dice.randrange(4)):
                self.ask(("room", dice.choice([0, 4096, 20_000, self.size])))
        for writer in self.writers:
            last, done, refused = writer.hear()
            if last is not None:
                self.state[writer.name] = last
            self.trial.count("changes", done)
            self.trial.count("refusals", refused)
        self.look("after all wrote at once")

    def end(self) -> None:
        """There is room again: everybody goes on, and closes."""
        if self.disk is not None:
            self.ask("grow")  # the state alone may have filled it
        else:
            self.make_room(self.size)
        self.writers[0].tell(("vacuum", None))
        self.expect_done(self.writers[0], "vacuums")
        for writer in self.writers:
            writer.tell(("set", (f"{writer.name} goes on", True)))
            self.state[f"{writer.name} goes on"] = True
            self.expect_done(writer, "commits although there was no room before")
        self.look("at the end")
        for writer in self.writers:
            writer.tell(("close", None))
            self.expect_done(writer, "closes")
            writer.join()
        if self.disk is not None:
            self.ask(("tidy", self.state))
        else:
            expect_tidy(self.path, self.state)

    def expect_done(self, writer: Worker, what: str) -> None:
        answer = writer.hear()
        if answer[0] != "done":
            raise BrokenPromise(f"there is room again, and {writer.name} is refused when it {what}")
        self.expect_answer(writer, what, answer)


def difference(expected: dict[str, Any], found: dict[str, Any]) -> str:
    """Where *found* is not *expected*, shortened."""
    keys = [key for key in {**expected, **found} if not same(expected.get(key), found.get(key))]
    return "; ".join(f"{key}: {str(found.get(key))[:80]} for {str(expected.get(key))[:80]}" for key in keys) or (
        f"the keys in the order {list(found)} for {list(expected)}"
    )


@check("disk-full", "A refused change on a full disk leaves memory and file as they were; with room, all work again.")
def disk_full(trial: Trial) -> None:
    with logged(trial.folder):
        while trial.goes_on():
            folder = trial.folder / "disk"
            folder.mkdir(exist_ok=True)
            with Crew(trial) as crew:
                one = Round(trial, crew, folder)
                try:
                    for number in range(STEPS):
                        chance = trial.random.random()
                        if chance < 0.3:
                            one.make_room(trial.random.choice([0, 0, 4096, 12_000, LARGE, one.size]))
                        if chance > 0.92:
                            one.burst()
                        one.step()
                        if number > 10 and not trial.goes_on():
                            break
                    one.end()
                except BrokenPromise:
                    if one.disk is not None and one.disk.is_alive():
                        (trial.folder / "state.yaml").write_bytes(one.ask("file"))
                    raise
            for each in (folder / "state").glob("*"):
                each.unlink()
