"""What turns out not to be what its name says is offered once, and never sent to its end."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from layertee.errors import DigestMismatch, NotFound, SourceUnreadable
from layertee.image.document import Digest
from layertee.serve.answers import Refusal
from tests.support.compress import digest_of
from tests.support.rig.images import BuiltImage, build_image, recompress
from tests.support.rig.layers import incompressible_layer
from tests.support.sending import sent
from tests.support.stock import Get, asking, digests, stock_of


@pytest.fixture
def image(tmp_path: Path) -> BuiltImage:
    return build_image(tmp_path / "a", [incompressible_layer(3000)], ref="os:1")


def spoil(image: BuiltImage, root: Path) -> Path:
    """Another byte in the layer, and the size as before."""
    path = root / "blobs/sha256" / image.layers[0].digest.removeprefix("sha256:")
    raw = path.read_bytes()
    path.write_bytes(raw[:-1] + bytes([raw[-1] ^ 1]))
    return path


def test_a_copy_that_is_wrong_gives_way_to_one_that_is_right(image: BuiltImage, tmp_path: Path) -> None:
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    spoil(image, tmp_path / "a")
    layer = image.layers[0]

    async def main(get: Get) -> None:
        for _ in range(2):
            answer = await get(layer.digest)
            assert answer.place == f"oci:{tmp_path / 'b'}"
            assert answer.outgoing is not None
            assert digest_of(await sent(answer.outgoing, answer.length)) == layer.digest

    with stock_of(f"oci:{tmp_path / 'a'}", f"oci:{tmp_path / 'b'}") as stock:
        asking(stock, main)
        assert digests(stock.named("os", "1")) == [image.digest]


def test_an_image_whose_layer_is_wrong_is_offered_in_another_form_or_not_at_all(
    image: BuiltImage, tmp_path: Path
) -> None:
    recompress(image, "none", tmp_path / "plain", ref="plain:1")
    path = spoil(image, tmp_path / "a")

    async def main(get: Get) -> None:
        with pytest.raises(Refusal) as caught:
            await get(image.layers[0].digest)
        assert caught.value.status == 404

    with stock_of(f"oci:{tmp_path / 'a'}") as stock:
        assert digests(stock.named("os", "1")) == [image.digest]
        asking(stock, main)
        with pytest.raises(NotFound):
            stock.named("os", "1")
        spoil(image, tmp_path / "a")  # back to what it was
        assert digests(stock.named("os", "1")) == [image.digest]
        spoil(image, tmp_path / "a")
        asking(stock, main)
        os.utime(path, ns=(1, 1))
        assert digests(stock.named("os", "1")) == [image.digest], "something about it has changed"
        asking(stock, main)
    with stock_of(f"oci:{tmp_path / 'a'}", f"oci:{tmp_path / 'plain'}") as stock:
        asking(stock, main)
        (made,) = stock.named("os", "1")
        assert made.original == image.digest


@pytest.mark.parametrize(
    ("error", "is_lasting"),
    [
        (DigestMismatch("x", want="a", got="b"), True),
        (SourceUnreadable("shorter"), True),
        (FileNotFoundError(2, "gone"), True),
        (PermissionError(13, "no"), True),
        (OSError(24, "too many open files"), False),
        (OSError(5, "input/output error"), False),
    ],
)
def test_what_fails_while_it_is_sent_is_not_offered_again_unless_it_may_pass(
    image: BuiltImage, tmp_path: Path, error: Exception, is_lasting: bool
) -> None:
    digest = Digest(image.layers[0].digest)

    async def main(get: Get) -> None:
        answer = await get(digest)
        assert answer.outgoing is not None
        assert answer.failed is not None
        await answer.outgoing.close()
        if isinstance(error, OSError):
            said = SourceUnreadable("x")
            said.__cause__ = error
            answer.failed(said)
        else:
            assert isinstance(error, DigestMismatch | SourceUnreadable)
            answer.failed(error)

    with stock_of(f"oci:{tmp_path / 'a'}") as stock:
        asking(stock, main)
        assert (stock.blob(digest) is None) == is_lasting
