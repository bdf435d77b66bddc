"""What the commands print and leave behind: dry runs, JSON, terminals, and the care of a store."""

from __future__ import annotations

import contextlib
import os
import pty
import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.compress import digest_of
from tests.support.process import CORES, PLAIN, Cli, flip_a_byte, snapshot
from tests.support.rig.images import BuiltImage, build_image, push
from tests.support.rig.layers import hard_link_layer, incompressible_layer, text_layer
from tests.support.rig.registry import RegistryServer
from tests.support.trees import skopeo_reads

pytestmark = pytest.mark.slow

PULL_KEYS = [
    *("image", "dry_run", "manifest_digest", "local_manifest_digest", "config_digest", "manifests"),
    *("layers", "endpoints", "bytes_fetched", "bytes_reused", "seconds", "policy", "seen", "warnings"),
]
LAYER_KEYS = [
    *("digest", "diff_id", "size", "uncompressed_size", "action", "reason", "bytes_fetched", "resumed_at"),
    *("as_tar", "place", "basis", "kept_elsewhere", "endpoints"),
]
SHARED = incompressible_layer(700_000, seed=5)


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> tuple[BuiltImage, BuiltImage]:
    """Two images that have their first layer in common."""
    room = tmp_path_factory.mktemp("commands")
    own = [text_layer({"etc/name": "one\n", "text": "line\n" * 90_000}), hard_link_layer()]
    one = build_image(room / "one", [SHARED, *own], labels={"version": "1"})
    two = build_image(room / "two", [SHARED, incompressible_layer(900_000, seed=6)])
    return one, two


@pytest.fixture(scope="module")
def names(images: tuple[BuiltImage, BuiltImage], registry: RegistryServer) -> tuple[str, str]:
    """Both, pushed."""
    return push(images[0], "cmd/one:1", registry), push(images[1], "cmd/two:1", registry)


# -- planning and telling ------------------------------------------------------------------


@pytest.mark.parametrize("form", ["as-is", "uncompressed"])
def test_a_dry_run_changes_nothing_and_plans_what_the_pull_then_fetches(
    cli: Cli,
    names: tuple[str, str],
    images: tuple[BuiltImage, BuiltImage],
    registry: RegistryServer,
    form: str,
) -> None:
    for at, name in enumerate(names):
        before = snapshot(cli.home)
        registry.reset()
        plan = cli.pull("--layers", form, "--dry-run", name)
        told = cli.run("pull", PLAIN, "--layers", form, "--dry-run", name)
        assert snapshot(cli.home) == before
        assert registry.blob_bytes(digests=images[at].layer_digests) == 0
        assert told.err == plan.err == ""
        assert "would fetch" in told.out and plan.layers[0]["digest"][:19] in told.out
        real = cli.pull("--layers", form, name)
        assert registry.blob_bytes(digests=images[at].layer_digests) == plan.json["bytes_fetched"]
        assert real.json["bytes_fetched"] == plan.json["bytes_fetched"] > 0
        assert real.actions == plan.actions
        assert (list(plan.json), list(plan.layers[0])) == (PULL_KEYS, LAYER_KEYS)
        assert (list(real.json), list(real.layers[0])) == (PULL_KEYS, LAYER_KEYS)
        assert plan.json["local_manifest_digest"] is None
        begin, plan_line, *layers, end = real.err.splitlines()
        assert begin == f"looking for {name}" and plan_line.startswith(f"{len(real.layers)} layers: ")
        assert all(re.fullmatch(r"\[\d/\d\] fetched sha256:\S+ .*", line) for line in layers)
        assert re.fullmatch(r"[\d.]+ \w+ in 0:\d\d(, .*/s)?", end)
    assert real.actions == ["have", "fetch"]


def test_looking_at_an_image_needs_no_store_and_makes_none(
    user: Cli, names: tuple[str, str], tmp_path: Path
) -> None:
    assert user.run("inspect", PLAIN, "--json", names[0]).actions == ["fetch"] * 3
    target = tmp_path / "layout"
    assert user.pull("--dry-run", "--to", f"oci:{target}", names[0]).actions == ["fetch"] * 3
    assert list(user.home.iterdir()) == [] and not target.exists()


