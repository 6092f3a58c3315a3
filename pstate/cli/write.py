"""`pstate set`, `delete`, `append`, `add` and `incr`: one commit each. `script` makes one of many.

A *change* is a function of a state in a transaction and the arguments; what it returns is printed after the commit.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any, NamedTuple

from pstate.cli import paths, session, show, values
from pstate.cli.command import Command, Input, No, Parser, Usage, declare_file, declare_path, declare_writing, tell
from pstate.cli.mending import presence
from pstate.errors import UnsupportedTypeError, UnsupportedValueError
from pstate.text import records
from pstate.values import same

Change = Callable[[Any, Any], str | None]

_NOTHING = object()


class Step(NamedTuple):
    """One change that a person has asked for."""

    where: str  #: it stands, in a script, with a colon and a blank; else nothing
    change: Change
    given: Any  #: its arguments
    remarks: list[str]  #: what is stored that may not be what was meant


def step(where: str, change: Change, given: Any, standard_input: Input) -> Step:
    """The *change* with what is text in its arguments *given* read, before any file is touched. Raises Usage."""
    remarks: list[str] = []

    def read(text: str, name: str) -> Any:
        value, found = _read(text, is_string, name, standard_input, may_be_string)
        remarks.extend(found)
        return value

    given.place = paths.parse(given.path)
    options = given.__dict__
    may_be_string = "string" in options
    is_string = options.get("string", False)
    if isinstance(options.get("value"), list):
        given.value = [read(text, "VALUE") for text in given.value]
    elif "value" in options:
        given.value = read(given.value, "VALUE")
    if isinstance(options.get("by"), str):
        given.typed, given.by = given.by, read(given.by, "BY")
    if options.get("if_equals") is not None:
        # What is not equal is shown as it was read; what is equal is not stored.
        given.wanted = _read(given.if_equals, is_string, "--if-equals", standard_input, may_be_string)[0]
    return Step(where, change, given, remarks)


def _read(
    text: str, is_string: bool, name: str, standard_input: Input, may_be_string: bool = True
) -> tuple[Any, list[str]]:
    """What *text*, or standard input for ``-``, means; and what to say to somebody who may have meant otherwise.

    *may_be_string*: the command has the option --string. Raises Usage.
    """
    if text == "-":
        text = standard_input.text(name)
    if is_string:
        return text, []
    value = values.parse(text, False, name, may_be_string)
    if type(value) is int and text.isdigit() and text[0] != "0":
        return value, []  # the usual counter: not even the module is needed
    from pstate.cli.surprises import remarks

    return value, remarks(text, value, may_be_string)


def commit(arguments: Any, steps: list[Step], done: str) -> int:
    """Carry out *steps* as one transaction, and say what came of it; *done* is what is said where that fails."""
    if session.is_new(arguments.file):
        _carry_out(copy.deepcopy(steps), {})  # what is refused begins no file
    with session.opened(arguments) as state:
        with state.transaction():
            printed = _carry_out(steps, state)
    for each in steps:
        for remark in each.remarks:
            tell(f"pstate: {each.where}{remark}")
    if printed:
        show.write(printed, done)
    return 0


def _carry_out(steps: list[Step], state: Any) -> str:
    """Change *state*; returns what is to be printed. Raises No, or Usage, which say the line of a script."""
    printed = ""
    for where, change, given, _ in steps:
        try:
            text = change(state, given)
        except No as error:
            raise No(f"{where}{error}") from error
        except (Usage, UnsupportedTypeError, UnsupportedValueError) as error:
            raise Usage(f"{where}{error}") from error
        if text is not None:
            printed += text + "\n"
    return printed


def run(arguments: Any, change: Change, may_create: bool = True) -> int:
    """Carry out one *change*."""
    only = step("", change, arguments, Input())
    if not may_create or arguments.__dict__.get("if_equals") is not None:
        presence.must_exist(arguments.file)
    return commit(arguments, [only], "The change is committed.")


# ------------------------------------------------------------------------------------------------ where it is to happen


def _holder(state: Any, arguments: Any) -> tuple[Any, Any]:
    """The container that the last key of the path is for, and that key."""
    path = arguments.place
    if not path:
        raise Usage(f"{arguments.file}: {arguments.path} is the whole state. Nothing was changed. Give a PATH in it.")
    container = state
    for depth, key in enumerate(path[:-1]):
        if arguments.__dict__.get("parents") and isinstance(container, dict) and key not in container:
            container[key] = {}
        container = _step(container, path, depth, arguments)
    return container, path[-1]


def _step(container: Any, path: list[Any], depth: int, arguments: Any) -> Any:
    try:
        return paths.step(container, path[depth])
    except LookupError:
        no = paths.nothing(arguments.file, path[: depth + 1], container)
        if isinstance(container, dict) and "parents" in arguments.__dict__:
            no = No(f"{no} To make the mappings on the way: --parents")
        raise no from None


def _present(container: Any, key: Any) -> Any:
    """What *container* has at *key*, or _NOTHING."""
    try:
        return paths.step(container, key)
    except LookupError:
        return _NOTHING


def _guard(arguments: Any, current: Any) -> None:
    """Raise No unless *current* is what the options ask for."""
    given = arguments.__dict__
    where = f"{arguments.file}: {paths.show(arguments.place)}"
    if given.get("if_missing") and current is not _NOTHING:
        raise No(f"{where} is there already. Nothing was changed.")
    if given.get("if_equals") is None:
        return
    if current is _NOTHING:
        raise No(f"{where} is not there. Nothing was changed.")
    if not same(current, arguments.wanted):
        raise No(f"{where} is {_short(current)}, not {_short(arguments.wanted)}. Nothing was changed.")


def _short(value: Any) -> str:
    """*value* as YAML, as `log` and `diff` show it."""
    text = records.flow(copy.deepcopy(value))
    return text if len(text) <= 200 else f"{text[:200]}..."


def _misfit(arguments: Any, wanted: str) -> No:
    return No(f"{arguments.file}: {paths.show(arguments.place)} is no {wanted}. Nothing was changed.")


# -------------------------------------------------------------------------------------------------------------- changes


def _set(state: Any, arguments: Any) -> None:
    value = arguments.value
    if not arguments.place:
        _guard(arguments, state)
        if not isinstance(value, dict):
            raise Usage(f"{arguments.file}: a state is a mapping. Nothing was changed. Write {{key: value}}.")
        values.become(state, value)
        return
    container, key = _holder(state, arguments)
    current = _present(container, key)
    _guard(arguments, current)
    if isinstance(container, dict):
        container[key] = value
    elif isinstance(container, list) and current is not _NOTHING:
        container[paths.index(key)] = value
    elif isinstance(container, list):
        raise paths.nothing(arguments.file, arguments.place, container)
    else:
        where = f"{arguments.file}: {paths.show(arguments.place[:-1])}"
        if isinstance(container, set):
            raise No(f"{where} has no keys. Nothing was changed. A set takes members with: pstate add")
        raise No(f"{where} is {_short(container)}, which has no keys. Nothing was changed. Set it to a mapping first.")


def _delete(state: Any, arguments: Any) -> None:
    container, key = _holder(state, arguments)
    current = _present(container, key)
    _guard(arguments, current)
    if current is _NOTHING:
        raise paths.nothing(arguments.file, arguments.place, container)
    if isinstance(container, set):
        container.discard(key)
    else:
        del container[paths.index(key) if isinstance(container, list) else key]


def _append(state: Any, arguments: Any) -> None:
    container, key = _holder(state, arguments)
    current = _present(container, key)
    if current is _NOTHING and isinstance(container, dict):
        container[key] = arguments.value
    elif isinstance(current, list):
        current.extend(arguments.value)
    else:
        raise _misfit(arguments, "list")


def _add(state: Any, arguments: Any) -> None:
    container, key = _holder(state, arguments)
    current = _present(container, key)
    if any(isinstance(member, dict | list | set) for member in arguments.value):
        raise Usage(f"{arguments.file}: the member of a set is a single value. Nothing was changed.")
    if current is _NOTHING and isinstance(container, dict):
        container[key] = set(arguments.value)
    elif isinstance(current, set):
        current.update(arguments.value)
    else:
        raise _misfit(arguments, "set")


def _incr(state: Any, arguments: Any) -> str:
    by = arguments.by
    if type(by) not in (int, float):
        raise Usage(f"BY {arguments.typed!r} is not a number. Nothing was done.")
    container, key = _holder(state, arguments)
    current = _present(container, key)
    if current is _NOTHING and isinstance(container, dict):
        current = 0
    if type(current) not in (int, float):
        raise _misfit(arguments, "number")
    try:
        new = current + by
    except OverflowError:
        raise _misfit(arguments, "number that can grow so far") from None
    container[paths.index(key) if isinstance(container, list) else key] = new
    return show.value_text(new, "raw")


# ------------------------------------------------------------------------------------------------------------- commands


def declare_set(parser: Parser) -> None:
    declare_path(parser)
    values.declare_value(parser)
    parser.add_argument("-p", "--parents", action="store_true", help="make mappings for the keys before the last")
    group = parser.add_mutually_exclusive_group()
    _declare_if_equals(group)
    group.add_argument("--if-missing", action="store_true", help="only if there is nothing at PATH; else exit code 1")


def _declare_if_equals(parser: Any) -> None:
    parser.add_argument(
        "--if-equals", metavar="OLD", help="only if the value at PATH is OLD, of the same type; else exit code 1"
    )


def declare_delete(parser: Parser) -> None:
    declare_path(parser)
    _declare_if_equals(parser)
    values.declare_string(parser, "OLD is a string as it is")


def declare_members(parser: Parser) -> None:
    declare_path(parser)
    values.declare_value(parser, several=True)


def declare_incr(parser: Parser) -> None:
    declare_path(parser)
    parser.add_argument("by", metavar="BY", nargs="?", default=1, help="by how much (1)")


#: What a line of a script may begin with: how its arguments are declared, and what it does.
CHANGES: dict[str, tuple[Callable[[Parser], None], Change]] = {
    "set": (declare_set, _set),
    "delete": (declare_delete, _delete),
    "append": (declare_members, _append),
    "add": (declare_members, _add),
    "incr": (declare_incr, _incr),
}


def _command(name: str, summary: str, details: str, example: str, may_create: bool = True) -> Command:
    declare_change, change = CHANGES[name]

    def declare(parser: Parser) -> None:
        declare_file(parser)
        declare_change(parser)
        declare_writing(parser)

    return Command(name, summary, details, example, declare, lambda arguments: run(arguments, change, may_create))


COMMANDS = {
    "set": _command(
        "set",
        "set the value at a place",
        "Set the value at PATH, as one commit. The file is begun if there is none.\n"
        "With --if-equals, compare and set: no other program changes the value in between.",
        "$ pstate set state.yaml jobs[0].tries 1\n"
        "$ pstate set state.yaml jobs[0].tries 7 --if-equals 0 || echo no\nno\n"
        "$ pstate set state.yaml --parents limits.disk '{soft: 10, hard: 20}'\n"
        "$ pstate get state.yaml limits.disk.hard\n20",
    ),
    "delete": _command(
        "delete",
        "delete what is at a place",
        "Delete a key, an element of a list, or a member of a set, as one commit.\n"
        "Exit code 1 if there is nothing at PATH.",
        '$ pstate delete state.yaml jobs[0]\n$ pstate get state.yaml --json jobs\n[{"name": "dry", "tries": 2}]',
        may_create=False,
    ),
    "append": _command(
        "append",
        "append to a list",
        "Append each VALUE to the list at PATH, all in one commit. The list is begun if there is none.",
        "$ pstate append state.yaml jobs '{name: iron, tries: 0}'\n$ pstate get state.yaml jobs[-1].name\niron",
    ),
    "add": _command(
        "add",
        "add to a set",
        "Add each VALUE to the set at PATH, all in one commit. The set is begun if there is none.",
        '$ pstate add state.yaml seen b c\n$ pstate get state.yaml --json seen\n["a", "b", "c"]',
    ),
    "incr": _command(
        "incr",
        "count up",
        "Add BY to the number at PATH, as one commit, and print the new number. What is missing counts as 0.\n"
        "However many processes do so at the same time, none is given the same number twice.",
        "$ pstate incr state.yaml counter\n4\n$ pstate incr state.yaml counter -2\n2",
    ),
}
