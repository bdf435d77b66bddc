"""``layertee login`` and ``logout``: podman and skopeo find what is kept, and the other way round."""

from __future__ import annotations

import base64
import json
import os
import pty
import shutil
import stat
import subprocess
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from tests.support.jsonshapes import check
from tests.support.process import PLAIN, Cli, Ran, authfile, snapshot
from tests.support.rig.images import build_image, upload
from tests.support.rig.layers import text_layer
from tests.support.rig.registry import NotInstalled, RegistryServer

pytestmark = pytest.mark.slow
NAME, PASSWORD = "me", "secret-PLANTED"
AUTH = base64.b64encode(f"{NAME}:{PASSWORD}".encode()).decode()


@pytest.fixture(scope="module")
def private(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RegistryServer]:
    """One that wants a login, and has ``app:1``."""
    with RegistryServer(htpasswd=(NAME, PASSWORD)) as server:
        image = build_image(tmp_path_factory.mktemp("private"), [text_layer({"etc/name": "one\n"})])
        upload(image, "app:1", server)
        yield server


@pytest.fixture
def website(tmp_path: Path) -> Iterator[str]:
    """Where a server of web pages listens, that has none."""
    (tmp_path / "pages").mkdir()
    pages = partial(SimpleHTTPRequestHandler, directory=str(tmp_path / "pages"))
    with ThreadingHTTPServer(("127.0.0.1", 0), pages) as server:
        serving = threading.Thread(target=server.serve_forever)
        serving.start()
        yield f"127.0.0.1:{server.server_port}"
        server.shutdown()
        serving.join()


def test_a_server_that_is_no_registry_is_called_so(user: Cli, website: str) -> None:
    told = log_in(user, website, code=1).err
    assert f"there is no registry API at {website}" in told and "manifest" not in told


@pytest.fixture
def session(user: Cli) -> Path:
    """XDG_RUNTIME_DIR of the user."""
    path = user.home / "run"
    path.mkdir()
    return path


def log_in(user: Cli, *args: object, password: str = PASSWORD, code: int = 0, **env: str) -> Ran:
    """``layertee login -u me --password-stdin args…``"""
    command = user.command("login", PLAIN, "-u", NAME, "--password-stdin", *args)
    done = subprocess.run(
        command,
        input=f"{password}\n",
        capture_output=True,
        text=True,
        env=user.environment(**env),
        check=False,
    )
    assert done.returncode == code, f"{done.stdout}\n{done.stderr}"
    assert PASSWORD not in done.stdout + done.stderr and "Traceback" not in done.stderr
    return Ran(done.returncode, done.stdout, done.stderr)


