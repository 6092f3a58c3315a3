"""The old name of the modules that read and write text, for importers that are not changed yet."""

from __future__ import annotations

from importlib import import_module
from typing import Any


def __getattr__(name: str) -> Any:
    for module in ("text.reading", "text.dumping", "memory.pyyaml"):
        found = vars(import_module(f"pstate.{module}"))
        if name in found:
            return found[name]
    raise AttributeError(name)
