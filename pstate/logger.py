"""What the package tells people, through `logging`, which is imported with the first message that there is.

Its import takes as long as opening a state, and most programs that use one have nothing to be told.
"""

from __future__ import annotations

from typing import Any


class Logger:
    """``logging.getLogger(name)``, from the first use on."""

    __slots__ = ("_name",)

    def __init__(self, name: str) -> None:
        self._name = name

    def __getattr__(self, attribute: str) -> Any:
        import logging

        return getattr(logging.getLogger(self._name), attribute)
