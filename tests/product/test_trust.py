"""What is believed of places, and what a pull does with it: reading is not skipping, lies cost only time."""

from __future__ import annotations

import json
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TypeVar

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from layertee import Action, Basis, Engine, ImagePlan, Options, PullResult, Store, sync
from layertee.disk.blob_file import FileContent
from layertee.errors import DiffIDMismatch, LayerteeError, SourceUnreadable
from layertee.image.document import DiffID, Digest
from layertee.image.holding import Holding, Place
from layertee.image.media import Compression
from layertee.image.placename import PlaceKind, PlaceName
from layertee.places.oci_layout import OCILayoutPlace
from layertee.pulling.plan import Keep, Want
from tests.support.composefs import repository
from tests.support.compress import unpack
from tests.support.fakes.fault_server import FaultServer
from tests.support.fakes.place import FakePlace, readable, shown, shows
from tests.support.process import Cli
from tests.support.rig.blobcache import write_cache
from tests.support.rig.images import BuiltImage, build_image, recompress
from tests.support.rig.layers import incompressible_layer, text_layer
from tests.support.store import assert_store_is_sound, measure

T = TypeVar("T")
SPECS = [
    text_layer({"a": "first\n" * 3000}),
    incompressible_layer(40_000, seed=3),
    text_layer({"c": "third\n"}),
]


def run(main: Coroutine[Any, Any, T]) -> T:
    return sync.run(main)


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> BuiltImage:
    return build_image(tmp_path_factory.mktemp("image"), SPECS, compression=["gzip", "zstd", "none"])


@pytest.fixture(scope="module")
def server(image: BuiltImage) -> Iterator[FaultServer]:
    with FaultServer(image) as server:
        yield server


@pytest.fixture(autouse=True)
def _nothing_asked_yet(server: FaultServer) -> None:
    server.settle()
    server.forget()


def pull(
    name: str,
    root: Path,
    *places: Any,
    trust: Basis = Basis.ATTESTED,
    complete: bool = False,
    between: Callable[[ImagePlan], None] = lambda _: None,
) -> PullResult:
    """Pull ``name``; ``between`` is called when it is planned."""

    async def main() -> PullResult:
        options = Options(tls_verify=False, places=places, trust=trust)
        async with Engine(root, options=options) as engine:
            keep = Keep.STORE if complete else Keep.ANYWHERE
            plan = await engine.plan(name, Want(keep=keep, trust=trust))
            between(plan)
            return await engine.pull(plan)

    return run(main())


def fetched(server: FaultServer, image: BuiltImage) -> list[int]:
    """Body bytes that each layer cost."""
    server.settle()
    return [server.bytes_sent("blob", layer.digest) for layer in image.layers]


def actions(result: PullResult) -> list[Action]:
    return [layer.action for layer in result.layers]


# --- layers that others keep ----------------------------------------------------------------------------


def test_a_layer_that_is_kept_elsewhere_is_left_there_and_the_store_gets_the_rest(
    image: BuiltImage, server: FaultServer, tmp_path: Path
) -> None:
    first, *others = image.layers
    result = pull(server.reference, tmp_path, shows(first))
    assert fetched(server, image) == [0, *(layer.size for layer in others)]
    assert actions(result) == [Action.HAVE, Action.FETCH, Action.FETCH]
    assert result.local_manifest_digest is None
    assert result.kept_by == ("fake:/place",)
    kept = result.layers[0]
    assert (kept.place, kept.basis, kept.reason) == (
        "fake:/place",
        Basis.ATTESTED,
        "kept by fake:/place, attested",
    )
    assert (kept.bytes_fetched, kept.kept_elsewhere) == (0, True)
    assert result.bytes_reused == first.size
    with Store.open(tmp_path) as store:
        assert store.images.all() == []
        held = [bool(store.blobs.held(DiffID(layer.diff_id))) for layer in image.layers]
        assert held == [False, True, True]
        assert store.catalog.diff_id(Digest(first.digest)) is None, "nobody here has computed it"
    assert_store_is_sound(tmp_path)


