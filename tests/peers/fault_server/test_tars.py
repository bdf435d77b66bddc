"""A neighbour that answers for tars in every way that there is: the image comes, and is right."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from layertee import Engine, Options, PullResult
from layertee.sync import run
from layertee.transfer.limits import FetchLimits
from tests.support.fakes.catalogue import CATALOGUE
from tests.support.fakes.fault_server import FaultServer, on
from tests.support.fakes.tars import REPOSITORY, has_tars
from tests.support.mirrors import At, write_conf
from tests.support.rig.images import BuiltImage, build_image
from tests.support.rig.layers import incompressible_layer
from tests.support.store import assert_store_is_sound

QUICK = FetchLimits(range_nbytes=1 << 20, attempts=2, backoff_s=0.01, stall_s=0.5)
PREFIX = "origin.test/os"
# What takes its time is tried where only the time counts; what never ends, in the torture suite.
TOO_LONG = ("stall", "slow", "endless")
NAMES = sorted(name for name in CATALOGUE if not any(word in name for word in TOO_LONG))
if not os.environ.get("LAYERTEE_ALL_FAULTS"):  # 20 seconds
    NAMES = NAMES[::4]


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> BuiltImage:
    layers = [incompressible_layer(120_000, seed=seed) for seed in (1, 2, 3)]
    return build_image(tmp_path_factory.mktemp("tars"), layers)


def pull(directory: Path, near: FaultServer, origin: FaultServer) -> PullResult:
    mirror, at_origin = (At(f"{server.host}/{REPOSITORY}") for server in (near, origin))
    options = Options(registries_conf=write_conf(directory, PREFIX, [mirror], at_origin), limits=QUICK)

    async def main() -> PullResult:
        async with Engine(directory / "store", options=options) as engine:
            return await engine.pull(await engine.plan(f"{PREFIX}:latest"))

    return run(main())


@pytest.mark.parametrize("name", NAMES)
def test_whatever_is_said_of_tars_the_image_comes_and_is_right(
    image: BuiltImage, tmp_path: Path, name: str
) -> None:
    """So for the size of the first layer's tar, for the second one's tar, and for the third one's blob."""
    first, second, third = image.layers
    with FaultServer(image) as near, FaultServer(image) as origin:
        near.script(
            [
                on("blob", CATALOGUE[name], reference=first.diff_id, method="HEAD"),
                on("blob", CATALOGUE[name], reference=second.diff_id, method="GET"),
                on("blob", CATALOGUE[name], reference=third.digest),
                *has_tars(near, image),
            ]
        )
        result = pull(tmp_path, near, origin)
    assert result.manifest_digest == image.digest
    assert_store_is_sound(tmp_path / "store")