def test_quiet_means_not_a_word_but_the_digest_at_the_registry(
    user: Cli, names: tuple[str, str], images: tuple[BuiltImage, BuiltImage]
) -> None:
    digest = f"{images[0].digest}\n"
    for more in (["--dry-run"], [], ["--layers=uncompressed"]):
        ran = user.run("pull", PLAIN, "--quiet", *more, names[0])
        assert (ran.out, ran.err) == (digest, "")
    ran = user.pull("-q", names[1])
    assert ran.err == "" and ran.json["image"] == names[1]


def test_the_digest_is_written_to_a_file_once_the_image_is_there(
    user: Cli, names: tuple[str, str], images: tuple[BuiltImage, BuiltImage], tmp_path: Path
) -> None:
    file = tmp_path / "digest"
    file.write_text("of before")
    pull = ("pull", PLAIN, "--digestfile", file)
    user.run(*pull, "--dry-run", names[0])
    user.run(*pull, f"{names[0]}-missing", code=2)
    assert file.read_text() == "of before"
    user.run(*pull, "--layers=uncompressed", names[0])
    assert file.read_text() == images[0].digest  # without a newline, as skopeo writes it
    assert file.stat().st_mode & 0o777 == 0o644 and set(os.listdir(tmp_path)) == {"home", "digest"}
    for more in ((), ("--sandbox=auto",)):
        ran = user.run("pull", PLAIN, "-q", *more, "--digestfile", "/dev/stdout", names[0])
        assert ran.out == f"{images[0].digest}{images[0].digest}\n", "standard output is a pipe"
    ran = user.run("pull", PLAIN, "--digestfile", tmp_path / "no/such", f"{names[0]}-missing", code=1)
    assert "[STORE_IO]" in ran.err and "there is no directory" in ran.err, "said before anything is asked"


def test_a_pull_for_people_ends_in_a_table_on_standard_output(
    user: Cli, names: tuple[str, str], images: tuple[BuiltImage, BuiltImage]
) -> None:
    ran = user.run("pull", PLAIN, names[0])
    head, *rows = ran.out.splitlines()
    assert head.split() == ["layer", "digest", "size", "action", "fetched", "why"]
    assert [row.split()[1] for row in rows[:3]] == [layer.digest[:19] for layer in images[0].layers]
    assert f"{names[0]} -> {images[0].digest}" in ran.out


@pytest.mark.parametrize(
    ("variables", "bars", "colours"),
    [({}, True, True), ({"NO_COLOR": "1"}, True, False), ({"TERM": "dumb"}, False, False)],
    ids=["xterm", "no-color", "dumb"],
)
def test_on_a_terminal_there_are_bars_and_their_colours_can_be_switched_off(
    user: Cli, names: tuple[str, str], variables: dict[str, str], bars: bool, colours: bool
) -> None:
    ours, theirs = pty.openpty()
    environment = user.environment(**{"TERM": "xterm-256color", "COLUMNS": "120", **variables})
    command = user.command("pull", PLAIN, "--max-rate", "3M", names[1])
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=theirs, env=environment) as process:
        os.close(theirs)
        shown = b""
        with contextlib.suppress(OSError):  # EIO: the other end is closed
            while piece := os.read(ours, 65536):
                shown += piece
        os.close(ours)
        out = process.stdout.read() if process.stdout else b""
    assert process.returncode == 0 and b"\x1b" not in out
    assert (b"\x1b[" in shown) is bars
    assert bool(re.search(rb"\x1b\[[0-9;]*(3[0-9]|38;5;[0-9]+)[0-9;]*m", shown)) is colours


@pytest.mark.parametrize("command", ["pull", "map", "ls", "inspect", "doctor"])
def test_a_reader_that_leaves_early_sees_no_traceback(
    user: Cli, names: tuple[str, str], command: str
) -> None:
    user.pull(names[0])
    args = {"pull": [PLAIN, names[0]], "inspect": [PLAIN, names[0]]}.get(command, [])
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(
        user.command(command, *args), stdout=writer, stderr=subprocess.PIPE, env=user.environment()
    )
    os.close(writer)
    progress = {f"looking for {names[0]}", "all 3 layers are here"} if command == "pull" else set()
    assert (done.returncode, set(done.stderr.decode().splitlines())) == (1, progress)


def test_the_version_is_told(user: Cli) -> None:
    assert re.fullmatch(r"layertee \d+\.\d+\.\d+\n", user.run("--version").out)


@pytest.mark.parametrize("core", CORES)
def test_doctor_says_which_core_runs(tmp_path: Path, core: str) -> None:
    cli = Cli(tmp_path / "home", core)
    told = cli.run("doctor").out
    assert f"core: {core}\n" in told
    assert "not there yet" in told and not cli.store.exists()


