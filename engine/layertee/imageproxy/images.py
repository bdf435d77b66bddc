"""One open image of ours: what its client may ask of it.

A blob is handed out when it is complete, in the store, and was hashed by this process, both the blob and
what is in it. The descriptor is read-only and of that file, so what the client reads is what was hashed.
"""

from __future__ import annotations

import asyncio
import enum
import logging
import os
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

from ..aio import in_thread
from ..disk.files import open_regular
from ..engine import Engine, Inspection
from ..errors import CatalogError, DocumentError, LayerteeError, SizeMismatch, StoreCorrupt
from ..image.document import Compression, DiffID, Digest, Layer
from ..image.holding import Holding, Place
from ..image.placename import Where
from ..image.reference import parse_reference
from ..image.reference_storage import StorageReference
from ..pulling.plan import Form, LayerPlan
from ..pulling.survey import kept_by
from . import documents
from .documents import Presented
from .prefetch import AHEAD, LayerQueue, asking_order
from .server import IDENTITY_METHOD, Answer, Pipe
from .wire import MAX_PACKET, RequestError

log = logging.getLogger(__name__)

EXTENSION_VERSION: Final = 1


class Identity(enum.Enum):
    """The names under which a client sees the layers of an image from a registry or a layout."""

    AS_IS = "as-is"  # the blobs that the manifest names
    DIFF_ID = "diffid"  # the tars in them, named by DiffID


@dataclass(frozen=True, slots=True)
class ProxyOptions:
    """``client_repos``: where the client keeps the layers that it has. ``ahead``: bytes fetched before they
    are asked for. ``annotate``: name a tar's blob at the registry in the manifest's body, too.
    """

    identity: Identity = Identity.AS_IS
    annotate: bool = False
    client_repos: tuple[Where | Place, ...] = ()
    ahead: int = AHEAD


