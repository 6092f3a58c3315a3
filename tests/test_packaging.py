"""The compiled part is optional: what is built with a compiler and without one, and that nothing old is run.

`make dist` tries the same by pip, in fresh environments; here, nothing asks the network.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import tomllib
from pathlib import Path
from types import SimpleNamespace
from zipfile import ZipFile

import pytest

import hatch_build
from pstate import speed

ROOT = Path(__file__).parent.parent
PARTS = ("pyproject.toml", "README.md", "LICENSE", ".gitignore", "hatch_build.py", "pstate")
NO_COMPILER = "/nonexistent/cc"
WARNING = "the compiled part is left out, which only costs speed: "
#: Compiles at once. It has what an extension needs for being built, not for being used.
TINY = "#include <Python.h>\nPyMODINIT_FUNC PyInit__speed(void) { return PyErr_NewException(PSTATE_SOURCE, 0, 0); }\n"
WARNED_OF = f"{TINY}static int unused;\n"
BROKEN = f"{TINY}int main(\n"


def why_not() -> str:
    """Why nothing can be compiled here, or nothing."""
    if not hatch_build.is_supported():
        return "the compiled part is not for this Python, or this system"
    try:
        hatch_build.look_for_tools()
    except hatch_build.NoCompilerError as error:
        return str(error)
    return ""


compiles = pytest.mark.skipif(bool(why_not()), reason=why_not())


class Checkout:
    """A copy of the package, and what its build hook does there."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.source = root / "pstate" / "_speed.c"
        self.extension = root / "pstate" / hatch_build.NAME
        ignored = shutil.ignore_patterns("*.so", "__pycache__", "build-*")
        for part in PARTS:
            if (ROOT / part).is_dir():
                shutil.copytree(ROOT / part, root / part, ignore=ignored)
            else:
                shutil.copy2(ROOT / part, root)

    def run(self, *words: str, folder: Path | None = None, **variables: str) -> subprocess.CompletedProcess[str]:
        """Run Python with *words*, and the package of *folder* instead of this one."""
        rest = {name: value for name, value in os.environ.items() if not name.startswith(("PSTATE_", "CC", "CFLAGS"))}
        place = {"PYTHONPATH": str(folder or self.root), "PYTHONDONTWRITEBYTECODE": "1"}  # not that of the tests
        return subprocess.run(
            [sys.executable, *words],
            cwd=folder or self.root,
            env=rest | place | variables,
            capture_output=True,
            text=True,
            check=False,
            timeout=50,
        )

    def build(self, target: str, **variables: str) -> tuple[Path, str]:
        """The wheel or source distribution, and what was said while it was built."""
        done = self.run("-c", f"from hatchling.build import *; print(build_{target}('.'))", **variables)
        assert 0 == done.returncode, done.stderr
        return self.root / done.stdout.strip(), done.stderr

    def version(self, *options: str, folder: Path | None = None, **variables: str) -> str:
        """What `pstate --version` says of the flavour, on both of its streams."""
        done = self.run(*options, "-m", "pstate", "--version", folder=folder, **variables)
        assert 0 == done.returncode, done.stderr
        return done.stderr + done.stdout.partition("(")[2].rstrip(")\n")


@pytest.fixture
def checkout(tmp_path: Path) -> Checkout:
    (tmp_path / "checkout").mkdir()
    return Checkout(tmp_path / "checkout")


def extensions(names: list[str]) -> list[str]:
    return [name for name in names if name.startswith("pstate/_speed.") and not name.endswith(".pyi")]


def tag() -> str:
    return f"cp{sys.version_info[0]}{sys.version_info[1]}"


@compiles
def test_a_wheel_has_the_extension_without_its_source(checkout: Checkout, tmp_path: Path) -> None:
    wheel, said = checkout.build("wheel", PSTATE_REQUIRE_SPEED="1")
    unpacked = tmp_path / "unpacked"
    with ZipFile(wheel) as file:
        file.extractall(unpacked)

    assert "" == said
    assert wheel.name.startswith(f"pstate-{version()}-{tag()}-{tag()}-")
    assert [f"pstate/{hatch_build.NAME}"] == extensions(ZipFile(wheel).namelist())
    assert "compiled" == checkout.version(folder=unpacked)
    assert "pure Python" == checkout.version(folder=unpacked, PSTATE_PURE="1")


@pytest.mark.parametrize(
    ("variables", "reason"),
    [
        pytest.param({"CC": NO_COMPILER}, f"there is no C compiler ({NO_COMPILER})", id="no compiler"),
        pytest.param({"PSTATE_PURE": "1"}, "", id="unwanted"),
        pytest.param({"PSTATE_PURE": "1", "PSTATE_REQUIRE_SPEED": "1"}, "", id="unwanted above all"),
    ],
)
def test_what_cannot_be_compiled_is_left_out(
    checkout: Checkout, tmp_path: Path, variables: dict[str, str], reason: str
) -> None:
    """The package is then for every Python. It has no extension that is beside the source either."""
    if reason and not hatch_build.is_supported():
        pytest.skip(why_not())
    checkout.extension.write_bytes(b"of another time")

    wheel, said = checkout.build("wheel", **variables)
    unpacked = tmp_path / "unpacked"
    with ZipFile(wheel) as file:
        file.extractall(unpacked)

    assert said == (f"pstate: {WARNING}{reason}\n" if reason else "")
    assert f"pstate-{version()}-py3-none-any.whl" == wheel.name
    assert [] == extensions(ZipFile(wheel).namelist())
    assert "pure Python" == checkout.version(folder=unpacked)


