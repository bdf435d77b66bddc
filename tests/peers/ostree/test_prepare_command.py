"""``layertee prepare`` as a command: a real registry, a real ostree repository, and what is printed."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from layertee.cli.arguments import parse
from layertee.cli.exits import exit_code
from layertee.cli.prepare import prepare
from layertee.errors import DiffIDMismatch, InvalidReference, RegistryBlocked
from tests.support.ccore import ROOT
from tests.support.mirrors import write_conf
from tests.support.process import Cli
from tests.support.rig.images import BuiltImage, build_image, push, recompress, run_tool
from tests.support.rig.layers import LayerSpec, incompressible_layer, text_layer
from tests.support.rig.ostree import OSTreeRig, layer_ref
from tests.support.rig.registry import RegistryServer
from tests.support.rig.storage import StorageRig

pytestmark = pytest.mark.slow
PROGRESS = json.loads((ROOT / "docs/reference/progress-1.schema.json").read_text(encoding="utf-8"))

LAYERS: list[LayerSpec] = [
    text_layer({"usr/lib/os-release": "ID=rig\n"}),
    incompressible_layer(200_000),
    text_layer({"usr/bin/tool": "#!/bin/sh\n" * 500}),
    text_layer({"usr/share/doc": "words " * 2000}),
    incompressible_layer(100_000, seed=7),
    text_layer({"etc/motd": "hello\n"}),
]


@pytest.fixture
def rig(tmp_path: Path) -> OSTreeRig:
    return OSTreeRig.create(tmp_path / "repo")


@pytest.fixture
def plain(tmp_path: Path) -> BuiltImage:
    return build_image(tmp_path / "plain", LAYERS, compression="none")


class Command:
    """The command with a store of its own; what it prints is read back."""

    def __init__(self, rig: OSTreeRig, store: Path, printed: pytest.CaptureFixture[str]) -> None:
        self._printed = printed
        self._words = ["prepare", "--tls-verify=false", "--platform", "linux/amd64"]
        self._words += ["--ostree-repo", str(rig.root)]
        self._store = store

    def __call__(self, image: str | None, *options: str, store: Path | None = None) -> str:
        words = [*self._words, "--store", str(store or self._store), *options, *([image] if image else [])]
        assert prepare(parse(words)) == 0
        return self._printed.readouterr().out

    def json(self, image: str | None, *options: str, store: Path | None = None) -> dict[str, Any]:
        document = json.loads(self(image, "--json", *options, store=store))
        assert isinstance(document, dict)
        return document


@pytest.fixture
def command(rig: OSTreeRig, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Command:
    return Command(rig, tmp_path / "store", capsys)


def steps(document: dict[str, Any]) -> list[str]:
    return [layer["step"] for layer in document["layers"]]


def test_a_blocked_registry_is_not_asked(
    rig: OSTreeRig, plain: BuiltImage, command: Command, registry: RegistryServer, tmp_path: Path
) -> None:
    image = push(plain, "prepare-blocked/os:1", registry)
    conf = write_conf(tmp_path, registry.host, [], blocked=True)
    before = rig.refs()
    registry.reset()
    with pytest.raises(RegistryBlocked, match=f"{conf}:1"):
        command(image, "--registries-conf", str(conf))
    assert registry.accesses() == [] and rig.refs() == before


@pytest.mark.parametrize("compression", ["gzip", "zstd"])
def test_build_install_push_prepare_leaves_nothing_to_download(
    rig: OSTreeRig,
    plain: BuiltImage,
    command: Command,
    registry: RegistryServer,
    tmp_path: Path,
    compression: str,
) -> None:
    """What the project is for, but for bootc itself: what it would ask for is asked of the repository."""
    commits = rig.take(plain, "containers-storage:localhost/os:1", tmp_path)
    pushed = recompress(plain, compression, tmp_path / compression)
    image = push(pushed, f"prepare-{compression}/os:1", registry)
    before = rig.refs()

    planned = command.json(image, "--dry-run")
    assert steps(planned) == ["link"] * 6
    assert rig.refs() == before
    registry.reset()
    done = command.json(image)
    assert registry.blob_bytes(digests=pushed.layer_digests) == 0
    assert steps(done) == ["link"] * 6
    assert {layer["basis"] for layer in done["layers"]} == {"computed"}
    assert (done["bytes_to_download"], done["manifest_digest"]) == (0, pushed.digest)
    for layer in pushed.layers:
        assert rig.commit_of(layer_ref(layer.digest)) == commits[layer.diff_id]

    again = command.json(image)
    assert steps(again) == ["present"] * 6
    assert command.json(image, "--undo")["removed"] == [layer.digest for layer in pushed.layers]
    assert rig.refs() == before


def test_what_is_prepared_is_told_to_programs(
    rig: OSTreeRig, plain: BuiltImage, command: Command, tmp_path: Path
) -> None:
    rig.take(plain, "containers-storage:localhost/os:1", tmp_path)
    image = f"oci:{recompress(plain, 'gzip', tmp_path / 'gzip').root}"
    for made, there in ((6, 0), (0, 6)):
        reader, writer = os.pipe()
        command(image, "--progress-fd", str(writer))
        os.close(writer)
        with os.fdopen(reader) as file:
            events = [json.loads(line) for line in file]
        for event in events:
            Draft202012Validator(PROGRESS).validate(event)
        assert [event["type"] for event in events] == ["Start", *["ProgressSteps"] * 3, "Result"]
        assert [event["task"] for event in events[1:4]] == ["resolving", "preparing", "preparing"]
        assert (events[3]["steps"], events[3]["stepsCached"], events[3]["stepsTotal"]) == (made, there, 6)


def test_a_short_name_is_prepared_under_the_name_that_it_stands_for(
    rig: OSTreeRig,
    plain: BuiltImage,
    command: Command,
    registry: RegistryServer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rig.take(plain, "containers-storage:localhost/os:1", tmp_path)
    pushed = recompress(plain, "gzip", tmp_path / "gzip")
    image = push(pushed, "prepare-short/os:1", registry)
    conf = tmp_path / "registries.conf"
    conf.write_text(f'[aliases]\nos = "{image.removesuffix(":1")}"\n')
    monkeypatch.setenv("CONTAINERS_REGISTRIES_CONF", str(conf))
    before = rig.refs()
    done = command.json("os:1")
    assert (done["image"], steps(done)) == (image, ["link"] * 6)
    assert command.json(image, "--undo")["removed"] == [layer.digest for layer in pushed.layers]
    assert rig.refs() == before


def test_one_layer_changed_is_one_layer_to_download(
    rig: OSTreeRig, plain: BuiltImage, command: Command, registry: RegistryServer, tmp_path: Path
) -> None:
    rig.take(plain, "containers-storage:localhost/os:1", tmp_path)
    changed = build_image(
        tmp_path / "changed", [*LAYERS[:4], incompressible_layer(100_000, seed=8), LAYERS[5]]
    )
    image = push(changed, "prepare-changed/os:1", registry)
    text = command(image)
    assert [line.split()[4] for line in text.splitlines()[1:7]] == ["link"] * 4 + ["download", "link"]
    assert "made 5 refs; 0 layers had theirs" in text
    assert "the upgrade will download 97." in text
    assert "removed 5 refs" in command(image, "--undo")


def test_what_was_pulled_before_is_what_is_known(
    rig: OSTreeRig, plain: BuiltImage, command: Command, registry: RegistryServer, tmp_path: Path
) -> None:
    """bootc has the registry's gzip layers, this machine pulled them once, and now they are zstd."""
    packed = recompress(plain, "gzip", tmp_path / "gzip")
    rig.take(packed, "docker://registry.example.com/os:1", tmp_path)
    again = push(recompress(plain, "zstd", tmp_path / "zstd"), "prepare-known/os:zstd", registry)
    assert steps(command.json(again)) == ["download"] * 6
    user = Cli(tmp_path / "home")
    user.pull(push(packed, "prepare-known/os:gzip", registry))
    assert steps(command.json(again, "--trust", "computed", store=user.store)) == ["link"] * 6


