"""`pstate completion`: scripts that let shells complete commands. They run `pstate complete`, which nobody types."""

from __future__ import annotations

import os
from typing import Any

from pstate.cli import paths, session, show
from pstate.cli.command import Command, No, Parser, Usage, parser_of
from pstate.cli.table import MODULES, command
from pstate.cli.urls import is_url
from pstate.errors import PStateError
from pstate.signals import expected

#: The keys of a larger file are not offered: reading it would take longer than a person waits.
_LARGEST = 1_000_000

#: What the arguments are called that are a PATH, or several.
_PATHS = {"path", "paths", "new"}

_BASH = r"""_pstate() {
    local IFS=$'\n'
    COMPREPLY=($(pstate complete "${COMP_WORDS[@]:1:COMP_CWORD}" 2>/dev/null))
    [[ ${#COMPREPLY[@]} -gt 0 ]] && compopt +o default
    [[ ${#COMPREPLY[@]} -eq 1 && ${COMPREPLY[0]} == *[.[] ]] && compopt -o nospace
}
complete -o default -F _pstate pstate
"""
_ZSH = r"""#compdef pstate
_pstate() {
    local -a found
    found=(${(f)"$(pstate complete "${(@)words[2,CURRENT]}" 2>/dev/null)"})
    if (( ${#found} )); then compadd -Q -a found; else _files; fi
}
compdef _pstate pstate
"""
_FISH = r"""function __pstate
    set -l words (commandline -opc) (commandline -ct)
    pstate complete $words[2..-1] 2>/dev/null
end
complete -c pstate -a '(__pstate)'
"""
SCRIPTS = {"bash": _BASH, "zsh": _ZSH, "fish": _FISH}


def _declare(parser: Parser) -> None:
    parser.add_argument("shell", metavar="SHELL", choices=tuple(SCRIPTS), help=", ".join(SCRIPTS))


def _run(arguments: Any) -> int:
    show.write(SCRIPTS[arguments.shell])
    return 0


def complete(words: list[str]) -> int:
    """Print what the last of *words* can become: the words of the command line after `pstate`, up to the cursor."""
    words = words or [""]
    show.write("".join(f"{candidate}\n" for candidate in _candidates(words[:-1], words[-1])))
    return 0


def _candidates(before: list[str], begun: str) -> list[str]:
    """What *begun* can become after the words *before*."""
    if not before:
        return [name for name in MODULES if name.startswith(begun)]
    if before[0] not in MODULES:
        return []
    parser = parser_of(command(before[0]))
    if parser.takes_command and "--" in before:
        return []  # another command line begins
    actions = parser._actions
    if begun.startswith("-"):
        return [option for action in actions for option in action.option_strings if option.startswith(begun)]
    options = {option: action for action in actions for option in action.option_strings}
    last = options.get(before[-1])
    wanted = [action for action in actions if not action.option_strings]
    if last is not None and last.nargs is None:  # the value of an option
        if last.metavar == "PATH":
            files = zip(wanted, _positionals(before[1:-1], options), strict=False)
            return next((_keys(word, begun) for action, word in files if action.dest == "file"), [])
        return [str(choice) for choice in last.choices or () if str(choice).startswith(begun)]
    given = _positionals(before[1:], options)
    takes_more = bool(wanted) and wanted[-1].nargs in ("*", "+")
    if len(given) >= len(wanted) and not takes_more:
        return []
    action = wanted[min(len(given), len(wanted) - 1)]
    if action.choices:
        return [str(choice) for choice in action.choices if str(choice).startswith(begun)]
    if action.dest == "assigned":  # after a PATH=VALUE, there may be more of them
        return _keys(given[0], begun) if any("=" in word for word in given[1:2]) else []
    return _keys(given[0], begun) if action.dest in _PATHS else []


def _positionals(words: list[str], options: dict[str, Any]) -> list[str]:
    found: list[str] = []
    rest = iter(words)
    for word in rest:
        if word in options:
            if options[word].nargs is None:
                next(rest, "")
        elif not word.startswith("-"):
            found.append(word)
    return found


def _keys(file: str, begun: str) -> list[str]:
    """The paths in *file* that begin with *begun*, one level deep."""
    if is_url(file):
        return []  # nobody waits for a server, or wants to be told that it is away
    try:
        if os.stat(file).st_size > _LARGEST:
            return []
        state = session.snapshot(file)
        begun, dot = begun.removeprefix("."), begun[:1] == "."
        cut = max(begun.rfind("."), begun.rfind("["))
        parent = paths.parse(begun[:cut]) if cut > 0 else []
        container = paths.find(state, parent, file)
    except expected(OSError, PStateError, No, Usage):
        return []
    keys = (
        range(len(container)) if isinstance(container, list) else container if isinstance(container, dict | set) else ()
    )
    found = []
    for key in keys:
        path = paths.show([*parent, key])
        if path.startswith(begun) and not set(path) & set("\"' \\"):  # a shell would want those quoted
            found.append(f".{path}" if dot else path)
    return found


COMMANDS = {
    "completion": Command(
        "completion",
        "print a completion script",
        "Print a script for bash, zsh or fish that completes commands, options, files, and the keys of a state.",
        '$ eval "$(pstate completion bash)"   # in ~/.bashrc',
        _declare,
        _run,
    ),
}
