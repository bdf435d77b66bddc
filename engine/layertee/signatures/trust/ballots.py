"""Counting signers: who of those that are named has signed, each of them once."""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..signature import Verified


class Ballot:
    """How many of ``n_signers`` have signed, and whether they are ``threshold``.

    Who has signed, a key or an identity, may fit several of the signers, such as one by a prefix and one by
    the whole subject; several may fit one. Each stands for one: the count is that of the pairs, at most.
    """

    def __init__(self, n_signers: int, threshold: int) -> None:
        self.n_signers = n_signers
        self.threshold = threshold
        self._fits: dict[Hashable, dict[int, Verified]] = {}

    def add(self, who: Hashable, fits: Iterable[int], verified: Verified) -> None:
        """``who`` has signed, and fits the signers of these numbers by this signature.

        By another one, with other claims, the same may fit others as well. Of several by which it fits one
        signer, the first is told.
        """
        found = self._fits.setdefault(who, {})
        for signer in fits:
            found.setdefault(signer, verified)

    @property
    def count(self) -> int:
        """Of signers that have signed."""
        return len(self._paired())

    @property
    def counted(self) -> frozenset[int]:
        """The numbers of the signers that have signed."""
        return frozenset(self._paired())

    @property
    def is_enough(self) -> bool:
        return self.count >= self.threshold

    @property
    def verified(self) -> tuple[Verified, ...]:
        """What was verified, of those that count."""
        return tuple(self._fits[who][signer] for signer, who in self._paired().items())

    def _paired(self) -> dict[int, Hashable]:
        """A largest pairing of signers with those who fit them, found by augmenting paths."""
        paired: dict[int, Hashable] = {}
        for who in self._fits:
            self._augment(who, paired, set())
        return paired

    def _augment(self, who: Hashable, paired: dict[int, Hashable], tried: set[int]) -> bool:
        """Find a signer for ``who``, moving others if need be. As deep as there are signers, at most."""
        for signer in sorted(self._fits[who].keys() - tried):
            tried.add(signer)
            if signer not in paired or self._augment(paired[signer], paired, tried):
                paired[signer] = who
                return True
        return False
