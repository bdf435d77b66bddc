"""Spans of what an engine does, for OpenTelemetry.

Rules of this file:

- Nothing is imported. Spans are made where the process has OpenTelemetry's API already, because the program
  uses it, or an instrumentation does; whether anything becomes of them is a matter of its tracer provider.
- What a span has is what reports have: no URL, no login, no header. Of an error that is not the engine's own
  the class is all: its text may have any of them.
- A pull does not fail because of its spans, whatever the program's span processors raise.

Names and attributes are documented in docs/reference/metrics.md.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from ..errors import LayerteeError
from ..version import __version__

API = "opentelemetry.trace"
NAME = "layertee"


class Traced:
    """A span that may be none."""

    def __init__(self, span: Any = None) -> None:
        self._span = span

    def set(self, **attributes: str | int | bool | None) -> None:
        """Give it attributes, ``layertee.`` before their names; what is None is left out."""
        if self._span is not None:
            with suppress(Exception):
                self._span.set_attributes(_named(attributes))

    def fail(self, exc: BaseException, status: Any) -> None:
        """It is one of an error: its code or class, and the message of an error of this program."""
        if self._span is not None:
            kind, text = type(exc).__name__, None
            if isinstance(exc, LayerteeError):
                kind, text = exc.code, str(exc)
            with suppress(Exception):
                self._span.set_attribute("error.type", kind)
                self._span.set_status(status.ERROR, text)


@contextmanager
def span(name: str, **attributes: str | int | bool | None) -> Iterator[Traced]:
    """A block as a span. What it is left by makes the span one of an error: a code, and a class."""
    api: Any = sys.modules.get(API)
    if api is None:
        yield Traced()
        return
    block: Any = None
    made: Any = None
    with suppress(Exception):
        block = api.get_tracer(NAME, __version__).start_as_current_span(
            f"{NAME}.{name}",
            attributes=_named(attributes),
            record_exception=False,
            set_status_on_exception=False,
        )
        made = block.__enter__()
    traced = Traced(made)
    try:
        yield traced
    except BaseException as exc:
        traced.fail(exc, getattr(api, "StatusCode", None))
        raise
    finally:
        if made is not None:
            with suppress(Exception):
                block.__exit__(None, None, None)


def _named(attributes: dict[str, str | int | bool | None]) -> dict[str, str | int | bool]:
    return {f"{NAME}.{name}": value for name, value in attributes.items() if value is not None}
