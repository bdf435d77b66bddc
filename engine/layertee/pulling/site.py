"""Where one image may be had: the endpoints that this machine's configuration has for it, each as a registry.

Mirrors in their order, then the origin. They are asked for the image's documents one after the other, until
one has all of them; and for its blobs as transfer/servers.py says, where one that failed is left for the next
in the middle of a blob. A mirror's "not found" is not the image's: the origin has the last word.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from ..aio import unwrapped_group
from ..backoff import LONGEST_WAIT_S, asked_s
from ..errors import LayerteeError, NotInRegistry
from ..image.strictjson import printable
from ..registry.retry import TRIES, retrying
from ..transfer.servers import OpenBlob, Server, Servers, Standing
from .plan import TarAt, largest_read
from .report import Asked

if TYPE_CHECKING:
    from ..config.registries import Endpoint
    from ..image.document import Descriptor, Digest, Layer, Pairing, Platform
    from ..image.resolved import ResolvedImage
    from ..image.whole import Known
    from ..registry.client import Registry
    from ..registry.http import Body
    from ..registry.tags import TagList

log = logging.getLogger(__name__)

# How many layers are asked about at once, and for how long: what is not known then shows when it is fetched.
_N_ASKED: Final = 6
_ASKED_S: Final = 10.0


class Site:
    """The ``endpoints`` of one image. Belongs to one event loop; ``standing`` is that of all images.

    When all have failed, the one that asks for the shortest wait is waited for, ``patience_s`` at most.
    """

    def __init__(
        self,
        endpoints: Sequence[Endpoint],
        open_registry: Callable[[Endpoint], Registry],
        standing: Standing,
        *,
        patience_s: float = LONGEST_WAIT_S,
    ) -> None:
        self._patience_s = patience_s
        self._registries: dict[str, Registry] = {}
        servers: list[Server] = []
        asked: list[Asked] = []
        for endpoint in dict.fromkeys(replace(each, whence=None) for each in endpoints):
            name = endpoint.reference.name
            if name in self._registries:  # a mirror may be the origin itself, asked otherwise
                name = f"{name} ({len(servers) + 1})"
            self._registries[name] = registry = open_registry(endpoint)
            is_origin = not endpoint.is_mirror
            host, tar = endpoint.reference.api_host, registry.tars.size
            servers.append(Server(name, host, _blobs_of(registry), is_origin, tar))
            asked.append(Asked(name, endpoint.is_mirror, endpoint.insecure))
        self.servers = Servers(servers, standing)
        self.asked = tuple(asked)
        self.warnings: list[str] = []
        """What was wrong with endpoints when the image was resolved."""
        self._answered = servers[0]

    async def resolve(
        self, platform: Platform, *, pair: Pairing, blobs: bool = False, whole: Known | None = None
    ) -> ResolvedImage:
        """The image's documents, all from one endpoint; ``whole`` as of ``Registry.resolve``.

        ``blobs``: nothing will do in place of the blobs that the manifest names. The only endpoint of an
        image then does not hear that DiffIDs would do, and may give another manifest, all of which it has. Of
        several, another may have the blobs: the image is to be the same wherever it is from.

        Raises as ``Registry.resolve``: what the origin failed with, unless another's failure may pass.
        """
        if self.servers.is_one:
            return await self._registry(self.servers.in_order[0]).resolve(
                platform, pair=pair, diff_ids=not blobs, whole=whole
            )
        final: dict[str, LayerteeError] = {}
        return await retrying(
            lambda: self._once(platform, pair, whole, final),
            sleep=asyncio.sleep,
            tries=TRIES,
            patience_s=self._patience_s,
        )

    @property
    def answered(self) -> Registry:
        """The endpoint that gave the documents of the image that was resolved last."""
        return self._registry(self._answered)

    async def tags(self) -> tuple[TagList, str]:
        """The tags of the image's repository, and the name of the endpoint that they are of.

        The origin says which there are; a mirror only where the origin cannot be asked. Raises as
        ``list_tags``: what the origin failed with, with notes of the mirrors.
        """
        from ..registry.tags import list_tags

        failed: dict[str, LayerteeError] = {}
        for name, registry in reversed(self._registries.items()):
            try:
                return await list_tags(registry), name
            except LayerteeError as exc:
                if isinstance(exc, NotInRegistry) and not failed:
                    raise
                failed[name] = exc
        (_, stands), *others = failed.items()
        for name, error in others:
            stands.add_note(f"{name}: {error}")
        raise stands

    async def tars(self, layers: Sequence[Layer]) -> dict[Digest, TarAt]:
        """Those of ``layers``, by their blobs, of which the first endpoint that has anything has the tar.

        Only endpoints are asked that have said that they know DiffIDs, and each only while all before it lack
        the layer in both forms. What cannot be found out is left out.
        """
        found: dict[Digest, TarAt] = {}
        silent: set[str] = set()
        todo = list(layers)

        async def work() -> None:
            while todo:
                layer = todo.pop()
                if (tar := await self._tar(layer, silent)) is not None:
                    found[layer.digest] = tar

        if not self._registry(self.servers.in_order[0]).tars.is_known:
            return found
        with suppress(TimeoutError):
            async with asyncio.timeout(_ASKED_S), unwrapped_group() as workers:
                for _ in range(min(_N_ASKED, len(todo))):
                    workers.create_task(work())
        return found

    async def _tar(self, layer: Layer, silent: set[str]) -> TarAt | None:
        """Where ``layer`` is a tar, and no endpoint before that has its blob. ``silent`` are those that did
        not answer.
        """
        for server in self.servers.in_order:
            tars = self._registry(server).tars
            if not tars.is_known or server.name in silent:
                return None  # it may have the blob
            try:
                lacks = await tars.lacks(layer.digest)
                if lacks is None:
                    return None
                size = await tars.size(layer.diff_id, largest_read(layer), lacks.said)
            except LayerteeError as exc:
                log.info("%s could not be asked for %s: %s", server.name, layer.digest, exc)
                silent.add(server.name)
                return None
            except asyncio.CancelledError:  # there is no time left for an answer
                tars.give_up()
                raise
            if size is not None:
                return TarAt(server.name, size, is_alone=self.servers.is_one)
        return None

    async def _once(
        self, platform: Platform, pair: Pairing, whole: Known | None, final: dict[str, LayerteeError]
    ) -> ResolvedImage:
        """One round of all endpoints, but for those that have failed for good."""
        failed: dict[str, LayerteeError] = {}
        for server in self.servers.in_order:
            if server.name in final:
                continue
            try:
                found = await self._registry(server).resolve(platform, pair=pair, tries=1, whole=whole)
                if not server.is_origin:
                    _refuse_other(platform, found, server)
                self._answered = server
                return found
            except LayerteeError as exc:
                failed[server.name] = exc
                self._failed(server, exc)
                if not exc.retryable:
                    final[server.name] = exc
        raise self._stands({**final, **failed})

    def _failed(self, server: Server, error: LayerteeError) -> None:
        self.servers.behind(server)
        if isinstance(error, NotInRegistry):
            log.info("%s does not have the image: %s", server.name, error)
            return
        self.servers.leave(server)
        log.warning("%s: %s", server.name, error)
        if not server.is_origin:
            self.warnings.append(f"mirror {server.name}: {error}")

    def _stands(self, failed: dict[str, LayerteeError]) -> LayerteeError:
        """The error for all of them: what may pass soonest, unless the origin itself does not have it."""
        stands = failed[next(reversed(self._registries))]
        if not isinstance(stands, NotInRegistry):
            may_pass = [error for error in failed.values() if error.retryable]
            stands = min(may_pass, key=asked_s, default=stands)
        for name, error in failed.items():
            if error is not stands:
                stands.add_note(f"{name}: {error}")
        return stands

    def _registry(self, server: Server) -> Registry:
        return self._registries[server.name]


def _refuse_other(platform: Platform, found: ResolvedImage, server: Server) -> None:
    """A mirror that has one image of a list, for hosts of its own kind, does not have it for this one."""
    if found.index is None and platform.contradicts(found.config.platform):
        has = printable(str(found.config.platform))
        raise NotInRegistry(f"{server.name} has the image for {has} only", is_plain=False)


def _blobs_of(registry: Registry) -> OpenBlob:
    async def open_blob(blob: Descriptor, start: int, stop: int | None) -> Body:
        return await registry.open_blob(blob, start, stop)

    return open_blob
