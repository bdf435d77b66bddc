"""Sigstore bundles, version 0.3: what is in one, and whether a public key has signed it.

protobuf-specs, sigstore_bundle.proto, in its JSON. Rules of this file: only bundles with a DSSE envelope of
one signature are images' signatures; what is not understood makes the bundle count for nothing, with the
reason; bundles that carry a certificate are left to keyless.py, since the sigstore library verifies those.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field
from typing import Final

from ...errors import DocumentError, PolicyRefused
from ...image.strictjson import as_list, as_object, as_text, check_fields, load_object, printable
from ...record import dataclass
from ..signature import MAX_SIGNATURE, Bundle
from .bundlekeys import PublicKey, is_signed
from .logentries import LogEntry, parse_entry
from .root import from_base64
from .statements import signed_bytes

MEDIA_TYPES: Final = frozenset(
    {
        "application/vnd.dev.sigstore.bundle.v0.3+json",
        "application/vnd.dev.sigstore.bundle+json;version=0.3",
    }
)
MAX_ENTRIES: Final = 8
MAX_TIMESTAMPS: Final = 8
_FIELDS: Final = ("mediaType", "verificationMaterial", "dsseEnvelope", "messageSignature")
_MATERIAL: Final = (
    *("publicKey", "certificate", "x509CertificateChain", "tlogEntries", "timestampVerificationData"),
)


@dataclass(frozen=True, slots=True)
class SignedEnvelope:
    """What is in a bundle; nothing of it was verified.

    ``certificate`` is DER, None for a signature by a bare key. ``timestamps`` are RFC 3161 responses, DER.
    """

    bundle: Bundle
    payload_type: str
    payload: bytes = field(repr=False)
    signature: bytes = field(repr=False)
    certificate: bytes | None = field(repr=False)
    entries: tuple[LogEntry, ...]
    timestamps: tuple[bytes, ...] = field(repr=False)

    @property
    def signed(self) -> bytes:
        """The bytes that ``signature`` is over."""
        return signed_bytes(self.payload_type, self.payload)

    def is_signed_by(self, key: PublicKey) -> bool:
        """Whether the envelope is signed by ``key``. What the bundle says of its key is not looked at."""
        return is_signed(key, self.signature, self.signed)


def parse_bundle(bundle: Bundle) -> SignedEnvelope:
    """What is in ``bundle``. Raises PolicyRefused with what is wrong with it."""
    try:
        return _parse(bundle)
    except DocumentError as exc:
        raise PolicyRefused(str(exc)) from exc


def _parse(bundle: Bundle) -> SignedEnvelope:
    document = load_object(bundle.raw, "it", limit=MAX_SIGNATURE)
    check_fields(document, _FIELDS, "it")
    media_type = as_text(document.get("mediaType"), "its mediaType")
    if media_type not in MEDIA_TYPES:
        raise DocumentError(f"it is of type {printable(media_type)!r}, not a bundle of version 0.3")
    if document.get("dsseEnvelope") is None or document.get("messageSignature") is not None:
        raise DocumentError("it has no DSSE envelope, which a signature of an image is in")
    envelope = as_object(document["dsseEnvelope"], "its envelope")
    check_fields(envelope, ("payload", "payloadType", "signatures"), "its envelope")
    signatures = as_list(envelope.get("signatures"), "its signatures")
    if len(signatures) != 1:
        raise DocumentError(f"its envelope has {len(signatures)} signatures, not one")
    material = as_object(document.get("verificationMaterial"), "its verificationMaterial")
    check_fields(material, _MATERIAL, "its verificationMaterial")
    return SignedEnvelope(
        bundle,
        as_text(envelope.get("payloadType"), "its payloadType"),
        from_base64(envelope.get("payload"), "its payload"),
        from_base64(as_object(signatures[0], "its signature").get("sig"), "its signature"),
        _certificate(material),
        tuple(parse_entry(each) for each in _bounded(material, "tlogEntries", MAX_ENTRIES)),
        _timestamps(material),
    )


def _certificate(material: Mapping[str, object]) -> bytes | None:
    """Exactly one of a key and a certificate is there."""
    key, certificate = material.get("publicKey"), material.get("certificate")
    if material.get("x509CertificateChain") is not None or (key is None) == (certificate is None):
        raise DocumentError("it has neither one certificate nor one public key")
    if certificate is None:
        as_object(key, "its publicKey")
        return None
    return from_base64(as_object(certificate, "its certificate").get("rawBytes"), "its certificate")


def _timestamps(material: Mapping[str, object]) -> tuple[bytes, ...]:
    data = material.get("timestampVerificationData")
    if data is None:
        return ()
    found = as_object(data, "its time-stamps")
    return tuple(
        from_base64(as_object(each, "its time-stamp").get("signedTimestamp"), "its time-stamp")
        for each in _bounded(found, "rfc3161Timestamps", MAX_TIMESTAMPS)
    )


def _bounded(found: Mapping[str, object], key: str, most: int) -> list[object]:
    values = as_list(found.get(key), f"its {key}")
    if len(values) > most:
        raise DocumentError(f"it has more than {most} {key}")
    return values
