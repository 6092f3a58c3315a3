"""pstate in both of its flavours, compiled and pure Python, in one run.

A process has one of them, so the pure one is measured in a second process. That one is told what to measure; the loops
run in it, and it answers with the seconds. So nothing of the way between the two is in what is measured.
"""

from __future__ import annotations

import dataclasses
import os
from concurrent.futures import ProcessPoolExecutor
from functools import cache, partial
from multiprocessing import get_context
from pathlib import Path

from perf import works
from perf.works import Contestant, Work
from pstate import speed

PURE = "pstate (pure Python)"


def flavour() -> str:
    """What is measured, for the head of the tables."""
    if speed.compiled:
        return "compiled, and pure Python beside it"
    return "pure Python; what is promised is promised of the compiled one"


def chosen() -> list[Work]:
    """All works; where pstate is compiled, with the pure one beside it."""
    found = works.works()
    return [beside_pure(work) for work in found] if speed.compiled else found


def beside_pure(work: Work) -> Work:
    """*work*, with the pure pstate after each contestant that is pstate."""
    contestants: list[Contestant] = []
    for one in work.contestants:
        contestants.append(one)
        if one.label.startswith("pstate"):
            label = one.label.replace("pstate", PURE, 1)
            contestants.append(Contestant(label, one.durability, partial(measure_pure, work.name, one.label)))
    return dataclasses.replace(work, contestants=contestants)


def measure_pure(work: str, label: str, folder: Path) -> float:
    """What the contestant *label* of *work* measures in pure Python."""
    return _pure().submit(_measure, work, label, folder).result()


@cache
def _pure() -> ProcessPoolExecutor:
    """The process of the pure flavour. Not one of a Pool: those may not start the processes that some works need."""
    executor = ProcessPoolExecutor(1, get_context("spawn"))
    before = os.environ.get("PSTATE_PURE")
    os.environ["PSTATE_PURE"] = "1"
    try:
        is_compiled = executor.submit(_is_compiled).result()  # which starts the process
    finally:
        if before is None:
            del os.environ["PSTATE_PURE"]
        else:
            os.environ["PSTATE_PURE"] = before
    if is_compiled:
        raise AssertionError("PSTATE_PURE=1 did not turn the compiled part off")
    return executor


def close() -> None:
    """End the process of the pure flavour, if there is one."""
    if _pure.cache_info().currsize:
        _pure().shutdown()
        _pure.cache_clear()


def _is_compiled() -> bool:
    return bool(speed.compiled)


#: What a contestant remembers, such as how often to loop, is remembered over the rounds.
_works = cache(works.works)


def _measure(work: str, label: str, folder: Path) -> float:
    (measured,) = [one for found in _works() if found.name == work for one in found.contestants if one.label == label]
    return measured.measure(folder)
