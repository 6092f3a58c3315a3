"""What a signal handler has raised is its own: nobody takes it for the answer of the system, or of a lock."""

from __future__ import annotations

import ast
import builtins
import contextlib
import errno
import functools
import importlib
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from test_layers import FILES
from tools.disks import Disk
from tools.interrupts import Interrupter

from pstate import LockTimeout, PersistedState, errors
from pstate.file.fs import FileSystem, is_folder, real_path
from pstate.signals import expected, tolerating

ALARM = TimeoutError(errno.ETIMEDOUT, "the alarm rang")


# ------------------------------------------------------------------ whose an exception is


def plain(number: int, frame: Any) -> None:
    raise ALARM


def by_arguments(*arguments: Any) -> None:
    raise ALARM


def deeper(number: int, frame: Any) -> None:
    plain(number, None)


def told(who: str, number: int, frame: Any) -> None:
    raise ALARM


class Object:
    def __call__(self, number: int, frame: Any) -> None:
        raise ALARM

    def method(self, number: int, frame: Any) -> None:
        raise ALARM


def wrapped(function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    def wrapper(*args: Any, **keywords: Any) -> Any:
        return function(*args, **keywords)

    return wrapper


@contextlib.contextmanager
def handled(handler: Any) -> Iterator[None]:
    before = signal.signal(signal.SIGUSR1, handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGUSR1, before)


HANDLERS = [
    pytest.param(plain, id="function"),
    pytest.param(by_arguments, id="arguments"),
    pytest.param(deeper, id="function that calls another"),
    pytest.param(lambda number, frame: plain(0, None), id="lambda"),
    pytest.param(functools.partial(told, "me"), id="partial"),
    pytest.param(Object(), id="object"),
    pytest.param(Object().method, id="method"),
    pytest.param(wrapped(plain), id="decorated"),
]


@pytest.mark.parametrize("handler", HANDLERS)
def test_what_a_handler_raises_is_not_expected(handler: Any) -> None:
    with handled(handler), pytest.raises(TimeoutError) as raised:
        try:
            os.kill(os.getpid(), signal.SIGUSR1)
        except expected(OSError):
            pass
    assert raised.value is ALARM


@pytest.mark.parametrize("handler", HANDLERS)
def test_what_a_handler_raises_is_not_tolerated(handler: Any) -> None:
    with handled(handler), pytest.raises(TimeoutError) as raised, tolerating(OSError):
        os.kill(os.getpid(), signal.SIGUSR1)
    assert raised.value is ALARM


def test_an_error_of_a_file_of_the_handler_is_not_expected() -> None:
    def handler(number: int, frame: Any) -> None:
        os.unlink("/nowhere/pid")

    with handled(handler), pytest.raises(FileNotFoundError, match="/nowhere/pid"), tolerating(FileNotFoundError):
        os.kill(os.getpid(), signal.SIGUSR1)


@pytest.mark.parametrize("error", [LockTimeout("another state"), errors.WriteError("another state", errno=28)])
def test_an_error_of_another_state_in_the_handler_is_not_expected(error: Exception) -> None:
    def handler(number: int, frame: Any) -> None:
        raise error

    with handled(handler), pytest.raises(type(error)) as raised, tolerating(OSError):
        os.kill(os.getpid(), signal.SIGUSR1)
    assert raised.value is error


def test_an_oserror_without_a_number_is_not_the_systems() -> None:
    """As of a handler in C, or of another thread by `PyThreadState_SetAsyncExc`."""
    with pytest.raises(TimeoutError), tolerating(OSError):
        raise TimeoutError
    with tolerating(LockTimeout):
        raise LockTimeout("ours have none")


def test_an_interrupted_import_is_no_answer() -> None:
    """Python leaves the frames of an import out of the traceback, also the one that the handler was given.

    In a process of its own: an interrupted import can leave Python's lock of a module held for ever.
    """
    subprocess.run(
        [sys.executable, "-c", "import test_signals; test_signals.interrupt_imports()"],
        cwd=Path(__file__).parent,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent)},
        check=True,
    )


def interrupt_imports() -> None:
    def action() -> None:
        try:
            sys.modules.pop("colorsys", None)
            import colorsys

            assert colorsys
        except expected(OSError):
            taken.append(interrupter.where)

    taken: list[str] = []
    interrupter = Interrupter(files=("<frozen importlib",))
    assert interrupter.run(action) is None
    raised = []
    for number in range(1, interrupter.passed + 1):
        interrupter = Interrupter(number, files=("<frozen importlib",), handler=plain)
        raised.append(interrupter.run(action, keep=True))
    assert not taken
    assert raised.count(ALARM) > 20  # Python's own import takes a few of them for the answer to a call of its own


def test_what_the_system_says_is_expected_and_tolerated() -> None:
    with tolerating(FileNotFoundError, IsADirectoryError):
        os.unlink("/nowhere/at/all")
    try:
        os.unlink("/nowhere/at/all")
    except expected(PermissionError, FileNotFoundError) as error:
        caught = error
    assert caught.filename == "/nowhere/at/all"
    with pytest.raises(FileNotFoundError), tolerating(PermissionError):
        os.unlink("/nowhere/at/all")
    with tolerating(OSError):
        pass


