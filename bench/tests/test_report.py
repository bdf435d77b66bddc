"""What the benchmark says about its results: tables, goals, README, plots; and the floor and the sizes."""

from __future__ import annotations

import dataclasses
import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bench import floor, plots, report, size, targets
from bench.tables import Results, load, newest
from tests.support import ccore
from tests.support.ccore import ROOT
from tests.support.rig.images import BuiltImage, build_image, upload
from tests.support.rig.layers import incompressible_layer, text_layer, zeros_layer
from tests.support.rig.registry import RegistryServer

README = f"# Title\n\nbefore\n\n{report.BEGIN}\nold\n{report.END}\n\nafter\n"


def runs(peer: str, work: str, walls: list[float], cpu: float, **fields: object) -> list[dict[str, object]]:
    row: dict[str, object] = {
        "regime": "loopback",
        "shape": "big",
        "compression": "gzip",
        "dest": "tmpfs",
        "n_cpus": 2,
        "peer": peer,
        "work": work,
        "user_s": cpu * 0.75,
        "sys_s": cpu * 0.25,
        "server_cpu_s": 0.25,
        "rss_mib": 90,
        "wire_nbytes": 551_000_000,
    }
    return [row | {"wall_s": wall} | fields for wall in walls]


def made_up() -> dict[str, Any]:
    return {
        "schema": 1,
        "date": "2026-11-24",
        "command": "python -m bench --runs 3",
        "machine": {
            "slug": "vm",
            "cpu": "Some CPU",
            "n_cpus": 2,
            "memory_mib": 8192,
            "kernel": "6.18",
            "os": "Debian 12",
            "python": "3.11.2",
            "virtual": True,
        },
        "versions": {"skopeo": "1.9.3", "layertee": "0.1.0"},
        "images": [
            {
                "shape": "big",
                "compression": "gzip",
                "n_layers": 3,
                "compressed_nbytes": 551_000_000,
                "uncompressed_nbytes": 1_540_000_000,
                "content": "packages",
            }
        ],
        "runs": [
            *runs("layertee", "decompress", [2.0, 1.9, 9.0], 3.5),
            *runs("layertee", "as-is", [1.8, 1.8, 1.8], 4.0),
            *runs("skopeo", "decompress", [7.0, 8.0, 7.5], 10.0),
            *runs("layertee", "decompress", [4.0], 3.5, regime="capped"),
            *runs("skopeo", "decompress", [8.0], 10.0, regime="capped"),
            *runs("layertee", "as-is", [0.3], 0.2, regime="recompressed", wire_nbytes=0, rss_mib=130),
        ],
        "floor": [
            {
                "shape": "big",
                "compression": "gzip",
                "dest": "tmpfs",
                **dict.fromkeys(floor.KERNELS, 0.5),
                "floor_decompress_s": 3.29,
                "floor_as_is_s": 3.0,
                "floor_blob_digest_s": 0.5,
            }
        ],
        "size": [
            {"layer_mib": mib, "compression": "zstd", "form": "as-is", "rss_mib": rss, "wall_s": 1.0}
            for mib, rss in ((64, 40), (256, 80), (8192, 92))
        ],
        "startup": [{"command": "layertee --version", "wall_s": 0.055, "cpu_s": 0.05}],
        "regimes": [{"name": "capped", "server": "nginx", "description": "nginx, so many MB/s"}],
        "notes": ["crane: left out"],
    }


def written(directory: Path, raw: dict[str, Any]) -> Path:
    path = directory / "2026-11-24-vm.json"
    path.write_text(json.dumps(raw))
    return path


@pytest.fixture
def results(tmp_path: Path) -> Results:
    return load(written(tmp_path, made_up()))


def verdicts(results: Results) -> dict[str, tuple[Any, str]]:
    return {it.goal: (it.value, it.verdict) for it in targets.outcomes(results)}


# -- goals ---------------------------------------------------------------------------


def test_a_goal_is_judged_by_the_ratio_of_medians(results: Results) -> None:
    found = verdicts(results)
    tars = "big, gzip: uncompressed tars, both digests verified"
    assert found[f"{tars}: wall"] == (pytest.approx(2.0 / 7.5), "reached")
    assert found[f"{tars}: CPU"] == (pytest.approx(0.35), "reached")
    kept = "big, gzip: blobs kept, both digests verified"
    assert found[f"{kept}: wall"] == (pytest.approx(1.8 / 7.5), "reached")
    assert found[f"{kept}: CPU"] == (pytest.approx(0.4), "not reached")  # 1/2.9 is wanted
    capped = "big, gzip: 40 MB/s per connection: uncompressed tars, both digests verified"
    assert found[f"{capped}: wall"] == (pytest.approx(0.5), "not reached")


