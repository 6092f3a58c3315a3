"""Long runs of several processes, drawn by chance: a seed gives the programs, the schedule, and what goes wrong when.

A run that fails is made short before it is shown: programs lose steps, and the schedule loses actions, as long as the
same kind of failure remains.
"""

from __future__ import annotations

import gc
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from random import Random

from stress.check import BrokenPromise
from stress.simulated import scenarios
from stress.simulated.explore import MOST_STEPS, Failure, quiet
from stress.simulated.judge import at_the_end, forget, judge_image
from stress.simulated.world import PATH, PERSON, Action, Actor, Scenario, World

#: What a program may do, and how likely it is.
STEPS = {"commit": 8, "transaction": 4, "look": 5, "vacuum": 2, "reopen": 2, "increment": 2, "pause": 1}
SAVES: dict[str, Callable[[Actor], None]] = {
    "rename": scenarios.saves_by_rename,
    "backup": scenarios.saves_with_backup,
    "in place": scenarios.saves_in_place,
}


@dataclass(frozen=True)
class Plan:
    """A scenario that chance has made: who does what, and what may go wrong."""

    programs: dict[str, tuple[str, ...]]
    saves: tuple[str, ...] = ()  #: of a person's editor
    kills: int = 0
    failures: int = 0
    power: bool = False  #: at the end of the schedule, the power goes
    durable: bool = False
    new: bool = False
    tick: float = 1e-6

    def scenario(self) -> Scenario:
        bodies: dict[str, Callable[[Actor], None]] = {name: _program(steps) for name, steps in self.programs.items()}
        if self.saves:
            bodies[PERSON] = _person(self.saves)
        options: dict[str, object] = {"durability": "power"} if self.durable else {}
        return Scenario(
            "chance",
            bodies,
            files={} if self.new else {PATH: b"log: []\n"},
            options={**options, "defaults": {"log": []}},
            kills=self.kills,
            failures=self.failures,
            tick=self.tick,
            edited=bool(self.saves),
            fair=scenarios.edits_are_there if self.saves else lambda world: None,
            power=True,  # nothing is left out of the schedule
        )


def _program(steps: tuple[str, ...]) -> Callable[[Actor], None]:
    def body(actor: Actor) -> None:
        actor.open()
        for number, step in enumerate(steps):
            token = f"{actor.name}{number}"
            if step == "commit":
                actor.commit(token)
            elif step == "transaction":
                scenarios.tries(actor, lambda actor, token=token: actor.transaction(f"{token}.1", f"{token}.2"))  # type: ignore[misc]
            elif step == "look":
                actor.look()
            elif step == "vacuum":
                scenarios.vacuums_or_not(actor)
            elif step == "increment":
                scenarios.tries(actor, lambda actor, token=token: actor.transaction(token))  # type: ignore[misc]
            elif step == "pause":
                actor.pause(0.02)
            else:
                actor.close()
                actor.open()

    return body


def _person(saves: tuple[str, ...]) -> Callable[[Actor], None]:
    def body(actor: Actor) -> None:
        for save in saves:
            SAVES[save](actor)
            actor.pause(0.2)

    return body


def draw(random: Random) -> Plan:
    """A plan of 2 to 4 processes."""
    names = "abcd"[: random.choice((2, 2, 3, 3, 4))]
    kinds, weights = list(STEPS), list(STEPS.values())
    kind = random.random()
    edited = kind > 0.75
    programs = {name: tuple(random.choices(kinds, weights, k=random.randint(1, 6))) for name in names}
    if edited:
        # A stale copy that replaces what a vacuum has just written passes for another vacuum's, for those who only
        # follow. The program that vacuumed notices, while it lives and nobody vacuums the copy (docs/guarantees.md).
        programs = {
            name: tuple("look" if step == "reopen" or (step == "vacuum" and name != "a") else step for step in steps)
            for name, steps in programs.items()
        }
    return Plan(
        programs,
        saves=(random.choice(list(SAVES)),) if edited else (),
        kills=0 if edited else random.choice((0, 1, 1, 2)),
        failures=random.choice((1, 2)) if 0.5 < kind <= 0.75 else 0,
        power=kind <= 0.25,
        durable=random.random() < 0.3,
        new=random.random() < 0.1 and not edited,
        tick=random.choice((1e-6, 1e-6, 1e-6, 4e-3)),
    )


