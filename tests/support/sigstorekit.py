"""Signing material that is made while tests run: authorities, certificates, a transparency log, signatures.

Everything is as cosign makes it where nothing else is asked for (cosign: specs/SIGNATURE_SPEC.md and
specs/BUNDLE_SPEC.md; Fulcio: docs/oid-info.md); every part of it can be made wrong by an argument.
Keys are cheap ones (P-256) unless a test brings its own. Times are seconds since the epoch.
"""

from __future__ import annotations

import base64
import datetime
import functools
import hashlib
import json
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from layertee.image.digest import Digest
from layertee.signatures.signature import Attachment

PrivateKey = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey
Hash = hashes.SHA256 | hashes.SHA384 | hashes.SHA512
PublicKey = ec.EllipticCurvePublicKey | rsa.RSAPublicKey | ed25519.Ed25519PublicKey

SIMPLE_SIGNING = "application/vnd.dev.cosign.simplesigning.v1+json"
OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OCI_CONFIG = "application/vnd.oci.image.config.v1+json"
SIGNATURE = "dev.cosignproject.cosign/signature"
BUNDLE = "dev.sigstore.cosign/bundle"
CERTIFICATE = "dev.sigstore.cosign/certificate"
CHAIN = "dev.sigstore.cosign/chain"

CODE_SIGNING = ExtendedKeyUsageOID.CODE_SIGNING
SERVER_AUTH = ExtendedKeyUsageOID.SERVER_AUTH
ANY_USAGE = ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE

EMAIL = "signer@example.com"
ISSUER = "https://issuer.example.com"
_ISSUER_V1 = x509.ObjectIdentifier("1.3.6.1.4.1.57264.1.1")
_ISSUER_V2 = x509.ObjectIdentifier("1.3.6.1.4.1.57264.1.8")

DAY_S = 24 * 3600
NOW = int(time.time())
FROM = NOW - 365 * DAY_S
"""When authorities begin to be valid; they are until UNTIL. A leaf is for ten minutes from SIGNED - 60 on."""
UNTIL = NOW + 365 * DAY_S
SIGNED = NOW - 30 * DAY_S
"""When the log saw a signature, unless a test says otherwise: long after it the leaf is no longer valid."""


# --- keys and signatures -------------------------------------------------------------------------


def new_key(curve: ec.EllipticCurve | None = None) -> ec.EllipticCurvePrivateKey:
    """A new ECDSA key, of P-256 unless another ``curve`` is asked for."""
    return ec.generate_private_key(curve or ec.SECP256R1())


@functools.cache
def rsa_key(bits: int = 2048) -> rsa.RSAPrivateKey:
    """One RSA key for each size: they are slow to make."""
    return rsa.generate_private_key(65537, bits)


def public_pem(key: PrivateKey | PublicKey) -> bytes:
    """Its public half, as a PEM block ``PUBLIC KEY``: what ``cosign public-key`` writes."""
    public = key if isinstance(key, PublicKey) else key.public_key()
    return public.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)


def public_der(key: PrivateKey | PublicKey) -> bytes:
    """Its public half, as the DER of a SubjectPublicKeyInfo."""
    public = key if isinstance(key, PublicKey) else key.public_key()
    return public.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)


def sign(key: PrivateKey, payload: bytes) -> bytes:
    """The signature of ``payload`` as cosign makes it: SHA-256; ECDSA in DER, RSA by PKCS #1 v1.5."""
    match key:
        case ec.EllipticCurvePrivateKey():
            return key.sign(payload, ec.ECDSA(hashes.SHA256()))
        case rsa.RSAPrivateKey():
            return key.sign(payload, padding.PKCS1v15(), hashes.SHA256())
    return key.sign(payload)


def b64(raw: bytes) -> str:
    """``raw`` in base64, as text."""
    return base64.b64encode(raw).decode()


def pem(der: bytes, kind: str = "CERTIFICATE") -> bytes:
    """``der`` as a PEM block."""
    text = b64(der)
    lines = "\n".join(text[at : at + 64] for at in range(0, len(text), 64))
    return f"-----BEGIN {kind}-----\n{lines}\n-----END {kind}-----\n".encode()


def payload(digest: Digest | str, reference: str, **critical: Any) -> bytes:
    """What cosign signs for an image: ``critical`` replaces keys of that object, ``None`` removes them."""
    found: dict[str, Any] = {
        "identity": {"docker-reference": reference},
        "image": {"docker-manifest-digest": str(digest)},
        "type": "cosign container image signature",
    }
    kept = {key: value for key, value in (found | critical).items() if value is not None}
    return json.dumps({"critical": kept, "optional": None}, separators=(",", ":")).encode()


