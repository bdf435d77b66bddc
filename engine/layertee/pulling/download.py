"""A layer over the network: its blob, what is missing of it, or the tar that an endpoint has in its place.

What has arrived stays when the rest does not (arrival.py). A server that sends other bytes than those that
are named is left for another; a part that turns out wrong costs one new start.
"""

from __future__ import annotations

import logging
from collections import Counter
from typing import TYPE_CHECKING, Final

from ..aio import in_thread
from ..core.pool import LayerJob
from ..errors import (
    DiffIDMismatch,
    IntegrityError,
    LayerteeError,
    NoSpace,
    NotInRegistry,
    OutputBudgetExceeded,
    SourceUnreadable,
    StoreBusy,
    WorkBudgetExceeded,
)
from ..image.holding import Form
from ..transfer.fetcher import FetchReport
from ..transfer.servers import Sought, TarInstead
from .arrival import Arrival
from .plan import Action, SourceKind, TarAt, largest_read, may_come_as_tar
from .report import Ingested

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ..core.pool import PoolLayer
    from ..image.document import Digest, Layer
    from ..transfer.fetcher import Fetcher
    from ..transfer.servers import Servers
    from .landing import Attempt, Landing
    from .plan import Plan, Source
    from .staged import Staged

log = logging.getLogger(__name__)

# The blob's digest is right, or more work would have been done: other servers have nothing else.
_NOT_THE_SERVER = (DiffIDMismatch, WorkBudgetExceeded)
# Of a smaller blob nothing is kept beside its tar: it is fetched again.
SPOOL_LEAST: Final = 8 << 20


