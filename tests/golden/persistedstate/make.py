"""Write the golden files again, with the versions of `persistedstate` that wrote them: ``python make.py``.

Needs pip, PyYAML and PyPI; the tests that read the files need none of them. Per version:

``<version>-closed.state``   after a clean close;
``<version>-killed.state``   the process died with an unfinished journal (23.1: with repeated lines);
``<version>-vacuum.state``   the process died when half of the new head was written, where a vacuum works in place.

`expected.json` holds what the memory of the process was.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).parent
VERSIONS = ("23.1", "23.3", "23.4", "23.5", "23.8", "24.2", "25.1", "26.1")
IN_PLACE = VERSIONS[VERSIONS.index("23.4") :]

# Runs in a process of its own: argv is the case, the number of the version, the file.
CHILD = r"""
import io, json, os, pathlib, sys
from collections.abc import Mapping, Sequence

case, version, path = sys.argv[1], tuple(map(int, sys.argv[2].split("."))), pathlib.Path(sys.argv[3])
dying = False

class Dying(io.FileIO):
    def write(self, data):
        if dying and self.tell() == 0:
            super().write(bytes(data)[: len(data) // 2])
            os._exit(0)
        return super().write(data)

def dying_open(self, mode="r", encoding=None):
    return io.TextIOWrapper(io.BufferedRandom(Dying(os.fspath(self), mode.rstrip("b"))), encoding=encoding)

if case == "vacuum":
    pathlib.Path.open = dying_open

from persistedstate import PersistedState

def plain(value):
    if isinstance(value, Mapping):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [plain(item) for item in value]
    return value

def refused(change):
    try:
        change()
    except (LookupError, TypeError):
        pass
    else:
        raise AssertionError("not refused")

if version >= (23, 3):
    with open(path, "wb") as file:
        file.write(b"# written by hand\nname: 'a: b'\nlast_id: 1\n")
state = PersistedState(path)
if version < (23, 3):
    state["name"] = "a: b"
    state["last_id"] = 1
    state["a key"] = [None, True]
for number in range(2, 5):
    state["last_id"] = number
state["text"] = "\u00e9\U0001f600\x7f\u2028"
state["number"] = 1e16
state["gone"] = 1
if version >= (23, 3):
    del state["gone"]
    refused(lambda: state.__delitem__("missing"))
if version >= (23, 5):
    state["jobs"] = [{"id": 1}, {"id": 2}]
    state["jobs"][0]["done"] = {"1": [1, 2]}
    state["jobs"].append({"id": 3})
    state["jobs"].insert(0, "first")
    del state["jobs"][1]
    refused(lambda: state["jobs"].__setitem__(9, 1))
else:
    state["jobs"] = [{"id": 1}, {"id": 2}]
print(json.dumps(plain(state)), flush=True)
if case == "killed":
    if version < (23, 3):
        state._PersistedState__file.flush()
    os._exit(0)
dying = True
if hasattr(state, "close"):
    state.close()
else:
    state.__exit__(None, None, None)
os._exit(0)
"""


def main() -> None:
    expected: dict[str, object] = {}
    with tempfile.TemporaryDirectory() as folder:
        for version in VERSIONS:
            target = Path(folder, version)
            package = f"persistedstate=={version}"
            subprocess.run(
                [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--target", target, package], check=True
            )
            for case in ("closed", "killed", "vacuum") if version in IN_PLACE else ("closed", "killed"):
                name = f"{version}-{case}.state"
                state = Path(folder, name)
                done = subprocess.run(
                    [sys.executable, "-c", CHILD, case, version, state],
                    check=True,
                    stdout=subprocess.PIPE,
                    env={**os.environ, "PYTHONPATH": str(target)},
                )
                HERE.joinpath(name).write_bytes(state.read_bytes())
                expected[name] = json.loads(done.stdout)
    HERE.joinpath("expected.json").write_text(json.dumps(expected, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
