"""The reference is complete and true: each public name has an entry, each error a link, each conversion works."""

from __future__ import annotations

import ast
import dataclasses
import enum
import importlib
import importlib.util
import inspect
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import pstate
from pstate import PersistedState, UnsupportedTypeError, errors, testing
from pstate.callbacks import Subscription
from pstate.memory.dicts import MappedDict
from pstate.memory.lists import MappedList
from pstate.memory.sets import MappedSet
from pstate.places import Place
from pstate.state import Transaction
from pstate.values import same
from pstate.watch import Watch

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs" / "reference.md").read_text(encoding="utf-8")
CONTAINERS: list[type] = [MappedDict, MappedList, MappedSet]


def entries() -> dict[str, list[str]]:
    """What the page has entries of, each with the members that it names."""
    found = {}
    for name, options in re.findall(r"^::: ([\w.]+)\n((?:    .*\n)*)", PAGE, re.M):
        members = re.search(r"members: \[(.*)\]", options)
        found[name] = members[1].split(", ") if members else []
    return found


def public(kind: type) -> set[str]:
    return {name for name, held in vars(kind).items() if name[0] != "_" and callable(getattr(kind, name))}


def docstrings(kind: type) -> dict[str, str]:
    """Those of the methods of *kind*, from the source: a compiled method has none."""
    (tree,) = ast.parse(inspect.getsource(kind)).body
    assert isinstance(tree, ast.ClassDef)
    methods = [node for node in tree.body if isinstance(node, ast.FunctionDef)]
    return {method.name: " ".join((ast.get_docstring(method) or "").split()) for method in methods}


def test_every_public_name_has_an_entry() -> None:
    """The errors come with their module."""
    named = set(entries())
    defined = {name: getattr(pstate, name) for name in pstate.__all__ if not hasattr(errors, name)}

    assert "pstate.errors" in named
    assert {f"pstate.testing.{name}" for name in testing.__all__} <= named
    for name, held in defined.items():
        heading = re.search(rf"^### {name}$", PAGE, re.M)
        assert heading or {f"pstate.{name}", f"{getattr(held, '__module__', '')}.{name}"} & named, name


@pytest.mark.parametrize("kind", [PersistedState, Transaction, Place, Watch, Subscription, *CONTAINERS])
def test_every_public_method_has_an_entry_and_a_docstring(kind: type) -> None:
    name = "pstate.PersistedState" if kind is PersistedState else f"{kind.__module__}.{kind.__name__}"

    assert public(kind) == set(entries()[name])
    assert all(docstrings(kind)[method] for method in public(kind))


@pytest.mark.parametrize(("builtin", "kind"), [(dict, MappedDict), (list, MappedList), (set, MappedSet)])
def test_a_container_has_all_methods_of_the_built_in_type(builtin: type, kind: type) -> None:
    assert public(builtin) == public(kind)


# ------------------------------------------------------------------ one commit


CALLS: dict[type, dict[str, Callable[[Any], object]]] = {
    MappedDict: {
        "setdefault": lambda node: node.setdefault("z", 1),
        "update": lambda node: node.update(y=1, z=2),
        "pop": lambda node: node.pop("a"),
        "popitem": lambda node: node.popitem(),
        "clear": lambda node: node.clear(),
    },
    MappedList: {
        "append": lambda node: node.append(9),
        "insert": lambda node: node.insert(0, 9),
        "extend": lambda node: node.extend([8, 9]),
        "pop": lambda node: node.pop(),
        "remove": lambda node: node.remove(1),
        "clear": lambda node: node.clear(),
        "reverse": lambda node: node.reverse(),
        "sort": lambda node: node.sort(),
    },
    MappedSet: {
        "add": lambda node: node.add(9),
        "discard": lambda node: node.discard(1),
        "remove": lambda node: node.remove(1),
        "pop": lambda node: node.pop(),
        "clear": lambda node: node.clear(),
        "update": lambda node: node.update([8, 9]),
        "intersection_update": lambda node: node.intersection_update([1]),
        "difference_update": lambda node: node.difference_update([1, 2]),
        "symmetric_difference_update": lambda node: node.symmetric_difference_update([1, 9]),
    },
}
CONTENT: dict[type, Any] = {MappedDict: {"a": 1, "b": 2}, MappedList: [2, 1, 3], MappedSet: {1, 2, 3}}
NOTHING_TO_DO: dict[type, list[Callable[[Any], object]]] = {
    MappedDict: [lambda node: node.setdefault("a"), lambda node: node.pop("z", None), lambda node: node.update()],
    MappedList: [lambda node: node.extend([])],
    MappedSet: [lambda node: node.add(1), lambda node: node.discard(9), lambda node: node.difference_update([9])],
}


@pytest.fixture
def state(tmp_path: Path) -> Iterator[Any]:
    with PersistedState(tmp_path / "state.yaml") as opened:
        yield opened


def commits(state: PersistedState) -> int:
    return max((change.commit or 0 for change in state.history()), default=0)


@pytest.mark.parametrize("kind", CONTAINERS)
def test_a_method_that_promises_one_commit_makes_one(kind: type, state: Any) -> None:
    assert {name for name, text in docstrings(kind).items() if "one commit" in text} == set(CALLS[kind])
    for name, call in CALLS[kind].items():
        state.node = CONTENT[kind]
        before = commits(state)
        call(state.node)
        assert before + 1 == commits(state), name


