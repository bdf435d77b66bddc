"""Signatures as they are found, before anything in them is believed; and what one was found to say."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import field
from typing import TYPE_CHECKING, Any, Protocol

from ..record import dataclass

if TYPE_CHECKING:
    from ..image.document import Digest
    from ..image.reference import Reference

MAX_SIGNATURE = 4 << 20
"""Bytes of one signature, attachment or bundle: as containers/image (iolimits.MaxSignatureBodySize)."""
MAX_SIGNATURES = 128
"""Of one manifest, of all kinds together. More, and the image is refused: looking costs the machine."""


@dataclass(frozen=True, slots=True)
class SimpleSignature:
    """An OpenPGP message that carries its JSON payload (containers/image: docs/containers-signature.5.md).

    ``place`` says where it was found, for messages and reports.
    """

    blob: bytes = field(repr=False)
    place: str


@dataclass(frozen=True, slots=True)
class Attachment:
    """One layer of the manifest ``sha256-….sig`` beside an image (cosign: specs/SIGNATURE_SPEC.md).

    ``payload`` hashed to its descriptor's digest; nothing else of it was checked.
    """

    media_type: str
    payload: bytes = field(repr=False)
    annotations: Mapping[str, str] = field(hash=False)
    place: str


@dataclass(frozen=True, slots=True)
class Bundle:
    """A sigstore bundle (JSON), found through the referrers of an image or their tag."""

    raw: bytes = field(repr=False)
    place: str


Signature = SimpleSignature | Attachment


@dataclass(frozen=True, slots=True)
class Subject:
    """The manifest or index that a signature has to be for: ``raw`` hashes to ``digest``.

    ``name`` is the image as it was asked for, whatever mirror it came from; None for an image without a name
    in a registry, which only identities that name one themselves accept. ``is_index``: it is the index from
    which the platform's manifest was chosen.
    """

    raw: bytes = field(repr=False)
    digest: Digest
    name: Reference | None
    is_index: bool = False

    def is_named(self, digest: Digest) -> bool:
        """Whether ``digest``, of whichever algorithm, is that of ``raw``."""
        return hashlib.new(digest.algorithm, self.raw).hexdigest() == digest.hex


@dataclass(frozen=True, slots=True, kw_only=True)
class Verified:
    """One requirement that holds, and the signature by which it does.

    ``kind``: signedBy, sigstoreSigned, or the word of trust.toml for it. ``key``: fingerprint of the key that
    signed (OpenPGP: its primary key's, in hexadecimal; otherwise ``SHA256:`` and that of the DER of the
    public key). ``subject`` and ``issuer``: whom the certificate is for, and who saw to that; None for a
    bare key. ``signed_name`` is the name in the payload; ``signed`` the digest there. ``time``: seconds since
    the epoch at which a log or a time-stamp authority has seen it, else None. ``place``: where it was found.
    """

    kind: str
    signed: Digest
    place: str
    signed_name: str | None = None
    key: str | None = None
    subject: str | None = None
    issuer: str | None = None
    time: int | None = None
    log_index: int | None = None

    def to_json(self) -> dict[str, Any]:
        """Its object of ``--json``."""
        return {
            "kind": self.kind,
            "signed": str(self.signed),
            "place": self.place,
            "signed_name": self.signed_name,
            "key": self.key,
            "subject": self.subject,
            "issuer": self.issuer,
            "time": self.time,
            "log_index": self.log_index,
        }


class SignatureSource(Protocol):
    """Where the signatures of one image are. Everything that it gives is from strangers, and bounded."""

    async def signatures(self, digest: Digest) -> list[Signature]:
        """All signatures of the manifest or index ``digest``: of every kind and place that counts for it.

        Raises PolicyRefused if there are too many or too large ones, or one that makes no sense;
        TransportError and RegistryError if they could not be looked for.
        """
        ...
