"""The conformance program of OCI's distribution specification, at every kind of place that is served."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from tests.support.compress import digest_of
from tests.support.rig.conformance import Offer, Verdict, judge
from tests.support.rig.images import OCI_MANIFEST, build_image, build_index
from tests.support.rig.layers import text_layer
from tests.support.rig.prebuild import NotBuilt
from tests.support.rig.serve import ServeRig
from tests.support.served import REPOSITORY, TAG, Shop

pytestmark = [
    pytest.mark.slow,
    pytest.mark.builds("conformance"),
    pytest.mark.needs_root("podman's store is among the places"),
]
ALL_OVER = {
    *("ping", "empty/tag list", "empty/referrers", "read-only/tag-list", "read-only/referrers"),
    *("missing-manifest/by-digest", "missing-manifest/by-tag", "invalid-digest-format/manifest-get"),
}


def test_all_that_a_registry_is_asked_for_that_takes_nothing(shop: Shop, tmp_path: Path) -> None:
    raw = shop.manifest
    manifest = json.loads(raw)
    blobs = [manifest["config"]["digest"], *(layer["digest"] for layer in manifest["layers"])]
    offer = Offer([TAG], [digest_of(raw)], blobs, subjects=[digest_of(raw)])
    verdict = judged(shop.server.host, offer, tmp_path)
    assert verdict.failed == [], verdict.text
    asked = Counter(verdict.passed)
    assert asked["read-only/head/blob-head"] == asked["read-only/pull/blob-get"] == len(set(blobs))
    for by in ("tag", "digest"):
        assert (
            asked[f"read-only/head/manifest-head-by-{by}"] == asked[f"read-only/pull/manifest-by-{by}"] == 1
        )
    assert set(asked) >= ALL_OVER


def test_an_index_several_tags_and_what_refers_to_an_image(tmp_path: Path) -> None:
    root = tmp_path / "layout"
    names = {tag: f"localhost/{REPOSITORY}:{tag}" for tag in ("all", "amd64", "arm64", "sbom")}
    images = [
        build_image(root, [text_layer({"of": tag})], platform=f"linux/{tag}", ref=names[tag])
        for tag in ("amd64", "arm64")
    ]
    index = build_index(root, images, ref=names["all"])
    kind = "application/vnd.example.sbom"
    subject = {"mediaType": OCI_MANIFEST, "digest": images[0].digest, "size": len(images[0].manifest)}

    def refer(manifest: dict[str, Any]) -> None:
        manifest |= {"subject": subject, "artifactType": kind}

    sbom = build_image(root, [text_layer({"sbom": "{}"})], ref=names["sbom"], edit_manifest=refer)
    blobs = {digest for one in (*images, sbom) for digest in (one.config_digest, *one.layer_digests)}
    manifests = [index.digest, sbom.digest, *(one.digest for one in images)]
    with ServeRig(tmp_path / "home", f"oci:{root}") as server:
        offer = Offer(list(names), manifests, sorted(blobs), subjects=[images[0].digest])
        verdict = judged(server.host, offer, tmp_path)
        assert verdict.failed == [], verdict.text
        asked = Counter(verdict.passed)
        assert asked["read-only/pull/manifest-by-tag"] == asked["read-only/pull/manifest-by-digest"] == 4
        assert asked["read-only/pull/blob-get"] == len(blobs)
        assert set(asked) >= ALL_OVER
        referrers = server.json(f"/v2/{REPOSITORY}/referrers/{images[0].digest}")["manifests"]
        assert [(one["digest"], one["artifactType"]) for one in referrers] == [(sbom.digest, kind)]


def judged(host: str, offer: Offer, work: Path) -> Verdict:
    try:
        return judge(host, REPOSITORY, offer, work)
    except NotBuilt as exc:
        pytest.skip(str(exc))
