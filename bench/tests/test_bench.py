"""The benchmark itself: commands, checks of their results, cases, and the document that is written."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import shlex
import sys
from pathlib import Path

import pytest

from bench import __main__ as command_line
from bench import tables
from bench.contenders import Contender, Source, WrongResult, check, contenders
from bench.content import UPDATED, cut_layers
from bench.measure import CommandFailed, measure
from bench.packages import Content, PackageError, debian_content
from bench.regimes import REGIMES, Case, cases, client_cpu, serve
from bench.results import Results, Row, machine
from bench.runner import Round, require_space, run_case, space_needed
from bench.tools import PEERS, Tool, find_tools
from bench.where import BUILT, RESULTS
from tests.support.ccore import ROOT
from tests.support.rig.images import BuiltImage, build_image, recompress
from tests.support.rig.layers import incompressible_layer, text_layer, write_tar

TOOLS = {name: Tool(name, f"/opt/{name}", "1") for name in ("layertee", *PEERS)}
LAYERS = [incompressible_layer(200_000), text_layer({"etc/release": "1\n" * 30_000})]
Images = dict[tuple[str, str], BuiltImage]


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Images:
    """An image, the same as zstd, and the same with its second layer changed."""
    root = tmp_path_factory.mktemp("images")
    gzip = build_image(root / "gzip", LAYERS)
    changed = [LAYERS[0], text_layer({"etc/release": "2\n" * 30_000})]
    return {
        ("chunked", "gzip"): gzip,
        ("chunked", "zstd"): recompress(gzip, "zstd", root / "zstd"),
        (UPDATED, "gzip"): build_image(root / "updated", changed),
    }


def case_of(regime: str, compression: str = "gzip") -> Case:
    return Case(REGIMES[regime], "chunked", compression, "tmpfs")


def row(peer: str = "layertee", work: str = "decompress") -> Row:
    return Row("loopback", "chunked", "gzip", "tmpfs", 2, peer, work, 2.5, 1.25, 0.5, 0.25, 80.0, 1000)


# -- one command ---------------------------------------------------------------------


@pytest.mark.slow
def test_a_command_is_measured_with_the_memory_and_time_that_it_takes() -> None:
    body = "import time; block = b'x' * (64 << 20); end = time.process_time() + 0.3"
    usage = measure([sys.executable, "-c", f"{body}\nwhile time.process_time() < end: pass"])
    assert usage.wall_s >= 0.3
    assert 0.3 <= usage.cpu_s <= usage.wall_s * 1.1 + 0.1
    assert 64 < usage.rss_mib < 128


def test_a_command_that_fails_says_so_with_what_it_complained_about() -> None:
    with pytest.raises(CommandFailed, match=r"\(3\): no such image"):
        measure(["sh", "-c", "echo no such image >&2; exit 3"])


# -- who takes part, and what they must leave behind -----------------------------------


def test_every_tool_has_a_command_and_names_no_work_twice() -> None:
    found = contenders(TOOLS)
    assert {contender.peer for contender in found} == set(TOOLS)
    assert len({(contender.peer, contender.work) for contender in found}) == len(found)
    assert {contender.work for contender in found} <= set(tables.WORKS)
    assert {contender.peer for contender in contenders({"layertee": TOOLS["layertee"]})} == {"layertee"}


@pytest.mark.parametrize("contender", contenders(TOOLS), ids=lambda it: f"{it.peer}-{it.work}")
def test_a_command_names_image_and_target_and_checks_certificates_if_there_are_any(
    tmp_path: Path, images: Images, contender: Contender
) -> None:
    image = images["chunked", "gzip"]
    plain = Source("127.0.0.1:5000/os:v1", image)
    safe = dataclasses.replace(plain, ca_file=tmp_path / "certs/ca.crt", cert_dir=tmp_path / "certs")
    for source in (plain, safe):
        target = tmp_path / ("safe" if source.ca_file else "plain")
        words = contender.command(source, target)
        text = " ".join([*words, *(path.read_text() for path in target.glob("*"))])
        assert words[0] == f"/opt/{contender.peer}"
        assert str(target) in text
        assert all(url in text for url in source.blob_urls.values()) or source.reference in text
        environment = " ".join(contender.environment(source).values())
        assert (str(tmp_path / "certs") in f"{text} {environment}") == (source is safe)
        insecure = ("tls-verify=false", "--insecure", "plain-http", "http://")
        assert any(word in text for word in insecure) == (source is plain)


@pytest.mark.parametrize("work", ["copy", "decompress"])
def test_a_result_is_wrong_with_a_byte_flipped_a_file_cut_or_one_missing(
    tmp_path: Path, images: Images, work: str
) -> None:
    image = images["chunked", "gzip"]
    contender = next(it for it in contenders(TOOLS) if (it.peer, it.work) == ("skopeo", work))
    target = tmp_path / contender.blobs
    target.mkdir(parents=True, exist_ok=True)
    for spec, layer in zip(LAYERS, image.layers, strict=True):
        if work == "copy":
            (target / layer.digest[7:]).write_bytes(image.blob_path(layer.digest).read_bytes())
        else:
            pieces: list[bytes] = []
            write_tar(spec, pieces.append)
            (target / layer.diff_id[7:]).write_bytes(b"".join(pieces))
    check(contender, tmp_path, image, hashed=True)
    victim = max(contender.expected(image), key=contender.expected(image).__getitem__)
    data = bytearray((target / victim).read_bytes())
    data[len(data) // 2] ^= 1
    (target / victim).write_bytes(data)
    check(contender, tmp_path, image, hashed=False)
    with pytest.raises(WrongResult, match="other content"):
        check(contender, tmp_path, image, hashed=True)
    (target / victim).write_bytes(data[:-1])
    with pytest.raises(WrongResult, match="another size"):
        check(contender, tmp_path, image, hashed=False)
    (target / victim).unlink()
    with pytest.raises(WrongResult, match="missing"):
        check(contender, tmp_path, image, hashed=False)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("regime", "works"),
    [
        ("loopback", {"decompress", "as-is", "blob-digest", "copy"}),
        ("tls", {"as-is", "copy"}),
        ("update", {"as-is", "copy"}),
    ],
)
def test_a_case_runs_every_contender_and_counts_what_the_server_sent(
    tmp_path: Path, images: Images, regime: str, works: set[str]
) -> None:
    case = case_of(regime)
    field = [it for it in contenders(find_tools(tmp_path, ["skopeo"])[0]) if it.work in works]
    with serve(case.regime, tmp_path / "server") as server:
        rows, notes = run_case(Round(case, server, images, tmp_path), field, 1, None)
    assert notes == []
    image = images[case.pulled]
    for it in rows:
        assert (it.regime, it.shape, it.compression, it.dest) == (regime, "chunked", "gzip", "tmpfs")
        assert it.wall_s > 0 and it.user_s + it.sys_s > 0 and it.rss_mib > 5 and it.server_cpu_s >= 0
        assert it.wire_nbytes == (image.layers[1].size if regime == "update" else image.blob_bytes)
    assert {(it.peer, it.work) for it in rows} == {(it.peer, it.work) for it in field}
    assert len(rows) == len(field) == (5 if regime == "loopback" else 2)


@pytest.mark.slow
def test_of_an_image_that_was_recompressed_layertee_is_sent_nothing(tmp_path: Path, images: Images) -> None:
    case = case_of("recompressed", "zstd")
    field = [it for it in contenders(find_tools(tmp_path, ["skopeo"])[0]) if case.takes_part(it)]
    with serve(case.regime, tmp_path / "server") as server:
        rows, _ = run_case(Round(case, server, images, tmp_path), field, 1, None)
    sent = {(it.peer, it.work): it.wire_nbytes for it in rows}
    assert sent["layertee", "as-is"] == sent["layertee", "decompress"] == 0
    assert sent["skopeo", "copy"] == images["chunked", "zstd"].blob_bytes


@pytest.mark.slow
def test_a_peer_that_fails_is_left_out_and_a_failing_layertee_ends_it(tmp_path: Path, images: Images) -> None:
    case = case_of("nginx")
    tools = find_tools(tmp_path, [])[0] | {"skopeo": Tool("skopeo", "/bin/false", "0")}
    with serve(case.regime, tmp_path / "server") as server:
        it = Round(case, server, images, tmp_path)
        rows, notes = run_case(it, contenders(tools)[2:], 1, None)
        assert {kept.peer for kept in rows} == {"layertee"}
        assert [note.startswith("nginx, chunked, gzip: skopeo") for note in notes] == [True, True]
        broken = [Contender("layertee", "as-is", lambda source, target: ["true"])]
        with pytest.raises(WrongResult, match="missing"):
            run_case(it, broken, 1, None)


# -- which cases ---------------------------------------------------------------------


def test_cases_are_what_each_regime_has_unless_narrowed() -> None:
    every = cases(list(REGIMES), (), (), ())
    assert {case.regime.name for case in every} == set(REGIMES) == set(tables.REGIMES)
    loopback = {(case.shape, case.compression, case.dest) for case in every if case.regime.name == "loopback"}
    assert len(loopback) == 2 * 3 + 2 - 1
    assert ("big", "zstd:chunked", "tmpfs") not in loopback
    assert ("big", "gzip", "disk") in loopback and ("big", "zstd", "disk") not in loopback
    (only,) = cases(["capped"], ["big"], ["zstd"], ["tmpfs"])
    assert (only.shape, only.compression, only.present) == ("big", "zstd", None)
    assert cases(["recompressed"], (), ["gzip"], ()) == []
    written = cases(["loopback"], (), ["gzip:podman"], ["tmpfs"])
    assert {case.shape for case in written} == {"chunked", "big"}
    (update,) = cases(["update"], (), (), ())
    assert (update.present, update.pulled) == (("chunked", "gzip"), (UPDATED, "gzip"))


def test_an_older_skopeo_pulls_only_the_plain_cases_where_a_newer_one_is_there() -> None:
    field = contenders(TOOLS)
    everyone = {"skopeo", "imagecopy"}
    assert everyone <= {it.peer for it in field}
    without_newer = [it for it in field if it.peer not in ("imagecopy", "skopeo-latest")]
    for case in cases(list(REGIMES), (), (), ()):
        plain = case.regime.name == "loopback" and case.dest == "tmpfs" and case.compression != "zstd:chunked"
        took_part = {it.peer for it in case.field(field)} & everyone
        assert took_part == (everyone if plain else {"imagecopy"}), case
        assert "skopeo" in {it.peer for it in case.field(without_newer)}, case


def test_a_case_with_an_image_present_needs_room_for_what_everyone_has_of_it(images: Images) -> None:
    image = images["chunked", "gzip"]
    field = contenders(TOOLS)
    fresh, update = (space_needed(case_of(regime), image, field) for regime in ("loopback", "update"))
    resuming = [contender for contender in field if contender.resumes]
    assert update - fresh == sum(sum(contender.expected(image).values()) for contender in resuming)
    with pytest.raises(OSError, match="MiB are needed"):
        require_space(Path("/tmp"), 1 << 60)


@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="one CPU")
def test_on_one_core_the_client_has_a_cpu_that_nothing_else_is_started_on() -> None:
    before = os.sched_getaffinity(0)
    with client_cpu(REGIMES["one-core"]) as cpu:
        assert cpu in before
        assert os.sched_getaffinity(0) == before - {cpu}
    assert os.sched_getaffinity(0) == before
    with client_cpu(REGIMES["loopback"]) as cpu:
        assert cpu is None
        assert os.sched_getaffinity(0) == before


def test_commands_that_the_readme_shows_are_understood() -> None:
    text = (ROOT / "bench" / "README.md").read_text(encoding="utf-8")
    shown = re.findall(r"^python -m bench( --[^#\n]*)", text, re.MULTILINE)
    assert len(shown) >= 2
    for words in shown:
        command_line.arguments(shlex.split(words))


def test_results_that_are_not_of_everything_go_to_the_build_directory() -> None:
    full = command_line.arguments([])
    assert (full.runs, full.out, full.regime) == (5, RESULTS, list(REGIMES))
    assert full.floor and full.size
    small = command_line.arguments(["--small"])
    plan = [(case.regime.name, case.compression, case.dest) for case in command_line.planned(small)]
    assert set(plan) == {
        ("loopback", "gzip", "tmpfs"),
        ("loopback", "zstd", "tmpfs"),
        ("capped", "gzip", "tmpfs"),
    }
    assert len(plan) == 6  # both shapes of each
    assert (small.runs, small.out) == (2, BUILT / "results")
    assert small.floor and not small.size
    narrowed = command_line.arguments(["--peer", "crane", "--runs", "7"])
    assert (narrowed.runs, narrowed.out, narrowed.floor) == (7, BUILT / "results", False)


# -- content and tools ---------------------------------------------------------------


def test_layers_are_cut_in_order_to_size_and_no_file_is_used_twice(tmp_path: Path) -> None:
    files = []
    for index in range(40):
        path = tmp_path / f"package-{index // 10}" / "usr" / f"file-{index:02}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(bytes([index]) * (600_000 if index == 3 else 20_000))
        files.append((path.parent.parent, path))
    layers = cut_layers(Content(tuple(files), "made up"), [100_000, 1_000_000])
    names = [[entry.name for entry in layer.entries if entry.size] for layer in layers]
    assert names[0] == [f"usr/file-{index:02}" for index in (0, 1, 2, 4, 5)]  # 3 is too large for it
    assert names[1][:2] == ["usr/file-03", "usr/file-06"]
    assert not set(names[0]) & set(names[1])
    assert 980_000 <= sum(entry.size for entry in layers[1].entries) <= 1_020_000
    with pytest.raises(ValueError, match="not enough content"):
        cut_layers(Content(tuple(files), "made up"), [100_000, 1_600_000])


def test_packages_that_are_unpacked_are_used_again_and_described_by_their_digests(tmp_path: Path) -> None:
    top = tmp_path / "packages/files/hello_1_all"
    (top / "usr/bin").mkdir(parents=True)
    (top / "usr/bin/hello").write_text("echo hello\n")
    (top / "usr/bin/empty").touch()
    (top / "usr/bin/link").symlink_to("hello")
    stamp = tmp_path / "packages/unpacked.json"
    stamp.write_text(json.dumps({"hello_1_all": "00"}))
    content = debian_content(tmp_path)
    assert content.files == ((top, top / "usr/bin/hello"),)
    assert content.description.startswith("debian packages sha256:")
    stamp.write_text(json.dumps({"hello_1_all": "01"}))
    assert debian_content(tmp_path).description != content.description


def test_what_is_not_on_this_machine_is_left_out_with_a_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("LAYERTEE_TEST_CACHE", str(tmp_path / "kept"))
    found, said = find_tools(tmp_path / "peers", PEERS)
    assert set(found) == {"layertee"}
    assert [line.partition(":")[0] for line in said] == list(PEERS)
    assert "not installed" in said[0] and "Go 1.24" in said[1]
    with pytest.raises(PackageError, match="apt-get is not installed"):
        debian_content(tmp_path)


# -- the document --------------------------------------------------------------------


def test_the_document_has_every_field_and_is_read_back(tmp_path: Path, images: Images) -> None:
    results = Results("python -m bench", {"layertee": "1"}, machine())
    for _ in range(2):
        results.add_image("chunked", "gzip", images["chunked", "gzip"], "made up")
    results.runs += [row(), row(), row("skopeo", "copy")]
    results.startup = [{"command": "layertee --version", "wall_s": 0.1, "cpu_s": 0.1}]
    path = results.write(tmp_path / "results")
    assert path.name == f"{results.date}-{results.machine['slug']}.json"
    document = json.loads(path.read_text())
    assert {"schema", "date", "command", "machine", "versions", "images", "runs"} <= set(document)
    assert {"floor", "size", "startup"} <= set(document)
    machine_keys = ("slug", "cpu", "n_cpus", "memory_mib", "kernel", "os", "python", "virtual")
    assert set(machine_keys) <= set(document["machine"])
    (image,) = document["images"]
    assert (image["n_layers"], image["content"]) == (2, "made up")
    assert image["compressed_nbytes"] < image["uncompressed_nbytes"]
    assert document["runs"][0] == dataclasses.asdict(row())
    loaded = tables.load(path)
    assert [(run.peer, run.cpu_s) for run in loaded.runs] == [("layertee", 1.75)] * 2 + [("skopeo", 1.75)]
