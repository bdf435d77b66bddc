"""The network side of an engine: a transport, where images may be had, what was learned of each host.

The HTTP library is imported with the first registry that is asked: an image of this machine needs none.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from ..aio import in_thread
from ..config.certs import find_cert_dir
from ..config.registries import AUTH_FILES, Endpoint, Registries
from ..errors import RegistryBlocked
from ..image.reference import Reference
from ..registry.client import Registry
from ..registry.first_import import import_aiohttp
from ..transfer.servers import Servers, Standing
from ..version import __version__
from .access import credentials_of
from .site import Site

if TYPE_CHECKING:
    from ..config.logins import Credentials
    from ..core.pool import Pool
    from ..image.resolved import ResolvedImage
    from ..options import Options
    from ..registry.http import Transport
    from ..store.beside import BesideDocument
    from ..transfer.connections import Connections
    from ..transfer.fetcher import Fetcher


class Network:
    """Opened when it is first needed. Belongs to one event loop; ``close`` it.

    The sites of images are kept, with their tokens, so that the blobs of a plan are asked for where the
    plan says, whichever engine made it and whatever other images this one has open.
    """

    def __init__(self, options: Options) -> None:
        self._options = options
        self._reading = asyncio.Lock()
        self._configured: Registries | None = None
        self._credentials: Credentials | None = None
        self._transport: Transport | None = None
        self._sites: dict[str, Site] = {}
        self._standing = Standing()
        self._hosts: dict[str, Connections] = {}

    async def site(self, image: Reference) -> Site:
        """Where ``image`` may be had. Raises RegistryBlocked, RegistriesConfError."""
        site = self._sites.get(str(image))
        if site is None:
            configured = await self.registries()
            patience_s = self._options.limits.patience_s
            opened = Site(configured.endpoints(image), self._registry, self._standing, patience_s=patience_s)
            site = self._sites.setdefault(str(image), opened)
        return site

    @property
    def transport(self) -> Transport:
        """For what is neither an image nor a blob. Closed with the rest."""
        return self._opened()

    async def registries(self) -> Registries:
        """What registries.conf and its like say, read once. Raises RegistriesConfError."""
        async with self._reading:
            if self._configured is None:
                path = self._options.registries_conf
                self._configured = await in_thread(lambda: Registries.read(path=path))
            return self._configured

    async def servers(self, image: Reference) -> Servers:
        """Who may be asked for the blobs of ``image``. Raises as ``site``."""
        return (await self.site(image)).servers

    async def beside(
        self, image: Reference | None, found: ResolvedImage
    ) -> tuple[BesideDocument, ...] | None:
        """What the endpoint that gave ``found`` has beside it; None for an image that no registry gave, and
        where signatures are not to be kept. Raises as ``site`` and ``collect``.
        """
        if image is None or not self._options.keep_signatures:
            return None
        from .beside import collect

        return await collect((await self.site(image)).answered, found)

    async def fetcher(self, image: Reference | None, pool: Pool) -> Fetcher:
        """Transfers into ``pool`` from where ``image`` may be had, counted with others from there."""
        from ..transfer.connections import Connections
        from ..transfer.fetcher import Fetcher

        limits = self._options.limits
        host = (await self.servers(image)).in_order[0].host if image is not None else ""
        return Fetcher(pool, limits, self._hosts.setdefault(host, Connections(limits)))

    async def close(self) -> None:
        """Close all connections."""
        if self._transport is not None:
            await self._transport.close()

    async def registry_of(self, host: str, credentials: Credentials) -> Registry:
        """The registry ``host`` itself, whatever mirrors it has, and no repository of it.

        Raises RegistryBlocked, RegistriesConfError.
        """
        section = (await self.registries()).section(host)
        if section is not None and section.blocked:
            raise RegistryBlocked(f"{host} is blocked by the administrator ({section.whence})")
        insecure = section is not None and section.primary.insecure
        return self._registry(Endpoint(Reference(host, "", None, None), insecure), credentials)

    def _registry(self, endpoint: Endpoint, credentials: Credentials | None = None) -> Registry:
        """With logins, certificates and a scheme of its own, unless the options name them for all."""
        import_aiohttp()
        from ..registry.http import TLSPolicy

        options, image = self._options, endpoint.reference
        verify = options.tls_verify if options.tls_verify is not None else not endpoint.insecure
        return Registry(
            self._opened(),
            image,
            credentials or self._logins(),
            tls=(
                TLSPolicy(verify=verify, cert_dir=options.cert_dir or find_cert_dir(image.registry))
                if options.ssl_context is None
                else TLSPolicy(verify=verify, context=options.ssl_context)
            ),
            allow_http=not verify,
            namespace=endpoint.namespace,
            is_blocked=self._is_blocked,
            patience_s=options.limits.patience_s,
        )

    def _is_blocked(self, host: str) -> bool:
        """Whether the administrator has blocked ``host[:port]``, wherever its name comes from."""
        section = self._configured.section(host) if self._configured is not None else None
        return section is not None and section.blocked

    def _logins(self) -> Credentials:
        if self._credentials is None:
            helpers = self._configured.credential_helpers if self._configured else (AUTH_FILES,)
            self._credentials = credentials_of(self._options, helpers)
        return self._credentials

    def _opened(self) -> Transport:
        if self._transport is None:
            import_aiohttp()
            from ..registry.http import Transport

            prefix = self._options.user_agent_prefix
            agent = f"{prefix} layertee/{__version__}" if prefix else f"layertee/{__version__}"
            self._transport = Transport(user_agent=agent, answer_s=self._options.limits.stall_s)
        return self._transport
