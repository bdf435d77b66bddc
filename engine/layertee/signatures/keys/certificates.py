"""Certificates of those who sign: read strictly, and followed up to an authority that policy.json names.

The path is built by ``cryptography.x509.verification``; what it is to demand is what Go's crypto/x509 demands
for code signing. Rules of this file: a certificate that Go would not read is not read here, and what only one
of the two evaluates (name constraints, constraints on policies) is refused. Nothing is fetched: no issuer, no
list of revoked ones. Counts and sizes are bounded before anything is verified.
"""

from __future__ import annotations

import datetime
import ipaddress
import re
import warnings
from collections.abc import Sequence
from typing import Final

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.utils import CryptographyDeprecationWarning
from cryptography.x509.oid import ExtendedKeyUsageOID
from cryptography.x509.verification import (
    Criticality,
    ExtensionPolicy,
    Policy,
    PolicyBuilder,
    Store,
    VerificationError,
)

from ...errors import DocumentError, PolicyRefused
from ...image.strictjson import printable
from .armour import blocks
from .der import IA5_STRING, PRINTABLE_STRING, SEQUENCE, UTF8_STRING, Element, elements, only
from .publickeys import PublicKey, der_of, usable

# Nobody who verifies a signature can mend an odd certificate in it, or in a bundle of authorities.
warnings.filterwarnings("ignore", category=CryptographyDeprecationWarning, module=re.escape(__name__))

MAX_CHAIN: Final = 16
"""Certificates that come with a signature; a chain has three or four."""
_MAX_DEPTH: Final = 8  # intermediates of a path
_MAX_PEM: Final = 256 << 10
_MAX_TRUSTED: Final = 2048  # in one file of policy.json; all authorities of the web are some 150
_KIND: Final = "CERTIFICATE"
_USAGES: Final = (ExtendedKeyUsageOID.CODE_SIGNING, ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE)
_UNREADABLE: Final = (
    ValueError,
    TypeError,
    UnsupportedAlgorithm,
    x509.DuplicateExtension,
    x509.InvalidVersion,
    x509.UnsupportedGeneralNameType,
)
_NEVER_CRITICAL: Final = (
    x509.SubjectKeyIdentifier,
    x509.AuthorityKeyIdentifier,
    x509.AuthorityInformationAccess,
)
_REFUSED: Final = {  # critical or not: only one of two libraries evaluates them, or each in its way
    "2.5.29.30": "name constraints",
    "2.5.29.33": "policy mappings",
    "2.5.29.36": "policy constraints",
    "2.5.29.54": "inhibitAnyPolicy",
}
_PRINTABLE: Final = re.compile(rb"[A-Za-z0-9 '()+,./:=?*&-]*")  # with two that Go lets pass
# URLs that every parser reads alike: no user, no spaces, no brackets, and only whole percent-encodings.
_URL: Final = re.compile(
    r"[a-z][a-z0-9+.-]*://[A-Za-z0-9]+(?:[-_.][A-Za-z0-9]+)*(?::[0-9]{1,5})?"
    r"(?:[/?#](?:[A-Za-z0-9._~!$&'()*+,;=:@/?-]|%[0-9A-Fa-f]{2})*)*"
)


# --- reading -------------------------------------------------------------------------------------


def read_certificates(pem: bytes, what: str, *, most: int = MAX_CHAIN) -> list[x509.Certificate]:
    """All certificates of ``pem``, each read strictly. Raises DocumentError naming ``what``."""
    if most <= MAX_CHAIN and len(pem) > _MAX_PEM:
        raise DocumentError(f"{what} is larger than {_MAX_PEM} bytes")
    found: list[x509.Certificate] = []
    for block in blocks(pem, what):
        if len(found) == most:
            raise DocumentError(f"{what} has more than {most} certificates")
        if block.kind != _KIND:
            raise DocumentError(f"{what} has a {block.kind} in place of a certificate")
        found.append(_read(block.der, what))
    return found


