"""Hash files in workers on several machines, on one state on a PostgreSQL server that is killed again and again.

    python examples/two_machines.py [STATE.yaml] [--quick] [--url postgresql://…#NAME]

Each worker is a process of its own, and gives the server the name of its machine. All take their jobs from one state,
by its URL. The server is killed without a chance to write anything, and started again; the workers wait for it, and go
on. At the end, `pstate pull` writes the state into a YAML file, and every hash is checked.

The server is started for this, if PostgreSQL is installed. With --url, it is yours, and is not killed.
Exit code 0: each job was recorded and counted exactly once. 1: it was not.

How: as in hash_stdlib.py, a job stays in `todo` until its result is recorded, and both happen in one transaction. So it
does no harm to begin a job again, and to record it again finds that it is recorded. That is why a worker may just go on
after any of the errors that a lost server causes, also where it is unknown whether a commit was done.
"""

from __future__ import annotations

import argparse
import contextlib
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import hash_stdlib
import yaml

from pstate import CommitUnknown, ConflictError, LockTimeout, PersistedState, ServerUnavailable

sys.path.insert(0, str(Path(__file__).parent.parent))
from stress.real import postgres

MACHINES = ["north", "south", "east", "west"]
#: For how long a worker waits for the server, in seconds.
PATIENCE = 60
Worker = subprocess.Popen[bytes]


# ---------------------------------------------------------------------- a worker


def take(state: PersistedState, machine: str) -> str | None:
    """Return the next job, now noted as that of *machine*, after all others; None when all are done."""
    with state.transaction():
        name: str | None = next(iter(state.todo), None)
        if name is not None:
            del state.todo[name]
            state.todo[name] = machine
    return name


def record(state: PersistedState, name: str, digest: str, machine: str) -> None:
    """Note the result, count it, strike the job off the list: all three, or nothing."""
    with state.transaction():
        if name in state.todo:
            del state.todo[name]
            state.done[name] = digest
            state.counts[machine] += 1


def work(url: str, machine: str, pause: float) -> None:
    """Take jobs and record their results until none are left."""
    while True:
        try:
            with PersistedState.open(url, lock_timeout=PATIENCE) as state:
                while (name := take(state, machine)) is not None:
                    digest = hash_stdlib.sha256(name)
                    time.sleep(pause)  # the work of a longer job
                    record(state, name, digest, machine)
                return
        except (CommitUnknown, ConflictError, LockTimeout, ServerUnavailable) as error:
            print(f"  {machine}: {type(error).__name__}, goes on", flush=True)


def at_machine(url: str, machine: str) -> str:
    """*url* for a worker that tells the server where it is. `pstate who` and a LockTimeout show it."""
    server, _, name = url.rpartition("#")
    return f"{server}{'&' if '?' in server else '?'}application_name={quote(machine)}#{name}"


def start(url: str, machine: str, pause: float) -> Worker:
    command = [sys.executable, __file__, "--url", at_machine(url, machine), "--work", machine, "--pause", str(pause)]
    return subprocess.Popen(command)


# ---------------------------------------------------------------------- what is shown


def show_progress(state: PersistedState) -> None:
    now = state.snapshot()  # one moment, while the workers go on
    counts = ", ".join([f"{machine} {count}" for machine, count in now["counts"].items()])
    print(f"  {len(now['done'])} jobs are recorded ({counts}), {len(now['todo'])} still to do", flush=True)


def show_file(path: Path) -> None:
    """Print the first and the last lines of the file."""
    lines = path.read_text(encoding="utf-8").splitlines()
    for number in (*range(9), *range(len(lines) - 4, len(lines))):
        print(f"  {number + 1:5}  {lines[number][:100]}")
        if number == 8:
            print("         ⋮")


def wait_for(state: PersistedState, jobs: int, workers: list[Worker]) -> None:
    """Wait until so many more jobs are recorded, or all workers have ended."""
    wanted = len(state.done) + jobs
    while len(state.done) < wanted and any(worker.poll() is None for worker in workers):
        time.sleep(0.02)


def pull(url: str, path: Path) -> None:
    """Write the state at *url* into the new file *path*, as a person would."""
    print(f"\n── pstate pull URL {path.name}", "─" * 20, flush=True)
    code = subprocess.run([sys.executable, "-m", "pstate", "pull", url, str(path)], check=False).returncode
    if code:
        raise SystemExit(f"pstate pull ended with exit code {code}")


