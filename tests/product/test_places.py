"""Podman's store and a registry: what an upgrade costs, counted by the registry, with real tools."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Collection, Iterator
from dataclasses import replace as replaced
from pathlib import Path
from typing import Any

import pytest

from layertee import Action, Basis, Engine, ImagePlan, Options, PullResult, sync
from layertee.image.document import DiffID
from layertee.image.holding import BlobContent, BlobReader, Found, Place
from layertee.image.placename import PlaceKind, PlaceName, parse_place
from layertee.image.reference_storage import parse_storage
from layertee.places import blobinfocache
from layertee.places import find as sources
from tests.contract.place_suite import diff_ids
from tests.support.compress import digest_of
from tests.support.podman import DRIVERS, place_of, spoilable
from tests.support.process import Cli
from tests.support.rig.blobcache import FILE, run_with_cache, write_cache, writer
from tests.support.rig.images import BuiltImage, build_image, push, recompress, run_tool
from tests.support.rig.layers import Entry, LayerSpec, incompressible_layer, text_layer
from tests.support.rig.ostree import OSTreeRig
from tests.support.rig.prebuild import NotBuilt
from tests.support.rig.registry import RegistryServer
from tests.support.rig.storage import StorageRig, replace
from tests.support.store import assert_store_is_sound
from tests.support.trees import skopeo_reads

pytestmark = [
    pytest.mark.slow,
    pytest.mark.needs_root("these tools unpack layers as root"),
]

NAME = "localhost/os:1"
SPECS = [
    text_layer({"etc/os-release": "NAME=os\n" * 4000}),
    incompressible_layer(600_000, seed=11),
    text_layer({"usr/share/doc": "words\n" * 60_000}),
    text_layer({"etc/motd": "welcome\n"}),
]


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> BuiltImage:
    return build_image(tmp_path_factory.mktemp("image"), SPECS)


@pytest.fixture(scope="module", params=DRIVERS)
def filled(
    request: pytest.FixtureRequest, image: BuiltImage, tmp_path_factory: pytest.TempPathFactory
) -> StorageRig:
    """Podman's store with the image as a local build leaves it: made of plain tars, as its manifest says."""
    plain = recompress(image, "none", tmp_path_factory.mktemp("plain"))
    store = StorageRig(tmp_path_factory.mktemp("filled") / "store", str(request.param))
    store.take(plain.skopeo_name, NAME)
    return store


@pytest.fixture
def cli(tmp_path: Path) -> Cli:
    return Cli(tmp_path / "home")


def layers_of(server: RegistryServer, name: str) -> list[dict[str, Any]]:
    """What the registry's manifest lists."""
    raw = run_tool("skopeo", "inspect", "--raw", *server.skopeo_options(""), f"docker://{name}")
    layers: list[dict[str, Any]] = json.loads(raw)["layers"]
    return layers


# --- what need not be fetched ---------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["as-is", "uncompressed"])
@pytest.mark.parametrize("compression", ["gzip", "zstd", "zstd:chunked"])
def test_an_image_that_was_pushed_from_here_costs_no_layer_bytes(
    filled: StorageRig, registry: RegistryServer, cli: Cli, compression: str, form: str, tmp_path: Path
) -> None:
    codec, _, chunked = compression.partition(":")
    name = f"{registry.host}/places/pushed:{filled.driver}-{codec}{chunked}-{form}"
    options = [*registry.skopeo_options("dest"), "--dest-compress-format", compression, "--dest-compress"]
    command = ["skopeo", "copy", "-q", "-f", "oci", *options, f"{filled.name}{NAME}", f"docker://{name}"]
    run_with_cache(tmp_path / "cache", *command)  # knows no blob in another form that it could take instead
    pushed = layers_of(registry, name)
    assert {layer["mediaType"].rpartition("+")[2] for layer in pushed} == {codec}
    if chunked:
        assert all("zstd-chunked" in str(layer["annotations"]) for layer in pushed)
    registry.reset()
    ran = cli.pull("--from", filled.name, "--layers", form, name)
    assert registry.blob_bytes(digests={layer["digest"] for layer in pushed}) == 0
    assert ran.actions == ["reuse"] * 4
    assert {(layer["place"], layer["basis"]) for layer in ran.layers} == {(filled.name, "attested")}
    cli.verified()
    skopeo_reads(f"oci:{cli.store}:{name}", tmp_path / "read")


