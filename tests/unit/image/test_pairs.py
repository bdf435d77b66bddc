"""One rule for what contradicts what: a blob has one DiffID."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from layertee.errors import DiffIDMismatch
from layertee.image.document import Descriptor, DiffID, Digest, Layer
from layertee.image.media import Compression, media_type_of
from layertee.image.pairs import contradicts, refuse_contradictions
from tests.support.compress import digest_number

names = st.integers(0, 3).map(digest_number)
compressions = st.sampled_from([None, *Compression])


@given(digest=names, claimed=names, computed=st.none() | names, compression=compressions)
def test_a_claim_contradicts_only_a_computed_pair_that_is_about_the_same_reading_of_the_bytes(
    digest: Digest, claimed: Digest, computed: Digest | None, compression: Compression | None
) -> None:
    said = DiffID(str(claimed))
    known = None if computed is None else DiffID(str(computed))
    found = contradicts(digest, said, known, compression)
    if computed is None or computed == claimed:
        assert not found
    elif computed == digest:  # what was computed is the bytes as they are
        assert found == (compression is Compression.NONE)
    else:
        assert found


@given(digest=names, claimed=names, compression=compressions)
def test_nothing_is_contradicted_where_nothing_was_computed(
    digest: Digest, claimed: Digest, compression: Compression | None
) -> None:
    assert not contradicts(digest, DiffID(str(claimed)), None, compression)


def test_the_first_layer_that_contradicts_is_named() -> None:
    layers = [
        Layer(
            n,
            Descriptor(media_type_of(Compression.GZIP), digest_number(n), 10),
            DiffID(str(digest_number(100 + n))),
            Compression.GZIP,
        )
        for n in range(3)
    ]
    true = {layer.digest: layer.diff_id for layer in layers}
    refuse_contradictions(layers, true)
    refuse_contradictions(layers, {})
    false = true | {layers[1].digest: layers[2].diff_id, layers[2].digest: layers[0].diff_id}
    with pytest.raises(DiffIDMismatch, match="layer 1") as caught:
        refuse_contradictions(layers, false)
    assert (caught.value.want, caught.value.got) == (layers[1].diff_id, layers[2].diff_id)