def test_what_was_not_measured_is_neither_reached_nor_missed(results: Results) -> None:
    found = verdicts(results)
    zstd = "chunked, zstd: uncompressed tars, both digests verified: wall"
    assert found[zstd] == (None, "not measured")
    assert found["big, gzip: blobs kept, blob digest only: CPU"] == (None, "not measured")
    assert found["big, zstd: CPU of the floor over ours"] == (None, "not measured")
    bare = dataclasses.replace(results, runs=[], floor=[], size=[], startup=[])
    assert {verdict for _, verdict in verdicts(bare).values()} == {"not measured"}


def test_goals_that_compare_with_no_peer(results: Results) -> None:
    found = verdicts(results)
    gone = "image recompressed at the registry, all content present"
    assert found[f"{gone}: wall"] == (0.3, "reached")
    assert found[f"{gone}: layer bytes"] == (0, "reached")
    assert found["big, gzip: CPU of the floor over ours"] == (pytest.approx(0.94), "reached")
    assert found["peak RSS of any pull"] == (130, "not reached")
    # From 256 MiB on: the pool of a smaller layer never fills.
    assert found["peak RSS, largest layer over one of 256 MiB"] == (pytest.approx(1.15), "not reached")
    assert found["layertee --version"] == (pytest.approx(55), "reached")


def test_layer_bytes_that_were_sent_once_miss_the_goal(tmp_path: Path) -> None:
    raw = made_up()
    raw["runs"] += runs("layertee", "as-is", [0.3, 0.3], 0.2, regime="recompressed", wire_nbytes=0)
    raw["runs"] += runs("layertee", "as-is", [0.3], 0.2, regime="recompressed", wire_nbytes=7)
    goal = "image recompressed at the registry, all content present: layer bytes"
    assert verdicts(load(written(tmp_path, raw)))[goal] == (7, "not reached")


def test_the_newest_skopeo_is_the_one_to_compare_with(tmp_path: Path) -> None:
    raw = made_up()
    raw["runs"] += runs("imagecopy", "decompress", [4.0], 8.0)
    goal = "big, gzip: uncompressed tars, both digests verified: wall"
    assert verdicts(load(written(tmp_path, raw)))[goal] == (pytest.approx(0.5), "not reached")


def test_every_goal_of_ours_names_an_image_and_a_work_of_the_results() -> None:
    assert len(set(targets.COMPARISONS)) == len(targets.COMPARISONS) == 13
    for it in targets.COMPARISONS:
        assert (it.shape, it.compression) in {(s, c) for s in ("chunked", "big") for c in ("gzip", "zstd")}
        assert it.wall is not None and it.wall < 1


# -- tables --------------------------------------------------------------------------


def test_a_row_has_median_lowest_and_highest(results: Results) -> None:
    text = report.full_report(results, "x")
    assert (
        "| **layertee** | uncompressed tars written"
        " | 2.00 (1.90-9.00) | 3.50 (3.50-3.50) | 0.25 | 90 | 551.0 | 3 |" in text
    )


def test_the_report_shows_misses_and_gaps(results: Results) -> None:
    text = report.full_report(results, "x")
    assert "| ≤ 0.303 | 0.500 | 4.00 s against 8.00 s of skopeo, tars written | **not reached** |" in text
    goals = text.partition("## Goals")[2].partition("\n## ")[0]
    assert goals.count("| not measured | - | not measured |") == 20 + 3
    assert "- over TLS\n" in text.partition("## Not measured")[2]
    assert "- 40 MB/s per connection\n" not in text.partition("## Not measured")[2]


def test_the_report_says_how_it_was_measured_and_what_was_left_out(results: Results) -> None:
    text = report.full_report(results, "x")
    assert "## 40 MB/s per connection\n\nnginx, so many MB/s.\n" in text
    assert "## Notes\n\n- crane: left out\n" in text


