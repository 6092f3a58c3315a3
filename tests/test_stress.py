"""The stress programs: each check holds for a moment and has tried something, and the frame around them does its part.

That a check finds what is broken is another matter, which planted faults show. Here are only the parts that judge
without a process: what no transactions can have read is found in histories that are written down by hand.
"""

from __future__ import annotations

import multiprocessing
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import stress
from stress import __main__ as frame
from stress.check import CHECKS, BrokenPromise, Check, Trial
from stress.real import kill, workers
from stress.real.history import ABORTED, UNKNOWN, Read, Transaction, judge
from stress.real.signals import Program
from stress.real.workers import Crew, Ended, Link, Silence
from stress.simulated.faults import REAL_FAULTS, Fault, planted

ROOT = Path(__file__).parent.parent

#: These take real processes and files, and as long as they are told.
REAL = ["kill", "bank", "contention", "watch", "isolation", "signals", "fork", "flavours", "yaml"]

#: The same with a server in the place of a file.
ON_SERVERS = ["server-kill", "server-bank", "server-contention", "server-isolation"]

frame.load_checks()


@pytest.fixture
def trial(tmp_path: Path) -> Trial:
    return Trial(4711, 0.5, tmp_path)


@pytest.mark.parametrize("name", REAL)
def test_a_check_holds_and_tries_something(trial: Trial, name: str) -> None:
    CHECKS[name].function(trial)

    assert trial.counts.total() > 0
    assert [] == multiprocessing.active_children()


@pytest.mark.parametrize("name", ON_SERVERS)
def test_a_check_on_a_server_holds_and_tries_something(trial: Trial, name: str, url: str) -> None:
    trial.url = url.partition("#")[0]
    CHECKS[name].function(trial)

    assert trial.counts.total() > 0
    assert [] == multiprocessing.active_children()


def test_jobs_that_are_lost_or_taken_twice_are_found() -> None:
    def state(*taken: tuple[int, int]) -> dict[str, Any]:
        return {"of": {n: {"taken": {"k": k, "sum": s}} for n, (k, s) in enumerate(taken)}, "queue": queue}

    queue = {"jobs": [3, 4], "made": 5}
    kill.judge_jobs(state((2, 1), (1, 2)))
    for taken in ([(2, 1), (2, 4)], [(2, 1), (1, 1)], [(2, 1), (0, 0)]):
        with pytest.raises(BrokenPromise, match="P7"):
            kill.judge_jobs(state(*taken))


def test_a_check_that_needs_a_server_is_left_out_where_none_is(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], evidence: Path
) -> None:
    there = Check("holds", "It holds.", holds, 1.0)
    needy = replace(there, name="needs", missing=lambda url: "no")
    monkeypatch.setattr(frame, "CHECKS", {"holds": there, "needs": needy})
    with pytest.raises(SystemExit):
        frame.main(["run", "needs"])
    assert "needs cannot be tried here: no" in capsys.readouterr().err
    assert frame.main(["run", "--seconds", "2"]) == 0
    assert "needs is left out: no" in capsys.readouterr().out


