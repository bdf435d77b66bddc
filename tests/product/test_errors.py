"""How the command fails: exit codes, messages, what stays in the store, and what is never said."""

from __future__ import annotations

import base64
import os
import re
import signal
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.support.fakes.exchange import Exchange
from tests.support.fakes.fault_server import BearerAuth, FaultServer, on
from tests.support.fakes.faults import Gate, Held, OtherBody, Reset
from tests.support.fakes.refusals import Status
from tests.support.process import CORES, PLAIN, Cli, authfile, until
from tests.support.rig.images import BuiltImage, build_image, push, upload
from tests.support.rig.layers import empty_layer, incompressible_layer, text_layer, zeros_layer
from tests.support.rig.registry import RegistryServer, free_port

pytestmark = pytest.mark.slow

PASSWORD = "planted pass:word"
HONEST = text_layer({"etc/name": "honest\n" * 1000})


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> BuiltImage:
    """Three layers of 1 to 3 MiB on the wire."""
    layers = [incompressible_layer((at + 1) << 20, seed=at + 10) for at in range(3)]
    return build_image(tmp_path_factory.mktemp("errors"), layers, compression="gzip-fast")


def assert_nothing_is_wrong(cli: Cli) -> None:
    """No image, no leftover, and a store that verifies."""
    assert cli.leftovers() == []
    assert cli.run("ls", "--json").json["images"] == []
    cli.verified()


# -- 1 and 2: what the user asked for -----------------------------------------------------------


@pytest.mark.parametrize(
    "args",
    [
        ("pull", "Not A Reference"),
        ("pull", "host.example/os@sha256:123"),
        ("pull", "ftp://host.example/os:1"),
        ("pull", "--platform", "nonsense", "host.example/os:1"),
        ("pull", "--from", "docker://host.example/os", "host.example/os:1"),
        ("pull", "--to", "ftp:/tmp/x", "host.example/os:1"),
        ("pull", "--to", "oci:/nonexistent/x", "--store", "/nonexistent/y", "host.example/os:1"),
        ("pull", "--max-rate", "fast", "host.example/os:1"),
        ("pull", "--layers", "squashed", "host.example/os:1"),
        ("pull",),
        ("nonsense",),
    ],
    ids=" ".join,
)
def test_what_cannot_be_understood_exits_with_1(user: Cli, args: tuple[str, ...]) -> None:
    ran = user.run(*args, code=1)
    assert ran.out == "" and ran.err != ""
    assert not user.store.exists() or not list((user.store / "blobs" / "sha256").iterdir())


def test_what_is_not_there_exits_with_2(user: Cli, registry: RegistryServer, image: BuiltImage) -> None:
    name = push(image, "errors/there:1", registry)
    for missing in (name.replace(":1", ":none"), f"{registry.host}/errors/nowhere:1"):
        ran = user.pull(missing, code=2)
        assert missing in ran.err and ran.json["error"]["code"] == "NOT_FOUND"
    user.pull(name)
    assert name in user.run("rm", f"{name}x", code=2).err  # it says what there is
    assert str(user.home) in user.run("verify", "--store", user.home / "elsewhere", code=2).err
    assert user.run("pull", f"oci:{user.home}/elsewhere", code=2).out == ""


# -- 3: what cannot be trusted --------------------------------------------------------------------


def lie(config: dict[str, Any]) -> None:
    """Claim another DiffID for the first layer."""
    config["rootfs"]["diff_ids"][0] = "sha256:" + "1" * 64


@pytest.mark.parametrize("form", ["as-is", "uncompressed"])
def test_a_config_that_lies_about_a_diff_id_exits_with_3(
    cli: Cli, registry: RegistryServer, tmp_path: Path, form: str
) -> None:
    image = build_image(tmp_path / "lie", [HONEST, empty_layer()], edit_config=lie)
    ran = cli.pull("--layers", form, push(image, "errors/lie:1", registry), code=3)
    assert "DIFFID_MISMATCH" in ran.err and "layer 0" in ran.err
    assert image.layers[0].diff_id in ran.err and "1" * 64 in ran.err
    assert ran.json["error"]["class"] == "DiffIDMismatch" and ran.json["kept"]["layers"] <= 1
    assert not cli.blob(image.layers[0].digest).exists()
    assert_nothing_is_wrong(cli)


