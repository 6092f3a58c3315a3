"""fork, and every start method of multiprocessing: what a child has of its parent's state, and what it cannot break.

A child has the parent's memory and descriptors, but not its lock and not its transaction. The tests of what happens
when an interpreter ends run real scripts, because a child of the test must never unwind the test.
"""

from __future__ import annotations

import ast
import contextlib
import copy
import importlib.util
import multiprocessing
import os
import pickle
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import filelock
import pytest
from tools.homes import file_only
from tools.processes import BIRTH, KERNEL, KINDS, PATIENCE, Crowd, Fork, Jobs, finish, increment, is_plain

from pstate import ClosedError, LockTimeout, PersistedState, ReadOnlyError, TransactionError, store
from pstate.engines import is_url
from pstate.file import format as f

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")

METHODS = multiprocessing.get_all_start_methods()


class Abort(Exception):
    """What a child leaves its parent's transaction with."""


@pytest.fixture
def crowd(address: str) -> Iterator[Crowd]:
    with Crowd(address) as crowd:
        yield crowd


@pytest.fixture
def locked_crowd(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Crowd]:
    """One for each kind of lock; that of a server is a kind."""
    on_server = request.param == "server"
    crowd = Crowd(request.getfixturevalue("url")) if on_server else Crowd(tmp_path / "state.yaml", request.param)
    with crowd:
        yield crowd


any_lock = pytest.mark.parametrize("locked_crowd", [*KINDS, "server"], indirect=True)
#: Those that end with their holder.
mortal_lock = pytest.mark.parametrize("locked_crowd", [*KERNEL, "server"], indirect=True)


# ---------------------------------------------------------------------- outside a transaction


@mortal_lock
def test_parent_and_child_count_exactly(locked_crowd: Crowd) -> None:
    """With the state that was open before the fork, and references from before it."""
    state = locked_crowd.open(defaults={"n": 0, "d": {"n": 0}}, lock_timeout=60)
    inner = state.d
    state.n = 0

    def count() -> int:
        for _ in range(40):
            with state.transaction():
                state.n += 1
                inner.n += 1
        return int(inner.n)

    children = [Fork(count) for _ in range(2)]
    count()
    for child in children:
        assert child.result() >= 40

    assert 120 == state.n == inner.n
    assert 120 == locked_crowd.other().ask("state.n")


def test_a_child_sees_what_the_parent_does_and_the_other_way_round(crowd: Crowd) -> None:
    state = crowd.open(defaults={"n": 0})
    to_child, to_parent = os.pipe(), os.pipe()

    def child() -> Any:
        for i in range(1, 20, 2):
            assert os.read(to_child[0], 1)
            assert i == state.n
            state.n = i + 1
            os.write(to_parent[1], b".")
        return state.snapshot()

    forked = Fork(child)
    for i in range(1, 20, 2):
        state.n = i
        if i % 3 == 0:
            state.vacuum()
        os.write(to_child[1], b".")
        assert os.read(to_parent[0], 1)
        assert i + 1 == state.n
    assert {"n": 20} == forked.result()
    for end in (*to_child, *to_parent):
        os.close(end)


def test_a_change_of_the_child_is_not_lost_by_the_parents_next(crowd: Crowd) -> None:
    state = crowd.open(defaults={"l": []})
    items = state.l
    Fork(lambda: items.append("child")).result()
    items.append("parent")

    assert ["child", "parent"] == items == crowd.other().ask("state.l")


@pytest.mark.parametrize("used", [False, True])
def test_a_child_that_closes_does_not_close_the_parents(crowd: Crowd, used: bool) -> None:
    state = crowd.open(defaults={"n": 0})
    state.n = 1
    before = crowd.home().commits()

    def child() -> bool:
        if used:
            assert 1 == state.n
        state.close()
        with contextlib.suppress(ClosedError):
            state.n
            return False
        return True

    assert Fork(child).result()
    if not used:
        assert before == crowd.home().commits()  # it has nothing to tidy
    state.n += 1
    assert 2 == state.n
    with state.transaction():
        assert crowd.home().is_locked()
        state.n += 1
    state.close()

    crowd.home().expect_tidy({"n": 3})


