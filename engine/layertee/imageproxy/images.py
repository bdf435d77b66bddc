"""One open image of ours: what its client may ask of it.

A blob is handed out when it is complete, in the store, and was hashed by this process. What is in it was
hashed too, then or when it came into the store. The descriptor is read-only and of that very file (queue.py),
so what the client reads is what was hashed.
"""

from __future__ import annotations

import enum
import logging
import os
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from contextlib import AsyncExitStack, suppress
from typing import TYPE_CHECKING, Final, Self

from ..aio import in_thread
from ..core.result import TeeResult
from ..errors import CatalogError, DocumentError, LayerteeError, SizeMismatch, StoreCorrupt, UnsupportedImage
from ..image.document import DiffID, Digest, Layer
from ..image.media import Compression
from ..image.reference import parse_reference
from ..image.reference_storage import StorageReference
from ..image.roles import asking_order
from ..pulling.plan import Form, Keep, LayerPlan, Want
from ..pulling.survey import kept_by
from ..record import dataclass
from . import documents
from .appetite import AHEAD
from .documents import Presented
from .queue import Brought, LayerQueue
from .server import IDENTITY_METHOD, Answer, Pipe
from .tally import ImageTally
from .wire import MAX_PACKET, RequestError

if TYPE_CHECKING:
    from ..engine import Engine, Inspection
    from ..image.holding import Place
    from ..image.placename import Where
    from ..pulling.imageplan import ImagePlan

log = logging.getLogger(__name__)

EXTENSION_VERSION: Final = 1


