"""Who may sign, as ``sigstoreSigned`` says: holders of keys, of a Fulcio's certificates, or of others.

As containers/image decides it (signature/policy_eval_sigstore.go, fulcio_cert.go, pki_cert.go). Rules of this
file: what policy.json names is read first, and one part of it that cannot be used refuses all; of what comes
with a signature, the names in a certificate count only after the path above it was verified.
"""

from __future__ import annotations

import datetime
import ipaddress
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final, Protocol

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec

from ...config.requirements import PKI, Fulcio, Material, SigstoreSigned
from ...errors import DocumentError, PolicyRefused
from ...image.strictjson import printable
from ...record import dataclass
from .armour import only_block
from .certificates import (
    key_of,
    read_certificates,
    trusted_certificates,
    trusted_intermediates,
    verify_path,
)
from .der import UTF8_STRING, only
from .publickeys import PublicKey, der_of, fingerprint, load_keys, load_log_keys, read_material, signer
from .rekor import LogEntry, parse_bundle

if TYPE_CHECKING:
    from ..signature import Attachment

BUNDLE: Final = "dev.sigstore.cosign/bundle"
CERTIFICATE: Final = "dev.sigstore.cosign/certificate"
CHAIN: Final = "dev.sigstore.cosign/chain"
_ISSUER_V1: Final = x509.ObjectIdentifier("1.3.6.1.4.1.57264.1.1")
_ISSUER_V2: Final = x509.ObjectIdentifier("1.3.6.1.4.1.57264.1.8")
_LABEL: Final = r"[A-Za-z0-9_][A-Za-z0-9_-]*"
_HOST: Final = re.compile(rf"{_LABEL}(?:\.{_LABEL})*")
_PATTERN: Final = re.compile(rf"(?:\*\.)?{_LABEL}(?:\.{_LABEL})*")
_LAST_S: Final = 253402300799  # the end of the year 9999, where certificates end


@dataclass(frozen=True, slots=True)
class Candidate:
    """Who may have made one signature: it counts if one of ``keys`` did. The rest is for reports."""

    keys: tuple[PublicKey, ...]
    subject: str | None = None
    issuer: str | None = None
    entry: LogEntry | None = None

    def require_signed(self, signature: bytes, payload: bytes) -> str:
        """The fingerprint of the key that made ``signature`` of ``payload``. Raises PolicyRefused."""
        key = signer(self.keys, signature, payload)
        if key is None:
            raise PolicyRefused("it is not by a key that is asked for, or what was signed was changed")
        return fingerprint(key)


class Signers(Protocol):
    """Those who may sign."""

    def candidate(self, one: Attachment, signature: bytes) -> Candidate:
        """Who of them may have made ``signature``, the one in ``one``. Raises PolicyRefused if nobody did."""
        ...


def signers_of(requirement: SigstoreSigned) -> Signers:
    """All that ``requirement`` names, read. Raises PolicyRefused if a part of it cannot be used. Blocks."""
    logs = load_log_keys(requirement.rekor, "rekorPublicKey") if requirement.rekor is not None else None
    match requirement:
        case SigstoreSigned(keys=Material() as keys, fulcio=None, pki=None):
            return _Keys(load_keys(keys, "the public key"), logs)
        case SigstoreSigned(keys=None, fulcio=Fulcio() as fulcio, pki=None) if logs is not None:
            ca = _one(fulcio.ca, "fulcio: ca")
            return _Keyless(fulcio, trusted_certificates(ca, "fulcio: ca"), logs)
        case SigstoreSigned(keys=None, fulcio=None, pki=PKI() as pki) if logs is None:
            roots = _one(pki.roots, "pki: caRoots")
            between: list[x509.Certificate] = []
            if pki.intermediates is not None:
                raw = _one(pki.intermediates, "pki: caIntermediates")
                between = trusted_intermediates(raw, "pki: caIntermediates")
            return _Certified(pki, trusted_certificates(roots, "pki: caRoots"), between)
    raise PolicyRefused("policy.json: sigstoreSigned names no signers, or several kinds of them")


