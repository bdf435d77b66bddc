"""Exchanges through the proxies of the environment. No name resolves here: only a proxy knows the server."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import uvloop

from layertee.config.logins import Credentials
from layertee.errors import (
    ConnectFailed,
    LayerteeError,
    ProxyConfigError,
    ProxyRefused,
    TLSFailed,
    TransportError,
    Unauthorized,
)
from layertee.image.document import Platform
from layertee.image.reference import Reference, parse_reference
from layertee.registry.client import Registry
from layertee.registry.http import TLSPolicy, Transport, WholeResponse
from tests.support.fakes.fault_server import FaultServer, on
from tests.support.fakes.faults import Raw
from tests.support.fakes.proxies import http_proxy, socks_proxy
from tests.support.rig.certs import make_certificates
from tests.support.rig.images import BuiltImage
from tests.support.rig.registry import free_port

AnyProxy = Callable[..., Any]
SECRET = "planted"
LOOPS: dict[str, Callable[[], asyncio.AbstractEventLoop]] = {
    "uvloop": uvloop.new_event_loop,
    "asyncio": asyncio.new_event_loop,
}
WAIVED = TLSPolicy(verify=False)


@pytest.fixture(params=list(LOOPS))
def loop(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    for name in ("http_proxy", "https_proxy", "no_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    return monkeypatch


def fetch(loop: str, *urls: str, tls: TLSPolicy = WAIVED) -> list[WholeResponse]:
    """The answers, from one transport."""

    async def main() -> list[WholeResponse]:
        transport = Transport(user_agent="layertee-test/1")
        try:
            async with asyncio.timeout(60):
                return [await transport.fetch("GET", u, headers={}, limit=1 << 20, tls=tls) for u in urls]
        finally:
            await transport.close()
            assert asyncio.all_tasks() == {asyncio.current_task()}

    with asyncio.Runner(loop_factory=LOOPS[loop]) as runner:
        return runner.run(main())


def failure(loop: str, url: str, tls: TLSPolicy = WAIVED) -> LayerteeError:
    with pytest.raises(LayerteeError) as caught:
        fetch(loop, url, tls=tls)
    assert SECRET not in str(caught.value)
    return caught.value


def path(built: BuiltImage) -> str:
    return f"/v2/rig/image/blobs/{built.config_digest}"


@pytest.mark.parametrize("login", [None, "user:p@ss word"])
@pytest.mark.parametrize("scheme", ["http", "https"])
@pytest.mark.parametrize("kind", ["", "http://", "https://", "socks5://", "socks5h://"])
def test_a_proxy_of_the_environment_is_used(
    built: BuiltImage,
    loop: str,
    kind: str,
    scheme: str,
    login: str | None,
    environment: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    if kind.startswith("socks"):
        pytest.importorskip("aiohttp_socks")
    options: dict[str, Any] = {"login": login}
    if kind == "https://":
        options["tls"] = make_certificates(tmp_path).server_context()
    make: AnyProxy = socks_proxy if kind.startswith("socks") else http_proxy
    url = f"{scheme}://registry.test:5000{path(built)}"
    with FaultServer(built, tls=scheme == "https") as server, make(server.host, **options) as proxy:
        user = "" if login is None else "user:p%40ss%20word@"
        environment.setenv(f"{scheme.upper()}_PROXY", f"{kind}{user}{proxy.address}")
        answers = fetch(loop, url, url)
        assert [answer.body for answer in answers] == [built.config] * 2
        whole = scheme == "http" and not kind.startswith("socks")
        assert set(proxy.asked) == {url if whole else "registry.test:5000"}
        assert set(proxy.logins) == {login}
        assert {answer.through for answer in answers} == {proxy.address if whole else ""}
        for request in server.requests():
            assert request.header("Proxy-Authorization") is None


@pytest.mark.parametrize("scheme", ["http", "https"])
@pytest.mark.parametrize("kind", ["http://", "socks5://"])
def test_odd_heads_are_read_through_a_proxy_too(
    built: BuiltImage, loop: str, kind: str, scheme: str, environment: pytest.MonkeyPatch
) -> None:
    if kind.startswith("socks"):
        pytest.importorskip("aiohttp_socks")
    odd = Raw(
        b"HTTP/1.1 200 OK\r\nBad Name: x\r\nContent-Length: 7\r\nContent-Length: 7\r\n\r\n" + b'{"a":1}'
    )
    make: AnyProxy = socks_proxy if kind.startswith("socks") else http_proxy
    url = f"{scheme}://registry.test:5000{path(built)}"
    with (
        FaultServer(built, [on("blob", odd)], tls=scheme == "https") as server,
        make(server.host) as proxy,
    ):
        environment.setenv(f"{scheme}_proxy", f"{kind}{proxy.address}")
        assert [answer.body for answer in fetch(loop, url, url)] == [b'{"a":1}'] * 2
        assert len(proxy.asked) == 2


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "LOCALHOST", "127.1.2.3"])
def test_this_machine_is_never_asked_through_a_proxy(
    built: BuiltImage, loop: str, host: str, environment: pytest.MonkeyPatch
) -> None:
    with http_proxy() as proxy:
        environment.setenv("http_proxy", proxy.address)
        error = failure(loop, f"http://{host}:{free_port()}/v2/")
        assert isinstance(error, ConnectFailed)
        assert proxy.asked == []
        assert proxy.address not in str(error)


@pytest.mark.parametrize("kind", ["http://", "socks5://"])
def test_a_proxy_that_is_down_is_named_without_its_password(
    loop: str, kind: str, environment: pytest.MonkeyPatch
) -> None:
    if kind.startswith("socks"):
        pytest.importorskip("aiohttp_socks")
    port = free_port()
    for scheme in ("http", "https"):
        environment.setenv(f"{scheme}_proxy", f"{kind}user:{SECRET}@127.0.0.1:{port}")
        error = failure(loop, f"{scheme}://registry.test/v2/")
        assert isinstance(error, ConnectFailed)
        assert str(error).startswith(f"registry.test: its proxy 127.0.0.1:{port}")
    environment.setenv("http_proxy", "proxy.invalid:3128")
    error = failure(loop, "http://registry.test/v2/")
    assert isinstance(error, ConnectFailed)
    assert str(error).startswith("registry.test: its proxy proxy.invalid:3128: ")


@pytest.mark.parametrize("scheme", ["http", "https"])
@pytest.mark.parametrize(
    ("status", "kind"),
    [
        ("407 Proxy Authentication Required", ProxyRefused),
        ("403 Forbidden", ProxyRefused),
        ("405 Method Not Allowed", ProxyRefused),
        ("302 Found", ProxyRefused),
        ("502 Bad Gateway", ConnectFailed),
        ("503 Service Unavailable", ConnectFailed),
    ],
)
def test_a_proxy_that_does_not_let_pass_is_named(
    loop: str, scheme: str, status: str, kind: type[LayerteeError], environment: pytest.MonkeyPatch
) -> None:
    with http_proxy(refuse=status.encode()) as proxy:
        environment.setenv(f"{scheme}_proxy", f"http://user:{SECRET}@{proxy.address}")
        url = f"{scheme}://registry.test/v2/"
        if scheme == "http" and not status.startswith("407"):  # who says so cannot be seen
            (answer,) = fetch(loop, url)
            assert (str(answer.status), answer.through) == (status[:3], proxy.address)
            return
        error = failure(loop, url)
        assert isinstance(error, kind)
        assert error.retryable == (kind is ConnectFailed)
        assert f"its proxy {proxy.address} " in str(error)
        assert f"HTTP {status[:3]}" in str(error)


@pytest.mark.parametrize(
    ("options", "kind"),
    [
        ({"reply": 2}, ProxyRefused),
        ({"login": "user:other"}, ProxyRefused),
        ({"reply": 1}, ConnectFailed),
        ({"reply": 4}, ConnectFailed),
    ],
    ids=str,
)
def test_a_socks_proxy_that_does_not_let_pass_is_named(
    loop: str, options: dict[str, Any], kind: type[LayerteeError], environment: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("aiohttp_socks")
    with socks_proxy(**options) as proxy:
        environment.setenv("https_proxy", f"socks5://user:{SECRET}@{proxy.address}")
        error = failure(loop, "https://registry.test/v2/")
        assert isinstance(error, kind)
        assert error.retryable == (kind is ConnectFailed)
        assert f"registry.test: its proxy {proxy.address} " in str(error)


@pytest.mark.parametrize("kind", ["http://", "https://", "socks5://"])
def test_certificates_are_judged_within_a_tunnel(
    built: BuiltImage, loop: str, kind: str, environment: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    if kind.startswith("socks"):
        pytest.importorskip("aiohttp_socks")
    make: AnyProxy = socks_proxy if kind.startswith("socks") else http_proxy
    options = {"tls": make_certificates(tmp_path).server_context()} if kind == "https://" else {}
    with FaultServer(built, tls=True) as server, make(server.host, **options) as proxy:
        environment.setenv("https_proxy", f"{kind}{proxy.address}")
        error = failure(loop, f"https://registry.test{path(built)}", TLSPolicy())
        assert isinstance(error, TLSFailed)
        assert proxy.address in str(error)
        assert server.requests() == []


def test_the_variable_of_a_proxy_that_is_none_is_named(loop: str, environment: pytest.MonkeyPatch) -> None:
    environment.setenv("HTTPS_PROXY", f"http://user:{SECRET}#1@proxy.test:3128")
    error = failure(loop, "https://registry.test/v2/")
    assert isinstance(error, ProxyConfigError)
    assert str(error).startswith("HTTPS_PROXY is not the URL of a proxy")


def test_without_the_library_a_socks_proxy_is_refused_by_name(
    loop: str, environment: pytest.MonkeyPatch
) -> None:
    environment.setitem(sys.modules, "aiohttp_socks", None)
    environment.setenv("https_proxy", f"socks5://user:{SECRET}@proxy.test")
    error = failure(loop, "https://registry.test/v2/")
    assert isinstance(error, ProxyConfigError)
    assert "socks5://proxy.test:1080" in str(error)
    assert "aiohttp-socks" in str(error)


@pytest.mark.parametrize(("status", "kind"), [("407 No", ProxyRefused), ("403 No", Unauthorized)])
def test_what_a_proxy_refuses_is_asked_for_once_and_says_that_there_is_a_proxy(
    status: str, kind: type[TransportError], environment: pytest.MonkeyPatch
) -> None:
    async def main(address: str) -> None:
        transport = Transport(user_agent="layertee-test/1")
        reference = parse_reference("registry.test:5000/a/b:latest")
        assert isinstance(reference, Reference)
        registry = Registry(transport, reference, Credentials.no_credentials(), tls=WAIVED, allow_http=True)
        try:
            with pytest.raises(kind, match=f"proxy {address}") as caught:
                await registry.resolve(Platform("linux", "amd64"))
            assert not caught.value.retryable
        finally:
            await transport.close()

    with http_proxy(refuse=status.encode()) as proxy:
        environment.setenv("http_proxy", proxy.address)
        environment.setenv("https_proxy", proxy.address)
        asyncio.run(main(proxy.address))
        asked = [url for url in proxy.asked if url.startswith("http://")]
        assert asked == ["http://registry.test:5000/v2/a/b/manifests/latest"]
