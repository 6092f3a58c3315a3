"""A descriptor number belongs to us only while we know so: programs close all of theirs, and open others.

Where a test closes a descriptor of the state, it does so by `dup2` of another file, so that the number is certainly
somebody else's. What closes all descriptors runs in a process of its own.
"""

from __future__ import annotations

import ast
import contextlib
import errno
import fcntl
import gc
import os
import socket
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import filelock
import portalocker
import pytest
import yaml
from tools.disks import Failing
from tools.processes import PATIENCE, Crowd, Fork

from pstate import InvalidEditError, MissingPathError, PersistedState, PStateError, UnreadableError, WriteError
from pstate.file import fs as seam
from pstate.file.fs import NO_DESCRIPTOR, Descriptor, FileSystem
from pstate.file.journal import Journal
from pstate.file.limits import LOOK_INTERVAL

PACKAGE = Path(__file__).parent.parent / "pstate"
MESSAGE = "has closed the descriptor"


def descriptor_of(state: Any) -> int:
    """The number under which *state* has its file open."""
    journal = state._store.log.standing.journal
    assert journal is not None
    return int(journal.fd)


class Stranger:
    """Another file of the program, which has got the number of the state's, and a lock of its own."""

    def __init__(self, path: Path, content: bytes = b"mine\n", flags: int = os.O_RDWR | os.O_APPEND) -> None:
        path.write_bytes(content)
        self.path, self.content = path, content
        self.fd = os.open(path, flags)
        self.taken: list[int] = []
        fcntl.flock(self.fd, fcntl.LOCK_EX)

    def take(self, number: int) -> None:
        """What a program does that closes *number* without knowing whose it is, and opens its file."""
        os.dup2(self.fd, number, inheritable=False)
        self.taken.append(number)

    def is_well(self) -> bool:
        """Whether its bytes, its lock and its numbers are as they were."""
        other = os.open(self.path, os.O_RDWR)
        try:
            with pytest.raises(BlockingIOError):
                fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
        finally:
            os.close(other)
        assert self.path.read_bytes() == self.content
        for number in self.taken:
            assert os.path.samestat(os.fstat(number), os.stat(self.path)), "its descriptor was closed"
        return True

    def close(self) -> None:
        for number in {self.fd, *self.taken}:
            os.close(number)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state.yaml"


@pytest.fixture
def state(path: Path) -> Iterator[Any]:
    with PersistedState.open(path, defaults={"n": 0, "log": []}) as state:
        state.n = 1
        yield state


@pytest.fixture
def stranger(tmp_path: Path) -> Iterator[Stranger]:
    stranger = Stranger(tmp_path / "daemon.log")
    yield stranger
    stranger.close()


def in_a_block(state: Any) -> None:
    with state.transaction():
        state.n += 1


def in_a_block_that_fails(state: Any) -> None:
    with contextlib.suppress(ZeroDivisionError), state.transaction():
        state.n += 1
        raise ZeroDivisionError


def in_an_empty_block(state: Any) -> None:
    with state.transaction():
        pass


ACTS: dict[str, Callable[[Any], Any]] = {
    "set": lambda state: state.__setitem__("n", 2),
    "increment": lambda state: state.__setitem__("n", state.n + 1),
    "append": lambda state: state.log.append(1),
    "read": lambda state: state.n,
    "snapshot": lambda state: state.snapshot(),
    "transaction": in_a_block,
    "failing transaction": in_a_block_that_fails,
    "empty transaction": in_an_empty_block,
    "vacuum": lambda state: state.vacuum(),
    "watch": lambda state: state.watch(now=True, timeout=0).poll(),
    "history": lambda state: list(state.history()),
    "close": lambda state: state.close(),
}


def time_passes() -> None:
    """The last look at the path is too old by now."""
    until = time.monotonic() + 1.5 * LOOK_INTERVAL
    while time.monotonic() < until:
        time.sleep(LOOK_INTERVAL / 10)