def _one(material: Material, what: str) -> bytes:
    """The one file or text that ``material`` is. Raises PolicyRefused."""
    found = read_material(material, what)
    if len(found) != 1:
        raise PolicyRefused(f"policy.json: {what} is {len(found)} files or texts in place of one")
    return found[0]


@dataclass(frozen=True, slots=True)
class _Keys:
    """Holders of keys. Where ``logs`` are named, one of them has to have seen the signature."""

    keys: list[PublicKey]
    logs: list[ec.EllipticCurvePublicKey] | None

    def candidate(self, one: Attachment, signature: bytes) -> Candidate:
        if self.logs is None:
            return Candidate(tuple(self.keys))
        entry = parse_bundle(_annotation(one, BUNDLE), self.logs)
        logged = tuple(key for key in self.keys if der_of(key) == entry.signer)
        entry.refuse_other(der_of(logged[0]) if logged else b"", signature, one.payload)
        return Candidate(logged, entry=entry)


@dataclass(frozen=True, slots=True)
class _Keyless:
    """Those to whom a Fulcio gave a certificate, which is valid for minutes: when, a log says."""

    fulcio: Fulcio
    roots: list[x509.Certificate]
    logs: list[ec.EllipticCurvePublicKey]

    def candidate(self, one: Attachment, signature: bytes) -> Candidate:
        entry = parse_bundle(_annotation(one, BUNDLE), self.logs)
        pem = _bytes(_annotation(one, CERTIFICATE))
        with _refusing():
            block = only_block(pem, "the certificate")
            entry.refuse_other(block.der, signature, one.payload)
            leaf, chain = _presented(one)
            if not 0 <= entry.time <= _LAST_S:
                raise DocumentError("the log entry is of no time at which a certificate may be valid")
            at = datetime.datetime.fromtimestamp(entry.time, datetime.UTC)
            verify_path(leaf, chain, (), self.roots, at, any_critical_name=True)
            issuer = _issuer(leaf)
            if issuer != self.fulcio.oidc_issuer.encode():
                shown = printable(issuer.decode(errors="replace"))
                raise PolicyRefused(
                    f"its certificate is for an identity of {shown!r}, not of {self.fulcio.oidc_issuer!r}"
                )
            _require_email(leaf, self.fulcio.subject_email)
            return Candidate((key_of(leaf),), self.fulcio.subject_email, self.fulcio.oidc_issuer, entry)


@dataclass(frozen=True, slots=True)
class _Certified:
    """Those with a certificate of an authority that is valid now."""

    pki: PKI
    roots: list[x509.Certificate]
    intermediates: list[x509.Certificate]

    def candidate(self, one: Attachment, signature: bytes) -> Candidate:
        with _refusing():
            leaf, chain = _presented(one)
            now = datetime.datetime.now(datetime.UTC)
            verify_path(leaf, chain, self.intermediates, self.roots, now, any_critical_name=False)
            if self.pki.subject_email:
                _require_email(leaf, self.pki.subject_email)
            if self.pki.subject_hostname and not is_for_host(leaf, self.pki.subject_hostname):
                raise PolicyRefused(f"its certificate is not for the host {self.pki.subject_hostname!r}")
            whose = self.pki.subject_email or self.pki.subject_hostname
            return Candidate((key_of(leaf),), whose, printable(leaf.issuer.rfc4514_string()))


@contextmanager
def _refusing() -> Iterator[None]:
    """What a stranger wrote wrongly refuses the signature."""
    try:
        yield
    except DocumentError as exc:
        raise PolicyRefused(str(exc)) from exc


def _annotation(one: Attachment, key: str) -> str:
    value = one.annotations.get(key)
    if value is None:
        raise PolicyRefused(f"it has no annotation {key}")
    return value


def _bytes(text: str) -> bytes:
    """``text`` as bytes that are no PEM where it has half a character."""
    return text.encode("utf-8", "surrogatepass")


