"""The figures that this project is held to: how they are compared, kept and shown, and the model."""

from __future__ import annotations

import dataclasses
import os
import re
import shlex
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from bench.held import command, page
from bench.held.document import (
    Body,
    Document,
    Load,
    Ratio,
    identity,
    incomparable,
    load,
    own_s,
    paired,
    require_built,
    shifts,
    store,
    stored_at,
    writing,
)
from bench.held.model import CORES, Costs, Layer, NoCosts, costs_of, only_cpus, predict
from bench.held.rounds import interleaved
from bench.held.sections import SECTIONS, Settings

ROOT = Path(__file__).resolve().parents[2]
SLUG = "epyc-2cpu"
MACHINE: dict[str, Any] = {
    "slug": SLUG,
    "cpu": "AMD EPYC",
    "n_cpus": 2,
    "os": "Debian",
    "kernel": "6",
    "python": "3",
}


def rounds(*walls: float) -> list[dict[str, float]]:
    return [{"wall_s": wall, "cpu_s": 2 * wall} for wall in walls]


def document(
    wall: float = 0.5,
    *,
    others: float = 0.0,
    small: bool = False,
    profile: tuple[str, str] = ("skopeo", "1.9"),
) -> Document:
    """Of starts, with one ratio."""
    ratio = paired("pull: over skopeo", rounds(*(wall * it for it in (2.0, 4.0, 3.0))), rounds(2.0, 4.0, 3.0))
    row = {"command": "pull", "client": "layertee", "wall_s": wall, "cpu_s": wall, "rounds": 3}
    body = Body(rows=[row], ratios=[ratio], profile=dict([profile]), notes=["a note"])
    return Document(
        "starts", "python -m bench starts", "2026-11-28", MACHINE, identity(), small, others, body
    )


# -- ratios ------------------------------------------------------------------------------


def test_a_ratio_is_the_median_of_the_rounds_own_ratios() -> None:
    # The machine was ten times slower in the second round: for both.
    ratio = paired("x", rounds(1.0, 12.0, 0.9), rounds(2.0, 20.0, 2.0), goal_wall=0.5)
    assert (ratio.wall, ratio.rounds) == (0.5, 3)
    assert ratio.cpu == 0.5
    assert ratio.wall_quartiles == (0.475, 0.55)
    alone = paired("x", rounds(1.0), rounds(4.0), cpu=False)
    assert (alone.wall, alone.wall_quartiles, alone.cpu) == (0.25, (0.25, 0.25), None)
    with pytest.raises(ValueError, match="longer"):
        paired("x", rounds(1.0), rounds(1.0, 2.0))


@pytest.mark.parametrize(("now", "worse"), [(0.5149, False), (0.5151, True), (0.4, False), (0.9, True)])
def test_three_in_a_hundred_is_a_regression(now: float, worse: bool) -> None:
    found = shifts(document(0.5), document(now))
    assert [shift.what for shift in found] == ["wall", "cpu"]
    assert {shift.is_regression for shift in found} == {worse}
    assert found[0].change == pytest.approx(now / 0.5 - 1, abs=1e-3)


def test_a_shift_is_clear_where_neither_median_is_within_the_others_quartiles() -> None:
    def ratio(wall: float, low: float, high: float) -> Document:
        made = document()
        made.body.ratios = [Ratio("x", 9, wall=wall, wall_quartiles=(low, high))]
        return made

    (far,) = shifts(ratio(0.50, 0.49, 0.51), ratio(0.55, 0.53, 0.57))
    (near,) = shifts(ratio(0.50, 0.45, 0.56), ratio(0.55, 0.53, 0.57))
    assert (far.clear, near.clear) == (True, False)
    said = page.changes([far, near])
    assert "REGRESSION" in said[0] and "within" not in said[0]
    assert "REGRESSION (within the quartiles" in said[1]


def test_only_the_same_machine_content_and_versions_are_compared() -> None:
    before = document()
    assert incomparable(before, document(0.6)) is None
    other = replace(before, machine=MACHINE | {"cpu": "Xeon"})
    assert "another machine" in (incomparable(before, other) or "")
    assert "tenth" in (incomparable(before, document(small=True)) or "")
    assert "another image big" in (incomparable(before, document(profile=("image big", "sha256:1"))) or "")
    newer = document(profile=("skopeo", "1.22"))
    assert incomparable(before, newer) == "another skopeo: 1.9, now 1.22"
    newer.body.ratios = [replace(newer.body.ratios[0], key="another")]
    assert shifts(before, newer) == []