@pytest.mark.parametrize("late", [False, True], ids=["at once", "later"])
@pytest.mark.parametrize("durability", ["process", "power"])
@pytest.mark.parametrize("act", ACTS)
def test_a_number_that_is_another_files_is_left_alone(
    path: Path, stranger: Stranger, act: str, durability: str, late: bool
) -> None:
    """Not a byte, not the lock, not the descriptor of the other file; and the state goes on."""
    with PersistedState.open(path, defaults={"n": 0, "log": []}, durability=durability) as state:
        state.n = 1
        stranger.take(descriptor_of(state))
        if late:
            time_passes()

        ACTS[act](state)

        assert stranger.is_well()
        if act != "close":
            state.log.append("after")
            assert state.log[-1] == "after"
    del state
    gc.collect()
    assert stranger.is_well()
    assert yaml.safe_load(path.read_bytes())["n"] == (2 if act in ("set", "increment", "transaction") else 1)


@pytest.mark.parametrize("act", ["set", "append", "read", "transaction", "vacuum", "close"])
def test_a_number_that_nobody_has_is_no_error(path: Path, state: Any, act: str, caplog: Any) -> None:
    """Nor is it told more than once for each time that it happens."""
    for _ in range(1 if act == "close" else 3):
        os.close(descriptor_of(state))

        ACTS[act](state)
        if act != "close":
            assert state.n in (1, 2, 3, 4)
    state.close()

    told = [record for record in caplog.records if MESSAGE in record.message]
    assert len(told) == (1 if act == "close" else 3)
    assert [record.levelname for record in caplog.records] == ["WARNING"] * len(told)
    assert yaml.safe_load(path.read_bytes())["n"] >= 1


def a_pipe() -> tuple[int, ...]:
    return os.pipe()


def a_socket() -> tuple[int, ...]:
    return tuple(end.detach() for end in socket.socketpair())


def a_device() -> tuple[int, ...]:
    return (os.open(os.devnull, os.O_RDWR),)


def a_folder() -> tuple[int, ...]:
    return (os.open("/", os.O_RDONLY),)


def a_terminal() -> tuple[int, ...]:
    return os.openpty()


@pytest.mark.parametrize("late", [False, True], ids=["at once", "later"])
@pytest.mark.parametrize("kind", [a_pipe, a_socket, a_device, a_folder, a_terminal])
@pytest.mark.parametrize("act", ["set", "read", "transaction", "close"])
def test_a_number_that_is_no_file_at_all(
    state: Any, kind: Callable[[], tuple[int, ...]], act: str, late: bool, path: Path
) -> None:
    ends = kind()
    number = descriptor_of(state)
    os.dup2(ends[0], number)
    before = os.fstat(number)
    if late:
        time_passes()

    ACTS[act](state)

    assert os.path.samestat(os.fstat(number), before)
    for end in {*ends, number}:
        os.close(end)
    state.close()
    assert yaml.safe_load(path.read_bytes())["n"] == (1 if act in ("read", "close") else 2)


def test_a_file_of_the_same_size(tmp_path: Path, state: Any, path: Path) -> None:
    """A copy of the state: after `LOOK_INTERVAL` at the latest it is not taken for ours."""
    copy = Stranger(tmp_path / "copy.yaml", path.read_bytes())
    copy.take(descriptor_of(state))
    time_passes()

    state.n = 2

    assert copy.is_well()
    state.close()
    assert yaml.safe_load(path.read_bytes())["n"] == 2
    copy.close()


def test_a_commit_that_went_into_a_file_of_the_same_size_is_made_again(tmp_path: Path, state: Any, path: Path) -> None:
    """Nobody has looked since, so that the record may go there. It is acknowledged, so it must be in ours too."""
    copy = Stranger(tmp_path / "copy.yaml", path.read_bytes())
    copy.take(descriptor_of(state))
    before = path.read_bytes()

    state.n = 2

    assert path.read_bytes() == before or copy.is_well()
    time_passes()
    assert state.n == 2
    state.log.append("after")
    reread = PersistedState.open(path, read_only=True, fs=FileSystem())
    assert reread.snapshot() == {"n": 2, "log": ["after"]}
    reread.close()
    copy.close()


