"""The command line on states on a server: a URL in the place of FILE, and the commands for URLs alone."""

from __future__ import annotations

import json
import os
import socket
import sys
from pathlib import Path
from typing import Any

import pytest
from tools.cli import FILES, Run, database, run
from tools.proxy import Fault, Proxy

from pstate import PersistedState
from stress.real import postgres

psycopg = pytest.importorskip("psycopg", reason="psycopg is not installed")

from pstate.cli import session  # noqa: E402
from pstate.cli.servers import carry  # noqa: E402
from pstate.rows.server import PostgresServer  # noqa: E402

__all__ = ["database", "run"]

SECRET = "hunter2secret"
#: With a comment, and a layout that no program writes.
WRITTEN = "# how many\ncounter:    3\n\njobs: [a,   b]  # to do\n"
REFUSED = [
    ("repair", "{}"),
    ("resolve", "{}", "--both"),
    ("edit", "{}", "--lock"),
    ("diff", "{}"),
    ("set", "{}", "counter", "9", "--locking", "filelock"),
    ("vacuum", "{}", "--locking", "portalocker"),
    ("edit", "{}", "--locking", "filelock"),
    ("push", "state.yaml", "{}", "--force", "--locking", "filelock"),
    ("export", "{}", "{}", "--force"),
    ("import", "{}", "{}", "--merge"),
    ("push", "{}", "state.yaml"),
    ("pull", "state.yaml", "{}"),
    ("pull", "{}", "{}"),
]


@pytest.fixture
def jobs(run: Run, url: str) -> str:
    """The URL of a state with the document WRITTEN, at revision 0."""
    Path("written.yaml").write_text(WRITTEN)
    assert (0, "", "") == run("push", "written.yaml", url)
    return url


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that cannot be reached is not waited for."""
    monkeypatch.setattr("pstate.rows.server.PATIENCE", 0.2)
    monkeypatch.setattr("pstate.cli.session._PATIENCE", 0.0)


def content(url: str) -> Any:
    with PersistedState.open(url, read_only=True) as state:
        return state.snapshot()


def elsewhere(url: str) -> str:
    """The same state by another URL: this process then takes it for another one."""
    return url.replace("/postgres#", "/postgres?connect_timeout=20#")


def edit_with(code: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make $EDITOR a Python program, in which `path` is the copy and `text` what it says."""
    script = folder / "editor.py"
    script.write_text(f"import sys, os\npath = sys.argv[-1]\ntext = open(path).read()\n{code}\n")
    monkeypatch.setenv("EDITOR", f"'{sys.executable}' {script}")
    monkeypatch.delenv("VISUAL", raising=False)


# ---------------------------------------------------------------------------------------------------- reading, changing


def test_values_are_read_and_changed(run: Run, url: str) -> None:
    assert (0, "", "") == run("set", url, "color", "red")
    assert (0, "red\n", "") == run("get", url, "color")
    assert (0, "1\n", "") == run("incr", url, "uses")
    assert (0, "3\n", "") == run("incr", url, "uses", "2")
    assert (0, "", "") == run("set", url, "jobs=[a, b]", "limits={}")
    assert (0, "", "") == run("append", url, "jobs", "c")
    assert (0, "a\n", "") == run("pop", url, "jobs", "--first")
    assert (0, "", "") == run("delete", url, "color")
    assert {"uses": 3, "jobs": ["b", "c"], "limits": {}} == content(url)
    assert (0, "2\n", "") == run("len", url, "jobs")
    assert (0, "uses\njobs\nlimits\n", "") == run("keys", url)
    assert (0, "", "") == run("has", url, "jobs[1]")
    assert (1, "", "") == run("has", url, "color")


def test_a_place_that_does_not_exist_is_named(run: Run, jobs: str) -> None:
    code, out, err = run("get", jobs, "color")
    assert (1, "", f"pstate: {jobs}: color does not exist.\n") == (code, out, err)
    assert 1 == run("delete", jobs, "color").code


