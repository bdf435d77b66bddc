"""What a pull tells its caller: results, the JSON they become, and progress."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest

from layertee import Engine, Form, ImagePlan, sync
from layertee.image.document import DiffID
from layertee.pulling.plan import Action
from layertee.pulling.report import Asked, LayerProgress, LayerResult, Progress, PullResult
from tests.support.compress import digest_number
from tests.support.rig.images import BuiltImage, build_image
from tests.support.rig.layers import text_layer

KEYS = [
    "image",
    "dry_run",
    "manifest_digest",
    "local_manifest_digest",
    "config_digest",
    "manifests",
    "layers",
    "endpoints",
    "bytes_fetched",
    "bytes_reused",
    "seconds",
    "policy",
    "seen",
    "warnings",
]
LAYER_KEYS = [
    *("digest", "diff_id", "size", "uncompressed_size", "action", "reason", "bytes_fetched", "resumed_at"),
    *("as_tar", "place", "basis", "kept_elsewhere", "endpoints"),
]


def layer(n: int, action: Action, size: int, fetched: int = 0) -> LayerResult:
    return LayerResult(
        digest_number(n), DiffID(str(digest_number(n + 100))), size, None, action, "because", fetched
    )


def progress(*layers: tuple[Action, str, int, int], seconds: float = 0.0) -> Progress:
    shown = (
        LayerProgress(index, digest_number(index), action, size, done, state)
        for index, (action, state, done, size) in enumerate(layers)
    )
    return Progress(tuple(shown), seconds)


RESULT = PullResult(
    "host/image:tag",
    digest_number(1),
    digest_number(2),
    digest_number(3),
    (layer(4, Action.FETCH, 100, 130), layer(5, Action.REUSE, 200), layer(6, Action.HAVE, 400)),
    1.23456,
    ("careful",),
)


SENT = ((4, {"mirror.test/os": 130}), (5, {"mirror.test/os": 10, "origin.test/os": 120}))


def test_bytes_are_counted_by_how_they_came() -> None:
    assert RESULT.bytes_fetched == 130  # what was sent twice counts twice
    assert RESULT.bytes_reused == 600


def test_a_result_is_one_json_object_of_a_fixed_shape() -> None:
    shape = json.loads(json.dumps(RESULT.to_json()))
    assert list(shape) == KEYS
    assert [list(entry) for entry in shape["layers"]] == [LAYER_KEYS] * 3
    assert [entry["action"] for entry in shape["layers"]] == ["fetch", "reuse", "have"]
    assert (shape["manifest_digest"], shape["local_manifest_digest"]) == (digest_number(1), digest_number(2))
    assert (shape["bytes_fetched"], shape["bytes_reused"], shape["seconds"]) == (130, 600, 1.235)


def test_bytes_are_divided_among_the_endpoints_of_an_image() -> None:
    mirror, origin = Asked("mirror.test/os", True, True), Asked("origin.test/os", False, False)
    layers = [dataclasses.replace(layer(n, Action.FETCH, 100, 130), by_endpoint=sent) for n, sent in SENT]
    result = dataclasses.replace(RESULT, layers=tuple(layers), asked=(mirror, origin))
    assert result.by_endpoint == {mirror.name: 140, origin.name: 120}
    assert result.to_json()["endpoints"] == [
        {"name": mirror.name, "mirror": True, "insecure": True, "bytes_fetched": 140},
        {"name": origin.name, "mirror": False, "insecure": False, "bytes_fetched": 120},
    ]
    assert [shown["endpoints"] for shown in result.to_json()["layers"]] == [sent for _, sent in SENT]
    unused = dataclasses.replace(RESULT, asked=(mirror, origin))
    assert unused.by_endpoint == {mirror.name: 0, origin.name: 0}


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> BuiltImage:
    twice = text_layer({"a": "a\n" * 1000})
    return build_image(tmp_path_factory.mktemp("image"), [twice, text_layer({"b": "b\n" * 1000}), twice])


def planned(root: Path, image: BuiltImage, *, pull: bool) -> tuple[ImagePlan, PullResult | None]:
    async def main() -> tuple[ImagePlan, PullResult | None]:
        async with Engine(root) as engine:
            plan = await engine.plan(f"oci:{image.root}:{image.ref}", form=Form.UNCOMPRESSED)
            return plan, await engine.pull(plan) if pull else None

    return sync.run(main())


def test_a_plan_has_the_shape_of_a_result_and_what_comes_true(image: BuiltImage, tmp_path: Path) -> None:
    plan, result = planned(tmp_path, image, pull=True)
    assert result is not None
    before, after = plan.to_json(), result.to_json()
    assert list(before) == list(after) == KEYS
    assert before["local_manifest_digest"] is None
    expected = plan.planned()
    for promised, kept in zip(expected.layers, result.layers, strict=True):
        assert (promised.action, promised.bytes_fetched) == (kept.action, kept.bytes_fetched)
        assert promised.uncompressed_size in (None, kept.uncompressed_size)
    assert [entry.uncompressed_size for entry in result.layers] == [
        built.uncompressed_size for built in image.layers
    ]
    again, _ = planned(tmp_path, image, pull=False)
    assert {step.action for step in again.layers} == {Action.HAVE}


def test_what_is_here_already_is_not_counted_as_work() -> None:
    some = progress(
        (Action.FETCH, "running", 30, 100), (Action.HAVE, "done", 0, 500), (Action.REUSE, "waiting", 0, 50)
    )
    assert (some.bytes_done, some.bytes_total) == (30, 150)
    checked = progress((Action.HAVE, "done", 500, 500))
    assert (checked.bytes_done, checked.bytes_total) == (500, 500)
    assert (progress().bytes_done, progress().bytes_total) == (0, 0)


def test_a_snapshot_stays_as_it_was(image: BuiltImage, tmp_path: Path) -> None:
    seen: list[Progress] = []
    copies: list[list[LayerProgress]] = []

    def keep(progress: Progress) -> None:
        seen.append(progress)
        copies.append([dataclasses.replace(layer) for layer in progress.layers])

    async def main() -> None:
        async with Engine(tmp_path) as engine:
            await engine.pull(await engine.plan(f"oci:{image.root}:{image.ref}"), keep)

    sync.run(main())
    assert len(seen) >= 2
    assert [list(progress.layers) for progress in seen] == copies
    assert seen[0].bytes_done < seen[-1].bytes_done
