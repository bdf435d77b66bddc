"""How many connections a fetch opens on servers of different kinds, by the servers' own count."""

from __future__ import annotations

import asyncio
import dataclasses
import time
from pathlib import Path

import pytest

from layertee import Engine, Options
from layertee.sync import run
from layertee.transfer.limits import FetchLimits, RangeMode
from tests.support.fakes.exchange import Exchange
from tests.support.fakes.fault_server import FaultServer, Rule, on
from tests.support.fakes.faults import Behaviour, Header, NoRanges
from tests.support.fakes.refusals import Presigned, Status, too_many
from tests.support.rig.images import BuiltImage, build_image
from tests.support.rig.layers import incompressible_layer, text_layer
from tests.support.transfer import Brought, bring

pytestmark = pytest.mark.alone
LIMITS = FetchLimits(range_nbytes=1 << 20, attempts=3, backoff_s=0.1)
ALWAYS = dataclasses.replace(LIMITS, ranges=RangeMode.ALWAYS)
SEND_BUFFER = 64 << 10  # keeps what the server has sent close to what was read


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> BuiltImage:
    """One layer of 24 MiB on the wire."""
    root: Path = tmp_path_factory.mktemp("large")
    return build_image(root, [incompressible_layer(24 << 20, seed=3)], compression="gzip-fast")


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> BuiltImage:
    """Ten layers, of a few bytes to 6 MiB."""
    root: Path = tmp_path_factory.mktemp("many")
    sizes = (6 << 20, 1 << 20, 2 << 20, 5 << 20, 70_000, 3 << 20, (1 << 20) + 1, 2_500_000)
    layers = [incompressible_layer(size, seed=10 + index) for index, size in enumerate(sizes)]
    texts = [text_layer({"a": "a\n" * 1000}), text_layer({"b": "b\n" * 200_000})]
    return build_image(root, [*layers, *texts], compression="gzip-fast")


def are_right(brought: Brought, image: BuiltImage, layers: tuple[int, ...] | None = None) -> bool:
    wanted = image.layers if layers is None else [image.layers[index] for index in layers]
    found = [(result.digest, result.diff_id) for result in brought.results]
    return found == [(layer.digest, layer.diff_id) for layer in wanted]


def layer_bytes(server: FaultServer, image: BuiltImage) -> int:
    return sum(server.bytes_sent("blob", digest) for digest in image.layer_digests)


def ranges(server: FaultServer, image: BuiltImage) -> list[str | None]:
    return [r.header("Range") for digest in image.layer_digests for r in server.requests("blob", digest)]


def for_layers(image: BuiltImage, behaviour: Behaviour) -> list[Rule]:
    return [on("blob", behaviour, reference=digest) for digest in image.layer_digests]


class Crowd:
    """A server that looks at how many layers it is sending at once.

    ``rate`` is for all of them together, divided by the ``power`` of their number: 0 is a shared link,
    above it more streams give less. More than ``most`` get ``refusal``. ``active`` is the number after
    each request came or went, with the time.
    """

    def __init__(
        self,
        *,
        rate: float | None = None,
        power: float = 0.0,
        most: int = 1000,
        refusal: Status | None = None,
        ranges: bool = True,
    ) -> None:
        self._rate, self._power, self._most = rate, power, most
        self._refusal = refusal or Status(503)
        self._ranges = ranges
        self._n = 0
        self.active: list[tuple[float, int]] = []
        self.refused: list[float] = []
        self.asked: list[float] = []

    async def respond(self, exchange: Exchange) -> None:
        self.asked.append(time.monotonic())
        if self._n >= self._most:
            self.refused.append(time.monotonic())
            await self._refusal.respond(exchange)
            return
        self._count(1)
        try:
            plan = exchange.plan(ranges=self._ranges)
            await exchange.send_head(plan)
            assert exchange.entity is not None
            for piece in exchange.entity.read(plan.start, plan.stop):
                if self._rate is not None:
                    exchange.rate = self._rate / float(self._n ** (1 + self._power))
                await exchange.send_bytes(piece)
        finally:
            self._count(-1)

    def _count(self, n: int) -> None:
        self._n += n
        self.active.append((time.monotonic(), self._n))

    def most_active(self, after: float = 0.0) -> int:
        return max((n for when, n in self.active if when >= after), default=0)


# --- connections and bytes, counted ---------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("core", ["c", "python"])
def test_a_capped_connection_gets_all_the_help_that_is_allowed(large: BuiltImage, core: str) -> None:
    size = large.layers[0].size
    with FaultServer(large, rate_per_connection=4e6, send_buffer=SEND_BUFFER) as server:
        began = time.monotonic()
        brought = bring(server, limits=LIMITS, core=core)
        took = time.monotonic() - began
        assert are_right(brought, large)
        assert server.max_connections == LIMITS.max_connections
        assert layer_bytes(server, large) <= 1.02 * size
        assert took < size / 4e6 / 3  # 8 connections, and the time it takes to see that they pay


