"""`crash_at_every_step` as a fixture, if your ``conftest.py`` has this line:

pytest_plugins = ["pstate.testing.pytest_plugin"]

It is not an entry point, because that would import the package at the start of every run of pytest.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest

from pstate.testing.crash import CrashReport
from pstate.testing.crash import crash_at_every_step as function


@pytest.fixture(name="crash_at_every_step", scope="session")
def _fixture() -> Callable[..., CrashReport]:
    """See `pstate.testing.crash_at_every_step`."""
    return function
