"""Bundles with a certificate: verified by the sigstore library, which is an extra (``layertee[sigstore]``).

The library is imported when the first such bundle is checked, and works without a network: certificate,
transparency log and time are proved by the bundle and the trusted root. It does not look at when authorities
and logs were in use, so it is given a root with only those that were at the time in question. What it raises,
of whatever kind, makes a bundle count for nothing: bundles are from strangers.
"""

from __future__ import annotations

import logging
from dataclasses import field
from typing import TYPE_CHECKING, Final

from ...errors import PolicyRefused
from ...image.strictjson import printable
from ...record import dataclass
from .claims import Identity, identity_of

if TYPE_CHECKING:
    from cryptography.x509 import Certificate
    from sigstore.models import Bundle as LibraryBundle
    from sigstore.verify import Verifier

    from .bundles import SignedEnvelope
    from .root import RootDocument

INSTALL: Final = (
    "signatures by an issuer and a subject are verified by the sigstore library, which is not installed:"
    " pip install 'layertee[sigstore]'"
)


@dataclass(frozen=True, slots=True)
class Keyless:
    """An envelope that was verified: who signed it, and when the log or a time-stamp authority saw that."""

    identity: Identity
    time: int
    log_index: int
    certificate: bytes = field(repr=False)


def require_library() -> None:
    """Raise PolicyRefused unless the sigstore library can be imported. Blocks for as long as that takes."""
    # Without a handler, the library's warnings would go to standard error.
    for name in ("sigstore", "tuf"):
        logging.getLogger(name).addHandler(logging.NullHandler())
    try:
        import sigstore.models
        import sigstore.verify  # noqa: F401
    except ImportError as exc:
        raise PolicyRefused(f"{INSTALL} ({exc})") from exc


def verify_keyless(envelope: SignedEnvelope, root: RootDocument) -> Keyless:
    """Who has signed ``envelope``. Its payload is left to the caller. Blocks.

    Raises PolicyRefused unless a certificate of an authority of ``root`` signed it, in the time of its
    validity, as a log of ``root`` has it.
    """
    require_library()
    try:
        return _verify(envelope, root)
    except PolicyRefused:
        raise
    except Exception as exc:
        raise PolicyRefused(printable(f"{type(exc).__name__}: {exc}", 400)) from exc


def _verify(envelope: SignedEnvelope, root: RootDocument) -> Keyless:
    from sigstore.models import Bundle

    bundle = Bundle.from_json(envelope.bundle.raw)
    if len(envelope.entries) != 1:
        raise PolicyRefused("it has no log entry, or several")
    (entry,) = envelope.entries
    at = entry.time if entry.promise is not None and entry.time is not None else _stamped(bundle)
    seen = _Seen()
    kind, payload = _verifier(root, at).verify_dsse(bundle, seen)
    entry.verify(root, at)  # the library does not compare the sizes of trees
    if seen.certificate is None or (kind, payload) != (envelope.payload_type, envelope.payload):
        raise PolicyRefused("two readers see two things in it")
    certificate = seen.certificate
    if _der(certificate) != envelope.certificate:
        raise PolicyRefused("two readers see two certificates in it")
    return Keyless(identity_of(certificate), at, entry.index, _der(certificate))


def _verifier(root: RootDocument, at: float) -> Verifier:
    from sigstore.models import ClientTrustConfig
    from sigstore.verify import Verifier

    config = root.client_config(at)
    return Verifier(trusted_root=ClientTrustConfig.from_json(config).trusted_root)


class _Seen:
    """A policy of the library's that accepts every certificate that the library verified, and keeps it."""

    def __init__(self) -> None:
        self.certificate: Certificate | None = None

    def verify(self, cert: Certificate) -> None:
        self.certificate = cert


def _stamped(bundle: LibraryBundle) -> int:
    """The time of its one time-stamp: of several, some could be of authorities that are not trusted."""
    data = bundle.verification_material.timestamp_verification_data
    stamps = data.rfc3161_timestamps if data is not None else []
    if len(stamps) != 1:
        raise PolicyRefused(f"it has {len(stamps)} time-stamps, and neither is one of the log; one is needed")
    return int(stamps[0].tst_info.gen_time.timestamp())


def _der(certificate: Certificate) -> bytes:
    from cryptography.hazmat.primitives.serialization import Encoding

    return certificate.public_bytes(Encoding.DER)
