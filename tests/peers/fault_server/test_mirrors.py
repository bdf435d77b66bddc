"""An image with mirrors: what is asked where, and what a mirror's failure costs."""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Self

import pytest

from layertee import Engine, Form, Options, PullResult
from layertee.errors import IntegrityError, NotFound, TransportError
from layertee.image.platform import Platform
from layertee.sync import run
from layertee.transfer.limits import FetchLimits, RangeMode
from tests.support.fakes.fault_server import FaultServer, Rule, on
from tests.support.fakes.faults import (
    Behaviour,
    ContentRange,
    Gate,
    Header,
    Held,
    NoRanges,
    OtherBody,
    Raw,
    Replace,
    Reset,
    ShortBody,
    Stall,
)
from tests.support.fakes.refusals import Status, too_many
from tests.support.mirrors import At, write_conf
from tests.support.rig.images import BuiltImage, build_image, build_two_platforms
from tests.support.rig.layers import incompressible_layer, text_layer
from tests.support.store import assert_store_is_sound

QUICK = FetchLimits(range_nbytes=1 << 20, attempts=4, backoff_s=0.01, stall_s=0.5)
SIZE = 12 << 20
THIRD = SIZE * 3 // 10
PREFIX = "origin.test/os"


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> BuiltImage:
    specs = [incompressible_layer(SIZE), text_layer({"a": "small\n" * 1000})]
    return build_image(tmp_path_factory.mktemp("mirrored"), specs, compression=["gzip", "gzip"])


class Mirrored:
    """Two mirrors and an origin that have ``image``, each under a repository of its own."""

    def __init__(self, directory: Path, image: BuiltImage) -> None:
        self.image = image
        self.directory = directory
        self._stack = ExitStack()
        self.first, self.second, self.origin = (
            self._stack.enter_context(FaultServer({f"{name}/os:1": image}, send_buffer=64 << 10))
            for name in ("first", "second", "origin")
        )
        self.mirrors = [At(f"{self.first.host}/first/os"), At(f"{self.second.host}/second/os")]
        self.at_origin = At(f"{self.origin.host}/origin/os")
        self.limits = QUICK
        self.more = ""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.close()

    def pull(self, name: str = f"{PREFIX}:1", *, form: Form = Form.UNCOMPRESSED) -> PullResult:
        conf = write_conf(self.directory, PREFIX, self.mirrors, self.at_origin)
        conf.write_text(conf.read_text() + self.more)
        store = self.directory / "store"

        async def main() -> PullResult:
            options = Options(registries_conf=conf, limits=self.limits)
            async with Engine(store, options=options) as engine:
                return await engine.pull(await engine.plan(name, form=form))

        result = run(main())
        assert result.manifest_digest == self.image.digest
        assert_store_is_sound(store)
        return result

    def sent(self) -> tuple[int, int, int]:
        """Layer bytes that left the first mirror, the second and the origin."""
        for server in (self.first, self.second, self.origin):
            server.settle()
        layers = {layer.digest for layer in self.image.layers}
        first, second, origin = (
            sum(server.bytes_sent("blob", digest) for digest in layers)
            for server in (self.first, self.second, self.origin)
        )
        return first, second, origin

    def asked(self) -> tuple[int, int, int]:
        """Requests at each."""
        return len(self.first.requests()), len(self.second.requests()), len(self.origin.requests())


@pytest.fixture
def mirrored(tmp_path: Path, image: BuiltImage) -> Iterator[Mirrored]:
    with Mirrored(tmp_path, image) as mirrored:
        yield mirrored


def test_the_first_mirror_serves_all_and_no_other_is_asked(mirrored: Mirrored) -> None:
    result = mirrored.pull()
    assert mirrored.asked()[1:] == (0, 0)
    names = [f"{mirrored.first.host}/first/os", f"{mirrored.second.host}/second/os"]
    assert list(result.by_endpoint) == [*names, f"{mirrored.origin.host}/origin/os"]
    assert list(result.by_endpoint.values()) == [result.bytes_fetched, 0, 0]
    assert mirrored.sent() == (result.bytes_fetched, 0, 0)
    assert not result.warnings


