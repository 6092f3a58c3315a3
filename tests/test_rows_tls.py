"""TLS and passwords: a state is used only on the server that was meant, and no message holds a secret."""

from __future__ import annotations

import logging
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from tools.engines import opened, store_of

from pstate import PersistedState, ServerUnavailable
from stress.real import postgres

psycopg = pytest.importorskip("psycopg", reason="psycopg is not installed")
from pstate.rows.servers import Servers  # noqa: E402

#: Not a word that a message could hold for another reason; some of it must be quoted in a URL.
SECRET = "hunter2 #:/@%"
QUOTED = "hunter2%20%23%3A%2F%40%25"


class Secured(NamedTuple):
    """A server that wants TLS, and the password of the user app."""

    server: postgres.Server
    folder: Path  #: ca.crt, which has signed the server's certificate, and other.crt, which has not

    def url(self, user: str = f"app:{QUOTED}", host: str = "localhost", **options: str) -> str:
        given = {"sslmode": "verify-full", "sslrootcert": str(self.folder / "ca.crt"), **options}
        query = "&".join(f"{key}={value}" for key, value in given.items() if value)
        at = f"{user}@" if user else ""
        return f"postgresql://{at}{host}:{self.server.port}/postgres?{query}#state"


def _openssl(folder: Path, *arguments: str) -> None:
    subprocess.run(["openssl", *arguments], cwd=folder, check=True, capture_output=True)


def _certificates(folder: Path) -> None:
    """Two authorities, one of which has signed server, and a key of a user that needs a password."""
    key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"]
    for name in ("ca", "other"):
        _openssl(folder, "req", "-x509", *key, "-keyout", f"{name}.key", "-out", f"{name}.crt", "-subj", f"/CN={name}")
    _openssl(
        folder, "req", "-x509", *key, "-keyout", "server.key", "-out", "server.crt", "-subj", "/CN=localhost",
        "-CA", "ca.crt", "-CAkey", "ca.key", "-addext", "subjectAltName=DNS:localhost",
        "-addext", "basicConstraints=critical,CA:FALSE",
    )  # fmt: skip
    _openssl(folder, "ec", "-in", "ca.key", "-aes256", "-passout", f"pass:{SECRET}", "-out", "closed.key")
    (folder / "closed.key").chmod(0o600)


@pytest.fixture(scope="module")
def secured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Secured]:
    if postgres.binaries() is None:
        pytest.skip(postgres.MISSING)
    if not shutil.which("openssl"):
        pytest.skip("openssl is not installed")
    folder = tmp_path_factory.mktemp("certificates")
    _certificates(folder)
    with postgres.running() as server:
        with psycopg.connect(server.url, autocommit=True) as connection:
            try:
                connection.execute("ALTER SYSTEM SET ssl = on")
            except psycopg.Error as error:
                pytest.skip(f"the server has no TLS: {error}")
            connection.execute("SET password_encryption = 'scram-sha-256'")
            connection.execute(psycopg.sql.SQL("CREATE ROLE app LOGIN PASSWORD {}").format(SECRET))
            connection.execute("GRANT CREATE ON DATABASE postgres TO app")
        for name in ("server.crt", "server.key"):
            server.write(name, (folder / name).read_text())
        server.write("pg_hba.conf", "hostssl all app all scram-sha-256\nhostnossl all pstate 127.0.0.1/32 trust\n")
        server.reload()
        secured = Secured(server, folder)
        opened(Servers(0), secured.url()).close()  # the tables are app's, in whatever order the tests run
        yield secured


@pytest.fixture
def states() -> Iterator[list[PersistedState]]:
    """What is in it is closed at the end."""
    states: list[PersistedState] = []
    yield states
    for state in states:
        state.close()


def _uses(states: list[PersistedState], url: str) -> None:
    """The state at *url* can be read and changed, and its session is encrypted."""
    states.append(opened(Servers(len(states)), url))
    state: Any = states[-1]
    before = state.get("n", 0)
    state.n = before + 1
    with state.transaction():
        state.n += 1
    assert state.n == before + 2
    link = store_of(state).log.server._link
    assert link.ask("SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()", (), float("inf")) == [("t",)]


