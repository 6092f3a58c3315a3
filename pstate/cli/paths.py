"""A PATH of a command line: `pstate.text.paths`, with the ways in which commands say no."""

from __future__ import annotations

import contextlib
from typing import Any

from pstate.cli.command import No, Usage, any_integer
from pstate.text import paths
from pstate.text.paths import index, show, step

__all__ = ["find", "index", "nothing", "parse", "show", "step"]


def parse(text: str) -> list[Any]:
    """The keys and indices in *text*; ``.`` is the whole state. Raises Usage."""
    try:
        with any_integer():
            return paths.parse(text)
    except ValueError as error:
        raise Usage(f"{error}".replace("path", "PATH", 1) + " In a shell, put quotes around it.") from None


def find(root: Any, path: list[Any], file: str) -> Any:
    """What stands at *path* below *root*. Raises No, with the first place where there is nothing."""
    value = root
    for depth, key in enumerate(path):
        try:
            value = step(value, key)
        except LookupError:
            raise nothing(file, path[: depth + 1], value) from None
    return value


def nothing(file: str, path: list[Any], container: Any) -> No:
    """The refusal for *path*, whose last key *container* does not have."""
    if isinstance(container, list):
        with contextlib.suppress(LookupError):
            path = [*path[:-1], index(path[-1])]
    kind = next((name for base, name in _KINDS.items() if isinstance(container, base)), "value")
    what = f", which is a list of {len(container)}" if isinstance(container, list) else f", which is a {kind}"
    where = "at the top" if len(path) == 1 else f"in {show(path[:-1])}{what}"
    return No(f"{file}: there is nothing at {show(path)} ({where}). Nothing was changed.")


_KINDS: dict[type, str] = {dict: "mapping", list: "list", set: "set", str: "text"}
