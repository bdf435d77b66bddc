"""``sigstoreSigned`` accepts what cosign signs for the image, by those who are asked for; nothing else."""

from __future__ import annotations

import dataclasses
import random
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.serialization import Encoding

from layertee.config.requirements import PKI, Fulcio, Identity, IdentityKind, Material, SigstoreSigned
from layertee.errors import PolicyRefused
from layertee.image.digest import Digest
from layertee.image.reference import Reference, parse_reference
from layertee.signatures.keys.sigstore import verify_sigstore_signed
from layertee.signatures.signature import Attachment, SimpleSignature, Subject, Verified
from tests.support import sigstorekit as kit

MANIFEST = b'{"schemaVersion": 2}'
DIGEST = Digest.of(MANIFEST)
NAME = "quay.io/a/b:1"
REFERENCE = parse_reference(NAME)
assert isinstance(REFERENCE, Reference)
SUBJECT = Subject(MANIFEST, DIGEST, REFERENCE)
PAYLOAD = kit.payload(DIGEST, NAME)
KEY = kit.new_key()
LOG = kit.Log()
ROOT = kit.Authority.root()
CA = ROOT.intermediate()


def of(*data: bytes) -> Material:
    return Material(data=data)


def keys(*pems: bytes, rekor: Material | None = None) -> SigstoreSigned:
    return SigstoreSigned(of(*pems), None, None, rekor, Identity())


def fulcio(
    ca: bytes = ROOT.pem, *, issuer: str = kit.ISSUER, email: str = kit.EMAIL, log: kit.Log = LOG
) -> SigstoreSigned:
    return SigstoreSigned(None, Fulcio(of(ca), issuer, email), None, of(log.pem), Identity())


def pki(
    roots: bytes = ROOT.pem, between: bytes | None = None, *, email: str = kit.EMAIL, host: str = ""
) -> SigstoreSigned:
    intermediates = of(between) if between is not None else None
    return SigstoreSigned(None, None, PKI(of(roots), intermediates, email, host), None, Identity())


def verified(requirement: SigstoreSigned, *signatures: Attachment, subject: Subject = SUBJECT) -> Verified:
    return verify_sigstore_signed(requirement, subject, signatures)


def refused(
    requirement: SigstoreSigned, *signatures: Attachment, match: str, subject: Subject = SUBJECT
) -> None:
    with pytest.raises(PolicyRefused, match=match):
        verify_sigstore_signed(requirement, subject, signatures)


# --- keys ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "key",
    [
        kit.new_key(),
        kit.new_key(ec.SECP384R1()),
        kit.new_key(ec.SECP521R1()),
        kit.rsa_key(),
        ed25519.Ed25519PrivateKey.generate(),
    ],
    ids=lambda key: type(key).__name__,
)
def test_a_signature_by_the_key_counts_and_is_reported(key: kit.PrivateKey) -> None:
    found = verified(keys(kit.public_pem(key)), kit.by_key(key, PAYLOAD))
    assert (found.kind, found.signed, found.signed_name) == ("sigstoreSigned", DIGEST, NAME)
    assert found.key is not None and found.key.startswith("SHA256:")
    assert (found.time, found.log_index, found.subject, found.issuer) == (None, None, None, None)


def test_a_signature_by_another_key_does_not_count() -> None:
    refused(keys(kit.public_pem(kit.new_key())), kit.by_key(KEY, PAYLOAD), match="not by a key")


def test_one_of_several_keys_is_enough(tmp_path: Path) -> None:
    others = [kit.public_pem(kit.new_key()), kit.public_pem(kit.rsa_key()), kit.public_pem(KEY)]
    assert verified(keys(*others), kit.by_key(KEY, PAYLOAD))
    paths = tuple(tmp_path / f"{number}.pub" for number in range(3))
    for path, pem in zip(paths, others, strict=True):
        path.write_bytes(pem)
    from_files = SigstoreSigned(Material(paths=paths), None, None, None, Identity())
    assert verified(from_files, kit.by_key(KEY, PAYLOAD))
    paths[0].unlink()
    refused(from_files, kit.by_key(KEY, PAYLOAD), match=r"0\.pub cannot be read")


