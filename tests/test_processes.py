"""Many processes, one file: writers exclude each other, readers are fresh and never wait, and the dead hold nothing.

The others are real processes that do what they are told over a pipe (`tools.processes`). A message that arrived is
proof that what they did before it is done.
"""

from __future__ import annotations

import contextlib
import copy
import errno
import fcntl
import itertools
import json
import os
import pickle
import random
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from tools.disks import Disk
from tools.processes import KERNEL, KINDS, Crowd, Other, is_locked, is_plain

from pstate import BypassedError, LockTimeout, PersistedState, ReadOnlyError, RemovedError
from pstate.file import format as f
from pstate.file import limits
from pstate.file.fs import FileSystem
from pstate.text import reading

MARKER = b"... # pstate "


@pytest.fixture
def crowd(tmp_path: Path) -> Iterator[Crowd]:
    with Crowd(tmp_path / "state.yaml") as crowd:
        yield crowd


@pytest.fixture(params=KINDS)
def any_crowd(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Crowd]:
    """The same rules, by every kind of lock."""
    with Crowd(tmp_path / "state.yaml", request.param) as crowd:
        yield crowd


@pytest.fixture(params=KERNEL)
def mortal_crowd(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Crowd]:
    """By every kind of lock that dies with its holder."""
    with Crowd(tmp_path / "state.yaml", request.param) as crowd:
        yield crowd


@pytest.fixture
def loads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The base documents that this process has read since, whole and through YAML."""
    seen: list[str] = []
    load = reading.load

    def counted(data: bytes, path: str) -> Any:
        seen.append(path)
        return load(data, path)

    monkeypatch.setattr(reading, "load", counted)
    return seen


class Impatient(FileSystem):
    """A system on which nobody ever waits."""

    def __init__(self) -> None:
        super().__init__()
        self.sleep = self._refused

    def _refused(self, seconds: float) -> None:
        raise AssertionError("waited")


# ---------------------------------------------------------------------- writers exclude each other, by every lock


def test_no_increment_is_lost(any_crowd: Crowd) -> None:
    """Three processes count in transactions, and none of the counts is lost."""
    state = any_crowd.open(defaults={"n": 0})
    others = [any_crowd.other(lock_timeout=None) for _ in range(2)]
    for other in others:
        other.tell("for _ in range(60): increment(state)")
    for _ in range(60):
        with state.transaction(timeout=60):
            state.n += 1
    for other in others:
        other.answer()

    assert 180 == state.n
    assert [180, 180] == [other.ask("state.n") for other in others]


def test_transactions_of_two_processes_never_overlap(any_crowd: Crowd) -> None:
    """A process that enters finds that each one that entered before has left, and what they did."""
    state = any_crowd.open(defaults={"inside": None, "log": []})
    others = [any_crowd.other(lock_timeout=None) for _ in range(2)]
    for other in others:
        other.tell("""
            for i in range(20):
                with state.transaction():
                    assert state.inside is None
                    state.inside = os.getpid()
                    length = len(state.log)
                    state.log.append(os.getpid())
                    assert len(state.log) == length + 1
                    state.inside = None
        """)
    for other in others:
        other.answer()

    assert sorted([other.pid for other in others] * 20) == sorted(state.log)
    assert state.inside is None


def test_single_changes_of_two_processes_are_all_there(any_crowd: Crowd) -> None:
    """Without a transaction each call is one commit: none overwrites another's."""
    state = any_crowd.open(defaults={"log": [], "done": set()})
    others = [any_crowd.other(lock_timeout=None) for _ in range(2)]
    for number, other in enumerate(others):
        other.tell(f"""
            for i in range(40):
                state.log.append(({number}, i))
                state.done.add({number} * 1000 + i)
        """)
    for other in others:
        other.answer()

    assert [[0, i] for i in range(40)] == [entry for entry in state.log if entry[0] == 0]
    assert [[1, i] for i in range(40)] == [entry for entry in state.log if entry[0] == 1]
    assert {*range(40), *range(1000, 1040)} == state.done


def test_a_second_writer_is_refused_after_the_timeout_and_told_why(any_crowd: Crowd) -> None:
    state = any_crowd.open(defaults={"n": 0}, lock_timeout=0.05)
    other = any_crowd.other()
    other.enter("state.n = 7")

    with pytest.raises(LockTimeout) as caught:
        state.n = 1
    with pytest.raises(LockTimeout), state.transaction(timeout=0):
        pytest.fail("entered")

    error = caught.value
    assert any_crowd.path == error.path
    assert 0.05 <= error.waited < 5
    assert any_crowd.path in str(error)
    assert f"waited {error.waited:.1f} s" in str(error)
    if any_crowd.kind in KERNEL:
        assert other.pid == error.holder
        assert str(other.pid) in str(error)
    assert 0 == state.n
    other.leave()
    assert 7 == state.n
    state.n = 1
    assert 1 == other.ask("state.n")


def test_a_refused_writer_leaves_no_byte(any_crowd: Crowd) -> None:
    state = any_crowd.open(defaults={"n": 0, "d": {}}, lock_timeout=0)
    other = any_crowd.other()
    other.enter()
    before = any_crowd.file.read_bytes()
    changes: list[Callable[[], Any]] = [
        lambda: state.update(a=1),
        lambda: state.d.setdefault("x", 1),
        lambda: state.pop("n"),
        state.vacuum,
    ]
    for change in changes:
        with pytest.raises(LockTimeout):
            change()

    assert before == any_crowd.file.read_bytes()
    assert {"n": 0, "d": {}} == state
    other.leave()


def test_a_reader_is_fresh(any_crowd: Crowd) -> None:
    """What another process has acknowledged is what we see, at once."""
    state = any_crowd.open(defaults={"n": 0, "d": {"l": []}})
    other = any_crowd.other()
    inner = state.d.l
    for i in range(1, 60):
        other.run(f"""
            state.n = {i}
            state.d.l.append({i})
        """)
        assert i == state.n
        assert i == inner[-1]
        assert i == len(inner)
        state.n = -i
        assert -i == other.ask("state.n")


