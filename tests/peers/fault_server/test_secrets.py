"""No secret is sent to an endpoint that it is not for, whatever the endpoints of an image do.

Each case is a mirror and an origin, with a third server that has no business with either. Each login is
planted in one place; afterwards all that reached every server is searched for it, in all its spellings.
"""

from __future__ import annotations

import base64
import itertools
import json
import logging
import traceback
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

from layertee import Engine, Options, PullResult
from layertee.errors import LayerteeError
from layertee.sync import run
from layertee.transfer.limits import FetchLimits
from tests.support.fakes.exchange import RequestRecord
from tests.support.fakes.fault_server import BasicAuth, BearerAuth, FaultServer, Rule, on
from tests.support.fakes.refusals import Status
from tests.support.mirrors import At, write_conf
from tests.support.rig.images import BuiltImage, build_image
from tests.support.rig.layers import text_layer

QUICK = FetchLimits(attempts=2, backoff_s=0.01, stall_s=0.5)
PREFIX = "origin.test/os"
SECRETS = {"mirror": "planted-password-of-the-mirror", "origin": "planted-password-of-the-origin"}

AUTHS = ("open", "basic", "bearer", "foreign")  # foreign: its token service is the third server
SOURCES = ("host key", "namespace key", "helper", "global helper")
LOGINS = (("mirror", "origin"), ("origin",), ("mirror",))
REDIRECTS = ("blob to the third", "blob to the other", "manifest to the third", "manifest to the other")


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> BuiltImage:
    return build_image(tmp_path_factory.mktemp("secret"), [text_layer({"a": "a\n" * 2000})])


@dataclass
class Case:
    """The three servers, under one roof."""

    mirror: FaultServer
    origin: FaultServer
    third: FaultServer

    @property
    def servers(self) -> dict[str, FaultServer]:
        return {"mirror": self.mirror, "origin": self.origin, "third": self.third}


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def auth_of(kind: str, name: str, third: FaultServer) -> BasicAuth | BearerAuth | None:
    match kind:
        case "basic":
            return BasicAuth("me", SECRETS[name])
        case "bearer":
            return BearerAuth("me", SECRETS[name])
        case "foreign":
            return BearerAuth("me", SECRETS[name], realm=f"{third.url}/token")
    return None


def started(stack: ExitStack, image: BuiltImage, mirror: str, origin: str) -> Case:
    third = stack.enter_context(FaultServer({"copy/os:1": image}, auth=BearerAuth()))
    one, two = (
        stack.enter_context(FaultServer({f"{name}/os:1": image}, auth=auth_of(kind, name, third)))
        for name, kind in (("mirror", mirror), ("origin", origin))
    )
    return Case(one, two, third)


def plant(home: Path, case: Case, logins: tuple[str, ...], source: str) -> None:
    """The logins where ``source`` says; the helper knows all of them, and gives each to its host only."""
    hosts = {name: case.servers[name].host for name in logins}
    auths = {}
    for name, host in hosts.items():
        key = f"{host}/{name}" if source == "namespace key" else host
        auths[key] = {"auth": base64.b64encode(f"me:{SECRETS[name]}".encode()).decode()}
    document: dict[str, object] = {"auths": auths}
    if "helper" in source:
        document = {"credHelpers": dict.fromkeys(hosts.values(), "planted")} if source == "helper" else {}
        program = home / "bin/docker-credential-planted"
        program.parent.mkdir()
        answers = "".join(
            f"""{host}) echo '{{"Username": "me", "Secret": "{SECRETS[name]}"}}';; """
            for name, host in hosts.items()
        )
        missing = "*) echo 'credentials not found'; exit 1;;"
        program.write_text(f"#!/bin/sh\nread host\ncase $host in {answers}{missing} esac\n")
        program.chmod(0o755)
    (home / "auth.json").write_text(json.dumps(document))


def pull(home: Path, case: Case, source: str, monkeypatch: pytest.MonkeyPatch) -> PullResult | LayerteeError:
    monkeypatch.setenv("PATH", f"{home}/bin:/usr/bin:/bin")
    conf = write_conf(
        home, PREFIX, [At(f"{case.mirror.host}/mirror/os")], At(f"{case.origin.host}/origin/os")
    )
    if source == "global helper":
        conf.write_text('credential-helpers = ["containers-auth.json", "planted"]\n' + conf.read_text())

    async def main() -> PullResult:
        options = Options(registries_conf=conf, authfile=home / "auth.json", limits=QUICK)
        async with Engine(home / "store", options=options) as engine:
            return await engine.pull(await engine.plan(f"{PREFIX}:1"))

    try:
        return run(main())
    except LayerteeError as exc:
        return exc


