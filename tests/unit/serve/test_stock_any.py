"""Whatever is where: what is offered can be had, what can be had is offered; a restart changes nothing."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Iterable
from pathlib import Path

import pytest

from layertee.errors import NotFound
from layertee.image.document import Digest
from layertee.image.holding import Form
from layertee.serve.offer import Document
from layertee.serve.stock import OpenStock
from layertee.store.store import Store
from tests.support.rig.blobs import blob_path
from tests.support.rig.images import BuiltImage, build_image, recompress
from tests.support.rig.layers import incompressible_layer, text_layer
from tests.support.sending import open_files
from tests.support.stock import AMD64, assert_all_can_be_had, stock_of
from tests.support.store import pull

NAME = "registry.example.com/os/image"
REPOSITORY = "os/image"


def images_of(root: Path) -> list[BuiltImage]:
    """Two that share a layer, in layouts of their own."""
    shared = incompressible_layer(5000)
    return [
        build_image(root / n, [shared, text_layer({"a": n}), text_layer({"b": n})], ref=f"os:{n}")
        for n in "01"
    ]


def lose(noise: random.Random, root: Path, digests: Iterable[str]) -> None:
    """Some of these blobs of ``root`` are removed, or cut."""
    for path in (blob_path(root, digest) for digest in digests):
        if path.exists() and noise.random() < 0.4:
            raw = path.read_bytes()
            path.unlink()
            if noise.random() < 0.3:
                path.write_bytes(raw[: noise.randrange(len(raw))])


def is_in(roots: Iterable[Path], digest: str, size: int) -> bool:
    paths = [blob_path(root, digest) for root in roots]
    return any(path.is_file() and path.stat().st_size == size for path in paths)


def ask(stock: OpenStock, tag: str, *, original: bool) -> list[Document] | None:
    try:
        return list(stock.named(REPOSITORY, tag, original=original))
    except NotFound:
        return None


@pytest.mark.parametrize("seed", range(25))
def test_whatever_is_where(tmp_path: Path, seed: int) -> None:
    noise = random.Random(seed)
    images = images_of(tmp_path / "built")
    roots = [tmp_path / "store"]
    forms = [Form.AS_IS, Form.UNCOMPRESSED]
    with Store.open(roots[0]) as store:
        for n, image in enumerate(images):
            pull(store, image.root, image.ref, f"{NAME}:{n}", forms[(seed + n) % 2])
        kept = [store.layout.resolve(f"{NAME}:{n}", AMD64).manifest for n in range(2)]
    for n, image in enumerate(images):
        blobs, tars = [one.digest for one in image.layers], [one.diff_id for one in image.layers]
        if noise.random() < 0.7:
            roots.append(tmp_path / f"copied-{n}")
            shutil.copytree(image.root, roots[-1])
        if noise.random() < 0.7:
            roots.append(tmp_path / f"plain-{n}")
            recompress(image, "none", roots[-1], ref=f"plain:{n}")
        for root in roots:
            lose(noise, root, [*blobs, *tars])
    places = ["store", *(f"oci:{root}" for root in roots[1:])]
    before = open_files()
    answers: dict[tuple[str, bool], list[Document] | None] = {}
    with stock_of(*places, store=roots[0]) as stock:
        for n, image in enumerate(images):
            there = [
                [is_in(roots, layer.digest, layer.size) for layer in image.layers],
                [is_in(roots, layer.diff_id, layer.uncompressed_size) for layer in image.layers],
            ]
            can = all(map(any, zip(*there, strict=True)))
            for original in (False, True):
                found = answers[str(n), original] = ask(stock, str(n), original=original)
                assert (found is not None) == can, "all of it is there, or not"
                if found is None:
                    continue
                is_kept_exact = all(is_in(roots, layer.digest, layer.size) for layer in kept[n].layers)
                if original or (all(there[0]) and not is_kept_exact):
                    assert found[0].digest == image.digest
                elif is_kept_exact:
                    assert found[0].raw == kept[n].raw
                else:
                    assert found[0].digest not in (image.digest, kept[n].digest)
                assert {one.original or one.digest for one in found} == {image.digest}
                assert_all_can_be_had(stock, REPOSITORY, found if not original else found[1:])
            document = stock.document(REPOSITORY, Digest(image.digest))
            assert document is not None
            assert document.raw == image.manifest
    assert open_files() == before
    with stock_of(*places, store=roots[0]) as again:
        for found in answers.values():
            for one in found or []:
                assert again.document(REPOSITORY, one.digest) == one
        for (tag, original), found in answers.items():
            assert ask(again, tag, original=original) == found
        assert again.document(REPOSITORY, Digest.of(json.dumps(seed).encode())) is None
    assert open_files() == before
