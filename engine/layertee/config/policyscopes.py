"""Under which names an image is looked for in policy.json: its scopes, the most specific first.

containers/image has the rules with each transport (``PolicyConfigurationIdentity`` and
``PolicyConfigurationNamespaces``).
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from ..errors import InvalidReference, LayerteeError, NotFound
from ..image.reference import Reference, parse_reference
from ..image.reference_archive import DOCKER_ARCHIVE
from ..image.reference_storage import StorageReference
from ..image.stored_name import StoredName, parse_stored
from .storage import find_roots

# Transports that are files or directories, by their paths; and those whose images have no scope of their own.
PATHS: Final = frozenset({"dir", "oci", "oci-archive", "sif"})
NO_SCOPES: Final = frozenset({DOCKER_ARCHIVE, "tarball"})
_DAEMON: Final = "docker-daemon"


def docker_scopes(image: Reference) -> list[str]:
    """What may be written of ``image`` in policy.json and registries.d, the most specific first."""
    pin = f"@{image.digest}" if image.digest else f":{image.tag}"
    return [image.name + pin, *and_parents(image.name), *_wildcards(image.registry)]


def path_scopes(path: str | Path) -> list[str]:
    """Of an image that is a file or directory. Blocks: symlinks are resolved. Raises OSError."""
    return and_parents(os.path.realpath(path))


def other_scopes(transport: str, details: str) -> list[str] | None:
    """Of ``transport:details``, for transports whose images are not read here; None where they are not known.

    Blocks. Raises OSError.
    """
    if transport in PATHS:
        return path_scopes(details)
    if transport in NO_SCOPES:
        return []
    if transport == _DAEMON:
        # An image by its id has no scope, since the same one may have names as well.
        if details.startswith(("sha256:", "sha512:")):
            return []
        try:
            named = parse_reference(f"docker://{details}")
        except LayerteeError:
            return None
        return docker_scopes(named) if isinstance(named, Reference) else None
    return None


def storage_scopes(
    image: StorageReference, environ: Mapping[str, str] = os.environ
) -> list[list[str]] | None:
    """Of an image of podman's store: for each driver that the store may have. None: they are not known.

    Blocks. Raises as ``find_roots``.
    """
    roots = find_roots(image, environ=environ)
    try:
        # Ids are looked for by nobody here: what could be one has no known scope.
        stored = parse_stored(image.image or "", lambda prefix: prefix)
    except (InvalidReference, NotFound):
        return None
    if stored.image_id is not None or stored.repository is None:
        return None
    root = roots.roots[0]
    return [_of_store(f"[{driver}@{root}]", f"[{root}]", stored) for driver in roots.drivers]


def and_parents(name: str) -> list[str]:
    """``/a/b`` and ``/a``; ``host/a`` and ``host``. Never ``/``, which is no scope."""
    parts = name.split("/")
    return [scope for n in range(len(parts), 0, -1) if (scope := "/".join(parts[:n]))]


def _of_store(store: str, driverless: str, image: StoredName) -> list[str]:
    assert image.repository is not None
    scopes = [f"{store}{image.name}"]
    if image.tag and image.digest:
        scopes.append(f"{store}{image.repository}:{image.tag}")
    return [*scopes, *(store + scope for scope in and_parents(image.repository)), store, driverless]


def _wildcards(host: str) -> list[str]:
    """``*.b.c`` and ``*.c`` for ``a.b.c``, whatever the port."""
    labels = host.partition(":")[0].split(".")
    return ["*." + ".".join(labels[n:]) for n in range(1, len(labels))]