class ServedImage:
    """Use ``open``; then ``close`` it."""

    def __init__(
        self,
        engine: Engine,
        found: Inspection,
        options: ProxyOptions,
        closed: Callable[[], Awaitable[None]],
    ) -> None:
        self._engine = engine
        self._closed = closed
        self._found = found
        self._plan = found.plan
        self._options = options
        self._names = documents.registry_names(found)
        self._steps = {self._plan.name_of(step.layer): step for step in self._plan.layers}
        self._client_has: set[DiffID] = set()
        self._queue: LayerQueue
        self._presented: list[Presented] | None = None
        self._closing = asyncio.Event()
        self._keeper: asyncio.Task[None]

    @classmethod
    async def open(
        cls,
        engine: Engine,
        name: str,
        options: ProxyOptions,
        *,
        examine: Callable[[Inspection], Awaitable[None]],
        closed: Callable[[], Awaitable[None]],
    ) -> ServedImage:
        """Resolve ``name`` and begin to bring its layers in.

        ``examine`` is shown what was resolved before anything is fetched, and may refuse it; ``closed`` is
        called when the store is no longer held for the image. Raises as ``Engine.plan``, and StoreBusy.
        """
        tars = options.identity is Identity.DIFF_ID or isinstance(parse_reference(name), StorageReference)
        form = Form.UNCOMPRESSED if tars else Form.AS_IS
        found = await engine.inspect(name, form=form, exact=True)
        await examine(found)
        image = cls(engine, found, options, closed)
        await image._begin()
        return image

    async def _begin(self) -> None:
        layers = [step.layer for step in self._plan.layers]
        repos = self._options.client_repos
        try:
            self._client_has = await in_thread(kept_by, self._engine.store, layers, repos)
        except LayerteeError as exc:  # it only says what need not be fetched ahead
            log.warning("what the client has is not known: %s", exc)
        began: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._keeper = asyncio.ensure_future(self._keep(began))
        try:
            await asyncio.wait({began, self._keeper}, return_when=asyncio.FIRST_COMPLETED)
            if self._keeper.done():
                await self._keeper
        except BaseException:
            await self.close()
            raise

    async def _keep(self, began: asyncio.Future[None]) -> None:
        """Lives as long as the image is open: nothing goes out of the store meanwhile."""
        steps = {step.layer.index: step for step in self._plan.layers}
        order = asking_order(self._plan.config, [step.layer for step in self._plan.layers])
        async with self._engine.ingest(self._plan, recheck=True) as ingest:
            self._queue = LayerQueue(
                ingest,
                self._engine.store,
                [steps[layer.index] for layer in order],
                client_has=self._client_has,
                ahead=self._options.ahead,
            )
            try:
                began.set_result(None)
                await self._closing.wait()
            finally:
                await self._queue.close()

    async def close(self) -> None:
        self._closing.set()
        await asyncio.wait({self._keeper})
        if not self._keeper.cancelled() and (exc := self._keeper.exception()) is not None:
            log.info("an image was closed after an error: %s", exc)
        await self._closed()

    # --- documents ---

    async def manifest(self) -> Answer:
        renamed = self._options.identity is Identity.DIFF_ID
        presented = await self._present() if renamed else self._as_named()
        names = self._names if self._options.annotate else None
        raw = documents.manifest_document(self._plan.manifest, presented, names)
        # A Docker manifest is told as an OCI one, under its own digest, as clients expect it.
        digest = Digest.of(raw) if renamed else self._plan.manifest.digest
        extension = {
            "version": EXTENSION_VERSION,
            "registry_manifest": self._found.registry_manifest,
            "layers": IDENTITY_METHOD,
        }
        pipe = Pipe(documents.readable(raw))
        return Answer(digest, pipe, extra=(("layertee", extension),))

    async def config(self) -> Answer:
        return Answer(pipe=Pipe(documents.readable(documents.runtime_config(self._plan.config))))

    async def full_config(self) -> Answer:
        return Answer(pipe=Pipe(documents.readable(self._plan.config.raw)))

    async def layer_info(self) -> Answer:
        presented = await self._present()
        if len(documents.layer_info_document(presented)) > MAX_PACKET - 200:
            raise RequestError("the image has too many layers for GetLayerInfo; use GetLayerInfoPiped")
        return Answer(documents.layer_info(presented))

    async def layer_info_piped(self) -> Answer:
        return Answer(pipe=Pipe(documents.readable(documents.layer_info_document(await self._present()))))

    async def layer_identity(self) -> Answer:
        names = await in_thread(documents.computed_meanwhile, self._engine.store, self._names)
        raw = documents.identity_document(await self._present(), names)
        return Answer(pipe=Pipe(documents.readable(raw)))

    # --- blobs ---

    async def blob(self, digest: str, size: int) -> Answer:
        fd, nbytes = await self._open_blob(digest, size)
        return Answer(nbytes, Pipe(fd))

    async def raw_blob(self, digest: str) -> Answer:
        errors, writer = os.pipe2(os.O_CLOEXEC)
        os.close(writer)  # nothing will be wrong with what is handed out
        try:
            fd, nbytes = await self._open_blob(digest, -1)
        except BaseException:
            os.close(errors)
            raise
        return Answer(nbytes, fds=(fd, errors))

    async def _open_blob(self, text: str, size: int) -> tuple[int, int]:
        try:
            digest = Digest.parse(text, "the digest")
        except DocumentError as exc:
            raise RequestError(str(exc)) from exc
        config = self._plan.config
        if digest == config.digest:
            _check_size(digest, size, len(config.raw))
            return documents.readable(config.raw), len(config.raw)
        step = self._steps.get(digest)
        if step is None:
            raise RequestError(f"{digest} is not a blob of {self._plan.image}")
        if self._plan.plan.form is Form.AS_IS:
            _check_size(digest, size, step.layer.size)
        held = await self._queue.get(step.layer.diff_id)
        presented = self._presented_as(step)
        if presented is None or not presented.estimated:
            _check_size(digest, size, held.size)
        fd = self._open_file(held)
        self._queue.reads(fd, step.layer.size / max(1, held.size))
        return fd, held.size

    def _open_file(self, held: Holding) -> int:
        assert held.path is not None
        fd = open_regular(held.path)
        if os.fstat(fd).st_size != held.size:
            os.close(fd)
            raise StoreCorrupt(f"{held.path} has changed since it was checked", path=str(held.path))
        return fd

    # --- the names that the client sees ---

    def _presented_as(self, step: LayerPlan) -> Presented | None:
        return self._presented[step.layer.index] if self._presented is not None else None

    async def _present(self) -> list[Presented]:
        """The layers as the client sees them.

        A tar has to be named with its size. Where nobody knows that, the layer is brought in now, unless
        the client has it: then its size is only an estimate, for a layer that will not be asked for.
        """
        if self._presented is not None:
            return self._presented
        if self._plan.plan.form is Form.AS_IS:
            self._presented = self._as_named()
            return self._presented
        layers = [step.layer for step in self._plan.layers]
        sizes = await in_thread(self._known_sizes, layers)
        unknown = {one.diff_id for one in layers} - sizes.keys() - self._client_has
        brought = await self._queue.get_all(unknown)
        sizes |= {diff_id: held.size for diff_id, held in brought.items()}
        self._presented = [
            Presented(
                one,
                self._plan.name_of(one),
                sizes.get(one.diff_id, one.size),
                Compression.NONE,
                estimated=one.diff_id not in sizes,
            )
            for one in layers
        ]
        return self._presented

    def _as_named(self) -> list[Presented]:
        """The layers as the image's own manifest names them."""
        layers = [step.layer for step in self._plan.layers]
        return [Presented(one, one.digest, one.size, one.compression) for one in layers]

    def _known_sizes(self, layers: Sequence[Layer]) -> dict[DiffID, int]:
        """Of the tars, where somebody on this machine measured them. Blocks."""
        sizes = {one.diff_id: one.size for one in layers if one.compression is Compression.NONE}
        for step in self._plan.layers:
            holding = step.holding
            if holding is not None and holding.uncompressed_size is not None:
                sizes.setdefault(step.layer.diff_id, holding.uncompressed_size)
        with suppress(CatalogError):
            sizes |= self._engine.store.catalog.uncompressed_sizes({one.diff_id for one in layers})
        return sizes


def _check_size(digest: Digest, asked: int, is_: int) -> None:
    if asked not in (-1, is_):
        raise SizeMismatch(f"{digest} has {is_} bytes, {asked} were asked for", want=asked, got=is_)