# -- documents ------------------------------------------------------------------------------


def test_a_document_is_read_back_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "a" / "starts.json"
    store(document(), path)
    assert load(path) == document()
    path.write_text(path.read_text().replace('"schema": 1', '"schema": 2'))
    with pytest.raises(ValueError, match="another schema"):
        load(path)


def test_what_others_do_is_told_from_what_this_process_and_its_children_do() -> None:
    seconds = {"clock": [10.0, 20.0], "busy": [100.0, 112.0], "own": [1.0, 9.0]}
    watched = Load(*(iter(seconds[name]).__next__ for name in ("clock", "busy", "own")))
    # Of 10 s of each CPU, 12 s were used, and 8 of these by this process and its children.
    assert watched.others() == pytest.approx(4 / (10 * (os.cpu_count() or 1)), abs=1e-3)
    before = own_s()
    subprocess.run([sys.executable, "-c", "import time\nwhile time.process_time() < 0.3: pass"], check=True)
    assert 0.3 <= own_s() - before < 2


def test_a_loaded_machine_and_a_tenth_of_the_content_do_not_count() -> None:
    assert document().counts
    assert not document(others=0.2).counts and "20%" in page.why_not(document(others=0.2))
    assert not document(small=True).counts and "tenth" in page.why_not(document(small=True))


def test_a_section_that_is_measured_gets_its_circumstances() -> None:
    with writing("starts", "python -m bench starts", small=True) as (body, made):
        body.facts["x"] = 1
    (it,) = made
    assert (it.section, it.small, it.product, it.body.facts) == ("starts", True, identity(), {"x": 1})
    assert re.fullmatch(r"[0-9a-f]{12}", it.product)
    assert it.machine["n_cpus"] >= 1


def test_a_core_that_is_older_than_its_sources_is_not_measured(tmp_path: Path) -> None:
    core, source = tmp_path / "engine/layertee/core", tmp_path / "csrc/a/lt_a.c"
    for path in (core, source.parent):
        path.mkdir(parents=True)
    source.touch()
    with pytest.raises(ValueError, match="has no C core"):
        require_built(tmp_path)
    (core / "_ctee.abi3.so").touch()
    require_built(tmp_path)
    newer = (core / "_ctee.abi3.so").stat().st_mtime + 10
    os.utime(source, (newer, newer))
    with pytest.raises(ValueError, match=r"older than csrc/a/lt_a\.c"):
        require_built(tmp_path)


# -- the command ------------------------------------------------------------------------------


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory as a checkout's: results are written below it."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def kept(*, results: bool = True) -> float | None:
    """The wall ratio that is stored, if any."""
    path = stored_at("starts", SLUG, kept=results)
    return load(path).body.ratios[0].wall if path.exists() else None


@pytest.mark.usefixtures("home")
def test_what_is_worse_is_shown_and_the_stored_figures_stay(capsys: pytest.CaptureFixture[str]) -> None:
    assert command.keep(document(0.5), accept=False, wanted=True)
    assert kept() == 0.5
    assert not command.keep(document(0.6), accept=False, wanted=True)
    assert (kept(), kept(results=False)) == (0.5, 0.6)
    said = capsys.readouterr().out
    assert "+20.0%  0.500 -> 0.600  pull: over skopeo, wall  REGRESSION" in said
    assert command.keep(document(0.6), accept=True, wanted=True)
    assert kept() == 0.6
    assert command.keep(document(0.45), accept=False, wanted=True)
    assert kept() == 0.45


@pytest.mark.usefixtures("home")
def test_neither_loaded_nor_unwanted_figures_are_stored(capsys: pytest.CaptureFixture[str]) -> None:
    for it, wanted in ((document(others=0.5), True), (document(small=True), True), (document(), False)):
        assert command.keep(it, accept=True, wanted=wanted)
        assert kept() is None and kept(results=False) == 0.5
    command.keep(document(0.5), accept=False, wanted=True)
    # Nor is another profile a regression, whatever its ratio.
    assert command.keep(document(0.9, profile=("skopeo", "1.22")), accept=False, wanted=True)
    assert "not comparable" in capsys.readouterr().out


