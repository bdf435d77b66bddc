"""The grammar of image names, as patterns to build others from: distribution/reference, regexp.go.

None of them has a group, and each stands for a whole part of a name.
"""

from __future__ import annotations

from typing import Final

_LABEL: Final = r"[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?"
_COMPONENT: Final = r"[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*"

DOMAIN: Final = rf"{_LABEL}(?:\.{_LABEL})*"
"""A host that is a name or an IPv4 address."""
REPOSITORY: Final = rf"{_COMPONENT}(?:/{_COMPONENT})*"
TAG: Final = r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}"
MAX_REPOSITORY: Final = 255
