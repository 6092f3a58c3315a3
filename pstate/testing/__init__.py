"""Tests resumable scripts: crashes one at every step, on a disk in memory. See docs/testing.md.

>>> from pstate.testing import crash_at_every_step
>>> def count(state):
...     for number in range(state.last + 1, 4):
...         state.last = number
>>> def in_range(state):
...     assert 0 <= state.last <= 3
>>> report = crash_at_every_step(count, in_range, defaults={"last": 0})
>>> report.states
4
"""

from pstate.testing.crash import CrashFailure, CrashReport, crash_at_every_step, kill
from pstate.testing.disk import SimulatedDisk
from pstate.testing.system import Killed, SimulatedSystem

__all__ = [
    "crash_at_every_step",
    "CrashFailure",
    "CrashReport",
    "SimulatedDisk",
    "SimulatedSystem",
    "Killed",
    "kill",
]