@pytest.mark.parametrize("flags", [os.O_RDONLY, os.O_RDWR], ids=["to read", "to write"])
def test_the_same_file_opened_by_the_program(state: Any, path: Path, flags: int) -> None:
    """Another descriptor of the state's file is not ours: its lock and its closing are its owner's business."""
    other = os.open(path, flags)
    number = descriptor_of(state)
    os.dup2(other, number)
    os.close(other)
    time_passes()

    state.n = 2
    state.close()

    assert os.fstat(number)
    os.close(number)
    assert yaml.safe_load(path.read_bytes())["n"] == 2


@pytest.mark.parametrize("late", [False, True], ids=["at once", "later"])
def test_the_first_record_does_not_go_into_another_empty_file(path: Path, tmp_path: Path, late: bool) -> None:
    """Both are empty, so the size tells nothing."""
    state: Any = PersistedState(path)
    log = Stranger(tmp_path / "daemon.log", b"")
    log.take(descriptor_of(state))
    if late:
        time_passes()

    state.done = 1

    assert log.is_well()
    state.close()
    assert yaml.safe_load(path.read_bytes()) == {"done": 1}
    log.close()


@pytest.mark.parametrize("late", [False, True], ids=["at once", "later"])
@pytest.mark.parametrize("durability", ["process", "power"])
def test_a_transaction_that_loses_its_descriptor_is_undone(
    path: Path, stranger: Stranger, durability: str, late: bool
) -> None:
    """Its lock is gone: others may have committed what it has not seen."""
    state: Any = PersistedState.open(path, defaults={"n": 0}, durability=durability)
    state.n = 1

    with pytest.raises(WriteError, match=MESSAGE) as refused, state.transaction():
        state.n = 2
        stranger.take(descriptor_of(state))
        if late:
            time_passes()

    assert refused.value.errno == errno.EBADF
    assert stranger.is_well()
    assert state.n == 1
    in_a_block(state)
    state.close()
    assert stranger.is_well()
    assert yaml.safe_load(path.read_bytes()) == {"n": 2}


def test_a_transaction_that_fails_leaves_the_lock_of_the_other_file(state: Any, stranger: Stranger) -> None:
    """Rolled back, and empty ones, unlock too."""
    for act in (in_a_block_that_fails, in_an_empty_block):
        for body in (lambda: None, time_passes):
            with contextlib.suppress(ZeroDivisionError), state.transaction():
                if act is in_a_block_that_fails:
                    state.n = 7
                stranger.take(descriptor_of(state))
                body()
                if act is in_a_block_that_fails:
                    raise ZeroDivisionError

            assert stranger.is_well()
            assert state.n == 1


def test_a_state_that_is_read_only(path: Path, state: Any, stranger: Stranger) -> None:
    with PersistedState.open(path, read_only=True) as reader:
        assert reader["n"] == 1
        stranger.take(descriptor_of(reader))
        state.n = 2

        assert reader["n"] == 2
        state.n = 3
        assert reader["n"] == 3
    assert stranger.is_well()


def test_a_watch_goes_on_and_marks_the_file_again(path: Path, state: Any, stranger: Stranger) -> None:
    """Its thread finds the loss by itself; no commit of others is missed after that."""
    with Crowd(path) as crowd, state.watch("log", timeout=PATIENCE) as watch:
        other = crowd.other()
        stranger.take(descriptor_of(state))
        for number in range(3):
            other.run(f"state.log.append({number}); state.vacuum()")

        seen: list[Any] = []
        for change in watch:
            seen.append(change.new)
            if 2 in (change.new if isinstance(change.new, list) else [change.new]):
                break
        assert state.log == [0, 1, 2]
        assert stranger.is_well()


def test_what_others_have_vacuumed_meanwhile_comes_once(path: Path, state: Any, stranger: Stranger) -> None:
    """Their file has our commits: nothing is put back into it a second time."""
    state.log.append("mine")
    with Crowd(path) as crowd:
        other = crowd.other()
        stranger.take(descriptor_of(state))
        other.run("state.vacuum(); state.log.append('theirs'); state.vacuum(); state.n = 5")

        state.log.append("again")

        assert (state.log, state.n) == (["mine", "theirs", "again"], 5)
        assert other.ask("state.log.copy()") == ["mine", "theirs", "again"]
    assert stranger.is_well()


