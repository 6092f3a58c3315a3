"""The exception tree: as drawn, complete, also the built-in kinds that people catch, pickled with its evidence."""

from __future__ import annotations

import copy
import inspect
import pickle
import re
from typing import Any

import pytest

import pstate
from pstate import errors

CLASSES: dict[str, type[errors.PStateError]] = {
    name: value for name, value in vars(errors).items() if inspect.isclass(value) and issubclass(value, Exception)
}
EVIDENCE = {"path": "/folder/state.yaml", "line": 7, "column": 12, "extra": [1, {"a": None}]}


def drawn() -> dict[str, tuple[str, str | None]]:
    """The tree in the docstring: class → (its parent, the built-in kind in brackets)."""
    assert errors.__doc__ is not None
    tree: dict[str, tuple[str, str | None]] = {}
    above: dict[int, str] = {}
    for line in errors.__doc__.splitlines():
        found = re.match(r"^    ((?:│   |    )*)(?:[├└]── )(\w+)(?: \((\w+)\))?", line)
        if found is None:
            continue
        depth = len(found[1]) // 4
        tree[found[2]] = (above.get(depth, "PStateError"), found[3])
        above[depth + 1] = found[2]
    return tree


def test_the_tree_drawn_in_the_docstring_is_the_tree() -> None:
    """A reader of the drawing can rely on it, and no class is missing from it."""
    tree = drawn()

    assert set(CLASSES) == {*tree, "PStateError"}
    for name, (parent, builtin) in tree.items():
        kind = CLASSES[name]
        assert CLASSES[parent] is kind.__bases__[0], name
        others = [base.__name__ for base in kind.__bases__[1:]]
        assert ([builtin] if builtin else []) == others, name


@pytest.mark.parametrize("name", sorted(set(CLASSES) - {"PStateError"}))
def test_every_error_is_also_a_built_in_kind(name: str) -> None:
    """`except TimeoutError` and friends work without importing anything of ours."""
    kind = CLASSES[name]

    assert issubclass(kind, errors.PStateError)
    builtins = [base for base in kind.__mro__ if base.__module__ == "builtins"]
    assert builtins[0] not in (Exception, BaseException, object)
    assert kind.__doc__


def test_all_names_every_error() -> None:
    """The package exports the whole tree, and `__all__` has no name that does not exist."""
    assert set(CLASSES) <= set(pstate.__all__)
    functions = {"at", "is_closed", "on_change", "path_of", "reset"}
    assert set(pstate.__all__) == {*CLASSES, *functions, "PersistedState", "Watch", "Change", "ABSENT"}
    for name in CLASSES:
        assert getattr(pstate, name) is CLASSES[name]
    assert len(pstate.__all__) == len(set(pstate.__all__))


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("name", sorted(CLASSES))
def test_an_error_keeps_its_evidence_when_it_is_pickled(name: str, protocol: int) -> None:
    """It arrives whole from a worker process: class, message, attributes."""
    error = CLASSES[name]("state.yaml:7:12: a sentence.", errno=28, **EVIDENCE)
    again = pickle.loads(pickle.dumps(error, protocol))

    assert type(error) is type(again)
    assert "state.yaml:7:12: a sentence." == str(again) == again.message
    assert error.__dict__ == again.__dict__
    for attribute, value in EVIDENCE.items():
        assert value == getattr(again, attribute)
    if isinstance(error, OSError):
        assert 28 == again.errno  # type: ignore[attr-defined]


@pytest.mark.parametrize("name", sorted(CLASSES))
def test_an_error_can_be_copied_raised_again_and_noted(name: str) -> None:
    error = CLASSES[name]("a sentence.", **EVIDENCE)
    error.add_note("seen by the test")
    again: Any = copy.copy(error)

    assert (str(error), error.__dict__) == (str(again), again.__dict__)
    with pytest.raises(CLASSES[name], match="a sentence") as caught:
        raise again
    assert ["seen by the test"] == caught.value.__notes__


@pytest.mark.parametrize("name", sorted(CLASSES))
def test_documented_attributes_are_there_without_evidence(name: str) -> None:
    """A handler can read them without asking first."""
    kind = CLASSES[name]
    error = kind("a sentence.")
    for base in kind.__mro__:
        for attribute in getattr(base, "__annotations__", {}):
            if base.__module__ == errors.__name__:
                assert hasattr(error, attribute), attribute


def test_errors_imports_nothing_of_ours() -> None:
    """Every module can raise what it means."""
    source = inspect.getsource(errors)
    assert not re.search(r"^\s*(from|import) +(\.|pstate)", source, re.MULTILINE)
