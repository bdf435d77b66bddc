"""What ``--json`` and ``--progress-fd`` say of a command that failed: one object, of the same keys for all.

The keys are documented in docs/reference/json.md. An error's own facts stand beside them under the names that
they have as its attributes, so an error gets a fact for programs by having it.
"""

from __future__ import annotations

import signal
from collections.abc import Sequence
from os import PathLike, fspath
from typing import Any

from ..errors import LayerteeError, LocalError
from . import process
from .exits import EXIT_ERROR, EXIT_SIGNAL, exit_code
from .hints import HINTS

USAGE, INTERRUPTED = "USAGE", "INTERRUPTED"


def describe(exc: BaseException, arrived: Sequence[int] = ()) -> dict[str, Any] | None:
    """The object for ``exc``; None for a mistake of this program, which is no answer to anybody.

    ``arrived``: the signals that were turned into a KeyboardInterrupt.
    """
    if isinstance(exc, LayerteeError):
        return {**_described(exc, str(exc), exit_code(exc)), **_facts(exc)}
    if isinstance(exc, KeyboardInterrupt):
        number = number_of(arrived)
        return {
            **_shape(INTERRUPTED, "Interrupted", interruption(number), EXIT_SIGNAL + number, retryable=True),
            "signal": signal.Signals(number).name,
        }
    if (lacking := process.what_ran_out(exc)) is not None:
        return _shape(LocalError.code, LocalError.__name__, lacking, EXIT_ERROR)
    return None


def mistake(message: str) -> dict[str, Any]:
    """The object for arguments that cannot be understood."""
    return _shape(USAGE, "UsageError", message, EXIT_ERROR)


def number_of(arrived: Sequence[int]) -> int:
    """The signal that ended the command: Ctrl-C's, unless another one ``arrived``."""
    return arrived[0] if arrived else signal.SIGINT


def interruption(number: int) -> str:
    """What is said of it to a person."""
    word = "interrupted" if number == signal.SIGINT else f"ended by {signal.Signals(number).name}"
    return f"{word}; what has arrived is kept"


def _described(exc: LayerteeError, message: str, code: int) -> dict[str, Any]:
    shape = _shape(exc.code, type(exc).__name__, message, code, retryable=exc.retryable)
    shape.update(hint=exc.hint or None, advice=HINTS.get(exc.hint))
    shape["notes"] = list(getattr(exc, "__notes__", ()))
    return shape


def _shape(code: str, kind: str, message: str, exit_code: int, *, retryable: bool = False) -> dict[str, Any]:
    return {
        "code": code,
        "class": kind,
        "message": message,
        "exit_code": exit_code,
        "retryable": retryable,
        "hint": None,
        "advice": None,
        "notes": [],
    }


def _facts(exc: LayerteeError) -> dict[str, Any]:
    """Its public attributes. What is not known, an empty text or a status of 0, is None."""
    found = {name: _plain(value) for name, value in vars(exc).items() if not name.startswith("_")}
    found.pop("hint", None)
    if "status" in found:
        found["status"] = found["status"] or None
    return found


def _plain(value: object) -> Any:
    """``value`` as JSON can have it."""
    if value is None or isinstance(value, bool | int | float):
        return value
    if isinstance(value, list | tuple | set | frozenset):
        return [_plain(each) for each in value]
    return (fspath(value) if isinstance(value, PathLike) else str(value)) or None