def test_a_child_opens_the_same_file_again(crowd: Crowd) -> None:
    state = crowd.open(defaults={"n": 0})

    def child() -> int:
        with PersistedState(crowd.path) as mine:
            increment(mine)
        increment(state)
        return int(state.n)

    assert 2 == Fork(child).result()
    assert 2 == state.n


def test_a_child_of_a_child(crowd: Crowd) -> None:
    state = crowd.open(defaults={"n": 0})

    def child() -> int:
        increment(state)
        Fork(lambda: increment(state)).result()
        return increment(state)

    assert 3 == Fork(child).result()
    assert 4 == increment(state)


@file_only("looks at the inode of the file; for a server, tests/test_rows.py looks at the session")
def test_descriptors_of_the_parent_are_closed_in_the_child(crowd: Crowd) -> None:
    """What a child inherits could keep a lock alive; so it keeps nothing."""
    state = crowd.open(defaults={"n": 0})
    assert 0 == state.n

    def child() -> int:
        inode = os.stat(crowd.path).st_ino
        count = 0
        for name in os.listdir("/proc/self/fd"):
            with contextlib.suppress(OSError):
                count += os.fstat(int(name)).st_ino == inode
        return count

    if not os.path.isdir("/proc/self/fd"):
        pytest.skip("this system does not list a process' descriptors")
    assert 0 == Fork(child).result()


# ---------------------------------------------------------------------- inside a transaction


def sys_exit() -> None:
    sys.exit(3)


def exception() -> None:
    raise Abort


def os_exit() -> None:
    os._exit(0)


def fall_through() -> None:
    pass


EXITS: list[Callable[[], None]] = [sys_exit, exception, os_exit, fall_through]


@pytest.mark.parametrize("leave", EXITS, ids=lambda leave: leave.__name__)
@any_lock
def test_a_child_that_leaves_the_parents_transaction_does_nothing_to_it(
    locked_crowd: Crowd, leave: Callable[[], None]
) -> None:
    """It neither unlocks nor commits nor rolls back."""
    state = locked_crowd.open(defaults={"n": 0, "l": []})
    stranger = locked_crowd.other(lock_timeout=0)
    before = locked_crowd.home().commits()

    def unwind(block: Any) -> str:
        try:
            leave()
        except BaseException as error:
            block.__exit__(type(error), error, error.__traceback__)
            return "raised"
        block.__exit__(None, None, None)
        return "fell through"

    block = state.transaction()
    with block:
        state.n = 1
        state.l.append(1)
        forked = Fork(lambda: unwind(block))
        with contextlib.suppress(EOFError):
            forked.result()
        assert before == locked_crowd.home().commits()
        with pytest.raises(LockTimeout):
            stranger.run("state.n = 100")
        assert {"n": 0, "l": []} == stranger.ask("state.snapshot()")
        assert {"n": 1, "l": [1]} == state
        state.n += 1
    assert {"n": 2, "l": [1]} == state == stranger.ask("state.snapshot()")


SCRIPT = """
import os, sys
from pstate import PersistedState

class Abort(Exception):
    pass

state = PersistedState.open(sys.argv[1], defaults={{"n": 0}}, locking={locking!r})
other = PersistedState(sys.argv[1] + ".other", n=0)
other.n = 1
pid = -1
try:
    with state.transaction():
        state.n = 1
        pid = os.fork()
        if pid == 0:
            {leave}
        os.waitpid(pid, 0)
        sys.stdin.readline() if print("child gone", flush=True) else sys.stdin.readline()
        state.n += 1
except Abort:
    pass
if pid == 0:
    sys.exit(0)
print(state.n, flush=True)
"""


