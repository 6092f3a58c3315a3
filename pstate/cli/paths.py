"""A PATH of a command line: `pstate.text.paths`, with the ways in which commands say no."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

from pstate.cli.command import No, Usage, any_integer
from pstate.text import paths
from pstate.text.paths import index, show, step

__all__ = ["absent", "find", "index", "misfit", "nothing", "parse", "show", "step"]


def parse(text: str, several: Callable[[str], Any] | None = None) -> list[Any]:
    """The keys and indices in *text*; ``.`` is the whole state. *several*: see `pstate.text.paths`. Raises Usage."""
    try:
        with any_integer():
            path = paths.parse(text, several)
        for key in path:
            if type(key) is str and not key.isascii():
                key.encode()
        return path
    except UnicodeEncodeError:
        raise Usage(f"PATH {text!r} is not UTF-8. Nothing was done.") from None
    except ValueError as error:
        raise Usage(f"{error}".replace("path", "PATH", 1) + " In a shell, put quotes around it.") from None


def find(root: Any, path: list[Any], file: str) -> Any:
    """What is at *path* below *root*. Raises No, with the first place that does not exist."""
    value = root
    for depth, key in enumerate(path):
        try:
            value = step(value, key)
        except LookupError:
            raise absent(file, path[: depth + 1], value) from None
    return value


def nothing(file: str, path: list[Any], container: Any) -> No:
    """The refusal of a change at *path*: see `absent`."""
    return No(f"{absent(file, path, container)} Nothing was changed.")


def absent(file: str, path: list[Any], container: Any) -> No:
    """The refusal for *path*, whose last key *container* does not have. It says what was probably meant."""
    *before, key = path
    if isinstance(container, list):
        with contextlib.suppress(LookupError):
            path = [*before, index(key)]
    text = f"{file}: {show(path)} does not exist"
    if isinstance(container, dict):
        from pstate.cli import suggest

        near = suggest.key(key, container)
        return No(f"{text}. Did you mean {show([*before, near])}?" if near is not None else f"{text}.")
    from pstate.cli import kinds

    return No(f"{text}: {show(before) if before else 'it'} is {kinds.described(container)}.")


def misfit(file: str, path: list[Any], value: Any, wanted: str) -> No:
    """The refusal for *value*, at *path*, which is not the *wanted* kind of value."""
    from pstate.cli import kinds

    return No(f"{file}: {show(path)} is {kinds.described(value)}, not a {wanted}.")