def test_conditions_and_scripts_are_one_commit(run: Run, jobs: str) -> None:
    assert 1 == run("set", jobs, "counter", "9", "--if-equals", "4").code
    assert 0 == run("set", jobs, "counter", "9", "--if-equals", "3").code
    assert 1 == run("apply", jobs, stdin="set counter 1\ndelete nothing\n").code
    assert 9 == content(jobs)["counter"]
    assert 0 == run("apply", jobs, stdin="set counter 1\nset other 2\n").code
    lines = run("log", jobs, "--json").out.splitlines()
    assert [1, 2] == [json.loads(line)["commit"] for line in lines]
    assert ["counter", "other"] == [change["path"] for change in json.loads(lines[1])["changes"]]


def test_the_log_has_each_commit_with_its_number(run: Run, jobs: str) -> None:
    run("incr", jobs, "counter")
    run("append", jobs, "jobs", "c")
    assert (0, '   1 ~ counter: 3 -> 4\n   2 + jobs[2]: "c"\n', "") == run("log", jobs)
    assert (0, "   1 ~ counter: 3 -> 4\n", "") == run("log", jobs, "counter")


def test_states_are_compared_with_states_and_files(run: Run, jobs: str) -> None:
    other = f"{jobs}-other"
    assert (0, "", "") == run("diff", jobs, "written.yaml")
    run("push", "written.yaml", other)
    run("incr", other, "counter")
    assert (1, "~ counter: 3 -> 4\n", "") == run("diff", jobs, other)
    assert (1, "~ counter: 4 -> 3\n", "") == run("diff", other, "written.yaml")
    assert (1, "~ counter: 3 -> 4\n", "") == run("diff", "written.yaml", other)


def test_a_watch_tells_the_present_and_gives_up(run: Run, jobs: str) -> None:
    code, out, _ = run("watch", jobs, "counter", "--now", "--count", "1", "--json")
    assert (0, 3) == (code, json.loads(out)["new"])
    code, out, err = run("watch", jobs, "counter", "--timeout", "0.1")
    assert (1, "", f"pstate: {jobs}: nothing has changed for 0.1 s.\n") == (code, out, err)


def test_the_command_of_a_watch_gets_the_url_without_its_password(run: Run, jobs: str, tmp_path: Path) -> None:
    secret = jobs.replace("pstate@", f"pstate:{SECRET}@")
    code = f"import json, os; json.dump(dict(os.environ), open({str(tmp_path / 'told')!r}, 'w'))"
    assert 0 == run("watch", secret, "counter", "--now", "--count", "1", "--", sys.executable, "-c", code).code
    told = json.loads((tmp_path / "told").read_text())
    assert jobs == told["PSTATE_FILE"]
    assert not [name for name, value in told.items() if SECRET in value]


def test_states_are_exported_and_imported(run: Run, jobs: str) -> None:
    assert (0, "", "") == run("export", jobs, "out.json")
    assert {"counter": 3, "jobs": ["a", "b"]} == json.loads(Path("out.json").read_text())
    assert (0, "a\nb\n", "") == run("get", jobs, "jobs[*]")

    other = f"{jobs}-other"
    code, out, _ = run("import", "out.json", other, "--dry-run")
    assert (0, True) == (code, "counter: 3" in out)
    assert 3 == run("get", other).code  # nothing was created
    assert (0, "", "") == run("import", "out.json", other)
    assert content(jobs) == content(other)
    assert 1 == run("import", "out.json", other).code  # it has the keys already
    assert (0, "", "") == run("import", "out.json", other, "--into", "copy")
    assert {**content(jobs), "copy": content(jobs)} == content(other)


def test_what_the_refusal_of_an_import_advises_works(run: Run, jobs: str) -> None:
    other = f"{jobs}-other"
    assert f"pstate get {jobs} --yaml | pstate import - {other} --from yaml" in run("import", jobs, other).err
    told = run("get", jobs, "--yaml").out
    assert (0, "", "") == run("import", "-", other, "--from", "yaml", stdin=told)
    assert content(jobs) == content(other)


