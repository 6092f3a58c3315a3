"""Durability "power" with several threads: one sync serves all who wait, and nobody sees what was not synced."""

from __future__ import annotations

import errno
import fcntl
import os
import signal
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from pathlib import Path

import pytest
from tools.disks import Gated

from pstate import DurabilityUnknown, PersistedState
from pstate.file import format as f

PATIENCE = 10.0


@pytest.fixture
def disk() -> Gated:
    return Gated()


@pytest.fixture
def state(tmp_path: Path, disk: Gated) -> Iterator[PersistedState]:
    state = PersistedState.open(tmp_path / "state.yaml", defaults={"n": 0}, durability="power", fs=disk)
    state.n = 1
    disk.close_the_gate()
    yield state
    disk.gate.set()
    disk.problem = None
    state.close()


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(8) as pool:
        yield pool


def put(state: PersistedState, key: str) -> None:
    state[key] = 1


def change(state: PersistedState, key: str) -> None:
    with state.transaction():
        state[key] = 1
        state[f"{key} too"] = [1]


def commit_while_the_first_syncs(
    state: PersistedState, disk: Gated, pool: ThreadPoolExecutor, path: Path, keys: str
) -> list[Future[None]]:
    """One commit that waits at the gate, and after it one of each of *keys*, which have written."""
    before = f.scan(path.read_bytes()).index
    first = pool.submit(put, state, "first")
    assert disk.waiting.wait(PATIENCE)
    others = [pool.submit(put, state, key) for key in keys]
    deadline = time.monotonic() + PATIENCE
    while f.scan(path.read_bytes()).index < before + 1 + len(keys):
        assert time.monotonic() < deadline, "the others do not write while one syncs"
        time.sleep(0.001)
    return [first, *others]


def test_one_sync_serves_all_who_have_written_meanwhile(
    state: PersistedState, disk: Gated, pool: ThreadPoolExecutor, tmp_path: Path
) -> None:
    commits = commit_while_the_first_syncs(state, disk, pool, tmp_path / "state.yaml", "abcdef")
    assert not any(commit.done() for commit in commits), "acknowledged before the sync"
    assert 1 == disk.syncs

    disk.gate.set()
    for commit in commits:
        commit.result(PATIENCE)
    assert 2 == disk.syncs
    assert {"n": 1, "first": 1, **dict.fromkeys("abcdef", 1)} == state


def test_nobody_sees_what_another_thread_has_not_synced_yet(
    state: PersistedState, disk: Gated, pool: ThreadPoolExecutor, tmp_path: Path
) -> None:
    commits = commit_while_the_first_syncs(state, disk, pool, tmp_path / "state.yaml", "a")
    readers = [
        pool.submit(lambda: state.get("first")),
        pool.submit(lambda: state.a),
        pool.submit(lambda: "a" in state),
        pool.submit(state.snapshot),
    ]
    done, _ = wait(readers, 0.05)
    assert not done, "a read was answered before the sync"
    assert state._store.fresh() is None

    disk.gate.set()
    seen = [reader.result(PATIENCE) for reader in readers]
    assert [1, 1, True, {"n": 1, "first": 1, "a": 1}] == seen
    for commit in commits:
        commit.result(PATIENCE)


def test_a_block_begins_on_what_is_synced(
    state: PersistedState, disk: Gated, pool: ThreadPoolExecutor, tmp_path: Path
) -> None:
    commits = commit_while_the_first_syncs(state, disk, pool, tmp_path / "state.yaml", "")
    begun = threading.Event()

    def block() -> None:
        with state.transaction():
            begun.set()
            state.first += 1

    blocked = pool.submit(block)
    assert not begun.wait(0.05)
    disk.gate.set()
    blocked.result(PATIENCE)
    commits[0].result(PATIENCE)
    assert 2 == state.first


def test_other_processes_may_write_while_one_syncs(
    state: PersistedState, disk: Gated, pool: ThreadPoolExecutor, tmp_path: Path
) -> None:
    commits = commit_while_the_first_syncs(state, disk, pool, tmp_path / "state.yaml", "a")
    fd = os.open(tmp_path / "state.yaml", os.O_RDWR)
    try:
        timer = threading.Timer(PATIENCE, disk.gate.set)
        timer.start()
        fcntl.flock(fd, fcntl.LOCK_EX)
        assert not disk.gate.is_set(), "the lock was held until the sync had ended"
        timer.cancel()
    finally:
        os.close(fd)
    disk.gate.set()
    for commit in commits:
        commit.result(PATIENCE)


def test_a_block_is_acknowledged_when_it_is_synced(
    state: PersistedState, disk: Gated, pool: ThreadPoolExecutor
) -> None:
    block = pool.submit(change, state, "a")
    assert disk.waiting.wait(PATIENCE)
    assert not block.done()
    disk.gate.set()
    block.result(PATIENCE)


def test_a_failed_sync_is_told_to_each_who_waited_for_it(
    state: PersistedState, disk: Gated, pool: ThreadPoolExecutor, tmp_path: Path
) -> None:
    commits = commit_while_the_first_syncs(state, disk, pool, tmp_path / "state.yaml", "abc")
    disk.problem = OSError(errno.EIO, os.strerror(errno.EIO))
    disk.gate.set()
    for commit in commits:
        with pytest.raises(DurabilityUnknown, match="stable storage"):
            commit.result(PATIENCE)
    assert 1 == disk.syncs, "after a failed one, a later sync may lie"
    with pytest.raises(OSError, match="earlier sync failed"):
        state.d = 1
    assert {"n": 1, "first": 1, "a": 1, "b": 1, "c": 1} == state

    disk.problem = None
    state.vacuum()
    state.d = 1
    assert 1 == state.d


def test_a_handler_may_commit_while_its_thread_syncs(state: PersistedState, disk: Gated) -> None:
    """A signal handler runs in the thread that it interrupts: it must not wait for the sync that is under way in it."""
    handled = []

    def sync(fd: int) -> None:
        if not handled:
            handled.append(True)
            state.handler = 1

    disk.sync_data = sync
    state.n = 2
    assert {"n": 2, "handler": 1} == state


def test_a_child_that_was_forked_while_another_thread_syncs_commits_by_itself(
    state: PersistedState, disk: Gated, pool: ThreadPoolExecutor, tmp_path: Path
) -> None:
    commits = commit_while_the_first_syncs(state, disk, pool, tmp_path / "state.yaml", "")
    child = os.fork()
    if not child:
        try:
            signal.alarm(10)  # if it waits for a thread that it does not have
            disk.sync_data = os.fdatasync
            state.child = 1
            os._exit(0)
        finally:
            os._exit(1)
    disk.gate.set()
    assert 0 == os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    commits[0].result(PATIENCE)
    assert {"n": 1, "first": 1, "child": 1} == state


def test_threads_that_vacuum_and_commit_lose_nothing(tmp_path: Path, pool: ThreadPoolExecutor) -> None:
    path = tmp_path / "state.yaml"
    with PersistedState.open(path, durability="power") as state:

        def work(name: str) -> None:
            for number in range(20):
                state[name] = number
                if number % 7 == 6:
                    state.vacuum()
                assert state[name] == number

        for done in [pool.submit(work, f"t{number}") for number in range(6)]:
            done.result(3 * PATIENCE)
        assert {f"t{number}": 19 for number in range(6)} == state