@pytest.mark.parametrize("kind", CONTAINERS)
def test_every_other_method_makes_none_and_so_does_one_that_has_nothing_to_do(kind: type, state: Any) -> None:
    state.node = CONTENT[kind]
    before = commits(state)
    for name in public(kind) - set(CALLS[kind]):
        arguments: list[Any] = [1] if name in ("index", "count", "get") else [[1]]
        getattr(state.node, name)(*([] if name in ("keys", "values", "items", "copy") else arguments))
    for call in NOTHING_TO_DO[kind]:
        call(state.node)

    assert before == commits(state)


# ------------------------------------------------------------------ conversions


class Color(enum.Enum):
    RED = "red"


@dataclasses.dataclass
class Job:
    name: str


def conversions() -> list[tuple[str, str, str]]:
    rows = re.search(r"<!-- conversions -->\n\|.*\n\|.*\n((?:\|.*\n)+)", PAGE)
    assert rows is not None
    return [
        (value, store, read) for value, store, read in re.findall(r"\| `(.*?)`.* \| `(.*?)` \| `(.*?)` \|", rows[1])
    ]


def namespace(*parts: str) -> dict[str, Any]:
    """What the code in *parts* needs, of the standard library and of the packages that it names."""
    words: dict[str, Any] = {"Color": Color, "Job": Job}
    for module in ("array", "collections", "dataclasses", "datetime", "decimal", "fractions", "ipaddress", "pathlib"):
        words |= vars(importlib.import_module(module))
    words |= {"UUID": importlib.import_module("uuid").UUID, "re": re, "dataclasses": dataclasses}
    text = " ".join(parts)
    for package, name in (("attrs", "Item"), ("msgspec", "Record"), ("pydantic", "Model")):
        if f"{name}(" in text:
            words |= {package: pytest.importorskip(package), name: model(package, name)}
    for package in ("numpy", "pandas"):
        if f"{package}." in text:
            words[package] = pytest.importorskip(package)
    return words


def model(package: str, name: str) -> type:
    made = importlib.import_module(package)
    if package == "attrs":
        kind: type = made.make_class(name, {"name": made.field(type=str)})
    elif package == "msgspec":
        kind = made.defstruct(name, [("name", str)])
    else:
        kind = made.create_model(name, name=(str, ...))
    return kind


@pytest.mark.parametrize(("value", "store", "read"), conversions(), ids=lambda code: code if "(" in code else "")
def test_each_conversion_is_the_one_that_the_error_names_and_works_both_ways(
    value: str, store: str, read: str, tmp_path: Path
) -> None:
    """The packages that are not installed are skipped; test_values.py has classes that look like theirs."""
    words = namespace(value, store, read)
    words["value"] = eval(value, words)
    with PersistedState(tmp_path / "state.yaml") as state:
        with pytest.raises(UnsupportedTypeError, match=re.escape(f"Store {store}")) as caught:
            state.x = words["value"]
        assert "state.x" == caught.value.place
        state.x = eval(store, words)

    with PersistedState(tmp_path / "state.yaml") as state:
        words["stored"] = state.snapshot()["x"]
    assert same(words["stored"], eval(store, words))
    again = eval(read, words)
    if read != "stored":
        assert type(words["value"]) is type(again)
        assert is_equal(words["value"], again)


def is_equal(one: Any, other: Any) -> bool:
    if hasattr(one, "equals"):
        return bool(one.equals(other))  # of pandas
    equal = one == other
    return bool(equal.all() if hasattr(equal, "all") else equal)  # of numpy


# ------------------------------------------------------------------ links


@pytest.fixture(scope="module")
def hooks() -> ModuleType:
    pytest.importorskip("griffe", reason="comes with what `make docs` needs")
    spec = importlib.util.spec_from_file_location("reference_hooks", ROOT / "docs" / "reference_hooks.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("text", "link"),
    [
        ("Raises LockTimeout.", "Raises [LockTimeout][pstate.errors.LockTimeout]."),
        ("a `ClosedError`,", "a [`ClosedError`][pstate.errors.ClosedError],"),
        ("as in `PersistedState.watch`", "as in [`PersistedState.watch`][pstate.PersistedState.watch]"),
        ("or `history()`", "or [`history()`][pstate.PersistedState.history]"),
        ("a `Change` from `pstate.at`", "a [`Change`][pstate.memory.changes.Change] from [`pstate.at`][pstate.at]"),
        ("`len` and `with state: ...`", None),
        ("``raise LockTimeout`` in code", None),
        ("text\n\n    ├── LockTimeout (TimeoutError)\n", None),
        ("[LockTimeout](guarantees.md#locks)", None),
        ("```python\nexcept LockTimeout:\n```\n", None),
    ],
)
def test_a_name_that_has_an_entry_becomes_a_link(hooks: ModuleType, text: str, link: str | None) -> None:
    assert (text if link is None else link) == hooks.linked(text, "PersistedState")


def test_an_error_without_a_link_is_found(hooks: ModuleType) -> None:
    """What makes `make docs` fail."""
    link = '<autoref identifier="pstate.errors.ClosedError">ClosedError</autoref>'

    assert set() == hooks.unlinked(f"<h4>LockTimeout</h4><p>raises {link}</p><pre>LockTimeout</pre>")
    assert {"LockTimeout"} == hooks.unlinked(f"<p>raises {link} or <code>LockTimeout</code></p>")


def test_the_names_that_links_lead_to_have_entries(hooks: ModuleType) -> None:
    known = {f"{name}.{member}" for name, members in entries().items() for member in members} | set(entries())
    known |= {
        f"pstate.errors.{name}"
        for name in vars(errors)
        if name.endswith(("Error", "Timeout", "Conflict", "Unavailable", "Lost"))
    }

    assert set(hooks.TARGETS.values()) - known == {"pstate.errors.DurabilityUnknown", "pstate.errors.CommitUnknown"}