def test_what_others_have_committed_meanwhile_is_there(path: Path, state: Any, stranger: Stranger) -> None:
    with Crowd(path) as crowd:
        other = crowd.other()
        stranger.take(descriptor_of(state))
        other.run("state.log.append('theirs')")

        state.log.append("mine")

        assert state.log == ["theirs", "mine"]
    assert stranger.is_well()


@pytest.mark.parametrize("in_place", [False, True], ids=["renamed", "in place"])
def test_an_edit_meanwhile_is_brought_together_with_our_commits(
    path: Path, state: Any, stranger: Stranger, in_place: bool
) -> None:
    """The journal below it is ours, so that memory knows what the edit was made of."""
    state.vacuum()
    state.log.append("mine")
    stranger.take(descriptor_of(state))
    edited = b"name: new\n" + path.read_bytes()
    if in_place:
        path.write_bytes(edited)
    else:
        (path.parent / "new").write_bytes(edited)
        os.replace(path.parent / "new", path)

    state.n = 5

    assert state.snapshot() == {"name": "new", "n": 5, "log": ["mine"]}
    state.close()
    assert yaml.safe_load(path.read_bytes()) == {"name": "new", "n": 5, "log": ["mine"]}
    assert stranger.is_well()
    assert sorted(each.name for each in path.parent.iterdir()) == ["daemon.log", "state.yaml"]


def test_while_the_file_does_not_parse_reads_go_on(path: Path, state: Any, stranger: Stranger) -> None:
    stranger.take(descriptor_of(state))
    good = path.read_bytes()
    path.write_bytes(b"n: [\n")
    os.utime(path, (1e9, 1e9))

    assert state.n == 1
    with pytest.raises(InvalidEditError):
        state.n = 2
    assert state.n == 1
    path.write_bytes(good)
    os.utime(path, (1e9, 1e9))
    state.n = 3
    assert state.n == 3
    assert stranger.is_well()


def test_a_file_that_was_deleted_meanwhile(path: Path, state: Any, stranger: Stranger) -> None:
    """Nobody has its inode any more. Reads go on from memory, and no commit is acknowledged that is in no file."""
    stranger.take(descriptor_of(state))
    path.unlink()
    time_passes()

    assert state.n == 1
    with pytest.raises(MissingPathError, match="was deleted") as refused:
        state.n = 2
    assert isinstance(refused.value, FileNotFoundError)
    assert not path.exists()
    assert stranger.is_well()


def test_a_child_of_a_fork_leaves_the_number_alone_too(state: Any, stranger: Stranger) -> None:
    """It closes what it has inherited of ours, and that is not ours."""
    stranger.take(descriptor_of(state))

    def child() -> Any:
        state.n = 2
        return stranger.is_well()

    assert Fork(child).result() is True
    assert stranger.is_well()
    assert state.n == 2


def test_a_second_state_gets_the_number(path: Path, tmp_path: Path) -> None:
    """Both are ours: the one that had the number first is told at once that it has lost it."""
    first: Any = PersistedState(path, n=0)
    first.n = 1
    number = descriptor_of(first)
    os.close(number)
    second: Any = PersistedState(tmp_path / "second.yaml", n=0)
    second.n = 1
    assert descriptor_of(second) == number, "the system gives the lowest number"
    assert (tmp_path / "second.yaml").stat().st_size == path.stat().st_size
    with second.transaction():
        second.n = 5
        first.n = 7
        first.n = 8
        assert not Fork(lambda: is_free(tmp_path / "second.yaml")).result(), "its lock was given away"
    first.close()
    second.n += 1
    second.close()

    assert yaml.safe_load(path.read_bytes()) == {"n": 8}
    assert yaml.safe_load((tmp_path / "second.yaml").read_bytes()) == {"n": 6}


def is_free(path: Path) -> bool:
    fd = os.open(path, os.O_RDWR)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    finally:
        os.close(fd)
    return True


def test_the_garbage_collector_closes_no_other_file(path: Path, stranger: Stranger) -> None:
    path.write_bytes(b"n: 1\n")
    journal = Journal(FileSystem(), str(path), os.O_RDWR)
    stranger.take(journal.fd)

    del journal
    gc.collect()

    assert stranger.is_well()


