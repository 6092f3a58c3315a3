"""The checks on real files (stress/) hold for half a second each, count what they try, and leave nothing behind."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

import stress.crash_states
import stress.cut
import stress.disk_full
import stress.edits
import stress.soak
from stress.check import CHECKS, Trial


@pytest.mark.parametrize("name", ["cut", "flip", "crash-states", "disk-full", "edits"])
def test_it_holds(name: str, tmp_path: Path) -> None:
    folder = tmp_path / name
    folder.mkdir()
    trial = Trial(seed=1, seconds=0.5, folder=folder)
    CHECKS[name].function(trial)
    assert sum(trial.counts.values()) > 1, trial.counts
    with open("/proc/self/mounts") as mounts:
        assert str(tmp_path) not in mounts.read()


def test_a_soak_takes_turns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stress.soak, "SHORTEST", 0.1)
    monkeypatch.setattr(stress.soak, "LONGEST", 0.2)
    for name in list(CHECKS):
        if name not in ("soak", "cut", "flip"):
            monkeypatch.delitem(CHECKS, name)
    trial = Trial(seed=1, seconds=0.5, folder=tmp_path)
    CHECKS["soak"].function(trial)
    assert trial.counts["turns"] > 1
    assert os.listdir(tmp_path) == []
