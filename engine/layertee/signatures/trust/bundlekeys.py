"""Public keys of signers of bundles, and of logs; a signature is checked in the way of each kind.

The kinds are those of sigstore's algorithm registry that the ``cryptography`` package has: ECDSA with the
hash of its curve, Ed25519, and RSA of at least 2048 bits with PKCS #1 v1.5 and SHA-256. Imported when a
bundle is to be verified, and not before: the package takes its time.
"""

from __future__ import annotations

import hashlib
from typing import Final

from cryptography.exceptions import InternalError, InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.hashes import SHA256, SHA384, SHA512
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_der_public_key,
    load_pem_public_key,
)

PublicKey = ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey | rsa.RSAPublicKey

_MIN_RSA_BITS: Final = 2048
_MAX_RSA_BITS: Final = 16384
# By curve. Some programs sign with SHA-256 on every curve.
_HASHES: Final = {
    "secp256r1": (SHA256(),),
    "secp384r1": (SHA384(), SHA256()),
    "secp521r1": (SHA512(), SHA256()),
}


def load_pem(raw: bytes) -> PublicKey:
    """The key in ``raw``, a PEM block ``PUBLIC KEY``. Raises ValueError."""
    if raw.count(b"-----BEGIN") != 1:
        raise ValueError("it is not one public key in PEM")
    try:
        return _known(load_pem_public_key(raw))
    except UnsupportedAlgorithm as exc:
        raise ValueError(str(exc)) from exc


def load_der(raw: bytes) -> PublicKey:
    """The key in ``raw``, a SubjectPublicKeyInfo. Raises ValueError."""
    try:
        return _known(load_der_public_key(raw))
    except UnsupportedAlgorithm as exc:
        raise ValueError(str(exc)) from exc


def to_der(key: PublicKey) -> bytes:
    """The SubjectPublicKeyInfo of ``key``."""
    return key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def fingerprint(key: PublicKey) -> str:
    """``SHA256:`` and that of its DER, in hexadecimal."""
    return f"SHA256:{hashlib.sha256(to_der(key)).hexdigest()}"


def is_signed(key: PublicKey, signature: bytes, message: bytes) -> bool:
    """Whether ``signature`` is that of ``message`` by ``key``."""
    if isinstance(key, ec.EllipticCurvePublicKey):
        return any(_is_made(key, signature, message, each) for each in _HASHES[key.curve.name])
    return _is_made(key, signature, message, SHA256())


def _is_made(key: PublicKey, signature: bytes, message: bytes, hash_of: SHA256 | SHA384 | SHA512) -> bool:
    try:
        match key:
            case ec.EllipticCurvePublicKey():
                key.verify(signature, message, ec.ECDSA(hash_of))
            case ed25519.Ed25519PublicKey():
                key.verify(signature, message)
            case rsa.RSAPublicKey():
                key.verify(signature, message, padding.PKCS1v15(), hash_of)
    except (InvalidSignature, InternalError, ValueError):
        return False
    return True


def _known(key: object) -> PublicKey:
    if isinstance(key, ec.EllipticCurvePublicKey) and key.curve.name in _HASHES:
        return key
    if isinstance(key, ed25519.Ed25519PublicKey):
        return key
    if isinstance(key, rsa.RSAPublicKey) and _MIN_RSA_BITS <= key.key_size <= _MAX_RSA_BITS:
        return key
    raise ValueError("it is a key of a kind or size that is not used for images")
