"""The tests of the compiled part under the sanitizers of the compiler, for addresses and for undefined behaviour.

``python -m tools.sanitized [ARGUMENT ...]`` (`make test-sanitized`), the arguments are those of pytest.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from tools.compiled import SOURCE, compiled, compiler, copied, environment

FLAGS = ("-fsanitize=address,undefined", "-fno-sanitize-recover=undefined", "-fno-omit-frame-pointer", "-O1", "-g")

#: The modules whose tests go through the compiled part, and that take a few minutes together.
MODULES = (
    "test_speed.py", "test_speed_classes.py", "test_speed_finalizers.py", "test_speed_memory.py", "test_containers.py",
    "test_transaction.py", "test_store.py", "test_state.py", "test_durability.py", "test_descriptors.py",
    "test_vacuum.py", "test_watch.py", "test_looks.py", "test_roundtrip.py", "test_group_commit.py", "test_model.py",
    "test_users.py",
)  # fmt: skip


def library(name: str) -> str:
    """Where the compiler has the library *name*; "" if it has none."""
    command = [*compiler(), f"-print-file-name={name}"]
    found = subprocess.run(command, capture_output=True, text=True, check=False, timeout=20).stdout.strip()
    return found if Path(found).is_absolute() and Path(found).exists() else ""


def main(arguments: list[str]) -> int:
    libraries = [library("libasan.so"), library("libubsan.so")]
    if not all(libraries):
        print(f"skipped: {' '.join(compiler())} has no libasan.so and libubsan.so")
        return 0
    with TemporaryDirectory() as folder:
        copied(Path(folder))
        try:
            compiled(SOURCE.read_text(), Path(folder), FLAGS)
        except ValueError as error:
            print(f"skipped: the compiler knows no sanitizers: {error}")
            return 0
        command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "--timeout=300", *arguments]
        return subprocess.run(
            [*command, *(f"tests/{name}" for name in MODULES)],
            cwd=folder,
            env=environment(
                Path(folder),
                LD_PRELOAD=" ".join(libraries),  # Python itself is not compiled with them
                # Python never frees what lives as long as it does, so all of that would count as leaks.
                ASAN_OPTIONS="detect_leaks=0:detect_odr_violation=0",
                UBSAN_OPTIONS="print_stacktrace=1",
                PYTHONMALLOC="malloc",  # an allocator of Python's own would hide what is read after it was freed
            ),
            check=False,
        ).returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
