"""Challenges, token services, and who is told what."""

from __future__ import annotations

import asyncio
import base64
import gzip
from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from layertee.config.logins import Credentials, Login
from layertee.errors import (
    DocumentError,
    LayerteeError,
    RateLimited,
    RedirectRefused,
    RegistryError,
    ServerError,
    Unauthorized,
    WebPage,
)
from layertee.registry.auth import Authorizer
from layertee.registry.http import TLSPolicy
from layertee.registry.origins import Origin
from tests.support.fakes.transport import Answer, FakeTransport, Request, json_answer

PASSWORD = "hunter2-PLANTED"
USER = Login("me", PASSWORD)
BASIC = "Basic " + base64.b64encode(f"me:{PASSWORD}".encode()).decode()
REALM = "https://quay.io/v2/auth"
CHALLENGE = f'Bearer realm="{REALM}",service="quay.io",scope="repository:ns/repo:pull"'


class Bench:
    """An authorizer for quay.io/ns/repo (or another) and the transport it asks."""

    def __init__(
        self,
        login: Login | None = None,
        *,
        registry: str = "quay.io",
        scheme: str = "https",
        trusted: tuple[str, ...] = (),
        tls: TLSPolicy | None = None,
        allow_http: bool | None = None,
    ) -> None:
        self.transport = FakeTransport()
        self.now = 1000.0
        self.auth = Authorizer(
            self.transport,
            Credentials(login=login, trusted_realms=trusted) if login else Credentials.no_credentials(),
            registry=registry,
            repository="ns/repo",
            origin=Origin.of(f"{scheme}://{registry}/"),
            tls=tls or TLSPolicy(),
            allow_http=scheme == "http" if allow_http is None else allow_http,
            clock=lambda: self.now,
        )
        if trusted and not login:
            raise ValueError("trust is about a login")

    def refused(self, challenge: str = CHALLENGE, sent: str | None = None) -> str:
        return asyncio.run(self.auth.refused([challenge], sent))

    def authorization(self) -> str | None:
        return asyncio.run(self.auth.authorization())

    def token_request(self) -> Request:
        (request,) = self.transport.requests
        return request


def query(request: Request) -> dict[str, list[str]]:
    return parse_qs(urlsplit(request.url).query)


def counted(**more: Any) -> Callable[[Request], Answer]:
    n = 0

    def answer(_: Request) -> Answer:
        nonlocal n
        n += 1
        return json_answer({"token": f"T{n}", **more})

    return answer


def test_an_anonymous_token_is_asked_for_and_kept() -> None:
    bench = Bench()
    bench.transport.on(REALM, json_answer({"token": "T"}))
    assert bench.authorization() is None
    assert bench.refused() == "Bearer T"
    assert bench.authorization() == "Bearer T"
    request = bench.token_request()
    assert (request.method, request.authorization) == ("GET", None)
    assert request.headers["Accept-Encoding"] == "identity"
    assert query(request) == {"service": ["quay.io"], "scope": ["repository:ns/repo:pull"]}


def test_the_login_goes_to_the_registrys_own_token_service() -> None:
    bench = Bench(USER)
    bench.transport.on(REALM, json_answer({"access_token": "T"}))
    assert bench.refused() == "Bearer T"
    assert bench.token_request().authorization == BASIC
    assert query(bench.token_request())["account"] == ["me"]


def test_an_identity_token_is_exchanged_by_post() -> None:
    bench = Bench(Login(identity_token=PASSWORD))
    bench.transport.on(REALM, json_answer({"access_token": "T", "refresh_token": "other"}))
    assert bench.refused() == "Bearer T"
    request = bench.token_request()
    assert (request.method, request.url, request.authorization) == ("POST", REALM, None)
    assert parse_qs((request.body or b"").decode()) == {
        "grant_type": ["refresh_token"],
        "refresh_token": [PASSWORD],
        "service": ["quay.io"],
        "scope": ["repository:ns/repo:pull"],
        "client_id": ["layertee"],
    }


def test_a_challenge_without_scope_means_this_repository() -> None:
    bench = Bench()
    bench.transport.on(REALM, json_answer({"token": "T"}))
    bench.refused(f'Bearer realm="{REALM}?a=b"')
    assert query(bench.token_request()) == {"a": ["b"], "scope": ["repository:ns/repo:pull"]}


def test_tokens_are_kept_by_realm_service_and_scope() -> None:
    bench = Bench()
    bench.transport.on(REALM, counted())
    other = CHALLENGE.replace("ns/repo", "ns/other")
    assert bench.refused() == "Bearer T1"
    assert bench.refused(other) == "Bearer T2"
    assert bench.refused(CHALLENGE.replace('"quay.io"', '"elsewhere"')) == "Bearer T3"
    assert bench.refused(CHALLENGE) == "Bearer T1"
    assert bench.refused(other, "Bearer T1") == "Bearer T2"
    assert len(bench.transport.requests) == 3


