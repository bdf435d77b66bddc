"""``layertee pull IMAGE IMAGE…``: each has its own result, and what they share comes once."""

from __future__ import annotations

import json
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.support.fakes.fault_server import FaultServer, on
from tests.support.fakes.faults import Gate, Held, OtherBody
from tests.support.jsonshapes import check
from tests.support.process import PLAIN, Cli
from tests.support.rig.images import BuiltImage, build_image, run_tool, upload
from tests.support.rig.layers import incompressible_layer, text_layer
from tests.support.rig.registry import RegistryServer

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> tuple[BuiltImage, BuiltImage]:
    """Two images with one layer in common, the largest."""
    root = tmp_path_factory.mktemp("pair")
    base = incompressible_layer(300_000, seed=5)
    one = build_image(root / "one", [base, text_layer({"etc/name": "one\n"})])
    return one, build_image(root / "two", [base, text_layer({"etc/name": "two\n"})])


@pytest.fixture
def names(pair: tuple[BuiltImage, BuiltImage], registry: RegistryServer) -> list[str]:
    found = [upload(image, f"several/{number}:v", registry) for number, image in enumerate(pair)]
    registry.reset()
    return found


def pulled(user: Cli, *words: object, code: int = 0) -> dict[str, Any]:
    value: dict[str, Any] = json.loads(user.pull(*words, code=code).out)
    check("pulls", value)
    return value


def test_what_they_share_is_fetched_once(
    user: Cli, names: list[str], pair: tuple[BuiltImage, BuiltImage], registry: RegistryServer
) -> None:
    planned = pulled(user, "--dry-run", *names)["images"]
    assert not user.store.exists()
    done = pulled(user, *names, names[0])["images"]  # one that is named twice is pulled once
    for images in (planned, done):
        assert [image["image"] for image in images] == names
        assert [image["manifest_digest"] for image in images] == [one.digest for one in pair]
        assert [[layer["action"] for layer in image["layers"]] for image in images] == [
            ["fetch", "fetch"],
            ["have", "fetch"],
        ]
    assert planned[1]["layers"][0]["reason"] == f"comes with {names[0]}"
    layers = {digest for image in pair for digest in image.layer_digests}
    sizes = {layer.digest: layer.size for image in pair for layer in image.layers}
    assert registry.blob_bytes(digests=layers) == sum(sizes.values())
    assert sum(image["bytes_fetched"] for image in planned) == sum(sizes.values())
    assert {image["name"] for image in user.run("ls", "--json").json["images"]} == set(names)
    user.verified()


def test_one_that_fails_does_not_undo_the_others(
    user: Cli, names: list[str], pair: tuple[BuiltImage, BuiltImage]
) -> None:
    bad = pair[1].layers[1].digest
    with FaultServer(pair[1], [on("blob", OtherBody(0), reference=bad)]) as server:
        absent = f"{names[0]}-absent"
        value = pulled(user, "--verify=digest", absent, names[0], server.reference, code=2)
    first, second, third = value["images"]
    assert (first["image"], first["error"]["code"]) == (absent, "NOT_FOUND") and "kept" not in first
    assert second["manifest_digest"] == pair[0].digest and "error" not in second
    assert (third["error"]["code"], third["kept"]["layers"]) == ("DIGEST_MISMATCH", 1)
    assert [image["name"] for image in user.run("ls", "--json").json["images"]] == [names[0]]


def test_a_command_that_is_ended_says_what_is_complete(
    user: Cli, names: list[str], pair: tuple[BuiltImage, BuiltImage]
) -> None:
    gate, layer = Gate(), pair[1].layers[1]
    with FaultServer(pair[1], [on("blob", Held(gate, layer.size // 2), reference=layer.digest)]) as server:
        process = user.start("pull", PLAIN, "--json", names[0], server.reference, f"{names[0]}-absent")
        gate.wait_arrived()
        process.send_signal(signal.SIGTERM)
        value = json.loads(user.finish(process, 143).out)
    check("pulls", value)
    assert value["error"]["signal"] == "SIGTERM"
    assert [image.get("manifest_digest") for image in value["images"]] == [pair[0].digest, None, None]
    assert value["images"][1]["image"] == server.reference and "error" not in value["images"][1]


def test_people_are_told_of_each(user: Cli, names: list[str], pair: tuple[BuiltImage, BuiltImage]) -> None:
    ran = user.run("pull", PLAIN, names[0], f"{names[0]}-absent", names[1], code=2)
    assert f"{names[0]}:" in ran.out and ran.out.rstrip().splitlines()[-1].startswith("2 images: fetched")
    assert f"layertee: {names[0]}-absent: " in ran.err and "[NOT_FOUND]" in ran.err
    assert "1 of 3 images failed; the others are complete" in ran.err
    quiet = user.run("pull", PLAIN, "-q", *names)
    assert quiet.out.split() == [image.digest for image in pair] and quiet.err == ""
    quiet = user.run("pull", PLAIN, "-q", f"{names[0]}-absent", names[1], names[0], names[1], code=2)
    assert quiet.out.split("\n") == ["-", *(pair[n].digest for n in (1, 0, 1)), ""], "line n is IMAGE n"


def test_an_early_failure_is_reported_as_any_other(user: Cli, tmp_path: Path) -> None:
    metrics, told = tmp_path / "e.prom", tmp_path / "events"
    metrics.write_text('layertee_last_run_exit_code{command="pull",image="a"} 0\n')
    for words in (
        ("pull", "a.example/x", "a.example/x", "b.example/y", "--digestfile", tmp_path / "d"),
        ("import", f"oci-archive:{tmp_path}/none.tar"),
    ):
        options = f"--metrics-file={metrics}", "--progress-fd=3"
        command = [*user.command(str(words[0]), *words[1:], *options)]
        shell = ["sh", "-c", 'exec 3>"$0"; exec "$@"', str(told), *command]
        done = subprocess.run(shell, env=user.environment(), capture_output=True, text=True, check=False)
        first, *_, last = map(json.loads, told.read_text().splitlines())
        assert done.returncode == last["exitCode"] > 0 and first["type"] == "Start", done.stderr
        assert last["error"]["code"] in done.stderr
        rows = [
            row for row in metrics.read_text().splitlines() if row.startswith("layertee_last_run_exit_code")
        ]
        assert {row.rpartition(" ")[2] for row in rows} == {f"{float(done.returncode)}"}
        assert len(rows) == len(set(rows)) > 0


def test_a_layout_has_them_by_their_names(
    user: Cli, names: list[str], pair: tuple[BuiltImage, BuiltImage], tmp_path: Path
) -> None:
    layout = tmp_path / "layout"
    pulled(user, "--to", f"oci:{layout}", *names)
    for name, image in zip(names, pair, strict=True):
        shown = json.loads(run_tool("skopeo", "inspect", f"oci:{layout}:{name}"))
        assert shown["Layers"] == [layer.digest for layer in image.layers]


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (("--to", "oci:x:ref"), "with several IMAGEs write oci:DIR"),
        (("--to", "oci-archive:x"), "with several IMAGEs write oci:DIR"),
        (("--digestfile", "x"), "is for one IMAGE"),
        (("--creds", "me:x"), "in several"),
        (("--to", "oci:x", "--store", "y"), "give one"),
    ],
)
def test_what_is_for_one_image_alone_is_refused(
    user: Cli, words: tuple[str, ...], text: str, tmp_path: Path
) -> None:
    told = user.run("pull", *words, "a.example/x", "b.example/y", code=1).err
    assert text in told and "[BAD_REF]" in told
