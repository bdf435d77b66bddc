"""What a 401 says about the ways in: WWW-Authenticate fields, taken apart (RFC 9110 §11.6.1). No I/O."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import field

from ..record import dataclass

_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_TOKEN68 = re.compile(r"[A-Za-z0-9._~+/-]+=*(?=[ \t]*(?:,|$))")
_PARAM = re.compile(r"([!#$%&'*+.^_`|~0-9A-Za-z-]+)[ \t]*=[ \t]*(?:\"((?:[^\"\\]|\\.)*+)\"|([^\s,\"]+))")
_GAP = re.compile(r"[ \t,]*")


@dataclass(frozen=True, slots=True)
class Challenge:
    """One way a server would let the client in. ``scheme`` and parameter names are in lower case."""

    scheme: str
    params: Mapping[str, str] = field(default_factory=dict, hash=False)


def parse_challenges(fields: Iterable[str]) -> tuple[Challenge, ...]:
    """The challenges of all WWW-Authenticate fields, in order. RFC 9110 §11.6.1.

    Never fails: a field is read as far as it makes sense. Unquoted values may hold what RFC 9110
    wants quoted, as servers do; a challenge that gives a parameter twice is left out.
    """
    return tuple(challenge for value in fields for challenge in _challenges(value))


def _challenges(value: str) -> list[Challenge]:
    found: list[tuple[str, dict[str, str]]] = []
    broken: set[int] = set()
    at = _skip(value, 0)
    while at < len(value):
        param = _PARAM.match(value, at)
        if param is not None and found:
            name, quoted, bare = param[1].lower(), param[2], param[3]
            if name in found[-1][1]:
                broken.add(len(found) - 1)
            found[-1][1][name] = bare if quoted is None else re.sub(r"\\(.)", r"\1", quoted)
            at = _skip(value, param.end())
            continue
        scheme = _TOKEN.match(value, at)
        if scheme is None:
            break
        found.append((scheme[0].lower(), {}))
        end = scheme.end()
        at = _skip(value, end)
        if at > end and "," not in value[end:at] and (token68 := _TOKEN68.match(value, at)):
            at = _skip(value, token68.end())
    return [Challenge(scheme, params) for n, (scheme, params) in enumerate(found) if n not in broken]


def _skip(value: str, at: int) -> int:
    gap = _GAP.match(value, at)
    return gap.end() if gap else at
