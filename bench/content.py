"""The images that the benchmark pulls: real OS content, 1.54 GB uncompressed, in two shapes.

*chunked*: 40 uneven layers, as bootc base images are published. *big*: 3 layers, one of 1 GB, as images with
one large package layer are. *chunked-updated* is *chunked* with 4 of its layers changed. Built once into a
cache directory and kept: building takes longer than measuring.
"""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Sequence
from pathlib import Path

from bench.packages import Content, PackageError, debian_content
from tests.support.rig import goprograms
from tests.support.rig.blobs import BuiltLayer, blob_path
from tests.support.rig.images import BuiltImage, build_image, recompress, run_tool
from tests.support.rig.layers import Entry, LayerSpec, content_layers, directory_layer

TOTAL = 1_540_000_000
COMPRESSIONS = ("gzip", "zstd", "zstd:chunked")
# As podman and skopeo write layers: pgzip's blocks of 1 MiB, and Go's zstd encoder.
PODMANS = ("gzip:podman", "zstd:podman")
CONTENTS = ("packages", "usr")
UPDATED = "chunked-updated"

# Uncompressed MB, in proportion: what splitting a Debian system of 1.54 GB by packages gave.
LAYER_SIZES = {
    "chunked": (
        *(204.8, 410.8, 117.4, 64.3, 47.6, 45.8, 44.3, 37.6, 37.0, 36.5, 31.5, 27.1, 26.4, 23.3, 21.2, 20.1),
        *(17.7, 15.4, 14.7, 11.9, 11.7, 11.2, 10.2, 9.6, 8.9, 15.9, 16.0, 16.0, 16.0, 15.9, 15.6, 15.7),
        *(15.5, 15.7, 16.0, 15.7, 15.7, 15.6, 15.6, 15.6),
    ),
    "big": (204.8, 1001.0, 336.3),
}
SHAPES = tuple(LAYER_SIZES)
_CHANGED_LAYERS = (3, 13, 23, 33)  # of 40: 64, 23, 10 and 16 MB
_SEED = 4711
_File = tuple[Path, Path, int]  # where its name begins, itself, its size


class Images:
    """The images by shape and compression, built when they are first asked for, below ``cache``.

    Their bytes are files of Debian packages, or with ``source="usr"`` (of ``CONTENTS``) of this machine's
    ``/usr``. ``content`` describes them; ``notes`` say what could not be had as intended.
    """

    def __init__(self, cache: Path, total: int, source: str = "packages") -> None:
        self._cache = cache
        self._total = total
        self._files: Content | None = None
        self.notes: list[str] = []
        self.content = "files of this machine's /usr"
        if source == "usr":
            return
        try:
            self._files = debian_content(cache)
            self.content = self._files.description
        except PackageError as error:
            self.notes.append(f"content is {self.content}, since packages can't be had: {error}")

    def layers(self, shape: str) -> list[LayerSpec]:
        """What ``shape`` is made of. Raises ValueError if there is not that much content."""
        if shape == UPDATED:
            return _update(self.layers("chunked"))
        sizes = LAYER_SIZES[shape]
        if self._files is None:
            return content_layers(self._total, len(sizes), _SEED, weights=sizes)
        return cut_layers(self._files, [int(size / sum(sizes) * self._total) for size in sizes])

    def get(self, shape: str, compression: str, converter: Sequence[str] | None = None) -> BuiltImage:
        """The image, from the cache if it is there.

        Other compressions are made from the gzip one, so that all have the same config and DiffIDs;
        zstd:chunked by ``converter``: a command that takes an OCI layout and another to write. Those of
        ``PODMANS`` are made by containers/image itself, from a layout of plain tars.
        """
        identity = hashlib.sha256(f"{self.content} {self._total}".encode()).hexdigest()[:12]
        root = self._cache / "images" / f"{shape}-{compression.replace(':', '-')}-{identity}"
        stamp = root / "built.json"
        if stamp.exists():
            return _load(root, json.loads(stamp.read_text()))
        print(f"building {shape}, {compression}", flush=True)
        if compression in ("gzip", "none"):
            labels = {"containers.bootc": "1"}
            image = build_image(root, self.layers(shape), ref=shape, labels=labels, compression=compression)
        elif compression in PODMANS:
            form = compression.partition(":")[0]
            writer = [str(goprograms.imagecopy()), "--dest-compress-format", form]
            image = _convert(self.get(shape, "none"), root, writer, form)
        elif compression == "zstd:chunked":
            if converter is None:
                raise ValueError("nothing here writes zstd:chunked")
            image = _convert(self.get(shape, "gzip"), root, converter, "zstd")
        else:
            image = recompress(self.get(shape, "gzip"), compression, root)
        stamp.write_text(json.dumps(_facts(image), indent=1))
        return image


