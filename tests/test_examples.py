"""The example that the project is measured by, killed at random moments; and the demonstration of it."""

from __future__ import annotations

import random
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

EXAMPLES = Path(__file__).parent.parent / "examples"
HASH_STDLIB = [sys.executable, str(EXAMPLES / "hash_stdlib.py")]
LIMIT = 150


def run(*command: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*map(str, command)], capture_output=True, text=True, timeout=50, check=False)


def start_worker(path: Path) -> subprocess.Popen[bytes]:
    options = ["--workers", "1", "--limit", str(LIMIT), "--pause", "0.01"]
    return subprocess.Popen([*HASH_STDLIB, str(path), *options], stdout=subprocess.DEVNULL)


def wait_for_a_change(path: Path, before: tuple[int, int], workers: list[subprocess.Popen[bytes]]) -> None:
    while look(path) == before and any(worker.poll() is None for worker in workers):
        time.sleep(0.001)


def look(path: Path) -> tuple[int, int]:
    if not path.exists():
        return (0, 0)
    stat = path.stat()
    return stat.st_ino, stat.st_size


def test_every_file_is_recorded_once_although_workers_are_killed(tmp_path: Path) -> None:
    """Several processes take their work from one file; some or all of them are killed, again and again."""
    path = tmp_path / "state.yaml"
    seed = random.randrange(10_000)
    print(f"seed {seed}")
    chance = random.Random(seed)
    workers: list[subprocess.Popen[bytes]] = []
    for turn in range(5):
        before = look(path)
        workers += [start_worker(path) for _ in range(3 - len(workers))]
        wait_for_a_change(path, before, workers)
        time.sleep(chance.uniform(0, 0.1))  # not always at the same step
        victims = list(workers) if turn % 2 else [chance.choice(workers)]
        for victim in victims:
            victim.kill()
        for victim in victims:
            victim.wait()
            workers.remove(victim)
    for worker in workers:
        assert 0 == worker.wait()

    finish = run(*HASH_STDLIB, path, "--workers", "2", "--limit", str(LIMIT))
    check = run(*HASH_STDLIB, path, "--limit", str(LIMIT), "--verify")

    assert 0 == finish.returncode, finish.stderr
    assert (0, "") == (check.returncode, check.stderr), check.stdout
    assert [path] == list(tmp_path.iterdir())


def test_one_command_starts_several_workers(tmp_path: Path) -> None:
    """The command ends when every file is recorded, and leaves one plain YAML document."""
    path = tmp_path / "state.yaml"

    finish = run(*HASH_STDLIB, path, "--workers", "3", "--limit", "40")

    assert 0 == finish.returncode, finish.stderr
    state = yaml.safe_load(path.read_text(encoding="utf-8"))
    assert (40, 40, {}) == (state["count"], len(state["done"]), state["todo"])
    assert [path] == list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("tamper", "problem"),
    [
        pytest.param(lambda state: state.update(count=41), "counted 41 times", id="counted twice"),
        pytest.param(lambda state: state["done"].popitem(), "missing: ", id="lost"),
        pytest.param(lambda state: state["done"].update(x="00"), "not a file of the list: x", id="invented"),
        pytest.param(lambda state: state["todo"].update(x=None), "still to do: x", id="unfinished"),
        pytest.param(lambda state: state["done"].update({next(iter(state["done"])): "00"}), "wrong hash: ", id="wrong"),
    ],
)
def test_the_verification_finds_what_is_wrong(tmp_path: Path, tamper, problem: str) -> None:
    """A check that cannot fail would prove nothing."""
    path = tmp_path / "state.yaml"
    assert 0 == run(*HASH_STDLIB, path, "--workers", "1", "--limit", "40").returncode
    state = yaml.safe_load(path.read_text(encoding="utf-8"))
    tamper(state)
    path.write_text(yaml.safe_dump(state), encoding="utf-8")

    check = run(*HASH_STDLIB, path, "--limit", "40", "--verify")

    assert 1 == check.returncode
    assert problem in check.stdout


def test_the_demonstration_ends_with_its_verification(tmp_path: Path) -> None:
    """`make demo` in short: it kills, resumes, verifies, and says so."""
    path = tmp_path / "demo.yaml"

    demo = run(sys.executable, EXAMPLES / "demo.py", path, "--quick")

    assert 0 == demo.returncode, demo.stdout + demo.stderr
    assert 3 == demo.stdout.count("kill -9")
    assert "each recorded and counted exactly once" in demo.stdout
    assert [path] == list(tmp_path.iterdir())
