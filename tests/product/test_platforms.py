"""Images that are only for another platform than the user's, or than the one that was asked for."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from layertee import Engine, Options
from layertee.errors import OtherPlatform
from layertee.image.platform import Platform
from tests.support.fakes.fault_server import FaultServer
from tests.support.imageproxy_pair import find_server
from tests.support.process import PLAIN, Cli
from tests.support.rig.images import BuiltImage, build_image, build_index
from tests.support.rig.layers import text_layer

HERE = Platform.host()
ELSEWHERE = "linux/s390x" if HERE.architecture != "s390x" else "linux/riscv64"


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> BuiltImage:
    """An image for another machine, in no index."""
    return build_image(tmp_path_factory.mktemp("other"), [text_layer({"a": "b"})], platform=ELSEWHERE)


def test_what_is_only_for_another_platform_is_taken_with_a_warning(user: Cli, other: BuiltImage) -> None:
    with FaultServer(other) as server:
        ran = user.pull(server.reference)
    (warning,) = ran.json["warnings"]
    assert warning == f"{server.reference} is for {ELSEWHERE}; this machine is {HERE}"
    assert warning in ran.err


def test_a_platform_that_was_named_and_is_not_there_is_an_error_that_names_both(
    user: Cli, other: BuiltImage
) -> None:
    with FaultServer(other) as server:
        for command in ("pull", "inspect"):
            ran = user.run(command, PLAIN, "--platform", "linux/arm64", server.reference, code=2)
            assert f"is for {ELSEWHERE}, and linux/arm64 was asked for" in ran.err
            assert "[OTHER_PLATFORM]" in ran.err
        assert server.bytes_sent("blob") < 1500, "configs only"
    ran = user.run("pull", "--platform", "linux/arm64", f"oci:{other.root}", code=2)
    assert "[OTHER_PLATFORM]" in ran.err
    user.run("pull", "--platform", ELSEWHERE, f"oci:{other.root}")


def test_of_an_index_what_the_index_says_counts(user: Cli, tmp_path: Path) -> None:
    def mistake(config: dict[str, Any]) -> None:
        config["architecture"] = ELSEWHERE.partition("/")[2]

    image = build_image(
        tmp_path / "image", [text_layer({"a": "b"})], platform="linux/arm64", edit_config=mistake
    )
    index = build_index(tmp_path / "index", [image])
    ran = user.run("pull", "--json", "--platform", "linux/arm64", f"oci:{index.root}")
    (warning,) = ran.json["warnings"]
    assert f"is for {ELSEWHERE}, as its config says; its index says that it is for linux/arm64" in warning


def test_a_config_that_does_not_say_contradicts_nothing(user: Cli, tmp_path: Path) -> None:
    def forget(config: dict[str, Any]) -> None:
        del config["architecture"], config["os"]

    image = build_image(tmp_path, [text_layer({"a": "b"})], edit_config=forget)
    ran = user.run("pull", "--json", "--platform", "linux/arm64", f"oci:{image.root}")
    assert ran.json["warnings"] == []


def test_a_caller_of_the_library_names_a_platform_or_does_not(other: BuiltImage, tmp_path: Path) -> None:
    name = f"oci:{other.root}"

    async def plan(options: Options) -> tuple[str, ...]:
        async with Engine(tmp_path / "store", options=options) as engine:
            return (await engine.plan(name)).warnings

    assert asyncio.run(plan(Options())) == (f"{name} is for {ELSEWHERE}; this machine is {HERE}",)
    with pytest.raises(OtherPlatform) as caught:
        asyncio.run(plan(Options(platform=HERE)))
    assert (caught.value.wanted, caught.value.found) == (str(HERE), ELSEWHERE)
    (told,) = asyncio.run(plan(Options(platform=HERE, any_platform=True)))
    assert told.endswith(f"{HERE} was asked for")
    assert asyncio.run(plan(Options(platform=Platform.parse(ELSEWHERE)))) == ()


@pytest.mark.parametrize("name", ["layertee", "skopeo"])
@pytest.mark.parametrize("more", [(), ("--override-arch", "arm64")])
def test_a_client_of_skopeo_gets_it_whatever_was_asked_for(
    name: str, more: tuple[str, ...], other: BuiltImage, tmp_path: Path
) -> None:
    with find_server(name, tmp_path).start(*more) as proxy:
        proxy.value("Initialize")
        number = proxy.open(f"oci:{other.root}:{other.ref}")
        digest, _ = proxy.manifest(number)
        assert digest == other.digest
        assert (f"is for {ELSEWHERE}" in proxy.stderr()) is (name == "layertee")
