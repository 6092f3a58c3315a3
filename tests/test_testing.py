"""`pstate.testing`: careless scripts are found, right ones pass, and what it says it has tried it has tried."""

from __future__ import annotations

import contextlib
import gc
import logging
import os
import pickle
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import pstate.testing
from pstate import PersistedState, ReadOnlyError
from pstate.testing import (
    CrashFailure,
    CrashReport,
    SimulatedDisk,
    SimulatedSystem,
    crash_at_every_step,
)
from pstate.testing.schedule import told

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "testing.md"

MONEY = {"alice": 100, "bob": 0}


def pay_carelessly(state: Any) -> None:
    state.alice -= 10
    state.bob += 10


def pay(state: Any) -> None:
    with state.transaction():
        state.alice -= 10
        state.bob += 10


def no_money_is_lost(state: Any) -> None:
    assert {100} == {state.alice + state.bob}, f"{state.alice + state.bob} instead of 100"


def anything(state: Any) -> None:
    state.snapshot()


def count_to(last: int) -> Callable[[Any], None]:
    def count(state: Any) -> None:
        for number in range(state.last + 1, last + 1):
            state.last = number

    return count


def failure_of(*args: Any, **options: Any) -> CrashFailure:
    with pytest.raises(CrashFailure) as caught:
        crash_at_every_step(*args, **options)
    return caught.value


# ------------------------------------------------------------------ what it finds


def test_two_changes_that_belong_together_are_found() -> None:
    failure = failure_of(pay_carelessly, no_money_is_lost, defaults=MONEY)

    assert [
        "create state.yaml",
        "commit 1: state.alice = 100; state.bob = 0",
        "commit 2: state.alice = 90",
    ] == failure.steps[:-1]
    assert failure.steps[-1].startswith("killed before ")
    assert {"alice": 90, "bob": 0} == failure.state
    assert isinstance(failure.cause, AssertionError)
    assert failure.cause.__traceback__ is not None
    for line in (*failure.steps, "    alice: 90", "    AssertionError: 90 instead of 100"):
        assert line in str(failure)


@pytest.mark.parametrize("durability", ["process", "power"])
def test_a_transaction_mends_it(durability: Any) -> None:
    report = crash_at_every_step(pay, no_money_is_lost, defaults=MONEY, durability=durability)

    assert 3 == report.states  # nothing paid, paid once, and paid twice by the script that was run again


def test_a_script_that_fails_when_it_is_run_again_is_found() -> None:
    def begin_once(state: Any) -> None:
        state.begun = [*state.get("begun", ()), "here"]
        if len(state.begun) > 1:
            raise ValueError("begun before")

    failure = failure_of(begin_once, anything)

    assert "The script was run again after a crash, and failed." == failure.happened
    again = failure.steps.index("the script was run again")
    assert failure.steps[again - 1].startswith("killed ")
    assert ["commit 2: state.begun = ['here', 'here']"] == failure.steps[again + 1 : again + 2]
    assert {"begun": ["here", "here"]} == failure.state
    assert f"ValueError: begun before\n    at {__file__}:" in str(failure)
    crash_at_every_step(begin_once, anything, resume=False)


def test_a_wrong_result_of_the_script_that_is_run_again_is_found() -> None:
    def bob_is_paid_once(state: Any) -> None:
        assert state.bob <= 10

    failure = failure_of(pay, bob_is_paid_once, defaults=MONEY)

    assert {"alice": 80, "bob": 20} == failure.state
    assert "commit 3: state.alice = 80; state.bob = 20" in failure.steps
    crash_at_every_step(pay, bob_is_paid_once, defaults=MONEY, resume=False)


def test_an_effect_that_comes_after_its_record_is_found() -> None:
    sent: list[int] = []

    def send_all(state: Any, work_first: bool) -> None:
        for number in range(state.last + 1, 3):
            if work_first:
                sent.append(number)
            state.last = number
            if not work_first:
                sent.append(number)

    def nothing_is_skipped(state: Any) -> None:
        assert set(range(1, state.last + 1)) <= set(sent), f"sent: {sent}"

    options: dict[str, Any] = {"defaults": {"last": 0}, "setup": sent.clear}
    crash_at_every_step(lambda state: send_all(state, True), nothing_is_skipped, **options)
    failure = failure_of(lambda state: send_all(state, False), nothing_is_skipped, **options)
    assert {"last": 1} == failure.state


