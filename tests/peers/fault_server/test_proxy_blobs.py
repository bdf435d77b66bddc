"""What an open image hands out is what was asked for, whatever repeats in the image.

Contents may repeat as the same blob or as others, blobs may repeat, and a store may have any of them already.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from layertee.engine import Engine, Options
from layertee.image.roles import FINAL_DIFF_ID
from layertee.imageproxy.images import Identity, ProxyOptions, ServedImage
from tests.support.compress import digest_of
from tests.support.fakes.fault_server import FaultServer
from tests.support.imageproxy_image import content_of, served
from tests.support.rig.images import BuiltImage, build_image
from tests.support.rig.layers import text_layer

CONTENTS = [text_layer({"etc/one": "one\n" * 300}), text_layer({"etc/two": "two\n" * 300})]
CODECS = ("none", "gzip", "gzip-fast", "zstd")
Blob = tuple[int, str]  # which content, in which form
BLOBS = list(itertools.product(range(len(CONTENTS)), CODECS))


@pytest.fixture(scope="module")
def server() -> Iterator[FaultServer]:
    with FaultServer() as running:
        yield running


def built(blobs: Sequence[Blob], root: Path, final: int | None = None) -> BuiltImage:
    """Of an ostree commit, whose last layer is ``final``, or of none."""

    def label(config: dict[str, Any]) -> None:
        diff_ids = config["rootfs"]["diff_ids"]
        if final is not None and final < len(diff_ids):
            config["config"] = {"Labels": {FINAL_DIFF_ID: diff_ids[final]}}

    layers = [CONTENTS[content] for content, _ in blobs]
    return build_image(root, layers, compression=[codec for _, codec in blobs], edit_config=label)


async def everything(image: ServedImage, order: Sequence[int]) -> None:
    """Ask for all that the image names, in all ways, and compare what comes with what was asked for."""
    manifest = await image.manifest()
    body = content_of(manifest)
    named = [(one["digest"], one["size"]) for one in json.loads(body)["layers"]]
    info = await image.layer_info()
    assert [(one["digest"], one["size"]) for one in info.value] == named
    assert json.loads(content_of(await image.layer_info_piped())) == info.value
    identities = json.loads(content_of(await image.layer_identity()))
    assert len(identities) == len(named)
    for at in order:
        digest, size = named[at]
        for answer in (
            await image.blob(digest, size),
            await image.blob(digest, -1),
            await image.raw_blob(digest),
        ):
            content = content_of(answer)
            assert digest_of(content) == digest
            assert len(content) == size == answer.value
    config = json.loads(body)["config"]
    assert digest_of(content_of(await image.blob(config["digest"], config["size"]))) == config["digest"]
    assert digest_of(content_of(await image.full_config())) == config["digest"]


async def serve(
    server: FaultServer,
    images: Sequence[BuiltImage],
    identity: Identity,
    order: Sequence[int],
    ahead: int,
    store: Path,
) -> None:
    async with Engine(store, options=Options(tls_verify=False)) as engine:
        for image in images:
            async with served(engine, server, image, ProxyOptions(identity, ahead=ahead)) as opened:
                await everything(opened, [at for at in order if at < len(image.layers)])


@settings(
    max_examples=40,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(
    blobs=st.lists(st.lists(st.sampled_from(BLOBS), min_size=1, max_size=4), min_size=1, max_size=2),
    identity=st.sampled_from(Identity),
    order=st.permutations(range(4)),
    ahead=st.sampled_from([0, 1 << 20]),
    final=st.none() | st.integers(0, 3),
)
@example(
    blobs=[[(0, "gzip"), (0, "gzip"), (1, "gzip")]],
    identity=Identity.AS_IS,
    order=[0, 1, 2, 3],
    ahead=0,
    final=2,
)
def test_what_is_handed_out_hashes_to_what_was_asked_for(
    server: FaultServer,
    blobs: list[list[Blob]],
    identity: Identity,
    order: list[int],
    ahead: int,
    final: int | None,
) -> None:
    """Of two images after each other, the second of which finds what the first has left in the store."""
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch)
        images = [built(one, root / f"image-{at}", final) for at, one in enumerate(blobs)]
        asyncio.run(serve(server, images, identity, order, ahead, root / "store"))


@pytest.mark.parametrize("identity", Identity)
@pytest.mark.parametrize(("first", "second"), list(itertools.permutations(CODECS, 2)))
def test_one_content_in_two_blobs_is_two_layers(
    server: FaultServer, tmp_path: Path, first: str, second: str, identity: Identity
) -> None:
    """With another layer between them, as two empty layers of different tools have it."""
    image = built([(0, first), (1, "gzip"), (0, second)], tmp_path / "image")
    n_blobs = len({layer.digest for layer in image.layers})
    assert n_blobs == 3
    asyncio.run(serve(server, [image], identity, [2, 1, 0], 1 << 20, tmp_path / "store"))
    kept = {path.name for path in (tmp_path / "store" / "blobs" / "sha256").iterdir()}
    if identity is Identity.AS_IS:
        assert kept >= {layer.digest.removeprefix("sha256:") for layer in image.layers}
    else:
        assert kept == {layer.diff_id.removeprefix("sha256:") for layer in image.layers}
    assert not os.listdir(tmp_path / "store" / "layertee" / "ingest")