@pytest.mark.parametrize("at", [0, 900_000])
def test_other_bytes_under_a_layers_name_exit_with_3(cli: Cli, image: BuiltImage, at: int) -> None:
    layer = image.layers[2]
    with FaultServer(image, [on("blob", OtherBody(at), reference=layer.digest)]) as server:
        ran = cli.pull(server.reference, code=3)
        assert layer.digest in ran.err
        assert not cli.blob(layer.digest).exists()
        assert_nothing_is_wrong(cli)
        server.script([])
        kept = sum(cli.blob(other.digest).exists() for other in image.layers)
        assert cli.pull(server.reference).actions.count("have") == kept


def test_an_image_that_contradicts_what_was_computed_here_is_refused_before_any_layer_is_fetched(
    cli: Cli, registry: RegistryServer, tmp_path: Path
) -> None:
    first = build_image(tmp_path / "first", [HONEST, empty_layer()])
    second = build_image(tmp_path / "second", [HONEST, text_layer({"new": "x" * 9000})], edit_config=lie)
    cli.pull(push(first, "errors/e1:1", registry))
    before = cli.run("map", "--json").json
    name = upload(second, "errors/e2:1", registry)
    registry.reset()
    for args in ([name], ["--dry-run", name], ["--layers", "uncompressed", name]):
        ran = cli.pull(*args, code=3)
        assert first.layers[0].diff_id in ran.err and "1" * 64 in ran.err
    assert cli.run("inspect", PLAIN, name, code=3).out == ""
    assert registry.blob_bytes(digests=second.layer_digests) == 0
    assert cli.run("map", "--json").json == before
    assert len(cli.run("ls", "--json").json["images"]) == 1


# -- 4: the network ---------------------------------------------------------------------------------


def test_a_registry_that_is_down_exits_with_4(user: Cli) -> None:
    host = f"127.0.0.1:{free_port()}"
    ran = user.pull(f"{host}/os:1", code=4)
    assert host in ran.err and ran.json["error"]["code"] == "CONNECT"


def test_a_registry_that_only_fails_exits_with_4_after_retries(user: Cli, image: BuiltImage) -> None:
    with FaultServer(image, [on("manifest", Status(503))]) as server:
        ran = user.pull(server.reference, code=4)
        assert "503" in ran.err
        assert len(server.requests("manifest")) > 1


def test_a_connection_that_breaks_is_tried_again_and_the_layer_completed(cli: Cli, image: BuiltImage) -> None:
    layer = image.layers[2]
    with FaultServer(image, [on("blob", Reset(1_000_000), reference=layer.digest, last=1)]) as server:
        ran = cli.run("--verbose", "pull", "--store", cli.store, PLAIN, "--json", server.reference)
        assert layer.digest in ran.err  # what was retried, and why
        server.settle()
        assert server.bytes_sent("blob", layer.digest) < layer.size * 1.2
    cli.verified()


@dataclass(frozen=True, slots=True)
class MissingOnce:
    """404, as soon as ``others`` are there."""

    others: tuple[Path, ...]

    async def respond(self, exchange: Exchange) -> None:
        await until(lambda: all(path.exists() for path in self.others), "the others do not come")
        await Status(404).respond(exchange)


def test_after_a_failure_the_next_pull_fetches_only_what_is_missing(user: Cli, image: BuiltImage) -> None:
    bad, *others = image.layers
    late = MissingOnce(tuple(user.blob(layer.digest) for layer in others))
    with FaultServer(image, [on("blob", late, reference=bad.digest)]) as server:
        ran = user.pull(server.reference, code=2)
        assert bad.digest in ran.err
        assert [layer for layer in image.layers if not user.blob(layer.digest).exists()] == [bad]
        assert re.search(rf"\b2 of 3 layers are in {user.store}", ran.err)
        server.script([])
        assert user.pull(server.reference).json["bytes_fetched"] == bad.size
    user.verified()


# -- 5: the disk -----------------------------------------------------------------------------------


def on_a_small_disk(cli: Cli, nbytes: str, *args: str) -> tuple[int, str, list[str]]:
    """Pull with the store on a tmpfs of its own: exit code, stderr, and the files left in ``ingest``."""
    disk = cli.home / "disk"
    disk.mkdir()
    script = (
        f"mount -t tmpfs -o size={nbytes} none {disk} || exit 99\n"
        '"$@"; code=$?\n'
        f"ls {disk}/store/layertee/ingest\n"
        "exit $code"
    )
    root = [] if os.geteuid() == 0 else ["--map-root-user"]
    pull = cli.command("pull", "-q", PLAIN, "--store", disk / "store", *args)
    done = subprocess.run(
        ["unshare", "--mount", *root, "sh", "-c", script, "sh", *pull],
        capture_output=True,
        text=True,
        env=cli.environment(),
    )
    assert "Traceback" not in done.stderr
    return done.returncode, done.stderr, done.stdout.splitlines()


