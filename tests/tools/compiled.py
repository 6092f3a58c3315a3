"""The compiled part in a copy of the package, made from another source or in another way than `make speed` makes it."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sysconfig
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "pstate" / "_speed.c"


def copied(folder: Path) -> None:
    """Fill *folder* with the package, without the compiled part, and with its tests and what those need."""
    leave = shutil.ignore_patterns("*.so", "_speed.c", "__pycache__", "build-*")
    for name in ("pstate", "stress", "tests", "examples", "docs"):
        shutil.copytree(ROOT / name, folder / name, ignore=leave)
    shutil.copy(ROOT / "pyproject.toml", folder)


def compiled(source: str, folder: Path, flags: Sequence[str] = ("-O0", "-w")) -> None:
    """Compile *source* into the copy in *folder*. Raises ValueError with what the compiler says."""
    file = folder / "_speed.c"
    file.write_text(source)
    target = folder / "pstate" / f"_speed{sysconfig.get_config_var('EXT_SUFFIX')}"
    target.unlink(missing_ok=True)
    include = f"-I{sysconfig.get_path('include')}"
    command = [*compiler(), "-shared", "-fPIC", *flags, include, str(file), "-o", str(target)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    if done.returncode:
        raise ValueError(done.stderr)


def compiler() -> list[str]:
    """The C compiler, with what it is always told."""
    return shlex.split(os.environ.get("CC") or sysconfig.get_config_var("CC") or "cc")


def environment(folder: Path, **more: str) -> dict[str, str]:
    """The environment of a process that is to use the copy in *folder*."""
    path = os.pathsep.join([str(folder), str(folder / "tests")])
    return {**os.environ, "PYTHONPATH": path, "PSTATE_PURE": "", **more}