class Download:
    """Brings layers of ``plan`` to ``landing``, any number at once.

    ``keep_parts``: what arrives of a layer is kept when the rest does not arrive.
    """

    def __init__(self, fetcher: Fetcher, landing: Landing, plan: Plan, *, keep_parts: bool) -> None:
        self._fetcher = fetcher
        self._landing = landing
        self._keep_parts = keep_parts
        self._may_spool: bool | None = None
        self._needs = plan.disk_bytes + plan.bytes_to_fetch

    async def fetch(self, attempt: Attempt, source: Source, servers: Servers, reason: str) -> Staged:
        """The blob; or, from an endpoint that turns out to lack it and has that, the tar."""
        layer = attempt.layer
        while True:
            sought = _tar_of(attempt) if may_come_as_tar(layer, self._landing.want) else None
            try:
                return await self._bring(attempt, source, layer, servers, reason, sought)
            except TarInstead as found:
                tar = TarAt(found.name, found.size)
            try:
                return await self.fetch_tar(attempt, source, servers, tar)
            except StoreBusy:
                raise
            except LayerteeError as exc:
                log.info("layer %d: %s: %s", layer.index, tar.reason, exc)

    async def fetch_tar(self, attempt: Attempt, source: Source, servers: Servers, tar: TarAt) -> Staged:
        """The tar that an endpoint has in place of the blob. Raises as ``stage``; what, is remembered."""
        try:
            there = servers.with_tar(_tar_of(attempt), tar.size)
            if there is None:
                raise SourceUnreadable(f"{tar.endpoint} is no endpoint of the image")
            layer = attempt.layer.as_tar(tar.size)
            await self._check_cost(attempt, source, layer)
            return await self._bring(attempt, source, layer, there, tar.reason, None)
        except StoreBusy:
            raise
        except LayerteeError as exc:
            attempt.without[tar.endpoint] = exc
            raise

    async def _check_cost(self, attempt: Attempt, source: Source, tar: Layer) -> None:
        """Raise OutputBudgetExceeded or NoSpace for a tar that is larger than may be. Then the blob, which is
        smaller, may still be had elsewhere; and on a disk that is full nothing else of the image goes on.
        """
        allowed = self._landing.bounds(attempt.step, source).out_nbytes
        if tar.size > allowed:
            raise OutputBudgetExceeded(
                f"the tar of layer {tar.index} has {tar.size} bytes, of which the image may have {allowed}",
                reason="out_budget",
            )
        begun = 0
        if self._keep_parts:
            begun = (await in_thread(self._landing.store.parts.arrived, [tar])).get(tar.digest, 0)
        self._landing.space.check(max(0, tar.size - begun), f"the tar of layer {tar.index}")

    async def _bring(
        self,
        attempt: Attempt,
        source: Source,
        layer: Layer,
        servers: Servers,
        reason: str,
        sought: Sought | None,
    ) -> Staged:
        """``layer`` over the network: the attempt's, or that as a tar. Raises TarInstead as the fetcher."""
        progress = attempt.progress
        progress.size = layer.size
        as_tar = layer is not attempt.layer
        reports: list[FetchReport] = []

        def count(nbytes: int) -> None:
            progress.done += nbytes

        def advance(nbytes: int) -> None:
            count(nbytes)
            arrival.advance(nbytes)

        async def feed(pool_layer: PoolLayer) -> None:
            progress.done = 0
            report = FetchReport()
            reports.append(report)
            attempt.reports.append(report)
            if arrival.n_kept:
                progress.state = "checking"
            if not await arrival.feed_kept(self._landing.pool, pool_layer, count):
                return
            progress.state = "running"
            await self._fetcher.fetch(
                layer.descriptor,
                servers,
                pool_layer,
                start=arrival.n_kept,
                single_stream=single_stream,
                progress=advance,
                report=report,
                pace=attempt.pace,
                behind=arrival.behind_s,
                tar=sought,
            )

        # A tar has the digest that it has to have, or another content: there is nothing to be left out.
        hashes_only = not as_tar and self._landing.hashes_only(layer)
        job = LayerJob(layer.compression, layer.size, digest_only=hashes_only)
        single_stream = False
        while True:
            bounds, left = self._landing.bounds(attempt.step, source), self._landing.space.left()
            # On this thread: a cancelled thread would leak it.
            arrival = self._arrival(layer, self._landing.want.name_of(attempt.layer))
            try:
                result = await self._landing.write(layer, job, feed, layer.digest, bounds, arrival)
                break
            except TarInstead:
                arrival.retain()
                bounds.spending.take_back(arrival.spent)
                raise
            except (IntegrityError, SourceUnreadable) as exc:
                arrival.drop()
                if arrival.n_kept:
                    bounds.spending.take_back(arrival.spent)
                    log.info("layer %d: %s; what was here of it is dropped", layer.index, exc)
                    continue
                if isinstance(exc, SourceUnreadable):
                    raise
                if encoding := reports[-1].content_encoding:
                    exc.add_note(f"the answer was marked Content-Encoding: {encoding}; a proxy re-encoded it")
                if isinstance(exc, _NOT_THE_SERVER):
                    raise
                elsewhere = servers.wrong(layer.digest, reports[-1].by_server)
                # Ranges may have come from two versions of the blob, or from two servers that
                # disagree: one stream from one source tells whether the blob itself is wrong.
                if not elsewhere and (not reports[-1].ranged or len(reports) > 1):
                    if as_tar:  # what an endpoint says it has in place of a blob is nothing that the image is
                        bounds.spending.take_back(arrival.spent)
                    raise
                single_stream = True
                again = servers.pick(layer.digest).name
                log.info("layer %d: %s; once more, from %s", layer.index, exc, again)
            except NoSpace as exc:
                if as_tar and self._landing.want.form is Form.AS_IS:
                    arrival.drop()  # the blob is smaller, and may be had elsewhere
                    raise
                if not arrival.spool_is_in_the_way(left):
                    arrival.retain()
                    raise
                arrival.drop()
                bounds.spending.take_back(arrival.spent)
                self._may_spool = False
                log.info("layer %d: %s; once more, without a copy of its blob", layer.index, exc)
            except BaseException:
                arrival.retain()
                raise
        nbytes = sum(report.nbytes for report in attempt.reports)
        sent: Counter[str] = Counter()
        for report in attempt.reports:
            sent.update(report.by_server)
        at = arrival.n_kept
        if as_tar:
            reason += f", from byte {at} on" if at else ""
        elif at:
            reason = f"went on at byte {at}"
        elif source.kind is SourceKind.RESUME and reason == source.reason:
            reason = "from its start; what was here of it was not used"
        outcome = Ingested(Action.FETCH, reason, None, None, nbytes, dict(sent), resumed_at=at, as_tar=as_tar)
        return self._landing.staged(attempt, arrival, result, outcome)

    def _arrival(self, layer: Layer, name: Digest) -> Arrival:
        """The files for a blob that is fetched: what is here of it, and what the store is to keep.

        ``name`` is what is locked. Raises LocalError, NoSpace.
        """
        blobs = self._landing.store.blobs
        part = None
        if self._keep_parts and layer.size:
            make = self._landing.keeps_blob(layer) or (layer.size > SPOOL_LEAST and self._room_for_spools())
            part = self._landing.store.parts.writer(layer, make=make)
        if self._landing.keeps_blob(layer):
            # While another process spools the blob that it keeps as a tar, this one has a file of its own.
            return Arrival(part or blobs.writer(name), part)
        try:
            return Arrival(blobs.writer(name), part)
        except BaseException:
            if part is not None:
                part.retain()
            raise

    def _room_for_spools(self) -> bool:
        """Whether the image fits along with all of its blobs, as there was room at the beginning."""
        if self._may_spool is None:
            self._may_spool = self._landing.space.left() > self._needs
        return self._may_spool


def _tar_of(attempt: Attempt) -> Sought:
    """The tar that may come in place of the attempt's blob."""
    layer = attempt.layer
    return Sought(layer.diff_id, largest_read(layer), set(attempt.without))


def final_error(error: LayerteeError, tars: Mapping[str, LayerteeError]) -> LayerteeError:
    """What a layer has failed with whose blob failed with ``error``, and whose ``tars`` as they say, each at
    an endpoint: of a blob that is gone, what its tar failed with, which may pass.
    """
    if not tars:
        return error
    stands = error
    if isinstance(error, NotInRegistry):
        last = list(tars.values())[-1]
        stands = next((each for each in tars.values() if each.retryable), last)
        stands.add_note(str(error))
    for name, each in tars.items():
        stands.add_note(
            f"{name} was asked for the tar in its place" + (f": {each}" if each is not stands else "")
        )
    return stands