def test_commits_come_back_after_a_power_cut_as_the_durability_promises() -> None:
    """With "power", each commit that the script went on from is kept; with "process", it may be lost."""
    done: list[int] = []

    def count(state: Any) -> None:
        for number in range(state.last + 1, 4):
            state.last = number
            done.append(number)

    def what_was_done_is_there(state: Any) -> None:
        assert state.last >= max(done, default=0), f"{max(done)} was done"

    options: dict[str, Any] = {"content": "last: 0\n", "setup": done.clear}
    crash_at_every_step(count, what_was_done_is_there, durability="power", **options)
    failure = failure_of(count, what_was_done_is_there, durability="process", **options)

    assert "The power was cut, and the check failed on the state that was found." == failure.happened
    assert re.fullmatch(r"the power was cut before .*: commit 1 is lost", failure.steps[-1])
    assert {"last": 0} == failure.state


def test_a_power_cut_that_takes_several_commits_says_which() -> None:
    done: list[int] = []

    def count(state: Any) -> None:
        for number in (1, 2, 3):
            state.last = number
            done.append(number)

    def not_two_of_three_are_gone(state: Any) -> None:
        assert state.last > 1 or len(done) < 3

    failure = failure_of(count, not_two_of_three_are_gone, content="last: 0\n", resume=False, setup=done.clear)

    assert re.search(r": commits [12] to 3 are lost$", failure.steps[-1])


def test_a_new_file_may_be_lost_with_its_folder_entry() -> None:
    committed: list[bool] = []

    def create(state: Any) -> None:
        state.here = True
        committed.append(True)

    def is_here(state: Any) -> None:
        assert not committed or "here" in state, "gone"

    failure = failure_of(create, is_here, setup=committed.clear)

    assert failure.steps[-1].endswith(": the new file is lost")
    crash_at_every_step(create, is_here, setup=committed.clear, durability="power")


def test_a_check_that_fails_without_a_crash_says_that_there_was_none() -> None:
    def is_empty(state: Any) -> None:
        assert {} == state

    failure = failure_of(pay, is_empty, defaults=MONEY)

    assert "The script ran to its end, and the check failed." == failure.happened
    assert not any("killed" in step for step in failure.steps)


def test_a_state_that_cannot_be_opened_again_is_a_failure_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    real = PersistedState.open

    def refuse(path: Any, *, fs: SimulatedSystem, **options: Any) -> Any:
        if fs.process == "check":
            raise ReadOnlyError("no", path="")
        return real(path, fs=fs, **options)

    monkeypatch.setattr(PersistedState, "open", refuse)
    failure = failure_of(pay, no_money_is_lost, defaults=MONEY)

    assert "The state could not be opened again." == failure.happened
    assert failure.state is None
    assert "the state:" not in str(failure)


# ------------------------------------------------------------------ scripts of all kinds


def test_what_a_script_raises_undisturbed_is_an_ordinary_error() -> None:
    def broken(state: Any) -> None:
        state.missing += 1

    with pytest.raises(AttributeError):
        crash_at_every_step(broken, anything)


def test_a_script_cannot_survive_its_death() -> None:
    """Neither by `except`, nor in `finally`: nothing that it still tries reaches the file."""

    def clinging(state: Any) -> None:
        try:
            state.a = 1
            state.b = 1
        except Exception:
            state.caught = True
            raise
        finally:
            try:
                if "b" not in state:
                    state.half = True
            except BaseException:
                with contextlib.suppress(BaseException):
                    state.half = True
                raise RuntimeError("something else") from None

    def not_half(state: Any) -> None:
        assert "half" not in state
        assert "caught" not in state

    crash_at_every_step(clinging, not_half)


def test_a_death_in_a_transaction_undoes_it() -> None:
    def nested(state: Any) -> None:
        with state.transaction():
            state.a = 1
            with state.transaction():
                state.b = 1
            state.c = 1

    def all_or_nothing(state: Any) -> None:
        assert len(state) in (0, 3)

    assert 2 == crash_at_every_step(nested, all_or_nothing).states


