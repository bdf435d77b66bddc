"""The demo runs in an environment that has what layertee runs with, and nothing of what tests need."""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import packages_distributions, requires

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.support.ccore import ROOT

# Refuses modules by their first names, which are its arguments.
_IMPORT = """
import sys

class Refusal:
    def find_spec(self, name, *rest):
        if name.partition(".")[0] in refused:
            raise ModuleNotFoundError(f"the demo imports {name}", name=name)

refused = set(sys.argv[1:])
sys.meta_path.insert(0, Refusal())
import bench.demo
"""


def _runs_with(name: str, found: set[str]) -> set[str]:
    """``found``, with the distribution ``name`` and all that it needs here, extras not asked for left out."""
    if name not in found:
        found.add(name)
        for line in requires(name) or ():
            needed = Requirement(line)
            if needed.marker is None or needed.marker.evaluate({"extra": ""}):
                _runs_with(canonicalize_name(needed.name), found)
    return found


def test_the_demo_imports_nothing_that_its_environment_has_not() -> None:
    there = _runs_with("layertee", {"pip"})
    refused = {
        module
        for module, names in packages_distributions().items()
        if not there & {canonicalize_name(name) for name in names} and not module.startswith("_")
    }
    assert {"pytest", "packaging", "trustme"} <= refused
    words = [sys.executable, "-c", _IMPORT, *sorted(refused)]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
