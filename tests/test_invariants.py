"""Each rule that can be asserted is: with the code that keeps it taken out, the check says so, by its number."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

import pstate.store
from pstate import PersistedState
from pstate.store import Store
from stress.simulated.explore import Failure, explore
from stress.simulated.faults import Fault, planted
from stress.simulated.scenarios import named, time_passes
from stress.simulated.world import Actor, Scenario


def out(function: str, old: str, new: str) -> Fault:
    """The code that keeps a rule, taken out."""
    return Fault(f"{old!r} is out", function, old, new, "")


def check(state: PersistedState) -> None:
    store: Store = state._store
    store.check()


def count(path: Path) -> PersistedState:
    state = PersistedState(path, counter=0, other=0)
    state.counter = 1
    return state


def others_commit(path: Path) -> PersistedState:
    state = count(path)
    with PersistedState.open(path, read_only=True) as reader:  # a store of its own
        state.counter += 1
        assert 2 == reader.counter
        check(reader)
    return state


def a_block(path: Path) -> PersistedState:
    state = count(path)
    with state.transaction():
        state.counter = 7
        state.other = 7
    return state


def vacuums(path: Path) -> PersistedState:
    state = count(path)
    state.vacuum()
    return state


def watches_vacuums(path: Path) -> PersistedState:
    state = count(path)
    watch = state.watch()
    state.vacuum()
    assert not [*watch.poll(), *watch.poll()]
    return state


def saved_shorter(path: Path) -> PersistedState:
    state = PersistedState.open(path, defaults={"text": "x" * 400}, durability="power")
    state.vacuum()
    path.write_text("text: x\n")
    state._store.log.look.expect_change()  # type: ignore[attr-defined]
    state.counter = 1  # which waits until the save is over
    assert "x" == state.text
    return state


def two_handles(path: Path) -> PersistedState:
    state = count(path)
    PersistedState(path).counter = 3
    return state


REAL: list[tuple[str, Fault, Callable[[Path], PersistedState]]] = [
    ("I2", out("pstate.file.rewriting:Rewriting.put", "hold.unlock = unlock", "pass"), vacuums),
    (
        "I4",
        out("pstate.file.standing:Standing.catch_up", "index + len(bodies), journal)", "index, journal)"),
        others_commit,
    ),
    (
        "I4",
        out("pstate.file.rewriting:Rewriting.put", "(new.fd, len(text), 0, 0, new)", "(new.fd, 1, 0, 0, new)"),
        vacuums,
    ),
    ("I5", out("pstate.store:Store.mutate", "self._mirror(prepared)", "pass"), two_handles),
    (
        "I5",
        out("pstate.store:Store.mutate", "apply(node, op, True)\n", "apply(node, (*op[:2], 99), True)\n"),
        count,
    ),
    ("I8", out("pstate.store:Store.leave", "self._base_view = None", "pass"), a_block),
    ("I11", out("pstate.file.journal:Journal.set_base", "self.synced = 0", "pass"), saved_shorter),
    ("I12", out("pstate.file.trail:Trails.become", "self._mark(journal)", "pass"), watches_vacuums),
]


@pytest.mark.pure
@pytest.mark.parametrize(("number", "fault", "script"), REAL, ids=lambda value: getattr(value, "__name__", None))
def test_the_check_of_a_store_notices(
    number: str, fault: Fault, script: Callable[[Path], PersistedState], tmp_path: Path, request: Any
) -> None:
    state = script(tmp_path / "sound.yaml")
    check(state)
    state.close()

    with planted(fault), pytest.raises(AssertionError, match=f"^{number}: "):
        broken = script(tmp_path / "broken.yaml")
        request.addfinalizer(partial(abandon, broken))
        check(broken)


def abandon(state: PersistedState) -> None:
    """It is not in order, and so is not closed."""
    state._store.closed = True
    pstate.store._kept_alive.discard(state._store)


def a_long_block(actor: Actor) -> None:
    def change(state: PersistedState) -> None:
        with state.transaction():
            state.log.append("a1")
            time_passes(actor)

    actor.change(("a1",), change)


LONG = Scenario("a long block", {"a": a_long_block}, opened=("a",))

SIMULATED = [
    (
        "I1",
        out("pstate.file.journal:Journal.undo", "self.truncate(end)", "self.truncate(end - 20)"),
        named("failing calls: two writers"),
    ),
    (
        "I2",
        Fault(
            "",
            "pstate.file.log:FileLog.commit",
            "    if journal.marker",
            "    self.hold.unlock()\n    if journal.marker",
            "",
        ),
        named("two writers"),
    ),
    (
        "I3",
        out("pstate.file.log:FileLog.begin", "if lseek(fd, 0, 2) == end:", "if True:"),
        named("two writers"),
    ),
    ("I6", out("pstate.file.log:FileLog.publish", "and now < self.look.look_due:", "and True:"), LONG),
]


@pytest.mark.parametrize(("number", "fault", "scenario"), SIMULATED, ids=[number for number, _, _ in SIMULATED])
def test_the_simulation_notices(number: str, fault: Fault, scenario: Scenario) -> None:
    assert explore(scenario).is_complete
    with planted(fault), pytest.raises(Failure, match=f"{number}: "):
        explore(scenario)
