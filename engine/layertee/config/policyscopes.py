"""Under which names an image is looked for in policy.json: its scopes, the most specific first.

containers/image has the rules with each transport (``PolicyConfigurationIdentity`` and
``PolicyConfigurationNamespaces``). Where the names of one image could be these or those, all of them are
given, as lists of scopes: it has to be accepted by each.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Final

from ..errors import InvalidReference, NotFound
from ..image.reference_archive import DOCKER_ARCHIVE

if TYPE_CHECKING:
    from ..image.reference import Reference
    from ..image.reference_storage import StorageReference
    from ..image.stored_name import StoredName

# Transports that are files or directories, by their paths; and those whose images have no scope of their own.
PATHS: Final = frozenset({"dir", "oci", "oci-archive", "sif"})
NO_SCOPES: Final = frozenset({DOCKER_ARCHIVE, "tarball"})
_DAEMON: Final = "docker-daemon"
_DAEMON_ID: Final = re.compile(r"sha256:[a-f0-9]{64}")


def docker_scopes(image: Reference) -> list[str]:
    """What may be written of ``image`` in policy.json and registries.d, the most specific first."""
    return _named_scopes(image.name, f"@{image.digest}" if image.digest else f":{image.tag}")


def path_scopes(path: str | Path) -> list[list[str]]:
    """Of an image that is a file or directory. Blocks: symlinks are resolved. Raises OSError.

    Two lists for a path that goes up behind a symlink. The system follows the link first, and there the
    image is; containers/image takes ``name/..`` out of the text before, and goes by the name that is left.
    """
    text = str(path)
    where = [os.path.realpath(text)]
    if ".." in text.split("/"):
        where.append(_by_its_text(text))
    return [and_parents(place) for place in dict.fromkeys(where)]


def other_scopes(transport: str, details: str) -> list[list[str]] | None:
    """Of ``transport:details``, for transports whose images are not read here; None where they are not known.

    Blocks. Raises OSError.
    """
    if transport in PATHS:
        return path_scopes(details)
    if transport in NO_SCOPES:
        return [[]]
    if transport == _DAEMON:
        return _daemon_scopes(details)
    return None


def storage_scopes(
    image: StorageReference, environ: Mapping[str, str] = os.environ
) -> list[list[str]] | None:
    """Of an image of podman's store: for each driver that the store may have. None: they are not known.

    Blocks. Raises as ``find_roots``.
    """
    # Only images of podman and docker have such names.
    from ..image.stored_name import parse_stored
    from .storage import find_roots

    roots = find_roots(image, environ=environ)
    try:
        # Ids are looked for by nobody here: what could be one has no known scope.
        stored = parse_stored(image.image or "", lambda prefix: prefix)
    except (InvalidReference, NotFound):
        return None
    if stored.image_id is not None or stored.repository is None:
        return None
    root = _clean(os.fspath(roots.roots[0]))
    return [_of_store(f"[{driver}@{root}]", f"[{root}]", stored) for driver in roots.drivers]


def and_parents(name: str) -> list[str]:
    """``/a/b`` and ``/a``; ``host/a`` and ``host``. Never ``/``, which is no scope."""
    parts = name.split("/")
    return [scope for n in range(len(parts), 0, -1) if (scope := "/".join(parts[:n]))]


def _by_its_text(path: str) -> str:
    """``path`` as containers/image has it (internal/explicitfilepath): of one that is not there, its
    directory and its name."""
    if os.path.lexists(path):
        return os.path.realpath(_clean(path))
    directory, _, name = path.rpartition("/")
    return os.path.join(os.path.realpath(_clean(directory or ("/" if path[:1] == "/" else "."))), name)


def _clean(path: str) -> str:
    """``path`` from the root, without ``//``, ``.`` and ``name/..``: the text alone counts."""
    return os.path.normpath("/" + os.path.abspath(path).lstrip("/"))


def _daemon_scopes(details: str) -> list[list[str]] | None:
    from ..image.stored_name import parse_stored

    # An image by its id has no scope, since the same one may have names as well.
    if _DAEMON_ID.fullmatch(details):
        return [[]]
    try:
        # Not by parse_reference, which writes hosts in lower case: here the case of a section counts.
        found = parse_stored(details, lambda _: None)
    except (InvalidReference, NotFound):
        return None
    if found.repository is None or found.image_id is not None or (found.tag and found.digest):
        return None
    return [_named_scopes(found.repository, f"@{found.digest}" if found.digest else f":{found.tag}")]


def _named_scopes(repository: str, pin: str) -> list[str]:
    host = repository.partition("/")[0]
    return [repository + pin, *and_parents(repository), *_wildcards(host)]


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
