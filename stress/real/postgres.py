"""A PostgreSQL server of our own, for tests, examples and measurements: in a folder and a session of its own.

It is gone when they end.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

#: Where Debian puts what a server consists of, the newest first.
_SYSTEM = Path("/usr/lib/postgresql")
#: What to say where there is none.
MISSING = "no PostgreSQL server was found on this machine. Install one: apt install postgresql"
#: root may not run a server.
_USER = "nobody"


def binaries() -> Path | None:
    """The folder with `postgres` and `initdb`: $PSTATE_TEST_PG_BIN, that of the system, or None."""
    given = os.environ.get("PSTATE_TEST_PG_BIN")
    if given:
        return Path(given)
    found = sorted(_SYSTEM.glob("*/bin"), key=lambda path: int(path.parent.name), reverse=True)
    if found:
        return found[0]
    there = shutil.which("initdb")
    return Path(there).resolve().parent if there else None


class Server:
    """A server that listens on the loopback interface, with the data in *folder*."""

    def __init__(self, folder: Path, port: int = 0, options: tuple[str, ...] = ()) -> None:
        self.folder = folder
        self.port = port or _free_port()
        self.options = options
        found = binaries()
        assert found is not None
        self._binaries = found

    def _run(self, program: str, *arguments: str) -> None:
        # A session of its own: a Ctrl-C for the tests is not one for the server.
        command = [str(self._binaries / program), *arguments]
        if os.getuid() == 0:
            command = ["runuser", "-u", _USER, "--", *command]
        done = subprocess.run(
            command,
            check=False,
            cwd="/",
            start_new_session=True,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
        )
        if done.returncode:
            raise RuntimeError(f"{program}: {done.stdout}{done.stderr}")

    @property
    def data(self) -> Path:
        """The cluster."""
        return self.folder / "data"

    def make(self) -> None:
        """Make the cluster."""
        self.folder.mkdir(parents=True, exist_ok=True)
        if os.getuid() == 0:
            os.chown(self.folder, pwd.getpwnam(_USER).pw_uid, -1)
        self._run(
            "initdb", "-D", str(self.data), "-U", "pstate", "-A", "trust", "--no-sync", "-E", "UTF8", "--locale=C"
        )

    def start(self) -> None:
        """Start it, and return when it answers."""
        options = [
            f"-p {self.port}", "-c listen_addresses=127.0.0.1", "-c unix_socket_directories=''",
            "-c max_connections=200",
            *(f"-c {option}" for option in self.options),
        ]  # fmt: skip
        # Not pg_ctl's own output: the server would keep the pipe, and nobody would see its end.
        log = str(self.folder / "log")
        command = ["-D", str(self.data), "-w", "-t", "50", "-l", log, "-o", " ".join(options), "start"]
        program = [str(self._binaries / "pg_ctl"), *command]
        if os.getuid() == 0:
            program = ["runuser", "-u", _USER, "--", *program]
        done = subprocess.run(
            program, check=False, cwd="/", start_new_session=True, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL, timeout=60,
        )  # fmt: skip
        if done.returncode:
            raise RuntimeError((self.folder / "log").read_text())

    def stop(self, mode: str = "fast") -> None:
        """Stop it: *mode* is "smart", "fast" or, as a crash, "immediate"."""
        self._run("pg_ctl", "-D", str(self.data), "-w", "-m", mode, "stop")

    def kill(self) -> None:
        """What `kill -9` of all its processes is."""
        pid = int((self.data / "postmaster.pid").read_text().splitlines()[0])
        children = [int(each) for each in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
        for each in (pid, *children):
            with contextlib.suppress(ProcessLookupError):
                os.kill(each, signal.SIGKILL)

    @property
    def url(self) -> str:
        """For a state: add its name."""
        return f"postgresql://pstate@127.0.0.1:{self.port}/postgres"


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextlib.contextmanager
def running(*options: str) -> Iterator[Server]:
    """A new server, in a folder that is gone afterwards. It does not sync: tests end processes, not machines."""
    # Not one of pytest's: those are for root alone.
    with tempfile.TemporaryDirectory(prefix="pstate-postgres-", ignore_cleanup_errors=True) as folder:
        server = Server(Path(folder), options=("fsync=off", *options))
        server.make()
        server.start()
        try:
            yield server
        finally:
            with contextlib.suppress(RuntimeError):  # a test has stopped it
                server.stop("immediate")