def test_of_an_image_with_one_new_layer_exactly_that_is_fetched(
    filled: StorageRig, image: BuiltImage, registry: RegistryServer, cli: Cli, tmp_path: Path
) -> None:
    specs = [*SPECS[:2], text_layer({"usr/share/doc": "other words\n" * 50_000}), SPECS[3]]
    upgrade = build_image(tmp_path / "upgrade", specs, compression="zstd")
    name = push(upgrade, f"places/upgrade:{filled.driver}", registry)
    registry.reset()
    ran = cli.pull("--from", filled.name, name)
    assert ran.actions == ["reuse", "reuse", "fetch", "reuse"]
    new = upgrade.layers[2]
    assert registry.blob_bytes(digests=upgrade.layer_digests) == new.size == ran.json["bytes_fetched"]
    assert registry.blob_bytes(digests={new.digest}) == new.size
    cli.verified()


def test_two_stores_that_have_one_half_each_make_a_whole(
    image: BuiltImage, registry: RegistryServer, cli: Cli, tmp_path: Path
) -> None:
    halves = []
    for n, driver in enumerate(DRIVERS):
        half = build_image(tmp_path / f"half-{n}", SPECS[2 * n : 2 * n + 2])
        store = StorageRig(tmp_path / f"store-{n}", driver)
        store.take(half.skopeo_name, NAME)
        halves.append(store.name)
    twin = recompress(image, "zstd", tmp_path / "twin")
    name = push(twin, "places/halves:1", registry)
    registry.reset()
    ran = cli.pull("--from", halves[0], "--from", halves[1], name)
    assert registry.blob_bytes(digests=twin.layer_digests) == 0
    assert [layer["place"] for layer in ran.layers] == [halves[0], halves[0], halves[1], halves[1]]
    cli.verified()


class Removing(Place):
    """A store from which podman removes the image when the first bytes of ``diff_id`` were read."""

    def __init__(self, store: StorageRig, diff_id: DiffID) -> None:
        self._place = place_of(store)
        self._store = store
        self._diff_id = diff_id
        self.removed = False

    @property
    def name(self) -> str:
        return self._place.name

    def find(self, diff_ids: Collection[DiffID]) -> Found:
        answer = self._place.find(diff_ids)
        found = dict(answer)
        held = found.get(self._diff_id)
        if held is not None and held.content is not None:
            found[self._diff_id] = replaced(held, content=_WatchedContent(held.content, self._remove))
        return Found(found, answer.warnings)

    def _remove(self) -> None:
        if not self.removed:
            self.removed = True
            self._store.run("podman", "rmi", "--force", NAME)
            self._store.unmount()


class _WatchedContent:
    path = None

    def __init__(self, content: BlobContent, then: Any) -> None:
        self._content = content
        self._then = then

    def open(self) -> BlobReader:
        return _Watched(self._content.open(), self._then)


class _Watched:
    def __init__(self, reader: BlobReader, then: Any) -> None:
        self._reader = reader
        self._then = then

    def readinto(self, view: memoryview) -> int:
        n = self._reader.readinto(view[:4096])
        if n:
            self._then()
            n += self._reader.readinto(view[n:])
        return n

    def close(self) -> None:
        self._reader.close()


@pytest.mark.parametrize("driver", DRIVERS)
def test_layers_that_podman_removes_while_they_are_read_are_fetched(
    driver: str, registry: RegistryServer, tmp_path: Path
) -> None:
    many = LayerSpec(tuple(Entry(f"d/f{n}", seed=n + 1, size=9000) for n in range(100)))
    image = build_image(tmp_path / "image", [many, *SPECS[:1]])
    name = push(image, f"places/removed:{driver}", registry)
    filled = StorageRig(tmp_path / "filled", driver)
    filled.take(image.skopeo_name, NAME)
    with spoilable(filled) as store:
        place = Removing(store, DiffID(image.layers[0].diff_id))
        registry.reset()

        async def main() -> PullResult:
            options = Options(tls_verify=False, places=(place,))
            async with Engine(tmp_path / "ours", options=options) as engine:
                plan = await engine.plan(name)
                assert {step.action for step in plan.layers} == {Action.REUSE}
                return await engine.pull(plan)

        result = sync.run(main())
    assert place.removed
    assert result.layers[0].action is Action.FETCH
    assert "could not give it" in result.layers[0].reason
    assert registry.blob_bytes(digests={image.layers[0].digest}) == image.layers[0].size
    assert (result.manifest_digest, result.config_digest) == (image.digest, image.config_digest)
    assert result.local_manifest_digest is not None
    assert_store_is_sound(tmp_path / "ours")