@pytest.mark.parametrize("platform", ["linux/amd64", "linux/arm64"])
def test_a_mirror_that_has_the_image_for_other_hosts_does_not_have_it(tmp_path: Path, platform: str) -> None:
    """One of several kinds of hosts has pulled its image out of a list, and hands on what it has."""
    index = build_two_platforms(tmp_path / "index")
    amd64, arm64 = index.images
    with (
        FaultServer({"os/os:1": amd64}) as mirror,
        FaultServer({"os/os:1": index}) as origin,
    ):
        conf = write_conf(tmp_path, PREFIX, [At(f"{mirror.host}/os/os")], At(f"{origin.host}/os/os"))

        async def main() -> PullResult:
            options = Options(registries_conf=conf, limits=QUICK, platform=Platform.parse(platform))
            async with Engine(tmp_path / "store", options=options) as engine:
                return await engine.pull(await engine.plan(f"{PREFIX}:1"))

        result = run(main())
        wanted = amd64 if platform == "linux/amd64" else arm64
        assert result.manifest_digest == wanted.digest
        origin.settle()
        assert bool(origin.requests()) == (wanted is arm64)
        assert not result.warnings


# What happens to the large layer at the first mirror when 30 % of it have come.
BREAKS: dict[str, Callable[[str], list[Rule]]] = {
    "reset, then 404": lambda blob: then(blob, Reset(THIRD), Status(404)),
    "reset, then 403": lambda blob: then(blob, Reset(THIRD), Status(403)),
    "reset, then 500": lambda blob: then(blob, Reset(THIRD), Status(500)),
    "reset, then 429": lambda blob: then(blob, Reset(THIRD), too_many("30")),
    "reset, then another range": lambda blob: then(blob, Reset(THIRD), ContentRange("shifted")),
    "reset, then no ranges": lambda blob: then(blob, Reset(THIRD), NoRanges()),
    "reset, then something that is not HTTP": lambda blob: then(blob, Reset(THIRD), Raw(b"hello\r\n\r\n")),
    "reset, then nothing at once": lambda blob: then(blob, Reset(THIRD), Reset(None)),
    "stalls": lambda blob: [on("blob", Stall(THIRD), reference=blob)],
    "ends early, then another ETag": lambda blob: then(blob, ShortBody(THIRD), Header("ETag", '"other"')),
}


def then(blob: str, first: Behaviour, afterwards: Behaviour) -> list[Rule]:
    return [on("blob", first, reference=blob, last=1), on("blob", afterwards, reference=blob, first=2)]


@pytest.mark.parametrize("form", Form)
@pytest.mark.parametrize("happens", BREAKS)
def test_a_layer_goes_on_at_the_next_endpoint_from_where_it_was(
    mirrored: Mirrored, happens: str, form: Form
) -> None:
    mirrored.first.script(BREAKS[happens](mirrored.image.layers[0].digest))
    result = mirrored.pull(form=form)
    first, second, origin = mirrored.sent()
    assert origin == 0
    if "ETag" not in happens:  # that one is no reason to go elsewhere
        assert second > SIZE - THIRD - (2 << 20)
    total = sum(layer.size for layer in mirrored.image.layers)
    assert result.bytes_fetched <= 1.1 * total
    assert sum(result.by_endpoint.values()) == result.bytes_fetched
    assert first <= 0.5 * SIZE or "ETag" in happens or "ranges" in happens
    again = list(mirrored.second.requests("blob", mirrored.image.layers[0].digest))
    assert all(request.header("Range") for request in again)  # not begun anew


def test_a_mirror_that_is_killed_costs_nothing_but_what_was_in_flight(mirrored: Mirrored) -> None:
    gate = Gate()
    mirrored.first.script([on("blob", Held(gate, THIRD), reference=mirrored.image.layers[0].digest)])

    def kill() -> None:
        gate.wait_arrived()
        mirrored.first.stop()

    killer = threading.Thread(target=kill)
    killer.start()
    result = mirrored.pull()
    killer.join()
    assert result.bytes_fetched <= 1.1 * sum(layer.size for layer in mirrored.image.layers)
    assert len(mirrored.origin.requests()) == 0


