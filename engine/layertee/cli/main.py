"""The program's entry. Ctrl-C is answered in here too, so this module imports next to nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

_INTERRUPTED = 130


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; the exit code. Raises SystemExit where the arguments have an answer of their own.

    Without ``argv`` this is the process of the command: descriptors, signals and what else belongs to the
    whole process are set up for it. With it, nothing of the caller's is touched.
    """
    try:
        from .dispatch import run, run_as_process  # 30 ms

        return run_as_process() if argv is None else run(argv)
    except KeyboardInterrupt:  # before there was anything to interrupt, or again while the first was answered
        return _INTERRUPTED
