"""Finds the process that holds the lock of a file, and the program that it runs, as far as the system tells."""

from __future__ import annotations

import os
from collections.abc import Iterator

from pstate.file.fs import told
from pstate.signals import expected, tolerating


def holder(file: str | int) -> int | None:
    """The process that holds a `flock` on *file* (a path or a descriptor); None without one, or if it is unknown."""
    try:
        status = os.stat(file)
        found = [line.split() for line in told("/proc/locks").decode("ascii", "replace").splitlines()]
    except expected(OSError):
        return None
    device = os.major(status.st_dev), os.minor(status.st_dev)
    for fields in found:
        # 1: FLOCK  ADVISORY  WRITE 4711 fe:00:2146316 0 EOF        (processes that wait have "->" as second field)
        if len(fields) < 6 or fields[1] != "FLOCK":
            continue
        try:
            pid = int(fields[4])
            major, minor, inode = fields[5].split(":")
            place = (int(major, 16), int(minor, 16))
            is_same = int(inode) == status.st_ino
        except ValueError:
            continue
        # On btrfs and overlayfs, the device is not that of stat: then only an open file is proof.
        if pid > 0 and is_same and (place == device or _has_open(pid, status)):
            return pid
    return None


def _has_open(pid: int, status: os.stat_result) -> bool:
    folder = f"/proc/{pid}/fd"
    try:
        names = os.listdir(folder)
    except expected(OSError):
        return False
    for name in names:
        with tolerating(OSError):  # closed meanwhile
            if os.path.samestat(os.stat(f"{folder}/{name}"), status):
                return True
    return False


def program(pid: int) -> str | None:
    """The program of process *pid*, in a few words: ``python3 worker.py``. None if the system does not tell.

    Only the name of the program, and of the script for Python: the other arguments may be secrets.
    """
    try:
        words = os.fsdecode(told(f"/proc/{pid}/cmdline", 4096)).rstrip("\0").split("\0")
        if not words[0]:
            words = [os.fsdecode(told(f"/proc/{pid}/comm")).rstrip("\n")]
    except expected(OSError):
        return None
    shown = [os.path.basename(words[0])]
    if shown[0].startswith("python"):
        shown.extend(_script(iter(words[1:])))
    text = " ".join(shown)[:80]
    return "".join(letter if letter.isprintable() else "?" for letter in text) or None


def _script(words: Iterator[str]) -> list[str]:
    for word in words:
        if word == "-m":
            return ["-m", next(words, "")]
        if word in ("-X", "-W"):
            next(words, "")
        elif word.startswith("-"):
            if word in ("-", "-c"):
                return [word]
        else:
            return [os.path.basename(word)]
    return []
