"""Endpoints that lack a layer's blob and have its tar: what is asked of them, and what is done with it."""

from __future__ import annotations

import pickle
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

import pytest

from layertee import Engine, Options, PullResult, sync
from layertee.errors import DigestMismatch
from tests.support.compress import digest_of
from tests.support.fakes.exchange import RequestRecord
from tests.support.fakes.fault_server import FaultServer, Rule, on
from tests.support.fakes.faults import (
    Behaviour,
    ContentLength,
    Gate,
    Header,
    Held,
    OtherBody,
    Reset,
    Stall,
)
from tests.support.fakes.refusals import Status, too_many
from tests.support.fakes.tars import KNOWS, REPOSITORY, Lacks, has_tars
from tests.support.imageproxy import serving
from tests.support.mirrors import At, write_conf
from tests.support.mounts import tmpfs
from tests.support.process import PLAIN, Cli, Ran
from tests.support.rig.blobs import BuiltLayer
from tests.support.rig.images import BuiltImage, build_image
from tests.support.rig.layers import incompressible_layer, text_layer
from tests.support.serving import serving as serve
from tests.support.store import assert_store_is_sound

pytestmark = pytest.mark.slow

FORMS = ("as-is", "uncompressed")
# A server counts what it has sent ahead on a connection that is cut short for the help of another.
ONE_STREAM = "--ranges=never"
LARGE = 16 << 20
PREFIX = "origin.test/os"
NAME = f"{PREFIX}:latest"


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> BuiltImage:
    """A layer of 16 MB, one that shrinks to little, and one that is zstd."""
    layers = [incompressible_layer(LARGE), text_layer({"a": "again\n" * 40_000}), text_layer({"b": "once\n"})]
    compression = ["gzip-fast", "gzip", "zstd"]
    return build_image(tmp_path_factory.mktemp("tars"), layers, compression=compression)


@pytest.fixture
def user(tmp_path: Path) -> Cli:
    return Cli(tmp_path / "home")


@pytest.fixture
def server(image: BuiltImage) -> Iterator[FaultServer]:
    """A machine of the site: it is called as the image's registry."""
    with FaultServer(image) as server:
        yield server


def asked(server: FaultServer, method: str, digest: str) -> list[RequestRecord]:
    server.settle()
    return [request for request in server.requests("blob", digest) if request.method == method]


def counted(server: FaultServer, layer: BuiltLayer) -> tuple[int, int, int, int]:
    """HEAD and GET of the blob, HEAD of the tar; and 1 if that was fetched, in however many ranges."""
    names = (layer.digest, layer.diff_id)
    head, get, head_tar, get_tar = (
        len(asked(server, method, name)) for name in names for method in ("HEAD", "GET")
    )
    return head, get, head_tar, min(get_tar, 1)


# --- one endpoint, which says that it knows DiffIDs ------------------------------------------------


@pytest.mark.parametrize("form", FORMS)
def test_a_layer_whose_blob_is_gone_comes_as_its_tar_and_is_kept_as_that(
    server: FaultServer, image: BuiltImage, user: Cli, form: str
) -> None:
    server.script(has_tars(server, image))
    dry = user.pull(ONE_STREAM, "--layers", form, "--dry-run", server.reference)
    why = f"as a tar from {server.host}/{REPOSITORY}, which lacks the blob"
    for told, layer in zip(dry.layers, image.layers, strict=True):
        assert (told["action"], told["as_tar"], told["reason"]) == ("fetch", True, why)
        assert (told["bytes_fetched"], told["size"]) == (layer.uncompressed_size, layer.size)
        assert counted(server, layer) == (1, 0, 1, 0)
    assert dry.json["bytes_fetched"] == image.uncompressed_bytes
    server.forget()
    ran = user.pull(ONE_STREAM, "--layers", form, server.reference)
    assert [told["as_tar"] for told in ran.layers] == [True] * 3
    assert ran.json["bytes_fetched"] == image.uncompressed_bytes
    assert ran.json["manifest_digest"] == image.digest != ran.json["local_manifest_digest"]
    for layer in image.layers:
        assert counted(server, layer)[:3] == (1, 0, 1)
        assert digest_of(user.blob(layer.diff_id).read_bytes()) == layer.diff_id
    assert {request.header(KNOWS) for request in server.requests("manifest")} == {"1"}
    assert user.verified()["missing"] == []
    assert user.pull(ONE_STREAM, "--layers", form, server.reference).actions == ["have"] * 3