def test_a_later_pull_without_that_place_fetches_what_is_missing_and_names_the_image(
    image: BuiltImage, server: FaultServer, tmp_path: Path
) -> None:
    pull(server.reference, tmp_path, shows(image.layers[0]))
    server.forget()
    result = pull(server.reference, tmp_path)
    assert fetched(server, image) == [image.layers[0].size, 0, 0]
    assert result.local_manifest_digest == image.digest
    assert result.kept_by == ()
    assert_store_is_sound(tmp_path)


def test_an_image_that_is_kept_elsewhere_as_a_whole_costs_nothing(
    image: BuiltImage, server: FaultServer, tmp_path: Path
) -> None:
    result = pull(server.reference, tmp_path, shows(*image.layers))
    assert fetched(server, image) == [0, 0, 0]
    assert set(actions(result)) == {Action.HAVE}
    assert result.local_manifest_digest is None


def test_what_the_store_has_needs_no_other_keeper(
    image: BuiltImage, server: FaultServer, tmp_path: Path
) -> None:
    pull(server.reference, tmp_path)
    server.forget()
    result = pull(server.reference, tmp_path, shows(*image.layers))
    assert fetched(server, image) == [0, 0, 0]
    assert result.local_manifest_digest == image.digest
    assert {(layer.place, layer.basis) for layer in result.layers} == {("store", Basis.COMPUTED)}


@pytest.mark.parametrize("basis", list(Basis))
@pytest.mark.parametrize("trust", list(Basis))
def test_a_download_is_skipped_on_a_basis_that_is_trusted(
    image: BuiltImage, server: FaultServer, tmp_path: Path, basis: Basis, trust: Basis
) -> None:
    strength = list(Basis)
    enough = strength.index(basis) <= strength.index(trust)
    result = pull(server.reference, tmp_path, shows(*image.layers, basis=basis), trust=trust)
    assert fetched(server, image) == ([0, 0, 0] if enough else [layer.size for layer in image.layers])
    assert (result.local_manifest_digest is None) is enough
    with Store.open(tmp_path) as store:
        assert len(store.catalog.pairs()) == (0 if enough else 3), "only what was computed is recorded"


def test_what_is_gone_when_its_turn_comes_is_fetched(
    image: BuiltImage, server: FaultServer, tmp_path: Path
) -> None:
    place = shows(*image.layers)

    def lose(plan: ImagePlan) -> None:
        assert {step.action for step in plan.layers} == {Action.HAVE}
        del place.holdings[DiffID(image.layers[1].diff_id)]

    result = pull(server.reference, tmp_path, place, between=lose)
    assert fetched(server, image) == [0, image.layers[1].size, 0]
    assert result.layers[1].action is Action.FETCH
    assert result.layers[1].reason == "no longer in fake:/place"
    assert (result.layers[1].place, result.layers[1].basis) == (None, None)


def test_an_image_can_be_asked_for_as_a_whole(image: BuiltImage, server: FaultServer, tmp_path: Path) -> None:
    result = pull(server.reference, tmp_path, shows(*image.layers), complete=True)
    assert actions(result) == [Action.FETCH] * 3
    assert result.local_manifest_digest == image.digest


def test_a_layer_that_is_kept_elsewhere_can_still_be_streamed(
    image: BuiltImage, server: FaultServer, tmp_path: Path
) -> None:
    async def main() -> bytes:
        options = Options(tls_verify=False, places=(shows(*image.layers),))
        async with Engine(tmp_path, options=options) as engine:
            plan = await engine.plan(server.reference)
            async with engine.open_layer(plan.layers[0]) as tar:
                return b"".join([bytes(piece) async for piece in tar])

    assert measure(run(main())).diff_id == image.layers[0].diff_id
    assert fetched(server, image)[0] == image.layers[0].size