def test_a_mirror_that_is_down_leads_to_the_next_and_not_to_the_origin(mirrored: Mirrored) -> None:
    mirrored.first.stop()
    mirrored.pull()
    mirrored.second.settle()
    assert len(mirrored.origin.requests()) == 0
    assert mirrored.second.bytes_sent("blob") > SIZE


def test_a_mirrors_not_found_is_not_the_images(mirrored: Mirrored, image: BuiltImage) -> None:
    mirrored.first.script([on("manifest", Status(404))])
    mirrored.second.script([on("manifest", Status(404))])
    result = mirrored.pull()
    assert mirrored.sent()[:2] == (0, 0)
    assert not result.warnings  # a mirror need not have all
    mirrored.origin.script([on("manifest", Status(404))])
    with pytest.raises(NotFound, match=mirrored.origin.host) as failed:
        mirrored.pull(f"{PREFIX}:other")
    assert len(failed.value.__notes__) == 2  # what the mirrors said


def test_blobs_that_a_mirror_has_not_come_from_elsewhere_and_the_others_from_it(mirrored: Mirrored) -> None:
    large = mirrored.image.layers[0].digest
    mirrored.first.script([on("blob", Status(404), reference=large)])
    result = mirrored.pull()
    first, second, origin = mirrored.sent()
    assert (first, second, origin) == (mirrored.image.layers[1].size, mirrored.image.layers[0].size, 0)
    assert [list(layer.by_endpoint) for layer in result.layers] == [
        [f"{mirrored.second.host}/second/os"],
        [f"{mirrored.first.host}/first/os"],
    ]


@pytest.mark.parametrize("form", Form)
def test_wrong_bytes_are_left_for_the_next_and_the_mirror_is_named(mirrored: Mirrored, form: Form) -> None:
    large = mirrored.image.layers[0].digest
    mirrored.first.script([on("blob", OtherBody(THIRD), reference=large)])
    mirrored.pull(form=form)
    _first, second, origin = mirrored.sent()
    assert second >= mirrored.image.layers[0].size and origin == 0
    assert len(mirrored.first.requests("blob", large)) == 1


def test_all_mirrors_wrong_and_the_origin_has_the_last_word(mirrored: Mirrored) -> None:
    large = mirrored.image.layers[0].digest
    for mirror in (mirrored.first, mirrored.second):
        mirror.script([on("blob", OtherBody(THIRD), reference=large)])
    mirrored.pull()
    assert mirrored.sent()[2] >= mirrored.image.layers[0].size


def test_bytes_that_are_wrong_everywhere_are_an_error(mirrored: Mirrored) -> None:
    large = mirrored.image.layers[0].digest
    for server in (mirrored.first, mirrored.second, mirrored.origin):
        server.script([on("blob", OtherBody(THIRD), reference=large)])
    with pytest.raises(IntegrityError):
        mirrored.pull()
    asked = [
        len(server.requests("blob", large)) for server in (mirrored.first, mirrored.second, mirrored.origin)
    ]
    assert max(asked) <= 2


def test_a_mirror_with_wrong_documents_is_passed_over_with_a_warning(mirrored: Mirrored) -> None:
    mirrored.first.script([on("manifest", Replace(b"<html>login</html>", "text/html"))])
    mirrored.second.script([on("blob", OtherBody(0), reference=mirrored.image.config_digest)])
    result = mirrored.pull()
    assert mirrored.sent()[:2] == (0, 0)
    assert [mirrored.first.host in text for text in result.warnings] == [True, False]
    assert [mirrored.second.host in text for text in result.warnings] == [False, True]


def test_a_tag_that_moved_at_a_mirror_is_what_the_mirror_says(mirrored: Mirrored, tmp_path: Path) -> None:
    """By digest every endpoint has the same; by tag the first one is asked, as its administrator wants."""
    by_digest = mirrored.pull(f"{PREFIX}@{mirrored.image.digest}")
    assert by_digest.by_endpoint[f"{mirrored.first.host}/first/os"] == by_digest.bytes_fetched


