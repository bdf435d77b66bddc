"""One blob on its way into a layer of the pool, over one connection or several.

A transfer begins as one GET. When it is told to widen, the rest of the blob is cut into ranges: a
first helper asks for a range further on, and only when the server has answered it properly is the
head shortened, so a server without ranges costs one refused answer and nothing else. From then on
every connection takes the next range in order until none is left.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol
from urllib.parse import urlsplit

from .errors import LayerteeError, RangeMismatch, RateLimited
from .oci import Descriptor
from .pacing import backoff_s
from .pool import InBuffer, PoolLayer
from .ranges import ByteRange, Reassembly, check_answer
from .segment import Body, RangeMode, Segment, Shared

log = logging.getLogger(__name__)

# A resumed blob whose server ignores ranges is read again from the start, once, up to here.
MAX_DISCARD = 32 << 20
# Progress below this does not make an attempt a success: a server that drops the connection
# after every few bytes is a failing server.
MIN_PROGRESS = 64 << 10


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
    ) -> None:
        self._shared = shared
        self.blob = blob
        self.name: str = blob.digest
        self.size = blob.size
        self.report = report
        self.segments: list[Segment] = []
        self._pieces: Reassembly[InBuffer] = Reassembly()
        self._open_blob = open_blob
        self.layer = layer
        self._progress = progress
        self._single = single_stream or shared.limits.ranges is RangeMode.NEVER
        self._split = False  # ranges are known to work, and the blob is cut
        self._probing = False  # a first helper is asking for a range
        self._failed = False
        self._discarded = False
        self._etags: dict[str, str] = {}
        self._host = ""
        self._group = asyncio.TaskGroup()
        self.frontier = self.size

    @property
    def next_byte(self) -> int:
        """The first byte the pool has not got yet."""
        return self._pieces.next

    @property
    def nbytes_left(self) -> int:
        return self.size - self._pieces.next

    async def run(self) -> None:
        limits = self._shared.limits
        if limits.ranges is RangeMode.ALWAYS and not self._single:
            self.frontier = min(self.size, limits.range_nbytes)
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

    def can_widen(self) -> bool:
        """Whether another connection could help now."""
        if self._single or self._failed or self._probing or self._host in self._shared.rangeless:
            return False
        if self._split:
            return self.frontier < self.size
        head = self.segments[0] if len(self.segments) == 1 else None
        return head is not None and head.streaming and self._cut_at(head) < self.size

    def _cut_at(self, head: Segment) -> int:
        """Where a helper may begin: beyond the buffer that the head is filling, by one range."""
        return head.buf_start + max(self._shared.limits.range_nbytes, 2 * self._shared.pool.in_nbytes)

    def widen(self) -> None:
        """One more connection, whose slot is taken already."""
        if self._split:
            segment = self._next_segment()
        else:
            cut = self._cut_at(self.segments[0])
            self._probing = True
            segment = Segment(
                self, self._shared, cut, min(cut + self._shared.limits.range_nbytes, self.size), probe=True
            )
        if segment is None:
            self._shared.slots.give()
        else:
            self._group.create_task(self._help(segment))

    def fill(self) -> None:
        """As many connections as there are slots and ranges."""
        while self.can_widen() and self._shared.slots.try_take():
            self.widen()

    def _next_segment(self) -> Segment | None:
        if self._failed or self.frontier >= self.size:
            return None
        start = self.frontier
        self.frontier = min(start + self._shared.limits.range_nbytes, self.size)
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
        try:
            await self._work(segment)
        finally:
            self._shared.slots.give()

    async def _work(self, segment: Segment | None) -> None:
        while segment is not None:
            self.segments.append(segment)
            try:
                if not await self._download(segment):
                    return
            finally:
                self.segments.remove(segment)
                segment.release()
            segment = self._next_segment()

    async def _download(self, segment: Segment) -> bool:
        """Attempt after attempt until the segment is complete. False: it is not needed any more."""
        failures = 0
        limits = self._shared.limits
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
                    log.debug("%s: no help from a second connection: %s", self.blob.digest, exc)
                    self._probing = False
                    self._shared.rangeless.add(self._host)
                    return False
                if segment.pos - before >= MIN_PROGRESS:
                    failures = 0
                failures += 1
                if not exc.retryable or failures >= limits.attempts:
                    raise
                self.report.n_retries += 1
                wait = backoff_s(failures, limits.backoff_s)
                if isinstance(exc, RateLimited):
                    wait += exc.retry_after
                log.info("%s: %s; again from byte %d in %.1f s", self.blob.digest, exc, segment.pos, wait)
                await asyncio.sleep(wait)
        return True

    async def _attempt(self, segment: Segment) -> bool:
        ranged = segment.pos > 0 or segment.stop < self.size
        self.report.n_requests += 1
        body = await self._open_blob(self.blob, segment.pos, segment.stop if ranged else None)
        try:
            answer = check_answer(
                body.status,
                body.headers.getall("Content-Range", []),
                body.headers.get("Content-Type"),
                body.content_length,
                want=ByteRange(segment.pos, segment.stop),
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
                self.report.ranged = True
                if self._shared.limits.ranges is RangeMode.ALWAYS and not self._single:
                    self._split = True
                    self.fill()
                nbytes = answer.nbytes
            segment.body = body
            segment.skip = segment.pos - answer.start
            await body.receive(segment, nbytes, exact=answer.whole and nbytes == self.size)
            return True
        finally:
            segment.detach()
            body.close()

    def _take_whole(self, segment: Segment) -> bool:
        """The server ignored the range: can this one stream serve?"""
        self._shared.rangeless.add(self._host)
        if segment.probe:
            self._probing = False
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


class _CannotResume(RangeMismatch):
    retryable = False
