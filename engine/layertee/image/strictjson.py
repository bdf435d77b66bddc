"""JSON that means one thing to every reader.

Registry documents are read by programs in several languages, and they disagree
about duplicate keys, about letter case (Go matches field names without it) and
about numbers. Two readings of one signed or hashed document are an attack
(CVE-2021-41190), so what is ambiguous is refused here, before a field is read.

Every refusal is a :class:`DocumentError`; size, nesting and the number of values are bounded first,
so hostile input costs neither memory nor a ``RecursionError``.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping

from ..errors import DocumentError

LIMIT = 4 << 20  # distribution-spec: registries must accept manifests of 4 MiB; skopeo reads no more
DEPTH = 64
# Strings and brackets: an index of 4 MiB has about as many. Parsed, one takes up to 200 bytes.
TOKENS = 1 << 18
INT_DIGITS = 20  # 2**64 has 20

# Strings as a whole (an unterminated one runs to the end: one linear pass), brackets one by one.
_STRUCTURE = re.compile(r'"(?:[^"\\]++|\\.)*+"?|[\[{]|[\]}]', re.DOTALL)


class _Refused(ValueError):
    """Raised by the hooks below; becomes a DocumentError."""


class _CaseVariants(dict[str, object]):
    """An object with keys that differ only by case; legal where keys are data, not field names."""


def printable(text: str, limit: int = 200) -> str:
    """``text`` made safe to show: one line, no control characters, at most ``limit`` characters."""
    shown = "".join(c if c.isprintable() else "�" for c in text[:limit])
    return shown + "…" if len(text) > limit else shown


def loads(raw: bytes, what: str, *, limit: int = LIMIT, maps: frozenset[str] | None = frozenset()) -> object:
    """Parse ``raw``, refusing whatever two parsers could read differently.

    ``what`` names the document in messages. ``maps`` names the keys whose objects hold free keys
    (labels, annotations): there, keys may differ by case only. None: they may anywhere, and the caller has
    ``check_fields`` look at each object of which it reads fields. Raises DocumentError.
    """
    if len(raw) > limit:
        raise DocumentError(f"{what} is larger than {limit} bytes")
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError as exc:
        raise DocumentError(f"{what} is not UTF-8 (byte {exc.start})") from exc
    _check_structure(text, TOKENS * max(1, limit // LIMIT), what)
    variants: list[_CaseVariants] = []

    def pairs(items: list[tuple[str, object]]) -> dict[str, object]:
        found = dict(items)
        if len(found) != len(items):
            raise _Refused("a key appears twice in one object")
        if len({key.casefold() for key in found}) == len(found):
            return found
        variants.append(_CaseVariants(found))
        return variants[-1]

    try:
        value: object = json.loads(
            text, object_pairs_hook=pairs, parse_int=_integer, parse_float=_number, parse_constant=_constant
        )
        if "\\u" in text:
            json.dumps(value, ensure_ascii=False).encode("utf-8")  # lone surrogates are not text
    except json.JSONDecodeError as exc:
        raise DocumentError(f"{what} is not JSON ({exc.msg}, character {exc.pos})") from exc
    except UnicodeEncodeError as exc:
        raise DocumentError(f"{what} contains half a character (a lone surrogate)") from exc
    except _Refused as exc:
        raise DocumentError(f"{what} is ambiguous: {exc}") from exc
    if variants and maps is not None:
        _check_case(value, "", maps, what)
    return value


def load_object(
    raw: bytes, what: str, *, limit: int = LIMIT, maps: frozenset[str] | None = frozenset()
) -> dict[str, object]:
    """:func:`loads`, and the document must be an object."""
    return as_object(loads(raw, what, limit=limit, maps=maps), what)


def as_object(value: object, what: str) -> dict[str, object]:
    """``value`` if it is an object, else DocumentError."""
    if not isinstance(value, dict):
        raise DocumentError(f"{what} is not an object")
    return value


def as_list(value: object, what: str) -> list[object]:
    """``value`` if it is an array, else DocumentError. ``null`` is Go's spelling of an empty one."""
    if value is None:
        return []
    if not isinstance(value, list):
        raise DocumentError(f"{what} is not an array")
    return value


def as_text(value: object, what: str) -> str:
    """``value`` if it is a string, else DocumentError."""
    if not isinstance(value, str):
        raise DocumentError(f"{what} is missing or not a string")
    return value


def as_text_map(value: object, what: str) -> dict[str, str]:
    """``value`` if it maps strings to strings, else DocumentError. ``null`` is an empty map or text."""
    if value is None:
        return {}
    found = as_object(value, what)
    return {
        key: "" if item is None else as_text(item, f"{what}[{printable(key, 60)}]")
        for key, item in found.items()
    }


def check_fields(found: Mapping[str, object], names: Iterable[str], what: str) -> None:
    """Refuse ``Layers`` where ``layers`` is meant: Go would read it, Python would not."""
    known = set(names)
    folded = {name.casefold() for name in known}
    for key in found:
        if key not in known and key.casefold() in folded:
            shown = printable(key, 60)
            raise DocumentError(f"{what} is ambiguous: {shown!r} differs from a known field only by case")


def _check_structure(text: str, most: int, what: str) -> None:
    depth = 0
    for n, token in enumerate(_STRUCTURE.finditer(text)):
        if n >= most:
            raise DocumentError(f"{what} has more than {most} strings, objects and arrays")
        first = text[token.start()]
        if first in "[{":
            depth += 1
            if depth > DEPTH:
                raise DocumentError(f"{what} is nested deeper than {DEPTH} levels")
        elif first in "]}":
            depth -= 1


def _check_case(value: object, key: str, maps: frozenset[str], what: str) -> None:
    if isinstance(value, _CaseVariants) and key not in maps:
        raise DocumentError(f"{what} is ambiguous: keys in one object differ only by case")
    if isinstance(value, dict):
        for name, item in value.items():
            _check_case(item, name, maps, what)
    elif isinstance(value, list):
        for item in value:
            _check_case(item, "", maps, what)


def _integer(text: str) -> int:
    if len(text.lstrip("-")) > INT_DIGITS:
        raise _Refused(f"an integer has more than {INT_DIGITS} digits")
    return int(text)


def _number(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise _Refused("a number is out of range")
    return value


def _constant(text: str) -> float:
    raise _Refused(f"{text} is not JSON")
