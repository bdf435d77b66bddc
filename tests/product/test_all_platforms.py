"""``pull --all``: an index with all that it names, byte for byte, and what becomes of it in the store."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from layertee import Engine, Form, ImagePlan, Options, PullResult, SyncEngine, sync
from layertee.image.media import DOCKER_LIST
from tests.support.compress import digest_of
from tests.support.fakes.fault_server import FaultServer, Rule, on
from tests.support.fakes.faults import Reset
from tests.support.fakes.refusals import Status
from tests.support.jsonshapes import check
from tests.support.multiarch import IN_TOTO, PLATFORMS, artifact, attestation, image_for, multiarch
from tests.support.process import PLAIN, Cli, flip_a_byte
from tests.support.rig.images import BuiltIndex, build_image, build_index, run_tool, upload
from tests.support.rig.layers import incompressible_layer, text_layer
from tests.support.rig.registry import RegistryServer
from tests.support.rig.serve import ServeRig
from tests.support.store import assert_store_is_sound

pytestmark = pytest.mark.slow
NAME = "registry.example/os:1"


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> BuiltIndex:
    """Of two platforms that share a layer, an attestation and an artifact. Its layout calls it NAME."""
    made = multiarch(tmp_path_factory.mktemp("multiarch"))
    return build_index(made.root, made.images, ref=NAME)


@pytest.fixture(scope="module")
def server(index: BuiltIndex) -> Iterator[FaultServer]:
    """It has the index, and keeps a count."""
    with FaultServer(index) as server:
        yield server


@pytest.fixture(autouse=True)
def anew(server: FaultServer) -> None:
    server.settle()
    server.forget()


def blobs(index: BuiltIndex) -> dict[str, int]:
    """The blobs that the manifests of an index name and that are no config of an image, with their sizes."""
    found: dict[str, int] = {}
    for image in index.images:
        document = json.loads(image.manifest)
        of_artifact = [document["config"]] if image.platform == "unknown/unknown" else []
        found |= {blob["digest"]: blob["size"] for blob in (*of_artifact, *document["layers"])}
    return found


def everything(index: BuiltIndex) -> set[str]:
    """All digests of it."""
    return {index.digest, *blobs(index), *(image.digest for image in index.images)} | {
        image.config_digest for image in index.images
    }


def stored(user: Cli) -> set[str]:
    return {f"sha256:{path.name}" for path in (user.store / "blobs" / "sha256").iterdir()}


# --- what it is ------------------------------------------------------------------------------------------


def test_all_of_an_index_is_in_the_store_as_the_registry_has_it(
    user: Cli, index: BuiltIndex, server: FaultServer
) -> None:
    ran = user.pull("--all", server.reference)
    check("pull", json.loads(ran.out))
    told = ran.json
    assert told["manifest_digest"] == told["local_manifest_digest"] == index.digest
    assert told["config_digest"] is None
    assert {layer["digest"]: layer["size"] for layer in told["layers"]} == blobs(index)
    assert told["bytes_fetched"] == sum(blobs(index).values()), "what is shared comes once"
    assert [(one["digest"], one["size"]) for one in told["manifests"]] == [
        (image.digest, len(image.manifest)) for image in index.images
    ]
    assert [one["platform"] for one in told["manifests"]] == [*PLATFORMS, None, None]
    assert [one["config_digest"] for one in told["manifests"]] == [
        *(image.config_digest for image in index.images[:2]),
        None,
        None,
    ]
    diff_ids = {layer["digest"]: layer["diff_id"] for layer in told["layers"]}
    for image in index.images[:2]:
        assert [diff_ids[layer.digest] for layer in image.layers] == [layer.diff_id for layer in image.layers]
    assert [diff_ids[layer.digest] for layer in index.images[2].layers] == [None], "an attestation's"
    assert stored(user) == everything(index)
    assert user.blob(index.digest).read_bytes() == index.raw
    assert_store_is_sound(user.store)
    pairs = {pair["digest"] for pair in user.run("map", "--json").json["pairs"]}
    assert pairs == {layer.digest for image in index.images[:2] for layer in image.layers}
    assert user.verified()["blobs"] == len(everything(index))


def test_skopeo_reads_from_the_store_what_was_in_the_registry(
    user: Cli, index: BuiltIndex, registry: RegistryServer, tmp_path: Path
) -> None:
    name = upload(index, "multiarch/os:1", registry)
    assert user.run("pull", PLAIN, "--all", "-q", name).out == f"{index.digest}\n"
    kept = f"oci:{user.store}:{name}"
    assert run_tool("skopeo", "inspect", "--raw", kept).encode() == index.raw
    run_tool("skopeo", "copy", "--all", "--quiet", kept, f"dir:{tmp_path}/dir")
    assert (tmp_path / "dir" / "manifest.json").read_bytes() == index.raw
    for image in index.images:
        hex_digest = image.digest.removeprefix("sha256:")
        assert (tmp_path / "dir" / f"{hex_digest}.manifest.json").read_bytes() == image.manifest
    for digest in blobs(index):
        there = (tmp_path / "dir" / digest.removeprefix("sha256:")).read_bytes()
        assert there == user.blob(digest).read_bytes()


@pytest.mark.parametrize("kind", ["oci", "oci-archive"])
def test_it_goes_whole_into_a_layout_or_an_archive(
    user: Cli, index: BuiltIndex, server: FaultServer, tmp_path: Path, kind: str
) -> None:
    target = f"{kind}:{tmp_path}/out"
    user.run("pull", PLAIN, "--all", "-q", "--to", f"{target}:os", server.reference)
    assert run_tool("skopeo", "inspect", "--raw", f"{target}:os").encode() == index.raw
    run_tool("skopeo", "copy", "--all", "--quiet", f"{target}:os", f"dir:{tmp_path}/dir")
    other = Cli(tmp_path / "other")
    told = other.run("pull", "--all", "--json", f"{target}:os").json
    assert told["manifest_digest"] == index.digest and told["bytes_fetched"] == 0
    assert stored(other) == everything(index)


# --- what is not fetched ---------------------------------------------------------------------------------


def test_once_more_asks_the_registry_for_the_index_alone(
    user: Cli, index: BuiltIndex, server: FaultServer
) -> None:
    user.pull("--all", server.reference)
    server.settle()
    server.forget()
    told = user.pull("--all", server.reference).json
    server.settle()
    assert [request.reference for request in server.requests()] == ["latest"]
    assert told["manifest_digest"] == index.digest and told["bytes_fetched"] == 0
    assert {layer["action"] for layer in told["layers"]} == {"have"}


def test_what_one_platforms_pull_has_left_is_not_fetched_again(
    user: Cli, index: BuiltIndex, server: FaultServer
) -> None:
    one, other = index.images[:2]
    user.pull("--platform", one.platform, server.reference)
    server.settle()
    server.forget()
    told = user.pull("--all", server.reference).json
    assert told["bytes_fetched"] == sum(
        size for digest, size in blobs(index).items() if digest not in one.layer_digests
    )
    server.settle()
    asked = {request.reference for request in server.requests()}
    assert {other.digest, other.config_digest} < asked
    assert not asked & {one.digest, one.config_digest, *one.layer_digests}
    assert user.run("ls", "--json").json["images"][0]["platforms"] == list(PLATFORMS)


def test_blobs_of_other_places_are_read_and_other_compressions_do_not_do(
    user: Cli, index: BuiltIndex, server: FaultServer, tmp_path: Path
) -> None:
    """The index names the very blobs: what has the content in another form cannot take their place."""
    told = user.pull("--all", "--from", f"oci:{index.root}", server.reference).json
    assert told["bytes_fetched"] == 0 and {layer["action"] for layer in told["layers"]} == {"reuse"}
    assert stored(user) == everything(index)

    other = Cli(tmp_path / "other")
    base = incompressible_layer(1 << 16, seed=7)
    zstd = image_for(tmp_path / "zstd", PLATFORMS[0], base, compression="zstd")
    other.run("pull", "-q", zstd.skopeo_name)
    assert zstd.layers[0].diff_id == index.images[0].layers[0].diff_id
    told = other.pull("--all", server.reference).json
    assert told["bytes_fetched"] == sum(blobs(index).values())
    assert told["local_manifest_digest"] == index.digest


def _cut(digest: str) -> list[Rule]:
    """The blob's first MiBs, and no more."""
    first = on("blob", Reset(3 << 20), reference=digest, last=1)
    return [first, on("blob", Status(404), reference=digest, first=2)]


