"""Directories in the place of images, where signatures are wanted of those that are left to skopeo."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from layertee import Engine, Options
from layertee.errors import NotFound
from layertee.imageproxy.judge import taken_as
from layertee.options import PolicyOptions
from layertee.sync import run


@pytest.mark.parametrize("kind", ["missing", "directory", "pipe", "pipe with a writer"])
def test_what_is_no_file_is_no_manifest(kind: str, tmp_path: Path) -> None:
    wanted = {"type": "signedBy", "keyType": "GPGKeys", "keyPath": "/nonexistent"}
    policy = tmp_path / "policy.json"
    policy.write_text(json.dumps({"default": [wanted]}))
    image = tmp_path / "image"
    image.mkdir()
    manifest = image / "manifest.json"
    writer = None
    if kind == "directory":
        manifest.mkdir()
    elif kind.startswith("pipe"):
        os.mkfifo(manifest)
        if kind != "pipe":
            writer = os.open(manifest, os.O_RDWR | os.O_NONBLOCK)

    async def main() -> None:
        options = Options(policy=PolicyOptions(file=policy))
        async with Engine(tmp_path / "store", options=options) as engine:
            with pytest.raises(NotFound):
                await taken_as(f"dir:{image}", engine, readable=False)

    try:
        run(main())
    finally:
        if writer is not None:
            os.close(writer)
