"""Cosign's older signatures, beside an image under ``sha256-….sig``, judged by trust.toml.

specs/SIGNATURE_SPEC.md of cosign. What policy.json asks of them is in sigstore.py; what trust.toml adds is
identities by URI and claims, a log of the trusted root, and for certificates the word of a certificate
transparency log, as ``cosign verify`` demands it. The name in the payload is not compared, as it is not by
cosign: mirrors and renamed repositories have the same images.
"""

from __future__ import annotations

import datetime
from dataclasses import field
from typing import TYPE_CHECKING, Final

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding

from ...errors import DocumentError, PolicyRefused
from ...image.strictjson import as_list, as_object
from ...record import dataclass
from ..keys.armour import from_base64
from ..keys.certificates import key_of, read_certificates, verify_path
from ..keys.rekor import LogEntry, parse_bundle
from ..payload import Payload, PayloadType, parse_payload
from .bundlekeys import PublicKey, is_signed
from .claims import Identity, identity_of
from .root import RootDocument
from .root import from_base64 as bytes_of
from .transparency import refuse_unwitnessed

if TYPE_CHECKING:
    from ..signature import Attachment, Subject

SIMPLE_SIGNING: Final = "application/vnd.dev.cosign.simplesigning.v1+json"
SIGNATURE: Final = "dev.cosignproject.cosign/signature"
BUNDLE: Final = "dev.sigstore.cosign/bundle"
CERTIFICATE: Final = "dev.sigstore.cosign/certificate"
_MAX_SIGNATURE_TEXT: Final = 16 << 10
_LAST_S: Final = 253402300799  # the end of the year 9999, where certificates end


@dataclass(frozen=True, slots=True)
class AttachedSignature:
    """One attachment. Nothing in it was verified; ``certificate`` is None for a signature by a bare key."""

    attachment: Attachment
    signature: bytes = field(repr=False)
    certificate: x509.Certificate | None

    def is_signed_by(self, key: PublicKey) -> bool:
        """Whether the payload is signed by ``key``."""
        return is_signed(key, self.signature, self.attachment.payload)

    def payload_for(self, subject: Subject) -> Payload:
        """The payload, after its signature was verified. Raises PolicyRefused if it is of another image."""
        found = parse_payload(self.attachment.payload, PayloadType.SIGSTORE)
        if not subject.is_named(found.digest):
            raise PolicyRefused(f"it is for {found.digest}, not for {subject.digest}")
        return found

    def logged(self, root: RootDocument, signer: bytes) -> LogEntry:
        """The entry that a log of ``root`` has of this signature by ``signer``, DER of a key or certificate.

        Raises PolicyRefused unless that log was in use when it made the entry.
        """
        text = self.attachment.annotations.get(BUNDLE)
        if text is None:
            raise PolicyRefused("it is in no transparency log")
        refused = PolicyRefused("its log entry is of no log in the trusted root")
        for log in root.logs:
            if not isinstance(log.key, ec.EllipticCurvePublicKey):
                continue
            try:
                entry = parse_bundle(text, [log.key])
            except PolicyRefused as exc:
                refused = exc
                continue
            if not log.is_in_use(entry.time):
                raise PolicyRefused("its log was not in use when the entry was made")
            entry.refuse_other(signer, self.signature, self.attachment.payload)
            return entry
        raise refused

    def identity(self, root: RootDocument) -> tuple[Identity, LogEntry]:
        """Who signed it, and the entry of the log that says when.

        Raises PolicyRefused unless the certificate is of an authority of ``root``, was valid when the log saw
        the signature, is in a certificate transparency log of ``root``, and made the signature.
        """
        leaf = self.certificate
        assert leaf is not None, "who asks has seen the certificate"
        entry = self.logged(root, leaf.public_bytes(Encoding.DER))
        if not 0 <= entry.time <= _LAST_S:
            raise PolicyRefused("its log entry is of no time at which a certificate may be valid")
        try:
            kept = root.as_of(entry.time)
            intermediates, roots = _authorities(kept)
            key = key_of(leaf)
            at = datetime.datetime.fromtimestamp(entry.time, datetime.UTC)
            verify_path(leaf, (), intermediates, roots, at, any_critical_name=True)
            refuse_unwitnessed(leaf, [*intermediates, *roots], kept)
        except DocumentError as exc:
            raise PolicyRefused(str(exc)) from exc
        if not self.is_signed_by(key):
            raise PolicyRefused("it is not signed by the key of its certificate")
        return identity_of(leaf), entry


def parse_attachment(one: Attachment) -> AttachedSignature:
    """Raises PolicyRefused for what is no signature, or makes no sense."""
    if one.media_type != SIMPLE_SIGNING:
        raise PolicyRefused("it is no signature of an image")
    text = one.annotations.get(SIGNATURE)
    if text is None or len(text) > _MAX_SIGNATURE_TEXT:
        raise PolicyRefused(f"its annotation {SIGNATURE} is {'missing' if text is None else 'too long'}")
    try:
        signature = from_base64(text, "its signature")
        pem = one.annotations.get(CERTIFICATE)
        found = read_certificates(pem.encode(), "the certificate") if pem is not None else None
    except (DocumentError, UnicodeEncodeError) as exc:
        raise PolicyRefused(str(exc)) from exc
    if found is not None and len(found) != 1:
        raise PolicyRefused(f"its annotation {CERTIFICATE} has {len(found)} certificates")
    return AttachedSignature(one, signature, found[0] if found else None)


def _authorities(root: dict[str, object]) -> tuple[list[x509.Certificate], list[x509.Certificate]]:
    """The intermediates and the roots of a trusted root. Raises DocumentError, PolicyRefused."""
    intermediates, roots = [], []
    for authority in as_list(root.get("certificateAuthorities"), "certificateAuthorities"):
        chain = as_object(as_object(authority, "authority").get("certChain"), "certChain")
        found = [
            _certificate(as_object(each, "certificate").get("rawBytes"))
            for each in as_list(chain.get("certificates"), "certificates")
        ]
        intermediates += found[:-1]
        roots += found[-1:]
    if not roots:
        raise PolicyRefused("no authority of the trusted root was in use when the log saw it")
    return intermediates, roots


def _certificate(value: object) -> x509.Certificate:
    try:
        return x509.load_der_x509_certificate(bytes_of(value, "a certificate of the trusted root"))
    except ValueError as exc:
        raise DocumentError(f"a certificate of the trusted root cannot be read: {exc}") from exc
