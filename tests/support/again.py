"""Whether what failed beside other tests may be run once more by itself: a few tests, out of thousands.

    python -m tests.support.again

ends with 0 if the last run of pytest had one to three failures, else with 1. Two cores that do five things
at once show what no machine of a user shows: a test that only then fails is to be mended, but says nothing of
the change. What fails twice, or in greater number, fails the run.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Final

__all__ = ["MOST", "failed"]

MOST: Final = 3
_RECORD: Final = Path(__file__).resolve().parents[2] / ".pytest_cache" / "v" / "cache" / "lastfailed"


def failed(record: Path) -> list[str]:
    """The tests that failed last, as pytest's cache has them in ``record``; empty where there is none."""
    try:
        return sorted(json.loads(record.read_text()))
    except FileNotFoundError:
        return []


if __name__ == "__main__":
    tests = failed(_RECORD)
    sys.exit(0 if 1 <= len(tests) <= MOST else 1)
