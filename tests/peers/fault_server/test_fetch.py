"""Transfers from servers that behave, and from servers that do not."""

from __future__ import annotations

import dataclasses
import time
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from layertee import Engine, Options, PullResult
from layertee.errors import (
    DigestMismatch,
    IntegrityError,
    RangeMismatch,
    RateLimited,
    ServerError,
    SizeMismatch,
    Timeout,
    TruncatedBody,
)
from layertee.sync import run
from layertee.transfer.limits import FetchLimits, RangeMode
from layertee.transfer.schedule import MISFITS
from tests.support.fakes.credentials import BearerAuth
from tests.support.fakes.exchange import Exchange
from tests.support.fakes.fault_server import FaultServer, on
from tests.support.fakes.faults import (
    Behaviour,
    Chunked,
    ContentLength,
    ContentRange,
    LongBody,
    MultipartByteranges,
    NoLength,
    NoRanges,
    Ok,
    OtherBody,
    Reset,
    ShortBody,
    Stall,
)
from tests.support.fakes.refusals import Challenge, Presigned, Status, too_many
from tests.support.rig.images import BuiltImage
from tests.support.transfer import QUICK, Brought, bring

ALWAYS = dataclasses.replace(QUICK, ranges=RangeMode.ALWAYS)
NEVER = dataclasses.replace(QUICK, ranges=RangeMode.NEVER)


def is_right(brought: Brought, built: BuiltImage, index: int = 0) -> bool:
    result, layer = brought.results[index], built.layers[index]
    return (result.digest, result.diff_id, result.size) == (layer.digest, layer.diff_id, layer.size)


def layer_requests(server: FaultServer, built: BuiltImage, index: int = 0) -> list[str | None]:
    """The Range headers of the requests for a layer, in order."""
    return [r.header("Range") for r in server.requests("blob", built.layers[index].digest)]


# --- servers that behave ---


@pytest.mark.parametrize("core", ["c", "python"])
def test_a_fast_server_is_asked_once_and_without_a_range(built: BuiltImage, core: str) -> None:
    with FaultServer(built) as server:
        brought = bring(server, core=core, layers=(0, 1))
        assert is_right(brought, built) and is_right(brought, built, 1)
        assert layer_requests(server, built) == [None]
        server.settle()
        assert server.bytes_sent("blob", built.layers[0].digest) == built.layers[0].size
        assert server.max_connections == 1  # kept alive from the manifest to the last layer


