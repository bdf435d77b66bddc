"""Units need nothing of the machine: no tool, no server, no root."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.alone import kept_inside


@pytest.fixture(autouse=True)
def _inside(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with kept_inside(tmp_path_factory.getbasetemp()):
        yield
