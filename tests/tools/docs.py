"""Follows a page of the documentation as a new user would: in an empty folder, with one shell, from top to bottom.

What the runner does with a block of code, by what follows its fence:

====================  ==================================================================================================
``python``            is executed, all of a page in one namespace
``LANGUAGE title=""`` is saved as the file of that name, which a later block must name
``console``           is typed into the shell, a line after each ``$``; what it prints must be what is shown
``sql``               is executed in the database of the page; it prints rows, with `` | `` between the columns
``text``              must be what the last ``python`` or ``sql`` printed
====================  ==================================================================================================

A comment in the line before says otherwise: ``<!-- the file now -->``, that the file of that name must be what is
shown; ``<!-- not run: REASON -->``, that nobody can do this here; ``<!-- used by PROGRAM -->``, that no later block
needs to name the file. Any other block is an error, so that none is forgotten. In what is compared, a line ``...``
stands for any lines, the same at the end of a line for any characters, ``$PWD`` for the folder, and eight hexadecimal
digits for any others: generations and checksums are drawn at random.

The examples name a server that does not exist, `HOST`, with a database `app`. The environment of libpq leads that name
to the server of the tests (`served`), so URLs and messages stay as they are printed.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from itertools import takewhile
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from sybil import Document, Example, Region, Sybil
from sybil.parsers.markdown.lexers import RawFencedCodeBlockLexer

from stress.real import postgres
from tools.cli import environment

ROOT = Path(__file__).parent.parent.parent

#: What is followed so. The other documents have tests of their own, and their Python is executed by test_readme.py.
PAGES = [
    ROOT / "docs" / "tutorial.md",
    ROOT / "docs" / "concepts.md",
    ROOT / "docs" / "types.md",
    ROOT / "docs" / "async.md",
    *sorted((ROOT / "docs" / "howto").glob("*.md")),
    ROOT / "docs" / "howto-damage.md",
    ROOT / "docs" / "import.md",
    ROOT / "docs" / "testing.md",
]

#: The server of the examples.
HOST = "db.example"

_blocks = RawFencedCodeBlockLexer(re.compile(r"(?P<info>[^\n]*)\n"))
_CAPTION = re.compile(r"<!-- (?P<text>[^\n]*) -->\n\Z")
_TITLED = re.compile(r'\w+ title="(?P<name>[\w./-]+)"')
_KILLED = re.compile(r"^.*: line \d+: +\d+ Killed.*$", re.M)
_MARK = "\x01"


class Shell:
    """One bash for a page, so that what one line does the next one sees."""

    def __init__(self, folder: Path, tools: Path) -> None:
        self.folder = folder
        self.step = tools / "step"
        variables = environment(tools)
        python = tools / "python"
        python.write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
        python.chmod(0o755)
        self.process = subprocess.Popen(
            ["bash"],
            cwd=folder,
            env=variables,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def run(self, command: str) -> str:
        """What *command* prints; bash says in more words than in a terminal who was killed."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.step.write_text(command, encoding="utf-8")
        self.process.stdin.write(f"source {self.step} </dev/null; printf '{_MARK}\\n'\n")
        self.process.stdin.flush()
        printed = ""
        for line in self.process.stdout:
            text, mark, _ = line.partition(_MARK)
            printed += text
            if mark:
                return _KILLED.sub("Killed", printed)
        raise AssertionError(f"the shell has ended in: {command}{printed}")

    def end(self) -> None:
        self.process.communicate()


@contextlib.contextmanager
def served(request: pytest.FixtureRequest) -> Iterator[None]:
    """Let `HOST` be the server of the tests, with an empty database `app`. Skips the test where there is no server."""
    psycopg = pytest.importorskip("psycopg", reason="psycopg is not installed")
    server: postgres.Server = request.getfixturevalue("postgres_server")
    variables = {"PGHOSTADDR": "127.0.0.1", "PGPORT": str(server.port), "PGUSER": "pstate"}
    with psycopg.connect(server.url, autocommit=True) as connection:

        def roles() -> set[str]:
            return {name for (name,) in connection.execute("SELECT rolname FROM pg_roles")}

        before = roles()
        connection.execute("CREATE DATABASE app")
        try:
            with mock.patch.dict(os.environ, variables):
                yield
        finally:
            connection.execute("DROP DATABASE app WITH (FORCE)")
            for name in roles() - before:
                connection.execute(psycopg.sql.SQL("DROP ROLE {}").format(psycopg.sql.Identifier(name)))


