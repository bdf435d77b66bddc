"""Targets: what Cosign and sigstore put beside an image."""

from __future__ import annotations

from collections.abc import Iterator

from cryptography.hazmat.primitives.asymmetric import ec

from layertee.config.requirements import Fulcio, Identity, IdentityKind, Material, SigstoreSigned
from layertee.errors import DocumentError, PolicyRefused
from layertee.image.document import Digest
from layertee.image.reference import Reference
from layertee.signatures.keys.certificates import read_certificates
from layertee.signatures.keys.rekor import parse_bundle as parse_set
from layertee.signatures.keys.sigstore import verify_sigstore_signed
from layertee.signatures.signature import Attachment, Subject
from layertee.signatures.trust.claims import identity_of
from tests.fuzz.documents import WORDS_OF_JSON
from tests.fuzz.target import Target, parts_of, text_of
from tests.support import sigstorekit as kit
from tests.support.bundlekit import Sigstore

_NAME = Reference("quay.io", "a/b", "1", None)
_RAW = b'{"schemaVersion":2}'
_SUBJECT = Subject(_RAW, Digest.of(_RAW), _NAME)
_KEY, _LOG, _ROOT = kit.new_key(), kit.Log(), kit.Authority.root()
_PAYLOAD = kit.payload(_SUBJECT.digest, _NAME.name)
_SIGNED = kit.keyless(_ROOT.intermediate("between"), _LOG, _PAYLOAD)
_PUBLIC = Sigstore()
_SPLIT = b"\n%%\n"


def _log_key() -> ec.EllipticCurvePublicKey:
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    key = load_pem_public_key(_LOG.pem)
    assert isinstance(key, ec.EllipticCurvePublicKey)
    return key


_LOG_KEY = _log_key()
_REPOSITORY = Identity(IdentityKind.MATCH_REPOSITORY)
_REQUIREMENT = SigstoreSigned(
    None,
    Fulcio(Material(data=(_ROOT.pem,)), kit.ISSUER, kit.EMAIL),
    None,
    Material(data=(_LOG.pem,)),
    _REPOSITORY,
)


def log_entry(raw: bytes) -> object:
    """The promise of a log: only of what it has signed."""
    found = parse_set(text_of(raw), [_LOG_KEY])
    assert 0 <= found.time < 1 << 63
    return found


def chain(raw: bytes) -> object:
    """Certificates in PEM, and whom they are for."""
    for one in read_certificates(raw, "the chain"):
        who = identity_of(one)
        assert who.subject
    return True


def keyless(raw: bytes) -> object:
    """An attachment with everything: only the one that was signed is taken."""
    payload, signature, bundle, certificate, between = parts_of(raw, 5)
    one = Attachment(
        kit.SIMPLE_SIGNING,
        payload,
        {
            kit.SIGNATURE: text_of(signature),
            kit.BUNDLE: text_of(bundle),
            kit.CERTIFICATE: text_of(certificate),
            kit.CHAIN: text_of(between),
        },
        "here",
    )
    verified = verify_sigstore_signed(_REQUIREMENT, _SUBJECT, [one])
    assert payload == _PAYLOAD
    assert verified.signed == _SUBJECT.digest
    return verified


def _keyless_seeds() -> Iterator[bytes]:
    found = _SIGNED.annotations
    parts = [found[key].encode() for key in (kit.SIGNATURE, kit.BUNDLE, kit.CERTIFICATE, kit.CHAIN)]
    yield _SPLIT.join([_SIGNED.payload, *parts])


def _set_seeds() -> Iterator[bytes]:
    yield _SIGNED.annotations[kit.BUNDLE].encode()


def _chain_seeds() -> Iterator[bytes]:
    yield _SIGNED.annotations[kit.CERTIFICATE].encode()
    yield _SIGNED.annotations[kit.CHAIN].encode()
    leaf = _PUBLIC.leaf(kit.new_key())
    yield kit.certificate_pem(leaf)


_REFUSED = (PolicyRefused, DocumentError)
TARGETS = (
    Target("rekor-set", log_entry, _set_seeds, (*WORDS_OF_JSON, b"Payload", b"logIndex"), _REFUSED),
    Target("certificates", chain, _chain_seeds, (b"-----BEGIN CERTIFICATE-----", b"=\n"), _REFUSED),
    Target("keyless", keyless, _keyless_seeds, (_SPLIT, *WORDS_OF_JSON), _REFUSED),
)
