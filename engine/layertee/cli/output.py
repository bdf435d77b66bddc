"""The gate: every character that a command shows passes through this module.

Rules of this file:

- Results go to standard output, all else to standard error.
- Texts of registries, proxies, layouts, labels and file names are shown to people, so :func:`clean` is
  applied to every line: nothing that moves a cursor, sets a colour, reverses text or ends a line gets out.
- What is printed is a *line*. A line break inside one came from outside and is shown as ``\\n``.
- Output that cannot be written is an error of its own (:class:`OutputFailed`). Standard error is the last
  resort: what cannot be written there is dropped.
"""

from __future__ import annotations

import json
import re
import sys
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from io import TextIOBase
from shutil import get_terminal_size
from typing import TextIO

from ..errors import LayerteeError

SCHEMA = 1  # of the objects of --json: another number once a key goes, or means something else
_DIGEST = re.compile(r"(sha(?:256|512):[0-9a-f]{12})[0-9a-f]{20,}")
_GAP, _CUT = "  ", ".."
_LEAST_WIDTH = 12
_NAMED = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}


class OutputFailed(LayerteeError):
    """Standard output cannot be written: its disk is full, or it is open for reading only."""

    code = "OUTPUT"


class ReaderLeft(Exception):
    """The program that read standard output has closed it. No error: it has seen what it wanted to see."""


def clean(text: str) -> str:
    """``text`` as one line of visible characters.

    Control characters (C0, DEL, C1), format characters (bidirectional overrides among them), line
    separators, lone surrogates and what Unicode has not assigned are replaced by their escapes:
    ``\\x1b``, ``\\u202e``; a byte of a file name that is not UTF-8 is ``\\xff``.
    """
    if text.isprintable():
        return text
    return "".join(char if _visible(char) else _escaped(char) for char in text)


def counted(n: int, what: str) -> str:
    """``1 blob``, ``2 blobs``: of things whose name takes an s."""
    return f"{n} {what}" if n == 1 else f"{n} {what}s"


def say(*lines: str) -> None:
    """Print ``lines`` on standard output. Raises OutputFailed, ReaderLeft."""
    try:
        for line in lines:
            sys.stdout.write(clean(line) + "\n")
    except OSError as exc:
        raise _output_failed(exc) from exc


def tell(*lines: str, to: TextIO | None = None) -> None:
    """Print ``lines`` on standard error, or on ``to``; all of them, or as many as can be written."""
    stream = to or sys.stderr
    with suppress(OSError, ValueError):  # ValueError: it was closed
        for line in lines:
            stream.write(clean(line) + "\n")
        stream.flush()


def flush() -> None:
    """Have everything that was said written. Raises OutputFailed, ReaderLeft."""
    try:
        sys.stdout.flush()
    except OSError as exc:
        raise _output_failed(exc) from exc


class Tolerant(TextIOBase):
    """Standard error for a library that draws on it: what cannot be written is dropped.

    The library is given only clean text; the controls that it adds are its own.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    @property
    def encoding(self) -> str:  # type: ignore[override]
        return self._stream.encoding

    def write(self, text: str) -> int:
        with suppress(OSError, ValueError):
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        with suppress(OSError, ValueError):
            self._stream.flush()

    def isatty(self) -> bool:
        return self._stream.isatty()

    def fileno(self) -> int:
        return self._stream.fileno()


def warn(warnings: Iterable[str]) -> None:
    """Each once."""
    for warning in dict.fromkeys(warnings):
        tell(f"layertee: warning: {warning}")


def print_json(value: Mapping[str, object]) -> None:
    """The one object that ``--json`` promises, in ASCII, with the number of its schema. Raises as ``say``."""
    text = json.dumps({"schema": SCHEMA, **value}, indent=2).replace(
        "\x7f", "\\u007f"
    )  # the one control that json leaves
    say(*text.split("\n"))


def print_table(head: Sequence[str], rows: Iterable[Sequence[str]], *, whole: bool = False) -> None:
    """Columns as wide as they must be, so that the output can be cut and grepped. Raises as ``say``.

    Unless it is to be ``whole``, digests are shown by their beginnings, as podman and docker do wherever the
    output goes; and on a terminal the widest columns are cut until a row fits.
    """
    table = [[clean(cell) for cell in row] for row in (head, *rows)]
    if not whole:
        table = [[_DIGEST.sub(r"\1", cell) for cell in row] for row in table]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    if not whole and sys.stdout.isatty():
        widths = _narrowed(widths, get_terminal_size().columns)
    for row in table:
        cells = [_cut(cell, width) for cell, width in zip(row, widths, strict=True)]
        say(_GAP.join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)).rstrip())


# --- inside ---------------------------------------------------------------------------------------


def _narrowed(widths: Sequence[int], limit: int) -> list[int]:
    """``widths``, of which the largest are lessened until all fit into ``limit``, as far as that goes."""
    narrowed = list(widths)
    excess = sum(narrowed) + len(_GAP) * (len(narrowed) - 1) - limit
    while excess > 0 and max(narrowed) > _LEAST_WIDTH:
        widest = narrowed.index(max(narrowed))
        second = max([_LEAST_WIDTH, *(width for width in narrowed if width < narrowed[widest])])
        less = min(excess, narrowed[widest] - second)
        narrowed[widest] -= less
        excess -= less
    return narrowed


def _cut(cell: str, width: int) -> str:
    """The two ends of a cell that is too long: of a name either may be what it differs in."""
    if len(cell) <= width:
        return cell
    left = width - len(_CUT)
    return cell[: left - left // 2] + _CUT + cell[len(cell) - left // 2 :]


def _visible(char: str) -> bool:
    return char.isprintable() or unicodedata.category(char) == "Zs"  # spaces of other widths do no harm


def _escaped(char: str) -> str:
    code = ord(char)
    if char in _NAMED:
        return _NAMED[char]
    if 0xDC80 <= code <= 0xDCFF:  # how Python carries a byte of a file name that is not UTF-8
        code -= 0xDC00
    if code < 0x100:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def _output_failed(exc: OSError) -> OutputFailed | ReaderLeft:
    if isinstance(exc, BrokenPipeError):
        return ReaderLeft()
    return OutputFailed(f"standard output cannot be written: {exc.strerror or exc}")