def test_another_image_does_not_wait_for_what_has_failed_before(mirrored: Mirrored) -> None:
    """Its own first mirror is on the host that did not answer for the first image."""
    mirrored.first.script([on("manifest", Stall(None)), on("ping", Stall(None))])
    beside = mirrored.directory / "beside"
    beside.mkdir()
    first, second = At(f"{mirrored.first.host}/first/os"), At(f"{mirrored.second.host}/second/os")
    conf = write_conf(mirrored.directory, PREFIX, [first, second], mirrored.at_origin)
    other = write_conf(beside, "other.test/os", [first, second], mirrored.at_origin)
    conf.write_text(conf.read_text() + other.read_text())

    async def main() -> list[PullResult]:
        options = Options(registries_conf=conf, limits=QUICK)
        async with Engine(mirrored.directory / "engine", options=options) as engine:
            names = (f"{PREFIX}:1", "other.test/os:1")
            return [await engine.pull(await engine.plan(name)) for name in names]

    one, two = run(main())
    assert [bool(result.warnings) for result in (one, two)] == [True, False]
    assert len(mirrored.first.requests()) == 1
    assert len(mirrored.origin.requests()) == 0


def test_an_endpoint_that_is_listed_often_is_one(mirrored: Mirrored) -> None:
    mirrored.mirrors = [mirrored.mirrors[0]] * 50
    mirrored.first.script([on("manifest", Status(503))])
    result = mirrored.pull()
    assert len(mirrored.first.requests()) == 1
    assert len(result.by_endpoint) == 2 and len(result.warnings) == 1


def test_a_blocked_host_is_not_asked_through_another(mirrored: Mirrored) -> None:
    large = mirrored.image.layers[0].digest
    location = f"{mirrored.second.url}/v2/second/os/blobs/{large}"
    mirrored.first.script([on("blob", Status(307, (("Location", location),)), reference=large)])
    mirrored.mirrors = mirrored.mirrors[:1]
    mirrored.more = f'[[registry]]\nlocation = "{mirrored.second.host}"\nblocked = true\n'
    result = mirrored.pull()
    assert mirrored.asked()[1] == 0
    assert result.by_endpoint[f"{mirrored.origin.host}/origin/os"] >= mirrored.image.layers[0].size


def test_a_mirror_for_digests_only_is_not_asked_for_a_tag(mirrored: Mirrored) -> None:
    mirrored.mirrors = [dataclasses.replace(mirrored.mirrors[0], only="digest-only")]
    mirrored.pull()
    assert mirrored.asked()[0] == 0


def test_an_origin_that_cannot_be_reached_is_not_missed(mirrored: Mirrored) -> None:
    mirrored.origin.stop()
    mirrored.first.script([on("manifest", Status(503), last=1)])
    mirrored.second.stop()
    mirrored.pull()
    assert mirrored.sent()[0] > SIZE


def test_when_nothing_can_be_reached_the_error_names_all(mirrored: Mirrored) -> None:
    for server in (mirrored.first, mirrored.second, mirrored.origin):
        server.stop()
    with pytest.raises(TransportError) as failed:
        mirrored.pull()
    told = " ".join([str(failed.value), *failed.value.__notes__])
    assert all(server.host in told for server in (mirrored.first, mirrored.second, mirrored.origin))


@pytest.mark.parametrize("mode", RangeMode)
def test_connections_that_help_each_other_move_together(mirrored: Mirrored, mode: RangeMode) -> None:
    mirrored.limits = dataclasses.replace(QUICK, ranges=mode)
    large = mirrored.image.layers[0].digest
    mirrored.first.script(
        [
            on("blob", Reset(1 << 20), reference=large, last=2),
            on("blob", Status(500), reference=large, first=3),
        ]
    )
    result = mirrored.pull()
    assert result.bytes_fetched <= 1.3 * sum(layer.size for layer in mirrored.image.layers)
    assert mirrored.asked()[2] == 0