@pytest.mark.parametrize(
    "leave", ["sys.exit(3)", "raise Abort", "os._exit(0)", "pass; raise SystemExit", "other.n = 2; sys.exit(0)"]
)
@mortal_lock
def test_an_interpreter_that_ends_in_the_parents_transaction_does_nothing_to_it(
    locked_crowd: Crowd, tmp_path: Path, leave: str
) -> None:
    """With all that the end of an interpreter does: finalizers, and what was registered for the exit."""
    script = tmp_path / "script.py"
    script.write_text(SCRIPT.format(locking=locked_crowd.kind, leave=leave))
    parent = subprocess.Popen(
        [sys.executable, str(script), locked_crowd.path], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert parent.stdin is not None
    assert parent.stdout is not None
    try:
        assert "child gone\n" == parent.stdout.readline()
        state = locked_crowd.open(lock_timeout=0)
        assert {"n": 0} == state
        with pytest.raises(LockTimeout) as caught:
            state.n = 100
        assert parent.pid == caught.value.holder or f":{parent.pid} " in (caught.value.holder_name or "")
        out, _ = parent.communicate("\n", timeout=PATIENCE)
    finally:
        parent.kill()
        parent.wait()
    assert "2\n" == out
    assert 0 == parent.returncode
    assert {"n": 2} == state


@any_lock
def test_a_child_is_not_in_the_parents_transaction(locked_crowd: Crowd) -> None:
    """It sees what is committed, and has to wait for the lock like everybody else."""
    if locked_crowd.kind == "SoftFileLock":
        pytest.skip("filelock's objects refuse by themselves to be used in a child that inherited them")
    state = locked_crowd.open(defaults={"n": 0, "d": {"x": 0}}, lock_timeout=0)
    inner = state.d

    def child() -> Any:
        seen = state.n, inner.x, state.snapshot(), len(state), list(inner), "new" in state
        for container in (inner, state):
            with contextlib.suppress(LockTimeout):
                container["x"] = 5
                return "changed"
        with contextlib.suppress(LockTimeout), state.transaction(timeout=0.01):
            return "entered"
        return seen

    with state.transaction():
        state.n = 1
        inner.x = 1
        state.new = 1
        seen = Fork(child).result()
        assert 1 == state.n
    assert (0, 0, {"n": 0, "d": {"x": 0}}, 2, ["x"], False) == seen
    assert {"n": 1, "d": {"x": 1}, "new": 1} == state


def test_a_child_takes_its_turn_after_the_parents_transaction(crowd: Crowd) -> None:
    state = crowd.open(defaults={"n": 1})
    read, write = os.pipe()

    def child() -> int:
        os.write(write, b".")
        with state.transaction():
            state.n *= 10
        return int(state.n)

    with state.transaction():
        forked = Fork(child)
        assert os.read(read, 1)
        state.n = 5
    assert 50 == forked.result()
    assert 50 == state.n
    os.close(read)
    os.close(write)


def test_the_blocks_of_the_parent_are_dead_in_the_child(crowd: Crowd) -> None:
    """`rollback` says so; leaving one after the child has begun its own leaves that alone."""
    state = crowd.open(defaults={"n": 0})

    def child(block: Any) -> str:
        with contextlib.suppress(TransactionError):
            block.rollback()
            return "rolled back"
        return "refused"

    def later(block: Any) -> int:
        with state.transaction():
            state.n = 7
            block.__exit__(None, None, None)
            assert crowd.home().is_locked()
            state.n += 1
        return int(state.n)

    with state.transaction() as block:
        state.n = 1
        assert "refused" == Fork(lambda: child(block)).result()
        block.rollback()
    with state.transaction() as block, state.transaction() as inner:
        forked = [Fork(lambda: later(block)), Fork(lambda: later(inner))]
    assert [8, 8] == [each.result() for each in forked]
    assert 8 == state.n


def test_a_nested_transaction_of_the_parent_is_left_alone_by_a_child(crowd: Crowd) -> None:
    state = crowd.open(defaults={"n": 0})

    def child(blocks: list[Any]) -> None:
        for block in reversed(blocks):
            block.__exit__(Abort, Abort(), None)

    outer = state.transaction()
    with outer:
        state.n = 1
        middle = state.transaction()
        with middle:
            state.n = 2
            Fork(lambda: child([outer, middle])).result()
        assert 2 == state.n
    assert 2 == state.n == crowd.other().ask("state.n")


@mortal_lock
def test_the_lock_of_a_killed_parent_is_free_although_its_child_lives(locked_crowd: Crowd, tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    state = locked_crowd.open(defaults={"n": 0})
    parent = locked_crowd.other()
    parent.enter("state.n = 1")
    parent.run(f"""
        pid = os.fork()
        if pid == 0:
            with open({str(fifo)!r}) as file:
                file.read()
            os._exit(0)
    """)
    child = parent.ask("pid")
    with open(fifo, "w"):  # the child is here, and stays until we close it
        parent.kill()
        # The system gives the lock back with the last descriptor, a server when it has noticed the end of the session.
        with state.transaction(timeout=PATIENCE if is_url(locked_crowd.path) else 0):
            state.n += 10
        os.kill(child, 0)
    assert 10 == state.n


@mortal_lock
def test_the_lock_of_a_parent_that_ended_its_transaction_is_free_although_its_child_lives(
    locked_crowd: Crowd, tmp_path: Path
) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    state = locked_crowd.open(defaults={"n": 0}, lock_timeout=0)
    other = locked_crowd.other(lock_timeout=0)

    def child() -> None:
        with open(fifo) as file:
            file.read()

    with state.transaction():
        state.n = 1
        forked = Fork(child)
    with open(fifo, "w"):
        other.run("state.n += 1; state.vacuum()")
        state.n += 1
    forked.result()
    assert 3 == other.ask("state.n")


@pytest.mark.parametrize("what", ["transaction", "open"])
def test_a_fork_while_another_thread_is_busy_does_not_hang_the_child(crowd: Crowd, what: str) -> None:
    """Only the forking thread lives on in a child, so nobody there would give the others' locks back."""
    state = crowd.open(defaults={"n": 0}, lock_timeout=0)
    inside, leave = threading.Event(), threading.Event()

    def busy() -> None:
        if what == "transaction":
            with state.transaction():
                state.n = 1
                inside.set()
                leave.wait(PATIENCE)
        else:
            PersistedState(f"{crowd.path}.second", a=1).close()
            inside.set()
            while not leave.is_set():
                PersistedState(f"{crowd.path}.second").close()

    thread = threading.Thread(target=busy)
    thread.start()
    assert inside.wait(PATIENCE)

    def child() -> Any:
        seen = state.snapshot()
        with PersistedState(crowd.path) as again:
            assert seen == again
        with PersistedState(f"{crowd.path}.third", x=1) as third:
            third["x"] = 2
        return seen

    for _ in range(1 if what == "transaction" else 10):
        assert {"n": 0} == Fork(child).result()
    leave.set()
    thread.join(PATIENCE)
    assert (1 if what == "transaction" else 0) == state.n


def test_a_fork_in_the_middle_of_a_write_harms_nobody(crowd: Crowd) -> None:
    """Another thread writes all the time; the child's memory may be from the middle of a change, and heals."""
    state = crowd.open(defaults={"a": 0, "b": 0})
    ended = threading.Event()

    def write() -> None:
        while not ended.is_set():
            with state.transaction():
                state.a += 1
                state.b += 1

    thread = threading.Thread(target=write)
    thread.start()
    try:
        for _ in range(5):

            def child() -> Any:
                one = state.snapshot()
                with state.transaction(timeout=60):
                    state.children = state.get("children", 0) + 1
                return one, state.snapshot()

            for seen in Fork(child).result():
                assert seen["a"] == seen["b"]
    finally:
        ended.set()
        thread.join(PATIENCE)
    assert 5 == state.children
    assert state.a == state.b


# ---------------------------------------------------------------------- multiprocessing


@pytest.mark.parametrize("method", METHODS)
def test_a_pool_counts_exactly(crowd: Crowd, method: str) -> None:
    state = crowd.open(defaults={"n": 0}, lock_timeout=60)
    with multiprocessing.get_context(method).Pool(2) as pool:
        answers = pool.map(increment, [state] * 24)
        pool.close()
        pool.join()

    assert list(range(1, 25)) == sorted(answers)
    assert 24 == state.n
    state.close()
    crowd.home().expect_tidy({"n": 24})


@file_only("a subclass is pickled in the same way, whatever its address is")
@pytest.mark.parametrize("method", METHODS)
def test_a_pool_works_on_a_subclass(crowd: Crowd, method: str) -> None:
    names = [f"job{i}" for i in range(6)]
    jobs = Jobs(crowd.path)
    with multiprocessing.get_context(method).Pool(2) as pool:
        assert ["Jobs"] * 6 == pool.map(finish, [(jobs, name) for name in names])
        pool.close()
        pool.join()

    assert {"finished": 6, **dict.fromkeys(names, "finished")} == jobs
    jobs.close()


@pytest.mark.parametrize("method", METHODS)
def test_a_lock_object_goes_along_to_a_process(tmp_path: Path, method: str) -> None:
    context: Any = multiprocessing.get_context(method)
    state: Any = PersistedState.open(
        tmp_path / "state.yaml", defaults={"n": 0}, locking=context.Lock(), lock_timeout=60
    )
    processes = [context.Process(target=count_many, args=(state, 15)) for _ in range(2)]
    for process in processes:
        process.start()
    count_many(state, 15)
    for process in processes:
        process.join(PATIENCE)
        assert 0 == process.exitcode
    assert 45 == state.n
    state.close()


def count_many(state: Any, times: int) -> None:
    for _ in range(times):
        increment(state)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_a_state_pickles_to_open_this_path_again(crowd: Crowd, protocol: int) -> None:
    state = crowd.open(defaults={"n": 1})
    again = pickle.loads(pickle.dumps(state, protocol))
    again.n = 2
    assert 2 == state.n
    again.close()
    assert 2 == state.n

    data = pickle.dumps(state, protocol)
    state.close()
    crowd.other().run("state.n = 50")
    with pickle.loads(data) as again:
        assert 50 == again.n


def elsewhere(data: bytes, what: Callable[[Any], Any]) -> Any:
    """What *what* makes of a pickled state in another process."""
    with BIRTH.Pool(1) as pool:
        return pool.apply(unpickled, (data, what))


def unpickled(data: bytes, what: Callable[[Any], Any]) -> Any:
    with pickle.loads(data) as state:
        return what(state)


def refused_to_write(state: Any) -> str:
    with contextlib.suppress(ReadOnlyError):
        state.n = 5
        return "written"
    return "refused"


def timed_out(state: Any) -> float:
    try:
        state.n = 5
    except LockTimeout as error:
        return error.waited
    return -1


def write_one(state: Any) -> None:
    state.n = 5


@file_only("most of its options are locks of files; tests/test_rows.py pickles a URL")
def test_a_pickled_state_keeps_its_options(crowd: Crowd) -> None:
    crowd.begin(n=1)
    with PersistedState.open(crowd.path, read_only=True) as state:
        assert "refused" == elsewhere(pickle.dumps(state), refused_to_write)

    with PersistedState.open(crowd.path, lock_timeout=0.05) as state:
        data = pickle.dumps(state)
        with state.transaction():
            assert 0.05 <= elsewhere(data, timed_out) < 5

    with PersistedState.open(crowd.path, locking="portalocker", lock_timeout=0.05) as state:
        data = pickle.dumps(state)
        with state.transaction():
            assert 0.05 <= elsewhere(data, timed_out) < 5

    lock = filelock.SoftFileLock(crowd.path + ".soft")
    with PersistedState.open(crowd.path, locking=lock, lock_timeout=0.05) as state:
        try:
            data = pickle.dumps(state)
        except TypeError:
            data = b""  # the lock object decides whether it can be sent
        if data:
            with state.transaction():
                assert 0.05 <= elsewhere(data, timed_out) < 5

    with PersistedState.open(crowd.path, durability="power") as state:
        data = pickle.dumps(state)
    assert elsewhere(data, marker_after_write).power


def marker_after_write(state: Any) -> Any:
    state.n = 5
    return f.scan(Path(state._store.path).read_bytes()).marker


def test_defaults_are_not_committed_again_by_a_pickle(crowd: Crowd) -> None:
    state = crowd.open(defaults={"n": 1})
    data = pickle.dumps(state)
    del state.n
    with pickle.loads(data) as again:
        assert {} == again


def test_a_subclass_pickles(crowd: Crowd) -> None:
    jobs = Jobs(crowd.path)
    again = pickle.loads(pickle.dumps(jobs))
    assert type(again) is Jobs
    again.finish("a")
    assert {"finished": 1, "a": "finished"} == jobs
    jobs.close()
    again.close()


@file_only("a URL has no relative form")
def test_a_relative_path_is_pickled_as_what_it_meant(crowd: Crowd, monkeypatch: pytest.MonkeyPatch) -> None:
    crowd.begin(n=1)
    monkeypatch.chdir(crowd.file.parent)
    with PersistedState("state.yaml") as state:
        data = pickle.dumps(state)
    monkeypatch.chdir("/")
    with pickle.loads(data) as state:
        assert {"n": 1} == state


COPIES: dict[str, Callable[[Any], Any]] = {
    "pickle": lambda value: pickle.loads(pickle.dumps(value)),
    "pickle 0": lambda value: pickle.loads(pickle.dumps(value, 0)),
    "pickle 2": lambda value: pickle.loads(pickle.dumps(value, 2)),
    "deepcopy": copy.deepcopy,
    "among others": lambda value: copy.deepcopy([value, {"x": value}])[1]["x"],
}


@pytest.mark.parametrize("name", COPIES)
def test_copies_of_containers_are_plain(crowd: Crowd, name: str) -> None:
    content = {"d": {"l": [1, {"s": {1, 2}}], "e": {}}, "l": [[], {"x": [None]}], "s": {1, "a"}}
    state = crowd.open(defaults=content)
    for key, expected in content.items():
        copied = COPIES[name](state[key])
        assert expected == copied
        assert is_plain(copied)
    copied = COPIES[name](state.d)
    copied["l"][1]["s"].add(3)
    assert content == state
    with state.transaction() as block:
        state.d.l.append(2)
        assert 2 == COPIES[name](state.d)["l"][-1]
        block.rollback()
    if not name.startswith("pickle"):
        copied = copy.deepcopy(state)
        assert content == copied
        assert is_plain(copied)


def test_shallow_copies_hold_the_live_containers_or_plain_ones_but_are_plain_themselves(crowd: Crowd) -> None:
    state = crowd.open(defaults={"d": {"x": 1}, "l": [1], "s": {1}})
    for container, kind in ((state.d, dict), (state.l, list), (state.s, set)):
        copied = copy.copy(container)
        assert kind is type(copied)
        assert container == copied
    assert dict is type(copy.copy(state))


SLOW_IMPORT = """
import os, sys, threading
from pstate import PersistedState

class Slow:
    \"\"\"The import of one module takes until the fork has begun, and somewhat longer.\"\"\"

    def find_spec(self, name, path=None, target=None):
        if name == "pstate.text.splice":
            begun.set()
            go_on.wait(0.5)

begun, go_on = threading.Event(), threading.Event()
sys.meta_path.insert(0, Slow())
state = PersistedState(sys.argv[1])
state.n = 1
thread = threading.Thread(target=state.vacuum)
thread.start()
begun.wait()
child = os.fork()
if not child:
    state.n = 2
    state.close()
    os._exit(0)
thread.join()
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


def test_a_fork_while_another_thread_imports_what_is_needed_late(tmp_path: Path) -> None:
    """The child would wait for that thread, which it does not have."""
    path = tmp_path / "state.yaml"
    path.write_text("# commented\nn: 0\n")
    done = subprocess.run(
        [sys.executable, "-c", SLOW_IMPORT, str(path)], capture_output=True, text=True, timeout=20, check=False
    )

    assert ("0\n", "# commented\nn: 2\n") == (done.stdout, path.read_text()), done.stderr


def late_imports() -> Iterator[str]:
    """The modules that the package, but for the command line and what is for tests, imports within its functions."""
    package = Path(store.__file__).parent
    for file in package.rglob("*.py"):
        if not {"cli", "testing"} & {*file.relative_to(package).parts}:
            for function in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
                if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef):
                    for node in ast.walk(function):
                        if isinstance(node, ast.Import):
                            yield from (alias.name for alias in node.names)
                        elif isinstance(node, ast.ImportFrom) and node.module:
                            inside = [f"{node.module}.{alias.name}" for alias in node.names]
                            modules = list(filter(is_module, inside))
                            yield from modules or [node.module]


def is_module(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except ModuleNotFoundError:
        return False


def test_what_is_imported_late_is_imported_before_a_fork() -> None:
    """Else a child could wait for ever for an import that a thread of the parent was in the middle of."""
    # A lock of others and the engine for servers are imported when they are chosen; `asyncio` and `ast` for one call.
    others = {"filelock", "portalocker", "pstate.rows.servers", "asyncio", "ast"}
    found = {name for name in late_imports() if not name.startswith("yaml.")} - others

    assert found == {*store._IMPORTED_LATE}
