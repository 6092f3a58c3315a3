"""What every engine promises, and the engines that are held to it."""

import pytest

pytest.register_assert_rewrite("engine.conformance")
