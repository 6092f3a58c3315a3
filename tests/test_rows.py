"""States on a server: what is of it alone, beside what `engine/conformance.py` holds every engine to."""

from __future__ import annotations

import contextlib
import itertools
import logging
import multiprocessing
import os
import pickle
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from tools.crash import in_child
from tools.engines import opened, store_of

from pstate import (
    ConflictError,
    HistoryLost,
    InvalidStateError,
    LockTimeout,
    MissingPathError,
    PersistedState,
    PStateError,
    ReadOnlyError,
    ServerUnavailable,
    UnreadableError,
    WriteError,
)
from stress.real import postgres

psycopg = pytest.importorskip("psycopg", reason="psycopg is not installed")

from pstate.rows import address, log, server  # noqa: E402
from pstate.rows.link import Link  # noqa: E402
from pstate.rows.servers import Servers  # noqa: E402

# ---------------------------------------------------------------------------------------------------------- the address


@pytest.mark.parametrize(
    ("url", "server", "name", "shown"),
    [
        ("postgresql://h/d#jobs", "postgresql://h/d", "jobs", "postgresql://h/d#jobs"),
        ("postgres://u:p@h:5/d#a", "postgres://u:p@h:5/d", "a", "postgres://u@h:5/d#a"),
        ("postgresql:///?service=app#jobs", "postgresql:///?service=app", "jobs", "postgresql:///?service=app#jobs"),
        ("postgresql://h/d?a=1&password=p&b=2#x", "postgresql://h/d?a=1&password=p&b=2", "x", "postgresql://h/d?a=1&b=2#x"),
        ("postgresql://a,b:1/d#n/m", "postgresql://a,b:1/d", "n/m", "postgresql://a,b:1/d#n/m"),
        ("postgresql://u:p%23@h/d#x", "postgresql://u:p%23@h/d", "x", "postgresql://u@h/d#x"),
        ("postgresql://h/d#two%20words", "postgresql://h/d", "two words", "postgresql://h/d#two words"),
    ],
)  # fmt: skip
def test_an_address_is_a_server_and_a_name(url: str, server: str, name: str, shown: str) -> None:
    assert address.parse(url)[:3] == (server, name, shown)


@pytest.mark.parametrize(
    "url", ["postgresql://u:hunter2@h/d", "postgresql://u:hunter2@h/d#", "postgresql://u:hunter2@h/d#a%00"]
)
def test_an_address_without_a_name_is_refused_without_its_password(url: str) -> None:
    with pytest.raises(ValueError, match="names no state") as caught:
        PersistedState(url)
    assert "hunter2" not in str(caught.value)


def test_no_message_holds_a_password(postgres_server: postgres.Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "PATIENCE", 0.2)
    port = postgres_server.port
    urls = [
        f"postgresql://pstate:hunter2@127.0.0.1:{port}/no_such#x",
        f"postgresql://no_such:hunter2@127.0.0.1:{port}/postgres#x",
        "postgresql://pstate:hunter2@127.0.0.1:1/postgres#x",
        "postgresql://127.0.0.1:1/postgres?user=a&password=hunter2#x",
        f"postgresql://pstate:hunter2@127.0.0.1:{port}/postgres?no_such=1#x",
        f"postgresql://pstate:hunter2@127.0.0.1:{port}/postgres?sslmode=require#x",
    ]
    for each in urls:
        with pytest.raises(PStateError) as caught:
            PersistedState.open(each, lock_timeout=0.2)
        shown = repr(caught.value) + str(caught.value) + str(vars(caught.value))
        assert "hunter2" not in shown
        assert "Nothing was changed" in shown or "Nothing was opened" in shown


def test_a_state_and_its_repr_hold_no_password(postgres_server: postgres.Server, tmp_path: Path) -> None:
    secret = f"postgresql://pstate:hunter2@127.0.0.1:{postgres_server.port}/postgres#{tmp_path}"
    with PersistedState(secret, n=0) as state:
        assert store_of(state).path == secret.replace(":hunter2", "")
        assert "hunter2" not in repr(state) + repr(store_of(state).log)
        with PersistedState(secret) as second:
            assert store_of(second) is store_of(state)


# ---------------------------------------------------------------------------------------- processes, threads and forks


def test_a_name_is_never_part_of_a_statement(process: Any, url: str, sql: Any) -> None:
    """Nor is a value, also where statements are written out, as in a block."""
    hostile = "x'; DROP TABLE pstate.store; --$1 $2 \\' \" {} %s"
    state = process(url=f"{url}{quote(hostile)}")
    state[hostile] = hostile
    with state.transaction():
        state["l"] = [hostile]
    state.vacuum()
    assert process(url=f"{url}{quote(hostile)}").snapshot() == {hostile: hostile, "l": [hostile]}
    assert sql("SELECT name FROM pstate.store WHERE name = %s", url.partition("#")[2] + hostile)