@pytest.mark.parametrize(
    ("expires_in", "lifetime"),
    [
        *((300, 300), (0, 60), (-5, 60), (10**15, 86400), (None, 60), (90.5, 90.5), (True, 60)),
        *(("300", 300), ("soon", 60), ("-300", 60), ("9" * 5000, 86400)),
    ],
)
def test_a_lifetime_is_clamped_and_counted_from_receipt(expires_in: object, lifetime: float) -> None:
    bench = Bench()
    bench.transport.on(REALM, counted(expires_in=expires_in, issued_at="1970-01-01T00:00:00Z"))
    assert bench.refused() == "Bearer T1"
    bench.now += lifetime - 0.25
    assert bench.authorization() == "Bearer T1"
    bench.now += 0.25
    assert bench.authorization() == "Bearer T2"


def test_many_refusals_at_once_cause_one_token_request() -> None:
    bench = Bench()
    bench.transport.on(REALM, counted())

    async def storm(sent: str | None) -> set[str]:
        return set(await asyncio.gather(*(bench.auth.refused([CHALLENGE], sent) for _ in range(20))))

    async def storms() -> list[set[str]]:
        return [await storm(None), await storm("Bearer T1")]

    assert asyncio.run(storms()) == [{"Bearer T1"}, {"Bearer T2"}]
    assert len(bench.transport.requests) == 2


def test_one_failure_is_shared_by_all_who_waited_for_it() -> None:
    bench = Bench()
    bench.transport.on(REALM, Answer(401), json_answer({"token": "T"}))

    async def storm() -> list[object]:
        tasks = (bench.auth.refused([CHALLENGE], None) for _ in range(20))
        return await asyncio.gather(*tasks, return_exceptions=True)

    assert all(isinstance(outcome, Unauthorized) for outcome in asyncio.run(storm()))
    assert len(bench.transport.requests) == 1
    assert bench.refused() == "Bearer T"


def test_a_cancelled_refresh_leaves_the_others_to_do_it() -> None:
    bench = Bench()
    bench.transport.on(REALM, json_answer({"token": "T"}))

    async def scenario() -> str:
        first = asyncio.ensure_future(bench.auth.refused([CHALLENGE], None))
        second = asyncio.ensure_future(bench.auth.refused([CHALLENGE], None))
        await asyncio.sleep(0)
        first.cancel()
        return await second

    assert asyncio.run(scenario()) == "Bearer T"


# --- realms -------------------------------------------------------------------------


@pytest.mark.parametrize(
    "realm",
    [
        "https://169.254.169.254/latest",
        "https://127.0.0.1/auth",
        "https://10.0.0.1/auth",
        "http://sso.example/auth",
        f"https://me:{PASSWORD}@quay.io/auth",
        "file:///etc/passwd",
    ],
)
def test_a_realm_that_leads_inside_is_never_asked(realm: str) -> None:
    bench = Bench(USER)
    with pytest.raises(Unauthorized, match="not asked") as caught:
        bench.refused(f'Bearer realm="{realm}"')
    assert bench.transport.requests == []
    assert PASSWORD not in str(caught.value)


def test_a_foreign_realm_is_asked_anonymously_and_the_refusal_explains() -> None:
    bench = Bench(USER)
    bench.transport.on("https://sso.example/token", json_answer({"details": "who are you?"}, 401))
    with pytest.raises(Unauthorized, match=r"who are you.*not sent to sso\.example") as caught:
        bench.refused('Bearer realm="https://sso.example/token"')
    assert caught.value.hint == "trusted-realms"
    assert bench.token_request().authorization is None
    assert "account" not in query(bench.token_request())
    assert PASSWORD not in str(caught.value)


def test_a_foreign_realm_never_sees_an_identity_token() -> None:
    bench = Bench(Login(identity_token=PASSWORD))
    bench.transport.on("https://sso.example/token", json_answer({"token": "T"}))
    assert bench.refused('Bearer realm="https://sso.example/token"') == "Bearer T"
    assert PASSWORD not in repr(bench.token_request())


def test_a_trusted_realm_is_told_the_login() -> None:
    bench = Bench(USER, trusted=("SSO.example",))
    bench.transport.on("https://sso.example/token", json_answer({"token": "T"}))
    assert bench.refused('Bearer realm="https://sso.example/token"') == "Bearer T"
    assert bench.token_request().authorization == BASIC


