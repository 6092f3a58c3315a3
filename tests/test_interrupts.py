"""Asynchronous exceptions: a change that is interrupted anywhere is wholly committed or not, and memory says which.

Every scenario is repeated with a signal at each place where CPython can run its handler. Afterwards memory, the file,
and a process that looked on must agree, no lock may be held, and the next changes must work. A sample of the places is
tried; all of them with PSTATE_EVERY_INTERRUPT=1, for about ten minutes.
"""

from __future__ import annotations

import errno
import gc
import itertools
import json
import os
import random
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import nullcontext, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
from tools.disks import Disk
from tools.interrupts import EVERY, PREPARE_OTHER, Action, Hurried, Interrupter, Scene, ServerScene, State, chosen
from tools.processes import Other, end, with_a_state

from pstate import (
    ABSENT,
    Change,
    DurabilityUnknown,
    EditConflict,
    LockTimeout,
    PersistedState,
    ReentrantError,
    StoreFailedError,
    TransactionError,
    at,
    store,
    watch,
)
from pstate.file import log
from pstate.memory import ops
from pstate.state import Transaction
from pstate.values import same

pytestmark = [
    pytest.mark.skipif(sys.implementation.name != "cpython", reason="the places are those of CPython"),
    pytest.mark.timeout(1200 if EVERY else 60),
]

CONTENT = b"""\
n: 1
text: t
key:
  nested: 1
  deep: {a: [1, 2]}
list: [3, 1, 2]
set: !!set {1, 2}
"""


class Abort(Exception):
    """What a test leaves a transaction with."""


class Alarm(TimeoutError):
    """What people raise in a handler of SIGALRM. It is an OSError too, as those of a failing disk are."""


def ring(number: int, frame: Any) -> None:
    raise Alarm


def ring_with_a_number(*_: Any) -> None:
    """As the system does for a connection that took too long."""
    raise Alarm(errno.ETIMEDOUT, os.strerror(errno.ETIMEDOUT))


class Clumsy:
    """A handler with a method, which fails at a file of its own, in a function that it calls."""

    __name__ = "Clumsy"

    def __call__(self, number: int, frame: Any) -> None:
        self.note()

    def note(self) -> None:
        os.unlink("/nowhere/alarm")


def use_another_state(number: int, frame: Any) -> None:
    """What another state raises is not an answer to a call of this one's."""
    raise LockTimeout("another state is locked", path="another.yaml")


#: Each kind of exception that could be taken for one that was raised by what the package has called.
HANDLERS: dict[Any, type[BaseException]] = {
    signal.default_int_handler: KeyboardInterrupt,
    ring: Alarm,
    ring_with_a_number: Alarm,
    Clumsy(): FileNotFoundError,
    use_another_state: LockTimeout,
}


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Other]:
    folder = tmp_path_factory.mktemp("other")
    other = Other(with_a_state, str(folder / "unused.yaml"), "file", None, {"opened": False})
    other.run(PREPARE_OTHER)
    yield other
    end([other])


@pytest.fixture
def scene(tmp_path: Path, other: Other, request: pytest.FixtureRequest) -> Iterator[Scene]:
    """With the parameter "server", a state at a URL."""
    on_server = getattr(request, "param", "file") == "server"
    scene = ServerScene(tmp_path, other, request.getfixturevalue("url")) if on_server else Scene(tmp_path, other)
    yield scene
    scene.let_go()
    other.run("state = None")


# ------------------------------------------------------------------ scenarios


def nothing(scene: Scene) -> None:
    pass


def journal(scene: Scene) -> None:
    scene.state["n"] = 1


@dataclass(frozen=True)
class Scenario:
    """What is interrupted: *action*, after *prepare*. *between*: what an action of several commits may leave."""

    name: str
    action: Action
    prepare: Callable[[Scene], Any] = journal
    content: bytes | None = CONTENT
    options: dict[str, Any] = field(default_factory=dict)
    between: tuple[dict[str, Any], ...] = ()
    at_most: int = 13
    after: Callable[[Scene], Any] = nothing  #: what others do next, however the action ended
    file_only: str = ""  #: why a server has no such thing


def several_values(state: Any) -> None:
    state.update(n=2, text="u", more=[1, {"a": 2}])


def delete(state: Any) -> None:
    del state["key"]["deep"]


def block(state: Any) -> None:
    with state.transaction():
        state["n"] = 7
        state["n"] = 2
        state["list"].insert(0, 9)
        state["key"]["nested"] = 5
        state["set"].add(3)


def block_with_savepoints(state: Any) -> None:
    with state.transaction():
        state["n"] = 2
        with suppress(Abort), state.transaction():
            state["list"].append(4)
            del state["key"]["deep"]
            raise Abort
        with state.transaction():
            state["text"] = "u"


def block_that_rolls_back(state: Any) -> None:
    with state.transaction() as outer:
        state["n"] = 2
        with state.transaction() as inner:
            state["list"].append(4)
            inner.rollback()
        state["key"]["nested"] = 5
        outer.rollback()


