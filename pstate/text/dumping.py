"""The canonical base document of a value, which every loader reads alike, and pieces for documents of people."""

from __future__ import annotations

import re
from typing import Any

from pstate.text.records import flow
from pstate.text.scalars import LONGEST_SIMPLE_KEY, WRITERS, quoted, scalar
from pstate.values import ordered

# Plain only if every loader of YAML 1.1 and 1.2 reads a string: it begins with a letter, "_" or "/", and words are one
# space apart, with no ":" at their end and no "#" at their beginning. _WORDS has the words of PyYAML's and ruamel's
# tables that begin with a letter.
_WORDS = frozenset(("y", "n", "yes", "no", "on", "off", "true", "false", "null", "none", "nan", "inf"))
_LONGEST_WORD = max(map(len, _WORDS))
_IN_WORD = r"A-Za-z0-9_./+@$%^()=;,'\"!?~&*<>|\\\-"
# Not possessive: CPython 3.11.0 to 3.11.4 matches some possessive patterns wrongly (issues 100061, 106052).
_WORD_ENDS = rf"[{_IN_WORD}#:]*(?<!:)"
_PLAIN = re.compile(rf"[A-Za-z_/]{_WORD_ENDS}(?: [{_IN_WORD}]{_WORD_ENDS})*")
_NOT_ASCII = re.compile(r"[^\x00-\x7f]")


def dump(value: dict[Any, Any]) -> bytes:
    """The canonical base document of the plain tree *value*: block style, UTF-8, LF, keys in their order.

    Raises UnicodeEncodeError for a lone surrogate.
    """
    if not value:
        return b"{}\n"
    out: list[str] = []
    _write_dict(value, "", "", out, {})
    return "".join(out).encode("utf-8")


def dump_value(value: Any) -> bytes:
    """The document of the plain tree *value*, of any kind, as `dump` would write it. Raises as `dump`."""
    out: list[str] = []
    if value.__class__ is dict and value:
        _write_dict(value, "", "", out, {})
    elif value.__class__ is list and value:
        _write_list(value, "", "", out, {})
    elif value.__class__ is set and value:
        out.append("!!set\n")
        _write_set(value, "", out)
    else:
        # A block of lines needs an indentation. At the top, its header has to give that.
        _write_value("-", value, "  ", out, {})
        out[0] = out[0][2:]
    return "".join(out).encode("utf-8")


def _plain(text: str) -> bool:
    """Whether *text* may be written without quotes."""
    if _PLAIN.fullmatch(text) is None:
        if text.isascii() or not text.isprintable():
            return False
        # Letters of all scripts may be plain; so may other printable characters, but not at the beginning.
        if not (text[0].isalpha() or text[0] in "_/"):
            return False
        if _PLAIN.fullmatch(_NOT_ASCII.sub("x", text)) is None:
            return False
    return len(text) > _LONGEST_WORD or text.lower() not in _WORDS


def _block_text(text: str, indent: str) -> str | None:
    """The literal block of *text* with its lines after *indent*, without the last newline; None if loaders may read it
    differently.
    """
    if text[0] in "\n " or " \n" in text or text[-1] == " ":
        return None
    lines = text.split("\n")
    if not all(map(str.isprintable, lines)):  # no tabs, returns, other line breaks, controls
        return None
    if text[-1] != "\n":
        chomp = "|-"
    else:
        lines.pop()
        chomp = "|" if lines[-1] else "|+"
    body = "\n".join([indent + line if line else "" for line in lines])
    return f"{chomp}\n{body}"


def _fenced(text: str, indent: str) -> str:
    """*text* as a value that may not be plain: as a block of lines after *indent*, or in quotes."""
    block = _block_text(text, indent) if "\n" in text else None
    return quoted(text) if block is None else block


def _head(key: Any, indent: str, heads: dict[str, str]) -> str:
    """*key* and its colon, in a line after *indent*; strings are remembered in *heads* for the next time."""
    text = _key(key)
    if len(text) > LONGEST_SIMPLE_KEY:
        return f"? {text}\n{indent}:"
    if key.__class__ is str:  # Only strings are remembered: 1, 1.0 and True would be one key.
        heads[key] = text + ":"
    return text + ":"


