"""A sigstore of the tests' own: it makes bundles as Cosign 3 does, and the trusted root for them.

sigstorekit.py has authorities and keys; added are a certificate transparency log, a Rekor with a Merkle tree
and checkpoints, in-toto statements in DSSE envelopes, and bundles of version 0.3 in protobuf's JSON. Every
part can be made wrong by an argument, or in the bundle's JSON afterwards.
"""

from __future__ import annotations

import base64
import copy
import hashlib
import json
import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import sigstore.verify  # noqa: F401  # now, since urllib3, which it imports, binds a socket to try IPv6
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.serialization import Encoding

from layertee.image.digest import Digest
from layertee.signatures.signature import Bundle
from tests.support.sigstorekit import (
    ISSUER,
    SIGNED,
    Authority,
    Extension,
    PrivateKey,
    b64,
    certificate_pem,
    issuers,
    new_key,
    public_der,
    public_pem,
    sign,
)

BUNDLE_TYPE = "application/vnd.dev.sigstore.bundle.v0.3+json"
ROOT_TYPE = "application/vnd.dev.sigstore.trustedroot+json;version=0.1"
IN_TOTO = "application/vnd.in-toto+json"
COSIGN_SIGN = "https://sigstore.dev/cosign/sign/v1"
PROVENANCE = "https://slsa.dev/provenance/v1"
STATEMENT_V1 = "https://in-toto.io/Statement/v1"
WORKFLOW = "https://github.com/example/os/.github/workflows/build.yml@refs/heads/main"
_SCT_LIST = x509.ObjectIdentifier("1.3.6.1.4.1.11129.2.4.2")
_FULCIO = "1.3.6.1.4.1.57264.1"


def statement(
    digest: Digest | str, predicate_type: str = COSIGN_SIGN, *, kind: str = STATEMENT_V1, **changes: Any
) -> bytes:
    """What ``cosign sign`` says of the image ``digest``; ``changes`` replaces keys."""
    algorithm, _, hexadecimal = str(digest).partition(":")
    found = {
        "_type": kind,
        "subject": [{"digest": {algorithm: hexadecimal}}],
        "predicateType": predicate_type,
        "predicate": {},
    }
    return json.dumps(found | changes, separators=(",", ":")).encode()


def pae(payload: bytes, payload_type: str = IN_TOTO) -> bytes:
    """What a DSSE envelope's signature is over."""
    kind = payload_type.encode()
    return b" ".join([b"DSSEv1", str(len(kind)).encode(), kind, str(len(payload)).encode(), payload])


def claim(number: int, text: str) -> Extension:
    """An extension of Fulcio's: a bare text up to number 7, a UTF8String above."""
    raw = text.encode()
    value = raw if number < 8 else b"\x0c" + _length(len(raw)) + raw
    return (x509.UnrecognizedExtension(x509.ObjectIdentifier(f"{_FULCIO}.{number}"), value), False)


def _length(n: int) -> bytes:
    """A length in DER."""
    return bytes([n]) if n < 128 else b"\x82" + struct.pack(">H", n) if n > 255 else b"\x81" + bytes([n])


# --- logs ---


def _node(left: bytes, right: bytes) -> bytes:
    return hashlib.sha256(b"\1" + left + right).digest()


def tree_root(leaves: Sequence[bytes]) -> bytes:
    """RFC 9162 §2.1.1, of the hashes of leaves."""
    if len(leaves) == 1:
        return leaves[0]
    split = 1 << (len(leaves) - 1).bit_length() - 1
    return _node(tree_root(leaves[:split]), tree_root(leaves[split:]))


def tree_path(leaves: Sequence[bytes], index: int) -> list[bytes]:
    """RFC 9162 §2.1.3.1: the hashes that prove the leaf ``index``, from its neighbour up."""
    if len(leaves) == 1:
        return []
    split = 1 << (len(leaves) - 1).bit_length() - 1
    if index < split:
        return [*tree_path(leaves[:split], index), tree_root(leaves[split:])]
    return [*tree_path(leaves[split:], index - split), tree_root(leaves[:split])]


