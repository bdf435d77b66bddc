"""One section of policy.json, applied to an image: all of its requirements have to hold.

The rule for an image that was chosen from an index is that of the newest image-proxy of skopeo: the section
holds if it holds for the index, or for the manifest that was chosen. Either names, by digests, every byte
that is used of the image. What is between (an index in an index) has no signatures of its own that count.

The signatures of a document are asked for once, and only if a requirement is about signatures.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ..aio import in_thread
from ..config.requirements import (
    AcceptAnything,
    RejectAll,
    Requirement,
    SignedBaseLayer,
    SignedBy,
    SigstoreSigned,
)
from ..errors import LayerteeError, PolicyRefused
from ..record import dataclass

if TYPE_CHECKING:
    from ..image.document import Digest
    from .signature import Signature, SignatureSource, Subject, Verified


@dataclass(frozen=True, slots=True)
class Accepted:
    """``subject`` is as the requirements want it, by the signatures of ``verified``."""

    subject: Subject
    verified: tuple[Verified, ...]


async def judge(
    requirements: Sequence[Requirement], subjects: Sequence[Subject], source: SignatureSource
) -> Accepted:
    """The first of ``subjects`` (the index, where there is one, then the manifest) for which all hold.

    Raises PolicyRefused with the reasons of all of them; what the network failed with, if one could not be
    judged for that and none passed.
    """
    if not requirements or not subjects:
        raise PolicyRefused("the policy has no requirements for it")
    refused: list[tuple[Subject, LayerteeError]] = []
    for subject in subjects:
        try:
            return Accepted(subject, await _all_hold(requirements, subject, source))
        except LayerteeError as exc:
            refused.append((subject, exc))
    failed = next((exc for _, exc in refused if not isinstance(exc, PolicyRefused)), None)
    if failed is not None:
        raise failed
    if len(refused) == 1:
        raise refused[0][1]
    whats = ((("its index" if subject.is_index else "its manifest"), exc) for subject, exc in refused)
    raise PolicyRefused("; ".join(f"{what}: {exc}" for what, exc in whats))


async def _all_hold(
    requirements: Sequence[Requirement], subject: Subject, source: SignatureSource
) -> tuple[Verified, ...]:
    asked: list[Signature] | None = None
    verified: list[Verified] = []
    for requirement in requirements:
        if isinstance(requirement, AcceptAnything):
            continue
        if isinstance(requirement, RejectAll):
            raise PolicyRefused("the policy rejects it")
        if isinstance(requirement, SignedBaseLayer):
            raise PolicyRefused("signedBaseLayer cannot be checked, by any program")
        if asked is None:
            asked = await source.signatures(subject.digest)
        # Each kind is imported where it is asked for: keys and certificates take 50 ms, OpenPGP needs none.
        if isinstance(requirement, SignedBy):
            from .openpgp.simple import verify_signed_by

            verified.append(await verify_signed_by(requirement, subject, asked))
        else:
            assert isinstance(requirement, SigstoreSigned)
            from .keys.sigstore import verify_sigstore_signed

            verified.append(await in_thread(verify_sigstore_signed, requirement, subject, asked))
    return tuple(verified)


class AskedOnce:
    """``source``, asked once for each document: several policies may want the signatures of one image."""

    def __init__(self, source: SignatureSource) -> None:
        self._source = source
        self._found: dict[Digest, list[Signature]] = {}

    async def signatures(self, digest: Digest) -> list[Signature]:
        """As those of ``source``."""
        if digest not in self._found:
            self._found[digest] = await self._source.signatures(digest)
        return self._found[digest]
