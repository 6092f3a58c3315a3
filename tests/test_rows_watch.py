"""Watches and histories of states on a server: woken by the server where that works, and complete where it does not."""

from __future__ import annotations

import asyncio
import logging
import os
import threading
import time
from typing import Any

import pytest
from tools.crash import in_child
from tools.engines import store_of
from tools.proxy import Proxy

from pstate import PersistedState, Watch
from stress.real import postgres

psycopg = pytest.importorskip("psycopg", reason="psycopg is not installed")

from pstate.rows import bell, server, statements  # noqa: E402
from pstate.rows.link import Link  # noqa: E402


@pytest.fixture
def requests(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Each statement that is sent from now on."""
    sent: list[str] = []
    for name in ("ask", "ask_all"):
        real = getattr(Link, name)

        def asked(link: Link, statement: str, *args: Any, real: Any = real) -> Any:
            sent.append(statement)
            return real(link, statement, *args)

        monkeypatch.setattr(Link, name, asked)
    return sent


def listened(watch: Watch) -> bell.Bell:
    """Wait until the server tells *watch* of commits."""
    found = watch._trail.bell
    assert isinstance(found, bell.Bell)
    watch.wait(0)
    assert found._link.is_up
    return found


def test_a_commit_of_another_program_wakes_a_watch(
    process: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "pstate")
    monkeypatch.setattr(bell, "LONGEST", 30.0)
    one, other = process(), process()
    with one.watch("n", timeout=60) as watch:
        listened(watch)
        for number in range(3):
            timer = threading.Timer(0.2, other.update, kwargs={"n": number})
            timer.start()
            began = time.monotonic()
            assert next(watch).new == number
            assert time.monotonic() - began < 20
            timer.join()
    assert [record.getMessage() for record in caplog.records if "watches" in record.getMessage()] == [
        f"{store_of(one).path}: the server tells watches of each commit"
    ]


def test_an_idle_watch_asks_about_once_a_second(process: Any, requests: list[str]) -> None:
    one = process()
    with one.watch(timeout=3) as watch:
        listened(watch)
        requests.clear()
        assert list(watch) == []
    assert 2 <= len(requests) <= 7


def test_a_writer_tells_nobody_where_nobody_watches(process: Any, url: str, sql: Any) -> None:
    one = process()
    one.n = 1
    name = url.partition("#")[2]
    ((is_watched,),) = sql("SELECT watched > now() FROM pstate.store WHERE name = %s", name)
    assert not is_watched
    with one.watch() as watch:
        listened(watch)
        ((is_watched,),) = sql("SELECT watched > now() FROM pstate.store WHERE name = %s", name)
        assert is_watched


def test_the_server_is_told_again_that_somebody_watches(
    process: Any, url: str, sql: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bell, "RENEWED", 0.0)
    one = process()
    name = url.partition("#")[2]
    with one.watch() as watch:
        listened(watch)
        sql("UPDATE pstate.store SET watched = now() WHERE name = %s", name)
        watch.wait(0)
        ((is_watched,),) = sql("SELECT watched > now() + interval '50 seconds' FROM pstate.store WHERE name = %s", name)
    assert is_watched


def test_a_block_of_another_program_is_not_waited_for(process: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    one, other = process(), process()
    with one.watch() as watch, other.transaction():
        other.n = 1
        found = listened(watch)
        assert found._next <= time.monotonic() + bell.LONGEST
    assert [change.new for change in one.watch(now=True).poll()] == [1]


def test_a_watch_of_a_reader_without_rights_asks_again_and_again(
    process: Any, url: str, sql: Any, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "pstate")
    one = process()
    one.n = 0
    for statement in (
        "DROP ROLE IF EXISTS watcher",
        "CREATE ROLE watcher LOGIN",
        "GRANT USAGE ON SCHEMA pstate TO watcher",
        "GRANT SELECT ON ALL TABLES IN SCHEMA pstate TO watcher",
    ):
        sql(statement)
    try:
        reader = process(url=url.replace("//pstate@", "//watcher@"), read_only=True)
        with reader.watch("n", timeout=60) as watch:
            watch.wait(0)
            for number in range(1, 4):
                one.n = number
                assert next(watch).new == number
        reader.close()
    finally:
        sql("DROP OWNED BY watcher")
        sql("DROP ROLE watcher")
    (told,) = [record.getMessage() for record in caplog.records if "watches" in record.getMessage()]
    assert "watches ask the server for changes every 50 ms, because" in told
    assert "permission denied" in told


def test_behind_a_pooler_a_watch_asks_again_and_again(
    process: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "pstate")
    monkeypatch.setattr(Link, "backend", property(lambda link: -1))
    one, other = process(), process()
    with one.watch("n", timeout=60) as watch:
        watch.wait(0)
        for number in range(3):
            other.n = number
            assert next(watch).new == number
    (told,) = [record.getMessage() for record in caplog.records if "watches" in record.getMessage()]
    assert "a pooler shares sessions" in told


def test_a_server_that_keeps_notifications_back_is_asked_again_and_again(
    process: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "pstate")
    monkeypatch.setattr(bell, "PATIENCE", 1.0)
    monkeypatch.setattr(Link, "_told", staticmethod(lambda conn, wanted: False))
    one, other = process(), process()
    with one.watch("n", timeout=60) as watch:
        watch.wait(0)
        other.n = 1
        assert next(watch).new == 1
    (told,) = [record.getMessage() for record in caplog.records if "watches" in record.getMessage()]
    assert "a notification that was sent has not arrived" in told


def test_a_watch_whose_session_is_lost_misses_nothing_and_listens_again(
    process: Any, postgres_server: postgres.Server, url: str
) -> None:
    proxy = Proxy(postgres_server.port)
    try:
        through = f"postgresql://pstate@127.0.0.1:{proxy.port}/postgres?sslmode=disable&gssencmode=disable"
        one, other = process(url=through + "#" + url.partition("#")[2]), process()
        with one.watch("n", timeout=60) as watch:
            for number in range(3):
                found = listened(watch)
                sessions = found._link.number
                proxy.cut()
                other.n = number
                assert next(watch).new == number
                while found._link.number == sessions:
                    found._next = 0.0
                    watch.wait(0.05)
        one.close()
    finally:
        proxy.close()


def test_an_asynchronous_watch_is_woken_too(process: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bell, "LONGEST", 30.0)
    one, other = process(), process()

    async def body() -> list[Any]:
        told = []
        with one.watch("n", timeout=60) as watch:
            listened(watch)
            commits = asyncio.create_task(asyncio.to_thread(_commit, other, 3))
            async for change in watch:
                told.append(change.new)
                if len(told) == 3:
                    break
            await commits
        return told

    began = time.monotonic()
    assert asyncio.run(body()) == [0, 1, 2]
    assert time.monotonic() - began < 25


def _commit(state: PersistedState, number: int) -> None:
    for each in range(number):
        state.n = each


def test_many_idle_asynchronous_watches_leave_threads_for_others(process: Any) -> None:
    one = process()

    async def body() -> int:
        watches = [one.watch(timeout=60) for _ in range(12)]
        waits = [asyncio.create_task(watch.__anext__()) for watch in watches]
        for watch in watches:
            while not watch._trail.bell._link.is_up:
                await asyncio.sleep(0.01)
        done = await asyncio.wait_for(asyncio.to_thread(lambda: 1), 20)
        for wait in waits:
            wait.cancel()
        await asyncio.gather(*waits, return_exceptions=True)
        for watch in watches:
            watch.close()
        return done

    assert asyncio.run(body()) == 1


def test_a_watch_leaves_no_session_and_no_thread(process: Any, sql: Any) -> None:
    one = process()
    ask = "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend'"
    ((before,),) = sql(ask)
    threads = threading.active_count()
    watch = one.watch()
    listened(watch)
    assert sql(ask) == [(before + 1,)]
    assert threading.active_count() == threads
    watch.close()
    end = time.monotonic() + 20
    while sql(ask) != [(before,)]:
        assert time.monotonic() < end
    again = one.watch()
    listened(again)
    one.close()
    while sql(ask) != [(before - 1,)]:
        assert time.monotonic() < end
    assert list(again) == []


def test_a_watch_that_is_closed_while_its_thread_asks_leaves_no_session(
    process: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The thread may be in a request that a cancelled task has left."""
    one, asks, goes_on = process(), threading.Event(), threading.Event()
    ask = Link.ask

    def slow(self: Link, statement: str, *others: Any) -> Any:
        if statement == statements.WATCHED:
            asks.set()
            assert goes_on.wait(20)
        return ask(self, statement, *others)

    watch = one.watch()
    found = watch._trail.bell
    monkeypatch.setattr(Link, "ask", slow)
    thread = threading.Thread(target=watch.wait)
    thread.start()
    assert asks.wait(20)
    watch.close()
    assert found._link.is_up  # which is not ended under a request
    goes_on.set()
    thread.join(20)
    assert not thread.is_alive()
    assert not found._link.is_up


def test_a_forked_child_listens_in_a_session_of_its_own(process: Any) -> None:
    one, other = process(), process()
    with one.watch("n", timeout=60) as watch:
        listened(watch)

        def child() -> None:
            listened(watch)
            assert next(watch).new == 1
            os.write(writing, b"x")

        reading, writing = os.pipe()
        other.n = 1
        assert in_child(child) == 0
        os.close(writing)
        assert os.read(reading, 1) == b"x"
        assert next(watch).new == 1
        other.n = 2
        assert next(watch).new == 2


def test_a_watch_of_a_state_that_may_be_behind_is_not(process: Any) -> None:
    one, other = process(fresh=600.0), process()
    with one.watch("n", timeout=60) as watch:
        for number in range(3):
            other.n = number
            assert next(watch).new == number


# The history


def test_the_history_goes_back_over_snapshots(process: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    one = process()
    for number in range(10):
        one.n = number
        if number % 3 == 0:
            one.vacuum()
    other = process(read_only=True)
    expected = [(number + 1, number) for number in range(10)]
    for state in (one, other):
        assert [(change.commit, change.new) for change in state.history("n")] == expected
        with state.watch("n", history=True) as watch:
            assert [(change.commit, change.new) for change in watch.poll()] == expected
            one.n = (value := 99 + len(expected))
            expected.append((expected[-1][0] + 1, value))
            assert [(change.commit, change.new) for change in watch.poll()] == expected[-1:]
    assert store_of(one).log.ledger.base > 0


def test_the_history_begins_with_the_last_edit(process: Any) -> None:
    one = process()
    one.n = 1
    one.n = 2
    assert store_of(one).save(one.snapshot(), b"n: 5  # by hand\n") == []
    one.n = 6
    one.vacuum()
    one.n = 7
    for state in (one, process()):
        assert [(change.commit, change.old, change.new) for change in state.history("n")] == [(4, 5, 6), (5, 6, 7)]
        with state.watch(history=True) as watch:
            assert [(change.commit, change.old, change.new) for change in watch.poll()] == [(4, 5, 6), (5, 6, 7)]


def test_records_that_are_forgotten_leave_no_gap(
    process: Any, url: str, sql: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A block has the time of its beginning, so a record may be older than the one before it."""
    one = process()
    name = url.partition("#")[2]
    for number in range(8):
        one.n = number
    ((store,),) = sql("SELECT id FROM pstate.store WHERE name = %s", name)
    sql("UPDATE pstate.record SET at = now() - interval '8 days' WHERE store = %s AND rev IN (0, 1, 3)", store)
    one.vacuum()
    one.n = 8
    one.vacuum()
    kept = [rev for (rev,) in sql("SELECT rev FROM pstate.record WHERE store = %s ORDER BY rev", store)]
    assert kept == list(range(2, 10))
    assert [change.new for change in one.history("n")] == [8]


def test_no_more_records_are_kept_than_the_limit(
    process: Any, url: str, sql: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "MOST", 3)
    one = process()
    for number in range(20):
        one.n = number
        one.vacuum()
    name = url.partition("#")[2]
    ((store,),) = sql("SELECT id FROM pstate.store WHERE name = %s", name)
    ((first, last, count),) = sql("SELECT min(rev), max(rev), count(*) FROM pstate.record WHERE store = %s", store)
    assert (first, last, count) == (17, 20, 4)
    assert one.n == 19
    assert [change.new for change in process().history("n")] == [17, 18, 19]
