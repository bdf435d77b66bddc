"""Whether an image has the signatures and attestations that trust.toml asks for in its scope.

:func:`check_trust` is the way in. It is asked in addition to policy.json, and can only refuse. A signature
for the index that the image was chosen from counts like one for the image itself, which the index names by
its digest. Signatures that do not count are passed over, and their reasons told if in the end too few do: one
bad signature must not spoil the good ones beside it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Protocol

from ...aio import in_thread
from ...config.trustrules import Form, ScopeRules
from ..keys.attachments import RegistryAttachments
from ..signature import Attachment, Bundle, Subject, Verified
from .election import Election
from .referrers import Referrers

if TYPE_CHECKING:
    from ...image.digest import Digest
    from ...registry.client import Registry


class TrustSource(Protocol):
    """Where bundles and attachments of an image are. All of them are from strangers, and bounded."""

    async def bundles(self, digest: Digest) -> list[Bundle]:
        """Those of the manifest or index ``digest``.

        Raises PolicyRefused if there are too many or too large ones; IntegrityError, TransportError and
        RegistryError if they could not be had.
        """
        ...

    async def attachments(self, digest: Digest) -> list[Attachment]:
        """The same of ``sha256-….sig``."""
        ...


class RegistryTrustSource:
    """Those that ``registry`` has, for images of its repository, which ``repository`` names in messages."""

    def __init__(self, registry: Registry, repository: str) -> None:
        self._referrers = Referrers(registry)
        self._attachments = RegistryAttachments(registry, repository)

    async def bundles(self, digest: Digest) -> list[Bundle]:
        """As ``TrustSource.bundles``."""
        return await self._referrers.bundles(digest)

    async def attachments(self, digest: Digest) -> list[Attachment]:
        """As ``TrustSource.attachments``."""
        found = await self._attachments.signatures(digest)
        return [one for one in found if isinstance(one, Attachment)]


async def check_trust(
    rules: Sequence[ScopeRules],
    subjects: Sequence[Subject],
    source: TrustSource,
    *,
    now: Callable[[], float] = time.time,
) -> tuple[Verified, ...]:
    """What was verified for ``subjects``, which are an image and the index that it was chosen from, if any.

    ``rules`` are those of the image's scope (``TrustRules.of``), and all of them have to hold; without any,
    or with rules that ask for no signature, nothing is looked for. ``now``: seconds since the epoch.

    Raises PolicyRefused unless enough signers have signed, or if the sigstore library is needed and missing;
    TrustFileError and UnsafePath for files that trust.toml names; IntegrityError, TransportError
    and RegistryError if signatures could not be had.
    """
    verified: list[Verified] = []
    once = _Once(source)
    for each in rules:
        if not each.asks_for_signatures:
            continue
        election = await in_thread(Election, each, now)
        for subject in subjects:
            if election.is_over:
                break
            if Form.BUNDLE in each.forms:
                await in_thread(election.count, await once.bundles(subject.digest), subject)
            if Form.ATTACHMENT in each.forms and each.signers and not election.is_over:
                await in_thread(election.count, await once.attachments(subject.digest), subject)
        verified += election.result(subjects)
    return tuple(verified)


class _Once:
    """What ``source`` has, asked for once."""

    def __init__(self, source: TrustSource) -> None:
        self._source = source
        self._bundles: dict[Digest, list[Bundle]] = {}
        self._attachments: dict[Digest, list[Attachment]] = {}

    async def bundles(self, digest: Digest) -> list[Bundle]:
        if digest not in self._bundles:
            self._bundles[digest] = await self._source.bundles(digest)
        return self._bundles[digest]

    async def attachments(self, digest: Digest) -> list[Attachment]:
        if digest not in self._attachments:
            self._attachments[digest] = await self._source.attachments(digest)
        return self._attachments[digest]
