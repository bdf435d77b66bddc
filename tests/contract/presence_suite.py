"""What a place must do that shows layers and cannot give them back."""

from __future__ import annotations

import abc
from pathlib import Path

from layertee.image.document import DiffID
from layertee.image.holding import Place
from tests.contract.place_suite import PlaceSuite, diff_ids
from tests.support.rig.images import BuiltImage


class PresenceSuite(PlaceSuite, abc.ABC):
    """``make`` as in PlaceSuite; ``take_away`` makes the place lose one layer."""

    @abc.abstractmethod
    def take_away(self, place: Place, diff_id: DiffID) -> None:
        """The layer is gone afterwards."""

    def test_nothing_in_it_can_be_read(self, place: Place, image: BuiltImage) -> None:
        for holding in place.find(diff_ids(image)).values():
            assert not holding.readable
            assert holding.path is None

    def test_presence_is_looked_at_and_not_remembered(self, place: Place, image: BuiltImage) -> None:
        first, *others = diff_ids(image)
        assert first in place.find(diff_ids(image))
        self.take_away(place, first)
        assert set(place.find(diff_ids(image))) == set(others)

    # The suite's tests of files that are not what they should be: here there are none to read.
    def test_a_file_of_another_size_is_not_the_layer(self, place: Place, image: BuiltImage) -> None:
        self.test_nothing_in_it_can_be_read(place, image)

    def test_a_symlink_is_not_the_layer(self, place: Place, image: BuiltImage, tmp_path: Path) -> None:
        self.test_nothing_in_it_can_be_read(place, image)