# --- what can be read -----------------------------------------------------------------------------------


@pytest.mark.parametrize("trust", list(Basis))
def test_claims_that_can_be_read_are_read_unless_only_what_was_computed_is_trusted(
    image: BuiltImage, server: FaultServer, tmp_path: Path, trust: Basis
) -> None:
    result = pull(server.reference, tmp_path, image.root, trust=trust)
    packed = [layer.size if trust is Basis.COMPUTED else 0 for layer in image.layers[:2]]
    assert fetched(server, image) == [*packed, 0], "the plain tar is named by its DiffID: no claim"
    assert result.local_manifest_digest == image.digest
    bases = [layer.basis for layer in result.layers]
    expected = None if trust is Basis.COMPUTED else Basis.CLAIMED
    assert bases == [expected, expected, Basis.COMPUTED]
    assert result.layers[2].place == f"oci:{image.root}"


@pytest.mark.parametrize("trust", list(Basis))
def test_an_image_of_a_layout_is_read_from_there_whatever_is_trusted(
    image: BuiltImage, tmp_path: Path, trust: Basis
) -> None:
    result = pull(image.skopeo_name, tmp_path, trust=trust)
    assert actions(result) == [Action.REUSE] * 3
    assert result.local_manifest_digest == image.digest


def test_a_cache_makes_a_claim_attested(image: BuiltImage, server: FaultServer, tmp_path: Path) -> None:
    pairs = [(layer.digest, layer.diff_id) for layer in image.layers[:1]]
    cache = PlaceName(PlaceKind.BLOB_INFO_CACHE, write_cache(tmp_path / "cache.sqlite", pairs))
    result = pull(server.reference, tmp_path / "store", image.root, cache)
    assert [layer.basis for layer in result.layers] == [Basis.ATTESTED, Basis.CLAIMED, Basis.COMPUTED]
    assert result.layers[0].reason == f"from oci:{image.root}, attested"
    assert fetched(server, image) == [0, 0, 0]


# --- what an attacker would try -------------------------------------------------------------------------


@pytest.fixture(scope="module")
def liar(image: BuiltImage, tmp_path_factory: pytest.TempPathFactory) -> BuiltImage:
    """An image of other bytes whose config gives them the DiffIDs of ``image``."""

    def lie(config: dict[str, Any]) -> None:
        config["rootfs"]["diff_ids"][:2] = [layer.diff_id for layer in image.layers[:2]]

    evil = [text_layer({"a": "evil\n" * 3000}), text_layer({"b": "evil too\n" * 900})]
    root = tmp_path_factory.mktemp("liar")
    return build_image(root, [*evil, SPECS[2]], compression=["gzip", "zstd", "none"], edit_config=lie)


def test_other_bytes_under_a_claimed_diff_id_are_found_out_and_fetched_instead(
    image: BuiltImage, liar: BuiltImage, server: FaultServer, tmp_path: Path
) -> None:
    result = pull(server.reference, tmp_path, liar.root)
    assert fetched(server, image) == [*(layer.size for layer in image.layers[:2]), 0]
    assert result.local_manifest_digest == image.digest
    assert all("could not give it" in layer.reason for layer in result.layers[:2])
    assert_store_is_sound(tmp_path)
    with Store.open(tmp_path) as store:
        for layer in liar.layers[:2]:
            assert store.catalog.diff_id(Digest(layer.digest)) is None


def test_other_bytes_that_a_lying_cache_attests_are_found_out_as_well(
    image: BuiltImage, liar: BuiltImage, server: FaultServer, tmp_path: Path
) -> None:
    lies = [(evil.digest, good.diff_id) for evil, good in zip(liar.layers[:2], image.layers[:2], strict=True)]
    cache = PlaceName(PlaceKind.BLOB_INFO_CACHE, write_cache(tmp_path / "cache.sqlite", lies))
    result = pull(server.reference, tmp_path / "store", liar.root, cache)
    assert fetched(server, image) == [*(layer.size for layer in image.layers[:2]), 0]
    assert result.local_manifest_digest == image.digest
    assert_store_is_sound(tmp_path / "store")


