"""The compiled hot path makes the system calls of pure Python, in the same order.

One script is run by both, under strace. It marks where a part begins by asking for a file that does not exist. Only the
calls on the state's folder are compared. What may differ is in ALLOWED, with the reason.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from difflib import unified_diff
from pathlib import Path

import pytest
from tools.programs import needs_compiled

ROOT = Path(__file__).parent.parent

TRACED = "trace=%desc,%file,flock,fsync,fdatasync,ftruncate,?renameat2"

needs_strace = pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed (apt: strace)")

SCRIPT = """
import os, sys
from pathlib import Path
from pstate import PersistedState
from pstate.file import limits
from pstate.file.fs import SYSTEM

# No look at the path comes by the clock, which strace slows down.
limits.LOOK_INTERVAL = 1000.0
generations = iter(range(0x12345678, 0x7fffffff))
SYSTEM.token = lambda: f"{next(generations):08x}"
path = Path(sys.argv[1])

def part(name):
    os.path.exists(path.with_name(f"part {name}"))

def opened(**options):
    return PersistedState.open(path, defaults={"n": 0, "d": {"e": {"n": 0}}, "l": []}, **options)
"""

#: Part -> what is done in it. The parts of one script follow each other.
PARTS = {
    "open": "s = opened()",
    "first": "s.n = 1",
    "read": "s.n; s['n']; s.get('n'); 'n' in s; len(s); s.d.e.n",
    "count": "s.n += 1; s.n += 1; s.n += 1",
    "items": "s['n'] = 7; s['new'] = 'b'; s.d.e.n = 5; s.d['e']['n'] = 6",
    "values": """
for value in (1.5, None, True, "k" * 1500, 2**63, "k" * 3000, "\xe9", {}, 1):
    s.n = value
""",
    "block": """
with s.transaction():
    s.n = 1
    s.new = 2
    s.d.e.n = 3
""",
    "block with reads": """
with s.transaction():
    s.n += 1
    s.n += 1
    s['new'] += 1
""",
    "empty block": """
with s.transaction():
    pass
""",
    "undone block": """
with s.transaction() as t:
    s.n = 4
    t.rollback()
""",
    "block in a block": """
with s.transaction():
    s.n = 1
    with s.transaction():
        s.n = 2
""",
    "append": "s.l.append(1); s.l.append('b'); s.l.append([1]); s.l[0]",
    "refused": """
try:
    s.n = object()
except TypeError:
    pass
""",
    "other opens": """
from pstate import store
from pstate.engines import FILES
from pstate.memory import ops
o = PersistedState.__new__(PersistedState)
for name, value in (("_parent", ops.ROOT), ("_key", None), ("_reopen", (str(path), {}))):
    ops.set_slot(o, name, value)
store.Store(str(path), engine=FILES, lock_timeout=0).attach(o, 0)
""",
    "after another one's commit": """
o.n = 8; s.n; o.n = 9; s.n += 1
o.l.append(2); len(s.l)
o.d.e.n = 1; s.d.e.n
o.n = {}; s.n
""",
    "turns": """
s.n = 0
for _ in range(3):
    with s.transaction():
        s.n += 1
    with o.transaction():
        o.n += 1
""",
    "locked": """
with o.transaction():
    try:
        with s.transaction(timeout=0):
            pass
    except TimeoutError:
        pass
    s.n
""",
    "a look is due": "s._store.log.look.look_at = s._store.log.look.look_due = 0.0; s.n; s.n += 1",
    "a look is due in a change": "s._store.log.look.look_at = s._store.log.look.look_due = 0.0; s.n = 5; s.n += 1",
    "other closes": "o.close(); s.n += 1",
    "vacuum": "s.vacuum(); s.n; s.n += 1; s.n += 1",
    "close": "s.n = 3; s.close()",
    "power": "s = opened(durability='power'); s.n = 1; s.n += 1; s.n += 1",
    "block with power": """
with s.transaction():
    s.n += 1
    s.new = 5
