"""The simulation finds what is planted, repeats what it found, and holds where nothing is planted."""

from __future__ import annotations

import os
from dataclasses import replace
from random import Random

import pytest

from pstate import PersistedState
from pstate.testing.disk import BLOCK, Inode, SimulatedDisk
from pstate.testing.system import SimulatedSystem
from stress.simulated import wander
from stress.simulated.explore import Failure, explore
from stress.simulated.faults import FAULTS, Fault, planted
from stress.simulated.judge import at_the_end
from stress.simulated.scenarios import EDITORS, SCENARIOS, named
from stress.simulated.world import PATH, PERSON, World

#: Those that take no longer than a second or two; `make stress` follows all of them.
QUICK = [
    "two writers", "increments", "transaction and reader", "two transactions", "close and open", "around a vacuum",
    "records across sectors", "a record of several sectors", "failing calls: around a vacuum",
    "around a vacuum, with the plain rename", "around a vacuum, with strangers' files beside",
    "around a vacuum, with a pipe and a link beside",
    "power: around a vacuum", "power: a new file",
    "saved with a backup, a", "power: saved by rename, a", "watch: writer", "watch: transaction", "watch: power",
    "a daemon with a log of the same size, and a vacuum", "a daemon that sets, and a reader",
    "a daemon before its first commit, with a log of the same size",
]  # fmt: skip

#: Those that take no longer with two switches from a process that could have gone on; `python -m stress run schedules`
#: follows all of their schedules.
WITH_TWO_SWITCHES = [
    "power: two writers",
    "power: writer and reader",
    "a daemon and a writer",
    "a daemon in a transaction, and a writer",
    "watch: read-only, commit and vacuum",
    "watch: read-only, without a trailer",
    "watch: read-only, after a vacuum that died",
    "watch: slow, commit and vacuum",
]

#: How many switches a fault needs, where it takes seconds to try fewer in vain. The others are tried from one on.
NEEDED = {
    "a vacuum cuts its trailer off a save in place": 3,
    "a half save is followed to": 2,
    "an edit is overwritten by a vacuum": 2,
    "a trailer that was read before the path showed another file leads there": 2,
}


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_a_planted_fault_is_caught(fault: Fault) -> None:
    scenario = named(fault.caught_by)
    with planted(fault), pytest.raises(Failure):
        # Most faults need few, and those schedules are few.
        for switches in (*range(NEEDED.get(fault.name, 1), 4), scenario.switches):
            explore(replace(scenario, switches=switches))


def test_there_are_enough_faults_and_each_has_a_name_of_its_own() -> None:
    names = {fault.name for fault in FAULTS}
    assert len(names) == len(FAULTS) >= 20
    assert NEEDED.keys() <= names


@pytest.mark.parametrize("name", QUICK)
def test_every_schedule_of_a_small_scenario_holds(name: str) -> None:
    tally = explore(named(name))

    assert tally.states >= 10


@pytest.mark.parametrize("name", WITH_TWO_SWITCHES)
def test_every_schedule_of_few_switches_holds(name: str) -> None:
    tally = explore(replace(named(name), switches=2))

    assert tally.states >= 100


def test_every_scenario_has_a_name_of_its_own() -> None:
    assert len({scenario.name for scenario in SCENARIOS}) == len(SCENARIOS)


def test_random_schedules_hold() -> None:
    assert wander.wander(20261125, lambda number: number < 60) == 60


def test_a_random_failure_is_made_short_and_can_be_repeated() -> None:
    lock = next(fault for fault in FAULTS if fault.name == "no lock")
    with planted(lock), pytest.raises(Failure) as caught:
        wander.wander(6, lambda number: number < 500)

    failure = caught.value
    assert isinstance(failure.__cause__, Failure)
    assert len(failure.steps) <= len(failure.__cause__.steps) // 2
    assert "write(" in str(failure)
    with planted(lock), pytest.raises(Failure) as again:
        follow_exactly(failure)
    assert again.value.steps == failure.steps


def follow_exactly(failure: Failure) -> None:
    world = World(failure.scenario)
    try:
        for action in failure.actions:
            world.take(action)
        at_the_end(world)
    except Exception as error:
        raise Failure(failure.scenario, failure.actions, world.steps(), error) from error
    finally:
        world.dispose()


def test_a_seed_gives_the_same_run() -> None:
    def steps(number: int) -> list[tuple[str, str, int]]:
        plan, random = wander.plan_of(7, number)
        return wander.follow(plan, random)

    for number in range(5):
        assert steps(number) == steps(number)


