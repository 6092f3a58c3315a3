"""The URL of a state: ``postgresql://USER@HOST/DATABASE#NAME``. What is before the ``#`` is libpq's, unchanged."""

from __future__ import annotations

from typing import NamedTuple
from urllib.parse import SplitResult, parse_qsl, quote, unquote, urlencode, urlsplit

#: What nobody but the server is told.
_SECRET = ("password", "sslpassword")
_HIDDEN = "***"


class Address(NamedTuple):
    """Where a state is."""

    server: str  #: for libpq, with the password if there is one
    name: str  #: of the state
    shown: str  #: for people: the URL without passwords
    secrets: tuple[str, ...]  #: what no message may hold

    def without_secrets(self, message: str) -> str:
        """*message*, in which libpq may have quoted what it was given."""
        for secret in self.secrets:
            message = message.replace(secret, _HIDDEN)
        return message


def parse(url: str) -> Address:
    """The address that *url* is. Raises ValueError, whose message holds no password."""
    server, _, name = url.rpartition("#")
    name = unquote(name)
    if not server:
        raise ValueError(
            f"{parse(url + '#x').shown.removesuffix('#x')} names no state. Write its name after a #: ...#jobs"
        )
    if not name or "\0" in name:
        raise ValueError(
            f"{parse(server + '#x').shown.removesuffix('x')} names no state. Write its name after the #: ...#jobs"
        )
    parts = urlsplit(server)
    user, separator, place = parts.netloc.rpartition("@")
    user, _, password = user.partition(":")
    query = parse_qsl(parts.query, keep_blank_values=True)
    public = parts._replace(
        netloc=f"{user}{separator}{place}",
        query=urlencode([(key, value) for key, value in query if key not in _SECRET], safe="/:,"),
    )
    found = [password, unquote(password), *(value for key, value in query if key in _SECRET)]
    secrets = tuple(sorted({secret for secret in found if secret}, key=len, reverse=True))
    return Address(server, name, f"{_unsplit(public)}#{quote(name, safe='/:,@ ')}", secrets)


def _unsplit(parts: SplitResult) -> str:
    """*parts* as libpq reads them: the standard function drops the slashes of an empty host."""
    query = f"?{parts.query}" if parts.query else ""
    return f"{parts.scheme}://{parts.netloc}{parts.path}{query}"
