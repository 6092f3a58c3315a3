"""Subclasses and patched classes are the same in both flavours: who is asked for an attribute or an item, and when.

The compiled part is in slots of the classes, which CPython sets again when a class is changed. So each program runs
in a process of each flavour, and what it notes must be equal.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from pstate import speed

pytestmark = pytest.mark.skipif(not speed.compiled, reason="nothing is compiled here to compare pure Python with")

#: Before each: `noted` is what is compared; `shown(code)` notes a value, or the type of what is raised, and says
#: it twice, because the compiled part settles down at the first use of a class.
PRELUDE = """
from pstate import PersistedState
from pstate.memory.dicts import MappedDict
from pstate.memory.lists import MappedList
noted, made = [], 0

def path():
    global made
    made += 1
    return f"{folder}/{made}.yaml"

def shown(code, **names):
    for _ in range(3):
        try:
            value = eval(code, {**globals(), **names})
        except Exception as error:
            value = f"{type(error).__name__}: {error}".replace(folder, "")
        noted.append(f"{code}: {value!r}")

def use(kind, **defaults):
    state = kind(path(), **{"n": 1, "text": "a", "d": {"n": 2}, "l": [3], **defaults})
    for round in range(3):
        for code in READS:
            shown(code, state=state, d=state["d"])
        state.n = 10 + round
        state.text = f"t{round}"
        state["m"] = 20 + round
        state["word"] = f"w{round}"
        state.d.n = 30 + round
        state.d.text = f"d{round}"
        state.l.append(round)
        with state.transaction():
            state.n += 100
            state.text = f"T{round}"
            state.d.n += 1
        noted.append(repr(state.snapshot()))
    return state

READS = ["state.n", "state['n']", "state.get('n')", "state.get('no')", "state.get('no', 5)", "state.text", "state.no",
    "state['no']", "state._no", "hasattr(state, 'no')", "getattr(state, 'no', 7)", "state.d.n", "state.d.no", "d['n']",
    "d.get('no', 1)", "state.l[0]", "state.l[-1]", "state.l[99]", "state.items.__name__"]
"""

PROGRAMS = {
    "none": "use(PersistedState)",
    "an empty one": "class Own(PersistedState): pass\nuse(Own)",
    "super().__getattr__": """
class Own(PersistedState):
    def __getattr__(self, name):
        noted.append(f"asked for {name}")
        return super().__getattr__(name)
use(Own)""",
    "own __getattr__": """
class Own(PersistedState):
    def __getattr__(self, name):
        if name.startswith("no"):
            return "own"
        return PersistedState.__getattr__(self, name)
use(Own)""",
    "own __getattribute__": """
class Own(PersistedState):
    def __getattribute__(self, name):
        noted.append(f"asked for {name}") if not name.startswith("_") else None
        return super().__getattribute__(name)
use(Own)""",
    "own __getitem__": """
class Own(PersistedState):
    def __getitem__(self, key):
        noted.append(f"item {key}")
        return super().__getitem__(key)
use(Own)""",
    "own __setitem__": """
class Own(PersistedState):
    def __setitem__(self, key, value):
        noted.append(f"set {key} {value}")
        super().__setitem__(key, value)
use(Own)""",
    "own __setattr__": """
class Own(PersistedState):
    def __setattr__(self, name, value):
        noted.append(f"attribute {name} {value}") if not name.startswith("_") else None
        super().__setattr__(name, value)
use(Own)""",
    "own __missing__": """
class Own(PersistedState):
    def __missing__(self, key):
        return f"missing {key}"
use(Own)""",
    "own get": """
class Own(PersistedState):
    def get(self, key, default="own"):
        return super().get(key, default)
use(Own)""",
    "own __delitem__": """
class Own(PersistedState):
    def __delitem__(self, key):
        noted.append(f"delete {key}")
        super().__delitem__(key)
state = use(Own)
del state["n"]
del state.text
noted.append(repr(state.snapshot()))""",
    "object.__setattr__": """