def test_a_reader_is_fresh_through_vacuums_and_closes(any_crowd: Crowd) -> None:
    state = any_crowd.open(defaults={"n": 0})
    other = any_crowd.other()
    for i in range(1, 25):
        other.run(f"state.n = {i}")
        if i % 3 == 0:
            other.run("state.vacuum()")
        if i % 4 == 0:
            other.run("state.close(); state = reopened()")
        if i % 7 == 0:
            state.vacuum()
        assert i == state.n


def test_what_a_writer_waited_for_is_what_it_builds_on(any_crowd: Crowd) -> None:
    """A writer that waits for the lock sees the transaction that it waited for."""
    state = any_crowd.open(defaults={"n": 1})
    other = any_crowd.other()
    other.enter("state.n = 10")
    other.tell("block.__exit__(None, None, None)")
    with state.transaction():
        state.n *= 5
    other.answer()

    assert 50 == state.n
    assert 50 == other.ask("state.n")


def test_the_last_lock_timeout_counts_for_every_state_of_a_file(tmp_path: Path) -> None:
    with Crowd(tmp_path / "state.yaml") as crowd:
        state = crowd.open(defaults={"n": 0}, lock_timeout=30)
        other = crowd.other()
        other.enter()
        crowd.open(lock_timeout=0)
        with pytest.raises(LockTimeout) as caught:
            state.n = 1
        assert caught.value.waited < 5
        other.leave()


def test_the_new_file_is_locked_before_anybody_can_find_it(tmp_path: Path) -> None:
    """A follower would commit to it before the one who made it has switched."""
    path = tmp_path / "state.yaml"
    fs = Disk()
    state = PersistedState.open(path, fs=fs)
    state["a"] = 1
    locked = []

    def before(name: str, *_: Any) -> None:
        if name in ("exchange", "sync_folder", "unlink"):
            locked.append((name, is_locked(str(path)), is_locked(str(tmp_path / ".state.yaml.swap"))))

    fs.before = before
    state.vacuum()
    fs.before = lambda *_: None
    assert [("exchange", True, True), ("sync_folder", True, True)] == locked[:2]
    assert ("unlink", True) == locked[2][:2]
    state.close()


# ---------------------------------------------------------------------- readers


def test_following_a_vacuum_does_not_read_the_file_again(crowd: Crowd, loads: list[str]) -> None:
    state = crowd.open(defaults={"n": 0, "d": {"x": 1}})
    loads.clear()
    other = crowd.other()
    for i in range(1, 6):
        other.run(f"state.n = {i}; state.d.x = {-i}; state.vacuum()")
        assert i == state.n
        assert -i == state.d.x
    other.run("state.n = 77; state.close()")

    assert 77 == state.n
    assert [] == loads


def test_following_does_not_read_the_file_again_for_a_writer_either(crowd: Crowd, loads: list[str]) -> None:
    state = crowd.open(defaults={"n": 0})
    loads.clear()
    other = crowd.other()
    for _ in range(5):
        other.run("state.n += 1; state.vacuum()")
        with state.transaction():
            state.n += 1
        other.run("state.close(); state = reopened()")
        state.n += 1

    assert 15 == other.ask("state.n")
    assert [] == loads


def test_a_vacuum_is_followed_by_those_who_slept_through_several(crowd: Crowd) -> None:
    state = crowd.open(defaults={"n": 0, "d": {}})
    other = crowd.other()
    held = state.d
    for i in range(1, 5):
        other.run(f"state.n = {i}; state.d['k{i}'] = {i}; state.vacuum()")
    other.run("state.n = 100; state.d.last = True")

    assert 100 == state.n
    assert {"k1": 1, "k2": 2, "k3": 3, "k4": 4, "last": True} == held
    held["mine"] = 1
    assert 1 == other.ask("state.d.mine")


def test_a_document_that_only_begins_like_the_one_that_was_announced_is_read(crowd: Crowd) -> None:
    """What was added since the vacuum that we know of is at the end of the next vacuum's document."""
    crowd.begin(a=1)
    reader, writer = crowd.open(read_only=True), crowd.other()
    sleeper, third = crowd.open(), crowd.other()
    assert 1 == reader.a == sleeper.a == third.ask("state.a")
    writer.run("state.vacuum(); state.k = 0; state.vacuum(); state.l = [1]")

    assert {"a": 1, "k": 0, "l": [1]} == reader.snapshot()
    third.run("state.l.append(2)")
    assert {"a": 1, "k": 0, "l": [1, 2]} == sleeper
    writer.run("state.vacuum(); state.l.append(3); state.vacuum()")
    assert {"a": 1, "k": 0, "l": [1, 2, 3]} == reader == sleeper
    sleeper.close()
    third.run("state.close()")
    writer.run("state.close()")
    assert {"a": 1, "k": 0, "l": [1, 2, 3]} == crowd.as_stranger()
    assert ["state.yaml"] == crowd.folder()


@pytest.mark.parametrize("touched", ["", "\nfor job in state.jobs: job['t'] = {i}"], ids=["same", "changed"])
@pytest.mark.parametrize("vacuums", [1, 2, 3])
def test_a_reference_into_a_list_stays_right_through_vacuums_that_we_slept_through(
    crowd: Crowd, vacuums: int, touched: str
) -> None:
    """Or it says that it is not in the state any more; but it never becomes its neighbour."""
    state = crowd.open(defaults={"jobs": [{"id": "a"}, {"id": "b"}]})
    held = state.jobs[1]
    other = crowd.other()
    for i in range(vacuums):
        other.run(f"state.jobs.insert(0, {{'id': 'new{i}'}}){touched.format(i=i)}\nstate.vacuum()")
    try:
        held["done"] = True
    except RemovedError:
        marked = []
    else:
        marked = ["b"]

    assert marked == [job["id"] for job in state.snapshot()["jobs"] if "done" in job]
    assert "b" == held["id"]


