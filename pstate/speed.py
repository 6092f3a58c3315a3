"""The compiled hot path, if it was compiled. The only module that knows `_speed`.

`pstate/_speed.c` handles the usual case of what programs do most often. In every other case, it calls the Python
function that it replaces. Without it, everything works the same, only slower.

It is compiled when pstate is installed, if there is a C compiler. ``PSTATE_PURE=1`` in the environment turns it off,
when pstate is built and when it runs. A subinterpreter and a Python without the GIL use pure Python.
"""

from __future__ import annotations

import _thread
import os
import threading
import time
from collections.abc import Callable
from types import ModuleType
from typing import Any
from warnings import warn
from zlib import crc32

from pstate import logger, state, store
from pstate.file import format, limits, lock
from pstate.file.fs import SYSTEM, Descriptor
from pstate.file.hold import Hold
from pstate.file.journal import Journal
from pstate.file.log import FileLog
from pstate.file.look import Look
from pstate.file.recovery import Records
from pstate.file.settling import Settling
from pstate.file.site import Site
from pstate.file.standing import Standing
from pstate.file.trail import Trails
from pstate.memory import ops
from pstate.memory.dicts import MappedDict
from pstate.memory.lists import MappedList
from pstate.memory.sets import MappedSet
from pstate.memory.transaction import Pending
from pstate.signals import expected

#: The Python functions that compiled ones replace, by their class or module, and their name.
replaced: dict[tuple[Any, str], Any] = {}

#: The compiled functions. `_speed.c` says what each one does, and what it leaves to Python.
_METHODS: tuple[tuple[type | ModuleType, str], ...] = (
    (MappedDict, "__getitem__"),
    (MappedDict, "__getattr__"),
    (MappedDict, "__setitem__"),
    (MappedDict, "__setattr__"),
    (MappedDict, "get"),
    (MappedList, "__getitem__"),
    (MappedList, "append"),
    (FileLog, "fresh"),
    (FileLog, "fresh_durable"),
    (Standing, "catch_up"),
    (state.Transaction, "__enter__"),
    (state.Transaction, "__exit__"),
    (format, "read_records"),
    (ops, "replay"),
)


def _install() -> None:
    """Tell the compiled part what it works on, and replace our functions with its own.

    Raises ImportError in a process that imports pstate a second time, and if gevent or eventlet has replaced the
    threads of Python.
    """
    mutex = type(threading.RLock())
    if (mutex, threading.get_ident) != (_thread.RLock, _thread.get_ident):
        raise ImportError("gevent or eventlet has replaced the threads of Python")
    names = {
        **{kind.__name__: kind for kind in (store.Store, FileLog, Journal, Look, Hold, Standing, Trails)},
        **{kind.__name__: kind for kind in (Descriptor, Settling, Site, Records)},
        **{kind.__name__: kind for kind in (MappedDict, MappedList, MappedSet, Pending, state.Transaction)},
        "format": format,
        "ops": ops,
        "ROOT": ops.ROOT,
        "SYSTEM": SYSTEM,
        "calls": vars(SYSTEM),
        "lseek": os.lseek,
        "clock": time.monotonic,
        "flock": lock.make("file", ""),
        "write": os.write,
        "pread": os.pread,
        "stat": os.stat,
        "sync_data": getattr(os, "fdatasync", None),
        "RLock": mutex,
        "acquire": mutex.acquire,
        "release": mutex.release,
        "waiting": logger.waiting,
        "send": logger.send,
        "noticed": store._noticed,
        "threads": vars(threading),
        "get_ident": threading.get_ident,
        "limits": vars(limits),
    }
    _speed.bind(names)
    for kind, name in _METHODS:
        replaced[kind, name] = vars(kind)[name]
        setattr(kind, name, _speed.method(kind, name, replaced[kind, name]))


def _is_stale() -> bool:
    """Whether `_speed.c` has changed since it was compiled. Only a checkout has it beside this file."""
    try:
        with open(os.path.join(os.path.dirname(__file__), "_speed.c"), "rb") as file:
            return f"source {crc32(file.read()):08x}" != _speed.SOURCE
    except expected(FileNotFoundError):
        return False


_counts: Callable[[], dict[str, tuple[int, int]]] = dict
compiled = False  #: whether the compiled hot path is in use
try:
    if os.environ.get("PSTATE_PURE"):
        raise ImportError("PSTATE_PURE is set")
    from pstate import _speed

    if _is_stale():
        message = "pstate/_speed.c has changed since it was compiled, so pstate runs in pure Python. Run: make speed"
        warn(message, RuntimeWarning, stacklevel=2)
        raise ImportError(message)
    _install()
except ImportError:
    pass
else:
    compiled, _counts = True, _speed.counts


def counts() -> dict[str, tuple[int, int]]:
    """How many calls each compiled function has handled, and how many it has left to Python. {} in pure Python."""
    return _counts()