state = use(PersistedState)
object.__setattr__(state, "_own", 5)
object.__setattr__(state, "n", 6)
shown("state.n, state['n'], state._own", state=state)
object.__delattr__(state, "n")
shown("state.n", state=state)""",
    "a property that raises AttributeError": """
class Own(PersistedState):
    @property
    def no(self):
        noted.append("asked the property")
        raise AttributeError("by the property")
    @property
    def n2(self):
        return self.n * 2
state = use(Own)
shown("state.n2", state=state)
state["no"] = 5
shown("state.no", state=state)""",
    "a property with a setter": """
class Own(PersistedState):
    @property
    def twice(self):
        return self.n * 2
    @twice.setter
    def twice(self, value):
        self.n = value // 2
state = use(Own)
state.twice = 50
shown("state.n, state.twice", state=state)""",
    "a value of the class with an underscore": """
class Own(PersistedState):
    _no = "of the class"
use(Own)._no""",
    "slots": """
class Own(PersistedState):
    __slots__ = ("_extra",)
state = use(Own)
state._extra = 5
shown("state._extra", state=state)""",
    "a mixin before": """
class Mixin:
    def __getattr__(self, name):
        return f"mixed {name}" if name.startswith("no") else super().__getattr__(name)
    def __setitem__(self, key, value):
        noted.append(f"mixed set {key}")
        super().__setitem__(key, value)
class Own(Mixin, PersistedState): pass
use(Own)""",
    "a mixin after": """
class Mixin:
    def __getattr__(self, name):
        return f"mixed {name}"
    def __setitem__(self, key, value):
        noted.append(f"mixed set {key}")
    def extra(self):
        return "extra"
class Own(PersistedState, Mixin): pass
state = use(Own)
shown("state.extra()", state=state)""",
    "a __getattr__ that the class gets later, and loses": """
class Own(PersistedState): pass
state = use(Own)
Own.__getattr__ = lambda self, name: f"later {name}"
for code in READS:
    shown(code, state=state, d=state["d"])
del Own.__getattr__
for code in READS:
    shown(code, state=state, d=state["d"])""",
    "a __getattribute__ that the class gets later, and loses": """
class Own(PersistedState): pass
state = use(Own)
def asked(self, name):
    noted.append(f"asked {name}") if not name.startswith("_") else None
    return object.__getattribute__(self, name)
Own.__getattribute__ = asked
for code in READS:
    shown(code, state=state, d=state["d"])
del Own.__getattribute__
for code in READS:
    shown(code, state=state, d=state["d"])""",
    "methods that PersistedState gets later, and loses": """
class Own(PersistedState): pass
states = [use(PersistedState), use(Own)]
PersistedState.__getattr__ = lambda self, name: f"later {name}"
for state in states:
    for code in READS:
        shown(code, state=state, d=state["d"])
del PersistedState.__getattr__
PersistedState.__getitem__ = lambda self, key: f"item {key}"
for state in states:
    for code in READS:
        shown(code, state=state, d=None)
del PersistedState.__getitem__
for state in states:
    for code in READS:
        shown(code, state=state, d=state["d"])""",
    "a __setitem__ that the class gets later, and loses": """
class Own(PersistedState): pass
state = use(Own)
def set(self, key, value):
    noted.append(f"later {key} {value}")
    MappedDict.__setitem__(self, key, value)
Own.__setitem__ = set
state.n = 5
state.text = "later"
state["n"] = 6
state["text"] = "item"
noted.append(repr(state.snapshot()))
del Own.__setitem__
state.text = "again"
noted.append(repr(state.snapshot()))""",
    "a mixin that gets methods later": """
class Mixin: pass
class Own(Mixin, PersistedState): pass
state = use(Own)
Mixin.__getattr__ = lambda self, name: f"mixed {name}"
Mixin.__setattr__ = lambda self, name, value: noted.append(f"mixed {name} {value}")
for code in READS:
    shown(code, state=state, d=state["d"])
