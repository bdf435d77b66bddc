"""What is signed of an image: a small JSON document with a digest and a name.

containers-signature.5.md, and cosign's specs/SIGNATURE_SPEC.md, which took it over. Rules of this file: every
key but those in ``optional`` is known, is there once, and is spelt exactly so; a document that two parsers
could read differently is none. Nothing in a payload counts before its signature was verified.
"""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING, Final

from ..config.requirements import Identity, IdentityKind
from ..errors import DocumentError, PolicyRefused
from ..image.digest import Digest
from ..image.strictjson import as_object, as_text, load_object, printable
from ..record import dataclass
from .identity import accepts

if TYPE_CHECKING:
    from .signature import Subject

_WHAT: Final = "the payload of the signature"
_INT64: Final = 1 << 63
_REPOSITORY: Final = Identity(IdentityKind.MATCH_REPOSITORY)


class PayloadType(enum.Enum):
    """By whom the format of a payload was made, as the payload itself says."""

    SIMPLE = "atomic container signature"
    SIGSTORE = "cosign container image signature"


@dataclass(frozen=True, slots=True)
class Payload:
    """``digest`` of the manifest that was signed, and the name that it was signed as.

    ``creator``, a program, and ``timestamp``, seconds since the epoch, are for people: they prove nothing.
    """

    digest: Digest
    docker_reference: str
    creator: str | None = None
    timestamp: int | None = None

    def refuse_other(self, subject: Subject, identity: Identity) -> None:
        """Raise PolicyRefused unless this is for ``subject``, under a name that ``identity`` accepts."""
        # SHA-256 whatever the image was asked for by: containers/image takes no other digest here.
        if self.digest != Digest.of(subject.raw):
            raise PolicyRefused(f"it is for {self.digest}, not for {subject.digest}")
        if not accepts(identity, subject.name, self.docker_reference):
            name = subject.name if subject.name is not None else "an image without a name"
            signed = printable(self.docker_reference)
            text = f"it is for the name {signed!r}, which {identity.kind.value} refuses for {name}"
            is_bare = not {":", "@"} & set(self.docker_reference.rpartition("/")[2])
            if is_bare and accepts(_REPOSITORY, subject.name, self.docker_reference):
                text += "; cosign signs for a repository, which signedIdentity matchRepository takes"
            raise PolicyRefused(text)


def parse_payload(raw: bytes, kind: PayloadType) -> Payload:
    """The payload of a signature that was verified. Raises PolicyRefused.

    ``optional`` may be null in one of sigstore, as cosign writes it.
    """
    try:
        return _parse(raw, kind)
    except DocumentError as exc:
        raise PolicyRefused(str(exc)) from exc


def _parse(raw: bytes, kind: PayloadType) -> Payload:
    document = load_object(raw, _WHAT, maps=None)
    _only(document, {"critical", "optional"}, _WHAT)
    optional = document["optional"]
    if optional is None and kind is PayloadType.SIGSTORE:
        optional = {}
    found = as_object(optional, f"{_WHAT}: optional")
    creator = found.get("creator")
    if creator is not None:
        creator = as_text(creator, f"{_WHAT}: creator")
    critical = as_object(document["critical"], f"{_WHAT}: critical")
    _only(critical, {"type", "image", "identity"}, f"{_WHAT}: critical")
    said = as_text(critical["type"], f"{_WHAT}: type")
    if said != kind.value:
        raise DocumentError(f"{_WHAT} is of type {printable(said)!r}, not {kind.value!r}")
    image = as_object(critical["image"], f"{_WHAT}: image")
    _only(image, {"docker-manifest-digest"}, f"{_WHAT}: image")
    identity = as_object(critical["identity"], f"{_WHAT}: identity")
    _only(identity, {"docker-reference"}, f"{_WHAT}: identity")
    return Payload(
        Digest.parse(image["docker-manifest-digest"], f"{_WHAT}: docker-manifest-digest"),
        as_text(identity["docker-reference"], f"{_WHAT}: docker-reference"),
        creator,
        _timestamp(found.get("timestamp")),
    )


def _only(found: dict[str, object], wanted: set[str], what: str) -> None:
    """All of ``wanted``, and nothing else."""
    if found.keys() == wanted:
        return
    extra = sorted(found.keys() - wanted)
    if extra:
        raise DocumentError(f"{what} has {printable(extra[0], 60)!r}, which is unknown there")
    raise DocumentError(f"{what} lacks {min(wanted - found.keys())!r}")


def _timestamp(value: object) -> int | None:
    """A whole number, however it is written, that has 64 bits: others are read differently by machine."""
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or value != int(value):
        raise DocumentError(f"{_WHAT}: timestamp is not an integer")
    if not -_INT64 <= float(value) < _INT64:
        raise DocumentError(f"{_WHAT}: timestamp is out of range")
    return int(value)