def test_a_refresh_goes_on_where_it_was_interrupted(home: Path) -> None:
    from bench.results import machine

    here = replace(document(), machine=machine())
    assert not command.is_done("starts", small=False)
    store(here, home / stored_at("starts", here.machine["slug"], kept=False))
    assert command.is_done("starts", small=False)
    assert not command.is_done("starts", small=False, stored=True)
    assert not command.is_done("starts", small=True)
    store(replace(here, product="of others"), home / stored_at("starts", here.machine["slug"], kept=False))
    assert not command.is_done("starts", small=False)
    store(replace(here, others=0.3), home / stored_at("starts", here.machine["slug"], kept=False))
    assert not command.is_done("starts", small=False)


@pytest.mark.parametrize(
    "words",
    [
        ["nonsense"],
        ["refresh", "nonsense"],
        ["kernels", "starts"],
        ["refresh", "--peer", "crane"],
    ],
)
def test_what_cannot_be_measured_is_refused(words: list[str]) -> None:
    with pytest.raises(SystemExit):
        command.arguments(words)


def test_the_commands_of_the_readme_are_understood() -> None:
    text = (ROOT / "bench" / "README.md").read_text(encoding="utf-8")
    shown = re.findall(r"^python -m bench ([a-z][^#\n]*)", text, re.MULTILINE)
    assert {words.split()[0] for words in shown} == {"refresh", "page", *SECTIONS}
    for words in shown:
        command.arguments(shlex.split(words))


# -- the page ----------------------------------------------------------------------------------


def test_the_page_shows_what_counts_and_says_what_was_not_measured() -> None:
    text = page.block({"starts": document()})
    assert text.count("Not measured yet.") == len(SECTIONS) - 1
    assert "| pull: over skopeo | 0.500 (0.500-0.500) |  | 0.500" in text
    assert "a note." in text
    assert page.block({"starts": document(others=0.2)}).count("Not measured yet.") == len(SECTIONS)


def test_goals_are_beside_their_ratios() -> None:
    lines = page.ratios([paired("x", rounds(1.0), rounds(2.0), goal_wall=0.6, goal_cpu=0.4)])
    cells = ("x", "0.500 (0.500-0.500)", "0.600 reached", "0.500 (0.500-0.500)", "0.400 **not reached**", "1")
    assert lines[-1] == f"| {' | '.join(cells)} |"


def test_the_block_replaces_what_is_between_the_marks() -> None:
    text = f"before\n{page.BEGIN}\nold\n{page.END}\nafter\n"
    assert page.replaced(text, "new") == f"before\n{page.BEGIN}\nnew\n{page.END}\nafter\n"
    for broken in ("", page.BEGIN, f"{page.END}{page.BEGIN}", text * 2):
        with pytest.raises(ValueError, match="expected one"):
            page.replaced(broken, "new")
    assert page.replaced((ROOT / "bench" / "README.md").read_text(encoding="utf-8"), "new")


# -- rounds ---------------------------------------------------------------------------------------


def test_rounds_have_each_of_the_field_once_and_the_first_may_not_count() -> None:
    calls: list[str] = []

    def run(name: str) -> Any:
        def one() -> int:
            calls.append(name)
            return len(calls)

        return one

    field = {name: run(name) for name in "abc"}
    taken = interleaved(field, seconds=0, rounds=5)
    assert [sorted(calls[i : i + 3]) for i in range(0, 18, 3)] == [["a", "b", "c"]] * 6
    assert {len(it) for it in taken.values()} == {5}
    assert min(min(it) for it in taken.values()) == 4
    assert {len(it) for it in interleaved(field, seconds=0, warm=False).values()} == {3}
    assert {len(it) for it in interleaved(field, seconds=60, most=7).values()} == {7}


# -- the model -------------------------------------------------------------------------------------

COSTS = Costs(
    inflate=1.2,
    hash_pair=0.3,
    hash_single=0.55,
    write=0.35,
    loop_in=0.3,
    server_in=0.2,
    ahead=1.4,
    start_s=0.2,
)
MANY = [Layer(0.01, 0.03)] * 42  # in threes
LONE = [Layer(0.3, 1.0)]


def test_on_one_core_a_pull_takes_the_sum_of_its_work() -> None:
    it = predict(MANY, COSTS, 1)
    work = 1.26 * (1.2 + 0.35) + 0.3 * 1.68 + 0.42 * 0.3  # inflating, writing; hashing in pairs; receiving
    assert it.cpu_s == pytest.approx(0.2 + work)
    assert it.wall_s == pytest.approx(0.2 + work + 0.42 * 0.2)
    halved = predict(MANY, COSTS, 2)
    assert halved.wall_s == pytest.approx(0.2 + (it.wall_s - 0.2) / 2, rel=0.02)


