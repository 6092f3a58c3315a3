"""Each command, in this process: what it prints, which exit code it has, and what is in the file afterwards."""

from __future__ import annotations

import errno
import gc
import io
import json
import os
import re
import sys
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from tools.cli import FILES, Run, holding, run

from pstate import PersistedState, speed
from pstate.cli import main, paths
from pstate.cli.table import EXIT_CODES, GROUPS, MODULES, command

__all__ = ["run"]


def state(file: str = "state.yaml") -> dict[Any, Any]:
    with PersistedState.open(file, read_only=True) as opened:
        return opened.snapshot()


# ------------------------------------------------------------------------------------------------------------------ get


@pytest.mark.parametrize(
    ("words", "printed"),
    [
        (["counter"], "3\n"),
        (["jobs[0].name"], "wash\n"),
        (["jobs.0.name"], "wash\n"),
        (["jobs[-1].name"], "dry\n"),
        (["jobs.-1.name"], "dry\n"),
        (['jobs[1]["tries"]'], "2\n"),
        (["jobs[0]['name']"], "wash\n"),
        (["jobs[0].name", "--yaml"], "wash\n"),
        (["jobs[0].name", "--json"], '"wash"\n'),
        (["--json", "seen"], '["a"]\n'),
        (["jobs"], "- name: wash\n  tries: 0\n- name: dry\n  tries: 2\n"),
        (["seen"], "!!set\n? a\n"),
        (['seen["a"]'], "a\n"),
        ([], FILES["state.yaml"]),
        (["."], FILES["state.yaml"]),
        (["-0", "jobs[0]"], "name\0tries\0"),
        (["-0", "counter"], "3\0"),
        (["nope", "--default", "none yet"], "none yet\n"),
        (["counter", "-d", "none yet"], "3\n"),
    ],
)
def test_get(run: Run, words: list[str], printed: str) -> None:
    assert (0, printed, "") == run("get", "state.yaml", *words)
    assert FILES["state.yaml"] == Path("state.yaml").read_text()


@pytest.mark.parametrize("path", ["nope", "jobs[2]", "jobs[-3]", "jobs.x", "counter.x", 'seen["b"]', "nope.deeper"])
def test_get_of_what_is_not_there_is_a_no(run: Run, path: str) -> None:
    code, out, err = run("get", "state.yaml", path)

    assert (1, "") == (code, out)
    assert err.startswith("pstate: state.yaml: ")
    assert " does not exist" in err


@pytest.mark.parametrize("path", ["", "a..b", "..a", "a.", "a[", "[0]x", "[x]", "[[1]]", '["a]', "a b", "[.nan]"])
def test_a_path_that_is_none_is_wrong_usage(run: Run, path: str) -> None:
    code, out, err = run("get", "state.yaml", path)

    assert (2, "") == (code, out)
    assert f"pstate: PATH {path!r}, character " in err


def test_values_that_json_has_no_word_for(run: Run) -> None:
    Path("odd.yaml").write_text(
        "d: 2026-11-23\nt: 2026-11-23 09:05:00+01:00\nb: !!binary YWJj\ni: .inf\ns: !!set {x, 2}\n1: one\nnull: none\n"
    )

    printed = json.loads(run("get", "odd.yaml", "--json").out)

    assert {
        "d": "2026-11-23",
        "t": "2026-11-23T09:05:00+01:00",
        "b": "YWJj",
        "i": None,
        "s": [2, "x"],
        "1": "one",
        "null": "none",
    } == printed


@pytest.mark.parametrize(
    "value", ["text", "yes", "", " x", "a\nb", "a\n", "\n", 'q"', "é", 1, True, None, 1e16, date(2026, 1, 2), [], {},
              [1, [2]], {"a": {1}}, set(), {"x"}, b"\0", {1: 2}, ["a\nb\n", {"k": "a\n  b"}]],
)  # fmt: skip
def test_what_yaml_prints_can_be_set_again(run: Run, value: Any) -> None:
    with PersistedState("values.yaml", value=value):
        pass
    printed = run("get", "values.yaml", "--yaml", "value").out

    assert 0 == run("set", "values.yaml", "copy", "-", stdin=printed).code
    found = state("values.yaml")
    assert found["value"] == found["copy"] == value
    assert type(found["copy"]) is type(value)


