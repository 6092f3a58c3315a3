"""Systems that lack what a vacuum would like to have: ctypes, an exchange of two files, permission to call for it."""

from __future__ import annotations

import errno
import os
import platform
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest
import yaml
from tools.disks import Disk, Failing
from tools.users import ALICE, WEB, as_user, needs_users
from tools.users import shared as shared

from pstate import PersistedState, WriteError
from pstate.file.fs import NO_SUCH_RENAME

#: A Python that was built without libffi.
NO_CTYPES = """
import sys
sys.modules["_ctypes"] = None
"""
#: A Python that cannot load the C library, as one that is linked statically.
NO_LIBRARY = """
import ctypes
def refuse(*given, **more):
    raise OSError("dynamic loading not supported")
ctypes.CDLL = refuse
"""
#: A filter of system calls that refuses renameat2 with an errno. 316 is its number on x86-64.
FILTER = """
import ctypes, struct
steps = [(0x20, 0, 0, 0), (0x15, 0, 1, 316), (0x06, 0, 0, 0x00050000 | {number}), (0x06, 0, 0, 0x7FFF0000)]
code = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *step) for step in steps))
program = ctypes.create_string_buffer(struct.pack("HxxxxxxP", len(steps), ctypes.addressof(code)))
libc = ctypes.CDLL(None, use_errno=True)
if libc.prctl(38, 1, 0, 0, 0) or libc.prctl(22, 2, ctypes.c_void_p(ctypes.addressof(program)), 0, 0):
    print("no filter")
    raise SystemExit
"""

SESSION = """
import os, sys
from pstate import PersistedState
path = sys.argv[1]
state = PersistedState(path, n=0)
state.vacuum()
for number in range(1, 4):
    state.n = number
    state.vacuum()
for number in range(40):
    state.text = f"{number:05}" + 60_000 * "x"  # several times what makes a vacuum due
state.text = ""
state.close()
with PersistedState.open(path) as state:
    state.n += 1
os.unlink(path)
state = PersistedState(path, n=7)
os.unlink(path)
state.vacuum()
state.close()
with open(path) as file:
    print(sorted(os.listdir(os.path.dirname(path))), file.read())
"""


def run(head: str, code: str, *arguments: object) -> str:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", textwrap.dedent(head) + code, *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert not done.returncode, done.stderr
    if done.stdout == "no filter\n":
        pytest.skip("filters of system calls are not permitted here")
    assert "closed with its journal" not in done.stderr
    assert "put off" not in done.stderr
    assert "Exception ignored" not in done.stderr
    return done.stdout


@pytest.mark.parametrize("head", [NO_CTYPES, NO_LIBRARY], ids=["no _ctypes", "no C library"])
def test_without_ctypes_all_goes_on_by_the_plain_rename(tmp_path: Path, head: str) -> None:
    assert "['state.yaml'] n: 7" == run(head, SESSION, tmp_path / "state.yaml").replace('"', "").rstrip()


@pytest.mark.parametrize("number", [errno.EPERM, errno.ENOSYS, errno.EACCES, errno.EOPNOTSUPP])
@pytest.mark.skipif(
    (sys.platform, platform.machine()) != ("linux", "x86_64"), reason="the filter is for Linux on x86-64"
)
def test_a_filter_of_system_calls_leaves_the_plain_rename(tmp_path: Path, number: int) -> None:
    found = run(FILTER.replace("{number}", str(number)), SESSION, tmp_path / "state.yaml")
    assert "['state.yaml'] n: 7" == found.replace('"', "").rstrip()


@pytest.mark.parametrize("head", [NO_CTYPES, NO_LIBRARY], ids=["no _ctypes", "no C library"])
def test_an_export_needs_no_ctypes(tmp_path: Path, head: str) -> None:
    (tmp_path / "state.yaml").write_bytes(b"n: 1\n")
    code = "from pstate.cli import main\nimport sys\nsys.exit(main(sys.argv[1:]))"
    run(head, code, "export", tmp_path / "state.yaml", tmp_path / "out.json")
    assert b'"n": 1' in (tmp_path / "out.json").read_bytes()


def test_a_fork_beside_a_thread_needs_no_ctypes(tmp_path: Path) -> None:
    code = """
import logging, os, sys, threading, warnings
from pstate import PersistedState
warnings.simplefilter("ignore", DeprecationWarning)  # of a fork beside a thread
state = PersistedState(sys.argv[1], n=0)
over = threading.Event()
thread = threading.Thread(target=over.wait)
thread.start()
pid = os.fork()
if not pid:
    state.n += 1
    os._exit(0)
assert os.waitpid(pid, 0)[1] == 0
over.set()
thread.join()
state.n += 1
state.close()
with open(sys.argv[1]) as file:
    print(file.read())
"""
    assert "n: 2" in run(NO_CTYPES, code, tmp_path / "state.yaml").replace('"', "")


@needs_users
def test_a_true_refusal_stays_an_error_and_changes_nothing(shared: Path) -> None:
    """In a folder like /tmp, nobody may rename over the file of another user."""
    shared.chmod(0o1777)
    path = shared / "state.yaml"
    path.write_bytes(b"n: 1\n")
    os.chown(path, ALICE, ALICE)
    path.chmod(0o666)

    def vacuums() -> None:
        state = PersistedState.open(path)
        state.n = 2
        content = path.read_bytes()
        with pytest.raises(WriteError) as caught:
            state.vacuum()
        assert errno.EPERM == caught.value.errno
        assert content == path.read_bytes()
        state.n = 3
        state.close()

    as_user(WEB, vacuums)
    assert ["state.yaml"] == os.listdir(shared)
    assert ALICE == path.stat().st_uid
    with PersistedState.open(path) as state:
        assert 3 == state.n


@pytest.mark.parametrize("number", sorted(NO_SUCH_RENAME))
def test_what_is_said_against_an_exchange_the_plain_rename_may_contradict(tmp_path: Path, number: int) -> None:
    path = tmp_path / "state.yaml"
    with PersistedState.open(path, fs=Failing("exchange", "rename_new", error=number)) as state:
        state.n = 1
        state.vacuum()
        state.n = 2
    assert {"n": 2} == yaml.safe_load(path.read_bytes())
    assert ["state.yaml"] == os.listdir(tmp_path)


def test_a_save_in_place_before_the_plain_rename_is_kept(tmp_path: Path) -> None:
    """Up to the last look; what comes between that and the rename is lost, as the page says."""
    path = tmp_path / "state.yaml"
    path.write_bytes(b"n: 1\nname: before\n")

    def save(name: str, *_: Any) -> None:
        if name == "exchange":
            path.write_bytes(b"n: 2\nname: edited\n")
        if name in ("exchange", "rename_new"):
            raise OSError(errno.EPERM, "not permitted")

    fs = Disk()
    fs.before, fs.armed = save, False
    state = PersistedState.open(path, fs=fs)
    state.n = 2
    fs.armed = True
    state.vacuum()
    fs.armed = False
    assert {"n": 2, "name": "edited"} == state.snapshot()
    state.close()
    assert {"n": 2, "name": "edited"} == yaml.safe_load(path.read_bytes())