def test_a_cache_that_contradicts_what_was_computed_is_ignored_with_a_warning(
    image: BuiltImage, liar: BuiltImage, server: FaultServer, tmp_path: Path
) -> None:
    evil, good = liar.layers[0], image.layers[0]
    with Store.open(tmp_path / "store") as store:
        store.catalog.record(measure(liar.blob_path(evil.digest).read_bytes(), Compression.GZIP))
    lie = write_cache(tmp_path / "cache.sqlite", [(evil.digest, good.diff_id)])
    cache = PlaceName(PlaceKind.BLOB_INFO_CACHE, lie)

    async def main() -> tuple[list[Digest], tuple[str, ...]]:
        async with Engine(tmp_path / "store", options=Options(tls_verify=False, places=(cache,))) as engine:
            found = await engine.inspect(server.reference)
            names = [blob.digest for blob in found.names[DiffID(good.diff_id)]]
            return names, found.plan.warnings

    names, warnings = run(main())
    assert names == [good.digest]
    assert any(evil.digest in warning and "computed here" in warning for warning in warnings)


def test_an_honest_image_first_and_then_a_lie_about_its_blob_is_refused_before_anything_is_fetched(
    image: BuiltImage, liar: BuiltImage, tmp_path: Path
) -> None:
    evil = [text_layer({"a": "evil\n" * 3000}), text_layer({"b": "evil too\n" * 900}), SPECS[2]]
    honest = build_image(tmp_path / "honest", evil, compression=["gzip", "zstd", "none"])
    assert honest.layers == liar.layers
    with FaultServer({"x/honest:latest": honest, "x/liar:latest": liar}) as server:
        pull(f"{server.host}/x/honest:latest", tmp_path / "store")
        server.forget()
        for trust in Basis:
            with pytest.raises(DiffIDMismatch, match="the image is refused"):
                pull(f"{server.host}/x/liar:latest", tmp_path / "store", shows(*image.layers), trust=trust)
        assert fetched(server, liar) == [0, 0, 0]


def test_a_lie_about_a_blob_that_was_never_inflated_here_serves_only_the_image_that_tells_it(
    image: BuiltImage, liar: BuiltImage, server: FaultServer, tmp_path: Path
) -> None:
    """A config that names its blob's content as what is here gets that: it said so itself."""
    pull(server.reference, tmp_path)
    result = pull(liar.skopeo_name, tmp_path)
    assert actions(result) == [Action.HAVE] * 3
    assert_store_is_sound(tmp_path)
    with Store.open(tmp_path) as store:
        assert store.catalog.diff_id(Digest(liar.layers[0].digest)) is None
        pairs = {pair.digest: pair.diff_id for pair in store.catalog.pairs()}
    assert pairs == {layer.digest: layer.diff_id for layer in image.layers}


def test_a_stored_manifest_that_is_not_what_its_name_says_is_no_claim_at_all(
    image: BuiltImage, server: FaultServer, tmp_path: Path
) -> None:
    copy = recompress(image, "gzip-fast", tmp_path / "copy")
    manifest = copy.blob_path(copy.digest)
    content = json.loads(manifest.read_bytes())
    content["layers"].reverse()
    manifest.write_bytes(json.dumps(content, separators=(",", ":")).encode())
    assert manifest.stat().st_size == len(copy.manifest)
    result = pull(server.reference, tmp_path / "store", copy.root)
    assert actions(result) == [Action.FETCH] * 3
    assert any(copy.digest in warning for warning in result.warnings)


def test_looking_at_a_lie_records_nothing(liar: BuiltImage, tmp_path: Path) -> None:
    async def main() -> None:
        async with Engine(tmp_path, options=Options(places=(liar.root,))) as engine:
            found = await engine.inspect(liar.skopeo_name)
            bases = {blob.basis for blobs in found.names.values() for blob in blobs}
            assert bases == {Basis.CLAIMED}
            assert engine.store.catalog.pairs() == []

    run(main())