def test_the_slowest_way_to_keep_a_recompressed_image_counts(tmp_path: Path) -> None:
    raw = made_up()
    raw["runs"] += runs("layertee", "decompress", [0.6], 0.2, regime="recompressed", wire_nbytes=0)
    goal = "image recompressed at the registry, all content present: wall"
    assert verdicts(load(written(tmp_path, raw)))[goal] == (0.6, "not reached")


def test_a_report_of_nothing_says_so(results: Results) -> None:
    text = report.full_report(dataclasses.replace(results, runs=[], floor=[], size=[], startup=[]), "x")
    assert text.count("Not measured.") == 3
    assert "![" not in text


def test_the_order_in_which_runs_were_made_does_not_show(results: Results) -> None:
    shuffled = random.Random(1).sample(list(results.runs), len(results.runs))
    other = dataclasses.replace(results, runs=shuffled)
    assert report.full_report(other, "x") == report.full_report(results, "x")
    for block in (report.headline_block, report.summary_block):
        assert block(other, "d", "x") == block(results, "d", "x")


def test_figures_that_a_peer_lacks_are_a_dash_and_not_zero(tmp_path: Path) -> None:
    raw = made_up()
    raw["runs"] = runs("curl", "download", [1.0], 0.5, server_cpu_s=None, rss_mib=None, wire_nbytes=None)
    text = report.full_report(load(written(tmp_path, raw)), "x")
    assert (
        "| curl | downloaded, nothing verified | 1.00 (1.00-1.00) | 0.50 (0.50-0.50) | - | - | - | 1 |"
        in text
    )


# -- files ---------------------------------------------------------------------------


def test_results_of_another_schema_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="schema 2"):
        load(written(tmp_path, made_up() | {"schema": 2}))


def test_the_newest_results_are_those_of_the_latest_date(tmp_path: Path) -> None:
    for name in (
        "2026-11-24-b.json",
        "2027-01-02-a.json",
        "2026-12-31-z.json",
        "2027-06-01-a.md",
        "torture-2026-12-01.json",
    ):
        (tmp_path / name).touch()
    assert newest(tmp_path).name == "2027-01-02-a.json"
    with pytest.raises(FileNotFoundError):
        newest(tmp_path / "none")


def test_pages_are_replaced_between_their_marks_and_nowhere_else(tmp_path: Path) -> None:
    (tmp_path / "bench" / "results").mkdir(parents=True)
    path = written(tmp_path / "bench" / "results", made_up())
    readme, summary = tmp_path / "README.md", tmp_path / "bench" / "README.md"
    pages = (readme, summary)
    said: list[str] = []
    for page in pages:
        page.write_text(README)
    words = [str(path), "--readme", str(readme), "--summary", str(summary)]
    assert report.main(words, said.append) == 0
    once = [page.read_text() for page in pages]
    for text in once:
        assert text.startswith(f"# Title\n\nbefore\n\n{report.BEGIN}\n")
        assert text.endswith(f"\n{report.END}\n\nafter\n")
        assert "old" not in text.splitlines()
        assert "`python -m bench --runs 3`" in text
        assert "Some CPU" in text
    assert path.with_suffix(".md").read_text() == report.full_report(load(path), path.stem)

    assert report.main(words, said.append) == 0
    assert [page.read_text() for page in pages] == once


def test_the_summary_has_a_row_for_each_comparison(results: Results) -> None:
    text = report.summary_block(results, "results", "2026-11-24-vm")
    assert "| 2.00 / 3.50 | 7.50 / 10.00 (skopeo, tars written) | **0.27 / 0.35** |" in text
    rows = [line for line in text.splitlines() if line.startswith("| ")]
    assert len(rows) == 1 + len(targets.COMPARISONS)
    assert "](results/2026-11-24-vm.md)" in text


def test_only_what_takes_less_time_is_bold(tmp_path: Path) -> None:
    raw = made_up()
    raw["runs"] = [*runs("layertee", "decompress", [9.0], 3.5), *runs("skopeo", "decompress", [7.5], 10.0)]
    text = report.summary_block(load(written(tmp_path, raw)), "results", "x")
    assert "| 9.00 / 3.50 | 7.50 / 10.00 (skopeo, tars written) | 1.20 / 0.35 |" in text


