"""What `pstate --help` says: all commands, in groups, on one screen."""

from __future__ import annotations

from collections.abc import Iterator

from pstate.cli.table import EXIT_CODES, GROUPS, MODULES, command

#: Of a line, in columns: the name of a group, and each of the two commands beside it.
_GROUP, _NAME, _CELL = 8, 11, 47


def overview() -> str:
    """The page, with a newline at its end."""
    lines = [
        "usage: pstate COMMAND FILE [PATH] ...",
        "",
        "Look at states and change them, while programs use them.",
        "FILE is a file, or the URL of a state on a server: postgresql://HOST/DATABASE#NAME",
        "",
        *_commands(),
        "",
        *(f"exit {code}  {meaning}" for code, meaning in EXIT_CODES.items()),
        "",
        "pstate COMMAND --help tells more, with an example. pstate --version prints the version.",
    ]
    return "\n".join(lines) + "\n"


def _commands() -> Iterator[str]:
    """A line for every two commands of a group; one with a long summary has a line of its own."""
    pending, group = "", ""
    for name in MODULES:
        cell = f"{name:<{_NAME}}{command(name).summary}"
        if name in GROUPS or len(cell) > _CELL - 2:
            yield from _line(group, pending)
            pending, group = "", "" if pending else group
        group = GROUPS.get(name, group)
        if pending or len(cell) > _CELL - 2:
            yield from _line(group, f"{pending:<{_CELL}}{cell}" if pending else cell)
            pending, group = "", ""
        else:
            pending = cell
    yield from _line(group, pending)


def _line(group: str, text: str) -> Iterator[str]:
    if text:
        yield f"{group:<{_GROUP}}{text}"