def test_one_good_signature_among_others_is_enough() -> None:
    other = kit.by_key(kit.new_key(), PAYLOAD)
    damaged = dataclasses.replace(kit.by_key(KEY, PAYLOAD), payload=PAYLOAD + b" ")
    good = kit.by_key(KEY, PAYLOAD)
    assert verified(keys(kit.public_pem(KEY)), other, damaged, good).key
    refused(keys(kit.public_pem(KEY)), other, damaged, match="no sigstore signature is accepted")


def test_only_signatures_of_cosigns_type_count() -> None:
    requirement = keys(kit.public_pem(KEY))
    refused(requirement, match="there is none$")
    other = dataclasses.replace(kit.by_key(KEY, PAYLOAD), media_type="application/vnd.dsse.envelope.v1+json")
    refused(requirement, other, match=r"there is none \(1 of other kinds\)")
    upper = dataclasses.replace(other, media_type=kit.SIMPLE_SIGNING.upper())
    refused(requirement, upper, match="there is none")
    with pytest.raises(PolicyRefused, match="there is none"):
        verify_sigstore_signed(requirement, SUBJECT, [SimpleSignature(b"", "here")])


def test_reasons_are_said_for_the_first_signatures_and_are_bounded() -> None:
    many = [kit.by_key(kit.new_key(), PAYLOAD) for _ in range(6)]
    refused(keys(kit.public_pem(KEY)), *many, match="; and 2 more$")
    long = dataclasses.replace(many[0], place="x" * 9000)
    with pytest.raises(PolicyRefused) as caught:
        verified(keys(kit.public_pem(KEY)), long)
    assert len(str(caught.value)) < 1000


@pytest.mark.parametrize(
    ("text", "match"),
    [
        (None, "no annotation dev.cosignproject.cosign/signature"),
        ("", "not by a key"),
        ("!!!!", "not base64"),
        ("QQ=", "not base64"),
        ("QUJD====", "not base64"),
        ("QQ==QQ==", "not base64"),
        ("ÄÄÄÄ", "not base64"),
        ("A" * 20000, "longer than"),
    ],
)
def test_a_signature_that_is_not_base64_does_not_count(text: str | None, match: str) -> None:
    refused(keys(kit.public_pem(KEY)), kit.attachment(PAYLOAD, text), match=match)


def test_a_signature_that_goes_on_is_refused() -> None:
    signature = kit.sign(KEY, PAYLOAD)
    for damaged in (signature + b"\0", signature[:-1], kit.flipped(signature), kit.flipped(signature, 0)):
        refused(keys(kit.public_pem(KEY)), kit.attachment(PAYLOAD, damaged), match="not by a key")


# --- what is signed ------------------------------------------------------------------------------


def test_a_signature_for_another_image_or_name_does_not_count() -> None:
    requirement = keys(kit.public_pem(KEY))
    other = kit.payload(Digest.of(b"another"), NAME)
    refused(requirement, kit.by_key(KEY, other), match="not for sha256")
    other = kit.payload(DIGEST, "quay.io/a/c:1")
    refused(requirement, kit.by_key(KEY, other), match="is for the name 'quay.io/a/c:1'")
    repository = dataclasses.replace(requirement, identity=Identity(IdentityKind.MATCH_REPOSITORY))
    assert (
        verified(repository, kit.by_key(KEY, kit.payload(DIGEST, "quay.io/a/b"))).signed_name == "quay.io/a/b"
    )
    refused(requirement, kit.by_key(KEY, kit.payload(DIGEST, "quay.io/a/b")), match="is for the name")


@pytest.mark.parametrize(
    "payload",
    [
        kit.payload(DIGEST, NAME, extra=1),
        kit.payload(DIGEST, NAME, type="atomic container signature"),
        kit.payload(DIGEST, NAME, type=None),
        kit.payload(DIGEST, NAME, image={"docker-manifest-digest": "sha256:12"}),
        kit.payload(DIGEST, NAME) + b"x",
        b"",
        b"\xff",
        b"[" * 100000,
    ],
)
def test_a_payload_that_is_not_as_it_should_be_refuses_what_was_signed_well(payload: bytes) -> None:
    refused(keys(kit.public_pem(KEY)), kit.by_key(KEY, payload), match="payload of the signature")


# --- keys and a log ------------------------------------------------------------------------------


