"""What was probably meant by a command or a key that does not exist. Imported only to say so."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import Any

from pstate.cli.table import MODULES
from pstate.text import scalars

#: Commands, by what other programs call them.
_ELSEWHERE = {
    "cat": "get", "show": "get", "read": "get", "print": "get", "query": "get", "dump": "export",
    "put": "set", "write": "set", "update": "set", "merge": "import", "load": "import", "convert": "import",
    "rm": "delete", "del": "delete", "unset": "delete", "remove": "delete",
    "rpush": "append", "lpush": "insert", "shift": "pop", "lpop": "pop", "rpop": "pop",
    "inc": "incr", "increment": "incr", "exists": "has", "test": "has", "ls": "keys",
    "length": "len", "count": "len", "size": "len", "typeof": "type", "move": "mv", "rename": "mv", "copy": "cp",
    "create": "new", "touch": "new", "batch": "apply", "run": "apply", "history": "log",
    "tail": "watch", "follow": "watch", "validate": "check", "verify": "check", "fix": "repair", "lsof": "who",
    "compact": "vacuum", "download": "pull", "upload": "push",
}  # fmt: skip

#: Of a mapping with more keys, only these many are compared: a message must not take seconds.
_MOST_KEYS = 5_000


def command(word: str) -> str | None:
    """The command that *word* was probably meant to be."""
    return _ELSEWHERE.get(word.lower()) or _closest(word, MODULES)


def key(wrong: Any, keys: Iterable[Any]) -> Any:
    """The one of *keys*, those of a mapping, that *wrong* was probably meant to be; None if no one is near."""
    known = {_text(key): key for key, _ in zip(keys, range(_MOST_KEYS), strict=False) if key is not None}
    near = _closest(_text(wrong), known)
    return None if near is None else known[near]


def _text(key: Any) -> str:
    """*key* as a string, by which 80 is near "80"."""
    return key if type(key) is str else scalars.scalar(key)


def _closest(word: str, words: Iterable[str]) -> str | None:
    found = difflib.get_close_matches(word, words, n=1, cutoff=0.65)
    if found:
        return found[0]
    by_small_letters = {each.lower(): each for each in words}
    return by_small_letters.get(word.lower())
