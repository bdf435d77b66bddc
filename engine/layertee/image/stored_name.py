"""What the image part of ``containers-storage:…`` means, which depends on the images that are there.

containers/image, ``storage_transport.go``, ParseStoreReference: ``[name[:tag]][@digest][@id]``, where an id
may be cut to what tells it from the others, and may stand alone, without the @. A name without a registry is
Docker Hub's, whatever registries this machine searches: podman's own ``localhost/`` has to be written.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final

from ..errors import InvalidReference, NotFound
from ..record import dataclass
from . import hub
from .grammar import DOMAIN, REPOSITORY, TAG

MIN_ID: Final = 3  # hexadecimal digits; fewer are a name

_ID: Final = re.compile(r"[a-f0-9]{64}")
_DIGEST: Final = re.compile(r"sha256:[a-f0-9]{64}|sha384:[a-f0-9]{96}|sha512:[a-f0-9]{128}")
_PREFIX: Final = re.compile(rf"[a-f0-9]{{{MIN_ID},64}}")
_HOST: Final = re.compile(rf"(?:{DOMAIN}|\[[A-Fa-f0-9:.]+\])(?::[0-9]+)?")
_REPOSITORY: Final = re.compile(REPOSITORY)
_TAG: Final = re.compile(TAG)


@dataclass(frozen=True, slots=True)
class StoredName:
    """An image of a store, by its ``repository`` with a ``tag`` or ``digest``, its ``image_id``, or both."""

    repository: str | None = None
    tag: str | None = None
    digest: str | None = None
    image_id: str | None = None

    @property
    def name(self) -> str | None:
        """As the store has it in its records; None for one that is named by its id alone."""
        if self.repository is None:
            return None
        tag = f":{self.tag}" if self.tag else ""
        return f"{self.repository}{tag}" + (f"@{self.digest}" if self.digest else "")


def parse_stored(text: str, expand: Callable[[str], str | None]) -> StoredName:
    """What ``text`` means in a store where ``expand`` finds the whole id that begins like that.

    ``expand`` answers None where no image has such an id, and may raise where several have. Raises
    InvalidReference, and NotFound for the beginning of an id that no image has.
    """
    rest, at, last = text.rpartition("@")
    image_id: str | None = None
    if not at or _DIGEST.fullmatch(last):
        rest = text
    elif _PREFIX.fullmatch(last):
        if (image_id := _expanded(last, expand)) is None:
            raise NotFound(f"{text!r:.200}: no image of the store has an id that begins with {last}")
    else:
        raise InvalidReference(f"{text!r:.200}: {last!r:.80} is no digest, and no id of an image")
    if image_id is None and not {"@", ":"} & set(rest):
        image_id = _expanded(rest, expand)
        rest = "" if image_id is not None else rest
    if not rest:
        if image_id is None:
            raise InvalidReference("an image of a store has a name or an id")
        return StoredName(image_id=image_id)
    name, at, digest = rest.partition("@")
    if at and not _DIGEST.fullmatch(digest):
        raise InvalidReference(f"{text!r:.200}: {digest!r:.80} is no digest")
    head, colon, tag = name.rpartition(":")
    if not colon or "/" in tag:
        head, tag = name, ""
    elif not _TAG.fullmatch(tag):
        raise InvalidReference(f"{text!r:.200}: {tag!r:.140} is not a tag")
    if not tag and not digest:
        tag = "latest"
    return StoredName(normalized(head), tag or None, digest or None, image_id)


def normalized(name: str) -> str:
    """``name``, without tag and digest, with Docker Hub's host and namespace where it has none.

    distribution/reference, ``normalize.go``. Raises InvalidReference.
    """
    host, slash, rest = name.partition("/")
    is_host = slash and (host == "localhost" or any(c in host for c in ".:") or host != host.lower())
    if not is_host:
        host, rest = hub.NAME, name
    elif host in hub.NAMES:
        host = hub.NAME
    if host == hub.NAME and "/" not in rest:
        rest = f"library/{rest}"
    if not _HOST.fullmatch(host) or not _REPOSITORY.fullmatch(rest):
        raise InvalidReference(f"{name!r:.200} is not the name of an image")
    return f"{host}/{rest}"


def _expanded(text: str, expand: Callable[[str], str | None]) -> str | None:
    """The id that begins with ``text``; a whole one is an id whatever the store has."""
    if _ID.fullmatch(text):
        return text
    return expand(text) if _PREFIX.fullmatch(text) else None
