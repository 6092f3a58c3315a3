"""`pstate watch`: as a shell has it, beside programs and people."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tools.cli import Run, environment, folder, run

from pstate import PersistedState
from pstate.file.fs import SYSTEM

__all__ = ["folder", "run"]

PATIENCE = 20.0


@contextlib.contextmanager
def watching(folder: Path, *words: str) -> Iterator[subprocess.Popen[str]]:
    """`pstate watch state.yaml` with *words*, when it is about to tell the next change."""
    with subprocess.Popen(
        ["pstate", "watch", "state.yaml", *words],
        cwd=folder,
        env=environment(folder.parent / "bin"),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        fd = os.open(folder / "state.yaml", os.O_RDONLY)
        try:
            deadline = time.monotonic() + PATIENCE
            while not SYSTEM.is_watched(fd):
                assert time.monotonic() < deadline
                time.sleep(0.01)
        finally:
            os.close(fd)
        try:
            yield process
        finally:
            process.kill()


def line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().rstrip("\n")


def test_it_prints_each_change_and_who_made_it(folder: Path) -> None:
    path = folder / "state.yaml"
    with watching(folder) as process:
        with PersistedState(path) as state:
            state.counter = 4
            assert "~ counter: 3 -> 4  by a program" == line(process)
            state.vacuum()
            state.seen.add("b")
            assert "+ seen.b  by a program" == line(process)
            with state.transaction():
                del state.jobs[0]
                state.counter = 5
            assert ['- jobs[0]: {"name": "wash","tries": 0}  by a program', "~ counter: 4 -> 5  by a program"] == [
                line(process) for _ in range(2)
            ]
        path.write_text(path.read_text().replace("counter: 5", "counter: 50  # mine"))
        assert "~ counter: 5 -> 50  by an edit" == line(process)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate()

    assert (-signal.SIGINT, "") == (process.returncode, err)


def test_json_and_a_place(folder: Path) -> None:
    with watching(folder, "--json", "jobs[0].name") as process, PersistedState(folder / "state.yaml") as state:
        state.counter = 4
        state.jobs[0].name = "iron"
        state.jobs.clear()

        assert [
            {"path": "jobs[0].name", "old": "wash", "new": "iron", "origin": "other", "commit": 2},
            {"path": "jobs[0].name", "old": "iron", "origin": "other", "commit": 3},
        ] == [json.loads(line(process)) for _ in range(2)]


def test_it_ends_after_so_many_changes(folder: Path) -> None:
    with watching(folder, "--count", "2") as process, PersistedState(folder / "state.yaml") as state:
        with state.transaction():
            state.a = 1
            state.b = 2
            state.c = 3
        out, err = process.communicate()

    assert (0, "+ a: 1  by a program\n+ b: 2  by a program\n", "") == (process.returncode, out, err)


def test_it_may_begin_with_what_is_there(run: Run) -> None:
    code, out, _ = run("watch", "state.yaml", "jobs[0].name", "--now", "--count", "1")
    assert (0, '+ jobs[0].name: "wash"  by somebody\n') == (code, out)


def test_it_ends_when_nothing_changes(run: Run) -> None:
    before = time.monotonic()
    assert (1, "", "pstate: state.yaml: nothing has changed for 0.2 s.\n") == run(
        "watch", "state.yaml", "--timeout", "0.2"
    )
    assert time.monotonic() - before >= 0.2


def test_a_command_gets_the_change(folder: Path) -> None:
    script = 'echo "$PSTATE_PATH|${PSTATE_OLD-none}|${PSTATE_NEW-none}|$PSTATE_ORIGIN|$(basename "$PSTATE_FILE")"; cat'
    with watching(folder, "--", "sh", "-c", script) as process, PersistedState(folder / "state.yaml") as state:
        state.counter = 4
        assert "counter|3|4|other|state.yaml" == line(process)
        assert {"path": "counter", "old": 3, "new": 4, "origin": "other", "commit": 1} == json.loads(line(process))
        state.text = "two\nlines"
        assert ["text|none|two", "lines|other|state.yaml"] == [line(process), line(process)]
        line(process)
        del state["text"]
        assert ["text|two", "lines|none|other|state.yaml"] == [line(process), line(process)]
        line(process)
        state.text = "with \0"
        assert "text|none|none|other|state.yaml" == line(process)
        assert "with \0" == json.loads(line(process))["new"]
        state.text = "€" * 200_000
        assert "text|none|none|other|state.yaml" == line(process)


def test_a_command_for_what_came_together(folder: Path) -> None:
    with watching(folder, "--batch", "--", "cat") as process, PersistedState(folder / "state.yaml") as state:
        with state.transaction():
            state.a = 1
            state.b = 2
        assert ["a", "b"] == [json.loads(line(process))["path"] for _ in range(2)]


def test_what_comes_while_a_slow_command_runs_waits_for_it(folder: Path) -> None:
    """However often the file is replaced meanwhile."""
    with watching(folder, "counter", "--", "sh", "-c", 'echo "$PSTATE_NEW"; sleep 0.05') as process:
        with PersistedState(folder / "state.yaml") as state:
            for _ in range(20):
                state.counter += 1
                state.vacuum()
        assert [str(number) for number in range(4, 24)] == [line(process) for _ in range(20)]


def test_a_command_that_fails_is_told_and_no_end(folder: Path) -> None:
    with watching(folder, "--count", "2", "--", "sh", "-c", "exit 3") as process:
        with PersistedState(folder / "state.yaml") as state:
            state.a = 1
            state.b = 2
        _, err = process.communicate()

    assert 0 == process.returncode
    assert "pstate: 'sh -c exit 3' failed with exit code 3; continuing\n" * 2 == err


def test_a_command_that_is_killed_is_told_with_its_signal(run: Run) -> None:
    code, _, err = run("watch", "state.yaml", "counter", "--now", "-n", "1", "--", "sh", "-c", "kill -9 $$")

    assert (0, "pstate: 'sh -c kill -9 $$' was killed by signal 9 (Killed); continuing\n") == (code, err)


@pytest.mark.parametrize("batch", [[], ["--batch"]])
@pytest.mark.parametrize(
    ("script", "code", "said"),
    [
        ("exit 3", 3, "failed with exit code 3; exiting"),
        ("kill -9 $$", 137, "was killed by signal 9 (Killed); exiting"),
    ],
)
def test_a_command_that_fails_can_end_it_with_its_code(
    folder: Path, batch: list[str], script: str, code: int, said: str
) -> None:
    """Not before it fails, and with no further run of the command."""
    script = f'echo "$PSTATE_PATH"; [ "$PSTATE_PATH" != bad ] || {script}'
    with watching(folder, "--exit-on-error", *batch, "--", "sh", "-c", script) as process:
        with PersistedState(folder / "state.yaml") as state:
            state.good = 1
            assert "good" == line(process)
            with state.transaction():
                state.bad = 1
                state.good = 2
        out, err = process.communicate()

    assert (code, "") == (process.returncode, out.removeprefix("bad\n"))
    assert f"pstate: 'sh -c {script}' {said}\n" == err


def test_to_exit_on_error_needs_a_command(run: Run) -> None:
    code, _, err = run("watch", "state.yaml", "--exit-on-error")

    assert (2, True) == (code, "--exit-on-error needs a COMMAND after --" in err)


def test_whose_it_is_that_was_there_before_nobody_knows(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not even where a watch around this one has said whose its change is."""
    monkeypatch.setenv("PSTATE_ORIGIN", "edit")
    run("watch", "state.yaml", "--now", "-n", "1", "--", "sh", "-c", 'echo "${PSTATE_ORIGIN-nobody}" > origin')

    assert "nobody\n" == Path("origin").read_text()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["state.yaml", "counter", "echo", "hi"], "write -- before the command. Nothing was done."),
        (["state.yaml", "--", "no-such-command"], "the command 'no-such-command' does not exist. Nothing was done."),
        (["state.yaml", "a..b"], "PATH 'a..b', character 2: a key is missing here."),
        (["state.yaml", "--count", "0"], "argument -n/--count: '0' is not a number of changes, 1 or more."),
        (["state.yaml", "--count", "x"], "argument -n/--count: 'x' is not a number of changes, 1 or more."),
        (["state.yaml", "--timeout", "-1"], "argument --timeout: invalid"),
    ],
)
def test_what_is_wrong_is_said_at_once(run: Run, words: list[str], said: str) -> None:
    code, out, err = run("watch", *words)

    assert (2, "") == (code, out)
    assert said in err


def test_a_file_that_is_not_there(run: Run) -> None:
    code, _, err = run("watch", "nothing.yaml")

    assert 3 == code
    assert "the file does not exist" in err


def test_words_behind_the_dashes_are_the_commands_own(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also those that look like options of ours, and more dashes."""
    called: list[Any] = []
    monkeypatch.setattr("pstate.cli.watch._call", lambda arguments, found: called.append(arguments.command))
    with PersistedState("state.yaml") as state:
        import threading

        threading.Timer(0.3, setattr, (state, "counter", 9)).start()
        code, _, _ = run("watch", "state.yaml", "-n", "1", "--", "echo", "--json", "--", "-n")

    assert (0, [["echo", "--json", "--", "-n"]]) == (code, called)
