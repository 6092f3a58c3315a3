"""Random programs for hypothesis, and the two processes that run each: what tests of equivalence share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar

import pytest
from hypothesis import strategies as st

from pstate import speed
from stress.real import grammar
from stress.real.programs import Program

T = TypeVar("T")

needs_compiled = pytest.mark.skipif(
    not speed.compiled, reason="the compiled hot path is not in use here: nothing to compare pure Python with"
)


class Drawn:
    """Dice of hypothesis, which knows how to make what it draws simpler."""

    def __init__(self, draw: Any) -> None:
        self._draw = draw

    def number(self, most: int) -> int:
        return int(self._draw(st.integers(0, most)))

    def choice(self, choices: Sequence[T]) -> T:
        return choices[self.number(len(choices) - 1)]


@st.composite
def steps(draw: Any) -> Any:
    return grammar.step(Drawn(draw), ["s", "u", "r", "o", "k"])


@st.composite
def programs(draw: Any) -> Program:
    """A list of steps, so that hypothesis can leave out any of them."""
    dice = Drawn(draw)
    openings = [dice.choice(grammar.OPENINGS) for _ in range(dice.number(3))]
    taken = draw(st.lists(steps(), max_size=20))
    return {**grammar.options(dice), "steps": ["s = opened()", *openings, "held = s.d", *taken]}


def simple(*lines: Any, **rest: Any) -> Program:
    """A program of *lines*, with a state that is open."""
    return {"base": None, "steps": ["s = opened()", *lines], **rest}


__all__ = ["Drawn", "needs_compiled", "programs", "simple"]