def test_what_is_lost_is_told_to_its_keeper(path: Path) -> None:
    path.write_bytes(b"n: 1\n")
    journal = Journal(FileSystem(), str(path), os.O_RDWR)
    os.close(journal.fd)
    other = Descriptor(FileSystem())

    number = other.open(str(path), os.O_RDONLY)

    assert journal.fd == NO_DESCRIPTOR
    assert not journal.is_ours()
    journal.close()
    del journal
    assert other.is_ours()
    assert os.fstat(number)
    other.close()


def locks(kind: str, folder: Path) -> Any:
    made: dict[str, Callable[[], Any]] = {
        "FileLock": lambda: filelock.FileLock(folder / "object.lock"),
        "SoftFileLock": lambda: filelock.SoftFileLock(folder / "object.lock"),
        "Lock": lambda: portalocker.Lock(folder / "object.lock"),
    }
    return made[kind]() if kind in made else kind


@pytest.mark.parametrize("kind", ["file", "filelock", "portalocker", "FileLock", "SoftFileLock", "Lock"])
def test_the_lock_s_own_descriptor_is_left_alone_when_it_is_another_file_s(path: Path, kind: str) -> None:
    """Everything is closed within a block. What the program opens then keeps its locks, and the state goes on."""
    script = f"""
        import fcntl, os, sys
        sys.path.insert(0, {str(Path(__file__).parent)!r})
        from pathlib import Path
        from pstate import PersistedState, WriteError
        from test_descriptors import is_free, locks
        path = Path(sys.argv[1])
        state = PersistedState.open(path, locking=locks({kind!r}, path.parent), defaults={{"n": 0}}, lock_timeout=5)
        try:
            with state.transaction():
                state.n = 1
                os.closerange(3, 64)
                names = [path.parent / f"log{{number}}" for number in range(8)]
                files = [os.open(name, os.O_RDWR | os.O_CREAT) for name in names]
                for fd in files:
                    fcntl.flock(fd, fcntl.LOCK_EX)
        except WriteError as error:
            print("refused", error.errno)
        print(sum(is_free(name) for name in names), sum(name.stat().st_size for name in names))
        print([os.fstat(fd).st_nlink for fd in files])
        state.n += 5
        print(state.n)
        state.close()
        print([os.fstat(fd).st_nlink for fd in files], path.read_bytes())
    """

    lines = finished(script, path).splitlines()

    ones = "[1, 1, 1, 1, 1, 1, 1, 1]"
    assert lines == [f"refused {errno.EBADF}", "0 0", ones, "5", f"{ones} b'\"n\": 5\\n'"]


