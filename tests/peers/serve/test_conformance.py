"""The conformance program of OCI's distribution specification, at every kind of place that is served."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest

from tests.support.compress import digest_of
from tests.support.rig.conformance import Offer, judge
from tests.support.rig.prebuild import NotBuilt
from tests.support.served import REPOSITORY, TAG, Shop

pytestmark = [
    pytest.mark.slow,
    pytest.mark.builds("conformance"),
    pytest.mark.needs_root("podman's store is among the places"),
]


def test_all_that_a_registry_is_asked_for_that_takes_nothing(shop: Shop, tmp_path: Path) -> None:
    raw = shop.manifest
    manifest = json.loads(raw)
    blobs = [manifest["config"]["digest"], *(layer["digest"] for layer in manifest["layers"])]
    offer = Offer([TAG], [digest_of(raw)], blobs, subjects=[digest_of(raw)])
    try:
        verdict = judge(shop.server.host, REPOSITORY, offer, tmp_path)
    except NotBuilt as exc:
        pytest.skip(str(exc))
    assert verdict.failed == [], verdict.text
    asked = Counter(verdict.passed)
    assert asked["read-only/head/blob-head"] == asked["read-only/pull/blob-get"] == len(set(blobs))
    for by in ("tag", "digest"):
        assert (
            asked[f"read-only/head/manifest-head-by-{by}"] == asked[f"read-only/pull/manifest-by-{by}"] == 1
        )
    assert {
        *("ping", "empty/tag list", "empty/referrers", "read-only/tag-list", "read-only/referrers"),
        *("missing-manifest/by-digest", "missing-manifest/by-tag", "invalid-digest-format/manifest-get"),
    } <= set(asked)
