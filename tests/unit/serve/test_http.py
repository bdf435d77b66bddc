"""Connections of the server over pairs of sockets: what goes through them, and how they end."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import NamedTuple

import pytest

from layertee.errors import LocalError
from layertee.serve.app import App
from layertee.serve.connections import Connections
from layertee.serve.http import FIELDS_MAX, LINE_MAX, Site
from layertee.serve.metrics import Metrics
from layertee.serve.pacing import Throttle
from tests.support.fakes.stock import FakeSender, FakeStock, document
from tests.support.process import until

LATE_S = 60.0
PLAIN = document({"layers": []})
BIG = bytes(range(256)) * 8192  # 2 MiB


class Answer(NamedTuple):
    """As it came: ``is_whole`` says whether the body has the length that its head promised."""

    status: int
    head: dict[str, str]
    body: bytes
    is_whole: bool


class Client:
    """The other end of one connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def ask(self, target: str, *fields: str, method: str = "GET") -> Answer:
        head = [f"{method} {target} HTTP/1.1", "Host: x", *fields, "", ""]
        return await self.exchange("\r\n".join(head).encode(), has_body=method != "HEAD")

    async def exchange(self, raw: bytes, has_body: bool = True) -> Answer:
        self.writer.write(raw)
        return await self.answer(has_body)

    async def answer(self, has_body: bool = True) -> Answer:
        lines = (await self.reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        head = {
            name.lower(): value for name, _, value in (line.partition(": ") for line in lines[1:] if line)
        }
        status = int(lines[0].split()[1])
        length = int(head.get("content-length", "0")) if has_body and status != 304 else 0
        try:
            return Answer(status, head, await self.reader.readexactly(length), True)
        except asyncio.IncompleteReadError as exc:
            return Answer(status, head, exc.partial, False)
        except ConnectionError:
            return Answer(status, head, b"", False)

    async def is_at_its_end(self) -> bool:
        """Whether the server has closed, and sent nothing more."""
        try:
            return await self.reader.read(1) == b""
        except ConnectionError:
            return True


class House:
    """A site over fakes, and connections to it."""

    def __init__(self, tmp_path: Path, rate: int | None = None) -> None:
        self.stock = FakeStock(images={("os", "1"): [PLAIN]})
        self.sender = FakeSender()
        self.connections = Connections(100)
        self.metrics = Metrics(lambda: self.connections.count)
        self.site = Site(
            App(self.stock, self.sender, self.metrics.page), self.connections, self.metrics, Throttle(rate)
        )
        path = tmp_path / "big"
        path.write_bytes(BIG)
        self.in_file = self.stock.add_blob(BIG, path)
        self.in_memory = self.stock.add_blob(BIG[:-1])

    @asynccontextmanager
    async def client(self) -> AsyncIterator[Client]:
        ours, theirs = socket.socketpair()
        await self.connections.room()
        loop = asyncio.get_running_loop()
        await loop.connect_accepted_socket(lambda: self.site.new_connection(ours.close), ours)
        reader, writer = await asyncio.open_connection(sock=theirs)
        try:
            yield Client(reader, writer)
        finally:
            writer.close()

    async def settled(self) -> None:
        """All connections are gone, and nothing is open."""
        await until(lambda: self.connections.count == 0, "all connections have ended")
        await until(lambda: all(one.is_closed for one in self.sender.opened), "nothing is open")

    def counted(self, sample: str) -> bool:
        return f"{sample} 1.0\n" in self.metrics.page()[0].decode()


Work = Callable[[House], Awaitable[None]]


@pytest.fixture
def run(tmp_path: Path) -> Callable[[Work], None]:
    """Run a test's coroutine; after it, all has to be closed."""

    def run(work: Work) -> None:
        async def main() -> None:
            async with asyncio.timeout(LATE_S):
                house = House(tmp_path)
                await work(house)
                await house.settled()

        asyncio.run(main())

    return run


Run = Callable[[Work], None]


def test_one_connection_answers_many_requests(run: Run) -> None:
    async def work(house: House) -> None:
        async with house.client() as client:
            assert (await client.ask("/v2/")).body == b"{}"
            assert (await client.ask("/v2/os/manifests/1")).body == PLAIN.raw
            head = await client.ask("/v2/os/manifests/1", method="HEAD")
            assert (head.head["content-length"], head.body) == (str(len(PLAIN.raw)), b"")
            not_modified = await client.ask("/v2/os/manifests/1", f'If-None-Match: "{PLAIN.digest}"')
            assert not_modified.status == 304
            missing = await client.ask("/v2/os/manifests/2")
            assert json.loads(missing.body)["errors"][0]["code"] == "MANIFEST_UNKNOWN"
            assert (await client.ask("/v2/os/manifests/2", method="HEAD")).status == 404
            assert (await client.ask("/v2/")).status == 200

    run(work)


def test_a_blob_comes_out_of_a_file_or_in_chunks(run: Run) -> None:
    async def work(house: House) -> None:
        async with house.client() as client:
            for digest, raw in ((house.in_file, BIG), (house.in_memory, BIG[:-1])):
                target = f"/v2/os/blobs/{digest}"
                assert (await client.ask(target)).body == raw
                part = await client.ask(target, "Range: bytes=70000-70000")
                assert (part.status, part.body) == (206, raw[70000:70001])
                part = await client.ask(target, "Range: bytes=100-1999999")
                assert part.body == raw[100:2000000]
                head = await client.ask(target, method="HEAD")
                assert head.head["content-length"] == str(len(raw))

    run(work)


def test_two_requests_may_come_at_once(run: Run) -> None:
    async def work(house: House) -> None:
        async with house.client() as client:
            one = f"GET /v2/os/blobs/{house.in_file} HTTP/1.1\r\nHost: x\r\n\r\n".encode()
            first = await client.exchange(one * 3)
            assert first.body == BIG
            assert (await client.answer()).body == (await client.answer()).body == BIG

    run(work)


def test_fields_of_one_name_are_a_list(run: Run) -> None:
    async def work(house: House) -> None:
        async with house.client() as client:
            refused = await client.ask("/v2/os/manifests/1", "Accept: a/b", "Accept: c/d")
            assert refused.status == 404
            taken = await client.ask("/v2/os/manifests/1", "Accept: a/b", "Accept: application/*")
            assert taken.status == 200

    run(work)


@pytest.mark.parametrize("wrong_at", [0, 500_000, 2_050_000])
def test_an_answer_that_turns_out_wrong_does_not_end_like_a_good_one(run: Run, wrong_at: int) -> None:
    async def work(house: House) -> None:
        house.sender.wrong[house.in_memory] = wrong_at
        async with house.client() as client:
            answer = await client.ask(f"/v2/os/blobs/{house.in_memory}")
            assert not answer.is_whole
            assert len(answer.body) < len(BIG) - 1
            assert await client.is_at_its_end()
        await house.settled()
        assert house.counted('layertee_serve_blobs_total{end="failed",place="fake",way="hashed"}')

    run(work)


def test_a_file_that_changes_while_it_is_sent_does_not_end_like_a_good_one(run: Run) -> None:
    async def work(house: House) -> None:
        house.sender.changing |= {house.in_file, house.in_memory}
        for digest in (house.in_file, house.in_memory):
            for fields in ([], ["Range: bytes=0-0"]):
                blob = house.stock.blobs[digest]
                async with house.client() as client:
                    assert not (await client.ask(f"/v2/os/blobs/{digest}", *fields)).is_whole
                async with house.client() as client:
                    assert (await client.ask(f"/v2/os/blobs/{digest}", *fields)).status == 404
                house.stock.blobs[digest] = blob

    run(work)


def test_a_file_that_has_become_shorter_does_not_end_like_a_good_one(run: Run, tmp_path: Path) -> None:
    async def work(house: House) -> None:
        (tmp_path / "big").write_bytes(BIG[:1000])
        async with house.client() as client:
            answer = await client.ask(f"/v2/os/blobs/{house.in_file}")
            assert (answer.is_whole, answer.body) == (False, BIG[:1000])

    run(work)


@pytest.mark.parametrize("which", ["in_file", "in_memory"])
def test_what_is_open_is_closed_when_the_client_leaves(run: Run, which: str) -> None:
    async def work(house: House) -> None:
        async with house.client() as client:
            client.writer.write(
                f"GET /v2/os/blobs/{getattr(house, which)} HTTP/1.1\r\nHost: x\r\n\r\n".encode()
            )
            await client.reader.readexactly(1000)
        await house.settled()
        assert len(house.sender.opened) == 1

    run(work)


def test_a_client_that_takes_nothing_is_cut(run: Run) -> None:
    """The looks are a second apart for the site, whatever the clock says."""

    async def work(house: House) -> None:
        async with house.client() as client:
            client.writer.transport.pause_reading()  # type: ignore[attr-defined]
            client.writer.write(f"GET /v2/os/blobs/{house.in_file} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
            await until(lambda: house.sender.opened, "the answer has begun")
            for second in range(60):
                for _ in range(10):
                    await asyncio.sleep(0)
                house.site.see_late_ones_off(1000.0 + second)
            await house.settled()
        assert house.counted("layertee_serve_late_clients_total")

    run(work)


@pytest.mark.parametrize(
    "raw",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"GET /v2/ HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
        b"GET /v2/ HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nContent-Length: 2\r\n\r\n",
        b"GET /" + b"a" * (LINE_MAX + 10) + b" HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /v2/ HTTP/1.1\r\n" + b"A: b\r\n" * (FIELDS_MAX + 10) + b"\r\n",
        b"GET /v2/ HTTP/1.1\r\nA: " + b"b" * 100_000 + b"\r\n\r\n",
        b"GET /v2/ HTTP/1.1\r\nA : b\r\n\r\n",
        b"GET /v2/\0 HTTP/1.1\r\nHost: x\r\n\r\n",
    ],
)
def test_what_is_no_request_is_answered_once(run: Run, raw: bytes) -> None:
    async def work(house: House) -> None:
        async with house.client() as client:
            answer = await client.exchange(raw)
            assert answer.status == 400
            assert json.loads(answer.body)["errors"][0]["code"] == "UNSUPPORTED"
            assert await client.is_at_its_end()

    run(work)


@pytest.mark.parametrize("which", ["in_file", "in_memory"])
def test_a_client_may_end_its_half_and_still_read(run: Run, which: str) -> None:
    async def work(house: House) -> None:
        async with house.client() as client:
            client.writer.write(
                f"GET /v2/os/blobs/{getattr(house, which)} HTTP/1.1\r\nHost: x\r\n\r\n".encode()
            )
            client.writer.write_eof()
            assert (await client.answer()).body in (BIG, BIG[:-1])
            assert await client.is_at_its_end()

    run(work)


@pytest.mark.parametrize("raw", [b"", b"GET /v2/ HT"])
def test_a_client_that_ends_its_half_too_early_gets_nothing(run: Run, raw: bytes) -> None:
    async def work(house: House) -> None:
        async with house.client() as client:
            client.writer.write(raw)
            client.writer.write_eof()
            assert await client.is_at_its_end()

    run(work)


def test_after_a_request_with_a_body_the_connection_ends(run: Run) -> None:
    async def work(house: House) -> None:
        async with house.client() as client:
            answer = await client.exchange(b"GET /v2/ HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\n12345")
            assert (answer.status, answer.head["connection"]) == (200, "close")
            assert await client.is_at_its_end()

    run(work)


@pytest.mark.parametrize("error", [LocalError("the disk is on fire"), RuntimeError("a mistake")])
def test_what_fails_inside_is_answered_and_not_shown(
    run: Run, error: Exception, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def work(house: House) -> None:
        def fails(repository: str) -> None:
            raise error

        monkeypatch.setattr(house.stock, "tags", fails)
        async with house.client() as client:
            answer = await client.ask("/v2/os/tags/list")
            assert answer.status == 500
            assert json.loads(answer.body)["errors"][0]["code"] == "UNKNOWN"
            assert str(error).encode() not in answer.body
        async with house.client() as client:
            assert (await client.ask("/v2/os/manifests/1")).status == 200

    run(work)
    assert str(error) in caplog.text


@pytest.mark.slow
def test_a_rate_is_kept(tmp_path: Path) -> None:
    async def main() -> None:
        house = House(tmp_path, rate=10_000_000)
        loop = asyncio.get_running_loop()
        async with house.client() as one, house.client() as other:
            started = loop.time()
            answers = await asyncio.gather(
                one.ask(f"/v2/os/blobs/{house.in_file}"), other.ask(f"/v2/os/blobs/{house.in_memory}")
            )
            took = loop.time() - started
        await house.settled()
        assert [answer.body for answer in answers] == [BIG, BIG[:-1]]
        assert took > 0.3  # 4 MiB, the first slice of which is free

    asyncio.run(main())
