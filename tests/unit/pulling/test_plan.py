"""The plan: a value that says for each layer what happens, and that no holding can talk out of the image."""

from __future__ import annotations

import pickle
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from layertee.disk.blob_file import FileContent
from layertee.errors import DiffIDMismatch, NotFound
from layertee.image.document import Descriptor, DiffID, Digest, Layer
from layertee.image.holding import Basis, Form, Holding
from layertee.image.media import Compression, media_type_of
from layertee.image.reference import Reference
from layertee.pulling.plan import (
    INFLATION,
    Action,
    Keep,
    Plan,
    SourceKind,
    Survey,
    TarAt,
    Verify,
    Want,
    leanest,
    plan,
)
from tests.support.compress import digest_number
from tests.support.store import REGISTRY


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
    want: Want | None = None,
    registry: Reference | None = REGISTRY,
    arrived: Mapping[Digest, int] | None = None,
    tars: Mapping[Digest, TarAt] | None = None,
) -> Plan:
    by_content: dict[DiffID, list[Holding]] = {}
    for place in elsewhere:
        for diff_id, held in place.items():
            by_content.setdefault(diff_id, []).append(held)
    survey = Survey(
        own={diff_id: [held] for diff_id, held in (own or {}).items()},
        origin={diff_id: [held] for diff_id, held in (origin or {}).items()},
        elsewhere=by_content,
        known=known or {},
        sizes=sizes or {},
        registry=registry,
        arrived=arrived or {},
        tars=tars or {},
    )
    return plan(layers, survey, want or Want(form=form, trust=trust))


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


@pytest.mark.parametrize("form", list(Form))
def test_an_opaque_layer_takes_the_room_of_its_blob_and_no_place_can_contradict_it(form: Form) -> None:
    descriptor = layer(0).descriptor
    opaque = Layer(0, descriptor, DiffID(str(descriptor.digest)), Compression.GZIP, is_opaque=True)
    made = make(opaque, form=form, known={opaque.digest: diff(7)})
    assert actions(made) == [Action.FETCH]
    assert (made.disk_bytes, made.bytes_to_fetch, made.want.name_of(opaque)) == (100, 100, opaque.digest)


def test_an_image_without_layers_needs_nothing() -> None:
    made = make()
    assert made.layers == ()
    assert (made.bytes_to_fetch, made.bytes_reused, made.disk_bytes) == (0, 0, 0)


# --- the same bytes, the same content ---------------------------------------------------

NAMED = Want(keep=Keep.NAMED)
BY_DIGEST = Want(verify=Verify.DIGEST)


def twice(content: int = 0) -> tuple[Layer, Layer]:
    """Two different blobs that are claimed to have one content."""
    return layer(0, content), layer(1, content)


def test_content_that_nobody_will_check_makes_no_two_blobs_one_layer() -> None:
    made = make(*twice(), want=BY_DIGEST)
    assert [step.same_as for step in made.layers] == [None, None]
    assert made.bytes_to_fetch == 200


def test_a_computed_pair_makes_two_blobs_one_layer_without_looking_into_them() -> None:
    one, other = twice()
    made = make(one, other, want=BY_DIGEST, known={one.digest: one.diff_id})
    assert [step.same_as for step in made.layers] == [None, 0]
    made = make(one, other, want=BY_DIGEST, known={other.digest: other.diff_id})
    assert [step.same_as for step in made.layers] == [None, None], "the first is not known"


def test_one_blob_that_occurs_twice_is_brought_once_whatever_is_checked() -> None:
    one = layer(0)
    again = Layer(1, one.descriptor, one.diff_id, one.compression)
    for want in (BY_DIGEST, NAMED, Want(), Want(form=Form.UNCOMPRESSED)):
        made = make(one, again, want=want)
        assert [step.same_as for step in made.layers] == [None, 0]


def test_a_layer_that_is_wanted_by_name_is_brought_by_that_name() -> None:
    one, other = twice()
    assert [step.same_as for step in make(one, other, want=NAMED).layers] == [None, None]
    tars = Want(form=Form.UNCOMPRESSED, keep=Keep.NAMED)
    assert [step.same_as for step in make(one, other, want=tars).layers] == [None, 0]
    own = {diff(0): holding(diff(0), place="store", digest=one.digest)}
    made = make(one, other, want=NAMED, own=own)
    assert actions(made) == [Action.HAVE, Action.FETCH], "the other blob is still not there"


def test_a_tar_cannot_become_the_blob_again_and_any_form_can_become_the_tar() -> None:
    wanted = layer(0)
    tar = holding(diff(0), digest=wanted.tar_digest, compression=Compression.NONE, size=300, tar=300)
    assert actions(make(wanted, want=NAMED, elsewhere=[{diff(0): tar}])) == [Action.FETCH]
    blob = holding(diff(0), digest=wanted.digest, size=wanted.size, place="store")
    tars = Want(form=Form.UNCOMPRESSED, keep=Keep.NAMED)
    (step,) = make(wanted, want=tars, own={diff(0): blob}).layers
    assert (step.action, step.reason) == (Action.REUSE, "from the store, inflated")


