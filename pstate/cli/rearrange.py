"""`pstate pop`, `insert`, `mv` and `cp`: changes that take a value out, or put one beside others. One commit each."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

from pstate.cli import paths, show, values
from pstate.cli.command import No, Parser, Quiet, Usage, declare_form, declare_path, varied
from pstate.cli.write import NOTHING, Change, command, declare_parents, holder, misfit, present


def _nothing(arguments: Any, container: Any) -> No:
    return paths.nothing(arguments.file, arguments.place, container)


def _take_out(container: Any, key: Any) -> None:
    if isinstance(container, set):
        container.discard(key)
    else:
        del container[paths.index(key) if isinstance(container, list) else key]


# ------------------------------------------------------------------------------------------------------------------ pop


def declare_pop(parser: Parser) -> None:
    declare_path(parser)
    group = parser.add_mutually_exclusive_group()
    group.add_argument(
        "--first", dest="end", action="store_const", const=0, help="the first element of the list at PATH"
    )
    group.add_argument(
        "--last", dest="end", action="store_const", const=-1, help="the last element of the list at PATH"
    )
    declare_form(parser)
    parser.add_argument("-q", "--quiet", action="store_true", help="do not say that there is nothing to pop")
    parser.set_defaults(prints_first=True)


def _pop(state: Any, arguments: Any) -> str:
    if arguments.end is None:
        container, key = holder(state, arguments)
        value = present(container, key)
        no = _nothing(arguments, container) if value is NOTHING else None
    else:
        container, key, no = _end_of_list(state, arguments)
        value = NOTHING if no else container[key]
    if no is not None:
        raise Quiet(str(no)) if arguments.quiet else no
    text = show.value_text(copy.deepcopy(value), arguments.form)
    _take_out(container, key)
    return text


def _end_of_list(state: Any, arguments: Any) -> tuple[Any, int, No | None]:
    """The list at the PATH, the index of its first or last element, and the refusal if there is none."""
    found = state
    if arguments.place:
        container, key = holder(state, arguments)
        found = present(container, key)
        if found is NOTHING:
            return None, 0, _nothing(arguments, container)
    if not isinstance(found, list):
        raise misfit(arguments, found, "list")
    if not found:
        return None, 0, No(f"{arguments.file}: {paths.show(arguments.place)} is empty. Nothing was changed.")
    return found, arguments.end, None


# --------------------------------------------------------------------------------------------------------------- insert


def declare_insert(parser: Parser) -> None:
    parser.add_argument("path", metavar="PATH", help="where, with an index at its end: jobs[0], jobs[-1]")
    values.declare_value(parser, several=True)


def _insert(state: Any, arguments: Any) -> None:
    container, key = holder(state, arguments)
    _put_into_list(container, key, arguments.value, arguments)


def _put_into_list(container: Any, key: Any, new: list[Any], arguments: Any) -> None:
    """Insert *new* before the element of the list *container* that *key* is the index of."""
    place = varied(arguments, place=arguments.place[:-1])
    if not isinstance(container, list):
        raise misfit(place, container, "list")
    try:
        index = paths.index(key)
    except LookupError:
        raise _nothing(arguments, container) from None
    if not -len(container) <= index <= len(container):
        where = f"{arguments.file}: {paths.show(arguments.place)}"
        last = f"the last index that a value can be inserted at is {len(container)}"
        raise No(f"{where} does not exist: {last}. Nothing was changed.")
    container[index:index] = new


# ------------------------------------------------------------------------------------------------------------ mv and cp


def declare_moving(parser: Parser) -> None:
    declare_path(parser)
    parser.add_argument("new", metavar="NEW", help="the PATH that the value gets; an index of a list makes room for it")
    declare_parents(parser)
    group = parser.add_mutually_exclusive_group()
    group.add_argument("-f", "--force", action="store_true", help="replace what is at NEW")
    group.add_argument("-a", "--append", action="store_true", help="append to the list at NEW; create a missing one")


def _mv(state: Any, arguments: Any) -> None:
    container, key = holder(state, arguments)
    value = present(container, key)
    if value is NOTHING:
        raise _nothing(arguments, container)
    _refuse_inside(state, value, arguments)
    plain = copy.deepcopy(value)
    put = _destination(state, arguments.target)
    _take_out(container, key)
    put(plain)


def _cp(state: Any, arguments: Any) -> None:
    try:
        value = paths.find(state, arguments.place, arguments.file)
    except No as error:
        raise No(f"{error} Nothing was changed.") from None
    plain = copy.deepcopy(value)
    _destination(state, arguments.target)(plain)


def _refuse_inside(state: Any, value: Any, arguments: Any) -> None:
    """Raise Usage if NEW is in *value*, the one that is to be moved there."""
    keys = arguments.target.place if arguments.append else arguments.target.place[:-1]
    node = state
    for key in keys:
        node = present(node, key)
        if node is value and isinstance(value, dict | list | set):
            raise Usage(
                f"{arguments.file}: {arguments.new} is in {arguments.path}, the value to move. Nothing was changed. "
                "Give another place, or copy it with: pstate cp"
            )


def _destination(state: Any, target: Any) -> Callable[[Any], None]:
    """What puts a plain tree at NEW. Raises No if there is no room for it."""
    container, key = holder(state, target)
    there = present(container, key)
    if target.append and isinstance(there, list):
        return there.append
    if target.append and there is NOTHING and isinstance(container, dict):
        return lambda tree: container.__setitem__(key, [tree])
    if target.append:
        raise _nothing(target, container) if there is NOTHING else misfit(target, there, "list")
    if isinstance(container, list):
        return lambda tree: _put_into_list(container, key, [tree], target)
    if not isinstance(container, dict):
        place = varied(target, place=target.place[:-1])
        raise misfit(place, container, "mapping or a list")
    if there is not NOTHING and not target.force:
        where = f"{target.file}: {paths.show(target.place)}"
        raise No(f"{where} already exists. Nothing was changed. To replace it: --force")
    return lambda tree: container.__setitem__(key, tree)


#: As `pstate.cli.write.CHANGES`.
CHANGES: dict[str, tuple[Callable[[Parser], None], Change]] = {
    "pop": (declare_pop, _pop),
    "insert": (declare_insert, _insert),
    "mv": (declare_moving, _mv),
    "cp": (declare_moving, _cp),
}
_WORDS = {
    "pop": (
        "print a value and delete it",
        "Print the value at PATH and delete it, in one commit: no other program gets it as well.\n"
        "It is printed before the commit: what cannot be printed is not deleted, so no value is lost on the way.\n"
        "Other writers wait while a long value is printed.\n"
        "Exit code 1 if PATH does not exist, or the list is empty.",
        "$ pstate pop state.yaml counter\n3\n"
        "$ pstate pop state.yaml jobs --first --json\n"
        '{"name": "wash", "tries": 0}\n'
        "$ pstate pop state.yaml jobs --last --json\n"
        '{"name": "dry", "tries": 2}\n'
        "$ pstate pop state.yaml jobs --first --quiet || echo empty\nempty",
    ),
    "insert": (
        "insert into a list",
        "Insert each VALUE into a list, before the element at PATH, in one commit. jobs[0] is the beginning; for a\n"
        "list of two, jobs[2] is the end. Exit code 1 if the list does not exist, or is shorter.",
        "$ pstate insert state.yaml jobs[0] '{name: soak}'\n$ pstate get state.yaml 'jobs[*].name'\nsoak\nwash\ndry",
    ),
    "mv": (
        "move or rename a value",
        "Move the value at PATH to NEW, in one commit. In a list, it is inserted before the element at NEW; the index\n"
        "counts after PATH is gone. In a mapping, a new key becomes the last.\n"
        "Exit code 1 if PATH does not exist, or if NEW does and there is no --force.",
        "$ pstate mv state.yaml counter count\n$ pstate mv state.yaml jobs[0] running --append\n"
        "$ pstate get state.yaml --json jobs running\n"
        '[{"name": "dry", "tries": 2}]\n[{"name": "wash", "tries": 0}]',
    ),
    "cp": (
        "copy a value",
        "Copy the value at PATH to NEW, in one commit. In a list, the copy is inserted before the element at NEW.\n"
        "Exit code 1 if PATH does not exist, or if NEW does and there is no --force.\n"
        "Between two files: pstate get FILE PATH --yaml | pstate set OTHER NEW -",
        "$ pstate cp state.yaml jobs[0] template\n$ pstate get state.yaml template.name\nwash\n"
        "$ pstate get state.yaml jobs --yaml | pstate set other.yaml jobs -",
    ),
}
COMMANDS = {name: command(name, _WORDS[name], declared, may_create=False) for name, declared in CHANGES.items()}