def test_a_full_disk_exits_with_5_and_says_how_much_is_needed(cli: Cli, image: BuiltImage) -> None:
    with FaultServer(image) as server:
        code, err, left = on_a_small_disk(cli, "6m", server.reference)
        assert (code, left) == (5, [])
        assert "STORE_FULL" in err and "needs 6.0 MiB" in err and "are free" in err
        assert server.requests("blob", image.layers[0].digest) == []


def test_a_layer_that_inflates_beyond_the_disk_exits_with_5_and_leaves_nothing(
    cli: Cli, registry: RegistryServer, tmp_path: Path
) -> None:
    image = build_image(tmp_path / "zeros", [zeros_layer(60 << 20)])
    name = push(image, "errors/zeros:1", registry)
    code, err, left = on_a_small_disk(cli, "50m", "--layers", "uncompressed", name)
    assert (code, left) == (5, [])
    assert "STORE_FULL" in err and "layer 0 needs more than" in err


# -- 130: the user changed their mind ------------------------------------------------------------


@pytest.mark.parametrize("core", CORES)
@pytest.mark.parametrize(
    ("sent", "code", "word"),
    [
        (signal.SIGINT, 130, "interrupted"),
        (signal.SIGTERM, 143, "ended by SIGTERM"),
        (signal.SIGHUP, 129, "ended by SIGHUP"),
    ],
    ids=["int", "term", "hup"],
)
def test_a_pull_that_is_ended_leaves_a_correct_store(
    tmp_path: Path, image: BuiltImage, core: str, sent: signal.Signals, code: int, word: str
) -> None:
    cli = Cli(tmp_path / "home", core)
    gate, layer = Gate(), image.layers[-1]
    held = Held(gate, layer.size // 2)
    with FaultServer(image, [on("blob", held, reference=layer.digest)]) as server:
        process = cli.start("pull", PLAIN, server.reference)
        gate.wait_arrived()
        process.send_signal(sent)
        ran = cli.finish(process, code)
        assert ran.out == ""
        assert f"layertee: {word}; what has arrived is kept\n" in ran.err
        assert cli.leftovers() == []
    cli.verified()
    with FaultServer(image) as server:
        cli.pull(server.reference)
        assert cli.leftovers() == []
    assert cli.verified()["blobs"] == 5


# -- secrets ---------------------------------------------------------------------------------------


@pytest.fixture(params=["basic", "bearer", "bearer-refused"])
def guarded(
    request: pytest.FixtureRequest, image: BuiltImage, tmp_path: Path
) -> Iterator[tuple[str, Path, int]]:
    """An image behind a password, the file with that (or a wrong one), and the exit code to expect."""
    auth = tmp_path / "auth.json"
    if request.param == "basic":
        with RegistryServer(htpasswd=("planted-user", PASSWORD)) as registry:
            name = push(image, "guarded/os:1", registry)
            yield name, authfile(auth, registry.host, "planted-user", PASSWORD), 0
        return
    with FaultServer(image, auth=BearerAuth("planted-user", PASSWORD)) as server:
        refused = request.param.endswith("refused")
        authfile(auth, server.host, "planted-user", PASSWORD + "!" * refused)
        yield server.reference, auth, int(refused)


def test_no_output_ever_has_a_password_or_a_token(user: Cli, guarded: tuple[str, Path, int]) -> None:
    name, auth, code = guarded
    secret = base64.b64encode(f"planted-user:{PASSWORD}".encode()).decode()
    for command in ("pull", "inspect"):
        ran = user.run("--debug", command, "--store", user.store, PLAIN, "--authfile", auth, name, code=code)
        assert "DEBUG" in ran.err
        for text in (ran.out, ran.err):
            assert "planted" not in text.replace("planted-user", "") and PASSWORD not in text
            assert secret not in text and secret.rstrip("=")[:-2] not in text


def test_an_unreadable_authfile_is_an_error_without_its_content(
    user: Cli, image: BuiltImage, tmp_path: Path
) -> None:
    auth = tmp_path / "auth.json"
    auth.write_text('{"auths": {"host.example": {"auth": "cGxhbnRlZA==", planted}}}')
    with FaultServer(image, auth=BearerAuth("planted-user", PASSWORD)) as server:
        ran = user.pull("--authfile", auth, server.reference, code=1)
    assert str(auth) in ran.err
    assert "planted" not in ran.err and "cGxhbnRlZA" not in ran.err