def test_docker_hubs_token_service_is_built_in() -> None:
    bench = Bench(USER, registry="registry-1.docker.io")
    bench.transport.on("https://auth.docker.io/token", json_answer({"token": "T"}))
    assert bench.refused('Bearer realm="https://auth.docker.io/token",service="registry.docker.io"')
    assert bench.token_request().authorization == BASIC


def test_waived_verification_is_only_for_the_registrys_host() -> None:
    bench = Bench(tls=TLSPolicy(verify=False))
    for realm in (REALM, "https://sso.example/token"):
        bench.transport.on(realm, json_answer({"token": "T"}))
        bench.refused(f'Bearer realm="{realm}"')
    assert [request.tls for request in bench.transport.requests] == [TLSPolicy(verify=False), TLSPolicy()]


@pytest.mark.parametrize("named", ["http://quay.io/v2/auth", "http://quay.io:80/v2/auth"])
def test_a_registry_that_does_not_know_of_its_tls_is_asked_over_tls(named: str) -> None:
    bench = Bench(USER)
    bench.transport.on(REALM, json_answer({"token": "T"}))
    assert bench.refused(f'Bearer realm="{named}"') == "Bearer T"
    assert bench.token_request().url.startswith(f"{REALM}?")
    assert bench.token_request().authorization == BASIC


def test_a_trusted_realm_is_asked_over_tls_and_wherever_it_is() -> None:
    bench = Bench(USER, trusted=("sso.example", "10.0.0.1", "127.0.0.1:8443"))
    for named, asked in {
        "http://sso.example/token": "https://sso.example/token",
        "https://10.0.0.1/token": "https://10.0.0.1/token",
        "https://127.0.0.1:8443/token": "https://127.0.0.1:8443/token",
    }.items():
        bench.transport.on(asked, json_answer({"token": "T"}))
        bench.transport.requests.clear()
        assert bench.refused(f'Bearer realm="{named}"')
        assert bench.token_request().authorization == BASIC


def test_a_private_registry_may_have_its_token_service_beside_it() -> None:
    bench = Bench(USER, registry="10.0.0.7")
    bench.transport.on("https://10.0.0.8/token", json_answer({"token": "T"}))
    assert bench.refused('Bearer realm="https://10.0.0.8/token"') == "Bearer T"
    assert bench.token_request().authorization is None  # who it belongs to, the address does not say
    named = Bench(USER, registry="localhost")  # by a name that leads to a private address
    named.transport.on("https://10.0.0.8/token", json_answer({"token": "T"}))
    assert named.refused('Bearer realm="https://10.0.0.8/token"') == "Bearer T"


def test_a_realm_that_is_not_asked_says_what_would_help() -> None:
    bench = Bench(USER)
    with pytest.raises(Unauthorized, match="private address") as refused:
        bench.refused('Bearer realm="https://10.0.0.1/auth"')
    assert refused.value.hint == "trusted-realms"


@pytest.mark.parametrize("location", [f"{REALM}/", "/v2/auth/", "auth/"])
def test_a_token_service_may_redirect_within_its_origin(location: str) -> None:
    bench = Bench(USER)
    bench.transport.on(REALM, Answer(301, headers={"Location": location}))
    bench.transport.on(f"{REALM}/", json_answer({"token": "T"}))
    assert bench.refused() == "Bearer T"
    assert [request.authorization for request in bench.transport.requests] == [BASIC, BASIC]


def test_a_token_service_that_redirects_for_ever_is_left() -> None:
    bench = Bench(USER)
    bench.transport.on(REALM, Answer(302, headers={"Location": REALM}))
    with pytest.raises(RedirectRefused):
        bench.refused()
    assert len(bench.transport.requests) < 10


@pytest.mark.parametrize(("status", "posts"), [(302, 1), (307, 2)])
def test_an_identity_token_is_posted_again_only_where_the_redirect_keeps_the_method(
    status: int, posts: int
) -> None:
    bench = Bench(Login(identity_token=PASSWORD))
    bench.transport.on(REALM, Answer(status, headers={"Location": f"{REALM}/"}))
    bench.transport.on(f"{REALM}/", json_answer({"token": "T"}))
    if posts == 2:
        assert bench.refused() == "Bearer T"
    else:
        with pytest.raises(RedirectRefused):
            bench.refused()
    assert [request.method for request in bench.transport.requests] == ["POST"] * posts


def test_a_refused_login_says_where_it_is_from() -> None:
    bench = Bench(Login("me", PASSWORD, source="/run/user/0/auth.json, key quay.io"))
    bench.transport.on(REALM, json_answer({"details": "bad password"}, 401))
    with pytest.raises(
        Unauthorized, match=r"the login that was sent is from /run/user/0/auth\.json, key quay"
    ):
        bench.refused()


