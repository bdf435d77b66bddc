"""How much a part of the fault machine does, what it found, and where its figures are kept."""

from __future__ import annotations

import datetime
import fcntl
import json
import os
import platform
import random
import shlex
import sys
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

__all__ = ["Budget", "Finding", "Findings", "record", "results_path"]

_ROOT = Path(__file__).resolve().parents[2]
_LISTED = 50  # findings that a report has in full; all are counted


@dataclass(frozen=True, slots=True)
class Budget:
    """How many cases a part makes, and which of them.

    The same ``seed`` and ``scale`` make the same choices; ``scale`` 1.0 is the full run. ``cases``, where it
    is not empty, names the only ones to run: that is how one that failed is repeated.
    """

    seed: int
    scale: float
    cases: tuple[str, ...] = ()

    def count(self, full: int, least: int = 1) -> int:
        """``full`` cases at scale 1.0, in proportion otherwise, but ``least``."""
        return max(least, round(full * self.scale))

    def random(self, *about: object) -> random.Random:
        """A generator for one purpose: what is drawn for another does not change what it gives."""
        return random.Random(repr((self.seed, *about)))

    def wants(self, case: str) -> bool:
        """Whether ``case`` is among those to run."""
        return not self.cases or case in self.cases

    def repeat(self, part: str, case: str) -> str:
        """The command that runs ``case`` of ``part``, and nothing else, as it was run."""
        words = ["python", "-m", "tests.torture", "--only", part, "--seed", str(self.seed)]
        return shlex.join([*words, "--scale", str(self.scale), "--case", case])


@dataclass(frozen=True, slots=True)
class Finding:
    """A case in which a promise was broken: ``what`` happened, and the command that ``repeat``s it."""

    case: str
    what: str
    repeat: str


@dataclass(slots=True)
class Findings:
    """What a part has found so far. Any number of threads may add; each finding is printed as it is made."""

    part: str
    budget: Budget
    found: list[Finding] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def add(self, case: str, what: object) -> None:
        """``case`` broke a promise; ``what`` is usually the exception that says so."""
        finding = Finding(case, str(what) or repr(what), self.budget.repeat(self.part, case))
        with self._lock:
            self.found.append(finding)
            sys.stdout.write(f"FOUND {self.part} {case}: {finding.what}\n  repeat: {finding.repeat}\n")
            sys.stdout.flush()

    def figures(self) -> dict[str, object]:
        """``findings``, a number, and ``found``, the first of them in full: part of what ``run`` returns."""
        listed = [
            {"case": one.case, "what": one.what[-4000:], "repeat": one.repeat} for one in self.found[:_LISTED]
        ]
        return {"findings": len(self.found), "found": listed}


def results_path(directory: Path = _ROOT / "bench" / "results") -> Path:
    """Where the figures of this day are kept: ``torture-DATE.json``."""
    return directory / f"torture-{datetime.date.today()}.json"


def record(part: str, figures: Mapping[str, object], path: Path | None = None) -> Path:
    """Write the figures of ``part`` into ``path`` (default: ``results_path()``), beside those of other parts.

    Earlier figures of the same part are replaced. Any number of processes may record at once.
    """
    path = path or results_path()
    path.parent.mkdir(parents=True, exist_ok=True)
    directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(directory, fcntl.LOCK_EX)
        document: dict[str, Any] = {"schema": 1, "machine": _machine(), "parts": {}}
        if path.exists():
            document = json.loads(path.read_text())
        document["parts"][part] = figures
        document["parts"] = dict(sorted(document["parts"].items()))
        temporary = path.with_suffix(".tmp")
        temporary.write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n")
        temporary.rename(path)
    finally:
        os.close(directory)
    return path


def _machine() -> dict[str, object]:
    return {
        "kernel": platform.release(),
        "n_cpus": len(os.sched_getaffinity(0)),
        "python": platform.python_version(),
    }
