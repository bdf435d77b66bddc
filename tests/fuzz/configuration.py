"""Targets: the configuration files of other tools that decide what this program does."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import cache
from pathlib import Path

from layertee.config.home import User
from layertee.config.logins import Credentials
from layertee.config.policy import Policy
from layertee.config.policyfile import parse_policy
from layertee.config.registries import Registries
from layertee.config.registries_d import SignatureConfig
from layertee.config.registries_file import load
from layertee.config.shortnames import candidates
from layertee.config.storage import find_roots
from layertee.config.tomlfile import NotToml, parse_toml
from layertee.errors import LayerteeError
from layertee.image.reference import Reference, parse_reference, parse_short_name
from layertee.image.reference_storage import parse_storage
from tests.fuzz.documents import HEX, WORDS_OF_JSON
from tests.fuzz.target import Target, file_of, scratch

_NAMES = (
    "quay.io/team/app:1",
    f"b.a.example.com:5000/team/app@sha256:{HEX}",
    "docker.io/library/busybox",
    "localhost:5000/x:1",
)
_WORDS_OF_TOML = (
    b"[[registry]]",
    b"[[registry.mirror]]",
    b'"""',
    b"'''",
    b"[a.b]",
    b"= {",
    b"\\x41",
    b"\\e",
    b"=[",
)
_CONF = b"""unqualified-search-registries = ["a.example.com", "quay.io"]
short-name-mode = "enforcing"
credential-helpers = ["containers-auth.json"]
[aliases]
"busybox" = "quay.io/busybox"
[[registry]]
prefix = "*.example.com"
location = "b.example.net/x"
blocked = false
insecure = true
  [[registry.mirror]]
  location = "m.example.org:5000"
  pull-from-mirror = "digest-only"
[[registry]]
location = "quay.io/team"
blocked = true
"""


def references() -> list[Reference]:
    found = [parse_reference(name) for name in _NAMES]
    return [each for each in found if isinstance(each, Reference)]


def toml(raw: bytes) -> object:
    found = parse_toml(raw)
    lines = raw.count(b"\n") + 1
    assert all(1 <= each.line <= lines for each in found.statements)
    return found


def registries_conf(raw: bytes) -> object:
    conf = load(file_of(raw, "registries.conf"), named=True)
    assert conf is not None
    found = Registries((conf,))
    for image in references():
        with suppress(LayerteeError):
            assert found.endpoints(image)
    with suppress(LayerteeError):
        candidates(parse_short_name("busybox"), found, None).unasked()
    return found


def _conf_seeds() -> Iterator[bytes]:
    yield _CONF
    yield b'[registries.search]\nregistries = ["x"]\n'
    yield b'registry = [{location = "a.example.com", mirror = [{location = "x.io",},],},]\n'
    yield b'\xef\xbb\xbfx = "\\e\\x41"\r\ny = """a\r\n"""\r\n'


def registries_d(raw: bytes) -> object:
    directory = scratch() / "registries.d"
    directory.mkdir(exist_ok=True)
    (directory / "a.yaml").write_bytes(raw)
    found = SignatureConfig.read(directory, env={}, user=_user(0))
    return [found.places(image) for image in references()]


def _d_seeds() -> Iterator[bytes]:
    yield b"default-docker:\n  lookaside: file:///var\n  use-sigstore-attachments: true\n"
    yield b"docker:\n  quay.io/team:\n    lookaside: https://x/\n  localhost:5000: {sigstore: 'y'}\n"
    yield b"a: &a [1, *a]\nb: !!binary aGk=\nc: 2026-01-01\nd: 0x1f\n<<: {e: .nan}\n"
    yield b"? [a]\n: |\n  x\n"


def _user(uid: int) -> User:
    return User.of({"HOME": "/root" if uid == 0 else "/home/u"}, uid)


def storage_conf(raw: bytes) -> object:
    """By root and by another user."""
    path = file_of(raw, "storage.conf")
    env = {"CONTAINERS_STORAGE_CONF": str(path), "HOME": "/root", "X": "/x"}
    nowhere = Path("/nonexistent")
    any_store = parse_storage("containers-storage:")
    found = [find_roots(any_store, environ=env, uid=uid, admin=nowhere, vendor=nowhere) for uid in (0, 1000)]
    assert all(root.is_absolute() for roots in found for root in roots.roots)
    return found


