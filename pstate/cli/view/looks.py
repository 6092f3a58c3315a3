"""One line for any key or value: short, however large it is, and without a character that could move anything.

A terminal obeys control characters, and reorders text around bidirectional ones. None of them gets there: each is
written as the escape that YAML reads in double quotes.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator
from typing import Any

from pstate.memory.ops import ABSENT
from pstate.text import paths, records, scalars
from pstate.values import ordered

#: Control, format (bidirectional, joiners, tags), surrogate, private, unassigned; separators of lines and paragraphs.
_UNSAFE = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})
#: So many characters of a value are ever looked at for one line.
LONGEST = 500
#: A value longer than this is not edited in one line.
LONGEST_EDIT = 10_000


def safe(text: str) -> str:
    """*text* with an escape for each character that a terminal would obey, or that has no shape."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(map(_safe, text))


def _safe(character: str) -> str:
    if unicodedata.category(character) not in _UNSAFE:
        return character
    number = ord(character)
    return f"\\x{number:02x}" if number < 0x100 else f"\\u{number:04x}" if number < 0x10000 else f"\\U{number:08x}"


def cut(text: str, longest: int) -> str:
    """*text*, with an ellipsis instead of what is too long."""
    return text if len(text) <= longest else f"{text[: max(0, longest - 1)]}…"


def key(key: Any) -> str:
    """*key* as the label of a row: a name without quotes where it needs none."""
    if type(key) is str and len(key) <= LONGEST and (key.isidentifier() or paths.show([key]) == key):
        return safe(key)
    return brief(key)


def place(path: tuple[Any, ...] | list[Any]) -> str:
    """*path* as `pstate get` reads it, if it is not too long."""
    return safe(paths.show([_shortened(key) for key in path]))


def _shortened(key: Any) -> Any:
    return f"{key[:LONGEST]}…" if isinstance(key, str) and len(key) > LONGEST else key


def size(value: Any) -> str:
    """How much is in the container *value*."""
    number = len_of(value)
    one, many = next(words for kind, words in _SIZES.items() if isinstance(value, kind))
    return f"{number:,} {one if number == 1 else many}"


_SIZES: dict[type, tuple[str, str]] = {
    dict: ("key", "keys"),
    list: ("element", "elements"),
    set: ("member", "members"),
}


def len_of(value: Any) -> int:
    """How many children *value* has; 0 for what has none."""
    if isinstance(value, dict):
        return dict.__len__(value)
    if isinstance(value, list):
        return list.__len__(value)
    return set.__len__(value) if isinstance(value, set) else 0


def brief(value: Any, longest: int = LONGEST) -> str:
    """*value* in one safe line of about *longest* characters; only so much of it is looked at."""
    parts: list[str] = []
    left = longest
    for part in _pieces(value):
        if left <= 0:
            parts.append("…")
            break
        parts.append(part)
        left -= len(part)
    return cut(safe("".join(parts)), longest)


def _pieces(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        yield "{"
        for number, (name, item) in enumerate(dict.items(value)):
            yield (", " if number else "") + key(name) + ": "
            yield from _pieces(item)
        yield "}"
    elif isinstance(value, list):
        yield "["
        for number in range(list.__len__(value)):
            if number:
                yield ", "
            yield from _pieces(list.__getitem__(value, number))
        yield "]"
    elif isinstance(value, set):
        yield "{"
        # To bring a large set into order takes longer than a line is worth.
        for number, member in enumerate(members(value) if set.__len__(value) <= 100 else set.__iter__(value)):
            yield (", " if number else "") + _scalar(member)
        yield "}"
    else:
        yield _scalar(value)


def _scalar(value: Any) -> str:
    if value is ABSENT:
        return "nothing"
    if isinstance(value, str):
        if len(value) > LONGEST:
            return scalars.quoted(value[:LONGEST])[:-1] + "…"
        return scalars.quoted(value)
    if isinstance(value, bytes):
        return f"{len(value):,} bytes {scalars.scalar(value[:60])}"
    if isinstance(value, int) and value.bit_length() > 4 * LONGEST:
        return f"an integer of {value.bit_length():,} bits"
    return scalars.scalar(value)


def members(value: Any) -> list[Any]:
    """The members of a set, in the order in which they are shown."""
    return list(ordered(set.copy(value)))


def whole(value: Any) -> str | None:
    """*value* in one line of YAML that can be edited and means the same; None where it is too long for that."""
    if _weight(value, LONGEST_EDIT) > LONGEST_EDIT:
        return None
    # All strings in it are in double quotes, where YAML reads each escape as the character.
    text = safe(records.flow(value))
    return text if len(text) <= LONGEST_EDIT else None


def _weight(value: Any, most: int) -> int:
    """About how long the text of *value* is; little of one that is longer than *most* is looked at."""
    if isinstance(value, str | bytes):
        return len(value)
    if isinstance(value, int):
        return value.bit_length() // 4
    if isinstance(value, dict):
        inside: Iterator[Any] = (each for pair in dict.items(value) for each in pair)
    elif isinstance(value, list):
        inside = list.__iter__(value)
    elif isinstance(value, set):
        inside = set.__iter__(value)
    else:
        return 1
    weight = 2
    for each in inside:
        weight += _weight(each, most - weight)
        if weight > most:
            break
    return weight
