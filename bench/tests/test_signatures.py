"""The bench of signatures runs: every way of signing is accepted, and a row is printed for it."""

from __future__ import annotations

import pytest

from bench.signatures import main


@pytest.mark.slow
def test_every_way_is_a_row(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--runs", "1"]) == 0
    said = capsys.readouterr().out
    assert "| no signature is asked for |" in said
    for way in ("a key", "Fulcio and Rekor", "signedBy", "a workflow's bundle"):
        assert way in said
