"""The end of the interpreter: whatever comes after our own `atexit` handler can still read and write."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from pstate import PersistedState

#: What happens at the end, and whether one plain document is left then.
AT_THE_END = {
    "a handler registered before the import": (
        """
        import atexit
        atexit.register(lambda: S.__setitem__("stopped", S["n"]))
        """,
        "S = PersistedState(sys.argv[1], n=0); S.n = 3",
        False,
    ),
    "a handler registered after the import": (
        "",
        """
        import atexit
        S = PersistedState(sys.argv[1], n=0); S.n = 3
        atexit.register(lambda: S.__setitem__("stopped", S.n))
        """,
        True,
    ),
    "a block in a handler registered before the import": (
        """
        import atexit
        def bye():
            with S.transaction():
                S.stopped = S.n
        atexit.register(bye)
        """,
        "S = PersistedState(sys.argv[1], n=0); S.n = 3",
        False,
    ),
    "a finalizer registered before the import": (
        """
        import weakref
        class Thing: pass
        thing = Thing()
        weakref.finalize(thing, lambda: S.__setitem__("stopped", S["n"]))
        """,
        "S = PersistedState(sys.argv[1], n=0); S.n = 3",
        False,
    ),
    "the __del__ of a global": (
        "",
        """
        S = PersistedState(sys.argv[1], n=0); S.n = 3
        class Worker:
            def __init__(self, state): self.state = state
            def __del__(self): self.state.stopped = self.state.n
        worker = Worker(S)
        """,
        False,
    ),
    "a generator in a block": (
        "",
        """
        S = PersistedState(sys.argv[1], n=0); S.stopped = S.n = 3
        def work():
            with S.transaction():
                S.n = 5
                yield
                S.n = 6
        worker = work()
        next(worker)
        """,
        False,
    ),
    "a daemon thread": (
        "",
        """
        import threading, time
        S = PersistedState(sys.argv[1], n=0, beat=0); S.stopped = S.n = 3
        begun = threading.Event()
        def beat():
            while True:
                S.beat += 1
                begun.set()
        threading.Thread(target=beat, daemon=True).start()
        begun.wait()
        """,
        False,
    ),
    "a daemon thread in a block": (
        "",
        """
        import threading, time
        S = PersistedState(sys.argv[1], n=0); S.stopped = S.n = 3
        begun = threading.Event()
        def hold():
            with S.transaction():
                S.n = 4
                begun.set()
                time.sleep(60)
        threading.Thread(target=hold, daemon=True).start()
        begun.wait()
        """,
        False,
    ),
}


@pytest.mark.parametrize("name", AT_THE_END)
def test_what_is_written_at_the_end_of_the_interpreter_is_in_the_file(tmp_path: Path, name: str) -> None:
    before, body, is_plain = AT_THE_END[name]
    path = tmp_path / "state.yaml"
    code = "\n".join(["import sys", unindented(before), "from pstate import PersistedState", unindented(body)])
    done = subprocess.run(
        [sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=False, timeout=40
    )

    assert (0, "") == (done.returncode, done.stderr)
    if is_plain:
        assert {"n": 3, "stopped": 3} == yaml.safe_load(path.read_bytes())
    state: Any = PersistedState.open(path, read_only=True)
    assert (3, 3) == (state.n, state.stopped)
    state.close()


def unindented(code: str) -> str:
    lines = code.strip("\n").split("\n")
    indent = len(lines[0]) - len(lines[0].lstrip())
    return "\n".join(line[indent:] for line in lines)


def test_a_finalizer_does_not_wait_for_a_thread_that_runs_no_more(tmp_path: Path) -> None:
    """Daemon threads stand still when the interpreter ends, and so does what they hold, for ever."""
    path = tmp_path / "state.yaml"
    code = '''
import sys, threading, time
from pstate import LockTimeout, PersistedState
S = PersistedState.open(sys.argv[1], defaults={"n": 0}, lock_timeout=None)
begun = threading.Event()
# With globals of its own, or the thread would keep the worker alive.
own = dict(S=S, begun=begun, time=time)
exec("""
def hold():
    with S.transaction():
        S.n = 1
        begun.set()
        time.sleep(60)
""", own)
threading.Thread(target=own.pop("hold"), daemon=True, name="holder").start()
begun.wait()
class Worker:
    def __init__(self, state): self.state, self.kind, self.print = state, LockTimeout, print
    def __del__(self):
        try:
            self.state.n = 2
        except self.kind as error:
            self.print(error.thread)
worker = Worker(S)
'''
    done = subprocess.run(
        [sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=False, timeout=40
    )
    assert (0, "holder\n", "") == (done.returncode, done.stdout, done.stderr)
    state: Any = PersistedState.open(path, read_only=True)
    assert 0 == state.n
    state.close()
