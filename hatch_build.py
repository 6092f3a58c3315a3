"""Compile `pstate/_speed.c`, which is optional: a build hook of hatchling, and a command for checkouts.

A wheel gets the extension, or becomes the pure package `py3-none-any` where it cannot be compiled. An editable install
gets it beside its source, as `python hatch_build.py` does (`make speed`), which compiles only what has changed.

`PSTATE_PURE=1` makes the pure package. `PSTATE_REQUIRE_SPEED=1` makes a warning of the compiler, and everything that
keeps the extension from being compiled, an error.
"""

from __future__ import annotations

import os
import shlex
import shutil
import sys
import sysconfig
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from zlib import crc32

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

ROOT = Path(__file__).resolve().parent
SOURCE = ROOT / "pstate" / "_speed.c"
NAME = f"_speed{sysconfig.get_config_var('EXT_SUFFIX')}"


class NoCompilerError(Exception):
    """The extension could be used here, but it cannot be compiled. Says why."""


class SpeedHook(BuildHookInterface[Any]):
    """Puts the extension into a wheel, or beside its source in an editable install."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        self.folder = TemporaryDirectory()
        if not is_wanted():
            return
        if version == "editable":
            compile_in_place()
            return
        with optional():
            extension = compile_extension(Path(self.folder.name))
            build_data["force_include"][str(extension)] = f"pstate/{NAME}"
            build_data["pure_python"] = False
            build_data["infer_tag"] = True

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        self.folder.cleanup()


def is_wanted() -> bool:
    """Whether the extension is to be compiled."""
    if os.environ.get("PSTATE_PURE"):
        return False
    if required() and not is_supported():
        sys.exit("pstate: the compiled part is for CPython with a GIL, on a POSIX system")
    return is_supported()


def is_supported() -> bool:
    """Whether this is CPython with a GIL, on a POSIX system."""
    return (
        os.name == "posix" and sys.implementation.name == "cpython" and not sysconfig.get_config_var("Py_GIL_DISABLED")
    )


def required() -> bool:
    return bool(os.environ.get("PSTATE_REQUIRE_SPEED"))


@contextmanager
def optional() -> Iterator[None]:
    """What keeps the extension from being compiled in this function is a warning, or an error if it is required."""
    try:
        yield
    except (NoCompilerError, OSError) as error:
        if required():
            sys.exit(f"pstate: the compiled part cannot be built: {error}")
        print(f"pstate: the compiled part is left out, which only costs speed: {error}", file=sys.stderr)


def compile_in_place() -> None:
    """Compile the extension beside its source, unless it already exists and nothing has changed.

    An earlier result of another source is removed, even if no new one follows. A program that has loaded it
    keeps it.
    """
    target = SOURCE.with_name(NAME)
    current = is_current(target)
    if current and not required():
        return
    with optional(), TemporaryDirectory(dir=SOURCE.parent, prefix="build-") as folder:
        if not current:
            target.unlink(missing_ok=True)
        compile_extension(Path(folder)).replace(target)


def is_current(extension: Path) -> bool:
    """Whether *extension* was compiled from the source as it is now, in the way that this file says."""
    try:
        return (
            stamp().encode() in extension.read_bytes() and extension.stat().st_mtime >= Path(__file__).stat().st_mtime
        )
    except FileNotFoundError:
        return False


def stamp() -> str:
    """What tells the source from its other versions: `pstate.speed` compares it with that of the extension."""
    return f"source {crc32(SOURCE.read_bytes()):08x}"


def compile_extension(folder: Path) -> Path:
    """Compile the extension into *folder*, as optimised as this Python is; `CC`, `CFLAGS` and `LDFLAGS` are heeded."""
    look_for_tools()
    from setuptools import Distribution, Extension  # takes 0.2 s
    from setuptools.command.build_ext import build_ext

    extension = Extension(
        "_speed",
        [str(SOURCE)],
        define_macros=[("PSTATE_SOURCE", f'"{stamp()}"')],
        extra_compile_args=["-Wall", "-Wextra", *(["-Werror"] if required() else [])],
    )
    command = build_ext(Distribution({"ext_modules": [extension]}))
    command.build_lib = command.build_temp = str(folder)
    command.ensure_finalized()
    try:
        command.run()
    except Exception as error:  # whatever it is: nobody needs what is optional so much that an installation may fail
        raise NoCompilerError(str(error)) from error
    return folder / NAME


def look_for_tools() -> None:
    """Raise NoCompilerError, in one line, for what is usually missing. A compiler would say it in many."""
    compiler = shlex.split(os.environ.get("CC") or sysconfig.get_config_var("CC") or "cc")[0]
    if not shutil.which(compiler):
        raise NoCompilerError(f"there is no C compiler ({compiler})")
    header = Path(sysconfig.get_path("include"), "Python.h")
    if not os.access(header, os.R_OK):
        raise NoCompilerError(f"Python's headers, such as those of the package python3-dev, are missing ({header})")


if __name__ == "__main__" and is_wanted():
    compile_in_place()
