"""Requests to a registry: tokens, redirects, schemes, and what may show in an error."""

from __future__ import annotations

import asyncio
import base64

import pytest

from layertee.config.logins import Credentials
from layertee.errors import (
    ConnectFailed,
    LayerteeError,
    NotInRegistry,
    RateLimited,
    RedirectRefused,
    RegistryBlocked,
    RegistryError,
    ServerError,
    Timeout,
    TLSFailed,
    TransportError,
    Unauthorized,
    WebPage,
)
from layertee.image.document import Digest
from layertee.image.reference import Reference, parse_reference
from layertee.registry.exchange import Exchange
from layertee.registry.http import Body, TLSPolicy
from tests.support.fakes.image import (
    AMD64,
    CDN,
    CONFIG,
    MANIFEST,
    NEEDS_TOKEN,
    PASSWORD,
    REALM,
    USER,
    BlobRig,
    Rig,
    document,
    redirect,
)
from tests.support.fakes.transport import Answer, FakeTransport, json_answer


def test_a_401_is_answered_with_a_token_once() -> None:
    rig = Rig(login=USER)
    rig.transport.on(rig.tag, NEEDS_TOKEN, document(MANIFEST))
    rig.transport.on(REALM, json_answer({"token": "T"}))
    assert rig.resolve()
    assert [request.authorization for request in rig.transport.asked(rig.base)] == [
        None,
        "Bearer T",
        "Bearer T",
    ]


def test_a_second_401_is_final_and_advises() -> None:
    rig = Rig()
    rig.transport.on(rig.tag, NEEDS_TOKEN)
    rig.transport.on(REALM, json_answer({"token": "T"}))
    with pytest.raises(Unauthorized, match=r"no login for quay\.io"):
        rig.resolve()
    assert len(rig.transport.asked(rig.base)) == 2
    assert len(rig.transport.asked(REALM)) == 1


def test_many_blobs_refused_at_once_cause_one_token_request() -> None:
    rig = Rig()
    rig.transport.on(REALM, json_answer({"token": "T"}))
    url = f"{rig.base}/blobs/{Digest.of(b'tar.gz')}"
    rig.transport.on(url, lambda r: Answer(206) if r.authorization == "Bearer T" else NEEDS_TOKEN)

    async def scenario() -> list[Body]:
        blob = (await rig.registry.resolve(AMD64)).layers[0].descriptor
        return await asyncio.gather(*(rig.registry.open_blob(blob, n, n + 1) for n in range(5)))

    assert [body.status for body in asyncio.run(scenario())] == [206] * 5
    assert len(rig.transport.asked(REALM)) == 1


# --- redirects -----------------------------------------------------------------------------


def test_a_page_in_place_of_a_blob_is_no_blob() -> None:
    page = Answer(200, b"<html>log in</html>", {"Content-Type": "text/html"})
    rig = BlobRig(page)
    with pytest.raises(WebPage, match=r"blob sha256:\w+ of .* answers with a page \(text/html\)"):
        rig.open()
    assert all(body.closed for body in rig.transport.bodies)
    elsewhere = BlobRig(redirect("https://login.example/?next=planted"))
    elsewhere.transport.on("https://login.example/", page)
    for _ in range(2):
        with pytest.raises(WebPage, match=r"https://login\.example/.* answers with a page") as caught:
            elsewhere.open()
        assert "planted" not in str(caught.value)
        assert elsewhere.transport.requests[-2].url == elsewhere.url  # where it led is not kept
    size = rig.image.layers[0].descriptor.size
    mistyped = BlobRig(Answer(200, b"x" * size, {"Content-Type": "text/html"}))
    assert mistyped.open().status == 200


def test_what_the_registry_leads_to_is_asked_as_named_by_it() -> None:
    rig = BlobRig(redirect(CDN))
    rig.transport.on(CDN, Answer(200))
    assert rig.open().status == 200
    own, other = rig.transport.requests[-2:]
    assert (own.near, other.near) == (None, "quay.io")
    assert rig.open().status == 200  # directly, this time
    assert rig.transport.requests[-1].url.startswith(CDN)
    assert rig.transport.requests[-1].near == "quay.io"