# --- authorities and certificates ----------------------------------------------------------------


def _when(at: int) -> datetime.datetime:
    return datetime.datetime.fromtimestamp(at, datetime.UTC)


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)] if text else [])


Extension = tuple[x509.ExtensionType, bool]
"""An extension of a certificate, and whether it is critical."""


def certificate(
    issuer: PrivateKey,
    issuer_name: str,
    public: PublicKey,
    name: str,
    extensions: Iterable[Extension] = (),
    *,
    since: int = FROM,
    until: int = UNTIL,
    hash_algorithm: Hash | None = None,
) -> x509.Certificate:
    """Any certificate. ``hash_algorithm`` is SHA-256 unless given, and none for Ed25519."""
    builder = x509.CertificateBuilder(
        issuer_name=_name(issuer_name),
        subject_name=_name(name),
        public_key=public,
        serial_number=x509.random_serial_number(),
        not_valid_before=_when(since),
        not_valid_after=_when(until),
    )
    for value, critical in extensions:
        builder = builder.add_extension(value, critical)
    if isinstance(issuer, ed25519.Ed25519PrivateKey):
        return builder.sign(issuer, None)
    return builder.sign(issuer, hash_algorithm or hashes.SHA256())


def certificate_pem(*certificates: x509.Certificate) -> bytes:
    """All of them, one PEM block after the other."""
    return b"".join(one.public_bytes(serialization.Encoding.PEM) for one in certificates)


def usage(*, sign_certificates: bool) -> x509.KeyUsage:
    """The key usage of an authority, or of one who signs code."""
    return x509.KeyUsage(
        digital_signature=not sign_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=sign_certificates,
        crl_sign=sign_certificates,
        encipher_only=False,
        decipher_only=False,
    )


def issuers(v1: str | bytes | None = ISSUER, v2: str | bytes | None = ISSUER) -> list[Extension]:
    """The extensions by which Fulcio says who knew the signer. Bytes are the whole value, as they are."""
    found: list[Extension] = []
    if v1 is not None:
        raw = v1.encode() if isinstance(v1, str) else v1
        found.append((x509.UnrecognizedExtension(_ISSUER_V1, raw), False))
    if v2 is not None:
        raw = _utf8_string(v2) if isinstance(v2, str) else v2
        found.append((x509.UnrecognizedExtension(_ISSUER_V2, raw), False))
    return found


