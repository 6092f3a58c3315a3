"""docs/architecture.md is true: the pictures, each walk through the source, and every function that is named."""

from __future__ import annotations

import ast
import importlib
import importlib.util
import inspect
import os
import re
import sys
from collections.abc import Callable
from contextlib import nullcontext, suppress
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
from tools.docs import HOST, served
from tools.engines import opened

import pstate
from pstate import PersistedState
from pstate.file import limits
from pstate.testing import Killed, SimulatedDisk, SimulatedSystem, kill

DOCS = Path(__file__).parent.parent / "docs"
PAGE = (DOCS / "architecture.md").read_text(encoding="utf-8")
GUARANTEES = (DOCS / "guarantees.md").read_text(encoding="utf-8")
_spec = importlib.util.spec_from_file_location("house", DOCS / "house.py")
assert _spec is not None
assert _spec.loader is not None
house = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(house)

#: `file.py`: `function`, as the page names a step.
NAME = r"`([\w/]+)\.py`: `([\w.]+)`"
NAMED = sorted(set(re.findall(NAME, PAGE)))


def function(module: str, name: str) -> Any:
    """The function that the page calls that."""
    found: Any = importlib.import_module(("" if module.startswith("stress/") else "pstate.") + module.replace("/", "."))
    for part in name.split("."):
        found = inspect.getattr_static(found, part)
    return found


@pytest.mark.parametrize("name", house.PICTURES)
def test_a_picture_shows_the_imports(name: str) -> None:
    """`make reference` draws it."""
    assert (DOCS / "pictures" / f"{name}.svg").read_text(encoding="utf-8") == house.PICTURES[name]()


@pytest.mark.parametrize("name", house.PICTURES)
def test_a_picture_can_be_read_on_a_phone(name: str) -> None:
    """It is 360 wide, and no letters are small; no room is on another one, or on a line; no line goes up."""
    picture = house.PICTURES[name]()
    assert 'viewBox="0 0 360 ' in picture
    assert 11 <= min(map(int, re.findall(r"(\d+)px", picture)))
    rooms = [
        tuple(map(int, found)) for found in re.findall(r'<rect class="\w" x="(\d+)" y="(\d+)" width="(\d+)"', picture)
    ]
    lines = [tuple(map(int, found)) for found in re.findall(r'x1="(\d+)" y1="(\d+)" x2="(\d+)" y2="(\d+)"', picture)]
    assert len(rooms) >= 9
    assert len(lines) >= 10

    for left, top, width in rooms:
        assert 18 <= left < left + width <= 352
        others = [room for room in rooms if room[1] == top and room[0] > left]
        assert all(left + width < other for other, _, _ in others)
        for x1, y1, x2, y2 in lines:
            assert y1 < y2
            if y1 < top + house.HEIGHT and y2 > top:  # it goes through the row, in a gap
                assert x1 == x2
                assert not left <= x1 <= left + width


@pytest.mark.parametrize(("module", "name"), NAMED)
def test_every_function_that_is_named_exists(module: str, name: str) -> None:
    assert callable(function(module, name))


def test_every_module_that_is_named_exists() -> None:
    named = set(re.findall(r"`([\w/]+\.py)`", PAGE))

    assert len(named) > 40
    assert [] == [name for name in named if not any((root / name).exists() for root in (house.PACKAGE, DOCS.parent))]


def test_every_picture_is_on_the_page() -> None:
    assert sorted(house.PICTURES) == sorted(re.findall(r"\(pictures/([\w-]+)\.svg\)", PAGE))


