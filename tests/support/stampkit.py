"""A time-stamp authority of the tests' own (RFC 3161), which stamps at any time it is asked to.

What is signed is DER, which is written by the functions in the middle of this file.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID

from tests.support.sigstorekit import Authority, b64, certificate, new_key, usage

_SIGNED_DATA = "1.2.840.113549.1.7.2"
_TST_INFO = "1.2.840.113549.1.9.16.1.4"
_CONTENT_TYPE = "1.2.840.113549.1.9.3"
_MESSAGE_DIGEST = "1.2.840.113549.1.9.4"
_SIGNING_CERTIFICATE = "1.2.840.113549.1.9.16.2.47"
_SHA256 = "2.16.840.1.101.3.4.2.1"
_ECDSA_SHA256 = "1.2.840.10045.4.3.2"
_POLICY = "1.3.6.1.4.1.99999.1"


# --- DER ---


def tlv(tag: int, *content: bytes) -> bytes:
    """One value: its tag, its length, and what is in it."""
    body = b"".join(content)
    n = len(body)
    if n < 128:
        return bytes([tag, n]) + body
    size = n.to_bytes((n.bit_length() + 7) // 8, "big")
    return bytes([tag, 0x80 | len(size)]) + size + body


def sequence(*content: bytes) -> bytes:
    return tlv(0x30, *content)


def set_of(*content: bytes) -> bytes:
    return tlv(0x31, *sorted(content))


def integer(n: int) -> bytes:
    return tlv(0x02, n.to_bytes(n.bit_length() // 8 + 1, "big"))


def octets(raw: bytes) -> bytes:
    return tlv(0x04, raw)


def identifier(dotted: str) -> bytes:
    """An object identifier."""
    first, second, *rest = map(int, dotted.split("."))
    raw = b""
    for n in (first * 40 + second, *rest):
        groups = [n & 0x7F]
        while n := n >> 7:
            groups.append(n & 0x7F | 0x80)
        raw += bytes(reversed(groups))
    return tlv(0x06, raw)


def _algorithm(dotted: str, *parameters: bytes) -> bytes:
    return sequence(identifier(dotted), *parameters)


# --- the authority ---


@dataclass
class StampAuthority:
    """It signs that it has seen something at a time. ``root`` issued its certificate."""

    root: Authority = field(default_factory=lambda: Authority.root("stamps.test"))
    key: ec.EllipticCurvePrivateKey = field(default_factory=new_key)
    own: x509.Certificate = field(init=False)

    def __post_init__(self) -> None:
        extensions = [
            (usage(sign_certificates=False), True),
            (x509.ExtendedKeyUsage([ExtendedKeyUsageOID.TIME_STAMPING]), True),
        ]
        self.own = certificate(self.root.key, self.root.name, self.key.public_key(), "stamp", extensions)

    def stamp(self, message: bytes, at: float, *, status: int = 0) -> bytes:
        """A TimeStampResp for ``message``, in DER, whole seconds."""
        moment = datetime.fromtimestamp(at, UTC).strftime("%Y%m%d%H%M%SZ").encode()
        info = sequence(
            integer(1),
            identifier(_POLICY),
            sequence(_algorithm(_SHA256, b"\x05\x00"), octets(hashlib.sha256(message).digest())),
            integer(4711),
            tlv(0x18, moment),
        )
        raw = self.own.public_bytes(Encoding.DER)
        attributes = set_of(
            sequence(identifier(_CONTENT_TYPE), set_of(identifier(_TST_INFO))),
            sequence(identifier(_MESSAGE_DIGEST), set_of(octets(hashlib.sha256(info).digest()))),
            sequence(
                identifier(_SIGNING_CERTIFICATE),
                set_of(sequence(sequence(sequence(octets(hashlib.sha256(raw).digest()))))),
            ),
        )
        signer = sequence(
            integer(1),
            sequence(self.own.issuer.public_bytes(), integer(self.own.serial_number)),
            _algorithm(_SHA256, b"\x05\x00"),
            b"\xa0" + attributes[1:],
            _algorithm(_ECDSA_SHA256),
            octets(self.key.sign(attributes, ec.ECDSA(hashes.SHA256()))),
        )
        signed = sequence(
            integer(3),
            set_of(_algorithm(_SHA256, b"\x05\x00")),
            sequence(identifier(_TST_INFO), tlv(0xA0, octets(info))),
            tlv(0xA0, raw),
            set_of(signer),
        )
        content = sequence(identifier(_SIGNED_DATA), tlv(0xA0, signed))
        return sequence(sequence(integer(status)), content)

    def instance(self, **valid: str) -> dict[str, Any]:
        """Its part of a trusted root; ``valid`` has ``start`` and ``end``."""
        chain = [self.own, self.root.certificate]
        return {
            "subject": {"organization": "test", "commonName": "stamps"},
            "uri": "https://stamps.test.example.com",
            "certChain": {
                "certificates": [{"rawBytes": b64(each.public_bytes(Encoding.DER))} for each in chain]
            },
            "validFor": valid,
        }
