"""What the parts of the API answer, over a stock that the test lists."""

from __future__ import annotations

import asyncio
import errno
import json
from collections.abc import Mapping
from typing import Any

import pytest

from layertee.errors import DigestMismatch, NotFound, ServerBusy, SourceUnreadable
from layertee.image.document import DiffID, Digest
from layertee.image.media import DOCKER_MANIFEST, OCI_INDEX, OCI_MANIFEST
from layertee.serve.answers import Answer, Code, Refusal
from layertee.serve.app import App
from layertee.serve.requests import parse
from tests.support.fakes.stock import FakeSender, FakeStock, document

INDEX = document({"manifests": []}, OCI_INDEX)
PLAIN = document({"layers": [1]}, OCI_MANIFEST)
DOCKER = document({"layers": [2]}, DOCKER_MANIFEST)
ABSENT = Digest("sha256:" + "ab" * 32)
DIFF_ID = DiffID("sha256:" + "cd" * 32)


@pytest.fixture
def stock() -> FakeStock:
    return FakeStock(
        images={("os", "1"): [INDEX, PLAIN], ("os", "2"): [PLAIN], ("app/web", "latest"): [DOCKER]},
        originals={("os", "2"): [DOCKER]},
    )


@pytest.fixture
def sender() -> FakeSender:
    return FakeSender()


class Client:
    """Asks an app as the server does."""

    def __init__(self, stock: FakeStock, sender: FakeSender) -> None:
        self._app = App(stock, sender, lambda: (b"layertee_serve 1\n", "text/plain"))

    def ask(self, target: str, fields: Mapping[str, str] | None = None, method: str = "GET") -> Answer:
        async def ask() -> Answer:
            return await self._app.answer(parse(method, target), fields or {}, head_only=method == "HEAD")

        try:
            return asyncio.run(ask())
        except Refusal as refusal:
            return refusal.answer()

    def json(self, target: str, fields: Mapping[str, str] | None = None) -> Any:
        return json.loads(self.ask(target, fields).body)

    def error(self, target: str, fields: Mapping[str, str] | None = None) -> tuple[int, dict[str, Any]]:
        answer = self.ask(target, fields)
        (error,) = json.loads(answer.body)["errors"]
        return answer.status, error


@pytest.fixture
def client(stock: FakeStock, sender: FakeSender) -> Client:
    return Client(stock, sender)


def body(answer: Answer) -> bytes:
    """What would be sent."""

    async def read() -> bytes:
        assert answer.outgoing is not None
        try:
            return b"".join([bytes(chunk) async for chunk in answer.outgoing])
        finally:
            await answer.outgoing.close()

    return asyncio.run(read()) if answer.outgoing is not None else answer.body


# --- the base, lists ----------------------------------------------------------------------------------


def test_every_answer_says_which_api_this_is(client: Client) -> None:
    for target in (
        "/v2/",
        "/v2/_catalog",
        "/v2/os/manifests/1",
        "/v2/os/manifests/9",
        f"/v2/os/blobs/{ABSENT}",
    ):
        answer = client.ask(target)
        assert answer.fields["Docker-Distribution-Api-Version"] == "registry/2.0"
        assert answer.fields["X-Content-Type-Options"] == "nosniff"


def test_metrics_are_shown(client: Client) -> None:
    assert client.ask("/metrics").body == b"layertee_serve 1\n"


def test_the_catalog_comes_in_pages(client: Client, stock: FakeStock) -> None:
    assert client.json("/v2/_catalog") == {"repositories": ["app/web", "os"]}
    first = client.ask("/v2/_catalog?n=1")
    assert json.loads(first.body) == {"repositories": ["app/web"]}
    assert first.fields["Link"] == '</v2/_catalog?n=1&last=app%2Fweb>; rel="next"'
    second = client.ask("/v2/_catalog?n=1&last=app%2Fweb")
    assert json.loads(second.body) == {"repositories": ["os"]}
    assert "Link" not in second.fields


def test_a_page_is_limited_also_where_nobody_asks(client: Client, stock: FakeStock) -> None:
    stock.images = {("many", f"{n:05}"): [PLAIN] for n in range(2500)}
    seen: list[str] = []
    target = "/v2/many/tags/list"
    for _ in range(3):
        answer = client.ask(target)
        seen += json.loads(answer.body)["tags"]
        target = answer.fields.get("Link", "<>").split(">")[0][1:]
    assert target == ""
    assert seen == [f"{n:05}" for n in range(2500)]


def test_a_page_of_none_is_empty_and_has_no_next(client: Client) -> None:
    answer = client.ask("/v2/os/tags/list?n=0")
    assert json.loads(answer.body) == {"name": "os", "tags": []}
    assert "Link" not in answer.fields


def test_tags_are_those_of_a_name(client: Client) -> None:
    assert client.json("/v2/os/tags/list") == {"name": "os", "tags": ["1", "2"]}
    assert client.json("/v2/os/tags/list?last=1") == {"name": "os", "tags": ["2"]}
    status, error = client.error("/v2/other/tags/list")
    assert (status, error["code"], error["detail"]) == (404, "NAME_UNKNOWN", {"name": "other"})


