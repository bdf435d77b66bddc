"""Bytes of a layer, wherever they come from, through the pool to the disk: within bounds, and checked.

Shared by what is read on this machine (ingest.py) and what comes over the network (download.py).
"""

from __future__ import annotations

from dataclasses import field, replace
from typing import TYPE_CHECKING, Final

from ..aio import unwrapped_group
from ..core.pool import LayerJob
from ..core.result import TeeResult
from ..core.tee import OUT_BUDGET
from ..disk.space import human
from ..errors import DecodeError, LayerteeError, NoSpace, OutputBudgetExceeded
from ..image.holding import Basis, Form
from ..image.media import Compression
from ..record import dataclass
from ..store.blobs import PLACE
from .budget import Bounds
from .measure import check, measure_layer
from .plan import SourceKind, largest_read
from .staged import Staged

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..core.pool import Pool
    from ..core.result import BlobResult
    from ..disk.locks import HeldLock
    from ..disk.space import Space
    from ..image.document import Digest, Layer
    from ..store.store import Store
    from ..transfer.fetcher import FetchReport
    from .arrival import Arrival
    from .budget import Spending
    from .measure import Feed
    from .plan import LayerPlan, Source, Want
    from .report import Ingested, LayerProgress

_FETCHED: Final = frozenset({SourceKind.TAR, SourceKind.RESUME, SourceKind.NETWORK})


@dataclass(frozen=True, slots=True)
class Attempt:
    """One step being carried out.

    ``reports`` are of all that was fetched for it, in vain or not. ``without`` are endpoints that could not
    give the tar in place of the blob, and why.
    """

    step: LayerPlan
    lock: HeldLock
    progress: LayerProgress
    pace: Callable[[], float] | None
    reports: list[FetchReport] = field(default_factory=list)
    without: dict[str, LayerteeError] = field(default_factory=dict)

    @property
    def layer(self) -> Layer:
        return self.step.layer


class Landing:
    """Where the layers of one plan land.

    ``spending`` bounds what all of them may cost together; ``spare``, what is read on this machine of layers
    that a registry has as well. ``zstd_window``: the largest window that a zstd frame may have.
    """

    def __init__(
        self,
        store: Store,
        pool: Pool,
        want: Want,
        space: Space,
        *,
        spending: Spending,
        spare: Spending,
        zstd_window: int,
    ) -> None:
        self.store = store
        self.pool = pool
        self.want = want
        self.space = space
        self._spending = spending
        self._spare = spare
        self._window = zstd_window

    def keeps_blob(self, layer: Layer) -> bool:
        """Whether what is kept of ``layer`` is its blob, and not what comes out of that."""
        return self.want.form is Form.AS_IS or layer.is_opaque or layer.compression is Compression.NONE

    def hashes_only(self, layer: Layer) -> bool:
        """Whether the blob of ``layer`` is hashed and not inflated, and no pair is recorded of it."""
        return self.want.digest_only or layer.is_opaque

    def staged(self, attempt: Attempt, arrival: Arrival, result: BlobResult, outcome: Ingested) -> Staged:
        """What has arrived of the attempt's layer, checked. It takes the lock over."""
        form = self.want.form
        outcome = replace(outcome, warning=seen_wrong(attempt.layer, result))
        return Staged(self.store, attempt.step, form, attempt.lock, arrival, result, outcome)

    def bounds(self, step: LayerPlan, source: Source) -> Bounds:
        """What trying ``source`` may cost: what the image may, unless the registry can do without it.

        The store's own checked layers are no risk.
        """
        held = source.holding
        is_checked = held is not None and held.place == PLACE and held.basis is Basis.COMPUTED
        has_registry = any(other.kind is SourceKind.NETWORK for other in step.sources)
        if source.kind in _FETCHED or is_checked or not has_registry:
            return Bounds(self._spending, min(OUT_BUDGET, self._spending.output_left))
        # Several layers are read at once, and all are to leave room for what is fetched.
        fits = max(source.disk_bytes if source is step.sources[0] else 0, self.space.left() // 4)
        return Bounds(self._spare, min(largest_read(step.layer), self._spare.output_left), fits)

    async def measure(
        self, job: LayerJob, feed: Feed, bounds: Bounds, arrival: Arrival | None = None
    ) -> BlobResult:
        """Through the pool, with an eye on what it costs, and on what of it is on the disk."""
        pool_layer = self.pool.open_layer(job)
        async with unwrapped_group() as group:
            beside = [group.create_task(bounds.spending.watch(pool_layer))]
            if arrival is not None:
                beside.append(group.create_task(arrival.keep_pace(pool_layer)))
            try:
                result = await measure_layer(pool_layer, feed)
            finally:
                if arrival is not None:
                    arrival.spent = pool_layer.spent()
            for task in beside:
                task.cancel()
        return result

    async def write(
        self, layer: Layer, what: LayerJob, feed: Feed, digest: Digest, bounds: Bounds, arrival: Arrival
    ) -> BlobResult:
        """Bring a blob into the files of ``arrival`` and check it."""
        as_is = self.keeps_blob(layer)
        root = self.store.root
        allowed = bounds.out_nbytes
        room = self.space.left() if bounds.disk_nbytes is None else bounds.disk_nbytes
        budget = allowed if as_is else max(1, min(allowed, room))
        try:
            job = replace(
                what,
                fd=arrival.writer.fileno(),
                write="in" if as_is else "out",
                spool_fd=arrival.spool.fileno() if arrival.spool is not None else -1,
                in_from=arrival.n_kept,
                # Kept as it is, the blob is for others to read, who check the checksums in it. Where
                # only the tar is kept, the DiffID has judged every byte of it.
                check_crc=as_is,
                out_budget=budget,
                window_max=self._window,
                media_type=layer.media_type,
                path=str(root),
            )
            result = await self.measure(job, feed, bounds, arrival)
            check(result, layer, digest, what.size)
        except LayerteeError as exc:
            if isinstance(exc, DecodeError):
                exc.add_note(f"that was layer {layer.index}, {digest}")
                if exc.reason == "header" and exc.offset == 0 and digest == layer.digest:
                    exc.add_note(
                        f"a plain tar would have its digest as DiffID; the config says {layer.diff_id}"
                    )
            if isinstance(exc, OutputBudgetExceeded) and budget < allowed:
                raise NoSpace(
                    f"layer {layer.index} needs more than {human(budget)} uncompressed, which is all that may"
                    f" still be filled of {root}",
                    path=str(root),
                    need=budget + 1,
                    free=budget,
                ).with_hint("keep-free") from exc
            raise
        return result


def seen_wrong(layer: Layer, result: BlobResult) -> str | None:
    """What is wrong with the media type of ``layer`` that nobody could know before its bytes were here."""
    if layer.mislabelled() is not None or not isinstance(result, TeeResult) or result.digest != layer.digest:
        return None
    return layer.mislabelled(result.compression)