@pytest.mark.parametrize("layers", [MANY, LONE, [Layer(0.3, 1.0), *MANY]])
def test_more_cores_never_take_longer_nor_does_a_server_elsewhere(layers: list[Layer]) -> None:
    walls = [predict(layers, COSTS, cores).wall_s for cores in CORES]
    assert walls == sorted(walls, reverse=True)
    assert all(
        predict(layers, replace(COSTS, server_in=0.0), cores).wall_s <= wall + 1e-9
        for cores, wall in zip(CORES, walls, strict=True)
    )


def test_a_lone_layer_gains_by_decoding_ahead_and_pays_for_it() -> None:
    plain, ahead = predict(LONE, replace(COSTS, ahead=0.0), 4), predict(LONE, COSTS, 4)
    # In its turn, all of it is inflated by one worker after another; ahead, hashing is what must be in order.
    assert plain.wall_s == pytest.approx(0.2 + 1.2)
    assert ahead.wall_s == pytest.approx(0.2 + 0.55 + 0.35)
    assert ahead.cpu_s > plain.cpu_s
    assert predict(LONE, COSTS, 1) == predict(LONE, replace(COSTS, ahead=0.0), 1)


def test_the_thread_that_receives_bounds_any_number_of_cores() -> None:
    slow = replace(COSTS, loop_in=5.0)
    assert predict(MANY, slow, 16).wall_s == pytest.approx(0.2 + 0.42 * 5.0)


def test_the_costs_are_those_that_were_measured() -> None:
    stages = {"inflate": 1.3, "hash2_out": 0.31, "hash1_out": 0.56, "write_out": 0.36}
    facts: dict[str, dict[str, Any]] = {
        "kernels": {"inflate_s_per_gb": 1.0, "stages_gzip_s_per_gb": stages, "stages_zstd_s_per_gb": stages},
        "lone": {"ahead_gzip": {"share": 0.4, "all": 1.35}, "ahead_zstd": {"share": 0.0, "all": 0.0}},
        "starts": {"noop_cpu_s": 0.2},
    }
    documents = {
        name: dataclasses.replace(document(), section=name, body=Body(facts=it)) for name, it in facts.items()
    }
    found = costs_of("gzip", documents)
    assert (found.inflate, found.hash_pair, found.hash_single, found.write) == (1.0, 0.31, 0.56, 0.36)
    assert (found.ahead, found.start_s) == (1.35, 0.2)
    assert (costs_of("zstd", documents).inflate, costs_of("zstd", documents).ahead) == (1.3, 0.0)
    del documents["lone"]
    with pytest.raises(NoCosts, match="bench lone"):
        costs_of("gzip", documents)


def test_what_is_started_on_few_cpus_has_only_these() -> None:
    ask = [sys.executable, "-c", "import os; print(len(os.sched_getaffinity(0)))"]
    with only_cpus(1):
        assert subprocess.run(ask, capture_output=True, text=True, check=True).stdout == "1\n"
    again = subprocess.run(ask, capture_output=True, text=True, check=True).stdout
    assert int(again) >= 1


@pytest.mark.usefixtures("home")
def test_a_section_that_fails_does_not_keep_others_from_being_measured(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fails(body: Body, settings: Settings) -> None:
        raise NoCosts("nothing to measure")

    def works(body: Body, settings: Settings) -> None:
        body.rows += document().body.rows

    monkeypatch.setitem(SECTIONS, "starts", replace(SECTIONS["starts"], measure=works))
    monkeypatch.setitem(SECTIONS, "kernels", replace(SECTIONS["starts"], name="kernels", measure=fails))
    monkeypatch.setattr(command, "warm", lambda name, images: None)
    monkeypatch.setattr(command, "write_page", lambda: None)
    monkeypatch.setattr(command, "require_built", lambda checkout: None)
    assert command.main(["refresh", "kernels", "starts", "--small"]) == 1
    said = capsys.readouterr()
    assert "kernels: nothing to measure" in said.err
    assert "starts: written to" in said.out
    assert command.latest(small=True)["starts"].body.rows == document().body.rows
