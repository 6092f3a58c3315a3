"""The engine in memory keeps what every engine promises."""

from __future__ import annotations

from pathlib import Path

from engine.conformance import Conformance
from pstate.engine import Engine
from pstate.testing.memory import MemoryEngine


class TestMemory(Conformance):
    def make_engine(self) -> Engine:
        return MemoryEngine()

    def make_address(self, tmp_path: Path) -> str:
        return "the state of a test"