@pytest.mark.parametrize("moment", ["sync", "write", "rename_new"])
@pytest.mark.parametrize("call", [0, 1])
def test_a_save_in_place_in_the_middle_of_a_vacuum_is_kept(moment: str, call: int) -> None:
    """From the first byte of the new file to the exchange, an edit of the old one is noticed, and both are kept."""
    disk = SimulatedDisk({PATH: b"log: []\n"})
    seen = 0

    def hook(system: SimulatedSystem, name: str, arguments: tuple[object, ...]) -> None:
        nonlocal seen
        if not armed or name != moment:
            return
        seen += 1
        if seen == call + 1:
            inode = disk.names[PATH]
            content = inode.content
            inode.truncate(0)
            inode.write(0, b"person: 1\n" + content.partition(b"--- # pstate moved")[0])

    armed = False
    state = PersistedState.open(PATH, fs=SimulatedSystem(disk, hook, tick=0.01))
    state.log.append("before")
    armed = True
    state.vacuum()
    armed = False
    for _ in range(20):
        state.log.copy()

    assert state.snapshot() == ({"person": 1, "log": ["before"]} if seen > call else {"log": ["before"]})
    state.close()
    assert list(disk.names) == [PATH]


# ------------------------------------------------------------------ the disk


def outcomes(*changes: tuple[int, bytes] | int, durable: bytes = b"base\n") -> set[bytes]:
    inode = Inode(1, durable)
    for change in changes:
        if isinstance(change, int):
            inode.truncate(change)
        else:
            inode.write(*change)
    return set(inode.outcomes("every"))


def test_an_append_that_was_not_synced_is_missing_cut_or_zeros() -> None:
    assert outcomes((5, b"abc")) == {b"base\n", b"base\na", b"base\nab", b"base\nabc", b"base\n\0\0\0"}


def test_a_block_shows_what_stood_there_before_a_cut() -> None:
    assert b"base\noldold" in outcomes((5, b"oldold"), 5, (5, b"newnew"))


def test_a_cut_overtakes_the_write_before_it_or_is_missing() -> None:
    found = outcomes((5, b"abc"), 3)

    assert {b"bas", b"base\nabc"} <= found


def test_blocks_reach_the_medium_in_any_order() -> None:
    first, second = b"x" * BLOCK, b"y" * BLOCK

    assert b"\0" * BLOCK + second in outcomes((0, first), (BLOCK, second), durable=b"")


def test_what_was_synced_is_there_and_a_failed_sync_is_none() -> None:
    inode = Inode(1, b"")
    inode.write(0, b"a")
    inode.sync()
    assert inode.outcomes("few") == [b"a"]

    inode.sick = True
    inode.write(1, b"b")
    inode.sync()
    assert set(inode.outcomes("few")) == {b"a", b"ab", b"a\0"}


def test_names_come_back_in_their_order_until_the_folder_is_synced() -> None:
    disk = SimulatedDisk({"/a": b"old"})
    system = SimulatedSystem(disk)
    fd = system.open("/b", os.O_RDWR | os.O_CREAT)
    system.write(fd, b"new")
    system.sync(fd)
    system.rename("/b", "/a")

    assert {frozenset(image.items()) for image in disk.after_power_cut()} == {
        frozenset({("/a", b"old")}), frozenset({("/a", b"old"), ("/b", b"new")}), frozenset({("/a", b"new")}),
    }  # fmt: skip

    system.sync_folder("/")
    assert list(disk.after_power_cut()) == [{"/a": b"new"}]
    assert disk.some_power_cut(Random(1)) == {"/a": b"new"}


def test_a_lock_belongs_to_the_description_and_goes_with_its_last_descriptor() -> None:
    disk = SimulatedDisk({"/a": b""})
    parent, other = SimulatedSystem(disk, name="p"), SimulatedSystem(disk, name="o")
    fd, elsewhere = parent.open("/a", os.O_RDWR), other.open("/a", os.O_RDWR)
    parent.flock(fd, 6)
    child = parent.child("c")
    parent.die()
    with pytest.raises(BlockingIOError):
        other.flock(elsewhere, 6)

    child.close(fd)
    other.flock(elsewhere, 6)


def test_every_kind_of_editor_is_tried() -> None:
    edited = [scenario for scenario in SCENARIOS if scenario.edited and PERSON in scenario.bodies]
    for watching in ((), ("w",)):
        assert set(EDITORS.values()) <= {each.bodies["person"] for each in edited if each.watching == watching}
