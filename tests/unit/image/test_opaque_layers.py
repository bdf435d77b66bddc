"""Layers of which an image does not say what is in them, beside what was computed here."""

from __future__ import annotations

import hashlib

import pytest

from layertee.errors import DiffIDMismatch
from layertee.image.document import Descriptor, DiffID, Digest, Layer
from layertee.image.media import OCI_LAYER, Compression
from layertee.image.pairs import refuse_contradictions, with_computed


def blob(content: str) -> Digest:
    return Digest("sha256:" + hashlib.sha256(content.encode()).hexdigest())


def content(text: str) -> DiffID:
    return DiffID(str(blob(text)))


def layer(digest: Digest, diff_id: DiffID | None = None) -> Layer:
    """A gzipped one; opaque without a DiffID."""
    known = diff_id or DiffID(str(digest))
    descriptor = Descriptor(f"{OCI_LAYER}+gzip", digest, 1)
    return Layer(0, descriptor, known, Compression.GZIP, diff_id is None)


def test_an_opaque_layer_contradicts_nothing() -> None:
    computed = {blob("b"): content("tar")}
    refuse_contradictions([layer(blob("b")), layer(blob("b"), content("tar"))], computed)
    with pytest.raises(DiffIDMismatch):
        refuse_contradictions([layer(blob("b"), content("another tar"))], computed)


def test_what_was_inflated_here_is_not_opaque() -> None:
    first, second = with_computed([layer(blob("b")), layer(blob("c"))], {blob("b"): content("tar")})
    assert (first.diff_id, first.is_opaque) == (content("tar"), False)
    assert second == layer(blob("c"))


def test_what_was_only_hashed_here_stays_opaque() -> None:
    """Bytes that were read as a plain tar are recorded as their own content, whatever is in them."""
    (found,) = with_computed([layer(blob("b"))], {blob("b"): content("b")})
    assert found.is_opaque


def test_a_layer_whose_content_the_image_names_stays_as_it_is() -> None:
    one = layer(blob("b"), content("tar"))
    assert with_computed([one], {blob("b"): content("another tar")}) == (one,)
