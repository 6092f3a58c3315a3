"""Try everything: every interleaving of a scenario, and a kill, a failure or a power cut in every state of it."""

from __future__ import annotations

import contextlib
import gc
import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from stress.check import BrokenPromise
from stress.judge import after_the_power_went, at_the_end
from stress.world import Action, Scenario, World

#: A run that takes more steps than this gets nowhere.
MOST_STEPS = 5_000


@dataclass
class Tally:
    """What was tried."""

    states: int = 0  #: distinct ones
    runs: int = 0
    cuts: int = 0  #: states of the medium after a power cut, distinct ones for each state


class Failure(BrokenPromise):
    """A run that broke a promise, with the actions that repeat it."""

    def __init__(self, scenario: Scenario, actions: list[Action], steps: list[str], cause: BaseException) -> None:
        self.scenario = scenario
        self.actions = actions
        self.steps = steps
        self.cause = cause
        super().__init__(f"{scenario.name}: {cause}\n" + "\n".join(f"{n:4} {step}" for n, step in enumerate(steps, 1)))


def explore(scenario: Scenario, progress: Callable[[Tally], None] = lambda tally: None) -> Tally:
    """Follow every schedule of *scenario* up to equivalence. Raises Failure for the first that breaks a promise."""
    with quiet():
        return _explore(scenario, progress)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Thousands of simulated torn tails are no news; and a collector that strikes at a moment of its own would let
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


def _explore(scenario: Scenario, progress: Callable[[Tally], None]) -> Tally:
    tally = Tally()
    visited: set[int] = set()
    branches: list[list[Action]] = [[]]
    while branches:
        path = branches.pop()
        world = World(scenario)
        try:
            for action in path:
                world.take(action)
            while actions := world.actions():
                key = world.key()
                if key in visited:
                    break
                visited.add(key)
                tally.states += 1
                if scenario.power:
                    tally.cuts += after_the_power_went(world)
                branches.extend([*path, other] for other in actions[1:])
                path.append(actions[0])
                world.take(actions[0])
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
        progress(tally)
    return tally