def follow(plan: Plan, random: Random, schedule: list[Action] | None = None) -> list[Action]:
    """Run *plan* with a schedule drawn by *random*, or *schedule*, as far as it goes. Returns the actions taken.

    Raises Failure.
    """
    scenario = plan.scenario()
    world = World(scenario)
    taken: list[Action] = []
    stop = random.randint(1, 150) if plan.power else MOST_STEPS
    try:
        for action in _actions(world, random, schedule):
            taken.append(action)
            world.take(action)
            if plan.power and schedule is None and len(taken) == stop:
                break
            if len(taken) > MOST_STEPS:
                raise BrokenPromise("nobody gets anywhere")
        if plan.power:
            for _ in range(8):
                image = frozenset(world.disk.some_power_cut(random).items())
                judge_image(world, image)
        elif not world.actions():
            at_the_end(world)
    except Exception as error:
        raise Failure(scenario, taken, world.steps(), error) from error
    finally:
        world.dispose()
    return taken


def _actions(world: World, random: Random, schedule: list[Action] | None) -> Iterator[Action]:
    if schedule is not None:
        # An action that cannot happen (any more) is left out; in the end all that are left run by themselves.
        for action in schedule:
            if action in world.actions():
                yield action
        while actions := [action for action in world.actions() if action[0] == "run"]:
            yield actions[0]
        return
    favourite = ""
    while actions := world.actions():
        # Now and then one process goes on for a while: long stretches meet each other at other places than short ones.
        runs = [action for action in actions if action[0] == "run"]
        wrongs = [action for action in actions if action[0] != "run"]
        if wrongs and random.random() < 0.02:
            yield random.choice(wrongs)
        else:
            if random.random() < 0.3:
                favourite = random.choice(runs)[1]
            yield next((action for action in runs if action[1] == favourite), runs[0])


def wander(seed: int, go_on: Callable[[int], bool], until: float = math.inf) -> int:
    """Follow plans drawn from *seed* while `go_on(how many so far)`. Raises Failure, shortened as far as *until*."""
    number = 0
    with quiet():
        while go_on(number):
            plan, random = plan_of(seed, number)
            try:
                follow(plan, random)
            except Failure as failure:
                raise shorten(plan, failure, seed, number, until=until) from failure
            number += 1
            if not number % 300:
                gc.collect()
                forget()
    return number


def plan_of(seed: int, number: int) -> tuple[Plan, Random]:
    """The plan with that number, and the chance that goes on with its schedule."""
    random = Random(f"{seed}/{number}")
    return draw(random), random


# ------------------------------------------------------------------ making a failure short


def shorten(
    plan: Plan, failure: Failure, seed: int = 0, number: int = 0, tries: int = 2_000, until: float = math.inf
) -> Failure:
    """The same kind of failure by fewer steps of programs, then by fewer actions.

    Follows *tries* plans, about, and none after *until*, by the monotonic clock.
    """
    kind = _kind(failure)

    def fails(plan: Plan, *schedules: list[Action] | None) -> Failure | None:
        nonlocal tries
        for chance, schedule in enumerate(schedules):
            if time.monotonic() > until:
                tries = 0
                break
            tries -= 1
            try:
                follow(plan, Random(chance), schedule)
            except Failure as other:
                if _kind(other) == kind:
                    return other
        return None

    best = failure
    # A shorter program fails by another schedule: by what is left of the last one, or by one out of a few.
    while found := next(
        (
            (fewer, shorter)
            for fewer in _fewer_steps(plan)
            if tries > 0 and (shorter := fails(fewer, best.actions, *20 * [None]))
        ),
        None,
    ):
        plan, best = found
    size = max(1, len(best.actions) // 2)
    while size and tries > 0:
        start = 0
        while start < len(best.actions) and tries > 0:
            fewer = fails(plan, *3 * [best.actions[:start] + best.actions[start + size :]])
            if fewer is not None and len(fewer.actions) < len(best.actions):
                best = fewer
            else:
                start += size
        size //= 2
    return Failure(
        replace(best.scenario, name=f"seed {seed}, plan {number}: {plan}"), best.actions, best.steps, best.cause
    )


def _kind(failure: Failure) -> str:
    """What a failure is about, without the names and numbers in it."""
    return "".join(letter for letter in str(failure.cause)[:60] if letter.isalpha())[:24]


def _fewer_steps(plan: Plan) -> Iterator[Plan]:
    for name, steps in plan.programs.items():
        if len(plan.programs) > 1:
            yield replace(plan, programs={other: kept for other, kept in plan.programs.items() if other != name})
        for index in range(len(steps)):
            yield replace(plan, programs={**plan.programs, name: steps[:index] + steps[index + 1 :]})
    if plan.saves:
        yield replace(plan, saves=plan.saves[1:])
