"""The table of contents of the command line: which commands there are, and which exit codes."""

from __future__ import annotations

from importlib import import_module

from pstate.cli.command import Command

#: The module of each command, in the order in which they are shown.
MODULES = {
    "get": "read",
    "keys": "look",
    "has": "look",
    "type": "look",
    "len": "look",
    "log": "history",
    "diff": "difference",
    "who": "users",
    "set": "write",
    "delete": "write",
    "append": "write",
    "insert": "rearrange",
    "pop": "rearrange",
    "add": "write",
    "incr": "write",
    "mv": "rearrange",
    "cp": "rearrange",
    "apply": "script",
    "edit": "edit",
    "new": "begin",
    "watch": "watch",
    "view": "view.command",
    "check": "mending.check",
    "repair": "mending.repair",
    "vacuum": "users",
    "resolve": "mending.resolve",
    "import": "transfer.importing",
    "export": "transfer.exporting",
    "init": "servers.begin",
    "list": "servers.present",
    "pull": "servers.carry",
    "push": "servers.carry",
    "completion": "completion",
}

#: The first command of each group in the help.
GROUPS = {
    "get": "look",
    "set": "change",
    "watch": "watch",
    "check": "mend",
    "import": "move",
    "init": "server",
    "completion": "shell",
}

OK, NO, USAGE, UNUSABLE, LOCKED, NOT_WRITTEN, UNKNOWN = range(7)
EXIT_CODES = {
    OK: "done, or yes",
    NO: "no: no such PATH, a condition is not met, a check failed, states differ, output is closed",
    USAGE: "the command line, a PATH or a VALUE is wrong",
    UNUSABLE: "the file is missing, cannot be read, or is not a state; the server cannot be reached",
    LOCKED: "another process kept the write lock for longer than --lock-timeout",
    NOT_WRITTEN: "the file, the server, or the output could not be written",
    UNKNOWN: "the server was lost in the middle of a commit: it is done, or not",
}


def command(name: str) -> Command:
    """The command called *name*, which must be one."""
    module = import_module(f"pstate.cli.{MODULES[name]}")
    commands: dict[str, Command] = module.COMMANDS
    return commands[name]
