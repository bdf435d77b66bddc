"""What a program gives an engine in place of the machine's files: logins, and a TLS context."""

from __future__ import annotations

import logging
import ssl
import traceback
from pathlib import Path
from typing import Any

import pytest

from layertee import Engine, Options, PullResult
from layertee.config.logins import Login
from layertee.errors import LayerteeError, TLSFailed, Unauthorized
from layertee.sync import run
from layertee.transfer.limits import FetchLimits
from tests.support.fakes.fault_server import BasicAuth, BearerAuth, FaultServer
from tests.support.rig.images import BuiltImage, build_image
from tests.support.rig.layers import text_layer

SECRET = "planted-password-of-a-program"
QUICK = FetchLimits(attempts=2, backoff_s=0.01)
AUTHS: dict[str, BasicAuth | BearerAuth] = {
    "basic": BasicAuth("robot", SECRET),
    "bearer": BearerAuth("robot", SECRET),
}


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> BuiltImage:
    return build_image(tmp_path_factory.mktemp("image"), [text_layer({"a": "alpha\n" * 2000})])


def pulled(server: FaultServer, store: Path, **given: Any) -> PullResult:
    async def main() -> PullResult:
        async with Engine(store, options=Options(limits=QUICK, **given)) as engine:
            return await engine.pull(await engine.plan(server.reference))

    return run(main())


@pytest.mark.parametrize("auth", AUTHS)
@pytest.mark.parametrize("by", ["host", "repository", "function"])
def test_a_login_that_is_given_is_used_and_never_shown(
    image: BuiltImage, auth: str, by: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    login, asked = Login("robot", SECRET), list[str]()

    def ask(host: str) -> Login:
        asked.append(host)
        return login

    with FaultServer(image, auth=AUTHS[auth]) as server:
        keys = {"host": server.host, "repository": f"{server.host}/rig/image"}
        credentials = ask if by == "function" else {keys[by]: login}
        result = pulled(server, tmp_path, tls_verify=False, credentials=credentials)
        assert result.bytes_fetched == image.blob_bytes
        assert set(asked) == ({server.host} if by == "function" else set())
    assert SECRET not in f"{caplog.text}{result!r}{result.to_json()}"
    for path in tmp_path.rglob("*"):
        assert path.is_dir() or SECRET.encode() not in path.read_bytes()


@pytest.mark.parametrize("key", ["127.0.0.1:1", "127.0.0.1", "other.example"])
def test_a_login_for_another_registry_is_not_sent(image: BuiltImage, key: str, tmp_path: Path) -> None:
    with FaultServer(image, auth=AUTHS["basic"]) as server:
        with pytest.raises(Unauthorized):
            pulled(server, tmp_path, tls_verify=False, credentials={key: Login("robot", SECRET)})
        assert [request for request in server.requests() if request.authorization] == []


def test_no_file_is_looked_at_where_logins_are_given(
    image: BuiltImage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = tmp_path / "auth.json"
    broken.write_text("{", encoding="utf-8")
    monkeypatch.setenv("REGISTRY_AUTH_FILE", str(broken))
    with FaultServer(image, auth=AUTHS["basic"]) as server:
        with pytest.raises(LayerteeError, match=str(broken)):
            pulled(server, tmp_path / "store", tls_verify=False)
        with pytest.raises(Unauthorized):
            pulled(server, tmp_path / "store", tls_verify=False, credentials={})
        login = {server.host: Login("robot", SECRET)}
        assert pulled(server, tmp_path / "store", tls_verify=False, credentials=login).bytes_fetched


def test_a_login_that_is_refused_is_named_by_where_it_is_from(image: BuiltImage, tmp_path: Path) -> None:
    wrong = Login("robot", "planted-and-wrong")
    with FaultServer(image, auth=AUTHS["basic"]) as server, pytest.raises(Unauthorized) as caught:
        pulled(server, tmp_path, tls_verify=False, credentials={server.host: wrong})
    assert "the options of the program, for" in str(caught.value)
    assert "planted-and-wrong" not in "".join(traceback.format_exception(caught.value))


def test_a_context_that_is_given_says_whom_to_trust(image: BuiltImage, tmp_path: Path) -> None:
    with FaultServer(image, tls=True) as server:
        assert server.cert_dir is not None
        with pytest.raises(TLSFailed):
            pulled(server, tmp_path)
        with pytest.raises(TLSFailed):
            pulled(server, tmp_path, ssl_context=ssl.create_default_context())
        context = ssl.create_default_context(cafile=str(server.cert_dir / "ca.crt"))
        assert pulled(server, tmp_path, ssl_context=context).bytes_fetched == image.blob_bytes


def test_a_context_that_is_given_allows_no_plain_http(image: BuiltImage, tmp_path: Path) -> None:
    with FaultServer(image) as server:
        with pytest.raises(LayerteeError):
            pulled(server, tmp_path, ssl_context=ssl.create_default_context())
        assert server.requests() == []