def test_the_headline_is_one_row_and_one_chart(tmp_path: Path) -> None:
    raw = made_up()
    raw["runs"] = [run | {"shape": "chunked"} for run in raw["runs"]]
    raw["images"] = [image | {"shape": "chunked"} for image in raw["images"]]
    text = report.headline_block(load(written(tmp_path, raw)), "bench/results", "2026-11-24-vm")
    rows = [line for line in text.splitlines() if line.startswith("| ")]
    assert len(rows) == 2
    assert rows[1].endswith("| 2.00 / 3.50 | 7.50 / 10.00 (skopeo, tars written) | **0.27 / 0.35** |")
    assert "The image has 3 layers, 551 MB compressed and 1,540 MB as tars." in text
    assert "](bench/results/2026-11-24-vm.md)" in text
    assert text.count("](bench/results/2026-11-24-vm-overview.svg)") == text.count("![") == 1


def test_a_headline_that_was_not_measured_says_so(results: Results) -> None:
    bare = dataclasses.replace(results, runs=[], images=[])
    text = report.headline_block(bare, "d", "x")
    assert report.NOT_MEASURED in text
    assert "![" not in text
    assert "The image has" not in text


@pytest.mark.parametrize(
    "text",
    ["no marks", report.BEGIN, f"{report.END} {report.BEGIN}", f"{report.BEGIN}{report.END}{report.END}"],
)
def test_a_readme_without_its_marks_is_left_alone(
    text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    readme = tmp_path / "README.md"
    readme.write_text(text)
    assert report.main([str(written(tmp_path, made_up())), "--readme", str(readme)]) == 1
    assert report.BEGIN in capsys.readouterr().err
    assert readme.read_text() == text


def test_the_pages_say_what_the_newest_results_say() -> None:
    path = newest(ROOT / "bench" / "results")
    results = load(path)
    for page, block in (
        ("README.md", report.headline_block(results, "bench/results", path.stem)),
        ("bench/README.md", report.summary_block(results, "results", path.stem)),
    ):
        text = (ROOT / page).read_text(encoding="utf-8")
        assert report.replace_block(text, block) == text, f"{page}: python -m bench.report writes it"


# -- plots ---------------------------------------------------------------------------


@pytest.mark.slow
def test_every_figure_of_the_report_is_drawn_and_always_the_same(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    path = written(tmp_path, made_up())
    files = plots.draw(load(path), path)
    names = ["overview", "loopback", "capped", "recompressed", "floor", "rss"]
    assert [file.name for file in files] == [f"2026-11-24-vm-{name}.svg" for name in names]
    text = report.full_report(load(path), path.stem)
    assert all(f"({file.name})" in text for file in files)
    before = [file.read_bytes() for file in files]
    assert [file.read_bytes() for file in plots.draw(load(path), path)] == before
    assert all(svg.startswith(b"<?xml") and b"<dc:date>" not in svg for svg in before)


@pytest.mark.slow
def test_only_what_there_are_data_for_is_drawn(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    raw = made_up() | {"runs": runs("curl", "download", [1.0], 0.5), "floor": []}
    path = written(tmp_path, raw)
    assert [file.name for file in plots.draw(load(path), path)] == [
        "2026-11-24-vm-loopback.svg",
        "2026-11-24-vm-rss.svg",
    ]


# -- floor ---------------------------------------------------------------------------


needs_libraries = pytest.mark.skipif(
    None in (ccore.pkg_config("libisal"), ccore.pkg_config("libzstd")), reason="floor.c needs both libraries"
)


@pytest.fixture(scope="module", params=ccore.compilers())
def program(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """floor.c, compiled without a warning."""
    return floor.build(tmp_path_factory.mktemp("floor"), compiler=request.param)


def small_image(root: Path, codec: str) -> BuiltImage:
    """Two layers that end in the middle of everything, and one in several members or frames if ``codec``."""
    layers = [
        zeros_layer(700_001),
        text_layer({f"etc/{n}": f"{n} bottles of beer\n" * n for n in range(300)}),
        incompressible_layer(3_000_017),
    ]
    return build_image(root, layers, compression=codec)


@pytest.mark.slow
@needs_libraries
@pytest.mark.parametrize("codec", ["gzip", "gzip-fast", "gzip-members", "zstd", "zstd-frames"])
def test_the_floor_hashes_both_ends_of_every_layer(program: Path, codec: str, tmp_path: Path) -> None:
    image = small_image(tmp_path / "image", codec)
    blobs = [image.blob_path(layer.digest) for layer in image.layers]
    result = floor.run_once(program, codec.partition("-")[0], blobs, tmp_path)
    floor.check(result, image)
    assert [(it["in_digest"], it["out_digest"]) for it in result["layers"]] == [
        (layer.digest, layer.diff_id) for layer in image.layers
    ]
    assert [(it["in_nbytes"], it["out_nbytes"]) for it in result["layers"]] == [
        (layer.size, layer.uncompressed_size) for layer in image.layers
    ]
    assert all(value > 0 for name, value in result.items() if name.endswith("_s"))
    assert {path.name for path in tmp_path.iterdir()} == {"image"}


@pytest.mark.slow
@needs_libraries
@pytest.mark.parametrize("compression", ["gzip", "zstd"])
def test_the_floor_of_a_truncated_blob_is_an_error(program: Path, compression: str, tmp_path: Path) -> None:
    image = small_image(tmp_path / "image", compression)
    whole = image.blob_path(image.layers[2].digest).read_bytes()
    cut = tmp_path / "cut"
    for nbytes in (len(whole) - 1, 2_000_000, 11):
        cut.write_bytes(whole[:nbytes])
        with pytest.raises(floor.FloorError):
            floor.run_once(program, compression, [cut], tmp_path)


@pytest.mark.slow
@needs_libraries
def test_floors_are_sums_of_medians(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(floor, "BUILT", tmp_path / "built")
    image = small_image(tmp_path / "image", "zstd")
    (row,) = floor.measure([("big", "zstd:chunked", image)], 2, tmp_path)
    assert (row["shape"], row["compression"]) == ("big", "zstd:chunked")
    assert row["dest"] == floor.filesystem(tmp_path)
    for name, parts in floor.FLOORS.items():
        assert row[name] == pytest.approx(sum(_seconds(row, part) for part in parts))
    other = small_image(tmp_path / "other", "gzip")
    with pytest.raises(floor.FloorError):
        floor.measure([("big", "zstd", other)], 1, tmp_path)


def _seconds(row: dict[str, object], name: str) -> float:
    value = row[name]
    assert isinstance(value, float) and value > 0
    return value


def test_other_bytes_than_those_of_the_image_are_no_floor(tmp_path: Path) -> None:
    image = build_image(tmp_path, [text_layer({"a": "b"})])
    (layer,) = image.layers
    right = {"in_digest": layer.digest, "out_digest": layer.diff_id}
    floor.check({"layers": [right]}, image)
    with pytest.raises(floor.FloorError):
        floor.check({"layers": [right | {"out_digest": layer.digest}]}, image)


# -- sizes ---------------------------------------------------------------------------


@pytest.fixture(scope="module")
def server() -> Iterator[RegistryServer]:
    with RegistryServer() as running:
        yield running


@pytest.mark.slow
@pytest.mark.parametrize("compression", ["gzip", "zstd"])
def test_a_layer_of_repeated_members_is_pulled_in_every_form(
    compression: str, server: RegistryServer, tmp_path: Path
) -> None:
    unit = random.Random(5).randbytes(300_000) + bytes(700_000)
    packed = size.CODECS[compression](unit)
    image = size.build(tmp_path / "image", unit, packed, 3, compression)
    (layer,) = image.layers
    assert layer.uncompressed_size == 3_000_000
    assert image.blob_path(layer.digest).read_bytes() == packed * 3
    reference = upload(image, f"one:{compression}", server)
    for form in size.FORMS:
        usage = size.pull(reference, form, image, tmp_path)
        assert usage.wall_s > 0
    assert {path.name for path in tmp_path.iterdir()} == {"image"}


def test_a_size_that_does_not_fit_is_not_tried(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(size, "content_unit", lambda: bytes(1 << 20))
    monkeypatch.setattr(size, "fits", lambda nbytes, directory: False)
    assert size.measure((64, 128), dest=tmp_path) == []
    assert capsys.readouterr().out.count("left out") == 4
    with pytest.raises(ValueError, match="100 MiB"):
        size.measure((100,), dest=tmp_path)


def test_room_is_needed_for_the_blob_and_for_what_it_inflates_to(tmp_path: Path) -> None:
    assert size.needed_nbytes(128, 25 << 20) == (50 + 128) << 20
    assert size.fits(0, tmp_path)
    assert not size.fits(1 << 60, tmp_path)