def test_a_pull_that_was_interrupted_goes_on(user: Cli, tmp_path: Path) -> None:
    index = multiarch(tmp_path / "large", base_nbytes=8 << 20)
    base = index.images[0].layers[0]
    with FaultServer(index, _cut(base.digest)) as server:
        kept = user.pull("--all", "--ranges", "never", server.reference, code=2).json
        assert kept["manifest_digest"] == index.digest
        assert kept["kept"]["layers_total"] == len(blobs(index))
        begun = user.partial()[base.digest]
        assert 0 < begun < base.size
        server.script([])
        told = user.pull("--all", server.reference).json
    assert told["bytes_fetched"] <= base.size - begun
    assert stored(user) == everything(index)


# --- what the store makes of it --------------------------------------------------------------------------


def test_the_store_lists_it_with_its_platforms(user: Cli, index: BuiltIndex, server: FaultServer) -> None:
    user.pull("--all", server.reference)
    ran = user.run("ls", "--json")
    check("ls", json.loads(ran.out))
    (row,) = ran.json["images"]
    layers = {layer.digest: layer.size for image in index.images for layer in image.layers}
    assert row["manifest_digest"] == row["local_manifest_digest"] == index.digest
    assert (row["platform"], row["platforms"]) == ("several", list(PLATFORMS))
    assert (row["bytes"], row["problem"]) == (sum(layers.values()), None)
    assert row["pulled_at"] is not None
    assert " 2 platforms  " in user.run("ls").out, "no wider than one of them"


