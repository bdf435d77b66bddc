"""The store hashed again: what is wrong is found and taken out, what is right is counted again."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from layertee.engine import Engine
from layertee.errors import StoreBusy
from layertee.image.document import Digest
from layertee.pulling.plan import Action, Form
from layertee.pulling.report import PullResult
from layertee.pulling.verify import VerifyReport
from layertee.store.store import Store
from layertee.sync import run
from tests.support.rig.images import BuiltImage, build_image
from tests.support.rig.layers import incompressible_layer, text_layer
from tests.support.store import assert_store_is_sound, visible_blobs

N_DOCUMENTS = 2  # config and manifest


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> BuiltImage:
    layers = [text_layer({f"file-{n}": f"layer {n}\n" * 9000}) for n in range(3)]
    return build_image(
        tmp_path_factory.mktemp("image"),
        [*layers, incompressible_layer(3 << 20)],
        compression=["gzip", "zstd", "none", "gzip-members"],
    )


def pull(root: Path, image: BuiltImage, form: Form = Form.AS_IS) -> PullResult:
    async def main() -> PullResult:
        async with Engine(root) as engine:
            return await engine.pull(await engine.plan(f"oci:{image.root}:{image.ref}", form=form))

    return run(main())


def verify(root: Path) -> VerifyReport:
    async def main() -> VerifyReport:
        async with Engine(root) as engine:
            return await engine.verify()

    return run(main())


def flip_a_bit(path: Path, rng: random.Random) -> None:
    data = bytearray(path.read_bytes())
    data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    path.chmod(0o600)
    path.write_bytes(data)


def lose_catalog(root: Path) -> None:
    for path in (root / "layertee").glob("catalog.sqlite*"):
        path.unlink()


@pytest.mark.usefixtures("default_core")
@pytest.mark.parametrize("form", list(Form))
def test_a_store_as_it_should_be_is_said_to_be(image: BuiltImage, form: Form, tmp_path: Path) -> None:
    pull(tmp_path, image, form)
    report = verify(tmp_path)
    assert report.ok
    assert (report.bad, report.missing, report.adopted, report.warnings) == ([], [], 0, [])
    assert report.n_blobs == len(visible_blobs(tmp_path))
    assert report.nbytes == sum(path.stat().st_size for path in visible_blobs(tmp_path).values())


@pytest.mark.usefixtures("default_core")
@pytest.mark.parametrize("seed", range(4))
def test_every_flipped_bit_is_found_and_its_blob_quarantined(
    image: BuiltImage, seed: int, tmp_path: Path
) -> None:
    pull(tmp_path, image)
    rng = random.Random(seed)
    spoilt = rng.sample(sorted(image.layer_digests), 3)
    for digest in spoilt:
        flip_a_bit(tmp_path / "blobs" / digest.replace(":", "/"), rng)
    report = verify(tmp_path)
    assert not report.ok
    assert sorted(bad.digest for bad in report.bad) == sorted(spoilt)
    for bad in report.bad:
        assert bad.reason
        assert bad.quarantined is not None
        assert bad.quarantined.exists()
    assert not set(spoilt) & set(visible_blobs(tmp_path))
    again = pull(tmp_path, image)
    assert {layer.digest for layer in again.layers if layer.action is not Action.HAVE} == set(spoilt)
    assert_store_is_sound(tmp_path)
    assert verify(tmp_path).ok


def test_documents_are_checked_like_layers(image: BuiltImage, tmp_path: Path) -> None:
    pull(tmp_path, image)
    flip_a_bit(tmp_path / "blobs" / image.config_digest.replace(":", "/"), random.Random(1))
    report = verify(tmp_path)
    assert [bad.digest for bad in report.bad] == [image.config_digest]
    pull(tmp_path, image)
    assert verify(tmp_path).ok


def test_what_an_image_needs_and_is_gone_is_reported(image: BuiltImage, tmp_path: Path) -> None:
    pull(tmp_path, image)
    gone = {image.layers[1].digest, image.config_digest}
    for digest in gone:
        (tmp_path / "blobs" / digest.replace(":", "/")).unlink()
    report = verify(tmp_path)
    assert not report.ok
    assert report.bad == []
    assert image.config_digest in report.missing
    pull(tmp_path, image)
    (tmp_path / "blobs" / image.layers[1].digest.replace(":", "/")).unlink()
    assert verify(tmp_path).missing == [image.layers[1].digest]
    (tmp_path / "blobs" / image.digest.replace(":", "/")).unlink()
    report = verify(tmp_path)
    assert report.missing == [image.digest]
    assert report.warnings
    with Store.open(tmp_path) as store:
        assert Digest(image.layers[1].digest) not in {row.digest for row in store.catalog.holdings()}


@pytest.mark.usefixtures("default_core")
@pytest.mark.parametrize("form", list(Form))
def test_a_lost_catalog_is_rebuilt_and_nothing_is_brought_again(
    image: BuiltImage, form: Form, tmp_path: Path
) -> None:
    pull(tmp_path, image, form)
    lose_catalog(tmp_path)
    report = verify(tmp_path)
    assert report.ok
    assert report.adopted == len(image.layers)
    assert {layer.action for layer in pull(tmp_path, image, form).layers} == {Action.HAVE}
    assert_store_is_sound(tmp_path)


def test_right_files_that_nobody_recorded_are_adopted(image: BuiltImage, tmp_path: Path) -> None:
    pull(tmp_path, image)
    with Store.open(tmp_path) as store:
        store.catalog.forget(*(Digest(layer.digest) for layer in image.layers[:2]))
    assert verify(tmp_path).adopted == 2
    assert verify(tmp_path).adopted == 0


def test_what_no_image_needs_is_judged_by_its_name(image: BuiltImage, tmp_path: Path) -> None:
    pull(tmp_path, image)
    blobs = tmp_path / "blobs/sha256"
    stray = Digest.of(b"stray")
    (blobs / stray.hex).write_bytes(b"stray")
    (blobs / Digest.of(b"other").hex).write_bytes(b"not that")
    report = verify(tmp_path)
    assert [bad.digest for bad in report.bad] == [Digest.of(b"other")]
    assert "8 bytes hash to" in report.bad[0].reason
    assert (blobs / stray.hex).exists()


def test_what_is_no_plain_file_is_not_a_blob(image: BuiltImage, tmp_path: Path) -> None:
    pull(tmp_path, image)
    path = tmp_path / "blobs" / image.layers[0].digest.replace(":", "/")
    kept = tmp_path / "elsewhere"
    path.rename(kept)
    path.symlink_to(kept)
    assert not verify(tmp_path).ok
    assert kept.exists()


def test_nothing_is_verified_while_somebody_pulls(
    image: BuiltImage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("layertee.pulling.verify.EXCLUSIVE_WAIT_S", 0.1)
    pull(tmp_path, image)
    with Store.open(tmp_path) as store, store.shared(), pytest.raises(StoreBusy, match=str(tmp_path)):
        verify(tmp_path)
    assert verify(tmp_path).ok
