"""`pstate init`: the tables of a database, and a state in it."""

from __future__ import annotations

from typing import Any

from pstate.cli import session, show
from pstate.cli.command import Command, Parser, url


def _declare(parser: Parser) -> None:
    parser.add_argument(
        "url", metavar="URL", type=url, help="the database, postgresql://HOST/DATABASE; with #NAME, a state"
    )
    parser.add_argument(
        "--sql", action="store_true", help="print the SQL for the tables and for two roles, and connect to no server"
    )


def _run(arguments: Any) -> int:
    if arguments.sql:
        from pstate.rows import statements

        show.write(f"{statements.DDL}\n{statements.GRANTS}")
        return 0
    with session.database(arguments.url) as database:
        database.make_tables()
        if arguments.url.address.name:
            database.create(b"{}\n")
    return 0


COMMANDS = {
    "init": Command(
        "init",
        "make the tables of a database",
        "Make the tables in which a PostgreSQL database keeps states, and with #NAME an empty state. What exists\n"
        "stays as it is. A program that writes the first state does the same, if it may create tables.\n"
        "--sql prints the statements for an administrator: the tables, a role for programs that change states, and\n"
        "one for programs that only read them.",
        "$ pstate init --sql postgresql://db.example/app | grep '^CREATE ROLE'\n"
        "CREATE ROLE pstate_write NOLOGIN;\nCREATE ROLE pstate_read NOLOGIN;\n"
        '$ pstate init "$URL#jobs"',
        _declare,
        _run,
    )
}
