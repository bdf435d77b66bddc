"""Which hosts may be talked to, and which may be told a secret."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from layertee.errors import RedirectRefused
from layertee.registry.origins import (
    Origin,
    Reach,
    may_know_secret,
    peer_problem,
    reach,
    realm_problem,
    redirect_target,
)

QUAY = Origin("https", "quay.io", 443)
LOCAL = Origin("http", "127.0.0.1", 5000)


def test_an_origin_is_scheme_host_and_port() -> None:
    assert Origin.of("https://Quay.IO/v2/?q#f") == QUAY
    assert Origin.of("http://[::1]:80/") == Origin("http", "::1", 80)
    assert Origin.of("https://quay.io:444/") != QUAY
    assert str(Origin.of("http://[::1]:8080/x")) == "http://[::1]:8080"
    assert str(QUAY) == "https://quay.io"


@pytest.mark.parametrize(
    "url", ["", "quay.io", "ftp://quay.io/", "https:///x", "https://a:99999/", "https://a:0/"]
)
def test_what_has_no_http_origin_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match=r".+"):
        Origin.of(url)


@pytest.mark.parametrize(
    ("host", "kind"),
    [
        ("quay.io", Reach.PUBLIC),
        ("8.8.8.8", Reach.PUBLIC),
        ("2606:4700::1", Reach.PUBLIC),
        ("10.1.2.3", Reach.PRIVATE),
        ("192.168.0.1", Reach.PRIVATE),
        ("fd12::1", Reach.PRIVATE),
        ("localhost", Reach.LOOPBACK),
        ("LOCALHOST.", Reach.LOOPBACK),
        ("x.localhost", Reach.LOOPBACK),
        ("ip6-localhost", Reach.LOOPBACK),
        ("64:ff9b::7f00:1", Reach.LOOPBACK),
        ("64:ff9b::a9fe:a9fe", Reach.LINK_LOCAL),
        ("64:ff9b::808:808", Reach.PUBLIC),
        ("::127.0.0.1", Reach.LOOPBACK),
        ("::ffff:0:127.0.0.1", Reach.LOOPBACK),
        ("::10.1.2.3", Reach.PRIVATE),
        ("::8.8.8.8", Reach.PUBLIC),
        ("::1", Reach.LOOPBACK),
        ("::", Reach.LOOPBACK),
        ("168.63.129.16", Reach.LINK_LOCAL),
        ("64:ff9b:1::a9fe:a9fe", Reach.LINK_LOCAL),
        ("64:ff9b::6464:64c8", Reach.LINK_LOCAL),
        ("2002:a9fe:a9fe::", Reach.LINK_LOCAL),
        ("fd00:0ec2:0::254", Reach.LINK_LOCAL),
        ("127.0.0.1", Reach.LOOPBACK),
        ("127.8.9.1", Reach.LOOPBACK),
        ("0.0.0.0", Reach.LOOPBACK),
        ("::1", Reach.LOOPBACK),
        ("::", Reach.LOOPBACK),
        ("::ffff:127.0.0.1", Reach.LOOPBACK),
        ("169.254.169.254", Reach.LINK_LOCAL),
        ("fe80::1", Reach.LINK_LOCAL),
        ("::ffff:169.254.169.254", Reach.LINK_LOCAL),
        ("fd00:ec2::254", Reach.LINK_LOCAL),
        ("100.100.100.200", Reach.LINK_LOCAL),
        ("metadata.google.internal", Reach.LINK_LOCAL),
        ("2130706433", Reach.LINK_LOCAL),
        ("0x7f000001", Reach.LINK_LOCAL),
        ("127.1", Reach.LINK_LOCAL),
        ("0177.0.0.1", Reach.LINK_LOCAL),
    ],
)
def test_hosts_that_lead_inside_are_recognised(host: str, kind: Reach) -> None:
    assert reach(host) is kind


@pytest.mark.parametrize(
    ("location", "target"),
    [
        ("https://cdn.example/x?sig=1#f", "https://cdn.example/x?sig=1"),
        ("//cdn.example/x", "https://cdn.example/x"),
        ("/other", "https://quay.io/other"),
        ("other", "https://quay.io/v2/a/other"),
        ("https://10.0.0.5:9000/x", "https://10.0.0.5:9000/x"),
        ("https://cdn.example/a%2Fb?x=%2B", "https://cdn.example/a%2Fb?x=%2B"),
    ],
)
def test_redirects_are_followed_to_other_hosts(location: str, target: str) -> None:
    assert redirect_target("https://quay.io/v2/a/blobs", location, QUAY) == target


@pytest.mark.parametrize(
    "location",
    [
        "http://cdn.example/x",
        "http://quay.io/x",
        "file:///etc/passwd",
        "ftp://cdn.example/x",
        "javascript:alert(1)",
        "https://user:secret@cdn.example/x",
        "https://user@cdn.example/x",
        "https://@cdn.example/x",
        "https://169.254.169.254/latest/meta-data",
        "https://[fe80::1]/",
        "https://127.0.0.1/",
        "https://localhost:8443/",
        "https://[::1]/",
        "https://2130706433/",
        "https://metadata.google.internal/",
        "https://cdn.example\\@good.example/",
        "https://exa mple/",
        "https://cdn.example/\r\nX: y",
        "https://cdn.exämple/",
        "https://[::1/",
        "https://cdn.example:x/",
        "https://cdn.example/" + "x" * 20000,
    ],
)
def test_redirects_that_must_not_be_followed(location: str) -> None:
    with pytest.raises(RedirectRefused) as caught:
        redirect_target("https://quay.io/v2/a/blobs?token=hunter2", location, QUAY)
    assert "hunter2" not in str(caught.value)
    assert "secret" not in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("address", "home", "problem"),
    [
        ("8.8.8.8", ("registry.test",), None),
        ("10.1.2.3", ("8.8.8.8",), None),
        ("127.0.0.1", ("8.8.8.8",), "in this machine"),
        ("127.0.0.1", ("registry.test",), "in this machine"),
        ("127.0.0.1", (), "in this machine"),
        ("127.0.0.1", ("127.0.0.1", "::1"), None),
        ("127.0.0.1", ("127.0.0.1", "8.8.8.8"), "in this machine"),
        ("169.254.1.1", ("169.254.1.2",), "link-local, or of this machine's cloud"),
        ("169.254.1.1", ("169.254.1.1",), None),
        ("169.254.169.254", ("127.0.0.1",), "link-local, or of this machine's cloud"),
    ],
)
def test_where_a_host_may_be_that_a_registry_names(
    address: str, home: tuple[str, ...], problem: str | None
) -> None:
    assert peer_problem(address, home) == problem


@pytest.mark.parametrize(
    ("location", "target"),
    [
        ("/b?n=caf\u00e9%20x", "https://quay.io/b?n=caf%C3%A9%20x"),
        ("https://cdn.example/caf\udce9", "https://cdn.example/caf%E9"),
    ],
)
def test_bytes_of_a_name_in_a_redirect_are_quoted(location: str, target: str) -> None:
    assert redirect_target("https://quay.io/a", location, QUAY) == target
    with pytest.raises(RedirectRefused):
        redirect_target("https://quay.io/a", "https://caf\u00e9.example/", QUAY)


def test_a_loopback_registry_may_redirect_to_loopback_but_not_to_metadata() -> None:
    at = "http://127.0.0.1:5000/v2/a"
    assert redirect_target(at, "http://localhost:9000/x", LOCAL) == "http://localhost:9000/x"
    assert redirect_target(at, "https://cdn.example/x", LOCAL) == "https://cdn.example/x"
    with pytest.raises(RedirectRefused):
        redirect_target(at, "http://169.254.169.254/x", LOCAL)


@given(st.text(max_size=60))
def test_any_location_is_a_url_or_a_typed_error(location: str) -> None:
    try:
        target = redirect_target("https://quay.io/v2/a", location, QUAY)
    except RedirectRefused:
        return
    assert Origin.of(target).scheme == "https"


@pytest.mark.parametrize(
    "realm",
    [
        "http://auth.quay.io/token",
        "https://169.254.169.254/token",
        "https://127.0.0.1/token",
        "https://10.0.0.1/token",
        "https://[::1]/token",
        "https://localhost/token",
        "https://metadata.google.internal/token",
        "https://u:p@quay.io/token",
        "ftp://quay.io/token",
        "/token",
        "",
        "https://quay.io/to ken",
        "https://quay.io/\n",
    ],
)
def test_realms_that_are_not_asked(realm: str) -> None:
    assert realm_problem(realm, QUAY, allow_http=False)


def test_realms_at_the_registry_itself_are_asked() -> None:
    assert realm_problem("https://quay.io/v2/auth", QUAY, allow_http=False) is None
    assert realm_problem("https://auth.docker.io/token", QUAY, allow_http=False) is None
    assert realm_problem("http://127.0.0.1:9999/token", LOCAL, allow_http=True) is None
    assert realm_problem("http://127.0.0.1:9999/token", LOCAL, allow_http=False)
    assert realm_problem("http://10.0.0.1/token", LOCAL, allow_http=True) is None


# --- who is told the secret ----------------------------------------------------------------------------

NAMED = frozenset({"sso.trusted.example", "sso.other.example:8443"})


@pytest.mark.parametrize(
    ("registry", "realm"),
    [
        # as they answer
        ("quay.io", "https://quay.io/v2/auth"),
        ("ghcr.io", "https://ghcr.io/token"),
        ("gcr.io", "https://gcr.io/v2/token"),
        ("europe-docker.pkg.dev", "https://europe-docker.pkg.dev/v2/token"),
        ("public.ecr.aws", "https://public.ecr.aws/token/"),
        ("mine.azurecr.io", "https://mine.azurecr.io/oauth2/token"),
        ("mine.jfrog.io", "https://mine.jfrog.io/artifactory/api/docker/v2/token"),
        ("registry.redhat.io", "https://registry.redhat.io/auth/realms/rhcc/protocol/redhat-docker-v2/auth"),
        ("nvcr.io", "https://nvcr.io/proxy_auth"),
        ("cgr.dev", "https://cgr.dev/token"),
        ("codeberg.org", "https://codeberg.org/v2/token"),
        ("harbor.example.com", "https://harbor.example.com/service/token"),
        # GitLab's registry is on another port of its host, unless it is given a name of its own
        ("gitlab.example.com:5050", "https://gitlab.example.com/jwt/auth"),
        # by vendors, on another host
        ("registry-1.docker.io", "https://auth.docker.io/token"),
        ("index.docker.io", "https://auth.docker.io/token"),
        ("registry.hub.docker.com", "https://auth.docker.io/token"),
        ("registry.gitlab.com", "https://gitlab.com/jwt/auth"),
        ("registry.digitalocean.com", "https://api.digitalocean.com/v2/registry/auth"),
        ("docker.elastic.co", "https://docker-auth.elastic.co/auth"),
        ("registry.cn-hangzhou.aliyuncs.com", "https://dockerauth.cn-hangzhou.aliyuncs.com/auth"),
        ("crpi-1.cn-beijing.personal.cr.aliyuncs.com", "https://dockerauth.aliyuncs.com/auth"),
        # by the user
        ("registry.example.com", "https://sso.trusted.example/token"),
        ("registry.example.com", "https://sso.trusted.example:444/token"),
        ("registry.example.com", "https://sso.other.example:8443/token"),
    ],
)
def test_token_services_that_are_told_the_secret(registry: str, realm: str) -> None:
    assert may_know_secret(realm, Origin.of(f"https://{registry}/"), NAMED)


@pytest.mark.parametrize(
    ("registry", "realm"),
    [
        # tenants of one domain
        ("a.fly.dev", "https://evil.fly.dev/token"),
        ("a.onrender.com", "https://evil.onrender.com/token"),
        ("a.ngrok.io", "https://evil.ngrok.io/token"),
        ("a.up.railway.app", "https://evil.up.railway.app/token"),
        ("a.duckdns.org", "https://evil.duckdns.org/token"),
        ("mine.azurecr.io", "https://yours.azurecr.io/token"),
        ("mine.jfrog.io", "https://yours.jfrog.io/token"),
        ("europe-docker.pkg.dev", "https://us-docker.pkg.dev/token"),
        ("1.dkr.ecr.us-east-1.amazonaws.com", "https://evil.us-east-1.amazonaws.com/token"),
        ("registry.cn-hangzhou.aliyuncs.com", "https://evil.oss-cn-hangzhou.aliyuncs.com/auth"),
        ("registry.co.uk", "https://evil.co.uk/token"),
        # parents, children and siblings, whoever they belong to
        ("registry.example.com", "https://example.com/token"),
        ("registry.example.com", "https://auth.registry.example.com/token"),
        ("registry.example.com", "https://auth.example.com/token"),
        ("quay.io", "https://auth.quay.io/token"),
        ("registry", "https://auth.registry/token"),
        ("10.0.0.1", "https://1.10.0.0.1/token"),
        ("10.0.0.1", "https://10.0.0.2/token"),
        # look-alikes
        ("quay.io", "https://evilquay.io/token"),
        ("quay.io", "https://quay.io.evil.example/token"),
        ("quay.io", "https://quay.io@evil.example/token"),
        ("registry.gitlab.com", "https://gitlab.com.evil.example/jwt/auth"),
        ("registry.gitlab.com", "https://evilgitlab.com/jwt/auth"),
        ("registry-1.docker.io", "https://authxdocker.io/token"),
        ("registry.cn-hangzhou.aliyuncs.com", "https://dockerauth.evil.example.aliyuncs.com/auth"),
        # one vendor's service is not another's
        ("quay.io", "https://auth.docker.io/token"),
        ("registry.gitlab.com", "https://auth.docker.io/token"),
        ("evil.registry.gitlab.com", "https://gitlab.com/jwt/auth"),
        ("evilregistry.gitlab.com", "https://gitlab.com/jwt/auth"),
        # http
        ("quay.io", "http://quay.io/token"),
        ("registry-1.docker.io", "http://auth.docker.io/token"),
        ("registry.example.com", "http://sso.trusted.example/token"),
        # what the user named, and no more
        ("registry.example.com", "https://evil.sso.trusted.example/token"),
        ("registry.example.com", "https://sso.other.example/token"),
    ],
)
def test_token_services_that_are_not_told_the_secret(registry: str, realm: str) -> None:
    assert not may_know_secret(realm, Origin.of(f"https://{registry}/"), NAMED)


def test_a_registry_without_tls_shares_its_secret_with_its_own_origin_and_what_is_named() -> None:
    assert may_know_secret("http://127.0.0.1:5000/token", LOCAL, frozenset())
    assert not may_know_secret("http://127.0.0.1:9999/token", LOCAL, frozenset())
    assert not may_know_secret("https://127.0.0.1:9999/token", LOCAL, frozenset())
    assert may_know_secret("http://127.0.0.1:9999/token", LOCAL, frozenset({"127.0.0.1:9999"}))
    assert not may_know_secret("http://auth.docker.io/token", LOCAL, frozenset())
