"""The URL of a state: ``postgresql://USER@HOST/DATABASE#NAME``. What is before the ``#`` is libpq's, unchanged.

Also what a session is called, so that `pstate who` knows whose it is.
"""

from __future__ import annotations

import re
import zlib
from typing import NamedTuple
from urllib.parse import parse_qsl, quote, unquote, urlencode

#: What nobody but the server is told.
_SECRET = ("password", "sslpassword", "oauth_client_secret", "scram_client_key", "scram_server_key")
_HIDDEN = "***"

#: A host, with a port or without. What is none may be a part of a password.
_HOST = re.compile(r"(\[[\w:.%]*\]|[^\[\]:/?&=@\s]*)(:[0-9]*)?")

#: How long the name of a session may be; and how much of it the host and the state get at most.
_LONGEST, _OF_HOST, _OF_STATE = 63, 24, 20
_SESSION = re.compile(r"pstate (\S+):([0-9]+)(?: ([^\s#]+))?(?: #(.*))?")


class Address(NamedTuple):
    """Where a state is, or a database, which has states."""

    server: str  #: for libpq, with the password if there is one
    name: str  #: of the state; empty for a database
    shown: str  #: for people: the URL without passwords
    secrets: tuple[str, ...]  #: what no message may hold

    def without_secrets(self, message: str) -> str:
        """*message*, in which libpq may have quoted what it was given."""
        for secret in self.secrets:
            message = message.replace(secret, _HIDDEN)
        return message


def parse(url: str) -> Address:
    """The address of the state that *url* is. Raises ValueError, whose message holds no password."""
    found = parse_any(url)
    if not found.name:
        where = f"{found.shown} names no state. Write its name after "
        raise ValueError(where + ("the #: ...#jobs" if found.shown.endswith("#") else "a #: ...#jobs"))
    return found


def parse_any(url: str) -> Address:
    """As `parse`, also for the URL of a database, which names no state."""
    server, mark, name = url.rpartition("#") if "#" in url else (url, "", "")
    scheme, _, rest = server.partition("://")
    # libpq looks for an @ before the first slash. Of several, it takes the first one, and then finds no host.
    credentials, at, hosts = rest.partition("/")[0].rpartition("@")
    user, _, password = credentials.partition(":")
    before, _, query = rest[len(credentials + at) :].partition("?")
    hosts, slash, database = before.partition("/")
    if not all(map(_HOST.fullmatch, hosts.split(","))):
        raise ValueError(
            f"{scheme}://... cannot be read: a host or a port is wrong. In the user name and the password, write %40 "
            "for @, %2F for /, %3A for :, %3F for ? and %23 for #."
        )
    fields = parse_qsl(query, keep_blank_values=True)
    public = urlencode([(key, value) for key, value in fields if key not in _SECRET], safe="/:,")
    found = [password, unquote(password), *(value for key, value in fields if key in _SECRET)]
    secrets = tuple(sorted({secret for secret in found if secret}, key=len, reverse=True))
    shown = f"{scheme}://{user}{at}{hosts}{slash}{database}{f'?{public}' if public else ''}{mark}"
    name = unquote(name)
    if "\0" in name:
        raise ValueError(f"{shown} names no state: a name has no NUL byte. Write another one after the #: ...#jobs")
    return Address(server, name, shown + quote(name, safe="/:,@ "), secrets)


# ---------------------------------------------------------------------------------------------------- names of sessions


class Session(NamedTuple):
    """What the name of a session says."""

    host: str
    pid: int
    program: str
    is_of_state: bool  #: it has the state open that was asked about


def session_name(host: str, pid: int, program: str, state: str) -> str:
    """What the server calls a session: ``pstate HOST:PID PROGRAM #STATE``, if it fits."""
    text = f"pstate {_plain(host)[:_OF_HOST]}:{pid}"
    end = f" #{_mark(state)}" if state else ""
    left = _LONGEST - len(text + end) - 1
    return f"{text} {_plain(program)[:left]}".rstrip() + end


def session(text: str, state: str) -> Session | None:
    """What *text*, the name of a session, says to one who asks about *state*; None where pstate has not made it."""
    found = _SESSION.fullmatch(text)
    if found is None:
        return None
    host, pid, program, mark = found.groups()
    return Session(host, int(pid), program or "", mark == _mark(state))


def _mark(state: str) -> str:
    """The name of *state*, or a checksum: a server keeps only a part of a long name, and no other letters."""
    if len(state) <= _OF_STATE and state.isascii() and state.isprintable() and not state.startswith("~"):
        return state
    return f"~{zlib.crc32(state.encode()):08x}"


def _plain(text: str) -> str:
    return re.sub(r"[^!-~]|#", "_", text)
