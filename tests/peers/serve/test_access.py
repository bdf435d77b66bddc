"""TLS under an authority of one's own, and names with passwords: as clients are told of them."""

from __future__ import annotations

import http.client
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.rig import prebuild
from tests.support.rig.certs import make_certificates
from tests.support.rig.clients import BUILT, CLIENTS, Endpoint, as_built
from tests.support.rig.images import BuiltImage
from tests.support.rig.registry import RigError
from tests.support.rig.serve import ServeRig
from tests.support.served import REPOSITORY, TAG

pytestmark = [
    pytest.mark.slow,
    pytest.mark.builds(*BUILT),
    pytest.mark.needs_root("podman pulls as root"),
]
NAME = f"{REPOSITORY}:{TAG}"


@pytest.fixture(scope="module")
def server(image: BuiltImage, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServeRig]:
    work = tmp_path_factory.mktemp("server")
    certificates = make_certificates(work / "tls")
    login = ("someone", "a secret: with a colon")
    home = work / "home"
    with ServeRig(home, f"oci:{image.root}", certificates=certificates, credentials=login) as running:
        yield running


# docker-registry 2.8 gives its upstream no credentials of basic authentication.
@pytest.mark.parametrize("client", [name for name in CLIENTS if name != "docker-registry"])
def test_a_client_gets_in_with_a_login(
    server: ServeRig, client: str, image: BuiltImage, tmp_path: Path
) -> None:
    try:
        assert CLIENTS[client](server.endpoint, NAME, tmp_path) == as_built(image)
    except prebuild.NotBuilt as exc:
        pytest.skip(str(exc))


@pytest.mark.parametrize("credentials", [None, ("someone", "another secret"), ("anyone", "a secret")])
def test_nobody_else_gets_a_byte(
    server: ServeRig, credentials: tuple[str, str] | None, tmp_path: Path
) -> None:
    server.reset()
    endpoint = Endpoint(server.host, server.endpoint.certificates, credentials)
    with pytest.raises(RigError, match=r"unauthorized|authentication required"):
        CLIENTS["skopeo"](endpoint, NAME, tmp_path)
    asked = server.accesses()
    assert asked and {access.status for access in asked} == {401}


def test_plain_http_is_no_way_in(server: ServeRig) -> None:
    connection = http.client.HTTPConnection(server.host, timeout=60)
    try:
        connection.request("GET", "/v2/")
        with pytest.raises((http.client.HTTPException, ConnectionError)):
            connection.getresponse()
    finally:
        connection.close()


def test_a_pull_through_cache_takes_it_over_tls(image: BuiltImage, tmp_path: Path) -> None:
    certificates = make_certificates(tmp_path / "tls")
    with ServeRig(tmp_path / "home", f"oci:{image.root}", certificates=certificates) as server:
        work = tmp_path / "work"
        work.mkdir()
        assert CLIENTS["docker-registry"](server.endpoint, NAME, work) == as_built(image)