def test_check_reports_on_the_state_and_the_settings_of_the_server(run: Run, jobs: str) -> None:
    run("incr", jobs, "counter")
    code, out, err = run("check", jobs, "written.yaml")
    assert (0, "") == (code, err)
    assert f"{jobs}: good, {len(WRITTEN)} bytes, 2 keys, revision 1, with 1 commits after the last snapshot\n" in out
    assert "  warning: fsync is off, so a power cut can damage the whole database.\n" in out  # in tests
    assert "written.yaml: good" in out
    assert 1 == run("check", jobs, "--strict").code

    found = json.loads(run("check", jobs, "--json").out)
    assert (jobs, True, 1, 2) == (found["file"], found["ok"], found["revision"], found["keys"])
    assert ["fsync"] == [finding["kind"] for finding in found["findings"]]


def test_check_finds_a_record_that_is_missing(run: Run, jobs: str, sql: Any) -> None:
    for _ in range(3):
        run("incr", jobs, "counter")
    name = jobs.partition("#")[2]
    sql("DELETE FROM pstate.record WHERE rev = 2 AND store = (SELECT id FROM pstate.store WHERE name = %s)", name)
    code, out, err = run("check", jobs)
    assert (1, "") == (code, err)
    assert f"{jobs}: cannot be used\n  error: " in out
    assert 3 == run("get", jobs, "counter").code


def test_who_tells_the_holder_by_host_user_and_program(run: Run, jobs: str) -> None:
    assert (1, "", "") == run("who", jobs)
    with PersistedState.open(jobs) as state:
        state.counter += 1
        [user] = map(json.loads, run("who", jobs, "--json").out.splitlines())
        assert (socket.gethostname()[:24], os.getpid(), "pstate", False) == (
            user["host"], user["pid"], user["user"], user["holds"],
        )  # fmt: skip
        with state.transaction():
            state.counter += 1
            code, out, _ = run("who", jobs)
    assert 0 == code
    assert ["HOST", "PID", "USER", "HAS", "IT", "OPEN", "PROGRAM"] == out.splitlines()[0].split()
    assert f" {os.getpid()} " in out
    assert "holds the lock" in out


def test_a_command_that_waits_too_long_for_the_lock_says_who_has_it(run: Run, jobs: str) -> None:
    with PersistedState.open(elsewhere(jobs)) as state, state.transaction():
        state.counter += 1
        code, out, err = run("apply", jobs, "--lock-timeout", "0", stdin="set counter 1\nset other 1\n")
        assert (4, "") == (code, out)
        assert f"held by pstate {socket.gethostname()[:24]}:{os.getpid()}" in err
        assert "--lock-timeout" in err


# ---------------------------------------------------------------------------------------------------- databases, states


def test_a_database_begins_by_init(run: Run, database: str) -> None:
    for words in (["list", database], ["who", f"{database}#a"]):
        code, out, err = run(*words)
        assert (3, "") == (code, out)
        assert err.endswith(f"To create them: pstate init {database}\n")
    assert 3 == run("get", f"{database}#a").code

    assert (0, "", "") == run("init", database)
    assert (1, "", "") == run("list", database)
    assert (0, "", "") == run("init", f"{database}#a")
    assert (0, "{}\n", "") == run("get", f"{database}#a")
    run("set", f"{database}#a", "color", "red")
    assert (0, "", "") == run("init", f"{database}#a")  # what exists stays as it is
    assert (0, "red\n", "") == run("get", f"{database}#a", "color")

    run("set", f"{database}#b/c", "x", "1")
    assert ["NAME", "a", "b/c"] == [line.split()[0] for line in run("list", database).out.splitlines()]
    told = [json.loads(line) for line in run("list", database, "--json").out.splitlines()]
    assert [("a", 1), ("b/c", 1)] == [(each["name"], each["revision"]) for each in told]
    assert told[0]["by"].endswith(f":{os.getpid()}")
    assert ["b/c"] == [json.loads(line)["name"] for line in run("list", f"{database}#b/c", "--json").out.splitlines()]


