"""The library's front: one engine, one store, any number of images."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from .aio import in_thread, unwrapped_group
from .core.pool import LayerJob, Pool, PoolLayer, open_pool
from .core.result import TeeResult
from .errors import CatalogError, NotFound
from .image.document import DiffID, Digest, Layer
from .image.holding import Holding
from .image.reference import parse_reference
from .options import Options
from .places.names import BlobName
from .pulling.imageplan import ImagePlan, name_in
from .pulling.ingest import Ingest, check
from .pulling.plan import Action, Form, LayerPlan, Verify, plan
from .pulling.pull import Pull
from .pulling.report import ProgressCallback, PullResult
from .pulling.resolve import Resolved, resolve
from .pulling.source import read_blob
from .pulling.stream import LayerStream
from .pulling.survey import Present, blob_names, look, registry_layers
from .pulling.verify import VerifyReport, verify_store
from .registry.http import Transport
from .store.store import Store, default_root
from .transfer.fetcher import Connections, Fetcher, OpenBlob
from .version import __version__

__all__ = ["Engine", "Inspection", "Options"]

# A stream has a pool of its own, so that a caller who stops reading holds up nobody else.
STREAM_IN, STREAM_OUT = 4, 8


@dataclass(frozen=True, slots=True)
class Inspection:
    """An image and what this machine knows of it.

    ``plan`` is what a pull would do. ``names`` are, for each content, the compressed blobs that are known to
    hold it, the best known first. ``registry_manifest`` is the digest that the image has at a registry, and
    ``registry_layers`` are its layers there; None and empty where that is not known here.
    """

    plan: ImagePlan
    names: Mapping[DiffID, tuple[BlobName, ...]]
    registry_manifest: Digest | None
    registry_layers: tuple[Layer, ...] = ()


class Engine:
    """Plans and pulls images into ``store``; an async context manager.

    ``store`` is an open Store (left open), a directory, or None for the default one. One event
    loop; several plans and pulls may run at once.
    """

    def __init__(self, store: Store | Path | str | None = None, *, options: Options | None = None) -> None:
        self._given = store
        self._options = options or Options()
        self._store: Store | None = store if isinstance(store, Store) else None
        self._transport: Transport | None = None
        self._pool: Pool | None = None
        self._hosts: dict[str, Connections] = {}
        self._sources: dict[Digest, OpenBlob] = {}

    async def __aenter__(self) -> Self:
        if self._store is None:
            try:
                await in_thread(self._open_store)
            except BaseException:
                self._close_store()  # opened all the same, when the caller was cancelled
                raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        if self._pool is not None:
            self._pool.close()
        try:
            if self._transport is not None:
                await self._transport.close()
        finally:
            self._close_store()

    def _open_store(self) -> None:
        root = Path(self._given) if isinstance(self._given, str | Path) else default_root()
        self._store = Store.open(root)

    def _close_store(self) -> None:
        if self._store is not None and self._store is not self._given:
            self._store.close()

    @property
    def store(self) -> Store:
        if self._store is None:
            raise RuntimeError("use the engine inside 'async with'")
        return self._store

    # --- what it does ---

    async def plan(
        self,
        reference: str,
        *,
        form: Form = Form.AS_IS,
        verify: Verify = Verify.BOTH,
        name: str | None = "",
        complete: bool = False,
        exact: bool = False,
    ) -> ImagePlan:
        """Resolve ``reference`` and decide what a pull would do. Changes nothing.

        ``name`` is what the store will call the image: empty for the reference itself, None for no
        name (the only image of a layout). ``complete``: leave no layer to a place that cannot give it
        back. ``exact``: what counts is only the layer as ``form`` names it, not another blob of the same
        content; implies ``complete``. Raises InvalidReference, NotFound, Unauthorized, TransportError,
        IntegrityError (DiffIDMismatch: the image contradicts a pair computed on this machine),
        UnsupportedImage.
        """
        found, present = await self._look(reference)
        return self._planned(reference, found, present, form, verify, name, complete=complete, exact=exact)

    async def inspect(self, reference: str, *, form: Form = Form.AS_IS, exact: bool = False) -> Inspection:
        """Resolve ``reference`` and tell what is known of it here. Changes nothing; as ``plan``."""
        found, present = await self._look(reference)
        planned = self._planned(reference, found, present, form, Verify.BOTH, "", complete=False, exact=exact)
        names = await in_thread(blob_names, self.store, found, present.attested)
        manifest, layers = registry_layers(found) or (None, ())
        return Inspection(planned, names, manifest, layers)

    async def pull(self, plan: ImagePlan, progress: ProgressCallback | None = None) -> PullResult:
        """Carry ``plan`` out: afterwards the store has the image, every byte of it verified (as far as
        the plan's ``verify`` goes).

        Raises IntegrityError, TransportError, RegistryError, LocalError (NoSpace, StoreBusy). Layers
        that were finished before a failure stay, and are not fetched again.
        """
        pool = self._workers()
        return await Pull(self.store, pool, self._fetcher(plan.host, pool), plan, progress).run()

    @asynccontextmanager
    async def open_layer(self, step: LayerPlan) -> AsyncIterator[LayerStream]:
        """One layer of a plan of this engine as a stream of its uncompressed bytes.

        They come from the store or another place where the plan says so, else from the registry,
        and are kept nowhere. Leaving the block raises IntegrityError unless the stream was read to
        its end and both digests matched.
        """
        layer, holding = step.layer, step.holding
        if holding is not None and not holding.readable:
            holding = None
        blob = holding or layer
        pool = open_pool(workers=1, n_in=STREAM_IN, n_out=STREAM_OUT, core=self._options.core)
        try:
            pool_layer = pool.open_layer(
                LayerJob(blob.compression, blob.size, stream=True, media_type=layer.media_type)
            )
            async with unwrapped_group() as group:
                feeding = group.create_task(self._feed(layer, holding, pool, pool_layer))
                try:
                    stream = LayerStream(pool_layer)
                    yield stream
                    result = await stream.finish()
                finally:
                    feeding.cancel()
                    await pool_layer.abandon()
            check(result, layer, blob.digest, blob.size)
            await in_thread(self._record, result)
        finally:
            pool.close()

    @asynccontextmanager
    async def ingest(self, plan: ImagePlan, *, recheck: bool = False) -> AsyncIterator[Ingest]:
        """The layers of ``plan``, to be brought in one by one in whatever order the caller likes.

        Nothing is removed from the store inside the block. ``recheck``: what the store has already is
        hashed again before it counts. Raises StoreBusy.
        """
        pool = self._workers()
        fetcher = self._fetcher(plan.host, pool)
        shared = await self.store.when_shared()
        try:
            async with unwrapped_group() as group:
                watch = group.create_task(fetcher.watch())
                yield Ingest(self.store, pool, fetcher, plan, recheck=recheck)
                watch.cancel()
        finally:
            shared.release()

    async def verify(self) -> VerifyReport:
        """Hash everything in the store again; what is wrong goes to quarantine. Raises StoreBusy."""
        return await verify_store(self.store, self._workers())

    # --- inside ---

    async def _look(self, reference: str) -> tuple[Resolved, Present]:
        found = await resolve(parse_reference(reference), self._options, self._network)
        return found, await in_thread(look, self.store, found, self._options.places)

    def _planned(
        self,
        reference: str,
        found: Resolved,
        present: Present,
        form: Form,
        verify: Verify,
        name: str | None,
        *,
        complete: bool,
        exact: bool = False,
    ) -> ImagePlan:
        own, elsewhere, origin = present.own, present.elsewhere, present.origin
        if complete or exact:
            elsewhere = [{d: held for d, held in one.items() if held.readable} for one in elsewhere]
        if exact:
            names = {layer.diff_id: name_in(form, layer) for layer in found.layers}
            if form is Form.AS_IS:  # a tar cannot become the blob again
                origin, *elsewhere = (_named(one, names) for one in (origin, *elsewhere))
            else:
                elsewhere = [own, *elsewhere]
            own = _named(own, names)
        steps = plan(
            found.layers,
            own,
            elsewhere,
            form=form,
            known=present.known,
            sizes=present.sizes,
            origin=origin,
            trust=self._options.trust,
        )
        if found.open_blob is None:
            for step in steps.layers_to(Action.FETCH):
                raise NotFound(f"{reference}: layer {step.layer.index} ({step.layer.digest}) is not there")
        else:
            for layer in found.layers:
                self._sources[layer.digest] = found.open_blob
        return ImagePlan(
            reference,
            found.name if name == "" else name,
            found.manifest,
            found.config,
            found.index_digest,
            steps,
            found.open_blob,
            found.host,
            verify,
            present.still_held,
            exact,
        )

    async def _feed(self, layer: Layer, holding: Holding | None, pool: Pool, pool_layer: PoolLayer) -> None:
        if holding is not None:
            await read_blob(holding, pool, pool_layer)
            return
        open_blob = self._sources.get(layer.digest)
        if open_blob is None:
            raise ValueError(f"layer {layer.digest} is not of a plan of this engine")
        # Connections of its own: a stream that nobody reads keeps one open for as long as it likes.
        fetcher = Fetcher(pool, self._options.limits)
        async with unwrapped_group() as group:
            watch = group.create_task(fetcher.watch())
            await fetcher.fetch(layer.descriptor, open_blob, pool_layer)
            watch.cancel()

    def _record(self, result: TeeResult) -> None:
        try:
            self.store.catalog.record(result, held=False)
        except CatalogError as exc:
            self.store.warnings.append(str(exc))

    def _network(self) -> Transport:
        if self._transport is None:
            prefix = self._options.user_agent_prefix
            agent = f"{prefix} layertee/{__version__}" if prefix else f"layertee/{__version__}"
            self._transport = Transport(user_agent=agent)
        return self._transport

    def _workers(self) -> Pool:
        if self._pool is None:
            self._pool = open_pool(core=self._options.core)
        return self._pool

    def _fetcher(self, host: str, pool: Pool) -> Fetcher:
        limits = self._options.limits
        return Fetcher(pool, limits, self._hosts.setdefault(host, Connections(limits)))


def _named(held: Mapping[DiffID, Holding], names: Mapping[DiffID, Digest]) -> dict[DiffID, Holding]:
    """Those of ``held`` that have the name that is wanted."""
    return {diff_id: one for diff_id, one in held.items() if one.digest == names.get(diff_id)}
