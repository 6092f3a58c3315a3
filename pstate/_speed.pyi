"""The compiled hot path: see `speed`."""

from types import ModuleType
from typing import Any

SOURCE: str  #: the version of `_speed.c` that it was compiled from

def bind(names: dict[str, Any], /) -> None:
    """Set the classes and functions that it works on. Raises ImportError if it is called a second time."""

def method(kind: type | ModuleType, name: str, python: Any, /) -> Any:
    """The compiled replacement of the function *python*, which is ``kind.name``; *kind* may be a module."""

def counts() -> dict[str, tuple[int, int]]:
    """For each function, how many calls it has handled, and how many it has left to Python."""
