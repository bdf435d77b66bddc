"""Who is asked for a blob: the servers that may have it, in an order that failures change.

Mirrors come first, in the order of their configuration, the origin last. One rule for all failures: the next
request goes to the first server that has not failed for this blob. What a server did decides for how long:

- it does not have the blob, or no range of it: left for this blob only;
- it refuses, does not answer, breaks off without having brought anything, or brings other bytes than the
  blob's: left for this blob, and behind all others for the rest of the run, for all images;
- a connection that broke off after it brought something is resumed where it was;
- "too many" from a server that serves other connections meanwhile means this connection, not the server.

When all servers have failed, that is one failure of the transfer, and the round begins anew: how many rounds
there are is the schedule's to say. Which bytes are right is not decided by who sent them: the digest judges.
"""

from __future__ import annotations

import asyncio
import logging
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from ..errors import LayerteeError, NotInRegistry, RangeMismatch, SizeMismatch, Timeout, TruncatedBody

if TYPE_CHECKING:
    from ..image.document import Descriptor, Digest
    from .segment import Body

log = logging.getLogger(__name__)


class OpenBlob(Protocol):
    """One request for ``[start, stop)`` of a blob; ``(0, None)`` asks for all of it, without a range."""

    async def __call__(self, blob: Descriptor, start: int, stop: int | None) -> Body:
        """The body, which the caller closes. Raises RegistryError, TransportError and their subclasses."""


@dataclass(slots=True, eq=False)
class Server:
    """One of the servers that an image's blobs may be asked for.

    ``name`` is for people, reports included; ``host`` is what fails together with it. ``n_bodies`` of its
    answers are arriving; ``pending`` are requests that have no answer yet.
    """

    name: str
    host: str
    open_blob: OpenBlob
    is_origin: bool = True
    n_bodies: int = 0
    pending: set[asyncio.Task[Body]] = field(default_factory=set)

    async def ask(self, blob: Descriptor, start: int, stop: int | None) -> Body:
        """As ``open_blob``, but given up with a Timeout once the server is left: what it has not answered to
        others, it need not be waited for here.
        """
        task = asyncio.ensure_future(self.open_blob(blob, start, stop))
        self.pending.add(task)
        try:
            return await task
        except asyncio.CancelledError:
            this = asyncio.current_task()
            if this is not None and this.cancelling():
                raise
            raise Timeout(f"{self.name} has failed others, and is not waited for") from None
        finally:
            self.pending.discard(task)

    @contextmanager
    def arriving(self) -> Iterator[None]:
        """While a body arrives: its connection is one that the server does serve."""
        self.n_bodies += 1
        try:
            yield
        finally:
            self.n_bodies -= 1


class Standing:
    """Which hosts have failed in this run, for all images: the later a host failed, the later it is asked."""

    def __init__(self) -> None:
        self._failed: dict[str, int] = {}
        self._n = 0

    def leave(self, host: str) -> None:
        """``host`` goes behind all others."""
        self._n += 1
        self._failed[host] = self._n

    def rank(self, host: str) -> int:
        """0 for a host that has not failed; else the greater, the later it failed."""
        return self._failed.get(host, 0)


class Servers:
    """The servers of one image, the origin last. Belongs to one event loop; any number of transfers."""

    def __init__(self, servers: Sequence[Server], standing: Standing | None = None) -> None:
        if not servers:
            raise ValueError("an image has at least one server")
        self._servers = tuple(servers)
        self._standing = standing or Standing()
        self._behind: set[str] = set()  # names of those that do not have the image
        self._failed: dict[Digest, dict[str, LayerteeError]] = defaultdict(dict)  # in this round, by name
        self._wrong: dict[Digest, set[str]] = defaultdict(set)

    @property
    def in_order(self) -> tuple[Server, ...]:
        """As they would be asked now."""
        return tuple(sorted(self._servers, key=self._place))

    @property
    def is_one(self) -> bool:
        """There is nothing to choose."""
        return len(self._servers) == 1

    def behind(self, server: Server) -> None:
        """``server`` does not have the image as the others do: ask it last, for this image."""
        self._behind.add(server.name)

    def leave(self, server: Server) -> None:
        """``server`` failed, whatever it was asked for: ask it last, for all images."""
        self._standing.leave(server.host)
        for task in server.pending:
            task.cancel()

    # --- one blob ---

    def pick(self, blob: Digest) -> Server:
        """Where the next request for ``blob`` goes."""
        if self.is_one:
            return self._servers[0]
        return next(self._left_for(blob), self.in_order[0])

    def has_other(self, server: Server, blob: Digest) -> bool:
        """Whether ``blob`` might as well be asked for elsewhere than at ``server``."""
        return any(other is not server for other in self._left_for(blob))

    def failed(
        self, server: Server, blob: Digest, error: LayerteeError, *, progressed: bool
    ) -> LayerteeError | None:
        """A request for ``blob``, or the body of its answer, ended in ``error``; ``progressed``: bytes came.

        None: ``pick`` has another server, which may be asked at once. Otherwise the error that the
        transfer has failed with for now: this one, or of a round of all servers one that may pass, else
        the origin's.
        """
        if self.is_one:
            return error
        from .schedule import too_many  # when a blob is being fetched

        if (isinstance(error, TruncatedBody) and progressed) or (too_many(error) and server.n_bodies):
            return error
        if not isinstance(error, NotInRegistry | RangeMismatch | SizeMismatch):
            self.leave(server)
        round_of = self._failed[blob]
        round_of[server.name] = error
        if next(self._left_for(blob), None) is not None:
            return None
        del self._failed[blob]
        origin = round_of.get(self._servers[-1].name, error)
        stands = next((each for each in round_of.values() if each.retryable), origin)
        for name, each in round_of.items():
            if each is not stands:
                stands.add_note(f"{name}: {each}")
        return stands

    def wrong(self, blob: Digest, names: Iterable[str]) -> bool:
        """What the servers ``names`` sent was put together, and is not ``blob``. True: others may have it.

        Of several, the origin is the one that is believed until it has sent all of it alone. Where nobody has
        sent a byte, all have been asked already, by ``failed``.
        """
        sent = [server for server in self._servers if server.name in set(names)]
        if not sent:
            return False
        blamed = [server for server in sent if not server.is_origin] if len(sent) > 1 else sent
        for server in blamed:
            self.leave(server)
            self._wrong[blob].add(server.name)
        self._failed.pop(blob, None)
        return next(self._left_for(blob), None) is not None

    # --- inside ---

    def _left_for(self, blob: Digest) -> Iterator[Server]:
        failed, wrong = self._failed.get(blob, {}), self._wrong.get(blob, set())
        return (each for each in self.in_order if each.name not in failed and each.name not in wrong)

    def _place(self, server: Server) -> tuple[int, bool, int]:
        return self._standing.rank(server.host), server.name in self._behind, self._servers.index(server)