def test_gc_keeps_all_of_it_until_it_is_removed(user: Cli, index: BuiltIndex, server: FaultServer) -> None:
    user.pull("--all", server.reference)
    assert user.run("gc", "--json").json["blobs_removed"] == 0
    assert stored(user) == everything(index)

    one = index.images[0]
    user.run("pull", "-q", f"oci:{one.root}:{NAME}", "--platform", one.platform)
    user.run("rm", server.reference)
    user.run("gc")
    assert stored(user) == {one.digest, one.config_digest, *one.layer_digests}, "it has another name"
    user.run("rm", NAME)
    user.run("gc")
    assert stored(user) == set()


def test_what_is_damaged_or_gone_is_found_and_repaired(
    user: Cli, index: BuiltIndex, server: FaultServer
) -> None:
    one, attested = index.images[1:3]
    some = {one.digest, one.config_digest, one.layers[1].digest, attested.layers[0].digest}
    user.pull("--all", server.reference)
    for digest in some:
        user.blob(digest).unlink()
    (row,) = user.run("ls", "--json").json["images"]
    assert any(digest in row["problem"] for digest in some)
    # What a manifest names is known once that is there again.
    missing = set(user.run("verify", "--json", code=3).json["missing"])
    assert missing == {one.digest, attested.layers[0].digest}
    told = user.run("verify", "--json", PLAIN, "--repair", server.reference).json["repaired"]
    assert told["manifest_digest"] == index.digest, "it is repaired as what it was"
    assert stored(user) == everything(index)

    for digest in some:
        flip_a_byte(user.blob(digest))
    report = user.run("verify", "--json", code=3).json
    assert {bad["digest"] for bad in report["bad"]} == some
    user.pull("--all", server.reference)
    assert user.verified()["blobs"] == len(everything(index))


def test_a_catalog_that_is_lost_is_made_again_from_the_images_in_it(
    user: Cli, index: BuiltIndex, server: FaultServer
) -> None:
    user.pull("--all", server.reference)
    (user.store / "layertee" / "catalog.sqlite").unlink()
    layers = {layer.digest for image in index.images[:2] for layer in image.layers}
    assert user.verified()["adopted"] == len(layers)
    assert {pair["digest"] for pair in user.run("map", "--json").json["pairs"]} == layers


