"""Blobs from a registry into a pool: which connection brings which bytes.

Each blob is a transfer, and begins as one GET, a few at once. (Ranges from the start would hurt: a
registry may spend milliseconds of CPU on each, and a cold pull-through cache fetches the whole blob
for each.) When more connections are worth having, which connections.py decides, each new
one goes to a blob that waits for its first, else to the transfer that would be the last to end, for
one range; then the next goes where it is needed then.

A server need not say that it has ranges (RFC 9110 §14.3), but those that are hurt by them do not: a
pull-through cache that has not got the blob yet sends what it receives, all of it, and would ask its
upstream for the blob once more. A resumed blob is asked for by range in any case.

What is decided without I/O is decided in schedule.py; sockets and tasks are here.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from urllib.parse import urlsplit

from ..backoff import tell_wait
from ..core.pool import Pool, PoolLayer
from ..errors import LayerteeError, NotInRegistry, RangeMismatch, RateLimited
from ..image.document import Descriptor
from .connections import TICK_S, Connections
from .limits import FetchLimits, RangeMode
from .ranges import ByteRange, check_answer, offers_ranges
from .schedule import MIN_PROGRESS, BlobSchedule, Part, Take, Then, Wait, too_many
from .segment import Body, Buffers, FetchReport, Intake, Segment
from .servers import PATIENCE_S, Server, Servers, Sought, TarInstead

__all__ = ["FetchReport", "Fetcher"]

log = logging.getLogger(__name__)

# A connection that is cut short is closed; before another is opened in its place, the server must have
# seen that, or it counts one too many.
CLOSING_S = 0.05
# For whether there is a tar, where nobody else may have the blob.
_TRIES = 2
# How long a server is not probed again, after a 200 to a range and after a probe that failed.
RANGELESS_S, PROBE_AGAIN_S = 600.0, 60.0


# A watch that comes so late was stopped, or the whole machine was.
STOOD_STILL_S = 2.0


class Fetcher:
    """All transfers from a registry and its mirrors into one pool: their connections, rate and memory.

    :meth:`fetch` may run many times at once, while :meth:`watch` runs beside it. ``connections`` is shared
    by all fetchers of a registry, at the same time and one after the other; None is a registry of its own.
    """

    def __init__(
        self, pool: Pool, limits: FetchLimits | None = None, connections: Connections | None = None
    ) -> None:
        self._limits = limits or FetchLimits()
        self._pool = pool
        self._connections = connections or Connections(self._limits)
        self._buffers = Buffers(pool, self._limits)
        self._transfers: list[_Transfer] = []
        self._nbytes_told = self._n_held_told = 0  # as of the last tick

    @property
    def nbytes(self) -> int:
        """Body bytes received so far, dropped and repeated ones included."""
        return self._buffers.nbytes

    async def fetch(
        self,
        blob: Descriptor,
        servers: Servers,
        layer: PoolLayer,
        *,
        start: int = 0,
        single_stream: bool = False,
        progress: Callable[[int], None] | None = None,
        report: FetchReport | None = None,
        pace: Callable[[], float] | None = None,
        behind: Callable[[], float] | None = None,
        tar: Sought | None = None,
    ) -> FetchReport:
        """Bring ``blob``, from byte ``start`` on, from ``servers`` to ``layer`` and end it. Raises what the
        last attempt failed with: RegistryError, TransportError or SizeMismatch.

        ``single_stream`` fetches over one connection, and in one request unless it breaks off. ``progress``
        is called with the number of new bytes of the blob; ``report`` is kept up to date and returned.
        ``pace`` is asked after every read how many seconds to wait before the next, and again after
        those; 0 goes on. ``behind`` is asked the same of what this machine has yet to do with what has come.
        The ``layer`` has the bytes before ``start`` already. When the layer itself fails, the transfer stops
        and returns: the layer's result tells why. That the bytes are the blob's is for the layer to judge.
        ``tar`` may come in place of the blob: then TarInstead is raised where a server lacks the blob and has
        that, unless most of the blob is here and another server may have the rest.
        """
        await self._connections.take()
        report = report if report is not None else FetchReport()
        intake = Intake(blob.digest, self._buffers, layer, report, progress, pace, behind, start)
        self._buffers.n_blobs += 1
        schedule = BlobSchedule(
            blob.size,
            self._limits,
            unit=self._pool.in_nbytes,
            wide=self._is_wide(servers.pick(blob.digest)),
            may_split=not single_stream,
            start=start,
        )
        transfer = _Transfer(blob, servers, schedule, intake, self._connections, self._fill, tar)
        self._transfers.append(transfer)
        try:
            await transfer.run()
        finally:
            self._transfers.remove(transfer)
            self._buffers.n_blobs -= 1
            self._connections.give()
        return report

    async def watch(self) -> None:
        """Runs until cancelled, beside every :meth:`fetch`: stalls are found here, helpers called."""
        loop = asyncio.get_running_loop()
        self._pool.on_free(self._buffers.on_free)
        last = loop.time()
        try:
            while True:
                await asyncio.sleep(TICK_S)
                now = loop.time()
                # After this process stood still, what came meanwhile is still to be read.
                stood_still, last = now - last > STOOD_STILL_S, now
                for transfer in self._transfers:
                    transfer.check_stalls(now, self._limits, anew=stood_still)
                self._tick(now)
                self._fill()
        finally:
            self._pool.off_free(self._buffers.on_free)

    def _is_wide(self, server: Server) -> bool:
        """Whether the blob that begins now will get help: a whole GET would be cut, its connection lost."""
        connections = self._connections
        ranged = connections.is_ranged(server.host)
        if self._limits.ranges is RangeMode.ALWAYS:
            return ranged is not False
        return ranged is True and not connections.is_enough_for(self._buffers.n_blobs)

    def _tick(self, now: float) -> None:
        buffers = self._buffers
        held = buffers.n_held != self._n_held_told or any(transfer.is_held for transfer in self._transfers)
        self._connections.tick(
            now,
            nbytes=buffers.nbytes - self._nbytes_told,
            n_queued=self._pool.stats().in_queued,
            held=held,
            room=any(transfer.can_widen(now) for transfer in self._transfers),
        )
        self._nbytes_told, self._n_held_told = buffers.nbytes, buffers.n_held

    def _fill(self) -> None:
        """Open the connections that are wanted and that there are ranges for."""
        now = asyncio.get_running_loop().time()
        while self._connections.wants_more:
            able = [transfer for transfer in self._transfers if transfer.can_widen(now)]
            if not able or not self._connections.take_now():
                return
            max(able, key=lambda transfer: transfer.nbytes_left / transfer.n_workers).widen()


class _Transfer:
    """One blob under way: the tasks that do what its schedule says, each over one connection at a time.

    One connection was taken for it; for each that :meth:`widen` finds taken, it gives one back. ``changed``
    is called when another connection may have become useful, or free.
    """

    def __init__(
        self,
        blob: Descriptor,
        servers: Servers,
        schedule: BlobSchedule,
        intake: Intake,
        connections: Connections,
        changed: Callable[[], None],
        tar: Sought | None,
    ) -> None:
        self._tar = tar
        self._tar_instead: TarInstead | None = None  # if nothing else is left
        self._blob = blob
        self._servers = servers
        self._schedule = schedule
        self._intake = intake
        self._connections = connections
        self._changed = changed
        self._group = asyncio.TaskGroup()
        self._helpers: set[asyncio.Task[None]] = set()
        self._netloc = ""  # of the last answer

    async def run(self) -> None:
        """Bring all of it, unless the layer refuses it, and end the layer. Raises as ``Fetcher.fetch``."""
        schedule, intake = self._schedule, self._intake
        part = None if schedule.is_over else schedule.begin()
        try:
            while part is not None:
                restart = await self._run_from(part)
                intake.drop_ahead()
                part = schedule.restart(intake.next_byte) if restart else None
        finally:
            schedule.give_up()
            intake.drop_ahead()
        intake.layer.end()

    async def _run_from(self, part: Part) -> bool:
        """Until nothing is in hand any more. True: it is to be begun again, as one stream."""
        self._group = asyncio.TaskGroup()
        failed: BaseException | None = None
        try:
            async with self._group:
                self._group.create_task(self._lead(part))
        except BaseExceptionGroup as group:
            # What is final comes first: a connection may have failed for good while another started over.
            failed = min(group.exceptions, key=lambda exc: isinstance(exc, _StartOver))
        if failed is None:
            return False
        if isinstance(failed, _StartOver):
            log.info("%s: %s; once more, as one stream", self._blob.digest, failed)
            return True
        raise failed  # out of the handler: its own cause and context stay

    # --- more connections ---

    @property
    def n_workers(self) -> int:
        return len(self._helpers) + 1

    @property
    def nbytes_left(self) -> int:
        return self._blob.size - self._intake.next_byte

    @property
    def is_held(self) -> bool:
        """One of its connections waits for this machine."""
        return any(segment.held for segment in self._intake.segments)

    def check_stalls(self, now: float, limits: FetchLimits, *, anew: bool) -> None:
        for segment in self._intake.segments:
            segment.check_stall(now, limits, anew=anew)

    def can_widen(self, now: float) -> bool:
        """Whether another connection could help."""
        if self._intake.refused:
            return False
        schedule, segments = self._schedule, self._intake.segments
        if schedule.has_more:
            return True
        if not schedule.may_probe or not self._connections.may_range(self._netloc, now):
            return False
        return len(segments) == 1 and segments[0].streaming

    def widen(self) -> None:
        """One more connection, which was taken already, for one range. Only while :meth:`can_widen`."""
        schedule = self._schedule
        part = schedule.next_range() if schedule.has_more else schedule.probe()
        work = self._bring(part)

        def ended(task: asyncio.Task[None]) -> None:  # also of a task that was cancelled before it began
            self._helpers.discard(task)
            schedule.leave(part)
            self._connections.give()
            self._changed()

        try:
            task = self._group.create_task(work)
        except RuntimeError:  # the transfer was cancelled just now, and its group takes no more
            work.close()
            schedule.leave(part)
            self._connections.give()
            return
        self._helpers.add(task)
        task.add_done_callback(ended)

    async def _lead(self, part: Part) -> None:
        """The connection that a transfer always has."""
        await self._bring(part)
        while self._schedule.has_more and not self._intake.refused:
            await self._bring(self._schedule.next_range())
        if self._schedule.is_over:  # a probe that has no answer yet is of no use any more
            for helper in self._helpers:
                helper.cancel()

    # --- one part ---

    async def _bring(self, part: Part) -> None:
        """Attempt after attempt until ``part`` is complete, or not needed any more."""
        segment = Segment(part, self._intake, self._schedule.received)
        segment.open()
        try:
            while not (part.is_complete or self._intake.refused or self._schedule.is_over):
                if not await self._attempt(part, segment):
                    break
        finally:
            segment.close()
            self._schedule.leave(part)

    async def _attempt(self, part: Part, segment: Segment) -> bool:
        """One request, and the wait before the next if there must be one. False: the part is left.

        Raises what is final, and _StartOver.
        """
        schedule, servers, digest = self._schedule, self._servers, self._blob.digest
        server = servers.pick(digest)
        try:
            if not await self._exchange(part, segment, server):
                return False
            if not self._intake.refused:
                schedule.ended(part)
            return True
        except LayerteeError as exc:
            error: LayerteeError | None = exc
            if isinstance(exc, NotInRegistry) and not part.probe:
                await self._look_for_tar(server, exc)
            if not part.probe:
                progressed = part.pos - part.asked_at >= MIN_PROGRESS
                error = servers.failed(server, digest, exc, progressed=progressed)
            if error is None:
                log.info("%s: %s; from byte %d on at %s", digest, exc, part.pos, servers.pick(digest).name)
                return True
            serving = server.traffic.n_bodies > 0
            match schedule.failed(part, error, served=self._intake.buffers.nbytes, serving=serving):
                case Wait(seconds):
                    if self._connections.is_news(error, asyncio.get_running_loop().time()):
                        tell_wait(error, seconds)
                    log.info("%s: %s; again from byte %d in %.1f s", digest, error, part.pos, seconds)
                case Then.LEAVE:
                    log.debug("%s: no help from a second connection: %s", digest, error)
                    if part.probe and not too_many(error):
                        self._no_ranges(PROBE_AGAIN_S)
                    return False
                case Then.RESTART:
                    self._connections.learn(server.host, ranged=False)
                    self._no_ranges(RANGELESS_S)
                    raise _StartOver(str(error)) from error
                case Then.GIVE_UP:
                    if self._tar_instead is not None:
                        raise self._tar_instead from error
                    if isinstance(error, RangeMismatch) and self._netloc:
                        error.add_note(f"that was {self._netloc}")
                    if error is exc:
                        raise
                    raise error from None  # of another server: what it failed with has its own cause
        await asyncio.sleep(seconds)
        return True

    async def _look_for_tar(self, server: Server, missing: NotInRegistry) -> None:
        """``server`` does not have the blob. Raises TarInstead if it has the tar, and that is worth more."""
        tar = self._tar
        if tar is None or server.find_tar is None or server.name in tar.not_at:
            return
        has_other = self._servers.has_other(server, self._blob.digest)
        tries = 1 if has_other else _TRIES
        size = await server.find_tar(tar.diff_id, tar.limit, missing.diff_id, tries=tries)
        if size is None:
            return
        instead = TarInstead(server.name, size)
        is_mostly_here = self._intake.next_byte * 2 >= self._blob.size
        if not (is_mostly_here and has_other):
            raise instead from missing
        self._tar_instead = self._tar_instead or instead

    async def _exchange(self, part: Part, segment: Segment, server: Server) -> bool:
        """One request for what is missing of ``part``, and its body. False: the part is not needed."""
        schedule = self._schedule
        asked, stop = schedule.asks(part), part.stop
        body = await self._ask(asked, server)
        try:
            self._look_at(body)
            answer = check_answer(
                body.status,
                body.fields("Content-Range"),
                next(iter(body.fields("Content-Type")), None),
                body.content_length,
                want=asked or ByteRange(part.pos, stop),
                size=schedule.size,
                ranged=asked is not None,
            )
            if asked is not None and answer.whole:
                self._no_ranges(RANGELESS_S)
                if part.pos and not part.probe and self._servers.has_other(server, self._blob.digest):
                    # Elsewhere what is missing may be had alone, without all that is here already.
                    raise RangeMismatch(f"{server.name} sends the whole blob instead of a range")
            then = schedule.answered(
                part, answer, offers_ranges=offers_ranges(body.status, body.fields("Accept-Ranges"))
            )
            if then is Then.RESTART:
                raise _StartOver(f"{self._netloc} has no ranges")
            if not isinstance(then, Take):
                return False
            if not answer.whole:
                self._connections.learn(server.host, ranged=True)
            if not answer.whole or then.skip:
                self._intake.report.ranged = True
            if schedule.has_more:
                self._changed()
            before = segment.n_landed
            try:
                with self._connections.arriving(), server.arriving():
                    await segment.receive(body, then.nbytes, skip=then.skip, exact=then.exact)
            finally:
                by_server = self._intake.report.by_server
                by_server[server.name] = by_server.get(server.name, 0) + segment.n_landed - before
        finally:
            body.close()
        if part.stop < stop and schedule.has_more:  # it was cut short
            await asyncio.sleep(CLOSING_S)
        return True

    async def _ask(self, asked: ByteRange | None, server: Server) -> Body:
        """One request, not before the server has said that it may be asked again."""
        loop, connections = asyncio.get_running_loop(), self._connections
        now = loop.time()
        while (pause := connections.pause_s(now, server.host)) > 0:  # another refusal may make it longer
            if pause > PATIENCE_S and self._servers.may_ask_other(server, self._blob.digest):
                message = f"{server.name} is not to be asked for another {pause:.0f} s"
                raise RateLimited(message, retry_after=pause)
            await asyncio.sleep(pause)
            now = loop.time()
        try:
            ask = server.open_blob if self._servers.is_one else server.ask
            return await (
                ask(self._blob, 0, None) if asked is None else ask(self._blob, asked.start, asked.stop)
            )
        except LayerteeError as exc:
            if too_many(exc):
                connections.refused(exc, loop.time(), asked=now, host=server.host)
            raise

    def _look_at(self, body: Body) -> None:
        self._netloc = urlsplit(body.url).netloc
        for encoding in body.fields("Content-Encoding"):
            if encoding.lower() != "identity":
                self._intake.report.content_encoding = encoding

    def _no_ranges(self, for_s: float) -> None:
        self._connections.no_ranges(self._netloc, asyncio.get_running_loop().time() + for_s)


class _StartOver(Exception):
    """The blob is to be read once more from its start, as one stream. Ends all connections of a transfer."""
