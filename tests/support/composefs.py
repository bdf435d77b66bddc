"""A composefs repository as bootc lays it out: names and links, without the splitstreams' own format."""

from __future__ import annotations

import hashlib
from pathlib import Path

from layertee.image.document import DiffID
from layertee.places.composefs import ComposefsPlace


def repository(root: Path, diff_ids: list[DiffID]) -> ComposefsPlace:
    """``objects/xx/…``, named by a SHA-512 as bootc has it, and links to them in ``streams``."""
    (root / "streams").mkdir(parents=True)
    for diff_id in diff_ids:
        content = f"splitstream of {diff_id}".encode()
        name = hashlib.sha512(content).hexdigest()
        path = root / "objects" / name[:2] / name[2:]
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        stream(root, diff_id).symlink_to(f"../objects/{name[:2]}/{name[2:]}")
    return ComposefsPlace(root)


def stream(root: Path, diff_id: DiffID) -> Path:
    """The link by which a layer is found."""
    return root / "streams" / f"oci-layer-{diff_id}"