def test_the_table_of_the_log_says_which_object_owns_which_field() -> None:
    """All of them, but for those in which one object knows another, or a call of one."""
    log = importlib.import_module("pstate.file.log")
    others = {"fs", "memory", "clock", "lseek"}
    objects = {"FileLog": log.FileLog}
    for field, name in re.findall(r"self\.(\w+) = (\w+)\(", inspect.getsource(log.FileLog.__init__)):
        objects[name] = getattr(log, name)
        others.add(field)
    objects["Beside"] = log.Beside
    others.add("beside")
    owned = {
        name: {slot for slot in kind.__slots__ if slot.removeprefix("_") not in others}
        for name, kind in objects.items()
    }

    rows = re.findall(r"^\| `(\w+)` \| ([^|]*)\|", PAGE, re.M)
    assert owned == {name: set(re.findall(r"`(\w+)`", fields)) for name, fields in rows}


# ------------------------------------------------------------------ the walks

PATH = "/state.yaml"
BASE = b"# how far\ncounter: 1\njobs: [1]\n"
EDITED = b"# how far\ncounter: 1\njobs: [1]\nby_hand: true\n"

Call = tuple[str, str]


class Walk:
    """Programs on a simulated disk, and the calls of the package's Python functions while one of them does something.

    Nothing waits: the clock of a simulated system stands still until it is told another time.
    """

    def __init__(self) -> None:
        self.disk = SimulatedDisk({PATH: BASE})
        self.calls: list[Call] = []
        self.systems: list[SimulatedSystem] = []

    def program(self, hook: Callable[..., None] = lambda *_: None) -> PersistedState:
        """Another program that has the file open."""
        system = SimulatedSystem(self.disk, hook, name=f"program {len(self.systems)}")
        self.systems.append(system)
        return PersistedState.open(PATH, fs=system)

    def follow(self, act: Callable[[], Any]) -> Any:
        """Note what *act* calls."""
        inside = str(Path(pstate.__file__).parent)

        def note(frame: FrameType, event: str, _: object) -> None:
            code = frame.f_code
            if event != "call" or not code.co_filename.startswith(inside) or code.co_name.startswith("<"):
                return
            module = Path(code.co_filename).relative_to(inside).with_suffix("").as_posix()
            if not module.startswith("testing/"):
                self.calls.append((module, code.co_qualname))

        sys.setprofile(note)
        try:
            return act()
        finally:
            sys.setprofile(None)

    def time_passes(self) -> None:
        for system in self.systems:
            system.now += 1

    def end(self) -> None:
        """All programs are killed: a walk does not include what they would do at their end."""
        for system in self.systems:
            kill(system)


def counts(walk: Walk) -> None:
    state = walk.program()
    state.counter = 2  # the first commit also writes the base marker
    state.counter = 3

    def count() -> None:
        state.counter += 1

    walk.follow(count)
    assert 4 == state.counter


def appends(walk: Walk) -> None:
    state = walk.program()
    state.counter = 2
    walk.follow(lambda: state.jobs.append(2))
    assert [1, 2] == state.jobs


def transacts(walk: Walk) -> None:
    state = walk.program()
    state.counter = 2

    def block() -> None:
        with state.transaction():
            state.counter += 1

    walk.follow(block)
    assert 3 == state.counter


def reads(walk: Walk) -> None:
    state = walk.program()
    assert 1 == state.counter
    assert 1 == walk.follow(lambda: state.counter)


def reads_what_another_committed(walk: Walk) -> None:
    state, other = walk.program(), walk.program()
    other.counter = 2
    assert 2 == state.counter
    other.counter = 3
    assert 3 == walk.follow(lambda: state.counter)


def is_saved_by_rename(walk: Walk) -> None:
    def save(editor: SimulatedSystem) -> None:
        write(editor, "/saved", os.O_CREAT)
        editor.rename("/saved", PATH)

    is_edited(walk, save)


def is_saved_in_place(walk: Walk) -> None:
    is_edited(walk, lambda editor: write(editor, PATH, os.O_TRUNC))


def is_edited(walk: Walk, save: Callable[[SimulatedSystem], None]) -> None:
    state = walk.program()
    state.counter = 2
    save(SimulatedSystem(walk.disk, name="editor"))
    walk.time_passes()
    assert 2 == state.counter  # the first look: it might be half a save
    assert "by_hand" not in state
    walk.time_passes()
    assert walk.follow(lambda: state["by_hand"])
    assert 2 == state.counter