def other_tool(user: Cli, *command: str, code: int = 0, given: str | None = None, **env: Any) -> str:
    """podman or skopeo as the same user."""
    if shutil.which(command[0]) is None:
        raise NotInstalled(f"{command[0]} is not installed")
    environment = user.environment(**env)
    done = subprocess.run(command, input=given, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == code, f"{done.stdout}\n{done.stderr}"
    return done.stdout + done.stderr


def listing(user: Cli, server: RegistryServer, **env: Any) -> str:
    """The tags that skopeo is shown, who finds its login by itself."""
    return other_tool(user, "skopeo", "list-tags", "--tls-verify=false", f"docker://{server.host}/app", **env)


def test_what_is_kept_podman_and_skopeo_use(user: Cli, session: Path, private: RegistryServer) -> None:
    run: dict[str, Any] = {"XDG_RUNTIME_DIR": str(session)}
    told = log_in(user, private.host, **run)
    kept = session / "containers/auth.json"
    assert told.out == f"logged in to {private.host}; the login is in {kept}\n" and told.err == ""
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600 and stat.S_IMODE(kept.parent.stat().st_mode) == 0o700
    assert '"1"' in listing(user, private, **run)
    assert other_tool(user, "podman", "login", "--get-login", private.host, **run).strip() == NAME
    assert user.run("tags", PLAIN, f"{private.host}/app", **run).out == "1\n"
    assert user.run("login", "--get-login", private.host, **run).out == f"{NAME}\n"

    other_tool(user, "podman", "logout", private.host, **run)
    assert "[AUTH_CONFIG]" in user.run("login", "--get-login", private.host, code=1, **run).err


def test_what_podman_keeps_is_used_and_forgotten(user: Cli, session: Path, private: RegistryServer) -> None:
    run: dict[str, Any] = {"XDG_RUNTIME_DIR": str(session)}
    login = ["podman", "login", "--tls-verify=false", "-u", NAME, "--password-stdin", private.host]
    other_tool(user, *login, given=PASSWORD, **run)
    ran = user.run("login", PLAIN, private.host, "--json", **run)
    check("login", json.loads(ran.out))
    assert (ran.json["username"], ran.json["was_checked"]) == (NAME, True)
    gone = json.loads(user.run("logout", private.host, "--json", **run).out)
    check("logout", gone)
    assert gone["removed_from"] == [f"{session}/containers/auth.json"] and gone["left_in"] is None
    assert "there is no login" in user.run("logout", private.host, code=1, **run).err
    other_tool(user, "podman", "login", "--get-login", private.host, code=125, **run)


def test_the_file_has_the_bytes_that_podman_writes(user: Cli, session: Path, private: RegistryServer) -> None:
    run: dict[str, Any] = {"XDG_RUNTIME_DIR": str(session)}
    ours, theirs = user.home / "ours.json", user.home / "theirs.json"
    login = ["podman", "login", "--tls-verify=false", "-u", NAME, "--password-stdin", "--authfile"]
    other_tool(user, *login, str(theirs), private.host, given=PASSWORD, **run)
    log_in(user, "--authfile", ours, private.host)
    assert ours.read_bytes() == theirs.read_bytes()


@pytest.mark.parametrize("variables", [("DOCKER_CONFIG",), ("REGISTRY_AUTH_FILE", "DOCKER_CONFIG")])
def test_it_is_kept_where_podman_would_keep_it(
    user: Cli, session: Path, private: RegistryServer, variables: tuple[str, ...]
) -> None:
    (user.home / "docker").mkdir()
    places = {"REGISTRY_AUTH_FILE": user.home / "named.json", "DOCKER_CONFIG": user.home / "docker"}
    env: dict[str, Any] = {name: str(places[name]) for name in variables} | {"XDG_RUNTIME_DIR": str(session)}
    log_in(user, private.host, **env)
    written = {path for path in snapshot(user.home) if path.endswith(".json")}
    log_out = user.run("logout", private.host, **env)
    assert log_out.err == ""
    for name in written:
        (user.home / name).unlink()
    login = ["podman", "login", "--tls-verify=false", "-u", NAME, "--password-stdin", private.host]
    other_tool(user, *login, given=PASSWORD, **env)
    assert {path for path in snapshot(user.home) if path.endswith(".json")} == written != set()


@pytest.mark.parametrize("damage", ["wrong", ""])
def test_a_login_that_the_registry_does_not_take_is_not_kept(
    user: Cli, session: Path, private: RegistryServer, damage: str
) -> None:
    before = snapshot(user.home)
    told = log_in(user, private.host, password=damage, code=1, XDG_RUNTIME_DIR=str(session)).err
    assert "[UNAUTHORIZED]" in told if damage else "the password is empty" in told
    assert snapshot(user.home) == before


def test_a_registry_without_users_cannot_try_it(user: Cli, session: Path, registry: RegistryServer) -> None:
    told = log_in(user, registry.host, "--json", XDG_RUNTIME_DIR=str(session))
    check("login", json.loads(told.out))
    assert told.json["was_checked"] is False and "could not be tried" in told.err


def test_what_else_is_in_the_file_stays(user: Cli, private: RegistryServer) -> None:
    path = user.home / "auth.json"
    rest = {
        "HttpHeaders": {"A": "b", "a": "c"},
        "credHelpers": {"other.example": "none"},
        "x": [1, None, "ü"],
    }
    entries = {f"https://{private.host}/v1/": {"auth": "eDp5"}, "quay.io": {"auth": "eDp5"}}
    path.write_text(json.dumps({**rest, "auths": entries}))
    path.chmod(0o644)
    link = user.home / "link.json"
    link.symlink_to(path)
    log_in(user, "--authfile", link, private.host)
    assert link.is_symlink() and stat.S_IMODE(path.stat().st_mode) == 0o600
    found = json.loads(path.read_text())
    assert found.pop("auths") == {"quay.io": {"auth": "eDp5"}, private.host: {"auth": AUTH}}
    assert found == rest

    log_in(user, "--authfile", path, f"{private.host}/team")
    assert f"{private.host}/team" in json.loads(path.read_text())["auths"]
    told = user.run("logout", "--authfile", path, f"{private.host}/team")
    assert f"a login that still counts for it is in {path}" in told.err
    lost = user.run("logout", "--authfile", path, "--all", code=1).err  # the helper of another registry
    assert "docker-credential-none, which is not installed" in lost
    assert json.loads(path.read_text()) == {**rest, "auths": {}}


NONE = "{ echo 'credentials not found in native keychain'; exit 1; }"
HELPER = rf"""#!/bin/sh
cd "$HOME"
case "$1" in
store) cat >kept ;;
erase) [ "$(cat)" = "$SERVER" ] && rm kept || {NONE} ;;
get) [ -e kept ] || {NONE}
    sed 's/.*"Username": *\("[^"]*"\).*"Secret": *\("[^"]*"\).*/{{"Username":\1,"Secret":\2}}/' kept ;;
esac
"""


def test_a_helper_that_the_file_names_keeps_the_secret(user: Cli, private: RegistryServer) -> None:
    programs = user.home / "bin"
    programs.mkdir()
    helper = programs / "docker-credential-box"
    helper.write_text(HELPER)
    helper.chmod(0o755)
    env: dict[str, Any] = {"PATH": f"{programs}:/usr/bin:/bin", "SERVER": private.host}
    path = user.home / "auth.json"
    path.write_text(json.dumps({"credHelpers": {private.host: "box"}}))
    before = path.read_bytes()
    told = log_in(user, "--authfile", path, private.host, **env)
    assert "the login is in docker-credential-box" in told.out
    assert path.read_bytes() == before
    assert json.loads((user.home / "kept").read_text()) == {
        "ServerURL": private.host,
        "Username": NAME,
        "Secret": PASSWORD,
    }
    assert '"1"' in listing(user, private, REGISTRY_AUTH_FILE=str(path), **env)
    out = user.run("logout", "--authfile", path, private.host, **env).out
    assert out == "removed from docker-credential-box\n" and not (user.home / "kept").exists()
    assert "there is no login" in user.run("logout", "--authfile", path, private.host, code=1, **env).err

    path.write_text(json.dumps({"credHelpers": {private.host: "lost"}}))
    assert "not installed" in log_in(user, "--authfile", path, private.host, code=1, **env).err


def test_a_file_that_cannot_be_changed_safely_is_left(user: Cli, private: RegistryServer) -> None:
    path = user.home / "auth.json"
    path.write_text('{"credsStore": "desktop"}')
    told = log_in(user, "--authfile", path, private.host, code=1).err
    assert "[AUTH_CONFIG]" in told and "credsStore" in told
    assert path.read_text() == '{"credsStore": "desktop"}'

    shared = user.home / "shared"
    shared.mkdir()
    shared.chmod(0o777)
    before = snapshot(shared)
    assert "[UNSAFE_PATH]" in log_in(user, "--authfile", shared / "auth.json", private.host, code=1).err
    assert snapshot(shared) == before


def test_what_a_killed_process_left_is_no_matter(user: Cli, private: RegistryServer) -> None:
    path = authfile(user.home / "auth.json", "quay.io", "a", "b")
    (user.home / "auth.json.layertee-new").write_text("half")
    log_in(user, "--authfile", path, private.host)
    assert set(json.loads(path.read_text())["auths"]) == {"quay.io", private.host}
    assert not (user.home / "auth.json.layertee-new").exists()


def test_it_is_asked_for_at_a_terminal(user: Cli, session: Path, private: RegistryServer) -> None:
    controller, terminal = pty.openpty()
    process = subprocess.Popen(
        user.command("login", PLAIN, private.host),
        stdin=terminal,
        stdout=terminal,
        stderr=terminal,
        start_new_session=True,
        env=user.environment(XDG_RUNTIME_DIR=str(session)),
    )
    os.close(terminal)
    seen = b""

    def until(words: bytes) -> None:
        nonlocal seen
        while words not in seen:
            seen += os.read(controller, 4096)

    until(b"user name:")
    os.write(controller, f"{NAME}\n".encode())
    until(b"password:")
    os.write(controller, f"{PASSWORD}\n".encode())
    until(b"logged in to")
    assert process.wait(100) == 0
    os.close(controller)
    assert PASSWORD.encode() not in seen
    assert AUTH in (session / "containers/auth.json").read_text()


def test_a_runtime_directory_that_is_not_there(user: Cli, private: RegistryServer) -> None:
    told = log_in(user, private.host, code=1, XDG_RUNTIME_DIR=str(user.home / "none")).err
    assert "[AUTH_CONFIG]" in told and "XDG_RUNTIME_DIR" in told
