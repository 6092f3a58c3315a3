"""The compiled hot path, where it was built: the only module that imports `pstate._speed`."""

from __future__ import annotations

import os
from types import ModuleType
from warnings import warn
from zlib import crc32


def _load() -> ModuleType | None:
    """The extension, unless there is none, it refuses, `PSTATE_PURE` is set, or its source has changed since."""
    if os.environ.get("PSTATE_PURE"):
        return None
    try:
        from pstate import _speed
    except ImportError:
        return None
    if _is_stale(_speed.SOURCE):
        message = "pstate/_speed.c has changed since it was compiled, so pstate runs in pure Python; run: make speed"
        warn(message, RuntimeWarning, stacklevel=2)
        return None
    return _speed


def _is_stale(compiled: str) -> bool:
    """Whether the source of the extension says something else now. Only a checkout has the source beside it."""
    try:
        with open(os.path.join(os.path.dirname(__file__), "_speed.c"), "rb") as file:
            return f"source {crc32(file.read()):08x}" != compiled
    except FileNotFoundError:
        return False


_speed = _load()

#: Whether the compiled hot path is in use.
compiled = _speed is not None


def counts() -> dict[str, tuple[int, int]]:
    """For each compiled function, how often it was taken, and how often it left the call to Python."""
    return {}
