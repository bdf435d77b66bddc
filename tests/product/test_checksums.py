"""Layers whose digests are right and whose own checksums are wrong: CRC-32 of gzip, XXH64 of zstd."""

from __future__ import annotations

import asyncio
import hashlib
from pathlib import Path

import pytest

from layertee import Engine, Options
from tests.support.fakes.fault_server import FaultServer
from tests.support.process import PLAIN, Cli
from tests.support.rig.images import BuiltImage, build_image
from tests.support.rig.layers import text_layer


@pytest.fixture(scope="module", params=["gzip-wrong-sum", "zstd-wrong-sum"])
def image(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> BuiltImage:
    layers = [text_layer({"etc/motd": "hello\n" * 1000})]
    return build_image(tmp_path_factory.mktemp("sums"), layers, compression=[request.param])


def test_a_blob_that_is_kept_for_others_is_refused(cli: Cli, image: BuiltImage) -> None:
    with FaultServer(image) as server:
        ran = cli.run("pull", PLAIN, "--layers", "as-is", server.reference, code=3)
    assert "does not match its checksum" in ran.err
    assert not cli.blob(image.layers[0].digest).exists()


def test_of_a_tar_the_diff_id_is_the_judge(cli: Cli, image: BuiltImage) -> None:
    with FaultServer(image) as server:
        cli.pull("--layers", "uncompressed", server.reference)
    cli.verified()
    assert cli.blob(image.layers[0].diff_id).stat().st_size == image.layers[0].uncompressed_size


def test_so_it_is_of_a_stream(core: str, image: BuiltImage, tmp_path: Path) -> None:
    async def main(reference: str) -> str:
        async with Engine(tmp_path, options=Options(tls_verify=False, core=core)) as engine:
            plan = await engine.plan(reference)
            async with engine.open_layer(plan.layers[0]) as stream:
                out = hashlib.sha256()
                async for piece in stream:
                    out.update(piece)
                return f"sha256:{out.hexdigest()}"

    with FaultServer(image) as server:
        assert asyncio.run(main(server.reference)) == image.layers[0].diff_id
