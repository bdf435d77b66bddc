"""The plan: a value that says for each layer what happens, and that no holding can talk out of the image."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from layertee.disk.blob_file import FileContent
from layertee.errors import DiffIDMismatch
from layertee.image.document import Compression, Descriptor, DiffID, Digest, Layer, media_type_of
from layertee.image.holding import Basis, Form, Holding
from layertee.pulling.plan import INFLATION, Action, Plan, plan
from tests.support.compress import digest_number


def diff(n: int) -> DiffID:
    return DiffID(digest_number(1000 + n))


def layer(
    index: int, content: int | None = None, size: int = 100, compression: Compression = Compression.GZIP
) -> Layer:
    diff_id = diff(index if content is None else content)
    digest = Digest(str(diff_id)) if compression is Compression.NONE else digest_number(index)
    return Layer(index, Descriptor(media_type_of(compression), digest, size), diff_id, compression)


def holding(
    diff_id: DiffID,
    basis: Basis = Basis.COMPUTED,
    *,
    digest: Digest | None = None,
    size: int = 90,
    tar: int | None = None,
    readable: bool = True,
    place: str = "somewhere",
    compression: Compression = Compression.ZSTD,
) -> Holding:
    name = digest or digest_number(int(diff_id.hex[:8], 16))
    return Holding(
        diff_id=diff_id,
        digest=name,
        size=size,
        uncompressed_size=tar,
        compression=compression,
        place=place,
        basis=basis,
        content=FileContent(Path("/x")) if readable else None,
    )


def make(
    *layers: Layer,
    own: Mapping[DiffID, Holding] | None = None,
    elsewhere: Sequence[Mapping[DiffID, Holding]] = (),
    form: Form = Form.AS_IS,
    known: Mapping[Digest, DiffID] | None = None,
    sizes: Mapping[DiffID, int] | None = None,
    origin: Mapping[DiffID, Holding] | None = None,
    trust: Basis = Basis.ATTESTED,
) -> Plan:
    return plan(
        layers,
        own or {},
        elsewhere,
        form=form,
        known=known or {},
        sizes=sizes or {},
        origin=origin,
        trust=trust,
    )


def actions(made: Plan) -> list[Action]:
    return [step.action for step in made.layers]


def test_what_is_nowhere_is_fetched() -> None:
    made = make(layer(0), layer(1))
    assert actions(made) == [Action.FETCH, Action.FETCH]
    assert made.bytes_to_fetch == 200
    assert made.bytes_reused == 0
    assert {step.reason for step in made.layers} == {"not on this machine"}


def test_what_the_store_has_stays() -> None:
    own = {diff(0): holding(diff(0), place="store", digest=layer(0).digest)}
    made = make(layer(0), layer(1), own=own)
    assert actions(made) == [Action.HAVE, Action.FETCH]
    assert made.layers[0].reason == "in the store"
    assert (made.bytes_to_fetch, made.bytes_reused, made.disk_bytes) == (100, 100, 100)


@pytest.mark.parametrize(
    ("compression", "says"), [(Compression.ZSTD, "another zstd blob"), (Compression.NONE, "the plain tar")]
)
def test_another_form_in_the_store_is_as_good(compression: Compression, says: str) -> None:
    made = make(layer(0), own={diff(0): holding(diff(0), place="store", compression=compression)})
    assert actions(made) == [Action.HAVE]
    assert says in made.layers[0].reason


def test_the_store_comes_before_other_places_and_those_before_the_network() -> None:
    own = {diff(0): holding(diff(0))}
    elsewhere = [{diff(n): holding(diff(n), place="stick") for n in (0, 1)}]
    made = make(layer(0), layer(1), layer(2), own=own, elsewhere=elsewhere)
    assert actions(made) == [Action.HAVE, Action.REUSE, Action.FETCH]
    assert made.layers[1].reason == "from stick, computed"
    assert [step.layer.index for step in made.layers_to(Action.REUSE)] == [1]


def test_what_is_known_comes_before_what_is_claimed_whatever_the_place() -> None:
    claimed = {diff(0): holding(diff(0), Basis.CLAIMED, place="first")}
    attested = {diff(0): holding(diff(0), Basis.ATTESTED, place="second")}
    computed = {diff(0): holding(diff(0), Basis.COMPUTED, place="third")}
    made = make(layer(0), elsewhere=[claimed, attested, computed])
    assert made.layers[0].reason == "from second, attested"
    made = make(layer(0), elsewhere=[claimed])
    assert made.layers[0].action is Action.REUSE
    assert made.layers[0].reason == "from first, checked while it is read"


BASES = list(Basis)  # the strongest first


@pytest.mark.parametrize("basis", BASES)
@pytest.mark.parametrize("trust", BASES)
def test_what_cannot_be_read_back_is_no_source_and_left_where_it_is_if_it_is_trusted(
    basis: Basis, trust: Basis
) -> None:
    kept = holding(diff(0), basis, readable=False, place="ostree")
    (step,) = make(layer(0), elsewhere=[{diff(0): kept}], trust=trust).layers
    if BASES.index(basis) <= BASES.index(trust):
        assert (step.action, step.reason) == (Action.HAVE, f"kept by ostree, {basis.value}")
        assert (step.holding, step.wire_bytes, step.disk_bytes) == (kept, 0, 0)
        assert step.kept_elsewhere
    else:
        assert (step.action, step.reason) == (Action.FETCH, "not on this machine")
        assert not step.kept_elsewhere


def test_what_can_be_read_comes_before_what_can_only_be_shown() -> None:
    shown = {diff(0): holding(diff(0), Basis.COMPUTED, readable=False, place="ostree")}
    claimed = {diff(0): holding(diff(0), Basis.CLAIMED, place="stick")}
    (step,) = make(layer(0), elsewhere=[shown, claimed]).layers
    assert (step.action, step.kept_elsewhere) == (Action.REUSE, False)
    (step,) = make(layer(0), elsewhere=[shown, claimed], trust=Basis.COMPUTED).layers
    assert step.kept_elsewhere


def test_of_places_that_show_a_layer_the_best_known_keeps_it() -> None:
    places = [
        {diff(0): holding(diff(0), basis, readable=False, place=basis.value)} for basis in reversed(BASES)
    ]
    (step,) = make(layer(0), elsewhere=places, trust=Basis.CLAIMED).layers
    assert step.reason == "kept by computed, computed"


@pytest.mark.parametrize("basis", BASES)
@pytest.mark.parametrize("trust", BASES)
def test_reading_is_not_skipping_unless_only_what_was_computed_is_trusted(basis: Basis, trust: Basis) -> None:
    (step,) = make(layer(0), elsewhere=[{diff(0): holding(diff(0), basis)}], trust=trust).layers
    unwanted = trust is Basis.COMPUTED and basis is not Basis.COMPUTED
    assert step.action is (Action.FETCH if unwanted else Action.REUSE)


@pytest.mark.parametrize("basis", BASES)
def test_the_place_that_an_image_is_in_is_read_whatever_is_trusted(basis: Basis) -> None:
    (step,) = make(layer(0), origin={diff(0): holding(diff(0), basis)}, trust=Basis.COMPUTED).layers
    assert step.action is Action.REUSE
    shown = {diff(0): holding(diff(0), basis, readable=False)}
    (step,) = make(layer(0), origin=shown, trust=Basis.CLAIMED).layers
    assert step.action is Action.FETCH


def test_a_repeated_layer_that_is_kept_elsewhere_is_so_each_time() -> None:
    shown = {diff(0): holding(diff(0), readable=False)}
    made = make(layer(0), layer(1, content=0), elsewhere=[shown])
    assert [step.kept_elsewhere for step in made.layers] == [True, True]
    assert (made.bytes_to_fetch, made.disk_bytes) == (0, 0)


def test_the_store_is_not_believed_on_a_claim() -> None:
    made = make(layer(0), own={diff(0): holding(diff(0), Basis.CLAIMED)})
    assert actions(made) == [Action.FETCH]


def test_a_content_that_occurs_twice_is_brought_once() -> None:
    made = make(layer(0), layer(1), layer(2, content=0), layer(3, content=0))
    assert actions(made) == [Action.FETCH, Action.FETCH, Action.HAVE, Action.HAVE]
    assert made.layers[2].reason == made.layers[3].reason == "same content as layer 0"
    assert made.bytes_to_fetch == 200


def test_an_image_that_contradicts_a_computed_pair_is_refused() -> None:
    with pytest.raises(DiffIDMismatch, match="layer 1") as caught:
        make(layer(0), layer(1), known={layer(1).digest: diff(7)})
    assert (caught.value.want, caught.value.got) == (diff(1), diff(7))
    make(layer(0), layer(1), known={layer(1).digest: diff(1)})


def test_a_contradiction_is_refused_also_where_nothing_would_be_fetched() -> None:
    with pytest.raises(DiffIDMismatch):
        make(layer(0), own={diff(0): holding(diff(0))}, known={layer(0).digest: diff(7)})


def test_that_the_bytes_are_also_a_tar_by_themselves_is_no_contradiction() -> None:
    packed = layer(0)
    assert actions(make(packed, known={packed.digest: DiffID(str(packed.digest))})) == [Action.FETCH]
    plain = layer(1, compression=Compression.NONE)
    with pytest.raises(DiffIDMismatch):
        make(plain, known={plain.digest: diff(9)})


@pytest.mark.parametrize(
    ("form", "sizes", "compression", "expected"),
    [
        (Form.AS_IS, {}, Compression.GZIP, 100),
        (Form.AS_IS, {diff(0): 250}, Compression.GZIP, 100),
        (Form.UNCOMPRESSED, {diff(0): 250}, Compression.GZIP, 250),
        (Form.UNCOMPRESSED, {}, Compression.GZIP, 100 * INFLATION),
        (Form.UNCOMPRESSED, {}, Compression.NONE, 100),
    ],
)
def test_the_disk_a_fetched_layer_takes(
    form: Form, sizes: dict[DiffID, int], compression: Compression, expected: int
) -> None:
    made = make(layer(0, compression=compression), form=form, sizes=sizes)
    assert made.disk_bytes == expected


@pytest.mark.parametrize(
    ("form", "tar", "sizes", "expected"),
    [
        (Form.AS_IS, 400, {}, 90),
        (Form.UNCOMPRESSED, 400, {diff(0): 250}, 400),
        (Form.UNCOMPRESSED, None, {diff(0): 250}, 250),
        (Form.UNCOMPRESSED, None, {}, 90 * INFLATION),
    ],
)
def test_the_disk_a_reused_layer_takes(
    form: Form, tar: int | None, sizes: dict[DiffID, int], expected: int
) -> None:
    made = make(layer(0), elsewhere=[{diff(0): holding(diff(0), tar=tar)}], form=form, sizes=sizes)
    assert actions(made) == [Action.REUSE]
    assert (made.disk_bytes, made.bytes_to_fetch) == (expected, 0)


def test_an_image_without_layers_needs_nothing() -> None:
    made = make()
    assert made.layers == ()
    assert (made.bytes_to_fetch, made.bytes_reused, made.disk_bytes) == (0, 0, 0)


# --- for all images and all holdings ----------------------------------------------------

contents = st.integers(0, 5)
layers_ = st.lists(
    st.tuples(contents, st.integers(0, 10**12), st.sampled_from(Compression)), max_size=12
).map(lambda rows: [layer(i, c, s, k) for i, (c, s, k) in enumerate(rows)])
holdings_ = st.builds(
    holding,
    contents.map(diff),
    st.sampled_from(Basis),
    size=st.integers(0, 10**12),
    tar=st.none() | st.integers(0, 10**12),
    readable=st.booleans(),
    compression=st.sampled_from(Compression),
)
hostile = st.dictionaries(contents.map(diff), holdings_)  # the key need not be the holding's own DiffID


@given(
    layers=layers_,
    own=hostile,
    elsewhere=st.lists(hostile, max_size=3),
    form=st.sampled_from(Form),
    sizes=st.dictionaries(contents.map(diff), st.integers(0, 10**12)),
    origin=hostile,
    trust=st.sampled_from(Basis),
)
def test_whatever_is_held_each_layer_gets_one_action_that_fits(
    layers: list[Layer],
    own: dict[DiffID, Holding],
    elsewhere: list[Mapping[DiffID, Holding]],
    form: Form,
    sizes: dict[DiffID, int],
    origin: dict[DiffID, Holding],
    trust: Basis,
) -> None:
    made = make(*layers, own=own, elsewhere=elsewhere, form=form, sizes=sizes, origin=origin, trust=trust)
    assert [step.layer for step in made.layers] == layers
    assert made.form is form
    by_action = [made.layers_to(action) for action in Action]
    assert sum(len(steps) for steps in by_action) == len(layers)
    assert made.bytes_to_fetch + made.bytes_reused == sum(one.size for one in layers)
    assert made.bytes_to_fetch == sum(step.layer.size for step in made.layers_to(Action.FETCH))
    assert made.disk_bytes == sum(step.disk_bytes for step in made.layers) >= 0
    brought: set[DiffID] = set()
    for step in made.layers:
        assert step.reason
        if step.holding is not None:
            assert step.holding.diff_id == step.layer.diff_id, "a holding never changes what a layer is"
        if step.action is Action.HAVE:
            known = own.get(step.layer.diff_id)
            present = (
                known is not None and known.basis is Basis.COMPUTED and known.diff_id == step.layer.diff_id
            )
            assert present or step.kept_elsewhere or step.layer.diff_id in brought
            if step.kept_elsewhere and not present and step.layer.diff_id not in brought:
                assert step.holding is not None
                assert BASES.index(step.holding.basis) <= BASES.index(trust)
                assert any(step.holding in place.values() for place in elsewhere), "not of the origin"
            assert step.wire_bytes == step.disk_bytes == 0
        else:
            assert step.layer.diff_id not in brought, "no content is brought twice"
            brought.add(step.layer.diff_id)
        if step.action is Action.REUSE:
            assert step.holding is not None
            assert step.holding.readable
            assert step.wire_bytes == 0


@given(layers=layers_, known=st.dictionaries(st.integers(0, 11).map(digest_number), contents.map(diff)))
def test_an_image_is_planned_only_if_it_agrees_with_all_that_is_known(
    layers: list[Layer], known: dict[Digest, DiffID]
) -> None:
    agrees = all(known.get(one.digest, one.diff_id) == one.diff_id for one in layers)
    try:
        plan(layers, {}, [], form=Form.AS_IS, known=known, sizes={})
    except DiffIDMismatch:
        assert not agrees
    else:
        assert agrees