def trusted_certificates(pem: bytes, what: str) -> list[x509.Certificate]:
    """The authorities of a file that policy.json names; those that cannot be used are left out, as Go does.

    Raises PolicyRefused if none is left, or if it is no such file.
    """
    found: list[x509.Certificate] = []
    try:
        for number, block in enumerate(blocks(pem, what)):
            if number == _MAX_TRUSTED:
                raise DocumentError(f"{what} has more than {_MAX_TRUSTED} certificates")
            if block.kind == _KIND:
                try:
                    found.append(_read(block.der, what))
                except DocumentError:
                    continue
    except DocumentError as exc:
        raise PolicyRefused(f"policy.json: {exc}") from exc
    if not found:
        raise PolicyRefused(f"policy.json: {what} has no certificate that can be used")
    return found


def trusted_intermediates(pem: bytes, what: str) -> list[x509.Certificate]:
    """The intermediates that policy.json names: all can be used, or none. Raises PolicyRefused."""
    try:
        return read_certificates(pem, what, most=_MAX_TRUSTED)
    except DocumentError as exc:
        raise PolicyRefused(f"policy.json: {exc}") from exc


def key_of(certificate: x509.Certificate) -> PublicKey:
    """Its public key. Raises DocumentError if it is of a kind that does not count."""
    return usable(certificate.public_key(), "the certificate")


def _read(der: bytes, what: str) -> x509.Certificate:
    try:
        certificate = x509.load_der_x509_certificate(der)
        if certificate.version is not x509.Version.v3:
            raise DocumentError(f"{what} has a certificate that is not of version 3")
        _check_form(certificate, der, what)
        _check(certificate, what)
    except _UNREADABLE as exc:
        raise DocumentError(f"{what} has a certificate that cannot be read") from exc
    return certificate


def _check(certificate: x509.Certificate, what: str) -> None:
    """What Go's parser demands of what a certificate says."""
    if certificate.serial_number < 0:
        raise DocumentError(f"{what} has a certificate with a negative serial number")
    for extension in certificate.extensions:  # parses all that are known, and refuses what is twice there
        if extension.oid.dotted_string in _REFUSED:
            raise DocumentError(f"{what} has a certificate with {_REFUSED[extension.oid.dotted_string]}")
        match extension.value:
            case x509.SubjectAlternativeName() as names:
                _check_names(names, what)
            case x509.CertificatePolicies() as policies:
                if len({policy.policy_identifier for policy in policies}) != len(list(policies)):
                    raise DocumentError(f"{what} has a certificate with a policy twice")
            case value if extension.critical and isinstance(value, _NEVER_CRITICAL):
                raise DocumentError(f"{what} has a certificate with a critical {extension.oid.dotted_string}")


def _check_form(certificate: x509.Certificate, der: bytes, what: str) -> None:
    """What the library reads more widely than Go: algorithms, the encoding of the key, texts of names."""
    parts = elements(only(der, SEQUENCE, what).content, what)
    fields = elements(
        parts[0].content, what
    )  # version, serial number, algorithm, issuer, validity, subject, key
    if fields[2].whole != parts[1].whole:
        raise DocumentError(f"{what} has a certificate with two algorithms for one signature")
    if fields[6].whole != der_of(key_of(certificate)):
        raise DocumentError(f"{what} has a certificate whose key is in an encoding that is not the usual one")
    for name in (fields[3], fields[5]):
        for relative in elements(name.content, what):
            for attribute in elements(relative.content, what):
                _check_text(elements(attribute.content, what)[1], what)
    certificate.subject.public_bytes()  # parsed now, not when it is looked at
    certificate.issuer.public_bytes()


def _check_text(text: Element, what: str) -> None:
    good = (
        text.tag == UTF8_STRING
        or (text.tag == IA5_STRING and text.content.isascii())
        or (text.tag == PRINTABLE_STRING and _PRINTABLE.fullmatch(text.content))
    )
    if not good:
        raise DocumentError(f"{what} has a certificate with an unusual name")


def _check_names(names: x509.SubjectAlternativeName, what: str) -> None:
    for name in names:
        match name:
            case x509.RFC822Name() | x509.DNSName():
                good = name.value.isascii()
            case x509.UniformResourceIdentifier():
                good = _URL.fullmatch(name.value) is not None
            case x509.IPAddress():
                good = isinstance(name.value, ipaddress.IPv4Address | ipaddress.IPv6Address)
            case _:
                good = True
        if not good:
            raise DocumentError(f"{what} has a certificate with a malformed name")


