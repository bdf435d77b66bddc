"""trust.toml as this machine has it, if nobody else could have changed it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ...config.trustfile import read_trust
from ...disk.trusted import refuse_reachable
from ...errors import LocalError, TrustFileError, UnsafePath

if TYPE_CHECKING:
    from ...config.trustrules import TrustRules


def load_trust(given: Path | None = None) -> TrustRules:
    """trust.toml and its drop-ins, or the file ``given`` alone. Blocks.

    ``TrustRules.of`` has the rules for an image, and ``check_trust`` (trust.py) applies those. Raises
    TrustFileError, UnsafePath.
    """
    return read_trust(given, check=refuse_unsafe)


def refuse_unsafe(path: Path) -> None:
    """Raise UnsafePath if somebody else could change ``path``, TrustFileError if nobody can tell. Blocks."""
    try:
        refuse_reachable(path)
    except UnsafePath:
        raise
    except LocalError as exc:
        reason = str(exc).rpartition(": ")[2]  # the path is in it as well
        raise TrustFileError(f"{path} cannot be read: {reason}") from exc
