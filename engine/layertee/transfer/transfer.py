"""One blob on its way into a layer of the pool, over one connection or several.

A transfer begins as one GET. When it is told to widen, and the answer said that the server has
ranges, the rest of the blob is cut: a first helper asks for a range further on, and only when the
server has answered it properly is the head shortened, so one that lied costs a refused answer and
nothing else. From then on every connection takes the next range in order until none is left.

A server need not say that it has ranges (RFC 9110 §14.3), but those that are hurt by them do not: a
pull-through cache that has not got the blob yet sends what it receives, all of it, and would ask its
upstream for the blob once more. A resumed blob is asked for by range in any case.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol
from urllib.parse import urlsplit

from ..core.pool import InBuffer, PoolLayer
from ..errors import ConnectFailed, LayerteeError, RangeMismatch, RateLimited, ServerError
from ..image.document import Descriptor
from .ranges import ByteRange, Reassembly, check_answer
from .rate import backoff_s
from .segment import Body, RangeMode, Segment, Shared

log = logging.getLogger(__name__)

# A resumed blob whose server ignores ranges is read again from the start, once, up to here.
MAX_DISCARD = 32 << 20
# Progress below this does not make an attempt a success: a server that drops the connection
# after every few bytes is a failing server.
MIN_PROGRESS = 64 << 10
# A connection that is cut short is closed; before another is opened in its place, the server must have
# seen that, or it counts one too many.
CLOSING_S = 0.05
# How long a server is not probed again, after a 200 to a range and after a probe that failed.
RANGELESS_S, PROBE_AGAIN_S = 600.0, 60.0


class OpenBlob(Protocol):
    """One request for ``[start, stop)`` of a blob; ``(0, None)`` asks for all of it, without a range."""

    async def __call__(self, blob: Descriptor, start: int, stop: int | None) -> Body: ...


@dataclass(slots=True)
class FetchReport:
    """What a transfer cost: ``nbytes`` counts every body byte, discarded and repeated ones included."""

    nbytes: int = 0
    n_requests: int = 0
    n_retries: int = 0
    ranged: bool = False
    content_encoding: str | None = None


class Transfer:
    """One blob under way. ``frontier`` is the end of what is assigned to a segment."""

    def __init__(
        self,
        shared: Shared,
        blob: Descriptor,
        open_blob: OpenBlob,
        layer: PoolLayer,
        single_stream: bool,
        progress: Callable[[int], None] | None,
        report: FetchReport,
        pace: Callable[[], float] | None = None,
    ) -> None:
        self._shared = shared
        self.blob = blob
        self.name: str = blob.digest
        self.size = blob.size
        self.report = report
        self.pace = pace
        self.segments: list[Segment] = []
        self._pieces: Reassembly[InBuffer] = Reassembly()
        self._open_blob = open_blob
        self.layer = layer
        self._progress = progress
        self._single = single_stream or shared.limits.ranges is RangeMode.NEVER
        self._offered = False  # the server says that it has ranges
        self._split = False  # ranges are known to work, and the blob is cut
        self._probing = False  # a first helper is asking for a range
        self._failed = False
        self._over = False  # a connection ended in an error, and the others are being cancelled
        self._discarded = False
        self._etags: dict[str, str] = {}
        self._host = ""
        self._group = asyncio.TaskGroup()
        self.frontier = self.size
        self.n_workers = 1

    @property
    def next_byte(self) -> int:
        """The first byte the pool has not got yet."""
        return self._pieces.next

    @property
    def nbytes_left(self) -> int:
        return self.size - self._pieces.next

    async def run(self) -> None:
        if not self._single and self._wide:
            self.frontier = min(self.size, self._shared.limits.range_nbytes)
        failed: BaseException | None = None
        try:
            if self.size:
                async with self._group:
                    self._group.create_task(self._work(Segment(self, self._shared, 0, self.frontier)))
        except BaseExceptionGroup as group:
            failed = group.exceptions[0]
        finally:
            for buf in self._pieces.drain():
                self._shared.pool.give_back(buf)
        if failed is not None:
            raise failed  # out of the handler: its own cause and context stay
        self.layer.end()

    # --- cutting a blob into ranges ---

    @property
    def _wide(self) -> bool:
        """Helpers are to be expected: a whole GET would only be cut, and its connection lost."""
        shared = self._shared
        if shared.limits.ranges is RangeMode.ALWAYS:
            return True
        return shared.host.ranged and shared.host.widening.target > shared.n_transfers

    def can_widen(self, now: float) -> bool:
        """Whether another connection could help."""
        if self._single or self._failed or self._over or self._probing:
            return False
        if self._split:
            return self.frontier < self.size
        if not self._offered or len(self.segments) != 1 or not self._shared.host.may_range(self._host, now):
            return False
        head = self.segments[0]
        return head.streaming and self._cut_at(head) < self.size

    def _cut_at(self, head: Segment) -> int:
        """Where a helper may begin: beyond the buffer that the head is filling, by one range."""
        return head.buf_start + max(self._shared.limits.range_nbytes, 2 * self._shared.pool.in_nbytes)

    def widen(self) -> None:
        """One more connection, whose slot is taken already, for one range."""
        if self._split:
            segment = self._next_segment()
        else:
            cut = self._cut_at(self.segments[0])
            self._probing = True
            segment = Segment(
                self, self._shared, cut, min(cut + self._shared.limits.range_nbytes, self.size), probe=True
            )
        self.n_workers += 1
        self._group.create_task(self._help(segment)).add_done_callback(self._helped)

    def _helped(self, _: object) -> None:
        """A helper has ended, or was cancelled before it began."""
        self.n_workers -= 1
        self._probing = False
        self._shared.slots.give()
        self._shared.fill()

    def _next_segment(self) -> Segment:
        """The next range. Towards the end they get shorter, so that all connections end together."""
        start, unit = self.frontier, self._shared.pool.in_nbytes
        share = (self.size - start) // (self.n_workers + 1) // unit * unit
        self.frontier = min(start + min(self._shared.limits.range_nbytes, max(share, unit)), self.size)
        return Segment(self, self._shared, start, self.frontier)

    def _accept_probe(self, segment: Segment) -> bool:
        """The server does ranges: cut the blob before ``segment``, if the head is not there yet."""
        self._probing = False
        segment.probe = False
        head = self.segments[0]
        if head.buf_start + self._shared.pool.in_nbytes > segment.start or head.stop != self.size:
            return False
        head.stop = segment.start
        self.frontier = segment.stop
        self._split = self.report.ranged = True
        return True

    # --- workers: one connection each ---

    async def _help(self, segment: Segment) -> None:
        if not self._over:
            await self._bring(segment)

    async def _work(self, segment: Segment) -> None:
        """The connection that a transfer always has."""
        while await self._bring(segment) and self.frontier < self.size and not self._failed:
            segment = self._next_segment()

    async def _bring(self, segment: Segment) -> bool:
        self.segments.append(segment)
        try:
            return await self._download(segment)
        except BaseException:
            self._over = True
            raise
        finally:
            self.segments.remove(segment)
            segment.release()

    async def _download(self, segment: Segment) -> bool:
        """Attempt after attempt until the segment is complete. False: it is not needed any more."""
        failures = 0
        shared, limits = self._shared, self._shared.limits
        others = shared.nbytes
        while segment.pos < segment.stop and not self._failed:
            before = segment.pos
            try:
                if not await self._attempt(segment):
                    return False
                if segment.pos < segment.stop and segment.pos - before < MIN_PROGRESS and not self._failed:
                    raise RangeMismatch(
                        f"{self._host} answers ranges with {segment.pos - before} bytes at a time"
                    )
                failures = 0
            except LayerteeError as exc:
                if segment.probe:
                    self._probe_failed(exc)
                    return False
                if segment.pos - before >= MIN_PROGRESS:
                    failures = 0
                # Who is turned away while others are served is waiting in line, not failing.
                if not _too_many(exc) or shared.nbytes - others < MIN_PROGRESS:
                    failures += 1
                others = shared.nbytes
                if not exc.retryable or failures >= limits.attempts:
                    raise
                self.report.n_retries += 1
                wait = backoff_s(max(1, failures), limits.backoff_s)
                if isinstance(exc, RateLimited):
                    wait += exc.retry_after
                log.info("%s: %s; again from byte %d in %.1f s", self.blob.digest, exc, segment.pos, wait)
                await asyncio.sleep(wait)
        return True

    def _probe_failed(self, exc: LayerteeError) -> None:
        """The head goes on as if nothing had been asked."""
        log.debug("%s: no help from a second connection: %s", self.blob.digest, exc)
        if not _too_many(exc):
            self._no_ranges(PROBE_AGAIN_S)

    def _no_ranges(self, for_s: float) -> None:
        self._shared.host.no_ranges(self._host, asyncio.get_running_loop().time() + for_s)

    async def _attempt(self, segment: Segment) -> bool:
        asked = ByteRange(segment.pos, segment.stop)  # a head may be shortened while it waits
        ranged = len(asked) < self.size
        body = await self._ask(segment.pos, segment.stop if ranged else None)
        try:
            answer = check_answer(
                body.status,
                body.headers.getall("Content-Range", []),
                body.headers.get("Content-Type"),
                body.content_length,
                want=asked,
                size=self.size,
                ranged=ranged,
            )
            self._check_source(body)
            if answer.whole:
                if ranged and not self._take_whole(segment):
                    return False
                nbytes = segment.stop
            else:
                if segment.probe and not self._accept_probe(segment):
                    return False
                self.report.ranged = self._shared.host.ranged = True
                if self.frontier < self.size:
                    self._split = True
                    self._shared.fill()
                nbytes = answer.nbytes
            segment.attach(body, segment.pos - answer.start)
            await body.receive(segment, nbytes, exact=answer.whole and nbytes == self.size)
        finally:
            segment.detach()
            body.close()
        if segment.stop < asked.stop and self.frontier < self.size:
            await asyncio.sleep(CLOSING_S)
        return True

    async def _ask(self, start: int, stop: int | None) -> Body:
        """One request, not before the server has said that it may be asked again."""
        loop = asyncio.get_running_loop()
        widening = self._shared.host.widening
        asked = loop.time()
        while asked < widening.pause_until:
            await asyncio.sleep(widening.pause_until - asked)
            asked = loop.time()
        self.report.n_requests += 1
        try:
            return await self._open_blob(self.blob, start, stop)
        except LayerteeError as exc:
            if _too_many(exc):
                widening.refused(
                    loop.time(),
                    asked=asked,
                    n_open=self._shared.slots.n_open,
                    n_served=self._shared.host.n_served,
                    retry_after=exc.retry_after if isinstance(exc, RateLimited) else 0.0,
                )
            raise

    def _take_whole(self, segment: Segment) -> bool:
        """The server ignored the range: can this one stream serve?"""
        self._no_ranges(RANGELESS_S)
        if segment.probe:
            return False
        if segment.pos == 0:
            if self.frontier == segment.stop:  # nothing else was handed out
                self.frontier = segment.stop = self.size
            return True
        if self._discarded or segment.pos > MAX_DISCARD:
            raise _CannotResume(
                f"{self._host} sends the whole blob again instead of the rest from byte {segment.pos}"
            )
        self._discarded = True
        return True

    def _check_source(self, body: Body) -> None:
        self._host = urlsplit(body.url).netloc
        accepts = ",".join(body.headers.getall("Accept-Ranges", []))
        self._offered = body.status == 206 or "bytes" in accepts.lower().replace(" ", "").split(",")
        encoding = body.headers.get("Content-Encoding")
        if encoding and encoding.lower() != "identity":
            self.report.content_encoding = encoding
        etag = body.headers.get("ETag")
        if etag and not etag.startswith("W/") and self._etags.setdefault(self._host, etag) != etag:
            raise RangeMismatch(f"{self._host}: the blob's ETag changed between two requests")

    # --- bytes ---

    def count(self, nbytes: int) -> None:
        self.report.nbytes += nbytes
        self._shared.nbytes += nbytes

    def deliver(self, start: int, buf: InBuffer, nbytes: int) -> None:
        """A filled buffer; it and those it was missing for go to the pool."""
        for piece, n in self._pieces.add(start, nbytes, buf):
            if not self.layer.submit(piece, n) and not self._failed:
                self._failed = True  # the layer's result tells why
        if self._progress is not None:
            self._progress(nbytes)
        for segment in self.segments:
            if self._failed:
                segment.halt()
            elif segment.waiting and segment.is_next:
                segment.wake()


def _too_many(exc: LayerteeError) -> bool:
    """The server, or what stands before it, does not take another connection now."""
    if isinstance(exc, ServerError):
        return exc.status == 503
    return isinstance(exc, RateLimited | ConnectFailed)


class _CannotResume(RangeMismatch):
    retryable = False