@dataclass
class Rekor:
    """A transparency log: of version 1, with promises, or 2, without. ``n_before`` entries come first.

    In version 1, a log may be made of several trees: this one begins with the entry ``index_of_first``.
    """

    key: PrivateKey = field(default_factory=new_key)
    origin: str = "rekor.test.example.com - 4711"
    n_before: int = 5
    n_after: int = 3
    index_of_first: int = 1000

    @property
    def log_id(self) -> bytes:
        return hashlib.sha256(public_der(self.key)).digest()

    def entry(self, body: Mapping[str, Any], *, at: int | None = SIGNED) -> dict[str, Any]:
        """A TransparencyLogEntry for ``body``, with its proof; with a promise unless ``at`` is None."""
        raw = json.dumps(body, sort_keys=True, separators=(",", ":")).encode()
        leaves = [hashlib.sha256(b"\0" + bytes([n])).digest() for n in range(self.n_before + self.n_after)]
        leaves.insert(self.n_before, hashlib.sha256(b"\0" + raw).digest())
        root = tree_root(leaves)
        index = self.n_before + (self.index_of_first if at is not None else 0)
        found: dict[str, Any] = {
            "logIndex": str(index),
            "logId": {"keyId": b64(self.log_id)},
            "kindVersion": {"kind": body["kind"], "version": body["apiVersion"]},
            "inclusionProof": {
                "logIndex": str(self.n_before),
                "rootHash": b64(root),
                "treeSize": str(len(leaves)),
                "hashes": [b64(each) for each in tree_path(leaves, self.n_before)],
                "checkpoint": {"envelope": self.checkpoint(root, len(leaves))},
            },
            "canonicalizedBody": b64(raw),
        }
        if at is not None:
            promised = {"body": b64(raw), "integratedTime": at, "logID": self.log_id.hex(), "logIndex": index}
            signed = json.dumps(promised, sort_keys=True, separators=(",", ":")).encode()
            found["integratedTime"] = str(at)
            found["inclusionPromise"] = {"signedEntryTimestamp": b64(sign(self.key, signed))}
        return found

    def checkpoint(self, root: bytes, size: int) -> str:
        """A signed note about a tree."""
        note = f"{self.origin}\n{size}\n{b64(root)}\n"
        signature = self.log_id[:4] + sign(self.key, note.encode())
        return f"{note}\n— {self.origin.partition(' ')[0]} {b64(signature)}\n"

    def instance(self, **valid: str) -> dict[str, Any]:
        """Its part of a trusted root; ``valid`` has ``start`` and ``end``."""
        return {
            "baseUrl": "https://rekor.test.example.com",
            "hashAlgorithm": "SHA2_256",
            "publicKey": {
                "rawBytes": b64(public_der(self.key)),
                "keyDetails": _details(self.key),
                "validFor": valid,
            },
            "logId": {"keyId": b64(self.log_id)},
        }


@dataclass
class CTLog:
    """A certificate transparency log, which signs that it has seen a certificate (RFC 6962 §3.2)."""

    key: PrivateKey = field(default_factory=new_key)

    def witnessed(
        self, leaf: x509.Certificate, authority: Authority, *, of: x509.Certificate | None = None
    ) -> x509.Certificate:
        """``leaf``, issued once more with the log's word in it. ``of``: another certificate it is about."""
        at = int(leaf.not_valid_before_utc.timestamp() * 1000)
        tbs = (of or leaf).tbs_certificate_bytes
        issuer = hashlib.sha256(public_der(authority.key)).digest()
        signed = (
            b"\0\0" + struct.pack(">QH", at, 1) + issuer + struct.pack(">I", len(tbs))[1:] + tbs + b"\0\0"
        )
        signature = sign(self.key, signed)
        log_id = hashlib.sha256(public_der(self.key)).digest()
        stamp = b"\0" + log_id + struct.pack(">Q", at) + b"\0\0"
        stamp += b"\x04\x03" + struct.pack(">H", len(signature)) + signature  # SHA-256, ECDSA
        one = struct.pack(">H", len(stamp)) + stamp
        listed = struct.pack(">H", len(one)) + one
        value = b"\x04" + _length(len(listed)) + listed
        builder = x509.CertificateBuilder(
            leaf.issuer,
            leaf.subject,
            leaf.public_key(),
            leaf.serial_number,
            leaf.not_valid_before_utc,
            leaf.not_valid_after_utc,
        )
        for extension in leaf.extensions:
            builder = builder.add_extension(extension.value, extension.critical)
        builder = builder.add_extension(x509.UnrecognizedExtension(_SCT_LIST, value), False)
        return builder.sign(authority.key, leaf.signature_hash_algorithm)  # type: ignore[arg-type]

    def instance(self, **valid: str) -> dict[str, Any]:
        """Its part of a trusted root."""
        return {
            "baseUrl": "https://ctfe.test.example.com",
            "hashAlgorithm": "SHA2_256",
            "publicKey": {
                "rawBytes": b64(public_der(self.key)),
                "keyDetails": _details(self.key),
                "validFor": valid,
            },
            "logId": {"keyId": b64(hashlib.sha256(public_der(self.key)).digest())},
        }


