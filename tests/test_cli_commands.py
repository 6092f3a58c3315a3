"""The commands that ask about a value or put it elsewhere, and the PATHs and words that they share with all others."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest
from tools.cli import FILES, Run, environment, folder, holding, run, shell

from pstate import PersistedState
from pstate.cli import kinds, patterns
from pstate.cli import paths as cli_paths
from pstate.cli.command import No, Usage
from pstate.cli.write import split

__all__ = ["folder", "run"]

ODD: dict[Any, Any] = {
    "a.b": 1, "": 2, 'q"': 3, "a=b": 4, 80: "port", None: 5, True: 6, "*": 7, "[0]": 8, "new\nline": 9, "é": 10,
    "-x": 11, 1.5: 12, b"y": 13, "1": 14, " ": 15,
}  # fmt: skip


def state(file: str = "state.yaml") -> dict[Any, Any]:
    with PersistedState.open(file, read_only=True) as opened:
        return opened.snapshot()


def odd() -> None:
    from datetime import date

    with PersistedState("odd.yaml") as opened:
        opened["odd"] = {**ODD, date(2026, 1, 2): "day"}


# ------------------------------------------------------------------------------------------------------------------ get


@pytest.mark.parametrize(
    ("words", "printed"),
    [
        ([".counter"], "3\n"),
        ([".jobs[0].name"], "wash\n"),
        (['.jobs.[0].["name"]'], "wash\n"),
        (["counter", "jobs[0].name"], "3\nwash\n"),
        (["--json", "counter", "seen"], '3\n["a"]\n'),
        (["--yaml", "counter", "jobs[0]"], "3\n---\nname: wash\ntries: 0\n"),
        (["-0", "counter", "jobs[*].name"], "3\0wash\0dry\0"),
        (["jobs[*].name"], "wash\ndry\n"),
        ([".jobs[].name"], "wash\ndry\n"),
        (["jobs[0][*]"], "wash\n0\n"),
        (["seen[*]"], "a\n"),
        (["--json", "jobs[1:3]"], '[{"name": "dry", "tries": 2}]\n'),
        (["--json", "jobs[-1:]"], '[{"name": "dry", "tries": 2}]\n'),
        (["--json", "jobs[:1][*].name"], '"wash"\n'),
        (["--json", "jobs[5:9]", "jobs[:0]"], "[]\n[]\n"),
        (["jobs[:0][*]"], ""),
        (["jobs[*].who", "--default", "nobody"], "nobody\nnobody\n"),
        (["nope", "counter", "-d", "none"], "none\n3\n"),
        (["--json", "--raw", "jobs[0].name", "jobs[0]"], 'wash\n{"name": "wash", "tries": 0}\n'),
        (["--raw", "jobs[0].name"], "wash\n"),
        (["--yaml", "--raw", "jobs[0].name"], "wash\n"),
    ],
)
def test_get_prints_several_places(run: Run, words: list[str], printed: str) -> None:
    assert (0, printed, "") == run("get", "state.yaml", *words)


@pytest.mark.parametrize(
    ("paths", "said"),
    [
        (["counter", "nope"], "nope does not exist."),
        (["jobs[*].who"], "jobs[0].who does not exist."),
        (["counter[*]"], "counter is an integer, not a mapping, a list or a set."),
        (["jobs[0][1:2]"], "jobs[0] is a mapping, not a list."),
        (["jobs[1:3].name"], "in jobs[1:3]: name does not exist: it is a list of 1 element."),
        (["jobs[7]"], "jobs[7] does not exist: jobs is a list of 2 elements."),
    ],
)
def test_if_one_place_does_not_exist_nothing_is_printed(run: Run, paths: list[str], said: str) -> None:
    assert (1, "", f"pstate: state.yaml: {said}\n") == run("get", "state.yaml", *paths)


@pytest.mark.parametrize(
    "words",
    [
        ["get", "s", "\udcff"], ["has", "s", "a", "\udcff"], ["pop", "s", r'["\ud800"]'],
        ["mv", "s", "counter", "\udcff"],
        ["set", "s", "\udcff=1"], ["set", "s", "a=\udcff"], ["set", "s", "-s", "a=\udcff"],
        ["new", "n", "-s", "a=\udcff"], ["insert", "s", "jobs[0]", "-s", "\udcff"],
    ],
)  # fmt: skip
def test_what_is_not_utf8_is_refused_in_words_of_the_shell(run: Run, words: list[str]) -> None:
    os.rename("state.yaml", "s")
    code, out, err = run(*words)

    assert (2, "") == (code, out)
    assert err.endswith(" is not UTF-8. Nothing was done.\n")
    assert FILES["state.yaml"] == Path("s").read_text()
    assert not Path("n").exists()


@pytest.mark.parametrize("path", ["jobs[{}:]", "jobs[:{}]", "jobs[{}]", "jobs[{}:].x"])
def test_an_index_of_very_many_digits_is_beyond_the_end(run: Run, path: str) -> None:
    code, out, err = run("get", "state.yaml", path.format("9" * 5000))

    assert (0 if path.endswith(":]") or path.startswith("jobs[:") else 1) == code
    assert "Traceback" not in err
    assert {"jobs[{}:]": "[]\n"}.get(path, out) == out


def test_a_star_between_dots_and_quoted_brackets_are_keys(run: Run) -> None:
    odd()

    assert "7\n8\n" == run("get", "odd.yaml", "odd.*", 'odd["[0]"]').out


def test_a_very_long_pattern_is_walked(run: Run) -> None:
    """Each slice is a step, not a call inside another."""
    assert (0, "2\n", "") == run("get", "state.yaml", f"jobs{'[:]' * 5000}[1].tries")


@pytest.mark.parametrize("command", ["delete", "pop", "len", "has", "type", "keys"])
@pytest.mark.parametrize("path", ["jobs[*]", "jobs[0:1]", "jobs[:]"])
def test_what_leads_to_several_places_is_for_get_alone(run: Run, command: str, path: str) -> None:
    """1:30 is an integer in YAML 1.1: `delete jobs[1:30]` must not delete element 90."""
    code, out, err = run(command, "state.yaml", path)

    assert (2, "") == (code, out)
    assert "which only pstate get can print" in err
    assert FILES["state.yaml"] == Path("state.yaml").read_text()


def test_the_places_of_a_pattern_are_those_of_its_paths() -> None:
    root = {"a": [{"x": 1}, {"x": 2}], "b": {"c": 3}}

    assert [1, 2] == list(patterns.find(root, patterns.parse("a[*].x"), "f"))
    assert [[{"x": 1}, {"x": 2}], {"c": 3}] == list(patterns.find(root, patterns.parse("[*]"), "f"))
    assert [No, No] == [type(each) for each in patterns.find(root, patterns.parse("a[*].x.y"), "f")]
    with pytest.raises(Usage):
        patterns.parse("a[1:2:3]")


# ------------------------------------------------------------------------------------------------- keys, has, type, len


@pytest.mark.parametrize(
    ("words", "printed"),
    [
        (["state.yaml"], "counter\njobs\nseen\n"),
        (["state.yaml", "."], "counter\njobs\nseen\n"),
        (["state.yaml", "jobs"], "0\n1\n"),
        (["state.yaml", "seen"], "a\n"),
        (["state.yaml", "jobs", "--paths"], "jobs[0]\njobs[1]\n"),
        (["state.yaml", "--json", "jobs[0]"], '"name"\n"tries"\n'),
        (["state.yaml", "-0", "jobs[0]"], "name\0tries\0"),
    ],
)
def test_keys(run: Run, words: list[str], printed: str) -> None:
    assert (0, printed, "") == run("keys", *words)


def test_each_path_that_keys_prints_leads_to_its_key(run: Run) -> None:
    odd()
    printed = run("keys", "odd.yaml", "odd", "--paths", "-0").out.split("\0")[:-1]

    assert len(ODD) + 1 == len(printed)
    for path in printed:
        assert 0 == run("has", "odd.yaml", "--", path).code
        assert 0 == run("get", "odd.yaml", "--", path).code
    values = [json.loads(run("get", "odd.yaml", "--json", "--", path).out) for path in printed]
    assert [*ODD.values(), "day"] == values


@pytest.mark.parametrize(
    ("paths", "code"),
    [
        (["counter"], 0),
        (["jobs[1]", "seen.a"], 0),
        (["jobs[2]"], 1),
        (["counter", "nope"], 1),
        (["seen.b"], 1),
        (["."], 0),
    ],
)
def test_has_answers_by_its_exit_code_alone(run: Run, paths: list[str], code: int) -> None:
    assert (code, "", "") == run("has", "state.yaml", *paths)


def test_has_tells_a_file_that_cannot_be_read_from_a_no(run: Run) -> None:
    code, _, err = run("has", "nowhere.yaml", "x")

    assert 3 == code
    assert "nowhere.yaml" in err


@pytest.mark.parametrize(
    ("text", "kind", "length"),
    [
        ("{a: 1}", "mapping", 1), ("[1, 2]", "list", 2), ("!!set {a}", "set", 1), ("text", "string", 4),
        ("3", "integer", None), ("1.5", "float", None), ("yes", "boolean", None), ("null", "null", None),
        ("!!binary YWJj", "bytes", 3), ("2026-01-02", "date", None), ("2026-01-02 03:04:05", "datetime", None),
        ("😀é", "string", 2), ("[]", "list", 0),
    ],
)  # fmt: skip
def test_type_and_len(run: Run, text: str, kind: str, length: int | None) -> None:
    assert 0 == run("set", "state.yaml", "x", text).code

    assert (0, f"{kind}\n", "") == run("type", "state.yaml", "x")
    assert kind in kinds.NAMES
    code, out, err = run("len", "state.yaml", "x")
    if length is None:
        assert (1, "") == (code, out)
        assert err.endswith(", which has no length.\n")
    else:
        assert (0, f"{length}\n", "") == (code, out, err)


# ------------------------------------------------------------------------------------------------------------------ set


@pytest.mark.parametrize(
    ("word", "parts"),
    [
        ("a=1", ("a", "1")), ("a=", ("a", "")), ("a=b=c", ("a", "b=c")), ("a", None), ("=x", ("", "x")),
        ('["a=b"]=1', ('["a=b"]', "1")), ("['a=b']", None), ('x["]="].y=z', ('x["]="].y', "z")),
        (r'["\"="]=1', (r'["\"="]', "1")), ("[!!binary YQ==]=1", ("[!!binary YQ==]", "1")),
        ("a[0]=[1]", ("a[0]", "[1]")),
        ("a=\nb", ("a", "\nb")),
    ],
)  # fmt: skip
def test_the_first_equals_sign_outside_of_brackets_ends_the_path(word: str, parts: tuple[str, str] | None) -> None:
    assert parts == split(word)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["a=1", "b=x=y"], {"a": 1, "b": "x=y"}),
        (["a=1"], {"a": 1}),
        (["url", "http://x/?a=b"], {"url": "http://x/?a=b"}),
        (['["a=b"]', "c=d"], {"a=b": "c=d"}),
        (['["a=b"]=1'], {"a=b": 1}),
        (["-p", "x.y=1", "x.z=[2]"], {"x": {"y": 1, "z": [2]}}),
        (["-s", "a=", "b=yes"], {"a": "", "b": "yes"}),
        (["a=1", "--", "b=-x"], {"a": 1, "b": "-x"}),
        (["a=1", "a=2"], {"a": 2}),
        (["counter=4", "--if-equals", "3"], {"counter": 4}),
        (["a=1", "b=2", "--if-missing"], {"a": 1, "b": 2}),
    ],
)
def test_set_takes_a_path_and_a_value_or_several_of_both(run: Run, words: list[str], expected: dict[str, Any]) -> None:
    assert 0 == run("set", "state.yaml", *words).code

    found = state()
    assert expected == {key: found[key] for key in expected}


def test_several_values_are_one_commit(run: Run) -> None:
    with PersistedState("state.yaml") as live:
        live.x = 1
        before = Path("state.yaml").read_text().count("\n--- ")
        assert 0 == run("set", "state.yaml", "a=1", "b=2", "counter=5").code

        assert 1 == Path("state.yaml").read_text().count("\n--- ") - before


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["a"], 2, "PATH 'a': it is followed by no VALUE."),
        (["a", "1", "2"], 2, "PATH 'a': 2 words follow it."),
        (["a=1", "2"], 2, "'2' is not PATH=VALUE, as 'a=1' before it is."),
        (["a=1", "b=[1"], 2, "not YAML"),
        (["a=1", "b="], 2, "VALUE is empty."),
        (["=1"], 2, "PATH '', character 1: a key is missing here."),
        (["a=1", "b=2", "--if-equals", "3"], 2, "--if-equals takes a single PATH."),
        (["a=-", "b=-"], 2, "Only one argument can be read from there."),
        (["a=1", "counter=2", "--if-missing"], 1, "counter already exists. Nothing was changed."),
        (["a=1", "x.y=2"], 1, "x does not exist. Nothing was changed. To create the mappings on the way: --parents"),
    ],
)
def test_of_several_values_all_are_set_or_none(run: Run, words: list[str], code: int, said: str) -> None:
    result = run("set", "state.yaml", *words, stdin="1")

    assert (code, "") == result[:2]
    assert said in result.err
    assert FILES["state.yaml"] == Path("state.yaml").read_text()


# ------------------------------------------------------------------------------------------ pop, insert, mv, cp, append


@pytest.mark.parametrize(
    ("words", "printed", "path", "left"),
    [
        (["jobs[0]", "--json"], '{"name": "wash", "tries": 0}\n', "jobs", [{"name": "dry", "tries": 2}]),
        (["jobs", "--first", "--json"], '{"name": "wash", "tries": 0}\n', "jobs", [{"name": "dry", "tries": 2}]),
        (["jobs", "--last"], "name: dry\ntries: 2\n", "jobs", [{"name": "wash", "tries": 0}]),
        (["jobs.-1.name"], "dry\n", "jobs[1]", {"tries": 2}),
        (["jobs[0].name", "--yaml"], "wash\n", "jobs[0]", {"tries": 0}),
        (["seen.a"], "a\n", "seen", set()),
    ],
)
def test_pop_prints_and_deletes(run: Run, words: list[str], printed: str, path: str, left: Any) -> None:
    assert (0, printed, "") == run("pop", "state.yaml", *words)

    assert left == cli_paths.find(state(), cli_paths.parse(path), "state.yaml")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["nope"], "nope does not exist. Nothing was changed."),
        (["jobs[2]"], "jobs[2] does not exist: jobs is a list of 2 elements. Nothing was changed."),
        (["nope", "--first"], "nope does not exist. Nothing was changed."),
        (["counter", "--last"], "counter is an integer, not a list. Nothing was changed."),
        (["empty", "--first"], "empty is empty. Nothing was changed."),
        (["empty[0]"], "empty[0] does not exist: empty is a list of 0 elements. Nothing was changed."),
        ([".", "--first"], ". is a mapping, not a list. Nothing was changed."),
    ],
)
def test_pop_of_nothing_is_a_no(run: Run, words: list[str], said: str) -> None:
    run("set", "state.yaml", "empty", "[]")
    before = Path("state.yaml").read_text()

    assert (1, "", f"pstate: state.yaml: {said}\n") == run("pop", "state.yaml", *words)
    quiet = run("pop", "state.yaml", "--quiet", *words)
    assert (1, "") == quiet[:2]
    assert ("not a list" in said) == bool(quiet.err), "what is not a list is a mistake, not an empty queue"
    assert before == Path("state.yaml").read_text()


@pytest.mark.parametrize(
    ("script", "code"),
    [("pstate pop state.yaml counter >/dev/full", 5), ("pstate pop state.yaml counter >&-", 1)],
)
def test_what_cannot_be_printed_is_not_popped(folder: Path, tmp_path: Path, script: str, code: int) -> None:
    done = shell(script, folder, tmp_path / "bin")

    assert code == done.returncode
    assert done.stderr.endswith(" Nothing was changed.\n")
    assert FILES["state.yaml"] == (folder / "state.yaml").read_text()


def test_what_nobody_reads_is_not_popped(folder: Path, tmp_path: Path) -> None:
    """It is longer than a pipe holds, so the command is printing when the reader goes away."""
    with PersistedState(folder / "long.yaml") as long:
        long.jobs = ["x" * 200_000, "y"]

    done = shell("pstate pop long.yaml jobs --first | head -c 1; echo ${PIPESTATUS[0]}", folder, tmp_path / "bin")

    assert "x141\n" == done.stdout
    assert 2 == len(PersistedState(folder / "long.yaml").jobs)


def test_a_pop_that_is_killed_while_it_prints_has_taken_nothing(folder: Path, tmp_path: Path) -> None:
    with PersistedState(folder / "long.yaml") as long:
        long.jobs = ["x" * 200_000, "y"]
    with subprocess.Popen(
        ["pstate", "pop", "long.yaml", "jobs", "--first"],
        cwd=folder,
        env=environment(tmp_path / "bin"),
        stdout=subprocess.PIPE,
    ) as process:
        assert process.stdout is not None
        assert b"x" == process.stdout.read(1)  # it prints, and the pipe is full
        process.send_signal(signal.SIGKILL)

    with PersistedState(folder / "long.yaml") as found:
        assert ["x" * 200_000, "y"] == found.jobs


def test_workers_on_one_queue_take_each_job_once(folder: Path, tmp_path: Path) -> None:
    with PersistedState(folder / "queue.yaml") as queue:
        queue.jobs = list(range(24))
    loop = "while job=$(pstate pop queue.yaml jobs --first --quiet); do echo $job; done"

    done = shell(f"({loop}) & ({loop}) & ({loop}) & wait", folder, tmp_path / "bin")

    assert "" == done.stderr
    assert list(range(24)) == sorted(map(int, done.stdout.split()))
    assert "jobs: []\n" == (folder / "queue.yaml").read_text()


def test_apply_prints_before_the_commit_only_if_a_line_pops(folder: Path, tmp_path: Path) -> None:
    script = "printf 'incr counter\\npop jobs --first\\n' | pstate apply state.yaml >/dev/full"
    done = shell(script, folder, tmp_path / "bin")

    assert (5, True) == (done.returncode, done.stderr.endswith("Nothing was changed.\n"))
    assert FILES["state.yaml"] == (folder / "state.yaml").read_text()
    done = shell("printf 'incr counter\\n' | pstate apply state.yaml >/dev/full", folder, tmp_path / "bin")
    assert (5, True) == (done.returncode, done.stderr.endswith("The changes are committed.\n"))
    assert 4 == state(str(folder / "state.yaml"))["counter"]


@pytest.mark.parametrize(
    ("words", "names"),
    [
        (["jobs[0]", "a", "b"], ["a", "b", "wash", "dry"]),
        (["jobs[1]", "a"], ["wash", "a", "dry"]),
        (["jobs[2]", "a"], ["wash", "dry", "a"]),
        (["jobs[-1]", "a"], ["wash", "a", "dry"]),
        (["jobs.-2", "a"], ["a", "wash", "dry"]),
    ],
)
def test_insert(run: Run, words: list[str], names: list[str]) -> None:
    assert (0, "", "") == run("insert", "state.yaml", *words)

    assert names == [job["name"] if isinstance(job, dict) else job for job in state()["jobs"]]


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["insert", "jobs[3]", "x"], 1, "jobs[3] does not exist: the last index that a value can be inserted at is 2."),
        (["insert", "jobs[-3]", "x"], 1, "jobs[-3] does not exist"),
        (["insert", "jobs.x", "x"], 1, "jobs.x does not exist: jobs is a list of 2 elements."),
        (["insert", "counter[0]", "x"], 1, "counter is an integer, not a list."),
        (["insert", "new[0]", "x"], 1, "new does not exist."),
        (["insert", "jobs", "x"], 1, ". is a mapping, not a list."),
        (["mv", "nope", "x"], 1, "nope does not exist."),
        (["mv", "counter", "jobs"], 1, "jobs already exists. Nothing was changed. To replace it: --force"),
        (["mv", "counter", "jobs[9]"], 1, "jobs[9] does not exist"),
        (["mv", "jobs", "jobs[0].x"], 2, "jobs[0].x is in jobs, the value to move."),
        (["mv", "jobs", "jobs", "--append"], 2, "jobs is in jobs, the value to move."),
        (["mv", "jobs", "jobs[0].a.b", "-p"], 2, "is in jobs, the value to move."),
        (["mv", "counter", "seen.x"], 1, "seen is a set, not a mapping or a list."),
        (["mv", "counter", "a.b"], 1, "a does not exist. Nothing was changed. To create the mappings on the way"),
        (["mv", "counter", "seen", "--append"], 1, "seen is a set, not a list."),
        (["mv", ".", "x"], 2, ". is the whole state."),
        (["mv", "counter", "."], 2, ". is the whole state."),
        (["cp", "nope", "x"], 1, "nope does not exist."),
        (["cp", "counter", "jobs"], 1, "jobs already exists."),
        (["cp", "counter", "jobs", "--force", "--append"], 2, "not allowed with"),
        (["append", "seen", "x"], 1, "seen is a set, not a list."),
        (["append", "counter", "x", "--unique"], 1, "counter is an integer, not a list."),
    ],
)
def test_what_has_no_place_changes_nothing(run: Run, words: list[str], code: int, said: str) -> None:
    result = run(words[0], "state.yaml", *words[1:])

    assert (code, "") == result[:2]
    assert said in result.err
    assert "Nothing was " in result.err
    assert FILES["state.yaml"] == Path("state.yaml").read_text()


WASH, DRY = {"name": "wash", "tries": 0}, {"name": "dry", "tries": 2}


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["mv", "counter", "count"], {"jobs": [WASH, DRY], "seen": {"a"}, "count": 3}),
        (["mv", "counter", "jobs", "-f"], {"jobs": 3, "seen": {"a"}}),
        (["mv", "counter", "a.b", "-p"], {"jobs": [WASH, DRY], "seen": {"a"}, "a": {"b": 3}}),
        (["mv", "jobs[1]", "jobs[0]"], {"counter": 3, "jobs": [DRY, WASH], "seen": {"a"}}),
        (["mv", "jobs[0]", "jobs[1]"], {"counter": 3, "jobs": [DRY, WASH], "seen": {"a"}}),
        (["mv", "jobs[0]", "jobs[0]"], {"counter": 3, "jobs": [WASH, DRY], "seen": {"a"}}),
        (["mv", "jobs[0]", "jobs", "-a"], {"counter": 3, "jobs": [DRY, WASH], "seen": {"a"}}),
        (["mv", "jobs[0]", "done", "-a"], {"counter": 3, "jobs": [DRY], "seen": {"a"}, "done": [WASH]}),
        (["mv", "jobs[0]", "jobs[1].sub"], {"counter": 3, "jobs": [{**DRY, "sub": WASH}], "seen": {"a"}}),
        (["mv", "jobs[0].name", "jobs[0].title"],
         {"counter": 3, "jobs": [{"tries": 0, "title": "wash"}, DRY], "seen": {"a"}}),
        (["mv", "seen.a", "member"], {"counter": 3, "jobs": [WASH, DRY], "seen": set(), "member": "a"}),
        (["cp", "jobs", "old"], {"counter": 3, "jobs": [WASH, DRY], "seen": {"a"}, "old": [WASH, DRY]}),
        (["cp", "jobs[0]", "jobs[2]"], {"counter": 3, "jobs": [WASH, DRY, WASH], "seen": {"a"}}),
        (["cp", "counter", "jobs[0]"], {"counter": 3, "jobs": [3, WASH, DRY], "seen": {"a"}}),
        (["cp", "seen", "jobs[0].s"], {"counter": 3, "jobs": [{**WASH, "s": {"a"}}, DRY], "seen": {"a"}}),
        (["cp", "jobs", "jobs[0].all"], {"counter": 3, "jobs": [{**WASH, "all": [WASH, DRY]}, DRY], "seen": {"a"}}),
        (["cp", ".", "all"], {"counter": 3, "jobs": [WASH, DRY], "seen": {"a"},
                              "all": {"counter": 3, "jobs": [WASH, DRY], "seen": {"a"}}}),
        (["append", "l", "1", "1", "true", "--unique"],
         {"counter": 3, "jobs": [WASH, DRY], "seen": {"a"}, "l": [1, True]}),
        (["append", "jobs", "{name: wash, tries: 0}", "-u"], {"counter": 3, "jobs": [WASH, DRY], "seen": {"a"}}),
    ],
)  # fmt: skip
def test_values_are_moved_and_copied(run: Run, words: list[str], expected: dict[str, Any]) -> None:
    assert (0, "", "") == run(words[0], "state.yaml", *words[1:])

    found = state()
    assert expected == found
    assert list(expected) == list(found)


@pytest.mark.parametrize("words", [["mv", "counter", "c"], ["pop", "counter"], ["insert", "jobs[0]", "1", "2"]])
def test_each_is_one_commit_and_a_line_of_a_script(run: Run, words: list[str]) -> None:
    with PersistedState("state.yaml") as live:
        live.x = 1
        before = Path("state.yaml").read_text().count("\n--- ")
        assert 0 == run(words[0], "state.yaml", *words[1:]).code
        assert 1 == Path("state.yaml").read_text().count("\n--- ") - before
    Path("other.yaml").write_text(FILES["state.yaml"] + "x: 1\n")
    assert 0 == run("apply", "other.yaml", stdin=" ".join(words)).code
    assert state() == state("other.yaml")


def test_a_script_of_all_of_them(run: Run) -> None:
    script = "set a=1 b='two words'\nmv a c\ncp b d\ninsert jobs[0] soak\npop jobs --last --json\nappend -u jobs soak\n"

    assert (0, '{"name": "dry", "tries": 2}\n', "") == run("apply", "state.yaml", stdin=script)
    assert {
        "counter": 3, "jobs": ["soak", WASH], "seen": {"a"}, "b": "two words", "c": 1, "d": "two words",
    } == state()  # fmt: skip


@pytest.mark.parametrize("words", [["pop", "counter"], ["mv", "counter", "c"], ["insert", "jobs[0]", "1"]])
def test_a_locked_file_is_waited_for(run: Run, words: list[str]) -> None:
    with holding(Path("state.yaml")):
        code, out, err = run(words[0], "state.yaml", *words[1:], "--lock-timeout", "0.05")

    assert (4, "") == (code, out)
    assert "--lock-timeout" in err


# ------------------------------------------------------------------------------------------------------------------ new


def test_new_begins_a_file(run: Run) -> None:
    assert (0, "", "") == run("new", "a.yaml")
    assert "{}\n" == Path("a.yaml").read_text()
    assert (0, "", "") == run("new", "b.yaml", "jobs=[]", "--parents", "limits.retries=3", "-s", "n=1")
    assert {"jobs": "[]", "limits": {"retries": "3"}, "n": "1"} == state("b.yaml")
    assert (0, "", "pstate: no is stored as false. To store the string: --string\n") == run("new", "c.yaml", "x=no")
    assert sorted([*FILES, "a.yaml", "b.yaml", "c.yaml"]) == sorted(os.listdir())


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["state.yaml"], 1, "state.yaml: already exists. Nothing was changed. To change it: pstate set state.yaml"),
        (["link.yaml"], 1, "link.yaml: already exists."),
        (["new.yaml", "x"], 2, "'x' is not PATH=VALUE."),
        (["new.yaml", "a.b=1"], 1, "a does not exist."),
        (["new.yaml", "a=[1"], 2, "not YAML"),
        (["nowhere/new.yaml"], 3, "does not exist. Nothing was changed. Create it first."),
        (["new.yaml", f"a={'[' * 200}{']' * 200}"], 2, ""),
        ([f"{'n' * 300}.yaml"], 5, "could not be created: File name too long. Nothing was changed."),
    ],
)
def test_new_refuses_what_exists_and_what_is_no_state(run: Run, words: list[str], code: int, said: str) -> None:
    Path("link.yaml").symlink_to("nowhere.yaml")
    result = run("new", *words)

    assert (code, "") == result[:2]
    assert said in result.err
    assert "Traceback" not in result.err
    assert sorted([*FILES, "link.yaml"]) == sorted(os.listdir())
    assert FILES["state.yaml"] == Path("state.yaml").read_text()


def test_a_file_that_appears_at_the_last_moment_is_not_replaced(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another program created it after the first look."""
    monkeypatch.setattr(os.path, "lexists", lambda path: False)

    code, out, err = run("new", "state.yaml", "a=1")

    assert (1, "") == (code, out)
    assert "state.yaml: already exists. Nothing was changed." in err
    assert FILES["state.yaml"] == Path("state.yaml").read_text()
    assert sorted(FILES) == sorted(os.listdir())