def test_what_podman_unpacked_is_attested(
    rig: OSTreeRig, plain: BuiltImage, command: Command, registry: RegistryServer, tmp_path: Path
) -> None:
    packed = recompress(plain, "gzip", tmp_path / "gzip")
    rig.take(packed, None, tmp_path)
    storage = StorageRig(tmp_path / "storage", "vfs")
    source = push(packed, "prepare-podman/os:gzip", registry)
    run_tool(
        *("skopeo", "copy", "--quiet", "--src-tls-verify=false"),
        *(f"docker://{source}", f"{storage.name}localhost/os:1"),
    )
    again = push(recompress(plain, "zstd", tmp_path / "zstd"), "prepare-podman/os:zstd", registry)
    found = command.json(again, "--from", storage.name, "--dry-run")
    assert steps(found) == ["link"] * 6
    assert {layer["basis"] for layer in found["layers"]} == {"attested"}
    assert steps(command.json(again, "--from", storage.name, "--trust", "computed")) == ["download"] * 6


def test_a_lying_image_is_refused_once_its_blob_is_known(
    rig: OSTreeRig, plain: BuiltImage, command: Command, registry: RegistryServer, tmp_path: Path
) -> None:
    rig.take(plain, "containers-storage:localhost/os:1", tmp_path)
    other = build_image(tmp_path / "other", [text_layer({"usr/bin/tool": "version 2"})])
    user = Cli(tmp_path / "home")
    user.pull(push(other, "prepare-lie/os:honest", registry))

    def lie(config: dict[str, Any]) -> None:
        config["rootfs"]["diff_ids"][0] = plain.layers[0].diff_id

    lying = build_image(tmp_path / "lying", [text_layer({"usr/bin/tool": "version 2"})], edit_config=lie)
    image = push(lying, "prepare-lie/os:lying", registry)
    before = rig.refs()
    with pytest.raises(DiffIDMismatch) as caught:
        command(image, store=user.store)
    assert exit_code(caught.value) == 3
    assert rig.refs() == before


def test_no_image_is_asked_for(command: Command) -> None:
    with pytest.raises(InvalidReference, match="--undo"):
        command(None)
    assert command(None, "--undo") == "removed 0 refs\n"
