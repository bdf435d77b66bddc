"""Certificates and the path above them: what Go's crypto/x509 demands, and no network, and bounded work."""

from __future__ import annotations

import datetime
import ipaddress
import re
import subprocess
import sys

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.serialization import Encoding

from layertee.errors import DocumentError, PolicyRefused
from layertee.signatures.keys.certificates import (
    MAX_CHAIN,
    read_certificates,
    trusted_certificates,
    trusted_intermediates,
    verify_path,
)
from layertee.signatures.keys.signers import is_for_host
from tests.support import sigstorekit as kit

KEY = kit.new_key()
ROOT = kit.Authority.root()
CA = ROOT.intermediate()
AT = datetime.datetime.fromtimestamp(kit.SIGNED, datetime.UTC)
OID = x509.ObjectIdentifier


def verify(
    leaf: x509.Certificate,
    *intermediates: x509.Certificate,
    root: kit.Authority = ROOT,
    at: datetime.datetime = AT,
    any_critical_name: bool = False,
) -> None:
    verify_path(leaf, intermediates, (), [root.certificate], at, any_critical_name=any_critical_name)


def refused(match: str, leaf: x509.Certificate, *intermediates: x509.Certificate, **options: object) -> None:
    with pytest.raises(PolicyRefused, match=match):
        verify(leaf, *intermediates, **options)  # type: ignore[arg-type]


def leaf_of(authority: kit.Authority = CA, **changes: object) -> x509.Certificate:
    return authority.leaf(KEY.public_key(), **changes)  # type: ignore[arg-type]


# --- the path ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "key",
    [kit.new_key(ec.SECP384R1()), kit.new_key(ec.SECP521R1()), kit.rsa_key()],
    ids=["384", "521", "RSA"],
)
def test_authorities_may_have_other_keys_and_hashes(key: kit.PrivateKey) -> None:
    root = kit.Authority.root(key=key, hash_algorithm=hashes.SHA384())
    middle = root.intermediate(key=key, hash_algorithm=hashes.SHA512())
    verify(leaf_of(middle), middle.certificate, root=root)


def test_a_path_may_have_several_intermediates_in_any_order_and_others_beside_them() -> None:
    one = ROOT.intermediate("one")
    two = one.intermediate("two")
    verify(leaf_of(two), kit.Authority.root("other").certificate, one.certificate, two.certificate)
    refused("not accepted", leaf_of(two), two.certificate)


def test_a_path_has_at_most_eight_intermediates() -> None:
    authority, chain = ROOT, []
    for number in range(9):
        authority = authority.intermediate(f"authority {number}")
        chain.append(authority.certificate)
        if number == 7:
            verify(leaf_of(authority), *chain)
    refused("max depth", leaf_of(authority), *chain)


def test_two_of_a_strangers_certificates_are_never_of_one_name() -> None:
    """Otherwise a few of them make as many paths as there are ways to put them in a row."""
    verify(leaf_of(), CA.certificate, CA.certificate)
    refused("of the same name", leaf_of(), CA.certificate, ROOT.intermediate().certificate)


def test_it_is_valid_from_its_first_second_to_its_last() -> None:
    leaf = leaf_of(since=kit.SIGNED, until=kit.SIGNED + 10)
    for offset, good in {-0.1: False, 0.0: True, 10.0: True, 10.1: False, 11.0: False}.items():
        at = AT + datetime.timedelta(seconds=offset)
        if good:
            verify(leaf, CA.certificate, at=at)
        else:
            refused("valid", leaf, CA.certificate, at=at)


@pytest.mark.parametrize(
    ("extension", "match"),
    [
        ((x509.UnrecognizedExtension(OID("1.2.3.4"), b"\x05\x00"), True), "critical extension"),
        ((x509.SubjectAlternativeName([x509.RegisteredID(OID("1.2.3"))]), True), "critical names"),
    ],
)
def test_what_is_critical_and_not_understood_is_refused(extension: kit.Extension, match: str) -> None:
    authority = ROOT.intermediate(extensions=[extension])
    refused(match, leaf_of(authority), authority.certificate)
    refused(match, leaf_of(names=(), extensions=[extension]), CA.certificate)


def test_critical_names_of_unknown_kinds_are_left_to_a_caller_who_looks_at_them() -> None:
    leaf = leaf_of(names=[x509.RegisteredID(OID("1.2.3"))])
    verify(leaf, CA.certificate, any_critical_name=True)
    refused("critical names", leaf, CA.certificate)
    verify(leaf_of(names=[x509.RegisteredID(OID("1.2.3"))], critical_names=False), CA.certificate)


def test_extensions_that_are_not_critical_and_unknown_are_no_matter() -> None:
    extension = (x509.UnrecognizedExtension(OID("1.2.3.4"), b"whatever"), False)
    authority = ROOT.intermediate(extensions=[extension], without_key_usage=True)
    verify(leaf_of(authority, extensions=[extension]), authority.certificate)


