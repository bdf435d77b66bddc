"""Images of this machine, open: every layer is given as the image names it, whatever the store has of it."""

from __future__ import annotations

import asyncio
import itertools
import json
from pathlib import Path

import pytest

from layertee.engine import Engine
from layertee.imageproxy.images import Identity, ProxyOptions, ServedImage
from tests.support.archives import members, write
from tests.support.compress import digest_of
from tests.support.imageproxy_image import content_of, served_by_name
from tests.support.rig.images import BuiltImage, build_image
from tests.support.rig.layers import text_layer

LAYERS = [text_layer({"etc/one": "one\n" * 400}), text_layer({"etc/two": "two\n" * 400})]
CODECS = ("none", "gzip", "zstd")


def built(root: Path, codec: str) -> BuiltImage:
    return build_image(root / codec, LAYERS, compression=codec)


def name_of(image: BuiltImage, transport: str) -> str:
    """``oci:``, or ``oci-archive:`` of a tar with the same layout."""
    if transport == "oci":
        return image.skopeo_name
    archive = write(image.root.with_suffix(".tar"), members(image))
    return f"oci-archive:{archive}:{image.ref}"


async def all_layers(opened: ServedImage) -> list[str]:
    """What comes when everything is asked for that the manifest names; it must be what its name says."""
    named = json.loads(content_of(await opened.manifest()))["layers"]
    for one in named:
        content = content_of(await opened.blob(one["digest"], one["size"]))
        assert digest_of(content) == one["digest"]
    return [one["digest"] for one in named]


@pytest.mark.parametrize("transport", ["oci", "oci-archive"])
@pytest.mark.parametrize("order", list(itertools.permutations(CODECS)), ids="-".join)
def test_each_form_of_an_image_is_given_after_the_store_has_others(
    tmp_path: Path, order: tuple[str, ...], transport: str
) -> None:
    async def main() -> None:
        async with Engine(tmp_path / "store") as engine:
            for codec in order:
                image = built(tmp_path, codec)
                async with served_by_name(engine, name_of(image, transport)) as opened:
                    assert await all_layers(opened) == [layer.digest for layer in image.layers]

    asyncio.run(main())


@pytest.mark.parametrize("order", list(itertools.permutations(CODECS)), ids="-".join)
def test_under_their_diffids_all_forms_of_an_image_are_the_same_layers(
    tmp_path: Path, order: tuple[str, ...]
) -> None:
    async def main() -> None:
        async with Engine(tmp_path / "store") as engine:
            for codec in order:
                image = built(tmp_path, codec)
                options = ProxyOptions(Identity.DIFF_ID)
                async with served_by_name(engine, image.skopeo_name, options) as opened:
                    assert await all_layers(opened) == [layer.diff_id for layer in image.layers]

    asyncio.run(main())


@pytest.mark.parametrize("codecs", list(itertools.permutations(CODECS, 2)), ids="-".join)
def test_one_content_in_two_blobs_of_a_layout_is_two_layers(tmp_path: Path, codecs: tuple[str, str]) -> None:
    async def main() -> None:
        image = build_image(tmp_path / "image", [LAYERS[0], LAYERS[0]], compression=codecs)
        async with (
            Engine(tmp_path / "store") as engine,
            served_by_name(engine, image.skopeo_name) as opened,
        ):
            assert await all_layers(opened) == [layer.digest for layer in image.layers]

    asyncio.run(main())