def block_that_fails(state: Any) -> None:
    with suppress(Abort), state.transaction():
        state["n"] = 2
        state["list"].clear()
        raise Abort


def block_that_reads(state: Any) -> None:
    with state.transaction():
        assert state["n"] == 1


def block_by_decorator(state: Any) -> None:
    def change() -> None:
        state["n"] += 1
        state["list"].append(4)

    state.transaction()(change)()


def two_blocks(state: Any) -> None:
    with state.transaction():
        state["n"] = 2
    with state.transaction():
        state["n"] = 3


def place_incremented(state: Any) -> None:
    at(state, "key.nested").incr()


def place_made(state: Any) -> None:
    at(state, "key.new.deep").set([1], parents=True)


def theirs(scene: Scene) -> None:
    scene.state["n"] = 1
    scene.other.run("state['list'].append(5); state['key']['nested'] = 6; state['text'] = 'v'; state['set'].add(7)")


def their_vacuum(scene: Scene) -> None:
    theirs(scene)
    scene.other.run("state.vacuum()")


def their_vacuum_and_more(scene: Scene) -> None:
    their_vacuum(scene)
    scene.other.run("state['text'] = 'w'; state['list'].insert(0, 8)")


def their_long_block(scene: Scene) -> None:
    scene.state["n"] = 1
    scene.block_it(3, "state['text'] = 'v'")


def unblock(scene: Scene) -> None:
    scene.unblock()


#: A block whose end was interrupted at the door is ended when its exception goes. Elsewhere a kept one changes nothing.
BLOCK_ACTIONS = (
    block,
    block_with_savepoints,
    block_that_rolls_back,
    block_that_fails,
    block_that_reads,
    block_by_decorator,
    two_blocks,
    place_incremented,
    place_made,
)

EDITED = CONTENT.replace(b"nested: 1", b"nested: 3")


def edit_by_rename(scene: Scene) -> None:
    new = scene.path + ".new"
    Path(new).write_bytes(EDITED)
    os.rename(new, scene.path)


def edit_in_place(scene: Scene) -> None:
    scene.looks = 5  # a save in place counts when the file has been left alone for a while
    Path(scene.path).write_bytes(EDITED)


def edit_with_commits(scene: Scene) -> None:
    """The saved copy lacks a commit, so both are merged and written."""
    scene.state["text"] = "u"
    edit_by_rename(scene)


def edit_in_place_with_commits(scene: Scene) -> None:
    scene.state["text"] = "u"
    edit_in_place(scene)


def torn_tail(scene: Scene) -> None:
    scene.state["n"] = 1
    with open(scene.path, "ab") as file:
        file.write(b'--- [["set",[],"n",')


#: Why some scenarios are for files only.
TORN = "a commit is in the server or not, so no tail is torn"
COUNTED = "the file engine waits in pauses, which are counted; a server waits by itself"
EDITS = "nobody saves over a server: an edit is a commit"

SINGLE = [
    Scenario("a value", lambda state: state.__setitem__("n", 2)),
    Scenario("an attribute", lambda state: setattr(state, "n", 2)),
    Scenario("a nested value", lambda state: state["key"].__setitem__("nested", 2)),
    Scenario("a new container", lambda state: state.__setitem__("key", {"other": [1, {2: 3}]})),
    Scenario("list insert", lambda state: state["list"].insert(0, {"a": 1})),
    Scenario("list slice", lambda state: state["list"].__setitem__(slice(0, 2), [{"b": 1}, 8, 9])),
    Scenario("list sort", lambda state: state["list"].sort()),
    Scenario("list sort by key", lambda state: state["list"].sort(key=lambda each: -each)),
    Scenario("set add", lambda state: state["set"].add(3)),
    Scenario("set update", lambda state: state["set"].__ior__({4, 5})),
    Scenario("several values", several_values),
    Scenario("increment", lambda state: state.__setitem__("n", state["n"] + 1)),
    Scenario("delete", delete),
    Scenario("pop", lambda state: state.pop("key")),
    Scenario("clear", lambda state: state["key"].clear()),
    Scenario("setdefault", lambda state: state.setdefault("new", [1])),
    Scenario("durability power", lambda state: state.__setitem__("n", 2), options={"durability": "power"}),
]

FIRST = [
    Scenario("into a new file", lambda state: state.__setitem__("n", 2), nothing, None),
    Scenario("several values into a new file", several_values, nothing, None),
    Scenario("after a document", lambda state: state.__setitem__("n", 2), nothing),
    Scenario("after a comment", lambda state: state.__setitem__("n", 2), nothing, b"# nothing yet\n"),
    Scenario(
        "after an unfinished string", lambda state: state.__setitem__("n", 2), nothing, b"n: 1\nt: |+\n  a", at_most=24
    ),
    Scenario("a block", block, nothing),
    Scenario("power after a document", block, nothing, options={"durability": "power"}),
]