def test_an_authority_with_a_key_that_does_not_count_gives_no_path() -> None:
    for key in (ed25519.Ed25519PrivateKey.generate(), kit.rsa_key(1024)):
        root = kit.Authority.root(key=key)
        refused("not accepted: [^{]*$", leaf_of(root), root=root)


def test_a_certificate_signed_by_another_of_that_name_is_refused() -> None:
    impostor = kit.Authority.root().intermediate()
    refused("signature does not match", leaf_of(impostor), CA.certificate)


# --- reading -------------------------------------------------------------------------------------


def read(*certificates: x509.Certificate) -> list[x509.Certificate]:
    return read_certificates(kit.certificate_pem(*certificates), "it")


@pytest.mark.parametrize(
    "url",
    [
        "https://github.com/a/b/.github/workflows/c.yml@refs/heads/main",
        "https://example.com",
        "https://example.com:8443/a?b=c#d",
        "spiffe://example.org/ns/a%20b",
        "https://accounts.example.com/~user/(a)",
    ],
)
def test_urls_of_signers_are_read(url: str) -> None:
    leaf = leaf_of(names=[x509.UniformResourceIdentifier(url)])
    assert read(leaf) == [leaf]


@pytest.mark.parametrize(
    "name",
    [
        x509.UniformResourceIdentifier("https://a b/"),
        x509.UniformResourceIdentifier("https://example.com/%zz"),
        x509.UniformResourceIdentifier("https://[::1"),
        x509.UniformResourceIdentifier("://"),
        x509.UniformResourceIdentifier(""),
        x509.IPAddress(ipaddress.ip_network("10.0.0.0/8")),
    ],
)
def test_names_that_go_may_not_read_are_refused(name: x509.GeneralName) -> None:
    with pytest.raises(DocumentError, match="malformed name"):
        read(leaf_of(names=[name]))


@pytest.mark.parametrize(
    "extension",
    [
        (x509.UnrecognizedExtension(OID("2.5.29.19"), b"\x01"), False),
        (x509.UnrecognizedExtension(OID("2.5.29.32"), b"\x30\x04\x30\x02\x06\x00"), False),
        (
            x509.AuthorityInformationAccess(
                [x509.AccessDescription(OID("1.3.6.1.5.5.7.48.1"), x509.DNSName("a"))]
            ),
            True,
        ),
        (x509.CertificatePolicies([x509.PolicyInformation(OID("1.2.3"), None)] * 2), False),
    ],
)
def test_extensions_that_go_does_not_read_are_refused(extension: kit.Extension) -> None:
    with pytest.raises(DocumentError, match="it has a certificate"):
        read(leaf_of(extensions=[extension]))


@pytest.mark.parametrize(
    ("value", "match"),
    [
        (x509.NameConstraints([x509.RFC822Name("example.com")], None), "name constraints"),
        (x509.NameConstraints(None, [x509.DNSName("example.org")]), "name constraints"),
        (x509.PolicyConstraints(0, None), "policy constraints"),
        (x509.InhibitAnyPolicy(0), "inhibitAnyPolicy"),
        (x509.UnrecognizedExtension(OID("2.5.29.33"), b"\x30\x00"), "policy mappings"),
    ],
)
@pytest.mark.parametrize("critical", [True, False])
def test_what_only_one_of_two_libraries_evaluates_is_refused(
    value: x509.ExtensionType, match: str, critical: bool
) -> None:
    authority = ROOT.intermediate(extensions=[(value, critical)])
    for certificate in (authority.certificate, leaf_of(extensions=[(value, critical)])):
        with pytest.raises(DocumentError, match=match):
            read(certificate)
    good = trusted_certificates(authority.pem + ROOT.pem, "it")
    assert good == [ROOT.certificate]
    with pytest.raises(PolicyRefused, match=match):
        trusted_intermediates(CA.pem + authority.pem, "it")


@pytest.mark.parametrize(
    ("old", "new", "match"),
    [
        (b"\x0c\x04root", b"\x13\x04root", None),
        (b"\x0c\x04root", b"\x16\x04root", None),
        (b"\x0c\x04root", b"\x13\x04ro@t", "unusual name|cannot be read"),
        (b"\x0c\x04root", b"\x16\x04ro\xe4t", "unusual name|cannot be read"),
        (b"\x0c\x04root", b"\x0c\x04ro\xe4t", "cannot be read"),
        (b"\x0c\x04root", b"\x14\x04root", "unusual name"),
        (b"\x0c\x04root", b"\x04\x04root", "certificate"),
        (b"\x02\x01\x02\x02", b"\x02\x01\x01\x02", "not of version 3|cannot be read"),
        (b"\x02\x01\x02\x02", b"\x02\x01\x03\x02", "cannot be read"),
    ],
)
def test_names_and_versions_are_those_that_go_reads(old: bytes, new: bytes, match: str | None) -> None:
    der = ROOT.certificate.public_bytes(Encoding.DER)
    assert old in der
    pem = kit.pem(der.replace(old, new, 2))
    if match is None:
        assert len(read_certificates(pem, "it")) == 1
    else:
        with pytest.raises(DocumentError, match=match):
            read_certificates(pem, "it")


