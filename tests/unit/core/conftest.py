"""The cores that every test of the core runs on."""

from __future__ import annotations

import os

import pytest

from layertee.core.loading import inflater_name
from tests.support.cores import CORES, c_core_missing, not_built


@pytest.fixture(params=CORES)
def core(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """The name of a core, with one of its inflaters in use; C is skipped only where it is not demanded."""
    name, _, inflater = str(request.param).partition("-")
    if name == "c" and (why := c_core_missing() or not_built(inflater)):
        if os.environ.get("LAYERTEE_CORE") == "c":
            pytest.fail(why)
        pytest.skip(why)
    monkeypatch.setenv("LAYERTEE_INFLATE", inflater)
    assert inflater_name(name) == inflater
    return name