def spellings(secret: str) -> list[str]:
    return [
        secret,
        base64.b64encode(f"me:{secret}".encode()).decode(),
        base64.b64encode(secret.encode()).decode(),
    ]


def all_of(request: RequestRecord) -> str:
    return repr((request.target, request.headers, request.body))


def assert_kept(case: Case, caplog: pytest.LogCaptureFixture, outcome: PullResult | LayerteeError) -> None:
    """Each secret, and each token, has been seen at its own server only, and is told to nobody."""
    told = caplog.text
    if isinstance(outcome, LayerteeError):
        told += "".join(traceback.format_exception(outcome)) + repr(getattr(outcome, "__notes__", ""))
    else:
        told += json.dumps(outcome.to_json()) + repr(outcome)
    for name, secret in SECRETS.items():
        for other, server in case.servers.items():
            seen = "".join(map(all_of, server.requests()))
            for text in spellings(secret):
                assert other == name or text not in seen, f"{other} has seen the secret of the {name}"
                assert text not in told
            assert other == name or f"of-{case.servers[name].host}" not in seen, (
                f"{other}: the {name}'s token"
            )
    assert "planted-token" not in told


def can_log_in(kind: str, name: str, logins: tuple[str, ...]) -> bool:
    return kind == "open" or (kind in ("basic", "bearer") and name in logins)


@pytest.mark.parametrize(
    ("mirror", "origin", "logins", "source"),
    [
        pytest.param(*case, id="-".join(map(str, case)).replace(" ", "_"))
        for case in itertools.product(AUTHS, AUTHS, LOGINS, SOURCES)
        if case[:2] != ("open", "open")
    ],
)
def test_each_login_is_seen_where_it_is_for_and_nowhere_else(
    stack: ExitStack,
    image: BuiltImage,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    mirror: str,
    origin: str,
    logins: tuple[str, ...],
    source: str,
) -> None:
    caplog.set_level(logging.DEBUG)
    case = started(stack, image, mirror, origin)
    plant(tmp_path, case, logins, source)
    outcome = pull(tmp_path, case, source, monkeypatch)
    assert_kept(case, caplog, outcome)
    may = can_log_in(mirror, "mirror", logins), can_log_in(origin, "origin", logins)
    assert isinstance(outcome, PullResult) == any(may), outcome
    if isinstance(outcome, PullResult):
        served = [nbytes > 0 for nbytes in outcome.by_endpoint.values()]
        assert served == ([True, False] if may[0] else [False, True])
        if may[0] and mirror != "open":  # where it is for, it is found by the same search
            seen = "".join(map(all_of, case.mirror.requests()))
            assert any(text in seen for text in spellings(SECRETS["mirror"]))


@pytest.mark.parametrize("kind", ["basic", "bearer"])
@pytest.mark.parametrize("at", ["mirror", "origin"])
@pytest.mark.parametrize("leads", REDIRECTS)
def test_no_redirect_takes_a_login_along(
    stack: ExitStack,
    image: BuiltImage,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    kind: str,
    at: str,
    leads: str,
) -> None:
    caplog.set_level(logging.DEBUG)
    case = started(stack, image, kind, kind)
    what, _, where = leads.partition(" to the ")
    other = "origin" if at == "mirror" else "mirror"
    target = case.third if where == "third" else case.servers[other]
    repository = "copy" if where == "third" else other
    reference = image.layers[0].digest if what == "blob" else "1"
    location = f"{target.url}/v2/{repository}/os/{what}s/{reference}"
    rules: list[Rule] = [on(what, Status(307, (("Location", location),)), reference=reference)]
    case.servers[at].script(rules)
    if at == "origin":
        case.mirror.script([on("manifest", Status(404))])
    plant(tmp_path, case, ("mirror", "origin"), "host key")
    assert_kept(case, caplog, pull(tmp_path, case, "host key", monkeypatch))
    case.third.settle()
    assert target.requests(what, reference)