def test_reads_and_opening_never_wait_for_another_process(crowd: Crowd) -> None:
    """Also while it is in a transaction with changes, and while we have none of its commits yet."""
    state = crowd.open(defaults={"n": 0, "l": [1], "d": {"a": 1}}, fs=Impatient())
    other = crowd.other()
    other.run("state.n = 1")
    other.enter("state.n = 2; state.l.append(2); state.d.clear(); state.new = 1")

    assert 1 == state.n
    opened = crowd.open(fs=Impatient(), read_only=True)
    third = crowd.other(lock_timeout=0)
    for snapshot in (state.snapshot(), opened.snapshot(), third.ask("state.snapshot()")):
        assert {"n": 1, "l": [1], "d": {"a": 1}} == snapshot
    assert [1] == state.l
    assert '{"n": 1, "l": [1], "d": {"a": 1}}' == json.dumps(state)
    third.run("state.close()")
    opened.close()
    other.leave()
    assert {"n": 2, "l": [1, 2], "d": {}, "new": 1} == state


def test_opening_with_defaults_that_are_there_does_not_wait(crowd: Crowd) -> None:
    crowd.begin(n=1)
    other = crowd.other()
    other.enter("state.n = 2")

    assert 1 == crowd.open(defaults={"n": 0}, fs=Impatient()).n


@pytest.mark.parametrize("held", ["shell", "pstate"])
def test_opening_with_a_torn_tail_does_not_wait_for_a_writer(crowd: Crowd, held: str) -> None:
    """The tail is left to the next writer; what is committed is read."""
    torn(crowd)
    other = crowd.other(opened=False)
    other.run("import fcntl; fd = os.open(path, os.O_RDWR); fcntl.flock(fd, fcntl.LOCK_EX)")
    if held == "pstate":
        other.run("os.close(fd); state = reopened()")
        other.enter("state.more = 1")

    state = crowd.open(fs=Impatient())
    assert {"n": 5} == state
    if held == "pstate":
        other.leave()
        assert {"n": 5, "more": 1} == state
    else:
        other.run("os.close(fd)")
    state.n = 6
    assert 6 == crowd.other().ask("state.n")


def torn(crowd: Crowd) -> bytes:
    """Let a writer die in the middle of its write, and return the unfinished bytes."""
    writer = crowd.other(stepping=True)
    writer.run("state.n = 5")
    size = crowd.file.stat().st_size
    writer.tell("""
        def before(name, *args):
            if name == "write":
                os.write(args[0], args[1][:-7])
                os.kill(os.getpid(), 9)
        fs.before = before
        state.n = 6
    """)
    assert -9 == writer.join()
    tail = crowd.file.read_bytes()[size:]
    assert tail
    return tail


def test_a_torn_tail_is_cut_by_one_writer_while_others_read(crowd: Crowd) -> None:
    """The record that takes its place may have the same length: its readers see it all the same."""
    crowd.begin()
    reader = crowd.open()
    tail = torn(crowd)
    assert 5 == reader.n
    others = [crowd.other(), crowd.other()]
    assert [5, 5] == [other.ask("state.n") for other in others]
    others[0].run("state.n = 7")

    assert 7 == reader.n
    assert 7 == others[1].ask("state.n")
    assert tail not in crowd.file.read_bytes()
    others[1].run("state.n = 8")
    assert 8 == reader.n


def test_a_reader_never_takes_half_a_record(crowd: Crowd) -> None:
    """A write is seen whole or not at all, at whatever byte the writer is just now."""
    state = crowd.open(defaults={"n": 0})
    other = crowd.other(stepping=True)
    other.run("state.n = 1")
    other.tell("""
        def before(name, *args):
            if name == "write":
                for i in range(len(args[1])):
                    pipe.send(i)
                    pipe.recv()
                    os.write(args[0], args[1][i:i + 1])
                return len(args[1])
        fs.before = before
        state.n = 22
    """)
    looks = 0
    while True:
        heard = other.hear()
        if isinstance(heard, tuple):
            break
        assert 1 == state.n, heard
        if looks % 8 == 0:
            assert {"n": 1} == PersistedState.open(crowd.path, fs=Impatient(), read_only=True).snapshot()
        looks += 1
        other.pipe.send("go")

    assert (True, None) == heard
    assert looks > 30
    assert 22 == state.n


def test_a_read_only_state_follows_everything(crowd: Crowd) -> None:
    other = crowd.other()
    other.run("state.n = 0")
    state = crowd.open(read_only=True)
    for i in range(1, 8):
        other.run(f"state.n = {i}")
        if i % 2:
            other.run("state.vacuum()")
        if i % 3 == 0:
            other.run("state.close(); state = reopened()")
        assert i == state.n
    with pytest.raises(ReadOnlyError):
        state.n = 9
    assert 7 == other.ask("state.n")


@pytest.mark.parametrize("content", [b"# nothing yet", b"\xef\xbb\xbf", b"  "])
def test_a_vacuum_of_a_file_without_a_final_newline_is_followed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes
) -> None:
    monkeypatch.setattr(limits, "LOOK_INTERVAL", 3600.0)
    path = tmp_path / "state.yaml"
    path.write_bytes(content)
    with Crowd(path) as crowd:
        state = crowd.open()
        other = crowd.other()
        other.run("state.vacuum(); state.a = 1")
        state.b = 2
        assert {"a": 1, "b": 2} == state.snapshot() == other.ask("state.snapshot()")


def test_a_read_that_reads_the_file_again_finds_the_vacuum(tmp_path: Path) -> None:
    with Crowd(tmp_path / "state.yaml") as crowd:
        state = crowd.open(defaults={"jobs": [1], "x": 1})
        list.append(state.jobs, 2)
        with pytest.raises(BypassedError):
            state.jobs.append(3)
        crowd.other().run("state.vacuum(); state.x = 2")
        assert 2 == state.x


