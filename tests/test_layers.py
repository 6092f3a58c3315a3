"""The house as it was drawn: imports point down, the wings do not know each other, each dependency has one door."""

from __future__ import annotations

import ast
from functools import cache
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "pstate"

#: The folders, and the modules beside them that nothing but errors stands below. A folder may import what is named
#: for it, and itself.
GROUND = {"errors", "signals", "logger", "values"}
MAY_IMPORT = {
    "text": GROUND,
    "memory": GROUND | {"text", "engine"},
    "file": GROUND | {"text", "engine"},
}
#: Who else may know that the state is in a file.
SEE_FILE = {"engines", "testing", "cli"}
#: Of the commands, those that read and mend files which nobody opens as a state; `import` and `export`, which know the
#: formats of others and replace files whole; and those that say who has a file open.
COMMANDS_THAT_SEE_FILE = {"mending", "transfer", "users"}

#: How many floors the house has at most, a folder counted as one room.
FLOORS = 9

#: The doubles of the seam see what it sees.
DOUBLES = {"testing.disk", "testing.system"}

DOORS = {
    "yaml": {"text.tables"}, "filelock": {"file.lock_objects"}, "portalocker": {"file.lock_objects"},
    "ctypes": {"file.fs"},
    "fcntl": {"file.fs", "file.lock", "file.lock_objects"}, "logging": {"logger", "testing.crash"},
    "pytest": {"testing.pytest_plugin"}, "rich": {"cli.show"}, "argparse": {"cli.command", "cli.reference"},
    "pickle": {"cli.transfer.arrival"}, "shelve": {"cli.transfer.targets"}, "dbm": {"cli.transfer.databases"},
    "sqlite3": {"cli.transfer.databases", "cli.transfer.targets"}, "tomllib": {"cli.transfer.texts"},
}  # fmt: skip


def name_of(file: Path) -> str:
    parts = file.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts) or "__init__"


FILES = {name_of(file): file for file in sorted(PACKAGE.rglob("*.py"))}


@cache
def imports(name: str) -> frozenset[str]:
    """What the module *name* imports, at whatever depth: modules of ours without `pstate.`, others as they are."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(FILES[name].read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            assert not node.level, f"{name}: a relative import"
            inside = {f"{node.module}.{alias.name}" for alias in node.names}
            modules = {each for each in inside if each.removeprefix("pstate.") in FILES}
            found |= modules or {node.module}
    found.discard("pstate")
    return frozenset(each.removeprefix("pstate.") for each in found)


def ours(name: str) -> set[str]:
    return set(imports(name)) & set(FILES)


def room(name: str) -> str:
    """The folder that a module is in, or the module itself."""
    return name.partition(".")[0]


def floors(arrows: dict[str, set[str]]) -> dict[str, int]:
    """On which floor each room is: one above the highest that it imports. Fails where imports go in a circle."""
    found: dict[str, int] = {}

    def floor(name: str, above: tuple[str, ...]) -> int:
        assert name not in above, f"a circle: {' -> '.join([*above, name])}"
        if name not in found:
            found[name] = 1 + max((floor(below, (*above, name)) for below in arrows[name]), default=0)
        return found[name]

    for name in arrows:
        floor(name, ())
    return found


def test_no_module_is_in_a_circle() -> None:
    floors({name: ours(name) for name in FILES})


def test_the_folders_are_in_no_circle_and_on_few_floors() -> None:
    arrows: dict[str, set[str]] = {room(name): set() for name in FILES}
    for name in FILES:
        arrows[room(name)] |= {room(other) for other in ours(name)} - {room(name)}
    assert max(floors(arrows).values()) <= FLOORS


@pytest.mark.parametrize("name", [name for name in FILES if room(name) in MAY_IMPORT])
def test_a_wing_knows_only_what_is_below_it(name: str) -> None:
    assert {room(other) for other in ours(name)} <= MAY_IMPORT[room(name)] | {room(name)}


@pytest.mark.parametrize("name", sorted(GROUND | {"engine"} & set(FILES)))
def test_the_ground_knows_no_wing(name: str) -> None:
    assert ours(name) <= GROUND


@pytest.mark.parametrize("name", [name for name in FILES if room(name) != "file"])
def test_few_see_the_file_wing(name: str) -> None:
    if any(room(other) == "file" for other in ours(name)):
        assert room(name) in SEE_FILE, name
        if room(name) == "cli":
            assert name.split(".")[1] in COMMANDS_THAT_SEE_FILE, name


def test_the_doubles_know_the_seam_and_each_other() -> None:
    for name in DOUBLES:
        assert ours(name) <= {"file.fs", "file.flock", *DOUBLES}, name


@pytest.mark.parametrize("name", FILES)
def test_each_dependency_has_one_door(name: str) -> None:
    for dependency, doors in DOORS.items():
        if name not in doors:
            assert not {module for module in imports(name) if module.split(".")[0] == dependency}