# --- what an ostree repository keeps --------------------------------------------------------------------


def test_layers_that_an_ostree_repository_has_from_a_local_install_are_left_there(
    image: BuiltImage, registry: RegistryServer, cli: Cli, tmp_path: Path
) -> None:
    """Installed from podman's store, as plain tars whose names are DiffIDs: nothing needs to be believed."""
    plain = recompress(image, "none", tmp_path / "plain")
    repo = OSTreeRig.create(tmp_path / "repo")
    repo.take(plain, f"containers-storage:{NAME}", tmp_path)
    specs = [*SPECS[:3], text_layer({"etc/motd": "welcome back\n"})]
    upgrade = build_image(tmp_path / "upgrade", specs)
    name = push(upgrade, "places/installed:1", registry)
    registry.reset()
    where = f"ostree:{repo.root}"
    ran = cli.pull("--from", where, "--trust", "computed", name)
    assert ran.actions == ["have", "have", "have", "fetch"]
    assert [(layer["place"], layer["basis"]) for layer in ran.layers[:3]] == [(where, "computed")] * 3
    assert registry.blob_bytes(digests=upgrade.layer_digests) == upgrade.layers[3].size
    assert ran.json["local_manifest_digest"] is None
    assert cli.run("ls", "--json").json == {"images": []}
    cli.verified()


def test_what_an_image_of_an_ostree_repository_says_of_its_layers_counts_as_it_is_known(
    image: BuiltImage, registry: RegistryServer, cli: Cli, tmp_path: Path
) -> None:
    repo = OSTreeRig.create(tmp_path / "repo")
    repo.take(image, "docker://registry.example.com/os:1", tmp_path)
    twin = recompress(image, "zstd", tmp_path / "twin")
    name = push(twin, "places/upgrade:ostree", registry)
    where = f"ostree:{repo.root}"
    cache = write_cache(tmp_path / "cache" / FILE, [(layer.digest, layer.diff_id) for layer in image.layers])
    for options, basis in (
        ([], None),
        (["--trust", "claimed"], "claimed"),
        (["--from", f"blob-info-cache:{cache}"], "attested"),
        (["--from", f"blob-info-cache:{cache}", "--trust", "computed"], None),
    ):
        planned = cli.pull("--dry-run", "--from", where, *options, name)
        assert planned.actions == (["have"] * 4 if basis else ["fetch"] * 4)
        assert {layer["basis"] for layer in planned.layers} == {basis}


# --- images of podman's store ---------------------------------------------------------------------------


@pytest.mark.parametrize("driver", DRIVERS)
def test_an_image_goes_from_podmans_store_into_a_layout(
    driver: str, image: BuiltImage, cli: Cli, tmp_path: Path
) -> None:
    store = StorageRig(tmp_path / "store", driver)
    store.take(image.skopeo_name, NAME)
    target = tmp_path / "layout"
    ran = cli.run("pull", "--json", "--to", f"oci:{target}:one", f"{store.name}{NAME}")
    assert ran.actions == ["reuse"] * 4
    assert ran.json["manifest_digest"] == image.digest
    assert ran.json["config_digest"] == image.config_digest
    assert skopeo_reads(f"oci:{target}:one", tmp_path / "read") == [layer.diff_id for layer in image.layers]


def test_of_a_local_build_the_blobs_of_its_base_are_known_without_a_download(
    image: BuiltImage, registry: RegistryServer, cli: Cli, tmp_path: Path
) -> None:
    """The base was pulled by skopeo from the registry, then something was built upon it."""
    name = push(image, "places/base:1", registry)
    pulled = StorageRig(tmp_path / "store", "vfs")
    run_tool(
        *("skopeo", "copy", "-q", *registry.skopeo_options("src")),
        *(f"docker://{name}", f"{pulled.name}localhost/base:1"),
    )
    (tmp_path / "new").write_text("derived\n")
    with spoilable(pulled) as store:
        container = store.run("buildah", "from", "localhost/base:1")
        store.run("buildah", "copy", container, str(tmp_path / "new"), "/etc/new")
        store.run("buildah", "commit", "--quiet", container, "localhost/derived:1")
        store.run("buildah", "rm", container)
        registry.reset()
        look_at_the_derived_image(store, image, registry, cli)