# ---------------------------------------------------------------------- transactions are atomic for others


NAMES = [f"account{i}" for i in range(6)]

TRANSFERS = """
    import random
    dice = random.Random({seed})
    for i in range({times}):
        with state.transaction():
            one, two = dice.sample(sorted(state{root}), 2)
            state{root}[one] -= i
            state{root}[two] += i
        if i % 40 == 39:
            state.vacuum()
"""

WHOLE: dict[str, Callable[[Any], Any]] = {
    "dict": dict,
    "values": lambda bank: dict(enumerate(bank.values())),
    "items": lambda bank: {key: value for key, value in bank.items()},  # noqa: C416
    "list of items": lambda bank: dict(list(bank.items())),
    "unpacked": lambda bank: {**bank},
    "copy": lambda bank: bank.copy(),
    "copy.copy": copy.copy,
    "deepcopy": copy.deepcopy,
    "pickle": lambda bank: pickle.loads(pickle.dumps(bank)),
    "json": lambda bank: json.loads(json.dumps(bank)),
    "json, indented": lambda bank: json.loads(json.dumps(bank, indent=1)),
    "yaml": lambda bank: yaml.safe_load(yaml.safe_dump(bank)),
    "repr": lambda bank: yaml.safe_load(repr(bank)),
    "merged": lambda bank: bank | {},
    "updated": lambda bank: updated({}, bank),
    "keywords": lambda bank: dict(**bank),
}


def updated(target: dict[Any, Any], source: Any) -> dict[Any, Any]:
    target.update(source)
    return target


@pytest.mark.parametrize("root", ["", ".accounts"], ids=["the root", "below"])
def test_the_sum_of_the_bank_is_never_wrong(crowd: Crowd, root: str) -> None:
    """Two processes move money, and however we look at all accounts, it is all there."""
    accounts = dict.fromkeys(NAMES, 100)
    state = crowd.open(defaults={"accounts": accounts} if root else accounts)
    others = [crowd.other(lock_timeout=None) for _ in range(2)]
    for seed, other in enumerate(others):
        other.tell(TRANSFERS.format(seed=seed, times=120, root=root))
    looks = 0
    while not all(other.has_answered() for other in others) or looks < 3:
        for name, look in WHOLE.items():
            seen = look(state.accounts if root else state)
            assert 600 == sum(seen.values()), name
            assert 6 == len(seen), name
        seen = state.snapshot()
        assert 600 == sum((seen["accounts"] if root else seen).values())
        looks += 1
    for other in others:
        other.answer()
    assert 600 == sum((state.accounts if root else state).values())


NESTED: dict[str, Callable[[Any], Any]] = {
    "snapshot": lambda state: state.snapshot(),
    "json": lambda state: json.loads(json.dumps(state)),
    "json, indented": lambda state: json.loads(json.dumps(state, indent=1)),
    "yaml": lambda state: yaml.safe_load(yaml.safe_dump(copy.deepcopy(state))),
    "deepcopy": copy.deepcopy,
    "repr": lambda state: yaml.safe_load(repr(state)),
    "one container": lambda state: copy.deepcopy(state.outer),
    "json of one container": lambda state: json.loads(json.dumps(state.outer)),
    "pickle of one container": lambda state: pickle.loads(pickle.dumps(state.outer)),
    "repr of one container": lambda state: yaml.safe_load(repr(state.outer)),
}


@pytest.mark.parametrize("name", NESTED)
def test_a_look_at_containers_in_containers_is_one_commit(crowd: Crowd, name: str) -> None:
    """What is in two containers and changes together is seen together."""
    state = crowd.open(defaults={"outer": {"left": {"n": 0}, "right": [{"n": 0}], "between": list(range(50))}})
    other = crowd.other(lock_timeout=None)
    other.tell("""
        for i in range(1, 200):
            with state.transaction():
                state.outer.left.n = i
                state.outer.right[0].n = i
    """)
    look = NESTED[name]
    while not other.has_answered():
        seen = look(state)
        seen = seen.get("outer", seen)
        assert seen["left"]["n"] == seen["right"][0]["n"]
    other.answer()


def test_equality_compares_one_commit(crowd: Crowd) -> None:
    state = crowd.open(defaults={"a": 0, "b": {"x": 0}, "c": 0})
    other = crowd.other(lock_timeout=None)
    other.tell("""
        for i in range(300):
            with state.transaction():
                state.a = state.b.x = state.c = i % 2
    """)
    legal = [{"a": 0, "b": {"x": 0}, "c": 0}, {"a": 1, "b": {"x": 1}, "c": 1}]
    illegal = [dict(zip("abc", (a, {"x": b}, c), strict=True)) for a, b, c in itertools.product((0, 1), repeat=3)]
    illegal = [each for each in illegal if each not in legal]
    while not other.has_answered():
        for each in illegal:
            assert not state == each  # noqa: SIM201
            assert state != each
    other.answer()
    assert legal[1] == state


def test_an_exception_in_a_transaction_is_never_seen_by_others(crowd: Crowd) -> None:
    state = crowd.open(defaults={"n": 0, "l": []})
    other = crowd.other()
    before = crowd.file.read_bytes()
    other.enter("state.n = 1; state.l.append(1)")
    assert {"n": 0, "l": []} == state
    other.run("block.__exit__(ValueError, ValueError(), None)")

    assert {"n": 0, "l": []} == state
    assert before == crowd.file.read_bytes()
    state.n = 2
    assert 2 == other.ask("state.n")


# ---------------------------------------------------------------------- death


def test_a_lock_dies_with_its_holder(mortal_crowd: Crowd) -> None:
    """And what it had not committed never was in the file."""
    state = mortal_crowd.open(defaults={"n": 0}, lock_timeout=10)
    other = mortal_crowd.other()
    other.run("state.n = 1")
    other.enter("state.n = 2; state.lost = True")
    other.kill()
    with state.transaction(timeout=0):
        assert {"n": 1} == state
        state.n += 10

    assert {"n": 11} == mortal_crowd.other().ask("state.snapshot()")


