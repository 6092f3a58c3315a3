"""Hash every file of the Python standard library, in several processes that share one state file.

    python examples/hash_stdlib.py STATE.yaml [--workers N] [--limit N]
    python examples/hash_stdlib.py STATE.yaml --verify [--limit N]

Start it as often as you like, on the same state file, also at the same time; kill any of it at any moment, also with
SIGKILL; start it again, and it goes on. In the end every file is recorded and counted exactly once.

How: a file stays in `todo` until its result is recorded, and both happen in one transaction. Taking a file only moves
it to the end of the list. So whatever a dead process had in its hands comes round again, and nobody has to find out who
is dead. A file may be hashed twice (its first process died, or is the slower of two at the end of the list); the second
result finds the file gone from `todo` and is dropped. Do likewise wherever doing an item twice is a waste, not a harm.
"""

from __future__ import annotations

import argparse
import hashlib
import multiprocessing
import os
import sys
import sysconfig
import time
from pathlib import Path

import yaml

from pstate import PersistedState

STDLIB = Path(sysconfig.get_path("stdlib"))
SKIPPED = {"site-packages", "dist-packages", "__pycache__"}  # not the library's own, or made on the way


def files(limit: int | None = None) -> list[str]:
    """Return the files of the standard library, sorted, relative to its folder; the first *limit* of them."""
    found = []
    for folder, subfolders, names in os.walk(STDLIB):
        subfolders[:] = [name for name in subfolders if name not in SKIPPED]
        found += [os.path.relpath(os.path.join(folder, name), STDLIB) for name in names]
    return sorted(name for name in found if (STDLIB / name).is_file())[:limit]


def sha256(name: str) -> str:
    with open(STDLIB / name, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def prepare(state: PersistedState, limit: int | None) -> None:
    """Write the list down, unless another process has done it before."""
    with state.transaction():
        if "todo" not in state:
            state.update(todo=dict.fromkeys(files(limit)), done={}, count=0)


def take(state: PersistedState) -> str | None:
    """Return the next file to hash; None when all are done. It stays in the list, after all others."""
    with state.transaction():
        name: str | None = next(iter(state.todo), None)
        if name is not None:
            del state.todo[name]
            state.todo[name] = os.getpid()  # for people who look: this process had it last
    return name


def record(state: PersistedState, name: str, digest: str) -> None:
    """Note the result, count it, strike the file off the list: all three, or nothing."""
    with state.transaction():
        if name in state.todo:  # otherwise another process was faster
            del state.todo[name]
            state.done[name] = digest
            state.count += 1


def work(path: str, limit: int | None = None, pause: float = 0.0) -> None:
    """Take files and record their hashes until there are none left."""
    with PersistedState(path) as state:
        prepare(state, limit)
        while (name := take(state)) is not None:
            digest = sha256(name)
            time.sleep(pause)  # the work of a longer job, for those who want to watch
            record(state, name, digest)


def verify(path: str, limit: int | None = None) -> list[str]:
    """Compare the state file, read by a stock YAML loader, with the real files; return what is wrong."""
    state = yaml.safe_load(Path(path).read_text(encoding="utf-8"))  # raises if there is more than one document
    expected = {name: sha256(name) for name in files(limit)}
    problems = [f"missing: {name}" for name in expected.keys() - state["done"].keys()]
    problems += [f"not a file of the list: {name}" for name in state["done"].keys() - expected.keys()]
    problems += [
        f"wrong hash: {name}" for name in expected.keys() & state["done"] if expected[name] != state["done"][name]
    ]
    problems += [f"still to do: {name}" for name in state["todo"]]
    if state["count"] != len(expected):
        problems.append(f"counted {state['count']} times, but there are {len(expected)} files")
    return sorted(problems)


def main() -> int:
    parser = argparse.ArgumentParser(description="Hash the standard library, in processes that share one state file.")
    parser.add_argument("state", metavar="STATE.yaml")
    parser.add_argument("--workers", type=int, default=2, help="processes (default: 2)")
    parser.add_argument("--limit", type=int, help="only the first LIMIT files")
    parser.add_argument("--pause", type=float, default=0.0, metavar="SECONDS", help="pretend that a file takes longer")
    parser.add_argument("--verify", action="store_true", help="check a finished state file against the real files")
    options = parser.parse_args()

    if options.verify:
        problems = verify(options.state, options.limit)
        print(*problems or ["every file is recorded and counted exactly once"], sep="\n")
        return 1 if problems else 0

    arguments = (options.state, options.limit, options.pause)
    others = [multiprocessing.Process(target=work, args=arguments) for _ in range(options.workers - 1)]
    for process in others:
        process.start()
    work(*arguments)  # this process is a worker too, and does what the others leave undone when they die
    for process in others:
        process.join()
    print(f"all files are recorded in {options.state}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
