"""The benchmark of the image-proxy: a real small run, what it refuses to count, and its summary."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from bench import proxy
from bench.contenders import WrongResult
from bench.proxy import PEER, Contender, Row, check, contenders, run_once, summary, table
from bench.regimes import REGIMES, serve
from bench.where import BUILT, RESULTS
from tests.support.rig import prebuild, proxyclient
from tests.support.rig.images import BuiltImage, build_image
from tests.support.rig.layers import incompressible_layer, text_layer

FIELD = [
    Contender("layertee", proxyclient.ours, {"capped": 0.5, "loopback": 1.0}),
    Contender(PEER, lambda _: [PEER], {}),
]


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> BuiltImage:
    layers = [incompressible_layer(200_000), text_layer({"etc/release": "1\n" * 30_000})]
    return build_image(tmp_path_factory.mktemp("image"), layers)


def row(number: int, name: str, wall_s: float, cpu_s: float = 1.0) -> Row:
    return Row("capped", number, name, wall_s, cpu_s, 0.5, 0.5, 0.1, 1000)


@pytest.mark.slow
@pytest.mark.builds("proxyclient")
def test_every_server_is_measured_with_an_empty_store(image: BuiltImage, tmp_path: Path) -> None:
    try:
        client = prebuild.program("proxyclient")
    except prebuild.NotBuilt as exc:
        pytest.skip(str(exc))
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    with serve(REGIMES["loopback"], tmp_path) as server:
        source = server.publish(image, "1")
        for contender in [*contenders(*proxyclient.theirs()), contenders("skopeo")[0]]:
            taken = run_once(contender, client, source, server, scratch)
            assert taken["wall_s"] > 0 and taken["wire_nbytes"] == image.blob_bytes
            assert abs(taken["cpu_s"] - taken["client_cpu_s"] - taken["proxy_cpu_s"]) < 0.1
            assert list(scratch.iterdir()) == []


@pytest.mark.parametrize("wrong", [{"finalize": "proxy failed"}, {"layers": 1}, {"nbytes": 10}, {"wire": 10}])
def test_a_run_that_did_not_do_its_work_is_refused(image: BuiltImage, wrong: dict[str, Any]) -> None:
    tars = sum(layer.uncompressed_size for layer in image.layers)
    right: dict[str, Any] = {"finalize": "ok", "layers": 2, "nbytes": tars, "wire": image.blob_bytes}
    check(FIELD[0], right, image, image.blob_bytes)
    told = right | wrong
    with pytest.raises(WrongResult, match="layertee"):
        check(FIELD[0], told, image, told["wire"])


def test_ratios_are_those_of_pairs_of_the_same_round() -> None:
    rows = [
        *(row(1, "layertee", 1.0), row(2, "layertee", 4.0), row(3, "layertee", 1.0, cpu_s=2.0)),
        *(row(1, PEER, 4.0), row(2, PEER, 8.0), row(3, PEER, 5.0)),
    ]
    ours, theirs = summary(rows, FIELD)
    assert (ours["wall_s"], ours["wall_min_s"], ours["wall_max_s"]) == (1.0, 1.0, 4.0)
    assert (ours["wall_s_ratio"], ours["cpu_s_ratio"]) == (0.25, 1.0)
    assert (ours["goal"], ours["met"]) == (0.5, True)
    assert (theirs["wall_s_ratio"], "goal" in theirs) == (1.0, False)
    text = table([ours, theirs])
    assert "| capped | layertee | 1.00 (1.00-4.00) | 0.25 | ≤ 0.50 met |" in text
    assert "missed" in table(summary([row(1, "layertee", 3.0), row(1, PEER, 4.0)], FIELD))


def test_results_stay_out_of_those_of_whole_pulls(tmp_path: Path) -> None:
    assert proxy.arguments([]).out == RESULTS / "proxy"
    assert proxy.arguments(["--small"]).out == BUILT / "results" / "proxy"
    path = proxy.write(tmp_path / "out", {"date": "2030-01-02", "machine": {"slug": "cpu"}, "runs": []})
    assert path.name == "2030-01-02-cpu.json"
    assert json.loads(path.read_text())["runs"] == []
