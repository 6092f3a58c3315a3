"""How containers look in interactive shells: as a tree in Jupyter, and in `pprint` like the builtin kinds."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from types import FrameType
from typing import Any

from pstate.errors import ClosedError
from pstate.values import ordered, shown

#: How much of a tree is shown: elements of one container, elements of all, characters of one value.
EACH, ALL, LONG = 100, 1000, 200


# ------------------------------------------------------------------ pprint


def in_pprint(copied: Any, caller: FrameType, method: Callable[[Any], str]) -> str:
    """`repr` of the plain *copied* for *caller*, a function of the module pprint, which has called *method*.

    That module recognises the builtin kinds by their `__repr__`. It first calls `repr` for anything else, which leads
    here, and breaks lines only if the result is too long; by then, our kinds are in its table.
    """
    import pprint

    table: dict[Any, Any] = getattr(pprint.PrettyPrinter, "_dispatch", {})
    table.setdefault(method, _print)
    given = dict(caller.f_locals)
    if isinstance(given.get("self"), pprint.PrettyPrinter) and {"context", "maxlevels", "level"} <= given.keys():
        # Sorted, and no deeper than the caller has asked for.
        text: str = given["self"].format(copied, given["context"], given["maxlevels"], given["level"])[0]
        return text
    return repr(copied)


def _print(printer: Any, node: Any, stream: Any, *position: Any) -> None:
    """Write *node* as `PrettyPrinter` *printer* writes the builtin kind."""
    try:
        copied = node._plain()
    except ClosedError:  # in the meantime, by another thread
        stream.write(repr(node))
        return
    printer._dispatch[type(copied).__repr__](printer, copied, stream, *position)


# ------------------------------------------------------------------ Jupyter


def html(copied: Any, name: str) -> str:
    """The plain tree *copied*, a container of the class *name*, as HTML that can be folded. Long ones are cut."""
    return _Tree().container(_escaped(name), copied, True)


def _escaped(text: str) -> str:
    import html

    return html.escape(text)


class _Tree:
    """One tree, and how much of it may still be shown."""

    def __init__(self) -> None:
        self.left = ALL

    def container(self, label: str, node: Any, is_open: bool = False) -> str:
        """*node* with its contents, below *label*, which is HTML."""
        size = f"{label} <small>{type(node).__name__}, {len(node):,} in it</small>"
        if not node:
            return size
        inside = "".join(self.elements(node))
        return f"<details{' open' if is_open else ''}><summary>{size}</summary><ul>{inside}</ul></details>"

    def elements(self, node: Any) -> Iterable[str]:
        pairs: Iterable[tuple[Any, Any]]
        if isinstance(node, dict):
            pairs = node.items()
        else:
            pairs = enumerate(ordered(node) if isinstance(node, set) else node)
        for number, (key, value) in enumerate(pairs):
            if number == EACH or self.left <= 0:
                yield f"<li>… {len(node) - number:,} more</li>"
                return
            self.left -= 1
            label = "" if isinstance(node, set) else f"<b>{_short(key, isinstance(node, dict))}</b>"
            yield f"<li>{self.element(label, value)}</li>"

    def element(self, label: str, value: Any) -> str:
        if isinstance(value, dict | list | set):
            return self.container(label, value)
        return f"{label}{': ' if label else ''}<code>{_short(value)}</code>"


def _short(value: Any, is_name: bool = False) -> str:
    """*value* as Python, escaped and cut; a string that *is_name*, without quotes."""
    text = value if is_name and isinstance(value, str) else shown(value)
    return _escaped(text if len(text) <= LONG else f"{text[:LONG]}…")
