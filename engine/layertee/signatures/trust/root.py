"""Sigstore's trusted root: authorities, transparency logs and time-stamp authorities, and when each counts.

protobuf-specs, sigstore_trustroot.proto (TrustedRoot v0.1), in the JSON that ``cosign trusted-root create``
and sigstore's TUF repository have. Each part has a time from which, and perhaps one up to which, it was in
use: a key that a log gave up because it was stolen says nothing about what is signed after that.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Mapping
from dataclasses import field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from ...errors import DocumentError
from ...image.strictjson import as_list, as_object, as_text, load_object
from ...record import dataclass
from .bundlekeys import load_der

if TYPE_CHECKING:
    from .bundlekeys import PublicKey

LIMIT: Final = 1 << 20
_PARTS: Final = ("certificateAuthorities", "tlogs", "ctlogs", "timestampAuthorities")
_MAX_OF_EACH: Final = 64
# What the sigstore library wants around a root; nothing is signed or asked for with it.
_NO_SERVICES: Final = {
    "mediaType": "application/vnd.dev.sigstore.signingconfig.v0.2+json",
    "rekorTlogConfig": {"selector": "ANY"},
    "tsaConfig": {"selector": "ANY"},
}


@dataclass(frozen=True, slots=True)
class Log:
    """A transparency log: what it may be called, its key, and from when to when it was in use.

    Times are seconds since the epoch.
    """

    key_ids: frozenset[bytes]
    key: PublicKey
    start: float
    end: float

    def is_in_use(self, at: float) -> bool:
        return self.start <= at <= self.end


@dataclass(frozen=True, slots=True)
class RootDocument:
    """A trusted root that was read. ``document`` is its JSON."""

    document: Mapping[str, object] = field(repr=False, hash=False)
    logs: tuple[Log, ...] = ()

    def logs_by_id(self, key_id: bytes) -> list[Log]:
        """Those that an entry may mean by ``key_id``."""
        return [log for log in self.logs if key_id in log.key_ids]

    def as_of(self, at: float) -> dict[str, object]:
        """The same root with only those authorities and logs that were in use ``at`` that time.

        Time-stamp authorities stay: what they sign has a time of its own.
        """
        kept = dict(self.document)
        for part in _PARTS[:3]:
            kept[part] = [
                each
                for each in as_list(self.document.get(part), part)
                if validity(as_object(each, part), part).contains(at)
            ]
        return kept

    def client_config(self, at: float) -> str:
        """``as_of`` as the sigstore library takes it: a ClientTrustConfig, in JSON."""
        return json.dumps(
            {
                "mediaType": "application/vnd.dev.sigstore.clienttrustconfig.v0.1+json",
                "trustedRoot": self.as_of(at),
                "signingConfig": _NO_SERVICES,
            }
        )


def parse_root(raw: bytes, what: str) -> RootDocument:
    """A trusted root; ``what`` names it in messages. Raises DocumentError for one that makes no sense."""
    document = load_object(raw, what, limit=LIMIT)
    media_type = as_text(document.get("mediaType"), f"{what}: mediaType")
    if not media_type.startswith("application/vnd.dev.sigstore.trustedroot"):
        raise DocumentError(f"{what} is no trusted root of sigstore: its mediaType is {media_type!r:.100}")
    for part in _PARTS:
        found = as_list(document.get(part), f"{what}: {part}")
        if len(found) > _MAX_OF_EACH:
            raise DocumentError(f"{what} has more than {_MAX_OF_EACH} {part}")
        for each in found:
            validity(as_object(each, f"{what}: {part}"), f"{what}: {part}")
    logs = [_log(as_object(each, what), what) for each in as_list(document.get("tlogs"), what)]
    return RootDocument(document, tuple(logs))


def from_base64(value: object, what: str) -> bytes:
    """Raises DocumentError unless ``value`` is a text in base64 and nothing else."""
    try:
        return base64.b64decode(as_text(value, what), validate=True)
    except (binascii.Error, ValueError) as exc:
        raise DocumentError(f"{what} is not base64") from exc


@dataclass(frozen=True, slots=True)
class Validity:
    """From when to when something was in use, in seconds since the epoch."""

    start: float
    end: float

    def contains(self, at: float) -> bool:
        return self.start <= at <= self.end


def validity(part: Mapping[str, object], what: str) -> Validity:
    """Of an authority, or of the key of a log; without a beginning or an end, it has none.

    Raises DocumentError.
    """
    holder = part
    if "publicKey" in part:
        holder = as_object(part["publicKey"], f"{what}: publicKey")
    found = holder.get("validFor")
    if found is None:
        return Validity(float("-inf"), float("inf"))
    period = as_object(found, f"{what}: validFor")
    start, end = period.get("start"), period.get("end")
    return Validity(
        float("-inf") if start is None else _time(start, what),
        float("inf") if end is None else _time(end, what),
    )


def _time(value: object, what: str) -> float:
    text = as_text(value, f"{what}: validFor")
    try:
        found = datetime.fromisoformat(text)
    except ValueError as exc:
        raise DocumentError(f"{what}: validFor: {text!r:.60} is no time") from exc
    return (found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp()


def _log(found: Mapping[str, object], what: str) -> Log:
    key = as_object(found.get("publicKey"), f"{what}: publicKey")
    ids = [
        as_object(found[name], f"{what}: {name}") for name in ("logId", "checkpointKeyId") if name in found
    ]
    period = validity(found, what)
    try:
        public = load_der(from_base64(key.get("rawBytes"), f"{what}: rawBytes"))
    except ValueError as exc:
        raise DocumentError(f"{what}: the key of a log: {exc}") from exc
    key_ids = frozenset(from_base64(one.get("keyId"), f"{what}: keyId") for one in ids)
    return Log(key_ids, public, period.start, period.end)