def test_a_handler_that_ends_well_changes_nothing() -> None:
    with handled(lambda *_: None), tolerating(FileNotFoundError):
        os.kill(os.getpid(), signal.SIGUSR1)
        os.unlink("/nowhere/at/all")


@pytest.mark.parametrize("look", [real_path, is_folder])
def test_a_look_at_a_path_that_is_interrupted_is_no_answer(
    look: Callable[[str], Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`os.path` takes each OSError for one."""
    (tmp_path / "link").symlink_to(tmp_path)

    def rings(call: Callable[..., Any]) -> Callable[..., Any]:
        def ringing(*args: Any, **keywords: Any) -> Any:
            os.kill(os.getpid(), signal.SIGUSR1)
            return call(*args, **keywords)

        return ringing

    assert look(str(tmp_path / "link")) in (str(tmp_path), True)
    assert look(str(tmp_path / "nothing")) in (str(tmp_path / "nothing"), False)
    for name in ("stat", "lstat"):
        monkeypatch.setattr(os, name, rings(getattr(os, name)))
    with handled(plain), pytest.raises(TimeoutError) as raised:
        look(str(tmp_path / "link"))
    assert raised.value is ALARM


@pytest.mark.parametrize("before", [False, True], ids=["after it", "before it"])
@pytest.mark.parametrize("handler", HANDLERS)
def test_a_sync_that_a_handler_interrupts_is_made_again(tmp_path: Path, handler: Any, before: bool) -> None:
    """Nothing says that it failed, and nothing that it was done."""
    rings, synced = False, 0

    def ring() -> None:
        nonlocal rings
        if rings:
            rings = False
            os.kill(os.getpid(), signal.SIGUSR1)

    def count(*_: Any) -> None:
        nonlocal synced
        synced += 1
        ring()

    fs = Disk("sync_data")
    fs.before = lambda *_: ring() if before else None
    fs.after = count
    with PersistedState.open(tmp_path / "state.yaml", defaults={"n": 0}, fs=fs, durability="power") as state:
        state.n = 1
        for again in (lambda: state.n, lambda: setattr(state, "n", 3)):
            rings = True
            with handled(handler), pytest.raises(TimeoutError) as raised:
                state.n = 2
            assert raised.value is ALARM
            made = synced
            again()
            assert synced == made + 1
        assert state.n == 3
        with PersistedState.open(tmp_path / "state.yaml", read_only=True) as reader:
            assert reader.n == 3


def test_what_a_handler_raises_in_front_of_a_write_goes_on_as_it_is(tmp_path: Path) -> None:
    """A TimeoutError of a signal handler is an OSError, and no failure of the disk."""
    path = tmp_path / "state.yaml"
    fs = FileSystem()

    def write(fd: int, data: bytes) -> int:
        if armed:
            armed.pop()
            raise TimeoutError("alarm")
        return os.write(fd, data)

    armed: list[bool] = []
    fs.write = write
    state = PersistedState.open(path, fs=fs)
    for n in range(2):
        armed.append(True)
        with pytest.raises(TimeoutError, match=r"\Aalarm\Z"):
            state["a"] = n
        assert n == state.get("a", 0)
        state["a"] = n + 1
    state.close()


# ------------------------------------------------------------------ every handler of the package

#: What catches these catches what the system says: all that is an OSError, or that one is.
SYSTEMS = {each for each in vars(builtins).values() if isinstance(each, type) and issubclass(each, OSError)}
OURS = {each for each in vars(errors).values() if isinstance(each, type) and issubclass(each, OSError)}
ABOVE = {Exception, BaseException, errors.PStateError}

#: Where something else is right, and why.
EXCEPTIONS = {
    ("file.settling", "_sync"): "notes the failure before it asks whose it is",
    ("file.fs", "_library"): "asks by itself: an OSError of ctypes has no number",
    ("file.flock", "__call__"): "the second try of an unlocking, while the exception of the first is on its way",
    ("file.lock_objects", "take"): "_is_refusal asks; and the second try",
    ("file.lock_objects", "release"): "the second try",
    ("testing.crash", "look"): "a check of the user's, which may raise what it likes",
    ("testing.crash", "go_on"): "a script of the user's",
    ("testing.crash", "state_of"): "an error is an answer, too",
    ("testing.crash", "run"): "the process is dead, or it is raised",
    ("cli.transfer.arrival", "_opened"): "the code of others",
    ("cli.view.editing", "run"): "a thread of its own, for the thread that asks for the outcome",
    ("cli.view.following", "run"): "a thread of its own, for the thread that draws",
    ("callbacks", "_call"): "a function of the user's, which may raise what it likes",
}


def caught(node: ast.expr, namespace: dict[str, Any]) -> set[type[BaseException]]:
    """The classes that the expression of an `except` clause names; nothing where it can only be known at run time."""
    if isinstance(node, ast.Tuple):
        return {each for element in node.elts for each in caught(element, namespace)}
    root = ast.unparse(node).partition(".")[0]
    with contextlib.suppress(ImportError):  # the name of a module that is imported where it is needed
        namespace = {root: importlib.import_module(root), **vars(builtins), **namespace}
    try:
        found = eval(compile(ast.Expression(node), "<except>", "eval"), dict(namespace))
    except (NameError, AttributeError):
        return set()
    return {each for each in (found if isinstance(found, tuple) else (found,)) if isinstance(each, type)}


def catches_the_systems(kinds: set[type[BaseException]]) -> bool:
    return bool(kinds & (SYSTEMS | OURS | ABOVE)) or any(issubclass(kind, OSError) for kind in kinds)


def only_cleans_up(body: list[ast.stmt]) -> bool:
    """Whether the exception goes on, whatever *body* does."""
    inside = {type(node) for statement in body for node in ast.walk(statement)}
    return ast.unparse(body[-1]) == "raise" and not inside & {ast.Return, ast.Break, ast.Continue}


def forgotten(source: str, namespace: dict[str, Any], name: str) -> Iterator[str]:
    """Where *source* catches an OSError, or might, without asking whose it is."""
    functions: list[ast.AST] = [
        node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    ]
    for node in ast.walk(ast.parse(source)):
        where = [each.name for each in functions if each.lineno <= getattr(node, "lineno", 0) <= each.end_lineno]
        if (name, where[-1] if where else "") in EXCEPTIONS:
            continue
        if isinstance(node, ast.ExceptHandler):
            if isinstance(node.type, ast.Call) and ast.unparse(node.type.func) == "expected":
                continue
            kinds = caught(node.type, namespace) if node.type is not None else {BaseException}
            if catches_the_systems(kinds) and not only_cleans_up(node.body):
                yield f"{name}:{node.lineno}: except {ast.unparse(node.type) if node.type else ''}"
        elif (
            isinstance(node, ast.Call)
            and ast.unparse(node.func).rpartition(".")[2] == "suppress"
            and any(catches_the_systems(caught(each, namespace)) for each in node.args)
        ):
            yield f"{name}:{node.lineno}: {ast.unparse(node)}"


@pytest.mark.parametrize("name", FILES)
def test_every_handler_of_an_oserror_asks_whose_it_is(name: str) -> None:
    module = importlib.import_module(f"pstate.{name}".removesuffix(".__init__"))
    found = list(forgotten(FILES[name].read_text(encoding="utf-8"), vars(module), name))
    assert not found, f"write `except expected(...)` or `with tolerating(...)`, of pstate.signals: {found}"


@pytest.mark.parametrize(("name", "function"), EXCEPTIONS)
def test_every_exception_to_that_is_needed(name: str, function: str, monkeypatch: pytest.MonkeyPatch) -> None:
    module = importlib.import_module(f"pstate.{name}")
    monkeypatch.delitem(EXCEPTIONS, (name, function))
    assert list(forgotten(FILES[name].read_text(encoding="utf-8"), vars(module), name))


@pytest.mark.parametrize(
    "source",
    [
        "try:\n pass\nexcept OSError:\n pass",
        "try:\n pass\nexcept (ValueError, errors.LockTimeout) as error:\n pass",
        "try:\n pass\nexcept:\n pass",
        "try:\n pass\nexcept Exception:\n print()",
        "try:\n pass\nexcept errors.PStateError:\n pass",
        "try:\n pass\nexcept SEVERAL:\n pass",
        "try:\n pass\nexcept IOError:\n raise KeyError",
        "def f():\n try:\n  pass\n except OSError:\n  if 1:\n   return\n  raise",
        "try:\n pass\nexcept dbm.error:\n pass",
        "with contextlib.suppress(KeyError, FileExistsError):\n pass",
        "with suppress(Exception):\n pass",
    ],
)
def test_the_search_finds_what_is_forgotten(source: str) -> None:
    namespace = {"errors": errors, "contextlib": contextlib, "SEVERAL": (KeyError, BlockingIOError)}
    assert len(list(forgotten(source, namespace, "a module"))) == 1


@pytest.mark.parametrize(
    "source",
    [
        "try:\n pass\nexcept expected(OSError):\n pass",
        "try:\n pass\nexcept (KeyError, UnicodeError):\n pass",
        "try:\n pass\nexcept BaseException:\n print()\n raise",
        "with suppress(KeyError), tolerating(OSError):\n pass",
    ],
)
def test_the_search_finds_nothing_else(source: str) -> None:
    assert not list(forgotten(source, {}, "a module"))


def test_no_module_asks_os_path_for_what_it_hides() -> None:
    """`os.path.isdir` and others take the exception of a handler for a no. The commands have their process alone."""
    hiding = ("exists", "lexists", "isfile", "isdir", "islink", "ismount", "realpath", "samefile")
    for name in FILES:
        if not name.startswith("cli"):
            tree = ast.parse(FILES[name].read_text(encoding="utf-8"))
            used = {ast.unparse(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)}
            found = {f"os.path.{each}" for each in hiding} & used
            assert found <= ({"os.path.realpath"} if name == "file.fs" else set()), f"{name}: {found}"