def test_it_is_handed_on_by_serve(index: BuiltIndex, server: FaultServer, tmp_path: Path, user: Cli) -> None:
    with ServeRig(tmp_path / "serving") as serving:
        serving.cli.pull("--all", server.reference)
        repository = server.reference.rpartition(":")[0].partition("/")[2]
        name = f"{serving.host}/{repository}"
        run_tool(
            *("skopeo", "copy", "--all", "--quiet", "--src-tls-verify=false"),
            *(f"docker://{name}:latest", f"oci:{tmp_path}/copied:os"),
        )
        assert run_tool("skopeo", "inspect", "--raw", f"oci:{tmp_path}/copied:os").encode() == index.raw
        for image in index.images:
            raw = run_tool(
                *("skopeo", "inspect", "--raw", "--tls-verify=false"), f"docker://{name}@{image.digest}"
            )
            assert raw.encode() == image.manifest
        told = user.pull("--all", f"{name}:latest").json
    assert told["manifest_digest"] == index.digest
    assert stored(user) == everything(index)


def test_it_is_exported_whole_and_taken_in_whole_where_that_is_asked_for(
    index: BuiltIndex, server: FaultServer, tmp_path: Path, user: Cli
) -> None:
    user.pull("--all", server.reference)
    there = Cli(tmp_path / "there")
    there.run("pull", "-q", "--platform", PLATFORMS[0], f"oci:{index.root}:{NAME}")
    have = tmp_path / "have.json"
    have.write_text(there.run("export", "--have").out)
    target = f"oci-archive:{tmp_path}/update"
    ran = user.run("export", "--json", "--to", target, "--lacking", have, server.reference)
    check("export", json.loads(ran.out))
    (told,) = ran.json["images"]
    assert told["manifest_digest"] == index.digest
    assert all(layer["exported"] for layer in told["layers"]), "an index is whole, or another one"
    assert {layer["digest"] for layer in told["layers"]} == blobs(index).keys()

    (taken,) = there.run("import", "--json", "--all", target).json["images"]
    assert taken["manifest_digest"] == taken["local_manifest_digest"] == index.digest
    assert everything(index) <= stored(there)
    other = Cli(tmp_path / "other")
    (taken,) = other.run("import", "--json", target).json["images"]
    assert taken["manifest_digest"] in [image.digest for image in index.images[:2]], "this platform's image"


def test_what_another_image_of_an_export_needs_is_not_left_out(
    index: BuiltIndex, server: FaultServer, tmp_path: Path, user: Cli
) -> None:
    user.pull("--all", server.reference)
    user.run("pull", "-q", "--platform", PLATFORMS[0], f"oci:{index.root}:{NAME}")
    have = tmp_path / "have.json"
    have.write_text(user.run("export", "--have").out)
    target = f"oci:{tmp_path}/update"
    told = user.run("export", "--json", "--to", target, "--lacking", have, NAME, server.reference).json
    assert [layer["exported"] for layer in told["images"][0]["layers"]] == [False, False]
    assert told["bytes_left_out"] == 0
    other = Cli(tmp_path / "other")
    other.run("import", "-q", "--all", target, server.reference)
    assert stored(other) == everything(index)


def test_an_index_that_is_not_all_there_is_not_exported(
    index: BuiltIndex, server: FaultServer, tmp_path: Path, user: Cli
) -> None:
    user.pull("--all", server.reference)
    gone = index.images[1].layers[1].digest
    user.blob(gone).unlink()
    ran = user.run("export", "--to", f"oci:{tmp_path}/out", server.reference, code=2)
    assert gone in ran.err and "[NOT_FOUND]" in ran.err


# --- the command -----------------------------------------------------------------------------------------


def test_a_dry_run_says_what_would_come_and_changes_nothing(
    user: Cli, index: BuiltIndex, server: FaultServer
) -> None:
    ran = user.pull("--all", "--dry-run", server.reference)
    check("pull", json.loads(ran.out))
    told = ran.json
    assert told["manifest_digest"] == index.digest and told["local_manifest_digest"] is None
    assert told["bytes_fetched"] == sum(blobs(index).values())
    assert [one["digest"] for one in told["manifests"]] == [image.digest for image in index.images]
    assert not user.store.exists()
    said = user.run("pull", PLAIN, "--all", "--dry-run", server.reference).out
    assert f"all of its platforms: {', '.join(PLATFORMS)}, and 2 that are no image" in said