def test_the_sql_of_init_makes_tables_and_roles(run: Run, database: str) -> None:
    code, script, err = run("init", "--sql", "postgresql://no.such.host/database")  # it connects to no server
    assert (0, "") == (code, err)
    base = database.partition("@")[2]
    with psycopg.connect(database, autocommit=True) as connection:
        try:
            connection.execute(script)
            connection.execute("CREATE ROLE clerk LOGIN IN ROLE pstate_write")
            connection.execute("CREATE ROLE guest LOGIN IN ROLE pstate_read")
            clerk, guest = f"postgresql://clerk@{base}#a", f"postgresql://guest@{base}#a"
            assert (0, "", "") == run("set", clerk, "color", "red")
            for words in (["get", guest, "color"], ["log", guest], ["check", guest], ["pull", guest, "-"]):
                assert 0 == run(*words).code, words
            assert 0 == run("list", guest).code
            assert 1 == run("who", guest).code
            assert 1 == run("watch", guest, "--timeout", "0").code

            code, out, err = run("set", guest, "color", "blue")
            assert (5, "") == (code, out)
            assert "Nothing was changed" in err
            Path("new.yaml").write_text("color: blue\n")
            assert 5 == run("push", "new.yaml", guest, "--force").code
            assert 5 == run("init", guest.replace("#a", "#b")).code
            assert (0, "red\n", "") == run("get", clerk, "color")
            assert ["a"] == [json.loads(line)["name"] for line in run("list", guest, "--json").out.splitlines()]
        finally:
            for role in ("clerk", "guest", "pstate_write", "pstate_read"):
                if connection.execute("SELECT 1 FROM pg_roles WHERE rolname = %s", [role]).fetchone():
                    connection.execute(f"DROP OWNED BY {role}")
                    connection.execute(f"DROP ROLE {role}")


def test_a_state_that_does_not_exist_is_not_created_by_a_look(run: Run, jobs: str) -> None:
    missing = f"{jobs}-missing"
    looks = ["get", "keys", "log", "who", "vacuum"], ["watch", "--timeout", "0"], ["export", "--to", "json"]
    calls = [[word, missing] for word in looks[0]] + [[words[0], missing, *words[1:]] for words in looks[1:]]
    for words in [*calls, ["diff", missing, jobs], ["diff", jobs, missing], ["pull", missing, "x.yaml"]]:
        code, out, err = run(*words)
        assert (3, "") == (code, out), words
        assert f"{missing}: the state does not exist" in err
        assert "pstate set" in err
    code, out, _ = run("check", missing)
    assert 1 == code
    assert out.endswith(
        "error: the state does not exist. Nothing was changed. To create it, change it with pstate set.\n"
    )
    assert 3 == run("delete", missing, "x").code
    assert 1 == run("list", missing).code
    assert not Path("x.yaml").exists()


def test_a_url_without_a_name_is_refused_with_the_way_to_the_names(run: Run, url: str) -> None:
    server = url.partition("#")[0]
    for given in (server, f"{server}#"):
        code, out, err = run("get", given, "x")
        assert (2, "") == (code, out)
        assert f"as in {server}#jobs. To see the names: pstate list {server}" in err


# -------------------------------------------------------------------------------------------------------- pull and push


def test_a_state_goes_to_a_file_and_back_with_its_comments(run: Run, jobs: str) -> None:
    assert (0, "", "") == run("pull", jobs, "copy.yaml")
    assert WRITTEN == Path("copy.yaml").read_text()
    assert (0, WRITTEN, "") == run("pull", jobs, "-")
    assert jobs == json.loads(Path("copy.yaml.server").read_text())["url"]

    Path("copy.yaml").write_text(WRITTEN.replace("3", "4").replace("many", "often"))
    assert (0, "", "") == run("push", "copy.yaml", jobs)
    assert (0, WRITTEN.replace("3", "4").replace("many", "often"), "") == run("pull", jobs, "-")
    assert (0, "4\n", "") == run("get", jobs, "counter")
    assert (0, "", "") == run("push", "copy.yaml", jobs)  # once more: it is the newest


