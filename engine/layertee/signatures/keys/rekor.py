"""What a transparency log says of a signature: the SignedEntryTimestamp in cosign's annotation ``bundle``.

cosign's specs/SIGNATURE_SPEC.md; read as containers/image reads it (signature/internal/rekor_set.go) or more
narrowly. Rules of this file: the log's signature is verified before anything of the entry counts; an entry
that is about another signature, key or payload is as good as none. The log is not asked: its word is in the
bundle, so that it was logged is as true as the log is honest.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from typing import Final

from cryptography.hazmat.primitives.asymmetric import ec

from ...errors import DocumentError, PolicyRefused
from ...image.strictjson import as_object, as_text, check_fields, load_object, printable
from ...record import dataclass
from .armour import from_base64, only_block
from .canonical import canonical
from .publickeys import logged_by

MAX_BUNDLE: Final = 256 << 10
"""Bytes; one with a certificate has about 5 KiB."""
_WHAT: Final = "the log entry"
_SHA256: Final = re.compile(r"[0-9A-Fa-f]{64}")


@dataclass(frozen=True, slots=True)
class LogEntry:
    """What a log saw, at ``time`` (seconds since the epoch): a signature by ``signer``, which is the DER of a
    public key or certificate, of a payload with that SHA-256.
    """

    signer: bytes
    signature: bytes
    payload_sha256: bytes
    time: int
    index: int

    def refuse_other(self, signer: bytes, signature: bytes, payload: bytes) -> None:
        """Raise PolicyRefused unless this is about ``signature`` of ``payload`` by ``signer``."""
        if self.signer != signer:
            raise PolicyRefused(f"{_WHAT} is about another key or certificate")
        if self.signature != signature:
            raise PolicyRefused(f"{_WHAT} is about another signature")
        if self.payload_sha256 != hashlib.sha256(payload).digest():
            raise PolicyRefused(f"{_WHAT} is about another payload")


def parse_bundle(bundle: str, logs: Sequence[ec.EllipticCurvePublicKey]) -> LogEntry:
    """The entry in the annotation ``bundle``, which one of ``logs`` signed. Raises PolicyRefused."""
    try:
        return _parse(bundle, logs)
    except DocumentError as exc:
        raise PolicyRefused(str(exc)) from exc


def _parse(bundle: str, logs: Sequence[ec.EllipticCurvePublicKey]) -> LogEntry:
    found = _exactly(
        load_object(bundle.encode("utf-8", "surrogatepass"), _WHAT, limit=MAX_BUNDLE),
        {"SignedEntryTimestamp", "Payload"},
    )
    stamp = _bytes(found["SignedEntryTimestamp"], "SignedEntryTimestamp")
    payload = _exactly(
        as_object(found["Payload"], f"{_WHAT}: Payload"), {"body", "integratedTime", "logIndex", "logID"}
    )
    if not logged_by(logs, stamp, canonical(payload, _WHAT)):
        raise DocumentError(f"{_WHAT} is not signed by a log of policy.json")
    body = _bytes(payload["body"], "body")
    time, index = (_integer(payload[key], key) for key in ("integratedTime", "logIndex"))
    as_text(payload["logID"], f"{_WHAT}: logID")
    signer, signature, payload_sha256 = _hashedrekord(body)
    return LogEntry(signer, signature, payload_sha256, time, index)


def _hashedrekord(body: bytes) -> tuple[bytes, bytes, bytes]:
    """Signer, signature and SHA-256 of the payload, of the body of an entry."""
    record = load_object(body, f"{_WHAT}: body", limit=MAX_BUNDLE)
    check_fields(record, ("kind", "apiVersion", "spec"), f"{_WHAT}: body")
    kind, version = record.get("kind"), record.get("apiVersion")
    if (kind, version) != ("hashedrekord", "0.0.1"):
        shown = printable(f"{kind} {version}", 60)
        raise DocumentError(f"{_WHAT} is of the kind {shown}, not hashedrekord 0.0.1")
    spec = _part(record, "spec", ("data", "signature"))
    digest = _part(_part(spec, "data", ("hash",)), "hash", ("algorithm", "value"))
    signed = _part(spec, "signature", ("content", "publicKey"))
    public = _part(signed, "publicKey", ("content",))
    if digest.get("algorithm") != "sha256":
        raise DocumentError(f"{_WHAT} has a hash that is not sha256")
    value = as_text(digest.get("value"), f"{_WHAT}: hash")
    if not _SHA256.fullmatch(value):
        raise DocumentError(f"{_WHAT} has a hash that is not sha256")
    signer = only_block(_bytes(public.get("content"), "publicKey"), f"{_WHAT}: publicKey")
    return signer.der, _bytes(signed.get("content"), "signature"), bytes.fromhex(value)


def _part(found: dict[str, object], key: str, fields: tuple[str, ...]) -> dict[str, object]:
    part = as_object(found.get(key), f"{_WHAT}: {key}")
    check_fields(part, fields, f"{_WHAT}: {key}")
    return part


def _exactly(found: dict[str, object], keys: set[str]) -> dict[str, object]:
    if found.keys() != keys:
        raise DocumentError(f"{_WHAT} does not have the fields {', '.join(sorted(keys))}, and no other")
    return found


def _bytes(value: object, what: str) -> bytes:
    return from_base64(as_text(value, f"{_WHAT}: {what}"), f"{_WHAT}: {what}")


def _integer(value: object, what: str) -> int:
    if type(value) is not int:  # bool is an int
        raise DocumentError(f"{_WHAT}: {what} is not an integer")
    return value
