"""How an image in a tar of ``docker save`` is named: ``docker-archive:path[:name[:tag]|:@index]``.

containers-transports(5), and containers/image, ``docker/archive/transport.go``. Reads the text; no I/O.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

from ..errors import InvalidReference
from ..record import dataclass
from .stored_name import parse_stored

DOCKER_ARCHIVE: Final = "docker-archive"
_INDEX: Final = re.compile(r"@([0-9]{1,9})")


@dataclass(frozen=True, slots=True)
class DockerArchiveReference:
    """An image in the archive ``path``, by its whole name, by where it stands in it, or the only one."""

    path: Path
    ref: str | None = None
    index: int | None = None

    def __str__(self) -> str:
        which = f":{self.ref}" if self.ref else f":@{self.index}" if self.index is not None else ""
        return f"{DOCKER_ARCHIVE}:{self.path}{which}"


def parse_docker_archive(rest: str) -> DockerArchiveReference:
    """What follows ``docker-archive:``. Raises InvalidReference."""
    path, colon, which = rest.partition(":")
    if not path:
        raise InvalidReference(
            f"{DOCKER_ARCHIVE}: is followed by no path; write {DOCKER_ARCHIVE}:path[:name[:tag]|:@index]"
        )
    if not colon:
        return DockerArchiveReference(Path(path))
    if match := _INDEX.fullmatch(which):
        return DockerArchiveReference(Path(path), index=int(match[1]))
    try:
        return DockerArchiveReference(Path(path), tag_name(which))
    except InvalidReference as exc:
        raise InvalidReference(f"{DOCKER_ARCHIVE}:{path}: {exc}") from exc


def tag_name(text: str) -> str:
    """``name[:tag]`` in full, as archives have it. Raises InvalidReference, for a digest as well."""
    found = parse_stored(text, lambda _: None) if "@" not in text else None
    if found is None or found.name is None:
        raise InvalidReference(f"{text!r:.200} is not name[:tag]; images in such an archive have no digest")
    return found.name