def test_the_table_says_that_it_is_a_tar(server: FaultServer, image: BuiltImage, user: Cli) -> None:
    server.script(has_tars(server, image))
    ran = user.run("pull", "--tls-verify=false", server.reference)
    assert ran.out.count("as a tar from") == 3
    assert f"the registry's manifest is {image.digest}" in ran.out


def test_what_is_there_is_fetched_as_it_is(server: FaultServer, image: BuiltImage, user: Cli) -> None:
    gone = image.layers[1]
    server.script(has_tars(server, image, [gone]))
    ran = user.pull(ONE_STREAM, server.reference)
    assert [told["as_tar"] for told in ran.layers] == [False, True, False]
    for layer in (image.layers[0], image.layers[2]):
        head, _, *tar = counted(server, layer)
        assert (head, tar) == (1, [0, 0])
        assert digest_of(user.blob(layer.digest).read_bytes()) == layer.digest
    assert counted(server, gone) == (1, 0, 1, 1)


def test_inspection_tells_the_same_and_fetches_nothing(
    server: FaultServer, image: BuiltImage, user: Cli
) -> None:
    server.script(has_tars(server, image))
    ran = user.run("inspect", "--tls-verify=false", "--json", server.reference)
    assert [told["as_tar"] for told in ran.layers] == [True] * 3
    assert [counted(server, layer) for layer in image.layers] == [(1, 0, 1, 0)] * 3


def test_checking_digests_only_a_tar_has_its_diff_id_checked(
    server: FaultServer, image: BuiltImage, user: Cli
) -> None:
    server.script(has_tars(server, image))
    user.pull(ONE_STREAM, "--verify", "digest", server.reference)
    told = user.pull(ONE_STREAM, "--dry-run", server.reference).layers
    assert {(one["action"], one["basis"]) for one in told} == {("have", "computed")}


def test_content_that_repeats_comes_once(tmp_path: Path, user: Cli) -> None:
    twice = text_layer({"a": "a\n" * 1000})
    image = build_image(tmp_path / "image", [twice, twice, twice], compression=["gzip", "zstd", "gzip"])
    with FaultServer(image) as server:
        server.script(has_tars(server, image))
        ran = user.pull(ONE_STREAM, server.reference)
        assert [told["action"] for told in ran.layers] == ["fetch", "have", "have"]
        assert len(asked(server, "GET", image.layers[0].diff_id)) == 1


def test_layers_of_which_the_image_does_not_say_what_they_hold_are_not_asked_for_as_tars(
    tmp_path: Path,
) -> None:
    artifact = build_image(
        tmp_path / "opaque", [text_layer({"a": "a"})], edit_config=lambda config: config.pop("rootfs")
    )
    layer = artifact.layers[0]
    with FaultServer(artifact) as server, serving(tmp_path / "store") as proxy:
        server.script(has_tars(server, artifact))
        number = proxy.open(f"docker://{server.reference}")
        assert layer.digest in proxy.no_blob(number, layer)
        assert counted(server, layer)[2:] == (0, 0)


