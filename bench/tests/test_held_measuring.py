"""What the sections measure: each on a little content, and what they do not let pass."""

from __future__ import annotations

import gzip
import random
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest

from bench import floor
from bench.contenders import layertee
from bench.content import Images
from bench.held import copies, kernels, lone, pulls, starts
from bench.held.document import Body
from bench.held.kernels import pack
from bench.measure import CommandFailed
from bench.tools import Tool, find_tools
from layertee.core.pool import PoolStats
from layertee.image.media import Compression
from tests.support.compress import digest_of
from tests.support.rig import prebuild
from tests.support.rig.images import build_image, some_layers
from tests.support.rig.layers import Entry, LayerSpec, text_layer

TEXT = b"".join(b"%d: a line of a file, and then another\n" % n for n in range(40_000))


# -- kernels -----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """kernels.c, compiled."""
    return kernels.build(tmp_path_factory.mktemp("kernels"))


@pytest.mark.slow
def test_every_inflater_of_the_core_decodes_every_member_in_every_round(
    library: Path, tmp_path: Path
) -> None:
    noise = random.Random(1).randbytes(300_000)
    paths = []
    for name, data in (("text", TEXT), ("noise", noise), ("little", b"x")):
        paths.append(tmp_path / name)
        paths[-1].write_bytes(pack(data))
    result = kernels.run_members(library, 4, paths)
    assert [it["out_nbytes"] for it in result["members"]] == [len(TEXT), len(noise), 1]
    assert result["default"] in result["members"][0]["seconds"]
    versions, missing = kernels.others()
    there = {line.partition(":")[0] for line in missing}
    for it in result["members"]:
        assert {"isal", "zlib"} <= it["seconds"].keys()
        assert {name for name in ("libdeflate", "zlib-ng") if name in it["seconds"]} == {
            "libdeflate",
            "zlib-ng",
        } - there
        assert all(len(taken) == 4 and min(taken) > 0 for taken in it["seconds"].values())
    assert set(versions) | there >= {"isal", "zlib", "libdeflate", "zlib-ng"}


@pytest.mark.slow
def test_other_bytes_than_the_trailer_says_are_no_measurement(library: Path, tmp_path: Path) -> None:
    path = tmp_path / "damaged"
    whole = bytearray(pack(TEXT))
    whole[-6] ^= 1  # of the CRC-32
    path.write_bytes(whole)
    with pytest.raises(floor.FloorError, match="other bytes than the member has"):
        kernels.run_members(library, 1, [path])
    path.write_bytes(gzip.compress(TEXT)[:4] + b"\x00")
    with pytest.raises(floor.FloorError, match="too short"):
        kernels.run_members(library, 1, [path])


def test_the_kinds_of_data_are_what_they_are_called() -> None:
    found = kernels.kinds(1 << 18)
    sizes = {name: len(gzip.decompress(data)) for name, data in found.items()}
    assert sizes == dict.fromkeys(sizes, 1 << 18) | {"tiny blocks": 1 << 16}
    ratio = {name: len(data) / sizes[name] for name, data in found.items()}
    assert 1 < ratio["incompressible"] < 1.001
    assert ratio["long runs"] < 0.05 < ratio["text"] < 0.6
    # Of the same text, what thousands of blocks' tables cost.
    text = gzip.decompress(found["tiny blocks"])
    assert len(found["tiny blocks"]) > 1.1 * len(pack(text))
    assert kernels.kinds(1 << 18) == found