def test_where_a_log_is_named_it_has_to_have_seen_the_signature() -> None:
    other = kit.new_key()
    requirement = keys(kit.public_pem(other), kit.public_pem(KEY), rekor=of(LOG.pem))
    found = verified(requirement, kit.by_key(KEY, PAYLOAD, log=LOG))
    assert (found.time, found.log_index) == (kit.SIGNED, 4711)
    refused(requirement, kit.by_key(KEY, PAYLOAD), match="no annotation dev.sigstore.cosign/bundle")
    refused(requirement, kit.by_key(KEY, PAYLOAD, log=kit.Log()), match="not signed by a log")
    two = dataclasses.replace(requirement, rekor=of(kit.Log().pem, LOG.pem))
    assert verified(two, kit.by_key(KEY, PAYLOAD, log=LOG))


def test_a_log_entry_is_for_one_signature_of_one_payload_by_one_key() -> None:
    requirement = keys(kit.public_pem(KEY), rekor=of(LOG.pem))
    signature, again = kit.sign(KEY, PAYLOAD), kit.sign(KEY, PAYLOAD)
    assert signature != again
    pem = kit.public_pem(KEY)

    def with_entry(bundle: str) -> Attachment:
        return kit.attachment(PAYLOAD, signature, bundle=bundle)

    assert verified(requirement, with_entry(LOG.saw(pem, signature, PAYLOAD)))
    refused(requirement, with_entry(LOG.saw(pem, again, PAYLOAD)), match="about another signature")
    refused(requirement, with_entry(LOG.saw(pem, signature, b"other")), match="about another payload")
    stranger = kit.public_pem(kit.new_key())
    refused(requirement, with_entry(LOG.saw(stranger, signature, PAYLOAD)), match="about another key")


def test_a_key_that_the_log_saw_still_has_to_have_signed() -> None:
    """The log takes what it is given: that its entry fits says nothing about the signature itself."""
    requirement = keys(kit.public_pem(KEY), rekor=of(LOG.pem))
    forged = kit.sign(kit.new_key(), PAYLOAD)
    bundle = LOG.saw(kit.public_pem(KEY), forged, PAYLOAD)
    refused(requirement, kit.attachment(PAYLOAD, forged, bundle=bundle), match="not by a key")


# --- Fulcio --------------------------------------------------------------------------------------


def test_a_keyless_signature_counts_long_after_its_certificate_was_valid() -> None:
    found = verified(fulcio(), kit.keyless(CA, LOG, PAYLOAD))
    assert (found.subject, found.issuer) == (kit.EMAIL, kit.ISSUER)
    assert (found.time, found.log_index) == (kit.SIGNED, 4711)
    assert found.key is not None


def test_an_authority_may_sign_without_an_intermediate_and_be_one_of_several() -> None:
    assert verified(fulcio(), kit.keyless(ROOT, LOG, PAYLOAD))
    other = kit.Authority.root("other")
    assert verified(fulcio(other.pem + ROOT.pem), kit.keyless(CA, LOG, PAYLOAD))
    assert verified(fulcio(CA.pem), kit.keyless(CA, LOG, PAYLOAD))