# --- the path ------------------------------------------------------------------------------------


def verify_path(
    leaf: x509.Certificate,
    intermediates: Sequence[x509.Certificate],
    trusted: Sequence[x509.Certificate],
    roots: Sequence[x509.Certificate],
    at: datetime.datetime,
    *,
    any_critical_name: bool,
) -> None:
    """Raise PolicyRefused unless ``leaf`` is for code signing, and a path leads from it to one of ``roots``.

    The whole path has to be valid ``at`` that time, which has a time zone. ``intermediates`` are those of a
    stranger, ``trusted`` the administrator's. ``any_critical_name``: the caller looks at the leaf's names.
    """
    distinct = list(dict.fromkeys(intermediates))
    if len({one.subject.public_bytes() for one in distinct}) != len(distinct):
        # Each certificate has one issuer among a stranger's: the work is bounded by their number.
        raise PolicyRefused("two certificates of its chain are of the same name")
    between = list(dict.fromkeys([*distinct, *trusted]))
    try:
        verifier = (
            PolicyBuilder()
            .store(Store(list(roots)))
            .time(at)
            .max_chain_depth(_MAX_DEPTH)
            .extension_policies(ca_policy=_authority(), ee_policy=_signer(any_critical_name))
            .build_client_verifier()
        )
        chain = verifier.verify(leaf, between).chain
    except VerificationError as exc:
        raise PolicyRefused(f"its certificate is not accepted: {_reason(exc)}") from exc
    except (ValueError, OverflowError) as exc:
        raise PolicyRefused("its certificate cannot be verified for that time") from exc
    if any(at > one.not_valid_after_utc for one in chain):  # the library counts in whole seconds
        raise PolicyRefused("its certificate is not accepted: it is not valid any more")


def _reason(exc: VerificationError) -> str:
    text = str(exc).removeprefix("validation failed: ").partition(" (encountered processing ")[0]
    return printable(text.removeprefix("candidates exhausted: ").partition(": AlgorithmIdentifier")[0], 200)


def _authority() -> ExtensionPolicy:
    """What issuers have to have. crypto/x509 ignores how critical these are, so they may be both."""
    either = Criticality.AGNOSTIC
    return (
        _common()
        .require_present(
            x509.BasicConstraints, either, None
        )  # cA, and the length of the path: always checked
        .may_be_present(x509.KeyUsage, either, _signs_certificates)
        .may_be_present(x509.SubjectAlternativeName, either, _has_known_name)
    )


def _signer(any_critical_name: bool) -> ExtensionPolicy:
    names = None if any_critical_name else _has_known_name
    return _common().may_be_present(x509.SubjectAlternativeName, Criticality.AGNOSTIC, names)


def _common() -> ExtensionPolicy:
    return ExtensionPolicy.permit_all().may_be_present(
        x509.ExtendedKeyUsage, Criticality.AGNOSTIC, _is_for_code
    )


def _is_for_code(policy: Policy, certificate: x509.Certificate, usages: x509.ExtendedKeyUsage | None) -> None:
    """Nested, as Go has it: an issuer that lists usages restricts those below it; none listed is any."""
    if usages is not None and not any(usage in _USAGES for usage in usages):
        raise ValueError("it is not for code signing")


def _signs_certificates(policy: Policy, certificate: x509.Certificate, usage: x509.KeyUsage | None) -> None:
    if usage is not None and not usage.key_cert_sign:
        raise ValueError("its key is not for signing certificates")


def _has_known_name(
    policy: Policy, certificate: x509.Certificate, names: x509.SubjectAlternativeName | None
) -> None:
    """A critical extension counts as understood where one name in it is."""
    known = (x509.RFC822Name, x509.DNSName, x509.UniformResourceIdentifier, x509.IPAddress)
    if names is None or any(isinstance(name, known) for name in names):
        return
    if certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).critical:
        raise ValueError("it has critical names of unknown kinds only")
