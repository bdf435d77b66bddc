"""What GNU tar writes: its members are where tarfile has them, and its holes are refused in an image."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from layertee.errors import StoreCorrupt
from layertee.places.oci_archive import Archive, OCIArchivePlace
from tests.contract.place_suite import diff_ids
from tests.support.archives import as_tarfile, index, members
from tests.support.rig.images import build_image, run_tool
from tests.support.rig.layers import text_layer

pytestmark = pytest.mark.needs("tar")
LAYER = "blobs/sha256/" + "ab" * 32


@pytest.mark.parametrize("form", ["gnu", "pax", "ustar"])
def test_what_gnu_tar_wrote_is_where_tarfile_has_it(tmp_path: Path, form: str) -> None:
    tree = tmp_path / "tree"
    (tree / "sub").mkdir(parents=True)
    for n, name in enumerate(("empty", "one", "sub/two", "sub/" + "l" * 90)):
        (tree / name).write_bytes(os.urandom(511 * n))
    (tree / "link").symlink_to("one")
    os.link(tree / "one", tree / "same")
    os.mkfifo(tree / "fifo")
    run_tool("tar", "-C", str(tree), "--format", form, "-cf", str(tmp_path / "a.tar"), ".")
    found = index((tmp_path / "a.tar").read_bytes(), tmp_path / "a.tar")
    assert found == as_tarfile(tmp_path / "a.tar")
    assert len(found) == 9


def test_an_archive_with_a_hole_in_a_layer_is_refused(tmp_path: Path) -> None:
    image = build_image(tmp_path / "layout", [text_layer({"etc/a": "first"})])
    names = list(members(image))
    with (image.root / LAYER).open("wb") as file:
        file.truncate(1 << 20)
        file.write(b"x")
    path = tmp_path / "a.tar"
    run_tool("tar", "-C", str(image.root), "-c", "--sparse", "-f", str(path), *names, LAYER)
    with pytest.raises(StoreCorrupt, match="is sparse; write the archive without") as caught:
        Archive.open(path)
    assert str(path) in str(caught.value)
    found = OCIArchivePlace(path, known=lambda _: None).find(diff_ids(image))
    assert found == {}
    assert found.warnings == (str(caught.value),)
