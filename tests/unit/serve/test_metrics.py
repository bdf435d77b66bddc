"""What /metrics shows, read back by the library's own parser."""

from __future__ import annotations

from prometheus_client.parser import text_string_to_metric_families

from layertee.serve.metrics import CUT, HASHED, PLAIN, SENT, Metrics


def samples(metrics: Metrics) -> dict[str, float]:
    page, media_type = metrics.page()
    assert media_type.startswith("text/plain")
    return {
        "".join([one.name, *(f",{value}" for _, value in sorted(one.labels.items()))]): one.value
        for family in text_string_to_metric_families(page.decode())
        for one in family.samples
    }


def test_what_happened_is_counted() -> None:
    metrics = Metrics(lambda: 7)
    metrics.answered("blob", 200, 0.5)
    metrics.answered("blob", 200, 1.0)
    metrics.answered("blob", 404, 0.1)
    metrics.sent(1000)
    metrics.sent(24)
    metrics.blob("store", PLAIN, SENT)
    metrics.blob("containers-storage", HASHED, CUT)
    metrics.late(3)
    assert samples(metrics) == {
        "layertee_serve_requests_total,blob,200": 2,
        "layertee_serve_requests_total,blob,404": 1,
        "layertee_serve_request_seconds_count,blob": 3,
        "layertee_serve_request_seconds_sum,blob": 1.6,
        "layertee_serve_sent_bytes_total": 1024,
        "layertee_serve_blobs_total,sent,store,plain": 1,
        "layertee_serve_blobs_total,cut,containers-storage,hashed": 1,
        "layertee_serve_late_clients_total": 3,
        "layertee_serve_connections": 7,
    }


def test_two_servers_of_a_process_share_nothing() -> None:
    one, other = Metrics(lambda: 0), Metrics(lambda: 0)
    one.sent(5)
    assert samples(one)["layertee_serve_sent_bytes_total"] == 5
    assert samples(other)["layertee_serve_sent_bytes_total"] == 0
