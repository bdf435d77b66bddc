"""Archives that skopeo and podman write for docker, under the command as it is typed."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

from tests.contract.place_suite import diff_ids
from tests.support.docker_archive import combined, write
from tests.support.podman import spoilable
from tests.support.process import Cli
from tests.support.rig.images import BuiltImage, build_image, push, recompress, run_tool
from tests.support.rig.layers import Entry, LayerSpec, text_layer
from tests.support.rig.registry import RegistryServer
from tests.support.rig.storage import StorageRig
from tests.support.trees import skopeo_reads

pytestmark = pytest.mark.slow


@pytest.fixture
def cli(tmp_path: Path) -> Cli:
    return Cli(tmp_path / "home")


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> BuiltImage:
    """With layers of more than one buffer, and one content twice."""
    twice = text_layer({"etc/os-release": "NAME=os\n" * 4000})
    entries = LayerSpec(tuple(Entry(f"usr/f{n}", seed=n % 2, size=70_000) for n in range(60)))
    return build_image(tmp_path_factory.mktemp("image"), [twice, entries, twice])


@pytest.fixture(scope="module")
def by_skopeo(image: BuiltImage, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("skopeo") / "os.tar"
    run_tool("skopeo", "copy", "-q", image.skopeo_name, f"docker-archive:{path}:host.example/os:1")
    return path


@pytest.fixture(scope="module")
def by_podman(image: BuiltImage, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two images in one archive."""
    if os.geteuid() != 0:
        pytest.skip("podman unpacks layers as root")
    root = tmp_path_factory.mktemp("podman")
    store = StorageRig(root / "store", "vfs")
    store.take(image.skopeo_name, "localhost/os:1")
    other = build_image(root / "other", [text_layer({"etc/other": "one"})])
    store.take(other.skopeo_name, "docker.io/library/other:1")
    with spoilable(store) as at:
        save = ("save", "--quiet", "--format", "docker-archive", "-m", "-o", str(root / "os.tar"))
        at.run("podman", *save, "localhost/os:1", "docker.io/library/other:1")
    return root / "os.tar"


@pytest.mark.parametrize("form", ["as-is", "uncompressed"])
def test_an_image_that_skopeo_wrote_is_pulled(
    image: BuiltImage, by_skopeo: Path, cli: Cli, tmp_path: Path, form: str
) -> None:
    for which in ("", ":host.example/os:1", ":@0"):
        name = f"docker-archive:{by_skopeo}{which}"
        told = cli.run("inspect", "--json", name)
        assert [layer["diff_id"] for layer in told.layers] == diff_ids(image)
        assert told.json["config_digest"] == json_of("skopeo", "inspect", "--raw", name)["config"]["digest"]
    ran = cli.run("pull", "--json", "--layers", form, "--to", f"oci:{tmp_path}/out:one", name)
    assert ran.actions == ["reuse", "reuse", "have"]
    assert {layer["place"] for layer in ran.layers} == {f"docker-archive:{by_skopeo}"}
    assert skopeo_reads(f"oci:{tmp_path}/out:one", tmp_path / "read") == diff_ids(image)
    assert run_tool("skopeo", "inspect", "--config", "--raw", f"oci:{tmp_path}/out:one") == run_tool(
        "skopeo", "inspect", "--config", "--raw", name
    )


def json_of(*command: str) -> dict[str, dict[str, str]]:
    found: dict[str, dict[str, str]] = json.loads(run_tool(*command))
    return found


def test_an_image_that_podman_saved_is_pulled_by_its_tag(
    image: BuiltImage, by_podman: Path, cli: Cli, tmp_path: Path
) -> None:
    told = cli.run("inspect", f"docker-archive:{by_podman}", code=1)
    assert "has several images; name one of: localhost/os:1, docker.io/library/other:1" in told.err
    ran = cli.run("pull", "--json", f"docker-archive:{by_podman}:localhost/os:1")
    assert ran.actions == ["reuse", "reuse", "have"]
    cli.run("pull", f"docker-archive:{by_podman}:other:1")
    cli.verified()
    assert "docker.io/library/other:1" in cli.run("ls").out
    assert "it has: localhost/os:1" in cli.run("pull", f"docker-archive:{by_podman}:os:1", code=2).err


@pytest.mark.parametrize("written", ["skopeo", "podman", "docker"])
def test_layers_that_an_archive_has_are_not_fetched(
    image: BuiltImage,
    by_skopeo: Path,
    by_podman: Path,
    registry: RegistryServer,
    cli: Cli,
    tmp_path: Path,
    written: str,
) -> None:
    path = {"skopeo": by_skopeo, "podman": by_podman, "docker": tmp_path / "docker.tar"}[written]
    if written == "docker":
        write(path, combined(image, "os:1"))
    pushed = push(recompress(image, "zstd", tmp_path / "twin"), f"archives/docker-{written}:1", registry)
    registry.reset()
    ran = cli.pull("--from", f"docker-archive:{path}", pushed)
    assert ran.actions == ["reuse", "reuse", "have"]
    assert registry.blob_bytes(digests=[layer["digest"] for layer in ran.layers]) == 0
    cli.verified()


def test_one_that_is_compressed_comes_through_a_pipe(image: BuiltImage, by_skopeo: Path, cli: Cli) -> None:
    packing = subprocess.Popen(["gzip", "-c", by_skopeo], stdout=subprocess.PIPE)
    command = cli.command("pull", "--json", "docker-archive:/dev/stdin")
    ran = subprocess.run(
        command, stdin=packing.stdout, env=cli.environment(), capture_output=True, check=False
    )
    assert packing.stdout is not None
    packing.stdout.close()
    assert (packing.wait(), ran.returncode) == (0, 0), ran.stderr
    assert [layer["diff_id"] for layer in json.loads(ran.stdout)["layers"]] == diff_ids(image)
    assert "host.example/os:1" in cli.run("ls").out, "the store calls it what the archive calls it"


def test_a_damaged_archive_costs_a_download_and_no_more(
    image: BuiltImage, registry: RegistryServer, cli: Cli, tmp_path: Path
) -> None:
    found = combined(image, "os:1")
    name = "blobs/" + image.layers[1].digest.replace(":", "/")
    content = found[name]
    assert isinstance(content, bytes)
    found[name] = content[:1000] + b"other" + content[1005:]
    path = write(tmp_path / "os.tar", found)
    pushed = push(image, "archives/docker-damaged:1", registry)
    ran = cli.pull("--from", f"docker-archive:{path}", pushed)
    assert ran.actions == ["reuse", "fetch", "have"]
    cli.verified()
    alone = cli.run("pull", "--to", f"oci:{tmp_path}/out:one", f"docker-archive:{path}", code=3)
    assert image.layers[1].digest in alone.err
