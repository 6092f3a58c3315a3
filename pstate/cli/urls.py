"""A URL in the place of FILE: a state on a server, or with `pstate list` and `init` a database.

A command line may have a password in it, which no message may repeat. So the argument is the URL without the password,
and only what opens the state gets the other one.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from pstate.engines import is_url

if TYPE_CHECKING:
    from pstate.rows.address import Address

__all__ = ["Url", "database_or_state", "exact", "hidden", "is_url", "state"]


class Url(str):
    """The URL as people are shown it. *address* has all of it."""

    address: Address


def state(text: str) -> Url:
    """*text*, the URL of a state. Raises ValueError, whose message holds no password."""
    url = database_or_state(text)
    if not url.address.name:
        shown = url.removesuffix("#")
        raise ValueError(
            f"{shown} names no state: write its name after a #, as in {shown}#jobs. To see the names: pstate list "
            f"{shown}"
        )
    return url


def database_or_state(text: str) -> Url:
    """*text*, the URL of a database, or of a state in it. Raises ValueError, whose message holds no password."""
    from pstate.rows import address

    if not is_url(text):
        scheme, mark, _ = text.partition("://")  # what follows may hold a password
        shown = f"{scheme}://..." if mark else repr(text)
        raise ValueError(f"{shown} is not the URL of a database: postgresql://HOST/DATABASE")
    found = address.parse_any(text)
    url = Url(found.shown)
    url.address = found
    return url


def exact(file: str) -> str:
    """*file* for `PersistedState`: a URL with its password."""
    if isinstance(file, Url):
        return f"{file.address.server}#{file.rpartition('#')[2]}"
    return file


def is_of_another_kind(text: str) -> bool:
    """Whether *text* is a URL, but not that of a state, such as mysql://HOST or redis://HOST."""
    return re.match(r"[A-Za-z][A-Za-z0-9+.-]*://", text) is not None and not is_url(text)


def hidden(message: str, words: list[str]) -> str:
    """*message* without the passwords in those of *words* that are URLs, or are meant to be."""
    secrets = set[str]()
    for word in words:
        if is_url(word):
            try:
                shown: str = (url := database_or_state(word))
                secrets |= {*url.address.secrets}
            except ValueError:
                shown = f"{word.partition('://')[0]}://..."
            for written in (word, repr(word)[1:-1]):
                message = message.replace(written, shown)
    for secret in secrets:  # in a part of a URL, which was taken for a PATH
        for mark in ":=":
            message = message.replace(mark + secret, mark + "***")
    return message