@compiles
@pytest.mark.parametrize(("source", "fails"), [(WARNED_OF, False), (BROKEN, True)], ids=["a warning", "an error"])
def test_what_the_compiler_says_stops_nobody_who_does_not_ask_for_it(
    checkout: Checkout, source: str, fails: bool
) -> None:
    checkout.source.write_text(source)

    asked = checkout.run("hatch_build.py", PSTATE_REQUIRE_SPEED="1")
    assert (1, False) == (asked.returncode, checkout.extension.exists())
    assert "pstate: the compiled part cannot be built: " in asked.stderr

    done = checkout.run("hatch_build.py")
    assert (0, fails) == (done.returncode, not checkout.extension.exists())
    assert fails == (WARNING in done.stderr)
    assert ("unused" in done.stderr) != fails


def test_where_it_is_required_it_is_an_error_that_there_is_no_compiler(checkout: Checkout) -> None:
    done = checkout.run("hatch_build.py", CC=NO_COMPILER, PSTATE_REQUIRE_SPEED="1")

    assert 1 == done.returncode
    assert done.stderr.startswith("pstate: the compiled part ")


def test_missing_headers_are_told_in_one_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(sysconfig, "get_path", lambda name: str(tmp_path))
    monkeypatch.setenv("CC", sys.executable)

    with pytest.raises(hatch_build.NoCompilerError, match=r"headers.* are missing \(.*Python\.h\)$"):
        hatch_build.look_for_tools()


@pytest.mark.parametrize("other", ["PyPy", "Windows", "free-threaded"])
def test_other_systems_get_the_pure_package(monkeypatch: pytest.MonkeyPatch, other: str) -> None:
    """No warning: nobody there can do anything about it."""
    monkeypatch.delenv("PSTATE_PURE", raising=False)
    with monkeypatch.context() as patch:
        if other == "PyPy":
            patch.setattr(sys, "implementation", SimpleNamespace(name="pypy"))
        elif other == "Windows":
            patch.setattr(os, "name", "nt")
        else:
            patch.setattr(sysconfig, "get_config_var", {"Py_GIL_DISABLED": 1}.get)
        patch.delenv("PSTATE_REQUIRE_SPEED", raising=False)
        wanted = hatch_build.is_wanted()
        patch.setenv("PSTATE_REQUIRE_SPEED", "1")
        with pytest.raises(SystemExit) as error:
            hatch_build.is_wanted()

    assert not wanted
    assert "CPython with a GIL" in str(error.value)


@compiles
def test_in_a_checkout_only_what_is_of_the_source_is_run(checkout: Checkout) -> None:
    """A changed source is compiled by the next make; a program that is started before runs in pure Python."""
    checkout.run("hatch_build.py")
    assert "compiled" == checkout.version("-W", "error")
    before = checkout.extension.stat()

    checkout.run("hatch_build.py")
    assert before.st_ino == checkout.extension.stat().st_ino

    checkout.source.write_text(f"{checkout.source.read_text()}\n/* changed */\n")
    said = checkout.version()
    assert "_speed.c has changed since it was compiled" in said
    assert said.endswith("pure Python")

    checkout.run("hatch_build.py")
    assert "compiled" == checkout.version("-W", "error")


@compiles
def test_an_extension_of_another_source_does_not_stay(checkout: Checkout) -> None:
    """Where the new source cannot be compiled, the tests run in pure Python, without a warning at each import."""
    checkout.extension.write_bytes(b"of another time")

    done = checkout.run("hatch_build.py", CC=NO_COMPILER)

    assert f"pstate: {WARNING}there is no C compiler ({NO_COMPILER})\n" == done.stderr
    assert "pure Python" == checkout.version("-W", "error")
    assert [] == list((checkout.root / "pstate").glob("build-*"))


@compiles
def test_an_editable_install_compiles_beside_the_source(checkout: Checkout) -> None:
    """So the package that is imported has it; the wheel that pip makes of it has only the way there."""
    checkout.source.write_text(TINY)

    wheel, said = checkout.build("editable")

    assert "" == said
    assert checkout.extension.exists()
    assert [] == extensions(ZipFile(wheel).namelist())


def test_the_source_distribution_has_what_compiling_needs(checkout: Checkout) -> None:
    checkout.extension.write_bytes(b"of this machine")

    built, _ = checkout.build("sdist")
    with tarfile.open(built) as file:
        names = {name.partition("/")[2] for name in file.getnames()}

    assert {"hatch_build.py", "pstate/_speed.c", "pstate/_speed.pyi", "pyproject.toml"} <= names
    assert [] == [name for name in names if name.endswith(".so")]


def test_an_environment_compiles_with_what_a_build_requires() -> None:
    """`make speed` does not make an environment of its own, as pip would."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))

    assert set(project["build-system"]["requires"]) <= set(project["dependency-groups"]["build"])


def test_what_was_built_is_run_here() -> None:
    """Otherwise the tests of the compiled part would test pure Python. It may be installed, or in this checkout."""
    spec = importlib.util.find_spec("pstate._speed")

    assert speed.compiled == (spec is not None and not os.environ.get("PSTATE_PURE"))
    assert speed.compiled or not os.environ.get("PSTATE_REQUIRE_SPEED") or os.environ.get("PSTATE_PURE")


@pytest.mark.skipif(not speed.compiled, reason="nothing is compiled here")
def test_a_subinterpreter_runs_in_pure_python() -> None:
    """The extension keeps what it knows of the classes once for a process."""
    new = "_interpreters" if sys.version_info >= (3, 13) else "_xxsubinterpreters"
    inside = "import pstate.speed; assert not pstate.speed.compiled"
    script = (
        f"import {new} as i, pstate.speed; assert pstate.speed.compiled\n"
        f"failed = i.run_string(i.create(), {inside!r}); assert failed is None, failed"
    )

    subprocess.run([sys.executable, "-c", script], check=True, timeout=50)


def version() -> str:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    return str(project["project"]["version"])
