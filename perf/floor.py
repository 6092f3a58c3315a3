"""The floor of a commit and of a read: their system calls, made from C by a library that is built here."""

from __future__ import annotations

import ctypes
import functools
import os
import subprocess
import tempfile
from pathlib import Path

from perf.peers import Append


@functools.cache
def library() -> ctypes.CDLL | None:
    """`floor.c`, built by the C compiler of this machine; None where that is not possible."""
    with tempfile.TemporaryDirectory() as folder:
        built = os.path.join(folder, "floor.so")
        source = Path(__file__).with_name("floor.c")
        command = [os.environ.get("CC", "cc"), "-O2", "-shared", "-fPIC", "-o", built, str(source)]
        try:
            subprocess.run(command, check=True, capture_output=True)
            found = ctypes.CDLL(built)  # stays when its file is gone
        except (OSError, subprocess.CalledProcessError):
            return None
    found.commits.argtypes = [ctypes.c_int, ctypes.c_char_p, ctypes.c_char_p, ctypes.c_size_t, ctypes.c_long]
    found.looks.argtypes = [ctypes.c_int, ctypes.c_long]
    found.commits.restype = found.looks.restype = ctypes.c_long
    return found


class AppendFromC(Append):
    """As `Append`, without the Python between the calls."""

    label = "the same calls, made from C"
    needs = "a C compiler"
    path: bytes | None = None  #: what it looks at after each write

    @classmethod
    def missing(cls) -> str:
        return cls.needs if library() is None else ""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        found = library()
        assert found is not None  # or it is `missing`
        self.library = found

    def count(self, times: int) -> None:
        done = self.library.commits(self.fd, self.path, self.record, len(self.record), times)
        if done != times:
            raise OSError(f"only {done} of {times} records were written")

    def read(self, times: int) -> None:
        if self.library.looks(self.fd, times) != times:
            raise OSError("the end of the file was not found")


class AppendAndLookFromC(AppendFromC):
    """With a look at the path after each write: what it would take to see every save by rename at once."""

    label = "these, and a stat of the path"

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.path = os.fsencode(folder / "log")