def test_a_program_that_the_holder_started_does_not_keep_the_lock(mortal_crowd: Crowd) -> None:
    """Descriptors do not reach what is executed, even with `close_fds=False`."""
    state = mortal_crowd.open(defaults={"n": 0})
    other = mortal_crowd.other()
    other.enter("state.n = 2")
    other.run("import subprocess; child = subprocess.Popen(['sleep', '60'], close_fds=False)")
    child = other.ask("child.pid")
    try:
        other.kill()
        with state.transaction(timeout=0):
            state.n += 1
        os.kill(child, 0)
    finally:
        os.kill(child, 9)
    assert 1 == state.n


STORM = """
    import random
    dice = random.Random(os.getpid())
    n = state.setdefault(name, 0)
    while True:
        n += 1
        with state.transaction():
            assert state[name] == n - 1
            state[name] = n
            state.total += 1
            state.log.append([name, n])
            del state.log[:-5]
        pipe.send(n)
        chance = dice.random()
        if chance < 0.05:
            state.vacuum()
        elif chance < 0.10:
            state.close()
            state = reopened()
"""


def test_no_acknowledged_commit_is_lost_in_a_storm_of_kills(mortal_crowd: Crowd) -> None:
    """Writers are killed wherever they are just now, again and again; each goes on where its last commit was."""
    dice = random.Random(4711)
    state = mortal_crowd.open(defaults={"total": 0, "log": []})
    acknowledged = dict.fromkeys("abc", 0)
    writers: dict[str, Other] = {}

    def listen(name: str) -> None:
        heard = writers[name].hear()
        assert isinstance(heard, int), heard
        assert acknowledged[name] < heard
        acknowledged[name] = heard

    for _ in range(15):
        for name in acknowledged:
            if name not in writers:
                writers[name] = mortal_crowd.other(lock_timeout=None)
                writers[name].tell(f"name = {name!r}\n{STORM.replace(chr(10) + '    ', chr(10))}")
        for _ in range(dice.randrange(4)):
            for name in acknowledged:
                listen(name)
        name = dice.choice("abc")
        writers[name].kill()
        with contextlib.suppress(EOFError):
            while True:
                listen(name)
        del writers[name]
        seen = state.snapshot()
        for each, last in acknowledged.items():
            assert last <= seen.get(each, 0), "an acknowledged commit is lost"
        assert seen.get(name, 0) <= acknowledged[name] + 1
        assert seen["total"] == sum(seen.get(each, 0) for each in acknowledged)
        for each in acknowledged:
            logged = [n for who, n in seen["log"] if who == each]
            assert logged == list(range(seen.get(each, 0) - len(logged) + 1, seen.get(each, 0) + 1))
    for writer in writers.values():
        writer.kill()
    final = state.snapshot()
    state.close()

    assert final == mortal_crowd.as_stranger()
    if mortal_crowd.kind == "file":
        assert ["state.yaml"] == mortal_crowd.folder()


STEPS = {
    "a commit": "state.n += 1",
    "a transaction": "\nwith state.transaction():\n    state.n += 1\n    state.l.append(state.n)",
    "a vacuum": "state.vacuum()",
    "a close": "state.close()",
}


@pytest.mark.parametrize("dies", [False, True], ids=["slow", "killed"])
@pytest.mark.parametrize("step", STEPS)
def test_others_go_on_while_one_stops_anywhere(crowd: Crowd, step: str, dies: bool) -> None:
    """Before each system call that changes something, and in the middle of each write."""
    for number in itertools.count():
        crowd.begin(n=0, l=[0])
        old = crowd.open()
        other = crowd.other(stepping=True)
        other.run("state.n = 1")
        if step == "a close" or step == "a vacuum":
            assert 1 == old.n
        other.tell(f"""
            count = -1
            def before(name, *args):
                global count
                count += 1
                if count == {number}:
                    if name == "write":
                        os.write(args[0], args[1][:len(args[1]) // 2])
                    pipe.send(name)
                    pipe.recv()
                    if {dies}:
                        os.kill(os.getpid(), 9)
                    if name == "write":
                        raise OSError({errno.EIO}, "the disk")
            fs.before = before
        """)
        other.answer()
        other.tell(STEPS[step])
        stopped = other.hear()
        before = [{"n": 1, "l": [0]}]
        if isinstance(stopped, tuple):  # it was through before
            assert (True, None) == stopped
            before = []
        else:
            with PersistedState.open(crowd.path, read_only=True) as young:
                assert old.snapshot() in before, stopped
                assert young.snapshot() in before, stopped
            other.pipe.send("go")
            if dies:
                assert -9 == other.join()
            else:
                with contextlib.suppress(OSError):
                    other.answer()
        seen = old.snapshot()
        assert seen["n"] in (1, 2)
        if dies and before:
            assert seen in before
        with old.transaction(timeout=0 if dies else 30):
            old.n += 10
        if not dies and step != "a close":
            assert seen["n"] + 10 == other.ask("state.n")
            other.run("fs.before = lambda *args: None; state.close()")
        old.close()
        other.kill()

        assert {**seen, "n": seen["n"] + 10} == crowd.as_stranger()
        assert ["state.yaml"] == crowd.folder()
        if isinstance(stopped, tuple):
            break
    assert number >= (1 if step.startswith(("a c", "a t")) and step != "a close" else 5)