# -- the store and its images -----------------------------------------------------------------


def test_inspect_tells_digests_and_what_is_here(
    user: Cli, names: tuple[str, str], images: tuple[BuiltImage, BuiltImage]
) -> None:
    user.pull(names[1])
    told = user.run("inspect", PLAIN, "--json", names[0])
    assert told.actions == ["have", "fetch", "fetch"]
    assert told.json["manifest_digest"] == images[0].digest
    assert told.json["config_digest"] == images[0].config_digest
    assert (told.json["platform"], told.json["labels"]) == ("linux/amd64", {"version": "1"})
    text = user.run("inspect", PLAIN, "--no-trunc", names[0]).out
    assert images[0].layers[0].diff_id not in user.run("inspect", PLAIN, names[0]).out
    for layer in images[0].layers:
        assert layer.digest in text and layer.diff_id in text
    assert "in the store" in text and "not on this machine" in text


def test_the_map_answers_by_digest_and_by_diff_id(
    cli: Cli, names: tuple[str, str], images: tuple[BuiltImage, BuiltImage]
) -> None:
    cli.pull(names[0])
    wanted = {layer.digest: layer for layer in images[0].layers}
    pairs = cli.run("map", "--json").json["pairs"]
    assert {pair["digest"] for pair in pairs} == set(wanted)
    for pair in pairs:
        layer = wanted[pair["digest"]]
        assert pair == {
            "digest": layer.digest,
            "diff_id": layer.diff_id,
            "size": layer.size,
            "uncompressed_size": layer.uncompressed_size,
            "compression": "gzip",
        }
    layer = images[0].layers[1]
    for key in (layer.digest, layer.diff_id, layer.digest.removeprefix("sha256:")):
        (found,) = cli.run("map", "--json", key).json["pairs"]
        assert (found["digest"], found["diff_id"]) == (layer.digest, layer.diff_id)
        assert layer.diff_id in cli.run("map", key).out
    assert cli.run("map", "--json", "0" * 64).json == {"pairs": []}
    assert "64 hex digits" in cli.run("map", "nonsense", code=1).err


def test_a_removed_image_gives_its_space_back_and_takes_nothing_from_others(
    user: Cli, names: tuple[str, str], images: tuple[BuiltImage, BuiltImage], tmp_path: Path
) -> None:
    one, two = images
    for name in names:
        user.pull(name)
    listed = user.run("ls", "--json").json["images"]
    assert [image["name"] for image in listed] == list(names)
    assert [image["manifest_digest"] for image in listed] == [one.digest, two.digest]
    assert [image["problem"] for image in listed] == [None, None]
    assert names[1] in user.run("ls").out

    user.run("rm", names[0])
    freed = user.run("gc", "--json").json
    only = [layer.size for layer in one.layers if layer.digest not in two.layer_digests]
    assert freed["bytes_freed"] == sum(only) + len(one.manifest) + len(one.config)
    assert freed["blobs_removed"] == len(only) + 2
    assert {path.name for path in (user.store / "blobs" / "sha256").iterdir()} == {
        digest.removeprefix("sha256:") for digest in {two.digest, two.config_digest, *two.layer_digests}
    }
    skopeo_reads(f"oci:{user.store}:{names[1]}", tmp_path / "dir")
    user.verified()
    assert [image["name"] for image in user.run("ls", "--json").json["images"]] == [names[1]]
    assert user.pull(names[0]).json["bytes_fetched"] == sum(only)


def test_rm_takes_all_the_names_or_none(user: Cli, names: tuple[str, str]) -> None:
    for name in names:
        user.pull(name)
    before = user.run("ls", "--json").json
    ran = user.run("rm", names[0], "missing", names[1], code=2)
    assert ran.out == "" and "'missing'" in ran.err
    assert user.run("ls", "--json").json == before
    assert user.run("rm", "--json", names[0], names[1], names[0]).json == {"removed": list(names)}
    assert user.run("ls", "--json").json == {"images": []}


@pytest.mark.parametrize("command", [("verify",), ("rm", "x")], ids=" ".join)
def test_a_store_that_is_not_there_is_neither_made_nor_taken_for_one_that_was_hashed(
    user: Cli, command: tuple[str, ...]
) -> None:
    ran = user.run(*command, code=2)
    error, hint = ran.err.splitlines()
    assert error == f"layertee: there is no store in {user.store}; the first pull makes it [NOT_FOUND]"
    assert hint.startswith("hint: ") and "--store" in hint
    assert not user.store.exists()


