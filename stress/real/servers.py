"""A PostgreSQL server for the checks that keep their states on one: one that is given, or one of their own."""

from __future__ import annotations

import contextlib
import importlib.util
import itertools
import time
import uuid
from collections.abc import Callable, Iterator

from stress.check import Trial, logged
from stress.real import postgres

#: How long a server may take to notice that a program has ended, in seconds.
PATIENCE = 30.0


def missing(url: str) -> str:
    """Why no state can be kept on a server here; "" if it can. *url*: that of a server, if one was given."""
    if importlib.util.find_spec("psycopg") is None:
        return "psycopg is not installed: pip install 'psycopg[binary]'"
    if not url and postgres.binaries() is None:
        return f"{postgres.MISSING}. Give one by --url"
    return ""


@contextlib.contextmanager
def addresses(trial: Trial) -> Iterator[Callable[[], str]]:
    """A function that makes URLs of states that nobody has had."""
    names = (f"stress-{uuid.uuid4()}-{number}" for number in itertools.count())
    if trial.url:
        yield lambda: f"{trial.url}#{next(names)}"
        return
    with postgres.running() as server:
        yield lambda: f"{server.url}#{next(names)}"


def rounds(trial: Trial, one: Callable[[Trial, str], None]) -> None:
    """Go on with rounds of *one*, each at a URL of its own; one at least, however long the server takes to start."""
    with logged(trial.folder), addresses(trial) as address:
        one(trial, address())
        while trial.goes_on():
            one(trial, address())


def await_end(url: str, process: int) -> None:
    """Return when the server has nothing to do any more for *process* of this machine, which has ended.

    What it has sent before its death may be done after that. Sessions are known by the name that pstate gives them.
    """
    import psycopg

    until = time.monotonic() + PATIENCE
    with psycopg.connect(url.rpartition("#")[0], autocommit=True) as connection:
        while connection.execute(_SESSIONS, {"process": process}).fetchall():
            if time.monotonic() > until:
                raise TimeoutError(f"the server has not noticed for {PATIENCE:.0f} s that process {process} has ended")
            time.sleep(0.005)


_SESSIONS = """\
SELECT FROM pg_stat_activity WHERE application_name LIKE 'pstate %%:' || %(process)s::text"""
