"""What a bundle says of an image: an in-toto statement in a DSSE envelope.

in-toto attestation spec, Statement v1 and v0.1; DSSE v1.0. A statement names its subjects by digest and what
it says of them by a predicate type. Nothing in it counts before the envelope's signature was verified.
"""

from __future__ import annotations

from typing import Final

from ...errors import DocumentError, PolicyRefused
from ...image.digest import Digest
from ...image.strictjson import as_list, as_object, as_text, as_text_map, check_fields, load_object, printable
from ...record import dataclass
from ..signature import MAX_SIGNATURE, Subject

PAYLOAD_TYPE: Final = "application/vnd.in-toto+json"
MAX_SUBJECTS: Final = 1024
_TYPES: Final = frozenset({"https://in-toto.io/Statement/v1", "https://in-toto.io/Statement/v0.1"})


@dataclass(frozen=True, slots=True)
class Statement:
    """``predicate_type`` is said of whatever has one of ``digests``."""

    predicate_type: str
    digests: frozenset[Digest]

    def refuse_other(self, subject: Subject) -> None:
        """Raise PolicyRefused unless ``subject`` is among those that it is about."""
        if not any(map(subject.is_named, self.digests)):
            first = next(iter(sorted(self.digests)), "nothing with a digest")
            raise PolicyRefused(f"it is about {first}, not about {subject.digest}")


def parse_statement(payload_type: str, payload: bytes) -> Statement:
    """The payload of an envelope that was verified. Raises PolicyRefused."""
    if payload_type != PAYLOAD_TYPE:
        raise PolicyRefused(f"its payload is {printable(payload_type, 100)!r}, not an in-toto statement")
    try:
        return _parse(payload)
    except DocumentError as exc:
        raise PolicyRefused(str(exc)) from exc


def signed_bytes(payload_type: str, payload: bytes) -> bytes:
    """What an envelope's signature is over: DSSE's pre-authentication encoding."""
    kind = payload_type.encode()
    return b"DSSEv1 %d %b %d %b" % (len(kind), kind, len(payload), payload)


def _parse(payload: bytes) -> Statement:
    what = "its statement"
    found = load_object(payload, what, limit=MAX_SIGNATURE, maps=None)
    check_fields(found, ("_type", "subject", "predicateType", "predicate"), what)
    kind = as_text(found.get("_type"), f"{what}: _type")
    if kind not in _TYPES:
        raise DocumentError(f"{what} is of the unknown type {printable(kind)!r}")
    listed = as_list(found.get("subject"), f"{what}: subject")
    if len(listed) > MAX_SUBJECTS:
        raise DocumentError(f"{what} has more than {MAX_SUBJECTS} subjects")
    digests = set()
    for value in listed:
        subject = as_object(value, f"{what}: subject")
        check_fields(subject, ("name", "digest"), f"{what}: subject")
        for algorithm, hexadecimal in as_text_map(subject.get("digest"), f"{what}: digest").items():
            try:
                digests.add(Digest.parse(f"{algorithm}:{hexadecimal}"))
            except DocumentError:
                continue  # of an algorithm that images are not named by
    return Statement(as_text(found.get("predicateType"), f"{what}: predicateType"), frozenset(digests))