KEYLESS: dict[str, tuple[Callable[[], Attachment], str]] = {
    "another authority": (
        lambda: kit.keyless(kit.Authority.root().intermediate(), LOG, PAYLOAD),
        "certificate is not accepted",
    ),
    "logged before it was valid": (
        lambda: kit.keyless(CA, LOG, PAYLOAD, at=kit.SIGNED - 61),
        "not valid at validation time",
    ),
    "logged after it was valid": (
        lambda: kit.keyless(CA, LOG, PAYLOAD, at=kit.SIGNED + 541),
        "not valid at validation time",
    ),
    "logged when an authority was not valid": (
        lambda: kit.keyless(ROOT.intermediate(until=kit.SIGNED - 1), LOG, PAYLOAD),
        "not valid at validation time",
    ),
    "for servers": (lambda: kit.keyless(CA, LOG, PAYLOAD, usages=[kit.SERVER_AUTH]), "not for code signing"),
    "of an authority for servers": (
        lambda: kit.keyless(ROOT.intermediate(usages=[kit.SERVER_AUTH]), LOG, PAYLOAD),
        "not for code signing",
    ),
    "of an authority that is none": (
        lambda: kit.keyless(ROOT.intermediate(is_ca=False), LOG, PAYLOAD),
        "basicConstraints",
    ),
    "of an authority that signs no certificates": (
        lambda: kit.keyless(ROOT.intermediate(key_usage=kit.usage(sign_certificates=False)), LOG, PAYLOAD),
        "not for signing certificates",
    ),
    "of a path that is too long": (
        lambda: kit.keyless(ROOT.intermediate("a", path_length=0).intermediate("b"), LOG, PAYLOAD),
        "path length",
    ),
    "another address": (lambda: kit.keyless(CA, LOG, PAYLOAD, email="other@example.com"), "is not for"),
    "the address in other case": (
        lambda: kit.keyless(CA, LOG, PAYLOAD, email=kit.EMAIL.upper()),
        "is not for",
    ),
    "no address": (lambda: kit.keyless(CA, LOG, PAYLOAD, email=None), "no names"),
    "the address as a URL": (
        lambda: kit.keyless(
            CA, LOG, PAYLOAD, names=[x509.UniformResourceIdentifier("https://example.com/a")]
        ),
        "is not for",
    ),
    "no issuer": (lambda: kit.keyless(CA, LOG, PAYLOAD, extensions=()), "no OIDC issuer"),
    "another issuer": (
        lambda: kit.keyless(CA, LOG, PAYLOAD, extensions=kit.issuers("https://a", "https://a")),
        "identity of 'https://a'",
    ),
    "two issuers": (
        lambda: kit.keyless(CA, LOG, PAYLOAD, extensions=kit.issuers(kit.ISSUER, "https://a")),
        "two OIDC issuers",
    ),
    "two issuers, the other way": (
        lambda: kit.keyless(CA, LOG, PAYLOAD, extensions=kit.issuers("https://a", kit.ISSUER)),
        "two OIDC issuers",
    ),
    "an issuer without its type": (
        lambda: kit.keyless(CA, LOG, PAYLOAD, extensions=kit.issuers(None, kit.ISSUER.encode())),
        "OIDC issuer in the certificate ends early",
    ),
    "an issuer and more": (
        lambda: kit.keyless(CA, LOG, PAYLOAD, extensions=kit.issuers(None, b"\x0c\x01a\x00")),
        "OIDC issuer in the certificate is not DER",
    ),
    "an issuer of a length in long form": (
        lambda: kit.keyless(CA, LOG, PAYLOAD, extensions=kit.issuers(None, b"\x0c\x81\x01a")),
        "shortest form",
    ),
    "an issuer of nothing": (
        lambda: kit.keyless(CA, LOG, PAYLOAD, extensions=kit.issuers(None, b"")),
        "not of the type",
    ),
    "an issuer in a PrintableString": (
        lambda: kit.keyless(CA, LOG, PAYLOAD, extensions=kit.issuers(None, b"\x13\x01a")),
        "not of the type",
    ),
    "an issuer that is no text": (
        lambda: kit.keyless(CA, LOG, PAYLOAD, extensions=kit.issuers(None, b"\x0c\x01\xff")),
        "not UTF-8",
    ),
    "an unknown critical extension": (
        lambda: kit.keyless(
            CA,
            LOG,
            PAYLOAD,
            extensions=[
                *kit.issuers(),
                (x509.UnrecognizedExtension(x509.ObjectIdentifier("1.2.3.4"), b"\x05\x00"), True),
            ],
        ),
        "critical extension",
    ),
}


@pytest.mark.parametrize("what", KEYLESS)
def test_a_keyless_signature_does_not_count_with_a_certificate(what: str) -> None:
    made, match = KEYLESS[what]
    refused(fulcio(), made(), match=match)


@pytest.mark.parametrize("versions", [(kit.ISSUER, None), (None, kit.ISSUER)])
def test_one_version_of_the_issuer_is_enough(versions: tuple[str | None, str | None]) -> None:
    assert verified(fulcio(), kit.keyless(CA, LOG, PAYLOAD, extensions=kit.issuers(*versions)))


def test_a_long_issuer_is_read() -> None:
    issuer = "https://example.com/" + "a" * 300
    signed = kit.keyless(CA, LOG, PAYLOAD, extensions=kit.issuers(issuer, issuer))
    assert verified(fulcio(issuer=issuer), signed).issuer == issuer