def test_ratios_are_those_of_the_inflater_that_is_used() -> None:
    member = {"in_nbytes": 1, "out_nbytes": 2_000_000_000, "seconds": {}}
    member["seconds"] = {"own": [1.0, 2.0, 1.0], "isal": [1.25, 2.5, 1.5], "zlib": [3.0, 3.0, 3.0]}
    body = Body()
    kernels.add(body, "layers, podman", [member], "own")
    (ratio,) = body.ratios
    assert (ratio.key, ratio.cpu, ratio.wall) == ("layers, podman: own over libisal", 0.8, None)
    assert ratio.goal_cpu == pytest.approx(1 / 1.22)
    assert body.facts["inflate_s_per_gb"] == 0.5
    by_isal = Body()
    kernels.add(by_isal, "text", [member], "isal")
    assert by_isal.ratios == []
    text = "\n".join(kernels.table(body.rows))
    assert "| layers, podman | 2.000, 2.000 (1.25) | 1.600, 1.333 | 0.667, 0.667 (" in text


def test_layers_are_chosen_by_size_and_none_twice(tmp_path: Path) -> None:
    sizes = (10_000, 20_000, 30_000, 21_000)
    specs = [LayerSpec((Entry("a", data=bytes(size)),), "x") for size in sizes]
    image = build_image(tmp_path, specs)
    chosen = kernels.layers(image, (20_400, 20_400, 1))
    assert chosen == [image.blob_path(image.layers[index].digest) for index in (1, 3, 0)]


# -- content --------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.builds("imagecopy")
def test_layers_of_podmans_writer_have_its_markers_and_the_same_diff_ids(tmp_path: Path) -> None:
    prebuild.program("imagecopy")
    images = Images(tmp_path, 6_000_000, "usr")
    plain, podman = (images.get("big", form) for form in ("none", "gzip:podman"))
    assert [layer.diff_id for layer in podman.layers] == [layer.diff_id for layer in plain.layers]
    for layer in podman.layers:
        blob = podman.blob_path(layer.digest).read_bytes()
        # pgzip ends each block of 1 MiB with an empty stored block, which zlib's writer never does.
        assert blob.count(b"\x00\x00\xff\xff") >= layer.uncompressed_size >> 20
        assert digest_of(gzip.decompress(blob)) == layer.diff_id
    zstd = images.get("big", "zstd:podman")
    assert {layer.compression for layer in zstd.layers} == {"zstd"}
    assert images.get("big", "gzip:podman") == podman


def test_some_layers_of_an_image_are_an_image(tmp_path: Path) -> None:
    image = build_image(
        tmp_path / "all", [text_layer({"a": "1"}), text_layer({"b": "2"}), text_layer({"c": "3"})]
    )
    some = some_layers(image, [2, 0], tmp_path / "some")
    assert some.layers == (image.layers[2], image.layers[0])
    assert some.blob_path(image.layers[0].digest).exists()
    assert not some.blob_path(image.layers[1].digest).exists()


# -- lone ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("pools", [lone.ONE, lone.TWO, lone.AHEAD], ids=lambda it: it.name)
def test_a_layer_goes_through_every_kind_of_pool_and_is_written(pools: lone.Pools, tmp_path: Path) -> None:
    out = tmp_path / "out"
    diff_id, stats = lone.through(memoryview(gzip.compress(TEXT)), Compression.GZIP, pools, out)
    assert diff_id == digest_of(TEXT)
    assert out.read_bytes() == TEXT
    assert stats.inflate_ns > 0 and stats.write_ns > 0
    if pools is not lone.AHEAD:
        assert stats.ahead_nbytes == 0