def test_referrers_are_an_index(client: Client, stock: FakeStock) -> None:
    signature = {"mediaType": OCI_MANIFEST, "digest": PLAIN.digest, "size": 1, "artifactType": "a/sig"}
    sbom = {"mediaType": OCI_MANIFEST, "digest": DOCKER.digest, "size": 1, "artifactType": "a/sbom"}
    stock.referring[INDEX.digest] = [signature, sbom]
    answer = client.ask(f"/v2/os/referrers/{INDEX.digest}")
    assert answer.fields["Content-Type"] == OCI_INDEX
    assert json.loads(answer.body) == {
        "schemaVersion": 2,
        "mediaType": OCI_INDEX,
        "manifests": [signature, sbom],
    }
    assert "OCI-Filters-Applied" not in answer.fields
    some = client.ask(f"/v2/os/referrers/{INDEX.digest}?artifactType=a/sbom")
    assert some.fields["OCI-Filters-Applied"] == "artifactType"
    assert json.loads(some.body)["manifests"] == [sbom]
    none = client.ask(f"/v2/unknown/referrers/{ABSENT}")
    assert (none.status, json.loads(none.body)["manifests"]) == (200, [])


# --- manifests ------------------------------------------------------------------------------------------


def test_a_tag_is_answered_with_the_best_that_the_client_takes(client: Client) -> None:
    everything = client.ask("/v2/os/manifests/1")
    assert (everything.body, everything.fields["Content-Type"]) == (INDEX.raw, OCI_INDEX)
    manifest = client.ask("/v2/os/manifests/1", {"accept": f"{OCI_MANIFEST}, text/html"})
    assert manifest.body == PLAIN.raw
    assert manifest.fields["Docker-Content-Digest"] == PLAIN.digest
    assert manifest.fields["ETag"] == f'"{PLAIN.digest}"'
    assert manifest.fields["Vary"] == "Accept, Layertee-Diff-IDs"
    assert manifest.fields["Layertee-Diff-IDs"] == "1"
    assert manifest.length == len(PLAIN.raw)


def test_a_tag_may_change_and_a_digest_may_not(client: Client) -> None:
    assert client.ask("/v2/os/manifests/2").fields["Cache-Control"] == "private, no-cache"
    by_digest = client.ask(f"/v2/os/manifests/{PLAIN.digest}")
    assert by_digest.body == PLAIN.raw
    assert "immutable" in by_digest.fields["Cache-Control"]


def test_a_client_that_can_do_with_diff_ids_gets_the_original(client: Client) -> None:
    assert client.ask("/v2/os/manifests/2").body == PLAIN.raw
    assert client.ask("/v2/os/manifests/2", {"layertee-diff-ids": "1"}).body == DOCKER.raw
    assert client.ask("/v2/os/manifests/2", {"layertee-diff-ids": "0"}).body == PLAIN.raw


@pytest.mark.parametrize("reference", ["2", PLAIN.digest])
def test_what_is_there_as_another_type_is_said(client: Client, reference: str) -> None:
    status, error = client.error(f"/v2/os/manifests/{reference}", {"accept": DOCKER_MANIFEST})
    assert (status, error["code"]) == (404, "MANIFEST_UNKNOWN")
    assert OCI_MANIFEST in error["message"]


def test_what_is_not_there_is_unknown_by_its_right_name(client: Client) -> None:
    status, error = client.error("/v2/os/manifests/9")
    assert (status, error["code"]) == (404, "MANIFEST_UNKNOWN")
    assert error["detail"] == {"name": "os", "reference": "9"}
    assert client.error(f"/v2/os/manifests/{ABSENT}")[1]["code"] == "MANIFEST_UNKNOWN"
    assert client.error("/v2/other/manifests/1")[1]["code"] == "NAME_UNKNOWN"


def test_a_manifest_that_the_client_has_is_not_sent_again(client: Client) -> None:
    answer = client.ask("/v2/os/manifests/2", {"if-none-match": f'W/"{PLAIN.digest}"'})
    assert (answer.status, answer.body, answer.length) == (304, b"", 0)
    assert answer.fields["ETag"] == f'"{PLAIN.digest}"'
    assert client.ask("/v2/os/manifests/2", {"if-none-match": '"x"'}).status == 200


def test_the_registry_tells_images_of_one_name_apart(client: Client, stock: FakeStock) -> None:
    stock.ambiguous.add("os")
    status, error = client.error("/v2/os/manifests/1")
    assert (status, error["code"]) == (404, "MANIFEST_UNKNOWN")
    assert "a.example/os" in error["message"]
    assert client.ask("/v2/os/manifests/1?ns=a.example").body == INDEX.raw
    assert stock.asked == [None, "a.example"]


# --- blobs ----------------------------------------------------------------------------------------------


