"""The examples in Python are what a strict type checker takes; that they run is tested in test_docs.py."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.ccore import ROOT
from tests.support.pages import PAGES

pytestmark = pytest.mark.slow

# What a checker has to find, so that its silence about the others says something.
WRONG = """
from layertee import Options, SyncEngine

options: Options = Options(platform=7)
with SyncEngine("/srv", options=options) as engine:
    for layer in engine.plan("os:1", form="as-is").layerz:
        print(layer)
"""


def test_every_example_passes_a_strict_type_checker(tmp_path: Path) -> None:
    names = {}
    for page in PAGES:
        for number, text in enumerate(
            re.findall(r"^```python\n(.*?)^```$", page.read_text(encoding="utf-8"), re.S | re.M)
        ):
            example = tmp_path / f"{'_'.join(page.relative_to(ROOT).with_suffix('').parts)}_{number}.py"
            example.write_text(text, encoding="utf-8")
            names[example.name.replace("-", "_")] = example
    assert len(names) > 8
    for name, example in names.items():
        example.rename(tmp_path / name)
    (tmp_path / "wrong.py").write_text(WRONG, encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--no-error-summary", *sorted([*names, "wrong.py"])],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,  # away from this project's configuration
        timeout=300,
    )
    found = [line for line in done.stdout.splitlines() if ": error: " in line]
    assert [line for line in found if not line.startswith("wrong.py:")] == []
    assert {line.partition(": ")[0] for line in found} == {"wrong.py:4", "wrong.py:6"}, done.stderr
