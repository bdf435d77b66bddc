"""The records of podman's store: whatever is in them, rows that make sense or a typed error."""

from __future__ import annotations

import json
from functools import partial
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from layertee.errors import DocumentError
from layertee.image.blobname import BlobName
from layertee.image.document import DiffID, Digest
from layertee.image.holding import Basis
from layertee.image.media import Compression
from layertee.places.podman.records import file_name, image_rows, layer_rows
from tests.support.compress import digest_of

ID = "ab" * 32
DIFF_ID = digest_of(b"some tar")
LAYER: dict[str, Any] = {"id": ID, "diff-digest": DIFF_ID, "diff-size": 2048}
IMAGE: dict[str, Any] = {"id": ID, "names": ["localhost/os:1"], "big-data-names": ["manifest"]}

ANYTHING = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(st.characters(exclude_categories=[]), max_size=8)
    | st.sampled_from([ID, DIFF_ID, "manifest", "manifest-" + DIFF_ID, "\ud800"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
FIELDS = st.dictionaries(
    st.sampled_from(
        [
            *("id", "diff-digest", "diff-size", "flags", "toc-digest"),
            *("compressed-diff-digest", "compressed-size", "compression"),
            *("names", "digest", "big-data-names"),
        ]
    ),
    ANYTHING,
)


@given(records=st.lists(FIELDS | ANYTHING, max_size=4) | ANYTHING)
def test_any_json_gives_rows_or_a_typed_error(records: Any) -> None:
    raw = json.dumps(records).encode()
    try:
        for layer in layer_rows(raw, "x", "store"):
            assert layer.size > 0 or layer.problem or layer.diff_id == digest_of(b"")
        for image in image_rows(raw, "x"):
            for key in image.keys:
                assert file_name(key).encode()
                assert "/" not in file_name(key).removeprefix("=")
    except DocumentError:
        pass


@given(raw=st.binary(max_size=60) | st.text('[]{}":,0123456789', max_size=60).map(str.encode))
def test_any_bytes_give_rows_or_a_typed_error(raw: bytes) -> None:
    for parse in (partial(layer_rows, source="store"), image_rows):
        try:
            list(parse(raw, "x"))
        except DocumentError as exc:
            assert str(exc).startswith("x is not")


def test_a_name_that_is_no_text_is_passed_over() -> None:
    names = ["manifest", "\ud800", 7, None, "signature-\udfff", "é"]
    raw = json.dumps([{**IMAGE, "big-data-names": names, "names": names}]).encode()
    (row,) = image_rows(raw, "x")
    assert row.keys == row.names == ("manifest", "é")


def layer(**fields: Any) -> Any:
    (row,) = layer_rows(json.dumps([{**LAYER, **fields}]).encode(), "x", "store")
    return row


@pytest.mark.parametrize("size", [None, 0, -1, "7", 1.5, True, [1]])
def test_a_layer_without_a_size_cannot_be_had(size: object) -> None:
    assert layer(**{"diff-size": size}).problem == "its size is not recorded"


@pytest.mark.parametrize("size", [None, 0])
def test_a_layer_of_nothing_has_the_size_zero(size: int | None) -> None:
    row = layer(**{"diff-digest": digest_of(b""), "diff-size": size})
    assert (row.diff_id, row.size, row.problem) == (DiffID(digest_of(b"")), 0, None)


def test_a_layer_that_is_not_complete_is_none_although_it_is_empty() -> None:
    row = layer(**{"diff-digest": digest_of(b""), "diff-size": None, "flags": {"incomplete": True}})
    assert row.problem == "it is not complete"


def test_the_blob_that_a_layer_was_made_from_is_known() -> None:
    blob = digest_of(b"some blob")
    made = {"compressed-diff-digest": blob, "compressed-size": 100, "compression": 2}
    found = layer(**made).blob
    assert found == BlobName(Digest(blob), 100, Compression.GZIP, Basis.ATTESTED, "store")
    for wrong in ({"compressed-size": 0}, {"compression": 9}, {"compressed-diff-digest": "x"}):
        assert layer(**{**made, **wrong}).blob is None
    assert layer(**{**made, "compressed-diff-digest": DIFF_ID}).blob is None