@pytest.mark.parametrize(
    "behaviour", [Status(500), Status(401), Status(405), too_many("30"), Stall(), Reset()], ids=repr
)
def test_what_cannot_be_asked_when_a_pull_is_planned_shows_when_it_is_fetched(
    server: FaultServer, image: BuiltImage, user: Cli, behaviour: Behaviour
) -> None:
    gone = image.layers[1:]
    heads = [on("blob", behaviour, reference=layer.digest, method="HEAD") for layer in image.layers]
    server.script([*heads, *has_tars(server, image, gone)])
    ran = user.pull(ONE_STREAM, "--stall-timeout", "1", server.reference)
    assert [told["as_tar"] for told in ran.layers] == [False, True, True]
    # One that is reset on a connection that was used before may have met its end, and is sent once more.
    assert 1 <= sum(counted(server, layer)[0] for layer in image.layers) <= 2 * 3
    assert [counted(server, layer)[2:] for layer in image.layers] == [(0, 0), (1, 1), (1, 1)]


def test_few_layers_are_asked_about_at_once(tmp_path: Path, user: Cli) -> None:
    image = build_image(tmp_path / "image", [text_layer({"a": f"{number}"}) for number in range(20)])
    gate = Gate()
    with FaultServer(image) as server:
        server.script([on("blob", Held(gate), method="HEAD"), *has_tars(server, image)])
        dry = user.start("pull", PLAIN, "--dry-run", "--json", server.reference)
        gate.wait_arrived(6)
        assert server.max_active == 6
        gate.open()
        assert [told["as_tar"] for told in user.finish(dry).layers] == [False] * 20
        assert len(server.requests("blob")) == 20 + 1, "the config, and one question for each layer"


def test_an_only_endpoint_that_is_busy_for_a_moment_is_asked_again(
    server: FaultServer, image: BuiltImage, user: Cli
) -> None:
    names = [layer.diff_id for layer in image.layers]
    busy = [on("blob", Status(500), reference=name, method="HEAD", last=2) for name in names[:1]]
    server.script([*busy, *has_tars(server, image)])
    ran = user.pull(ONE_STREAM, server.reference)
    assert [told["as_tar"] for told in ran.layers] == [True] * 3
    assert [counted(server, layer)[2] for layer in image.layers] == [3, 1, 1]


# --- what an endpoint says is not believed ---------------------------------------------------------


def lying(server: FaultServer, image: BuiltImage, behaviour: Behaviour, method: str) -> list[Rule]:
    """Rules by which the large layer's tar is answered for with ``behaviour``."""
    large = image.layers[0]
    return [on("blob", behaviour, reference=large.diff_id, method=method), *has_tars(server, image, [large])]


LIES: dict[str, tuple[Behaviour, str]] = {
    "a size that is too long": (ContentLength(1000), "HEAD"),
    "a size that is too short": (ContentLength(-1000), "HEAD"),
    "no size at all": (Header("Content-Length", None), "HEAD"),
    "a size that no layer has": (Header("Content-Length", str(1 << 50)), "HEAD"),
    "other bytes": (OtherBody(1 << 20), "GET"),
    "a tar that is gone by then": (Status(404), "GET"),
    "a refusal": (Status(403), "GET"),
}


@pytest.mark.parametrize("lie", LIES)
def test_a_lie_costs_no_more_than_asking_the_origin(
    site: Site, image: BuiltImage, user: Cli, lie: str
) -> None:
    site.near.script(lying(site.near, image, *LIES[lie]))
    ran = site.pull(user)
    large = image.layers[0]
    assert (ran.layers[0]["action"], ran.layers[0]["as_tar"]) == ("fetch", False)
    assert site.sent(site.origin, large.digest) == large.size
    assert user.verified()["missing"] == []


@pytest.mark.parametrize("lie", LIES)
def test_a_lie_of_the_only_endpoint_is_an_error_that_says_what_was_tried(
    server: FaultServer, image: BuiltImage, user: Cli, lie: str
) -> None:
    server.script(lying(server, image, *LIES[lie]))
    ran = user.pull(ONE_STREAM, server.reference, code=None)
    assert ran.code != 0
    assert image.layers[0].digest in ran.err
    if LIES[lie][1] == "GET":
        assert f"{server.host}/{REPOSITORY} was asked for the tar in its place" in ran.err
    assert not user.blob(image.layers[0].diff_id).exists()


