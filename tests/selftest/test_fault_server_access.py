"""Redirects, credentials and TLS of the fault server, seen by raw sockets and by the real skopeo."""

from __future__ import annotations

import http.client
import json
import ssl
from pathlib import Path

import pytest

from tests.support.fakes.fault_server import BasicAuth, BearerAuth, FaultServer, on
from tests.support.fakes.rawclient import Serve, look, skopeo_copy
from tests.support.fakes.refusals import Challenge, Presigned, Redirect, RedirectChain, RedirectLoop
from tests.support.rig.certs import Flaw
from tests.support.rig.images import BuiltImage, build_image, run_tool
from tests.support.rig.layers import incompressible_layer
from tests.support.rig.registry import RigError


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> BuiltImage:
    """One layer of about 10 kB."""
    return build_image(tmp_path_factory.mktemp("image"), [incompressible_layer(10_000)])


# -- redirects ---------------------------------------------------------------------------------------


def test_redirects_go_where_they_are_told(serve: Serve, path: str) -> None:
    for location in ("file:///etc/passwd", "http://169.254.169.254/", "http://user:pw@127.0.0.1:1/x"):
        seen = look(serve(Redirect(location)), path)
        assert (seen.status, seen.headers("Location")) == (307, [location])
    loop = serve(RedirectLoop())
    assert look(loop, path).headers("Location") == [loop.url + path]


@pytest.mark.parametrize("hops", [1, 2, 50])
def test_a_redirect_chain_has_so_many_hops(serve: Serve, blob: bytes, path: str, hops: int) -> None:
    server = serve(RedirectChain(hops))
    for _ in range(hops):
        seen = look(server, path)
        assert seen.status == 307
        path = seen.headers("Location")[0].removeprefix(server.url)
    assert look(server, path).body == blob


def test_a_presigned_url_is_good_for_so_many_uses(serve: Serve, blob: bytes, path: str) -> None:
    with FaultServer() as store:
        server = serve(Presigned(to=store, uses=2, expired=410))
        location = look(server, path).headers("Location")[0].removeprefix(store.url)
        assert look(store, location, "Authorization: Bearer x").status == 400
        assert look(store, location.replace("planted", "forged")).status == 403
        assert [look(store, location).status for _ in range(3)] == [200, 200, 410]
        fresh = look(server, path).headers("Location")[0].removeprefix(store.url)
        assert look(store, fresh, "Range: bytes=5-8").body == blob[5:9]
        store.expire_tickets()
        assert look(store, fresh).status == 410
        assert {request.kind for request in store.requests()} == {"signed"}


def test_a_presigned_url_is_good_for_so_long(serve: Serve, path: str) -> None:
    server = serve(Presigned(seconds=0.0))
    location = look(server, path).headers("Location")[0].removeprefix(server.url)
    assert look(server, location).status == 403


def test_skopeo_follows_to_another_origin_without_its_token(tmp_path: Path, image: BuiltImage) -> None:
    with (
        FaultServer() as store,
        FaultServer(image, [on("blob", Presigned(to=store))], auth=BearerAuth()) as server,
    ):
        skopeo_copy(server, tmp_path)
        assert store.bytes_sent("signed") == image.blob_bytes + len(image.config)
        assert all(request.authorization is None for request in store.requests())
        assert all((r.authorization or "").startswith("Bearer planted") for r in server.requests("blob"))


# -- credentials ---------------------------------------------------------------------------------------


def test_basic_authentication_guards_the_api(tmp_path: Path, image: BuiltImage, path: str) -> None:
    with FaultServer(image, auth=BasicAuth("user", "secret")) as server:
        refused = look(server, path)
        assert (refused.status, refused.headers("WWW-Authenticate")) == (401, ['Basic realm="rig"'])
        skopeo_copy(server, tmp_path, "--src-creds=user:secret")
        with pytest.raises(RigError):
            skopeo_copy(server, tmp_path / "no", "--src-creds=user:wrong")


def test_skopeo_gets_a_token_with_its_password(tmp_path: Path, image: BuiltImage) -> None:
    with FaultServer(image, auth=BearerAuth("user", "secret")) as server:
        skopeo_copy(server, tmp_path / "yes", "--src-creds=user:secret")
        assert len(server.requests("token")) == 1
        with pytest.raises(RigError):
            skopeo_copy(server, tmp_path / "no", "--src-creds=user:wrong")


def fetch_token(server: FaultServer, scope: str) -> dict[str, object]:
    document: dict[str, object] = json.loads(look(server, f"/token?service=rig.example&scope={scope}").body)
    return document


def test_tokens_are_bound_to_their_scope_and_uses_and_can_be_revoked(image: BuiltImage, path: str) -> None:
    with FaultServer(image, auth=BearerAuth(uses=2)) as server:
        challenge = look(server, path).headers("WWW-Authenticate")[0]
        assert challenge == (
            f'Bearer realm="{server.url}/token",service="rig.example",scope="repository:rig/image:pull"'
        )
        other = fetch_token(server, "repository:rig/other:pull")["token"]
        refused = look(server, path, f"Authorization: Bearer {other}")
        assert 'error="insufficient_scope"' in refused.headers("WWW-Authenticate")[0]
        good = f"Authorization: Bearer {fetch_token(server, 'repository:rig/image:pull')['token']}"
        assert [look(server, path, good).status for _ in range(3)] == [200, 200, 401]
        fresh = f"Authorization: Bearer {fetch_token(server, 'repository:rig/image:pull')['token']}"
        server.revoke_tokens()
        assert look(server, path, fresh).status == 401


def test_a_token_can_run_out_in_the_middle(image: BuiltImage, path: str) -> None:
    with FaultServer(image, [on("blob", Challenge(), first=2, last=2)], auth=BearerAuth()) as server:
        token = f"Authorization: Bearer {fetch_token(server, 'repository:rig/image:pull')['token']}"
        assert [look(server, path, token).status for _ in range(3)] == [200, 401, 401]


def test_the_token_document_and_the_challenge_can_be_odd(image: BuiltImage, path: str) -> None:
    auth = BearerAuth(
        fields={"expires_in": -1, "token": None}, challenge='Bearer realm="http://169.254.169.254/"'
    )
    with FaultServer(image, auth=auth) as server:
        assert look(server, path).headers("WWW-Authenticate") == [auth.challenge]
        document = fetch_token(server, "repository:rig/image:pull")
        assert document.keys() == {"access_token", "expires_in"}
        assert document["expires_in"] == -1


# -- TLS -----------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_tls_is_served_and_skopeo_trusts_the_written_authority(tmp_path: Path, image: BuiltImage) -> None:
    with FaultServer(image, tls=True) as server:
        assert server.url.startswith("https://")
        run_tool(
            "skopeo",
            "copy",
            f"--src-cert-dir={server.cert_dir}",
            f"docker://{server.reference}",
            f"dir:{tmp_path}",
        )


@pytest.mark.parametrize("flaw", [Flaw.WRONG_NAME, Flaw.EXPIRED, Flaw.UNTRUSTED])
def test_flawed_certificates_are_refused_by_a_careful_client(image: BuiltImage, flaw: Flaw) -> None:
    with FaultServer(image, tls=flaw) as server:
        assert server.cert_dir is not None
        context = ssl.create_default_context(cafile=str(server.cert_dir / "ca.crt"))
        client = http.client.HTTPSConnection(server.host, context=context)
        with pytest.raises(ssl.SSLCertVerificationError):
            client.request("GET", "/v2/")
        client.close()
        assert server.requests() == []
