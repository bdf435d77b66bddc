"""Which public keys and encodings of signatures count: those of sigstore's LoadVerifier."""

from __future__ import annotations

import base64

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed448, ed25519, padding, rsa, x25519
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from layertee.config.requirements import Material
from layertee.errors import PolicyRefused
from layertee.signatures.keys.publickeys import PublicKey, fingerprint, load_keys, signer
from tests.support import sigstorekit as kit

MESSAGE = b"message"
KEY = kit.new_key()
PEM = kit.public_pem(KEY)


def loaded(*raw: bytes) -> list[PublicKey]:
    return load_keys(Material(data=raw), "key")


def is_by(key: kit.PrivateKey, signature: bytes) -> bool:
    return signer(loaded(kit.public_pem(key)), signature, MESSAGE) is not None


@pytest.mark.parametrize(
    "raw",
    [
        PEM,
        b"a comment\n" + PEM,
        PEM + b"whatever follows",
        PEM.replace(b"\n", b"\r\n"),
        kit.rsa_key().public_key().public_bytes(Encoding.PEM, PublicFormat.PKCS1),
        kit.public_pem(kit.rsa_key(1024)),
    ],
)
def test_the_first_block_of_a_text_is_the_key(raw: bytes) -> None:
    assert len(loaded(raw)) == 1


def compressed() -> bytes:
    """The key as a SubjectPublicKeyInfo with half of its point, which Go does not read."""
    public = KEY.public_key()
    long = public.public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
    short = public.public_bytes(Encoding.X962, PublicFormat.CompressedPoint)
    der = bytearray(kit.public_der(KEY).replace(long, short))
    less = len(long) - len(short)
    der[1] -= less
    der[len(der) - len(short) - 2] -= less
    return kit.pem(bytes(der), "PUBLIC KEY")


@pytest.mark.parametrize(
    ("raw", "match"),
    [
        (kit.public_pem(kit.new_key(ec.SECP256K1())), "secp256k1"),
        (kit.public_pem(kit.new_key(ec.SECP224R1())), "secp224r1"),
        (kit.pem(kit.public_der(KEY) + b"\0", "PUBLIC KEY"), "cannot be read|can be read"),
        (compressed(), "encoding"),
        (PEM.replace(b"PUBLIC KEY", b"RSA PUBLIC KEY"), "can be read"),
        (PEM.replace(b"PUBLIC KEY", b"EC PUBLIC KEY"), "not a PUBLIC KEY"),
        (kit.pem(b"secret", "PRIVATE KEY"), "is a PRIVATE KEY"),
    ],
)
def test_a_key_that_does_not_count_is_refused(raw: bytes, match: str) -> None:
    with pytest.raises(PolicyRefused, match=match):
        loaded(raw)


@pytest.mark.parametrize(
    "key",
    [
        dsa.generate_private_key(1024).public_key(),
        ed448.Ed448PrivateKey.generate().public_key(),
        x25519.X25519PrivateKey.generate().public_key(),
    ],
    ids=lambda key: type(key).__name__,
)
def test_keys_of_other_kinds_do_not_count(key: dsa.DSAPublicKey) -> None:
    pem = key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    with pytest.raises(PolicyRefused, match="neither an ECDSA, nor an RSA, nor an Ed25519 key"):
        loaded(pem)


@pytest.mark.parametrize(
    ("exponent", "modulus", "match"),
    [
        (65537, (1 << 8200) + 1, "8201 bits"),
        ((1 << 31) + 1, kit.rsa_key().public_key().public_numbers().n, "unusual"),
    ],
    ids=["too large", "a strange exponent"],
)
def test_rsa_keys_that_cost_much_or_are_odd_do_not_count(exponent: int, modulus: int, match: str) -> None:
    key = rsa.RSAPublicNumbers(exponent, modulus).public_key()
    with pytest.raises(PolicyRefused, match=match):
        loaded(kit.public_pem(key))


def test_a_fingerprint_is_that_of_the_key_whatever_its_encoding() -> None:
    key = kit.rsa_key()
    old = key.public_key().public_bytes(Encoding.PEM, PublicFormat.PKCS1)
    assert fingerprint(*loaded(kit.public_pem(key))) == fingerprint(*loaded(old))
    assert fingerprint(*loaded(PEM)) != fingerprint(*loaded(old))


def test_the_key_that_made_a_signature_is_found() -> None:
    others = [kit.new_key() for _ in range(3)]
    keys = loaded(*(kit.public_pem(key) for key in (*others, KEY)))
    assert signer(keys, kit.sign(KEY, MESSAGE), MESSAGE) is keys[3]
    assert signer(keys, kit.sign(kit.new_key(), MESSAGE), MESSAGE) is None
    assert signer([], kit.sign(KEY, MESSAGE), MESSAGE) is None


@pytest.mark.parametrize("curve", [ec.SECP256R1(), ec.SECP384R1(), ec.SECP521R1()])
def test_two_numbers_without_der_are_an_ecdsa_signature_too(curve: ec.EllipticCurve) -> None:
    key = kit.new_key(curve)
    size = (curve.key_size + 7) // 8
    while True:
        numbers = decode_dss_signature(kit.sign(key, MESSAGE))
        raw = b"".join(number.to_bytes(size, "big") for number in numbers)
        if raw[:1] != b"\x30":  # what may be taken for DER is not
            break
    assert is_by(key, raw)
    assert not is_by(key, raw[:-2])
    assert not is_by(key, raw + b"\0")
    wide = b"".join(number.to_bytes(67, "big") for number in numbers)
    assert not is_by(key, wide)


@pytest.mark.parametrize(
    "signature", [b"", b"\0", bytes(64), b"\x30", b"\x30\x06\x02\x01\0\x02\x01\0", b"\xff" * 64]
)
def test_numbers_that_are_none_are_no_signature(signature: bytes) -> None:
    for key in (KEY, kit.rsa_key(), ed25519.Ed25519PrivateKey.generate()):
        assert not is_by(key, signature)


def test_only_one_padding_and_one_hash_count() -> None:
    key = kit.rsa_key()
    assert is_by(key, key.sign(MESSAGE, padding.PKCS1v15(), hashes.SHA256()))
    assert not is_by(key, key.sign(MESSAGE, padding.PKCS1v15(), hashes.SHA384()))
    pss = padding.PSS(padding.MGF1(hashes.SHA256()), 32)
    assert not is_by(key, key.sign(MESSAGE, pss, hashes.SHA256()))
    assert not is_by(KEY, KEY.sign(MESSAGE, ec.ECDSA(hashes.SHA384())))


def test_base64_of_a_signature_is_not_one() -> None:
    assert not is_by(KEY, base64.b64encode(kit.sign(KEY, MESSAGE)))
