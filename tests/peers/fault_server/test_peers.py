"""Where hosts may be that a registry names: decided by the addresses that are connected to."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping

import pytest
import uvloop

from layertee.errors import ConnectFailed, LayerteeError, RedirectRefused
from layertee.registry.http import Transport
from tests.support.fakes.fault_server import FaultServer
from tests.support.fakes.names import Names
from tests.support.fakes.proxies import http_proxy, socks_proxy
from tests.support.rig.registry import free_port

LOOPS: dict[str, Callable[[], asyncio.AbstractEventLoop]] = {
    "uvloop": uvloop.new_event_loop,
    "asyncio": asyncio.new_event_loop,
}


@pytest.fixture(params=list(LOOPS))
def loop(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    for name in ("http_proxy", "https_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    return str(request.param)


def ask(
    loop: str, names: Mapping[str, tuple[str, ...]], *steps: tuple[str, str | None], connect_s: float = 10.0
) -> list[int | LayerteeError]:
    """GET each URL, near that registry or anywhere, with one transport: the statuses, or what was raised."""

    async def main() -> list[int | LayerteeError]:
        found: list[int | LayerteeError] = []
        transport = Transport(
            user_agent="layertee-test/1", connect_s=connect_s, resolver=lambda: Names(names)
        )
        try:
            for url, near in steps:
                try:
                    answer = await transport.fetch("GET", url, headers={}, limit=1000, near=near)
                    body = await transport.open(url, headers={}, near=near)
                    body.close()
                    found.append(answer.status)
                except LayerteeError as exc:
                    found.append(exc)
        finally:
            await transport.close()
        return found

    with asyncio.Runner(loop_factory=LOOPS[loop]) as runner:
        return runner.run(main())


@pytest.mark.parametrize(
    "addresses",
    [
        ("127.0.0.1",),
        ("127.9.9.9",),
        ("::1",),
        ("0.0.0.0",),
        ("127.0.0.1", "::1"),
        ("169.254.169.254",),
        ("fe80::1",),
        ("100.100.100.200",),
        ("fd00:ec2::254",),
        ("64:ff9b::7f00:1",),
        ("64:ff9b:1::a9fe:a9fe",),
        ("2002:7f00:1::",),
        ("::ffff:127.0.0.1",),
    ],
    ids=str,
)
def test_a_name_does_not_lead_into_this_machine_or_its_cloud(loop: str, addresses: tuple[str, ...]) -> None:
    with FaultServer() as server:
        port = server.host.partition(":")[2]
        names = {"cdn.test": addresses, "registry.test": ("192.0.2.1",)}
        (error,) = ask(loop, names, (f"http://cdn.test:{port}/v2/?sig=planted", "registry.test"))
        assert isinstance(error, RedirectRefused)
        assert not error.retryable
        said = f"cdn.test:{port} is not connected to: its address {addresses[0]} is "
        assert str(error).startswith(said)
        assert server.requests() == []
        assert server.max_connections == 0


@pytest.mark.parametrize("address", ["127.0.0.1", "[::1]", "169.254.169.254"])
def test_an_address_in_the_url_is_judged_as_well(loop: str, address: str) -> None:
    (error,) = ask(loop, {}, (f"http://{address}:{free_port()}/", "registry.test"))
    assert isinstance(error, RedirectRefused)


def test_of_several_addresses_those_that_may_be_used_are(loop: str) -> None:
    with FaultServer() as server:
        url = f"http://cdn.test:{server.host.partition(':')[2]}/v2/"
        names = {"cdn.test": ("169.254.169.254", "127.0.0.1")}
        assert ask(loop, names, (url, "127.0.0.1"), connect_s=1) == [200]


def test_a_name_that_does_not_resolve_is_no_refusal(loop: str) -> None:
    (error,) = ask(loop, {}, ("http://cdn.test/", "registry.test"))
    assert isinstance(error, ConnectFailed)


def test_what_the_user_names_may_be_anywhere(loop: str) -> None:
    with FaultServer() as server:
        port = server.host.partition(":")[2]
        assert ask(loop, {"registry.test": ("127.0.0.1",)}, (f"http://registry.test:{port}/v2/", None)) == [
            200
        ]


@pytest.mark.parametrize("registry", ["registry.test", "127.0.0.1"])
def test_a_registry_in_this_machine_may_lead_to_others_in_it(loop: str, registry: str) -> None:
    with FaultServer() as server:
        port = server.host.partition(":")[2]
        names = {"registry.test": ("127.0.0.1", "127.0.0.1"), "cdn.test": ("127.0.0.1",)}
        names["metadata.test"] = ("169.254.169.254",)
        found = ask(
            loop,
            names,
            (f"http://{registry}:{port}/v2/", None),
            (f"http://cdn.test:{port}/v2/", registry),
            (f"http://metadata.test:{port}/v2/", registry),
        )
        assert found[:2] == [200, 200]
        assert isinstance(found[2], RedirectRefused)


def test_a_registry_with_one_foot_in_this_machine_may_not(loop: str) -> None:
    with FaultServer() as server:
        port = server.host.partition(":")[2]
        names = {"registry.test": ("127.0.0.1", "192.0.2.1"), "cdn.test": ("127.0.0.1",)}
        found = ask(
            loop,
            names,
            (f"http://registry.test:{port}/v2/", None),
            (f"http://cdn.test:{port}/v2/", "registry.test"),
        )
        assert found[0] == 200
        assert isinstance(found[1], RedirectRefused)


def test_a_connection_to_where_the_user_may_go_is_not_lent_to_a_registry(loop: str) -> None:
    with FaultServer() as server:
        port = server.host.partition(":")[2]
        names = {"local.test": ("127.0.0.1",), "registry.test": ("192.0.2.1",)}
        url = f"http://local.test:{port}/v2/"
        found = ask(loop, names, (url, None), (url, "registry.test"), (url, None))
        assert (found[0], found[2]) == (200, 200)
        assert isinstance(found[1], RedirectRefused)


@pytest.mark.parametrize("kind", ["http://", "socks5://"])
def test_where_a_proxy_is_does_not_matter(loop: str, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if kind.startswith("socks"):
        pytest.importorskip("aiohttp_socks")
    make = socks_proxy if kind.startswith("socks") else http_proxy
    with FaultServer() as server, make(server.host) as proxy:
        monkeypatch.setenv("http_proxy", f"{kind}{proxy.address}")
        assert ask(loop, {}, ("http://cdn.test/v2/", "registry.test")) == [200]


def test_a_name_is_looked_up_once_for_a_connection(loop: str) -> None:
    names = Names({"cdn.test": ("127.0.0.1",)})

    async def main() -> None:
        transport = Transport(user_agent="layertee-test/1", resolver=lambda: names)
        try:
            with pytest.raises(RedirectRefused):
                await transport.open("http://cdn.test/", headers={}, near="registry.test")
        finally:
            await transport.close()

    with asyncio.Runner(loop_factory=LOOPS[loop]) as runner:
        runner.run(main())
    assert names.asked == ["cdn.test"]