BLOCKS = [
    Scenario("a block", block),
    Scenario("savepoints", block_with_savepoints, at_most=24),
    Scenario("rollback", block_that_rolls_back, at_most=24),
    Scenario("an exception", block_that_fails),
    Scenario("only reads", block_that_reads),
    Scenario("a decorator", block_by_decorator),
    Scenario("two blocks", two_blocks, between=({"n": 2},)),
    Scenario("a place, incremented", place_incremented),
    Scenario("a place, made", place_made),
    Scenario("durability power", block, options={"durability": "power"}),
]

CATCHING_UP = [
    Scenario("read a value", lambda state: state["text"], theirs),
    Scenario("read a nested value", lambda state: state["key"]["nested"], theirs),
    Scenario("read the whole", lambda state: state.snapshot(), theirs),
    Scenario("iterate", lambda state: [*state.items()], theirs),
    Scenario("copy by C code", lambda state: {**state}, theirs),
    Scenario("compare", lambda state: state["list"] == [1], theirs),
    Scenario("change", lambda state: state["list"].append(1), theirs),
    Scenario("a block", block, theirs),
    Scenario("read, after a vacuum", lambda state: state["text"], their_vacuum),
    Scenario("change, after a vacuum", lambda state: state["list"].append(1), their_vacuum),
    Scenario("read, after a vacuum and more", lambda state: state["text"], their_vacuum_and_more),
    Scenario("block, after a vacuum and more", block, their_vacuum_and_more),
    Scenario("cut a torn tail", lambda state: state.__setitem__("n", 2), torn_tail, file_only=TORN),
    Scenario(
        "wait for the lock", lambda state: state.__setitem__("n", 2), their_long_block, after=unblock, file_only=COUNTED
    ),
    Scenario("block waits for the lock", block, their_long_block, after=unblock, file_only=COUNTED),
]

REWRITING = [
    Scenario("vacuum", lambda state: state.vacuum(), at_most=24),
    Scenario("vacuum, power", lambda state: state.vacuum(), options={"durability": "power"}),
    Scenario("vacuum of what others wrote", lambda state: state.vacuum(), theirs),
    Scenario("edit by rename, read", lambda state: state.snapshot(), edit_by_rename, file_only=EDITS),
    Scenario("edit by rename, change", lambda state: state.__setitem__("n", 2), edit_by_rename, file_only=EDITS),
    Scenario("edit by rename, block", block, edit_by_rename, file_only=EDITS),
    Scenario("edit in place, read", lambda state: state.snapshot(), edit_in_place, file_only=EDITS),
    Scenario("edit in place, change", lambda state: state.__setitem__("n", 2), edit_in_place, file_only=EDITS),
    Scenario("edit and commits, read", lambda state: state.snapshot(), edit_with_commits, file_only=EDITS),
    Scenario("edit and commits, change", lambda state: state.__setitem__("n", 2), edit_with_commits, file_only=EDITS),
    Scenario(
        "edit in place and commits",
        lambda state: state.__setitem__("n", 2),
        edit_in_place_with_commits,
        file_only=EDITS,
    ),
]


def with_lock(kind: str) -> list[Scenario]:
    return [
        Scenario(f"{kind}, a value", lambda state: state.__setitem__("n", 2), options={"locking": kind}, at_most=12),
        Scenario(f"{kind}, a block", block, options={"locking": kind}, at_most=12),
        Scenario(f"{kind}, waiting", block, their_long_block, options={"locking": kind}, at_most=12, after=unblock),
        Scenario(f"{kind}, vacuum", lambda state: state.vacuum(), options={"locking": kind}, at_most=12),
    ]


LOCKS = [*with_lock("filelock"), *with_lock("portalocker")]


