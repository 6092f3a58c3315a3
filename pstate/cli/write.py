"""`pstate set`, `delete`, `append`, `add` and `incr`: one commit each. `script` makes one of many.

A *change* is a function of a state in a transaction and the arguments. The text that it returns is printed after the
commit, or before it if the arguments say `prints_first`.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any, NamedTuple

from pstate.cli import paths, session, show, values
from pstate.cli.command import (
    Command,
    Input,
    No,
    Parser,
    Usage,
    declare_file,
    declare_path,
    declare_writing,
    tell,
    varied,
)
from pstate.cli.urls import Url
from pstate.errors import UnsupportedTypeError, UnsupportedValueError
from pstate.text import records
from pstate.values import same

Change = Callable[[Any, Any], str | None]

NOTHING: Any = object()  #: does not exist


class Step(NamedTuple):
    """One change that a person has asked for."""

    where: str  #: in a script: its name and the line, with a colon and a blank; otherwise empty
    change: Change
    given: Any  #: its arguments
    remarks: list[str]  #: what is stored that may not be what was meant


def step(where: str, change: Change, given: Any, standard_input: Input) -> Step:
    """The *change*, after the PATHs and VALUEs in *given* were read. No file is touched. Raises Usage."""
    remarks: list[str] = []

    def read(text: str, name: str) -> Any:
        value, found = _read(text, is_string, name, standard_input, may_be_string)
        remarks.extend(found)
        return value

    options = given.__dict__
    may_be_string = "string" in options
    is_string = options.get("string", False)
    if "assigned" in options:
        given.each = [_assignment(*each, given, read) for each in _assignments(given)]
    else:
        given.place = paths.parse(given.path)
        if isinstance(options.get("value"), list):
            given.value = [read(text, "VALUE") for text in given.value]
    if "new" in options:
        given.target = varied(given, path=given.new, place=paths.parse(given.new))
    if isinstance(options.get("by"), str):
        given.typed, given.by = given.by, read(given.by, "BY")
    if options.get("if_equals") is not None:
        # What is not equal is shown as it was read; what is equal is not stored.
        wanted = _read(given.if_equals, is_string, "--if-equals", standard_input, may_be_string)[0]
        for each in options.get("each", [given]):
            each.wanted = wanted
    return Step(where, change, given, remarks)


def _assignments(given: Any) -> list[tuple[str, str]]:
    """The PATHs and VALUEs of `set`, as they were typed: PATH VALUE, or any number of PATH=VALUE. Raises Usage."""
    words = given.assigned if given.path is None else [given.path, *given.assigned]
    if not words:
        return []
    first, *rest = words
    if given.path is not None and split(first) is None:
        if len(rest) == 1:
            return [(first, rest[0])]
        what = "it is followed by no VALUE" if not rest else f"{len(rest)} words follow it"
        raise Usage(
            f"PATH {first!r}: {what}. Nothing was done. Write PATH VALUE, or for one or several changes PATH=VALUE."
        )
    found = []
    for word in words:
        parts = split(word)
        if parts is None:
            before = f", as {first!r} before it is" if word != first else ""
            raise Usage(
                f"{word!r} is not PATH=VALUE{before}. Nothing was done. "
                """A key with = in it needs brackets and quotes: ["a=b"]."""
            )
        found.append(parts)
    if len(found) > 1 and given.__dict__.get("if_equals") is not None:
        raise Usage(
            "--if-equals takes a single PATH. Nothing was done. In a script for pstate apply, each line has one."
        )
    return found


def split(word: str) -> tuple[str, str] | None:
    """PATH and VALUE of PATH=VALUE: the first = decides that is not in brackets. None where there is none."""
    if "=" not in word:
        return None
    import re

    found = re.match(r"""((?:[^=\[]|\[(?:"(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*'|[^\]"'])*\])*)=(.*)""", word, re.S)
    return None if found is None else (found[1], found[2])


def _assignment(path: str, value: str, given: Any, read: Callable[[str, str], Any]) -> Any:
    return varied(given, path=path, place=paths.parse(path), value=read(value, "VALUE"))


def _read(
    text: str, is_string: bool, name: str, standard_input: Input, may_be_string: bool = True
) -> tuple[Any, list[str]]:
    """The value of *text*, or of standard input for ``-``; and remarks, if it may not be the value that was meant.

    *may_be_string*: the command has the option --string. Raises Usage.
    """
    if text == "-":
        text = standard_input.text(name)
    if is_string:
        values.check_utf8(text, name)
        return text, []
    value = values.parse(text, False, name, may_be_string)
    if type(value) is int and text.isdigit() and text[0] != "0":
        return value, []  # the usual counter: not even the module is needed
    from pstate.cli.surprises import remarks

    return value, remarks(text, value, may_be_string)


def commit(arguments: Any, steps: list[Step], done: str, create: bool = True) -> int:
    """Carry out *steps* as one transaction, and print the results. If they cannot be printed, *done* is said as well.

    Raises MissingPathError if the state does not exist and *create* is false.

    What is taken out of a state is printed before the commit, while the lock is held. A process that dies in between,
    or cannot print, has taken nothing.
    """
    if create:
        _refuse_on_new(arguments, steps)
    prints_first = any(each.given.__dict__.get("prints_first") for each in steps)
    with session.opened(arguments, create) as state:
        with state.transaction():
            printed = carry_out(steps, state)
            if prints_first:
                show.write(printed, "Nothing was changed.")
    remark(steps)
    if printed and not prints_first:
        show.write(printed, done)
    return 0


def _refuse_on_new(arguments: Any, steps: list[Step]) -> None:
    """Raise what *steps* raise on an empty state, if they would begin one: what is refused begins none."""
    if not isinstance(arguments.file, Url):
        if session.is_new(arguments.file):
            carry_out(copy.deepcopy(steps), {})
        return
    try:
        carry_out(copy.deepcopy(steps), {})
    except (No, Usage):
        if session.is_new(arguments.file, arguments.lock_timeout):  # asks the server, so not before it matters
            raise


def remark(steps: list[Step]) -> None:
    """Say where something else than was typed is stored."""
    for each in steps:
        for text in each.remarks:
            tell(f"pstate: {each.where}{text}")


def carry_out(steps: list[Step], state: Any) -> str:
    """Change *state*; returns what is to be printed. Raises No, or Usage, with the line of a script."""
    printed = ""
    for where, change, given, _ in steps:
        try:
            text = change(state, given)
        except No as error:
            raise type(error)(f"{where}{error}") from error
        except (Usage, UnsupportedTypeError, UnsupportedValueError) as error:
            raise Usage(f"{where}{error}") from error
        if text is not None:
            printed += text + "\n"
    return printed


def run(arguments: Any, change: Change, may_create: bool = True) -> int:
    """Carry out one *change*."""
    only = step("", change, arguments, Input())
    create = may_create and arguments.__dict__.get("if_equals") is None
    return commit(arguments, [only], "The change is committed.", create)


# ------------------------------------------------------------------------------------------------ where it is to happen


def holder(state: Any, arguments: Any) -> tuple[Any, Any]:
    """The container that has the last key of the PATH, or is to get it, and that key. Raises No or Usage."""
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
            no = No(f"{no} To create the mappings on the way: --parents")
        raise no from None


def present(container: Any, key: Any) -> Any:
    """What *container* has at *key*, or NOTHING."""
    try:
        return paths.step(container, key)
    except LookupError:
        return NOTHING


def _guard(arguments: Any, current: Any) -> None:
    """Raise No unless *current* is what the options ask for."""
    given = arguments.__dict__
    where = f"{arguments.file}: {paths.show(arguments.place)}"
    if given.get("if_missing") and current is not NOTHING:
        raise No(f"{where} already exists. Nothing was changed.")
    if given.get("if_equals") is None:
        return
    if current is NOTHING:
        raise No(f"{where} does not exist. Nothing was changed.")
    if not same(current, arguments.wanted):
        raise No(f"{where} is {_short(current)}, not {_short(arguments.wanted)}. Nothing was changed.")


def _short(value: Any) -> str:
    """*value* as YAML, as `log` and `diff` show it."""
    text = records.flow(copy.deepcopy(value))
    return text if len(text) <= 200 else f"{text[:200]}..."


def misfit(arguments: Any, value: Any, wanted: str) -> No:
    """The refusal of a change at the PATH, whose *value* is not the *wanted* kind."""
    if value is NOTHING:
        return No(f"{arguments.file}: {paths.show(arguments.place)} does not exist. Nothing was changed.")
    return No(f"{paths.misfit(arguments.file, arguments.place, value, wanted)} Nothing was changed.")


# -------------------------------------------------------------------------------------------------------------- changes


def set_all(state: Any, arguments: Any) -> None:
    """Set what `step` has read."""
    for each in arguments.each:
        _set(state, each)


def _set(state: Any, arguments: Any) -> None:
    value = arguments.value
    if not arguments.place:
        _guard(arguments, state)
        if not isinstance(value, dict):
            raise Usage(f"{arguments.file}: the whole state is a mapping. Nothing was changed. Write {{key: value}}.")
        values.become(state, value)
        return
    container, key = holder(state, arguments)
    current = present(container, key)
    _guard(arguments, current)
    if isinstance(container, dict):
        container[key] = value
    elif isinstance(container, list) and current is not NOTHING:
        container[paths.index(key)] = value
    elif isinstance(container, list):
        raise paths.nothing(arguments.file, arguments.place, container)
    else:
        where = f"{arguments.file}: {paths.show(arguments.place[:-1])}"
        if isinstance(container, set):
            raise No(f"{where} has no keys. Nothing was changed. A set takes members with: pstate add")
        raise No(f"{where} is {_short(container)}, which has no keys. Nothing was changed. Set it to a mapping first.")


def _delete(state: Any, arguments: Any) -> None:
    container, key = holder(state, arguments)
    current = present(container, key)
    _guard(arguments, current)
    if current is NOTHING:
        raise paths.nothing(arguments.file, arguments.place, container)
    if isinstance(container, set):
        container.discard(key)
    else:
        del container[paths.index(key) if isinstance(container, list) else key]


def _append(state: Any, arguments: Any) -> None:
    container, key = holder(state, arguments)
    current = present(container, key)
    if current is NOTHING and isinstance(container, dict):
        container[key] = _unique([], arguments.value) if arguments.unique else arguments.value
    elif isinstance(current, list):
        current.extend(_unique(current, arguments.value) if arguments.unique else arguments.value)
    else:
        raise misfit(arguments, current, "list")


def _unique(present: Any, given: list[Any]) -> list[Any]:
    """Those of *given* that are neither in the list *present* nor given twice: equal, and of equal types."""
    found: list[Any] = []
    for value in given:
        if not any(same(value, other) for known in (present, found) for other in known):
            found.append(value)
    return found


def _add(state: Any, arguments: Any) -> None:
    container, key = holder(state, arguments)
    current = present(container, key)
    if any(isinstance(member, dict | list | set) for member in arguments.value):
        raise Usage(f"{arguments.file}: the member of a set is a single value. Nothing was changed.")
    if current is NOTHING and isinstance(container, dict):
        container[key] = set(arguments.value)
    elif isinstance(current, set):
        current.update(arguments.value)
    else:
        raise misfit(arguments, current, "set")


def _incr(state: Any, arguments: Any) -> str:
    by = arguments.by
    if type(by) not in (int, float):
        raise Usage(f"BY {arguments.typed!r} is not a number. Nothing was done.")
    container, key = holder(state, arguments)
    current = present(container, key)
    if current is NOTHING and isinstance(container, dict):
        current = 0
    if type(current) not in (int, float):
        raise misfit(arguments, current, "number")
    try:
        new = current + by
    except OverflowError:
        where = f"{arguments.file}: {paths.show(arguments.place)}"
        raise No(f"{where} is too large an integer to add a float to. Nothing was changed.") from None
    container[paths.index(key) if isinstance(container, list) else key] = new
    return show.value_text(new, "raw")


# ------------------------------------------------------------------------------------------------------------- commands


def declare_set(parser: Parser) -> None:
    parser.usage = f"{parser.prog} [OPTIONS] FILE PATH VALUE\n       {parser.prog} [OPTIONS] FILE PATH=VALUE..."
    parser.add_argument("path", metavar="PATH", help='where: jobs[3].name, .jobs[-1], jobs["odd key"]; or PATH=VALUE')
    parser.add_argument("assigned", metavar="VALUE", nargs="*", help=f"{values.MEANING}; or more PATH=VALUE")
    values.declare_string(parser, "VALUE is a string as it is")
    declare_parents(parser)
    group = parser.add_mutually_exclusive_group()
    _declare_if_equals(group)
    group.add_argument("--if-missing", action="store_true", help="only if no PATH exists; otherwise exit code 1")


def declare_parents(parser: Parser) -> None:
    parser.add_argument("-p", "--parents", action="store_true", help="create mappings for the keys before the last")


def _declare_if_equals(parser: Any) -> None:
    parser.add_argument(
        "--if-equals", metavar="OLD", help="only if the value at PATH is OLD, of the same type; otherwise exit code 1"
    )


def declare_delete(parser: Parser) -> None:
    declare_path(parser)
    _declare_if_equals(parser)
    values.declare_string(parser, "OLD is a string as it is")


def declare_append(parser: Parser) -> None:
    declare_members(parser)
    parser.add_argument("-u", "--unique", action="store_true", help="only values that the list does not have yet")


def declare_members(parser: Parser) -> None:
    declare_path(parser)
    values.declare_value(parser, several=True)


def declare_incr(parser: Parser) -> None:
    declare_path(parser)
    parser.add_argument("by", metavar="BY", nargs="?", default=1, help="by how much (1)")


#: What a line of a script may begin with: how its arguments are declared, and what it does.
CHANGES: dict[str, tuple[Callable[[Parser], None], Change]] = {
    "set": (declare_set, set_all),
    "delete": (declare_delete, _delete),
    "append": (declare_append, _append),
    "add": (declare_members, _add),
    "incr": (declare_incr, _incr),
}


def command(name: str, words: tuple[str, str, str], declared: Any, may_create: bool = True) -> Command:
    """The command *name* for a change, *declared* as in CHANGES; *words*: its summary, details and example."""
    declare_change, change = declared

    def declare(parser: Parser) -> None:
        declare_file(parser)
        declare_change(parser)
        declare_writing(parser)

    return Command(name, *words, declare, lambda arguments: run(arguments, change, may_create))


_WORDS = {
    "set": (
        "set values",
        "Set the value at PATH, or at several PATHs as PATH=VALUE, in one commit. A missing FILE is created.\n"
        "If the first word after FILE has a = that is not in brackets, every word is PATH=VALUE.\n"
        "--if-equals compares and sets: no other program changes the value in between.",
        "$ pstate set state.yaml jobs[0].tries 1\n"
        "$ pstate set state.yaml jobs[0].tries=2 jobs[0].by=ann\n"
        "$ pstate set state.yaml jobs[0].tries 7 --if-equals 0 || echo no\nno\n"
        "$ pstate set state.yaml --parents limits.disk '{soft: 10, hard: 20}'\n"
        "$ pstate get state.yaml limits.disk.hard\n20",
    ),
    "delete": (
        "delete a value",
        "Delete a key, an element of a list, or a member of a set, in one commit.\nExit code 1 if PATH does not exist.",
        '$ pstate delete state.yaml jobs[0]\n$ pstate get state.yaml --json jobs\n[{"name": "dry", "tries": 2}]',
    ),
    "append": (
        "append to a list",
        "Append each VALUE to the list at PATH, all in one commit. A missing list, or FILE, is created.",
        "$ pstate append state.yaml jobs '{name: iron, tries: 0}'\n$ pstate get state.yaml jobs[-1].name\niron\n"
        "$ pstate append state.yaml hosts a b\n"
        "$ pstate append state.yaml hosts --unique b c\n"
        "$ pstate get state.yaml --json hosts\n"
        '["a", "b", "c"]',
    ),
    "add": (
        "add to a set",
        "Add each VALUE to the set at PATH, all in one commit. A missing set, or FILE, is created.",
        '$ pstate add state.yaml seen b c\n$ pstate get state.yaml --json seen\n["a", "b", "c"]',
    ),
    "incr": (
        "count up, and print the number",
        "Add BY to the number at PATH, in one commit, and print the new number. A missing number counts as 0.\n"
        "No number is printed twice, no matter how many processes count at the same time.",
        "$ pstate incr state.yaml counter\n4\n$ pstate incr state.yaml counter -2\n2",
    ),
}
COMMANDS = {
    name: command(name, _WORDS[name], declared, may_create=name != "delete") for name, declared in CHANGES.items()
}
