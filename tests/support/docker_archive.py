"""Archives as ``docker save`` and its relatives write them, of images that tests build."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Sequence
from pathlib import Path

from layertee.image.media import Compression
from tests.support.compress import digest_of, unpack
from tests.support.rig.blobs import blob_path
from tests.support.rig.images import BuiltImage

Files = dict[str, bytes | str]
"""Members by name, in order: content, or what a symlink leads to."""


def tars(image: BuiltImage) -> list[bytes]:
    """The layers, uncompressed."""
    blobs = [blob_path(image.root, layer.digest).read_bytes() for layer in image.layers]
    return [
        unpack(blob, Compression(layer.compression)) for blob, layer in zip(blobs, image.layers, strict=True)
    ]


def listed(*images: tuple[str, Sequence[str], Sequence[str]]) -> bytes:
    """``manifest.json`` of images by config, tags and layers."""
    return json.dumps(
        [
            {"Config": config, "RepoTags": list(tags), "Layers": list(layers)}
            for config, tags, layers in images
        ]
    ).encode()


def saved(image: BuiltImage, *tags: str) -> Files:
    """As docker before version 25: a directory for each layer."""
    found: Files = {f"{image.config_digest.removeprefix('sha256:')}.json": image.config}
    names: list[str] = []
    first: dict[str, str] = {}
    for at, tar in enumerate(tars(image)):
        name = f"{digest_of(b'%d' % at + tar).removeprefix('sha256:')}/layer.tar"
        known = first.setdefault(digest_of(tar), name)
        found[name.replace("layer.tar", "VERSION")] = b"1.0"
        found[name] = tar if known == name else f"../{known}"  # as docker has it for a content that is there
        names.append(name)
    found["manifest.json"] = listed((next(iter(found)), tags, names))
    return found


def combined(image: BuiltImage, *tags: str) -> Files:
    """As docker from version 25 on with containerd's store: an OCI layout, and ``manifest.json``."""
    files = sorted(path for path in image.root.rglob("*") if path.is_file())
    found: Files = {str(path.relative_to(image.root)): path.read_bytes() for path in files}
    names = [name_of(layer.digest) for layer in image.layers]
    found["manifest.json"] = listed((name_of(image.config_digest), tags, names))
    return found


def name_of(digest: str) -> str:
    return "blobs/" + digest.replace(":", "/")


def write(path: Path, found: Files, *more: tuple[str, bytes]) -> Path:
    """A tar of ``found``, and of ``more``, whose names may be there already."""
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as tar:
        for name, content in [*found.items(), *more]:
            info = tarfile.TarInfo(name)
            if isinstance(content, str):
                info.type, info.linkname = tarfile.SYMTYPE, content
                tar.addfile(info)
            else:
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
    return path