def test_what_is_no_index_is_pulled_as_ever(user: Cli, tmp_path: Path) -> None:
    image = build_image(tmp_path / "image", [text_layer({"a": "b"})])
    other = build_image(tmp_path / "other", [text_layer({"a": "b"})], compression="zstd")
    user.run("pull", "-q", other.skopeo_name)
    with FaultServer(image) as server:
        told = user.pull("--all", server.reference).json
    assert told["manifest_digest"] == image.digest and told["manifests"] == []
    assert told["config_digest"] == image.config_digest
    assert told["bytes_fetched"] == 0, "the content in another form will do"


def test_several_images_are_taken_whole_one_after_the_other(
    user: Cli, index: BuiltIndex, tmp_path: Path
) -> None:
    newer = multiarch(tmp_path / "newer", text="2")
    with FaultServer({"os/image:1": index, "os/image:2": newer}) as server:
        names = [f"{server.host}/os/image:{tag}" for tag in "12"]
        ran = user.pull("--all", *names)
        check("pulls", json.loads(ran.out))
    told = ran.json["images"]
    assert [one["manifest_digest"] for one in told] == [index.digest, newer.digest]
    assert told[1]["bytes_fetched"] == sum(
        size for digest, size in blobs(newer).items() if digest not in blobs(index)
    )


def test_the_digest_that_scripts_get_is_that_of_the_index(
    user: Cli, index: BuiltIndex, server: FaultServer, tmp_path: Path
) -> None:
    file = tmp_path / "digest"
    said = user.run("pull", PLAIN, "--all", "-q", "--digestfile", file, server.reference).out
    assert said == f"{index.digest}\n" and file.read_text() == index.digest


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--platform", "linux/arm64"), "--platform"),
        (("--layers", "uncompressed"), "as they are"),
        (("--to", "dir:out"), "--to dir:out"),
        (("--to", "containers-storage:localhost/os"), "--to containers-storage:localhost/os"),
    ],
)
def test_what_does_not_go_with_it_is_a_mistake_of_usage(
    user: Cli, server: FaultServer, words: tuple[str, ...], said: str
) -> None:
    for images in ([server.reference], [server.reference, f"{server.reference}-other"]):
        ran = user.run("pull", PLAIN, "--all", *words, *images, code=1)
        assert said in ran.err and "[BAD_REF]" in ran.err
    assert server.requests() == []


def test_what_is_configured_gives_way(user: Cli, index: BuiltIndex, server: FaultServer) -> None:
    told = user.pull(
        "--all", server.reference, LAYERTEE_LAYERS="uncompressed", LAYERTEE_PLATFORM="linux/s390x"
    ).json
    assert told["local_manifest_digest"] == index.digest


def test_an_index_without_an_image_for_this_platform_is_taken_all_the_same(user: Cli, tmp_path: Path) -> None:
    base = text_layer({"base": "base"})
    images = [image_for(tmp_path, platform, base) for platform in ("linux/s390x", "linux/riscv64")]
    index = build_index(tmp_path / "index", [*images, attestation(tmp_path)])
    with FaultServer(index) as server:
        told = user.pull("--all", server.reference).json
    assert told["manifest_digest"] == index.digest and told["warnings"] == []
    assert stored(user) == everything(index)


def test_a_list_of_dockers_kind_is_kept_as_it_is(user: Cli, tmp_path: Path) -> None:
    """Where one image of Docker's kind gets a manifest of OCI's, a list would get another digest."""

    def as_docker(document: dict[str, Any]) -> None:
        document["mediaType"] = DOCKER_LIST

    images = [
        build_image(tmp_path / name, [text_layer({"of": name})], platform=f"linux/{name}", media="docker")
        for name in ("amd64", "arm64")
    ]
    listed = build_index(tmp_path / "list", images, edit_index=as_docker)
    with FaultServer({f"rig/image:{image.platform[6:]}": image for image in images}) as server:
        server.put(listed.raw, DOCKER_LIST, "rig/image", "list", {})
        name = f"{server.host}/rig/image:list"
        told = user.pull("--all", name).json
        assert told["local_manifest_digest"] == listed.digest
        assert stored(user) == everything(listed)
        user.run("gc")
        again = Cli(tmp_path / "again").run("pull", "--all", "--json", f"oci:{user.store}:{name}").json
    assert again["manifest_digest"] == listed.digest and user.verified()["blobs"] == len(everything(listed))


