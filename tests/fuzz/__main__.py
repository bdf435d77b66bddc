"""``python -m tests.fuzz [--only NAME …] [--seconds N] [--json FILE]``.

Fuzzes the decoders and the parsers, one after the other, each for that long, and prints the executions of
each. The exit status is 1 if an input was found that breaks what must hold; it is printed in hex, and kept.
"""

from __future__ import annotations

import argparse
import datetime
import json
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from tests.fuzz import decoders, running
from tests.fuzz.decoders import TARGETS, Outcome
from tests.fuzz.parsers import PARSERS
from tests.support.ccore import fuzzing_missing


def main(words: Sequence[str] | None = None) -> int:
    """The exit status."""
    names = [*TARGETS, *PARSERS]
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    add = parser.add_argument
    add("--only", nargs="+", metavar="NAME", choices=names, help=f"of {', '.join(names)}; default: all")
    add("--seconds", type=int, default=60, help="for each target (default: 60)")
    add("--json", type=Path, metavar="FILE", help="add the figures to FILE")
    args = parser.parse_args(words)
    broken = 0
    for name in args.only or names:
        if why := fuzzing_missing() if name in TARGETS else running.missing():
            _say(f"{name}: skipped: {why}")
            continue
        directory = Path(tempfile.mkdtemp(prefix=f"layertee-fuzz-{name}-"))
        began = time.monotonic()
        outcome = _run(name, args.seconds, directory)
        seconds = time.monotonic() - began
        rate = outcome.executions / max(seconds, 1)
        _say(f"{name}: {outcome.executions} executions in {seconds:.0f} s, {rate:.0f} a second ({directory})")
        if outcome.problem:
            broken += 1
            _say(outcome.problem)
        if args.json is not None:
            _record(args.json, name, outcome, seconds)
    return 1 if broken else 0


def _run(name: str, seconds: int, directory: Path) -> Outcome:
    if name in TARGETS:
        return decoders.fuzz(name, seconds, directory)
    return running.fuzz(PARSERS[name], seconds, directory)


def _record(path: Path, name: str, outcome: Outcome, seconds: float) -> None:
    """What earlier runs came to is added up."""
    figures = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    known = figures.setdefault("targets", {}).setdefault(name, {"executions": 0, "seconds": 0, "findings": 0})
    known["executions"] += outcome.executions
    known["seconds"] += round(seconds)
    known["findings"] += bool(outcome.problem)
    figures["date"] = datetime.datetime.now(datetime.UTC).date().isoformat()
    path.write_text(json.dumps(figures, indent=1, sort_keys=True) + "\n", encoding="utf-8")


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
