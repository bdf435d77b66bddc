"""The store under violence: pulls killed at any moment, and many processes with one wish."""

from __future__ import annotations

import random
import subprocess
import time
from pathlib import Path

import pytest

from tests.support.compress import digest_of
from tests.support.fakes.fault_server import FaultServer
from tests.support.process import PLAIN, Cli, wait_until
from tests.support.rig.images import BuiltImage, build_image, push
from tests.support.rig.layers import incompressible_layer, text_layer
from tests.support.rig.registry import RegistryServer
from tests.support.trees import skopeo_reads

pytestmark = pytest.mark.slow

KILLS = 50
PROCESSES = 32
FAST = 40_000_000  # bytes per second and connection: a quarter of a second for the whole image


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> BuiltImage:
    """About 20 MB on the wire in six layers; one inflates to much more."""
    layers = [incompressible_layer(size << 20, seed=size) for size in (9, 5, 3, 2)]
    layers += [text_layer({"text": "a line of text\n" * 400_000}), text_layer({"small": "s"})]
    return build_image(tmp_path_factory.mktemp("killed"), layers, compression="gzip-fast")


def assert_blobs_are_true(cli: Cli) -> int:
    """Every file under a blob's name is that blob; how many there are."""
    blobs = list((cli.store / "blobs" / "sha256").glob("*"))
    for path in blobs:
        assert digest_of(path.read_bytes()) == f"sha256:{path.name}"
    return len(blobs)


@pytest.mark.parametrize("form", ["as-is", "uncompressed"])
def test_a_pull_killed_at_any_moment_leaves_a_store_that_verifies(
    image: BuiltImage, tmp_path: Path, form: str
) -> None:
    chance = random.Random(form)
    kills = n_stores = under_way = 0
    cli = Cli(tmp_path / "0")
    with FaultServer(image, rate_per_connection=FAST) as server:
        while kills < KILLS // 2:
            server.forget()
            process = cli.start("pull", PLAIN, "--layers", form, server.reference)
            if chance.random() < 0.9:
                wait_until(lambda: server.requests("manifest"), "the pull does not begin")
                time.sleep(chance.uniform(0.0, 0.3))
            else:
                time.sleep(chance.uniform(0.0, 0.25))  # while it starts
            process.kill()
            completed = cli.finish(process, None).code == 0
            kills += not completed
            if not (cli.store / "layertee" / "ingest").exists():
                continue  # there was no store yet; the next pull makes what is missing of it
            under_way += bool(cli.leftovers() or any((cli.store / "layertee" / "parts").glob("*")))
            checked = cli.run("verify", "--json")
            assert (checked.json["ok"], checked.err) == (True, "")
            kept = assert_blobs_are_true(cli)
            if completed or kept > 4:  # little is left to interrupt
                if chance.random() < 0.25:
                    finish(cli, image, server, form, tmp_path / f"dir{n_stores}")
                n_stores += 1
                cli = Cli(tmp_path / str(n_stores))
        finish(cli, image, server, form, tmp_path / "dir")
    assert under_way > KILLS // 8 and n_stores > 1  # of both: killed early, and late


def finish(cli: Cli, image: BuiltImage, server: FaultServer, form: str, target: Path) -> None:
    """A last pull, undisturbed: it fetches what is missing, and everything is right."""
    ran = cli.pull("--layers", form, server.reference)
    for told, layer in zip(ran.layers, image.layers, strict=True):
        assert told["action"] in ("have", "fetch")
        assert cli.blob(layer.digest if form == "as-is" else layer.diff_id).exists()
    kept = assert_blobs_are_true(cli)
    assert kept == len(image.layers) + (2 if form == "as-is" else 3)
    skopeo_reads(f"oci:{cli.store}:{server.reference}", target)
    report = cli.verified()
    assert (report["blobs"], report["missing"]) == (kept, [])
    cli.run("gc")
    assert cli.leftovers() == []


def test_many_processes_that_pull_one_image_into_one_store_download_it_once(
    registry: RegistryServer, tmp_path: Path
) -> None:
    layers = [incompressible_layer(5 << 20, seed=100 + at) for at in range(6)]
    image = build_image(tmp_path / "image", layers, compression="gzip-fast")
    name = push(image, "crowd/os:1", registry)
    registry.reset()
    cli = Cli(tmp_path / "home")
    # One stream each: where a layer gets help, the server counts what it sent ahead on the stream that is
    # cut, too.
    words = (PLAIN, "--ranges", "never", "--json", name)
    crowd: list[subprocess.Popen[str]] = [cli.start("pull", *words) for _ in range(PROCESSES)]
    results = [cli.finish(process) for process in crowd]
    assert registry.blob_bytes(digests=image.layer_digests) == image.blob_bytes
    assert sum(ran.json["bytes_fetched"] for ran in results) == image.blob_bytes
    for ran in results:
        assert ran.json["local_manifest_digest"] == image.digest
        assert set(ran.actions) <= {"have", "fetch"}
    assert assert_blobs_are_true(cli) == len(image.layers) + 2
    assert cli.leftovers() == []
    assert len(cli.run("ls", "--json").json["images"]) == 1
    cli.verified()
    skopeo_reads(f"oci:{cli.store}:{name}", tmp_path / "dir")