""",
    "append with power": "s.l.append(1)",
    "close with power": "s.close()",
}

#: What may differ, in which parts, and why. In all other parts the calls are equal, one by one.
ALLOWED: dict[str, tuple[str, set[str]]] = {
    "questions": (
        "Where the compiled hot path hands over, Python starts again, so a question may recur. Whether a vacuum is "
        "due needs none where the size is known. A question changes nothing, not even an offset: all reads say where. "
        "Which kind of file system it is, is asked once for each file.",
        {
            "open", "values", "after another one's commit", "turns", "locked", "a look is due", "other closes", "power",
            "block with power", "append with power",
        },
    ),
    "a look at the path": (
        "A transaction that finds commits of others looks at the path, and whether somebody waits. A compiled one that "
        "has caught up does so only when the last look does not count any more (`LOOK_INTERVAL`), as one that finds "
        "nothing.",
        {"turns"},
    ),
    "a lock that is given back": (
        "Where the compiled hot path has locked, or tried to, and then hands over, it unlocks, and Python locks.",
        {"turns", "locked"},
    ),
}  # fmt: skip

_LINE = re.compile(r"^(?:\d+ +)?(\w+)\((.*)\) += (\S+)(.*)$")


def traced(folder: Path, pure: bool, prelude: str = "") -> dict[str, list[str]]:
    """The calls of each part of the script, by one flavour."""
    folder.mkdir()
    script, output = folder / "script.py", folder.with_suffix(".strace")
    code = "".join(f"\npart({name!r})\n{code}\n" for name, code in PARTS.items())
    script.write_text(f"{prelude}{SCRIPT}{code}\npart('end')\n")
    (folder / "state").mkdir()
    environment = {name: value for name, value in os.environ.items() if name != "PSTATE_PURE"}
    environment |= {"PYTHONPATH": str(ROOT), "PYTHONHASHSEED": "0", **({"PSTATE_PURE": "1"} if pure else {})}
    command = ["strace", "-qq", "-y", "-s", "5000", "-e", "signal=none", "-e", TRACED, "-o", str(output)]
    done = subprocess.run(
        [*command, sys.executable, str(script), str(folder / "state" / "state.yaml")],
        env=environment,
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )
    if "ptrace" in done.stderr:
        pytest.skip(f"strace may not look at processes here: {done.stderr.splitlines()[0]}")
    assert (0, "") == (done.returncode, done.stderr)
    return parts(output.read_text(), str(folder / "state"))


def parts(text: str, folder: str) -> dict[str, list[str]]:
    """The calls on what is in *folder*, by part, without what differs from run to run: numbers, inodes, times."""
    found: dict[str, list[str]] = {}
    calls: list[str] = []
    for line in text.splitlines():
        match = _LINE.match(line)
        if match is None or folder not in line:
            continue
        name, arguments, result, _ = match.groups()
        begun = re.search(r"/part ([^\"]*)\"", arguments)
        if begun:
            calls = found[begun[1]] = []
            continue
        arguments = arguments.replace(folder, "")
        arguments = re.sub(r"\{st_\w+=.*\}|\b0x[0-9a-f]{7,}\b", "{}", arguments)
        arguments = re.sub(r"\b\d+<", "<", arguments)
        result = result if name in ("lseek", "write", "flock") else "ok" if result[0] != "-" else result
        calls.append(f"{name}({arguments}) = {result}")
    return found


def name_of(call: str) -> str:
    return call.partition("(")[0]


def is_locking(call: str) -> bool:
    return call.startswith("flock(") and "LOCK_EX" in call and call.endswith("= 0")


def without_questions(calls: list[str]) -> list[str]:
    """*calls* without what asks about an open file, or reads it."""
    asking = ("fstatfs", "pread64", "lseek")
    return [call for call in calls if name_of(call) not in asking and not re.search("AT_EMPTY_PATH|F_GETFL", call)]


def without_looks(calls: list[str]) -> list[str]:
    """*calls* without those that ask for the file at the path, and whether somebody waits."""
    return [call for call in calls if not call.startswith("newfstatat(AT_FDCWD") and "F_OFD_GETLK" not in call]


def without_needless_locks(calls: list[str]) -> list[str]:
    """*calls* without a lock that is given back at once, and with one refusal in the place of several."""
    kept: list[str] = []
    for call in calls:
        if kept and "LOCK_UN" in call and is_locking(kept[-1]):
            kept.pop()
        elif not (kept and call.startswith("flock(") and call == kept[-1]):
            kept.append(call)
    return kept


#: In this order.
LEAVE_OUT = {
    "questions": without_questions,
    "a look at the path": without_looks,
    "a lock that is given back": without_needless_locks,
}


def comparable(calls: list[str], part: str) -> list[str]:
    """*calls* without what may differ in *part*."""
    for what, leave_out in LEAVE_OUT.items():
        if part in ALLOWED[what][1]:
            calls = leave_out(calls)
    return calls


@pytest.fixture(scope="module")
def by_pure(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[str]]:
    return traced(tmp_path_factory.mktemp("calls") / "pure", pure=True)


@pytest.fixture(scope="module")
def by_compiled(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[str]]:
    return traced(tmp_path_factory.mktemp("calls") / "compiled", pure=False)


@needs_strace
def test_the_calls_of_a_commit_are_seen(by_pure: dict[str, list[str]]) -> None:
    """Or two lists that are empty would be equal."""
    assert [*PARTS, "end"] == list(by_pure)
    names = [call.partition("(")[0] for call in by_pure["count"]]
    assert ["flock", "lseek", "write", "flock"] == names[-4:]
    assert 3 == names.count("write")
    assert 'set\\",[],\\"n\\",2' in "".join(by_pure["count"])
    assert "fdatasync" in "".join(by_pure["power"])
    assert "renameat2" in "".join(by_pure["close"])


@needs_strace
@needs_compiled
@pytest.mark.parametrize("name", PARTS)
def test_both_make_the_same_calls(by_pure: dict[str, list[str]], by_compiled: dict[str, list[str]], name: str) -> None:
    ours, theirs = comparable(by_pure[name], name), comparable(by_compiled[name], name)

    assert ours == theirs, "\n".join(unified_diff(ours, theirs, "pure", "compiled", n=9))


@needs_strace
@needs_compiled
def test_what_may_differ_does(by_pure: dict[str, list[str]], by_compiled: dict[str, list[str]]) -> None:
    """So nothing is allowed that need not be."""
    allowed = set().union(*(parts for _, parts in ALLOWED.values()))
    assert allowed == {name for name in PARTS if by_pure[name] != by_compiled[name]}


@needs_strace
@pytest.mark.parametrize("flavour", ["pure", pytest.param("compiled", marks=needs_compiled)])
def test_a_record_comes_after_a_look_at_the_size_under_the_lock(
    by_pure: dict[str, list[str]], flavour: str, request: pytest.FixtureRequest
) -> None:
    """Also in the parts where not each call must be equal."""
    found = by_pure if flavour == "pure" else request.getfixturevalue("by_compiled")
    written = 0
    for name, calls in found.items():
        is_locked, size = False, ""
        for call in calls:
            if call.startswith("flock("):
                is_locked, size = is_locking(call), ""
            elif call.startswith("lseek("):
                size = call
            elif call.startswith('write(</state.yaml>, "--- [['):
                assert is_locked, (name, call)
                assert size, (name, call)
                written += 1
    assert 40 < written


def test_only_what_is_named_is_left_out() -> None:
    lock, unlock, look = "flock(<>, LOCK_EX|LOCK_NB) = 0", "flock(<>, LOCK_UN) = 0", 'newfstatat(AT_FDCWD, "/a") = ok'
    calls = [look, lock, unlock, lock, "lseek(<>) = 9", look, "write(<>) = 3", unlock, "fdatasync(<>) = ok"]

    left = [call for call in calls if not call.startswith("lseek")]
    assert left == without_questions(calls)
    assert [look, *left[3:]] == without_needless_locks(left)
    assert [*left[1:4], *left[5:]] == without_looks(left)


TWICE = """
import os
from pstate.file.fs import SYSTEM
SYSTEM.lseek = lambda *args: (os.lseek(*args), os.lseek(*args))[1]
"""


@needs_strace
def test_one_call_more_is_seen(by_pure: dict[str, list[str]], tmp_path: Path) -> None:
    by_other = traced(tmp_path / "other", pure=True, prelude=TWICE)

    assert by_pure["refused"] == by_other["refused"]
    assert by_pure["block"] != by_other["block"]
    assert by_pure["count"] != by_other["count"]
