"""The house as it was drawn: imports point down, the wings do not know each other, each dependency has one door."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

import pytest

#: The modules beside the folders that import only each other. Then the folders: each may import what is named for it,
#: and itself.
GROUND = {"errors", "signals", "logger", "values"}
MAY_IMPORT = {
    "text": GROUND,
    "memory": GROUND | {"text", "engine"},
    "file": GROUND | {"text", "engine"},
    "rows": GROUND | {"text", "engine"},
}
#: The other modules and folders that may know that the state is in a file.
SEE_FILE = {"engines", "speed", "testing", "cli"}
#: Of the commands, those that read and mend files which nobody opens as a state; `import` and `export`, which know the
#: formats of others and replace files whole; and those that say who has a file open.
COMMANDS_THAT_SEE_FILE = {"mending", "transfer", "users"}

#: How many floors the house has at most, a folder counted as one room.
FLOORS = 10

#: The doubles of the seam see what it sees.
DOUBLES = {"testing.disk", "testing.system"}

DOORS = {
    "yaml": {"text.tables"}, "filelock": {"file.lock_objects"}, "portalocker": {"file.lock_objects"},
    "ctypes": {"file.fs"},
    "psycopg": {"rows.link"},
    "fcntl": {"file.fs", "file.lock", "file.lock_objects"}, "logging": {"logger", "testing.crash"},
    "pytest": {"testing.pytest_plugin"}, "rich": {"cli.show", "cli.progress", "cli.view.painting"},
    "textual": {"cli.view.app", "cli.view.painting", "cli.view.widgets"}, "argparse": {"cli.command", "cli.reference"},
    "pickle": {"cli.transfer.arrival"}, "shelve": {"cli.transfer.targets"}, "dbm": {"cli.transfer.databases"},
    "sqlite3": {"cli.transfer.databases", "cli.transfer.targets"}, "tomllib": {"cli.transfer.texts"},
}  # fmt: skip


_spec = importlib.util.spec_from_file_location("house", Path(__file__).parent.parent / "docs" / "house.py")
assert _spec is not None
assert _spec.loader is not None
house = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(house)
FILES, imports, ours, room, floors = house.FILES, house.imports, house.ours, house.room, house.floors


def test_no_module_is_in_a_circle() -> None:
    floors({name: ours(name) for name in FILES})


def test_the_folders_are_in_no_circle_and_on_few_floors() -> None:
    assert max(floors(house.house()).values()) <= FLOORS


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


def test_one_module_loads_the_compiled_part() -> None:
    """`imports` knows only what is written in Python."""
    loads = re.compile(r"^\s*(from|import)\b.*\b_speed\b", re.M)

    assert ["speed"] == [name for name, file in FILES.items() if loads.search(file.read_text(encoding="utf-8"))]