def test_files_are_read_and_written_without_the_collector(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a file of some megabytes, it would take a third of the time."""
    seen: list[bool] = []
    for name in ("open", "vacuum"):
        real = getattr(PersistedState, name)

        def noted(*given: Any, real: Any = real, **options: Any) -> Any:
            seen.append(gc.isenabled())
            return real(*given, **options)

        monkeypatch.setattr(PersistedState, name, noted)
    assert 0 == run("get", "state.yaml").code == run("set", "state.yaml", "counter", "4").code

    assert [False] * 3 == seen
    assert gc.isenabled()


def test_get_prints_utf8_whatever_the_locale_says(run: Run) -> None:
    run("set", "state.yaml", "name", "naïve 😀")

    assert "naïve 😀\n" == run("get", "state.yaml", "name").out


# -------------------------------------------------------------------------------------------------------------- changes


@pytest.mark.parametrize(
    ("words", "path", "value"),
    [
        (["set", "counter", "7"], "counter", 7),
        (["set", "counter", "yes"], "counter", True),
        (["set", "counter", "yes", "-s"], "counter", "yes"),
        (["set", "--string", "counter", ""], "counter", ""),
        (["set", "counter", "--", "-x"], "counter", "-x"),
        (["set", "counter", "-7"], "counter", -7),
        (["set", "jobs[-1]", "{a: [1, 2]}"], "jobs[1]", {"a": [1, 2]}),
        (["set", "jobs.0.tries", "5"], "jobs[0].tries", 5),
        (["set", "[2026-01-02]", "x"], "[2026-01-02]", "x"),
        (["set", "-p", "a.b.c", "1"], "a", {"b": {"c": 1}}),
        (["set", ".", "{only: this}"], ".", {"only": "this"}),
        (["append", "jobs", "1", "[2]"], "jobs[-2]", 1),
        (["append", "new", "1"], "new", [1]),
        (["add", "seen", "b", "1"], "seen", {"a", "b", 1}),
        (["add", "new", "x", "x"], "new", {"x"}),
        (["delete", "jobs[0]"], "jobs", [{"name": "dry", "tries": 2}]),
        (["delete", "jobs[0].tries"], "jobs[0]", {"name": "wash"}),
        (["delete", 'seen["a"]'], "seen", set()),
        (["set", "counter", "4", "--if-equals", "3"], "counter", 4),
        (["set", "new", "4", "--if-missing"], "new", 4),
        (["delete", "jobs", "--if-equals", "[{name: wash, tries: 0}, {name: dry, tries: 2}]"], "seen", {"a"}),
    ],
)
def test_a_change_is_made_and_leaves_a_plain_document(run: Run, words: list[str], path: str, value: Any) -> None:
    told = "pstate: yes is stored as true. To store the string: --string\n" if words[-1] == "yes" else ""

    assert (0, "", told) == run(words[0], "state.yaml", *words[1:])
    assert value == paths.find(state(), paths.parse(path), "state.yaml")
    assert "... # pstate" not in Path("state.yaml").read_text()


def test_incr_prints_the_new_number(run: Run) -> None:
    assert (0, "4\n", "") == run("incr", "state.yaml", "counter")
    assert (0, "2\n", "") == run("incr", "state.yaml", "counter", "-2")
    assert (0, "2.5\n", "") == run("incr", "state.yaml", "counter", "0.5")
    assert (0, "1\n", "") == run("incr", "state.yaml", "new")
    assert (0, "1\n", "") == run("incr", "state.yaml", "jobs[0].tries")
    assert {"counter": 2.5, "new": 1} == {key: state()[key] for key in ("counter", "new")}


@pytest.mark.parametrize(
    "words",
    [
        ["set", "counter", "4", "--if-equals", "2"],
        ["set", "counter", "4", "--if-equals", "3.0"],
        ["set", "new", "4", "--if-equals", "3"],
        ["set", "counter", "4", "--if-missing"],
        ["set", "jobs[2]", "x"],
        ["set", "a.b", "x"],
        ["set", 'seen["b"]', "x"],
        ["set", "counter.x", "1"],
        ["delete", "new"],
        ["delete", "jobs[7]"],
        ["delete", 'seen["b"]'],
        ["delete", "counter", "--if-equals", "4"],
        ["append", "counter", "x"],
        ["append", "jobs[5]", "x"],
        ["add", "jobs", "x"],
        ["incr", "jobs"],
        ["incr", "jobs[0].name"],
    ],
)
def test_a_no_changes_nothing_and_says_so(run: Run, words: list[str]) -> None:
    code, out, err = run(words[0], "state.yaml", *words[1:])

    assert (1, "") == (code, out)
    assert err.startswith("pstate: state.yaml: ")
    assert "Nothing was changed." in err
    assert FILES["state.yaml"] == Path("state.yaml").read_text()


@pytest.mark.parametrize(
    "words",
    [
        ["set", "counter", ""],
        ["set", "counter", "[1"],
        ["set", "counter", "--- 1\n--- 2"],
        ["set", "counter", "!!python/name:os.system"],
        ["set", "counter", "\udcff"],
        ["set", "counter", "\udcff", "-s"],
        ["set", "counter", "4", "--if-equals", "[1"],
        ["set", ".", "[1]"],
        ["set", "counter"],
        ["set", "counter", "4", "--if"],
        ["set", "counter", "4", "--lock-timeout", "soon"],
        ["set", "counter", "4", "--lock-timeout", "nan"],
        ["set", "counter", "4", "--lock-timeout", "-1"],
        ["delete", "."],
        ["add", "seen", "[1]"],
        ["incr", "counter", "x"],
        ["nonsense"],
        [],
    ],
)
def test_wrong_usage_changes_nothing(run: Run, words: list[str]) -> None:
    code, out, err = run(*words[:1], *(["state.yaml"] if words else []), *words[1:])

    assert (2, "") == (code, out)
    assert "pstate" in err
    assert FILES["state.yaml"] == Path("state.yaml").read_text()


def test_a_file_is_begun_by_a_change_but_not_by_a_look(run: Run) -> None:
    looks = (["get"], ["check"], ["log"], ["diff"], ["who"], ["vacuum"], ["keys"], ["type"], ["len"])
    for words in (*looks, ["has"], ["delete"], ["pop"]):
        path = ["x"] if words[0] in ("has", "delete", "pop") else []
        code = run(*words, "new.yaml", *path).code
        assert (1 if words == ["check"] else 3) == code, words
    assert 3 == run("set", "new.yaml", "x", "1", "--if-equals", "1").code
    assert not Path("new.yaml").exists()
    assert 0 == run("set", "new.yaml", "x", "1").code
    assert "x: 1\n" == Path("new.yaml").read_text()


@pytest.mark.parametrize(
    ("words", "script"),
    [
        (["set", "new.yaml", "a.b", "1"], ""),
        (["append", "new.yaml", "a[0]", "1"], ""),
        (["incr", "new.yaml", "a.b"], ""),
        (["apply", "new.yaml"], "set a 1\ndelete b\n"),
    ],
)
def test_a_change_that_is_refused_begins_no_file(run: Run, words: list[str], script: str) -> None:
    result = run(*words, stdin=script)

    assert (1, "") == result[:2]
    assert "Nothing was changed." in result.err
    assert not Path("new.yaml").exists()


def test_a_script_that_begins_a_file_is_carried_out_once(run: Run) -> None:
    assert (0, "1\n3\n", "") == run("apply", "new.yaml", stdin="append l a\nappend l b\nadd s x\nincr n\nincr n 2\n")
    assert {"l": ["a", "b"], "s": {"x"}, "n": 3} == state("new.yaml")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["set", "state.yaml", "a.b", "x"], "a does not exist. Nothing was changed. To create the"),
        (["set", "state.yaml", "counter.x", "1"], "counter is 3, which has no keys."),
        (["set", "state.yaml", 'seen["b"]', "x"], "A set takes members with: pstate add"),
        (["get", "state.yaml", "odd key"], "character 4: a key with ' ' in it needs brackets and quotes."),
        (["get", "state.yaml", "a..b"], "character 2: a key is missing here."),
        (["get", ""], "argument FILE: it is empty"),
        (["set", "", "a", "1"], "argument FILE: it is empty"),
        (["help", "nonsense"], "there is no command 'nonsense'. Nothing was done. Run: pstate --help"),
    ],
)
def test_a_no_says_what_to_do(run: Run, words: list[str], said: str) -> None:
    assert said in run(*words).err


def test_one_change_is_one_record(run: Run) -> None:
    with PersistedState("journal.yaml") as live:
        live.x = 1
        run("append", "journal.yaml", "log", "a", "b")
        run("set", "-p", "journal.yaml", "p.q.r", "1")
        records = Path("journal.yaml").read_text().count("\n--- ")

    assert 5 == records


# ---------------------------------------------------------------------------------------------------------------- apply


def test_apply_is_one_transaction(run: Run) -> None:
    script = """
        # what has been washed
        delete jobs[0]
        incr counter 2     # by two
        set text 'two
        lines' --string
        add seen b c
        append log "{at: 1}"
        incr counter
    """
    with PersistedState("state.yaml") as live:
        live.x = 1
        before = Path("state.yaml").read_text().count("\n--- ")

        assert (0, "5\n6\n", "") == run("apply", "state.yaml", stdin=script)
        assert 1 == Path("state.yaml").read_text().count("\n--- ") - before

    found = state()
    assert (6, "two\n        lines", {"a", "b", "c"}, [{"at": 1}]) == (
        found["counter"], found["text"], found["seen"], found["log"],
    )  # fmt: skip


@pytest.mark.parametrize(
    ("line", "code"),
    [
        ("set counter 9 --if-equals 8", 1),
        ("delete nope", 1),
        ("get counter", 2),
        ("set x", 2),
        ("set 'x 1", 2),
        ("add s [1]", 2),
    ],
)
def test_apply_changes_nothing_if_a_line_fails(run: Run, line: str, code: int) -> None:
    Path("script").write_text(f"set counter 1\n\n{line}\n")

    result = run("apply", "state.yaml", "script")

    assert (code, "") == result[:2]
    assert "pstate: script:3: " in result.err
    assert FILES["state.yaml"] == Path("state.yaml").read_text()


# ------------------------------------------------------------------------------------------------------ diff, log, who


def test_diff_by_path(run: Run) -> None:
    Path("other.yaml").write_text("counter: 3.0\njobs:\n  - name: wash\n    tries: 1\nseen: !!set {b}\nmore: {x: 1}\n")

    code, out, _ = run("diff", "state.yaml", "other.yaml")

    assert 1 == code
    assert [
        "~ counter: 3 -> 3.0",
        '- jobs[0]: {"name": "wash","tries": 0}',
        '- jobs[1]: {"name": "dry","tries": 2}',
        '+ jobs[0]: {"name": "wash","tries": 1}',
        "- seen.a",
        "+ seen.b",
        '+ more: {"x": 1}',
    ] == out.splitlines()
    assert (0, "", "") == run("diff", "state.yaml", "state.yaml")
    lines = [json.loads(line) for line in run("diff", "--json", "journal.yaml").out.splitlines()]
    assert {"path": "counter", "old": 3, "new": 4} == lines[0]


def test_log_shows_every_operation(run: Run) -> None:
    with PersistedState("ops.yaml", jobs=["a", "b", "c"], seen={1}) as live:
        live.jobs.insert(1, "x")
        live.jobs[0] = "A"
        live.jobs[1:3] = ["y"]
        live.jobs.sort(reverse=True)
        live.seen.add(2)
        live.seen.discard(1)
        del live["seen"]
        code, out, _ = run("log", "ops.yaml")
        filtered = run("log", "ops.yaml", "jobs[1]").out

    assert 0 == code
    assert [
        '   1 + jobs: ["a","b","c"]',
        "   1 + seen: !!set {1: null}",
        '   2 + jobs[1]: "x"',
        '   3 ~ jobs[0]: "a" -> "A"',
        '   4 - jobs[1]: "x"',
        '   4 - jobs[2]: "b"',
        '   4 + jobs[1]: "y"',
        '   5 ~ jobs: ["A","y","c"] -> ["y","c","A"]',
        "   6 + seen[2]",
        "   7 - seen[1]",
        "   8 - seen: !!set {2: null}",
    ] == out.splitlines()
    assert [
        '   1 + jobs[1]: "b"',
        '   2 ~ jobs[1]: "b" -> "x"',
        '   4 ~ jobs[1]: "x" -> "y"',
        '   5 ~ jobs[1]: "y" -> "c"',
    ] == filtered.splitlines()


def test_who_tells_programs_and_the_holder(run: Run) -> None:
    assert (1, "", "") == run("who", "state.yaml")
    with holding(Path("state.yaml")) as pid:
        code, out, _ = run("who", "state.yaml", "--json")
        timed_out = run("set", "state.yaml", "counter", "9", "--lock-timeout", "0.05")

    assert 0 == code
    (user,) = map(json.loads, out.splitlines())
    assert (pid, True, True, False) == (user["pid"], user["holds"], user["writes"], user["is_behind"])
    assert 4 == timed_out.code
    assert f"held by process {pid}" in timed_out.err


def test_vacuum_makes_a_plain_document(run: Run) -> None:
    assert (0, "", "") == run("vacuum", "journal.yaml")
    assert "counter: 4\nkey:\n  nested: 3\nlog:\n  - both, or neither\n" == Path("journal.yaml").read_text()


# ----------------------------------------------------------------------------------- what is wrong with files, and help


def test_a_file_that_is_no_state_is_named_with_its_line(run: Run) -> None:
    Path("bad.yaml").write_text("a: 1\nb: [\n")

    for words in (["get"], ["log"], ["diff"], ["edit"], ["vacuum"], ["set", "x", "1"]):
        code, out, err = run(words[0], "bad.yaml", *words[1:])
        assert (3, "") == (code, out), words
        assert err.startswith(f"pstate: {os.path.abspath('bad.yaml')}:3:1: not YAML"), words
        assert "Traceback" not in err
    assert "a: 1\nb: [\n" == Path("bad.yaml").read_text()


def test_what_cannot_be_written_has_a_code_of_its_own(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    from pstate.file.fs import SYSTEM

    monkeypatch.setattr(SYSTEM, "write", refuse)
    code, out, err = run("set", "state.yaml", "counter", "9")

    assert (5, "") == (code, out)
    assert "No space left on device" in err
    monkeypatch.undo()


def test_a_folder_is_no_file(run: Run, tmp_path: Path) -> None:
    assert 3 == run("get", str(tmp_path)).code
    assert 1 == run("check", str(tmp_path)).code


@pytest.mark.parametrize("name", MODULES)
def test_help_says_what_each_argument_means(run: Run, name: str) -> None:
    code, out, err = run(name, "--help")

    assert (0, "") == (code, err)
    assert command(name).details.splitlines()[0] in out
    assert "example:\n  $ " in out
    assert out == run("help", name).out


def test_the_overview_has_every_command_and_exit_code(run: Run) -> None:
    code, out, err = run("--help")

    assert (0, "") == (code, err)
    assert all(re.search(rf"(^|  ){name} +{re.escape(command(name).summary)}", out, re.M) for name in MODULES)
    assert all(meaning in out for meaning in EXIT_CODES.values())
    assert "pstate --version" in out


def test_the_overview_fits_a_screen(run: Run) -> None:
    out = run("--help").out

    assert 36 >= len(out.splitlines())
    assert 100 >= max(map(len, out.splitlines()))
    assert GROUPS.keys() <= MODULES.keys()
    assert [*GROUPS.values()] == re.findall(r"^(look|change|watch|mend|move|server|shell) ", out, re.M)


@pytest.mark.parametrize(("compiled", "flavour"), [(True, "compiled"), (False, "pure Python")])
def test_the_version_says_whether_the_compiled_part_is_in_use(
    run: Run, monkeypatch: pytest.MonkeyPatch, compiled: bool, flavour: str
) -> None:
    monkeypatch.setattr(speed, "compiled", compiled)

    assert (0, f"pstate 0.1.0 ({flavour})\n", "") == run("--version") == run("-V")


def test_what_is_no_good_state_has_the_same_code_whoever_asks(run: Run) -> None:
    Path("journal.yaml").write_text(FILES["journal.yaml"].replace("counter: 3", "counter: 2"))

    for words in (["get"], ["log"], ["diff"], ["vacuum"], ["incr", "counter"]):
        code, out, err = run(words[0], "journal.yaml", *words[1:])
        assert (3, "") == (code, out), words
        assert "with 2 commits below that line" in err


def test_a_table_is_drawn_for_a_person(monkeypatch: pytest.MonkeyPatch) -> None:
    from pstate.cli import show

    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setattr(sys, "stdout", Terminal())
    monkeypatch.setattr(sys, "stderr", Terminal())
    show.table(["PID", "PROGRAM"], [["1", "init [x]"]])

    assert ["PID  PROGRAM", "1    init [x]"] == [
        re.sub(r"\x1b\[[0-9;]*m", "", line).rstrip() for line in sys.stdout.getvalue().splitlines()
    ]


def test_colours_only_for_a_person_who_has_not_refused_them(monkeypatch: pytest.MonkeyPatch) -> None:
    from pstate.cli import show

    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    assert "\x1b[31mx\x1b[0m" == show.coloured("x", "red", Terminal())
    assert "x" == show.coloured("x", "red", io.StringIO())
    monkeypatch.setenv("NO_COLOR", "1")
    assert "x" == show.coloured("x", "red", Terminal())


def test_every_command_runs_without_rich(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("rich", "rich.console", "rich.table"):
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.setattr("pstate.cli.show.has_colours", lambda stream: True)
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)

    from pstate.cli import show

    show.table(["A", "B"], [["1", "2"]])
    assert 0 == main(["check", "state.yaml"])


@pytest.mark.parametrize(
    ("words", "value"),
    [
        (["set", "state.yaml", "x", "-s", "--", "--json"], "--json"),
        (["set", "-s", "--", "state.yaml", "x", "-0"], "-0"),
        (["append", "state.yaml", "x", "-s", "--", "-a", "--", "-b"], ["-a", "--", "-b"]),
        (["append", "state.yaml", "x", "a", "-s", "b"], ["a", "b"]),
        (["set", "state.yaml", "--if-missing", "x", "-.inf"], -float("inf")),
    ],
)
def test_what_begins_with_a_dash_can_be_a_value(run: Run, words: list[str], value: Any) -> None:
    code = run(*words).code
    if value == -float("inf"):
        assert 2 == code  # argparse takes it for an option
        assert 0 == run(*words[:-1], "--", words[-1]).code
    assert value == state()["x"]
