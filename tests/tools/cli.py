"""What the tests of the command line share: the files of docs/cli.md, a run in this process, one as a shell has it."""

from __future__ import annotations

import contextlib
import io
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple
from uuid import uuid4

import pytest

from pstate.cli import main
from stress.real import postgres

ROOT = Path(__file__).parent.parent.parent
PAGE = (ROOT / "docs" / "cli.md").read_text(encoding="utf-8")

#: The files that the page begins with, by name.
FILES: dict[str, str] = dict(re.findall(r"^```yaml\n# (\w+\.yaml)[^\n]*\n(.*?)^```$", PAGE, re.M | re.S))


class Result(NamedTuple):
    code: int
    out: str
    err: str


Run = Callable[..., Result]


def write_files(folder: Path) -> None:
    for name, content in FILES.items():
        (folder / name).write_text(content, encoding="utf-8")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """One with the files of the page."""
    folder = tmp_path / "work"
    folder.mkdir()
    write_files(folder)
    return folder


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs a command line in this process, in a folder with the files of the page."""
    write_files(tmp_path)
    monkeypatch.chdir(tmp_path)

    def run(*words: str, stdin: str = "") -> Result:
        monkeypatch.setattr(sys, "stdin", io.StringIO(stdin))
        code = main(words)
        return Result(code, *capsys.readouterr())

    return run


def environment(folder: Path) -> dict[str, str]:
    """One in which a shell finds `pstate`: a script in *folder*, as an installation would make it."""
    folder.mkdir(exist_ok=True)
    script = folder / "pstate"
    script.write_text(f"#!{sys.executable}\nimport sys\nfrom pstate.cli import main\nsys.exit(main())\n")
    script.chmod(0o755)
    kept = {name: value for name, value in os.environ.items() if name not in ("VISUAL", "EDITOR")}
    return {**kept, "PATH": f"{folder}:{os.environ['PATH']}"}


@pytest.fixture
def database(postgres_server: postgres.Server) -> Iterator[str]:
    """The URL of an empty database, which is gone afterwards."""
    psycopg = pytest.importorskip("psycopg", reason="psycopg is not installed")
    server, name = postgres_server.url.rpartition("/")[0], f"t{uuid4().hex}"
    with psycopg.connect(postgres_server.url, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}")
        yield f"{server}/{name}"
        connection.execute(f"DROP DATABASE {name} WITH (FORCE)")


def shell(script: str, folder: Path, tools: Path, timeout: float = 50, **more: str) -> subprocess.CompletedProcess[str]:
    """Run *script* by bash in *folder*; *more* is for its environment."""
    return subprocess.run(
        ["bash", "-c", script],
        cwd=folder,
        env={**environment(tools), **more},
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )


@contextlib.contextmanager
def holding(path: Path) -> Iterator[int]:
    """Another process that has the lock of *path*; gives its pid."""
    code = (
        "import sys; from pstate import PersistedState\n"
        "state = PersistedState(sys.argv[1])\n"
        "with state.transaction():\n"
        "    print('in', flush=True); sys.stdin.read()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        try:
            yield process.pid
        finally:
            process.communicate()
