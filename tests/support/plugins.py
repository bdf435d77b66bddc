"""What a conftest registers, so that all tests run by the same rules from whatever folder they are taken."""

from __future__ import annotations

import pytest


def register(config: pytest.Config) -> None:
    """The plugins of this project. Any number of times."""
    for name in ("late", "ready", "spread"):
        config.pluginmanager.import_plugin(f"tests.support.{name}")