@pytest.mark.slow
@pytest.mark.parametrize("connections", [1, 2, 5])
@pytest.mark.parametrize("mode", [RangeMode.AUTO, RangeMode.ALWAYS])
def test_never_more_connections_than_allowed_and_no_byte_twice(
    many: BuiltImage, mode: RangeMode, connections: int
) -> None:
    limits = dataclasses.replace(LIMITS, ranges=mode, max_connections=connections)
    with FaultServer(many, rate_per_connection=8e6, send_buffer=SEND_BUFFER) as server:
        brought = bring(server, limits=limits, layers=tuple(range(len(many.layers))), at_once=True)
        assert are_right(brought, many)
        assert server.max_connections == connections
        assert layer_bytes(server, many) <= 1.02 * sum(layer.size for layer in many.layers)


@pytest.mark.slow
@pytest.mark.parametrize("mode", [RangeMode.AUTO, RangeMode.ALWAYS])
def test_a_fast_server_sends_each_byte_once(many: BuiltImage, mode: RangeMode) -> None:
    limits = dataclasses.replace(LIMITS, ranges=mode)
    with FaultServer(many) as server:
        brought = bring(server, limits=limits, layers=tuple(range(len(many.layers))), at_once=True)
        assert are_right(brought, many)
        assert server.max_connections <= limits.max_connections
        assert layer_bytes(server, many) == sum(layer.size for layer in many.layers)


@pytest.mark.slow
def test_of_many_blobs_few_are_sent_at_once_when_it_is_not_the_server_that_is_slow(many: BuiltImage) -> None:
    limits = dataclasses.replace(LIMITS, max_rate=20_000_000)
    crowd = Crowd()
    with FaultServer(many, for_layers(many, crowd), send_buffer=SEND_BUFFER) as server:
        layers = tuple(range(len(many.layers)))
        assert are_right(bring(server, limits=limits, layers=layers, at_once=True, n_in=32), many)
        assert crowd.most_active() == 3
        assert ranges(server, many) == [None] * len(many.layers)


@pytest.mark.slow
def test_of_many_blobs_a_slow_server_without_ranges_sends_more_at_once(many: BuiltImage) -> None:
    crowd = Crowd(ranges=False)
    with FaultServer(many, for_layers(many, crowd), rate_per_connection=3e6) as server:
        layers = tuple(range(len(many.layers)))
        assert are_right(bring(server, limits=LIMITS, layers=layers, at_once=True), many)
        assert 3 < crowd.most_active() <= LIMITS.max_connections
        assert ranges(server, many) == [None] * len(many.layers)


@pytest.mark.slow
def test_help_goes_to_the_blob_that_would_be_the_last_to_end(many: BuiltImage) -> None:
    limits = dataclasses.replace(LIMITS, max_connections=3)
    with FaultServer(many, rate_per_connection=3e6, send_buffer=SEND_BUFFER) as server:
        assert are_right(bring(server, limits=limits, layers=(2, 0), at_once=True), many, (2, 0))
        helped = [request.reference for request in server.requests("blob") if request.header("Range")]
        assert helped[0] == many.layers[0].digest
        assert many.layers[2].digest not in helped  # 2 MB of 8: done by its own connection in time


@pytest.mark.slow
def test_the_last_large_layer_gets_the_connections_of_those_that_ended(large: BuiltImage) -> None:
    small = [incompressible_layer(700_000, seed=20 + index) for index in range(2)]
    image = build_image(large.root.parent / "tail", [incompressible_layer(16 << 20, seed=4), *small])
    size = image.layers[0].size
    limits = dataclasses.replace(LIMITS, max_connections=4)
    crowd = Crowd()
    with FaultServer(
        image, for_layers(image, crowd), rate_per_connection=4e6, send_buffer=SEND_BUFFER
    ) as server:
        began = time.monotonic()
        assert are_right(bring(server, limits=limits, layers=(0, 1, 2), at_once=True), image)
        assert time.monotonic() - began < size / 4e6 / 2
        assert crowd.most_active(after=began + 0.5 * size / 4e6 / 2) == 4
        assert server.max_connections == 4


# --- more is not more -------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("power", [0.0, 0.5], ids=["a shared link", "more give less"])
def test_connections_that_bring_nothing_are_given_back(large: BuiltImage, power: float) -> None:
    size = large.layers[0].size
    crowd = Crowd(rate=7e6, power=power)
    with FaultServer(large, for_layers(large, crowd), send_buffer=SEND_BUFFER) as server:
        assert are_right(bring(server, limits=LIMITS), large)
        began = crowd.active[0][0]
        assert crowd.most_active() == 2
        assert crowd.most_active(after=began + 2.5) == 1
        assert layer_bytes(server, large) <= 1.02 * size


