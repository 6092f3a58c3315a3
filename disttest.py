"""Build what is published into dist/, and try each of it in an environment of its own: `make dist`.

The wheel is for this Python. It must have the compiled part, and auditwheel makes it one for other systems. The source
is installed with a compiler and without one. Each installation commits a change and reads it back from the file.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import venv
from pathlib import Path
from tempfile import TemporaryDirectory
from zipfile import ZipFile

ROOT = Path(__file__).resolve().parent
DIST = ROOT / "dist"
TOOLS = Path(sys.executable).parent
COMPILED, PURE = "(compiled)", "(pure Python)"

#: What pyroma asks for and nobody can give: neither an address of the authors nor a home page exists.
NO_ADDRESSES = ("AuthorEmail", "Url")

#: Changes a file, in a transaction and without one; the command line adds another change.
TRIAL = """\
import sys
from pstate import PersistedState
with PersistedState("trial.yaml", counter=0, names=["a"]) as state:
    for _ in range(3):
        state.counter += 1
    with state.transaction():
        state.counter += 10
        state.names.append("b")
"""
IN_THE_FILE = "counter: 14\nnames:\n  - a\n  - b\n"


def run(*command: str | Path, cwd: Path = ROOT, **variables: str) -> str:
    """What *command* prints. If it fails, that is shown, and ends everything.

    Neither the settings of this package that are in the environment, nor modules of this folder, are for it.
    """
    print("$", *(f"{name}={value}" for name, value in variables.items()), *command, flush=True)
    rest = {name: value for name, value in os.environ.items() if not name.startswith(("PSTATE_", "PYTHONPATH"))}
    done = subprocess.run(
        command, cwd=cwd, env=rest | variables, check=False, stdout=subprocess.PIPE, text=True, timeout=300
    )
    if done.returncode:
        print(done.stdout)
    done.check_returncode()
    return done.stdout


def build() -> tuple[Path, Path]:
    """The wheel and the source in dist/, which has nothing else then."""
    shutil.rmtree(DIST, ignore_errors=True)
    # The wheel is built from the source that is published, not from this folder.
    run(sys.executable, "-m", "build", "--no-isolation", PSTATE_REQUIRE_SPEED="1")
    if sys.platform == "linux":
        (raw,) = DIST.glob("*.whl")
        path = os.pathsep.join([str(TOOLS), os.environ["PATH"]])  # for patchelf
        run(sys.executable, "-m", "auditwheel", "repair", "--wheel-dir", DIST, raw, PATH=path)
        raw.unlink()
    (wheel,) = DIST.glob("*.whl")
    (source,) = DIST.glob("*.tar.gz")
    run(sys.executable, "-m", "twine", "check", "--strict", wheel, source)
    rate(source)
    return wheel, source


def rate(source: Path) -> None:
    """Raise CalledProcessError unless the metadata of *source* is complete, except for addresses that do not exist."""
    run(TOOLS / "pyroma", "--file", "--min", "10", "--skip-tests", ",".join(NO_ADDRESSES), source)


def look_into(wheel: Path) -> None:
    """Raise AssertionError where *wheel* is not what this Python gets."""
    names = ZipFile(wheel).namelist()
    assert f"cp{sys.version_info[0]}{sys.version_info[1]}" in wheel.name, wheel.name
    assert sys.platform != "linux" or "manylinux" in wheel.name or "musllinux" in wheel.name, wheel.name
    assert [name.partition(".")[0] + "." for name in names if name.endswith(".so")] == ["pstate/_speed."], names
    assert [name for name in names if name.endswith(".c")] == [], names


def try_out(package: Path, flavour: str, **variables: str) -> None:
    """Install *package* with *variables* in the environment, and see that it works, in the *flavour* wanted."""
    with TemporaryDirectory() as name:
        folder = Path(name)
        venv.create(folder / "venv", symlinks=True)
        python = folder / "venv" / "bin" / "python"
        run(sys.executable, "-m", "pip", "--python", python, "install", "--quiet", package, cwd=folder, **variables)
        check(python, folder, flavour)
        if flavour == COMPILED:
            check(python, folder, PURE, PSTATE_PURE="1")


def check(python: Path, folder: Path, flavour: str, **variables: str) -> None:
    """Raise AssertionError where what is installed for *python* does not work, or is not of the *flavour* wanted."""
    file = folder / "trial.yaml"
    file.unlink(missing_ok=True)
    version = run(python.with_name("pstate"), "--version", cwd=folder, **variables)
    assert version.rstrip().endswith(flavour), version
    trial = folder / "trial.py"
    trial.write_text(TRIAL)
    run(python, trial, cwd=folder, **variables)
    run(python.with_name("pstate"), "incr", "trial.yaml", "counter", cwd=folder, **variables)
    assert file.read_text() == IN_THE_FILE, file.read_text()


def main() -> None:
    wheel, source = build()
    look_into(wheel)
    try_out(wheel, COMPILED)
    try_out(source, COMPILED, PSTATE_REQUIRE_SPEED="1")
    try_out(source, PURE, PATH=str(TOOLS))  # no compiler is found
    try_out(source, PURE, PSTATE_PURE="1")
    print(f"\n{wheel.name} and {source.name} are in dist/, and work")


if __name__ == "__main__":
    main()
