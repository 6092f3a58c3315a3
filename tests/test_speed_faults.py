"""The planted faults of `tools/speed_faults.py` fit the source as it is; `make test-faults` tries all of them."""

from __future__ import annotations

from pathlib import Path
from shutil import which

import pytest
from tools import speed_faults
from tools.compiled import compiler, copied

from pstate import speed

pytestmark = pytest.mark.skipif(not speed.compiled, reason="nothing is compiled here")


def test_each_fault_changes_one_place() -> None:
    for fault in speed_faults.FAULTS:
        assert speed_faults.faulty(fault)  # asserts it
    assert len({fault.name for fault in speed_faults.FAULTS}) == len(speed_faults.FAULTS)


@pytest.mark.skipif(not which(compiler()[0]), reason="there is no C compiler")
@pytest.mark.timeout(200)
def test_a_fault_is_noticed(tmp_path: Path) -> None:
    """One of them: that faults are planted, and tests run on them."""
    copied(tmp_path)
    (fault,) = [fault for fault in speed_faults.FAULTS if fault.name == "memory in another file"]
    assert speed_faults.noticed(fault, tmp_path), f"nothing notices this fault: {fault.name}"