def test_changes_of_nested_containers_are_told_as_a_program_writes_them() -> None:
    def work(state: Any) -> None:
        job = state.jobs[0]
        job["at"] = {"x": [1]}
        job["at"]["x"].append(2)
        job["at"]["x"].reverse()
        job["at"]["x"][0:1] = [7, 8]
        job["tags"].update({"b", "a"})
        job["tags"].discard("a")
        del job["at"]
        state.jobs.insert(0, {"long": "x" * 100})

    def ended(state: Any) -> None:
        assert 1 == len(state.jobs), "ended"

    failure = failure_of(work, ended, content="jobs:\n- tags: !!set {c: null}\n")

    assert [
        "state.jobs[0].at = {'x': [1]}",
        "state.jobs[0].at.x.insert(1, 2)",
        "state.jobs[0].at.x in another order",
        "state.jobs[0].at.x[0:1] = [7, 8]",
        "state.jobs[0].tags |= {'a', 'b'}",
        "state.jobs[0].tags -= {'a'}",
        "del state.jobs[0].at",
        "state.jobs.insert(0, {'long': '" + "x" * 49 + "…)",
    ] == [step.partition(": ")[2] for step in failure.steps if step.startswith("commit")]


def test_a_script_that_does_nothing_is_crashed_while_it_opens_and_closes() -> None:
    report = crash_at_every_step(lambda state: None, anything, content=b"a: 1\n")

    assert report.steps == report.kills > 0
    assert 1 == report.states == report.power_cuts


def test_a_script_may_close_its_state() -> None:
    def script(state: Any) -> None:
        with state:
            state.a = 1

    crash_at_every_step(script, anything)


def test_what_a_check_changes_is_not_found_by_the_script() -> None:
    def meddle(state: Any) -> None:
        assert "meddled" not in state
        state.meddled = True

    crash_at_every_step(pay, meddle, defaults=MONEY)


def test_a_script_that_does_something_else_in_another_run_is_refused() -> None:
    runs: list[int] = []

    def changing(state: Any) -> None:
        runs.append(1)
        for number in range(min(3, len(runs))):
            state.last = number

    with pytest.raises(RuntimeError, match="setup="):
        crash_at_every_step(changing, anything)
    crash_at_every_step(changing, anything, setup=runs.clear)


def test_finalizers_of_the_dead_are_silent_and_nothing_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    """What they would raise is an error here (filterwarnings in pyproject.toml)."""
    crash_at_every_step(pay, no_money_is_lost, defaults=MONEY)
    gc.collect()

    assert [] == caplog.records
    assert logging.NOTSET == logging.getLogger("pstate").level


# ------------------------------------------------------------------ what it tries