def test_a_blob_is_opened_with_a_closed_range() -> None:
    rig = BlobRig(Answer(206))
    assert rig.open(2, 5).status == 206
    assert rig.open(2).status == 206
    assert rig.open().status == 206
    assert [r.headers.get("Range") for r in rig.transport.requests] == ["bytes=2-4", "bytes=2-5", None]
    assert {r.headers["Accept-Encoding"] for r in rig.transport.requests} == {"identity"}
    assert {r.authorization for r in rig.transport.requests} == {"Bearer T"}
    for start, stop in ((3, 3), (4, 3), (-1, 3)):
        with pytest.raises(ValueError, match="range"):
            rig.open(start, stop)


# --- what is hidden from strangers ------------------------------------------------------


@pytest.mark.parametrize("status", [403, 404])
def test_a_login_is_offered_before_not_found_is_believed(status: int) -> None:
    rig = Rig(login=USER)
    rig.transport.on(rig.tag, Answer(status), document(MANIFEST))
    other = f'Bearer realm="{REALM}",service="quay.io"' + ',scope="registry:catalog:*"'
    rig.transport.on("https://quay.io/v2/", Answer(401, headers={"WWW-Authenticate": other}))
    rig.transport.on(REALM, json_answer({"token": "T"}))
    assert rig.resolve()
    assert [request.authorization for request in rig.transport.asked(rig.tag)] == [None, "Bearer T"]
    (token,) = rig.transport.asked(REALM)
    assert "repository%3Ans%2Frepo%3Apull" in token.url and "catalog" not in token.url


def test_without_a_login_not_found_costs_one_request() -> None:
    rig = Rig()
    rig.transport.on(rig.tag, Answer(404))
    with pytest.raises(NotInRegistry):
        rig.resolve()
    assert rig.urls() == [rig.tag]


@pytest.mark.parametrize("base", [Answer(200), Answer(404), Answer(401)])
def test_a_registry_that_wants_no_login_is_believed(base: Answer) -> None:
    rig = Rig(login=USER)
    rig.transport.on(rig.tag, Answer(404))
    rig.transport.on("https://quay.io/v2/", base)
    for _ in range(2):
        with pytest.raises(NotInRegistry):
            rig.resolve()
    assert rig.urls() == [rig.tag, "https://quay.io/v2/", rig.tag]
    assert PASSWORD not in repr(rig.transport.requests)


def test_what_is_not_found_with_a_login_is_not_there() -> None:
    rig = Rig(login=USER)
    rig.transport.on(rig.tag, NEEDS_TOKEN, Answer(404))
    rig.transport.on(REALM, json_answer({"token": "T"}))
    with pytest.raises(NotInRegistry):
        rig.resolve()
    assert rig.urls().count("https://quay.io/v2/") == 0


# --- redirects ----------------------------------------------------------------------------

OTHER = "https://other.example/v2/their/repo/blobs/sha256:1"
OTHER_REALM = "https://other.example/token"


def wants_token(realm: str) -> Answer:
    return Answer(401, headers={"WWW-Authenticate": f'Bearer realm="{realm}",service="other"'})


def test_another_registry_is_asked_as_a_stranger() -> None:
    rig = BlobRig(redirect(OTHER))
    rig.transport.on(OTHER, wants_token(OTHER_REALM), Answer(206))
    rig.transport.on(OTHER_REALM, json_answer({"token": "GUEST"}))
    assert rig.open(0, 3).url == OTHER
    assert [request.authorization for request in rig.transport.requests] == [
        "Bearer T",
        None,
        None,  # the token service
        "Bearer GUEST",
    ]
    assert "their%2Frepo%3Apull" in rig.transport.requests[2].url
    assert PASSWORD not in repr(rig.transport.requests)
    rig.open(3, 6)  # directly, with the same token after one refusal at most
    assert rig.transport.requests[-1].url == OTHER


def test_another_registry_without_tls_is_asked_as_it_is_where_the_first_one_has_none() -> None:
    rig = Rig(allow_http=True)
    tag = rig.tag.replace("https:", "http:")
    there = "http://other.example/v2/their/repo/manifests/tag"
    rig.transport.on("https://quay.io/v2/", TLSFailed("no TLS"))
    rig.transport.on(tag, redirect(there))
    rig.transport.on(there, wants_token("http://other.example/token"), document(MANIFEST))
    rig.transport.on("http://other.example/token", json_answer({"token": "GUEST"}))
    rig.transport.on(f"{tag.rpartition('/manifests')[0]}/blobs/{Digest.of(CONFIG)}", Answer(200, CONFIG))
    assert rig.resolve()
    assert [request.authorization for request in rig.transport.asked(there)] == [None, "Bearer GUEST"]


