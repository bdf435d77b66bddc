"""``python -m tests.torture [--only NAME …] [--seed N] [--scale F] [--case CASE …] [--json FILE]``.

Runs every part of the fault machine, one after the other, and records the figures of each as it ends. SIGTERM
is as Ctrl-C: a part that can end early does, and is recorded with what it did. The exit status is 1 if a
promise was found broken; each such case is printed with the command that repeats it.
"""

from __future__ import annotations

import argparse
import pkgutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from types import FrameType

from tests.torture.results import Budget, record, results_path

_HERE = Path(__file__).parent
_SEED = 1

Part = Callable[[Budget], Mapping[str, object]]


def parts() -> dict[str, Part]:
    """Every module of this folder that has a function ``run``, by name."""
    names = sorted(module.name for module in pkgutil.iter_modules([str(_HERE)]))
    modules = {
        name: import_module(f"tests.torture.{name}") for name in names if not name.startswith(("test_", "__"))
    }
    return {name: module.run for name, module in modules.items() if hasattr(module, "run")}


def main(words: Sequence[str] | None = None) -> int:
    """The exit status."""
    found = parts()
    parser = argparse.ArgumentParser(prog="python -m tests.torture", description=__doc__)
    add = parser.add_argument
    add("--only", nargs="+", metavar="NAME", choices=list(found), help=f"of {', '.join(found)}; default: all")
    add("--seed", type=int, default=_SEED, help=f"of all that is chosen by chance (default: {_SEED})")
    add("--scale", type=float, default=1.0, help="the share of the full run to do (default: 1.0)")
    add("--case", nargs="+", default=[], metavar="CASE", help="run these cases only, and record nothing")
    add("--json", type=Path, metavar="FILE", help="record the figures in FILE; default: only of a full run")
    args = parser.parse_args(words)
    signal.signal(signal.SIGTERM, _end_early)
    path = args.json or (results_path() if args.scale >= 1.0 else None)
    broken = 0
    for name in args.only or list(found):
        budget = Budget(args.seed, args.scale, tuple(args.case))
        _say(f"== {name}: seed {budget.seed}, scale {budget.scale}")
        began = time.monotonic()
        figures = dict(found[name](budget))
        figures |= {"seed": budget.seed, "scale": budget.scale, "seconds": round(time.monotonic() - began)}
        figures["commit"] = _commit()
        _say(f"== {name}: {', '.join(f'{k} {v}' for k, v in figures.items() if not isinstance(v, list))}")
        findings = figures.get("findings", 0)
        assert isinstance(findings, int)
        broken += findings
        if path is not None and not budget.cases:
            _say(f"recorded in {record(name, figures, path)}")
    return 1 if broken else 0


def _end_early(number: int, frame: FrameType | None) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # timeout(1) sends it to the process, and to its group
    raise KeyboardInterrupt


def _commit() -> str:
    command = ["git", "-C", str(_HERE), "describe", "--always", "--dirty"]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
