"""Public keys of signers and logs, and whether they made a signature.

As sigstore's LoadVerifier takes them, with SHA-256: ECDSA, RSA by PKCS #1 v1.5, Ed25519. Rules of this file:
a key is one that Go reads, in the one encoding that it is written in again; signatures are of bounded cost.
To be imported when a signature is to be verified, and not before: the library behind it takes its time.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from cryptography.exceptions import InternalError, InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_der_public_key,
)

from ...config.reading import read_file
from ...errors import DocumentError, PolicyRefused
from .armour import first_block

if TYPE_CHECKING:
    from ...config.requirements import Material

PublicKey = ec.EllipticCurvePublicKey | rsa.RSAPublicKey | ed25519.Ed25519PublicKey

MAX_MATERIAL: Final = 4 << 20
"""Bytes of one file with keys or certificates; one with all authorities of the web has a quarter of a MiB."""
_CURVES: Final = (ec.SECP256R1, ec.SECP384R1, ec.SECP521R1)
_MIN_RSA, _MAX_RSA = 1024, 8192  # Go refuses shorter ones; longer ones are a way to spend another's time
_MAX_EXPONENT: Final = (1 << 31) - 1  # crypto/rsa
_MAX_RAW: Final = 132  # bytes: two numbers of P-521
_FORMATS: Final = {"PUBLIC KEY": PublicFormat.SubjectPublicKeyInfo, "RSA PUBLIC KEY": PublicFormat.PKCS1}


def read_material(material: Material, what: str) -> list[bytes]:
    """All that ``material`` names or holds; files are read. Raises PolicyRefused. Blocks."""
    found = list(material.data)
    for path in material.paths:
        try:
            raw = read_file(path, MAX_MATERIAL, named=True)
        except OSError as exc:
            raise PolicyRefused(f"{what}: {path} cannot be read: {exc.strerror}") from exc
        found.append(raw or b"")
    for one in found:
        if len(one) > MAX_MATERIAL:
            raise PolicyRefused(f"{what} is larger than {MAX_MATERIAL} bytes")
    return found


def load_keys(material: Material, what: str) -> list[PublicKey]:
    """The public keys of policy.json, one for each file or text: the first PEM block in it.

    Raises PolicyRefused for all if one cannot be used: it would be missed when it is needed. Blocks.
    """
    keys = []
    for number, raw in enumerate(read_material(material, what), 1):
        try:
            keys.append(_load(raw, f"number {number}"))
        except DocumentError as exc:
            raise PolicyRefused(f"{what} of policy.json: {exc}") from exc
    if not keys:
        raise PolicyRefused(f"{what} of policy.json: there is none")
    return keys


def load_log_keys(material: Material, what: str) -> list[ec.EllipticCurvePublicKey]:
    """As :func:`load_keys`, for a log: ECDSA keys, all of them. Raises PolicyRefused. Blocks."""
    keys = load_keys(material, what)
    found = [key for key in keys if isinstance(key, ec.EllipticCurvePublicKey)]
    if len(found) != len(keys):
        raise PolicyRefused(f"{what} of policy.json: one is not an ECDSA key")
    return found


def _load(raw: bytes, what: str) -> PublicKey:
    block, _ = first_block(raw, what)
    written = _FORMATS.get(block.kind)
    if written is None:
        raise DocumentError(f"{what} is a {block.kind}, not a PUBLIC KEY")
    try:
        key = usable(load_der_public_key(block.der), what)
        again = key.public_bytes(Encoding.DER, written)
    except (ValueError, UnsupportedAlgorithm) as exc:
        raise DocumentError(f"{what} is not a public key that can be read") from exc
    if again != block.der:
        raise DocumentError(f"{what} is a public key in an encoding that is not the usual one")
    return key


def usable(key: object, what: str) -> PublicKey:
    """``key`` if it is of a kind and size that counts. Raises DocumentError naming ``what``."""
    match key:
        case ec.EllipticCurvePublicKey():
            if not isinstance(key.curve, _CURVES):
                raise DocumentError(
                    f"{what} is an ECDSA key of {key.curve.name}; P-256, P-384 and P-521 count"
                )
        case rsa.RSAPublicKey():
            numbers = key.public_numbers()
            if not _MIN_RSA <= key.key_size <= _MAX_RSA:
                raise DocumentError(
                    f"{what} is an RSA key of {key.key_size} bits; {_MIN_RSA} to {_MAX_RSA} count"
                )
            if not 3 <= numbers.e <= _MAX_EXPONENT or not (numbers.e & numbers.n & 1):
                raise DocumentError(f"{what} is an RSA key with an unusual exponent or modulus")
        case ed25519.Ed25519PublicKey():
            pass
        case _:
            raise DocumentError(f"{what} is neither an ECDSA, nor an RSA, nor an Ed25519 key")
    return key


def der_of(key: PublicKey) -> bytes:
    """Its SubjectPublicKeyInfo."""
    return key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def fingerprint(key: PublicKey) -> str:
    """``SHA256:`` and the hash of its SubjectPublicKeyInfo, in hexadecimal."""
    return f"SHA256:{hashlib.sha256(der_of(key)).hexdigest()}"


def signer(keys: Sequence[PublicKey], signature: bytes, message: bytes) -> PublicKey | None:
    """The first of ``keys`` that made ``signature`` of ``message``, None if none did.

    ECDSA signatures are in DER, or two numbers of equal length one after the other (IEEE P1363).
    """
    return next((key for key in keys if _made(key, signature, message)), None)


def _made(key: PublicKey, signature: bytes, message: bytes) -> bool:
    try:
        match key:
            case ec.EllipticCurvePublicKey():
                key.verify(_in_der(signature), message, ec.ECDSA(SHA256()))
            case rsa.RSAPublicKey():
                key.verify(signature, message, padding.PKCS1v15(), SHA256())
            case ed25519.Ed25519PublicKey():
                key.verify(signature, message)
    except (InvalidSignature, InternalError, ValueError):
        return False
    return True


def logged_by(keys: Sequence[ec.EllipticCurvePublicKey], stamp: bytes, entry: bytes) -> bool:
    """Whether one of ``keys`` made ``stamp``, a signature in DER and nothing else, of a log's ``entry``."""
    for key in keys:
        try:
            key.verify(stamp, entry, ec.ECDSA(SHA256()))
        except (InvalidSignature, InternalError, ValueError):
            continue
        return True
    return False


def _in_der(signature: bytes) -> bytes:
    """``signature`` as it is, unless it can only be two numbers.

    What might be a SEQUENCE that begins with an INTEGER is never taken for two numbers: Go does not either.
    """
    if signature[:1] == b"\x30" and 2 in signature[2:5]:
        return signature
    if not signature or len(signature) % 2 or len(signature) > _MAX_RAW:
        return signature
    half = len(signature) // 2
    return encode_dss_signature(
        int.from_bytes(signature[:half], "big"), int.from_bytes(signature[half:], "big")
    )
