"""``sigstoreSigned``: whether a signature like cosign's, found beside an image, is one that is asked for.

containers-policy.json(5). Rules of this file: one good signature is enough, and why each other one was
refused is said; what its payload says counts after the signature was verified.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from ...errors import DocumentError, PolicyRefused
from ...image.strictjson import printable
from ..payload import PayloadType, parse_payload
from ..signature import Attachment, Signature, Subject, Verified
from .armour import from_base64

if TYPE_CHECKING:
    from ...config.requirements import SigstoreSigned
    from .signers import Signers

SIMPLE_SIGNING: Final = "application/vnd.dev.cosign.simplesigning.v1+json"
"""Other attachments are something else about the image: attestations, for example."""
SIGNATURE: Final = "dev.cosignproject.cosign/signature"
_MAX_SIGNATURE_TEXT: Final = 16 << 10  # of base64; 1.4 KiB for RSA with 8192 bits
_REASONS: Final = 4


def verify_sigstore_signed(
    requirement: SigstoreSigned, subject: Subject, signatures: Sequence[Signature]
) -> Verified:
    """The first of ``signatures`` that fulfils ``requirement`` for ``subject``.

    Reads the files that the requirement names, and computes: for a thread, it blocks. Raises PolicyRefused,
    with the reasons for the signatures that were looked at.
    """
    found = [one for one in signatures if isinstance(one, Attachment) and one.media_type == SIMPLE_SIGNING]
    if not found:
        others = f" ({len(signatures)} of other kinds)" if signatures else ""
        raise PolicyRefused(f"a sigstore signature is asked for, and there is none{others}")
    from .signers import signers_of  # the library of keys and certificates takes 50 ms to import

    signers = signers_of(requirement)
    reasons = []
    for one in found:
        try:
            return _verify(one, requirement, subject, signers)
        except PolicyRefused as exc:
            reasons.append(f"{printable(one.place)}: {printable(str(exc), 500)}")
    more = f"; and {len(reasons) - _REASONS} more" if len(reasons) > _REASONS else ""
    raise PolicyRefused(f"no sigstore signature is accepted: {'; '.join(reasons[:_REASONS])}{more}")


def _verify(one: Attachment, requirement: SigstoreSigned, subject: Subject, signers: Signers) -> Verified:
    text = one.annotations.get(SIGNATURE)
    if text is None:
        raise PolicyRefused(f"it has no annotation {SIGNATURE}")
    if len(text) > _MAX_SIGNATURE_TEXT:
        raise PolicyRefused(f"its signature is longer than {_MAX_SIGNATURE_TEXT} characters")
    try:
        signature = from_base64(text, "its signature")
    except DocumentError as exc:
        raise PolicyRefused(str(exc)) from exc
    candidate = signers.candidate(one, signature)
    key = candidate.require_signed(signature, one.payload)
    payload = parse_payload(one.payload, PayloadType.SIGSTORE)
    payload.refuse_other(subject, requirement.identity)
    return Verified(
        kind="sigstoreSigned",
        signed=payload.digest,
        place=one.place,
        signed_name=payload.docker_reference,
        key=key,
        subject=candidate.subject,
        issuer=candidate.issuer,
        time=candidate.entry.time if candidate.entry else None,
        log_index=candidate.entry.index if candidate.entry else None,
    )
