"""Several stores of one state in this process, as if each was a process of its own; and logs that look at each call."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pstate import PersistedState
from pstate.engine import Engine, Log
from pstate.memory import ops
from pstate.store import Store


def opened(engine: Engine, address: str, kind: type[Store] = Store, **options: Any) -> PersistedState:
    """The state at *address*, in a store of its own that no other opener in this process gets."""
    return handle_of(kind(address, engine=engine, **{"lock_timeout": 5.0, **options}))


def handle_of(store: Store) -> PersistedState:
    """One more handle of *store*, which is opened if need be."""
    handle = PersistedState.__new__(PersistedState)
    for name, value in (("_parent", ops.ROOT), ("_key", None), ("_reopen", (store.path, {}))):
        ops.set_slot(handle, name, value)
    store.attach(handle, None)
    return handle


def store_of(state: PersistedState) -> Any:
    """The store of *state*."""
    return state._store


class Wrapped:
    """A log that passes everything on to another one, for a subclass that does something in between."""

    def __init__(self, log: Log) -> None:
        self.__dict__["log"] = log

    def __getattr__(self, name: str) -> Any:
        return getattr(self.log, name)

    def __setattr__(self, name: str, value: Any) -> None:
        if name in self.__dict__ or hasattr(type(self), name):
            object.__setattr__(self, name, value)
        else:
            setattr(self.log, name, value)


class Wrapping:
    """An engine whose logs are those of another *engine*, each in what *wrap* makes of it."""

    def __init__(self, engine: Engine, wrap: Callable[[Log], Any]) -> None:
        self.engine = engine
        self.wrap = wrap

    def __getattr__(self, name: str) -> Any:
        return getattr(self.engine, name)

    def log(self, *args: Any, **options: Any) -> Any:
        return self.wrap(self.engine.log(*args, **options))