def test_a_token_service_that_redirects_is_not_followed() -> None:
    bench = Bench(USER)
    bench.transport.on(REALM, Answer(302, headers={"Location": "https://evil.example/"}))
    with pytest.raises(RedirectRefused):
        bench.refused()
    assert len(bench.transport.requests) == 1


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (Answer(429, headers={"Retry-After": "9"}), RateLimited),
        (Answer(503), ServerError),
        (Answer(403), Unauthorized),
        (Answer(404), RegistryError),
        (Answer(200, b"<html>"), WebPage),
        (Answer(200, b"", {"Content-Type": "text/html"}), WebPage),
        (Answer(511), WebPage),
        (Answer(200, b"{}"), DocumentError),
        (json_answer({"token": 7}), DocumentError),
        (json_answer({"token": "a b"}), DocumentError),
        (json_answer({"token": "a\r\nX: y"}), DocumentError),
        (json_answer({"token": "é"}), DocumentError),
        (json_answer({"token": "x" * 60000}), DocumentError),
        (Answer(200, b'{"token": "a", "Token": "b"}'), DocumentError),
        (Answer(200, b'{"x": "' + b"x" * (1 << 20) + b'"}'), DocumentError),
    ],
)
def test_what_a_token_service_does_wrong_has_its_error(answer: Answer, error: type[LayerteeError]) -> None:
    bench = Bench(USER)
    bench.transport.on(REALM, answer)
    with pytest.raises(error) as caught:
        bench.refused()
    assert type(caught.value) is error
    assert PASSWORD not in str(caught.value)


def test_a_token_may_come_in_gzip() -> None:
    bench = Bench(USER)
    packed = gzip.compress(b'{"token": "T"}')
    bench.transport.on(REALM, Answer(200, packed, {"Content-Encoding": "gzip"}))
    assert bench.refused() == "Bearer T"


def test_secrets_a_server_sends_back_are_taken_out() -> None:
    bench = Bench(USER)
    echo = json_answer({"details": f"bad login me:{PASSWORD} / {BASIC}"}, 401)
    bench.transport.on(REALM, echo)
    with pytest.raises(Unauthorized, match="bad login") as caught:
        bench.refused()
    assert PASSWORD not in str(caught.value)
    assert BASIC.split()[1] not in str(caught.value)


# --- Basic, and nothing ----------------------------------------------------------------


def test_basic_is_sent_once_and_a_refusal_is_final() -> None:
    bench = Bench(USER)
    assert bench.refused('Basic realm="x"') == BASIC
    assert bench.authorization() == BASIC
    with pytest.raises(Unauthorized, match="does not accept") as caught:
        bench.refused('Basic realm="x"', BASIC)
    assert PASSWORD not in str(caught.value)
    assert bench.transport.requests == []


def test_basic_without_a_login_says_how_to_log_in() -> None:
    with pytest.raises(Unauthorized, match=r"no login for quay\.io$") as caught:
        Bench().refused('Basic realm="x"')
    assert caught.value.hint == "logins"


def test_basic_goes_over_http_only_where_http_is_allowed() -> None:
    assert Bench(USER, scheme="http", registry="127.0.0.1:5000").refused('Basic realm="x"') == BASIC
    with pytest.raises(Unauthorized, match="over http"):
        Bench(USER, scheme="http", allow_http=False).refused('Basic realm="x"')


def test_bearer_is_preferred_to_basic() -> None:
    bench = Bench(USER)
    bench.transport.on(REALM, json_answer({"token": "T"}))
    assert asyncio.run(bench.auth.refused(['Basic realm="x"', CHALLENGE], None)) == "Bearer T"


@pytest.mark.parametrize("challenge", ["", "Negotiate", "Bearer", 'Bearer service="x"'])
def test_a_challenge_that_cannot_be_met_is_unauthorized(challenge: str) -> None:
    with pytest.raises(Unauthorized, match="no way in"):
        Bench(USER).refused(challenge)


def test_a_token_service_may_be_anywhere_only_if_the_user_has_named_it() -> None:
    for trusted, near in (((), "quay.io"), (("auth.example",), None), (("auth.example:443",), None)):
        rig = Bench(USER, trusted=trusted)
        rig.transport.on("https://auth.example/token", json_answer({"token": "T"}))
        rig.refused('Bearer realm="https://auth.example/token",service="s"')
        assert rig.token_request().near == near
    own = Bench(USER)
    own.transport.on("https://quay.io:8443/token", json_answer({"token": "T"}))
    own.refused('Bearer realm="https://quay.io:8443/token",service="s"')
    assert own.token_request().near is None
