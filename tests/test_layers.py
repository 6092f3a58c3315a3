"""The house as it was drawn: imports point down, and each dependency has one door."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "pstate"

#: A module may import those before it, and none behind it.
ORDER = [
    "errors", "signals", "logger", "values", "ops", "containers", "transaction", "rights", "fs", "lock", "parts",
    "block", "codec", "style", "splice", "format", "legacy", "journal", "files", "recovery", "edits", "vacuum", "trail",
    "log", "store", "paths", "changes", "watch", "state", "__init__",
    "testing.disk", "testing.system", "testing.schedule", "testing.crash", "testing", "testing.pytest_plugin",
    "cli.command", "cli.table", "cli.paths", "cli.show", "cli.session", "cli.surprises", "cli.values", "cli.changes",
    "cli.read", "cli.write", "cli.script", "cli.edit", "cli.users", "cli.examine", "cli.check", "cli.history",
    "cli.watch", "cli.difference", "cli.fragments", "cli.pieces", "cli.salvage", "cli.mend", "cli.repair",
    "cli.ancestors", "cli.resolve", "cli.transfer.faults", "cli.transfer.arrival", "cli.transfer.texts",
    "cli.transfer.databases", "cli.transfer.sources", "cli.transfer.importing", "cli.transfer.departure",
    "cli.transfer.targets", "cli.transfer.exporting", "cli.transfer", "cli.completion", "cli.reference",
    "cli", "__main__",
]  # fmt: skip

#: The memory wing never sees a byte, the disk wing never sees a container; only the store sees both.
MEMORY = {"ops", "containers", "transaction"}
DISK = {
    "rights", "fs", "lock", "parts", "block", "codec", "style", "splice", "format", "legacy", "journal", "files",
    "recovery", "edits", "vacuum", "trail", "log",
}  # fmt: skip

#: The doubles of the seam see what it sees.
DOUBLES = {"testing.disk", "testing.system"}

DOORS = {
    "yaml": {"codec"}, "filelock": {"lock"}, "portalocker": {"lock"}, "ctypes": {"fs"}, "fcntl": {"fs", "lock"},
    "logging": {"logger", "testing.crash"},
    "pytest": {"testing.pytest_plugin"}, "rich": {"cli.show"}, "argparse": {"cli.command", "cli.reference"},
    "pickle": {"cli.transfer.arrival"}, "shelve": {"cli.transfer.targets"}, "dbm": {"cli.transfer.databases"},
    "sqlite3": {"cli.transfer.databases", "cli.transfer.targets"}, "tomllib": {"cli.transfer.texts"},
}  # fmt: skip


def file_of(name: str) -> Path:
    path = PACKAGE / name.replace(".", "/")
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")


def is_module(name: str) -> bool:
    return name.startswith("pstate.") and file_of(name.removeprefix("pstate.")).exists()


def imports(name: str) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(ast.parse(file_of(name).read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            if node.level or node.module == "pstate":
                base = node.module if node.module and node.module != "pstate" else ""
                found |= {f"pstate.{base or alias.name}" for alias in node.names}
            elif node.module:
                inside = [f"{node.module}.{alias.name}" for alias in node.names]
                found |= {name for name in inside if is_module(name)} or {node.module}
    return found


def ours(name: str) -> set[str]:
    return {module.removeprefix("pstate.") for module in imports(name) if module.startswith("pstate.")}


def test_every_module_has_its_place() -> None:
    assert sorted(map(file_of, ORDER)) == sorted(PACKAGE.rglob("*.py"))


@pytest.mark.parametrize("name", ORDER)
def test_imports_point_down(name: str) -> None:
    assert ours(name) <= set(ORDER[: ORDER.index(name)]), name


@pytest.mark.parametrize("name", sorted(MEMORY | DISK))
def test_the_wings_do_not_know_each_other(name: str) -> None:
    assert not ours(name) & (DISK if name in MEMORY else MEMORY)


def test_the_doubles_know_the_seam_and_each_other() -> None:
    for name in DOUBLES:
        assert ours(name) <= {"fs", "lock", *DOUBLES}, name


@pytest.mark.parametrize("name", ORDER)
def test_each_dependency_has_one_door(name: str) -> None:
    for dependency, doors in DOORS.items():
        if name not in doors:
            assert not {module for module in imports(name) if module.split(".")[0] == dependency}
