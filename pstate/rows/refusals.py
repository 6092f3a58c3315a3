"""The errors of a server, by SQLSTATE (https://www.postgresql.org/docs/current/errcodes-appendix.html), as ours."""

from __future__ import annotations

from pstate.errors import PStateError, ReadOnlyError, UnreadableError, WriteError
from pstate.rows.server import Refused

_LOCK_NOT_AVAILABLE = "55P03"
_NO_TABLE, _NO_SCHEMA = "42P01", "3F000"
_NO_PRIVILEGE, _READ_ONLY = "42501", "25006"


class NoTables(UnreadableError):
    """The server does not have the tables of pstate."""


def is_lock_timeout(error: Refused) -> bool:
    """Whether somebody else has had the lock for too long."""
    return error.state == _LOCK_NOT_AVAILABLE


def of_read(address: str, error: Refused) -> PStateError:
    """What is raised where a read was answered with *error*."""
    if error.state in (_NO_TABLE, _NO_SCHEMA):
        return NoTables(
            f"{address}: the server does not have the tables of pstate any more. Nothing was changed. Restore the "
            "database from a backup.",
            path=address,
        )
    if error.state in (_NO_PRIVILEGE, _READ_ONLY):
        return ReadOnlyError(
            f"{address}: the server does not allow this: {error}. Nothing was changed. Ask for the privileges, or open "
            "the state with read_only=True.",
            path=address,
        )
    return UnreadableError(
        f"{address}: the server answered with an error: {error} (SQLSTATE {error.state}). Nothing was changed.",
        path=address,
    )


def of_commit(address: str, error: Refused) -> PStateError:
    """What is raised where a commit was answered with *error*."""
    if error.state in (_NO_PRIVILEGE, _READ_ONLY):
        return of_read(address, error)
    return WriteError(
        f"{address}: the server refused the commit: {error} (SQLSTATE {error.state}). Nothing was changed.",
        path=address,
    )
