"""Where a login is written, under which key, and what a file says before and after."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from layertee.config.home import User
from layertee.config.loginfile import (
    LoginKey,
    helper_of,
    hosts_of_helpers,
    login_file,
    refuse_store,
    with_login,
    without_login,
)
from layertee.config.logins import Login
from layertee.errors import AuthConfigError, InvalidReference

PATH = Path("/x/auth.json")
QUAY = LoginKey.parse("quay.io")
LOGIN = Login("me", "pass:word")
ENTRY = {"auth": "bWU6cGFzczp3b3Jk"}


@pytest.mark.parametrize(
    ("text", "key", "host"),
    [
        ("quay.io", "quay.io", "quay.io"),
        ("Quay.IO:443", "quay.io:443", "quay.io:443"),
        ("localhost", "localhost", "localhost"),
        ("[::1]:5000", "[::1]:5000", "[::1]:5000"),
        ("quay.io/team", "quay.io/team", "quay.io"),
        ("quay.io/team/app", "quay.io/team/app", "quay.io"),
        ("docker.io", "docker.io", "docker.io"),
        ("index.docker.io", "docker.io", "docker.io"),
        ("docker.io/vendor", "docker.io/vendor", "docker.io"),
        ("https://index.docker.io/v1/", "docker.io", "docker.io"),
        ("http://quay.io/team", "quay.io", "quay.io"),
    ],
)
def test_a_registry_is_named_as_podman_names_it(text: str, key: str, host: str) -> None:
    assert LoginKey.parse(text) == LoginKey(key, host)


@pytest.mark.parametrize(
    "text",
    ["host", "", "/", "quay.io/", "quay.io/ns:tag", "quay.io/Upper", "oci:/x", "quay.io//x", "a b.c",
     "quay.io@x", "quay.io/ns@sha256:" + "0" * 64, "quay.io:99999", "ftp://quay.io", "quay.io\n", "-u.x"],
)  # fmt: skip
def test_what_is_no_registry_is_refused(text: str) -> None:
    with pytest.raises(InvalidReference):
        LoginKey.parse(text)


def user(tmp_path: Path, runtime: Path | None) -> User:
    return User(7, tmp_path, tmp_path, tmp_path, tmp_path, runtime)


def test_the_file_is_the_first_that_is_named(tmp_path: Path) -> None:
    own = user(tmp_path, tmp_path)
    env = {"REGISTRY_AUTH_FILE": "/a", "DOCKER_CONFIG": "/b"}
    assert login_file(Path("/c"), env=env, user=own) == Path("/c")
    assert login_file(env=env, user=own) == Path("/a")
    assert login_file(env={"DOCKER_CONFIG": "/b"}, user=own) == Path("/b/config.json")
    assert login_file(env={}, user=own) == tmp_path / "containers/auth.json"
    assert login_file(env={}, user=user(tmp_path, None)) == Path("/run/containers/7/auth.json")
    with pytest.raises(AuthConfigError, match="XDG_RUNTIME_DIR"):
        login_file(env={}, user=user(tmp_path, tmp_path / "none"))


def test_a_login_replaces_what_the_file_had_for_the_same_registry_however_it_was_written() -> None:
    old = {"x": 1, "auths": {"https://quay.io/v1/": {}, "QUAY.io": ENTRY, "quay.io/ns": {}, "a.b": {}}}
    found = json.loads(with_login(json.dumps(old).encode(), PATH, QUAY, LOGIN))
    assert found == {"x": 1, "auths": {"quay.io/ns": {}, "a.b": {}, "quay.io": ENTRY}}


@pytest.mark.parametrize("raw", [None, b"", b" \n", b"{}", b'{"auths": null}'])
def test_a_file_without_anything_gets_its_first_login(raw: bytes | None) -> None:
    assert json.loads(with_login(raw, PATH, QUAY, LOGIN)) == {"auths": {"quay.io": ENTRY}}
    assert without_login(raw, PATH, QUAY) is None and without_login(raw, PATH, None) is None
    assert helper_of(raw, PATH, QUAY) is None
    refuse_store(raw, PATH)


def test_only_the_login_that_is_meant_is_removed() -> None:
    raw = with_login(b'{"auths": {"quay.io/ns": {"auth": "eDp5"}}, "x": 1}', PATH, QUAY, LOGIN)
    left = without_login(raw, PATH, QUAY)
    assert left is not None and json.loads(left) == {"auths": {"quay.io/ns": {"auth": "eDp5"}}, "x": 1}
    assert without_login(left, PATH, QUAY) is None
    none = without_login(left, PATH, None)
    assert none is not None and json.loads(none) == {"auths": {}, "x": 1}


def test_a_helper_is_for_a_whole_registry() -> None:
    raw = b'{"credHelpers": {"QUAY.io": "box", "other.example": "else"}}'
    assert helper_of(raw, PATH, QUAY) == "box"
    assert helper_of(raw, PATH, LoginKey.parse("quay.io/ns")) is None
    assert hosts_of_helpers(raw, PATH) == {"QUAY.io": "box", "other.example": "else"}


def test_a_program_for_all_logins_that_podman_does_not_ask_is_refused() -> None:
    refuse_store(b'{"credsStore": ""}', PATH)
    with pytest.raises(AuthConfigError, match="credsStore"):
        refuse_store(b'{"credsStore": "desktop"}', PATH)


@pytest.mark.parametrize(
    "raw",
    [b'{"auths": ', b"[]", b'{"auths": []}', b'{"auths": {}, "auths": {}}', b"\xff", b'{"credHelpers": 1}',
     b'{"credHelpers": {"quay.io": 1}}'],
)  # fmt: skip
def test_what_is_no_file_of_logins_is_not_written_over(raw: bytes) -> None:
    with pytest.raises(AuthConfigError, match=str(PATH)):
        helper_of(raw, PATH, QUAY)
        with_login(raw, PATH, QUAY, LOGIN)


def test_a_user_name_has_no_colon() -> None:
    with pytest.raises(AuthConfigError, match="colon"):
        with_login(None, PATH, QUAY, Login("a:b", "c"))
