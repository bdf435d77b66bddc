"""What every place must do. A test class inherits it and says how a place comes to hold an image."""

from __future__ import annotations

import abc
import hashlib
from pathlib import Path

import pytest

from layertee.image.document import DiffID
from layertee.image.holding import Basis, Holding, Place
from layertee.image.media import Compression
from tests.support.compress import digest_of
from tests.support.rig.images import BuiltImage, build_image
from tests.support.rig.layers import incompressible_layer, text_layer
from tests.support.store import measure

STRANGER = DiffID("sha256:" + hashlib.sha256(b"no layer has this").hexdigest())


class PlaceSuite(abc.ABC):
    """``make`` returns a place that holds all layers of ``image``, made in ``tmp_path``."""

    @abc.abstractmethod
    def make(self, tmp_path: Path, image: BuiltImage) -> Place:
        """A place with the image in it."""

    @pytest.fixture
    def image(self, tmp_path: Path) -> BuiltImage:
        layers = [
            text_layer({"etc/a": "first"}),
            incompressible_layer(30_000),
            text_layer({"etc/b": "third"}),
        ]
        return build_image(tmp_path / "built", layers, compression=["gzip", "zstd", "none"])

    @pytest.fixture
    def place(self, tmp_path: Path, image: BuiltImage) -> Place:
        return self.make(tmp_path, image)

    def test_it_has_a_name_for_reports(self, place: Place) -> None:
        assert place.name
        assert place.name.isprintable()

    def test_every_layer_of_the_image_is_found(self, place: Place, image: BuiltImage) -> None:
        found = place.find(diff_ids(image))
        assert set(found) == set(diff_ids(image))
        assert found.warnings == ()

    def test_only_what_was_asked_for_is_answered(self, place: Place, image: BuiltImage) -> None:
        one = diff_ids(image)[0]
        assert set(place.find([one, STRANGER])) == {one}
        assert place.find([]) == {}

    def test_a_holding_says_what_is_there(self, place: Place, image: BuiltImage) -> None:
        for diff_id, holding in place.find(diff_ids(image)).items():
            assert holding.diff_id == diff_id
            assert holding.place == place.name
            assert isinstance(holding.basis, Basis)
            if holding.compression is Compression.NONE:
                assert str(holding.digest) == diff_id

    def test_what_is_readable_reads_back_as_what_it_is_called(self, place: Place, image: BuiltImage) -> None:
        for holding in place.find(diff_ids(image)).values():
            if holding.readable and holding.path is not None:
                content = holding.path.read_bytes()
                assert len(content) == holding.size
                assert digest_of(content) == holding.digest
                assert measure(content, holding.compression).diff_id == holding.diff_id
                if holding.uncompressed_size is not None:
                    assert (
                        measure(content, holding.compression).uncompressed_size == holding.uncompressed_size
                    )

    def test_presence_is_looked_at_and_not_remembered(self, place: Place, image: BuiltImage) -> None:
        before = place.find(diff_ids(image))
        gone = next(holding for holding in before.values() if holding.path is not None)
        remove(gone)
        assert gone.diff_id not in place.find(diff_ids(image))

    def test_a_file_of_another_size_is_not_the_layer(self, place: Place, image: BuiltImage) -> None:
        before = place.find(diff_ids(image))
        cut = next(h for h in before.values() if h.compression is Compression.GZIP and h.path is not None)
        assert cut.path is not None
        content = cut.path.read_bytes()
        remove(cut)
        cut.path.write_bytes(content[:-1])
        assert cut.diff_id not in place.find(diff_ids(image))

    def test_a_symlink_is_not_the_layer(self, place: Place, image: BuiltImage, tmp_path: Path) -> None:
        """One that leads to where others may write."""
        before = place.find(diff_ids(image))
        swapped = next(holding for holding in before.values() if holding.path is not None)
        assert swapped.path is not None
        elsewhere = tmp_path / "anybody" / "elsewhere"
        elsewhere.parent.mkdir()
        elsewhere.parent.chmod(0o777)
        elsewhere.write_bytes(swapped.path.read_bytes())
        remove(swapped)
        swapped.path.symlink_to(elsewhere)
        assert swapped.diff_id not in place.find(diff_ids(image))


def diff_ids(image: BuiltImage) -> list[DiffID]:
    """The DiffIDs of ``image``, in order."""
    return [DiffID(layer.diff_id) for layer in image.layers]


def remove(holding: Holding) -> None:
    """Take the file away."""
    assert holding.path is not None
    holding.path.unlink()