def write(editor: SimulatedSystem, path: str, flags: int) -> None:
    fd = editor.open(path, os.O_WRONLY | flags, 0o644)
    editor.write(fd, EDITED)
    editor.close(fd)


def recovers(walk: Walk) -> None:
    dying = False

    def tear(system: SimulatedSystem, name: str, arguments: tuple[Any, ...]) -> None:
        if dying and name == "write":
            fd, data = arguments
            system.put(system.descriptors[fd], data[:-5])
            kill(system)
            raise Killed

    victim = walk.program(tear)
    victim.counter = 2
    dying = True
    with suppress(Killed):
        victim.counter = 3
    torn = walk.disk.files()[PATH]
    assert b"--- " in torn
    assert not torn.endswith(b"\n")

    state = walk.follow(walk.program)
    assert 2 == state.counter


def vacuums(walk: Walk) -> None:
    state = walk.program()
    state.counter = 2
    walk.follow(state.vacuum)
    assert BASE.replace(b": 1", b": 2") == walk.disk.files()[PATH]


def follows_a_vacuum(walk: Walk) -> None:
    state, other = walk.program(), walk.program()
    other.counter = 2
    assert 2 == state.counter
    other.vacuum()
    assert 2 == walk.follow(lambda: state.counter)


def begins_to_watch(walk: Walk) -> None:
    state = walk.program()
    walk.follow(state.watch)


def watches(walk: Walk) -> None:
    state = walk.program()
    watch = state.watch()
    other = walk.program()
    other.counter = 2
    other.vacuum()
    assert [(1, 2, "other")] == [(change.old, change.new, change.origin) for change in walk.follow(watch.poll)]


def on_server(*states: int) -> list[Any]:
    """Programs that have the state of a server open, each in a store of its own."""
    kind: Any = importlib.import_module("pstate.rows.servers").Servers
    return [opened(kind(number), f"postgresql://{HOST}/app#walk") for number in states]


def changes_on_a_server(walk: Walk) -> None:
    (state,) = on_server(1)
    state.counter = 1
    walk.follow(lambda: setattr(state, "counter", 2))
    assert 2 == state.counter
    state.close()


def transacts_on_a_server(walk: Walk) -> None:
    state, other = on_server(1, 2)
    state.counter = 1
    other.counter = 2

    def block() -> None:
        with state.transaction():
            state.counter += 1

    walk.follow(block)
    assert 3 == other.counter
    state.close()
    other.close()


def reads_on_a_server(walk: Walk) -> None:
    state, other = on_server(1, 2)
    other.counter = 1
    assert 1 == walk.follow(lambda: state.counter)
    state.close()
    other.close()


#: What each list of the page shows, in their order. Of the complete ones no call is left out.
WALKS = [
    counts,
    appends,
    transacts,
    reads,
    reads_what_another_committed,
    is_saved_by_rename,
    is_saved_in_place,
    recovers,
    vacuums,
    follows_a_vacuum,
    begins_to_watch,
    watches,
    changes_on_a_server,
    transacts_on_a_server,
    reads_on_a_server,
]
ON_SERVER = {changes_on_a_server, transacts_on_a_server, reads_on_a_server}
COMPLETE = {counts, reads}


def listed() -> list[list[Call]]:
    """The numbered lists of the page, each as the functions that its steps begin with."""
    found: list[list[Call]] = []
    for number, module, name in re.findall(rf"^(\d+)\. {NAME}", PAGE, re.M):
        if number == "1":
            found.append([])
        found[-1].append((module, name))
    assert sum(map(len, found)) == len(re.findall(r"^\d+\. ", PAGE, re.M)), "a step that begins with no function"
    return found


def missing(steps: list[Call], calls: list[Call]) -> Call | None:
    """The first of *steps* that is not among *calls* after the one before it."""
    rest = iter(calls)
    return next((step for step in steps if step not in rest), None)