def test_pull_replaces_no_file_without_force(run: Run, jobs: str) -> None:
    before = Path("state.yaml").read_bytes()
    code, out, err = run("pull", jobs, "state.yaml")
    assert (1, "") == (code, out)
    assert "state.yaml: already exists. Nothing was" in err
    assert before == Path("state.yaml").read_bytes()
    assert not Path("state.yaml.server").exists()
    assert (0, "", "") == run("pull", jobs, "state.yaml", "--force")
    assert WRITTEN == Path("state.yaml").read_text()


def test_push_brings_the_journal_of_a_file_too(run: Run, url: str) -> None:
    assert (0, "", "") == run("push", "journal.yaml", url)
    assert (0, "", "") == run("diff", "journal.yaml", url)
    assert 4 == content(url)["counter"]
    assert FILES["journal.yaml"] == Path("journal.yaml").read_text()


def test_push_is_refused_when_another_has_changed_the_state(run: Run, jobs: str) -> None:
    run("incr", jobs, "counter")
    run("set", "written.yaml", "mine", "1")
    note = Path("written.yaml.server").read_text()
    code, out, err = run("push", "written.yaml", jobs)
    assert (1, "") == (code, out)
    assert "was made from revision 0, and the state is at revision 1 by now. Nothing was changed." in err
    assert f"pstate diff {jobs} written.yaml" in err
    assert note == Path("written.yaml.server").read_text()
    assert {"counter": 4, "jobs": ["a", "b"]} == content(jobs)

    assert (0, "", "") == run("push", "written.yaml", jobs, "--force")
    assert {"counter": 3, "jobs": ["a", "b"], "mine": 1} == content(jobs)
    run("set", "written.yaml", "mine", "2")
    assert (0, "", "") == run("push", "written.yaml", jobs)  # the note is that of the forced one


def test_push_needs_force_without_a_note(run: Run, jobs: str) -> None:
    os.remove("written.yaml.server")
    assert (0, "", "") == run("push", "written.yaml", jobs)  # the document is the same
    os.remove("written.yaml.server")
    run("set", "written.yaml", "counter", "7")
    code, out, err = run("push", "written.yaml", jobs)
    assert (1, "") == (code, out)
    assert "written.yaml.server does not exist" in err
    assert 3 == content(jobs)["counter"]
    assert (0, "", "") == run("push", "written.yaml", jobs, "--force")
    assert 7 == content(jobs)["counter"]


@pytest.mark.parametrize("note", ["", "{", "[]", "3", '{"url": "x"}', "\udcff"])
def test_a_note_that_somebody_has_changed_is_refused(run: Run, jobs: str, note: str) -> None:
    Path("written.yaml.server").write_text(note, errors="surrogateescape")
    run("set", "written.yaml", "counter", "7")
    code, out, err = run("push", "written.yaml", jobs)
    assert (2, "") == (code, out)
    assert "written.yaml.server: is not a note of pstate" in err
    assert 3 == content(jobs)["counter"]


def test_a_note_is_of_one_state_and_not_of_another_with_its_name(run: Run, jobs: str, sql: Any) -> None:
    other = f"{jobs}-other"
    run("set", other, "color", "red")
    run("set", "written.yaml", "counter", "7")
    assert "it was made from another state" in run("push", "written.yaml", other).err
    assert {"color": "red"} == content(other)

    sql("DELETE FROM pstate.store WHERE name = %s", jobs.partition("#")[2])
    assert (0, "", "") == run("init", jobs)
    assert 1 == run("push", "written.yaml", jobs).code
    assert {} == content(jobs)


