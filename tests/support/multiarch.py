"""An index as builders make them today: images for two platforms, and what was attested of one of them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from tests.support.compress import digest_of
from tests.support.rig.blobs import blob_path
from tests.support.rig.images import BuiltImage, BuiltIndex, build_image, build_index
from tests.support.rig.layers import LayerSpec, incompressible_layer, text_layer

PLATFORMS = ("linux/amd64", "linux/arm64")
IN_TOTO = "application/vnd.in-toto+json"
_EMPTY_CONFIG = "application/vnd.oci.empty.v1+json"
_EMPTY = b"{}"


def attestation(root: Path, name: str = "attestation") -> BuiltImage:
    """What BuildKit adds for an image: the config of one, and a layer that is none."""

    def say_so(manifest: dict[str, Any]) -> None:
        manifest["layers"][0]["mediaType"] = IN_TOTO

    layer = text_layer({"statement.json": f'{{"of": "{name}"}}'})
    return build_image(
        root / name, [layer], compression="none", platform="unknown/unknown", edit_manifest=say_so
    )


def artifact(root: Path) -> BuiltImage:
    """A manifest of something else, with no config to speak of."""

    def say_so(manifest: dict[str, Any]) -> None:
        manifest["artifactType"] = "application/vnd.example.notes"
        manifest["config"] = {"mediaType": _EMPTY_CONFIG, "digest": digest_of(_EMPTY), "size": len(_EMPTY)}
        manifest["layers"][0]["mediaType"] = "text/plain"

    layer = text_layer({"notes.txt": "what changed"})
    made = build_image(
        root / "artifact", [layer], compression="none", platform="unknown/unknown", edit_manifest=say_so
    )
    blob_path(made.root, digest_of(_EMPTY)).write_bytes(_EMPTY)
    return replace(made, config=_EMPTY)


def image_for(
    root: Path, platform: str, base: LayerSpec, *, compression: str = "gzip", text: str = "1"
) -> BuiltImage:
    """One of the images, whose first layer is ``base``."""
    own = text_layer({"etc/platform": f"{platform} {text}\n" * 100})
    return build_image(
        root / platform.replace("/", "-"), [base, own], platform=platform, compression=compression
    )


def multiarch(
    root: Path, *, base_nbytes: int = 1 << 16, compression: str = "gzip", text: str = "1"
) -> BuiltIndex:
    """Images for PLATFORMS, which share their first layer, an attestation of the first, and an artifact."""
    base = incompressible_layer(base_nbytes, seed=7)
    images = [image_for(root, platform, base, compression=compression, text=text) for platform in PLATFORMS]

    def annotate(index: dict[str, Any]) -> None:
        index["manifests"][2]["annotations"] = {
            "vnd.docker.reference.type": "attestation-manifest",
            "vnd.docker.reference.digest": images[0].digest,
        }

    return build_index(root / "index", [*images, attestation(root), artifact(root)], edit_index=annotate)
