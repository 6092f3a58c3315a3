"""Reads a VALUE of a command line, which is YAML; and turns one tree into another with few operations."""

from __future__ import annotations

import contextlib
import re
from typing import Any

from pstate.cli.command import Parser, Usage, any_integer
from pstate.errors import InvalidStateError
from pstate.text import reading
from pstate.values import same, unchanged_ends

#: What means the same after a key as in a document of its own, or is refused there. After a key, it is mostly read
#: without PyYAML, whose import takes 10 of the 50 ms that a command may take.
SIMPLE = re.compile(r"""-?[A-Za-z0-9_][ -"$-~]*""")


#: Of VALUE, for the help.
MEANING = "YAML; - reads it from standard input"


def declare_value(parser: Parser, several: bool = False) -> None:
    """The argument VALUE, and how it is read."""
    parser.add_argument("value", metavar="VALUE", nargs="+" if several else None, help=MEANING)
    declare_string(parser, "VALUE is a string as it is")


def declare_string(parser: Parser, what: str) -> None:
    """The option that takes a word of the command line as it is."""
    parser.add_argument("-s", "--string", action="store_true", help=f"{what}, not YAML")


def parse(text: str, is_string: bool, name: str = "VALUE", may_be_string: bool = True) -> Any:
    """The value of *text*. Raises Usage."""
    if is_string:
        return text
    if not text.strip():
        raise Usage(f"{name} is empty. Nothing was done. Write null{', or --string for a string' * may_be_string}.")
    check_utf8(text, name)
    with any_integer():
        if SIMPLE.fullmatch(text):
            with contextlib.suppress(InvalidStateError):
                return reading.load(f"v: {text}\n".encode(), name).value["v"]
        remedy = " Take it as a string with --string." if may_be_string else ""
        try:
            documents = reading.load_all(text.encode(), name)
        except InvalidStateError as error:
            raise Usage(f"{error}{remedy}") from error
    if len(documents) != 1:
        raise Usage(f"{name} {text!r} is not a single YAML value. Nothing was done.{remedy}")
    return documents[0].value


def check_utf8(text: str, name: str) -> None:
    """Raise Usage if *text*, a word of the command line, cannot be written to a file."""
    try:
        text.encode()
    except UnicodeEncodeError:
        raise Usage(f"{name} {text!r} is not UTF-8. Nothing was done.") from None


def become(node: Any, new: Any) -> None:
    """Make *node*, a container of a state, equal to *new*, a plain tree of the same kind. Only what differs changes."""
    if isinstance(node, dict):
        kept = set(map(_exactly, new))
        for key in [key for key in node if _exactly(key) not in kept]:
            del node[key]
        for key, value in new.items():
            if key not in node or not _goes_on(node[key], value):
                node[key] = value
    elif isinstance(node, list):
        _become_list(node, new)
    else:
        kept = set(map(_exactly, new))
        node.difference_update([member for member in node if _exactly(member) not in kept])
        node.update(new)


def _exactly(key: Any) -> tuple[type, Any]:
    """*key* with its type, because 1, 1.0 and True are equal."""
    return type(key), key


def _goes_on(old: Any, new: Any) -> bool:
    """Whether *old* is the same as *new*, or is a container that has now become so."""
    if same(old, new):
        return True
    for kind in (dict, list, set):
        if isinstance(old, kind) and isinstance(new, kind):
            become(old, new)
            return True
    return False


def _become_list(node: Any, new: list[Any]) -> None:
    first, last = unchanged_ends(node, new)
    if len(node) == len(new):
        for index in range(first, len(new) - last):
            if not _goes_on(node[index], new[index]):
                node[index] = new[index]
    else:
        node[first : len(node) - last] = new[first : len(new) - last]