def test_an_empty_blob_of_an_artifact_is_kept(user: Cli, tmp_path: Path) -> None:
    def empty(manifest: dict[str, Any]) -> None:
        manifest["layers"][0] = {"mediaType": IN_TOTO, "digest": digest_of(b""), "size": 0}

    image = image_for(tmp_path, PLATFORMS[0], text_layer({"base": "base"}))
    nothing = build_image(
        tmp_path / "nothing", [text_layer({})], platform="unknown/unknown", edit_manifest=empty
    )
    index = build_index(tmp_path / "index", [image, nothing])
    with FaultServer(index) as server:
        server.put_blob("rig/image", digest_of(b""), b"")
        told = user.pull("--all", server.reference).json
    assert told["local_manifest_digest"] == index.digest
    user.run("gc")
    assert user.blob(digest_of(b"")).read_bytes() == b""
    assert user.verified()["blobs"] == len(stored(user))


# --- what is refused -------------------------------------------------------------------------------------


def test_what_one_platform_lacks_is_an_error_for_all(user: Cli, tmp_path: Path) -> None:
    index = multiarch(tmp_path)
    (index.root / "blobs" / "sha256" / index.images[1].layers[1].digest.removeprefix("sha256:")).unlink()
    ran = user.run("pull", "--json", "--all", f"oci:{index.root}", code=2)
    assert ran.json["error"]["code"] == "NOT_FOUND"
    assert user.run("ls", "--json").json["images"] == []


def test_a_blob_that_lies_is_refused_and_names_no_image(user: Cli, tmp_path: Path) -> None:
    def lie(config: dict[str, Any]) -> None:
        config["rootfs"]["diff_ids"][1] = "sha256:" + "1" * 64

    base = text_layer({"base": "base"})
    good = image_for(tmp_path, PLATFORMS[0], base)
    bad = build_image(
        tmp_path / "bad", [base, text_layer({"x": "y"})], platform=PLATFORMS[1], edit_config=lie
    )
    index = build_index(tmp_path / "index", [good, bad])
    with FaultServer(index) as server:
        ran = user.pull("--all", server.reference, code=3)
    assert ran.json["error"]["code"] == "DIFFID_MISMATCH"
    assert user.run("ls", "--json").json["images"] == []


def test_an_index_that_contradicts_itself_costs_no_layer(user: Cli, tmp_path: Path) -> None:
    def twice(document: dict[str, Any]) -> None:
        entry = dict(document["manifests"][0])
        entry["size"] += 1
        document["manifests"].append(entry)

    images = [image_for(tmp_path, platform, text_layer({"a": "a"})) for platform in PLATFORMS]
    index = build_index(tmp_path / "index", [*images, artifact(tmp_path)], edit_index=twice)
    with FaultServer(index) as server:
        ran = user.pull("--all", server.reference, code=3)
        assert "is said to have" in ran.json["error"]["message"]
        server.settle()
        assert [request.reference for request in server.requests()] == ["latest"]


# --- the library -----------------------------------------------------------------------------------------


def test_callers_of_the_library_get_a_plan_of_all_and_its_members(
    index: BuiltIndex, server: FaultServer, tmp_path: Path
) -> None:
    options = Options(tls_verify=False)
    with SyncEngine(tmp_path / "store", options=options) as engine:
        plan = engine.plan(server.reference, all_platforms=True)
        assert isinstance(plan, ImagePlan)
        assert plan.digest == plan.index_digest == index.digest
        assert plan.config_digest is None
        assert [str(one.digest) for one in plan.members] == [image.digest for image in index.images]
        assert plan.bytes_to_fetch == sum(blobs(index).values())
        result = engine.pull(plan)
    assert result.manifest_digest == result.local_manifest_digest == index.digest
    assert result.members == plan.members
    again: PullResult = sync.pull(
        server.reference, store=tmp_path / "store", options=options, all_platforms=True
    )
    assert again.bytes_fetched == 0


def test_plain_tars_of_all_are_no_plan(server: FaultServer, tmp_path: Path) -> None:
    async def main() -> None:
        async with Engine(tmp_path / "store") as engine:
            await engine.plan(server.reference, form=Form.UNCOMPRESSED, all_platforms=True)

    with pytest.raises(ValueError, match="all_platforms"):
        sync.run(main())
