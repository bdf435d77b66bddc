"""How images are called by those who ask for them: the names of the distribution API, and which of them an
image has.

An image called ``registry.example.com/os/image:stable`` is offered under two repositories, with its registry
and without: ``registry.example.com/os/image`` and ``os/image``. The distribution API has no ``:`` in
repositories, so a port stands behind a ``_``, which no host has in its name:
``registry.example.com_5000/os/image``. Where the registry is an IPv6 address, there is the short one only.
Names are spelled as everywhere: Docker Hub is ``docker.io``, its images without a namespace are in
``library/``. No I/O.
"""

from __future__ import annotations

import re
from typing import Final

from ..errors import InvalidReference
from ..image import hub
from ..image.grammar import MAX_REPOSITORY, REPOSITORY, TAG
from ..image.reference import Reference, parse_reference, parse_short_name
from ..record import dataclass

# distribution-spec v1.1, "Pulling manifests": <name> and <reference>.
_REPOSITORY: Final = re.compile(REPOSITORY)
_TAG: Final = re.compile(TAG)

LATEST: Final = "latest"


def is_repository(text: str) -> bool:
    """Whether ``text`` is a <name>. Clients take no longer ones than ``MAX_REPOSITORY`` characters."""
    return len(text) <= MAX_REPOSITORY and _REPOSITORY.fullmatch(text) is not None


def is_tag(text: str) -> bool:
    """Whether ``text`` is a <reference> that is a tag."""
    return _TAG.fullmatch(text) is not None


@dataclass(frozen=True, slots=True)
class OfferedName:
    """An image's name: ``registry`` is "" where it has none, ``tag`` None where a digest is all there is.

    ``repository`` is without the registry.
    """

    registry: str
    repository: str
    tag: str | None

    @property
    def full(self) -> str | None:
        """The repository with its registry; None where there is none, or none that can be asked for."""
        found = f"{self.registry.replace(':', '_')}/{self.repository}"
        return found if self.registry and is_repository(found) else None

    @property
    def repositories(self) -> tuple[str, ...]:
        """All that may be asked for."""
        return (self.full, self.repository) if self.full is not None else (self.repository,)

    @property
    def to_ask(self) -> str:
        """What means this image and no other, as far as that can be said."""
        return (self.full or self.repository) + (f":{self.tag}" if self.tag is not None else "")

    def tagged(self, tag: str) -> OfferedName:
        """The same repository with another tag. Raises InvalidReference."""
        if not is_tag(tag):
            raise InvalidReference(f"{tag!r:.200} is not a tag")
        return OfferedName(self.registry, self.repository, tag)

    def __str__(self) -> str:
        registry = f"{self.registry}/" if self.registry else ""
        return f"{registry}{self.repository}" + (f":{self.tag}" if self.tag is not None else "")


def offered_name(text: str) -> OfferedName:
    """An image called ``[registry/]repository[:tag][@digest]``, as offered. Raises InvalidReference."""
    if not text.isprintable() or " " in text:
        raise InvalidReference(f"{text!r:.200} is not the name of an image")
    found = parse_reference(f"docker://{text}")
    if not isinstance(found, Reference):
        raise InvalidReference(f"{text!r:.200} is not the name of an image")
    try:
        short = parse_short_name(text)
    except InvalidReference:  # it begins with a registry
        return OfferedName(found.registry, found.repository, found.tag)
    return OfferedName("", short.repository, found.tag)


def offered_ref(ref: str | None, repository: str | None) -> OfferedName:
    """What an entry of an image layout is offered as, whose ``ref.name`` is ``ref``.

    A name without ``/`` and ``:`` is a tag only, of ``repository``; that of None is ``latest``. Without a
    repository for them, neither is a name. Raises InvalidReference.
    """
    if ref is not None and not is_tag(ref):
        return offered_name(ref)
    if repository is None:
        raise InvalidReference(f"{ref!r:.200} is no name of an image: it has no repository")
    return OfferedName("", repository, LATEST if ref is None else ref)


def registry_name(text: str) -> str:
    """``text`` as OfferedName has it."""
    lower = text.lower()
    return hub.NAME if lower in hub.NAMES | hub.API_HOSTS else lower
