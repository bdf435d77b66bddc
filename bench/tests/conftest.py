"""The rules of all tests."""

from __future__ import annotations

import pytest

from tests.support import plugins


def pytest_configure(config: pytest.Config) -> None:
    """They are in modules."""
    plugins.register(config)