# --- whatever places answer -----------------------------------------------------------------------------


class Bytes:
    """A TarReader of ``content`` that may fail at its end."""

    def __init__(self, content: bytes, fails: bool) -> None:
        self._content = content
        self._fails = fails

    def readinto(self, view: memoryview) -> int:
        n = min(len(view), len(self._content))
        view[:n] = self._content[:n]
        self._content = self._content[n:]
        if n < len(view) and self._fails:
            raise SourceUnreadable("it is gone")
        return n

    def close(self) -> None:
        pass


@dataclass(frozen=True)
class Made:
    """Content that is put together when it is read; it may fail at its end, or at once."""

    content: bytes
    fails: bool

    @property
    def path(self) -> None:
        return None

    def open(self) -> Bytes:
        if self.fails and not self.content:
            raise SourceUnreadable("it never was there")
        return Bytes(self.content, self.fails)


@pytest.fixture(scope="module")
def files(
    image: BuiltImage, liar: BuiltImage, tmp_path_factory: pytest.TempPathFactory
) -> tuple[list[Path], list[bytes]]:
    """What a place may point at: right and wrong blobs, tars, and what is no file."""
    room = tmp_path_factory.mktemp("files")
    blobs = [one.blob_path(layer.digest) for one in (image, liar) for layer in one.layers]
    tars = [
        unpack(image.blob_path(layer.digest).read_bytes(), Compression(layer.compression))
        for layer in image.layers
    ]
    for n, tar in enumerate(tars):
        (room / str(n)).write_bytes(tar)
    (room / "empty").write_bytes(b"")
    (room / "link").symlink_to(blobs[0])
    others = [room / "empty", room / "link", room, room / "gone"]
    return [*blobs, *(room / str(n) for n in range(len(tars))), *others], [*tars, b"", b"x" * 700]


@pytest.fixture(scope="module")
def truth(image: BuiltImage, liar: BuiltImage) -> dict[str, str]:
    """What every blob there is inflates to, computed by code not ours."""
    pairs = {layer.digest: layer.diff_id for layer in image.layers}
    pairs |= {layer.diff_id: layer.diff_id for layer in image.layers}
    return pairs | {layer.digest: layer.diff_id for layer in liar.layers}


def holding_of(
    draw: Callable[..., Any], image: BuiltImage, liar: BuiltImage, files: tuple[list[Path], list[bytes]]
) -> Holding:
    """Any answer at all about one layer."""
    layers = [*image.layers, *liar.layers]
    base = draw(st.sampled_from(layers))
    basis = draw(st.sampled_from(Basis))
    place = draw(st.sampled_from(["fake:0", "fake:1", "elsewhere"]))
    kind = draw(st.sampled_from(["shown", "read", "read", "put together"]))
    if kind == "shown":
        return shown(base, basis, place)
    path = draw(st.sampled_from(files[0]) | st.none())
    held = replace(
        readable(base, path or Path("/nonexistent"), basis, place),
        content=FileContent(path) if path is not None else None,
        digest=draw(st.sampled_from([Digest(base.digest), Digest(base.diff_id)])),
        size=draw(st.sampled_from([base.size, base.uncompressed_size, 0, 1, 10**6])),
        compression=draw(st.sampled_from(Compression)),
        uncompressed_size=draw(st.sampled_from([None, base.uncompressed_size, 5])),
    )
    if kind == "read":
        return held
    content, fails = draw(st.sampled_from(files[1])), draw(st.booleans())

    return replace(
        held,
        digest=Digest(str(held.diff_id)),
        compression=Compression.NONE,
        content=Made(content, fails),
    )


