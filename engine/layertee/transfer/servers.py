"""Who is asked for a blob: the servers that may have it, in an order that failures change.

Mirrors come first, in the order of their configuration, the origin last. One rule for all failures: the next
request goes to the first server that has not failed for this blob. What a server did decides for how long:

- it does not have the blob, or no range of it: left for this blob only;
- it refuses, does not answer, breaks off without having brought anything, or brings other bytes than the
  blob's: left for this blob, and behind all others for the rest of the run, for all images;
- a connection that broke off after it brought something is resumed where it was;
- "too many" from a server that serves other connections meanwhile means this connection, not the server,
  unless it asks for more patience than another server would cost.

When all servers have failed, that is one failure of the transfer, and the round begins anew: how many rounds
there are is the schedule's to say. Which bytes are right is not decided by who sent them: the digest judges.
"""

from __future__ import annotations

import asyncio
import logging
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final, Protocol

from ..backoff import asked_s
from ..errors import (
    LayerteeError,
    NotInRegistry,
    RangeMismatch,
    SizeMismatch,
    Timeout,
    TruncatedBody,
)

if TYPE_CHECKING:
    from ..image.document import Descriptor, DiffID, Digest
    from .segment import Body

log = logging.getLogger(__name__)


# What a server that serves other connections may ask for, where others may be asked.
PATIENCE_S: Final = 10.0


class OpenBlob(Protocol):
    """One request for ``[start, stop)`` of a blob; ``(0, None)`` asks for all of it, without a range."""

    async def __call__(self, blob: Descriptor, start: int, stop: int | None) -> Body:
        """The body, which the caller closes. Raises RegistryError, TransportError and their subclasses."""


class FindTar(Protocol):
    """Asks one server whether it has a layer as a tar whose blob it lacks. Asked for each once."""

    async def __call__(
        self, diff_id: DiffID, limit: int, said: str | None = None, *, tries: int = 1
    ) -> int | None:
        """The bytes of it, which are at most ``limit``; None: it has not, as far as is known. ``said`` is
        what the server has said is in the blob. Between two ``tries`` it may ask for patience. Raises no
        LayerteeError.
        """


@dataclass(slots=True)
class Sought:
    """What may come in place of a blob: the tar that is in it, of at most ``limit`` bytes, as the image's
    config names it. ``not_at`` are the names of servers that were tried, in vain.
    """

    diff_id: DiffID
    limit: int
    not_at: set[str] = field(default_factory=set)


class TarInstead(Exception):
    """The server ``name`` lacks the blob and has its tar, of ``size`` bytes: fetch that, in its place."""

    def __init__(self, name: str, size: int) -> None:
        super().__init__(f"{name} lacks the blob and has its tar of {size} bytes")
        self.name = name
        self.size = size


@dataclass(slots=True, eq=False)
class Traffic:
    """What goes on at a server: ``n_bodies`` of its answers are arriving; ``pending`` are requests that have
    no answer yet.
    """

    n_bodies: int = 0
    pending: set[asyncio.Task[Body]] = field(default_factory=set)


