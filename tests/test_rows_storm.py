"""Programs that are killed and a server that crashes: each acknowledged change is kept, exactly once."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest
from tools.engines import opened

from stress.real import postgres

pytest.importorskip("psycopg", reason="psycopg is not installed")

from pstate.rows.servers import Servers

#: Each line that it prints is a number, and what happened to the change with that number.
_WORKER = """
import sys
from pstate import CommitUnknown, ConflictError, LockTimeout, PersistedState, ServerUnavailable
url, first = sys.argv[1], int(sys.argv[2])
number = first
while True:
    number += 1
    try:
        with PersistedState.open(url, lock_timeout=2) as state:
            while True:
                print("try", number, flush=True)
                if number % 3:
                    with state.transaction():
                        state.total += 1
                        state.done.append(number)
                else:
                    state.single[number] = True
                print("done", number, flush=True)
                number += 1
    except CommitUnknown:
        print("unknown", number, flush=True)
    except (ConflictError, LockTimeout, ServerUnavailable):
        print("not", number, flush=True)
"""


class Worker:
    """A program, and what it has printed."""

    def __init__(self, url: str, first: int, output: Path) -> None:
        self.output = output
        with output.open("w") as file:
            self.process = subprocess.Popen([sys.executable, "-c", _WORKER, url, str(first)], stdout=file)

    def await_changes(self, count: int) -> None:
        """Return when it has done *count* changes."""
        end = time.monotonic() + 60
        while self.output.read_text().count("done") < count:
            assert time.monotonic() < end, self.output.read_text()[-500:]
            assert self.process.poll() is None
            time.sleep(0.001)

    def kill(self) -> list[tuple[str, int]]:
        """Kill it. Returns what it has said, each with the number of the change."""
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()
        lines = self.output.read_text().splitlines()
        return [(word, int(number)) for word, number in (line.split() for line in lines if len(line.split()) == 2)]


@pytest.mark.timeout(120)
@pytest.mark.parametrize("crashes", [False, True], ids=["programs are killed", "and the server crashes"])
def test_nothing_that_was_acknowledged_is_lost_or_doubled(tmp_path: Path, crashes: bool) -> None:
    rounds = int(os.environ.get("PSTATE_STORM_ROUNDS", "12"))
    generator = random.Random(1)
    with postgres.running() as server:
        url = f"{server.url}#storm"
        with opened(Servers(1), url) as state:
            state.update(total=0, done=[], single={})
        said: list[tuple[str, int]] = []
        started = 0

        def start() -> Worker:
            nonlocal started
            started += 1
            return Worker(url, started * 1_000_000, tmp_path / f"{started}")

        workers = [start() for _ in range(3)]
        for _ in range(rounds):
            victim = generator.randrange(len(workers))
            workers[victim].await_changes(generator.randrange(1, 30))
            if crashes and generator.random() < 0.4:
                server.stop("immediate")
                server.start()
            said += workers[victim].kill()
            workers[victim] = start()
        for worker in workers:
            said += worker.kill()

        with opened(Servers(2), url) as state:
            found = state.snapshot()
    done = [*found["done"], *found["single"]]
    counted = Counter(done)
    acknowledged = {number for word, number in said if word == "done"}
    refused = {number for word, number in said if word == "not"}
    assert len(acknowledged) > 20
    assert not acknowledged - counted.keys()  # lost
    assert not [number for number, count in counted.items() if count > 1]  # doubled
    assert not refused & counted.keys()  # phantoms
    assert found["total"] == len(found["done"])
