"""pgbouncer before a PostgreSQL server of our own, in transaction mode: each transaction may get another session."""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from time import monotonic
from typing import Any

from stress.real import postgres

_CONFIGURATION = """\
[databases]
* = host={host} port={server}
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {port}
unix_socket_dir =
auth_type = trust
auth_file = {users}
pool_mode = transaction
default_pool_size = {sessions}
logfile = {log}
"""


def program() -> str | None:
    """Where pgbouncer is. Debian's is not on everybody's PATH."""
    return shutil.which("pgbouncer", path=f"{os.environ.get('PATH', '')}:/usr/sbin")


class Pooler:
    """A pooler with so many *sessions* with *server*."""

    def __init__(self, server: postgres.Server, sessions: int) -> None:
        self.port = postgres.free_port()
        self._server = server
        # In the folder of the server: the keeper, which removes that, ends the pooler as well.
        self._folder = server.folder / "pooler"
        self._folder.mkdir()
        server.give(self._folder)
        self._log = self._write("log", "")
        configuration = _CONFIGURATION.format(
            host=server.host, server=server.port, port=self.port, sessions=sessions, log=self._log,
            users=self._write("users", '"pstate" ""\n'),
        )  # fmt: skip
        found = program()
        assert found is not None
        user: dict[str, Any] = {}
        if os.getuid() == 0:  # which it does not run for
            entry = pwd.getpwnam(postgres.USER)
            user = {"user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": []}
        self._process = subprocess.Popen(
            [found, "-q", str(self._write("pgbouncer.ini", configuration))],
            cwd="/", start_new_session=True, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL, **user,
        )  # fmt: skip

    def _write(self, name: str, content: str) -> Path:
        path = self._folder / name
        path.write_text(content)
        self._server.give(path)
        return path

    @property
    def url(self) -> str:
        """For a state: add its name."""
        return f"postgresql://pstate@127.0.0.1:{self.port}/postgres"

    @property
    def said(self) -> str:
        """Its log."""
        return self._log.read_text()

    def wait(self) -> None:
        """Return when it listens."""
        end = monotonic() + 20
        while "listening on" not in self.said:
            assert monotonic() < end, self.said
            assert self._process.poll() is None, self.said
            os.sched_yield()

    def close(self) -> None:
        """End it."""
        self._process.terminate()
        self._process.wait()


@contextlib.contextmanager
def pooling(server: postgres.Server, sessions: int = 2) -> Iterator[Pooler]:
    """A pooler that is gone afterwards."""
    pooler = Pooler(server, sessions)
    try:
        pooler.wait()
        yield pooler
    finally:
        pooler.close()
