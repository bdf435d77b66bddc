"""The list of what a store has."""

from __future__ import annotations

import json

import pytest

from layertee.errors import DocumentError
from layertee.image.document import DiffID
from layertee.store.having import read_have_list

ONE = "sha256:" + "1" * 64


def test_the_contents_are_read_and_nothing_else() -> None:
    raw = json.dumps({"schema": 1, "layers": [{"diff_id": ONE, "digest": 7}, {"diff_id": ONE}], "more": 1})
    assert read_have_list(raw.encode(), "list") == frozenset({DiffID(ONE)})
    assert read_have_list(b'{"layers": null}', "list") == frozenset()


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"[]",
        b"{}",
        b'{"layers": 1}',
        b'{"layers": [1]}',
        b'{"layers": [{}]}',
        b'{"layers": [{"diff_id": "x"}]}',
    ],
)
def test_what_is_no_list_is_refused(raw: bytes) -> None:
    with pytest.raises(DocumentError, match="list"):
        read_have_list(raw, "list")