@pytest.mark.parametrize("number", [errno.EPERM, errno.EOPNOTSUPP])
def test_a_file_system_without_links_has_new_files_too(run: Run, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    def refuse(*_: Any) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "link", refuse)

    assert 0 == run("new", "new.yaml", "a=1").code
    assert "a: 1\n" == Path("new.yaml").read_text()
    assert 1 == run("new", "new.yaml", "a=2").code
    assert sorted([*FILES, "new.yaml"]) == sorted(os.listdir())


def test_a_file_that_is_created_is_not_denied(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the name that it had first cannot be removed."""

    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with monkeypatch.context() as patched:
        patched.setattr(os, "unlink", refuse)
        assert (0, "", "") == run("new", "other.yaml", "a=1")
    assert "a: 1\n" == Path("other.yaml").read_text()


def test_a_full_disk_leaves_no_new_file(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", refuse)

    code, out, err = run("new", "new.yaml", "a=1")

    assert (5, "") == (code, out)
    assert "could not be created: No space left on device. Nothing was changed." in err
    assert sorted(FILES) == sorted(os.listdir())


def test_of_several_that_begin_a_file_one_succeeds(folder: Path, tmp_path: Path) -> None:
    done = shell(
        "for n in 1 2 3 4 5 6; do (pstate new race.yaml by=$n 2>/dev/null && echo $n) & done; wait",
        folder, tmp_path / "bin",
    )  # fmt: skip

    (winner,) = done.stdout.split()
    assert f"by: {winner}\n" == (folder / "race.yaml").read_text()


# --------------------------------------------------------------------------------------------------------- did you mean


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["gte", "state.yaml"], "there is no command 'gte'. Nothing was done. Did you mean: pstate get"),
        (["rm", "state.yaml"], "Did you mean: pstate delete"),
        (["GET", "state.yaml"], "Did you mean: pstate get"),
        (["help", "chexk"], "Did you mean: pstate check"),
        (["state.yaml", "get"], "The command comes first: pstate get state.yaml"),
        (["xyzzy"], "Run: pstate --help"),
        (["get", "state.yaml", "coumter"], "coumter does not exist. Did you mean counter?"),
        (["get", "state.yaml", "Counter"], "Did you mean counter?"),
        (["get", "state.yaml", "jobs[0].naem"], "Did you mean jobs[0].name?"),
        (["get", "state.yaml", "xyzzy"], "xyzzy does not exist.\n"),
        (["set", "state.yaml", "job.x", "1"], "Did you mean jobs? Nothing was changed. To create"),
        (["get", "odd.yaml", "odd.80"], 'odd["80"] does not exist. Did you mean odd[80]?'),
        (["get", "odd.yaml", "odd[1.4]"], "Did you mean odd[1.5]?"),
        (["apply", "state.yaml"], "script:1: 'ste' is not a change. Did you mean set?"),
    ],
)
def test_what_was_meant_is_said(run: Run, words: list[str], said: str) -> None:
    odd()

    assert said in run(*words, stdin="ste x 1").err


@pytest.mark.parametrize("words", [["gte"], ["get", "state.yaml", "coumter"]])
def test_a_guess_needs_no_more_time_where_nothing_is_wrong(folder: Path, words: list[str]) -> None:
    import sys

    program = (
        "import sys; from pstate.cli import main\n"
        "main(['get', 'state.yaml', 'counter']); print('difflib' in sys.modules)\n"
        "main(sys.argv[1:]); print('difflib' in sys.modules)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, *words], cwd=folder, capture_output=True, text=True, check=True
    )

    assert ["3", "False", "True"] == done.stdout.split()


def test_other_words_complete_paths_too(folder: Path, tmp_path: Path) -> None:
    asked = """
        pstate complete get state.yaml counter jo
        pstate complete get state.yaml .co
        pstate complete mv state.yaml counter co
        pstate complete has state.yaml counter se
        pstate complete set state.yaml a=1 co
        pstate complete set state.yaml a co
        pstate complete keys state.yaml jobs co
        pstate complete pop state.yaml jobs --f
        pstate complete in
    """
    done = shell(asked, folder, tmp_path / "bin")

    found = ["jobs", ".counter", "counter", "seen", "counter", "--first", "insert", "incr", "init"]
    assert found == done.stdout.split()