class SeveralMembers(UnsupportedImage):
    """A layer that is a gzip file of several members, which clients of this protocol cannot read."""

    code = "GZIP_MEMBERS"

    def __init__(self, layer: Layer, n_members: int) -> None:
        super().__init__(
            f"layer {layer.index} ({layer.digest}) is a gzip file of {n_members} members, of which the client"
            " would read the first and take it for the whole layer; have the layer compressed in one piece,"
            " or give it out as a tar (layer identity diffid)"
        )
        self.with_hint("layer-identity-diffid")
        self.n_members = n_members


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
    """Use ``open``; then ``close`` it, in the same task."""

    def __init__(
        self,
        engine: Engine,
        found: Inspection,
        options: ProxyOptions,
        steps: Mapping[Digest, LayerPlan],
        client_has: Collection[Digest],
        queue: LayerQueue,
        stack: AsyncExitStack,
    ) -> None:
        self._engine = engine
        self._found = found
        self._plan = found.plan
        self._options = options
        self._names = documents.registry_names(found)
        self._steps = steps
        self._client_has = client_has
        self._queue = queue
        self._stack = stack
        self._presented: list[Presented] | None = None
        self._failed: dict[Digest, LayerteeError] = {}  # layers that the client asked for and did not get

    @classmethod
    async def open(
        cls,
        engine: Engine,
        name: str,
        options: ProxyOptions,
        *,
        examine: Callable[[Inspection], Awaitable[None]],
        closed: Callable[[], Awaitable[None]],
    ) -> Self:
        """Resolve ``name`` and begin to bring its layers in.

        ``examine`` is shown what was resolved before anything is fetched, and may refuse it; ``closed`` is
        called when the store is no longer held for the image. Raises as ``Engine.plan``, and StoreBusy.
        """
        tars = options.identity is Identity.DIFF_ID or isinstance(parse_reference(name), StorageReference)
        form = Form.UNCOMPRESSED if tars else Form.AS_IS
        want = Want(form=form, keep=Keep.NAMED, trust=engine.options.trust)
        found = await engine.inspect(name, want, enforce=True)
        await examine(found)
        plan = found.plan
        named: dict[Digest, LayerPlan] = {}
        for step in plan.layers:  # of layers with one name the first is the one that is brought
            named.setdefault(plan.name_of(step.layer), step)
        order = asking_order([step.layer for step in plan.layers], plan.config)
        steps = {name: named[name] for name in map(plan.name_of, order)}
        has = await _kept_by_client(engine, steps, options)
        async with AsyncExitStack() as stack:
            stack.push_async_callback(closed)
            # Nothing goes out of the store while the image is open.
            ingest = await stack.enter_async_context(engine.ingest(plan))
            queue = await stack.enter_async_context(
                LayerQueue.open(
                    ingest, engine.store, engine.space, steps, client_has=has, ahead=options.ahead
                )
            )
            return cls(engine, found, options, steps, has, queue, stack.pop_all())

    @property
    def plan(self) -> ImagePlan:
        """What the image is, and what was to be brought."""
        return self._plan

    def tally(self, name: str) -> ImageTally:
        """What came of it so far; the client calls it ``name``."""
        error = next(reversed(self._failed.values()), None)
        return ImageTally(name, tuple(self._queue.tally.values()), error)

    async def close(self) -> None:
        """Give up what is under way. Harmless when repeated."""
        await self._stack.aclose()

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
            raise RequestError(f"{digest} is not a blob of {self._plan.reference}")
        if self._plan.want.form is Form.AS_IS:
            _check_size(digest, size, step.layer.size)
        try:
            return await self._open_layer(digest, step, size)
        except LayerteeError as exc:
            self._failed.pop(digest, None)
            self._failed[digest] = exc
            raise

    async def _open_layer(self, digest: Digest, step: LayerPlan, size: int) -> tuple[int, int]:
        brought = await self._queue.get(digest)
        size_now = brought.file.size
        if size_now != brought.held.size:
            path = str(brought.file.path)
            raise StoreCorrupt(f"{path} has changed since it was checked", path=path)
        presented = self._presented_as(step)
        if presented is None or not presented.estimated:
            _check_size(digest, size, size_now)
        self._refuse_members(step, brought)
        fd = brought.file.descriptor()
        self._queue.reads(fd, step.size / max(1, size_now))
        self._failed.pop(digest, None)
        return fd, size_now

    def _refuse_members(self, step: LayerPlan, brought: Brought) -> None:
        """Raise SeveralMembers for a blob of which clients would read the first part and take it for all."""
        if self._plan.want.form is not Form.AS_IS or not isinstance(brought.result, TeeResult):
            return
        if brought.result.compression is Compression.GZIP and brought.result.n_members > 1:
            raise SeveralMembers(step.layer, brought.result.n_members)

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
        if self._plan.want.form is Form.AS_IS:
            self._presented = self._as_named()
            return self._presented
        layers = [step.layer for step in self._plan.layers]
        sizes = await in_thread(self._known_sizes, layers)
        unknown = [
            name
            for name, step in self._steps.items()
            if step.layer.diff_id not in sizes and name not in self._client_has
        ]
        brought = await self._queue.get_all(unknown)
        sizes |= {one.held.diff_id: one.held.size for one in brought.values()}
        self._presented = [
            _as_named(one)
            if one.is_opaque  # what it is as a tar, if it is one, nobody knows
            else Presented(
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
        return [_as_named(step.layer) for step in self._plan.layers]

    def _known_sizes(self, layers: Sequence[Layer]) -> dict[DiffID, int]:
        """Of the tars, where somebody on this machine measured them. Blocks."""
        named = (one for one in layers if one.compression is Compression.NONE or one.is_opaque)
        sizes = {one.diff_id: one.size for one in named}
        for step in self._plan.layers:
            holding = step.holding
            if holding is not None and holding.uncompressed_size is not None:
                sizes.setdefault(step.layer.diff_id, holding.uncompressed_size)
        with suppress(CatalogError):
            sizes |= self._engine.store.catalog.uncompressed_sizes({one.diff_id for one in layers})
        return sizes


async def _kept_by_client(
    engine: Engine, steps: Mapping[Digest, LayerPlan], options: ProxyOptions
) -> frozenset[Digest]:
    """Those of ``steps`` that the client has, as far as its repositories tell."""
    layers = [step.layer for step in steps.values()]
    try:
        kept = await in_thread(kept_by, engine.store, layers, options.client_repos)
    except LayerteeError as exc:  # it only says what need not be fetched ahead
        log.warning("what the client has is not known: %s", exc)
        return frozenset()
    return frozenset(name for name, step in steps.items() if step.layer.diff_id in kept)


def _as_named(layer: Layer) -> Presented:
    # Its type as the image says it, be it wrong, as skopeo's proxy has it: the bytes are the same, too.
    return Presented(layer, layer.digest, layer.size, layer.said)


def _check_size(digest: Digest, asked: int, is_: int) -> None:
    if asked not in (-1, is_):
        raise SizeMismatch(f"{digest} has {is_} bytes, {asked} were asked for", want=asked, got=is_)
