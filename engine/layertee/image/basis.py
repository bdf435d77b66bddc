"""How it is known what some bytes contain."""

from __future__ import annotations

import enum


class Basis(enum.Enum):
    """How it is known that a holding's content has its DiffID, strongest first."""

    COMPUTED = "computed"  # these bytes were hashed here, or the blob's digest is the DiffID
    ATTESTED = "attested"  # the tool that owns the place computed it on this machine
    CLAIMED = "claimed"  # some manifest and config say so

    @property
    def rank(self) -> int:
        """0 for the strongest, so that sorting by it puts the best known first."""
        return _RANKS[self]

    def at_least(self, other: Basis) -> bool:
        """Whether this basis is as strong as ``other``, or stronger."""
        return self.rank <= other.rank


_RANKS = {basis: rank for rank, basis in enumerate(Basis)}
