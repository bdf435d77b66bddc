"""The conformance program, and what is read of its verdict: at a docker-registry."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.compress import digest_of
from tests.support.rig.conformance import Offer, judge
from tests.support.rig.images import build_image, upload
from tests.support.rig.layers import text_layer
from tests.support.rig.prebuild import NotBuilt
from tests.support.rig.registry import RegistryServer

pytestmark = [pytest.mark.slow, pytest.mark.builds("conformance")]


def test_it_passes_what_is_there_and_fails_what_is_not(registry: RegistryServer, tmp_path: Path) -> None:
    image = build_image(tmp_path / "image", [text_layer({"etc/a": "a"})])
    upload(image, "conformance/os:1", registry)
    missing = digest_of(b"missing")
    offer = Offer(["1"], [image.digest], [image.config_digest, *image.layer_digests, missing])
    try:
        verdict = judge(registry.host, "conformance/os", offer, tmp_path)
    except NotBuilt as exc:
        pytest.skip(str(exc))
    for step in ("pull/blob-get", "head/blob-head"):
        assert verdict.passed.count(f"read-only/{step}") == 2, verdict.text
        assert verdict.failed.count(f"read-only/{step}") == 1, verdict.text
    for by in ("tag", "digest"):
        assert verdict.passed.count(f"read-only/pull/manifest-by-{by}") == 1, verdict.text
    assert {"ping", "missing-manifest/by-tag"} <= set(verdict.passed)
    assert "" in verdict.failed, "the whole"
