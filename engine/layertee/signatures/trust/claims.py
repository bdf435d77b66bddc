"""Whom a certificate of Fulcio is for, and what it says of how the signer came to it.

Fulcio, docs/oid-info.md: extensions below 1.3.6.1.4.1.57264.1; the older ones are bare texts, those from 8 on
UTF8Strings in DER. Nothing here verifies a certificate.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field
from typing import Final

from cryptography import x509

from ...config.trustrules import Claim, KeylessSigner
from ...errors import PolicyRefused
from ...record import dataclass

_ARC: Final = "1.3.6.1.4.1.57264.1"
_ISSUER_V1: Final = 1
_NUMBERS: Final = {
    Claim.WORKFLOW_TRIGGER: 2,
    Claim.WORKFLOW_SHA: 3,
    Claim.WORKFLOW_NAME: 4,
    Claim.WORKFLOW_REPOSITORY: 5,
    Claim.WORKFLOW_REF: 6,
    Claim.ISSUER: 8,
    Claim.SIGNER: 9,
    Claim.SIGNER_DIGEST: 10,
    Claim.RUNNER: 11,
    Claim.REPOSITORY: 12,
    Claim.REPOSITORY_DIGEST: 13,
    Claim.REPOSITORY_REF: 14,
    Claim.REPOSITORY_ID: 15,
    Claim.OWNER: 16,
    Claim.OWNER_ID: 17,
    Claim.CONFIG: 18,
    Claim.CONFIG_DIGEST: 19,
    Claim.TRIGGER: 20,
    Claim.RUN: 21,
    Claim.VISIBILITY: 22,
}
_BARE: Final = 7  # up to this number, texts are not in DER
_UTF8_STRING: Final = 0x0C
_MAX_TEXT: Final = 4096
_UNREADABLE: Final = (x509.DuplicateExtension, x509.UnsupportedGeneralNameType)  # which are no ValueErrors


@dataclass(frozen=True, slots=True)
class Identity:
    """Whom a certificate is for: a URI or an e-mail address, as ``issuer`` knew it, and further claims."""

    subject: str
    issuer: str
    claims: Mapping[Claim, str] = field(default_factory=dict, hash=False)

    def mismatch(self, signer: KeylessSigner) -> str | None:
        """What of this is not as ``signer`` has it; None if all is."""
        if self.issuer != signer.issuer:
            return f"issuer {self.issuer!r:.200}"
        if not signer.subject.matches(self.subject):
            return f"subject {self.subject!r:.300}"
        for claim, wanted in signer.claims.items():
            found = self.claims.get(claim)
            if found not in wanted:
                return f"{claim.value} {found!r:.200}" if found is not None else f"no {claim.value}"
        return None


def identity_of(certificate: x509.Certificate) -> Identity:
    """Raises PolicyRefused for a certificate with no or several subjects or issuers, or unreadable claims."""
    claims = {}
    older = None
    for extension in _extensions(certificate):
        number, raw = extension
        if number == _ISSUER_V1:
            older = _text(raw, number)
        for claim, of_claim in _NUMBERS.items():
            if of_claim == number:
                claims[claim] = _text(raw, number)
    issuer = claims.pop(Claim.ISSUER, older)
    if issuer is None:
        raise PolicyRefused("its certificate does not say who its issuer of identities was")
    if older is not None and older != issuer:
        raise PolicyRefused("its certificate names two issuers of identities")
    return Identity(_subject(certificate), issuer, claims)


def _subject(certificate: x509.Certificate) -> str:
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        found = [name for name in names if isinstance(name, x509.RFC822Name | x509.UniformResourceIdentifier)]
        if len(found) == 1 == len(list(names)):
            return str(found[0].value)
    except (ValueError, x509.ExtensionNotFound, *_UNREADABLE) as exc:
        raise PolicyRefused(f"the subject of its certificate cannot be read: {exc}") from exc
    raise PolicyRefused("its certificate is not for exactly one URI or e-mail address")


def _extensions(certificate: x509.Certificate) -> list[tuple[int, bytes]]:
    """Those of Fulcio: their last number, and their value as it is."""
    found = []
    try:
        for extension in certificate.extensions:
            value, dotted = extension.value, extension.oid.dotted_string
            arc, _, number = dotted.rpartition(".")
            if arc == _ARC and isinstance(value, x509.UnrecognizedExtension):
                found.append((int(number), value.value))
    except (ValueError, *_UNREADABLE) as exc:
        raise PolicyRefused(f"the extensions of its certificate cannot be read: {exc}") from exc
    return found


def _text(raw: bytes, number: int) -> str:
    try:
        text = (raw if number <= _BARE else _utf8_string(raw)).decode("utf-8")
    except ValueError as exc:
        raise PolicyRefused(f"the extension {_ARC}.{number} of its certificate is no text") from exc
    if len(text) > _MAX_TEXT:
        raise PolicyRefused(f"the extension {_ARC}.{number} of its certificate is too long")
    return text


def _utf8_string(raw: bytes) -> bytes:
    """The content of a UTF8String in DER, which ``raw`` is as a whole. Raises ValueError."""
    if len(raw) < 2 or raw[0] != _UTF8_STRING:
        raise ValueError
    length, rest = raw[1], raw[2:]
    if length & 0x80:
        n = length & 0x7F
        if not 1 <= n <= 3 or len(rest) < n or rest[0] == 0:
            raise ValueError
        length, rest = int.from_bytes(rest[:n], "big"), rest[n:]
        if length < 0x80:
            raise ValueError
    if len(rest) != length:
        raise ValueError
    return rest
