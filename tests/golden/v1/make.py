"""Write the golden files of format version 1 again: ``python make.py``, with this checkout on the PYTHONPATH.

They were written once, with the first version of the format. Run it only to add a case: a change of an old file means
that the format has changed, and then that is a new version with a folder of its own. PyYAML writes `expected.yml`.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any
from zlib import crc32

import yaml

from pstate import PersistedState
from pstate.file.fs import FileSystem

HERE = Path(__file__).parent
BASE = b"# how far the program has come\ncounter: 3  # of 100\nkey:\n  nested: 2\nlog: []\n"


class Fixed(FileSystem):
    """The same generation and boot in every run, so that a file changes only when the format does."""

    def token(self) -> str:
        return "5f2c81d0"

    def boot_id(self) -> str:
        return "0b007001"


def every_operation(state: PersistedState) -> None:
    state["counter"] = 4
    state["log"].extend(["b", "c", "a"])
    state["log"].insert(0, "first")
    state["log"].sort()
    state["log"][1:3] = ["x", "y", "z"]
    del state["log"][0]
    state["seen"] = {1, "two"}
    state["seen"].add(b"\0\xff")
    state["seen"].discard(1)
    with state.transaction():
        state["key"]["nested"] = {"deep": [1, 2.5e300, None, True]}
        state["key"][3] = date(2024, 2, 29)
    del state["counter"]


def every_kind_of_value(state: PersistedState) -> None:
    values: dict[Any, Any] = {
        "none": None, "yes": True, "int": -(10**30), "float": 1e16, "zero": -0.0,
        "inf": float("inf"), "nan": float("nan"),
        "text": "\u00e9 \U0001f600 \x7f \u2028 \ufeff \ufffe\n... # pstate 1\n", "NO": "1e3",
        "bytes": bytes(range(256)),
        "date": date(1, 1, 1), "naive": datetime(2024, 2, 29, 12, 0, 0, 1),
        "aware": datetime(2024, 2, 29, 12, tzinfo=UTC),
        "k" * 1100: {"k" * 1100: 1}, "nested": [[], {}, set(), [{"a": {"b": {1, 2.5, None}}}]],
    }  # fmt: skip
    for key, value in values.items():
        state[key] = value
    state[None] = state[True] = state[-2] = state[2.5] = state[b"k"] = state[date(2024, 2, 29)] = "keys"


def power_commits(state: PersistedState) -> None:
    state["counter"] = 4
    state["counter"] = 5


def five_commits(state: PersistedState) -> None:
    for number in range(4, 9):
        state["counter"] = number


def main() -> None:
    expected: dict[str, Any] = {}

    def case(name: str, data: bytes, state: Any = None, error: str = "") -> None:
        HERE.joinpath(name).write_bytes(data)
        expected[name] = {"error": error} if error else {"state": state}

    def write(
        work: Callable[[PersistedState], None], base: bytes, close: bool = False, **options: Any
    ) -> tuple[bytes, dict[Any, Any]]:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "state.yaml")
            path.write_bytes(base)
            state = PersistedState.open(path, fs=Fixed(), **options)
            work(state)
            contents = state.snapshot()
            killed = path.read_bytes()
            state.close()
            return (path.read_bytes() if close else killed), contents

    killed, state = write(every_operation, BASE)
    case("operations-killed.yaml", killed, state)
    case("operations-closed.yaml", *write(every_operation, BASE, close=True))
    case("values-killed.yaml", *write(every_kind_of_value, b""))
    case("values-closed.yaml", *write(every_kind_of_value, b"", close=True))
    case("comments-only-killed.yaml", *write(power_commits, b"# nothing yet\n"))
    case("crlf-killed.yaml", *write(power_commits, BASE.replace(b"\n", b"\r\n")))
    case("bom-killed.yaml", *write(power_commits, b"\xef\xbb\xbf" + BASE))
    case("saved-with-crlf.yaml", killed.replace(b"\n", b"\r\n"), state)
    case("not-appendable-killed.yaml", *write(power_commits, b"text: |+\n  t"))

    small, _ = write(power_commits, BASE)
    power, after = write(power_commits, BASE, durability="power")
    case("power-killed.yaml", power, after)
    once, counter_4 = write(lambda s: s.update(counter=4), BASE)
    case("torn-record.yaml", small[:-10], counter_4)
    case("torn-first-record.yaml", once[:-10], yaml.safe_load(BASE))
    case("torn-marker.yaml", small[: len(BASE) + 30], yaml.safe_load(BASE))
    case("torn-trailer.yaml", small + b"--- # pstate moved 5f2c81d0 00", after)
    case("dead-trailer.yaml", small + dead_trailer(small), after)
    case("edited-above-the-journal.yaml", small.replace(b"nested: 2", b"nested: 5"), error="EditConflict")
    longer, _ = write(five_commits, BASE)
    synced, _ = write(five_commits, BASE, durability="power")
    case("power-damaged.yaml", synced.replace(b'"counter",5', b'"counter",6', 1), error="CorruptStateError")
    # Whoever reads it has another boot id, so a power cut explains the hole.
    case("hole-after-reboot.yaml", longer.replace(b'"counter",5', b"\0" * 11, 1), counter_4)
    case("newer-version.yaml", small.replace(b"# pstate 1 ", b"# pstate 2 "), error="InvalidStateError")

    header = "# What the files beside this one hold, or why they are refused. Written by make.py.\n"
    text = yaml.safe_dump(expected, allow_unicode=False, sort_keys=False)
    HERE.joinpath("expected.yml").write_text(header + text, encoding="utf-8", newline="\n")


def dead_trailer(data: bytes) -> bytes:
    """What a vacuum leaves that died before its exchange."""
    return b"--- # pstate moved 5f2c81d0 0000000060 1234abcd 0000000002 %08x\n" % crc32(data)


if __name__ == "__main__":
    os.umask(0o022)
    main()