@pytest.mark.parametrize(
    ("steps", "walk"), list(zip(listed(), WALKS, strict=True)), ids=lambda it: getattr(it, "__name__", "")
)
def test_a_walk_of_the_page_is_the_way_that_the_code_takes(
    steps: list[Call],
    walk: Callable[[Walk], None],
    monkeypatch: pytest.MonkeyPatch,
    request: pytest.FixtureRequest,
) -> None:
    """Each step is called, after the one before it."""
    monkeypatch.setattr(limits, "TRUST", 60.0)  # or the descriptor is asked for, after a pause
    taken = Walk()
    try:
        with served(request) if walk in ON_SERVER else nullcontext():
            walk(taken)
    finally:
        taken.end()

    assert missing(steps, taken.calls) is None
    if walk in COMPLETE:
        assert steps == taken.calls


def test_a_step_that_is_not_taken_is_found_out() -> None:
    """A check that cannot fail would prove nothing."""
    calls = [("a", "f"), ("b", "g"), ("c", "h")]

    assert missing([("a", "f"), ("c", "h")], calls) is None
    assert ("b", "g") == missing([("c", "h"), ("b", "g")], calls)
    assert ("a", "i") == missing([("a", "f"), ("a", "i")], calls)


@pytest.mark.pure
def test_a_change_on_a_real_disk_makes_the_same_calls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "TRUST", 60.0)
    monkeypatch.setattr(limits, "LOOK_INTERVAL", 60.0)
    walk = Walk()
    with PersistedState(tmp_path / "state.yaml", counter=0) as state:
        state.counter = 1
        state.counter = 2

        def count() -> None:
            state.counter += 1

        walk.follow(count)

    assert listed()[0] == walk.calls


def test_the_walk_for_contributors_goes_the_same_way() -> None:
    """From module to module; what it names in each is called there."""
    text = (
        (DOCS.parent / "CONTRIBUTING.md")
        .read_text(encoding="utf-8")
        .partition("## Read the source")[2]
        .partition("\n## ")[0]
    )
    steps = re.findall(r"^\d\. `pstate/([\w/]+)\.py`: (.*)$", text, re.M)
    calls = listed()[0]

    assert [*dict.fromkeys(module for module, _ in calls)] == [module for module, _ in steps]
    for step, sentence in steps:
        called = {name.rpartition(".")[2] for module, name in calls if module == step}
        assert called == {name.rpartition(".")[2] for name in re.findall(r"`([\w.]+)`", sentence)}


# ------------------------------------------------------------------ the invariants


def asserting() -> set[tuple[str, Call]]:
    """Each invariant that a function of the package or of the simulation asserts, with that function."""
    root = DOCS.parent
    found: set[tuple[str, Call]] = set()
    for file in [*house.PACKAGE.rglob("*.py"), root / "stress" / "simulated" / "world.py"]:
        text = file.read_text(encoding="utf-8")
        module = file.relative_to(root).with_suffix("").as_posix().removeprefix("pstate/")
        for kind in ast.parse(text).body:
            for node in kind.body if isinstance(kind, ast.ClassDef) else ():
                numbers = re.findall(r'"(I\d+): ', ast.get_source_segment(text, node) or "")
                found |= {(number, (module, f"{kind.name}.{node.name}")) for number in numbers}  # type: ignore[attr-defined]
    return found


def test_each_invariant_is_asserted_where_the_page_says() -> None:
    rows = re.findall(r"^\| (I\d+) \|[^|]*\|([^|]*)\|([^|]*)\|$", PAGE, re.M)

    assert re.findall(r"^\| (I\d+) \|", GUARANTEES, re.M) == [number for number, _, _ in rows]
    assert all(re.findall(NAME, kept) for _, kept, _ in rows)
    assert asserting() == {(number, step) for number, _, asserted in rows for step in re.findall(NAME, asserted)}