def test_a_change_in_the_middle_of_a_push_is_found(run: Run, jobs: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The check and the commit are one step."""
    run("set", "written.yaml", "counter", "7")
    found_in, times = carry.found_in, []

    def found_and_changed(state: PersistedState) -> Any:
        found = found_in(state)
        if not times:
            times.append(1)
            with PersistedState.open(elsewhere(jobs)) as other:
                other.late = 1
        return found

    monkeypatch.setattr(carry, "found_in", found_and_changed)
    code, _, err = run("push", "written.yaml", jobs)
    assert (1, [1]) == (code, times)
    assert "the state is at revision 1 by now" in err
    assert {"counter": 3, "jobs": ["a", "b"], "late": 1} == content(jobs)


def test_a_push_of_what_is_no_state_changes_nothing(run: Run, jobs: str) -> None:
    Path("written.yaml").write_text("- a\n")
    assert 3 == run("push", "written.yaml", jobs, "--force").code
    assert 3 == run("push", "nothing.yaml", jobs, "--force").code
    assert 3 == content(jobs)["counter"]


# ----------------------------------------------------------------------------------------------------------------- edit


def test_an_edit_keeps_comments_and_what_others_commit(
    run: Run, jobs: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    edit_with(
        f"os.system(f'{{sys.executable}} -m pstate set \"{jobs}\" other 1')\n"
        "open(path, 'w').write(text.replace('3', '4').replace('many', 'often'))",
        tmp_path,
        monkeypatch,
    )
    assert (0, "", "") == run("edit", jobs)
    expected = WRITTEN.replace("3", "4").replace("many", "often") + "other: 1\n"
    assert (0, expected, "") == run("pull", jobs, "-")


def test_an_edit_begins_a_state_or_leaves_it(
    run: Run, url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    edit_with("", tmp_path, monkeypatch)
    code, _, err = run("edit", url)
    assert (0, f"pstate: nothing was written, so {url} was not created.\n") == (code, err)
    assert 3 == run("get", url).code
    edit_with("open(path, 'w').write('# mine\\nx: 1\\n')", tmp_path, monkeypatch)
    assert (0, "", "") == run("edit", url)
    assert (0, "# mine\nx: 1\n", "") == run("pull", url, "-")


# ------------------------------------------------------------------------------------------------------------- refusals


@pytest.mark.parametrize("words", REFUSED, ids=" ".join)
def test_what_is_for_files_refuses_a_url(
    run: Run, jobs: str, words: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EDITOR", "sed -i s/3/4/")
    monkeypatch.delenv("VISUAL", raising=False)
    before = {name: Path(name).read_bytes() for name in os.listdir() if os.path.isfile(name)}
    secret = jobs.replace("pstate@", f"pstate:{SECRET}@")
    code, out, err = run(*(word.format(secret) for word in words))
    assert (2, "") == (code, out)
    assert "Nothing was" in err
    assert SECRET not in err
    assert (0, WRITTEN, "") == run("pull", jobs, "-")
    assert (0, "", "") == run("log", jobs)
    assert before == {name: Path(name).read_bytes() for name in os.listdir() if os.path.isfile(name)}


@pytest.mark.parametrize("given", [f"redis://u:{SECRET}@h/d#a", f"mysql://u:{SECRET}@h/d"])
def test_the_url_of_something_else_is_not_taken_for_a_file(run: Run, given: str) -> None:
    for words in (["get", given], ["set", given, "x", "1"], ["list", given], ["push", "state.yaml", given]):
        code, out, err = run(*words)
        assert (2, "") == (code, out), words
        assert f"{given.partition(':')[0]}://... is" in err
        assert SECRET not in err
    assert sorted(FILES) == sorted(os.listdir())


# ------------------------------------------------------------------------------------------------------------ passwords


@pytest.mark.parametrize("form", ["user", "query", "encoded"])
def test_no_message_and_no_file_holds_the_password(run: Run, jobs: str, form: str) -> None:
    server, _, name = jobs.partition("#")
    if form == "query":
        base = f"{server}?password={SECRET}"
    else:
        base = server.replace("pstate@", f"pstate:{SECRET + ('%25' if form == 'encoded' else '')}@")
    secret = f"{base}#{name}"
    calls: list[tuple[str, ...]] = [
        ("get", secret), ("get", secret, "nothing"), ("get", secret, secret), ("get", secret, f"a[{secret}"),
        ("set", secret, "x", "1"), ("set", secret, "x", ":"), ("set", base, "x", "1"), ("incr", secret, "jobs"),
        ("log", secret), ("check", secret), ("check", secret, "--json"), ("who", secret), ("list", base),
        ("list", secret),
        ("init", secret), ("init", base), ("pull", secret, "copy.yaml"), ("pull", secret, "copy.yaml"),
        ("push", "copy.yaml", secret), ("push", "state.yaml", secret), ("diff", secret), ("diff", secret, "state.yaml"),
        ("export", secret), ("import", "state.yaml", secret), ("watch", secret, "--timeout", "0"), ("new", secret),
        ("vacuum", secret), ("apply", secret, "nofile"), (secret, "get"), ("help", secret), ("get", "--", secret, "x"),
        ("get", secret, "--nothing"), ("delete", f"{secret}-missing", "x"), ("view", secret),
        ("move", secret, "x", secret),
    ]  # fmt: skip
    for words in calls:
        code, out, err = run(*words)
        assert code in range(6)
        assert SECRET not in out + err, words
    for name in os.listdir():
        assert os.path.isdir(name) or SECRET not in Path(name).read_text()
    assert Path("copy.yaml.server").exists()


def test_the_password_is_what_the_server_gets(run: Run, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """So it is left out of what is shown, and not of what is used."""
    given = list[Any]()
    monkeypatch.setattr(session.PersistedState, "open", lambda address, **_: given.append(address) or 1 / 0)
    secret = url.replace("pstate@", f"pstate:{SECRET}@")
    with pytest.raises(ZeroDivisionError):
        run("get", secret, "x")
    assert [secret] == given


# ------------------------------------------------------------------------------------------- servers that do not answer


@pytest.mark.usefixtures("impatient")
def test_a_server_that_cannot_be_reached_is_told(run: Run) -> None:
    base = f"postgresql://pstate:{SECRET}@127.0.0.1:{postgres.free_port()}/postgres"
    shown, secret = base.replace(f":{SECRET}", ""), f"{base}#a"
    short = "--lock-timeout", "0"
    looks = (
        ("get", secret),
        ("list", base),
        ("who", secret),
        ("log", secret),
        ("pull", secret, "x.yaml"),
        ("init", base),
    )
    writes = ("set", secret, "x", "1", *short), ("edit", secret, *short), ("push", "state.yaml", secret, *short)
    for words in (*looks, *writes, ("watch", secret, "--timeout", "0")):
        code, out, err = run(*words)
        assert (3, "") == (code, out), words
        assert err.startswith(f"pstate: {shown}")
        assert "the server cannot be used" in err
        assert "Nothing was changed. Try again when it can be reached" in err
        assert "lock_timeout" not in err
        assert SECRET not in err
    code, out, _ = run("check", secret)
    assert 1 == code
    assert "lock_timeout" not in out
    assert sorted(FILES) == sorted(os.listdir())


def test_a_database_or_a_user_that_does_not_exist_is_not_waited_for(run: Run, url: str) -> None:
    server, _, name = url.partition("#")
    for given in (server.replace("/postgres", "/nothing"), server.replace("pstate@", f"nobody:{SECRET}@")):
        for words in (["list", given], ["get", f"{given}#{name}"], ["set", f"{given}#{name}", "x", "1"]):
            code, out, err = run(*words)
            assert (3, "") == (code, out)
            assert "does not exist. Nothing was changed. Correct the URL" in err
            assert SECRET not in err


@pytest.mark.usefixtures("impatient")
def test_exit_code_6_says_that_a_commit_is_done_or_not(
    run: Run, jobs: str, postgres_server: postgres.Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    proxy = Proxy(postgres_server.port)
    try:
        far = jobs.replace(f":{postgres_server.port}/", f":{proxy.port}/")

        commit = PostgresServer.commit_locked

        def lost(server: PostgresServer, *arguments: Any) -> bool:
            proxy.fault, proxy.is_up = Fault(None, answered=0), False
            return commit(server, *arguments)

        monkeypatch.setattr(PostgresServer, "commit_locked", lost)
        code, out, err = run("set", far, "counter", "9", "--lock-timeout", "0")
        assert (6, "") == (code, out)
        assert "committed, or not. Look at the state before you repeat the command" in err
        assert 9 == content(jobs)["counter"]  # it is done: only the answer was lost
    finally:
        proxy.close()