class Alone:
    """What a program that is struck has of its neighbour, where there is none."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._asked: Any = None

    def tell(self, what: Any) -> None:
        self._asked = what

    def hear(self) -> Any:
        return workers.read_fresh(self._path) if self._asked == "seen?" else 0


def strike_alone(name: str, folder: str) -> None:
    """What the check of signals does, with the fault of that *name*, in this process."""
    (fault,) = [fault for fault in REAL_FAULTS if fault.name == name]
    path = Path(folder, "state.yaml")
    workers.open_state(path, defaults={"n": 0, "log": [], "tree": {"a": {}, "s": set(), "l": []}, "other": 0}).close()
    with planted(fault):
        Program(Alone(path), path, 4711).run(60)  # type: ignore[arg-type]


@pytest.mark.timeout(120)
@pytest.mark.parametrize("fault", REAL_FAULTS, ids=lambda fault: fault.name)
def test_a_check_finds_the_fault_that_is_planted_for_it(trial: Trial, fault: Fault) -> None:
    if fault.caught_by != "signals":
        trial.seconds = 20
        with planted(fault), pytest.raises(BrokenPromise):
            CHECKS[fault.caught_by].function(trial)
        return
    code = f"import test_stress; test_stress.strike_alone({fault.name!r}, {str(trial.folder)!r})"
    path = os.pathsep.join((str(ROOT), str(ROOT / "tests")))
    found = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=False,
    )
    assert found.returncode == 1
    assert re.search(r"pstate\.errors\.\w+Error|BrokenPromise", found.stderr), found.stderr[-2000:]


# ---------------------------------------------------------------------- the frame


@pytest.fixture
def evidence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where runs keep their evidence in this test."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    return tmp_path


@pytest.fixture
def made_up(monkeypatch: pytest.MonkeyPatch) -> Callable[[str, Callable[[Trial], None]], None]:
    """Register a check for this test."""

    def register(name: str, function: Callable[[Trial], None]) -> None:
        monkeypatch.setitem(CHECKS, name, Check(name, f"The promise of {name}.", function, 1.0))

    return register


def holds(trial: Trial) -> None:
    (trial.folder / "state.yaml").write_text("a: 1\n")
    while trial.goes_on():
        trial.count("rounds")
        time.sleep(0.01)


def breaks(trial: Trial) -> None:
    (trial.folder / "state.yaml").write_text(f"drawn: {trial.random.random()}\n")
    trial.expect(False, "P1: it is broken")


def test_the_list_names_every_check_and_its_promise(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    assert 0 == frame.main(["list"])
    shown = capsys.readouterr().out
    for name in REAL:
        assert name in shown
    assert "No acknowledged commit is lost" in shown


def test_the_table_names_every_check_and_promises_that_exist() -> None:
    text = (ROOT / "docs" / "guarantees.md").read_text(encoding="utf-8")
    exist = {*re.findall(r"^\*\*(P\d+)\.", text, flags=re.M), *re.findall(r"^\| (I\d+) \|", text, flags=re.M)}
    promises = {each for each in exist if each.startswith("P")}
    assert (13, 12) == (len(promises), len(exist - promises))

    assert promises <= stress.PROMISES.keys() <= exist
    assert set(CHECKS) - {"soak"} == {name for names in stress.PROMISES.values() for name in names}


def test_the_page_says_of_each_check_what_the_check_says() -> None:
    """The rows of the last run stay when the words change."""
    text = (ROOT / "docs" / "reliability.md").read_text(encoding="utf-8")
    rows = dict(re.findall(r"^\| ([\w-]+) \| ([^|]+) \| (?:held|not tried)", text, re.M))

    assert len(rows) > 10
    assert rows == {name: CHECKS[name].promise for name in rows}


def test_a_name_that_is_no_check_is_an_error_of_the_command_line(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        frame.main(["run", "kill", "nonsense"])
    assert 2 == caught.value.code
    assert "'nonsense'" in capsys.readouterr().err


def test_a_run_that_holds_leaves_nothing(evidence: Path, made_up: Any, capsys: pytest.CaptureFixture[str]) -> None:
    made_up("holding", holds)
    assert 0 == frame.main(["run", "holding", "--seconds", "0.1", "--seed", "5"])
    shown = capsys.readouterr().out
    assert "seed 5" in shown
    assert "held" in shown
    assert "rounds" in shown
    assert [] == list(evidence.iterdir())


def test_a_run_that_breaks_a_promise_says_so_and_keeps_the_evidence(
    evidence: Path, made_up: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    made_up("holding", holds)
    made_up("breaking", breaks)
    assert 1 == frame.main(["run", "holding", "breaking", "--seconds", "0.1", "--seed", "5"])
    shown = capsys.readouterr().out
    assert "BROKE" in shown
    assert "P1: it is broken" in shown
    assert "The promise of breaking." in shown
    assert "python -m stress run breaking --seed 5" in shown
    (kept,) = evidence.glob("*/*")
    assert "breaking" == kept.name
    assert str(kept) in shown.replace("\n", "")
    assert {"state.yaml", "failure.txt"} == {each.name for each in kept.iterdir()}
    assert "--seed 5" in (kept / "failure.txt").read_text()


def test_an_error_of_a_check_is_a_failure_too(evidence: Path, made_up: Any, capsys: pytest.CaptureFixture[str]) -> None:
    made_up("mistaken", lambda trial: {}["nothing"])
    assert 1 == frame.main(["run", "mistaken", "--seconds", "0.1"])
    assert "KeyError: 'nothing'" in capsys.readouterr().out


def test_a_seed_repeats_what_is_drawn(evidence: Path, made_up: Any) -> None:
    made_up("breaking", breaks)
    for seed in ("5", "5", "6"):
        frame.main(["run", "breaking", "--seed", seed])
    drawn = sorted(each.read_text() for each in evidence.glob("*/breaking/state.yaml"))
    assert 3 == len(drawn)
    assert 2 == len(set(drawn))


def test_the_time_is_shared(made_up: Any, evidence: Path) -> None:
    given: dict[str, float] = {}

    def take(trial: Trial) -> None:
        given[trial.folder.name] = trial.seconds

    made_up("first", take)
    made_up("second", take)
    frame.main(["run", "first", "second", "--seconds", "8"])
    assert 4 == pytest.approx(given["first"], abs=0.5)
    assert 8 == pytest.approx(given["second"], abs=0.5)  # the first has taken nothing of its part


# ---------------------------------------------------------------------- workers


def echo(link: Link) -> str:
    while (message := link.hear()) != "end":
        link.tell(message * 2)
    return "ended"


def fail(link: Link, what: str) -> None:
    if what == "promise":
        raise BrokenPromise("P9: it is not as it was")
    raise LookupError(what)


def hang(link: Link) -> None:
    link.tell("here")
    while True:
        signal.pause()


def test_a_worker_is_told_and_heard(trial: Trial) -> None:
    with Crew(trial) as crew:
        worker = crew.start("echo", echo)
        worker.tell(2)
        assert 4 == worker.hear()
        worker.tell("end")
        message = worker.hear()
        assert isinstance(message, Ended)
        assert "ended" == message.result


@pytest.mark.parametrize(("what", "said"), [("promise", "P9: it is not as it was"), ("other", "LookupError: other")])
def test_what_a_worker_raises_breaks_the_check(trial: Trial, what: str, said: str) -> None:
    with Crew(trial) as crew, pytest.raises(BrokenPromise, match=said) as caught:
        crew.start("failing", fail, what).hear()
    assert "failing (process " in str(caught.value)


def test_a_worker_that_does_not_answer_is_named_with_the_place_where_it_hangs(trial: Trial) -> None:
    with Crew(trial) as crew:
        worker = crew.start("hanging", hang)
        assert "here" == worker.hear()
        with pytest.raises(Silence, match=rf"hanging \(process {worker.pid}\) did not answer for 0 s") as caught:
            worker.hear(0.1)
        assert "in hang" in str(caught.value)
        with pytest.raises(Silence):
            crew.listen([worker], 0.1)
    assert not workers.BIRTH.active_children()


def test_a_killed_worker_is_dead_to_who_listens(trial: Trial) -> None:
    with Crew(trial) as crew:
        worker = crew.start("hanging", hang)
        assert "here" == worker.hear()
        worker.kill()
        assert not worker.is_alive()
        with pytest.raises(EOFError):
            worker.hear()
        assert [(worker, None)] == crew.listen([worker])


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_nobody_is_left_behind_by_a_run_that_is_stopped(tmp_path: Path, how: signal.Signals) -> None:
    run = subprocess.Popen(
        [sys.executable, "-m", "stress", "run", "bank", "--seconds", "60"],
        cwd=ROOT,
        env={**os.environ, "TMPDIR": str(tmp_path)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        wait_until(lambda: list(tmp_path.glob("stress-*/bank/auditor*.stacks")) != [], "no worker was born")
        if how == signal.SIGINT:
            os.killpg(run.pid, how)  # as a terminal does
        else:
            run.kill()
        assert 0 != run.wait(20)
        wait_until(lambda: not is_alive(run.pid), "somebody of the run still lives")
    finally:
        if is_alive(run.pid):
            os.killpg(run.pid, signal.SIGKILL)
        run.wait()


def is_alive(group: int) -> bool:
    """Whether a process of that group lives. A dead process that its parent has not waited for yet does not count."""
    states = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            fields = (folder / "stat").read_text().rpartition(")")[2].split()
        except (FileNotFoundError, ProcessLookupError):
            continue
        if int(fields[2]) == group:
            states.append(fields[0])
    return any(state != "Z" for state in states)


def wait_until(condition: Callable[[], bool], otherwise: str) -> None:
    until = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < until, otherwise
        time.sleep(0.01)


# ---------------------------------------------------------------------- histories


def txn(name: str, when: int, *reads: Read, appends: Any = (), **rest: Any) -> Transaction:
    """A transaction that lasts from *when* to 15 later, so that those within 10 overlap."""
    return Transaction(name, when, when + 15, list(reads), list(appends), **rest)


WRITES = [txn("A", 0, appends=[("x", 1), ("y", 2)]), txn("B", 10, appends=[("x", 3), ("y", 4)])]
ENDED = {"x": [1, 3], "y": [2, 4]}

ANOMALIES: dict[str, tuple[list[Transaction], dict[str, list[int]], str]] = {
    "lost update": (WRITES, {"x": [1, 3], "y": [2]}, "P5, lost update: 4 of y"),
    "made twice": (WRITES, {"x": [1, 3, 1], "y": [2, 4]}, "1 occurs 2 times"),
    "from nowhere": (WRITES, {"x": [1, 3, 7], "y": [2, 4]}, "nobody has appended it"),
    "aborted, there in the end": (
        [*WRITES, txn("C", 0, undone=[("x", 9)], status=ABORTED)],
        {"x": [1, 3, 9], "y": [2, 4]},
        "was rolled back",
    ),
    "aborted read": (
        [*WRITES, txn("C", 0, undone=[("x", 9)], status=ABORTED), txn("R", 0, Read("x", [9]))],
        ENDED,
        "P6, aborted read",
    ),
    "aborted read of a last value": (
        [*WRITES, txn("C", 0, undone=[("x", 9)], status=ABORTED), txn("R", 0, Read("x", last=9))],
        ENDED,
        "P6, aborted read",
    ),
    "dirty read": (
        [*WRITES, txn("C", 0, appends=[("x", 9)], status=UNKNOWN), txn("R", 0, Read("x", [1, 9]))],
        ENDED,
        "P6, dirty read",
    ),
    "half of a killed one": (
        [*WRITES, Transaction("C", 0, appends=[("x", 9), ("y", 8)], status=UNKNOWN)],
        {"x": [1, 3, 9], "y": [2, 4]},
        "P4, half",
    ),
    "orders that differ": (WRITES, {"x": [1, 3], "y": [4, 2]}, "no order(.|\n)*ww: in .(.|\n)*ww: in "),
    "read of a middle": ([*WRITES, txn("R", 5, Read("x", [1]), Read("y", []))], ENDED, "no order(.|\n)*wr: 1 in x"),
    "intermediate read": (
        [txn("A", 0, appends=[("x", 1), ("x", 2)]), txn("R", 5, Read("x", [1]))],
        {"x": [1, 2]},
        "no order",
    ),
    "write skew": (
        [txn("A", 0, Read("y", []), appends=[("x", 1)]), txn("B", 5, Read("x", []), appends=[("y", 2)])],
        {"x": [1], "y": [2]},
        "no order(.|\n)*rw: (.|\n)*rw: ",
    ),
    "own append not seen": (
        [txn("A", 0, Read("x", [], own=[1]), appends=[("x", 1)])],
        {"x": [1]},
        "does not see its own",
    ),
    "not a beginning": ([*WRITES, txn("R", 0, Read("x", [3]))], ENDED, "not a beginning"),
    "longer than in the end": ([*WRITES, txn("R", 0, Read("x", length=3))], ENDED, "had 3 values"),
    "old, although acknowledged": ([*WRITES, txn("R", 40, Read("x", [1]))], ENDED, "rw: 3 in x(.|\n)*time: "),
    "old by its length": ([*WRITES, txn("R", 40, Read("x", length=1))], ENDED, "rw: 3 in x(.|\n)*time: "),
    "backward": (
        [*WRITES, txn("R", 11, Read("x", length=2)), txn("S", 27, Read("x", last=1))],
        ENDED,
        "no order(.|\n)*time: ",
    ),
    "seen before it began": ([*WRITES, txn("R", -20, Read("x", [1, 3]))], ENDED, "wr: 3 in x(.|\n)*"),
}


@pytest.mark.parametrize("name", ANOMALIES)
def test_a_history_that_no_order_explains_is_found(name: str) -> None:
    history, final, said = ANOMALIES[name]
    with pytest.raises(BrokenPromise, match=said):
        judge(history, final)


def test_a_history_that_has_an_order_is_accepted() -> None:
    history = [
        *WRITES,
        txn("R", 0, Read("x", [1]), Read("y", [2])),
        txn("S", 26, Read("x", length=2), Read("y", last=4)),
        txn("T", 30, Read("x", [1, 3, 5], own=[5]), Read("x", last=5, own=[5]), appends=[("x", 5)]),
        txn("U", 30, Read("x", [1, 3, 6], own=[6]), undone=[("x", 6)], status=ABORTED),
        Transaction("V", 30, appends=[("y", 7)], status=UNKNOWN),
        Transaction("W", 30, appends=[("y", 8)], status=UNKNOWN),
    ]
    assert 0 < judge(history, {"x": [1, 3, 5], "y": [2, 4, 7]})
