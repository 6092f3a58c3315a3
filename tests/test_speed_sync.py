"""A sync that fails, in the compiled hot path: no thread gets a commit acknowledged after it.

The system fails it: strace lets the first sync of the data say EIO. All the others would succeed, as they do on a disk
that has forgotten the failed pages.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = """
import sys
from pstate import DurabilityUnknown, PersistedState, StoreFailedError
from pstate.file.settling import Settling

state = PersistedState.open(sys.argv[1], durability="power", defaults={"n": 0})
log, told = state._store.log, []
"""

#: The sync of the defaults is the first one, that of ``state.n = 2`` fails.
PROGRAMS = {
    "the next one": """
state.n = 1
for n in (2, 3):
    try:
        state.n = n
    except (DurabilityUnknown, StoreFailedError) as error:
        told.append(type(error).__name__)
assert told == ["DurabilityUnknown", "StoreFailedError"], told
""",
    "another thread has written before it was known": """
state.n = 1
view = []
failed = Settling.failed
def interrupted(self, journal, error, part="it"):
    raise KeyboardInterrupt  # of a signal handler, before the failure was judged
Settling.failed = interrupted
try:
    state.n = 2
except KeyboardInterrupt:
    told.append("interrupted")
Settling.failed = failed
# So that this commit is written, as that of a thread is which wrote before the sync failed.
log.look.look_at = log.look.look_due = 1e18
try:
    state.n = 3
except (DurabilityUnknown, StoreFailedError) as error:
    told.append(type(error).__name__)
assert told == ["interrupted", "DurabilityUnknown"], told
""",
    "it counts as under way": """
state.n = 1
try:
    state.n = 2
except DurabilityUnknown:
    told.append("unknown")
assert log.settling._under_way is not None
assert log.settling._under_way.acquire(blocking=False)
""",
}


@pytest.mark.skipif(not shutil.which("strace"), reason="strace is not installed")
@pytest.mark.parametrize("flavour", ["", "1"], ids=["compiled", "pure"])
@pytest.mark.parametrize("name", PROGRAMS)
def test_nothing_is_acknowledged_after_a_failed_sync(tmp_path: Path, name: str, flavour: str) -> None:
    code = PROGRAM + PROGRAMS[name]
    command = ["strace", "-f", "-o", str(tmp_path / "calls"), "-e", "trace=fdatasync"]
    command += ["-e", "inject=fdatasync:error=EIO:when=3"]

    done = subprocess.run(
        [*command, "env", f"PSTATE_PURE={flavour}", sys.executable, "-c", code, str(tmp_path / "state.yaml")],
        check=False,
        capture_output=True,
        text=True,
        timeout=50,
    )

    assert not done.returncode, done.stdout + done.stderr + (tmp_path / "calls").read_text()
    assert "INJECTED" in (tmp_path / "calls").read_text()