def _utf8_string(text: str) -> bytes:
    """DER of a UTF8String."""
    raw = text.encode()
    if len(raw) < 128:
        return b"\x0c" + bytes([len(raw)]) + raw
    size = len(raw).to_bytes((len(raw).bit_length() + 7) // 8, "big")
    return b"\x0c" + bytes([0x80 | len(size)]) + size + raw


@dataclass(frozen=True)
class Authority:
    """Who issues certificates: a root, or an intermediate below ``parent``."""

    name: str
    key: PrivateKey
    certificate: x509.Certificate
    parent: Authority | None = None

    @classmethod
    def root(cls, name: str = "root", *, key: PrivateKey | None = None, **changes: Any) -> Authority:
        """A new one that signed itself. ``changes`` are those of :meth:`intermediate`."""
        key = key or new_key()
        return cls(name, key, _authority(name, key, name, key, **changes))

    def intermediate(
        self, name: str = "intermediate", *, key: PrivateKey | None = None, **changes: Any
    ) -> Authority:
        """A new one below this, for code signing.

        ``changes``: since, until, usages (extended ones; None for no such extension), path_length, is_ca
        (None for no basic constraints), key_usage, without_key_usage, extensions (more), hash_algorithm.
        """
        key = key or new_key()
        made = _authority(
            self.name, self.key, name, key, usages=changes.pop("usages", [CODE_SIGNING]), **changes
        )
        return Authority(name, key, made, self)

    @property
    def pem(self) -> bytes:
        """Its certificate."""
        return certificate_pem(self.certificate)

    @property
    def chain_pem(self) -> bytes:
        """Its certificate and all above it, the root last: cosign's annotation ``chain``."""
        return self.pem + (self.parent.chain_pem if self.parent else b"")

    def leaf(
        self,
        public: PublicKey,
        *,
        names: Sequence[x509.GeneralName] | None = None,
        email: str | None = EMAIL,
        extensions: Iterable[Extension] | None = None,
        usages: Sequence[x509.ObjectIdentifier] | None = (CODE_SIGNING,),
        since: int = SIGNED - 60,
        until: int = SIGNED + 540,
        name: str = "",
        critical_names: bool | None = None,
        is_ca: bool = False,
    ) -> x509.Certificate:
        """A certificate for one who signs, as Fulcio makes it: without a subject, for ten minutes.

        ``names`` are all subject alternative names; ``email`` the only one where they are not given.
        ``extensions`` replaces those about the issuer of the identity.
        """
        found: list[Extension] = [(usage(sign_certificates=False), True)]
        if usages is not None:
            found.append((x509.ExtendedKeyUsage(usages), False))
        if is_ca:
            found.append((x509.BasicConstraints(True, None), True))
        found.append((x509.SubjectKeyIdentifier.from_public_key(public), False))
        found.append((x509.AuthorityKeyIdentifier.from_issuer_public_key(_public(self.key)), False))
        if names is None:
            names = [x509.RFC822Name(email)] if email is not None else []
        if names:
            critical = not name if critical_names is None else critical_names
            found.append((x509.SubjectAlternativeName(names), critical))
        found.extend(issuers() if extensions is None else extensions)
        return certificate(self.key, self.name, public, name, found, since=since, until=until)


def _public(key: PrivateKey) -> PublicKey:
    return key.public_key()


def _authority(
    issuer_name: str,
    issuer: PrivateKey,
    name: str,
    key: PrivateKey,
    *,
    since: int = FROM,
    until: int = UNTIL,
    usages: Sequence[x509.ObjectIdentifier] | None = None,
    path_length: int | None = None,
    is_ca: bool | None = True,
    key_usage: x509.KeyUsage | None = None,
    without_key_usage: bool = False,
    extensions: Iterable[Extension] = (),
    hash_algorithm: Hash | None = None,
) -> x509.Certificate:
    found: list[Extension] = []
    if not without_key_usage:
        found.append((key_usage or usage(sign_certificates=True), True))
    if is_ca is not None:
        found.append((x509.BasicConstraints(is_ca, path_length if is_ca else None), True))
    if usages is not None:
        found.append((x509.ExtendedKeyUsage(usages), False))
    found.append((x509.SubjectKeyIdentifier.from_public_key(_public(key)), False))
    found.append((x509.AuthorityKeyIdentifier.from_issuer_public_key(_public(issuer)), False))
    found.extend(extensions)
    return certificate(
        issuer,
        issuer_name,
        _public(key),
        name,
        found,
        since=since,
        until=until,
        hash_algorithm=hash_algorithm,
    )


# --- the transparency log ------------------------------------------------------------------------


@dataclass(frozen=True)
class Log:
    """A Rekor: it signs that it saw a signature, and when. ``key`` may be one that Rekor would not have."""

    key: PrivateKey = field(default_factory=new_key)

    @property
    def pem(self) -> bytes:
        """Its public key."""
        return public_pem(self.key)

    @property
    def log_id(self) -> str:
        """The SHA-256 of its public key, in hexadecimal."""
        return hashlib.sha256(public_der(self.key)).hexdigest()

    def record(self, key_or_certificate: bytes, signature: bytes, payload: bytes) -> dict[str, Any]:
        """The ``hashedrekord`` of a signature. ``key_or_certificate`` is PEM."""
        found = {"algorithm": "sha256", "value": hashlib.sha256(payload).hexdigest()}
        return {
            "apiVersion": "0.0.1",
            "kind": "hashedrekord",
            "spec": {
                "data": {"hash": found},
                "signature": {"content": b64(signature), "publicKey": {"content": b64(key_or_certificate)}},
            },
        }

    def entry(
        self, record: Mapping[str, Any] | bytes, *, at: int = SIGNED, index: int = 4711, **changes: Any
    ) -> dict[str, Any]:
        """The ``Payload`` that the log signs; ``changes`` replaces its keys, or adds some."""
        raw = record if isinstance(record, bytes) else json.dumps(record, separators=(",", ":")).encode()
        return {"body": b64(raw), "integratedTime": at, "logIndex": index, "logID": self.log_id} | changes

    def bundle(self, entry: Mapping[str, Any], *, signed: bytes | None = None, **changes: Any) -> str:
        """cosign's annotation ``bundle``: ``entry``, signed. ``signed``: other bytes to sign in its place."""
        canonical = json.dumps(entry, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
        stamp = sign(self.key, canonical if signed is None else signed)
        return json.dumps({"SignedEntryTimestamp": b64(stamp), "Payload": dict(entry)} | changes)

    def saw(
        self,
        key_or_certificate: bytes,
        signature: bytes,
        payload: bytes,
        *,
        at: int = SIGNED,
        index: int = 4711,
    ) -> str:
        """The annotation ``bundle`` for a signature that the log saw."""
        return self.bundle(
            self.entry(self.record(key_or_certificate, signature, payload), at=at, index=index)
        )


# --- attachments ---------------------------------------------------------------------------------


def attachment(
    payload: bytes,
    signature: bytes | str | None,
    *,
    bundle: str | None = None,
    certificate: bytes | None = None,
    chain: bytes | None = None,
    media_type: str = SIMPLE_SIGNING,
    place: str = "test.example.com/image:sha256-0.sig, layer 0",
) -> Attachment:
    """What is found beside an image; annotations that are None are not there. ``signature``: text is taken
    as it is, bytes are put in base64.
    """
    found = {
        SIGNATURE: b64(signature) if isinstance(signature, bytes) else signature,
        BUNDLE: bundle,
        CERTIFICATE: certificate.decode() if certificate is not None else None,
        CHAIN: chain.decode() if chain is not None else None,
    }
    annotations = {key: value for key, value in found.items() if value is not None}
    return Attachment(media_type, payload, annotations, place)


def by_key(key: PrivateKey, payload: bytes, *, log: Log | None = None) -> Attachment:
    """``cosign sign --key``: with the log's word where there is a ``log``."""
    signature = sign(key, payload)
    bundle = log.saw(public_pem(key), signature, payload) if log else None
    return attachment(payload, signature, bundle=bundle)


def keyless(
    authority: Authority,
    log: Log,
    payload: bytes,
    *,
    key: PrivateKey | None = None,
    at: int = SIGNED,
    **changes: Any,
) -> Attachment:
    """``cosign sign`` without a key: a new one, a certificate of ``authority`` for it, and the log's word.

    ``changes`` are those of :meth:`Authority.leaf`.
    """
    key = key or new_key()
    leaf = certificate_pem(authority.leaf(_public(key), **changes))
    signature = sign(key, payload)
    return attachment(
        payload,
        signature,
        bundle=log.saw(leaf, signature, payload, at=at),
        certificate=leaf,
        chain=authority.chain_pem,
    )


def by_certificate(
    authority: Authority, payload: bytes, *, key: PrivateKey | None = None, **changes: Any
) -> Attachment:
    """``cosign sign --key --certificate --certificate-chain``, without a log: what ``pki`` is for.

    The certificate is valid now. ``changes`` are those of :meth:`Authority.leaf`.
    """
    key = key or new_key()
    wanted: dict[str, Any] = {"since": NOW - DAY_S, "until": NOW + DAY_S, "extensions": ()} | changes
    leaf = certificate_pem(authority.leaf(_public(key), **wanted))
    return attachment(payload, sign(key, payload), certificate=leaf, chain=authority.chain_pem)


def manifest(attachments: Sequence[Attachment], **changes: Any) -> tuple[bytes, dict[str, bytes]]:
    """The manifest that holds ``attachments`` in a registry, and all its blobs by digest.

    Its tag is ``tag_of`` the image's digest. ``changes`` replaces keys of the manifest.
    """
    config = b"{}"
    blobs = {str(Digest.of(config)): config}
    layers = []
    for one in attachments:
        digest = str(Digest.of(one.payload))
        blobs[digest] = one.payload
        layers.append(
            {
                "mediaType": one.media_type,
                "size": len(one.payload),
                "digest": digest,
                "annotations": dict(one.annotations),
            }
        )
    document = {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": {"mediaType": OCI_CONFIG, "size": len(config), "digest": str(Digest.of(config))},
        "layers": layers,
    } | changes
    return json.dumps(document).encode(), blobs


def tag_of(digest: Digest) -> str:
    """The tag beside the image ``digest`` under which its attachments are."""
    return f"{digest.algorithm}-{digest.hex}.sig"


# --- damage --------------------------------------------------------------------------------------


def flipped(raw: bytes, at: int = -1) -> bytes:
    """``raw`` with one bit of the byte ``at`` turned."""
    found = bytearray(raw)
    found[at] ^= 1
    return bytes(found)


def with_annotation(one: Attachment, key: str, value: str | None) -> Attachment:
    """``one`` with another value of an annotation, or without it."""
    found = {name: text for name, text in one.annotations.items() if name != key}
    if value is not None:
        found[key] = value
    return Attachment(one.media_type, one.payload, found, one.place)