def bench_image(cache: Path, shape: str, compression: str, *, total: int = TOTAL) -> BuiltImage:
    """The image ``shape`` (of ``SHAPES``) with ``compression``, from ``cache`` if it is there."""
    return Images(cache, total).get(shape, compression)


def cut_layers(content: Content, sizes: Sequence[int]) -> list[LayerSpec]:
    """Layers of about ``sizes`` bytes of file data, in the order of ``content``; what is left over is unused.

    Raises ValueError if there is not that much content.
    """
    layers = []
    left = [(root, path, path.stat().st_size) for root, path in content.files]
    for index, size in enumerate(sizes):
        chosen, left = _fill(left, size)
        entries: dict[str, Entry] = {}
        for root, group in itertools.groupby(chosen, key=lambda file: file[0]):
            for entry in directory_layer(root, [path for _, path in group]).entries:
                entries.setdefault(entry.name, entry)
        layers.append(LayerSpec(tuple(entries.values()), f"packages {index} of {len(sizes)}"))
    return layers


def _fill(files: list[_File], size: int) -> tuple[list[tuple[Path, Path]], list[_File]]:
    """The first files that make ``size`` bytes, without those that are too large, and all others."""
    chosen: list[tuple[Path, Path]] = []
    left: list[_File] = []
    missing, slack = size, max(4096, size // 50)
    for position, file in enumerate(files):
        if missing <= slack:
            return chosen, left + files[position:]
        root, path, nbytes = file
        if nbytes <= missing + slack:
            chosen.append((root, path))
            missing -= nbytes
        else:
            left.append(file)
    if missing > slack:
        raise ValueError(f"not enough content: {missing} of {size} bytes of a layer missing")
    return chosen, left


def _update(layers: list[LayerSpec]) -> list[LayerSpec]:
    """One small file more in each of the changed layers: a new blob, and a new DiffID."""
    changed = Entry("usr/lib/release-number", data=b"2\n")
    return [
        LayerSpec((changed, *layer.entries), layer.created_by) if index in _CHANGED_LAYERS else layer
        for index, layer in enumerate(layers)
    ]


def _convert(image: BuiltImage, root: Path, converter: Sequence[str], form: str) -> BuiltImage:
    """What ``converter``, which compresses as ``form``, makes of ``image``.

    The sizes of the tars are known, since DiffIDs stay.
    """
    run_tool(*converter, image.skopeo_name, f"oci:{root}:{image.ref}", timeout_s=1200)
    descriptor = json.loads((root / "index.json").read_bytes())["manifests"][0]
    raw = blob_path(root, descriptor["digest"]).read_bytes()
    manifest = json.loads(raw)
    config = blob_path(root, manifest["config"]["digest"]).read_bytes()
    if config != image.config:
        raise ValueError(f"{converter[0]} changed the config, and with it the identity of the image")
    layers = tuple(
        BuiltLayer(new["digest"], new["size"], old.diff_id, old.uncompressed_size, form, new["mediaType"])
        for old, new in zip(image.layers, manifest["layers"], strict=True)
    )
    return BuiltImage(root, image.ref, raw, descriptor["mediaType"], config, layers, image.platform)


def _facts(image: BuiltImage) -> dict[str, object]:
    return {
        "ref": image.ref,
        "manifest": image.digest,
        "media_type": image.media_type,
        "config": image.config_digest,
        "platform": image.platform,
        "layers": [
            {field: getattr(layer, field) for field in BuiltLayer.__slots__} for layer in image.layers
        ],
    }


def _load(root: Path, facts: dict[str, object]) -> BuiltImage:
    layers = facts["layers"]
    if not isinstance(layers, list):
        raise ValueError(f"{root}/built.json is not of this program; remove {root}")
    return BuiltImage(
        root=root,
        ref=str(facts["ref"]),
        manifest=blob_path(root, str(facts["manifest"])).read_bytes(),
        media_type=str(facts["media_type"]),
        config=blob_path(root, str(facts["config"])).read_bytes(),
        layers=tuple(BuiltLayer(**layer) for layer in layers),
        platform=str(facts["platform"]),
    )
