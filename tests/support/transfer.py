"""One blob from a server through the pool, for tests of the transfer."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from layertee.aio import unwrapped_group
from layertee.config.logins import Credentials
from layertee.core.pool import LayerJob, PoolLayer, PoolStats
from layertee.core.result import TeeResult
from layertee.core.workers import open_pool
from layertee.image.document import Platform
from layertee.image.reference import Reference, parse_reference
from layertee.pulling.measure import run_layer
from layertee.registry.client import Registry
from layertee.registry.http import TLSPolicy, Transport
from layertee.sync import run
from layertee.transfer.connections import Connections
from layertee.transfer.fetcher import Fetcher, FetchReport
from layertee.transfer.limits import FetchLimits
from layertee.transfer.servers import Server, Servers
from tests.support.fakes.fault_server import FaultServer

QUICK = FetchLimits(range_nbytes=1 << 20, attempts=4, backoff_s=0.01, stall_s=0.5)
AMD64 = Platform("linux", "amd64")


@dataclass(slots=True)
class Brought:
    """What :func:`bring` found out."""

    results: list[TeeResult]
    reports: list[FetchReport]
    stats: PoolStats


def bring(
    server: FaultServer,
    *,
    limits: FetchLimits = QUICK,
    layers: tuple[int, ...] = (0,),
    at_once: bool = False,
    n_in: int = 16,
    core: str | None = None,
    give_up_after: float = 100.0,
) -> Brought:
    """Fetch ``layers`` of the server's image, one after the other or all ``at_once``.

    Whatever happens, no buffer and no connection may be left behind. ``give_up_after`` cancels.
    """

    async def main() -> Brought:
        transport = Transport(user_agent="layertee-test")
        reference = parse_reference(server.reference)
        assert isinstance(reference, Reference)
        registry = Registry(
            transport,
            reference,
            Credentials.no_credentials(),
            tls=TLSPolicy(verify=False),
            allow_http=True,
        )
        image = await registry.resolve(AMD64)
        pool = open_pool(workers=2, n_in=n_in, n_out=6, core=core)
        fetcher = Fetcher(pool, limits, Connections(limits))
        reports = [FetchReport() for _ in layers]
        servers = Servers([Server(server.host, server.host, registry.open_blob)])

        async def one(index: int, report: FetchReport) -> TeeResult:
            layer = image.layers[index]

            async def feed(pool_layer: PoolLayer) -> None:
                await fetcher.fetch(layer.descriptor, servers, pool_layer, report=report)

            return await run_layer(pool.open_layer(LayerJob(layer.compression, layer.size)), feed)

        stats: PoolStats | None = None
        try:
            async with unwrapped_group() as group:
                watch = group.create_task(fetcher.watch())
                async with asyncio.timeout(give_up_after):
                    if at_once:
                        results = list(await asyncio.gather(*map(one, layers, reports)))
                    else:
                        results = [await one(index, r) for index, r in zip(layers, reports, strict=True)]
                watch.cancel()
        finally:
            stats = pool.stats()
            pool.close()
            await transport.close()
            assert stats.in_used == 0, "an input buffer was lost"
            assert stats.in_queued == 0
        return Brought(results, reports, stats)

    return run(main())