def test_a_strangers_token_stays_where_it_is_from() -> None:
    rig = BlobRig(redirect(OTHER))
    rig.transport.on(OTHER, wants_token(OTHER_REALM), redirect(CDN))
    rig.transport.on(OTHER_REALM, json_answer({"token": "GUEST"}))
    rig.transport.on(CDN, Answer(206))
    rig.open(0, 3)
    assert rig.transport.requests[-1].url == CDN
    assert rig.transport.requests[-1].authorization is None


def test_another_registry_that_refuses_strangers_is_an_error() -> None:
    rig = BlobRig(redirect(OTHER), redirect(OTHER))
    rig.transport.on(OTHER, wants_token(OTHER_REALM))
    rig.transport.on(OTHER_REALM, json_answer({"token": "GUEST"}))
    with pytest.raises(RegistryError):
        rig.open(0, 3)
    assert PASSWORD not in repr(rig.transport.requests[1:])


@pytest.mark.parametrize(
    "realm", ["https://127.0.0.1/token", "https://10.0.0.1/token", "http://other.example/x"]
)
def test_another_registry_cannot_lead_further_inside(realm: str) -> None:
    rig = BlobRig(redirect(OTHER))
    rig.transport.on(OTHER, wants_token(realm))
    rig.transport.on("https://other.example/x", json_answer({"token": "GUEST"}))
    with pytest.raises(RegistryError):
        rig.open(0, 3)
    assert all("127.0.0.1" not in url and "10.0.0.1" not in url for url in rig.urls())


def blocking(transport: FakeTransport, *hosts: str) -> Exchange:
    """An exchange for quay.io/ns/repo of a machine where ``hosts`` are blocked."""
    reference = parse_reference("quay.io/ns/repo:tag")
    assert isinstance(reference, Reference)
    return Exchange(
        transport,
        reference,
        Credentials(login=USER),
        tls=TLSPolicy(),
        allow_http=False,
        is_blocked=lambda host: host in hosts,
    )


@pytest.mark.parametrize("host", ["cdn.example", "cdn.example:443"])
def test_a_redirect_does_not_lead_to_what_is_blocked(host: str) -> None:
    transport = FakeTransport()
    exchange = blocking(transport, host)
    transport.on("https://quay.io/v2/ns/repo/manifests/tag", redirect(CDN))
    with pytest.raises(RegistryBlocked, match=r"quay\.io leads to https://cdn\.example"):
        asyncio.run(exchange.fetch("manifests/tag", {}, limit=100, what="x"))
    assert len(transport.requests) == 1


def test_a_token_service_that_is_blocked_is_not_asked() -> None:
    transport = FakeTransport()
    exchange = blocking(transport, "auth.example")
    transport.on("https://quay.io/v2/ns/repo/manifests/tag", wants_token("https://auth.example/token"))
    with pytest.raises(RegistryBlocked, match=r"leads to https://auth\.example"):
        asyncio.run(exchange.fetch("manifests/tag", {}, limit=100, what="x"))
    assert len(transport.requests) == 1


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_carries_the_range_and_no_credential(status: int) -> None:
    rig = BlobRig(redirect(status=status))
    rig.transport.on(CDN, Answer(206))
    assert rig.open(0, 3).url == CDN
    first, second = rig.transport.requests
    assert first.authorization == "Bearer T"
    assert second.authorization is None
    assert PASSWORD not in repr(second)
    assert "Bearer" not in repr(second)
    assert second.headers["Range"] == "bytes=0-2"
    assert second.headers["Accept-Encoding"] == "identity"
    assert [body.closed for body in rig.transport.bodies] == [True, False]


@pytest.mark.parametrize(
    "target", ["https://quay.io:444/x", "https://sub.quay.io/x", "https://quay.io.evil.example/x"]
)
def test_another_port_or_host_is_another_origin(target: str) -> None:
    rig = BlobRig(redirect(target))
    rig.transport.on(target, Answer(206))
    rig.open(0, 3)
    assert rig.transport.requests[-1].authorization is None


def test_the_registrys_own_origin_keeps_the_token_until_it_is_left() -> None:
    rig = BlobRig(redirect("/elsewhere"))
    rig.transport.on("https://quay.io/elsewhere", redirect(CDN))
    rig.transport.on(CDN, redirect("https://quay.io/back"))
    rig.transport.on("https://quay.io/back", Answer(206))
    rig.open(0, 3)
    assert [r.authorization for r in rig.transport.requests] == ["Bearer T", "Bearer T", None, None]


