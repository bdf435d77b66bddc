"""What the user calls an image: ``host[:port]/namespace/name[:tag][@digest]``, or a local layout
or archive.

The grammar is that of distribution/reference (reference.md), Docker Hub's short forms
included. Names without a host are refused: which registry they mean depends on the
machine, and an unattended machine must not guess.
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from pathlib import Path

from ..errors import DocumentError, InvalidReference
from . import hub
from .document import Digest
from .grammar import DOMAIN, MAX_REPOSITORY, REPOSITORY, TAG
from .reference_storage import TRANSPORT, StorageReference, parse_storage

ARCHIVE = "oci-archive"
_MAX_PORT = 65535

_HOST_CHARACTERS = re.compile(r"[A-Za-z0-9.:\[\]-]+")  # what may reach a URL or a credential helper
_HOST = re.compile(rf"(?:(?P<name>{DOMAIN})|\[(?P<v6>[A-Fa-f0-9:.]+)\])(?::(?P<port>[0-9]+))?")
_REPOSITORY = re.compile(REPOSITORY)
_TAG = re.compile(TAG)
# annotations.md, org.opencontainers.image.ref.name
_REF_PART = r"[A-Za-z0-9]+(?:(?:[-._:@+]|--)[A-Za-z0-9]+)*"
_REF_NAME = re.compile(rf"{_REF_PART}(?:/{_REF_PART})*")

# Transports of other tools, to tell a known word from a host name.
_FOREIGN = frozenset(
    {
        *("atomic", "dir", "docker-archive", "docker-daemon", "ostree"),
        *(
            "ostree-image-signed",
            "ostree-remote-image",
            "ostree-unverified-image",
            "registry",
            "sif",
            "tarball",
        ),
        *("http", "https"),
    }
)
_SUPPORTED = (
    "docker://host/name[:tag][@digest], oci:path[:ref], oci-archive:path[:ref]"
    " and containers-storage:[[store]]name"
)


@dataclass(frozen=True, slots=True)
class Reference:
    """An image in a registry. ``digest`` decides where there is one; ``tag`` is then only a label."""

    registry: str
    repository: str
    tag: str | None
    digest: Digest | None

    @property
    def api_host(self) -> str:
        """``host[:port]`` that serves the API: Docker Hub's is not its name."""
        return hub.API_HOST if self.registry == hub.NAME else self.registry

    @property
    def name(self) -> str:
        """``registry/repository``."""
        return f"{self.registry}/{self.repository}"

    def __str__(self) -> str:
        tag = f":{self.tag}" if self.tag else ""
        digest = f"@{self.digest}" if self.digest else ""
        return f"{self.name}{tag}{digest}"


@dataclass(frozen=True, slots=True)
class LayoutReference:
    """An image in an OCI image layout on disk; ``ref`` is its ``org.opencontainers.image.ref.name``."""

    path: Path
    ref: str | None

    def __str__(self) -> str:
        return f"oci:{self.path}" + (f":{self.ref}" if self.ref else "")


@dataclass(frozen=True, slots=True)
class ArchiveReference:
    """An image in an OCI image layout that is one tar file; ``ref`` as in LayoutReference."""

    path: Path
    ref: str | None

    def __str__(self) -> str:
        return f"{ARCHIVE}:{self.path}" + (f":{self.ref}" if self.ref else "")


ImageReference = Reference | LayoutReference | ArchiveReference | StorageReference


