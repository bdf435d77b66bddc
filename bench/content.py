"""The two images that the benchmarks pull: real OS content, 1.54 GB uncompressed, in two shapes.

*chunked*: 40 uneven layers, as bootc base images are published. *big*: 3 layers, one of 1 GB, as images with
one large package layer are. Built once into a cache directory and kept: building takes longer than measuring.
"""

from __future__ import annotations

import json
from pathlib import Path

from tests.rig.blobs import BuiltLayer
from tests.rig.images import BuiltImage, build_image, recompress
from tests.rig.layers import content_layers

TOTAL = 1_540_000_000
SHAPES = {"chunked": 40, "big": 3}
_BIG_WEIGHTS = (1.0, 0.36, 0.18)
_SEED = 4711


def bench_image(cache: Path, shape: str, compression: str, *, total: int = TOTAL) -> BuiltImage:
    """The image ``shape`` (of ``SHAPES``) with ``compression``, from ``cache`` if it is there.

    Other compressions are made from the gzip one, so that all have the same config and DiffIDs.
    """
    name = f"{shape}-{total}-{compression}"
    root = cache / name
    stamp = root / "built.json"
    if stamp.exists():
        return _load(root, json.loads(stamp.read_text()))
    if compression == "gzip":
        weights = _BIG_WEIGHTS if shape == "big" else None
        layers = content_layers(total, SHAPES[shape], _SEED, weights=weights)
        image = build_image(root, layers, ref=shape, labels={"containers.bootc": "1"})
    else:
        image = recompress(bench_image(cache, shape, "gzip", total=total), compression, root)
    facts = {
        "ref": image.ref,
        "manifest": image.digest,
        "media_type": image.media_type,
        "config": image.config_digest,
        "platform": image.platform,
        "layers": [
            {field: getattr(layer, field) for field in BuiltLayer.__slots__} for layer in image.layers
        ],
    }
    stamp.write_text(json.dumps(facts, indent=1))
    return image


def _load(root: Path, facts: dict[str, object]) -> BuiltImage:
    layers = facts["layers"]
    if not isinstance(layers, list):
        raise ValueError(f"{root}/built.json is not of this program; remove {root}")
    blobs = root / "blobs" / "sha256"
    return BuiltImage(
        root=root,
        ref=str(facts["ref"]),
        manifest=(blobs / str(facts["manifest"]).partition(":")[2]).read_bytes(),
        media_type=str(facts["media_type"]),
        config=(blobs / str(facts["config"]).partition(":")[2]).read_bytes(),
        layers=tuple(BuiltLayer(**layer) for layer in layers),
        platform=str(facts["platform"]),
    )