def test_a_certificate_without_usages_or_with_any_is_for_code_too() -> None:
    for usages in (None, [kit.ANY_USAGE], [kit.SERVER_AUTH, kit.CODE_SIGNING]):
        authority = ROOT.intermediate(usages=usages)
        assert verified(fulcio(), kit.keyless(authority, LOG, PAYLOAD, usages=usages))


def test_the_address_may_be_one_of_several_names() -> None:
    names = [
        x509.UniformResourceIdentifier("https://github.com/a/b/.github/workflows/c.yml@refs/heads/main"),
        x509.RFC822Name("other@example.com"),
        x509.RFC822Name(kit.EMAIL),
        x509.DNSName("example.com"),
    ]
    assert verified(fulcio(), kit.keyless(CA, LOG, PAYLOAD, names=names))


@pytest.mark.parametrize(
    ("key", "value", "match"),
    [
        (kit.BUNDLE, None, "no annotation dev.sigstore.cosign/bundle"),
        (kit.CERTIFICATE, None, "no annotation dev.sigstore.cosign/certificate"),
        (kit.CERTIFICATE, "", "not in PEM format"),
        (kit.CERTIFICATE, "-----BEGIN CERTIFICATE-----\nQUJD\n-----END CERTIFICATE-----\n", "another key"),
        (kit.CHAIN, None, "certificate is not accepted"),
        (kit.CHAIN, "", "certificate is not accepted"),
        (kit.CHAIN, CA.pem.decode(), "certificate is not accepted"),  # Go takes the last for the root
        (kit.CHAIN, CA.chain_pem.decode() + "more", "not in PEM format"),
        (kit.CHAIN, CA.chain_pem.decode() + "-----BEGIN", "not in PEM format"),
        (kit.CHAIN, kit.pem(b"no certificate").decode(), "cannot be read"),
        (kit.CHAIN, kit.pem(b"a", "PRIVATE KEY").decode(), "a PRIVATE KEY in place"),
        (kit.CHAIN, (CA.pem * 17).decode(), "more than 16"),
        (kit.CHAIN, "\n" + "#" * (300 << 10), "larger than"),
    ],
)
def test_annotations_of_a_keyless_signature_have_to_be_right(key: str, value: str | None, match: str) -> None:
    refused(fulcio(), kit.with_annotation(kit.keyless(CA, LOG, PAYLOAD), key, value), match=match)


def test_the_certificate_in_the_log_is_the_one_that_comes_with_the_signature() -> None:
    key, signature = KEY, kit.sign(KEY, PAYLOAD)
    leaf, other = (kit.certificate_pem(CA.leaf(key.public_key())) for _ in range(2))
    good = kit.attachment(
        PAYLOAD, signature, bundle=LOG.saw(leaf, signature, PAYLOAD), certificate=leaf, chain=CA.chain_pem
    )
    assert verified(fulcio(), good)
    refused(fulcio(), kit.with_annotation(good, kit.CERTIFICATE, other.decode()), match="about another key")
    two = (leaf + other).decode()
    refused(fulcio(), kit.with_annotation(good, kit.CERTIFICATE, two), match="something after its PEM")


def test_a_damaged_certificate_is_refused_at_every_byte() -> None:
    key = kit.new_key()
    leaf = x509.load_pem_x509_certificate(kit.certificate_pem(CA.leaf(key.public_key())))
    der = leaf.public_bytes(Encoding.DER)
    signature = kit.sign(key, PAYLOAD)
    for at in range(0, len(der), 7):
        pem = kit.pem(kit.flipped(der, at))
        bundle = LOG.saw(pem, signature, PAYLOAD)
        signed = kit.attachment(PAYLOAD, signature, bundle=bundle, certificate=pem, chain=CA.chain_pem)
        refused(fulcio(), signed, match="certificate|OIDC")


def damaged(text: str, chance: random.Random) -> str:
    """``text`` with a few of its characters changed, removed, repeated, or followed by others."""
    for _ in range(chance.randrange(1, 4)):
        at = chance.randrange(len(text))
        more = chance.choice(
            ["\0", "\n", "-----", "{", "}", '"', "\\", "=", ":", "\ud800", "é", text[:40], ""]
        )
        text = text[:at] + more + text[at + chance.randrange(3) :]
    return text