class Counting:
    """The system calls of each simulated process, by what it was made for."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.runs: dict[str, list[list[str]]] = {}
        self.torn = 0
        self.boots: set[str] = set()
        real, put = SimulatedSystem.__init__, SimulatedSystem.put
        counting = self

        def initialise(system: Any, disk: SimulatedDisk, hook: Any = None, **options: Any) -> None:
            names: list[str] = []
            counting.runs.setdefault(options["name"], []).append(names)
            counting.boots.add(disk.boot)

            def note(system: SimulatedSystem, name: str, arguments: tuple[Any, ...]) -> int | None:
                names.append(name)
                return hook(system, name, arguments) if hook else None

            real(system, disk, note, **options)

        def noting(system: SimulatedSystem, description: Any, data: bytes) -> None:
            counting.torn += system.hook.__name__ == "note" and sys._getframe(1).f_code.co_name == "_before"
            put(system, description, data)

        monkeypatch.setattr(SimulatedSystem, "__init__", initialise)
        monkeypatch.setattr(SimulatedSystem, "put", noting)


def test_every_call_of_the_store_is_a_place_to_die(monkeypatch: pytest.MonkeyPatch) -> None:
    counting = Counting(monkeypatch)
    report = crash_at_every_step(pay, no_money_is_lost, defaults=MONEY)

    first, *killed = counting.runs["script"]
    writes = first.count("write")
    assert writes >= 4  # two commits, and the vacuum of the close
    assert len(first) == report.steps
    assert len(first) + writes == report.kills
    assert writes == counting.torn
    beginnings = [first[: number + 1] for number in range(len(first))]
    assert beginnings == [list(each) for each in dict.fromkeys(map(tuple, killed))]
    assert report.kills + 1 == len(killed)  # and once to the end, for the power cut there
    # Each death is looked at, each file that a power cut may leave, and what the resumed scripts make of them.
    resumed = len(counting.runs["resumed"])
    assert resumed >= report.kills + 2
    assert 1 + report.kills + report.power_cuts + resumed == len(counting.runs["check"])
    assert {"b0070001", "b0070002"} == counting.boots


def test_no_state_that_a_power_cut_may_leave_is_left_out() -> None:
    """All of them at all steps, counted once more in another way."""
    expected: set[frozenset[tuple[str, bytes]]] = set()
    disk = SimulatedDisk({"/state.yaml": b"last: 0\n"}, "b0070001")

    def note(system: SimulatedSystem, name: str, arguments: tuple[Any, ...]) -> None:
        expected.update(frozenset(image.items()) for image in disk.after_power_cut())

    state = PersistedState.open("/state.yaml", fs=SimulatedSystem(disk, note, name="script"))
    count_to(3)(state)
    state.close()
    expected.update(frozenset(image.items()) for image in disk.after_power_cut())

    report = crash_at_every_step(count_to(3), anything, content="last: 0\n")
    assert len(expected) == report.power_cuts


def test_it_does_the_same_each_time() -> None:
    first, second = (crash_at_every_step(pay, no_money_is_lost, defaults=MONEY) for _ in range(2))
    assert first == second
    one, other = (str(failure_of(pay_carelessly, no_money_is_lost, defaults=MONEY)) for _ in range(2))
    assert one == other


def test_progress_is_told() -> None:
    told: list[tuple[int, int]] = []
    report = crash_at_every_step(pay, anything, defaults=MONEY, progress=lambda *numbers: told.append(numbers))

    assert [(number, report.steps) for number in range(1, report.steps + 1)] == told


# ------------------------------------------------------------------ what it says


def test_a_long_schedule_and_a_long_state_are_shown_by_their_ends() -> None:
    failure = CrashFailure("So it was.", [f"step {n}" for n in range(100)], {"a": list(range(100))}, ValueError())

    text = str(failure)
    assert "… 70 steps before\n  71. step 70\n" in text
    assert "… 71 more lines" in text
    assert text.endswith("raised:\n    ValueError")
    assert 100 == len(failure.steps)


class Lost(Exception):
    """As people write them: the words are made when somebody asks."""

    def __init__(self, state: Any) -> None:
        super().__init__(state.todo)
        self.seen = {"todo": [state.todo]}
        self.state = state

    def __setattr__(self, name: str, value: Any) -> None:
        assert name in ("seen", "state"), "frozen, as the exceptions of attrs are"
        super().__setattr__(name, value)

    def __str__(self) -> str:
        return f"{len(self.state.todo)} left"


class Mute(Exception):
    def __str__(self) -> str:
        raise RuntimeError


def work_off(state: Any) -> None:
    while state.todo:
        state.done.append(state.todo.pop(0))


def nothing_is_lost(problem: Callable[[Any], BaseException]) -> Callable[[Any], None]:
    def check(state: Any) -> None:
        if len(state.todo) + len(state.done) != 2:
            raise problem(state)

    return check


@pytest.mark.parametrize(
    ("problem", "said"),
    [
        (lambda s: AssertionError(s.todo), "AssertionError: ['b']"),
        (AssertionError, "AssertionError: {'todo': ['b'], 'done': []}"),
        (lambda s: AssertionError(dict(s)), "AssertionError: {'todo': ['b'], 'done': []}"),
        (lambda s: AssertionError([(s.todo, "and")], {"x": s.done}), "AssertionError: ([(['b'], 'and')], {'x': []})"),
        (lambda s: KeyError(s.todo), "KeyError: ['b']"),
        (lambda s: AssertionError(s.items()), "AssertionError: dict_items([('todo', ['b']), ('done', [])])"),
        (Lost, "Lost: 1 left"),
        (lambda s: Mute(s.todo), "Mute: its message cannot be shown (RuntimeError)"),
    ],
)
@pytest.mark.parametrize("where", ["check", "script"])
def test_a_failure_says_what_its_cause_said_while_the_state_was_open(
    problem: Callable[[Any], BaseException], said: str, where: str
) -> None:
    check = nothing_is_lost(problem)

    def checked_work(state: Any) -> None:
        check(state)
        work_off(state)

    arguments = (work_off, check) if where == "check" else (checked_work, anything)
    failure = failure_of(*arguments, defaults={"todo": ["a", "b"], "done": []})

    assert f"raised:\n    {said}" in str(failure)
    assert said == failure.said[0]
    assert "closed" not in str(failure)


def test_what_a_cause_held_of_the_state_are_plain_copies() -> None:
    failure = failure_of(work_off, nothing_is_lost(Lost), defaults={"todo": ["a", "b"], "done": []})

    assert isinstance(failure.cause, Lost)
    assert (["b"],) == failure.cause.args
    assert {"todo": [["b"]]} == failure.cause.seen
    assert {"todo": ["b"], "done": []} == failure.cause.state == failure.state
    assert [list, list, dict] == [
        type(failure.cause.args[0]), type(failure.cause.seen["todo"][0]), type(failure.cause.state)
    ]  # fmt: skip
    failure = failure_of(
        work_off, nothing_is_lost(lambda s: AssertionError(s.todo)), defaults={"todo": ["a", "b"], "done": []}
    )
    copy = pickle.loads(pickle.dumps(failure))
    assert (str(failure), failure.said, (["b"],)) == (str(copy), copy.said, copy.cause.args)


def test_what_the_undisturbed_script_raises_can_be_shown_as_well() -> None:
    cyclic: list[Any] = []
    cyclic.append(cyclic)

    def script(state: Any) -> None:
        raise ValueError(state.todo, cyclic)

    with pytest.raises(ValueError, match=r"\(\['a'\], \[\[\.\.\.\]\]\)") as caught:
        crash_at_every_step(script, anything, defaults={"todo": ["a"]})
    assert list is type(caught.value.args[0])
    assert cyclic is caught.value.args[1]


def test_a_check_that_closes_its_state_still_says_what_it_found() -> None:
    def check(state: Any) -> None:
        todo = state.todo
        state.close()
        raise AssertionError(todo)

    failure = failure_of(anything, check, defaults={"todo": ["a"]})
    assert ["AssertionError: <MappedList of '/state.yaml', closed>"] == failure.said


def test_a_failure_survives_pickling() -> None:
    failure = failure_of(pay_carelessly, no_money_is_lost, defaults=MONEY)
    copy = pickle.loads(pickle.dumps(failure))

    assert str(failure) == str(copy)
    assert (failure.steps, failure.state) == (copy.steps, copy.state)


def test_a_rewriting_of_the_file_is_told_by_its_calls() -> None:
    run = pstate.testing.crash._Process("script", SimulatedDisk({"/state.yaml": b"a: 1\n"}))
    run.run(lambda state: setattr(state, "a", 2), {})

    lines = told(run.calls)
    assert "commit 1: state.a = 2" == lines[0]
    assert ["create", "write", "sync", "write", "rename", "exchange", "sync", "delete"] == [
        line.split()[0] for line in lines[1:]
    ]


def test_every_public_name_is_documented() -> None:
    text = PAGE.read_text(encoding="utf-8")
    for name in pstate.testing.__all__:
        assert hasattr(pstate.testing, name)
        assert f"`{name}" in text or f"import {name}" in text or re.search(rf"import .*\b{name}\b", text), name
        assert getattr(pstate.testing, name).__doc__, name
    public = {name for name in vars(pstate.testing) if not name.startswith("_")} - {
        "annotations", "crash", "disk", "memory", "pytest_plugin", "schedule", "system",
    }  # fmt: skip
    assert sorted(public) == sorted(pstate.testing.__all__)
    parameters = crash_at_every_step.__kwdefaults__
    signature = ", ".join(f"{name}={value!r}".replace("'", '"') for name, value in parameters.items())
    assert f"`crash_at_every_step(script, check, *, {signature})`" in text
    for attribute in (*CrashReport.__dataclass_fields__, *CrashFailure.__annotations__):
        assert f"`{attribute}`" in text, attribute


# ------------------------------------------------------------------ the page, which test_pages.py follows


def test_nothing_is_written_to_the_real_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    crash_at_every_step(pay, no_money_is_lost, defaults=MONEY)

    assert [] == os.listdir(tmp_path)


def test_the_fixture_shows_no_wall_of_traceback(tmp_path: Path) -> None:
    page = PAGE.read_text(encoding="utf-8")
    for name, content in re.findall(r'^```python title="(.*?)"\n(.*?)^```$', page, re.M | re.S):
        (tmp_path / name).write_text(content, encoding="utf-8")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", "--color=no"]
    # In a CI, pytest shows every difference in full.
    environ = {name: value for name, value in os.environ.items() if name not in ("CI", "BUILD_NUMBER")}
    ran = subprocess.run(command, cwd=tmp_path, env=environ, capture_output=True, text=True, check=False)

    assert 1 == ran.returncode, ran.stdout + ran.stderr
    assert 15 < len(ran.stdout.splitlines()) < 35
