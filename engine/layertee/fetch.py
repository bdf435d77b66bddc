"""Blobs from a registry into a pool: which connection brings which bytes.

Each blob is a transfer, and begins as one GET. When the pool's workers starve although the
connections are busy, the largest transfer gets another connection, for as long as the total
throughput grows. (Ranges from the start would hurt: a registry may spend milliseconds of CPU on
each, and a cold pull-through cache fetches the whole blob for each.)
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from .oci import Descriptor
from .pool import Pool, PoolLayer
from .segment import FetchLimits, HostState, RangeMode, Shared
from .transfer import FetchReport, OpenBlob, Transfer

__all__ = ["FetchLimits", "FetchReport", "Fetcher", "HostState", "OpenBlob", "RangeMode"]

TICK_S = 0.1


class Fetcher:
    """All transfers from one registry: their connections, their rate, their memory.

    :meth:`fetch` may run many times at once, while :meth:`watch` runs beside it. ``host`` carries what
    was learned about the registry, and the count of its connections, from one fetcher to the next.
    """

    def __init__(self, pool: Pool, limits: FetchLimits | None = None, host: HostState | None = None) -> None:
        limits = limits or FetchLimits()
        self._pool = pool
        self._shared = Shared(pool, limits, host or HostState(limits.max_connections))
        self._transfers: list[Transfer] = []
        self._widening = _Widening(self._shared, self._transfers)

    @property
    def nbytes(self) -> int:
        """Body bytes received so far, discarded and repeated ones included."""
        return self._shared.nbytes

    async def fetch(
        self,
        blob: Descriptor,
        open_blob: OpenBlob,
        layer: PoolLayer,
        *,
        single_stream: bool = False,
        progress: Callable[[int], None] | None = None,
        report: FetchReport | None = None,
    ) -> FetchReport:
        """Bring ``blob`` to ``layer`` and end it. Raises what the last attempt failed with.

        ``single_stream`` fetches without ranges whatever the mode. ``progress`` is called with
        the number of new bytes of the blob; ``report`` is kept up to date and returned. When the
        layer itself fails, the transfer stops and returns: the layer's result tells why.
        """
        shared = self._shared
        await shared.slots.take()
        transfer = Transfer(shared, blob, open_blob, layer, single_stream, progress, report or FetchReport())
        self._transfers.append(transfer)
        shared.n_transfers += 1
        try:
            await transfer.run()
        finally:
            shared.n_transfers -= 1
            self._transfers.remove(transfer)
            shared.slots.give()
        return transfer.report

    async def watch(self) -> None:
        """Runs until cancelled, beside every :meth:`fetch`: stalls are found here, helpers called."""
        loop = asyncio.get_running_loop()
        self._pool.on_free(self._shared.on_free)
        try:
            while True:
                await asyncio.sleep(TICK_S)
                now = loop.time()
                for transfer in self._transfers:
                    for segment in transfer.segments:
                        segment.check_stall(now)
                self._widening.tick(now)
        finally:
            self._pool.off_free(self._shared.on_free)


class _Widening:
    """When to add a connection: the workers are idle, and the last one added was worth it."""

    STARVED_TICKS = 3
    SETTLE_S = 0.5  # a new connection needs about this long to show in the rate
    HOLD_S = 5.0
    GAIN = 1.1

    def __init__(self, shared: Shared, transfers: list[Transfer]) -> None:
        self._shared = shared
        self._transfers = transfers
        self._starved = 0
        self._hold_until = 0.0
        self._rate_before: float | None = None
        self._last_change: float | None = None
        self._mark = (0.0, 0)

    def tick(self, now: float) -> None:
        shared = self._shared
        if shared.limits.ranges is RangeMode.NEVER:
            return
        if shared.limits.ranges is RangeMode.ALWAYS:
            for transfer in self._transfers:
                transfer.fill()
            return
        if not self._wanted(now):
            return
        candidates = [t for t in self._transfers if t.can_widen()]
        if candidates and shared.slots.try_take():
            max(candidates, key=lambda t: t.nbytes_left).widen()
            self._last_change = now

    def _wanted(self, now: float) -> bool:
        shared = self._shared
        starved = shared.pool.stats().in_queued == 0 and any(
            s.streaming for t in self._transfers for s in t.segments
        )
        self._starved = self._starved + 1 if starved else 0
        if not starved:
            self._mark = (now, shared.nbytes)
            return False
        if self._starved == 1:
            self._mark = (now, shared.nbytes)
        if self._starved < self.STARVED_TICKS or now < self._hold_until:
            return False
        if self._last_change is not None and now - self._last_change < self.SETTLE_S:
            return False
        then, before = self._mark
        rate = (shared.nbytes - before) / max(now - then, TICK_S)
        self._mark = (now, shared.nbytes)
        if self._rate_before is not None and rate < self._rate_before * self.GAIN:
            self._hold_until = now + self.HOLD_S
            self._rate_before = None
            return False
        self._rate_before = rate
        return True
