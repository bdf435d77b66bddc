"""The library's front: one engine, one store, any number of images."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self

from . import __version__
from .certs import find_cert_dir
from .credentials import Credentials
from .errors import CatalogError, InvalidReference, NotFound
from .fetch import Fetcher, FetchLimits, HostState, OpenBlob
from .inventory import Holding, Place
from .inventory.oci_layout import OCILayoutPlace
from .inventory.own import OwnStore
from .inventory.readback import ReadBack
from .layout import Layout
from .local import read_file
from .localtar import read_tar
from .oci import Descriptor, DiffID, Digest, ImageConfig, Layer, Manifest, Platform
from .plan import Action, Form, LayerPlan, Verify, plan
from .pool import LayerJob, Pool, PoolLayer, open_pool
from .pulling import ImagePlan, Pull, check, unwrapped_group
from .reference import LayoutReference, Reference, parse_reference
from .registry import Registry
from .report import ProgressCallback, PullResult
from .storagename import StorageReference
from .store import Store, default_root
from .stream import LayerStream
from .tee import TeeResult
from .threads import in_thread
from .transport import Body, TLSPolicy, Transport
from .verify import VerifyReport, verify_store

# A stream has a pool of its own, so that a caller who stops reading holds up nobody else.
STREAM_IN, STREAM_OUT = 4, 8


@dataclass(frozen=True, slots=True)
class Options:
    """How an engine behaves. The defaults are those of the command line.

    ``tls_verify`` False also allows plain HTTP, for the registries that images name; tokens and
    redirects stay on what the registry offers. ``places`` to take layers from are OCI layouts and
    stores of podman.
    """

    platform: Platform = field(default_factory=Platform.host)
    authfile: Path | None = None
    tls_verify: bool = True
    cert_dir: Path | None = None
    limits: FetchLimits = field(default_factory=FetchLimits)
    places: tuple[Path | StorageReference, ...] = ()
    core: str | None = None


@dataclass(frozen=True, slots=True)
class _Resolved:
    """An image whose documents were read and hashed, wherever it is."""

    name: str | None
    manifest: Manifest
    config: ImageConfig
    layers: tuple[Layer, ...]
    index_digest: Digest | None
    open_blob: OpenBlob | None
    host: str
    place: Path | StorageReference | None


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
        self._hosts: dict[str, HostState] = {}
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

    # --- the three things it does ---

    async def plan(
        self,
        reference: str,
        *,
        form: Form = Form.AS_IS,
        verify: Verify = Verify.BOTH,
        name: str | None = "",
    ) -> ImagePlan:
        """Resolve ``reference`` and decide what a pull would do. Changes nothing.

        ``name`` is what the store will call the image: empty for the reference itself, None for no
        name (the only image of a layout). Raises
        InvalidReference, NotFound, Unauthorized, TransportError, IntegrityError (DiffIDMismatch: the
        image contradicts a pair computed on this machine), UnsupportedImage.
        """
        found = await self._resolve(parse_reference(reference))
        prefer = {layer.diff_id: layer.digest for layer in found.layers}
        places = [
            await in_thread(self._place, where, prefer)
            for where in (*([found.place] if found.place else []), *self._options.places)
        ]
        own, elsewhere, known, sizes = await in_thread(
            self._take_stock, found.layers, OwnStore(self.store, layers=found.layers), places
        )
        steps = plan(found.layers, own, elsewhere, form=form, known=known, sizes=sizes)
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
        )

    async def pull(self, plan: ImagePlan, progress: ProgressCallback | None = None) -> PullResult:
        """Carry ``plan`` out: afterwards the store has the image, every byte of it verified (as far as
        the plan's ``verify`` goes).

        Raises IntegrityError, TransportError, RegistryError, SinkError (NoSpace, StoreBusy). Layers
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

    async def verify(self) -> VerifyReport:
        """Hash everything in the store again; what is wrong goes to quarantine. Raises StoreBusy."""
        return await verify_store(self.store, self._workers())

    # --- inside ---

    def _place(self, where: Path | StorageReference, prefer: Mapping[DiffID, Digest]) -> Place:
        if isinstance(where, StorageReference):
            from .inventory.containers_storage import ContainersStoragePlace  # 20 ms

            return ContainersStoragePlace.of(where)
        return OCILayoutPlace(where, known=self.store.catalog.diff_id, prefer=prefer)

    async def _resolve(self, reference: Reference | LayoutReference | StorageReference) -> _Resolved:
        platform = self._options.platform
        if isinstance(reference, StorageReference):
            from .inventory.containers_storage import ContainersStoragePlace

            if reference.image is None:
                raise InvalidReference(f"{reference} names a store and no image in it")
            storage = await in_thread(ContainersStoragePlace.of, reference)
            stored = await in_thread(storage.resolve, reference.image)
            return _Resolved(
                next(iter(stored.names), reference.image),
                stored.manifest,
                stored.config,
                stored.layers,
                stored.index_digest,
                None,
                "",
                reference,
            )
        if isinstance(reference, LayoutReference):
            layout = await in_thread(Layout.open, reference.path)
            image = await in_thread(layout.resolve, reference.ref, platform)
            return _Resolved(
                reference.ref,
                image.manifest,
                image.config,
                image.layers,
                image.index_digest,
                None,
                "",
                reference.path,
            )
        registry: Registry[Body] = Registry(
            self._network(),
            reference,
            Credentials(self._options.authfile),
            tls=TLSPolicy(
                verify=self._options.tls_verify,
                cert_dir=self._options.cert_dir or find_cert_dir(reference.registry),
            ),
            allow_http=not self._options.tls_verify,
        )
        found = await registry.resolve(platform)

        async def open_blob(blob: Descriptor, start: int, stop: int | None) -> Body:
            return await registry.open_blob(blob, start, stop)

        return _Resolved(
            str(reference),
            found.manifest,
            found.config,
            found.layers,
            found.index_digest,
            open_blob,
            reference.api_host,
            None,
        )

    def _take_stock(
        self, layers: Sequence[Layer], own: OwnStore, places: Sequence[Place]
    ) -> tuple[dict[DiffID, Holding], list[dict[DiffID, Holding]], dict[Digest, DiffID], dict[DiffID, int]]:
        """What this machine holds of ``layers``, and what it has computed about them. Blocks."""
        diff_ids = {layer.diff_id for layer in layers}
        held = own.find(diff_ids)
        missing = diff_ids - held.keys()
        elsewhere = [place.find(missing) for place in places] if missing else []
        for place in places:
            self.store.warnings.extend(place.warnings)
        catalog = self.store.catalog
        known: dict[Digest, DiffID] = {}
        sizes: dict[DiffID, int] = {}
        try:
            for layer in layers:
                if (computed := catalog.diff_id(layer.digest)) is not None:
                    known[layer.digest] = computed
            sizes = catalog.uncompressed_sizes(diff_ids)
        except CatalogError as exc:
            self.store.warnings.append(str(exc))
        return held, elsewhere, known, sizes

    async def _feed(self, layer: Layer, holding: Holding | None, pool: Pool, pool_layer: PoolLayer) -> None:
        if isinstance(holding, ReadBack):
            await read_tar(holding, pool, pool_layer)
            return
        if holding is not None and holding.path is not None:
            await read_file(holding.path, pool, pool_layer)
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
            self._transport = Transport(user_agent=f"layertee/{__version__}")
        return self._transport

    def _workers(self) -> Pool:
        if self._pool is None:
            self._pool = open_pool(core=self._options.core)
        return self._pool

    def _fetcher(self, host: str, pool: Pool) -> Fetcher:
        limits = self._options.limits
        state = self._hosts.setdefault(host, HostState(limits.max_connections))
        return Fetcher(pool, limits, state)