def test_another_diff_id_than_the_config_has_is_ignored(
    server: FaultServer, image: BuiltImage, user: Cli
) -> None:
    large, other = image.layers[0], image.layers[1]
    server.script([on("blob", Lacks(other.diff_id), reference=large.digest), *has_tars(server, image)])
    ran = user.pull(ONE_STREAM, "-v", server.reference, code=2)
    assert f"{other.diff_id} in it, the image says {large.diff_id}" in ran.err
    assert counted(server, large)[2:] == (0, 0)


# --- endpoints that have not said anything ---------------------------------------------------------


@pytest.mark.parametrize("tells", [True, False])
def test_an_endpoint_that_has_not_said_that_it_knows_diff_ids_is_asked_when_a_blob_is_gone(
    server: FaultServer, image: BuiltImage, user: Cli, tells: bool
) -> None:
    server.script(has_tars(server, image, marked=False, tells=tells))
    ran = user.pull(ONE_STREAM, server.reference)
    assert [told["as_tar"] for told in ran.layers] == [True] * 3
    assert [counted(server, layer) for layer in image.layers] == [(0, 1, 1, 1)] * 3


def test_one_that_does_not_have_the_first_tar_is_asked_for_no_other(
    site: Site, image: BuiltImage, user: Cli
) -> None:
    site.near.script([on("blob", Status(404), reference=layer.digest) for layer in image.layers])
    ran = site.pull(user)
    assert [told["as_tar"] for told in ran.layers] == [False] * 3
    heads = [request for request in site.near.requests("blob") if request.method == "HEAD"]
    assert len(heads) == 1
    assert sum(site.sent(site.origin, layer.digest) for layer in image.layers) == image.blob_bytes


# --- a neighbour before a far origin ---------------------------------------------------------------


class Site:
    """Two neighbours and the origin, each with ``image``; the origin is a proper registry."""

    def __init__(self, directory: Path, image: BuiltImage) -> None:
        self.directory = directory
        self._stack = ExitStack()
        self.near, self.next, self.origin = (
            self._stack.enter_context(FaultServer(image, send_buffer=64 << 10)) for _ in range(3)
        )

    def __enter__(self) -> Site:
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.close()

    def pull(self, user: Cli, *args: object, mirrors: Sequence[FaultServer] = (), code: int = 0) -> Ran:
        near = [At(f"{server.host}/{REPOSITORY}") for server in mirrors or (self.near,)]
        conf = write_conf(self.directory, PREFIX, near, At(f"{self.origin.host}/{REPOSITORY}"))
        return user.pull(ONE_STREAM, *args, NAME, code=code, CONTAINERS_REGISTRIES_CONF=str(conf))

    def sent(self, server: FaultServer, digest: str) -> int:
        server.settle()
        return server.bytes_sent("blob", digest)


@pytest.fixture
def site(tmp_path: Path, image: BuiltImage) -> Iterator[Site]:
    with Site(tmp_path, image) as site:
        yield site


def test_the_neighbours_tar_comes_before_the_origins_blob(site: Site, image: BuiltImage, user: Cli) -> None:
    site.near.script(has_tars(site.near, image))
    ran = site.pull(user)
    assert [told["as_tar"] for told in ran.layers] == [True] * 3
    assert site.origin.requests() == []


def test_a_neighbour_that_did_not_give_the_manifest_gives_its_tars(
    site: Site, image: BuiltImage, user: Cli
) -> None:
    """Its manifest could not be had; it is asked last, and the origin has lost the blobs."""
    site.near.script([on("manifest", Status(404)), *has_tars(site.near, image, marked=False)])
    site.origin.script([on("blob", Status(404), reference=layer.digest) for layer in image.layers])
    ran = site.pull(user)
    assert [told["as_tar"] for told in ran.layers] == [True] * 3


