"""The library's front: one engine, one store, any number of images.

What only some methods need is imported by them: a server that was not asked for an image yet has no network.
"""

from __future__ import annotations

import enum
from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self

from .aio import in_thread, unwrapped_group
from .disk.space import Space
from .errors import CatalogError, LayerteeError, LocalError, OtherPlatform
from .image.document import Descriptor, DiffID, Digest, Layer, image_layers, layers_as_far_as_known
from .image.given import path_of
from .image.pairs import with_computed
from .image.platform import Platform
from .image.reference import Reference, ShortName, parse_name
from .image.strictjson import printable
from .options import Options
from .pulling.deadline import in_time
from .pulling.deciding import decide, mislabelled
from .pulling.imageplan import ImagePlan
from .pulling.plan import Form, Keep, Plan, Verify, Want
from .pulling.tracing import span
from .record import dataclass
from .store.store import Store, default_root

if TYPE_CHECKING:
    from .core.pool import Pool
    from .image.blobname import BlobName
    from .image.whole import Known
    from .pulling.ingest import Ingest
    from .pulling.judging import Examined
    from .pulling.network import Network
    from .pulling.plan import LayerPlan
    from .pulling.report import ProgressCallback, PullResult, VerifyCallback
    from .pulling.resolve import Resolved
    from .pulling.ruling import Sources
    from .pulling.stream import LayerStream
    from .pulling.tags import RepositoryTags
    from .pulling.verify import VerifyReport
    from .transfer.fetcher import Fetcher

__all__ = ["Engine", "ImageName", "Inspection", "Options"]


class ImageName(enum.Enum):
    """What the store calls an image, where the caller has no name of its own for it."""

    AS_REFERENCE = "as-reference"


