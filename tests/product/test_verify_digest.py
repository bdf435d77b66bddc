"""``verify=digest``: the blob digest is checked, nothing is inflated, and nothing is believed of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from layertee import Action, Engine, Form, Options, PullResult, Store, Verify, sync
from layertee.errors import DiffIDMismatch, DigestMismatch
from layertee.pulling.plan import Plan
from tests.support.fakes.fault_server import FaultServer, on
from tests.support.fakes.faults import OtherBody
from tests.support.process import PLAIN, Cli
from tests.support.rig.images import BuiltImage, build_image
from tests.support.rig.layers import text_layer
from tests.support.store import assert_store_is_sound

SPECS = [text_layer({f"file-{n}": f"layer {n}\n" * 20_000}) for n in range(4)]


@pytest.fixture(scope="module")
def honest(tmp_path_factory: pytest.TempPathFactory) -> BuiltImage:
    return build_image(tmp_path_factory.mktemp("honest"), SPECS, compression=["gzip", "zstd"] * 2)


@pytest.fixture(scope="module")
def lying(tmp_path_factory: pytest.TempPathFactory) -> BuiltImage:
    """The same blobs under a config that swaps two DiffIDs."""

    def swap(config: dict[str, Any]) -> None:
        ids = config["rootfs"]["diff_ids"]
        ids[0], ids[1] = ids[1], ids[0]

    root = tmp_path_factory.mktemp("lying")
    return build_image(root, SPECS, compression=["gzip", "zstd"] * 2, edit_config=swap)


def options(core: str) -> Options:
    return Options(tls_verify=False, core=core)


def pull(server: FaultServer, root: Path, verify: Verify, core: str, form: Form = Form.AS_IS) -> PullResult:
    return sync.pull(server.reference, store=root, form=form, verify=verify, options=options(core))


def planned(server: FaultServer, root: Path, core: str) -> Plan:
    async def main() -> Plan:
        async with Engine(root, options=options(core)) as engine:
            return await engine.plan(server.reference)

    return sync.run(main())


def pairs(root: Path) -> set[tuple[str, str]]:
    with Store.open(root) as store:
        return {(pair.digest, pair.diff_id) for pair in store.catalog.pairs()}


def true_pairs(image: BuiltImage) -> set[tuple[str, str]]:
    return {(layer.digest, layer.diff_id) for layer in image.layers}


def sent(server: FaultServer, image: BuiltImage) -> int:
    server.settle()
    return sum(server.bytes_sent("blob", digest) for digest in image.layer_digests)


def test_the_blobs_are_kept_and_nothing_is_recorded(honest: BuiltImage, core: str, tmp_path: Path) -> None:
    with FaultServer(honest) as server:
        result = pull(server, tmp_path, Verify.DIGEST, core)
        assert sent(server, honest) == honest.blob_bytes == result.bytes_fetched
    assert result.local_manifest_digest == result.manifest_digest == honest.digest
    assert {layer.uncompressed_size for layer in result.layers} == {None}
    for digest in honest.layer_digests:
        kept = tmp_path / "blobs" / digest.replace(":", "/")
        assert kept.read_bytes() == honest.blob_path(digest).read_bytes()
    assert pairs(tmp_path) == set()


@pytest.mark.parametrize("again", list(Verify))
def test_what_was_not_inflated_is_looked_at_when_somebody_asks(
    honest: BuiltImage, core: str, again: Verify, tmp_path: Path
) -> None:
    with FaultServer(honest) as server:
        pull(server, tmp_path, Verify.DIGEST, core)
        server.forget()
        plan = planned(server, tmp_path, core)
        assert plan.bytes_to_fetch == plan.disk_bytes == 0
        assert {step.reason for step in plan.layers} == {"in the store, to be checked"}
        result = pull(server, tmp_path, again, core)
        assert sent(server, honest) == 0
    assert {layer.action for layer in result.layers} == {Action.HAVE}
    assert {layer.reason for layer in result.layers} == {"in the store, checked again now"}
    assert pairs(tmp_path) == (true_pairs(honest) if again is Verify.BOTH else set())
    assert_store_is_sound(tmp_path)


def test_verify_computes_what_the_pull_did_not(honest: BuiltImage, core: str, tmp_path: Path) -> None:
    async def verify() -> int:
        async with Engine(tmp_path, options=options(core)) as engine:
            return (await engine.verify()).adopted

    with FaultServer(honest) as server:
        pull(server, tmp_path, Verify.DIGEST, core)
    assert sync.run(verify()) == len(honest.layers)
    assert pairs(tmp_path) == true_pairs(honest)


def test_a_wrong_diff_id_passes_and_is_found_by_the_first_who_asks(
    lying: BuiltImage, core: str, tmp_path: Path
) -> None:
    with FaultServer(lying) as server:
        pull(server, tmp_path, Verify.DIGEST, core)
        assert pairs(tmp_path) == set()
        with pytest.raises(DiffIDMismatch):
            pull(server, tmp_path, Verify.BOTH, core)


def mislabelled(root: Path) -> BuiltImage:
    """The blobs of ``honest`` in a manifest that exchanges their types."""

    def exchange(manifest: dict[str, Any]) -> None:
        types = [layer["mediaType"] for layer in manifest["layers"]]
        for layer, media_type in zip(manifest["layers"], reversed(types), strict=True):
            layer["mediaType"] = media_type

    return build_image(root, SPECS, compression=["gzip", "zstd"] * 2, edit_manifest=exchange)


@pytest.mark.parametrize("false_first", [True, False])
def test_what_one_image_says_of_a_blob_is_no_fault_of_the_blob(
    honest: BuiltImage, lying: BuiltImage, false_first: bool, tmp_path: Path
) -> None:
    cli = Cli(tmp_path)
    with FaultServer(honest) as right, FaultServer(lying) as wrong:
        for server in (wrong, right) if false_first else (right, wrong):
            cli.pull("--verify", "digest", server.reference)
        for adopted in (4, 0):  # from files, and from what is recorded of them
            report = cli.run("verify", "--json", code=3).json
            assert (report["ok"], report["adopted"]) == (False, adopted)
            assert (report["bad"], report["missing"]) == ([], [])
            said = {(claim["image"], claim["digest"]) for claim in report["false_claims"]}
            assert said == {(wrong.reference, layer.digest) for layer in lying.layers[:2]}
        assert "layertee rm NAME" in cli.run("verify", code=3).out
        assert pairs(cli.store) == true_pairs(honest)
        assert cli.pull(right.reference).actions == ["have"] * 4
        assert "[DIFFID_MISMATCH]" in cli.pull(wrong.reference, code=3).err
        cli.run("rm", wrong.reference)
    cli.verified()


def test_a_wrong_media_type_is_no_fault_of_the_blob(honest: BuiltImage, tmp_path: Path) -> None:
    cli = Cli(tmp_path / "home")
    false = mislabelled(tmp_path / "mislabelled")
    with FaultServer(false) as wrong:
        cli.pull("--verify", "digest", wrong.reference)
        assert cli.verified()["adopted"] == 4  # each is inflated as what it is
        assert pairs(cli.store) == true_pairs(honest)


def test_wrong_bytes_do_not_pass(honest: BuiltImage, core: str, tmp_path: Path) -> None:
    layer = honest.layers[0]
    faults = [on("blob", OtherBody(at=layer.size // 2), reference=layer.digest)]
    with FaultServer(honest, faults) as server, pytest.raises(DigestMismatch) as caught:
        pull(server, tmp_path, Verify.DIGEST, core)
    assert caught.value.want == layer.digest
    assert not (tmp_path / "blobs" / layer.digest.replace(":", "/")).exists()


def test_a_damaged_blob_in_the_store_is_fetched_again(honest: BuiltImage, core: str, tmp_path: Path) -> None:
    layer = honest.layers[1]
    with FaultServer(honest) as server:
        pull(server, tmp_path, Verify.DIGEST, core)
        kept = tmp_path / "blobs" / layer.digest.replace(":", "/")
        data = bytearray(kept.read_bytes())
        data[len(data) // 2] ^= 1
        kept.chmod(0o600)
        kept.write_bytes(data)
        server.forget()
        result = pull(server, tmp_path, Verify.DIGEST, core)
        assert sent(server, honest) == layer.size
    assert [step.action for step in result.layers].count(Action.FETCH) == 1
    assert kept.read_bytes() == honest.blob_path(layer.digest).read_bytes()


def test_layers_kept_uncompressed_are_checked_against_both(
    lying: BuiltImage, honest: BuiltImage, core: str, tmp_path: Path
) -> None:
    with FaultServer(honest) as server:
        pull(server, tmp_path / "honest", Verify.DIGEST, core, Form.UNCOMPRESSED)
    assert pairs(tmp_path / "honest") == true_pairs(honest)
    with FaultServer(lying) as server, pytest.raises(DiffIDMismatch):
        pull(server, tmp_path / "lying", Verify.DIGEST, core, Form.UNCOMPRESSED)


def test_a_contradiction_of_a_computed_pair_is_refused_all_the_same(
    lying: BuiltImage, honest: BuiltImage, core: str, tmp_path: Path
) -> None:
    with FaultServer(honest) as server:
        pull(server, tmp_path, Verify.BOTH, core)
    with FaultServer(lying) as server:
        with pytest.raises(DiffIDMismatch, match="the image is refused"):
            pull(server, tmp_path, Verify.DIGEST, core)
        assert sent(server, lying) == 0


def test_on_the_command_line(honest: BuiltImage, core: str, tmp_path: Path) -> None:
    cli = Cli(tmp_path, core)
    with FaultServer(honest) as server:
        ran = cli.pull("--verify", "digest", server.reference)
        assert ran.json["bytes_fetched"] == honest.blob_bytes
        assert cli.run("map", "--json").json == {"pairs": []}
        again = cli.pull("--dry-run", server.reference)
        assert again.json["bytes_fetched"] == 0
        assert cli.verified()["adopted"] == len(honest.layers)
        cli.run("pull", "--verify", "nothing", PLAIN, server.reference, code=1)