def test_what_a_byte_ahead_costs_is_over_one_in_its_turn() -> None:
    def run(cpu_s: float, inflate: int, ahead: int = 0, nbytes: int = 0) -> dict[str, Any]:
        stats = PoolStats(0, 0, 0, inflate, 0, 0, 0, 0, ahead, nbytes)
        return {"cpu_s": cpu_s, "stats": stats}

    second = 10**9
    plain = [run(2.0, second), run(4.0, second), run(2.2, second)]
    # 400 of 1000 bytes ahead at 1.3 ms, where one in its turn takes 1 ms; 0.16 s of CPU more in each round.
    ahead = [run(it["cpu_s"] + 0.16, 6 * second // 10, 52 * second // 100, 400) for it in plain]
    assert lone.ahead_cost(plain, ahead, 1000) == {"share": 0.4, "decode": 1.3, "all": 1.4}
    assert lone.ahead_cost(plain, plain, 1000) == {"share": 0.0, "decode": 0.0, "all": 0.0}


# -- starts --------------------------------------------------------------------------------------


def server(tmp_path: Path, reply: str, status: int = 0) -> list[str]:
    """A command that answers the first request with ``reply`` and ends after the second."""
    program = tmp_path / "server.py"
    program.write_text(
        "import socket, sys\n"
        "s = socket.socket(fileno=int(sys.argv[sys.argv.index('--sockfd') + 1]))\n"
        "s.recv(1000)\n"
        f"s.send({reply.encode()!r})\n"
        "s.recv(1000)\n"
        f"sys.exit({status})\n"
    )
    return [sys.executable, str(program)]


def test_an_image_proxy_is_timed_up_to_its_answer(tmp_path: Path) -> None:
    took = starts.initialize(server(tmp_path, '{"success": true}'), {})
    assert 0 < took["wall_s"] < 60 and took["cpu_s"] > 0


@pytest.mark.parametrize(("reply", "status"), [('{"success": false}', 0), ('{"success": true}', 3)])
def test_an_image_proxy_that_fails_is_no_measurement(tmp_path: Path, reply: str, status: int) -> None:
    with pytest.raises(CommandFailed, match="did not answer"):
        starts.initialize(server(tmp_path, reply, status), {})
    with pytest.raises(CommandFailed, match="did not answer"):
        starts.initialize(["false"], {})


@pytest.mark.slow
def test_commands_with_nothing_to_do_are_measured_beside_skopeo() -> None:
    body = Body()
    starts.measure_starts(body, seconds=0, peers=["skopeo"], rounds=1)
    names = {(row["command"], row["client"]) for row in body.rows}
    assert {("pull, nothing to do", "layertee"), ("inspect", "layertee"), ("inspect", "skopeo")} <= names
    keys = {ratio.key for ratio in body.ratios}
    assert keys == {
        "pull, nothing to do: over skopeo inspect",
        "inspect: over skopeo",
        "image-proxy, Initialize: over skopeo",
    }
    assert 0 < body.facts["noop_cpu_s"] < 10
    assert len(starts.table(body.rows)) == len(body.rows) + 2


def test_another_version_is_compared_command_by_command() -> None:
    field = [
        starts.Command(name, peer, dict)
        for name in ("inspect", "pull, nothing to do")
        for peer in ("layertee", "layertee@a")
    ]
    taken = {(it.name, it.peer): [{"wall_s": 1.0 + ("@" in it.peer), "cpu_s": 1.0}] for it in field}
    body = Body()
    starts.add(body, field, taken)
    assert {ratio.key: ratio.wall for ratio in body.ratios} == {
        "inspect: over layertee@a": 0.5,
        "pull, nothing to do: over layertee@a": 0.5,
    }


# -- pulls ---------------------------------------------------------------------------------------------


def test_a_baseline_is_a_checkout_an_environment_or_a_program(tmp_path: Path) -> None:
    program = tmp_path / "checkout/.venv/bin/layertee"
    program.parent.mkdir(parents=True)
    program.write_text("#!/bin/sh\necho layertee 9.8\n")
    program.chmod(0o755)
    for path in (tmp_path / "checkout", tmp_path / "checkout/.venv", program):
        tool = pulls.find_baseline(f"layertee={path}")
        assert (tool.program, tool.version) == (str(program), "9.8")
        assert tool.name.startswith("layertee@")
    with pytest.raises(FileNotFoundError, match="no checkout"):
        pulls.find_baseline(f"layertee={tmp_path}/elsewhere")


def test_only_those_take_part_that_a_ratio_needs() -> None:
    tools = {name: Tool(name, f"/opt/{name}", "1") for name in ("layertee", "skopeo", "imagecopy", "crane")}
    field = pulls.field_of(tools, [Tool("layertee@old", "/opt/old", "0")])
    first, zstd = pulls.PLACES[0], pulls.PLACES[2]
    found = {(it.peer, it.work) for it in pulls.taking_part(first, field)}
    works = ("decompress", "as-is", "blob-digest")
    ours = {(peer, work) for peer in ("layertee", "layertee@old") for work in works}
    assert found == ours | {("imagecopy", "decompress"), ("crane", "copy")}
    assert len(pulls.taking_part(zstd, field)) == 3
    assert {place.regime for place in pulls.PLACES} == {"loopback", "tls", "capped"}


@pytest.mark.slow
def test_whole_pulls_are_paired_with_a_baseline(tmp_path: Path) -> None:
    image = build_image(tmp_path / "image", [text_layer({"etc/a": "x" * 1000})], ref="big")
    here = find_tools(tmp_path, [])[0]["layertee"]
    field = [*layertee(here.program), *layertee(here.program, "layertee@same")]
    place = pulls.Place("tls", "big", "gzip:podman", (pulls.Goal("as-is", (), "copy", None, None),))
    case = pulls.case_of(place)
    part = pulls.taking_part(place, field)
    taken = pulls.run_place(case, {case.pulled: image}, part, 0, 2)
    body = Body()
    pulls.add(body, place, taken)
    (ratio,) = body.ratios
    assert ratio.key == "TLS, big, gzip: blobs kept, both digests: over layertee@same"
    assert ratio.rounds == 2 and ratio.wall is not None and 0.1 < ratio.wall < 10
    assert {row["peer"] for row in body.rows} == {"layertee", "layertee@same"}
    assert len(pulls.table(body.rows)) == 4


# -- copies ------------------------------------------------------------------------------------------------


def test_every_way_from_socket_to_file_is_measured(tmp_path: Path) -> None:
    rows = copies.alone(4 << 20, 2, Path("/dev/shm"), tmp_path)
    ways = [row["way"] for row in rows]
    assert "receive, 64 KiB" in ways and "to disk, 1 MiB, write-behind" in ways
    assert all(row["cpu_s_per_gb"] > 0 and row["wall_s_per_gb"] > 0 for row in rows)
    reads = {row["way"]: row["read_nbytes"] for row in rows}
    assert reads["receive, 64 KiB"] <= 64 << 10
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(floor.FloorError, match="copies NBYTES"):
        copies.alone(1000, 1, Path("/dev/shm"), tmp_path)


def test_calls_are_counted_where_they_moved_bytes() -> None:
    lines = [
        '12 recvfrom(9, ""..., 1048576, 0, NULL, NULL) = 65536',
        '12 recvfrom(9, ""..., 983040, 0, NULL, NULL <unfinished ...>',
        '13 pwrite64(8, ""..., 1048576, 0) = 1048576',
        "12 <... recvfrom resumed>) = 1000",
        '12 read(3, "", 8192) = 0',
        "12 recvfrom(9, 0x7f, 917504, 0, NULL, NULL) = -1 EAGAIN (Resource temporarily unavailable)",
        "12 +++ exited with 0 +++",
    ]
    assert copies.summed(lines) == {
        "recvfrom": {"n": 2, "nbytes": 66536},
        "pwrite64": {"n": 1, "nbytes": 1048576},
    }


@pytest.mark.skipif(shutil.which("strace") is None, reason="no strace")
def test_what_a_command_reads_is_counted(tmp_path: Path) -> None:
    (tmp_path / "data").write_bytes(TEXT)
    words = ["dd", f"if={tmp_path}/data", f"of={tmp_path}/copy", "bs=64k", "status=none"]
    found = copies.traced(words, {"PATH": "/usr/bin:/bin"}, tmp_path / "log")
    assert found["write"]["nbytes"] == len(TEXT)
    assert found["read"]["nbytes"] >= len(TEXT)
    with pytest.raises(floor.FloorError, match="failed under strace"):
        copies.traced(["false"], {"PATH": "/usr/bin:/bin"}, tmp_path / "log")
