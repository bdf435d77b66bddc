"""Places as the command line names them."""

from __future__ import annotations

from pathlib import Path

import pytest

from layertee.errors import InvalidReference
from layertee.image.placename import PlaceKind, PlaceName, parse_place
from layertee.image.reference_storage import StorageReference


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("oci:/mnt/usb", Path("/mnt/usb")),
        ("oci:/mnt/usb:ref", Path("/mnt/usb")),
        ("oci-archive:/mnt/os.tar", PlaceName(PlaceKind.OCI_ARCHIVE, Path("/mnt/os.tar"))),
        ("docker-archive:os.tar:os:1", PlaceName(PlaceKind.DOCKER_ARCHIVE, Path("os.tar"))),
        ("oci-archive:os.tar:ref", PlaceName(PlaceKind.OCI_ARCHIVE, Path("os.tar"))),
        ("containers-storage:", StorageReference(None, None, None, (), None)),
        ("containers-storage:[vfs@/s+/r]", StorageReference(Path("/s"), "vfs", Path("/r"), (), None)),
        ("ostree:/ostree/repo", PlaceName(PlaceKind.OSTREE, Path("/ostree/repo"))),
        ("ostree:relative:dir", PlaceName(PlaceKind.OSTREE, Path("relative:dir"))),
        ("composefs:/sysroot/composefs", PlaceName(PlaceKind.COMPOSEFS, Path("/sysroot/composefs"))),
        ("blob-info-cache:", PlaceName(PlaceKind.BLOB_INFO_CACHE)),
        ("blob-info-cache:/x.sqlite", PlaceName(PlaceKind.BLOB_INFO_CACHE, Path("/x.sqlite"))),
        ("auto", PlaceName(PlaceKind.AUTO)),
    ],
)
def test_a_place_is_read(text: str, place: object) -> None:
    assert parse_place(text) == place


@pytest.mark.parametrize(
    "text", ["oci-archive:/a", "ostree:/r", "composefs:/r", "blob-info-cache:", "blob-info-cache:/c", "auto"]
)
def test_a_place_is_written_as_it_is_read(text: str) -> None:
    assert str(parse_place(text)) == text


@pytest.mark.parametrize(
    "text",
    [
        *("", "oci:", "ostree:", "composefs:", "ostree", "blob-info-cache", "auto:", "auto:/x", "automatic"),
        *("docker://host/image", "host/image:tag", "/a/directory", "containers-storage:localhost/image"),
        *(
            "oci-archive",
            "oci-archive:",
            "oci-archive::ref",
            "oci-archive:/x ",
            "docker-archive:",
            "docker-archive:/x:y@z",
        ),
        *("ostree:/repo\n", "ostree: /repo ", "blob-info-cache:/x\x00", "dir:/x"),
    ],
)
def test_what_is_no_place_is_refused(text: str) -> None:
    with pytest.raises(InvalidReference):
        parse_place(text)


def test_an_image_is_told_from_a_place() -> None:
    with pytest.raises(InvalidReference, match=r"is an image and no place.*ostree:REPO"):
        parse_place("containers-storage:localhost/image")
