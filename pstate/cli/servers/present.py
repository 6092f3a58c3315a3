"""`pstate list`: which states a database has; and what `pstate who` says about one of them."""

from __future__ import annotations

from typing import Any

from pstate.cli import session, show, urls
from pstate.cli.command import Command, Parser, declare_json, url


def _declare(parser: Parser) -> None:
    parser.add_argument("url", metavar="URL", type=url, help="the database: postgresql://HOST/DATABASE")
    declare_json(parser)


def _list(arguments: Any) -> int:
    with session.database(arguments.url) as database:
        found = database.states()
    if arguments.json:
        show.write("".join(show.json_text(each._asdict()) + "\n" for each in found))
    elif found:
        rows = [[each.name, f"{each.revision:,}", f"{each.bytes:,}", each.changed, each.by] for each in found]
        show.table(["NAME", "REVISION", "BYTES", "LAST CHANGE", "BY"], rows)
    return 0 if found else 1


def who(url: urls.Url, as_json: bool) -> int:
    """Print the sessions that have the state at *url* open. Exit code 1 if none is found."""
    with session.database(url) as database:
        if not (found := database.users()) and not database.has_state():
            raise session.no_state(url)
    if as_json:
        show.write("".join(show.json_text(user._asdict()) + "\n" for user in found))
    elif found:
        head = ["HOST", "PID", "USER", "HAS IT OPEN", "PROGRAM"]
        show.table(head, [[each.host, str(each.pid or ""), each.user, _role(each), each.program] for each in found])
    return 0 if found else 1


def _role(user: Any) -> str:
    if not user.holds:
        return "yes"
    return "holds the lock" + (f" for {user.seconds:.0f} s" if user.seconds is not None else "")


COMMANDS = {
    "list": Command(
        "list",
        "list the states of a database",
        "Print the states of a database: name, revision, size, and when and by which process it was changed last.\n"
        "The revision is the number of commits. The size is that of the newest snapshot and the records after it.\n"
        "Times are in UTC. Exit code 1 if there is no state.",
        '$ pstate set "$URL#jobs" color red\n'
        "$ pstate list \"$URL\" | tr -s ' ' | cut -d ' ' -f 1-2\n"
        "NAME REVISION\njobs 1",
        _declare,
        _list,
    )
}
