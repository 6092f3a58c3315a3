"""A script pays for what it uses: what is rarely needed is imported when it is needed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

#: Each takes a millisecond or more; all of them made a short script take three times as long as Python itself.
HEAVY = {
    "asyncio", "base64", "concurrent.futures", "ctypes", "dataclasses", "decimal", "inspect", "logging",
    "multiprocessing", "pathlib", "pytest", "random", "rich", "shutil", "socket", "subprocess", "tempfile",
    "traceback", "yaml", "filelock", "portalocker", "pstate.file.edits", "pstate.file.legacy", "pstate.text.splice",
    "pstate.testing", "psycopg", "pstate.rows", "urllib.parse",
}  # fmt: skip

PROGRAM = """
import json, sys
before = set(sys.modules)
from pstate import PersistedState
state = PersistedState(sys.argv[1])
state.key = 1
opened = set(sys.modules)
state.close()
print(json.dumps([sorted(before), sorted(opened - before), sorted(set(sys.modules) - before)]))
"""


@pytest.mark.parametrize("content", [None, b""])
def test_a_new_state_is_opened_changed_and_closed_without_what_it_does_not_need(
    tmp_path: Path, content: bytes | None
) -> None:
    path = tmp_path / "state.yaml"
    if content is not None:
        path.write_bytes(content)
    environment = {name: value for name, value in os.environ.items() if not name.startswith("COV")}
    found = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(path)], env=environment, check=True, capture_output=True, text=True
    )
    before, opened, closed = map(set, json.loads(found.stdout))

    assert set() == before & HEAVY  # or the others would mean nothing
    assert "pstate.store" in opened
    assert set() == opened & HEAVY
    assert set() == closed & HEAVY - {"ctypes"}  # with which a vacuum exchanges two files
    assert b"key: 1\n" == path.read_bytes()
