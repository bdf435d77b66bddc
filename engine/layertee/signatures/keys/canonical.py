"""The one way to write a JSON value that RFC 8785 allows, for values whose meaning no two parsers dispute.

That is what a transparency log signs. Rules of this file: what is written differently by implementations, or
rounded, is refused: fractions, exponents, integers beyond 2^53, characters that are half a pair.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Final

from ...errors import DocumentError

_EXACT: Final = (1 << 53) - 1  # RFC 7493 §2.2: integers of a double that stand for themselves


def canonical(value: object, what: str) -> bytes:
    """``value``, as ``json.loads`` makes it, in its canonical form. Raises DocumentError naming ``what``.

    The caller has bounded its nesting.
    """
    try:
        return _written(value, what).encode("utf-8")
    except UnicodeEncodeError as exc:
        raise DocumentError(f"{what} contains half a character (a lone surrogate)") from exc


def _written(value: object, what: str) -> str:
    match value:
        case None | bool():
            return json.dumps(value)
        case int():
            if abs(value) > _EXACT:
                raise DocumentError(f"{what} has an integer beyond 2^53")
            return str(value)
        case str():
            return json.dumps(
                value, ensure_ascii=False
            )  # escapes what RFC 8785 §3.2.2.2 names, and as it does
        case list():
            return f"[{','.join(_written(one, what) for one in value)}]"
        case Mapping():
            members = sorted(value.items(), key=lambda member: member[0].encode("utf-16-be"))
            written = (f"{_written(key, what)}:{_written(one, what)}" for key, one in members)
            return f"{{{','.join(written)}}}"
    raise DocumentError(f"{what} has a number that is not a whole one")