state.n = 5
del Mixin.__getattr__, Mixin.__setattr__
for code in READS:
    shown(code, state=state, d=state["d"])
state.n = 5
shown("state.n", state=state)""",
    "other bases": """
class First(PersistedState):
    pass
class Second(PersistedState):
    def __getattr__(self, name):
        return f"second {name}"
class Own(First): pass
state = use(Own)
Own.__bases__ = (Second,)
for code in READS:
    shown(code, state=state, d=state["d"])
Own.__bases__ = (First,)
for code in READS:
    shown(code, state=state, d=state["d"])""",
    "another class of an object": """
class First(PersistedState): pass
class Second(PersistedState):
    def __getattr__(self, name):
        return f"second {name}"
state = use(First)
state.__class__ = Second
for code in READS:
    shown(code, state=state, d=state["d"])
state.__class__ = First
for code in READS:
    shown(code, state=state, d=state["d"])""",
    "MappedDict gets methods later": """
state = use(PersistedState)
kept = {name: vars(MappedDict)[name] for name in ("__getattr__", "__getitem__", "get")}
for name in kept:
    setattr(MappedDict, name, lambda self, *rest, name=name: f"{name} {rest}")
    for code in READS:
        shown(code, state=state, d=dict)
    setattr(MappedDict, name, kept[name])
    for code in READS:
        shown(code, state=state, d=state["d"])""",
    "MappedList gets methods later": """
state = use(PersistedState)
kept = vars(MappedList)["__getitem__"]
MappedList.__getitem__ = lambda self, index: f"at {index}"
shown("state.l[0], state.l[-1]", state=state)
MappedList.__getitem__ = kept
shown("state.l[0], state.l[-1]", state=state)""",
    "wrong arguments": """
state = use(PersistedState)
for code in ("state.get()", "state.get(1, 2, 3)", "state.get('n', default=1)", "state.__setitem__(1)", "state.get([])",
        "state.l.append()", "state.l.append(1, 2)", "state['n':2]", "state[[]]", "state.l['n']", "state.l[1.0]",
        "getattr(state, '')", "state.transaction().__exit__(None)", "MappedDict.__setattr__(state, 1, 2)"):
    try:
        noted.append(f"{code}: {eval(code)!r}")
    except Exception as error:
        noted.append(f"{code}: {type(error).__name__}")""",
}  # fmt: skip


def noted(folder: Path, flavour: str) -> dict[str, list[str]]:
    """What each program notes, in a process of that *flavour*."""
    code = f"""
import json, os, sys, traceback
from pstate import speed
assert speed.compiled == (not os.environ["PSTATE_PURE"])
found = {{}}
for name, program in json.load(sys.stdin).items():
    os.mkdir(os.path.join({str(folder)!r}, name))
    names = {{"folder": os.path.join({str(folder)!r}, name)}}
    try:
        exec(program, names)
    except Exception:
        names["noted"].append(traceback.format_exc())
    found[name] = names["noted"]
print(json.dumps(found))
"""
    programs = {name: PRELUDE + program for name, program in PROGRAMS.items()}
    done = subprocess.run(
        [sys.executable, "-c", code],
        input=json.dumps(programs),
        capture_output=True,
        text=True,
        env={**os.environ, "PSTATE_PURE": flavour},
        check=False,
        timeout=50,
    )
    assert not done.returncode, done.stdout + done.stderr
    found: dict[str, list[str]] = json.loads(done.stdout)
    return {name: [line.replace(str(folder), "") for line in lines] for name, lines in found.items()}


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, list[str]], dict[str, list[str]]]:
    return noted(tmp_path_factory.mktemp("compiled"), ""), noted(tmp_path_factory.mktemp("pure"), "1")


@pytest.mark.parametrize("name", PROGRAMS)
def test_a_class_is_asked_as_in_pure_python(both: tuple[dict[str, list[str]], dict[str, list[str]]], name: str) -> None:
    compiled, pure = both
    assert not [line for line in pure[name] if "Traceback" in line]
    assert compiled[name] == pure[name]