@pytest.mark.parametrize("command", [("ls",), ("ls", "--partial"), ("map",), ("gc",)], ids=" ".join)
def test_nothing_is_in_a_store_that_is_not_there_and_that_is_said(
    user: Cli, command: tuple[str, ...]
) -> None:
    ran = user.run(*command)
    assert ran.err == f"layertee: there is no store in {user.store} yet; the first pull makes it\n"
    assert len(ran.out.splitlines()) == 1
    assert not any(user.run(*command, "--json").json.values())
    assert not user.store.exists()


@pytest.mark.parametrize("n_made", range(5))
def test_a_store_whose_making_was_cut_short_is_not_there_yet(
    user: Cli, names: tuple[str, str], n_made: int
) -> None:
    """As a machine that loses its power leaves it: nothing is wrong with it, and nothing in it."""
    user.store.mkdir()
    marker = user.store / "oci-layout"
    steps: list[Callable[[], object]] = [
        lambda: (user.store / ".oci-layout-1-ab.part").write_bytes(b""),
        lambda: marker.write_text('{"imageLayoutVersion": "1.0.0"}'),
        (user.store / "blobs").mkdir,
        (user.store / "blobs" / "sha256").mkdir,
    ]
    for step in steps[:n_made]:
        step()
    assert "the first pull makes it [NOT_FOUND]" in user.run("verify", code=2).err
    user.pull(names[0])
    user.verified()


def test_a_layout_that_lost_its_index_is_damaged_and_not_new(user: Cli, names: tuple[str, str]) -> None:
    user.pull(names[0])
    (user.store / "index.json").unlink()
    assert "[STORE_CORRUPT]" in user.run("verify", code=1).err


@pytest.mark.parametrize("form", ["as-is", "uncompressed"])
def test_verify_finds_a_flipped_byte_and_repair_fetches_just_that_layer(
    cli: Cli,
    names: tuple[str, str],
    images: tuple[BuiltImage, BuiltImage],
    registry: RegistryServer,
    tmp_path: Path,
    form: str,
) -> None:
    ran = cli.pull("--layers", form, names[0])
    bad = images[0].layers[1]
    digest = bad.digest if form == "as-is" else bad.diff_id
    flip_a_byte(cli.blob(digest))
    report = cli.run("verify", "--json", code=3).json
    assert (report["ok"], [blob["digest"] for blob in report["bad"]]) == (False, [digest])
    assert not cli.blob(digest).exists()
    assert len(list((cli.store / "layertee" / "quarantine").iterdir())) == 1
    assert cli.run("ls", "--json").json["images"][0]["problem"] is not None

    text = cli.run("verify", code=3).out
    assert f"missing: {digest}" in text and "--repair" in text
    registry.reset()
    repaired = cli.run("verify", "--json", "--repair", names[0], PLAIN).json["repaired"]
    assert registry.blob_bytes(digests=images[0].layer_digests) == repaired["bytes_fetched"] == bad.size
    assert repaired["config_digest"] == ran.json["config_digest"]
    cli.verified()
    skopeo_reads(f"oci:{cli.store}:{names[0]}", tmp_path / "dir")
    assert cli.run("ls", "--json").json["images"][0]["problem"] is None


def test_a_lost_map_is_rebuilt_by_verify_without_the_network(
    cli: Cli, names: tuple[str, str], registry: RegistryServer, images: tuple[BuiltImage, BuiltImage]
) -> None:
    cli.pull(names[0])
    for file in (cli.store / "layertee").glob("catalog.sqlite*"):
        file.unlink()
    assert "run: layertee verify" in cli.run("doctor", code=1).out
    assert cli.verified()["adopted"] == 3
    assert len(cli.run("map", "--json").json["pairs"]) == 3
    registry.reset()
    assert set(cli.pull(names[0]).actions) == {"have"}
    assert registry.blob_bytes(digests=images[0].layer_digests) == 0


def test_everything_in_the_store_has_the_name_of_its_content(cli: Cli, names: tuple[str, str]) -> None:
    for name, form in zip(names, ("as-is", "uncompressed"), strict=True):
        cli.pull("--layers", form, name)
    blobs = list((cli.store / "blobs" / "sha256").iterdir())
    assert len(blobs) == 9  # four layers, three manifests (one rewritten), two configs
    for path in blobs:
        assert digest_of(path.read_bytes()) == f"sha256:{path.name}"