def finished(script: str, path: Path, redirected: str = "") -> str:
    """What *script*, in a process of its own, prints; it gets *path*."""
    file = path.parent / "script.py"
    file.write_text(textwrap.dedent(script))
    command = ["sh", "-c", f'exec "$0" "$@" {redirected}', sys.executable, str(file), str(path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_threads_go_on_while_everything_is_closed_again_and_again(path: Path) -> None:
    """Acknowledged changes are in the file; refused ones say why."""
    script = """
        import os, sys, threading, time
        from pstate import PersistedState, WriteError
        state = PersistedState(sys.argv[1], n=0)
        done, odd, stop = [0], [], threading.Event()
        def work():
            while not stop.is_set():
                try:
                    state.n += 1
                    done[0] += 1
                except WriteError:
                    pass
                except BaseException as error:
                    odd.append(error)
        thread = threading.Thread(target=work)
        thread.start()
        for number in range(100):
            before = done[0]
            os.closerange(3, 64)
            while done[0] == before and thread.is_alive() and not odd:
                time.sleep(0.001)
        stop.set()
        thread.join()
        print(state.n == done[0], odd)
        state.close()
    """
    assert finished(script, path) == "True []\n"


# ---------------------------------------------------------------------- standard streams


STREAMS = ["<&-", ">&-", "2>&-", ">&- 2>&-", "<&- >&- 2>&-"]


@pytest.mark.parametrize("kind", ["file", "filelock", "portalocker"])
@pytest.mark.parametrize("closed", STREAMS)
def test_no_file_of_ours_becomes_a_standard_stream(path: Path, closed: str, kind: str) -> None:
    """Cron's wrappers close them; what prints there, or redirects them, must not meet the state."""
    script = f"""
        import fcntl, os, sys
        report = os.open(sys.argv[1] + ".report", os.O_WRONLY | os.O_CREAT)
        said = os.fdopen(fcntl.fcntl(report, fcntl.F_DUPFD_CLOEXEC, 10), "w")
        os.close(report)
        def low():
            return sorted(int(name) for name in os.listdir("/proc/self/fd") if int(name) < 3)[:3]
        closed = [number for number in range(3) if not os.path.exists(f"/proc/self/fd/{{number}}")]
        def check():
            for number in closed:
                try:
                    os.fstat(number)
                    print("open:", os.readlink(f"/proc/self/fd/{{number}}"), file=said)
                except OSError:
                    pass
        from pstate import PersistedState
        state = PersistedState.open(sys.argv[1], defaults={{"n": 0}}, locking={kind!r})
        check()
        with state.transaction():
            state.n += 1
            check()
        state.vacuum()
        check()
        state.n += 1
        check()
        state.close()
        check()
        print("done", closed, file=said)
    """
    finished(script, path, closed)

    numbers = [number for number, word in enumerate(("<&-", " >&-", "2>&-")) if word in f" {closed}"]
    assert (path.parent / "state.yaml.report").read_text() == f"done {numbers}\n"
    assert yaml.safe_load(path.read_bytes()) == {"n": 2}


def test_a_command_with_closed_streams_writes_nothing_of_its_own_into_the_state(path: Path) -> None:
    path.write_bytes(b"n: 1\n")
    command = ["sh", "-c", 'exec "$0" -m pstate set "$1" n 2 <&- >&- 2>&-', sys.executable, str(path)]

    subprocess.run(command, timeout=PATIENCE, check=False)

    assert path.read_bytes() == b"n: 2\n"


def test_a_low_number_is_given_back_when_there_is_no_other(path: Path, monkeypatch: Any) -> None:
    path.write_bytes(b"n: 1\n")
    opened: list[int] = []

    def low(*args: Any) -> int:
        opened.append(os.open(*args))
        return opened[0]

    def refuse(fd: int) -> int:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    fs = FileSystem()
    fs.open = low
    monkeypatch.setattr(seam, "_LAST_STANDARD", 1 << 20)
    monkeypatch.setattr(os, "dup", refuse)
    descriptor = Descriptor(fs)

    with pytest.raises(OSError, match=os.strerror(errno.EMFILE)):
        descriptor.open(str(path), os.O_RDONLY)

    assert not descriptor
    with pytest.raises(OSError, match=os.strerror(errno.EBADF)):
        os.fstat(opened[0])


def calls_of_open(source: str) -> Iterator[str]:
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call):
            name = ast.unparse(node.func)
            if name in ("open", "os.open", "io.open", "os.fdopen"):
                yield name


def test_every_open_of_the_package_has_one_door() -> None:
    """`Descriptor` moves low numbers up and knows what it has opened. The command line fills the low numbers first."""
    found = {
        str(file.relative_to(PACKAGE)): names
        for file in PACKAGE.rglob("*.py")
        if "cli" not in file.parts and (names := list(calls_of_open(file.read_text())))
    }

    # What a lock object of others gets instead of its lost file, to close it; what a forked child puts in the place of
    # the parent's connection to a server; and a module, at its import.
    assert found == {"file/lock_objects.py": ["os.open", "open"], "rows/link.py": ["os.open"], "speed.py": ["open"]}


# ---------------------------------------------------------------------- no descriptor left


SHORT: dict[str, Callable[[Any], Any]] = {
    name: ACTS[name] for name in ("set", "append", "read", "snapshot", "transaction", "vacuum", "watch")
}


@pytest.mark.parametrize("text", [b"n: 0\nlog: []\n", b"# mine\nn: 0\nlog: []", b"n: 0\nlog: []\nb: |+\n  x\n\n"])
@pytest.mark.parametrize("read_only", [False, True])
@pytest.mark.parametrize("act", SHORT)
def test_no_descriptor_left_when_others_have_replaced_the_file(
    path: Path, act: str, read_only: bool, text: bytes
) -> None:
    """The newest commit is in a file that cannot be opened: an error of ours, not an old value, and no edit."""
    path.write_bytes(text)
    fs = Failing(error=errno.EMFILE)
    state: Any = PersistedState.open(path, read_only=read_only, fs=fs)
    with Crowd(path) as crowd:
        other = crowd.other()
        other.run("state.n = 2; state.vacuum(); state.n = 3; state.vacuum(); state.n = 4; state.vacuum()")
        time_passes()
        fs.failing = {"open"}
        wants_to_write = act in ("set", "transaction", "vacuum")
        with pytest.raises(PStateError) as refused:
            SHORT[act](state)
        if read_only and wants_to_write:
            assert isinstance(refused.value, PermissionError)
        else:
            assert isinstance(refused.value, UnreadableError)
            assert refused.value.errno == errno.EMFILE
            assert "ulimit" in str(refused.value)
        fs.failing = set()
        assert state.n == 4
        if not read_only:
            state.n = 5
            assert other.ask("state.n") == 5
    state.close()


def test_no_descriptor_left_when_ours_is_lost(path: Path, stranger: Stranger) -> None:
    fs = Failing(error=errno.EMFILE)
    state: Any = PersistedState.open(path, defaults={"n": 0, "log": []}, fs=fs)
    state.n = 1
    stranger.take(descriptor_of(state))
    fs.failing = {"open"}
    for act in ("set", "append", "read", "snapshot", "transaction", "vacuum"):
        with pytest.raises(UnreadableError) as refused:
            ACTS[act](state)
        assert refused.value.errno == errno.EMFILE
    fs.failing = set()

    state.n += 1

    assert state.n == 2
    state.close()
    assert stranger.is_well()
    assert yaml.safe_load(path.read_bytes()) == {"n": 2, "log": []}


def test_no_descriptor_left_for_a_vacuum(path: Path) -> None:
    fs = Failing(error=errno.EMFILE)
    state: Any = PersistedState.open(path, defaults={"n": 0}, fs=fs)
    fs.failing = {"open"}

    with pytest.raises(WriteError) as refused:
        state.vacuum()
    assert refused.value.errno == errno.EMFILE
    state.n = 1

    fs.failing = set()
    state.vacuum()
    assert path.read_bytes() == b'"n": 1\n'
    state.close()


def test_no_descriptor_left_in_a_real_process(path: Path) -> None:
    """Also for modules that are imported late, the folder's sync, and files kept beside."""
    script = """
        import os, resource, sys
        from pathlib import Path
        from pstate import PersistedState, PStateError
        path = Path(sys.argv[1])
        path.write_text("# mine\\nn: 0\\nl: []\\n")
        resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
        state = PersistedState(path)
        state.n = 1
        def edit(number):
            path.with_suffix(".new").write_bytes(b"name%d: new\\n" % number + path.read_bytes())
            os.replace(path.with_suffix(".new"), path)
            os.utime(path, (1e9, 1e9))
        def attempts():
            for act in (state.vacuum, lambda: state.l.append(1), lambda: state.n, state.snapshot, lambda: state["n"]):
                try:
                    act()
                except PStateError as error:
                    if getattr(error, "errno", None) != 24:
                        print(type(error), error)
                except BaseException as error:
                    print(type(error), error)
        for rooms in (0, 1, 2):
            edit(rooms)
            fill = []
            try:
                while True:
                    fill.append(os.open(os.devnull, os.O_RDONLY))
            except OSError:
                pass
            for _ in range(rooms):
                os.close(fill.pop())
            attempts()
            for fd in fill:
                os.close(fd)
            state.n += 1
        print(state.snapshot()["name2"], state.n)
        state.close()
        print(sorted(each.name for each in path.parent.iterdir()))
    """
    lines = finished(script, path).splitlines()

    assert lines == ["new 4", "['script.py', 'state.yaml']"]


def test_what_could_not_be_asked_is_asked_again(monkeypatch: Any) -> None:
    """For want of a descriptor, nobody can tell the boot, or whether a disk is far; the next time, somebody can."""
    fs = FileSystem()
    known = fs.boot_id()
    device = os.stat("/").st_dev
    seam._is_mounted_from_far.cache_clear()
    fs = FileSystem()

    def refuse(*args: Any) -> bytes:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    with monkeypatch.context() as patch:
        patch.setattr(seam, "told", refuse)
        assert fs.boot_id() == seam.UNKNOWN_BOOT
        assert not seam._is_far(device)

    assert fs.boot_id() == known
    monkeypatch.setattr(seam, "told", lambda *_: f"1 1 {os.major(device)}:{os.minor(device)} / / - nfs4 x".encode())
    assert seam._is_far(device)
    seam._is_mounted_from_far.cache_clear()


def test_a_thread_that_waits_for_the_lock_touches_no_other_file(path: Path, state: Any, stranger: Stranger) -> None:
    with Crowd(path) as crowd:
        other = crowd.other()
        other.enter("state.n = 8")
        number = descriptor_of(state)
        waiting = threading.Thread(target=state.__setitem__, args=("log", ["mine"]))
        waiting.start()
        hold = state._store.log.hold
        while hold.journal is None or hold.journal.fd != number:
            time.sleep(0.001)
        stranger.take(number)
        other.leave()
        waiting.join(PATIENCE)

        assert not waiting.is_alive()
        assert stranger.is_well()
        assert other.ask("state.snapshot()") == {"n": 8, "log": ["mine"]}


def test_a_watch_tells_what_follows_in_the_file_that_was_opened_again(state: Any, stranger: Stranger) -> None:
    """Its notes go on there, and so does the mark that others wait for."""
    with state.watch() as watch:
        stranger.take(descriptor_of(state))
        state.n = 5
        state.log.append(1)

        told: list[Any] = []
        until = time.monotonic() + PATIENCE
        while len(told) < 2 and time.monotonic() < until:
            told += watch.poll()
        assert [change.path for change in told] == [("n",), ("log", 0)]
        other = os.open(state._store.path, os.O_RDONLY)
        assert FileSystem().is_watched(other)
        os.close(other)
    assert stranger.is_well()


def test_a_long_transaction_does_not_believe_in_a_size(tmp_path: Path, state: Any, path: Path) -> None:
    with pytest.raises(WriteError, match=MESSAGE), state.transaction():
        state.n = 2
        copy = Stranger(tmp_path / "copy.yaml", path.read_bytes())
        copy.take(descriptor_of(state))
        time_passes()

    assert copy.is_well()
    assert state.n == 1
    copy.close()


def test_a_journal_changes_no_other_file(path: Path, stranger: Stranger) -> None:
    path.write_bytes(b"n: 1\n")
    journal = Journal(FileSystem(), str(path), os.O_RDWR | os.O_APPEND)
    stranger.take(journal.fd)

    for change in (lambda: journal.append(b"x", 5), lambda: journal.truncate(1)):
        with pytest.raises(OSError, match=MESSAGE) as refused:
            change()
        assert isinstance(refused.value, PStateError)

    assert stranger.is_well()
    assert path.read_bytes() == b"n: 1\n"


def test_a_command_opens_what_was_closed(path: Path) -> None:
    """So no file that it reads or writes, by whatever library, becomes one of the three."""
    script = """
        import os, sys
        from pstate.cli import main
        main(["set", sys.argv[1], "n", "2"])
        with open(sys.argv[1] + ".numbers", "w") as file:
            print([os.readlink(f"/proc/self/fd/{number}") for number in range(3)], file.fileno() > 2, file=file)
    """
    path.write_bytes(b"n: 1\n")

    finished(script, path, "<&- >&- 2>&-")

    numbers = (path.parent / "state.yaml.numbers").read_text()
    assert numbers == f"{[os.devnull] * 3} True\n"


def test_a_folder_that_cannot_be_opened_is_synced_with_everything(tmp_path: Path, monkeypatch: Any) -> None:
    """The file has been replaced by then: an error would say of it what is not so."""
    synced: list[str] = []

    def refuse(*args: Any) -> int:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    monkeypatch.setattr(seam.SYSTEM, "open", refuse)
    monkeypatch.setattr(os, "sync", lambda: synced.append("all"))

    FileSystem().sync_folder(str(tmp_path))

    assert synced == ["all"]
