"""The compiled hot path where it meets what it was not made for: each check of it, by what happens without that.

`tools/speed_faults.py` has the list of the checks. What is promised whichever flavour runs is in the other tests.
"""

from __future__ import annotations

import fcntl
import os
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