# --- the server says: too many -------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("refusal", [too_many("1"), Status(503)], ids=["429", "503"])
def test_a_server_that_refuses_more_than_three_gets_three_or_fewer(
    large: BuiltImage, refusal: Status
) -> None:
    crowd = Crowd(most=3, refusal=refusal)
    with FaultServer(
        large, for_layers(large, crowd), rate_per_connection=2.5e6, send_buffer=SEND_BUFFER
    ) as server:
        assert are_right(bring(server, limits=LIMITS), large)
        # Until the ranges under way have ended, and not again.
        assert crowd.refused and crowd.refused[-1] - crowd.refused[0] < 1.0
        assert 1 < crowd.most_active(after=crowd.refused[-1] + 1.2) <= 3
        if refusal.headers:  # no request of any connection while the server wants none
            assert not [when for when in crowd.asked if 0.1 < when - crowd.refused[0] < 0.95]
            assert len(crowd.refused) <= 3
        assert layer_bytes(server, large) <= 1.02 * large.layers[0].size


@pytest.mark.slow
@pytest.mark.parametrize("mode", [RangeMode.AUTO, RangeMode.ALWAYS])
def test_blobs_that_are_turned_away_wait_for_their_turn(many: BuiltImage, mode: RangeMode) -> None:
    """Two at a time, and three attempts each: who waits in line has not failed."""
    limits = dataclasses.replace(LIMITS, ranges=mode)
    crowd = Crowd(most=2, refusal=too_many("1"))
    with FaultServer(many, for_layers(many, crowd), rate_per_connection=8e6) as server:
        layers = tuple(range(len(many.layers)))
        assert are_right(bring(server, limits=limits, layers=layers, at_once=True, n_in=32), many)
        assert crowd.refused


# --- servers without ranges ---------------------------------------------------------------------------


@pytest.mark.slow
def test_a_server_that_does_not_offer_ranges_is_not_asked_for_any(many: BuiltImage) -> None:
    """As a pull-through cache that has not got the blob: each request would be one more upstream."""
    with FaultServer(many, for_layers(many, NoRanges()), rate_per_connection=4e6) as server:
        assert are_right(bring(server, limits=LIMITS, layers=(0, 1, 3)), many, (0, 1, 3))
        assert ranges(server, many) == [None] * 3


@pytest.mark.slow
def test_what_the_last_answer_of_a_redirect_offers_is_what_counts(large: BuiltImage) -> None:
    limits = dataclasses.replace(LIMITS, max_connections=3)
    with FaultServer(rate_per_connection=6e6, send_buffer=SEND_BUFFER) as cdn:
        with FaultServer(large, for_layers(large, Presigned(to=cdn))) as server:
            assert are_right(bring(server, limits=limits), large)
        assert any(request.header("Range") for request in cdn.requests("signed"))
    with FaultServer(script=[on("signed", NoRanges())], rate_per_connection=6e6) as cdn:
        with FaultServer(large, for_layers(large, Presigned(to=cdn))) as server:
            assert are_right(bring(server, limits=limits), large)
        assert [request.header("Range") for request in cdn.requests("signed")] == [None]


@pytest.mark.slow
def test_a_server_that_lies_about_ranges_is_found_out_once(many: BuiltImage) -> None:
    class Lie:
        async def respond(self, exchange: Exchange) -> None:
            plan = exchange.plan(ranges=False)
            plan.set("Accept-Ranges", "bytes")
            await exchange.send(plan)

    with FaultServer(
        many, for_layers(many, Lie()), rate_per_connection=4e6, send_buffer=SEND_BUFFER
    ) as server:
        assert are_right(bring(server, limits=LIMITS, layers=(0, 2, 3)), many, (0, 2, 3))
        assert len([value for value in ranges(server, many) if value]) == 1


@pytest.mark.slow
def test_accept_ranges_none_is_a_no(large: BuiltImage) -> None:
    with FaultServer(
        large, for_layers(large, Header("Accept-Ranges", "none")), rate_per_connection=8e6
    ) as server:
        assert are_right(bring(server, limits=LIMITS), large)
        assert ranges(server, large) == [None]


# --- from one pull to the next ---------------------------------------------------------------------------


@pytest.mark.slow
def test_an_engine_remembers_what_a_registry_is_like(
    large: BuiltImage, many: BuiltImage, tmp_path: Path
) -> None:
    images = {"rig/large:1": large, "rig/many:1": many}
    with FaultServer(images, rate_per_connection=5e6, send_buffer=SEND_BUFFER) as server:

        async def pulls() -> None:
            options = Options(tls_verify=False, limits=dataclasses.replace(LIMITS, max_connections=4))
            async with Engine(tmp_path / "store", options=options) as engine:
                await engine.pull(await engine.plan(f"{server.host}/rig/large:1"))
                first = ranges(server, large)
                assert first[0] is None and len(first) > 5
                await engine.pull(await engine.plan(f"{server.host}/rig/many:1"))

        run(asyncio.wait_for(pulls(), 30))
        second = {layer.digest: server.requests("blob", layer.digest) for layer in many.layers}
        for layer in many.layers:  # larger than a range: in ranges from the first request on
            begun = second[layer.digest][0].header("Range")
            assert (begun is not None) == (layer.size > LIMITS.range_nbytes)
        assert layer_bytes(server, many) == sum(layer.size for layer in many.layers)  # nothing was cut
        assert server.max_active == 4  # besides them, the next plan asks whether the server speaks TLS