def test_the_target_of_a_redirect_is_asked_directly_next_time() -> None:
    rig = BlobRig(redirect())
    rig.transport.on(CDN, Answer(206))
    rig.open(0, 3)
    rig.open(3, 6)
    assert [r.url for r in rig.transport.requests] == [rig.url, CDN, CDN]


@pytest.mark.parametrize("status", [400, 401, 403, 404, 410])
def test_an_expired_target_is_asked_for_again_at_the_registry(status: int) -> None:
    fresh = "https://cdn.example/fresh"
    rig = BlobRig(redirect(), redirect(fresh))
    rig.transport.on(CDN, Answer(206), Answer(status))
    rig.transport.on(fresh, Answer(206))
    rig.open(0, 3)
    assert rig.open(3, 6).url == fresh
    assert rig.open(3, 6).url == fresh
    assert [r.url for r in rig.transport.requests] == [rig.url, CDN, CDN, rig.url, fresh, fresh]
    assert len(rig.transport.asked(REALM)) == 0


@pytest.mark.parametrize(
    ("status", "error"), [(403, RegistryError), (401, RegistryError), (404, NotInRegistry)]
)
def test_a_target_that_refuses_twice_is_an_error_without_its_secrets(
    status: int, error: type[RegistryError]
) -> None:
    rig = BlobRig(redirect())
    rig.transport.on(CDN, json_answer({"message": "PLANTED-body"}, status))
    with pytest.raises(error) as caught:
        rig.open(0, 3)
    assert type(caught.value) is error
    assert [r.url for r in rig.transport.requests] == [rig.url, CDN, rig.url, CDN]
    for text in (str(caught.value), caught.value.url):
        assert "PLANTED" not in text
    assert "cdn.example" in str(caught.value)
    assert all(body.closed for body in rig.transport.bodies)


def test_a_target_that_cannot_be_reached_is_forgotten() -> None:
    rig = BlobRig(redirect())
    rig.transport.on(CDN, Answer(206), ConnectFailed("gone"), Answer(206))
    rig.open(0, 3)
    with pytest.raises(ConnectFailed):
        rig.open(3, 6)
    rig.open(3, 6)
    assert [r.url for r in rig.transport.requests] == [rig.url, CDN, CDN, rig.url, CDN]


@pytest.mark.parametrize(
    "location",
    [
        "http://cdn.example/x",
        "file:///etc/passwd",
        "https://169.254.169.254/x",
        "https://u:p@cdn.example/",
        "",
    ],
)
def test_redirects_that_must_not_be_followed(location: str) -> None:
    rig = BlobRig(redirect(location) if location else redirect("https://localhost/x"))
    with pytest.raises(RedirectRefused):
        rig.open(0, 3)
    assert len(rig.transport.requests) == 1
    assert all(body.closed for body in rig.transport.bodies)


def test_five_redirects_are_followed_and_six_are_not() -> None:
    rig = BlobRig(redirect("https://cdn.example/1"))
    for n in range(1, 6):
        rig.transport.on(f"https://cdn.example/{n}", redirect(f"https://cdn.example/{n + 1}"))
    rig.transport.on("https://cdn.example/5", Answer(206))
    assert rig.open(0, 3).url == "https://cdn.example/5"
    rig = BlobRig(redirect("https://cdn.example/loop"))
    rig.transport.on("https://cdn.example/loop", redirect("https://cdn.example/loop"))
    with pytest.raises(RedirectRefused, match="more than 5"):
        rig.open(0, 3)
    assert len(rig.transport.requests) == 6