def verify(path: Path, names: list[str]) -> list[str]:
    """What is wrong with the YAML file *path*."""
    found = yaml.safe_load(path.read_text(encoding="utf-8"))
    problems = [f"still to do: {name}" for name in found["todo"]]
    problems += [f"missing: {name}" for name in names if name not in found["done"]]
    problems += [f"not a job: {name}" for name in found["done"] if name not in names]
    problems += [
        f"wrong hash: {name}" for name in names if found["done"].get(name) not in (None, hash_stdlib.sha256(name))
    ]
    counted = sum(found["counts"].values())
    if counted != len(names):
        problems.append(f"counted {counted} times, but there are {len(names)} jobs")
    return problems


# ---------------------------------------------------------------------- all of it


@contextlib.contextmanager
def served(url: str | None) -> Iterator[tuple[str, postgres.Server | None]]:
    """The URL of the state, and the server, if it is ours."""
    if url is not None:
        yield url, None
        return
    if postgres.binaries() is None:
        raise SystemExit(f"{postgres.MISSING}. Or name yours: --url postgresql://HOST/DATABASE#NAME")
    with postgres.running("fsync=on") as server:
        yield f"{server.url}#jobs", server


def crash_and_go_on(
    server: postgres.Server | None, state: PersistedState, workers: list[Worker], crashes: int, jobs: int
) -> None:
    """Crash *server*, if it is ours, after *jobs* more jobs each time, and start it again."""
    for number in range(1, crashes + 1):
        wait_for(state, jobs, workers)
        print(f"\n── round {number}", "─" * 20)
        show_progress(state)
        if server is None:
            print("  the server is yours, so it is not killed")
            continue
        if all(worker.poll() is not None for worker in workers):
            print("  everything was done before the server was killed")
            return
        server.stop("immediate")
        print("  the server was killed; all sessions are lost", flush=True)
        time.sleep(0.5)  # so that the workers meet a server that is away
        server.start()
        print("  the server is back, and has recovered; the workers begin new sessions", flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(description="Workers on several machines, and a server that is killed.")
    parser.add_argument("state", nargs="?", metavar="STATE.yaml", help="where the result goes (default: it is shown)")
    parser.add_argument("--quick", action="store_true", help="a short list and few rounds")
    parser.add_argument("--url", help="a new state on a server of yours, instead of one that is started")
    parser.add_argument("--work", metavar="MACHINE", help=argparse.SUPPRESS)
    parser.add_argument("--pause", type=float, default=0.0, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.work:
        work(options.url, options.work, options.pause)
        return 0
    names = hash_stdlib.files(60 if options.quick else 400)
    crashes, pause = (2, 0.02) if options.quick else (5, 0.05)

    with tempfile.TemporaryDirectory() as folder, served(options.url) as (url, server):
        path = Path(options.state or Path(folder, "jobs.yaml"))
        if path.exists():
            parser.error(f"{path} exists; the demonstration wants a new file")
        workers: list[Worker] = []
        with PersistedState.open(url, lock_timeout=PATIENCE) as state:
            if state:
                parser.error("the state holds something; the demonstration wants a new one")
            state.update(todo=dict.fromkeys(names), done={}, counts=dict.fromkeys(MACHINES, 0))
            print(f"Hash {len(names)} files of {hash_stdlib.STDLIB} in {len(MACHINES)} processes on one state.")
            print("Each is a machine to the server: " + ", ".join(MACHINES))
            try:
                workers += [start(url, machine, pause) for machine in MACHINES]
                crash_and_go_on(server, state, workers, crashes, len(names) // (crashes + 2))
                print("\n── last round: the workers may finish", "─" * 20, flush=True)
                for worker in workers:
                    if worker.wait() != 0:
                        raise SystemExit(f"worker {worker.pid} ended with exit code {worker.returncode}")
            finally:
                for worker in workers:
                    worker.kill()
                    worker.wait()
            show_progress(state)
            total = Counter(state.counts.copy())
        pull(url, path)
        show_file(path)
        print("\n── verification: yaml.safe_load reads the file, every file is hashed again", "─" * 4)
        problems = verify(path, names)
    for problem in problems:
        print(f"  {problem}")
    if not problems:
        print(f"  {len(names)} jobs, each recorded and counted exactly once, by {len(+total)} machines.")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