def test_a_state_is_pickled_as_its_url(url: str) -> None:
    with PersistedState(url, n=1) as state:
        with pickle.loads(pickle.dumps(state)) as again:
            again.n += 1
        assert state.n == 2


def _add(url: str, number: int) -> None:
    with PersistedState(url) as state:
        for _ in range(number):
            with state.transaction():
                state.n += 1


def test_processes_lose_no_increment(url: str) -> None:
    with PersistedState(url, n=0) as state:
        context = multiprocessing.get_context("spawn")
        workers = [context.Process(target=_add, args=(url, 30)) for _ in range(3)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        assert [worker.exitcode for worker in workers] == [0, 0, 0]
        assert state.n == 90


@pytest.fixture
def shared(url: str) -> Iterator[PersistedState]:
    """The state as a program opens it, which a fork finds."""
    with PersistedState.open(url, lock_timeout=0) as state:
        yield state


def test_a_forked_child_has_a_session_of_its_own(shared: PersistedState) -> None:
    state: Any = shared
    state.n = 1

    def child() -> None:
        assert state.n == 1
        assert state._store.log.server.backend != session
        state.n = 2
        with state.transaction():
            state.n += 1

    session = state._store.log.server.backend
    assert in_child(child) == 0
    assert state._store.log.server.backend == session  # nobody has said good-bye for us
    assert state.n == 3
    state.n += 1
    assert state._store.log.server.session == 1


def test_a_child_that_is_forked_in_a_block_is_not_in_it(shared: PersistedState) -> None:
    state: Any = shared
    state.n = 1
    with state.transaction():
        state.n = 2

        def child() -> None:
            assert state.n == 1
            with pytest.raises(LockTimeout):
                state.n = 3

        assert in_child(child) == 0
        state.n += 1
    assert state.n == 3


def test_threads_of_one_process_share_a_session(process: Any) -> None:
    state, other = process(), process()
    state.update(n=0)

    def work() -> None:
        for _ in range(40):
            with state.transaction():
                state.n += 1
            assert state.n > 0

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert state.n == other.n == 160


def test_programs_that_begin_one_state_at_the_same_time_begin_it_once(
    postgres_server: postgres.Server, tmp_path: Path, sql: Any
) -> None:
    sql("DROP DATABASE IF EXISTS begun")
    sql("CREATE DATABASE begun")
    url = postgres_server.url.replace("/postgres", "/begun") + f"#{tmp_path}"
    errors: list[BaseException] = []

    def begin(number: int) -> None:
        try:
            with opened(Servers(number), url) as state:
                with state.transaction():
                    state.setdefault("n", 0)
                    state.n += 1
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=begin, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors
    with opened(Servers(9), url) as state:
        assert state.n == 8
    sql("DROP DATABASE begun WITH (FORCE)")


# ------------------------------------------------------------------------------------------------------ what is refused


def test_who_has_the_lock_is_named(process: Any) -> None:
    state, other = process(), process(lock_timeout=0.1)
    with state.transaction():
        state.n = 1
        with pytest.raises(LockTimeout, match=r"by pstate \S+:\d+ \S+ #\S+ \(user pstate, 127\.0\.0\.1\)") as caught:
            with other.transaction():
                pass
        assert f":{os.getpid()}" in str(caught.value.holder_name)
        assert caught.value.waited == pytest.approx(0.1, abs=2)


@pytest.fixture
def modest(url: str, sql: Any, process: Any) -> Iterator[str]:
    """The URL of a user who may change the state, and no more."""
    process().n = 1
    sql("CREATE ROLE modest LOGIN")
    sql("GRANT USAGE ON SCHEMA pstate TO modest")
    sql("GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA pstate TO modest")
    yield url.replace("//pstate@", "//modest@")
    sql("GRANT SELECT ON pg_stat_activity TO PUBLIC")
    sql("DROP OWNED BY modest")
    sql("DROP ROLE modest")


def test_another_user_is_told_what_the_server_shows_of_the_holder(process: Any, modest: str) -> None:
    """That is neither its host nor since when."""
    state, other = process(), process(url=modest, lock_timeout=0.1)
    with state.transaction():
        state.n = 2
        with pytest.raises(LockTimeout, match=r"held by pstate .*:\d+ .* \(user pstate\)\. Nothing was changed"):
            other.n = 3
    other.close()


def test_a_user_who_may_see_no_sessions_is_told_of_no_holder(process: Any, modest: str, sql: Any) -> None:
    sql("REVOKE SELECT ON pg_stat_activity FROM PUBLIC")
    state, other = process(), process(url=modest, lock_timeout=0.1)
    other.n = 2
    assert sql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'modest'")
    assert other.n == state.n == 2
    with state.transaction():
        state.n = 3
        with pytest.raises(LockTimeout, match=r"write lock, which is held\. Nothing was changed") as caught:
            other.n = 4
    assert caught.value.holder_name is None
    other.close()


@pytest.mark.parametrize("others", [False, True], ids=["nobody else commits", "another program commits"])
def test_a_block_that_outlives_its_lease_is_committed_or_conflicts(
    process: Any, sql: Any, monkeypatch: pytest.MonkeyPatch, others: bool
) -> None:
    """A machine that was cut off keeps the lock no longer, and overwrites nothing when it is back."""
    monkeypatch.setattr(server, "LEASE", 0.2)
    state, other = process(), process()
    state.n = 1
    with pytest.raises(ConflictError, match="keep blocks shorter") if others else contextlib.nullcontext():
        with state.transaction():
            state.n += 1
            backend = store_of(state).log.server.backend
            while sql("SELECT FROM pg_stat_activity WHERE pid = %s", backend):
                pass  # it sees nobody else, so it ends
            if others:
                other.n = 10
    assert state.n == other.n == (10 if others else 2)


def test_a_server_that_lets_no_session_end_another_is_used_all_the_same(process: Any, url: str, sql: Any) -> None:
    state = process()
    state.n = 1
    sql("REVOKE EXECUTE ON FUNCTION pg_terminate_backend FROM PUBLIC")
    sql("CREATE ROLE modest LOGIN")
    try:
        sql("GRANT USAGE ON SCHEMA pstate TO modest")
        sql("GRANT SELECT ON ALL TABLES IN SCHEMA pstate TO modest")
        reader = process(url=url.replace("//pstate@", "//modest@"), read_only=True)
        assert reader.n == 1
        assert sql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'modest'")
        assert reader.n == 1
        assert store_of(reader).log.server.session == 2
        reader.close()
    finally:
        sql("DROP OWNED BY modest")
        sql("DROP ROLE modest")
        sql("GRANT EXECUTE ON FUNCTION pg_terminate_backend TO PUBLIC")


def test_select_is_enough_to_read(process: Any, url: str, sql: Any) -> None:
    state = process()
    state.n = 1
    sql("DROP ROLE IF EXISTS reader")
    sql("CREATE ROLE reader LOGIN")
    theirs = url.replace("//pstate@", "//reader@")
    with pytest.raises(ReadOnlyError, match="does not allow"):
        opened(Servers(8), theirs)
    sql("GRANT USAGE ON SCHEMA pstate TO reader")
    sql("GRANT SELECT ON ALL TABLES IN SCHEMA pstate TO reader")
    reader = process(url=theirs, read_only=True)
    assert reader.n == 1
    state.n = 2
    assert reader.snapshot() == {"n": 2}
    with pytest.raises(ReadOnlyError, match="read_only"):
        reader.n = 3

    writer = process(url=theirs)  # which has not said so
    assert writer.n == 2
    for change in (lambda: setattr(writer, "n", 3), lambda: writer.transaction().__enter__()):
        with pytest.raises(ReadOnlyError, match="Nothing was changed"):
            change()
    assert writer.n == state.n == 2
    reader.close()
    writer.close()
    sql("DROP OWNED BY reader")
    sql("DROP ROLE reader")


def test_read_only_makes_no_tables(postgres_server: postgres.Server, sql: Any) -> None:
    sql("DROP DATABASE IF EXISTS empty")
    sql("CREATE DATABASE empty")
    url = postgres_server.url.replace("/postgres", "/empty") + "#x"
    with pytest.raises(MissingPathError, match="no tables"):
        opened(Servers(1), url, read_only=True)
    sql("DROP DATABASE empty WITH (FORCE)")


def test_a_database_that_cannot_keep_every_string_is_refused(postgres_server: postgres.Server, sql: Any) -> None:
    sql("DROP DATABASE IF EXISTS latin")
    sql("CREATE DATABASE latin ENCODING 'LATIN1' TEMPLATE template0 LOCALE 'C'")
    with pytest.raises(ServerUnavailable, match="LATIN1"):
        opened(Servers(1), postgres_server.url.replace("/postgres", "/latin") + "#x")
    sql("DROP DATABASE latin WITH (FORCE)")


def test_a_server_that_may_lose_commits_is_told_of(process: Any, url: str, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        process(url=url.replace("#", "?options=-c%20synchronous_commit%3Doff#"))
    assert "synchronous_commit is off" in caplog.text


def test_a_lock_for_files_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match="is for files"):
        PersistedState.open(url, locking="filelock")


def test_a_newer_format_is_refused(process: Any, url: str, sql: Any) -> None:
    process().n = 1
    sql("UPDATE pstate.store SET format = 2 WHERE name = %s", url.partition("#")[2])
    with pytest.raises(UnreadableError, match="newer pstate"):
        process()


@pytest.mark.parametrize(
    ("document", "says"),
    [
        ("a: !!python/object/apply:os._exit [1]\n", "python/object"),
        ("a: &a [x, x, x, x, x, x, x, x, x, x]\n"
         + "".join(f"{new}: &{new} [{', '.join([f'*{old}'] * 10)}]\n" for old, new in itertools.pairwise("abcdefgh")),
         "alias"),
    ],
    ids=["a Python tag", "an alias bomb"],
)  # fmt: skip
def test_a_hostile_document_is_refused(process: Any, url: str, sql: Any, document: str, says: str) -> None:
    process().n = 1
    sql("UPDATE pstate.snapshot SET document = %s WHERE store = (SELECT id FROM pstate.store WHERE name = %s)",
        document, url.partition("#")[2])  # fmt: skip
    with pytest.raises(InvalidStateError, match=says):
        process()


def test_a_missing_record_is_an_error(process: Any, url: str, sql: Any) -> None:
    state = process()
    for number in range(3):
        state.n = number
    sql("DELETE FROM pstate.record WHERE rev = 2 AND store = (SELECT id FROM pstate.store WHERE name = %s)",
        url.partition("#")[2])  # fmt: skip
    with pytest.raises(PStateError, match="records up to 3 are missing"):
        process()


# ----------------------------------------------------------------------------------------------- snapshots and history


def _count(sql: Any, url: str, table: str) -> int:
    ((count,),) = sql(
        f"SELECT count(*) FROM pstate.{table} WHERE store = (SELECT id FROM pstate.store WHERE name = %s)",
        url.partition("#")[2],
    )
    return int(count)


def test_a_snapshot_is_made_when_many_records_have_come(
    process: Any, url: str, sql: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log, "SNAPSHOT_RECORDS", 20)
    state, other = process(), process()
    for number in range(50):
        state.n = number
    assert _count(sql, url, "snapshot") == 3
    assert _count(sql, url, "record") == 51
    assert other.n == process().n == 49
    assert len(store_of(other).log.ledger.records) < 40  # it goes on from the snapshot of the other one


def test_a_snapshot_that_fails_fails_no_commit(
    process: Any, sql: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(log, "SNAPSHOT_RECORDS", 8)
    monkeypatch.setattr(log, "LARGEST", 5)
    state = process()
    for number in range(11):
        state.n = number
    assert state.n == 10
    assert caplog.text.count("snapshot could not be written") == 2
    with pytest.raises(WriteError, match="The state is as it was"):
        state.vacuum()
    state.n = 11
    assert process().n == 11


def test_records_are_kept_as_long_as_they_should(
    process: Any, url: str, sql: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "RETENTION", 0.0)
    state, other = process(), process()
    state.n = 0
    assert other.n == 0
    for _ in range(3):
        for _ in range(4):
            state.n += 1
        state.vacuum()
    assert _count(sql, url, "record") == 5
    assert _count(sql, url, "snapshot") == 2
    assert process().n == 12
    with other.watch("n") as watch:
        state.n = 13
        assert other.n == 13  # what it knew was forgotten, so it has read the state again
        assert [change.new for change in watch.poll()] == [13]


def test_comments_stay(process: Any) -> None:
    state, other = process(), process()
    state.n = 1
    store_of(state).save({"n": 1}, b"# ours\nn: 1  # the number\nl: []\n")
    other.n = 2
    other.vacuum()
    third = process()
    assert third.snapshot() == {"n": 2, "l": []}
    assert store_of(third).log.ledger.document == "# ours\nn: 2  # the number\nl: []\n"


def test_lost_history_is_told_once(process: Any, url: str, sql: Any, caplog: pytest.LogCaptureFixture) -> None:
    """As after a failover to a server that lagged behind, where others have committed since."""
    state, other = process(), process()
    for number in range(5):
        state.n = number
    assert other.n == 4
    name = url.partition("#")[2]
    for table in ("record", "snapshot"):
        sql(f"DELETE FROM pstate.{table} WHERE rev > 2 AND store = (SELECT id FROM pstate.store WHERE name = %s)", name)
    sql("UPDATE pstate.store s SET rev = 2, head = (SELECT token FROM pstate.record r WHERE r.store = s.id AND rev = 2)"
        " WHERE name = %s", name)  # fmt: skip
    theirs = process()
    for number in range(9):
        theirs.m = number

    for each in (state, other):
        with pytest.raises(HistoryLost, match="had acknowledged"):
            each.snapshot()
        assert each.snapshot() == {"n": 1, "m": 8}
    state.n = 7
    assert other.n == theirs.n == 7
    assert caplog.text.count("had acknowledged") == 2


def test_a_state_that_was_begun_anew_is_told_of(process: Any, url: str, sql: Any) -> None:
    state = process()
    state.n = 1
    sql("DELETE FROM pstate.store WHERE name = %s", url.partition("#")[2])
    with pytest.raises(MissingPathError, match="deleted on the server"):
        state.snapshot()
    process().m = 2
    with pytest.raises(HistoryLost, match="created again"):
        state.snapshot()
    assert state.snapshot() == {"m": 2}


def test_statements_are_not_prepared_where_sessions_are_shared(process: Any, caplog: pytest.LogCaptureFixture) -> None:
    """As behind a pooler, which has another session of the server for each statement."""
    state = process()
    for number in range(6):
        state.n = number
    link = store_of(state).log.server._link
    link.ask_all("DEALLOCATE ALL", float("inf"))
    with caplog.at_level(logging.INFO, "pstate"):
        for number in range(6):
            state.n = number
            assert state.n == number
    assert caplog.text.count("not prepared") == 1


def _increment(state: PersistedState) -> None:
    with state.transaction():
        state.n = state.get("n", 0) + 1


def _texts(state: PersistedState, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What is sent from now on as a simple query."""
    texts: list[str] = []
    ask_all = Link.ask_all

    def noting(self: Link, text: str, deadline: float) -> Any:
        texts.append(text)
        return ask_all(self, text, deadline)

    monkeypatch.setattr(Link, "ask_all", noting)
    return texts


def test_a_block_is_two_requests_whose_statements_the_server_remembers(
    process: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Planning them each time would take longer than carrying them out."""
    state = process()
    for _ in range(3):
        _increment(state)
    texts = _texts(state, monkeypatch)

    _increment(state)

    assert [text.count("EXECUTE") for text in texts] == [2, 1]
    assert "pstate." not in "".join(texts)
    assert state.n == 4


def test_a_session_that_a_pooler_chooses_is_not_asked_to_remember(
    process: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The number of the session is not the one that the pooler has told."""
    monkeypatch.setattr(Link, "backend", -1)
    state = process()
    texts = _texts(state, monkeypatch)
    for _ in range(4):
        _increment(state)
        state.n += 1
    link = store_of(state).log.server._link

    assert link.ask("SELECT count(*) FROM pg_prepared_statements", (), float("inf")) == [("0",)]
    assert "EXECUTE" not in "".join(texts)
    assert state.n == 8


def test_a_block_in_a_session_that_has_forgotten_its_statements_is_carried_out(process: Any) -> None:
    state = process()
    for _ in range(3):
        _increment(state)
    store_of(state).log.server._link.ask_all("DEALLOCATE ALL", float("inf"))

    _increment(state)

    assert state.n == 4


def test_a_name_means_one_statement_in_all_programs(process: Any) -> None:
    """A pooler may send two programs to one session, where one must not carry out what the other has prepared."""
    one, other = process(), process()
    for _ in range(3):
        one.get("n")  # the first statement that it prepares
    for _ in range(3):
        _increment(other)  # other statements first
    known = [
        dict(
            store_of(state).log.server._link.ask("SELECT name, statement FROM pg_prepared_statements", (), float("inf"))
        )
        for state in (one, other)
    ]

    names = known[0].keys() & known[1].keys()
    assert names
    assert [known[0][name] for name in names] == [known[1][name] for name in names]


def test_other_words_for_a_state_are_another_state_here(url: str) -> None:
    with PersistedState(url, n=0) as state:
        with PersistedState.open(url.replace("postgresql:", "postgres:"), lock_timeout=0.1) as other:
            assert store_of(other) is not store_of(state)
            with state.transaction():
                state.n = 1
                with pytest.raises(LockTimeout):
                    other.n = 2
            assert other.n == 1


def test_power_is_what_a_server_gives(process: Any) -> None:
    state = process(durability="power")
    state.n = 1
    with state.transaction():
        state.n += 1
    assert process().n == 2
