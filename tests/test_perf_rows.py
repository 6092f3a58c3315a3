"""The measurements on a server run, and judge promises; how fast it is does not concern the tests."""

from __future__ import annotations

from pathlib import Path

import pytest

from stress.real import postgres

pytest.importorskip("psycopg", reason="psycopg is not installed")

from perf import rows


def test_all_of_it_is_measured(
    postgres_server: postgres.Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In short: each part has its rows, and each promise is about one of them."""
    for name, value in (("CLIENTS", (2,)), ("OPENED", 20), ("CAUGHT_UP", 50)):
        monkeypatch.setattr(rows, name, value)
    connect = rows.module("psycopg").connect
    with connect(postgres_server.url, autocommit=True) as connection:
        connection.execute("CREATE TABLE bare (id int PRIMARY KEY, n bigint NOT NULL)")
        connection.execute("INSERT INTO bare VALUES (1, 0)")
    plan = rows.Plan(1, 4, 0.05)

    found = [part(postgres_server.url, plan) for part in (rows.one_client, rows.many_records, rows.several_clients)]

    assert [2, 1, 2] == [sum(row.is_kept is not None for row in part) for part in found]
    assert all(row.p10 for part in found for row in part if "missing" not in row.what)
    assert any("Redis" in row.what for row in found[0])
    document = tmp_path / "page.md"
    document.write_text(f"before\n{rows.BEGIN}\nold\n{rows.END}\nafter\n")
    monkeypatch.setattr(rows, "measured", lambda plan: [row for part in found for row in part])
    rows.main(["--quick", "--markdown", str(document)])
    assert "requests each" in document.read_text()
    assert "old" not in document.read_text()


@pytest.mark.parametrize(("is_kept", "code"), [(True, 0), (None, 0), (False, 1)])
def test_a_promise_that_was_not_kept_is_the_exit_code(
    is_kept: bool | None, code: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    row = rows.Row("a change", "1 µs", "2 µs", "3.00× bare", "at most 2.2×", is_kept)
    monkeypatch.setattr(rows, "measured", lambda plan: [row])
    monkeypatch.setattr(postgres, "binaries", lambda: Path("bin"))

    assert code == rows.main(["--quick", "--check"])
    assert rows.main(["--quick"]) == 0
    assert ("not reached: a change: at most 2.2×" in capsys.readouterr().err) is (code == 1)


def test_without_a_server_the_command_says_how_to_install_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(postgres, "binaries", lambda: None)

    with pytest.raises(SystemExit, match="apt install postgresql"):
        rows.main([])


def test_redis_without_a_server_is_left_out_with_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("redis", reason="redis is not installed")
    monkeypatch.setattr(rows, "redis_server", lambda: None)

    assert "apt install redis-server" in rows.missing_for_redis()