def look_at_the_derived_image(
    store: StorageRig, image: BuiltImage, registry: RegistryServer, cli: Cli
) -> None:
    told = cli.run("inspect", "--json", f"{store.name}localhost/derived:1")
    assert registry.accesses() == []
    *base, derived = told.layers
    assert [layer["diff_id"] for layer in base] == diff_ids(image)
    for layer, built in zip(base, image.layers, strict=True):
        assert layer["blobs"] == [
            {
                "digest": built.digest,
                "size": built.size,
                "compression": "gzip",
                "basis": "attested",
                "source": store.name,
            }
        ]
    assert derived["blobs"] == []
    assert told.json["registry_manifest_digest"] is None, "it was never in a registry"
    text = cli.run("inspect", "--no-trunc", f"{store.name}localhost/derived:1").out
    for built in image.layers:
        assert built.digest in text and built.diff_id in text

    of_base = cli.run("inspect", "--json", f"{store.name}localhost/base:1").json
    assert of_base["registry_manifest_digest"] == image.digest


def test_every_name_of_a_layer_is_told_with_how_it_is_known(
    image: BuiltImage, registry: RegistryServer, cli: Cli, tmp_path: Path
) -> None:
    """Three forms: the store was filled from one and has a manifest of another; we pulled the third."""
    second = recompress(image, "gzip-fast", tmp_path / "second")
    third = recompress(image, "zstd", tmp_path / "third")
    store = StorageRig(tmp_path / "store", "vfs")
    store.take(image.skopeo_name, NAME)
    store.take(second.skopeo_name, "localhost/second:1")
    cli.pull(push(third, "places/third:1", registry))
    told = cli.run("inspect", "--json", f"{store.name}{NAME}")
    for n, layer in enumerate(told.layers):
        bases = {blob["digest"]: (blob["basis"], blob["compression"]) for blob in layer["blobs"]}
        assert bases == {
            third.layers[n].digest: ("computed", "zstd"),
            image.layers[n].digest: ("attested", "gzip"),
            second.layers[n].digest: ("claimed", "gzip"),
        }
        assert [blob["basis"] for blob in layer["blobs"]] == ["computed", "attested", "claimed"]
    assert told.json["registry_manifest_digest"] == told.json["manifest_digest"] == second.digest


@pytest.mark.builds("imagecopy")
def test_a_cache_that_a_real_tool_wrote_names_blobs_of_a_plain_store(
    filled: StorageRig, image: BuiltImage, cli: Cli, tmp_path: Path
) -> None:
    try:
        command = writer()
    except NotBuilt as exc:
        pytest.skip(f"no skopeo 1.14 here, and no other tool that writes SQLite: {exc}")
    run_with_cache(
        tmp_path / "cache", *command, "--dest-decompress", image.skopeo_name, f"dir:{tmp_path / 'copy'}"
    )
    name = f"{filled.name}{NAME}"
    without = cli.run("inspect", "--json", name)
    assert all(layer["blobs"] == [] for layer in without.layers), "made from plain tars: no blob was seen"
    cache = tmp_path / "cache" / FILE
    told = cli.run("inspect", "--json", "--from", f"blob-info-cache:{cache}", name)
    for layer, built in zip(told.layers, image.layers, strict=True):
        (blob,) = layer["blobs"]
        assert (blob["digest"], blob["basis"]) == (built.digest, "attested")
        assert blob["source"] == f"blob-info-cache:{cache}"


# --- auto -----------------------------------------------------------------------------------------------


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A machine that has nothing yet: none of this one's places."""
    root = tmp_path / "machine"
    root.mkdir()
    conf = root / "storage.conf"
    conf.write_text(f'[storage]\ndriver = "vfs"\ngraphroot = "{root}/containers"\nrunroot = "{root}/run"\n')
    monkeypatch.setenv("CONTAINERS_STORAGE_CONF", str(conf))
    monkeypatch.setattr(sources, "OSTREE_REPOS", (root / "ostree", root / "sysroot/ostree"))
    monkeypatch.setattr(sources, "COMPOSEFS_REPO", root / "composefs")
    monkeypatch.setattr(blobinfocache, "default_path", lambda: root / "cache" / FILE)
    yield root


