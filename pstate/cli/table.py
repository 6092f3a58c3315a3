"""The table of contents of the command line: which commands there are, and which exit codes."""

from __future__ import annotations

from importlib import import_module

from pstate.cli.command import Command

#: The module of each command, in the order in which they are shown.
MODULES = {
    "get": "read",
    "set": "write",
    "delete": "write",
    "append": "write",
    "add": "write",
    "incr": "write",
    "apply": "script",
    "edit": "edit",
    "check": "mending.check",
    "repair": "mending.repair",
    "resolve": "mending.resolve",
    "log": "history",
    "watch": "watch",
    "view": "view.command",
    "diff": "difference",
    "who": "users",
    "vacuum": "users",
    "import": "transfer.importing",
    "export": "transfer.exporting",
    "completion": "completion",
}

OK, NO, USAGE, UNUSABLE, LOCKED, NOT_WRITTEN = range(6)
EXIT_CODES = {
    OK: "done, or yes",
    NO: "no: nothing is there, it is not equal, the check found something wrong, there are differences, "
    "a value cannot be carried, standard output is closed",
    USAGE: "the command line, a PATH or a VALUE is wrong",
    UNUSABLE: "the file is missing, cannot be read, or is no state",
    LOCKED: "somebody else kept the write lock for too long",
    NOT_WRITTEN: "the file could not be written, or what was to be printed",
}


def command(name: str) -> Command:
    """The command called *name*, which must be one."""
    module = import_module(f"pstate.cli.{MODULES[name]}")
    commands: dict[str, Command] = module.COMMANDS
    return commands[name]