def of(scenarios: list[Scenario]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("scenario", [pytest.param(each, id=each.name) for each in scenarios])


on_both = pytest.mark.parametrize("scene", ["file", "server"], indirect=True)


def of_both(scenarios: list[Scenario]) -> pytest.MarkDecorator:
    """`of` and `on_both`, without the scenarios that only a file has; half of the others if there is little time."""
    both = [("file", each) for each in scenarios]
    both += [("server", each) for each in [each for each in scenarios if not each.file_only][:: 1 if EVERY else 2]]
    params = [pytest.param(*each, id=f"{each[0]}-{each[1].name}") for each in both]
    return pytest.mark.parametrize(("scene", "scenario"), params, indirect=["scene"])


def library_files(locking: object) -> tuple[str, ...]:
    """The code of a lock library, in which a signal can arrive too.

    Not filelock's: an interrupt within what it notes about forks can make its other threads wait for ever (seen with
    4.2), which we cannot mend from outside. Nor portalocker's exceptions, whose `suppress(Exception)` keeps what a
    handler raises there.
    """
    if locking != "portalocker":
        return ()
    import portalocker

    return tuple(str(file) for file in Path(portalocker.__file__).parent.glob("*.py") if file.stem != "exceptions")


def tried(scene: Scene, scenario: Scenario, *numbers: int, handler: Any = signal.default_int_handler) -> Interrupter:
    """Run the scenario again, interrupted at these places."""
    scene.set(scenario.content, scenario.prepare, **scenario.options)
    interrupter = Interrupter(
        *numbers, files=(__file__, *library_files(scenario.options.get("locking"))), handler=handler
    )
    state = scene.state
    error = interrupter.run(lambda: scenario.action(state), keep=scenario.action not in BLOCK_ACTIONS)
    scenario.after(scene)
    scene.errors = [error]
    kind = HANDLERS.get(handler, BaseException)
    assert all(type(each) is kind for each in interrupter.swallowed), interrupter.swallowed
    if interrupter.fired > len(interrupter.swallowed):
        assert type(error) is kind, f"{interrupter.where}: raised {error!r}"
    else:
        assert error is None, f"{interrupter.where}: raised {error!r}"
    return interrupter


def outcomes_of(scene: Scene, scenario: Scenario) -> tuple[int, list[State]]:
    """How many places there are, and what the state may be after an interruption."""
    scene.set(scenario.content, scenario.prepare, **scenario.options)
    scenario.after(scene)
    for _ in range(scene.looks):
        scene.state.snapshot()
    before = scene.here()
    passed = tried(scene, scenario).passed
    after = scene.here()
    return passed, [before, after, *({**after, **each} for each in scenario.between)]


def interrupt_everywhere(scene: Scene, scenario: Scenario, clean: bool = False) -> None:
    places, outcomes = outcomes_of(scene, scenario)
    order = itertools.cycle((True, False))

    def check() -> None:
        scene.settle(outcomes, lock_first=next(order))
        if clean:
            scene.is_clean()

    each_place(scene, scenario, places, scenario.at_most, check)


@of_both(SINGLE)
def test_an_interrupted_change_is_wholly_there_or_not_at_all(scene: Scene, scenario: Scenario) -> None:
    """One change of a file that has a journal already."""
    interrupt_everywhere(scene, scenario)


@of_both(FIRST)
def test_an_interrupted_first_commit_is_wholly_there_or_not_at_all(scene: Scene, scenario: Scenario) -> None:
    """The first record comes with the base marker, and after some documents with a new document."""
    interrupt_everywhere(scene, scenario)


@of_both(BLOCKS)
def test_an_interrupted_transaction_is_wholly_there_or_not_at_all(scene: Scene, scenario: Scenario) -> None:
    """In its first instruction, in its last, and in the body of the block."""
    interrupt_everywhere(scene, scenario)


@of_both(CATCHING_UP)
def test_an_interrupted_reader_is_not_left_behind(scene: Scene, scenario: Scenario) -> None:
    """Memory follows what other processes have done, and the interruption comes in the middle."""
    interrupt_everywhere(scene, scenario)


@of_both(REWRITING)
def test_an_interrupted_rewriting_of_the_file_loses_nothing(scene: Scene, scenario: Scenario) -> None:
    """Vacuums, and the adoption of a person's edit."""
    interrupt_everywhere(scene, scenario, clean=True)


@of(LOCKS)
def test_every_kind_of_lock_is_free_after_an_interruption(scene: Scene, scenario: Scenario) -> None:
    """Also when the interruption comes within the library."""
    interrupt_everywhere(scene, scenario)


# ------------------------------------------------------------------ while somebody watches


class Watched:
    """A scenario while its state is watched, by a watch without a thread: that would come at moments of its own."""

    def __init__(self, scenario: Scenario) -> None:
        self._prepare = scenario.prepare
        self.scenario = replace(scenario, prepare=self.prepare)
        self.before: State = {}
        self.told: list[Change] = []
        self.watch: Any = None

    def prepare(self, scene: Scene) -> None:
        self.watch = scene.state.watch()
        self.before, self.told = scene.state.snapshot(), []
        self._prepare(scene)

    def hear(self) -> None:
        with suppress(EditConflict):
            self.told += self.watch.poll()

    def check(self, scene: Scene) -> None:
        """What was told leads from change to change to what the state is."""
        self.hear()
        now = scene.here()
        self.hear()
        state = self.before
        for change in self.told:
            state = replayed(state, change)
        assert same(now, state), f"{now} is the state, and {state} what was told: {self.told}"


def replayed(tree: Any, change: Change) -> Any:
    """What *tree* becomes by *change*, which has to begin with the present value."""
    if not change.path:
        assert same(tree, change.old), change
        return change.new
    key, path = change.path[0], change.path[1:]
    copy = tree.copy()
    if change.is_member and not path:
        assert (key in tree) is (change.old is not ABSENT), change
        copy.symmetric_difference_update({key})
    elif path:
        copy[key] = replayed(tree[key], change._replace(path=path))
    elif change.old is ABSENT:
        assert isinstance(tree, list) or key not in tree, change
        copy.insert(key, change.new) if isinstance(tree, list) else copy.update({key: change.new})
    elif change.new is ABSENT:
        if isinstance(tree, list):
            copy.remove(change.old)  # of several that go, each has the index that it had
        else:
            assert same(copy.pop(key), change.old), change
    else:
        assert same(copy[key], change.old), change
        copy[key] = change.new
    return copy


@of_both([*SINGLE[:1], *SINGLE[4:6], *SINGLE[10:11], *FIRST[1:3], *BLOCKS[:3], *CATCHING_UP, *REWRITING])
def test_a_watch_tells_what_was_committed_however_it_was_interrupted(
    scene: Scene, scenario: Scenario, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No commit that did not happen, and each that did, once; and the store keeps its own promises."""
    monkeypatch.setattr(watch, "_follow", lambda *args: None)
    watched = Watched(scenario)
    places, outcomes = outcomes_of(scene, watched.scenario)
    order = itertools.cycle((True, False))

    def check() -> None:
        for _ in range(max(2, scene.looks)):  # who is left without a trailer judges an edit by a look of its own
            scene.state.snapshot()
            scene.there()
        watched.check(scene)
        scene.settle(outcomes, lock_first=next(order))
        watched.check(scene)

    each_place(scene, watched.scenario, places, scenario.at_most, check)


@of([each for each in (*CATCHING_UP, *REWRITING) if each.name.startswith("read") or each.name.endswith("read")])
def test_an_interrupted_look_of_a_watch_leaves_it_in_order(
    scene: Scene, scenario: Scenario, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was about to be told may be lost with the exception, but what comes then has the right old values."""
    monkeypatch.setattr(watch, "_follow", lambda *args: None)
    watched = Watched(replace(scenario, action=lambda state: watched.watch.poll()))
    places, outcomes = outcomes_of(scene, watched.scenario)

    def check() -> None:
        for _ in range(scene.looks):
            watched.hear()
            scene.there()
        now = scene.here()
        watched.hear()
        watched.before, watched.told = now, []
        scene.settle(outcomes, lock_first=True)
        watched.check(scene)

    each_place(scene, watched.scenario, places, 40, check)


# ------------------------------------------------------------------ the beginning and the end of a state


@on_both
def test_an_interrupted_close_can_be_repeated(scene: Scene) -> None:
    """Whatever it left, the state is in the file and the lock is free."""
    expected = {**outcome(scene), "n": 2}

    def prepare(scene: Scene) -> None:
        scene.state["n"] = 2

    scenario = Scenario("close", lambda state: state.close(), prepare)
    places = tried(scene, scenario).passed
    each_place(scene, scenario, places, 30, lambda: close_again(scene, expected))


def close_again(scene: Scene, expected: State) -> None:
    scene.is_free()
    assert same(expected, scene.fresh())
    assert same(expected, scene.there())
    scene.state.close()
    scene.is_free()
    scene.state = PersistedState.open(scene.path, **scene.options)
    scene.settle([expected], lock_first=True)


def each_place(
    scene: Scene, scenario: Scenario, places: int, at_most: int, check: Callable[[], Any], distance: int = 0
) -> None:
    """Interrupt the scenario at every place, or a sample; with *distance*, once more at most so many places later."""
    problems = []
    chance = random.Random(scenario.name)
    usual, *others = HANDLERS
    handlers = itertools.cycle(others if EVERY else HANDLERS)
    if isinstance(scene, ServerScene):
        at_most = at_most if EVERY else max(3, at_most // 4)  # each round is dozens of round trips
    numbers_chosen = chosen(places, at_most, scenario.name)
    rounds = [(number, next(handlers)) for number in numbers_chosen]
    rounds += [(number, usual) for number in numbers_chosen if EVERY]
    for number, handler in rounds:
        numbers = (number, number + chance.randint(1, distance)) if distance else (number,)
        where = f"places {numbers} of {places} {getattr(handler, '__name__', '')}"
        try:
            interrupter = tried(scene, scenario, *numbers, handler=handler)
            where += interrupter.where
            if interrupter.fired:
                check()
        except (AssertionError, Exception) as error:
            problems.append(f"{where}: {error!r:.400}")
            if len(problems) > 4:
                break
            scene.abandon()
    assert not problems, "\n".join(problems)


@pytest.mark.parametrize("handler", [signal.default_int_handler, ring_with_a_number])
def test_a_failed_sync_is_not_forgotten_with_an_interruption(scene: Scene, handler: Any) -> None:
    """The system tells of it once. Whatever a handler raises before it was noted, the next sync proves nothing."""
    failed_at = 0

    def sync(fd: int) -> None:
        nonlocal failed_at
        if not failed_at:
            failed_at = interrupter.passed + 1
            raise OSError(errno.EIO, os.strerror(errno.EIO))

    def change() -> None:
        scene.state["n"] = 2

    def interrupted(number: int) -> BaseException | None:
        nonlocal interrupter, failed_at
        scene.set(CONTENT, journal, durability="power")
        failed_at, scene.fs.sync_data = 0, sync
        interrupter = Interrupter(number, handler=handler)
        return interrupter.run(change)

    interrupter = Interrupter()
    assert isinstance(interrupted(0), DurabilityUnknown)
    first, last = failed_at, interrupter.passed
    assert first < last
    for number in range(first, last + 1):
        error = interrupted(number)
        assert type(error) is HANDLERS[handler], f"{interrupter.where}: {error!r}"
        with pytest.raises((StoreFailedError, DurabilityUnknown)):
            scene.state["n"] = 3
        with pytest.raises(StoreFailedError):
            scene.state["n"] = 4
        scene.state.vacuum()
        scene.state["n"] = 5


def outcome(scene: Scene) -> State:
    """What the usual content is as a state."""
    scene.set(CONTENT, nothing)
    return scene.here()


@on_both
def test_an_interrupted_open_leaves_nothing_open(scene: Scene) -> None:
    """The next one opens the file as if nothing had been, and commits its defaults once."""
    expected = {**outcome(scene), "new": 1}

    def reopen(_: Any) -> None:
        PersistedState.open(scene.path, defaults={"new": 1}, **scene.options)

    def close(scene: Scene) -> None:
        scene.state["text"] = "t"
        scene.state.close()

    scenario = Scenario("open", reopen, close)
    places = tried(scene, scenario).passed

    def check() -> None:
        scene.is_free()
        assert same(scene.there(), scene.fresh())
        scene.state = PersistedState.open(scene.path, defaults={"new": 1}, **scene.options)
        scene.settle([expected], lock_first=True)

    each_place(scene, scenario, places, 30, check)
    scene.let_go()
    scene.errors.clear()
    scene.other.run("state = None")
    gc.collect()  # an exception that came within `except` may hold its own frame, and that the file
    assert scene.descriptors() == []


@on_both
def test_an_interrupted_finalizer_frees_the_lock(scene: Scene) -> None:
    """The last reference goes, which tidies the file; an exception in a finalizer cannot be raised to anybody."""
    expected = outcome(scene)
    passed, number = 1, 0
    step = 1 if EVERY else 31
    while number < passed:
        number += step
        scene.set(CONTENT, journal)
        held = [scene.state]
        scene.state = None
        interrupter = Interrupter(number)
        error = interrupter.run(held.clear)
        passed = interrupter.passed
        assert error is None or isinstance(error, KeyboardInterrupt)
        scene.is_free()
        assert same(expected, scene.fresh()), interrupter.where
        scene.state = PersistedState.open(scene.path, **scene.options)
        scene.settle([expected], lock_first=True)


# ------------------------------------------------------------------ worse interruptions


@of_both([SINGLE[0], SINGLE[10], FIRST[2], BLOCKS[0], BLOCKS[1], CATCHING_UP[2], CATCHING_UP[8], REWRITING[0]])
def test_memory_heals_after_an_interrupted_interruption(scene: Scene, scenario: Scenario) -> None:
    """The second signal comes while the first is dealt with. This process may keep the lock until its next access."""
    places, outcomes = outcomes_of(scene, scenario)

    def check() -> None:
        here = scene.here()
        assert same(here, scene.fresh()), f"memory {here}, file {scene.fresh()}"
        assert any(same(here, each) for each in outcomes), f"{here} is none of {outcomes}"
        scene.go_on()
        scene.is_free()

    each_place(scene, scenario, places, 16, check, distance=12)


@pytest.mark.pure
def test_a_change_in_the_handler_of_the_interruption_is_committed(scene: Scene) -> None:
    """``except KeyboardInterrupt: state.stopped = True``, around a block that was interrupted anywhere.

    Except on the doorstep of `__exit__`: the block is not ended before the exception goes, the change is one of the
    block's, and is rolled back with it.
    """
    doorstep = (
        f" state.py:{Transaction.__exit__.__code__.co_firstlineno} call",
        f" test_interrupts.py:{block.__code__.co_firstlineno + 1} opcode",  # the call that leads there
    )

    def stop(state: Any) -> None:
        try:
            block(state)
        except KeyboardInterrupt:
            state["stopped"] = True
            caught.append(True)
            raise

    caught: list[bool] = []

    scenario = Scenario("a block", stop)
    places, outcomes = outcomes_of(scene, scenario)
    problems = []
    for number in chosen(places, 150, "stopped") if EVERY else [*range(8, places, 19), *range(places - 8, places + 1)]:
        caught.clear()
        interrupter = tried(scene, scenario, number)
        expected = scene.fresh()
        stopped = expected.pop("stopped", None)
        if caught and stopped is None and interrupter.where in doorstep:
            assert same(expected, outcomes[0]), interrupter.where
        elif caught and stopped is None:
            problems.append(f"place {number} of {places}{interrupter.where}: lost")
            scene.abandon()
            continue
        assert any(same(expected, each) for each in outcomes), interrupter.where
    assert not problems, "\n".join(problems)


@pytest.mark.parametrize("locking", ["file", "filelock", "portalocker", "server"])
def test_a_storm_of_real_signals_loses_no_acknowledged_step(
    tmp_path: Path, locking: str, request: pytest.FixtureRequest
) -> None:
    """At moments that nobody has chosen, within system calls too. Memory tells after each whether the step was made."""
    seconds = 20 if EVERY else 1.2 if locking in ("file", "server") else 0.6
    where = (str(tmp_path / "state.yaml"), locking)
    if locking == "server":
        where = (request.getfixturevalue("url"), "file")
    arguments = (*where, seconds, 21, os.getpid())
    code = f"import json, tools.interrupts; print(json.dumps(tools.interrupts.weather{arguments!r}))"
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=Path(__file__).parent,
        capture_output=True,
        text=True,
        check=False,
        timeout=seconds + 50,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert not done.stderr, done.stderr[-3000:]
    told = json.loads(done.stdout)
    assert {"state.yaml", "state.yaml.lock"} >= set(os.listdir(tmp_path))
    assert told["struck"] > 20, told
    assert told["committed"] < told["struck"], told


# ------------------------------------------------------------------ handlers and finalizers that use the state


def writes(state: Any) -> None:
    state["h"] = 1


def begins(state: Any) -> None:
    with state.transaction(timeout=1):
        state["h"] = 1


def reads(state: Any) -> None:
    assert state.snapshot()["text"] in ("t", "u", "v")


def vacuums(state: Any) -> None:
    state.vacuum()


def finalizes(state: Any) -> None:
    """What the garbage collector may do at any time."""

    class Dying:
        def __del__(self) -> None:
            try:
                state["h"] = 1
            except BaseException as error:
                errors.append(error)

    errors: list[BaseException] = []
    Dying()
    if errors:
        raise errors[0]


@pytest.mark.parametrize("use", [writes, begins, reads, vacuums, finalizes])
@of_both([SINGLE[0], SINGLE[10], BLOCKS[0], CATCHING_UP[0], CATCHING_UP[7], REWRITING[0]])
def test_a_handler_that_uses_the_state_in_the_middle_harms_nothing(
    scene: Scene, scenario: Scenario, use: Callable[[Any], None]
) -> None:
    """It gets ReentrantError where a change is under way, and is served elsewhere."""
    places, outcomes = outcomes_of(scene, scenario)
    told: list[str] = []

    def handler(number: int, frame: Any) -> None:
        try:
            use(scene.state)
        except ReentrantError:
            told.append("refused")
        except TransactionError:
            told.append("within a block")  # a vacuum
        else:
            told.append("served")

    seen = set()
    for number in chosen(places, 5, f"{scenario.name} {use.__name__}"):
        told.clear()
        scene.set(scenario.content, scenario.prepare, **scenario.options)
        interrupter = Interrupter(number, handler=handler)
        error = interrupter.run(lambda: scenario.action(scene.state))
        assert error is None, f"{interrupter.where}: {told} {error!r}"
        assert not interrupter.swallowed, interrupter.swallowed
        seen.update(told)
        here = scene.here()
        assert here.pop("h", None) == (1 if told == ["served"] and use in (writes, begins, finalizes) else None)
        assert same(here, outcomes[1]), f"{interrupter.where}: {told} {here}"
        fresh = scene.fresh()
        fresh.pop("h", None)
        assert same(here, fresh)
        scene.is_free()
        scene.go_on()
    assert "refused" in seen


@of([SINGLE[0], BLOCKS[0], CATCHING_UP[7], REWRITING[0]])
def test_a_handler_may_use_another_state(scene: Scene, scenario: Scenario, tmp_path: Path) -> None:
    """Also open it: a lock of the whole package must not be held while a handler may run."""
    places, outcomes = outcomes_of(scene, scenario)
    path = str(tmp_path / "another.yaml")
    count = 0

    def handler(number: int, frame: Any) -> None:
        nonlocal count
        with PersistedState.open(path, defaults={"n": 0}, fs=Hurried()) as another:
            count += 1
            another["n"] += 1

    for number in chosen(places, 6, scenario.name):
        scene.set(scenario.content, scenario.prepare, **scenario.options)
        interrupter = Interrupter(number, handler=handler)
        error = interrupter.run(lambda: scenario.action(scene.state))
        assert error is None, f"{interrupter.where}: {error!r}"
        scene.settle(outcomes[1:], lock_first=True)
    with PersistedState.open(path, fs=Hurried()) as another:
        assert another["n"] == count > 0


def test_a_handler_may_open_another_state_while_one_is_opened(tmp_path: Path) -> None:
    """A deadlock here would be one of a thread with itself."""
    paths = [str(tmp_path / name) for name in ("one.yaml", "two.yaml")]

    class Deadlock(BaseException):
        pass

    def handler(number: int, frame: Any) -> None:
        with PersistedState.open(paths[1], fs=Hurried()) as another:
            another["n"] = 1

    def expire(number: int, frame: Any) -> None:
        raise Deadlock

    def action() -> None:
        PersistedState.open(paths[0], defaults={"n": 1}, fs=Hurried()).close()

    places = Interrupter()
    places.run(action)
    usual = signal.signal(signal.SIGUSR1, expire)
    try:
        for number in chosen(places.passed, 20, "open"):
            for path in paths:
                with suppress(FileNotFoundError):
                    os.unlink(path)
            watch = threading.Timer(3, signal.pthread_kill, (threading.get_ident(), signal.SIGUSR1))
            watch.start()
            interrupter = Interrupter(number, handler=handler)
            error = interrupter.run(action)
            watch.cancel()
            assert error is None, f"place {number} of {places.passed}{interrupter.where}: {error!r}"
    finally:
        signal.signal(signal.SIGUSR1, usual)


# ------------------------------------------------------------------ exceptions of other kinds


@of([*SINGLE[3:6], *SINGLE[10:12], SINGLE[15], BLOCKS[0], BLOCKS[1]])
def test_no_memory_left_changes_nothing(scene: Scene, scenario: Scenario, monkeypatch: pytest.MonkeyPatch) -> None:
    """Wherever values are taken, grafted into the tree, checked or encoded."""
    _, outcomes = outcomes_of(scene, scenario)
    for module, name in (
        (store, "prepare"),
        (ops, "graft"),
        (log, "encode_record"),
        (store, "encode_body"),
        (store, "encode_set"),
    ):
        whole = getattr(module, name)
        failed = True
        number = 0
        while failed:
            number += 1
            left = iter(range(number - 1))
            failed = False

            def failing(*args: Any, left: Any = left, whole: Any = whole) -> Any:
                nonlocal failed
                if next(left, None) is None and not failed:
                    failed = True
                    raise MemoryError
                return whole(*args)

            scene.set(scenario.content, scenario.prepare, **scenario.options)
            with monkeypatch.context() as patch:
                patch.setattr(module, name, failing)
                with suppress(MemoryError):
                    scenario.action(scene.state)
            scene.settle(outcomes[: 1 if failed else 2], lock_first=bool(number % 2))


def failing_after(values: list[Any], error: type[BaseException]) -> Iterator[Any]:
    yield from values
    raise error


class Unsortable:
    def __lt__(self, other: object) -> bool:
        raise Abort


class Torn:
    """A mapping that breaks while it is read."""

    def keys(self) -> Iterator[Any]:
        return failing_after([1, 2], Abort)

    def __getitem__(self, key: Any) -> Any:
        return key


USERS_CODE: dict[str, Action] = {
    "extend": lambda state: state["list"].extend(failing_after([1, 2], Abort)),
    "extend, KeyboardInterrupt": lambda state: state["list"].extend(failing_after([1, 2], KeyboardInterrupt)),
    "slice": lambda state: state["list"].__setitem__(slice(0, 2), failing_after([1, 2], Abort)),
    "update by pairs": lambda state: state.update(failing_after([("n", 2)], Abort)),
    "update by mapping": lambda state: state["key"].update(Torn()),
    "set update": lambda state: state["set"].update(failing_after([5], Abort)),
    "set operator": lambda state: state["set"].difference_update(failing_after([1], Abort)),
    "sort key": lambda state: state["list"].sort(key=lambda each: next(failing_after([], Abort))),
    "sort order": lambda state: state["list"].sort(key=lambda each: Unsortable()),
}


@pytest.mark.parametrize("inside", [False, True], ids=["alone", "in a block"])
@pytest.mark.parametrize("name", USERS_CODE)
def test_an_exception_in_the_users_code_changes_nothing(scene: Scene, name: str, inside: bool) -> None:
    """Iterables, mappings and key functions run in the middle of a change."""
    scene.set(CONTENT, journal)
    before = scene.here()
    size = os.path.getsize(scene.path)
    if inside:
        with scene.state.transaction():
            with pytest.raises((Abort, KeyboardInterrupt)):
                USERS_CODE[name](scene.state)
            assert same(before, scene.state.snapshot())
    else:
        with pytest.raises((Abort, KeyboardInterrupt)):
            USERS_CODE[name](scene.state)

    assert os.path.getsize(scene.path) == size
    scene.settle([before], lock_first=True)


@pytest.mark.parametrize("block", [False, True], ids=["single change", "in a transaction"])
def test_an_alarm_behind_the_write_leaves_the_record_whole(tmp_path: Path, block: bool) -> None:
    """`signal.alarm` handlers raise TimeoutError, an OSError: it must not be taken for a failed write, and cut off."""

    def ring(*_: Any) -> None:
        raise TimeoutError("the alarm rang")

    fs = Disk("write")
    fs.after, fs.armed = ring, False
    state = PersistedState.open(tmp_path / "state.yaml", defaults={"a": 1}, fs=fs)
    state.a = 2
    fs.armed = True
    with pytest.raises(TimeoutError, match="rang"), state.transaction() if block else nullcontext():
        state.a = 3
    fs.armed = False

    assert 3 == state.a
    with PersistedState.open(tmp_path / "state.yaml", read_only=True) as reader:
        assert 3 == reader.a
    state.a = 4
    assert 4 == state.a
    state.close()
