"""How podman, buildah and skopeo name their store and an image in it.

containers-transports(5): ``containers-storage:[[driver@]graphroot[+runroot][:option,…]]image``. The
brackets, left out, mean the store that storage.conf names. This module reads the text; no I/O.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from ..errors import InvalidReference
from ..record import dataclass

TRANSPORT: Final = "containers-storage"


@dataclass(frozen=True, slots=True)
class StorageReference:
    """An image in a store, or the store alone (``image`` is then None).

    ``graphroot`` is None for the store that this machine's configuration names. ``driver`` is None
    where the text names none. ``options`` are the driver's, as written.
    """

    graphroot: Path | None
    driver: str | None
    runroot: Path | None
    options: tuple[str, ...]
    image: str | None

    @property
    def store(self) -> str:
        """The same without the image."""
        if self.graphroot is None:
            return f"{TRANSPORT}:"
        driver = f"{self.driver}@" if self.driver else ""
        runroot = f"+{self.runroot}" if self.runroot else ""
        options = ":" + ",".join(self.options) if self.options else ""
        return f"{TRANSPORT}:[{driver}{self.graphroot}{runroot}{options}]"

    def __str__(self) -> str:
        return self.store + (self.image or "")


def parse_storage(text: str) -> StorageReference:
    """``containers-storage:…``. Raises InvalidReference.

    containers/image, ``storage_transport.go``, ParseReference: the same order of cutting.
    """
    transport, colon, rest = text.partition(":")
    if transport != TRANSPORT or not colon:
        raise InvalidReference(f"{text!r:.200} does not begin with {TRANSPORT}:")
    if not text.isprintable() or text != text.strip():
        raise InvalidReference(f"image reference {text!r:.200} has stray characters")
    if not rest.startswith("["):
        return StorageReference(None, None, None, (), rest or None)
    spec, closed, image = rest[1:].partition("]")
    if not closed:
        raise InvalidReference(f"{text!r:.200}: the store's [ is not closed by a ]")
    driver, at, left = spec.partition("@")
    if not at:
        driver, left = "", spec
    elif not driver:
        raise InvalidReference(f"{text!r:.200}: nothing is named before the @ of the store")
    left, _, options = left.partition(":")
    graphroot, plus, runroot = left.partition("+")
    for path in (graphroot, *((runroot,) if plus else ())):
        if not path.startswith("/"):
            raise InvalidReference(f"{text!r:.200}: {path!r} is not an absolute path")
    return StorageReference(
        Path(graphroot),
        driver or None,
        Path(runroot) if plus else None,
        tuple(option for option in options.split(",") if option),
        image or None,
    )
