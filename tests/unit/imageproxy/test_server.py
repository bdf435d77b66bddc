"""The server between its socket and its images: requests that are given up, and images that are closed."""

from __future__ import annotations

import asyncio
import json
import os
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, cast

import pytest

from layertee.imageproxy.server import Answer, Image, Pipe, Server
from layertee.imageproxy.wire import MAX_PACKET, Channel, ClientGone, Reply, failure


class Picture:
    """An image whose manifest is ready when ``ready`` is, and which counts what becomes of it."""

    def __init__(self, *, refuses_to_close: bool = False) -> None:
        self.ready = asyncio.Event()
        self.asked = asyncio.Event()
        self.given_up = False
        self.tasks: list[asyncio.Task[Any] | None] = []
        self.n_closed = 0
        self._refuses_to_close = refuses_to_close

    async def manifest(self) -> Answer:
        self.tasks.append(asyncio.current_task())
        self.asked.set()
        try:
            await self.ready.wait()
        except asyncio.CancelledError:
            self.given_up = True
            raise
        fd = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
        return Answer("sha256:1", Pipe(fd))

    async def config(self) -> Answer:
        raise TimeoutError("of something that the image waited for")

    async def close(self) -> None:
        self.tasks.append(asyncio.current_task())
        self.n_closed += 1
        if self._refuses_to_close:
            raise ZeroDivisionError("a mistake")


class Client:
    """The other end of the socket, on the event loop."""

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        self.sock = sock

    def send(self, method: str, *args: object) -> None:
        self.sock.send(json.dumps({"method": method, "args": list(args)}).encode())

    async def receive(self) -> dict[str, Any]:
        """The next reply; its descriptors are closed."""
        loop = asyncio.get_running_loop()
        ready = asyncio.Event()
        loop.add_reader(self.sock, ready.set)
        await ready.wait()
        loop.remove_reader(self.sock)
        packet, fds, _, _ = socket.recv_fds(self.sock, 2 * MAX_PACKET, 4)
        for fd in fds:
            os.close(fd)
        reply = json.loads(packet)
        assert isinstance(reply, dict)
        return reply

    async def call(self, method: str, *args: object) -> dict[str, Any]:
        self.send(method, *args)
        return await self.receive()


@asynccontextmanager
async def serving(*images: Picture) -> AsyncIterator[tuple[Client, asyncio.Task[None]]]:
    """A server that opens ``images`` one after the other, initialized."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    waiting = list(images)

    async def open_image(name: str) -> Image:
        return cast(Image, waiting.pop(0))

    with ours, theirs:
        channel = Channel(theirs)
        server = asyncio.create_task(Server(channel, open_image).serve())
        client = Client(ours)
        assert (await client.call("Initialize"))["success"]
        for at, _ in enumerate(images, 1):
            assert (await client.call("OpenImage", "x"))["value"] == at
        try:
            yield client, server
        finally:
            ours.close()
            await asyncio.wait({server})
            channel.close()


def test_everything_is_done_in_the_task_that_serves() -> None:
    """What an image enters in one request it may leave in another."""

    async def main() -> None:
        one, two = Picture(), Picture()
        one.ready.set()
        async with serving(one, two) as (client, server):
            assert (await client.call("GetManifest", 1))["success"]
            assert (await client.call("CloseImage", 1))["success"]
            client.send("Shutdown")
            await server
        assert one.tasks == [server, server] and two.tasks == [server]
        assert (one.n_closed, two.n_closed) == (1, 1)

    asyncio.run(main())


def test_a_client_that_goes_away_ends_its_request() -> None:
    async def main() -> None:
        image = Picture()
        async with serving(image) as (client, server):
            client.send("GetManifest", 1)
            await image.asked.wait()
            client.sock.close()
            await server
        assert image.given_up and image.n_closed == 1

    asyncio.run(main())


@pytest.mark.parametrize("character", ["a", "é", "\n", "\udcff", "\U0001f600"])
def test_an_error_text_of_any_characters_and_length_is_answered_in_one_packet(character: str) -> None:
    for n in (0, 1000, 2700, 4000, 100_000):
        packet = failure(character * n).packet()
        assert len(packet) <= MAX_PACKET
        assert json.loads(packet)["error"].endswith(character * min(n, 1000) or "unknown error")


def test_a_request_that_times_out_is_answered_as_a_failure() -> None:
    async def main() -> None:
        async with serving(Picture()) as (client, server):
            reply = await client.call("GetConfig", 1)
            assert not reply["success"] and "TimeoutError" in reply["error"]
            assert not server.done()

    asyncio.run(main())


def test_every_image_is_closed_even_if_one_of_them_cannot_be() -> None:
    async def main() -> None:
        images = [Picture(), Picture(refuses_to_close=True), Picture()]
        async with serving(*images) as (client, server):
            client.send("Shutdown")
            await asyncio.wait({server})
            assert isinstance(server.exception(), ZeroDivisionError)
        assert [image.n_closed for image in images] == [1, 1, 1]

    asyncio.run(main())


def test_a_server_that_is_cancelled_closes_its_images() -> None:
    async def main() -> None:
        image = Picture()
        async with serving(image) as (client, server):
            client.send("GetManifest", 1)
            await image.asked.wait()
            server.cancel()
            await asyncio.wait({server})
            assert server.cancelled()
        assert image.given_up and image.n_closed == 1

    asyncio.run(main())


# --- the channel alone --------------------------------------------------------------------------------------


def test_a_reply_to_a_client_that_does_not_read_waits_until_it_does_or_is_gone() -> None:
    async def main(reads: bool) -> int:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with ours, theirs:
            channel = Channel(theirs)
            reply = Reply("x" * 30_000)
            ours.setblocking(False)
            n_sent = 0
            sending = asyncio.create_task(channel.send(reply))
            while await _ends(sending):
                n_sent += 1
                sending = asyncio.create_task(channel.send(reply))
            if reads:
                for _ in range(n_sent):
                    ours.recv(MAX_PACKET)
            else:
                ours.close()
            await sending
            channel.close()
        return n_sent

    assert asyncio.run(main(reads=True)) > 0
    assert asyncio.run(main(reads=False)) > 0


async def _ends(task: asyncio.Task[None]) -> bool:
    """Whether it ends by itself, without anybody else doing something."""
    for _ in range(5):
        await asyncio.sleep(0)
    return task.done()


def test_what_is_done_for_a_client_that_was_gone_before_is_given_up_where_it_waits() -> None:
    async def main() -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with ours, theirs:
            channel = Channel(theirs)
            ours.close()
            assert await channel.receive() is None
            with pytest.raises(ClientGone):
                async with channel.unless_gone():
                    await asyncio.Event().wait()
            channel.close()

    asyncio.run(main())


def test_work_that_ends_while_the_client_goes_keeps_its_own_error() -> None:
    async def main() -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with ours, theirs:
            channel = Channel(theirs)
            with pytest.raises(TimeoutError, match="its own"):
                async with channel.unless_gone():
                    raise TimeoutError("its own")
            channel.close()

    asyncio.run(main())
