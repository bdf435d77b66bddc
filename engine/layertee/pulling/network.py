"""The network side of an engine: one transport, the registries spoken to, and what was learned of each."""

from __future__ import annotations

from ..config.certs import find_cert_dir
from ..config.logins import Credentials
from ..core.pool import Pool
from ..image.document import Descriptor
from ..image.reference import Reference
from ..options import Options
from ..registry.client import Registry
from ..registry.http import Body, TLSPolicy, Transport
from ..transfer.connections import Connections
from ..transfer.fetcher import Fetcher, OpenBlob
from ..version import __version__


class Network:
    """Opened when it is first needed. Belongs to one event loop; ``close`` it.

    Registries are kept by repository, with their tokens, so that the blobs of a plan are asked for where the
    plan says, whichever engine made it and whatever other images this one has open.
    """

    def __init__(self, options: Options) -> None:
        self._options = options
        self._credentials = (
            Credentials.no_credentials()
            if options.anonymous
            else Credentials(options.authfile, trusted_realms=options.trusted_realms)
        )
        self._transport: Transport | None = None
        self._registries: dict[str, Registry] = {}
        self._hosts: dict[str, Connections] = {}

    def registry(self, image: Reference) -> Registry:
        """The registry of ``image``, for requests about that image."""
        options = self._options
        return Registry(
            self._opened(),
            image,
            self._credentials,
            tls=TLSPolicy(
                verify=options.tls_verify, cert_dir=options.cert_dir or find_cert_dir(image.registry)
            ),
            allow_http=not options.tls_verify,
        )

    def keep(self, image: Reference, registry: Registry) -> None:
        """Ask ``registry``, which has resolved ``image``, for the blobs of its repository from now on."""
        self._registries[image.name] = registry

    def open_blob(self, image: Reference) -> OpenBlob:
        """How to request a blob from the repository of ``image``."""
        registry = self._registries.get(image.name)
        if registry is None:
            registry = self._registries[image.name] = self.registry(image)

        async def open_blob(blob: Descriptor, start: int, stop: int | None) -> Body:
            return await registry.open_blob(blob, start, stop)

        return open_blob

    def fetcher(self, image: Reference | None, pool: Pool) -> Fetcher:
        """Transfers into ``pool`` from the host of ``image``, counted together with others from there."""
        limits = self._options.limits
        host = image.api_host if image is not None else ""
        return Fetcher(pool, limits, self._hosts.setdefault(host, Connections(limits)))

    async def close(self) -> None:
        """Close all connections."""
        if self._transport is not None:
            await self._transport.close()

    def _opened(self) -> Transport:
        if self._transport is None:
            prefix = self._options.user_agent_prefix
            agent = f"{prefix} layertee/{__version__}" if prefix else f"layertee/{__version__}"
            self._transport = Transport(user_agent=agent, answer_s=self._options.limits.stall_s)
        return self._transport
