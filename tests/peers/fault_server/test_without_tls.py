"""A server that speaks HTTP alone, as on a developer's machine, and a client that tries TLS first."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from layertee.config.logins import Credentials
from layertee.errors import TLSFailed, TransportError
from layertee.image.reference import Reference, parse_reference
from layertee.image.resolved import ResolvedImage
from layertee.registry.client import Registry
from layertee.registry.http import TLSPolicy, Transport
from tests.support.fakes.image import AMD64, MANIFEST, Rig
from tests.support.fakes.transport import Answer


@asynccontextmanager
async def plain_registry(rig: Rig) -> AsyncIterator[tuple[str, list[bytes]]]:
    """The documents of ``rig`` over HTTP without TLS: ``host:port``, and what clients sent first."""
    seen: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            first = await reader.read(4)
            seen.append(first)
            if first == b"GET ":
                path = (await reader.readuntil(b"\r\n\r\n")).split(b" ")[0].decode()
                url = rig.base.partition("/v2/")[0] + path
                answer = rig.transport.routes.get(url, [Answer(404)])[0]
                assert isinstance(answer, Answer)
                head = "".join(f"{name}: {value}\r\n" for name, value in answer.pairs())
                length = len(answer.body)
                writer.write(
                    f"HTTP/1.1 {answer.status} X\r\n{head}Content-Length: {length}\r\n\r\n".encode()
                    + answer.body
                )
            else:
                writer.write(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")  # as Go's server does
            await writer.drain()
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        host, port = server.sockets[0].getsockname()
        yield f"{host}:{port}", seen


@pytest.mark.parametrize("allow_http", [True, False])
def test_a_real_peer_without_tls_is_spoken_to_in_http_only_if_allowed(allow_http: bool) -> None:
    async def scenario() -> tuple[object, list[bytes]]:
        rig = Rig("registry.example/ns/repo:tag")
        async with plain_registry(rig) as (host, seen):
            reference = parse_reference(f"{host}/ns/repo:tag")
            assert isinstance(reference, Reference)
            transport = Transport(user_agent="test")
            registry = Registry(
                transport,
                reference,
                Credentials.no_credentials(),
                tls=TLSPolicy(verify=not allow_http),
                allow_http=allow_http,
            )
            try:
                return await registry.resolve(AMD64), seen
            except TransportError as exc:
                return exc, seen
            finally:
                await transport.close()

    outcome, seen = asyncio.run(scenario())
    if allow_http:
        assert isinstance(outcome, ResolvedImage)
        assert outcome.manifest.raw == MANIFEST
    else:
        assert isinstance(outcome, TLSFailed)
        assert b"GET " not in seen
    assert seen[0][:1] == b"\x16"  # a TLS handshake came first
