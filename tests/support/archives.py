"""Tar files: image layouts in one, as tools and tests write them, and their indexes."""

from __future__ import annotations

import io
import os
import tarfile
from pathlib import Path

from layertee.places import tarindex
from layertee.places.tarindex import Member
from tests.support.rig.images import BuiltImage, run_tool

Members = dict[str, bytes]


def by_skopeo(image: BuiltImage, path: Path) -> Path:
    """The image as skopeo puts it into an archive."""
    run_tool("skopeo", "copy", "-q", "--preserve-digests", image.skopeo_name, f"oci-archive:{path}:v1")
    return path


def members(image: BuiltImage) -> Members:
    """The files of the image's layout."""
    files = [path for path in sorted(image.root.rglob("*")) if path.is_file()]
    return {str(path.relative_to(image.root)): path.read_bytes() for path in files}


def write(path: Path, found: Members, *more: tarfile.TarInfo, prefix: str = "", form: int = 1) -> Path:
    """A tar of ``found`` and, at its end, of headers without content."""
    with tarfile.open(path, "w", format=form) as tar:
        for name, data in found.items():
            info = tarfile.TarInfo(prefix + name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
        for info in more:
            tar.addfile(info)
    return path


def blob_name(image: BuiltImage, index: int) -> str:
    return "blobs/" + image.layers[index].digest.replace(":", "/")


def index(raw: bytes, path: Path) -> list[Member]:
    """Ours, of ``raw`` as the file ``path``."""
    path.write_bytes(raw)
    fd = os.open(path, os.O_RDONLY)
    try:
        return list(tarindex.members(fd))
    finally:
        os.close(fd)


def as_tarfile(path: Path) -> list[Member]:
    """What the standard library makes of it."""
    with tarfile.open(path, "r:") as tar:
        return [
            Member(
                (info.name + "/" * info.isdir()).encode("utf-8", "surrogateescape"),
                info.isreg(),
                info.offset_data,
                info.size,
                info.linkname.encode("utf-8", "surrogateescape") if info.issym() else None,
            )
            for info in tar
        ]