def test_a_password_in_the_url(
    secured: Secured, states: list[PersistedState], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    _uses(states, secured.url())
    shown = repr(states) + str(states) + store_of(states[0]).path + repr(store_of(states[0]).log) + caplog.text
    assert "hunter2" not in shown


def test_a_password_in_a_file(
    secured: Secured, states: list[PersistedState], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    passwords = tmp_path / "passwords"
    escaped = SECRET.replace("\\", "\\\\").replace(":", "\\:")
    passwords.write_text(f"localhost:{secured.server.port}:postgres:app:{escaped}\n")
    passwords.chmod(0o600)
    _uses(states, secured.url("app", passfile=str(passwords)))
    monkeypatch.setenv("PGPASSFILE", str(passwords))
    _uses(states, secured.url("app"))


def test_a_password_in_the_environment(
    secured: Secured, states: list[PersistedState], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PGPASSWORD", SECRET)
    _uses(states, secured.url("app"))


def test_a_service_file(
    secured: Secured, states: list[PersistedState], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    services = tmp_path / "services"
    services.write_text(
        f"[app]\nhost=localhost\nport={secured.server.port}\nuser=app\npassword={SECRET}\ndbname=postgres\n"
        f"sslmode=verify-full\nsslrootcert={secured.folder / 'ca.crt'}\n"
    )
    monkeypatch.setenv("PGSERVICEFILE", str(services))
    _uses(states, "postgresql:///?service=app#state")
    with pytest.raises(ServerUnavailable, match='definition of service "none"') as caught:
        PersistedState("postgresql:///?service=none#state")
    assert "Nothing was changed" in str(caught.value)


@pytest.mark.parametrize(
    ("user", "host", "options", "says"),
    [
        ("app:hunter3", "localhost", {}, 'password authentication failed for user "app"'),
        ("app", "localhost", {}, "no password supplied"),
        (f"nobody:{QUOTED}", "localhost", {}, "no pg_hba.conf entry"),
        (f"app:{QUOTED}", "localhost", {"sslmode": "disable"}, "no encryption"),
        (f"app:{QUOTED}", "localhost", {"sslrootcert": "other.crt"}, "certificate verify failed"),
        (f"app:{QUOTED}", "localhost", {"sslrootcert": "none.crt"}, "none.crt"),
        (f"app:{QUOTED}", "127.0.0.1", {}, "does not match host name"),
        ("app", "localhost", {"password": "hunter3"}, "password authentication failed"),
        ("app", "localhost", {"sslcert": "ca.crt", "sslkey": "closed.key", "sslpassword": "hunter3"}, "closed.key"),
    ],
    ids=["wrong password", "no password", "not a user", "no TLS", "wrong authority", "no authority", "wrong host",
         "wrong password as an option", "wrong password of the key"],
)  # fmt: skip
def test_what_is_refused_is_one_clear_error_at_once(
    secured: Secured, user: str, host: str, options: dict[str, str], says: str, caplog: pytest.LogCaptureFixture
) -> None:
    """It would come again, so nobody waits for it. The time is far beyond that of the test."""
    caplog.set_level(logging.DEBUG)
    for name, value in options.items():
        if value.endswith((".crt", ".key")):
            options = {**options, name: str(secured.folder / value)}
    with pytest.raises(ServerUnavailable) as caught:
        PersistedState.open(secured.url(user, host, **options), defaults={"refused": 1}, lock_timeout=1000)
    message = str(caught.value)
    assert says in message
    assert message.endswith(". Nothing was changed. Correct the URL, or what it refers to.")
    assert message.count("Nothing was changed") == 1
    assert "\n" not in message
    shown = message + repr(caught.value) + str(vars(caught.value)) + str(caught.value.__context__) + caplog.text
    assert "hunter" not in shown
    with opened(Servers(9), f"{secured.server.url}?sslmode=disable#state") as state:
        assert "refused" not in state


def test_a_password_that_is_corrected(secured: Secured) -> None:
    """The URLs are the same without it, and what was opened first may still be in an exception that was caught."""
    wrong = secured.url("app:hunter3")
    with pytest.raises(ServerUnavailable) as caught:
        PersistedState(wrong)
    with PersistedState(secured.url(), n=0) as state:
        state.n += 1
        with PersistedState(secured.url()) as again:
            assert store_of(again) is store_of(state)
        with pytest.raises(ServerUnavailable):
            PersistedState(wrong)
    del caught


def test_a_password_that_is_changed_while_a_program_runs(secured: Secured, states: list[PersistedState]) -> None:
    """What the program knows opens no new session, so its state stays as it is, until the password is right again."""
    _uses(states, secured.url())
    (state,) = states
    before = state.n
    with psycopg.connect(secured.server.url, autocommit=True) as connection:
        connection.execute("ALTER ROLE app PASSWORD 'another'")
        connection.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'app'")
        for use in (lambda: state.n, lambda: setattr(state, "n", -1)):
            with pytest.raises(ServerUnavailable, match="password authentication failed") as caught:
                use()
            assert "hunter2" not in str(caught.value)
        connection.execute(psycopg.sql.SQL("ALTER ROLE app PASSWORD {}").format(SECRET))
        assert state.n == before
        state.n += 1
        assert state.n == before + 1