def _details(key: PrivateKey) -> str:
    if isinstance(key, ed25519.Ed25519PrivateKey):
        return "PKIX_ED25519"
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    return {"secp256r1": "PKIX_ECDSA_P256_SHA_256", "secp384r1": "PKIX_ECDSA_P384_SHA_384"}[key.curve.name]


# --- entries of Rekor, by what they are about ---


def dsse_v1(payload: bytes, signature: bytes, verifier_pem: bytes) -> dict[str, Any]:
    """Rekor 1's entry of an envelope. The hash of the envelope is one that no verifier can check."""
    return {
        "apiVersion": "0.0.1",
        "kind": "dsse",
        "spec": {
            "envelopeHash": {"algorithm": "sha256", "value": "0" * 64},
            "payloadHash": {"algorithm": "sha256", "value": hashlib.sha256(payload).hexdigest()},
            "signatures": [{"signature": b64(signature), "verifier": b64(verifier_pem)}],
        },
    }


def _v2_signature(signature: bytes, key: PrivateKey) -> dict[str, Any]:
    verifier = {"publicKey": {"rawBytes": b64(public_der(key))}, "keyDetails": _details(key)}
    return {"content": b64(signature), "verifier": verifier}


def dsse_v2(payload: bytes, signature: bytes, key: PrivateKey) -> dict[str, Any]:
    """Rekor 2's entry of an envelope, by a key."""
    digest = {"algorithm": "SHA2_256", "digest": b64(hashlib.sha256(payload).digest())}
    spec = {"payloadHash": digest, "signatures": [_v2_signature(signature, key)]}
    return {"apiVersion": "0.0.2", "kind": "dsse", "spec": {"dsseV002": spec}}


def hashedrekord_v2(payload: bytes, signature: bytes, key: PrivateKey) -> dict[str, Any]:
    """Rekor 2's entry of what an envelope signs, by a key."""
    digest = {"algorithm": "SHA2_256", "digest": b64(hashlib.sha256(pae(payload)).digest())}
    spec = {"data": digest, "signature": _v2_signature(signature, key)}
    return {"apiVersion": "0.0.2", "kind": "hashedrekord", "spec": {"hashedRekordV002": spec}}


# --- all together ---

Edit = Callable[[dict[str, Any]], None]


def envelope(payload: bytes, signature: bytes, payload_type: str = IN_TOTO) -> dict[str, Any]:
    """A DSSE envelope in JSON."""
    return {"payload": b64(payload), "payloadType": payload_type, "signatures": [{"sig": b64(signature)}]}


def bundle_of(material: Mapping[str, Any], dsse: Mapping[str, Any]) -> dict[str, Any]:
    """A bundle in JSON."""
    return {"mediaType": BUNDLE_TYPE, "verificationMaterial": dict(material), "dsseEnvelope": dict(dsse)}


def raw_bundle(document: Mapping[str, Any], edit: Edit | None = None) -> bytes:
    """Its bytes, after ``edit`` has changed it."""
    found = copy.deepcopy(dict(document))
    if edit is not None:
        edit(found)
    return json.dumps(found).encode()


def found(raw: bytes, place: str = "a bundle") -> Bundle:
    """``raw`` as it is found beside an image."""
    return Bundle(raw, place)