def parse_reference(text: str) -> ImageReference:
    """``docker://…``, a bare ``host/…``, ``oci:path[:ref]``, ``oci-archive:path[:ref]`` or
    ``containers-storage:…``.

    Host names come out in lower case, Docker Hub's names normalised, the tag ``latest`` added when
    there is neither tag nor digest. Raises InvalidReference.
    """
    if not text or not text.isprintable() or text != text.strip():
        raise InvalidReference(f"image reference {text!r:.200} is empty or has stray characters")
    scheme, colon, rest = text.partition(":")
    if colon and scheme == "oci":
        return LayoutReference(*_path_and_ref(scheme, rest))
    if colon and scheme == ARCHIVE:
        return ArchiveReference(*_path_and_ref(scheme, rest))
    if colon and scheme == TRANSPORT:
        return parse_storage(text)
    if colon and scheme == "docker":
        if not rest.startswith("//"):
            raise InvalidReference(f"image reference {text!r} lacks //: write docker://{rest}")
        return _parse_docker(rest[2:])
    if colon and (rest.startswith("//") or (scheme in _FOREIGN and not re.match(r"[0-9]+(/|$)", rest))):
        raise InvalidReference(f"transport {scheme!r} is not supported here; supported are {_SUPPORTED}")
    return _parse_docker(text)


def _path_and_ref(transport: str, rest: str) -> tuple[Path, str | None]:
    path, colon, ref = rest.partition(":")
    if not path:
        raise InvalidReference(f"{transport}: is followed by no path; write {transport}:path[:ref]")
    if colon and not _REF_NAME.fullmatch(ref):
        raise InvalidReference(f"{transport}:{path}: {ref!r} is not a reference name")
    return Path(path), ref or None


def _parse_docker(text: str) -> Reference:
    rest, at, digest_text = text.partition("@")
    if "/" in digest_text and "/" not in rest:  # not repeated: it may hold a password
        raise InvalidReference("an image reference has no user name in it; log in, or use an auth file")
    digest = _digest(digest_text, text) if at else None
    slash = rest.find("/")
    first = rest[:slash] if slash > 0 else ""
    if not _is_host(first):
        _refuse_short_name(rest, text)
    registry = _registry(first, text)
    repository, colon, tag = rest[slash + 1 :].partition(":")
    if colon and not _TAG.fullmatch(tag):
        raise InvalidReference(f"image reference {text!r}: {tag!r} is not a tag")
    if registry == hub.NAME and "/" not in repository:
        repository = f"library/{repository}"
    if repository != repository.lower():
        raise InvalidReference(
            f"image reference {text!r}: repository names are lower case; did you mean {repository.lower()!r}?"
        )
    if not _REPOSITORY.fullmatch(repository):
        raise InvalidReference(f"image reference {text!r}: {repository!r} is not a repository name")
    if len(repository) > MAX_REPOSITORY:
        raise InvalidReference(f"image reference {text!r:.80}…: the repository name is longer than 255")
    return Reference(registry, repository, tag or (None if digest else "latest"), digest)


def _is_host(first: str) -> bool:
    """Docker's rule: a first component is a host if no repository component could look like it."""
    return bool(first) and (any(c in first for c in ".:[") or first == "localhost" or first != first.lower())


def _refuse_short_name(rest: str, text: str) -> None:
    hint = rest.strip("/")
    hint = hint if "/" in hint else f"library/{hint or 'name'}"
    raise InvalidReference(f"image reference {text!r} names no registry; write for example {hub.NAME}/{hint}")


def _registry(host: str, text: str) -> str:
    match = _HOST.fullmatch(host) if _HOST_CHARACTERS.fullmatch(host) else None
    if match is None:
        raise InvalidReference(f"image reference {text!r}: {host!r} is not host[:port]")
    if match["v6"] is not None:
        try:
            ipaddress.IPv6Address(match["v6"])
        except ValueError as exc:
            raise InvalidReference(f"image reference {text!r}: {host!r} is not an IPv6 address") from exc
    if match["port"] is not None and not 0 < int(match["port"][:6]) <= _MAX_PORT:
        raise InvalidReference(f"image reference {text!r}: port {match['port']:.10} is not 1 to {_MAX_PORT}")
    registry = host.lower()
    if not _is_host(registry):
        registry = host  # HOST/x: in lower case it would read as a short name
    return hub.NAME if registry in hub.NAMES else registry


def _digest(text: str, whole: str) -> Digest:
    try:
        return Digest.parse(text, "digest")
    except DocumentError as exc:
        raise InvalidReference(f"image reference {whole!r:.200}: {exc}") from exc
