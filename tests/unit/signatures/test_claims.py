"""Whom a certificate is for, and what it says of that: read strictly, compared exactly."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from cryptography import x509

from layertee.config.trustrules import Claim, ExactSubject, KeylessSigner, SubjectPrefix
from layertee.errors import PolicyRefused
from layertee.signatures.trust.claims import Identity, identity_of
from tests.support.bundlekit import WORKFLOW, claim
from tests.support.sigstorekit import ISSUER, Authority, Extension, issuers, new_key

AUTHORITY = Authority.root()
KEY = new_key().public_key()
URI = x509.UniformResourceIdentifier(WORKFLOW)


def certificate(*extensions: Extension, names: Sequence[x509.GeneralName] = (URI,)) -> x509.Certificate:
    return AUTHORITY.leaf(KEY, names=names, extensions=extensions)


def raw(number: int, value: bytes) -> Extension:
    return (x509.UnrecognizedExtension(x509.ObjectIdentifier(f"1.3.6.1.4.1.57264.1.{number}"), value), False)


def test_the_older_and_the_newer_issuer() -> None:
    for found in (issuers(), issuers(v1=None), issuers(v2=None)):
        assert identity_of(certificate(*found)) == Identity(WORKFLOW, ISSUER)
    with pytest.raises(PolicyRefused, match="two issuers"):
        identity_of(certificate(*issuers(v1="https://other.example.com")))
    with pytest.raises(PolicyRefused, match="does not say who its issuer"):
        identity_of(certificate())


@pytest.mark.parametrize(
    "names",
    [
        [],
        [URI, URI],
        [URI, x509.RFC822Name("a@example.com")],
        [URI, x509.DNSName("example.com")],
        [x509.DNSName("example.com")],
    ],
)
def test_a_subject_is_one_uri_or_address(names: list[x509.GeneralName]) -> None:
    with pytest.raises(PolicyRefused, match=r"subject|exactly one"):
        identity_of(certificate(*issuers(), names=names))


def test_claims_are_read_in_their_encodings() -> None:
    long = "x" * 3000
    found = identity_of(certificate(*issuers(), claim(5, "bare"), claim(20, "push"), claim(18, long)))
    assert found.claims == {Claim.WORKFLOW_REPOSITORY: "bare", Claim.TRIGGER: "push", Claim.CONFIG: long}


@pytest.mark.parametrize(
    "value",
    [
        b"",
        b"push",
        b"\x0c",
        b"\x0c\x05push",
        b"\x0c\x03push",
        b"\x0c\x81\x04push",  # a length that is longer than it has to be
        b"\x0c\x82\x00\x04push",
        b"\x0c\x80push\0\0",
        b"\x0c\x84\0\0\0\x04push",
        b"\x13\x04push",  # another kind of text
        b"\x0c\x04pu\xff\xfe",
    ],
)
def test_a_claim_that_is_encoded_otherwise_is_refused(value: bytes) -> None:
    with pytest.raises(PolicyRefused, match=r"57264\.1\.20"):
        identity_of(certificate(*issuers(), raw(20, value)))


def test_claims_that_are_no_text_are_refused() -> None:
    for extension in (raw(2, b"\xff"), claim(5, "x" * 5000)):
        with pytest.raises(PolicyRefused, match=r"no text|too long"):
            identity_of(certificate(*issuers(), extension))


def test_other_extensions_are_passed_over() -> None:
    other = x509.UnrecognizedExtension(x509.ObjectIdentifier("1.3.6.1.4.1.57264.1.99"), b"\xff")
    arc = x509.UnrecognizedExtension(x509.ObjectIdentifier("1.3.6.1.4.1.57264.2.20"), b"\xff")
    found = identity_of(certificate(*issuers(), (other, False), (arc, False)))
    assert found.claims == {}


def test_what_does_not_fit_is_said() -> None:
    found = Identity(WORKFLOW, ISSUER, {Claim.TRIGGER: "push"})

    def signer(subject: str = WORKFLOW, issuer: str = ISSUER, **claims: tuple[str, ...]) -> KeylessSigner:
        return KeylessSigner(
            "a", issuer, ExactSubject(subject), {Claim[key]: each for key, each in claims.items()}
        )

    assert found.mismatch(signer()) is None
    assert found.mismatch(signer(TRIGGER=("schedule", "push"))) is None
    assert found.mismatch(signer(issuer=ISSUER + "/")) == f"issuer {ISSUER!r}"
    assert found.mismatch(signer(subject=WORKFLOW.upper())) == f"subject {WORKFLOW!r}"
    assert found.mismatch(signer(TRIGGER=("pus",))) == "build-trigger 'push'"
    assert found.mismatch(signer(RUNNER=("self-hosted",))) == "no runner-environment"
    assert found.mismatch(KeylessSigner("a", ISSUER, SubjectPrefix("https://github.com/example/"))) is None