@dataclass(frozen=True, slots=True)
class Inspection:
    """An image and what this machine knows of it.

    ``plan`` is what a pull would do. ``names`` are, for each content, the compressed blobs that are known to
    hold it, the best known first. ``registry_manifest`` is the digest that the image has at a registry, and
    ``registry_layers`` are its layers there; None and empty where that is not known on this machine.
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
        self._root = None if isinstance(store, Store) else path_of(store, "store")
        self._options = options or Options()
        self._store: Store | None = store if isinstance(store, Store) else None
        self._is_own = self._store is None
        self._network_opened: Network | None = None
        self._pool: Pool | None = None

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
            if self._network_opened is not None:
                await self._network_opened.close()
        finally:
            self._close_store()

    def _open_store(self) -> None:
        self._store = Store.open(self._root or default_root())

    def _close_store(self) -> None:
        if self._store is not None and self._is_own:
            self._store.close()

    @property
    def store(self) -> Store:
        if self._store is None:
            raise RuntimeError("use the engine inside 'async with'")
        return self._store

    @property
    def space(self) -> Space:
        """What may be filled of the disk that the store is on."""
        return Space(self.store.root, self._options.keep_free)

    @property
    def platform(self) -> Platform:
        """The platform that images are to be for."""
        return self._options.platform or Platform.host()

    @property
    def options(self) -> Options:
        """As they were given."""
        return self._options

    def in_time(self) -> AbstractAsyncContextManager[None]:
        """A block that lasts no longer than ``budget.deadline_s``, for a plan and a pull that share it.

        Each of them alone is bounded by that, too. Raises DeadlineExceeded.
        """
        return in_time(self._options.budget.deadline_s)

    # --- what it does ---

    async def plan(
        self,
        reference: str,
        want: Want | None = None,
        *,
        form: Form | str | None = None,
        verify: Verify | str | None = None,
        name: str | ImageName | None = ImageName.AS_REFERENCE,
        all_platforms: bool = False,
    ) -> ImagePlan:
        """Resolve ``reference`` and decide what a pull would do. Changes nothing.

        A name without registry is what podman takes it for where there is nobody to ask; the plan has it in
        full.

        ``want`` says what is wanted of the layers; ``form`` and ``verify``, or their values, are put over it.
        Without it, places are trusted as the engine's options say. ``name`` is what the store will call the
        image, None for no name (the only image of a layout). The plan is a value: it can be kept, and any
        engine can carry it out.

        ``all_platforms``: of an index, all that it names is wanted, byte for byte, so that it keeps its
        digest. What is no index is planned as ever. Signatures then count where they are the index's.

        Raises InvalidReference (UnresolvedName), NotFound, Unauthorized, TransportError (DeadlineExceeded),
        IntegrityError (DiffIDMismatch: the image contradicts a pair computed on this machine),
        UnsupportedImage; PolicyRefused (DowngradeRefused) for an image that this machine does not take;
        ValueError for a ``form`` or ``verify`` that there is not, and for plain tars of ``all_platforms``.
        """
        from .pulling.survey import look

        wanted = want or Want(trust=self._options.trust)
        wanted = Want(
            wanted.form if form is None else form,
            wanted.verify if verify is None else verify,
            wanted.keep,
            wanted.trust,
        )
        if all_platforms and wanted.form is not Form.AS_IS:
            raise ValueError("all_platforms keeps the blobs of an index as they are, and no tars")
        async with self.in_time():
            found, examined = await self._examined(reference, wanted, enforce=True, whole=all_platforms)
            if found.image.whole is not None:
                wanted = replace(wanted, keep=Keep.NAMED)
            with span("plan", image=reference) as traced:
                survey, _ = await in_thread(
                    look, self.store, found, self._options.places, wanted, keep_parts=self._keep_parts
                )
                made = await decide(found, survey, wanted, self._network)
                traced.set(
                    manifest_digest=found.image.digest,
                    layers=len(made.layers),
                    bytes_to_fetch=made.bytes_to_fetch,
                )
        return _planned(reference, found, made, name, survey.warnings, examined)

    async def inspect(self, reference: str, want: Want | None = None, *, enforce: bool = False) -> Inspection:
        """Resolve ``reference`` and tell what this machine knows of it.

        Raises as ``plan``; but what the policy says is only told, in the plan's ``consent`` and
        ``freshness``, unless it is to ``enforce`` it.
        """
        async with self.in_time():
            return await self._inspect(reference, want or Want(trust=self._options.trust), enforce)

    async def _inspect(self, reference: str, wanted: Want, enforce: bool) -> Inspection:
        from .pulling.survey import blob_names, look, registry_layers

        found, examined = await self._examined(reference, wanted, enforce=enforce)
        survey, attested = await in_thread(
            look, self.store, found, self._options.places, wanted, keep_parts=self._keep_parts
        )
        made = await decide(found, survey, wanted, self._network)
        names = await in_thread(blob_names, self.store, found, attested)
        manifest, layers = registry_layers(found) or (None, ())
        warnings = tuple(dict.fromkeys([*survey.warnings, *attested.warnings]))
        planned = _planned(reference, found, made, ImageName.AS_REFERENCE, warnings, examined)
        return Inspection(planned, names, manifest, layers)

    async def tags(self, repository: str) -> RepositoryTags:
        """The tags of ``repository`` (``host/name``, or a short name), by the registry or one of its mirrors.

        Raises InvalidReference (UnresolvedName; a tag or digest is in it), NotFound, Unauthorized,
        TransportError (DeadlineExceeded) and the rest of RegistryError, DocumentError.
        """
        from .pulling.tags import tags_of

        async with self.in_time():
            return await tags_of(repository, self._network)

    async def pull(self, plan: ImagePlan, progress: ProgressCallback | None = None) -> PullResult:
        """Carry ``plan`` out: afterwards the store has the image, every byte of it verified (as far as
        the plan's ``want.verify`` goes).

        Raises IntegrityError (OutputBudgetExceeded and WorkBudgetExceeded among them), TransportError
        (DeadlineExceeded), RegistryError, LocalError (NoSpace, StoreBusy); PolicyRefused for a plan of
        ``inspect``, of an image that this machine does not take. Layers
        that were finished before a failure stay, and are not fetched again; of the others, what has come
        stays, as long as the engine's options keep it.
        """
        from .pulling.budget import Pace
        from .pulling.pull import Pull
        from .pulling.told import called

        fetcher, ingest = await self._begin(plan)
        pace, workers = Pace(self._options.budget.min_rate), self._workers().workers
        try:
            async with self.in_time():
                with span("pull", image=plan.reference, manifest_digest=plan.digest) as traced:
                    beside = await self._network.beside(_registry_of(plan), plan.image)
                    with called(progress) as tell:
                        made = Pull(self.store, fetcher, ingest, plan, pace, tell, beside, n_workers=workers)
                        result = await made.run()
                    traced.set(bytes_fetched=result.bytes_fetched, bytes_reused=result.bytes_reused)
        finally:
            self._trim_parts()
        return replace(result, warnings=(*result.warnings, *await self.remember(plan)))

    async def remember(self, plan: ImagePlan) -> tuple[str, ...]:
        """The image of ``plan`` is taken: it is the newest that was seen under its name, if it is newer.

        Whoever hands an image on without ``pull`` calls it. What kept it from being remembered is returned.
        """
        from .pulling.judging import remember

        return await in_thread(remember, self.store, plan, self.platform, self._options.policy)

    def open_layer(self, step: LayerPlan) -> AbstractAsyncContextManager[LayerStream]:
        """One layer of a plan as a stream of its uncompressed bytes, on this event loop or as a file.

        They come from the first source of the step that can be opened, on this machine or at the registry,
        and are kept nowhere. The end of the stream comes only when both digests matched; leaving the block
        raises IntegrityError unless it was read to its end, or given up. ValueError for a layer that only a
        place has that cannot give it back. A step has no verdict on its image: whoever goes by what
        ``inspect`` only told looks at ``consent`` first.
        """
        from .pulling.stream import open_stream

        return open_stream(step, self.store, self._options, lambda: self._network)

    @asynccontextmanager
    async def ingest(self, plan: Plan) -> AsyncIterator[Ingest]:
        """The layers of ``plan``, to be brought in one by one in whatever order the caller likes.

        Nothing is removed from the store inside the block. Raises StoreBusy; PolicyRefused as ``pull``.
        """
        fetcher, ingest = await self._begin(plan)
        shared = await self.store.when_shared()
        try:
            async with unwrapped_group() as group:
                watch = group.create_task(fetcher.watch())
                yield ingest
                watch.cancel()
        finally:
            self._trim_parts()
            shared.release()

    async def verify(self, progress: VerifyCallback | None = None) -> VerifyReport:
        """Hash everything in the store again; what is wrong goes to quarantine. Raises StoreBusy."""
        from .pulling.told import called
        from .pulling.verify import verify_store

        with called(progress) as tell:
            return await verify_store(self.store, self._workers(), self._options, tell)

    # --- inside ---

    async def _examined(
        self, reference: str, want: Want, *, enforce: bool, whole: bool = False
    ) -> tuple[Resolved, Examined]:
        """The image, and what the policy says of it: first of its name alone."""
        from .pulling.judging import Judge

        named = parse_name(reference)
        judge = Judge(self._options, self.platform)
        ruling = await judge.by_name(named) if not isinstance(named, ShortName) else None
        if enforce and ruling is not None:
            ruling.consent.check()
        with span("resolve", image=reference) as traced:
            found = await self._resolve(reference, want, self._document if whole else None)
            traced.set(manifest_digest=found.image.digest, index_digest=found.image.index_digest)
        if found.registry is not None:
            named = found.registry
        assert not isinstance(named, ShortName)
        ruling = ruling or await judge.by_name(named)

        async def sources() -> Sources:
            from .pulling.signing import sources_of  # where signatures decide, and not before

            return await sources_of(ruling, found, self._network, self._options.policy)

        image = found.image
        # A list that podman's store has beside an image is not what was asked for there.
        index = image.index if found.stored is None else None
        manifest = image.manifest if image.whole is None else None
        consent = await judge.consent(ruling, named, manifest, index, sources)
        examined = await in_thread(judge.examined, ruling, named, found.image, consent, self.store)
        if enforce:
            examined.check()
        return found, examined

    async def _resolve(self, reference: str, want: Want, whole: Known | None) -> Resolved:
        from .pulling.resolve import resolve, resolve_short

        pair = layers_as_far_as_known if self._options.opaque_layers else image_layers
        named, platform, net = parse_name(reference), self.platform, self._network
        blobs = want.blobs_only or whole is not None
        if isinstance(named, ShortName):
            found = await resolve_short(named, platform, net, pair=pair, blobs=blobs, whole=whole)
        else:
            found = await resolve(named, platform, net, pair=pair, blobs=blobs, whole=whole)
        if any(layer.is_opaque for layer in found.image.layers):
            layers = await in_thread(self._no_longer_opaque, found.image.layers)
            found = replace(found, image=replace(found.image, layers=layers))
        return replace(found, warnings=(*found.warnings, *self._other_platform(reference, found)))

    @property
    def _keep_parts(self) -> bool:
        """Whether what has arrived of a layer is kept, and gone on with."""
        return not self._options.keep_partials.never

    def _other_platform(self, reference: str, found: Resolved) -> list[str]:
        """A warning about an image that is for another platform. Raises OtherPlatform, if one was named.

        Of an index, what it says of its entries counts: configs that are wrong there are not rare.
        """
        config, platform = found.image.config.platform, self.platform
        if found.image.whole is not None or not platform.contradicts(config):
            return []
        text = f"{reference} is for {printable(str(config))}"
        if self._options.platform is None:
            return [f"{text}; this machine is {platform}"]
        if found.image.index_digest is not None:
            return [f"{text}, as its config says; its index says that it is for {platform}"]
        if not self._options.any_platform:
            message = f"{text}, and {platform} was asked for; it has no other"
            raise OtherPlatform(message, wanted=str(platform), found=str(config))
        return [f"{text}; {platform} was asked for"]

    def _document(self, named: Descriptor) -> bytes | None:
        """A document of an image that the store has; its bytes were just hashed."""
        with suppress(LayerteeError):
            return self.store.layout.read_blob(named)
        return None

    def _no_longer_opaque(self, layers: tuple[Layer, ...]) -> tuple[Layer, ...]:
        """``layers``, with what was computed here of those that the image says nothing about."""
        computed: dict[Digest, DiffID] = {}
        with suppress(CatalogError):  # looking for the layers gives a warning for it
            for layer in layers:
                if (diff_id := self.store.catalog.diff_id(layer.digest)) is not None:
                    computed[layer.digest] = diff_id
        return with_computed(layers, computed)

    async def _begin(self, plan: Plan) -> tuple[Fetcher, Ingest]:
        """What carries ``plan`` out: the transfers from its registry, and the way in for its layers."""
        if isinstance(plan, ImagePlan):  # ``inspect`` gives plans of images that are not taken
            plan.consent.check()
        from .pulling.budget import Spending, spare
        from .pulling.ingest import Ingest
        from .pulling.survey import Keepers

        pool = self._workers()
        fetcher = await self._network.fetcher(_registry_of(plan), pool)
        layers = [step.layer for step in plan.layers]
        keepers = Keepers(self.store, self._options.places, layers)
        ingest = Ingest(
            self.store,
            pool,
            fetcher,
            plan,
            servers_of=self._network.servers,
            keepers=keepers,
            space=self.space,
            keep_parts=self._keep_parts,
            spending=Spending(self._options.budget, layers),
            zstd_window=self._options.zstd_window,
            spare=Spending(
                spare(self._options.budget), layers, of="what this machine has in place of its layers"
            ),
        )
        return fetcher, ingest

    def _trim_parts(self) -> None:
        """Remove what has been kept long enough of layers that did not arrive. A few system calls."""
        with suppress(LocalError):  # it is tried again after the next pull
            self.store.parts.trim(self._options.keep_partials)

    @property
    def _network(self) -> Network:
        if self._network_opened is None:
            from .pulling.network import Network

            self._network_opened = Network(self._options)
        return self._network_opened

    def _workers(self) -> Pool:
        if self._pool is None:
            from .core.workers import open_pool

            self._pool = open_pool(core=self._options.core)
        return self._pool


def _planned(
    reference: str,
    found: Resolved,
    made: Plan,
    name: str | ImageName | None,
    warnings: tuple[str, ...],
    examined: Examined,
) -> ImagePlan:
    return ImagePlan(
        made.layers,
        made.want,
        # A short name is another image's when the configuration changes.
        reference=str(found.registry) if isinstance(parse_name(reference), ShortName) else reference,
        name=found.name if isinstance(name, ImageName) else name,
        image=found.image,
        asked=found.asked,
        warnings=(
            *(*found.warnings, *found.image.warnings, *warnings, *mislabelled(made)),
            *examined.warnings,
        ),
        consent=examined.told,
        freshness=examined.freshness,
    )


def _registry_of(plan: Plan) -> Reference | None:
    """The registry that ``plan`` may ask; all layers of an image have the same."""
    sources = (source for step in plan.layers for source in step.sources)
    return next((source.registry for source in sources if source.registry is not None), None)