def damaged_pem(text: str, chance: random.Random) -> str:
    """PEM blocks with a few bytes changed in what they hold."""
    found = b""
    for one in x509.load_pem_x509_certificates(text.encode()):
        der = bytearray(one.public_bytes(Encoding.DER))
        for _ in range(chance.randrange(1, 3)):
            der[chance.randrange(len(der))] = chance.choice([0, 1, 0x7F, 0x80, 0xFF, chance.randrange(256)])
        found += kit.pem(bytes(der))
    return found.decode()


@pytest.mark.parametrize("seed", range(4))
def test_whatever_is_damaged_is_refused_or_no_matter(seed: int) -> None:
    """No other error than a refusal, whichever bytes a stranger sends."""
    chance = random.Random(seed)
    good = [
        (keys(kit.public_pem(KEY), rekor=of(LOG.pem)), kit.by_key(KEY, PAYLOAD, log=LOG)),
        (fulcio(), kit.keyless(CA, LOG, PAYLOAD, key=KEY)),
        (pki(), kit.by_certificate(CA, PAYLOAD)),
    ]
    refusals = 0
    for _ in range(150):
        requirement, one = chance.choice(good)
        key = chance.choice(sorted(one.annotations))
        value = one.annotations[key]
        in_der = key in (kit.CERTIFICATE, kit.CHAIN) and chance.random() < 0.6
        value = damaged_pem(value, chance) if in_der else damaged(value, chance)
        changed = kit.with_annotation(one, key, value)
        if requirement.fulcio and key == kit.CERTIFICATE and "\ud800" not in value:
            signature = kit.sign(KEY, PAYLOAD)  # the log saw what was damaged before
            bundle = LOG.saw(value.encode(), signature, PAYLOAD)
            changed = kit.with_annotation(changed, kit.SIGNATURE, kit.b64(signature))
            changed = kit.with_annotation(changed, kit.BUNDLE, bundle)
        try:
            assert verified(requirement, changed).signed == DIGEST
        except PolicyRefused:
            refusals += 1
    assert refusals > 100


@pytest.mark.parametrize("at", [-1, 0, 1 << 40, (1 << 53) - 1, -62135596800])
def test_a_log_entry_of_an_impossible_time_does_not_count(at: int) -> None:
    refused(fulcio(), kit.keyless(CA, LOG, PAYLOAD, at=at), match="time")


# --- other authorities ---------------------------------------------------------------------------


def test_a_certificate_of_a_named_authority_counts_while_it_is_valid() -> None:
    found = verified(pki(), kit.by_certificate(CA, PAYLOAD))
    assert (found.subject, found.issuer, found.time) == (kit.EMAIL, "CN=intermediate", None)
    late = kit.by_certificate(CA, PAYLOAD, until=kit.NOW - 60)
    refused(pki(), late, match="not valid at validation time")
    early = kit.by_certificate(CA, PAYLOAD, since=kit.NOW + 3600)
    refused(pki(), early, match="not valid at validation time")


def test_intermediates_may_come_from_the_policy() -> None:
    signed = kit.with_annotation(kit.by_certificate(CA, PAYLOAD), kit.CHAIN, None)
    refused(pki(), signed, match="certificate is not accepted")
    assert verified(pki(between=CA.pem), signed)
    assert verified(pki(between=CA.pem + kit.Authority.root("x").pem), kit.by_certificate(CA, PAYLOAD))


@pytest.mark.parametrize(
    ("email", "host", "good"),
    [
        (kit.EMAIL, "", True),
        ("", "build.example.com", True),
        (kit.EMAIL, "build.example.com", True),
        (kit.EMAIL, "other.example.com", False),
        ("other@example.com", "build.example.com", False),
    ],
)
def test_address_and_host_have_to_be_there_as_far_as_they_are_named(
    email: str, host: str, good: bool
) -> None:
    names = [x509.RFC822Name(kit.EMAIL), x509.DNSName("build.example.com")]
    signed = kit.by_certificate(CA, PAYLOAD, names=names)
    if good:
        assert verified(pki(email=email, host=host), signed).subject == (email or host)
    else:
        refused(pki(email=email, host=host), signed, match="its certificate is not for")


