"""Try everything: every interleaving of a scenario, and a kill, a failure or a power cut in every state of it."""

from __future__ import annotations

import contextlib
import gc
import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from stress.check import BrokenPromise
from stress.simulated.judge import after_the_power_went, at_the_end
from stress.simulated.world import Action, Scenario, World

#: A run that takes more steps than this gets nowhere.
MOST_STEPS = 5_000


@dataclass
class Tally:
    """What was tried."""

    states: int = 0  #: distinct ones
    runs: int = 0
    cuts: int = 0  #: states of the medium after a power cut, distinct ones for each state
    is_complete: bool = True  #: there is nothing more to try

    @property
    def work(self) -> int:
        """How much it was, about: a run costs the time of some states."""
        return self.states + self.runs + self.cuts


class Failure(BrokenPromise):
    """A run that broke a promise, with the actions that repeat it."""

    def __init__(self, scenario: Scenario, actions: list[Action], steps: list[str], cause: BaseException) -> None:
        self.scenario = scenario
        self.actions = actions
        self.steps = steps
        self.cause = cause
        super().__init__(f"{scenario.name}: {cause}\n" + "\n".join(f"{n:4} {step}" for n, step in enumerate(steps, 1)))


def explore(scenario: Scenario, goes_on: Callable[[Tally], bool] = lambda tally: True) -> Tally:
    """Follow every schedule of *scenario* up to equivalence, in an order that is always the same, while *goes_on*.

    Raises Failure for the first that breaks a promise.

    Where it says how many switches there may be, schedules with more are left out: few bugs need many (Musuvathi and
    Qadeer, "Iterative context bounding for systematic testing of multithreaded programs", PLDI 2007).
    """
    with quiet():
        return _explore(scenario, goes_on)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Thousands of simulated torn tails are usual here; and a collector that strikes at a moment of its own would let
    finalizers make their calls in one run and not in its repetition."""
    logger = logging.getLogger("pstate")
    level, collects = logger.level, gc.isenabled()
    logger.setLevel(logging.CRITICAL + 1)
    gc.disable()
    try:
        yield
    finally:
        logger.setLevel(level)
        if collects:
            gc.enable()


def _explore(scenario: Scenario, goes_on: Callable[[Tally], bool]) -> Tally:
    tally = Tally()
    most = scenario.switches
    visited: dict[tuple[int, str], int] = {}  #: with how few switches
    states: set[int] = set()
    branches: list[tuple[list[Action], int]] = [([], 0)]
    while branches:
        path, switches = branches.pop()
        world = World(scenario)
        try:
            for action in path:
                world.take(action)
            while actions := world.actions():
                current = path[-1][1] if path and most is not None else ""
                key = world.key()
                if visited.get((key, current), switches + 1) <= switches:
                    break
                visited[key, current] = switches
                if key not in states:
                    if not goes_on(tally):
                        tally.is_complete = False
                        return tally
                    states.add(key)
                    tally.states = len(states)
                    if scenario.power:
                        tally.cuts += after_the_power_went(world)
                first, *others = _affordable(actions, current, switches, most)
                branches.extend(([*path, action], used) for action, used in others)
                action, switches = first
                path.append(action)
                world.take(action)
                if len(path) > MOST_STEPS:
                    raise BrokenPromise("nobody gets anywhere")
            else:
                at_the_end(world)
        except Exception as error:
            raise Failure(scenario, path, world.steps(), error) from error
        finally:
            world.dispose()
        tally.runs += 1
        if not tally.runs % 500:
            gc.collect()
        if branches and not goes_on(tally):
            tally.is_complete = False
            return tally
    return tally


def _affordable(actions: list[Action], current: str, used: int, most: int | None) -> list[tuple[Action, int]]:
    """Those of *actions* that stay within *most* switches, with how many there are then; *current* ran last."""
    if most is None:
        return [(action, 0) for action in actions]
    goes_on = [action for action in actions if action[0] != "kill" and action[1] == current]
    costs = [(action, used + bool(goes_on and action[0] != "kill" and action[1] != current)) for action in actions]
    return sorted((each for each in costs if each[1] <= most), key=lambda each: each[1])