AUTO = parse_place("auto")
STORAGE = parse_storage("containers-storage:")


def test_auto_is_what_is_there(machine: Path) -> None:
    warnings: list[str] = []
    assert sources.spelled_out([AUTO], warnings) == []
    (machine / "containers" / "vfs-layers").mkdir(parents=True)
    assert sources.spelled_out([AUTO], warnings) == [STORAGE]
    (machine / "sysroot/ostree/objects").mkdir(parents=True)
    (machine / "composefs/streams").mkdir(parents=True)
    cache = PlaceName(PlaceKind.BLOB_INFO_CACHE, write_cache(machine / "cache" / FILE, []))
    found = [
        STORAGE,
        PlaceName(PlaceKind.OSTREE, machine / "sysroot/ostree"),
        PlaceName(PlaceKind.COMPOSEFS, machine / "composefs"),
        cache,
    ]
    assert sources.spelled_out([AUTO], warnings) == found
    assert sources.spelled_out([AUTO, STORAGE, AUTO], warnings) == found, "each once"
    assert warnings == []


def test_podmans_store_brings_podmans_cache_and_another_store_does_not(machine: Path) -> None:
    cache = PlaceName(PlaceKind.BLOB_INFO_CACHE, write_cache(machine / "cache" / FILE, []))
    other = parse_place("containers-storage:[vfs@/x+/y]")
    assert sources.spelled_out([STORAGE], []) == [STORAGE, cache]
    assert sources.spelled_out([other], []) == [other]


def test_auto_goes_on_without_a_store_that_it_cannot_use(machine: Path) -> None:
    (machine / "storage.conf").write_text('[storage]\ndriver = "btrfs"\n')
    warnings: list[str] = []
    assert sources.spelled_out([AUTO], warnings) == []
    (warning,) = warnings
    assert "btrfs" in warning


def test_auto_takes_the_layers_that_the_machine_has(
    machine: Path, image: BuiltImage, registry: RegistryServer, tmp_path: Path
) -> None:
    store = StorageRig(machine / "containers", "vfs")
    store.take(recompress(image, "none", tmp_path / "plain").skopeo_name, NAME)
    name = push(image, "places/auto:1", registry)
    registry.reset()
    result = sync.pull(name, store=tmp_path / "ours", options=Options(tls_verify=False, places=(AUTO,)))
    assert registry.blob_bytes(digests=image.layer_digests) == 0
    assert {(layer.place, layer.basis) for layer in result.layers} == {
        ("containers-storage:", Basis.ATTESTED)
    }


# --- many layers ----------------------------------------------------------------------------------------


@pytest.mark.alone
def test_planning_with_ten_thousand_layers_in_podmans_store_takes_less_than_a_second(
    image: BuiltImage, tmp_path: Path
) -> None:
    store = StorageRig(tmp_path / "store", "vfs")
    store.take(image.skopeo_name, NAME)
    rows = store.rows()
    strangers = [
        {
            **rows[0],
            "id": f"{n:064x}",
            "parent": f"{n - 1:064x}",
            "diff-digest": digest_of(b"diff %d" % n),
            "compressed-diff-digest": digest_of(b"blob %d" % n),
        }
        for n in range(1, 10_001)
    ]
    replace(store.layers_json, json.dumps([*strangers, *rows]).encode())
    options = Options(places=(parse_place(store.name),))

    async def main() -> tuple[ImagePlan, float]:
        async with Engine(tmp_path / "ours", options=options) as engine:
            began = time.perf_counter()
            plan = await engine.plan(image.skopeo_name)
            return plan, time.perf_counter() - began

    plan, seconds = sync.run(main())
    # Podman's records were read for its layers, and again for what they say about the layout's blobs.
    assert [(step.action, step.holding and step.holding.basis) for step in plan.layers] == [
        (Action.REUSE, Basis.ATTESTED)
    ] * 4
    sys.stdout.write(f"planned among 10,004 layers in {seconds:.2f} s\n")
    assert seconds < 1.0
