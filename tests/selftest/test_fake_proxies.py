"""The proxies of the tests, seen by the standard library and by raw sockets."""

from __future__ import annotations

import http.client
import socket

import pytest

from tests.support.fakes.fault_server import FaultServer
from tests.support.fakes.proxies import http_proxy, socks_proxy


@pytest.mark.parametrize("tunnel", [False, True])
def test_the_http_proxy_leads_to_its_target_whatever_the_name(tunnel: bool) -> None:
    with FaultServer() as server, http_proxy(server.host, login="u:p") as proxy:
        for login, status in (("dTpw", 200), ("dTpx", 407)):
            connection = http.client.HTTPConnection(proxy.address)
            headers = {"Proxy-Authorization": f"Basic {login}"}
            if tunnel:
                connection.set_tunnel("name.test", 5000, headers)
                headers = {}
            try:
                connection.request("GET", "/v2/" if tunnel else "http://name.test:5000/v2/", headers=headers)
                assert (connection.getresponse().status, tunnel and status == 407) == (status, False)
            except OSError as exc:
                assert "407" in str(exc)
            finally:
                connection.close()
        assert proxy.asked == ["name.test:5000" if tunnel else "http://name.test:5000/v2/"] * 2
        assert proxy.logins == ["u:p", "u:q"]
        assert [request.header("Proxy-Authorization") for request in server.requests()] == [None]


def test_the_socks_proxy_leads_to_its_target_or_gives_its_reply() -> None:
    request = b"\x05\x01\x00\x03\x09name.test\x13\x88"
    for reply in (0, 2):
        with FaultServer() as server, socks_proxy(server.host, reply=reply) as proxy:
            host, _, port = proxy.address.partition(":")
            with socket.create_connection((host, int(port))) as connection, connection.makefile("rb") as said:
                connection.sendall(b"\x05\x01\x00")
                assert said.read(2) == b"\x05\x00"
                connection.sendall(request)
                assert said.read(10) == bytes([5, reply, 0, 1, 0, 0, 0, 0, 0, 0])
                if reply == 0:
                    connection.sendall(b"GET /v2/ HTTP/1.1\r\nHost: name.test\r\n\r\n")
                    assert said.readline() == b"HTTP/1.1 200 OK\r\n"
            assert proxy.asked == ["name.test:5000"]
