"""The compiled hot path where it meets what it was not made for: each check of it, by what happens without that.

`tools/speed_faults.py` has the list of the checks. What is promised whichever flavour runs is in the other tests.
"""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pstate import DurabilityUnknown, PersistedState, speed
from pstate.file import limits
from pstate.file.journal import View
from pstate.file.log import FileLog

pytestmark = pytest.mark.skipif(not speed.compiled, reason="nothing is compiled here")

BEGINNING: dict[str, Any] = {"n": 0, "d": {"n": 0, "e": {"n": 0}}, "l": [0, {"n": 0}], "s": {1}}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state.yaml"


@pytest.fixture
def state(path: Path) -> Iterator[Any]:
    """A state whose next access is a usual one, for which no look at the path is due."""
    state: Any = PersistedState.open(path, defaults=BEGINNING, lock_timeout=0.0)
    usual(state)
    yield state
    state.close()


def usual(state: Any) -> None:
    state.n = 1  # from here on there is a journal
    with state.transaction():
        pass  # from here on the end of this thread is noticed
    look = state._store.log.look
    look.look_at = look.look_due = look.check_at = 1e18


def journal(state: Any) -> Any:
    return state._store.view[4]


def is_locked(path: Path) -> bool:
    with open(path, "rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        return False


def test_a_lock_of_the_program_is_not_given_back(
    state: Any, path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The program closes all descriptors during a commit, when a look is due, and the file cannot be opened again."""
    other, published = tmp_path / "other", FileLog.publish
    fd = os.open(other, os.O_RDWR | os.O_CREAT)
    fcntl.flock(fd, fcntl.LOCK_EX)

    def publish(log: FileLog, view: View) -> None:
        os.dup2(fd, view[0])
        path.rename(tmp_path / "away")
        published(log, view)

    monkeypatch.setattr(FileLog, "publish", publish)
    monkeypatch.setattr(limits, "MISSING", 0.0)
    state._store.log.look.look_due = state._store.log.look.check_at = 0.0
    with pytest.raises(DurabilityUnknown):
        state.n = 5

    assert is_locked(other)
    (tmp_path / "away").rename(path)
    os.close(fd)
    monkeypatch.undo()
    assert state.n == 5


class StandIn:
    """Another object in the place of one of ours."""

    def __init__(self, real: Any) -> None:
        self.__dict__["real"] = real

    def __getattr__(self, name: str) -> Any:
        return getattr(self.real, name)

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(self.real, name, value)

    def __bool__(self) -> bool:
        return bool(self.real)


@pytest.mark.parametrize("name", ["look", "hold", "standing", "site", "standing.trails", "settling"])
def test_another_object_in_the_place_of_ours_is_asked_by_python(state: Any, path: Path, name: str) -> None:
    *around, last = name.split(".")
    owner = getattr(state._store.log, around[0]) if around else state._store.log
    setattr(owner, last, StandIn(getattr(owner, last)))
    state._store.log.settles = last == "settling"
    others = PersistedState(path)

    before = speed.counts()["put"][0]
    state.n = 5
    assert (speed.counts()["put"][0] > before) == (name in ("site", "standing.trails", "settling"))
    state._store.log.look.look_due = 0.0
    state.d.n = 6
    with state.transaction():
        state.n += 1
    others.n += 1

    assert state.n == 7
    assert others.d.n == 6
    others.close()


def run(code: str, *arguments: Any) -> None:
    """Run *code* in a process of its own. It must end well."""
    command = [sys.executable, "-c", textwrap.dedent(code), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=50)
    assert not done.returncode, done.stdout + done.stderr


COUNT = """
    import sys
    from pstate import PersistedState, speed

    def count(path, speed=speed):
        state = PersistedState(path, n=0, l=[])
        for _ in range(3):
            state.n += 1
            state.l.append(1)
            with state.transaction():
                state.n += 1
        assert state.n == 6 and list(state.l) == [1, 1, 1], state
        state.close()
"""


@pytest.mark.parametrize(
    "patch",
    [
        "threading.RLock = threading._PyRLock",
        "threading.get_ident = lambda get_ident=threading.get_ident: get_ident()",
    ],
)
def test_other_threads_than_pythons_are_pure(path: Path, patch: str) -> None:
    code = f"import threading\n{patch}\n" + textwrap.dedent(COUNT)
    run(code + "assert not speed.compiled\nassert speed.counts() == {}\ncount(sys.argv[1])", path)


def test_a_second_import_is_pure_and_the_first_goes_on(path: Path, tmp_path: Path) -> None:
    code = """
    assert speed.compiled
    before = speed.counts()["put"][0]
    first = count, PersistedState, speed
    kept = {name: sys.modules.pop(name) for name in [*sys.modules] if name.partition(".")[0] == "pstate"}
    from pstate import PersistedState, speed
    assert PersistedState is not first[1]
    assert not speed.compiled and speed.counts() == {}
    count(sys.argv[1])
    PersistedState = first[1]
    count(sys.argv[2])
    assert first[2].counts()["put"][0] > before
    """
    run(textwrap.dedent(COUNT) + textwrap.dedent(code), path, tmp_path / "other.yaml")


def test_modules_that_are_loaded_again_go_on(path: Path, tmp_path: Path) -> None:
    code = """
    import importlib, pstate.memory.dicts, pstate.store, pstate.state
    for number, module in enumerate((speed, pstate.state, pstate.store, pstate.memory.dicts, pstate)):
        importlib.reload(module)
        from pstate import PersistedState
        count(f"{sys.argv[1]}{number}.yaml")
    """
    run(textwrap.dedent(COUNT) + textwrap.dedent(code), tmp_path / "state")


def test_a_subinterpreter_is_pure(path: Path, tmp_path: Path) -> None:
    inner = textwrap.dedent(COUNT) + "assert not speed.compiled\ncount(path)\n"
    code = f"""
    count(sys.argv[1])
    try:
        import _xxsubinterpreters as interpreters
    except ImportError:
        import _interpreters as interpreters
    if hasattr(interpreters, "run_string"):
        made = interpreters.create()
        given = f"import sys; sys.path[:] = {{sys.path}}; path = {{sys.argv[2]!r}}\\n"
        error = interpreters.run_string(made, given + {inner!r})
        assert error is None, error
    count(sys.argv[1] + "2")
    assert speed.compiled
    """
    run(textwrap.dedent(COUNT) + textwrap.dedent(code), path, tmp_path / "other.yaml")
