"""Whether a certificate transparency log has seen a certificate before it was given out (RFC 6962 §3.2).

The sigstore library checks that for bundles; this is for the signatures that it does not read.
"""

from __future__ import annotations

import calendar
import hashlib
import struct
from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.certificate_transparency import LogEntryType, SignedCertificateTimestamp

from ...errors import PolicyRefused
from ...image.strictjson import as_list, as_object
from .bundlekeys import PublicKey, is_signed, load_der, to_der
from .root import from_base64

_MAX_STAMPS: Final = 8


def refuse_unwitnessed(
    certificate: x509.Certificate, issuers: Sequence[x509.Certificate], root: Mapping[str, object]
) -> None:
    """Raise PolicyRefused unless a log of ``root`` (JSON of a trusted root) has signed for ``certificate``.

    ``issuers``: certificates of authorities, one of which issued it, as was verified. Raises DocumentError
    for a root that makes no sense.
    """
    stamps = _stamps(certificate)
    of_names = [one for one in issuers if one.subject == certificate.issuer]
    keys = dict(_logs(root))
    for stamp in stamps:
        key = keys.get(stamp.log_id)
        if key is not None and any(_is_stamped(stamp, certificate, issuer, key) for issuer in of_names):
            return
    raise PolicyRefused("its certificate is in no certificate transparency log of the trusted root")


def _stamps(certificate: x509.Certificate) -> list[SignedCertificateTimestamp]:
    try:
        found = certificate.extensions.get_extension_for_class(x509.PrecertificateSignedCertificateTimestamps)
        stamps = list(found.value)
    except (x509.ExtensionNotFound, ValueError) as exc:
        raise PolicyRefused("its certificate has no word of a certificate transparency log") from exc
    if len(stamps) > _MAX_STAMPS:
        raise PolicyRefused(f"its certificate is in more than {_MAX_STAMPS} certificate transparency logs")
    return [stamp for stamp in stamps if stamp.entry_type is LogEntryType.PRE_CERTIFICATE]


def _logs(root: Mapping[str, object]) -> Iterator[tuple[bytes, PublicKey]]:
    """By their ids, which are hashes of their keys, whatever the root calls them."""
    for each in as_list(root.get("ctlogs"), "ctlogs"):
        holder = as_object(as_object(each, "ctlogs").get("publicKey"), "publicKey")
        try:
            key = load_der(from_base64(holder.get("rawBytes"), "rawBytes"))
        except ValueError:
            continue  # of a kind that is not known: it says nothing
        yield hashlib.sha256(to_der(key)).digest(), key


def _is_stamped(
    stamp: SignedCertificateTimestamp, certificate: x509.Certificate, issuer: x509.Certificate, key: PublicKey
) -> bool:
    """``stamp`` is over the certificate without it, and the key of its issuer."""
    issuer_key = issuer.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    tbs = certificate.tbs_precertificate_bytes
    at = calendar.timegm(stamp.timestamp.utctimetuple()) * 1000 + stamp.timestamp.microsecond // 1000
    signed = b"".join(
        (
            bytes((stamp.version.value, 0)),
            struct.pack(">QH", at, 1),
            hashlib.sha256(issuer_key).digest(),
            struct.pack(">I", len(tbs))[1:],
            tbs,
            struct.pack(">H", len(stamp.extension_bytes)),
            stamp.extension_bytes,
        )
    )
    return is_signed(key, stamp.signature, signed)
