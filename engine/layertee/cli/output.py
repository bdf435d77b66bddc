"""How commands print: results on stdout, warnings on stderr."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Sequence


def warn(warnings: Iterable[str]) -> None:
    """Each once."""
    for warning in dict.fromkeys(warnings):
        print(f"layertee: warning: {warning}", file=sys.stderr)


def print_json(value: object) -> None:
    """The one object that ``--json`` promises."""
    print(json.dumps(value, indent=2))


def print_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Columns as wide as they must be, so that the output can be cut and grepped."""
    widths = [max(len(row[i]) for row in [head, *rows]) for i in range(len(head))]
    for row in [head, *rows]:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
