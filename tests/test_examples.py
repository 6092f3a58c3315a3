"""The example that the project is measured by, killed at random moments; and the demonstrations of what holds."""

from __future__ import annotations

import os
import random
import runpy
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from stress.real import postgres

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


# ---------------------------------------------------------------------- workers on several machines

#: Runs the example. Where `pstate pull` does not exist, the state is written by Python.
_TWO_MACHINES = """
import sys
sys.path.insert(0, sys.argv.pop(1))
import two_machines, yaml
from pstate import PersistedState
from pstate.cli.table import MODULES

def pull(url, path):
    with PersistedState.open(url, read_only=True) as state:
        path.write_text(yaml.safe_dump(state.snapshot(), sort_keys=False))

if "pull" not in MODULES:
    two_machines.pull = pull
sys.exit(two_machines.main())
"""


@pytest.mark.timeout(180)
def test_workers_go_on_although_the_server_is_killed(tmp_path: Path) -> None:
    """`make demo-postgres` in short: it crashes the server twice, verifies what was pulled, and says so."""
    pytest.importorskip("psycopg", reason="psycopg is not installed")
    if postgres.binaries() is None:
        pytest.skip(postgres.MISSING)
    path = tmp_path / "jobs.yaml"

    command = [sys.executable, "-c", _TWO_MACHINES, EXAMPLES, path, "--quick"]
    demo = subprocess.run([*map(str, command)], capture_output=True, text=True, timeout=170, check=False)

    assert 0 == demo.returncode, demo.stdout + demo.stderr
    assert 2 == demo.stdout.count("the server was killed")
    assert "60 jobs, each recorded and counted exactly once" in demo.stdout
    assert [path, tmp_path / "jobs.yaml.server"] == sorted(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("tamper", "problem"),
    [
        pytest.param(lambda state: None, None, id="nothing"),
        pytest.param(lambda state: state["counts"].update(north=3), "counted 3 times", id="counted twice"),
        pytest.param(lambda state: state["done"].popitem(), "missing: ", id="lost"),
        pytest.param(lambda state: state["done"].update(x="00"), "not a job: x", id="invented"),
        pytest.param(lambda state: state["todo"].update(x=None), "still to do: x", id="unfinished"),
        pytest.param(lambda state: state["done"].update({next(iter(state["done"])): "00"}), "wrong hash: ", id="wrong"),
    ],
)
def test_the_verification_of_the_machines_finds_what_is_wrong(
    tmp_path: Path, tamper: Callable[[Any], object], problem: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A check that cannot fail would prove nothing."""
    monkeypatch.syspath_prepend(str(EXAMPLES))
    example: dict[str, Any] = runpy.run_path(str(EXAMPLES / "two_machines.py"))
    hashing = example["hash_stdlib"]
    names = hashing.files(2)
    state: dict[str, Any] = {"todo": {}, "done": {name: hashing.sha256(name) for name in names}, "counts": {"north": 2}}
    tamper(state)
    path = tmp_path / "jobs.yaml"
    path.write_text(yaml.safe_dump(state), encoding="utf-8")

    problems = example["verify"](path, names)

    assert bool(problems) == (problem is not None)
    assert problem is None or any(each.startswith(problem) for each in problems)


def test_without_a_server_the_example_says_how_to_install_one(tmp_path: Path) -> None:
    pytest.importorskip("psycopg", reason="psycopg is not installed")
    program = (
        "import sys; sys.path.insert(0, sys.argv.pop(1)); import two_machines; "
        "two_machines.postgres.binaries = lambda: None; two_machines.main()"
    )

    demo = run(sys.executable, "-c", program, EXAMPLES, "--quick")

    assert 1 == demo.returncode
    assert "apt install postgresql. Or name yours: --url" in demo.stderr
    assert "Traceback" not in demo.stderr


# ---------------------------------------------------------------------- a person with an editor

SHARED = EXAMPLES / "shared_with_a_person.py"


@pytest.mark.parametrize(
    "editor",
    [
        "none",
        # vim and emacs show a new file before it is whole; test_editors.py drives them where no program looks then.
        pytest.param("sed", marks=pytest.mark.skipif(not shutil.which("sed"), reason="sed is not installed")),
    ],
)
def test_a_person_and_three_programs_share_a_file(tmp_path: Path, editor: str) -> None:
    """No comment, no edit and no commit is lost at the end, and the demonstration says so."""
    path = tmp_path / "bakery.yaml"

    demo = run(sys.executable, SHARED, path, "--editor", editor, "--quick")

    assert 0 == demo.returncode, demo.stdout + demo.stderr
    assert 3 == demo.stdout.count("commits while the editor has the file open")
    assert "✗" not in demo.stdout
    assert 11 == demo.stdout.count("✓")
    text = path.read_text(encoding="utf-8")
    assert "# 45 for rye" in text
    assert "price: 4.20  # euros, since May" in text
    assert "35 was too short" not in text
    assert [path] == list(tmp_path.iterdir())


def test_whoever_sits_there_is_the_person(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "bakery.yaml"
    monkeypatch.delenv("VISUAL", raising=False)
    monkeypatch.setenv("EDITOR", "sed -i -e 's/rye needs more/rye: 45/'")

    demo = run(sys.executable, SHARED, path, "--me", "--quick")

    assert 0 == demo.returncode, demo.stdout + demo.stderr
    assert "~   loaves:" in demo.stdout
    assert "+ time: 35  # rye: 45" in demo.stdout
    assert "time: 35  # rye: 45" in path.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("harm", "problem"),
    [
        pytest.param(lambda text: text, None, id="nothing"),
        pytest.param(lambda text: text.replace("  # the fastest", ""), "comments", id="a comment is gone"),
        pytest.param(lambda text: text.replace("time: 35", "time: 36"), "bytes that the person wrote", id="an edit"),
        pytest.param(lambda text: text.replace("anna: 2", "anna: 1"), "commits of anna", id="a commit is gone"),
        pytest.param(
            lambda text: text.replace("  - anna 1\n", ""), "entries of anna in the log", id="an entry is gone"
        ),
        pytest.param(lambda text: text.replace("loaves: 2", "loaves: 3"), "loaves", id="half a transaction"),
        pytest.param(lambda text: text.replace("  - anna 1\n", "  - anna 1\n  - anna 1\n"), "entries", id="one twice"),
    ],
)
def test_the_verification_of_the_shared_file_finds_what_is_wrong(
    tmp_path: Path, harm: Callable[[str], str], problem: str | None
) -> None:
    """A check that cannot fail would prove nothing."""
    path = tmp_path / "bakery.yaml"
    example: dict[str, Any] = runpy.run_path(os.fspath(SHARED))
    wanted = example["DOCUMENT"]
    text = wanted.replace("anna: 0", "anna: 2").replace("loaves: 0", "loaves: 2").replace("100000", "99998")
    text = text.replace("  - opened\n", "  - opened\n  - anna 1\n  - anna 2\n")
    path.write_text(harm(text), encoding="utf-8")

    rows = example["verify"](path, wanted, {"anna": 2, "ben": 0, "cleo": 0})
    wrong = [what for what, expected, found in rows if expected != found]

    assert bool(wrong) == (problem is not None)
    assert problem is None or any(what.startswith(problem) for what in wrong)