@dataclass
class Sigstore:
    """An authority with an intermediate, a certificate transparency log and a Rekor."""

    root: Authority = field(default_factory=lambda: Authority.root("sigstore.test"))
    ct: CTLog = field(default_factory=CTLog)
    rekor: Rekor = field(default_factory=Rekor)
    issuer: Authority = field(init=False)

    def __post_init__(self) -> None:
        self.issuer = self.root.intermediate("sigstore-intermediate.test")

    def trusted_root(self, edit: Edit | None = None) -> bytes:
        """The trusted root that has all of it, in use since 2020; ``edit`` changes it."""
        chain = [self.issuer.certificate, self.root.certificate]
        document: dict[str, Any] = {
            "mediaType": ROOT_TYPE,
            "tlogs": [self.rekor.instance(start="2020-01-01T00:00:00Z")],
            "certificateAuthorities": [
                {
                    "subject": {"organization": "test", "commonName": "sigstore"},
                    "uri": "https://fulcio.test.example.com",
                    "certChain": {
                        "certificates": [{"rawBytes": b64(each.public_bytes(Encoding.DER))} for each in chain]
                    },
                    "validFor": {"start": "2020-01-01T00:00:00Z"},
                }
            ],
            "ctlogs": [self.ct.instance(start="2020-01-01T00:00:00Z")],
            "timestampAuthorities": [],
        }
        return raw_bundle(document, edit)

    def keyless(
        self,
        payload: bytes,
        subject: str = WORKFLOW,
        *,
        issuer: str = ISSUER,
        claims: Sequence[Extension] = (),
        at: int = SIGNED,
        key: ec.EllipticCurvePrivateKey | None = None,
        leaf: x509.Certificate | None = None,
        signed: bytes | None = None,
        body: Mapping[str, Any] | None = None,
        edit: Edit | None = None,
    ) -> bytes:
        """``cosign sign`` by an identity: a bundle with a certificate for ``subject``, a URI or an address.

        ``leaf``: another certificate, for ``key``. ``signed``: other bytes to sign. ``body``: another entry.
        """
        key = key or new_key()
        if leaf is None:
            leaf = self.leaf(key, subject, issuer=issuer, claims=claims, at=at)
        signature = sign(key, pae(payload) if signed is None else signed)
        entry = body or dsse_v1(payload, signature, certificate_pem(leaf))
        material = {
            "certificate": {"rawBytes": b64(leaf.public_bytes(Encoding.DER))},
            "tlogEntries": [self.rekor.entry(entry, at=at)],
        }
        return raw_bundle(bundle_of(material, envelope(payload, signature)), edit)

    def leaf(
        self,
        key: ec.EllipticCurvePrivateKey,
        subject: str = WORKFLOW,
        *,
        issuer: str = ISSUER,
        claims: Sequence[Extension] = (),
        at: int = SIGNED,
        **changes: Any,
    ) -> x509.Certificate:
        """A certificate of Fulcio for ``subject``, witnessed. ``changes`` are those of ``Authority.leaf``."""
        name: x509.GeneralName = (
            x509.UniformResourceIdentifier(subject) if "://" in subject else x509.RFC822Name(subject)
        )
        made = self.issuer.leaf(
            key.public_key(),
            **{
                "names": [name],
                "extensions": [*issuers(issuer, issuer), *claims],
                "since": at - 60,
                "until": at + 540,
                **changes,
            },
        )
        return self.ct.witnessed(made, self.issuer)

    def by_key(
        self,
        key: PrivateKey,
        payload: bytes,
        *,
        at: int | None = SIGNED,
        logged: bool = True,
        body: Callable[[bytes, bytes], Mapping[str, Any]] | None = None,
        signed: bytes | None = None,
        edit: Edit | None = None,
    ) -> bytes:
        """``cosign sign --key``: a bundle with a hint of the key. ``body`` makes an entry of another kind."""
        signature = sign_dsse(key, pae(payload) if signed is None else signed)
        hint = b64(hashlib.sha256(public_der(key)).digest())
        material: dict[str, Any] = {"publicKey": {"hint": hint}}
        if logged:
            entry = body(payload, signature) if body else dsse_v1(payload, signature, public_pem(key))
            material["tlogEntries"] = [self.rekor.entry(entry, at=at)]
        return raw_bundle(bundle_of(material, envelope(payload, signature)), edit)


def sign_dsse(key: PrivateKey, message: bytes) -> bytes:
    """As ``sigstorekit.sign``, with the hash of the key's curve."""
    from cryptography.hazmat.primitives import hashes

    if isinstance(key, ec.EllipticCurvePrivateKey):
        of_curve: dict[str, hashes.HashAlgorithm] = {
            "secp256r1": hashes.SHA256(),
            "secp384r1": hashes.SHA384(),
            "secp521r1": hashes.SHA512(),
        }
        return key.sign(message, ec.ECDSA(of_curve[key.curve.name]))
    return sign(key, message)


def moment(at: float) -> str:
    """A time as a trusted root has it."""
    return datetime.fromtimestamp(at, UTC).isoformat()


def flip(text: str, at: int = 0) -> str:
    """Base64 ``text`` with one bit of the byte ``at`` of what it stands for turned."""
    raw = bytearray(base64.b64decode(text))
    raw[at] ^= 1
    return b64(bytes(raw))
