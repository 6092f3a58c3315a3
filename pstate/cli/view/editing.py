"""One value, changed as `pstate set` changes it: read as YAML, compared with what was shown, one commit."""

from __future__ import annotations

import os
import re
import threading
from typing import Any, NamedTuple

from pstate.cli import session, values
from pstate.cli.command import Usage, in_our_words
from pstate.cli.view import looks
from pstate.errors import PStateError
from pstate.memory import ops
from pstate.memory.ops import ABSENT
from pstate.places import at
from pstate.signals import expected
from pstate.values import same


class Outcome(NamedTuple):
    """What has come of an edit."""

    is_done: bool
    words: str  #: what to tell
    current: Any = ABSENT  #: the present value, if it is not the one that was shown
    number: int | None = None  #: of the commit, by which it is told apart from those of others


class Reading(NamedTuple):
    """What is typed, as it will be stored."""

    value: Any
    problem: str  #: why it cannot be; or nothing
    remark: str  #: what it means


def read(text: str) -> Reading:
    """What *text*, which a person is typing, means."""
    try:
        value = values.parse(text, False, "VALUE", may_be_string=False)
    except Usage as error:
        return Reading(None, _in_one_line(str(error)), "")
    return Reading(value, "", f"{_kind(value)} {looks.brief(value, 200)}")


def _kind(value: Any) -> str:
    kinds = ((dict, "mapping"), (list, "list"), (set, "set"), (str, "string"), (bytes, "bytes"), (bool, "boolean"))
    for kind, name in kinds:
        if isinstance(value, kind):
            return name
    return "" if value is None else type(value).__name__


def _in_one_line(message: str) -> str:
    # "Nothing was done." is for a command that ends there; here, a person is still typing.
    return looks.safe(re.sub(r"\s+", " ", re.sub(r" ?Nothing was (done|changed)\.", "", message)))


def why_not(file: str) -> str:
    """Why *file* cannot be changed, as far as the system tells before it is tried; or nothing."""
    try:
        may = os.access(file, os.W_OK, effective_ids=os.access in os.supports_effective_ids)
    except expected(OSError, ValueError):
        return ""
    return "" if may or not os.path.exists(file) else "you may not write to the file"


def commit(arguments: Any, path: tuple[Any, ...], shown: Any, value: Any) -> Outcome:
    """Set what is at *path* to *value*, if it is still *shown*. May wait for other writers, so not for the UI loop."""
    where = looks.place(path)
    try:
        with session.opened(arguments, create=False) as state:
            place = at(state, path)
            with state.watch(path) as watch:
                with state.transaction():
                    current = _plain(place.get(ABSENT))
                    if current is ABSENT:
                        return Outcome(False, f"{where} no longer exists. Nothing was changed.")
                    if not same(current, shown):
                        words = f"{where} is {looks.brief(current, 60)} by now. Nothing was changed."
                        return Outcome(False, words, current)
                    place.set(value)
                number = next((change.commit for change in watch.poll() if change.origin == "here"), None)
    except expected(PStateError, OSError, LookupError, TypeError, ValueError, Usage) as error:
        words = error.args[0] if isinstance(error, KeyError) and error.args else str(error)
        return Outcome(False, looks.safe(in_our_words(words)))
    return Outcome(True, f"{where} is {looks.brief(value, 60)} now", number=number)


def _plain(value: Any) -> Any:
    return ops.plain(value) if isinstance(value, dict | list | set) else value


class Saving(threading.Thread):
    """`commit` in a thread of its own; it sets *outcome* when it is over."""

    def __init__(self, arguments: Any, path: tuple[Any, ...], shown: Any, value: Any) -> None:
        super().__init__(name="pstate view edit", daemon=True)
        self.outcome: Outcome | None = None
        self.failure: BaseException | None = None
        self.path, self.value = path, value
        self._given = arguments, path, shown, value

    def run(self) -> None:
        try:
            self.outcome = commit(*self._given)
        except BaseException as error:
            self.failure = error