OTHER: dict[str, tuple[dict[str, Any], str]] = {
    "for servers": ({"usages": [kit.SERVER_AUTH]}, "not for code signing"),
    "without names": ({"names": []}, "no names"),
    "with critical names of unknown kinds": (
        {"names": [x509.RegisteredID(x509.ObjectIdentifier("1.2.3"))], "critical_names": True},
        "critical names",
    ),
}


@pytest.mark.parametrize("what", OTHER)
def test_a_certificate_of_a_named_authority_does_not_count(what: str) -> None:
    changes, match = OTHER[what]
    refused(pki(), kit.by_certificate(CA, PAYLOAD, **changes), match=match)


@pytest.mark.parametrize(
    ("key", "value", "match"),
    [
        (kit.CERTIFICATE, None, "no annotation dev.sigstore.cosign/certificate"),
        (kit.CERTIFICATE, "", "0 certificates in place of one"),
        (kit.CERTIFICATE, (CA.pem + ROOT.pem).decode(), "2 certificates in place of one"),
        (kit.CERTIFICATE, CA.pem.decode(), "no names"),
    ],
)
def test_annotations_of_a_certified_signature_have_to_be_right(
    key: str, value: str | None, match: str
) -> None:
    refused(pki(), kit.with_annotation(kit.by_certificate(CA, PAYLOAD), key, value), match=match)


# --- what the policy names -----------------------------------------------------------------------

GOOD = kit.by_key(KEY, PAYLOAD, log=LOG)


@pytest.mark.parametrize(
    ("requirement", "match"),
    [
        (keys(kit.public_pem(KEY), b""), "number 2 is not in PEM format"),
        (keys(kit.public_pem(KEY), b"x" * (5 << 20)), "larger than"),
        (keys(kit.public_pem(KEY), kit.pem(b"x", "PUBLIC KEY")), "number 2 is not a public key"),
        (keys(kit.public_pem(KEY), ROOT.pem), "a CERTIFICATE, not a PUBLIC KEY"),
        (keys(kit.public_pem(KEY), kit.public_pem(kit.new_key(ec.SECP256K1()))), "ECDSA key of secp256k1"),
        (keys(kit.public_pem(KEY), rekor=of(LOG.pem, b"")), "rekorPublicKey of policy.json: number 2"),
        (keys(kit.public_pem(KEY), rekor=of(LOG.pem, kit.public_pem(kit.rsa_key()))), "not an ECDSA key"),
        (keys(), "there is none"),
        (keys(kit.public_pem(KEY), rekor=of()), "there is none"),
        (fulcio(b""), "no certificate that can be used"),
        (fulcio(b"-----BEGIN"), "not in PEM format"),
        (fulcio(kit.pem(b"x")), "no certificate that can be used"),
        (fulcio(kit.public_pem(KEY)), "no certificate that can be used"),
        (pki(b""), "no certificate that can be used"),
        (pki(between=kit.pem(b"x")), "cannot be read"),
        (SigstoreSigned(None, None, None, None, Identity()), "names no signers"),
        (SigstoreSigned(None, Fulcio(of(), "i", "e"), None, of(LOG.pem), Identity()), "0 files or texts"),
        (SigstoreSigned(None, None, PKI(of(b"", b""), None, "e", ""), None, Identity()), "2 files or texts"),
        (SigstoreSigned(of(LOG.pem), fulcio().fulcio, None, of(LOG.pem), Identity()), "names no signers"),
        (SigstoreSigned(None, fulcio().fulcio, None, None, Identity()), "names no signers"),
        (SigstoreSigned(None, None, pki().pki, of(LOG.pem), Identity()), "names no signers"),
    ],
)
def test_one_part_of_the_policy_that_cannot_be_used_refuses_all(
    requirement: SigstoreSigned, match: str
) -> None:
    refused(requirement, GOOD, match=match)


def test_an_authority_that_cannot_be_used_is_left_out_beside_another() -> None:
    assert verified(fulcio(kit.pem(b"x") + kit.public_pem(KEY) + ROOT.pem), kit.keyless(CA, LOG, PAYLOAD))


def test_the_library_of_keys_is_imported_when_a_signature_is_there_and_not_before() -> None:
    code = (
        "import sys; import layertee.signatures.keys.sigstore, layertee.signatures.keys.attachments;"
        "sys.exit(any(name.partition('.')[0] == 'cryptography' for name in sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
