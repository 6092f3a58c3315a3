"""The compiled hot path: see `speed`."""

from types import ModuleType
from typing import Any

SOURCE: str  #: which version of `_speed.c` it was compiled from

def bind(names: dict[str, Any], /) -> None:
    """Tell which classes and functions it works on. Raises ImportError when it is called a second time."""

def method(kind: type | ModuleType, name: str, python: Any, /) -> Any:
    """What is to stand in the place of the function *python*, which is ``kind.name``; *kind* may be a module."""

def counts() -> dict[str, tuple[int, int]]:
    """By function: how many calls it has done, and how many it has left to Python."""