def _storage_seeds() -> Iterator[bytes]:
    yield b"""[storage]
driver = "overlay"
graphroot = "$HOME/${X}/storage"
imagestore = "/i"
rootless_storage_path = "/r/$UID"
[storage.options]
additionalimagestores = ["/a", "/b", {append=true}]
"""
    yield b'[Storage]\nDriver = "vfs"\n'


def policy_json(raw: bytes) -> object:
    found = Policy(Path("/policy.json"), *parse_policy(raw, "policy.json"))
    for image in references():
        found.judge(image)
    found.judge(parse_reference("oci:/tmp/x:1"))
    found.judge_other("docker-daemon", "x:1")
    return found


def _policy_seeds() -> Iterator[bytes]:
    anything, signed = [{"type": "insecureAcceptAnything"}], {"type": "signedBy", "keyType": "GPGKeys"}
    identities = [
        {"type": "matchExact"},
        {"type": "exactReference", "dockerReference": "quay.io/x:1"},
        {"type": "exactRepository", "dockerRepository": "quay.io/x"},
        {"type": "remapIdentity", "prefix": "quay.io", "signedPrefix": "example.com/x"},
    ]
    fulcio = {"caPath": "/c", "oidcIssuer": "https://i", "subjectEmail": "a@b"}
    pki = {"caRootsPath": "/c", "subjectHostname": "h"}
    sections = {
        "docker": {
            "": [{"type": "reject"}],
            "quay.io/team": [signed | {"keyData": "aGk=", "signedIdentity": each} for each in identities],
            "*.example.com": [{"type": "sigstoreSigned", "fulcio": fulcio, "rekorPublicKeyPath": "/k"}],
            "localhost:5000/x": [{"type": "sigstoreSigned", "pki": pki}],
        },
        "oci": {"/tmp": anything},
        "containers-storage": {f"[overlay@/s]x@{HEX}": anything},
        "atomic": {"h/n/s:t": anything},
    }
    yield json.dumps({"default": anything, "transports": sections}).encode()
    yield json.dumps({"default": [{"type": "signedBaseLayer", "baseLayerIdentity": identities[0]}]}).encode()


@cache
def _loop() -> asyncio.AbstractEventLoop:
    loop = asyncio.new_event_loop()
    loop.set_default_executor(ThreadPoolExecutor(1))
    return loop


def auth_json(raw: bytes) -> object:
    """No helper is run: there is none on the path that is given."""
    path = file_of(raw, "auth.json")
    found = Credentials(path, env={"PATH": "/nonexistent"}, user=_user(0))
    seen = []
    for registry, repository in (
        ("quay.io", "team/app"),
        ("docker.io", "library/x"),
        ("localhost:5000", "x"),
    ):
        seen.append(_loop().run_until_complete(found.explain(registry, repository)))
        login = _loop().run_until_complete(found.lookup(registry, repository))
        assert login is None or repr(login) == f"Login(source={login.source!r})"
    return seen


def _auth_seeds() -> Iterator[bytes]:
    auth = base64.b64encode(b"user:secret").decode()
    auths = {
        "quay.io": {"auth": auth},
        "quay.io/team": {"auth": base64.b64encode(b"<token>:t").decode()},
        "https://index.docker.io/v1/": {"identitytoken": "abc", "auth": auth},
        "localhost:5000": {"auth": auth + "\r\n"},
    }
    yield json.dumps({"auths": auths}).encode()
    yield json.dumps({"auths": {}, "credHelpers": {"quay.io": "x"}, "credsStore": "y"}).encode()
    yield b"  "


TARGETS = (
    Target("toml", toml, _conf_seeds, _WORDS_OF_TOML, (NotToml,)),
    Target(
        "registries-conf",
        registries_conf,
        _conf_seeds,
        (*_WORDS_OF_TOML, b"location", b"prefix", b"*.example.com"),
    ),
    Target(
        "registries-d",
        registries_d,
        _d_seeds,
        (b"docker:", b"lookaside:", b"!!", b"&a", b"*a", b"<<:", b"? "),
    ),
    Target(
        "storage-conf",
        storage_conf,
        _storage_seeds,
        (*_WORDS_OF_TOML, b"[storage]", b"graphroot", b"${", b"$UID"),
    ),
    Target(
        "policy-json", policy_json, _policy_seeds, (*WORDS_OF_JSON, b"transports", b"type", b"signedIdentity")
    ),
    Target(
        "auth-json",
        auth_json,
        _auth_seeds,
        (*WORDS_OF_JSON, b"auths", b"auth", b"identitytoken", b"credsStore"),
    ),
)
