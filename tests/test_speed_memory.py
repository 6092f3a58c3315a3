"""Memory that runs out, at each allocation of each operation: all or nothing is done, no lock is kept, and it goes on.

What raises MemoryError may be committed, as in Python: then the file says so, and memory too.
"""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest
from tools.no_memory import OPERATIONS

from pstate import speed

pytestmark = [
    pytest.mark.skipif(not speed.compiled, reason="nothing is compiled here"),
    pytest.mark.skipif(not importlib.util.find_spec("_testcapi"), reason="this Python has no _testcapi"),
]


@pytest.mark.parametrize("name", OPERATIONS)
def test_each_allocation_may_fail(tmp_path: Path, name: str) -> None:
    done = subprocess.run(
        [sys.executable, "-X", "faulthandler", "-m", "tools.no_memory", name, str(tmp_path / "state.yaml")],
        env={**os.environ, "PSTATE_PURE": ""},
        capture_output=True,
        text=True,
        check=False,
        timeout=50,
    )

    assert not done.returncode, done.stdout + done.stderr
    assert int(done.stdout) >= 0