def test_a_blob_is_sent_whole_or_in_part(client: Client, stock: FakeStock, sender: FakeSender) -> None:
    raw = bytes(range(256)) * 400
    target = f"/v2/os/blobs/{(digest := stock.add_blob(raw))}"
    answer = client.ask(target)
    assert (answer.status, body(answer), answer.length) == (200, raw, len(raw))
    assert answer.fields["Accept-Ranges"] == "bytes"
    assert answer.fields["Docker-Content-Digest"] == digest
    part = client.ask(target, {"range": "bytes=100-199"})
    assert (part.status, body(part), part.length) == (206, raw[100:200], 100)
    assert part.fields["Content-Range"] == f"bytes 100-199/{len(raw)}"
    assert all(outgoing.is_closed for outgoing in sender.opened)


def test_a_range_without_bytes_is_416(client: Client, stock: FakeStock, sender: FakeSender) -> None:
    target = f"/v2/os/blobs/{stock.add_blob(b'abc')}"
    answer = client.ask(target, {"range": "bytes=3-"})
    assert (answer.status, answer.fields["Content-Range"]) == (416, "bytes */3")
    assert sender.opened == []


def test_head_opens_nothing_and_knows_no_range(client: Client, stock: FakeStock, sender: FakeSender) -> None:
    target = f"/v2/os/blobs/{stock.add_blob(b'abc')}"
    answer = client.ask(target, {"range": "bytes=3-"}, method="HEAD")
    assert (answer.status, answer.length, answer.outgoing) == (200, 3, None)
    assert sender.opened == []


def test_a_blob_that_the_client_has_is_not_opened(
    client: Client, stock: FakeStock, sender: FakeSender
) -> None:
    digest = stock.add_blob(b"abc")
    answer = client.ask(f"/v2/os/blobs/{digest}", {"if-none-match": f'"{digest}"', "range": "bytes=0-1"})
    assert answer.status == 304
    assert sender.opened == []


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_a_blob_that_is_gone_is_named_by_its_content(client: Client, stock: FakeStock, method: str) -> None:
    stock.add_gone(ABSENT, DIFF_ID)
    answer = client.ask(f"/v2/os/blobs/{ABSENT}", method=method)
    (error,) = json.loads(answer.body)["errors"]
    assert (answer.status, error["code"]) == (404, "BLOB_UNKNOWN")
    assert answer.fields["Layertee-Diff-ID"] == DIFF_ID
    assert error["detail"] == {"digest": ABSENT, "diffID": DIFF_ID}


def test_of_an_unknown_blob_nothing_is_claimed(client: Client) -> None:
    answer = client.ask(f"/v2/os/blobs/{ABSENT}")
    assert "Layertee-Diff-ID" not in answer.fields
    assert client.error(f"/v2/os/blobs/{ABSENT}")[1]["detail"] == {"digest": ABSENT}


def test_a_blob_that_vanishes_before_its_first_byte_is_404(
    client: Client, stock: FakeStock, sender: FakeSender
) -> None:
    digest = stock.add_blob(b"abc")
    stock.add_gone(digest, DIFF_ID)
    for error in (
        SourceUnreadable("gone"),
        NotFound("gone"),
        DigestMismatch("something else", want=digest, got=ABSENT),
    ):
        sender.refused[digest] = error
        answer = client.ask(f"/v2/os/blobs/{digest}")
        assert (answer.status, answer.fields["Layertee-Diff-ID"]) == (404, DIFF_ID)


def test_a_server_that_has_enough_to_do_says_when_to_come_again(
    client: Client, stock: FakeStock, sender: FakeSender
) -> None:
    digest = stock.add_blob(b"abc")
    sender.refused[digest] = ServerBusy("too many", retry_after=2.6)
    answer = client.ask(f"/v2/os/blobs/{digest}")
    assert (answer.status, answer.fields["Retry-After"]) == (503, "3")
    assert client.error(f"/v2/os/blobs/{digest}")[1]["code"] == "TOOMANYREQUESTS"


@pytest.mark.parametrize(
    ("number", "status"), [(errno.EMFILE, 503), (errno.ENOMEM, 503), (errno.EIO, 404), (errno.ENOENT, 404)]
)
def test_a_machine_that_is_short_of_something_does_not_say_that_a_blob_is_gone(
    client: Client, stock: FakeStock, sender: FakeSender, number: int, status: int
) -> None:
    digest = stock.add_blob(b"abc")
    error = SourceUnreadable("it cannot be opened")
    error.__cause__ = OSError(number, "why")
    sender.refused[digest] = error
    assert client.ask(f"/v2/os/blobs/{digest}").status == status


# --- errors ---------------------------------------------------------------------------------------------


def test_an_error_is_what_the_specification_has() -> None:
    answer = Refusal(404, Code.BLOB_UNKNOWN, "no", detail={"a": 1}, fields={"X": "y"}).answer()
    assert json.loads(answer.body) == {
        "errors": [{"code": "BLOB_UNKNOWN", "message": "no", "detail": {"a": 1}}]
    }
    assert answer.fields["Content-Type"] == "application/json"
    assert answer.fields["Cache-Control"] == "no-store"
    assert answer.fields["X"] == "y"
    assert "detail" not in json.loads(Refusal(400, Code.UNKNOWN, "no").answer().body)["errors"][0]
