"""The bench of the sandbox runs, and what it measures is more than nothing."""

from __future__ import annotations

import re

import pytest

from bench.sandbox import main
from layertee.sandbox.enter import support


@pytest.mark.slow
def test_the_step_costs_something(capsys: pytest.CaptureFixture[str]) -> None:
    if support().lacking:
        assert main(["--runs", "2"]) == 1
        return
    assert main(["--runs", "2"]) == 0
    rows = re.findall(r"\| (.*) \| (\S+) \| (\S+) \| (\S+) \|", capsys.readouterr().out)
    found = {name: [float(text) for text in numbers] for name, *numbers in rows if name != "ms"}
    assert set(found) == {"wall, whole commands", "CPU, whole commands", "CPU, the step itself"}
    low, middle, high = found["CPU, the step itself"]
    assert 0 < low <= middle <= high
