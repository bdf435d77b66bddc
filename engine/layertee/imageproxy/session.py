"""What one client may open: the policy first, then the image, here or at the real skopeo."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, Final, Self

from ..aio import in_thread
from ..errors import InvalidReference, LayerteeError, PolicyRefused
from ..image.reference import ARCHIVE
from ..image.reference_storage import TRANSPORT as STORAGE
from ..store.cache import CacheLimit, keep_within, make_room
from .delegate import DelegatedImage, DelegateError, Forwarded, RealProxy
from .images import ProxyOptions, ServedImage
from .judge import taken_as
from .server import IDENTITY_METHOD, Answer, Image, Pipe
from .tally import ImageTally
from .wire import RequestError

if TYPE_CHECKING:
    from ..engine import Engine, Inspection
    from ..image.document import Digest
    from ..pulling.imageplan import ImagePlan

log = logging.getLogger(__name__)

# Transports of containers-transports(5) whose images are served here.
SERVED: Final = ("docker", "oci", ARCHIVE, STORAGE)


class Session:
    """Opens images for one client; ``close`` it when all of them are closed.

    ``real``: the real skopeo's proxy, for what is not served here; None where there is none. ``everything``:
    leave every image to it. ``tallied`` is told what came of each image that is served here, once it is
    closed or could not be opened.
    """

    def __init__(
        self,
        engine: Engine,
        options: ProxyOptions,
        limit: CacheLimit,
        real: RealProxy | None,
        *,
        everything: bool = False,
        tallied: Callable[[ImageTally], None] = lambda tally: None,
    ) -> None:
        self._tallied = tallied
        self._engine = engine
        self._options = options
        self._limit = limit
        self._real = real
        self._everything = everything

    async def open_image(self, name: str) -> Image:
        """``name`` is as in containers-transports(5). Raises PolicyRefused, InvalidReference, DelegateError
        and as ``ServedImage.open``.
        """
        transport, colon, _ = name.partition(":")
        if not colon or not transport:
            raise InvalidReference(f"{name!r:.200} is not TRANSPORT:IMAGE, like docker://host/name:tag")
        if transport in SERVED and not self._everything:
            try:
                return await self._open_here(name)
            except LayerteeError as exc:
                self._tallied(ImageTally(name, error=exc))
                raise
        if self._real is None:
            raise InvalidReference(
                f"{name!r:.200}: {transport}: is not served here ({', '.join(SERVED)} are), and there is no"
                " skopeo on this machine to leave it to"
            )
        taken = await taken_as(name, self._engine, readable=transport in SERVED)
        if not self._real.alive:
            await self._real.close()
            self._real = self._real.again()
        with _in_its_words():
            return await LeftToSkopeo.open(self._real, name, taken)

    async def close(self) -> None:
        if self._real is not None:
            await self._real.close()

    async def _open_here(self, name: str) -> Image:
        async def examine(found: Inspection) -> None:
            if (gap := opaque_layers(found.plan)) is not None:
                log.warning("%s: %s", name, gap)
            for warning in found.plan.warnings:
                log.warning("%s: %s", name, warning)
            need = sum(step.disk_bytes for step in found.plan.layers)
            keep = {found.plan.name_of(step.layer) for step in found.plan.layers}
            await in_thread(make_room, self._engine.store, self._engine.space, need, keep)

        opened: list[ServedImage] = []

        async def closed() -> None:
            for one in opened:
                self._tallied(one.tally(name))
            await in_thread(keep_within, self._engine.store, self._limit)

        image = await ServedImage.open(self._engine, name, self._options, examine=examine, closed=closed)
        try:
            for warning in await self._engine.remember(image.plan):
                log.warning("%s: %s", name, warning)
        except BaseException:  # cancelled: nobody else will close it
            await image.close()
            raise
        opened.append(image)
        return image


def opaque_layers(plan: ImagePlan) -> str | None:
    """What to say about layers whose content the image does not name; None if there are none."""
    opaque = [str(step.layer.index) for step in plan.layers if step.layer.is_opaque]
    if not opaque:
        return None
    n_layers, n_ids = len(plan.layers), len(plan.config.diff_ids)
    why = (
        f"its config has {n_ids} DiffIDs for {n_layers} layers"
        if n_ids != n_layers
        else "its config gives no usable DiffID for them"
    )
    which = "all layers" if len(opaque) == n_layers else f"layers {', '.join(opaque)}"
    return f"{which} are checked by the digests of their blobs only: {why}"


class LeftToSkopeo:
    """An image that the real skopeo serves: requests and replies are handed on."""

    def __init__(self, image: DelegatedImage, taken: Digest | None) -> None:
        self._image = image
        self._taken = taken

    @classmethod
    async def open(cls, real: RealProxy, name: str, taken: Digest | None) -> Self:
        """``taken``: the manifest that the policy takes; None if it takes any."""
        image = cls(await DelegatedImage.open(real, name), taken)
        if taken is not None:
            try:
                await image.check()
            except BaseException:
                await image.close()
                raise
        return image

    async def check(self) -> None:
        """Raise PolicyRefused unless skopeo has the manifest that was taken."""
        await _drop(await self.manifest())

    async def manifest(self) -> Answer:
        answer = await self._forward("GetManifest")
        if self._taken is not None and answer.value != self._taken:
            await _drop(answer)
            raise PolicyRefused(
                f"the image was checked as {self._taken}, and skopeo has {answer.value!r:.100} there: it has"
                " changed meanwhile"
            )
        return answer

    async def config(self) -> Answer:
        return await self._forward("GetConfig")

    async def full_config(self) -> Answer:
        return await self._forward("GetFullConfig")

    async def blob(self, digest: str, size: int) -> Answer:
        return await self._forward("GetBlob", digest, size)

    async def raw_blob(self, digest: str) -> Answer:
        return await self._forward("GetRawBlob", digest)

    async def layer_info(self) -> Answer:
        return await self._forward("GetLayerInfo")

    async def layer_info_piped(self) -> Answer:
        return await self._forward("GetLayerInfoPiped")

    async def layer_identity(self) -> Answer:
        raise RequestError(f"{IDENTITY_METHOD} is not for images that are left to skopeo")

    async def close(self) -> None:
        await self._image.close()

    async def _forward(self, method: str, *args: Any) -> Answer:
        with _in_its_words():
            got: Forwarded = await self._image.forward(method, *args)
        if not got.pipe_id:
            return Answer(got.value, fds=got.fds)

        async def finish() -> None:
            with _in_its_words():
                await self._image.finish(got.pipe_id)

        return Answer(got.value, Pipe(got.fds[0], finish))


async def _drop(answer: Answer) -> None:
    """Of an answer of skopeo's, what comes through the pipe is not wanted. That skopeo says so is no error.

    Its end is closed when it was asked to finish, and not before: who waited for that first would wait for
    ever.
    """
    if answer.pipe is None:
        return
    os.close(answer.pipe.fd)
    if answer.pipe.finish is not None:
        with suppress(RequestError):
            await answer.pipe.finish()


@contextmanager
def _in_its_words() -> Iterator[None]:
    """What the real skopeo refuses is refused in its words: clients know some of them, by how they end."""
    try:
        yield
    except DelegateError as exc:
        if not exc.error_code:
            raise
        raise RequestError(str(exc), exc.error_code) from exc
