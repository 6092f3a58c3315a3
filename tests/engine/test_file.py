"""The file engine keeps what every engine promises."""

from __future__ import annotations

from pathlib import Path

from tools.disks import Disk
from tools.interrupts import Hurried

from engine.conformance import Conformance
from pstate.engine import Engine
from pstate.engines import Files


class TestFile(Conformance):
    def make_engine(self) -> Engine:
        return Files(Disk())

    def make_hurried_engine(self) -> Engine:
        return Files(Hurried())

    def make_address(self, tmp_path: Path) -> str:
        return str(tmp_path / "state.yaml")
