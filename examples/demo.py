"""Kill the workers of `hash_stdlib.py` with SIGKILL again and again, resume, and show the state file at each step.

    python examples/demo.py [STATE.yaml] [--quick] [--seed N]

Several processes run the example on one state file. At random moments some of them, or all, are killed without a chance
to clean up, and new ones go on. At the end a stock YAML loader reads the file, and every hash is checked.
Exit code 0: every file of the standard library was recorded and counted exactly once. 1: it was not.
"""

from __future__ import annotations

import argparse
import random
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import hash_stdlib

from pstate import PersistedState

WORKERS = 4
WIDTH = max(60, min(shutil.get_terminal_size().columns, 118))
Worker = subprocess.Popen[bytes]


def start(path: Path, limit: int | None, pause: float) -> Worker:
    """Start one process of the example, as a person would in a terminal of its own."""
    command = [sys.executable, hash_stdlib.__file__, str(path), "--workers", "1", "--pause", str(pause)]
    if limit is not None:
        command += ["--limit", str(limit)]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL)


def kill(workers: list[Worker]) -> None:
    for worker in workers:
        worker.kill()
    for worker in workers:
        worker.wait()


def pids(workers: list[Worker]) -> str:
    return " ".join(str(worker.pid) for worker in workers)


def show_progress(path: Path) -> None:
    """Ask the state how far it is. A reader takes no lock, so this neither waits for the workers nor stops them."""
    with PersistedState.open(path, read_only=True) as state:
        now = state.snapshot()  # one moment, while the workers go on
    if "todo" not in now:
        print("  nothing is recorded yet")
    else:
        print(f"  {len(now['done'])} files are recorded, {now['count']} counted, {len(now['todo'])} still to do")


def show_file(path: Path, head: int, tail: int) -> None:
    """Print the first and the last lines of the state file, and of its journal if it has one."""
    text = path.read_bytes().decode("utf-8", "replace")
    lines = text.split("\n")[: -1 if text.endswith("\n") else None]
    journal = next((number for number, line in enumerate(lines) if line.startswith("... # pstate ")), len(lines))
    shown = {*range(head), *range(journal - 1, journal + 2), *range(len(lines) - tail, len(lines))}
    print(f"  {path.name}: {journal} lines of plain YAML, then {(len(lines) - journal) // 2} commits")
    previous = -1
    for number in sorted(shown & set(range(len(lines)))):
        if number > previous + 1:
            print("         ⋮")
        line = lines[number] if len(lines[number]) <= WIDTH - 9 else lines[number][: WIDTH - 10] + "…"
        print(f"  {number + 1:5}  {line}")
        previous = number


def version(path: Path) -> tuple[int, int]:
    """What a commit or a rewrite of the file changes."""
    if not path.exists():
        return (0, 0)
    stat = path.stat()
    return stat.st_ino, stat.st_size


def wait_for_a_moment(path: Path, before: tuple[int, int], workers: list[Worker], seconds: float) -> None:
    """Wait until somebody has committed, or all have ended; then for *seconds*, so that they are at a random place."""
    while version(path) == before and any(worker.poll() is None for worker in workers):
        time.sleep(0.005)
    time.sleep(seconds)


def kill_and_resume(path: Path, rounds: int, limit: int | None, pause: float, chance: random.Random) -> None:
    """Run the example to its end, through *rounds* rounds of kills."""
    longest = 0.3 if limit else 1.2
    workers: list[Worker] = []
    try:
        for number in range(1, rounds + 1):
            before = version(path)
            started = [start(path, limit, pause) for _ in range(WORKERS - len(workers))]
            workers += started
            print(f"\n── round {number}: started {pids(started)}", "─" * 20)
            wait_for_a_moment(path, before, workers, chance.uniform(0, longest))
            workers = [worker for worker in workers if worker.poll() is None]
            if not workers:
                print("  everything was done before anybody was killed")
                break
            victims = workers if number % 3 == 0 else chance.sample(workers, min(len(workers), chance.randint(1, 3)))
            kill(victims)
            workers = [worker for worker in workers if worker not in victims]
            print(f"  kill -9 {pids(victims)}" + (f"; {pids(workers)} go on" if workers else "; nobody is left"))
            show_progress(path)
            show_file(path, head=3, tail=4)
        workers += [start(path, limit, pause) for _ in range(WORKERS - len(workers))]
        print(f"\n── last round: {pids(workers)} may finish", "─" * 20)
        for worker in workers:
            if worker.wait() != 0:
                raise SystemExit(f"worker {worker.pid} ended with exit code {worker.returncode}")
    finally:
        kill(workers)


def main() -> int:
    parser = argparse.ArgumentParser(description="Kill and resume hash_stdlib.py, and show its state file.")
    parser.add_argument("state", nargs="?", metavar="STATE.yaml", help="a new file (default: a temporary one)")
    parser.add_argument("--quick", action="store_true", help="a short list and few rounds")
    parser.add_argument("--seed", type=int, default=random.randrange(10_000), help="whom to kill, and when")
    options = parser.parse_args()
    rounds, limit, seconds = (3, 150, 2.0) if options.quick else (9, None, 9.0)

    with tempfile.TemporaryDirectory() as folder:
        path = Path(options.state or Path(folder, "demo.yaml"))
        if path.exists():
            parser.error(f"{path} exists; the demonstration wants a new file")
        total = len(hash_stdlib.files(limit))
        pause = seconds * WORKERS / total
        print(f"Hash {total} files of {hash_stdlib.STDLIB} in {WORKERS} processes on one state file, {path}.")
        print(f"Each file takes {pause * 1000:.0f} ms longer than it needs to, so that there is something to kill.")
        print(f"The same plan again: --seed {options.seed}")
        kill_and_resume(path, rounds, limit, pause, random.Random(options.seed))
        show_progress(path)
        show_file(path, head=8, tail=3)

        print("\n── verification: yaml.safe_load reads the file, every file is hashed again", "─" * 4)
        problems = hash_stdlib.verify(str(path), limit)
        left = sorted(other.name for other in path.parent.iterdir() if other.name.startswith(path.name))
        problems += [f"left behind: {name}" for name in left if name != path.name]
        for problem in problems:
            print(f"  {problem}")
        if not problems:
            print(f"  {total} files, each recorded and counted exactly once; one plain YAML document, nothing else.")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