def _key(key: Any) -> str:
    if key.__class__ is str and _plain(key):
        return key
    return scalar(key)


def _write_dict(value: dict[Any, Any], lead: str, indent: str, out: list[str], heads: dict[str, str]) -> None:
    """Write a line for each key of *value*, the first after *lead* and the others after *indent*."""
    inner = indent + "  "
    for key, item in value.items():
        head = heads.get(key)
        if head is None:
            head = _head(key, indent, heads)
        # The most frequent kinds first, with fewer calls: 22 instead of 29 ms for 25,000 rows of a number, a string and
        # a boolean.
        kind = item.__class__
        if kind is str:
            out.append(f"{lead}{head} {item if _plain(item) else _fenced(item, inner)}\n")
        elif kind is int and -1_000_000_000 < item < 1_000_000_000:
            out.append(f"{lead}{head} {item}\n")
        elif kind is bool:
            out.append(f"{lead}{head} {'true' if item else 'false'}\n")
        else:
            _write_value(lead + head, item, inner, out, heads)
        lead = indent


def _write_value(head: str, value: Any, inner: str, out: list[str], heads: dict[str, str]) -> None:
    """Write *head*, which ends with a colon or a dash, and its *value*, whose further lines begin with *inner*."""
    kind = value.__class__
    if kind in WRITERS:
        text = WRITERS[kind](value) if kind is not str else value if _plain(value) else _fenced(value, inner)
        out.append(f"{head} {text}\n")
    elif not value:
        out.append(f"{head} {_EMPTY[kind]}\n")
    elif kind is dict:
        out.append(head + "\n")
        _write_dict(value, inner, inner, out, heads)
    elif kind is list:
        out.append(head + "\n")
        _write_list(value, inner, inner, out, heads)
    else:
        out.append(head + " !!set\n")
        _write_set(value, inner, out)


_EMPTY: dict[type, str] = {dict: "{}", list: "[]", set: "!!set {}"}


def _write_list(value: list[Any], lead: str, indent: str, out: list[str], heads: dict[str, str]) -> None:
    """Write *value*, the first dash after *lead* and the others after *indent*."""
    inner = indent + "  "
    for item in value:
        # The first line of the contents follows the dash.
        if item.__class__ is dict and item:
            _write_dict(item, lead + "- ", inner, out, heads)
        elif item.__class__ is list and item:
            _write_list(item, lead + "- ", inner, out, heads)
        else:
            _write_value(lead + "-", item, inner, out, heads)
        lead = indent


def _write_set(value: set[Any], indent: str, out: list[str]) -> None:
    for member in ordered(value):
        out.append(f"{indent}? {_key(member)}\n")


# In a flow collection, a comma or a bracket ends a plain string; for some loaders, so does a colon.
_ENDS_IN_FLOW = re.compile(r"[,:?\[\]{}#]")


def shown_key(key: Any) -> str:
    """*key* as in the canonical document."""
    return _key(key)


def block_scalar(value: Any, inner: str) -> str:
    """The scalar or empty collection *value* as in the canonical document, with further lines after *inner*."""
    if value.__class__ is str:
        return str(value) if _plain(value) else _fenced(value, inner)
    return WRITERS[value.__class__](value) if value.__class__ in WRITERS else _EMPTY[value.__class__]


def flow_scalar(value: Any) -> str:
    """*value*, a scalar, a set or an empty collection, as a person writes it between values of a flow collection."""
    if value.__class__ is str and _plain(value) and _ENDS_IN_FLOW.search(value) is None:
        return str(value)
    return flow(value)


def quoted_text(text: str, quote: str) -> str | None:
    """*text* in one line, in quotes of this kind; None if that is not possible."""
    if quote == '"':
        return quoted(text)
    return "'" + text.replace("'", "''") + "'" if text.isprintable() else None
