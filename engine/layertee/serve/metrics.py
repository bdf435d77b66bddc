"""What ``/metrics`` shows: counts since the start, in Prometheus' text format. No state but the object's own.

The names are documented in docs/reference/serve.md, and are kept.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, SummaryMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

# How the sending of a blob, or of a part of one, ended.
SENT, CUT, FAILED = "sent", "cut", "failed"
PLAIN, HASHED = "plain", "hashed"


class Metrics(Collector):
    """Counts what the server does; ``connections`` says how many there are now."""

    def __init__(self, connections: Callable[[], int]) -> None:
        self._connections = connections
        self._requests: Counter[tuple[str, str]] = Counter()
        self._seconds: defaultdict[str, float] = defaultdict(float)
        self._blobs: Counter[tuple[str, str, str]] = Counter()
        self._bytes = 0
        self._late = 0
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(self)

    def answered(self, kind: str, status: int, seconds: float) -> None:
        """A request, once its answer is sent or given up."""
        self._requests[kind, str(status)] += 1
        self._seconds[kind] += seconds

    def sent(self, nbytes: int) -> None:
        """Bytes of a body that the system has taken."""
        self._bytes += nbytes

    def blob(self, place: str, way: str, end: str) -> None:
        """``place``: where its bytes are; ``way``: PLAIN (as they lie there) or HASHED; ``end``: as above."""
        self._blobs[place, way, end] += 1

    def late(self, n: int) -> None:
        """Clients that were hung up on: a request that did not come, or an answer that was not taken."""
        self._late += n

    def page(self) -> tuple[bytes, str]:
        """All of it, and its media type."""
        return generate_latest(self._registry), CONTENT_TYPE_LATEST

    def collect(self) -> Iterable[Metric]:
        """For the registry."""
        requests = CounterMetricFamily(
            "layertee_serve_requests", "Requests that were answered.", labels=("kind", "status")
        )
        seconds = SummaryMetricFamily(
            "layertee_serve_request_seconds",
            "Time from a request to the end of its answer.",
            labels=("kind",),
        )
        numbers: Counter[str] = Counter()
        for (kind, status), number in sorted(self._requests.items()):
            requests.add_metric((kind, status), number)
            numbers[kind] += number
        for kind, number in sorted(numbers.items()):
            seconds.add_metric((kind,), number, self._seconds[kind])
        blobs = CounterMetricFamily(
            "layertee_serve_blobs",
            "Blobs, or parts of them, by the place they are in, the way they went, and how that ended.",
            labels=("place", "way", "end"),
        )
        for labels, number in sorted(self._blobs.items()):
            blobs.add_metric(labels, number)
        yield requests
        yield seconds
        yield blobs
        yield CounterMetricFamily("layertee_serve_sent_bytes", "Bytes of bodies.", value=self._bytes)
        yield CounterMetricFamily(
            "layertee_serve_late_clients",
            "Connections that were cut, as their clients were slow.",
            value=self._late,
        )
        yield GaugeMetricFamily(
            "layertee_serve_connections", "Connections that are open.", value=self._connections()
        )