@pytest.mark.parametrize("survivor", ["existed", "comes later"])
@pytest.mark.parametrize("step", ["a vacuum", "a close"])
def test_a_survivor_that_only_closes_leaves_nothing_of_the_dead(crowd: Crowd, step: str, survivor: str) -> None:
    """Wherever the vacuum of the dead had got to, and although the survivor has nothing to write."""
    for number in itertools.count():
        crowd.begin(n=0)
        state = crowd.open() if survivor == "existed" else None
        other = crowd.other(stepping=True)
        other.run("state.n = 1")
        other.tell(f"""
            count = -1
            def before(name, *args):
                global count
                count += 1
                if count == {number}:
                    os.kill(os.getpid(), 9)
            fs.before = before
            {STEPS[step]}
        """)
        died = True
        with contextlib.suppress(EOFError):
            other.answer()
            died = False
        other.kill()
        state = state or crowd.open()
        assert {"n": 1} == state
        state.close()

        assert {"n": 1} == crowd.as_stranger()
        assert ["state.yaml"] == crowd.folder(), number
        if not died:
            break
    assert number >= 5


# ---------------------------------------------------------------------- the beginning and the end


@pytest.mark.parametrize("first", ["here", "there"])
def test_the_last_closer_leaves_one_plain_document_and_nothing_else(crowd: Crowd, first: str) -> None:
    state = crowd.open(defaults={"n": 0})
    other = crowd.other()
    other.run("state.theirs = 1")
    state.mine = 2
    if first == "here":
        state.close()
        other.run("state.n = 5; state.close()")
    else:
        other.run("state.n = 5; state.close()")
        state.close()

    assert {"n": 5, "theirs": 1, "mine": 2} == crowd.as_stranger()
    assert MARKER not in crowd.file.read_bytes()
    assert ["state.yaml"] == crowd.folder()


def test_closing_while_others_have_it_open_disturbs_nobody(any_crowd: Crowd) -> None:
    state = any_crowd.open(defaults={"n": 0, "d": {}})
    held = state.d
    for i in range(6):
        other = any_crowd.other()
        third = any_crowd.other()
        other.run(f"state.d['k{i}'] = {i}")
        if i % 2:
            third.run("state.n += 1")
        other.run("state.close()")
        assert i == held[f"k{i}"]
        third.run("state.n += 1")
        third.run("state.close()")
        held[f"mine{i}"] = i
    state.close()

    expected = {"n": 9, "d": {name: i for i in range(6) for name in (f"k{i}", f"mine{i}")}}
    assert expected == any_crowd.as_stranger()


def test_closing_does_not_wait_for_a_writer_who_then_leaves_it_tidy(crowd: Crowd) -> None:
    state = crowd.open(fs=Impatient())
    state.n = 1
    other = crowd.other()
    other.enter("state.n = 2")
    state.close()
    assert MARKER in crowd.file.read_bytes()
    other.leave()
    other.run("state.close()")

    assert {"n": 2} == crowd.as_stranger()
    assert ["state.yaml"] == crowd.folder()


def test_reading_and_closing_changes_no_byte(crowd: Crowd) -> None:
    """Neither of a clean file, nor of one that others have open without having changed it."""
    crowd.file.write_text("# mine\nn:   1   # one\n")
    before = crowd.file.read_bytes(), crowd.file.stat().st_ino, crowd.file.stat().st_mtime_ns
    state = crowd.open(defaults={"n": 0})
    other = crowd.other()
    assert 1 == other.ask("state.n") == state.n
    other.run("state.close()")
    state.close()

    assert before == (crowd.file.read_bytes(), crowd.file.stat().st_ino, crowd.file.stat().st_mtime_ns)


@pytest.mark.parametrize("ending", ["state.close()", "del state", "import gc; state = None; gc.collect()"])
def test_closers_at_the_same_moment_leave_it_tidy(crowd: Crowd, ending: str) -> None:
    expected: dict[str, int] = {}
    for i in range(8):
        others = [crowd.other(lock_timeout=None) for _ in range(3)]
        for number, other in enumerate(others):
            other.tell(f"state['k{number}'] = {i}\n{ending}")
            expected[f"k{number}"] = i
        for other in others:
            other.answer()

        assert expected == crowd.as_stranger()
        assert ["state.yaml"] == crowd.folder()


FIRST = {
    "missing": None,
    "empty": "",
    "a comment": "# to be filled\n",
    "plain": "a: 1\n",
    "no newline": "a: 1",
    "a block at its end": "a: |+\n  text\n\n",
    "a block without newline": "a: |\n  text",
    "its own end": "a: 1\n...\n",
    "its own start": "---\na: 1\n",
    "flow": "{a: 1}",
}


@pytest.mark.parametrize("name", FIRST)
def test_the_first_commits_of_two_processes_to_a_clean_file_are_both_there(crowd: Crowd, name: str) -> None:
    text = FIRST[name]
    for _ in range(4):
        crowd.file.unlink(missing_ok=True)
        if text is not None:
            crowd.file.write_text(text)
        others = [crowd.other(lock_timeout=None) for _ in range(2)]
        state = crowd.open()
        before = state.snapshot()
        for number, other in enumerate(others):
            other.tell(f"state['k{number}'] = {number}; increment(state) if 'n' in state else None")
        for other in others:
            other.answer()
        assert {**before, "k0": 0, "k1": 1} == state
        documents = crowd.file.read_bytes().split(MARKER)
        assert len(documents) <= 2
        assert [{**before, "k0": 0, "k1": 1}] * 2 == [other.ask("state.snapshot()") for other in others]
        for other in others:
            other.run("state.close()")
        state.close()

        assert {**before, "k0": 0, "k1": 1} == crowd.as_stranger()
        assert ["state.yaml"] == crowd.folder()


def test_processes_that_create_the_same_file_share_it(crowd: Crowd) -> None:
    """Defaults of one do not overwrite what the other has done with them."""
    for _ in range(8):
        others = [crowd.other(opened=False, lock_timeout=None) for _ in range(3)]
        for other in others:
            other.tell("""
                with pstate.PersistedState(path, n=0, l=[]) as state:
                    for i in range(3):
                        increment(state)
                        state.l.append(i)
            """)
        for other in others:
            other.answer()
        found = crowd.as_stranger()
        assert 9 == found["n"]
        assert [0, 0, 0, 1, 1, 1, 2, 2, 2] == sorted(found["l"])
        assert ["state.yaml"] == crowd.folder()
        crowd.file.unlink()


