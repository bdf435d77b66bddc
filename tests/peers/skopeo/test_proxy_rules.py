"""Which proxy a URL is asked through, against the library of skopeo, podman and all that is written in Go."""

from __future__ import annotations

import itertools
import json
import random
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field

import pytest

from layertee.errors import ProxyConfigError
from layertee.registry.proxies import Proxies
from tests.support.rig.prebuild import NotBuilt, program

PROXY = {"HTTP_PROXY": "http://up.test:3128", "HTTPS_PROXY": "http://ups.test:3129"}
HOSTS = (
    *(
        "registry.corp.test",
        "corp.test",
        "xcorp.test",
        "a.b.corp.test",
        "quay.io",
        "localhost",
        "my.localhost",
    ),
    *("127.0.0.1", "127.8.9.1", "[::1]", "[::ffff:127.0.0.1]", "10.1.2.3", "10.200.0.1", "192.168.7.9"),
    *("[fd00::7]", "[fe80::1]", "[::ffff:10.1.2.3]", "8.8.8.8", "xn--bcher-kva.test", "0.0.0.0", "[::]"),
)
PORTS = ("", ":80", ":443", ":5000", ":8080")
ENTRIES = (
    *("*", "corp.test", ".corp.test", "*.corp.test", "*corp.test", "corp.test:5000", ".corp.test:443"),
    *(
        "*.corp.test:5000",
        "CORP.TEST",
        " corp.test ",
        "registry.corp.test",
        "quay.io:443",
        "quay.io:80",
        "io",
    ),
    *("10.0.0.0/8", "10.1.2.3/8", "10.0.0.0/255.0.0.0", "10.1.2.3", "10.1.2.3:5000", "10.1.2", "10.0.0.0/33"),
    *(
        "192.168.0.0/16",
        "0.0.0.0/0",
        "::/0",
        "fd00::/8",
        "[fd00::7]",
        "[fd00::7]:5000",
        "fd00::7",
        "fd00::7/64",
    ),
    *(
        "::ffff:10.0.0.0/104",
        "::ffff:10.1.2.3",
        "010.1.2.3",
        "bücher.test",
        "localhost",
        "127.0.0.1",
        "8.8.8.8:",
    ),
    *(
        "corp.test:",
        ":443",
        "",
        ",",
        "*:443",
        "*.",
        ".",
        "a:b:c",
        "corp.test:port",
        "corp.test:05000",
        "[",
        "[]",
    ),
    *(
        "fe80::1%eth0",
        "10.1.2.3/08",
        "10.1.2.3/ 8",
        "..corp.test",
        "corp.test.",
        "corp.*",
        "http://corp.test",
    ),
)
VALUES = (
    *(
        "http://up.test:3128",
        "up.test:3128",
        "up.test",
        "https://up.test",
        "https://up.test:444",
        "socks5://up.test",
    ),
    *(
        "socks5h://up.test:1081",
        "http://up.test",
        "http://up.test/",
        "HTTP://up.test:1",
        "http://10.0.0.1:8080",
    ),
    *(
        "http://[fd00::1]:8080",
        "[fd00::1]:8080",
        "http://user:pa%40ss@up.test:3128",
        "user:pass@up.test:3128",
        "",
    ),
    *("http://user@up.test", "http://user:@up.test:1"),
)


@dataclass(frozen=True)
class Row:
    url: str
    env: Mapping[str, str] = field(default_factory=dict)


def rows() -> list[Row]:
    """Those that matter one by one, then what a seeded generator makes of the same parts."""
    made = [Row(f"https://{host}/v2/", PROXY | {"NO_PROXY": entry}) for host in HOSTS for entry in ENTRIES]
    made += [
        Row(f"{scheme}://{host}{port}/v2/", PROXY)
        for scheme, host, port in itertools.product(("http", "https"), HOSTS, PORTS)
    ]
    made += [
        Row(f"{scheme}://quay.io/v2/", {name: value})
        for scheme, value in itertools.product(("http", "https"), VALUES)
        for name in ("HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy")
    ]
    chance = random.Random(20261128)
    names = ("HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy")
    for _ in range(2000):
        env = {name: chance.choice(VALUES) for name in names if chance.random() < 0.6}
        for name in ("NO_PROXY", "no_proxy"):
            if chance.random() < 0.6:
                env[name] = ",".join(chance.choices(ENTRIES[1:], k=chance.randrange(4)))
        if chance.random() < 0.1:
            env["REQUEST_METHOD"] = chance.choice(("GET", ""))
        scheme, host, port = (chance.choice(part) for part in (("http", "https"), HOSTS, PORTS))
        made.append(Row(f"{scheme}://{host}{port}/v2/a/b/manifests/latest", env))
    return made


def ours(row: Row) -> str:
    try:
        proxy = Proxies(row.env).proxy_for(row.url)
    except ProxyConfigError:
        return "error"
    return "" if proxy is None else f"{proxy.scheme} {proxy} {proxy.user}"


def in_our_words(proxy: str) -> str:
    """The URL that Go gives out, with what Go puts in where it connects: the port of the scheme."""
    if not proxy:
        return ""
    scheme, _, rest = proxy.partition("://")
    login, _, host = rest.rstrip("/").rpartition("@")
    if host.rpartition("]")[2].find(":") < 0:
        host += {"http": ":80", "https": ":443"}.get(scheme, ":1080")
    return f"{scheme} {host} {login.partition(':')[0] if login else None}"


@pytest.mark.builds("proxyrules")
def test_the_proxy_is_the_one_that_programs_in_go_use() -> None:
    try:
        tool = program("proxyrules")
    except NotBuilt as exc:
        pytest.skip(f"no library in Go to compare with: {exc}")
    asked = rows()
    lines = "".join(json.dumps({"env": row.env, "url": row.url}) + "\n" for row in asked)
    done = subprocess.run([tool], input=lines, capture_output=True, text=True, check=True, timeout=60)
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(answers) == len(asked) > 2000
    differing = []
    for row, answer in zip(asked, answers, strict=True):
        theirs = "error" if "error" in answer else in_our_words(answer["proxy"])
        if ours(row) != theirs:
            differing.append((row, ours(row), theirs))
    assert differing[:20] == []