def _presented(one: Attachment) -> tuple[x509.Certificate, list[x509.Certificate]]:
    """The certificate that comes with a signature, and the intermediates: its chain without the last."""
    leaves = read_certificates(_bytes(_annotation(one, CERTIFICATE)), "the certificate")
    if len(leaves) != 1:
        raise DocumentError(f"there are {len(leaves)} certificates in place of one")
    chain = read_certificates(_bytes(one.annotations.get(CHAIN, "")), "the certificate's chain")
    return leaves[0], chain[:-1]


def _names(leaf: x509.Certificate) -> x509.SubjectAlternativeName:
    try:
        return leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        raise PolicyRefused("its certificate has no names") from None


def _require_email(leaf: x509.Certificate, email: str) -> None:
    found = _names(leaf).get_values_for_type(x509.RFC822Name)
    if email not in found:
        shown = printable(", ".join(found)) or "none"
        raise PolicyRefused(f"its certificate is not for {email!r} (addresses in it: {shown})")


def _issuer(leaf: x509.Certificate) -> bytes:
    """Who, by Fulcio's word, knew the one who signed: both versions of the extension say the same."""
    found = {
        extension.oid: extension.value.value
        for extension in leaf.extensions
        if isinstance(extension.value, x509.UnrecognizedExtension)
    }
    said = []
    if _ISSUER_V1 in found:
        said.append(found[_ISSUER_V1])
    if _ISSUER_V2 in found:
        said.append(_utf8_string(found[_ISSUER_V2]))
    if not said:
        raise PolicyRefused("its certificate does not say who knew the signer (no OIDC issuer)")
    if said[0] != said[-1]:
        raise PolicyRefused("its certificate names two OIDC issuers")
    return said[0]


def _utf8_string(raw: bytes) -> bytes:
    """What a DER UTF8String holds."""
    what = "the OIDC issuer in the certificate"
    text = only(raw, UTF8_STRING, what).content
    try:
        text.decode("utf-8")
    except UnicodeDecodeError as exc:
        raise DocumentError(f"{what} is not UTF-8") from exc
    return text


# --- hosts ---------------------------------------------------------------------------------------


def is_for_host(leaf: x509.Certificate, host: str) -> bool:
    """Whether ``host``, a name or an address, is in ``leaf``: as Go's VerifyHostname decides.

    An address counts only among addresses. A name in the certificate may begin with ``*``, which is one
    label; what is no name of a host has to be there as it is. The subject's common name never counts.
    """
    names = _names(leaf)
    address = _address(host[1:-1] if host.startswith("[") and host.endswith("]") and len(host) > 2 else host)
    if address is not None:
        return any(_plain(one) == address for one in names.get_values_for_type(x509.IPAddress))
    wanted = _lower(host)
    labels = _lower(wanted.removesuffix(".")).split(".")
    is_host = _HOST.fullmatch(wanted.removesuffix(".")) is not None
    for found in names.get_values_for_type(x509.DNSName):
        if is_host and _PATTERN.fullmatch(found):
            pattern = _lower(found).split(".")
            if len(pattern) == len(labels) and pattern[0] in ("*", labels[0]) and pattern[1:] == labels[1:]:
                return True
        elif found not in ("", ".") and _lower(found) == wanted:
            return True
    return False


_IP = ipaddress.IPv4Address | ipaddress.IPv6Address


def _address(text: str) -> _IP | None:
    if "%" in text:  # a zone is no part of an address in a certificate
        return None
    try:
        return _plain(ipaddress.ip_address(text))
    except ValueError:
        return None


def _plain(address: object) -> _IP | None:
    """``address``, and those of IPv4 that are written in IPv6 as those of IPv4."""
    if isinstance(address, ipaddress.IPv6Address):
        return address.ipv4_mapped or address
    return address if isinstance(address, ipaddress.IPv4Address) else None


def _lower(text: str) -> str:
    """ASCII only: what a host's name is compared by."""
    return "".join(chr(ord(c) + 32) if "A" <= c <= "Z" else c for c in text)
