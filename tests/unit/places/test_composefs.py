"""A repository of composefs-rs as a place: laid out here as that keeps it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from layertee.image.document import DiffID
from layertee.image.holding import Basis, Place
from layertee.places.composefs import ComposefsPlace
from tests.contract.place_suite import diff_ids
from tests.contract.presence_suite import PresenceSuite
from tests.support.composefs import repository, stream
from tests.support.rig.images import BuiltImage


class TestComposefs(PresenceSuite):
    def make(self, tmp_path: Path, image: BuiltImage) -> Place:
        self.root = tmp_path / "repo"
        return repository(self.root, diff_ids(image))

    def take_away(self, place: Place, diff_id: DiffID) -> None:
        stream(self.root, diff_id).unlink()

    def test_what_it_has_is_a_claim(self, place: Place, image: BuiltImage) -> None:
        assert {holding.basis for holding in place.find(diff_ids(image)).values()} == {Basis.CLAIMED}


ONE = DiffID("sha256:" + "1" * 64)


@pytest.mark.parametrize("damage", ["object gone", "elsewhere", "a file", "a directory", "empty"])
def test_a_stream_without_its_object_is_no_layer(tmp_path: Path, damage: str) -> None:
    place = repository(tmp_path, [ONE])
    link = stream(tmp_path, ONE)
    content = link.resolve()
    if damage == "object gone":
        content.unlink()
    elif damage == "empty":
        content.write_bytes(b"")
    else:
        link.unlink()
        if damage == "elsewhere":
            link.symlink_to("/etc/passwd")
        elif damage == "a file":
            link.write_bytes(b"x")
        else:
            link.mkdir()
    found = place.find([ONE])
    assert found == {}
    assert found.warnings == ()


def test_no_repository_is_a_warning(tmp_path: Path) -> None:
    place = ComposefsPlace(tmp_path / "none")
    found = place.find([ONE])
    assert found == {}
    assert found.warnings == (f"composefs:{tmp_path}/none: No such file or directory",)
    (tmp_path / "none").mkdir()
    os.mkfifo(tmp_path / "none" / "streams")
    found = place.find([ONE])
    assert found == {}
    assert len(found.warnings) == 1