def test_a_layer_that_is_to_be_in_the_store_is_not_left_elsewhere() -> None:
    shown = {diff(0): holding(diff(0), readable=False)}
    for keep in (Keep.STORE, Keep.NAMED):
        assert actions(make(layer(0), elsewhere=[shown], want=Want(keep=keep))) == [Action.FETCH]


# --- what a place may cost --------------------------------------------------------------


@pytest.mark.parametrize("basis", BASES)
def test_a_file_of_another_size_than_is_known_is_not_read(basis: Basis) -> None:
    wanted = layer(0)
    wrong_blob = holding(diff(0), basis, digest=wanted.digest, size=wanted.size + 1)
    tar = holding(diff(0), basis, digest=wanted.tar_digest, compression=Compression.NONE, size=301)
    for held in (wrong_blob, tar):
        assert actions(make(wanted, elsewhere=[{diff(0): held}], sizes={diff(0): 300})) == [Action.FETCH]
    assert actions(make(wanted, elsewhere=[{diff(0): tar}], sizes={diff(0): 301})) == [Action.REUSE]


def test_a_file_that_is_far_larger_than_the_blob_is_dearer_than_fetching_it() -> None:
    wanted = layer(0, size=3 << 20)
    for size, action in ((96 << 20, Action.REUSE), ((96 << 20) + 1, Action.FETCH), (1 << 40, Action.FETCH)):
        held = holding(diff(0), digest=wanted.tar_digest, compression=Compression.NONE, size=size)
        assert actions(make(wanted, elsewhere=[{diff(0): held}])) == [action]


def test_every_local_source_has_the_network_behind_it() -> None:
    places = [{diff(0): holding(diff(0), basis, place=basis.value)} for basis in BASES]
    (step,) = make(layer(0), elsewhere=places).layers
    assert [source.kind for source in step.sources] == [SourceKind.READ] * 3 + [SourceKind.NETWORK]


def test_a_plan_that_takes_too_much_room_can_do_with_less() -> None:
    tar = holding(diff(0), digest=layer(0).tar_digest, compression=Compression.NONE, size=300)
    made = make(layer(0), elsewhere=[{diff(0): tar}])
    assert (made.disk_bytes, leanest(made).disk_bytes) == (300, 100)
    assert actions(leanest(made)) == [Action.FETCH]


# --- a plan is data ---------------------------------------------------------------------


def test_a_plan_can_be_kept() -> None:
    made = make(layer(0), layer(1), elsewhere=[{diff(0): holding(diff(0))}])
    assert pickle.loads(pickle.dumps(made)) == made
    assert "registry.example.com" in repr(made)


def test_a_layer_that_can_come_from_nowhere_says_what_the_places_said() -> None:
    with pytest.raises(NotFound, match=r"layer 0 .* is not there"):
        make(layer(0), registry=None)
    survey = Survey(warnings=("oci:/x: its layer is a symlink",))
    with pytest.raises(NotFound, match="its layer is a symlink"):
        plan([layer(0)], survey, Want())


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
    assert made.want.form is form
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
        make(*layers, known=known)
    except DiffIDMismatch:
        assert not agrees
    else:
        assert agrees


# --- what has begun to arrive ---------------------------------------------------------------------------


@pytest.mark.parametrize(("form", "disk"), [(Form.AS_IS, 60), (Form.UNCOMPRESSED, 100 * INFLATION)])
def test_only_what_is_missing_is_fetched(form: Form, disk: int) -> None:
    made = make(layer(0), form=form, arrived={layer(0).digest: 40})
    (step,) = made.layers
    assert [source.kind for source in step.sources] == [SourceKind.RESUME, SourceKind.NETWORK]
    assert (step.action, step.resumed_at, step.wire_bytes, step.disk_bytes) == (Action.FETCH, 40, 60, disk)
    assert step.reason == "goes on at byte 40"
    assert (made.bytes_to_fetch, made.bytes_reused) == (60, 40)
    assert (step.sources[1].wire_bytes, step.sources[1].resumed_at) == (100, 0)


def test_what_has_arrived_whole_needs_no_network() -> None:
    assert make(layer(0), arrived={layer(0).digest: 100}).bytes_to_fetch == 0


@pytest.mark.parametrize("nbytes", [0, 101])
def test_what_cannot_be_the_beginning_is_no_source(nbytes: int) -> None:
    (step,) = make(layer(0), arrived={layer(0).digest: nbytes}).layers
    assert [source.kind for source in step.sources] == [SourceKind.NETWORK]


def test_what_is_on_the_machine_comes_before_the_network() -> None:
    elsewhere = {diff(0): holding(diff(0))}
    (step,) = make(layer(0), elsewhere=[elsewhere], arrived={layer(0).digest: 40}).layers
    assert [source.kind for source in step.sources] == [
        SourceKind.READ,
        SourceKind.RESUME,
        SourceKind.NETWORK,
    ]


