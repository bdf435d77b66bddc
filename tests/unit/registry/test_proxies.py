"""The proxies of an environment, where no program in Go is needed to know what is right."""

from __future__ import annotations

import pytest

from layertee.errors import ProxyConfigError
from layertee.registry.proxies import Proxies

UP = {"https_proxy": "http://up.test:3128"}


def proxy(url: str, **environ: str) -> str:
    return str(Proxies(environ).proxy_for(url) or "none")


@pytest.mark.parametrize(
    ("no_proxy", "host", "through"),
    [
        ("", "registry.corp.test", True),
        ("corp.test", "registry.corp.test", False),
        ("corp.test", "corp.test", False),
        ("corp.test", "xcorp.test", True),
        (".corp.test", "corp.test", True),
        ("*.corp.test", "corp.test", True),
        ("*.corp.test", "registry.corp.test:5000", False),
        ("corp.test:443", "corp.test", False),
        ("corp.test:443", "corp.test:5000", True),
        ("CORP.test , other", "corp.test", False),
        ("10.0.0.0/8", "10.9.8.7:5000", False),
        ("10.0.0.0/8", "11.9.8.7", True),
        ("10.9.8.7", "10.9.8.7:5000", False),
        ("10.9.8.7:443", "10.9.8.7:5000", True),
        ("fd00::/8", "[fd12::1]", False),
        ("other,*", "corp.test", False),
        ("", "localhost:5000", False),
        ("", "LocalHost", False),
        ("", "127.0.0.1:5000", False),
        ("", "[::1]", False),
    ],
)
def test_what_needs_no_proxy_is_asked_directly(no_proxy: str, host: str, through: bool) -> None:
    want = "up.test:3128" if through else "none"
    assert proxy(f"https://{host}/v2/", **UP, no_proxy=no_proxy) == want
    assert proxy(f"https://{host}/v2/", **UP, NO_PROXY=no_proxy) == want


def test_small_letters_go_before_capitals_and_schemes_are_apart() -> None:
    both = {"https_proxy": "small.test", "HTTPS_PROXY": "capital.test", "all_proxy": "all.test"}
    assert proxy("https://quay.io/", **both) == "small.test:80"
    assert proxy("https://quay.io/", **(both | {"https_proxy": ""})) == "capital.test:80"
    assert proxy("http://quay.io/", **both) == "none"


def test_a_cgi_program_does_not_believe_its_client() -> None:
    environ = {"HTTP_PROXY": "evil.test", "HTTPS_PROXY": "up.test:1", "REQUEST_METHOD": "GET"}
    with pytest.raises(ProxyConfigError, match="HTTP_PROXY is not used where REQUEST_METHOD is set"):
        proxy("http://quay.io/", **environ)
    assert proxy("https://quay.io/", **environ) == "up.test:1"


@pytest.mark.parametrize(
    "value",
    [
        "http://",
        "http://:3128",
        "http://up.test:planted",
        "http://up.test:99999",
        "http://up.test:0",
        "http://user:planted#1@up.test:3128",
        "http://user:planted/1@up.test:3128",
        "http://user:planted?1@up.test:3128",
        "http://up.test:3128/planted",
        "http://up.test:3128\r",
        "http://up test:3128",
        "http://[fd00::1:3128",
        "up.test:3128, planted.test",
        "planted planted",
        "ftp://up.test",
        "socks4://user:planted@up.test",
        "://up.test",
    ],
)
def test_a_value_that_is_no_proxy_is_an_error_that_names_the_variable_only(value: str) -> None:
    with pytest.raises(ProxyConfigError) as caught:
        proxy("https://quay.io/", HTTPS_PROXY=value)
    assert str(caught.value).startswith("HTTPS_PROXY ")
    assert "planted" not in str(caught.value)
    assert proxy("https://localhost/", HTTPS_PROXY=value) == "none"
    assert proxy("http://quay.io/", HTTPS_PROXY=value) == "none"


def test_a_proxy_shows_neither_its_user_nor_its_password() -> None:
    found = Proxies({"https_proxy": "http://planted:pl%61nted@up.test"}).proxy_for("https://quay.io/")
    assert found is not None
    assert (found.user, found.password, found.basic) == ("planted", "planted", "cGxhbnRlZDpwbGFudGVk")
    assert "planted" not in f"{found} {found!r} {found.url}"
