"""What the user calls an image: ``host[:port]/namespace/name[:tag][@digest]``, or a local layout
or archive.

The grammar is that of distribution/reference (reference.md), Docker Hub's short forms
included. A name without a host is a short name: which registry it means is a matter of the machine's
configuration, and not decided here. After ``docker://`` it is Docker Hub's, as for skopeo.
"""

from __future__ import annotations

import ipaddress
import re
from pathlib import Path

from ..errors import DocumentError, InvalidReference
from ..record import dataclass
from . import hub
from .document import Digest
from .grammar import DOMAIN, MAX_REPOSITORY, REPOSITORY, TAG
from .reference_archive import DOCKER_ARCHIVE, DockerArchiveReference, parse_docker_archive
from .reference_storage import TRANSPORT, StorageReference, parse_storage

ARCHIVE = "oci-archive"
_MAX_PORT = 65535

_HOST_CHARACTERS = re.compile(r"[A-Za-z0-9.:\[\]-]+")  # what may reach a URL or a credential helper
_HOST = re.compile(rf"(?:(?P<name>{DOMAIN})|\[(?P<v6>[A-Fa-f0-9:.]+)\])(?::(?P<port>[0-9]+))?")
_REPOSITORY = re.compile(REPOSITORY)
_TAG = re.compile(TAG)
_IMAGE_ID = re.compile(r"[a-f0-9]{64}")
# annotations.md, org.opencontainers.image.ref.name
_REF_PART = r"[A-Za-z0-9]+(?:(?:[-._:@+]|--)[A-Za-z0-9]+)*"
_REF_NAME = re.compile(rf"{_REF_PART}(?:/{_REF_PART})*")

# Transports of other tools, to tell a known word from a host name.
_FOREIGN = frozenset(
    {
        *("atomic", "dir", "docker-daemon", "ostree"),
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
    "docker://host/name[:tag][@digest], oci:path[:ref], oci-archive:path[:ref], docker-archive:path[:name]"
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


@dataclass(frozen=True, slots=True)
class ShortName:
    """A repository of no registry, and what follows it: ``:tag``, ``@digest``, both or nothing."""

    repository: str
    suffix: str

    def at(self, name: str) -> Reference:
        """The same of ``name``, a registry with or without a repository. Raises InvalidReference."""
        return _parse_docker(f"{name}{self.suffix}")

    def __str__(self) -> str:
        return f"{self.repository}{self.suffix}"


ImageReference = Reference | LayoutReference | ArchiveReference | DockerArchiveReference | StorageReference


def parse_short_name(text: str) -> ShortName:
    """``text`` as a short name, with or without tag and digest. Raises InvalidReference."""
    rest, digest = _split_digest(text)
    if _is_host(_first(rest)):
        raise InvalidReference(f"{text!r:.200} is no short name: it begins with a registry")
    found = _parse_repository("localhost", rest, digest, text)  # the grammar is that of any registry
    return ShortName(found.repository, text[len(found.repository) :])


def parse_alias(text: str) -> str:
    """``registry/repository`` that a short name stands for, in full. Raises InvalidReference."""
    first, slash, repository = text.partition("/")
    if not slash or not (any(character in first for character in ".:") or first == "localhost"):
        raise InvalidReference(f"alias {text!r:.200} must be registry/repository")
    if "@" in text or ":" in repository:
        raise InvalidReference(f"alias {text!r:.200} must have neither tag nor digest")
    return _parse_docker(text).name


def parse_reference(text: str) -> ImageReference:
    """As :func:`parse_name`, but a short name is refused. Raises InvalidReference."""
    found = parse_name(text)
    if isinstance(found, ShortName):
        raise _no_registry(str(found), text)
    return found


def parse_name(text: str) -> ImageReference | ShortName:
    """``docker://…``, a bare ``host/…`` or short name, ``oci:path[:ref]``, ``oci-archive:path[:ref]``,
    ``docker-archive:path[:name|:@index]`` or ``containers-storage:…``.

    Host names come out in lower case, Docker Hub's names normalised, the tag ``latest`` added when
    there is neither tag nor digest, but not to a short name. Raises InvalidReference.
    """
    if not isinstance(text, str):
        raise TypeError(f"an image reference is a str, not {type(text).__name__}")
    if not text or not text.isprintable() or text != text.strip():
        raise InvalidReference(f"image reference {text!r:.200} is empty or has stray characters")
    scheme, colon, rest = text.partition(":")
    if colon and scheme == "oci":
        return LayoutReference(*_path_and_ref(scheme, rest))
    if colon and scheme == ARCHIVE:
        return ArchiveReference(*_path_and_ref(scheme, rest))
    if colon and scheme == DOCKER_ARCHIVE:
        return parse_docker_archive(rest)
    if colon and scheme == TRANSPORT:
        return parse_storage(text)
    if colon and scheme == "docker":
        if not rest.startswith("//"):
            raise InvalidReference(f"image reference {text!r} lacks //: write docker://{rest}")
        bare, digest = _split_digest(rest[2:])
        if _is_host(_first(bare)):
            return _parse_docker(rest[2:])
        if not bare.strip("/"):
            raise _no_registry("", rest[2:])
        if _IMAGE_ID.fullmatch(rest[2:]):
            raise InvalidReference(f"{text} has an image's ID, which no registry knows; name the repository")
        return _parse_repository(hub.NAME, bare, digest, rest[2:])
    if colon and (rest.startswith("//") or (scheme in _FOREIGN and not re.match(r"[0-9]+(/|$)", rest))):
        raise InvalidReference(f"transport {scheme!r} is not supported here; supported are {_SUPPORTED}")
    return _parse_docker(text) if _is_host(_first(text.partition("@")[0])) else parse_short_name(text)


def _path_and_ref(transport: str, rest: str) -> tuple[Path, str | None]:
    path, colon, ref = rest.partition(":")
    if not path:
        raise InvalidReference(f"{transport}: is followed by no path; write {transport}:path[:ref]")
    if colon and not _REF_NAME.fullmatch(ref):
        raise InvalidReference(f"{transport}:{path}: {ref!r} is not a reference name")
    return Path(path), ref or None


def _parse_docker(text: str) -> Reference:
    rest, digest = _split_digest(text)
    first = _first(rest)
    if not _is_host(first):
        raise _no_registry(rest, text)
    return _parse_repository(_registry(first, text), rest[len(first) + 1 :], digest, text)


def _parse_repository(registry: str, rest: str, digest: Digest | None, text: str) -> Reference:
    """``repository[:tag]`` of ``registry``. ``text`` is the whole, for messages."""
    repository, colon, tag = rest.partition(":")
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


def _split_digest(text: str) -> tuple[str, Digest | None]:
    rest, at, digest = text.partition("@")
    if "/" in digest and "/" not in rest:  # not repeated: it may hold a password
        raise InvalidReference("an image reference has no user name in it; log in, or use an auth file")
    return rest, _digest(digest, text) if at else None


def _first(rest: str) -> str:
    """What comes before the first slash: the registry, if there is one."""
    first, slash, _ = rest.partition("/")
    return first if slash else ""


def _is_host(first: str) -> bool:
    """Docker's rule: a first component is a host if no repository component could look like it."""
    return bool(first) and (any(c in first for c in ".:[") or first == "localhost" or first != first.lower())


def _no_registry(rest: str, text: str) -> InvalidReference:
    hint = rest.strip("/")
    hint = hint if "/" in hint else f"library/{hint or 'name'}"
    return InvalidReference(
        f"image reference {text!r} names no registry; write for example {hub.NAME}/{hint}"
    )


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