@dataclass(slots=True, eq=False)
class Server:
    """One of the servers that an image's blobs may be asked for.

    ``name`` is for people, reports included; ``host`` is what fails together with it. ``traffic`` is shared
    by all that stand for the same one.
    """

    name: str
    host: str
    open_blob: OpenBlob
    is_origin: bool = True
    find_tar: FindTar | None = None
    traffic: Traffic = field(default_factory=Traffic)

    async def ask(self, blob: Descriptor, start: int, stop: int | None) -> Body:
        """As ``open_blob``, but given up with a Timeout once the server is left: what it has not answered to
        others, it need not be waited for here.
        """
        task = asyncio.ensure_future(self.open_blob(blob, start, stop))
        self.traffic.pending.add(task)
        try:
            return await task
        except asyncio.CancelledError:
            this = asyncio.current_task()
            if this is not None and this.cancelling():
                raise
            raise Timeout(f"{self.name} has failed others, and is not waited for") from None
        finally:
            self.traffic.pending.discard(task)

    @contextmanager
    def arriving(self) -> Iterator[None]:
        """While a body arrives: its connection is one that the server does serve."""
        self.traffic.n_bodies += 1
        try:
            yield
        finally:
            self.traffic.n_bodies -= 1


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
    """The servers of one image, the origin last. Belongs to one event loop; any number of transfers.

    ``may_give_up``: what they fail to give may be had otherwise, so a round of them is enough.
    """

    def __init__(
        self, servers: Sequence[Server], standing: Standing | None = None, *, may_give_up: bool = False
    ) -> None:
        if not servers:
            raise ValueError("an image has at least one server")
        self._servers = tuple(servers)
        self._standing = standing or Standing()
        self._may_give_up = may_give_up
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

    def with_tar(self, tar: Sought, size: int) -> Servers | None:
        """Who may be asked for ``tar``, if it has ``size`` bytes there: asked in the same order, each for
        whether it has it first, unless that is known. None if there is nobody.

        What one fails with is held against it here, too.
        """
        found = [
            replace(each, open_blob=_once_found(each, each.find_tar, tar, size), find_tar=None)
            for each in self._servers
            if each.find_tar is not None and each.name not in tar.not_at
        ]
        if not found:
            return None
        servers = Servers(found, self._standing, may_give_up=not self.is_one)
        servers._behind = self._behind
        return servers

    def behind(self, server: Server) -> None:
        """``server`` does not have the image as the others do: ask it last, for this image."""
        self._behind.add(server.name)

    def leave(self, server: Server) -> None:
        """``server`` failed, whatever it was asked for: ask it last, for all images."""
        self._standing.leave(server.host)
        for task in server.traffic.pending:
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

    def may_ask_other(self, server: Server, blob: Digest) -> bool:
        """Whether ``server`` need not be waited for: another may have ``blob``, or something in its place."""
        return self._may_give_up or self.has_other(server, blob)

    def failed(
        self, server: Server, blob: Digest, error: LayerteeError, *, progressed: bool
    ) -> LayerteeError | None:
        """A request for ``blob``, or the body of its answer, ended in ``error``; ``progressed``: bytes came.

        None: ``pick`` has another server, which may be asked at once. Otherwise the error that the
        transfer has failed with for now: this one, or of a round of all servers the one that may pass
        soonest, else the origin's. Where a round is enough, it is raised.
        """
        if self.is_one and not self._may_give_up:
            return error
        from .schedule import too_many  # when a blob is being fetched

        waits = too_many(error) and server.traffic.n_bodies and asked_s(error) <= PATIENCE_S
        if (isinstance(error, TruncatedBody) and progressed) or waits:
            return error
        if not isinstance(error, NotInRegistry | RangeMismatch | SizeMismatch):
            self.leave(server)
        round_of = self._failed[blob]
        round_of[server.name] = error
        if next(self._left_for(blob), None) is not None:
            return None
        del self._failed[blob]
        origin = round_of.get(self._servers[-1].name, error)
        may_pass = [each for each in round_of.values() if each.retryable]
        stands = min(may_pass, key=asked_s, default=origin)
        for name, each in round_of.items():
            if each is not stands:
                stands.add_note(f"{name}: {each}")
        if self._may_give_up:
            raise stands
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


def _once_found(server: Server, find_tar: FindTar, tar: Sought, size: int) -> OpenBlob:
    """Opens the tar at ``server``, which is asked first whether it has it. Raises NotInRegistry else."""

    async def open_tar(blob: Descriptor, start: int, stop: int | None) -> Body:
        found = await find_tar(tar.diff_id, tar.limit)
        if found != size:
            is_ = "not there" if found is None else f"of {found} bytes there"
            raise NotInRegistry(f"the tar {tar.diff_id} is {is_}, at {server.name}")
        return await server.open_blob(blob, start, stop)

    return open_tar