def test_an_image_of_this_machine_asks_no_registry_for_the_rest() -> None:
    elsewhere = {diff(0): holding(diff(0))}
    (step,) = make(layer(0), elsewhere=[elsewhere], registry=None, arrived={layer(0).digest: 40}).layers
    assert [source.kind for source in step.sources] == [SourceKind.READ]


# --- what an endpoint has as a tar ----------------------------------------------------------------------

AT = TarAt("near.test/os", 300)


def kinds(made: Plan) -> list[SourceKind]:
    (step,) = made.layers
    return [source.kind for source in step.sources]


@pytest.mark.parametrize("form", Form)
def test_the_tar_of_a_blob_that_is_gone_comes_before_the_blob(form: Form) -> None:
    made = make(layer(0), form=form, tars={layer(0).digest: AT})
    assert kinds(made) == [SourceKind.TAR, SourceKind.NETWORK]
    (step,) = made.layers
    assert (step.action, step.as_tar, step.size) == (Action.FETCH, True, 300)
    assert (step.wire_bytes, step.disk_bytes, step.resumed_at) == (300, 300, 0)
    assert step.reason == "as a tar from near.test/os, which lacks the blob"
    assert (made.bytes_to_fetch, made.bytes_reused) == (300, 0)
    assert pickle.loads(pickle.dumps(made)) == made


def test_what_is_on_the_machine_comes_before_a_tar_from_elsewhere() -> None:
    elsewhere = {diff(0): holding(diff(0))}
    made = make(layer(0), elsewhere=[elsewhere], tars={layer(0).digest: AT})
    assert kinds(made) == [SourceKind.READ, SourceKind.TAR, SourceKind.NETWORK]
    own = {diff(0): holding(diff(0), place="store", digest=layer(0).digest)}
    assert make(layer(0), own=own, tars={layer(0).digest: AT}).bytes_to_fetch == 0


@pytest.mark.parametrize(
    ("arrived", "is_alone", "first"),
    [
        (40, False, SourceKind.TAR),
        (50, False, SourceKind.RESUME),
        (99, False, SourceKind.RESUME),
        (99, True, SourceKind.TAR),
    ],
)
def test_of_a_blob_that_is_mostly_here_the_rest_comes_first_if_it_may_be_elsewhere(
    arrived: int, is_alone: bool, first: SourceKind
) -> None:
    at = TarAt("near.test/os", 300, is_alone)
    made = make(layer(0), arrived={layer(0).digest: arrived}, tars={layer(0).digest: at})
    found = kinds(made)
    assert found[0] is first
    assert set(found) == {SourceKind.TAR, SourceKind.RESUME, SourceKind.NETWORK}
    assert found[2] is SourceKind.NETWORK


@pytest.mark.parametrize(("begun", "at"), [(0, 0), (1, 1), (300, 300), (301, 0)])
def test_only_what_is_missing_of_a_tar_is_fetched(begun: int, at: int) -> None:
    made = make(layer(0), arrived={layer(0).tar_digest: begun}, tars={layer(0).digest: AT})
    (step,) = made.layers
    assert (step.resumed_at, step.wire_bytes, step.disk_bytes) == (at, 300 - at, 300 - at)


@pytest.mark.parametrize("size", [0, -1, (64 << 20) + 1])
def test_a_size_that_the_layer_cannot_have_is_no_source(size: int) -> None:
    made = make(layer(0), tars={layer(0).digest: TarAt("near.test/os", size)})
    assert kinds(made) == [SourceKind.NETWORK]


def test_a_size_that_was_measured_otherwise_here_is_no_source() -> None:
    tars = {layer(0).digest: AT}
    assert kinds(make(layer(0), tars=tars, sizes={diff(0): 301})) == [SourceKind.NETWORK]
    assert kinds(make(layer(0), tars=tars, sizes={diff(0): 300})) == [SourceKind.TAR, SourceKind.NETWORK]


def test_where_only_the_blob_will_do_its_tar_is_no_source() -> None:
    tars = {layer(0).digest: AT}
    as_is = Want(form=Form.AS_IS, keep=Keep.NAMED)
    assert kinds(make(layer(0), want=as_is, tars=tars)) == [SourceKind.NETWORK]
    tar = Want(form=Form.UNCOMPRESSED, keep=Keep.NAMED)
    assert kinds(make(layer(0), want=tar, tars=tars)) == [SourceKind.TAR, SourceKind.NETWORK]


def test_a_layer_of_which_nothing_is_said_and_one_that_is_a_tar_have_no_other_tar() -> None:
    opaque = replace(layer(0), diff_id=DiffID(str(layer(0).digest)), is_opaque=True)
    plain = layer(1, compression=Compression.NONE)
    for one in (opaque, plain):
        assert kinds(make(one, tars={one.digest: AT})) == [SourceKind.NETWORK]


def test_where_space_is_short_the_blob_comes_before_its_tar() -> None:
    assert kinds(leanest(make(layer(0), tars={layer(0).digest: AT}))) == [SourceKind.NETWORK, SourceKind.TAR]