def test_durability_power_is_shared_too(crowd: Crowd) -> None:
    state = crowd.open(defaults={"n": 0}, durability="power")
    others = [crowd.other(durability=durability, lock_timeout=None) for durability in ("power", "process")]
    for other in others:
        other.tell("for i in range(20): increment(state)")
    for _ in range(20):
        with state.transaction(timeout=60):
            state.n += 1
    for other in others:
        other.answer()

    assert 60 == state.n
    state.close()
    for other in others:
        other.run("state.close()")
    assert {"n": 60} == crowd.as_stranger()


@pytest.mark.parametrize("name", [name for name in FIRST if name != "missing"])
def test_others_go_on_when_the_first_commit_stops_anywhere(crowd: Crowd, name: str) -> None:
    """Nobody who looks meanwhile, or opens it after the crash, takes the writer's marks for a person's text."""
    text = FIRST[name]
    assert text is not None
    content = yaml.safe_load(text) or {}
    for number in itertools.count():
        crowd.file.write_text(text)
        old = crowd.open()
        writer = crowd.other(stepping=True)
        writer.tell(f"""
            count = -1
            def before(name, *args):
                global count
                count += 1
                if count == {number}:
                    pipe.send(name)
                    pipe.recv()
                    os.kill(os.getpid(), 9)
            fs.before = before
            state.new = 1
        """)
        stopped = writer.hear()
        through = isinstance(stopped, tuple)
        legal = [{**content, "new": 1}] if through else [content, {**content, "new": 1}]
        for _ in ("before its death", "after it"):
            with PersistedState.open(crowd.path, read_only=True) as young:
                assert young.snapshot() in legal, stopped
            assert old.snapshot() in legal, stopped
            if writer.process.exitcode is None and not through:
                writer.pipe.send("die")
                assert -9 == writer.join()
        expected = old.snapshot()
        with PersistedState.open(crowd.path) as young:
            assert expected == young
        old.close()
        writer.kill()

        assert expected == (crowd.as_stranger() or {}), stopped
        if through:
            break


# ---------------------------------------------------------------------- references and loops


def test_a_reference_sees_what_other_processes_do(crowd: Crowd) -> None:
    state = crowd.open(defaults={"d": {"inner": {"x": 1}}, "l": [[1], [2]], "s": {1}})
    d, inner, last, members = state.d, state.d.inner, state.l[1], state.s
    other = crowd.other()
    other.run("state.d.inner.x = 2; state.l[1].append(3); state.s.add(2); state.d.more = 1")

    assert 2 == inner.x
    assert [2, 3] == last
    assert {1, 2} == members
    assert {"inner": {"x": 2}, "more": 1} == d
    inner.x = 3
    last.append(4)
    members.discard(1)
    assert {"d": {"inner": {"x": 3}, "more": 1}, "l": [[1], [2, 3, 4]], "s": {2}} == other.ask("state.snapshot()")


REMOVALS = {
    "deleted": "del state.d",
    "popped": "state.pop('d')",
    "replaced": "state.d = {'x': 1}",
    "replaced by a scalar": "state.d = 5",
    "cleared": "state.clear()",
    "deleted above": "del state['d']",
    "in a transaction": "\nwith state.transaction():\n    del state.d\n    state.d = {'x': 1}",
    "then vacuumed": "del state.d; state.vacuum()",
    "then vacuumed twice": "del state.d; state.vacuum(); state.y = 1; state.vacuum()",
    "then closed": "del state.d; state.close()",
}


@pytest.mark.parametrize("name", REMOVALS)
def test_a_reference_that_another_process_removed_refuses_changes(crowd: Crowd, name: str) -> None:
    state = crowd.open(defaults={"d": {"x": 1, "l": [1], "s": {1}}, "y": 0})
    d, items, members = state.d, state.d.l, state.d.s
    other = crowd.other()
    other.run(REMOVALS[name])
    before = state.snapshot()
    content = crowd.file.read_bytes()
    changes: list[Callable[[], Any]] = [
        lambda: d.update(x=2),
        lambda: items.append(2),
        lambda: members.add(2),
        lambda: d.pop("x"),
        items.sort,
    ]
    for change in changes:
        with pytest.raises(RemovedError):
            change()
    with pytest.raises(RemovedError), state.transaction():
        d["x"] = 5

    assert before == state
    assert content == crowd.file.read_bytes()


def test_a_change_of_a_removed_reference_is_refused_without_a_read_before(crowd: Crowd) -> None:
    """The change itself finds out."""
    state = crowd.open(defaults={"d": {"x": 1}})
    d = state.d
    crowd.other().run("state.d = {'x': 7}")
    with pytest.raises(RemovedError):
        d.x = 2

    assert {"d": {"x": 7}} == state


def test_what_we_took_out_waits_for_nobody(crowd: Crowd) -> None:
    """It is not state any more, so another process' transaction does not concern it."""
    state = crowd.open(defaults={"l": [1], "d": {"deep": {}}}, lock_timeout=0)
    taken, deep = state.pop("l"), state.d.deep
    del state.d
    other = crowd.other()
    other.enter("state.n = 5")

    taken.append(2)
    deep.x = 1
    with pytest.raises(LockTimeout):
        state.n = 1

    assert ([1, 2], {"x": 1}) == (taken, deep)
    other.leave()
    assert {"n": 5} == state


def test_what_we_took_out_is_ours_whatever_others_do(crowd: Crowd) -> None:
    state = crowd.open(defaults={"d": {"x": 1}})
    taken = state.pop("d")
    crowd.other().run("state.d = {'x': 7}")
    taken["x"] = 2

    assert {"x": 2} == taken
    assert {"d": {"x": 7}} == state