@pytest.mark.slow
@settings(max_examples=60, deadline=None)
@given(data=st.data(), trust=st.sampled_from(Basis))
def test_whatever_places_answer_a_pull_has_what_the_config_names_or_fails_with_an_error_of_ours(
    image: BuiltImage,
    liar: BuiltImage,
    server: FaultServer,
    files: tuple[list[Path], list[bytes]],
    truth: dict[str, str],
    data: st.DataObject,
    trust: Basis,
) -> None:
    contents = [DiffID(layer.diff_id) for layer in image.layers]
    places: list[Place] = []
    for n in range(data.draw(st.integers(1, 2), "places")):
        asked = data.draw(st.lists(st.sampled_from(contents), unique=True), "asked for")
        answers = {diff_id: holding_of(data.draw, image, liar, files) for diff_id in asked}
        places.append(FakePlace(answers, f"fake:{n}"))
    attested = data.draw(
        st.dictionaries(
            st.sampled_from([Digest(layer.digest) for one in (image, liar) for layer in one.layers]),
            st.sampled_from(contents),
        ),
        "attested",
    )
    for one in (image, liar):
        if data.draw(st.booleans(), "layout"):
            places.append(OCILayoutPlace(one.root, known=lambda _: None, attested=attested.get))
    with TemporaryDirectory() as root:
        try:
            result = pull(server.reference, Path(root), *places, trust=trust)
        except LayerteeError:
            result = None
        assert_store_is_sound(Path(root))
        with Store.open(Path(root)) as store:
            for pair in store.catalog.pairs():
                assert truth[pair.digest] == pair.diff_id
            if result is None:
                assert store.images.all() == []
                return
            strength = list(Basis)
            for layer, said in zip(image.layers, result.layers, strict=True):
                held = next(iter(store.blobs.held(DiffID(layer.diff_id))), None)
                if said.kept_elsewhere:
                    assert said.basis is not None
                    assert strength.index(said.basis) <= strength.index(trust)
                    assert result.local_manifest_digest is None
                    continue
                assert held is not None and held.path is not None
                tar = unpack(held.path.read_bytes(), held.compression)
                assert measure(tar).diff_id == layer.diff_id
            named = [kept.original for kept in store.images.all()]
            assert named == ([image.digest] if result.local_manifest_digest else [])


# --- on the command line --------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_command_says_who_keeps_a_layer(image: BuiltImage, server: FaultServer, tmp_path: Path) -> None:
    place = repository(tmp_path / "repo", [DiffID(image.layers[0].diff_id)])
    cli = Cli(tmp_path / "home")
    where = ["--from", place.name, "--trust", "claimed"]
    ran = cli.run("pull", "--tls-verify=false", *where, server.reference)
    assert f"kept by {place.name}, claimed" in ran.out
    assert f"{server.reference}: kept by {place.name}; the store has the rest" in ran.out
    assert cli.run("ls", "--json").json == {"images": []}
    planned = cli.pull("--dry-run", *where, server.reference)
    assert [layer["place"] for layer in planned.layers] == [place.name, "store", "store"]
    assert [layer["basis"] for layer in planned.layers] == ["claimed", "computed", "computed"]
    ran = cli.pull("--from", place.name, server.reference)
    assert ran.actions == ["fetch", "have", "have"], "a claim skips nothing unless it is asked for"
    assert ran.json["local_manifest_digest"] == image.digest


@pytest.mark.slow
def test_a_repair_leaves_nothing_elsewhere(image: BuiltImage, server: FaultServer, tmp_path: Path) -> None:
    cli = Cli(tmp_path / "home")
    cli.pull(server.reference)
    cli.blob(image.layers[0].digest).unlink()
    place = repository(tmp_path / "repo", [DiffID(image.layers[0].diff_id)])
    where = ["--from", place.name, "--trust", "claimed", "--tls-verify=false"]
    repaired = cli.run("verify", "--json", "--repair", server.reference, *where).json["repaired"]
    assert repaired["local_manifest_digest"] == image.digest
    cli.verified()