def test_both_mentions_of_the_algorithm_are_the_same() -> None:
    der = ROOT.certificate.public_bytes(Encoding.DER)
    sha256, sha384 = (bytes.fromhex(f"06082a8648ce3d0403{last}") for last in ("02", "03"))
    assert der.count(sha256) == 2
    for count in (1, 2):
        pem = kit.pem(der.replace(sha256, sha384, count))
        if count == 2:
            assert len(read_certificates(pem, "it")) == 1
        else:
            with pytest.raises(DocumentError, match="two algorithms"):
                read_certificates(pem, "it")


def test_an_odd_serial_number_is_refused_and_nothing_is_printed() -> None:
    der = ROOT.certificate.public_bytes(Encoding.DER)
    at = der.index(b"\xa0\x03\x02\x01\x02\x02") + 7  # the first byte of the serial number
    negative = kit.pem(der[:at] + b"\xff" + der[at + 1 :])
    code = (
        "import sys\n"
        "from layertee.errors import DocumentError\n"
        "from layertee.signatures.keys.certificates import read_certificates\n"
        "try: read_certificates(sys.stdin.buffer.read(), 'it')\n"
        "except DocumentError: sys.exit(7)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], input=negative, capture_output=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (7, b"", b"")


@pytest.mark.parametrize("curve", [ec.SECP256K1(), ec.SECP224R1()])
def test_a_certificate_for_another_kind_of_key_is_refused(curve: ec.EllipticCurve) -> None:
    with pytest.raises(DocumentError, match="ECDSA key of"):
        read(CA.leaf(kit.new_key(curve).public_key()))


def test_der_that_goes_on_or_ends_early_is_refused() -> None:
    der = CA.certificate.public_bytes(Encoding.DER)
    for damaged in (der + b"\0", der[:-1], b"", der[1:]):
        with pytest.raises(DocumentError, match=r"cannot be read|not in PEM"):
            read_certificates(kit.pem(damaged), "it")


def test_a_strangers_certificates_are_few_and_a_bundle_may_have_many() -> None:
    pem = CA.pem
    assert len(read_certificates(pem * MAX_CHAIN, "it")) == MAX_CHAIN
    with pytest.raises(DocumentError, match="more than 16"):
        read_certificates(pem * (MAX_CHAIN + 1), "it")
    assert len(trusted_certificates(pem * 100, "it")) == 100
    with pytest.raises(PolicyRefused, match="more than 2048"):
        trusted_certificates(kit.pem(b"x") * 2049, "it")


# --- hosts ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "hosts"),
    [
        ("example.com", ["example.com", "EXAMPLE.com", "example.com."]),
        ("A.Example.COM", ["a.example.com"]),
        (
            "*.example.com",
            ["a.example.com", "A.EXAMPLE.com.", "xn--mnchen-3ya.example.com", "_x.example.com"],
        ),
        ("_x.example.com", ["_x.example.com"]),
        ("*", ["*"]),
        ("a b", ["A B"]),
        ("example.com.", []),
        ("10.0.0.1", []),
        ("*.com", ["a.com"]),
        ("b*.example.com", ["b*.example.com"]),
        ("", []),
        (".", []),
    ],
)
def test_hosts_are_matched_as_go_does(name: str, hosts: list[str]) -> None:
    leaf = leaf_of(names=[x509.DNSName(name)])
    for host in hosts:
        assert is_for_host(leaf, host)
    others = [
        *("", ".", "com", "example.org", "a.b.example.com", "example.com..", ".example.com", "10.0.0.1"),
        *("[10.0.0.1]", "[example.com]", "**.example.com", "-a.example.com", "example.com\0", "::1"),
    ]
    for host in others:
        assert not is_for_host(leaf, host), host
    if name != "*.example.com":
        assert not is_for_host(leaf, "ax.example.com")


def test_addresses_are_matched_among_addresses_only() -> None:
    leaf = leaf_of(names=[x509.IPAddress(ipaddress.ip_address("10.0.0.1")), x509.DNSName("::1")])
    for host in ("10.0.0.1", "[10.0.0.1]", "::ffff:10.0.0.1", "[::FFFF:a00:1]"):
        assert is_for_host(leaf, host)
    for host in ("010.0.0.1", "10.0.0.2", "10.0.0.1.", "::1", "::ffff:10.0.0.1%lo"):
        assert not is_for_host(leaf, host)


def test_the_common_name_is_no_name_of_a_host() -> None:
    leaf = leaf_of(name="example.com", names=[x509.DNSName("other.example.com")])
    assert not is_for_host(leaf, "example.com")
    with pytest.raises(PolicyRefused, match=re.escape("no names")):
        is_for_host(leaf_of(name="example.com", names=()), "example.com")