def test_a_reference_into_a_list_stays_right_whatever_others_do(crowd: Crowd) -> None:
    state = crowd.open(defaults={"jobs": [{"id": i} for i in range(6)]})
    held = {i: state.jobs[i] for i in range(6)}
    other = crowd.other()
    other.run("state.jobs.insert(0, {'id': -1})")
    held[3]["seen"] = 1
    other.run("state.jobs.reverse()")
    held[4]["seen"] = 2
    other.run("del state.jobs[0:2]; state.jobs.sort(key=lambda job: (job['id'] * 7) % 5)")
    held[0]["seen"] = 3
    other.run("state.jobs[1:1] = [{'id': 90}, {'id': 91}]; state.jobs.pop(0)")
    remaining = {job["id"] for job in state.jobs}
    for i, job in held.items():
        if i in remaining:
            job["last"] = i
        else:
            with pytest.raises(RemovedError):
                job["last"] = i

    for job in other.ask("state.jobs"):
        assert job["id"] == job.get("last", job["id"])
        if job["id"] in held:
            assert "last" in job
    assert 3 == len(set(held) - remaining)


@pytest.mark.parametrize(
    ("loop", "expected"),
    [
        ("list(walk(state.d))", ["a", "b", "c"]),
        ("list(walk(state.d.keys()))", ["a", "b", "c"]),
        ("list(walk(state.d.values()))", [1, 2, 3]),
        ("list(walk(state.d.items()))", [("a", 1), ("b", 2), ("c", 3)]),
        ("list(walk(reversed(state.d)))", ["c", "b", "a"]),
        ("list(walk(state.l))", [1, 2, 3]),
        ("list(walk(reversed(state.l)))", [3, 2, 1]),
        ("list(walk(enumerate(state.l)))", [(0, 1), (1, 2), (2, 3)]),
        ("sorted(walk(state.s))", [1, 2, 3]),
        ("list(walk(state))", ["d", "l", "s"]),
        ("[k for k, v in walk(state.items())]", ["d", "l", "s"]),
    ],
)
def test_a_loop_walks_the_state_as_it_was_when_it_began(crowd: Crowd, loop: str, expected: Any) -> None:
    """Another process can cause no "changed size during iteration"."""
    state = crowd.open(defaults={"d": {"a": 1, "b": 2, "c": 3}, "l": [1, 2, 3], "s": {1, 2, 3}})
    other = crowd.other()
    turn = itertools.count()

    def walk(iterable: Any) -> Iterator[Any]:
        for each in iterable:
            number = next(turn)
            other.run(f"""
                state.d['new{number}'] = state['new{number}'] = {number}
                state.d.pop('b', None)
                state.l[:] = [{number}] * (9 - {number})
                state.s |= {{100 + {number}}}
                state.s.discard(2)
            """)
            assert number == state[f"new{number}"]  # we have caught up in the middle of the loop
            yield each

    assert expected == eval(loop, {"state": state, "walk": walk})
    assert 3 == next(turn)
    assert "b" not in state.d


def test_containers_from_another_process_are_plain_after_a_pipe(crowd: Crowd) -> None:
    other = crowd.other()
    other.run("state.d = {'l': [{1, 2}, {'x': None}]}")
    answer = other.ask("state.d")

    assert {"l": [{1, 2}, {"x": None}]} == answer
    assert is_plain(answer)


def test_a_script_with_flock_takes_part(crowd: Crowd) -> None:
    """`flock state.yaml script.sh` excludes us, and is excluded by us."""
    state = crowd.open(defaults={"n": 0}, lock_timeout=0)
    with open(crowd.path, "rb+") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with pytest.raises(LockTimeout) as caught:
            state.n = 1
    assert os.getpid() == caught.value.holder
    assert "this process" in str(caught.value)
    with state.transaction():
        assert is_locked(crowd.path)
    assert not is_locked(crowd.path)


def test_lock_timeout_is_the_time_that_was_waited(crowd: Crowd) -> None:
    crowd.begin(n=0)
    other = crowd.other()
    other.enter()
    state = crowd.open(lock_timeout=0.2)
    started = time.monotonic()
    with pytest.raises(LockTimeout, match=r"waited \d+\.\d s .*held by process") as caught:
        state.n = 1
    took = time.monotonic() - started

    assert 0.2 <= caught.value.waited <= took
    assert isinstance(caught.value, TimeoutError)
    with pytest.raises(LockTimeout) as caught, state.transaction(timeout=0.1):
        pytest.fail("entered")
    assert 0.1 <= caught.value.waited <= time.monotonic() - started - took


def test_a_marker_is_written_once(crowd: Crowd) -> None:
    """All processes of one generation write into the same journal, one chain of records."""
    crowd.begin(n=0)
    others = [crowd.other(lock_timeout=None) for _ in range(3)]
    for other in others:
        other.tell("for i in range(10): increment(state)")
    for other in others:
        other.answer()
    image = f.scan(crowd.file.read_bytes())

    assert f.Verdict.CLEAN == image.verdict
    assert 30 == image.index
    assert 1 == crowd.file.read_bytes().count(MARKER)


def test_no_file_that_was_replaced_stays_open(crowd: Crowd) -> None:
    """Neither after a vacuum of ours nor after one of others, as soon as a commit has followed."""

    def held() -> list[str]:
        links = (f"/proc/self/fd/{name}" for name in os.listdir("/proc/self/fd"))
        return [path for path in map(_target, links) if path.startswith(str(crowd.file.parent))]

    crowd.begin(n=0)
    state = crowd.open()
    other = crowd.other()
    for _ in range(2):
        state.n = 1
        state.vacuum()
        other.run("state.n = 2; state.vacuum(); state.n = 3")
        state.n = 4
        state.n = 5
        assert [crowd.path] == held()


def _target(link: str) -> str:
    try:
        return os.readlink(link)
    except FileNotFoundError:
        return ""  # the descriptor of the listing