@pytest.mark.parametrize("form", FORMS)
def test_a_neighbour_that_dies_in_the_middle_is_followed_by_the_origin(
    site: Site, image: BuiltImage, user: Cli, form: str
) -> None:
    large = image.layers[0]
    dies = [
        on("blob", Reset(LARGE // 3), reference=large.diff_id, method="GET", last=1),
        on("blob", Reset(None), reference=large.diff_id, method="GET", first=2),
    ]
    site.near.script([*dies, *has_tars(site.near, image, [large])])
    ran = site.pull(user, "--layers", form)
    assert not ran.layers[0]["as_tar"]
    assert site.sent(site.origin, large.digest) == large.size
    in_vain, used = (
        ran.layers[0]["endpoints"][f"{each.host}/{REPOSITORY}"] for each in (site.near, site.origin)
    )
    assert LARGE // 4 < in_vain <= LARGE // 3 and used == large.size
    assert ran.layers[0]["bytes_fetched"] == in_vain + used
    assert user.verified()["missing"] == []
    assert not list((user.store / "layertee" / "parts").iterdir()), "what came of the tar is of no use now"


@pytest.mark.parametrize("form", FORMS)
def test_a_tar_goes_on_at_the_next_neighbour_where_the_first_one_died(
    site: Site, image: BuiltImage, user: Cli, form: str
) -> None:
    large = image.layers[0]
    dies = [
        on("blob", Reset(LARGE // 2), reference=large.diff_id, method="GET", last=1),
        on("blob", Reset(None), reference=large.diff_id, method="GET", first=2),
    ]
    site.near.script([*dies, *has_tars(site.near, image, [large])])
    site.next.script(has_tars(site.next, image, [large], marked=False))
    ran = site.pull(user, "--layers", form, mirrors=[site.near, site.next])
    assert ran.layers[0]["as_tar"]
    assert ran.layers[0]["bytes_fetched"] == large.uncompressed_size
    near, further = (
        ran.layers[0]["endpoints"][f"{each.host}/{REPOSITORY}"] for each in (site.near, site.next)
    )
    assert near > LARGE // 4 and near + further == large.uncompressed_size
    assert site.sent(site.next, large.diff_id) == further
    assert site.sent(site.origin, large.digest) == 0
    assert user.verified()["missing"] == []


def test_the_next_run_goes_on_with_a_tar_that_has_begun(
    server: FaultServer, image: BuiltImage, user: Cli
) -> None:
    large = image.layers[0]
    tars = has_tars(server, image)
    breaks = [
        on("blob", Reset(LARGE * 3 // 4), reference=large.diff_id, method="GET", last=1),
        on("blob", Status(403), reference=large.diff_id, method="GET", first=2),
    ]
    server.script([*breaks, *tars])
    user.pull(ONE_STREAM, server.reference, code=None)
    server.script(tars)
    here = user.partial()[large.diff_id]
    assert here > LARGE // 4
    assert user.blob(large.diff_id).exists() is False
    dry = user.pull(ONE_STREAM, "--dry-run", server.reference)
    assert (dry.layers[0]["resumed_at"], dry.json["bytes_fetched"]) == (here, large.uncompressed_size - here)
    ran = user.pull(ONE_STREAM, server.reference)
    assert (ran.layers[0]["resumed_at"], ran.layers[0]["as_tar"]) == (here, True)
    assert ran.layers[0]["bytes_fetched"] == large.uncompressed_size - here


def test_a_tar_comes_over_several_connections(image: BuiltImage, user: Cli) -> None:
    large = image.layers[0]
    with FaultServer(image, rate_per_connection=20_000_000) as server:
        server.script(has_tars(server, image))
        ran = user.pull("--ranges=always", server.reference)
        assert ran.layers[0]["as_tar"]
        answers = asked(server, "GET", large.diff_id)
        assert len(answers) > 2
        assert {answer.status for answer in answers} == {206}
    assert user.verified()["missing"] == []


def test_most_of_a_blob_is_gone_on_with_elsewhere(site: Site, image: BuiltImage, user: Cli) -> None:
    large = image.layers[0]
    first = [
        on("blob", Reset(large.size * 3 // 4), reference=large.digest, method="GET", last=1),
        on("blob", Status(404), reference=large.digest, first=2),
    ]
    tars = has_tars(site.near, image, [large], marked=False)
    site.near.script([*first, *tars])
    ran = site.pull(user)
    assert not ran.layers[0]["as_tar"]
    assert 0 < site.sent(site.origin, large.digest) < large.size // 2


def test_little_of_a_blob_is_given_up_for_the_neighbours_tar(
    site: Site, image: BuiltImage, user: Cli
) -> None:
    large = image.layers[0]
    first = [on("blob", Reset(large.size // 4), reference=large.digest, method="GET", last=1)]
    site.near.script([*first, *has_tars(site.near, image, [large], marked=False)])
    ran = site.pull(user)
    assert ran.layers[0]["as_tar"]
    assert site.sent(site.origin, large.digest) == 0
    in_vain = ran.layers[0]["bytes_fetched"] - large.uncompressed_size
    assert large.size // 5 < in_vain <= large.size // 4
    assert not list((user.store / "layertee" / "parts").iterdir())


# --- what it may cost ------------------------------------------------------------------------------


def test_a_tar_counts_as_what_layers_inflate_to(server: FaultServer, image: BuiltImage, user: Cli) -> None:
    server.script(has_tars(server, image))
    ran = user.pull(ONE_STREAM, "--max-output", str(LARGE // 2), server.reference, code=None)
    assert "[OUTPUT_BUDGET]" in ran.err
    assert counted(server, image.layers[0])[3] == 0


def test_a_tar_that_the_disk_has_no_room_for_is_left_for_the_blob_elsewhere(
    tmp_path: Path, user: Cli
) -> None:
    image = build_image(
        tmp_path / "image", [text_layer({"a": "again\n" * 4_000_000}), text_layer({"b": "b"})]
    )
    (disk := tmp_path / "disk").mkdir()
    with tmpfs(disk, "12m"), Site(tmp_path, image) as site:
        site.near.script(has_tars(site.near, image))
        ran = site.pull(user, "--store", disk / "store")
        assert [told["as_tar"] for told in ran.layers] == [False, True]
        assert site.sent(site.origin, image.layers[0].digest) == image.layers[0].size
        assert counted(site.near, image.layers[0])[3] == 0


# --- the library -----------------------------------------------------------------------------------


def streamed(server: FaultServer, store: Path) -> bytes:
    """The first layer, as the library hands it out while it comes."""

    async def main() -> bytes:
        async with Engine(store, options=Options(tls_verify=False)) as engine:
            made = await engine.plan(server.reference)
            async with engine.open_layer(made.layers[0]) as stream:
                return b"".join([bytes(piece) async for piece in stream])

    return sync.run(main())


def test_a_stream_of_a_layer_comes_from_its_tar(
    server: FaultServer, image: BuiltImage, tmp_path: Path
) -> None:
    large = image.layers[0]
    server.script(has_tars(server, image))
    assert digest_of(streamed(server, tmp_path / "store")) == large.diff_id
    assert counted(server, large) == (1, 0, 1, 1)


@pytest.mark.parametrize("gone", ["before the plan", "after the plan", "back after the plan"])
def test_a_plan_is_carried_out_by_another_engine_with_what_is_there_then(
    server: FaultServer, image: BuiltImage, tmp_path: Path, gone: str
) -> None:
    options = Options(tls_verify=False)
    without = has_tars(server, image)

    async def make() -> bytes:
        async with Engine(tmp_path / "planned", options=options) as engine:
            return pickle.dumps(await engine.plan(server.reference))

    async def carry_out(made: bytes) -> PullResult:
        async with Engine(tmp_path / "store", options=options) as engine:
            return await engine.pull(pickle.loads(made))

    server.script([] if gone == "after the plan" else without)
    made = sync.run(make())
    back = [on("blob", Status(404), reference=layer.diff_id) for layer in image.layers]
    server.script(back if gone == "back after the plan" else without)
    result = sync.run(carry_out(made))
    assert [layer.as_tar for layer in result.layers] == [gone != "back after the plan"] * 3
    assert_store_is_sound(tmp_path / "store")


def test_a_stream_of_a_wrong_tar_is_an_error(server: FaultServer, image: BuiltImage, tmp_path: Path) -> None:
    server.script(lying(server, image, OtherBody(1 << 20), "GET"))
    with pytest.raises(DigestMismatch):
        streamed(server, tmp_path / "store")


# --- the image-proxy -------------------------------------------------------------------------------


def test_the_proxy_names_tars_and_gets_them_where_blobs_are_gone(
    server: FaultServer, image: BuiltImage, tmp_path: Path
) -> None:
    server.script(has_tars(server, image))
    with serving(tmp_path / "store", "--layer-identity", "diffid") as proxy:
        number = proxy.open(f"docker://{server.reference}")
        _, manifest = proxy.manifest(number)
        assert [layer["digest"] for layer in manifest["layers"]] == [layer.diff_id for layer in image.layers]
        for layer in image.layers:
            tar = proxy.body("GetBlob", number, layer.diff_id, layer.uncompressed_size)
            assert digest_of(tar) == layer.diff_id
    assert [counted(server, layer)[1] for layer in image.layers] == [0, 0, 0]


def test_a_proxy_that_hands_out_blobs_has_no_use_for_tars(
    site: Site, image: BuiltImage, tmp_path: Path
) -> None:
    site.near.script(has_tars(site.near, image))
    conf = write_conf(
        tmp_path, PREFIX, [At(f"{site.near.host}/{REPOSITORY}")], At(f"{site.origin.host}/{REPOSITORY}")
    )
    with serving(tmp_path / "store", ONE_STREAM, "--registries-conf", str(conf)) as proxy:
        number = proxy.open(f"docker://{NAME}")
        for layer in image.layers:
            assert digest_of(proxy.blob(number, layer)) == layer.digest
    assert [counted(site.near, layer)[2:] for layer in image.layers] == [(0, 0)] * 3
    assert sum(site.sent(site.origin, layer.digest) for layer in image.layers) == image.blob_bytes


# --- layertee serve itself -------------------------------------------------------------------------


def test_the_server_of_this_project_is_such_an_endpoint(image: BuiltImage, tmp_path: Path) -> None:
    """A machine that has only tars hands the image on; later its registry has nothing to send."""
    near, client, other = (Cli(tmp_path / name) for name in ("near", "client", "other"))
    with FaultServer(image) as origin:
        near.pull("--layers", "uncompressed", origin.reference)
        origin.forget()
        with serve(near) as served:
            name = f"{served.address}/{REPOSITORY}:latest"
            ran = client.pull(ONE_STREAM, name)
            told = other.run("inspect", PLAIN, "--json", name)
            with serving(tmp_path / "store", "--layer-identity", "diffid") as proxy:
                number = proxy.open(f"docker://{name}")
                for layer in image.layers:
                    tar = proxy.body("GetBlob", number, layer.diff_id, layer.uncompressed_size)
                    assert digest_of(tar) == layer.diff_id
            with serving(tmp_path / "blobs") as proxy:  # which cannot do with tars in place of blobs
                number = proxy.open(f"docker://{name}")
                digest, manifest = proxy.manifest(number)
                assert digest != image.digest
                for shown in manifest["layers"]:
                    blob = proxy.body("GetBlob", number, shown["digest"], shown["size"])
                    assert digest_of(blob) == shown["digest"]
        for seen in (ran, told):
            assert seen.json["manifest_digest"] == image.digest
            assert [layer["as_tar"] for layer in seen.layers] == [True] * 3
        assert ran.json["bytes_fetched"] == image.uncompressed_bytes
        later = client.pull(origin.reference)
        assert (later.json["bytes_fetched"], later.actions) == (0, ["have"] * 3)
        assert origin.bytes_sent("blob", image.layers[0].digest) == 0