def test_a_manifest_and_a_config_may_be_redirected_too() -> None:
    rig = Rig()
    rig.transport.on(rig.tag, redirect("https://cdn.example/m"))
    rig.transport.on("https://cdn.example/m", Answer(403), document(MANIFEST))
    rig.transport.on(rig.config, redirect("https://cdn.example/c"))
    rig.transport.on("https://cdn.example/c", Answer(200, CONFIG))
    assert rig.resolve()
    assert rig.slept == []


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (Answer(404), NotInRegistry),
        (Answer(416), TransportError),
        (Answer(429), RateLimited),
        (Answer(500), ServerError),
        (Answer(503, headers={"Retry-After": "x"}), RateLimited),
        (Answer(204), RegistryError),
        (Answer(200 + 99), RegistryError),
        (Answer(500, b"x" * 100_000), ServerError),
    ],
)
def test_a_blob_that_cannot_be_had_has_its_error_and_is_not_retried(
    answer: Answer, error: type[LayerteeError]
) -> None:
    rig = BlobRig(answer)
    with pytest.raises(error):
        rig.open(0, 3)
    assert len(rig.transport.requests) == 1
    assert all(body.closed for body in rig.transport.bodies)


def test_a_token_refused_midway_is_renewed_once() -> None:
    rig = BlobRig(NEEDS_TOKEN, Answer(206))
    rig.transport.on(REALM, json_answer({"token": "T2"}))
    rig.open(0, 3)
    assert [r.authorization for r in rig.transport.asked(rig.base)] == ["Bearer T", "Bearer T2"]
    rig = BlobRig(NEEDS_TOKEN)
    with pytest.raises(Unauthorized):
        rig.open(0, 3)
    assert len(rig.transport.asked(REALM)) == 1
    assert len(rig.transport.asked(rig.base)) == 2


# --- http -----------------------------------------------------------------------------------


@pytest.mark.parametrize("error", [TLSFailed("not TLS"), ConnectFailed("refused")])
def test_http_is_used_only_where_allowed_and_only_without_tls(error: LayerteeError) -> None:
    rig = Rig("127.0.0.1:5000/x:tag", scheme="http", allow_http=True)
    rig.transport.on("https://127.0.0.1:5000/v2/", error)
    assert rig.resolve()
    assert rig.registry.scheme == "http"
    assert rig.urls()[:2] == ["https://127.0.0.1:5000/v2/", rig.tag]
    rig.resolve()
    assert len(rig.transport.asked("https:")) == 1


def test_https_with_verification_off_comes_first() -> None:
    rig = Rig("127.0.0.1:5000/x:tag", allow_http=True)
    rig.transport.on("https://127.0.0.1:5000/v2/", Answer(401))
    assert rig.resolve()
    assert rig.registry.scheme == "https"
    assert {request.tls for request in rig.transport.requests} == {TLSPolicy(verify=False)}


def test_a_peer_that_stalls_is_not_downgraded() -> None:
    rig = Rig("127.0.0.1:5000/x:tag", scheme="http", allow_http=True)
    rig.transport.on("https://127.0.0.1:5000/v2/", Timeout("stalled"))
    with pytest.raises(Timeout):
        rig.resolve()
    assert not rig.transport.asked("http:")


def test_without_permission_there_is_no_http() -> None:
    rig = Rig()
    rig.transport.on(rig.tag, TLSFailed("not TLS"))
    with pytest.raises(TLSFailed):
        rig.resolve()
    assert not rig.transport.asked("http:")


# --- secrets ---------------------------------------------------------------------------------


def test_no_error_and_no_repr_shows_a_secret() -> None:
    """Every way to fail, with a server that sends back whatever it was told."""
    secrets = (
        PASSWORD,
        "TOKEN-PLANTED",
        "PLANTED-signature",
        base64.b64encode(f"me:{PASSWORD}".encode()).decode(),
    )
    echo = {"errors": [{"message": f"you said {' '.join(secrets)}"}]}
    for status in (400, 401, 403, 404, 416, 429, 500, 503):
        for place in ("registry", "token service", "storage"):
            rig = BlobRig(redirect() if place == "storage" else json_answer(echo, status))
            rig.transport.on(REALM, json_answer({"token": "TOKEN-PLANTED"}))
            if place == "token service":
                rig.transport.on(rig.url, NEEDS_TOKEN)
                rig.transport.on(REALM, json_answer(echo, status))
            elif place == "registry":
                rig.transport.on(rig.url, NEEDS_TOKEN, json_answer(echo, status))
            rig.transport.on(CDN, json_answer(echo, status))
            with pytest.raises(LayerteeError) as caught:
                rig.open(0, 3)
            shown = f"{caught.value} {caught.value!r} {vars(caught.value)} {rig.registry!r}"
            own = [s for s in secrets if place == "storage" or s != "PLANTED-signature"]
            assert not [secret for secret in own if secret in shown], (status, place, shown)


# --- a real transport ----------------------------------------------------------------------------
