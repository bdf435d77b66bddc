"""Blobs from a registry into a pool: which connection brings which bytes.

Each blob is a transfer, and begins as one GET, a few at once. (Ranges from the start would hurt: a
registry may spend milliseconds of CPU on each, and a cold pull-through cache fetches the whole blob
for each.) When more connections are worth having, which connections.py decides, each new
one goes to a blob that waits for its first, else to the transfer that would be the last to end, for
one range; then the next goes where it is needed then.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from ..core.pool import Pool, PoolLayer
from ..image.document import Descriptor
from .connections import TICK_S, Sample
from .segment import FetchLimits, HostState, RangeMode, Shared
from .transfer import FetchReport, OpenBlob, Transfer

__all__ = ["FetchLimits", "FetchReport", "Fetcher", "HostState", "OpenBlob", "RangeMode"]


class Fetcher:
    """All transfers from one registry: their connections, their rate, their memory.

    :meth:`fetch` may run many times at once, while :meth:`watch` runs beside it. ``host`` carries what
    was learned about the registry, and the count of its connections, from one fetcher to the next.
    """

    def __init__(self, pool: Pool, limits: FetchLimits | None = None, host: HostState | None = None) -> None:
        limits = limits or FetchLimits()
        self._pool = pool
        self._shared = Shared(pool, limits, host or HostState(limits.max_connections))
        self._shared.fill = self._fill
        self._shared.host.widening.always = limits.ranges is RangeMode.ALWAYS
        self._transfers: list[Transfer] = []
        self._counted = self._held = 0

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
        pace: Callable[[], float] | None = None,
    ) -> FetchReport:
        """Bring ``blob`` to ``layer`` and end it. Raises what the last attempt failed with.

        ``single_stream`` fetches without ranges whatever the mode. ``progress`` is called with
        the number of new bytes of the blob; ``report`` is kept up to date and returned. ``pace`` is asked
        after every read how many seconds to wait before the next, and again after those; 0 goes on. When
        the layer itself fails, the transfer stops and returns: the layer's result tells why.
        """
        shared = self._shared
        await shared.slots.take()
        report = report or FetchReport()
        transfer = Transfer(shared, blob, open_blob, layer, single_stream, progress, report, pace)
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
                self._shared.host.widening.sample(self._sample(now))
                self._shared.slots.wake()
                self._fill()
        finally:
            self._pool.off_free(self._shared.on_free)

    def _sample(self, now: float) -> Sample:
        shared = self._shared
        host = shared.host
        host.nbytes += shared.nbytes - self._counted
        self._counted = shared.nbytes
        segments = [segment for transfer in self._transfers for segment in transfer.segments]
        held = shared.n_held != self._held or any(segment.held for segment in segments)
        self._held = shared.n_held
        return Sample(
            now,
            host.nbytes,
            self._pool.stats().in_queued,
            held,
            shared.slots.n_open,
            shared.slots.n_waiting > 0 or any(transfer.can_widen(now) for transfer in self._transfers),
        )

    def _fill(self) -> None:
        """Open the connections that are wanted and that there are ranges for."""
        shared = self._shared
        now = asyncio.get_running_loop().time()
        while shared.slots.n_open < shared.host.widening.target:
            able = [transfer for transfer in self._transfers if transfer.can_widen(now)]
            if not able or not shared.slots.try_take():
                return
            max(able, key=lambda transfer: transfer.nbytes_left / transfer.n_workers).widen()