class Runner:
    """What has come of a page so far."""

    def __init__(self, folder: Path, tools: Path) -> None:
        self.folder = folder
        self.shell = Shell(folder, tools)
        self.printed = ""
        self.blocks = 0
        self.unused: dict[str, str] = {}  #: files that no later block has named, and where each is on the page

    def parse(self, document: Document) -> Iterator[Region]:
        for region in _blocks(document):
            region.evaluator = self.evaluate
            yield region

    def evaluate(self, example: Example) -> None:
        self.blocks += 1
        info, source = example.region.lexemes["info"], str(example.region.lexemes["source"])
        found = _CAPTION.search(example.document.text[: example.start])
        caption = found["text"] if found else ""
        where = f"{example.path}:{example.line}"
        titled = _TITLED.fullmatch(info)
        if caption.startswith("not run: "):
            return
        self.unused = {name: place for name, place in self.unused.items() if name not in source}
        if titled and caption == "the file now":
            self.compare(source, (self.folder / titled["name"]).read_text(encoding="utf-8"), where)
        elif titled:
            (self.folder / titled["name"]).write_text(source, encoding="utf-8")
            if not caption.startswith("used by "):
                self.unused[titled["name"]] = where
        elif info == "console":
            self.compare(source, self.transcript(source), where)
        elif info == "python":
            self.execute(source, example.namespace, where)
        elif info == "sql":
            self.ask(source)
        elif info == "text":
            self.compare(source, self.printed, where)
        else:
            raise AssertionError(f"{where}: no rule says what to do with a block of {info or 'nothing'}")

    def execute(self, source: str, namespace: dict[str, Any], where: str) -> None:
        output = io.StringIO()
        with contextlib.redirect_stdout(output), contextlib.chdir(self.folder):
            exec(compile(source, where, "exec"), namespace)
        self.printed = output.getvalue()

    def ask(self, source: str) -> None:
        import psycopg

        self.printed = ""
        with psycopg.connect(f"postgresql://{HOST}/app", autocommit=True) as connection:
            cursor = connection.execute(source.encode())
            if cursor.description:
                self.printed = "".join(" | ".join(map(str, row)) + "\n" for row in cursor)

    def transcript(self, source: str) -> str:
        """What a terminal would show of the commands of *source*; one that goes on has ``> `` before its next lines."""
        done = ""
        lines = source.splitlines(keepends=True)
        for number, line in enumerate(lines):
            if not line.startswith("$ "):
                continue
            more = list(takewhile(lambda following: following.startswith("> "), lines[number + 1 :]))
            done += line + "".join(more)
            done += self.shell.run(line[2:] + "".join(following[2:] for following in more))
        return done

    def compare(self, shown: str, found: str, where: str) -> None:
        pattern = "".join(map(_pattern, self.general(shown).splitlines(keepends=True)))
        assert re.fullmatch(pattern, self.general(found)), f"{where}: shown:\n{shown}\nfound:\n{found}"

    def general(self, text: str) -> str:
        """*text* without what is different every time."""
        text = text.replace("$PWD", str(self.folder))
        return re.sub(r"\b[0-9a-f]{8}\b", "xxxxxxxx", text if text.endswith("\n") or not text else f"{text}\n")


def _pattern(line: str) -> str:
    if line == "...\n":
        return "(?:.*\n)*?"
    return re.escape(line.removesuffix("...\n")) + ".*\n" if line.endswith(" ...\n") else re.escape(line)


def follow(page: Path, tmp_path: Path, request: pytest.FixtureRequest) -> int:
    """Do what *page* says; returns how many blocks it has. Skips the test if the page needs a server, and none is."""
    is_served = HOST in page.read_text(encoding="utf-8")
    with served(request) if is_served else contextlib.nullcontext():
        return _follow(page, tmp_path)


def _follow(page: Path, tmp_path: Path) -> int:
    folder = tmp_path / "work"
    folder.mkdir()
    runner = Runner(folder, tmp_path / "bin")
    document = Sybil(parsers=[runner.parse]).parse(page)
    try:
        for example in document.examples():
            example.evaluate()
        assert not runner.unused, f"{runner.unused}: no later block uses the file"
    finally:
        document.namespace.clear()  # dropping the last reference closes
        runner.shell.end()
    return runner.blocks
