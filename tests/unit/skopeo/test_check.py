"""What is asked before skopeo is. What skopeo answers is in tests/peers/skopeo."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from layertee.config.policy import Policy
from layertee.errors import LocalError, UnsafePath
from layertee.image.document import Digest, Manifest, Platform, parse_document
from layertee.image.reference import parse_reference
from layertee.skopeo.check import check_policy
from tests.support.policies import ASKED, S

OCI = "application/vnd.oci.image"
CONFIG = {"mediaType": f"{OCI}.config.v1+json", "digest": Digest.of(b"{}"), "size": 2}
RAW = {"schemaVersion": 2, "mediaType": f"{OCI}.manifest.v1+json", "config": CONFIG, "layers": []}


def judged_by(skopeo: Path) -> Digest:
    manifest = parse_document(json.dumps(RAW).encode(), None)
    assert isinstance(manifest, Manifest)
    policy = Policy(Path("/policy.json"), ASKED[S], {})
    image = parse_reference("docker://quay.io/a/b:1")
    return asyncio.run(check_policy(skopeo, image, policy, manifest, platform=Platform("linux", "amd64")))


@pytest.fixture
def skopeo(tmp_path: Path) -> Path:
    """Leaves a file where it was run, and accepts everything."""
    program = tmp_path / "bin" / "skopeo"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\ntouch "{tmp_path}/ran"\n')
    program.chmod(0o755)
    return program


@pytest.mark.parametrize("which", ["bin", "bin/skopeo"])
def test_a_skopeo_that_others_can_replace_is_not_asked(skopeo: Path, tmp_path: Path, which: str) -> None:
    (tmp_path / which).chmod(0o777)
    with pytest.raises(UnsafePath, match=f"chmod go-w {tmp_path / which}$"):
        judged_by(skopeo)
    assert not (tmp_path / "ran").exists()


def test_where_there_is_no_room_for_the_check_that_is_said(
    skopeo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def nowhere(*_: object, **__: object) -> str:
        raise FileNotFoundError(2, "No usable temporary directory found")

    monkeypatch.setattr("tempfile.gettempdir", nowhere)
    monkeypatch.setattr("tempfile.mkdtemp", nowhere)
    with pytest.raises(LocalError, match=r"preparing a policy check in .*No usable temporary directory"):
        judged_by(skopeo)
    assert not (tmp_path / "ran").exists()