@pytest.mark.parametrize("core", ["c", "python"])
def test_always_fetches_each_byte_once_in_ranges(built: BuiltImage, core: str) -> None:
    with FaultServer(built) as server:
        brought = bring(server, limits=ALWAYS, core=core)
        asked = layer_requests(server, built)
        size = built.layers[0].size
        assert is_right(brought, built)
        assert len(asked) == -(-size // (1 << 20))
        server.settle()
        assert server.bytes_sent("blob", built.layers[0].digest) == size
        assert 1 < server.max_connections <= QUICK.max_connections


@pytest.mark.alone
@pytest.mark.slow
def test_a_slow_connection_gets_help_up_to_the_limit(built: BuiltImage) -> None:
    limits = dataclasses.replace(QUICK, max_connections=4)
    size = built.layers[0].size
    with FaultServer(built, rate_per_connection=3e6, send_buffer=64 << 10) as server:
        began = time.monotonic()
        brought = bring(server, limits=limits)
        assert time.monotonic() - began < size / 3e6 * 0.8
        assert is_right(brought, built)
        assert server.bytes_sent("blob", built.layers[0].digest) <= 1.06 * size  # one cut, one buffer
        assert 2 <= server.max_connections <= 4


@pytest.mark.slow
def test_never_uses_one_connection_however_slow(built: BuiltImage) -> None:
    with FaultServer(built, rate_per_connection=12e6) as server:
        assert is_right(bring(server, limits=NEVER), built)
        assert layer_requests(server, built) == [None]
        assert server.max_connections == 1


@pytest.mark.alone
@pytest.mark.slow
def test_the_rate_limit_is_kept_and_does_not_call_for_help(built: BuiltImage) -> None:
    limits = dataclasses.replace(QUICK, max_rate=8_000_000)
    with FaultServer(built) as server:
        began = time.monotonic()
        assert is_right(bring(server, limits=limits), built)
        took = time.monotonic() - began
        assert built.layers[0].size / 8e6 * 0.85 < took < built.layers[0].size / 8e6 * 2
        assert layer_requests(server, built) == [None]


def test_several_blobs_share_few_buffers_and_connections(built: BuiltImage) -> None:
    limits = dataclasses.replace(ALWAYS, max_connections=3)
    with FaultServer(built) as server:
        brought = bring(server, limits=limits, layers=(0, 1, 0, 0), at_once=True, n_in=5)
        assert all(
            (r.digest, r.size) == (built.layers[i].digest, built.layers[i].size)
            for r, i in zip(brought.results, (0, 1, 0, 0), strict=True)
        )
        assert server.max_connections <= 3


# --- 200 instead of 206 ---


def test_a_server_without_ranges_serves_by_one_stream_and_is_remembered(built: BuiltImage) -> None:
    with FaultServer(built, [on("blob", NoRanges())]) as server:
        brought = bring(server, limits=ALWAYS, layers=(0, 0))
        assert is_right(brought, built)
        server.settle()
        assert server.bytes_sent("blob", built.layers[0].digest) == 2 * built.layers[0].size
        assert len(layer_requests(server, built)) == 2


@pytest.mark.slow
def test_a_slow_server_without_ranges_loses_nothing(built: BuiltImage) -> None:
    with FaultServer(
        built, [on("blob", NoRanges())], rate_per_connection=10e6, send_buffer=64 << 10
    ) as server:
        assert is_right(bring(server), built)
        assert layer_requests(server, built) == [None]
        server.settle()
        assert server.bytes_sent("blob", built.layers[0].digest) == built.layers[0].size


def test_resuming_without_ranges_discards_the_prefix_once(built: BuiltImage) -> None:
    layer = built.layers[0]
    rules = [
        on("blob", ShortBody(3_000_000), reference=layer.digest, last=1),
        on("blob", NoRanges(), reference=layer.digest),
    ]
    with FaultServer(built, rules) as server:
        brought = bring(server)
        assert is_right(brought, built)
        assert brought.reports[0].nbytes == 3_000_000 + layer.size


def test_resuming_without_ranges_twice_is_an_error_that_says_so(built: BuiltImage) -> None:
    class ShortWithoutRanges:
        async def respond(self, exchange: Exchange) -> None:
            plan = exchange.plan(ranges=False)
            exchange.keep_alive = False
            await exchange.send_head(plan)
            await exchange.send_body(plan, limit=5_000_000)

    with (
        FaultServer(built, [on("blob", ShortWithoutRanges(), reference=built.layers[0].digest)]) as server,
        pytest.raises(RangeMismatch, match="sends the whole blob again"),
    ):
        bring(server)


# --- answers that are not the range asked for ---

HARMLESS = ("unknown-total", "short")
ODD_RANGES = [ContentRange(kind) for kind in ContentRange.KINDS if kind not in HARMLESS]


@pytest.mark.parametrize("kind", HARMLESS)
def test_an_odd_but_legal_range_answer_is_taken(built: BuiltImage, kind: str) -> None:
    rules = [on("blob", ContentRange(kind), reference=built.layers[0].digest, first=2, last=4)]
    with FaultServer(built, rules) as server:
        brought = bring(server, limits=ALWAYS)
        assert is_right(brought, built)
        assert brought.reports[0].nbytes == built.layers[0].size


def test_ranges_answered_in_crumbs_are_given_up_for_one_stream(built: BuiltImage) -> None:
    layer = built.layers[0]
    with FaultServer(built, [on("blob", ContentRange("short"), reference=layer.digest)]) as server:
        brought = bring(server, limits=ALWAYS)
        assert is_right(brought, built)
        assert layer_requests(server, built)[-1] is None
        assert brought.reports[0].ranged  # some of it came by range


@pytest.mark.parametrize("fault", [*ODD_RANGES, MultipartByteranges()], ids=str)
def test_an_odd_range_answer_is_asked_again(built: BuiltImage, fault: Behaviour) -> None:
    rules = [on("blob", fault, reference=built.layers[0].digest, first=2, last=2)]
    with FaultServer(built, rules) as server:
        brought = bring(server, limits=ALWAYS)
        assert is_right(brought, built)
        assert server.bytes_sent("blob", built.layers[0].digest) <= built.layers[0].size + (3 << 20)


@pytest.mark.parametrize("fault", ODD_RANGES, ids=str)
def test_a_server_whose_ranges_are_always_odd_sends_the_blob_as_one_stream(
    built: BuiltImage, fault: Behaviour
) -> None:
    layer = built.layers[0]
    with FaultServer(built, [on("blob", fault, reference=layer.digest)]) as server:
        brought = bring(server, limits=ALWAYS, layers=(0, 0))
        assert is_right(brought, built)
        # The second time it is known, and no range is asked for.
        assert layer_requests(server, built) == ["bytes=0-1048575"] * MISFITS + [None, None]
        assert brought.reports[0].nbytes == layer.size


def test_a_server_whose_every_answer_is_odd_is_given_up(built: BuiltImage) -> None:
    with FaultServer(built, [on("blob", MultipartByteranges(), reference=built.layers[0].digest)]) as server:
        with pytest.raises(RangeMismatch) as caught:
            bring(server, limits=ALWAYS)
        assert caught.value.__notes__ == [f"that was {server.host}"]
        assert len(layer_requests(server, built)) == MISFITS + QUICK.attempts


# --- nodes of one registry that are not alike ---


class Nodes:
    """A load balancer: each request for the blob is answered by the next node, which has an ETag and a date
    of its own. The first ``n_drops`` answers break off after ``nbytes``; every second is as ``odd`` gives it.
    """

    def __init__(self, n_drops: int, nbytes: int = 2_000_000, *, odd: Behaviour | None = None) -> None:
        self._n = 0
        self._n_drops, self._nbytes = n_drops, nbytes
        self._odd = odd

    async def respond(self, exchange: Exchange) -> None:
        self._n += 1
        if self._odd is not None and self._n % 2 == 0:
            await self._odd.respond(exchange)
            return
        plan = exchange.plan()
        plan.set("ETag", f'"node-{self._n}"')
        plan.set("Last-Modified", f"Mon, 02 Mar 2026 00:00:{self._n % 60:02} GMT")
        await exchange.send_head(plan)
        if self._n > self._n_drops:
            await exchange.send_body(plan)
            return
        exchange.keep_alive = False
        await exchange.send_body(plan, limit=self._nbytes)
        await exchange.connection.reset()


@pytest.mark.parametrize("limits", [ALWAYS, QUICK], ids=["ranges", "stream"])
def test_nodes_that_name_one_blob_differently_bring_it_together(
    built: BuiltImage, limits: FetchLimits
) -> None:
    layer = built.layers[0]
    with FaultServer(built, [on("blob", Nodes(5, 700_000), reference=layer.digest)]) as server:
        brought = bring(server, limits=limits)
        assert is_right(brought, built)
        assert brought.reports[0].nbytes == layer.size  # no byte of it came twice
        assert brought.reports[0].ranged


@pytest.mark.parametrize(
    "odd",
    [
        *(Status(status) for status in (400, 405, 412, 416, 501)),
        *(ContentRange(kind) for kind in ("shifted", "wrong-total", "past-end")),
        NoRanges(),
        MultipartByteranges(),
    ],
    ids=str,
)
def test_a_node_that_cannot_go_on_is_passed_over(built: BuiltImage, odd: Behaviour) -> None:
    """Every second node has another idea of ranges, and the connections to the others break off."""
    layer = built.layers[0]
    with FaultServer(built, [on("blob", Nodes(5, odd=odd), reference=layer.digest)]) as server:
        brought = bring(server)
        assert is_right(brought, built)
        assert brought.reports[0].nbytes <= 2 * layer.size


@pytest.mark.parametrize("status", [400, 412, 416])
def test_a_registry_that_refuses_every_range_is_read_once_more_from_the_start(
    built: BuiltImage, status: int
) -> None:
    class NoRest:
        """Serves the whole blob, breaks off the first time, and refuses the rest of it."""

        async def respond(self, exchange: Exchange) -> None:
            if exchange.asked() is not None:
                await Status(status).respond(exchange)
            elif len([r for r in server.requests("blob", layer.digest) if not r.header("Range")]) == 1:
                await ShortBody(9_000_000).respond(exchange)
            else:
                await Ok().respond(exchange)

    layer = built.layers[0]
    with FaultServer(built, [on("blob", NoRest(), reference=layer.digest)]) as server:
        brought = bring(server)
        assert is_right(brought, built)
        assert brought.reports[0].nbytes == 9_000_000 + layer.size
        assert layer_requests(server, built).count(None) == 2


@pytest.mark.parametrize("changed", [False, True], ids=["back again", "for good"])
def test_a_blob_that_changed_meanwhile_is_fetched_once_more_as_one_stream(
    built: BuiltImage, tmp_path: Path, changed: bool
) -> None:
    """The first connection breaks off, the rest comes from a node with other bytes, and the digest tells.
    Then all of it comes from one node, whose bytes are right, or wrong.
    """
    layer = built.layers[0]
    other = OtherBody(at=7_000_000, etag='"other"')
    rules = [
        on("blob", Reset(6_000_000), reference=layer.digest, last=1),
        on("blob", other, reference=layer.digest, first=2, last=3 if changed else 2),
    ]

    async def pull() -> PullResult:
        async with Engine(tmp_path, options=Options(tls_verify=False, limits=QUICK)) as engine:
            return await engine.pull(await engine.plan(server.reference))

    with FaultServer(built, rules) as server:
        if changed:
            with pytest.raises(IntegrityError):
                run(pull())
        else:
            assert run(pull()).layers[0].digest == layer.digest
        assert layer_requests(server, built) == [None, f"bytes=6000000-{layer.size - 1}", None]


# --- bodies that are too short, too long, or never end ---


@pytest.mark.parametrize("fault", [ShortBody(5_000_001), Reset(5_000_001)], ids=str)
def test_a_lost_connection_is_resumed_from_the_last_byte(built: BuiltImage, fault: Behaviour) -> None:
    layer = built.layers[0]
    with FaultServer(built, [on("blob", fault, reference=layer.digest, last=1)]) as server:
        brought = bring(server)
        assert is_right(brought, built)
        assert layer_requests(server, built) == [None, f"bytes=5000001-{layer.size - 1}"]
        assert brought.reports[0].nbytes == layer.size


def test_a_connection_that_dies_again_and_again_is_given_up(built: BuiltImage) -> None:
    with FaultServer(built, [on("blob", Reset(10), reference=built.layers[0].digest)]) as server:
        with pytest.raises(TruncatedBody):
            bring(server)
        assert len(layer_requests(server, built)) == QUICK.attempts


def test_progress_makes_a_new_start(built: BuiltImage) -> None:
    with FaultServer(built, [on("blob", Reset(1 << 20), reference=built.layers[0].digest)]) as server:
        brought = bring(server)
        assert is_right(brought, built)
        assert brought.reports[0].nbytes == built.layers[0].size


@pytest.mark.parametrize("fault", [LongBody(declared=True), ContentLength(7), ContentLength(-7)], ids=str)
def test_a_length_that_is_not_the_blobs_is_refused_before_reading(
    built: BuiltImage, fault: Behaviour
) -> None:
    with FaultServer(built, [on("blob", fault, reference=built.layers[0].digest)]) as server:
        with pytest.raises(SizeMismatch):
            bring(server)
        assert len(layer_requests(server, built)) == 1


@pytest.mark.parametrize("fault", [Chunked(), NoLength(), Chunked(n_trailers=50)], ids=str)
@pytest.mark.parametrize("core", ["c", "python"])
def test_a_body_without_a_length_is_taken(built: BuiltImage, fault: Behaviour, core: str) -> None:
    with FaultServer(built, [on("blob", fault, reference=built.layers[0].digest)]) as server:
        assert is_right(bring(server, core=core, n_in=3), built)


@pytest.mark.parametrize(
    "fault", [Chunked(stop_after=2_000_000), Chunked(malformed=True, stop_after=1_000_000)]
)
def test_a_chunked_body_that_breaks_off_is_resumed(built: BuiltImage, fault: Behaviour) -> None:
    with FaultServer(built, [on("blob", fault, reference=built.layers[0].digest, last=1)]) as server:
        assert is_right(bring(server), built)


def test_a_longer_body_without_a_length_is_an_error(built: BuiltImage) -> None:
    class LongWithoutLength:
        async def respond(self, exchange: Exchange) -> None:
            plan = exchange.plan()
            plan.drop("Content-Length")
            exchange.keep_alive = False
            await exchange.send(plan)
            await exchange.send_bytes(b"surplus")

    with (
        FaultServer(built, [on("blob", LongWithoutLength(), reference=built.layers[0].digest)]) as server,
        pytest.raises(SizeMismatch, match="more than"),
    ):
        bring(server)


@pytest.mark.slow
@pytest.mark.parametrize("fault", [Stall(0), Stall(4_000_000)], ids=str)
def test_a_stalled_connection_is_replaced(built: BuiltImage, fault: Behaviour) -> None:
    with FaultServer(built, [on("blob", fault, reference=built.layers[0].digest, last=1)]) as server:
        brought = bring(server)
        assert is_right(brought, built)
        assert len(layer_requests(server, built)) >= 2


@pytest.mark.slow
def test_a_server_that_always_stalls_is_a_timeout(built: BuiltImage) -> None:
    limits = dataclasses.replace(QUICK, attempts=2, stall_s=0.3)
    with (
        FaultServer(built, [on("blob", Stall(1000), reference=built.layers[0].digest)]) as server,
        pytest.raises(Timeout, match="too slow"),
    ):
        bring(server, limits=limits)


# --- errors that pass, and errors that do not ---


def test_a_burst_of_server_errors_passes(built: BuiltImage) -> None:
    rules = [on("blob", Status(503), reference=built.layers[0].digest, last=3)]
    with FaultServer(built, rules) as server:
        assert is_right(bring(server), built)
        assert layer_requests(server, built) == [None] * 4


def test_a_server_that_only_fails_is_given_up(built: BuiltImage) -> None:
    with FaultServer(built, [on("blob", Status(500), reference=built.layers[0].digest)]) as server:
        with pytest.raises(ServerError):
            bring(server)
        assert len(layer_requests(server, built)) == QUICK.attempts


@pytest.mark.slow
def test_retry_after_is_waited_for(built: BuiltImage) -> None:
    with FaultServer(built, [on("blob", too_many("1"), reference=built.layers[0].digest, last=1)]) as server:
        began = time.monotonic()
        assert is_right(bring(server), built)
        assert time.monotonic() - began >= 1.0


def test_a_server_that_asks_for_an_hour_is_not_asked_again_unless_there_is_patience(
    built: BuiltImage,
) -> None:
    layer = built.layers[0]
    with FaultServer(built, [on("blob", too_many("3600", 503), reference=layer.digest)]) as server:
        with pytest.raises(RateLimited) as caught:
            bring(server)
        assert (caught.value.retry_after, caught.value.hint) == (3600, "patience")
        assert layer_requests(server, built) == [None]
        patient = dataclasses.replace(QUICK, patience_s=7200)
        with pytest.raises(TimeoutError):
            bring(server, limits=patient, give_up_after=0.5)
        assert layer_requests(server, built) == [None] * 2


def test_being_told_to_wait_for_ever_is_an_error_in_the_end(built: BuiltImage) -> None:
    limits = dataclasses.replace(QUICK, attempts=1)
    with (
        FaultServer(built, [on("blob", too_many("1"), reference=built.layers[0].digest)]) as server,
        pytest.raises(RateLimited),
    ):
        bring(server, limits=limits)


@pytest.mark.parametrize("status", [400, 401, 403, 404, 410])
def test_an_expired_redirect_is_resolved_again_where_it_stopped(built: BuiltImage, status: int) -> None:
    layer = built.layers[0]
    rules = [
        on("blob", Presigned(uses=1, expired=status), reference=layer.digest),
        on("signed", Reset(3_000_000), last=2),
    ]
    with FaultServer(built, rules) as server:
        brought = bring(server)
        assert is_right(brought, built)
        assert brought.reports[0].nbytes == layer.size
        asked = [r.header("Range") for r in server.requests("signed") if r.body_bytes > 100]
        assert asked == [None, f"bytes=3000000-{layer.size - 1}", f"bytes=6000000-{layer.size - 1}"]


def test_ranges_reuse_a_redirect_while_it_lasts(built: BuiltImage) -> None:
    with FaultServer() as cdn, FaultServer(built, [on("blob", Presigned(to=cdn))]) as server:
        assert is_right(bring(server, limits=ALWAYS), built)
        n_ranges = -(-built.layers[0].size // (1 << 20))
        assert len(cdn.requests("signed")) >= n_ranges
        assert len(server.requests("blob", built.layers[0].digest)) <= QUICK.max_connections


def test_a_token_that_runs_out_is_renewed_once_for_all_ranges(built: BuiltImage) -> None:
    rules = [on("blob", Challenge(), reference=built.layers[0].digest, first=4, last=4)]
    with FaultServer(built, rules, auth=BearerAuth()) as server:
        assert is_right(bring(server, limits=ALWAYS), built)
        assert len(server.requests("token")) == 2


# --- what must not happen ---


def test_wrong_bytes_are_never_accepted(built: BuiltImage) -> None:
    with (
        FaultServer(built, [on("blob", OtherBody(at=6_000_000), reference=built.layers[0].digest)]) as server,
        pytest.raises(IntegrityError),
    ):
        bring(server)


def test_a_layer_that_fails_early_stops_the_transfer(built: BuiltImage) -> None:
    with FaultServer(
        built, [on("blob", OtherBody(at=0), reference=built.layers[0].digest)], send_buffer=64 << 10
    ) as server:
        with pytest.raises(IntegrityError) as caught:
            bring(server)
        assert not isinstance(caught.value, DigestMismatch)  # the gzip header was refused at once
        server.settle()
        assert server.bytes_sent("blob", built.layers[0].digest) < built.layers[0].size


@pytest.mark.parametrize("limits", [ALWAYS, NEVER], ids=["ranges", "stream"])
def test_a_cancelled_transfer_leaves_nothing_behind(built: BuiltImage, limits: FetchLimits) -> None:
    with FaultServer(built, rate_per_connection=2e6) as server:
        with pytest.raises(TimeoutError):
            bring(server, limits=limits, give_up_after=0.3)
        server.wait_closed()
        assert server.open_connections == 0


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    n_in=st.integers(2, 12),
    connections=st.integers(1, 8),
    part=st.integers(1, 5),
    mode=st.sampled_from([RangeMode.ALWAYS, RangeMode.AUTO]),
    drops=st.lists(st.integers(70_000, 4_000_000), max_size=6),
)
def test_whatever_the_buffers_ranges_and_drops_the_blob_arrives(
    built: BuiltImage, n_in: int, connections: int, part: int, mode: RangeMode, drops: list[int]
) -> None:
    limits = dataclasses.replace(
        QUICK, ranges=mode, max_connections=connections, range_nbytes=part * 700_000, attempts=8
    )
    rules = [
        on("blob", Reset(nbytes), reference=built.layers[0].digest, first=2 * i + 1, last=2 * i + 1)
        for i, nbytes in enumerate(drops)
    ]
    with FaultServer(built, [*rules, on("blob", Ok())]) as server:
        brought = bring(server, limits=limits, n_in=n_in)
        assert is_right(brought, built)
        assert server.max_connections <= connections + len(drops)
